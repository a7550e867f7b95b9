"""Laws of the data: splits, files, batches, normalization, augmentation."""

import dataclasses
import hashlib

import pytest
import torch

from fourfold.data.augment import RandomShiftFlip, augment_once
from fourfold.data.batches import Normalize, iterate_batches, shuffled_batches, to_float
from fourfold.data.dataset import Dataset, Split
from fourfold.data.sources import Source
from fourfold.data.splitting import shared_images, split_source
from fourfold.errors import InputError
from fourfold.files.tensors import load_tensors, save_tensors

SPLIT = {"by": "chance", "train_images": 60, "val_images": 30, "test_images": 30}


def make_source(n=150, published_test=None) -> Source:
    """Three classes in shares 1/2, 1/3, 1/6, sorted; no two images are equal."""

    def draw(count, first):
        rows = torch.arange(count)
        labels = (6 * rows // count).apply_(lambda k: (0, 0, 0, 1, 1, 2)[k])
        code = first + rows
        images = torch.stack([code % 256, code // 256, 40 * labels + 10, 0 * code], dim=1)
        return images.view(-1, 1, 2, 2).to(torch.uint8), labels

    images, labels = draw(n, first=0)
    test = None if published_test is None else draw(published_test, first=2000)
    return Source(["a", "b", "c"], images, labels, test)


def make_dataset(seed=0, source=None, **sizes) -> Dataset:
    return split_source(source or make_source(), "toy", seed=seed, **(SPLIT | sizes))


# --- splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("published", [None, 36])
def test_no_image_is_in_two_splits_or_twice_in_one(seed, published):
    source = make_source(published_test=published)
    dataset = make_dataset(seed, source, test_images=30)
    codes = torch.cat([s.images.flatten(1)[:, :2] for s in dataset.splits.values()])
    assert len(codes.unique(dim=0)) == len(codes) == 120


@pytest.mark.parametrize("published", [None, 60])
def test_every_row_keeps_its_label_and_records_where_it_came_from(published):
    source = make_source(published_test=published)
    for name, split in make_dataset(source=source).splits.items():
        images, labels = source.images, source.labels
        if published and name == "test":
            images, labels = source.test
        assert torch.equal(split.images, images[split.index])
        assert torch.equal(split.labels, labels[split.index])


@pytest.mark.parametrize("published", [None, 60])
@pytest.mark.parametrize("seed", range(3))
def test_every_split_has_the_class_shares_of_the_whole(seed, published):
    for split in make_dataset(seed, make_source(published_test=published)).splits.values():
        counts = split.labels.bincount(minlength=3).double()
        shares = torch.tensor([1 / 2, 1 / 3, 1 / 6], dtype=torch.float64)
        assert (counts - len(split) * shares).abs().max() <= 1


@pytest.mark.parametrize("source", [make_source(), make_source(published_test=60)])
def test_one_seed_gives_one_split_and_another_seed_another(source):
    first, second, other = (make_dataset(seed, source) for seed in (1, 1, 2))
    for name in ("train", "val", "test"):
        assert torch.equal(first.splits[name].index, second.splits[name].index)
        assert not torch.equal(first.splits[name].index, other.splits[name].index)
    assert first.sha256() == second.sha256() != other.sha256()


def test_the_global_generators_neither_matter_nor_move():
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), make_dataset()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert make_dataset().sha256() == first.sha256()


@pytest.mark.parametrize(
    ("published", "sizes"),
    [
        (None, {}),
        (None, {"train_images": None}),
        (60, {}),
        (60, {"train_images": None}),
        (60, {"test_images": None}),
    ],
)
def test_rows_are_in_random_order_so_that_the_first_ones_are_a_sample(published, sizes):
    dataset = make_dataset(source=make_source(published_test=published), **sizes)
    for name, split in dataset.splits.items():
        start = split.first(len(split) // 2)
        assert len(start.labels.unique()) == 3, name  # the source is sorted by class


def test_none_takes_everything_that_is_left():
    whole = make_dataset(train_images=None)
    assert [len(whole.splits[name]) for name in ("train", "val", "test")] == [90, 30, 30]
    published = make_dataset(
        source=make_source(published_test=36), train_images=None, test_images=None
    )
    assert [len(published.splits[n]) for n in ("train", "val", "test")] == [120, 30, 36]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"val_images": 0}, ["val_images is 0", "from 3", "to 117"]),
        ({"val_images": 2}, ["val_images is 2", "from 3"]),
        ({"test_images": 151}, ["test_images is 151", "to 144"]),
        ({"train_images": 91}, ["train_images is 91", "to 90"]),
        ({"train_images": -1}, ["train_images is -1"]),
        ({"test_images": None}, ["test_images is null", "give a number"]),
        ({"val_images": None}, ["val_images is null", "give a number"]),
    ],
)
def test_an_impossible_size_is_refused_with_its_key_value_and_range(sizes, said):
    with pytest.raises(InputError) as caught:
        make_dataset(**sizes)
    for part in ("datasets.toy.", *said):
        assert part in str(caught.value)


def make_rare(*counts, published_test=None) -> Source:
    """Return a source with so many images of each class, sorted."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.arange(len(labels)).view(-1, 1, 1, 1).to(torch.uint8)
    test = None if published_test is None else (images[: len(published_test)], published_test)
    return Source([f"class {k}" for k in range(len(counts))], images, labels, test)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ((147, 3), {"train_images": None}),
        ((147, 3), {"train_images": 20, "val_images": 2, "test_images": 2}),
        ((60, 60, *[3] * 10), {}),
        ((3,) * 50, {"train_images": 50, "val_images": 50, "test_images": 50}),
        ((3, 147), {"train_images": 2, "val_images": 2, "test_images": 146}),
    ],
)
def test_a_class_of_three_images_has_one_in_every_split(counts, sizes, seed):
    dataset = make_dataset(seed, make_rare(*counts), **sizes)
    for split in dataset.splits.values():
        assert split.labels.unique().tolist() == list(range(len(counts)))
    rows = torch.cat([split.index for split in dataset.splits.values()])
    assert len(rows.unique()) == len(rows)
    asked = SPLIT | sizes
    for name, split in dataset.splits.items():
        assert asked[f"{name}_images"] in (len(split), None)


def test_a_class_of_two_images_is_divided_where_a_test_set_is_published():
    published = torch.tensor([0, 1, 0, 0])
    source = make_rare(98, 2, published_test=published)
    splits = make_dataset(source=source, val_images=10, train_images=40, test_images=2).splits
    assert {
        name: split.labels.bincount()[1].item() for name, split in splits.items()
    } == dict.fromkeys(splits, 1)


@pytest.mark.parametrize("by", ["chance", "rows"])
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (make_rare(147, 2, 1), ["2 of 3 classes", "fewer than 3", "'class 1' (2), 'class 2' (1)"]),
        (make_rare(147, 3, 0), ["1 of 3 classes", "'class 2' (0)"]),
        (make_rare(148, 1, published_test=torch.tensor([0, 1])), ["fewer than 2", "'class 1' (1)"]),
        (
            make_rare(100, 50, published_test=torch.zeros(60, dtype=torch.int64)),
            ["'class 1' (0)", "the published test set"],
        ),
        (make_rare(150), ["the one class 'class 0'", "needs two"]),
    ],
)
def test_a_class_too_small_for_every_split_is_refused_by_name_and_count(source, said, by):
    with pytest.raises(InputError) as caught:
        make_dataset(source=source, by=by)
    for part in ("'toy'", *said):
        assert part in str(caught.value)


def test_images_that_two_splits_share_are_counted():
    splits = make_dataset().splits
    assert shared_images(splits) == []
    images = splits["val"].images.clone()
    images[[3, 4, 5]] = splits["train"].images[[7, 7, 9]]
    splits["val"] = dataclasses.replace(splits["val"], images=images)
    (line,) = shared_images(splits)
    assert line.startswith("3 of 30 images of val are in train too")


def test_50000_images_are_split_within_seconds_into_disjoint_stratified_parts():
    labels = torch.arange(50_000) % 10
    source = Source([*"abcdefghij"], torch.zeros(50_000, 1, 1, 1, dtype=torch.uint8), labels)
    source = dataclasses.replace(source, test=(source.images[:10_000], labels[:10_000]))
    sizes = {"train_images": 10_000, "val_images": 2_000, "test_images": None}
    splits = split_source(source, "toy", by="chance", seed=0, **sizes).splits
    assert [len(splits[name]) for name in ("train", "val", "test")] == [10_000, 2_000, 10_000]
    rows = torch.cat([splits["train"].index, splits["val"].index])
    assert len(rows.unique()) == 12_000
    rows = torch.cat([rows, splits["test"].index]).numpy().tobytes()
    # The images that these settings have always drawn.
    assert hashlib.sha256(rows).hexdigest() == (
        "c5ac7ee17fb8d187fa1acd5caac8bf010a52165f0e7a74ab0297380163847634"
    )
    for split in splits.values():
        assert split.labels.bincount().tolist() == [len(split) // 10] * 10


# --- splits by rows -------------------------------------------------------------------------------


def make_groups(groups=6, published_test=None) -> Source:
    """Return a source whose images come in groups of 25, such as writers, with all its classes."""
    source = make_source(25 * groups, published_test)
    return dataclasses.replace(source, labels=torch.arange(25 * groups) % 3)


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_blocks_in_the_sources_order_train_first_and_test_last(seed):
    splits = make_dataset(seed, make_groups(), by="rows").splits
    blocks = {name: split.index.sort().values for name, split in splits.items()}
    for block in blocks.values():
        assert torch.equal(block, torch.arange(int(block[0]), int(block[0]) + len(block)))
    assert int(blocks["train"][-1]) < int(blocks["val"][0])
    assert int(blocks["val"][-1]) < int(blocks["test"][0])
    assert int(blocks["test"][-1]) == 149
    assert [len(blocks[name]) for name in ("train", "val", "test")] == [60, 30, 30]


def test_a_group_of_rows_is_in_two_splits_only_where_a_block_ends():
    sizes = {"train_images": 75, "val_images": 25, "test_images": 50}
    groups = {}
    for by in ("rows", "chance"):
        splits = make_dataset(source=make_groups(), by=by, **sizes).splits.values()
        groups[by] = [set((split.index // 25).tolist()) for split in splits]
    assert sum(map(len, groups["rows"])) == 6
    assert sum(map(len, groups["chance"])) > 12


def test_rows_are_in_random_order_inside_their_block_and_the_seed_decides_it():
    first, again, other = (make_dataset(s, make_groups(), by="rows").splits for s in (1, 1, 2))
    for name in ("train", "val", "test"):
        index = first[name].index
        assert torch.equal(index, again[name].index)
        assert not torch.equal(index, other[name].index)
        assert torch.equal(index.sort().values, other[name].index.sort().values)
        assert not torch.equal(index, index.sort().values)


def test_rows_leave_out_the_ones_before_train_where_there_are_too_many():
    whole = make_dataset(source=make_groups(), by="rows", train_images=None).splits["train"]
    assert torch.equal(whole.index.sort().values, torch.arange(90))
    part = make_dataset(source=make_groups(), by="rows").splits["train"]
    assert torch.equal(part.index.sort().values, torch.arange(30, 90))


def test_a_published_test_set_is_drawn_by_chance_whatever_the_rest():
    source = make_groups(published_test=60)
    by_rows, by_chance = (make_dataset(source=source, by=by).splits for by in ("rows", "chance"))
    assert torch.equal(by_rows["test"].index, by_chance["test"].index)
    counts = by_rows["test"].labels.bincount().tolist()
    assert counts == [15, 10, 5]
    assert torch.equal(by_rows["val"].index.sort().values, torch.arange(120, 150))


@pytest.mark.parametrize("split", ["test", "val", "train"])
def test_a_block_of_rows_that_lacks_a_class_is_refused_with_its_key_and_the_cure(split):
    source = make_groups()
    labels = source.labels.clone()
    block = {"train": slice(30, 90), "val": slice(90, 120), "test": slice(120, 150)}[split]
    labels[block][labels[block] == 2] = 0
    size = block.stop - block.start
    with pytest.raises(InputError) as caught:
        make_dataset(source=dataclasses.replace(source, labels=labels), by="rows")
    for said in (
        f"datasets.toy.split.{split}_images is {size}",
        "lacks 1 of 3 classes (c)",
        "split.by to chance",
    ):
        assert said in str(caught.value)
    make_dataset(source=dataclasses.replace(source, labels=labels), by="chance")


@pytest.mark.parametrize("by", ["block", "", "Rows"])
def test_another_way_to_split_is_refused_with_its_key_and_the_choices(by):
    with pytest.raises(
        InputError, match=rf"datasets\.toy\.split\.by is '{by}'; choose chance or rows"
    ):
        make_dataset(by=by)


# --- data sets and files --------------------------------------------------------------------------


def test_a_round_trip_through_files_changes_nothing(tmp_path):
    dataset = make_dataset()
    dataset.save(tmp_path)
    loaded = Dataset.load(tmp_path)
    for name, split in dataset.splits.items():
        for field in ("images", "labels", "index"):
            assert torch.equal(getattr(split, field), getattr(loaded.splits[name], field))
    assert (loaded.name, loaded.classes) == ("toy", ("a", "b", "c"))
    assert (loaded.mean, loaded.std) == (dataset.mean, dataset.std)
    assert loaded.sha256() == dataset.sha256()
    assert loaded.image_shape == (1, 2, 2)


def test_what_load_has_hashed_is_not_hashed_again_but_a_changed_copy_is(tmp_path, monkeypatch):
    make_dataset().save(tmp_path)
    loaded = Dataset.load(tmp_path)
    train = loaded.splits["train"]
    assert (
        loaded.splits["train"].sha256() == train.sha256() == make_dataset().splits["train"].sha256()
    )
    changed = dataclasses.replace(train, images=255 - train.images)
    assert changed.sha256() != train.sha256() != train.first(5).sha256()
    monkeypatch.setattr(hashlib, "sha256", None)
    assert train.sha256()


def test_two_preparations_write_equal_bytes(tmp_path):
    for folder in ("a", "b"):
        make_dataset().save(tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_changed_pixel_is_noticed(tmp_path):
    make_dataset().save(tmp_path)
    tensors, header = load_tensors(tmp_path / "val.safetensors")
    tensors["images"][3, 0, 1, 1] += 1
    save_tensors(tensors, tmp_path / "val.safetensors", header)
    with pytest.raises(InputError, match=r"val\.safetensors.*hash"):
        Dataset.load(tmp_path)


def test_a_missing_or_exchanged_file_is_refused_by_name(tmp_path):
    make_dataset().save(tmp_path)
    train, test = tmp_path / "train.safetensors", tmp_path / "test.safetensors"
    test.write_bytes(train.read_bytes())
    with pytest.raises(InputError, match=r"test\.safetensors is no prepared test split"):
        Dataset.load(tmp_path)
    test.unlink()
    with pytest.raises(InputError, match=r"no file at .*test\.safetensors"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize("key", ["sha256", "mean", "std", "classes", "dataset"])
def test_a_file_with_an_incomplete_header_is_refused_by_name(key, tmp_path):
    make_dataset().save(tmp_path)
    for name in ("train", "val", "test"):
        tensors, header = load_tensors(tmp_path / f"{name}.safetensors")
        del header[key]
        save_tensors(tensors, tmp_path / f"{name}.safetensors", header)
    with pytest.raises(InputError, match=rf"\.safetensors.*{key}"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.first(0), "'val' is empty.*val_images"),
        (lambda s: dataclasses.replace(s, labels=s.labels + 1), "from 1 to 3.*must be 0 to 2"),
        (lambda s: dataclasses.replace(s, labels=s.labels - 1), "from -1 to 1"),
        (lambda s: dataclasses.replace(s, images=s.images.float()), "float32.*uint8"),
        (lambda s: dataclasses.replace(s, images=s.images[:, 0]), "3 axes"),
        (lambda s: dataclasses.replace(s, images=s.images.repeat(1, 3, 1, 1)), r"\(3, 2, 2\)"),
        (lambda s: dataclasses.replace(s, labels=s.labels[:5]), "30 images.*5 labels"),
    ],
)
def test_splits_that_can_not_be_used_are_refused_by_name(change, said):
    splits = make_dataset().splits
    splits["val"] = change(splits["val"])
    with pytest.raises(InputError, match=said):
        Dataset.from_splits("toy", ["a", "b", "c"], splits)


def test_normalized_train_images_have_mean_zero_and_deviation_one_per_channel():
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 3, 4, 4), generator=draw)
    images[:, 1] //= 4
    split = Split(images.to(torch.uint8), torch.arange(50) % 2, torch.arange(50))
    other = Split(255 - split.images, split.labels, split.index)
    splits = {"train": split, "val": other, "test": other}
    dataset = Dataset.from_splits("noise", ["a", "b"], splits)
    pixels = dataset.normalize(split.images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(pixels.mean(1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(pixels.std(1), torch.ones(3), rtol=1e-4, atol=0)
    assert dataset.normalize(other.images).mean().abs() > 0.1  # val is measured by train's numbers


def test_mean_and_deviation_are_those_of_the_pixels():
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1500, 3, 3, 5), generator=draw).to(torch.uint8)
    split = Split(images, torch.arange(1500) % 2, torch.arange(1500))
    splits = dict.fromkeys(("train", "val", "test"), split)
    dataset = Dataset.from_splits("noise", ["a", "b"], splits)
    pixels = images.transpose(0, 1).flatten(1).double() / 255
    for measured, expected in ((dataset.mean, pixels.mean(1)), (dataset.std, pixels.std(1))):
        torch.testing.assert_close(
            torch.tensor(measured, dtype=torch.float64), expected, rtol=1e-12, atol=0
        )


def test_a_constant_channel_can_be_normalized():
    images = torch.full((6, 1, 2, 2), 7, dtype=torch.uint8)
    split = Split(images, torch.arange(6) % 2, torch.arange(6))
    dataset = Dataset.from_splits(
        "flat", ["a", "b"], dict.fromkeys(("train", "val", "test"), split)
    )
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


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_of_nothing_are_refused_rather_than_endless(batch_size):
    with pytest.raises(InputError, match=f"batch_size is {batch_size}"):
        next(iterate_batches(3, batch_size))


def test_an_epoch_shows_each_image_at_most_once_in_full_batches_and_a_new_order():
    generator = torch.Generator().manual_seed(0)
    epochs = [list(shuffled_batches(11, 4, generator)) for _ in range(2)]
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
    return one.expand(n, -1, -1, -1).to(torch.uint8)


def shifted(image, rows, columns):
    """Return the image with its contents moved down and right, zeros moving in."""
    size = image.shape[-1]
    padded = torch.nn.functional.pad(image, [size] * 4)
    return padded[:, size - rows : 2 * size - rows, size - columns : 2 * size - columns]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_each_image_is_shifted_and_flipped_by_its_own_draw_with_background_moving_in(
    shift, flip, channels
):
    images = numbered(channels=channels)
    augmented = RandomShiftFlip(shift, flip)(images, generator())
    assert augmented.shape == images.shape
    assert augmented.dtype == torch.uint8
    image = images[0]
    moves = range(-shift, shift + 1)
    expected = {
        (down, right, flipped): shifted(image, down, right).flip(2) if flipped else
        shifted(image, down, right)
        for down in moves
        for right in moves
        for flipped in ((False, True) if flip else (False,))
    }  # fmt: skip
    counts = dict.fromkeys(expected, 0)
    for result in augmented:
        matches = [key for key, value in expected.items() if torch.equal(value, result)]
        assert len(matches) == 1
        counts[matches[0]] += 1
    # All are drawn, about equally often: five deviations of a binomial count.
    mean = len(images) / len(expected)
    assert all(abs(count - mean) < 5 * mean**0.5 for count in counts.values()) or len(counts) == 1
    if flip:
        flipped = sum(count for key, count in counts.items() if key[2])
        assert abs(flipped - len(images) / 2) < 5 * (len(images) / 4) ** 0.5


def test_augmentation_changes_no_input_and_returns_other_memory():
    for shift, flip in ((0, False), (0, True), (2, True)):
        images = numbered().clone()
        augmented = RandomShiftFlip(shift, flip)(images, generator())
        augmented.zero_()
        assert torch.equal(images, numbered())


def test_augmentation_is_decided_by_its_generator_alone():
    augment, images = RandomShiftFlip(1, True), numbered()
    torch.manual_seed(1)
    first, before = augment(images, generator(3)), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(augment(images, generator(3)), first)
    assert not torch.equal(augment(images, generator(4)), first)
    torch.manual_seed(1)
    augment(images, generator(3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("n", [1, 999, 1000, 2300])
def test_images_augmented_once_are_each_there_once_and_in_their_order(n):
    images = (torch.arange(n) % 251 + 1).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    augmented = augment_once(images, RandomShiftFlip(1, True), 0, "stream")
    assert augmented.shape == images.shape
    assert torch.equal(augmented.amax(dim=(1, 2, 3)), images[:, 0, 0, 0])
    again, other, stream = (
        augment_once(images, RandomShiftFlip(1, True), *names)
        for names in ((0, "stream"), (1, "stream"), (0, "other"))
    )
    assert torch.equal(augmented, again)
    if n > 1:
        assert not torch.equal(augmented, other)
        assert not torch.equal(augmented, stream)


def test_without_an_augmentation_images_are_what_they_are():
    images = numbered()
    assert augment_once(images, None, 0, "stream") is images


def test_a_negative_shift_is_refused():
    with pytest.raises(InputError, match=r"augment\.shift is -1"):
        RandomShiftFlip(-1, False)
