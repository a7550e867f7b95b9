"""Measure what docs/scaling.md predicts: memory and time of a fit's step, time of a grid point.

    python benchmarks/scaling.py [--quick] [--threads 2] [--output docs/measured/scaling.json]
    python docs/scaling.py                          # writes them into docs/scaling.md

ResNet18 of three widths on 32x32 images, several numbers of control points K and of points c.
Memory: peaks of fresh processes. Time: the variants of one network take turns in one process.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _timing import (
    add_common_arguments,
    make_images,
    make_network,
    make_surface,
    measure_in_turn,
    print_machine,
)
from torch import nn

from fourfold.evaluation.grid import evaluate_points
from fourfold.files.atomic import write_text
from fourfold.pipeline.cost import describe_device, peak_bytes
from fourfold.pipeline.provenance import hardware
from fourfold.training.fit import SAMPLERS, SurfaceStep

WIDTHS = (16, 32, 64)
BATCH = 32  # images per step; few, so that the control points are a visible part
# (degree along both axes, points per step); K = (degree + 1)^2.
STEPS = ((2, 1), (3, 1), (4, 1), (2, 4))
GRID_WIDTH, GRID_IMAGES = 32, (128, 256, 512, 1024)  # half of them re-estimate BatchNorm
BANDWIDTH_NUMBERS = 1 << 26  # of each tensor in the sum that measures bandwidth
LR = 1e-6
ROUNDS = 9


def settings_of(width: int) -> dict[str, int | str]:
    return {"channels": 3, "image_size": 32, "stem": "3x3", "width": width}


# --- memory ---------------------------------------------------------------------------------------


def measure_memory(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the peak of plain training and of each fit; call it while this process is small.

    On Linux a process starts with the peak memory of the one that started it.
    """
    rows = []
    for width in arguments.widths:
        plain = peak_of_process(arguments, width, 0, 1)
        for degree, points in STEPS:
            peak = peak_of_process(arguments, width, degree, points)
            rows.append(
                {"width": width, "control_points": (degree + 1) ** 2, "points": points}
                | {"plain_bytes": plain, "fit_bytes": peak}
            )
    return rows


def peak_of_process(arguments: argparse.Namespace, width: int, degree: int, points: int) -> int:
    command = [sys.executable, __file__, "--peak-of", str(width), str(degree), str(points)]
    command += ["--device", str(arguments.device), "--threads", str(arguments.threads)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def print_peak(width: int, degree: int, points: int, device: torch.device) -> None:
    """Make four steps, and print the peak memory of this process in bytes."""
    step = fit_step(width, degree, points, device) if degree else training_step(width, device)
    for _ in range(4):
        step()
    print(peak_bytes(device))


# --- steps ----------------------------------------------------------------------------------------


def new_network(width: int, device: torch.device) -> nn.Module:
    return make_network("resnet18", settings_of(width), seed=4).to(device).train()


def training_step(width: int, device: torch.device) -> Callable[[], object]:
    """Plain training with momentum."""
    model = new_network(width, device)
    passes = bare_passes(model, 1, device)
    descent = torch.optim.SGD(model.parameters(), LR, momentum=0.9, nesterov=True)

    def step() -> None:
        passes()
        descent.step()

    return step


def bare_passes(model: nn.Module, points: int, device: torch.device) -> Callable[[], object]:
    """Forward and backward passes of a step's batch in `points` chunks, and nothing else."""
    images, labels = make_images(BATCH, 3, 32, device)
    chunks = list(zip(images.chunk(points), labels.chunk(points), strict=True))

    def run() -> None:
        for x, y in chunks:
            model.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), y).backward()

    return run


def fit_step(width: int, degree: int, points: int, device: torch.device) -> Callable[[], object]:
    model = make_network("resnet18", settings_of(width), seed=4)
    surface = make_surface("resnet18", settings_of(width), degree)
    descend = SurfaceStep(surface, model, points, device=device)
    images, labels = make_images(BATCH, 3, 32, device)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        u, v = SAMPLERS["latin-hypercube"](points, generator)
        descend(u, v, images, labels, LR)

    return step


def measure_time(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return seconds of each fit's step and of its bare passes."""
    rows = []
    for width in arguments.widths:
        variants: dict[Any, Callable[[], object]] = {
            ("passes", points): bare_passes(
                new_network(width, arguments.device), points, arguments.device
            )
            for points in sorted({points for _, points in STEPS})
        }
        variants |= {step: fit_step(width, *step, arguments.device) for step in STEPS}
        seconds = measure_in_turn(variants, arguments.rounds, warmup=2, device=arguments.device)
        for degree, points in STEPS:
            passes = seconds["passes", points]
            beyond = [
                step - bare for step, bare in zip(seconds[degree, points], passes, strict=True)
            ]
            rows.append(
                {"width": width, "control_points": (degree + 1) ** 2, "points": points}
                | {"passes_s": statistics.median(passes)}
                | {"step_s": statistics.median(seconds[degree, points])}
                | {"beyond_s": statistics.median(beyond)}
            )
    return rows


def measure_bandwidth(arguments: argparse.Namespace) -> float:
    """Return the bytes per second of a sum of two large tensors into a third."""
    numbers = 1 << 16 if arguments.quick else BANDWIDTH_NUMBERS
    a, b, c = (torch.ones(numbers, device=arguments.device) for _ in range(3))
    run = {"sum": lambda: torch.add(a, b, out=c)}
    seconds = measure_in_turn(run, arguments.rounds, warmup=2, device=arguments.device)["sum"]
    return 3 * 4 * numbers / statistics.median(seconds)


# --- a grid point ---------------------------------------------------------------------------------


def measure_grid_point(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return seconds of a grid point by its number of images."""
    width = min(GRID_WIDTH, max(arguments.widths))
    model = make_network("resnet18", settings_of(width), seed=4)
    surface = make_surface("resnet18", settings_of(width))

    def evaluation(images: int) -> Callable[[], object]:
        first, _ = make_images(images // 2, 3, 32, arguments.device)
        splits = {"val": make_images(images - images // 2, 3, 32, arguments.device)}
        return lambda: evaluate_points(
            surface, model, splits, [(0.5, 0.5)], batchnorm_images=first, batch_size=64
        )

    runs = {images: evaluation(images) for images in arguments.grid_images}
    seconds = measure_in_turn(runs, arguments.rounds, warmup=1, device=arguments.device)
    return [
        {"width": width, "images": images, "point_s": statistics.median(values)}
        for images, values in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_common_arguments(parser)
    parser.add_argument("--output", type=Path, help="file for the measurements (JSON)")
    parser.add_argument("--peak-of", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        print_peak(*arguments.peak_of, arguments.device)
        return
    arguments.widths = (4,) if arguments.quick else WIDTHS
    arguments.grid_images = (8, 16) if arguments.quick else GRID_IMAGES
    arguments.rounds = arguments.rounds or (2 if arguments.quick else ROUNDS)
    print_machine(arguments)
    measured = {
        "machine": hardware()
        | {
            "device": describe_device(arguments.device),
            "threads": arguments.threads,
            "torch": torch.__version__,
        },
        "batch": BATCH,
        "memory": measure_memory(arguments),
        "bandwidth": measure_bandwidth(arguments),
        "step": measure_time(arguments),
        "grid_point": measure_grid_point(arguments),
    }
    text = json.dumps(measured, indent=1) + "\n"
    print(text, end="")
    if arguments.output:
        write_text(arguments.output, text)


if __name__ == "__main__":
    main()
