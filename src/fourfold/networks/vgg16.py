"""VGG16 with BatchNorm, of any width, for images from 2 pixels up."""

import torch
from torch import Tensor, nn

from fourfold.errors import InputError
from fourfold.networks._torchvision import import_torchvision

make_layers = import_torchvision("models.vgg").make_layers

# Blocks of (convolutions, channels in units of the first block's); a pooling follows each block.
_BLOCKS = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions with BatchNorm in five blocks, then three linear layers.

    Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015. The linear layers have the width of the last block, as usual for CIFAR.
    """

    def __init__(
        self, channels: int, image_size: int, classes: int, width: int, dropout: float
    ) -> None:
        """Build the layers; `build` documents the settings."""
        super().__init__()
        self.features = make_layers(_configuration(image_size, width), batch_norm=True)
        if channels != 3:  # make_layers always starts from RGB
            self.features[0] = nn.Conv2d(channels, width, 3, padding=1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        hidden = 8 * width
        self.classifier = nn.Sequential(
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


def _configuration(image_size: int, width: int) -> list[int | str]:
    """Layer list for torchvision's make_layers; the first poolings are left out for small images.

    Leaving out the last ones instead would run 3x3 convolutions on single pixels, where eight of
    nine weights see only padding, get no gradient, and would blur every distance between networks.
    """
    poolings = min(len(_BLOCKS), image_size.bit_length() - 1)
    layers: list[int | str] = []
    for block, (convolutions, multiple) in enumerate(_BLOCKS):
        layers += [width * multiple] * convolutions
        if block >= len(_BLOCKS) - poolings:
            layers.append("M")
    return layers


def build(
    *, channels: int, image_size: int, classes: int, width: int = 64, dropout: float = 0.0
) -> VGG16:
    """Build a VGG16 with BatchNorm.

    Args:
        channels, classes: see `build_model`.
        image_size: pixels; below 32 the first poolings are left out, as many as needed.
        width: channels of the first block; 64 is the published network (15.2 M parameters here).
        dropout: probability of dropping an activation of the two hidden linear layers.
    """
    if image_size < 2:
        raise InputError(f"VGG16 needs images of at least 2 pixels, got {image_size}.")
    return VGG16(channels, image_size, classes, width, dropout)
