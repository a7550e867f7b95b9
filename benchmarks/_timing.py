"""Timing and printing that the benchmarks share."""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from fourfold.networks import build_model
from fourfold.pipeline.provenance import hardware
from fourfold.surfaces.surface import Surface


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="tiny networks, to see that it runs")
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="on a CPU")
    parser.add_argument("--rounds", type=int, help="turns of each variant (default: by case)")


def print_machine(arguments: argparse.Namespace) -> None:
    device = arguments.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    machine = hardware()
    print(f"machine: {machine['processor']}, {machine['cores']} cores", end=", ")
    print(f"{torch.get_num_threads()} threads")
    print(f"torch {torch.__version__}, device {name}, load average {os.getloadavg()[0]:.2f}")
    if arguments.quick:
        print("quick: the targets are for the full sizes, not for these tiny networks")


def measure_in_turn(
    variants: Mapping[str, Callable[[], object]], rounds: int, warmup: int, device: torch.device
) -> dict[str, list[float]]:
    """Return the seconds of each call, the variants taking turns: A B C A B C ...

    A machine that slows down for a while slows all variants of that round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warmup + rounds):
        for name, variant in variants.items():
            _synchronize(device)
            start = time.perf_counter()
            variant()
            _synchronize(device)
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def print_times(seconds: dict[str, list[float]], per: str) -> None:
    for name, values in seconds.items():
        print(
            f"  {name:<28} {1e3 * statistics.median(values):9.2f} ms per {per}"
            f"  (fastest {1e3 * min(values):.2f}, slowest {1e3 * max(values):.2f})"
        )


def print_ratio(what: str, above: list[float], below: list[float], target: str = "") -> None:
    """Print the median of the rounds' own ratios, their quartiles, and whether the target is met.

    Args:
        what: what is divided by what.
        above: seconds of each round.
        below: seconds of each round.
        target: `at most 1.1`, `at least 4`, or nothing.
    """
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    median = statistics.median(ratios)
    low, _, high = (
        statistics.quantiles(ratios, method="inclusive") if len(ratios) > 1 else (median,) * 3
    )
    line = f"  {what}: {median:.3f} (quartiles {low:.3f} to {high:.3f})"
    if target:
        bound = float(target.split()[-1])
        is_met = median <= bound if target.startswith("at most") else median >= bound
        line += f", target {target}: {verdict(is_met)}"
    print(line)


def verdict(is_met: bool) -> str:
    return "met" if is_met else "NOT MET"


def make_network(name: str, settings: Mapping[str, Any], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(name, classes=10, **settings)


def make_surface(name: str, settings: Mapping[str, Any], degree: int = 2) -> Surface:
    """Return the surface of degree (degree, degree) through four untrained networks."""
    corners = [make_network(name, settings, seed).state_dict() for seed in range(4)]
    return Surface.from_corners(corners, degree=(degree, degree))


def make_images(
    count: int, channels: int, size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random float32 images, channels last as the pipeline feeds them, and labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, channels, size, size, generator=generator)
    labels = torch.randint(10, (count,), generator=generator)
    return images.to(device, memory_format=torch.channels_last), labels.to(device)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
