"""Modules as people write them: caches, functions that hold them, frozen layers, checkpoints."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from fourfold.combination.selection import select_corners
from fourfold.errors import InputError
from fourfold.evaluation.batchnorm import reestimate_batchnorm
from fourfold.evaluation.grid import evaluate_grid, evaluate_points, predict
from fourfold.surfaces.shapes import SQUARE
from fourfold.surfaces.surface import Surface
from fourfold.training.bound_model import BoundModel
from fourfold.training.fit import fit
from fourfold.training.train import train

INPUTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
LABELS = INPUTS[:, :3].argmax(1)
SETTINGS = {"epochs": 2, "lr": 0.1, "batch_size": 16, "seed": 0}


class Net(nn.Module):
    """The plain network that the others are variations of."""

    def __init__(self):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(8))

    def hidden(self, x):
        return (self.norm(self.body(x)) * self.scale).relu()

    def forward(self, x):
        return self.head(self.hidden(x))


class Cached(Net):
    """Keeps in evaluation what it computed from a parameter, as timm's LeViT does."""

    cache = None

    def train(self, mode=True):
        super().train(mode)
        if mode:
            self.cache = None
        return self

    def hidden(self, x):
        if self.training:
            return super().hidden(x)
        if self.cache is None:
            self.cache = 3 * self.scale.detach()
        return (self.norm(self.body(x)) * self.cache / 3).relu()


class Frozen(Net):
    """Normalizes by the statistics of the body that it was tuned from."""

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


class Reentrant(Net):
    """Computes its hidden layer again in the backward pass."""

    use_reentrant = True

    def forward(self, x):
        x = x.requires_grad_(self.training)
        return self.head(checkpoint(self.hidden, x, use_reentrant=self.use_reentrant))


class Functional(Net):
    """Normalizes without calling its BatchNorm layer."""

    def hidden(self, x):
        norm = self.norm
        given = norm.running_mean, norm.running_var, norm.weight, norm.bias
        return F.batch_norm(self.body(x), *given, norm.training, norm.momentum or 0.0).relu()


def build(kind, seed=0, statistics=0.5):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = kind()
        nn.init.normal_(network.scale)
    network.norm.running_mean.fill_(statistics)
    return network


def corners(kind, **settings):
    networks = [build(kind, seed, **settings) for seed in range(4)]
    for seed, network in enumerate(networks):
        train(network, INPUTS, LABELS, **SETTINGS | {"seed": seed})
    return [copy.deepcopy(network.state_dict()) for network in networks]


def surface_of(kind, degree=(2, 2)):
    return Surface.from_corners(corners(kind), degree=degree, model=build(kind))


def test_a_module_that_caches_is_evaluated_at_each_point_as_if_alone():
    surface, points = surface_of(Cached), [(0.5, 0.5), *SQUARE.corner_coordinates]
    images = {"batchnorm_images": INPUTS}
    model = build(Cached, seed=9)
    predict(model, INPUTS)
    together = evaluate_points(surface, model, {"test": (INPUTS, LABELS)}, points, **images)
    for k, point in enumerate(points):
        one = evaluate_points(surface, build(Cached), {"test": (INPUTS, LABELS)}, [point], **images)
        assert torch.equal(one.logits["test"][0], together.logits["test"][k])
    for k, logits in enumerate(together.own.logits["test"]):
        network = build(Cached)
        network.load_state_dict(surface.corner(k))
        torch.testing.assert_close(predict(network, INPUTS), logits.float(), atol=1e-2, rtol=1e-2)


def replace_forward(network):
    plain, low_rank = network.body.forward, nn.Parameter(torch.zeros(8, 4))
    network.body.low_rank = low_rank
    network.body.forward = lambda x: plain(x) + x @ low_rank.T


def hook(network):
    network.seen = {}
    network.norm.register_forward_hook(lambda *given: network.seen.update(x=given[-1]))


@pytest.mark.parametrize(
    ("change", "said"),
    [(replace_forward, "function in 'body.forward'"), (hook, "function in 'norm.forward hook'")],
)
def test_a_function_that_holds_the_module_itself_is_refused_by_name(change, said):
    surface, model = surface_of(Net), build(Net)
    change(model)
    if change is replace_forward:
        states = [{**state, "body.low_rank": torch.zeros(8, 4)} for state in corners(Net)]
        surface = Surface.from_corners(states, degree=(2, 2))
    with pytest.raises(InputError, match=said):
        fit(surface, model, INPUTS, LABELS, **SETTINGS)
    with pytest.raises(InputError, match=said):
        evaluate_grid(surface, model, {"train": (INPUTS, LABELS)}, 3)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Sequential(nn.Linear(4, 8), nn.LazyLinear(3)), "'1.weight' of the model is lazy"),
        (nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)).to("meta"), "'0.weight' .* on the meta"),
    ],
)
def test_a_module_without_values_is_refused_by_name(model, said):
    states = [nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)).state_dict() for _ in range(4)]
    surface = Surface.from_corners(states, degree=(2, 2))
    for attempt in (
        lambda: Surface.from_corners(states, model=model),
        lambda: train(model, INPUTS, LABELS, **SETTINGS),
        lambda: fit(surface, model, INPUTS, LABELS, **SETTINGS),
        lambda: evaluate_grid(surface, model, {"train": (INPUTS, LABELS)}, 3),
    ):
        with pytest.raises(InputError, match=said):
            attempt()


def test_frozen_batchnorm_stays_frozen_in_a_fit_and_at_every_point():
    surface, model = surface_of(Frozen), build(Frozen)
    before = surface.control_points.clone()
    fit(surface, model, INPUTS, LABELS, **SETTINGS)
    assert not torch.equal(surface.control_points, before)
    assert surface.state_dict(0.3, 0.6)["norm.running_mean"].eq(0.5).all()
    grid = evaluate_grid(surface, model, {"train": (INPUTS, LABELS)}, 3)
    assert set(grid["statistics"]) == {"none"}
    model.load_state_dict(surface.state_dict(1.0, 0.0))
    nll = F.cross_entropy(predict(model, INPUTS), LABELS).item()
    (found,) = grid.query("u == 1 and v == 0")["nll"]
    assert found == pytest.approx(nll, abs=1e-3)  # of logits in half precision
    reestimate_batchnorm(model, INPUTS)
    assert model.norm.running_mean.eq(0.5).all()


def test_frozen_statistics_that_differ_are_those_between_the_corners_in_a_fit_too():
    states = [
        state | {"norm.running_mean": torch.full((8,), float(k))}
        for k, state in enumerate(corners(Frozen))
    ]
    surface, point = Surface.from_corners(states, degree=(2, 2), model=build(Frozen)), (0.3, 0.6)
    bound = BoundModel(build(Frozen), surface, torch.device("cpu"))
    assert bound.has_moving_buffers
    network = build(Frozen)
    network.load_state_dict(surface.state_dict(*point))
    theta, (mixture,) = surface.point(*point), surface.mixture([point])
    loss, _ = bound.gradient(
        theta, INPUTS, LABELS, F.cross_entropy, torch.zeros_like(theta), mixture
    )
    torch.testing.assert_close(loss, F.cross_entropy(network.train()(INPUTS), LABELS))


def test_reentrant_checkpoints_fit_as_others_do():
    found = []
    for use_reentrant in (True, False):
        surface, model = surface_of(Net), build(Reentrant)
        model.use_reentrant = use_reentrant
        fit(surface, model, INPUTS, LABELS, **SETTINGS)
        found.append(surface.control_points)
    assert torch.equal(*found)


def test_statistics_that_nobody_sees_being_estimated_are_refused_and_stay():
    model = build(Functional)
    with pytest.raises(InputError, match=r"statistics of 'norm' without calling.*batch_norm"):
        reestimate_batchnorm(model, INPUTS, batch_size=16)
    assert model.norm.running_mean.eq(0.5).all()


def test_corners_are_not_selected_by_averages_of_what_the_model_declares_as_a_buffer():
    class Counting(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("largest", torch.zeros(()))

    states = [state | {"largest": torch.tensor(float(k))} for k, state in enumerate(corners(Net))]
    settings = {"batchnorm_images": INPUTS}
    with pytest.raises(InputError, match="largest"):
        select_corners(dict(enumerate(states)), build(Counting), INPUTS, LABELS, **settings)
    settings["buffers"] = {"largest": "first"}
    chosen = select_corners(dict(enumerate(states)), build(Counting), INPUTS, LABELS, **settings)
    assert chosen["selected"].sum() == 1
