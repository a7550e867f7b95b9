"""Laws of ensembles."""

import itertools

import pandas as pd
import pytest
import torch
from conftest import CORNERS

from fourfold.combination.ensemble import compare_ensembles, evaluate_ensemble, greedy_ensemble
from fourfold.errors import InputError
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.evaluation.metrics import average_predictions, classification_metrics
from fourfold.surfaces.points import grid_points


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


# --- of all surfaces of an experiment -------------------------------------------------------------

POINTS = grid_points(5)
SPLITS = {"val": torch.arange(30) % 10, "test": torch.arange(40) % 10}
SURFACES = {
    "plain": {"corners": "four", "kind": "seeds", "fit": None},
    "along": {"corners": "run", "kind": "run", "fit": None},
}
FITTED = {
    name: {"corners": "four", "kind": "seeds", "fit": name} for name in ("one-fit", "another-fit")
}


def surface_logits(name, corners, statistics="reestimated"):
    """Return logits of 25 points; every corner is far better than any other point."""
    draws = {key: torch.Generator().manual_seed(len(key)) for key in (name, corners)}
    logits = {k: torch.randn(25, len(v), 10, generator=draws[name]) for k, v in SPLITS.items()}
    own = {k: torch.randn(4, len(v), 10, generator=draws[corners]) for k, v in SPLITS.items()}
    for split, labels in SPLITS.items():
        for corner in map(POINTS.index, CORNERS):
            logits[split][corner] += 9 * torch.nn.functional.one_hot(labels, 10)
    half = [{split: values.half() for split, values in part.items()} for part in (logits, own)]
    return SurfaceLogits(name, statistics, POINTS, *half, SPLITS)


def compared(surfaces, max_members=5, **logits):
    found = {name: surface_logits(name, of["corners"]) for name, of in surfaces.items()} | logits
    return pd.DataFrame(compare_ensembles(found, surfaces, max_members))


def of_each(table):
    """Return (ensemble, corners) -> its rows as they are, but for these two."""
    keys = ["ensemble", "corners"]
    rows = table.drop(columns=keys).to_dict("records")
    found = {}
    for key, row in zip(table[keys].itertuples(index=False, name=None), rows, strict=True):
        found.setdefault(key, []).append(row)
    return found


def points_of(members):
    return [tuple(map(float, member.split(","))) for member in members.split(";")]


def test_corners_have_their_ensembles_once_however_many_surfaces_lie_on_them():
    before, after = of_each(compared(SURFACES)), of_each(compared(SURFACES | FITTED))
    assert list(before) == [
        *(("corners", "four"), ("plain", "four"), ("run-corners", "run"), ("along", "run"))
    ]
    assert after.keys() - before.keys() == {(name, "four") for name in FITTED}
    assert {key: after[key] for key in before} == before
    assert after["one-fit", "four"] != after["another-fit", "four"]


def test_corners_have_the_same_ensembles_whether_or_not_a_surface_on_them_is_unfitted():
    corners = of_each(compared(FITTED))["corners", "four"]
    assert corners == of_each(compared(SURFACES))["corners", "four"]


def test_nothing_depends_on_the_names_of_surfaces():
    names = {"plain": "bezier", "along": "linear"}
    logits = {new: surface_logits(old, SURFACES[old]["corners"]) for old, new in names.items()}
    renamed = compared({new: SURFACES[old] for old, new in names.items()}, **logits)
    expected = compared(SURFACES)
    expected["ensemble"] = expected["ensemble"].replace(names)
    pd.testing.assert_frame_equal(renamed, expected)


def test_members_are_as_many_on_both_sides_and_each_number_is_there():
    table = compared(SURFACES)
    sizes = table["members"].map(points_of).map(len)
    assert sizes.tolist() == table["forward_passes"].tolist()
    test = table[table["split"] == "test"]
    found = {
        key: sorted(rows["forward_passes"])
        for key, rows in test.groupby(["ensemble", "selection"])
        if key[0] in ("corners", "plain")
    }
    assert found == {
        ("corners", "fixed"): [4],
        ("corners", "subset"): [1] * 4 + [2] * 6 + [3] * 4,
        ("plain", "fixed"): [4],
        ("plain", "oracle"): [4],
        ("plain", "all"): [21],  # 25 points, four of them corners
        ("plain", "validation"): [1, 2, 3, 4, 5],
    }


def test_corners_are_the_networks_as_trained_and_no_members_of_ensembles_of_points():
    table = compared(SURFACES)
    is_corners = table["ensemble"].str.contains("corners")
    assert set(table.loc[is_corners, "statistics"]) == {"own"}
    assert set(table.loc[~is_corners, "statistics"]) == {"reestimated"}
    for is_of_corners, members in zip(is_corners, table["members"], strict=True):
        members = set(points_of(members))
        assert members <= set(CORNERS) if is_of_corners else members.isdisjoint(CORNERS)


def test_logits_of_other_surfaces_are_refused():
    with pytest.raises(InputError, match=r"'plain', 'along', 'more'.*has \['plain', 'along'\]"):
        compared(SURFACES, more=surface_logits("more", "four"))
