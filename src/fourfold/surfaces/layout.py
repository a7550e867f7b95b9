"""State dicts as flat parameter vectors, with what is no parameter kept apart."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.parameter import is_lazy

from fourfold.errors import InputError
from fourfold.files.reading import check_fields

# Those that arithmetic is defined for; float8 and smaller are formats of storage.
_FLOATS = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
}

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class ParameterLayout:
    """Where each tensor of one architecture's state dict lies in a flat vector of D numbers.

    Attributes:
        names: tensors in the vector, in state-dict order; tied tensors once.
        shapes: their shapes.
        dtypes: their dtypes in the state dict; for the vector's own see `dtype`.
        buffers: names of the tensors outside the vector.
        tied: alias -> name, for two names of one tensor, in the vector or outside.
        order: all keys of the state dict, in its order.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    buffers: tuple[str, ...]
    tied: Mapping[str, str]
    order: tuple[str, ...]

    @classmethod
    def of(
        cls, state: StateDict, names: Collection[str], tied: Mapping[str, str]
    ) -> "ParameterLayout":
        """Lay out the tensors `names` of `state` one after another, in its order."""
        inside = [name for name in state if name in names]
        return cls(
            names=tuple(inside),
            shapes=tuple(tuple(state[name].shape) for name in inside),
            dtypes=tuple(state[name].dtype for name in inside),
            buffers=tuple(name for name in state if name not in names and name not in tied),
            tied=dict(tied),
            order=tuple(state),
        )

    @property
    def dtype(self) -> torch.dtype:
        """The vector's dtype: float64 if a tensor is, so that none is rounded; else float32."""
        return torch.float64 if torch.float64 in self.dtypes else torch.float32

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
        """Make the layout that `to_json` described."""
        kinds = {"names": list[str], "shapes": list[list[int]], "dtypes": list[str]}
        kinds |= {"buffers": list[str], "tied": dict[str, str], "order": list[str]}
        check_fields(stored, kinds, "the layout")
        return cls(
            tuple(stored["names"]),
            tuple(map(tuple, stored["shapes"])),
            tuple(_FLOATS[dtype] for dtype in stored["dtypes"]),
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

    def flatten(self, state: StateDict, out: Float[Tensor, " parameters"]) -> None:
        """Write the parameters of `state` into the vector `out`."""
        for name, piece in zip(self.names, out.split(self.sizes), strict=True):
            piece.copy_(state[name].detach().reshape(-1))

    def rows(self, states: Sequence[StateDict]) -> Float[Tensor, "networks parameters"]:
        """Return the coordinates of some networks."""
        rows = torch.empty(len(states), self.dimension, dtype=self.dtype)
        for state, row in zip(states, rows, strict=True):
            self.flatten(state, out=row)
        return rows

    def views(self, vector: Float[Tensor, " parameters"]) -> dict[str, Tensor]:
        """Return name -> view of the vector in the tensor's shape, without tied names."""
        pieces = vector.split(self.sizes)
        return {
            name: piece.view(shape)
            for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)
        }

    def state_dict(
        self, vector: Float[Tensor, " parameters"], buffers: StateDict
    ) -> dict[str, Tensor]:
        """Return a state dict with copies of the parameters in `vector` and the given buffers."""
        state = {
            name: view.to(dtype, copy=True)
            for (name, view), dtype in zip(self.views(vector).items(), self.dtypes, strict=True)
        }
        state |= {name: buffers[name].clone() for name in self.buffers}
        state |= {alias: state[name] for alias, name in self.tied.items()}
        return {name: state[name] for name in self.order}


def find_ties(states: Sequence[StateDict], labels: Sequence[str]) -> dict[str, str]:
    """Return alias -> name of the tensors that are one tensor under two names.

    They share memory; or, since files store both, they are matrices that are equal in each of
    several networks that differ in them. (Equal vectors prove nothing: two biases that begin at 0
    and are added stay equal for all training, as in a ResNet's block with a downsampling branch.)
    Tensors that share memory in one network and differ in another are refused.
    """
    tied: dict[str, str] = {}
    for state in states:
        first_at: dict[tuple[object, ...], str] = {}
        for name, tensor in state.items():
            if tensor.numel() == 0:
                continue
            place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            if (first := first_at.setdefault(place, name)) != name:
                tied.setdefault(name, first)
    for alias, name in tied.items():
        for state, label in zip(states, labels, strict=True):
            if not is_equal(state[alias], state[name]):
                raise InputError(
                    f"tensors {name!r} and {alias!r} are tied in one network, but differ in "
                    f"{label}; all networks must tie the same tensors."
                )
    if len(states) == 1:
        return tied
    alike: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in states[0].items():
        if name in tied or tensor.ndim < 2 or not tensor.is_floating_point():
            continue
        candidates = alike.setdefault((tensor.dtype, tensor.shape), [])
        for first in candidates:
            equal = all(is_equal(state[first], state[name]) for state in states)
            if equal and not all(is_equal(tensor, state[name]) for state in states[1:]):
                tied[name] = first
                break
        else:
            candidates.append(name)
    return {alias: tied.get(name, name) for alias, name in tied.items()}


def is_equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors of one shape have the same values, with a look at the first."""
    head = (slice(0, 1),) * a.ndim
    return torch.equal(a[head], b[head]) and torch.equal(a, b)


def first_names(names: Iterable[str], most: int = 3) -> str:
    """Return the first few names for a message, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"{name!r:.80}" for name in names[:most]) + more


def check_same_architecture(states: Sequence[StateDict], labels: Sequence[str]) -> None:
    """Refuse state dicts that differ in names, shapes or dtypes, or hold a NaN or an infinity."""
    first, first_label = states[0], labels[0]
    for state, label in zip(states, labels, strict=True):
        if not isinstance(state, Mapping):
            raise InputError(
                f"{label} is {type(state).__name__}, no state dict; pass model.state_dict(), or "
                "what load_checkpoint returns."
            )
        for name, tensor in state.items():
            check_tensor(name, tensor, label)
        missing, extra = sorted(first.keys() - state.keys()), sorted(state.keys() - first.keys())
        if missing or extra:
            raise InputError(
                f"{label} and {first_label} are different architectures: {label} lacks "
                f"{first_names(missing) or 'nothing'} and adds {first_names(extra) or 'nothing'}; "
                "the networks must have the same tensors."
            )
        for name, tensor in state.items():
            reference = first[name]
            if tensor.shape != reference.shape or tensor.dtype != reference.dtype:
                raise InputError(
                    f"tensor {name!r} is {tuple(tensor.shape)} {tensor.dtype} in {label}, but "
                    f"{tuple(reference.shape)} {reference.dtype} in {first_label}; the networks "
                    "must have equal shapes and dtypes."
                )
    if not any(tensor.is_floating_point() for tensor in first.values()):
        raise InputError(f"{first_label} has no floating tensors; its keys are {list(first)[:5]}.")
    for state, label in zip(states, labels, strict=True):
        for name, tensor in state.items():
            if not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()):
                continue
            # A mask may hold infinities, if it is no parameter: all networks then share it.
            if not all(torch.equal(other[name], tensor) for other in states):  # a NaN never is
                raise InputError(
                    f"tensor {name!r} of {label} holds a NaN or an infinity; the network has "
                    "diverged, train it again (a lower learning rate helps)."
                )


def check_tensor(name: str, tensor: Tensor, label: str) -> None:
    """Refuse what is no dense tensor of real numbers."""
    if not isinstance(tensor, Tensor) or is_lazy(tensor):
        raise InputError(
            f"{label}: entry {name!r} is {type(tensor).__name__}, no tensor with values; take "
            "model.state_dict(), of a lazy or quantized module after it has run as a float one."
        )
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else "without values (on the meta device)"
        kind = kind if tensor.layout == torch.strided else str(tensor.layout)
        raise InputError(
            f"{label}: tensor {name!r} is {kind}; only dense tensors with values can be averaged "
            "(tensor.to_dense(), tensor.dequantize(), or load the network from its file)."
        )
    is_number = tensor.is_floating_point() and tensor.dtype not in _FLOATS.values()
    if tensor.is_complex() or is_number:
        raise InputError(
            f"{label}: tensor {name!r} is {tensor.dtype}; of floating tensors {', '.join(_FLOATS)} "
            "are allowed. Convert the network with model.float()."
        )
