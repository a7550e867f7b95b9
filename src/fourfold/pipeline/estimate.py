"""How long a run will take, from how long jobs took. No torch."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_SHORT_S = 10.0  # of a job that runs no network and whose like has not been seen: Python starts
_OVERDUE = 0.1  # share of its time so far that a job still takes which took longer than expected
_TRUSTED_S = (
    60.0  # of jobs as fast as before, counted beside those of this run: one job says little
)


@dataclass(frozen=True)
class Job:
    """A job of a run.

    Attributes:
        rule: its rule.
        name: what tells it from other jobs of the rule.
        kind: experiment or data set; jobs of one rule and kind are the most alike.
        flop: predicted floating-point operations, 0 where they aren't what takes the time.
        needs: resource -> how much of it the job holds while it runs.
        after: ids of jobs of the run that must be done before.
        priority: of jobs that could start, those with the highest do.
    """

    rule: str
    name: str
    kind: str
    flop: float = 0.0
    needs: Mapping[str, int] = field(default_factory=dict)
    after: frozenset[int] = frozenset()
    priority: int = 0

    def __str__(self) -> str:
        """Return what to call it."""
        return f"{self.rule} {self.name}".rstrip()


Took = tuple[Job, float]  # a job, and the seconds it took


class History:
    """What jobs took that are done, summed over those that are alike."""

    def __init__(self, took: Iterable[Took] = ()) -> None:
        """Sum up."""
        self.took = list(took)
        self.sums: dict[tuple[str, ...], tuple[float, float, int]] = {}
        for job, seconds in self.took:
            for like in _likes(job):
                flop, total, count = self.sums.get(like, (0.0, 0.0, 0))
                self.sums[like] = flop + job.flop, total + seconds, count + 1


def _likes(job: Job) -> list[tuple[str, ...]]:
    """Return the kinds of jobs that a job is of, the narrowest first."""
    return [(job.rule, job.kind), (job.rule,), *([()] if job.flop else [])]


@dataclass(frozen=True)
class Plan:
    """A run before its first job.

    Attributes:
        jobs: id -> job, of all that it will do.
        limits: resource -> how much of it jobs may hold at a time.
        earlier: jobs that were done before the run.
    """

    jobs: Mapping[int, Job]
    limits: Mapping[str, int]
    earlier: History


def expected_seconds(job: Job, histories: Sequence[History]) -> float | None:
    """Return how long a job will take: as long as its like did, per FLOP where those are known.

    Jobs of the same rule and experiment say it; if there are none those of the same rule; if there
    are none any that ran networks. Of these the first history counts that has some.

    Args:
        job: the job.
        histories: jobs that are done; the most trusted history first.

    Returns:
        Seconds; None for a job that runs networks while no job is known that did.
    """
    for like in _likes(job):
        for history in histories:
            flop, seconds, count = history.sums.get(like, (0.0, 0.0, 0))
            if count:
                return job.flop * seconds / flop if job.flop and flop else seconds / count
    return None if job.flop else _SHORT_S


def at_pace_of(done: History, earlier: History) -> History:
    """Return an earlier history as if the machine had been as fast, and as busy, as it is now.

    Args:
        done: jobs of this run.
        earlier: jobs of earlier runs, perhaps on another machine.
    """
    known = [
        (expected_seconds(job, [earlier]) or 0.0, seconds)
        for job, seconds in done.took
        if (job.rule,) in earlier.sums
    ]
    then, now = (
        _TRUSTED_S + sum(part) for part in (zip(*known, strict=True) if known else [(), ()])
    )
    return History((job, now / then * seconds) for job, seconds in earlier.took)


def rest_of(expected: float, elapsed: float) -> float:
    """Return how many seconds more a running job will take; one that is overdue never has none."""
    return max(expected - elapsed, _OVERDUE * elapsed)


def makespan(
    jobs: Mapping[int, Job],
    seconds: Mapping[int, float],
    running: Iterable[int],
    limits: Mapping[str, int],
) -> float:
    """Return when the last job ends if each that can start does, in the order of their priorities.

    Args:
        jobs: id -> job, of those that are not done.
        seconds: id -> how long each takes, or still takes.
        running: ids of those that run already.
        limits: resource -> how much of it jobs may hold at a time; others are not scarce.

    Returns:
        Seconds from now. Jobs that wait for one that isn't among `jobs` count it as done.
    """
    free = dict(limits)
    needs = {i: {k: min(job.needs.get(k, 0), limits[k]) for k in limits} for i, job in jobs.items()}
    waits = {i: len(job.after & jobs.keys()) for i, job in jobs.items()}
    next_ones: dict[int, list[int]] = {i: [] for i in jobs}
    for i, job in jobs.items():
        for before in job.after & jobs.keys():
            next_ones[before].append(i)
    ends: list[tuple[float, int]] = []
    now = 0.0

    def start(i: int) -> None:
        for k, need in needs[i].items():
            free[k] -= need
        heapq.heappush(ends, (now + seconds[i], i))

    for i in (already := set(running)):
        start(i)
    ready = [i for i, count in waits.items() if not count and i not in already]
    while ready or ends:
        for i in sorted(ready, key=lambda i: -jobs[i].priority):
            if all(free[k] >= need for k, need in needs[i].items()):
                ready.remove(i)
                start(i)
        now, ended = heapq.heappop(ends)
        for k, need in needs[ended].items():
            free[k] += need
        for i in next_ones[ended]:
            waits[i] -= 1
            if not waits[i] and i not in already:
                ready.append(i)
    return now
