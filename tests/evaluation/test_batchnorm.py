"""Laws of the re-estimation of BatchNorm statistics."""

import copy

import pytest
import torch
from conftest import SIZE, differing, input_of, make_images, make_network
from torch import nn

from fourfold.data.augment import RandomShiftFlip
from fourfold.errors import InputError
from fourfold.evaluation.batchnorm import reestimate_batchnorm
from fourfold.evaluation.grid import predict
from fourfold.evaluation.metrics import classification_metrics
from fourfold.surfaces.modules import batchnorm_layers
from fourfold.training.train import train


def drifting_images(n: int = 48) -> torch.Tensor:
    """Images that become brighter, so that batches in order have different means."""
    draw = torch.Generator().manual_seed(3)
    return torch.rand(n, 1, SIZE, SIZE, generator=draw) + torch.arange(n)[:, None, None, None] / 8


def first_layer_input(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network[0](images)


@pytest.mark.parametrize("name", ["batchnorm", "resnet18", "vgg16", "float64"])
def test_one_batch_gives_what_torch_itself_keeps_with_momentum_one(name):
    images = make_images(32)[0]
    network, reference = make_network(name, seed=1), make_network(name)
    network.load_state_dict(network.state_dict() | dict(reference.named_parameters()))
    reestimate_batchnorm(network, images, batch_size=32, preprocess=input_of(network))
    reference.train()
    for module in reference.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    for layer in batchnorm_layers(reference):
        layer.momentum = 1.0
    with torch.no_grad():
        reference(input_of(reference)(images))
    layers = list(zip(batchnorm_layers(network), batchnorm_layers(reference), strict=True))
    assert layers
    for layer, expected in layers:
        torch.testing.assert_close(layer.running_mean, expected.running_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(layer.running_var, expected.running_var, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [6, 7, 16, 47, 48, 100])
def test_several_batches_give_the_statistics_of_the_whole_set(batch_size):
    network, images = make_network("batchnorm"), drifting_images()
    reestimate_batchnorm(network, images, batch_size=batch_size)
    numbers = first_layer_input(network, images).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(network[1].running_mean.double(), numbers.mean(1), rtol=1e-5, atol=0)
    torch.testing.assert_close(network[1].running_var.double(), numbers.var(1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("n", [2, 3, 9])
def test_a_last_batch_of_one_image_is_no_batch_of_its_own(n):
    # BatchNorm over single numbers can't normalize a batch of one.
    network = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 3), nn.BatchNorm1d(3))
    images = drifting_images(n)
    reestimate_batchnorm(network, images, batch_size=2)
    with torch.no_grad():
        numbers = network[:2](images)
    torch.testing.assert_close(network[2].running_mean, numbers.mean(0))
    torch.testing.assert_close(network[2].running_var, numbers.var(0))


def test_a_layer_used_twice_gets_the_statistics_of_both_uses():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(1)

        def forward(self, x):
            return self.norm(x) + self.norm(x + 10)

    network, images = Twice(), drifting_images()
    reestimate_batchnorm(network, images, batch_size=16)
    numbers = torch.cat([images, images + 10]).flatten()
    torch.testing.assert_close(network.norm.running_mean, numbers.mean()[None])
    torch.testing.assert_close(network.norm.running_var, numbers.var()[None])


def test_a_layer_that_the_forward_pass_skips_keeps_its_statistics():
    network = make_network("batchnorm")
    network.add_module("aside", nn.BatchNorm2d(1))
    network.aside.running_mean.fill_(7)
    network.forward = lambda x: nn.Sequential.forward(network[:8], x)
    reestimate_batchnorm(network, drifting_images())
    assert network.aside.running_mean.item() == 7


def test_weights_modes_and_momenta_are_as_before(untouched):
    network = make_network("vgg16")
    network.features[1].momentum = None
    network.features[4].momentum = 0.3
    network.classifier.eval()
    keep = {name: t for name, t in network.named_buffers() if "running" in name or "num_b" in name}
    check = untouched(network)
    saved = {name: tensor.clone() for name, tensor in keep.items()}
    reestimate_batchnorm(network, make_images()[0])
    assert any(not torch.equal(saved[name], tensor) for name, tensor in keep.items())
    for name, tensor in keep.items():  # the statistics alone have changed
        tensor.copy_(saved[name])
    check()
    with pytest.raises(RuntimeError):  # in the forward pass
        reestimate_batchnorm(network, torch.zeros(4, 3, 2, 2))
    check()


@pytest.mark.parametrize("name", ["no-norm", "layernorm", "vit"])
def test_a_network_without_batchnorm_is_left_alone(name, untouched):
    network = make_network(name)
    check = untouched(network)
    reestimate_batchnorm(network, torch.empty(0, 1, SIZE, SIZE))
    check()


@pytest.mark.parametrize(("n", "batch_size"), [(0, 8), (1, 8), (8, 1), (8, 0), (8, -2)])
def test_too_few_images_or_too_small_batches_are_refused(n, batch_size):
    with pytest.raises(InputError, match=f"got {n} images in batches of {batch_size}"):
        reestimate_batchnorm(
            make_network("batchnorm"), drifting_images(max(n, 1))[:n], batch_size=batch_size
        )


# --- images as in training ------------------------------------------------------------------------


def bright_images(n: int, seed: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noisy images of bright patterns: the black border of a shifted one stands out."""
    draw, fixed = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)
    labels = torch.randint(classes, (n,), generator=draw)
    patterns = 22 * torch.randn(classes, 1, SIZE, SIZE, generator=fixed)
    noise = 45 * torch.randn(n, 1, SIZE, SIZE, generator=draw)
    return (170 + noise + patterns[labels]).clamp(0, 255).to(torch.uint8), labels


def small_network(width: int = 8, classes: int = 4) -> nn.Module:
    layers: list[nn.Module] = []
    for channels, stride in ((1, 1), (width, 2), (width, 2)):
        layers += [nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * SIZE**2 // 16, classes))


def test_a_trained_network_and_its_re_estimation_on_augmented_images_agree_and_on_plain_ones_not():
    """In the mean over three networks, on images that none has seen."""
    images, labels = bright_images(2000, seed=1)
    unseen, truth = bright_images(4000, seed=2)
    augment = RandomShiftFlip(2, flip=False)
    found: dict[str, list[dict[str, float]]] = {"own": [], "augmented": [], "plain": []}
    for seed in range(3):
        torch.manual_seed(seed)
        network = small_network()
        train(network, images, labels, epochs=12, lr=0.1, seed=seed, batch_size=64, augment=augment)
        for name, chosen in (("own", None), ("augmented", augment), ("plain", None)):
            again = copy.deepcopy(network)
            if name != "own":
                reestimate_batchnorm(again, images, augment=chosen)
            log_probabilities = predict(again, unseen).log_softmax(dim=1)
            found[name].append(classification_metrics(log_probabilities, truth))

    def change(name: str, metric: str) -> float:
        return (
            sum(a[metric] - b[metric] for a, b in zip(found[name], found["own"], strict=True)) / 3
        )

    assert abs(change("augmented", "accuracy")) < 0.005
    assert abs(change("augmented", "nll")) < 0.01
    assert change("plain", "accuracy") < -0.02
    assert change("plain", "nll") > 0.04


def reestimated(images: torch.Tensor, **settings: object) -> dict[str, torch.Tensor]:
    network = make_network("batchnorm")
    reestimate_batchnorm(network, images, **settings)
    return {name: b.clone() for name, b in network.named_buffers() if "running" in name}


def test_statistics_are_those_of_the_images_that_the_augmentation_returns():
    images, made = make_images(40)[0], []

    def augment(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        made.append(torch.where(torch.rand(batch.shape, generator=generator) < 0.5, batch, 0))
        return made[-1]

    found = reestimated(images, augment=augment, seed=3, batch_size=16)
    seen = torch.cat(made)
    assert len(seen) == 40  # each image once
    assert differing(found, reestimated(seen, batch_size=16)) == []
    assert differing(found, reestimated(images, batch_size=16)) != []


def test_the_seed_alone_decides_the_draw():
    images, augment = make_images(40)[0], RandomShiftFlip(2, flip=True)
    first = reestimated(images, augment=augment, seed=1)
    torch.manual_seed(5)
    assert differing(first, reestimated(images, augment=augment, seed=1)) == []
    assert set(differing(first, reestimated(images, augment=augment, seed=2))) == set(first)


def test_the_draw_does_not_depend_on_the_network_nor_on_the_batches():
    """All points of a surface see the same images."""
    images, augment = make_images(40)[0], RandomShiftFlip(2, flip=True)
    seen: list[torch.Tensor] = []
    for seed, batch_size in ((0, 40), (1, 16), (2, 7)):
        batches: list[torch.Tensor] = []

        def note(batch: torch.Tensor, batches: list[torch.Tensor] = batches) -> torch.Tensor:
            batches.append(batch)
            return batch.float() / 255

        network = make_network("batchnorm", seed)
        reestimate_batchnorm(
            network, images, augment=augment, seed=4, batch_size=batch_size, preprocess=note
        )
        seen.append(torch.cat(batches))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], images)
