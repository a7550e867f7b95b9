"""The card of a shared surface: what its tables say of it, and what made it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml

from fourfold.combination.baselines import Described
from fourfold.report.claims import Comparison
from fourfold.report.summary import markdown_table
from fourfold.surfaces.shapes import shape_of, written
from fourfold.zoo.card import render_card
from fourfold.zoo.description import Description

# Source of the images -> its name on model hubs, and what it is.
_SOURCES = {
    "cifar10": ("uoft-cs/cifar10", "CIFAR-10 (Krizhevsky, 2009), published without a license"),
    "cifar100": ("uoft-cs/cifar100", "CIFAR-100 (Krizhevsky, 2009), published without a license"),
    "tiny-imagenet": (
        "zh-plus/tiny-imagenet",
        "Tiny-ImageNet (Stanford CS231n), images of ImageNet, whose terms allow research alone",
    ),
    "digits": (None, "the digits of scikit-learn (Alpaydin and Kaynak, UCI, 1998), CC BY 4.0"),
}
_OTHERS = "images of whoever exported this folder"
_COMPARISONS = {
    "low-loss": "worst point, against {kept} of what the corners have above guessing",
    "merge": "point picked on val, against the best corner",
    "ensemble": "as many points as corners, picked on val, against the corners",
}
# Kind of the corners -> how they came about.
_CORNERS = {
    "seeds": "The corners were trained independently.",
    "run": "The corners are networks kept along one training run.",
    "fork": "The corners were trained by runs that part from one.",
    "files": "The corners were trained elsewhere, and came as files.",
    "random": "The corners are no trained networks, but as far apart as such in random directions.",
    "free": "The corners were trained with the surface, not alone.",
    "untrained": "The corners are initializations.",
}
_ALIGNED = (
    " Their hidden units were moved to lie close to one another, which leaves each the function "
    "that it was."
)


@dataclass(frozen=True)
class Source:
    """The images of an experiment.

    Attributes:
        name: of the data set in params.yaml.
        source: kind of the source there.
        sizes: images of each split.
    """

    name: str
    source: str
    sizes: Mapping[str, int]


def render_surface_card(
    described: Description,
    tables: Mapping[str, pd.DataFrame],
    surface: Described,
    images: Source,
    made: Mapping[str, Any],
    *,
    license: str,
    kept: float,
    agreement: float,
) -> str:
    """Return the card of a surface of an experiment.

    Args:
        described: by its `config.json`.
        tables: `barrier`, `certificate`, `difference` and `rival` of the replicate, by name.
        surface: what tables can't tell of it.
        images: what it was trained on.
        made: what made it: experiment, seeds, recipe, versions, commit.
        license: of the networks, an identifier of model hubs.
        kept: `summary.kept` of params.yaml.
        agreement: largest difference between logits of the folder's networks and the tables'.
    """
    name = described.surface["name"]
    of = {key: table[table["surface"] == name] for key, table in tables.items() if key != "rival"}
    rival = tables["rival"]
    methods = _methods(rival[rival["split"] == "test"].set_index("method"), name, surface)
    sections = {
        "Metrics": "\n\n".join(_metrics(described, methods, of, kept, agreement)),
        "Data": _data(images),
        "How it was made": f"{_corners(surface)}\n\n```yaml\n{_yaml(made)}```",
        "Limits": _limits(described, surface),
    }
    title = f"{made['experiment']}: {name}"
    front = yaml.safe_dump(_front_matter(title, images, methods), sort_keys=False)
    return render_card(described, license, title=title, metadata=front, sections=sections)


def _corners(surface: Described) -> str:
    if surface["kind"] == "aligned":
        return _CORNERS[surface["origin_kind"]] + _ALIGNED
    return _CORNERS[surface["kind"]]


def _methods(rival: pd.DataFrame, name: str, surface: Described) -> dict[str, pd.Series]:
    """Return network or ensemble -> its row on test, of those that there are."""
    count = surface["count"]
    known = {
        "best corner on val, as trained": f"{surface['corners']}/network",
        "center": f"{name}/center",
        "point picked on val": f"{name}/best-point",
        f"{count} points picked on val, averaged predictions": f"{name}/greedy-{count}",
        f"the {count} corners, averaged predictions": f"{surface['corners']}/ensemble-{count}",
    }
    return {said: rival.loc[method] for said, method in known.items() if method in rival.index}


def _metrics(
    described: Description,
    methods: Mapping[str, pd.Series],
    tables: Mapping[str, pd.DataFrame],
    kept: float,
    agreement: float,
) -> Iterator[str]:
    barrier = tables["barrier"].set_index(["split", "metric"])
    error, nll = barrier.loc[("test", "error")], barrier.loc[("test", "nll")]
    body = [
        [said, _percent(row, "accuracy"), _interval(row, "nll")] for said, row in methods.items()
    ]
    for said, column in (
        ("corners as trained, mean", "corner_mean_own"),
        ("whole surface, mean", "mean"),
        ("worst point found", "max"),
    ):
        body.append([said, f"{100 * (1 - error[column]):.2f}", f"{nll[column]:.4f}"])
    n = next(iter(methods.values()))["n"] if methods else None
    yield f"On test{f', n = {n} images' if n else ''}; in brackets 95 % intervals over images."
    yield markdown_table(["", "accuracy (%)", "nll (nats)"], body)
    if "best-point" in described.points:
        yield f"Picked on val: ({written(described.points['best-point'])})."
    differences = [_compared(row, kept) for row in tables["difference"].to_dict("records")]
    yield (
        "Differences are positive in favour of the surface, accuracy in points; *can't tell*: the "
        "interval (paired bootstrap) has zero inside."
    )
    yield markdown_table(["compared", "on", "difference", "better?"], differences)
    yield from _certified(tables["certificate"])
    precision = described.batchnorm["precision"]
    yield (
        "When this folder was written, its center and its corners were loaded from it: their "
        "logits on val, rounded to float16, are those behind these numbers"
        + (f", up to {agreement:.1g}" if agreement else "")
        + ("." if precision == "float32" else f" (whose passes are in {precision}).")
    )


def _compared(row: Mapping[str, Any], kept: float) -> list[str]:
    scale, digits = (100, 2) if row["metric"] == "accuracy" else (1, 3)
    one = Comparison(row["split"], row["metric"], row["difference"], row["low"], row["high"])
    values = [f"{scale * x:+.{digits}f}" for x in (one.difference, one.low, one.high)]
    said = _COMPARISONS[row["comparison"]].format(kept=f"{100 * kept:g} %")
    difference = f"{values[0]} [{values[1]}, {values[2]}]"
    return [said, f"{one.split} {one.metric}", difference, one.verdict]


def _certified(certificate: pd.DataFrame) -> Iterator[str]:
    last = certificate[certificate["split"] == "val"].groupby("metric", sort=False).tail(1)
    bounds = last.set_index("metric")
    if {"nll", "error"} <= set(bounds.index):
        nll, error = bounds.loc["nll"], bounds.loc["error"]
        yield (
            f"With {100 * nll['confidence']:g} % confidence at most {100 * nll['fraction']:.3g} % "
            f"of the surface has a val nll above {nll['value']:.3f}; with as much, at most so much "
            f"has a val error above {100 * error['value']:.1f} %. {nll['points']} random points "
            "say each, not both together."
        )


def _data(images: Source) -> str:
    _, what = _SOURCES.get(images.source, (None, _OTHERS))
    sizes = ", ".join(f"{n:,} {split}" for split, n in images.sizes.items())
    return (
        f"`{images.name}`: {what}. Split into {sizes} images; choices were made on val, test is "
        "reported alone. No image is in this folder."
    )


def _limits(described: Description, surface: Described) -> str:
    items = [
        "A study object, of one data set and one replicate: intervals are over test images, and "
        "say nothing about other runs.",
        "Nothing was examined beyond accuracy, nll and calibration on images of the same source.",
    ]
    if described.batchnorm["statistics"] == "reestimated":
        items.append(
            "Points that `statistics.safetensors` doesn't hold need training images; statistics of "
            "others cost accuracy."
        )
    if surface["fit"] is None:
        items.append("The surface has no fit: between its corners the loss may be high.")
    if shape_of(surface).is_discrete:
        items.append("Between its networks there is nothing but their mean.")
    return "\n".join(f"- {item}" for item in items)


def _front_matter(title: str, images: Source, methods: Mapping[str, pd.Series]) -> dict[str, Any]:
    hub, _ = _SOURCES.get(images.source, (None, ""))
    results = [
        {"type": metric, "value": round(float(row[metric]), 6), "name": f"{metric}, {said}"}
        for said, row in methods.items()
        for metric in ("accuracy", "nll")
    ]
    dataset = {"type": hub or images.source, "name": images.name, "split": "test"}
    task = {"type": "image-classification"}
    index = {"name": title, "results": [{"task": task, "dataset": dataset, "metrics": results}]}
    return {**({"datasets": [hub]} if hub else {}), "metrics": ["accuracy"], "model-index": [index]}


def _yaml(values: Mapping[str, Any]) -> str:
    """Return YAML with the innermost lists and mappings on one line."""
    text: str = yaml.safe_dump(dict(values), sort_keys=False, default_flow_style=None, width=100)
    return text


def _percent(row: pd.Series, metric: str) -> str:
    value, low, high = (
        f"{100 * row[key]:.2f}" for key in (metric, f"{metric}_low", f"{metric}_high")
    )
    return f"{value} [{low}, {high}]"


def _interval(row: pd.Series, metric: str) -> str:
    return f"{row[metric]:.4f} [{row[f'{metric}_low']:.4f}, {row[f'{metric}_high']:.4f}]"
