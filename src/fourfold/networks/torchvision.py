"""Networks just as torchvision builds them, for RGB images, with random weights."""

from torch import nn

from fourfold.errors import InputError
from fourfold.networks._foreign import call, check_classifier, like
from fourfold.networks._torchvision import import_torchvision


def build(
    *, channels: int, image_size: int, classes: int, architecture: str = "resnet18"
) -> nn.Module:
    """Build `torchvision.models.<architecture>(num_classes=classes)`, made for ImageNet.

    Args:
        channels, classes: see `build_model`; 3 channels.
        image_size: pixels; the network must take them.
        architecture: a classifier, such as `resnet18` (stem 7x7, stride 2, max pooling; 11.2 M
            parameters) or `vgg16` (no BatchNorm, two hidden layers of 4,096 with dropout 0.5;
            134.3 M parameters).
    """
    if channels != 3:
        raise InputError(
            f"torchvision's networks take RGB images, got {channels} channels; choose the model "
            "resnet18, vgg16 or vit."
        )
    models = import_torchvision("models")
    known = models.list_models(module=models)
    if architecture not in known:
        raise InputError(
            f"network.architecture is {architecture!r}, which torchvision doesn't have; did you "
            f"mean {like(architecture, known)}?"
        )
    what = f"torchvision's {architecture}"
    model = call(what, getattr(models, architecture), num_classes=classes)
    return check_classifier(model, what, channels=channels, image_size=image_size, classes=classes)
