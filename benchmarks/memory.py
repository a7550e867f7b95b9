"""Measure the memory that docs/scaling.md predicts: peaks of fresh processes.

    python benchmarks/memory.py [--quick] [--threads 2] [--output docs/measured/scaling.json]
    python docs/scaling.py                          # writes them into docs/scaling.md

ResNet18 of three widths on 32x32 images, several numbers of control points K and of points c.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _timing import (
    add_common_arguments,
    make_images,
    make_network,
    make_surface,
    print_machine,
)

from fourfold.files.atomic import write_text
from fourfold.pipeline.cost import describe_device, peak_bytes
from fourfold.pipeline.provenance import hardware
from fourfold.training.fit import SurfaceStep
from fourfold.training.sampling import draw_latin_hypercube

WIDTHS = (16, 32, 64)
BATCH = 32  # images per step; few, so that the control points are a visible part
# (degree along both axes, points per step); K = (degree + 1)^2.
STEPS = ((2, 1), (3, 1), (4, 1), (2, 4))
LR = 1e-6


def settings_of(width: int) -> dict[str, Any]:
    return {"channels": 3, "image_size": 32, "stem": "3x3", "width": width}


def measure_memory(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the peak of plain training and of each fit; call it while this process is small.

    On Linux a process starts with the peak memory of the one that started it.
    """
    rows = []
    for width in arguments.widths:
        plain = peak_of_process(arguments, width, 0, 1)
        for degree, points in STEPS[: 2 if arguments.quick else None]:
            peak = peak_of_process(arguments, width, degree, points)
            rows.append(
                {"width": width, "control_points": (degree + 1) ** 2, "points": points}
                | {"plain_bytes": plain, "fit_bytes": peak}
            )
    for row in rows:  # only now are there networks in this process
        network = make_network("resnet18", settings_of(row["width"]), seed=4)
        row["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    return rows


def peak_of_process(arguments: argparse.Namespace, width: int, degree: int, points: int) -> int:
    command = [sys.executable, __file__, "--peak-of", str(width), str(degree), str(points)]
    command += ["--device", str(arguments.device), "--threads", str(arguments.threads)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def print_peak(width: int, degree: int, points: int, device: torch.device) -> None:
    """Make four steps, of plain training with momentum for degree 0; print the peak in bytes."""
    model = make_network("resnet18", settings_of(width), seed=4)
    images, labels = make_images(BATCH, 3, 32, device)
    if degree:
        surface = make_surface("resnet18", settings_of(width), degree)
        descend = SurfaceStep(surface, model, points, device=device)
        generator = torch.Generator().manual_seed(0)
        for _ in range(4):
            at = draw_latin_hypercube(surface.shape, points, generator)
            descend(at, images, labels, LR)
    else:
        model = model.to(device).train()
        descent = torch.optim.SGD(model.parameters(), LR, momentum=0.9, nesterov=True)
        for _ in range(4):
            model.zero_grad(set_to_none=True)
            F.cross_entropy(model(images), labels).backward()
            descent.step()
    print(peak_bytes(device))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_common_arguments(parser)
    parser.add_argument("--output", type=Path, help="file for the measurements (JSON)")
    parser.add_argument("--peak-of", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        width, degree, points = arguments.peak_of
        print_peak(width, degree, points, arguments.device)
        return
    arguments.widths = (8,) if arguments.quick else WIDTHS
    print_machine(arguments)
    device = {"device": describe_device(arguments.device), "threads": arguments.threads}
    measured = {
        "machine": hardware() | device | {"torch": torch.__version__},
        "batch": BATCH,
        "memory": measure_memory(arguments),
    }
    text = json.dumps(measured, indent=1) + "\n"
    print(text, end="")
    if arguments.output:
        write_text(arguments.output, text)


if __name__ == "__main__":
    main()
