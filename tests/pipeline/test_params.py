"""Experiments put together from named parts, and what params.yaml may say."""

import copy
from functools import reduce

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from project import ROOT

from fourfold.errors import InputError
from fourfold.pipeline.cli import main
from fourfold.pipeline.params import origins, read_params, resolve
from fourfold.pipeline.params_check import check_params

FILES = [ROOT / "params.yaml", ROOT / "tests" / "params.tiny.yaml"]
EACH_FILE = pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
_TINY = read_params(FILES[1])


def tiny(values=None):
    """Return the small params, with other values at some dotted keys."""
    params = copy.deepcopy(_TINY)
    for dotted, value in (values or {}).items():
        *path, key = dotted.split(".")
        section = reduce(lambda inner, name: inner.setdefault(name, {}), path, params)
        section[key] = value
    return params


def at(values, dotted):
    return reduce(lambda section, key: section[key], dotted.split("."), values)


def leaves(values, start=""):
    """Return dotted key -> value."""
    if not isinstance(values, dict):
        return {start: values}
    return {
        key: value
        for name, inner in values.items()
        for key, value in leaves(inner, f"{start}.{name}".removeprefix(".")).items()
    }


def message(params, **options):
    with pytest.raises(InputError) as refused:
        check_params(params, **options)
    return str(refused.value)


# --- putting together -----------------------------------------------------------------------------


@EACH_FILE
def test_the_files_of_the_repository_are_accepted_and_share_by_name_alone(file):
    params = read_params(file)
    assert list(check_params(params)) == list(params["experiments"])
    tokens = list(yaml.scan(file.read_text()))
    assert not any(isinstance(t, (yaml.AnchorToken, yaml.AliasToken)) for t in tokens)


@EACH_FILE
def test_every_value_stands_in_the_part_that_is_named_as_its_origin(file):
    params = read_params(file)
    for name, experiment in resolve(params).items():
        stated, values = origins(params, name), leaves(experiment)
        assert stated.keys() == values.keys()
        for key, part in stated.items():
            if part == "not stated":
                assert key == "expected_accuracy"
                assert key not in params["experiments"][name]
                continue
            inner = key
            if key.startswith(("trainings.", "fits.")) or key.endswith(".fit_of"):
                continue  # partly those of another one, see below
            if part.split(".")[0] in ("networks", "corners", "surfaces"):
                inner = key.removeprefix("network.").removeprefix(f"{part}.")
            assert at(params, f"{part}.{inner}") == values[key], (name, key)


def test_a_recipe_takes_its_parents_values_and_an_experiment_has_the_last_word():
    keep = [0.25, 0.5, 0.75, 1.0]
    params = tiny(
        {
            "recipes.adamw.threads": 2,
            "recipes.adamw.grid": {"points": 5},
            "recipes.third": {"recipe": "adamw", "grid": {"points": 7, "seed": 9}},
            "experiments.tiny-vit.recipe": "third",
            "experiments.tiny-vit.grid": {"points": 9},
            "experiments.tiny-vit.training.keep": keep,
        }
    )
    vit, sgd = check_params(params)["tiny-vit"], params["recipes"]["sgd"]
    assert vit["threads"] == 2
    assert vit["grid"] == sgd["grid"] | {"points": 9, "seed": 9}
    assert vit["training"]["keep"] == keep
    assert vit["training"]["warmup"] == sgd["training"]["warmup"]
    stated = origins(params, "tiny-vit")
    assert [stated[f"grid.{key}"] for key in ("points", "seed", "batch_size")] == [
        "experiments.tiny-vit",
        "recipes.third",
        "recipes.sgd",
    ]


def test_an_optimizer_with_its_name_leaves_nothing_of_another_and_one_without_changes_a_value():
    adamw = {"name": "adamw", "lr": 0.1, "betas": [0.5, 0.6]}
    params = tiny(
        {
            "experiments.tiny-vgg16.training.optimizer": adamw,
            "experiments.tiny-resnet18.training.optimizer": {"lr": 0.7},
        }
    )
    found = {name: one["training"]["optimizer"] for name, one in resolve(params).items()}
    assert found["tiny-vgg16"] == adamw
    sgd = params["recipes"]["sgd"]["training"]["optimizer"]
    assert found["tiny-resnet18"] == sgd | {"lr": 0.7}
    stated = origins(params, "tiny-resnet18")
    assert stated["training.optimizer.lr"] == "experiments.tiny-resnet18"
    assert stated["training.optimizer.momentum"] == "recipes.sgd"


def test_a_new_fit_and_a_rival_of_one_line_leave_the_others_as_they_are():
    before = resolve(tiny())["tiny-resnet18"]
    long = before["fits"]["standard"] | {"epochs": 50}
    longer = before["surfaces"]["bezier"] | {"fit": "long"}
    name = "experiments.tiny-resnet18"
    of = {f"{name}.fits": {"long": long}, "surfaces.longer": longer}
    after = check_params(tiny({**of, f"{name}.surfaces": [*before["surfaces"], "longer"]}))
    assert after["tiny-resnet18"] == before | {
        "fits": before["fits"] | {"long": long},
        "surfaces": before["surfaces"] | {"longer": longer},
    }


def test_a_training_and_a_fit_that_state_differences_are_complete():
    params = tiny({"recipes.adamw.fits.short": {"epochs": 9}, "recipes.adamw.training.epochs": 3})
    both = resolve(params)
    sgd, adamw = both["tiny-rivals"], both["tiny-vit"]
    lower = sgd["training"]["optimizer"] | {"lr": 0.05}
    changed = {"epochs": 6, "keep": [0.5, 1.0], "optimizer": lower}
    assert sgd["trainings"]["long"] == sgd["training"] | changed
    assert adamw["trainings"]["half"] == adamw["training"] | {"epochs": 2, "keep": [1.0]}
    flat = sgd["fits"]["standard"] | {"boundary_epochs": 0}
    assert sgd["fits"]["flat"] == flat
    assert sgd["fits"]["short"] == flat | {
        "epochs": 1,
        "optimizer": flat["optimizer"] | {"lr": 0.2},
    }
    assert adamw["fits"]["short"]["epochs"] == 9
    assert adamw["fits"]["short"]["optimizer"] == adamw["fits"]["standard"]["optimizer"] | {
        "lr": 0.2
    }
    assert "fit_of" not in sgd["surfaces"]["untrained"]
    params["recipes"]["sgd"]["fits"]["short"] = {"fit": "flat", "epochs": 1}
    assert resolve(params)["tiny-rivals"]["surfaces"]["untrained"]["fit_of"] == "flat"
    stated = origins(params, "tiny-vit")
    assert stated["fits.short.epochs"] == "recipes.adamw"
    assert stated["fits.short.boundary_epochs"] == "recipes.sgd"


@pytest.mark.parametrize("key", ["corners.tuned.at", "corners.forked.at"])
def test_the_end_of_a_run_is_the_same_as_a_whole_number(key):
    given = {"corners.forked.then": "long", "corners.forked.training": None}
    whole, broken = (check_params(tiny({**given, key: at})) for at in (1, 1.0))
    assert whole == broken


# --- refusals -------------------------------------------------------------------------------------

SURFACE = {"corners": "independent", "shape": "square", "degree": [1, 1], "fit": None}
ON_PAIR = {"corners": "pair", "shape": "curve", "fit": "flat"}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        # names that point nowhere
        ("run", ["tiny-vgg"], ["run names 'tiny-vgg'", "choose from tiny-vgg16, tiny-resnet18"]),
        ("experiments.tiny-vit.dataset", "mnist", ["tiny-vit.dataset", "'mnist'", "digits"]),
        ("experiments.tiny-vit.network", "vit", ["tiny-vit.network", "'vit'", "vit-4"]),
        ("experiments.tiny-vit.recipe", "adam", ["tiny-vit.recipe", "'adam'", "sgd, adamw"]),
        ("experiments.tiny-vit.surfaces", ["flat"], ["tiny-vit.surfaces", "'flat'", "linear"]),
        ("corners.tuned.training", "longer", ["corners.tuned.training", "'longer'", "long, half"]),
        ("corners.aligned.to", "four", ["corners.aligned.to", "'four'", "independent, traj"]),
        ("corners.aligned.to", "aligned", ["made of itself", "aligned -> aligned"]),
        ("corners.tuned.then", None, ["tuned.at is 1.0", "`then`"]),
        ("recipes.sgd.fits.short.fit", "none", ["fits.short.fit", "'none'", "standard, flat"]),
        ("recipes.sgd.fits.flat.fit", "short", ["made of itself", "flat -> short -> flat"]),
        ("recipes.sgd.fits.short.epoch", 1, ["fits.short.epoch is no setting", "epochs"]),
        ("recipes.sgd.trainings.long.lr", 1, ["trainings.long.lr is no setting", "epochs"]),
        ("surfaces.linear.corners", "four", ["linear.corners", "'four'", "independent, traj"]),
        ("surfaces.rival.fit", "long", ["rival.fit", "'long'", "standard, flat, short, null"]),
        ("recipes.adamw.recipe", "adam", ["recipes.adamw.recipe", "'adam'", "sgd, adamw"]),
        # recipes
        ("recipes.sgd.recipe", "sgd", ["recipes.sgd is made of itself", "sgd -> sgd"]),
        ("recipes.sgd.recipe", "adamw", ["made of itself", "sgd -> adamw -> sgd"]),
        ("recipes.adamw.epochs", 3, ["recipes.adamw: epochs", "training, trainings, fits, grid"]),
        ("recipes.adamw.training.epoch", 3, ["recipes.adamw: training.epoch", "epochs, batch"]),
        ("recipes.adamw.fits.standard.degree", [2, 2], ["fits.standard.degree", "sampler"]),
        ("recipes.sgd.network", {}, ["recipes.sgd: network", "recipe, threads"]),
        ("recipes.other", {"threads": 1}, ["recipes.other lacks augment", "ensembles"]),
        ("experiments.tiny-vit.epochs", 3, ["experiments.tiny-vit: epochs", "surfaces", "fits"]),
        ("experiments.tiny-vit.training.optimizer.momentum", 0.5, ["momentum", "name, lr, betas"]),
        # parts that don't fit together
        ("surfaces.bezier.degree", [1, 1], ["surfaces.bezier", "nothing to fit", "null"]),
        ("surfaces.ensembles", SURFACE, ["surfaces.ensembles", "choose another"]),
        ("corners.independent.count", 5, ["surfaces.linear, on corners.independent: ", "4 corners",
         "5 networks"]),
        ("surfaces.x", ON_PAIR | {"degree": [1]}, ["surfaces.x is a curve", "nothing to fit"]),
        ("surfaces.x", ON_PAIR | {"shape": "chain", "bends": 0}, ["chain", "nothing to fit"]),
        ("surfaces.x", ON_PAIR | {"shape": "star"}, ["star with added: 0", "an added center"]),
        ("surfaces.x", ON_PAIR | {"shape": "set"}, ["surfaces.x is a set, as", "nothing to fit"]),
        ("surfaces.x", {"corners": "free", "shape": "set", "fit": "flat"}, ["nothing to fit"]),
        ("surfaces.x", ON_PAIR | {"shape": "sphere"}, ["surfaces.x", "choose one of curve"]),
        ("surfaces.x", ON_PAIR | {"degree": [2, 2]}, ["surfaces.x", "curve takes 1 integer"]),
        ("surfaces.x", ON_PAIR | {"bends": 1}, ["surfaces.x", "curve", "'bends'"]),
        ("surfaces.x", ON_PAIR | {"shape": "simplex", "added": 3}, ["simplex", "2 corners"]),
        ("surfaces.x", SURFACE | {"shape": "triangle", "degree": [2]}, ["3 corners", "4 networks"]),
        ("surfaces.x", ON_PAIR | {"shape": "simplex", "added": 1, "fit": None},
         ["surfaces.x.fit is null", "added vertices", "nothing would train"]),
        ("surfaces.x", SURFACE | {"corners": "free"}, ["surfaces.x.fit is null", "corners free"]),
        ("surfaces.plane", SURFACE, ["surfaces.plane has a name that other files or methods have"]),
        ("surfaces.corners", SURFACE, ["surfaces.corners has a name", "choose another"]),
        ("corners.aligned.to", "free", ["corners.aligned.to is free", "nobody has trained",
         "seeds, run, fork or files"]),
        ("corners.aligned.reference", 4, ["corners.aligned.reference is 4", "0 to 3, or mean"]),
        ("networks.vit-4.heads", 3, ["experiments.tiny-vit", "heads 3", "multiple"]),
        ("surfaces.forked-1", SURFACE, ["surfaces.forked-1 has a name that other files"]),
        ("recipes.sgd.fits.flat.boundary_epochs", 1, ["surfaces.curve is a curve",
         "fits.flat.boundary_epochs (from recipes.sgd) is 1", "boundary_epochs: 0"]),
        ("recipes.sgd.fits.standard.phases",
         [{"epochs": 1, "curves": [["corner_00", "P_99"]], "rows": None}],
         ["surfaces.bezier has the fit standard: phases[0].curves[0] is ['corner_00', 'P_99']"]),
        ("corners.forked.at", 0.6, ["corners.forked.at has [0.6]", "keep", "add them there"]),
        ("recipes.sgd.fits.flat.schedule", {"name": "swa", "start": 0.04, "lr": 0.5},
         ["experiments.tiny-vgg16.fits.flat: warmup is 0.05", "swa", "first 0.04"]),
        ("recipes.sgd.grid.batchnorm", "repaired", ["grid.batchnorm (from recipes.sgd) is 'rep",
         "surfaces.NAME.batchnorm"]),
        ("seeds.stride", 3, ["seeds.stride is 3", "independent", "4 or more"]),
        ("recipes.sgd.fits.standard.points_per_step", 5, ["standard.batch_size (from recipes.sgd)",
         "32", "multiple", "5"]),
        ("corners.listed.choose", [0.3, 0.5, 0.75, 1.0], ["corners.listed.choose has [0.3]",
         "tiny-vit.training.keep (from recipes.sgd)", "[0.25, 0.5, 0.75, 1.0]"]),
        ("recipes.sgd.training.keep", [0.5, 0.75, 1.0], ["training.keep (from recipes.sgd)",
         "corners.trajectory chooses 4"]),
        ("recipes.sgd.training.epochs", 2, ["training.keep (from recipes.sgd)", "the same"]),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused_in_one_message(key, value, said):
    text = message(tiny({key: value}))
    assert "\n" not in text
    assert [part for part in said if part not in text] == [], text


@pytest.mark.parametrize(
    ("key", "value", "place", "said"),
    [
        ("epochs", 3, "top level", "'epochs' was unexpected"),
        ("replicates", 0, "replicates", "minimum of 1"),
        ("replicates", 1.0, "replicates", "write 1 (Independent repetitions of each experiment)"),
        ("run", "tiny-vit", "run", "write [tiny-vit] (Names of the experiments to build)"),
        ("data_folder", 3, "data_folder", "FOURFOLD_DATA"),
        ("summary.kept", 1.5, "summary.kept", "maximum of 1"),
        ("datasets.digits.split.val_images", 0, "datasets.digits.split.val_images", "minimum"),
        ("datasets.digits.source.name", "mnist", "datasets.digits.source.name", "tiny-imagenet"),
        ("datasets.digits.source.download", True, "datasets.digits.source", "unexpected"),
        ("datasets.digits.source.name", "cifar10", "datasets.digits.source", "'download' is a req"),
        ("networks.vit-4.width", 4, "networks.vit-4", "'width' was unexpected"),
        ("networks.vit-4.name", "mlp", "networks.vit-4.name", "'vit'"),
        ("networks.vgg16-2.width", 0, "networks.vgg16-2.width", "minimum of 1"),
        ("corners.independent.kind", "forks", "corners.independent.kind", "'run', 'fork', 'fil"),
        ("corners.independent.kind", "fork", "corners.independent", "'at' is a required"),
        ("corners.forked.at", 1.5, "corners.forked.at", "maximum of 1"),
        ("corners.forked.count", 0, "corners.forked.count", "minimum of 1"),
        ("recipes.sgd.training.schedule", "step",
         "experiments.tiny-vgg16.training.schedule (from recipes.sgd)", "['cosine', 'constant']"),
        ("recipes.sgd.training.schedule", {"name": "cosine"},
         "experiments.tiny-vgg16.training.schedule.name (from recipes.sgd)", "'restarts', 'swa'"),
        ("recipes.sgd.training.schedule", {"name": "restarts", "cycles": 0},
         "experiments.tiny-vgg16.training.schedule.cycles (from recipes.sgd)", "minimum of 1"),
        ("corners.mine.files", ["a.pt"], "corners.mine.files", "too short"),
        ("corners.mine.key", 3, "corners.mine.key", "not of type 'string', 'null'"),
        ("corners.free.seeds", 3, "corners.free", "allowed: kind, count"),
        ("networks.own.builder", "build", "networks.own.builder", "module:function"),
        ("networks.own.architecture", "x", "networks.own", "allowed: name, builder, arguments"),
        ("networks.timm.arguments", 3, "networks.timm.arguments", "not of type 'object'"),
        ("corners.trajectory.count", 4, "corners.trajectory", "allowed: kind, choose"),
        ("corners.trajectory.choose", "test", "corners.trajectory.choose", "['validation']"),
        ("corners.listed.choose", [], "corners.listed.choose", "non-empty"),
        ("surfaces.linear.degree", [0, 1], "surfaces.linear.degree.0", "minimum of 1"),
        ("surfaces.linear.degree", 2, "surfaces.linear.degree", "not of type 'array'"),
        ("surfaces.linear.batchnorm", "own", "surfaces.linear.batchnorm", "'reestimated', 'int"),
        ("surfaces.linear.fits", None, "surfaces.linear", "allowed: corners, shape, "),
        ("surfaces.linear.added", 4, "surfaces.linear.added", "maximum of 3"),
        ("experiments.tiny-vit.surfaces", [], "experiments.tiny-vit.surfaces", "non-empty"),
        ("experiments.tiny-vit.surfaces", ["rival"] * 2, "experiments.tiny-vit.surfaces", "non-un"),
        ("experiments.tiny-vit.expected_accuracy", 95,
         "experiments.tiny-vit.expected_accuracy", "maximum of 1"),
        ("experiments.tiny-vit.ensembles", {"max_members": 3},
         "experiments.tiny-vit.ensembles.max_members", "four corners"),
        ("experiments.tiny-vit.fits", {"a.b": _TINY["recipes"]["sgd"]["fits"]["standard"]},
         "experiments.tiny-vit.fits", "'a.b' does not match"),
        ("recipes.sgd.grid.points", 4,
         "experiments.tiny-vgg16.grid.points (from recipes.sgd)",
         "; the same in tiny-resnet18, tiny-vit"),
        ("recipes.adamw.training.optimizer.lr", "1e-3",
         "experiments.tiny-vit.training.optimizer.lr (from recipes.adamw)", "write 1.0e-3"),
        ("recipes.adamw.training.optimizer", {"name": "adamw", "lr": 0.1},
         "experiments.tiny-vit.training.optimizer (from recipes.adamw)", "'betas' is a required"),
        ("recipes.sgd.training.steps", 3,
         "experiments.tiny-vgg16.training (from recipes.sgd)", "'steps' was unexpected"),
        ("recipes.sgd.augment", None,
         "experiments.tiny-vgg16.augment (from recipes.sgd)", "'object'"),
        *(("recipes.sgd.trainings", nothing,
           "experiments.tiny-vgg16.trainings (from recipes.sgd)", "'object'")
          for nothing in (None, [])),
    ],
)  # fmt: skip
def test_an_impossible_value_is_refused_with_key_and_rule(key, value, place, said):
    head, *lines = message(tiny({key: value})).splitlines()
    assert head == "params.yaml can't be used:"
    assert lines[0].startswith(place)
    assert all(said in line for line in lines)  # of a training, that it is based on as well
    assert all("training" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("section", "name"),
    [
        *(("experiments", "tiny-vit"), ("recipes", "adamw"), ("surfaces", "listed")),
        *(("corners", "listed"), ("networks", "vit-4"), ("datasets", "digits")),
    ],
)
def test_a_name_that_dvc_or_a_folder_could_not_have_is_refused(section, name):
    wrong = ["a.b", "a_b", "_a", "-a", "../a", "", "a b", "ä"]
    params = tiny()
    params[section] |= dict.fromkeys(wrong, params[section][name])
    lines = message(params).splitlines()[1:]
    assert len(lines) == len(wrong)
    for one in wrong:
        (line,) = [line for line in lines if line.startswith(f"{section}: {one!r} does not match")]
        assert "letters, digits and hyphens" in line


def test_numbers_that_do_not_count_are_refused_with_how_to_write_them():
    """What YAML 1.1 takes for text, whole numbers with a point, booleans, what is not finite."""
    wrong = {
        "training.optimizer.name": ("sgd", None),
        "training.optimizer.lr": ("1e-3", "; write 1.0e-3"),
        "training.optimizer.momentum": ("5E-1", "; write 5.0e-1"),
        "training.weight_decay": (-0.0, "; write 0.0"),
        "training.clip_norm": ("None", "; write null"),
        "training.warmup": ("0.1", "; write 0.1 without quotes"),
        "training.epochs": (4.0, "; write 4"),
        "training.batch_size": ("32", "; write 32"),
        "training.compile": ("False", "; write false without quotes"),
        "fits.standard.optimizer.name": ("sgd", None),
        "fits.standard.optimizer.lr": ("1.5e3", "; write 1.5e+3"),
        "fits.standard.optimizer.momentum": (True, "not of type 'number'"),
        "fits.standard.weight_decay": (float("inf"), "inf is not of type 'number'"),
        "fits.standard.clip_norm": (float("nan"), "nan is not of type 'number'"),
        "fits.standard.warmup": ("1e400", "'1e400' is not of type 'number'"),
        "fits.standard.epochs": (True, "True is not of type 'integer'"),
        "fits.standard.batch_size": (10**30, "maximum of 1000000000"),
        "fits.standard.points_per_step": ("1e1", "; write 10"),
        "grid.seed": (-1, "minimum of 0"),
        "grid.points": ("7", "; write 7"),
        "grid.search_images": ("none", "; write null"),
    }
    place = "experiments.tiny-vit"
    found = message(tiny({f"{place}.{key}": value for key, (value, _) in wrong.items()}))
    lines = dict(line.split(": ", 1) for line in found.splitlines()[1:])
    said = {f"{place}.{key}": said for key, (_, said) in wrong.items() if said is not None}
    assert lines.keys() == said.keys()
    assert [key for key, part in said.items() if part not in lines[key]] == []


def test_nested_values_of_the_command_line_are_said_to_need_a_file():
    params = tiny({"recipes.adamw.training.optimizer.lr": "0.1"})
    assert "--configfile" in message(params, as_text=["recipes"])
    assert "--configfile" not in message(params, as_text=["experiments", "run"])


@pytest.mark.parametrize("value", [None, 3, "x", [], [[]], {}, {"": None}])
def test_whatever_stands_in_a_place_ends_in_a_message_or_is_taken(value):
    """Without the schema as well, for programs that only put experiments together."""
    sections = ["recipes", "experiments", "surfaces.linear"]
    sections += ["recipes.sgd.fits", "recipes.sgd.trainings"]
    for dotted in [*leaves(tiny()), *sections]:
        for attempt in (resolve, check_params):
            try:
                attempt(tiny({dotted: value}))
            except InputError as error:
                assert str(error)


# --- on the command line --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("recipes.gpu-vit.training.epochs=60", {"training.epochs": 60}),
        ("surfaces.bezier.degree=[3,3]", {"surfaces.bezier.degree": [3, 3]}),
        ("++experiments.cifar10-vit.grid.points=7", {"grid.points": 7}),
        ("++experiments.cifar10-vit.training.optimizer.lr=0.5", {"training.optimizer.lr": 0.5}),
        ("networks.vit-s-4.layers=2", {"network.layers": 2}),
        ("experiments.cifar10-vit.network=vit-4", None),
    ],
)
def test_dvc_sets_one_value_and_no_other(override, changed, tmp_path):
    file, name = tmp_path / "params.yaml", "cifar10-vit"
    file.write_text(FILES[0].read_text())
    before = check_params(read_params(file))
    apply_overrides(file, [override])  # what `dvc exp run -S` does
    after = check_params(read_params(file))
    if changed is None:
        assert after[name] == before[name] | {"network": before["cifar10-vit-cpu"]["network"]}
        changed = {}
    else:
        after, before = ({**of, name: {**of[name], "trainings": None}} for of in (after, before))
        assert leaves(after[name]) == leaves(before[name]) | changed
    if "experiments." in override:
        assert {**after, name: None} == {**before, name: None}


def test_params_shows_every_value_and_where_it_comes_from(capsys, tmp_path):
    params = tiny()
    params["experiments"]["tiny-vit"] |= {"surfaces": ["linear"], "augment": {"shift": 3}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(params, sort_keys=False))
    assert main(["params", "tiny-vit", "--file", str(file), "--all"]) == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [key for key, _ in rows] == list(leaves(resolve(params)["tiny-vit"]))
    shown = {key: " ".join(rest.split()) for key, rest in rows}
    assert shown["augment.shift"] == "3 experiments.tiny-vit"
    assert shown["training.optimizer.betas"] == "[0.9, 0.98] recipes.adamw"
    assert shown["network.name"] == '"vit" networks.vit-4'
    assert shown["surfaces.linear.fit"] == "null surfaces.linear"
    assert shown["expected_accuracy"] == "null not stated"
    assert shown["fits.standard.epochs"] == "2 recipes.sgd, which it doesn't use"
    assert main(["params", "tiny-vit", "--file", str(file)]) == 0
    *used, last = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in used} < set(shown)
    assert not any(line.startswith("fits.") for line in used)
    assert last.endswith("--all")


def test_params_shows_a_section_that_is_null(capsys, tmp_path):
    params = tiny({"recipes.sgd.trainings": None})
    params["experiments"] = {"tiny-vit": params["experiments"]["tiny-vit"]}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(params, sort_keys=False))
    assert main(["params", "tiny-vit", "--file", str(file)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["trainings", "null", "recipes.sgd"] in rows


def test_params_of_an_experiment_that_is_not_there_names_those_that_are(capsys):
    assert main(["params", "vit", "--file", str(FILES[1])]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "'vit'" in line
    assert "tiny-vgg16, tiny-resnet18, tiny-vit" in line
