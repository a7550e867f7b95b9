"""Results that were published before corners and fits had names, in the words of now.

Goes when docs/results has been published anew.
"""

from collections.abc import Mapping
from typing import Any

_SURFACES = {
    "linear": {"corners": "independent", "kind": "seeds", "degree": [1, 1], "fit": None},
    "bezier": {"corners": "independent", "kind": "seeds", "degree": [2, 2], "fit": "standard"},
    "trajectory": {"corners": "trajectory", "kind": "run", "degree": [1, 1], "fit": None},
}
STAGES = {"select_trajectory_surface": "select_trajectory_corners"}
SELECTION = "selection.parquet"  # of its one set of corners that are chosen


def renew(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return an environment.json with `surfaces`, and with its settings where they stand now."""
    if "surfaces" in environment:
        return dict(environment)
    then = environment["settings"]
    epochs = then["endpoint"]["epochs"]

    def fractions(of_run: list[int]) -> list[float]:
        return [epoch / epochs for epoch in of_run]

    choose = then["trajectory"]["selection"]
    if choose == "epochs":
        choose = fractions(then["trajectory"]["epochs"])
    training, fit = _with_optimizer(then["endpoint"]), _with_optimizer(then["bezier"])
    training["keep"] = fractions(training.pop("checkpoints"))
    surfaces = {name: {**surface, "shape": "square"} for name, surface in _SURFACES.items()}
    surfaces["bezier"]["degree"] = fit.pop("degree")
    settings = {
        "network": then["model"],
        "augment": then["augment"],
        "training": training,
        "fits": {"standard": fit},
        "corners": {"trajectory": {"kind": "run", "choose": choose}},
        "grid": then["grid"],
        "ensembles": then["ensemble"],
    }
    return {**environment, "settings": settings, "surfaces": surfaces}


def _with_optimizer(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a training run or a fit with the optimizer and its rates as one object."""
    own = "momentum" if section["optimizer"] == "sgd" else "betas"
    optimizer = {"name": section["optimizer"], "lr": section["lr"], own: section[own]}
    moved = ("lr", "momentum", "betas")
    return {k: v for k, v in section.items() if k not in moved} | {"optimizer": optimizer}
