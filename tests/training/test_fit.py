"""Laws of the fit: the corners stay, the step is the right one, nothing else is touched."""

import copy
import itertools
import math
from functools import partial

import pytest
import torch
from conftest import (
    CLASSES,
    NETWORKS,
    SIZE,
    differing,
    input_of,
    make_corners,
    make_images,
    make_network,
    make_surface,
    move_free_points,
    snapshot,
)
from torch import nn
from torch.func import functional_call

from fourfold.errors import DivergenceError, InputError
from fourfold.evaluation.grid import evaluate_grid
from fourfold.surfaces.modules import batchnorm_layers
from fourfold.surfaces.shapes import SQUARE
from fourfold.surfaces.surface import Surface
from fourfold.training import descent
from fourfold.training.fit import fit
from fourfold.training.sampling import SAMPLERS, draw_edges
from fourfold.training.train import train

IMAGES, LABELS = make_images(24)


ARGUMENTS = {"train_images": IMAGES, "train_labels": LABELS, "epochs": 1, "batch_size": 8}


def test_tensors_made_in_inference_mode_are_fitted_outside_of_it_alone():
    with torch.inference_mode():
        surface, inside = make_surface("no-norm"), make_surface("no-norm")
        with pytest.raises(InputError, match=r"which torch\.inference_mode"):
            fit(inside, make_network("no-norm"), **ARGUMENTS)
    expected = make_surface("no-norm")
    for one in (surface, expected):
        fit(one, make_network("no-norm"), **ARGUMENTS)
    assert torch.equal(surface.control_points, expected.control_points)


# --- the step -------------------------------------------------------------------------------------


class Recorder:
    """Notes what a fit draws, so that a reference can do the same steps without its generators."""

    def __init__(self, sampler: str) -> None:
        self.sampler = SAMPLERS[sampler]
        self.points, self.batches = [], []

    def draw(self, *arguments):
        self.points.append(self.sampler(*arguments))
        return self.points[-1]

    def augment(self, batch, generator):
        del generator
        labels = (batch[:, 0, 1::2].float().mean(2)[:, :CLASSES]).argmax(1)  # see make_images
        self.batches.append((batch, labels))
        return batch


def bernstein(degree: int, i: int, t: float) -> float:
    return math.comb(degree, i) * t**i * (1 - t) ** (degree - i)


def reference_fit(surface, network, recorder, *, optimizer, lr, momentum, betas, weight_decay):
    """Fit named control points by autograd and torch's optimizers; return them by row."""
    n, m = surface.shape.degree
    declared = {name: p.requires_grad for name, p in network.named_parameters()}
    control = [
        {name: view.clone() for name, view in surface.layout.views(row).items()}
        for row in surface.control_points
    ]
    for k in surface.free_rows:
        for name, tensor in control[k].items():
            tensor.requires_grad_(declared[name])
    free = [p for point in control for p in point.values() if p.requires_grad]
    if optimizer == "sgd":
        descent = torch.optim.SGD(free, lr, momentum=momentum)
    else:
        descent = torch.optim.Adam(free, lr, betas=betas)
    network.train()
    for layer in batchnorm_layers(network):
        layer.track_running_stats = False
        layer.running_mean = layer.running_var = None
    for drawn, (images, labels) in zip(recorder.points, recorder.batches, strict=True):
        loss = decay = 0.0
        weights, thetas = [], []
        shares = images.chunk(len(drawn)), labels.chunk(len(drawn))
        for (u, v), x, y in zip(drawn.tolist(), *shares, strict=True):
            along_v = [bernstein(m, j, v) for j in range(m + 1)]
            weight = [bernstein(n, i, u) * b for i in range(n + 1) for b in along_v]
            theta = {
                t: sum(w * p[t] for w, p in zip(weight, control, strict=True)) for t in declared
            }
            logits = functional_call(network, theta, (x.float() / 255,))
            loss = loss + nn.functional.cross_entropy(logits, y) / len(drawn)
            trained = [t for t in theta.values() if t.requires_grad]
            decay = decay + sum(t.square().sum() for t in trained) / 2 / len(drawn)
            weights.append(weight)
            thetas.append({t: value.detach() for t, value in theta.items()})
        descent.zero_grad()
        # Decay enters the gradient of the point under SGD; under AdamW it is decoupled: beside
        # Adam's step, the mean of the points near by decays.
        (loss + (weight_decay * decay if optimizer == "sgd" else 0)).backward()
        descent.step()
        for k in surface.free_rows if optimizer == "adamw" else ():
            near = [weight[k] / sum(w[k] for w in weights) for weight in weights]
            for t, p in control[k].items():
                if p.requires_grad:
                    mean = sum(w * theta[t] for w, theta in zip(near, thetas, strict=True))
                    p.data -= lr * weight_decay * mean
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
    surface = move_free_points(Surface.from_corners(corners, degree=degree))
    started = copy.deepcopy(surface)
    recorder = Recorder(sampler)
    monkeypatch.setitem(SAMPLERS, "recorded", recorder.draw)
    monkeypatch.setattr(descent, "_BLOCK", {"cpu": 37})  # several blocks, the last one shorter
    settings = {
        "optimizer": optimizer, "lr": 0.2 if optimizer == "sgd" else 1e-3, "momentum": 0.9,
        "betas": (0.9, 0.98), "weight_decay": 0.1,
    }  # fmt: skip
    fit(
        surface, network, IMAGES, LABELS, epochs=2, batch_size=8, points_per_step=points,
        sampler="recorded", warmup=0, schedule="constant", augment=recorder.augment, **settings,
    )  # fmt: skip
    assert len(recorder.points) == len(recorder.batches) == 6
    expected = reference_fit(started, network, recorder, **settings)
    # Adam divides by the root of tiny squares where a gradient is all rounding.
    tolerance = 2e-5 if optimizer == "sgd" else 2e-4
    for row, point in zip(surface.control_points, expected, strict=True):
        found = surface.layout.views(row)
        point = {name: tensor.detach() for name, tensor in point.items()}
        torch.testing.assert_close(found, point, rtol=1e-4, atol=tolerance)
    moved = (surface.control_points - started.control_points).abs().amax(dim=1)
    assert (moved[list(surface.free_rows)] > 1e-3).all()


def test_the_norm_of_each_points_gradient_is_clipped(monkeypatch):
    center = torch.full((1, 2), 0.5, dtype=torch.float64)
    monkeypatch.setitem(SAMPLERS, "center", lambda *_: center)
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
    corners, free = list(surface.shape.corner_rows), list(surface.free_rows)
    assert torch.equal(surface.control_points[corners], before[corners])
    assert (surface.control_points != before)[free].any(dim=1).all()


def with_idle_parameter(seed):
    network = make_network("layernorm", seed)
    network.register_parameter("idle", nn.Parameter(torch.full((3,), float(seed))))
    return network


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("build", "still", "weight_decay"),
    [(partial(make_network, "frozen"), "1.weight", 0.1), (with_idle_parameter, "idle", 0)],
)
def test_frozen_and_idle_parameters_stay_interpolated(build, still, weight_decay, optimizer):
    surface = Surface.from_corners([build(seed).state_dict() for seed in range(4)])
    before = snapshot(surface.state_dict(0.3, 0.6))
    fit(surface, build(4), **ARGUMENTS, lr=0.1, weight_decay=weight_decay, optimizer=optimizer)
    changed = differing(surface.state_dict(0.3, 0.6), before)
    assert changed
    assert still not in changed


@pytest.mark.parametrize(("optimizer", "clip_norm"), [("sgd", 0.05), ("adamw", None)])
@pytest.mark.parametrize("untied", [(0,), (1, 2), (0, 1, 2, 3)])
def test_tied_weights_stay_tied_however_the_corners_store_them(untied, optimizer, clip_norm):
    def fitted(which):
        corners = make_corners("tied")
        for k in which:
            corners[k] = {name: tensor.clone() for name, tensor in corners[k].items()}
        surface = Surface.from_corners(corners)
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
        fit(Surface.from_corners(corners), make_network("tied"), IMAGES, LABELS, batch_size=8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["batchnorm", "dropout", "tied", "frozen", "buffers", "vgg16"])
def test_the_callers_model_and_random_state_are_left_alone(name, training, untouched):
    network = make_network(name).train(training)
    check = untouched(network)
    fit(make_surface(name), network, IMAGES, LABELS, epochs=1, batch_size=8, points_per_step=2)
    check()


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
    assert not torch.equal(first, fitted_points(seed=1, name=name, boundary_epochs=1))


def test_dropout_has_a_seed_of_its_own():
    """Everything but dropout is fixed here: one batch in one order at one point."""

    def center(*_):
        return torch.full((1, 2), 0.5, dtype=torch.float64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SAMPLERS, "center", center)
        settings = {"batch_size": 24, "points_per_step": 1, "sampler": "center"}
        with_dropout = [fitted_points(seed=s, **settings) for s in (1, 2)]
        without = [fitted_points(seed=s, name="no-norm", **settings) for s in (1, 2)]
    torch.testing.assert_close(*without, rtol=1e-5, atol=1e-6)
    assert (with_dropout[0] - with_dropout[1]).abs().max() > 1e-3


def test_a_fit_shares_no_random_stream_with_a_corner_trained_with_its_seed():
    """Order of the images, augmentation and dropout: all differ, each decided by the seed."""
    images = torch.arange(24).view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE).to(torch.uint8)
    orders, seeds = [], set()

    def augment(batch, generator):
        orders.append(batch[:, 0, 0, 0].tolist())
        seeds.update((generator.initial_seed(), torch.initial_seed()))
        return batch

    settings = {"epochs": 2, "lr": 0.1, "seed": 0, "batch_size": 8, "augment": augment}
    train(make_network("dropout"), images, LABELS, **settings)
    fit(make_surface("dropout"), make_network("dropout"), images, LABELS, **settings)
    for start in (0, 3, 6, 9):  # an epoch is three batches
        assert sorted(itertools.chain(*orders[start : start + 3])) == list(range(24))
    assert all(a != b for a, b in zip(orders[:6], orders[6:], strict=True))
    assert len(seeds) == 4


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
    surface = Surface.from_corners([network.state_dict()] * 4)
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
        surface = Surface.from_corners(corners)
        fit(surface, make_network("batchnorm"), IMAGES, LABELS, epochs=1, batch_size=8)
        results.append(surface.control_points)
    assert torch.equal(*results)


def draws(sampler, points, n=4000):
    generator = torch.Generator().manual_seed(0)
    drawn = [sampler(SQUARE, points, generator).T for _ in range(n // points)]
    return torch.stack(drawn)  # (steps, 2, points)


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


def test_boundary_points_are_uniform_over_all_four_edges():
    drawn = draws(draw_edges, 4)
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
    surface = Surface.from_corners(trained_corners)
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
    losses = [sum(loss.item() for *_, loss, _ in reports) / 2 for reports in (steps[:2], steps[4:])]
    assert [history["nll"][0], history["nll"][2]] == pytest.approx(losses, rel=1e-6)
    assert [report[:2] for report in steps] == [(i, 6) for i in range(1, 7)]


def steep(logits, labels):
    return 1e5 * nn.functional.cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"lr": 1e20, "epochs": 20, "train_images": 255.0 * IMAGES.float()},
            r"epoch \d+.*Lower lr",
        ),
        ({"lr": 3e38, "batch_size": 24, "loss_function": steep}, "control point holds a NaN"),
    ],
)
def test_divergence_in_an_epoch_or_in_the_last_step_is_an_error_with_a_cure(settings, said):
    settings = ARGUMENTS | {"warmup": 0, "schedule": "constant"} | settings
    with pytest.raises(DivergenceError, match=said):
        fit(make_surface("no-norm"), make_network("no-norm"), **settings)


def test_gradients_are_taken_also_where_the_caller_takes_none():
    surface, network = make_surface("no-norm"), make_network("no-norm")
    expected, trained = make_surface("no-norm"), make_network("no-norm")
    settings = {"epochs": 1, "lr": 0.1, "seed": 0, "batch_size": 8}
    fit(expected, network, IMAGES, LABELS, **settings)
    train(trained, IMAGES, LABELS, **settings)
    with torch.no_grad():
        fit(surface, network, IMAGES, LABELS, **settings)
        train(network, IMAGES, LABELS, **settings)
    assert torch.equal(surface.control_points, expected.control_points)
    assert torch.equal(network[1].weight, trained[1].weight)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"surface": make_surface("no-norm", (1, 1))},
            "no free control points.*degree of at least 2",
        ),
        ({"model": make_network("layernorm")}, "the model doesn't own"),
        ({"model": make_network("no-norm").requires_grad_(False)}, "no trainable parameter"),
        ({"epochs": 1.5}, r"epochs is 1\.5; .* whole number"),
        ({"boundary_epochs": 0.5}, r"boundary_epochs is 0\.5"),
        ({"repeats": 1.5}, r"repeats is 1\.5"),
        ({"lr": "0.1"}, "lr is '0.1'; it must be a positive number"),
        ({"betas": 0.9}, r"betas is 0\.9; it must be two numbers"),
        ({"epochs": -1}, "epochs is -1.*at least 0"),
        ({"boundary_epochs": -2}, "boundary_epochs is -2.*at least 0"),
        ({"batch_size": 8.0}, r"batch_size is 8\.0; it must be from 1 to 24"),
        ({"batch_size": 25}, "batch_size is 25.*from 1 to 24"),
        ({"batch_size": 10, "points_per_step": 4}, "10.*4.*multiple"),
        ({"points_per_step": 0}, "points_per_step is 0.*at least 1"),
        ({"sampler": "grid"}, "sampler is 'grid'.*latin-hypercube, uniform"),
        ({"optimizer": "adam"}, "optimizer is 'adam'.*adamw, sgd"),
        ({"sampler": ["uniform"]}, "sampler is .'uniform'.*latin-hypercube, uniform"),
        ({"cosine": "1"}, "cosine is '1'; it must be a number, 0 or more"),
        ({"device": "cudda"}, "device is 'cudda'; it must be 'cpu'"),
        ({"device": "cuda:99"}, "device is 'cuda:99', which PyTorch can't use here.*choose 'cpu'"),
        ({"augment": {"shift": 4}}, "augment is .'shift': 4.; it must be a function"),
        ({"on_step": 3}, "on_step is 3; it must be a function"),
        ({"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, "no training images"),
        ({"train_labels": LABELS[:5]}, "24 images but 5 labels"),
    ],
)
def test_wrong_arguments_are_refused_and_move_nothing(settings, said):
    arguments = {"surface": make_surface("no-norm"), "model": make_network("no-norm")}
    arguments |= ARGUMENTS | settings
    before = arguments["surface"].control_points.clone()
    with pytest.raises(InputError, match=said):
        fit(**arguments)
    assert torch.equal(arguments["surface"].control_points, before)
