"""What params.yaml may say: types and bounds by its JSON schema, and what a schema can't see."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from jsonschema import ValidationError

from fourfold.errors import InputError
from fourfold.pipeline.params import RECIPE, check_name, origins, resolve
from fourfold.pipeline.schema import dotted, find_errors, read_schema, refuse, said
from fourfold.training.schedule import kept_epochs

_CORNERS = {"square": 4}  # of a shape
# Files of a surface have its name, beside those of networks, grids, corner sets and comparisons.
_TAKEN = re.compile(r"seed\d+|ensembles|merges|geometry|differences|.*-(grid|corners)")


def check_params(
    params: Mapping[str, Any], as_text: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Refuse params that no run could use; return what `resolve` returns.

    Args:
        params: of params.yaml, or Snakemake's configuration.
        as_text: sections given on the command line, where Snakemake reads nested values as text.

    Raises:
        InputError: with one line for each key that is unknown or has an impossible value, or one
            message about parts that don't fit together.
    """
    refuse(
        "params.yaml",
        (
            (dotted(error) or "top level") + said(error, dotted(error).split(".")[0] in as_text)
            for error in find_errors(params, read_schema())
        ),
    )
    experiments = resolve(params)
    _check_values(params, experiments, as_text)
    for name in params["run"]:
        check_name(params, "experiments", name, "run")
    for name, corners in params["corners"].items():
        stride, count = params["seeds"]["stride"], corners.get("count", 1)
        if count > stride:
            raise InputError(
                f"seeds.stride is {stride}, but corners.{name} has {count} networks: replicates "
                f"would share some; make the stride {count} or more."
            )
    for name, surface in params["surfaces"].items():
        _check_surface(name, surface, params["corners"][surface["corners"]])
    for name, experiment in experiments.items():
        _check_experiment(name, experiment, origins(params, name))
    return experiments


def _check_values(
    params: Mapping[str, Any], experiments: Mapping[str, Any], as_text: Collection[str]
) -> None:
    lines: dict[tuple[str, str, str], list[str]] = {}  # a recipe's error is told once
    for name, experiment in experiments.items():
        stated, values = origins(params, name), {key: experiment[key] for key in RECIPE}
        for error in find_errors(values, {"$ref": "#/$defs/resolved"}):
            origin = _origin(stated, error)
            text = said(error, origin.split(".")[0] in as_text)
            lines.setdefault((dotted(error), origin, text), []).append(name)
    refuse(
        "params.yaml",
        (
            f"experiments.{names[0]}.{key}{_from(origin, names[0])}{text}"
            + (f"; the same in {', '.join(names[1:])}" if names[1:] else "")
            for (key, origin, text), names in lines.items()
        ),
    )


def _origin(stated: Mapping[str, str], error: ValidationError) -> str:
    """Return which part of params.yaml states what is wrong: the value, or what holds it."""
    path = [str(part) for part in error.absolute_path]
    starts = [".".join(path)]
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        starts = [".".join((*path, key)) for key in error.instance if key not in known]
    while path:
        found = [
            origin
            for key, origin in stated.items()
            if any(f"{key}.".startswith(f"{start}.") for start in starts)
        ]
        if found:
            return " and ".join(dict.fromkeys(found))
        path.pop()
        starts = [".".join(path)]
    return ""


def _from(origin: str, experiment: str) -> str:
    return "" if origin in ("", f"experiments.{experiment}") else f" (from {origin})"


# --- what a schema can't see ----------------------------------------------------------------------


def _check_surface(name: str, surface: Mapping[str, Any], corners: Mapping[str, Any]) -> None:
    key, needed = f"surfaces.{name}", _CORNERS[surface["shape"]]
    if _TAKEN.fullmatch(name):
        raise InputError(f"{key} has a name that other files have; choose another.")
    if corners.get("count", needed) != needed:
        raise InputError(
            f"{key} is a {surface['shape']}, of {needed} corners, but corners."
            f"{surface['corners']}.count is {corners['count']}; name corners with {needed}."
        )
    if surface["fit"] is not None and surface["degree"] == [1, 1]:
        raise InputError(
            f"{key}.degree is [1, 1], the surface that its corners span, which has nothing to fit; "
            "choose a degree with a component of at least 2, such as [2, 2], or fit: null."
        )


def _check_experiment(name: str, experiment: Mapping[str, Any], stated: Mapping[str, str]) -> None:
    def described(key: str) -> str:
        return f"experiments.{name}.{key}{_from(stated[key], name)}"

    for fit, settings in experiment["fits"].items():
        if settings["batch_size"] % settings["points_per_step"]:
            raise InputError(
                f"{described(f'fits.{fit}.batch_size')} is {settings['batch_size']}, no multiple "
                f"of points_per_step, {settings['points_per_step']}; change one of them."
            )
    keep, key = experiment["training"]["keep"], described("training.keep")
    try:
        kept_epochs(experiment["training"]["epochs"], keep)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    for surface in experiment["surfaces"].values():
        needed, corners = _CORNERS[surface["shape"]], experiment["corners"][surface["corners"]]
        choice = f"corners.{surface['corners']}"
        if corners["kind"] == "run" and len(keep) < needed:
            raise InputError(
                f"{key} is {keep}, but {choice} chooses {needed} networks of a run; list "
                f"{needed} fractions or more."
            )
        chosen = corners.get("choose", [])
        if isinstance(chosen, list) and (absent := [x for x in chosen if x not in keep]):
            raise InputError(
                f"{choice}.choose has {absent}, which {key}, {keep}, doesn't keep; add them there "
                "or choose others."
            )
