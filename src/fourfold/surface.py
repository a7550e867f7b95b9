"""Bezier surfaces in parameter space, spanned by four trained networks."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fourfold.bernstein import surface_basis
from fourfold.checkpoint import load_tensors, save_tensors, state_hash
from fourfold.errors import DivergenceError, InputError
from fourfold.layout import ParameterLayout, StateDict, check_same_architecture
from fourfold.points import CORNER_COORDINATES
from fourfold.untrusted import check_fields, reading, shortened

__all__ = ["CORNERS", "CORNER_COORDINATES", "BezierSurface"]

CORNERS = ("corner_00", "corner_01", "corner_10", "corner_11")
_FORMAT = "fourfold-surface-1"
_FIELDS = {"name": str, "degree": list[int], "corner_sha256": list[str], "layout": dict}


class BezierSurface:
    """theta(u, v) = sum_ij B_i^n(u) B_j^m(v) P_ij, a surface of networks of one architecture.

    The corners P_00, P_0m, P_n0, P_nm are the given networks, at (u, v) = (0,0), (0,1), (1,0) and
    (1,1). Degree (1, 1) is the bilinear surface through them.

    Attributes:
        control_points: (K, D) float32, K = (n + 1)(m + 1); row i (m + 1) + j is P_ij.
        degree: (n, m).
        layout: where each tensor lies in a row.
        corner_buffers: name -> (4, ...) the corners' own buffers, in corner order.
        corner_hashes: SHA-256 of each corner's state dict.
        name: what tables call this surface.

    Reference: Ren, Chen, Wang, "Revisiting Mode Connectivity in Neural Networks with Bezier
    Surface", ICLR 2025.
    """

    def __init__(
        self,
        control_points: Tensor,
        degree: tuple[int, int],
        layout: ParameterLayout,
        corner_buffers: Mapping[str, Tensor],
        corner_hashes: Sequence[str],
        name: str,
    ) -> None:
        """Take the parts as they are; use `from_corners` or `load`."""
        self.control_points = control_points
        self.degree = degree
        self.layout = layout
        self.corner_buffers = dict(corner_buffers)
        self.corner_hashes = tuple(corner_hashes)
        self.name = name

    @classmethod
    def from_corners(
        cls,
        corners: Sequence[StateDict],
        degree: tuple[int, int] = (2, 2),
        name: str | None = None,
    ) -> "BezierSurface":
        """Span a surface by four state dicts of one architecture.

        Every other control point starts on the bilinear surface through the corners, so that a
        surface of any degree starts as the bilinear one.

        Args:
            corners: state dicts of the networks at (u, v) = (0,0), (0,1), (1,0), (1,1).
            degree: (n, m), polynomial degree along u and along v, each at least 1.
            name: what tables call the surface; `linear` for degree (1, 1), else `bezier`.

        Raises:
            InputError: if there are not four corners, they differ in architecture, hold a NaN or
                an infinity, or the degree is impossible.
        """
        degree = _check_degree(degree)
        if not all(isinstance(corner, Mapping) for corner in corners):
            raise InputError(
                f"a corner is {type(corners[0]).__name__}, no state dict; pass model.state_dict()."
            )
        if len(corners) != 4:
            raise InputError(
                f"a surface needs 4 corners, got {len(corners)}; give the state dicts of the "
                "networks at (u, v) = (0,0), (0,1), (1,0), (1,1)."
            )
        check_same_architecture(corners, CORNERS)
        layout = ParameterLayout.from_state_dict(corners[0])
        for label, corner in zip(CORNERS, corners, strict=True):
            for alias, tensor_name in layout.tied.items():
                if not torch.equal(corner[alias], corner[tensor_name]):
                    raise InputError(
                        f"tensors {tensor_name!r} and {alias!r} are tied in {CORNERS[0]} but "
                        f"differ in {label}; the corners must tie the same tensors."
                    )
        rows = torch.empty(4, layout.dimension)
        for corner, row in zip(corners, rows, strict=True):
            layout.flatten(corner, out=row)
        n, m = degree
        i, j = torch.meshgrid(torch.arange(n + 1), torch.arange(m + 1), indexing="ij")
        bilinear = surface_basis((1, 1), i.flatten() / n, j.flatten() / m)
        control_points = bilinear @ rows
        control_points[[0, m, n * (m + 1), n * (m + 1) + m]] = rows  # -0.0 stays what it is
        return cls(
            control_points=control_points,
            degree=degree,
            layout=layout,
            corner_buffers={
                buffer: torch.stack([corner[buffer].detach().cpu() for corner in corners])
                for buffer in layout.buffers
            },
            corner_hashes=[state_hash(corner) for corner in corners],
            name=name or ("linear" if degree == (1, 1) else "bezier"),
        )

    def __repr__(self) -> str:
        """Name, degree and size."""
        return f"BezierSurface(name={self.name!r}, degree={self.degree}, D={self.dimension})"

    @property
    def dimension(self) -> int:
        """D, the number of parameters of one network."""
        return self.layout.dimension

    @property
    def corner_rows(self) -> tuple[int, int, int, int]:
        """Rows of `control_points` that hold the corners, in corner order."""
        n, m = self.degree
        return (0, m, n * (m + 1), n * (m + 1) + m)

    @property
    def free_rows(self) -> tuple[int, ...]:
        """Rows of `control_points` that `fit` may move: all but the corners."""
        return tuple(k for k in range(len(self.control_points)) if k not in self.corner_rows)

    @cached_property
    def _blended_buffers(self) -> frozenset[str]:
        """Floating buffers that differ between corners; a shared mask stays as it is."""
        return frozenset(
            name
            for name, values in self.corner_buffers.items()
            if values.is_floating_point() and bool((values != values[0]).any())
        )

    @property
    def control_point_names(self) -> tuple[str, ...]:
        """Name of each row: `corner_00` .. `corner_11` and `P_ij`."""
        n, m = self.degree
        between = "_" if max(n, m) >= 10 else ""  # P_1_10 and P_11_0 must differ
        names = [f"P_{i}{between}{j}" for i in range(n + 1) for j in range(m + 1)]
        for row, corner in zip(self.corner_rows, CORNERS, strict=True):
            names[row] = corner
        return tuple(names)

    def weights(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the (points, K) float32 weights w with theta = w @ control_points.

        They are on the device of the coordinates.

        Args:
            u: (points,) coordinates in [0, 1].
            v: (points,) coordinates in [0, 1].
        """
        # The basis is evaluated in float64: at a corner its row is then exactly one-hot in float32.
        basis = surface_basis(self.degree, u.double(), v.double())
        return basis.to(self.control_points.dtype)

    def point(self, u: float, v: float) -> Tensor:
        """Return theta(u, v), the (D,) float32 parameters at one point."""
        weights = self.weights(*_check_coordinates(u, v))
        largest = int(weights.argmax())
        if weights[0, largest] == 1:  # a corner; the product would turn -0.0 into 0.0
            return self.control_points[largest].clone()
        return (weights @ self.control_points)[0]

    def state_dict(self, u: float, v: float) -> dict[str, Tensor]:
        """Return the network at (u, v) as a state dict that `load_state_dict` takes.

        At a corner it is that checkpoint. Elsewhere the floating buffers (BatchNorm statistics)
        are interpolated bilinearly, which is only a start: re-estimate them
        (`reestimate_batchnorm`) before the network is used. Integer buffers are the nearest
        corner's.

        Raises:
            InputError: if u or v lies outside [0, 1].
        """
        bilinear = surface_basis((1, 1), *_check_coordinates(u, v))[0]
        nearest = int(bilinear.argmax())
        buffers = {}
        for name, values in self.corner_buffers.items():
            if name in self._blended_buffers and bilinear[nearest] < 1:
                buffers[name] = torch.tensordot(bilinear.to(values), values, dims=1)
            else:
                buffers[name] = values[nearest]
        return self.layout.state_dict(self.point(u, v), buffers)

    def save(self, path: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
        """Save as safetensors, with degree, layout and corner hashes in the header.

        Raises:
            DivergenceError: if a control point holds a NaN or an infinity.
        """
        if not bool(torch.isfinite(self.control_points).all()):
            raise DivergenceError(
                f"not saving {path}: a control point holds a NaN or an infinity. The fit diverged; "
                "lower its learning rate or clip the gradient."
            )
        buffers = {f"buffers/{name}": values for name, values in self.corner_buffers.items()}
        tensors = {"control_points": self.control_points.cpu(), **buffers}
        header = {
            **(metadata or {}),
            "format": _FORMAT,
            "name": self.name,
            "degree": list(self.degree),
            "corner_sha256": list(self.corner_hashes),
            "sha256": state_hash(tensors),
            "layout": self.layout.to_json(),
        }
        save_tensors(tensors, path, header)

    @classmethod
    def load(cls, path: str | Path) -> "BezierSurface":
        """Read a surface that `save` wrote.

        Raises:
            InputError: if the file is missing, damaged, no surface, or its parts don't fit.
        """
        tensors, header = load_tensors(path)
        if header.get("format") != _FORMAT:
            raise InputError(
                f"{path} is no surface: its format is {shortened(header.get('format'))}, "
                f"expected {_FORMAT!r}."
            )
        with reading(path, "surface"):
            if header.get("sha256") != state_hash(tensors):
                raise InputError(
                    f"{path}: the contents don't have the hash in the header; the file was changed "
                    "after it was written. Delete it and build it again."
                )
            check_fields(header, _FIELDS, "the header")
            layout = ParameterLayout.from_json(header["layout"])
            degree = _check_degree(header["degree"])
            points = tensors["control_points"]
            buffers = {name: tensors[f"buffers/{name}"] for name in layout.buffers}
            _check_parts(points, degree, layout, buffers, header["corner_sha256"])
        return cls(points, degree, layout, buffers, header["corner_sha256"], header["name"])


def _check_parts(
    points: Tensor,
    degree: tuple[int, int],
    layout: ParameterLayout,
    buffers: Mapping[str, Tensor],
    hashes: list[str],
) -> None:
    """Refuse parts of a surface that don't fit together, or hold a NaN."""
    n, m = degree
    expected = ((n + 1) * (m + 1), layout.dimension)
    if points.shape != expected or points.dtype != torch.float32:
        raise InputError(
            f"control points are {points.dtype} of shape {tuple(points.shape)}, but degree "
            f"{degree} and the layout ask for float32 of shape {expected}."
        )
    if not bool(torch.isfinite(points).all()):
        raise InputError("a control point holds a NaN or an infinity.")
    if len(hashes) != len(CORNERS):
        raise InputError(f"{len(hashes)} hashes of corners are recorded; there are 4 corners.")
    for name, values in buffers.items():
        if values.ndim == 0 or len(values) != len(CORNERS):
            raise InputError(
                f"buffer {name!r:.80} has the shape {tuple(values.shape)}; the first axis must be "
                "the 4 corners."
            )
        # As in `check_same_architecture`: a mask of infinities is the same in all corners.
        is_mask = all(torch.equal(values[0], other) for other in values)
        if values.is_floating_point() and not is_mask and not bool(torch.isfinite(values).all()):
            raise InputError(f"buffer {name!r:.80} holds a NaN or an infinity.")


def _check_degree(degree: Sequence[int]) -> tuple[int, int]:
    if (
        not isinstance(degree, Sequence)
        or len(degree) != 2
        or not all(isinstance(d, int) for d in degree)
        or not all(1 <= d <= 20 for d in degree)  # beyond 20 float32 weights lose their last digits
    ):
        raise InputError(
            f"degree is {degree}; give two integers from 1 to 20, along u and along v "
            "((1, 1) is the bilinear surface)."
        )
    return (degree[0], degree[1])


def _check_coordinates(u: float, v: float) -> tuple[Tensor, Tensor]:
    if not (0 <= u <= 1 and 0 <= v <= 1):
        raise InputError(f"(u, v) is ({u}, {v}); both must lie in [0, 1].")
    return torch.tensor([u], dtype=torch.float64), torch.tensor([v], dtype=torch.float64)
