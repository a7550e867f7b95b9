"""What all corners share is stored once: frozen bodies, adapters, and a file of its own."""

import json
import re
import warnings

import pytest
import torch
from conftest import CLASSES, differing, snapshot
from torch import nn

import fourfold as ff
from fourfold.files.tensors import load_tensors, read_header, save_tensors
from fourfold.networks._torchvision import import_torchvision
from fourfold.pipeline.cli import main
from fourfold.training.fit import SurfaceStep

import_torchvision("models")  # before transformers does

INPUTS, HIDDEN, OUTPUTS = 100, 200, 50
BODY = HIDDEN * INPUTS + HIDDEN + 4 * (HIDDEN * HIDDEN + HIDDEN)
HEAD = OUTPUTS * HIDDEN + OUTPUTS
POINTS = ((0.0, 0.0), (0.5, 0.5), (0.2, 0.9), (1.0, 0.4))


class Network(nn.Module):
    """A body that is not trained, and a head that is."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(INPUTS, HIDDEN)]
        for _ in range(4):
            layers += [nn.Tanh(), nn.Linear(HIDDEN, HIDDEN)]
        self.body = nn.Sequential(*layers).requires_grad_(False)
        self.head = nn.Linear(HIDDEN, OUTPUTS)

    def forward(self, x):
        return self.head(self.body(x).tanh())


def make_network(seed):
    torch.manual_seed(0)
    network = Network()
    torch.manual_seed(seed)
    network.head.reset_parameters()
    return network


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(32, INPUTS, generator=draw), torch.arange(32) % OUTPUTS


@pytest.fixture
def surface(data):
    corners = []
    for seed in range(4):
        network = make_network(seed)
        ff.train(network, *data, epochs=1, lr=0.1, seed=seed, batch_size=16)
        corners.append(snapshot(network.state_dict()))
    return ff.Surface.from_corners(corners)


def size_of(*tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_memory_and_files_of_four_heads_on_one_body_are_those_of_the_heads(surface, data, tmp_path):
    assert BODY > 10 * HEAD and surface.dimension == HEAD
    ff.fit(surface, make_network(9), *data, epochs=1, lr=0.1, batch_size=16)
    assert surface.dimension == HEAD
    assert size_of(surface.control_points) == 9 * HEAD * 4
    step = SurfaceStep(surface, Network(), 4, device=torch.device("cpu"), optimizer="adamw")
    state = [value for value in step.state().values() if isinstance(value, torch.Tensor)]
    assert size_of(*state) == (5 + 2 * 5) * HEAD * 4  # control points, and two moments of each
    files = [tmp_path / f"{name}.safetensors" for name in ("surface", "body", "all")]
    surface.save(files[0], shared=files[1].name)
    surface.save(files[2])
    sizes = [file.stat().st_size for file in files]
    assert sizes == pytest.approx([36 * HEAD, 4 * BODY, 36 * HEAD + 4 * BODY], rel=0.05)


def test_networks_on_a_surface_of_heads_are_those_put_together_by_hand(surface, data):
    by_hand = make_network(0)
    images, labels = data
    ff.fit(surface, make_network(9), images, labels, epochs=2, lr=0.5, batch_size=16)
    table = ff.evaluate_grid(surface, make_network(9), {"train": data}, points=3)
    for u, v in POINTS:
        weights = surface.weights(torch.tensor([u]), torch.tensor([v]))[0]
        mixed = (weights[:, None] * surface.control_points).sum(0)
        with torch.no_grad():
            by_hand.head.weight.copy_(mixed[: OUTPUTS * HIDDEN].view(OUTPUTS, HIDDEN))
            by_hand.head.bias.copy_(mixed[OUTPUTS * HIDDEN :])
        network = make_network(5)
        network.load_state_dict(surface.state_dict(u, v))
        logits = ff.predict(network, images)
        torch.testing.assert_close(logits, ff.predict(by_hand, images), rtol=1e-5, atol=1e-6)
        row = table[(table["u"] == u) & (table["v"] == v)]
        if len(row):  # (0, 0) and the center
            nll = nn.functional.cross_entropy(logits, labels).item()
            assert row["nll"].item() == pytest.approx(nll, abs=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_fit_moves_heads_alone_and_leaves_the_body_where_it_lies(surface, data, optimizer):
    body = dict(surface.buffers.shared)
    before, start = snapshot(body), surface.control_points.clone()
    ff.fit(
        surface, make_network(9), *data, epochs=1, lr=0.1, optimizer=optimizer, weight_decay=0.1,
        batch_size=16, boundary_epochs=1,
    )  # fmt: skip
    moved = (surface.control_points != start).any(dim=1)
    assert moved.nonzero().flatten().tolist() == list(surface.free_rows)
    assert body.keys() == surface.buffers.shared.keys() == {n for n in body if "body" in n}
    assert all(surface.buffers.shared[name] is tensor for name, tensor in body.items())
    assert differing(surface.buffers.shared, before) == []


def test_a_body_that_the_model_trains_becomes_a_part_of_the_control_points(surface, data):
    model = make_network(9).requires_grad_(True)
    body = {name: t for name, t in surface.corner().items() if name.startswith("body")}
    ff.fit(surface, model, *data, epochs=1, lr=0.1, batch_size=16)
    assert surface.dimension == HEAD + BODY and not surface.buffers.shared
    assert differing(body, {name: surface.corner(3)[name] for name in body}) == []
    assert len(differing(body, {name: surface.state_dict(0.5, 0.5)[name] for name in body})) > 0


def test_equal_statistics_and_convolutions_in_channels_last_are_stored_once_too(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    network[:2].requires_grad_(False).to(memory_format=torch.channels_last)
    state = network.state_dict()
    corners = [state | {"3.bias": torch.randn(2)} for _ in range(4)]
    surface = ff.Surface.from_corners(corners)
    assert surface.dimension == 2 and not surface.buffers.varying
    surface.save(tmp_path / "s", shared="body")
    loaded = ff.Surface.load(tmp_path / "s")
    assert [differing(loaded.corner(k), corners[k]) for k in range(4)] == [[]] * 4


# --- the file beside the surface's ----------------------------------------------------------------


@pytest.mark.parametrize("relative", ["body.safetensors", "../bodies/b.safetensors", None])
def test_surfaces_of_one_body_write_it_once_and_move_with_it(surface, tmp_path, relative):
    folder = tmp_path / "a" / "surfaces"
    shared = relative or tmp_path / "a" / "body.safetensors"  # an absolute path
    file = folder / shared
    surface.save(folder / "one.safetensors", {"seed": 3}, shared=shared)
    written = file.stat()
    higher = surface.raised()
    higher.save(folder / "two.safetensors", shared=shared)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert differing(load_tensors(file)[0], surface.buffers.shared) == []
    (tmp_path / "a").rename(tmp_path / "b")
    for name, expected in (("one", surface), ("two", higher)):
        loaded = ff.Surface.load(tmp_path / "b" / "surfaces" / f"{name}.safetensors")
        assert torch.equal(loaded.control_points, expected.control_points)
        for point in POINTS:
            assert differing(loaded.state_dict(*point), expected.state_dict(*point)) == []
    header = read_header(tmp_path / "b" / "surfaces" / "one.safetensors")
    assert header["seed"] == 3 and not header["shared"]["file"].startswith("/")


def test_a_body_that_is_missing_or_another_one_is_refused_by_name(surface, tmp_path):
    path, file = tmp_path / "surface", tmp_path / "body"
    surface.save(path, shared="body")
    tensors, header = load_tensors(file)
    expected = re.escape(str(file))
    file.unlink()
    with pytest.raises(ff.InputError, match=f"needs .* from {expected}, which isn't there"):
        ff.Surface.load(path)
    tensors["body.0.bias"][0] += 1
    save_tensors(tensors, file, header)
    with pytest.raises(ff.InputError, match=f"^{expected} is not the file that .* was saved with"):
        ff.Surface.load(path)
    with pytest.raises(ff.InputError, match=f"^{expected} is there and holds other tensors"):
        surface.save(tmp_path / "again", shared="body")
    assert not (tmp_path / "again").exists()
    file.write_bytes(b"no tensors")
    with pytest.raises(ff.InputError, match=f"{expected} is no readable safetensors file"):
        ff.Surface.load(path)


@pytest.mark.parametrize("name", ["surface", "./surface", "../{folder}/surface"])
def test_the_shared_file_is_not_the_surface_itself(surface, tmp_path, name):
    with pytest.raises(ff.InputError, match="the surface's own file"):
        surface.save(tmp_path / "surface", shared=name.format(folder=tmp_path.name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stored", ["body", {"file": "body"}, {"file": 1, "sha256": ""}, [], 0])
def test_a_damaged_header_is_one_message(surface, tmp_path, stored):
    surface.save(tmp_path / "surface", shared="body")
    tensors, header = load_tensors(tmp_path / "surface")
    save_tensors(tensors, tmp_path / "surface", header | {"shared": stored})
    with pytest.raises(ff.InputError, match="surface: the header"):
        ff.Surface.load(tmp_path / "surface")


def test_show_prints_a_surface_and_the_file_beside_it(surface, tmp_path, capsys):
    path, file = tmp_path / "s.safetensors", tmp_path / "body.safetensors"
    surface.save(path, shared=file.name)
    header = read_header(path)["shared"]
    for shown, expected in ((path, ["1 tensors", json.dumps(header)]), (file, ["10 tensors"])):
        main(["show", str(shown)])
        output = capsys.readouterr().out
        assert all(words in output for words in expected)


# --- adapters -------------------------------------------------------------------------------------


def adapted(seed):
    """Return a tiny transformer with the same random weights each time and a LoRA adapter."""
    import transformers
    from peft import LoraConfig, get_peft_model

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=12, num_labels=CLASSES,
    )  # fmt: skip
    torch.manual_seed(0)
    base = transformers.BertForSequenceClassification(config)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        return get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=2))


@pytest.fixture(scope="module")
def texts():
    """Batches of texts; the label is the token that a text repeats."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % CLASSES
    ids = torch.randint(10, 50, (24, 8), generator=draw)
    ids[:, 1::2] = labels[:, None]
    items = [{"input_ids": i, "labels": int(k)} for i, k in zip(ids, labels, strict=True)]
    return torch.utils.data.DataLoader(items, batch_size=8)


@pytest.fixture(scope="module")
def adapters(texts):
    """Return four trained networks."""
    networks = [adapted(seed) for seed in range(4)]
    for seed, network in enumerate(networks):
        ff.train(network, texts, epochs=3, lr=0.01, seed=seed, optimizer="adamw")
    return networks


def test_a_surface_of_lora_adapters_has_the_size_of_the_adapters(adapters, texts, tmp_path):
    model = adapted(9)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    surface = ff.Surface.from_corners([network.state_dict() for network in adapters])
    losses = ff.fit(surface, model, texts, epochs=4, lr=0.01, optimizer="adamw", seed=5)["nll"]
    assert losses.iloc[-1] < losses.iloc[0]
    assert set(surface.layout.names) == trained.keys()
    assert surface.control_points.numel() == 9 * sum(p.numel() for p in trained.values())
    base = {n: p for n, p in model.named_parameters() if n not in trained}
    assert differing(surface.buffers.shared, snapshot(base)) == []
    surface.save(tmp_path / "surface", shared="base")
    loaded = ff.Surface.load(tmp_path / "surface")
    grid = ff.evaluate_grid(loaded, model, {"train": texts}, points=3)
    for k, network in enumerate(adapters):
        point = loaded.shape.corner_coordinates[k]
        assert differing(loaded.state_dict(*point), snapshot(network.state_dict())) == []
        network.eval()
        with torch.no_grad():
            nll = torch.stack([network(**batch).loss for batch in texts]).mean().item()
        row = grid[(grid["u"] == point[0]) & (grid["v"] == point[1])]
        assert row["nll"].item() == pytest.approx(nll, abs=1e-3)


def test_adapters_alone_are_one_message_and_its_cure_gives_the_same_surface(adapters, texts):
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    model = adapted(9)
    alone = [snapshot(get_peft_model_state_dict(network)) for network in adapters]
    match = r"adapter's own, 'default'.*set_peft_model_state_dict"
    with pytest.raises(ff.InputError, match=match):
        ff.fit(ff.Surface.from_corners(alone), model, texts, epochs=1)
    with pytest.raises(ff.InputError, match=match):
        ff.Surface.from_corners(alone, model=model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    corners = []
    for adapter in alone:
        set_peft_model_state_dict(model, adapter)
        state = model.state_dict()
        corners.append({n: t.clone() if n in trained else t for n, t in state.items()})
    surface = ff.Surface.from_corners(corners)
    full = ff.Surface.from_corners([network.state_dict() for network in adapters])
    assert surface.corner_hashes == full.corner_hashes
    assert torch.equal(surface.control_points, full.control_points)


def test_corners_that_lack_what_the_model_has_fixed_are_one_message_with_the_cure(surface, data):
    heads = [
        {name: t for name, t in surface.corner(k).items() if name.startswith("head")}
        for k in range(4)
    ]
    model = make_network(9)
    with pytest.raises(ff.InputError, match=r"lack 'body.0.weight'.*\{\*\*model.state_dict\(\)"):
        ff.fit(ff.Surface.from_corners(heads), model, *data, epochs=1, batch_size=16)
    completed = [{**model.state_dict(), **head} for head in heads]
    assert torch.equal(ff.Surface.from_corners(completed).control_points, surface.control_points)
    through = ff.Surface.from_corners(completed, model=model)
    assert torch.equal(through.control_points, surface.control_points)
    assert differing(through.buffers.shared, surface.buffers.shared) == []
