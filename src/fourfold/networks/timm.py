"""Networks of the package timm, with random weights unless its arguments say otherwise."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fourfold.errors import InputError
from fourfold.networks._foreign import call, check_classifier, import_optional, like
from fourfold.networks._torchvision import import_torchvision


def build(
    *,
    channels: int,
    image_size: int,
    classes: int,
    architecture: str,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build `timm.create_model(architecture, num_classes=..., in_chans=..., **arguments)`.

    Args:
        channels, classes: see `build_model`.
        image_size: pixels; networks of a fixed size need it in `arguments` as well, as `img_size`.
        architecture: such as `resnet10t`; `timm.list_models()` lists them.
        arguments: further ones.
    """
    import_torchvision("models")  # timm imports it
    timm = import_optional("timm")
    if not timm.is_model(architecture):
        raise InputError(
            f"network.architecture is {architecture!r}, which timm doesn't have; did you mean "
            f"{like(architecture, timm.list_models())}?"
        )
    what, given = f"timm's {architecture}", dict(arguments or {})
    model = call(
        what,
        timm.create_model,
        architecture,
        **{"num_classes": classes, "in_chans": channels, **given},
    )
    return check_classifier(model, what, channels=channels, image_size=image_size, classes=classes)
