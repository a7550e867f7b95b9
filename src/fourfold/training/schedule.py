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
    epochs: int,
    lr: float,
    momentum: float,
    betas: Sequence[float],
    weight_decay: float,
    clip_norm: float | None,
    warmup: float,
    schedule: str,
) -> None:
    """Refuse settings that no training can run with."""
    betas_are_allowed = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
    for name, value, is_allowed, allowed in (
        ("epochs", epochs, epochs >= 0, "0 or more"),
        ("lr", lr, 0 < lr < math.inf, "a positive number"),
        ("momentum", momentum, 0 <= momentum < 1, "in [0, 1)"),
        ("betas", betas, betas_are_allowed, "two numbers in [0, 1)"),
        ("weight_decay", weight_decay, 0 <= weight_decay < math.inf, "0 or more"),
        ("clip_norm", clip_norm, clip_norm is None or clip_norm > 0, "positive, or None"),
        ("warmup", warmup, 0 <= warmup < 1, "a fraction of the steps, in [0, 1)"),
        ("schedule", schedule, schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
    ):
        if not is_allowed:
            raise InputError(f"{name} is {value!r}; it must be {allowed}.")


def kept_epochs(epochs: int, fractions: Sequence[float]) -> list[int]:
    """Return the epochs after which a network is kept, from fractions of the run."""
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise InputError(f"keep is {list(fractions)}; give fractions of the run, in (0, 1].")
    kept = [max(1, round(fraction * epochs)) for fraction in fractions]
    if len(set(kept)) < len(kept):
        raise InputError(
            f"keep is {list(fractions)}, the epochs {kept} of {epochs}; some are the same. Give "
            "fewer fractions, or train longer."
        )
    return kept
