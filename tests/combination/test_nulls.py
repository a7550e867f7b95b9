"""Null models of a corner set."""

import pytest
import torch
from conftest import make_corners

from fourfold.combination.merge import average_states
from fourfold.combination.nulls import randomize
from fourfold.errors import InputError


def differences(states, name):
    rows = torch.stack([state[name].double().flatten() for state in states])
    return rows - rows.mean(dim=0)


@pytest.mark.parametrize("count", [2, 4])
def test_mean_and_distances_stay_and_the_directions_are_new(count):
    states = make_corners("resnet18")[:count]
    made = randomize(states, seed=1)
    mean, of_made = average_states(states), average_states(made)
    for name, tensor in states[0].items():
        assert made[0][name].shape == tensor.shape
        if not tensor.is_floating_point() or "running" in name:
            assert torch.equal(made[0][name], tensor)
            continue
        torch.testing.assert_close(of_made[name], mean[name], rtol=1e-5, atol=1e-6)
        old, new = (differences(of, name) for of in (states, made))
        torch.testing.assert_close(new @ new.T, old @ old.T, rtol=1e-4, atol=1e-6)
        if tensor.numel() > 100:
            cosine = torch.cosine_similarity(old[0], new[0], dim=0)
            assert abs(cosine) < 5 * tensor.numel() ** -0.5


def test_the_seed_decides():
    corners = make_corners("resnet18")
    first, again, other = (randomize(corners[:2], seed)[0] for seed in (0, 0, 1))
    name = max(first, key=lambda name: first[name].numel())
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_one_network_has_no_null_model():
    with pytest.raises(InputError, match="at least two networks, got 1"):
        randomize(make_corners("vit")[:1])
