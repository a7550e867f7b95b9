"""Any `nn.Module` as people have it: wrapped, renaming, of half precision; copied and filled."""

import contextlib
import copy
from collections.abc import Collection, Iterator
from types import CellType, FunctionType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from fourfold.errors import InputError
from fourfold.surfaces.buffers import check_decided
from fourfold.surfaces.layout import StateDict, first_names, is_equal

_BUILD = "Build the model that the corners were trained with."
_COMPLETE = (
    " If what they lack is the model's own, the same in all of them, complete each corner: "
    "{**model.state_dict(), **corner}."
)


def copy_module(model: nn.Module) -> nn.Module:
    """Copy a module, so that the caller's stays as it is.

    Raises:
        InputError: if it can't be copied, holds no values, or the copy would compute with the
            original's parameters.
    """
    _check_values(model)
    if name := _holds_itself(model):
        raise InputError(
            f"the model has a function in {name!r} that holds one of its modules or parameters (a "
            "replaced forward, a hook made in place): a copy would go on computing with the "
            "original's. Make it a method of a class of your own, or compute it in forward()."
        )
    # Old weight norm keeps a tensor that was computed from the parameters as an attribute; it is
    # computed anew in each forward pass, and refuses to be copied.
    computed = {
        id(value): value.detach()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        with torch.no_grad():  # a scripted module's parameters are cloned, and must be leaves
            module = copy.deepcopy(model, computed)
    except Exception as error:  # whatever the attributes' own methods raise
        raise InputError(
            f"the model can't be copied{_culprit(model)}: {type(error).__name__}: {error}. Remove "
            "what is no part of the network (a lock, a file, a trainer), or give its class a "
            "__deepcopy__."
        ) from error
    for original, parameter in zip(model.parameters(), module.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)
    return module


def copy_gradient_hooks(model: nn.Module, copied: nn.Module) -> None:
    """Register the hooks on a module's parameters, which no copy has, on those of its copy.

    Raises:
        InputError: if a hook would go on with the original's parameters.
    """
    parts = _parts(model)
    copies = dict(copied.named_parameters())
    for name, parameter in model.named_parameters():
        hooks = [*(parameter._backward_hooks or {}).values()]
        is_foreign = any(_holds(hook, parts) for hook in hooks)
        if is_foreign or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise InputError(
                f"parameter {name!r} of the model has a hook that "
                f"{'holds a part of it' if is_foreign else 'runs after its gradient'}: at "
                "a point of a surface it would go on with the original's. Remove it, or let a "
                "hook of register_hook compute with its argument and other tensors alone."
            )
        for hook in hooks:
            copies[name].register_hook(hook)


def module_of(model: nn.Module, state: StateDict, *, rename: bool = False) -> nn.Module:
    """Return `model`, or the module that it wraps, whichever owns the tensors of `state`.

    Wrappers are `DataParallel`, `AveragedModel` and compiled modules; `rename` as in `load_state`.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"the model is {type(model).__name__}, no torch.nn.Module; pass the module itself, "
            "such as build()."
        )
    module = model
    while _astray(module, state):
        if (wrapped := _inside(module)) is None:
            if not rename:
                _refuse_names(model, state)
            break
        module = wrapped
    return module


def _inside(module: nn.Module) -> nn.Module | None:
    """Return the module that one of PyTorch's wrappers wraps: another class may compute more."""
    kinds = nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel
    is_compiled = type(module).__name__ == "OptimizedModule"  # its import takes a second
    inner = getattr(module, "_orig_mod" if is_compiled else "module", None)
    is_wrapper = is_compiled or isinstance(module, kinds)
    return inner if is_wrapper and isinstance(inner, nn.Module) else None


def load_state(model: nn.Module, state: StateDict, *, rename: bool = False) -> None:
    """Load a state dict into `model`, in place.

    A name that the module ties to another one may be left out, as some writers do. Names that the
    module changes on loading are refused unless `rename` allows them: what is trained or averaged
    under the one name would not be found under the other.
    """
    if not rename and _astray(model, state):
        _refuse_names(model, state)
    groups = tied_names(model)
    for name, *aliases in groups:
        for alias in aliases:
            if name in state and alias in state and not is_equal(state[name], state[alias]):
                raise InputError(
                    f"the model ties {alias!r} to {name!r}, but a network holds different values "
                    "for them; save the networks from the model that ties them."
                )
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        details = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise InputError(
            "the model is not of the checkpoints' architecture: "
            f"{'; '.join(details[:3])}{f' and {len(details) - 3} more' if len(details) > 3 else ''}"
            f". {_BUILD}"
        ) from error
    given = {name for group in groups if any(name in state for name in group) for name in group}
    missing = [name for name in missing if name not in given]
    if missing or unexpected:
        raise InputError(
            "the model is not of the checkpoints' architecture: they lack "
            f"{first_names(missing) or 'nothing'} and add {first_names(unexpected) or 'nothing'}. "
            + (_renaming(model, unexpected, missing) or _BUILD + _COMPLETE * (not unexpected))
        )


def check_buffers(model: nn.Module, names: Collection[str]) -> None:
    """Refuse coordinates of a surface that the module declares as buffers."""
    buffers = dict(model.named_buffers(remove_duplicate=False))
    check_decided(
        [name for name in names if name in buffers], "which the model declares as buffers"
    )


def tied_names(model: nn.Module) -> list[list[str]]:
    """Return the names of each tensor that has several."""
    groups: dict[int, list[str]] = {}
    for name, tensor in _tensors(model).items():
        groups.setdefault(id(tensor), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def input_dtype(model: nn.Module) -> torch.dtype | None:
    """Return the dtype of a module's floating parameters, None if they have several or none."""
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return dtypes.pop() if len(dtypes) == 1 else None


def batchnorm_layers(model: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers of `model` that keep running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


def trained_batchnorm_layers(model: nn.Module) -> list[_BatchNorm]:
    """Return those that normalize by the batch in training.

    Some modules' own `train` keeps layers as they are, whose statistics belong to what is frozen.
    """
    layers = batchnorm_layers(model)
    if not layers or not _has_own_train(model):
        return layers
    with _same_modes_afterwards(model):
        model.train()
        return [layer for layer in layers if layer.training]


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put all of a module in evaluation mode, and each part as it was afterwards.

    What modules have computed from other parameters and keep until `train` is forgotten.
    """
    with _same_modes_afterwards(model):
        if _has_own_train(model):
            model.train()
        if any(module.training for module in model.modules()):
            model.eval()
        yield


@contextlib.contextmanager
def _same_modes_afterwards(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            if module.training != training:  # setting an attribute of a module takes long
                module.training = training


def _has_own_train(model: nn.Module) -> bool:
    return any(type(module).train is not nn.Module.train for module in model.modules())


def other_statistics(model: nn.Module) -> list[str]:
    """Return the running statistics of layers that are no BatchNorm of PyTorch."""
    known = {id(layer.running_mean) for layer in batchnorm_layers(model)}
    return [
        name
        for name, buffer in model.named_buffers()
        if name.endswith("running_mean") and id(buffer) not in known
    ]


def check_trainable(model: nn.Module, images: int, what: str) -> None:
    """Refuse a model that can't be trained on `images` images at a time, as `what` says."""
    _check_values(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("the model has no trainable parameter; set requires_grad of at least one.")
    if images == 1 and batchnorm_layers(model):
        raise InputError(
            f"{what}; BatchNorm needs at least 2 images at a time, so raise batch_size."
        )


def _check_values(model: nn.Module) -> None:
    for name, tensor in _tensors(model).items():
        if is_lazy(tensor):
            why = "is lazy, without a shape yet; pass a batch through the model first"
        elif tensor.is_meta:
            why = "is on the meta device, where nothing has values; build the model on the CPU"
        else:
            continue
        raise InputError(f"{name!r} of the model {why}.")


def _holds_itself(model: nn.Module) -> str | None:
    """Name a function among attributes and hooks whose closure holds a part of the module.

    `copy.deepcopy` copies bound methods together with what they are bound to, but no functions.
    """
    parts = _parts(model)
    for name, module in model.named_modules():
        hooks = {"forward hook": module._forward_hooks}
        hooks["forward pre-hook"] = module._forward_pre_hooks
        functions = [*vars(module).items()]
        functions += [(what, hook) for what, of in hooks.items() for hook in of.values()]
        for what, function in functions:
            if _holds(function, parts):
                return f"{name}.{what}".lstrip(".")
    return None


def _parts(model: nn.Module) -> set[int]:
    """Return the identities of a module's modules, parameters and buffers."""
    return {
        id(part)
        for module in model.modules()
        for part in (module, *module._parameters.values(), *module._buffers.values())
        if part is not None
    }


def _holds(function: object, parts: Collection[int]) -> bool:
    """Return whether the closure of a function holds one of these, or a method of one."""
    held = function.__closure__ if isinstance(function, FunctionType) else None
    contents = [cell.cell_contents for cell in held or () if _is_filled(cell)]
    return any(id(one) in parts or id(getattr(one, "__self__", None)) in parts for one in contents)


def _is_filled(cell: CellType) -> bool:
    try:
        return bool([cell.cell_contents])
    except ValueError:  # a name that was not bound yet
        return False


def _culprit(model: nn.Module) -> str:
    """Name the attribute that can't be copied."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute in ("_parameters", "_buffers", "_modules"):
                continue
            try:
                copy.deepcopy(value)
            except Exception:  # as above
                return f" because of its attribute {f'{name}.{attribute}'.lstrip('.')!r}"
    return ""


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    named: dict[str, Tensor] = dict(model.named_buffers(remove_duplicate=False))
    return named | dict(model.named_parameters(remove_duplicate=False))


def _astray(model: nn.Module, state: StateDict) -> list[str]:
    """Return the floating tensors of `state` that the module has no tensor of that name for."""
    own = _tensors(model)
    return [
        name for name, tensor in state.items() if tensor.is_floating_point() and name not in own
    ]


def _refuse_names(model: nn.Module, state: StateDict) -> None:
    astray = _astray(model, state)
    lacking = [name for name in _tensors(model) if name not in state]
    cure = _renaming(model, astray, lacking) or (
        "If the module renames them on loading, pass it as from_corners(..., model=model); else "
        "build the model that the corners were trained with."
    )
    raise InputError(
        f"the corners hold {first_names(astray)}, which the model doesn't own under "
        f"{'that name' if len(astray) == 1 else 'those names'}; it has "
        f"{first_names(lacking) or 'no others'}. {cure}"
    )


def _renaming(model: nn.Module, astray: Collection[str], lacking: Collection[str]) -> str:
    """Return the cure if names differ by a prefix alone, or by an adapter's name in the middle."""
    for name in list(astray)[:1]:
        for other in lacking:
            if name.endswith(f".{other}"):
                prefix = name.removesuffix(other)
                return f"Their names begin with {prefix!r}: strip it from the corners' names."
            if other.endswith(f".{name}"):
                prefix = other.removesuffix(name)
                return (
                    f"The model's names begin with {prefix!r}: pass the module inside, if the "
                    "model computes nothing but that; else add it to the corners' names."
                )
    # In its files and in `get_peft_model_state_dict`, peft leaves the adapter's name out.
    for adapter in getattr(model, "peft_config", {}):
        if any(other.replace(f".{adapter}.", ".") in astray for other in lacking):
            return (
                f"They are adapters alone, and their names lack the adapter's own, {adapter!r}: "
                "load each with peft.set_peft_model_state_dict(model, adapter), and make a corner "
                "of what model.state_dict() then holds (copied, since the next one overwrites it)."
            )
    return ""
