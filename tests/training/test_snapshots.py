"""Laws of snapshots: a run that is killed and continued ends as an undisturbed one."""

import math
import random

import pandas as pd
import pytest
import torch
from conftest import differing, make_images, make_network

from fourfold.data.augment import RandomShiftFlip
from fourfold.surfaces.surface import BezierSurface
from fourfold.training.fit import fit
from fourfold.training.snapshots import Snapshots
from fourfold.training.train import train

IMAGES, LABELS = make_images(24)
AUGMENT = RandomShiftFlip(1, True)
TRAINING = {"epochs": 4, "lr": 0.05, "seed": 3, "batch_size": 8, "augment": AUGMENT}
STEPS = 12
CURVES = [["corner_00", "P_01", "corner_01"], ["corner_10", "P_21", "corner_11"]]
PHASES = [{"epochs": 1, "curves": CURVES, "rows": None}]


class KilledError(Exception):
    """Stands for a kill: nothing after it runs."""


def killer(step_to_die):
    def on_step(step, steps, loss, images):
        if step == step_to_die:
            raise KilledError

    return on_step


def snapshots(folder, **key):
    """Save after every step, whatever it costs."""
    return Snapshots(folder, key, interval=0, largest_share=math.inf)


def run_training(name, settings, store=None, dies_at=None):
    network = make_network(name)
    averaged = make_network(name, seed=1) if "ema" in settings else None
    table = train(network, IMAGES, LABELS, **TRAINING | settings, averaged=averaged,
                  snapshots=store, on_step=killer(dies_at))  # fmt: skip
    of_average = {} if averaged is None else averaged.state_dict()
    state = network.state_dict() | {f"average/{k}": tensor for k, tensor in of_average.items()}
    return state, table.drop(columns="wall_s")


def run_fit(name, settings, store=None, dies_at=None, first=0, **of_surface):
    corners = [make_network(name, first + k).state_dict() for k in range(4)]
    surface = BezierSurface.from_corners(corners, **{"degree": (2, 2)} | of_surface)
    common = {"epochs": 2, "boundary_epochs": 2, "lr": 0.1, "seed": 3, "batch_size": 8}
    table = fit(surface, make_network(name), IMAGES, LABELS, **common | settings,
                augment=AUGMENT, snapshots=store, on_step=killer(dies_at))  # fmt: skip
    return {"points": surface.control_points}, table.drop(columns="wall_s")


CASES = [
    (run_training, "dropout", {"optimizer": "sgd"}),
    (run_training, "batchnorm", {"optimizer": "sgd", "ema": 0.8}),
    (run_training, "vit", {"optimizer": "adamw", "clip_norm": 1.0}),
    (run_training, "dropout", {"batch_size": 24, "epochs": STEPS}),  # one step per epoch
    (run_training, "no-norm", {"momentum": 0.0}),  # an optimizer that has nothing to keep
    (run_fit, "dropout", {"optimizer": "sgd"}),
    (run_fit, "batchnorm", {"optimizer": "sgd", "sampler": "uniform"}),
    (run_fit, "vit", {"optimizer": "adamw", "clip_norm": 1.0}),
    (run_fit, "dropout", {"repeats": 2, "cosine": 0.1, "epochs": 1, "phases": PHASES}),
]


@pytest.mark.parametrize(("run", "name", "settings"), CASES)
@pytest.mark.parametrize("deaths", [(5,), (1, 2, 7), (4, 8, STEPS)])
def test_a_run_killed_at_any_step_ends_as_an_undisturbed_one(tmp_path, run, name, settings, deaths):
    undisturbed, rows = run(name, settings)
    for step in deaths:
        with pytest.raises(KilledError):
            run(name, settings, snapshots(tmp_path), dies_at=step)
    torch.manual_seed(random.randrange(1000))  # a new process draws from elsewhere
    state, continued_rows = run(name, settings, snapshots(tmp_path))
    assert differing(undisturbed, state) == []
    pd.testing.assert_frame_equal(rows, continued_rows, check_exact=True)


def test_a_run_continues_and_does_not_start_again(tmp_path):
    with pytest.raises(KilledError):
        run_training("batchnorm", {}, snapshots(tmp_path), dies_at=8)
    steps = []
    network = make_network("batchnorm")
    train(network, IMAGES, LABELS, **TRAINING, snapshots=snapshots(tmp_path),
          on_step=lambda step, *_: steps.append(step))  # fmt: skip
    assert steps[0] == 8  # saved after step 7, step 8 did not end
    assert steps[-1] == STEPS


@pytest.mark.parametrize("key", [{"lr": 0.1}, {"code": "other"}, {"lr": 0.2, "data": "x"}])
def test_the_state_of_another_computation_is_never_continued(tmp_path, key):
    snapshots(tmp_path, lr=0.2).save({"step": 3, "w": torch.ones(2)})
    assert snapshots(tmp_path, lr=0.2).load()["step"] == 3
    assert snapshots(tmp_path, **key).load() is None


OTHER_FITS = {
    "corners": ("batchnorm", {}, {"first": 1}),
    "degree": ("batchnorm", {}, {"degree": (3, 2)}),
    "shape": ("batchnorm", {"boundary_epochs": 0}, {"shape": "star", "added": 1, "degree": None}),
    "free corners": ("batchnorm", {}, {"train_corners": True}),
    "optimizer": ("batchnorm", {"optimizer": "adamw"}, {}),
    "architecture": ("no-norm", {}, {}),
    "seed": ("batchnorm", {"seed": 4}, {}),
}


@pytest.mark.parametrize("other", OTHER_FITS)
def test_a_fit_that_is_another_starts_anew_though_its_key_is_the_same(tmp_path, other):
    name, settings, of = OTHER_FITS[other]
    with pytest.raises(KilledError):
        run_fit("batchnorm", {}, snapshots(tmp_path), dies_at=5)
    undisturbed, rows = run_fit(name, settings, **of)
    found, found_rows = run_fit(name, settings, snapshots(tmp_path), **of)
    assert differing(undisturbed, found) == []
    pd.testing.assert_frame_equal(rows, found_rows, check_exact=True)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("batchnorm", {"optimizer": "adamw"}),
        ("batchnorm", {"ema": 0.8}),
        ("batchnorm", {"seed": 4}),
        ("no-norm", {}),
        ("frozen", {}),  # no-norm, of which less is trained
    ],
)
def test_a_training_that_is_another_starts_anew_though_its_key_is_the_same(
    tmp_path, name, settings
):
    before = "no-norm" if name == "frozen" else "batchnorm"
    with pytest.raises(KilledError):
        run_training(before, {}, snapshots(tmp_path), dies_at=5)
    undisturbed, rows = run_training(name, settings)
    found, found_rows = run_training(name, settings, snapshots(tmp_path))
    assert differing(undisturbed, found) == []
    pd.testing.assert_frame_equal(rows, found_rows, check_exact=True)


def test_neither_fit_nor_training_continues_the_other(tmp_path):
    with pytest.raises(KilledError):
        run_training("batchnorm", {}, snapshots(tmp_path), dies_at=5)
    undisturbed, _ = run_fit("batchnorm", {})
    found, _ = run_fit("batchnorm", {}, snapshots(tmp_path))
    assert differing(undisturbed, found) == []


def test_a_state_that_is_not_continued_leaves_notes_and_time_alone(tmp_path):
    store = snapshots(tmp_path)
    store.notes = {"rows": [1]}
    store.save({"step": 3}, {"seed": 3})
    later = snapshots(tmp_path)
    assert later.load({"seed": 4}) is None
    assert (later.notes, later.seconds_before) == ({}, 0)
    assert later.load({"seed": 3})["step"] == later.load()["step"] == 3


def test_a_state_that_is_damaged_or_removed_is_not_continued(tmp_path):
    store = snapshots(tmp_path / "state")
    store.save({"w": torch.ones(200)})
    path = tmp_path / "state" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert store.load() is None
    store.remove()
    assert not (tmp_path / "state").exists()
    store.remove()  # nothing to remove is no error


def test_saving_takes_a_small_part_of_the_time(tmp_path):
    store = Snapshots(tmp_path, {}, interval=0)
    assert store.is_due()
    store.save({"w": torch.ones(1_000_000)})
    assert not store.is_due()  # not before twenty times as long as that took


def test_notes_and_time_travel_with_the_state(tmp_path):
    store = snapshots(tmp_path)
    store.notes = {"rows": [1, 2.5, None]}
    store.save({"w": torch.ones(2)})
    later = snapshots(tmp_path)
    assert later.load()["w"].tolist() == [1, 1]
    assert later.notes == {"rows": [1, 2.5, None]}
    assert later.seconds_before > 0
