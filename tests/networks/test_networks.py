"""Laws of the networks that come with the library."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from fourfold.errors import InputError
from fourfold.networks import build_model
from fourfold.networks.vit import SelfAttention

SMALL = {
    "resnet18": {"width": 4},
    "vgg16": {"width": 4},
    "vit": {"patch_size": 4, "layers": 2, "heads": 2, "hidden": 8, "mlp": 16},
}
SHAPE = {"channels": 1, "image_size": 8, "classes": 5}


def build(name, **settings):
    return build_model(name, **(SHAPE | SMALL[name] | settings))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("channels", "image_size"), [(1, 8), (3, 8), (3, 32)])
def test_a_network_maps_images_to_one_logit_per_class_and_all_of_it_is_trained(
    name, channels, image_size
):
    network = build(name, channels=channels, image_size=image_size)
    logits = network(torch.rand(4, channels, image_size, image_size))
    assert logits.shape == (4, 5)
    logits.square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None]
    assert idle == []


@pytest.mark.parametrize("name", SMALL)
def test_one_global_seed_gives_one_initialization_and_another_another(name):
    def first_weights(seed):
        torch.manual_seed(seed)
        return torch.nn.utils.parameters_to_vector(build(name).parameters())

    assert torch.equal(first_weights(1), first_weights(1))
    assert not torch.equal(first_weights(1), first_weights(2))


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet18", 11.17), ("vgg16", 15.2), ("vit", 21.3)]
)
def test_the_default_size_is_the_published_network(name, millions):
    with torch.device("meta"):
        network = build_model(name, channels=3, image_size=32, classes=10)
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters / 1e6 == pytest.approx(millions, rel=0.01)


def test_resnet18_has_the_tensors_of_torchvisions():
    from torchvision.models import resnet18

    with torch.device("meta"):
        ours = build_model("resnet18", channels=3, image_size=224, classes=1000, stem="imagenet")
        theirs = resnet18()
    assert {n: t.shape for n, t in ours.state_dict().items()} == {
        n: t.shape for n, t in theirs.state_dict().items()
    }


@pytest.mark.parametrize("is_training", [True, False])
def test_self_attention_is_pytorchs_layer(is_training):
    fast = SelfAttention(8, 2, batch_first=True).double().train(is_training)
    nn.init.normal_(fast.in_proj_bias)
    slow = nn.MultiheadAttention(8, 2, batch_first=True).double().train(is_training)
    slow.load_state_dict(fast.state_dict())
    gradients = []
    for layer in (fast, slow):
        tokens = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)).double()
        tokens.requires_grad_()
        attended, _ = layer(tokens, tokens, tokens, need_weights=False)
        gradients += [torch.autograd.grad(attended.square().sum(), [tokens, *layer.parameters()])]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("image_size", [2, 4, 8, 16, 32, 64])
def test_vgg16_has_no_convolution_that_sees_padding_alone(image_size):
    """The last convolutions run on at least 2 x 2 pixels, so every weight gets a gradient."""
    sizes = []
    network = build("vgg16", image_size=image_size)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, inputs, _o: sizes.append(inputs[0].shape[-1]))
    network(torch.rand(2, 1, image_size, image_size))
    assert len(sizes) == 13
    assert min(sizes) >= 2


@pytest.mark.parametrize("name", ["vgg16", "vit"])
def test_dropout_is_active_in_training_alone(name):
    network, images = build(name, dropout=0.5), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        assert not torch.equal(network.train()(images), network(images))
        assert torch.equal(network.eval()(images), network(images))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("alexnet", {}, "'alexnet'.*resnet18, vgg16, vit"),
        ("vgg16", {"image_size": 1}, "at least 2 pixels, got 1"),
        ("vit", {"patch_size": 3}, r"network.patch_size is 3.*8.*\[1, 2, 4, 8\]"),
        ("vit", {"heads": 3, "hidden": 8}, "network.hidden is 8.*heads = 3"),
        ("torchvision", {}, "RGB images, got 1 channels"),
        ("torchvision", {"channels": 3, "architecture": "resnet81"}, "did you mean resnet18"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused_with_what_is_allowed(name, settings, said):
    with pytest.raises(InputError, match=said):
        build_model(name, **SHAPE | settings)


def test_the_package_starts_without_torch():
    code = "import sys, fourfold, fourfold.files.table; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
