"""How many images a job will pass through a network, and how many operations that is. No torch.

The one place that reckons it before a job has run: for the time left (`estimate`), for time limits
on a cluster, for docs/scaling.md. What jobs did pass is in the table `cost`.
"""

from collections.abc import Mapping
from typing import Any

from fourfold.pipeline.targets import Targets
from fourfold.surfaces.shapes import Shape
from fourfold.training.phases import fit_passes

_TRAININGS = ("train_endpoint", "train_fork", "fit_bezier_surface")
_EVALUATIONS = ("evaluate_grid", "measure_plane")
_PASSES = 3  # of an image that is passed backward too, in passes forward
_SPANNING = 3  # networks that the plane goes through
_WORST = 2  # points that are searched for in each split: in nll, in accuracy
# Source -> images to split, published test images, pixels along a side.
_CIFAR = (50_000, 10_000, 32)
_SOURCES = {"digits": (1_797, 0, 8), "tiny-imagenet": (100_000, 10_000, 64)}
_SOURCES |= {"cifar10": _CIFAR, "cifar100": _CIFAR}

Sizes = tuple[int, ...]  # images of train, val and test


def predicted_flop(rule: str, wildcards: Mapping[str, str], targets: Targets) -> float:
    """Return about how many operations a job takes; 0 where they don't decide how long it takes.

    Args:
        rule: its name.
        wildcards: the job's.
        targets: of params.yaml.
    """
    if not (passes := predicted_passes(rule, wildcards, targets)):
        return 0.0
    of = targets.experiments[wildcards["experiment"]]
    _, side = image_sizes(targets.params["datasets"][of["dataset"]])
    return passes * flop_of_image(of["network"], side)


def predicted_passes(
    rule: str,
    wildcards: Mapping[str, str],
    targets: Targets,
    *,
    has_batchnorm: bool | None = None,
    again: int | None = None,
) -> int:
    """Return how many images pass forward, plus twice those backward: a pass back costs as two.

    It is what the job will count, but that classes which are listed are taken for all there are.
    `has_batchnorm` says whether the network has BatchNorm, by default all but a ViT; of `again` see
    `grid_evaluations`, of the others `predicted_flop`.
    """
    if rule not in _TRAININGS + _EVALUATIONS:
        return 0
    experiment, surface = wildcards["experiment"], wildcards.get("surface")
    of, corners = targets.experiments[experiment], wildcards.get("corners")
    read = targets.read(rule, experiment, surface, corners, wildcards.get("run"))
    sizes, _ = image_sizes(targets.params["datasets"][of["dataset"]])
    if has_batchnorm is None:
        has_batchnorm = of["network"]["name"] != "vit"
    if rule == "fit_bezier_surface":
        return fit_passes(read["fit"]) * _PASSES * _in_batches(sizes[0], read["fit"])
    if rule in _TRAININGS:
        training = read["training"]
        epochs, kept, classes = training["epochs"], len(training["keep"]), training["classes"]
        seen = round(classes * sizes[0]) if isinstance(classes, float) else sizes[0]
        averaged = seen if training["ema"] is not None and has_batchnorm else 0
        if corners is not None:  # it goes on from what a run kept, and keeps nothing on its way
            kept = averaged = 0
            if of["corners"][corners].get("then") is None:
                epochs -= targets.fork_epoch(experiment, corners)
        an_epoch = _PASSES * _in_batches(seen, training) + sizes[1]
        return int(epochs * an_epoch) + (kept + 1) * sum(sizes) + averaged
    grid = read["grid"]
    if surface is None:
        shown = min(sizes[0], grid["train_images"]), sizes[2]
        few = tuple(min(n, grid["search_images"] or n) for n in shown)
        evaluations, own = [(grid["plane_points"] ** 2 + _SPANNING, few)], _SPANNING
    else:
        shape = targets.shape(experiment, surface)
        evaluations, own = grid_evaluations(shape, grid, sizes, again), len(shape.corner_rows)
        if of["corners"][of["surfaces"][surface]["corners"]]["kind"] == "free":
            own = 0  # a fit moved them: they are not evaluated with statistics of their own
    is_repaired = grid["batchnorm"] == "repaired"
    is_measured = is_repaired or (has_batchnorm and grid["batchnorm"] == "reestimated")
    prepared = min(sizes[0], grid["batchnorm_images"]) if is_measured else 0
    images = sum(points * (prepared + sum(splits)) for points, splits in evaluations)
    return int(images + own * sum(evaluations[0][1]) * (has_batchnorm or is_repaired))


def _in_batches(images: int, settings: Mapping[str, Any]) -> int:
    """Return how many of some images an epoch passes: an incomplete batch is left out."""
    size: int = settings["batch_size"]
    return images // size * size


def grid_evaluations(
    shape: Shape, grid: Mapping[str, Any], sizes: Sizes, again: int | None = None
) -> list[tuple[int, Sizes]]:
    """Return how many points of a surface are evaluated, and on how many images of each split.

    First the lattice, then its center if that lies beside it, the edges, the random points, and
    those of both that are evaluated once more: `again`, by default as many as there can be.
    """
    whole = (min(sizes[0], grid["train_images"]), *sizes[1:])
    few = tuple(min(n, grid["search_images"] or n) for n in whole)
    along, is_line = grid["edge_points"], shape.dims == 1
    lattice = set(shape.lattice(along if along and is_line else grid["points"]))
    edges = sum(point not in lattice for point in shape.edge_points(0 if is_line else along))
    random = 0 if shape.is_discrete else grid["random_points"]
    searched = [(edges, few), (random, (few[0], whole[1], few[2]))]
    if again is None:
        most = _WORST * len(whole)
        again = sum(min(points, most) for points, splits in searched if splits != whole)
    center = int(shape.center not in lattice)
    return [(len(lattice), whole), (center, whole), *searched, (again, whole)]


def image_sizes(dataset: Mapping[str, Any]) -> tuple[Sizes, int]:
    """Return the images of the splits of a data set in params.yaml, and the pixels of a side.

    Of a user's own files nothing is known before they are read: they are taken for those of CIFAR,
    or for ten times as many as go to val, where that is more.
    """
    split, source = dataset["split"], dataset["source"]
    every, published, side = _SOURCES.get(source["name"], _CIFAR)
    val, test = split["val_images"], split["test_images"] or published
    if source["name"] not in _SOURCES:
        every = max(every, 10 * val)
    train = split["train_images"] or every - val - (0 if published else test)
    return (train, val, test), source.get("size") or side


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
    # ResNet18; and others, of which nothing is known, as if they were one for small images: 1.1e9
    # with 32x32 pixels, more than torchvision's VGG16.
    stride = 4 if network.get("stem") == "imagenet" else 1
    return 265.0 * float(width * side / stride) ** 2


def _vgg16_flop(side: int) -> int:
    """Return the operations of a VGG16 of width 1; see `networks.vgg16` for where it pools."""
    flop, before, poolings = 0, 0, min(5, side.bit_length() - 1)
    for block, (convolutions, channels) in enumerate(((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))):
        flop += 18 * side**2 * channels * (before + (convolutions - 1) * channels)
        before = channels
        side //= 2 if block >= 5 - poolings else 1
    return flop
