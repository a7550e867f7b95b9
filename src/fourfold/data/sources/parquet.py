"""Parquet files of encoded images, in the layout of public data set hubs."""

import glob
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from fourfold.data.sources._decode import decode_images
from fourfold.data.sources._source import Source
from fourfold.errors import InputError
from fourfold.files.parquet import parsing, read_batches, read_footer
from fourfold.files.reading import parse_json, require_file, shortened

# The first of these that a file has is taken, whatever other columns there are.
IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")
Label = str | bool | int
_BINARY = (
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
    pa.types.is_fixed_size_binary,
)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_SUFFIXES = (".parquet", ".parq", ".pq")
# Words in the names of files of different splits.
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def read_parquet(
    folder: Path,
    threads: int,
    *,
    train: str | list[str],
    test: str | list[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    size: int | None = None,
) -> Source:
    """Read the Parquet files of a data set, and those of its published test set.

    The image column holds the bytes of image files, or structs with a field `bytes`. The label
    column holds texts, true and false, or whole numbers; the classes are the sorted values. Numbers
    are positions instead where the schema's metadata names the classes (key `huggingface`, at
    `info.features.<label column>.names`).

    Args:
        folder: where relative paths are looked up.
        threads: decode the images.
        train: path of a file, a pattern such as `data/train-*.parquet`, a folder of files, or a
            list of paths; files are taken in the order of the list, else sorted.
        test: the same of the published test set; None if there is none.
        image_column: None takes the first of `IMAGE_COLUMNS`, else the only one that holds images.
        label_column: None takes the first of `LABEL_COLUMNS`.
        size: pixels; see `decode_images`.

    Raises:
        InputError: naming file and row, if anything in them can't be used.
    """
    parts = [_open(find_files(folder, "train", train), image_column, label_column)]
    if test is not None:
        parts.append(_open(find_files(folder, "test", test), image_column, label_column))
    if len({part.kind for part in parts}) > 1:
        raise InputError(
            f"{parts[1].paths[0]}: {parts[1].label!r} holds {parts[1].kind}, but "
            f"{parts[0].label!r} of {parts[0].paths[0]} {parts[0].kind}; write both alike."
        )
    values = [_read_labels(part) for part in parts]
    classes, labels = _number(parts, values)
    images = [
        decode_images(_encoded(part, [len(one) for one in these]), len(rows), size, threads)
        for part, these, rows in zip(parts, values, labels, strict=True)
    ]
    published_test = None if test is None else (images[1], labels[1])
    return Source(classes, images[0], labels[0], published_test)


# --- files ----------------------------------------------------------------------------------------


def find_files(folder: Path, key: str, given: str | list[str]) -> list[Path]:
    """Return the files that `source.<key>` names, sorted unless it is a list.

    Raises:
        InputError: if there are none, if files of one set are missing, or if they are of several
            splits. A list of paths is taken as it is.
    """
    if not isinstance(given, str):
        paths = [folder / one for one in given]
        if not paths or len(set(paths)) < len(paths):
            raise InputError(f"source.{key} is {given}; list at least one file, and each once.")
        return paths
    path = folder / given
    if path.is_file():
        _check_alone(path, key)
        paths = [path]
    elif path.is_dir():
        paths = [one for one in path.glob("[!.]*") if one.suffix.lower() in _SUFFIXES]
    else:
        pattern = Path(glob.escape(str(folder))) / given
        paths = [Path(one) for one in glob.iglob(str(pattern), recursive=True)]  # noqa: PTH207
    paths = sorted(one for one in paths if one.is_file())
    if not paths:
        what = (
            f"no file that ends in {' or '.join(_SUFFIXES)} in" if path.is_dir() else "no file at"
        )
        raise InputError(
            f"{what} {path}; source.train and source.test name Parquet files: a path, a pattern, a "
            "folder of files, or a list of paths, absolute or below the data folder (data_folder "
            "in params.yaml, or FOURFOLD_DATA)."
        )
    _check_complete(paths, key)
    _check_one_split(paths, key)
    return paths


def _check_alone(path: Path, key: str) -> None:
    """Refuse one file of several that are numbered, such as 0000.parquet or part-0.parquet."""
    number = re.search(r"(?:^(?:part|shard|chunk|data)[-_.]?|(?<!\d)(?=0\d\d))(\d+)", path.name)
    if "-of-" in path.name or not number:
        return
    start = path.name[: number.start(1)]
    like = re.compile(rf"{re.escape(start)}\d+")
    others = [
        one.name
        for one in sorted(path.parent.iterdir())
        if one.suffix == path.suffix and like.match(one.name) and one.name != path.name
    ]
    if others:
        raise InputError(
            f"source.{key} names {path} alone, but {len(others)} files of the same set lie beside "
            f"it ({', '.join(others[:3])}). Name the folder, a pattern ({start}*{path.suffix}) or "
            f"the list of files; [{path.name}] reads this one alone."
        )


def _check_complete(paths: list[Path], key: str) -> None:
    """Refuse a set of files whose names count more of them, such as train-00000-of-00002."""
    sets: dict[tuple[Path, str, int], set[int]] = {}
    for path in paths:
        if match := re.match(r"(.*?)(\d+)-of-(\d+)", path.name):
            name, number, count = match[1], int(match[2]), int(match[3])
            sets.setdefault((path.parent, name, count), set()).add(number)
    for (parent, name, count), numbers in sets.items():
        if len(numbers) != count:
            raise InputError(
                f"source.{key} names {len(numbers)} of the {count} files {name}*-of-* in {parent}. "
                f"Name the folder, a pattern ({name}*) or the list of all; a list is taken as it "
                "is, so that it can leave some out."
            )


def _check_one_split(paths: list[Path], key: str) -> None:
    """Refuse files whose names, or folders, are those of different splits."""
    common = len(os.path.commonpath([path.parent for path in paths]))
    words = [re.findall("[a-z]+", str(path)[common:].lower()) for path in paths]
    splits = {frozenset(_SPLIT_NAMES[one] for one in some if one in _SPLIT_NAMES) for some in words}
    if len(splits - {frozenset()}) > 1:
        names = ", ".join(str(path)[common:].strip("/") for path in paths[:4])
        raise InputError(
            f"source.{key} names files of several splits ({names}); name those of one, by a "
            "pattern such as train-*.parquet or as a list."
        )


# --- columns --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """The files of the training or of the test set, and what their columns hold."""

    paths: list[Path]
    image: str  # names of columns
    label: str
    kind: str  # of the labels
    class_names: list[str] | None


def _open(paths: list[Path], image_column: str | None, label_column: str | None) -> _Part:
    parts = []
    for path in paths:
        require_file(path, f"no file at {path}, which is listed in source.train or source.test.")
        schema, _ = read_footer(path)
        image = _choose(path, schema, image_column, "image", IMAGE_COLUMNS, _holds_images)
        label = _choose(path, schema, label_column, "label", LABEL_COLUMNS, _label_kind)
        kind = _label_kind(schema.field(label).type)
        names = _published_names(schema, label) if kind == "numbers" else None
        parts.append(_Part(paths, image, label, kind, names))
        if parts[-1] != parts[0]:
            raise InputError(
                f"{path} differs from {paths[0]} in its columns of images and labels: "
                f"{_described(parts[-1])}, not {_described(parts[0])}; all files of one set must "
                "have the same."
            )
    return parts[0]


def _described(part: _Part) -> str:
    names = f", classes {shortened(part.class_names)}" if part.class_names else ""
    return f"{part.image!r} and {part.label!r} ({part.kind}{names})"


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, whether each is stored once or where it occurs."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _holds_images(kind: pa.DataType) -> bool:
    kind = _plain(kind)
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_images(kind.field(index).type)
    return any(is_kind(kind) for is_kind in _BINARY)


def _label_kind(kind: pa.DataType) -> str:
    """Return what a column of labels holds, nothing if they can't be labels."""
    kind = _plain(kind)
    if pa.types.is_boolean(kind):
        return "true and false"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "numbers"
    return "texts" if any(is_kind(kind) for is_kind in _TEXT) else ""


def _choose(
    path: Path,
    schema: pa.Schema,
    given: str | None,
    what: str,
    usual: tuple[str, ...],
    fits: Callable[[pa.DataType], object],
) -> str:
    """Return the name of the image or label column."""
    fitting = [field.name for field in schema if fits(field.type)]
    there = [name for name in usual if name in schema.names]
    if what == "image":  # `img` may well be a path; a label of a kind that can't be read is one
        there.sort(key=lambda name: name not in fitting)
    if given is not None:
        name = given
    elif there:
        name = there[0]
    elif what == "image" and len(fitting) == 1:
        name = fitting[0]
    else:
        name = None
    if name is None:
        problem = f"no column has a usual name of {what}s ({', '.join(usual)})"
    elif (count := schema.names.count(name)) != 1:
        problem = f"there are {count or 'no'} columns {name!r}"
    elif name not in fitting:
        problem = f"column {name!r} can't hold {what}s"
    else:
        return name
    needed = {
        "image": "the bytes of image files, or structs with such `bytes`",
        "label": "texts, true and false, or whole numbers",
    }
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise InputError(
        f"{path}: {problem}; the columns are {found}. Name one that holds {needed[what]} in "
        f"source.{what}_column."
    )


def _published_names(schema: pa.Schema, label: str) -> list[str] | None:
    text = (schema.metadata or {}).get(b"huggingface", b"")
    try:
        names = parse_json(text)["info"]["features"][label]["names"]
    except (TypeError, KeyError, ValueError):
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_list and names else None


# --- contents -------------------------------------------------------------------------------------


def _values(column: pa.Array) -> pa.Array:
    """Return the values of a dictionary where they occur, and the bytes of structs."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_struct(column.type):
        return _values(pc.struct_field(column, "bytes"))
    return column


def _column(path: Path, name: str) -> Iterator[tuple[int, pa.Array]]:
    """Yield pieces of a column with the row that each starts at."""
    start = 0
    for batch in read_batches(path, [name]):
        # By name: Arrow reads `a.b` too where `a` is asked for.
        with parsing(path):
            column = _values(batch.column(name))
        yield start, column
        start += len(batch)


def _read_labels(part: _Part) -> list[list[Label]]:
    """Return the labels of each file, as they are there."""
    labels = []
    for path in part.paths:
        these: list[Label] = []
        for start, column in _column(path, part.label):
            for row, value in enumerate(column.to_pylist(), start):
                these.append(_check_label(value, f"{path}, row {row}: {part.label!r}"))
        if not these:
            raise InputError(f"{path} has no rows; it must hold at least one image.")
        if negative := [k for k, one in enumerate(these) if isinstance(one, int) and one < 0]:
            raise InputError(
                f"{path}, row {negative[0]}: {part.label!r} is {these[negative[0]]}, one of "
                f"{len(negative):,} negative labels in {len(these):,} rows, which marks images "
                "without a label. Leave those out, or number all classes from 0."
            )
        labels.append(these)
    return labels


def _check_label(value: Label | float | None, where: str) -> Label:
    """Return a label as a text, a boolean or an integer."""
    value = value.strip() if isinstance(value, str) else value
    if value is None or value == "" or value != value:
        raise InputError(f"{where} is {value!r}; give every image a label, or remove the row.")
    if isinstance(value, (str, bool, int)):
        return value
    if not value.is_integer():
        raise InputError(f"{where} is {value}; labels are whole numbers, texts, or true and false.")
    return int(value)


def _number(parts: list[_Part], labels: list[list[list[Label]]]) -> tuple[list[str], list[Tensor]]:
    """Return the names of the classes, and the labels of each part as positions in them."""
    train = parts[0]
    names = train.class_names
    if names is not None:
        position: dict[Label, int] = {k: k for k in range(len(names))}
        allowed = f"there are {len(names)} class names, so that labels are 0 to {len(names) - 1}"
    else:
        values = sorted({value for one in labels[0] for value in one})
        names = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
        position = {value: k for k, value in enumerate(values)}
        allowed = f"the {len(values)} classes are those of {train.paths[0]}: {shortened(names)}"
    numbered = []
    for part, files in zip(parts, labels, strict=True):
        if part.class_names and train.class_names and part.class_names != names:
            raise InputError(
                f"{part.paths[0]}: the class names of {part.label!r} are {part.class_names}, those "
                f"in {train.paths[0]} {names}; they must be equal."
            )
        for path, these in zip(part.paths, files, strict=True):
            if unknown := [k for k, value in enumerate(these) if value not in position]:
                raise InputError(
                    f"{path}, row {unknown[0]}: {part.label!r} is {these[unknown[0]]!r}; {allowed}."
                )
        numbered.append(torch.tensor([position[value] for one in files for value in one]))
    return names, numbered


def _encoded(part: _Part, rows: list[int]) -> Iterator[tuple[str, bytes]]:
    """Yield place and bytes of every image, as many of each file as it has labels."""
    for path, count in zip(part.paths, rows, strict=True):
        end = 0
        for start, column in _column(path, part.image):
            end = start + len(column)
            for row, value in enumerate(column, start):
                where = f"{path}, row {row}"
                if not value.is_valid:
                    raise InputError(
                        f"{where}: the image in {part.image!r} is null; the files themselves must "
                        "be in the column. Remove the row, or write its image into it."
                    )
                if row < count:
                    yield where, value.as_py()
        if end != count:
            raise InputError(
                f"{path} has {count} labels and {end} images; it is damaged. Get it again."
            )
