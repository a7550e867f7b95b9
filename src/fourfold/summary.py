"""The headline figures of all experiments, the paper's claims held against them, and their text."""

from collections.abc import Iterator
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


def summarize(
    grid: pd.DataFrame,
    barrier: pd.DataFrame,
    ensemble: pd.DataFrame,
    merge: pd.DataFrame,
    geometry: pd.DataFrame,
    margin: float,
) -> pd.DataFrame:
    """Return the `summary` table: headline figures on test, over the replicates.

    With two replicates or more, low and high are the ends of the 95 % confidence interval of the
    mean by Student's t; with one they are missing.

    Args:
        grid, barrier, ensemble, merge, geometry: tables of all experiments and replicates.
        margin: largest gap between the worst accuracy of a low-loss surface and its corners' mean.

    Returns:
        Rows of kind `surface`, `ensemble`, `merge` and `claim`. A claim's mean is the share of the
        replicates in which it holds.
    """
    test = [frame[frame["split"] == "test"] for frame in (grid, barrier, ensemble, merge)]
    facts = pd.DataFrame(_facts(*test, geometry, margin=margin))
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


def _facts(
    grid: pd.DataFrame,
    barrier: pd.DataFrame,
    ensemble: pd.DataFrame,
    merge: pd.DataFrame,
    geometry: pd.DataFrame,
    margin: float,
) -> Iterator[dict[str, Any]]:
    """Yield one row per experiment, replicate, method and metric."""
    for (experiment, replicate), points in grid.groupby(["experiment", "replicate"], sort=False):
        here = {"experiment": experiment, "replicate": replicate, "n": points["n"].iloc[0]}
        of = _Replicate(points, *(_select(f, here) for f in (barrier, ensemble, merge, geometry)))
        for kind, method, metric, value in (*of.measurements(), *of.claims(margin)):
            yield here | {"kind": kind, "method": method, "metric": metric, "value": value}


def _select(frame: pd.DataFrame, here: dict[str, Any]) -> pd.DataFrame:
    same = (frame["experiment"] == here["experiment"]) & (frame["replicate"] == here["replicate"])
    return frame[same]


Fact = tuple[str, str, str, float]  # kind, method, metric, value


class _Replicate:
    """The test rows of one replicate of one experiment."""

    def __init__(
        self,
        grid: pd.DataFrame,
        barrier: pd.DataFrame,
        ensemble: pd.DataFrame,
        merge: pd.DataFrame,
        geometry: pd.DataFrame,
    ) -> None:
        self.surfaces = {
            name: self._measure_surface(points)
            for name, points in grid.groupby("surface", sort=False)
        }
        for _, row in barrier.iterrows():
            self.surfaces[row["surface"]][f"barrier_{row['metric']}"] = row["barrier"]
        corners = geometry[
            geometry["a"].str.startswith("corner") & geometry["b"].str.startswith("corner")
        ]
        for surface, pairs in corners.groupby("surface", sort=False):
            self.surfaces[surface]["corner_distance"] = pairs["relative_l2"].mean()
        self.ensembles = {
            f"{row['ensemble']}/{row['selection']}": row for _, row in ensemble.iterrows()
        }
        self.merges = {f"{row['surface']}/{row['merge']}": row for _, row in merge.iterrows()}

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
    """Return the headline tables as Markdown: accuracy in percent on test, and the claims."""
    blocks = ["# Summary"]
    for experiment, rows in summary.groupby("experiment", sort=False):
        n, replicates = rows["n"].iloc[0], rows["replicates"].max()
        blocks.append(
            f"## {experiment}\n\nTest accuracy in percent, n = {n} images, "
            f"{_count(replicates, 'replicate')}"
            + (" (mean and 95 % interval)." if replicates > 1 else ".")
        )
        blocks.append(_surface_table(rows[rows["kind"] == "surface"]))
        blocks.append(_method_table(rows))
        blocks.append(_claim_table(rows[rows["kind"] == "claim"], replicates))
    blocks.append(
        f"Low-loss everywhere: the worst accuracy on the grid is at most {100 * margin:g} points "
        "under the mean of the four corners; a surface fails if it is not. Rows marked *oracle* "
        "were chosen on test and show how much that flatters; everything else was chosen on val or "
        "in advance. Corners' distance: mean over pairs of |a - b| over the mean norm; if the "
        "corners nearly coincide, a low-loss surface through them is trivial."
    )
    return "\n\n".join(blocks) + "\n"


def render_metrics(summary: pd.DataFrame) -> dict[str, Any]:
    """Return the means as nested objects, experiment -> kind -> method -> metric, for DVC."""
    metrics: dict[str, Any] = {}
    for _, row in summary.iterrows():
        method = row["method"].replace("/", " ")
        place = metrics.setdefault(row["experiment"], {}).setdefault(row["kind"], {})
        place.setdefault(method, {})[row["metric"]] = round(row["mean"], 6)
    return metrics


def _surface_table(rows: pd.DataFrame) -> str:
    body = []
    for surface, facts in rows.groupby("method", sort=False):
        by_metric = facts.set_index("metric")
        cells = [_percent(by_metric.loc[metric]) for metric in _SURFACE_METRICS]
        barrier = by_metric.loc["barrier_nll", "mean"]
        distance = by_metric.loc["corner_distance", "mean"]
        body.append([surface, *cells, f"{barrier:.3f}", f"{distance:.3f}"])
    head = ["surface", *_SURFACE_METRICS.values(), "barrier (nats)", "corners' distance"]
    return _table(head, body)


def _method_table(rows: pd.DataFrame) -> str:
    """One table for ensembles and merges: what one gets, and for how many forward passes."""
    body = []
    for kind in ("merge", "ensemble"):
        for method, facts in rows[rows["kind"] == kind].groupby("method", sort=False):
            by_metric = facts.set_index("metric")
            passes = 1 if kind == "merge" else round(by_metric.loc["forward_passes", "mean"])
            label = f"*{method}*" if "oracle" in method else method
            nll = f"{by_metric.loc['nll', 'mean']:.4f}"
            body.append([kind, label, str(passes), _percent(by_metric.loc["accuracy"]), nll])
    return _table(["", "method", "forward passes", "accuracy", "nll (nats)"], body)


def _claim_table(rows: pd.DataFrame, replicates: int) -> str:
    body = []
    for _, row in rows.iterrows():
        held = round(row["mean"] * row["replicates"])
        verdict = ("yes" if held else "no") if replicates == 1 else f"{held} of {replicates}"
        body.append([row["method"], verdict])
    return _table(["claim", "holds here"], body)


def _percent(row: pd.Series) -> str:
    text = f"{100 * row['mean']:.2f}"
    if pd.notna(row["low"]):
        text += f" [{100 * row['low']:.2f}, {100 * row['high']:.2f}]"
    return text


def _table(head: list[str], body: list[list[str]]) -> str:
    """Return an aligned Markdown table, readable on a terminal as it is."""
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *body]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
