"""Units that change places with one another, and axes of tensors that consist of them.

An axis is a list of `Units`, the outer ones first: a flattened feature map is [channels, height,
width]. What is brought together is made one (`unify`), what is treated by its place is fixed.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import chain
from math import prod

from torch import Tensor


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


def leaves_of(axis: Axis) -> Axis:
    """Return an axis in the finest units known, without those of size 1."""
    found: Axis = []
    for units in map(_root, axis):
        if units.size > 1:
            found += [units] if units.factors is None else leaves_of(units.factors)
    return found


def size_of(axis: Axis) -> int:
    """Return how many places an axis has."""
    return prod(units.size for units in axis)


def fixed_axes(*sizes: int) -> Axes:
    """Return axes of units that keep their places."""
    return [[Units(size, is_fixed=True)] for size in sizes]


def _parts(units: Units) -> Iterator[Axis]:
    yield from chain(units.pieces or [], ([each] for _, _, each in units.selected))


def fix(axis: Axis) -> None:
    """Note that each of the units has to keep its place."""
    for units in leaves_of(axis):
        units.is_fixed = True
        for part in _parts(units):
            fix(part)
        units.pieces, units.selected = None, []


def limit(axis: Axis, turn: Turn = Turn.NONE) -> None:
    """Note that units can be rotated like this at most."""
    for units in leaves_of(axis):
        units.turn = min(units.turn, turn)
        for part in _parts(units):
            limit(part, turn)


def _split(units: Units, outer: int) -> None:
    if units.pieces or units.selected:  # cut and folded at once
        fix([units])
    fixed, turn = units.is_fixed, units.turn
    first = Units(outer, is_fixed=fixed, turn=turn, within=units.within)
    inside = [*units.within, first]
    rest = Units(units.size // outer, is_fixed=fixed, turn=turn, within=inside)
    units.factors = [first, rest]


def regroup(axis: Axis, sizes: Sequence[int]) -> Axes:
    """Return consecutive axes of these sizes, of what one axis of their product consists of."""
    rest, groups = leaves_of(axis), []
    for size in sizes:
        group: Axis = []
        while size > 1:
            units = rest[0]
            if size % units.size == 0:
                group.append(rest.pop(0))
                size //= units.size
            elif units.size % size == 0:
                _split(units, size)
                rest[:1] = leaves_of([units])
            else:
                fix(axis)
                return fixed_axes(*sizes)
        groups.append(group)
    return groups


def unify(a: Axis, b: Axis) -> None:
    """Make two axes of one size the same."""
    while (a := leaves_of(a)) and (b := leaves_of(b)):
        first, second = a[0], b[0]
        if first.size == second.size:
            _merge(first, second)
            a, b = a[1:], b[1:]
        elif first.size % second.size == 0:
            _split(first, second.size)
        elif second.size % first.size == 0:
            _split(second, first.size)
        else:
            fix(a)
            fix(b)
            return


def _merge(a: Units, b: Units) -> None:
    if a is b:
        return
    if a.is_fixed or b.is_fixed or (a.pieces and b.selected) or (b.pieces and a.selected):
        fix([a, b])
    if a.pieces and b.pieces:
        if [size_of(piece) for piece in a.pieces] == [size_of(piece) for piece in b.pieces]:
            for one, other in zip(a.pieces, b.pieces, strict=True):
                unify(one, other)
        else:
            fix([a, b])
    a, b = (b, a) if b.pieces else (a, b)
    a, b = _root(a), _root(b)
    if a is b:
        return
    limit([a], b.turn)
    limit([b], a.turn)
    b.same = a
    a.within += b.within
    for at, index, units in b.selected:
        if (known := _known(a, at, index)) is None:
            a.selected.append((at, index, units))
        else:
            unify([known], [units])


def _known(units: Units, at: Units, index: int) -> Units | None:
    for other, i, found in units.selected:
        if _root(other) is _root(at) and i == index:
            return found
    return None


def _at(units: Units, at: Units, index: int) -> Units:
    """Return what `units` are at one index of `at`."""
    if units.is_fixed or units.pieces or at not in leaves_of(units.within):
        return units
    if (known := _known(units, at, index)) is None:
        within = [_at(each, at, index) for each in leaves_of(units.within) if each is not at]
        known = Units(units.size, turn=units.turn, within=within)
        units.selected.append((at, index, known))
    return known


def select(axes: Axes, dim: int, index: int) -> Axes:
    """Return the other axes of a tensor at one index of an axis."""
    chosen = leaves_of(axes[dim])
    others = axes[:dim] + axes[dim + 1 :]
    fix(axes[dim])
    if len(chosen) != 1:
        return others
    size = chosen[0].size
    return [[_at(units, chosen[0], index % size) for units in leaves_of(axis)] for axis in others]


def cut(axis: Axis, start: int, stop: int) -> Axis:
    """Return a part of an axis."""
    size, leaves = size_of(axis), leaves_of(axis)
    if (start, stop) == (0, size):
        return axis
    if len(leaves) != 1 or leaves[0].is_fixed or leaves[0].selected:
        fix(axis)
        return fixed_axes(stop - start)[0]
    units = leaves[0]
    if units.pieces is None:
        sizes = (start, stop - start, size - stop)
        units.pieces = [[Units(n, turn=units.turn, within=units.within)] for n in sizes if n]
    found, at, new = [], 0, []
    for piece in units.pieces:
        low, high = max(start - at, 0), min(stop - at, size_of(piece))
        at += size_of(piece)
        part = [cut(piece, low, high)] if low < high else []
        found += part
        inside = leaves_of(piece)
        new += (inside[0].pieces if len(inside) == 1 else None) or [piece]
    units.pieces = new
    return found[0] if len(found) == 1 else join(found)


def join(parts: Axes) -> Axis:
    """Return the concatenation of some axes."""
    joined = Units(sum(map(size_of, parts)))
    joined.pieces = parts
    if all(units.is_fixed for part in parts for units in leaves_of(part)):
        fix([joined])
    return [joined]


def blocks(tensor: Tensor, axes: Axes) -> Iterator[Block]:
    """Yield the parts of a tensor as views whose axes are single units."""
    units = [each for axis in axes for each in leaves_of(axis)]
    view = tensor.view([each.size for each in units])
    for dim, each in enumerate(units):
        if each.pieces:
            start = 0
            for piece in each.pieces:
                part = [[other] for other in units]
                part[dim] = piece
                yield from blocks(view.narrow(dim, start, size_of(piece)), part)
                start += size_of(piece)
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
