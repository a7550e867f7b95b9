"""Folders of image files: one folder per class."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fourfold.data.sources._decode import SUFFIXES, decode_images
from fourfold.data.sources._source import SPLIT_OF, Source
from fourfold.errors import InputError
from fourfold.files.reading import check_reachable

# What systems put into folders: copies of file information, thumbnails, deleted files.
_SYSTEM = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini")


def read_image_folder(
    folder: Path, threads: int, *, train: str, test: str | None, size: int
) -> Source:
    """Read folders that hold one folder of image files per class.

    The classes are the sorted names of the folders, the images the sorted files below each, at any
    depth, links included. Hidden files and folders are left out, and files that are no images by
    their suffix, of which the remarks of the source tell.

    Args:
        folder: where relative paths are looked up.
        threads: see `decode_images`, as for `size`.
        train: folder of the class folders.
        test: the same of the published test set; None if there is none.
        size: of the images.
    """
    classes = _class_names(folder / train)
    if test is not None and (others := _class_names(folder / test)) != classes:
        differing = ", ".join(sorted(set(classes) ^ set(others)))
        raise InputError(
            f"{folder / test} has other classes than {folder / train}: only one of them has "
            f"{differing}. Both must have the same folders."
        )
    remarks: list[str] = []
    images, labels = _read(folder / train, classes, size, threads, remarks)
    published = None if test is None else _read(folder / test, classes, size, threads, remarks)
    # In a locale that is not UTF-8, Python has bytes in place of the letters that it lacks.
    names = [os.fsencode(name).decode("utf-8", "replace") for name in classes]
    return Source(names, images, labels, published, tuple(remarks))


def count_images(folder: Path) -> dict[str, int]:
    """Return class -> its images, of a folder that `read_image_folder` would read."""
    class_of: dict[Path, str] = {}
    return {
        name: sum(map(_is_image, _walk(folder / name, name, class_of)))
        for name in _class_names(folder)
    }


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        check_reachable(folder)
        raise InputError(
            f"no folder at {folder}; source.train and source.test name folders of class folders, "
            "absolute or below the data folder (data_folder in params.yaml, or FOURFOLD_DATA)."
        )
    classes, _ = _visible(folder)
    if not classes:
        raise InputError(f"{folder} has no folders; it must have one folder of images per class.")
    _check_no_splits(folder, classes)
    return sorted((path.name for path in classes), key=os.fsencode)  # the same in every locale


def _check_no_splits(folder: Path, classes: list[Path]) -> None:
    """Refuse class folders inside of folders that have no images: those are splits, not classes."""
    below = {}
    for path in classes:
        folders, files = _visible(path)
        if folders and not any(map(_is_image, files)):
            below[path.name] = {one.name for one in folders}
    names = {path.name for path in classes}
    splits = [name for name in below if below[name] & (names - {name})]
    if not splits:
        splits = [name for name in below if name.lower() in SPLIT_OF]
        if len(splits) < 2:
            return
    splits.sort(key=lambda name: ("train" not in name.lower(), "test" not in name.lower(), name))
    named = zip(("train", "test"), splits, strict=False)
    raise InputError(
        f"{folder} has no classes alone: {', '.join(splits)} have folders of classes inside "
        f"({', '.join(sorted(below[splits[0]])[:5])}) and no images. Name the splits themselves "
        f"({', '.join(f'source.{key}: {folder / name}' for key, name in named)}), or remove what "
        "is no class."
    )


def _read(
    folder: Path, classes: list[str], size: int, threads: int, remarks: list[str]
) -> tuple[Tensor, Tensor]:
    paths: list[Path] = []
    labels: list[int] = []
    left_out = _visible(folder)[1]
    class_of: dict[Path, str] = {}
    for label, name in enumerate(classes):
        files = sorted(_walk(folder / name, name, class_of))
        found = [path for path in files if _is_image(path)]
        if not found:
            raise InputError(
                f"{folder / name} has no images (files that end in {', '.join(SUFFIXES)}); every "
                "class needs some. Remove the folder, or put its images there."
            )
        left_out += [path for path in files if not _is_image(path)]
        paths += found
        labels += [label] * len(found)
    if left_out:
        names = ", ".join(str(path.relative_to(folder)) for path in left_out[:3])
        remarks.append(
            f"{folder}: files left out: {len(left_out):,} (the first: {names}); they lie in no "
            f"class folder, lead nowhere, or don't end in {', '.join(SUFFIXES)}."
        )
    encoded = ((str(path), path.read_bytes()) for path in paths)
    return decode_images(encoded, len(paths), size, threads), torch.tensor(labels)


def _walk(folder: Path, name: str, class_of: dict[Path, str]) -> Iterator[Path]:
    """Yield the files of a class below a folder, each folder once, whatever links lead to it."""
    real = folder.resolve()
    if class_of.get(real) == name:
        return
    if real in class_of:
        raise InputError(
            f"{real} belongs to two classes, {class_of[real]!r} and {name!r} (by {folder}); remove "
            "the link from one to the other."
        )
    class_of[real] = name
    folders, files = _visible(folder)
    yield from files
    for below in folders:
        yield from _walk(below, name, class_of)


def _visible(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the files in a folder that are neither hidden nor the system's."""
    there = sorted(
        path for path in folder.iterdir() if path.name[0] != "." and path.name not in _SYSTEM
    )
    return [p for p in there if p.is_dir()], [p for p in there if not p.is_dir()]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
