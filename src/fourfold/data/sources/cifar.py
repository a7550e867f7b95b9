"""CIFAR-10 and CIFAR-100, through torchvision.

The published files are pickles, which run code when they are read. torchvision reads one only after
its MD5 has turned out to be the published one; this is the one place where anything is unpickled.

Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import contextlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fourfold.data.sources._download import alone_in
from fourfold.data.sources._download import download as download_archive
from fourfold.data.sources._source import Source
from fourfold.errors import InputError
from fourfold.networks._torchvision import import_torchvision


def read_cifar10(folder: Path, threads: int, *, download: bool) -> Source:
    """Read CIFAR-10: 50,000 + 10,000 color images, 32x32, of 10 classes.

    Args:
        folder: has `cifar-10-batches-py/`, or `cifar-10-python.tar.gz`, which is extracted there.
        threads: not used.
        download: whether to get the archive if neither is there.
    """
    return _read("CIFAR10", folder, download)


def read_cifar100(folder: Path, threads: int, *, download: bool) -> Source:
    """Read CIFAR-100: the same with 100 ("fine") classes, from `cifar-100-python`."""
    return _read("CIFAR100", folder, download)


def _read(name: str, folder: Path, download: bool) -> Source:
    published = getattr(import_torchvision("datasets"), name)
    if download:
        with contextlib.suppress(OSError):  # the download says what is wrong with it
            folder.mkdir(parents=True, exist_ok=True)
    try:
        with alone_in(folder):  # another process may be extracting the same archive
            return _read_alone(published, folder, download)
    # torchvision's word for a wrong or missing file; and one that was changed after the check
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        said = str(error).partition("You can use")[0].strip(". ")
        raise InputError(
            f"{folder} has no intact {name} ({said}). Expected there: the folder "
            f"{published.base_folder}/ as published, or the archive {published.filename} with MD5 "
            f"{published.tgz_md5}, from {published.url}. Remove what is damaged, then set "
            "source.download to true, or put the archive there by hand, or name the folder that "
            "has it (data_folder in params.yaml, or FOURFOLD_DATA)."
        ) from error


def _read_alone(published: Any, folder: Path, download: bool) -> Source:
    check = import_torchvision("datasets.utils").check_integrity
    base, archive = folder / published.base_folder, folder / published.filename
    files = [*published.train_list, *published.test_list]
    is_extracted = all(check(base / file, md5) for file, md5 in files)
    if download and not is_extracted and not check(archive, published.tgz_md5):
        download_archive(published.url, archive, published.tgz_md5)
    # torchvision's `download` extracts the archive, and needs no network if it is there.
    is_archived = not is_extracted and check(archive, published.tgz_md5)
    train = published(folder, train=True, download=is_archived)
    test = published(folder, train=False)
    return Source(train.classes, *_tensors(train), _tensors(test))


def _tensors(split: Any) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(split.targets)
