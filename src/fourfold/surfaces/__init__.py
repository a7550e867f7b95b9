"""Surfaces in parameter space: shapes, layout of the vectors, what is no coordinate, the files."""
