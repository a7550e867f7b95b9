"""Alignment: the same networks with their hidden units moved to be close to one another."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import combinations, product
from math import ceil, isnan, prod
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from fourfold.combination.folding import difference, fold_gains
from fourfold.combination.operations import is_constant
from fourfold.combination.symmetry import Group, Symmetry, find_symmetry, observe
from fourfold.combination.units import Block, Turn, Units, blocks
from fourfold.data.batches import Preprocess, as_input, input_batches
from fourfold.data.inputs import Input, parts_of, split_input
from fourfold.errors import InputError
from fourfold.surfaces.layout import StateDict, check_same_architecture
from fourfold.surfaces.modules import copy_module, load_state, module_of

METHODS = ("auto", "weights", "activations")

_SHAPE, _MANY = 2, 2**62  # inputs to look at
_MOST_GB = 4  # of one sum of inner products: some 22,000 units
_AT_A_TIME = 20  # of these, whose activations in all layers are in memory together

# Of each group (units,) indices, or a (units, units) orthogonal matrix where they are rotated; of
# units inside others these for each of the outer ones, (outer, units) or (outer, units, units).
Moves = Mapping[Units, Tensor]


@torch.inference_mode(False)  # operations can't be observed in it
def align(
    states: Sequence[StateDict],
    model: nn.Module,
    images: Any,
    *,
    method: str = "auto",
    reference: int | str = 0,
    rotations: bool = True,
    preprocess: Preprocess | None = None,
) -> list[dict[str, Tensor]]:
    """Permute and rotate the hidden units of networks so that they lie close to one another.

    Which units can change places is found by observing a forward pass in evaluation mode
    (`find_symmetry`). A network that has layers which don't run then, such as auxiliary heads, is
    refused: these may take units that are moved. Each group of units (the channels of a layer or of
    a residual stream, the heads of an attention and the units in each head) is matched in turn by a
    linear assignment that maximizes

        sum over tensors of <reference, permuted>,

    the other groups as they are, until none changes; once from the network as it is, once from a
    first pass that matches each group to what is already matched, and the better one counts. With
    `weights` the distance to the reference never grows by permutations; where gains were moved for
    rotations (below), it is the distance after that. Computed on the CPU; nothing is random.

    Units that nothing but linear maps take, such as queries and keys in a head, are matched by an
    orthogonal matrix instead, which a singular value decomposition gives. So is a transformer's
    residual stream, by one that keeps the mean of its units, once what the gains of its LayerNorms
    have for each unit is moved into the weights after them (`fold_gains`), in the reference too.

    Args:
        states: state dicts of one architecture.
        model: a module of it; it is copied, not changed.
        images: (n, ...) some of its inputs, or batches, of which the first is taken; as in
            `predict`. For `weights` only their shape matters, and two are enough; for
            `activations` give some hundred, in equal parts of at most 20: at most one for each part
            is left out.
        method: `weights`, or `activations`: the inner products are those of the standardized
            activations instead, that is, correlations of units; or `auto`: `weights`
            where some units can be rotated, as in a transformer, and `activations` elsewhere,
            which did better (docs/decisions.md).
        reference: index of the network that the others are matched to, or `mean`: each is
            matched to the mean of the others, in turn, until none changes.
        rotations: whether units may be rotated; else all are permuted, and no gains are moved.
        preprocess: as in `train`.

    Returns:
        State dicts of networks with the same functions, up to rounding, in the same order; they
        share no memory with `states`. BatchNorm statistics are permuted with their channels.

    Raises:
        InputError: if a network does something to its units that no permutation is known for, or
            has parameters that its forward pass in evaluation mode doesn't use; if the networks are
            of different architectures; if there are no images, or they hold a NaN.

    Reference: Ainsworth, Hayase, Srinivasa, "Git Re-Basin: Merging Models modulo Permutation
    Symmetries", ICLR 2023, algorithms 1 and 3; of rotations Theus et al., "Generalized Linear Mode
    Connectivity for Transformers", NeurIPS 2025.
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}; choose one of {', '.join(METHODS)}.")
    if type(rotations) is not bool:
        raise InputError(f"rotations is {rotations!r}; give True or False.")
    if not states:
        raise InputError("an alignment needs at least one network, got none.")
    indices = range(len(states))
    if reference != "mean" and (type(reference) is not int or reference not in indices):
        raise InputError(
            f"reference is {reference!r}; give the index of a network, 0 to {len(states) - 1}, or "
            "'mean'."
        )
    check_same_architecture(states, [f"network {k}" for k in indices])
    network = copy_module(module_of(model, states[0])).cpu()
    inputs = _inputs(images, network, preprocess, _SHAPE if method == "weights" else _MANY)
    if method == "auto":
        method = _choose(network, inputs, rotations=rotations)
    first = split_input(inputs, _parts(inputs))[0]
    symmetry, folded = _symmetry(network, first, states, rotations=rotations)
    compare: _Comparison = (
        _Weights([_weights(symmetry, state) for state in folded])
        if method == "weights"
        else _Correlations(symmetry, network, folded, inputs)
    )
    found = _align(symmetry.groups, len(states), compare, reference)
    del compare  # which may hold as much as the networks
    aligned = [move_units(symmetry, *pair) for pair in zip(folded, found, strict=True)]
    for k, (before, after) in enumerate(zip(states, aligned, strict=True)):
        much = difference(network, before, after, first)
        if isnan(much):
            raise InputError(
                f"network {k} returns a NaN for some of the images, so that nothing says whether "
                "its function stays the same; give images for which it returns numbers."
            )
        if much:
            raise InputError(
                f"network {k} computes something else once its units are moved (a difference of "
                f"{much:.2g}): the model's forward treats them by their places in a way that can't "
                "be observed, such as through values or NumPy arrays."
            )
    return aligned


def choose_method(
    model: nn.Module, images: Any, *, rotations: bool = True, preprocess: Preprocess | None = None
) -> str:
    """Return the method that `auto` is for a network; the arguments are those of `align`."""
    network = copy_module(model).cpu()
    return _choose(network, _inputs(images, network, preprocess, _SHAPE), rotations=rotations)


def _choose(network: nn.Module, inputs: Input, *, rotations: bool) -> str:
    first = split_input(inputs, _parts(inputs))[0]
    groups = find_symmetry(network, first, rotations=rotations).groups
    return "weights" if _turning(groups) else "activations"


def _symmetry(
    network: nn.Module, inputs: Input, states: Sequence[StateDict], *, rotations: bool
) -> tuple[Symmetry, Sequence[StateDict]]:
    """Return how units can be moved, and the states with the gains moved that this takes."""
    load_state(network, _unequal(states))
    symmetry = find_symmetry(network, inputs, rotations=rotations)
    if rotations:
        folded = fold_gains(network, inputs, states)
        load_state(network, _unequal(folded))
        other = find_symmetry(network, inputs, rotations=True)
        if _turning(other.groups) > _turning(symmetry.groups):
            return other, folded
    return symmetry, states


def _unequal(states: Sequence[StateDict]) -> StateDict:
    """Return the first network, but gains and the like that are equal there alone from another.

    A LayerNorm whose gains are all equal lets its units be rotated, if they are so in each network.
    """

    def of(name: str) -> Tensor:
        first = states[0][name]
        is_vector = first.ndim == 1 and first.is_floating_point() and len(first) > 0
        gains = [state[name] for state in states] if is_vector else []
        return next((gain for gain in gains if not is_constant(gain)), first)

    return {name: of(name) for name in states[0]}


def _turning(groups: Sequence[Group]) -> int:
    every = [units for group in groups for units in (group.units, *group.inner)]
    return sum(units.turn != Turn.NONE for units in every)


def _align(
    groups: Sequence[Group], count: int, compare: "_Comparison", reference: int | str
) -> list[Moves]:
    found = [_identity(groups) for _ in range(count)]
    if isinstance(reference, int):
        of: dict[int, Moves] = {reference: {}}  # as it is, without a copy
        return [
            same if k == reference else _match(groups, compare(of, k), same)
            for k, same in enumerate(found)
        ]
    is_changed = count > 1
    while is_changed:
        is_changed = False
        for k in range(count):
            others = {j: moves for j, moves in enumerate(found) if j != k}
            new = _match(groups, compare(others, k), found[k])
            is_changed |= new is not found[k]
            found[k] = new
    return found


# --- what is compared -----------------------------------------------------------------------------


_Pair = tuple[Tensor, Block]  # a block of the target, and the same of what is matched to it
# Maps networks, with their permutations, and another one to what it has in common with their mean.
_Comparison = Callable[[Mapping[int, Moves], int], list[_Pair]]


class _Weights:
    """Compares weights."""

    def __init__(self, every: Sequence[Sequence[Block]]) -> None:
        self._every = every

    def __call__(self, targets: Mapping[int, Moves], k: int) -> list[_Pair]:
        found = []
        for place, own in enumerate(self._every[k]):  # one block of all networks at a time
            moved = [_move(self._every[j][place], moves) for j, moves in targets.items()]
            is_one = len(moved) == 1
            mean = moved[0] if is_one else torch.stack([each.double() for each in moved]).mean(0)
            found.append((mean, own))
        return found


class _Correlations:
    """Compares activations, by the sums over all images and places that any matching needs.

    Of tensors with the same units only the sum of their inner products is kept, and of the
    activations those of a few images at a time.
    """

    def __init__(
        self, symmetry: Symmetry, network: nn.Module, states: Sequence[StateDict], inputs: Input
    ) -> None:
        parts = split_input(inputs, _parts(inputs))
        scales = [_scales(symmetry, network, state, parts) for state in states]
        pairs = list(combinations(range(len(states)), 2))
        self._sums: dict[tuple[int, int], dict[tuple[Units, ...], Tensor]] = {
            pair: {} for pair in pairs
        }
        for part in parts:
            rows = [
                [
                    _by_units((torch.where(scale > 0, (view - mean) * scale, 0.0), units))
                    for (view, units), (mean, scale) in zip(
                        _activations(symmetry, network, state, part), known, strict=True
                    )
                ]
                for state, known in zip(states, scales, strict=True)
            ]
            for j, k in pairs:
                sums = self._sums[j, k]
                for (units, first), (_, second) in zip(rows[j], rows[k], strict=True):
                    _check_memory(units)
                    product = (first.T @ second).double()
                    sums[units] = sums[units].add_(product) if units in sums else product
        for j, k in pairs:
            self._sums[k, j] = {units: found.T for units, found in self._sums[j, k].items()}

    def __call__(self, targets: Mapping[int, Moves], k: int) -> list[_Pair]:
        pairs = []
        for units in self._sums[next(iter(targets)), k]:
            sizes = [each.size for each in units]
            fixed = Units(prod(sizes), is_fixed=True)
            common = torch.stack(
                [
                    _move((self._sums[j, k][units].view(*sizes, -1), (*units, fixed)), moves)
                    for j, moves in targets.items()
                ]
            ).mean(dim=0)
            # <target, permuted> is the sum over units of their entry here: that with an identity.
            identity = torch.eye(fixed.size, dtype=common.dtype).view(-1, *sizes)
            pairs.append((identity, (common.reshape(-1, *sizes), (fixed, *units))))
        return pairs


def _check_memory(units: Sequence[Units]) -> None:
    sizes = [each.size for each in units]
    if (gigabytes := prod(sizes) ** 2 * 8 / 1e9) > _MOST_GB:
        raise InputError(
            f"the correlations of the {' x '.join(map(str, sizes))} units of one tensor would take "
            f"{gigabytes:.3g} GB for each pair of networks; give method='weights' (in params.yaml "
            "method: weights)."
        )


def _by_units(block: Block) -> tuple[tuple[Units, ...], Tensor]:
    """Return the units of a block that aren't fixed, and (all else, those) as a matrix."""
    tensor, units = block
    free = [dim for dim, each in enumerate(units) if not each.is_fixed]
    size = prod(tensor.shape[dim] for dim in free)
    moved = tensor.movedim(free, [*range(-len(free), 0)])
    return tuple(units[dim] for dim in free), moved.reshape(-1, size)


def _weights(symmetry: Symmetry, state: StateDict) -> list[Block]:
    return [
        block
        for name in symmetry.parameters
        for block in blocks(_own(symmetry, state, name), symmetry.axes[name])
        if any(not units.is_fixed for units in block[1])
    ]


def _activations(
    symmetry: Symmetry, network: nn.Module, state: StateDict, inputs: Input
) -> Iterator[Block]:
    """Yield what a forward pass computes, as far as it has units that are not fixed."""
    load_state(network, state)
    known = {parameter.data_ptr() for parameter in network.parameters()}
    for tensor, axes in zip(observe(network, inputs), symmetry.activations, strict=True):
        storage = tensor.untyped_storage().data_ptr()
        if axes is None or not tensor.is_floating_point() or storage in known:
            continue
        known.add(storage)
        for view, units in blocks(tensor.float().contiguous(), axes):
            if 0 < sum(each.is_fixed for each in units) < len(units):
                yield view, units


def _scales(
    symmetry: Symmetry, network: nn.Module, state: StateDict, parts: Sequence[Input]
) -> list[tuple[Tensor, Tensor]]:
    """Return mean and 1 / norm over all images and places, of each block of the activations.

    That is 0 for units that do not vary. Units that are rotated have one norm, their root mean
    square, so that a rotation changes nothing of it.
    """
    found = []
    for every in zip(*(_moments(symmetry, network, state, part) for part in parts), strict=True):
        count, turning = every[0][0], every[0][3]  # parts are equal in size
        means, norms = (torch.stack([each[k] for each in every]).double() for k in (1, 2))
        mean = means.mean(dim=0)
        square = (norms.square() + count * (means - mean).square()).sum(dim=0)
        offset = len(parts) * count * mean.square()
        if turning:
            square, offset = (
                each.mean(dim=turning, keepdim=True).expand_as(mean) for each in (square, offset)
            )
        is_varying = square > 1e-12 * (square + offset)
        scale = torch.where(is_varying, square.rsqrt(), 0.0)
        found.append((mean.float(), scale.float()))
    return found


def _moments(
    symmetry: Symmetry, network: nn.Module, state: StateDict, inputs: Input
) -> list[tuple[int, Tensor, Tensor, list[int]]]:
    """Return of each block how many values each unit has, their mean, and the norm around it.

    And the axes whose units are rotated.
    """
    found = []
    for view, units in _activations(symmetry, network, state, inputs):
        rest = [dim for dim, each in enumerate(units) if each.is_fixed]
        mean = view.mean(dim=rest, keepdim=True)
        norm = torch.linalg.vector_norm(view - mean, dim=rest, keepdim=True)
        turning = [dim for dim, each in enumerate(units) if each.turn and dim not in rest]
        found.append((prod(view.shape[dim] for dim in rest), mean, norm, turning))
    return found


def _own(symmetry: Symmetry, state: StateDict, name: str) -> Tensor:
    """Return a tensor of a state dict, which may have it under another of its names alone."""
    names = [name, *(alias for alias, first in symmetry.tied.items() if first == name)]
    tensor = next(state[each] for each in names if each in state)
    return tensor.detach().cpu()


def _inputs(images: Any, network: nn.Module, preprocess: Preprocess | None, most: int) -> Input:
    """Return the first `most` inputs, or the first batch of an iterable."""
    batches = input_batches(images, network, most, device="cpu")
    given, _ = next(iter(batches.in_order(0)), (None, None))
    if given is None or not len(parts_of(given)[0]):
        raise InputError("there are no images; an alignment needs at least one, and two are usual.")
    inputs = as_input(preprocess or batches.preprocess, network)(given)
    if count := sum(int(part.isnan().sum()) for part in parts_of(inputs)):
        raise InputError(
            f"the images hold a NaN in {count} places once preprocessed; leave such images out, or "
            "correct what preprocesses them."
        )
    return inputs


def _parts(inputs: Input) -> int:
    """Return how many equal parts hold at most so many inputs as are looked at together."""
    return ceil(len(parts_of(inputs)[0]) / _AT_A_TIME)


# --- moving units ---------------------------------------------------------------------------------


def _identity(groups: Sequence[Group]) -> Moves:
    found = {}
    for group in groups:
        found[group.units] = _none(group.units)
        for inner in group.inner:
            found[inner] = torch.stack([_none(inner)] * group.units.size)
    return found


def _none(units: Units) -> Tensor:
    if units.turn == Turn.NONE:
        return torch.arange(units.size)
    return torch.eye(units.size, dtype=torch.float64)


def _move(block: Block, moves: Moves, leave: Collection[int] = ()) -> Tensor:
    """Return a block with the units along its axes moved, but for some axes.

    Of permuted ones at place i is what was at move[i]; rotated ones are multiplied by the matrix.
    """
    tensor, units = block
    known = {k: moves[each] for k, each in enumerate(units) if each in moves and k not in leave}
    is_inside = {k: move.ndim > 1 + move.is_floating_point() for k, move in known.items()}
    for dim, move in known.items():
        if is_inside[dim]:
            continue
        if move.is_floating_point():
            tensor = torch.tensordot(move, tensor.double(), dims=([1], [dim])).movedim(0, dim)
        else:
            tensor = tensor.index_select(dim, move)
    for dim, move in known.items():
        if not is_inside[dim]:
            continue
        outer = units.index(units[dim].within[0])  # another move inside each of the outer units
        if move.is_floating_point():
            ends = tensor.double().movedim((outer, dim), (0, -1))
            turned = ends.reshape(len(move), -1, ends.shape[-1]) @ move.mT
            tensor = turned.view(ends.shape).movedim((0, -1), (outer, dim))
        else:
            shape = [1] * tensor.ndim
            shape[outer], shape[dim] = move.shape
            index = (move if outer < dim else move.T).reshape(shape)
            tensor = torch.take_along_dim(tensor, index, dim)
    return tensor


def move_units(symmetry: Symmetry, state: StateDict, moves: Moves) -> dict[str, Tensor]:
    """Return a copy of a state dict with the units moved in every tensor."""
    made = {}
    for name, axes in symmetry.axes.items():
        own = _own(symmetry, state, name).contiguous()
        made[name] = own.clone()
        for (view, units), (old, _) in zip(
            blocks(made[name], axes), blocks(own, axes), strict=True
        ):
            view.copy_(_move((old, units), moves))
    return {
        name: made[symmetry.tied.get(name, name)].to(tensor.device)
        if symmetry.tied.get(name, name) in made
        else tensor.clone()
        for name, tensor in state.items()
    }


# --- matching -------------------------------------------------------------------------------------


def _match(groups: Sequence[Group], pairs: Sequence[_Pair], start: Moves) -> Moves:
    """Return the moves of a network's units that bring it closest to the target.

    They are `start` itself where nothing better is found.
    """
    near = _descend(groups, pairs, start)
    far = _descend(groups, pairs, _first_pass(groups, pairs))
    return far if _is_more(_total(pairs, far), _total(pairs, near), _least(groups)) else near


def _total(pairs: Sequence[_Pair], moves: Moves) -> float:
    """Return what target and network have in common, the sum of their products."""
    return sum(
        float((target.double() * _move((own.double(), units), moves)).sum())
        for target, (own, units) in pairs
    )


def _is_more(new: float, old: float, least: float) -> bool:
    return new > old + least * abs(old)


def _least(groups: Sequence[Group]) -> float:
    """Return the relative gain that counts, so that it comes to an end.

    Permutations need more than rounding; rotations would go on in ever smaller steps.
    """
    return 1e-3 if _turning(groups) else 1e-9


def _touched(group: Group, pairs: Sequence[_Pair]) -> list[_Pair]:
    return [pair for pair in pairs if group.units in pair[1][1]]


def _descend(groups: Sequence[Group], pairs: Sequence[_Pair], moves: Moves) -> Moves:
    """Match one group after the other until none changes.

    One that was matched, and has no tensor with a group that has changed since, stays as it is.
    """
    least = _least(groups)
    touched = [_touched(group, pairs) for group in groups]
    near = [
        {j for j, other in enumerate(groups) if any(other.units in own[1] for _, own in of_group)}
        for of_group in touched
    ]
    waiting = set(range(len(groups)))
    while waiting:
        for k, group in enumerate(groups):
            if k not in waiting:
                continue
            waiting.remove(k)
            solved, new, old = _solve(group, touched[k], moves)
            if not _is_linear(group, touched[k]):
                new, old = (_total(touched[k], each) for each in ({**moves, **solved}, moves))
            if _is_more(new, old, least):
                moves = {**moves, **solved}
                waiting |= near[k]
    return moves


def _is_linear(group: Group, pairs: Sequence[_Pair]) -> bool:
    """Return whether each tensor has the units of a group once, with one kind inside at most."""
    return all(
        units.count(group.units) == 1 and sum(each in group.inner for each in units) <= 1
        for _, (_, units) in pairs
    )


def _first_pass(groups: Sequence[Group], pairs: Sequence[_Pair]) -> Moves:
    """Match each group by what is matched already, from the input on."""
    moves = _identity(groups)
    open_units = set(moves)
    for group in groups:
        open_units -= {group.units, *group.inner}
        touched = _touched(group, pairs)
        known = [
            (target, (own, units))
            for target, (own, units) in touched
            if not open_units & set(units) and units.count(group.units) == 1
        ]
        moves = {**moves, **_solve(group, known or touched, moves)[0]}
    return moves


def _solve(group: Group, pairs: Sequence[_Pair], moves: Moves) -> tuple[Moves, float, float]:
    """Return the best moves of one group, all others as they are.

    Which unit goes where is decided by the sum of what the two have in common themselves and the
    best matches of the units in them. With them comes what the pairs have in common by these moves
    and by the old ones, where that is linear in the group's.
    """
    n = group.units.size
    common = torch.zeros(n, n, dtype=torch.float64)
    inside = {
        inner: torch.zeros(n, inner.size, n, inner.size, dtype=torch.float64)
        for inner in group.inner
    }
    held, before = dict(moves), moves[group.units]
    if group.inner:  # what is inside a unit moves with it, wherever it goes
        back = before.argsort()
        held |= {inner: moves[inner][back] for inner in group.inner}
    for target, (own, units) in pairs:
        parts = [k for k, each in enumerate(units) if each in inside]
        for dim in (k for k, each in enumerate(units) if each is group.units):
            for raw in [[dim, k] for k in parts] or [[dim]]:
                size = prod(target.shape[k] for k in raw)
                a, b = (
                    each.movedim(raw, [0, 1][: len(raw)]).reshape(size, -1).double()
                    for each in (target, _move((own, units), held, leave=raw))
                )
                gram = a @ b.T
                if len(raw) == 1:
                    common += gram
                else:
                    inside[units[raw[1]]] += gram.view_as(inside[units[raw[1]]])
    old = _along(group.units, common, before)
    every = {}
    for inner, gram in inside.items():
        options = [_best(inner, gram[i, :, j]) for i, j in product(range(n), range(n))]
        every[inner] = torch.stack([move for move, _ in options]).unflatten(0, (n, n))
        common += torch.tensor([value for _, value in options], dtype=torch.float64).view(n, n)
        known = zip(before.tolist(), moves[inner], strict=True)
        old += sum(_along(inner, gram[i, :, j], move) for i, (j, move) in enumerate(known))
    move, new = _best(group.units, common)
    best = {inner: options[torch.arange(n), move] for inner, options in every.items()}
    return {group.units: move, **best}, new, old


def _along(units: Units, similarity: Tensor, move: Tensor) -> float:
    """Return the sum of the similarities of (target, own) units by a move."""
    if units.turn == Turn.NONE:
        return float(similarity[torch.arange(units.size), move].sum())
    return float((similarity * move).sum())


def _best(units: Units, similarity: Tensor) -> tuple[Tensor, float]:
    """Return the move for which the similarities of (target, own) units have the largest sum."""
    if units.turn == Turn.NONE:
        rows, columns = linear_sum_assignment(similarity.numpy(), maximize=True)
        return torch.from_numpy(columns), float(similarity[rows, columns].sum())
    basis = torch.eye(units.size, dtype=torch.float64)
    kept = basis[:, :0]
    if units.turn == Turn.CENTERED:  # the first vector of an orthonormal one is the mean's
        basis, _ = torch.linalg.qr(torch.cat([torch.ones(units.size, 1), basis[:, :-1]], dim=1))
        kept, basis = basis[:, :1], basis[:, 1:]
    u, _, v = torch.linalg.svd(basis.T @ similarity @ basis)
    turn = basis @ (u @ v) @ basis.T + kept @ kept.T
    return turn, _along(units, similarity, turn)
