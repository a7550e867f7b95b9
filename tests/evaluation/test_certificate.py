"""Laws of the certificate: what a sample of points says holds of the whole surface."""

import math

import numpy as np
import pandas as pd
import pytest

from fourfold.errors import InputError
from fourfold.evaluation.certificate import certificate, measure_certificates, points_needed


@pytest.mark.parametrize(
    ("k", "fraction", "rank"),
    # For 1 %: P(Binomial(k, 0.01) < r) passes below 5 % at k = 299, 473, 628 (tables of tolerance
    # limits); the worst of 10 is worse than all but 1 - 0.05^(1/10) = 25.9 %.
    [(299, 0.01, 1), (472, 0.01, 1), (473, 0.01, 2), (628, 0.01, 3), (59, 0.05, 1), (10, None, 1)],
)
def test_the_value_is_the_lowest_that_a_binomial_allows(k, fraction, rank):
    values = np.random.default_rng(0).permutation(k)
    found = certificate(values, fraction)
    assert found == (k - rank, fraction or pytest.approx(0.2589, abs=1e-4), rank)


@pytest.mark.parametrize(
    ("k", "fraction", "level", "missing"),
    # P(Binomial(k, a) < r) for the r of each: 0.99^299, r = 2, and r = 2.
    [(299, 0.01, 0.95, 0.0495), (60, 0.1, 0.95, 0.0138), (30, 0.1, 0.8, 0.1837)],
)
def test_more_than_the_fraction_is_worse_no_more_often_than_the_confidence_allows(
    k, fraction, level, missing
):
    """Of the loss u^2 + v on a square, whose values' ranks are known from a million points."""
    draw = np.random.default_rng(1)
    everywhere = np.sort(np.square(draw.random(1_000_000)) + draw.random(1_000_000))
    bounds = []
    for _ in range(2000):
        u, v = draw.random((2, k))
        bounds.append(certificate(u**2 + v, fraction, level).value)
    worse = 1 - np.searchsorted(everywhere, bounds, side="right") / len(everywhere)
    missed = np.mean(worse > fraction)
    assert missing < 1 - level  # order statistics can't meet it exactly
    assert missed == pytest.approx(missing, abs=3 * math.sqrt(missing * (1 - missing) / 2000))


def grid(nll, **columns):
    n = len(nll)
    frame = pd.DataFrame({"nll": nll, "accuracy": 0.9, "u": np.linspace(0, 1, n), "v": 0.5})
    frame["w"] = None
    of = {"surface": "bezier", "sample": "random", "split": "val", "n": 50, "statistics": "none"}
    return frame.assign(**of | columns)


def test_a_table_certifies_random_points_that_were_all_evaluated_on_the_whole_split():
    lattice = grid([9.0], sample="grid")
    # On test and train a search picked the worst ones; train has no more images than it looks at.
    searched = [grid([1.0, 2.0], split="test", n=20), grid([2.0], split="test")]
    searched += [grid([2.0], split="train")]
    rows = measure_certificates(
        pd.concat([lattice, grid(np.arange(473.0)), *searched], ignore_index=True)
    )
    assert set(rows["split"]) == {"val"}
    nll = rows[rows["metric"] == "nll"]
    assert nll["value"].tolist() == [472, 471]
    assert nll["fraction"].tolist() == pytest.approx([1 - 0.05 ** (1 / 473), 0.01])
    assert rows.loc[rows["metric"] == "error", "value"].tolist() == pytest.approx([0.1, 0.1])
    assert len(measure_certificates(grid(np.arange(298.0)))) == 2  # too few for 1 %
    assert measure_certificates(lattice).empty


def test_points_that_repeat_are_no_further_evidence():
    """The tables of replicates hold the same points, which are not independent."""
    one = grid(np.arange(299.0))
    with pytest.raises(InputError, match="has 598 rows of random points in split 'val', of 299"):
        measure_certificates(pd.concat([one, one], ignore_index=True))


@pytest.mark.parametrize("column", ["experiment", "replicate"])
def test_points_of_several_surfaces_are_not_those_of_one(column):
    """Their coordinates may differ, as those of random points of two replicates."""
    two = [grid(np.arange(150.0), u=k + np.linspace(0, 0.1, 150), **{column: k}) for k in (3, 4)]
    with pytest.raises(InputError, match=f"'bezier' has {column} 3, 4; .* of one surface"):
        measure_certificates(pd.concat(two, ignore_index=True))
    assert len(measure_certificates(two[0])) == 2


def test_a_network_that_gives_no_numbers_is_worse_than_every_number():
    values = [*range(473), math.nan]
    assert math.isnan(certificate(values).value)
    assert certificate(values, 0.01).value == 472


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"values": []}, "0 points.*takes 1"),
        ({"fraction": 0.01}, "are 298 points.*takes 299"),
        ({"fraction": 1.0}, "fraction is 1.0"),
        ({"level": 95}, "level is 95"),
        ({"level": "a"}, "level is 'a'; give a number between 0 and 1"),
    ],
)
def test_wrong_input_is_named(settings, said):
    with pytest.raises(InputError, match=said):
        certificate(**{"values": range(298)} | settings)
    assert points_needed(0.01) == 299
