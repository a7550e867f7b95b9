"""Parquet files that anybody may have written, read in batches of bounded size.

A few bytes can stand for billions of rows (run lengths), for pages of gigabytes (compression), or
for one long value in every row (dictionaries, shared prefixes). Arrow allocates what is declared,
so that everything declared is compared with the size of the file first: the footer when a file is
opened, the header of each page before its row group is read. Both are parsed here, because pyarrow
shows no page headers, and a footer that contradicts itself makes its accessors end the process.
"""

import contextlib
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fourfold.errors import InputError
from fourfold.untrusted import reading, require_file

# The first of each pair holds for files of any size, the second grows with the bytes there are.
ROWS, ROWS_PER_BYTE = 100_000, 8  # a column of ten classes takes half a byte a row
PAGE_BYTES, PAGE_RATIO = 8_000_000, 100  # writers make pages of 1 MB, images compress hardly
GROUP_BYTES = 32_000_000  # all pages of a row group; the same ratio
FOOTER_BYTES, FOOTER_SHARE = 1_000_000, 8  # parsed here, into 60 times the memory at most
COLUMNS = 100_000  # Arrow takes 200 bytes for each, which can be one byte in a file
BATCH_ROWS, BATCH_BYTES = 4096, 16_000_000  # read at a time
_MAGIC = b"PAR1"
_NOTHING: dict = {}  # one for all empty structs, which take a byte each in a file

# What is read of the structs in parquet.thrift (Parquet format 2): field number -> fields in it.
_CHUNK = {1: {}, 3: {3: {}, 5: {}, 7: {}, 9: {}, 11: {}}}
_FOOTER = {2: {2: {}, 5: {}}, 3: {}, 4: {1: _CHUNK, 3: {}}}
_PAGE = {1: {}, 2: {}, 3: {}, 5: {1: {}, 2: {}}, 7: {1: {}}, 8: {1: {}, 4: {}}}
_DICTIONARY_PAGE, _DATA_PAGE, _DATA_PAGE_2 = 2, 0, 3
_DELTA_BYTE_ARRAY = 7  # the encoding whose values share prefixes


@dataclass(frozen=True)
class _Column:
    """One column of one row group, as the footer describes it."""

    path: str
    value_bytes: int  # of each value, also a missing one; 0 if they differ
    values: int
    stored: int
    start: int


@dataclass(frozen=True)
class ParquetReader:
    """An open Parquet file, for use in a `with` statement.

    Attributes:
        path: of the file.
        size: of the file, bytes.
        rows: number of rows in each row group.
        schema: names and types of the columns.
    """

    path: Path
    size: int
    rows: list[int]
    schema: pa.Schema
    _groups: list[list[_Column]]
    _file: pq.ParquetFile

    def __enter__(self) -> "ParquetReader":
        """Return the reader itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self._file.close()

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return sum(self.rows)

    def batches(
        self,
        columns: Sequence[str] | None = None,
        groups: Sequence[int] | None = None,
        most_rows: int = BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches, after a look at the header of every page.

        Args:
            columns: to read; None reads all.
            groups: row groups to read; None reads all.
            most_rows: of a batch, which is made smaller if a value can be repeated in it.

        Raises:
            InputError: if the file is damaged, or declares too much.
        """
        groups = range(len(self.rows)) if groups is None else groups
        with reading(self.path, "parquet file", pa.ArrowException):
            repeated = self._check_pages(groups, columns)
            batch_rows = max(1, min(most_rows, BATCH_ROWS, BATCH_BYTES // max(repeated, 1)))
            missing = sum(self.rows[i] for i in groups)
            for batch in self._file.iter_batches(batch_rows, list(groups), columns):
                missing -= len(batch)
                if missing < 0:
                    break
                yield batch
            if missing:
                raise ValueError("it has not the number of rows that its footer declares")

    def _check_pages(self, groups: Sequence[int], columns: Sequence[str] | None) -> int:
        """Check all page headers; return the most bytes that one row can take again."""
        largest, claimed = 0, 0
        with _mapped(self.path) as content:
            for i in groups:
                repeated, expanded, stored = 0, 0, 0
                for column in self._groups[i]:
                    name = column.path + "."  # a column of structs has a path for each field
                    if columns is not None and not any(name.startswith(f"{c}.") for c in columns):
                        continue
                    stored += column.stored
                    shared = column.value_bytes
                    for page_bytes, is_shared in self._pages(content, column):
                        expanded += page_bytes
                        shared = max(shared, page_bytes * is_shared)
                    repeated += shared
                claimed += stored
                # Pieces that several columns claim would be read as often.
                check_declared(self.path, claimed, self.size, "bytes of columns")
                most = max(GROUP_BYTES, PAGE_RATIO * stored)
                check_declared(self.path, expanded, most, "bytes of pages")
                largest = max(largest, repeated)
        return largest

    def _pages(self, content: mmap.mmap, column: _Column) -> Iterator[tuple[int, bool]]:
        """Yield for each page its declared size, and whether its values can be repeated."""
        at, end, remaining = column.start, column.start + column.stored, column.values
        most_values = max(ROWS, ROWS_PER_BYTE * self.size)
        while remaining > 0 and at < end:
            header, at = _read_struct(content, at, _PAGE)
            kind, expanded, stored = header[1], header[2], header[3]
            if not 0 <= stored <= end - at:
                raise ValueError(f"a page of {stored:,} bytes does not fit into its column")
            most = max(PAGE_BYTES, PAGE_RATIO * stored)
            check_declared(self.path, expanded, most, "bytes in a page")
            at += stored
            if kind == _DICTIONARY_PAGE:
                values, is_shared = header[7][1], True
            elif kind == _DATA_PAGE:
                values, is_shared = header[5][1], header[5][2] == _DELTA_BYTE_ARRAY
            elif kind == _DATA_PAGE_2:
                values, is_shared = header[8][1], header[8][4] == _DELTA_BYTE_ARRAY
            else:
                continue  # an index, which Arrow passes over
            check_declared(self.path, values, most_values, "values in a page")
            yield expanded, is_shared
            if kind != _DICTIONARY_PAGE:
                remaining -= values


def open_parquet(
    path: str | Path, what: str = "parquet file", **options: int | bool
) -> ParquetReader:
    """Open a Parquet file whose footer declares no more than a file of its size can hold.

    Args:
        path: of the file.
        what: it should be, for the message.
        options: of `pyarrow.parquet.ParquetFile`.

    Raises:
        InputError: if it is missing or damaged, or declares too much.
    """
    path = Path(path)
    require_file(path)
    size = path.stat().st_size
    with reading(path, what, pa.ArrowException):
        rows, groups = _read_footer(path, size)
        limits = {"thrift_string_size_limit": size, "thrift_container_size_limit": size}
        file = pq.ParquetFile(path, **limits, **options)
        return ParquetReader(path, size, rows, file.schema_arrow, groups, file)


def check_declared(path: Path, declared: int, limit: int, what: str) -> None:
    """Refuse what a file declares if there is more of it than `limit`, or less than none."""
    if not 0 <= declared <= limit:
        raise InputError(
            f"{path} declares {declared:,} {what}, which is refused before anything is read; a "
            f"file of {path.stat().st_size:,} bytes may have 0 to {limit:,}. It is damaged, or "
            "made to fill the memory; get it again."
        )


def _read_footer(path: Path, size: int) -> tuple[list[int], list[list[_Column]]]:
    """Return the number of rows, and the columns, of each row group."""
    with _mapped(path) as content:
        length = int.from_bytes(content[-8:-4], "little")
        if content[:4] != _MAGIC or content[-4:] != _MAGIC or length > size - 12:
            raise ValueError("it does not begin and end as one")
        check_declared(path, length, max(FOOTER_BYTES, size // FOOTER_SHARE), "bytes of footer")
        footer, _ = _read_struct(content, size - 8 - length, _FOOTER)
    check_declared(path, len(footer[2]), COLUMNS, "columns")
    rows = [group[3] for group in footer[4]]
    if min(rows, default=0) < 0 or sum(rows) != footer[3]:
        raise ValueError(f"it declares {footer[3]:,} rows, and {sum(rows):,} in its row groups")
    most_rows = max(ROWS, ROWS_PER_BYTE * size)
    check_declared(path, footer[3], most_rows, "rows")
    leaves = [element.get(2, 0) for element in footer[2] if not element.get(5)]
    for value_bytes in leaves:
        check_declared(path, value_bytes, max(PAGE_BYTES, size), "bytes in each value")
    groups = []
    for group in footer[4]:
        columns = []
        for chunk, value_bytes in zip(group[1], leaves, strict=True):
            details = chunk[3]
            names, start = b".".join(details[3]), details[9]
            if 0 < details.get(11, 0) < start:  # the dictionary comes before the data
                start = details[11]
            # A column without values has no pages, wherever it says it lies.
            is_inside = 4 <= start <= start + details[7] <= size - 8 - length
            if 1 in chunk or details[7] < 0 or (details[5] and not is_inside):
                raise ValueError("a column lies outside of the file")
            check_declared(path, details[5], most_rows, "values of a column")
            name = names.decode("utf-8", "replace")
            columns.append(_Column(name, value_bytes, details[5], details[7], start))
        groups.append(columns)
    return rows, groups


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        yield content


# --- Thrift's compact protocol --------------------------------------------------------------------


def _read_struct(
    content: mmap.mmap, at: int, wanted: dict[int, dict], depth: int = 0
) -> tuple[dict, int]:
    """Return the wanted fields of a struct (number -> value), and where it ends."""
    fields, field = {}, 0
    while byte := content[at]:
        at += 1
        if byte >> 4:
            field += byte >> 4
        else:
            field, at = _read_integer(content, at)
        inner = wanted.get(field)
        value, at = _read_value(content, at, byte & 15, inner, depth)
        if inner is not None:
            fields[field] = value
    return fields or _NOTHING, at + 1


def _read_value(
    content: mmap.mmap, at: int, kind: int, wanted: dict[int, dict] | None, depth: int
) -> tuple[object, int]:
    if kind in (1, 2):  # true and false, which have no bytes of their own
        return kind == 1, at
    if kind == 3:
        return content[at], at + 1
    if kind in (4, 5, 6):
        return _read_integer(content, at)
    if kind == 7:
        return None, at + 8  # floating numbers are of no interest
    if kind == 8:
        length, at = _read_varint(content, at)
        return None if wanted is None else content[at : at + length], at + length
    if kind in (9, 10) and depth < 16:
        kind, at = content[at], at + 1
        length, kind = kind >> 4, kind & 15
        if length == 15:
            length, at = _read_varint(content, at)
        kind = 3 if kind in (1, 2) else kind  # in a list they have
        values = []
        for _ in range(length):
            value, at = _read_value(content, at, kind, wanted, depth + 1)
            if wanted is not None:
                values.append(value)
        return values, at
    if kind == 12 and depth < 16:
        return _read_struct(content, at, wanted or {}, depth + 1)
    raise ValueError(f"a header has a field of the unknown type {kind}")


def _read_integer(content: mmap.mmap, at: int) -> tuple[int, int]:
    value, at = _read_varint(content, at)
    return (value >> 1) ^ -(value & 1), at


def _read_varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a header has an integer of more than 64 bits")
