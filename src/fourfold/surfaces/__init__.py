"""Surfaces in parameter space: basis, layout of the vectors, what is no coordinate, the files."""
