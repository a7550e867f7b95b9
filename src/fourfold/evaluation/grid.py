"""Evaluate the networks at many points of a surface."""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Float16, Float32
from torch import Tensor, nn

from fourfold.data.augment import augment_once
from fourfold.data.batches import Augment, Preprocess, as_input, iterate_batches, to_float
from fourfold.data.inputs import as_splits, as_tensor, logits_of
from fourfold.errors import InputError
from fourfold.evaluation.batchnorm import check_found, reestimate_batchnorm
from fourfold.evaluation.logits import to_half
from fourfold.evaluation.metrics import classification_metrics, per_image
from fourfold.evaluation.precision import check_precision, compute_precision
from fourfold.seeds import make_generator
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.modules import (
    batchnorm_layers,
    check_buffers,
    copy_module,
    evaluation_mode,
    load_state,
    module_of,
    other_statistics,
)
from fourfold.surfaces.points import CORNER_COORDINATES, Point, edge_points, grid_points
from fourfold.surfaces.surface import BezierSurface

BATCHNORM_MODES = ("reestimated", "interpolated", "own", "none")

Images = tuple[Tensor, Tensor]  # images, labels


@dataclass(frozen=True)
class Evaluation:
    """What some networks predict: metrics, logits, and what they do on each image.

    All of it is of the same numbers: logits rounded to float16.

    Attributes:
        table: one row per network and split.
        logits: of each split asked for, on the CPU.
        nll: of each split, nats, on the CPU.
        correct: of each split, on the CPU.
        own: the same for the corners with their own BatchNorm statistics, where the points are
            evaluated with re-estimated ones; else None.
    """

    table: pd.DataFrame
    logits: dict[str, Float16[Tensor, "networks _images _classes"]]
    nll: dict[str, Float[Tensor, "networks _images"]]
    correct: dict[str, Bool[Tensor, "networks _images"]]
    own: "Evaluation | None" = None


def random_points(points: int, seed: int) -> list[Point]:
    """Return independent uniform points of the unit square."""
    if points < 0:
        raise InputError(f"random points is {points}; give 0 for none, or more.")
    generator = make_generator(seed, "random-points")
    drawn = torch.rand(points, 2, generator=generator, dtype=torch.float64)
    return [(u, v) for u, v in drawn.tolist()]


def evaluate_grid(
    surface: BezierSurface,
    model: nn.Module,
    splits: Mapping[str, Images],
    points: int = 11,
    *,
    edges: int = 0,
    random: int = 0,
    seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:
    """Evaluate nll, accuracy, ece and brier at every point of a points x points grid.

    Args:
        surface: the surface.
        model: any module of the corners' architecture; it is copied, not changed.
        splits: name -> (images, labels), for instance `train`, `val` and `test`.
        points: points along each axis; an odd number puts one on the center.
        edges: further points along each of the four edges, where the worst ones often lie.
        random: further points drawn uniformly from the square.
        seed: of those, and of the augmentation for BatchNorm.
        **settings: as for `evaluate_points`.

    Returns:
        One row per point and split: surface, sample (`grid`, `edge`, `random`), u, v, split, n,
        nll, accuracy, ece, brier, statistics, statistics_images. Corners of a network with
        BatchNorm have two: with re-estimated statistics, and with their own.
    """
    lattice = grid_points(points)
    further = further_points(lattice, edges, random, seed)
    tables = [
        evaluate_points(
            surface, model, splits, chosen, sample=sample, seed=seed, keep_logits=(), **settings
        ).table
        for sample, chosen in {"grid": lattice, **further}.items()
        if chosen
    ]
    return pd.concat(tables, ignore_index=True)


def further_points(
    lattice: Collection[Point], edges: int, random: int, seed: int
) -> dict[str, list[Point]]:
    """Return points beside those of `lattice`: `edges` along each edge, and `random` ones."""
    along = edge_points(edges) if edges else []
    return {
        "edge": [point for point in along if point not in set(lattice)],
        "random": random_points(random, seed),
    }


def evaluate_points(
    surface: BezierSurface,
    model: nn.Module,
    splits: Mapping[str, Images],
    points: Sequence[Point],
    *,
    sample: str = "grid",
    batchnorm: str | None = None,
    on_point: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """Evaluate the networks at the given points, all by the same procedure.

    Every network is in evaluation mode, and its BatchNorm statistics are estimated from scratch on
    the same augmented images, corners included. Corners are evaluated with their own statistics as
    well: where both differ by more than noise, `augment` is not that of their training.

    Args:
        surface: the surface.
        model: any module of the corners' architecture; it is copied, not changed.
        splits: name -> (images, labels).
        points: (u, v) pairs.
        sample: what the table's column `sample` says of these points.
        batchnorm: `reestimated`; `interpolated` takes the blended statistics of the corners (the
            wrong thing to do, to be shown as such); `none` for a model that has no BatchNorm. The
            default is what the model asks for, `reestimated` or `none`.
        on_point: progress report, called with (points done, points).
        **settings: as for `evaluate_networks`: `augment`, the augmentation of the corners' training
            (left out, it costs the networks points of accuracy), `seed`, `batchnorm_images`,
            `batch_size`, `precision`, `preprocess`, `device`, `keep_logits`.
    """
    if not points:
        raise InputError("points is empty; give at least one (u, v).")
    if batchnorm == "own":
        raise InputError(
            "batchnorm is 'own', which only corners have; choose 'reestimated', and corners are "
            "evaluated with their own statistics as well."
        )
    check_buffers(module_of(model, surface.state_dict(0.0, 0.0)), surface.layout.names)

    def evaluate(points: Sequence[Point], mode: str | None, report: bool) -> Evaluation:
        def on_network(done: int) -> None:
            if report and on_point is not None:
                on_point(done, len(points))

        networks = (surface.state_dict(u, v) for u, v in points)
        evaluation = evaluate_networks(
            model, networks, splits, batchnorm=mode, on_network=on_network, **settings
        )
        table = evaluation.table
        u, v = zip(*(points[i] for i in table.pop("network")), strict=True)
        columns = {"surface": surface.name, "sample": sample, "u": u, "v": v}
        for position, (column, values) in enumerate(columns.items()):
            table.insert(position, column, values)
        return evaluation

    evaluation = evaluate(points, batchnorm, report=True)
    corners = [point for point in CORNER_COORDINATES if point in set(points)]
    if not corners or evaluation.table["statistics"].iloc[0] == "none":
        return evaluation
    own = evaluate(corners, "own", report=False)
    return replace(
        evaluation, table=pd.concat([evaluation.table, own.table], ignore_index=True), own=own
    )


def evaluate_networks(
    model: nn.Module,
    networks: Iterable[StateDict],
    splits: Mapping[str, Images],
    *,
    batchnorm: str | None = None,
    batchnorm_images: Tensor | None = None,
    augment: Augment | None = None,
    seed: int = 0,
    batch_size: int = 512,
    precision: str = "float32",
    preprocess: Preprocess = to_float,
    device: torch.device | str | None = None,
    keep_logits: Collection[str] | None = None,
    on_network: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluate any state dicts of one architecture by the procedure of `evaluate_points`.

    Args:
        model: a module of their architecture; it is copied, not changed.
        networks: state dicts, taken one at a time.
        splits: name -> (images, labels).
        batchnorm: as for `evaluate_points`, or `own`: the statistics in the state dicts.
        batchnorm_images: images for the re-estimation, by default those of the split `train`.
        augment: the augmentation of the networks' training, for the re-estimation; see
            `reestimate_batchnorm`.
        seed: of that augmentation, drawn once for all networks.
        batch_size: images per forward pass.
        precision: `float32`, `tf32` or `bfloat16`, of the forward passes.
        preprocess: maps a batch of images to the model's input.
        device: where to evaluate; by default where the images are.
        keep_logits: splits whose logits are returned; by default all.
        on_network: progress report, called with the number of networks done.

    Returns:
        A table with the column `network` (position in `networks`) in place of surface, sample, u
        and v.
    """
    splits = as_splits(splits)
    check_precision(precision)
    first_images = next(iter(splits.values()))[0]
    device = torch.device(device) if device is not None else first_images.device
    networks = iter(networks)
    if (first := next(networks, None)) is None:
        raise InputError("there are no networks to evaluate; give at least one state dict.")
    network = copy_module(module_of(model, first)).to(device).eval()
    mode = batchnorm_mode(network, batchnorm)
    if mode == "reestimated":
        if batchnorm_images is None and "train" not in splits:
            raise InputError(
                "the model has BatchNorm, whose statistics are re-estimated on training images: "
                f"give batchnorm_images, or a split 'train' (splits are {list(splits)})."
            )
        if batchnorm_images is None:
            batchnorm_images = splits["train"][0]
        batchnorm_images = as_tensor(batchnorm_images, "batchnorm_images").to(device)
        seen = augment_once(batchnorm_images, augment, seed, "batchnorm")
    moved = {
        name: (images.to(device), labels.to(device)) for name, (images, labels) in splits.items()
    }
    settings: dict[str, Any] = {
        "batch_size": batch_size, "precision": precision, "preprocess": preprocess,
    }  # fmt: skip
    kept = set(splits if keep_logits is None else keep_logits)
    rows: list[dict[str, Any]] = []
    logits: dict[str, list[Tensor]] = {name: [] for name in splits if name in kept}
    nll: dict[str, list[Tensor]] = {name: [] for name in splits}
    correct: dict[str, list[Tensor]] = {name: [] for name in splits}
    for position, state in enumerate(chain([first], networks)):
        load_state(network, state)
        if mode == "reestimated":
            reestimate_batchnorm(network, seen, **settings)
        for name, (images, labels) in moved.items():
            raw = predict(network, images, **settings)
            logits_of(raw, len(images), int(labels.max()))
            outputs = to_half(_without_infinities(raw, name, position))
            log_probabilities = outputs.float().log_softmax(dim=1)
            rows.append(
                {"network": position, "split": name, "n": len(labels)}
                | classification_metrics(log_probabilities, labels)
                | {"statistics": mode}
                | {"statistics_images": len(seen) if mode == "reestimated" else 0}
            )
            if name in kept:
                logits[name].append(outputs.cpu())
            losses, hits = per_image(log_probabilities, labels)
            nll[name].append(losses.cpu())
            correct[name].append(hits.cpu())
        if on_network is not None:
            on_network(position + 1)
    return Evaluation(pd.DataFrame(rows), _stack(logits), _stack(nll), _stack(correct))


def _without_infinities(
    logits: Float[Tensor, "images classes"], split: str, position: int
) -> Float[Tensor, "images classes"]:
    """Return logits; of a network that has a NaN or an infinity among them, NaN throughout."""
    broken = int((~logits.isfinite()).any(dim=1).sum())
    if not broken:
        return logits
    warnings.warn(
        f"network {position} gives NaN or infinite logits for {broken} of {len(logits)} images of "
        f"split {split!r}: its metrics are NaN, and no ensemble takes it.",
        stacklevel=3,
    )
    return torch.full_like(logits, float("nan"))


def _stack(parts: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack(members) for name, members in parts.items()}


@torch.no_grad()  # not inference mode: a scripted module that was trained refuses its tensors
def predict(
    model: nn.Module,
    images: Tensor,
    *,
    batch_size: int = 512,
    precision: str = "float32",
    preprocess: Preprocess = to_float,
) -> Float32[Tensor, "images classes"]:
    """Return the logits of `model`, in evaluation mode, for all images."""
    images, prepare = as_tensor(images, "images"), as_input(preprocess, model)
    outputs = []
    with evaluation_mode(model):
        for batch in iterate_batches(len(images), batch_size):
            with compute_precision(precision, images.device):
                inputs = prepare(images[batch])
                outputs.append(logits_of(model(inputs), len(images[batch])).float())
    return torch.cat(outputs)


def batchnorm_mode(model: nn.Module, asked: str | None = None) -> str:
    """Return how the statistics of `model` are obtained: what is asked for, or what it needs."""
    if asked is not None and asked not in BATCHNORM_MODES:
        raise InputError(f"batchnorm is {asked!r}; choose one of {', '.join(BATCHNORM_MODES)}.")
    if asked not in ("interpolated", "own"):
        check_found(model)
    if not batchnorm_layers(model):
        return asked if asked is not None and other_statistics(model) else "none"
    if asked == "none":
        raise InputError(
            "batchnorm is 'none', but the model keeps BatchNorm statistics; choose 'reestimated' "
            "(or 'interpolated' to see what goes wrong without)."
        )
    return asked or "reestimated"
