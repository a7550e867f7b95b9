"""Compare one step of `fit` with one step of `train`, and with a dictionary of control points.

    python benchmarks/step.py [--quick] [--device cuda] [--threads 2]

Time: the variants take turns in one process; a ratio is the median of the rounds' own ratios.
Memory: plain training and the surface run in fresh processes, and their peaks are subtracted.
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from _timing import (
    add_common_arguments,
    make_images,
    make_network,
    make_surface,
    measure_in_turn,
    print_machine,
    print_ratio,
    print_times,
    verdict,
)
from torch import Tensor, nn
from torch.func import functional_call

from fourfold.fitting import SAMPLERS, SurfaceStep
from fourfold.surface import BezierSurface

LR = 1e-4  # small: the labels are random
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
CONTROL_POINTS = 9  # K, of degree (2, 2)


@dataclass(frozen=True)
class Case:
    """A ResNet18, a batch of 32x32 images, and what the surface's step may cost there."""

    stem: str
    batch: int
    rounds: int
    target: str  # for surface / plain training
    dictionary_target: str = ""  # for dictionary / surface
    width: int = 64

    @property
    def settings(self) -> dict[str, int | str]:
        """What `build_model` takes."""
        return {"channels": 3, "image_size": 32, "stem": self.stem, "width": self.width}


CASES = {
    "3x3": Case("3x3", batch=64, rounds=11, target="at most 1.10"),
    "imagenet": Case(
        "imagenet", batch=128, rounds=21, target="at most 1.45", dictionary_target="at least 4"
    ),
}


# --- the variants ---------------------------------------------------------------------------------


def plain_step(model: nn.Module, inputs: Tensor, labels: Tensor) -> Callable[[], object]:
    """One step of plain training, as `fourfold.training.train` does it."""
    model.train()
    descent = torch.optim.SGD(
        model.parameters(), LR, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
    )

    def step() -> None:
        loss = F.cross_entropy(model(inputs), labels)
        descent.zero_grad(set_to_none=True)
        loss.backward()
        descent.step()

    return step


def surface_step(
    surface: BezierSurface, model: nn.Module, inputs: Tensor, labels: Tensor
) -> Callable[[], object]:
    """One step of `fourfold.fitting.fit` at one point, the drawing of the point included."""
    descend = SurfaceStep(
        surface, model, 1, device=inputs.device, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    draw, generator = SAMPLERS["latin-hypercube"], torch.Generator().manual_seed(0)

    def step() -> None:
        u, v = draw(1, generator)
        descend(u, v, inputs, labels, LR)

    return step


def dictionary_step(
    surface: BezierSurface, model: nn.Module, inputs: Tensor, labels: Tensor
) -> Callable[[], object]:
    """One step of the published procedure, written the straightforward way.

    Each control point is a dictionary of named tensors, the free ones parameters. theta(u, v) is
    the weighted sum of the dictionaries, tensor by tensor under autograd; `functional_call` runs
    the network with it; the backward pass gives every free control point a gradient of its own,
    and `torch.optim.SGD` moves them, with weight decay on the control points.
    """
    model.train()
    control_points = [
        {
            name: nn.Parameter(tensor.to(inputs.device, copy=True), k in surface.free_rows)
            for name, tensor in surface.layout.views(row).items()
        }
        for k, row in enumerate(surface.control_points)
    ]
    free = [tensor for k in surface.free_rows for tensor in control_points[k].values()]
    descent = torch.optim.SGD(free, LR, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        u, v = torch.rand(2, 1, generator=generator, dtype=torch.float64)
        weights = surface.weights(u, v)[0].tolist()
        theta = {
            name: sum(w * point[name] for w, point in zip(weights, control_points, strict=True))
            for name in control_points[0]
        }
        loss = F.cross_entropy(functional_call(model, theta, (inputs,)), labels)
        descent.zero_grad(set_to_none=True)
        loss.backward()
        descent.step()

    return step


VARIANTS = {
    "plain training": plain_step,
    "surface": surface_step,
    "dictionary": dictionary_step,
}


def make_step(variant: str, case: Case, device: torch.device) -> Callable[[], object]:
    model = make_network("resnet18", case.settings, seed=4).to(device)
    inputs, labels = make_images(case.batch, channels=3, size=32, device=device)
    if variant == "plain training":
        return plain_step(model, inputs, labels)
    return VARIANTS[variant](make_surface("resnet18", case.settings), model, inputs, labels)


# --- the comparisons ------------------------------------------------------------------------------


def compare_memory(case: Case, arguments: argparse.Namespace) -> None:
    """Print the peaks of fresh processes; to be called while this process is still small.

    On Linux a process starts with the peak of the one that started it.
    """
    peaks = {}
    for variant in ("plain training", "surface"):
        command = [sys.executable, __file__, "--peak-of", variant, "--stem", case.stem]
        command += ["--device", str(arguments.device), "--threads", str(arguments.threads)]
        command += ["--quick"] * arguments.quick
        peaks[variant] = int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(f"  {variant:<15} {peaks[variant] / 1e6:8.0f} MB at most")
    beyond = peaks["surface"] - peaks["plain training"]
    row = 4 * sum(p.numel() for p in make_network("resnet18", case.settings, seed=4).parameters())
    limit = (2 * CONTROL_POINTS + 6) * row
    print(
        f"  difference {beyond / 1e6:.0f} MB = {beyond / row:.1f} networks of 4 D bytes, target at "
        f"most (2K + 6) 4 D = {limit / 1e6:.0f} MB: {verdict(beyond <= limit)}"
    )


def print_peak(variant: str, case: Case, device: torch.device) -> None:
    """Make four steps, and print the peak memory of this process in bytes."""
    step = make_step(variant, case, device)
    for _ in range(4):
        step()
    if device.type == "cuda":
        print(torch.cuda.max_memory_allocated(device))
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(peak if sys.platform == "darwin" else 1024 * peak)  # macOS counts bytes, Linux KiB


def compare_times(case: Case, device: torch.device) -> None:
    steps = {variant: make_step(variant, case, device) for variant in VARIANTS}
    seconds = measure_in_turn(steps, case.rounds, warmup=2, device=device)
    print_times(seconds, per="step")
    plain, surface, dictionary = (seconds[variant] for variant in VARIANTS)
    print_ratio("surface / plain training", surface, plain, case.target)
    print_ratio("dictionary / surface", dictionary, surface, case.dictionary_target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_common_arguments(parser)
    parser.add_argument("--stem", choices=CASES, help="only this case (default: all)")
    parser.add_argument("--peak-of", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases = [CASES[arguments.stem]] if arguments.stem else list(CASES.values())
    if arguments.quick:
        cases = [replace(case, batch=8, width=4, rounds=2) for case in cases]
    if arguments.rounds:
        cases = [replace(case, rounds=arguments.rounds) for case in cases]
    if arguments.peak_of:
        print_peak(arguments.peak_of, cases[0], arguments.device)
        return
    print_machine(arguments)
    for case in cases:
        print(f"peak memory, ResNet18 (stem {case.stem}, width {case.width}), batch {case.batch}")
        compare_memory(case, arguments)
    for case in cases:
        print(f"one step, ResNet18 (stem {case.stem}, width {case.width}), batch {case.batch}")
        compare_times(case, arguments.device)


if __name__ == "__main__":
    main()
