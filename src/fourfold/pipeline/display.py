"""What a run shows of itself: one live picture in a terminal, lines elsewhere. No torch."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fourfold.pipeline.estimate import (
    History,
    Job,
    Plan,
    Took,
    at_pace_of,
    expected_seconds,
    makespan,
    rest_of,
)
from fourfold.pipeline.progress import Report, last_report

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_STATES = 60.0  # where there is no terminal
_QUEUED_AFTER_S = 5.0  # without a log: a job's shell opens it at once
_MOST_LINES = 12  # of running jobs


@dataclass
class Running:
    """A job that was started, or handed to a cluster.

    Attributes:
        job: the job.
        since: when it began, seconds since the epoch; moves on as long as it waits in a queue.
        log: where it reports its progress, if it has a log.
        is_queued: whether a cluster has not begun it yet.
        report: the last one.
    """

    job: Job
    since: float
    log: Path | None
    is_queued: bool = False
    report: Report | None = None

    def look(self, now: float) -> None:
        """Read the log, but for one that an earlier try has left."""
        if self.log is None:
            return
        try:
            begun = self.log.stat().st_mtime > self.since - 1
        except OSError:  # not there, or a network file system that has other things to do
            begun = False
        if begun:
            self.is_queued, self.report = False, last_report(self.log)
        elif self.is_queued or now - self.since > _QUEUED_AFTER_S:
            self.is_queued, self.since = True, now

    def seconds_left(self, now: float) -> float | None:
        """Return what the job itself says."""
        if self.report is None:
            return None
        return max(self.report.seconds_left - max(now - self.report.time, 0), 0)

    def cells(self, now: float) -> tuple[str, str, str, str]:
        """Return its name, how far it is, its loss, and its time left or so far."""
        if self.is_queued:
            return str(self.job), "queued", "", ""
        report, left = self.report, self.seconds_left(now)
        return (
            str(self.job),
            report.count if report else "",
            f"loss {report.loss:.4f}" if report and report.loss is not None else "",
            f"for {duration(now - self.since)}" if left is None else f"{duration(left)} left",
        )


class Run:
    """What is known of a run's jobs at a time."""

    def __init__(self, plan: Plan, now: float) -> None:
        """Begin a run."""
        self.plan, self.start_time = plan, now
        self.running: dict[int, Running] = {}
        self.done: dict[int, Took] = {}
        self.failed: set[int] = set()

    def start(self, i: int, log: Path | None, now: float) -> Job:
        """Note that a job was started, perhaps once more; return it."""
        self.failed.discard(i)
        self.running[i] = Running(self.plan.jobs[i], now, log)
        return self.plan.jobs[i]

    def finish(self, i: int, now: float) -> Took:
        """Note that a job is done; return it with the seconds that it took."""
        running = self.running.pop(i)
        self.done[i] = running.job, now - running.since
        return self.done[i]

    def drop(self, i: int) -> None:
        """Note that a job runs no more, and has to be done again."""
        self.running.pop(i, None)

    def fail(self, i: int) -> Job:
        """Note that a job has failed; return it."""
        self.drop(i)
        self.failed.add(i)
        return self.plan.jobs[i]

    def look(self, now: float) -> None:
        """Read what the running jobs report."""
        for running in self.running.values():
            running.look(now)

    def seconds_left(self, now: float) -> float | None:
        """Return the time left of the whole run; None if too little is known to tell.

        Jobs count that are done in this run, then what running ones expect of themselves, then jobs
        of earlier runs.
        """
        own = {
            i: left for i, r in self.running.items() if (left := r.seconds_left(now)) is not None
        }
        expecting = History(
            (self.running[i].job, now - self.running[i].since + own[i]) for i in own
        )
        done = History(self.done.values())
        histories = [done, expecting, at_pace_of(done, self.plan.earlier)]
        waiting = {i: job for i, job in self.plan.jobs.items() if i not in self.done}
        lost = set(self.failed)  # and what needs them
        while more := {i for i in waiting.keys() - lost if waiting[i].after & lost}:
            lost |= more
        waiting = {i: job for i, job in waiting.items() if i not in lost}
        seconds = dict(own)
        for i in waiting.keys() - own.keys():
            expected = expected_seconds(waiting[i], histories)
            if expected is None:
                return None
            is_running = i in self.running
            seconds[i] = rest_of(expected, now - self.running[i].since) if is_running else expected
        return makespan(waiting, seconds, self.running, self.plan.limits)

    def says(self, now: float, left: float | None) -> str:
        """Return the state in one line; `left` are the seconds left."""
        queued = sum(running.is_queued for running in self.running.values())
        counts = {
            "running": len(self.running) - queued,
            "queued": queued,
            "failed": len(self.failed),
        }
        others = "".join(f", {n} {what}" for what, n in counts.items() if n)
        rest = "" if left is None else f", about {duration(left)} left"
        done = f"{len(self.done)} of {_jobs(len(self.plan.jobs))} done{others}"
        return f"{done}; {duration(now - self.start_time)} so far{rest}"

    def share_done(self, now: float, left: float | None) -> float:
        """Return how much of its time the run has behind it, in [0, 1]; of its jobs if unknown."""
        so_far = now - self.start_time
        if left is None:
            return len(self.done) / max(len(self.plan.jobs), 1)
        return so_far / max(so_far + left, 1e-9)


class Display:
    """Shows a run on a console; its methods may be called from any thread."""

    def __init__(self, console: Console, *, jobs: bool = True, state: bool = True) -> None:
        """Show nothing yet.

        Args:
            console: where to.
            jobs: whether each job is shown when it starts and ends.
            state: whether the whole's state is shown while it runs.
        """
        self._console, self._jobs, self._state = console, jobs, state
        self._is_live = console.is_terminal and not console.is_dumb_terminal
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._is_interrupted = False
        self._run: Run | None = None
        self._live: Live | None = None

    def begin(self, plan: Plan) -> None:
        """Begin to show a run."""
        with self._lock:
            now = time.time()
            self._run = run = Run(plan, now)
            expected = run.seconds_left(now)
            known = (
                ""
                if expected is None
                else f", about {duration(expected)} by what earlier runs took"
            )
            if self._jobs or self._state:
                self.say(f"{_jobs(len(plan.jobs))} to do{known}")
            if self._state and self._is_live:
                self._live = Live(console=self._console, auto_refresh=False, transient=True)
                self._live.start()
            if self._state:
                threading.Thread(target=self._keep_looking, daemon=True).start()

    def start(self, i: int, log: Path | None) -> None:
        """Show that a job of the plan has started."""
        with self._lock:
            if self._run is None or i not in self._run.plan.jobs:
                return
            job = self._run.start(i, log, time.time())
            if self._jobs and not self._live:
                self.say(f"start   {job}")
            self._refresh()

    def finish(self, i: int) -> None:
        """Show that a job is done, and what its log notes for the user."""
        with self._lock:
            if self._run is None or i not in self._run.running:
                return
            log = self._run.running[i].log
            job, seconds = self._run.finish(i, time.time())
            if self._jobs:
                self.say(f"done    {job} in {duration(seconds)}", "green")
            for line in _lines(log):
                if line.startswith("note: "):
                    self.say(line)
            self._refresh()

    def fail(self, i: int, message: str | None) -> None:
        """Show that a job has failed, and why; nothing of one whose group was shown."""
        with self._lock:
            if self._is_interrupted and self._run is not None:
                return self._run.drop(i)
            job = "" if self._run is None else f"{self._run.fail(i)}: "
            if message is not None:
                self.say(f"failed  {job}{message}", "red")
            return self._refresh()

    def interrupt(self) -> None:
        """Show that the user has interrupted the run; jobs that end now have not failed."""
        self._is_interrupted = True
        self.say("interrupted, stopping the running jobs", "yellow")

    def say(self, text: str, style: str = "") -> None:
        """Show a message for good; above the picture, where there is one."""
        with self._lock:
            is_line_of_run = self._run is not None and not self._is_live
            stamp = time.strftime("%Y-%m-%d %H:%M:%S ") if is_line_of_run else ""
            self._console.print(Text(stamp + text, style), soft_wrap=True)

    def end(self) -> None:
        """Take the picture away, and show what became of the run."""
        with self._lock:
            self.close()
            if (run := self._run) is not None and (self._jobs or self._state):
                rest = len(run.plan.jobs) - len(run.done) - len(run.failed)
                said = f"{_jobs(len(run.done))} done in {duration(time.time() - run.start_time)}"
                said += f", {len(run.failed)} failed" if run.failed else ""
                said += f", {rest} not done" if rest else ""
                self.say(said)
            self._run = None

    def close(self) -> None:
        """Give the terminal back."""
        self._stop.set()
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def _keep_looking(self) -> None:
        shown = time.time()
        while not self._stop.wait(_SECONDS_BETWEEN_LOOKS):
            with self._lock:
                if self._run is None:
                    return
                now = time.time()
                self._run.look(now)
                self._refresh()
                if not self._live and now - shown >= _SECONDS_BETWEEN_STATES:
                    shown = now
                    for line in state_lines(self._run, now):
                        self.say(line)

    def _refresh(self) -> None:
        if self._live is not None and self._run is not None:
            self._live.update(picture(self._run, time.time(), self._console.width), refresh=True)


def picture(run: Run, now: float, width: int) -> RenderableType:
    """Return the state of a run for a terminal with this number of columns."""
    left = run.seconds_left(now)
    bar = ProgressBar(total=1.0, completed=run.share_done(now, left), pulse=False)
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for _ in range(3):
        table.add_column(no_wrap=True, justify="right")
    for cells in _rows(run, now):
        table.add_row(*cells)
    said = Text(run.says(now, left), "bold", no_wrap=True, overflow="ellipsis")
    # Room for the ^C of a user, which would begin a line else.
    return Constrain(Group(said, Padding(bar), table), width - 3)


def state_lines(run: Run, now: float) -> Iterator[str]:
    """Yield the state of a run in a line, and each running job in one more."""
    yield run.says(now, run.seconds_left(now))
    for cells in _rows(run, now):
        yield "  " + ", ".join(filter(None, cells))


def _rows(run: Run, now: float) -> Iterator[Sequence[str]]:
    for k, running in enumerate(sorted(run.running.values(), key=lambda job: job.is_queued)):
        if k == _MOST_LINES:
            yield (f"and {len(run.running) - _MOST_LINES} more", "", "", "")
            return
        yield running.cells(now)


def _jobs(count: int) -> str:
    return f"{count} job{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Return a time for people, such as `40 s`, `12 min`, `3 h 20 min` or `2 d 4 h`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 600:
        return f"{seconds // 60} min {seconds % 60} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"


def error_in(log: Path | None) -> str | None:
    """Return the error with which a job's log ends; None if the job couldn't write one."""
    lines = list(_lines(log))
    for k in range(len(lines) - 1, -1, -1):
        if lines[k].startswith("error: "):
            return "\n".join(lines[k:])
        if lines[k].startswith("Traceback"):
            return lines[-1]
    return None


def _lines(log: Path | None) -> Sequence[str]:
    if log is None or not log.is_file():
        return []
    return log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
