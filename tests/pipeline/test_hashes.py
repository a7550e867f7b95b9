"""Recorded hashes: every change of a result is found, and named."""

import json

import pytest

from fourfold.errors import InputError
from fourfold.pipeline.cli import main
from fourfold.pipeline.hashes import NAME, compare_hashes, record_hashes, unrecorded_files


@pytest.fixture
def folder(tmp_path):
    """A results folder with two recorded files, a log, and the state of an unfinished job."""
    for name in ("a/tables/grid.parquet", "a/figures/f.png", "a/log/x.log", "a/unfinished-b/s"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    record_hashes(
        [tmp_path / "a/tables/grid.parquet", tmp_path / "a/figures/f.png"], tmp_path / "a"
    )
    return tmp_path


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


def test_untouched_files_are_equal_and_logs_and_states_are_no_results(folder, capsys):
    assert {state for state, _ in compare_hashes(folder / "a" / NAME)} == {"equal"}
    assert unrecorded_files(folder) == []
    assert main(["verify", str(folder)]) == 0
    assert "2 files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: flip_a_bit(f / "a/figures/f.png"), "differs: {}/a/figures/f.png"),
        (lambda f: (f / "a/figures/f.png").unlink(), "missing: {}/a/figures/f.png"),
        (lambda f: (f / "a/figures/new.png").write_text("x"), "not recorded: {}/a/figures/new.png"),
        (lambda f: (f / "summary.md").write_text("x"), "not recorded: {}/summary.md"),
    ],
)
def test_each_change_is_named_and_the_exit_status_is_1(folder, change, said, capsys):
    change(folder)
    assert main(["verify", str(folder)]) == 1
    printed = capsys.readouterr()
    assert printed.out.strip() == said.format(folder)
    assert "snakemake" in printed.err


def test_equal_files_give_an_equal_record(folder):
    files = [folder / "a/figures/f.png", folder / "a/tables/grid.parquet"]
    before = (folder / "a" / NAME).read_bytes()
    assert record_hashes(files, folder / "a").read_bytes() == before


def test_nothing_to_verify_is_an_error(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 1
    assert NAME in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "absent")]) == 1


def test_only_files_below_the_folder_are_recorded(folder):
    with pytest.raises(InputError, match="not below"):
        record_hashes([folder / "a/figures/f.png"], folder / "a" / "tables")
    with pytest.raises(InputError, match="no file"):
        record_hashes([folder / "a/figures/g.png"], folder / "a")


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "x/../../y"])
def test_a_record_can_not_point_outside_its_folder(tmp_path, name):
    entry = {"bytes": 1, "sha256": "0"}
    record = {"format": "fourfold-hashes-1", "files": {name: entry}}
    (tmp_path / NAME).write_text(json.dumps(record))
    with pytest.raises(InputError, match="outside"):
        list(compare_hashes(tmp_path / NAME))


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"format": 1, "files": []}', "[" * 100_000])
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(InputError, match="damaged"):
        list(compare_hashes(tmp_path / NAME))
