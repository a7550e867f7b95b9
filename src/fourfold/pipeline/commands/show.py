"""Print what is in a parquet or safetensors file, and what made it. Tensors are not read."""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fourfold.errors import InputError, printable
from fourfold.files.reading import reading

_MOST_TENSORS = 40  # printed of a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", type=Path, help="a .parquet or .safetensors file")
    parser.add_argument("--rows", type=int, default=10, help="of a table (default: 10)")


def run(arguments: argparse.Namespace) -> None:
    """Print kind, size, contents and provenance."""
    path = arguments.file
    if not path.is_file():
        raise InputError(f"no file at {path}.")
    if arguments.rows < 0:
        raise InputError(f"--rows is {arguments.rows}; it must be 0 or more.")
    if path.suffix == ".parquet":
        lines: Iterable[str] = _show_table(path, arguments.rows)
    elif path.suffix == ".safetensors":
        lines = _show_tensors(path)
    else:
        raise InputError(f"{path} ends in {path.suffix!r}; show reads .parquet and .safetensors.")
    with reading(path, f"{path.suffix[1:]} file"):
        lines = [f"{path}: {path.stat().st_size:,} bytes", *lines]
    for line in lines:
        print(printable(line))


def _show_table(path: Path, rows: int) -> Iterator[str]:
    from fourfold.files.table import read_head, read_provenance

    head, count = read_head(path, rows)
    made_by = read_provenance(path)
    name = made_by.pop("table", None)
    yield f"table {name or 'of another program'}: {count:,} rows, {len(head.columns)} columns"
    yield from _provenance(made_by)
    if rows:
        yield f"first {min(rows, count)} rows:"
        yield head.to_string(index=False, max_colwidth=40)


def _show_tensors(path: Path) -> Iterator[str]:
    from fourfold.files.tensors import read_header, tensor_shapes

    shapes, header = tensor_shapes(path), read_header(path)
    layout = header.pop("layout", None)
    header.pop("order", None)
    yield f"{header.pop('format', 'tensors')}: {len(shapes)} tensors"
    for name, (dtype, shape) in list(shapes.items())[:_MOST_TENSORS]:
        yield f"  {name}  {dtype} {shape}"
    if len(shapes) > _MOST_TENSORS:
        yield f"  and {len(shapes) - _MOST_TENSORS} more"
    if isinstance(layout, Mapping) and isinstance(layout.get("names"), list):
        yield f"control points hold {len(layout['names'])} tensors of the network"
    yield from _provenance(header)


def _provenance(made_by: Mapping[str, Any]) -> Iterator[str]:
    if not made_by:
        yield "made by: not recorded"
        return
    yield "made by:"
    yield from _indented(made_by, "  ")


def _indented(values: Mapping[str, Any], indent: str) -> Iterator[str]:
    """Yield nested mappings one key a line; a mapping without mappings in it is one line."""
    for key, value in values.items():
        if isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values()):
            yield f"{indent}{key}:"
            yield from _indented(value, indent + "  ")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{indent}{key}: {text}"
