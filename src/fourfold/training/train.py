"""Train one network: the corners of a surface."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.data.batches import Augment, Preprocess, as_input, call_model, training_batches
from fourfold.data.inputs import Input, Loss, Objective
from fourfold.errors import InputError, check_count
from fourfold.evaluation.batchnorm import StatisticsImages, check_found, set_statistics
from fourfold.evaluation.precision import check_precision, compute_precision
from fourfold.surfaces.modules import batchnorm_layers
from fourfold.training.cuda_graph import Recorded, check_recordable
from fourfold.training.loop import Loop, OnStep
from fourfold.training.onednn import avoid_wrong_gradients
from fourfold.training.schedule import Schedule, check_training_settings, learning_rate, lies
from fourfold.training.snapshots import Snapshots


@torch.enable_grad()
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
    schedule: Schedule = "cosine",
    ema: float | None = None,
    averaged: nn.Module | None = None,
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
) -> pd.DataFrame:
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
        schedule: `cosine` (to 0), `constant`, or a mapping with the name `restarts`, `swa` or `fge`
            and its settings; see `learning_rate`.
        ema: decay d in (0, 1) of an exponential moving average of the parameters, taken after each
            step: after step k, sum_i d^(k - i) theta_i / sum_i d^(k - i) with i = 1..k, so that
            where the run began has no weight.
        averaged: a copy of the model that becomes this average; needed beside `ema`. Its BatchNorm
            statistics are estimated at the end, in one pass over all images, augmented, in batches
            of training; other buffers are the model's. `model` is trained as without it.
        precision: `float32`, `tf32` or `bfloat16`, of the passes; parameters stay float32.
        compile: run the network through `torch.compile`; the first steps then take up to minutes.
        cuda_graph: on a GPU, launch the passes of a step at once; see `Recorded`.
        epochs_before: of the same run that `model` has behind it: the schedule continues there. The
            optimizer's state starts anew.
        augment: maps a batch of `images` (of batches, the input) and a generator to an augmented
            batch.
        preprocess: maps a batch of `images` to the model's input. By default one tensor of integers
            (of batches: of uint8) is divided by 255, one of booleans becomes 0 and 1, and
            everything else is the input as it is.
        loss_function: maps the model's output and targets to a mean over the batch, the column nll.
            The column accuracy is NaN where the targets are no class indices.
        snapshots: where to save the state at intervals, and to continue from if one is there.
        on_step: progress report.
        on_epoch: called with the number of epochs done, the model being in training mode.

    Returns:
        The `training` table, one row per epoch, as of `fit`: split `train`, whose loss and accuracy
        are running means over the epoch's augmented batches.

    Raises:
        DivergenceError: if the loss of an epoch is not finite.
    """
    objective = Objective(loss_function)
    check_training_settings(
        epochs=epochs, lr=lr, momentum=momentum, betas=betas, weight_decay=weight_decay,
        clip_norm=clip_norm, warmup=warmup, schedule=schedule,
    )  # fmt: skip
    check_precision(precision)
    check_count("epochs_before", epochs_before)
    data = training_batches(images, labels, objective, model, batch_size, default=64)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if any(p.is_inference() for p in parameters):
        raise InputError(
            "the model was made in torch.inference_mode(), which rules out gradients; make it "
            "outside of that."
        )
    average = _average(ema, averaged, model)
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
        data, epochs=epochs, seed=seed, target=_Training(model, averaged, parameters, descent),
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
    with avoid_wrong_gradients(model, device):
        for inputs, target in loop.batches():
            check_recordable(cuda_graph, inputs, target)
            rate = learning_rate(before + loop.position, before + loop.steps, lr, warmup, schedule)
            for group in descent.param_groups:
                group["lr"] = rate
            loss, correct = step(inputs, target)
            descent.step()
            if average is not None:
                average.update(loop.step + 1)
            loop.finish_step(loss, correct, rate)
    if average is not None:
        average.finish()
        if batchnorm_layers(average.module):
            images = StatisticsImages(data, augment, seed)
            set_statistics(average.module, images, precision=precision, preprocess=preprocess)
    return pd.DataFrame(loop.rows)


class _Average:
    """The exponential moving average of a network's parameters, see `ema` of `train`."""

    def __init__(self, decay: float, module: nn.Module, model: nn.Module) -> None:
        if not lies(decay, 1) or not decay:
            raise InputError(f"ema is {decay!r}; it must be in (0, 1).")
        if not batchnorm_layers(model):
            check_found(model)
        of_module, of_model = (
            {name: (tensor.shape, tensor.dtype, tensor.device) for name, tensor in _named(each)}
            for each in (module, model)
        )
        if of_module != of_model:
            raise InputError(
                "averaged differs from the model in architecture, dtype or device; give a copy of "
                "it, copy.deepcopy(model)."
            )
        self.module, self._model, self._decay = module, model, decay
        self._mean: list[Tensor] = list(module.parameters())
        self._latest: list[Tensor] = list(model.parameters())
        with torch.no_grad():
            torch._foreach_copy_(self._mean, self._latest)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the network after its `step`th step, counted from 1."""
        weight = (1 - self._decay) / (1 - self._decay**step)
        torch._foreach_lerp_(self._mean, self._latest, weight)

    @torch.no_grad()
    def finish(self) -> None:
        """Take its buffers."""
        for buffer, latest in zip(self.module.buffers(), self._model.buffers(), strict=True):
            buffer.copy_(latest)


def _average(decay: float | None, module: nn.Module | None, model: nn.Module) -> _Average | None:
    if decay is None and module is None:
        return None
    if decay is None or module is None or module is model:
        raise InputError(
            f"ema is {decay!r}, and averaged {'no other module' if decay else 'a module'}; give "
            "the decay and a second module of the model's architecture, or neither."
        )
    return _Average(decay, module, model)


class _Training:
    """The network, its average and the optimizer's state, for snapshots."""

    def __init__(
        self,
        model: nn.Module,
        averaged: nn.Module | None,
        parameters: list[nn.Parameter],
        descent: torch.optim.Optimizer,
    ) -> None:
        self.model, self.averaged = model, averaged
        self.parameters, self.descent = parameters, descent

    def described(self) -> dict[str, Any]:
        named = self.model.named_parameters()
        return {
            "tensors": {k: [str(t.dtype), list(t.shape)] for k, t in self._tensors().items()},
            "trained": [name for name, parameter in named if parameter.requires_grad],
            "optimizer": type(self.descent).__name__,
        }

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._tensors()
        for position, parameter in enumerate(self.parameters):
            for name, value in self.descent.state[parameter].items():
                state[f"descent/{position}/{name}"] = value
        return state

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(state[name])
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
        named = [(f"model/{k}", v) for k, v in _named(self.model)]
        if self.averaged is not None:
            named += [(f"averaged/{k}", v) for k, v in _named(self.averaged)]
        return dict(named)


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


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
