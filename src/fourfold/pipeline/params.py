"""Experiments put together from the named parts in params.yaml.

A later layer is laid over an earlier one: a recipe over the one that it names, the keys of an
experiment over its recipe. Mappings are merged key by key; lists and scalars are replaced, and so
is a whole mapping by one that has `name` or `kind`: after a change from sgd to adamw no momentum is
left. A key that the layers below don't have is refused, but for new names below `fits` and
`trainings`. Those below `trainings` state what differs from `training`, and a fit that names
another one as its `fit` what differs from that.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fourfold.errors import InputError
from fourfold.files.reading import require_file, shortened
from fourfold.pipeline.yaml_file import check_yaml

RECIPE = ("threads", "augment", "training", "trainings", "fits", "grid", "ensembles")
_PARTS = ("dataset", "network", "recipe", "surfaces")  # of an experiment, by name
_OPEN = ("trainings", "fits")  # sections whose names are the user's


class Stated(NamedTuple):
    """A value, no mapping, and the part of params.yaml that states it, such as `recipes.adamw`."""

    value: Any
    where: str


Tree = dict[str, Any]  # of mappings, with `Stated` for leaves


def read_params(path: str | Path) -> dict[str, Any]:
    """Return what a params.yaml says, see `check_yaml`."""
    cure = "go to the folder of a project, or make one with `fourfold init FOLDER`"
    require_file(path, otherwise=f"no file at {path}; {cure}.")
    check_yaml(path)
    params: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    return params


def resolve(params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each experiment with all its values, the recipe's included.

    Returns:
        name -> {dataset, expected_accuracy, network, threads, augment, training, trainings, fits,
        grid, ensembles, corners, surfaces}. `corners` has those of the surfaces, in order of first
        use, after those that they are made from; `surfaces` is in the experiment's order, each with
        `fit_of`, the fit that its own differs from in its epochs alone, if there is one.

    Raises:
        InputError: for a name that nothing has, a key that a recipe's parent lacks, a recipe, fit
            or corner set made of itself, an experiment without surfaces, a surface or corner set
            with a fit or training that the recipe lacks.
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
        _recipe(params, recipe), _stated(own, where), where, (*_PARTS, "expected_accuracy")
    )
    roots = _derive(settings, where)
    corners: Tree = {}
    surfaces = {}
    for surface in chosen:
        check_name(params, "surfaces", surface, f"{where}.surfaces")
        stated = _surface(params, surface)
        fit = stated.get("fit")
        if fit is not None and (not isinstance(fit, str) or fit not in roots):
            raise InputError(
                f"surfaces.{surface}.fit names {shortened(fit)}, which `fits` of {where} (recipe "
                f"{recipe}) doesn't define; choose from {', '.join([*roots, 'null'])}."
            )
        surfaces[surface] = _stated(stated, f"surfaces.{surface}")
        if fit is not None and roots[fit].value != fit:
            surfaces[surface]["fit_of"] = roots[fit]
        corners |= _corners(params, stated["corners"], settings["trainings"], where)
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
    return _lay_over(below, _stated(own, where), where, ("recipe",))


def _derive(settings: Tree, where: str) -> dict[str, Stated]:
    """Complete trainings and fits that state differences; return fit -> that of another length."""
    trainings, fits = settings["trainings"], settings["fits"]
    if isinstance(trainings, dict) and isinstance(settings["training"], dict):
        for name, own in trainings.items():
            if isinstance(own, dict):
                path = (f"trainings.{name}",)
                trainings[name] = _lay_over(settings["training"], own, where, path=path)
    roots: dict[str, Stated] = {}

    def derive(name: str, above: tuple[str, ...]) -> None:
        own = fits[name]
        if name in above:
            raise InputError(f"{where}: a fit is made of itself: {' -> '.join((*above, name))}.")
        if name in roots:
            return
        roots[name] = Stated(name, where)
        if not isinstance(own, dict) or "fit" not in own:
            return
        own = dict(own)
        parent = own.pop("fit")
        named = None if isinstance(parent, dict) else parent.value
        if not isinstance(named, str) or not isinstance(fits.get(named), dict):
            raise InputError(
                f"fits.{name}.fit of {where} names {shortened(named)}, which is no fit there; "
                f"choose from {', '.join(fits)}."
            )
        derive(named, (*above, name))
        fits[name] = _lay_over(fits[named], own, where, path=(f"fits.{name}",))
        if own.keys() <= {"epochs"}:
            roots[name] = Stated(roots[named].value, parent.where)

    if isinstance(fits, dict):
        for name in fits:
            derive(name, ())
    return roots


def _corners(
    params: Mapping[str, Any], name: str, trainings: Tree, of: str, above: tuple[str, ...] = ()
) -> Tree:
    """Return a corner set, after those that it is made from."""
    where = f"corners.{name}"
    if name in above:
        raise InputError(f"{where} is made of itself: {' -> '.join((*above, name))}.")
    stated = _mapping(_mapping(params, "corners"), name, where)
    # What isn't a mapping, the schema refuses.
    for key in ("training", "then") if isinstance(trainings, dict) else ():
        training = stated.get(key)
        if training is not None and (not isinstance(training, str) or training not in trainings):
            raise InputError(
                f"{where}.{key} names {shortened(training)}, which `trainings` of {of} don't "
                f"have; choose from {', '.join([*trainings, 'null'])}."
            )
    before: Tree = {}
    if "to" in stated:
        check_name(params, "corners", stated["to"], f"{where}.to")
        before = _corners(params, stated["to"], trainings, of, (*above, name))
    return before | {name: _stated(stated, where)}


def _surface(params: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    where = f"surfaces.{name}"
    surface = _mapping(_mapping(params, "surfaces"), name, where)
    check_name(params, "corners", surface.get("corners"), f"{where}.corners")
    return surface


def _lay_over(
    below: Tree,
    changes: Tree,
    where: str,
    besides: Collection[str] = (),
    path: tuple[str, ...] = (),
    *,
    is_part: bool = False,
) -> Tree:
    """Return `below`, which has the place `path`, with changes.

    Only its own keys may be changed; `besides` are further ones, for the message. Where it is part
    of a training or fit that states differences, what keys there are is known to `_derive` only.
    """
    tree = dict(below)
    is_part |= len(path) == 2 and path[0] in _OPEN and ("trainings" in path or "fit" in below)
    for key, value in changes.items():
        if key not in below and not is_part and path not in [(name,) for name in _OPEN]:
            raise InputError(
                f"{where}: {'.'.join((*path, key))} is no setting; allowed here: "
                f"{', '.join((*besides, *below))}."
            )
        before = below.get(key)
        # A mapping with a name or kind is a thing with settings of its own.
        is_whole = not isinstance(value, dict) or any(
            isinstance(named := value.get(naming), Stated) and isinstance(named.value, str)
            for naming in ("name", "kind")
        )
        if isinstance(before, dict) and not is_whole:
            tree[key] = _lay_over(before, value, where, path=(*path, key), is_part=is_part)
        else:
            tree[key] = value
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
