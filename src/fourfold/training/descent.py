"""How the free control points of a surface move in a step: optimizer, decay, regularizer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fourfold.errors import InputError
from fourfold.surfaces.surface import Surface

DECAYS = ("point", "control-points")

# Columns of the control-point matrix that are updated together. On a CPU a block of all rows should
# fit into the cache, so that momentum and control points cross memory once per step.
_BLOCK = {"cpu": 1 << 16}


class _Block(NamedTuple):
    """Some columns of the control-point matrix in one step; all but the first are views."""

    columns: slice
    rows: list[Float[Tensor, " columns"]]  # the free control points
    theta: Float[Tensor, "points columns"]
    gradient: Float[Tensor, "points columns"]


class _Pull(NamedTuple):
    """The gradient of the regularizer, a combination of both control points, for those that move.

    d/da cos^2(a, b) = 2 ab / (aa bb) (b - ab / aa a), with the scalar products ab, aa, bb.
    """

    moved: int  # position among the free rows
    row: int
    other: int
    of_row: Float[Tensor, ""]
    of_other: Float[Tensor, ""]


class Descent(ABC):
    """Move the free rows of the control points, block by block of columns.

    The gradient of row k over the points of a step is (1/c) sum_c w_ck g_c. It is formed for one
    block of columns at a time and never stored for all of them.
    """

    moments: int  # tensors of state, each as large as the free control points

    def __init__(
        self,
        surface: Surface,
        constant_columns: Sequence[slice],
        *,
        momentum: float,
        betas: tuple[float, float],
        weight_decay: float,
        decay: str,
        cosine: float,
    ) -> None:
        """Begin with no state; for the settings see `fit`."""
        self.points = surface.control_points
        self.free = list(surface.free_rows)
        self.momentum, self.betas, self.weight_decay = momentum, betas, weight_decay
        self.decays_points = decay == "point"
        self.constant_columns = constant_columns
        block = _BLOCK.get(self.points.device.type, surface.dimension)
        self.blocks = [
            slice(start, min(start + block, surface.dimension))
            for start in range(0, surface.dimension, block)
        ]
        self.steps = 0
        self.states = [
            self.points.new_zeros(len(self.free), surface.dimension) for _ in range(self.moments)
        ]
        self.cosine = cosine
        if not self.decays_points:
            self.decayed = self._mask([slice(None)])
        if cosine:
            self.kernels = self._mask(_kernels(surface))
            if not bool(self.kernels.any()):
                raise InputError(
                    f"cosine is {cosine}, but no tensor that the model trains has two or more "
                    "dimensions, and it is of these alone; pass cosine=0."
                )

    def restart(self) -> None:
        """Forget the state."""
        self.steps = 0
        for state in self.states:
            state.zero_()

    def step(
        self,
        share: Float[Tensor, "free points"],
        theta: Float[Tensor, "points parameters"],
        gradient: Float[Tensor, "points parameters"],
        rate: float,
        moving: Sequence[int],
        pair: tuple[int, int] | None = None,
    ) -> None:
        """Do one step from the points' parameters, which are used up, and gradients.

        Args:
            share: the weights of the free control points divided by the number of points.
            theta: parameters of the points.
            gradient: of the loss at them.
            rate: learning rate.
            moving: positions among the free control points of those that have a share.
            pair: rows that the regularizer turns away from each other.
        """
        self.steps += 1
        self.moving = moving
        self.pulls = [] if pair is None else self._pulls(*pair)
        for columns in self.constant_columns:  # no gradient there, and no decay either
            theta[:, columns] = 0
        for block in self.blocks:
            rows = [self.points[k, block] for k in self.free]
            part = _Block(block, rows, theta[:, block], gradient[:, block])
            self.update(part, share, rate)

    @abstractmethod
    def update(self, block: _Block, share: Float[Tensor, "free points"], rate: float) -> None:
        """Move one block of columns, each row by its share of the points' gradients."""

    def add_cosine(self, direction: Float[Tensor, "free columns"], columns: slice) -> None:
        """Add the regularizer's gradient."""
        for pull in self.pulls:
            row, other = self.points[pull.row, columns], self.points[pull.other, columns]
            turn = (other * pull.of_other).addcmul_(row, pull.of_row)
            direction[pull.moved].addcmul_(turn, self.kernels[columns])

    def add_decay(self, direction: Float[Tensor, "free columns"], block: _Block) -> None:
        """Add the decay of the control points themselves, where it is theirs."""
        if self.weight_decay and not self.decays_points:
            for k in self.moving:
                direction[k].addcmul_(
                    block.rows[k], self.decayed[block.columns], value=self.weight_decay
                )

    def _pulls(self, first: int, second: int) -> list[_Pull]:
        ab, aa, bb = (self.points.new_zeros(()) for _ in range(3))
        for block in self.blocks:
            a, b = self.points[first, block], self.points[second, block]
            kernel = a * self.kernels[block]
            ab += kernel @ b
            aa += kernel @ a
            bb += torch.mul(b, self.kernels[block], out=kernel) @ b
        across = 2 * self.cosine * ab / (aa * bb)
        pairs = ((first, second, aa), (second, first, bb))
        return [
            _Pull(position, row, other, -across * ab / square, across)
            for row, other, square in pairs
            if row in self.free and (position := self.free.index(row)) in self.moving
        ]

    def _mask(self, columns: Sequence[slice]) -> Float[Tensor, " parameters"]:
        """Return 1 in some columns and 0 elsewhere, and in the constant ones."""
        mask = self.points.new_zeros(self.points.shape[1])
        for some in columns:
            mask[some] = 1
        for some in self.constant_columns:
            mask[some] = 0
        return mask


class SGD(Descent):
    """M <- momentum M + W^T (G + weight_decay Theta) / c, P <- P - rate M."""

    moments = 1

    def update(self, block: _Block, share: Float[Tensor, "free points"], rate: float) -> None:
        """See `Descent.update`."""
        if self.weight_decay and self.decays_points:
            block.gradient.add_(block.theta, alpha=self.weight_decay)
        velocity = self.states[0][:, block.columns]
        torch.addmm(velocity, share, block.gradient, beta=self.momentum, out=velocity)
        self.add_cosine(velocity, block.columns)
        self.add_decay(velocity, block)
        torch._foreach_add_(block.rows, list(velocity), alpha=-rate)


class AdamW(Descent):
    """AdamW on each free control point, with the decoupled decay acting on the point.

    Adam divides by the size of the gradient, and with it by w_k; so the decay of P_k is that of the
    mean of the step's points weighted by w_k, sum_c w_ck theta_c / sum_c w_ck. (With w_ck theta_c
    alone, decay relative to movement would be a ninth of a single network's on a 3 x 3 surface.)

    Reference: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    moments = 2

    def update(self, block: _Block, share: Float[Tensor, "free points"], rate: float) -> None:
        """See `Descent.update`."""
        beta1, beta2 = self.betas
        direction = share @ block.gradient
        self.add_cosine(direction, block.columns)
        mean, square = (state[:, block.columns] for state in self.states)
        mean.lerp_(direction, 1 - beta1)
        square.mul_(beta2).addcmul_(direction, direction, value=1 - beta2)
        denominator = (square / (1 - beta2**self.steps)).sqrt_().add_(1e-8)  # eps as in PyTorch
        torch.div(mean, denominator, out=direction).div_(1 - beta1**self.steps)
        if self.weight_decay and self.decays_points:
            total = share.sum(dim=1, keepdim=True)  # 0 for a row that no point of the step touches
            nearby = share / torch.where(total > 0, total, 1)
            direction.addmm_(nearby, block.theta, alpha=self.weight_decay)
        self.add_decay(direction, block)
        torch._foreach_add_(block.rows, list(direction), alpha=-rate)


OPTIMIZERS: dict[str, type[Descent]] = {"sgd": SGD, "adamw": AdamW}


def _kernels(surface: Surface) -> list[slice]:
    """Return the columns of the tensors with two or more dimensions.

    BatchNorm's scales begin at 1 in every network: with them no two could become orthogonal.
    """
    layout = surface.layout
    return [
        slice(end - size, end)
        for end, size, shape in zip(
            accumulate(layout.sizes), layout.sizes, layout.shapes, strict=True
        )
        if len(shape) > 1
    ]
