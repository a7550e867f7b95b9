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
    read_head,
    read_metadata,
    read_table,
    write_csv,
    write_table,
)


def value_of(field, i):
    if pa.types.is_string(field.type):
        return f"{field.name} {i}"
    if pa.types.is_boolean(field.type):
        return bool(i % 2)
    if pa.types.is_list(field.type):
        return [0.1 * i, 1 / 3]
    return i + 1 if pa.types.is_integer(field.type) else 0.1 * i + 1 / 3


def table_of(name, n=3, experiment="e", replicate=0):
    rows = [{field.name: value_of(field, i) for field in SCHEMAS[name]} for i in range(n)]
    return make_table(name, rows, experiment=experiment, replicate=replicate)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_round_trip_keeps_every_value_column_and_type(name, tmp_path):
    path, frame = tmp_path / "t.parquet", table_of(name)
    write_table(name, frame, path, {"seed": 3})
    stored = pq.read_table(path).schema
    assert stored.equals(SCHEMAS[name])
    assert stored.names[:2] == ["experiment", "replicate"]
    metadata = {k.decode(): json.loads(v) for k, v in stored.metadata.items()}
    assert metadata == {"fourfold": {"table": name, "seed": 3}}
    back = read_table(name, path)
    # Reading any table needs pandas alone.
    pd.testing.assert_frame_equal(pd.read_parquet(path), back)
    lists = [field.name for field in SCHEMAS[name] if pa.types.is_list(field.type)]
    for column in lists:  # they come back as arrays
        back[column] = back[column].map(list)
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    write_csv(name, path)
    csv = pd.read_csv(tmp_path / "csv" / "t.csv")
    pd.testing.assert_frame_equal(csv, frame.drop(columns=lists), check_dtype=False, rtol=1e-5)


def test_equal_tables_are_equal_files_whatever_the_order_of_columns(tmp_path):
    frame = table_of("grid")
    write_table("grid", frame, tmp_path / "a.parquet", {"x": 1, "y": 2})
    write_table("grid", frame[frame.columns[::-1]], tmp_path / "b.parquet", {"y": 2, "x": 1})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_tables_are_read_one_under_the_other(tmp_path):
    paths = [tmp_path / f"{i}.parquet" for i in range(2)]
    for i, path in enumerate(paths):
        write_table("cost", table_of("cost", 2 - i, experiment=f"e{i}"), path)
    read = read_table("cost", *paths)
    assert list(read["experiment"]) == ["e0", "e0", "e1"]
    assert list(read.index) == [0, 1, 2]


def test_a_long_table_is_read_and_its_head_alone(tmp_path):
    table = pd.concat([table_of("grid", 50)] * 100, ignore_index=True)
    write_table("grid", table, tmp_path / "t.parquet")
    read = read_table("grid", tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    head, rows = read_head(tmp_path / "t.parquet", 70)
    pd.testing.assert_frame_equal(head, read[:70])
    assert rows == 5000


def test_a_table_that_pandas_wrote_with_an_index_is_read(tmp_path):
    table_of("barrier", 5).iloc[3:].to_parquet(tmp_path / "t.parquet")
    assert len(read_table("barrier", tmp_path / "t.parquet")) == 2


def test_a_missing_or_unknown_column_is_refused_with_the_allowed_ones(tmp_path):
    wrong = table_of("barrier").rename(columns={"barrier": "barier"})
    wrong.to_parquet(tmp_path / "t.parquet")
    for use in (
        lambda: make_table("barrier", wrong, experiment="e", replicate=0),
        lambda: write_table("barrier", wrong, tmp_path / "new.parquet"),
        lambda: read_table("barrier", tmp_path / "t.parquet"),
    ):
        with pytest.raises(InputError) as caught:
            use()
        for part in ("missing columns ['barrier']", "unknown columns ['barier']", "u_at_max"):
            assert part in str(caught.value)
    assert not (tmp_path / "new.parquet").exists()


def test_values_of_the_wrong_type_are_neither_written_nor_read(tmp_path):
    frame = table_of("grid").assign(nll="low")
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError), match="nll"):
        write_table("grid", frame, tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []
    frame.to_parquet(tmp_path / "odd.parquet")
    with pytest.raises(InputError, match=r"odd\.parquet.*nll"):
        read_table("grid", tmp_path / "odd.parquet")


def test_a_missing_or_damaged_file_is_refused_by_name(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(InputError, match=r"no table at .*t\.parquet"):
        read_table("grid", path)
    write_table("grid", table_of("grid"), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"t\.parquet is no readable parquet file"):
        read_table("grid", path)


def test_gathered_tables_keep_what_their_parts_agree_in(tmp_path):
    made_by = [
        {"device": "cpu", "n": 1, "settings": {"m": 1, "x": 1}},
        {"device": "cpu", "n": 2, "settings": {"m": 1, "x": 2}},
        {"device": "cpu", "n": 1, "settings": {"x": 1, "y": 3}, "seeds": {"s": 5}},
    ]
    paths = [tmp_path / f"{k}.parquet" for k in range(3)]
    for path, metadata in zip(paths, made_by, strict=True):
        write_table("cost", table_of("cost"), path, metadata)
    expected = {"device": "cpu", "settings": {"m": 1, "y": 3}, "seeds": {"s": 5}}
    assert common_metadata(*paths) == expected
    assert common_metadata(paths[0]) == read_metadata(paths[0]) == made_by[0]


def test_a_foreign_table_has_no_metadata(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "foreign.parquet")
    assert read_metadata(tmp_path / "foreign.parquet") == {}
