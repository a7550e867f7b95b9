"""Laws of shared folders: what comes back predicts as what went in; nothing in it is trusted."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import (
    CHOSEN,
    CLASSES,
    NETWORKS,
    SIZE,
    input_of,
    make_corners,
    make_images,
    move_free_points,
)
from conftest import logits_of as logits_of_state
from torch.testing import assert_close

import fourfold as ff
from fourfold.data.augment import RandomShiftFlip
from fourfold.errors import InputError
from fourfold.files.tensors import load_tensors

IMAGES, _ = make_images(40)
AUGMENT = RandomShiftFlip(shift=1, flip=True)
BUILDER = {"name": "resnet18", "width": 2}
SHARED = {"classes": ["a", "b", "c"], "image_shape": (1, SIZE, SIZE)}
WITH_STATISTICS = {"images": IMAGES, "augment": AUGMENT, "seed": 3, "batch_size": 16}
OTHER = (0.3, 0.55)  # no point of a grid of 3 x 3


def surface_of(name, **settings):
    corners = make_corners(name)
    return move_free_points(
        ff.Surface.from_corners(corners, buffers=CHOSEN.get(name), **settings), seed=1
    )


def export(folder, name="resnet18", surface=None, **changes):
    given = {"points": 3, **WITH_STATISTICS, **SHARED, **changes}
    ff.export_surface(surface or surface_of(name), folder, NETWORKS[name](), **given)
    return folder


def expected(surface, name, point):
    """Return what the network at a point, its statistics re-estimated, says of the images."""
    network = NETWORKS[name]()
    network.load_state_dict(surface.state_dict(*point))
    how = {key: WITH_STATISTICS[key] for key in ("augment", "seed", "batch_size")}
    ff.reestimate_batchnorm(network, IMAGES, preprocess=input_of(network), **how)
    return ff.predict(network, IMAGES, preprocess=input_of(network))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return export(tmp_path_factory.mktemp("zoo") / "resnet18", network=BUILDER)


@pytest.fixture
def folder(shared, tmp_path):
    """Return a copy of a shared folder, to be changed."""
    for file in shared.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", NETWORKS)
def test_a_corner_is_its_checkpoint_and_a_point_is_that_of_the_surface(name, tmp_path):
    surface = surface_of(name)
    export(tmp_path, name, surface)
    again = ff.load_surface(tmp_path)
    assert torch.equal(again.control_points, surface.control_points)
    for corner, state in zip(surface.shape.corner_coordinates, make_corners(name), strict=True):
        network = ff.load_network(tmp_path, *corner, model=NETWORKS[name]())
        found = network(IMAGES).detach()
        assert_close(found, logits_of_state(name, state, IMAGES), atol=1e-5, rtol=0)
    for point in ((0.5, 0.5), (0.0, 0.5 + 1e-12), OTHER):
        network = ff.load_network(tmp_path, *point, model=NETWORKS[name](), images=IMAGES)
        assert not network.training
        found = network(IMAGES).detach().float()
        assert_close(found, expected(surface, name, point), atol=1e-4, rtol=1e-4)


def test_statistics_that_are_not_there_are_asked_for(shared):
    with pytest.raises(InputError, match=r"no BatchNorm statistics for \(0.3, 0.55\).*0.5, 0.5"):
        ff.load_network(shared, *OTHER)
    assert ff.load_network(shared, *OTHER, images=IMAGES).statistics == "reestimated"
    assert ff.load_network(shared, 0.5, 0.5).statistics == "reestimated"
    assert ff.load_network(shared, 1, 1).statistics == "own"


def test_corners_that_a_fit_moved_have_statistics_like_all_points(tmp_path):
    surface = surface_of("batchnorm", train_corners=True)
    export(tmp_path, "batchnorm", surface)
    network = ff.load_network(tmp_path, 0, 1, model=NETWORKS["batchnorm"]())
    assert_close(network(IMAGES).detach(), expected(surface, "batchnorm", (0, 1)))


def brighter(images, generator):
    return images // 2 + 127


class Brighter(RandomShiftFlip):
    def __call__(self, images, generator):
        return brighter(super().__call__(images, generator), generator)


@pytest.mark.parametrize("brighter", [brighter, Brighter(shift=1, flip=True)])
def test_an_augmentation_that_no_file_can_hold_is_asked_for(brighter, tmp_path):
    export(tmp_path, network=BUILDER, augment=brighter)
    ff.load_network(tmp_path, 0.5, 0.5)
    with pytest.raises(InputError, match="augment="):
        ff.load_network(tmp_path, *OTHER, images=IMAGES)
    ff.load_network(tmp_path, *OTHER, images=IMAGES, augment=brighter)


def test_images_are_bytes_or_floats_and_normalized_as_stated(tmp_path):
    normalize = {"mean": [0.4], "std": [0.3]}
    network = ff.load_network(export(tmp_path, network=BUILDER, normalize=normalize), 0, 1)
    with torch.no_grad():
        found = network(IMAGES)
        assert_close(found, network(IMAGES / 255), atol=1e-5, rtol=1e-5)
        assert_close(found, network.network((IMAGES / 255 - 0.4) / 0.3), atol=1e-5, rtol=1e-5)
        assert_close(found, ff.predict(network, IMAGES), atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match=r"shape \(40, 1, 8, 7\); this network takes \(n, 1, 8, 8"):
        network(IMAGES[..., 1:])
    with pytest.raises(InputError, match=r"torch.int64; give uint8"):
        network(IMAGES.long())
    for wrong in (IMAGES.float(), (IMAGES / 255 - 0.4) / 0.3):
        with pytest.raises(InputError, match=r"torch.float32 from .* floats in \[0, 1\]"):
            network(wrong)


def test_statistics_may_be_estimated_on_batches_whatever_the_folder_says_of_their_size(tmp_path):
    export(tmp_path, network=BUILDER, augment=None)
    loader = torch.utils.data.DataLoader(IMAGES, batch_size=16)
    found, plain = (ff.load_network(tmp_path, *OTHER, images=of)(IMAGES) for of in (loader, IMAGES))
    assert_close(found, plain)


def test_statistics_that_cannot_be_estimated_are_interpolated_if_one_says_so(tmp_path):
    export(tmp_path, batchnorm="interpolated", images=None)
    network = ff.load_network(tmp_path, *OTHER, model=NETWORKS["resnet18"]())
    assert network.statistics == "interpolated"


def test_the_card_counts_what_the_corners_share_too(tmp_path):
    states = make_corners("resnet18")
    body = {k: v for k, v in states[0].items() if not k.startswith("fc.")}
    surface = ff.Surface.from_corners([state | body for state in states])
    export(tmp_path, surface=surface)
    count = sum(parameter.numel() for parameter in NETWORKS["resnet18"]().parameters())
    assert surface.dimension < count
    assert f"a network of {count:,} parameters" in (tmp_path / "README.md").read_text()


def test_the_example_runs_in_a_fresh_process(shared, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", shared / "example.py"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    surface, classes = run.stdout.splitlines()
    assert surface.startswith("Surface(name='bezier'")
    assert set(json.loads(classes.replace("'", '"'))) <= set(SHARED["classes"])


def test_the_example_of_the_docs_gives_the_network_that_was_exported(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "zoo.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if "export_surface" in block]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    difference = re.fullmatch(r"tensor\((\S+?)(, grad_fn=.*)?\)\n", capsys.readouterr().out)
    assert float(difference[1]) < 1e-4


def test_the_card_is_headed_as_model_hubs_read_it(tmp_path):
    yaml = pytest.importorskip("yaml")
    _, front, text = (
        (export(tmp_path, license="cc-by-4.0") / "README.md").read_text().split("---\n")
    )
    front = yaml.safe_load(front)
    assert (front["license"], front["library_name"]) == ("cc-by-4.0", "fourfold")
    assert front["pipeline_tag"] == "image-classification"
    assert "model=build()" in text, "without a description of the network"


@pytest.mark.parametrize("known", ["image_shape", "images"])
def test_names_of_another_number_of_classes_are_refused(known, tmp_path):
    settings = {"image_shape": None} | {known: SHARED.get(known, IMAGES)}
    with pytest.raises(InputError, match="classes has 1 names, but the network has 3 outputs"):
        export(tmp_path / "new", classes=["a"], **settings)
    assert not (tmp_path / "new").exists()


def test_a_network_takes_arrays(shared):
    network = ff.load_network(shared, 0.5, 0.5)
    assert torch.equal(network(IMAGES.numpy()), network(IMAGES))


def test_an_export_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="isn't empty"):
        export(tmp_path / "full")
    with pytest.raises(InputError, match="give images"):
        export(tmp_path / "new", images=None)
    with pytest.raises(InputError, match="not of the checkpoints' architecture"):
        export(tmp_path / "new", network={"name": "resnet18", "width": 4})
    with pytest.raises(InputError, match="more than JSON values"):
        export(tmp_path / "new", network={**BUILDER, "activation": torch.relu})
    with pytest.raises(InputError, match=r"^normalize is .* each of 1 channels"):
        export(tmp_path / "new", normalize={"mean": [0.1, 0.2], "std": [0.1, 0.2]})
    loader = torch.utils.data.DataLoader(IMAGES, batch_size=16)
    for changes, said in (
        ({"license": "My own"}, "license is 'My own'"),
        ({"license": None}, "license is None"),
        ({"normalize": {"mean": 0.5, "std": 0.5}}, r"normalize\['mean'\] is 0.5"),
        ({"normalize": ((0.5,), (0.5,))}, "give a dictionary"),
        ({"network": "resnet18"}, "network is 'resnet18'; give a dictionary"),
        ({"classes": "abc"}, "classes is 'abc'; give a list"),
        ({"image_shape": 8}, "image_shape is 8; give"),
        ({"precision": "fp32"}, "precision is 'fp32'; choose one of float32"),
        ({"batchnorm": "own"}, "batchnorm is 'own'; choose reestimated, interpolated"),
        ({"images": loader}, "batch_size is 16, but the data are an iterable"),
    ):
        with pytest.raises(InputError, match=said):
            export(tmp_path / "new", **changes)
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "file"]


def change(**values):
    """Return what lays values over a config.json."""

    def edit(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


def exchange(name):
    """Return what puts the file of another surface into a folder."""

    def edit(folder):
        other = export(folder / "other", surface=move_free_points(surface_of("resnet18"), seed=2))
        (folder / name).write_bytes((other / name).read_bytes())

    return edit


NAME = "name"
TIMM = {NAME: "timm", "architecture": "test_resnet"}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            change(format="fourfold-zoo-2", fourfold="9.1.0"),
            r"of fourfold '9.1.0'.*Install a newer",
        ),
        (change(format="pickle"), "its format is 'pickle'"),
        (change(network={NAME: "resnet99"}), "the network is 'resnet99'; fourfold has"),
        (change(network={NAME: "resnet18", "width": -1}), "config.json is no readable"),
        (change(network={NAME: "resnet18", "width": 2, "code": "x"}), "config.json is no readable"),
        (change(network={NAME: "resnet18", "width": 4}), "not of the checkpoints' architecture"),
        (change(network=TIMM), "pass allow='timm'"),
        (change(network={NAME: "python", "builder": "evil:build"}), "pass allow='evil:build'"),
        (change(network={NAME: "python", "builder": 3}), "pass allow='3'"),
        (change(network=None), "pass model="),
        (change(classes=3), "must be"),
        (change(batchnorm={"statistics": "guessed"}), "one of none, interpolated, reestimated"),
        (change(normalize={"mean": [0.1], "std": [0.0]}), "positive std"),
        (change(image={"channels": 1, "size": 0}), "at least 1"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
        (lambda folder: (folder / "config.json").unlink(), "no folder of `fourfold export`"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no file at"),
        (lambda folder: (folder / "statistics.safetensors").write_bytes(b"x"), "no readable"),
        (exchange("model.safetensors"), "not the surface of config.json"),
        (exchange("statistics.safetensors"), "of another surface"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_message(edit, said, folder, monkeypatch):
    (folder / "evil.py").write_text("raise SystemExit('code of the folder was run')")
    monkeypatch.chdir(folder)
    edit(folder)
    with pytest.raises(InputError, match=said):
        ff.load_network(folder, 0.5, 0.5)


def places(value, above=()):
    """Yield the keys that lead to each value inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in inside:
        yield (*above, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*above, key))


def test_whatever_stands_in_a_description_it_is_a_network_or_one_message(folder):
    change(normalize={"mean": [0.4], "std": [0.3]})(folder)
    path = folder / "config.json"
    values = itertools.cycle([None, True, -1, 1e308, float("nan"), "x", [], {"a": 1}, 10**400])
    text, refused = path.read_text(), 0
    for keys, _ in itertools.product(places(json.loads(text)), range(3)):
        place = described = json.loads(text)
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = next(values)
        path.write_text(json.dumps(described))
        try:
            ff.load_network(folder, *OTHER, images=IMAGES)(IMAGES)
        except InputError:
            refused += 1
    assert refused > 50


def test_code_outside_builds_a_network_if_it_is_named_and_reads_nothing_else(folder, monkeypatch):
    pytest.importorskip("timm")
    reading = {**TIMM, "arguments": {"pretrained": True, "checkpoint_path": "evil.pt"}}
    change(network=reading)(folder)
    with pytest.raises(InputError, match=r"\['checkpoint_path', 'pretrained'\]"):
        ff.load_network(folder, 0.5, 0.5, allow="timm")
    own = folder / "own_networks.py"
    own.write_text(
        "from fourfold.networks import build_model\n"
        "def build(classes, channels, image_size, **more):\n"
        "    return build_model('resnet18', classes=classes, channels=channels,"
        " image_size=image_size, **more)\n"
    )
    monkeypatch.chdir(folder)
    builder = {"builder": "own_networks:build", "arguments": {"width": 2}}
    change(network={NAME: "python", **builder})(folder)
    with pytest.raises(InputError, match="allow='own_networks:build'"):
        ff.load_network(folder, 0.5, 0.5, allow="timm")
    assert "own_networks" not in sys.modules
    network = ff.load_network(folder, 0.5, 0.5, allow="own_networks:build")
    monkeypatch.delitem(sys.modules, "own_networks")
    built_here = ff.load_network(folder, 0.5, 0.5, model=NETWORKS["resnet18"]())
    assert_close(network(IMAGES), built_here(IMAGES))


def test_a_folder_holds_no_image_and_statistics_of_the_grid_without_corners(shared):
    files = {file.name for file in shared.iterdir()}
    assert files == {
        *("README.md", "config.json", "example.py"),
        *("model.safetensors", "statistics.safetensors"),
    }
    tensors, _ = load_tensors(shared / "statistics.safetensors")
    assert len(tensors["points"]) == 3 * 3 - 4
    assert len(json.loads((shared / "config.json").read_text())["classes"]) == CLASSES
