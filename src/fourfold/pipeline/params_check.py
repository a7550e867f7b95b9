"""What params.yaml may say: types and bounds by its JSON schema, and what a schema can't see."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from jsonschema import ValidationError

from fourfold.combination.baselines import UNTRAINED
from fourfold.errors import InputError
from fourfold.pipeline.params import RECIPE, check_name, origins, resolve
from fourfold.pipeline.schema import dotted, find_errors, read_schema, refuse, said
from fourfold.pipeline.targets import NUMBERED, Targets, corner_count
from fourfold.surfaces.shapes import shape_of
from fourfold.training.phases import PLANNED, plan_phases
from fourfold.training.schedule import check_schedule, kept_epochs

# Files of a surface have its name, beside those of networks, grids, corner sets and comparisons;
# and methods, beside the ensembles of `corners`.
_TAKEN = re.compile(
    r"(.*-)?seed\d+|ensembles|merges|geometry|differences|plane|corners|.*-(grid|corners)"
)


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
        to = params["corners"].get(corners.get("to"), {})
        if to.get("kind") in UNTRAINED:
            raise InputError(
                f"corners.{name}.to is {corners['to']}, which are {to['kind']}: nobody has trained "
                "its networks alone, so there are none to start from. Name a set of kind seeds, "
                "run, fork or files."
            )
    for name, surface in params["surfaces"].items():
        _check_surface(name, surface, params["corners"])
    targets = Targets(params)
    for name, experiment in experiments.items():
        _check_experiment(name, experiment, origins(params, name), targets)
    return experiments


def _check_values(
    params: Mapping[str, Any], experiments: Mapping[str, Any], as_text: Collection[str]
) -> None:
    # A recipe's error is told once, and that of a training or fit for those that differ from it.
    lines: dict[tuple[str, str, str], dict[str, None]] = {}
    told: dict[tuple[str, str, str], tuple[str, str, str]] = {}
    for name, experiment in experiments.items():
        stated, values = origins(params, name), {key: experiment[key] for key in RECIPE}
        names = [*(values["fits"] if isinstance(values["fits"], dict) else ())]
        for error in sorted(
            find_errors(values, {"$ref": "#/$defs/resolved"}),  # of names in any order
            key=lambda error: [names.index(x) for x in [*error.absolute_path][1:2] if x in names],
        ):
            origin = _origin(stated, error)
            text = said(error, origin.split(".")[0] in as_text)
            key = re.sub(r"^(training|fit)s\.[^.]+", r"\1", dotted(error))
            first = told.setdefault((key, origin, text), (dotted(error), origin, text))
            lines.setdefault(first, {})[name] = None
    refuse(
        "params.yaml",
        (
            f"experiments.{first}.{key}{_from(origin, first)}{text}"
            + (f"; the same in {', '.join(others)}" if others else "")
            for (key, origin, text), (first, *others) in lines.items()
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


def _check_surface(
    name: str, surface: Mapping[str, Any], sets: Mapping[str, Mapping[str, Any]]
) -> None:
    key, corners = f"surfaces.{name}", sets[surface["corners"]]
    numbered = "|".join(one for one, of in sets.items() if of["kind"] in NUMBERED)
    if _TAKEN.fullmatch(name) or re.fullmatch(rf"({numbered})-\d+", name):
        raise InputError(f"{key} has a name that other files or methods have; choose another.")
    try:
        shape = shape_of({**surface, "count": corner_count(corners, sets)})
    except InputError as error:
        raise InputError(f"{key}, on corners.{surface['corners']}: {error}") from error
    is_seeded, is_free = corners["kind"] in UNTRAINED, corners["kind"] == "free"
    is_movable = bool(shape.free_rows) or (is_free and not shape.is_discrete)
    if surface["fit"] is not None and not is_movable:
        settings = ", ".join(f"{k}: {v}" for k, v in shape.settings().items())
        raise InputError(
            f"{key} is a {shape.kind}{settings and f' with {settings}'}, as its corners span it, "
            "which has nothing to fit; choose a higher degree, more bends or an added center, or "
            "fit: null."
        )
    if surface["fit"] is None and (is_seeded or surface.get("added")):
        untrained = (
            f"the corners {surface['corners']}, which are {corners['kind']}"
            if is_seeded
            else "added vertices"
        )
        raise InputError(
            f"{key}.fit is null, but it has {untrained}: nothing would train them. Name one of the "
            "recipe's fits."
        )


def _check_experiment(
    name: str, experiment: Mapping[str, Any], stated: Mapping[str, str], targets: Targets
) -> None:
    def described(key: str) -> str:
        return f"experiments.{name}.{key}{_from(stated[key], name)}"

    if experiment["grid"]["batchnorm"] == "repaired":
        raise InputError(
            f"{described('grid.batchnorm')} is 'repaired', which is for points between "
            "corners alone; state it of a surface, surfaces.NAME.batchnorm."
        )
    for fit, settings in experiment["fits"].items():
        if settings["batch_size"] % settings["points_per_step"]:
            raise InputError(
                f"{described(f'fits.{fit}.batch_size')} is {settings['batch_size']}, no multiple "
                f"of points_per_step, {settings['points_per_step']}; change one of them."
            )
    trainings = {"training": experiment["training"]}
    trainings |= {f"trainings.{one}": of for one, of in experiment["trainings"].items()}
    for key, training in trainings.items():
        try:
            kept_epochs(training["epochs"], training["keep"])
        except InputError as error:
            raise InputError(f"{described(f'{key}.keep')}: {error}") from error
    fits = {f"fits.{one}": of for one, of in experiment["fits"].items()}
    for key, settings in (trainings | fits).items():
        try:
            check_schedule(settings["schedule"], settings["warmup"])
        except InputError as error:
            raise InputError(f"experiments.{name}.{key}: {error}") from error
    of_vit = experiment["network"]
    if of_vit["name"] == "vit" and of_vit["hidden"] % of_vit["heads"]:
        raise InputError(
            f"experiments.{name} has a network with hidden {of_vit['hidden']} and heads "
            f"{of_vit['heads']}; hidden must be a multiple of heads."
        )
    for name_of_set, corners in experiment["corners"].items():
        reference, count = corners.get("reference"), targets.count(name, name_of_set)
        if isinstance(reference, int) and reference >= count:
            raise InputError(
                f"corners.{name_of_set}.reference is {reference}; give the number of a network, 0 "
                f"to {count - 1}, or mean."
            )
        of = corners.get("training")
        key = "training" if of is None else f"trainings.{of}"
        _check_kept(f"corners.{name_of_set}", corners, trainings[key], described(f"{key}.keep"))
    for surface, stands in experiment["surfaces"].items():
        fit, needed = stands["fit"], targets.count(name, stands["corners"])
        if fit is not None and shape_of({**stands, "count": needed}).dims == 1:
            boundary = f"fits.{fit}.boundary_epochs"
            if experiment["fits"][fit]["boundary_epochs"]:
                raise InputError(
                    f"surfaces.{surface} is a {stands['shape']}, whose boundary are its corners, "
                    f"but {described(boundary)} is {experiment['fits'][fit]['boundary_epochs']}; "
                    "give it a fit with boundary_epochs: 0."
                )
        if fit is not None:
            _check_phases(f"surfaces.{surface}", stands, needed, experiment)


def _check_phases(
    key: str, stands: Mapping[str, Any], count: int, experiment: Mapping[str, Any]
) -> None:
    """Refuse phases of a surface's fit that name control points which it doesn't have."""
    shape, fit = shape_of({**stands, "count": count}), stands["fit"]
    is_free = experiment["corners"][stands["corners"]]["kind"] == "free"
    free = range(len(shape.control_point_names)) if is_free else shape.free_rows
    try:
        plan_phases(shape, free, **{k: experiment["fits"][fit][k] for k in PLANNED})
    except InputError as error:
        raise InputError(f"{key} has the fit {fit}: {error}") from error


def _check_kept(
    choice: str, corners: Mapping[str, Any], training: Mapping[str, Any], key: str
) -> None:
    """Refuse a corner set that takes networks along a run which `key` doesn't keep."""
    keep, epochs = training["keep"], training["epochs"]
    if corners["kind"] == "run" and len(keep) < (needed := corner_count(corners, {})):
        raise InputError(
            f"{key} is {keep}, but {choice} chooses {needed} networks of a run; list "
            f"{needed} fractions or more."
        )
    chosen = [corners["at"]] if "at" in corners else corners.get("choose", [])
    if "ema" in chosen and training["ema"] is None:
        raise InputError(
            f"{choice}.choose has 'ema', but {key.replace('.keep', '.ema')} is null: the run has "
            "no average; give it a decay, such as 0.99."
        )
    kept = [*keep, "ema"]
    if isinstance(chosen, list) and (absent := [x for x in chosen if x not in kept]):
        raise InputError(
            f"{choice}.{'at' if 'at' in corners else 'choose'} has {absent}, which {key}, "
            f"{keep}, doesn't keep; add them there or choose others."
        )
    is_last = "at" in corners and kept_epochs(epochs, [corners["at"]])[0] == epochs
    if is_last and corners.get("then") is None:
        raise InputError(
            f"{choice}.at is {corners['at']}, which {key} rounds to the last of {epochs} "
            "epochs; choose an earlier one, or name with `then` the training that follows."
        )
