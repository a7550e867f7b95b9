"""Laws of the Bernstein basis."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from fourfold.surfaces.basis import bernstein_basis, gram_matrix, surface_basis

AXIS = torch.linspace(0, 1, 41, dtype=torch.float64)


@pytest.mark.parametrize("degree", [1, 2, 3, 20])
def test_the_basis_is_nonnegative_sums_to_one_and_reproduces_the_coordinate(degree):
    basis = bernstein_basis(degree, AXIS)
    assert (basis >= 0).all()
    torch.testing.assert_close(basis.sum(dim=1), torch.ones_like(AXIS), rtol=0, atol=1e-12)
    spaced = torch.arange(degree + 1, dtype=torch.float64) / degree
    torch.testing.assert_close(basis @ spaced, AXIS)
    torch.testing.assert_close(basis.flip(1), bernstein_basis(degree, 1 - AXIS))


@pytest.mark.parametrize("degree", [1, 2, 3, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_basis_is_exactly_one_hot_at_the_ends(degree, dtype):
    ends = bernstein_basis(degree, torch.tensor([0.0, 1.0], dtype=dtype))
    assert torch.equal(ends, torch.eye(degree + 1, dtype=dtype)[[0, -1]])


@pytest.mark.parametrize("degree", [(1, 1), (2, 1), (1, 3), (3, 3)])
def test_the_surface_basis_is_the_product_of_the_axes_with_v_running_fastest(degree):
    u, v = AXIS, AXIS.flip(0) ** 2
    along_u, along_v = (bernstein_basis(d, t) for d, t in zip(degree, (u, v), strict=True))
    expected = torch.stack([a * b for a in along_u.T for b in along_v.T], dim=1)
    torch.testing.assert_close(surface_basis(degree, u, v), expected)


@pytest.mark.parametrize("degree", [(1, 1), (2, 2), (2, 1), (1, 3), (3, 3)])
def test_the_gram_matrix_is_the_integral_of_products_of_the_basis(degree):
    # Gauss-Legendre with 8 nodes is exact for polynomials up to degree 15 on each axis.
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(8))
    u, v = (x.flatten() for x in torch.meshgrid((nodes + 1) / 2, (nodes + 1) / 2, indexing="ij"))
    area = torch.outer(weights / 2, weights / 2).flatten()
    basis = surface_basis(degree, u, v)
    torch.testing.assert_close(gram_matrix(degree), basis.T @ (area[:, None] * basis))


def test_shapes_in_signatures_are_checked_in_these_tests():
    with pytest.raises(TypeCheckError):
        surface_basis((1, 1), AXIS, AXIS[:3])
