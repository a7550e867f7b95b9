"""Compare training from a `DataLoader` with training from tensors that lie on the device.

    python benchmarks/loader.py [--quick] [--device cuda] [--threads 2]

One call is an epoch of `train` and of `fit`; the variants take turns in one process.
"""

import argparse
from collections.abc import Callable
from functools import partial
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
from torch.utils.data import DataLoader, TensorDataset

from fourfold.networks import place
from fourfold.training.fit import fit
from fourfold.training.train import train

SETTINGS: dict[str, Any] = {"channels": 3, "image_size": 32, "stem": "3x3", "width": 16}
BATCH, POINTS = 64, 4
TARGET = "at most 1.10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_common_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps, width = (2, 8) if arguments.quick else (10, 16)
    settings = SETTINGS | {"width": width}
    images, labels = make_images(steps * BATCH, channels=3, size=32, device=torch.device("cpu"))
    images = images.contiguous()  # what a loader makes of samples, in whatever format they are
    loader = DataLoader(TensorDataset(images, labels), batch_size=BATCH, shuffle=True)
    resident = images.to(arguments.device), labels.to(arguments.device)
    network = make_network("resnet18", settings, seed=4)
    place(network, arguments.device)
    surface = make_surface("resnet18", settings)

    def train_on(*data: Any, batch_size: int | None = None) -> None:
        train(network, *data, epochs=1, lr=1e-4, seed=0, batch_size=batch_size)

    def fit_on(*data: Any, batch_size: int | None = None) -> None:
        fit(
            surface, network, *data,
            epochs=1, lr=1e-4, seed=0, points_per_step=POINTS, batch_size=batch_size,
        )  # fmt: skip

    print_machine(arguments)
    for name, run in (("train", train_on), ("fit", fit_on)):
        variants: dict[str, Callable[[], object]] = {
            f"{name}, tensors": partial(run, *resident, batch_size=BATCH),
            f"{name}, DataLoader": partial(run, loader),
        }
        seconds = measure_in_turn(variants, arguments.rounds or 7, 1, arguments.device)
        print_times(seconds, per=f"{steps} steps")
        tensors, batches = seconds.values()
        print_ratio(f"{name}: DataLoader / tensors", batches, tensors, TARGET)


if __name__ == "__main__":
    main()
