"""The paper's claims, and how they come out: `yes`, `no`, `trivial` or `can't tell`."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from fourfold.combination.baselines import Described, Surfaces
from fourfold.evaluation.bootstrap import interval_over_replicates

YES, NO, TRIVIAL, UNDECIDED = "yes", "no", "trivial", "can't tell"

# So, and with its name, ends a claim on a surface that isn't the first of its kind.
NAMED = " (surface "

# How the corners of a surface came about, whether it was fitted, and its shape: what claims are
# about. The paper has squares alone.
About = tuple[str, bool, str]
LINEAR, BEZIER = ("seeds", False, "square"), ("seeds", True, "square")
TRAJECTORY = ("run", False, "square")


@dataclass(frozen=True)
class Claim:
    """A sentence, and the comparisons of a surface with its corners that decide it."""

    text: str  # about the first surface of its kind
    about: About  # kind of the corners, whether the surface is fitted, and its shape
    comparison: str  # of the `difference` table
    metrics: tuple[str, ...] = ("accuracy", "nll")  # several must hold together
    # Whether the sentence says that the comparison does not come out in favour of the surface.
    # Others stand beside a control, for which they should not hold.
    fails: bool = False

    def texts(self, surfaces: Surfaces) -> dict[str, str]:
        """Return the sentence about each surface of its kind: surface -> text."""
        names = surfaces_of_kind(surfaces, self.about)
        return {name: self.text + (f"{NAMED}{name})" if name != names[0] else "") for name in names}


CLAIMS = (
    Claim("linear surface fails", LINEAR, "low-loss", fails=True),
    Claim("Bezier surface is low-loss everywhere", BEZIER, "low-loss"),
    Claim("trajectory surface is low-loss without training", TRAJECTORY, "low-loss"),
    Claim(
        "merge: Bezier point picked on val is more accurate than the best corner",
        *(BEZIER, "merge", ("accuracy",)),
    ),
    Claim(
        "merge: Bezier point picked on val has lower nll than the best corner",
        *(BEZIER, "merge", ("nll",)),
    ),
    Claim(
        "ensemble: four Bezier points picked on val are more accurate than the four corners",
        *(BEZIER, "ensemble", ("accuracy",)),
    ),
    Claim(
        "ensemble: four Bezier points picked on val have lower nll than the four corners",
        *(BEZIER, "ensemble", ("nll",)),
    ),
)


def surfaces_of_kind(surfaces: Surfaces, about: About) -> list[str]:
    """Return the surfaces of a shape whose corners came about in one way, fitted ones or not.

    A fit on aligned corners, which are the same networks with their units in another order, is one
    on the networks themselves. Without a fit, and with statistics of its own, a surface through
    them is another thing.
    """

    def kind(one: Described) -> str:
        is_same = one["kind"] == "aligned" and one["fit"] is not None
        return one.get("origin_kind", one["kind"]) if is_same else one["kind"]

    return [
        name
        for name, one in surfaces.items()
        if (kind(one), one["fit"] is not None, one["shape"]) == about
        and one.get("batchnorm") is None
    ]


def control_surface(surfaces: Surfaces) -> str | None:
    """Return the surface whose success says that another's is none: the first linear square."""
    return next(iter(surfaces_of_kind(surfaces, LINEAR)), None)


def in_claim_order(texts: Iterable[str]) -> list[str]:
    """Return the distinct texts of claims by claim, those of one claim as they first occur."""
    known = [claim.text for claim in CLAIMS]
    return sorted(dict.fromkeys(texts), key=lambda text: known.index(text.partition(NAMED)[0]))


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
    """How a claim came out for one surface."""

    text: str  # of the claim
    surface: str  # the one that it is about, or the control in its place
    is_control: bool  # which of them
    word: str  # `yes`, `no`, `trivial` or `can't tell`
    decided_by: Comparison  # the one that is least in favour of the surface


def compare(
    differences: pd.DataFrame, of: tuple[str, str] = ("surface", "comparison")
) -> dict[tuple[str, str], list[Comparison]]:
    """Return (surface, comparison) -> differences over all replicates of one experiment.

    Args:
        differences: rows of the `difference` table, or of another one like it.
        of: the two columns that say what is compared.
    """
    found: dict[tuple[str, str], list[Comparison]] = {}
    keys = [*of, "split", "metric"]
    for (surface, comparison, split, metric), rows in differences.groupby(keys, sort=False):
        low, high = interval_over_replicates(rows["difference"].tolist(), rows["draws"].tolist())
        one = Comparison(split, metric, float(rows["difference"].mean(skipna=False)), low, high)
        found.setdefault((surface, comparison), []).append(one)
    return found


def judge(
    compared: Mapping[tuple[str, str], list[Comparison]],
    coincident: Iterable[str],
    surfaces: Surfaces,
) -> Iterator[Verdict]:
    """Yield the verdict of every claim on each surface, and after it that of its control.

    A claim whose surface is not there is left out. That `coincident` surfaces, whose corners nearly
    coincide, have a low loss is trivial.
    """
    coincident, control = set(coincident), control_surface(surfaces)
    for claim in CLAIMS:
        controls = [] if claim.fails or control is None else [control]
        for about, text in claim.texts(surfaces).items():
            for surface in (about, *controls):
                found = compared.get((surface, claim.comparison), [])
                comparisons = [one for one in found if one.metric in claim.metrics]
                if not comparisons:
                    break  # without the surface itself there is nothing to control
                is_trivial = claim.comparison == "low-loss" and surface in coincident
                word, worst = _decide(claim, comparisons, is_trivial)
                yield Verdict(text, surface, surface != about, word, worst)


def least_favourable(words: Collection[str]) -> str:
    """Return what several verdicts say together: `can't tell` if there are none."""
    return next((word for word in (NO, UNDECIDED, YES) if word in words), UNDECIDED)


def favour(difference: float, low: float, high: float) -> float:
    """Return how far a difference, with its interval, is in favour of what it is about.

    In widths of the interval, which make accuracy and nll comparable; least, if any is NaN.
    """
    if any(map(math.isnan, (difference, low, high))):
        return -math.inf
    return difference / max(high - low, 1e-12)


def _decide(
    claim: Claim, comparisons: list[Comparison], is_trivial: bool
) -> tuple[str, Comparison]:
    words = {one.verdict for one in comparisons}
    word = decisive = least_favourable(words)
    if claim.fails:
        word = {YES: NO, NO: YES, UNDECIDED: UNDECIDED}[word]
    elif is_trivial and word != NO:
        word = TRIVIAL
    worst = min(
        (one for one in comparisons if one.verdict == decisive),
        key=lambda one: favour(one.difference, one.low, one.high),
    )
    return word, worst
