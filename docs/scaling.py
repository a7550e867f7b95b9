"""Apply the formulas of docs/scaling.md, and rebuild the tables in it.

    python docs/scaling.py

What a run needs follows from params.yaml; it is compared with what the tables in docs/results and
docs/measured/scaling.json (from `benchmarks/scaling.py`) say was needed.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from overview import cells_of
from publish import Published, read_published, read_targets, replace_block

from fourfold.files.atomic import write_text
from fourfold.networks import build_model
from fourfold.pipeline.cost import flop_per_image
from fourfold.pipeline.targets import Targets
from fourfold.report.summary import markdown_table
from fourfold.surfaces.modules import batchnorm_layers
from fourfold.surfaces.shapes import shape_of
from fourfold.training.phases import fit_passes

ROOT = Path(__file__).parent.parent
PAGE, MEASURED = ROOT / "docs" / "scaling.md", ROOT / "docs" / "measured" / "scaling.json"
ASSUMED_FLOPS = 100e12  # per second, for the column of times
CORNERS = 4  # of a surface
FLOAT32 = 4  # bytes
WORST = 3 * 2  # splits, metrics: of each, the search's worst point of edges and of random ones
EXAMPLE = FLOAT32 + 1  # bytes that the nll of an image and whether it was right take

# Published sizes: images in train and test (0: none published), channels, pixels, classes.
IMAGES = {
    "digits": (1_797, 0, 1, 8, 10),
    "cifar10": (50_000, 10_000, 3, 32, 10),
    "cifar100": (50_000, 10_000, 3, 32, 100),
    "tiny-imagenet": (100_000, 10_000, 3, 64, 200),
}


class Case(NamedTuple):
    """An experiment, what it trains, and its images."""

    experiment: Mapping[str, Any]  # resolved
    runs: int
    fits: list[tuple[int, Mapping[str, Any]]]  # control points, settings
    parameters: int  # D
    flop: int  # F, of one image's forward pass
    has_batchnorm: bool
    sizes: tuple[int, int, int]  # images in train, val and test
    image_bytes: int
    classes: int


def case_of(targets: Targets, name: str) -> Case:
    """Return an experiment of params.yaml with its sizes."""
    of, surfaces = targets.experiments[name], targets.experiments[name]["surfaces"].values()
    images = of["dataset"].removesuffix("-parquet").removesuffix("-small")
    train, test, channels, size, classes = IMAGES[images]
    source, split = (targets.params["datasets"][of["dataset"]][key] for key in ("source", "split"))
    size = source.get("size") or size
    tested = test if split["test_images"] is None else split["test_images"]
    left = train - split["val_images"] - (0 if test else tested)
    return Case(
        of,
        len(targets.runs(name, 0)),
        [(control_points(one), of["fits"][one["fit"]]) for one in surfaces if one["fit"]],
        *measure(json.dumps(of["network"]), channels, size, classes),
        (split["train_images"] or left, split["val_images"], tested),
        channels * size**2,
        classes,
    )


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


def control_points(surface: Mapping[str, Any]) -> int:
    """Return K."""
    return len(shape_of(surface).control_point_names)


# --- the formulas ---------------------------------------------------------------------------------


def stage_flop(case: Case, again: Sequence[int] | None = None) -> dict[str, float]:
    """Return the FLOP of the stages that do nearly all work, by the name of their command.

    `again` says how many searched points of each surface a finished run evaluated once more;
    without it, the largest possible number.
    """
    training = case.experiment["training"]

    def trained(epochs: int, batch_size: int) -> int:
        return 3 * epochs * (case.sizes[0] // batch_size) * batch_size

    run = trained(training["epochs"], training["batch_size"]) + training["epochs"] * case.sizes[1]
    run += (len(training["keep"]) + 1) * sum(case.sizes)
    fits = [(fit_passes(fit), fit["batch_size"]) for _, fit in case.fits]
    counts: Sequence[int | None] = again or [None] * len(case.experiment["surfaces"])
    images = {
        "train_endpoint": case.runs * run,
        "fit_bezier_surface": sum(trained(*fit) for fit in fits),
        "evaluate_grid": sum(grid_work(case, count)[0] for count in counts),
    }
    return {stage: float(case.flop * count) for stage, count in images.items()}


def grid_work(case: Case, again: int | None = None) -> tuple[int, int]:
    """Return how many images evaluating one surface passes, and what it keeps, in bytes."""
    grid, sizes = case.experiment["grid"], case.sizes
    splits = (min(grid["train_images"], sizes[0]), *sizes[1:])
    screened = [min(n, grid["search_images"] or n) for n in splits]
    few, whole = sum(screened), sum(splits)
    # Of the `along` steps of an edge every gcd-th ends on the grid.
    steps, along = grid["points"] - 1, grid["edge_points"] - 1
    edge = 4 * (along - math.gcd(along, steps)) if grid["edge_points"] else 0
    lattice, searched = grid["points"] ** 2, edge + grid["random_points"]
    if again is None:
        again = WORST * (bool(edge) + bool(grid["random_points"])) * (few < whole)
    is_reestimated = case.has_batchnorm and grid["batchnorm"] == "reestimated"
    reestimating = min(grid["batchnorm_images"], sizes[0]) * is_reestimated
    images = (lattice + searched + again) * reestimating + (lattice + again) * whole
    images += searched * few + CORNERS * whole * case.has_batchnorm
    images += grid["random_points"] * (splits[1] - screened[1])  # these on all of val
    kept = EXAMPLE * (lattice + CORNERS + (again if few < whole else searched)) * whole
    return images, kept + 2 * (lattice + CORNERS) * case.classes * sum(sizes[1:])


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
    for name in targets.experiments:
        case = case_of(targets, name)
        flop, surfaces = stage_flop(case), case.experiment["surfaces"].values()
        minutes = sum(flop.values()) / ASSUMED_FLOPS / 60
        vectors = [
            fit_numbers(k, fit["points_per_step"], fit["optimizer"]["name"]) for k, fit in case.fits
        ]
        files = case.runs * (len(case.experiment["training"]["keep"]) + 1)
        files = FLOAT32 * case.parameters * (files + sum(map(control_points, surfaces)))
        files += len(surfaces) * grid_work(case)[1]
        cells = [name, f"{case.parameters / 1e6:.2f}", f"{case.flop / 1e9:.3g}"]
        cells += [f"{value / 1e15:.3g}" for value in flop.values()]
        cells += [f"{minutes:.1f} min" if minutes >= 0.1 else f"{60 * minutes:.2g} s"]
        cells += [f"{FLOAT32 * case.parameters * max(vectors, default=0) / 1e9:.2f}"]
        cells += [f"{sum(case.sizes) * case.image_bytes / 1e6:.0f}", f"{files / 1e9:.2f}"]
        body.append(cells)
        whole[name] = sum(flop.values()) / 1e15, files / 1e9
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
        for stage, flop in stage_flop(case_of(targets, name)).items():
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
