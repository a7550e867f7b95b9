"""Checkpoints: state dicts in safetensors files, read without running any code."""

import contextlib
import hashlib
import json
import mmap
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fourfold.atomic import atomic_path
from fourfold.errors import DivergenceError, InputError
from fourfold.layout import ParameterLayout, StateDict
from fourfold.untrusted import (
    check_fields,
    check_text_size,
    parse_object,
    reading,
    reason,
    require_file,
)

_HEADER = "fourfold"  # the one metadata key we write; its value is JSON
# Common wrappings of a state dict in .pt files of other projects.
_WRAPPINGS = ("state_dict", "model_state_dict", "model", "model_state")
# Tied names repeat a tensor at no cost of bytes. A network whose layers all share their weights has
# some dozen names for each; without a limit, a small file could ask for terabytes to be hashed.
_MAX_REPETITION = 100
_MIN_REPEATED_BYTES = 10_000_000


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
    header = {"order": list(tensors), "tied": {}} | header
    check_fields(header, {"order": list[str], "tied": dict[str, str]}, f"{path}: the header")
    tied = header["tied"]
    try:
        state = {name: tensors[tied.get(name, name)] for name in header["order"]}
    except KeyError as error:
        raise InputError(
            f"{path}: the header names tensor {str(error)[:80]}, the file lacks it."
        ) from error
    _check_repetition(state, path)
    if "sha256" in header:
        check_fields(header, {"sha256": str}, f"{path}: the header")
        with reading(path, "checkpoint"):
            if state_hash(state) != header["sha256"]:
                raise InputError(
                    f"{path}: the contents don't have the hash in the header, "
                    f"{header['sha256'][:64]}; the file was changed after it was written. Delete "
                    "it and build it again."
                )
    return state


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
    with atomic_path(path) as temporary:
        save_file(dict(tensors), temporary, {_HEADER: json.dumps(header, sort_keys=True)})


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read all tensors and the JSON header of a safetensors file.

    Raises:
        InputError: if the file is missing or damaged.
    """
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, _parse_header(file, path)


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[Any]:
    require_file(path)
    with reading(path, "safetensors file", SafetensorError):
        with Path(path).open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
        check_text_size(header_bytes, Path(path).stat().st_size, f"{path}: the header")
        with safe_open(path, framework="pt") as opened:
            yield opened


def _parse_header(file: Any, path: str | Path) -> dict[str, Any]:
    return parse_object((file.metadata() or {}).get(_HEADER, "{}"), f"{path}: the header")


def _check_repetition(state: StateDict, path: Path) -> None:
    size = path.stat().st_size
    total = sum(tensor.nbytes for tensor in state.values())
    if total > max(_MIN_REPEATED_BYTES, _MAX_REPETITION * size):
        raise InputError(
            f"{path}: the tensors have {total:,} bytes in a file of {size:,}; tied or expanded "
            f"tensors may make them {_MAX_REPETITION} times as large, not more. Save the file "
            "again with each tensor once."
        )


# --- files of torch.save --------------------------------------------------------------------------


def _load_torch(path: Path) -> dict[str, Tensor]:
    require_file(path)
    try:
        _check_torch_file(path)
        with warnings.catch_warnings():
            # Of a pickle protocol that torch may not support: if so, loading fails.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files end in errors of many kinds, IndexError among them
        raise InputError(
            f"{path} can't be read as tensors alone ({reason(error)}); save it again with "
            "torch.save(model.state_dict(), path), or as safetensors."
        ) from error
    for key in _WRAPPINGS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise InputError(f"{path} holds no state dict (names and tensors); it is {type(loaded)}.")
    for name, tensor in loaded.items():
        is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not isinstance(name, str) or not is_plain or tensor.is_quantized:
            raise InputError(
                f"{path}: entry {name!r:.80} is {tensor.layout} on {tensor.device}; names must be "
                "strings, and tensors dense, with values, and not quantized."
            )
    state = dict(loaded)
    _check_repetition(state, path)
    return state


def _check_torch_file(path: Path) -> None:
    """Refuse what would take far more memory than the file has bytes, before it is unpickled."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":  # the format before 2020: pickles, then the numbers
            file.seek(0)
            if size:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    _check_pickle(content)
            return
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            # torch.save compresses nothing, and no two entries have the same bytes.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("the archive has compressed entries, which torch.save never makes")
            if (declared := sum(entry.file_size for entry in entries)) > size:
                raise ValueError(f"the archive declares {declared:,} bytes and has {size:,}")
            for entry in entries:
                if entry.filename.endswith(".pkl"):
                    check_text_size(entry.file_size, size, entry.filename)
                    _check_pickle(archive.read(entry))


def _check_pickle(content: bytes | mmap.mmap) -> None:
    # The one call that torch allows in a pickle whose argument alone decides how much it allocates.
    if content.find(b"bytearray\n") >= 0:
        raise ValueError("the pickle makes a bytearray, which no state dict needs")
