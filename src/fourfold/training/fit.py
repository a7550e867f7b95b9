"""Fit the free control points of a surface; the corners stay fixed."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import accumulate
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Shaped
from torch import Tensor, nn

from fourfold.data.batches import Augment, Preprocess, as_input, to_device, training_batches
from fourfold.data.inputs import Input, Loss, Objective, join_inputs, split_input
from fourfold.errors import DivergenceError, InputError, check_count
from fourfold.seeds import make_generator
from fourfold.surfaces.surface import Surface
from fourfold.training.bound_model import ALIGNMENT, BoundModel
from fourfold.training.cuda_graph import Recorded, check_recordable
from fourfold.training.descent import DECAYS, OPTIMIZERS
from fourfold.training.loop import Loop, OnStep
from fourfold.training.onednn import avoid_wrong_gradients
from fourfold.training.phases import plan_phases
from fourfold.training.sampling import SAMPLERS, draw_edges, draw_on_curves
from fourfold.training.schedule import Schedule, check_training_settings, learning_rate, lies
from fourfold.training.snapshots import Snapshots

# Names a fit's random streams: a corner trained with the seed of the fit must not share them.
_PURPOSE = "fit/"


@torch.enable_grad()
def fit(
    surface: Surface,
    model: nn.Module,
    train_images: Any,
    train_labels: Any = None,
    *,
    epochs: int = 40,
    lr: float = 0.4,
    seed: int = 0,
    batch_size: int | None = None,
    points_per_step: int = 4,
    sampler: str = "latin-hypercube",
    boundary_epochs: int = 0,
    phases: Sequence[Mapping[str, Any]] | None = None,
    repeats: int = 1,
    optimizer: str = "sgd",
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.98),
    weight_decay: float = 5e-4,
    decay: str = "point",
    cosine: float = 0.0,
    clip_norm: float | None = None,
    warmup: float = 0.05,
    schedule: Schedule = "cosine",
    precision: str = "float32",
    compile: bool = False,
    cuda_graph: bool = False,
    augment: Augment | None = None,
    preprocess: Preprocess | None = None,
    loss_function: Loss = F.cross_entropy,
    device: torch.device | str | None = None,
    snapshots: Snapshots | None = None,
    on_step: OnStep | None = None,
) -> pd.DataFrame:
    """Minimize the mean loss over the surface, E over (u, v) ~ U(0,1)^2 of L(theta(u, v)).

    A step draws `points_per_step` points, evaluates an equal share of the batch at each, and moves
    every free control point P_k by what the points' gradients say: dL/dP_k = w_k(u, v) dL/dtheta.
    Weight decay acts on the point, as for a single network: `sgd` adds weight_decay * theta to
    dL/dtheta; `adamw` moves each control point against the mean of the step's points, weighted by
    w_k, so that decay and gradient keep the proportion that they have in a single network.

    Args:
        surface: its free control points are moved in place. After an error they are where the last
            step left them.
        model: any module of the corners' architecture; it is copied, not changed.
        train_images: as in `train`, tensors or batches. A batch that is no multiple of
            `points_per_step` is left out.
        train_labels: (n,) class indices; with a `loss_function` whatever it takes. None beside
            batches.
        epochs: passes over the images for the whole surface.
        lr: peak learning rate. A point of a 3 x 3 surface moves 0.11 times as far as a single
            network at the same rate under SGD (see `gram_matrix`), so take 2 to 8 times
            the rate of the corners' own training; under AdamW 0.53 times, so take 1 to 3 times.
        seed: of data order, points, augmentation and dropout.
        batch_size: images per step, a multiple of `points_per_step`, by default 128; of tensors
            alone.
        points_per_step: points of the surface per step; more points lower the gradient's variance,
            fewer give BatchNorm larger batches.
        sampler: `latin-hypercube` (one point in each of `points_per_step` strata of u and of v) or
            `uniform` (independent points).
        boundary_epochs: passes that train the edges alone before `epochs` passes
            over the whole surface, the first of the paper's two phases. Each phase has a learning-
            rate schedule of its own.
        phases: what comes before all that, in this order; each a dictionary of `epochs`, `curves`
            and, if not all free control points on them move, `rows`. A curve is the names of a
            Bezier curve's control points, such as [corner_00, P_01, corner_01] for the edge u = 0
            of a 3 x 3 surface; it need not lie on the surface. A step draws one t ~ U(0, 1) and
            passes the whole batch at the point t of each of the phase's curves.
        repeats: steps in a row that use the same batch, as it was augmented once, each at points of
            its own. Passes over the data are `repeats` times the epochs.
        optimizer: `sgd` (momentum) or `adamw` on the free control points.
        momentum: of SGD.
        betas: of AdamW.
        weight_decay: of the point.
        decay: `point`, or `control-points`: each free control point that the step moves decays by
            itself, as in `torch.optim.SGD` and `AdamW`.
        cosine: beta of the regularizer beta cos^2(P_k, P_l), which keeps the networks different; 0
            for none. A step draws a control point that it moves, and any other, over the trained
            tensors with two or more dimensions. `nll` in the table is without it.
        clip_norm: largest norm of a point's gradient, None for no limit.
        warmup: fraction of the steps of a phase with a linearly rising learning rate.
        schedule, precision, compile, cuda_graph, augment, preprocess, loss_function, snapshots: as
            in `train`.
        device: where to fit; by default where the images are, of batches where the model is.
        on_step: progress report, called with (step, steps, loss, images seen).

    Returns:
        One row per epoch: epoch, step, split, nll, accuracy, learning_rate, images_seen, wall_s.

    Raises:
        DivergenceError: if the loss of an epoch or a control point is not finite.

    Reference for `cosine`: Wortsman et al., "Learning Neural Network Subspaces", ICML 2021, eq. 3.
    """
    if not surface.free_rows:
        raise InputError(
            f"{surface.shape} has no free control points to fit; choose a degree of at least 2 (of "
            "a chain a bend, of a simplex an added vertex, of a star an added center), or "
            "train_corners=True."
        )
    if surface.shape.is_discrete:
        raise InputError(
            f"{surface.shape} has nothing between its networks to fit; train each of them, or "
            "choose another shape."
        )
    objective = Objective(loss_function)
    check_training_settings(
        epochs=epochs, lr=lr, momentum=momentum, betas=betas, weight_decay=weight_decay,
        clip_norm=clip_norm, warmup=warmup, schedule=schedule,
    )  # fmt: skip
    check_count("boundary_epochs", boundary_epochs)
    check_count("points_per_step", points_per_step, 1)
    check_count("repeats", repeats, 1)
    plan = plan_phases(
        surface.shape, surface.free_rows, phases=phases, boundary_epochs=boundary_epochs,
        epochs=epochs,
    )  # fmt: skip
    draw_surface = _choose(SAMPLERS, "sampler", sampler)
    data = training_batches(
        train_images, train_labels, objective, model, batch_size, default=128,
        what="train_images", points=points_per_step, device=device,
    )  # fmt: skip
    drawing, pairing = (make_generator(seed, f"{_PURPOSE}{name}") for name in ("points", "pairs"))
    descend = SurfaceStep(
        surface, model, points_per_step, device=data.device, optimizer=optimizer, momentum=momentum,
        betas=betas, weight_decay=weight_decay, decay=decay, cosine=cosine, pairing=pairing,
        clip_norm=clip_norm, objective=objective, precision=precision, compile=compile,
        cuda_graph=cuda_graph,
    )  # fmt: skip
    ends = list(accumulate(phase.epochs for phase in plan))
    loop = Loop(
        data, epochs=ends[-1], repeats=repeats, seed=seed, purpose=_PURPOSE, target=descend,
        streams={"points": drawing, "pairs": pairing}, augment=augment,
        preprocess=as_input(preprocess or data.preprocess, model), snapshots=snapshots,
        on_step=on_step,
    )  # fmt: skip
    with avoid_wrong_gradients(model, data.device):
        for inputs, target in loop.batches():
            check_recordable(cuda_graph, inputs, target)
            k = bisect_right(ends, loop.epoch)
            phase, steps = plan[k], plan[k].epochs * loop.steps_per_epoch
            step = loop.position - (ends[k] * loop.steps_per_epoch - steps)
            if step == 0:
                descend.restart()
            rate = learning_rate(step, steps, lr, warmup, schedule)
            weights, passes = None, 1
            if phase.curves:
                points, weights = draw_on_curves(surface.shape, phase.curves, drawing)
                passes = len(points)
                inputs, target = (join_inputs([part] * passes) for part in (inputs, target))
            else:
                draw = draw_edges if phase.edges else draw_surface
                points = draw(surface.shape, points_per_step, drawing)
            done = descend(points, inputs, target, rate, weights=weights, rows=phase.rows)
            loop.finish_step(*done, rate, passes)
    surface.control_points = surface.control_points.cpu()
    if not bool(torch.isfinite(surface.control_points).all()):  # the last step is in no loss
        raise DivergenceError(
            "the fit diverged: a control point holds a NaN or an infinity. Lower lr, lengthen "
            "warmup, or set clip_norm."
        )
    return pd.DataFrame(loop.rows)


class SurfaceStep:
    """One step of `fit`: the gradients at some points of the surface, and what they move.

    Holds the points' parameters and gradients, (points, D) each, and the optimizer's state, as
    large as the free control points (for AdamW twice that).
    """

    def __init__(
        self,
        surface: Surface,
        model: nn.Module,
        points: int,
        *,
        device: torch.device,
        optimizer: str = "sgd",
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 5e-4,
        decay: str = "point",
        cosine: float = 0.0,
        pairing: torch.Generator | None = None,
        clip_norm: float | None = None,
        objective: Objective | None = None,
        precision: str = "float32",
        compile: bool = False,
        cuda_graph: bool = False,
    ) -> None:
        """Move the control points to `device` and bind a copy of `model` to them; see `fit`.

        `pairing` draws the pairs of control points for `cosine`.
        """
        descent_class = _choose(OPTIMIZERS, "optimizer", optimizer)
        _choose(dict.fromkeys(DECAYS), "decay", decay)
        if not lies(cosine):
            raise InputError(f"cosine is {cosine!r}; it must be a number, 0 or more.")
        self._bound = BoundModel(model, surface, device, precision=precision, compile=compile)
        surface.control_points = surface.control_points.to(device)
        self._surface, self._device = surface, device
        self._clip_norm = clip_norm
        self._objective = objective or Objective()
        self._is_recorded = cuda_graph and device.type == "cuda"
        if self._is_recorded and self._bound.has_moving_buffers:
            raise InputError(
                "cuda_graph is True, but buffers of the model differ from point to point, "
                "which a recorded step can't do; pass cuda_graph=False."
            )
        self._allocate(points)
        self._cosine, self._pairing, self._optimizer = cosine, pairing, optimizer
        self._descent = descent_class(
            surface, self._bound.constant_columns, momentum=momentum, betas=betas,
            weight_decay=weight_decay, decay=decay, cosine=cosine,
        )  # fmt: skip

    def _allocate(self, points: int) -> None:
        self._theta = self._gradient = self._surface.control_points[:0]  # frees the former ones
        self._passes: Callable[[Input, Input], tuple[Tensor, Tensor]] = self._gradients
        if self._is_recorded:
            self._passes = Recorded(self._gradients)
        self._theta, self._gradient = (_rows(self._surface, points) for _ in range(2))

    def restart(self) -> None:
        """Forget the optimizer's state."""
        self._descent.restart()

    def __call__(
        self,
        points: Float[Tensor, "points axes"],
        inputs: Input,
        labels: Input,
        rate: float,
        *,
        weights: Float64[Tensor, "points control_points"] | None = None,
        rows: Collection[int] | None = None,
    ) -> tuple[Float[Tensor, ""], Shaped[Tensor, ""]]:
        """Move the free control points by one step; nothing waits for the device.

        Args:
            points: coordinates, on the CPU.
            inputs: a preprocessed batch; each point gets an equal share of it.
            labels: its labels.
            rate: learning rate.
            weights: of the control points at `points`; by default those of the surface.
            rows: free control points that may move; by default all.

        Returns:
            The mean loss over the points and the number of right predictions, before the step.
        """
        free, control_points = self._surface.free_rows, self._surface.control_points
        if weights is None:
            at = self._surface.weights(*points.T)
        else:
            at = weights.to(control_points.dtype)
        share = (at[:, list(free)] / len(at)).T.contiguous()
        if rows is not None:
            share *= torch.tensor([[row in rows] for row in free])
        touched = [i for i, total in enumerate(share.sum(dim=1).tolist()) if total > 0]
        if len(at) != len(self._theta):
            self._allocate(len(at))
        moving = self._bound.has_moving_buffers
        self._mixtures = self._surface.mixture(points.tolist()) if moving else None
        torch.mm(to_device(at, self._device), control_points, out=self._theta)
        loss, correct = self._passes(inputs, labels)
        self._descent.step(
            to_device(share, self._device), self._theta, self._gradient, rate, touched,
            pair=self._draw_pair([free[i] for i in touched]),
        )  # fmt: skip
        return loss, correct

    def _draw_pair(self, moving: Sequence[int]) -> tuple[int, int] | None:
        """Draw a control point that moves, and another, whether it moves or not."""
        if not self._cosine or not moving:
            return None
        others = len(self._surface.control_points) - 1
        first, step = (
            int(torch.randint(n, (), generator=self._pairing)) for n in (len(moving), others)
        )
        return moving[first], (moving[first] + 1 + step) % (others + 1)

    def _gradients(self, inputs: Input, labels: Input) -> tuple[Tensor, Tensor]:
        """Write the gradient at each point; return mean loss and number of right predictions."""
        theta, gradient, mixtures = self._theta, self._gradient, self._mixtures
        shares = zip(split_input(inputs, len(theta)), split_input(labels, len(theta)), strict=True)
        losses, correct = [], []
        for i, (x, y) in enumerate(shares):
            mixture = None if mixtures is None else mixtures[i]
            loss, output = self._bound.gradient(
                theta[i], x, y, self._objective.loss, out=gradient[i], mixture=mixture
            )
            losses.append(loss)
            correct.append(self._objective.correct(output, y))
        if self._clip_norm is not None:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient.mul_((self._clip_norm / (norm + 1e-6)).clamp(max=1))
        return torch.stack(losses).mean(), torch.stack(correct).sum()

    def described(self) -> dict[str, Any]:
        """Return which corners, shape, parameters and optimizer a state is of."""
        surface = self._surface
        return {
            "corners": surface.corner_hashes,
            "shape": surface.shape.described(),
            "train_corners": surface.train_corners,
            "layout": surface.layout.to_json(),
            "optimizer": self._optimizer,
        }

    def state(self) -> dict[str, Any]:
        """Return the free control points and the optimizer's state."""
        rows = self._surface.control_points
        state: dict[str, Any] = {f"point/{k}": rows[k] for k in self._surface.free_rows}
        state |= {f"moment/{i}": moment for i, moment in enumerate(self._descent.states)}
        return state | {"steps": self._descent.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set what `state` returned."""
        for k in self._surface.free_rows:
            self._surface.control_points[k].copy_(state[f"point/{k}"])
        for i, moment in enumerate(self._descent.states):
            moment.copy_(state[f"moment/{i}"])
        self._descent.steps = state["steps"]


def _rows(surface: Surface, points: int) -> Float[Tensor, "points parameters"]:
    """Return an empty matrix whose rows begin at aligned addresses on a GPU."""
    like, numbers = surface.control_points, surface.dimension
    if like.is_cuda:
        multiple = ALIGNMENT // like.element_size()
        numbers = -(-numbers // multiple) * multiple
    return like.new_empty(points, numbers)[:, : surface.dimension]


def _choose(options: dict[str, Any], setting: str, value: str) -> Any:
    if not isinstance(value, str) or value not in options:
        raise InputError(f"{setting} is {value!r}; choose one of {', '.join(sorted(options))}.")
    return options[value]
