"""Evaluate the networks at many points of a surface."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from fourfold.batchnorm import batchnorm_layers, reestimate_batchnorm
from fourfold.data.batches import iterate_batches, to_float
from fourfold.errors import InputError
from fourfold.layout import StateDict, load_state
from fourfold.logits import to_half
from fourfold.metrics import classification_metrics
from fourfold.precision import check_precision, compute_precision
from fourfold.surface import BezierSurface

BATCHNORM_MODES = ("reestimated", "interpolated", "none")

Images = tuple[Tensor, Tensor]  # images, labels


@dataclass(frozen=True)
class Evaluation:
    """Metrics and logits of the networks at some points of one surface.

    Attributes:
        table: one row per point and split, the columns of the `grid` table.
        logits: split -> (points, n, classes) float16, on the CPU.
    """

    table: pd.DataFrame
    logits: dict[str, Tensor]


def grid_points(points: int) -> list[tuple[float, float]]:
    """Return the points of a points x points lattice over the unit square, v running fastest.

    Raises:
        InputError: if there are fewer than 2 points per axis.
    """
    if points < 2:
        raise InputError(f"grid points is {points}; a grid needs at least 2 along each axis.")
    axis = [i / (points - 1) for i in range(points)]
    return [(u, v) for u in axis for v in axis]


def evaluate_grid(
    surface: BezierSurface,
    model: nn.Module,
    splits: Mapping[str, Images],
    points: int = 11,
    **settings: Any,
) -> pd.DataFrame:
    """Evaluate nll, accuracy, ece and brier at every point of a points x points grid.

    Args:
        surface: the surface.
        model: any module of the corners' architecture; it is copied, not changed.
        splits: name -> (images, labels), for instance `train`, `val` and `test`.
        points: points along each axis; an odd number puts one on the center.
        **settings: as for `evaluate_points`.

    Returns:
        One row per point and split: surface, u, v, split, n, nll, accuracy, ece, brier, batchnorm.

    Raises:
        InputError: as `evaluate_points`.
    """
    return evaluate_points(surface, model, splits, grid_points(points), **settings).table


def evaluate_points(
    surface: BezierSurface,
    model: nn.Module,
    splits: Mapping[str, Images],
    points: Sequence[tuple[float, float]],
    *,
    batchnorm: str | None = None,
    batchnorm_images: Tensor | None = None,
    batch_size: int = 512,
    precision: str = "float32",
    preprocess: Callable[[Tensor], Tensor] = to_float,
    device: torch.device | str | None = None,
    on_point: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate the networks at the given points, all by the same procedure.

    Every network is in evaluation mode, and its BatchNorm statistics are estimated from scratch on
    the same images, corners included.

    Args:
        surface: the surface.
        model: any module of the corners' architecture; it is copied, not changed.
        splits: name -> (images, labels).
        points: (u, v) pairs.
        batchnorm: `reestimated`; `interpolated` takes the blended statistics of the corners (the
            wrong thing to do, to be shown as such); `none` for a model that has no BatchNorm. The
            default is what the model asks for, `reestimated` or `none`.
        batchnorm_images: images for the re-estimation, by default those of the split `train`.
        batch_size: images per forward pass.
        precision: `float32`, `tf32` or `bfloat16`, of the forward passes.
        preprocess: maps a batch of images to the model's input.
        device: where to evaluate; by default where the images are.
        on_point: progress report, called with (points done, points).

    Raises:
        InputError: if a split is empty, re-estimation has no images, a setting is unknown, or the
            model is of another architecture.
    """
    if not points:
        raise InputError("points is empty; give at least one (u, v).")
    evaluation = evaluate_networks(
        model,
        (surface.state_dict(u, v) for u, v in points),
        splits,
        batchnorm=batchnorm,
        batchnorm_images=batchnorm_images,
        batch_size=batch_size,
        precision=precision,
        preprocess=preprocess,
        device=device,
        on_network=None if on_point is None else lambda done: on_point(done, len(points)),
    )
    table = evaluation.table
    u, v = zip(*(points[i] for i in table.pop("network")), strict=True)
    for position, (column, values) in enumerate((("surface", surface.name), ("u", u), ("v", v))):
        table.insert(position, column, values)
    return evaluation


def evaluate_networks(
    model: nn.Module,
    networks: Iterable[StateDict],
    splits: Mapping[str, Images],
    *,
    batchnorm: str | None = None,
    batchnorm_images: Tensor | None = None,
    batch_size: int = 512,
    precision: str = "float32",
    preprocess: Callable[[Tensor], Tensor] = to_float,
    device: torch.device | str | None = None,
    on_network: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluate any state dicts of one architecture by the procedure of `evaluate_points`.

    Args:
        model: a module of their architecture; it is copied, not changed.
        networks: state dicts, taken one at a time.
        splits, batchnorm, batchnorm_images, batch_size, precision, preprocess, device: see
            `evaluate_points`.
        on_network: progress report, called with the number of networks done.

    Returns:
        A table with the column `network` (position in `networks`) in place of surface, u and v.
    """
    if not splits:
        raise InputError("splits is empty; give at least one name -> (images, labels).")
    for name, (images, labels) in splits.items():
        if len(images) == 0 or len(images) != len(labels):
            raise InputError(
                f"split {name!r} has {len(images)} images and {len(labels)} labels; "
                "it needs at least one image, and one label per image."
            )
    check_precision(precision)
    first_images = next(iter(splits.values()))[0]
    device = torch.device(device) if device is not None else first_images.device
    network = copy.deepcopy(model).to(device).eval()
    mode = batchnorm_mode(network, batchnorm)
    if mode == "reestimated" and batchnorm_images is None:
        if "train" not in splits:
            raise InputError(
                "the model has BatchNorm, whose statistics are re-estimated on training images: "
                f"give batchnorm_images, or a split 'train' (splits are {list(splits)})."
            )
        batchnorm_images = splits["train"][0]
    moved = {
        name: (images.to(device), labels.to(device)) for name, (images, labels) in splits.items()
    }
    if batchnorm_images is not None:
        batchnorm_images = batchnorm_images.to(device)
    settings = {"batch_size": batch_size, "precision": precision, "preprocess": preprocess}
    rows: list[dict[str, Any]] = []
    logits: dict[str, list[Tensor]] = {name: [] for name in splits}
    for position, state in enumerate(networks):
        load_state(network, state)
        if mode == "reestimated":
            reestimate_batchnorm(network, batchnorm_images, **settings)
        for name, (images, labels) in moved.items():
            outputs = to_half(predict(network, images, **settings))
            rows.append(
                {"network": position, "split": name, "n": len(labels)}
                | classification_metrics(outputs.float().log_softmax(dim=1), labels)
                | {"batchnorm": mode}
            )
            logits[name].append(outputs.cpu())
        if on_network is not None:
            on_network(position + 1)
    return Evaluation(
        pd.DataFrame(rows), {name: torch.stack(members) for name, members in logits.items()}
    )


@torch.inference_mode()
def predict(
    model: nn.Module,
    images: Tensor,
    *,
    batch_size: int = 512,
    precision: str = "float32",
    preprocess: Callable[[Tensor], Tensor] = to_float,
) -> Tensor:
    """Return the (n, classes) float32 logits of `model`, in evaluation mode, for all images."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        outputs = []
        for batch in iterate_batches(len(images), batch_size):
            with compute_precision(precision, images.device):
                outputs.append(model(preprocess(images[batch])).float())
    finally:
        for module, training in modes:
            module.training = training
    return torch.cat(outputs)


def batchnorm_mode(model: nn.Module, asked: str | None = None) -> str:
    """Return how the statistics of `model` are obtained: what is asked for, or what it needs.

    Raises:
        InputError: if the mode is unknown, or `none` for a model with BatchNorm statistics.
    """
    has_statistics = bool(batchnorm_layers(model))
    if asked is not None and asked not in BATCHNORM_MODES:
        raise InputError(f"batchnorm is {asked!r}; choose one of {', '.join(BATCHNORM_MODES)}.")
    if not has_statistics:
        # Other layers with running statistics (InstanceNorm) keep interpolated ones: say so.
        other = any(name.endswith("running_mean") for name, _ in model.named_buffers())
        return "interpolated" if other else "none"
    if asked == "none":
        raise InputError(
            "batchnorm is 'none', but the model keeps BatchNorm statistics; choose 'reestimated' "
            "(or 'interpolated' to see what goes wrong without)."
        )
    return asked or "reestimated"
