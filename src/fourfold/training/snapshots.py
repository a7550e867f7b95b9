"""Snapshots of a long computation, from which a killed job continues."""

import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fourfold.errors import InputError
from fourfold.files.reading import check_fields, reading
from fourfold.files.tensors import load_tensors, save_tensors, state_hash

_FORMAT = "fourfold-snapshot-3"
_FIELDS = {"key": dict, "values": dict, "notes": dict, "seconds": float, "sha256": str}
_FIELDS |= {"computation": dict}


class Snapshots:
    """The latest state of one computation, in a folder of its own.

    A state is a dictionary of tensors and JSON values. A file is either complete or not there, and
    it names the computation it belongs to, so that a state of other settings, other data or another
    version of the code is never continued: the caller names these by a key, and `fit` and `train`
    say themselves which surface or network, optimizer, seed and kind of device it is of.

    Attributes:
        folder: where the state lies; the computation may keep further files there.
        notes: JSON values that the caller wants saved and restored with every state.
        seconds_before: how long the processes worked that the present one continues.
    """

    def __init__(
        self,
        folder: str | Path,
        key: Mapping[str, Any],
        interval: float = 60.0,
        largest_share: float = 0.05,
    ) -> None:
        """Take the folder and what identifies the computation.

        Args:
            folder: made when the first state is saved.
            key: JSON values; a state with another key is not continued.
            interval: seconds between two states.
            largest_share: of the time that may go into saving; large states on slow disks are
                saved less often than `interval` says.
        """
        self.folder = Path(folder)
        self.key = _as_read(key)
        self.interval, self.largest_share = interval, largest_share
        self.notes: dict[str, Any] = {}
        self._path = self.folder / "state.safetensors"
        self.seconds_before = 0.0
        self._start = time.monotonic()
        self._due_at = self._start + interval

    def load(self, computation: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Return the latest state, None if there is none of this computation; set `notes`.

        Args:
            computation: what `save` was given beside the state; None for any.
        """
        if not self._path.is_file():
            return None
        try:
            tensors, header = load_tensors(self._path)
            check_fields(header, _FIELDS, str(self._path))
            with reading(self._path, "state"):
                is_intact = header["sha256"] == state_hash(tensors)
        except InputError:  # from a damaged disk; we never leave such a file
            return None
        is_ours = header.get("format") == _FORMAT and header["key"] == self.key
        is_ours &= computation is None or header["computation"] == _as_read(computation)
        if not is_ours or not is_intact or not 0 <= header["seconds"] < math.inf:
            return None
        self.notes, self.seconds_before = header["notes"], header["seconds"]
        values: dict[str, Any] = header["values"]
        return values | tensors

    def is_due(self) -> bool:
        """Return whether it is time for the next state."""
        return time.monotonic() >= self._due_at

    def save(self, state: Mapping[str, Any], computation: Mapping[str, Any] | None = None) -> None:
        """Replace the latest state; `computation` says in JSON values what it is of."""
        start = time.monotonic()
        tensors = {
            name: value.detach().cpu().contiguous()
            for name, value in state.items()
            if isinstance(value, Tensor)
        }
        values = {name: value for name, value in state.items() if name not in tensors}
        seconds = self.seconds_before + start - self._start
        header = {
            "format": _FORMAT,
            "key": self.key,
            "values": values,
            "notes": self.notes,
            "seconds": seconds,
            "sha256": state_hash(tensors),
            "computation": _as_read(computation or {}),
        }
        save_tensors(tensors, self._path, header)
        now = time.monotonic()
        self._due_at = now + max(self.interval, (now - start) / self.largest_share)

    def remove(self) -> None:
        """Remove the folder with everything in it; the computation is finished."""
        # The state first: a process killed here must not leave one without the files beside it.
        self._path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _as_read(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values as they come out of a file, where a tuple is a list."""
    read: dict[str, Any] = json.loads(json.dumps(values))
    return read
