"""Laws of alignment: the same functions, closer together, and a permuted copy is found out."""

import itertools

import pytest
import torch
from conftest import CLASSES, SIZE, differing, disturb, input_of, make_images, snapshot
from conftest import NETWORKS as SHARED
from torch import Tensor, nn

import fourfold as ff
from fourfold.combination import alignment
from fourfold.combination.alignment import METHODS, permute_state
from fourfold.combination.symmetry import Symmetry, find_symmetry


class Residual(nn.Module):
    """Convolutions of all kinds with BatchNorm and GroupNorm, added, concatenated, flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.deep, self.inner = nn.Conv2d(6, 8, 3, padding=1, stride=2), nn.GroupNorm(2, 8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.wise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up, self.prelu = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.PReLU(6)
        self.pool, self.head = nn.MaxPool2d(4), nn.Linear(2 * 6 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        y = self.wise(self.grouped(self.inner(self.deep(x)).relu()).relu())
        y = self.prelu(self.up(y))
        return self.head(self.pool(torch.cat([x + y, x], dim=1)).flatten(1))


class Attention(nn.Module):
    """A packed attention that is cut into chunks, in functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Linear(SIZE, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x[:, 0])
        parts = [each.unflatten(-1, (2, 4)).transpose(1, 2) for each in self.qkv(x).chunk(3, -1)]
        weights = (parts[0] @ parts[1].mT).softmax(dim=-1)
        x = x + self.out((weights @ parts[2]).transpose(1, 2).flatten(2))
        return self.head(x.mean(dim=1))


def deep() -> nn.Module:
    """A network of one input, whose first layer says less of its units than those after it."""
    layers = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 24), nn.Tanh()]
    for _ in range(4):
        layers += [nn.Linear(24, 24), nn.Tanh()]
        nn.init.normal_(layers[-2].weight)
    return nn.Sequential(*layers, nn.Linear(24, CLASSES))


NETWORKS = {name: SHARED[name] for name in ("no-norm", "layernorm", "batchnorm", "tied")}
NETWORKS |= {name: SHARED[name] for name in ("float64", "resnet18", "vgg16", "vit")}
NETWORKS |= {"residual": Residual, "attention": Attention, "deep": deep}
IMAGES, _ = make_images()
every_network = pytest.mark.parametrize("name", NETWORKS)


def network_of(name: str, seed: int = 0) -> nn.Module:
    """Build a network that has no two equal units, with no statistics as they are initialized."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return disturb(NETWORKS[name]()).eval()


def states_of(name: str, n: int = 2) -> list[dict[str, Tensor]]:
    return [network_of(name, seed).state_dict() for seed in range(n)]


def align(name: str, states: list[dict[str, Tensor]], **settings) -> list[dict[str, Tensor]]:
    network = network_of(name)
    return ff.align(states, network, IMAGES, preprocess=input_of(network), **settings)


def symmetry_of(name: str) -> Symmetry:
    network = network_of(name)
    return find_symmetry(network, input_of(network)(IMAGES))


def shuffle(name: str, state: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Permute the units of every group by chance."""
    draw, symmetry, chosen = torch.Generator().manual_seed(seed), symmetry_of(name), {}
    for group in symmetry.groups:
        n = group.units.size
        chosen[group.units] = torch.randperm(n, generator=draw)
        for inner in group.inner:
            chosen[inner] = torch.stack(
                [torch.randperm(inner.size, generator=draw) for _ in range(n)]
            )
    return permute_state(symmetry, state, chosen)


def logits_of(name: str, state: dict[str, Tensor]) -> Tensor:
    network = network_of(name)
    network.load_state_dict(state)
    with torch.no_grad():
        return network(input_of(network)(IMAGES))


def distance(name: str, a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    names = dict(network_of(name).named_parameters())
    return float(sum((a[k].double() - b[k].double()).square().sum() for k in names)) ** 0.5


@every_network
def test_any_permutation_of_the_groups_leaves_the_function_and_moves_the_weights(name):
    (state,) = states_of(name, 1)
    for seed in range(3):
        other = shuffle(name, state, seed)
        assert differing(state, other)
        torch.testing.assert_close(
            logits_of(name, other), logits_of(name, state), rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reference", [0, 1, "mean"])
@every_network
def test_aligned_networks_compute_the_same_functions(name, method, reference):
    states = states_of(name, 3)
    before = [snapshot(state) for state in states]
    aligned = align(name, states, method=method, reference=reference)
    for old, new, known in zip(states, aligned, before, strict=True):
        assert differing(old, known) == []
        torch.testing.assert_close(logits_of(name, new), logits_of(name, old), rtol=0, atol=1e-4)
    if reference != "mean":
        assert differing(aligned[reference], states[reference]) == []


@every_network
def test_a_permuted_copy_is_matched_back_exactly(name):
    (state,) = states_of(name, 1)
    copy = shuffle(name, state)
    assert differing(align(name, [state, copy])[1], state) == []
    a, b = align(name, [copy, state], reference="mean")
    assert differing(a, b) == []


@pytest.mark.parametrize("name", ["batchnorm", "vit"])
def test_activations_match_a_permuted_copy_back_too(name):
    (state,) = states_of(name, 1)
    aligned = align(name, [state, shuffle(name, state)], method="activations")[1]
    assert differing(aligned, state) == []


@pytest.mark.parametrize("name", ["batchnorm", "resnet18", "vit"])
def test_activations_of_a_few_images_at_a_time_say_the_same_as_of_all(name, monkeypatch):
    states, seen, found = states_of(name, 3), [], []
    observe = alignment.observe
    monkeypatch.setattr(
        alignment,
        "observe",
        lambda model, inputs: seen.append(len(inputs)) or observe(model, inputs),
    )
    for at_a_time in (len(IMAGES), 6):
        monkeypatch.setattr(alignment, "_AT_A_TIME", at_a_time)
        found.append(align(name, states, method="activations", reference="mean"))
    assert set(seen) == {len(IMAGES), 6}
    assert all(differing(*pair) == [] for pair in zip(*found, strict=True))


@every_network
def test_matching_weights_brings_networks_closer_and_never_apart(name):
    states = states_of(name, 3)
    aligned = align(name, states)
    for old, new in zip(states[1:], aligned[1:], strict=True):
        assert distance(name, states[0], new) <= distance(name, states[0], old)

    def spread(of):
        return sum(distance(name, a, b) ** 2 for a, b in itertools.combinations(of, 2))

    assert spread(align(name, states, reference="mean")) <= spread(states)
    assert differing(align(name, states)[1], aligned[1]) == []  # deterministic


def test_a_best_match_of_one_layer_is_found():
    a, b = states_of("no-norm")
    aligned = align("no-norm", [a, b])[1]
    options = []
    for order in itertools.permutations(range(6)):
        moved = {"1.weight": b["1.weight"][[*order]], "1.bias": b["1.bias"][[*order]]}
        moved |= {"3.weight": b["3.weight"][:, [*order]], "3.bias": b["3.bias"]}
        options.append((distance("no-norm", a, moved), moved))
    best, moved = min(options, key=lambda option: option[0])
    assert distance("no-norm", a, aligned) == pytest.approx(best)
    assert differing(aligned, moved) == []


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("tied", [(6, [])]),
        # Of each stage the stream and two inner convolutions.
        ("resnet18", [(n, []) for n in (2, 4, 8, 16) for _ in range(3)]),
        ("vgg16", [(n, []) for n in (2, 2, 4, 4, 8, 8, 8) + 8 * (16,)]),
        # The stream; of each block heads (in each: queries with keys, values) and the perceptron.
        ("vit", [(8, []), *2 * [(2, [4, 4]), (16, [])]]),
        ("attention", [(8, []), (2, [4, 4])]),
        # The stream and, in place of channels, groups of them, before and after the grouped layer.
        ("residual", [(6, []), (2, [4, 4])]),
    ],
)
def test_the_groups_are_those_that_the_architecture_has(name, sizes):
    groups = symmetry_of(name).groups
    found = [(group.units.size, [inner.size for inner in group.inner]) for group in groups]
    assert sorted(found) == sorted(sizes)


def test_a_group_lies_on_all_axes_that_its_units_have():
    symmetry = symmetry_of("resnet18")
    places = [symmetry.places(group) for group in symmetry.groups]
    norm = ["weight", "bias", "running_mean", "running_var"]
    inner = [("layer1.0.conv1.weight", 0), *((f"layer1.0.bn1.{each}", 0) for each in norm)]
    assert [*inner, ("layer1.0.conv2.weight", 1)] in places
    last = [(name, axis) for name, axis in places[0] if "layer2" in name]
    assert places[0][0] == ("conv1.weight", 0)
    assert last == [("layer2.0.conv1.weight", 1), ("layer2.0.downsample.0.weight", 1)]


class Then(nn.Module):
    """A linear layer and what is given, then another one."""

    def __init__(self, function) -> None:
        super().__init__()
        self.first, self.head, self.function = nn.Linear(64, 6), nn.Linear(6, CLASSES), function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.first(x.flatten(1))))


@pytest.mark.parametrize(
    ("function", "settings", "said"),
    [
        (lambda x: x.cumsum(dim=1), {}, r"aten\.cumsum"),
        (lambda x: torch.tensor(x.tolist()), {}, "treats them by their places"),
        (torch.relu, {"method": "wights"}, "weights, activations"),
        (torch.relu, {"reference": 2}, "0 to 1, or 'mean'"),
        (torch.relu, {"reference": "first"}, "0 to 1, or 'mean'"),
    ],
)
def test_what_cannot_be_aligned_is_refused_by_name(function, settings, said):
    torch.manual_seed(0)
    models = [Then(function), Then(function)]
    with pytest.raises(ff.InputError, match=said):
        ff.align([model.state_dict() for model in models], models[0], IMAGES, **settings)


def test_networks_of_different_architectures_are_refused():
    with pytest.raises(ff.InputError, match="different architectures"):
        align("vit", [*states_of("vit", 1), *states_of("vgg16", 1)])
    with pytest.raises(ff.InputError, match="got none"):
        align("vit", [])


@pytest.mark.parametrize(
    "function",
    [lambda x: x[:, [1, 0, 2, 3, 4, 5]], lambda x: x.flip(1), lambda x: x * x[:, :1]],
)
def test_units_that_are_taken_by_their_places_stay_there(function):
    models = [Then(function), Then(function)]
    states = [model.state_dict() for model in models]
    aligned = ff.align(states, models[0], IMAGES)
    assert differing(aligned[1], states[1]) == []


@pytest.mark.parametrize(
    "function",
    [nn.functional.normalize, nn.Softmax(dim=1), lambda x: x * x.mean(dim=1, keepdim=True)],
)
def test_what_treats_all_units_alike_leaves_them_free(function):
    assert len(find_symmetry(Then(function), torch.rand(2, 64)).groups) == 1
