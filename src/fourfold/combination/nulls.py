"""Null models of a corner set: what its networks' distances alone would explain."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fourfold.errors import InputError
from fourfold.seeds import make_generator
from fourfold.surfaces.layout import StateDict
from fourfold.surfaces.surface import separate


def randomize(states: Sequence[StateDict], seed: int = 0) -> list[dict[str, Tensor]]:
    """Replace the differences of networks from their mean by random directions.

    Mean and distances between all pairs stay what they are, for every parameter tensor alone.
    BatchNorm statistics are those of the networks, which mean nothing now: re-estimate them.

    Args:
        states: two or more state dicts of one architecture.
        seed: of the directions.
    """
    if len(states) < 2:
        raise InputError(f"a null model needs at least two networks, got {len(states)}.")
    layout, others = separate(states, [f"network {k}" for k in range(len(states))], None)
    # Differences of near-identical networks are small ones of large numbers.
    rows = layout.rows(states).double()
    generator = make_generator(seed, "random-directions")
    mean, start = rows.mean(dim=0), 0
    for size in layout.sizes:
        columns = slice(start, start := start + size)
        rows[:, columns] = mean[columns] + _random(rows[:, columns] - mean[columns], generator)
    rows = rows.to(layout.dtype)
    shares = torch.eye(len(states), dtype=torch.float64)
    return [
        layout.state_dict(row, others.at(share, layout.views(row), layout.tied, is_network=False))
        for row, share in zip(rows, shares, strict=True)
    ]


def _random(
    differences: Float[Tensor, "networks numbers"], generator: torch.Generator
) -> Float[Tensor, "networks numbers"]:
    """Return random rows with the inner products of `differences`."""
    # They sum to zero, so their rank is below their number.
    rank = min(len(differences) - 1, differences.shape[1])
    values, vectors = torch.linalg.eigh(differences @ differences.T)
    directions = torch.randn(
        differences.shape[1], rank, generator=generator, dtype=differences.dtype
    )
    orthonormal, _ = torch.linalg.qr(directions)
    made: Tensor = vectors[:, -rank:] * values[-rank:].clamp(min=0).sqrt() @ orthonormal.T
    return made
