"""Data that are no tensors of images: loaders, dictionaries, regression, networks of others."""

import random
from operator import itemgetter

import numpy as np
import pytest
import torch
from conftest import (
    CLASSES,
    differing,
    input_of,
    make_images,
    make_network,
    make_surface,
    move_free_points,
    snapshot,
)
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    default_collate,
)

import fourfold as ff
from fourfold.data.batches import shuffled_batches
from fourfold.networks._torchvision import import_torchvision
from fourfold.seeds import make_generator

import_torchvision("models")  # before timm and transformers do
IMAGES, LABELS = make_images(24)
INPUTS = IMAGES / 255
TRAIN = {"epochs": 2, "lr": 0.05, "seed": 0}
FIT = {"epochs": 2, "lr": 0.1, "points_per_step": 2, "seed": 3}


def batches_of(inputs, targets, size=8):
    """Return a list of pairs."""
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def loader_of(*tensors, batch_size=8, **settings):
    return DataLoader(TensorDataset(*tensors), batch_size=batch_size, **settings)


def states_after_training(build, *data, **settings):
    states = []
    for seed in range(4):
        torch.manual_seed(seed)
        network = build()
        ff.train(network, *data, **TRAIN | {"seed": seed} | settings)
        states.append(snapshot(network.state_dict()))
    return states


# --- other people's networks ----------------------------------------------------------------------


def text_classifier():
    import transformers

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=12, num_labels=CLASSES,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def test_a_text_classifier_of_transformers_is_trained_fitted_and_evaluated():
    """The label of a text is the token that it repeats; `labels` is in the batch, as collators
    give it, and texts of a batch are padded to the longest."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % CLASSES
    lengths = torch.randint(4, 9, (24,), generator=draw)
    texts = torch.randint(10, 50, (24, 8), generator=draw)
    texts[:, 1::2] = labels[:, None]
    mask = (torch.arange(8) < lengths[:, None]).long()
    texts = texts * mask
    items = [
        {"input_ids": text, "attention_mask": m, "labels": int(label)}
        for text, m, label in zip(texts, mask, labels, strict=True)
    ]

    def collate(chosen):
        longest = max(int(item["attention_mask"].sum()) for item in chosen)
        batch = {
            k: torch.stack([item[k] for item in chosen])[:, :longest] for k in list(items[0])[:2]
        }
        return batch | {"labels": torch.tensor([item["labels"] for item in chosen])}

    loader = DataLoader(items, batch_size=8, shuffle=True, collate_fn=collate)
    adamw = {"optimizer": "adamw", "lr": 0.01}
    surface = ff.BezierSurface.from_corners(
        states_after_training(text_classifier, loader, epochs=8, **adamw)
    )
    history = ff.fit(surface, text_classifier(), loader, **FIT | adamw)
    assert history["step"].tolist() == [3, 6]
    in_order = DataLoader(items, batch_size=8, collate_fn=collate)
    inputs = {"input_ids": texts, "attention_mask": mask}
    splits = {"loader": in_order, "tensors": (inputs, labels)}
    grid = ff.evaluate_grid(surface, text_classifier(), splits, points=3, batch_size=8)
    by_split = [rows.reset_index(drop=True) for _, rows in grid.groupby("split")]
    torch.testing.assert_close(
        torch.tensor(by_split[0]["nll"]), torch.tensor(by_split[1]["nll"]), rtol=0, atol=1e-3
    )  # padding changes the order of sums, and logits are rounded to float16
    corners = by_split[0][by_split[0]["u"].isin([0, 1]) & by_split[0]["v"].isin([0, 1])]
    assert (corners["accuracy"] > 0.9).all()


def test_a_network_of_timm_is_trained_fitted_and_evaluated():
    import timm

    def build():
        return timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=CLASSES)

    pictures = torch.nn.functional.interpolate(INPUTS, size=32).expand(-1, 3, -1, -1)
    loader = loader_of(pictures, LABELS, shuffle=True)
    states = states_after_training(build, loader, epochs=1)
    surface = ff.BezierSurface.from_corners(states)
    before = surface.control_points.clone()
    ff.fit(surface, build(), loader, **FIT | {"epochs": 1})
    assert (surface.control_points != before).any(dim=1)[list(surface.free_rows)].all()
    grid = ff.evaluate_grid(surface, build(), {"train": loader}, points=2)
    assert grid["nll"].notna().all()
    assert grid.groupby("statistics")["statistics_images"].first().to_dict() == {
        "own": 0, "reestimated": 24,
    }  # fmt: skip


class TwoInputs(nn.Module):
    """A regression of one number from two vectors, given in this order or by name."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 1), nn.Linear(2, 1)

    def forward(self, a, b):
        return (self.first(a) + self.second(b))[:, 0]


A, B = (torch.randn(20, k, generator=torch.Generator().manual_seed(k)) for k in (3, 2))
VALUES = A.sum(dim=1) - 2 * B[:, 1]
ITEMS = [((a, b), value) for a, b, value in zip(A, B, VALUES, strict=True)]
NAMED = [{"a": a, "b": b, "labels": value} for a, b, value in zip(A, B, VALUES, strict=True)]


@pytest.mark.parametrize(
    "data",
    [
        ((A, B), VALUES),
        ({"a": A.numpy(), "b": B.numpy()}, VALUES),
        (DataLoader(ITEMS, batch_size=8),),
        (DataLoader(NAMED, batch_size=8),),
    ],
    ids=["tuple", "dictionary", "loader of pairs", "loader of dictionaries"],
)
def test_a_regression_has_its_own_loss_and_metrics(data):
    own = {"loss_function": mse_loss}
    settings = own | {"schedule": "constant", "weight_decay": 0}
    size = {"batch_size": 8} if len(data) == 2 else {}
    states = states_after_training(TwoInputs, *data, epochs=40, **settings, **size)
    surface = ff.BezierSurface.from_corners(states)
    history = ff.fit(surface, TwoInputs(), *data, **FIT, **settings, **size)
    assert history["nll"].notna().all() and history["accuracy"].isna().all()
    metrics = {"worst": lambda outputs, targets: (outputs - targets).abs().max()}
    evaluation = ff.evaluate_points(
        surface, TwoInputs(), {"test": data if size else data[0]}, [(0, 0), (0.5, 0.5)],
        metrics=metrics, **own, **size,
    )  # fmt: skip
    table = evaluation.table
    for row, point in enumerate([(0, 0), (0.5, 0.5)]):
        network = TwoInputs()
        network.load_state_dict(surface.state_dict(*point))
        error = (network(A, B) - VALUES).detach()
        assert table["loss"][row] == pytest.approx(error.square().mean().item(), abs=1e-6)
        assert table["worst"][row] == pytest.approx(error.abs().max().item(), abs=1e-5)
    assert table["loss"][0] < 0.01
    grid = ff.evaluate_grid(surface, TwoInputs(), {"test": DataLoader(ITEMS, 8)}, points=3, **own)
    barrier = ff.measure_barriers(grid).iloc[0]
    assert barrier["metric"] == "loss" and barrier["max"] == grid["loss"].max()
    assert not {"nll", "accuracy", "ece", "brier"} & set(table)
    assert evaluation.logits == evaluation.nll == evaluation.correct == {}


def test_targets_and_outputs_may_be_of_several_tensors():
    class Both(TwoInputs):
        def forward(self, a, b):
            return {"sum": super().forward(a, b), "first": self.first(a)[:, 0]}

    def loss(output, targets):
        return mse_loss(output["sum"], targets[0]) + mse_loss(output["first"], targets[1])

    batches = [
        ((a, b), (y, a[:, 0]))
        for a, b, y in zip(A.split(4), B.split(4), VALUES.split(4), strict=True)
    ]
    states = states_after_training(Both, batches, epochs=1, loss_function=loss)
    surface = ff.BezierSurface.from_corners(states)
    ff.fit(surface, Both(), batches, **FIT, loss_function=loss)
    metrics = {"shift": lambda outputs, targets: (outputs["first"] - targets[1]).mean()}
    splits = {"test": ((A, B), (VALUES, A[:, 0])), "batches": batches}
    grid = ff.evaluate_grid(surface, Both(), splits, 2, loss_function=loss, metrics=metrics)
    for column in ("loss", "shift"):
        values = grid[column].to_numpy().reshape(-1, 2)
        np.testing.assert_allclose(values[:, 0], values[:, 1], atol=1e-5)


def test_a_classifier_keeps_its_columns_beside_metrics_of_ones_own():
    surface, network = make_surface("no-norm"), make_network("no-norm")
    seen = []
    metrics = {
        "right": lambda logits, y: seen.append(logits) or (logits.argmax(1) == y).float().mean()
    }
    splits = {"test": loader_of(INPUTS, LABELS)}
    plain = ff.evaluate_grid(surface, network, splits, points=2)
    own = ff.evaluate_grid(
        surface, network, splits, points=2, metrics=metrics,
        loss_function=nn.functional.cross_entropy,
    )  # fmt: skip
    assert own[plain.columns].equals(plain)
    assert own["right"].tolist() == pytest.approx(own["accuracy"].tolist())
    assert own["loss"].tolist() == pytest.approx(own["nll"].tolist(), abs=1e-3)
    assert all(logits.shape == (24, CLASSES) for logits in seen)


# --- equal to tensors -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["no-norm", "batchnorm", "bfloat16", "float64"])
@pytest.mark.parametrize("as_loader", [loader_of, batches_of])
def test_batches_in_order_are_evaluated_as_the_tensors_are(name, as_loader):
    inputs, network = INPUTS[:22], make_network(name)
    surface, loader = move_free_points(make_surface(name)), as_loader(inputs, LABELS[:22])
    tables = [
        ff.evaluate_grid(surface, network, {"train": split}, points=2, random=1, **size)
        for split, size in ((loader, {}), ((inputs, LABELS[:22]), {"batch_size": 8}))
    ]
    assert tables[0].equals(tables[1])
    predicted = [
        ff.predict(network, images, **size)
        for images, size in ((loader, {}), (inputs, {"batch_size": 8}))
    ]
    assert torch.equal(*predicted)
    states = {epoch: make_network(name, epoch).state_dict() for epoch in range(4)}
    ranked = [
        ff.select_corners(states, network, *data, batchnorm_images=data[0], **size)
        for data, size in (((loader,), {}), ((inputs, LABELS[:22]), {"batch_size": 8}))
    ]
    assert ranked[0].equals(ranked[1])
    networks = [make_network(name) for _ in range(2)]
    ff.reestimate_batchnorm(networks[0], loader)
    ff.reestimate_batchnorm(networks[1], inputs, batch_size=8)
    assert differing(*(network.state_dict() for network in networks)) == []


@pytest.mark.parametrize("name", ["batchnorm", "dropout"])
def test_training_on_batches_is_training_on_the_tensors_in_their_order(name):
    order = make_generator(0, "order")
    batches = [(IMAGES[index], LABELS[index]) for index in shuffled_batches(24, 8, order)]
    results = []
    for data, size in ((batches, {}), ((IMAGES, LABELS), {"batch_size": 8})):
        network, data = make_network(name), data if size else (data,)
        rows = ff.train(
            network, *data, **TRAIN | {"epochs": 1}, preprocess=input_of(network), **size
        )
        results.append((snapshot(network.state_dict()), rows["nll"][0], rows["accuracy"][0]))
    assert differing(results[0][0], results[1][0]) == []
    assert results[0][1:] == results[1][1:]


def test_augmentation_gets_inputs_and_never_the_stored_batches():
    batches = batches_of(IMAGES, LABELS)
    stored = IMAGES.clone()

    def augment(images, generator):
        drawn = torch.randint(256, images.shape, generator=generator, dtype=torch.uint8)
        return images.copy_(drawn)

    network = make_network("batchnorm")
    settings = {"augment": augment, "preprocess": input_of(network)}
    ff.train(network, batches, **TRAIN, **settings)
    evaluated = [
        ff.evaluate_grid(make_surface("batchnorm"), network, {"train": batches}, 2, **settings)
        for _ in range(2)
    ]
    assert evaluated[0].equals(evaluated[1])
    assert torch.equal(IMAGES, stored)


# --- seeds ----------------------------------------------------------------------------------------


class Noisy(Dataset):
    """Images with noise of every kind of global generator."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        noise = torch.rand(()) + np.random.rand() + random.random()  # noqa: NPY002
        return INPUTS[index] + 0.1 * noise, LABELS[index]


class OwnNoise(Noisy):
    """Images with noise of a generator of their own."""

    def __init__(self):
        self.draw = torch.Generator().manual_seed(3)

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return INPUTS[index] + torch.rand((), generator=self.draw), LABELS[index]


def test_a_sampler_that_draws_by_the_epoch_gets_another_one_each_time():
    orders = []

    class Noting(TensorDataset):
        def __getitem__(self, index):
            orders[-1].append(index)
            return super().__getitem__(index)

    data = Noting(INPUTS, LABELS)
    sampler = DistributedSampler(data, num_replicas=1, rank=0, shuffle=True)
    for seed in (0, 1, 0):
        orders.append([])
        loader = DataLoader(data, batch_size=8, sampler=sampler)
        ff.train(make_network("batchnorm"), loader, **TRAIN | {"seed": seed})
    assert orders[0] == orders[2] != orders[1]
    first, second = orders[0][:24], orders[0][24:]
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second


LOADERS = {
    "shuffle": lambda: DataLoader(Noisy(), batch_size=8, shuffle=True),
    "generator": lambda: DataLoader(
        Noisy(), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "sampler": lambda: DataLoader(
        Noisy(), batch_size=8, sampler=RandomSampler(Noisy(), generator=torch.Generator())
    ),
    "workers": lambda: DataLoader(
        Noisy(), batch_size=8, shuffle=True, num_workers=2, persistent_workers=True
    ),
    "concatenated": lambda: DataLoader(
        ConcatDataset([OwnNoise(), OwnNoise()]), batch_size=8, shuffle=True
    ),
}
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def random_states(loader):
    generators = [g for g in (loader.generator, loader.sampler.generator) if g is not None]
    torch_states = [torch.get_rng_state(), *(generator.get_state() for generator in generators)]
    return [s.tolist() for s in torch_states], random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


@forks
@pytest.mark.parametrize("kind", LOADERS)
def test_one_seed_and_one_loader_give_the_same_numbers_and_leave_all_generators(kind):
    loader, results = LOADERS[kind](), []
    for _ in range(2):
        for generator in (torch.manual_seed, random.seed, np.random.seed):
            generator(len(results))
        before = random_states(loader)
        network, surface = make_network("batchnorm"), make_surface("batchnorm")
        rows = ff.train(network, loader, **TRAIN)
        history = ff.fit(surface, network, loader, **FIT)
        grid = ff.evaluate_grid(surface, network, {"train": loader}, points=2)
        assert random_states(loader) == before
        results.append((rows["nll"][1], history["nll"].tolist(), grid["nll"].tolist()))
    assert results[0] == results[1]
    first, second = (
        rows["nll"][0],
        ff.train(make_network("batchnorm"), loader, **TRAIN | {"seed": 1}),
    )
    assert first != second["nll"][0]


class KilledError(Exception):
    pass


@forks
@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("last", [2, 3, 4])
def test_an_interrupted_run_continues_with_the_same_numbers(kind, last, tmp_path):
    loader = LOADERS[kind]()

    def stop(step, *_):
        if step == last + 1:
            raise KilledError

    def run(snapshots=None, on_step=None):
        network, surface = make_network("dropout"), make_surface("dropout")
        settings = {"snapshots": snapshots, "on_step": on_step}
        if snapshots is None or snapshots.folder.name == "fit":
            ff.fit(surface, network, loader, **FIT, **settings)
        if snapshots is None or snapshots.folder.name == "train":
            rows = ff.train(network, loader, **TRAIN, **settings)
            return surface.control_points, snapshot(network.state_dict()), rows["nll"].iloc[-1]
        return surface.control_points, None, None

    points, state, nll = run()
    for kind_of_run in ("fit", "train"):
        snapshots = [ff.Snapshots(tmp_path / kind_of_run, {}, 0, 1e9) for _ in range(2)]
        with pytest.raises(KilledError):
            run(snapshots[0], stop)
        assert snapshots[1].load()["step"] == last
        again = run(snapshots[1])
        if kind_of_run == "fit":
            assert torch.equal(again[0], points)
        else:
            assert differing(again[1], state) == []
            assert again[2] == nll


# --- which batches are used -----------------------------------------------------------------------


class Lengthy(IterableDataset):
    """A stream that says how long it is."""

    def __init__(self, says=22):
        self.says = says

    def __len__(self):
        return self.says

    def __iter__(self):
        return iter(zip(INPUTS[:22], LABELS[:22], strict=True))


def twice(examples):
    """Give each example twice, as repeated augmentation does."""
    return default_collate([example for example in examples for _ in range(2)])


@pytest.mark.parametrize(
    ("loader", "steps", "seen"),
    [
        (loader_of(INPUTS[:22], LABELS[:22]), 2, 16),  # of 8, 8 and 6
        (batches_of(INPUTS[:22], LABELS[:22]), 2, 16),
        (loader_of(INPUTS[:22], LABELS[:22], drop_last=True), 2, 16),
        (DataLoader(Lengthy(), batch_size=8), 2, 16),
        (loader_of(INPUTS[:22], LABELS[:22], collate_fn=twice), 2, 32),  # of 16, 16 and 12
        (loader_of(INPUTS[:16], LABELS[:16], collate_fn=twice), 2, 32),
        (DataLoader(batches_of(INPUTS, LABELS), batch_size=1, collate_fn=itemgetter(0)), 3, 24),
        ([(INPUTS[:n], LABELS[:n]) for n in (8, 12, 7, 6, 8)], 4, 34),  # 7 can't be divided by 2
        (loader_of(INPUTS, LABELS, batch_size=1, batch_sampler=2 * [range(6), range(4)]), 3, 16),
    ],
    ids=[
        *("loader", "list", "drop_last", "stream"),
        *("doubled", "doubled all", "batched before", "sizes", "batch_sampler"),
    ],
)
def test_incomplete_batches_and_those_that_cannot_be_divided_are_left_out(loader, steps, seen):
    calls = []
    history = ff.fit(
        make_surface("batchnorm"), make_network("batchnorm"), loader, boundary_epochs=1,
        on_step=lambda *call: calls.append(call), **FIT,
    )  # fmt: skip
    assert history["step"].tolist() == [steps, 2 * steps, 3 * steps]
    assert history["images_seen"].tolist() == [seen, 2 * seen, 3 * seen]
    assert [call[0] for call in calls] == list(range(1, 3 * steps + 1))
    assert calls[-1][3] == 3 * seen


# --- refused --------------------------------------------------------------------------------------


class Once:
    """Batches that can be iterated only once, though it doesn't say so."""

    def __init__(self):
        self.batches = iter(batches_of(INPUTS, LABELS))

    def __len__(self):
        return 3

    def __iter__(self):
        return self.batches


GOOD = batches_of(INPUTS, LABELS)
REFUSED = {
    "a generator": ((batch for batch in GOOD), "can't be iterated again"),
    "no length": (type("Endless", (), {"__iter__": lambda self: iter(GOOD)})(), "no len()"),
    "nothing": ([], "without a batch"),
    "a data set": (TensorDataset(INPUTS, LABELS), "DataLoader"),
    "tensors without labels": (INPUTS, "labels are NoneType"),
    "three parts": ([(INPUTS, INPUTS, LABELS)], "tuple of 3"),
    "a dictionary without labels": ([{"x": INPUTS}], "['x']"),
    "a text": ([({"x": ["text"] * 24}, LABELS)], "entry 'x'"),
    "different lengths": ([((INPUTS, INPUTS[:5]), LABELS)], "one entry per example"),
    "too few labels": ([(INPUTS, LABELS[:5])], "24 images but 5 labels"),
    "negative labels": ([(INPUTS, LABELS - 1)], "negative"),
    "labels from 1": ([(INPUTS, LABELS + 1)], "labels - 1"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_iterable_of_batches_is_one_message(kind):
    data, said = REFUSED[kind]
    network, surface = make_network("no-norm"), make_surface("no-norm")
    uses = [
        lambda: ff.train(network, data, **TRAIN),
        lambda: ff.fit(surface, network, data, **FIT),
    ]
    if kind != "tensors without labels":
        uses.append(lambda: ff.evaluate_grid(surface, network, {"test": data}, points=2))
    for use in uses:
        with pytest.raises(ff.InputError) as caught:
            use()
        assert said in str(caught.value)
        assert len(str(caught.value)) < 400


def test_settings_that_do_not_go_with_a_loader_are_one_message():
    network, surface = make_network("batchnorm"), make_surface("batchnorm")
    loader, size = loader_of(INPUTS, LABELS), {"batch_size": 8}
    splits = {"train": loader}
    named = [({"input": x}, y) for x, y in GOOD]
    for said, use in {
        "leave batch_size out": lambda: ff.train(network, loader, **TRAIN, **size),
        "batch_size is 8, but": lambda: ff.fit(surface, network, loader, **FIT, **size),
        "have their size": lambda: ff.evaluate_grid(surface, network, splits, 2, **size),
        "leave batch_size": lambda: ff.predict(network, loader, **size),
        "of batches, which": lambda: ff.reestimate_batchnorm(network, loader, **size),
        "without labels, an iterable": lambda: ff.train(network, loader, LABELS, **TRAIN),
        "multiple of the points": lambda: ff.fit(
            surface, network, loader, **FIT | {"points_per_step": 3}
        ),
        "at least 16": lambda: ff.fit(surface, network, GOOD, **FIT | {"points_per_step": 8}),
        "complete": lambda: ff.train(network, loader_of(INPUTS[:5], LABELS[:5]), **TRAIN),
        "cuda_graph is True": lambda: ff.train(network, named, **TRAIN, cuda_graph=True),
        "['nll']": lambda: ff.evaluate_grid(surface, network, splits, 2, metrics={"nll": max}),
        "metric 'm' returned": lambda: ff.evaluate_grid(
            surface, network, splits, 2, metrics={"m": lambda x, y: x}
        ),
        "gave no batch": lambda: ff.train(network, Once(), **TRAIN),
        "batches of at least 2": lambda: ff.reestimate_batchnorm(
            network, [(INPUTS[:1], LABELS[:1])] * 2
        ),
        "more than the 1": lambda: ff.train(
            network, DataLoader(Lengthy(says=8), batch_size=8), **TRAIN
        ),
    }.items():
        with pytest.raises(ff.InputError) as caught:
            use()
        assert said in str(caught.value)
        assert len(str(caught.value)) < 400


class Permuted:
    """Batches in another order each time, by a generator that nobody can know of."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 3

    def __iter__(self):
        return iter(self.draw(GOOD))


def test_each_network_is_evaluated_on_the_same_examples_in_the_same_order():
    surface, network = make_surface("no-norm"), make_network("no-norm")
    own = random.Random(0)
    by_global = Permuted(lambda batches: random.sample(batches, 3))
    grid = ff.evaluate_grid(surface, network, {"test": by_global}, points=2)
    expected = ff.evaluate_grid(surface, network, {"test": GOOD}, points=2)
    assert grid["nll"].tolist() == pytest.approx(expected["nll"].tolist())
    differently = Permuted(lambda batches: [(x, y.roll(own.randrange(8))) for x, y in batches])
    with pytest.raises(ff.InputError, match="other targets each time"):
        ff.evaluate_grid(surface, network, {"test": differently}, points=2)
