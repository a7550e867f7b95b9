"""Laws of ensembles."""

import itertools

import pytest
import torch

from fourfold.combination.ensemble import evaluate_ensemble, greedy_ensemble
from fourfold.errors import InputError
from fourfold.evaluation.metrics import average_predictions, classification_metrics


def members(networks=5, n=40, classes=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=draw)
    logits = torch.randn(networks, n, classes, generator=draw)
    logits += 1.5 * torch.nn.functional.one_hot(labels, classes)
    return logits, labels


def nll(logits, chosen, labels):
    return classification_metrics(average_predictions(logits[list(chosen)]), labels)["nll"]


def test_an_ensemble_of_identical_members_is_the_member():
    logits, labels = members(networks=1)
    alone = evaluate_ensemble(logits, [0], labels)
    together = evaluate_ensemble(logits.expand(4, -1, -1), [0, 1, 2, 3], labels)
    assert alone.pop("forward_passes") == 1
    assert together.pop("forward_passes") == 4
    assert together == pytest.approx(alone, rel=1e-5)
    assert together["disagreement"] == 0


def test_an_ensemble_does_not_depend_on_the_order_of_its_members():
    logits, labels = members()
    forward, backward = (evaluate_ensemble(logits, m, labels) for m in ([0, 2, 4], [4, 2, 0]))
    assert forward == pytest.approx(backward, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_nll_of_an_ensemble_is_at_most_the_mean_of_its_members(seed):
    logits, labels = members(seed=seed)
    mean = sum(nll(logits, [i], labels) for i in range(5)) / 5
    assert evaluate_ensemble(logits, range(5), labels)["nll"] <= mean


def test_members_that_are_not_chosen_do_not_count():
    logits, labels = members()
    spoiled = logits.clone()
    spoiled[3] = 1e4
    chosen = [0, 1, 4]
    assert evaluate_ensemble(logits, chosen, labels) == evaluate_ensemble(spoiled, chosen, labels)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("max_members", [1, 2, 5, 9])
def test_a_greedy_ensemble_is_never_worse_than_the_best_single_network(seed, max_members):
    logits, labels = members(seed=seed)
    chosen = greedy_ensemble(logits, labels, max_members)
    best = min(nll(logits, [i], labels) for i in range(5))
    assert 1 <= len(chosen) <= min(max_members, 5)
    assert len(set(chosen)) == len(chosen)
    assert nll(logits, chosen, labels) <= best + 1e-6
    assert nll(logits, chosen[:1], labels) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(5))
def test_each_greedy_choice_is_the_best_one_and_it_stops_when_none_helps(seed):
    logits, labels = members(seed=seed)
    chosen = greedy_ensemble(logits, labels, 5)
    for size in range(1, len(chosen) + 1):
        others = [i for i in range(5) if i not in chosen[: size - 1]]
        found = {i: nll(logits, [*chosen[: size - 1], i], labels) for i in others}
        assert found[chosen[size - 1]] == pytest.approx(min(found.values()))
    for other in set(range(5)) - set(chosen):
        assert nll(logits, [*chosen, other], labels) >= nll(logits, chosen, labels) - 1e-9


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_members", [1, 3, 5, 9])
def test_without_an_early_stop_there_are_as_many_members_as_asked_for(seed, max_members):
    """For a comparison with as many others; each is still the best of what is left."""
    logits, labels = members(seed=seed)
    chosen = greedy_ensemble(logits, labels, max_members, stop_early=False)
    assert len(set(chosen)) == len(chosen) == min(max_members, 5)
    stopped = greedy_ensemble(logits, labels, max_members)
    assert chosen[: len(stopped)] == stopped
    assert chosen == greedy_ensemble(logits, labels, 9, stop_early=False)[:max_members]
    for size in range(1, len(chosen) + 1):
        left = [i for i in range(5) if i not in chosen[: size - 1]]
        found = {i: nll(logits, [*chosen[: size - 1], i], labels) for i in left}
        assert found[chosen[size - 1]] == pytest.approx(min(found.values()))


def test_a_copy_is_chosen_only_where_the_choice_does_not_stop():
    logits, labels = members(networks=1)
    assert greedy_ensemble(logits.expand(3, -1, -1), labels, 3) == [0]
    assert sorted(greedy_ensemble(logits.expand(3, -1, -1), labels, 3, stop_early=False)) == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize("seed", range(5))
def test_two_of_three_are_chosen_as_by_trying_all_where_the_best_one_is_in_the_best_two(seed):
    logits, labels = members(networks=3, seed=seed)
    chosen = greedy_ensemble(logits, labels, 2)
    single = min(range(3), key=lambda i: nll(logits, [i], labels))
    subsets = [s for k in (1, 2) for s in itertools.combinations(range(3), k) if single in s]
    best = min(subsets, key=lambda s: nll(logits, s, labels))
    assert set(chosen) == set(best)


def test_two_networks_that_mend_each_other_are_both_chosen_and_a_copy_is_not():
    labels = torch.zeros(8, dtype=torch.int64)
    left, right = torch.zeros(8, 2), torch.zeros(8, 2)
    left[:4, 0], left[4:, 0] = 4.1, -2.0
    right[4:, 0], right[:4, 0] = 4.0, -2.0
    assert greedy_ensemble(torch.stack([left, right, left]), labels, 3) == [0, 1]
    assert greedy_ensemble(torch.stack([left, left]), labels, 2) == [0]


def test_a_confident_mistake_of_every_network_does_not_empty_the_ensemble():
    """exp(-200) is 0 in single precision; the nll is 200 and not infinite."""
    logits = torch.zeros(2, 4, 2)
    logits[:, :, 0] = 5.0
    logits[0, 0], logits[1, 0] = torch.tensor([0.0, 200.0]), torch.tensor([0.0, 150.0])
    labels = torch.zeros(4, dtype=torch.int64)
    assert greedy_ensemble(logits, labels, 1) == [1]
    assert greedy_ensemble(logits.half(), labels, 1) == [1]


@pytest.mark.parametrize(("networks", "max_members"), [(0, 3), (3, 0), (3, -1)])
def test_an_ensemble_of_nothing_is_refused(networks, max_members):
    logits, labels = members()
    with pytest.raises(InputError, match=f"max_members is {max_members}.*{networks} networks"):
        greedy_ensemble(logits[:networks], labels, max_members)
