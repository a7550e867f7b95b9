"""Networks of the package timm, with random weights unless its arguments say otherwise."""

from collections.abc import Mapping
from types import ModuleType
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
    timm = _timm_with(architecture)
    what, given = f"timm's {architecture}", dict(arguments or {})
    model = call(
        what,
        timm.create_model,
        architecture,
        **{"num_classes": classes, "in_chans": channels, **given},
    )
    return check_classifier(model, what, channels=channels, image_size=image_size, classes=classes)


def expected_input(
    architecture: str, image_size: int | None = None
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return which images timm's data config of an architecture is for.

    Args:
        architecture: as for `build`.
        image_size: pixels, if not those of the config.

    Returns:
        Pixels, and settings for `networks` in params.yaml: `normalize`; and `arguments` with
        `img_size`, if the network takes one and its default is another.
    """
    timm = _timm_with(architecture)
    found = call(f"timm's {architecture}", timm.get_pretrained_cfg, architecture, False)
    config = timm.data.resolve_data_config(pretrained_cfg=found.to_dict())
    _, height, width = config["input_size"]
    size = height if image_size is None else image_size
    settings: dict[str, dict[str, Any]] = {}
    # timm's own mark of networks that take `img_size`.
    if found.fixed_input_size and (size, size) != (height, width):
        settings["arguments"] = {"img_size": size}
    settings["normalize"] = {key: list(config[key]) for key in ("mean", "std")}
    return size, settings


def _timm_with(architecture: str) -> ModuleType:
    """Import timm, and refuse an architecture that it doesn't have."""
    import_torchvision("models")  # timm imports it
    timm = import_optional("timm")
    if not timm.is_model(architecture):
        raise InputError(
            f"network.architecture is {architecture!r}, which timm doesn't have; did you mean "
            f"{like(architecture, timm.list_models())}?"
        )
    return timm
