"""The paper's experiments by data set and network: tables and a figure, for `publish.py`."""

from collections.abc import Iterable, Iterator, Mapping

import pandas as pd
from findings import (
    DOUBLE,
    Found,
    Published,
    against_longer,
    bezier,
    of_summary,
    surfaces,
    trained_out,
)
from matplotlib.figure import Figure

from fourfold.pipeline.targets import SCALES, Targets
from fourfold.report.claims import (
    CLAIMS,
    LINEAR,
    NO,
    TRAJECTORY,
    TRIVIAL,
    UNDECIDED,
    YES,
    least_favourable,
    surfaces_of_kind,
)
from fourfold.report.figures import plot_experiments
from fourfold.report.summary import markdown_table

Results = Mapping[str, Published]


_CIFAR10 = "[pytorch-cifar](https://github.com/kuangliu/pytorch-cifar)"
_CIFAR100 = "[pytorch-cifar100](https://github.com/weiaicunzai/pytorch-cifar100)"
_VIT = "[vision-transformers-cifar10](https://github.com/kentaroy47/vision-transformers-cifar10)"
# Where an expected accuracy at full size comes from: what others state of such networks.
SOURCES = {
    "cifar10-resnet18": f"{_CIFAR10}: 93.0, with pre-activation 95.1, after 350 epochs",
    "cifar10-vgg16": f"{_CIFAR10}: 92.6 after 350 epochs",
    "cifar10-vit": f"{_VIT}: patches of 4 pixels, 80 after 200 epochs, 88 after 500",
    "cifar100-resnet18": f"{_CIFAR100}: 75.6 after 200 epochs",
    "cifar100-vgg16": f"{_CIFAR100}: 72.9 after 200 epochs, with a wider classifier",
}


def figure_name(scale: str) -> str:
    """Return the file of a scale's figure."""
    return f"experiments-{scale}.png"


def cells_of(targets: Targets, scale: str) -> list[str]:
    """Return the experiments of a scale, data set by data set, as far as they are defined."""
    names = [name for row in targets.cells(scale).values() for name in row.values()]
    return [name for name in names if name in targets.experiments]


def draw_figures(results: Results, targets: Targets) -> Iterator[tuple[str, Figure]]:
    """Yield file and figure of each scale of which at least half of the cells are published."""
    for scale in SCALES:
        cells = cells_of(targets, scale)
        there = [name for name in cells if name in results]
        if there and 2 * len(there) >= len(cells):
            described = {name: surfaces(results[name]) for name in there}
            # Copies of many surfaces have no grids.
            grids = [of.tables["grid"] for name in there if "grid" in (of := results[name]).tables]
            if grids:
                grid = pd.concat(grids)
                yield figure_name(scale), plot_experiments(grid, described, targets.cells(scale))


def accuracy_table(results: Results, names: Iterable[str]) -> str:
    """Return what the surfaces of experiments and their points give, a row for each, run or not."""
    head = ["experiment", "images x epochs", "corners' mean", "trained twice as long"]
    head += ["linear: worst", "Bezier: worst", "low-loss on test / train", "mean", "center"]
    head += ["best point", "less the best corner", "four points", "less the four corners"]
    head += ["trajectory: worst"]
    body = [
        [name, *(_accuracy_cells(name, results[name]) if name in results else ["not run"])]
        for name in names
    ]
    rows = [row + [""] * (len(head) - len(row)) for row in body]
    filled = [k for k in range(len(head)) if k == 0 or any(row[k] for row in rows)]
    return markdown_table([head[k] for k in filled], [[row[k] for k in filled] for row in rows])


def _accuracy_cells(name: str, of: Published) -> Iterator[str]:
    main = bezier(of)
    linear, run = (
        next(iter(surfaces_of_kind(surfaces(of), k)), None) for k in (LINEAR, TRAJECTORY)
    )

    def accuracy(kind: str, method: str, metric: str) -> str:
        found = of_summary(name, of, kind, method, metric)
        return _percent(found) if found else ""

    def over(surface: str | None, what: str) -> str:
        return accuracy("surface", str(surface), f"accuracy_{what}")

    def less(comparison: str) -> str:
        found = of_summary(name, of, "difference", f"{main}/{comparison}", "test_accuracy")
        return f"{found.cell}, {found.word}" if found else ""

    yield _length_of_training(of)
    yield over(main, "corner_mean_own")
    yield accuracy("rival", f"{DOUBLE}/network", "accuracy")
    yield over(linear, "min")
    yield over(main, "min")
    yield " / ".join(
        filter(None, (_low_loss(name, of, main, split) for split in ("test", "train")))
    )
    for what in ("mean", "center"):
        yield over(main, what)
    yield accuracy("merge", f"{main}/best-point", "accuracy")
    yield less("merge")
    count = surfaces(of)[main]["count"] if main else 0
    yield accuracy("ensemble", f"{main}/validation-{count}", "accuracy")
    yield less("ensemble")
    yield over(run, "min")


def _length_of_training(of: Published) -> str:
    """Return on how many images a corner was trained, and how often it saw each."""
    rows = of.tables["endpoints"]
    images = rows.loc[rows["split"] == "train", "n"].iloc[0]
    return f"{images:,} x {of.environment['settings']['training']['epochs']}"


def what_they_say(results: Results, names: Iterable[str]) -> str:
    """Return in how many experiments the Bezier surface is low-loss, and what is better."""
    there = {name: results[name] for name in names if name in results}
    fails, everywhere, without_fit = (_claimed(there, claim.text) for claim in CLAIMS[:3])
    on_test = {name: _low_loss(name, of, bezier(of), "test") for name, of in there.items()}
    better = {}
    for name, of in there.items():
        found = of_summary(name, of, "difference", f"{bezier(of)}/merge", "test_accuracy")
        better[name] = found.word if found else ""
    turned = {YES: NO, NO: YES, UNDECIDED: UNDECIDED}
    longer = {
        one.experiment: turned[one.word]
        for one in against_longer(there)
        if one.metric == "test_accuracy" and "/best-point against " in one.what
    }
    rival = (
        " One network trained for longer than a corner, for fewer images than the surface, is more "
        f"accurate than that point in {_counted(longer)}."
    )
    return (
        f"The linear surface fails in {_counted(fails)}. The Bezier surface is low-loss "
        f"everywhere, on train, val and test, in {_counted(everywhere)}; on test alone in "
        f"{_counted(on_test)}. "
        "The trajectory surface, through four networks of one run and without a fit, is so in "
        f"{_counted(without_fit)}. The best point of the Bezier surface is more accurate than the "
        f"best corner in {_counted(better)}.{rival if longer else ''}{trained_out(there)}"
    )


def _claimed(results: Results, text: str) -> dict[str, str]:
    """Return what became of a claim in each experiment that has it."""
    words = {}
    for name, of in results.items():
        rows = of.summary
        for word in rows.loc[(rows["kind"] == "claim") & (rows["method"] == text), "text"]:
            words[name] = word
    return words


def _counted(words: Mapping[str, str]) -> str:
    """Return how many are `yes`, and these by name if they are few, else the others."""
    others = {NO: "not", TRIVIAL: "trivially", UNDECIDED: UNDECIDED}
    of = {w: ", ".join(n for n in words if words[n] == w) for w in (YES, *others)}
    count = [*words.values()].count(YES)
    rest = [f"{said} in {of[word]}" for word, said in others.items() if of[word]]
    named = [of[YES]] if 0 < count < len(words) / 2 else rest
    trivial = [*words.values()].count(TRIVIAL)
    more = f", trivially in {trivial}" if trivial and named != rest else ""
    return f"{count} of {len(words)}" + (f" ({', '.join(named)})" if named else "") + more


def _low_loss(name: str, of: Published, surface: str | None, split: str) -> str:
    """Return whether a surface is low-loss on one split, in accuracy and nll together."""
    found = [
        of_summary(name, of, "difference", f"{surface}/low-loss", f"{split}_{metric}")
        for metric in ("accuracy", "nll")
    ]
    words = {one.word for one in found if one}
    return least_favourable(words) if words else ""


def _percent(found: Found) -> str:
    low, high = (f"{100 * end:.2f}" for end in (found.low, found.high))
    return f"{100 * found.mean:.2f}" + (f" [{low}, {high}]" if found.replicates > 1 else "")


def claim_table(results: Results) -> str:
    """Return what became of each claim in each experiment, and the difference that decides it."""
    head = ["experiment", *(claim.text for claim in CLAIMS)]
    body = []
    for name, of in results.items():
        rows = of.summary[of.summary["kind"] == "claim"].set_index("method")
        body.append([name, *(_claim_cell(name, rows, claim.text) for claim in CLAIMS)])
    return markdown_table(head, body)


def _claim_cell(name: str, rows: pd.DataFrame, text: str) -> str:
    if text not in rows.index:
        return ""
    row = rows.loc[text]
    one = Found(name, 1, row["metric"], row["mean"], row["low"], row["high"])
    return f"**{row['text']}** {row['metric'].replace('_', ' ')} {one.cell}"


def full_size_table(results: Results, targets: Targets) -> str:
    """Return what is expected of the experiments at the paper's size, why, and which were run."""
    body = []
    for name in cells_of(targets, "full"):
        of = targets.experiments[name]
        expected = of.get("expected_accuracy")
        measured = "not run"
        if name in results:
            _, measured, *_ = _accuracy_cells(name, results[name])
        cells = [name, str(of["training"]["epochs"]), f"{100 * expected:g}" if expected else ""]
        body.append([*cells, SOURCES.get(name, "our guess"), measured])
    head = ["experiment", "epochs", "expected (%)", "what others state (%)", "corners' mean (%)"]
    return markdown_table(head, body)
