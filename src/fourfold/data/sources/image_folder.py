"""Folders of image files: one folder per class."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fourfold.data.sources._decode import decode_images
from fourfold.data.sources._source import Source
from fourfold.errors import InputError

SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm"),
}


def read_image_folder(
    folder: Path, threads: int, *, train: str, test: str | None, size: int
) -> Source:
    """Read folders that hold one folder of image files per class.

    The classes are the sorted names of the folders, the images the sorted files below each, at any
    depth. Hidden folders and files that are no images by their suffix are left out.

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
    images, labels = _read(folder / train, classes, size, threads)
    published_test = None if test is None else _read(folder / test, classes, size, threads)
    return Source(classes, images, labels, published_test)


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
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    if not names:
        raise InputError(f"{folder} has no folders; it must have one folder of images per class.")
    return names


def _read(folder: Path, classes: list[str], size: int, threads: int) -> tuple[Tensor, Tensor]:
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = [path for path in sorted((folder / name).rglob("*")) if _is_image(path)]
        if not found:
            raise InputError(
                f"{folder / name} has no images (files that end in {', '.join(sorted(SUFFIXES))}); "
                "every class needs some. Remove the folder, or put its images there."
            )
        paths += found
        labels += [label] * len(found)
    images = decode_images(read_files(paths), len(paths), size, threads)
    return images, torch.tensor(labels, dtype=torch.int64)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()
