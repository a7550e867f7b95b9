"""Apply the formulas of docs/scaling.md, and rebuild the tables in it.

    python docs/scaling.py

What a run needs follows from params.yaml; it is compared with what the tables in docs/results and
docs/measured/scaling.json (from `benchmarks/scaling.py`) say was needed.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from blocks import replace_block
from results import published_folders, replicate_folders
from torch import nn

from fourfold.evaluation.batchnorm import batchnorm_layers
from fourfold.files.atomic import write_text
from fourfold.files.table import read_table
from fourfold.networks import build_model
from fourfold.networks._torchvision import import_torchvision
from fourfold.pipeline.cost import flop_per_image
from fourfold.pipeline.params import read_params, resolve
from fourfold.report.summary import markdown_table

ROOT = Path(__file__).parent.parent
PAGE, MEASURED = ROOT / "docs" / "scaling.md", ROOT / "docs" / "measured" / "scaling.json"
ASSUMED_FLOPS = 100e12  # per second, for the column of hours
CORNERS = 4  # of a surface
FLOAT32 = 4  # bytes
SPLITS, METRICS = 3, 2  # of each, the search's worst point of edges and of random ones
EXAMPLE = FLOAT32 + 1  # bytes that the nll of an image and whether it was right take

Experiment = Mapping[str, Any]  # resolved


@dataclass(frozen=True)
class Images:
    """Published sizes of a data set; `test` is 0 where none is published."""

    train: int
    test: int
    shape: tuple[int, int, int]
    classes: int


_CIFAR10 = Images(50_000, 10_000, (3, 32, 32), 10)
_CIFAR100 = Images(50_000, 10_000, (3, 32, 32), 100)
_TINY_IMAGENET = Images(100_000, 10_000, (3, 64, 64), 200)
IMAGES = {
    "digits": Images(1_797, 0, (1, 8, 8), 10),
    "cifar10": _CIFAR10,
    "cifar10-parquet": _CIFAR10,
    "cifar10-small": _CIFAR10,
    "cifar100": _CIFAR100,
    "cifar100-small": _CIFAR100,
    "tiny-imagenet": _TINY_IMAGENET,
    "tiny-imagenet-small": _TINY_IMAGENET,
}


# --- the formulas ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """D, the number of parameters, and F, the FLOP of one image's forward pass."""

    parameters: int
    flop: int
    has_batchnorm: bool

    @classmethod
    def of(cls, model: nn.Module, shape: tuple[int, int, int]) -> "Network":
        """Measure a module, which may be on the meta device."""
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return cls(parameters, flop_per_image(model, shape), bool(batchnorm_layers(model)))


@dataclass(frozen=True)
class Sizes:
    """Images in each split."""

    train: int
    val: int
    test: int

    @classmethod
    def of(cls, split: Mapping[str, Any], images: Images) -> "Sizes":
        """Resolve the nulls in `datasets.<name>.split`."""
        test = images.test if split["test_images"] is None else split["test_images"]
        left = images.train - split["val_images"] - (0 if images.test else test)
        train = left if split["train_images"] is None else split["train_images"]
        return cls(train, split["val_images"], test)


@dataclass(frozen=True)
class Evaluated:
    """Points of one surface that are evaluated, and images at each of them.

    Attributes:
        lattice: points of the grid.
        searched: points along the edges that are not on the grid, and random ones.
        again: the worst of these, evaluated once more on all images; at most so many.
        images: train, val and test at a point.
        searched_images: of these, the ones that the search takes.
        batchnorm_images: that re-estimate the statistics of a point.
        has_own: whether corners are evaluated with their own statistics as well.
    """

    lattice: int
    searched: int
    again: int
    images: int
    searched_images: int
    batchnorm_images: int
    has_own: bool

    @classmethod
    def of(cls, experiment: Experiment, network: Network, sizes: Sizes) -> "Evaluated":
        """Read the section `grid`."""
        grid = experiment["grid"]
        splits = (min(grid["train_images"], sizes.train), sizes.val, sizes.test)
        few = [min(n, grid["search_images"] or n) for n in splits]
        steps, along = grid["points"] - 1, grid["edge_points"] - 1
        # Of the `along` steps of an edge every gcd-th ends on the grid.
        edge = 4 * (along - math.gcd(along, steps)) if grid["edge_points"] else 0
        samples = bool(edge) + bool(grid["random_points"])
        is_reestimated = network.has_batchnorm and grid["batchnorm"] == "reestimated"
        return cls(
            lattice=grid["points"] ** 2,
            searched=edge + grid["random_points"],
            again=0 if sum(few) == sum(splits) else SPLITS * METRICS * samples,
            images=sum(splits),
            searched_images=sum(few),
            batchnorm_images=min(grid["batchnorm_images"], sizes.train) if is_reestimated else 0,
            has_own=network.has_batchnorm,
        )

    @property
    def whole(self) -> int:
        """Networks evaluated on all images: points, and corners with their own statistics."""
        searched = 0 if self.again else self.searched
        return self.lattice + CORNERS + searched + self.again

    def passed(self, again: int | None = None) -> int:
        """Return the images passed through the networks of one surface."""
        again = self.again if again is None else again
        points = self.lattice + self.searched + again
        count = points * self.batchnorm_images + (self.lattice + again) * self.images
        count += self.searched * self.searched_images
        return count + (CORNERS * self.images if self.has_own else 0)


def stage_flop(
    experiment: Experiment, network: Network, sizes: Sizes, again: Sequence[int] | None = None
) -> dict[str, float]:
    """Return the FLOP of the stages that do nearly all work, by the name of their command.

    `again` says how many points of each surface a finished run evaluated once more; without it, the
    largest possible number.
    """
    training = experiment["training"]

    def trained(epochs: int, batch_size: int) -> int:
        return epochs * (sizes.train // batch_size) * batch_size

    saved = len(training["keep"]) + 1
    run = training["epochs"] * sizes.val + saved * (sizes.train + sizes.val + sizes.test)
    run += 3 * trained(training["epochs"], training["batch_size"])
    evaluated, count = Evaluated.of(experiment, network, sizes), len(experiment["surfaces"])
    images = {
        "train_endpoint": runs_of(experiment) * run,
        "fit_bezier_surface": sum(
            3 * trained(fit["boundary_epochs"] + fit["epochs"], fit["batch_size"])
            for _, fit in fits_of(experiment)
        ),
        "evaluate_grid": sum(evaluated.passed(points) for points in again or [None] * count),
    }
    return {stage: float(network.flop * count) for stage, count in images.items()}


def fit_numbers(control_points: int, points: int, moments: int = 1) -> int:
    """Return how many vectors of D numbers a fit keeps: P, moments, points, gradients, a model."""
    return control_points + moments * (control_points - CORNERS) + 2 * points + 1


def step_traffic(control_points: int, points: int) -> int:
    """Return how many vectors of D numbers a step with momentum moves beyond its bare passes.

    theta: read P, write the points. Gradients: set to zero, add to, decay with the points, read.
    Momentum and free control points: read and write each.
    """
    gradients = points * (1 + 3 + 3 + 1)
    return control_points + points + gradients + 4 * (control_points - CORNERS)


def control_points_of(surface: Mapping[str, Any]) -> int:
    """Return K."""
    n, m = surface["degree"]
    return (n + 1) * (m + 1)


def moments_of(fit: Mapping[str, Any]) -> int:
    """Return how many numbers the optimizer keeps for each free one."""
    return 2 if fit["optimizer"]["name"] == "adamw" else 1


def runs_of(experiment: Experiment) -> int:
    """Return how many networks are trained: corners chosen from a run take the first one's."""
    corners = experiment["corners"].values()
    return max(one["count"] if one["kind"] == "seeds" else 1 for one in corners)


def fits_of(experiment: Experiment) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return the fitted surfaces, each with the settings of its fit."""
    fitted = [one for one in experiment["surfaces"].values() if one["fit"] is not None]
    return [(surface, experiment["fits"][surface["fit"]]) for surface in fitted]


def fit_vectors(experiment: Experiment) -> int:
    """Return how many vectors of D numbers the largest fit keeps, 0 if there is none."""
    return max(
        (
            fit_numbers(control_points_of(surface), fit["points_per_step"], moments_of(fit))
            for surface, fit in fits_of(experiment)
        ),
        default=0,
    )


# --- tables of the page ---------------------------------------------------------------------------


def networks(params: Mapping[str, Any]) -> Iterator[tuple[str, Experiment, Network, Sizes]]:
    """Yield each experiment with its network and split sizes."""
    cache: dict[str, Network] = {}
    for name, experiment in resolve(params).items():
        images = IMAGES[experiment["dataset"]]
        key = json.dumps([experiment["network"], images.shape, images.classes])
        if key not in cache:
            channels, size, _ = images.shape
            with torch.device("meta"):
                model = build_model(
                    **experiment["network"],
                    channels=channels,
                    image_size=size,
                    classes=images.classes,
                )
            cache[key] = Network.of(model, images.shape)
        split = params["datasets"][experiment["dataset"]]["split"]
        yield name, experiment, cache[key], Sizes.of(split, images)


def render_experiments(params: Mapping[str, Any]) -> str:
    """What each experiment of params.yaml needs."""
    head = ["experiment", "D (M)", "F (GFLOP)", "corners (PFLOP)", "fit", "grids", "at 100 TFLOP/s"]
    head += ["fit keeps (GB)", "images (MB)", "files (GB)"]
    body = []
    for name, experiment, network, sizes in networks(params):
        flop = stage_flop(experiment, network, sizes)
        images = IMAGES[experiment["dataset"]]
        channels, height, width = images.shape
        surfaces = experiment["surfaces"].values()
        # Checkpoints, and control points.
        vectors = runs_of(experiment) * (len(experiment["training"]["keep"]) + 1)
        vectors += sum(map(control_points_of, surfaces))
        evaluated = Evaluated.of(experiment, network, sizes)
        logits = 2 * (evaluated.lattice + CORNERS) * images.classes * (sizes.val + sizes.test)
        examples = EXAMPLE * evaluated.whole * evaluated.images
        files = FLOAT32 * network.parameters * vectors + len(surfaces) * (logits + examples)
        minutes = sum(flop.values()) / ASSUMED_FLOPS / 60
        body.append(
            [
                name,
                f"{network.parameters / 1e6:.2f}",
                f"{network.flop / 1e9:.3g}",
                *(f"{value / 1e15:.3g}" for value in flop.values()),
                f"{minutes:.1f} min" if minutes >= 0.1 else f"{60 * minutes:.2g} s",
                f"{FLOAT32 * network.parameters * fit_vectors(experiment) / 1e9:.2f}",
                f"{(sizes.train + sizes.val + sizes.test) * channels * height * width / 1e6:.0f}",
                f"{files / 1e9:.2f}",
            ]
        )
    return markdown_table(head, body)


def render_flop_check(params: Mapping[str, Any], results: Path) -> str:
    """Predicted FLOP against the `cost` tables of the published experiments."""
    head = ["experiment", "stage", "predicted (TFLOP)", "counted (TFLOP)", "ratio", "of all FLOP"]
    published, body = published_folders(results), []
    for name, experiment, network, sizes in networks(params):
        if name not in published:
            continue
        folders = replicate_folders(published[name])
        cost = read_table("cost", *(folder / "cost.parquet" for folder in folders))
        counted = cost.groupby("stage")["flop"].sum() / len(folders)
        for stage, flop in stage_flop(experiment, network, sizes).items():
            body.append(
                [
                    name,
                    stage,
                    f"{flop / 1e12:.3f}",
                    f"{counted[stage] / 1e12:.3f}",
                    f"{flop / counted[stage]:.4f}",
                    f"{100 * counted[stage] / counted.sum():.1f} %",
                ]
            )
    return markdown_table(head, body)


def resnet18_parameters(width: int) -> int:
    """Return D of the benchmark's network."""
    with torch.device("meta"):
        model = build_model("resnet18", channels=3, image_size=32, classes=10, width=width)
    return sum(parameter.numel() for parameter in model.parameters())


def render_memory(measured: Mapping[str, Any]) -> str:
    """Predicted memory of a fit beyond plain training, against measured peaks."""
    head = ["width", "D (M)", "K", "c", "predicted (MB)", "measured (MB)", "measured / predicted"]
    body = []
    for row in measured["memory"]:
        d = resnet18_parameters(row["width"])
        plain = 3  # parameters, gradient, momentum
        vectors = fit_numbers(row["control_points"], row["points"]) - plain
        predicted = FLOAT32 * d * vectors
        beyond = row["fit_bytes"] - row["plain_bytes"]
        body.append(
            [
                str(row["width"]),
                f"{d / 1e6:.2f}",
                str(row["control_points"]),
                str(row["points"]),
                f"{predicted / 1e6:.0f}",
                f"{beyond / 1e6:.0f}",
                f"{beyond / predicted:.2f}",
            ]
        )
    return markdown_table(head, body)


def render_time(measured: Mapping[str, Any]) -> str:
    """Predicted time of a step beyond its passes, against the measured one."""
    head = ["width", "D (M)", "K", "c", "passes (ms)", "step (ms)", "beyond, predicted"]
    head += ["beyond, measured", "measured / predicted"]
    body = []
    for row in measured["step"]:
        d = resnet18_parameters(row["width"])
        traffic = step_traffic(row["control_points"], row["points"])
        predicted = FLOAT32 * d * traffic / measured["bandwidth"]
        body.append(
            [
                str(row["width"]),
                f"{d / 1e6:.2f}",
                str(row["control_points"]),
                str(row["points"]),
                *(f"{1e3 * row[key]:.1f}" for key in ("passes_s", "step_s")),
                f"{1e3 * predicted:.1f}",
                f"{1e3 * row['beyond_s']:.1f}",
                f"{row['beyond_s'] / predicted:.2f}",
            ]
        )
    return markdown_table(head, body)


def render_grid_point(measured: Mapping[str, Any]) -> str:
    """Time of a grid point predicted from the largest one, in proportion to the images."""
    rows = measured["grid_point"]
    per_image = rows[-1]["point_s"] / rows[-1]["images"]
    head = ["width", "images", "predicted (ms)", "measured (ms)", "measured / predicted"]
    body = [
        [
            str(row["width"]),
            str(row["images"]),
            f"{1e3 * per_image * row['images']:.0f}",
            f"{1e3 * row['point_s']:.0f}",
            f"{row['point_s'] / (per_image * row['images']):.2f}",
        ]
        for row in rows
    ]
    return markdown_table(head, body)


def render_large_networks() -> str:
    """What ImageNet asks for."""
    models = import_torchvision("models")
    head = ["network", "D (M)", "F (GFLOP)", "one epoch (PFLOP)", "fit, SGD, 3x3 (GB)"]
    head += ["fit, AdamW, 3x3 (GB)", "a checkpoint (MB)", "logits of 11 x 11 points (GB)"]
    train, evaluated, classes = 1_281_167, 50_000, 1_000
    body = []
    for label, name in (("ResNet50", "resnet50"), ("ViT-B/16", "vit_b_16")):
        with torch.device("meta"):
            network = Network.of(getattr(models, name)(), (3, 224, 224))
        vector = FLOAT32 * network.parameters
        body.append(
            [
                label,
                f"{network.parameters / 1e6:.1f}",
                f"{network.flop / 1e9:.1f}",
                f"{3 * network.flop * train / 1e15:.0f}",
                *(f"{vector * fit_numbers(9, 4, moments) / 1e9:.1f}" for moments in (1, 2)),
                f"{vector / 1e6:.0f}",
                f"{2 * 11**2 * evaluated * classes / 1e9:.1f}",
            ]
        )
    return markdown_table(head, body)


def render_machine(measured: Mapping[str, Any]) -> str:
    """What the measurements were made on."""
    machine = measured["machine"]
    return (
        f"Measured on {machine['device']}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['threads']} threads, torch {machine['torch']}; a sum of two large tensors moves "
        f"{measured['bandwidth'] / 1e9:.1f} GB/s. ResNet18 with the 3x3 stem, 32x32 images, "
        f"{measured['batch']} a step."
    )


def build_page(text: str, params: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Return docs/scaling.md with all its tables made anew."""
    blocks = {
        "machine": render_machine(measured),
        "memory": render_memory(measured),
        "time": render_time(measured),
        "grid-point": render_grid_point(measured),
        "flop": render_flop_check(params, ROOT / "docs" / "results"),
        "experiments": render_experiments(params),
        "large-networks": render_large_networks(),
    }
    for name, block in blocks.items():
        text = replace_block(text, name, block)
    return text


def main() -> None:
    """Rewrite the tables of the page."""
    params = read_params(ROOT / "params.yaml")
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    write_text(PAGE, build_page(PAGE.read_text(encoding="utf-8"), params, measured))


if __name__ == "__main__":
    main()
