"""Exact re-estimation of BatchNorm statistics, for weights that were not trained with them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fourfold.data.augment import augment_once
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
)
from fourfold.data.inputs import Input, parts_of
from fourfold.errors import InputError, check_callable
from fourfold.evaluation.precision import compute_precision
from fourfold.seeds import make_generator
from fourfold.surfaces.layout import first_names
from fourfold.surfaces.modules import (
    evaluation_mode,
    other_statistics,
    trained_batchnorm_layers,
)

_STREAM = "batchnorm"  # of the augmentation


class StatisticsImages:
    """Batches to estimate statistics on, augmented, the same each time that they are iterated.

    Tensors are augmented once, here; batches of an iterable in each pass.

    Attributes:
        device, preprocess: of the batches.
        count: images of the last pass.
    """

    def __init__(self, batches: Batches, augment: Augment | None, seed: int) -> None:
        """Take batches of at least 2 images."""
        check_callable(augment=augment)
        if isinstance(batches, TensorBatches):
            if batches.size < 2 or batches.batch_size < 2:
                raise InputError(
                    "re-estimating BatchNorm needs at least 2 images and a batch size of at least "
                    f"2, got {batches.size} images in batches of {batches.batch_size}."
                )
            once = augment_once(batches.inputs, augment, seed, _STREAM)
            batches, augment = TensorBatches(once, None, batches.batch_size), None
        self.device, self.preprocess, self.count = batches.device, batches.preprocess, 0
        self._batches, self._augment, self._seed = batches, augment, seed

    def __iter__(self) -> Iterator[Input]:
        """Yield the inputs of each batch."""
        self.count, generator = 0, make_generator(self._seed, _STREAM, self.device)
        for inputs, _ in self._batches.in_order(pass_seed(self._seed), smallest=2):
            self.count += len(parts_of(inputs)[0])
            yield inputs if self._augment is None else self._augment(inputs, generator)


def reestimate_batchnorm(
    model: nn.Module,
    images: Any,
    *,
    augment: Augment | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    precision: str = "float32",
    preprocess: Preprocess | None = None,
) -> None:
    """Set the running statistics of every BatchNorm layer to those of `images`, from scratch.

    Give the augmentation that the network was trained with. Without it the layers see other images
    than in training: of a ResNet18 trained on 10,000 CIFAR-10 images with crop and flip, statistics
    of plain images cost 2.5 points of accuracy and 0.07 nats.

    One pass in batches: the layers normalize by the statistics of the batch, everything else
    (dropout) is in evaluation mode. The mean is the average of the batch means; the variance is the
    average variance inside batches plus the variance of the batch means, so that the result is that
    of one large batch for the first layer, and nearly so for the deeper ones. The variance is the
    unbiased one, as PyTorch keeps it. Modes and momenta are as before afterwards. Layers that the
    model's own `train` leaves in evaluation mode keep what they have.

    Args:
        model: changed in place; nothing happens if it has no BatchNorm statistics.
        images: (n, ...) training images, or batches, as in `train`; 2,000 suffice. A target is not
            read and may be missing; a batch of one example is left out. A list of tensors with 4 or
            more dimensions is one of batches; a tuple is for model(*x), with no labels in it.
        augment: maps a batch of images and a generator to an augmented batch, as in `train`.
        seed: of the augmentation, which is drawn once for each image.
        batch_size: images per batch, at least 2, by default 512; of tensors alone.
        precision: `float32`, `tf32` or `bfloat16`, of the passes; statistics are float32.
        preprocess: as in `train`.
    """
    if not trained_batchnorm_layers(model):
        check_found(model)
        return
    check_batch_size(batch_size, images)
    batches = input_batches(images, model, batch_size)
    images = StatisticsImages(batches, augment, seed)
    set_statistics(model, images, precision=precision, preprocess=preprocess)


@torch.no_grad()
def set_statistics(
    model: nn.Module,
    images: StatisticsImages,
    *,
    precision: str,
    preprocess: Preprocess | None,
) -> None:
    """Do what `reestimate_batchnorm` says."""
    layers = trained_batchnorm_layers(model)
    before = {layer: [kept.clone() for kept in _running(layer)] for layer in layers}
    prepare = as_input(preprocess or images.preprocess, model)
    seen: dict[_BatchNorm, list[tuple[int, Tensor, Tensor]]] = {layer: [] for layer in layers}

    def collect(
        layer: _BatchNorm, positional: tuple[Any, ...], named: dict[str, Any], _output: Tensor
    ) -> None:
        # With momentum 1 the running statistics are those of the batch just seen: no second pass.
        inputs = positional[0] if positional else named["input"]
        mean, variance = _running(layer)
        seen[layer].append((inputs.numel() // inputs.shape[1], mean.clone(), variance.clone()))

    beside: list[_BatchNorm] = []
    momenta = {layer: layer.momentum for layer in layers}
    hooks = [layer.register_forward_hook(collect, with_kwargs=True) for layer in layers]
    try:
        with evaluation_mode(model):
            for layer in layers:
                layer.train()
                layer.momentum = 1.0
            for inputs in images:
                with compute_precision(precision, images.device):
                    call_model(model, prepare(inputs))
        for layer, batches in seen.items():
            # A layer that the forward pass skips keeps what it has.
            values = _combine(batches) if batches else before[layer]
            if not batches and not all(map(torch.equal, _running(layer), before[layer])):
                beside.append(layer)
            for running, value in zip(_running(layer), values, strict=True):
                running.copy_(value)
    finally:
        for hook in hooks:
            hook.remove()
        for layer, momentum in momenta.items():
            layer.momentum = momentum
    if beside:
        names = [name for name, module in model.named_modules() if module in beside]
        raise InputError(
            f"the model normalizes by the statistics of {first_names(names)} without calling the "
            "layer (torch.nn.functional.batch_norm), so that nobody sees what it is given: call "
            "the layer itself, or take what lies between the corners' own: "
            "batchnorm='interpolated'."
        )


def _running(layer: _BatchNorm) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var


def _combine(
    batches: Sequence[tuple[int, Tensor, Tensor]],
) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """Return mean and unbiased variance of what one layer has seen, from those of each batch."""
    sizes, all_means, all_variances = zip(*batches, strict=True)
    means, variances = torch.stack(all_means).double(), torch.stack(all_variances).double()
    counts = torch.tensor(sizes, dtype=torch.float64, device=means.device)
    total = sum(sizes)
    mean = counts @ means / total
    squares = (counts - 1) @ variances + counts @ (means - mean).square()
    return mean, squares / (total - 1)


def check_found(model: nn.Module) -> None:
    """Refuse a model with running statistics in layers that are no BatchNorm of PyTorch."""
    if names := other_statistics(model):
        raise InputError(
            f"the model keeps running statistics in {first_names(names)}, of a layer that is no "
            "torch.nn.BatchNorm: they can't be re-estimated. Replace the layer, or take what lies "
            "between the corners' own: batchnorm='interpolated'."
        )
