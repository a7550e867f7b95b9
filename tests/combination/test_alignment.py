"""Laws of alignment: the same functions, closer together, and a permuted copy is found out."""

import itertools
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from conftest import CLASSES, SIZE, differing, disturb, input_of, make_images, snapshot
from conftest import NETWORKS as SHARED
from torch import Tensor, nn

import fourfold as ff
from fourfold.combination import alignment
from fourfold.combination.alignment import choose_method, move_units
from fourfold.combination.folding import difference, fold_gains
from fourfold.combination.symmetry import Symmetry, find_symmetry
from fourfold.combination.units import Turn, Units


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
TURNING = ("vit", "attention")  # have what can be rotated
IMAGES, _ = make_images()
LAST = torch.tensor([CLASSES - 1])
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
    settings = {"method": "weights", "preprocess": input_of(network)} | settings
    return ff.align(states, network, IMAGES, **settings)


def symmetry_of(name: str, state: dict[str, Tensor] | None = None) -> Symmetry:
    """Return the permutations of a network, or of one in a state the rotations too."""
    network = network_of(name)
    if state is not None:
        network.load_state_dict(state)
    return find_symmetry(network, input_of(network)(IMAGES), rotations=state is not None)


def folded(name: str, states: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    network = network_of(name)
    return fold_gains(network, input_of(network)(IMAGES), states)


def drawn(units: Units, draw: torch.Generator) -> Tensor:
    """Draw a permutation, or a rotation that leaves the mean where it has to."""
    if units.turn == Turn.NONE:
        return torch.randperm(units.size, generator=draw)
    vectors = torch.randn(units.size, units.size, generator=draw, dtype=torch.float64)
    if units.turn == Turn.ANY:
        return torch.linalg.qr(vectors)[0]
    vectors[:, 0] = 1
    basis, _ = torch.linalg.qr(vectors)
    inner = torch.linalg.qr(torch.randn(units.size - 1, units.size - 1, generator=draw))[0]
    return basis @ torch.block_diag(torch.ones(1, 1), inner).double() @ basis.T


def shuffle(
    name: str, state: dict[str, Tensor], seed: int = 0, *, rotations: bool = False
) -> dict[str, Tensor]:
    """Move the units of every group by chance."""
    draw, chosen = torch.Generator().manual_seed(seed), {}
    symmetry = symmetry_of(name, state if rotations else None)
    for group in symmetry.groups:
        chosen[group.units] = drawn(group.units, draw)
        for inner in group.inner:
            chosen[inner] = torch.stack([drawn(inner, draw) for _ in range(group.units.size)])
    return move_units(symmetry, state, chosen)


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


@pytest.mark.parametrize("name", TURNING)
def test_any_rotation_of_what_can_be_rotated_leaves_the_function(name):
    (state,) = folded(name, states_of(name, 1))
    for seed in range(3):
        other = shuffle(name, state, seed, rotations=True)
        assert differing(state, other)
        torch.testing.assert_close(
            logits_of(name, other), logits_of(name, state), rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("rotations", [False, True])
@pytest.mark.parametrize("method", ["weights", "activations"])
@pytest.mark.parametrize("reference", [0, 1, "mean"])
@every_network
def test_aligned_networks_compute_the_same_functions(name, method, reference, rotations):
    states = states_of(name, 3)
    before = [snapshot(state) for state in states]
    aligned = align(name, states, method=method, reference=reference, rotations=rotations)
    for old, new, known in zip(states, aligned, before, strict=True):
        assert differing(old, known) == []
        torch.testing.assert_close(logits_of(name, new), logits_of(name, old), rtol=0, atol=1e-4)
    if reference != "mean":
        known = folded(name, states) if rotations and name in TURNING else states
        assert distance(name, aligned[reference], known[reference]) < 1e-5
        assert rotations or differing(aligned[reference], states[reference]) == []


@every_network
def test_a_permuted_copy_is_matched_back_exactly(name):
    (state,) = states_of(name, 1)
    copy = shuffle(name, state)
    assert differing(align(name, [state, copy], rotations=False)[1], state) == []
    a, b = align(name, [copy, state], reference="mean", rotations=False)
    assert differing(a, b) == []


def test_inference_mode_changes_nothing():
    name = next(iter(TURNING))
    expected = align(name, states_of(name, 2))
    with torch.inference_mode():
        found = align(name, states_of(name, 2))
    assert [differing(*pair) for pair in zip(found, expected, strict=True)] == [[], []]


@pytest.mark.parametrize("method", ["weights", "activations"])
@pytest.mark.parametrize("name", TURNING)
def test_a_rotated_copy_is_matched_back(name, method):
    (state,) = folded(name, states_of(name, 1))
    copy = shuffle(name, state, rotations=True)
    assert distance(name, copy, state) > 0.3 * distance(name, state, nothing(state))
    aligned = align(name, [state, copy], method=method)[1]
    assert distance(name, aligned, state) < 0.04 * distance(name, state, nothing(state))


def nothing(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


@pytest.mark.parametrize("name", ["batchnorm", "vit"])
def test_activations_match_a_permuted_copy_back_too(name):
    (state,) = states_of(name, 1)
    copy = shuffle(name, state)
    aligned = align(name, [state, copy], method="activations", rotations=False)[1]
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
    for pair in zip(*found, strict=True):
        assert distance(name, *pair) < 1e-4 if name in TURNING else differing(*pair) == []


@every_network
def test_matching_weights_brings_networks_closer(name):
    states = states_of(name, 3)
    states = folded(name, states) if name in TURNING else states
    aligned = align(name, states)
    for old, new in zip(states[1:], aligned[1:], strict=True):
        assert distance(name, states[0], new) < distance(name, states[0], old)

    def spread(of):
        return sum(distance(name, a, b) ** 2 for a, b in itertools.combinations(of, 2))

    assert spread(align(name, states, reference="mean")) < spread(states)
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


@pytest.mark.parametrize(
    ("name", "turns"),
    [
        ("vit", [Turn.CENTERED, *2 * [Turn.NONE, Turn.ANY, Turn.ANY, Turn.NONE]]),
        ("attention", [Turn.ANY, Turn.NONE, Turn.ANY, Turn.ANY]),
        *((name, None) for name in NETWORKS if name not in TURNING),
    ],
)
def test_what_nothing_but_linear_maps_take_can_be_rotated(name, turns):
    groups = symmetry_of(name, *folded(name, states_of(name, 1))).groups
    found = [units.turn for group in groups for units in (group.units, *group.inner)]
    assert found
    assert found == (turns or [Turn.NONE] * len(found))


@pytest.mark.parametrize("method", ["weights", "activations"])
def test_rotations_bring_networks_closer_than_permutations(method):
    def spread(of):
        return sum(distance("vit", a, b) for a, b in itertools.combinations(of, 2))

    states = folded("vit", states_of("vit", 3))
    rotated, permuted = (
        align("vit", states, method=method, reference="mean", rotations=rotations)
        for rotations in (True, False)
    )
    assert spread(rotated) < spread(permuted)


@pytest.mark.parametrize("name", ["vit", "attention", "resnet18", "layernorm"])
def test_auto_matches_by_weights_what_can_be_rotated_and_else_by_activations(name):
    network, states = network_of(name), states_of(name)
    method = choose_method(network, IMAGES, preprocess=input_of(network))
    assert method == ("weights" if name in TURNING else "activations")
    auto, stated = (align(name, states, method=each)[1] for each in ("auto", method))
    assert differing(auto, stated) == []
    permuted = choose_method(network, IMAGES, preprocess=input_of(network), rotations=False)
    assert permuted == "activations"


class PostNorm(nn.Module):
    """A transformer that normalizes after its blocks, so that gains can't be moved."""

    def __init__(self, seed, spread) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.head = nn.Linear(4, 16), nn.Linear(16, CLASSES)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        for norm in (self.block.norm1, self.block.norm2):
            nn.init.normal_(norm.weight, 1.0, spread)

    def forward(self, x):
        return self.head(self.block(self.embed(x)).mean(1))


@pytest.mark.parametrize("spreads", [(0.0, 1e-4), (0.0, 0.2), (0.2, 0.0)])
def test_units_are_rotated_where_the_gains_of_every_network_allow_it(spreads):
    networks = [PostNorm(seed, spread).eval() for seed, spread in enumerate(spreads)]
    images = torch.randn(9, 4, 4)
    states = [network.state_dict() for network in networks]
    aligned = ff.align(states, networks[0], images, method="weights")
    assert differing(aligned[1], states[1])
    with torch.no_grad():
        before = networks[1](images)
        networks[1].load_state_dict(aligned[1])
        torch.testing.assert_close(networks[1](images), before, rtol=0, atol=1e-5)


class Normed(nn.Module):
    """A LayerNorm that a function reads, with a linear layer before it and one after it."""

    def __init__(self, function=lambda x: x, *, bias: bool = True, shift: bool = True) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(64, 6), nn.LayerNorm(6, bias=shift)
        self.head, self.function = nn.Linear(6, CLASSES, bias=bias), function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.norm(self.first(x.flatten(1)))))


@pytest.mark.parametrize(
    ("settings", "is_folded"),
    [
        ({}, True),
        ({"function": lambda x: torch.stack([x, x], dim=1).mean(dim=1)}, True),
        ({"function": lambda x: 2 * x}, False),  # its bias counts twice
        ({"bias": False, "shift": False}, True),
        ({"bias": False}, False),  # nothing takes up the LayerNorm's bias
        ({"function": torch.relu}, False),
        ({"function": lambda x: x + 1}, False),
        ({"function": lambda x: x * x}, False),
        ({"function": lambda x: x @ (x.T @ x)}, False),  # another reader, that is no weight
    ],
)
def test_gains_go_into_the_weights_after_them_where_these_alone_read_them(settings, is_folded):
    torch.manual_seed(0)
    images = torch.rand(4, 64)
    model = disturb(Normed(**settings)).eval()
    before = snapshot(model.state_dict())
    (new,) = fold_gains(model, images, [before])
    changed = {"norm.weight", "head.weight"}
    changed |= {"norm.bias", "head.bias"} if "norm.bias" in before else set()
    assert set(differing(before, new)) == (changed if is_folded else set())
    if is_folded:
        assert new["norm.weight"].unique().numel() == 1
        assert not new.get("norm.bias", torch.zeros(1)).any()
    outputs = []
    for each in (before, new, *ff.align([before, before], model, images)):
        model.load_state_dict(each)
        outputs.append(model(images))
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=0, atol=1e-4)


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
        (torch.relu, {"method": "wights"}, "auto, weights, activations"),
        (torch.relu, {"rotations": "yes"}, "True or False"),
        (torch.relu, {"reference": 2}, "0 to 1, or 'mean'"),
        (torch.relu, {"reference": "first"}, "0 to 1, or 'mean'"),
    ],
)
def test_what_cannot_be_aligned_is_refused_by_name(function, settings, said):
    torch.manual_seed(0)
    models = [Then(function), Then(function)]
    with pytest.raises(ff.InputError, match=said):
        ff.align([model.state_dict() for model in models], models[0], IMAGES, **settings)


class Outputs(NamedTuple):
    """As of torchvision's GoogLeNet."""

    logits: Tensor
    second: Tensor


class Auxiliary(nn.Module):
    """A second head that runs in training alone, unless `outputs` makes one of both."""

    def __init__(self, outputs=None) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, 12), nn.Linear(12, CLASSES)
        self.second, self.outputs = nn.Linear(12, CLASSES), outputs

    def forward(self, x: Tensor):
        x = self.first(x.flatten(1)).relu()
        if self.outputs is not None:
            return self.outputs(logits=self.head(x), second=self.second(x))
        return self.head(x) + (self.second(x) if self.training else 0)


def auxiliary() -> list[dict[str, Tensor]]:
    torch.manual_seed(0)
    return [Auxiliary().state_dict() for _ in range(2)]


@pytest.mark.parametrize("align", [ff.align, lambda states, *rest: choose_method(*rest)])
def test_layers_that_evaluation_leaves_out_are_refused_by_name(align):
    with pytest.raises(ff.InputError, match=r"doesn't use 'second.weight', 'second.bias'"):
        align(auxiliary(), Auxiliary(), IMAGES)


@pytest.mark.parametrize("outputs", [lambda **each: (*each.values(),), Outputs, SimpleNamespace])
def test_what_runs_in_evaluation_too_computes_the_same_in_training(outputs):
    states, model, images = auxiliary(), Auxiliary(outputs), torch.rand(8, 64)
    aligned = ff.align(states, model, images)
    assert differing(states[1], aligned[1])
    trained = Auxiliary().train()
    outputs = []
    for state in (states[1], aligned[1]):
        trained.load_state_dict(state)
        outputs.append(trained(images))
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)


def test_layers_that_evaluation_leaves_out_are_no_matter_once_they_are_gone():
    states, model = auxiliary(), Auxiliary()
    del model.second
    kept = [{k: t for k, t in state.items() if "second" not in k} for state in states]
    assert differing(kept[1], ff.align(kept, model, IMAGES)[1])


@pytest.mark.parametrize("unused", [torch.rand(()), torch.rand(1, 1), torch.arange(6)])
def test_numbers_without_units_may_be_left_out(unused):
    torch.manual_seed(0)
    models = [Then(torch.relu), Then(torch.relu)]
    for model in models:
        model.register_buffer("unused", unused)
    states = [model.state_dict() for model in models]
    assert differing(states[1], ff.align(states, models[0], IMAGES)[1])


def test_where_no_unit_moves_layers_may_be_left_out():
    torch.manual_seed(0)
    models = [Then(lambda x: x.flip(1)), Then(lambda x: x.flip(1))]
    for model in models:
        model.second = nn.Linear(6, CLASSES)
    states = [model.state_dict() for model in models]
    assert differing(states[1], ff.align(states, models[0], IMAGES)[1]) == []


@pytest.mark.parametrize("method", ["weights", "activations", "auto"])
@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.rand(0, 64), "no images"),
        (torch.rand(6, 64).index_fill(0, torch.tensor([2]), torch.nan), "NaN in 64 places"),
    ],
)
def test_images_that_say_nothing_are_refused(method, images, said):
    states = [Then(torch.relu).state_dict() for _ in range(2)]
    images = images[2:] if method == "weights" else images  # of which two are looked at
    with pytest.raises(ff.InputError, match=said):
        ff.align(states, Then(torch.relu), images, method=method)


def test_a_network_that_returns_no_number_is_refused():
    states = [Then(torch.log).state_dict() for _ in range(2)]
    with pytest.raises(ff.InputError, match="network 0 returns a NaN"):
        ff.align(states, Then(lambda x: (x - 100).log()), IMAGES, method="weights")


def test_an_infinite_output_hides_no_difference():
    torch.manual_seed(0)
    model, images = Then(torch.relu), torch.rand(4, 64)
    model.head.register_forward_hook(lambda layer, given, x: x.index_fill(1, LAST, -torch.inf))
    state = snapshot(model.state_dict())
    other = state | {"head.bias": state["head.bias"] + 1}
    assert difference(model, state, state, images) == 0
    assert difference(model, state, other, images)


def test_a_nan_in_the_outputs_is_a_difference():
    torch.manual_seed(0)
    model, images = Then(torch.relu), torch.rand(4, 64)
    state = snapshot(model.state_dict())
    broken = state | {"head.bias": torch.full((CLASSES,), torch.nan)}
    assert difference(model, state, state, images) == 0
    assert difference(model, state, broken, images)


def test_correlations_that_no_memory_holds_are_refused(monkeypatch):
    monkeypatch.setattr(alignment, "_MOST_GB", 1e-7)
    torch.manual_seed(0)
    states = [Then(torch.relu).state_dict() for _ in range(2)]
    with pytest.raises(ff.InputError, match=r"of the 6 units .* method='weights'"):
        ff.align(states, Then(torch.relu), IMAGES, method="activations")
    assert ff.align(states, Then(torch.relu), IMAGES, method="weights")


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
