# What a job asks a cluster for: memory and time. A run on one machine takes notice of its number of
# GPUs alone, and no value here reruns a finished job. The rules of thumb are explained in
# docs/how-to/cluster.md.
import math

from fourfold.pipeline.devices import count_gpus
from fourfold.pipeline.work import predicted_flop, predicted_passes

BASE_MB = 2000  # Python with torch, and 8x8 images; a job with digits took 0.5 GB
IMAGES_MB = 4000  # copies of a larger data set, and a batch's activations where there is no GPU
# Train images from which on IMAGES_MB is asked for; of fewer a part. Jobs with 10,000 of 32x32 pixels
# took 0.8 GB in all.
MANY_IMAGES = 40_000
CUDA_MB = 2000  # what CUDA keeps in a process's own memory
BASE_MINUTES = 5
DOWNLOAD_MINUTES = 60
COMPARISON_MINUTES = 15  # a few networks are evaluated, or permuted: that took up to 3
# Operations that a job at least does in a second. Measured: one thread of a CPU 2e10 (a small ViT
# beside other jobs) to 18e10 (ResNet18 in bfloat16), an H100 1e14 (ResNet18 as published).
THREAD_FLOPS = 1e10
GPU_FLOPS = 5e12
# Passes of an image, where Python takes the time and not arithmetic; measured: 18,000 on an H100
# that five small jobs shared.
PASSES_PER_SECOND = 5_000
JOBS_PER_GPU = 2  # small ones share a large GPU well: while one prepares or saves, another computes

# Jobs of this machine that use a GPU at a time, unless --resources says; on a cluster each job gets
# one of its own. Each job takes the least used (pipeline/devices.py).
if workflow.resource_settings.nodes is None and "gpu" not in workflow.global_resources:
    workflow.global_resources["gpu"] = JOBS_PER_GPU * max(1, count_gpus())


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


def control_point_counts(name):
    """Return the most control points that a surface of an experiment has, and that a fit moves."""
    shapes = {one: TARGETS.shape(name, one) for one in TARGETS.surfaces(name)}
    free = TARGETS.corner_sets(name, "free")  # whose corners move too
    counts = {one: len(shape.control_point_names) for one, shape in shapes.items()}
    moved = (
        counts[one] if config["surfaces"][one]["corners"] in free else len(shape.free_rows)
        for one, shape in shapes.items()
    )
    return max(counts.values()), max(moved)


def training_vectors(experiment, wildcards):
    """Return parameters, gradient and two moments, and as many again while they are saved."""
    return 8


def evaluation_vectors(experiment, wildcards):
    """Return the control points, as read and on the device, and two networks."""
    return 2 * control_point_counts(wildcards.experiment)[0] + 2


def plane_vectors(experiment, wildcards):
    """Return those, the plane in float64 with what it is made from, and what runs have kept."""
    return evaluation_vectors(experiment, wildcards) + 20 + len(experiment["training"]["keep"])


def fitting_vectors(experiment, wildcards):
    """Return what docs/scaling.md counts for a fit, and control points and moments once more."""
    fit = read("fit_bezier_surface", wildcards)["fit"]
    moments = 2 if fit["optimizer"]["name"] == "adamw" else 1
    points, moved = control_point_counts(wildcards.experiment)
    return 2 * (points + moments * moved) + 2 * fit["points_per_step"] + 1


def plain_runtime(wildcards, attempt):
    """Return the time limit of a job without networks, minutes."""
    return attempt * BASE_MINUTES


def network_runtime(rule):
    """Return a resource function: minutes of a rule's job, by the work that is foretold for it."""

    def minutes(wildcards, attempt):
        job = rule, dict(wildcards.items()), TARGETS
        speed = GPU_FLOPS if gpus(wildcards) else THREAD_FLOPS * experiment_threads(wildcards)
        passes = predicted_passes(*job)
        seconds = max(predicted_flop(*job) / speed, passes / PASSES_PER_SECOND)
        least = BASE_MINUTES if passes else COMPARISON_MINUTES
        return attempt * math.ceil(least + seconds / 60)

    return minutes
