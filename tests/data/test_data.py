"""Laws of the data: splits, files, batches, normalization, augmentation."""

import dataclasses
import hashlib

import pytest
import torch
from torch.nn.functional import pad

from fourfold.data.augment import RandomShiftFlip, augment_once
from fourfold.data.batches import Normalize, iterate_batches, shuffled_batches, to_float
from fourfold.data.dataset import Dataset, Split
from fourfold.data.sources import Source
from fourfold.data.splitting import shared_images, split_source
from fourfold.errors import InputError
from fourfold.files.tensors import load_tensors, save_tensors

NAMES = ("train", "val", "test")
SIZES = {"train_images": 60, "val_images": 30, "test_images": 30}


def make_source(n=150, published_test=None) -> Source:
    """Three classes in shares 1/2, 1/3, 1/6, sorted; no two images are equal."""

    def draw(count, first):
        rows = torch.arange(count)
        labels = (6 * rows // count).apply_(lambda k: (0, 0, 0, 1, 1, 2)[k])
        code = first + rows
        images = torch.stack([code % 256, code // 256, 40 * labels + 10, 0 * code], dim=1)
        return images.view(-1, 1, 2, 2).to(torch.uint8), labels

    test = None if published_test is None else draw(published_test, first=2000)
    return Source(["a", "b", "c"], *draw(n, first=0), test)


def make_groups(published_test=None) -> Source:
    """Return a source whose images come in groups, such as writers, that have all its classes."""
    return dataclasses.replace(make_source(150, published_test), labels=torch.arange(150) % 3)


def make_rare(*counts, published_test=None) -> Source:
    """Return a source with so many images of each class, sorted."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.arange(len(labels)).view(-1, 1, 1, 1).to(torch.uint8)
    if published_test is not None:
        published_test = (images[: len(published_test)], torch.tensor(published_test))
    return Source([f"class {k}" for k in range(len(counts))], images, labels, published_test)


def make_dataset(seed=0, source=None, by="chance", **sizes) -> Dataset:
    return split_source(source or make_source(), "toy", by=by, seed=seed, **(SIZES | sizes))


def check_refused(said, call, *arguments, **settings):
    """Check that a call ends in a message with all these parts."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **settings)
    for part in said:
        assert part in str(caught.value)


# --- splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("published", [None, 60])
def test_splits_are_disjoint_samples_with_the_class_shares_of_the_whole(published, seed):
    source = make_source(published_test=published)
    splits = make_dataset(seed, source).splits
    codes = torch.cat([split.images.flatten(1)[:, :2] for split in splits.values()])
    assert len(codes.unique(dim=0)) == len(codes) == 120
    for name, split in splits.items():
        images, labels = source.images, source.labels
        if published and name == "test":
            images, labels = source.test
        assert torch.equal(split.images, images[split.index])
        assert torch.equal(split.labels, labels[split.index])
        shares = torch.tensor([1 / 2, 1 / 3, 1 / 6], dtype=torch.float64)
        counts = split.labels.bincount(minlength=3).double()
        assert (counts - len(split) * shares).abs().max() <= 1


@pytest.mark.parametrize("source", [make_source(), make_source(published_test=60)])
def test_the_seed_alone_decides_the_split(source):
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), make_dataset(1, source)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = make_dataset(1, source), make_dataset(2, source)
    for name in NAMES:
        assert torch.equal(first.splits[name].index, again.splits[name].index)
        assert not torch.equal(first.splits[name].index, other.splits[name].index)
    assert first.sha256() == again.sha256() != other.sha256()


@pytest.mark.parametrize(
    ("published", "sizes", "expected"),
    [
        (None, {}, [60, 30, 30]),
        (None, {"train_images": None}, [90, 30, 30]),
        (60, {"train_images": None}, [120, 30, 30]),
        (60, {"train_images": None, "test_images": None}, [120, 30, 60]),
    ],
)
def test_none_takes_all_that_are_left_and_the_first_rows_are_a_sample(published, sizes, expected):
    splits = make_dataset(source=make_source(published_test=published), **sizes).splits
    assert [len(splits[name]) for name in NAMES] == expected
    for split in splits.values():  # the source is sorted by class
        assert len(split.first(len(split) // 2).labels.unique()) == 3


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"val_images": 2}, ["val_images is 2", "from 3", "to 117"]),
        ({"test_images": 151}, ["test_images is 151", "to 144"]),
        ({"train_images": 91}, ["train_images is 91", "to 90"]),
        ({"test_images": None}, ["test_images is null", "give a number"]),
    ],
)
def test_an_impossible_size_is_refused_with_its_key_value_and_range(sizes, said):
    check_refused(["datasets.toy.", *said], make_dataset, **sizes)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("source", "sizes"),
    [
        (make_rare(147, 3), {"train_images": None}),
        (make_rare(147, 3), {"train_images": 20, "val_images": 2, "test_images": 2}),
        (make_rare(60, 60, *[3] * 10), {}),
        (make_rare(*[3] * 50), {"train_images": 50, "val_images": 50, "test_images": 50}),
        (make_rare(3, 147), {"train_images": 2, "val_images": 2, "test_images": 146}),
        (make_rare(98, 2, published_test=[0, 1, 0]), {"val_images": 10, "test_images": 2}),
    ],
)
def test_a_class_of_one_image_per_split_has_one_in_every_split(source, sizes, seed):
    dataset = make_dataset(seed, source, **sizes)
    for name, split in dataset.splits.items():
        assert split.labels.unique().tolist() == list(range(len(source.classes)))
        assert (SIZES | sizes)[f"{name}_images"] in (len(split), None)
    names = NAMES if source.test is None else NAMES[:2]
    rows = torch.cat([dataset.splits[name].index for name in names])
    assert len(rows.unique()) == len(rows)


@pytest.mark.parametrize("by", ["chance", "rows"])
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (make_rare(147, 2, 1), ["2 of 3 classes", "fewer than 3", "'class 1' (2), 'class 2' (1)"]),
        (make_rare(148, 1, published_test=[0, 1]), ["fewer than 2", "'class 1' (1)"]),
        (make_rare(100, 50, published_test=[0] * 60), ["'class 1' (0)", "the published test set"]),
        (make_rare(150), ["the one class 'class 0'", "needs two"]),
    ],
)
def test_a_class_too_small_for_every_split_is_refused_by_name_and_count(source, said, by):
    check_refused(["'toy'", *said], make_dataset, source=source, by=by)


def test_images_that_two_splits_share_are_counted():
    splits = make_dataset().splits
    assert shared_images(splits) == []
    images = splits["val"].images.clone()
    images[[3, 4, 5]] = splits["train"].images[[7, 7, 9]]
    splits["val"] = dataclasses.replace(splits["val"], images=images)
    (line,) = shared_images(splits)
    assert line.startswith("3 of 30 images of val are in train too")


def test_the_images_that_some_settings_draw_are_those_that_they_have_always_drawn():
    labels = torch.arange(50_000) % 10
    images = torch.zeros(50_000, 1, 1, 1, dtype=torch.uint8)
    source = Source([*"abcdefghij"], images, labels, (images[:10_000], labels[:10_000]))
    sizes = {"train_images": 10_000, "val_images": 2_000, "test_images": None}
    splits = make_dataset(0, source, **sizes).splits
    rows = torch.cat([splits[name].index for name in NAMES])
    assert hashlib.sha256(rows.numpy().tobytes()).hexdigest().startswith("c5ac7ee17fb8d187")


# --- splits by rows -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("published", "sizes", "starts"),
    [
        (None, {}, [30, 90, 120]),  # what is not needed is left out at the start
        (None, {"train_images": None}, [0, 90, 120]),
        (60, {"train_images": None}, [0, 120]),
    ],
)
def test_rows_are_blocks_in_the_sources_order_each_shuffled_by_the_seed(published, sizes, starts):
    source = make_groups(published)
    first, other = (make_dataset(seed, source, "rows", **sizes).splits for seed in (1, 2))
    for name, start in zip(NAMES, starts, strict=False):
        index = first[name].index
        assert torch.equal(index.sort().values, torch.arange(start, start + len(index)))
        assert torch.equal(index.sort().values, other[name].index.sort().values)
        assert not torch.equal(index, other[name].index)
    if published:  # the published test set is drawn by chance whatever the rest
        by_chance = make_dataset(1, source, **sizes).splits["test"]
        assert torch.equal(first["test"].index, by_chance.index)


@pytest.mark.parametrize(
    ("split", "block"),
    [("train", slice(30, 90)), ("val", slice(90, 120)), ("test", slice(120, 150))],
)
def test_a_block_of_rows_that_lacks_a_class_is_refused_with_its_key_and_the_cure(split, block):
    source = make_groups()
    source.labels[block].clamp_(max=1)
    said = f"datasets.toy.split.{split}_images is {block.stop - block.start}"
    said = [said, "lacks 1 of 3 classes (c)", "split.by to chance"]
    check_refused(said, make_dataset, source=source, by="rows")
    make_dataset(source=source, by="chance")


# --- data sets and files --------------------------------------------------------------------------


def test_a_round_trip_through_files_changes_nothing_and_equal_data_are_equal_files(tmp_path):
    dataset = make_dataset()
    for folder in ("a", "b"):
        make_dataset().save(tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    loaded = Dataset.load(tmp_path / "a")
    for name, split in dataset.splits.items():
        for field in ("images", "labels", "index"):
            assert torch.equal(getattr(split, field), getattr(loaded.splits[name], field))
    assert (loaded.name, loaded.classes) == ("toy", ("a", "b", "c"))
    assert (loaded.mean, loaded.std) == (dataset.mean, dataset.std)
    assert loaded.sha256() == dataset.sha256()
    assert loaded.image_shape == (1, 2, 2)


@pytest.mark.parametrize(("classes", "chosen"), [([2, 0], {0, 2}), (0.4, {0}), (0.5, {0, 1})])
def test_the_images_of_some_classes_keep_labels_index_and_order(classes, chosen):
    dataset = make_dataset()
    whole, some = dataset.splits["train"], dataset.of_classes("train", classes)
    rows = [k for k, label in enumerate(whole.labels.tolist()) if label in chosen]
    assert 0 < len(some) == len(rows) < len(whole)
    for field in ("images", "labels", "index"):
        assert torch.equal(getattr(some, field), getattr(whole, field)[rows])


def test_what_has_been_hashed_is_not_hashed_again_but_a_changed_copy_is(tmp_path, monkeypatch):
    make_dataset().save(tmp_path)
    train = Dataset.load(tmp_path).splits["train"]
    changed = dataclasses.replace(train, images=255 - train.images)
    assert changed.sha256 != train.sha256 != train.first(5).sha256
    monkeypatch.setattr(hashlib, "sha256", None)
    assert train.sha256


def change(name, of_tensors=lambda tensors: None, of_header=lambda header: None):
    """Return a function that writes a split again, with other tensors or another header."""

    def write(folder):
        tensors, header = load_tensors(folder / f"{name}.safetensors")
        of_tensors(tensors)
        of_header(header)
        save_tensors(tensors, folder / f"{name}.safetensors", header)

    return write


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (change("val", lambda tensors: tensors["images"][3, 0, 1, 1].add_(1)), "the hash"),
        (change("val", lambda tensors: tensors.pop("index")), "no prepared val split"),
        (change("val", of_header=lambda header: header.pop("mean")), "lacks ['mean']"),
        (change("val", of_header=lambda header: header.update(std=3)), "'std', which must be"),
        (change("val", of_header=lambda header: header.update(dataset="x")), "differ in dataset"),
        (
            lambda folder: (folder / "train.safetensors").replace(folder / "val.safetensors"),
            "no file",
        ),
        (
            lambda folder: (folder / "test.safetensors").replace(folder / "val.safetensors"),
            "no prepared val split",
        ),
    ],
)
def test_files_that_are_missing_exchanged_or_changed_are_refused(damage, said, tmp_path):
    make_dataset().save(tmp_path)
    damage(tmp_path)
    check_refused([str(tmp_path), said], Dataset.load, tmp_path)


def test_splits_of_images_of_different_shapes_are_refused():
    splits = make_dataset().splits
    splits["val"] = dataclasses.replace(splits["val"], images=splits["val"].images[..., :1])
    said = ["'toy'", "'val': (1, 2, 1)", "`size`"]
    check_refused(said, Dataset.from_splits, "toy", ["a", "b", "c"], splits)


def test_mean_and_deviation_are_those_of_the_train_pixels_and_are_normalized_away():
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1500, 3, 3, 5), generator=draw).to(torch.uint8)
    images[:, 1] //= 4
    split = Split(images, torch.arange(1500) % 2, torch.arange(1500))
    other = dataclasses.replace(split, images=255 - images)
    splits = {"train": split, "val": other, "test": other}
    dataset = Dataset.from_splits("noise", ["a", "b"], splits)
    pixels = images.transpose(0, 1).flatten(1).double() / 255
    assert dataset.mean == pytest.approx(pixels.mean(1).tolist(), rel=1e-12)
    assert dataset.std == pytest.approx(pixels.std(1).tolist(), rel=1e-12)
    normalized = dataset.normalize(images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(normalized.mean(1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(normalized.std(1), torch.ones(3), rtol=1e-4, atol=0)


def test_a_constant_channel_can_be_normalized():
    images = torch.full((6, 1, 2, 2), 7, dtype=torch.uint8)
    splits = dict.fromkeys(NAMES, Split(images, torch.arange(6) % 2, torch.arange(6)))
    dataset = Dataset.from_splits("flat", ["a", "b"], splits)
    assert torch.isfinite(dataset.normalize(images)).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalization_changes_no_input(dtype):
    images = torch.arange(96).view(2, 3, 4, 4).to(dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    before = images.clone()
    normalized = Normalize([0.5] * 3, [0.25] * 3)(images)
    assert torch.equal(images, before)
    torch.testing.assert_close(normalized, (before.float() / 255 - 0.5) / 0.25)


def test_to_float_maps_bytes_to_the_unit_interval_and_leaves_floats():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8)
    torch.testing.assert_close(to_float(images), torch.tensor([0.0, 0.2, 1.0]))
    floats = torch.tensor([0.5, 3.0], dtype=torch.float64)
    assert to_float(floats) is floats


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 5, 12, 13])
@pytest.mark.parametrize("batch_size", [1, 4, 12, 100])
@pytest.mark.parametrize("smallest", [1, 2])
def test_batches_cover_everything_once_in_order(n, batch_size, smallest):
    batches = list(iterate_batches(n, batch_size, smallest))
    assert torch.cat([torch.arange(n)[batch] for batch in batches]).tolist() == list(range(n))
    sizes = [batch.stop - batch.start for batch in batches]
    assert all(size == batch_size for size in sizes[:-1])
    assert n < smallest or min(sizes) >= smallest or batch_size < smallest


def test_batches_of_nothing_are_refused_rather_than_endless():
    check_refused(["batch_size is 0"], next, iterate_batches(3, 0))


def test_an_epoch_shows_each_image_at_most_once_in_full_batches_and_a_new_order():
    draw = torch.Generator().manual_seed(0)
    epochs = [list(shuffled_batches(11, 4, draw)) for _ in range(2)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [4, 4]
        assert len(torch.cat(batches).unique()) == 8
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    again = torch.cat(list(shuffled_batches(11, 4, torch.Generator().manual_seed(0))))
    assert torch.equal(again, torch.cat(epochs[0]))


# --- augmentation ---------------------------------------------------------------------------------


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(n=400, channels=1, size=5):
    """Images without zeros, in which every pixel of an image is different."""
    one = torch.arange(1, channels * size * size + 1).view(channels, size, size)
    return one.to(torch.uint8).repeat(n, 1, 1, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_each_image_is_shifted_and_flipped_by_its_own_draw_with_background_moving_in(
    shift, flip, channels
):
    images = numbered(channels=channels)
    before = images.clone()
    augmented = RandomShiftFlip(shift, flip)(images, generator())
    assert (augmented.shape, augmented.dtype) == (images.shape, torch.uint8)
    padded = pad(images[0], [shift] * 4)
    places = range(2 * shift + 1)
    shifted = [padded[:, y : y + 5, x : x + 5] for y in places for x in places]
    expected = torch.stack(shifted + [image.flip(2) for image in shifted] * flip)
    matches = (augmented[:, None] == expected).flatten(2).all(2)
    assert (matches.sum(dim=1) == 1).all()
    # All are drawn, about equally often: five deviations of a binomial count.
    counts, mean = matches.sum(dim=0), len(images) / len(expected)
    assert ((counts - mean).abs() < 5 * mean**0.5).all()
    augmented.zero_()
    assert torch.equal(images, before)


def test_augmentation_is_decided_by_its_generator_alone():
    augment, images = RandomShiftFlip(1, True), numbered()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augment(images, generator(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(augment(images, generator(3)), first)
    assert not torch.equal(augment(images, generator(4)), first)


@pytest.mark.parametrize("n", [1, 999, 1000, 2300])
def test_images_augmented_once_are_each_there_once_and_in_their_order(n):
    images = (torch.arange(n) % 251 + 1).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    draws = ((0, "stream"), (0, "stream"), (1, "stream"), (0, "other"))
    first, again, *others = (augment_once(images, RandomShiftFlip(1, True), *one) for one in draws)
    assert torch.equal(first.amax(dim=(2, 3)), images[:, :, 0, 0])
    assert torch.equal(first, again)
    assert n == 1 or not any(torch.equal(first, other) for other in others)
    assert augment_once(images, None, 0, "stream") is images


def test_a_negative_shift_is_refused():
    check_refused(["augment.shift is -1"], RandomShiftFlip, -1, False)
