"""Which methods are held against each other at equal cost, and their differences."""

from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np
import pandas as pd

from fourfold.combination.baselines import Described, Surfaces
from fourfold.report.claims import BEZIER, surfaces_of_kind

ONE = ("center", "best-point")  # methods of a surface that end in one network
SEVERAL = ("greedy-4", "greedy-9", "greedy-25", "all")  # and in several
_ONE_OF_CORNERS = ("network", "mean", "greedy-soup", "ensemble-1")


def main_surface(surfaces: Surfaces) -> str | None:
    """Return the surface that others are held against, if there is one.

    A fitted square on independent networks. Of several it is one of the most frequent fit, whatever
    its length; of these one that has that very fit, then one on aligned networks, then the first.
    """
    names = surfaces_of_kind(surfaces, BEZIER)
    fits = Counter(_family(surfaces[name]) for name in names)

    def rank(name: str) -> tuple[int, bool, bool]:
        of = surfaces[name]
        return -fits[_family(of)], "fit_of" in of, of["kind"] != "aligned"

    return min(names, key=rank, default=None)


def _family(of: Described) -> str | None:
    """Return the fit that a surface's own differs from in its length alone."""
    return of.get("fit_of", of["fit"])


def is_named_twice(method: str, surfaces: Surfaces) -> bool:
    """Return whether a method is one of aligned corners, which has another name too.

    They compute what the corners do that they come from, if a surface has these or others of the
    same runs; their mean is the center of the surface on them that has no fit, if there is one.
    """
    corners, _, last = method.rpartition("/")
    on_them = [
        one for one in surfaces.values() if (one["kind"], one["corners"]) == ("aligned", corners)
    ]
    if last == "mean":
        return any(one["fit"] is None for one in on_them)
    if not on_them or (last != "network" and not last.startswith("ensemble-")):
        return False
    of = on_them[0]
    return any(
        one["corners"] == of.get("origin")
        or (
            one["kind"] == of.get("origin_kind") == "seeds"
            and one.get("training") == of.get("training")
        )
        for one in surfaces.values()
    )


def pair_differences(differences: pd.DataFrame, surfaces: Surfaces) -> pd.DataFrame:
    """Return rows like those of `rival_difference`, of one method against another.

    There every method is held against one network; the draws are of the same images in all rows, so
    that they tell of any two. Of them these are taken:

    - `main_surface` against the same method of every other surface, and against what every corner
      set gives: one network against one, several against several;
    - a surface whose corners are free against the same method of the first one on them, and against
      one independent network, `<corners>/ensemble-1`.

    Args:
        differences: rows of `rival_difference` of one experiment.
        surfaces: of the experiment.
    """
    found = []
    for (replicate, metric), rows in differences.groupby(["replicate", "metric"], sort=False):
        known = {row.method: (row.difference, np.asarray(row.draws)) for row in rows.itertuples()}
        known[rows["against"].iloc[0]] = (0.0, np.zeros(len(rows["draws"].iloc[0])))
        common = {"replicate": replicate, "split": rows["split"].iloc[0], "metric": metric}
        for method, against in _pairs(known, surfaces):
            (value, draws), (reference, its_draws) = known[method], known[against]
            difference = {"difference": value - reference, "draws": draws - its_draws}
            found.append(common | {"method": method, "against": against} | difference)
    columns = ["replicate", "split", "metric", "method", "against", "difference", "draws"]
    return pd.DataFrame(found, columns=columns)


def _pairs(known: Collection[str], surfaces: Surfaces) -> Iterator[tuple[str, str]]:
    """Yield two methods each, of those that are known."""
    trained = [of for of in surfaces.values() if of["kind"] == "seeds" and "training" not in of]
    alone = next((of["corners"] for of in trained), None)
    free = {name: of["corners"] for name, of in surfaces.items() if of["kind"] == "free"}
    first = {corners: name for name, corners in reversed(free.items())}
    main = main_surface(surfaces)
    for method in (*ONE, *SEVERAL):
        others = [f"{other}/{method}" for other in surfaces if other != main]
        others += [of for of in known if _is_of_corners(of, is_one=method in ONE)]
        yield from _those(known, f"{main}/{method}", others)
        for name, corners in free.items():
            others = [first[corners]] if first[corners] != name else []
            others = [*(f"{other}/{method}" for other in others), f"{alone}/ensemble-1"]
            yield from _those(known, f"{name}/{method}", others)


def _those(known: Collection[str], method: str, others: list[str]) -> Iterator[tuple[str, str]]:
    yield from ((method, other) for other in others if method in known and other in known)


def _is_of_corners(method: str, *, is_one: bool) -> bool:
    last = method.rpartition("/")[2]
    if last in _ONE_OF_CORNERS:
        return is_one
    return last.startswith("ensemble-") and not is_one
