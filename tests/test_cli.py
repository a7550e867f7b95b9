"""The command line: its errors are one message and exit status 1, and nothing is half-written."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from fourfold.checkpoint import save_checkpoint
from fourfold.cli import COMMANDS, main
from fourfold.logits import SurfaceLogits
from fourfold.models import build_model
from fourfold.table import read_table

MODEL = {"name": "resnet18", "width": 2, "stem": "3x3"}
AUGMENT = {"shift": 1, "flip": False}
ENDPOINT = {"epochs": 2, "batch_size": 32, "lr": 0.1, "checkpoints": [1, 2]}
BEZIER = {"degree": [2, 2], "epochs": 1, "batch_size": 32, "points_per_step": 4, "lr": 0.1}
SPLIT = {"seed": 0, "train_images": 100, "val_images": 30, "test_images": 40}


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


def _job(data, folder, settings):
    return [
        *("--experiment", "e", "--replicate", "0", "--data", str(data), "--device", "cpu"),
        *("--settings", json.dumps(settings), "--cost", str(folder / "out" / "cost.parquet")),
    ]


def _train(data, folder, endpoint):
    out = folder / "out"
    settings = {"model": MODEL, "augment": AUGMENT, "endpoint": endpoint}
    return main(
        [
            "train-endpoint",
            *_job(data, folder, settings),
            "--seed",
            "0",
            "--checkpoint",
            str(out / "seed0.safetensors"),
            "--trajectory",
            str(out / "trajectory"),
            "--training",
            str(out / "t.parquet"),
            "--endpoints",
            str(out / "e.parquet"),
            "--state",
            str(out / "state"),
        ]
    )


def _linear(data, folder, corners):
    return main(
        [
            "build-linear-surface",
            *_job(data, folder, {"model": MODEL}),
            "--corners",
            *corners,
            "--output",
            str(folder / "out" / "linear.safetensors"),
        ]
    )


def _fit(data, folder, corners, bezier):
    settings = {"model": MODEL, "augment": AUGMENT, "bezier": bezier}
    return main(
        [
            "fit-bezier-surface",
            *_job(data, folder, settings),
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
    assert message.count("error: ") == 1
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
    commands = "fourfold.commands.plot_figures, fourfold.commands.summarize"
    code = f"import sys, {commands}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochz": 3}, ["endpoint.epochz", "epochs"]),
        ({"epochs": -1}, ["-1", "checkpoints"]),
        ({"checkpoints": [1, 9]}, ["[1, 9]", "1 to 2"]),
        ({"lr": 0}, ["lr is 0", "positive"]),
        ({"optimizer": "sdg"}, ["'sdg'", "sgd"]),
        ({"schedule": "cosin"}, ["'cosin'", "cosine"]),
        ({"batch_size": 101}, ["101", "1 to 100"]),
        ({"lr": 1e9}, ["diverged", "lr"]),
    ],
)
def test_impossible_training_ends_in_one_message(change, said, data, tmp_path, capsys):
    _refused(capsys, tmp_path, _train(data, tmp_path, ENDPOINT | change), *said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"degree": [0, 2]}, ["[0, 2]", "1 to 20"]),
        ({"degree": [1, 1]}, ["(1, 1)", "no free control points", "(2, 2)"]),
        ({"epochs": -2}, ["epochs is -2", "0 or more"]),
        ({"points_per_step": 5}, ["32", "5", "multiple"]),
        ({"sampler": "grid"}, ["'grid'", "latin-hypercube"]),
        ({"lr": 1e9}, ["diverged"]),
    ],
)
def test_impossible_fits_end_in_one_message(change, said, data, tmp_path, corners, capsys):
    _refused(capsys, tmp_path, _fit(data, tmp_path, corners, BEZIER | change), *said)


def test_three_corners_are_refused(data, tmp_path, corners, capsys):
    _refused(capsys, tmp_path, _linear(data, tmp_path, corners[:3]), "4 corners", "got 3")


def test_corners_of_different_architectures_are_refused(data, tmp_path, corners, capsys):
    corners[2] = str(_network(tmp_path / "wide.safetensors", width=3))
    _refused(capsys, tmp_path, _linear(data, tmp_path, corners), "corner_10", "conv1.weight")


@pytest.mark.parametrize("tamper", ["missing", "extra", "nan"])
def test_damaged_corners_are_refused(tamper, data, tmp_path, corners, capsys):
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
    _refused(capsys, tmp_path, _linear(data, tmp_path, corners), "corner_11", name)


def test_a_missing_or_foreign_file_is_refused(data, tmp_path, corners, capsys):
    missing = str(tmp_path / "nowhere.safetensors")
    _refused(capsys, tmp_path, _linear(data, tmp_path, [*corners[:3], missing]), "no file at")
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"no safetensors")
    _refused(capsys, tmp_path, _linear(data, tmp_path, [*corners[:3], str(garbage)]), "garbage")


def test_a_model_of_another_architecture_is_refused(data, tmp_path, capsys):
    wide = [str(_network(tmp_path / f"{seed}.safetensors", seed, width=3)) for seed in range(4)]
    _refused(capsys, tmp_path, _fit(data, tmp_path, wide, BEZIER), "architecture")


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"val_images": 0}, ["split.val_images is 0", "10"]),
        ({"test_images": 5000}, ["split.test_images is 5000", "1797"]),
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


def test_a_gpu_that_is_not_there_is_refused(data, tmp_path, corners, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = _job(data, tmp_path, {"model": MODEL})
    arguments[arguments.index("cpu")] = "cuda"
    status = main(
        [
            *("build-linear-surface", *arguments, "--corners", *corners),
            *("--output", str(tmp_path / "out" / "linear.safetensors")),
        ]
    )
    _refused(capsys, tmp_path, status, "'cuda'", "no GPU")


def test_no_ensemble_but_the_oracle_is_chosen_on_test(data, tmp_path):
    torch.manual_seed(0)
    points = [(i / 2, j / 2) for i in range(3) for j in range(3)]
    labels = {"val": torch.randint(10, (30,)), "test": torch.randint(10, (40,))}
    logits = {name: torch.randn(9, len(of), 10).half() for name, of in labels.items()}
    members = []
    for order in (torch.arange(40), torch.randperm(40)):
        shuffled = {"val": labels["val"], "test": labels["test"][order]}
        path = tmp_path / "linear.safetensors"
        SurfaceLogits("linear", points, logits, shuffled).save(path, {})
        output = tmp_path / "ensemble.parquet"
        settings = {"model": MODEL, "ensemble": {"max_members": 4}}
        status = main(
            [
                "compare-ensembles",
                *_job(data, tmp_path, settings),
                "--logits",
                str(path),
                "--output",
                str(output),
            ]
        )
        assert status == 0
        table = read_table("ensemble", output)
        members.append(table.set_index(["ensemble", "selection", "split"])["members"])
    same = members[0] == members[1]
    assert same.drop("oracle", level="selection").all()
    assert not same.xs("oracle", level="selection").all()
