"""The command line: its errors are one message and exit status 1, and nothing is half-written."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import wraps
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file

from fourfold.combination.differences import measure_differences
from fourfold.data.dataset import Dataset
from fourfold.evaluation.geometry import measure_barriers
from fourfold.evaluation.logits import Examples, SurfaceLogits
from fourfold.files.table import read_table
from fourfold.networks import build_model
from fourfold.pipeline.cli import COMMANDS, main
from fourfold.surfaces.checkpoint import load_checkpoint, save_checkpoint
from fourfold.surfaces.points import CORNER_COORDINATES, grid_points, surface_rows
from fourfold.training.fit import fit

NETWORK = {"name": "resnet18", "width": 2, "stem": "3x3"}
AUGMENT = {"shift": 1, "flip": False}
SGD = {"name": "sgd", "lr": 0.1}
TRAINING = {"epochs": 2, "batch_size": 32, "optimizer": SGD, "keep": [0.5, 1.0]}
FIT = {"epochs": 1, "batch_size": 32, "points_per_step": 4, "optimizer": SGD}
LINEAR = {"linear": {"corners": "independent", "kind": "seeds", "fit": None}}
SPLIT = {"by": "chance", "seed": 0, "train_images": 100, "val_images": 30, "test_images": 40}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder with a small prepared data set."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    settings = json.dumps({"source": {"name": "digits"}, "split": SPLIT})
    assert (
        main(["prepare-data", "--name", "digits", "--settings", settings, "--output", str(folder)])
        == 0
    )
    return folder


@pytest.fixture
def corners(tmp_path):
    """Return the files of four small networks."""
    return [str(_network(tmp_path / f"corner{seed}.safetensors", seed)) for seed in range(4)]


def _network(path, seed=0, width=2):
    torch.manual_seed(seed)
    model = build_model("resnet18", channels=1, image_size=8, classes=10, width=width)
    save_checkpoint(model.state_dict(), path)
    return path


def _job(folder):
    cost = str(folder / "out" / "cost.parquet")
    return ["--experiment", "e", "--replicate", "0", "--cost", cost]


def _network_job(data, folder, **settings):
    return [
        *_job(folder),
        *("--data", str(data), "--device", "cpu", "--settings", json.dumps(settings)),
    ]


def _train(data, folder, training):
    out = folder / "out"
    return main(
        [
            "train-endpoint",
            *_network_job(data, folder, network=NETWORK, augment=AUGMENT, training=training),
            "--seed",
            "0",
            "--checkpoint",
            str(out / "seed0.safetensors"),
            "--trajectory",
            str(out / "trajectory.safetensors"),
            "--training",
            str(out / "t.parquet"),
            "--endpoints",
            str(out / "e.parquet"),
            "--state",
            str(out / "state"),
        ]
    )


def _linear(folder, corners):
    return main(
        [
            *("build-linear-surface", *_job(folder), "--name", "linear", "--degree", "1", "1"),
            *("--corners", *corners, "--output", str(folder / "out" / "linear.safetensors")),
        ]
    )


def _fit(data, folder, corners, settings, degree=(2, 2)):
    return main(
        [
            "fit-bezier-surface",
            *_network_job(data, folder, network=NETWORK, augment=AUGMENT, fit=settings),
            *("--name", "bezier", "--degree", *map(str, degree)),
            "--corners",
            *corners,
            "--seed",
            "0",
            "--output",
            str(folder / "out" / "bezier.safetensors"),
            "--training",
            str(folder / "out" / "t.parquet"),
            "--state",
            str(folder / "out" / "state"),
        ]
    )


def _refused(capsys, folder, status, *said):
    """Check that a command ended in one message with these parts, and left no file."""
    message = capsys.readouterr().err
    assert status == 1
    assert len(re.findall("^error: ", message, flags=re.M)) == 1
    for part in said:
        assert part in message
    out = folder / "out"
    assert not out.exists() or not [path for path in out.rglob("*") if path.is_file()]


def test_every_command_explains_itself(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert "usage: fourfold " + command in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["prepare-data"], [], ["prepare-data", "--nmae", "x"]]
)
def test_unusable_arguments_exit_with_status_1(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 1
    assert "error: " in capsys.readouterr().err


def test_figures_are_drawn_without_torch():
    names = ("cli", "commands.plot_figures", "commands.summarize")
    commands = ", ".join(f"fourfold.pipeline.{name}" for name in names)
    code = f"import sys, {commands}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochz": 3}, ["training.epochz", "epochs"]),
        ({"epochs": -2}, ["epochs is -2", "0 or more"]),
        ({"keep": [0.5, 1.5]}, ["[0.5, 1.5]", "(0, 1]"]),
        ({"keep": [0.9, 1.0]}, ["[0.9, 1.0]", "the same"]),
        ({"optimizer": SGD | {"lr": 0}}, ["lr is 0", "positive"]),
        ({"optimizer": SGD | {"name": "sdg"}}, ["'sdg'", "sgd"]),
        ({"optimizer": SGD | {"rate": 1.0}}, ["training.optimizer", "'rate'", "momentum"]),
        ({"schedule": "cosin"}, ["'cosin'", "cosine"]),
        ({"batch_size": 101}, ["101", "1 to 100"]),
        ({"batch_size": 32.0}, ["training.batch_size is 32.0", "an integer"]),
        ({"epochs": True}, ["training.epochs is True", "an integer"]),
        ({"keep": ["half", 1.0]}, ["training.keep is ['half', 1.0]", "a list of finite numbers"]),
        ({"optimizer": SGD | {"lr": "1e-3"}}, ["lr is '1e-3'", "a finite number"]),
        ({"optimizer": SGD | {"lr": False}}, ["lr is False", "a finite number"]),
        ({"clip_norm": "none"}, ["training.clip_norm is 'none'", "a finite number or null"]),
        ({"warmup": float("nan")}, ["training.warmup is nan", "a finite number"]),
        ({"optimizer": SGD | {"lr": 1e9}}, ["diverged", "lr"]),
    ],
)
def test_impossible_training_ends_in_one_message(change, said, data, tmp_path, capsys):
    _refused(capsys, tmp_path, _train(data, tmp_path, TRAINING | change), *said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": -2}, ["epochs is -2", "0 or more"]),
        ({"points_per_step": 5}, ["32", "5", "multiple"]),
        ({"sampler": "grid"}, ["'grid'", "latin-hypercube"]),
        ({"optimizer": SGD | {"lr": 1e9}}, ["diverged"]),
    ],
)
def test_impossible_fits_end_in_one_message(change, said, data, tmp_path, corners, capsys):
    _refused(capsys, tmp_path, _fit(data, tmp_path, corners, FIT | change), *said)


@pytest.mark.parametrize(
    ("degree", "said"),
    [((0, 2), ["(0, 2)", "1 to 20"]), ((1, 1), ["(1, 1)", "no free control points", "(2, 2)"])],
)
def test_impossible_degrees_end_in_one_message(degree, said, data, tmp_path, corners, capsys):
    _refused(capsys, tmp_path, _fit(data, tmp_path, corners, FIT, degree), *said)


def test_three_corners_are_refused(tmp_path, corners, capsys):
    _refused(capsys, tmp_path, _linear(tmp_path, corners[:3]), "4 corners", "got 3")


def test_corners_of_different_architectures_are_refused(tmp_path, corners, capsys):
    corners[2] = str(_network(tmp_path / "wide.safetensors", width=3))
    _refused(capsys, tmp_path, _linear(tmp_path, corners), "corner_10", "conv1.weight")


@pytest.mark.parametrize("tamper", ["missing", "extra", "nan"])
def test_damaged_corners_are_refused(tamper, tmp_path, corners, capsys):
    torch.manual_seed(0)
    state = build_model("resnet18", channels=1, image_size=8, classes=10, width=2).state_dict()
    if tamper == "missing":
        del state["fc.bias"]
    elif tamper == "extra":
        state["fc.scale"] = torch.ones(1)
    else:
        state["fc.bias"][3] = float("nan")
    corners[3] = str(tmp_path / "tampered.safetensors")
    save_file(state, corners[3])
    name = "fc.scale" if tamper == "extra" else "fc.bias"
    _refused(capsys, tmp_path, _linear(tmp_path, corners), "corner_11", name)


def test_a_missing_or_foreign_file_is_refused(tmp_path, corners, capsys):
    missing = str(tmp_path / "nowhere.safetensors")
    _refused(capsys, tmp_path, _linear(tmp_path, [*corners[:3], missing]), "no file at")
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"no safetensors")
    _refused(capsys, tmp_path, _linear(tmp_path, [*corners[:3], str(garbage)]), "garbage")


def test_a_model_of_another_architecture_is_refused(data, tmp_path, capsys):
    wide = [str(_network(tmp_path / f"{seed}.safetensors", seed, width=3)) for seed in range(4)]
    _refused(capsys, tmp_path, _fit(data, tmp_path, wide, FIT), "architecture")


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"val_images": 0}, ["split.val_images is 0", "10"]),
        ({"test_images": 5000}, ["split.test_images is 5000", "10"]),
        ({"test_images": None}, ["null", "number"]),
        ({"vall_images": 3}, ["split.vall_images", "val_images"]),
    ],
)
def test_impossible_splits_end_in_one_message(split, said, tmp_path, capsys):
    settings = json.dumps({"source": {"name": "digits"}, "split": SPLIT | split})
    output = str(tmp_path / "out")
    status = main(["prepare-data", "--name", "d", "--settings", settings, "--output", output])
    _refused(capsys, tmp_path, status, *said)


def test_settings_that_are_no_json_are_refused(tmp_path, capsys):
    output = str(tmp_path / "out")
    status = main(["prepare-data", "--name", "d", "--settings", "{source", "--output", output])
    _refused(capsys, tmp_path, status, "no JSON", "{source")


@pytest.mark.parametrize("key", ["epochs", "optimizer", "batch_size", "keep"])
def test_a_setting_that_is_not_there_is_named(key, data, tmp_path, capsys):
    training = {k: v for k, v in TRAINING.items() if k != key}
    _refused(
        capsys, tmp_path, _train(data, tmp_path, training), f"training lacks the setting {key}"
    )


def test_a_setting_that_stands_twice_is_refused(tmp_path, capsys):
    arguments = ["--settings", '{"source": {}, "split": {"seed": 0, "seed": 1}}']
    status = main(["prepare-data", "--name", "d", *arguments, "--output", str(tmp_path / "out")])
    _refused(capsys, tmp_path, status, "a key stands twice among seed, seed")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ..."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=repr,
)
def test_a_lack_of_memory_ends_in_one_message(error, data, tmp_path, corners, capsys, monkeypatch):
    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr("fourfold.pipeline.commands.fit_bezier_surface.fit", wraps(fit)(fail))
    status = _fit(data, tmp_path, corners, FIT)
    _refused(capsys, tmp_path, status, "out of memory (", "batch_size", "--resources gpu=1")


def test_more_memory_than_there_is_ends_in_one_message(data, tmp_path, capsys, monkeypatch):
    """PyTorch's own error, of an allocation that no machine grants."""
    monkeypatch.setattr(
        "fourfold.pipeline.commands.show.run", lambda _: torch.empty(2**55, dtype=torch.int8)
    )
    assert main(["show", "x"]) == 1
    assert "out of memory (" in capsys.readouterr().err


def test_an_error_that_is_no_lack_of_memory_stays_a_traceback(monkeypatch):
    def fail(_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("fourfold.pipeline.commands.show.run", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["show", "x"])


def test_a_gpu_that_is_not_there_is_refused(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = _network_job(data, tmp_path, network=NETWORK, augment=AUGMENT, grid=GRID)
    arguments[arguments.index("cpu")] = "cuda"
    arguments += ["--surface", "s", "--output", "o", "--logits", "l", "--examples", "e"]
    status = main(["evaluate-grid", *arguments])
    _refused(capsys, tmp_path, status, "'cuda'", "no GPU")


# --- one evaluation, and what is made of it -------------------------------------------------------

GRID = {
    "points": 3, "edge_points": 5, "random_points": 3, "search_images": 30, "seed": 0,
    "batchnorm": "reestimated", "batchnorm_images": 50, "train_images": 20, "batch_size": 50,
    "precision": "float32",
}  # fmt: skip


def _evaluate(data, folder, surface, **grid):
    out = folder / "out"
    job = _network_job(data, folder, network=NETWORK, augment=AUGMENT, grid=GRID | grid)
    return main(
        [
            *("evaluate-grid", *job, "--surface", str(surface)),
            *("--output", str(out / "grid.parquet"), "--logits", str(out / "logits.safetensors")),
            *("--examples", str(out / "examples.safetensors")),
        ]
    )


@pytest.fixture(scope="module")
def evaluated(data, tmp_path_factory):
    """Return a folder with a linear surface through four networks, and its evaluation."""
    folder = tmp_path_factory.mktemp("evaluated")
    corners = [str(_network(folder / f"corner{seed}.safetensors", seed)) for seed in range(4)]
    assert _linear(folder, corners) == 0
    assert _evaluate(data, folder, folder / "out" / "linear.safetensors") == 0
    return folder


def test_a_point_has_one_row_a_split_whichever_splits_are_smaller_than_the_search(evaluated):
    """Train and val have no more images than the search takes, test has more."""
    table = read_table("grid", evaluated / "out" / "grid.parquet")
    assert not table.duplicated(["sample", "u", "v", "split", "statistics"]).any()
    grid = table[table["sample"] == "grid"]
    counts = grid.groupby(["statistics", "split"])["n"].agg(["count", "min", "max"])
    for split, n in (("train", 20), ("val", 30), ("test", 40)):
        assert counts.loc[("reestimated", split)].tolist() == [9, n, n]
        assert counts.loc[("own", split)].tolist() == [4, n, n]
    search = table[table["sample"] != "grid"]
    # Four edges with three points between the corners, whose midpoints are on the grid.
    points = search.drop_duplicates(["sample", "u", "v"])["sample"].value_counts()
    assert points.to_dict() == {"edge": 8, "random": 3}
    assert set(search.loc[search["split"] == "test", "n"]) == {30, 40}


def test_the_worst_points_of_the_search_and_no_others_are_evaluated_on_all_images(
    evaluated, data, tmp_path
):
    """Which they are, on each split and in both metrics, comes from a search over few images."""
    table = read_table("grid", evaluated / "out" / "grid.parquet")
    search = table[table["sample"] == "edge"]
    whole = search[search["n"] == 40]
    whole = set(zip(whole["u"], whole["v"], strict=True))
    assert 0 < len(whole) < 8
    surface = evaluated / "out" / "linear.safetensors"
    assert _evaluate(data, tmp_path, surface, search_images=None) == 0
    full = read_table("grid", tmp_path / "out" / "grid.parquet")
    key = ["sample", "u", "v", "split", "statistics", "n"]
    both = table.merge(full, on=key, suffixes=("", "_full"))
    assert len(both) == (table["n"] == table.groupby("split")["n"].transform("max")).sum()
    for metric in ("nll", "accuracy", "ece", "brier"):
        assert both[metric].tolist() == both[f"{metric}_full"].tolist()
    # On train and val the search has seen all images: its worst are the worst.
    for split in ("train", "val"):
        rows = full[(full["sample"] == "edge") & (full["split"] == split)]
        worst = rows.loc[rows["nll"].idxmax()]
        assert (worst["u"], worst["v"]) in whole


def test_barrier_and_difference_have_the_same_worst_point_where_a_split_is_smaller_than_the_search(
    evaluated,
):
    table = read_table("grid", evaluated / "out" / "grid.parquet")
    examples = Examples.load(evaluated / "out" / "examples.safetensors")
    logits = SurfaceLogits.load(evaluated / "out" / "logits.safetensors")
    places = set(zip(examples.points, examples.samples, strict=True))
    for _, rows in table.groupby("split"):
        rows = surface_rows(rows)
        assert {
            ((u, v), s) for u, v, s in zip(rows["u"], rows["v"], rows["sample"], strict=True)
        } == {place for place in places if place[1] != "own"}
    largest = measure_barriers(table).set_index(["split", "metric"])["max"]
    for row in measure_differences(logits, examples, kept=0.9):
        if row["comparison"] == "low-loss":
            metric, value = row["metric"], row["value"]
            worst = 1 - value if metric == "accuracy" else value
            expected = largest[row["split"], "error" if metric == "accuracy" else "nll"]
            assert worst == pytest.approx(expected, abs=1e-6)


def test_the_cost_of_a_grid_counts_every_image_that_passed_a_network(evaluated):
    table = read_table("grid", evaluated / "out" / "grid.parquet")
    (cost,) = read_table("cost", evaluated / "out" / "cost.parquet")["images_forward"]
    worst = table[(table["sample"] != "grid") & (table["split"] == "test") & (table["n"] == 40)]
    expected = 9 * (20 + 30 + 40 + 50) + 4 * (20 + 30 + 40)
    expected += (8 + 3) * (20 + 30 + 30 + 50) + len(worst) * (20 + 30 + 40 + 50)
    assert cost == expected


def test_logits_examples_and_grid_are_of_the_same_numbers(evaluated):
    table = read_table("grid", evaluated / "out" / "grid.parquet")
    logits = SurfaceLogits.load(evaluated / "out" / "logits.safetensors")
    examples = Examples.load(evaluated / "out" / "examples.safetensors")
    assert logits.statistics == "reestimated"
    assert logits.points == grid_points(3)
    rows = table[table["n"] == table.groupby("split")["n"].transform("max")]
    keys = ["sample", "u", "v", "statistics"]
    rows = rows.set_index([*keys, "split"]).sort_index()
    assert len(set(zip(examples.samples, examples.points, strict=True))) == len(examples.points)
    test = rows.xs("test", level="split")
    assert len(test) == len(examples.points)  # all that were evaluated on the whole of every split
    for k, (sample, point) in enumerate(zip(examples.samples, examples.points, strict=True)):
        key = ("grid", *point, "own") if sample == "own" else (sample, *point, "reestimated")
        for split in ("train", "val", "test"):
            row = rows.loc[(*key, split)]
            assert row["nll"] == pytest.approx(examples.nll[split][k].mean().item(), rel=1e-6)
            assert row["accuracy"] == examples.correct[split][k].double().mean().item()
    for split in ("val", "test"):
        of_grid = [k for k, sample in enumerate(examples.samples) if sample == "grid"]
        of_own = [k for k, sample in enumerate(examples.samples) if sample == "own"]
        for values, positions in ((logits.logits, of_grid), (logits.own, of_own)):
            found = (values[split].argmax(dim=2) == logits.labels[split]).tolist()
            assert found == examples.correct[split][positions].tolist()


def test_corners_as_trained_are_the_checkpoints(evaluated, data):
    """Loaded into a plain network, in evaluation mode."""
    logits = SurfaceLogits.load(evaluated / "out" / "logits.safetensors")
    dataset = Dataset.load(data)
    for seed in range(4):
        network = build_model("resnet18", channels=1, image_size=8, classes=10, width=2)
        network.load_state_dict(load_checkpoint(evaluated / f"corner{seed}.safetensors"))
        network.eval()
        for split in ("val", "test"):
            with torch.no_grad():
                expected = network(dataset.normalize(dataset.splits[split].images))
            torch.testing.assert_close(
                logits.own[split][seed], expected.half(), rtol=1e-3, atol=1e-4
            )


def _ensembles(folder, logits, max_members=4, surfaces=LINEAR):
    output = folder / "ensemble.parquet"
    settings = json.dumps({"ensembles": {"max_members": max_members}})
    arguments = ["--settings", settings, "--surfaces", json.dumps(surfaces)]
    arguments += ["--logits", *map(str, logits), "--output", str(output)]
    assert main(["compare-ensembles", *_job(folder), *arguments]) == 0
    return read_table("ensemble", output)


def _logits(path, surface="linear", labels=None):
    """Write the logits of 25 points, every corner far better than any other point."""
    draw, points = torch.Generator().manual_seed(0), grid_points(5)
    labels = labels or {
        name: torch.randint(10, (n,), generator=draw) for name, n in (("val", 30), ("test", 40))
    }
    logits = {name: torch.randn(25, len(of), 10, generator=draw) for name, of in labels.items()}
    own = {name: torch.randn(4, len(of), 10, generator=draw).half() for name, of in labels.items()}
    for name, of in labels.items():
        for corner in map(points.index, CORNER_COORDINATES):
            logits[name][corner] += 9 * torch.nn.functional.one_hot(of, 10)
        logits[name] = logits[name].half()
    SurfaceLogits(surface, "reestimated", points, logits, own, labels).save(path, {})
    return labels


def _points(members):
    return [tuple(map(float, member.split(","))) for member in members.split(";")]


def test_no_ensemble_but_the_oracle_is_chosen_on_test(tmp_path):
    labels = _logits(tmp_path / "linear.safetensors")
    members = []
    for order in (torch.arange(40), torch.arange(39, -1, -1)):
        shuffled = {"val": labels["val"], "test": labels["test"][order]}
        logits = SurfaceLogits.load(tmp_path / "linear.safetensors")
        replace(logits, labels=shuffled).save(tmp_path / "other.safetensors", {})
        table = _ensembles(tmp_path, [tmp_path / "other.safetensors"])
        keys = ["ensemble", "selection", "forward_passes", "split"]
        members.append(table.sort_values([*keys, "members"]).set_index(keys)["members"])
    same = members[0] == members[1]
    assert same.drop("oracle", level="selection").all()
    assert not same.xs("oracle", level="selection").all()


def test_no_corner_is_a_member_of_an_ensemble_of_points_however_good_it_is(tmp_path):
    paths = [tmp_path / f"{name}.safetensors" for name in ("linear", "bezier", "trajectory")]
    for path in paths:
        _logits(path, path.stem)
    surfaces = LINEAR | {
        "bezier": LINEAR["linear"] | {"fit": "standard"},
        "trajectory": {"corners": "trajectory", "kind": "run", "fit": None},
    }
    table = _ensembles(tmp_path, paths, max_members=5, surfaces=surfaces)
    of_corners = table["ensemble"].str.contains("corners")
    assert set(table.loc[of_corners, "ensemble"]) == {"corners", "trajectory-corners"}
    assert set(table.loc[of_corners, "statistics"]) == {"own"}
    for members in table.loc[of_corners, "members"]:
        assert set(_points(members)) <= set(CORNER_COORDINATES)
    assert set(table.loc[~of_corners, "ensemble"]) == {"linear", "bezier", "trajectory"}
    assert set(table.loc[~of_corners, "statistics"]) == {"reestimated"}
    for members in table.loc[~of_corners, "members"]:
        assert set(_points(members)).isdisjoint(CORNER_COORDINATES)


def test_members_are_as_many_on_both_sides_and_each_number_is_shown(tmp_path):
    _logits(tmp_path / "linear.safetensors")
    table = _ensembles(tmp_path, [tmp_path / "linear.safetensors"], max_members=5)
    members = table["members"].map(_points).map(len)
    assert members.tolist() == table["forward_passes"].tolist()
    found = table[table["split"] == "test"].groupby(["ensemble", "selection"])["forward_passes"]
    sizes = {key: sorted(passes) for key, passes in found}
    assert sizes[("corners", "fixed")] == [4]
    assert sizes[("corners", "subset")] == [1] * 4 + [2] * 6 + [3] * 4
    assert sizes[("linear", "fixed")] == sizes[("linear", "oracle")] == [4]
    assert sizes[("linear", "all")] == [21]  # 25 points, four of them corners
    assert sizes[("linear", "validation")] == [1, 2, 3, 4, 5]
    # The first members of a larger choice are the smaller choice.
    chosen = table[(table["selection"] == "validation") & (table["split"] == "val")]
    chosen = chosen.sort_values("forward_passes")["members"].tolist()
    assert all(more.startswith(fewer + ";") for fewer, more in pairwise(chosen))


def test_an_ensemble_of_one_corner_is_the_corner_as_trained(evaluated, tmp_path):
    grid = read_table("grid", evaluated / "out" / "grid.parquet")
    table = _ensembles(tmp_path, [evaluated / "out" / "logits.safetensors"])
    alone = table[(table["ensemble"] == "corners") & (table["forward_passes"] == 1)]
    assert len(alone) == 4 * 2
    own = grid[grid["statistics"] == "own"].set_index(["u", "v", "split"]).sort_index()
    for row in alone.itertuples():
        ((u, v),) = _points(row.members)
        expected = own.loc[(u, v, row.split)]
        assert row.accuracy == expected["accuracy"]
        assert row.nll == pytest.approx(expected["nll"], rel=1e-6)


def _differences(folder, logits, examples, kept="0.9"):
    return main(
        [
            *("measure-differences", *_job(folder), "--kept", kept),
            *("--logits", *map(str, logits), "--examples", *map(str, examples)),
            *("--output", str(folder / "out" / "difference.parquet")),
        ]
    )


@pytest.mark.parametrize("kept", ["1.5", "-0.1", "nan"])
def test_a_share_that_is_none_is_refused(kept, evaluated, tmp_path, capsys):
    files = [[evaluated / "out" / f"{name}.safetensors"] for name in ("logits", "examples")]
    _refused(capsys, tmp_path, _differences(tmp_path, *files, kept=kept), "--kept is", "[0, 1]")


def test_logits_and_examples_of_different_surfaces_are_refused(evaluated, tmp_path, capsys):
    _logits(tmp_path / "bezier.safetensors", "bezier")
    files = [tmp_path / "bezier.safetensors"], [evaluated / "out" / "examples.safetensors"]
    status = _differences(tmp_path, *files)
    _refused(capsys, tmp_path, status, "'bezier'", "one file of each")
