"""Laws of methods at equal cost, of temperatures, and of picks on val."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from combination.test_baselines import described
from combination.test_ensemble import POINTS, SPLITS, surface_logits

from fourfold.combination.costs import corner_images
from fourfold.combination.ensemble import FEW, compare_ensembles
from fourfold.combination.merge import Soup, best_point
from fourfold.combination.picks import measure_picks
from fourfold.combination.rivals import METRICS, compare_rivals, equivalents
from fourfold.errors import InputError
from fourfold.evaluation.bootstrap import bootstrap_means
from fourfold.evaluation.logits import SurfaceLogits
from fourfold.evaluation.metrics import classification_metrics, per_image
from fourfold.evaluation.temperature import apply_temperature, fit_temperature
from fourfold.surfaces.shapes import SQUARE, make_shape

AGAIN = 5  # images that statistics are re-estimated on
PICKING = 21 * (30 + AGAIN)  # images that a pick among the points beside the corners takes
SURFACES = described(
    plain=("four", "seeds", None), fitted=("four", "seeds", "x"), along=("run", "run", None)
)
SURFACES["along"]["choose"] = "validation"
LOGITS = {name: surface_logits(name, of["corners"]) for name, of in SURFACES.items()}
for _surface in LOGITS.values():
    for _split, _own in _surface.own.items():
        _own += torch.nn.functional.one_hot(SPLITS[_split], 10).half()
COST = pd.DataFrame(
    [
        {"stage": stage, "item": item, "images_backward": backward, "images_forward": forward}
        for stage, item, backward, forward in (
            *(("train_endpoint", f"seed{k}", 10**k, 1) for k in range(4)),
            ("train_endpoint", "long-seed0", 500, 1),
            ("fit_bezier_surface", "fitted", 7, 1),
            ("select_trajectory_corners", "run", 0, 300),
            *(("train_fork", f"parts-{k}", 20, 1) for k in range(4)),
        )
    ]
)


def grid_table(logits):
    rows = []
    for name, of in logits.items():
        for split, labels in of.labels.items():
            for (u, v), network in zip(of.points, of.logits[split], strict=True):
                at = {"surface": name, "sample": "grid", "u": u, "v": v, "split": split}
                at |= {"statistics": "reestimated", "statistics_images": AGAIN, "n": len(labels)}
                metrics = classification_metrics(network.float().log_softmax(dim=1), labels)
                rows.append(at | metrics)
    return pd.DataFrame(rows)


def best_corner(surface):
    """Return the corner with the highest accuracy on val, among equals with the lowest nll."""
    log_p = surface.own["val"].float().log_softmax(dim=2)
    scores = [classification_metrics(one, SPLITS["val"]) for one in log_p]
    return max(range(4), key=lambda k: (scores[k]["accuracy"], -scores[k]["nll"]))


GRID, BEST = grid_table(LOGITS), best_corner(LOGITS["plain"])
SOUPS = {
    "four": Soup([BEST], {}),
    "run": Soup([2, 3], {split: of[0] for split, of in LOGITS["along"].logits.items()}),
    "none": Soup([0], {}),
}


def compared(surfaces=SURFACES, logits=LOGITS, grid=GRID):
    grid = grid[grid["surface"].isin(surfaces)]
    rows, differences = compare_rivals(
        {name: logits[name] for name in surfaces}, surfaces, grid, COST, SOUPS
    )
    return pd.DataFrame(rows).set_index(["method", "split"]), pd.DataFrame(differences)


ROWS, DIFFERENCES = compared()


def test_each_method_is_there_once_corners_before_the_points_of_their_surface():
    assert ROWS.index.is_unique
    points = ["center", "inner", "all", "best-point", "greedy-1", "greedy-4", "greedy-9"]
    corners = ["network", "mean", "greedy-soup", "ensemble-1", "ensemble-4"]
    expected = [f"four/{name}" for name in corners]
    expected += [f"{surface}/{name}" for surface in ("plain", "fitted") for name in points]
    expected += [f"run/{name}" for name in corners] + [f"along/{name}" for name in points]
    assert list(dict.fromkeys(ROWS.index.get_level_values("method"))) == expected


def test_corners_that_nobody_trained_alone_and_means_that_are_nowhere_are_no_methods():
    surfaces = described(fitted=("four", "free", "x"), plain=("none", "random", None))
    methods = compared(surfaces)[0].index.get_level_values("method")
    assert {method.partition("/")[0] for method in methods} == {"fitted", "plain"}
    only = described(fitted=("four", "seeds", "x"))
    assert "four/mean" not in compared(only)[0].index.get_level_values("method")


@pytest.mark.parametrize(
    ("method", "backward", "beside"),
    [
        ("four/network", 1111, 4 * 30),
        ("four/mean", 1111, AGAIN),
        ("four/greedy-soup", 1111, 4 * 30 + 3 * (30 + AGAIN)),
        ("run/greedy-soup", 1, 300 + 4 * 30 + 3 * (30 + AGAIN)),
        ("four/ensemble-1", 1, 0),
        ("four/ensemble-4", 1111, 0),
        ("plain/center", 1111, AGAIN),
        ("fitted/inner", 1118, 4 * AGAIN),
        ("fitted/all", 1118, 21 * AGAIN),
        ("fitted/best-point", 1118, PICKING),
        ("fitted/greedy-4", 1118, PICKING),
        ("run/ensemble-4", 1, 300),
        ("along/greedy-9", 1, 300 + PICKING),
    ],
)
def test_a_method_costs_its_networks_its_fit_and_what_it_is_chosen_from(method, backward, beside):
    row = ROWS.loc[method, "test"]
    assert (row["images_backward"], row["images_forward"]) == (backward, backward + beside)


def test_networks_that_were_fixed_in_advance_cost_no_choice():
    fixed = {"along": SURFACES["along"] | {"choose": [0.5, 0.6, 0.8, 1.0]}}
    rows = compared(fixed)[0].xs("test", level="split")
    beside = rows["images_forward"] - rows["images_backward"]
    expected = {"run/network": 4 * 30, "run/mean": AGAIN, "run/ensemble-4": 0}
    expected |= {"along/center": AGAIN, "along/best-point": PICKING}
    assert beside[[*expected]].to_dict() == expected


@pytest.mark.parametrize(
    ("kind", "more", "networks", "expected"),
    [
        ("seeds", {}, 2, 11),
        ("seeds", {"training": "long"}, None, 500),
        ("run", {"training": "long"}, 1, 500),
        ("fork", {"at": 0.5}, None, 1 + 3 * 20),
        ("fork", {"at": 0.5}, 2, 1 + 20),
        ("fork", {"at": 0.8, "then": "short", "training": "long"}, None, 400 + 4 * 20),
        ("aligned", {"to": "four", "origin": "four", "origin_kind": "seeds"}, None, 1111),
        ("files", {}, None, 0),
        ("untrained", {}, None, 0),
    ],
)
def test_a_corner_set_costs_what_trained_it_here(kind, more, networks, expected):
    of = {"corners": "parts", "kind": kind, "fit": None, "shape": "square", "count": 4} | more
    assert corner_images(COST, of, networks) == expected


# --- scores ---------------------------------------------------------------------------------------


def test_methods_are_the_ensembles_and_merges_of_the_other_tables():
    columns = ["n", "nll", "accuracy", "ece", "brier", "disagreement", "forward_passes"]
    table = pd.DataFrame(compare_ensembles(LOGITS, SURFACES, 9))
    for method, *same in (
        ("four/ensemble-4", "corners", "fixed", 4),
        ("run/ensemble-4", "run-corners", "fixed", 4),
        ("fitted/inner", "fitted", "fixed", 4),
        ("fitted/all", "fitted", "all", 21),
        ("along/greedy-9", "along", "validation", 9),
    ):
        keys = table[["ensemble", "selection", "forward_passes"]]
        found = table[(keys == same).all(axis=1)].set_index("split")
        for split in SPLITS:
            expected = found.loc[split, columns].tolist()
            assert ROWS.loc[(method, split), columns].tolist() == expected
    log_p = LOGITS["plain"].own["test"][BEST].float().log_softmax(dim=1)
    nll = classification_metrics(log_p, SPLITS["test"])["nll"]
    assert ROWS.loc[("four/network", "test"), "nll"] == pytest.approx(nll)
    for name in SURFACES:
        part = GRID[GRID["surface"] == name]
        for method, at in (("best-point", best_point(part, "val")), ("center", (0.5, 0.5))):
            point = part[(part["u"] == at[0]) & (part["v"] == at[1])].set_index("split")
            found = ROWS.loc[f"{name}/{method}"].loc["test", ["accuracy", "nll"]].tolist()
            assert found == pytest.approx(point.loc["test", ["accuracy", "nll"]].tolist())
    assert ROWS.loc["plain/center"].equals(ROWS.loc["four/mean"].assign(corners="four"))


def test_a_greedy_soup_is_one_network_with_the_logits_it_came_with_or_its_only_corner():
    scores = ["accuracy", "nll", "nll_scaled", "brier", "disagreement", "forward_passes"]
    of_soup, of_network = (ROWS.loc[f"four/{name}", scores] for name in ("greedy-soup", "network"))
    assert of_soup.equals(of_network)
    log_p = SOUPS["run"].logits["test"].float().log_softmax(dim=1)
    found = ROWS.loc[("run/greedy-soup", "test")]
    assert found["forward_passes"] == 1
    assert found["nll"] == pytest.approx(classification_metrics(log_p, SPLITS["test"])["nll"])


def test_intervals_hold_the_values_and_scaling_lowers_the_nll_on_val():
    for metric in ("nll", "accuracy"):
        assert (ROWS[f"{metric}_low"] <= ROWS[metric]).all()
        assert (ROWS[metric] <= ROWS[f"{metric}_high"]).all()
    on_val, on_test = (ROWS.xs(split, level="split") for split in ("val", "test"))
    assert (on_val["nll_scaled"] <= on_val["nll"] + 1e-6).all()
    assert on_val["temperature"].equals(on_test["temperature"])


def test_a_deep_ensemble_of_k_has_k_equivalents():
    for split in SPLITS:
        assert ROWS.loc[("four/ensemble-4", split), "equivalents"] == 4
    curve = [0.5, 0.4, 0.3, 0.3, 0.25]
    for nll, expected in (
        *((nll, k) for k, nll in enumerate(curve[:3], start=1)),
        *((0.45, 1.5), (0.6, 1), (0.275, 4.5), (0.25, 5), (0.2, math.inf)),
        (0.25 - 5e-5, 5),  # the same networks, rounded otherwise
    ):
        assert equivalents(curve, nll) == pytest.approx(expected)
    assert math.isnan(equivalents(curve, math.nan))
    assert math.isnan(equivalents([*curve, math.nan], 0.2)), "better than what is unknown"
    alone, _ = compared(described(along=("run", "run", None)))
    assert alone["equivalents"].isna().all()


def test_the_temperature_of_calibrated_predictions_is_one_and_that_of_others_undoes_it():
    draw = torch.Generator().manual_seed(0)
    log_p = (2 * torch.randn(40_000, 5, generator=draw)).log_softmax(dim=1)
    labels = torch.multinomial(log_p.exp(), 1, generator=draw)[:, 0]
    assert fit_temperature(log_p, labels) == pytest.approx(1, abs=0.03)
    sharp = (3 * log_p).log_softmax(dim=1)
    assert fit_temperature(sharp, labels) == pytest.approx(3, abs=0.09)
    torch.testing.assert_close(apply_temperature(sharp, 3).float(), log_p)
    assert fit_temperature(log_p, log_p.argmax(dim=1)) == 1  # no temperature is best
    assert math.isnan(fit_temperature(log_p / 0 * 0, labels))


def test_a_method_without_numbers_has_none_and_leaves_the_others_alone():
    broken = {split: values.clone() for split, values in LOGITS["along"].own.items()}
    broken["test"][0, 0] = math.nan
    of = LOGITS["along"]
    fields = (of.surface, of.shape, of.statistics, of.points, of.logits, broken, of.labels)
    rows, _ = compared(logits=LOGITS | {"along": SurfaceLogits(*fields)})
    values = ["nll", "accuracy", "nll_scaled", "equivalents", "accuracy_low", "nll_high"]
    assert rows.loc[("run/ensemble-4", "test"), values].isna().all()
    assert rows.loc["four/mean"].equals(ROWS.loc["four/mean"])


# --- differences ----------------------------------------------------------------------------------


def test_differences_are_paired_over_images_and_positive_where_a_method_is_better():
    assert set(DIFFERENCES["against"]) == {"four/network"}
    assert len(DIFFERENCES) == len(METRICS) * (len(ROWS) / 2 - 1)
    row = DIFFERENCES.set_index(["method", "metric"]).loc["run/ensemble-1"]
    networks = LOGITS["along"].own["test"][0], LOGITS["plain"].own["test"][BEST]
    (nll, correct), (nll_of, correct_of) = (
        per_image(one.float().log_softmax(dim=1), SPLITS["test"]) for one in networks
    )
    for metric, better in (
        ("accuracy", correct.double() - correct_of.double()),
        ("nll", nll_of.double() - nll.double()),
    ):
        assert row.loc[metric, "difference"] == pytest.approx(float(better.mean()), abs=1e-6)
        draws = bootstrap_means(better.numpy())[0]
        np.testing.assert_allclose(row.loc[metric, "draws"], draws, atol=1e-6)


@pytest.mark.parametrize(
    ("surfaces", "against"),
    [
        (described(along=("run", "run", None), plain=("four", "seeds", None)), "four/network"),
        (described(along=("run", "run", None)), "run/network"),
        (described(fitted=("four", "free", "x")), None),
    ],
)
def test_methods_are_held_against_a_network_of_a_run_of_its_own(surfaces, against):
    _, differences = compared(surfaces)
    assert set(differences.get("against", [])) == ({against} if against else set())


def test_logits_and_grids_of_other_surfaces_or_images_are_refused():
    with pytest.raises(InputError, match="grid tables"):
        compare_rivals(LOGITS, SURFACES, GRID[GRID["surface"] != "along"], COST, SOUPS)
    with pytest.raises(InputError, match=r"no greedy soup of the corners \['run'\]"):
        compare_rivals(LOGITS, SURFACES, GRID, COST, {"four": SOUPS["four"]})
    of = LOGITS["along"]
    labels = {split: labels.flip(0) for split, labels in of.labels.items()}
    fields = (of.surface, of.shape, of.statistics, of.points, of.logits, of.own, labels)
    with pytest.raises(InputError, match="the logits of along have other labels"):
        compared(logits=LOGITS | {"along": SurfaceLogits(*fields)})


# --- many networks, and sets ----------------------------------------------------------------------


def test_of_many_networks_the_first_ones_alone_are_ensembles():
    shape = make_shape("set", FEW + 2)
    points = [*shape.corner_coordinates, shape.center]
    draw = torch.Generator().manual_seed(0)
    logits, own = (
        {k: torch.randn(n, len(v), 10, generator=draw).half() for k, v in SPLITS.items()}
        for n in (len(points), FEW + 2)
    )
    for split, labels in SPLITS.items():
        own[split] += torch.nn.functional.one_hot(labels, 10).half()
    surface = SurfaceLogits("many", shape, "reestimated", points, logits, own, SPLITS)
    surfaces = described(shape, many=("many", "seeds", None))
    table = pd.DataFrame(compare_ensembles({"many": surface}, surfaces, 5))
    assert table.query("split == 'val'")["forward_passes"].tolist() == [*range(1, FEW + 3)]
    grid = grid_table({"plain": LOGITS["plain"]}).assign(surface="many")
    rows, _ = compare_rivals({"many": surface}, surfaces, grid, COST, {"many": Soup([0], {})})
    found = {row["method"]: row for row in rows if row["split"] == "test"}
    names = ["network", "mean", "greedy-soup", *(f"ensemble-{k}" for k in (1, 4, 9, 10))]
    assert list(found) == [f"many/{name}" for name in names]
    assert found["many/ensemble-10"]["equivalents"] == FEW + 2
    assert 1 < found["many/ensemble-4"]["equivalents"] < FEW + 2
    assert measure_picks({"many": surface}, surfaces) == []


# --- picks ----------------------------------------------------------------------------------------


def test_picks_on_val_are_held_against_those_on_test_and_repeated():
    picks = pd.DataFrame(measure_picks(LOGITS, SURFACES, draws=200))
    assert list(picks["surface"].unique()) == list(SURFACES)
    of = picks.set_index(["surface", "pick", "metric"])
    for name in SURFACES:
        row = of.loc[name, "merge", "accuracy"]
        assert row["value"] == ROWS.loc[(f"{name}/best-point", "test"), "accuracy"]
        assert row["oracle"] == GRID[
            (GRID["surface"] == name) & (GRID["split"] == "test")
            & ~SQUARE.is_corner(GRID)
        ]["accuracy"].max()  # fmt: skip
        assert row["gap"] == pytest.approx(row["oracle"] - row["value"]) and row["gap"] >= 0
        assert 0 < row["repicked"] < 1 and 1 < row["distinct"] <= 21
        ensemble = of.loc[name, "ensemble", "nll"]
        greedy = ROWS.loc[(f"{name}/greedy-4", "test"), "nll"]
        assert ensemble["value"] == pytest.approx(greedy)
        assert ensemble["gap"] == pytest.approx(ensemble["value"] - ensemble["oracle"])
        assert pd.isna(ensemble["repicked"])


def test_a_point_that_is_better_on_every_image_is_picked_each_time():
    sure = {split: values.clone() for split, values in LOGITS["plain"].logits.items()}
    for split, labels in SPLITS.items():
        sure[split][POINTS.index((0.5, 0.5))] = 20 * torch.nn.functional.one_hot(labels, 10).half()
    of = LOGITS["plain"]
    fields = (of.surface, of.shape, of.statistics, of.points, sure, of.own, of.labels)
    plain = {"plain": SURFACES["plain"]}
    picks = pd.DataFrame(measure_picks({"plain": SurfaceLogits(*fields)}, plain, draws=50))
    merge = picks[picks["pick"] == "merge"]
    assert merge[["gap", "repicked", "distinct"]].to_numpy().tolist() == [[0, 1, 1]] * 2
