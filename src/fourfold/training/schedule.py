"""Learning-rate schedules."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from fourfold.errors import InputError, check_count

# A name, or a mapping with `name` and further settings; see `learning_rate`.
Schedule = str | Mapping[str, Any]


def learning_rate(step: int, steps: int, peak: float, warmup: float, schedule: Schedule) -> float:
    """Return the learning rate of step `step` of `steps`.

    Linear warm-up to `peak` over the first fraction `warmup` of the steps, then `cosine` to 0,
    `constant`, or one of these mappings, whose fractions are of all steps:

    - {name: restarts, cycles: n}: n equal parts of the run, the warm-up being in the first; in each
      a cosine from the peak to 0. (Huang et al., "Snapshot ensembles", ICLR 2017.)
    - {name: swa, start: s, lr: r}: the peak for half of the way from the warm-up to s, a straight
      line to r x peak until 0.9 of it, r x peak from there. (Izmailov et al., "Averaging weights
      leads to wider optima and better generalization", UAI 2018, as in their code; the networks to
      average are kept from s on.)
    - {name: fge, start: s, cycles: n, low: l, high: h}: the same decay, to l x peak, and n equal
      triangles from s on, each from l x peak up to h x peak and down to l x peak. (Garipov et al.,
      "Loss surfaces, mode connectivity, and fast ensembling of DNNs", NeurIPS 2018. In their code
      a cycle begins and ends at the highest rate, and its network is kept in the middle; moved by
      half a cycle, that is the end. They break a decay to 0.01 x peak off at s = 0.8, at 0.26 x
      peak; this one arrives where the triangles begin.)
    """
    warmup_steps = round(warmup * steps)
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    name, settings = _parts(schedule)
    return peak * _SCHEDULES[name][0](step, steps, warmup_steps, **settings)


def _constant(step: int, steps: int, warmup: int) -> float:
    return 1.0


def _cosine(step: float, end: float, start: float) -> float:
    """Return the share of the peak between two steps."""
    return 0.5 * (1 + math.cos(math.pi * ((step - start) / (end - start))))


def _restarts(step: int, steps: int, warmup: int, *, cycles: int) -> float:
    cycle = step * cycles // steps
    return _cosine(step, (cycle + 1) * steps / cycles, max(warmup, cycle * steps / cycles))


def _swa(step: int, steps: int, warmup: int, *, start: float, lr: float) -> float:
    if step >= start * steps:
        return lr
    progress = (step - warmup) / (start * steps - warmup)
    return 1 - (1 - lr) * min(max((progress - 0.5) / 0.4, 0), 1)


def _fge(
    step: int, steps: int, warmup: int, *, start: float, cycles: int, low: float, high: float
) -> float:
    if step < start * steps:
        return _swa(step, steps, warmup, start=start, lr=low)
    in_cycle = (step - start * steps) / (steps - start * steps) * cycles % 1
    return low + (high - low) * (1 - abs(2 * in_cycle - 1))


# Share of the peak by step, steps and warm-up steps, and the settings that it takes besides.
_SCHEDULES: dict[str, tuple[Callable[..., float], tuple[str, ...]]] = {
    "cosine": (_cosine, ()),
    "constant": (_constant, ()),
    "restarts": (_restarts, ("cycles",)),
    "swa": (_swa, ("start", "lr")),
    "fge": (_fge, ("start", "cycles", "low", "high")),
}


def lies(value: Any, below: float = math.inf) -> bool:
    """Return whether a value is a number in [0, below)."""
    return isinstance(value, Real) and 0 <= float(value) < below


def check_training_settings(
    *,
    epochs: int,
    lr: float,
    momentum: float,
    betas: Sequence[float],
    weight_decay: float,
    clip_norm: float | None,
    warmup: float,
    schedule: Schedule,
) -> None:
    """Refuse settings that no training can run with."""
    check_count("epochs", epochs)
    is_pair = isinstance(betas, (tuple, list)) and len(betas) == 2
    is_norm = clip_norm is None or (isinstance(clip_norm, Real) and clip_norm > 0)
    for name, value, is_allowed, allowed in (
        ("lr", lr, lies(lr) and lr > 0, "a positive number"),
        ("momentum", momentum, lies(momentum, 1), "a number in [0, 1)"),
        ("betas", betas, is_pair and all(lies(x, 1) for x in betas), "two numbers in [0, 1)"),
        ("weight_decay", weight_decay, lies(weight_decay), "a number, 0 or more"),
        ("clip_norm", clip_norm, is_norm, "a positive number, or None"),
        ("warmup", warmup, lies(warmup, 1), "a fraction of the steps, in [0, 1)"),
    ):
        if not is_allowed:
            raise InputError(f"{name} is {value!r}; it must be {allowed}.")
    check_schedule(schedule, warmup)


def check_schedule(schedule: Schedule, warmup: float) -> None:
    """Refuse what is no schedule of `learning_rate`, or has no place for the warm-up."""
    name, given = _parts(schedule)
    if not isinstance(name, str) or name not in _SCHEDULES:
        raise InputError(f"schedule is {name!r}; it must be one of {', '.join(_SCHEDULES)}.")
    keys = _SCHEDULES[name][1]
    if set(given) != set(keys):
        raise InputError(
            f"schedule is {schedule!r}, but {name} takes {', '.join(keys) or 'no settings'}; give "
            f"{{{', '.join((f'name: {name}', *(f'{key}: ...' for key in keys)))}}}."
        )
    for key, value in given.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        is_allowed, allowed = is_number and 0 < value <= 1, "a fraction of the peak, in (0, 1]"
        if key == "cycles":
            is_allowed, allowed = isinstance(value, int) and value >= 1, "an integer from 1"
        elif key == "start":
            is_allowed, allowed = is_number and 0 < value < 1, "a fraction of the run, in (0, 1)"
        if not is_allowed:
            raise InputError(f"schedule.{key} is {value!r}; it must be {allowed}.")
    if name == "fge" and given["low"] > given["high"]:
        raise InputError(
            f"schedule.low is {given['low']!r}, above schedule.high, {given['high']!r}; exchange "
            "them."
        )
    first = 1 / given["cycles"] if name == "restarts" else given.get("start", 1)
    if warmup >= first:
        raise InputError(
            f"warmup is {warmup!r}, but schedule {name} has only the first {first:.3g} of the run "
            "for it; shorten it."
        )


def _parts(schedule: Schedule) -> tuple[Any, dict[str, Any]]:
    """Return name and settings."""
    if not isinstance(schedule, Mapping):
        return schedule, {}
    settings = dict(schedule)
    return settings.pop("name", None), settings


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
