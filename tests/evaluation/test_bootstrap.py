"""Laws of the paired bootstrap and of the intervals from its draws."""

import numpy as np
import pytest
from scipy import stats

from fourfold.errors import InputError
from fourfold.evaluation.bootstrap import (
    DRAWS,
    bootstrap_means,
    interval,
    interval_over_replicates,
    student_interval,
)


def test_there_are_a_thousand_draws_around_the_mean():
    values = np.random.default_rng(0).normal(3, 2, 400)
    means = bootstrap_means(values)
    assert means.shape == (1, DRAWS) == (1, 1000)
    standard_error = values.std() / 400**0.5
    assert means.mean() == pytest.approx(values.mean(), abs=4 * standard_error / DRAWS**0.5)
    assert means.std() == pytest.approx(standard_error, rel=0.1)
    with pytest.raises(InputError, match="at least one image"):
        bootstrap_means([])


@pytest.mark.parametrize("draws", [1, 99, 100, 250])
def test_draws_are_as_many_as_asked_and_the_first_ones_of_more(draws):
    values = np.arange(30.0)
    assert np.array_equal(
        bootstrap_means(values, draws=draws)[0][:99], bootstrap_means(values)[0][: min(draws, 99)]
    )
    assert bootstrap_means(values, draws=draws).shape == (1, draws)


def test_a_draw_takes_the_same_images_for_every_row_and_every_call_of_one_seed():
    """A weighted sum of rows has the same sum of draws: the images' counts are the same."""
    a, b = np.random.default_rng(1).normal(size=(2, 80))
    together = bootstrap_means([a, b, 2 * a - b], seed=3)
    apart = [bootstrap_means(one, seed=3)[0] for one in (a, b)]
    assert together[:2] == pytest.approx(np.stack(apart))
    assert together[2] == pytest.approx(2 * apart[0] - apart[1])
    other = bootstrap_means(a, seed=4)[0]
    assert not np.allclose(other, apart[0])


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_an_interval_holds_its_share_of_the_draws(level):
    draws = np.random.default_rng(0).normal(size=1000)
    low, high = interval(draws, level)
    assert ((low <= draws) & (draws <= high)).mean() == pytest.approx(level, abs=0.002)
    assert (draws < low).mean() == pytest.approx((1 - level) / 2, abs=0.002)


def test_the_interval_covers_the_true_difference_in_nineteen_of_twenty_cases():
    """Two methods that are right on correlated images, 600 times 300 images."""
    draw, repetitions, n = np.random.default_rng(0), 600, 300
    covered = 0
    for _ in range(repetitions):
        easy = draw.random(n) < 0.6  # both are right there
        a = easy | (draw.random(n) < 0.3)
        b = easy | (draw.random(n) < 0.4)
        low, high = interval(bootstrap_means(b * 1.0 - a, draws=400)[0])
        covered += low <= 0.4 * 0.1 <= high
    # Five standard errors of a share of 0.95 of 600 are 0.045; a bootstrap of 300 is a bit narrow.
    assert 0.9 < covered / repetitions < 0.99


# --- over replicates ------------------------------------------------------------------------------


def replicates(differences, n=400, spread=0.4):
    draw = np.random.default_rng(5)
    images = [spread * draw.normal(size=n) for _ in differences]
    images = [one - one.mean() + mean for one, mean in zip(images, differences, strict=True)]
    return list(differences), [bootstrap_means(one)[0] for one in images]


def test_one_replicate_has_the_interval_over_its_images():
    differences, draws = replicates([0.1])
    assert interval_over_replicates(differences, draws) == interval(draws[0])


@pytest.mark.parametrize("differences", [[0.1, 0.12], [0.1, 0.3, -0.2], [0.5] * 4, [0.0, 1.0]])
def test_the_interval_over_replicates_is_at_least_as_wide_as_students(differences):
    low, high = interval_over_replicates(*replicates(differences))
    expected = stats.ttest_1samp(differences, 0) if len(set(differences)) > 1 else None
    t_low, t_high = student_interval(differences)
    assert low <= t_low + 1e-12
    assert high >= t_high - 1e-12
    if expected is not None:
        assert expected.confidence_interval(0.95) == pytest.approx((t_low, t_high))


def test_images_widen_the_interval_of_replicates_that_happen_to_agree():
    differences, draws = replicates([0.1, 0.1, 0.1])
    low, high = interval_over_replicates(differences, draws)
    assert student_interval(differences) == pytest.approx((0.1, 0.1))
    # Three replicates of 400 images, spread 0.4: the standard error of the mean is 0.4 / 1200^0.5.
    assert high - low > 2 * 0.4 / 1200**0.5
    assert low < 0.1 < high
