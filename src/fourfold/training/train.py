"""Train one network: the corners of a surface."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.data.batches import Augment, Preprocess, as_input, call_model, training_batches
from fourfold.data.inputs import Input, Loss, Objective
from fourfold.errors import InputError
from fourfold.evaluation.precision import check_precision, compute_precision
from fourfold.training.cuda_graph import Recorded, check_recordable
from fourfold.training.loop import Loop, OnStep
from fourfold.training.schedule import check_training_settings, learning_rate
from fourfold.training.snapshots import Snapshots


def train(
    model: nn.Module,
    images: Any,
    labels: Any = None,
    *,
    epochs: int,
    lr: float,
    seed: int,
    batch_size: int | None = None,
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
    epochs_before: int = 0,
    augment: Augment | None = None,
    preprocess: Preprocess | None = None,
    loss_function: Loss = F.cross_entropy,
    snapshots: Snapshots | None = None,
    on_step: OnStep | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train `model` in place on its own device.

    Args:
        model: any module that maps a preprocessed batch to (batch, classes) logits, or to an
            object with such `logits`; with a `loss_function` to whatever that takes.
        images: (n, ...) training images on the model's device, a tensor or an array, or a tuple or
            dictionary of them, for model(*x) or model(**x). Or batches, by anything that can be
            iterated again and has a length, such as a DataLoader: pairs (input, target), or
            dictionaries whose entry `labels` is the target.
        labels: (n,) class indices; with a `loss_function` whatever it takes. None beside batches.
        epochs: passes over the images; an incomplete last batch of an epoch is left out.
        lr: peak learning rate.
        seed: of data order, augmentation and dropout.
        batch_size: images per step, by default 64; of tensors alone.
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
        epochs_before: of the same run that `model` has behind it: the schedule continues there. The
            optimizer's state starts anew.
        augment: maps a batch of `images` (of batches, the input) and a generator to an augmented
            batch.
        preprocess: maps a batch of `images` to the model's input. By default one tensor of integers
            is divided by 255, and everything else is the input as it is.
        loss_function: maps the model's output and targets to a mean over the batch, the column nll.
            The column accuracy is NaN where the targets are no class indices.
        snapshots: where to save the state at intervals, and to continue from if one is there.
        on_step: progress report.
        on_epoch: called with the number of epochs done, the model being in training mode.

    Returns:
        One row per epoch for the `training` table, split `train` (loss and accuracy are running
        means over the epoch's augmented batches).

    Raises:
        DivergenceError: if the loss of an epoch is not finite.
    """
    objective = Objective(loss_function)
    check_training_settings(
        epochs=epochs, lr=lr, momentum=momentum, betas=betas, weight_decay=weight_decay,
        clip_norm=clip_norm, warmup=warmup, schedule=schedule,
    )  # fmt: skip
    check_precision(precision)
    data = training_batches(images, labels, objective, model, batch_size, default=64)
    parameters = [p for p in model.parameters() if p.requires_grad]
    descent = _make_optimizer(
        optimizer, parameters, momentum, betas, lr=lr, weight_decay=weight_decay
    )

    def finish_epoch(epoch: int) -> None:
        if on_epoch is not None:
            on_epoch(epoch)
            model.train()

    device = parameters[0].device
    if data.device != device:
        raise InputError(
            f"the images are on {data.device} and the model on {device}; move one of them."
        )
    loop = Loop(
        data, epochs=epochs, seed=seed, target=_Training(model, parameters, descent),
        augment=augment, preprocess=as_input(preprocess or data.preprocess, model),
        snapshots=snapshots, on_step=on_step, on_epoch=finish_epoch,
    )  # fmt: skip
    forward = torch.compile(model) if compile else model
    before = epochs_before * data.steps

    def passes(inputs: Input, target: Input) -> tuple[Tensor, Tensor]:
        with compute_precision(precision, device):
            output = call_model(forward, inputs)
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
        check_recordable(cuda_graph, inputs, target)
        rate = learning_rate(before + loop.position, before + loop.steps, lr, warmup, schedule)
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
    momentum: float,
    betas: tuple[float, float],
    **settings: Any,
) -> torch.optim.Optimizer:
    # One kernel for all parameters; SGD gains little from it on a CPU.
    if name == "sgd":
        fused = parameters[0].is_cuda or None
        nesterov = momentum > 0
        return torch.optim.SGD(
            parameters, momentum=momentum, nesterov=nesterov, fused=fused, **settings
        )
    if name == "adamw":
        return torch.optim.AdamW(parameters, betas=(betas[0], betas[1]), fused=True, **settings)
    raise InputError(f"optimizer is {name!r}; choose sgd or adamw.")
