"""Shapes by the names and settings of params.yaml and of files."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fourfold.errors import InputError, check_count
from fourfold.surfaces.shapes.box import MAX_DEGREE, Box
from fourfold.surfaces.shapes.chain import Chain
from fourfold.surfaces.shapes.shape import Shape
from fourfold.surfaces.shapes.simplex import Simplex
from fourfold.surfaces.shapes.star import PointSet, Star


def _degree(kind: str, degree: Any, axes: int = 1) -> tuple[int, ...]:
    is_list = isinstance(degree, (list, tuple)) and len(degree) == axes
    if not is_list or any(not isinstance(d, int) or isinstance(d, bool) for d in degree):
        raise InputError(
            f"degree is {degree}; a {kind} takes {axes} integer{'s' * (axes > 1)} from 1 to "
            f"{MAX_DEGREE} (1 is the linear one)."
        )
    return tuple(degree)


def _simplex(corners: int | None, added: int = 0, degree: Any = (1,)) -> Simplex:
    check_count("added", added)
    return Simplex(4 - added if corners is None else corners, added, _degree("simplex", degree)[0])


# Kind -> what makes it from the number of networks, if that is known, and its settings.
_MAKERS: dict[str, Callable[..., Shape]] = {
    "curve": lambda corners, degree: Box(_degree("curve", degree)),
    "square": lambda corners, degree: Box(_degree("square", degree, 2)),
    "cube": lambda corners, degree: Box(_degree("cube", degree, 3)),
    "chain": lambda corners, bends: Chain(bends),
    "triangle": lambda corners, degree: Simplex(3, 0, _degree("triangle", degree)[0]),
    "simplex": _simplex,
    "star": lambda corners, added=0: Star(4 if corners is None else corners, added),
    "set": lambda corners: PointSet(4 if corners is None else corners),
}
KINDS = tuple(_MAKERS)
ANY_COUNT = ("simplex", "star", "set")  # kinds that take as many corners as there are networks
# What a caller of the library means who says nothing.
USUAL: dict[str, dict[str, Any]] = {
    "curve": {"degree": [2]},
    "square": {"degree": [2, 2]},
    "cube": {"degree": [2, 2, 2]},
    "chain": {"bends": 1},
    "triangle": {"degree": [2]},
    "simplex": {},
    "star": {},
    "set": {},
}


def make_shape(kind: str, corners: int | None = None, **settings: Any) -> Shape:
    """Make a shape from what `params.yaml` or a file says of it.

    Args:
        kind: one of `KINDS`.
        corners: how many networks there are; what a shape needs if None, for a simplex 4 less
            its added vertices, for a star or a set 4.
        settings: `degree` (a list), `bends` of a chain, `added` vertices of a simplex, or 1 for
            the center of a star.

    Raises:
        InputError: if settings don't belong to the shape, or the corners are too many or too few.
    """
    if not isinstance(kind, str) or kind not in _MAKERS:
        raise InputError(f"shape is {kind!r}; choose one of {', '.join(KINDS)}.")
    given = dict(inspect.signature(_MAKERS[kind]).parameters)
    del given["corners"]
    needed = {name for name, one in given.items() if one.default is inspect.Parameter.empty}
    if not needed <= settings.keys() <= given.keys():
        raise InputError(
            f"a {kind} has {' and '.join(given) or 'no settings'}, but "
            f"{sorted(settings) or 'nothing'} is given."
        )
    shape = _MAKERS[kind](corners, **settings)
    if corners is not None and corners != len(shape.corner_rows):
        raise InputError(
            f"a {kind} has {len(shape.corner_rows)} corners, but there are {corners} networks."
        )
    return shape


def shape_of(described: Mapping[str, Any]) -> Shape:
    """Return the shape of a surface as an experiment or a table describes it.

    Args:
        described: `shape`, its settings, and `count`, the number of its corners.
    """
    settings = {
        k: described[k] for k in ("degree", "bends", "added") if described.get(k) is not None
    }
    return make_shape(described["shape"], described.get("count"), **settings)
