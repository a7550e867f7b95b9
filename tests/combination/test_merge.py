"""Laws of merges: averages of weights, greedy soups, best points."""

import pandas as pd
import pytest
import torch
from conftest import CHOSEN, CORNERS, NETWORKS, differing, make_corners, make_network, snapshot

from fourfold.combination.merge import average_states, best_point, greedy_soup
from fourfold.errors import InputError
from fourfold.surfaces.surface import BezierSurface


@pytest.mark.parametrize("name", NETWORKS)
def test_the_average_of_one_network_or_of_equal_ones_is_the_network(name):
    state = make_network(name).state_dict()
    for states in ([state], [state] * 4):
        averaged = average_states(states)
        if name == "float64":
            torch.testing.assert_close(averaged, dict(state), rtol=1e-6, atol=1e-7)
        else:
            assert differing(averaged, state) == []


@pytest.mark.parametrize("name", ["batchnorm", "buffers"])
def test_an_average_is_the_mean_of_every_floating_tensor_and_the_first_of_the_others(name):
    states = make_corners(name)[:3]
    for tensor_name, tensor in average_states(states, buffers=CHOSEN.get(name)).items():
        if tensor.is_floating_point():
            mean = sum(state[tensor_name] for state in states) / 3
            torch.testing.assert_close(tensor, mean)
        else:
            assert torch.equal(tensor, states[0][tensor_name])


@pytest.mark.parametrize("name", ["layernorm", "tied", "resnet18"])
def test_the_average_of_the_corners_is_the_center_of_the_linear_surface(name):
    corners = make_corners(name)
    center = BezierSurface.from_corners(corners, degree=(1, 1)).state_dict(0.5, 0.5)
    torch.testing.assert_close(average_states(corners), center)


def test_averaging_changes_no_network_and_shares_no_memory():
    states = make_corners("tied")
    before = [snapshot(state) for state in states]
    for tensor in average_states(states).values():
        tensor.zero_()
    assert [differing(a, b) for a, b in zip(states, before, strict=True)] == [[], [], [], []]


def test_networks_that_do_not_fit_are_not_averaged():
    with pytest.raises(InputError, match="got none"):
        average_states([])
    with pytest.raises(InputError, match="network 1 and network 0 are different architectures"):
        average_states([make_network(n).state_dict() for n in ("no-norm", "batchnorm")])


def soup_value(values):
    """Return an evaluation of soups: the mean of the members' hidden values."""
    return lambda soup: sum(values[i] for i in soup) / len(soup)


def test_a_greedy_soup_tries_networks_in_order_of_accuracy_and_keeps_what_does_not_hurt():
    tried = []

    def evaluate(soup):
        tried.append(list(soup))
        return {(1, 2): 0.8, (1, 2, 0): 0.79, (1, 2, 3): 0.8}[tuple(soup)]

    soup, accuracy = greedy_soup([0.6, 0.75, 0.7, 0.5], evaluate)
    assert tried == [[1, 2], [1, 2, 0], [1, 2, 3]]
    assert soup == [1, 2, 3]  # an equal accuracy is no fall
    assert accuracy == 0.8


@pytest.mark.parametrize("values", [[0.1, 0.9, 0.5], [0.5, 0.5, 0.5], [0.9, 0.1, 0.2]])
def test_a_greedy_soup_is_never_worse_than_its_best_network(values):
    soup, accuracy = greedy_soup(values, soup_value(values))
    assert accuracy >= max(values)
    assert accuracy == pytest.approx(soup_value(values)(soup))


def test_a_soup_of_one_network_evaluates_nothing():
    assert greedy_soup([0.4], lambda soup: pytest.fail("evaluated")) == ([0], 0.4)


def grid(rows, **columns):
    table = pd.DataFrame(rows, columns=["split", "u", "v", "accuracy", "nll"])
    return table.assign(**{"n": 10, "sample": "grid", "statistics": "reestimated"} | columns)


def test_the_best_point_has_the_highest_accuracy_on_the_split_asked_for():
    table = grid(
        [
            ("val", 0.0, 0.5, 0.8, 0.1),
            ("val", 0.25, 0.75, 0.9, 0.9),
            ("test", 1.0, 0.5, 0.99, 0.01),
        ]
    )
    assert best_point(table, "val") == (0.25, 0.75)
    assert best_point(table, "test") == (1.0, 0.5)


@pytest.mark.parametrize("corner", CORNERS)
def test_no_corner_is_the_best_point_however_good_it_is(corner):
    rows = [("val", *corner, 0.99, 0.0), ("val", 0.5, corner[1], 0.5, 2.0)]
    for statistics in ("reestimated", "own", "none"):
        table = pd.concat([grid(rows[:1], statistics=statistics), grid(rows[1:])])
        assert best_point(table, "val") == (0.5, corner[1])


def test_no_point_beside_the_grid_is_the_best_one():
    """Edges and random points are searched for the worst; a merge is picked from the lattice."""
    better = grid([("val", 0.5, 0.0, 0.99, 0.0)], sample="edge")
    best = grid([("val", 0.3, 0.4, 1.0, 0.0)], sample="random")
    table = pd.concat([grid([("val", 0.5, 0.5, 0.5, 2.0)]), better, best])
    assert best_point(table, "val") == (0.5, 0.5)


def test_a_grid_of_corners_alone_has_no_best_point():
    with pytest.raises(InputError, match=r"no rows of split 'val' beside the corners.*4 rows"):
        best_point(grid([("val", *corner, 0.9, 0.5) for corner in CORNERS]), "val")


def test_among_equally_accurate_points_the_lowest_nll_and_then_the_first_wins():
    table = grid(
        [
            ("val", 0.0, 0.1, 0.9, 0.5),
            ("val", 0.1, 0.2, 0.9, 0.3),
            ("val", 0.3, 0.4, 0.9, 0.3),
        ]
    )
    assert best_point(table, "val") == (0.1, 0.2)


def test_a_split_that_was_not_evaluated_has_no_best_point():
    with pytest.raises(InputError, match=r"'val'.*\['test'\]"):
        best_point(grid([("test", 0.0, 0.5, 0.9, 0.5)]), "val")
