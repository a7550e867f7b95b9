"""About how many floating-point operations a job will take, before anything is built. No torch.

Only ratios matter: how long a job takes is reckoned from others of its rule (`estimate`), by what
both should cost. The table `cost` has what jobs did cost.
"""

from collections.abc import Mapping
from typing import Any

from fourfold.pipeline.targets import Targets
from fourfold.training.phases import fit_passes

_TRAININGS = ("train_endpoint", "train_fork", "fit_bezier_surface")
_EVALUATIONS = ("evaluate_grid", "measure_plane")
_PASSES = 3  # of an image that is passed backward too, in passes forward
# Source -> images in all, pixels along a side; of a user's own files neither is known.
_SOURCES = {"digits": (1_797, 8), "tiny-imagenet": (110_000, 64)}
_OTHER_SOURCE = (60_000, 32)  # as CIFAR


def predicted_flop(rule: str, wildcards: Mapping[str, str], targets: Targets) -> float:
    """Return about how many operations a job takes; 0 where they don't decide how long it takes.

    Args:
        rule: its name.
        wildcards: the job's.
        targets: of params.yaml.
    """
    if rule not in _TRAININGS + _EVALUATIONS:
        return 0.0
    experiment = wildcards["experiment"]
    of, surface = targets.experiments[experiment], wildcards.get("surface")
    of_job = {k: wildcards[k] for k in ("surface", "corners", "run") if k in wildcards}
    read = targets.read(rule, experiment, **of_job)
    data = targets.params["datasets"][of["dataset"]]
    every, side = _SOURCES.get(data["source"]["name"], _OTHER_SOURCE)
    side = data["source"].get("size") or side
    val, test = data["split"]["val_images"], data["split"]["test_images"] or every // 6
    train = data["split"]["train_images"] or every - val - test
    if rule == "fit_bezier_surface":
        images = _PASSES * train * fit_passes(read["fit"])
    elif rule in _EVALUATIONS:
        grid, shape = read["grid"], targets.shape(experiment, surface or targets.plane(experiment))
        few = grid["search_images"]
        prepared = 0 if of["network"]["name"] == "vit" else grid["batchnorm_images"] or train
        searched = (
            prepared + min(few or train, train) + min(few or val, val) + min(few or test, test)
        )
        if rule == "measure_plane":
            images = searched * grid["plane_points"] ** 2
        else:
            lattice = len(shape.lattice(grid["points"]))
            further = len(shape.edges) * grid["edge_points"] + grid["random_points"]
            images = (
                lattice * (prepared + (grid["train_images"] or train) + val + test)
                + further * searched
            )
    else:
        epochs = read["training"]["epochs"]
        if rule == "train_fork" and not of["corners"][wildcards["corners"]].get("then"):
            epochs -= targets.fork_epoch(experiment, wildcards["corners"])
        images = epochs * (_PASSES * train + val)
    return float(images * flop_of_image(of["network"], side))


def flop_of_image(network: Mapping[str, Any], side: int) -> float:
    """Return about how many operations one image takes forward, without building the network.

    Args:
        network: as in params.yaml.
        side: pixels of the image along each side.
    """
    if network["name"] == "vit":
        tokens = (side // network["patch_size"]) ** 2 + 1
        hidden = network["hidden"]
        of_token = 8 * hidden**2 + 4 * hidden * network["mlp"] + 4 * tokens * hidden
        return float(network["layers"] * tokens * of_token)
    width = network.get("width", 64)
    if network["name"] == "vgg16":
        return float(width**2 * _vgg16_flop(side))
    # ResNet18, and others of which nothing is known: 1.1e9 with 64 channels and 32x32 pixels.
    stride = 1 if network.get("stem") == "3x3" else 4
    return 265.0 * float(width * side / stride) ** 2


def _vgg16_flop(side: int) -> int:
    """Return the operations of a VGG16 of width 1; see `networks.vgg16` for where it pools."""
    flop, before, poolings = 0, 0, min(5, side.bit_length() - 1)
    for block, (convolutions, channels) in enumerate(((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))):
        flop += 18 * side**2 * channels * (before + (convolutions - 1) * channels)
        before = channels
        side //= 2 if block >= 5 - poolings else 1
    return flop
