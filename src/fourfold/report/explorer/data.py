"""What the explorer shows, as JSON: points, metrics, marks, barriers, rivals and ensembles."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fourfold.combination.baselines import (
    Described,
    Surfaces,
    check_surfaces,
    corner_ensembles,
    reference_surfaces,
)
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.report.explorer.predictions import STEPS, Packed, pack
from fourfold.report.pairs import is_named_twice
from fourfold.report.wording import number
from fourfold.surfaces.points import lattice_rows, own_corner_rows
from fourfold.surfaces.shapes import Point, Shape, shape_of

METRICS = ("nll", "accuracy", "ece", "brier")
_DIGITS = 6  # significant ones of numbers in the page
_OF_BARRIER = ("corner_mean_own", "corner_mean", "min", "mean", "max", "barrier")
_NAMED = 30  # networks of an ensemble of the table, up to which all are cached
_MANY_IMAGES = 5000  # of which one is 0.02 points of accuracy
_ENOUGH = 0.0005  # of accuracy: half of what an ensemble may be off
_MARKS = {
    "center": "center, fixed in advance",
    "best-point": "best point, picked on val",
    "oracle": "oracle: best point on test",
}
_RIVAL = ("images_backward", "images_forward", "forward_passes", *METRICS, "nll_scaled")
# What runs of the same corners are called, see `Described`.
_CORNERS = {
    "seeds": "independent runs",
    "run": "all of one run",
    "fork": "runs that part from one",
    "files": "from files",
    "free": "not trained alone",
    "untrained": "untrained",
    "aligned": "permuted or rotated to lie close to one another",
    "random": "a null model: as far apart, in random directions",
}
# And what a corner is called, where it was not trained.
_CORNER = {"free": _CORNERS["free"], "untrained": "untrained", "random": "in a random direction"}

_AS_TRAINED = "as trained"
# What the points' BatchNorm statistics are called, where the corners' own are others.
_STATISTICS = {
    "reestimated": "re-estimated",
    "interpolated": "interpolated",
    "repaired": "repaired",
}


@dataclass(frozen=True)
class Cached:
    """Logits on test of one surface, from which ensembles are computed.

    Attributes:
        points: coordinates of the networks of `logits`.
        logits: (points, images, classes).
        own: (corners, images, classes) of the corners as trained.
        labels: (images,).
    """

    points: Sequence[Point]
    logits: NDArray[np.float16]
    own: NDArray[np.float16]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, surface: SurfaceLogits) -> "Cached":
        """Return the part on test of what an evaluation has kept."""
        logits, own, labels = (
            part["test"].numpy() for part in (surface.logits, surface.own, surface.labels)
        )
        return cls(surface.points, logits, own, labels)


@dataclass(frozen=True)
class Members:
    """The networks of one surface by number: its corners as trained, then its lattice points."""

    shape: Shape
    points: list[Point]

    @classmethod
    def of(cls, grid: pd.DataFrame, shape: Shape) -> "Members":
        """Return those of the lattice in a `grid` table."""
        rows = lattice_rows(grid)[list(shape.axes)].drop_duplicates()
        return cls(shape, list(map(tuple, rows.to_numpy().tolist())))

    @property
    def corners(self) -> int:
        """How many networks are corners."""
        return len(self.shape.corner_coordinates)

    def point(self, at: Sequence[float]) -> int:
        """Return the number of the lattice point that is nearest."""
        return self.corners + _nearest(self.points, at)

    def choices(self, named: Iterable[int]) -> list[list[int]]:
        """Return what may be cached, the largest first: the lattice, and ever coarser ones.

        Each has the corners as trained and what tables name, but for the last: these corners alone.
        They stand for the points of the lattice that are corners.
        """
        always = {*range(self.corners), *named}
        at_corners = set(map(self.point, self.shape.corner_coordinates))
        if self.shape.is_discrete:
            return [sorted(always)]
        along = 2
        while len(self.shape.lattice(along)) < len(self.points):
            along += 1
        lattices = [set(map(self.point, self.shape.lattice(k))) for k in range(along, 1, -1)]
        choices = [sorted(always | (lattice - at_corners)) for lattice in lattices]
        return [*choices, [*range(self.corners)]]


def describe_replicate(tables: Mapping[str, pd.DataFrame], surfaces: Surfaces) -> dict[str, Any]:
    """Return what the page shows of one replicate of one experiment, predictions left out.

    Args:
        tables: `grid`, `barrier`, `merge`, `ensemble` and `rival` of the replicate.
        surfaces: of the experiment, in the order in which they are shown.

    Raises:
        InputError: if the grids are not of these surfaces.
    """
    grid = tables["grid"]
    check_surfaces(grid["surface"].unique(), surfaces, "the grids")
    first = grid.iloc[0]
    return {
        "experiment": first["experiment"],
        "replicate": int(first["replicate"]),
        "metrics": [metric for metric in METRICS if np.isfinite(grid[metric]).any()],
        "surfaces": [_surface(name, tables, surfaces) for name in surfaces],
        "rivals": _rivals(tables["rival"], surfaces),
    }


def _surface(name: str, tables: Mapping[str, pd.DataFrame], surfaces: Surfaces) -> dict[str, Any]:
    described = surfaces[name]
    shape = shape_of(described)
    grid, barrier, merge = (
        tables[table][tables[table]["surface"] == name] for table in ("grid", "barrier", "merge")
    )
    members = Members.of(grid, shape)
    splits = {}
    for split, rows in grid.groupby("split", sort=False):
        lattice, own = lattice_rows(rows), own_corner_rows(rows, shape)
        lattice = lattice.set_axis(list(map(members.point, _places(lattice, shape)))).sort_index()
        order = [_nearest(shape.corner_coordinates, at) for at in _places(own, shape)]
        own = own.set_axis(order).sort_index()
        splits[split] = {
            "n": int(lattice["n"].iloc[0]),
            "points": {metric: _numbers(lattice[metric]) for metric in METRICS},
            "corners": {metric: _numbers(own[metric]) for metric in METRICS},
        }
    return {
        "name": name,
        "shape": shape.kind,
        "corners": [
            {"name": corner.removeprefix("corner_"), "at": list(at)}
            for corner, at in zip(shape.corner_names, shape.corner_coordinates, strict=True)
        ],
        "about": _about(described),
        "areCorners": _CORNER.get(described["kind"], _AS_TRAINED),
        "statistics": _statistics(grid),
        "axes": list(shape.axes),
        "points": [[_number(x) for x in point] for point in members.points],
        "atCorner": [
            members.point(corner) - members.corners for corner in shape.corner_coordinates
        ],
        "paths": _paths(shape, members),
        "isDiscrete": shape.is_discrete,
        "splits": splits,
        "marks": [] if shape.is_discrete else [*_marks(merge, members), *_worst(barrier, shape)],
        "barrier": _barriers(barrier),
        "ensembles": _ensembles(name, tables["ensemble"], surfaces, members),
    }


def _about(described: Described) -> str:
    """Return in words what a surface is."""
    count = described["count"]
    networks = f"{number(count)} network{'s' * (count > 1)}"
    fit = f"fitted ({described['fit']})" if described["fit"] else "without a fit"
    kind = _CORNERS[described["kind"]]
    return f"{described['shape']} on {networks} ({described['corners']}: {kind}), {fit}"


def _statistics(grid: pd.DataFrame) -> str:
    """Return in a word which statistics points have, empty if corners have no others as well."""
    kinds = grid["statistics"].unique()
    return "".join(_STATISTICS[kind] for kind in kinds if kind != "own") if "own" in kinds else ""


def _paths(shape: Shape, members: Members) -> list[dict[str, Any]]:
    """Return the lines that a shape with one coordinate is drawn as: points in order, and places.

    A star has one for each segment, from its center outwards.
    """
    if shape.dims > 1 or shape.is_discrete:
        return []
    points = np.asarray(members.points)[:, 0]
    paths = []
    ends = shape.edges
    for k, ((start,), (end,)) in enumerate(ends):
        on = np.flatnonzero((points >= min(start, end) - 1e-9) & (points <= max(start, end) + 1e-9))
        on = on[np.argsort(points[on])]
        places = (points[on] - start) / (end - start)
        if shape.kind == "star" and k:  # the center stands for the beginning of every segment
            on = np.concatenate([[members.point(shape.center) - members.corners], on])
            places = np.concatenate([[0.0], places])
        name = shape.corner_names[k] if len(ends) > 1 else ""
        paths.append({"name": name, "points": on.tolist(), "at": [_number(x) for x in places]})
    return paths


def _marks(merge: pd.DataFrame, members: Members) -> Iterator[dict[str, Any]]:
    """Yield the points that `merge` names, with the table's own numbers on test."""
    test = merge[merge["split"] == "test"].set_index("merge")
    for kind, label in _MARKS.items():
        for _, row in test[test.index == kind].iterrows():
            at = [float(row[axis]) for axis in members.shape.axes]
            found = members.point(at)
            on_lattice = np.allclose(members.points[found - members.corners], at, atol=1e-9)
            test_metrics = {metric: _number(row[metric]) for metric in METRICS}
            yield {"kind": kind, "label": label, "at": at, "test": test_metrics} | (
                {"point": found - members.corners} if on_lattice else {}
            )


def _worst(barrier: pd.DataFrame, shape: Shape) -> Iterator[dict[str, Any]]:
    """Yield the worst point by accuracy on test, of all that were evaluated."""
    worst = barrier[(barrier["split"] == "test") & (barrier["metric"] == "error")]
    for _, row in worst.iterrows():
        label = f"worst point found on test ({row['sample_at_max']})"
        at = [float(row[f"{axis}_at_max"]) for axis in shape.axes]
        test = {"accuracy": _number(1 - row["max"])}
        yield {"kind": "worst", "label": label, "at": at, "test": test}


def _barriers(barrier: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"split": row["split"], "metric": row["metric"], "found": row["sample_at_max"]}
        | {part: _number(row[part]) for part in _OF_BARRIER}
        for row in barrier.to_dict("records")
    ]


def _rivals(rival: pd.DataFrame, surfaces: Surfaces) -> list[dict[str, Any]]:
    return [
        {"method": row["method"], "split": row["split"], "n": int(row["n"])}
        | {name: _number(row[name]) for name in _RIVAL}
        for row in rival.to_dict("records")
        if not is_named_twice(row["method"], surfaces)
    ]


def _ensembles(
    name: str, ensemble: pd.DataFrame, surfaces: Surfaces, members: Members
) -> list[dict[str, Any]]:
    """Return the rows of `ensemble` on test with networks of one surface or its corners alone.

    Corners that a fit moves are others on each surface: then the table has those of one.
    """
    corner_set, kind = surfaces[name]["corners"], surfaces[name]["kind"]
    reference = reference_surfaces(surfaces)[corner_set]
    corners = corner_ensembles(surfaces)[corner_set] if kind != "free" or name == reference else ""
    # Their places are those of the surface that they were evaluated with.
    places = shape_of(surfaces[reference]).corner_coordinates
    are = _CORNER.get(kind, _AS_TRAINED)
    test = ensemble[(ensemble["split"] == "test") & ensemble["ensemble"].isin((name, corners))]
    count, found = members.corners, []
    for row in test.to_dict("records"):
        is_own = row["ensemble"] != name
        size = int(row["forward_passes"])
        named = [tuple(map(float, one.split(","))) for one in row["members"].split(";")]
        found.append(
            {
                "label": _ensemble_label(row["selection"], size, count, are if is_own else ""),
                "isCorners": is_own and size == count,
                "members": [_nearest(places, at) if is_own else members.point(at) for at in named],
                **{metric: _number(row[metric]) for metric in ("accuracy", "nll", "ece")},
            }
        )
    return found


def _ensemble_label(selection: str, size: int, count: int, corners: str) -> str:
    """Return what the page calls an ensemble of the table, empty if it offers none by name.

    `corners`: what those are of which it is made, empty for points.
    """
    if corners:
        return f"the {number(count)} corners, {corners}" if selection == "fixed" else ""
    if selection == "validation":
        return f"{number(count)} points picked on val" if size == count else ""
    return {
        "fixed": f"{number(size)} points fixed in advance",
        "all": f"all {size} points",
        "oracle": f"oracle: {number(size)} points picked on test",
    }[selection]


def predictions_of(
    surface: Mapping[str, Any],
    shape: Shape,
    cached: Cached,
    limit: int,
) -> tuple[Packed | None, dict[str, Any]]:
    """Pack the networks of one surface, and hold their ensembles against those of the table.

    Args:
        surface: what `describe_replicate` returned of it.
        shape: of the surface.
        cached: its logits on test.
        limit: bytes that they may take.

    Returns:
        The networks, and for how many rows of `ensemble` accuracy, nll and ece differ by how much.
    """
    members = Members(shape, [tuple(point) for point in surface["points"]])
    place = {members.point(at): k for k, at in enumerate(cached.points)}

    def logits(network: int) -> NDArray[Any]:
        is_own = network < members.corners
        found: NDArray[Any] = cached.own[network] if is_own else cached.logits[place[network]]
        return found

    few = [one["members"] for one in surface["ensembles"] if len(one["members"]) <= _NAMED]
    marked = [members.corners + mark["point"] for mark in surface["marks"] if "point" in mark]
    choices = [
        [network for network in choice if np.isfinite(logits(network)).all()]
        for choice in members.choices({*marked, *chain.from_iterable(few)})
    ]
    few_images = len(cached.labels) < _MANY_IMAGES
    for steps in STEPS[few_images:]:
        packed = pack(logits, cached.labels, choices, steps, limit)
        errors = _errors(packed, surface["ensembles"]) if packed else {"rows": 0}
        if errors.get("accuracy", 0.0) < _ENOUGH:
            break
    return packed, errors


def _errors(packed: Packed, ensembles: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return by how much the ensembles of the table are missed, and how many can be made."""
    made = [one for one in ensembles if packed.streams.keys() >= {*one["members"]}]
    errors = pd.DataFrame(packed.evaluate(one["members"]) for one in made)
    errors = (errors - pd.DataFrame(made)[errors.columns]).abs().max()
    return {"rows": len(made), **{name: _number(value) or 0.0 for name, value in errors.items()}}


def _places(rows: pd.DataFrame, shape: Shape) -> NDArray[np.float64]:
    places: NDArray[np.float64] = rows[list(shape.axes)].to_numpy(float)
    return places


def _nearest(points: Sequence[Point], at: Sequence[float]) -> int:
    distances = [math.dist(point, at) for point in points]
    return distances.index(min(distances))


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    """Return a number with few digits, None for what JSON has no word for."""
    if not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")
