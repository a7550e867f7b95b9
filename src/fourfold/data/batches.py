"""Batches of tensors that lie on the device, and their conversion to a network's input."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from fourfold.errors import InputError
from fourfold.surfaces.modules import input_dtype

Augment = Callable[[Tensor, torch.Generator], Tensor]
Preprocess = Callable[[Tensor], Tensor]


def iterate_batches(n: int, batch_size: int, smallest: int = 1) -> Iterator[slice]:
    """Yield slices that cover range(n); a last batch under `smallest` joins the one before."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    start = 0
    while start < n:
        end = min(start + batch_size, n)
        if n - end < smallest:
            end = n
        yield slice(start, end)
        start = end


def shuffled_batches(
    n: int, batch_size: int, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Iterator[Tensor]:
    """Yield the index batches of one epoch in random order; an incomplete last batch is dropped.

    The order is drawn where `generator` is and copied to `device` once.
    """
    order = torch.randperm(n, generator=generator, device=generator.device)
    yield from to_device(order, device)[: n // batch_size * batch_size].view(-1, batch_size)


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a small tensor to `device` without waiting for it."""
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)  # else the copy waits
    return tensor.to(device)


def to_float(images: Tensor) -> Tensor:
    """Map uint8 images to float32 in [0, 1]; leave floating tensors as they are."""
    return images if images.is_floating_point() else images.float().div_(255)


def as_input(preprocess: Preprocess, model: nn.Module) -> Preprocess:
    """Return `preprocess` followed by a cast of floating inputs to the model's dtype."""
    dtype = input_dtype(model)

    def prepare(images: Tensor) -> Tensor:
        inputs = preprocess(images)
        if dtype is None or not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            return inputs
        return inputs.to(dtype)

    return prepare


class Normalize:
    """Map uint8 images (batch, channels, height, width) to normalized float32, channels last.

    channels_last is the faster memory format of convolutions on CPU and GPU alike.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take per-channel mean and standard deviation of images in [0, 1]."""
        self.mean = 255 * torch.tensor(mean).view(1, -1, 1, 1)
        self.scale = 1 / (255 * torch.tensor(std).view(1, -1, 1, 1))

    def __call__(self, images: Tensor) -> Tensor:
        """Return (images / 255 - mean) / std."""
        if self.mean.device != images.device:  # once, not in every step
            self.mean, self.scale = self.mean.to(images.device), self.scale.to(images.device)
        floats = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
        return floats.sub_(self.mean).mul_(self.scale)
