"""Take a shared folder back: its surface, and networks that predict.

Nothing in a folder is trusted: tensors and JSON are read, and code outside fourfold builds a
network only if the caller names it.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fourfold.data.augment import RandomShiftFlip
from fourfold.data.batches import Augment, as_device, have_their_size
from fourfold.errors import InputError
from fourfold.evaluation.batchnorm import reestimate_batchnorm
from fourfold.files.reading import reading, shortened
from fourfold.files.tensors import read_header
from fourfold.networks import MODELS, build_model, place
from fourfold.surfaces.modules import copy_module, load_state, module_of
from fourfold.surfaces.surface import Surface
from fourfold.zoo.classifier import Classifier
from fourfold.zoo.description import CONFIG, MODEL, OWN, STATISTICS, Description
from fourfold.zoo.statistics import Statistics

# What timm would read or download; all weights are the surface's.
READ_BY_TIMM = {"pretrained", "checkpoint_path", "cache_dir"}
READ_BY_TIMM |= {"pretrained_cfg", "pretrained_cfg_overlay"}


def load_surface(folder: str | Path) -> Surface:
    """Read the surface of a folder that `fourfold export` or `export_surface` wrote.

    Raises:
        InputError: if a file is missing, damaged, of a newer fourfold, or of another surface.
    """
    return _read(folder)[1]


def load_network(
    folder: str | Path,
    *point: float,
    images: Any = None,
    augment: Augment | None = None,
    model: nn.Module | None = None,
    allow: str | None = None,
    device: torch.device | str | None = None,
) -> Classifier:
    """Return the network at a point of a shared surface, in evaluation mode, ready to predict.

    At a corner it is the network that was trained, with its own BatchNorm statistics. Elsewhere
    these have been re-estimated for the points that the folder holds (those of a grid, by
    `fourfold export`), and at all others they are re-estimated here, on `images`, by the procedure
    that the folder states. Networks without BatchNorm need no images anywhere.

    Args:
        folder: where the files lie.
        point: coordinates, such as u and v of a square.
        images: training images, uint8 or floats in [0, 1], or batches, as in
            `reestimate_batchnorm`; used only where the folder holds no statistics.
        augment: of those images, if the folder was exported with a function that it can't hold.
        model: a module of the architecture, instead of building the one that the folder describes;
            it is copied, not changed.
        allow: the code outside fourfold that may build the network, as the message asks: `timm`,
            `transformers`, or a function `module:function` that is installed. The folder names its
            arguments, so allow what you trust.
        device: where the network goes; by default the CPU, or where `model` is.

    Raises:
        InputError: as `load_surface`; if the point is not on the surface; if the network can't be
            built, or not without `model` or `allow`; if statistics are missing and no images given.
    """
    described, surface, sha256 = _read(folder)
    at, where = surface.shape.check(point), Path(folder)
    statistics, state = described.batchnorm["statistics"], None
    if statistics == "reestimated":
        is_corner = at in surface.shape.corner_coordinates
        if is_corner and not surface.train_corners:
            statistics = OWN
        else:
            stored = Statistics.load(where / STATISTICS, sha256, surface.shape.dims)
            if (found := stored.at(at)) is not None:
                at, state = found
            elif images is None:
                raise InputError(
                    f"{folder} holds no BatchNorm statistics for {at}, but for "
                    f"{len(stored.points)} other points. Take the nearest, {stored.nearest(at)}, "
                    "or give training images to estimate them on (images=)."
                )
    values = surface.state_dict(*at)
    network = _build(described, where, allow) if model is None else copy_module(model)
    network = module_of(network, values)
    with reading(where / CONFIG, "description of its network"):
        if unknown := sorted((state or {}).keys() - values.keys()):
            raise InputError(f"{STATISTICS} has {unknown[:3]}, which the network doesn't.")
        load_state(network, values | (state or {}))
    if device is not None:
        network = network.to(device := as_device(device))
        images = images.to(device) if isinstance(images, Tensor) else images
    classifier = Classifier(network.eval(), described, at, statistics).eval()
    if statistics == "reestimated" and state is None:
        settings = described.reestimation
        if have_their_size(images):
            settings["batch_size"] = None
        reestimate_batchnorm(
            network,
            images,
            augment=_augmentation(described, augment),
            preprocess=classifier.preprocess,
            **settings,
        )
    return classifier


def _read(folder: str | Path) -> tuple[Description, Surface, str]:
    """Return the description and the surface of a folder, and the hash of the surface's tensors."""
    described, path = Description.read(folder), Path(folder) / MODEL
    surface, sha256 = Surface.load(path), read_header(path)["sha256"]
    if sha256 != described.surface["sha256"]:
        raise InputError(f"{path} is not the surface of {CONFIG}; get both files again, together.")
    return described, surface, sha256


def _build(described: Description, folder: Path, allow: str | None) -> nn.Module:
    settings = described.network
    if settings is None:
        raise InputError(
            f"{folder} describes no network: build it yourself, and pass model=, the module."
        )
    image, classes = described.image, described.classes
    assert image is not None
    assert classes is not None
    name = settings["name"]
    if name not in MODELS:
        raise InputError(
            f"{folder / CONFIG}: the network is {shortened(name)}; fourfold has "
            f"{', '.join(MODELS)}. Install a newer fourfold, or build it and pass model=."
        )
    builder = described.builder
    if builder is not None and allow != builder:
        raise InputError(
            f"{folder / CONFIG} asks for a network that {shortened(builder)} builds, code outside "
            f"fourfold, from {shortened({k: v for k, v in settings.items() if k != 'name'})}. If "
            f"you trust both, pass allow={builder!r:.80}; or build it yourself and pass model=."
        )
    with reading(folder / CONFIG, "description of a network", Exception):
        given = settings.get("arguments") or {}
        if name == "timm" and (refused := sorted(READ_BY_TIMM & set(given))):
            raise InputError(f"network.arguments has {refused}, which would read other files.")
        sizes = {"channels": image["channels"], "image_size": image["size"]}
        with torch.random.fork_rng(devices=[]):
            return place(build_model(**settings | sizes, classes=len(classes)))


def _augmentation(described: Description, given: Augment | None) -> Augment | None:
    stated = described.batchnorm["augment"]
    if given is not None or stated is None:
        return given
    if not isinstance(stated, dict):
        raise InputError(
            "the networks were trained with an augmentation that the folder can't hold: pass "
            "augment=, the function, as their statistics are of augmented images."
        )
    return RandomShiftFlip(**stated)
