"""Laws of the Bernstein basis."""

import pytest
import torch

from fourfold.surfaces.basis import bernstein_basis, gram_matrix, surface_basis

AXIS = torch.linspace(0, 1, 41, dtype=torch.float64)
LATTICE = [axis.flatten() for axis in torch.meshgrid(AXIS, AXIS, indexing="ij")]


@pytest.mark.parametrize("degree", [1, 2, 3, 5, 20])
def test_basis_is_nonnegative_and_sums_to_one(degree):
    basis = bernstein_basis(degree, AXIS)
    assert basis.shape == (len(AXIS), degree + 1)
    assert (basis >= 0).all()
    torch.testing.assert_close(basis.sum(dim=1), torch.ones_like(AXIS), rtol=0, atol=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 3, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_basis_is_exactly_one_hot_at_the_ends(degree, dtype):
    ends = bernstein_basis(degree, torch.tensor([0.0, 1.0], dtype=dtype))
    one_hot = torch.zeros(2, degree + 1, dtype=dtype)
    one_hot[0, 0] = one_hot[1, degree] = 1
    assert torch.equal(ends, one_hot)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_basis_reproduces_the_coordinate_from_equally_spaced_numbers(degree):
    spaced = torch.arange(degree + 1, dtype=torch.float64) / degree
    torch.testing.assert_close(bernstein_basis(degree, AXIS) @ spaced, AXIS)


def test_basis_is_mirrored_when_the_coordinate_is():
    torch.testing.assert_close(bernstein_basis(3, AXIS).flip(1), bernstein_basis(3, 1 - AXIS))


@pytest.mark.parametrize("degree", [(1, 1), (2, 2), (2, 1), (1, 3)])
def test_surface_basis_is_the_product_of_the_axes_with_v_running_fastest(degree):
    basis = surface_basis(degree, *LATTICE)
    along_u, along_v = (
        bernstein_basis(degree[0], LATTICE[0]),
        bernstein_basis(degree[1], LATTICE[1]),
    )
    for i in range(degree[0] + 1):
        for j in range(degree[1] + 1):
            column = basis[:, i * (degree[1] + 1) + j]
            torch.testing.assert_close(column, along_u[:, i] * along_v[:, j])
    torch.testing.assert_close(basis.sum(dim=1), torch.ones_like(LATTICE[0]))


@pytest.mark.parametrize("degree", [(1, 1), (2, 2), (2, 1), (1, 3), (3, 3)])
def test_gram_matrix_is_the_integral_of_products_of_the_basis(degree):
    # Gauss-Legendre with 8 nodes is exact for polynomials up to degree 15 on each axis.
    import numpy as np

    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(8))
    u, v = (x.flatten() for x in torch.meshgrid((nodes + 1) / 2, (nodes + 1) / 2, indexing="ij"))
    area = torch.outer(weights / 2, weights / 2).flatten()
    basis = surface_basis(degree, u, v)
    torch.testing.assert_close(gram_matrix(degree), basis.T @ (area[:, None] * basis))


def test_free_points_of_a_quadratic_surface_move_a_point_about_an_eighth_as_far():
    free = [1, 3, 4, 5, 7]
    assert gram_matrix((2, 2)).diagonal()[free].sum().item() == pytest.approx(1 / 8, rel=0.1)
