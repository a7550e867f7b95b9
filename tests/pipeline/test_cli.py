"""The command line: its errors are one message and exit status 1, and nothing is half-written."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import wraps

import pytest
import torch
from conftest import differing
from safetensors.torch import save_file

from fourfold.combination.differences import measure_differences
from fourfold.combination.merge import Soup, save_soups
from fourfold.data.augment import RandomShiftFlip
from fourfold.data.dataset import Dataset
from fourfold.evaluation.certificate import measure_certificates
from fourfold.evaluation.geometry import measure_barriers
from fourfold.evaluation.logits import Examples, SurfaceLogits
from fourfold.files.table import make_table, read_metadata, read_table, write_table
from fourfold.files.tensors import read_header
from fourfold.networks import build_model
from fourfold.pipeline.cli import COMMANDS, main
from fourfold.pipeline.commands import (
    _network_job,
    _training_job,
    evaluate_grid,
    fit_bezier_surface,
)
from fourfold.surfaces.checkpoint import load_checkpoint, load_trajectory, save_checkpoint
from fourfold.surfaces.points import surface_rows
from fourfold.surfaces.shapes import SQUARE
from fourfold.training.fit import fit

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
COMMON = {
    "batch_size": 32, "optimizer": SGD, "weight_decay": 5e-4, "clip_norm": None, "warmup": 0.05,
    "schedule": "cosine", "precision": "float32", "compile": False,
    "cuda_graph": False,
}  # fmt: skip
SETTINGS = {
    "network": {"name": "resnet18", "width": 2, "stem": "3x3"},
    "augment": {"shift": 1, "flip": False},
    "training": COMMON | {"epochs": 2, "keep": [0.5, 1.0], "ema": None, "classes": None},
    "fit": COMMON | {
        "phases": None, "boundary_epochs": 0, "epochs": 1, "repeats": 1, "points_per_step": 4,
        "sampler": "uniform", "decay": "point", "cosine": 0.0,
    },
    "grid": {
        "points": 3, "edge_points": 5, "random_points": 3, "search_images": 30, "seed": 0,
        "batchnorm": "reestimated", "batchnorm_images": 50, "train_images": 20, "batch_size": 50,
        "precision": "float32",
    },
    "source": {"name": "digits"},
    "split": {"by": "chance", "seed": 0, "train_images": 100, "val_images": 30, "test_images": 40},
}  # fmt: skip
LINEAR = {"corners": "independent", "kind": "seeds", "fit": None, "count": 4}
LINEAR = {"linear": LINEAR | {"shape": "square", "degree": [1, 1]}}


def command(program, folder, /, *sections, change=None, **arguments):
    """Run a command on files below `folder`; return its exit status.

    Args:
        program: the command.
        folder: outputs lie in its folder `out`, whose paths begin with `out/`.
        sections: of `SETTINGS`, that go into `--settings`.
        change: section -> keys with other values.
        arguments: further ones, `_` for `-`; lists are several values.
    """
    settings = {
        section: SETTINGS[section] | (change or {}).get(section, {}) for section in sections
    }
    given = {"settings": json.dumps(settings)} if sections else {}
    if program != "prepare-data":
        given |= {"experiment": "e", "replicate": 0, "cost": "out/cost.parquet"}
    options = []
    for key, value in (given | arguments).items():
        values = [str(one) for one in (value if isinstance(value, (list, tuple)) else [value])]
        paths = [str(folder / one) if one.startswith("out/") else one for one in values]
        options += [f"--{key.replace('_', '-')}", *paths]
    try:
        return main([program, *options])
    except SystemExit as stopped:
        return stopped.code


def prepare(folder, **change):
    return command(
        "prepare-data", folder, "source", "split", change=change, name="d", output="out/"
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder with a small prepared data set."""
    folder = tmp_path_factory.mktemp("data")
    assert prepare(folder) == 0
    return folder / "out"


@pytest.fixture
def corners(tmp_path):
    """Return the files of four small networks."""
    return [write_network(tmp_path / f"corner{seed}.safetensors", seed) for seed in range(4)]


def write_network(path, seed=0, width=2):
    torch.manual_seed(seed)
    model = build_model("resnet18", channels=1, image_size=8, classes=10, width=width)
    save_checkpoint(model.state_dict(), path)
    return path


def train(data, folder, **training):
    return command(
        "train-endpoint", folder, "network", "augment", "training", change={"training": training},
        data=data, device="cpu", name="seed0", seed=0, checkpoint="out/seed0.safetensors",
        state="out/state", trajectory="out/trajectory.safetensors", training="out/t.parquet",
        endpoints="out/e.parquet",
    )  # fmt: skip


def build_linear(folder, corners, shape='{"kind": "square", "degree": [1, 1]}'):
    return command(
        "build-linear-surface", folder, name="linear", shape=shape, corners=corners,
        output="out/linear.safetensors",
    )  # fmt: skip


def fit_surface(data, folder, corners, degree=(2, 2), free=None, **settings):
    shape = json.dumps({"kind": "square", "degree": degree})
    start = {"corners": corners} if free is None else {"free": free}
    return command(
        "fit-bezier-surface", folder, "network", "augment", "fit", change={"fit": settings},
        data=data, device="cpu", name="bezier", shape=shape, seed=0, **start,
        output="out/bezier.safetensors", training="out/t.parquet", state="out/state",
    )  # fmt: skip


def evaluate(data, folder, surface, device="cpu", **grid):
    return command(
        "evaluate-grid", folder, "network", "augment", "grid", change={"grid": grid}, data=data,
        device=device, surface=surface, output="out/grid.parquet", logits="out/logits.safetensors",
        examples="out/examples.safetensors",
    )  # fmt: skip


@pytest.fixture
def refused(tmp_path, capsys):
    """Return a check that a command ended in one message with these parts, and left no file."""

    def check(status, *said):
        message = capsys.readouterr().err
        assert status == 1
        assert len(re.findall("^error: ", message, flags=re.M)) == 1
        assert [part for part in said if part not in message] == [], message
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]

    return check


def test_every_command_explains_itself(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        assert "usage: fourfold " + name in capsys.readouterr().out


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
        ({"epochz": 3}, ["training: ", "'epochz' was unexpected", "epochs"]),
        ({"epochs": True}, ["training.epochs: True is not of type 'integer'"]),
        ({"keep": [0.5, 1.5]}, ["training.keep.1: 1.5", "maximum of 1"]),
        ({"keep": [0.9, 1.0]}, ["[0.9, 1.0]", "the same"]),
        ({"optimizer": SGD | {"lr": "1e-3"}}, ["training.optimizer.lr: '1e-3'", "write 1.0e-3"]),
        ({"optimizer": {"name": "sgd"}}, ["'lr' is a required", "'momentum' is a required"]),
        ({"optimizer": SGD | {"lr": 1e9}}, ["diverged", "lr"]),
        ({"warmup": float("nan")}, ["training.warmup: nan is not of type 'number'"]),
        ({"batch_size": 101}, ["101", "1 to 100"]),
        ({"classes": [3, 10]}, ["classes is [3, 10]", "has 10", "from 0 to 9"]),
        ({"classes": 0.01}, ["classes is 0.01", "at least one class"]),
        ({"classes": 1}, ["training.classes: 1", "maximum of 1", "null for all"]),
        ({"ema": 1.0}, ["training.ema: 1.0", "maximum of 1"]),
        ({"schedule": {"name": "swa", "start": 0.9}}, ["training.schedule", "'lr' is a required"]),
        ({"schedule": {"name": "restarts", "cycles": 30}}, ["warmup is 0.05", "first 0.0333"]),
    ],
)
def test_impossible_training_ends_in_one_message(change, said, data, tmp_path, refused):
    refused(train(data, tmp_path, **change), *said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"points_per_step": 5}, ["32", "5", "multiple"]),
        ({"sampler": "grid"}, ["fit.sampler: 'grid'", "latin-hypercube"]),
        ({"optimizer": SGD | {"lr": 1e9}}, ["diverged"]),
        ({"degree": (0, 2)}, ["[0, 2]", "1 to 20"]),
        ({"degree": (1, 1)}, ["no free control points"]),
        ({"degree": (2,)}, ["degree is [2]", "square takes 2"]),
    ],
)
def test_impossible_fits_end_in_one_message(change, said, data, tmp_path, corners, refused):
    refused(fit_surface(data, tmp_path, corners, **change), *said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": {"val_images": 0}}, ["split.val_images: 0", "minimum of 1"]),
        ({"split": {"test_images": 5000}}, ["split.test_images is 5000", "10"]),
        ({"split": {"test_images": None}}, ["null", "number"]),
        ({"split": {"vall_images": 3}}, ["'vall_images' was unexpected", "val_images"]),
        ({"source": {"name": "mnist"}}, ["source.name: 'mnist'", "tiny-imagenet"]),
    ],
)
def test_impossible_data_ends_in_one_message(change, said, tmp_path, refused):
    refused(prepare(tmp_path, **change), *said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{source", ["--settings is damaged", "line 1"]),
        ('{"source": {"name": "digits"}, "grid": {}}', ["'split' is a required", "'grid' was un"]),
        ("@nowhere.json", ["nowhere.json", "doesn't exist"]),
    ],
)
def test_settings_that_are_not_the_sections_of_the_command_are_refused(
    settings, said, tmp_path, refused
):
    status = command("prepare-data", tmp_path, name="d", settings=settings, output="out/")
    refused(status, *said)


@pytest.mark.parametrize(
    "tamper", ["missing", "extra", "nan", "wide", "nowhere", "garbage", "three"]
)
def test_damaged_corners_are_refused(tamper, tmp_path, corners, refused):
    path = corners[3]
    state = load_checkpoint(path)
    said = ["corner_11", "fc.bias"]
    if tamper == "missing":
        del state["fc.bias"]
    elif tamper == "nan":
        state["fc.bias"][3] = float("nan")
    elif tamper == "extra":
        state["fc.scale"] = torch.ones(1)
        said = ["corner_11", "fc.scale"]
    save_file(state, path)
    if tamper == "wide":
        write_network(path, width=3)
        said = ["corner_11", "conv1.weight"]
    elif tamper == "nowhere":
        path.unlink()
        said = ["no file at", path.name]
    elif tamper == "garbage":
        path.write_bytes(b"no safetensors")
        said = [path.name]
    elif tamper == "three":
        corners.pop()
        said = ["4 corners", "3 networks"]
    refused(build_linear(tmp_path, corners), *said)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("{kind", ["--shape is damaged"]),
        ("{}", ["--shape lacks ['kind']"]),
        ('{"kind": "sphere"}', ["'sphere'", "square, cube"]),
        ('{"kind": "curve", "corners": 2}', ["--shape has ['corners']"]),
        ('{"kind": "curve", "degree": [1]}', ["2 corners", "4 networks"]),
        ('{"kind": "chain", "bends": "2"}', ["--shape has '2' for 'bends'", "int"]),
    ],
)
def test_shapes_that_are_none_for_the_corners_are_refused(shape, said, tmp_path, corners, refused):
    refused(build_linear(tmp_path, corners, shape), *said)


# --- networks from elsewhere, and from the middle of a run ----------------------------------------


def import_one(data, folder, path, key=None):
    settings = {
        "network": SETTINGS["network"],
        "corners": {"kind": "files", "files": ["a.pt", "b.pt"], "key": key},
        "grid": {"batch_size": 50, "precision": "float32"},
    }
    return command(
        "import-corners", folder, settings=json.dumps(settings), data=data, device="cpu",
        name="mine-0", stated=path, checkpoint="out/mine-0.safetensors",
        endpoints="out/e.parquet",
    )  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.module.", "model._orig_mod."])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_network_from_elsewhere_comes_in_whole(prefix, suffix, data, corners, tmp_path, capsys):
    state, path = load_checkpoint(corners[0]), tmp_path / f"other.{suffix}"
    named = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    save_file(named, path) if suffix == "safetensors" else torch.save({"state_dict": named}, path)
    assert import_one(data, tmp_path, path) == 0
    assert differing(load_checkpoint(tmp_path / "out" / "mine-0.safetensors"), state) == []
    said = capsys.readouterr().err
    assert (f"all names began with {prefix!r}" in said) == bool(prefix)
    table = read_table("endpoints", tmp_path / "out" / "e.parquet")
    assert table["split"].tolist() == ["val", "test"]
    header = read_header(tmp_path / "out" / "mine-0.safetensors")
    assert header["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "fc.bias"}, ["lack 'fc.bias'"]),
        (lambda s: s | {"fc.scale": torch.ones(1)}, ["add 'fc.scale'"]),
        (lambda s: s | {"fc.bias": torch.ones(7)}, ["size mismatch for fc.bias"]),
        (lambda s: {f"net.{k}": v for k, v in s.items()}, ["net.conv1.weight", "conv1.weight"]),
        (lambda s: {"epoch": 3}, ["holds no state dict"]),
    ],
)
def test_a_network_of_another_kind_is_refused_with_the_names(
    tamper, said, data, corners, tmp_path, refused
):
    path = tmp_path / "other.pt"
    torch.save(tamper(load_checkpoint(corners[0])), path)
    refused(import_one(data, tmp_path, path), "other.pt", *said)


def fork(data, folder, epoch, trajectory):
    settings = {key: SETTINGS[key] for key in ("network", "augment", "training")}
    return command(
        "train-fork", folder, settings=json.dumps(settings), data=data, device="cpu", seed=1,
        name="forked-1", checkpoint="out/forked-1.safetensors", state="out/state", epoch=epoch,
        trajectory=trajectory, training="out/t.parquet", endpoints="out/e.parquet",
    )  # fmt: skip


def test_a_run_keeps_its_average_beside_its_networks(data, tmp_path):
    for folder, ema in (("without", None), ("with", 0.9)):
        assert train(data, tmp_path / folder, ema=ema) == 0
    alone, beside = (
        load_trajectory(tmp_path / folder / "out" / "trajectory.safetensors")
        for folder in ("without", "with")
    )
    assert list(alone) == [1, 2]
    assert list(beside) == [1, 2, "ema"]
    for epoch, state in alone.items():
        assert differing(state, beside[epoch]) == []
    assert differing(beside["ema"], beside[2])


def test_corners_fit_and_grid_see_images_in_one_way(data, tmp_path, corners, monkeypatch):
    """Else the surface is worse than its corners, or better, for what it was shown."""
    seen, modules = {}, {"train": _training_job, "fit": fit_bezier_surface}
    modules |= {"evaluate_points": evaluate_grid}
    for name, module in modules.items():

        @wraps(called := getattr(module, name))
        def recorded(*given, name=name, called=called, **settings):
            seen[name] = settings["augment"], settings["preprocess"]
            return called(*given, **settings)

        monkeypatch.setattr(module, name, recorded)
    assert train(data, tmp_path) == 0
    assert fit_surface(data, tmp_path, corners) == 0
    assert evaluate(data, tmp_path, tmp_path / "out" / "bezier.safetensors") == 0
    images = Dataset.load(data).splits["test"].images[:5]
    assert list(seen) == list(modules)
    for augment, preprocess in seen.values():
        assert isinstance(augment, RandomShiftFlip)
        assert vars(augment) == SETTINGS["augment"]
        assert torch.equal(preprocess(images), seen["train"][1](images))
        assert not torch.equal(preprocess(images), images)


def test_a_run_on_some_classes_sees_their_train_images_alone(data, tmp_path, monkeypatch):
    seen, labels = [], Dataset.load(data).splits["train"].labels

    @wraps(_training_job.train)
    def recorded(model, images, targets, **settings):
        seen.append(targets)
        return trained(model, images, targets, **settings)

    trained = _training_job.train
    monkeypatch.setattr(_training_job, "train", recorded)
    for folder, classes in (("half", 0.5), ("listed", [4, 2, 0, 1, 3])):
        assert train(data, tmp_path / folder, classes=classes) == 0
    half, listed = (
        load_checkpoint(tmp_path / folder / "out" / "seed0.safetensors")
        for folder in ("half", "listed")
    )
    assert all(torch.equal(targets, labels[labels < 5]) for targets in seen)
    assert differing(half, listed) == []
    table = read_table("training", tmp_path / "half" / "out" / "t.parquet")
    assert table[table["split"] == "train"]["images_seen"].max() == 2 * (len(seen[0]) // 32 * 32)
    endpoints = read_table("endpoints", tmp_path / "half" / "out" / "e.parquet")
    assert set(endpoints["n"]) == {100, 30, 40}


def test_a_fork_where_nothing_was_kept_is_refused(data, tmp_path, refused, capsys):
    ancestor = tmp_path / "ancestor"
    assert train(data, ancestor, epochs=4, keep=[0.5, 1.0]) == 0
    capsys.readouterr()
    for epoch in (1, 2):  # the run of the settings has two
        status = fork(data, tmp_path, epoch, ancestor / "out" / "trajectory.safetensors")
        refused(status, f"--epoch is {epoch}", "the epochs [2, 4]", "goes to 2")


def test_four_times_one_network_is_refused(tmp_path, corners, refused):
    refused(build_linear(tmp_path, corners[:1] * 4), "are one network", "4 different networks")


def test_a_model_of_another_architecture_is_refused(data, tmp_path, refused):
    wide = [write_network(tmp_path / f"{seed}.safetensors", seed, width=3) for seed in range(4)]
    refused(fit_surface(data, tmp_path, wide), "architecture")


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
def test_a_lack_of_memory_ends_in_one_message(error, data, tmp_path, corners, refused, monkeypatch):
    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr("fourfold.pipeline.commands.fit_bezier_surface.fit", wraps(fit)(fail))
    status = fit_surface(data, tmp_path, corners)
    lower = ("batch_size", "grid.batch_size", "points_per_step", "bfloat16", "--resources gpu=1")
    refused(status, "out of memory (", *lower)


def test_more_memory_than_there_is_ends_in_one_message(capsys, monkeypatch):
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


@pytest.mark.parametrize(("device", "said"), [("cuda", "no GPU"), ("gpu", "auto, cpu or cuda")])
def test_a_device_that_is_not_there_is_refused(device, said, data, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(evaluate(data, tmp_path, "s", device=device), f"'{device}'", said)


def test_which_of_several_equal_devices_ran_a_job_is_in_no_table(
    data, tmp_path, corners, monkeypatch
):
    """Two runs would differ by it; here of a CPU, which has a number for PyTorch as well."""
    chosen = torch.device("cpu", 0)
    monkeypatch.setattr(_network_job, "choose_device", lambda name: chosen)
    assert build_linear(tmp_path, corners) == 0
    assert evaluate(data, tmp_path, "out/linear.safetensors") == 0
    for name in ("grid", "cost"):
        assert read_metadata(tmp_path / "out" / f"{name}.parquet")["device"] == "cpu"
    assert read_table("cost", tmp_path / "out" / "cost.parquet")["device"].tolist() == ["cpu"]


# --- one evaluation, and what is made of it -------------------------------------------------------


@pytest.fixture(scope="module")
def evaluated(data, tmp_path_factory):
    """Return a folder with four networks, the linear surface through them, and its evaluation."""
    folder = tmp_path_factory.mktemp("evaluated")
    corners = [write_network(folder / f"out/corner{seed}.safetensors", seed) for seed in range(4)]
    assert build_linear(folder, corners) == 0
    assert evaluate(data, folder, "out/linear.safetensors") == 0
    return folder / "out"


@pytest.fixture(scope="module")
def table(evaluated):
    return read_table("grid", evaluated / "grid.parquet")


@pytest.fixture(scope="module")
def examples(evaluated):
    return Examples.load(evaluated / "examples.safetensors")


@pytest.fixture(scope="module")
def logits(evaluated):
    return SurfaceLogits.load(evaluated / "logits.safetensors")


def test_a_point_has_one_row_a_split_whichever_splits_are_smaller_than_the_search(table):
    """Train and val have no more images than the search takes, test has more."""
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
    table, evaluated, data, tmp_path
):
    """Which they are, on each split and in both metrics, comes from a search over few images."""
    search = table[table["sample"] == "edge"]
    whole = search[search["n"] == 40]
    whole = set(zip(whole["u"], whole["v"], strict=True))
    assert 0 < len(whole) < 8
    assert evaluate(data, tmp_path, evaluated / "linear.safetensors", search_images=None) == 0
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


@pytest.mark.parametrize(
    ("batchnorm", "said"), [("repaired", "without BatchNorm"), ("own", "grid.batchnorm: 'own'")]
)
def test_statistics_that_a_network_can_not_have_are_refused(
    batchnorm, said, evaluated, data, tmp_path, refused
):
    surface = evaluated / "linear.safetensors"
    refused(evaluate(data, tmp_path, surface, batchnorm=batchnorm), said)


def test_random_points_are_evaluated_on_all_of_val_and_certify_it(evaluated, data, tmp_path):
    """On train and test, as at edges, the worst ones of a search alone."""
    few = {"search_images": 10, "random_points": 15}
    assert evaluate(data, tmp_path, evaluated / "linear.safetensors", **few) == 0
    table = read_table("grid", tmp_path / "out" / "grid.parquet")
    assert not table.duplicated(["sample", "u", "v", "split", "statistics"]).any()
    sizes = table[table["sample"] != "grid"].groupby(["sample", "split"])["n"].agg(set)
    assert sizes.pop(("random", "val")) == {30}
    assert all(10 in found for found in sizes)
    certified = measure_certificates(table)
    worst = table[(table["sample"] == "random") & (table["split"] == "val")]["nll"].max()
    assert certified[["split", "points", "rank"]].drop_duplicates().to_numpy().tolist() == [
        ["val", 15, 1]
    ]
    assert certified["value"].iloc[0] == worst


def test_barrier_and_difference_have_the_same_worst_point_where_a_split_is_smaller_than_the_search(
    table, examples, logits
):
    places = {p for p in zip(examples.points, examples.samples, strict=True) if p[1] != "own"}
    for split, rows in table.groupby("split"):
        rows = surface_rows(rows)
        found = {((u, v), s) for u, v, s in zip(rows["u"], rows["v"], rows["sample"], strict=True)}
        assert places <= found
        assert {(split, sample) for _, sample in found - places} <= {("val", "random")}
    largest = measure_barriers(table).set_index(["split", "metric"])["max"]
    for row in measure_differences(logits, examples, kept=0.9):
        if row["comparison"] == "low-loss":
            metric, value = row["metric"], row["value"]
            worst = 1 - value if metric == "accuracy" else value
            expected = largest[row["split"], "error" if metric == "accuracy" else "nll"]
            assert worst == pytest.approx(expected, abs=1e-6)


def test_the_cost_of_a_grid_counts_every_image_that_passed_a_network(table, evaluated):
    (cost,) = read_table("cost", evaluated / "cost.parquet")["images_forward"]
    worst = table[(table["sample"] != "grid") & (table["split"] == "test") & (table["n"] == 40)]
    expected = 9 * (20 + 30 + 40 + 50) + 4 * (20 + 30 + 40)
    expected += (8 + 3) * (20 + 30 + 30 + 50) + len(worst) * (20 + 30 + 40 + 50)
    assert cost == expected


def test_logits_examples_and_grid_are_of_the_same_numbers(table, examples, logits):
    assert logits.statistics == "reestimated"
    assert logits.points == SQUARE.lattice(3)
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


def write_logits(path, surface="linear"):
    """Write logits of 25 points; return the labels."""
    draw = torch.Generator().manual_seed(0)
    labels = {
        name: torch.randint(10, (n,), generator=draw) for name, n in (("val", 30), ("test", 40))
    }
    logits, own = (
        {name: torch.randn(k, len(of), 10, generator=draw).half() for name, of in labels.items()}
        for k in (25, 4)
    )
    SurfaceLogits(
        surface=surface, shape=SQUARE, statistics="reestimated", points=SQUARE.lattice(5),
        logits=logits, own=own, labels=labels,
    ).save(path, {})  # fmt: skip
    return labels


def write_tables_of_logits(folder):
    """Write the grid and the cost tables that go with `write_logits`; return the arguments."""
    row = {"surface": "linear", "sample": "grid", "w": None, "split": "val", "n": 30}
    row |= dict.fromkeys(("nll", "accuracy", "ece", "brier"), 0.5)
    row |= {"statistics": "reestimated", "statistics_images": 5}
    grid = [row | {"u": u, "v": v} for u, v in SQUARE.lattice(5)]
    row = {"stage": "train_endpoint", "device": "cpu", "wall_s": 1.0, "flop": 1.0, "peak_bytes": 1}
    row |= {"images_forward": 10, "images_backward": 10}
    paths = {}
    for name, rows in (("grid", grid), ("cost", [row | {"item": f"seed{k}"} for k in range(4)])):
        paths[f"{name}s"] = folder / f"{name}.parquet"
        table = make_table(name, rows, experiment="e", replicate=0)
        write_table(name, table, paths[f"{name}s"])
    return paths


def test_no_ensemble_but_the_oracle_is_chosen_on_test(tmp_path):
    labels, path = write_logits(tmp_path / "linear.safetensors"), tmp_path / "other.safetensors"
    soups, members = tmp_path / "soups.safetensors", []
    save_soups({"independent": Soup([0], {})}, soups, {})
    for order in (torch.arange(40), torch.arange(39, -1, -1)):
        shuffled = {"val": labels["val"], "test": labels["test"][order]}
        replace(SurfaceLogits.load(tmp_path / "linear.safetensors"), labels=shuffled).save(path, {})
        status = command(
            "compare-ensembles", tmp_path, settings='{"ensembles": {"max_members": 4}}',
            surfaces=json.dumps(LINEAR), logits=path, soups=soups,
            **write_tables_of_logits(tmp_path),
            **{name: f"out/{name}.parquet" for name in ("ensemble", "rival", "pick")},
            rival_difference="out/rival_difference.parquet",
        )  # fmt: skip
        assert status == 0
        rivals = read_table("rival", tmp_path / "out" / "rival.parquet").set_index("method")
        assert (rivals.loc["linear/best-point", "images_forward"] == 4 * 10 + 21 * (30 + 5)).all()
        assert len(read_table("pick", tmp_path / "out" / "pick.parquet")) == 4
        table = read_table("ensemble", tmp_path / "out" / "ensemble.parquet")
        keys = ["ensemble", "selection", "forward_passes", "split"]
        members.append(table.sort_values([*keys, "members"]).set_index(keys)["members"])
    same = members[0] == members[1]
    assert same.drop("oracle", level="selection").all()
    assert not same.xs("oracle", level="selection").all()


def differences_of(folder, logits, examples, kept=0.9):
    return command(
        "measure-differences", folder, kept=kept, logits=logits, examples=examples,
        output="out/difference.parquet",
    )  # fmt: skip


@pytest.mark.parametrize("kept", ["1.5", "nan", "half"])
def test_a_share_that_is_none_is_refused(kept, evaluated, tmp_path, refused):
    files = [evaluated / f"{name}.safetensors" for name in ("logits", "examples")]
    refused(differences_of(tmp_path, *files, kept=kept), "--kept", kept)


def test_logits_and_examples_of_different_surfaces_are_refused(evaluated, tmp_path, refused):
    write_logits(tmp_path / "bezier.safetensors", "bezier")
    status = differences_of(
        tmp_path, tmp_path / "bezier.safetensors", evaluated / "examples.safetensors"
    )
    refused(status, "'bezier'", "one file of each")


@pytest.mark.parametrize("command", [["params", "e"], ["export", "e", "--output", "shared"]])
def test_outside_of_a_project_a_command_says_where_to_go(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no file at params.yaml; go to the folder of a project, or make")
    assert list(tmp_path.iterdir()) == []
