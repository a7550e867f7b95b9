"""Evaluate the networks at many points of a surface."""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float16, Float32, Int64
from torch import Tensor, nn

from fourfold.data.batches import (
    Augment,
    Batches,
    Preprocess,
    TensorBatches,
    as_input,
    call_model,
    check_batch_size,
    input_batches,
    pass_seed,
    split_batches,
)
from fourfold.data.inputs import (
    Input,
    Loss,
    Objective,
    classes_of,
    join_inputs,
    logits_of,
    map_input,
    output_tensors,
    parts_of,
)
from fourfold.errors import InputError, check_count
from fourfold.evaluation.batchnorm import StatisticsImages, check_found, set_statistics
from fourfold.evaluation.logits import to_half
from fourfold.evaluation.metrics import (
    Metric,
    apply_metrics,
    check_metrics,
    classification_metrics,
    per_image,
)
from fourfold.evaluation.precision import check_precision, compute_precision
from fourfold.evaluation.repair import Mixtures, Repair
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
    trained_batchnorm_layers,
)
from fourfold.surfaces.shapes import Point, Shape, full_coordinates
from fourfold.surfaces.surface import Surface

BATCHNORM_MODES = ("reestimated", "interpolated", "own", "none", "repaired")

Images = Any  # of a split: (images, labels), or batches; see `evaluate_networks`


@dataclass(frozen=True)
class Evaluation:
    """What some networks predict: metrics, logits, and what they do on each image.

    All of it is of the same numbers: logits rounded to float16.

    Attributes:
        table: one row per network and split.
        logits: of each split asked for, on the CPU.
        nll: of each split, nats, on the CPU.
        correct: of each split, on the CPU.
        labels: of each split, in the order of its logits, on the CPU.
        own: the same for the corners with their own BatchNorm statistics, where the points are
            evaluated with re-estimated ones; else None.
    """

    table: pd.DataFrame
    logits: dict[str, Float16[Tensor, "networks _images _classes"]]
    nll: dict[str, Float[Tensor, "networks _images"]]
    correct: dict[str, Bool[Tensor, "networks _images"]]
    labels: dict[str, Int64[Tensor, " _images"]]
    own: "Evaluation | None" = None


def choose_points(
    shape: Shape, points: int, edges: int = 0, random: int = 0, seed: int = 0
) -> dict[str, list[Point]]:
    """Return sample -> the points of a shape to evaluate, each once.

    Args:
        shape: the surface's.
        points: of the sample `grid`, along each axis. A curve has `edges` of them, if that is not
            0: it is its own edge; and so is each segment of a star.
        edges: along each edge, both ends counted, of the sample `edge`.
        random: independent uniform points, of the sample `random`; a set, between whose networks
            nothing lies, has none.
        seed: of those.
    """
    check_count("edge points", edges)
    check_count("random points", random)
    lattice = shape.lattice(edges or points if shape.dims == 1 else points)
    along = shape.edge_points(edges) if edges and shape.dims > 1 else []
    generator = make_generator(seed, "random-points")
    count = 0 if shape.is_discrete else random
    cube = torch.rand(count, shape.dims, generator=generator, dtype=torch.float64)
    known = set(lattice)
    return {
        "grid": lattice,
        "center": [] if shape.center in known else [shape.center],
        "edge": [point for point in along if point not in known],
        "random": [tuple(point) for point in shape.from_cube(cube.numpy()).tolist()],
    }


def evaluate_grid(
    surface: Surface,
    model: nn.Module,
    splits: Mapping[str, Images],
    points: int = 11,
    *,
    edges: int = 0,
    random: int = 0,
    seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:
    """Evaluate nll, accuracy, ece and brier on a regular grid over a surface.

    Args:
        surface: the surface.
        model: any module of the corners' architecture; it is copied, not changed.
        splits: name -> (images, labels) or batches, for instance `train`, `val` and `test`.
        points: points along each axis; an odd number puts one on the center.
        edges: further points along each edge, where the worst ones often lie; of a curve, which is
            its own edge, the points of the grid.
        random: further points drawn uniformly.
        seed: of those, and of the augmentation for BatchNorm.
        **settings: as for `evaluate_points`.

    Returns:
        One row per point and split: surface, sample (`grid`, `center` if that is not on the grid,
        `edge`, `random`), u, v, w (missing where the shape has fewer axes), split, n, nll,
        accuracy, ece, brier, statistics, statistics_images. Corners of a network with BatchNorm
        have two: with re-estimated statistics, and with their own.
    """
    samples = choose_points(surface.shape, points, edges, random, seed)
    tables = [
        evaluate_points(
            surface, model, splits, chosen, sample=sample, seed=seed, keep_logits=(), **settings
        ).table
        for sample, chosen in samples.items()
        if chosen
    ]
    return pd.concat(tables, ignore_index=True)


def evaluate_points(
    surface: Surface,
    model: nn.Module,
    splits: Mapping[str, Images],
    points: Iterable[Sequence[float] | float],
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
        splits: name -> (images, labels) or batches.
        points: coordinates of each: tuples, lists, rows of an array or a tensor; on a shape with
            one axis numbers.
        sample: what the table's column `sample` says of these points.
        batchnorm: `reestimated`; `interpolated` takes the blended statistics of the corners (the
            wrong thing to do, to be shown as such); `none` for a model that has no BatchNorm;
            `repaired`, for such a model, resets the statistics of its layers to mixtures of the
            corners' (see `Repair`). The default is what the model asks for, `reestimated` or
            `none`.
        on_point: progress report, called with (points done, points).
        **settings: as for `evaluate_networks`: `augment`, the augmentation of the corners' training
            (left out, it costs the networks points of accuracy), `seed`, `batchnorm_images`,
            `batch_size`, `precision`, `preprocess`, `loss_function`, `metrics`, `device`,
            `keep_logits`.
    """
    points = surface.shape.check_all(points)
    if not points:
        raise InputError("points is empty; give at least one.")
    if batchnorm == "own":
        raise InputError(
            "batchnorm is 'own', which only corners have; choose 'reestimated', and corners are "
            "evaluated with their own statistics as well."
        )
    check_buffers(module_of(model, surface.corner()), surface.layout.names)

    def evaluate(points: Sequence[Point], mode: str | None, report: bool) -> Evaluation:
        def on_network(done: int) -> None:
            if report and on_point is not None:
                on_point(done, len(points))

        networks = (surface.state_dict(*point) for point in points)
        further = dict(settings)
        if mode == "repaired":
            corners = (surface.corner(k) for k in range(len(surface.shape.corner_rows)))
            further["mixtures"] = Mixtures(corners, surface.mixture(points))
        evaluation = evaluate_networks(
            model, networks, splits, batchnorm=mode, on_network=on_network, **further
        )
        table = evaluation.table
        columns: dict[str, Any] = {"surface": surface.name, "sample": sample}
        columns |= full_coordinates([points[i] for i in table.pop("network")])
        for position, (column, values) in enumerate(columns.items()):
            table.insert(position, column, values)
        return evaluation

    evaluation = evaluate(points, batchnorm, report=True)
    corners = [point for point in surface.shape.corner_coordinates if point in set(points)]
    if not corners or surface.train_corners or evaluation.table["statistics"].iloc[0] == "none":
        return evaluation
    own = evaluate(corners, "own", report=False)
    as_trained = own.table.assign(statistics="own")  # of a model without any it says `none`
    return replace(
        evaluation, table=pd.concat([evaluation.table, as_trained], ignore_index=True), own=own
    )


def evaluate_networks(
    model: nn.Module,
    networks: Iterable[StateDict],
    splits: Mapping[str, Images],
    *,
    batchnorm: str | None = None,
    mixtures: Mixtures | None = None,
    batchnorm_images: Any = None,
    augment: Augment | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    precision: str = "float32",
    preprocess: Preprocess | None = None,
    loss_function: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
    device: torch.device | str | None = None,
    keep_logits: Collection[str] | None = None,
    on_network: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluate any state dicts of one architecture by the procedure of `evaluate_points`.

    Args:
        model: a module of their architecture; it is copied, not changed.
        networks: state dicts, taken one at a time.
        splits: name -> (images, labels), or name -> batches as in `train`, which must be the same
            examples in the same order each time.
        batchnorm: as for `evaluate_points`, or `own`: the statistics in the state dicts.
        mixtures: the corners that the networks lie between, for `repaired` alone.
        batchnorm_images: images, or batches, for the re-estimation, by default the split `train`.
        augment: the augmentation of the networks' training, for the re-estimation; see
            `reestimate_batchnorm`.
        seed: of that augmentation, drawn once for all networks, and of what an iterable of batches
            draws.
        batch_size: images per forward pass, by default 512; of tensors alone.
        precision: `float32`, `tf32` or `bfloat16`, of the forward passes.
        preprocess: maps a batch of images to the model's input, as in `train`.
        loss_function: maps a batch's output and targets to their mean loss; the column `loss` is
            their mean over the split, weighted by the examples in each batch: of a loss that
            weights classes or ignores targets it depends on the batches; give it in `metrics`.
        metrics: name -> function(outputs, targets) of the whole split: further columns.
            Outputs are tensors (of an object with `logits` those), on the device.
        device: where to evaluate; by default where the images of the first split are, of batches
            where the model is.
        keep_logits: splits whose logits are returned; by default all.
        on_network: progress report, called with the number of networks done.

    Returns:
        A table with the column `network` (position in `networks`) in place of the coordinates. With
        a loss function or metrics the networks need not be classifiers: the columns nll, accuracy,
        ece and brier, and a split's logits, nll, correct and labels, are there if its targets are
        one class index per example and the outputs logits.
    """
    metrics = check_metrics(metrics or {})
    is_own = loss_function is not None or bool(metrics)
    objective = Objective(loss_function or F.cross_entropy, is_own=is_own)
    check_precision(precision)
    networks = iter(networks)
    if (first := next(networks, None)) is None:
        raise InputError("there are no networks to evaluate; give at least one state dict.")
    network = copy_module(module_of(model, first))
    data = split_batches(splits, objective, network, batch_size, device)
    first_device = next(iter(data.values())).device
    network = network.to(first_device).eval()
    if not isinstance(keep_logits, Collection | None) or not {*(keep_logits or ())} <= data.keys():
        raise InputError(
            f"keep_logits is {keep_logits!r}; give names of splits ({', '.join(data)}), or None "
            "for all."
        )
    kept = {*(data if keep_logits is None else keep_logits)}
    mode = batchnorm_mode(network, batchnorm)
    check_batch_size(
        batch_size, *data.values(), *(() if batchnorm_images is None else (batchnorm_images,))
    )
    measured = mode in ("reestimated", "repaired")
    if measured:
        if batchnorm_images is not None:
            given = input_batches(
                batchnorm_images, network, batch_size, what="batchnorm_images", device=first_device
            )
        elif "train" in data:
            given = data["train"]
        else:
            raise InputError(
                f"the statistics of the model's layers are {mode} on training images: "
                f"give batchnorm_images, or a split 'train' (splits are {list(splits)})."
            )
        seen = StatisticsImages(given, augment, seed)
    if mode == "repaired":
        if mixtures is None:
            raise InputError(
                "batchnorm is 'repaired', which is for points between corners; evaluate them with "
                "evaluate_points."
            )
        repair = Repair(network, mixtures.corners, seen, preprocess)
    prepare = {
        name: as_input(preprocess or batches.preprocess, network) for name, batches in data.items()
    }
    rows: list[dict[str, Any]] = []
    logits: dict[str, list[Tensor]] = {}
    nll: dict[str, list[Tensor]] = {}
    correct: dict[str, list[Tensor]] = {}
    known: dict[str, Tensor] = {}
    keep = (_tensors_if_any if metrics else _tensors_if_classes) if is_own else _logits
    loss = None if loss_function is None else objective.loss
    for position, state in enumerate(chain([first], networks)):
        load_state(network, state)
        if mode == "reestimated":
            set_statistics(network, seen, precision=precision, preprocess=preprocess)
        elif mode == "repaired":
            assert mixtures is not None
            repair(mixtures.shares[position])
        for name, batches in data.items():
            passed = _Pass(network, batches, seed, keep, prepare[name], precision, loss)
            row = {"network": position, "split": name, "n": passed.n}
            if (found := passed.classes(is_own)) is not None:
                raw, labels = found
                if not torch.equal(known.setdefault(name, labels), labels):
                    raise InputError(
                        f"split {name!r} gives other targets each time that it is iterated; take "
                        "one that does not shuffle."
                    )
                half = to_half(_without_infinities(raw, name, position))
                log_probabilities = half.float().log_softmax(dim=1)
                row |= classification_metrics(log_probabilities, labels)
                if name in kept:
                    logits.setdefault(name, []).append(half.cpu())
                losses, hits = per_image(log_probabilities, labels)
                nll.setdefault(name, []).append(losses.cpu())
                correct.setdefault(name, []).append(hits.cpu())
            row |= {} if loss is None else {"loss": passed.loss}
            row |= apply_metrics(metrics, passed.outputs, passed.targets, name)
            row |= {"statistics": mode}
            rows.append(row | {"statistics_images": seen.count if measured else 0})
        if on_network is not None:
            on_network(position + 1)
    found_labels = {name: indices.cpu() for name, indices in known.items()}
    return Evaluation(
        pd.DataFrame(rows), _stack(logits), _stack(nll), _stack(correct), found_labels
    )


def _logits(output: Any, target: Any, n: int) -> Input | None:
    return logits_of(output, n).float()


def _tensors_if_classes(output: Any, target: Any, n: int) -> Input | None:
    """Return what `_tensors_if_any` does of logits, else None: a loss alone asks for no more."""
    tensors = _tensors_if_any(output, target, n)
    return None if tensors is None or classes_of(tensors, target) is None else tensors


def _tensors_if_any(output: Any, target: Any, n: int) -> Input | None:
    """Return the tensors of an output, those in half precision as float32; None if it has none."""

    def widen(part: Tensor) -> Tensor:
        return part.float() if part.dtype in (torch.float16, torch.bfloat16) else part

    tensors = output_tensors(output)
    return None if tensors is None else map_input(widen, tensors)


class _Pass:
    """What a network says of all batches in evaluation mode.

    Attributes:
        n: examples.
        outputs: what `keep` made of outputs and targets, None if it can't be put together.
        targets: the targets, None if there are none or they can't be put together.
        loss: mean over the examples.
    """

    @torch.no_grad()  # not inference mode: a scripted module that was trained refuses its tensors
    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        seed: int,
        keep: Callable[[Any, Any, int], Input | None],
        prepare: Preprocess,
        precision: str,
        loss: Loss | None = None,
    ) -> None:
        outputs, targets, total = [], [], 0.0
        self.n = 0
        with evaluation_mode(model):
            for given, target in batches.in_order(pass_seed(seed)):
                size = len(parts_of(given)[0])
                with compute_precision(precision, batches.device):
                    output = call_model(model, prepare(given))
                    if loss is not None:
                        total += loss(output, target).item() * size
                outputs.append(keep(output, target, size))
                targets.append(target)
                self.n += size
        self.outputs, self.targets = _joined(outputs), _joined(targets)
        self.loss = total / self.n

    def classes(self, is_own: bool) -> tuple[Tensor, Tensor] | None:
        """Return logits and class indices, None of what is no classification."""
        if self.outputs is None or self.targets is None:
            return None
        if not is_own:
            return logits_of(self.outputs, self.n, int(self.targets.max())), self.targets
        found = classes_of(self.outputs, self.targets)
        if found is None or not 0 <= int(found[1].min()) <= int(found[1].max()) < found[0].shape[1]:
            return None
        return found[0].float(), found[1].long()


def _joined(batches: list[Any]) -> Input | None:
    if any(batch is None for batch in batches):
        return None
    shapes = {tuple(part.shape[1:] for part in parts_of(batch)) for batch in batches}
    return join_inputs(batches) if len(shapes) == 1 else None


def _without_infinities(
    logits: Float[Tensor, "images classes"], split: str, position: int
) -> Float[Tensor, "images classes"]:
    """Return logits; of a network that has a NaN or an infinity among them, NaN throughout."""
    broken = int((~logits.isfinite()).any(dim=1).sum())
    if not broken:
        return logits
    warnings.warn(
        f"network {position} gives NaN or infinite logits for {broken} of {len(logits)} images of "
        f"split {split!r}: its metrics are NaN, and no choice takes it.",
        stacklevel=3,
    )
    return torch.full_like(logits, float("nan"))


def _stack(parts: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack(members) for name, members in parts.items()}


def predict(
    model: nn.Module,
    images: Any,
    *,
    batch_size: int | None = None,
    precision: str = "float32",
    preprocess: Preprocess | None = None,
) -> Float32[Tensor, "images classes"]:
    """Return the logits of `model`, in evaluation mode, for all images.

    Images are tensors or batches, as in `reestimate_batchnorm`; batches should come in a fixed
    order, which is that of the logits.
    """
    check_batch_size(batch_size, images)
    batches = input_batches(images, model, batch_size)
    if isinstance(batches, TensorBatches) and not batches.size:
        raise InputError("there are no images to predict; give at least one.")
    prepare = as_input(preprocess or batches.preprocess, model)
    outputs = _Pass(model, batches, 0, _logits, prepare, precision).outputs
    assert isinstance(outputs, Tensor)
    return outputs


def batchnorm_mode(model: nn.Module, asked: str | None = None) -> str:
    """Return how the statistics of `model` are obtained: what is asked for, or what it needs."""
    if asked is not None and asked not in BATCHNORM_MODES:
        raise InputError(f"batchnorm is {asked!r}; choose one of {', '.join(BATCHNORM_MODES)}.")
    if asked not in ("interpolated", "own"):
        check_found(model)
    if asked == "repaired":
        if batchnorm_layers(model):
            raise InputError(
                "batchnorm is 'repaired', which is for models without BatchNorm, but this one has "
                "it; choose 'reestimated'."
            )
        return asked
    if not trained_batchnorm_layers(model):
        is_kept = batchnorm_layers(model) or other_statistics(model)
        return asked if asked not in (None, "reestimated") and is_kept else "none"
    if asked == "none":
        raise InputError(
            "batchnorm is 'none', but the model keeps BatchNorm statistics; choose 'reestimated' "
            "(or 'interpolated' to see what goes wrong without)."
        )
    return asked or "reestimated"
