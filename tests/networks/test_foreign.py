"""Networks of other packages and of the user: built as asked, or refused in one message."""

import sys

import pytest
import torch
from conftest import differing

from fourfold.errors import InputError
from fourfold.networks import build_model, place

SHAPE = {"channels": 1, "image_size": 8, "classes": 5}
HUGGING = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
HUGGING |= {"intermediate_size": 16, "patch_size": 4}
FOREIGN = {
    "python": {"builder": "mine:build", "arguments": {"hidden": 3}},
    "timm": {"architecture": "test_resnet", "arguments": {"drop_rate": 0.1}},
    "transformers": {"architecture": "ViTForImageClassification", "config": HUGGING},
}
MINE = """
from torch import nn
import torch

class Logits(nn.Module):
    def forward(self, x):
        return {"logits": x.flatten(1)[:, :5]}

def build(hidden, classes, image_size, channels=1, bias=True):
    pixels = channels * image_size ** 2
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.Linear(hidden, classes))

def wide(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
def pair(): return nn.Linear(3, 3), 1
def fail(classes): raise KeyError("weights")
def fixed(): return nn.Linear(3, 5)
def empty(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).to("meta")
def lazy(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(5))
def volumes(): return nn.Sequential(
    nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 5, (1, 8, 8)), nn.Flatten())
class Package:
    build = Logits
size = 3
"""


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """Work in a folder with modules of the user."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("import torch\n1 / 0")
    (tmp_path / "needy.py").write_text("import no_such_package")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("mine", "broken", "needy"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def build(name, **settings):
    return build_model(name, **SHAPE | settings)


def logits(model, images):
    output = model(images)
    return getattr(output, "logits", output)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_maps_images_to_one_logit_per_class_and_one_seed_gives_one(name, channels):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = build(name, **FOREIGN[name], channels=channels)
        assert model.training
        assert logits(model, torch.rand(3, channels, 8, 8)).shape == (3, 5)
        states.append(model.state_dict())
    assert differing(states[0], states[1]) == []
    assert differing(states[0], states[2])


def test_arguments_are_the_users_and_sizes_go_where_they_are_taken():
    assert build("python", **FOREIGN["python"])[1].out_features == 3
    assert build("timm", **FOREIGN["timm"]).drop_rate == 0.1
    model = build("transformers", **FOREIGN["transformers"])
    assert (model.config.hidden_size, model.config.image_size, model.config.num_channels) == (
        8,
        8,
        1,
    )
    assert build("python", builder="mine:Package.build")(torch.zeros(1, 64))["logits"].shape == (
        1,
        5,
    )


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("python", {"builder": "nowhere:build"}, "no module 'nowhere'.*working directory"),
        ("python", {"builder": "mine.deep:build"}, "no module 'mine.deep'"),
        ("python", {"builder": "needy:build"}, "needs 'no_such_package'"),
        ("python", {"builder": "broken:build"}, "importing broken.*ZeroDivisionError"),
        ("python", {"builder": "mine:biuld"}, "mine.py has no 'biuld'; it has .*build"),
        ("python", {"builder": "mine:size"}, "no function"),
        ("python", {"builder": "mine:build"}, "mine:build can't be called.*missing.*'hidden'"),
        ("python", {"builder": "mine:wide", "arguments": {"depth": 3}}, "can't be called.*'depth'"),
        ("python", {"builder": "mine:fail"}, "mine:fail.*KeyError: 'weights'"),
        ("python", {"builder": "mine:pair"}, "mine:pair returned tuple.*nn.Module"),
        ("python", {"builder": "mine:wide"}, r"returns \(2, 7\).*\(2, 5\) logits"),
        ("python", {"builder": "mine:fixed"}, r"fails on images of shape \(2, 1, 8, 8\)"),
        ("timm", {"architecture": "resnet10"}, "'resnet10'.*resnet10t"),
        ("timm", {"architecture": "test_resnet", "arguments": {"wide": 3}}, "test_resnet.*'wide'"),
        ("timm", {"architecture": "test_vit"}, "fails on images"),
        ("transformers", {"architecture": "BertModel"}, "'BertModel', no image classifier"),
        ("transformers", {"architecture": "ViTForImageClassification",
         "config": {"hidden": 3}}, r"\['hidden'\].*ViTConfig.*hidden_size"),
        ("transformers", {"architecture": "ViTForImageClassification",
         "config": HUGGING | {"hidden_act": "rule"}}, "ViTForImageClassification.*failed.*rule"),
    ],
)  # fmt: skip
def test_what_is_no_network_for_the_images_is_refused_in_one_message(name, settings, said):
    with pytest.raises(InputError, match=f"(?s){said}") as refused:
        build(name, **settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("builder", ["mine:lazy", "mine:volumes"])
def test_layers_without_a_shape_yet_and_those_with_five_axes_are_taken(builder):
    network = place(build("python", builder=builder), "cpu")
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 5)


def test_a_network_without_values_is_refused_where_it_is_to_run():
    with pytest.raises(InputError, match="the network is on the meta device"):
        place(build("python", builder="mine:empty"), "cpu")


@pytest.mark.parametrize("package", ["timm", "transformers"])
def test_a_package_that_is_not_there_is_named(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"pip install {package}"):
        build(package, **FOREIGN[package])
