"""Bernstein polynomials, the basis of Bezier curves and surfaces (pure functions)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def bernstein_basis(degree: int, t: Float[Tensor, " points"]) -> Float[Tensor, "points basis"]:
    """Evaluate B_i(t) = C(n, i) t^i (1 - t)^(n - i) for i = 0..n, n = `degree`, t in [0, 1]."""
    i = torch.arange(degree + 1, device=t.device)
    binomial = torch.tensor([math.comb(degree, k) for k in range(degree + 1)]).to(t)
    return binomial * t[:, None] ** i * (1 - t[:, None]) ** (degree - i)


def surface_basis(
    degree: tuple[int, int], u: Float[Tensor, " points"], v: Float[Tensor, " points"]
) -> Float[Tensor, "points basis"]:
    """Evaluate B_i^n(u) B_j^m(v), (n, m) = `degree`; column i (m + 1) + j belongs to P_ij."""
    along_u = bernstein_basis(degree[0], u)
    along_v = bernstein_basis(degree[1], v)
    return (along_u[:, :, None] * along_v[:, None, :]).flatten(1)


def gram_matrix(degree: tuple[int, int]) -> Float[Tensor, "basis basis"]:
    """Return the integrals over the unit square of the products of two basis functions.

    On one axis G_ij = C(n,i) C(n,j) / (C(2n, i+j) (2n+1)); on the surface the Kronecker product, in
    the order of `surface_basis`, float64. The trace over the free control points is the mean factor
    by which a point of the surface moves less than a single network under the same learning rate:
    about 1/8 for 3 x 3 control points.
    """

    def along_axis(n: int) -> Tensor:
        rows = [
            [math.comb(n, i) * math.comb(n, j) / math.comb(2 * n, i + j) for j in range(n + 1)]
            for i in range(n + 1)
        ]
        return torch.tensor(rows, dtype=torch.float64) / (2 * n + 1)

    return torch.kron(along_axis(degree[0]), along_axis(degree[1]))
