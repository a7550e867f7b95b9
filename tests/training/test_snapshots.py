"""Laws of snapshots: a run that is killed and continued ends as an undisturbed one."""

import math
import random

import pandas as pd
import pytest
import torch
from conftest import differing, make_images, make_network
from torch import nn

from fourfold.data.augment import RandomShiftFlip
from fourfold.surfaces.surface import BezierSurface
from fourfold.training.fit import fit
from fourfold.training.snapshots import Snapshots
from fourfold.training.train import train

IMAGES, LABELS = make_images(24)
TRAINING = {
    "epochs": 4,
    "lr": 0.05,
    "seed": 3,
    "batch_size": 8,
    "augment": RandomShiftFlip(1, True),
}
STEPS = 12


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
    rows = train(network, IMAGES, LABELS, **TRAINING | settings, snapshots=store,
                 on_step=killer(dies_at))  # fmt: skip
    return network.state_dict(), pd.DataFrame(rows).drop(columns="wall_s")


def run_fit(name, settings, store=None, dies_at=None):
    corners = [make_network(name, seed).state_dict() for seed in range(4)]
    surface = BezierSurface.from_corners(corners, degree=(2, 2))
    common = {"epochs": 2, "boundary_epochs": 2, "lr": 0.1, "seed": 3, "batch_size": 8}
    table = fit(surface, make_network(name), IMAGES, LABELS, **common | settings,
                augment=RandomShiftFlip(1, True), snapshots=store,
                on_step=killer(dies_at))  # fmt: skip
    return {"points": surface.control_points}, table.drop(columns="wall_s")


CASES = [
    (run_training, "dropout", {"optimizer": "sgd"}),
    (run_training, "batchnorm", {"optimizer": "sgd"}),
    (run_training, "vit", {"optimizer": "adamw", "clip_norm": 1.0}),
    (run_fit, "dropout", {"optimizer": "sgd"}),
    (run_fit, "batchnorm", {"optimizer": "sgd", "sampler": "uniform"}),
    (run_fit, "vit", {"optimizer": "adamw", "clip_norm": 1.0}),
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


def test_a_run_with_one_step_per_epoch_continues_too(tmp_path):
    settings = {"batch_size": 24, "epochs": 6}
    undisturbed, rows = run_training("dropout", settings)
    for step in (2, 5):
        with pytest.raises(KilledError):
            run_training("dropout", settings, snapshots(tmp_path), dies_at=step)
    assert snapshots(tmp_path).load()["step"] == 4
    state, continued_rows = run_training("dropout", settings, snapshots(tmp_path))
    assert differing(undisturbed, state) == []
    pd.testing.assert_frame_equal(rows, continued_rows, check_exact=True)


@pytest.mark.parametrize("key", [{"lr": 0.1}, {"code": "other"}, {"lr": 0.2, "data": "x"}])
def test_the_state_of_another_computation_is_never_continued(tmp_path, key):
    snapshots(tmp_path, lr=0.2).save({"step": 3, "w": torch.ones(2)})
    assert snapshots(tmp_path, lr=0.2).load()["step"] == 3
    assert snapshots(tmp_path, **key).load() is None


def test_a_damaged_state_is_not_continued(tmp_path):
    store = snapshots(tmp_path)
    store.save({"w": torch.ones(200)})
    path = tmp_path / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert snapshots(tmp_path).load() is None


def test_notes_and_time_travel_with_the_state(tmp_path):
    store = snapshots(tmp_path)
    store.notes = {"rows": [1, 2.5, None]}
    store.save({"w": torch.ones(2)})
    later = snapshots(tmp_path)
    assert later.load()["w"].tolist() == [1, 1]
    assert later.notes == {"rows": [1, 2.5, None]}
    assert later.seconds_before > 0


def test_saving_takes_a_small_part_of_the_time(tmp_path):
    store = Snapshots(tmp_path, {}, interval=0)
    assert store.is_due()
    store.save({"w": torch.ones(1_000_000)})
    assert not store.is_due()  # not before twenty times as long as that took


def test_nothing_is_left_when_the_computation_has_ended(tmp_path):
    store = snapshots(tmp_path / "state")
    store.save({"w": torch.ones(2)})
    store.remove()
    assert not (tmp_path / "state").exists()
    store.remove()  # nothing to remove is no error


def test_a_model_without_state_resumes_too(tmp_path):
    """One linear layer trained without momentum: the optimizer has nothing to keep."""

    def run(store, dies_at=None):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        train(network, IMAGES, LABELS, **TRAINING | {"momentum": 0.0}, snapshots=store,
              on_step=killer(dies_at))  # fmt: skip
        return network.state_dict()

    undisturbed = run(None)
    with pytest.raises(KilledError):
        run(snapshots(tmp_path), dies_at=7)
    assert differing(undisturbed, run(snapshots(tmp_path))) == []
