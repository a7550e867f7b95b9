"""The points of a step, drawn on the shape of a surface."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from fourfold.surfaces.shapes import Shape, bernstein

Points = Float64[Tensor, "points axes"]
Weights = Float64[Tensor, "points control_points"]
Sampler = Callable[[Shape, int, torch.Generator], Points]


def draw_uniform(shape: Shape, points: int, generator: torch.Generator) -> Points:
    """Draw independent uniform points."""
    return _on(shape, torch.rand(shape.dims, points, generator=generator, dtype=torch.float64))


def draw_latin_hypercube(shape: Shape, points: int, generator: torch.Generator) -> Points:
    """Draw one point in each of `points` equal strata of each axis of the cube."""
    jitter = torch.rand(shape.dims, points, generator=generator, dtype=torch.float64)
    strata = [torch.randperm(points, generator=generator) for _ in range(shape.dims)]
    return _on(shape, (torch.stack(strata) + jitter) / points)


def draw_edges(shape: Shape, points: int, generator: torch.Generator) -> Points:
    """Draw points on the edges, one in each of `points` equal strata of all of them together."""
    shift = torch.rand(points, generator=generator, dtype=torch.float64)
    offset = torch.rand(1, generator=generator, dtype=torch.float64)
    count = len(shape.edges)
    position = count * ((torch.arange(points) + shift) / points + offset).remainder(1)
    edge = position.long().clamp(max=count - 1)
    start, end = torch.tensor(shape.edges, dtype=torch.float64)[edge].unbind(dim=1)
    return start + (position - edge)[:, None] * (end - start)


def draw_on_curves(
    shape: Shape, curves: Sequence[Sequence[int]], generator: torch.Generator
) -> tuple[Points, Weights]:
    """Draw the point with one common t ~ U(0, 1) on each of several Bezier curves.

    Args:
        shape: of the surface.
        curves: rows of each curve's control points; the curve need not lie on the surface.
        generator: draws t.

    Returns:
        Where on the shape the points are (off the surface: what they are nearest to), and their
        weights of the surface's control points.
    """
    t = torch.rand(1, generator=generator, dtype=torch.float64)
    nodes = torch.from_numpy(shape.nodes)
    weights = torch.zeros(len(curves), len(nodes), dtype=torch.float64)
    for weight, rows in zip(weights, curves, strict=True):
        weight[list(rows)] = torch.from_numpy(bernstein(len(rows) - 1, t.numpy())[0])
    return (weights @ nodes).clamp(0, 1), weights  # without the clamp rounding may leave the shape


def _on(shape: Shape, cube: Float64[Tensor, "axes points"]) -> Points:
    return torch.from_numpy(shape.from_cube(cube.T.numpy()))


SAMPLERS: dict[str, Sampler] = {"latin-hypercube": draw_latin_hypercube, "uniform": draw_uniform}
