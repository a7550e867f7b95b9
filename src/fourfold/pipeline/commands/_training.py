"""Settings of a training run or a fit, as the functions take them."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from fourfold.errors import InputError
from fourfold.pipeline.commands._settings import check_keys

_OF_OPTIMIZER = ("lr", "momentum", "betas")


def training_arguments(
    section: str,
    settings: Mapping[str, Any],
    function: Callable[..., Any],
    supplied: Collection[str],
) -> dict[str, Any]:
    """Return the keyword arguments of `train` or `fit`: the optimizer's settings join the others.

    Args:
        section: what messages call the settings.
        settings: with `optimizer: {name, lr, ...}`.
        function: `train` or `fit`.
        supplied: its parameters that do not come from the settings.

    Raises:
        InputError: if a setting is unknown or missing.
    """
    optimizer = dict(settings["optimizer"])
    name = optimizer.pop("name", None)
    if unknown := sorted(set(optimizer) - set(_OF_OPTIMIZER)):
        raise InputError(
            f"{section}.optimizer has no setting {unknown[0]!r}; it takes name and "
            f"{', '.join(_OF_OPTIMIZER)}."
        )
    arguments = {key: value for key, value in settings.items() if key != "optimizer"}
    arguments |= {"optimizer": name, **optimizer}
    check_keys(section, arguments, function, supplied)
    return arguments
