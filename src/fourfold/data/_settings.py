"""Settings from params.yaml checked against the function that takes them."""

import inspect
from collections.abc import Callable, Collection, Mapping
from types import UnionType
from typing import Any, get_args

from fourfold.errors import InputError
from fourfold.files.reading import has_type


def check_settings(
    section: str,
    given: Mapping[str, Any],
    function: Callable[..., Any],
    supplied: Collection[str] = (),
) -> None:
    """Refuse settings that are unknown, missing, or not of the annotated type.

    Args:
        section: what the messages call the settings.
        given: the settings.
        function: takes them as keyword arguments; its annotations are the types.
        supplied: parameters that do not come from the settings.

    Raises:
        InputError: naming the key and what is allowed.
    """
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(function).parameters.items()
        if key not in supplied
    }
    takes = ", ".join(sorted(parameters)) or "no settings"
    for key in given:
        if key not in parameters:
            raise InputError(f"{section}.{key} is no setting; {section} takes {takes}.")
    for key, parameter in parameters.items():
        if key not in given:
            if parameter.default is parameter.empty:
                raise InputError(f"{section} lacks the setting {key}; {section} takes {takes}.")
        elif not _is_of_type(given[key], parameter.annotation):
            expected = getattr(parameter.annotation, "__name__", None) or parameter.annotation
            raise InputError(
                f"{section}.{key} is {given[key]!r}, of the type {type(given[key]).__name__}; "
                f"it must be {str(expected).replace('NoneType', 'None').replace('None', 'null')}."
            )


def _is_of_type(value: Any, annotation: Any) -> bool:
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return any(has_type(value, kind) for kind in kinds)
