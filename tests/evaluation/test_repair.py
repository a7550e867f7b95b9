"""Laws of REPAIR: between corners, layers put out what mixtures of the corners' layers would."""

import itertools

import pytest
import torch
from conftest import (
    CLASSES,
    CORNERS,
    SIZE,
    differing,
    input_of,
    make_images,
    make_network,
    make_surface,
    move_free_points,
)
from torch import nn

from fourfold.data.batches import TensorBatches
from fourfold.errors import InputError
from fourfold.evaluation.batchnorm import StatisticsImages
from fourfold.evaluation.grid import evaluate_networks, evaluate_points
from fourfold.evaluation.plane import evaluate_plane, plane
from fourfold.evaluation.repair import Repair
from fourfold.surfaces.surface import Surface

TRAIN, TEST = make_images(24, seed=1), make_images(19, seed=2)
SPLITS = {"train": TRAIN, "test": TEST}
WITHOUT = ["no-norm", "layernorm", "dropout", "frozen", "vit", "bfloat16"]
INSIDE = (0.3, 0.8)


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, groups=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(36, CLASSES),
    )  # fmt: skip


def network_of(name, seed):
    if name != "convolutional":
        return make_network(name, seed)
    torch.manual_seed(seed)
    return convolutional()


def surface_of(name):
    return move_free_points(
        Surface.from_corners([network_of(name, k).state_dict() for k in range(4)])
    )


def repaired(name, surface, point):
    """Return the corrected network at a point."""
    network = network_of(name, 9).eval()
    images = StatisticsImages(TensorBatches(TRAIN[0], None, 10), None, 0)
    corners = (surface.corner(k) for k in range(4))
    repair = Repair(network, corners, images, input_of(network))
    network.load_state_dict(surface.state_dict(*point))
    repair(surface.mixture([point])[0])
    return network


def outputs_of(network, layers):
    """Return name -> output of some layers on the train images, channels last."""
    found = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: found.update(
                {name: output[0] if isinstance(output, tuple) else output}
            )
        )
        for name in layers
    ]
    with torch.no_grad():
        network.eval()(input_of(network)(TRAIN[0]))
    for hook in hooks:
        hook.remove()
    return {k: x.movedim(1, -1) if x.ndim == 4 else x for k, x in found.items()}


BLOCK = "encoder.layers.encoder_layer_1"
LAYERS = {
    "no-norm": ["1"],
    "layernorm": ["1"],
    "convolutional": ["0", "2"],
    "vit": ["conv_proj", f"{BLOCK}.self_attention", f"{BLOCK}.mlp.0", f"{BLOCK}.mlp.3"],
}


@pytest.mark.parametrize("name", LAYERS)
def test_each_channel_has_the_mixture_of_the_corners_means_and_deviations(name):
    surface = surface_of(name)
    found = outputs_of(repaired(name, surface, INSIDE), LAYERS[name])
    corners = []
    for k in range(4):
        corner = network_of(name, 9)
        corner.load_state_dict(surface.corner(k))
        corners.append(outputs_of(corner, LAYERS[name]))
    shares = surface.mixture([INSIDE])[0].tolist()
    for layer, output in found.items():
        for moment in (torch.mean, torch.std):
            of = [moment(corner[layer].flatten(0, -2), dim=0) for corner in corners]
            expected = sum(share * one for share, one in zip(shares, of, strict=True))
            actual = moment(output.flatten(0, -2), dim=0)
            torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", WITHOUT)
def test_corners_stay_as_they_are_and_stand_beside_themselves_as_trained(name):
    surface, network = move_free_points(make_surface(name)), make_network(name, seed=5)
    points = [*CORNERS, INSIDE]
    settings = {"preprocess": input_of(network), "batch_size": 10}
    found = evaluate_points(surface, network, SPLITS, points, batchnorm="repaired", **settings)
    plain = evaluate_points(surface, network, SPLITS, points, **settings)
    assert (found.logits["test"][:4] - plain.logits["test"][:4]).abs().max() < 1e-4
    assert (found.logits["test"][4] - plain.logits["test"][4]).abs().max() > 1e-3
    assert torch.equal(found.own.logits["test"], plain.logits["test"][:4])
    counts = found.table.groupby(["statistics", "statistics_images"]).size()
    assert counts.to_dict() == {("own", 0): 8, ("repaired", 24): 10}


def test_the_logits_layer_and_what_lies_outside_of_weight_and_bias_are_left():
    """And the result is a plain network: its tensors are those of the architecture."""
    surface = surface_of("vit")
    network = repaired("vit", surface, INSIDE)
    changed = set(differing(network.state_dict(), surface.state_dict(*INSIDE)))
    layers = [f"encoder.layers.encoder_layer_{k}" for k in range(2)]
    parts = ["self_attention.in_proj_", "self_attention.out_proj.", "mlp.0.", "mlp.3."]
    expected = {
        f"{layer}.{part}{what}"
        for layer, part, what in itertools.product(layers, parts, ("weight", "bias"))
    } | {"conv_proj.weight", "conv_proj.bias"}
    assert changed == expected
    assert not any(module._forward_hooks for module in network.modules())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(SIZE * SIZE, SIZE * SIZE), nn.Linear(SIZE * SIZE, CLASSES)

    def forward(self, x):
        return self.head(self.layer(self.layer(x.flatten(1)).relu()))


def without_bias():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIZE * SIZE, 6, bias=False), nn.Tanh(), nn.Linear(6, CLASSES)
    )


class Standardized(nn.Linear):
    """A layer that makes its weight one of standard deviation 1, as those of NFNets."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight / self.weight.std(1, keepdim=True), self.bias)


class Beside(Twice):
    def forward(self, x):
        hidden = nn.functional.linear(x.flatten(1), self.layer.weight, self.layer.bias)
        return self.head(self.second(hidden.relu()))

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(SIZE * SIZE, SIZE * SIZE)


def standardized():
    return nn.Sequential(nn.Flatten(), Standardized(SIZE**2, 6), nn.Tanh(), nn.Linear(6, CLASSES))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (standardized, "'1' puts out something else than its weight and bias say"),
        (Beside, "'layer' is used without being called"),
        (lambda: make_network("batchnorm", 1), "without BatchNorm.*'reestimated'"),
        (lambda: make_network("tied", 1), "'first' has no weight and bias of its own"),
        (without_bias, "layer '1' has no weight and bias of its own"),
        (Twice, "'layer' is passed twice"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, CLASSES)), "no linear layer"),
    ],
)
def test_what_cannot_be_reset_is_refused_by_name(build, said):
    torch.manual_seed(1)
    state = build().state_dict()
    other = {
        name: tensor.rot90(2, [0, -1]) if tensor.ndim > 1 else tensor * 2
        for name, tensor in state.items()
    }
    surface = Surface.from_corners([state, other], degree=1, shape="curve")
    with pytest.raises(InputError, match=said):
        evaluate_points(surface, build(), SPLITS, [(0.5,)], batchnorm="repaired")


def test_what_no_forward_pass_uses_is_left():
    class Unused(Twice):
        def forward(self, x):
            return self.head(self.second(x.flatten(1)).relu())

        def __init__(self):
            super().__init__()
            self.second = nn.Linear(SIZE * SIZE, SIZE * SIZE)

    torch.manual_seed(1)
    states = [Unused().state_dict() for _ in range(2)]
    surface = Surface.from_corners(states, degree=1, shape="curve")
    table = evaluate_points(surface, Unused(), SPLITS, [(0.5,)], batchnorm="repaired").table
    assert set(table["statistics"]) == {"repaired"}


def test_what_lies_outside_of_the_corners_is_refused():
    corners = [network_of("no-norm", k).state_dict() for k in range(3)]
    with pytest.raises(InputError, match="lies outside its corners"):
        evaluate_plane(
            plane(*corners), network_of("no-norm", 0), SPLITS, points=3, batchnorm="repaired"
        )


def test_networks_that_lie_between_no_corners_and_images_that_are_missing_are_refused():
    network = make_network("no-norm")
    with pytest.raises(InputError, match="between corners"):
        evaluate_networks(network, [network.state_dict()], SPLITS, batchnorm="repaired")
    with pytest.raises(InputError, match="batchnorm_images"):
        evaluate_points(
            make_surface("no-norm"), network, {"test": TEST}, [INSIDE], batchnorm="repaired"
        )
