"""The tables: column schemas, atomic parquet writing, and reading with a check.

A table's columns, their order and types are public interface; docs/tables.md says what each means.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fourfold.atomic import atomic_path
from fourfold.errors import InputError

_METRICS = {
    "nll": pa.float64(),
    "accuracy": pa.float64(),
    "ece": pa.float64(),
    "brier": pa.float64(),
}
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
        "u": _FLOAT,
        "v": _FLOAT,
        "split": _STRING,
        "n": _INT,
        **_METRICS,
        "batchnorm": _STRING,
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
        "corner_mean": _FLOAT,
        "min": _FLOAT,
        "mean": _FLOAT,
        "max": _FLOAT,
        "barrier": _FLOAT,
        "u_at_max": _FLOAT,
        "v_at_max": _FLOAT,
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
        "selection": _STRING,
        "members": _STRING,
        "split": _STRING,
        "n": _INT,
        **_METRICS,
        "disagreement": _FLOAT,
        "forward_passes": _INT,
    },
    "merge": {
        "merge": _STRING,
        "surface": _STRING,
        "u": _FLOAT,
        "v": _FLOAT,
        "selected_on": _STRING,
        "split": _STRING,
        "n": _INT,
        **_METRICS,
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
    },
}

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


def write_table(name: str, frame: pd.DataFrame, path: str | Path, metadata: Mapping = {}) -> None:
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


def read_table(name: str, *paths: str | Path) -> pd.DataFrame:
    """Read one or more parquet files of table `name` and put them under each other.

    Raises:
        InputError: if a file is missing, is no parquet file, or has not the columns of the table.
    """
    frames = []
    for path in map(Path, paths):
        if not path.is_file():
            raise InputError(f"no table at {path}; build it with `snakemake {path}`.")
        try:
            frame = pq.read_table(path).to_pandas()
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path} is no readable parquet file: {error}") from error
        frame = _conform(name, frame, where=str(path))
        try:
            typed = pa.Table.from_pandas(frame, schema=SCHEMAS[name], preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(f"{path} is no table {name!r}: {error}") from error
        frames.append(typed.to_pandas())
    return pd.concat(frames, ignore_index=True)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what `write_table` was given as `metadata`, empty if there is none."""
    return {key: value for key, value in read_provenance(path).items() if key != "table"}


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Return the metadata under the key `fourfold`: `table`, and what made it.

    Raises:
        InputError: if the file is no parquet file, or its metadata is no JSON object.
    """
    with _open(path) as file:
        stored = (file.schema_arrow.metadata or {}).get(b"fourfold", b"{}")
    try:
        made_by = json.loads(stored)
    except ValueError as error:
        raise InputError(f"{path}: its metadata is damaged: {error}") from error
    if not isinstance(made_by, dict):
        raise InputError(f"{path}: its metadata is {type(made_by).__name__}, not a JSON object.")
    return made_by


def read_head(path: str | Path, rows: int) -> tuple[pd.DataFrame, int]:
    """Return the first rows of any parquet file, and how many it has.

    Raises:
        InputError: if the file is no parquet file.
    """
    with _open(path) as file:
        try:
            batch = next(file.iter_batches(batch_size=max(rows, 1)), None)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: its rows can't be read: {error}") from error
        empty = file.schema_arrow.empty_table()
        head = empty if batch is None else pa.Table.from_batches([batch])
        return head.slice(0, rows).to_pandas(ignore_metadata=True), file.metadata.num_rows


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no readable parquet file: {error}") from error
    with file:
        yield file


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
    expected = SCHEMAS[name].names
    missing = [column for column in expected if column not in frame.columns]
    unknown = [column for column in frame.columns if column not in expected]
    if missing or unknown:
        raise InputError(
            f"{where}: missing columns {missing}, unknown columns {unknown}; "
            f"table {name!r} has {expected}."
        )
    return frame[expected]
