"""Progress of a long loop: a line every few seconds, on stderr."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Report steps, loss, images per second and time left."""

    def __init__(self, label: str, unit: str = "step") -> None:
        """Name what is going on, and what is counted."""
        self.label, self.unit = label, unit
        self.start = self.last_line = time.perf_counter()
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

    def on_item(self, done: int, total: int) -> None:
        """Report that `done` of `total` items are finished."""
        if self._line_is_due(done, total):
            self._print_line(done, total, 0, f"{done / self._elapsed():,.2f} {self.unit}s/s")

    def _elapsed(self) -> float:
        return max(time.perf_counter() - self.start, 1e-9)

    def _line_is_due(self, done: int, total: int) -> bool:
        now = time.perf_counter()
        if done < total and now - self.last_line < _SECONDS_BETWEEN_LINES:
            return False
        self.last_line = now
        return True

    def _print_line(self, done: int, total: int, before: int, said: str) -> None:
        left = self._elapsed() / (done - before) * (total - done)
        line = f"{self.label}: {self.unit} {done}/{total}, {said}, {left:.0f} s left"
        print(line, file=sys.stderr, flush=True)
