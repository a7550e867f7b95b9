"""What people pass to the public functions: labels, outputs, modules and buffers of many kinds.

Each test states the value that is right, or that there is one message.
"""

import copy
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CLASSES, SIZE, make_corners, make_images, make_network, make_surface
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

import fourfold as ff

IMAGES, LABELS = make_images()
SPLITS = {"train": (IMAGES, LABELS)}
FIT = {"epochs": 1, "batch_size": 8}


def states_of(build, count=4):
    """Return state dicts of networks with different parameters."""
    states = []
    for seed in range(count):
        torch.manual_seed(seed)
        network = build()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        states.append(copy.deepcopy(network.state_dict()))
    return states


def fit_and_evaluate(build, **settings):
    surface = ff.BezierSurface.from_corners(states_of(build), **settings)
    before = surface.control_points.clone()
    ff.fit(surface, build(), *SPLITS["train"], **FIT)
    assert (surface.control_points != before).any(dim=1)[list(surface.free_rows)].all()
    return surface, ff.evaluate_grid(surface, build(), SPLITS, points=3)


# --- labels ---------------------------------------------------------------------------------------

SAME_LABELS = {
    "int32": LABELS.int(),
    "uint8": LABELS.to(torch.uint8),
    "whole floats": LABELS.double(),
    "a column": LABELS[:, None],
    "a column of int16": LABELS[:, None].short(),
    "NumPy": LABELS.numpy(),
    "NumPy uint8": LABELS.numpy().astype(np.uint8),
    "a list": LABELS.tolist(),
}
WRONG_LABELS = {
    "from 1": (LABELS + 1, "labels - 1"),
    "negative": (torch.where(LABELS == 0, -1, LABELS), "negative"),
    "ignored": (torch.where(LABELS == 0, -100, LABELS), "-100"),
    "one-hot": (nn.functional.one_hot(LABELS, CLASSES), "argmax"),
    "fractions": (LABELS + 0.5, "not whole"),
    "NaN": (LABELS.float().fill_(float("nan")), "not whole"),
    "too few": (LABELS[:-1], "one per image"),
    "strings": (np.array(["cat"] * len(LABELS)), "numbers"),
    "none": (None, "NoneType"),
}


@pytest.mark.parametrize("kind", SAME_LABELS)
def test_labels_of_any_form_are_the_same_labels(kind):
    results = []
    for labels in (LABELS, SAME_LABELS[kind]):
        network, surface = make_network("batchnorm"), make_surface("batchnorm")
        rows = ff.train(network, IMAGES, labels, epochs=1, lr=0.1, seed=0, batch_size=8)
        history = ff.fit(surface, network, IMAGES, labels, **FIT)
        grid = ff.evaluate_grid(surface, network, {"train": (IMAGES, labels)}, points=3)
        logits = torch.stack([ff.predict(network, IMAGES)] * 2)
        ensemble = ff.evaluate_ensemble(logits, [0, 1], labels)
        chosen = ff.greedy_ensemble(logits, labels, 1)
        single = ff.classification_metrics(logits[0].log_softmax(1), labels)
        trained = rows[0]["nll"], history["accuracy"].tolist()
        results.append((trained, grid["nll"].tolist(), chosen, ensemble, single))
    assert results[0] == results[1]


@pytest.mark.parametrize("kind", WRONG_LABELS)
@pytest.mark.parametrize(
    "use",
    [
        lambda y: ff.train(
            make_network("no-norm"), IMAGES, y, epochs=1, lr=0.1, seed=0, batch_size=8
        ),
        lambda y: ff.fit(make_surface("no-norm"), make_network("no-norm"), IMAGES, y, **FIT),
        lambda y: ff.evaluate_grid(
            make_surface("no-norm"), make_network("no-norm"), {"train": (IMAGES, y)}, points=2
        ),
        lambda y: ff.greedy_ensemble(torch.zeros(2, len(IMAGES), CLASSES), y, 2),
        lambda y: ff.evaluate_ensemble(torch.zeros(2, len(IMAGES), CLASSES), [0], y),
        lambda y: ff.classification_metrics(torch.zeros(len(IMAGES), CLASSES), y),
    ],
    ids=["train", "fit", "evaluate_grid", "greedy_ensemble", "evaluate_ensemble", "metrics"],
)
def test_labels_that_are_no_classes_are_one_message(kind, use):
    labels, said = WRONG_LABELS[kind]
    with pytest.raises(ff.InputError, match=said):
        use(labels)


def test_images_may_be_arrays_of_any_float():
    expected = ff.predict(make_network("no-norm"), IMAGES.float() / 255)
    for images in (IMAGES.numpy() / np.float32(255), IMAGES.double() / 255):
        torch.testing.assert_close(ff.predict(make_network("no-norm"), images), expected)


@pytest.mark.parametrize("splits", [None, {}, {"test": IMAGES}, {"test": (IMAGES,)}, [IMAGES]])
def test_splits_are_pairs_by_name(splits):
    with pytest.raises(ff.InputError, match="split"):
        ff.evaluate_grid(make_surface("no-norm"), make_network("no-norm"), splits, points=2)


def test_a_loss_of_ones_own_gets_the_labels_as_they_are():
    column = LABELS[:, None]
    histories = [
        ff.fit(
            make_surface("no-norm"), make_network("no-norm"), IMAGES, labels, **FIT,
            loss_function=lambda logits, y: nn.functional.cross_entropy(logits, y.flatten()),
        )
        for labels in (LABELS, column)
    ]  # fmt: skip
    for column in ("nll", "accuracy"):
        assert histories[0][column].tolist() == histories[1][column].tolist()
    assert histories[0]["accuracy"].between(0, 1).all()


@pytest.mark.parametrize(
    "targets",
    [nn.functional.one_hot(LABELS, CLASSES).float(), torch.randn(len(IMAGES), CLASSES)],
    ids=["probabilities", "regression"],
)
def test_there_is_no_accuracy_without_classes(targets):
    history = ff.fit(
        make_surface("no-norm"), make_network("no-norm"), IMAGES, targets, **FIT,
        loss_function=nn.functional.mse_loss,
    )  # fmt: skip
    assert history["nll"].notna().all()
    assert history["accuracy"].isna().all()


def test_a_loss_that_is_no_mean_is_refused():
    with pytest.raises(ff.InputError, match="one number"):
        ff.fit(
            make_surface("no-norm"), make_network("no-norm"), IMAGES, LABELS, **FIT,
            loss_function=lambda x, y: nn.functional.cross_entropy(x, y, reduction="none"),
        )  # fmt: skip


# --- outputs --------------------------------------------------------------------------------------


class Returning(nn.Module):
    """A network that returns its logits in some way."""

    def __init__(self, wrap, only_in_training=False):
        super().__init__()
        self.net, self.wrap, self.only = make_network("no-norm"), wrap, only_in_training

    def forward(self, x: Tensor):
        logits = self.net(x)
        return logits if self.only and not self.training else self.wrap(logits)


@pytest.mark.parametrize(
    "wrap", [lambda x: SimpleNamespace(logits=x, loss=None), lambda x: {"logits": x}]
)
def test_logits_are_found_in_an_output(wrap):
    grids = []
    for build in (lambda: Returning(lambda x: x), lambda: Returning(wrap)):
        surface = ff.BezierSurface.from_corners(states_of(build))
        ff.train(build(), IMAGES, LABELS, epochs=1, lr=0.1, seed=0, batch_size=8)
        ff.fit(surface, build(), IMAGES, LABELS, **FIT)
        grids.append(ff.evaluate_grid(surface, build(), SPLITS, points=3)["nll"].tolist())
    assert grids[0] == grids[1]


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda x: (x, x), "tuple of 2"),
        (lambda x: None, "NoneType"),
        (lambda x: x[:, :1], r"\(\d+, 1\)"),
        (lambda x: x[:, 0], "classifier"),
        (lambda x: x[:, :, None, None], "classifier"),
    ],
)
def test_other_outputs_are_one_message(wrap, said):
    surface = ff.BezierSurface.from_corners(states_of(lambda: Returning(wrap)))
    for use in (
        lambda: ff.train(Returning(wrap), IMAGES, LABELS, epochs=1, lr=0.1, seed=0, batch_size=8),
        lambda: ff.fit(surface, Returning(wrap), IMAGES, LABELS, **FIT),
        lambda: ff.evaluate_grid(surface, Returning(wrap), SPLITS, points=2),
        lambda: ff.predict(Returning(wrap), IMAGES),
    ):
        with pytest.raises(ff.InputError, match=said):
            use()


def test_a_loss_of_ones_own_may_take_a_tuple():
    def build():
        return Returning(lambda x: (x, 2 * x), only_in_training=True)

    surface = ff.BezierSurface.from_corners(states_of(build))
    history = ff.fit(
        surface, build(), IMAGES, LABELS, **FIT,
        loss_function=lambda output, y: nn.functional.cross_entropy(output[0] + output[1], y),
    )  # fmt: skip
    assert history["accuracy"].between(0, 1).all()
    assert ff.evaluate_grid(surface, build(), SPLITS, points=2)["nll"].notna().all()


class Divided(nn.Module):
    """A network whose logits are infinite half way between a temperature of 1 and of -1."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(SIZE * SIZE, CLASSES)
        self.temperature = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor):
        return self.net(x.flatten(1)) / self.temperature


@pytest.fixture
def divided():
    states = states_of(Divided)
    for state, temperature in zip(states, (1, 1, -1, -1), strict=True):
        state["temperature"].fill_(temperature)
    return ff.BezierSurface.from_corners(states, degree=(1, 1))


def test_a_network_without_numbers_has_no_metrics_and_is_the_worst(divided):
    with pytest.warns(UserWarning, match=r"network \d gives NaN or infinite logits"):
        grid = ff.evaluate_grid(divided, Divided(), SPLITS, points=3)
    broken = grid["u"] == 0.5
    metrics = ["nll", "accuracy", "ece", "brier"]
    assert grid.loc[broken, metrics].isna().all(axis=None)
    assert grid.loc[~broken, metrics].notna().all(axis=None)
    barriers = ff.measure_barriers(grid)
    assert barriers["max"].isna().all() and (barriers["u_at_max"] == 0.5).all()
    assert barriers["barrier"].isna().all() and (barriers["u_at_barrier"] == 0.5).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_ensemble_takes_a_network_without_numbers(value):
    logits = torch.zeros(3, 5, CLASSES)
    logits[1, 2, 0] = value
    labels = torch.zeros(5, dtype=torch.int64)
    assert sorted(ff.greedy_ensemble(logits, labels, 3, stop_early=False)) == [0, 2]
    with pytest.raises(ff.InputError, match="each of the 1 networks"):
        ff.greedy_ensemble(logits[1:2], labels, 1)
    soup, accuracy = ff.greedy_soup([float("nan"), 0.5, 0.7], lambda members: float("nan"))
    assert (soup, accuracy) == ([2], 0.7)


def test_metrics_of_a_nan_are_nan():
    metrics = ff.classification_metrics(torch.full((2, CLASSES), float("nan")), [0, 1])
    assert all(np.isnan(value) for value in metrics.values())


# --- modules --------------------------------------------------------------------------------------


def linear(wrap=lambda layer: layer):
    return nn.Sequential(
        nn.Flatten(), wrap(nn.Linear(SIZE * SIZE, 6)), nn.Tanh(), nn.Linear(6, CLASSES)
    )


@pytest.mark.parametrize(
    "wrap",
    [parametrizations.weight_norm, parametrizations.spectral_norm, old_spectral_norm],
    ids=["weight_norm", "spectral_norm", "old spectral_norm"],
)
def test_normalized_weights_are_trained_and_evaluated(wrap):
    fit_and_evaluate(lambda: linear(wrap))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_module_that_keeps_a_computed_weight_is_copied_also_after_use():
    def build():
        network = linear(old_weight_norm)
        ff.predict(network, IMAGES)
        return network

    fit_and_evaluate(build)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_module_is_fitted_as_the_plain_one():
    results = []
    for build in (linear, lambda: torch.jit.script(linear())):
        surface = ff.BezierSurface.from_corners(states_of(linear))
        ff.fit(surface, build(), IMAGES, LABELS, **FIT)
        grid = ff.evaluate_grid(surface, build(), SPLITS, points=3)
        results.append((surface.control_points, torch.tensor(grid["nll"])))
    torch.testing.assert_close(*results)


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # within torch.compile
@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, torch.compile, torch.optim.swa_utils.AveragedModel],
    ids=["DataParallel", "compile", "AveragedModel"],
)
def test_the_module_inside_a_wrapper_is_found(wrap):
    grids = []
    for model in (linear(), wrap(linear())):
        surface = ff.BezierSurface.from_corners(states_of(linear))
        ff.fit(surface, model, IMAGES, LABELS, **FIT)
        grids.append(ff.evaluate_grid(surface, model, SPLITS, points=3)["nll"].tolist())
    assert grids[0] == grids[1]


def test_names_that_differ_by_a_prefix_are_said_to():
    states = [{f"model.{k}": v for k, v in state.items()} for state in states_of(linear)]
    with pytest.raises(ff.InputError, match=r"begin with 'model\.'") as caught:
        ff.fit(ff.BezierSurface.from_corners(states), linear(), IMAGES, LABELS, **FIT)
    assert len(str(caught.value)) < 500


def test_what_cannot_be_copied_is_named():
    network = linear()
    network.lock = threading.Lock()
    surface = ff.BezierSurface.from_corners(states_of(linear))
    for use in (
        lambda: ff.fit(surface, network, IMAGES, LABELS, **FIT),
        lambda: ff.evaluate_grid(surface, network, SPLITS, points=2),
    ):
        with pytest.raises(ff.InputError, match="'lock'"):
            use()


def test_a_state_dict_in_place_of_a_module_is_refused():
    surface = make_surface("no-norm")
    with pytest.raises(ff.InputError, match=r"no torch\.nn\.Module"):
        ff.evaluate_grid(surface, surface.state_dict(0, 0), SPLITS, points=2)


def old_names(state):
    return {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in state.items()
    }


def test_names_that_a_module_changes_on_loading_are_refused_or_changed_first():
    def build():
        return linear(parametrizations.weight_norm)

    states = states_of(build)
    renamed = [old_names(state) for state in states]
    with pytest.raises(ff.InputError, match=r"model=model"):
        ff.fit(ff.BezierSurface.from_corners(renamed), build(), IMAGES, LABELS, **FIT)
    with pytest.raises(ff.InputError, match=r"model=model"):
        ff.evaluate_grid(ff.BezierSurface.from_corners(renamed), build(), SPLITS, points=2)
    surfaces = [
        ff.BezierSurface.from_corners(states),
        ff.BezierSurface.from_corners(renamed, model=build()),
    ]
    for surface in surfaces:
        ff.fit(surface, build(), IMAGES, LABELS, **FIT)
    assert torch.equal(surfaces[0].control_points, surfaces[1].control_points)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_get_the_dtype_of_the_module(dtype):
    network = make_network("batchnorm").to(dtype)
    surface = ff.BezierSurface.from_corners(
        [make_network("batchnorm", seed).to(dtype).state_dict() for seed in range(4)]
    )
    ff.train(copy.deepcopy(network), IMAGES, LABELS, epochs=1, lr=0.01, seed=0, batch_size=8)
    ff.fit(surface, network, IMAGES, LABELS, **FIT)
    grid = ff.evaluate_grid(surface, network, SPLITS, points=3)
    assert grid["nll"].notna().all()
    ff.reestimate_batchnorm(network, IMAGES)


def test_double_precision_is_kept_to_the_last_bit(tmp_path):
    states = [
        {
            k: v + 1e-10 * torch.rand_like(v) if v.is_floating_point() else v
            for k, v in state.items()
        }
        for state in make_corners("float64")
    ]
    surface = ff.BezierSurface.from_corners(states)
    surface.save(tmp_path / "surface.safetensors")
    for kept in (surface, ff.BezierSurface.load(tmp_path / "surface.safetensors")):
        corner = kept.state_dict(0.0, 0.0)
        assert all(torch.equal(corner[name], tensor) for name, tensor in states[0].items())


@pytest.mark.parametrize("batch_size", [1, 8])
def test_nothing_trainable_and_a_batch_of_one_are_refused_alike(batch_size):
    network = make_network("batchnorm")
    if batch_size > 1:
        network.requires_grad_(False)
    said = "trainable" if batch_size > 1 else "at least 2 images"
    with pytest.raises(ff.InputError, match=said):
        ff.train(network, IMAGES, LABELS, epochs=1, lr=0.1, seed=0, batch_size=batch_size)
    with pytest.raises(ff.InputError, match=said):
        ff.fit(
            make_surface("batchnorm"), network, IMAGES, LABELS, epochs=1, batch_size=batch_size,
            points_per_step=1,
        )  # fmt: skip


# --- buffers --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*are the same network")
@pytest.mark.parametrize("wrap", [parametrizations.spectral_norm, old_spectral_norm])
def test_between_two_copies_of_one_network_with_spectral_norm_lies_that_network(wrap):
    def build():
        return linear(wrap)

    state = states_of(build, 1)[0]
    flipped = {k: -v if k.endswith(("_u", "_v")) else v.clone() for k, v in state.items()}
    surface = ff.BezierSurface.from_corners([state, flipped] * 2, degree=(1, 1))
    network = build()
    for middle in (surface.state_dict(0.5, 0.5), ff.average_states([state, flipped])):
        # Its vectors are converged, those of the network as it is nearly so.
        network.load_state_dict(state)
        network.train()
        for _ in range(50):
            network(IMAGES[:2].float())
        expected = ff.predict(network, IMAGES)
        network.load_state_dict(middle)
        torch.testing.assert_close(ff.predict(network, IMAGES), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Linear(6, 6),
        lambda: nn.Conv2d(3, 5, 3),
        lambda: nn.ConvTranspose2d(3, 5, 3),
        lambda: nn.ConvTranspose2d(4, 4, 1),
    ],
)
def test_spectral_norm_has_norm_one_at_every_point(layer):
    states = states_of(lambda: parametrizations.spectral_norm(layer()))
    surface = ff.BezierSurface.from_corners(states)
    network = parametrizations.spectral_norm(layer()).eval()
    axis = 1 if isinstance(network, nn.ConvTranspose2d) else 0
    for point in ((0.5, 0.5), (0.2, 0.9), (0.0, 0.4)):
        network.load_state_dict(surface.state_dict(*point))
        matrix = network.weight.detach().movedim(axis, 0).flatten(1)
        assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=1e-3)


class Masked(nn.Module):
    """A network with a buffer that it does not train."""

    def __init__(self, value):
        super().__init__()
        self.net = linear()
        if value is not None:
            self.register_buffer("mask", value)

    def forward(self, x: Tensor):
        return self.net(x)


@pytest.mark.parametrize("value", [-1e4, -1e9, torch.finfo(torch.float32).min, -torch.inf])
def test_a_buffer_that_all_corners_share_is_no_coordinate(value):
    mask = torch.triu(torch.full((16, 16), value), 1)
    surfaces = [
        ff.BezierSurface.from_corners(states_of(lambda m=m: Masked(m))) for m in (None, mask)
    ]
    tables = [ff.measure_distances(surface) for surface in surfaces]
    assert tables[0]["relative_l2"].tolist() == tables[1]["relative_l2"].tolist()
    assert all(
        torch.equal(surfaces[1].state_dict(u, v)["mask"], mask)
        for u in (0.1, 0.5) for v in (0.2, 0.7)
    )  # fmt: skip
    for surface, m in zip(surfaces, (None, mask), strict=True):
        ff.fit(surface, Masked(m), IMAGES, LABELS, **FIT)
    assert torch.equal(surfaces[0].control_points, surfaces[1].control_points)


def test_what_the_corners_share_and_the_model_trains_is_trained(tmp_path):
    states = states_of(linear)
    for state in states:
        state["3.weight"] = states[0]["3.weight"].clone()
    surface = ff.BezierSurface.from_corners(states)
    assert "3.weight" not in surface.layout.names
    surface.save(tmp_path / "surface.safetensors")
    ff.fit(surface, linear(), IMAGES, LABELS, **FIT)
    moved = surface.state_dict(0.5, 0.5)["3.weight"]
    assert not torch.equal(moved, states[0]["3.weight"])
    frozen = linear()
    frozen[3].weight.requires_grad_(False)
    surface = ff.BezierSurface.load(tmp_path / "surface.safetensors")
    ff.fit(surface, frozen, IMAGES, LABELS, **FIT)
    assert torch.equal(surface.state_dict(0.5, 0.5)["3.weight"], states[0]["3.weight"])
    assert "3.weight" not in surface.layout.names


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8, torch.bool])
def test_a_buffer_that_differs_is_refused_until_the_caller_decides(dtype):
    def build(seed=0):
        return Masked(torch.full((3,), seed + 1).to(dtype))

    states = states_of(build)
    for seed, state in enumerate(states):
        state["mask"] = torch.tensor([seed, 1, seed % 2]).to(dtype)
    with pytest.raises(ff.InputError, match=r"'mask'.*buffers="):
        surface = ff.BezierSurface.from_corners(states)
        ff.evaluate_grid(surface, build(), SPLITS, points=2)
    with pytest.raises(ff.InputError, match=r"'mask'.*buffers="):
        surface = ff.BezierSurface.from_corners(states)
        ff.fit(surface, build(), IMAGES, LABELS, **FIT)
    with pytest.raises(ff.InputError, match=r"'mask'.*buffers="):
        ff.BezierSurface.from_corners(states, model=build())
    policies = {"first": states[0]["mask"], "nearest": states[3]["mask"]}
    if dtype.is_floating_point:
        policies["interpolate"] = torch.stack([state["mask"] for state in states]).mean(dim=0)
    for policy, expected in policies.items():
        surface = ff.BezierSurface.from_corners(states, (2, 2), buffers={"ma*": policy})
        ff.fit(surface, build(), IMAGES, LABELS, **FIT)
        ff.evaluate_grid(surface, build(), SPLITS, points=2)
        point = (0.5, 0.5) if policy == "interpolate" else (0.9, 0.9)
        torch.testing.assert_close(surface.state_dict(*point)["mask"], expected)
        assert torch.equal(surface.state_dict(1.0, 0.0)["mask"], states[2]["mask"])


@pytest.mark.parametrize(
    ("buffers", "said"),
    [
        ({"mask": "mean"}, "nearest, interpolate, first"),
        ({"mosk": "first"}, "fits no tensor"),
        ({"mask": "interpolate"}, "int8"),
    ],
)
def test_a_decision_that_cannot_be_carried_out_is_refused(buffers, said):
    states = states_of(lambda: Masked(torch.ones(3, dtype=torch.int8)))
    with pytest.raises(ff.InputError, match=said):
        ff.BezierSurface.from_corners(states, buffers=buffers)


class OwnNorm(nn.Module):
    """BatchNorm that is not PyTorch's."""

    def __init__(self, mean):
        super().__init__()
        self.name = mean
        self.register_buffer(mean, torch.zeros(SIZE * SIZE))

    def forward(self, x: Tensor):
        mean = getattr(self, self.name)
        if self.training:
            mean.lerp_(x.mean(0).detach(), 0.1)
            mean = x.mean(0)
        return x - mean


@pytest.mark.parametrize("name", ["running_mean", "moving_mean"])
def test_statistics_that_nobody_can_renew_are_refused(name):
    def build():
        return nn.Sequential(nn.Flatten(), OwnNorm(name), nn.Linear(SIZE * SIZE, CLASSES))

    states = states_of(build)
    for seed, state in enumerate(states):
        state[f"1.{name}"] += seed
    surface = ff.BezierSurface.from_corners(states)
    for mode in (None, "reestimated"):
        with pytest.raises(ff.InputError, match=name):
            ff.evaluate_grid(surface, build(), SPLITS, points=2, batchnorm=mode)
    surface = ff.BezierSurface.from_corners(states, buffers={f"*.{name}": "interpolate"})
    mode = "interpolated" if name == "running_mean" else None
    grid = ff.evaluate_grid(surface, build(), SPLITS, points=2, batchnorm=mode)
    assert grid["nll"].notna().all()


def test_batchnorm_may_be_called_by_keyword():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(SIZE * SIZE), nn.Linear(SIZE * SIZE, CLASSES)

        def forward(self, x):
            return self.head(self.norm(input=x.flatten(1)))

    grid = ff.evaluate_grid(
        ff.BezierSurface.from_corners(states_of(Keyword)), Keyword(), SPLITS, points=2
    )
    assert set(grid["statistics"]) == {"reestimated", "own"}


# --- ties -----------------------------------------------------------------------------------------


def copies(state):
    """As a file has it that knows no ties, its names in another order."""
    return {name: state[name].clone() for name in sorted(state, reverse=True)}


def test_ties_are_found_in_copies_and_count_once():
    corners = make_corners("tied")
    surfaces = [
        ff.BezierSurface.from_corners(states)
        for states in (corners, [copies(state) for state in corners])
    ]
    distances = [ff.measure_distances(surface) for surface in surfaces]
    assert distances[0]["l2"].tolist() == pytest.approx(distances[1]["l2"].tolist())
    results = []
    for surface in surfaces:
        ff.fit(surface, make_network("tied"), IMAGES, LABELS, **FIT)
        results.append(ff.evaluate_grid(surface, make_network("tied"), SPLITS, points=3)["nll"])
    assert results[0].tolist() == pytest.approx(results[1].tolist(), abs=1e-5)


def test_an_alias_may_be_left_out():
    corners = make_corners("tied")
    short = [{k: v.clone() for k, v in c.items() if k != "second.weight"} for c in corners]
    surfaces = [ff.BezierSurface.from_corners(states) for states in (corners, short)]
    for surface in surfaces:
        ff.fit(surface, make_network("tied"), IMAGES, LABELS, **FIT)
    assert torch.equal(surfaces[0].control_points, surfaces[1].control_points)


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("in_memory", [True, False])
def test_tied_and_untied_corners_are_refused_everywhere(which, in_memory):
    corners = make_corners("tied")
    if not in_memory:
        corners = [copies(state) for state in corners]
    corners[which] = copies(corners[which])
    corners[which]["second.weight"] += 1
    if in_memory:
        for use in (ff.BezierSurface.from_corners, ff.average_states):
            with pytest.raises(ff.InputError, match="tie"):
                use(corners)
        return
    surface = ff.BezierSurface.from_corners(corners)
    network = make_network("tied")
    with pytest.raises(ff.InputError, match="ties"):
        ff.evaluate_grid(surface, network, SPLITS, points=2)
    with pytest.raises(ff.InputError, match="ties"):
        ff.fit(surface, network, IMAGES, LABELS, **FIT)


def test_a_model_without_the_tie_of_the_corners_has_two_parameters():
    network = make_network("tied")
    network.second.weight = nn.Parameter(network.second.weight.detach().clone())
    surface = make_surface("tied")
    before = surface.state_dict(0.5, 0.5)
    ff.fit(surface, network, IMAGES, LABELS, **FIT)
    after = surface.state_dict(0.5, 0.5)
    assert torch.equal(before["first.weight"], before["second.weight"])
    assert not torch.equal(after["first.weight"], after["second.weight"])
    assert not torch.equal(before["second.weight"], after["second.weight"])


def test_a_layer_with_two_names_is_one_also_in_its_statistics():
    def build():
        norm = nn.BatchNorm1d(6)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(SIZE * SIZE, 6), norm, nn.Linear(6, 6), norm, nn.Tanh(),
            nn.Linear(6, CLASSES),
        )  # fmt: skip

    fit_and_evaluate(build)


class Branches(nn.Module):
    """Two biases that are added get the same gradients: they are equal, and not tied."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(SIZE * SIZE, CLASSES), nn.Linear(SIZE * SIZE, CLASSES)
        nn.init.zeros_(self.a.bias)
        nn.init.zeros_(self.b.bias)

    def forward(self, x: Tensor):
        return self.a(x.flatten(1)) + self.b(x.flatten(1))


def test_biases_that_happen_to_be_equal_are_not_tied():
    states = []
    for seed in range(4):
        network = Branches()
        ff.train(network, IMAGES, LABELS, epochs=2, lr=0.1, seed=seed, batch_size=8)
        states.append(copy.deepcopy(network.state_dict()))
        assert torch.equal(network.a.bias, network.b.bias) and network.a.bias.any()
    surface = ff.BezierSurface.from_corners(states)
    assert surface.dimension == sum(p.numel() for p in Branches().parameters())
    ff.fit(surface, Branches(), IMAGES, LABELS, **FIT)


def test_corners_that_are_one_network_are_noticed():
    network = make_network("no-norm")
    with pytest.warns(UserWarning, match="same network"):
        ff.BezierSurface.from_corners([network.state_dict() for _ in range(4)])
