"""The points of a step, drawn on the shape of a surface."""

from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from fourfold.surfaces.shapes import Shape

Points = Float64[Tensor, "points axes"]
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


def _on(shape: Shape, cube: Float64[Tensor, "axes points"]) -> Points:
    return torch.from_numpy(shape.from_cube(cube.T.numpy()))


SAMPLERS: dict[str, Sampler] = {"latin-hypercube": draw_latin_hypercube, "uniform": draw_uniform}
