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
from fourfold.files.reading import check_reachable

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
ROOT = "tiny-imagenet-200"  # the one folder in the archive
_AGAIN = f"get the archive again from {URL}, complete"


def read_tiny_imagenet(
    folder: Path, threads: int, *, download: bool, size: int | None = None
) -> Source:
    """Read Tiny-ImageNet: 100,000 + 10,000 color images, 64x64, of 200 classes.

    The published `test` has no labels. The published `val` is our test: one folder of all classes,
    whose labels are in `val_annotations.txt`. Labels are positions in the sorted WordNet numbers.

    Args:
        folder: has `tiny-imagenet-200/`, or `tiny-imagenet-200.zip`, which is read as it is.
        threads: see `decode_images`, as for `size`.
        download: whether to get the archive if neither is there.
        size: of the images.
    """
    extracted, archive = folder / ROOT, folder / f"{ROOT}.zip"
    if extracted.is_dir():
        names = [path.relative_to(extracted).as_posix() for path in extracted.rglob("*.JPEG")]
        return _read(extracted, names, size, threads)
    if not archive.is_file():
        check_reachable(archive)
        if not download:
            raise InputError(
                f"{folder} has neither the folder {ROOT}/ nor the archive {archive.name}; set "
                f"source.download to true, put the archive from {URL} there by hand, or name the "
                "folder that has it (data_folder in params.yaml, or FOURFOLD_DATA)."
            )
        download_archive(URL, archive, MD5)
    try:
        with zipfile.ZipFile(archive) as opened:
            inside = [name.removeprefix(f"{ROOT}/") for name in opened.namelist()]
            names = [name for name in inside if name.endswith(".JPEG")]
            return _read(zipfile.Path(opened, f"{ROOT}/"), names, size, threads)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(
            f"{archive} is damaged ({error}); remove it and get it again from {URL}."
        ) from error


def _read(root: Path | zipfile.Path, names: list[str], size: int | None, threads: int) -> Source:
    """Read the images `names` and the texts that lie in the folder or the archive `root`."""
    wnids = sorted(line for _, line in _lines(root / "wnids.txt"))
    words = dict(line.partition("\t")[::2] for _, line in _lines(root / "words.txt"))
    if unnamed := [wnid for wnid in wnids if wnid not in words]:
        raise InputError(f"{root / 'words.txt'} has no line for {unnamed[0]!r}; {_AGAIN}.")
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    parts = [
        _train_images(root, sorted(name for name in names if name.startswith("train/")), label_of),
        _val_images(root, {name for name in names if name.startswith("val/")}, label_of),
    ]
    (images, labels), test = (_decode(root, part, size, threads) for part in parts)
    return Source([words[wnid] for wnid in wnids], images, labels, test)


def _lines(path: Path | zipfile.Path) -> Iterator[tuple[str, str]]:
    """Yield place and text of the lines of a text file that are not empty."""
    if not path.is_file():
        raise InputError(f"no file at {path}; {_AGAIN}.")
    text = path.read_bytes().decode("utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def _train_images(
    root: Path | zipfile.Path, names: list[str], label_of: dict[str, int]
) -> dict[str, int]:
    """Return name -> label of train/<wnid>/images/*.JPEG, by class and name."""
    wnids = [name.split("/")[1] for name in names]
    if strange := sorted(set(wnids) - label_of.keys()):
        raise InputError(
            f"{root / 'train' / strange[0]} is of no class of {root / 'wnids.txt'}; remove the "
            "folder, or add the class."
        )
    if empty := sorted(label_of.keys() - set(wnids)):
        raise InputError(
            f"{root / 'train' / empty[0] / 'images'} has no .JPEG files ({len(empty)} of the "
            f"{len(label_of)} classes have none); {_AGAIN}."
        )
    return dict(zip(names, map(label_of.__getitem__, wnids), strict=True))


def _val_images(
    root: Path | zipfile.Path, names: set[str], label_of: dict[str, int]
) -> dict[str, int]:
    """Return name -> label of val/images/*.JPEG, in the order of the annotations."""
    annotations = root / "val" / "val_annotations.txt"
    images: dict[str, int] = {}
    for where, line in _lines(annotations):
        file, wnid, *_ = [*line.split("\t"), ""]
        name = f"val/images/{file}"
        if wnid not in label_of:
            raise InputError(
                f"{where}: the class of {file} is {wnid!r}, which {root / 'wnids.txt'} doesn't "
                "list; correct the line or add the class."
            )
        if name not in names:
            raise InputError(f"{where}: no file at {root / name}; {_AGAIN}.")
        images[name] = label_of[wnid]
    if unlabelled := sorted(names - images.keys()):
        raise InputError(
            f"{root / unlabelled[0]} has no line in {annotations} ({len(unlabelled)} such images); "
            "add the lines or remove the images."
        )
    return images


def _decode(
    root: Path | zipfile.Path, images: dict[str, int], size: int | None, threads: int
) -> tuple[Tensor, Tensor]:
    encoded = ((str(root / name), (root / name).read_bytes()) for name in images)
    return decode_images(encoded, len(images), size, threads), torch.tensor([*images.values()])
