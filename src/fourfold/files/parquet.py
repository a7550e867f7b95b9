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

_BATCH_ROWS = 64  # of images, some hundred MB at most


def parsing(path: str | Path) -> contextlib.AbstractContextManager[None]:
    """Turn what pyarrow raises into a message that names the file; for calls of pyarrow alone."""
    return reading(path, "parquet file", pa.ArrowException, MemoryError, OverflowError)


def read_footer(path: str | Path) -> tuple[pa.Schema, int]:
    """Return names, types and metadata of the columns, and the declared number of rows."""
    require_file(path)
    with parsing(path), pq.ParquetFile(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def read_batches(path: str | Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows in small batches; `columns` None reads all."""
    require_file(path)
    with parsing(path):
        # Without a buffer size, Arrow reads the whole column of a row group at once.
        file = pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    with file:
        batches = file.iter_batches(_BATCH_ROWS, columns=columns)
        while True:
            with parsing(path):
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)  # Arrow reads text that is no UTF-8
            yield batch
