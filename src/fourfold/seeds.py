"""Independent random streams from one seed."""

import contextlib
import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, stream: str) -> int:
    """Return a 63-bit seed for the named stream; equal on every machine and in every process.

    SHA-256 rather than Python's `hash`, which is salted per process for strings.
    """
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_generator(seed: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on `device` for the named stream of `seed`."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, stream))


class AmbientStream:
    """A random stream of its own for code that draws from the global states, such as a DataLoader.

    Inside `with stream():` the global states of torch (on the CPU), NumPy and Python, and those of
    the given generators, go on where this stream was left; outside they are as if nothing had
    drawn.
    """

    def __init__(self, seed: int, generators: Sequence[torch.Generator] = ()) -> None:
        """Start the stream at `seed`."""
        self._generators = generators
        self._here: list[Any] = [
            random.Random(seed).getstate(),
            np.random.RandomState(seed % 2**32).get_state(),
            torch.Generator().manual_seed(seed).get_state(),
        ]
        for k, generator in enumerate(generators):
            self._here.append(make_generator(seed, f"generator{k}", generator.device).get_state())

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Draw from this stream in a `with` block."""
        outside = self._exchange(self._here)
        try:
            yield
        finally:
            self._here = self._exchange(outside)

    def _exchange(self, states: Sequence[Any]) -> list[Any]:
        """Set all states; return what they were."""
        before = [random.getstate(), np.random.get_state(), torch.get_rng_state()]  # noqa: NPY002
        before += [generator.get_state() for generator in self._generators]
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        for generator, state in zip(self._generators, states[3:], strict=True):
            generator.set_state(state)
        return before
