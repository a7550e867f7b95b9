"""Surfaces of any shape in parameter space, spanned by trained networks."""

import os
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fourfold.errors import DivergenceError, InputError
from fourfold.files.reading import check_fields, reading, require_file, shortened
from fourfold.files.tensors import load_tensors, save_tensors, state_hash
from fourfold.surfaces.buffers import (
    RENEWED,
    Buffers,
    check_decided,
    choose_policies,
    differing,
)
from fourfold.surfaces.layout import (
    ParameterLayout,
    StateDict,
    check_same_architecture,
    find_ties,
    is_equal,
)
from fourfold.surfaces.modules import copy_module, load_state, module_of, tied_names
from fourfold.surfaces.shapes import ANY_COUNT, USUAL, Shape, make_shape, shape_of, written

_FORMAT = "fourfold-surface-3"
_SHARED_FORMAT = "fourfold-shared-1"  # of a file of what corners share, beside the surface's
_FIELDS = {"name": str, "shape": dict, "train_corners": bool, "corner_sha256": list[str]}
_FIELDS |= {"layout": dict, "buffers": dict[str, str]}


class Surface:
    """theta(x) = sum_k w_k(x) P_k, a surface, curve or volume of networks of one architecture.

    The weights w_k of the control points P_k are those of its shape, which sum to one. Control
    points at corners are the given networks.

    Attributes:
        control_points: (K, D), float64 if a corner's parameters are, else float32; in the order of
            `shape.control_point_names`.
        shape: what its points are, and where its control points act.
        layout: where each tensor lies in a row.
        buffers: the tensors that lie in no row: what the corners share, and their statistics.
        corner_hashes: SHA-256 of each corner's state dict.
        name: what tables call this surface.
        train_corners: whether `fit` moves the corners too.

    Reference: Ren, Chen, Wang, "Revisiting Mode Connectivity in Neural Networks with Bezier
    Surface", ICLR 2025; for other shapes see `fourfold.surfaces.shapes`.
    """

    def __init__(
        self,
        control_points: Float[Tensor, "control_points parameters"],
        shape: Shape,
        layout: ParameterLayout,
        buffers: Buffers,
        corner_hashes: Sequence[str],
        name: str,
        train_corners: bool = False,
    ) -> None:
        """Take the parts as they are; use `from_corners` or `load`."""
        self.control_points = control_points
        self.shape = shape
        self.layout = layout
        self.buffers = buffers
        self.corner_hashes = tuple(corner_hashes)
        self.name = name
        self.train_corners = train_corners

    @classmethod
    @torch.inference_mode(False)  # tensors made in that mode can't be moved by a fit outside of it
    def from_corners(
        cls,
        corners: Iterable[StateDict],
        degree: int | Sequence[int] | None = None,
        name: str | None = None,
        *,
        shape: str | Shape = "square",
        bends: int | None = None,
        added: int | None = None,
        model: nn.Module | None = None,
        buffers: Mapping[str, str] | None = None,
        train_corners: bool = False,
    ) -> "Surface":
        """Span a surface by state dicts of one architecture.

        Every other control point starts as a mixture of the corners, so that a surface of any
        degree starts as the linear one. A tensor that is equal in all corners is stored once and
        stays as it is; if it turns out to be a parameter, `fit` trains it.

        Args:
            corners: state dicts of the networks at `shape.corner_coordinates`; of a square those
                at (u, v) = (0,0), (0,1), (1,0), (1,1).
            degree: polynomial degree along each axis, at least 1; by default 2, of a simplex 1.
            name: what tables call the surface; by default `linear` or `bezier` for a square, else
                its shape.
            shape: `square`, `curve`, `chain`, `triangle`, `simplex`, `cube`, `star` or `set`, or a
                `Shape`.
            bends: of a chain; by default 1.
            added: vertices of a simplex that are no corners, and are trained, or 1 for such a
                center of a star; by default 0.
            model: a module of their architecture. The corners are then what it makes of them, with
                its names and dtypes, and what it declares as a buffer is none of the coordinates.
                State dicts alone don't tell a buffer from a parameter; without a module only those
                of BatchNorm and of spectral norm are known, and others that differ are refused
                where the module is given (`fit`, `evaluate_grid`).
            buffers: name or pattern (`*.moving_mean`) of a tensor that is no parameter and differs
                between the corners -> what it is between them: `nearest` (the nearest corner's),
                `interpolate`, or `first` (that of the first corner).
            train_corners: whether `fit` moves the corners too, which are then no trained networks
                but where the fit starts.

        Raises:
            InputError: if the networks are not of one architecture, or not as many as the shape has
                corners, or the shape is impossible; or if they differ in no parameter, nothing is
                left to `fit`, and no module says that this is meant.

        Reference for `train_corners`: Wortsman et al., "Learning Neural Network Subspaces", ICML
        2021.
        """
        corners = list(corners)
        if not isinstance(shape, Shape):
            shape = _make_shape(shape, len(corners), degree, bends, added)
        elif (degree, bends, added) != (None, None, None):
            raise InputError("shape is a Shape, which has its degree; leave degree out.")
        count = len(shape.corner_rows)
        if len(corners) != count:
            raise InputError(
                f"a {shape.kind} needs {count} corners, got {len(corners)}; give the state dicts "
                f"of the networks at ({', '.join(shape.axes)}) = "
                f"{', '.join(f'({written(corner)})' for corner in shape.corner_coordinates)}."
            )
        parameters = None
        labels = shape.corner_names
        if model is not None:
            corners, parameters = _read_through(model, corners, labels)
        layout, others = separate(corners, labels, buffers, parameters)
        is_fixed = not (shape.free_rows or train_corners)
        if not layout.dimension and model is None and count > 1 and is_fixed:
            raise InputError(
                f"the {count} corners are one network: D is 0, since they differ in no parameter, "
                f"and {shape} has no control point to fit. Give {count} different networks. (A "
                "state dict refers to the tensors of its module: copy it before the module is "
                "trained on.)"
            )
        rows = torch.empty(count, layout.dimension, dtype=layout.dtype)
        for corner, row in zip(corners, rows, strict=True):
            layout.flatten(corner, out=row)
        _warn_of_equals(rows, labels)
        start = torch.from_numpy(shape.mixture(shape.nodes))
        surface = cls(
            start.to(rows) @ rows,
            shape,
            layout,
            others,
            [state_hash(corner) for corner in corners],
            name or _usual_name(shape),
            train_corners,
        )
        surface.control_points[list(shape.corner_rows)] = rows  # -0.0 stays what it is
        return surface

    def __repr__(self) -> str:
        """Name, shape and size."""
        return f"Surface(name={self.name!r}, shape={self.shape}, D={self.dimension})"

    @property
    def dimension(self) -> int:
        """D, the number of parameters of one network."""
        return self.layout.dimension

    @property
    def free_rows(self) -> tuple[int, ...]:
        """Rows of `control_points` that `fit` may move: all but the corners, or all."""
        every = tuple(range(len(self.control_points)))
        return every if self.train_corners else self.shape.free_rows

    @property
    def control_point_names(self) -> tuple[str, ...]:
        """Name of each row, such as `corner_00` and `P_11`."""
        return self.shape.control_point_names

    def weights(
        self, *coordinates: Float[Tensor, " points"]
    ) -> Float[Tensor, "points control_points"]:
        """Return w with theta = w @ control_points, in their dtype, on the coordinates' device.

        Args:
            coordinates: one tensor for each axis.
        """
        # Evaluated in float64: at a corner its row is then exactly one-hot.
        points = torch.stack([axis.double() for axis in coordinates], dim=1)
        weights = torch.from_numpy(self.shape.weights(points.cpu().numpy()))
        return weights.to(points.device, self.control_points.dtype)

    def point(self, *coordinates: float) -> Float[Tensor, " parameters"]:
        """Return theta, the parameters at one point."""
        at = self.shape.check(coordinates)
        weights = self.weights(*torch.tensor(at, dtype=torch.float64)[:, None])
        if weights.count_nonzero() == 1:  # a corner; the product would turn -0.0 into 0.0
            return self.control_points[int(weights.argmax())].clone()
        return (weights @ self.control_points)[0]

    def state_dict(self, *coordinates: float) -> dict[str, Tensor]:
        """Return the network at a point as a state dict that `load_state_dict` takes.

        At a corner it is that checkpoint. Elsewhere BatchNorm statistics are mixed as the corners
        are in the linear surface, which is only a start: re-estimate them (`reestimate_batchnorm`)
        before the network is used. The vectors of spectral norm are those of the weights there;
        other tensors that differ between the corners are what `from_corners` was told (`buffers`).
        """
        theta = self.point(*coordinates)
        return self.layout.state_dict(theta, self.buffers_at(coordinates, self.layout.views(theta)))

    def buffers_at(
        self, point: Sequence[float], parameters: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the tensors of the network at a point that are no coordinates: `Buffers.at`."""
        (weights,) = self.shape.weights(np.array([self.shape.check(point)]))
        (rows,) = np.nonzero(weights)
        is_corner = len(rows) == 1 and int(rows[0]) in self.shape.corner_rows
        return self.buffers.at(
            self.mixture([point])[0],
            parameters,
            self.layout.tied,
            is_network=is_corner and not self.train_corners,
        )

    def mixture(self, points: Sequence[Sequence[float]]) -> Float[Tensor, "points corners"]:
        """Return the weights of the corners in the linear surface through them, at points."""
        checked = np.array([self.shape.check(point) for point in points])
        return torch.from_numpy(self.shape.mixture(checked))

    def raised(self) -> "Surface":
        """Return the same surface with the next degree (a chain with a bend in each piece)."""
        shape, matrix = self.shape.raised()
        points = torch.from_numpy(matrix).to(self.control_points) @ self.control_points
        points[list(shape.corner_rows)] = self.control_points[list(self.shape.corner_rows)]
        parts = (self.layout, self.buffers, self.corner_hashes, self.name, self.train_corners)
        return Surface(points, shape, *parts)

    def corner(self, position: int = 0) -> dict[str, Tensor]:
        """Return a corner's network as a state dict."""
        return self.state_dict(*self.shape.corner_coordinates[position])

    def arrange(self, names: Collection[str], tied: Mapping[str, str]) -> None:
        """Choose anew which tensors are coordinates, as a model declares them; no value changes.

        Args:
            names: of the tensors in the vector: of those that were, or that all corners share.
            tied: alias -> name, for two names of one tensor.
        """
        if set(names) == set(self.layout.names) and tied == self.layout.tied:
            return
        old, shared = self.layout, self.buffers.shared
        corner = self.corner()
        pieces = dict(zip(old.names, self.control_points.split(old.sizes, dim=1), strict=True))
        pieces |= {
            name: tensor.reshape(1, -1).expand(len(self.control_points), -1)
            for name, tensor in shared.items()
        }
        self.layout = ParameterLayout.of(corner, names, tied)
        columns = [pieces[old.tied.get(name, name)] for name in self.layout.names]
        self.control_points = torch.cat(columns, dim=1).to(self.layout.dtype)
        kept = [name for name in self.layout.buffers if name not in self.buffers.policies]
        kept_shared = {name: shared[name] if name in shared else corner[name] for name in kept}
        self.buffers = replace(self.buffers, shared=kept_shared)

    def save(
        self,
        path: str | Path,
        metadata: Mapping[str, Any] | None = None,
        shared: str | Path | None = None,
    ) -> None:
        """Save as safetensors, with shape, layout and corner hashes in the header.

        Args:
            path: of the file.
            metadata: further entries of the header.
            shared: file for the tensors that all corners share, relative to the folder of `path`
                or absolute. It is written once: one that is there with the same content is left
                as it is. `load` looks for it from the surface's folder, so move both together.

        Raises:
            DivergenceError: if a control point is not finite.
            InputError: if `shared` is there and holds something else.
        """
        if not bool(torch.isfinite(self.control_points).all()):
            raise DivergenceError(
                f"not saving {path}: a control point holds a NaN or an infinity. The fit diverged; "
                "lower its learning rate or clip the gradient."
            )
        tensors = {"control_points": self.control_points.cpu()}
        tensors |= {f"corners/{name}": values for name, values in self.buffers.varying.items()}
        elsewhere = None
        if shared is None:
            tensors |= {f"shared/{name}": tensor for name, tensor in self.buffers.shared.items()}
        else:
            elsewhere = _save_shared(self.buffers.shared, Path(path), shared)
        header = {
            **(metadata or {}),
            "format": _FORMAT,
            "name": self.name,
            "shape": self.shape.described(),
            "train_corners": self.train_corners,
            "corner_sha256": list(self.corner_hashes),
            "sha256": state_hash(tensors),
            "layout": self.layout.to_json(),
            "buffers": self.buffers.policies,
            "shared": elsewhere,
        }
        save_tensors(tensors, path, header)

    @classmethod
    def load(cls, path: str | Path) -> "Surface":
        """Read a surface that `save` wrote, and the file of what its corners share, if it has one.

        Raises:
            InputError: if a file is missing, damaged, or not the one that was saved.
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
            shape = shape_of(header["shape"])
            policies, points = header["buffers"], tensors["control_points"]
            stored = {f"shared/{name}": name for name in layout.buffers if name not in policies}
            if header.get("shared") is not None:
                tensors |= _load_shared(header["shared"], Path(path))
            shared = {name: tensors[key] for key, name in stored.items()}
            varying = {name: tensors[f"corners/{name}"] for name in policies}
            expected = (len(shape.control_point_names), layout.dimension)
            if points.shape != expected or points.dtype != layout.dtype:
                raise InputError(
                    f"control points are {points.dtype} of shape {tuple(points.shape)}, but "
                    f"{shape} and the layout ask for {layout.dtype} of shape {expected}."
                )
        buffers = Buffers(shared, varying, policies)
        hashes, name = header["corner_sha256"], header["name"]
        return cls(points, shape, layout, buffers, hashes, name, header["train_corners"])


BezierSurface = Surface  # what it was called when squares were all there was


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
        asked: name or pattern -> policy, see `Surface.from_corners`.
        parameters: names of the parameters, if known.
    """
    check_same_architecture(states, labels)
    tied = find_ties(states, labels)
    policies = {
        name: policy
        for name, policy in choose_policies(states, asked).items()
        if name not in tied and (policy == RENEWED or differing(states, name))
    }
    inside, undecided, integers = [], [], []
    shared: dict[str, Tensor] = {}
    for name, tensor in states[0].items():
        if name in tied or name in policies:
            continue
        if not differing(states, name):
            shared[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
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
    model: nn.Module, corners: Sequence[StateDict], labels: Sequence[str]
) -> tuple[list[dict[str, Tensor]], set[str]]:
    """Return what a module makes of state dicts, and the names of its parameters."""
    check_same_architecture(corners, labels)
    module = copy_module(module_of(model, corners[0], rename=True))
    states: list[dict[str, Tensor]] = []
    aliases = {alias: name for name, *others in tied_names(module) for alias in others}
    for corner in corners:
        load_state(module, corner, rename=True)
        read = module.state_dict()
        first = states[0] if states else {}
        state: dict[str, Tensor] = {}
        for name, tensor in read.items():
            if name in first and is_equal(first[name], tensor):
                state[name] = first[name]
            else:  # what the module ties stays one tensor
                alias_of = state.get(aliases.get(name, name))
                state[name] = tensor.clone() if alias_of is None else alias_of
        states.append(state)
    return states, {name for name, _ in module.named_parameters(remove_duplicate=False)}


def _save_shared(tensors: StateDict, surface: Path, path: str | Path) -> dict[str, str]:
    """Write what corners share to a file of its own, once; return what the header says of it."""
    file, digest = surface.parent / path, state_hash(tensors)
    # A link is taken for what it is called, since a store of files may lie behind it.
    name = os.path.relpath(file.parent.resolve() / file.name, surface.parent.resolve())
    if name == surface.name:
        raise InputError(f"shared is {path}, the surface's own file; give it another name.")
    if not file.exists():
        save_tensors(tensors, file, {"format": _SHARED_FORMAT, "sha256": digest})
    elif state_hash(load_tensors(file)[0]) != digest:
        raise InputError(
            f"{file} is there and holds other tensors than the corners of {surface} share; give "
            "shared another name, or delete that file if no other surface needs it."
        )
    return {"file": Path(name).as_posix(), "sha256": digest}


def _load_shared(described: Any, surface: Path) -> dict[str, Tensor]:
    """Read what `_save_shared` wrote, under the names of a surface that holds it itself."""
    check_fields({"shared": described}, {"shared": dict[str, str]}, "the header")
    check_fields(described, {"file": str, "sha256": str}, "the header's entry 'shared'")
    file = surface.parent / described["file"]
    require_file(
        file,
        f"{surface} needs what its corners share from {file}, which isn't there; move both files "
        "together, or save the surface again.",
    )
    tensors, _ = load_tensors(file)
    if state_hash(tensors) != described["sha256"]:
        raise InputError(
            f"{file} is not the file that {surface} was saved with: it doesn't have the hash in "
            "the surface's header. Put that file back, or save the surface again."
        )
    return {f"shared/{name}": tensor for name, tensor in tensors.items()}


def _warn_of_equals(rows: Float[Tensor, "corners parameters"], labels: Sequence[str]) -> None:
    for (i, a), (j, b) in combinations(enumerate(labels), 2):
        if torch.equal(rows[i], rows[j]):
            warnings.warn(
                f"{a} and {b} are the same network. (A state dict refers to the tensors of its "
                "module: copy them before the module is trained on.)",
                stacklevel=3,
            )
            return


def _make_shape(
    kind: str,
    corners: int,
    degree: int | Sequence[int] | None,
    bends: int | None,
    added: int | None,
) -> Shape:
    """Make a shape from what the caller says and the usual values of the rest."""
    given: dict[str, Any] = {"degree": [degree] if isinstance(degree, int) else degree}
    given |= {"bends": bends, "added": added}
    settings = {key: value for key, value in given.items() if value is not None}
    count = corners if kind in ANY_COUNT else None
    return make_shape(kind, count, **USUAL.get(kind, {}) | settings)


def _usual_name(shape: Shape) -> str:
    if shape.kind != "square":
        return shape.kind
    return "bezier" if shape.free_rows else "linear"
