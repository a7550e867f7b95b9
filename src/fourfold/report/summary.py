"""The headline figures of all experiments, the paper's claims held against them, and their text."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from fourfold.combination.baselines import Surfaces, check_surfaces, corner_ensembles
from fourfold.evaluation.bootstrap import student_interval
from fourfold.report.claims import NAMED, YES, Comparison, compare, in_claim_order, judge
from fourfold.surfaces.points import CENTER, is_corner, lattice_rows, own_corner_rows, surface_rows

ALL_REPLICATES = -1  # what the column `replicate` says in rows over all replicates

# A corner's re-estimated network and the network as trained must agree to within this, in the mean
# over the corners; else the points of the surface are not what they would be with statistics of
# their own training.
STATISTICS_AGREE = {"accuracy": 0.005, "nll": 0.01}
# Corners nearer to each other than this, relative to their norm, are nearly one network.
COINCIDENT_DISTANCE = 0.05

_TEST = "test"
_ENSEMBLE = 4  # members on both sides of the comparison of ensembles


def summarize(tables: Mapping[str, pd.DataFrame], surfaces: Mapping[str, Surfaces]) -> pd.DataFrame:
    """Return the `summary` table: headline figures on test, over the replicates.

    With two replicates or more, low and high are the ends of the 95 % confidence interval of the
    mean by Student's t; with one they are missing. Those of differences and claims are of the
    paired bootstrap over images and replicates.

    Args:
        tables: `grid`, `barrier`, `ensemble`, `merge`, `geometry`, `cost` and `difference` of all
            experiments and replicates, by name.
        surfaces: experiment -> surface -> `corners`, `kind`, `fit`; their order is that of the
            rows.

    Returns:
        Rows of kind `surface`, `statistics`, `ensemble`, `merge`, `difference`, `claim` and
        `control`. `text` has a claim's verdict.

    Raises:
        InputError: if the grids are not of these surfaces.
    """
    keys = ["experiment", "kind", "method", "metric"]
    rows = []
    facts = pd.DataFrame(_facts(tables, surfaces))
    for experiment, of_experiment in facts.groupby("experiment", sort=False):
        common = {
            "experiment": experiment,
            "replicate": ALL_REPLICATES,
            "n": of_experiment["n"].iloc[0],
            "replicates": of_experiment["replicate"].nunique(),
        }
        for (kind, method, metric), group in of_experiment.groupby(keys[1:], sort=False):
            low, high = (None, None) if len(group) < 2 else student_interval(group["value"])
            text = group["text"].iloc[0] if len(group) == 1 else None
            rows.append(
                common
                | {"kind": kind, "method": method, "metric": metric}
                | {"replicates": len(group), "mean": group["value"].mean()}
                | {"low": low, "high": high, "text": text}
            )
        differences = tables["difference"]
        compared = compare(differences[differences["experiment"] == experiment])
        coincident = _coincident(of_experiment)
        rows += [common | row for row in _compared(compared, coincident, surfaces[experiment])]
    return pd.DataFrame(rows)


def _facts(
    tables: Mapping[str, pd.DataFrame], surfaces: Mapping[str, Surfaces]
) -> Iterator[dict[str, Any]]:
    """Yield one row per experiment, replicate, method and metric."""
    for (experiment, replicate), grid in tables["grid"].groupby(
        ["experiment", "replicate"], sort=False
    ):
        described = surfaces.get(experiment, {})
        check_surfaces(grid["surface"].unique(), described, f"the grids of {experiment}")
        of = _Replicate(
            {
                name: table[(table["experiment"] == experiment) & (table["replicate"] == replicate)]
                for name, table in tables.items()
            },
            described,
        )
        n = grid.loc[grid["split"] == _TEST, "n"].max()
        for kind, method, metric, value, text in of.measurements():
            yield {
                "experiment": experiment,
                "replicate": replicate,
                "n": n,
                "kind": kind,
                "method": method,
                "metric": metric,
                "value": value,
                "text": text,
            }


def _coincident(facts: pd.DataFrame) -> list[str]:
    """Return the surfaces whose corners nearly coincide, in the mean over the replicates.

    They are near to each other, or disagree no more than one corner does with itself when its
    BatchNorm statistics are re-estimated.
    """
    means = facts[facts["kind"] == "surface"].groupby(["method", "metric"])["value"].mean()
    return [
        surface
        for surface in means.index.get_level_values("method").unique()
        if means[surface, "corner_distance"] < COINCIDENT_DISTANCE
        or means[surface, "corner_disagreement"] <= means[surface, "corner_scatter"]
    ]


def _compared(
    compared: Mapping[tuple[str, str], list[Comparison]], coincident: list[str], surfaces: Surfaces
) -> Iterator[dict[str, Any]]:
    """Yield the rows of all differences, and of every claim and its control."""
    for (surface, comparison), differences in compared.items():
        for one in differences:
            yield {
                "kind": "difference",
                "method": f"{surface}/{comparison}",
                "metric": f"{one.split}_{one.metric}",
                **_ends(one),
                "text": one.verdict,
            }
    for verdict in judge(compared, coincident, surfaces):
        one = verdict.decided_by
        yield {
            "kind": "control" if verdict.is_control else "claim",
            "method": verdict.text,
            "metric": f"{one.split}_{one.metric}",
            **_ends(one),
            "text": verdict.word,
        }


def _ends(one: Comparison) -> dict[str, float]:
    return {"mean": one.difference, "low": one.low, "high": one.high}


Fact = tuple[str, str, str, float, str | None]  # kind, method, metric, value, text


class _Replicate:
    """The tables of one replicate of one experiment."""

    def __init__(self, tables: Mapping[str, pd.DataFrame], surfaces: Surfaces) -> None:
        self.tables, self.surfaces = tables, surfaces

    def measurements(self) -> Iterator[Fact]:
        """Yield the headline figures."""
        grids = dict(list(self.tables["grid"].groupby("surface")))
        for surface in self.surfaces:
            grid = grids[surface]
            for metric, value, text in (
                *self._losses(surface, grid[grid["split"] == _TEST]),
                *self._corners(surface),
                *self._cost(surface, grid),
            ):
                yield "surface", surface, metric, value, text
            yield from self._statistics(surface, grid)
        yield from self._ensembles()
        merge = self.tables["merge"]
        for _, row in merge[merge["split"] == _TEST].iterrows():
            for metric in ("accuracy", "nll", "ece", "brier"):
                yield "merge", f"{row['surface']}/{row['merge']}", metric, row[metric], None

    def _losses(self, surface: str, test: pd.DataFrame) -> Iterator[tuple[str, float, str | None]]:
        """Yield accuracy and nll over the surface, and its barriers."""
        barrier = self.tables["barrier"]
        rows = barrier[barrier["surface"] == surface].set_index(["split", "metric"])
        center = lattice_rows(test).set_index(["u", "v"]).loc[CENTER]
        for metric, loss in (("accuracy", "error"), ("nll", "nll")):
            row = rows.loc[_TEST, loss]
            read: Callable[[float], float] = (lambda x: 1 - x) if loss == "error" else (lambda x: x)
            worst, best = ("min", "max") if loss == "error" else ("max", "min")
            yield f"{metric}_corner_mean_own", read(row["corner_mean_own"]), None
            yield f"{metric}_corner_mean", read(row["corner_mean"]), None
            yield f"{metric}_{worst}", read(row["max"]), row["sample_at_max"]
            yield f"{metric}_{best}", read(row["min"]), None
            yield f"{metric}_mean", read(row["mean"]), None
            yield f"{metric}_center", center[metric], None
        yield "u_at_accuracy_min", rows.loc[_TEST, "error"]["u_at_max"], None
        yield "v_at_accuracy_min", rows.loc[_TEST, "error"]["v_at_max"], None
        for split, loss in rows.index:
            yield f"barrier_{loss}_{split}", rows.loc[split, loss]["barrier"], None

    def _corners(self, surface: str) -> Iterator[tuple[str, float, None]]:
        """Yield how far apart the corners are, in weights and in predictions."""
        geometry = self.tables["geometry"]
        rows = geometry[geometry["surface"] == surface]
        rows = rows[rows["a"].str.startswith("corner") & rows["b"].str.startswith("corner")]
        pairs, alone = rows[rows["a"] != rows["b"]], rows[rows["a"] == rows["b"]]
        yield "corner_distance", pairs["relative_l2"].mean(), None
        yield "corner_disagreement", pairs["disagreement"].mean(), None
        yield "corner_scatter", alone["disagreement"].mean(), None

    def _cost(self, surface: str, grid: pd.DataFrame) -> Iterator[tuple[str, float, None]]:
        """Yield the images passed backward and forward for training, and for choosing on val.

        Trained are the corners, by all runs or by the first, and the surface's own fit. What
        choosing takes are the selection of its corners and the pick of a point of the grid.
        """
        corners, cost = self.surfaces[surface], self.tables["cost"].set_index("stage")
        runs = cost.loc[["train_endpoint"], "images_backward"]

        def images(stage: str, item: str | None, column: str) -> int:
            return int(cost.loc[(cost.index == stage) & (cost["item"] == item), column].sum())

        trained = runs.iloc[0] if corners["kind"] == "run" else runs.sum()
        trained += images("fit_bezier_surface", surface, "images_backward")
        val = lattice_rows(grid[grid["split"] == "val"])
        val = val[~is_corner(val["u"], val["v"])]
        chosen = (val["n"] + val["statistics_images"]).sum()
        chosen += images("select_trajectory_corners", corners["corners"], "images_forward")
        yield "images_backward", float(trained), None
        yield "images_forward", float(trained + chosen), None

    @staticmethod
    def _statistics(surface: str, grid: pd.DataFrame) -> Iterator[Fact]:
        """Yield what re-estimated BatchNorm statistics change in the corners, in the mean."""
        for split, rows in grid[grid["sample"] == "grid"].groupby("split", sort=False):
            own, again = own_corner_rows(rows), surface_rows(rows)
            again = again[is_corner(again["u"], again["v"])]
            for metric in STATISTICS_AGREE:
                change = again[metric].mean() - own[metric].mean()
                yield "statistics", surface, f"{split}_{metric}", change, None

    def _ensembles(self) -> Iterator[Fact]:
        """Yield ensembles; those that differ in members alone, of one size, in the mean."""
        ensemble = self.tables["ensemble"]
        keys = ["ensemble", "selection", "forward_passes"]
        test = ensemble[ensemble["split"] == _TEST]
        for (name, selection, passes), rows in test.groupby(keys, sort=False):
            sized = selection in ("validation", "subset")
            method = f"{name}/{selection}" + (f"-{passes}" if sized else "")
            for metric in ("accuracy", "nll", "ece", "brier", "disagreement", "forward_passes"):
                yield "ensemble", method, metric, rows[metric].mean(), None


# --- text -----------------------------------------------------------------------------------------

_INTERVALS = (
    "Differences: positive in favour of the surface, accuracy in points, nll in nats; in brackets "
    "the 95 % interval, paired bootstrap over images"
)
_HOW_TO_READ = (
    "Corners: the networks as trained, with their own BatchNorm statistics. Worst point: of grid, "
    "edges and random points; in brackets (u, v) and which of the three found it. Mean: over the "
    "area. Best point: one merged network, picked on val. Four points: picked on val, predictions "
    "averaged; beside them the four corners, which are no candidates for either. Barrier: largest "
    "excess of the loss over a mixture of the corners' losses. Corners' distance: mean over pairs "
    "of |a - b| / mean norm. Images: thousands passed backward (training) / forward (training and "
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
        _statistics_table(of_experiment),
        *(
            f"## {experiment}: merges and ensembles\n\n{_method_table(rows)}"
            for experiment, rows in of_experiment.items()
        ),
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
        surfaces: experiment -> surface -> `corners`, `kind`, `fit`. With them the ensembles of all
            sets of independent corners are shown, or of all sets if there are none; without them
            that of the first set of independent corners alone.
    """
    of_experiment = dict(list(summary.groupby("experiment", sort=False)))
    replicates = summary["replicates"].max()
    sizes = sorted({int(n) for n in summary["n"]})
    spread = " (mean and 95 % interval)" if replicates > 1 else ""
    return "\n\n".join(
        [
            f"Test accuracy in percent{spread}, n = {', '.join(map(str, sizes))} images, "
            f"{replicates} replicate{'s' if replicates > 1 else ''} of four corners.",
            *warnings(of_experiment),
            _headline_table(of_experiment, surfaces or {}),
            _HOW_TO_READ,
            *_claim_blocks(of_experiment, kept, replicates),
        ]
    )


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
        f"corners nearly coincide (distance under {COINCIDENT_DISTANCE}, or no more disagreement "
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
        _INTERVALS + (" and replicates" if replicates > 1 else "") + ". Of several comparisons "
        "(splits, metrics) the one least in favour of the surface is shown."
    )


def warnings(of_experiment: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return a line for each surface whose corners are not as trained when re-estimated."""
    lines = []
    for experiment, rows in of_experiment.items():
        for surfaces, changes in _corner_changes(rows):
            beyond = [
                f"{metric.replace('_', ' ')} {_difference(metric, change, digits=4)}"
                for metric, change in changes.items()
                if abs(change) > STATISTICS_AGREE[metric.partition("_")[2]]
                and not metric.startswith("train")
            ]
            if beyond:
                lines.append(
                    f"**Warning**: the corners of {experiment}, {surfaces}, are not as trained "
                    f"when their BatchNorm statistics are re-estimated ({', '.join(beyond)}); "
                    "points between them may be as far from what they could be."
                )
    return lines


def _corner_changes(rows: pd.DataFrame) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield surfaces that share their corners, and what re-estimation changes in these."""
    found: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for surface, changes in rows[rows["kind"] == "statistics"].groupby("method", sort=False):
        key = tuple(zip(changes["metric"], changes["mean"], strict=True))
        found.setdefault(key, []).append(surface)
    for changes, surfaces in found.items():
        yield " and ".join(surfaces), dict(changes)


def render_metrics(summary: pd.DataFrame) -> dict[str, Any]:
    """Return the means as nested objects, experiment -> kind -> method -> metric, for DVC."""
    metrics: dict[str, Any] = {}
    for _, row in summary.iterrows():
        method = row["method"].replace("/", " ")
        place = metrics.setdefault(row["experiment"], {}).setdefault(row["kind"], {})
        place.setdefault(method, {})[row["metric"]] = round(row["mean"], 6)
    return metrics


def _headline_table(
    of_experiment: dict[str, pd.DataFrame], surfaces: Mapping[str, Surfaces]
) -> str:
    """One row per experiment and surface, and one for each ensemble of four corners."""
    head = ["experiment", "surface", "corners' mean", "worst point", "mean", "center", "best point"]
    head += ["four points", "barrier train / test (nats)", "corners' distance", "images (k)"]
    body = []
    for experiment, rows in of_experiment.items():
        value = rows.set_index(["kind", "method", "metric"]).sort_index()

        def cell(*key: str, value: pd.DataFrame = value) -> str:
            return _percent(value.loc[key])

        for surface in rows.loc[rows["kind"] == "surface", "method"].unique():

            def mean(metric: str, value: pd.DataFrame = value, surface: str = surface) -> float:
                return float(value.loc[("surface", surface, metric), "mean"])

            worst = value.loc[("surface", surface, "accuracy_min")]
            place = ""
            if isinstance(worst["text"], str):  # one replicate
                place = f" ({mean('u_at_accuracy_min'):.2f}, {mean('v_at_accuracy_min'):.2f}; "
                place += f"{worst['text']})"
            body.append(
                [
                    experiment,
                    surface,
                    cell("surface", surface, "accuracy_corner_mean_own"),
                    _percent(worst) + place,
                    cell("surface", surface, "accuracy_mean"),
                    cell("surface", surface, "accuracy_center"),
                    cell("merge", f"{surface}/best-point", "accuracy"),
                    cell("ensemble", f"{surface}/validation-{_ENSEMBLE}", "accuracy"),
                    f"{mean('barrier_nll_train'):.3f} / {mean('barrier_nll_test'):.3f}",
                    f"{mean('corner_distance'):.3f}",
                    f"{mean('images_backward') / 1000:.0f} / {mean('images_forward') / 1000:.0f}",
                ]
            )
        for label, ensemble in _shown_corners(surfaces.get(experiment)).items():
            if ("ensemble", f"{ensemble}/fixed", "accuracy") in value.index:
                accuracy = cell("ensemble", f"{ensemble}/fixed", "accuracy")
                body.append([experiment, label, *[""] * 5, accuracy, "", "", ""])
    return markdown_table(head, body)


def _shown_corners(surfaces: Surfaces | None) -> dict[str, str]:
    """Return label -> name of the ensembles of corners in the headline table."""
    if surfaces is None:
        return {"four corners": "corners"}
    independent = {one["corners"] for one in surfaces.values() if one["kind"] == "seeds"}
    return {
        "four corners" if name == "corners" else f"four corners ({corners})": name
        for corners, name in corner_ensembles(surfaces).items()
        if corners in independent or not independent
    }


def _statistics_table(of_experiment: dict[str, pd.DataFrame]) -> str:
    """One row per experiment, surface and split: what re-estimation changes, mean over corners."""
    body = []
    for experiment, rows in of_experiment.items():
        for surfaces, changes in _corner_changes(rows):
            for split in dict.fromkeys(metric.partition("_")[0] for metric in changes):
                names = (f"{split}_{metric}" for metric in STATISTICS_AGREE)
                cells = [_difference(name, changes[name], digits=4) for name in names]
                body.append([experiment, surfaces, split, *cells])
    table = markdown_table(["experiment", "corners of", "split", "accuracy", "nll"], body)
    return (
        "Change of the mean over the corners, accuracy in points and nll in nats; it should stay "
        f"within {100 * STATISTICS_AGREE['accuracy']:g} points and {STATISTICS_AGREE['nll']} nats "
        f"on val and test.\n\n{table}"
    )


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
                    cells += [row["text"], _with_interval(row)]
            if cells:
                body.append([experiment, text, *cells, *[""] * (4 - len(cells))])
    head = ["experiment", "claim", "holds?", "difference", "control holds?", "its difference"]
    return markdown_table(head, body)


def _with_interval(row: pd.Series) -> str:
    metric = row["metric"]
    ends = (_difference(metric, row[end]) for end in ("low", "high"))
    return f"{metric.replace('_', ' ')} {_difference(metric, row['mean'])} [{', '.join(ends)}]"


def _difference(metric: str, value: float, digits: int = 3) -> str:
    """Return a difference with its sign: accuracy in points, nll in nats to so many digits."""
    return f"{100 * value:+.2f}" if metric.endswith("accuracy") else f"{value:+.{digits}f}"


def _percent(row: pd.Series) -> str:
    text = f"{100 * row['mean']:.2f}"
    if pd.notna(row["low"]):
        text += f" [{100 * row['low']:.2f}, {100 * row['high']:.2f}]"
    return text


def markdown_table(head: list[str], body: list[list[str]]) -> str:
    """Return an aligned Markdown table, readable on a terminal as it is."""
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *body]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
