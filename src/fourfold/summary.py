"""The headline figures of all experiments, the paper's claims held against them, and their text."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

ALL_REPLICATES = -1  # what the column `replicate` says in rows over all replicates
_CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
_SURFACE_METRICS = {
    "accuracy_corner_mean": "corners' mean",
    "accuracy_min": "worst point",
    "accuracy_mean": "mean",
    "accuracy_center": "center",
}
_SURFACE_MEASURES = ("barrier_nll", "corner_distance")


def summarize(tables: Mapping[str, pd.DataFrame], margin: float) -> pd.DataFrame:
    """Return the `summary` table: headline figures on test, over the replicates.

    With two replicates or more, low and high are the ends of the 95 % confidence interval of the
    mean by Student's t; with one they are missing.

    Args:
        tables: `grid`, `barrier`, `ensemble`, `merge`, `geometry` and `cost` of all experiments and
            replicates, by name.
        margin: largest gap between the worst accuracy of a low-loss surface and its corners' mean.

    Returns:
        Rows of kind `surface`, `ensemble`, `merge` and `claim`. A claim's mean is the share of the
        replicates in which it holds.
    """
    facts = pd.DataFrame(_facts(tables, margin))
    keys = ["experiment", "kind", "method", "metric"]
    rows = []
    for key, group in facts.groupby(keys, sort=False):
        low, high = _interval(group["value"])
        rows.append(
            dict(zip(keys, key, strict=True))
            | {"replicate": ALL_REPLICATES, "n": group["n"].iloc[0], "replicates": len(group)}
            | {"mean": group["value"].mean(), "low": low, "high": high}
        )
    return pd.DataFrame(rows)


def _facts(tables: Mapping[str, pd.DataFrame], margin: float) -> Iterator[dict[str, Any]]:
    """Yield one row per experiment, replicate, method and metric."""
    # What has splits is reported on test; distances and costs have none.
    test = {
        name: table[table["split"] == "test"] if "split" in table else table
        for name, table in tables.items()
    }
    for (experiment, replicate), points in test["grid"].groupby(
        ["experiment", "replicate"], sort=False
    ):
        here = {
            name: table[(table["experiment"] == experiment) & (table["replicate"] == replicate)]
            for name, table in test.items()
        }
        of = _Replicate(here)
        for kind, method, metric, value in (*of.measurements(), *of.claims(margin)):
            yield {
                "experiment": experiment,
                "replicate": replicate,
                "n": points["n"].iloc[0],
                "kind": kind,
                "method": method,
                "metric": metric,
                "value": value,
            }


Fact = tuple[str, str, str, float]  # kind, method, metric, value


class _Replicate:
    """The test rows of one replicate of one experiment."""

    def __init__(self, tables: Mapping[str, pd.DataFrame]) -> None:
        self.surfaces = {
            name: self._measure_surface(points)
            for name, points in tables["grid"].groupby("surface", sort=False)
        }
        for _, row in tables["barrier"].iterrows():
            self.surfaces[row["surface"]][f"barrier_{row['metric']}"] = row["barrier"]
        geometry, cost = tables["geometry"], tables["cost"]
        corners = geometry[
            geometry["a"].str.startswith("corner") & geometry["b"].str.startswith("corner")
        ]
        for surface, pairs in corners.groupby("surface", sort=False):
            self.surfaces[surface]["corner_distance"] = pairs["relative_l2"].mean()
        runs = cost.loc[cost["stage"] == "train_endpoint", "images_backward"]
        fit = cost.loc[cost["stage"] == "fit_bezier_surface", "images_backward"].sum()
        trained = {"linear": runs.sum(), "bezier": runs.sum() + fit, "trajectory": runs.iloc[0]}
        for surface in self.surfaces:
            self.surfaces[surface]["images_backward"] = float(trained[surface])
        self.ensembles = {
            f"{row['ensemble']}/{row['selection']}": row for _, row in tables["ensemble"].iterrows()
        }
        self.merges = {
            f"{row['surface']}/{row['merge']}": row for _, row in tables["merge"].iterrows()
        }

    @staticmethod
    def _measure_surface(points: pd.DataFrame) -> dict[str, float]:
        by_point = points.set_index(["u", "v"])
        facts = {}
        for metric in ("accuracy", "nll"):
            values = by_point[metric]
            facts |= {
                f"{metric}_corner_mean": values[list(_CORNERS)].mean(),
                f"{metric}_min": values.min(),
                f"{metric}_mean": values.mean(),
                f"{metric}_max": values.max(),
                f"{metric}_center": values[(0.5, 0.5)],
            }
        return facts

    def measurements(self) -> Iterator[Fact]:
        """Yield the headline figures."""
        for surface, facts in self.surfaces.items():
            for metric, value in facts.items():
                yield "surface", surface, metric, value
        for kind, methods in (("ensemble", self.ensembles), ("merge", self.merges)):
            for method, row in methods.items():
                for metric in ("accuracy", "nll", "ece", "brier"):
                    yield kind, method, metric, row[metric]
        for method, row in self.ensembles.items():
            yield "ensemble", method, "forward_passes", row["forward_passes"]

    def claims(self, margin: float) -> Iterator[Fact]:
        """Yield for each claim of the paper whether it holds here, 1 or 0."""
        gap = {
            surface: facts["accuracy_corner_mean"] - facts["accuracy_min"]
            for surface, facts in self.surfaces.items()
        }
        best_corner = self.merges["linear/best-corner"]["accuracy"]
        corners = self.ensembles["corners/fixed"]["accuracy"]
        holds = {
            "linear surface fails": gap["linear"] > margin,
            "Bezier surface is low-loss everywhere": gap["bezier"] <= margin,
            "trajectory surface is low-loss without training": gap["trajectory"] <= margin,
            "merge: Bezier point picked on val at least equals the best corner": (
                self.merges["bezier/best-point"]["accuracy"] >= best_corner
            ),
            "ensemble: Bezier points picked on val beat the best corner": (
                self.ensembles["bezier/validation"]["accuracy"] > best_corner
            ),
            "ensemble: Bezier points picked on val at least equal the four corners": (
                self.ensembles["bezier/validation"]["accuracy"] >= corners
            ),
        }
        for claim, held in holds.items():
            yield "claim", claim, "holds", float(held)


def _interval(values: pd.Series) -> tuple[float | None, float | None]:
    """Return the 95 % confidence interval of the mean, missing for a single value."""
    if len(values) < 2:
        return None, None
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return values.mean() - half, values.mean() + half


# --- text -----------------------------------------------------------------------------------------


def render_markdown(summary: pd.DataFrame, margin: float) -> str:
    """Return the text of summary.md: the headline table and the claims, then every method."""
    of_experiment = dict(list(summary.groupby("experiment", sort=False)))
    blocks = [
        "# Summary",
        render_headline(summary, margin),
        *(
            f"## {experiment}: merges and ensembles\n\n{_method_table(rows)}"
            for experiment, rows in of_experiment.items()
        ),
        "Rows marked *oracle* were chosen on test and show how much that flatters; everything else "
        "was chosen on val or in advance.",
    ]
    return "\n\n".join(blocks) + "\n"


def render_headline(summary: pd.DataFrame, margin: float) -> str:
    """Return the headline table, the table of claims, and how to read both, as Markdown."""
    of_experiment = dict(list(summary.groupby("experiment", sort=False)))
    replicates = summary["replicates"].max()
    sizes = sorted({int(n) for n in summary["n"]})
    spread = " (mean and 95 % interval)" if replicates > 1 else ""
    return "\n\n".join(
        [
            f"Test accuracy in percent{spread}, n = {', '.join(map(str, sizes))} images, "
            f"{replicates} replicate{'s' if replicates > 1 else ''} of four corners.",
            _headline_table(of_experiment),
            _claim_table(of_experiment),
            "Best point: one merged network, picked on val. Ensemble: up to the number in brackets "
            "of points, picked on val and averaged; beside them the four corners. Barrier: largest "
            "excess of the loss over a mixture of the corners' losses. Corners' distance: mean "
            "over pairs of |a - b| / mean norm; where corners nearly coincide, a low-loss surface "
            "through them is trivial. Trained on: thousands of images passed backward for the "
            "surface, its corners included. Low-loss everywhere: the worst point of the grid is at "
            f"most {100 * margin:g} points under the mean of the corners; a surface fails if it "
            "is not.",
        ]
    )


def render_metrics(summary: pd.DataFrame) -> dict[str, Any]:
    """Return the means as nested objects, experiment -> kind -> method -> metric, for DVC."""
    metrics: dict[str, Any] = {}
    for _, row in summary.iterrows():
        method = row["method"].replace("/", " ")
        place = metrics.setdefault(row["experiment"], {}).setdefault(row["kind"], {})
        place.setdefault(method, {})[row["metric"]] = round(row["mean"], 6)
    return metrics


def _headline_table(of_experiment: dict[str, pd.DataFrame]) -> str:
    """One row per experiment and surface, and one for the ensemble of the four corners."""
    head = ["experiment", "surface", *_SURFACE_METRICS.values()]
    head += ["best point", "ensemble", "barrier (nats)", "corners' distance", "trained on (k)"]
    body = []
    for experiment, rows in of_experiment.items():
        value = rows.set_index(["kind", "method", "metric"]).sort_index()

        def cell(*key: str, value: pd.DataFrame = value) -> str:
            return _percent(value.loc[key])

        def ensemble(method: str, value: pd.DataFrame = value) -> str:
            passes = value.loc[("ensemble", method, "forward_passes"), "mean"]
            return f"{_percent(value.loc[('ensemble', method, 'accuracy')])} ({passes:g})"

        surfaces = rows.loc[rows["kind"] == "surface", "method"].unique()
        for surface in surfaces:
            body.append(
                [experiment, surface]
                + [cell("surface", surface, metric) for metric in _SURFACE_METRICS]
                + [cell("merge", f"{surface}/best-point", "accuracy")]
                + [ensemble(f"{surface}/validation")]
                + [f"{value.loc[('surface', surface, m), 'mean']:.3f}" for m in _SURFACE_MEASURES]
                + [f"{value.loc[('surface', surface, 'images_backward'), 'mean'] / 1000:.0f}"]
            )
        empty = [""] * (len(_SURFACE_METRICS) + 1)
        body.append([experiment, "four corners", *empty, ensemble("corners/fixed"), "", "", ""])
    return markdown_table(head, body)


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


def _claim_table(of_experiment: dict[str, pd.DataFrame]) -> str:
    """One row per claim, one column per experiment."""
    verdicts: dict[str, list[str]] = {}
    for rows in of_experiment.values():
        for _, row in rows[rows["kind"] == "claim"].iterrows():
            held, of = round(row["mean"] * row["replicates"]), row["replicates"]
            verdict = ("yes" if held else "no") if of == 1 else f"{held} of {of}"
            verdicts.setdefault(row["method"], []).append(verdict)
    body = [[claim, *cells] for claim, cells in verdicts.items()]
    return markdown_table(["claim holds here?", *of_experiment], body)


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
