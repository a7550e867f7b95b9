"""Image classifiers of the package transformers, from a configuration, with random weights."""

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
    config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a class of transformers from its configuration class.

    Args:
        channels, image_size, classes: see `build_model`; they are the configuration's `num_labels`,
            and its `num_channels` and `image_size` where it has them.
        architecture: a class for image classification, such as `ViTForImageClassification`.
        config: what differs from the defaults of its configuration.
    """
    import_torchvision("models")  # transformers imports it
    transformers = import_optional("transformers")
    architectures = [n for n in dir(transformers) if n.endswith("ForImageClassification")]
    if architecture not in architectures:
        raise InputError(
            f"network.architecture is {architecture!r}, no image classifier of transformers; did "
            f"you mean {like(architecture, architectures)}?"
        )
    network = getattr(transformers, architecture)
    known = network.config_class().to_dict().keys() - {"id2label", "label2id"} | {"num_labels"}
    if unknown := sorted((config or {}).keys() - known):
        raise InputError(
            f"network.config has {unknown}, which {network.config_class.__name__} doesn't; did you "
            f"mean {like(unknown[0], known)}?"
        )
    sizes = {"num_channels": channels, "image_size": image_size}
    given = {"num_labels": classes, **{k: v for k, v in sizes.items() if k in known}}
    made = call(network.config_class.__name__, network.config_class, **given | dict(config or {}))
    return check_classifier(
        call(architecture, network, made),
        architecture,
        channels=channels,
        image_size=image_size,
        classes=classes,
    )
