"""Compare one step of `fit` with one step of `train`, and with a dictionary of control points.

    python benchmarks/step.py [--quick] [--device cuda] [--threads 2] [--precision bfloat16]

Time: the variants take turns in one process; a ratio is the median of the rounds' own ratios.
Throughput counts three forward passes' operations for an image (`fourfold.pipeline.cost`).
Memory: plain training and the surface run in fresh processes, and their peaks are subtracted.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
    print_ratio,
    print_times,
    verdict,
)
from torch import Tensor, nn
from torch.func import functional_call

from fourfold.data.augment import RandomShiftFlip
from fourfold.data.batches import Normalize, TensorBatches
from fourfold.evaluation.precision import PRECISIONS, compute_precision
from fourfold.networks import place
from fourfold.pipeline.cost import flop_per_image, peak_bytes
from fourfold.training.cuda_graph import Recorded
from fourfold.training.fit import SurfaceStep
from fourfold.training.loop import Loop
from fourfold.training.sampling import draw_latin_hypercube

LR = 1e-4  # small: the labels are random
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
CONTROL_POINTS = 9  # K, of degree (2, 2)
DATA_IMAGES = 10_000  # of the data set that batches are drawn from
ASSEMBLY_TARGET = "at most 0.05"  # of a plain step
GPU_TFLOPS = 100  # target of plain training with the 3x3 stem on one H200


@dataclass(frozen=True)
class Case:
    """A ResNet18, a batch of 32x32 images, and what the surface's step may cost there."""

    stem: str
    batch: int
    rounds: int
    target: str  # for surface / plain training
    points: int = 1  # of the surface, which share the batch
    dictionary_target: str = ""  # for dictionary / surface, at one point only
    width: int = 64
    precision: str = "float32"
    compile: bool = False
    cuda_graph: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What `build_model` takes."""
        return {"channels": 3, "image_size": 32, "stem": self.stem, "width": self.width}

    @property
    def variants(self) -> list[str]:
        """What is timed; the dictionary has one point a step."""
        return [name for name in VARIANTS if self.points == 1 or name != "dictionary"]


CASES = {
    "3x3": Case("3x3", batch=64, rounds=11, target="at most 1.10"),
    "imagenet": Case(
        "imagenet", batch=128, rounds=21, target="at most 1.45", dictionary_target="at least 4"
    ),
    "chunks": Case("3x3", batch=512, points=4, rounds=7, target="at most 1.06"),
}


# --- the variants ---------------------------------------------------------------------------------


def plain_step(model: nn.Module, inputs: Tensor, labels: Tensor, case: Case) -> Callable[[], None]:
    """One step of plain training, as `fourfold.training.train.train` does it."""
    model.train()
    fused = True if inputs.is_cuda else None
    descent = torch.optim.SGD(
        model.parameters(), LR, MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY, fused=fused
    )
    forward = torch.compile(model) if case.compile else model

    def passes(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with compute_precision(case.precision, inputs.device):
            loss = F.cross_entropy(forward(inputs), labels)
        descent.zero_grad(set_to_none=True)
        loss.backward()
        return loss.detach(), loss.detach()

    run = Recorded(passes) if case.cuda_graph else passes

    def step() -> None:
        run(inputs, labels)
        descent.step()

    return step


def surface_step(
    model: nn.Module, inputs: Tensor, labels: Tensor, case: Case
) -> Callable[[], None]:
    """One step of `fourfold.training.fit.fit`, the drawing of the points included."""
    surface = make_surface("resnet18", case.settings)
    descend = SurfaceStep(
        surface, model, case.points, device=inputs.device,
        momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, precision=case.precision,
        compile=case.compile, cuda_graph=case.cuda_graph,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        at = draw_latin_hypercube(surface.shape, case.points, generator)
        descend(at, inputs, labels, LR)

    return step


def dictionary_step(
    model: nn.Module, inputs: Tensor, labels: Tensor, case: Case
) -> Callable[[], None]:
    """One step of the published procedure, written the straightforward way.

    Each control point is a dictionary of named tensors, the free ones parameters. theta(u, v) is
    the weighted sum of the dictionaries, tensor by tensor under autograd; `functional_call` runs
    the network with it; the backward pass gives every free control point a gradient of its own,
    and `torch.optim.SGD` moves them, with weight decay on the control points.
    """
    surface = make_surface("resnet18", case.settings)
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
        with compute_precision(case.precision, inputs.device):
            theta = {
                name: sum(w * point[name] for w, point in zip(weights, control_points, strict=True))
                for name in control_points[0]
            }
            loss = F.cross_entropy(functional_call(model, theta, (inputs,)), labels)
        descent.zero_grad(set_to_none=True)
        loss.backward()
        descent.step()

    return step


def assemble_batch(device: torch.device, case: Case) -> Callable[[], None]:
    """What `train` and `fit` do for a batch: pick, shift, mirror and normalize uint8 images."""
    count = max(DATA_IMAGES, 2 * case.batch)
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8).to(device)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    nothing = torch.zeros((), device=device)

    class Nothing:
        def described(self) -> dict[str, Any]:
            return {}

        def state(self) -> dict[str, Any]:
            return {}

        def restore(self, state: Mapping[str, Any]) -> None:
            pass

    loop = Loop(
        TensorBatches(images, labels, case.batch), epochs=1_000_000, seed=0, target=Nothing(),
        augment=RandomShiftFlip(shift=4, flip=True), preprocess=Normalize([0.5] * 3, [0.25] * 3),
    )  # fmt: skip
    batches = loop.batches()

    def assemble() -> None:
        next(batches)
        loop.finish_step(nothing, nothing, 0.0)

    return assemble


VARIANTS = {
    "plain training": plain_step,
    "surface": surface_step,
    "dictionary": dictionary_step,
}


def make_step(variant: str, case: Case, device: torch.device) -> Callable[[], None]:
    model = make_network("resnet18", case.settings, seed=4)
    place(model, device)  # as the pipeline has it
    inputs, labels = make_images(case.batch, channels=3, size=32, device=device)
    return VARIANTS[variant](model, inputs, labels, case)


# --- the comparisons ------------------------------------------------------------------------------


def compare_memory(name: str, case: Case, arguments: argparse.Namespace) -> None:
    """Print the peaks of fresh processes; to be called while this process is still small.

    On Linux a process starts with the peak of the one that started it.
    """
    peaks = {}
    for variant in ("plain training", "surface"):
        command = [sys.executable, __file__, "--peak-of", variant, "--case", name]
        command += ["--device", str(arguments.device), "--threads", str(arguments.threads)]
        command += ["--precision", case.precision, *["--compile"] * case.compile]
        command += ["--quick"] * arguments.quick + ["--cuda-graph"] * case.cuda_graph
        peaks[variant] = int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(f"  {variant:<15} {peaks[variant] / 1e6:8.0f} MB at most")
    beyond = peaks["surface"] - peaks["plain training"]
    row = 4 * sum(p.numel() for p in make_network("resnet18", case.settings, seed=4).parameters())
    # P and momentum, and for each point its parameters and gradient.
    networks = 2 * CONTROL_POINTS + 4 + 2 * case.points
    print(
        f"  difference {beyond / 1e6:.0f} MB = {beyond / row:.1f} networks of 4 D bytes, target at "
        f"most {networks} of them = {networks * row / 1e6:.0f} MB: "
        f"{verdict(beyond <= networks * row)}"
    )


def print_peak(variant: str, case: Case, device: torch.device) -> None:
    """Make four steps, and print the peak memory of this process in bytes."""
    step = make_step(variant, case, device)
    for _ in range(4):
        step()
    print(peak_bytes(device))


def compare_times(case: Case, device: torch.device) -> None:
    steps = {variant: make_step(variant, case, device) for variant in case.variants}
    if case.compile:
        for variant in ("plain training", "surface"):
            start = time.perf_counter()
            steps[variant]()
            print(f"  {variant:<28} {time.perf_counter() - start:9.1f} s for the first step")
    steps["batch assembly"] = assemble_batch(device, case)
    seconds = measure_in_turn(steps, case.rounds, warmup=2, device=device)
    print_times(seconds, per="step")
    flop = 3 * flop_per_image(make_network("resnet18", case.settings, seed=4), (3, 32, 32))
    for variant in case.variants:
        rate = case.batch / statistics.median(seconds[variant])
        print(f"  {variant:<28} {rate:9,.0f} images/s, {1e-12 * flop * rate:.3g} TFLOP/s")
    plain, surface = seconds["plain training"], seconds["surface"]
    print_ratio("surface / plain training", surface, plain, case.target)
    if "dictionary" in seconds:
        print_ratio("dictionary / surface", seconds["dictionary"], surface, case.dictionary_target)
    print_ratio(
        "batch assembly / plain training", seconds["batch assembly"], plain, ASSEMBLY_TARGET
    )
    if device.type == "cuda" and case.stem == "3x3":
        achieved = 1e-12 * flop * case.batch / statistics.median(plain)
        print(f"  plain training, target at least {GPU_TFLOPS} TFLOP/s on one H200:", end=" ")
        print(verdict(achieved >= GPU_TFLOPS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_common_arguments(parser)
    parser.add_argument("--case", choices=CASES, help="only this case (default: all)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="default: float32 on a CPU, bfloat16 on a GPU"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile, in the warm-up")
    parser.add_argument("--cuda-graph", action="store_true", help="launch all passes at once")
    parser.add_argument("--no-memory", action="store_true", help="only the times")
    parser.add_argument("--peak-of", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    on_gpu = arguments.device.type == "cuda"
    chosen: dict[str, Any] = {
        "precision": arguments.precision or ("bfloat16" if on_gpu else "float32")
    }
    chosen |= {"compile": arguments.compile, "cuda_graph": arguments.cuda_graph and on_gpu}
    if arguments.quick:
        chosen |= {"batch": 8, "width": 8, "rounds": 2}  # oneDNN gets narrower ones wrong
    if arguments.rounds:
        chosen["rounds"] = arguments.rounds
    names = [arguments.case] if arguments.case else list(CASES)
    cases = {name: replace(CASES[name], **chosen) for name in names}
    if arguments.peak_of:
        print_peak(arguments.peak_of, cases[arguments.case], arguments.device)
        return
    print_machine(arguments)
    for name, case in ({} if arguments.no_memory else cases).items():
        print(f"peak memory, {describe(case)}")
        compare_memory(name, case, arguments)
    for case in cases.values():
        print(f"one step, {describe(case)}")
        compare_times(case, arguments.device)


def describe(case: Case) -> str:
    return (
        f"ResNet18 (stem {case.stem}, width {case.width}), batch {case.batch}, "
        f"{case.points} point{'s' * (case.points > 1)}, {case.precision}"
        f"{', compiled' * case.compile}{', CUDA graph' * case.cuda_graph}"
    )


if __name__ == "__main__":
    main()
