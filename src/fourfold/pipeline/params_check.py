"""What params.yaml may say: types and bounds by its JSON schema, and what a schema can't see."""

import functools
import math
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators

from fourfold.errors import InputError
from fourfold.pipeline.params import RECIPE, Origins, check_name, origins, resolve
from fourfold.training.schedule import kept_epochs

_CORNERS = {"square": 4}  # of a shape
# Files of a surface have its name, beside those of networks, grids, corner sets and comparisons.
_TAKEN = re.compile(r"seed\d+|ensembles|merges|geometry|differences|.*-(grid|corners)")


def check_params(
    params: Mapping[str, Any], schema_file: str | Path, as_text: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Refuse params that no run could use; return what `resolve` returns.

    Args:
        params: of params.yaml, or Snakemake's configuration.
        schema_file: JSON schema, in YAML, of the sections as they are written; its definition
            `resolved` is of an experiment's values once they are put together.
        as_text: sections given on the command line, where Snakemake reads nested values as text.

    Raises:
        InputError: with one line for each key that is unknown or has an impossible value, or one
            message about parts that don't fit together.
    """
    schema = _read_schema(schema_file)
    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    )
    validator = validators.extend(Draft202012Validator, type_checker=types)(schema)
    _refuse(
        (_dotted(error) or "top level") + _said(error, _dotted(error).split(".")[0] in as_text)
        for error in validator.iter_errors(params)
    )
    experiments = resolve(params)
    of_values = validator.evolve(schema={"$ref": "#/$defs/resolved", "$defs": schema["$defs"]})
    lines: dict[tuple[str, str, str], list[str]] = {}  # a recipe's error is told once
    for name, experiment in experiments.items():
        stated = origins(params, name)
        for error in of_values.iter_errors({key: experiment[key] for key in RECIPE}):
            origin = _origin(stated, error)
            said = _said(error, origin.split(".")[0] in as_text)
            lines.setdefault((_dotted(error), origin, said), []).append(name)
    _refuse(
        f"experiments.{names[0]}.{key}{_from(origin, names[0])}{said}"
        + (f"; the same in {', '.join(names[1:])}" if names[1:] else "")
        for (key, origin, said), names in lines.items()
    )
    for name in params["run"]:
        check_name(params, "experiments", name, "run")
    for name, corners in params["corners"].items():
        _check_seeds(name, corners, params["seeds"]["stride"])
    for name, surface in params["surfaces"].items():
        _check_surface(name, surface, params["corners"][surface["corners"]])
    for name, experiment in experiments.items():
        _check_experiment(name, experiment, origins(params, name))
    return experiments


# --- what the schema says -------------------------------------------------------------------------


@functools.cache
def _read_schema(path: str | Path) -> dict[str, Any]:
    schema: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return schema


def _is_integer(checker: Any, value: Any) -> bool:
    """Return whether a value can count something; 4.0, an integer for JSON, would fail in a job."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: Any, value: Any) -> bool:
    """Return whether a value is a number, neither infinite nor -0.0, which is a typing error."""
    is_finite = isinstance(value, float) and math.isfinite(value)
    return _is_integer(checker, value) or (is_finite and str(value) != "-0.0")


def _refuse(lines: Iterable[str]) -> None:
    if found := sorted(lines):
        raise InputError("\n".join(["params.yaml can't be used:", *found]))


def _dotted(error: ValidationError) -> str:
    return ".".join(map(str, error.absolute_path))


def _said(error: ValidationError, is_as_text: bool) -> str:
    """Return value and rule, and how to write the value where that is certain."""
    said = f": {error.message}"
    if error.validator == "type":
        allowed = error.validator_value
        said += _cure(error.instance, {allowed} if isinstance(allowed, str) else set(allowed))
        if len(error.absolute_path) > 1 and is_as_text:
            said += " in a file, for --configfile: within --config, Snakemake reads all as text"
    if error.validator == "additionalProperties" and "properties" in error.schema:
        said += f"; allowed: {', '.join(error.schema['properties'])}"
    if "description" in error.schema:
        said += f" ({error.schema['description'].rstrip('.')})"
    return said


def _cure(value: Any, types: Collection[str]) -> str:
    """Return how to write a value that was meant to have one of the types."""
    text = str(value).strip()
    if "array" in types and isinstance(value, str):
        return f"; write [{text}]"
    if "null" in types and text.lower() in ("none", "null", "nil", "nan"):
        return "; write null"
    if "boolean" in types and text.lower() in ("true", "false"):
        return f"; write {text.lower()} without quotes"
    if "string" in types and isinstance(value, (int, float)):
        return f"; in quotes it is text, '{text}'"
    try:
        number = float(text)
    except ValueError:
        return ""
    if "integer" in types and number.is_integer():
        return f"; write {int(number)}"
    if "number" not in types or not math.isfinite(number):
        return ""
    if number == 0:
        return "; write 0.0"
    mantissa, e, exponent = text.lower().partition("e")
    if not e:
        return f"; write {text} without quotes"
    # YAML 1.1 takes 1e-3 and 1.0e3 for text: it wants a point, and a sign.
    point, sign = "" if "." in mantissa else ".0", "" if exponent[0] in "+-" else "+"
    return f"; write {mantissa}{point}e{sign}{exponent}"


def _origin(stated: Origins, error: ValidationError) -> str:
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


def _check_seeds(name: str, corners: Mapping[str, Any], stride: int) -> None:
    if corners["kind"] == "seeds" and corners["count"] > stride:
        raise InputError(
            f"seeds.stride is {stride}, but corners.{name} has {corners['count']} networks: "
            f"replicates would share some; make the stride {corners['count']} or more."
        )


def _check_surface(name: str, surface: Mapping[str, Any], corners: Mapping[str, Any]) -> None:
    key = f"surfaces.{name}"
    if _TAKEN.fullmatch(name):
        raise InputError(f"{key} has a name that other files have; choose another.")
    needed = _CORNERS[surface["shape"]]
    if corners["kind"] == "seeds" and corners["count"] != needed:
        raise InputError(
            f"{key} is a {surface['shape']}, of {needed} corners, but corners."
            f"{surface['corners']}.count is {corners['count']}; name corners with {needed}."
        )
    if surface["fit"] is not None and surface["degree"] == [1, 1]:
        raise InputError(
            f"{key}.degree is [1, 1], the surface that its corners span, which has nothing to fit; "
            "choose a degree with a component of at least 2, such as [2, 2], or fit: null."
        )


def _check_experiment(name: str, experiment: Mapping[str, Any], stated: Origins) -> None:
    def described(key: str) -> str:
        return f"experiments.{name}.{key}{_from(stated[key], name)}"

    for fit, settings in experiment["fits"].items():
        if settings["batch_size"] % settings["points_per_step"]:
            raise InputError(
                f"{described(f'fits.{fit}.batch_size')} is {settings['batch_size']}, no multiple "
                f"of points_per_step, {settings['points_per_step']}; change one of them."
            )
    training, key = experiment["training"], described("training.keep")
    try:
        kept_epochs(training["epochs"], training["keep"])
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    for surface in experiment["surfaces"].values():
        corners, keep = experiment["corners"][surface["corners"]], training["keep"]
        if corners["kind"] != "run":
            continue
        needed, choice = _CORNERS[surface["shape"]], f"corners.{surface['corners']}"
        if len(keep) < needed:
            raise InputError(
                f"{key} is {keep}, but {choice} chooses {needed} networks of a run; list "
                f"{needed} fractions or more."
            )
        chosen = corners["choose"] if isinstance(corners["choose"], list) else []
        if absent := [fraction for fraction in chosen if fraction not in keep]:
            raise InputError(
                f"{choice}.choose has {absent}, which {key}, {keep}, doesn't keep; add them there "
                "or choose others."
            )
