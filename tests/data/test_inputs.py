"""What people pass to the public functions: labels, outputs, modules and buffers of many kinds.

Each test states the value that is right, or that there is one message.
"""

import copy
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CLASSES, SIZE, make_corners, make_images, make_network, make_surface
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm
from torch.utils.data import DataLoader, TensorDataset

import fourfold as ff
from fourfold.combination.nulls import randomize
from fourfold.errors import InputError
from fourfold.training.bound_model import BoundModel

IMAGES, LABELS = make_images()
DATA = (IMAGES, LABELS)
SPLITS = {"train": DATA}
INPUTS = IMAGES / 255
FIT = {"epochs": 1, "batch_size": 8}
TRAIN = {**FIT, "lr": 0.1, "seed": 0}


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


def surface_of(build, **settings):
    return ff.BezierSurface.from_corners(states_of(build), **settings)


def fit_and_evaluate(build, surface, model=None):
    """Fit, and return the control points and the losses at 3 x 3 points."""
    before = surface.control_points.clone()
    ff.fit(surface, model or build(), *DATA, **FIT)
    assert (surface.control_points != before).any(dim=1)[list(surface.free_rows)].all()
    grid = ff.evaluate_grid(surface, model or build(), SPLITS, points=3)
    assert grid["nll"].notna().all()
    return surface.control_points, grid["nll"].tolist()


def check_refused(said, *uses):
    """Check that each of the calls ends in a message with these parts."""
    for use in uses:
        with pytest.raises(ff.InputError) as caught:
            use()
        for part in [said] if isinstance(said, str) else said:
            assert part in str(caught.value)
        assert len(str(caught.value)) < 500


# --- labels ---------------------------------------------------------------------------------------

SAME_LABELS = {
    "int32": LABELS.int(),
    "uint8": LABELS.to(torch.uint8),
    "whole floats": LABELS.double(),
    "a column of int16": LABELS[:, None].short(),
    "NumPy": LABELS.numpy(),
    "NumPy uint8": LABELS.numpy().astype(np.uint8),
    "a list": LABELS.tolist(),
}
WRONG_LABELS = {
    "from 1": (LABELS + 1, "labels - 1"),
    "ignored": (torch.where(LABELS == 0, -100, LABELS), "-100 (8 of 24 are negative)"),
    "one-hot": (one_hot(LABELS, CLASSES), "argmax"),
    "fractions": (LABELS + 0.5, "not whole"),
    "a fraction": (LABELS.float().index_fill(0, torch.tensor(5), 0.5), "number 5 is 0.5"),
    "NaN": (LABELS.float().fill_(float("nan")), "not whole"),
    "too few": (LABELS[:-1], "one per image"),
    "strings": (np.array(["cat"] * len(LABELS)), "numbers"),
    "none": (None, "NoneType"),
}
LOGITS = torch.zeros(2, len(IMAGES), CLASSES)


@pytest.mark.parametrize("kind", SAME_LABELS)
def test_labels_of_any_form_are_the_same_labels(kind):
    results = []
    for labels in (LABELS, SAME_LABELS[kind]):
        network, surface = make_network("batchnorm"), make_surface("batchnorm")
        rows = ff.train(network, IMAGES, labels, **TRAIN)
        history = ff.fit(surface, network, IMAGES, labels, **FIT)
        grid = ff.evaluate_grid(surface, network, {"train": (IMAGES, labels)}, points=3)
        logits = torch.stack([ff.predict(network, IMAGES)] * 2)
        ensemble = ff.evaluate_ensemble(logits, [0, 1], labels)
        chosen = ff.greedy_ensemble(logits, labels, 1)
        single = ff.classification_metrics(logits[0].log_softmax(1), labels)
        trained = rows["nll"][0], history["accuracy"].tolist()
        results.append((trained, grid["nll"].tolist(), chosen, ensemble, single))
    assert results[0] == results[1]


@pytest.mark.parametrize("kind", WRONG_LABELS)
def test_labels_that_are_no_classes_are_one_message_wherever_they_are_given(kind):
    y, said = WRONG_LABELS[kind]
    network, surface = make_network("no-norm"), make_surface("no-norm")
    check_refused(
        said,
        lambda: ff.train(network, IMAGES, y, **TRAIN),
        lambda: ff.fit(surface, network, IMAGES, y, **FIT),
        lambda: ff.evaluate_grid(surface, network, {"train": (IMAGES, y)}, points=2),
        lambda: ff.greedy_ensemble(LOGITS, y, 2),
        lambda: ff.evaluate_ensemble(LOGITS, [0], y),
        lambda: ff.classification_metrics(LOGITS[0], y),
    )


def test_images_may_be_arrays_of_any_float():
    expected = ff.predict(make_network("no-norm"), IMAGES.float() / 255)
    for images in (IMAGES.numpy() / np.float32(255), IMAGES.double() / 255):
        torch.testing.assert_close(ff.predict(make_network("no-norm"), images), expected)


@pytest.mark.parametrize(
    ("layer", "batchnorm"),
    [(nn.Tanh, "none"), (nn.Tanh, "repaired"), (lambda: nn.BatchNorm1d(6), "reestimated")],
)
def test_code_that_works_in_place_writes_to_copies_of_the_images(layer, batchnorm):
    images, found = INPUTS - 0.5, []
    before = images.clone()

    def build():
        first = nn.LeakyReLU(0.5, inplace=is_inplace)
        layers = (nn.Flatten(), nn.Linear(SIZE * SIZE, 6), layer(), nn.Linear(6, CLASSES))
        return nn.Sequential(first, *layers)

    for is_inplace in (False, True):

        def change(x, generator=None, is_inplace=is_inplace):
            return x.mul_(0.5) if is_inplace else x.mul(0.5)

        surface, model = surface_of(build), build()
        changes = {"preprocess": change, "augment": change}
        grid = ff.evaluate_grid(
            surface, model, {"test": (images, LABELS)}, points=3, batchnorm=batchnorm,
            batchnorm_images=images, **changes,
        )  # fmt: skip
        ff.reestimate_batchnorm(model, images, **changes)
        ff.predict(model, images, preprocess=change)
        ff.predict(model, images.numpy())
        assert torch.equal(images, before)
        found.append(grid["nll"].tolist())
    assert found[0] == found[1]


def test_bytes_and_booleans_are_scaled_alike_in_tensors_and_in_batches():
    network, masks = make_network("no-norm"), IMAGES > 100
    for given, meant in ((IMAGES, IMAGES.float() / 255), (masks, masks.float())):
        expected = ff.predict(network, meant)
        for images in (given, DataLoader(TensorDataset(given), 24), [given.numpy()]):
            assert torch.equal(ff.predict(network, images), expected)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int32, torch.int64])
def test_whole_numbers_of_more_than_a_byte_are_images_as_long_as_they_are_up_to_255(dtype):
    network, images = make_network("no-norm"), IMAGES.to(dtype)
    assert torch.equal(ff.predict(network, images), ff.predict(network, IMAGES))
    images[3, 0, 0, 0] = 256
    with pytest.raises(InputError, match=rf"{dtype} with values from 0 to 256.*0 to 255"):
        ff.predict(network, images)


def test_batches_of_images_alone_are_taken_as_the_images():
    found = []
    for images in (
        INPUTS, DataLoader(TensorDataset(INPUTS), 24), [INPUTS], [INPUTS.numpy()], [(INPUTS,)],
    ):  # fmt: skip
        network = make_network("batchnorm")
        ff.reestimate_batchnorm(network, images)
        found.append(ff.predict(network, [INPUTS[:10], INPUTS[10:]]))
    assert all(torch.equal(each, found[0]) for each in found)


def test_images_that_are_none_are_one_message():
    network, surface = make_network("batchnorm"), make_surface("batchnorm")
    turned = INPUTS.to(torch.complex64)
    check_refused(
        "complex64; give",
        lambda: ff.predict(network, turned),
        lambda: ff.predict(network, [turned]),
    )
    check_refused("no images to predict", lambda: ff.predict(network, INPUTS[:0]))
    pair = (INPUTS, LABELS)
    check_refused(
        ["a tuple of 2", "the images alone"],
        lambda: ff.predict(network, pair),
        lambda: ff.reestimate_batchnorm(network, pair),
        lambda: ff.evaluate_grid(surface, network, SPLITS, 2, batchnorm_images=pair),
    )
    check_refused("leave batch_size", lambda: ff.predict(network, [INPUTS], batch_size=8))


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (None, "NoneType"),
        ({}, "empty"),
        ({"test": IMAGES}, "pair"),
        ({"test": (IMAGES,)}, "pair"),
        ({"test": (IMAGES[:0], LABELS[:0])}, "0 images"),
    ],
)
def test_splits_are_pairs_by_name(splits, said):
    arguments = make_surface("no-norm"), make_network("no-norm"), splits
    check_refused(["split", said], lambda: ff.evaluate_grid(*arguments, points=2))


def fit_with(loss_function, labels=LABELS, build=lambda: make_network("no-norm")):
    surface = surface_of(build)
    return ff.fit(surface, build(), IMAGES, labels, **FIT, loss_function=loss_function)


def test_a_loss_of_ones_own_gets_the_labels_as_they_are():
    histories = [
        fit_with(lambda logits, y: cross_entropy(logits, y.flatten()), labels)
        for labels in (LABELS, LABELS[:, None])
    ]
    for column in ("nll", "accuracy"):
        assert histories[0][column].tolist() == histories[1][column].tolist()
    assert histories[0]["accuracy"].between(0, 1).all()


@pytest.mark.parametrize(
    "targets",
    [one_hot(LABELS, CLASSES).float(), torch.randn(len(IMAGES), CLASSES)],
    ids=["probabilities", "regression"],
)
def test_there_is_no_accuracy_without_classes(targets):
    history = fit_with(mse_loss, targets)
    assert history["nll"].notna().all()
    assert history["accuracy"].isna().all()


def test_a_loss_that_is_no_mean_is_refused():
    check_refused("one number", lambda: fit_with(nn.CrossEntropyLoss(reduction="none")))


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
    results = []
    for build in (lambda: Returning(lambda x: x), lambda: Returning(wrap)):
        rows = ff.train(build(), *DATA, **TRAIN)
        results.append((rows["nll"][0], fit_and_evaluate(build, surface_of(build))[1]))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda x: (x, x), "tuple of 2"),
        (lambda x: None, "NoneType"),
        (lambda x: x[:, :1], ", 1)"),
        (lambda x: x[:, 0], "classifier"),
        (lambda x: x[:, :, None, None], "classifier"),
    ],
)
def test_other_outputs_are_one_message(wrap, said):
    network, surface = Returning(wrap), surface_of(lambda: Returning(wrap))
    check_refused(
        said,
        lambda: ff.train(network, *DATA, **TRAIN),
        lambda: ff.fit(surface, network, *DATA, **FIT),
        lambda: ff.evaluate_grid(surface, network, SPLITS, points=2),
        lambda: ff.predict(network, IMAGES),
    )


def test_a_loss_of_ones_own_may_take_a_tuple():
    history = fit_with(
        lambda output, y: cross_entropy(output[0] + output[1], y),
        build=lambda: Returning(lambda x: (x, 2 * x), only_in_training=True),
    )
    assert history["accuracy"].between(0, 1).all()


class Divided(nn.Module):
    """A network whose logits are infinite half way between a temperature of 1 and of -1."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(SIZE * SIZE, CLASSES)
        self.temperature = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor):
        return self.net(x.flatten(1)) / self.temperature


def test_a_network_without_numbers_has_no_metrics_and_is_the_worst():
    states = states_of(Divided)
    for state, temperature in zip(states, (1, 1, -1, -1), strict=True):
        state["temperature"].fill_(temperature)
    divided = ff.BezierSurface.from_corners(states, degree=(1, 1))
    with pytest.warns(UserWarning, match=r"network \d gives NaN or infinite logits"):
        grid = ff.evaluate_grid(divided, Divided(), SPLITS, points=3)
    broken = grid["u"] == 0.5
    metrics = ["nll", "accuracy", "ece", "brier"]
    assert grid.loc[broken, metrics].isna().all(axis=None)
    assert grid.loc[~broken, metrics].notna().all(axis=None)
    barriers = ff.measure_barriers(grid)
    assert barriers["max"].isna().all() and (barriers["u_at_max"] == 0.5).all()
    assert barriers["barrier"].isna().all() and (barriers["u_at_barrier"] == 0.5).all()


# --- modules --------------------------------------------------------------------------------------


def linear(wrap=lambda layer: layer):
    return nn.Sequential(
        nn.Flatten(), wrap(nn.Linear(SIZE * SIZE, 6)), nn.Tanh(), nn.Linear(6, CLASSES)
    )


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        old_spectral_norm,
        old_weight_norm,  # keeps a computed weight, which can't be copied as it is
    ],
    ids=["weight_norm", "spectral_norm", "old spectral_norm", "old weight_norm"],
)
def test_normalized_weights_are_trained_and_evaluated_also_after_use(wrap):
    def build():
        network = linear(wrap)
        ff.predict(network, IMAGES)
        return network

    fit_and_evaluate(build, surface_of(build))


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # within torch.compile too
@pytest.mark.parametrize(
    "wrap",
    [torch.jit.script, nn.DataParallel, torch.compile, torch.optim.swa_utils.AveragedModel],
    ids=["script", "DataParallel", "compile", "AveragedModel"],
)
def test_a_scripted_or_wrapped_module_is_fitted_as_the_plain_one(wrap):
    results = [
        fit_and_evaluate(linear, surface_of(linear), model) for model in (None, wrap(linear()))
    ]
    torch.testing.assert_close(results[0], results[1])


def test_a_wrapper_of_ones_own_is_not_taken_for_what_it_wraps():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = linear()

        def forward(self, x: Tensor):
            return self.module(2 * x)

    states, network = states_of(Doubling), Doubling()
    surface = ff.Surface.from_corners(states)
    evaluation = ff.evaluate_points(surface, network, SPLITS, [(0, 0)])
    network.load_state_dict(states[0])
    torch.testing.assert_close(
        evaluation.logits["train"][0].float(), network(INPUTS), rtol=1e-3, atol=1e-3
    )
    inside = [{k.removeprefix("module."): v for k, v in state.items()} for state in states]
    check_refused(
        "begin with 'module.'",
        lambda: ff.fit(ff.Surface.from_corners(inside), network, *DATA, **FIT),
    )


@pytest.mark.parametrize("parts", [{"x": INPUTS, "labels": LABELS}, (INPUTS, LABELS)])
def test_parts_that_a_forward_does_not_take_are_named(parts):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear()

        def forward(self, x: Tensor):
            return self.net(x)

    loader = [({**parts, "idx": LABELS}, LABELS)] if isinstance(parts, dict) else [(parts, LABELS)]
    check_refused(["refuses these", "without labels"], lambda: ff.predict(Named(), parts))
    check_refused(["refuses these"], lambda: ff.train(Named(), loader, epochs=1, lr=0.1, seed=0))


def test_a_precision_is_checked_wherever_it_is_given():
    network = make_network("batchnorm")
    check_refused(
        "choose one of float32, tf32, bfloat16",
        lambda: ff.predict(network, IMAGES, precision="bf16"),
        lambda: ff.reestimate_batchnorm(network, IMAGES, precision="half"),
    )


def test_names_that_differ_by_a_prefix_are_said_to():
    states = [{f"model.{k}": v for k, v in state.items()} for state in states_of(linear)]
    surface = ff.BezierSurface.from_corners(states)
    check_refused("begin with 'model.'", lambda: ff.fit(surface, linear(), *DATA, **FIT))


def test_what_is_no_module_or_cannot_be_copied_is_named():
    network, surface = linear(), surface_of(linear)
    network.lock = threading.Lock()
    check_refused(
        "'lock'",
        lambda: ff.fit(surface, network, *DATA, **FIT),
        lambda: ff.evaluate_grid(surface, network, SPLITS, points=2),
    )
    state = surface.state_dict(0, 0)
    check_refused("no torch.nn.Module", lambda: ff.evaluate_grid(surface, state, SPLITS, points=2))


def test_names_that_a_module_changes_on_loading_are_refused_or_changed_first():
    def build():
        return linear(parametrizations.weight_norm)

    states = states_of(build)
    new = "1.parametrizations.weight.original"
    names = {f"{new}0": "1.weight_g", f"{new}1": "1.weight_v"}  # of older versions of PyTorch
    renamed = [{names.get(k, k): v for k, v in state.items()} for state in states]
    surface = ff.BezierSurface.from_corners(renamed)
    check_refused(
        "model=model",
        lambda: ff.fit(surface, build(), *DATA, **FIT),
        lambda: ff.evaluate_grid(surface, build(), SPLITS, points=2),
    )
    surfaces = [surface_of(build), ff.BezierSurface.from_corners(renamed, model=build())]
    results = [fit_and_evaluate(build, surface) for surface in surfaces]
    assert torch.equal(results[0][0], results[1][0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_get_the_dtype_of_the_module(dtype):
    def build():
        return make_network("batchnorm").to(dtype)

    ff.train(build(), *DATA, **TRAIN | {"lr": 0.01})
    fit_and_evaluate(build, surface_of(build))
    ff.reestimate_batchnorm(build(), IMAGES)


def test_a_batch_of_one_is_refused_where_batchnorm_needs_two():
    network, surface = make_network("batchnorm"), make_surface("batchnorm")
    check_refused(
        "at least 2 images",
        lambda: ff.train(network, *DATA, **TRAIN | {"batch_size": 1}),
        lambda: ff.fit(surface, network, *DATA, epochs=1, batch_size=1, points_per_step=1),
    )


# --- hooks and losses that reach the parameters ---------------------------------------------------


def test_a_hook_that_masks_gradients_does_so_in_a_fit():
    mask = torch.arange(CLASSES * SIZE * SIZE).reshape(CLASSES, -1) % 2

    def build():
        network = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, CLASSES))
        with torch.no_grad():
            network[1].weight *= mask
        network[1].weight.register_hook(lambda gradient: gradient * mask)
        return network

    states = [build().state_dict() for _ in range(4)]
    surface = ff.Surface.from_corners(states)
    ff.fit(surface, build(), *DATA, **FIT)
    weight = surface.state_dict(0.5, 0.5)["1.weight"]
    assert not (weight * (1 - mask)).any()
    assert weight.any()


@pytest.mark.parametrize("kind", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_hook_that_would_go_on_with_the_original_is_refused_by_a_fit(kind):
    network = linear()
    weight = network[3].weight
    getattr(weight, kind)(lambda gradient: gradient * (weight != 0))
    surface = surface_of(linear)
    check_refused(["'3.weight'", "hook"], lambda: ff.fit(surface, network, *DATA, **FIT))
    assert ff.evaluate_grid(surface, network, SPLITS, points=2)["nll"].notna().all()


def test_a_loss_that_computes_with_the_models_parameters_is_refused_by_a_fit():
    network = linear()

    def loss(output, target):
        return cross_entropy(output, target) + sum(p.abs().sum() for p in network.parameters())

    check_refused(
        ["loss_function", "'1.weight'", "forward()"],
        lambda: ff.fit(surface_of(linear), network, *DATA, **FIT, loss_function=loss),
    )
    assert all(parameter.grad is None for parameter in network.parameters())
    before = network[3].weight.abs().sum()
    ff.train(network, *DATA, **TRAIN, loss_function=loss)
    assert network[3].weight.abs().sum() < before


def test_a_loss_alone_keeps_no_outputs_that_nothing_is_made_of():
    class PerPixel(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor):
            outputs = self.scale * x
            alive.append(weakref.ref(outputs))
            return outputs

    def loss(output, target):
        counts.append(sum(one() is not None for one in alive))
        return mse_loss(output, target)

    alive: list[weakref.ref] = []
    counts: list[int] = []
    states = [{"scale": torch.tensor(float(k))} for k in range(4)]
    surface, splits = ff.Surface.from_corners(states), {"val": (INPUTS, INPUTS)}
    for metrics, most in ((None, 1), ({"largest": lambda o, t: float(o.max())}, len(INPUTS) // 4)):
        counts.clear()
        table = ff.evaluate_points(
            surface, PerPixel(), splits, [(0.5, 0.5)], batch_size=4, loss_function=loss,
            metrics=metrics,
        ).table  # fmt: skip
        assert table["loss"].iloc[0] == pytest.approx(mse_loss(1.5 * INPUTS, INPUTS).item())
        assert max(counts) == most


# --- buffers --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*are the same network")
@pytest.mark.parametrize("wrap", [parametrizations.spectral_norm, old_spectral_norm])
def test_between_two_copies_of_one_network_with_spectral_norm_lies_that_network(wrap):
    def build():
        return linear(wrap)

    state = states_of(build, 1)[0]
    flipped = {k: -v if k.endswith(("_u", "_v")) else v.clone() for k, v in state.items()}
    network = build()
    corners = [state, flipped] * 2
    surface = ff.BezierSurface.from_corners(corners, degree=(1, 1), model=network)
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
    def build():
        return parametrizations.spectral_norm(layer()).eval()

    surface, network = surface_of(build), build()
    axis = 1 if isinstance(network, nn.ConvTranspose2d) else 0
    for point in ((0.5, 0.5), (0.2, 0.9), (0.0, 0.4)):
        network.load_state_dict(surface.state_dict(*point))
        matrix = network.weight.detach().movedim(axis, 0).flatten(1)
        assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=1e-3)


def spectral_states(build, count):
    """Return networks whose vectors are converged, as training leaves them."""
    states = []
    for state in states_of(build, count):
        network = build()
        network.load_state_dict(state)
        network.train()
        for _ in range(50):
            network(IMAGES[:2].float())
        states.append(copy.deepcopy(network.state_dict()))
    return states


def norm_of(network, state):
    network.load_state_dict(state)
    return torch.linalg.matrix_norm(network.eval()[1].weight, 2).item()


@pytest.mark.parametrize(
    ("count", "settings"),
    [
        (1, {"shape": "simplex", "added": 2}),
        (1, {"shape": "star", "added": 1}),
        (4, {"train_corners": True}),
    ],
)
def test_vectors_of_spectral_norm_are_those_of_the_weights_where_a_fit_moved_them(count, settings):
    def build():
        return nn.Sequential(nn.Flatten(), parametrizations.spectral_norm(nn.Linear(64, 3)))

    states = spectral_states(build, count)
    surface = ff.Surface.from_corners(states, **settings)
    ff.fit(surface, build(), *DATA, epochs=20, batch_size=8, lr=5.0)
    axes, is_star = len(surface.shape.axes), settings.get("shape") == "star"
    for point in ([0.0, 1.0],) if is_star else ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.3, 0.3]):
        state = surface.state_dict(*point[:axes])
        assert norm_of(build(), state) == pytest.approx(1, abs=2e-3)
    if not surface.train_corners:  # an untouched corner stays that network to the last bit
        kept = surface.corner()
        assert all(torch.equal(kept[name], value) for name, value in states[0].items())
    for state in randomize(states) if count > 1 else ():
        assert norm_of(build(), state) == pytest.approx(1, abs=2e-3)


def test_a_layer_with_spectral_norm_may_have_two_names():
    def build():
        layer = parametrizations.spectral_norm(nn.Linear(6, 6))
        return nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 6), layer, layer, nn.Linear(6, 3))

    states = states_of(build)  # copies, as files are
    surface = ff.Surface.from_corners([{k: v.clone() for k, v in of.items()} for of in states])
    through = ff.Surface.from_corners(states, model=build())
    for middle in (surface.state_dict(0.5, 0.5), through.state_dict(0.5, 0.5)):
        torch.testing.assert_close(middle, ff.average_states(states), rtol=1e-3, atol=1e-3)


class Masked(nn.Module):
    """A network with a buffer that it does not train."""

    def __init__(self, value):
        super().__init__()
        self.net = linear()
        self.register_buffer("mask", value)

    def forward(self, x: Tensor):
        return self.net(x)


def test_what_the_corners_share_and_the_model_trains_is_trained(tmp_path):
    states = states_of(linear)
    for state in states:
        state["3.weight"] = states[0]["3.weight"].clone()
    surface = ff.BezierSurface.from_corners(states)
    assert "3.weight" not in surface.layout.names
    surface.save(tmp_path / "surface.safetensors")
    frozen = linear()
    frozen[3].weight.requires_grad_(False)
    for model, is_trained in ((linear(), True), (frozen, False)):
        surface = ff.BezierSurface.load(tmp_path / "surface.safetensors")
        ff.fit(surface, model, *DATA, **FIT)
        weight = surface.state_dict(0.5, 0.5)["3.weight"]
        assert torch.equal(weight, states[0]["3.weight"]) != is_trained
        assert ("3.weight" in surface.layout.names) == is_trained


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8, torch.bool])
def test_a_buffer_that_differs_is_refused_until_the_caller_decides(dtype):
    def build():
        return Masked(torch.ones(3).to(dtype))

    states = states_of(build)
    for seed, state in enumerate(states):
        state["mask"] = torch.tensor([seed, 1, seed % 2]).to(dtype)
    span = ff.BezierSurface.from_corners
    check_refused(
        ["'mask'", "buffers="],
        lambda: ff.evaluate_grid(span(states), build(), SPLITS, points=2),
        lambda: ff.fit(span(states), build(), *DATA, **FIT),
        lambda: span(states, model=build()),
    )
    policies = {"first": states[0]["mask"], "nearest": states[3]["mask"]}
    if dtype.is_floating_point:
        policies["interpolate"] = torch.stack([state["mask"] for state in states]).mean(dim=0)
    for policy, expected in policies.items():
        surface = span(states, (2, 2), buffers={"ma*": policy})
        fit_and_evaluate(build, surface)
        point = (0.5, 0.5) if policy == "interpolate" else (0.9, 0.9)
        torch.testing.assert_close(surface.state_dict(*point)["mask"], expected)
        assert torch.equal(surface.state_dict(1.0, 0.0)["mask"], states[2]["mask"])


def test_what_the_model_trains_is_no_buffer():
    surface = ff.Surface.from_corners(states_of(linear), buffers={"3.weight": "nearest"})
    check_refused(
        ["'3.weight'", "which the model trains"],
        lambda: ff.fit(surface, linear(), *DATA, **FIT),
    )


@pytest.mark.parametrize(
    ("buffers", "said"),
    [
        ({"mask": "mean"}, "nearest, interpolate, first"),
        ({"mosk": "first"}, "fits no tensor"),
        ({"mask": "interpolate"}, "int8"),
        ("nearest", "buffers is 'nearest'; give a dictionary"),
    ],
)
def test_a_decision_that_cannot_be_carried_out_is_refused(buffers, said):
    states = states_of(lambda: Masked(torch.ones(3, dtype=torch.int8)))
    check_refused(said, lambda: ff.BezierSurface.from_corners(states, buffers=buffers))


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


class Scaler(nn.Module):
    """Fixed statistics of the inputs, used in training too."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.register_buffer(name, torch.zeros(SIZE * SIZE))

    def forward(self, x: Tensor):
        return x - getattr(self, self.name)


@pytest.mark.parametrize("name", ["running_mean", "moving_mean"])
def test_a_fit_takes_at_each_point_the_buffers_that_its_network_has(name):
    def build():
        return nn.Sequential(nn.Flatten(), Scaler(name), nn.Linear(SIZE * SIZE, CLASSES))

    states = states_of(build)
    for seed, state in enumerate(states):
        state[f"1.{name}"] += seed
    surface = ff.Surface.from_corners(states, buffers={f"*.{name}": "interpolate"})
    bound, network = BoundModel(build(), surface, torch.device("cpu")), build().eval()
    for point in ((0, 0), (1, 1), (0.3, 0.8)):
        theta, (mixture,) = surface.point(*point), surface.mixture([point])
        loss, _ = bound.gradient(
            theta, INPUTS, LABELS, cross_entropy, torch.zeros_like(theta), mixture
        )
        network.load_state_dict(surface.state_dict(*point))
        assert loss.item() == pytest.approx(cross_entropy(network(INPUTS), LABELS).item())


@pytest.mark.parametrize("name", ["running_mean", "moving_mean"])
def test_statistics_that_nobody_can_renew_are_refused(name):
    def build():
        return nn.Sequential(nn.Flatten(), OwnNorm(name), nn.Linear(SIZE * SIZE, CLASSES))

    states = states_of(build)
    for seed, state in enumerate(states):
        state[f"1.{name}"] += seed
    surface = ff.BezierSurface.from_corners(states)
    for mode in (None, "reestimated"):
        settings = {"points": 2, "batchnorm": mode}
        check_refused(name, lambda s=settings: ff.evaluate_grid(surface, build(), SPLITS, **s))
    surface = ff.BezierSurface.from_corners(states, buffers={f"*.{name}": "interpolate"})
    mode = "interpolated" if name == "running_mean" else None
    grid = ff.evaluate_grid(surface, build(), SPLITS, points=2, batchnorm=mode)
    assert grid["nll"].notna().all()


class Keyword(nn.BatchNorm1d):
    """BatchNorm that is called by keyword."""

    def __call__(self, x: Tensor):
        return super().__call__(input=x)


def test_batchnorm_may_be_called_by_keyword():
    def build():
        return nn.Sequential(nn.Flatten(), Keyword(SIZE * SIZE), nn.Linear(SIZE * SIZE, CLASSES))

    grid = ff.evaluate_grid(surface_of(build), build(), SPLITS, points=2)
    assert set(grid["statistics"]) == {"reestimated", "own"}


# --- ties -----------------------------------------------------------------------------------------


def copies(state):
    """As a file has it that knows no ties, its names in another order."""
    return {name: state[name].clone() for name in sorted(state, reverse=True)}


def without_alias(state):
    return {name: state[name].clone() for name in state if name != "second.weight"}


@pytest.mark.parametrize("change", [copies, without_alias])
def test_ties_are_found_in_copies_or_where_an_alias_is_left_out_and_count_once(change):
    corners = make_corners("tied")
    results = []
    for states in (corners, [change(state) for state in corners]):
        surface = ff.BezierSurface.from_corners(states)
        distances = ff.measure_distances(surface)["l2"].tolist()
        _, losses = fit_and_evaluate(None, surface, make_network("tied"))
        results.append(distances + losses)
    assert results[0] == pytest.approx(results[1], abs=1e-5)


@pytest.mark.parametrize("which", range(4))
def test_tied_and_untied_corners_are_refused_also_where_files_know_no_ties(which):
    corners = [copies(state) for state in make_corners("tied")]
    corners[which]["second.weight"] += 1
    surface, network = ff.BezierSurface.from_corners(corners), make_network("tied")
    check_refused(
        "ties",
        lambda: ff.evaluate_grid(surface, network, SPLITS, points=2),
        lambda: ff.fit(surface, network, *DATA, **FIT),
    )


def test_a_model_without_the_tie_of_the_corners_has_two_parameters():
    network = make_network("tied")
    network.second.weight = nn.Parameter(network.second.weight.detach().clone())
    surface = make_surface("tied")
    before = surface.state_dict(0.5, 0.5)
    ff.fit(surface, network, *DATA, **FIT)
    after = surface.state_dict(0.5, 0.5)
    assert torch.equal(before["first.weight"], before["second.weight"])
    assert not torch.equal(after["first.weight"], after["second.weight"])
    assert not torch.equal(before["second.weight"], after["second.weight"])


def test_a_layer_with_two_names_is_one_also_in_its_statistics():
    def build():
        norm, head = nn.BatchNorm1d(6), nn.Linear(6, CLASSES)
        layers = nn.Flatten(), nn.Linear(SIZE * SIZE, 6), norm, nn.Linear(6, 6), norm, head
        return nn.Sequential(*layers)

    fit_and_evaluate(build, surface_of(build))


def test_what_a_module_ties_counts_once_whether_or_not_it_is_given():
    def build():
        norm = nn.LayerNorm(6)
        layers = nn.Flatten(), nn.Linear(SIZE * SIZE, 6), norm, nn.Linear(6, 6), norm
        return nn.Sequential(*layers, nn.Linear(6, CLASSES))

    states = states_of(build)
    surfaces = [ff.Surface.from_corners(states, model=model) for model in (None, build())]
    count = sum(parameter.numel() for parameter in build().parameters())
    assert [surface.dimension for surface in surfaces] == [count, count]
    plain, through = map(ff.measure_distances, surfaces)
    assert plain["l2"].equals(through["l2"])


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
        ff.train(network, *DATA, **FIT, lr=0.1, seed=seed)
        states.append(copy.deepcopy(network.state_dict()))
        assert torch.equal(network.a.bias, network.b.bias) and network.a.bias.any()
    surface = ff.BezierSurface.from_corners(states)
    assert surface.dimension == sum(p.numel() for p in Branches().parameters())
    fit_and_evaluate(Branches, surface)


def test_corners_that_are_one_network_are_noticed():
    with pytest.warns(UserWarning, match="same network"):
        ff.BezierSurface.from_corners([make_network("no-norm").state_dict()] * 4)
