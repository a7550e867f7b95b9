"""The headline figures of all experiments, the paper's claims held against them, and their text."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from fourfold.combination import costs
from fourfold.combination.baselines import (
    UNTRAINED,
    Described,
    Surfaces,
    check_surfaces,
    corner_ensembles,
    reference_surfaces,
)
from fourfold.evaluation.bootstrap import student_interval
from fourfold.report.claims import NAMED, YES, Comparison, compare, in_claim_order, judge
from fourfold.report.pairs import is_named_twice, pair_differences
from fourfold.report.wording import equal_corners, equal_points, listed, number, numbers
from fourfold.surfaces.points import own_corner_rows, rows_at, surface_rows
from fourfold.surfaces.shapes import AXES, Shape, shape_of

ALL_REPLICATES = -1  # what the column `replicate` says in rows over all replicates

# A corner's re-estimated network and the network as trained must agree to within this, in the mean
# over the corners; else the points of the surface are not what they would be with statistics of
# their own training.
STATISTICS_AGREE = {"accuracy": 0.005, "nll": 0.01}
# Corners nearer to each other than this, relative to their norm, are nearly one network.
COINCIDENT_DISTANCE = 0.05

_ORACLE, _AT_WORST = "/oracle", "_at_accuracy_min"  # ends of a method and of a metric
_CERTIFICATE = "certificate_"  # begins a metric that bounds a surface
_EQUIVALENTS = "equivalents"  # may be endless, which has no mean
_KEYS = ["kind", "method", "metric"]
# Kinds of corners whose ensemble the headline table leaves out: of one run, or of the networks of
# another set once more, or of no trained networks.
_NO_BASELINE = ("run", "aligned", "random", "untrained")
_SCORES = ("accuracy", "nll", "ece", "brier")
_OF_RIVALS = (
    *("images_backward", "images_forward", "forward_passes"),
    *("accuracy", "nll", "nll_scaled", "ece", "brier", "disagreement", _EQUIVALENTS),
)


def summarize(tables: Mapping[str, pd.DataFrame], surfaces: Mapping[str, Surfaces]) -> pd.DataFrame:
    """Return the `summary` table: headline figures on test, over the replicates.

    Sets, whose networks are only held against others, have no rows of kind `surface`.

    With two replicates or more, low and high are the ends of the 95 % confidence interval of the
    mean by Student's t; with one they are missing. Those of differences and claims are of the
    paired bootstrap over images and replicates. Of certificates the largest stands in place of the
    mean, which bounds no surface: it bounds each replicate's. Of equivalents it is the median:
    they are endless where a method is better than all networks that there are.

    Args:
        tables: `grid`, `barrier`, `certificate`, `ensemble`, `merge`, `geometry`, `cost` and
            `difference` of all experiments and replicates, by name.
        surfaces: experiment -> its surfaces, in the order of the rows.

    Raises:
        InputError: if the grids are not of these surfaces.
    """
    rows = []
    for experiment, of_experiment in tables["grid"].groupby("experiment", sort=False):
        described, found = surfaces.get(experiment, {}), []
        of = {name: table[table["experiment"] == experiment] for name, table in tables.items()}
        for replicate, grid in of_experiment.groupby("replicate", sort=False):
            check_surfaces(grid["surface"].unique(), described, f"the grids of {experiment}")
            here = {name: table[table["replicate"] == replicate] for name, table in of.items()}
            found += [(replicate, *fact) for fact in _facts(here, described)]
        facts = pd.DataFrame(found, columns=["replicate", *_KEYS, "value", "text"])
        first = of["grid"][of["grid"]["replicate"] == facts["replicate"].iloc[0]]
        common = {"experiment": experiment, "replicate": ALL_REPLICATES}
        common |= {"n": _on_test(first)["n"].max(), "replicates": facts["replicate"].nunique()}
        for key, group in facts.groupby(_KEYS, sort=False):
            values, over = group["value"], _over_replicates(key[-1])
            has_spread = len(values) > 1 and over == "mean" and np.isfinite(values).all()
            low, high = student_interval(values) if has_spread else (None, None)
            text = group["text"].iloc[0] if len(group) == 1 else None
            figures = {"mean": getattr(values, over)(skipna=False)}
            figures |= {"low": low, "high": high, "text": text}
            rows.append(
                common | dict(zip(_KEYS, key, strict=True)) | {"replicates": len(group)} | figures
            )
        compared = compare(of["difference"])
        rows += [common | row for row in _compared(compared, coincident_surfaces(facts), described)]
        held = {"pair": pair_differences(of["rival_difference"], described)}
        if _has_rivals(described):
            held = {"rival_difference": of["rival_difference"], **held}
        rows += [common | row for kind, of_kind in held.items() for row in _held(kind, of_kind)]
    return pd.DataFrame(rows)


def _over_replicates(metric: str) -> str:
    """Return what stands for a metric's values of all replicates: their mean, for most."""
    return (
        "max" if metric.startswith(_CERTIFICATE) else "median" if metric == _EQUIVALENTS else "mean"
    )


def _on_test(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["split"] == "test"]


def coincident_surfaces(facts: pd.DataFrame) -> list[str]:
    """Return the surfaces of one experiment whose corners nearly coincide, in the mean of rows.

    They are near to each other, or disagree no more than one corner does with itself when its
    BatchNorm statistics are re-estimated.
    """
    of_surfaces = facts[facts["kind"] == "surface"]
    means = of_surfaces.pivot_table("value", "method", "metric", dropna=False)
    means = means.reindex(columns=["corner_distance", "corner_disagreement", "corner_scatter"])
    is_near = means["corner_distance"] < COINCIDENT_DISTANCE
    return list(means.index[is_near | (means["corner_disagreement"] <= means["corner_scatter"])])


def _compared(
    compared: Mapping[tuple[str, str], list[Comparison]], coincident: list[str], surfaces: Surfaces
) -> Iterator[dict[str, Any]]:
    """Yield the rows of all differences, and of every claim and its control."""
    said = [
        ("difference", f"{surface}/{comparison}", one.verdict, one)
        for (surface, comparison), differences in compared.items()
        for one in differences
    ] + [
        ("control" if one.is_control else "claim", one.text, one.word, one.decided_by)
        for one in judge(compared, coincident, surfaces)
    ]
    for kind, method, word, one in said:
        yield {
            **{"kind": kind, "method": method, "metric": f"{one.split}_{one.metric}"},
            **{"mean": one.difference, "low": one.low, "high": one.high, "text": word},
        }


Fact = tuple[str, str, str, float, str | None]  # kind, method, metric, value, text


def _facts(tables: Mapping[str, pd.DataFrame], surfaces: Surfaces) -> Iterator[Fact]:
    """Yield the headline figures of one replicate of one experiment."""
    for surface, described in surfaces.items():
        shape = shape_of(described)
        grid, barrier, certificate, geometry = (
            tables[name][tables[name]["surface"] == surface]
            for name in ("grid", "barrier", "certificate", "geometry")
        )
        by_loss = barrier.set_index(["split", "metric"])
        if not shape.is_discrete:
            for metric, value, text in _losses(_on_test(grid), by_loss, shape):
                yield "surface", surface, metric, value, text
            cost = _cost(tables["cost"], grid, surface, described, shape)
            further = _certified(certificate) | corner_gaps(geometry) | cost
            for metric, value in further.items():
                yield "surface", surface, metric, value, None
        if described["kind"] in UNTRAINED:
            continue  # nobody trained them alone
        # What re-estimated BatchNorm statistics change in the corners, in the mean.
        for split, rows in grid[grid["sample"] == "grid"].groupby("split", sort=False):
            own, again = own_corner_rows(rows, shape), surface_rows(rows)
            again = again[shape.is_corner(again)]
            for metric in STATISTICS_AGREE:
                change = again[metric].mean(skipna=False) - own[metric].mean(skipna=False)
                yield "statistics", surface, f"{split}_{metric}", change, None
    # Ensembles that differ in members alone, of one size, in the mean.
    keys = ["ensemble", "selection", "forward_passes"]
    for (name, selection, passes), rows in _on_test(tables["ensemble"]).groupby(keys, sort=False):
        size = f"-{passes}" if selection in ("validation", "subset") else ""
        for metric in (*_SCORES, "disagreement", "forward_passes"):
            value = rows[metric].mean(skipna=False)
            yield "ensemble", f"{name}/{selection}{size}", metric, value, None
    for row in _on_test(tables["merge"]).to_dict("records"):
        for metric in _SCORES:
            yield "merge", f"{row['surface']}/{row['merge']}", metric, row[metric], None
    if _has_rivals(surfaces):
        for row in _on_test(tables["rival"]).to_dict("records"):
            for metric in _OF_RIVALS:
                if metric in _SCORES or pd.notna(row[metric]):
                    yield "rival", row["method"], metric, row[metric], None


def _has_rivals(surfaces: Surfaces) -> bool:
    """Return whether methods are shown at equal cost: where sets of networks stand among them."""
    return any(shape_of(surface).is_discrete for surface in surfaces.values())


def _held(kind: str, differences: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the rows of all differences between a method and one that it is held against."""
    for (method, against), comparisons in compare(differences, ("method", "against")).items():
        for one in comparisons:
            yield {
                **{"kind": kind, "method": f"{method} against {against}"},
                **{"metric": f"{one.split}_{one.metric}", "mean": one.difference},
                **{"low": one.low, "high": one.high, "text": one.verdict},
            }


def _losses(
    test: pd.DataFrame, barrier: pd.DataFrame, shape: Shape
) -> Iterator[tuple[str, float, str | None]]:
    """Yield accuracy and nll over a surface, the place of its worst point, and its barriers."""
    center = rows_at(surface_rows(test), shape, shape.center).iloc[0]
    for metric, loss, worst, best in (
        ("accuracy", "error", "min", "max"),
        ("nll", "nll", "max", "min"),
    ):
        row = barrier.loc["test", loss]
        columns = {"corner_mean_own": "corner_mean_own", "corner_mean": "corner_mean"}
        for name, column in (columns | {worst: "max", best: "min", "mean": "mean"}).items():
            value = 1 - row[column] if loss == "error" else row[column]
            yield f"{metric}_{name}", value, row["sample_at_max"] if name == worst else None
        yield f"{metric}_center", center[metric], None
    for axis in shape.axes:
        yield f"{axis}{_AT_WORST}", barrier.loc["test", "error"][f"{axis}_at_max"], None
    for (split, loss), row in barrier.iterrows():
        yield f"barrier_{loss}_{split}", row["barrier"], None


def _certified(certificate: pd.DataFrame) -> dict[str, float]:
    """Return what at most a fraction of a surface is worse than on val, if random points say it.

    The fraction is the round one of the table, if there were points enough, else what the worst
    point certifies.
    """
    val = certificate[certificate["split"] == "val"]
    last = val.groupby("metric", sort=False).tail(1)
    found = {f"{_CERTIFICATE}{row.metric}": row.value for row in last.itertuples()}
    return found | ({f"{_CERTIFICATE}fraction": last["fraction"].iloc[0]} if len(last) else {})


def corner_gaps(geometry: pd.DataFrame) -> dict[str, float]:
    """Return how far apart the corners of a surface are, in weights and in predictions."""
    rows = geometry[geometry["a"].str.startswith("corner") & geometry["b"].str.startswith("corner")]
    pairs, alone = rows[rows["a"] != rows["b"]], rows[rows["a"] == rows["b"]]
    gaps = {
        "corner_distance": pairs["relative_l2"],
        "corner_disagreement": pairs["disagreement"],
        "corner_scatter": alone["disagreement"],
    }
    return {name: values.mean() for name, values in gaps.items() if values.notna().any()}


def _cost(
    cost: pd.DataFrame, grid: pd.DataFrame, surface: str, described: Described, shape: Shape
) -> dict[str, float]:
    """Return the images passed backward and forward for training, and for choosing on val.

    Trained are the corners, as far as that was done here, and the surface's own fit. What choosing
    takes are the selection of its corners and the pick of a point of the grid.
    """
    trained = costs.corner_images(cost, described) + costs.fit_images(cost, surface)
    chosen = costs.selection_images(cost, described) + costs.picking_images(grid, shape)
    return {"images_backward": float(trained), "images_forward": float(trained + chosen)}


# --- text -----------------------------------------------------------------------------------------


def _how_to_read(counts: Collection[int], places: Collection[str]) -> str:
    """Return what the columns mean of surfaces with such counts of corners and coordinates."""
    points, corners = equal_points(counts).capitalize(), equal_corners(counts)
    brackets = listed(sorted(places, key=len), "or")
    area = "the area" if brackets == "(u, v)" else "the whole surface"
    return (
        "Corners: the networks as trained, with their own BatchNorm statistics. Worst point: of "
        f"grid, edges and random points; in brackets {brackets} and which of the three found it. "
        f"Mean: over {area}. Best point: one merged network, picked on val. {points}: picked on "
        f"val, predictions averaged; beside them {corners}, which are no candidates for either. "
        "Barrier: largest excess of the loss over a mixture of the corners' losses. Certificate: "
        "with 95 % confidence at most this part of the surface has a higher loss on val, as "
        "independent random points say; nll and error each, the largest of the replicates, which "
        "holds for each. Corners' distance: mean over pairs of "
        "|a - b| / mean norm. Images: thousands passed backward (training) / forward (training and "
        "choosing on val)."
    )


def render_markdown(
    summary: pd.DataFrame, kept: float, surfaces: Mapping[str, Surfaces] | None = None
) -> str:
    """Return the text of summary.md: what `render_headline` returns, then every method."""
    of_experiment = dict(list(summary.groupby("experiment", sort=False)))
    blocks = [
        "# Summary",
        render_headline(summary, kept, surfaces),
        "## Corners as trained, and with re-estimated BatchNorm statistics",
        "Change of the mean over the corners, accuracy in points and nll in nats; it should stay "
        f"within {100 * STATISTICS_AGREE['accuracy']:g} points and {STATISTICS_AGREE['nll']} nats "
        "on val and test.",
        _statistics_table(of_experiment),
        *(
            f"## {experiment}: merges and ensembles\n\n{_method_table(rows)}"
            for experiment, rows in of_experiment.items()
        ),
        *rival_blocks(of_experiment, surfaces or {}),
        "Rows marked *oracle* were chosen on test and show how much that flatters; everything else "
        "was chosen on val or in advance. Subsets of the corners: mean over all choices.",
    ]
    return "\n\n".join(blocks) + "\n"


def render_headline(
    summary: pd.DataFrame, kept: float, surfaces: Mapping[str, Surfaces] | None = None
) -> str:
    """Return the headline table, the tables of claims, and how to read them, as Markdown.

    Args:
        summary: table `summary`.
        kept: `summary.kept` of params.yaml.
        surfaces: experiment -> its surfaces. With them the ensembles of all corner sets that
            aren't from one run are shown, or of all if there are none, but of those that no surface
            goes through only if there is no other; without them that of the first set of
            independent corners alone.
    """
    of_experiment = dict(list(summary.groupby("experiment", sort=False)))
    replicates = summary["replicates"].max()
    sizes = ", ".join(str(n) for n in sorted({int(n) for n in summary["n"]}))
    spread, plural = (" (mean and 95 % interval)", "s") if replicates > 1 else ("", "")
    head = ["experiment", "surface", "corners' mean", "worst point", "mean", "center", "best point"]
    counts = {n for rows in of_experiment.values() for n in _corner_counts(rows).values()}
    places = {
        f"({', '.join(_axes(of_surface['metric']))})"
        for _, of_surface in summary[summary["kind"] == "surface"].groupby(["experiment", "method"])
    }
    head += [equal_points(counts), "barrier train / test (nats)", "certificate (val)"]
    head += ["corners' distance", "images (k)"]
    body = [
        [experiment, *cells]
        for experiment, rows in of_experiment.items()
        for cells in _headline_rows(rows, (surfaces or {}).get(experiment))
    ]
    blocks = [
        f"Test accuracy in percent{spread}, n = {sizes} images, {replicates} replicate{plural}"
        + (f" of {numbers(counts)} corners." if counts else "."),
        *_warnings(of_experiment),
        markdown_table(head, body),
        *([_how_to_read(counts, places)] if places else []),
        *_aligned(of_experiment, surfaces or {}),
        *_untrained(of_experiment),
        *_claim_blocks(of_experiment, kept, replicates),
    ]
    return "\n\n".join(blocks)


def _corner_counts(rows: pd.DataFrame) -> dict[str, int]:
    """Return surface -> number of its corners, as many as its ensemble `oracle` has members."""
    passes = rows[(rows["kind"] == "ensemble") & (rows["metric"] == "forward_passes")]
    oracles = passes[passes["method"].str.endswith(_ORACLE)]
    names = oracles["method"].str.removesuffix(_ORACLE)
    return dict(zip(names, oracles["mean"].astype(int), strict=True))


def _headline_rows(rows: pd.DataFrame, surfaces: Surfaces | None) -> Iterator[list[str]]:
    """Yield the cells of each surface of an experiment, and of each ensemble of its corners."""
    value = rows.set_index(_KEYS).sort_index()
    counts = _corner_counts(rows)

    def cell(*key: str) -> str:
        return _percent(value.loc[key])

    for surface in rows.loc[rows["kind"] == "surface", "method"].unique():
        mean = value.loc[("surface", surface), "mean"]
        place, found_by = "", value.loc[("surface", surface, "accuracy_min"), "text"]
        if isinstance(found_by, str):  # one replicate
            at = [f"{mean[f'{axis}{_AT_WORST}']:.2f}" for axis in _axes(mean.index)]
            place = f" ({', '.join(at)}; {found_by})"
        points = ("ensemble", f"{surface}/validation-{counts[surface]}", "accuracy")
        yield [
            surface,
            cell("surface", surface, "accuracy_corner_mean_own"),
            cell("surface", surface, "accuracy_min") + place,
            cell("surface", surface, "accuracy_mean"),
            cell("surface", surface, "accuracy_center"),
            cell("merge", f"{surface}/best-point", "accuracy"),
            cell(*points) if points in value.index else "",  # `max_members` may be less
            f"{mean['barrier_nll_train']:.3f} / {mean['barrier_nll_test']:.3f}",
            _certificate(mean),
            f"{mean['corner_distance']:.3f}",
            f"{mean['images_backward'] / 1000:.0f} / {mean['images_forward'] / 1000:.0f}",
        ]
    for ensemble, corners in _shown_corners(surfaces).items():
        key = ("ensemble", f"{ensemble}/fixed")
        if (*key, "accuracy") in value.index:
            label = f"{number(int(value.loc[(*key, 'forward_passes'), 'mean']))} corners"
            label += f" ({corners})" if corners else ""
            yield [label, *[""] * 5, cell(*key, "accuracy"), *[""] * 4]


def _certificate(mean: pd.Series) -> str:
    """Return the cell of the certificate, empty where there is none."""
    if "certificate_fraction" not in mean:
        return ""
    fraction, error = 100 * mean["certificate_fraction"], 100 * mean["certificate_error"]
    return f"≤ {fraction:.3g} % above {mean['certificate_nll']:.3f} nats / {error:.1f} % error"


def _shown_corners(surfaces: Surfaces | None) -> dict[str, str]:
    """Return the ensembles of corners in the headline table -> the set's name, if it is needed."""
    if surfaces is None:
        return {"corners": ""}
    spanning = [one for one in surfaces.values() if not shape_of(one).is_discrete]
    shown = spanning or [*surfaces.values()]
    shown = [one for one in shown if one["kind"] not in _NO_BASELINE] or shown
    # Corners that a fit moves are others on each surface; the ensembles are those of one.
    moved = {one["corners"] for one in shown if one["kind"] == "free"}
    of = {corners: f" of {name}" for corners, name in reference_surfaces(surfaces).items()}
    return {
        name: "" if name == "corners" else corners + (of[corners] if corners in moved else "")
        for corners, name in corner_ensembles(surfaces).items()
        if corners in {one["corners"] for one in shown}
    }


def _axes(metrics: Collection[str]) -> list[str]:
    """Return the coordinates that a surface's worst point has."""
    return [axis for axis in AXES if f"{axis}{_AT_WORST}" in set(metrics)]


def _claim_blocks(
    of_experiment: Mapping[str, pd.DataFrame], kept: float, replicates: int
) -> Iterator[str]:
    """Yield the tables of claims and how to read them, nothing if there are none."""
    judged = pd.concat(of_experiment.values())
    judged = judged[judged["kind"].isin(["claim", "control"])]
    texts = in_claim_order(judged["method"])
    if not texts:
        return
    reading = [
        f"Low-loss everywhere: the worst point keeps at least {100 * kept:g} % of what the corners "
        "have above guessing, in accuracy and nll, on train, val and test; *trivial* where the "
        f"corners are near (distance under {COINCIDENT_DISTANCE}, or no more disagreement "
        "than re-estimated statistics alone make). *Can't tell*: the interval has zero inside."
    ]
    if "control" in set(judged["kind"]):
        reading.append("The linear surface through independent corners is the control.")
    if any(NAMED in text for text in texts):
        reading.append("Of several such surfaces the first is meant where no name says another.")
    yield _claim_table(of_experiment, texts)
    yield " ".join(reading)
    yield _difference_table(of_experiment, texts)
    yield (
        "Differences: positive in favour of the surface, accuracy in points, nll in nats; in "
        "brackets the 95 % interval, paired bootstrap over images"
        + (" and replicates" if replicates > 1 else "")
        + ". Of several comparisons (splits, metrics) the one least in favour of the surface is "
        "shown."
    )


def _aligned(
    of_experiment: Mapping[str, pd.DataFrame], surfaces: Mapping[str, Surfaces]
) -> Iterator[str]:
    """Yield a line of the surfaces whose corners are aligned."""
    aligned = {
        name: one["to"]
        for experiment in of_experiment
        for name, one in surfaces.get(experiment, {}).items()
        if one["kind"] == "aligned"
    }
    if aligned:
        yield (
            f"The corners of {listed(list(aligned), 'and')} are the "
            f"{listed(list(dict.fromkeys(aligned.values())), 'and')} ones, with their hidden units "
            "moved to lie close to one another: the same functions."
        )


def _untrained(of_experiment: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """Yield a line of the surfaces whose corners nobody trained."""
    for experiment, rows in of_experiment.items():
        of_kind = rows.groupby("kind")["method"].unique()
        known = set(of_kind.get("statistics", []))
        if free := [name for name in of_kind.get("surface", []) if name not in known]:
            yield (
                f"Nobody trained the corners of {experiment}, {' and '.join(free)}, alone: they "
                "are the surface's points there."
            )


def _warnings(of_experiment: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """Yield a line for each surface whose corners are not as trained when re-estimated."""
    for experiment, rows in of_experiment.items():
        for surfaces, changes in _corner_changes(rows):
            if beyond := _beyond_noise(changes):
                said = ", ".join(
                    f"{metric.replace('_', ' ')} {_difference(metric, change, digits=4)}"
                    for metric, change in beyond.items()
                )
                yield (
                    f"**Warning**: the corners of {experiment}, {' and '.join(surfaces)}, are not "
                    f"as trained when their BatchNorm statistics are re-estimated ({said}); "
                    "points between them may be as far from what they could be."
                )


def changed_corners(rows: pd.DataFrame) -> set[str]:
    """Return the surfaces of an experiment whose corners are not as trained when re-estimated."""
    changes = _corner_changes(rows)
    return {name for surfaces, of in changes if _beyond_noise(of) for name in surfaces}


def _beyond_noise(changes: Mapping[str, float]) -> dict[str, float]:
    """Return what re-estimation changes on val or test by more than noise."""
    return {
        metric: change
        for metric, change in changes.items()
        if abs(change) > STATISTICS_AGREE[metric.partition("_")[2]]
        and not metric.startswith("train")
    }


def _corner_changes(rows: pd.DataFrame) -> Iterator[tuple[list[str], dict[str, float]]]:
    """Yield surfaces that share their corners, and what re-estimation changes in these."""
    found: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for surface, changes in rows[rows["kind"] == "statistics"].groupby("method", sort=False):
        key = tuple(zip(changes["metric"], changes["mean"], strict=True))
        found.setdefault(key, []).append(surface)
    for changes, surfaces in found.items():
        yield surfaces, dict(changes)


def render_metrics(summary: pd.DataFrame) -> dict[str, Any]:
    """Return the means as nested objects, experiment -> kind -> method -> metric, for DVC."""
    metrics: dict[str, Any] = {}
    for _, row in summary.iterrows():
        place = metrics.setdefault(row["experiment"], {}).setdefault(row["kind"], {})
        method = place.setdefault(row["method"].replace("/", " "), {})
        if np.isfinite(row["mean"]):  # what is not is no JSON
            method[row["metric"]] = round(row["mean"], 6)
    return metrics


def _statistics_table(of_experiment: Mapping[str, pd.DataFrame]) -> str:
    """One row per experiment, surface and split: what re-estimation changes, mean over corners."""
    body = []
    for experiment, rows in of_experiment.items():
        for surfaces, changes in _corner_changes(rows):
            for split in dict.fromkeys(metric.partition("_")[0] for metric in changes):
                names = [f"{split}_{metric}" for metric in STATISTICS_AGREE]
                cells = [_difference(name, changes[name], digits=4) for name in names]
                body.append([experiment, " and ".join(surfaces), split, *cells])
    return markdown_table(["experiment", "corners of", "split", *STATISTICS_AGREE], body)


def _method_table(rows: pd.DataFrame) -> str:
    """One table for ensembles and merges: what one gets, and for how many forward passes."""
    body = []
    for kind in ("merge", "ensemble"):
        for method, facts in rows[rows["kind"] == kind].groupby("method", sort=False):
            by_metric = facts.set_index("metric")
            passes = 1 if kind == "merge" else by_metric.loc["forward_passes", "mean"]
            label = f"*{method}*" if "oracle" in method else method
            nll = f"{by_metric.loc['nll', 'mean']:.4f}"
            body.append([kind, label, f"{passes:g}", _percent(by_metric.loc["accuracy"]), nll])
    return markdown_table(["", "method", "forward passes", "accuracy", "nll (nats)"], body)


def rival_blocks(
    of_experiment: Mapping[str, pd.DataFrame], surfaces: Mapping[str, Surfaces]
) -> Iterator[str]:
    """Yield the table of methods at equal cost of each experiment that has one.

    Args:
        of_experiment: experiment -> its rows of the table `summary`.
        surfaces: experiment -> its surfaces, which tell what has two names and is shown once.
    """
    for experiment, rows in of_experiment.items():
        if not len(rivals := rows[rows["kind"] == "rival"]):
            continue
        described = surfaces.get(experiment, {})
        twice = [is_named_twice(method, described) for method in rivals["method"]]
        rivals = rivals[~np.array(twice)]
        against = rows[rows["kind"] == "rival_difference"]
        pairs = against["method"].str.split(" against ", expand=True)
        reference = pairs[1].iloc[0] if len(pairs) else None
        differences = against.assign(method=pairs[0] if len(pairs) else None)
        yield (
            f"## {experiment}: at equal cost\n\n{_rival_table(rivals, differences)}\n\n"
            "By the images that training took, then by nll. Scaled nll: at the temperature that "
            "was fitted on val. Equivalents: as many independent networks, averaged, have this "
            "scaled nll; 1 for what is no better than one, inf for what is better than all; of "
            "several replicates the median. Disagreement: how often two of the members predict "
            "different classes. "
            f"Differences to {reference}, one network: positive where the method is better."
            + " Aligned networks compute what those do that they come from: these stand once."
            * any(twice)
        )


def _rival_table(rivals: pd.DataFrame, differences: pd.DataFrame) -> str:
    """One row per method: what it costs, what it gives, and that against one network."""
    of = rivals.pivot_table("mean", "method", "metric").sort_values(["images_backward", "nll"])
    rows = rivals.set_index(["method", "metric"])
    against = dict(differences.set_index(_KEYS[1:]).iterrows())
    body = []
    for method, mean in of.iterrows():
        cells = [f"{mean['images_backward'] / 1000:.0f}", f"{mean['forward_passes']:g}"]
        cells.append(_percent(rows.loc[(method, "accuracy")]))
        cells.append(_with_interval(rows.loc[(method, "nll")]))
        cells += [f"{mean[metric]:.4f}" for metric in ("nll_scaled", "ece", "brier")]
        cells.append(f"{mean['disagreement']:.3f}" if mean["forward_passes"] > 1 else "")
        cells.append(f"{mean[_EQUIVALENTS]:.2f}" if _EQUIVALENTS in mean.dropna() else "")
        for metric in ("test_accuracy", "test_nll_scaled"):
            found = against.get((method, metric))
            cells.append("" if found is None else _against(metric, found))
        body.append([str(method), *cells])
    head = ["method", "images (k)", "forward passes", "accuracy", "nll (nats)", "scaled nll", "ece"]
    head += [
        "brier",
        "disagreement",
        "equivalents",
        "accuracy against one network",
        "scaled nll against one network",
    ]
    return markdown_table(head, body)


def _against(metric: str, row: pd.Series) -> str:
    mean, *ends = (_difference(metric, row[key]) for key in ("mean", "low", "high"))
    return f"{mean} [{', '.join(ends)}], {row['text']}"


def _claim_table(of_experiment: Mapping[str, pd.DataFrame], texts: list[str]) -> str:
    """One row per claim, one column per experiment."""
    body = []
    for text in texts:
        cells = []
        for rows in of_experiment.values():
            of_claim = rows[rows["method"] == text].set_index("kind")["text"]
            word = of_claim.get("claim", "")
            cells.append(word + (", control too" if word == of_claim.get("control") == YES else ""))
        body.append([text, *cells])
    return markdown_table(["claim holds here?", *of_experiment], body)


def _difference_table(of_experiment: Mapping[str, pd.DataFrame], texts: list[str]) -> str:
    """One row per experiment and claim: the difference, its interval, and those of the control."""
    body = []
    for experiment, rows in of_experiment.items():
        for text in texts:
            cells = []
            for kind in ("claim", "control"):
                for _, row in rows[(rows["method"] == text) & (rows["kind"] == kind)].iterrows():
                    metric = row["metric"]
                    mean, *ends = (_difference(metric, row[key]) for key in ("mean", "low", "high"))
                    shown = f"{metric.replace('_', ' ')} {mean} [{', '.join(ends)}]"
                    cells += [row["text"], shown]
            if cells:
                body.append([experiment, text, *cells, *[""] * (4 - len(cells))])
    head = ["experiment", "claim", "holds?", "difference", "control holds?", "its difference"]
    return markdown_table(head, body)


def _difference(metric: str, value: float, digits: int = 3) -> str:
    """Return a difference with its sign: accuracy in points, nll in nats to so many digits."""
    return f"{100 * value:+.2f}" if metric.endswith("accuracy") else f"{value:+.{digits}f}"


def _percent(row: pd.Series) -> str:
    return _with_interval(row, digits=2, scale=100)


def _with_interval(row: pd.Series, digits: int = 4, scale: float = 1) -> str:
    mean, low, high = (f"{scale * row[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]" if pd.notna(row["low"]) else mean


def markdown_table(head: list[str], body: list[list[str]]) -> str:
    """Return an aligned Markdown table, readable on a terminal as it is."""
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *body]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
