"""Write a surface into a folder that others can load, in the layout of model hubs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fourfold.data.augment import RandomShiftFlip
from fourfold.data.batches import Augment, input_batches
from fourfold.errors import InputError, check_count
from fourfold.evaluation.grid import batchnorm_mode, predict
from fourfold.evaluation.precision import check_precision
from fourfold.files.atomic import atomic_folder, write_text
from fourfold.files.tensors import read_header
from fourfold.surfaces.modules import check_buffers, module_of
from fourfold.surfaces.shapes import Point
from fourfold.surfaces.surface import Surface
from fourfold.zoo.card import render_card, render_example
from fourfold.zoo.classifier import Classifier, Preprocessing
from fourfold.zoo.description import (
    CARD,
    EXAMPLE,
    MODEL,
    OWN,
    STATISTICS,
    Description,
)
from fourfold.zoo.load import READ_BY_TIMM, load_network
from fourfold.zoo.statistics import measure_statistics

_IMAGE = ("channels", "size")


def export_surface(
    surface: Surface,
    folder: str | Path,
    model: nn.Module,
    *,
    network: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    image_shape: tuple[int, int, int] | None = None,
    normalize: Mapping[str, Sequence[float]] | None = None,
    points: Sequence[Point] | int = 11,
    images: Any = None,
    augment: Augment | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    precision: str = "float32",
    batchnorm: str | None = None,
    license: str = "unknown",
    on_point: Callable[[int, int], None] | None = None,
) -> None:
    """Write a surface and all that its networks need into a new folder.

    BatchNorm statistics are no part of a surface, and the folder holds no training images. So they
    are re-estimated here, at `points`, and stored; corners keep their own.

    Args:
        surface: the surface.
        folder: to write; it must be empty, or not there.
        model: any module of the corners' architecture; it is copied, not changed.
        network: what builds it, as in params.yaml: `{"name": "resnet18", "width": 16}`, or
            `{"name": "python", "builder": "module:function", "arguments": {...}}`; by default
            nothing, and who loads a network passes `model`.
        classes: name of each logit; needed with `network`.
        image_shape: (channels, size, size) of an image; needed with `network`.
        normalize: `mean` and `std` of each channel in [0, 1] that the networks were trained with;
            by default uint8 images are divided by 255, and that is all.
        points: where to re-estimate, or how many along each axis of a regular grid; the center is
            always among them.
        images: training images to re-estimate on, uint8 or floats in [0, 1], or batches; needed if
            the model has BatchNorm.
        augment: of the networks' training. `RandomShiftFlip` is described in the folder; another
            function is asked for by whoever loads a network at further points.
        seed, batch_size, precision: see `reestimate_batchnorm`.
        batchnorm: `reestimated`, or `interpolated` for statistics that can't be, of layers that
            aren't PyTorch's; by default what the model needs.
        license: of the networks, an identifier of model hubs, such as `mit`.
        on_point: progress report, called with (points done, points).

    Raises:
        InputError: if the folder isn't empty, if images are missing, or if what is described is not
            the surface's network.
    """
    if image_shape is not None and not _is_square(image_shape):
        raise InputError(f"image_shape is {image_shape!r}; give (channels, size, size), a square.")
    if batchnorm not in (None, "reestimated", "interpolated"):
        raise InputError(f"batchnorm is {batchnorm!r}; choose reestimated, interpolated or None.")
    if isinstance(classes, str) or not isinstance(classes, Iterable | None):
        raise InputError(f"classes is {classes!r}; give a list of names, one for each logit.")
    for name, value in (("network", network), ("normalize", normalize)):
        if not isinstance(value, Mapping | None):
            raise InputError(f"{name} is {value!r}; give a dictionary, see export_surface.")
    check_count("seed", seed)
    check_precision(precision)
    if not isinstance(license, str):
        raise InputError(f"license is {license!r}; give an identifier such as 'mit'.")
    described = Description(
        network=None if network is None else portable(network),
        classes=None if classes is None else [*map(str, classes)],
        image=None if image_shape is None else dict(zip(_IMAGE, image_shape[:2], strict=True)),
        normalize=None if normalize is None else {k: _numbers(k, x) for k, x in normalize.items()},
        batchnorm={
            "statistics": batchnorm_mode(module_of(model, surface.corner()), batchnorm),
            "augment": describe_augmentation(augment),
            **{"seed": int(seed), "batch_size": batch_size, "precision": precision},
        },
        points={"center": [*surface.shape.center]},
    )
    with atomic_folder(folder) as temporary:
        of = {"points": points, "images": images, "augment": augment, "on_point": on_point}
        described = write_folder(temporary, surface, model, described, **of)
        write_text(temporary / CARD, render_card(described, license))


def _is_square(shape: Any) -> bool:
    return isinstance(shape, (tuple, list)) and len(shape) == 3 and shape[1] == shape[2]


def _numbers(key: str, values: Any) -> list[float]:
    try:
        return [*map(float, values)]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"normalize[{key!r}] is {values!r}; give a number for each channel, such as [0.5]."
        ) from error


def write_folder(
    folder: Path,
    surface: Surface,
    model: nn.Module,
    described: Description,
    *,
    points: Sequence[Point] | int,
    images: Any = None,
    augment: Augment | None = None,
    on_point: Callable[[int, int], None] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Description:
    """Write everything but the card into an empty folder, and load it again to check it.

    Args:
        folder: there, and empty.
        surface, model, points, images, augment, on_point: see `export_surface`.
        described: all but its surface.
        metadata: what made the surface, for the header of its file.

    Returns:
        The description, complete.
    """
    check_buffers(module_of(model, surface.corner()), surface.layout.names)
    surface.save(folder / MODEL, metadata)
    of_surface = {
        "name": surface.name,
        "shape": surface.shape.described(),
        "train_corners": surface.train_corners,
        "parameters": sum(p.numel() for p in module_of(model, surface.corner()).parameters()),
        "sha256": read_header(folder / MODEL)["sha256"],
    }
    described = replace(described, surface=of_surface)
    described.check()
    described.write(folder)
    if described.batchnorm["statistics"] == "reestimated":
        if images is None:
            raise InputError(
                "the model has BatchNorm, whose statistics are re-estimated on training images: "
                "give images."
            )
        statistics = measure_statistics(
            surface,
            model,
            stored_points(surface, points),
            images,
            augment=augment,
            preprocess=Preprocessing(described),
            on_point=on_point,
            **described.reestimation,
        )
        statistics.save(folder / STATISTICS, of_surface["sha256"])
    write_text(folder / EXAMPLE, render_example(described))
    for file in folder.glob("*.safetensors"):  # which writes them for their owner alone
        file.chmod((folder / EXAMPLE).stat().st_mode)
    own = model if described.network is None else None
    network = load_network(
        folder, *surface.shape.center, model=own, allow=described.builder, device="cpu"
    )
    _check_classes(network, described, images)
    return described


def _check_classes(network: Classifier, described: Description, images: Any) -> None:
    """Refuse names of another number of classes, if it is known what an image is."""
    if described.classes is None or (images is None and network.preprocess.image_shape is None):
        return
    if network.preprocess.image_shape is not None:
        images = torch.zeros(1, *network.preprocess.image_shape)
    given, _ = next(iter(input_batches(images, network, 1, device="cpu").in_order(0)))
    logits = predict(network, given)
    if logits.shape[1] != len(described.classes):
        raise InputError(
            f"classes has {len(described.classes)} names, but the network has {logits.shape[1]} "
            "outputs; give a name for each."
        )


def stored_points(surface: Surface, points: Sequence[Point] | int) -> list[Point]:
    """Return the points to store statistics of; without corners that have their own."""
    shape = surface.shape
    given = shape.lattice(points) if isinstance(points, int) else shape.check_all(points)
    own = () if surface.train_corners else shape.corner_coordinates
    return [point for point in dict.fromkeys([shape.center, *given]) if point not in own]


def describe_augmentation(augment: Augment | None) -> dict[str, Any] | str | None:
    """Return the settings of an augmentation, or `own` for one that has none.

    What derives from `RandomShiftFlip` may do anything else.
    """
    if type(augment) is RandomShiftFlip:
        return {"shift": augment.shift, "flip": augment.flip}
    return None if augment is None else OWN


def portable(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's settings without what they would read elsewhere, and `normalize`."""
    kept = {key: value for key, value in network.items() if key != "normalize"}
    if network.get("name") == "timm":
        arguments = kept.get("arguments") or {}
        kept["arguments"] = {k: v for k, v in arguments.items() if k not in READ_BY_TIMM}
    return kept
