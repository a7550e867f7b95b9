"""Networks: for small images, with size settings; and those of other packages and of the user."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn

from fourfold.errors import InputError

# Each has a module of its name, with `build`.
MODELS = ("resnet18", "vgg16", "vit", "torchvision", "timm", "transformers", "python")


def build_model(
    name: str, *, channels: int, image_size: int, classes: int, **settings: Any
) -> nn.Module:
    """Build a randomly initialized network for images of shape (channels, image_size, image_size).

    Args:
        name: one of `MODELS`.
        channels: image channels, 1 (grey) or 3 (RGB).
        image_size: height and width of an image, pixels.
        classes: number of classes = width of the logits.
        **settings: of the network, see its builder (`width`, `architecture`, ...).

    Returns:
        A module that maps (batch, channels, image_size, image_size) float images to
        (batch, classes) logits, or to an object that has them as `logits`. Its initialization
        draws from torch's global generator.
    """
    if name not in MODELS:
        raise InputError(f"network.name is {name!r}; choose one of {', '.join(MODELS)}.")
    builder: Callable[..., nn.Module] = import_module(f"{__name__}.{name}").build
    return builder(channels=channels, image_size=image_size, classes=classes, **settings)


def place(model: nn.Module, device: torch.device | str | None = None) -> nn.Module:
    """Move a network to a device, if one is given, in the memory format that its images have."""
    tensors = (*model.parameters(), *model.buffers())
    if any(tensor.is_meta for tensor in tensors):
        raise InputError(
            "the network is on the meta device, where nothing has values; let its builder make it "
            "on the CPU."
        )
    # With five axes a tensor has no such format, and torch would refuse the network.
    has_volumes = any(tensor.dim() == 5 for tensor in tensors)
    memory_format = None if has_volumes else torch.channels_last
    # torch's types know no memory_format of a module.
    model.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    return model
