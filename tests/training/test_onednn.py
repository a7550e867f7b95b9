"""Networks that oneDNN gets wrong are trained right, and what is outside is left alone."""

import copy

import pytest
import torch
from torch import nn

import fourfold as ff
from fourfold.training.onednn import avoid_wrong_gradients

CPU = torch.device("cpu")


@pytest.fixture
def model():
    """Return a network whose second convolution oneDNN overwrites memory with, on AVX2."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 1, stride=2, bias=False)]
    head = [nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10)]
    return nn.Sequential(*convolutions, *head).to(memory_format=torch.channels_last)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 1, 8, 8, generator=generator)
    return images, torch.randint(10, (64,), generator=generator)


def test_training_in_float32_is_that_in_float64(model, data):
    double = copy.deepcopy(model).double()
    for one in (model, double):
        ff.train(one, *data, epochs=4, lr=0.1, batch_size=32, seed=0)
    for found, expected in zip(model.parameters(), double.parameters(), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_a_fit_in_float32_is_that_in_float64(model, data):
    corners = []
    for seed in range(4):
        torch.manual_seed(seed)
        moved = {name: t + 0.1 * torch.randn_like(t) for name, t in model.state_dict().items()}
        corners.append(moved)
    centers = []
    for one in (model, copy.deepcopy(model).double()):
        dtype = next(one.parameters()).dtype
        states = [{name: tensor.to(dtype) for name, tensor in each.items()} for each in corners]
        surface = ff.Surface.from_corners(states, degree=(2, 2), model=one)
        ff.fit(surface, one, *data, epochs=2, lr=0.1, batch_size=32, seed=0)
        centers.append(surface.state_dict(0.5, 0.5))
    for name, expected in centers[1].items():
        torch.testing.assert_close(centers[0][name].double(), expected, rtol=1e-3, atol=1e-4)


def test_onednn_is_back_after_an_error(model):
    with pytest.raises(KeyError), avoid_wrong_gradients(model, CPU):
        assert not torch.backends.mkldnn.enabled
        raise KeyError
    assert torch.backends.mkldnn.enabled


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, stride=2), nn.Conv2d(16, 8, 1, stride=2),
        nn.Conv2d(4, 8, 1, stride=2, groups=2), nn.Linear(4, 8),
    ],
)  # fmt: skip
def test_other_layers_keep_onednn(layer):
    with avoid_wrong_gradients(nn.Sequential(layer), CPU):
        assert torch.backends.mkldnn.enabled


def test_a_gpu_is_left_alone(model):
    with avoid_wrong_gradients(model, torch.device("cuda")):
        assert torch.backends.mkldnn.enabled
