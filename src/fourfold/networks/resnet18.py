"""ResNet18 of any width, with a stem for small or for ImageNet-sized images."""

import torch
from torch import Tensor, nn

from fourfold.networks._torchvision import import_torchvision

BasicBlock = import_torchvision("models.resnet").BasicBlock


class ResNet18(nn.Module):
    """Residual network of 2-2-2-2 basic blocks; at width 64 its tensors are torchvision's resnet18.

    Reference: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    def __init__(self, channels: int, classes: int, width: int, stem: str) -> None:
        """Build the layers; `build` documents the settings."""
        super().__init__()
        if stem == "3x3":
            self.conv1 = nn.Conv2d(channels, width, 3, stride=1, padding=1, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride, downsample), BasicBlock(outputs, outputs)
    )


def build(
    *, channels: int, image_size: int, classes: int, width: int = 64, stem: str = "3x3"
) -> ResNet18:
    """Build a ResNet18, which takes images of any size.

    Args:
        channels, image_size, classes: see `build_model`.
        width: channels of the first stage; 64 is the published network (11.2 M parameters).
        stem: `3x3` (stride 1, no pooling: images up to 64 pixels) or `imagenet` (7x7, stride 2,
            max pooling: torchvision's own, which shrinks a 32-pixel image to 8 before stage one).
    """
    return ResNet18(channels, classes, width, stem)
