"""A network with its preprocessing: what a shared folder gives."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fourfold.data.batches import Normalize, as_input, to_float
from fourfold.data.inputs import as_tensor, logits_of
from fourfold.errors import InputError
from fourfold.surfaces.shapes import Point
from fourfold.zoo.description import Description

_LEAST, _MOST = -0.5, 1.5  # of images that should be in [0, 1]: interpolation goes a little beyond


class Preprocessing:
    """The map from images, uint8 or floats in [0, 1], to a network's input, as described.

    Attributes:
        image_shape: (channels, height, width) of an image, None for any.
    """

    def __init__(self, described: Description) -> None:
        """Take what `image` and `normalize` state."""
        image, normalize = described.image, described.normalize
        self.image_shape = None if image is None else (image["channels"], *[image["size"]] * 2)
        self._normalize = None if normalize is None else Normalize(**normalize)

    def __call__(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std, of images in [0, 1]."""
        if self.image_shape is not None and images.shape[1:] != self.image_shape:
            raise InputError(
                f"images have the shape {tuple(images.shape)}; this network takes (n, "
                f"{', '.join(map(str, self.image_shape))})."
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise InputError(f"images are {images.dtype}; give uint8, or floats in [0, 1].")
        if images.is_floating_point() and images.numel():
            low, high = (float(end) for end in images.aminmax())
            if low < _LEAST or high > _MOST:
                raise InputError(
                    f"images are {images.dtype} from {low:.3g} to {high:.3g}; give uint8, or "
                    "floats in [0, 1]: divide those up to 255 by 255, and leave out your own "
                    "normalization, which this network's preprocessing does itself."
                )
        if self._normalize is None:
            return to_float(images)
        # It takes images in [0, 255].
        return self._normalize(images * 255 if images.is_floating_point() else images)


class Classifier(nn.Module):
    """Logits of images, by a network at one point of a surface.

    Attributes:
        network: the module behind the preprocessing.
        preprocess: the map from images to its input.
        classes: name of each logit, None if there are no names.
        point: coordinates on the surface.
        statistics: where its BatchNorm statistics are from: `none`, `own` (a corner's, of its
            training), `reestimated`, or `interpolated`.
    """

    def __init__(
        self, network: nn.Module, described: Description, point: Point, statistics: str
    ) -> None:
        """Put a network behind the preprocessing that a description states."""
        super().__init__()
        self.network, self.preprocess = network, Preprocessing(described)
        self.classes, self.point, self.statistics = described.classes, point, statistics

    def forward(self, images: Any) -> Float[Tensor, "images classes"]:
        """Return logits of images (n, channels, height, width): uint8, or floats in [0, 1]."""
        images = images if isinstance(images, Tensor) else as_tensor(images, "images")
        inputs = as_input(self.preprocess, self.network)(images)
        return logits_of(self.network(inputs), len(images))
