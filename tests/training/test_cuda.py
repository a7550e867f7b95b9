"""What must hold on a GPU as well; skipped where there is none."""

import pytest
import torch
from conftest import CORNERS, differing, make_images, make_network, make_surface
from pandas.testing import assert_frame_equal

from fourfold.data.augment import RandomShiftFlip
from fourfold.data.batches import Normalize
from fourfold.evaluation.grid import evaluate_grid, predict
from fourfold.training.fit import fit
from fourfold.training.snapshots import Snapshots
from fourfold.training.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
]
DEVICE = "cuda"
NETWORKS = ["batchnorm", "layernorm", "tied", "frozen", "buffers", "resnet18", "vgg16", "vit"]
COMMON = {"lr": 0.05, "seed": 0, "batch_size": 8}


def images_on(device):
    images, labels = make_images(24)
    return images.to(device), labels.to(device)


@pytest.mark.parametrize("name", NETWORKS)
def test_corners_are_the_checkpoints_after_a_fit(name):
    surface, (images, labels) = make_surface(name), images_on(DEVICE)
    fit(surface, make_network(name), images, labels, epochs=1, **COMMON)
    for seed, corner in enumerate(CORNERS):
        network, checkpoint = make_network(name).to(DEVICE), make_network(name, seed).to(DEVICE)
        network.load_state_dict(surface.state_dict(*corner))
        torch.testing.assert_close(
            predict(network, images), predict(checkpoint, images), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("name", ["layernorm", "batchnorm", "resnet18"])
def test_a_fit_is_the_same_as_on_a_cpu_up_to_rounding(name):
    """With two images a point, BatchNorm makes differences of 1e-6 in the input grow to 100."""
    settings = {"epochs": 2, "lr": 0.005, "seed": 0, "batch_size": 24, "points_per_step": 2}
    surfaces = [make_surface(name), make_surface(name)]
    for surface, device in zip(surfaces, ("cpu", DEVICE), strict=True):
        fit(surface, make_network(name), *images_on(device), **settings)
    torch.testing.assert_close(*(s.control_points for s in surfaces), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["layernorm", "batchnorm", "dropout", "vgg16"])
def test_passes_that_are_launched_at_once_give_the_same(name, optimizer):
    """The same numbers of dropout as well."""
    networks, surfaces = [], []
    settings = COMMON | {"lr": 0.005, "epochs": 3, "optimizer": optimizer}
    for cuda_graph in (False, True):
        networks.append(make_network(name).to(DEVICE))
        train(networks[-1], *images_on(DEVICE), cuda_graph=cuda_graph, **settings)
        surfaces.append(make_surface(name))
        more = settings | {"batch_size": 24, "points_per_step": 2, "cuda_graph": cuda_graph}
        fit(surfaces[-1], make_network(name), *images_on(DEVICE), **more)
    eager, recorded = (network.state_dict() for network in networks)
    torch.testing.assert_close(eager, recorded, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(*(s.control_points for s in surfaces), rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="PyTorch sees one GPU")
def test_passes_are_recorded_on_the_device_of_the_network_whatever_the_current_one_is():
    surfaces, last = [], f"cuda:{torch.cuda.device_count() - 1}"
    assert torch.cuda.current_device() == 0
    for cuda_graph in (False, True):
        surfaces.append(make_surface("layernorm"))
        network = make_network("layernorm").to(last)
        fit(surfaces[-1], network, *images_on(last), epochs=1, cuda_graph=cuda_graph, **COMMON)
    torch.testing.assert_close(*(s.control_points for s in surfaces), rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_no_step_waits_for_the_device(optimizer, precision, cuda_graph):
    """PyTorch raises an error at each synchronization between the first step and the last."""

    def on_step(step, steps, loss, images):
        torch.cuda.set_sync_debug_mode("default" if step == steps else "error")

    images, labels = make_images(24)
    images = (255 * torch.rand(24, 1, 8, 8)).to(torch.uint8).to(DEVICE)
    settings = COMMON | {
        "epochs": 1, "optimizer": optimizer, "precision": precision, "clip_norm": 1.0,
        "augment": RandomShiftFlip(1, True), "preprocess": Normalize([0.5], [0.2]),
        "cuda_graph": cuda_graph, "on_step": on_step,
    }  # fmt: skip
    try:
        network, labels = make_network("batchnorm").to(DEVICE), labels.to(DEVICE)
        train(network, images, labels, **settings)
        options = {"cosine": 0.1, "decay": "control-points", "repeats": 2}
        fit(make_surface("batchnorm"), network, images, labels, **settings, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_phase_of_more_points_is_launched_at_once_as_well():
    surfaces, curves = [], [["corner_00", "P_01", "corner_01"], ["corner_10", "P_21", "corner_11"]]
    for cuda_graph in (False, True):
        surfaces.append(make_surface("layernorm"))
        fit(
            surfaces[-1], make_network("layernorm"), *images_on(DEVICE), epochs=1, cosine=0.1,
            points_per_step=1, phases=[{"epochs": 1, "curves": curves}], cuda_graph=cuda_graph,
            **COMMON,
        )  # fmt: skip
    torch.testing.assert_close(*(s.control_points for s in surfaces), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_killed_fit_continues(cuda_graph, tmp_path):
    """Equal up to the order of additions in some kernels."""

    class KilledError(Exception):
        pass

    def die(step, *_):
        if step == 5:
            raise KilledError

    def run(on_step=None, snapshots=None):
        surface = make_surface("dropout")
        fit(surface, make_network("dropout"), *images_on(DEVICE), epochs=3, **COMMON,
            on_step=on_step, snapshots=snapshots, cuda_graph=cuda_graph)  # fmt: skip
        return surface.control_points

    undisturbed = run()
    with pytest.raises(KilledError):
        run(die, Snapshots(tmp_path, {}, interval=0))
    continued = run(snapshots=Snapshots(tmp_path, {}, interval=0))
    torch.testing.assert_close(undisturbed, continued, rtol=1e-4, atol=1e-5)


def test_training_repeats_itself_and_leaves_the_global_generators_alone():
    def run():
        torch.manual_seed(5)
        network = make_network("dropout").to(DEVICE)
        before = torch.cuda.get_rng_state()
        train(network, *images_on(DEVICE), epochs=2, augment=RandomShiftFlip(1, True), **COMMON)
        assert torch.equal(before, torch.cuda.get_rng_state())
        return network.state_dict()

    assert differing(run(), run()) == []


def test_batches_of_a_loader_are_moved_to_the_network():
    """Equal up to rounding: the loader's images were divided by 255 on the CPU."""
    images, labels = make_images(24)
    data = torch.utils.data.TensorDataset(images / 255, labels)
    loader = torch.utils.data.DataLoader(data, batch_size=8, pin_memory=True)
    network, surface = make_network("batchnorm").to(DEVICE), make_surface("batchnorm")
    train(network, loader, epochs=1, lr=0.05, seed=0, cuda_graph=True)
    fit(surface, network, loader, epochs=1, lr=0.05)
    tables = [
        evaluate_grid(surface, network, {"train": split}, points=2, **settings)
        for split, settings in ((loader, {}), (images_on(DEVICE), {"batch_size": 8}))
    ]
    assert_frame_equal(*tables, rtol=1e-4, atol=1e-5)


def test_a_grid_is_the_same_as_on_a_cpu_up_to_rounding():
    surface = make_surface("resnet18")
    tables = [
        evaluate_grid(surface, make_network("resnet18"), {"train": images_on(device)}, points=3)
        for device in ("cpu", DEVICE)
    ]
    for column in ("nll", "brier"):
        torch.testing.assert_close(
            *(torch.tensor(table[column].to_numpy()) for table in tables), rtol=1e-3, atol=1e-4
        )
