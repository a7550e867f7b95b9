"""Which units of a network may be permuted or rotated without changing its function.

A forward pass is observed operation by operation: what an operation brings together is made one,
and what it treats by its place is fixed. The units that are free in the end, and the axes that they
lie on, are the network's permutation symmetries. Those that nothing but linear maps take may be
rotated too: the same orthogonal matrix then acts on all axes that they lie on.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fourfold.combination.operations import Observer
from fourfold.combination.units import (
    Axes,
    Turn,
    Units,
    blocks,
    fix,
    leaves_of,
    limit,
    size_of,
    unify,
)
from fourfold.data.batches import call_model
from fourfold.data.inputs import Input, output_tensors, parts_of
from fourfold.errors import InputError
from fourfold.surfaces.layout import first_names
from fourfold.surfaces.modules import evaluation_mode


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
        InputError: if it does an operation that no rule is known for, or leaves out some of its
            parameters, where any units are free.
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
                fix(axis)
    every = list(seen.tensors.values())
    groups = _settle(
        [(tensor, each) for tensor, each in every if each is not None and tensor.numel()]
    )
    for group in groups:
        if group.inner or not rotations:  # what has units inside is permuted
            limit([group.units])
        for inner in group.inner if not rotations else ():
            limit([inner])
    order = list(dict.fromkeys(units for each in axes.values() for units in _units(each)))
    groups = [group for group in groups if group.units in order]
    if groups:
        _check_all_used(seen, named)
    return Symmetry(
        groups=tuple(sorted(groups, key=lambda group: order.index(group.units))),
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
        leaves = leaves_of(axis)
        gain, *shift = [names.get(_storage(each), "") for each in learned]
        readers = [
            (name, dim, biases.get(name))
            for name, each in axes.items()
            for dim, units in enumerate(each)
            if leaves_of(units) == leaves and name not in (gain, *shift)
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
) -> Observer:
    seen = Observer(known, is_apart=is_apart)
    was_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it would hide an attention in one operation
    try:
        with torch.no_grad(), evaluation_mode(model), seen:
            returned = call_model(model, inputs)
            output = output_tensors(returned)
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fast)
    if output is None:
        raise InputError("the model returns something else than tensors; wrap it.")
    for tensor in parts_of(output):
        for axis in seen.axes_of(tensor):
            fix(axis)
    # What is returned beside the logits and read no further is a result too, such as those of other
    # heads; hidden states are read.
    for tensor in tree_leaves([returned, vars(returned) if hasattr(returned, "__dict__") else {}]):
        _, axes = seen.tensors.get(id(tensor), (None, None))
        if axes is not None and id(tensor) not in seen.used:
            for axis in axes:
                fix(axis)
    return seen


def _check_all_used(seen: Observer, named: Mapping[str, Tensor]) -> None:
    """Refuse tensors that no operation took: what they read or change may be units that move.

    The function of the network in evaluation mode would be the same, and that of an auxiliary head,
    or of a branch that was not taken, another one. Numbers that aren't floating are no weights.
    """
    idle = [
        name
        for name, tensor in named.items()
        if tensor.is_floating_point() and tensor.numel() > 1 and id(tensor) not in seen.used
    ]
    if idle:
        raise InputError(
            "the network can't be aligned: its forward pass in evaluation mode doesn't use "
            f"{first_names(idle)}, which may take units that would be moved without them. If you "
            "don't need these layers (such as auxiliary heads of training), build the model "
            "without them and leave their tensors out of the states; else give a model with the "
            "same names whose forward runs them too, and returns what they give."
        )


def _units(axes: Axes) -> Iterator[Units]:
    """Yield the units of a tensor, in all its parts."""
    shape = [size_of(axis) for axis in axes]
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
                unify([units], [each])
        if not alone:
            break
    free = dict.fromkeys(units for each in found for units in each if not units.is_fixed)
    within: dict[Units, Units] = {}
    for units in free:
        for outer in leaves_of(units.within):
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
