"""Parquet files of encoded images, in the layout of public data set hubs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from fourfold.data.sources._decode import decode_images
from fourfold.data.sources._source import Source
from fourfold.errors import InputError
from fourfold.parquet_file import ParquetReader, check_declared, open_parquet
from fourfold.untrusted import parse_json, require_file

IMAGE_COLUMNS = ("img", "image")  # taken if several columns could hold the images
LABEL_COLUMNS = ("label", "labels", "fine_label")
# The smallest image files have some 30 bytes, and hardly compress; but a file of a few rows has a
# footer too, and dictionaries store equal images once.
_FREE_ROWS, _ROW_BYTES = 1000, 16
_BATCH_ROWS, _BATCH_BYTES = 4096, 32_000_000  # read at a time


def read_parquet(
    folder: Path,
    threads: int,
    *,
    train: str,
    test: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    size: int | None = None,
) -> Source:
    """Read one Parquet file, or two with the published training and test set.

    The image column holds the bytes of image files, or structs with a field `bytes`; the label
    column holds integers from 0. Class names are taken from the schema's metadata (key
    `huggingface`, at `info.features.<label column>.names`), else they are the numbers.

    Args:
        folder: where relative paths are looked up.
        threads: decode the images.
        train: path of the file.
        test: path of the published test set; None if there is none.
        image_column: None takes the only column that can hold images.
        label_column: None takes the only column of integers.
        size: pixels; see `decode_images`.

    Raises:
        InputError: naming file and row, if anything in them can't be used.
    """
    paths = [train] if test is None else [train, test]
    files = [_open(folder / path, image_column, label_column) for path in paths]
    labels = [_read_labels(file) for file in files]
    classes = _class_names(files, labels)
    images = [_read_images(file, size, threads) for file in files]
    published_test = None if test is None else (images[1], labels[1])
    return Source(classes, images[0], labels[0], published_test)


@dataclass(frozen=True)
class _File:
    path: Path
    reader: ParquetReader
    image: str  # names of columns
    label: str
    class_names: list[str] | None

    @property
    def rows(self) -> int:
        return self.reader.num_rows

    @property
    def size(self) -> int:
        return self.reader.size

    def column(self, name: str) -> Iterator[tuple[int, pa.Array]]:
        """Yield pieces of a column with the row that each starts at."""
        start = 0
        # Encoded images hardly compress, so that the file is about as large as its contents.
        row_bytes = self.size / self.rows
        batch_rows = max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / row_bytes)))
        try:
            for batch in self.reader.batches([name], most_rows=batch_rows):
                yield start, batch.column(0)
                start += len(batch)
        except InputError as error:
            raise InputError(
                f"{self.path}: column {name!r} can't be read from row {start} on "
                f"({str(error).removeprefix(f'{self.path} ').rstrip('.')}); the file is damaged. "
                "Get it again."
            ) from error


# --- columns --------------------------------------------------------------------------------------


def _open(path: Path, image_column: str | None, label_column: str | None) -> _File:
    require_file(
        path,
        f"no file at {path}; source.train and source.test name Parquet files, absolute or "
        "below the data folder (data_folder in params.yaml, or FOURFOLD_DATA).",
    )
    # Without a buffer size, Arrow reads the whole column of a row group at once.
    reader = open_parquet(path, "Parquet file", buffer_size=2**20, pre_buffer=False)
    schema = reader.schema
    if reader.num_rows == 0:
        raise InputError(f"{path} has no rows; it must hold at least one image per class.")
    most_rows = max(_FREE_ROWS, reader.size // _ROW_BYTES)
    check_declared(path, reader.num_rows, most_rows, "rows of images")
    image = _choose(path, schema, image_column, "image", IMAGE_COLUMNS, _holds_images)
    label = _choose(path, schema, label_column, "label", LABEL_COLUMNS, pa.types.is_integer)
    return _File(path, reader, image, label, _published_names(schema, label))


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_images(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _choose(
    path: Path,
    schema: pa.Schema,
    given: str | None,
    what: str,
    preferred: tuple[str, ...],
    fits: Callable[[pa.DataType], bool],
) -> str:
    """Return the name of the image or label column."""
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    candidates = [field.name for field in schema if fits(field.type)]
    if given is not None:
        if candidates.count(given) == 1:
            return given
        problem = "is not in the file" if given not in schema.names else f"can't hold {what}s"
        raise InputError(
            f"{path}: source.{what}_column is {given!r}, which {problem}; the columns are {found}."
        )
    if len(candidates) == 1:
        return candidates[0]
    for name in preferred:
        if candidates.count(name) == 1:
            return name
    problem = f"several columns can hold {what}s" if candidates else f"no column can hold {what}s"
    needed = "binary, or a struct with binary `bytes`" if what == "image" else "integers"
    raise InputError(
        f"{path}: {problem} ({needed}); the columns are {found}. Name it in source.{what}_column."
    )


def _published_names(schema: pa.Schema, label: str) -> list[str] | None:
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        names = parse_json(text)["info"]["features"][label]["names"]
    except (TypeError, KeyError, ValueError):
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_list and names else None


# --- contents -------------------------------------------------------------------------------------


def _read_labels(file: _File) -> Tensor:
    labels = np.empty(file.rows, np.int64)
    limit = len(file.class_names) if file.class_names else file.rows
    for start, column in file.column(file.label):
        if column.null_count:
            row = start + pc.index(pc.is_null(column), True).as_py()
            raise InputError(
                f"{file.path}, row {row}: {file.label!r} is null; give every image a label from 0, "
                "or remove the row."
            )
        values = column.to_numpy()  # the width of the file: a cast could wrap around
        if (bad := np.flatnonzero((values < 0) | (values >= limit))).size:
            allowed = (
                f"there are {limit} class names, so that labels are 0 to {limit - 1}"
                if file.class_names
                else f"class numbers start from 0 and are less than the number of rows, {limit}"
            )
            raise InputError(
                f"{file.path}, row {start + bad[0]}: {file.label!r} is {values[bad[0]]}; {allowed}."
            )
        labels[start : start + len(values)] = values
    return torch.from_numpy(labels)


def _class_names(files: list[_File], labels: list[Tensor]) -> list[str]:
    """Return the training set's class names; the test set's must agree."""
    train = files[0]
    names = train.class_names or [str(k) for k in range(int(labels[0].max()) + 1)]
    for file, these in zip(files[1:], labels[1:], strict=True):
        if file.class_names and train.class_names and file.class_names != names:
            raise InputError(
                f"{file.path}: the class names of {file.label!r} are {file.class_names}, those in "
                f"{train.path} {names}; they must be equal."
            )
        if (bad := (these >= len(names)).nonzero()).numel():
            row = int(bad[0])
            raise InputError(
                f"{file.path}, row {row}: {file.label!r} is {int(these[row])}, but {train.path} "
                f"has {len(names)} classes; labels are 0 to {len(names) - 1}."
            )
    return names


def _read_images(file: _File, size: int | None, threads: int) -> Tensor:
    return decode_images(_encoded(file), file.rows, size, threads, file.size)


def _encoded(file: _File) -> Iterator[tuple[str, bytes]]:
    """Yield place and bytes of every image."""
    for start, column in file.column(file.image):
        values = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
        for row, value in enumerate(values, start):
            where = f"{file.path}, row {row}"
            if not value.is_valid:
                raise InputError(
                    f"{where}: the image in {file.image!r} is null; the files themselves must be "
                    "in the column. Remove the row, or write its image into it."
                )
            yield where, value.as_py()
