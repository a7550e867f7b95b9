"""Laws of files that anybody may have written: they run nothing, and end in a value or one message.

The same files by the thousand, with time and memory measured: `python tests/fuzz_files.py`.
"""

import json
import pickle
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from attacks import ATTACKS, Call, attack, torch_file, valid
from conftest import differing
from hypothesis import given, settings
from hypothesis import strategies as st
from untrusted_files import (
    KINDS,
    join_safetensors,
    mutate,
    outcome,
    split_safetensors,
)

from fourfold.errors import InputError
from fourfold.files.reading import parse_json, reading
from fourfold.files.table import SCHEMAS, make_table, read_head, read_table, write_table
from fourfold.pipeline.cli import main
from fourfold.pipeline.yaml_file import check_yaml
from fourfold.surfaces.checkpoint import load_checkpoint, save_checkpoint

# The same examples in every run, whatever the machine's speed.
LAW = settings(max_examples=40, deadline=None, derandomize=True, database=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def outcome_of(name, content):
    """Put other contents into a valid file of a kind and read it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / KINDS[name].name
        KINDS[name].make(path)
        path.write_bytes(content)
        return outcome(KINDS[name], path)


# --- any bytes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_a_valid_file_is_read(name):
    assert outcome_of(name, valid(name)) == "read"


@pytest.mark.parametrize("name", KINDS)
@LAW
@given(seed=st.integers(0, 2**32))
def test_a_changed_file_is_read_or_refused_by_name(name, seed):
    changed = mutate(KINDS[name], random.Random(seed), valid(name))
    assert outcome_of(name, changed) in ("read", "refused")


@pytest.mark.parametrize("name", KINDS)
@LAW
@given(content=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_by_name(name, content):
    assert outcome_of(name, content) in ("read", "refused")


@pytest.mark.parametrize(
    "name", ["checkpoint", "surface", "logits", "examples", "data", "snapshot"]
)
@LAW
@given(draw=st.data())
def test_any_json_in_a_header_is_read_or_refused_by_name(name, draw):
    header, tensors = split_safetensors(valid(name))
    ours = json.loads(header["__metadata__"]["fourfold"])
    key = draw.draw(st.sampled_from(sorted(ours)))
    value = draw.draw(JSON)
    if isinstance(ours[key], dict) and draw.draw(st.booleans()):
        ours[key][draw.draw(st.sampled_from(sorted(ours[key]) or ["x"]))] = value
    else:
        ours[key] = value
    header["__metadata__"]["fourfold"] = json.dumps(ours)
    assert outcome_of(name, join_safetensors(header, tensors)) in ("read", "refused")


@pytest.mark.parametrize("name", ["settings", "params"])
@LAW
@given(value=JSON)
def test_any_json_is_read_or_refused_by_name(name, value):
    assert outcome_of(name, json.dumps(value).encode()) in ("read", "refused")


@pytest.mark.parametrize("name", ATTACKS)
def test_what_a_stranger_may_think_of_is_refused_by_name(name, tmp_path):
    assert outcome(*attack(tmp_path / "x", name)) == "refused"


def test_the_program_finds_no_broken_law():
    program = Path(__file__).parents[1] / "fuzz_files.py"
    command = [sys.executable, str(program), "--count", "30", "--kinds", "surface", "table"]
    done = subprocess.run(
        [*command, "--seconds", "60"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 changed files of 2 kinds" in done.stdout
    assert done.stdout.count(" 30 files") == 2


@pytest.mark.parametrize(
    "name", ["folder.safetensors", "x" * 300 + ".safetensors", "a\0.pt", "a.pt"]
)
def test_a_path_that_is_no_file_is_refused(name, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(InputError, match="no file at"):
        load_checkpoint(tmp_path / name)


# --- code -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("protocol", [0, 2, 4, None])
def test_code_in_a_pickle_does_not_run(suffix, protocol, tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / f"trap{suffix}"
    content = {"w": torch.zeros(1), "x": Call(open, str(sprung), "w")}
    path.write_bytes(torch_file(content) if protocol is None else pickle.dumps(content, protocol))
    with pytest.raises(InputError, match=rf"trap\{suffix}"):
        load_checkpoint(path)
    assert not sprung.exists()


def test_code_in_a_type_of_a_parquet_file_does_not_run(tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "trap.parquet"
    trap = pickle.dumps(Call(open, str(sprung), "w"))
    names = ("arrow.py_extension_type", "arrow.json", "pandas.period")
    for name in names:
        metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": trap}
        field = pa.field("nll", pa.binary(), metadata=metadata)
        pq.write_table(pa.table([pa.array([b"x"])], pa.schema([field])), path)
        with pytest.raises(InputError, match=r"trap\.parquet"):
            read_table("grid", path)
        try:
            read_head(path, 3)
        except InputError as error:
            assert "trap.parquet" in str(error)
        assert not sprung.exists()


@pytest.mark.parametrize(
    "text",
    [
        "x: !!python/object/apply:os.mkdir [sprung]",
        "x: !!python/object/new:os.mkdir [sprung]",
        "x: !!python/name:os.system",
        "__use_yte__: true\n__variables__: {a: ?__import__('os').mkdir('sprung')}",
        "<<: {__use_yte__: true}\n?__import__('os').mkdir('sprung'): 1",
        "- &a {? __use_yte__ : 1}\n- <<: *a",
    ],
)
def test_code_in_yaml_is_refused_before_anything_reads_it(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=r"params\.yaml, line \d"):
        check_yaml(tmp_path / "params.yaml")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["c\x1b[2J\ud800", "\r\n\t", "../../x"])
def test_names_in_a_file_send_nothing_to_the_terminal(name, tmp_path, capsys):
    header = {"__metadata__": {"fourfold": json.dumps({"settings": {name: name}, "device": name})}}
    (tmp_path / "c.safetensors").write_bytes(join_safetensors(header, b""))
    assert main(["show", str(tmp_path / "c.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in printed)


# --- what is honest is read -----------------------------------------------------------------------


def test_a_checkpoint_of_thousands_of_tensors_is_read(tmp_path):
    state = {f"blocks.{k}.some.long.name.of.a.layer.weight": torch.ones(2, 3) for k in range(9000)}
    save_checkpoint(state, tmp_path / "c.safetensors")
    assert differing(load_checkpoint(tmp_path / "c.safetensors"), state) == []


def test_a_layer_that_is_used_many_times_is_read(tmp_path):
    weight = torch.randn(300, 300)
    state = {f"layer{k}.weight": weight for k in range(48)}
    save_checkpoint(state, tmp_path / "c.safetensors")
    torch.save(state, tmp_path / "c.pt")
    for suffix in ("safetensors", "pt"):
        loaded = load_checkpoint(tmp_path / f"c.{suffix}")
        assert differing(loaded, state) == []
        assert len({tensor.data_ptr() for tensor in loaded.values()}) == 1


def test_a_long_table_of_equal_values_is_read(tmp_path):
    rows = 50_000
    frame = pd.DataFrame(
        {
            field.name: "none" if field.type == pa.string() else np.zeros(rows)
            for field in SCHEMAS["grid"]
        }
    ).astype({"n": int})
    table = make_table("grid", frame, experiment="digits-resnet18", replicate=0)
    write_table("grid", table, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(
        read_table("grid", tmp_path / "t.parquet"), table, check_dtype=False
    )


def test_a_table_that_pandas_wrote_with_an_index_is_read(tmp_path):
    rows = [dict.fromkeys(SCHEMAS["barrier"].names[2:], 0.5) | {"replicate": 0}] * 5
    texts = {"surface": "bezier", "split": "test", "metric": "nll", "sample_at_max": "edge"}
    table = make_table("barrier", pd.DataFrame(rows).assign(**texts), experiment="e", replicate=0)
    table[table.index > 2].to_parquet(tmp_path / "t.parquet")
    assert len(read_table("barrier", tmp_path / "t.parquet")) == 2


@pytest.mark.parametrize("name", ["params.yaml", "tests/params.tiny.yaml", "dvc.yaml"])
def test_the_yaml_of_this_repository_passes(name):
    check_yaml(Path(__file__).parents[2] / name)


def test_json_that_is_nested_too_deeply_is_no_json():
    assert parse_json("[" * 100 + "]" * 100)
    with pytest.raises(ValueError, match="nested"):
        parse_json("[" * 1_000_000)


# --- what is no damage ----------------------------------------------------------------------------


@pytest.mark.parametrize("mistake", [TypeError, AttributeError, IndexError, AssertionError])
def test_a_mistake_of_ours_is_not_reported_as_a_damaged_file(mistake):
    with pytest.raises(mistake), reading("t.parquet", "table"):
        raise mistake


@pytest.mark.parametrize("damage", [OSError, EOFError, ValueError, KeyError, UnicodeError])
def test_what_a_library_says_of_damage_is_reported_with_the_path(damage):
    refused = pytest.raises(InputError, match=r"t\.parquet is no readable table.*'\\x1b\[2J'")
    with refused, reading("t.parquet", "table"):
        raise damage("'\x1b[2J'")
