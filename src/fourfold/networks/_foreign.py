"""What networks from elsewhere have in common: calls that may fail, and outputs to look at."""

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fourfold.errors import InputError
from fourfold.files.reading import reason


def import_optional(package: str) -> ModuleType:
    """Import a package that fourfold does without."""
    try:
        return import_module(package)
    except ImportError as error:
        raise InputError(
            f"network.name is {package}, but that package can't be imported ({reason(error)}); "
            f"`pip install {package}`, or choose another network."
        ) from error


def call(what: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a function of somebody else's; whatever it raises becomes one `InputError`."""
    try:
        return function(*arguments, **named)
    except Exception as error:
        given = f"({', '.join(f'{k}={v!r}' for k, v in named.items())})" if named else ""
        raise InputError(
            f"{what}{given} failed: {reason(error)}; correct the network's arguments."
        ) from error


def like(name: str, names: Collection[str]) -> str:
    """Return the names that are most like one that is not among them, for a message."""
    return ", ".join(get_close_matches(name, names, n=5, cutoff=0.4) or sorted(names)[:5])


def check_classifier(
    model: Any, what: str, *, channels: int, image_size: int, classes: int
) -> nn.Module:
    """Return a model if it is a module that maps images to (n, classes) logits."""
    if not isinstance(model, nn.Module):
        raise InputError(f"{what} returned {type(model).__name__}; it must return an nn.Module.")
    first = next(model.parameters(), torch.zeros(()))
    shape = (2, channels, image_size, image_size)
    images = torch.zeros(shape, device=first.device, dtype=first.dtype)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = model(images)
    except Exception as error:
        raise InputError(
            f"the network of {what} fails on images of shape {shape}: {reason(error)}. It must map "
            f"(n, {channels}, {image_size}, {image_size}) to (n, {classes}) logits."
        ) from error
    finally:
        model.train(was_training)
    if isinstance(output, Mapping):
        output = output.get("logits")
    logits = getattr(output, "logits", output)
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
    if found != (2, classes):
        raise InputError(
            f"the network of {what} returns {found} for images of shape {shape}; it must return "
            f"(2, {classes}) logits, or an object that has them as `logits`."
        )
    return model
