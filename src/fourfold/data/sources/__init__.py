"""Where images come from: one module per kind of source.

A new source is a module with a function that takes the data folder, the number of threads and the
source's settings as keywords, an entry in `_READERS`, and its settings in
pipeline/params.schema.yaml, by which they are checked.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fourfold.data.sources._source import Source
from fourfold.data.sources.cifar import read_cifar10, read_cifar100
from fourfold.data.sources.digits import read_digits
from fourfold.data.sources.image_folder import read_image_folder
from fourfold.data.sources.parquet import read_parquet
from fourfold.data.sources.tiny_imagenet import read_tiny_imagenet
from fourfold.errors import FourfoldError, InputError

__all__ = ["Source", "load_source"]

_READERS: dict[str, Callable[..., Source]] = {
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    "digits": read_digits,
    "image-folder": read_image_folder,
    "parquet": read_parquet,
    "tiny-imagenet": read_tiny_imagenet,
}


def load_source(settings: Mapping[str, Any], folder: Path, threads: int = 1) -> Source:
    """Read and decode a source.

    Args:
        settings: `datasets.<name>.source` in params.yaml: its `name`, and what its reader takes.
        folder: the data folder, where relative paths are looked up.
        threads: decode images.
    """
    if threads < 1:
        raise InputError(f"--threads is {threads}; it must be at least 1.")
    others = {key: value for key, value in settings.items() if key != "name"}
    try:
        return _READERS[settings["name"]](folder, threads, **others)
    except FourfoldError:
        raise
    except OSError as error:  # no permission, a name too long, a disk that fails
        raise InputError(f"source {settings['name']!r} can't be read: {error}.") from error
