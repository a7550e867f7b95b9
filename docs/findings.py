"""What the published results say, question by question: docs/findings.md, from tables alone.

`publish.py` writes the page. A sentence says yes or no only where an interval excludes zero.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fourfold.combination.baselines import Described, Surfaces
from fourfold.evaluation.bootstrap import student_interval
from fourfold.pipeline.targets import Targets, split_run
from fourfold.report.claims import (
    CLAIMS,
    NO,
    TRAJECTORY,
    TRIVIAL,
    UNDECIDED,
    YES,
    favour,
    least_favourable,
    surfaces_of_kind,
)
from fourfold.report.figures._convergence import fit_rows, images_reached
from fourfold.report.pairs import ONE, SEVERAL, is_named_twice, main_surface
from fourfold.report.summary import (
    COINCIDENT_DISTANCE,
    changed_corners,
    coincident_surfaces,
    markdown_table,
)
from fourfold.training.phases import fit_passes

DOUBLE = "double"  # set of one network that was trained for twice the epochs of a corner
_A_LITTLE = 1.0  # points: corners to which twice the epochs give less are trained out
SLACK = 1.02  # a rival may cost this much more than the surface: epochs are whole numbers
_CHEAP = 0.5  # a rival for less than this part of the surface's images is counted for itself
_ANSWER = re.compile(r"\*\*(.+?)\*\* \(of (\d+): ([^;)]+)")  # as `say` and `answer` write it
UNTESTED = "not tested"  # the word of a single value, which has no interval
FACTOR = "factor"  # metric of a ratio, whose mean and interval are logarithms
METRICS = ("test_accuracy", "test_nll", "test_nll_scaled")
_ACCURACY, _NLL, _SCALED = METRICS


@dataclass(frozen=True)
class Published:
    """A published experiment; its tables hold all replicates, `grid` all surfaces."""

    environment: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    summary: pd.DataFrame
    figures: Sequence[str]

    @cached_property
    def rows(self) -> dict[tuple[str, str, str], Any]:
        """Return (kind, method, metric) -> row of the summary: thousands are asked for."""
        found: dict[tuple[str, str, str], Any] = {}
        for row in self.summary.itertuples():
            found.setdefault((row.kind, row.method, row.metric), row)
        return found

    @cached_property
    def pairs(self) -> list[str]:
        """Return the methods that are held against each other, as the summary names them."""
        return list(dict.fromkeys(method for kind, method, _ in self.rows if kind == "pair"))


class Group(NamedTuple):
    """Experiments whose names end alike."""

    title: str
    figure: str  # the one that matters
    caption: str


GROUPS = {
    "rivals": Group("Rivals at equal cost", "rivals.png", "Methods at equal cost of"),
    "fits": Group("How many images a fit takes", "convergence.png", "Convergence of the fits of"),
    "corners": Group("Careful selection, examined", "careful.png", "Barriers and distances of"),
    "ablations": Group("Ablations of the fit", "convergence.png", "Convergence of the fits of"),
}


def group_of(name: str) -> str | None:
    """Return the group of an experiment, None of one that is for itself."""
    last = name.rpartition("-")[2]
    return last if last in GROUPS else None


# --- differences and what they say ----------------------------------------------------------------


class Found(NamedTuple):
    """A difference over replicates, positive in favour of what is asked about."""

    experiment: str
    replicates: int
    metric: str  # accuracy is shown in points, others in nats
    mean: float
    low: float  # of the 95 % interval, NaN where there is none
    high: float
    what: str = ""

    @property
    def word(self) -> str:
        """`yes` or `no` where the interval excludes zero."""
        if math.isnan(self.low):
            return UNTESTED
        return YES if self.low > 0 else NO if self.high < 0 else UNDECIDED

    @property
    def cell(self) -> str:
        """The difference and its interval."""
        mean, *ends = (_number(self.metric, one) for one in (self.mean, self.low, self.high))
        return f"{mean} (no interval)" if math.isnan(self.low) else f"{mean} [{', '.join(ends)}]"

    @property
    def text(self) -> str:
        """The same with where it was found."""
        count = _replicates(self.replicates)
        metric = self.metric.removeprefix("test_").replace("_", " ")
        return (
            " ".join(filter(None, [self.experiment, self.what, metric, self.cell])) + f", {count}"
        )


def _replicates(count: int) -> str:
    return f"{count} replicate" + "s" * (count != 1)


def _number(metric: str, value: float) -> str:
    if metric == FACTOR:
        return f"{math.exp(value):.2f}"
    return f"{100 * value:+.2f}" if metric.endswith("accuracy") else f"{value:+.3f}"


def over_replicates(experiment: str, metric: str, values: Iterable[float], what: str = "") -> Found:
    """Return the mean of a value of each replicate, with Student's interval of two or more."""
    given = list(values)
    low, high = student_interval(given) if len(given) > 1 else (math.nan, math.nan)
    return Found(experiment, len(given), metric, float(np.mean(given)), low, high, what)


def answer(words: Counter[str]) -> str:
    """Return in a word or two what several verdicts say together."""
    if words[YES] and words[NO]:
        return "Now yes, now no"
    for word in (NO, YES):
        if words[word]:
            part = "" if words[word] == words.total() else " in part"
            return f"{word.capitalize()}{part}"
    for word in (TRIVIAL, UNDECIDED, UNTESTED):
        if words[word]:
            return word.capitalize()
    raise ValueError("no verdicts")


def say(found: Sequence[Found], good: str = "in favour", bad: str = "against") -> str:
    """Return the answer, how many differences say what, and the clearest of each side, if any."""
    if not found:
        return ""
    words = Counter(one.word for one in found)
    named = {NO: bad, YES: good, UNDECIDED: UNDECIDED, UNTESTED: UNTESTED}
    of_word = {word: [one for one in found if one.word == word] for word in named}
    clearest = [
        max(of, key=lambda one: abs(one.mean) / max(one.high - one.low, 1e-12)).text
        for of in (of_word[NO], of_word[YES])
        if of
    ] or [max(found, key=lambda one: abs(one.mean)).text]
    counts = _counts(words, named)
    said = "largest" if words[UNTESTED] == len(found) else "clearest"
    return f"**{answer(words)}** (of {len(found)}: {counts}; {said}: {'; '.join(clearest)})."


def _counts(words: Counter[str], named: Mapping[str, str]) -> str:
    return ", ".join(f"{words[word]} {name}" for word, name in named.items() if words[word])


# --- what is in the tables ------------------------------------------------------------------------

Results = Mapping[str, Published]


def of_summary(
    name: str, of: Published, kind: str, method: str, metric: str, what: str = ""
) -> Found | None:
    """Return one row of an experiment's summary, if it is there."""
    if (row := of.rows.get((kind, method, metric))) is None:
        return None
    low, high = float(row.low), float(row.high)
    return Found(name, int(row.replicates), metric, float(row.mean), low, high, what)


def bezier(of: Published) -> str | None:
    """Return the surface that is asked about."""
    return main_surface(surfaces(of))


def surfaces(of: Published) -> Surfaces:
    """Return the surfaces of an experiment."""
    found: Surfaces = of.environment["surfaces"]
    return found


def pairs(name: str, of: Published, method: str, metrics: Iterable[str]) -> Iterator[Found]:
    """Yield what a method differs from each that it is held against."""
    starts = f"{method} against "
    for pair in of.pairs:
        if pair.startswith(starts):
            for metric in metrics:
                if found := of_summary(name, of, "pair", pair, metric, pair):
                    yield found


def against(found: Found) -> str:
    """Return the method that another is held against."""
    return found.what.partition(" against ")[2]


def images(of: Published, method: str) -> float:
    """Return the images that training for a method took, infinite if nobody says."""
    found = of_summary("", of, "rival", method, "images_backward")
    return found.mean if found else math.inf


def matrix(
    found: Iterable[Found], label: Callable[[Found], str], first: str, *, words: bool = True
) -> str:
    """Return a table, a row for each label, a column for each experiment."""
    cells: dict[str, dict[str, str]] = {}
    for one in found:
        cell = f"{one.cell} {one.word}" if words else one.cell
        cells.setdefault(label(one), {})[one.experiment] = cell
    names = list(dict.fromkeys(name for row in cells.values() for name in row))
    body = [[of, *(row.get(name, "") for name in names)] for of, row in cells.items()]
    return markdown_table([first, *names], body)


def listing(found: Iterable[Found], head: Sequence[str] = ("difference", "verdict")) -> str:
    """Return a table with a row for each difference."""
    body = [
        [one.experiment, str(one.replicates), one.what, one.metric, one.cell, one.word]
        for one in found
    ]
    return markdown_table(["experiment", "replicates", "what", "metric", *head], body)


# --- sections -------------------------------------------------------------------------------------

Written = tuple[str, str] | None  # sentences and a table, if there is anything to tell


def claims(
    texts: Sequence[str], further: Callable[[Results], str] = lambda _: ""
) -> Callable[[Results], Written]:
    """Return what writes the section of some of the paper's claims, with further sentences."""
    order = (NO, UNDECIDED, TRIVIAL, YES)
    about = {claim.about for claim in CLAIMS if claim.text in texts}
    failing = {claim.text for claim in CLAIMS if claim.fails}

    def write(results: Results) -> Written:
        words: Counter[str] = Counter()
        body, decided, renewed = [], [], []
        for name, of in results.items():
            named = {one for kind in about for one in surfaces_of_kind(surfaces(of), kind)[:1]}
            renewed += [name] if named & changed_corners(of.summary) else []
            rows = of.summary[of.summary["kind"] == "claim"].set_index("method")
            for text in (text for text in texts if text in rows.index):
                row = rows.loc[text]
                words[row["text"]] += 1
                metric, count = row["metric"], int(row["replicates"])
                one = Found(name, count, metric, row["mean"], row["low"], row["high"])
                in_favour = favour(*row[["mean", "low", "high"]]) * (-1 if text in failing else 1)
                decided.append((order.index(row["text"]), in_favour, f"{one.text}, {row['text']}"))
                cells = [metric.replace("_", " "), one.cell, row["text"]]
                body.append([name, str(count), text, *cells])
        if not body:
            return None
        counts = _counts(words, {word: word for word in order})
        text = f"**{answer(words)}** (of {len(body)}: {counts}). Least in favour of it: "
        text += f"{min(decided)[-1]}."
        if renewed:
            text += " Re-estimated BatchNorm statistics alone, which all points have, change the "
            text += "corners, which are judged as trained, beyond noise on val or test in "
            text += f"{', '.join(renewed)}: by how much is in their tables."
        text += further(results)
        head = ["experiment", "replicates", "claim", "decided by", "difference", "holds?"]
        return text, markdown_table(head, body)

    return write


def trained_out(results: Results) -> str:
    """Return what twice the epochs give more on val than a corner has, if that was tried."""
    gains = {}
    for name, of in results.items():
        trained = _accuracy_at_the_end(of)
        if {DOUBLE, ""} <= trained.keys():  # corners may come from files
            gains[name] = 100 * (trained[DOUBLE] - trained[""])
    if not gains:
        return ""
    done = sum(gain < _A_LITTLE for gain in gains.values())
    ends = dict.fromkeys((min(gains, key=gains.__getitem__), max(gains, key=gains.__getitem__)))
    between = " to ".join(f"{gains[name]:+.1f} points in {name}" for name in ends)
    return (
        f" Twice the epochs give a corner on val from {between} (one run against the corners' "
        f"mean, without an interval), less than a point in {done} of {len(gains)}."
    )


def _accuracy_at_the_end(of: Published) -> dict[str, float]:
    """Return the mean accuracy on val after the last epoch by training, "" that of corners."""
    rows = of.tables["training"].query("stage == 'endpoint' and split == 'val'")
    last = rows.loc[rows.groupby(["replicate", "item"])["epoch"].idxmax()]
    trainings = [split_run(item)[0] or "" for item in last["item"]]
    return dict(last["accuracy"].groupby(trainings).mean())


def _weak_corners(results: Results) -> str:
    said = trained_out(results)
    more = "What is better than corners that longer training improves may not be better than those."
    return said and f"{said} {more}"


def _nearest_chosen(results: Results) -> str:
    """Return where no choice of corners from a run gains anything, so that near ones are taken."""
    gains, nearest = {}, []
    for name, of in results.items():
        for table, rows in of.tables.items():
            if not table.startswith("selection-"):
                continue
            rows = rows[rows["replicate"] == 0]
            for chosen in rows[rows["selected"].astype(bool)].itertuples():
                gains[name] = chosen.gain
                if chosen.distance <= rows["distance"].min():
                    nearest.append(name)
    none = [name for name, gain in gains.items() if not gain > 0]
    if not none:
        return ""
    near = sum(name in nearest for name in none)
    return (
        f" In {len(none)} of {len(gains)} no choice of networks from the run gains anything on val "
        f"over the best one of them; the least loss is then taken, in {near} of these between the "
        f"nearest networks that there are ({', '.join(none)}; first replicate)."
    )


def compare_corners(results: Results) -> Written:
    """As many points as corners against the corners alone."""
    found = [
        one
        for name, of in results.items()
        for metric in (_ACCURACY, _NLL)
        if (one := of_summary(name, of, "difference", f"{bezier(of)}/ensemble", metric, "points"))
    ]
    text = (
        "Are four points of the surface, picked on val, a better ensemble than only the corners? "
    )
    return (text + say(found), listing(found)) if found else None


def compare_picks(results: Results) -> Written:
    """The oracle's gap, and how sure val is of its own pick."""
    found, sure = [], []
    for name, of in results.items():
        rows = of.tables["pick"]
        rows = rows[(rows["surface"] == bezier(of)) & (rows["metric"] == "accuracy")]
        for pick, of_pick in rows.groupby("pick", sort=False):
            found.append(over_replicates(name, "accuracy", of_pick["gap"], f"{pick}"))
        repicked = over_replicates(name, "accuracy", rows["repicked"].dropna())
        sure.append(f"{name} {100 * repicked.mean:.0f} % ({_replicates(repicked.replicates)})")
    text = "Does a choice on test flatter? " + say(found, "flattering", "the other way")
    text += f" Draws of val that pick the same point again: {', '.join(sure)}."
    return (text, listing(found, ("flatters by", "verdict"))) if found else None


def compare_center(results: Results) -> Written:
    """The center, which nobody chooses, against the best corner on val."""
    found = []
    for name, of in results.items():
        described = surfaces(of).get(str(bezier(of)))
        if described is None:
            continue
        corners = described.get("origin", described["corners"])
        shown = pairs(name, of, f"{bezier(of)}/center", (_ACCURACY, _NLL))
        found += [one for one in shown if against(one) == f"{corners}/network"]
    text = "Is the center, chosen in advance, better than the best corner on val? "
    return (text + say(found) + _weak_corners(results), listing(found)) if found else None


def compare_longer(results: Results) -> Written:
    """One network of the surface against one that was trained longer than a corner."""
    found = list(against_longer(results))
    if not found:
        return None
    parts = [
        images(of, against(one)) / images(of, one.what.partition(" against ")[0])
        for one in found
        for of in [results[one.experiment]]
    ]
    text = "Is one network of the surface better than one that was trained for twice a corner's "
    span = " to ".join(dict.fromkeys(f"{of(parts):.2f}" for of in (min, max)))
    text += f"epochs, for {span} of its images? {say(found)}"
    return text, listing(found)


def against_longer(results: Results) -> Iterator[Found]:
    """Yield one network of the surface against each trained alone, for no more images."""
    for name, of in results.items():
        alone = {
            f"{one['corners']}/network"
            for one in surfaces(of).values()
            if one["kind"] == "seeds" and one["count"] == 1 and one.get("training")
        }
        for method in (f"{bezier(of)}/{one}" for one in ONE):
            cost = SLACK * images(of, method)
            for one in pairs(name, of, method, METRICS):
                if against(one) in alone and images(of, against(one)) <= cost:
                    yield one


def against_averages(results: Results) -> Iterator[Found]:
    """Yield one network of the surface against the best average of one run, for no more images.

    Best is the one of the lowest scaled nll on val: of SWA, EMA, FGE and the like.
    """
    for name, of in results.items():
        runs = {
            f"{one['corners']}/mean"
            for one in surfaces(of).values()
            if one["kind"] == "run" and one.get("training")
        }
        rival = of.tables["rival"]
        on_val = rival[(rival["split"] == "val") & rival["method"].isin(runs)]
        scaled = on_val.groupby("method", sort=False)["nll_scaled"].mean()
        for method in (f"{bezier(of)}/{one}" for one in ONE):
            cost = SLACK * images(of, method)
            paid = scaled[[images(of, one) <= cost for one in scaled.index]].dropna()
            for one in pairs(name, of, method, METRICS):
                if len(paid) and against(one) == paid.idxmin():
                    yield one


def compare_distances(results: Results) -> Written:
    """How far apart corners are."""
    found = [
        one
        for name, of in results.items()
        for surface in surfaces(of)
        for metric in ("corner_distance", "corner_disagreement")
        if (one := of_summary(name, of, "surface", surface, metric, surface))
    ]
    run = [
        one
        for one in found
        if one.metric == "corner_distance"
        and one.what in surfaces_of_kind(surfaces(results[one.experiment]), TRAJECTORY)
    ]
    near = sum(one.mean < COINCIDENT_DISTANCE for one in run)
    text = (
        f"Corners of one run are nearer than {COINCIDENT_DISTANCE} of their norm, so that low-loss "
        f"counts as trivial, in {near} of {len(run)} cases. That is near in weights: how many test "
        "images two corners take for different classes stands below (disagreement), as a fraction."
    )
    shown = matrix(found, lambda one: f"{one.what}: {one.metric[7:]}", "corners", words=False)
    return (text, shown) if run else None


def compare_kinds(results: Results) -> Written:
    """Surfaces without a fit on all kinds of corners, and their null models."""
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    lacking: dict[str, list[float]] = {"accuracy_corner_mean_own": [], "accuracy_min": []}
    cells: dict[str, dict[str, str]] = {}
    for name, of in results.items():
        plain = {k: one for k, one in surfaces(of).items() if _is_unfitted_square(one)}
        through = {one["corners"]: surface for surface, one in plain.items()}
        coincident = coincident_surfaces(of.summary.rename(columns={"mean": "value"}))
        for surface, one in plain.items():
            rows = of.summary[of.summary["method"] == f"{surface}/low-loss"]
            words = set(rows.loc[rows["kind"] == "difference", "text"])
            word = least_favourable(words)
            if word != NO and surface in coincident:
                word = TRIVIAL
            is_null = one["kind"] == "random"
            counts[is_null][word] += 1
            if is_null and (model := through.get(one.get("origin", ""))):
                for metric, lacks in lacking.items():
                    null, trained = (
                        of_summary(name, of, "surface", method, metric)
                        for method in (surface, model)
                    )
                    if null and trained:
                        lacks.append(100 * (trained.mean - null.mean))
            barrier = of_summary(name, of, "surface", surface, "barrier_nll_test")
            gap = of_summary(name, of, "surface", surface, "corner_distance")
            if barrier and gap:
                cells.setdefault(surface, {})[name] = f"{word}; {barrier.cell} at {gap.mean:.2f}"
    if not cells:
        return None
    said = {
        is_null: f"{of[YES]} of {of.total()} low-loss without a fit, {of[TRIVIAL]} trivially "
        f"(corners near in weights or predictions), {of[NO]} not, {of[UNDECIDED]} can't tell"
        for is_null, of in counts.items()
    }
    text = f"Corners that came about by training: {said[False]}. Null models, random directions of "
    text += f"the same distances, beside their own corners: {said[True]}. "
    corners, worst = lacking.values()
    if corners and worst:
        text += "Random directions weaken the corners that low-loss is judged by: they lack "
        text += f"{min(corners):.1f} to {max(corners):.1f} points of test accuracy beside the "
        text += "trained corners that they stand for, the surface's worst point "
        text += f"{min(worst):.1f} to {max(worst):.1f} beside that surface's (no intervals). "
    text += "Cells: low-loss or not; barrier on test, in nats, with its interval, at the corners' "
    text += "distance."
    body = [[of, *(row.get(name, "") for name in results)] for of, row in cells.items()]
    return text, markdown_table(["corners", *results], body)


def _is_unfitted_square(one: Described) -> bool:
    return one["shape"] == "square" and one["fit"] is None and one.get("batchnorm") is None


def compare_splits(results: Results) -> Written:
    """The barrier on train against that on test."""
    found = []
    for name, of in results.items():
        rows = of.tables["barrier"]
        rows = rows[(rows["surface"] == bezier(of)) & (rows["metric"] == "nll")]
        wide = rows.pivot_table("barrier", "replicate", "split")
        if len(wide):
            found.append(over_replicates(name, "nll", wide["train"] - wide["test"], "barrier"))
    text = "Is the barrier of the fitted surface higher on train than on test? "
    return (text + say(found, "higher", "lower"), listing(found)) if found else None


def compare_rivals(use: Sequence[str], metrics: Sequence[str]) -> Callable[[Results], Written]:
    """Return what holds methods of the surface against all rivals that cost no more."""

    def write(results: Results) -> Written:
        found = []
        for name, of in results.items():
            for method in (f"{bezier(of)}/{one}" for one in use):
                cost = SLACK * images(of, method)
                held = list(pairs(name, of, method, metrics))
                meant = rivals_of(of, method, map(against, held))
                found += [
                    one
                    for one in held
                    if against(one) in meant and images(of, against(one)) <= cost
                ]
        if not found:
            return None
        equal: list[Found] = []
        cheap: list[Found] = []
        for one in found:
            method, _, rival = one.what.partition(" against ")
            part = images(results[one.experiment], rival) / images(results[one.experiment], method)
            (equal if part >= _CHEAP else cheap).append(one)
        shown = [one for one in (*equal, *cheap) if one.metric == metrics[-1]]
        what = "Is one network" if use is ONE else "Are several networks"
        text = (
            f"{what} of the surface better than rivals that cost half as many images to as many? "
        )
        text += say(equal) if equal else "None was run."
        if cheap:
            text += f" Than those that cost less than half as many? {say(cheap)}"
        text += " What is no rival (surfaces without a fit, means of networks trained apart, one "
        text += "stop of a run), and the same networks under other names: in the tables."
        head = f"{metrics[-1].removeprefix('test_').replace('_', ' ')}, positive: better"
        return text, matrix(shown, lambda one: one.what, head)

    return write


def rivals_of(of: Published, method: str, others: Iterable[str]) -> set[str]:
    """Return what a method of a surface is to be held against, whatever comes out.

    Left out are surfaces without a fit, and with other BatchNorm statistics, which a section of
    their own compares; means and soups of networks that were trained apart, the center of such a
    surface, and the mean of one network; one of the networks that a run has kept for their mean or
    ensemble;
    aligned corners, which compute the same as those they come from, and all sets of independent
    networks but the largest, which has the others in it; and ensembles of a set, but for the
    largest and the one with as many members.
    """
    known = surfaces(of)
    sets = {
        one["origin"]: one | {"kind": one["origin_kind"]}
        for one in known.values()
        if "origin" in one
    } | {one["corners"]: one for one in known.values()}
    apart = {k: one["count"] for k, one in sets.items() if _is_trained_apart(one)}
    kept, sizes = set(), dict[str, dict[int, str]]()
    for other in (other for other in others if not is_named_twice(other, known)):
        start, _, last = other.rpartition("/")
        if last in ("network", "mean", "greedy-soup") or last.startswith("ensemble-"):  # of a set
            is_part = start in apart and apart[start] < max(apart.values())
            is_one, is_run = sets[start]["count"] == 1, sets[start]["kind"] == "run"
            is_apart = start in apart or sets[start]["kind"] == "aligned"
            is_other = last in ("mean", "greedy-soup") and (is_one or is_apart)
            if is_part or is_other or (last == "network" and is_run and not is_one):
                continue
            if last.startswith("ensemble-"):
                sizes.setdefault(start, {})[int(last.rpartition("-")[2])] = other
            else:
                kept.add(other)
        elif start in known and known[start]["fit"] and known[start].get("batchnorm") is None:
            kept.add(other)
    as_many = int(method.rpartition("-")[2]) if method.rpartition("-")[2].isdigit() else 0
    for of_set in sizes.values():
        kept |= {of_set[size] for size in of_set if size > 1 and size in (as_many, max(of_set))}
    return kept


def _is_trained_apart(one: Described) -> bool:
    return one["kind"] == "seeds" and one.get("training") is None


def compare_cost(results: Results) -> Written:
    """Images and hours of corners, fit and grid."""
    body, said = [], []
    for name, of in results.items():
        surface = bezier(of)
        cost, count = of.tables["cost"], of.environment["replicates"]
        described = surfaces(of).get(str(surface))
        if described is None:
            continue
        runs = cost["item"].str.fullmatch(r"seed\d+") & (cost["stage"] == "train_endpoint")
        trained = cost[runs].groupby("replicate").head(described["count"])
        fit = cost[(cost["item"] == surface) & (cost["stage"] == "fit_bezier_surface")]
        grid = cost[(cost["item"] == surface) & (cost["stage"] == "evaluate_grid")]
        parts = {"corners": trained, "fit": fit, "grid": grid}
        backward, forward, hours = (
            {part: rows[column].sum() / count for part, rows in parts.items()}
            for column in ("images_backward", "images_forward", "wall_s")
        )
        said.append(f"{name} {backward['fit'] / backward['corners']:.2f}")
        cells = [f"{backward['corners'] / 1e3:.0f}", f"{backward['fit'] / 1e3:.0f}"]
        cells += [f"{forward['grid'] / 1e3:.0f}", *(f"{one / 3600:.3f}" for one in hours.values())]
        body.append([name, str(count), *cells])
    if not body:
        return None
    head = ["experiment", "replicates", "corners, backward (k)", "fit, backward (k)"]
    head += ["grid, forward (k)", *(f"{part} (h)" for part in ("corners", "fit", "grid"))]
    text = f"The fit passes this part of its corners' images again: {', '.join(said)} (exact; "
    return text + "hours are of our machine, means over replicates).", markdown_table(head, body)


def compare_fits(results: Results) -> Written:
    """Images until the corners' mean and 0.1 nats, and the published procedure at equal images."""
    body, aligned = [], []
    published: dict[int, list[Found]] = {}
    for name, of in results.items():
        reached, ratios = _reached(of)
        for (line, column), found in reached.items():
            values = [value for _, value in found]
            if any(sign for sign, _ in found):
                words = sorted({f"{sign}{value / 1e3:.1f}" for sign, value in found})
                cell = ", ".join(words)
            else:
                ends = over_replicates(name, FACTOR, np.log(np.array(values) / 1e3))
                cell = ends.cell
            body.append([name, str(len(found)), line, column, cell])
        for column in ("max", "mean"):
            known = [reached.get((line, column), []) for line in ("independent", "aligned")]
            if not all(known):
                continue
            both = list(zip(*known, strict=True))
            if any(a == "<" or b == ">" for (a, _), (b, _) in both):
                continue  # even a bound of the factor is unknown
            is_bound = any(a or b for (a, _), (b, _) in both)
            what = f"{column}, independent / aligned{', at least' if is_bound else ''}"
            logs = [math.log(a / b) for (_, a), (_, b) in both]
            one = over_replicates(name, FACTOR, logs, what)
            aligned += [one] if one.word != NO or not is_bound else []  # at least: no upper bound
        for (passes, what), logs in ratios.items():
            one = over_replicates(name, FACTOR, logs, what)
            published.setdefault(passes, []).append(one)
    if not body:
        return None
    text = "Do aligned corners need fewer images until the corners' mean nll on val + 0.1 nats? "
    text += say(aligned, "fewer", "more") if aligned else "**Can't tell**: not both get there."
    costs = pd.concat(of.tables["cost"] for of in results.values())
    passed = costs.loc[costs["stage"] == "align_corners", "images_forward"].max()
    if passed > 0:
        text += f" Not counted: up to {passed:.0f} images that aligning passes forward."
    if published:
        text += (
            " Is the worst val nll of the published procedure, at its own learning rates, above "
        )
        text += "ours of no more images? "
        text += " ".join(
            f"In {passes} passes over the data: {say(found, 'above', 'below')}"
            for passes, found in sorted(published.items(), reverse=True)
        )
    head = ["experiment", "replicates", "line", "of the surface", "thousands of images"]
    return text, "\n\n".join(
        [markdown_table(head, body), listing([*aligned, *chain.from_iterable(published.values())])]
    )


_Reached = dict[tuple[str, str], list[tuple[str, float]]]


def _reached(of: Published) -> tuple[_Reached, dict[tuple[int, str], list[float]]]:
    """Return (line, column) -> images of each replicate; (passes, what) -> log ratios."""
    reached: _Reached = {}
    ratios: dict[tuple[int, str], list[float]] = {}
    fits, described = of.environment["settings"]["fits"], surfaces(of)
    barrier, cost = of.tables["barrier"], of.tables["cost"]

    def line(surface: str) -> str:
        """Surfaces of one line have the same corners, and fits that differ in epochs alone."""
        one = described[surface]
        fit = {key: value for key, value in fits[one["fit"]].items() if key != "epochs"}
        return json.dumps([one["corners"], one["shape"], one.get("degree"), fit], sort_keys=True)

    for replicate in sorted(barrier["replicate"].unique()):
        of_both = [table[table["replicate"] == replicate] for table in (barrier, cost)]
        rows = fit_rows(of_both[0], of_both[1], described)
        rows = rows.assign(family=rows["surface"].map(line)).sort_values("images", kind="stable")
        fit = rows["surface"].map(lambda surface: fits[described[surface]["fit"]])
        is_ours = fit.map(lambda one: one["repeats"] == 1)
        for _, family in rows[is_ours].groupby("family", sort=False):
            if len(family) > 1:
                corners = described[family["surface"].iloc[0]]["corners"]
                for column in ("max", "mean"):
                    found = images_reached(family, column)
                    reached.setdefault((corners, column), []).append(found)
        corners = rows["surface"].map(lambda surface: described[surface]["corners"])
        for theirs in rows[~is_ours].itertuples():
            before = rows[is_ours & (rows["images"] <= theirs.images)]
            for kind, ours in before.groupby(corners, sort=False):
                log = math.log(theirs.max / ours["max"].iloc[-1])
                passes = fit_passes(fits[described[theirs.surface]["fit"]])
                what = f"{theirs.surface} / ours, {kind}"
                ratios.setdefault((passes, what), []).append(log)
    return reached, ratios


def compare_untrained(results: Results) -> Written:
    """The same fit on corners that nobody trained."""
    found, factors = [], []
    for name, of in results.items():
        nobodys = [k for k, one in surfaces(of).items() if one["kind"] == "untrained"]
        main, *others = (
            of_summary(name, of, "surface", str(surface), "images_backward")
            for surface in (bezier(of), *nobodys)
        )
        factors += [main.mean / other.mean for other in others if main and other]
        for method in (*ONE, SEVERAL[0]):
            shown = pairs(name, of, f"{bezier(of)}/{method}", (_ACCURACY, _NLL))
            found += [one for one in shown if against(one).rpartition("/")[0] in nobodys]
    if not found:
        return None
    text = "Is the surface on trained corners better than the same fit on untrained ones"
    if factors:
        span = " to ".join(dict.fromkeys(f"{of(factors):.1f}" for of in (min, max)))
        text += f", for {span} times the images of these"
    return f"{text}? {say(found)}", listing(found)


def compare_certificates(results: Results) -> Written:
    """What at most a part of the surface is worse than."""
    body, said = [], []
    for name, of in results.items():
        names = [f"certificate_{metric}" for metric in ("nll", "error", "fraction")]
        known = [of_summary(name, of, "surface", f"{bezier(of)}", metric) for metric in names]
        nll, error, part = known
        if nll is None or error is None or part is None:
            continue
        rows = of.tables["barrier"]
        rows = rows[(rows["surface"] == bezier(of)) & (rows["split"] == "val")]
        level = rows.loc[rows["metric"] == "nll", "corner_mean_own"].mean()
        cell = f"{100 * part.mean:.2g} %"
        bounds = [f"{nll.mean:.3f}", f"{100 * error.mean:.1f} %"]
        said.append(f"{name}: {cell} above {bounds[0]} nats, corners {level:.3f}")
        body.append([name, str(nll.replicates), cell, *bounds, f"{level:.3f}"])
    if not body:
        return None
    head = ["experiment", "replicates", "at most", "have val nll above", "have val error above"]
    text = (
        "With 95 % confidence, as random points say, at most this part of the surface is worse, in "
        "each replicate (the largest of their bounds): "
    )
    return text + "; ".join(said) + ".", markdown_table([*head, "corners' mean val nll"], body)


def compare_ablations(results: Results) -> Written:
    """The fit against fits in which one thing is otherwise."""
    found = [
        one
        for name, of in results.items()
        for method in ("center", "all")
        for one in pairs(name, of, f"{bezier(of)}/{method}", (_NLL,))
        if against(one).rpartition("/")[0] in surfaces(of)
        and surfaces(of)[against(one).rpartition("/")[0]]["fit"] is not None
    ]
    text = "Is the fit better than those in which one thing is otherwise? "
    table = matrix(found, lambda one: one.what, "nll, positive: better as it is")
    return (text + say(found, "better", "worse"), table) if found else None


def compare_scratch(results: Results) -> Written:
    """Surfaces from scratch against one network for the same images; with and without cosine."""
    alone, cosine = [], []
    for name, of in results.items():
        free = [k for k, one in surfaces(of).items() if one["kind"] == "free"]
        for surface in free:
            for method in (*ONE, SEVERAL[0]):
                for one in pairs(name, of, f"{surface}/{method}", (_ACCURACY, _NLL)):
                    is_alone = against(one).endswith("/ensemble-1")
                    cost = SLACK * images(of, against(one))
                    if is_alone and images(of, f"{surface}/{method}") <= cost:
                        alone.append(one)
                    elif not is_alone and _has_cosine(of, surface):
                        cosine.append(one)
    if not alone:
        return None
    text = "Is a surface from scratch better than one network trained for as many images? "
    text += say(alone)
    if cosine:
        text += f" Is it better with the cosine regularizer than without? {say(cosine)}"
    shown = [one for one in (*alone, *cosine) if one.metric == _NLL]
    return text, matrix(shown, lambda one: one.what, "nll, positive: better")


def _has_cosine(of: Published, surface: str) -> bool:
    fit = of.environment["settings"]["fits"][surfaces(of)[surface]["fit"]]
    return float(fit["cosine"]) > 0


def compare_barriers(results: Results) -> Written:
    """The barrier of the linear surface in parts."""
    found = [
        one
        for name, of in results.items()
        for surface, described in surfaces(of).items()
        if described["shape"] in ("square", "star") and described["kind"] in ("seeds", "aligned")
        if (one := of_summary(name, of, "surface", surface, "barrier_nll_test", surface))
    ]
    text = "Barriers on test in nats: with interpolated BatchNorm statistics or none reset, with "
    text += "statistics of their own, with aligned corners, and after a fit; of a star along the "
    text += "lines from the corners to its one trained center. "
    text += f"Above zero (positive) or not: {say(found, 'above', 'below')}"
    return (text, matrix(found, lambda one: one.what, "surface")) if found else None


class Section(NamedTuple):
    """A question, the group of experiments that answers it, and what writes the answer."""

    title: str
    group: str | None
    write: Callable[[Results], Written]
    figure: str


_TEXTS = [claim.text for claim in CLAIMS]
SECTIONS = (
    Section("Claim 1: the linear surface fails", None, claims(_TEXTS[:1]), "surfaces.png"),
    Section("Claim 2: an optimized surface is low-loss", None, claims(_TEXTS[1:2]), "surfaces.png"),
    Section("Claim 3: selected corners need no fit", None, claims(_TEXTS[2:3], _nearest_chosen),
        "surfaces.png"),
    Section("Claim 4: good merges and ensembles", None, claims(_TEXTS[3:], _weak_corners),
        "differences.png"),
    Section("Only the corners as the baseline", None, compare_corners, "ensembles.png"),
    Section("A point chosen without test", None, compare_picks, "merges.png"),
    Section("The center", None, compare_center, "merges.png"),
    Section("One network trained for longer", None, compare_longer, "rivals.png"),
    Section("Distances between corners", None, compare_distances, "geometry.png"),
    Section("Other epochs and trajectories, null models", "corners", compare_kinds, "careful.png"),
    Section("Train against test loss", None, compare_splits, "profiles.png"),
    Section("Other ways to one network", "rivals", compare_rivals(ONE, (_NLL, _SCALED, _ACCURACY)),
        "rivals.png"),
    Section("Other ensembles", "rivals", compare_rivals(SEVERAL[::3], METRICS),
        "rivals.png"),
    Section("Cost", None, compare_cost, "rivals.png"),
    Section("How many images a fit takes", "fits", compare_fits, "convergence.png"),
    Section("What a surface owes its corners", "corners", compare_untrained, "careful.png"),
    Section("What is certain of the whole surface", None, compare_certificates, "surfaces.png"),
    Section("Surfaces from scratch", "rivals", compare_scratch, "rivals.png"),
    Section("Ablations of the fit", "ablations", compare_ablations, "convergence.png"),
    Section("The linear surface's barrier in parts", "rivals", compare_barriers, "barriers.png"),
)  # fmt: skip


def render_findings(published: Results, targets: Targets) -> str:
    """Return the page."""
    names = [*targets.experiments, *published]
    ordered = {name: published[name] for name in dict.fromkeys(names) if name in published}
    of_group: dict[str | None, dict[str, Published]] = {}
    for name, of in ordered.items():
        of_group.setdefault(group_of(name), {})[name] = of
    blocks = [
        "# Findings",
        _first_line(of_group.get("rivals", {}), of_group.get(None, {}), targets),
        "Written by `python docs/publish.py` from the tables of "
        "[docs/results](results/README.md); no number is typed by hand. Differences are on test "
        "and positive in favour of what the question asks about, accuracy in points, nll in nats. "
        "In brackets the 95 % interval: of methods held against each other by the paired bootstrap "
        "over images and replicates, of several replicates the hull of that and Student's t over "
        "their differences; else Student's t over the replicates. *Yes* and *no*: it "
        "excludes zero. Many are shown and none is corrected for that: of 40 without any effect "
        "one comes out as yes and one as no. Scaled nll: at the temperature fitted on val, which "
        "few val images leave uncertain: on test it may raise the nll, which stands beside it.",
    ]
    written = {
        section.title: [*_section(section, of_group.get(section.group, {}), targets)]
        for section in SECTIONS
    }
    blocks.append(_contents(written))
    for title, of_section in written.items():
        blocks += [f"## {title}", *of_section]
    return "\n\n".join(blocks) + "\n"


def _contents(written: Mapping[str, Sequence[str]]) -> str:
    """Return a table of the sections with the first answer that each gives, if it does."""
    rows = []
    for title, blocks in written.items():
        anchor = re.sub(r"[^\w-]", "", title.lower().replace(" ", "-"))
        found = _ANSWER.search(blocks[0])
        rows.append([f"[{title}](#{anchor})", *(found.groups() if found else [""] * 3)])
    return markdown_table(["section", "its first answer", "of", "of these"], rows)


def _section(section: Section, results: Results, targets: Targets) -> Iterator[str]:
    if (written := section.write(results)) is None:
        yield f"Not run yet: {_command(section.group, targets)}."
        return
    yield from written
    told = set(re.findall(r"[\w-]+", " ".join(written)))  # not every experiment has what is asked
    figures = [
        f"[{name}](results/{name}/{section.figure})"
        for name, of in results.items()
        if name in told and section.figure in of.figures
    ]
    tables = [f"[{name}](results/{name}/tables.md)" for name in results if name in told]
    shown = f"Figures: {', '.join(figures)}. " if figures else ""
    yield f"{shown}Tables: {', '.join(tables)}."


def _command(group: str | None, targets: Targets) -> str:
    """Return the command that runs the experiments of a group."""
    names = [name for name in targets.experiments if group_of(name) == group]
    names = names if group else targets.params["run"]
    return f"`snakemake --cores 2 --config 'run=[{','.join(names)}]' replicates=5`"


def _first_line(rivals: Results, others: Results, targets: Targets) -> str:
    """Return the answer at equal cost, or less: to one network, and to a deep ensemble."""
    several = [
        one
        for name, of in rivals.items()
        for method in SEVERAL
        for one in pairs(name, of, f"{bezier(of)}/{method}", METRICS)
        if against(one) == _deep_ensemble(surfaces(of))
    ]
    held = {
        "one network trained as long": list(against_longer(rivals)),
        "the average of one run as long that is best on val": list(against_averages(rivals)),
        "one network trained for twice a corner's epochs, for fewer images": list(
            against_longer(others)
        ),
        "a deep ensemble of independent networks": several,
    }
    question = "**Is the surface worth it at equal cost?**"
    if not any(held.values()):
        return f"{question} Not run yet: {_command('rivals', targets)}."
    said = [f"Against {what}: {say(of, 'better', 'worse')}" for what, of in held.items() if of]
    words = Counter(one.word for of in held.values() for one in of)
    return f"{question} **{answer(words)}.** {' '.join(said)}"


def _deep_ensemble(of: Surfaces) -> str:
    """Return the ensemble of the largest set of independent networks."""
    sets = {one["corners"]: one["count"] for one in of.values() if _is_trained_apart(one)}
    largest = max(sets, key=sets.__getitem__, default="")
    return f"{largest}/ensemble-{sets.get(largest, 0)}"
