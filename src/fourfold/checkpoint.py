"""Checkpoints: state dicts in safetensors files, read without running any code."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fourfold.atomic import atomic_path
from fourfold.errors import DivergenceError, InputError
from fourfold.layout import ParameterLayout, StateDict

_HEADER = "fourfold"  # the one metadata key we write; its value is JSON
# Common wrappings of a state dict in .pt files of other projects.
_WRAPPINGS = ("state_dict", "model_state_dict", "model", "model_state")


def state_hash(state: StateDict) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes of a state dict, whatever its order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_checkpoint(
    state: StateDict, path: str | Path, metadata: Mapping[str, Any] | None = None
) -> str:
    """Save a state dict as safetensors, completely or not at all.

    Tied tensors are stored once and named in the header. `metadata` holds JSON values.

    Returns:
        The `state_hash` of what was saved, which is in the header as well.

    Raises:
        DivergenceError: if a tensor holds a NaN or an infinity.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DivergenceError(
                f"not saving {path}: tensor {name!r} holds a NaN or an infinity. "
                "Training diverged; lower the learning rate or clip the gradient."
            )
    tied = dict(ParameterLayout.from_state_dict(state).tied)
    sha256 = state_hash(state)
    header = {**(metadata or {}), "sha256": sha256, "tied": tied, "order": list(state)}
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in state.items()
        if name not in tied
    }
    # What is left to share memory (buffers of a layer with two names, pieces of one block) is
    # stored in full: safetensors refuses shared memory.
    places = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    for name, tensor in tensors.items():
        if places[tensor.untyped_storage().data_ptr()] > 1:
            tensors[name] = tensor.clone()
    save_tensors(tensors, path, header)
    return sha256


def load_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file, or from a `.pt` / `.pth` file of tensors alone.

    Raises:
        InputError: if the file is missing, damaged, holds anything but tensors, or is not what its
            own header says.
    """
    path = Path(path)
    if path.suffix in (".pt", ".pth", ".bin"):
        return _load_torch(path)
    tensors, header = load_tensors(path)
    order = header.get("order", list(tensors))
    tied = header.get("tied", {})
    try:
        state = {name: tensors[tied.get(name, name)] for name in order}
    except KeyError as error:
        raise InputError(f"{path}: the header names tensor {error}, the file lacks it.") from error
    if "sha256" in header and state_hash(state) != header["sha256"]:
        raise InputError(
            f"{path}: the contents don't have the hash in the header, {header['sha256']}; "
            "the file was changed after it was written. Delete it and build it again."
        )
    return state


def read_header(path: str | Path) -> dict[str, Any]:
    """Return the metadata that fourfold wrote into a safetensors file, empty if there is none."""
    with _open(Path(path)) as file:
        return _parse_header(file.metadata() or {}, path)


def tensor_shapes(path: str | Path) -> dict[str, tuple[str, list[int]]]:
    """Return name -> (dtype, shape) of the tensors of a safetensors file, without reading them."""
    with _open(Path(path)) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (piece.get_dtype(), piece.get_shape()) for name, piece in slices.items()}


def save_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, header: Mapping[str, Any]
) -> None:
    """Write tensors and a JSON header to a safetensors file, completely or not at all."""
    with atomic_path(path) as temporary:
        save_file(dict(tensors), temporary, {_HEADER: json.dumps(header, sort_keys=True)})


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read all tensors and the JSON header of a safetensors file."""
    path = Path(path)
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, _parse_header(file.metadata() or {}, path)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"no file at {path}.")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no readable safetensors file: {error}") from error


def _parse_header(metadata: Mapping[str, str], path: str | Path) -> dict[str, Any]:
    try:
        header = json.loads(metadata.get(_HEADER, "{}"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: the header is damaged: {error}") from error
    if not isinstance(header, dict):
        raise InputError(f"{path}: the header is {type(header).__name__}, not a JSON object.")
    return header


def _load_torch(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"no file at {path}.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files end in errors of many kinds, IndexError among them
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path} can't be read as tensors alone ({reason}); save it again with "
            "torch.save(model.state_dict(), path), or as safetensors."
        ) from error
    for key in _WRAPPINGS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise InputError(f"{path} holds no state dict (names and tensors); it is {type(loaded)}.")
    return dict(loaded)
