"""Apply the formulas of docs/scaling.md, and rebuild the tables in it.

    python docs/scaling.py

What a run needs follows from params.yaml; it is compared with what the tables in docs/results and
docs/measured/scaling.json (from `benchmarks/memory.py`) say was needed.
"""

import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from findings import Published
from overview import cells_of
from publish import read_published, read_targets, replace_block

from fourfold.files.atomic import write_text
from fourfold.networks import build_model
from fourfold.pipeline.cost import flop_per_image
from fourfold.pipeline.targets import DERIVED, NUMBERED, Targets, split_run
from fourfold.pipeline.work import grid_evaluations, image_sizes, predicted_passes
from fourfold.report.summary import markdown_table
from fourfold.surfaces.modules import batchnorm_layers

ROOT = Path(__file__).parent.parent
PAGE, MEASURED = ROOT / "docs" / "scaling.md", ROOT / "docs" / "measured" / "scaling.json"
ASSUMED_FLOPS = 100e12  # per second, for the column of times
CORNERS = 4  # of a surface
FLOAT32 = 4  # bytes
EXAMPLE = FLOAT32 + 1  # bytes that the nll of an image and whether it was right take

# Channels and classes of the images.
IMAGES = {"digits": (1, 10), "cifar10": (3, 10), "cifar100": (3, 100), "tiny-imagenet": (3, 200)}
STAGES = ("train_endpoint", "train_fork", "fit_bezier_surface", "evaluate_grid")


class Case(NamedTuple):
    """An experiment, and the sizes of its network and images."""

    targets: Targets
    name: str
    parameters: int  # D
    flop: int  # F, of one image's forward pass
    has_batchnorm: bool
    sizes: tuple[int, ...]  # images in train, val and test
    image_bytes: int
    classes: int


def as_published(targets: Targets, name: str, of: Published) -> Targets:
    """Return the targets with an experiment's numbers as they were when it was run."""
    then = copy.copy(targets)
    of_name = targets.experiments[name] | of.environment["settings"]
    then.experiments = {**targets.experiments, name: of_name}
    return then


def shape_of(targets: Targets, name: str) -> tuple[tuple[int, ...], int, int, int]:
    """Return an experiment's images per split, their channels and pixels a side, and classes."""
    dataset = targets.params["datasets"][targets.experiments[name]["dataset"]]
    source = dataset["source"]
    # The same images from Parquet files lie in a folder of their name.
    of = source["train"].partition("/")[0] if source["name"] == "parquet" else source["name"]
    channels, classes = IMAGES[of]
    sizes, side = image_sizes(dataset)
    return sizes, channels, side, classes


def case_of(targets: Targets, name: str) -> Case:
    """Return an experiment of params.yaml with its sizes."""
    of = targets.experiments[name]
    sizes, channels, side, classes = shape_of(targets, name)
    measured = measure(json.dumps(of["network"]), channels, side, classes)
    return Case(targets, name, *measured, sizes, channels * side**2, classes)


@functools.cache
def measure(network: str, channels: int, size: int, classes: int) -> tuple[int, int, bool]:
    """Return D and F of a network (JSON), and whether it has BatchNorm."""
    with torch.device("meta"):
        model = build_model(
            **json.loads(network), channels=channels, image_size=size, classes=classes
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    flop = flop_per_image(model, (channels, size, size))
    return parameters, flop, bool(batchnorm_layers(model))


# --- the formulas ---------------------------------------------------------------------------------


def stage_flop(case: Case, again: Mapping[str, int] = {}) -> dict[str, float]:
    """Return the FLOP of the stages that do nearly all work, by the name of their command.

    `again` says how many searched points of a surface a finished run evaluated once more; without
    it, the largest possible number.
    """
    targets, name, flop = case.targets, case.name, dict.fromkeys(STAGES, 0.0)

    def add(stage: str, count: int = 1, **of: str) -> None:
        passes = predicted_passes(
            stage,
            {"experiment": name, **of},
            targets,
            has_batchnorm=case.has_batchnorm,
            again=again.get(of.get("surface", "")),
        )
        flop[stage] += case.flop * count * passes

    for run in targets.runs(name, 0):
        add("train_endpoint", run=run)
    for corners in targets.corner_sets(name, "fork"):
        add("train_fork", targets.count(name, corners), corners=corners)
    for surface, one in targets.experiments[name]["surfaces"].items():
        add("evaluate_grid", surface=surface)
        if one["fit"]:
            add("fit_bezier_surface", surface=surface)
    return flop


def grid_bytes(case: Case, surface: str) -> int:
    """Return what evaluating a surface keeps: what points do on each image, and logits."""
    shape = case.targets.shape(case.name, surface)
    evaluations = grid_evaluations(shape, case.targets.experiments[case.name]["grid"], case.sizes)
    corners, (lattice, whole) = len(shape.corner_rows), evaluations[0]
    points = corners + sum(count for count, splits in evaluations if splits == whole)
    logits = 2 * (lattice + corners) * case.classes * sum(case.sizes[1:])
    return EXAMPLE * points * sum(whole) + logits


def fit_numbers(control_points: int, points: int, optimizer: str = "sgd") -> int:
    """Return how many vectors of D numbers a fit keeps: P, moments, points, gradients, a model."""
    moments = {"sgd": 1, "adamw": 2}[optimizer]
    return control_points + moments * (control_points - CORNERS) + 2 * points + 1


# --- the page -------------------------------------------------------------------------------------


def render_experiments(targets: Targets) -> str:
    """What each experiment of params.yaml needs."""
    head = ["experiment", "D (M)", "F (GFLOP)", "corners (PFLOP)", "fit", "grids", "at 100 TFLOP/s"]
    head += ["fit keeps (GB)", "images (MB)", "files (GB)"]
    body, whole = [], {}
    for name, of in targets.experiments.items():
        case, surfaces = case_of(targets, name), of["surfaces"]
        runs, forks, fits, grids = stage_flop(case).values()
        flop = runs + forks + fits + grids
        minutes = flop / ASSUMED_FLOPS / 60
        points = {one: len(targets.shape(name, one).control_point_names) for one in surfaces}
        vectors = [
            fit_numbers(points[one], fit["points_per_step"], fit["optimizer"]["name"])
            for one, surface in surfaces.items()
            if (fit := of["fits"].get(surface["fit"]))
        ]
        trainings = [targets.training(name, split_run(run)[0]) for run in targets.runs(name, 0)]
        files = sum(len(one["keep"]) + 1 + (one["ema"] is not None) for one in trainings)
        sets = targets.corner_sets(name, *NUMBERED, *DERIVED)
        files += sum(targets.count(name, one) for one in sets)
        files = FLOAT32 * case.parameters * (files + sum(points.values()))
        files += sum(grid_bytes(case, surface) for surface in surfaces)
        cells = [name, f"{case.parameters / 1e6:.2f}", f"{case.flop / 1e9:.3g}"]
        cells += [f"{value / 1e15:.3g}" for value in (runs + forks, fits, grids)]
        cells += [f"{minutes:.1f} min" if minutes >= 0.1 else f"{60 * minutes:.2g} s"]
        cells += [f"{FLOAT32 * case.parameters * max(vectors, default=0) / 1e9:.2f}"]
        cells += [f"{sum(case.sizes) * case.image_bytes / 1e6:.0f}", f"{files / 1e9:.2f}"]
        body.append(cells)
        whole[name] = flop / 1e15, files / 1e9
    totals = []
    for scale, what in (("cpu", "The nine for two cores"), ("full", "at full size")):
        flop, files = map(sum, zip(*(whole[n] for n in cells_of(targets, scale)), strict=True))
        totals.append(f"{what}: {flop:,.1f} PFLOP and {files:.1f} GB of files")
    return f"{markdown_table(head, body)}\n\n{'; '.join(totals)}."


def render_flop(targets: Targets, published: Mapping[str, Published]) -> str:
    """Predicted FLOP against the `cost` tables of the published experiments."""
    head = ["experiment", "stage", "predicted (TFLOP)", "counted (TFLOP)", "ratio", "of all FLOP"]
    body = []
    for name in (name for name in targets.experiments if name in published):
        counted = published[name].tables["cost"].groupby("stage")["flop"].sum()
        counted /= published[name].environment["replicates"]
        for stage, flop in stage_flop(
            case_of(as_published(targets, name, published[name]), name)
        ).items():
            if not flop:
                continue
            numbers = f"{flop / 1e12:.3f}", f"{counted[stage] / 1e12:.3f}"
            share = f"{100 * counted[stage] / counted.sum():.1f} %"
            body.append([name, stage, *numbers, f"{flop / counted[stage]:.4f}", share])
    return markdown_table(head, body)


def render_memory(measured: Mapping[str, Any]) -> str:
    """Predicted memory of a fit beyond plain training, against measured peaks."""
    head = ["width", "D (M)", "K", "c", "predicted (MB)", "measured (MB)", "measured / predicted"]
    body = []
    plain = 3  # parameters, gradient, momentum
    for row in measured["memory"]:
        width, k, c = row["width"], row["control_points"], row["points"]
        predicted = FLOAT32 * row["parameters"] * (fit_numbers(k, c) - plain)
        beyond = row["fit_bytes"] - row["plain_bytes"]
        found = [f"{predicted / 1e6:.0f}", f"{beyond / 1e6:.0f}", f"{beyond / predicted:.2f}"]
        body.append([str(width), f"{row['parameters'] / 1e6:.2f}", str(k), str(c), *found])
    machine = measured["machine"]
    return markdown_table(head, body) + (
        f"\n\nMeasured on {machine['device']}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['threads']} threads, torch {machine['torch']}. ResNet18 with the 3x3 stem, "
        f"32x32 images, {measured['batch']} a step."
    )


def build_page(text: str, targets: Targets) -> str:
    """Return docs/scaling.md with all its tables made anew."""
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    published = read_published(ROOT / "docs" / "results")
    text = replace_block(text, "memory", render_memory(measured))
    text = replace_block(text, "flop", render_flop(targets, published))
    return replace_block(text, "experiments", render_experiments(targets))


if __name__ == "__main__":
    write_text(PAGE, build_page(PAGE.read_text(encoding="utf-8"), read_targets(ROOT)))
