"""Which units of a network may be permuted or rotated without changing its function.

Each axis of a tensor is a list of `Units`, the outer ones first: a flattened feature map is
[channels, height, width]. A forward pass is observed operation by operation (ATen's, so that it
doesn't matter how the module is written), and what an operation brings together is made one; what
it treats by its place is fixed. The units that are free in the end, and the axes that they lie on,
are the network's permutation symmetries. Those that nothing but linear maps take may be rotated
too: the same orthogonal matrix then acts on all axes that they lie on.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fourfold.data.batches import call_model
from fourfold.data.inputs import Input, output_tensors, parts_of
from fourfold.errors import InputError
from fourfold.surfaces.modules import evaluation_mode


class Turn(IntEnum):
    """Which orthogonal maps of some units leave a network's function as it is.

    Only permutations (NONE), those that keep the mean of the units, which LayerNorm subtracts
    (CENTERED), or all (ANY).
    """

    NONE = 0
    CENTERED = 1
    ANY = 2


class Units:
    """Some units along an axis that change places with one another only.

    Attributes:
        size: how many.
        is_fixed: whether each has to keep its place.
        turn: how they may be rotated.
        within: units that these may be permuted differently for, such as the heads of an attention.
        same: what these were found to be; then only that counts.
        factors: outer and inner units, if these turned out to be blocks of units.
        pieces: axes that these are the concatenation of.
        selected: (fixed units, index, the units there), where these differ from index to index.
    """

    def __init__(
        self,
        size: int,
        *,
        is_fixed: bool = False,
        turn: Turn = Turn.ANY,
        within: Iterable["Units"] = (),
    ) -> None:
        """Make units that nothing is known about."""
        self.size, self.is_fixed, self.turn, self.within = size, is_fixed, turn, list(within)
        self.same: Units | None = None
        self.factors: Axis | None = None
        self.pieces: list[Axis] | None = None
        self.selected: list[tuple[Units, int, Units]] = []


Axis = list[Units]
Axes = list[Axis]
Block = tuple[Tensor, tuple[Units, ...]]  # a view of a tensor, and the units along each of its axes


def _root(units: Units) -> Units:
    while units.same:
        units = units.same
    return units


def _leaves(axis: Axis) -> Axis:
    """Return an axis in the finest units known, without those of size 1."""
    found: Axis = []
    for units in map(_root, axis):
        if units.size > 1:
            found += [units] if units.factors is None else _leaves(units.factors)
    return found


def _size(axis: Axis) -> int:
    return prod(units.size for units in axis)


def _fixed(*sizes: int) -> Axes:
    return [[Units(size, is_fixed=True)] for size in sizes]


def _parts(units: Units) -> Iterator[Axis]:
    yield from chain(units.pieces or [], ([each] for _, _, each in units.selected))


def _fix(axis: Axis) -> None:
    for units in _leaves(axis):
        units.is_fixed = True
        for part in _parts(units):
            _fix(part)
        units.pieces, units.selected = None, []


def _limit(axis: Axis, turn: Turn = Turn.NONE) -> None:
    """Note that units can be rotated like this at most."""
    for units in _leaves(axis):
        units.turn = min(units.turn, turn)
        for part in _parts(units):
            _limit(part, turn)


def _split(units: Units, outer: int) -> None:
    if units.pieces or units.selected:  # cut and folded at once
        _fix([units])
    fixed, turn = units.is_fixed, units.turn
    first = Units(outer, is_fixed=fixed, turn=turn, within=units.within)
    inside = [*units.within, first]
    rest = Units(units.size // outer, is_fixed=fixed, turn=turn, within=inside)
    units.factors = [first, rest]


def _regroup(axis: Axis, sizes: Sequence[int]) -> Axes:
    """Return consecutive axes of these sizes, of what one axis of their product consists of."""
    rest, groups = _leaves(axis), []
    for size in sizes:
        group: Axis = []
        while size > 1:
            units = rest[0]
            if size % units.size == 0:
                group.append(rest.pop(0))
                size //= units.size
            elif units.size % size == 0:
                _split(units, size)
                rest[:1] = _leaves([units])
            else:
                _fix(axis)
                return _fixed(*sizes)
        groups.append(group)
    return groups


def _unify(a: Axis, b: Axis) -> None:
    """Make two axes of one size the same."""
    while (a := _leaves(a)) and (b := _leaves(b)):
        first, second = a[0], b[0]
        if first.size == second.size:
            _merge(first, second)
            a, b = a[1:], b[1:]
        elif first.size % second.size == 0:
            _split(first, second.size)
        elif second.size % first.size == 0:
            _split(second, first.size)
        else:
            _fix(a)
            _fix(b)
            return


def _merge(a: Units, b: Units) -> None:
    if a is b:
        return
    if a.is_fixed or b.is_fixed or (a.pieces and b.selected) or (b.pieces and a.selected):
        _fix([a, b])
    if a.pieces and b.pieces:
        if [_size(piece) for piece in a.pieces] == [_size(piece) for piece in b.pieces]:
            for one, other in zip(a.pieces, b.pieces, strict=True):
                _unify(one, other)
        else:
            _fix([a, b])
    a, b = (b, a) if b.pieces else (a, b)
    a, b = _root(a), _root(b)
    if a is b:
        return
    _limit([a], b.turn)
    _limit([b], a.turn)
    b.same = a
    a.within += b.within
    for at, index, units in b.selected:
        if (known := _known(a, at, index)) is None:
            a.selected.append((at, index, units))
        else:
            _unify([known], [units])


def _known(units: Units, at: Units, index: int) -> Units | None:
    for other, i, found in units.selected:
        if _root(other) is _root(at) and i == index:
            return found
    return None


def _at(units: Units, at: Units, index: int) -> Units:
    """Return what `units` are at one index of `at`."""
    if units.is_fixed or units.pieces or at not in _leaves(units.within):
        return units
    if (known := _known(units, at, index)) is None:
        within = [_at(each, at, index) for each in _leaves(units.within) if each is not at]
        known = Units(units.size, turn=units.turn, within=within)
        units.selected.append((at, index, known))
    return known


def _select(axes: Axes, dim: int, index: int) -> Axes:
    chosen = _leaves(axes[dim])
    others = axes[:dim] + axes[dim + 1 :]
    _fix(axes[dim])
    if len(chosen) != 1:
        return others
    size = chosen[0].size
    return [[_at(units, chosen[0], index % size) for units in _leaves(axis)] for axis in others]


def _cut(axis: Axis, start: int, stop: int) -> Axis:
    """Return a part of an axis."""
    size, leaves = _size(axis), _leaves(axis)
    if (start, stop) == (0, size):
        return axis
    if len(leaves) != 1 or leaves[0].is_fixed or leaves[0].selected:
        _fix(axis)
        return _fixed(stop - start)[0]
    units = leaves[0]
    if units.pieces is None:
        sizes = (start, stop - start, size - stop)
        units.pieces = [[Units(n, turn=units.turn, within=units.within)] for n in sizes if n]
    found, at, new = [], 0, []
    for piece in units.pieces:
        low, high = max(start - at, 0), min(stop - at, _size(piece))
        at += _size(piece)
        part = [_cut(piece, low, high)] if low < high else []
        found += part
        inside = _leaves(piece)
        new += (inside[0].pieces if len(inside) == 1 else None) or [piece]
    units.pieces = new
    return found[0] if len(found) == 1 else _join(found)


def _join(parts: Axes) -> Axis:
    joined = Units(sum(map(_size, parts)))
    joined.pieces = parts
    if all(units.is_fixed for part in parts for units in _leaves(part)):
        _fix([joined])
    return [joined]


def blocks(tensor: Tensor, axes: Axes) -> Iterator[Block]:
    """Yield the parts of a contiguous tensor as views whose axes are single units."""
    units = [each for axis in axes for each in _leaves(axis)]
    view = tensor.view([each.size for each in units])
    for dim, each in enumerate(units):
        if each.pieces:
            start = 0
            for piece in each.pieces:
                part = [[other] for other in units]
                part[dim] = piece
                yield from blocks(view.narrow(dim, start, _size(piece)), part)
                start += _size(piece)
            return
        at = next((_root(at) for at, _, _ in each.selected if _root(at) in units), None)
        if at is not None:
            dim = units.index(at)
            for index in range(at.size):
                part = [[_at(other, at, index)] for other in units]
                part[dim] = []
                yield from blocks(view.narrow(dim, index, 1), part)
            return
    yield view, tuple(units)


# --- operations -----------------------------------------------------------------------------------

_Rule = Callable[["_Observer", dict[str, Any], Any], list[Axes]]
_RULES: dict[str, _Rule] = {}


def _rule(*names: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def _dims(dims: int | Sequence[int] | None, ndim: int) -> list[int]:
    given = [dims] if isinstance(dims, int) else dims
    return sorted(dim % ndim for dim in given) if given else list(range(ndim))


def _broadcast(every: Iterable[Axes], shape: Sequence[int]) -> Axes:
    """Make the axes of tensors that are broadcast to a shape the same, and return them."""
    result: Axes = [[] for _ in shape]
    for axes in every:
        for k in range(1, len(axes) + 1):
            if _size(axes[-k]) > 1:
                if result[-k]:
                    _unify(result[-k], axes[-k])
                else:
                    result[-k] = axes[-k]
    return result


_COPIES = ("clone", "detach", "alias", "_to_copy", "copy", "lift_fresh")


@_rule(  # beside those that PyTorch tags as pointwise
    *(*_COPIES, "fill", "zero"),
    *("_softmax", "_safe_softmax", "_log_softmax", "_prelu_kernel", "hardswish", "hardsigmoid"),
)
def _pointwise(seen: "_Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    tensors = [each for each in tree_leaves(given) if isinstance(each, Tensor)]
    axes, name = _broadcast(map(seen.axes_of, tensors), out.shape), given["name"]
    for k, axis in enumerate(axes, start=-len(axes)):
        having = [_has(tensor, k) for tensor in tensors]
        if name in ("mul", "div"):
            is_exact = not given.get("rounding_mode")
            is_linear = is_exact and sum(having) == 1 and (name == "mul" or having[0])
        else:
            is_sum = name in ("add", "sub") and isinstance(given["other"], Tensor)
            is_linear = all(having) and (is_sum or name in (*_COPIES, "neg"))
        if not is_linear:
            _limit(axis)
    return [axes]


def _has(tensor: Tensor, dim: int) -> bool:
    """Return whether a tensor has an axis, counted from the last, or is the same all along it."""
    return tensor.ndim >= -dim and tensor.shape[dim] > 1


@_rule("new_zeros", "new_ones", "new_full", "new_empty")
def _constant(seen: "_Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    return [_fixed(*out.shape)]


@_rule("mm", "bmm", "addmm", "baddbmm")
def _product(seen: "_Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    tensors = [each for each in given.values() if isinstance(each, Tensor)]
    (*batch, rows, inner), right = map(seen.axes_of, tensors[-2:])
    (*other, middle, columns) = right
    _unify(inner, middle)
    for a, b in zip(batch, other, strict=True):
        _unify(a, b)
        _limit(a)
    axes = [*batch, rows, columns]
    for bias in tensors[:-2]:
        axes = _broadcast([axes, seen.axes_of(bias)], out.shape)
        for k, axis in enumerate(axes, start=-len(axes)):
            if not _has(bias, k):
                _limit(axis)
    seen.products.append((tensors[-2:], tensors[:-2]))
    return [axes]


@_rule("convolution")
def _convolution(seen: "_Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    (batch, channels, *space), weight = seen.axes_of(given["input"]), seen.axes_of(given["weight"])
    groups, is_transposed = given["groups"], given["transposed"]
    for axis in [*space, *weight[2:]]:
        _fix(axis)
    first, second = weight[:2]
    if groups > 1:
        for axis in (channels, first, second):
            _limit(axis)
    # One of the axes of a weight lists the channels of all groups, the other those of one.
    outer, inner = _regroup(channels, (groups, _size(channels) // groups))
    group, rest = _regroup(first, (groups, _size(first) // groups))
    _unify(outer, group)
    _unify(inner, rest if is_transposed else second)
    made = [*group, *(second if is_transposed else rest)]
    if given["bias"] is not None:
        _unify(made, seen.axes_of(given["bias"])[0])
        _limit(batch)
    return [[batch, made, *_fixed(*out.shape[2:])]]


@_rule(
    "native_batch_norm",
    "cudnn_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "native_group_norm",
)
def _channel_norm(seen: "_Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    axes = seen.axes_of(given["input"])
    if "group" in given:
        _regroup(axes[1], (given["group"], _size(axes[1]) // given["group"]))
    for axis in axes:
        _limit(axis)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if given.get(name) is not None:
            _unify(axes[1], seen.axes_of(given[name])[0])
    return [axes]


@_rule("native_layer_norm")
def _layer_norm(seen: "_Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    axes = seen.axes_of(given["input"])
    learned = [given[name] for name in ("weight", "bias") if given[name] is not None]
    (*others, last) = axes
    for axis in others:
        _limit(axis)
    is_one = len(given["normalized_shape"]) == 1
    _limit(last, Turn.CENTERED if is_one else Turn.NONE)
    if seen.gains is not None and given["weight"] is not None and is_one:
        own = [Units(_size(last))]
        for each in learned:
            _unify(own, seen.axes_of(each)[0])
        seen.gains.append((learned, own))
        return [[*others, own]]
    if given["weight"] is not None and not _is_constant(given["weight"]):
        _limit(last)
    return [_broadcast([axes, *map(seen.axes_of, learned)], given["input"].shape)]


def _is_constant(gain: Tensor) -> bool:
    return bool((gain - gain.mean()).abs().max() <= 1e-5 * gain.mean().abs())  # up to rounding


@_rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
)
def _attention(seen: "_Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    query, key, value = (seen.axes_of(given[name]) for name in ("query", "key", "value"))
    if given["query"].shape[:2] != given["key"].shape[:2]:
        raise _UnknownError
    for a, b in [*zip(query[:2], key[:2], strict=True), *zip(key[:3], value[:3], strict=True)]:
        _unify(a, b)
    _unify(query[3], key[3])
    scores = [*query[:3], key[2]]
    for axis in scores:
        _limit(axis)
    mask = given.get("attn_mask", given.get("attn_bias"))
    if mask is not None:
        _broadcast([scores, seen.axes_of(mask)], [_size(axis) for axis in scores])
    if given["is_causal"]:
        _fix(query[2])
        _fix(key[2])
    return [[*query[:3], value[3]]]


@_rule("mean", "sum", "amax", "amin", "var", "std", "var_mean", "logsumexp", "linalg_vector_norm")
def _reduction(seen: "_Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    axes = seen.axes_of(given["self"])
    gone = _dims(given.get("dim"), len(axes))
    for k, axis in enumerate(axes):
        if k in gone or given["name"] not in ("mean", "sum"):
            _limit(axis)
    kept = [[] if k in gone else axis for k, axis in enumerate(axes)]
    if not given.get("keepdim"):
        kept = [axis for k, axis in enumerate(kept) if k not in gone]
    return [kept] * (len(out) if isinstance(out, tuple) else 1)


_POOLINGS = ("max_pool{}d_with_indices", "avg_pool{}d", "_adaptive_avg_pool{}d")
_RESIZED = (
    "adaptive_max_pool{}d",
    "upsample_nearest{}d",
    "reflection_pad{}d",
    "replication_pad{}d",
)


@_rule(
    *(name.format(n) for name in _POOLINGS + _RESIZED for n in (1, 2, 3)),
    "upsample_bilinear2d",
    "upsample_bicubic2d",
)
def _pooling(seen: "_Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    axes = seen.axes_of(given["self"])
    result = out[0] if isinstance(out, tuple) else out
    for axis in axes[2:]:
        _fix(axis)
    for axis in axes if "max" in given["name"] else []:
        _limit(axis)
    return [[*axes[:2], *_fixed(*result.shape[2:])]]


@_rule("constant_pad_nd")
def _padding(seen: "_Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    axes = list(seen.axes_of(given["self"]))
    for axis in axes if given["value"] else []:
        _limit(axis)
    for k in range(len(given["pad"]) // 2):
        if any(given["pad"][2 * k : 2 * k + 2]):
            _fix(axes[-1 - k])
            axes[-1 - k] = _fixed(out.shape[-1 - k])[0]
    return [axes]


@_rule("view", "_unsafe_view", "reshape", "_reshape_alias")
def _view(seen: "_Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    return [_regroup([u for axis in seen.axes_of(given["self"]) for u in axis], out.shape)]


@_rule("as_strided")
def _restriding(seen: "_Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    """A mean over images in channels_last ends in new strides of axes of size 1: no change."""
    before, after = given["place"], _place(out)
    if before != after:
        raise _UnknownError
    return [seen.axes_of(given["self"])]


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Return where the elements of a tensor lie in its storage."""
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.storage_offset(), [(n, stride) if n > 1 else n for n, stride in strides]


@_rule("permute", "transpose", "t", "unsqueeze", "squeeze", "expand")
def _rearrangement(seen: "_Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    axes, name = seen.axes_of(given["self"]), given["name"]
    ndim = len(axes)
    if name == "permute":
        return [[axes[k] for k in given["dims"]]]
    if name in ("transpose", "t"):
        order = list(range(ndim))
        a, b = (given["dim0"], given["dim1"]) if name == "transpose" else (0, ndim - 1)
        order[a], order[b] = order[b], order[a]
        return [[axes[k] for k in order]]
    if name == "unsqueeze":
        dim = given["dim"] % (ndim + 1)
        return [[*axes[:dim], [], *axes[dim:]]]
    if name == "squeeze":
        gone = [k for k in _dims(given.get("dim"), ndim) if given["self"].shape[k] == 1]
        return [[axis for k, axis in enumerate(axes) if k not in gone]]
    old: Axes = [[] for _ in range(out.ndim - ndim)] + axes
    return [
        [
            # Copies are alike in each place.
            axis if _size(axis) == size else [Units(size, turn=Turn.NONE)]
            for axis, size in zip(old, out.shape, strict=True)
        ]
    ]


@_rule("select")
def _selection(seen: "_Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    axes = seen.axes_of(given["self"])
    return [_select(axes, given["dim"] % len(axes), given["index"])]


@_rule("unbind")
def _unbinding(seen: "_Observer", given: dict[str, Any], out: Sequence[Tensor]) -> list[Axes]:
    axes = seen.axes_of(given["self"])
    return [_select(axes, given["dim"] % len(axes), index) for index in range(len(out))]


@_rule("slice", "split", "split_with_sizes")
def _slicing(seen: "_Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    axes = seen.axes_of(given["self"])
    dim = given["dim"] % len(axes)
    size = _size(axes[dim])
    parts = list(out) if isinstance(out, (tuple, list)) else [out]
    start = given.get("start") or 0
    start = max(start + size, 0) if start < 0 else min(start, size)
    results = []
    for part in parts:
        length = part.shape[dim]
        if given.get("step", 1) != 1:
            _fix(axes[dim])
            new = [*axes[:dim], *_fixed(length), *axes[dim + 1 :]]
        elif length == 1 < size:
            new = _select(axes, dim, start)
            new.insert(dim, [])
        else:
            new = [*axes[:dim], _cut(axes[dim], start, start + length), *axes[dim + 1 :]]
        results.append(new)
        start += length
    return results


@_rule("cat")
def _concatenation(seen: "_Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    tensors = [each for each in given["tensors"] if each.numel()]
    every, dim = [seen.axes_of(each) for each in tensors], given["dim"] % out.ndim
    axes = _broadcast([[*each[:dim], [], *each[dim + 1 :]] for each in every], out.shape)
    axes[dim] = _join([each[dim] for each in every])
    return [axes]


@_rule("stack")
def _stacking(seen: "_Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    dim = given["dim"] % out.ndim
    axes = _broadcast(map(seen.axes_of, given["tensors"]), given["tensors"][0].shape)
    return [[*axes[:dim], *_fixed(out.shape[dim]), *axes[dim:]]]


@_rule("index", "index_select", "flip", "roll", "embedding")
def _by_place(seen: "_Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    """What takes the elements of some axes by their places fixes these."""
    axes = list(seen.axes_of(given["weight" if given["name"] == "embedding" else "self"]))
    if given["name"] in ("flip", "roll"):
        for dim in _dims(given["dims"], len(axes)):
            _fix(axes[dim])
        return [axes]
    dim, indices = given.get("dim", 0), given["index" if "index" in given else "indices"]
    if isinstance(indices, (tuple, list)):
        (dim, *more) = [k for k, each in enumerate(indices) if each is not None]
        indices = indices[dim]
        if more or indices.dtype == torch.bool:
            raise _UnknownError
    for axis in [axes[dim], *seen.axes_of(indices)]:
        _fix(axis)
    axes[dim : dim + 1] = _fixed(*indices.shape)
    return [axes]


class _UnknownError(Exception):
    """An operation has no rule."""


class _Observer(TorchDispatchMode):
    """Observes the operations of a forward pass.

    Attributes:
        tensors: the tensors seen, in order, each with its axes; None for what has no known ones.
        used: ids of those that an operation took.
        products: of each matrix product its two factors, and what is added to it.
        gains: None, or of each LayerNorm what it has learned, and the units of its output, which
            are then taken for other ones than those of its input.
    """

    def __init__(self, known: Iterable[tuple[Tensor, Axes]], *, is_apart: bool = False) -> None:
        """Take the tensors whose axes are known, and whether LayerNorms make new units."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: list[tuple[list[Tensor], list[Tensor]]] = []
        self.gains: list[tuple[list[Tensor], Axis]] | None = [] if is_apart else None
        # The tensors are kept too: the id of one that is gone may come again.
        self.tensors: dict[int, tuple[Tensor, Axes | None]] = {}
        self.used: set[int] = set()
        for tensor, axes in known:
            self.tensors[id(tensor)] = tensor, axes

    def axes_of(self, tensor: Tensor) -> Axes:
        """Return a tensor's axes; those of a constant are fixed."""
        self.used.add(id(tensor))
        _, axes = self.tensors.setdefault(id(tensor), (tensor, _fixed(*tensor.shape)))
        if axes is None:
            raise _UnknownError
        return axes

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation, and note the axes of its outputs."""
        named = kwargs or {}
        tensors = [each for each in tree_leaves((args, named)) if isinstance(each, Tensor)]
        place = _place(tensors[0]) if tensors else None
        out = func(*args, **named)
        outputs = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        name = func._schema.name.removeprefix("aten::")
        name = name if name in _RULES else name.removesuffix("_")
        try:
            known = [u for t in tensors for axis in self.axes_of(t) for u in _leaves(axis)]
            if name != "expand" and all(units.is_fixed for units in known):
                axes = [_fixed(*each.shape) for each in outputs]
            else:
                rule = _pointwise if torch.Tag.pointwise in func.tags else _RULES.get(name)
                if rule is None:
                    raise _UnknownError
                arguments = func._schema.arguments
                given = {a.name: a.default_value for a in arguments if a.has_default_value()}
                given |= {a.name: value for a, value in zip(arguments, args, strict=False)}
                axes = rule(self, given | named | {"name": name, "place": place}, out)
        except _UnknownError:
            raise InputError(
                f"the network can't be aligned: it does {func} to units that might be permuted "
                f"(tensors of shapes {[tuple(each.shape) for each in tensors]}), and what that "
                "does to permutations isn't known. Write that part of the network differently."
            ) from None
        every: list[Axes | None] = [*axes, *[None] * (len(outputs) - len(axes))]
        for tensor, found in zip(outputs, every, strict=True):
            self.tensors.setdefault(id(tensor), (tensor, found))
        return out


# --- networks -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Group:
    """Units that are permuted together, wherever they occur.

    Attributes:
        units: the units, such as the channels of a residual stream or the heads of an attention.
        inner: units inside each of them, which are permuted or rotated differently for each.
    """

    units: Units
    inner: tuple[Units, ...]


@dataclass(frozen=True)
class Norm:
    """A LayerNorm over one axis.

    Attributes:
        gain: name of its weight.
        shift: name of its bias, if it has one.
        readers: of the weights that its output is multiplied with the name, the axis that is
            summed over, and the name of the bias that is added then, if there is one.
    """

    gain: str
    shift: str | None
    readers: tuple[tuple[str, int, str | None], ...]


@dataclass(frozen=True)
class Symmetry:
    """The symmetries of a network, each group's permutations, or rotations if its `turn` says so.

    Attributes:
        groups: in the order of the parameters.
        axes: name of a parameter or buffer -> the units along its axes; tied ones once.
        parameters: names of those that are parameters.
        tied: alias -> name.
        activations: the units along the axes of what the forward pass computes, in its order.
    """

    groups: tuple[Group, ...]
    axes: Mapping[str, Axes]
    parameters: tuple[str, ...]
    tied: Mapping[str, str]
    activations: tuple[Axes | None, ...]

    def places(self, group: Group) -> list[tuple[str, int]]:
        """Return the names of the tensors that the units of a group lie in, and the axes there."""
        return [
            (name, dim)
            for name, axes in self.axes.items()
            for dim, axis in enumerate(axes)
            if group.units in _units([axis])
        ]


def find_symmetry(model: nn.Module, inputs: Input, *, rotations: bool = False) -> Symmetry:
    """Find what may be done to its units so that the function of a network stays the same.

    Args:
        model: a module on the CPU.
        inputs: what it takes; only the operations that it does to them count, in evaluation mode.
        rotations: whether to rotate what can be; else all is permuted. A LayerNorm's units can be
            where its gains are equal: see `fold_gains`.

    Raises:
        InputError: if it does an operation that no rule is known for.
    """
    named, tied = _named(model)
    axes = {
        name: [[Units(n, is_fixed=not tensor.is_floating_point())] for n in tensor.shape]
        for name, tensor in named.items()
    }
    seen = _observe(model, inputs, [(named[name], each) for name, each in axes.items()])
    for name, each in axes.items():
        if id(named[name]) not in seen.used:
            for axis in each:
                _fix(axis)
    every = list(seen.tensors.values())
    groups = _settle(
        [(tensor, each) for tensor, each in every if each is not None and tensor.numel()]
    )
    for group in groups:
        if group.inner or not rotations:  # what has units inside is permuted
            _limit([group.units])
        for inner in group.inner if not rotations else ():
            _limit([inner])
    order = list(dict.fromkeys(units for each in axes.values() for units in _units(each)))
    return Symmetry(
        groups=tuple(
            sorted(
                (group for group in groups if group.units in order),
                key=lambda group: order.index(group.units),
            )
        ),
        axes=axes,
        parameters=tuple(name for name, t in named.items() if isinstance(t, nn.Parameter)),
        tied=tied,
        activations=tuple(each for _, each in every[len(axes) :]),
    )


def find_norms(model: nn.Module, inputs: Input) -> list[Norm]:
    """Find the LayerNorms that nothing but linear maps read the output of.

    That is what operations are seen; what else there may be has to be found by trying.
    """
    named, tied = _named(model)
    axes: dict[str, Axes] = {name: [[Units(n)] for n in t.shape] for name, t in named.items()}
    known = [(named[name], each) for name, each in axes.items()]
    seen = _observe(model, inputs, known, is_apart=True)
    names = {_storage(tensor): name for name, tensor in named.items() if tensor.numel()}
    biases: dict[str, str | None] = {}
    for factors, added in seen.products:
        for name in filter(None, (names.get(_storage(factor)) for factor in factors)):
            bias = names.get(_storage(added[0])) if added else None
            biases[name] = bias if biases.get(name, bias) == bias else None
    found = []
    for learned, axis in seen.gains or []:
        leaves = _leaves(axis)
        gain, *shift = [names.get(_storage(each), "") for each in learned]
        readers = [
            (name, dim, biases.get(name))
            for name, each in axes.items()
            for dim, units in enumerate(each)
            if _leaves(units) == leaves and name not in (gain, *shift)
        ]
        concerned = {gain, *shift, *(name for name, *_ in readers)}
        is_linear = len(leaves) == 1 and not leaves[0].is_fixed and leaves[0].turn == Turn.ANY
        if is_linear and "" not in concerned and not concerned & set(tied.values()):
            found.append(Norm(gain, next(iter(shift), None), tuple(readers)))
    return found


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def observe(model: nn.Module, inputs: Input) -> list[Tensor]:
    """Return what a forward pass computes, in the order of `Symmetry.activations`."""
    named, _ = _named(model)
    known = [(tensor, [[Units(n)] for n in tensor.shape]) for tensor in named.values()]
    return [tensor for tensor, _ in _observe(model, inputs, known).tensors.values()][len(named) :]


def _named(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a state dict under their first names, and alias -> first name."""
    saved = {k: t for k, t in model.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(tensor), name) for name, tensor in saved.items()}
    tied = {alias: name for alias, name in names.items() if alias != name}
    return {name: saved[name] for name in first.values()}, tied


def _observe(
    model: nn.Module,
    inputs: Input,
    known: Iterable[tuple[Tensor, Axes]],
    *,
    is_apart: bool = False,
) -> _Observer:
    seen = _Observer(known, is_apart=is_apart)
    was_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it would hide an attention in one operation
    try:
        with torch.no_grad(), evaluation_mode(model), seen:
            output = output_tensors(call_model(model, inputs))
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fast)
    if output is None:
        raise InputError("the model returns something else than tensors; wrap it.")
    for tensor in parts_of(output):
        for axis in seen.axes_of(tensor):
            _fix(axis)
    return seen


def _units(axes: Axes) -> Iterator[Units]:
    """Yield the units of a tensor, in all its parts."""
    shape = [_size(axis) for axis in axes]
    for _, units in blocks(torch.empty(shape, device="meta"), axes):
        yield from units


def _settle(every: Sequence[tuple[Tensor, Axes]]) -> list[Group]:
    """Take back what doesn't hold in all tensors, and return the groups.

    Units that differ from place to place along others have to lie beside these in each tensor.
    """
    while True:
        found = [
            units
            for tensor, axes in every
            for _, units in blocks(torch.empty(tensor.shape, device="meta"), axes)
        ]
        alone = dict.fromkeys(units for each in found for units in each if units.selected)
        for units in alone:
            selected, units.selected = units.selected, []
            for _, _, each in selected:
                _unify([units], [each])
        if not alone:
            break
    free = dict.fromkeys(units for each in found for units in each if not units.is_fixed)
    within: dict[Units, Units] = {}
    for units in free:
        for outer in _leaves(units.within):
            beside = all(each.count(outer) == 1 for each in found if units in each)
            if outer in free and outer is not units and outer not in within and beside:
                within[units] = outer
                break
    for outer in set(within.values()) & within.keys():  # two levels are enough
        del within[outer]
    for units in free:
        units.within = [within[units]] if units in within else []
    return [
        Group(units, tuple(inner for inner in free if within.get(inner) is units))
        for units in free
        if units not in within
    ]
