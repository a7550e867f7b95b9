"""Valid files of every kind that is read, ways to change them, and readers that use what they get.

`fuzz_files.py` and `test_untrusted.py` share these; `attacks.py` adds files made by hand.
"""

import contextlib
import copy
import io
import json
import random
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes

from fourfold.data.dataset import Dataset, Split
from fourfold.data.sources import load_source
from fourfold.errors import FourfoldError, InputError
from fourfold.evaluation.logits import Examples, SurfaceLogits
from fourfold.files.table import (
    SCHEMAS,
    make_table,
    read_head,
    read_metadata,
    read_table,
    write_table,
)
from fourfold.files.tensors import state_hash
from fourfold.pipeline.cli import main as fourfold
from fourfold.pipeline.commands._settings import read_settings
from fourfold.pipeline.params import read_params
from fourfold.pipeline.params_check import check_params
from fourfold.surfaces.checkpoint import load_checkpoint, save_checkpoint
from fourfold.surfaces.surface import CORNER_COORDINATES, BezierSurface
from fourfold.training.snapshots import Snapshots

_PARAMS = Path(__file__).parent / "params.tiny.yaml"
_SCHEMA = Path(__file__).parent.parent / "workflow" / "schemas" / "params.schema.yaml"
NAN = float("nan")

Mutator = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Kind:
    """A kind of file: how to make a valid one in a folder, to change its bytes, and to read it."""

    name: str  # of the file
    make: Callable[[Path], None]
    read: Callable[[Path], None]
    mutators: tuple[Mutator, ...]


def outcome(kind: Kind, path: Path) -> str:
    """Read a file; return `read`, `refused`, or how a law is broken."""
    try:
        kind.read(path)
    except FourfoldError as error:
        message = str(error)
        if path.name not in message and str(path.parent) not in message:
            return f"the message does not name the file: {message}"
        if "\n" in message or len(message) > 2000:
            return f"the message is not one line: {message[:300]!r}"
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return "read"


# --- bytes ----------------------------------------------------------------------------------------


def _position(draw: random.Random, content: bytes) -> int:
    """Choose a place, more often near the ends, where headers and footers are."""
    size = len(content)
    reach = draw.choice([size, min(size, 64), min(size, 1000)])
    offset = draw.randrange(max(reach, 1))
    return offset if draw.random() < 0.5 else max(size - 1 - offset, 0)


def flip_bits(draw: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8])):
        if changed:
            changed[_position(draw, content)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def overwrite(draw: random.Random, content: bytes) -> bytes:
    """Put random bytes, constants, or the largest integers somewhere."""
    at, length = _position(draw, content), draw.choice([1, 4, 8, 100])
    piece = draw.choice(
        [
            draw.randbytes(length),
            b"\0" * length,
            b"\xff" * length,
            struct.pack("<i", draw.choice([-1, 2**31 - 1, -(2**31)])),
            struct.pack("<q", draw.choice([-1, 2**63 - 1, 2**40, -(2**63)])),
            b"\xff\xff\xff\xff\x0f",  # the largest integers where seven bits lie in a byte
            b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ]
    )
    if draw.random() < 0.3:
        return content[:at] + piece + content[at:]
    return content[:at] + piece + content[at + len(piece) :]


def cut(draw: random.Random, content: bytes) -> bytes:
    """Truncate, or take a piece out."""
    at = _position(draw, content)
    return content[:at] + content[at + draw.choice([len(content), 1, 8, 100]) :]


def splice(draw: random.Random, content: bytes) -> bytes:
    """Repeat a piece of the file somewhere else in it, instead of what is there or before it."""
    start, at = _position(draw, content), _position(draw, content)
    piece = content[start : start + draw.choice([1, 8, 64, 1000])] * draw.choice([1, 1, 50])
    return content[:at] + piece + content[at + draw.choice([0, len(piece)]) :]


def randomize(draw: random.Random, content: bytes) -> bytes:
    """Return random bytes, with the beginning of the file or without."""
    return content[: draw.choice([0, 0, 4, 8, 40])] + draw.randbytes(draw.choice([0, 1, 9, 999]))


BYTES = (flip_bits, flip_bits, overwrite, overwrite, cut, splice, randomize)


# --- JSON -----------------------------------------------------------------------------------------


def odd_value(draw: random.Random) -> object:
    """Return a value that a reader may not expect."""
    nested: object = []
    for _ in range(draw.choice([3, 60, 400])):
        nested = [nested]
    return draw.choice(
        [
            *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**30, 10**4000),
            *(0.5, 1e308, NAN, float("inf"), "", "x", "F64", "float8_e4m3fn", "x" * 5000),
            *("../../etc/passwd", "/dev/zero", "\0", "\ud800", "\x1b[2J", "a/b/../c", "~", "con"),
            *([], [[]], {}, {"": {}}, [0] * 5000, [1, 2], ["a", "a"], [2**62, 2**62], [0, 2**62]),
            nested,
        ]
    )


def mutate_json(draw: random.Random, value: object) -> object:
    """Return a copy of a JSON value with a few places changed, removed, added, or exchanged."""
    root = [copy.deepcopy(value)]
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        parent, key = root, 0
        while isinstance(parent[key], (dict, list)) and parent[key] and draw.random() < 0.8:
            parent = parent[key]
            key = draw.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        action = draw.random()
        if action < 0.6 or parent is root:
            parent[key] = odd_value(draw)
        elif action < 0.75:
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, copy.deepcopy(draw.choice(parent)))
        else:
            name = odd_value(draw)
            other = draw.choice([name if isinstance(name, str) else str(name)[:9], *parent])
            parent[other] = copy.deepcopy(parent[key])
    return root[0]


def mutate_json_text(draw: random.Random, content: bytes) -> bytes:
    return json.dumps(mutate_json(draw, json.loads(content))).encode()


# --- safetensors ----------------------------------------------------------------------------------


def split_safetensors(content: bytes) -> tuple[dict, bytes]:
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def join_safetensors(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def mutate_outer_header(draw: random.Random, content: bytes) -> bytes:
    """Change offsets, shapes and dtypes of tensors, or their names."""
    header, data = split_safetensors(content)
    return join_safetensors(mutate_json(draw, header), data)


def mutate_header(draw: random.Random, content: bytes) -> bytes:
    """Change fourfold's own header."""
    header, data = split_safetensors(content)
    ours = mutate_json(draw, json.loads(header["__metadata__"]["fourfold"]))
    header["__metadata__"]["fourfold"] = json.dumps(ours)
    return join_safetensors(header, data)


def mutate_tensors(draw: random.Random, content: bytes) -> bytes:
    """Change tensors, and give the file the hash that belongs to them."""
    tensors = load_bytes(content)
    ours = json.loads(split_safetensors(content)[0]["__metadata__"]["fourfold"])
    name = draw.choice(list(tensors))
    tensor = tensors[name]
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
             torch.uint8, torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn)  # fmt: skip
    action = draw.randrange(8)
    if action == 0:
        del tensors[name]
    elif action == 1:
        tensors[name] = tensor.to(draw.choice(kinds))
    elif action == 2:
        tensors[name] = tensor.reshape(draw.choice([(-1,), (1, -1), (-1, 1), (-1, 1, 1)]))
    elif action == 3:
        tensors[name] = tensor[:0] if tensor.ndim else tensor[None]
    elif action == 4:
        value = draw.choice([NAN, float("inf"), -1.0, 2.0**40])
        whole = tensor.flatten().double()
        whole[draw.randrange(max(whole.numel(), 1)) :][:1] = value
        tensors[name] = whole.to(tensor.dtype).reshape(tensor.shape)
    elif action == 5:
        tensors[str(odd_value(draw))[:50].encode("utf-8", "replace").decode()] = tensor.clone()
    elif action == 6:
        tensors[name] = torch.zeros(draw.choice([(), (0,), (0, 2**40), (3, 0, 2)]))
    else:
        other = draw.choice(list(tensors))
        tensors[name], tensors[other] = tensors[other].clone(), tensor.clone()
    ours["sha256"] = hash_of(ours, tensors)
    return save_bytes(tensors, {"fourfold": json.dumps(ours)})


def hash_of(header: dict, tensors: dict) -> str:
    if header.get("split"):
        return Split(
            **{k: tensors.get(k, torch.zeros(0)) for k in ("images", "labels", "index")}
        ).sha256()
    return state_hash(tensors)


SAFETENSORS = (*BYTES, mutate_outer_header, mutate_header, mutate_header, mutate_tensors)


# --- files of torch.save --------------------------------------------------------------------------


def mutate_archive(draw: random.Random, content: bytes) -> bytes:
    """Change the pickle in the archive, or compress, repeat, remove or rename entries."""
    file, changed = io.BytesIO(content), io.BytesIO()
    action = draw.randrange(5)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(changed, "w") as new:
        names = old.namelist()
        chosen = draw.choice(names)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of names that are there twice
            for name in names:
                data, compression = old.read(name), zipfile.ZIP_STORED
                if action <= 1 and name.endswith(".pkl"):
                    data = _mutate_pickle(draw, data)
                elif name == chosen and action == 2:
                    data, compression = bytes(10_000_000), zipfile.ZIP_DEFLATED
                elif name == chosen and action == 3:
                    data = draw.choice(BYTES)(draw, data)
                elif name == chosen:
                    if draw.random() < 0.5:
                        continue
                    name = draw.choice([*names, "../../x", name + "/../y", "\\x"])
                new.writestr(name, data, compression)
    return changed.getvalue()


def _mutate_pickle(draw: random.Random, data: bytes) -> bytes:
    """Exchange small integers for huge ones (sizes, strides, offsets), or change bytes."""
    places = [at for at in range(len(data) - 1) if data[at : at + 1] == b"K"]
    if not places or draw.random() < 0.4:
        return draw.choice(BYTES)(draw, data)
    at = draw.choice(places)
    huge = draw.choice([-1, 0, 2**31 - 1, 2**40, 2**62, 2**63])
    raw = huge.to_bytes(9, "little", signed=True)
    return data[:at] + b"\x8a\x09" + raw + data[at + 2 :]


def mutate_legacy(draw: random.Random, content: bytes) -> bytes:
    return _mutate_pickle(draw, content)


# --- parquet --------------------------------------------------------------------------------------


def mutate_table(draw: random.Random, content: bytes) -> bytes:
    """Write the table with other columns, types, values, encodings, or metadata."""
    table = pq.read_table(io.BytesIO(content))
    options: dict = {"compression": draw.choice(["zstd", "none", "snappy", "gzip"])}
    options["use_dictionary"] = draw.choice([True, False])
    i = draw.randrange(table.num_columns)
    name, column = table.column_names[i], table.column(i).combine_chunks()
    n = len(column)
    others = [
        pa.array([NAN] * n),
        pa.nulls(n),
        pa.nulls(n, column.type),
        pa.array(["x" * 2000] * n),
        pa.array([b"\xff\xfe"] * n),
        pa.Array.from_buffers(  # text that is no UTF-8
            pa.string(), n, pa.array([b"\xff\xfe"] * n).buffers()
        ),
        pa.array([2**62] * n),
        pa.array([-1] * n, pa.int8()),
        pa.array([[1, 2]] * n),
        pa.array([{"bytes": b"x", "path": "../x"}] * n),
        pa.array([2**62] * n, pa.timestamp("ms")),
        pa.array(["a"] * n).dictionary_encode(),
        pa.array([b"ab"] * n, pa.binary(2)),
        pa.array([[[None]]] * n, pa.list_(pa.list_(pa.float32()))),
    ]
    action = draw.randrange(6)
    if action <= 2:
        table = table.set_column(i, name, draw.choice(others))
    elif action == 3:
        table = draw.choice([table.drop_columns([name]), table.append_column(name, column)])
    elif action == 4:
        table = draw.choice([table.slice(0, 0), pa.concat_tables([table] * 40)])
    else:
        odd = mutate_json(draw, json.loads((table.schema.metadata or {}).get(b"fourfold", "{}")))
        pandas = mutate_json(
            draw, {"columns": [{"name": name, "metadata": None}], "index_columns": []}
        )
        metadata = {"fourfold": json.dumps(odd), "pandas": json.dumps(pandas), "huggingface": "[]"}
        table = table.replace_schema_metadata(metadata)
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


PARQUET = (*BYTES, mutate_table)


# --- YAML -----------------------------------------------------------------------------------------

_SNIPPETS = [
    "__use_yte__: true",
    "? __sneaky__\n: !!python/object/apply:os.system [exit]",
    "a: !!python/name:os.system",
    "b: !!binary AAAA",
    "<<: &m {<<: *m}",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]",
    "run: *nothing",
    "\tx: 1",
    "x: " + "[" * 500,
    "x: " + "9" * 5000,
    "---",
    "x: 2026-99-99",
    "%TAG ! tag:x,2000:",
]


def mutate_yaml(draw: random.Random, content: bytes) -> bytes:
    """Add, remove, repeat or indent lines."""
    lines = content.decode().splitlines()
    for _ in range(draw.choice([1, 2, 5])):
        at = draw.randrange(len(lines))
        lines[at : at + draw.choice([0, 1])] = draw.choice(
            [[draw.choice(_SNIPPETS)], [], [lines[at]] * 2, [" " + lines[at]], [lines[at][:-1]]]
        )
    return "\n".join(lines).encode()


# --- kinds: make and read -------------------------------------------------------------------------


def _state(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(4, 3, generator=draw),
        "b": torch.randn(4, generator=draw).half(),
        "bn.running_mean": torch.randn(4, generator=draw),
        "bn.num_batches_tracked": torch.tensor(seed),
    }


def _make_surface(path: Path) -> None:
    BezierSurface.from_corners([_state(k) for k in range(4)]).save(path, {"seed": 3})


def _read_surface(path: Path) -> None:
    surface = BezierSurface.load(path)
    state_hash(surface.state_dict(0.3, 0.7))
    assert torch.isfinite(surface.point(0.3, 0.7)).all()
    assert len(surface.control_point_names) == len(surface.control_points)


def _make_logits(path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    points = [*CORNER_COORDINATES, (0.5, 0.5)]
    logits = {k: torch.randn(5, 6, 3, generator=draw).half() for k in ("val", "test")}
    own = {k: torch.randn(4, 6, 3, generator=draw).half() for k in logits}
    labels = {k: torch.arange(6) % 3 for k in logits}
    SurfaceLogits("linear", "reestimated", points, logits, own, labels).save(path, {})


def _read_logits(path: Path) -> None:
    stored = SurfaceLogits.load(path)
    with contextlib.suppress(FourfoldError):  # the corners may be other points
        assert len(stored.corners) == 4
    for split, labels in stored.labels.items():
        for values in (stored.logits[split], stored.own[split]):
            values.float().log_softmax(2)[:1].gather(2, labels[None, :, None])


def _make_examples(path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    points = [*CORNER_COORDINATES, (0.5, 0.5), *CORNER_COORDINATES]
    nll = {k: torch.rand(9, 6, generator=draw) for k in ("train", "val", "test")}
    correct = {k: values < 0.5 for k, values in nll.items()}
    labels = {k: torch.arange(6) % 3 for k in nll}
    Examples("linear", points, ["grid"] * 5 + ["own"] * 4, nll, correct, labels).save(path, {})


def _read_examples(path: Path) -> None:
    stored = Examples.load(path)
    assert len(stored.points) == len(stored.samples)
    for split, labels in stored.labels.items():
        assert stored.nll[split].shape == stored.correct[split].shape
        assert stored.nll[split].shape == (len(stored.points), len(labels))


def _make_data(path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    splits = {}
    for name in ("train", "val", "test"):
        images = torch.randint(0, 256, (6, 3, 4, 4), generator=draw).to(torch.uint8)
        splits[name] = Split(images, torch.arange(6) % 3, torch.arange(6))
    Dataset.from_splits("toy", ["a", "b", "c"], splits).save(path.parent)


def _read_data(path: Path) -> None:
    dataset = Dataset.load(path.parent)
    for split in dataset.splits.values():
        assert torch.isfinite(dataset.normalize(split.images)).all()
        torch.tensor(range(len(dataset.classes)))[split.labels]
    dataset.sha256()


_KEY = {"lr": 0.1, "data": "d"}


def _make_snapshot(path: Path) -> None:
    store = Snapshots(path.parent, _KEY)
    store.notes = {"rows": [{"nll": 0.5}]}
    store.save({"step": 3, "w": torch.randn(4, 3), "name": "x"})


def _read_snapshot(path: Path) -> None:
    store = Snapshots(path.parent, _KEY)
    if (state := store.load()) is None:
        raise FourfoldError(f"{path} is not continued")
    assert isinstance(store.notes, dict)
    assert store.seconds_before >= 0
    dict(state)


def _make_torch(path: Path) -> None:
    torch.save({"state_dict": _state(0), "epoch": 3}, path)


def _make_legacy(path: Path) -> None:
    torch.save(_state(0), path, _use_new_zipfile_serialization=False)


def _read_checkpoint(path: Path) -> None:
    state_hash(load_checkpoint(path))


def _make_table(path: Path) -> None:
    rows = [
        {"surface": "bezier", "u": 0.1 * k, "v": 0.5, "split": "test", "n": 10, "nll": 0.3 * k}
        | {"accuracy": 0.9, "ece": 0.1, "brier": 0.2, "sample": "grid"}
        | {"statistics": "none", "statistics_images": 0}
        for k in range(50)
    ]
    frame = make_table("grid", rows, experiment="e", replicate=0)
    write_table("grid", frame, path, {"settings": {"grid": {"points": 5}}})


def _read_table(path: Path) -> None:
    read_metadata(path)
    frame = read_table("grid", path)
    assert list(frame.columns) == SCHEMAS["grid"].names
    frame.to_json()
    read_head(path, 3)


def _make_images(path: Path) -> None:
    draw, encoded = np.random.default_rng(0), []
    for k in range(30):
        file = io.BytesIO()
        image = Image.fromarray(draw.integers(0, 256, (6, 6, 3), np.uint8))
        image.save(file, "PNG" if k % 2 else "BMP")
        encoded.append({"bytes": file.getvalue(), "path": None})
    names = {"info": {"features": {"label": {"names": ["a", "b", "c"]}}}}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"img": pa.array(encoded, kind), "label": [k % 3 for k in range(30)]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), path)


def _read_images(path: Path) -> None:
    source = load_source({"name": "parquet", "train": path.name}, path.parent)
    assert len(source.images) == len(source.labels)
    assert 0 <= int(source.labels.min()) <= int(source.labels.max()) < len(source.classes)


def _make_settings(path: Path) -> None:
    path.write_text(
        json.dumps(
            {
                "network": {"name": "vit", "mlp": 4},
                "training": {
                    **{"epochs": 2, "batch_size": 4, "optimizer": {"name": "sgd"}},
                    "keep": [0.5, 1.0],
                },
            }
        )
    )


def _read_settings(path: Path) -> None:
    settings = read_settings(f"@{path}", "network", "training")
    assert all(isinstance(section, dict) for section in settings.values())


def _read_params(path: Path) -> None:
    params = read_params(path)
    from snakemake.common.configfile import load_configfile
    from snakemake_interface_common.exceptions import WorkflowError

    with contextlib.suppress(WorkflowError):  # no keys at top level
        load_configfile(path)
    with contextlib.suppress(InputError):  # its message names keys, not the file
        check_params(params, _SCHEMA)


def _show(path: Path) -> None:
    """Run `fourfold show`; raise its message again, so that the same laws are checked."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = fourfold(["show", str(path)])
    out.getvalue().encode()
    assert "\x1b" not in out.getvalue()
    if status:
        raise FourfoldError(err.getvalue().removesuffix("\n"))


def _make_checkpoint(path: Path) -> None:
    save_checkpoint(_state(0), path, {"seed": 0, "settings": {"network": {"width": 4}}})


KINDS = {
    "checkpoint": Kind("c.safetensors", _make_checkpoint, _read_checkpoint, SAFETENSORS),
    "surface": Kind("s.safetensors", _make_surface, _read_surface, SAFETENSORS),
    "logits": Kind("l.safetensors", _make_logits, _read_logits, SAFETENSORS),
    "examples": Kind("e.safetensors", _make_examples, _read_examples, SAFETENSORS),
    "data": Kind("val.safetensors", _make_data, _read_data, SAFETENSORS),
    "snapshot": Kind("state.safetensors", _make_snapshot, _read_snapshot, SAFETENSORS),
    "show-tensors": Kind("c.safetensors", _make_checkpoint, _show, SAFETENSORS),
    "torch": Kind("t.pt", _make_torch, _read_checkpoint, (*BYTES, *[mutate_archive] * 5)),
    "torch-legacy": Kind("t.pth", _make_legacy, _read_checkpoint, (*BYTES, *[mutate_legacy] * 3)),
    "table": Kind("t.parquet", _make_table, _read_table, PARQUET),
    "show-table": Kind("t.parquet", _make_table, _show, PARQUET),
    "images": Kind("i.parquet", _make_images, _read_images, PARQUET),
    "settings": Kind("s.json", _make_settings, _read_settings, (*BYTES, *[mutate_json_text] * 5)),
    "params": Kind(
        "params.yaml",
        lambda path: shutil.copy(_PARAMS, path),
        _read_params,
        (*BYTES, *[mutate_yaml] * 5),
    ),
}


def mutate(kind: Kind, draw: random.Random, content: bytes) -> bytes:
    """Return a changed file; sometimes it is changed again, byte by byte."""
    changed = draw.choice(kind.mutators)(draw, content)
    return draw.choice(BYTES)(draw, changed) if draw.random() < 0.1 else changed
