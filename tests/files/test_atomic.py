"""Laws of atomic files: complete, or not there."""

import os
import stat

import pytest

from fourfold.files.atomic import atomic_path, write_text


def test_a_finished_block_leaves_the_file_alone_in_its_folder(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("done")
        assert (temporary.parent, temporary.suffix) == (path.parent, ".txt")
        assert not path.exists()
    assert list(path.parent.iterdir()) == [path]
    assert path.read_text() == "done"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [[], ["old"]])
def test_a_failed_block_leaves_the_old_file_and_nothing_else(before, error, tmp_path):
    for text in before:
        write_text(tmp_path / "a.txt", text)
    with pytest.raises(error), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert [path.read_text() for path in tmp_path.iterdir()] == before


def test_two_writers_of_one_file_do_not_share_a_temporary_one(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_path(path) as first, atomic_path(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last


def test_the_file_has_the_permissions_that_the_mask_gives(tmp_path):
    mask = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
