"""The phases of a fit: what points are drawn of, and which control points they move. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fourfold.errors import InputError
from fourfold.surfaces.shapes import Shape

Rows = tuple[int, ...]
_KEYS = ("epochs", "curves", "rows")
PLANNED = ("phases", "boundary_epochs", "epochs")  # settings of a fit that make its plan


@dataclass(frozen=True)
class Phase:
    """Some epochs of a fit, with a schedule and an optimizer's state of their own.

    Attributes:
        epochs: passes over the batches.
        edges: whether points are drawn on the edges alone.
        curves: rows of the control points of Bezier curves, one point of each of which is trained
            in a step; none for points of the surface or its edges.
        rows: control points that may move; None for all that are free.
    """

    epochs: int
    edges: bool = False
    curves: tuple[Rows, ...] = ()
    rows: Rows | None = None


def plan_phases(
    shape: Shape,
    free: Sequence[int],
    *,
    phases: Sequence[Mapping[str, Any]] | None,
    boundary_epochs: int,
    epochs: int,
) -> list[Phase]:
    """Return the phases of a fit in their order: those listed, the edges', the whole surface's.

    Args:
        shape: of the surface.
        free: its free rows.
        phases: see `fit`.
        boundary_epochs: of the edges.
        epochs: of the surface.
    """
    if isinstance(phases, (str, Mapping)) or not isinstance(phases, (Sequence, type(None))):
        raise InputError(f"phases is {phases!r:.80}; give a list of phases, or None.")
    listed = [
        _read(f"phases[{k}]", phase, shape.control_point_names, free)
        for k, phase in enumerate(phases or ())
    ]
    return [*listed, Phase(boundary_epochs, edges=True), Phase(epochs)]


def fit_passes(settings: Mapping[str, Any]) -> int:
    """Return how often a fit with some settings passes over the data."""
    listed = sum(one["epochs"] * len(one["curves"]) for one in settings["phases"] or ())
    total: int = settings["repeats"] * (listed + settings["boundary_epochs"] + settings["epochs"])
    return total


def _read(where: str, phase: Mapping[str, Any], names: Sequence[str], free: Sequence[int]) -> Phase:
    if not isinstance(phase, Mapping) or not {"epochs", "curves"} <= set(phase) <= set(_KEYS):
        raise InputError(f"{where} is {phase}; a phase has {', '.join(_KEYS[:-1])} and rows.")
    epochs, moving = phase["epochs"], phase.get("rows")
    if not isinstance(epochs, int) or epochs < 0:
        raise InputError(f"{where}.epochs is {epochs}; it must be 0 or more.")

    def rows_of(key: str, given: Any, least: int) -> Rows:
        is_list = isinstance(given, (list, tuple)) and len(given) >= least
        if not is_list or not all(name in names for name in given) or len(set(given)) < len(given):
            raise InputError(
                f"{where}.{key} is {given}; list {least} or more different control points of "
                f"{', '.join(names)}."
            )
        return tuple(names.index(name) for name in given)

    listed = phase["curves"] if isinstance(phase["curves"], (list, tuple)) else [phase["curves"]]
    curves = tuple(rows_of(f"curves[{i}]", one, 2) for i, one in enumerate(listed))
    rows = None if moving is None else rows_of("rows", moving, 1)
    on_curves = {row for curve in curves for row in curve} & set(free)
    if not on_curves or not on_curves.issuperset(rows or ()):
        raise InputError(
            f"{where} trains the curves {listed} and moves "
            f"{'all free control points' if moving is None else list(moving)}; on the curves are "
            f"free: {', '.join(names[row] for row in sorted(on_curves)) or 'none'}."
        )
    return Phase(epochs, curves=curves, rows=rows)
