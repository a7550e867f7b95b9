"""Train one network: the corners of a surface."""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.data.batches import shuffled_batches, to_float
from fourfold.errors import DivergenceError, InputError
from fourfold.schedule import check_training_settings, learning_rate
from fourfold.seeds import derive_seed, make_generator

Augment = Callable[[Tensor, torch.Generator], Tensor]
Preprocess = Callable[[Tensor], Tensor]
# Called after each step with (step, steps, loss of the step, images seen).
OnStep = Callable[[int, int, Tensor, int], None]


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
    augment: Augment | None = None,
    preprocess: Preprocess = to_float,
    on_step: OnStep | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Train `model` in place on its own device.

    Args:
        model: any module that maps a preprocessed batch to (batch, classes) logits.
        images: (n, ...) training images on the model's device.
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
        augment: maps a batch of `images` and a generator to an augmented batch.
        preprocess: maps a batch of `images` to the model's input.
        on_step: progress report.
        on_epoch: called with the number of epochs done, the model being in training mode.

    Returns:
        One row per epoch for the `training` table, split `train` (loss and accuracy are running
        means over the epoch's augmented batches).

    Raises:
        InputError: if a setting is impossible.
        DivergenceError: if the loss of an epoch is not finite.
    """
    check_training_settings(
        n=len(images), labels=len(labels), epochs=epochs, lr=lr, batch_size=batch_size,
        momentum=momentum, betas=betas, weight_decay=weight_decay, clip_norm=clip_norm,
        warmup=warmup, schedule=schedule,
    )  # fmt: skip
    parameters = [p for p in model.parameters() if p.requires_grad]
    descent = _make_optimizer(optimizer, parameters, lr, momentum, betas, weight_decay)
    order, drawing = make_generator(seed, "order"), make_generator(seed, "augment")
    steps_per_epoch = len(images) // batch_size
    steps, step, rows, start = epochs * steps_per_epoch, 0, [], time.perf_counter()
    model.train()
    with torch.random.fork_rng(devices=cuda_devices(images.device)):
        torch.manual_seed(derive_seed(seed, "dropout"))
        for epoch in range(1, epochs + 1):
            mean_loss = RunningMean(images.device)
            for index in shuffled_batches(len(images), batch_size, order):
                batch, target = images[index], labels[index]
                if augment is not None:
                    batch = augment(batch, drawing)
                rate = learning_rate(step, steps, lr, warmup, schedule)
                for group in descent.param_groups:
                    group["lr"] = rate
                logits = model(preprocess(batch))
                loss = F.cross_entropy(logits, target)
                descent.zero_grad(set_to_none=True)
                loss.backward()
                if clip_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, clip_norm)
                descent.step()
                mean_loss.add(loss.detach(), logits.detach(), target)
                step += 1
                if on_step is not None:
                    on_step(step, steps, loss.detach(), step * batch_size)
            rows.append(mean_loss.row(epoch, step, rate, step * batch_size, start))
            if on_epoch is not None:
                on_epoch(epoch)
                model.train()
    return rows


class RunningMean:
    """Mean loss and accuracy over the batches of an epoch, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        """Start empty."""
        self.loss = torch.zeros((), device=device)
        self.correct = torch.zeros((), device=device)
        self.batches = 0
        self.images = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add one batch; nothing waits for the device."""
        self.loss += loss
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.batches += 1
        self.images += len(labels)

    def row(self, epoch: int, step: int, rate: float, seen: int, start: float) -> dict[str, Any]:
        """Return the epoch's row of the `training` table, split `train`.

        Raises:
            DivergenceError: if the mean loss is not finite.
        """
        loss = (self.loss / self.batches).item()
        if not torch.isfinite(torch.tensor(loss)):
            raise DivergenceError(
                f"training diverged in epoch {epoch}: the mean loss is {loss} at learning rate "
                f"{rate:.3g}. Lower lr, lengthen warmup, or set clip_norm."
            )
        return {
            "epoch": epoch,
            "step": step,
            "split": "train",
            "nll": loss,
            "accuracy": (self.correct / self.images).item(),
            "learning_rate": rate,
            "images_seen": seen,
            "wall_s": time.perf_counter() - start,
        }


def _make_optimizer(
    name: str,
    parameters: list[nn.Parameter],
    lr: float,
    momentum: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(
            parameters, lr, momentum=momentum, nesterov=momentum > 0, weight_decay=weight_decay
        )
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr, betas=tuple(betas), weight_decay=weight_decay)
    raise InputError(f"optimizer is {name!r}; choose sgd or adamw.")


def cuda_devices(device: torch.device) -> list[torch.device]:
    """Return the devices whose generator `torch.random.fork_rng` must keep beside the CPU's."""
    return [device] if device.type == "cuda" else []
