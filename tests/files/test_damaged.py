"""Laws of files that anybody may have written: no code runs, the end is a value or one message."""

import io
import json
import pickle
import struct
import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes

from fourfold.data.dataset import Dataset, Split
from fourfold.data.sources import load_source
from fourfold.errors import FourfoldError, InputError
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.files.reading import reading
from fourfold.files.table import make_table, read_head, read_metadata, read_table, write_table
from fourfold.files.tensors import state_hash
from fourfold.pipeline.commands._settings import read_settings
from fourfold.pipeline.params import read_params
from fourfold.pipeline.yaml_file import check_yaml
from fourfold.surfaces.checkpoint import load_checkpoint, save_checkpoint
from fourfold.surfaces.shapes import SQUARE
from fourfold.surfaces.surface import BezierSurface
from fourfold.training.snapshots import Snapshots

ROOT = Path(__file__).parents[2]
# The same examples in every run, whatever the machine's speed.
LAW = settings(max_examples=40, deadline=None, derandomize=True, database=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)

# --- one valid file of each kind, and what reads it -----------------------------------------------


def state_of(seed):
    draw = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(4, 3, generator=draw),
        "b": torch.randn(4, generator=draw).half(),
        "bn.running_mean": torch.randn(4, generator=draw),
        "bn.num_batches_tracked": torch.tensor(seed),
    }


def make_surface(path):
    BezierSurface.from_corners([state_of(k) for k in range(4)]).save(path, {"seed": 3})


def make_logits(path):
    logits, own, labels = torch.randn(5, 6, 3).half(), torch.randn(4, 6, 3).half(), torch.arange(6)
    points = [*SQUARE.corner_coordinates, (0.5, 0.5)]
    SurfaceLogits(
        "linear", SQUARE, "own", points, {"val": logits}, {"val": own}, {"val": labels % 3}
    ).save(path, {})


def make_data(path):
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 4, 4), generator=draw).to(torch.uint8)
    split = Split(images, torch.arange(6) % 3, torch.arange(6))
    Dataset.from_splits(
        "toy", ["a", "b", "c"], dict.fromkeys(("train", "val", "test"), split)
    ).save(path.parent)


def make_state(path):
    Snapshots(path.parent, {"lr": 0.1}).save({"step": 3, "w": torch.ones(4, 3)})


def read_state(path):
    snapshots = Snapshots(path.parent, {"lr": 0.1})
    snapshots.load()
    assert snapshots.seconds_before >= 0


def make_grid(path):
    row = {"surface": "bezier", "sample": "grid", "split": "test", "statistics": "own"}
    row |= dict.fromkeys(("u", "v", "w", "nll", "accuracy", "ece", "brier"), 0.5)
    row |= dict.fromkeys(("n", "statistics_images"), 7)
    write_table("grid", make_table("grid", [row] * 50, experiment="e", replicate=0), path, {"a": 1})


def read_grid(path):
    read_metadata(path)
    read_table("grid", path).to_json()
    read_head(path, 3)


def encoded(kind):
    file = io.BytesIO()
    Image.fromarray(np.arange(108, dtype=np.uint8).reshape(6, 6, 3)).save(file, kind)
    return file.getvalue()


def make_images(path, *images):
    images = images or (encoded("PNG"), encoded("JPEG"))
    table = {"img": [{"bytes": one} for one in images], "label": list(range(len(images)))}
    pq.write_table(pa.table(table), path)


def read_images(path):
    source = load_source({"name": "parquet", "train": path.name}, path.parent)
    assert len(source.images) == len(source.labels)


def write_settings(path):
    network = {"name": "resnet18", "width": 2, "stem": "3x3"}
    path.write_text(json.dumps({"network": network, "augment": {"shift": 1, "flip": True}}))


def write_params(path):
    path.write_bytes((ROOT / "tests" / "params.tiny.yaml").read_bytes())


def load_split(path):
    dataset = Dataset.load(path.parent)
    for split in dataset.splits.values():
        assert torch.isfinite(dataset.normalize(split.images)).all()


KINDS = {
    "c.safetensors": (lambda path: save_checkpoint(state_of(0), path, {"a": 1}), load_checkpoint),
    "surface.safetensors": (make_surface, lambda path: BezierSurface.load(path).point(0.3, 0.7)),
    "logits.safetensors": (make_logits, SurfaceLogits.load),
    "val.safetensors": (make_data, load_split),
    "state.safetensors": (make_state, read_state),
    "c.pt": (lambda path: torch.save({"model": state_of(0), "epoch": 3}, path), load_checkpoint),
    "legacy.pt": (
        lambda path: torch.save(state_of(0), path, _use_new_zipfile_serialization=False),
        load_checkpoint,
    ),
    "grid.parquet": (make_grid, read_grid),
    "images.parquet": (make_images, read_images),
    "settings.json": (
        write_settings,
        lambda path: read_settings(f"@{path}", "network", "augment"),
    ),
    "params.yaml": (write_params, read_params),
}
SAFETENSORS = [name for name in KINDS if name.endswith(".safetensors")]


VALID: dict[str, bytes] = {}


def is_read(name, change=lambda content: content):
    """Read a changed file; return whether it ends in a value, False if in one message."""
    make, read = KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        make(path)
        # A state names its seconds, and hypothesis wants the same bytes each time.
        path.write_bytes(change(VALID.setdefault(name, path.read_bytes())))
        try:
            read(path)
        except FourfoldError as error:
            assert folder in str(error)
            assert str(error).replace("\n", "").isprintable()
            return False
    return True


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_a_valid_file_is_read(name):
    assert is_read(name)


def damage(draw, content):
    """Cut the content off, or exchange a piece of it, more often near its ends."""
    reach = draw.draw(st.sampled_from([len(content), 100, 1000]))
    at = draw.draw(st.integers(0, min(reach, len(content))))
    at = at if draw.draw(st.booleans()) else len(content) - at
    if draw.draw(st.booleans()):
        return content[:at]
    piece = draw.draw(st.binary(max_size=9) | st.just(b"\xff\xff\xff\xff\xff\xff\xff\x7f"))
    return content[:at] + piece + content[at + draw.draw(st.sampled_from([0, len(piece), 64])) :]


@pytest.mark.parametrize("name", KINDS)
@LAW
@given(draw=st.data())
def test_a_damaged_file_is_read_or_refused_by_name(name, draw):
    is_read(name, lambda content: damage(draw, content))


@pytest.mark.parametrize("name", KINDS)
@LAW
@given(content=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_by_name(name, content):
    is_read(name, lambda _: content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@LAW
@given(draw=st.data())
def test_a_damaged_image_in_a_parquet_file_is_read_or_refused_by_name(kind, draw):
    images = io.BytesIO()
    make_images(images, encoded(kind), damage(draw, encoded(kind)))
    is_read("images.parquet", lambda _: images.getvalue())


@pytest.mark.parametrize("name", ["settings.json", "params.yaml"])
@LAW
@given(value=JSON)
def test_any_json_is_read_or_refused_by_name(name, value):
    is_read(name, lambda _: json.dumps(value).encode())


@pytest.mark.parametrize("name", SAFETENSORS)
@LAW
@given(draw=st.data())
def test_any_header_and_any_tensor_is_read_or_refused_by_name(name, draw):
    def change(content):
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["fourfold"])
        tensors = load_bytes(content)
        key, other = draw.draw(st.sampled_from(sorted(header))), draw.draw(JSON)
        inner = header[key]
        if draw.draw(st.booleans()):  # the header stays, and has the hash of what is there
            changed = draw.draw(st.sampled_from(sorted(tensors)))
            dtype = draw.draw(st.sampled_from([torch.float32, torch.uint8, torch.int64]))
            shape = draw.draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
            tensors[changed] = torch.full(shape, 3).to(dtype)
            header["sha256"] = state_hash(tensors)
        elif isinstance(inner, dict) and inner and draw.draw(st.booleans()):
            inner[draw.draw(st.sampled_from(sorted(inner)))] = other
        else:
            header[key] = other
        return save_bytes(tensors, {"fourfold": json.dumps(header)})

    is_read(name, change)


@pytest.mark.parametrize("metadata", [b"[]", b"{", b"[" * 100_000])
def test_metadata_of_a_table_that_is_no_object_is_refused(metadata, tmp_path):
    make_grid(path := tmp_path / "t.parquet")
    pq.write_table(pq.read_table(path).replace_schema_metadata({"fourfold": metadata}), path)
    with pytest.raises(InputError, match=r"t\.parquet: its metadata"):
        read_metadata(path)


def test_a_footer_that_contradicts_itself_does_not_end_the_process():
    """Histograms of missing values where none may be missing."""

    def contradict(content):
        changed = content.replace(b"\x25\x02\x18", b"\x25\x00\x18")
        assert changed != content
        return changed

    is_read("grid.parquet", contradict)


# --- code -----------------------------------------------------------------------------------------


class Call:
    """Unpickling this opens a file for writing."""

    def __init__(self, path):
        self.call = (open, (str(path), "w"))

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "save",
    [
        torch.save,
        lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
        *(lambda x, path, n=n: path.write_bytes(pickle.dumps(x, n)) for n in (0, 2, 4)),
    ],
)
def test_code_in_a_pickle_does_not_run(save, tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "trap.pt"
    save({"w": torch.zeros(1), "x": Call(sprung)}, path)
    with pytest.raises(InputError, match=r"trap\.pt"):
        load_checkpoint(path)
    assert not sprung.exists()


def test_attributes_that_hide_the_methods_of_a_dictionary_are_not_called(tmp_path):
    state = OrderedDict(w=3)
    vars(state).update(keys=2, values=3, get=4)
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(InputError, match="no state dict"):
        load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    "text",
    [
        "x: !!python/object/apply:os.mkdir [sprung]",
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


# --- what is no damage ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["params.yaml", "tests/params.tiny.yaml", "dvc.yaml"])
def test_the_yaml_of_this_repository_passes(name):
    check_yaml(ROOT / name)


@pytest.mark.parametrize("mistake", [TypeError, AttributeError, IndexError, AssertionError])
def test_a_mistake_of_ours_is_not_reported_as_a_damaged_file(mistake):
    with pytest.raises(mistake), reading("t.parquet", "table"):
        raise mistake


@pytest.mark.parametrize("damage", [OSError, EOFError, ValueError, KeyError, UnicodeError])
def test_what_a_library_says_of_damage_is_reported_with_the_path(damage):
    refused = pytest.raises(InputError, match=r"t\.parquet is no readable table.*'\\x1b\[2J'")
    with refused, reading("t.parquet", "table"):
        raise damage("'\x1b[2J'")
