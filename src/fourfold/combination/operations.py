"""What the operations of a forward pass do to the units along the axes of tensors.

A rule for each of them (ATen's, so that it doesn't matter how the module is written).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fourfold.combination.units import (
    Axes,
    Axis,
    Turn,
    Units,
    cut,
    fix,
    fixed_axes,
    join,
    leaves_of,
    limit,
    regroup,
    select,
    size_of,
    unify,
)
from fourfold.errors import InputError

_Rule = Callable[["Observer", dict[str, Any], Any], list[Axes]]
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
            if size_of(axes[-k]) > 1:
                if result[-k]:
                    unify(result[-k], axes[-k])
                else:
                    result[-k] = axes[-k]
    return result


_COPIES = ("clone", "detach", "alias", "_to_copy", "copy", "lift_fresh")


@_rule(  # beside those that PyTorch tags as pointwise
    *(*_COPIES, "fill", "zero"),
    *("_softmax", "_safe_softmax", "_log_softmax", "_prelu_kernel", "hardswish", "hardsigmoid"),
)
def _pointwise(seen: "Observer", given: dict[str, Any], out: Any) -> list[Axes]:
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
            limit(axis)
    return [axes]


def _has(tensor: Tensor, dim: int) -> bool:
    """Return whether a tensor has an axis, counted from the last, or is the same all along it."""
    return tensor.ndim >= -dim and tensor.shape[dim] > 1


@_rule("new_zeros", "new_ones", "new_full", "new_empty")
def _constant(seen: "Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    return [fixed_axes(*out.shape)]


@_rule("mm", "bmm", "addmm", "baddbmm")
def _product(seen: "Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    tensors = [each for each in given.values() if isinstance(each, Tensor)]
    (*batch, rows, inner), right = map(seen.axes_of, tensors[-2:])
    (*other, middle, columns) = right
    unify(inner, middle)
    for a, b in zip(batch, other, strict=True):
        unify(a, b)
        limit(a)
    axes = [*batch, rows, columns]
    for bias in tensors[:-2]:
        axes = _broadcast([axes, seen.axes_of(bias)], out.shape)
        for k, axis in enumerate(axes, start=-len(axes)):
            if not _has(bias, k):
                limit(axis)
    seen.products.append((tensors[-2:], tensors[:-2]))
    return [axes]


@_rule("convolution")
def _convolution(seen: "Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    (batch, channels, *space), weight = seen.axes_of(given["input"]), seen.axes_of(given["weight"])
    groups, is_transposed = given["groups"], given["transposed"]
    for axis in [*space, *weight[2:]]:
        fix(axis)
    first, second = weight[:2]
    if groups > 1:
        for axis in (channels, first, second):
            limit(axis)
    # One of the axes of a weight lists the channels of all groups, the other those of one.
    outer, inner = regroup(channels, (groups, size_of(channels) // groups))
    group, rest = regroup(first, (groups, size_of(first) // groups))
    unify(outer, group)
    unify(inner, rest if is_transposed else second)
    made = [*group, *(second if is_transposed else rest)]
    if given["bias"] is not None:
        unify(made, seen.axes_of(given["bias"])[0])
        limit(batch)
    return [[batch, made, *fixed_axes(*out.shape[2:])]]


@_rule(
    "native_batch_norm",
    "cudnn_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "native_group_norm",
)
def _channel_norm(seen: "Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    axes = seen.axes_of(given["input"])
    if "group" in given:
        regroup(axes[1], (given["group"], size_of(axes[1]) // given["group"]))
    for axis in axes:
        limit(axis)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if given.get(name) is not None:
            unify(axes[1], seen.axes_of(given[name])[0])
    return [axes]


@_rule("native_layer_norm")
def _layer_norm(seen: "Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    axes = seen.axes_of(given["input"])
    learned = [given[name] for name in ("weight", "bias") if given[name] is not None]
    (*others, last) = axes
    for axis in others:
        limit(axis)
    is_one = len(given["normalized_shape"]) == 1
    limit(last, Turn.CENTERED if is_one else Turn.NONE)
    if seen.gains is not None and given["weight"] is not None and is_one:
        own = [Units(size_of(last))]
        for each in learned:
            unify(own, seen.axes_of(each)[0])
        seen.gains.append((learned, own))
        return [[*others, own]]
    if given["weight"] is not None and not is_constant(given["weight"]):
        limit(last)
    return [_broadcast([axes, *map(seen.axes_of, learned)], given["input"].shape)]


def is_constant(gain: Tensor) -> bool:
    """Return whether all entries are one number."""
    return bool((gain - gain.mean()).abs().max() <= 1e-5 * gain.mean().abs())  # up to rounding


@_rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
)
def _attention(seen: "Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    query, key, value = (seen.axes_of(given[name]) for name in ("query", "key", "value"))
    if given["query"].shape[:2] != given["key"].shape[:2]:
        raise _UnknownError
    for a, b in [*zip(query[:2], key[:2], strict=True), *zip(key[:3], value[:3], strict=True)]:
        unify(a, b)
    unify(query[3], key[3])
    scores = [*query[:3], key[2]]
    for axis in scores:
        limit(axis)
    mask = given.get("attn_mask", given.get("attn_bias"))
    if mask is not None:
        _broadcast([scores, seen.axes_of(mask)], [size_of(axis) for axis in scores])
    if given["is_causal"]:
        fix(query[2])
        fix(key[2])
    return [[*query[:3], value[3]]]


@_rule("mean", "sum", "amax", "amin", "var", "std", "var_mean", "logsumexp", "linalg_vector_norm")
def _reduction(seen: "Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    axes = seen.axes_of(given["self"])
    gone = _dims(given.get("dim"), len(axes))
    for k, axis in enumerate(axes):
        if k in gone or given["name"] not in ("mean", "sum"):
            limit(axis)
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
def _pooling(seen: "Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    axes = seen.axes_of(given["self"])
    result = out[0] if isinstance(out, tuple) else out
    for axis in axes[2:]:
        fix(axis)
    for axis in axes if "max" in given["name"] else []:
        limit(axis)
    return [[*axes[:2], *fixed_axes(*result.shape[2:])]]


@_rule("constant_pad_nd")
def _padding(seen: "Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    axes = list(seen.axes_of(given["self"]))
    for axis in axes if given["value"] else []:
        limit(axis)
    for k in range(len(given["pad"]) // 2):
        if any(given["pad"][2 * k : 2 * k + 2]):
            fix(axes[-1 - k])
            axes[-1 - k] = fixed_axes(out.shape[-1 - k])[0]
    return [axes]


@_rule("view", "_unsafe_view", "reshape", "_reshape_alias")
def _view(seen: "Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    return [regroup([u for axis in seen.axes_of(given["self"]) for u in axis], out.shape)]


@_rule("as_strided")
def _restriding(seen: "Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
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
def _rearrangement(seen: "Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
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
            axis if size_of(axis) == size else [Units(size, turn=Turn.NONE)]
            for axis, size in zip(old, out.shape, strict=True)
        ]
    ]


@_rule("select")
def _selection(seen: "Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    axes = seen.axes_of(given["self"])
    return [select(axes, given["dim"] % len(axes), given["index"])]


@_rule("unbind")
def _unbinding(seen: "Observer", given: dict[str, Any], out: Sequence[Tensor]) -> list[Axes]:
    axes = seen.axes_of(given["self"])
    return [select(axes, given["dim"] % len(axes), index) for index in range(len(out))]


@_rule("slice", "split", "split_with_sizes")
def _slicing(seen: "Observer", given: dict[str, Any], out: Any) -> list[Axes]:
    axes = seen.axes_of(given["self"])
    dim = given["dim"] % len(axes)
    size = size_of(axes[dim])
    parts = list(out) if isinstance(out, (tuple, list)) else [out]
    start = given.get("start") or 0
    start = max(start + size, 0) if start < 0 else min(start, size)
    results = []
    for part in parts:
        length = part.shape[dim]
        if given.get("step", 1) != 1:
            fix(axes[dim])
            new = [*axes[:dim], *fixed_axes(length), *axes[dim + 1 :]]
        elif length == 1 < size:
            new = select(axes, dim, start)
            new.insert(dim, [])
        else:
            new = [*axes[:dim], cut(axes[dim], start, start + length), *axes[dim + 1 :]]
        results.append(new)
        start += length
    return results


@_rule("cat")
def _concatenation(seen: "Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    tensors = [each for each in given["tensors"] if each.numel()]
    every, dim = [seen.axes_of(each) for each in tensors], given["dim"] % out.ndim
    axes = _broadcast([[*each[:dim], [], *each[dim + 1 :]] for each in every], out.shape)
    axes[dim] = join([each[dim] for each in every])
    return [axes]


@_rule("stack")
def _stacking(seen: "Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    dim = given["dim"] % out.ndim
    axes = _broadcast(map(seen.axes_of, given["tensors"]), given["tensors"][0].shape)
    return [[*axes[:dim], *fixed_axes(out.shape[dim]), *axes[dim:]]]


@_rule("index", "index_select", "flip", "roll", "embedding")
def _by_place(seen: "Observer", given: dict[str, Any], out: Tensor) -> list[Axes]:
    """What takes the elements of some axes by their places fixes these."""
    axes = list(seen.axes_of(given["weight" if given["name"] == "embedding" else "self"]))
    if given["name"] in ("flip", "roll"):
        for dim in _dims(given["dims"], len(axes)):
            fix(axes[dim])
        return [axes]
    dim, indices = given.get("dim", 0), given["index" if "index" in given else "indices"]
    if isinstance(indices, (tuple, list)):
        (dim, *more) = [k for k, each in enumerate(indices) if each is not None]
        indices = indices[dim]
        if more or indices.dtype == torch.bool:
            raise _UnknownError
    for axis in [axes[dim], *seen.axes_of(indices)]:
        fix(axis)
    axes[dim : dim + 1] = fixed_axes(*indices.shape)
    return [axes]


class _UnknownError(Exception):
    """An operation has no rule."""


class Observer(TorchDispatchMode):
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
        _, axes = self.tensors.setdefault(id(tensor), (tensor, fixed_axes(*tensor.shape)))
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
            known = [u for t in tensors for axis in self.axes_of(t) for u in leaves_of(axis)]
            if name != "expand" and all(units.is_fixed for units in known):
                axes = [fixed_axes(*each.shape) for each in outputs]
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
