"""Train one network: the corners of a surface."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fourfold.data.batches import Augment, Preprocess, as_input, to_float
from fourfold.data.inputs import Objective, as_tensor
from fourfold.errors import InputError
from fourfold.evaluation.precision import check_precision, compute_precision
from fourfold.surfaces.modules import check_trainable
from fourfold.training.cuda_graph import Recorded
from fourfold.training.loop import Loop, OnStep
from fourfold.training.schedule import check_training_settings, learning_rate
from fourfold.training.snapshots import Snapshots


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    lr: float,
    seed: int,
    batch_size: int = 64,
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
    preprocess: Preprocess = to_float,
    snapshots: Snapshots | None = None,
    on_step: OnStep | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train `model` in place on its own device.

    Args:
        model: any module that maps a preprocessed batch to (batch, classes) logits, or to an
            object with such `logits`.
        images: (n, ...) training images on the model's device, a tensor or an array.
        labels: (n,) class indices on the same device.
        epochs: passes over the images; an incomplete last batch of an epoch is left out.
        lr: peak learning rate.
        seed: of data order, augmentation and dropout.
        batch_size: images per step.
        optimizer: `sgd` (Nesterov momentum) or `adamw` (decoupled weight decay).
        momentum: of SGD.
        betas: of AdamW.
        weight_decay: on every parameter.
        clip_norm: largest norm of the gradient, None for no limit.
        warmup: fraction of the steps with a linearly rising learning rate.
        schedule: `cosine` (to 0) or `constant`.
        precision: `float32`, `tf32` or `bfloat16`, of the passes; parameters stay float32.
        compile: run the network through `torch.compile`; the first steps then take up to minutes.
        cuda_graph: on a GPU, launch the passes of a step at once; see `Recorded`.
        augment: maps a batch of `images` and a generator to an augmented batch.
        preprocess: maps a batch of `images` to the model's input.
        snapshots: where to save the state at intervals, and to continue from if one is there.
        on_step: progress report.
        on_epoch: called with the number of epochs done, the model being in training mode.

    Returns:
        One row per epoch for the `training` table, split `train` (loss and accuracy are running
        means over the epoch's augmented batches).

    Raises:
        InputError: if a setting is impossible.
        DivergenceError: if the loss of an epoch is not finite.
    """
    images = as_tensor(images, "images")
    objective = Objective(labels, len(images))
    check_training_settings(
        n=len(images), epochs=epochs, lr=lr, batch_size=batch_size,
        momentum=momentum, betas=betas, weight_decay=weight_decay, clip_norm=clip_norm,
        warmup=warmup, schedule=schedule,
    )  # fmt: skip
    check_precision(precision)
    check_trainable(model, batch_size, "batch_size is 1")
    parameters = [p for p in model.parameters() if p.requires_grad]
    descent = _make_optimizer(optimizer, parameters, lr, momentum, betas, weight_decay)

    def finish_epoch(epoch: int) -> None:
        if on_epoch is not None:
            on_epoch(epoch)
            model.train()

    device = parameters[0].device
    if images.device != device:
        raise InputError(
            f"the images are on {images.device} and the model on {device}; move one of them."
        )
    loop = Loop(
        images, objective.labels.to(device), epochs=epochs, batch_size=batch_size, seed=seed,
        target=_Training(model, parameters, descent), augment=augment,
        preprocess=as_input(preprocess, model), snapshots=snapshots, on_step=on_step,
        on_epoch=finish_epoch,
    )  # fmt: skip
    forward = torch.compile(model) if compile else model

    def passes(inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        with compute_precision(precision, device):
            output = forward(inputs)
            loss = objective.loss(output, target)
        descent.zero_grad(set_to_none=True)
        loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        return loss.detach(), objective.correct(output, target)

    is_recorded = cuda_graph and device.type == "cuda"
    step = Recorded(passes, changed=model.buffers()) if is_recorded else passes
    model.train()
    for inputs, target in loop.batches():
        rate = learning_rate(loop.step, loop.steps, lr, warmup, schedule)
        for group in descent.param_groups:
            group["lr"] = rate
        loss, correct = step(inputs, target)
        descent.step()
        loop.finish_step(loss, correct, rate)
    return loop.rows


class _Training:
    """The network and the optimizer's state, for snapshots."""

    def __init__(
        self, model: nn.Module, parameters: list[nn.Parameter], descent: torch.optim.Optimizer
    ) -> None:
        self.model, self.parameters, self.descent = model, parameters, descent

    def state(self) -> dict[str, Any]:
        state = {f"model/{name}": tensor for name, tensor in self._tensors().items()}
        for position, parameter in enumerate(self.parameters):
            for name, value in self.descent.state[parameter].items():
                state[f"descent/{position}/{name}"] = value
        return state

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(state[f"model/{name}"])
        for key, value in state.items():
            part, _, rest = key.partition("/")
            if part == "descent":
                position, _, name = rest.partition("/")
                parameter = self.parameters[int(position)]
                if isinstance(value, Tensor) and value.dim():  # a count of steps stays on the CPU
                    value = value.to(parameter.device, memory_format=torch.preserve_format)
                    value = torch.empty_like(parameter).copy_(value)
                self.descent.state[parameter][name] = value

    def _tensors(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters()) | dict(self.model.named_buffers())


def _make_optimizer(
    name: str,
    parameters: list[nn.Parameter],
    lr: float,
    momentum: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
    # One kernel for all parameters; SGD gains little from it on a CPU.
    if name == "sgd":
        common |= {"momentum": momentum, "nesterov": momentum > 0}
        return torch.optim.SGD(parameters, fused=parameters[0].is_cuda or None, **common)
    if name == "adamw":
        return torch.optim.AdamW(parameters, betas=(betas[0], betas[1]), fused=True, **common)
    raise InputError(f"optimizer is {name!r}; choose sgd or adamw.")
