"""Settings of a command: sections of params.yaml as JSON."""

import argparse
import inspect
import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args

from fourfold.errors import InputError
from fourfold.files.reading import (
    check_text_size,
    has_type,
    parse_json,
    reading,
    require_file,
    shortened,
)

_TRAINING = {
    **dict.fromkeys(("epochs", "batch_size"), int),
    **dict.fromkeys(("weight_decay", "warmup"), float),
    **dict.fromkeys(("schedule", "precision"), str),
    "optimizer": {"name": str, "lr": float, "momentum": float, "betas": list[float]},
    "clip_norm": float | None,
    "compile": bool,
    "cuda_graph": bool,
}
# The types of an experiment's settings; a data set's are checked by what takes them. Bounds are in
# the schema of params.yaml, and checked by what takes the settings.
_TYPES: dict[str, dict[str, Any]] = {
    "network": {
        **dict.fromkeys(("width", "patch_size", "layers", "heads", "hidden", "mlp"), int),
        **dict.fromkeys(("name", "stem", "architecture"), str),
        "dropout": float,
    },
    "augment": {"shift": int, "flip": bool},
    "training": {**_TRAINING, "keep": list[float]},
    "fit": {
        **_TRAINING,
        **dict.fromkeys(("boundary_epochs", "points_per_step"), int),
        "sampler": str,
    },
    "corners": {"kind": str, "choose": str | list[float]},
    "grid": {
        **dict.fromkeys(("points", "edge_points", "random_points", "seed", "train_images"), int),
        **dict.fromkeys(("batchnorm_images", "batch_size"), int),
        **dict.fromkeys(("batchnorm", "precision"), str),
        "search_images": int | None,
    },
    "ensembles": {"max_members": int},
}
_NAMES = {
    int: "an integer, without a point",
    float: "a finite number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    list[float]: "a list of finite numbers",
}
# What no function's signature asks for.
_REQUIRED = {
    "network": ("name",),
    "training": ("epochs", "batch_size", "optimizer", "keep"),
    "fit": ("optimizer",),
    "corners": ("kind", "choose"),
    "grid": ("batchnorm", "batchnorm_images", "seed", "batch_size", "precision"),
}


def add_settings_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--settings`, the sections of params.yaml that the command reads."""
    parser.add_argument(
        "--settings",
        required=True,
        metavar="JSON",
        help="sections of an experiment in params.yaml as a JSON object, or @FILE that holds it",
    )


def add_kept_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--kept`, the key `summary.kept` of params.yaml."""
    parser.add_argument(
        "--kept",
        required=True,
        type=float,
        help="share of what the corners have above guessing that a low-loss surface keeps",
    )


def check_kept(kept: float) -> None:
    """Refuse a share that is no fraction.

    Raises:
        InputError: naming the value and what is allowed.
    """
    if not 0 <= kept <= 1:
        raise InputError(f"--kept is {kept}; it is a fraction, in [0, 1].")


def read_settings(text: str, *sections: str) -> dict[str, Any]:
    """Parse `--settings` and check that it has exactly the named sections.

    Raises:
        InputError: if it is no JSON object, or a section is missing or unknown.
    """
    if text.startswith("@"):
        path = Path(text[1:])
        require_file(path, f"--settings names the file {path}, which doesn't exist.")
        with reading(path, "file of settings"):
            check_text_size(path.stat().st_size, 0, str(path))
            return _parse(path.read_text(encoding="utf-8"), sections, f"--settings ({path})")
    return _parse(text, sections, "--settings")


def _parse(text: str, sections: Collection[str], where: str) -> dict[str, Any]:
    try:
        settings = parse_json(text)
        json.loads(text, object_pairs_hook=_unique)
    except ValueError as error:
        raise InputError(f"{where} is no JSON: {error}. Got {text[:60]!r}.") from error
    given = set(settings) if isinstance(settings, dict) else set()
    if not isinstance(settings, dict) or given != set(sections):
        raise InputError(
            f"{where} must be an object with the sections {', '.join(sections)}; "
            f"got {', '.join(sorted(given))[:200] or type(settings).__name__}."
        )
    for section, values in settings.items():
        if not isinstance(values, dict) and section != "source":  # its reader says more
            raise InputError(f"{section} is {shortened(values)}; it must be an object.")
        for key in _REQUIRED.get(section, ()):
            if key not in values:
                raise InputError(f"{section} lacks the setting {key}.")
        _check_types(section, values, _TYPES.get(section, {}))
    return settings


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key stands twice among {', '.join(key for key, _ in pairs)}")
    return found


def _check_types(section: str, values: Any, kinds: Mapping[str, Any]) -> None:
    for key, kind in kinds.items():
        if key not in values:
            continue
        if not isinstance(kind, dict):
            _check_type(f"{section}.{key}", values[key], kind)
        elif isinstance(values[key], dict):
            _check_types(f"{section}.{key}", values[key], kind)
        else:
            raise InputError(
                f"{section}.{key} is {shortened(values[key])}; it must be an object with "
                f"{', '.join(kind)}."
            )


def _check_type(key: str, value: Any, kind: Any) -> None:
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    numbers = value if isinstance(value, list) else [value]
    is_finite = all(math.isfinite(x) for x in numbers if isinstance(x, float))
    if not is_finite or not any(has_type(value, kind) for kind in kinds):
        allowed = " or ".join(_NAMES[kind] for kind in kinds)
        raise InputError(f"{key} is {shortened(value)}; it must be {allowed}.")


def check_keys(
    section: str,
    given: Mapping[str, Any],
    function: Callable[..., Any],
    supplied: Collection[str] = (),
) -> None:
    """Refuse settings that the function does not take, or lacks, or that the command supplies.

    Raises:
        InputError: naming the key and the keys that are allowed.
    """
    parameters = inspect.signature(function).parameters
    allowed = sorted(set(parameters) - set(supplied))
    takes = f"{section} takes {', '.join(allowed)}"
    for key in given:
        if key not in allowed:
            raise InputError(f"{section}.{key} is no setting; {takes}.")
    for key in allowed:
        if key not in given and parameters[key].default is inspect.Parameter.empty:
            raise InputError(f"{section} lacks the setting {key}; {takes}.")
