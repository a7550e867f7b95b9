"""`fourfold show`: what is in a file and what made it, for ours and for strangers' files."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from fourfold.files.table import SCHEMAS, make_table, write_table
from fourfold.pipeline.cli import main
from fourfold.surfaces.checkpoint import save_checkpoint

MADE_BY = {
    "settings": {"bezier": {"lr": 0.4, "degree": [2, 2]}},
    "seeds": {"bezier": {"corners": [0, 1, 2, 3], "fit": 1000}},
    "data_sha256": "d" * 64,
    "git": {"commit": "0123456789", "dirty": True},
}
FACTS = ["0.4", "[0, 1, 2, 3]", "1000", "d" * 64, "0123456789", "true"]


def show(path, capsys, *arguments):
    assert main(["show", str(path), *arguments]) == 0
    return capsys.readouterr().out


def test_a_table_shows_its_rows_and_what_made_it(tmp_path, capsys):
    rows = [
        dict.fromkeys(SCHEMAS["barrier"].names[5:], 0.25 * i)
        | {"surface": "bezier", "split": "test", "metric": "nll", "sample_at_max": "edge"}
        for i in range(30)
    ]
    table = make_table("barrier", rows, experiment="e", replicate=0)
    write_table("barrier", table, tmp_path / "t.parquet", MADE_BY)
    out = show(tmp_path / "t.parquet", capsys, "--rows", "3")
    shown = [
        f"table barrier: 30 rows, {len(SCHEMAS['barrier'])} columns",
        "first 3 rows",
        "0.50",
        *FACTS,
    ]
    assert [fact for fact in shown if fact not in out] == []
    assert "0.75" not in out
    assert "rows:" not in show(tmp_path / "t.parquet", capsys, "--rows", "0")


def test_a_checkpoint_shows_its_shapes_and_what_made_it(tmp_path, capsys):
    state = {"w": torch.zeros(3, 5), "steps": torch.tensor(4)}
    save_checkpoint(state, tmp_path / "c.safetensors", MADE_BY)
    out = show(tmp_path / "c.safetensors", capsys)
    assert [fact for fact in ["w  F32 [3, 5]", "steps  I64 []", *FACTS] if fact not in out] == []


def test_foreign_files_are_shown_without_provenance(tmp_path, capsys):
    pd.DataFrame({"a": [1, 2]}).to_parquet(tmp_path / "t.parquet")
    save_file({"w": torch.zeros(2)}, tmp_path / "c.safetensors")
    for name in ("t.parquet", "c.safetensors"):
        assert "not recorded" in show(tmp_path / name, capsys)


def test_letters_that_the_terminal_lacks_are_shown_as_escapes(tmp_path):
    save_checkpoint({"w": torch.zeros(1)}, tmp_path / "c.safetensors", {"classes": ["Café", "猫"]})
    command = [sys.executable, "-m", "fourfold", "show", tmp_path / "c.safetensors"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    shown = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert rb'classes: ["Caf\xe9", "\u732b"]' in shown.stdout


def test_a_reader_that_stops_early_is_no_error(tmp_path):
    save_checkpoint({"w": torch.zeros(1)}, tmp_path / "c.safetensors", {})
    command = [sys.executable, "-m", "fourfold", "show", tmp_path / "c.safetensors"]
    end, begin = os.pipe()
    os.close(end)  # what `| head` does when it has seen enough
    shown = subprocess.run(command, stdout=begin, stderr=subprocess.PIPE)
    os.close(begin)
    assert (shown.returncode, shown.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["absent.parquet", "t.parquet", "c.safetensors", "n.txt"])
def test_what_can_not_be_shown_is_one_message(tmp_path, name, capsys):
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(b"PAR1 no table PAR1")
    assert main(["show", str(tmp_path / name)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert name in printed.err
    assert printed.err.count("\n") == 1
