"""State dicts as flat parameter vectors, with the buffers kept apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fourfold.errors import InputError
from fourfold.untrusted import check_fields

# State dicts don't tell buffers from parameters. Integers can't be trained, and among the floating
# tensors the running statistics are the ones that must not be moved as weights. Any other floating
# buffer may lie in the vector: it is interpolated there, and `fit` never moves what the model does
# not declare as a trainable parameter.
_RUNNING_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

# Those that arithmetic is defined for; float8 and smaller are formats of storage.
_FLOATS = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
}
_MAX_ELEMENTS = 2**48  # of one tensor; far more than any memory, and no overflow in products

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class ParameterLayout:
    """Where each tensor of one architecture's state dict lies in a flat vector of D numbers.

    Attributes:
        names: tensors in the vector, in state-dict order; tied tensors once.
        shapes: their shapes.
        dtypes: their dtypes in the state dict (the vector itself is float32).
        buffers: names of the tensors outside the vector.
        tied: alias -> name, for tensors that share storage.
        order: all keys of the state dict, in its order.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    buffers: tuple[str, ...]
    tied: Mapping[str, str]
    order: tuple[str, ...]

    @classmethod
    def from_state_dict(cls, state: StateDict) -> "ParameterLayout":
        """Lay out the floating tensors of `state` one after another."""
        names, shapes, dtypes, buffers = [], [], [], []
        tied: dict[str, str] = {}
        first_at: dict[tuple, str] = {}
        for name, tensor in state.items():
            if tensor.is_complex():
                raise InputError(f"tensor {name!r} is {tensor.dtype}; only real networks work.")
            _check_dtype(name, tensor)
            is_statistic = name.rpartition(".")[2] in _RUNNING_STATISTICS
            if is_statistic or not tensor.is_floating_point() or bool(tensor.isinf().any()):
                buffers.append(name)
                continue
            # The same memory under two names is one parameter (tied weights).
            place = (
                (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
            )
            if place in first_at:
                tied[name] = first_at[place]
                continue
            first_at[place] = name
            names.append(name)
            shapes.append(tuple(tensor.shape))
            dtypes.append(tensor.dtype)
        if not names:
            raise InputError(f"the state dict has no floating tensors; its keys are {list(state)}.")
        return cls(tuple(names), tuple(shapes), tuple(dtypes), tuple(buffers), tied, tuple(state))

    def to_json(self) -> dict[str, Any]:
        """Return the layout as JSON values."""
        return {
            "names": self.names,
            "shapes": self.shapes,
            "dtypes": [str(dtype).removeprefix("torch.") for dtype in self.dtypes],
            "buffers": self.buffers,
            "tied": dict(self.tied),
            "order": self.order,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "ParameterLayout":
        """Make the layout that `to_json` described.

        Raises:
            InputError: if it describes no state dict.
        """
        kinds = {"names": list[str], "shapes": list[list[int]], "dtypes": list[str]}
        kinds |= {"buffers": list[str], "tied": dict[str, str], "order": list[str]}
        check_fields(stored, kinds, "the layout")
        names, shapes, dtypes = stored["names"], stored["shapes"], stored["dtypes"]
        if not len(names) == len(shapes) == len(dtypes) > 0:
            raise InputError(
                f"the layout has {len(names)} names, {len(shapes)} shapes and {len(dtypes)} "
                "dtypes; each tensor must have one of each."
            )
        for name, shape, dtype in zip(names, shapes, dtypes, strict=True):
            sizes = [max(size, 1) for size in shape]  # an axis without elements has strides too
            if any(size < 0 for size in shape) or len(shape) > 64 or prod(sizes) > _MAX_ELEMENTS:
                raise InputError(
                    f"the layout gives {name!r:.80} an impossible shape, {shape!s:.80}."
                )
            if dtype not in _FLOATS:
                raise InputError(
                    f"the layout gives {name!r:.80} the dtype {dtype!r:.40}; allowed are "
                    f"{', '.join(_FLOATS)}."
                )
        all_names = [*names, *stored["buffers"], *stored["tied"]]
        if sorted(all_names) != sorted(stored["order"]) or len(set(all_names)) != len(all_names):
            raise InputError(
                "the layout is contradictory: `order` must have each of names, buffers and tied "
                "names once."
            )
        if astray := sorted(set(stored["tied"].values()) - set(names)):
            raise InputError(f"the layout ties names to {astray[0]!r:.80}, which is no parameter.")
        return cls(
            tuple(names),
            tuple(map(tuple, shapes)),
            tuple(_FLOATS[dtype] for dtype in dtypes),
            tuple(stored["buffers"]),
            stored["tied"],
            tuple(stored["order"]),
        )

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of elements of each tensor of the vector."""
        return tuple(prod(shape) for shape in self.shapes)

    @cached_property
    def dimension(self) -> int:
        """D, the length of the vector."""
        return sum(self.sizes)

    def flatten(self, state: StateDict, out: Tensor) -> None:
        """Write the parameters of `state` into the (D,) float32 vector `out`."""
        for name, piece in zip(self.names, out.split(self.sizes), strict=True):
            piece.copy_(state[name].detach().reshape(-1))

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """Return name -> view of the (D,) `vector` in the tensor's shape, without tied names."""
        pieces = vector.split(self.sizes)
        return {
            name: piece.view(shape)
            for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)
        }

    def state_dict(self, vector: Tensor, buffers: StateDict) -> dict[str, Tensor]:
        """Return a state dict with copies of the parameters in `vector` and the given buffers."""
        state = {
            name: view.to(dtype, copy=True)
            for (name, view), dtype in zip(self.views(vector).items(), self.dtypes, strict=True)
        }
        state |= {name: buffers[name].clone() for name in self.buffers}
        state |= {alias: state[name] for alias, name in self.tied.items()}
        return {name: state[name] for name in self.order}


def check_same_architecture(states: Sequence[StateDict], labels: Sequence[str]) -> None:
    """Refuse state dicts that differ in names, shapes or dtypes, or hold a NaN or an infinity.

    Raises:
        InputError: naming the tensor and the two networks, or the tensor and the network.
    """
    first, first_label = states[0], labels[0]
    for state, label in zip(states, labels, strict=True):
        for name, tensor in state.items():
            if not isinstance(tensor, Tensor) or is_lazy(tensor):
                raise InputError(
                    f"{label}: entry {name!r} is {type(tensor).__name__}, no tensor with values; "
                    "run a lazy module once before its state dict is taken."
                )
            _check_dtype(name, tensor)
        missing, extra = sorted(first.keys() - state.keys()), sorted(state.keys() - first.keys())
        if missing or extra:
            raise InputError(
                f"{label} and {first_label} are different architectures: {label} lacks "
                f"{missing[:3] or 'nothing'} and adds {extra[:3] or 'nothing'}; "
                "the corners of a surface must have the same tensors."
            )
        for name, tensor in state.items():
            reference = first[name]
            if tensor.shape != reference.shape or tensor.dtype != reference.dtype:
                raise InputError(
                    f"tensor {name!r} is {tuple(tensor.shape)} {tensor.dtype} in {label}, but "
                    f"{tuple(reference.shape)} {reference.dtype} in {first_label}; the corners of "
                    "a surface must have equal shapes and dtypes."
                )
    for state, label in zip(states, labels, strict=True):
        for name, tensor in state.items():
            if not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()):
                continue
            # A mask may hold infinities, if it is no parameter: all networks then share it.
            is_mask = all(torch.equal(other[name], tensor) for other in states)  # a NaN never is
            if not is_mask:
                raise InputError(
                    f"tensor {name!r} of {label} holds a NaN or an infinity; the network has "
                    "diverged, train it again (a lower learning rate helps)."
                )


def _check_dtype(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and tensor.dtype not in _FLOATS.values():
        raise InputError(
            f"tensor {name!r} is {tensor.dtype}; allowed are {', '.join(_FLOATS)}. Convert the "
            "network with model.float()."
        )


def load_state(model: nn.Module, state: StateDict) -> None:
    """Load a state dict into `model`.

    Raises:
        InputError: if the model is of another architecture.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"the model is not of the checkpoints' architecture: {error}. "
            "Build the model that the corners were trained with."
        ) from error
