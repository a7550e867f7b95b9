"""Laws of the metrics."""

import math

import pytest
import torch

from fourfold.errors import InputError
from fourfold.evaluation.metrics import (
    average_predictions,
    best_network,
    classification_metrics,
    disagreement,
    mean_disagreement,
    per_image,
)


def predictions(n=50, classes=4, spread=2.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(n, classes, generator=draw)
    return logits, torch.randint(classes, (n,), generator=draw)


def test_metrics_are_means_over_what_each_image_contributes():
    logits, labels = predictions()
    nll, correct = per_image(logits.log_softmax(1), labels)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(nll, expected)
    assert torch.equal(correct, logits.argmax(1) == labels)
    measured = classification_metrics(logits.log_softmax(1), labels)
    assert measured["nll"] == pytest.approx(nll.mean().item(), rel=1e-6)
    assert measured["accuracy"] == correct.double().mean().item()
    with pytest.raises(InputError, match="0 examples"):
        classification_metrics(logits[:0], labels[:0])


def test_logits_and_probabilities_are_refused_where_their_logarithms_are_asked_for():
    logits, labels = predictions()
    classification_metrics(logits.log_softmax(1).half(), labels)
    for given in (logits, logits.softmax(1), 100 * logits):
        with pytest.raises(InputError, match=r"sum to .*, not to 1: .*log_softmax"):
            classification_metrics(given, labels)


@pytest.mark.parametrize("classes", [2, 10, 200])
def test_uniform_predictions_have_the_nll_ln_classes_and_no_calibration_error(classes):
    labels = torch.arange(3 * classes) % classes
    measured = classification_metrics(torch.zeros(len(labels), classes).log_softmax(1), labels)
    assert measured["nll"] == pytest.approx(math.log(classes), rel=1e-6)
    assert measured["brier"] == pytest.approx(1 - 1 / classes, rel=1e-5)
    assert measured["ece"] == pytest.approx(0, abs=1e-6)  # confidence 1/k, right once in k


def test_a_perfect_predictor_has_no_error_at_all():
    labels = torch.arange(12) % 3
    logits = 1000 * torch.nn.functional.one_hot(labels, 3).float()
    measured = classification_metrics(logits.log_softmax(1), labels)
    assert measured == {"nll": 0, "accuracy": 1, "ece": 0, "brier": 0}


def test_a_confident_and_always_wrong_predictor_is_as_bad_as_can_be():
    labels = torch.arange(12) % 3
    logits = 50 * torch.nn.functional.one_hot((labels + 1) % 3, 3).float()
    measured = classification_metrics(logits.log_softmax(1), labels)
    assert measured["nll"] == pytest.approx(50, rel=1e-6)
    assert (measured["accuracy"], measured["ece"], measured["brier"]) == (0, 1, 2)


@pytest.mark.parametrize("gap", [0.0, 4.0, 8.0, 12.0])
def test_brier_is_the_squared_distance_to_the_one_hot_label_and_never_negative(gap):
    logits = torch.zeros(40, 3)
    logits[:, 0] = gap + torch.linspace(0, 0.5, 40)
    labels = torch.zeros(40, dtype=torch.int64)
    expected = (logits.double().softmax(1) - torch.tensor([1.0, 0, 0])).square().sum(1).mean()
    measured = classification_metrics(logits.log_softmax(1), labels)["brier"]
    assert measured >= 0
    assert measured == pytest.approx(expected.item(), rel=1e-3, abs=1e-7)  # float32 probabilities


def test_calibration_error_is_the_gap_of_each_bin_weighted_by_its_share():
    # Three examples of confidence 0.9 (one right), one of 0.6 (right): two bins of 15.
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    labels = torch.tensor([0, 1, 1, 1])
    expected = 3 / 4 * abs(0.9 - 1 / 3) + 1 / 4 * abs(0.6 - 1)
    measured = classification_metrics(probabilities.log(), labels)["ece"]
    assert measured == pytest.approx(expected, rel=1e-6)


def test_metrics_do_not_depend_on_the_order_of_examples_or_classes():
    logits, labels = predictions()
    order, classes = torch.randperm(50), torch.tensor([2, 0, 3, 1])
    measured = classification_metrics(logits.log_softmax(1), labels)
    shuffled = classification_metrics(logits[order].log_softmax(1), labels[order])
    renamed = classification_metrics(logits[:, classes].log_softmax(1), classes.argsort()[labels])
    assert shuffled == pytest.approx(measured, rel=1e-6)
    assert renamed == pytest.approx(measured, rel=1e-6)


def test_probabilities_are_averaged_rather_than_logits():
    logits = [predictions(seed=seed)[0] for seed in range(3)]
    expected = torch.stack([member.softmax(1) for member in logits]).mean(0)
    torch.testing.assert_close(average_predictions(logits).exp(), expected)
    assert not torch.allclose(torch.stack(logits).mean(0).softmax(1), expected, atol=1e-2)
    assert average_predictions(torch.stack(logits).half()).dtype == torch.float32


def test_the_average_of_extreme_members_stays_finite():
    logits = torch.tensor([[[0.0, 500.0]], [[500.0, 0.0]]])
    torch.testing.assert_close(average_predictions(logits).exp(), torch.tensor([[0.5, 0.5]]))


def test_disagreement_is_symmetric_zero_with_itself_and_obeys_the_triangle_inequality():
    a, b, c = (predictions(seed=seed)[0] for seed in range(3))
    assert disagreement(a, a) == 0
    assert disagreement(a, b) == disagreement(b, a) > 0
    assert disagreement(a, c) <= disagreement(a, b) + disagreement(b, c)
    assert disagreement(a, -a) == 1  # the largest logit becomes the smallest
    assert disagreement(a, 3 * a + 1) == 0  # classes count, not confidence
    flipped = torch.cat([a[:5].roll(1, dims=1), a[5:]])
    assert disagreement(a, flipped) == 5 / 50


def test_mean_disagreement_is_the_mean_over_pairs():
    logits = [predictions(seed=seed)[0] for seed in range(4)]
    pairs = [disagreement(logits[i], logits[j]) for i in range(4) for j in range(i)]
    assert mean_disagreement(logits) == pytest.approx(sum(pairs) / 6)
    assert mean_disagreement(logits[:1]) == 0


def test_the_best_network_is_the_most_accurate_and_among_equals_the_one_of_lowest_nll():
    labels = torch.tensor([0, 0, 0, 1])
    right = torch.nn.functional.one_hot(labels, 2).float()
    wrong_once = right.clone()
    wrong_once[3] = torch.tensor([0.1, 0.0])
    logits = torch.stack([9 * wrong_once, right, 2 * right, 3 * wrong_once])
    assert best_network(logits, labels) == 2
    assert best_network(logits[[3, 0]], labels) == 0  # 9 x 0.1 costs more than it gains
    assert best_network(logits.half(), labels) == 2
