"""How long a run will take: laws, on made-up jobs and histories."""

from dataclasses import replace

import numpy as np
import pytest

from fourfold.pipeline.display import Run
from fourfold.pipeline.estimate import (
    History,
    Job,
    Plan,
    at_pace_of,
    expected_seconds,
    makespan,
    rest_of,
)

RULES = {"train_endpoint": 3e-9, "fit_bezier_surface": 2e-9, "evaluate_grid": 1e-9}  # s per FLOP


def nine_experiments():
    """Return the jobs of nine experiments, each larger than the one before, and their seconds."""
    jobs, seconds = {}, {}
    for k in range(9):
        corners, flop = [], 1e12 * (k + 1)
        for rule, count in {
            "train_endpoint": 4,
            "fit_bezier_surface": 1,
            "evaluate_grid": 2,
        }.items():
            after = frozenset(corners) if rule != "train_endpoint" else frozenset()
            for name in range(count):
                jobs[len(jobs)] = Job(rule, f"e{k}/0 {name}", f"e{k}", flop, {"_cores": 1}, after)
                corners += [len(jobs) - 1] if rule == "train_endpoint" else []
                seconds[len(jobs) - 1] = RULES[rule] * flop
    return jobs, seconds


@pytest.mark.parametrize("cores", [1, 2, 7])
def test_after_one_experiment_the_time_left_of_nine_is_right(cores):
    jobs, seconds = nine_experiments()
    limits = {"_cores": cores}
    first = [i for i, job in jobs.items() if job.kind == "e0"]
    run = Run(Plan(jobs, limits, History()), now=0.0)
    assert run.seconds_left(0.0) is None, "nothing like it has run"
    now = 0.0
    for i in first:
        run.start(i, None, now)
        now += seconds[i]
        run.finish(i, now)
    rest = {i: job for i, job in jobs.items() if i not in first}
    left = makespan(rest, {i: seconds[i] for i in rest}, (), limits)
    assert run.seconds_left(now) == pytest.approx(left, rel=1e-9)
    longest = 9e12 * (RULES["train_endpoint"] + RULES["fit_bezier_surface"])
    assert max(sum(seconds[i] for i in rest) / cores, longest) <= left * (1 + 1e-9)
    if cores == 1:
        assert left == pytest.approx(sum(seconds[i] for i in rest))
    # A third of a job later a third of its time is gone, and it's the only one that runs.
    i = next(iter(rest))
    run.start(i, None, now)
    alone = {j: job for j, job in rest.items() if j == i or job.after}
    for j in rest.keys() - alone.keys():
        run.fail(j)
    later = now + seconds[i] / 3
    before = run.seconds_left(now)
    assert run.seconds_left(later) == pytest.approx(before - seconds[i] / 3)


@pytest.mark.parametrize("seed", range(20))
def test_a_run_takes_no_longer_than_one_core_and_no_shorter_than_its_longest_chain(seed):
    draw = np.random.default_rng(seed)
    jobs, seconds, chain = {}, {}, {}
    for i in range(40):
        before = [int(j) for j in draw.choice(i, size=min(i, draw.integers(3)), replace=False)]
        jobs[i] = Job("any", str(i), "", needs={"_cores": 1}, after=frozenset(before))
        seconds[i] = float(draw.exponential())
        chain[i] = seconds[i] + max((chain[j] for j in before), default=0.0)
    total, longest = sum(seconds.values()), max(chain.values())
    assert makespan(jobs, seconds, (), {"_cores": 1}) == pytest.approx(total)
    assert makespan(jobs, seconds, (), {"_cores": 40}) == pytest.approx(longest)
    for cores in (2, 3, 5):  # Graham's bound, of any schedule that leaves no core idle
        took = makespan(jobs, seconds, (), {"_cores": cores})
        assert max(longest, total / cores) - 1e-9 <= took
        assert took <= total / cores + longest * (1 - 1 / cores) + 1e-9


def test_a_scarce_resource_keeps_jobs_apart_and_one_that_needs_more_than_there_is_runs_alone():
    jobs = {i: Job("any", str(i), "", needs={"_cores": 1, "gpu": 1}) for i in range(4)}
    seconds = dict.fromkeys(jobs, 10.0)
    assert makespan(jobs, seconds, (), {"_cores": 4}) == 10
    assert makespan(jobs, seconds, (), {"_cores": 4, "gpu": 2}) == 20
    jobs[0] = replace(jobs[0], needs={"_cores": 64})
    assert makespan(jobs, seconds, [0], {"_cores": 4}) == 20


def test_the_most_alike_jobs_say_how_long_one_takes_and_of_these_the_ones_of_this_run():
    job = Job("fit", "b", "large", flop=8.0)
    same, rule = replace(job, name="a", flop=4.0), replace(job, kind="small", flop=1.0)
    other, plot = replace(job, rule="train", flop=2.0), Job("plot", "", "large")

    def expected(job, *histories):
        return expected_seconds(job, [History(took) for took in histories])

    assert expected(job, [(plot, 1.0)]) is None
    assert expected(plot, [(job, 1.0)]) == 10.0
    earlier = [(same, 40.0), (rule, 500.0), (other, 900.0), (plot, 3.0)]
    assert expected(job, [], earlier) == 80.0  # per FLOP, of the same experiment
    assert expected(job, [(same, 10.0), (rule, 1.0)], earlier) == 20.0
    assert expected(job, [(rule, 7.0)], earlier[1:]) == 56.0
    assert expected(job, [(other, 5.0)]) == 20.0
    assert expected(plot, [], [*earlier, (replace(plot, kind="small"), 9.0)]) == 3.0


def test_a_machine_twice_as_slow_as_earlier_doubles_what_earlier_jobs_let_expect():
    jobs = [Job("train", str(i), "e", flop=1e9) for i in range(100)]
    earlier = [(Job("train", "0", "e", flop=1e9), 60.0), (Job("fit", "0", "e", flop=1e9), 90.0)]

    def now(done):
        return [seconds for _, seconds in at_pace_of(History(done), History(earlier)).took]

    assert now([]) == [60, 90]
    train, fit = now([(job, 120.0) for job in jobs])
    assert (train, fit) == pytest.approx((120, 180), rel=0.01)
    assert 60 < now([(jobs[0], 120.0)])[0] < 100, "one short job that took long says little"


def test_a_job_that_is_overdue_is_never_expected_to_end_at_once():
    assert rest_of(100, 30) == 70
    assert [rest_of(100, elapsed) for elapsed in (100, 1000)] == [10, 100]


def test_what_a_failed_job_keeps_from_running_takes_no_time():
    jobs = {0: Job("a", "", ""), 1: Job("b", "", "", after=frozenset({0}))}
    jobs[2] = Job("c", "", "", after=frozenset({1}))
    earlier = [(job, 100.0) for job in jobs.values()]
    run = Run(Plan(jobs, {}, History(earlier)), now=0.0)
    assert run.seconds_left(0.0) == 300
    run.start(0, None, 0.0)
    run.fail(0)
    assert run.seconds_left(0.0) == 0
    run.start(0, None, 0.0)  # once more, as a cluster does
    assert run.seconds_left(50.0) == 250
