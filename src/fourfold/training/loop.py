"""What training one network and fitting a surface have in common: the loop over batches."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fourfold.data.batches import Augment, Batches, Preprocess
from fourfold.data.inputs import Input, map_input, parts_of
from fourfold.errors import DivergenceError, InputError, check_callable
from fourfold.seeds import derive_seed, make_generator
from fourfold.training.snapshots import Snapshots

# Called after each step with (step, steps, loss of the step, images seen).
OnStep = Callable[[int, int, Tensor, int], None]

# Of a row of the `training` table.
_COLUMNS = ["epoch", "step", "split", "nll", "accuracy", "learning_rate", "images_seen", "wall_s"]


class Resumable(Protocol):
    """What a step changes: parameters and the optimizer's state."""

    def described(self) -> dict[str, Any]:
        """Return what a state has to be of to be restored here, as JSON values."""

    def state(self) -> dict[str, Any]:
        """Return it as tensors and JSON values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set it to what `state` returned."""


class Loop:
    """Batches of all epochs in random order, their running means, and snapshots of all that.

    The random streams are those of one seed: data order, augmentation, and torch's global one for
    dropout; `purpose` keeps two loops of one seed apart. Nothing in a step waits for the device:
    the order of an epoch is copied there at once, augmentation draws there, and running means are
    read at the end of the epoch.

    Attributes:
        step: steps done.
        steps: steps of all epochs.
        steps_per_epoch: of them, as far as can be known before.
        epoch: epochs done.
        rows: one row of the `training` table for each epoch done, split `train`.
    """

    def __init__(
        self,
        data: Batches,
        *,
        epochs: int,
        repeats: int = 1,
        seed: int,
        purpose: str = "",
        target: Resumable,
        streams: Mapping[str, torch.Generator] | None = None,
        augment: Augment | None = None,
        preprocess: Preprocess,
        snapshots: Snapshots | None = None,
        on_step: OnStep | None = None,
        on_epoch: Callable[[int], None] | None = None,
    ) -> None:
        """Take the data, what a step changes (`target`), and further random `streams` to keep.

        Each batch is used for `repeats` steps in a row, as it was augmented once.
        """
        if torch.is_inference_mode_enabled():
            raise InputError(
                "training needs gradients, which torch.inference_mode() doesn't compute; call it "
                "outside of that (torch.no_grad() does no harm)."
            )
        check_callable(augment=augment, preprocess=preprocess, on_step=on_step, on_epoch=on_epoch)
        self._data, self._device, self._epochs = data, data.device, epochs
        self._repeats, self.steps_per_epoch = repeats, data.steps * repeats
        self._dropout_seed = derive_seed(seed, f"{purpose}dropout")
        self._target, self._snapshots = target, snapshots
        self._augment, self._preprocess = augment, preprocess
        self._on_step, self._on_epoch = on_step, on_epoch
        self._streams = {
            "order": make_generator(seed, f"{purpose}order"),
            "augment": make_generator(seed, f"{purpose}augment", self._device),
            **(streams or {}),
        }
        self._order_before_epoch = self._streams["order"].get_state()
        self._mean = _RunningMean(self._device)
        self.steps, self.step, self.epoch = epochs * self.steps_per_epoch, 0, 0
        self.rows: list[dict[str, Any]] = []
        self._start = time.perf_counter()
        # A state of anything else would be restored in part, or not at all.
        self._computation = {"purpose": purpose, "seed": str(seed), "device": self._device.type}
        self._computation |= target.described()

    @property
    def position(self) -> int:
        """Return where the schedule stands: an epoch begins at a multiple of its planned steps."""
        return self.epoch * self.steps_per_epoch + self._steps_in_epoch

    @property
    def _steps_in_epoch(self) -> int:
        return self.step - (self.rows[-1]["step"] if self.rows else 0)

    @property
    def _images_seen(self) -> int:
        return self._mean.images + (self.rows[-1]["images_seen"] if self.rows else 0)

    def batches(self) -> Iterator[tuple[Input, Input]]:
        """Yield the input and the targets of each step; call `finish_step` before the next.

        It starts where the latest snapshot was taken. When it is done, torch's global random state
        is what it was before.
        """
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._dropout_seed)
            state = None if self._snapshots is None else self._snapshots.load(self._computation)
            if state is not None:
                self._restore(state)
            while self.epoch < self._epochs:
                yield from self._epoch_batches()
                self._finish_epoch()

    def finish_step(
        self, loss: Float[Tensor, ""], correct: Shaped[Tensor, ""], rate: float, passes: int = 1
    ) -> None:
        """Count a step: mean loss and number of right predictions of its batch, on the device.

        `passes` says how often the step passed each example.
        """
        self._mean.add(loss, correct, passes * self._batch)
        self.step += 1
        self._rate = rate
        if self._on_step is not None:
            self._on_step(self.step, self.steps, loss, self._images_seen)
        done = self._steps_in_epoch  # an epoch's end is saved after its row is written
        if done < self.steps_per_epoch and done % self._repeats == 0:
            self._save_if_due()  # else the batch would have to be saved too

    def _epoch_batches(self) -> Iterator[tuple[Input, Input]]:
        done = self._steps_in_epoch // self._repeats
        for inputs, targets in self._data.shuffled(self._streams["order"], done):
            if self._augment is not None:
                inputs = self._augment(inputs, self._streams["augment"])
            self._batch = len(parts_of(inputs)[0])
            for left in reversed(range(self._repeats)):
                # A model may write to its input.
                given = map_input(Tensor.clone, inputs) if left else inputs
                yield self._preprocess(given), targets

    def _finish_epoch(self) -> None:
        self.epoch += 1
        loss, accuracy = self._mean.read()
        if not torch.isfinite(torch.tensor(loss)):
            raise DivergenceError(
                f"training diverged in epoch {self.epoch}: the mean loss is {loss} at learning "
                f"rate {self._rate:.3g}. Lower lr, lengthen warmup, or set clip_norm."
            )
        wall_s = time.perf_counter() - self._start
        seen = self._images_seen
        row = (self.epoch, self.step, "train", loss, accuracy, self._rate, seen, wall_s)
        self.rows.append(dict(zip(_COLUMNS, row, strict=True)))
        self._mean = _RunningMean(self._device)
        if self._on_epoch is not None:
            self._on_epoch(self.epoch)
        self._order_before_epoch = self._streams["order"].get_state()
        self._save_if_due()

    def _save_if_due(self) -> None:
        if self._snapshots is not None and self._snapshots.is_due():
            self._snapshots.save(self._state(), self._computation)

    def _state(self) -> dict[str, Any]:
        generators = {f"stream/{k}": stream.get_state() for k, stream in self._streams.items()}
        generators["stream/order"] = self._order_before_epoch  # the epoch's order is drawn again
        generators["stream/cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            generators["stream/cuda"] = torch.cuda.get_rng_state(self._device)
        return {
            "step": self.step,
            "epoch": self.epoch,
            "rows": self.rows,
            "elapsed": time.perf_counter() - self._start,
            **self._mean.state(),
            **generators,
            **{f"target/{name}": value for name, value in self._target.state().items()},
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.step, self.epoch = state["step"], state["epoch"]
        self.rows = [{column: row[column] for column in _COLUMNS} for row in state["rows"]]
        self._start = time.perf_counter() - state["elapsed"]
        self._mean.restore(state)
        for name, stream in self._streams.items():
            stream.set_state(state[f"stream/{name}"])
        self._order_before_epoch = self._streams["order"].get_state()
        torch.set_rng_state(state["stream/cpu"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["stream/cuda"], self._device)
        parts = ((name.partition("/"), value) for name, value in state.items())
        self._target.restore({rest: value for (part, _, rest), value in parts if part == "target"})


class _RunningMean:
    """Mean loss and accuracy over the examples of an epoch, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.loss, self.correct = (torch.zeros((), device=device) for _ in range(2))
        self.images = 0

    def add(self, loss: Float[Tensor, ""], correct: Shaped[Tensor, ""], images: int) -> None:
        self.loss += images * loss
        self.correct += correct
        self.images += images

    def read(self) -> tuple[float, float]:
        return (self.loss / self.images).item(), (self.correct / self.images).item()

    def state(self) -> dict[str, Any]:
        return {
            "mean/loss": self.loss,
            "mean/correct": self.correct,
            "mean/images": self.images,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.loss.copy_(state["mean/loss"])
        self.correct.copy_(state["mean/correct"])
        self.images = state["mean/images"]
