"""Learning-rate schedules."""

import math
from collections.abc import Sequence

from fourfold.errors import InputError

SCHEDULES = ("cosine", "constant")


def learning_rate(step: int, steps: int, peak: float, warmup: float, schedule: str) -> float:
    """Return the learning rate of step `step` of `steps`.

    Linear warm-up to `peak` over the first fraction `warmup` of the steps, then `cosine` to 0 or
    `constant`.
    """
    warmup_steps = round(warmup * steps)
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return peak
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def check_training_settings(
    *,
    n: int,
    epochs: int,
    lr: float,
    batch_size: int,
    momentum: float,
    betas: Sequence[float],
    weight_decay: float,
    clip_norm: float | None,
    warmup: float,
    schedule: str,
) -> None:
    """Refuse settings that no training can run with.

    Raises:
        InputError: naming the setting, its value and what is allowed.
    """
    if n == 0:
        raise InputError("there are no training images; the split is empty.")
    if epochs < 0:
        raise InputError(f"epochs is {epochs}; it must be 0 or more.")
    if not (math.isfinite(lr) and lr > 0):
        raise InputError(f"lr is {lr}; it must be a positive number.")
    if not 1 <= batch_size <= n:
        raise InputError(f"batch_size is {batch_size}; it must be from 1 to {n}, the images given.")
    if not 0 <= momentum < 1:
        raise InputError(f"momentum is {momentum}; it must lie in [0, 1).")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise InputError(f"betas is {betas}; give two numbers in [0, 1).")
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise InputError(f"weight_decay is {weight_decay}; it must be 0 or more.")
    if clip_norm is not None and not clip_norm > 0:
        raise InputError(f"clip_norm is {clip_norm}; it must be positive, or None for no limit.")
    if not 0 <= warmup < 1:
        raise InputError(f"warmup is {warmup}; it is a fraction of the steps, in [0, 1).")
    if schedule not in SCHEDULES:
        raise InputError(f"schedule is {schedule!r}; choose one of {', '.join(SCHEDULES)}.")


def kept_epochs(epochs: int, fractions: Sequence[float]) -> list[int]:
    """Return the epochs after which a network is kept, from fractions of the run.

    Raises:
        InputError: if a fraction is not in (0, 1], or two are the same epoch.
    """
    if epochs < 0:
        raise InputError(f"epochs is {epochs}; it must be 0 or more.")
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise InputError(f"keep is {list(fractions)}; give fractions of the run, in (0, 1].")
    kept = [max(1, round(fraction * epochs)) for fraction in fractions]
    if len(set(kept)) < len(kept):
        raise InputError(
            f"keep is {list(fractions)}, the epochs {kept} of {epochs}; some are the same. Give "
            "fewer fractions, or train longer."
        )
    return kept
