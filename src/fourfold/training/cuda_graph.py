"""Launch all kernels of a function at once, as a CUDA graph."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fourfold.errors import InputError

Pair = tuple[Tensor, Tensor]
_WARMUP = 3  # calls before the recording: libraries choose kernels and take memory in the first


class Recorded:
    """The passes of a step on a GPU, whose kernels are recorded once and replayed from then on.

    A step of a small network, or of a small share of a batch, takes longer to launch than to
    compute. Replaying launches nothing. It does what the recorded call did, with other numbers: the
    function must not wait for the device, nor choose by values or by numbers drawn on the CPU.
    Numbers drawn on the GPU (dropout) are new in each replay.
    """

    def __init__(
        self, function: Callable[[Tensor, Tensor], Pair], changed: Iterable[Tensor] = ()
    ) -> None:
        """Take the function, and what it changes that must not change in the warm-up."""
        self._function, self._changed = function, list(changed)
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: Tensor, labels: Tensor) -> Pair:
        """Return what the function returns.

        A batch and its labels are tensors, of the same shapes in each call.
        """
        if self._graph is None:
            self._graph = self._record((inputs, labels))
        for static, given in zip(self._inputs, (inputs, labels), strict=True):
            if given.shape != static.shape:
                raise InputError(
                    f"cuda_graph is True, but a batch has the shape {tuple(given.shape)} and the "
                    f"first one {tuple(static.shape)}; pass cuda_graph=False."
                )
            static.copy_(given)
        self._graph.replay()
        loss, correct = self._outputs  # which the next call overwrites
        return loss.clone(), correct.clone()

    def _record(self, inputs: Pair) -> torch.cuda.CUDAGraph:
        device = inputs[0].device
        self._inputs = [given.clone() for given in inputs]
        before = [tensor.clone() for tensor in self._changed]
        random_state = torch.cuda.get_rng_state(device)
        side, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARMUP):
                self._function(*self._inputs)
        current.wait_stream(side)
        for tensor, value in zip(self._changed, before, strict=True):
            tensor.copy_(value)
        torch.cuda.set_rng_state(random_state, device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(graph):  # it records the current device
            self._outputs = self._function(*self._inputs)
        return graph


def check_recordable(cuda_graph: bool, *batch: Any) -> None:
    """Refuse to record the passes of batches that are no tensors."""
    others = [type(part).__name__ for part in batch if not isinstance(part, Tensor)]
    if cuda_graph and others:
        raise InputError(
            f"cuda_graph is True, but a batch's input or target is {others[0]}; only single "
            "tensors can be recorded. Pass cuda_graph=False."
        )
