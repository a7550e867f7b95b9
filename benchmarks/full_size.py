"""Try the paper's nine experiments at full size: a training step, a step of the fit, and a point.

    python benchmarks/full_size.py [--threads 2] [--device cuda]

Each runs as params.yaml has it, by the functions behind the workflow's rules, on random images: on
a GPU as many as its recipe takes, on a CPU few and in float32. What comes out is checked for its
shape and for numbers that are not finite; peaks of memory are of fresh processes. What the recipe's
steps keep is reckoned by the formulas of docs/scaling.md, with the activations that autograd saves.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _timing import add_common_arguments, print_machine
from torch import nn

from fourfold.data.augment import RandomShiftFlip
from fourfold.data.batches import Normalize
from fourfold.data.inputs import logits_of
from fourfold.evaluation.grid import evaluate_points
from fourfold.networks import build_model, place
from fourfold.pipeline.commands._network_job import training_arguments
from fourfold.pipeline.cost import peak_bytes
from fourfold.report.summary import markdown_table
from fourfold.surfaces.surface import Surface
from fourfold.training.fit import fit
from fourfold.training.train import train

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
from overview import cells_of
from publish import read_targets
from scaling import CORNERS, FLOAT32, ROOT, case_of, fit_numbers, shape_of

STAGES = ("train", "fit", "evaluate")
FEW = 32  # images a step on a CPU; a multiple of a fit's points
TARGETS = read_targets(ROOT)


def network_of(name: str, seed: int, device: str | torch.device = "cpu") -> nn.Module:
    _, channels, size, classes = shape_of(TARGETS, name)
    of = TARGETS.experiments[name]
    torch.manual_seed(seed)
    model = build_model(**of["network"], channels=channels, image_size=size, classes=classes)
    return place(model, device)


def images_of(name: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    _, channels, size, classes = shape_of(TARGETS, name)
    torch.manual_seed(0)
    images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8)
    return images, torch.arange(count) % classes


def run_stage(name: str, stage: str, count: int, device: torch.device) -> int:
    """Run a stage of an experiment on so many images, and return the peak of its memory in bytes.

    Raises:
        ArithmeticError: if what comes out has another shape than it should, or is not finite.
    """
    of = TARGETS.experiments[name]
    _, channels, _, classes = shape_of(TARGETS, name)
    images, labels = (tensor.to(device) for tensor in images_of(name, count))
    data = images, labels
    network = partial(network_of, name, device=device)
    passes: dict[str, Any] = {"augment": RandomShiftFlip(**of["augment"])}
    passes["preprocess"] = Normalize([0.5] * channels, [0.25] * channels)
    step: dict[str, Any] = {"epochs": 1, "batch_size": count}
    if device.type == "cpu":
        step |= {"precision": "float32", "cuda_graph": False}
    if stage == "train":
        nll = _train(network(0), data, training_arguments(of["training"]) | step, passes, classes)
    else:
        surface = Surface.from_corners([network(k).state_dict() for k in range(CORNERS)], (2, 2))
        if stage == "fit":
            settings = training_arguments(of["fits"]["standard"]) | step
            before = [surface.corner(k) for k in range(CORNERS)]
            nll = fit(surface, network(0), images, labels, **settings, seed=0, **passes)[
                "nll"
            ].iloc[-1]
            after = [surface.corner(k) for k in range(CORNERS)]
            kept = all(
                torch.equal(old[key], new[key])
                for old, new in zip(before, after, strict=True)
                for key, _ in network(0).named_parameters()
            )
            _check(kept, "corners that moved")
        else:
            passes |= {"batchnorm_images": data[0], "batch_size": count}
            passes["precision"] = step.get("precision", of["grid"]["precision"])
            splits, center = {"test": data}, [surface.shape.center]
            table = evaluate_points(surface, network(0), splits, center, **passes).table
            _check(len(table) == 1 and table["n"].iloc[0] == count, f"{len(table)} rows")
            nll = table["nll"].iloc[0]
    _check(math.isfinite(nll), f"an nll of {nll}")
    return peak_bytes(device)


def _train(
    model: nn.Module,
    data: tuple[torch.Tensor, torch.Tensor],
    settings: Mapping[str, Any],
    passes: Mapping[str, Any],
    classes: int,
) -> float:
    settings = {key: value for key, value in settings.items() if key not in ("keep", "classes")}
    nll: float = train(model, data[0], data[1], **settings, seed=0, **passes)["nll"].iloc[-1]
    with torch.no_grad():
        logits = logits_of(model.eval()(passes["preprocess"](data[0])), len(data[0]))
    _check(logits.shape == (len(data[0]), classes), f"logits of shape {tuple(logits.shape)}")
    return nll


def _check(is_right: bool, found: str) -> None:
    if not is_right:
        raise ArithmeticError(f"found {found}")


def peak_of_process(name: str, stage: str, count: int, arguments: argparse.Namespace) -> int:
    command = [sys.executable, __file__, "--stage", name, stage, str(count)]
    command += ["--device", str(arguments.device), "--threads", str(arguments.threads)]
    return int(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def saved_bytes(name: str, count: int = 2) -> float:
    """Return what autograd saves of an image's forward pass, beside parameters, in float32."""
    model, (images, _) = network_of(name, 0), images_of(name, count)
    saved = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.train()(images.float())
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    del output
    return sum(size for place, size in saved.items() if place not in known) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_common_arguments(parser)
    parser.add_argument("--stage", nargs=3, metavar=("EXPERIMENT", "STAGE", "IMAGES"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.stage:
        name, stage, count = arguments.stage
        print(run_stage(name, stage, int(count), arguments.device))
        return
    print_machine(arguments)
    names = cells_of(TARGETS, "full")[: 1 if arguments.quick else None]
    peaks = {}
    for name in names:  # before there are networks in this process
        of = TARGETS.experiments[name]
        whole = [of[key]["batch_size"] for key in ("training", "grid")]
        whole.insert(1, of["fits"]["standard"]["batch_size"])
        counts = [FEW] * len(STAGES) if arguments.device.type == "cpu" else whole
        steps = zip(STAGES, counts, strict=True)
        peaks[name] = [peak_of_process(name, stage, count, arguments) for stage, count in steps]
    head = ["experiment", "parameters (M)", "pass of an image (GFLOP)", "epoch (PFLOP)"]
    head += ["saved for an image (MB)", "train keeps (GB)", "fit keeps (GB)"]
    head += [f"peak of {stage} (GB)" for stage in STAGES]
    body = []
    for name in names:
        case, saved, of = case_of(TARGETS, name), saved_bytes(name), TARGETS.experiments[name]
        training, fitting = of["training"], of["fits"]["standard"]
        # Parameters, gradient, moments.
        plain = 2 + {"sgd": 1, "adamw": 2}[training["optimizer"]["name"]]
        points = fitting["points_per_step"]
        numbers = fit_numbers(9, points, fitting["optimizer"]["name"])
        kept = [
            FLOAT32 * case.parameters * plain + training["batch_size"] * saved,
            FLOAT32 * case.parameters * numbers + fitting["batch_size"] // points * saved,
        ]
        cells = [name, f"{case.parameters / 1e6:.2f}", f"{case.flop / 1e9:.2f}"]
        cells += [f"{3 * case.flop * case.sizes[0] / 1e15:.3f}", f"{saved / 1e6:.1f}"]
        body.append([*cells, *(f"{value / 1e9:.1f}" for value in (*kept, *peaks[name]))])
    print(markdown_table(head, body))


if __name__ == "__main__":
    main()
