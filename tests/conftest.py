"""Small networks, states and images that the tests share."""

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from jaxtyping import install_import_hook
from torch import Tensor, nn

# Shapes in signatures are checked here and never in production; before the package is imported.
CORE = ["fourfold.surfaces", "fourfold.evaluation", "fourfold.training"]
install_import_hook(CORE, "shapes.check_shapes")

from fourfold.networks import build_model
from fourfold.surfaces.modules import batchnorm_layers
from fourfold.surfaces.shapes import SQUARE
from fourfold.surfaces.surface import Surface

CLASSES = 3
SIZE = 8  # pixels
DEGREES = ((1, 1), (2, 2), (3, 3), (2, 1), (1, 3))
CORNERS = SQUARE.corner_coordinates


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that run the workflow: at the end, one of them would run alone."""
    long = ("pipeline", "test_resume.py")
    items.sort(key=lambda item: not any(part in item.path.parts for part in long))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors: a second thread only costs, and results must not depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def import_docs_program(name: str) -> ModuleType:
    """Import a program of docs/, which lies in no package and imports its neighbours."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


# --- networks -------------------------------------------------------------------------------------


class Tied(nn.Module):
    """Two layers with one weight, whose state dict names it twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(SIZE * SIZE, 6)
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(1)).tanh()
        return self.head(self.second(self.first(x).tanh()).tanh())


class WithBuffers(nn.Module):
    """Floating and integer buffers that are no BatchNorm statistics, and one that isn't saved."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(1.5))
        self.register_buffer("order", torch.arange(SIZE * SIZE))
        self.register_buffer("shift", torch.full((CLASSES,), 0.25), persistent=False)
        self.body = nn.Sequential(nn.Linear(SIZE * SIZE, 6), nn.Tanh(), nn.Linear(6, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1)[:, self.order] * self.scale) + self.shift


def plain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 6), nn.Tanh(), nn.Linear(6, CLASSES))


def with_layernorm() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIZE * SIZE, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, CLASSES)
    )


def with_batchnorm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


def with_dropout() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIZE * SIZE, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, CLASSES)
    )


def with_frozen_parameters() -> nn.Module:
    network = plain()
    network[1].weight.requires_grad_(False)
    return network


def _image_network(name: str, **settings: float) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        return build_model(name, channels=1, image_size=SIZE, classes=CLASSES, **settings)

    return build


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "no-norm": plain,
    "layernorm": with_layernorm,
    "batchnorm": with_batchnorm,
    "dropout": with_dropout,
    "tied": Tied,
    "frozen": with_frozen_parameters,
    "buffers": WithBuffers,
    "bfloat16": lambda: plain().to(torch.bfloat16),
    "float64": lambda: with_batchnorm().double(),
    "resnet18": _image_network("resnet18", width=2),
    "vgg16": _image_network("vgg16", width=2, dropout=0.2),
    "vit": _image_network("vit", patch_size=4, layers=2, heads=2, hidden=8, mlp=16, dropout=0.1),
}


# What buffers that are no statistics are between the corners: the caller has to say it.
CHOSEN = {"buffers": {"scale": "interpolate", "order": "nearest"}}


@torch.no_grad()
def disturb(network: nn.Module) -> nn.Module:
    """Move parameters and statistics away from what they are initialized with."""
    for parameter in network.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    for layer in batchnorm_layers(network):
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    return network


def make_network(name: str, seed: int = 0) -> nn.Module:
    """Build a network as after some training: no tensor has the value it is initialized with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = disturb(NETWORKS[name]())
        for layer in batchnorm_layers(network):
            layer.num_batches_tracked.fill_(seed + 1)
        if name == "buffers":
            network.scale.uniform_(0.5, 2)
            network.order.copy_(torch.randperm(SIZE * SIZE))
    return network


def make_corners(name: str, seed: int = 0) -> list[dict[str, Tensor]]:
    """Return four state dicts of different networks of one architecture."""
    return [make_network(name, 10 * seed + k).state_dict() for k in range(4)]


def make_surface(name: str, degree: tuple[int, int] = (2, 2), seed: int = 0) -> Surface:
    return Surface.from_corners(make_corners(name, seed), degree=degree, buffers=CHOSEN.get(name))


def move_free_points(surface: Surface, seed: int = 0) -> Surface:
    """Move the free control points anywhere, as a long `fit` would."""
    noise = torch.Generator().manual_seed(seed)
    for row in surface.free_rows:
        surface.control_points[row] += 0.5 * torch.randn(surface.dimension, generator=noise)
    return surface


def input_of(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the map from uint8 images to this network's input, of its dtype."""
    dtype = next(network.parameters()).dtype
    return lambda images: images.to(dtype) / 255


def logits_of(name: str, state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Load `state` into a fresh network and return its logits in evaluation mode."""
    network = make_network(name, seed=99)
    network.load_state_dict(state)
    network.eval()
    with torch.no_grad():
        return network(input_of(network)(images))


# --- data and comparisons -------------------------------------------------------------------------


def make_images(n: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return uint8 images, each class with a bright bar at its own place, and their labels."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    images = torch.randint(0, 120, (n, 1, SIZE, SIZE), generator=draw)
    for image, label in zip(images, labels, strict=True):
        image[0, 2 * int(label) + 1] += 120
    return images.to(torch.uint8), labels


def snapshot(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """Return the names of the tensors in which two state dicts are not equal bit for bit."""
    names = itertools.chain(a, (name for name in b if name not in a))
    return [
        name
        for name in names
        if name not in a
        or name not in b
        or a[name].dtype != b[name].dtype
        or a[name].shape != b[name].shape
        or not torch.equal(_bits(a[name]), _bits(b[name]))
    ]


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


@pytest.fixture
def untouched() -> Callable[[nn.Module], Callable[[], None]]:
    """Return a function that remembers a network, and gives one that checks it is as it was."""

    def tensors_of(network: nn.Module) -> dict[str, Tensor]:
        return dict(itertools.chain(network.named_parameters(), network.named_buffers()))

    def settings_of(network: nn.Module) -> list[dict]:
        return [
            {k: v for k, v in vars(module).items() if not k.startswith("_")}
            for module in network.modules()
        ]

    def remember(network: nn.Module) -> Callable[[], None]:
        settings, tensors = settings_of(network), tensors_of(network)
        values, random_state = snapshot(tensors), torch.get_rng_state()

        def check() -> None:
            after = tensors_of(network)
            assert differing(values, after) == []
            assert list(map(id, tensors.values())) == list(map(id, after.values()))
            assert all(parameter.grad is None for parameter in network.parameters())
            assert settings_of(network) == settings
            assert not any(module._forward_hooks for module in network.modules())
            assert torch.equal(torch.get_rng_state(), random_state)

        return check

    return remember
