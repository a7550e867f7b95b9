"""Tiny-ImageNet, from the published archive or the folder in it.

Reference: Le and Yang, "Tiny ImageNet Visual Recognition Challenge", 2015.
"""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fourfold.data.sources._decode import decode_images
from fourfold.data.sources._download import download as download_archive
from fourfold.data.sources._source import Source
from fourfold.errors import InputError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
ROOT = "tiny-imagenet-200"  # the one folder in the archive
_MAX_BYTES = 64_000_000  # of one file; an archive of a few bytes can declare far more


def read_tiny_imagenet(folder: Path, threads: int, *, download: bool) -> Source:
    """Read Tiny-ImageNet: 100,000 + 10,000 color images, 64x64, of 200 classes.

    The published `test` has no labels. The published `val` is our test: one folder of all classes,
    whose labels are in `val_annotations.txt`. Labels are positions in the sorted WordNet numbers.

    Args:
        folder: has `tiny-imagenet-200/`, or `tiny-imagenet-200.zip`, which is read as it is.
        threads: decode the images.
        download: whether to get the archive if neither is there.

    Raises:
        InputError: naming the file, and the line in it, if anything can't be used.
    """
    extracted, archive = folder / ROOT, folder / f"{ROOT}.zip"
    if extracted.is_dir():
        return _read(_Folder(extracted), threads)
    if not archive.is_file():
        if not download:
            raise InputError(
                f"{folder} has neither the folder {ROOT}/ nor the archive {archive.name}; set "
                f"source.download to true, put the archive from {URL} there by hand, or name the "
                "folder that has it (data_folder in params.yaml, or FOURFOLD_DATA)."
            )
        download_archive(URL, archive, MD5)
    try:
        with zipfile.ZipFile(archive) as opened:
            return _read(_Archive(archive, opened), threads)
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{archive} is no readable archive ({error}); remove it and get it again from {URL}."
        ) from error


# --- files ----------------------------------------------------------------------------------------


class _Folder:
    """The files of the extracted folder, by their name below it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return [
            path.relative_to(self.path).as_posix()
            for part in ("train", "val")
            for path in (self.path / part).rglob("*.JPEG")
        ]

    def where(self, name: str) -> str:
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        if not (self.path / name).is_file():
            raise _missing(self.where(name))
        return (self.path / name).read_bytes()


class _Archive:
    """The same of the published archive, without extracting it."""

    def __init__(self, path: Path, opened: zipfile.ZipFile) -> None:
        self.path = path
        self.opened = opened

    def names(self) -> list[str]:
        start = f"{ROOT}/"
        return [
            name.removeprefix(start)
            for name in self.opened.namelist()
            if name.startswith((f"{start}train/", f"{start}val/")) and name.endswith(".JPEG")
        ]

    def where(self, name: str) -> str:
        return f"{self.path}, {ROOT}/{name}"

    def read(self, name: str) -> bytes:
        try:
            entry = self.opened.getinfo(f"{ROOT}/{name}")
            if entry.file_size > _MAX_BYTES:
                raise InputError(
                    f"{self.where(name)} declares {entry.file_size:,} bytes, more than "
                    f"{_MAX_BYTES:,}; the archive is not the published one. Get it again."
                )
            return self.opened.read(entry)
        except KeyError as error:
            raise _missing(self.where(name)) from error
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            RuntimeError,
        ) as error:
            raise InputError(
                f"{self.where(name)} can't be read ({error}); the archive is damaged. Remove it "
                f"and get it again from {URL}."
            ) from error


def _missing(where: str) -> InputError:
    return InputError(f"no file at {where}; get the archive again from {URL}, complete.")


# --- contents -------------------------------------------------------------------------------------


def _read(files: _Folder | _Archive, threads: int) -> Source:
    wnids = sorted(line for _, line in _lines(files, "wnids.txt"))
    if not wnids:
        raise InputError(f"{files.where('wnids.txt')} is empty; get the archive again from {URL}.")
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    names = files.names()
    train = _train_images(files, names, label_of)
    test = _val_images(files, names, label_of)
    images, labels = _decode(files, train, threads)
    return Source(_class_names(files, wnids), images, labels, _decode(files, test, threads))


def _lines(files: _Folder | _Archive, name: str) -> Iterator[tuple[str, str]]:
    """Yield place and text of the lines of a text file that are not empty."""
    text = files.read(name).decode("utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{files.where(name)}, line {number}", line.strip()


def _class_names(files: _Folder | _Archive, wnids: list[str]) -> list[str]:
    words = dict(line.partition("\t")[::2] for _, line in _lines(files, "words.txt"))
    for wnid in wnids:
        if wnid not in words:
            raise InputError(
                f"{files.where('words.txt')} has no line for the class {wnid}, which "
                f"{files.where('wnids.txt')} lists; get the archive again from {URL}."
            )
    return [words[wnid] for wnid in wnids]


def _train_images(
    files: _Folder | _Archive, names: list[str], label_of: dict[str, int]
) -> list[tuple[str, int]]:
    """Return name and label of train/<wnid>/images/*.JPEG, by class and name."""
    images = []
    for name in sorted(name for name in names if name.startswith("train/")):
        wnid = name.split("/")[1]
        if wnid not in label_of:
            raise InputError(
                f"{files.where(name)} is of the class {wnid!r}, which {files.where('wnids.txt')} "
                "doesn't list; remove the folder or add the class."
            )
        images.append((name, label_of[wnid]))
    if empty := sorted(label_of.keys() - {name.split("/")[1] for name, _ in images}):
        raise InputError(
            f"{files.where(f'train/{empty[0]}/images')} has no .JPEG files ({len(empty)} of the "
            f"{len(label_of)} classes have none); get the archive again from {URL}."
        )
    return images


def _val_images(
    files: _Folder | _Archive, names: list[str], label_of: dict[str, int]
) -> list[tuple[str, int]]:
    """Return name and label of val/images/*.JPEG, in the order of the annotations."""
    annotations = "val/val_annotations.txt"
    there = {name for name in names if name.startswith("val/")}
    images: dict[str, int] = {}
    for where, line in _lines(files, annotations):
        file, wnid, *_ = [*line.split("\t"), ""]
        name = f"val/images/{file}"
        if wnid not in label_of:
            raise InputError(
                f"{where}: the class of {file} is {wnid!r}, which {files.where('wnids.txt')} "
                "doesn't list; correct the line or add the class."
            )
        if name not in there:
            raise InputError(
                f"{where}: no file at {files.where(name)}; add the image or remove the line."
            )
        if name in images:
            raise InputError(f"{where}: {file} has a line before; keep one of them.")
        images[name] = label_of[wnid]
    if unlabelled := sorted(there - images.keys()):
        raise InputError(
            f"{files.where(unlabelled[0])} has no line in {files.where(annotations)} "
            f"({len(unlabelled)} such images); add the lines or remove the images."
        )
    if not images:
        raise InputError(f"{files.where(annotations)} is empty; get the archive again from {URL}.")
    return list(images.items())


def _decode(
    files: _Folder | _Archive, images: list[tuple[str, int]], threads: int
) -> tuple[Tensor, Tensor]:
    encoded = ((files.where(name), files.read(name)) for name, _ in images)
    labels = torch.tensor([label for _, label in images], dtype=torch.int64)
    return decode_images(encoded, len(images), threads=threads), labels
