"""Laws of training one network, of its schedule and of its seeds."""

import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from conftest import NETWORKS, differing, make_images, make_network, snapshot
from torch import nn

from fourfold.data.augment import RandomShiftFlip
from fourfold.errors import DivergenceError, InputError
from fourfold.evaluation.batchnorm import reestimate_batchnorm
from fourfold.seeds import derive_seed, make_generator
from fourfold.surfaces.modules import load_state
from fourfold.training.schedule import learning_rate
from fourfold.training.train import train

IMAGES, LABELS = make_images(24)
RESTARTS = {"name": "restarts", "cycles": 4}
SWA = {"name": "swa", "start": 0.75, "lr": 0.5}
FGE = {"name": "fge", "start": 0.8, "cycles": 5, "low": 0.1, "high": 0.5}
SETTINGS = {"epochs": 2, "lr": 0.05, "seed": 0, "batch_size": 8}


def trained(name="no-norm", global_seed=0, data=(IMAGES, LABELS), **settings):
    network = make_network(name)
    torch.manual_seed(global_seed)
    before = torch.get_rng_state()
    history = train(network, *data, **(SETTINGS | settings))
    assert torch.equal(torch.get_rng_state(), before)
    return snapshot(network.state_dict()), history


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in ("bfloat16", "float64")])
def test_one_seed_gives_one_network_bit_for_bit_whatever_the_global_generator(name):
    augment = RandomShiftFlip(1, True)
    first, second = (trained(name, global_seed=g, augment=augment)[0] for g in (1, 2))
    assert differing(first, second) == []
    assert set(differing(first, trained(name, seed=1, augment=augment)[0])) >= {
        name for name, p in make_network(name).named_parameters() if p.requires_grad
    }


def test_drawing_for_augmentation_changes_neither_the_order_nor_dropout():
    def draw_and_forget(batch, generator):
        torch.rand(100, generator=generator)
        return batch

    plain, drawn = trained("dropout")[0], trained("dropout", augment=draw_and_forget)[0]
    assert differing(plain, drawn) == []


def test_measuring_during_training_does_not_change_it():
    """A callback that draws random numbers and leaves the network in evaluation mode."""
    network = make_network("dropout")

    def on_epoch(_epoch):
        network.eval()
        network(IMAGES.float())

    train(network, IMAGES, LABELS, **SETTINGS, on_epoch=on_epoch)
    assert differing(network.state_dict(), trained("dropout")[0]) == []


def test_augmentation_sees_the_images_and_never_the_labels_or_the_stored_images():
    stored, seen = IMAGES.clone(), []

    def augment(batch, generator):
        seen.append(batch.clone())
        batch.zero_()
        return torch.randint(256, batch.shape, generator=generator, dtype=torch.uint8)

    trained(augment=augment)
    assert torch.equal(IMAGES, stored)
    assert torch.cat(seen).shape == (48, 1, 8, 8)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_lowers_the_loss(optimizer):
    lr = 0.1 if optimizer == "sgd" else 0.01
    _, history = trained("batchnorm", epochs=15, lr=lr, optimizer=optimizer)
    assert history["nll"].iloc[-1] < history["nll"].iloc[0] / 2
    assert history["accuracy"].iloc[-1] > 0.9


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_a_step_is_that_of_torchs_own_optimizer(optimizer, clip_norm):
    reference = make_network("batchnorm").train()
    if optimizer == "sgd":
        descent = torch.optim.SGD(
            reference.parameters(), 0.1, momentum=0.8, nesterov=True, weight_decay=0.01
        )
    else:
        descent = torch.optim.AdamW(
            reference.parameters(), 0.1, betas=(0.8, 0.9), weight_decay=0.01
        )
    for _ in range(2):
        order = torch.arange(24)  # one full batch: its order changes no mean
        loss = nn.functional.cross_entropy(reference(IMAGES[order] / 255), LABELS[order])
        descent.zero_grad()
        loss.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(reference.parameters(), clip_norm)
        descent.step()
    state, _ = trained(
        "batchnorm", batch_size=24, lr=0.1, optimizer=optimizer, momentum=0.8, betas=(0.8, 0.9),
        weight_decay=0.01, clip_norm=clip_norm, warmup=0, schedule="constant",
    )  # fmt: skip
    torch.testing.assert_close(state, dict(reference.state_dict()), rtol=1e-4, atol=1e-4)


def test_the_history_has_one_row_per_epoch_with_the_columns_of_the_table():
    epochs, steps = [], []
    _, history = trained(
        batch_size=10, epochs=3, on_epoch=epochs.append, on_step=lambda *s: steps.append(s)
    )
    assert history["epoch"].tolist() == epochs == [1, 2, 3]
    assert history["step"].tolist() == [2, 4, 6]
    assert history["images_seen"].tolist() == [20, 40, 60]
    assert set(history["split"]) == {"train"}
    assert [step[:2] for step in steps] == [(i, 6) for i in range(1, 7)]
    assert list(history) == [
        "epoch", "step", "split", "nll", "accuracy", "learning_rate", "images_seen", "wall_s",
    ]  # fmt: skip


def test_the_reported_loss_is_the_mean_over_the_images():
    _, history = trained(epochs=1, lr=1e-12)
    network = make_network("no-norm").eval()
    expected = nn.functional.cross_entropy(network(IMAGES / 255), LABELS).item()
    assert history["nll"].iloc[0] == pytest.approx(expected, rel=1e-5)


def test_the_reported_loss_weighs_examples_and_not_batches():
    network, parts = make_network("no-norm"), (slice(0, 2), slice(2, 8), slice(8, 24))
    batches = [(IMAGES[part], LABELS[part]) for part in parts]
    history = train(network, batches, epochs=1, lr=1e-12, seed=0)
    expected = nn.functional.cross_entropy(network.eval()(IMAGES / 255), LABELS).item()
    assert history["nll"].iloc[0] == pytest.approx(expected, rel=1e-5)


def test_divergence_is_an_error_that_names_epoch_rate_and_cure():
    with pytest.raises(DivergenceError, match=r"epoch \d+.*learning rate.*Lower lr"):
        trained(lr=1e25, epochs=10, warmup=0, schedule="constant")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": -1}, "epochs is -1.*at least 0"),
        ({"lr": -0.1}, "lr is -0.1.*positive"),
        ({"lr": math.inf}, "lr is inf"),
        ({"batch_size": 0}, "batch_size is 0.*from 1 to 24"),
        ({"batch_size": 25}, "batch_size is 25.*from 1 to 24"),
        ({"momentum": 1.0}, r"momentum is 1\.0"),
        ({"betas": (0.9,)}, "betas is"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"clip_norm": -1}, "clip_norm is -1"),
        ({"warmup": -0.1}, "warmup is -0.1"),
        ({"schedule": "step"}, "schedule is 'step'.*cosine, constant"),
        ({"schedule": {"cycles": 2}}, "schedule is None.*restarts, swa, fge"),
        ({"schedule": "swa"}, "swa takes start, lr; give {name: swa, start: ..., lr: ...}"),
        ({"schedule": {"name": "cosine", "lr": 0.5}}, "cosine takes no settings"),
        ({"schedule": RESTARTS | {"start": 0.5}}, "restarts takes cycles"),
        ({"schedule": RESTARTS | {"cycles": 1.5}}, r"schedule\.cycles is 1\.5.*integer from 1"),
        ({"schedule": SWA | {"start": 1.0}}, r"schedule\.start is 1\.0.*in \(0, 1\)"),
        ({"schedule": SWA | {"lr": 0}}, r"schedule\.lr is 0;.*fraction of the peak"),
        ({"schedule": FGE | {"low": 0.7}}, r"schedule\.low is 0\.7, above schedule\.high, 0\.5"),
        ({"schedule": RESTARTS, "warmup": 0.25}, r"warmup is 0\.25.*restarts.*first 0\.25"),
        ({"schedule": SWA, "warmup": 0.8}, r"warmup is 0\.8.*swa.*first 0\.75"),
        ({"ema": 0.9}, "ema is 0.9, and averaged no other module"),
        ({"averaged": make_network("no-norm")}, "ema is None, and averaged a module"),
        ({"ema": 1.0, "averaged": make_network("no-norm")}, r"ema is 1\.0; it must be in \(0, 1\)"),
        (
            {"ema": 0.9, "averaged": make_network("layernorm")},
            "averaged differs.*architecture.*deepc",
        ),
        ({"ema": "0.9", "averaged": make_network("no-norm")}, r"ema is '0\.9'; it must be in"),
        ({"epochs_before": -3}, "epochs_before is -3; it must be a whole number, at least 0"),
        ({"optimizer": "lion"}, "optimizer is 'lion'.*sgd or adamw"),
        ({"data": (IMAGES[:0], LABELS[:0])}, "no training images"),
        ({"data": (IMAGES, LABELS[:5])}, "5 labels"),
    ],
)
def test_wrong_settings_are_refused_with_the_value_and_what_is_allowed(settings, said):
    with pytest.raises(InputError, match=said):
        trained(**settings)


def test_what_has_no_gradients_is_not_trained():
    network = make_network("no-norm")
    with torch.inference_mode():
        made_there = make_network("no-norm")
        with pytest.raises(InputError, match=r"which torch\.inference_mode"):
            train(network, IMAGES, LABELS, **SETTINGS)
    with pytest.raises(InputError, match=r"made in torch\.inference_mode"):
        train(made_there, IMAGES, LABELS, **SETTINGS)


# --- moving average -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["batchnorm", "dropout", "tied", "frozen", "buffers"])
@pytest.mark.parametrize("settings", [{}, {"optimizer": "adamw", "precision": "bfloat16"}])
def test_the_average_weighs_the_networks_after_each_step_and_changes_no_training(name, settings):
    network, averaged = make_network(name), make_network(name, seed=1)
    latest = dict(network.named_parameters())
    networks, augment = [], RandomShiftFlip(1, True)
    train(
        network, IMAGES, LABELS, **SETTINGS, **settings, augment=augment, ema=0.7,
        averaged=averaged, on_step=lambda *_: networks.append(snapshot(latest)),
    )  # fmt: skip
    alone, _ = trained(name, **settings, augment=augment)
    assert differing(network.state_dict(), alone) == []
    weights = torch.tensor([0.7**k for k in reversed(range(len(networks)))], dtype=torch.float64)
    for key, found in averaged.named_parameters():
        along = torch.stack([one[key].double() for one in networks])
        expected = torch.tensordot(weights / weights.sum(), along, dims=1)
        torch.testing.assert_close(found.detach().double(), expected, rtol=1e-5, atol=1e-6)
    # Its statistics are its own, of all images as in training; other buffers are the network's.
    reference = make_network(name)
    load_state(reference, snapshot(averaged.state_dict()))
    of = {"batch_size": 8, "augment": augment, "precision": settings.get("precision", "float32")}
    reestimate_batchnorm(reference, IMAGES, **of)
    wrong = differing(averaged.state_dict(), reference.state_dict())
    assert [key for key in wrong if "num_batches" not in key] == []
    if name == "batchnorm":
        assert not torch.equal(averaged[1].running_mean, network[1].running_mean)
    if name == "buffers":
        assert differing(dict(averaged.named_buffers()), dict(network.named_buffers())) == []


# --- schedule and seeds ---------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 10, 137])
@pytest.mark.parametrize("warmup", [0, 0.05, 0.5])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rate_rises_to_its_peak_and_then_falls_or_stays(schedule, warmup, steps):
    rates = [learning_rate(step, steps, 0.4, warmup, schedule) for step in range(steps)]
    top = round(warmup * steps)
    assert all(0 < rate <= 0.4 for rate in rates)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[top] == 0.4
    if schedule == "constant":
        assert set(rates[top:]) == {0.4}
    elif steps == 137:
        assert rates[-1] < 0.002
        middle = (top + steps) // 2
        assert rates[middle] == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize("steps", [100, 101, 137])
@pytest.mark.parametrize("warmup", [0, 0.1])
def test_a_schedule_with_restarts_is_a_cosine_in_each_cycle(warmup, steps):
    rates = [learning_rate(step, steps, 0.4, warmup, RESTARTS) for step in range(steps)]
    starts = [math.ceil(cycle * steps / 4) for cycle in range(4)]
    assert all(0 < rate <= 0.4 for rate in rates)
    for start, end in pairwise([round(warmup * steps), *starts[1:], steps]):
        assert rates[start] == pytest.approx(0.4, rel=0.005)
        assert rates[start:end] == sorted(rates[start:end], reverse=True)
        assert rates[(start + end) // 2] == pytest.approx(0.2, rel=0.15)
        assert rates[end - 1] < 0.008
    if steps == 100:
        of_cycle = [learning_rate(step, 25, 0.4, 0, "cosine") for step in range(25)]
        assert rates[25:] == pytest.approx(of_cycle * 3, abs=1e-12)
    one = RESTARTS | {"cycles": 1}
    for step in range(steps):
        whole = learning_rate(step, steps, 0.4, warmup, "cosine")
        assert learning_rate(step, steps, 0.4, warmup, one) == whole


@pytest.mark.parametrize("schedule", [{"name": "swa", "start": 0.75, "lr": 0.1}, "fge"])
def test_before_networks_are_averaged_the_rate_is_held_then_falls_in_a_straight_line(schedule):
    """At a share t of the way: 1 to t = 0.5, r from t = 0.9, a line between (their `train.py`)."""
    schedule = {**FGE, "start": 0.75, "low": 0.1} if schedule == "fge" else schedule
    for step in range(300):
        t = step / 300
        expected = 1 if t <= 0.5 else 0.1 if t > 0.9 else 1 - 0.9 * (t - 0.5) / 0.4
        assert learning_rate(step, 400, 2.0, 0, schedule) == pytest.approx(2 * expected)
    warm = [learning_rate(step, 400, 2.0, 0.2, schedule) for step in range(300)]
    assert warm[:80] == sorted(warm[:80])
    assert warm[80:] == sorted(warm[80:], reverse=True)
    assert warm[80] == 2
    assert warm[-1] == pytest.approx(0.2)
    if schedule["name"] == "swa":
        rest = [learning_rate(step, 400, 2.0, 0, schedule) for step in range(300, 400)]
        assert rest == pytest.approx([0.2] * 100)


def test_the_cycles_of_fast_geometric_ensembling_end_at_their_lowest_rate():
    """They are those of the paper, moved by half a cycle."""
    rates = [learning_rate(step, 1000, 2.0, 0.05, FGE) for step in range(800, 1000)]
    for step, rate in enumerate(rates):
        t = (step / 40 + 0.5) % 1
        expected = (1 - 2 * t) * 0.5 + 2 * t * 0.1 if t < 0.5 else (2 - 2 * t) * 0.1
        expected += 0 if t < 0.5 else (2 * t - 1) * 0.5
        assert rate == pytest.approx(2 * expected)
    assert [step for step, rate in enumerate(rates) if rate == pytest.approx(0.2)] == [
        0, 40, 80, 120, 160,
    ]  # fmt: skip
    assert rates[-1] == pytest.approx(0.2, rel=0.3)


def test_streams_of_one_seed_and_seeds_of_one_stream_are_different():
    seeds = [derive_seed(s, stream) for s in range(20) for stream in ("order", "points", "dropout")]
    assert len(set(seeds)) == 60
    assert all(0 <= seed < 2**63 for seed in seeds)
    draws = [torch.rand(4, generator=make_generator(1, stream)) for stream in ("order", "points")]
    assert not torch.equal(*draws)


def test_seeds_are_equal_in_every_process():
    """Python's own hash of strings is salted for each."""
    code = "from fourfold.seeds import derive_seed; print(derive_seed(3, 'order'))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert int(result.stdout) == derive_seed(3, "order")
