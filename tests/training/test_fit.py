"""Laws of the fit: the corners stay, the step is the right one, nothing else is touched."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import (
    CLASSES,
    NETWORKS,
    SIZE,
    input_of,
    make_corners,
    make_images,
    make_network,
    make_surface,
    move_free_points,
)
from torch import nn
from torch.func import functional_call

from fourfold.errors import DivergenceError, InputError
from fourfold.evaluation.batchnorm import batchnorm_layers
from fourfold.evaluation.grid import evaluate_grid, evaluate_points
from fourfold.surfaces.surface import BezierSurface
from fourfold.training import fit as fitting
from fourfold.training.fit import SAMPLERS, fit
from fourfold.training.train import train

IMAGES, LABELS = make_images(24)


def columns_of(surface: BezierSurface, name: str) -> slice:
    """Return the columns of the control points that hold the named tensor."""
    start = 0
    for tensor, size in zip(surface.layout.names, surface.layout.sizes, strict=True):
        if tensor == name:
            return slice(start, start + size)
        start += size
    raise KeyError(name)


# --- the step -------------------------------------------------------------------------------------


class Recorder:
    """Notes what a fit draws, so that a reference can do the same steps without its generators."""

    def __init__(self, sampler: str) -> None:
        self.sampler = SAMPLERS[sampler]
        self.points, self.batches = [], []

    def draw(self, points, generator):
        self.points.append(self.sampler(points, generator))
        return self.points[-1]

    def augment(self, batch, generator):
        del generator
        labels = (batch[:, 0, 1::2].float().mean(2)[:, :CLASSES]).argmax(1)  # see make_images
        self.batches.append((batch, labels))
        return batch


def bernstein(degree: int, i: int, t: float) -> float:
    return math.comb(degree, i) * t**i * (1 - t) ** (degree - i)


def reference_fit(
    corners,
    network,
    recorder,
    *,
    degree,
    optimizer,
    lr,
    momentum,
    betas,
    weight_decay,
    chunk,
    start,
):
    """Fit a dictionary of control points by autograd and torch's optimizers; return the points."""
    n, m = degree
    declared = {name: p.requires_grad for name, p in network.named_parameters()}
    at = {(0, 0): 0, (0, m): 1, (n, 0): 2, (n, m): 3}
    control = {}
    for i in range(n + 1):
        for j in range(m + 1):
            if (i, j) in at:
                control[i, j] = {name: corners[at[i, j]][name].clone() for name in declared}
            else:
                control[i, j] = {
                    name: start[i, j][name].clone().requires_grad_(trained)
                    for name, trained in declared.items()
                }
    free = [p for point in control.values() for p in point.values() if p.requires_grad]
    if optimizer == "sgd":
        descent = torch.optim.SGD(free, lr, momentum=momentum)
    else:
        descent = torch.optim.Adam(free, lr, betas=betas)
    network.train()
    for layer in batchnorm_layers(network):
        layer.track_running_stats = False
        layer.running_mean = layer.running_var = None
    for (u, v), (images, labels) in zip(recorder.points, recorder.batches, strict=True):
        loss = decay = 0.0
        # For each control point, the step's points weighted by its weight in them.
        weights = dict.fromkeys(control, 0.0)
        nearby = {k: dict.fromkeys(point, 0.0) for k, point in control.items()}
        for c in range(len(u)):
            weight = {
                (i, j): bernstein(n, i, u[c].item()) * bernstein(m, j, v[c].item())
                for i, j in control
            }
            theta = {name: sum(weight[k] * control[k][name] for k in control) for name in declared}
            share = slice(c * chunk, (c + 1) * chunk)
            logits = functional_call(network, theta, (images[share].float() / 255,))
            loss = loss + nn.functional.cross_entropy(logits, labels[share]) / len(u)
            trained = [t for t in theta.values() if t.requires_grad]
            decay = decay + sum(t.square().sum() for t in trained) / 2 / len(u)
            for k, w in weight.items():
                weights[k] += w
                for tensor in nearby[k]:
                    nearby[k][tensor] = nearby[k][tensor] + w * theta[tensor].detach()
        descent.zero_grad()
        if optimizer == "sgd":  # decay enters the gradient of the point
            (loss + weight_decay * decay).backward()
            descent.step()
        else:  # decoupled: beside Adam's step, the mean of the points near by decays
            loss.backward()
            descent.step()
            with torch.no_grad():
                for k, point in control.items():
                    for tensor, p in point.items():
                        if p.requires_grad and weights[k] > 0:
                            p -= lr * weight_decay * nearby[k][tensor] / weights[k]
    return control


# The biases of attention keys have no gradient but rounding, which Adam blows up to full steps.
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        (name, optimizer)
        for name in ("no-norm", "layernorm", "batchnorm", "tied", "frozen", "vit")
        for optimizer in ("sgd", "adamw")
        if (name, optimizer) != ("vit", "adamw")
    ],
)
@pytest.mark.parametrize(
    ("degree", "points", "sampler"),
    [((2, 2), 4, "latin-hypercube"), ((1, 3), 2, "uniform"), ((2, 1), 1, "uniform")],
)
def test_steps_are_those_of_autograd_on_a_dictionary_of_control_points(
    optimizer, name, degree, points, sampler, monkeypatch
):
    corners, network = make_corners(name), make_network(name, seed=5)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    surface = move_free_points(BezierSurface.from_corners(corners, degree=degree))
    started = surface.control_points.clone()
    start = {divmod(k, degree[1] + 1): surface.layout.views(row) for k, row in enumerate(started)}
    recorder = Recorder(sampler)
    monkeypatch.setitem(SAMPLERS, "recorded", recorder.draw)
    monkeypatch.setattr(fitting, "_BLOCK", {"cpu": 37})  # several blocks, the last one shorter
    settings = {
        "optimizer": optimizer, "lr": 0.2 if optimizer == "sgd" else 1e-3, "momentum": 0.9,
        "betas": (0.9, 0.98), "weight_decay": 0.1,
    }  # fmt: skip
    fit(
        surface, network, IMAGES, LABELS, epochs=2, batch_size=8, points_per_step=points,
        sampler="recorded", warmup=0, schedule="constant", augment=recorder.augment, **settings,
    )  # fmt: skip
    assert len(recorder.points) == len(recorder.batches) == 6
    expected = reference_fit(
        corners, network, recorder, degree=degree, chunk=8 // points, start=start, **settings
    )
    for k, row in enumerate(surface.control_points):
        views = surface.layout.views(row)
        for tensor, value in expected[divmod(k, degree[1] + 1)].items():
            # Adam divides by the root of tiny squares where a gradient is all rounding.
            tolerance = 2e-5 if optimizer == "sgd" else 2e-4
            torch.testing.assert_close(views[tensor], value.detach(), rtol=1e-4, atol=tolerance)
    moved = (surface.control_points - started).abs().amax(dim=1)
    assert (moved[list(surface.free_rows)] > 1e-3).all()


def test_blocks_of_columns_change_nothing(monkeypatch):
    results = []
    for block in (1, 100, 1 << 20):
        monkeypatch.setattr(fitting, "_BLOCK", {"cpu": block})
        surface = make_surface("batchnorm")
        fit(surface, make_network("batchnorm"), IMAGES, LABELS, epochs=1, batch_size=8)
        results.append(surface.control_points)
    torch.testing.assert_close(results[0], results[2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[1], results[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("points", [1, 2, 4, 8])
def test_each_step_draws_as_many_points_as_asked_and_gives_each_an_equal_share(points):
    shares = []

    def loss_function(logits, labels):
        shares.append(len(labels))
        return nn.functional.cross_entropy(logits, labels)

    fit(
        make_surface("no-norm"), make_network("no-norm"), IMAGES, LABELS, epochs=1, batch_size=8,
        points_per_step=points, loss_function=loss_function,
    )  # fmt: skip
    assert shares == [8 // points] * points * 3


def loss_of_zero(logits, _labels):
    return 0 * logits.sum()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_acts_on_the_point_and_not_on_the_control_points(optimizer, monkeypatch):
    """With no loss, P_k moves by (a share of) the point; its own value does not matter.

    The share is w_k under SGD, as that of the gradient. Adam takes the size from a gradient, so
    that the decay is that of a single network whatever w_k is.
    """
    surface = make_surface("no-norm")
    center = 4
    surface.control_points.fill_(1.0)
    surface.control_points[center] = -3.0  # the point (1/2, 1/2) is 12/16 - 3/4 = 0
    at_center = torch.full((2, 1), 0.5, dtype=torch.float64)
    monkeypatch.setitem(SAMPLERS, "center", lambda points, generator: at_center)
    settings = {
        "epochs": 1, "batch_size": 24, "points_per_step": 1, "sampler": "center", "lr": 0.5,
        "weight_decay": 0.1, "warmup": 0, "schedule": "constant", "optimizer": optimizer,
        "loss_function": loss_of_zero,
    }  # fmt: skip
    before = surface.control_points.clone()
    fit(surface, make_network("no-norm"), IMAGES, LABELS, **settings)
    torch.testing.assert_close(surface.control_points, before)
    surface.control_points[center] = 1.0  # now the point is 1
    fit(surface, make_network("no-norm"), IMAGES, LABELS, **settings)
    expected = torch.ones(9)
    for k, weight in {1: 2, 3: 2, 4: 4, 5: 2, 7: 2}.items():
        expected[k] -= 0.5 * 0.1 * (weight / 16 if optimizer == "sgd" else 1)
    torch.testing.assert_close(
        surface.control_points, expected[:, None].expand_as(surface.control_points)
    )


@pytest.mark.filterwarnings("ignore:.*are the same network")
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("degree", "points"), [((2, 2), 1), ((2, 2), 4), ((3, 3), 2), ((1, 4), 3)])
def test_where_all_points_are_one_network_adamw_decays_them_as_torch_decays_that_network(
    sampler, degree, points
):
    lr, weight_decay = 0.3, 0.2
    network = make_network("layernorm")
    surface = BezierSurface.from_corners([network.state_dict()] * 4, degree=degree)
    free = list(surface.free_rows)
    theta = nn.utils.parameters_to_vector(network.parameters()).detach()
    fit(
        surface, network, IMAGES, LABELS, epochs=1, batch_size=24, points_per_step=points,
        sampler=sampler, optimizer="adamw", lr=lr, weight_decay=weight_decay, warmup=0,
        schedule="constant", loss_function=loss_of_zero,
    )  # fmt: skip
    single = torch.optim.AdamW(network.parameters(), lr, weight_decay=weight_decay)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    single.step()
    expected = nn.utils.parameters_to_vector(network.parameters()).detach()
    assert not torch.allclose(expected, theta, rtol=1e-3)
    torch.testing.assert_close(surface.control_points[free], expected.expand(len(free), -1))


@pytest.mark.parametrize("boundary_epochs", [0, 2])
@pytest.mark.parametrize("degree", [(2, 2), (3, 1)])
def test_decay_under_adamw_is_of_the_mean_of_the_points_near_a_control_point(
    degree, boundary_epochs, monkeypatch
):
    """With no loss, for several steps, beside NumPy in double precision."""
    (n, m), lr, weight_decay, drawn = degree, 0.3, 0.2, []

    def recorded(draw):
        return lambda points, generator: drawn.append(draw(points, generator)) or drawn[-1]

    monkeypatch.setitem(SAMPLERS, "recorded", recorded(SAMPLERS["uniform"]))
    monkeypatch.setattr(fitting, "_draw_boundary", recorded(fitting._draw_boundary))
    surface = move_free_points(make_surface("no-norm", degree))
    control = surface.control_points.double().numpy().copy()
    fit(
        surface, make_network("no-norm"), IMAGES, LABELS, epochs=2, batch_size=8,
        boundary_epochs=boundary_epochs, points_per_step=2, sampler="recorded", optimizer="adamw",
        lr=lr, weight_decay=weight_decay, warmup=0, schedule="constant", loss_function=loss_of_zero,
    )  # fmt: skip
    assert len(drawn) == 3 * (2 + boundary_epochs)
    pairs = [(i, j) for i in range(n + 1) for j in range(m + 1)]
    untouched = 0
    for u, v in drawn:
        weights = np.array(
            [
                [bernstein(n, i, float(a)) * bernstein(m, j, float(b)) for i, j in pairs]
                for a, b in zip(u, v, strict=True)
            ]
        )  # (points, control points)
        theta = weights @ control
        for k, (i, j) in enumerate(pairs):
            if i in (0, n) and j in (0, m):
                continue
            total = weights[:, k].sum()
            untouched += total == 0
            if total > 0:
                control[k] -= lr * weight_decay * (weights[:, k] @ theta) / total
    assert (untouched > 0) == (boundary_epochs > 0)
    torch.testing.assert_close(
        surface.control_points, torch.from_numpy(control).float(), rtol=1e-4, atol=1e-5
    )


def test_the_norm_of_each_points_gradient_is_clipped(monkeypatch):
    corner = torch.zeros(2, 1, dtype=torch.float64)
    near = {(0.5, 0.5): corner + 0.5}
    monkeypatch.setitem(SAMPLERS, "center", lambda points, generator: near[0.5, 0.5])
    surface = make_surface("no-norm")
    before = surface.control_points.clone()
    fit(
        surface, make_network("no-norm"), IMAGES, LABELS, epochs=1, batch_size=24,
        points_per_step=1, sampler="center", lr=1.0, weight_decay=0, warmup=0,
        schedule="constant", clip_norm=1e-3,
    )  # fmt: skip
    lengths = (surface.control_points - before).norm(dim=1)
    weights = torch.tensor([0, 2, 0, 2, 4, 2, 0, 2, 0]) / 16
    torch.testing.assert_close(lengths, 1e-3 * weights, rtol=2e-2, atol=0)


# --- what stays -----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", NETWORKS)
def test_corners_never_move_and_free_points_do(name, optimizer):
    surface, network = make_surface(name), make_network(name)
    before = surface.control_points.clone()
    fit(
        surface, network, IMAGES, LABELS, epochs=2, boundary_epochs=1, batch_size=8, lr=0.1,
        points_per_step=2, optimizer=optimizer, preprocess=input_of(network),
    )  # fmt: skip
    corners, free = list(surface.corner_rows), list(surface.free_rows)
    assert torch.equal(surface.control_points[corners], before[corners])
    assert (surface.control_points != before)[free].any(dim=1).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_parameters_stay_interpolated(optimizer):
    surface = make_surface("frozen")
    before = surface.control_points.clone()
    fit(
        surface, make_network("frozen"), IMAGES, LABELS, epochs=3, batch_size=8, lr=0.1,
        weight_decay=0.1, optimizer=optimizer,
    )  # fmt: skip
    constant = columns_of(surface, "1.weight")
    assert torch.equal(surface.control_points[:, constant], before[:, constant])
    assert not torch.equal(surface.control_points, before)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_parameter_that_the_network_does_not_use_has_no_gradient(optimizer):
    networks = [make_network("layernorm", seed) for seed in range(5)]
    for seed, network in enumerate(networks):
        network.register_parameter("idle", nn.Parameter(torch.full((3,), float(seed))))
    surface = BezierSurface.from_corners([network.state_dict() for network in networks[:4]])
    before = surface.control_points.clone()
    fit(
        surface, networks[4], IMAGES, LABELS, epochs=2, batch_size=8, weight_decay=0,
        optimizer=optimizer,
    )  # fmt: skip
    idle = columns_of(surface, "idle")
    assert torch.equal(surface.control_points[:, idle], before[:, idle])
    assert not torch.equal(surface.control_points, before)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("untied", [(), (0,), (1, 2), (0, 1, 2, 3)])
def test_tied_weights_stay_tied_however_the_corners_store_them(untied, optimizer, clip_norm):
    def fitted(which):
        corners = make_corners("tied")
        for k in which:
            corners[k] = {name: tensor.clone() for name, tensor in corners[k].items()}
        surface = BezierSurface.from_corners(corners)
        fit(
            surface, make_network("tied"), IMAGES, LABELS, epochs=2, batch_size=8, lr=0.1,
            weight_decay=0.1, optimizer=optimizer, clip_norm=clip_norm,
        )  # fmt: skip
        return surface

    surface, reference = fitted(untied), fitted(())
    for u, v in ((0.5, 0.5), (0.2, 0.9), (1.0, 0.5)):
        state, expected = surface.state_dict(u, v), reference.state_dict(u, v)
        assert torch.equal(state["first.weight"], state["second.weight"])
        torch.testing.assert_close(state, expected, rtol=1e-5, atol=1e-6)


def test_corners_that_untie_what_the_model_ties_are_refused():
    corners = [{name: t.clone() for name, t in c.items()} for c in make_corners("tied")]
    corners[3]["second.weight"] += 1
    with pytest.raises(InputError, match=r"second\.weight.*first\.weight"):
        fit(BezierSurface.from_corners(corners), make_network("tied"), IMAGES, LABELS, batch_size=8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["batchnorm", "dropout", "tied", "frozen", "buffers", "vgg16"])
def test_the_callers_model_and_random_state_are_left_alone(name, training, untouched):
    network = make_network(name).train(training)
    check = untouched(network)
    fit(make_surface(name), network, IMAGES, LABELS, epochs=1, batch_size=8, points_per_step=2)
    check()


def test_the_images_and_labels_are_left_alone():
    images, labels = IMAGES.clone(), LABELS.clone()
    fit(make_surface("no-norm"), make_network("no-norm"), images, labels, epochs=1, batch_size=8)
    assert torch.equal(images, IMAGES)
    assert torch.equal(labels, LABELS)


def test_zero_epochs_change_nothing():
    surface = make_surface("batchnorm")
    before = surface.control_points.clone()
    history = fit(surface, make_network("batchnorm"), IMAGES, LABELS, epochs=0, batch_size=8)
    assert torch.equal(surface.control_points, before)
    assert len(history) == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("degree", [(2, 2), (3, 3), (3, 2), (1, 2)])
def test_the_boundary_phase_moves_the_four_edges_and_nothing_inside(degree, optimizer):
    surface = make_surface("no-norm", degree)
    before = surface.control_points.clone()
    fit(
        surface, make_network("no-norm"), IMAGES, LABELS, epochs=0, boundary_epochs=4,
        batch_size=24, optimizer=optimizer, weight_decay=0.1,
    )  # fmt: skip
    moved = (surface.control_points != before).any(dim=1)
    n, m = degree
    for i in range(n + 1):
        for j in range(m + 1):
            on_edge, corner = i in (0, n) or j in (0, m), i in (0, n) and j in (0, m)
            assert moved[i * (m + 1) + j] == (on_edge and not corner), (i, j)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_second_phase_starts_without_the_momentum_of_the_first(optimizer):
    """With no loss in the second phase, it moves nothing."""

    def fitted(epochs):
        surface, calls = make_surface("no-norm"), []

        def loss_function(logits, labels):
            calls.append(len(labels))
            in_first_phase = len(calls) <= 3 * 4  # three steps of four points
            return nn.functional.cross_entropy(logits, labels) * in_first_phase

        fit(
            surface, make_network("no-norm"), IMAGES, LABELS, epochs=epochs, boundary_epochs=1,
            batch_size=8, weight_decay=0, optimizer=optimizer, loss_function=loss_function,
        )  # fmt: skip
        return surface.control_points

    assert torch.equal(fitted(0), fitted(2))


# --- randomness -----------------------------------------------------------------------------------


def fitted_points(seed=0, global_seed=0, name="dropout", **settings):
    torch.manual_seed(global_seed)
    surface = make_surface(name)
    settings = {"epochs": 1, "batch_size": 8, "points_per_step": 2} | settings
    fit(surface, make_network(name), IMAGES, LABELS, seed=seed, **settings)
    return surface.control_points


@pytest.mark.parametrize("name", ["dropout", "batchnorm", "vgg16"])
def test_one_seed_gives_equal_control_points_whatever_the_global_generator(name):
    def augment(batch, generator):
        return batch + torch.randint(3, batch.shape, generator=generator, dtype=torch.uint8)

    first, second = (
        fitted_points(name=name, global_seed=g, boundary_epochs=1, augment=augment) for g in (1, 2)
    )
    assert torch.equal(first, second)


def test_another_seed_gives_other_control_points():
    assert not torch.equal(fitted_points(seed=1), fitted_points(seed=2))


def test_dropout_has_a_seed_of_its_own():
    """Everything but dropout is fixed here: one batch in one order at one point."""

    def center(_points, _generator):
        return torch.full((2, 1), 0.5, dtype=torch.float64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SAMPLERS, "center", center)
        settings = {"batch_size": 24, "points_per_step": 1, "sampler": "center"}
        with_dropout = [fitted_points(seed=s, **settings) for s in (1, 2)]
        without = [fitted_points(seed=s, name="no-norm", **settings) for s in (1, 2)]
    torch.testing.assert_close(*without, rtol=1e-5, atol=1e-6)
    assert (with_dropout[0] - with_dropout[1]).abs().max() > 1e-3


def test_drawing_for_augmentation_changes_neither_order_nor_points_nor_dropout():
    def draw_and_forget(batch, generator):
        torch.rand(100, generator=generator)
        return batch

    assert torch.equal(fitted_points(), fitted_points(augment=draw_and_forget))


def test_a_fit_shares_no_random_stream_with_a_corner_trained_with_its_seed():
    """Order of the images, augmentation and dropout: all differ, each decided by the seed."""
    images = torch.arange(24).view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE).to(torch.uint8)

    def noted(run):
        orders, seeds = [], []

        def augment(batch, generator):
            orders.append(batch[:, 0, 0, 0].tolist())
            seeds.append((generator.initial_seed(), torch.initial_seed()))
            return batch

        run({"epochs": 2, "lr": 0.1, "seed": 0, "batch_size": 8, "augment": augment})
        return orders, *map(set, zip(*seeds, strict=True))

    training, fitted = (
        noted(run)
        for run in (
            lambda settings: train(make_network("dropout"), images, LABELS, **settings),
            lambda settings: fit(
                make_surface("dropout"), make_network("dropout"), images, LABELS, **settings
            ),
        )
    )
    for orders, *_ in (training, fitted):
        assert sorted(itertools.chain(*orders[:3])) == list(range(24))
    assert all(a != b for a, b in zip(training[0], fitted[0], strict=True))
    seeds = [seed for part in (*training[1:], *fitted[1:]) for seed in part]
    assert len(set(seeds)) == len(seeds) == 4


@pytest.mark.parametrize("sampler", [*SAMPLERS, "boundary"])
def test_points_are_decided_by_their_generator_alone(sampler):
    draw = fitting._draw_boundary if sampler == "boundary" else SAMPLERS[sampler]
    drawn = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        drawn.append(torch.stack(draw(8, torch.Generator().manual_seed(5))))
    assert torch.equal(*drawn)


class ModeProbe(nn.Module):
    """Notes whether it runs in training mode, in a list that all copies share."""

    seen: list[bool] = []  # noqa: RUF012

    def forward(self, x):
        self.seen.append(self.training)
        return x


@pytest.mark.filterwarnings("ignore:.*are the same network")
@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_on_in_a_fit_and_off_in_an_evaluation(training):
    network = nn.Sequential(ModeProbe(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(SIZE**2, CLASSES))
    network.train(training)
    surface = BezierSurface.from_corners([network.state_dict()] * 4)
    ModeProbe.seen.clear()
    fit(surface, network, IMAGES, LABELS, epochs=1, batch_size=8)
    assert set(ModeProbe.seen) == {True}
    ModeProbe.seen.clear()
    evaluate_grid(surface, network, {"train": (IMAGES, LABELS)}, points=2)
    assert set(ModeProbe.seen) == {False}


def test_batchnorm_normalizes_by_the_batch_in_a_fit():
    """What the corners' statistics are does not matter to the fit."""
    results = []
    for factor in (1, 100):
        corners = make_corners("batchnorm")
        for corner in corners:
            corner["1.running_mean"] *= factor
            corner["1.running_var"] *= factor
        surface = BezierSurface.from_corners(corners)
        fit(surface, make_network("batchnorm"), IMAGES, LABELS, epochs=1, batch_size=8)
        results.append(surface.control_points)
    assert torch.equal(*results)


def draws(sampler, points, n=4000):
    generator = torch.Generator().manual_seed(0)
    pairs = [sampler(points, generator) for _ in range(n // points)]
    return torch.stack([torch.stack([u, v]) for u, v in pairs])  # (steps, 2, points)


def largest_gap(sample):
    """Return the Kolmogorov-Smirnov distance of a sample from the uniform distribution."""
    ordered = sample.sort().values
    return (ordered - torch.linspace(0, 1, len(ordered), dtype=ordered.dtype)).abs().max().item()


@pytest.mark.parametrize("points", [1, 4, 5])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_points_are_uniform_over_the_square(sampler, points):
    drawn = draws(SAMPLERS[sampler], points)
    u, v = drawn[:, 0].flatten(), drawn[:, 1].flatten()
    assert ((drawn >= 0) & (drawn <= 1)).all()
    # 1.95 / sqrt(n) is the distance that one sample in a thousand exceeds.
    for sample in (u, v):
        assert largest_gap(sample) < 1.95 / math.sqrt(len(u))
    counts = torch.histogramdd(torch.stack([u, v], 1), bins=4, range=[0, 1, 0, 1]).hist
    assert (counts / len(u) - 1 / 16).abs().max() < 0.02
    assert torch.corrcoef(torch.stack([u, v]))[0, 1].abs() < 0.06


def test_a_latin_hypercube_has_one_point_in_each_stratum_of_either_axis():
    drawn = draws(SAMPLERS["latin-hypercube"], 8)
    strata = (drawn * 8).long().sort(dim=2).values
    assert (strata == torch.arange(8)).all()


def test_uniform_points_are_not_stratified():
    strata = (draws(SAMPLERS["uniform"], 8) * 8).long().sort(dim=2).values
    assert not (strata == torch.arange(8)).all(dim=2).any(dim=1).all()


def test_boundary_points_are_uniform_over_all_four_edges():
    drawn = draws(fitting._draw_boundary, 4)
    u, v = drawn[:, 0].flatten(), drawn[:, 1].flatten()
    edges = torch.stack([u == 0, u == 1, v == 0, v == 1])
    assert edges.any(dim=0).all()
    assert (edges.double().mean(dim=1) - 1 / 4).abs().max() < 0.03
    for edge, along in zip(edges, (v, v, u, u), strict=True):
        assert largest_gap(along[edge]) < 1.95 / math.sqrt(edge.sum().item())


# --- the whole ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_corners():
    images, labels = make_images(48)
    corners = []
    for seed in range(4):
        network = make_network("batchnorm", seed)
        train(network, images, labels, epochs=15, lr=0.1, seed=seed, batch_size=16)
        corners.append(network.state_dict())
    return corners


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.5},
        {"lr": 0.5, "boundary_epochs": 10},
        {"lr": 0.5, "sampler": "uniform", "points_per_step": 1},
        {"lr": 0.02, "optimizer": "adamw"},
    ],
)
def test_a_fit_lowers_the_loss_all_over_the_surface(trained_corners, settings):
    images, labels = make_images(48)
    network, splits = make_network("batchnorm"), {"train": (images, labels)}
    surface = BezierSurface.from_corners(trained_corners)
    before = evaluate_grid(surface, network, splits, points=5)
    history = fit(surface, network, images, labels, epochs=25, batch_size=16, **settings)
    after = evaluate_grid(surface, network, splits, points=5)
    assert after["nll"].max() < before["nll"].max() / 2
    assert after["nll"].mean() < before["nll"].mean() / 2
    assert history["nll"].iloc[-1] < history["nll"].iloc[0]


def test_the_history_has_one_row_per_epoch_with_the_columns_of_the_table():
    steps = []
    history = fit(
        make_surface("no-norm"), make_network("no-norm"), IMAGES, LABELS, epochs=2,
        boundary_epochs=1, batch_size=10, points_per_step=2, lr=0.3, warmup=0,
        schedule="constant", on_step=lambda *report: steps.append(report),
    )  # fmt: skip
    assert list(history.columns) == [
        "epoch", "step", "split", "nll", "accuracy", "learning_rate", "images_seen", "wall_s",
    ]  # fmt: skip
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["step"].tolist() == [2, 4, 6]  # 24 images are two full batches of ten
    assert history["images_seen"].tolist() == [20, 40, 60]
    assert set(history["learning_rate"]) == {0.3}
    assert history["wall_s"].is_monotonic_increasing
    assert [report[:2] for report in steps] == [(i, 6) for i in range(1, 7)]


def test_the_reported_loss_is_that_of_the_points_drawn(monkeypatch):
    """A fit that can't move (tiny learning rate) reports the loss at the fixed points."""
    u, v = torch.tensor([[0.5, 0.25], [0.5, 1.0]], dtype=torch.float64)
    monkeypatch.setitem(SAMPLERS, "fixed", lambda points, generator: (u, v))
    surface, network = make_surface("no-norm"), make_network("no-norm")
    seen = []

    def loss_function(logits, labels):
        seen.append(nn.functional.cross_entropy(logits, labels).item())
        return nn.functional.cross_entropy(logits, labels)

    history = fit(
        surface, network, IMAGES, LABELS, epochs=1, batch_size=24, points_per_step=2, lr=1e-12,
        sampler="fixed", loss_function=loss_function,
    )  # fmt: skip
    assert history["nll"][0] == pytest.approx(sum(seen) / 2, rel=1e-6)
    table = evaluate_points(
        surface, network, {"train": (IMAGES, LABELS)}, [(0.5, 0.5), (0.25, 1.0)]
    ).table
    assert history["nll"][0] == pytest.approx(table["nll"].mean(), rel=0.2)


def test_a_linear_surface_has_nothing_to_fit():
    with pytest.raises(InputError, match=r"\(1, 1\) has no free control points.*\(2, 2\)"):
        fit(make_surface("no-norm", (1, 1)), make_network("no-norm"), IMAGES, LABELS, batch_size=8)


def test_divergence_is_an_error_that_names_the_epoch_and_the_rate():
    with pytest.raises(DivergenceError, match=r"epoch \d+.*Lower lr"):
        fit(
            make_surface("no-norm"), make_network("no-norm"), 255.0 * IMAGES.float(), LABELS,
            epochs=20, batch_size=8, lr=1e20, warmup=0, schedule="constant",
        )  # fmt: skip


def test_a_last_step_into_infinity_is_divergence_too():
    with pytest.raises(DivergenceError):
        fit(
            make_surface("no-norm"), make_network("no-norm"), IMAGES, LABELS, epochs=1,
            batch_size=24, lr=3e38, warmup=0, schedule="constant",
            loss_function=lambda logits, labels: 1e5 * nn.functional.cross_entropy(logits, labels),
        )  # fmt: skip


def test_a_model_of_another_architecture_is_refused():
    with pytest.raises(InputError, match="the model doesn't own"):
        fit(make_surface("no-norm"), make_network("layernorm"), IMAGES, LABELS, batch_size=8)


def test_a_model_without_trainable_parameters_is_refused():
    network = make_network("no-norm").requires_grad_(False)
    with pytest.raises(InputError, match="no trainable parameter"):
        fit(make_surface("no-norm"), network, IMAGES, LABELS, batch_size=8)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": -1}, "epochs is -1.*0 or more"),
        ({"boundary_epochs": -2}, "boundary_epochs is -2.*0 or more"),
        ({"lr": 0.0}, "lr is 0.0.*positive"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"batch_size": 0}, "batch_size is 0.*from 1 to 24"),
        ({"batch_size": 25}, "batch_size is 25.*from 1 to 24"),
        ({"batch_size": 10, "points_per_step": 4}, "10.*4.*multiple"),
        ({"points_per_step": 0}, "points_per_step 0.*multiple"),
        ({"sampler": "grid"}, "sampler is 'grid'.*latin-hypercube, uniform"),
        ({"optimizer": "adam"}, "optimizer is 'adam'.*adamw, sgd"),
        ({"schedule": "step"}, "schedule is 'step'.*cosine, constant"),
        ({"warmup": 1.0}, r"warmup is 1\.0.*\[0, 1\)"),
        ({"momentum": 1.5}, "momentum is 1.5"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"betas": (0.9, 1.0)}, r"betas is \(0.9, 1.0\)"),
        ({"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, "no training images"),
        ({"train_labels": LABELS[:5]}, "24 images but 5 labels"),
    ],
)
def test_wrong_settings_are_refused_and_move_nothing(settings, said):
    surface = make_surface("no-norm")
    before = surface.control_points.clone()
    settings = {
        "train_images": IMAGES, "train_labels": LABELS, "epochs": 1, "batch_size": 8,
    } | settings  # fmt: skip
    with pytest.raises(InputError, match=said):
        fit(surface, make_network("no-norm"), **settings)
    assert torch.equal(surface.control_points, before)
