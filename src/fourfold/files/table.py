"""The tables: column schemas, atomic parquet writing, and reading with a check.

A table's columns, their order and types are public interface; docs/reference/tables.md says what
each means.
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

_SECTIONS = ("settings", "seeds")  # of the metadata, whose parts different tables have
_METRICS = "nll accuracy ece brier"
_COLUMNS = {
    "training": "stage item epoch step split nll accuracy learning_rate images_seen wall_s",
    "endpoints": f"seed epoch split n {_METRICS} checkpoint sha256",
    "grid": f"surface sample u v w split n {_METRICS} statistics statistics_images",
    "selection": "candidate corners split n gain nll_mean nll_max accuracy_mean "
    "accuracy_min distance disagreement selected",
    "barrier": "surface split metric corner_mean_own corner_mean min mean max u_at_max v_at_max "
    "w_at_max sample_at_max barrier u_at_barrier v_at_barrier w_at_barrier",
    "certificate": "surface split metric points confidence fraction rank value",
    "geometry": "surface a b l2 relative_l2 cosine disagreement",
    "plane": f"surface sample x y split n {_METRICS} statistics statistics_images",
    "plane_path": "kind surface name order x y distance",
    "ensemble": f"ensemble corners selection members statistics split n {_METRICS} disagreement "
    "forward_passes",
    "merge": f"merge surface corners u v w selected_on statistics split n {_METRICS}",
    "difference": "comparison surface split n metric value reference difference low high draws",
    "rival": "method surface corners images_backward images_forward forward_passes split n "
    f"{_METRICS} disagreement temperature nll_scaled equivalents nll_low nll_high accuracy_low "
    "accuracy_high",
    "rival_difference": "method against split n metric value reference difference low high draws",
    "pick": "surface pick split n metric value oracle gap repicked distinct",
    "cost": "stage item device wall_s images_forward images_backward flop peak_bytes",
    "summary": "kind method metric n replicates mean low high text",
}
# A column has one type in all tables; those that are not here are float64.
_TYPES = {
    name: kind
    for kind, names in {
        pa.string(): "a against b checkpoint comparison corners device ensemble experiment item "
        "kind members merge method metric name pick sample sample_at_max selected_on selection "
        "sha256 split stage statistics surface text",
        pa.int64(): "candidate distinct epoch forward_passes "
        "images_backward images_forward images_seen n order peak_bytes points rank replicates seed "
        "statistics_images step",
        pa.int32(): "replicate",
        pa.bool_(): "selected",
        pa.list_(pa.float64()): "draws",
    }.items()
    for name in names.split()
}

# Single jobs write parts of these, which are put together.
GATHERED = ("training", "endpoints", "cost")

# Measured by a clock or the operating system: the only columns that differ between equal runs.
MEASURED_COLUMNS = frozenset({"wall_s", "peak_bytes"})

SCHEMAS: dict[str, pa.Schema] = {
    table: pa.schema(
        (name, _TYPES.get(name, pa.float64())) for name in f"experiment replicate {names}".split()
    )
    for table, names in _COLUMNS.items()
}


def make_table(
    name: str, rows: pd.DataFrame | Iterable[Mapping[str, Any]], *, experiment: str, replicate: int
) -> pd.DataFrame:
    """Complete `rows` to table `name`: add experiment and replicate, order and check the columns.

    Raises:
        InputError: if a column is missing or unknown.
    """
    if not isinstance(rows, pd.DataFrame):
        rows = list(rows)
    frame = pd.DataFrame(rows, columns=None if len(rows) else SCHEMAS[name].names)
    frame = frame.assign(experiment=experiment, replicate=replicate)
    return _conform(name, frame)


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
        _conform(name, frame), schema=schema, preserve_index=False
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
    _check_columns(name, [c for c in schema.names if not c.startswith("__index_level_")], str(path))
    batches = list(read_batches(path))
    with parsing(path):
        table = pa.Table.from_batches(batches, schema).select(SCHEMAS[name].names)
        frame = table.to_pandas(ignore_metadata=True)
        # Not table.cast: it would read texts as numbers, and not say of which column it fails.
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
    """Return the first rows of any parquet file, and how many it has."""
    schema, there = read_footer(path)
    head: list[pa.RecordBatch] = []
    for batch in read_batches(path):
        head.append(batch)
        if sum(map(len, head)) >= rows:
            break
    with parsing(path):
        table = pa.Table.from_batches(head, schema).slice(0, rows)
        return table.to_pandas(ignore_metadata=True), there


def common_metadata(*paths: str | Path) -> dict[str, Any]:
    """Return the metadata in which some tables agree; `settings` and `seeds` are put together.

    A section of settings that two tables have with different values, as every other key, is left
    out.
    """
    made_by = [read_metadata(path) for path in paths]
    sections = {name: _merge(*(one.pop(name, {}) for one in made_by)) for name in _SECTIONS}
    common = {k: v for k, v in made_by[0].items() if all(one.get(k) == v for one in made_by)}
    return common | {name: merged for name, merged in sections.items() if merged}


def _merge(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys on whose values all parts that have them agree."""
    keys = dict.fromkeys(key for part in parts for key in part)
    values = {key: [part[key] for part in parts if key in part] for key in keys}
    return {key: some[0] for key, some in values.items() if some.count(some[0]) == len(some)}


def _conform(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    _check_columns(name, frame.columns, f"table {name!r}")
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
