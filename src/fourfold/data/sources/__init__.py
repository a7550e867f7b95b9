"""Where images come from: one module per kind of source, imported when it is asked for.

A new source is a module with a function that takes the data folder, the number of threads and the
source's settings as keywords, an entry in `SOURCES` and `_reader`, and its settings in
workflow/schemas/params.schema.yaml.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fourfold.data._settings import check_settings
from fourfold.data.sources._source import Source
from fourfold.errors import FourfoldError, InputError

SOURCES = ("cifar10", "cifar100", "digits", "image-folder", "parquet", "tiny-imagenet")


def load_source(settings: Mapping[str, Any], folder: str | Path, threads: int = 1) -> Source:
    """Read and decode the source `settings["name"]`, with its other settings.

    Args:
        settings: `datasets.<name>.source` in params.yaml.
        folder: the data folder, where relative paths are looked up.
        threads: decode images.

    Raises:
        InputError: if there is no such source, a setting or a file can't be used.
    """
    if not isinstance(settings, Mapping) or "name" not in settings:
        raise InputError(
            f"source is {settings!r}; it must be an object with a `name`, one of "
            f"{', '.join(SOURCES)}, and that source's settings."
        )
    if threads < 1:
        raise InputError(f"--threads is {threads}; it must be at least 1.")
    reader = _reader(settings["name"])
    others = {key: value for key, value in settings.items() if key != "name"}
    check_settings("source", others, reader, supplied=("folder", "threads"))
    try:
        return reader(Path(folder), threads, **others)
    except FourfoldError:
        raise
    except OSError as error:  # no permission, a name too long, a disk that fails
        raise InputError(f"source {settings['name']!r} can't be read: {error}.") from error


def _reader(name: Any) -> Callable[..., Source]:
    reader: Callable[..., Source]
    # Import statements, not importlib: the workflow follows them to know what a job's code is.
    if name == "digits":
        from fourfold.data.sources.digits import read_digits as reader
    elif name == "parquet":
        from fourfold.data.sources.parquet import read_parquet as reader
    elif name == "cifar10":
        from fourfold.data.sources.cifar import read_cifar10 as reader
    elif name == "cifar100":
        from fourfold.data.sources.cifar import read_cifar100 as reader
    elif name == "tiny-imagenet":
        from fourfold.data.sources.tiny_imagenet import read_tiny_imagenet as reader
    elif name == "image-folder":
        from fourfold.data.sources.image_folder import read_image_folder as reader
    else:
        raise InputError(f"source.name is {name!r}; choose one of {', '.join(SOURCES)}.")
    return reader


__all__ = ["SOURCES", "Source", "load_source"]
