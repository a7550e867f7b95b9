"""Find, measure and use low-loss surfaces between trained neural networks."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fourfold.combination.alignment import align
    from fourfold.combination.ensemble import evaluate_ensemble, greedy_ensemble
    from fourfold.combination.merge import average_states, greedy_soup
    from fourfold.combination.selection import select_corners
    from fourfold.errors import DivergenceError, FourfoldError, InputError
    from fourfold.evaluation.batchnorm import reestimate_batchnorm
    from fourfold.evaluation.certificate import certificate, measure_certificates
    from fourfold.evaluation.geometry import measure_barriers, measure_distances
    from fourfold.evaluation.grid import evaluate_grid, evaluate_points, predict
    from fourfold.evaluation.metrics import (
        average_predictions,
        classification_metrics,
        disagreement,
    )
    from fourfold.evaluation.plane import evaluate_plane, plane
    from fourfold.surfaces.checkpoint import load_checkpoint, save_checkpoint
    from fourfold.surfaces.points import grid_points
    from fourfold.surfaces.shapes import Shape, make_shape
    from fourfold.surfaces.surface import BezierSurface, Surface
    from fourfold.training.fit import fit
    from fourfold.training.snapshots import Snapshots
    from fourfold.training.train import train
    from fourfold.zoo.export import export_surface
    from fourfold.zoo.load import load_network, load_surface

_MODULES = {
    "combination.alignment": ["align"],
    "evaluation.batchnorm": ["reestimate_batchnorm"],
    "surfaces.checkpoint": ["load_checkpoint", "save_checkpoint"],
    "combination.ensemble": ["evaluate_ensemble", "greedy_ensemble"],
    "errors": ["DivergenceError", "FourfoldError", "InputError"],
    "training.fit": ["fit"],
    "evaluation.certificate": ["certificate", "measure_certificates"],
    "evaluation.geometry": ["measure_barriers", "measure_distances"],
    "evaluation.grid": ["evaluate_grid", "evaluate_points", "predict"],
    "combination.merge": ["average_states", "greedy_soup"],
    "evaluation.metrics": ["average_predictions", "classification_metrics", "disagreement"],
    "evaluation.plane": ["evaluate_plane", "plane"],
    "training.snapshots": ["Snapshots"],
    "surfaces.points": ["grid_points"],
    "surfaces.shapes": ["Shape", "make_shape"],
    "surfaces.surface": ["BezierSurface", "Surface"],
    "training.train": ["train"],
    "combination.selection": ["select_corners"],
    "zoo.export": ["export_surface"],
    "zoo.load": ["load_network", "load_surface"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BezierSurface",
    "DivergenceError",
    "FourfoldError",
    "InputError",
    "Shape",
    "Snapshots",
    "Surface",
    "align",
    "average_predictions",
    "average_states",
    "certificate",
    "classification_metrics",
    "disagreement",
    "evaluate_ensemble",
    "evaluate_grid",
    "evaluate_plane",
    "evaluate_points",
    "export_surface",
    "fit",
    "greedy_ensemble",
    "greedy_soup",
    "grid_points",
    "load_checkpoint",
    "load_network",
    "load_surface",
    "make_shape",
    "measure_barriers",
    "measure_certificates",
    "measure_distances",
    "plane",
    "predict",
    "reestimate_batchnorm",
    "save_checkpoint",
    "select_corners",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that commands without networks start without torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'fourfold' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fourfold.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]
