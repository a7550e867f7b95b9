"""The corners of a surface, from the files that a rule names."""

import pytest
from conftest import differing, make_network

from fourfold.errors import InputError
from fourfold.pipeline.commands._corners import read_corners, write_choice
from fourfold.surfaces.checkpoint import save_checkpoint, save_trajectory


@pytest.fixture
def run(tmp_path):
    """Return the file of a run's networks, and the networks."""
    networks = {epoch: make_network("no-norm", epoch).state_dict() for epoch in (1, 2, 3, 4, 5)}
    save_trajectory(networks, tmp_path / "run.safetensors", {"seed": 7})
    return tmp_path / "run.safetensors", networks


def test_chosen_corners_are_the_runs_networks_in_the_order_of_the_choice(run, tmp_path):
    path, networks = run
    write_choice(tmp_path / "c.json", "c", "val", [5, 2, 1, 3])
    corners = read_corners([tmp_path / "c.json", path])
    assert corners.seeds == [7] * 4
    for state, epoch in zip(corners.states, (5, 2, 1, 3), strict=True):
        assert differing(state, networks[epoch]) == []


def test_independent_corners_are_the_checkpoints_in_order(tmp_path):
    states = [make_network("batchnorm", seed).state_dict() for seed in range(4)]
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(4)]
    for seed, (state, path) in enumerate(zip(states, paths, strict=True)):
        save_checkpoint(state, path, {"seed": seed})
    corners = read_corners(paths)
    assert corners.seeds == [0, 1, 2, 3]
    assert [differing(a, b) for a, b in zip(corners.states, states, strict=True)] == [[]] * 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no file at"),
        ("[1]", "not a JSON object"),
        ('{"epochs": [1]}', "lacks"),
        (
            '{"corners": "c", "kind": "run", "chosen_on": "val", "epochs": [1, 2, 3, 9]}',
            r"\[9\], which .*doesn't hold",
        ),
    ],
)
def test_a_list_that_names_no_networks_is_refused(text, said, run, tmp_path):
    if text is not None:
        (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read_corners([tmp_path / "c.json", run[0]])
