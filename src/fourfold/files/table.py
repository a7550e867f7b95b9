"""The tables: column schemas, atomic parquet writing, and reading with a check.

A table's columns, their order and types are public interface; docs/tables.md says what each means.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fourfold.errors import InputError
from fourfold.files.atomic import atomic_path
from fourfold.files.parquet import parsing, read_batches, read_footer
from fourfold.files.reading import parse_object, require_file

_METRICS = {
    "nll": pa.float64(),
    "accuracy": pa.float64(),
    "ece": pa.float64(),
    "brier": pa.float64(),
}
_BATCH_ROWS = 4096  # read at a time, of some hundred bytes each
_SECTIONS = ("settings", "seeds")  # of the metadata, whose parts different tables have
_STRING, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()

_COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "training": {
        "stage": _STRING,
        "item": _STRING,
        "epoch": _INT,
        "step": _INT,
        "split": _STRING,
        "nll": _FLOAT,
        "accuracy": _FLOAT,
        "learning_rate": _FLOAT,
        "images_seen": _INT,
        "wall_s": _FLOAT,
    },
    "endpoints": {
        "seed": _INT,
        "epoch": _INT,
        "split": _STRING,
        "n": _INT,
        **_METRICS,
        "checkpoint": _STRING,
        "sha256": _STRING,
    },
    "grid": {
        "surface": _STRING,
        "sample": _STRING,
        "u": _FLOAT,
        "v": _FLOAT,
        "split": _STRING,
        "n": _INT,
        **_METRICS,
        "statistics": _STRING,
        "statistics_images": _INT,
    },
    "selection": {
        "candidate": _INT,
        "corner_00": _INT,
        "corner_01": _INT,
        "corner_10": _INT,
        "corner_11": _INT,
        "split": _STRING,
        "n": _INT,
        "nll_mean": _FLOAT,
        "nll_max": _FLOAT,
        "accuracy_mean": _FLOAT,
        "accuracy_min": _FLOAT,
        "selected": pa.bool_(),
    },
    "barrier": {
        "surface": _STRING,
        "split": _STRING,
        "metric": _STRING,
        "corner_mean_own": _FLOAT,
        "corner_mean": _FLOAT,
        "min": _FLOAT,
        "mean": _FLOAT,
        "max": _FLOAT,
        "u_at_max": _FLOAT,
        "v_at_max": _FLOAT,
        "sample_at_max": _STRING,
        "barrier": _FLOAT,
        "u_at_barrier": _FLOAT,
        "v_at_barrier": _FLOAT,
    },
    "geometry": {
        "surface": _STRING,
        "a": _STRING,
        "b": _STRING,
        "l2": _FLOAT,
        "relative_l2": _FLOAT,
        "cosine": _FLOAT,
        "disagreement": _FLOAT,
    },
    "ensemble": {
        "ensemble": _STRING,
        "corners": _STRING,
        "selection": _STRING,
        "members": _STRING,
        "statistics": _STRING,
        "split": _STRING,
        "n": _INT,
        **_METRICS,
        "disagreement": _FLOAT,
        "forward_passes": _INT,
    },
    "merge": {
        "merge": _STRING,
        "surface": _STRING,
        "corners": _STRING,
        "u": _FLOAT,
        "v": _FLOAT,
        "selected_on": _STRING,
        "statistics": _STRING,
        "split": _STRING,
        "n": _INT,
        **_METRICS,
    },
    "difference": {
        "comparison": _STRING,
        "surface": _STRING,
        "split": _STRING,
        "n": _INT,
        "metric": _STRING,
        "value": _FLOAT,
        "reference": _FLOAT,
        "difference": _FLOAT,
        "low": _FLOAT,
        "high": _FLOAT,
        "draws": pa.list_(pa.float64()),
    },
    "cost": {
        "stage": _STRING,
        "item": _STRING,
        "device": _STRING,
        "wall_s": _FLOAT,
        "images_forward": _INT,
        "images_backward": _INT,
        "flop": _FLOAT,
        "peak_bytes": _INT,
    },
    "summary": {
        "kind": _STRING,
        "method": _STRING,
        "metric": _STRING,
        "n": _INT,
        "replicates": _INT,
        "mean": _FLOAT,
        "low": _FLOAT,
        "high": _FLOAT,
        "text": _STRING,
    },
}

# Single jobs write parts of these, which are put together.
GATHERED = ("training", "endpoints", "cost")

# Measured by a clock or the operating system: the only columns that differ between equal runs.
MEASURED_COLUMNS = frozenset({"wall_s", "peak_bytes"})

SCHEMAS: dict[str, pa.Schema] = {
    name: pa.schema({"experiment": _STRING, "replicate": pa.int32(), **columns})
    for name, columns in _COLUMNS.items()
}


def make_table(
    name: str, rows: pd.DataFrame | Iterable[Mapping[str, Any]], *, experiment: str, replicate: int
) -> pd.DataFrame:
    """Complete `rows` to table `name`: add experiment and replicate, order and check the columns.

    Raises:
        InputError: if a column is missing or unknown.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    frame = frame.assign(experiment=experiment, replicate=replicate)
    return _conform(name, frame, where=f"table {name!r}")


def write_table(
    name: str, frame: pd.DataFrame, path: str | Path, metadata: Mapping[str, Any] = {}
) -> None:
    """Write `frame` as table `name` to a parquet file, completely or not at all.

    `metadata` (JSON values) goes into the file's schema under the key `fourfold`.
    """
    schema = SCHEMAS[name].with_metadata(
        {"fourfold": json.dumps({"table": name, **metadata}, sort_keys=True)}
    )
    table = pa.Table.from_pandas(
        _conform(name, frame, where=f"table {name!r}"), schema=schema, preserve_index=False
    ).replace_schema_metadata(schema.metadata)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_csv(name: str, path: str | Path) -> None:
    """Write a parquet file of table `name` as CSV too, into the folder `csv` beside it.

    Numbers are rounded to 6 significant digits. Lists, which are no cell of a CSV, are left out.
    """
    lists = [field.name for field in SCHEMAS[name] if pa.types.is_list(field.type)]
    frame = read_table(name, path).drop(columns=lists)
    with atomic_path(Path(path).parent / "csv" / f"{Path(path).stem}.csv") as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g")


def read_table(name: str, *paths: str | Path) -> pd.DataFrame:
    """Read one or more parquet files of table `name` and put them under each other.

    Raises:
        InputError: if a file is missing, is no parquet file, or has not the columns of the table.
    """
    return pd.concat([_read_one(name, Path(path)) for path in paths], ignore_index=True)


def _read_one(name: str, path: Path) -> pd.DataFrame:
    require_file(path, f"no table at {path}; build it with `snakemake {path}`.")
    schema, _ = read_footer(path)
    # pandas stores an index that has been given up as a column.
    columns = [column for column in schema.names if not column.startswith("__index_level_")]
    _check_columns(name, columns, where=str(path))
    batches = list(read_batches(path, columns, _BATCH_ROWS))
    with parsing(path):
        table = pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in columns]))
        # What pandas noted about types is left aside: the columns' types are those of the table.
        frame = table.select(SCHEMAS[name].names).to_pandas(ignore_metadata=True)
        typed = pa.Table.from_pandas(frame, schema=SCHEMAS[name], preserve_index=False)
        return typed.to_pandas()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what `write_table` was given as `metadata`, empty if there is none."""
    return {key: value for key, value in read_provenance(path).items() if key != "table"}


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Return the metadata under the key `fourfold`: `table`, and what made it.

    Raises:
        InputError: if the file is no parquet file, or its metadata is no JSON object.
    """
    stored = (read_footer(path)[0].metadata or {}).get(b"fourfold", b"{}")
    return parse_object(stored, f"{path}: its metadata")


def read_head(path: str | Path, rows: int) -> tuple[pd.DataFrame, int]:
    """Return the first rows of any parquet file, and how many it has.

    Raises:
        InputError: if the file is no parquet file.
    """
    schema, there = read_footer(path)
    head: list[pa.RecordBatch] = []
    for batch in read_batches(path, rows=max(1, min(rows, _BATCH_ROWS))):
        if sum(map(len, head)) >= rows:
            break
        head.append(batch)
    with parsing(path):
        table = pa.Table.from_batches(head, schema).slice(0, rows)
        return table.to_pandas(ignore_metadata=True), there


def common_metadata(*paths: str | Path) -> dict[str, Any]:
    """Return the metadata in which some tables agree; `settings` and `seeds` are put together.

    A section of settings that two tables have with different values, as every other key, is left
    out.
    """
    made_by = [read_metadata(path) for path in paths]
    merged = {name: _merge([one.pop(name, {}) for one in made_by]) for name in _SECTIONS}
    common = {k: v for k, v in made_by[0].items() if all(one.get(k) == v for one in made_by)}
    return common | {name: sections for name, sections in merged.items() if sections}


def _merge(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the keys on whose values all parts that have them agree."""
    found: dict[str, list[Any]] = {}
    for part in parts:
        for key, value in part.items():
            found.setdefault(key, []).append(value)
    return {k: values[0] for k, values in found.items() if values.count(values[0]) == len(values)}


def _conform(name: str, frame: pd.DataFrame, where: str) -> pd.DataFrame:
    _check_columns(name, frame.columns, where)
    return frame[SCHEMAS[name].names]


def _check_columns(name: str, columns: Iterable[str], where: str) -> None:
    expected, columns = SCHEMAS[name].names, list(columns)
    missing = [column for column in expected if column not in columns]
    unknown = [column for column in columns if column not in expected]
    unknown += [column for column in expected if columns.count(column) > 1]
    if missing or unknown:
        raise InputError(
            f"{where}: missing columns {missing}, unknown columns {unknown}; "
            f"table {name!r} has {expected}."
        )
