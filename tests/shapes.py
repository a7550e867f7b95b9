"""Check the shapes in the signatures of the core, in the tests alone: `conftest` hooks this in."""

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check annotated shapes and nothing else: other wrong arguments are for `InputError`."""
    annotations = function.__annotations__
    function.__annotations__ = {name: a for name, a in annotations.items() if _has_shape(a)}
    return beartype(function)


def _has_shape(annotation: object) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(_has_shape(part) for part in get_args(annotation))
