"""Checkpoints: state dicts in files of safetensors or torch.save."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fourfold.errors import DivergenceError, InputError
from fourfold.files.reading import check_fields, reading
from fourfold.files.tensors import load_tensors, save_tensors, state_hash
from fourfold.files.torch_file import PREFIXES, is_safetensors, load_torch, without_prefix
from fourfold.surfaces.layout import StateDict, check_tensor, find_ties
from fourfold.surfaces.modules import load_state

_TRAJECTORY = "fourfold-trajectory-1"
_ATTRIBUTE = "model."  # where trainers keep the network
_NAMES = {"order": list[str], "tied": dict[str, str]}  # in a header: all names, alias -> name


def save_checkpoint(
    state: StateDict, path: str | Path, metadata: Mapping[str, Any] | None = None
) -> str:
    """Save a state dict as safetensors, completely or not at all.

    Tied tensors are stored once and named in the header. `metadata` holds JSON values.

    Returns:
        The `state_hash` of what was saved, which is in the header as well.

    Raises:
        DivergenceError: if a tensor holds a NaN, or an infinity and is no mask: that has two axes
            or more, and beside -inf one number.
    """
    if not isinstance(state, Mapping):
        raise InputError(
            f"not saving {path}: the network is {type(state).__name__}, no state dict; pass "
            "model.state_dict()."
        )
    for name, tensor in state.items():
        check_tensor(name, tensor, f"not saving {path}")
        if tensor.is_floating_point() and not _is_finite_or_mask(tensor):
            raise DivergenceError(
                f"not saving {path}: tensor {name!r} holds a NaN or an infinity. If training "
                "diverged, lower the learning rate or clip the gradient; a buffer that is meant "
                "so is registered with persistent=False, which leaves it out."
            )
    sha256 = state_hash(state)
    tied = find_ties([state], ["the network"])
    header = {**(metadata or {}), "sha256": sha256, "tied": tied, "order": list(state)}
    save_tensors(_untied(state, tied), path, header)
    return sha256


def _is_finite_or_mask(tensor: Tensor) -> bool:
    is_finite = torch.isfinite(tensor)
    if bool(is_finite.all()):
        return True
    rest = tensor[~is_finite]
    return tensor.ndim > 1 and bool((rest == -torch.inf).all()) and len(tensor.unique()) == 2


def _untied(state: StateDict, tied: Mapping[str, str]) -> dict[str, Tensor]:
    # Clones, since safetensors refuses memory that is still shared: buffers of a layer with two
    # names, pieces of one block.
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in state.items()
        if name not in tied
    }


def load_checkpoint(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """Read a state dict from a file of safetensors or `torch.save`, whatever its suffix.

    No code in the file is run, and of what is no tensor nothing is made. In a training checkpoint
    the network is found under the usual names (`state_dict`, `model`, `net`, ..., also nested). If
    an average of its weights (an EMA) or another version lies beside it, a warning says so. Names
    in files of other programs lose the prefixes of DataParallel (`module.`) and torch.compile
    (`_orig_mod.`) if all have them; `_extra_state` without a value is left out.

    Args:
        path: of the file.
        key: where in a file of torch.save the state dict is, such as `state_dict_ema`; a dot leads
            to a key below (`model.ema`).

    Raises:
        InputError: if the file is missing, damaged, of another kind, not what its own header says,
            or if it can't be told which state dict is meant.
    """
    if not isinstance(key, str | None):
        raise InputError(f"key is {key!r}; give a text, such as 'state_dict_ema'.")
    state, is_foreign = _read(Path(path), key)
    while is_foreign and (shorter := without_prefix(state)) is not None:
        state = shorter
    return state


def load_into(model: nn.Module, path: str | Path, key: str | None = None) -> str:
    """Load a file of another program into a module; see `load_checkpoint`.

    Returns:
        The prefixes of wrappers (`module.`, `_orig_mod.`, `model.`) that all names had, and that
        had to be removed for them to be the module's; empty if there was none.

    Raises:
        InputError: as `load_checkpoint`, and if the network is none of the module's architecture.
    """
    given, _ = _read(Path(path), key)
    state, own = given, model.state_dict().keys()
    prefixes = (*PREFIXES, _ATTRIBUTE)
    while not own & state.keys() and (shorter := without_prefix(state, prefixes)) is not None:
        state = shorter
    with reading(path, "checkpoint"):
        load_state(model, state, rename=True)
    first = next(iter(state))
    return next(name for name in given if name.endswith(first)).removesuffix(first)


def _read(path: Path, key: str | None) -> tuple[dict[str, Tensor], bool]:
    """Return the state dict in a file, and whether it is of another program."""
    if not is_safetensors(path):
        return load_torch(path, key), True
    if key is not None:
        raise InputError(f"{path} is a safetensors file, which has no key {key!r:.80}; leave it.")
    tensors, header = load_tensors(path)
    if str(header.get("format", "")).startswith("fourfold-"):
        raise InputError(
            f"{path} is no checkpoint: its format is {header['format']!r:.80}. A surface is read "
            "by Surface.load; its networks are surface.state_dict(u, v)."
        )
    if not tensors:
        raise InputError(f"{path} holds no tensors; save model.state_dict().")
    header = {"order": list(tensors), "tied": {}, "sha256": ""} | header
    check_fields(header, {**_NAMES, "sha256": str}, f"{path}: the header")
    state = _select(tensors, header, path)
    if not header["sha256"]:
        return state, True
    if state_hash(state) != header["sha256"]:
        raise InputError(
            f"{path}: the contents don't have the hash in the header, {header['sha256'][:64]}; "
            "the file was changed after it was written. Delete it and build it again."
        )
    return state, False


def _select(
    tensors: StateDict, header: Mapping[str, Any], path: str | Path, prefix: str = ""
) -> dict[str, Tensor]:
    """Return the state dict that a header describes."""
    try:
        return {name: tensors[prefix + header["tied"].get(name, name)] for name in header["order"]}
    except KeyError as error:
        raise InputError(
            f"{path}: the header names tensor {str(error)[:80]}, the file lacks it."
        ) from error


def save_trajectory(
    networks: Mapping[int, StateDict] | Mapping[int | str, StateDict],
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Save the networks of one run in one file, completely or not at all.

    Args:
        networks: epoch, or name of a network that is of none (`ema`) -> state dict, all of one
            architecture.
        path: of a safetensors file.
        metadata: JSON values.
    """
    first = next(iter(networks.values()))
    tied = find_ties([first], ["the network"])
    tensors = {
        f"{epoch}/{name}": tensor
        for epoch, state in networks.items()
        for name, tensor in _untied(state, tied).items()
    }
    header = {"format": _TRAJECTORY, "epochs": list(networks), "tied": tied, "order": list(first)}
    save_tensors(tensors, path, {**(metadata or {}), **header})


def load_trajectory(path: str | Path) -> dict[int | str, dict[str, Tensor]]:
    """Return epoch or name -> state dict of a file that `save_trajectory` wrote, in its order.

    Raises:
        InputError: if the file is missing, damaged, or of another kind.
    """
    tensors, header = load_tensors(path)
    if header.get("format") != _TRAJECTORY:
        raise InputError(f"{path} holds no networks of a run; give a file of train-endpoint.")
    check_fields(header, {**_NAMES, "epochs": list[int | str]}, f"{path}: the header")
    return {epoch: _select(tensors, header, path, f"{epoch}/") for epoch in header["epochs"]}
