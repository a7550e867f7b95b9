"""What surfaces are held against belongs to their corners, and is there once for each set of them.

`surfaces` is name -> what tables can't tell of it, in the order of the experiment.
"""

from collections.abc import Iterable, Mapping
from typing import NotRequired, TypedDict

from fourfold.errors import InputError


class Described(TypedDict):
    """What tables can't tell of a surface; `fourfold.surfaces.shapes.shape_of` makes its shape.

    Attributes:
        corners: name of the corner set.
        kind: how that came about. `seeds`: each network by a run of its own; `run`: all along one;
            `fork`: by runs that part from one; `files`: elsewhere; `free`: nobody trained them
            alone, the fit of a surface does; `untrained`: nor does that; `aligned` (permuted) and
            `random` (a null model): from those of another set.
        fit: name of the surface's fit, or None.
        shape: a kind of shape, with the settings `degree`, `bends` or `added`.
        count: number of corners.
        batchnorm: how its points get their statistics, if not as the experiment's other networks.
        choose: of a `run`, what its networks are chosen on, if that was not fixed in advance.
        at: of a `fork`, the fraction of a run after which its networks part, of whole epochs.
        training: name of the corners' training, of a `fork` of its ancestor's, if it isn't the
            recipe's `training`.
        then: of a `fork`, name of the training that follows, if it isn't the run's rest.
        to: the set that an `aligned` or `random` one is made from.
        origin, origin_kind: the set at the end of `to`, and how that came about; `choose`, `at`,
            `training` and `then` are its.
        method: of an `aligned` one.
        fit_of: the fit that `fit` differs from in its epochs alone, if there is one.
    """

    corners: str
    kind: str
    fit: str | None
    shape: str
    count: int
    degree: NotRequired[list[int]]
    bends: NotRequired[int]
    added: NotRequired[int]
    batchnorm: NotRequired[str | None]
    choose: NotRequired[str]
    at: NotRequired[float]
    training: NotRequired[str]
    then: NotRequired[str]
    to: NotRequired[str]
    origin: NotRequired[str]
    origin_kind: NotRequired[str]
    method: NotRequired[str]
    fit_of: NotRequired[str]


Surfaces = Mapping[str, Described]
UNTRAINED = ("free", "untrained")  # kinds of corners that nobody trained alone
NOBODYS = (*UNTRAINED, "random")  # kinds that are no networks of their own


def reference_surfaces(surfaces: Surfaces) -> dict[str, str]:
    """Return corner set -> the surface whose evaluation its baselines are taken from.

    That is the first one of which `is_plain` holds, else its first one. The corner sets are in the
    order of their first use.
    """
    found: dict[str, str] = {}
    for name, surface in surfaces.items():
        known = found.setdefault(surface["corners"], name)
        if is_plain(surface) and not is_plain(surfaces[known]):
            found[surface["corners"]] = name
    return found


def is_plain(surface: Described) -> bool:
    """Return whether a surface's center is the mean of its corners, evaluated as any network."""
    return surface["fit"] is None and surface.get("batchnorm") is None


def corner_ensembles(surfaces: Surfaces) -> dict[str, str]:
    """Return corner set -> what the ensembles of its networks are called.

    The first set of independent networks has the plain name `corners`.
    """
    kinds = {surface["corners"]: surface["kind"] for surface in surfaces.values()}
    plain = next((corners for corners, kind in kinds.items() if kind == "seeds"), None)
    return {corners: "corners" if corners == plain else f"{corners}-corners" for corners in kinds}


def check_surfaces(found: Iterable[str], surfaces: Surfaces, what: str) -> None:
    """Refuse files, which `what` names, that are not of these surfaces, each once."""
    if sorted(found := list(found)) != sorted(surfaces):
        raise InputError(
            f"{what} are of the surfaces {found}, but the experiment has {list(surfaces)}; give "
            "one of each."
        )
