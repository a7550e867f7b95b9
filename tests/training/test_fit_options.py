"""Laws of what rivals and the published procedure need of a fit: regularizer, repeats, phases."""

import itertools

import numpy as np
import pytest
import torch
from conftest import make_corners, make_images, make_network, move_free_points
from torch import nn
from torch.func import functional_call

from fourfold.errors import InputError
from fourfold.seeds import make_generator
from fourfold.surfaces.shapes import Box
from fourfold.surfaces.surface import Surface
from fourfold.training import descent
from fourfold.training.fit import SurfaceStep, fit
from fourfold.training.phases import fit_passes
from fourfold.training.sampling import draw_on_curves

IMAGES, LABELS = make_images(24)
CONSTANT = {"warmup": 0, "schedule": "constant"}
COLUMNS = [["corner_00", "P_10", "corner_10"], ["P_01", "P_11", "P_21"]]
COLUMNS += [["corner_01", "P_12", "corner_11"]]


def spanned(name, *, degree=(2, 2), free=False):
    return move_free_points(
        Surface.from_corners(make_corners(name), degree=degree, train_corners=free)
    )


def no_loss(logits, labels):
    return 0 * nn.functional.cross_entropy(logits, labels)


def kernels(surface, network):
    """Return where the trained tensors with two or more dimensions lie, as a mask."""
    mask = torch.zeros(surface.dimension)
    for name, view in surface.layout.views(mask).items():
        view += view.dim() > 1 and dict(network.named_parameters())[name].requires_grad
    return mask.bool()


def optimizers(rows, optimizer, lr, weight_decay=0.0):
    if optimizer == "sgd":
        return torch.optim.SGD(rows, lr, momentum=0.9, weight_decay=weight_decay)
    return torch.optim.AdamW(rows, lr, betas=(0.9, 0.98), weight_decay=weight_decay)


# --- the regularizer ------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("name", "degree", "free"),
    [("batchnorm", (1, 1), True), ("batchnorm", (2, 2), False), ("frozen", (2, 1), True)],
)
def test_the_regularizer_moves_by_the_gradient_of_the_squared_cosine(
    name, degree, free, optimizer, monkeypatch
):
    surface, network, pairs = spanned(name, degree=degree, free=free), make_network(name), []
    mask, draw = kernels(surface, network), SurfaceStep._draw_pair
    assert 0 < mask.sum() < len(mask)
    rows = [row.clone().requires_grad_(k in surface.free_rows)
            for k, row in enumerate(surface.control_points)]  # fmt: skip

    def noted(self, moving):
        pairs.append(draw(self, moving))
        return pairs[-1]

    monkeypatch.setattr(SurfaceStep, "_draw_pair", noted)
    monkeypatch.setattr(descent, "_BLOCK", {"cpu": 37})
    lr = 5.0 if optimizer == "sgd" else 1e-3
    history = fit(
        surface, network, IMAGES, LABELS, epochs=4, batch_size=8, lr=lr, weight_decay=0,
        optimizer=optimizer, cosine=0.5, loss_function=no_loss, **CONSTANT,
    )  # fmt: skip
    assert (history["nll"] == 0).all()
    free_rows = [row for row in rows if row.requires_grad]
    reference = optimizers(free_rows, optimizer, lr)
    assert len(pairs) == 12
    for i, j in pairs:
        assert i != j
        for row in free_rows:
            row.grad = torch.zeros_like(row)
        (0.5 * nn.functional.cosine_similarity(rows[i][mask], rows[j][mask], 0) ** 2).backward()
        reference.step()
    expected = torch.stack([row.detach() for row in rows])
    # Adam divides by the root of tiny squares where a gradient is all rounding.
    tolerance = 1e-5 if optimizer == "sgd" else 1e-4
    torch.testing.assert_close(surface.control_points, expected, rtol=1e-5, atol=tolerance)
    assert not torch.equal(surface.control_points, spanned(name, degree=degree).control_points)


@pytest.mark.parametrize("free", [True, False])
def test_the_regularizer_turns_control_points_apart_as_far_as_they_can(free):
    """Nine control points that start as mixtures of four corners stay in their span of four.

    There the mean of cos^2 over pairs is at least (9/4 - 1) / (9 - 1). Reference: Welch, "Lower
    bounds on the maximum cross correlation of signals", 1974.
    """
    surface = Surface.from_corners(make_corners("no-norm"), train_corners=free)
    network = make_network("no-norm")
    mask, pairs = kernels(surface, network), ~torch.eye(9, dtype=torch.bool)

    def mean_square():
        kept = surface.control_points[:, mask]
        return (nn.functional.cosine_similarity(kept[:, None], kept[None], 2) ** 2)[pairs].mean()

    assert mean_square() > 0.21
    fit(
        surface, network, IMAGES, LABELS, epochs=60, batch_size=8, lr=0.3, weight_decay=0,
        cosine=1.0, loss_function=no_loss,
    )  # fmt: skip
    assert 0.156 < mean_square() < 0.163


# --- several steps on a batch ---------------------------------------------------------------------


def test_repeats_are_the_same_batch_given_several_times():
    batches, tables, points = (
        list(zip((IMAGES / 255).split(8), LABELS.split(8), strict=True)),
        [],
        [],
    )
    each_twice = [batch for batch in batches for _ in range(2)]
    for repeats, given in ((2, batches), (1, each_twice)):
        surface = spanned("batchnorm")
        table = fit(
            surface, make_network("batchnorm"), given, epochs=2, boundary_epochs=1, lr=0.1,
            repeats=repeats, points_per_step=2,
        )  # fmt: skip
        tables.append(table.drop(columns="wall_s"))
        points.append(surface.control_points)
    assert torch.equal(*points)
    assert tables[0].equals(tables[1])
    assert tables[0]["images_seen"].tolist() == [48, 96, 144]


def test_a_repeated_batch_is_augmented_once_and_safe_from_a_model_that_writes_to_it():
    calls, seen = [], []

    def augment(batch, generator):
        del generator
        calls.append(batch)
        return batch

    class Writing(nn.Sequential):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x.mul_(0))

    network = Writing(*make_network("no-norm"))
    surface = spanned("no-norm")
    fit(surface, network, IMAGES.float(), LABELS, epochs=1, batch_size=8, points_per_step=1,
        repeats=3, augment=augment)  # fmt: skip
    assert len(calls) == 3
    for k in range(3):
        assert all(torch.equal(x, seen[3 * k]) and x.any() for x in seen[3 * k : 3 * k + 3])


# --- decay ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["batchnorm", "frozen"])
def test_control_points_decay_as_in_torch(name, optimizer):
    surface, network = spanned(name), make_network(name)
    start = surface.control_points.clone()
    moved = [row.clone().requires_grad_() for row in start[list(surface.free_rows)]]
    reference = optimizers(moved, optimizer, 0.1, weight_decay=0.3)
    fit(
        surface, network, IMAGES, LABELS, epochs=2, batch_size=8, lr=0.1, weight_decay=0.3,
        decay="control-points", optimizer=optimizer, loss_function=no_loss, **CONSTANT,
    )  # fmt: skip
    for _ in range(6):
        for row in moved:
            row.grad = torch.zeros_like(row)
        reference.step()
    expected = start.clone()
    expected[list(surface.free_rows)] = torch.stack(moved).detach()
    frozen = torch.zeros(surface.dimension)
    for key, view in surface.layout.views(frozen).items():
        view += not dict(network.named_parameters())[key].requires_grad
    expected[:, frozen.bool()] = start[:, frozen.bool()]
    torch.testing.assert_close(surface.control_points, expected, rtol=1e-5, atol=1e-7)


# --- phases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [(2, 2), (3, 1)])
def test_a_curve_of_an_edges_control_points_is_the_edge(degree):
    shape = Box(degree)
    n, m = degree
    columns = [[i * (m + 1) + j for i in range(n + 1)] for j in (0, m)]
    rows = [[i * (m + 1) + j for j in range(m + 1)] for i in (0, n)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        points, weights = draw_on_curves(shape, [*columns, *rows], generator)
        np.testing.assert_allclose(weights, shape.weights(points.numpy()), atol=1e-12)
        assert shape.contains(points.numpy()).all()
        t = points[0, 0]
        expected = torch.tensor([[t, 0], [t, 1], [0, t], [1, t]], dtype=t.dtype)
        torch.testing.assert_close(points, expected)


@pytest.mark.parametrize("curves", [COLUMNS, COLUMNS[1:2], COLUMNS[::2]])
def test_a_phase_passes_the_whole_batch_at_one_point_of_each_of_its_curves(curves):
    surface, network, batches = spanned("batchnorm"), make_network("batchnorm"), []
    names, rows = surface.control_point_names, ["P_10", "P_11", "P_12"]
    rows = [row for row in rows if any(row in curve for curve in curves)]
    control = {
        name: row.clone().requires_grad_(name in rows)
        for name, row in zip(names, surface.control_points, strict=True)
    }

    def augment(batch, generator):
        del generator
        batches.append(batch)
        return batch

    labels_of = {
        image.numpy().tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)
    }
    history = fit(
        surface, network, IMAGES, LABELS, epochs=0, batch_size=8, lr=0.1, seed=3, weight_decay=0.1,
        decay="control-points", repeats=2, augment=augment, **CONSTANT,
        phases=[{"epochs": 2, "curves": curves, "rows": rows}],
    )  # fmt: skip
    assert history["images_seen"].tolist() == [24 * 2 * len(curves), 24 * 4 * len(curves)]
    free = [row for row in control.values() if row.requires_grad]
    reference, drawing = (
        optimizers(free, "sgd", 0.1, weight_decay=0.1),
        make_generator(3, "fit/points"),
    )
    network.train()
    for batch in itertools.chain.from_iterable([batch] * 2 for batch in batches):
        t = torch.rand(1, generator=drawing, dtype=torch.float64).item()
        labels = torch.stack([labels_of[image.numpy().tobytes()] for image in batch])
        losses = []
        for first, middle, last in curves:
            theta = (1 - t) ** 2 * control[first] + 2 * t * (1 - t) * control[middle]
            theta = surface.layout.views(theta + t**2 * control[last])
            logits = functional_call(network, theta, (batch.float() / 255,))
            losses.append(nn.functional.cross_entropy(logits, labels))
        reference.zero_grad()
        torch.stack(losses).mean().backward()
        reference.step()
    expected = torch.stack([row.detach() for row in control.values()])
    torch.testing.assert_close(surface.control_points, expected, rtol=1e-4, atol=2e-5)
    assert (surface.control_points != spanned("batchnorm").control_points).any(1).sum() == len(rows)


def test_phases_come_in_their_order_and_each_has_a_schedule_of_its_own():
    phases = [{"epochs": 1, "curves": COLUMNS[::2]}, {"epochs": 2, "curves": COLUMNS, "rows": None}]
    settings = {"phases": phases, "boundary_epochs": 1, "epochs": 2, "repeats": 3}
    surface, moved = spanned("no-norm"), []
    history = fit(
        surface, make_network("no-norm"), IMAGES, LABELS, batch_size=8, lr=0.1, warmup=0,
        weight_decay=0, **settings,
        on_step=lambda *_: moved.append(surface.control_points.clone()),
    )  # fmt: skip
    assert history["images_seen"].iloc[-1] == fit_passes(settings) * len(IMAGES)
    falls = history["learning_rate"].diff().iloc[1:] < 0
    assert falls.tolist() == [False, True, False, False, True]
    names = surface.control_point_names
    for epoch, still in ((0, {"P_01", "P_11", "P_21"}), (1, set()), (3, {"P_11"})):
        steps = moved[9 * epoch : 9 * epoch + 9]
        same = (steps[0] == steps[-1]).all(dim=1)
        assert {n for n, is_same in zip(names, same, strict=True) if is_same} == still | {
            "corner_00", "corner_01", "corner_10", "corner_11"
        }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"repeats": 0}, "repeats is 0.*at least 1"),
        ({"cosine": -1.0}, r"cosine is -1\.0.*0 or more"),
        ({"decay": "corners"}, "decay is 'corners'.*control-points, point"),
        ({"phases": [{"epochs": 1}]}, r"phases\[0\].*epochs, curves and rows"),
        ({"phases": [{"epochs": -1, "curves": COLUMNS}]}, r"phases\[0\]\.epochs is -1"),
        ({"phases": [{"epochs": 1, "curves": [["P_01", "P_44"]]}]}, r"curves\[0\].*P_44.*P_21"),
        ({"phases": [{"epochs": 1, "curves": "edges"}]}, r"curves\[0\] is edges; list 2"),
        ({"phases": [{"epochs": 1, "curves": [["P_01"]]}]}, r"curves\[0\].*2 or more"),
        ({"phases": [{"epochs": 1, "curves": [["corner_00", "corner_01"]]}]}, "free: none"),
        (
            {"phases": [{"epochs": 1, "curves": COLUMNS[:1], "rows": ["P_11"]}]},
            r"moves \['P_11'\].*free: P_10",
        ),
    ],
)
def test_impossible_options_are_refused_and_move_nothing(settings, said):
    surface = spanned("no-norm")
    with pytest.raises(InputError, match=said):
        fit(surface, make_network("no-norm"), IMAGES, LABELS, batch_size=8, **settings)
    assert torch.equal(surface.control_points, spanned("no-norm").control_points)


def test_a_regularizer_of_matrices_needs_one():
    class Scales(nn.Module):
        def __init__(self, seed=0):
            super().__init__()
            self.scale = nn.Parameter(torch.full((3,), 1.0 + seed))

        def forward(self, x):
            return self.scale * x[:, 0, 0, :3]

    surface = Surface.from_corners([Scales(seed).state_dict() for seed in range(4)])
    with pytest.raises(InputError, match="two or more dimensions"):
        fit(surface, Scales(), IMAGES, LABELS, batch_size=8, cosine=0.1)
