"""`fourfold init`; that it runs what the repository runs: tests/pipeline/test_workflow.py."""

import argparse
import re
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from project import ROOT

from fourfold import __version__
from fourfold.networks import build_model
from fourfold.pipeline.cli import main
from fourfold.pipeline.commands.init import _splits, insert_parts, own_parts, project_stages
from fourfold.pipeline.params_check import check_params
from fourfold.pipeline.project import snakefile
from fourfold.surfaces.checkpoint import load_into

PARAMS = (ROOT / "params.yaml").read_text()
RUN = re.compile(r"^run: .*?]", re.MULTILINE)
ARCHITECTURE, CLASSES, SIZE = "squeezenet1_1", 3, 32


def test_a_project_has_no_rules_of_its_own(tmp_path):
    assert snakefile() == str(ROOT / "Snakefile")
    assert main(["init", str(tmp_path / "project")]) == 0
    assert list(tmp_path.rglob("*.smk")) == []


def test_a_project_starts_from_the_repositorys_files(tmp_path):
    project = tmp_path / "project"
    assert main(["init", str(project), "--experiments", "digits-vit", "cifar10-vit"]) == 0
    for name in ("profiles", "workflow/profiles", ".dvcignore", ".gitignore", ".dvc/config"):
        copied, original = project / name, ROOT / name
        files = original.rglob("*.*") if original.is_dir() else [original]
        assert copied.exists()
        for file in files:
            assert (copied / file.relative_to(original)).read_bytes() == file.read_bytes()
    assert (project / "requirements.txt").read_text() == f"fourfold[pipeline]=={__version__}\n"
    expected = RUN.sub("run: [digits-vit, cifar10-vit]", PARAMS)
    assert (project / "params.yaml").read_text() == expected


def test_stages_of_a_project_differ_in_the_code_that_they_depend_on():
    text = (ROOT / "dvc.yaml").read_text()
    ours, theirs = yaml.safe_load(text)["stages"], yaml.safe_load(project_stages(text))["stages"]
    code = {"workflow", "workflow/rules", "src/fourfold"}
    for name, stage in ours.items():
        deps = theirs[name].pop("deps")
        assert set(deps) == set(stage.pop("deps")) - code | {"requirements.txt"}
    assert theirs == ours


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Return a folder with checkpoints, one of another width, and images in both layouts."""
    folder = tmp_path_factory.mktemp("own")
    for k in range(9):
        classes = CLASSES + (k == 8)
        settings = {"architecture": ARCHITECTURE, "image_size": SIZE, "classes": classes}
        network = build_model("torchvision", channels=3, **settings)
        torch.save({"state_dict": network.state_dict()}, folder / f"{k}.pt")
    image = Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8))
    for split in ("drawn", "split/train", "split/val"):
        for k in range(CLASSES * 5):
            path = folder / split / f"class-{k % CLASSES}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return folder


def init(own, folder, files, **changes):
    """Run `fourfold init --from-files`; a change to None leaves the option out."""
    options = {"architecture": ARCHITECTURE, "images": own / "drawn", "size": SIZE} | changes
    given = [x for k, v in options.items() if v is not None for x in (f"--{k}", str(v))]
    return main(["init", str(folder), "--from-files", *map(str, paths(own, files)), *given])


def paths(own, files):
    return [own / (f"{k}.pt" if isinstance(k, int) else k) for k in files]


def test_files_become_a_project(own, tmp_path):
    assert init(own, tmp_path / "p", range(4)) == 0
    text = (tmp_path / "p" / "params.yaml").read_text()
    parts = own_parts(paths(own, range(4)), ARCHITECTURE, own / "drawn", SIZE, None)
    assert text == RUN.sub("run: [mine]", insert_parts(PARAMS, parts))


@pytest.mark.parametrize(
    ("count", "shape", "images"),
    [(2, "curve", "drawn"), (3, "triangle", "split"), (4, "square", "drawn"), (8, "cube", "split")],
)
def test_files_become_an_experiment_that_can_be_run(own, count, shape, images):
    files, folder = paths(own, range(count)), own / images
    parts = own_parts(files, ARCHITECTURE, folder, SIZE, None)
    params = yaml.safe_load(insert_parts(PARAMS, parts))
    params |= {"run": ["mine"], "experiments": {"mine": params["experiments"]["mine"]}}
    experiment = check_params(params)["mine"]
    stated = {"kind": "files", "files": [str(file) for file in files], "key": None}
    assert experiment["corners"]["mine"] == stated
    assert {one["shape"] for one in experiment["surfaces"].values()} == {shape}
    dataset, is_split = params["datasets"]["mine"], images == "split"
    assert dataset["source"]["train"] == str(folder / "train" if is_split else folder)
    assert dataset["source"]["test"] == (str(folder / "val") if is_split else None)
    assert dataset["split"]["val_images"] == 3  # a fifth
    assert dataset["split"]["test_images"] == (None if is_split else 3)


# Of each timm: whether the size of its images is fixed, so that `img_size` says another.
TIMM = {"test_resnet": False, "test_vit": True}


@pytest.fixture(scope="module")
def of_timm(tmp_path_factory):
    """Return a folder with checkpoints of networks of timm, as its training script writes them."""
    folder = tmp_path_factory.mktemp("timm")
    for name, is_fixed in TIMM.items():
        for size in (SIZE, 160):
            settings = {"architecture": name, "image_size": size, "classes": CLASSES}
            if is_fixed:
                settings["arguments"] = {"img_size": size}
            for k in range(4):
                state = build_model("timm", channels=3, **settings).state_dict()
                saved = {"epoch": 9, "arch": name, "args": argparse.Namespace(lr=0.1)}
                torch.save(saved | {"state_dict": state}, folder / f"{name}-{size}-{k}.pth.tar")
    return folder


@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize("name", TIMM)
def test_files_of_timm_become_a_project_with_timms_size_and_normalization(
    name, size, own, of_timm, tmp_path
):
    files = [of_timm / f"{name}-{size or 160}-{k}.pth.tar" for k in range(4)]
    folder = tmp_path / "p"
    assert init(own, folder, files, architecture=f"timm:{name}", size=size) == 0
    params = yaml.safe_load((folder / "params.yaml").read_text())
    experiment = check_params(params)["mine"]
    assert params["datasets"]["mine"]["source"]["size"] == (size or 160)
    network = dict(experiment["network"])
    half = [0.5, 0.5, 0.5]  # as timm has it of these, where torchvision's have ImageNet's
    assert network.pop("normalize") == {"mean": half, "std": half}
    stated = {"name": "timm", "architecture": name}
    if size and TIMM[name]:
        stated["arguments"] = {"img_size": size}
    assert network == stated
    model = build_model(channels=3, image_size=size or 160, classes=CLASSES, **network)
    for file in experiment["corners"]["mine"]["files"]:
        load_into(model, file)
    assert re.search(r"^timm==\d", (folder / "requirements.txt").read_text(), re.MULTILINE)


def test_without_timm_a_network_of_it_is_refused(own, of_timm, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    files = sorted(of_timm.glob("test_resnet-32-*"))
    assert init(own, tmp_path / "p", files, architecture="timm:test_resnet") == 1
    assert "pip install timm" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folders", "train", "test", "unused"),
    [
        (["train", "val", "test"], "train", "test", "val"),
        (["Train", "valid"], "Train", "valid", None),
        (["training", "validation"], "training", "validation", None),
        (["train"], "", None, None),
        (["cat", "dog"], "", None, None),
    ],
)
def test_splits_are_found_by_their_usual_names(folders, train, test, unused, tmp_path, capsys):
    for name in folders:
        (tmp_path / name).mkdir()
    assert _splits(tmp_path) == (tmp_path / train, test and tmp_path / test)
    note = capsys.readouterr().err
    assert (f"{tmp_path / unused} isn't used" in note) if unused else not note


@pytest.mark.parametrize(
    ("files", "changes", "said"),
    [
        (range(5), {}, "has 5 files"),
        ((0, 1, 2, 2), {}, "a file twice"),
        ((0, 1, 2, 8), {}, "8.pt"),
        ((0, 1, 2, 9), {}, "no file at"),
        (range(4), {"size": None, "images": None}, "needs --images and --size"),
        (range(4), {"architecture": "squeezenet"}, "did you mean squeezenet"),
        (range(4), {"architecture": "timm:resnt18"}, "did you mean resnet18"),
        (range(4), {"architecture": "timm:resnet18.x"}, "Invalid pretrained tag (x)"),
        (range(4), {"architecture": "timm:test_resnet"}, "0.pt"),
        (range(4), {"architecture": "timm:test_vit", "size": 8}, "timm's test_vit"),
        (range(4), {"architecture": "timm:test_resnet", "size": 0}, "--size is 0"),
        (range(4), {"images": "nowhere"}, "no folder at"),
        (range(4), {"size": 0}, "--size is 0"),
        (range(4), {"key": "ema"}, "ema"),
        ((), {}, "expected at least one argument"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_written(
    own, tmp_path, capsys, files, changes, said
):
    folder = tmp_path / "p"
    try:
        status = init(own, folder, files, **changes)
    except SystemExit as exit:
        status = exit.code
    assert status == 1
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    assert said in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["full"], "isn't empty"),
        (["."], "the folder that you are in"),
        (["p", "--experiments", "digits"], "choose from digits-vgg16"),
        (["p", "--size", "32"], "--size given without --from-files"),
    ],
)
def test_a_project_is_new_and_of_known_experiments(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert main(["init", *arguments]) == 1
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
