"""Shapes that networks span: where their control points act, and what their points are.

The only place that knows one shape from another. Fitting, evaluation, combination and report use
the interface of `Shape` alone. No torch: the report reads tables with it.
"""

from fourfold.surfaces.shapes.box import SQUARE, Box, bernstein, gram_matrix
from fourfold.surfaces.shapes.by_name import ANY_COUNT, KINDS, USUAL, make_shape, shape_of
from fourfold.surfaces.shapes.chain import Chain
from fourfold.surfaces.shapes.shape import (
    AXES,
    Array,
    Coordinates,
    Edge,
    Point,
    Shape,
    Weights,
    along,
    full_coordinates,
    written,
)
from fourfold.surfaces.shapes.simplex import Simplex
from fourfold.surfaces.shapes.star import PointSet, Star

__all__ = [
    "ANY_COUNT",
    "AXES",
    "KINDS",
    "SQUARE",
    "USUAL",
    "Array",
    "Box",
    "Chain",
    "Coordinates",
    "Edge",
    "Point",
    "PointSet",
    "Shape",
    "Simplex",
    "Star",
    "Weights",
    "along",
    "bernstein",
    "full_coordinates",
    "gram_matrix",
    "make_shape",
    "shape_of",
    "written",
]
