"""Parquet files of encoded images, in the layout of public data set hubs."""

import glob
import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from fourfold.data.sources._decode import decode_images
from fourfold.data.sources._source import SPLIT_OF, Source
from fourfold.errors import InputError
from fourfold.files.parquet import read_batches, read_footer
from fourfold.files.reading import check_reachable, require_file, shortened

# The first of these that a file has is taken, whatever other columns there are.
_USUAL = {
    "image": ("img", "image"),
    "label": ("label", "labels", "fine_label", "class", "target"),
}
_FITTING = {"image": ("images",), "label": ("texts", "true and false", "numbers")}
_HOLDS = {
    "image": "the bytes of image files, or structs with such `bytes`",
    "label": "texts, true and false, or whole numbers",
}
_BINARY = (pa.binary(), pa.large_binary(), pa.binary_view())
_TEXT = (pa.string(), pa.large_string(), pa.string_view())
_SUFFIXES = (".parquet", ".parq", ".pq")
Label = str | bool | int


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
        threads: see `decode_images`, as for `size`.
        train: path of a file, a pattern such as `data/train-*.parquet`, a folder of files, or a
            list of paths; files are taken in the order of the list, else sorted.
        test: the same of the published test set; None if there is none.
        image_column: None takes the first usual name, else the only column that holds images.
        label_column: None takes the first usual name.
        size: of the images.
    """
    given = {"train": train} if test is None else {"train": train, "test": test}
    columns = {"image": image_column, "label": label_column}
    parts = [_open(_find_files(folder, key, files), columns) for key, files in given.items()]
    first, last = parts[0], parts[-1]
    if first.kind != last.kind or (first.names and last.names and first.names != last.names):
        raise InputError(
            f"{last.paths[0]} has {last}, but {first.paths[0]} has {first}; write both alike."
        )
    labels = [_read_labels(part) for part in parts]
    classes, positions = _number(first, labels)
    read = [
        (decode_images(_encoded(part), len(these), size, threads), these)
        for part, these in zip(parts, positions, strict=True)
    ]
    return Source(classes, *read[0], None if test is None else read[1])


# --- files ----------------------------------------------------------------------------------------


def _find_files(folder: Path, key: str, given: str | list[str]) -> list[Path]:
    """Return the files that `source.<key>` names, sorted unless it is a list.

    Files that are a part of a set, or of several splits, are refused. A list is taken as it is.
    """
    if not isinstance(given, str):
        return [folder / one for one in given]
    path = folder / given
    if path.is_file():
        _check_alone(path, key)
        paths = [path]
    elif path.is_dir():
        paths = [one for one in path.glob("[!.]*") if one.suffix.lower() in _SUFFIXES]
    else:
        pattern = Path(glob.escape(str(folder))) / given
        paths = [Path(one) for one in glob.iglob(str(pattern), recursive=True)]  # noqa: PTH207
    paths = sorted({one for one in paths if one.is_file()})  # `**/**` finds a file several times
    if not paths:
        check_reachable(path)
        what = f"file that ends in {' or '.join(_SUFFIXES)} in" if path.is_dir() else "file at"
        raise InputError(
            f"no {what} {path}; source.train and source.test name Parquet files: a path, a "
            "pattern, a folder of files, or a list of paths, absolute or below the data folder "
            "(data_folder in params.yaml, or FOURFOLD_DATA)."
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
    like = sorted(path.parent.glob(f"{glob.escape(start)}[0-9]*{path.suffix}"))
    if others := [one.name for one in like if one != path]:
        raise InputError(
            f"source.{key} names {path} alone, but {len(others)} files of the same set lie beside "
            f"it ({', '.join(others[:3])}). Name the folder, a pattern ({start}*{path.suffix}) or "
            f"the list of files; [{path.name}] reads this one alone."
        )


def _check_complete(paths: list[Path], key: str) -> None:
    """Refuse a set of files whose names count more of them, such as train-00000-of-00002."""
    sets: dict[tuple[Path, str, str], set[int]] = {}
    for path in paths:
        if match := re.match(r"(.*?)(\d+)-of-(\d+)", path.name):
            sets.setdefault((path.parent, match[1], match[3]), set()).add(int(match[2]))
    for (parent, name, count), numbers in sets.items():
        if len(numbers) != int(count):
            raise InputError(
                f"source.{key} names {len(numbers)} of the {int(count)} files {name}*-of-* in "
                f"{parent}. Name the folder, a pattern ({name}*) or the list of all; a list is "
                "taken as it is, so that it can leave some out."
            )


def _check_one_split(paths: list[Path], key: str) -> None:
    """Refuse files whose names, or folders, are those of different splits."""
    common = len(os.path.commonpath([path.parent for path in paths]))
    words = [re.findall("[a-z]+", str(path)[common:].lower()) for path in paths]
    splits = {frozenset(SPLIT_OF[one] for one in some if one in SPLIT_OF) for some in words}
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
    names: list[str] | None  # of the classes

    def __str__(self) -> str:
        names = f", classes {shortened(self.names)}" if self.names else ""
        return f"columns {self.image!r} and {self.label!r} ({self.kind}{names})"


def _open(paths: list[Path], columns: dict[str, str | None]) -> _Part:
    parts = []
    for path in paths:
        require_file(path, f"no file at {path}, which is listed in source.train or source.test.")
        schema, _ = read_footer(path)
        image, label = (_choose(path, schema, what, given) for what, given in columns.items())
        kind = _kind(schema.field(label).type)
        names = _published_names(schema, label) if kind == "numbers" else None
        parts.append(_Part(paths, image, label, kind, names))
        if parts[-1] != parts[0]:
            raise InputError(
                f"{path} differs from {paths[0]}: it has {parts[-1]}, not {parts[0]}; all files of "
                "one set must have the same."
            )
    return parts[0]


def _kind(column: pa.DataType) -> str:
    """Return what a column can hold: images, or labels of some kind; nothing if neither."""
    if pa.types.is_dictionary(column):
        column = column.value_type
    if pa.types.is_struct(column) and (index := column.get_field_index("bytes")) >= 0:
        return "images" if _kind(column.field(index).type) == "images" else ""
    if column in _BINARY or pa.types.is_fixed_size_binary(column):
        return "images"
    if pa.types.is_boolean(column):
        return "true and false"
    if pa.types.is_integer(column) or pa.types.is_floating(column):
        return "numbers"
    return "texts" if column in _TEXT else ""


def _choose(path: Path, schema: pa.Schema, what: str, given: str | None) -> str:
    """Return the name of the image or label column."""
    kinds = {field.name: _kind(field.type) for field in schema}
    fitting = [name for name, kind in kinds.items() if kind in _FITTING[what]]
    usual = [name for name in _USUAL[what] if name in kinds]
    if what == "image":
        # `img` may well be a path; a label of a kind that can't be read is one.
        usual.sort(key=lambda name: name not in fitting)
        usual += fitting if len(fitting) == 1 else []
    name = given if given is not None else next(iter(usual), None)
    if name is None:
        problem = f"no column has a usual name of {what}s ({', '.join(_USUAL[what])})"
    elif (count := schema.names.count(name)) != 1:
        problem = f"there are {count or 'no'} columns {name!r}"
    elif name not in fitting:
        problem = f"column {name!r} can't hold {what}s"
    else:
        return name
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise InputError(
        f"{path}: {problem}; the columns are {found}. Name one that holds {_HOLDS[what]} in "
        f"source.{what}_column."
    )


def _published_names(schema: pa.Schema, label: str) -> list[str] | None:
    text = (schema.metadata or {}).get(b"huggingface", b"")
    try:
        return list(map(str, json.loads(text)["info"]["features"][label]["names"])) or None
    except (TypeError, KeyError, ValueError):
        return None


# --- contents -------------------------------------------------------------------------------------


def _values(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """Yield place and value of every row of a column; of structs the bytes."""
    rows = itertools.count()
    for batch in read_batches(path, [name]):
        # By name: Arrow reads `a.b` too where `a` is asked for.
        for value, row in zip(batch.column(name).to_pylist(), rows, strict=False):
            yield f"{path}, row {row}", value["bytes"] if isinstance(value, dict) else value


def _read_labels(part: _Part) -> list[tuple[str, Label]]:
    """Return place and value of each label: a text, a boolean or an integer."""
    labels: list[tuple[str, Label]] = []
    for path in part.paths:
        before = len(labels)
        for row, value in _values(path, part.label):
            where = f"{row}: {part.label!r}"
            labels.append((where, _check_label(value, where)))
        if len(labels) == before:
            raise InputError(f"{path} has no rows; it must hold at least one image.")
    if negative := [one for one in labels if isinstance(one[1], int) and one[1] < 0]:
        where, value = negative[0]
        raise InputError(
            f"{where} is {value}, one of {len(negative):,} negative labels in {len(labels):,} "
            "rows, which marks images without a label. Leave those out, or number all classes "
            "from 0."
        )
    return labels


def _check_label(value: Label | float | None, where: str) -> Label:
    value = value.strip() if isinstance(value, str) else value
    if value is None or value == "" or value != value:
        raise InputError(f"{where} is {value!r}; give every image a label, or remove the row.")
    if isinstance(value, float) and not value.is_integer():
        raise InputError(f"{where} is {value}; labels are whole numbers, texts, or true and false.")
    return int(value) if isinstance(value, float) else value


def _number(train: _Part, labels: list[list[tuple[str, Label]]]) -> tuple[list[str], list[Tensor]]:
    """Return the names of the classes, and the labels of each part as positions in them."""
    if train.names is not None:
        names, values = train.names, list[Label](range(len(train.names)))
        allowed = f"there are {len(names)} class names, so that labels are 0 to {len(names) - 1}"
    else:
        values = sorted({value for _, value in labels[0]})
        names = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
        allowed = f"the {len(values)} classes are those of {train.paths[0]}: {shortened(names)}"
    position = {value: k for k, value in enumerate(values)}
    for where, value in itertools.chain(*labels):
        if value not in position:
            raise InputError(f"{where} is {value!r}; {allowed}.")
    return names, [torch.tensor([position[value] for _, value in these]) for these in labels]


def _encoded(part: _Part) -> Iterator[tuple[str, bytes]]:
    """Yield place and bytes of every image."""
    for path in part.paths:
        for where, value in _values(path, part.image):
            if value is None:
                raise InputError(
                    f"{where}: the image in {part.image!r} is null; the files themselves must be "
                    "in the column. Remove the row, or write its image into it."
                )
            yield where, value
