"""Laws of the differences between a surface and its corners that the claims are about."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CORNERS

from fourfold.combination.differences import METRICS, measure_differences
from fourfold.evaluation.logits import Examples, SurfaceLogits
from fourfold.surfaces.points import grid_points
from fourfold.surfaces.shapes import SQUARE

CLASSES, POINTS = 10, grid_points(3)
IS_CORNER = [point in CORNERS for point in POINTS]


def make_logits(points, own, n=200, seed=0):
    """Return logits of nine points and four corners, from the margins of the right class."""
    draw = torch.Generator().manual_seed(seed)
    labels = {name: torch.randint(CLASSES, (n,), generator=draw) for name in ("val", "test")}

    def drawn(margins):
        right = {name: torch.nn.functional.one_hot(of, CLASSES) for name, of in labels.items()}
        added = {name: torch.tensor(margins)[:, None, None] * of for name, of in right.items()}
        return {
            name: (torch.randn(of.shape, generator=draw) + of).half() for name, of in added.items()
        }

    return SurfaceLogits("bezier", SQUARE, "reestimated", POINTS, drawn(points), drawn(own), labels)


def make_examples(points, own, n=100, samples=None):
    """Return examples of points and corners with these accuracies, and with nll = 1 - accuracy.

    Labels are as frequent as each other.
    """
    networks = [*points, *own]
    correct = torch.tensor([[k < round(a * n) for k in range(n)] for a in networks])
    nll = torch.tensor([[1 - a] * n for a in networks])
    labels = torch.arange(n) % CLASSES
    names = ("train", "val", "test")
    return Examples(
        "bezier",
        points=[(0.1, 0.2)] * len(points) + list(CORNERS),
        samples=[*(samples or ["grid"] * len(points)), *["own"] * len(own)],
        nll=dict.fromkeys(names, nll),
        correct=dict.fromkeys(names, correct),
        labels=dict.fromkeys(names, labels),
    )


LOGITS = make_logits([2.0] * 9, [2.0] * 4)
EXAMPLES = make_examples([0.8] * 3, [0.8] * 4)


def measured(logits=LOGITS, examples=EXAMPLES, kept=0.9, **where):
    """Return the rows of some comparison, by split and metric."""
    rows = measure_differences(logits, examples, kept)
    return {
        (row["split"], row["metric"]): row
        for row in rows
        if all(row[key] == value for key, value in where.items())
    }


def test_there_is_a_difference_for_each_comparison_split_and_metric():
    rows = measure_differences(LOGITS, EXAMPLES, 0.9)
    found = {(row["comparison"], row["split"], row["metric"]) for row in rows}
    splits = {"low-loss": ("train", "val", "test"), "merge": ("test",), "ensemble": ("test",)}
    assert found == {(c, s, m) for c, of in splits.items() for s in of for m in METRICS}
    assert len(rows) == len(found)
    assert {row["surface"] for row in rows} == {"bezier"}
    for row in rows:
        assert row["n"] == (100 if row["comparison"] == "low-loss" else 200)
        sign = 1 if row["metric"] == "accuracy" else -1
        assert row["difference"] == pytest.approx(sign * (row["value"] - row["reference"]))
        assert row["low"] <= row["difference"] <= row["high"]
        assert len(row["draws"]) >= 1000


# --- low loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("corners", [[0.9] * 4, [0.8, 1.0, 0.9, 0.9]])
def test_a_worst_point_that_keeps_exactly_the_share_asked_for_differs_by_nothing(kept, corners):
    """Guessing has accuracy 1/10, and an nll of ln(10) nats; the corners are as trained."""
    levels = {"accuracy": 0.1 + kept * (0.9 - 0.1)}
    levels["nll"] = np.log(10) + kept * (0.1 - np.log(10))
    for change in (0.0, 0.1, -0.05):
        examples = make_examples([levels["accuracy"] + change, 1.0], corners)
        for values in examples.nll.values():
            values[0] = levels["nll"] - change
        rows = measured(examples=examples, kept=kept, comparison="low-loss")
        assert len(rows) == 6
        for (_, metric), row in rows.items():
            assert row["reference"] == pytest.approx(levels[metric])
            assert row["difference"] == pytest.approx(change, abs=1e-6)


def test_guessing_is_the_most_frequent_class_and_the_entropy_of_the_classes():
    examples = make_examples([0.5], [0.5] * 4)
    shares = np.array([0.6, 0.3, 0.1])
    labels = torch.tensor([0] * 60 + [3] * 30 + [7] * 10)
    examples.labels.update(dict.fromkeys(examples.labels, labels))
    rows = measured(examples=examples, kept=0.0, comparison="low-loss")
    assert rows["val", "accuracy"]["reference"] == pytest.approx(0.6)
    assert rows["val", "nll"]["reference"] == pytest.approx(-(shares * np.log(shares)).sum())


@pytest.mark.parametrize("sample", ["grid", "edge", "random"])
def test_the_worst_point_counts_wherever_it_was_found(sample):
    examples = make_examples([0.9, 0.85, 0.4], [0.9] * 4, samples=["grid", "grid", sample])
    rows = measured(examples=examples, comparison="low-loss")
    for split in ("train", "val", "test"):
        assert rows[split, "accuracy"]["value"] == pytest.approx(0.4)
        assert rows[split, "nll"]["value"] == pytest.approx(0.6)
        assert rows[split, "accuracy"]["high"] < 0


def test_accuracy_and_nll_may_be_worst_at_different_points_and_splits():
    examples = make_examples([0.9, 0.6], [0.9] * 4)
    examples.nll["train"] = examples.nll["train"].clone()
    examples.nll["train"][:2] = torch.tensor([[2.0], [0.05]])
    rows = measured(examples=examples, comparison="low-loss")
    assert rows["train", "nll"]["value"] == pytest.approx(2.0)
    assert rows["test", "nll"]["value"] == pytest.approx(0.4)
    assert rows["train", "accuracy"]["value"] == pytest.approx(0.6)


def test_corners_no_better_than_guessing_leave_guessing_as_the_level():
    """Else a surface would be low-loss for being nearly as bad as its corners."""
    examples = make_examples([0.06], [0.05] * 4)
    for values in examples.nll.values():
        values[:] = 3.0
    rows = measured(examples=examples, comparison="low-loss")
    for split in ("train", "val", "test"):
        assert rows[split, "accuracy"]["reference"] == pytest.approx(0.1)
        assert rows[split, "nll"]["reference"] == pytest.approx(np.log(10))
        assert rows[split, "nll"]["high"] < 0


# --- merges and ensembles -------------------------------------------------------------------------


def scores(members, labels):
    """Return accuracy and nll of the members' average, by NumPy."""
    shifted = np.exp(members.double().numpy())
    average = (shifted / shifted.sum(axis=-1, keepdims=True)).mean(axis=0)
    right = average.argmax(axis=1) == labels.numpy()
    return right.mean(), -np.log(average[np.arange(len(labels)), labels.numpy()]).mean()


def best(logits, labels):
    found = [scores(one[None], labels) for one in logits]
    return max(range(len(found)), key=lambda i: (found[i][0], -found[i][1]))


@pytest.mark.parametrize("seed", range(3))
def test_points_picked_on_val_stand_against_the_corner_best_on_val_and_against_all_four(seed):
    """One point for the merge, four chosen one by one for the ensemble."""
    points = [0, 1.0, 0, 2.0, 1.5, 1.9, 0, 1.8, 0]
    logits = make_logits(points, [2.0, 1.0, 1.5, 1.9], seed=seed)
    val, test, labels = logits.logits["val"], logits.logits["test"], logits.labels
    left, chosen = [i for i in range(9) if not IS_CORNER[i]], []
    point, corner = left[best(val[left], labels["val"])], best(logits.own["val"], labels["val"])
    while len(chosen) < 4:
        values = {i: scores(val[[*chosen, i]], labels["val"])[1] for i in left}
        chosen.append(min(values, key=values.get))
        left.remove(chosen[-1])
    own = logits.own["test"]
    for comparison, value, reference in (
        ("merge", test[[point]], own[[corner]]),
        ("ensemble", test[chosen], own),
    ):
        rows = measured(logits, comparison=comparison)
        for name, members in {"value": value, "reference": reference}.items():
            accuracy, nll = scores(members, labels["test"])
            assert rows["test", "accuracy"][name] == pytest.approx(accuracy)
            assert rows["test", "nll"][name] == pytest.approx(nll, rel=1e-5)


@pytest.mark.parametrize("comparison", ["merge", "ensemble"])
def test_a_corner_of_the_surface_is_never_the_merge_nor_a_member(comparison):
    """However good re-estimated statistics make it: a corner is what merges are compared with."""
    logits = make_logits([20.0 if corner else 0.5 for corner in IS_CORNER], [2.0] * 4)
    rows = measured(logits, comparison=comparison)
    assert rows["test", "accuracy"]["value"] < 0.5
    assert rows["test", "accuracy"]["high"] < 0
    assert rows["test", "nll"]["high"] < 0


# --- intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("comparison", ["merge", "ensemble"])
def test_a_surface_of_the_corners_own_networks_differs_by_exactly_nothing(comparison):
    """Every point is the same network as each corner."""
    equal = {
        part: {name: own[:1].expand(count, -1, -1) for name, own in LOGITS.own.items()}
        for part, count in (("logits", 9), ("own", 4))
    }
    for row in measured(replace(LOGITS, **equal), comparison=comparison).values():
        assert row["difference"] == row["low"] == row["high"] == 0
        assert not np.asarray(row["draws"]).any()


def test_draws_of_two_surfaces_are_paired():
    """What a draw says of one and of the other is about the same images."""
    test = LOGITS.logits["test"].clone()
    test[:, :20] *= -1  # wrong on twenty images
    worse = replace(LOGITS, logits=LOGITS.logits | {"test": test})
    a, b = (measured(one, comparison="merge")["test", "accuracy"] for one in (LOGITS, worse))
    gap = np.asarray(a["draws"]) - np.asarray(b["draws"])
    # Unpaired, the deviation of the gap would be above those of both.
    assert gap.std() < min(np.std(a["draws"]), np.std(b["draws"]))
