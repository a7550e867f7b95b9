"""The plane in parameter space through three networks, and the loss on it."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fourfold.errors import InputError
from fourfold.evaluation.grid import Images, evaluate_points
from fourfold.surfaces.buffers import choose_policies
from fourfold.surfaces.layout import StateDict, check_same_architecture
from fourfold.surfaces.points import grid_points
from fourfold.surfaces.shapes import Array, Coordinates, Point, Simplex, Weights
from fourfold.surfaces.surface import Surface

CORNERS = 3
_ROUNDINGS = 8  # of parameters, by which networks on one line may lie beside it


class _Affine(Simplex):
    """A triangle without end: (u, v) are the shares of b and c, which may be negative."""

    def contains(self, points: Coordinates) -> Array:
        """Return True of all points."""
        return np.ones(len(points), bool)

    def weights(self, points: Coordinates) -> Weights:
        """Return the shares of all three."""
        return np.column_stack([1 - points.sum(axis=1), points])

    mixture = weights


class Projected(NamedTuple):
    """The point of a plane that is nearest to a network, and how far that is from there (L2)."""

    x: float
    y: float
    distance: float


class Plane:
    """theta(x, y) = a + x e_1 + y e_2, the plane through three networks a, b and c.

    Coordinates are L2 distances in parameter space: a is at (0, 0), b at (|b - a|, 0), and c has
    y > 0. At these points the network is that checkpoint, bit for bit.

    Attributes:
        surface: the same plane over the shares (u, v) of b and c.
        basis: (2, D), float64, orthonormal: e_1 from a towards b, e_2 towards c.
        corners: x and y of a, b and c.

    Reference: Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs",
    NeurIPS 2018.
    """

    def __init__(self, surface: Surface) -> None:
        """Take the surface with the three networks for control points; use `plane`."""
        self.surface = surface
        a, b, c = surface.control_points.double()
        to_b, to_c = b - a, c - a
        base = to_b.norm()
        along = to_c @ to_b / base if base else base
        beside = to_c - along * to_b / base if base else to_c
        height = beside.norm()
        rounding = _ROUNDINGS * torch.finfo(surface.layout.dtype).eps
        if not min(base, height) > rounding * max(a.norm(), b.norm(), c.norm()):
            raise InputError(
                f"the three networks lie on one line: b is {base:.3g} from a, and c {height:.3g} "
                "from the line through them (L2), no more than rounding; give three networks that "
                "span a plane. (A state dict refers to the tensors of its module: copy it before "
                "the module is trained on.)"
            )
        self.basis: Float[Tensor, "axes parameters"] = torch.stack([to_b / base, beside / height])
        self._base, self._along, self._height = base.item(), along.item(), height.item()
        self.corners: tuple[Point, ...] = (
            (0.0, 0.0),
            (self._base, 0.0),
            (self._along, self._height),
        )

    def shares(self, x: float, y: float) -> Point:
        """Return the shares of b and c at a point; that of a is 1 less both."""
        of_c = y / self._height
        return (x - of_c * self._along) / self._base, of_c

    def state_dict(self, x: float, y: float) -> dict[str, Tensor]:
        """Return the network at a point as a state dict that `load_state_dict` takes.

        What is no parameter is treated as by `Surface.state_dict`: BatchNorm statistics are blended
        by the three shares, which is only a start (outside the triangle a variance may be
        negative), and are to be re-estimated.
        """
        return self.surface.state_dict(*self.shares(x, y))

    def project(self, state: StateDict) -> Projected:
        """Return the nearest point of the plane to a network, and the network's distance from it.

        Raises:
            InputError: if it is of another architecture.
        """
        surface = self.surface
        a = surface.corner()
        check_same_architecture([a, state], ["the first network", "the network to project"])
        theta = torch.empty(surface.dimension, dtype=surface.layout.dtype)
        surface.layout.flatten(state, out=theta)
        offset = theta.double() - surface.control_points[0].double()
        x, y = self.basis @ offset
        beside = (offset - x * self.basis[0] - y * self.basis[1]).square().sum()
        # What the three networks share is no coordinate, but a parameter of another network.
        known = choose_policies([state], None)
        for name, tensor in surface.buffers.shared.items():
            if tensor.is_floating_point() and name not in known:
                differs = state[name].cpu() != tensor  # infinities of a mask are equal
                apart = state[name].cpu().double() - tensor.double()
                beside = beside + apart[differs].square().sum()
        return Projected(x.item(), y.item(), beside.sqrt().item())

    def lattice(self, points: int, margin: float = 0.2) -> list[Point]:
        """Return a points x points grid over the three networks, y running fastest.

        Args:
            points: along each axis, at least 2.
            margin: by how much the grid goes beyond the networks, a share of their extent along
                each axis.
        """
        if not 0 <= margin < np.inf:
            raise InputError(f"margin is {margin}; it must be 0 or more.")
        places = np.array(self.corners)
        low, extent = places.min(axis=0), np.ptp(places, axis=0)
        cells = np.array(grid_points(points))
        lattice = low + extent * ((1 + 2 * margin) * cells - margin)
        return [(x, y) for x, y in lattice.tolist()]


def plane(
    a: StateDict,
    b: StateDict,
    c: StateDict,
    *,
    model: nn.Module | None = None,
    buffers: Mapping[str, str] | None = None,
) -> Plane:
    """Return the plane in parameter space through three networks of one architecture.

    Args:
        a: state dict of the network at the origin.
        b: of the one that the x axis points to.
        c: of the one that the y axis, orthogonal to that, rises to.
        model: as for `Surface.from_corners`.
        buffers: as for `Surface.from_corners`.

    Raises:
        InputError: if they are not of one architecture, or lie on one line.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of equal networks, which are refused
        shape = _Affine(CORNERS)
        surface = Surface.from_corners(
            [a, b, c], name="plane", shape=shape, model=model, buffers=buffers
        )
    return Plane(surface)


def evaluate_plane(
    plane: Plane,
    model: nn.Module,
    splits: Mapping[str, Images],
    points: int = 21,
    *,
    margin: float = 0.2,
    **settings: Any,
) -> pd.DataFrame:
    """Evaluate the networks on a regular grid over a plane, and the three that span it.

    All are evaluated by the procedure of `evaluate_points`: BatchNorm statistics re-estimated, the
    three networks with their own as well.

    Args:
        plane: of `plane`.
        model: any module of the networks' architecture; it is copied, not changed.
        splits: name -> (images, labels) or batches.
        points: as for `Plane.lattice`.
        margin: as for `Plane.lattice`.
        **settings: as for `evaluate_points`: `augment`, `metrics`, `loss_function`, ...

    Returns:
        One row per point and split: sample (`grid`, or `corner`: a, b and c), x, y, split, n, nll,
        accuracy, ece, brier, loss and metrics of the caller's own, statistics, statistics_images.
    """
    tables = [
        _evaluate(plane, model, splits, chosen, sample, settings)
        for sample, chosen in (
            ("grid", plane.lattice(points, margin)),
            ("corner", plane.corners),
        )
    ]
    return pd.concat(tables, ignore_index=True)


def _evaluate(
    plane: Plane,
    model: nn.Module,
    splits: Mapping[str, Images],
    points: Sequence[Point],
    sample: str,
    settings: Mapping[str, Any],
) -> pd.DataFrame:
    places = {plane.shares(*point): point for point in points}
    table = evaluate_points(
        plane.surface, model, splits, list(places), sample=sample, keep_logits=(), **settings
    ).table
    at = [places[shares] for shares in zip(table.pop("u"), table.pop("v"), strict=True)]
    table = table.drop(columns=["surface", "w"])
    for position, axis in enumerate("xy"):
        table.insert(1 + position, axis, [point[position] for point in at])
    return table
