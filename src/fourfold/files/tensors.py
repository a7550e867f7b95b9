"""Tensors in safetensors files, with a JSON header that says what they are."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fourfold.files.atomic import UNFINISHED, atomic_path
from fourfold.files.reading import parse_object, reading, require_file

_HEADER = "fourfold"  # the one metadata key we write; its value is JSON


def state_hash(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes of a state dict, whatever its order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_header(path: str | Path) -> dict[str, Any]:
    """Return the metadata that fourfold wrote into a safetensors file, empty if there is none."""
    with _open(path) as file:
        return _parse_header(file, path)


def tensor_shapes(path: str | Path) -> dict[str, tuple[str, list[int]]]:
    """Return name -> (dtype, shape) of the tensors of a safetensors file, without reading them."""
    with _open(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (piece.get_dtype(), piece.get_shape()) for name, piece in slices.items()}


def save_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, header: Mapping[str, Any]
) -> None:
    """Write tensors and a JSON header to a safetensors file, completely or not at all."""
    apart: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():  # safetensors refuses memory that two of them share
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in places else tensor
        places.add(place)
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        # safetensors writes a file of its own beside the one named, which a kill leaves there, and
        # which nobody but its owner may read.
        with TemporaryDirectory(prefix=UNFINISHED, dir=temporary.parent) as folder:
            written = Path(folder, temporary.name)
            save_file(apart, written, {_HEADER: json.dumps(header, sort_keys=True)})
            written.chmod(mode)
            written.replace(temporary)


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read all tensors and the JSON header of a safetensors file."""
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, _parse_header(file, path)


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[Any]:
    """Open a safetensors file; raise one `InputError` if it is missing or damaged."""
    require_file(path)
    with (
        reading(path, "safetensors file", SafetensorError),
        safe_open(path, framework="pt") as opened,
    ):
        yield opened


def _parse_header(file: Any, path: str | Path) -> dict[str, Any]:
    return parse_object((file.metadata() or {}).get(_HEADER, "{}"), f"{path}: the header")
