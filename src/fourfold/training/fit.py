"""Fit the free control points of a surface; the corners stay fixed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fourfold.data.batches import Augment, Preprocess, as_input, to_device, training_batches
from fourfold.data.inputs import Input, Loss, Objective, split_input
from fourfold.errors import DivergenceError, InputError
from fourfold.seeds import make_generator
from fourfold.surfaces.surface import Surface
from fourfold.training.bound_model import ALIGNMENT, BoundModel
from fourfold.training.cuda_graph import Recorded, check_recordable
from fourfold.training.loop import Loop, OnStep
from fourfold.training.sampling import SAMPLERS, draw_edges
from fourfold.training.schedule import check_training_settings, learning_rate
from fourfold.training.snapshots import Snapshots

# Columns of the control-point matrix that are updated together. On a CPU a block of all rows should
# fit into the cache, so that momentum and control points cross memory once per step.
_BLOCK = {"cpu": 1 << 16}

# Names a fit's random streams: a corner trained with the seed of the fit must not share them.
_PURPOSE = "fit/"


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
    optimizer: str = "sgd",
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.98),
    weight_decay: float = 5e-4,
    clip_norm: float | None = None,
    warmup: float = 0.05,
    schedule: str = "cosine",
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
        optimizer: `sgd` (momentum) or `adamw` on the free control points.
        momentum: of SGD.
        betas: of AdamW.
        weight_decay: of the point.
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
    """
    if not surface.free_rows:
        raise InputError(
            f"{surface.shape} has no free control points to fit; choose a degree of at least 2 (of "
            "a chain a bend, of a simplex an added vertex), or train_corners=True."
        )
    objective = Objective(loss_function)
    check_training_settings(
        epochs=epochs, lr=lr, momentum=momentum, betas=betas, weight_decay=weight_decay,
        clip_norm=clip_norm, warmup=warmup, schedule=schedule,
    )  # fmt: skip
    if boundary_epochs < 0:
        raise InputError(f"boundary_epochs is {boundary_epochs}; it must be 0 or more.")
    if points_per_step < 1:
        raise InputError(f"points_per_step is {points_per_step}; it must be at least 1.")
    draw_surface = _choose(SAMPLERS, "sampler", sampler)
    data = training_batches(
        train_images, train_labels, objective, model, batch_size, default=128,
        what="train_images", points=points_per_step, device=device,
    )  # fmt: skip
    descend = SurfaceStep(
        surface, model, points_per_step, device=data.device, optimizer=optimizer, momentum=momentum,
        betas=betas, weight_decay=weight_decay, clip_norm=clip_norm, objective=objective,
        precision=precision, compile=compile, cuda_graph=cuda_graph,
    )  # fmt: skip
    drawing = make_generator(seed, f"{_PURPOSE}points")
    loop = Loop(
        data, epochs=boundary_epochs + epochs, seed=seed, purpose=_PURPOSE, target=descend,
        streams={"points": drawing}, augment=augment,
        preprocess=as_input(preprocess or data.preprocess, model), snapshots=snapshots,
        on_step=on_step,
    )  # fmt: skip
    boundary_steps = boundary_epochs * data.steps
    for inputs, target in loop.batches():
        check_recordable(cuda_graph, inputs, target)
        draw, first, last = draw_surface, boundary_steps, loop.steps
        if loop.epoch < boundary_epochs:
            draw, first, last = draw_edges, 0, boundary_steps
        if loop.position == first:
            descend.restart()
        rate = learning_rate(loop.position - first, last - first, lr, warmup, schedule)
        points = draw(surface.shape, points_per_step, drawing)
        loop.finish_step(*descend(points, inputs, target, rate), rate)
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
        clip_norm: float | None = None,
        objective: Objective | None = None,
        precision: str = "float32",
        compile: bool = False,
        cuda_graph: bool = False,
    ) -> None:
        """Move the control points to `device` and bind a copy of `model` to them; see `fit`."""
        descent_class = _choose(_OPTIMIZERS, "optimizer", optimizer)
        self._bound = BoundModel(model, surface, device, precision=precision, compile=compile)
        surface.control_points = surface.control_points.to(device)
        self._surface, self._device = surface, device
        self._clip_norm = clip_norm
        self._objective = objective or Objective()
        self._theta, self._gradient = (_rows(surface, points) for _ in range(2))
        self._passes: Callable[[Input, Input], tuple[Tensor, Tensor]] = self._gradients
        if cuda_graph and device.type == "cuda":
            if self._bound.has_moving_buffers:
                raise InputError(
                    "cuda_graph is True, but buffers of the model differ from point to point, "
                    "which a recorded step can't do; pass cuda_graph=False."
                )
            self._passes = Recorded(self._gradients)
        self._descent = descent_class(
            surface, momentum, betas, weight_decay, self._bound.constant_columns
        )

    def restart(self) -> None:
        """Forget the optimizer's state."""
        self._descent.restart()

    def __call__(
        self,
        points: Float[Tensor, "points axes"],
        inputs: Input,
        labels: Input,
        rate: float,
    ) -> tuple[Float[Tensor, ""], Shaped[Tensor, ""]]:
        """Move the free control points by one step; nothing waits for the device.

        Args:
            points: coordinates, on the CPU.
            inputs: a preprocessed batch; each point gets an equal share of it.
            labels: its labels.
            rate: learning rate.

        Returns:
            The mean loss over the points and the number of right predictions, before the step.
        """
        weights = self._surface.weights(*points.T)
        share = (weights[:, list(self._surface.free_rows)] / len(weights)).T.contiguous()
        moving = self._bound.has_moving_buffers
        self._mixtures = self._surface.mixture(points.tolist()) if moving else None
        torch.mm(to_device(weights, self._device), self._surface.control_points, out=self._theta)
        loss, correct = self._passes(inputs, labels)
        self._descent.step(to_device(share, self._device), self._theta, self._gradient, rate)
        return loss.clone(), correct.clone()

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


# --- updates of the control points ----------------------------------------------------------------


class _Block(NamedTuple):
    """Some columns of the control-point matrix in one step; all but the first are views."""

    columns: slice
    rows: list[Float[Tensor, " columns"]]  # the free control points
    theta: Float[Tensor, "points columns"]
    gradient: Float[Tensor, "points columns"]


class _Descent(ABC):
    """Move the free rows of the control points, block by block of columns.

    The gradient of row k over the points of a step is (1/c) sum_c w_ck g_c. It is formed for one
    block of columns at a time and never stored for all of them.
    """

    moments: int  # tensors of state, each as large as the free control points

    def __init__(
        self,
        surface: Surface,
        momentum: float,
        betas: tuple[float, float],
        weight_decay: float,
        constant_columns: Sequence[slice],
    ) -> None:
        self.points = surface.control_points
        self.free = list(surface.free_rows)
        self.momentum, self.betas, self.weight_decay = momentum, betas, weight_decay
        self.constant_columns = constant_columns
        block = _BLOCK.get(self.points.device.type, surface.dimension)
        self.blocks = [
            slice(start, min(start + block, surface.dimension))
            for start in range(0, surface.dimension, block)
        ]
        self.steps = 0
        self.states = [
            self.points.new_zeros(len(self.free), surface.dimension) for _ in range(self.moments)
        ]

    def restart(self) -> None:
        self.steps = 0
        for state in self.states:
            state.zero_()

    def step(
        self,
        share: Float[Tensor, "free points"],
        theta: Float[Tensor, "points parameters"],
        gradient: Float[Tensor, "points parameters"],
        rate: float,
    ) -> None:
        """Do one step from the points' parameters, which are used up, and gradients.

        `share` is the weights of the free control points divided by the number of points.
        """
        self.steps += 1
        for columns in self.constant_columns:  # no gradient there, and no decay either
            theta[:, columns] = 0
        for block in self.blocks:
            rows = [self.points[k, block] for k in self.free]
            part = _Block(block, rows, theta[:, block], gradient[:, block])
            self.update(part, share, rate)

    @abstractmethod
    def update(self, block: _Block, share: Float[Tensor, "free points"], rate: float) -> None:
        """Move one block of columns, each row by its share of the points' gradients."""


class _SGD(_Descent):
    """M <- momentum M + W^T (G + weight_decay Theta) / c, P <- P - rate M."""

    moments = 1

    def update(self, block: _Block, share: Float[Tensor, "free points"], rate: float) -> None:
        if self.weight_decay:
            block.gradient.add_(block.theta, alpha=self.weight_decay)
        velocity = self.states[0][:, block.columns]
        torch.addmm(velocity, share, block.gradient, beta=self.momentum, out=velocity)
        torch._foreach_add_(block.rows, list(velocity), alpha=-rate)


class _AdamW(_Descent):
    """AdamW on each free control point, with the decoupled decay acting on the point.

    Adam divides by the size of the gradient, and with it by w_k; so the decay of P_k is that of the
    mean of the step's points weighted by w_k, sum_c w_ck theta_c / sum_c w_ck. (With w_ck theta_c
    alone, decay relative to movement would be a ninth of a single network's on a 3 x 3 surface.)

    Reference: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    moments = 2

    def update(self, block: _Block, share: Float[Tensor, "free points"], rate: float) -> None:
        beta1, beta2 = self.betas
        direction = share @ block.gradient
        mean, square = (state[:, block.columns] for state in self.states)
        mean.lerp_(direction, 1 - beta1)
        square.mul_(beta2).addcmul_(direction, direction, value=1 - beta2)
        denominator = (square / (1 - beta2**self.steps)).sqrt_().add_(1e-8)  # eps as in PyTorch
        torch.div(mean, denominator, out=direction).div_(1 - beta1**self.steps)
        if self.weight_decay:
            total = share.sum(dim=1, keepdim=True)  # 0 for a row that no point of the step touches
            nearby = share / torch.where(total > 0, total, 1)
            direction.addmm_(nearby, block.theta, alpha=self.weight_decay)
        torch._foreach_add_(block.rows, list(direction), alpha=-rate)


_OPTIMIZERS = {"sgd": _SGD, "adamw": _AdamW}


def _choose(options: dict[str, Any], setting: str, value: str) -> Any:
    if value not in options:
        raise InputError(f"{setting} is {value!r}; choose one of {', '.join(sorted(options))}.")
    return options[value]
