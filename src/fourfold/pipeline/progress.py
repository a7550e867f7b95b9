"""Progress of a long loop: a bar on a terminal, a line every few seconds in a log."""

import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from torch import Tensor

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Report steps, loss, images per second and time left on stderr."""

    def __init__(self, label: str, unit: str = "step") -> None:
        """Name what is going on, and what is counted."""
        self.label, self.unit = label, unit
        self.start = self.last_line = time.perf_counter()
        self.before: tuple[int, int] | None = None  # done and images before this process
        self.bar: tqdm | None = None

    def on_step(self, step: int, steps: int, loss: "Tensor", images: int) -> None:
        """Report a training step; the loss is read (and the device waited for) only for a line."""
        if self.before is None:  # a run that continues has not done the earlier steps now
            self.before = (step - 1, images * (step - 1) // step)
            if step > 1:
                print(f"{self.label}: continuing with step {step}", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            bar = self._update_bar(step, steps)
            if bar.n == bar.last_print_n:  # it has just been redrawn
                bar.set_postfix_str(f"loss {float(loss):.3f}", refresh=False)
        elif self._line_is_due(step, steps):
            rate = (images - self.before[1]) / self._elapsed()
            self._print_line(step, steps, f"loss {float(loss):.4f}, {rate:,.0f} images/s")

    def on_item(self, done: int, total: int) -> None:
        """Report that `done` of `total` items are finished."""
        if sys.stderr.isatty():
            self._update_bar(done, total)
        elif self._line_is_due(done, total):
            self._print_line(done, total, f"{done / self._elapsed():,.2f} {self.unit}s/s")

    def _elapsed(self) -> float:
        return max(time.perf_counter() - self.start, 1e-9)

    def _line_is_due(self, done: int, total: int) -> bool:
        now = time.perf_counter()
        if done < total and now - self.last_line < _SECONDS_BETWEEN_LINES:
            return False
        self.last_line = now
        return True

    def _print_line(self, done: int, total: int, middle: str) -> None:
        earlier = self.before[0] if self.before else 0
        left = self._elapsed() / (done - earlier) * (total - done)
        print(
            f"{self.label}: {self.unit} {done}/{total}, {middle}, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    def _update_bar(self, done: int, total: int) -> tqdm:
        if self.bar is None:
            earlier = self.before[0] if self.before else 0
            self.bar = tqdm(total=total, initial=earlier, desc=self.label, unit=self.unit)
        self.bar.update(done - self.bar.n)
        if done == total:
            self.bar.close()
        return self.bar
