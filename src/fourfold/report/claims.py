"""The paper's claims, and how they come out: `yes`, `no`, `trivial` or `can't tell`."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from fourfold.evaluation.bootstrap import interval_over_replicates

YES, NO, TRIVIAL, UNDECIDED = "yes", "no", "trivial", "can't tell"


@dataclass(frozen=True)
class Claim:
    """A sentence, and the comparisons of one surface with its corners that decide it.

    Attributes:
        text: the sentence.
        surface: that it is about.
        comparison: a `comparison` of the `difference` table.
        metrics: of the comparison; several must hold together.
        fails: the sentence says that the comparison does not come out in favour of the surface.
        control: a surface for which the sentence should not hold; where it does, it says little.
    """

    text: str
    surface: str
    comparison: str
    metrics: tuple[str, ...] = ("accuracy", "nll")
    fails: bool = False
    control: str | None = "linear"


CLAIMS = (
    Claim("linear surface fails", "linear", "low-loss", fails=True, control=None),
    Claim("Bezier surface is low-loss everywhere", "bezier", "low-loss"),
    Claim("trajectory surface is low-loss without training", "trajectory", "low-loss"),
    Claim(
        "merge: Bezier point picked on val is more accurate than the best corner",
        *("bezier", "merge", ("accuracy",)),
    ),
    Claim(
        "merge: Bezier point picked on val has lower nll than the best corner",
        *("bezier", "merge", ("nll",)),
    ),
    Claim(
        "ensemble: four Bezier points picked on val are more accurate than the four corners",
        *("bezier", "ensemble", ("accuracy",)),
    ),
    Claim(
        "ensemble: four Bezier points picked on val have lower nll than the four corners",
        *("bezier", "ensemble", ("nll",)),
    ),
)


@dataclass(frozen=True)
class Comparison:
    """One difference over all replicates, positive in favour of the surface."""

    split: str
    metric: str
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`yes` or `no` where the interval excludes zero."""
        if self.low > 0:
            return YES
        return NO if self.high < 0 else UNDECIDED


@dataclass(frozen=True)
class Verdict:
    """How a claim came out for one surface.

    Attributes:
        claim: the claim.
        surface: its own surface, or the control.
        word: `yes`, `no`, `trivial` or `can't tell`.
        decided_by: the comparison that is least in favour of the surface.
    """

    claim: Claim
    surface: str
    word: str
    decided_by: Comparison


def compare(differences: pd.DataFrame) -> dict[tuple[str, str], list[Comparison]]:
    """Return (surface, comparison) -> differences over all replicates of one experiment.

    Args:
        differences: the `difference` tables of the replicates.
    """
    found: dict[tuple[str, str], list[Comparison]] = {}
    keys = ["surface", "comparison", "split", "metric"]
    for (surface, comparison, split, metric), rows in differences.groupby(keys, sort=False):
        low, high = interval_over_replicates(rows["difference"].tolist(), rows["draws"].tolist())
        one = Comparison(split, metric, float(rows["difference"].mean()), low, high)
        found.setdefault((surface, comparison), []).append(one)
    return found


def judge(
    compared: Mapping[tuple[str, str], list[Comparison]], coincident: Iterable[str]
) -> Iterator[Verdict]:
    """Yield the verdict of every claim whose surface is there, and after it that of its control.

    Args:
        compared: what `compare` returned.
        coincident: surfaces whose corners nearly coincide: that they have a low loss is trivial.
    """
    coincident = set(coincident)
    for claim in CLAIMS:
        for surface in (claim.surface, claim.control):
            found = [] if surface is None else compared.get((surface, claim.comparison), [])
            comparisons = [one for one in found if one.metric in claim.metrics]
            if not comparisons:
                break  # without the surface itself there is nothing to control
            is_trivial = claim.comparison == "low-loss" and surface in coincident
            yield _judge_one(claim, surface, comparisons, is_trivial)


def _judge_one(
    claim: Claim, surface: str, comparisons: list[Comparison], is_trivial: bool
) -> Verdict:
    words = [one.verdict for one in comparisons]
    decisive = NO if NO in words else UNDECIDED if UNDECIDED in words else YES
    word = decisive
    if claim.fails:
        word = {YES: NO, NO: YES, UNDECIDED: UNDECIDED}[word]
    elif is_trivial and word != NO:
        word = TRIVIAL
    # Differences of accuracy and of nll have different units; their widths make them comparable.
    worst = min(
        (one for one in comparisons if one.verdict == decisive),
        key=lambda one: one.difference / max(one.high - one.low, 1e-12),
    )
    return Verdict(claim, surface, word, worst)
