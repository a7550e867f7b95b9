"""Experiments put together from the named parts in params.yaml.

A later layer is laid over an earlier one: a recipe over the one that it names, the keys of an
experiment over its recipe. Mappings are merged key by key; lists and scalars are replaced, and so
is a whole mapping by one that has `name` or `kind`: after a change from sgd to adamw no momentum is
left. A key that the layers below don't have is refused, but for new names below `fits`.
"""

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from fourfold.errors import InputError
from fourfold.files.reading import shortened
from fourfold.pipeline.yaml_file import check_yaml

RECIPE = ("threads", "augment", "training", "fits", "grid", "ensembles")
_PARTS = ("dataset", "network", "recipe", "surfaces")  # of an experiment, by name
_OPEN = ("fits",)  # the path below which names are the user's

Origins = dict[str, str]


def read_params(path: str | Path) -> dict[str, Any]:
    """Return what a params.yaml says.

    Raises:
        InputError: as `check_yaml`.
    """
    check_yaml(path)
    params: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    return params


def resolve(params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each experiment with all its values, the recipe's included.

    Args:
        params: of params.yaml.

    Returns:
        name -> {dataset, expected_accuracy, network, threads, augment, training, fits, grid,
        ensembles, corners, surfaces}. `corners` has those of the surfaces, in order of first use;
        `surfaces` is in the experiment's order. Values are plain data, shared with nothing.

    Raises:
        InputError: for a name that nothing has, a key that a recipe's parent lacks, a recipe made
            of itself, an experiment without surfaces, a surface with a fit that the recipe lacks.
    """
    for recipe in _mapping(params, "recipes"):
        _recipe(params, recipe)
    for surface in _mapping(params, "surfaces"):
        _surface(params, surface)
    return {name: _experiment(params, name)[0] for name in _mapping(params, "experiments")}


def origins(params: Mapping[str, Any], experiment: str) -> Origins:
    """Return where each value of a resolved experiment stands in params.yaml.

    Returns:
        Dotted key, such as `training.optimizer.lr` -> the part that states it, such as
        `recipes.adamw` or `networks.vit-2`.

    Raises:
        InputError: as `resolve`, and for an experiment that is not there.
    """
    check_name(params, "experiments", experiment, "the command line")
    return _experiment(params, experiment)[1]


def check_name(params: Mapping[str, Any], section: str, name: Any, where: str) -> None:
    """Refuse a name that a section doesn't define."""
    defined = _mapping(params, section)
    if not isinstance(name, str) or name not in defined:
        raise InputError(
            f"{where} names {shortened(name)}, which `{section}` doesn't define; "
            f"choose from {', '.join(defined)}."
        )


def _experiment(params: Mapping[str, Any], name: str) -> tuple[dict[str, Any], Origins]:
    where = f"experiments.{name}"
    own = dict(_mapping(_mapping(params, "experiments"), name, where))
    _require(own, _PARTS, where)
    parts = {key: own.pop(key) for key in _PARTS}
    found = dict.fromkeys(("dataset", *({"expected_accuracy"} & own.keys())), where)
    values = {"dataset": parts["dataset"], "expected_accuracy": own.pop("expected_accuracy", None)}
    for key in ("dataset", "network", "recipe"):
        check_name(params, f"{key}s", parts[key], f"{where}.{key}")
    chosen = parts["surfaces"]
    if not isinstance(chosen, list) or not chosen:
        raise InputError(f"{where}.surfaces is {shortened(chosen)}; list the surfaces to build.")

    recipe, stated = _recipe(params, parts["recipe"])
    _lay_over(recipe, own, where, stated, besides=(*_PARTS, "expected_accuracy"))
    network, corners, surfaces = copy.deepcopy(params["networks"][parts["network"]]), {}, {}
    for surface in chosen:
        check_name(params, "surfaces", surface, f"{where}.surfaces")
        surfaces[surface] = _surface(params, surface)
        of_surface = surfaces[surface]["corners"]
        corners[of_surface] = copy.deepcopy(params["corners"][of_surface])
        fit = surfaces[surface].get("fit")
        fits = recipe["fits"] if isinstance(recipe["fits"], dict) else {}
        if fit is not None and (not isinstance(fit, str) or fit not in fits):
            raise InputError(
                f"surfaces.{surface}.fit names {shortened(fit)}, which `fits` of {where} (recipe "
                f"{parts['recipe']}) doesn't define; choose from {', '.join([*fits, 'null'])}."
            )
    for section, of_section in (("corners", corners), ("surfaces", surfaces)):
        for part, value in of_section.items():
            stated |= _leaves(value, f"{section}.{part}", (section, part))
    stated |= _leaves(network, f"networks.{parts['network']}", ("network",))
    resolved = {**values, "network": network, **recipe, "corners": corners, "surfaces": surfaces}
    return resolved, found | stated


def _recipe(
    params: Mapping[str, Any], name: str, above: tuple[str, ...] = ()
) -> tuple[dict[str, Any], Origins]:
    where = f"recipes.{name}"
    if name in above:
        raise InputError(f"{where} is made of itself: {' -> '.join((*above, name))}.")
    own = dict(_mapping(_mapping(params, "recipes"), name, where))
    parent = own.pop("recipe", None)
    if parent is None:
        _require(own, RECIPE, where)
        values: dict[str, Any] = dict.fromkeys(RECIPE)
        stated: Origins = {}
    else:
        check_name(params, "recipes", parent, f"{where}.recipe")
        values, stated = _recipe(params, parent, (*above, name))
    _lay_over(values, own, where, stated, besides=("recipe",))
    return values, stated


def _surface(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    where = f"surfaces.{name}"
    surface = dict(_mapping(_mapping(params, "surfaces"), name, where))
    check_name(params, "corners", surface.get("corners"), f"{where}.corners")
    return copy.deepcopy(surface)


def _lay_over(
    values: dict[str, Any],
    changes: Mapping[str, Any],
    where: str,
    stated: Origins,
    besides: Collection[str] = (),
    path: tuple[str, ...] = (),
) -> None:
    """Lay `changes`, which stand at `where`, over `values`, and note in `stated` what is theirs.

    Args:
        values: changed in place.
        changes: some of its keys.
        where: names the changes, such as `recipes.adamw`.
        stated: dotted key -> where it is stated, of `values`.
        besides: further keys that may stand here, for the message.
        path: of `values` in the whole.
    """
    for key, value in changes.items():
        place = (*path, key)
        if key not in values and path != _OPEN:
            raise InputError(
                f"{where}: {'.'.join(place)} is no setting; allowed here: "
                f"{', '.join((*besides, *values))}."
            )
        before, dotted = values.get(key), ".".join(place)
        if isinstance(before, dict) and isinstance(value, dict) and not _is_whole(value):
            _lay_over(before, value, where, stated, path=place)
            continue
        values[key] = copy.deepcopy(value)
        for old in [old for old in stated if f"{old}.".startswith(f"{dotted}.")]:
            del stated[old]
        stated |= _leaves(value, where, place)


def _is_whole(value: Mapping[str, Any]) -> bool:
    """Return whether a mapping is a thing of some name or kind, with settings of its own."""
    return any(isinstance(value.get(key), str) for key in ("name", "kind"))


def _leaves(value: Any, where: str, path: tuple[str, ...]) -> Origins:
    if not isinstance(value, dict):
        return {".".join(path): where}
    return {
        key: origin
        for name, inner in value.items()
        for key, origin in _leaves(inner, where, (*path, name)).items()
    }


def _mapping(whole: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
    value = whole.get(key)
    if not isinstance(value, dict):
        raise InputError(f"{where or key} is {shortened(value)}; it must have keys: `key: value`.")
    return value


def _require(given: Mapping[str, Any], keys: Collection[str], where: str) -> None:
    for key in keys:
        if key not in given:
            raise InputError(f"{where} lacks {key}; it needs {', '.join(keys)}.")
