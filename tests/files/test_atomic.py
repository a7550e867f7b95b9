"""Laws of atomic files: complete, or not there."""

import os
import stat

import pytest

from fourfold.files.atomic import atomic_path, write_text


def test_a_finished_block_leaves_the_file_alone_in_its_folder(tmp_path):
    with atomic_path(tmp_path / "new" / "folder" / "a.txt") as temporary:
        temporary.write_text("done")
        assert not (tmp_path / "new" / "folder" / "a.txt").exists()
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "folder" / "a.txt").read_text() == "done"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_block_leaves_the_old_file_and_nothing_else(error, tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_block_without_an_old_file_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="stop"), atomic_path(tmp_path / "a.txt"):
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_file_has_the_suffix_and_the_folder_of_the_final_one(tmp_path):
    with atomic_path(tmp_path / "a.parquet") as temporary:
        assert temporary.suffix == ".parquet"
        assert temporary.parent == tmp_path


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
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
