"""Networks just as torchvision builds them, for RGB images of any size."""

from collections.abc import Callable

from torch import nn

from fourfold.errors import InputError
from fourfold.networks._torchvision import import_torchvision


def build(
    *, channels: int, image_size: int, classes: int, architecture: str = "resnet18"
) -> nn.Module:
    """Build torchvision's unmodified network, made for ImageNet, with random weights.

    Args:
        channels, classes: see `build_model`; 3 channels.
        image_size: pixels; both networks take any size (VGG16 from 32 up).
        architecture: `resnet18` (stem 7x7, stride 2, max pooling; 11.2 M parameters) or `vgg16`
            (no BatchNorm, two hidden layers of 4,096 with dropout 0.5; 134.3 M parameters).
    """
    if channels != 3:
        raise InputError(
            f"torchvision's networks take RGB images, got {channels} channels; choose the model "
            "resnet18, vgg16 or vit."
        )
    if architecture == "vgg16" and image_size < 32:
        raise InputError(f"torchvision's vgg16 needs images of 32 pixels, got {image_size}.")
    builder: Callable[..., nn.Module] = getattr(import_torchvision("models"), architecture)
    return builder(num_classes=classes)
