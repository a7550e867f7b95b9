"""Parquet files in batches of a bounded number of rows; a damaged one ends in one `InputError`.

What a footer says about single columns (statistics, sizes, encodings) is never asked for: where it
contradicts itself, pyarrow ends the process.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fourfold.files.reading import reading, require_file

BATCH_ROWS = 64  # of images, some hundred MB at most


def parsing(path: str | Path) -> contextlib.AbstractContextManager[None]:
    """Turn what pyarrow raises into a message that names the file; for calls of pyarrow alone."""
    return reading(path, "parquet file", pa.ArrowException, MemoryError, OverflowError)


def read_footer(path: str | Path) -> tuple[pa.Schema, int]:
    """Return names, types and metadata of the columns, and the declared number of rows.

    Raises:
        InputError: if the file is missing or damaged.
    """
    require_file(path)
    with parsing(path), pq.ParquetFile(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def read_batches(
    path: str | Path, columns: list[str] | None = None, rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches of at most `rows`.

    Args:
        path: of the file.
        columns: to read; None reads all.
        rows: of a batch.

    Raises:
        InputError: if the file is missing or damaged.
    """
    require_file(path)
    with parsing(path):
        # Without a buffer size, Arrow reads the whole column of a row group at once.
        file = pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    with file:
        batches = iter(file.iter_batches(rows, columns=columns))
        while True:
            with parsing(path):
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)  # Arrow reads text that is no UTF-8
            yield batch
