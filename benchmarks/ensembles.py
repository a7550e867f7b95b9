"""Time what is made of cached logits alone: ensembles, picks, differences, rivals at equal cost.

    python benchmarks/ensembles.py [--quick] [--threads 2]

Logits are drawn at random, of an experiment as large as one on CIFAR-10: three surfaces of four
corners and 121 points, 5,000 images of val and 10,000 of test, 10 classes. All draws of the
bootstrap are counted.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable

import pandas as pd
import torch
from _timing import add_common_arguments, print_machine, verdict

from fourfold.combination.baselines import Surfaces
from fourfold.combination.differences import measure_differences
from fourfold.combination.ensemble import compare_ensembles
from fourfold.combination.merge import Soup, best_point
from fourfold.combination.picks import measure_picks
from fourfold.combination.rivals import compare_rivals
from fourfold.evaluation.logits import Examples, SurfaceLogits
from fourfold.evaluation.metrics import classification_metrics, per_image
from fourfold.surfaces.shapes import SQUARE

SECONDS, GIB = 60, 2  # what all of it may take
CLASSES = 10
SURFACES: Surfaces = {
    name: {"corners": corners, "kind": kind, "fit": fit, **SQUARE.described()}  # type: ignore[typeddict-item]
    for name, corners, kind, fit in (
        ("linear", "independent", "seeds", None),
        ("bezier", "independent", "seeds", "standard"),
        ("trajectory", "trajectory", "run", None),
    )
}


def draw_logits(labels: torch.Tensor, networks: int, draw: torch.Generator) -> torch.Tensor:
    """Return logits of networks that agree on what is easy, and err on a twentieth."""
    shared = 2 * torch.randn(len(labels), CLASSES, generator=draw)
    shared += 6 * torch.nn.functional.one_hot(labels, CLASSES)
    return (shared + torch.randn(networks, len(labels), CLASSES, generator=draw)).half()


def make_logits(points: int, sizes: dict[str, int]) -> dict[str, SurfaceLogits]:
    draw = torch.Generator().manual_seed(0)
    labels = {split: torch.randint(CLASSES, (n,), generator=draw) for split, n in sizes.items()}
    lattice = SQUARE.lattice(points)
    return {
        name: SurfaceLogits(
            name, SQUARE, "reestimated", lattice,
            {split: draw_logits(of, len(lattice), draw) for split, of in labels.items()},
            {split: draw_logits(of, 4, draw) for split, of in labels.items()},
            labels,
        )
        for name in SURFACES
    }  # fmt: skip


def make_examples(logits: SurfaceLogits) -> Examples:
    """Return examples of the grid and the corners, val in the place of train as well."""
    nll, correct = {}, {}
    for split, labels in logits.labels.items():
        networks = torch.cat([logits.logits[split], logits.own[split]])
        found = [per_image(one.float().log_softmax(dim=1), labels) for one in networks]
        nll[split], correct[split] = (torch.stack(part) for part in zip(*found, strict=True))
    for part in (nll, correct):
        part["train"] = part["val"]
    corners = list(SQUARE.corner_coordinates)
    samples = ["grid"] * len(logits.points) + ["own"] * len(corners)
    of_splits = {**logits.labels, "train": logits.labels["val"]}
    return Examples(logits.surface, [*logits.points, *corners], samples, nll, correct, of_splits)


def make_grid(logits: SurfaceLogits) -> pd.DataFrame:
    rows = []
    for split, labels in logits.labels.items():
        for (u, v), network in zip(logits.points, logits.logits[split], strict=True):
            metrics = classification_metrics(network.float().log_softmax(dim=1), labels)
            of = {"surface": logits.surface, "sample": "grid", "u": u, "v": v, "split": split}
            of |= {"n": len(labels), "statistics": "reestimated", "statistics_images": 10_000}
            rows.append(of | metrics)
    return pd.DataFrame(rows)


def make_cost() -> pd.DataFrame:
    jobs = [("train_endpoint", f"seed{k}") for k in range(4)] + [("fit_bezier_surface", "bezier")]
    rows = [
        {"stage": stage, "item": item, "images_forward": 9, "images_backward": 9}
        for stage, item in jobs
    ]
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_common_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print_machine(arguments)
    points, sizes = 11, {"val": 5000, "test": 10_000}
    if arguments.quick:
        points, sizes = 3, {"val": 50, "test": 100}
    logits = make_logits(points, sizes)
    examples = {name: make_examples(of) for name, of in logits.items()}
    grid, cost = pd.concat([make_grid(of) for of in logits.values()]), make_cost()

    soups = {of["corners"]: Soup([0], {}) for of in SURFACES.values()}

    def differences() -> None:
        for name, of in logits.items():
            measure_differences(of, examples[name], 0.9)

    def merges() -> None:
        for name in SURFACES:
            for split in sizes:
                best_point(grid[grid["surface"] == name], split, SQUARE)

    total = 0.0
    variants: dict[str, Callable[[], object]] = {
        "ensembles": lambda: compare_ensembles(logits, SURFACES, 8),
        "best points": merges,
        "differences": differences,
        "rivals": lambda: compare_rivals(logits, SURFACES, grid, cost, soups),
        "picks": lambda: measure_picks(logits, SURFACES),
    }
    for what, run in variants.items():
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        total += seconds
        print(f"  {what:<28} {seconds:9.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gib = peak / (2**30 if sys.platform == "darwin" else 2**20)
    is_met = total <= SECONDS and gib <= GIB
    print(
        f"  all of it: {total:.1f} s, peak memory {gib:.2f} GiB; target at most {SECONDS} s and "
        f"{GIB} GiB: {verdict(is_met)}"
    )


if __name__ == "__main__":
    main()
