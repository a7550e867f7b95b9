"""Progress of a long loop: a line every few seconds, on stderr, and how to read it from a log."""

import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SECONDS_BETWEEN_LINES = 5.0
_TAIL_BYTES = 4096
_LINE = re.compile(
    r": (?:(?P<epoch>epoch \d+/\d+), )?(?P<count>\w+ \d+/\d+), (?:loss (?P<loss>[^ ,]+), )?"
    r"[^ ]+ \w+/s, (?P<left>\d+) s left$"
)


class Progress:
    """Report steps, loss, images per second and time left."""

    def __init__(self, label: str, unit: str = "step", epochs: int = 0) -> None:
        """Name what is going on, what is counted, and of how many epochs its steps are, if any."""
        self.label, self.unit, self.epochs = label, unit, epochs
        self.start = self.last_line = time.perf_counter()
        self.items, self.work = 0, list[float]()
        self.before: tuple[int, int] | None = None  # steps and images before this process

    def on_step(self, step: int, steps: int, loss: "Tensor", images: int) -> None:
        """Report a training step; the loss is read (and the device waited for) only for a line."""
        if self.before is None:  # a run that continues has not done the earlier steps now
            self.before = (step - 1, images * (step - 1) // step)
            if step > 1:
                print(f"{self.label}: continuing with step {step}", file=sys.stderr, flush=True)
        if self._line_is_due(step, steps):
            rate = (images - self.before[1]) / self._elapsed()
            said = f"loss {float(loss):.4f}, {rate:,.0f} images/s"
            self._print_line(step, steps, self.before[0], said)

    def expect(self, items: int, work: float) -> None:
        """Announce further items, and how much work each of them is beside others."""
        self.work += [work] * items

    def on_item(self, done: int, total: int) -> None:
        """Report that one more item is finished, `done` of `total` unless all were announced."""
        share = None
        if self.work:
            self.items += 1
            done, total = self.items, len(self.work)
            share = sum(self.work[:done]) / sum(self.work)
        if self._line_is_due(done, total):
            rate = f"{done / self._elapsed():,.2f} {self.unit}s/s"
            self._print_line(done, total, 0, rate, share)

    def _elapsed(self) -> float:
        return max(time.perf_counter() - self.start, 1e-9)

    def _line_is_due(self, done: int, total: int) -> bool:
        now = time.perf_counter()
        if done < total and now - self.last_line < _SECONDS_BETWEEN_LINES:
            return False
        self.last_line = now
        return True

    def _print_line(
        self, done: int, total: int, before: int, said: str, share: float | None = None
    ) -> None:
        share = (done - before) / (total - before) if share is None else share
        left = self._elapsed() * (1 / share - 1)
        epoch = f"epoch {-(-done * self.epochs // total)}/{self.epochs}, " if self.epochs else ""
        line = f"{self.label}: {epoch}{self.unit} {done}/{total}, {said}, {left:.0f} s left"
        print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Report:
    """What a job's log says of its progress.

    Attributes:
        count: what is done, of how much, such as `epoch 3/10` or `point 40/154`.
        loss: of the last step, nats; None of a job that has none.
        seconds_left: as the job reckoned when it wrote the line.
        time: when it did, seconds since the epoch.
    """

    count: str
    loss: float | None
    seconds_left: float
    time: float


def last_report(log: Path) -> Report | None:
    """Return what the last line of a log that reports progress says; None without such a line.

    A job writes a line at once and appends it, so that a reader on another machine of a shared file
    system sees whole lines but for the last one, which is left for the next look.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
            written = os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    for line in reversed(lines):
        if found := _LINE.search(line):
            loss = found["loss"]
            count = found["epoch"] or found["count"]
            of_step = None if loss is None else float(loss)
            return Report(count, of_step, float(found["left"]), written)
    return None
