"""Networks that a function of the user's builds, from any module that can be imported."""

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from fourfold.errors import InputError
from fourfold.files.reading import reason
from fourfold.networks._foreign import call, check_classifier


def build(
    *,
    channels: int,
    image_size: int,
    classes: int,
    builder: str,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build the network that a function returns.

    Args:
        channels, image_size, classes: see `build_model`; the function gets those that it has
            parameters of these names for.
        builder: `module:function`; the module lies in the working directory, or is installed.
        arguments: further ones, by name.
    """
    function, given = _function(builder), dict(arguments or {})
    sizes = {"channels": channels, "image_size": image_size, "classes": classes}
    try:
        signature = inspect.signature(function)
        for name in sizes.keys() & signature.parameters.keys() - given.keys():
            given[name] = sizes[name]
        signature.bind(**given)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{builder} can't be called with {sorted(given)}: {reason(error)}. Give what it needs "
            "in network.arguments, beside classes, channels and image_size."
        ) from error
    return check_classifier(call(builder, function, **given), builder, **sizes)


def _function(builder: str) -> Callable[..., Any]:
    name, _, path = builder.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise InputError(
                f"{name}, of network.builder, needs {error.name!r}; install it."
            ) from error
        raise InputError(
            f"network.builder is {builder!r}, but there is no module {error.name!r}, neither in "
            f"the working directory, {here}, nor installed."
        ) from error
    except Exception as error:
        raise InputError(
            f"importing {name}, of network.builder, failed: {reason(error)}."
        ) from error
    try:
        function: Any = reduce(getattr, path.split("."), module)
    except AttributeError as error:
        functions = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise InputError(
            f"network.builder is {builder!r}, but {module.__file__} has no {path!r}; it has "
            f"{', '.join(functions) or 'no functions'}."
        ) from error
    if not callable(function):
        raise InputError(f"network.builder is {builder!r}, which is no function.")
    found: Callable[..., Any] = function
    return found
