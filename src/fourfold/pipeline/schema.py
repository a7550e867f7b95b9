"""The JSON schema of params.yaml: of the file, and of the sections of it that a command reads."""

import functools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators

from fourfold.errors import InputError


@functools.cache
def read_schema() -> dict[str, Any]:
    """Return the schema; its definition `resolved` is of an experiment's values put together."""
    file = Path(__file__).with_name("params.schema.yaml")
    schema: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return schema


def find_errors(values: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Yield what is wrong with values by a schema, which may refer to definitions of ours."""
    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    )
    validator = validators.extend(Draft202012Validator, type_checker=types)
    errors: Iterator[ValidationError] = validator(
        {**schema, "$defs": read_schema()["$defs"]}
    ).iter_errors(values)
    return errors


def check_sections(values: Any, sections: Mapping[str, Collection[str] | None], where: str) -> None:
    """Refuse a JSON value that is not these sections of params.yaml, each with these keys or all.

    Raises:
        InputError: with one line for each key that is unknown, missing, or of an impossible value.
    """
    definitions = read_schema()["$defs"]
    known = definitions | definitions["dataset"]["properties"]
    known |= definitions["resolved"]["properties"]
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": list(sections),
        "properties": {
            name: known[name] | ({"required": list(keys)} if keys else {})
            for name, keys in sections.items()
        },
    }
    errors = find_errors(values, schema)
    refuse(where, ((dotted(error) or "top level") + said(error) for error in errors))


def refuse(what: str, lines: Iterable[str]) -> None:
    """Raise an `InputError` if there are lines, each about a wrong value of `what`."""
    if found := sorted(lines):
        raise InputError("\n".join([f"{what} can't be used:", *found]))


def dotted(error: ValidationError) -> str:
    """Return the key of a wrong value."""
    return ".".join(map(str, error.absolute_path))


def said(error: ValidationError, is_as_text: bool = False) -> str:
    """Return value and rule, and how to write the value where that is certain."""
    text = f": {error.message}"
    if error.validator == "type":
        allowed = error.validator_value
        text += _cure(error.instance, {allowed} if isinstance(allowed, str) else set(allowed))
        if len(error.absolute_path) > 1 and is_as_text:
            text += " in a file, for --configfile: within --config, Snakemake reads all as text"
    if error.validator == "additionalProperties" and "properties" in error.schema:
        text += f"; allowed: {', '.join(error.schema['properties'])}"
    if "description" in error.schema:
        text += f" ({error.schema['description'].rstrip('.')})"
    return text


def _is_integer(checker: Any, value: Any) -> bool:
    """Return whether a value can count something; 4.0, an integer for JSON, would fail in a job."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: Any, value: Any) -> bool:
    """Return whether a value is a number, neither infinite nor -0.0, which is a typing error."""
    is_finite = isinstance(value, float) and math.isfinite(value)
    return _is_integer(checker, value) or (is_finite and str(value) != "-0.0")


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
