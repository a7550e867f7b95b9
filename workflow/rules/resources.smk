# What a job asks a cluster for: memory and time. A run on one machine takes notice of its number of
# GPUs alone, and no value here reruns a finished job. The rules of thumb are explained in
# docs/how-to/cluster.md.
import math

from fourfold.pipeline.devices import count_gpus
from fourfold.pipeline.targets import corner_count
from fourfold.surfaces.shapes import shape_of
from fourfold.training.phases import fit_passes

BASE_MB = 2000  # Python with torch, and 8x8 images; a job with digits took 0.5 GB
IMAGES_MB = 4000  # copies of a larger data set, and a batch's activations where there is no GPU
# Train images from which on IMAGES_MB is asked for; of fewer a part. Jobs with 10,000 of 32x32 pixels
# took 0.8 GB in all.
MANY_IMAGES = 40_000
CUDA_MB = 2000  # what CUDA keeps in a process's own memory
BASE_MINUTES = 5
DOWNLOAD_MINUTES = 60
MINUTES_PER_EPOCH = {"digits": 0.1}
OTHER_MINUTES_PER_EPOCH = 2
EPOCHS_PER_GRID_POINT = 0.5
SEARCHED_SHARE = 0.3  # of the images of a grid point, at points that are screened
EPOCHS_PER_COMPARISON = 5  # a few networks are evaluated
JOBS_PER_GPU = 2  # small ones share a large GPU well: while one prepares or saves, another computes

# Jobs of this machine that use a GPU at a time, unless --resources says; on a cluster each job gets
# one of its own. Each job takes the least used (pipeline/devices.py).
if workflow.resource_settings.nodes is None and "gpu" not in workflow.global_resources:
    workflow.global_resources["gpu"] = JOBS_PER_GPU * max(1, count_gpus())


def source_name(experiment):
    """Return the name of the source of an experiment's images, such as digits or parquet."""
    return config["datasets"][experiment["dataset"]]["source"]["name"]


def images_memory(dataset):
    """Return what the images of a data set take beyond the base, MB."""
    if config["datasets"][dataset]["source"]["name"] == "digits":
        return 0
    count = config["datasets"][dataset]["split"]["train_images"]
    return IMAGES_MB * min(1, (count or MANY_IMAGES) / MANY_IMAGES)


def parameter_count(model):
    """Return about how many parameters a network has, without building it: torch starts slowly."""
    if model["name"] == "vit":
        return model["layers"] * model["hidden"] * (4 * model["hidden"] + 2 * model["mlp"])
    for_each_squared_channel = {"resnet18": 2_728, "vgg16": 3_719}
    if model["name"] in for_each_squared_channel:
        return for_each_squared_channel[model["name"]] * model["width"] ** 2
    return 140_000_000  # torchvision's VGG16, and what is not known: other packages, the user's own


def plain_memory(wildcards, attempt):
    """Return the memory of a job without networks, MB."""
    return attempt * BASE_MB


def data_memory(wildcards, attempt):
    """Return the memory of a job that prepares a data set, MB; it reads all of its images."""
    is_small = config["datasets"][wildcards.dataset]["source"]["name"] == "digits"
    return attempt * (BASE_MB + (0 if is_small else IMAGES_MB))


def data_runtime(wildcards, attempt):
    """Return the time limit of a job that prepares, and perhaps downloads, a data set, minutes."""
    is_small = config["datasets"][wildcards.dataset]["source"]["name"] == "digits"
    return attempt * (BASE_MINUTES if is_small else DOWNLOAD_MINUTES)


def network_memory(vectors):
    """Return a resource function: MB of a job that keeps so many networks' parameters.

    What a GPU holds is counted as well, since a state is copied from there to be saved. The second
    attempt gets twice as much, and so on.
    """

    def megabytes(wildcards, attempt):
        experiment = EXPERIMENTS[wildcards.experiment]
        network = 4e-6 * parameter_count(experiment["network"])  # float32
        images = images_memory(experiment["dataset"])
        cuda = CUDA_MB * gpus(wildcards)
        total = BASE_MB + images + cuda + vectors(experiment, wildcards) * network
        return attempt * math.ceil(total / 100) * 100

    return megabytes


def shapes(experiment):
    """Return surface -> its shape."""
    return {
        name: shape_of(
            {
                **surface,
                "count": corner_count(
                    experiment["corners"][surface["corners"]], experiment["corners"]
                ),
            }
        )
        for name, surface in experiment["surfaces"].items()
    }


def control_point_count(experiment):
    """Return the control points of an experiment's largest surface."""
    return max(len(shape.control_point_names) for shape in shapes(experiment).values())


def moved_point_count(experiment):
    """Return how many of them a fit moves: those that are no corners, or all."""
    return max(
        len(
            shape.control_point_names
            if experiment["corners"][experiment["surfaces"][name]["corners"]]["kind"] == "free"
            else shape.free_rows
        )
        for name, shape in shapes(experiment).items()
    )


def training_vectors(experiment, wildcards):
    """Return parameters, gradient and two moments, and as many again while they are saved."""
    return 8


def evaluation_vectors(experiment, wildcards):
    """Return the control points, as read and on the device, and two networks."""
    return 2 * control_point_count(experiment) + 2


def plane_vectors(experiment, wildcards):
    """Return those, the plane in float64 with what it is made from, and what runs have kept."""
    return evaluation_vectors(experiment, wildcards) + 20 + len(experiment["training"]["keep"])


def fitting_vectors(experiment, wildcards):
    """Return what docs/scaling.md counts for a fit, and control points and moments once more."""
    fit = read("fit_bezier_surface", wildcards)["fit"]
    moments = 2 if fit["optimizer"]["name"] == "adamw" else 1
    saved = control_point_count(experiment) + moments * moved_point_count(experiment)
    return 2 * saved + 2 * fit["points_per_step"] + 1


def plain_runtime(wildcards, attempt):
    """Return the time limit of a job without networks, minutes."""
    return attempt * BASE_MINUTES


def network_runtime(epochs):
    """Return a resource function: minutes of a job as long as so many epochs of training."""

    def minutes(wildcards, attempt):
        experiment = EXPERIMENTS[wildcards.experiment]
        each = MINUTES_PER_EPOCH.get(source_name(experiment), OTHER_MINUTES_PER_EPOCH)
        return attempt * math.ceil(BASE_MINUTES + epochs(experiment, wildcards) * each)

    return minutes


def training_epochs(experiment, wildcards):
    return read("train_endpoint", wildcards)["training"]["epochs"]


def fitting_epochs(experiment, wildcards):
    return fit_passes(read("fit_bezier_surface", wildcards)["fit"])


def grid_epochs(experiment, wildcards):
    grid = experiment["grid"]

    def points(shape):
        if shape.dims == 1:
            return len(shape.lattice(grid["edge_points"] or grid["points"]))
        further = len(shape.edges) * grid["edge_points"] + grid["random_points"]
        if grid["search_images"] is not None:
            further *= SEARCHED_SHARE
        return len(shape.lattice(grid["points"])) + further

    return EPOCHS_PER_GRID_POINT * max(map(points, shapes(experiment).values()))


def plane_epochs(experiment, wildcards):
    share = 1 if experiment["grid"]["search_images"] is None else SEARCHED_SHARE
    return EPOCHS_PER_GRID_POINT * share * experiment["grid"]["plane_points"] ** 2


def comparison_epochs(experiment, wildcards):
    return EPOCHS_PER_COMPARISON
