"""Laws of the tables: schemas hold, and nothing is lost on the way through a file."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourfold.errors import InputError
from fourfold.files.table import (
    SCHEMAS,
    common_metadata,
    make_table,
    read_metadata,
    read_table,
    write_csv,
    write_table,
)


def value_of(field: pa.Field, i: int) -> object:
    if pa.types.is_string(field.type):
        return f"{field.name} {i}"
    if pa.types.is_boolean(field.type):
        return bool(i % 2)
    if pa.types.is_list(field.type):
        return [0.1 * i, 1 / 3]
    return i + 1 if pa.types.is_integer(field.type) else 0.1 * i + 1 / 3


def rows_of(name: str, n: int = 3) -> list[dict]:
    fields = [f for f in SCHEMAS[name] if f.name not in ("experiment", "replicate")]
    return [{f.name: value_of(f, i) for f in fields} for i in range(n)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_table_begins_with_experiment_and_replicate(name):
    assert SCHEMAS[name].names[:2] == ["experiment", "replicate"]
    assert SCHEMAS[name].field("experiment").type == pa.string()
    assert SCHEMAS[name].field("replicate").type == pa.int32()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_round_trip_keeps_every_value_column_and_type(name, tmp_path):
    frame = make_table(name, rows_of(name), experiment="digits-vit", replicate=2)
    write_table(name, frame, tmp_path / "t.parquet", {"seed": 3})
    stored = pq.read_table(tmp_path / "t.parquet").schema
    assert stored.equals(SCHEMAS[name])
    metadata = {k.decode(): json.loads(v) for k, v in stored.metadata.items()}
    assert metadata == {"fourfold": {"table": name, "seed": 3}}
    back = read_table(name, tmp_path / "t.parquet")
    assert list(back.columns) == SCHEMAS[name].names
    for field in SCHEMAS[name]:
        if pa.types.is_list(field.type):  # they come back as arrays
            back[field.name] = back[field.name].map(list)
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    # Reading any table needs pandas alone.
    again = read_table(name, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), again)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_csv_beside_a_table_has_all_of_it_but_lists_to_six_digits(name, tmp_path):
    frame = make_table(name, rows_of(name), experiment="digits-vit", replicate=2)
    write_table(name, frame, tmp_path / "t.parquet")
    write_csv(name, tmp_path / "t.parquet")
    csv = pd.read_csv(tmp_path / "csv" / "t.csv")
    kept = [field.name for field in SCHEMAS[name] if not pa.types.is_list(field.type)]
    assert list(csv.columns) == kept
    pd.testing.assert_frame_equal(csv, frame[kept], check_dtype=False, rtol=1e-5)


@pytest.mark.parametrize("order", [1, -1])
def test_columns_are_in_the_order_of_the_schema_whatever_the_rows(order):
    rows = [dict(list(row.items())[::order]) for row in rows_of("grid")]
    assert list(make_table("grid", rows, experiment="e", replicate=0)) == SCHEMAS["grid"].names


def test_equal_tables_are_equal_files(tmp_path):
    for name in ("a", "b"):
        frame = make_table("grid", rows_of("grid"), experiment="e", replicate=0)
        write_table("grid", frame, tmp_path / f"{name}.parquet", {"x": 1, "y": 2})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_tables_are_read_one_under_the_other(tmp_path):
    paths = [tmp_path / f"{i}.parquet" for i in range(2)]
    for i, path in enumerate(paths):
        rows = make_table("cost", rows_of("cost", 2 - i), experiment=f"e{i}", replicate=i)
        write_table("cost", rows, path)
    read = read_table("cost", *paths)
    assert list(read["experiment"]) == ["e0", "e0", "e1"]
    assert list(read.index) == [0, 1, 2]


def test_a_missing_or_unknown_column_is_refused_with_the_allowed_ones(tmp_path):
    rows = rows_of("barrier")
    for row in rows:
        row["barier"] = row.pop("barrier")
    with pytest.raises(InputError) as caught:
        make_table("barrier", rows, experiment="e", replicate=0)
    for part in ("missing columns ['barrier']", "unknown columns ['barier']", "u_at_max"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match="missing columns"):
        write_table("barrier", pd.DataFrame(rows), tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


def test_values_of_the_wrong_type_are_not_written(tmp_path):
    rows = rows_of("grid")
    rows[0]["nll"] = "low"
    frame = make_table("grid", rows, experiment="e", replicate=0)
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError), match="nll"):
        write_table("grid", frame, tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_table_is_refused_by_name(tmp_path):
    write_table(
        "cost",
        make_table("cost", rows_of("cost"), experiment="e", replicate=0),
        tmp_path / "c.parquet",
    )
    with pytest.raises(InputError, match=r"c\.parquet.*'nll'"):
        read_table("grid", tmp_path / "c.parquet")


def test_a_file_whose_column_has_another_type_is_refused(tmp_path):
    frame = make_table("grid", rows_of("grid"), experiment="e", replicate=0)
    frame["nll"] = "low"
    frame.to_parquet(tmp_path / "odd.parquet")
    with pytest.raises(InputError, match=r"odd\.parquet.*nll"):
        read_table("grid", tmp_path / "odd.parquet")


def test_a_missing_or_damaged_file_is_refused_by_name(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(InputError, match=r"no table at .*t\.parquet"):
        read_table("grid", path)
    write_table("grid", make_table("grid", rows_of("grid"), experiment="e", replicate=0), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"t\.parquet is no readable parquet file"):
        read_table("grid", path)


def _with_metadata(path, **metadata):
    write_table("cost", pd.DataFrame([], columns=SCHEMAS["cost"].names), path, metadata)
    return path


def test_gathered_tables_keep_what_their_parts_agree_in(tmp_path):
    paths = [
        _with_metadata(tmp_path / "a.parquet", device="cpu", n=1, settings={"m": 1, "x": 1}),
        _with_metadata(tmp_path / "b.parquet", device="cpu", n=2, settings={"m": 1, "x": 2}),
        _with_metadata(
            tmp_path / "c.parquet", device="cpu", n=1, settings={"x": 1, "y": 3}, seeds={"s": 5}
        ),
    ]
    expected = {"device": "cpu", "settings": {"m": 1, "y": 3}, "seeds": {"s": 5}}
    assert common_metadata(*paths) == expected
    assert common_metadata(paths[0]) == read_metadata(paths[0])


def test_a_foreign_table_has_no_metadata(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "foreign.parquet")
    assert read_metadata(tmp_path / "foreign.parquet") == {}
