"""Bezier surfaces in parameter space, spanned by four trained networks."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fourfold.errors import DivergenceError, InputError
from fourfold.files.reading import check_fields, reading, shortened
from fourfold.files.tensors import load_tensors, save_tensors, state_hash
from fourfold.surfaces.basis import surface_basis
from fourfold.surfaces.buffers import Buffers, check_decided, choose_policies, differing
from fourfold.surfaces.layout import (
    ParameterLayout,
    StateDict,
    check_same_architecture,
    find_ties,
)
from fourfold.surfaces.modules import copy_module, load_state, module_of
from fourfold.surfaces.points import CORNER_COORDINATES

__all__ = ["CORNERS", "CORNER_COORDINATES", "BezierSurface"]

CORNERS = ("corner_00", "corner_01", "corner_10", "corner_11")
_FORMAT = "fourfold-surface-2"
_FIELDS = {"name": str, "degree": list[int], "corner_sha256": list[str], "layout": dict}
_FIELDS |= {"buffers": dict[str, str]}


class BezierSurface:
    """theta(u, v) = sum_ij B_i^n(u) B_j^m(v) P_ij, a surface of networks of one architecture.

    The corners P_00, P_0m, P_n0, P_nm are the given networks, at (u, v) = (0,0), (0,1), (1,0) and
    (1,1). Degree (1, 1) is the bilinear surface through them.

    Attributes:
        control_points: (K, D), K = (n + 1)(m + 1), float64 if a corner's parameters are, else
            float32; row i (m + 1) + j is P_ij.
        degree: (n, m).
        layout: where each tensor lies in a row.
        buffers: the tensors that lie in no row: what the corners share, and their statistics.
        corner_hashes: SHA-256 of each corner's state dict.
        name: what tables call this surface.

    Reference: Ren, Chen, Wang, "Revisiting Mode Connectivity in Neural Networks with Bezier
    Surface", ICLR 2025.
    """

    def __init__(
        self,
        control_points: Float[Tensor, "control_points parameters"],
        degree: tuple[int, int],
        layout: ParameterLayout,
        buffers: Buffers,
        corner_hashes: Sequence[str],
        name: str,
    ) -> None:
        """Take the parts as they are; use `from_corners` or `load`."""
        self.control_points = control_points
        self.degree = degree
        self.layout = layout
        self.buffers = buffers
        self.corner_hashes = tuple(corner_hashes)
        self.name = name

    @classmethod
    def from_corners(
        cls,
        corners: Sequence[StateDict],
        degree: tuple[int, int] = (2, 2),
        name: str | None = None,
        *,
        model: nn.Module | None = None,
        buffers: Mapping[str, str] | None = None,
    ) -> "BezierSurface":
        """Span a surface by four state dicts of one architecture.

        Every other control point starts on the bilinear surface through the corners, so that a
        surface of any degree starts as the bilinear one. A tensor that is equal in all corners is
        stored once and stays as it is; if it turns out to be a parameter, `fit` trains it.

        Args:
            corners: state dicts of the networks at (u, v) = (0,0), (0,1), (1,0), (1,1).
            degree: (n, m), polynomial degree along u and along v, each at least 1.
            name: what tables call the surface; `linear` for degree (1, 1), else `bezier`.
            model: a module of their architecture. The corners are then what it makes of them, with
                its names and dtypes, and what it declares as a buffer is none of the coordinates.
                State dicts alone don't tell a buffer from a parameter; without a module only those
                of BatchNorm and of spectral norm are known, and others that differ are refused
                where the module is given (`fit`, `evaluate_grid`).
            buffers: name or pattern (`*.moving_mean`) of a tensor that is no parameter and differs
                between the corners -> what it is between them: `nearest` (the nearest corner's),
                `interpolate`, or `first` (that of the corner (0,0)).

        Raises:
            InputError: if they are no four networks of one architecture, or the degree is
                impossible.
        """
        degree = _check_degree(degree)
        if len(corners) != 4:
            raise InputError(
                f"a surface needs 4 corners, got {len(corners)}; give the state dicts of the "
                "networks at (u, v) = (0,0), (0,1), (1,0), (1,1)."
            )
        parameters = None
        if model is not None:
            corners, parameters = _read_through(model, corners)
        layout, others = separate(corners, CORNERS, buffers, parameters)
        rows = torch.empty(4, layout.dimension, dtype=layout.dtype)
        for corner, row in zip(corners, rows, strict=True):
            layout.flatten(corner, out=row)
        _warn_of_equals(rows)
        n, m = degree
        i, j = torch.meshgrid(torch.arange(n + 1), torch.arange(m + 1), indexing="ij")
        bilinear = surface_basis((1, 1), i.flatten() / n, j.flatten() / m)
        surface = cls(
            bilinear.to(rows) @ rows,
            degree,
            layout,
            others,
            [state_hash(corner) for corner in corners],
            name or ("linear" if degree == (1, 1) else "bezier"),
        )
        surface.control_points[list(surface.corner_rows)] = rows  # -0.0 stays what it is
        return surface

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

    @property
    def control_point_names(self) -> tuple[str, ...]:
        """Name of each row: `corner_00` .. `corner_11` and `P_ij`."""
        n, m = self.degree
        between = "_" if max(n, m) >= 10 else ""  # P_1_10 and P_11_0 must differ
        names = [f"P_{i}{between}{j}" for i in range(n + 1) for j in range(m + 1)]
        for row, corner in zip(self.corner_rows, CORNERS, strict=True):
            names[row] = corner
        return tuple(names)

    def weights(
        self, u: Float[Tensor, " points"], v: Float[Tensor, " points"]
    ) -> Float[Tensor, "points control_points"]:
        """Return w with theta = w @ control_points, in their dtype, on the coordinates' device."""
        # The basis is evaluated in float64: at a corner its row is then exactly one-hot.
        basis = surface_basis(self.degree, u.double(), v.double())
        return basis.to(self.control_points.dtype)

    def point(self, u: float, v: float) -> Float[Tensor, " parameters"]:
        """Return theta(u, v), the parameters at one point."""
        weights = self.weights(*_check_coordinates(u, v))
        largest = int(weights.argmax())
        if weights[0, largest] == 1:  # a corner; the product would turn -0.0 into 0.0
            return self.control_points[largest].clone()
        return (weights @ self.control_points)[0]

    def state_dict(self, u: float, v: float) -> dict[str, Tensor]:
        """Return the network at (u, v) as a state dict that `load_state_dict` takes.

        At a corner it is that checkpoint. Elsewhere BatchNorm statistics are interpolated
        bilinearly, which is only a start: re-estimate them (`reestimate_batchnorm`) before the
        network is used. The vectors of spectral norm are those of the weights at (u, v); other
        tensors that differ between the corners are what `from_corners` was told (`buffers`).
        """
        theta = self.point(u, v)
        return self.layout.state_dict(theta, self.buffers_at(u, v, self.layout.views(theta)))

    def buffers_at(self, u: float, v: float, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the network at (u, v) that are no coordinates; see `Buffers.at`."""
        return self.buffers.at(surface_basis((1, 1), *_check_coordinates(u, v))[0], parameters)

    def arrange(self, names: Collection[str], tied: Mapping[str, str]) -> None:
        """Choose anew which tensors are coordinates, as a model declares them; no value changes.

        Args:
            names: of the tensors in the vector: of those that were, or that all corners share.
            tied: alias -> name, for two names of one tensor.
        """
        if set(names) == set(self.layout.names) and tied == self.layout.tied:
            return
        old, shared = self.layout, self.buffers.shared
        corner = self.state_dict(0.0, 0.0)
        pieces = dict(zip(old.names, self.control_points.split(old.sizes, dim=1), strict=True))
        pieces |= {
            name: tensor.reshape(1, -1).expand(len(self.control_points), -1)
            for name, tensor in shared.items()
        }
        self.layout = ParameterLayout.of(corner, names, tied)
        columns = [pieces[old.tied.get(name, name)] for name in self.layout.names]
        self.control_points = torch.cat(columns, dim=1).to(self.layout.dtype)
        kept = [name for name in self.layout.buffers if name not in self.buffers.policies]
        self.buffers = replace(self.buffers, shared={name: corner[name] for name in kept})

    def save(self, path: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
        """Save as safetensors, with degree, layout and corner hashes in the header."""
        if not bool(torch.isfinite(self.control_points).all()):
            raise DivergenceError(
                f"not saving {path}: a control point holds a NaN or an infinity. The fit diverged; "
                "lower its learning rate or clip the gradient."
            )
        tensors = {"control_points": self.control_points.cpu()}
        tensors |= {f"shared/{name}": tensor for name, tensor in self.buffers.shared.items()}
        tensors |= {f"corners/{name}": values for name, values in self.buffers.varying.items()}
        header = {
            **(metadata or {}),
            "format": _FORMAT,
            "name": self.name,
            "degree": list(self.degree),
            "corner_sha256": list(self.corner_hashes),
            "sha256": state_hash(tensors),
            "layout": self.layout.to_json(),
            "buffers": self.buffers.policies,
        }
        save_tensors(tensors, path, header)

    @classmethod
    def load(cls, path: str | Path) -> "BezierSurface":
        """Read a surface that `save` wrote."""
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
            policies, points = header["buffers"], tensors["control_points"]
            shared = {
                name: tensors[f"shared/{name}"] for name in layout.buffers if name not in policies
            }
            varying = {name: tensors[f"corners/{name}"] for name in policies}
            expected = ((degree[0] + 1) * (degree[1] + 1), layout.dimension)
            if points.shape != expected or points.dtype != layout.dtype:
                raise InputError(
                    f"control points are {points.dtype} of shape {tuple(points.shape)}, but degree "
                    f"{degree} and the layout ask for {layout.dtype} of shape {expected}."
                )
        buffers = Buffers(shared, varying, policies)
        return cls(points, degree, layout, buffers, header["corner_sha256"], header["name"])


def separate(
    states: Sequence[StateDict],
    labels: Sequence[str],
    asked: Mapping[str, str] | None = None,
    parameters: Collection[str] | None = None,
) -> tuple[ParameterLayout, Buffers]:
    """Tell the coordinates of the space that some networks span from everything else in them.

    Args:
        states: state dicts.
        labels: what messages call the networks.
        asked: name or pattern -> policy, see `BezierSurface.from_corners`.
        parameters: names of the parameters, if known.
    """
    check_same_architecture(states, labels)
    tied = find_ties(states, labels)
    policies = {k: v for k, v in choose_policies(states, asked).items() if k not in tied}
    inside, undecided, integers = [], [], []
    shared: dict[str, Tensor] = {}
    for name, tensor in states[0].items():
        if name in tied or name in policies:
            continue
        if not differing(states, name):
            shared[name] = tensor.detach().cpu().clone()
        elif not tensor.is_floating_point():
            integers.append(name)
        elif parameters is not None and name not in parameters:
            undecided.append(name)
        else:
            inside.append(name)
    check_decided(
        integers,
        "which are no floating numbers, so that nothing lies between them (quantized weights have "
        "to be dequantized first)",
    )
    check_decided(undecided, "which the model declares as buffers")
    varying = {
        name: torch.stack([state[name].detach().cpu() for state in states]) for name in policies
    }
    layout = ParameterLayout.of(states[0], inside, tied)
    return layout, Buffers(shared, varying, policies)


def _read_through(
    model: nn.Module, corners: Sequence[StateDict]
) -> tuple[list[dict[str, Tensor]], set[str]]:
    """Return what a module makes of state dicts, and the names of its parameters."""
    check_same_architecture(corners, CORNERS)
    module = copy_module(module_of(model, corners[0], rename=True))
    states = []
    for corner in corners:
        load_state(module, corner, rename=True)
        states.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
    return states, {name for name, _ in module.named_parameters(remove_duplicate=False)}


def _warn_of_equals(rows: Float[Tensor, "corners parameters"]) -> None:
    for (i, a), (j, b) in combinations(enumerate(CORNERS), 2):
        if torch.equal(rows[i], rows[j]):
            warnings.warn(
                f"{a} and {b} are the same network. (A state dict refers to the tensors of its "
                "module: copy them before the module is trained on.)",
                stacklevel=3,
            )
            return


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


def _check_coordinates(u: float, v: float) -> tuple[Float[Tensor, "1"], Float[Tensor, "1"]]:
    if not (0 <= u <= 1 and 0 <= v <= 1):
        raise InputError(f"(u, v) is ({u}, {v}); both must lie in [0, 1].")
    return torch.tensor([u], dtype=torch.float64), torch.tensor([v], dtype=torch.float64)
