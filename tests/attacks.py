"""Files that a stranger may think of, one for each way to run code, fill the memory or crash."""

import collections
import functools
import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from untrusted_files import KINDS, NAN, Kind, hash_of, join_safetensors, split_safetensors


@functools.cache
def valid(name: str) -> bytes:
    """Return a valid file of a kind."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / KINDS[name].name
        KINDS[name].make(path)
        return path.read_bytes()


def with_header(name: str, /, **changes: object) -> bytes:
    """Return a valid file whose own header is changed."""
    header, data = split_safetensors(valid(name))
    ours = json.loads(header["__metadata__"]["fourfold"]) | changes
    header["__metadata__"]["fourfold"] = json.dumps(ours)
    return join_safetensors(header, data)


def with_layout(**changes: object) -> bytes:
    """Return a surface whose layout is changed."""
    ours = json.loads(split_safetensors(valid("surface"))[0]["__metadata__"]["fourfold"])
    return with_header("surface", layout=ours["layout"] | changes)


def with_tensors(name: str, /, **changes: torch.Tensor) -> bytes:
    """Return a file with other tensors, and their hash in the header."""
    content = valid(name)
    ours = json.loads(split_safetensors(content)[0]["__metadata__"]["fourfold"])
    tensors = load_bytes(content) | {k.replace("__", "/"): v for k, v in changes.items()}
    ours["sha256"] = hash_of(ours, tensors)
    return save_bytes(tensors, {"fourfold": json.dumps(ours)})


def torch_file(content: object, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def hidden_methods() -> bytes:
    """Return a file whose dictionary has attributes instead of the methods of one."""
    state = collections.OrderedDict(w=3)
    vars(state).update(keys=2, values=3, get=4)
    return torch_file(state)


class Call:
    """Unpickling this calls a function."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def archive_of(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def parquet_file(table: pa.Table, **options: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **{"compression": "zstd"} | options)
    return file.getvalue()


def nested_json(levels: int = 100_000) -> bytes:
    return b"[" * levels


_ZEROS = torch.zeros(())
# What a stranger may think of: (kind, a function that returns the file). All must be refused.
ATTACKS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty": ("checkpoint", lambda: b""),
    "header of exabytes": ("checkpoint", lambda: struct.pack("<Q", 2**60) + b"{}"),
    "header of blanks": ("checkpoint", lambda: join_safetensors({}, b"")[:8] + b" " * 9_000_000),
    "nested header": (
        "checkpoint",
        lambda: save_bytes({"w": _ZEROS}, {"fourfold": nested_json().decode()}),
    ),
    "order is no list": ("checkpoint", lambda: with_header("checkpoint", order=3)),
    "order of lists": ("checkpoint", lambda: with_header("checkpoint", order=[["w"]])),
    "tied is a list": ("checkpoint", lambda: with_header("checkpoint", tied=["w"])),
    "hash is a number": ("checkpoint", lambda: with_header("checkpoint", sha256=10**4000)),
    "shape of exabytes": (
        "checkpoint",
        lambda: join_safetensors(
            {"w": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 4]}}, bytes(4)
        ),
    ),
    "offsets backwards": (
        "checkpoint",
        lambda: join_safetensors(
            {"w": {"dtype": "U8", "shape": [4], "data_offsets": [4, 0]}}, bytes(4)
        ),
    ),
    "degree is a string": ("surface", lambda: with_header("surface", degree="22")),
    "degree of booleans": ("surface", lambda: with_header("surface", degree=[True, True])),
    "degree is huge": ("surface", lambda: with_header("surface", degree=[10**30, 1])),
    "degree has three numbers": ("surface", lambda: with_header("surface", degree=[2, 2, 2])),
    "name is a list": ("surface", lambda: with_header("surface", name=["a"])),
    "hashes of five corners": ("surface", lambda: with_header("surface", corner_sha256=["0"] * 5)),
    "layout is a list": ("surface", lambda: with_header("surface", layout=[])),
    "layout without shapes": ("surface", lambda: with_header("surface", layout={"names": ["w"]})),
    "negative shape": ("surface", lambda: with_layout(shapes=[[-4, -3], [4]])),
    "shape is a fraction": ("surface", lambda: with_layout(shapes=[[4, 3.0], [4]])),
    "shape that overflows": ("surface", lambda: with_layout(shapes=[[16], [0, 2**62, 2**62]])),
    "shapes of another network": ("surface", lambda: with_layout(shapes=[[4, 4], [4]])),
    "name twice": ("surface", lambda: with_layout(names=["w", "w"])),
    "parameter and buffer of one name": (
        "surface",
        lambda: with_layout(names=["w", "bn.running_mean"]),
    ),
    "order lacks a name": ("surface", lambda: with_layout(order=["w"])),
    "tied to nothing": (
        "surface",
        lambda: with_layout(tied={"b": "x"}, names=["w"], shapes=[[16]]),
    ),
    "dtype is a function": ("surface", lambda: with_layout(dtypes=["load", "float16"])),
    "dtype of integers": ("surface", lambda: with_layout(dtypes=["int64", "float16"])),
    "NaN in a control point": (
        "surface",
        lambda: with_tensors("surface", control_points=torch.full((9, 16), NAN)),
    ),
    "control points of integers": (
        "surface",
        lambda: with_tensors("surface", control_points=torch.zeros(9, 16, dtype=torch.int32)),
    ),
    "NaN in a buffer": (
        "surface",
        lambda: with_tensors("surface", **{"corners__bn.running_mean": torch.full((4, 4), NAN)}),
    ),
    "buffers of three corners": (
        "surface",
        lambda: with_tensors("surface", **{"corners__bn.running_mean": torch.zeros(3, 4)}),
    ),
    "surface without a name": ("logits", lambda: with_header("logits", surface=None)),
    "points in space": (
        "logits",
        lambda: with_tensors("logits", points=torch.zeros(5, 3).double()),
    ),
    "NaN in a point": (
        "logits",
        lambda: with_tensors("logits", points=torch.full((5, 2), NAN).double()),
    ),
    "NaN in some logits of a network": (
        "logits",
        lambda: with_tensors("logits", logits__val=torch.eye(3).log().repeat(5, 2, 1).half()),
    ),
    "logits without labels": (
        "logits",
        lambda: with_tensors("logits", logits__more=torch.zeros(5, 6, 3).half()),
    ),
    "three corners as trained": (
        "logits",
        lambda: with_tensors("logits", own__val=torch.zeros(3, 6, 3).half()),
    ),
    "corners of another split": (
        "logits",
        lambda: with_tensors("logits", own__more=torch.zeros(4, 6, 3).half()),
    ),
    "statistics are a list": ("logits", lambda: with_header("logits", statistics=["own"])),
    "labels out of range": ("logits", lambda: with_tensors("logits", labels__val=torch.arange(6))),
    "labels that are fractions": (
        "logits",
        lambda: with_tensors("logits", labels__val=torch.zeros(6)),
    ),
    "a part of no kind": ("logits", lambda: with_tensors("logits", other__val=torch.zeros(6))),
    "a sample of no kind": (
        "examples",
        lambda: with_tensors("examples", samples=torch.full((9,), 200, dtype=torch.uint8)),
    ),
    "samples that are fractions": (
        "examples",
        lambda: with_tensors("examples", samples=torch.zeros(9)),
    ),
    "samples of fewer points": (
        "examples",
        lambda: with_tensors("examples", samples=torch.zeros(8, dtype=torch.uint8)),
    ),
    "nll of fewer images": (
        "examples",
        lambda: with_tensors("examples", nll__val=torch.zeros(9, 5)),
    ),
    "labels without nll": (
        "examples",
        lambda: with_tensors("examples", labels__more=torch.arange(6)),
    ),
    "points outside of the square": (
        "examples",
        lambda: with_tensors("examples", points=torch.full((9, 2), 1.5).double()),
    ),
    "logits where examples belong": ("examples", lambda: valid("logits")),
    "images of floats": ("data", lambda: with_tensors("data", images=torch.zeros(6, 3, 4, 4))),
    "images of another size": (
        "data",
        lambda: with_tensors("data", images=torch.zeros(6, 3, 4, 5, dtype=torch.uint8)),
    ),
    "no images": (
        "data",
        lambda: with_tensors(
            "data",
            images=torch.zeros(0, 3, 4, 4, dtype=torch.uint8),
            labels=torch.zeros(0, dtype=torch.int64),
            index=torch.zeros(0, dtype=torch.int64),
        ),
    ),
    "negative labels": ("data", lambda: with_tensors("data", labels=torch.full((6,), -1))),
    "an index of another length": ("data", lambda: with_tensors("data", index=torch.arange(3))),
    "classes are a string": ("data", lambda: with_header("data", classes="abc")),
    "mean of another split": ("data", lambda: with_header("data", mean=[0.1, 0.2, 0.3])),
    "deviation is NaN": ("data", lambda: with_header("data", std=[NAN] * 3)),
    "notes are a list": ("snapshot", lambda: with_header("snapshot", notes=[])),
    "values are a list": ("snapshot", lambda: with_header("snapshot", values=["step"])),
    "time is a string": ("snapshot", lambda: with_header("snapshot", seconds="3")),
    "time is NaN": ("snapshot", lambda: with_header("snapshot", seconds=NAN)),
    "time is negative": ("snapshot", lambda: with_header("snapshot", seconds=-1)),
    "pickle that imports": ("torch", lambda: torch_file({"w": Call(os.system, "exit")})),
    "attributes that hide methods": ("torch", hidden_methods),
    "sparse tensor": ("torch", lambda: torch_file({"w": torch.eye(2).to_sparse()})),
    "tensor without values": (
        "torch",
        lambda: torch_file({"w": torch.empty(2**30, device="meta")}),
    ),
    "names that are numbers": ("torch", lambda: torch_file({3: torch.zeros(1)})),
    "pickle that runs": ("torch", lambda: torch_file({"w": Call(exec, "raise SystemExit")})),
    "old pickle that runs": (
        "torch-legacy",
        lambda: pickle.dumps({"w": Call(exec, "raise SystemExit")}),
    ),
    "an archive of something else": ("torch", lambda: archive_of({"../../data.pkl": b"x"})),
    "text that is no UTF-8": (
        "table",
        lambda: parquet_file(
            (table := pq.read_table(io.BytesIO(valid("table")))).set_column(
                table.column_names.index("surface"),
                "surface",
                pa.Array.from_buffers(
                    pa.string(), len(table), pa.array([b"\xff\xfe"] * len(table)).buffers()
                ),
            )
        ),
    ),
    "a footer that contradicts itself": (  # histograms of missing values where none may be missing
        "table",
        lambda: valid("table").replace(b"\x25\x02\x18", b"\x25\x00\x18"),
    ),
    "metadata is a list": (
        "table",
        lambda: parquet_file(
            pq.read_table(io.BytesIO(valid("table"))).replace_schema_metadata({"fourfold": "[]"})
        ),
    ),
    "nested metadata": (
        "table",
        lambda: parquet_file(
            pq.read_table(io.BytesIO(valid("table"))).replace_schema_metadata(
                {"fourfold": nested_json()}
            )
        ),
    ),
    "two columns of one name": (
        "table",
        lambda: parquet_file(
            (table := pq.read_table(io.BytesIO(valid("table")))).append_column(
                "nll", table.column("nll")
            )
        ),
    ),
    "nested settings": ("settings", nested_json),
    "sections are lists": ("settings", lambda: b'{"model": [], "grid": 3}'),
    "settings of megabytes": ("settings", lambda: valid("settings") + b" " * 4_000_000),
    "settings that are no text": ("settings", lambda: b"\xff\xfe{}"),
    "template": ("params", lambda: b"__use_yte__: true\nx: ?print(1)"),
    "template by a merge": ("params", lambda: b"<<: {__use_yte__: true}\nx: ?print(1)"),
    "template in JSON": ("params", lambda: b'{"a": {"__use_yte__": true}}'),
    "tag that calls": ("params", lambda: b"a: !!python/object/apply:os.system [exit]"),
    "tag that names": ("params", lambda: b"a: !!python/name:os.system"),
    "tag of its own": ("params", lambda: b"a: !call x"),
    "a value in itself": ("params", lambda: b"a: &a [*a]"),
    "nested lists": ("params", nested_json),
    "a number of 5000 digits": ("params", lambda: b"a: " + b"9" * 5000),
    "a day that is none": ("params", lambda: b"a: 2026-99-99"),
}


def attack(folder: Path, name: str) -> tuple[Kind, Path]:
    """Write the file of an attack, with what belongs to it, into a new folder."""
    kind_name, make = ATTACKS[name]
    folder.mkdir()
    kind = KINDS[kind_name]
    kind.make(folder / kind.name)
    (folder / kind.name).write_bytes(make())
    return kind, folder / kind.name
