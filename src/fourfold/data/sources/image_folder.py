"""Folders of image files: one folder per class."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fourfold.data.sources._decode import SUFFIXES, decode_images
from fourfold.data.sources._source import Source
from fourfold.errors import InputError

# What systems put into folders: copies of file information, thumbnails, deleted files.
_SYSTEM = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini")
_SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")


def read_image_folder(
    folder: Path, threads: int, *, train: str, test: str | None, size: int
) -> Source:
    """Read folders that hold one folder of image files per class.

    The classes are the sorted names of the folders, the images the sorted files below each, at any
    depth, links included. Hidden files and folders are left out, and files that are no images by
    their suffix, of which the remarks of the source tell.

    Args:
        folder: where relative paths are looked up.
        threads: decode the images.
        train: folder of the class folders.
        test: folder of the published test set, with the same classes; None if there is none.
        size: pixels; see `decode_images`.

    Raises:
        InputError: naming the folder or the file, if anything can't be used.
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


def read_files(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of every file."""
    for path in paths:
        yield str(path), path.read_bytes()


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise InputError(
            f"no folder at {folder}; source.train and source.test name folders of class folders, "
            "absolute or below the data folder (data_folder in params.yaml, or FOURFOLD_DATA)."
        )
    inside = {path.name: _visible(path) for path in _visible(folder)[0]}
    if not inside:
        raise InputError(f"{folder} has no folders; it must have one folder of images per class.")
    _check_no_splits(folder, inside)
    return sorted(inside, key=os.fsencode)  # the same order in every locale


def _check_no_splits(folder: Path, inside: dict[str, tuple[list[Path], list[Path]]]) -> None:
    """Refuse class folders inside of folders that have no images: those are splits, not classes."""
    below = {
        name: {path.name for path in folders}
        for name, (folders, files) in inside.items()
        if folders and not any(map(_is_image, files))
    }
    splits = [name for name, names in below.items() if names & (inside.keys() - {name})]
    if not splits:
        splits = [name for name in below if name.lower() in _SPLIT_NAMES]
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
    paths, labels = [], []
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
    images = decode_images(read_files(paths), len(paths), size, threads)
    return images, torch.tensor(labels, dtype=torch.int64)


def _walk(folder: Path, name: str, class_of: dict[Path, str]) -> Iterator[Path]:
    """Yield the files of a class below a folder, each folder once, whatever links lead to it."""
    real = folder.resolve()
    if real in class_of:
        if class_of[real] == name:
            return
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
    folders: list[Path] = []
    files: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name[0] != "." and path.name not in _SYSTEM:
            (folders if path.is_dir() else files).append(path)
    return folders, files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
