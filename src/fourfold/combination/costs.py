"""What corners, fits and choices cost, in images, from the `cost` and `grid` tables. No torch."""

import re

import pandas as pd

from fourfold.combination.baselines import Described
from fourfold.surfaces.points import lattice_rows
from fourfold.surfaces.shapes import Shape

ON_VAL = "validation"  # how networks of a run are chosen, else by name


def corner_images(cost: pd.DataFrame, of: Described, networks: int | None = None) -> int:
    """Return the images passed backward for a corner set, as far as it was trained here.

    Args:
        cost: the `cost` table of one replicate.
        of: a surface on the corner set.
        networks: how many of them, the first ones; by default all. One run has trained all of its.
    """
    kind, corners = of.get("origin_kind", of["kind"]), of.get("origin", of["corners"])
    if kind not in ("seeds", "run", "fork"):
        return 0
    count = of["count"] if networks is None else networks
    training = of.get("training")
    name = re.escape(f"{training}-" if training else "") + r"seed\d+"
    is_run = (cost["stage"] == "train_endpoint") & cost["item"].str.fullmatch(name)
    runs = cost.loc[is_run, "images_backward"]
    if kind == "seeds":
        return int(runs.iloc[:count].sum())
    if kind == "run":
        return int(runs.iloc[0])
    if of.get("then"):  # another training than what the first run went on with
        before, first = round(of["at"] * int(runs.iloc[0])), 0
    else:  # before they part and the first one's way on are as much as the first run
        before, first = int(runs.iloc[0]), 1
    others = [f"{corners}-{k}" for k in range(first, count)]
    return before + _images(cost, "train_fork", others, "images_backward")


def fit_images(cost: pd.DataFrame, surface: str) -> int:
    """Return the images passed backward for a surface's own fit."""
    return _images(cost, "fit_bezier_surface", [surface], "images_backward")


def selection_images(cost: pd.DataFrame, of: Described) -> int:
    """Return the images passed forward to choose the networks of a corner set from a run on val.

    The job that lists them evaluates those that were fixed in advance too, for its table.
    """
    if of.get("choose") != ON_VAL:
        return 0
    corners = [of.get("origin", of["corners"])]
    return _images(cost, "select_trajectory_corners", corners, "images_forward")


def picking_images(grid: pd.DataFrame, shape: Shape) -> int:
    """Return the images passed forward to choose points of a surface's grid on val."""
    rows = lattice_rows(grid[grid["split"] == "val"])
    rows = rows[~shape.is_corner(rows)]
    return int((rows["n"] + rows["statistics_images"]).sum())


def _images(cost: pd.DataFrame, stage: str, items: list[str], column: str) -> int:
    return int(cost.loc[(cost["stage"] == stage) & cost["item"].isin(items), column].sum())
