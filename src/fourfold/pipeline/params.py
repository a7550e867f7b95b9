"""Experiments put together from the named parts in params.yaml.

A later layer is laid over an earlier one: a recipe over the one that it names, the keys of an
experiment over its recipe. Mappings are merged key by key; lists and scalars are replaced, and so
is a whole mapping by one that has `name` or `kind`: after a change from sgd to adamw no momentum is
left. A key that the layers below don't have is refused, but for new names below `fits`.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fourfold.errors import InputError
from fourfold.files.reading import shortened
from fourfold.pipeline.yaml_file import check_yaml

RECIPE = ("threads", "augment", "training", "fits", "grid", "ensembles")
_PARTS = ("dataset", "network", "recipe", "surfaces")  # of an experiment, by name
_OPEN = ("fits",)  # the path below which names are the user's


class Stated(NamedTuple):
    """A value, no mapping, and the part of params.yaml that states it, such as `recipes.adamw`."""

    value: Any
    where: str


Tree = dict[str, Any]  # of mappings, with `Stated` for leaves


def read_params(path: str | Path) -> dict[str, Any]:
    """Return what a params.yaml says, see `check_yaml`."""
    check_yaml(path)
    params: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    return params


def resolve(params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each experiment with all its values, the recipe's included.

    Returns:
        name -> {dataset, expected_accuracy, network, threads, augment, training, fits, grid,
        ensembles, corners, surfaces}. `corners` has those of the surfaces, in order of first use;
        `surfaces` is in the experiment's order.

    Raises:
        InputError: for a name that nothing has, a key that a recipe's parent lacks, a recipe made
            of itself, an experiment without surfaces, a surface with a fit that the recipe lacks.
    """
    for recipe in _mapping(params, "recipes"):
        _recipe(params, recipe)
    for surface in _mapping(params, "surfaces"):
        _surface(params, surface)
    return {name: _values(_experiment(params, name)) for name in _mapping(params, "experiments")}


def stated_values(params: Mapping[str, Any], experiment: str) -> dict[str, Stated]:
    """Return dotted key, such as `training.optimizer.lr` -> value and origin, of one experiment.

    Raises:
        InputError: as `resolve`, and for an experiment that is not there.
    """
    check_name(params, "experiments", experiment, "the command line")
    return dict(_leaves(_experiment(params, experiment)))


def origins(params: Mapping[str, Any], experiment: str) -> dict[str, str]:
    """Return dotted key -> the part of params.yaml that states it."""
    return {key: stated.where for key, stated in stated_values(params, experiment).items()}


def check_name(params: Mapping[str, Any], section: str, name: Any, where: str) -> None:
    """Refuse a name that a section doesn't define."""
    defined = _mapping(params, section)
    if not isinstance(name, str) or name not in defined:
        raise InputError(
            f"{where} names {shortened(name)}, which `{section}` doesn't define; "
            f"choose from {', '.join(defined)}."
        )


def _experiment(params: Mapping[str, Any], name: str) -> Tree:
    where = f"experiments.{name}"
    own = dict(_mapping(_mapping(params, "experiments"), name, where))
    _require(own, _PARTS, where)
    dataset, network, recipe, chosen = (own.pop(key) for key in _PARTS)
    check_name(params, "datasets", dataset, f"{where}.dataset")
    check_name(params, "networks", network, f"{where}.network")
    check_name(params, "recipes", recipe, f"{where}.recipe")
    if not isinstance(chosen, list) or not chosen:
        raise InputError(f"{where}.surfaces is {shortened(chosen)}; list the surfaces to build.")
    is_expected = "expected_accuracy" in own
    accuracy = Stated(own.pop("expected_accuracy", None), where if is_expected else "not stated")
    settings = _lay_over(
        _recipe(params, recipe), own, where, besides=(*_PARTS, "expected_accuracy")
    )
    corners, surfaces = {}, {}
    for surface in chosen:
        check_name(params, "surfaces", surface, f"{where}.surfaces")
        stated = _surface(params, surface)
        of_surface, fit = stated["corners"], stated.get("fit")
        fits = settings["fits"] if isinstance(settings["fits"], dict) else {}
        if fit is not None and (not isinstance(fit, str) or fit not in fits):
            raise InputError(
                f"surfaces.{surface}.fit names {shortened(fit)}, which `fits` of {where} (recipe "
                f"{recipe}) doesn't define; choose from {', '.join([*fits, 'null'])}."
            )
        surfaces[surface] = _stated(stated, f"surfaces.{surface}")
        corners[of_surface] = _stated(params["corners"][of_surface], f"corners.{of_surface}")
    return {
        "dataset": Stated(dataset, where),
        "expected_accuracy": accuracy,
        "network": _stated(params["networks"][network], f"networks.{network}"),
        **settings,
        "corners": corners,
        "surfaces": surfaces,
    }


def _recipe(params: Mapping[str, Any], name: str, above: tuple[str, ...] = ()) -> Tree:
    where = f"recipes.{name}"
    if name in above:
        raise InputError(f"{where} is made of itself: {' -> '.join((*above, name))}.")
    own = dict(_mapping(_mapping(params, "recipes"), name, where))
    parent = own.pop("recipe", None)
    if parent is None:
        _require(own, RECIPE, where)
        below: Tree = dict.fromkeys(RECIPE)
    else:
        check_name(params, "recipes", parent, f"{where}.recipe")
        below = _recipe(params, parent, (*above, name))
    return _lay_over(below, own, where, besides=("recipe",))


def _surface(params: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    where = f"surfaces.{name}"
    surface = _mapping(_mapping(params, "surfaces"), name, where)
    check_name(params, "corners", surface.get("corners"), f"{where}.corners")
    return surface


def _lay_over(
    below: Tree,
    changes: Mapping[str, Any],
    where: str,
    besides: Collection[str] = (),
    path: tuple[str, ...] = (),
) -> Tree:
    """Return `below`, which has the place `path`, with the changes that `where` states.

    Only its own keys may be changed; `besides` are further ones, for the message.
    """
    tree = dict(below)
    for key, value in changes.items():
        if key not in below and path != _OPEN:
            raise InputError(
                f"{where}: {'.'.join((*path, key))} is no setting; allowed here: "
                f"{', '.join((*besides, *below))}."
            )
        before = below.get(key)
        # A mapping with a name or kind is a thing with settings of its own.
        is_part = isinstance(value, dict) and not any(
            isinstance(value.get(naming), str) for naming in ("name", "kind")
        )
        if isinstance(before, dict) and is_part:
            tree[key] = _lay_over(before, value, where, path=(*path, key))
        else:
            tree[key] = _stated(value, where)
    return tree


def _stated(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _stated(inner, where) for key, inner in value.items()}
    return Stated(value, where)


def _values(tree: Tree) -> dict[str, Any]:
    return {
        key: _values(inner) if isinstance(inner, dict) else inner.value
        for key, inner in tree.items()
    }


def _leaves(tree: Tree, start: str = "") -> Iterator[tuple[str, Stated]]:
    for key, inner in tree.items():
        if isinstance(inner, dict):
            yield from _leaves(inner, f"{start}{key}.")
        else:
            yield f"{start}{key}", inner


def _mapping(whole: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
    value = whole.get(key)
    if not isinstance(value, dict):
        raise InputError(f"{where or key} is {shortened(value)}; it must have keys: `key: value`.")
    return value


def _require(given: Mapping[str, Any], keys: Collection[str], where: str) -> None:
    for key in keys:
        if key not in given:
            raise InputError(f"{where} lacks {key}; it needs {', '.join(keys)}.")
