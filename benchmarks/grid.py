"""Compare a grid point of `evaluate_points` with the bare forward passes of its images.

    python benchmarks/grid.py [--quick] [--device cuda] [--threads 2]

A grid point forms the network at (u, v), re-estimates its BatchNorm statistics on some images and
evaluates it on others. Bare: a network as it is forwards the first images in training mode (if it
has BatchNorm) and the second ones in evaluation mode, in batches of the same size, and nothing is
done with the logits. The two take turns; the ratio is the median of the rounds' own ratios.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from _timing import (
    add_common_arguments,
    make_images,
    make_network,
    make_surface,
    measure_in_turn,
    print_machine,
    print_ratio,
    print_times,
)

from fourfold.data.batches import iterate_batches
from fourfold.evaluation.grid import evaluate_points
from fourfold.surfaces.modules import batchnorm_layers

BATCH = 512  # images per forward pass, the default of `evaluate_points`
TARGET = "at most 1.15"


@dataclass(frozen=True)
class Case:
    """A network, the images that re-estimate and evaluate it, and points along an axis."""

    label: str
    name: str
    settings: Mapping[str, Any]
    batchnorm_images: int
    images: int
    points: int
    rounds: int


_RGB = {"channels": 3, "image_size": 32}
_DIGITS = {"channels": 1, "image_size": 8}
CASES = [
    Case("ResNet18, 32x32", "resnet18", _RGB, batchnorm_images=256, images=256, points=2, rounds=5),
    Case(
        "ResNet18 of width 16, 8x8", "resnet18", {**_DIGITS, "width": 16},
        batchnorm_images=1200, images=800, points=5, rounds=9,
    ),
    Case(
        "VGG16 of width 8, 8x8", "vgg16", {**_DIGITS, "width": 8},
        batchnorm_images=1200, images=800, points=5, rounds=9,
    ),
    Case(
        "ViT of 4 layers, 8x8", "vit",
        {**_DIGITS, "layers": 4, "heads": 4, "hidden": 64, "mlp": 128, "patch_size": 2},
        batchnorm_images=1200, images=800, points=5, rounds=9,
    ),
]  # fmt: skip


def bare_passes(case: Case, device: torch.device) -> Callable[[], object]:
    model = make_network(case.name, case.settings, seed=4).to(device)
    channels, size = case.settings["channels"], case.settings["image_size"]
    first, _ = make_images(case.batchnorm_images, channels, size, device)
    second, _ = make_images(case.images, channels, size, device)
    has_batchnorm = bool(batchnorm_layers(model))

    @torch.inference_mode()
    def run() -> None:
        for _ in range(case.points**2):
            if has_batchnorm:
                model.train()
                for batch in iterate_batches(len(first), BATCH):
                    model(first[batch])
            model.eval()
            for batch in iterate_batches(len(second), BATCH):
                model(second[batch])

    return run


def evaluation(case: Case, device: torch.device) -> Callable[[], object]:
    model = make_network(case.name, case.settings, seed=4)
    surface = make_surface(case.name, case.settings)
    channels, size = case.settings["channels"], case.settings["image_size"]
    first, _ = make_images(case.batchnorm_images, channels, size, device)
    splits = {"val": make_images(case.images, channels, size, device)}
    # Inside the square: corners are evaluated a second time, with their own statistics.
    axis = [(i + 0.5) / case.points for i in range(case.points)]
    points = [(u, v) for u in axis for v in axis]

    def run() -> None:
        evaluate_points(surface, model, splits, points, batchnorm_images=first, batch_size=BATCH)

    return run


def compare(case: Case, device: torch.device) -> None:
    variants = {"bare forward passes": bare_passes, "grid point": evaluation}
    runs = {name: make(case, device) for name, make in variants.items()}
    seconds = {
        name: [value / case.points**2 for value in values]
        for name, values in measure_in_turn(runs, case.rounds, warmup=1, device=device).items()
    }
    print_times(seconds, per="point")
    bare, point = seconds.values()
    print_ratio("grid point / bare forward passes", point, bare, TARGET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_common_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print_machine(arguments)
    for case in CASES:
        if arguments.quick:
            case = _quick(case)
        if arguments.rounds:
            case = replace(case, rounds=arguments.rounds)
        print(f"{case.label}, {case.batchnorm_images} + {case.images} images")
        compare(case, arguments.device)


def _quick(case: Case) -> Case:
    width = {} if case.name == "vit" else {"width": 2}
    return replace(
        case,
        settings={**case.settings, **width},
        batchnorm_images=16,
        images=16,
        points=2,
        rounds=2,
    )


if __name__ == "__main__":
    main()
