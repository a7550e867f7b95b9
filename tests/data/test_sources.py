"""Laws of the sources: small files in the published formats, read back; what is wrong is named."""

import fcntl
import glob
import hashlib
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from fourfold.data.sources import SOURCES, load_source, tiny_imagenet
from fourfold.data.sources._decode import FORMATS, SUFFIXES
from fourfold.data.splitting import split_source
from fourfold.errors import InputError
from fourfold.files.tensors import load_tensors
from fourfold.networks._torchvision import import_torchvision
from fourfold.pipeline.cli import main

IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def pixels(count, size=6, seed=0):
    """Return (count, size, size, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def encode(image, kind="PNG", **options):
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def as_tensor(arrays):
    return torch.from_numpy(np.ascontiguousarray(arrays)).permute(0, 3, 1, 2)


def check_refused(settings, folder, *said):
    """Check that a source ends in a message with all these parts."""
    with pytest.raises(InputError) as caught:
        load_source(settings, folder, threads=2)
    for part in said:
        assert part in str(caught.value)
    assert "BytesIO" not in str(caught.value)


# --- settings -------------------------------------------------------------------------------------


def test_the_digits_are_grey_8x8_images_of_ten_classes_over_the_full_range(tmp_path):
    source = load_source({"name": "digits"}, tmp_path)
    assert source.images.shape == (1797, 1, 8, 8)
    assert source.images.dtype == torch.uint8
    assert (source.images.min(), source.images.max()) == (0, 255)
    assert source.labels.unique().tolist() == list(range(len(source.classes))) == list(range(10))
    assert len(source.images.unique()) == 17  # published in steps 0..16


@pytest.mark.parametrize(
    ("by", "sizes", "sha256"),
    [
        ("chance", (1200, 200, 397), "8562bcbb411c2050"),
        ("chance", (600, 300, 600), "d7467371dac22f7f"),
        ("chance", (1777, 10, 10), "359b75af49683d38"),
        ("rows", (1000, 300, 497), "356473548cc8658a"),
        ("rows", (200, 50, 60), "f8697aa377367ee4"),
    ],
)
def test_the_digits_and_their_splits_are_what_they_have_always_been(by, sizes, sha256, tmp_path):
    train, val, test = sizes
    sizes = {"train_images": train, "val_images": val, "test_images": test}
    dataset = split_source(load_source({"name": "digits"}, tmp_path), "d", by=by, seed=0, **sizes)
    assert dataset.sha256().startswith(sha256)


def test_the_nearest_neighbour_of_a_digit_is_by_its_own_writer_unless_rows_are_kept_together(
    tmp_path,
):
    """Why digits are split by rows: by chance, looking an image up beats every small network."""
    source = load_source({"name": "digits"}, tmp_path)
    sizes = {"train_images": 1000, "val_images": 300, "test_images": 497}
    found = {}
    for by in ("chance", "rows"):
        splits = split_source(source, "digits", by=by, seed=0, **sizes).splits
        train, test = (splits[name].images.flatten(1).double() for name in ("train", "test"))
        nearest = torch.cdist(test, train).argmin(dim=1)
        right = splits["train"].labels[nearest] == splits["test"].labels
        found[by] = right.double().mean().item()
    assert found["rows"] < found["chance"] - 0.02


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("digits", ["'digits'", "object with a `name`", *SOURCES]),
        ({"train": "a"}, ["object with a `name`"]),
        ({"name": "mnist"}, ["'mnist'", *SOURCES]),
        ({"name": ["digits"]}, ["source.name is ['digits']"]),
        ({"name": "digits", "size": 3}, ["source.size is no setting", "no settings"]),
        ({"name": "cifar10"}, ["lacks the setting download"]),
        ({"name": "cifar100", "download": 1}, ["source.download is 1", "bool"]),
        ({"name": "parquet", "train": 3}, ["source.train is 3", "str"]),
        ({"name": "parquet", "train": ["a", 3]}, ["source.train is ['a', 3]", "list[str]"]),
        ({"name": "parquet", "train": []}, ["source.train is []", "at least one"]),
        ({"name": "parquet", "train": ["a", "./a"]}, ["['a', './a']", "each once"]),
        (
            {"name": "parquet", "train": "a", "test": 3},
            ["source.test is 3", "str | list[str] | null"],
        ),
        ({"name": "image-folder", "train": "a", "test": None, "size": True}, ["size is True"]),
        ({"name": "image-folder", "train": "a", "test": None}, ["lacks the setting size"]),
    ],
)
def test_settings_that_can_not_be_used_are_refused_by_key_and_value(settings, said, tmp_path):
    check_refused(settings, tmp_path, *said)


# --- parquet --------------------------------------------------------------------------------------


def parquet(path, images, labels, names=None, image="img", label="label", **options):
    """Write a table as data set hubs do; return the settings that read it."""
    columns = {
        image: pa.array([{"bytes": b, "path": None} if b else None for b in images], IMAGE_TYPE),
        label: pa.array(labels, pa.int64()),
    }
    write(path, columns, names and {label: {"_type": "ClassLabel", "names": names}}, **options)
    return {"name": "parquet", "train": path.name}


def write(path, columns, features=None, **options):
    table = pa.table(columns)
    if features:
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": text})
    pq.write_table(table, path, **options)


def test_a_parquet_file_gives_its_images_labels_and_class_names(tmp_path):
    arrays = pixels(5)
    images = [encode(one) for one in arrays]
    settings = parquet(tmp_path / "train.parquet", images, [0, 2, 1, 0, 2], ["ape", "bee", "cat"])
    parquet(tmp_path / "test.parquet", images[:2], [1, 0])
    source = load_source(settings | {"test": "test.parquet"}, tmp_path)
    assert source.classes == ["ape", "bee", "cat"]
    assert torch.equal(source.images, as_tensor(arrays))
    assert source.labels.tolist() == [0, 2, 1, 0, 2]
    assert torch.equal(source.test[0], as_tensor(arrays[:2]))
    assert source.test[1].tolist() == [1, 0]
    assert load_source(settings | {"test": None}, tmp_path).test is None


def test_without_names_the_classes_are_numbers_and_absolute_paths_are_allowed(tmp_path):
    parquet(tmp_path / "a.parquet", [encode(one) for one in pixels(4)], [0, 1, 2, 2])
    settings = {"name": "parquet", "train": str(tmp_path / "a.parquet")}
    assert load_source(settings, tmp_path / "elsewhere").classes == ["0", "1", "2"]


def test_neither_row_groups_nor_threads_change_the_result(tmp_path):
    images = [encode(one, "JPEG") for one in pixels(700)]
    hashes = set()
    for rows, threads in ((700, 1), (700, 3), (7, 2), (256, 1)):
        labels = [k % 3 for k in range(700)]
        settings = parquet(tmp_path / "a.parquet", images, labels, row_group_size=rows)
        source = load_source(settings, tmp_path, threads)
        sizes = {"train_images": None, "val_images": 50, "test_images": 60}
        hashes.add(split_source(source, "a", by="chance", seed=0, **sizes).sha256())
    assert len(hashes) == 1


def test_columns_are_found_by_type_and_then_by_name(tmp_path):
    arrays = pixels(3)
    images, others = ([encode(one) for one in part] for part in (arrays, pixels(3, seed=1)))
    columns = {
        "thumbnail": pa.array(others, pa.binary()),
        "image": pa.array(images, pa.large_binary()),
        "note": pa.array(["x", "y", "z"]),
        "coarse": pa.array([0, 0, 1], pa.int32()),
        "fine_label": pa.array([2, 1, 0], pa.uint8()),
    }
    write(tmp_path / "a.parquet", columns)
    settings = {"name": "parquet", "train": "a.parquet"}
    found = load_source(settings, tmp_path)
    assert torch.equal(found.images, as_tensor(arrays))
    assert found.labels.tolist() == [2, 1, 0]
    named = load_source(
        settings | {"image_column": "thumbnail", "label_column": "coarse"}, tmp_path
    )
    assert torch.equal(named.images, as_tensor(pixels(3, seed=1)))
    assert named.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("columns", "given", "said"),
    [
        ({"a": "b", "b": "b", "label": "i"}, {}, ["img, image", "a (binary), b (binary)"]),
        (
            {"a": "b", "fold": "i"},
            {},
            ["label, labels, fine_label", "fold (int64)", "label_column"],
        ),
        ({"a": "b", "__index_level_0__": "i"}, {}, ["usual name of labels"]),
        ({"a": "b", "label": "l", "fine_label": "i"}, {}, ["'label' can't hold", "list<"]),
        ({"image": "b", "label": "b"}, {}, ["'label' can't hold labels"]),
        ({"image": "s", "thumbnail": "b", "label": "i"}, {}, ["'image' can't hold images"]),
        ({"label": "i"}, {}, ["usual name of images", "label (int64)", "image_column"]),
        ({"a": "b", "label": "i"}, {"image_column": "img"}, ["no columns 'img'", "a (binary)"]),
        ({"a": "b", "label": "i"}, {"label_column": "a"}, ["'a' can't hold labels"]),
    ],
)
def test_columns_that_can_not_be_decided_are_refused_with_the_ones_there(
    columns, given, said, tmp_path
):
    arrays = {
        "b": pa.array([encode(pixels(1)[0])], pa.binary()),
        "i": pa.array([0]),
        "l": pa.array([[0]]),
        "s": pa.array(["a/path.png"]),
    }
    write(tmp_path / "a.parquet", {name: arrays[kind] for name, kind in columns.items()})
    check_refused({"name": "parquet", "train": "a.parquet", **given}, tmp_path, "a.parquet", *said)


def test_a_column_of_a_usual_name_wins_over_all_that_could_be_labels(tmp_path):
    images = pa.array([encode(one) for one in pixels(6)])
    others = {"fold": [0, 1, 2] * 2, "width": [6] * 6, "__index_level_0__": list(range(6))}
    others |= {"label.fold": [2, 1, 0] * 2, "fine_label": [0] * 6}
    write(tmp_path / "a.parquet", {**others, "image": images, "label": ["dog", "cat", "cat"] * 2})
    source = load_source({"name": "parquet", "train": "a.parquet"}, tmp_path)
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == [1, 0, 0] * 2


def test_two_columns_of_one_name_are_refused(tmp_path):
    images = pa.array([encode(pixels(1)[0])])
    table = pa.table([images, pa.array([0]), pa.array([1])], ["image", "label", "label"])
    pq.write_table(table, tmp_path / "a.parquet")
    check_refused({"name": "parquet", "train": "a.parquet"}, tmp_path, "2 columns 'label'")


LABELS = {  # as they are written -> the classes, and the labels of the same images
    "texts": (["dog", "cat", "dog"], ["cat", "dog"], [1, 0, 1]),
    "texts with blanks": ([" dog", "cat", "dog "], ["cat", "dog"], [1, 0, 1]),
    "large texts": (pa.array(["b", "a", "b"], pa.large_string()), ["a", "b"], [1, 0, 1]),
    "categories": (pa.array(["b", "a", "b"]).dictionary_encode(), ["a", "b"], [1, 0, 1]),
    "categories of numbers": (pa.array([7, 5, 7]).dictionary_encode(), ["5", "7"], [1, 0, 1]),
    "truth": ([True, False, True], ["false", "true"], [1, 0, 1]),
    "whole floats": ([1.0, 0.0, 1.0], ["0", "1"], [1, 0, 1]),
    "floats of 32 bits": (pa.array([2.0, 1.0, 2.0], pa.float32()), ["1", "2"], [1, 0, 1]),
    "numbers from 1": ([2, 1, 2], ["1", "2"], [1, 0, 1]),
    "numbers with a gap": (pa.array([10, 9, 200], pa.uint8()), ["9", "10", "200"], [1, 0, 2]),
    "large numbers": (pa.array([2**63 + 1, 0, 0], pa.uint64()), ["0", str(2**63 + 1)], [1, 0, 0]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind_become_the_sorted_classes(kind, tmp_path):
    written, classes, labels = LABELS[kind]
    images = pa.array([encode(one) for one in pixels(3)])
    table = pa.table({"image": images, "label": written})
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table.slice(1, 1), tmp_path / "b.parquet")
    settings = {"name": "parquet", "train": "a.parquet", "test": "b.parquet"}
    source = load_source(settings, tmp_path)
    assert source.classes == classes
    assert source.labels.tolist() == labels
    assert source.labels.dtype == torch.int64
    assert source.test[1].tolist() == labels[1:2]
    # What train does not have is no class of test.
    pq.write_table(table.slice(1), tmp_path / "a.parquet")
    if kind in ("numbers with a gap", "large numbers"):
        pq.write_table(table.slice(0, 1), tmp_path / "b.parquet")
        check_refused(settings, tmp_path, "b.parquet, row 0", classes[labels[0]], "a.parquet")


def test_train_and_test_hold_labels_of_one_kind(tmp_path):
    images = [encode(one) for one in pixels(2)]
    write(tmp_path / "a.parquet", {"image": images, "label": ["0", "1"]})
    write(tmp_path / "b.parquet", {"image": images, "label": [0, 1]})
    settings = {"name": "parquet", "train": "a.parquet", "test": "b.parquet"}
    check_refused(settings, tmp_path, "b.parquet", "numbers", "a.parquet", "texts")


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.binary(300),
        pa.dictionary(pa.int32(), pa.binary()),
        pa.dictionary(pa.int8(), pa.large_binary()),
        IMAGE_TYPE,
        pa.struct({"path": pa.string(), "bytes": pa.large_binary()}),
    ],
    ids=str,
)
def test_images_are_read_however_arrow_stores_them(kind, tmp_path):
    arrays = pixels(3)
    images = [encode(one).ljust(300) for one in arrays]
    if pa.types.is_struct(kind):
        images = [{"path": None, "bytes": image} for image in images]
    table = pa.table({"image": pa.array(images, kind), "label": [0, 1, 0]})
    for options in (
        {},
        {"store_schema": False},
        {"compression": "brotli", "data_page_version": "2.0", "row_group_size": 2},
    ):
        pq.write_table(table, tmp_path / "a.parquet", **options)
        source = load_source({"name": "parquet", "train": "a.parquet"}, tmp_path)
        assert torch.equal(source.images, as_tensor(arrays))


def test_small_flat_pictures_are_read_from_files_that_hardly_have_bytes(tmp_path):
    """Silhouettes, masks and sprites compress to a few bytes each, and are no attack."""
    images = [encode(np.full((64, 64, 3), k % 7, np.uint8)) for k in range(3000)]
    table = pa.table({"image": images, "label": [k % 7 for k in range(3000)]})
    for options in (
        {"use_dictionary": False, "column_encoding": {"image": "DELTA_BYTE_ARRAY"}},
        {"compression": "zstd", "data_page_size": 2**26},
    ):
        pq.write_table(table, tmp_path / "a.parquet", **options)
        assert (tmp_path / "a.parquet").stat().st_size < 20_000
        source = load_source({"name": "parquet", "train": "a.parquet"}, tmp_path)
        assert torch.equal(source.images[:, 0, 5, 5].long(), source.labels)


# --- several files --------------------------------------------------------------------------------


def shards(folder, names, **options):
    """Write a file for each name, with its position as the label of two images."""
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        images = [encode(one) for one in pixels(2, seed=k)]
        parquet(folder / name, images, [k, k], **options)


@pytest.mark.parametrize(
    "train",
    [
        "data",
        "data/",
        "data/train-*.parquet",
        "data/*-of-*",
        "**/train-*",
        [f"data/train-0000{k}-of-00003.parquet" for k in range(3)],
    ],
)
@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_list_a_pattern_and_a_folder_name_all_files_in_order(train, is_absolute, tmp_path):
    folder = tmp_path / "odd [name]*"
    folder.mkdir()
    shards(folder / "data", [f"train-0000{k}-of-00003.parquet" for k in range(3)])
    (folder / "data" / ".train-00003-of-00003.parquet").write_bytes(b"no table")
    if is_absolute and isinstance(train, str):
        train = str(glob.escape(str(folder)) if "*" in train else folder) + "/" + train
    source = load_source({"name": "parquet", "train": train}, folder, threads=2)
    assert source.classes == ["0", "1", "2"]
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = np.concatenate([pixels(2, seed=k) for k in range(3)])
    assert torch.equal(source.images, as_tensor(expected))


@pytest.mark.parametrize(
    ("source", "is_allowed"),
    [
        ({"train": "a", "test": None}, True),
        ({"train": ["a", "b"], "test": ["c"]}, True),
        ({"train": [], "test": None}, False),
        ({"train": ["a", "a"], "test": None}, False),
        ({"train": ["a", 3], "test": None}, False),
        ({"train": "", "test": None}, False),
        ({"train": None, "test": None}, False),
    ],
)
def test_the_schema_of_the_settings_takes_a_path_or_a_list(source, is_allowed):
    path = Path(__file__).parents[2] / "workflow" / "schemas" / "params.schema.yaml"
    schema = {"$defs": yaml.safe_load(path.read_text())["$defs"], "$ref": "#/$defs/source"}
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"name": "parquet", **source}) == is_allowed


def test_a_list_keeps_its_order_and_may_be_a_part(tmp_path):
    shards(tmp_path, [f"train-0000{k}-of-00003.parquet" for k in range(3)])
    names = ["train-00002-of-00003.parquet", "train-00000-of-00003.parquet"]
    source = load_source({"name": "parquet", "train": names, "test": names[:1]}, tmp_path)
    assert source.classes == ["0", "2"]
    assert source.labels.tolist() == [1, 1, 0, 0]
    assert source.test[1].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("names", "train", "said"),
    [
        (["t-00000-of-00002.parquet"], "t-00000-of-00002.parquet", ["1 of the 2 files", "t-*"]),
        (["t-00000-of-00002-ab.parquet"], ".", ["1 of the 2 files"]),
        (["t-0-of-3.parquet", "t-2-of-3.parquet"], "t-*", ["2 of the 3 files"]),
        (["0000.parquet", "0001.parquet"], "0000.parquet", ["1 files of the same set", "0001."]),
        (
            ["part-000-x.parquet", "part-001-y.parquet"],
            "part-000-x.parquet",
            ["part-001-y.parquet"],
        ),
        (["part-0.parquet", "part-10.parquet"], "part-0.parquet", ["part-10.parquet", "part-*"]),
        (["train-a.parquet", "test-a.parquet"], ".", ["several splits", "test-a.parquet"]),
        (["toy_train.parquet", "toy_val.parquet", "toy.parquet"], "*", ["several splits"]),
        (["train/0.parquet", "test/0.parquet"], "**/*.parquet", ["several splits (test/0.par"]),
        (["train/0.parquet", "test/0.parquet"], ".", ["no file that ends in .parquet"]),
        (["Train.parquet", "validation.parquet"], "*", ["several splits"]),
        ([], ".", ["no file that ends in .parquet", "FOURFOLD_DATA"]),
        ([], "train-*.parquet", ["no file at", "train-*.parquet"]),
        (["a.parquet"], ["a.parquet", "b.parquet"], ["no file at", "b.parquet", "listed"]),
        ([], "x" * 300, ["can't be read", "name too long"]),
    ],
)
def test_files_that_are_not_a_whole_set_are_refused(names, train, said, tmp_path):
    shards(tmp_path / "d", names)
    (tmp_path / "d").mkdir(exist_ok=True)
    check_refused({"name": "parquet", "train": train}, tmp_path / "d", *said)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"label": "fine_label"}, ["'fine_label'", "'label'"]),
        ({"image": "image"}, ["'image'", "'img'"]),
        ({"names": ["a", "b"]}, ["'a', 'b'"]),
    ],
)
def test_files_of_one_set_have_the_same_columns_and_classes(others, said, tmp_path):
    images = [encode(one) for one in pixels(2)]
    parquet(tmp_path / "a.parquet", images, [0, 1])
    parquet(tmp_path / "b.parquet", images, [0, 1], **others)
    check_refused(
        {"name": "parquet", "train": "*"}, tmp_path, "b.parquet differs", "a.parquet", *said
    )
    write(tmp_path / "b.parquet", {"img": images, "label": ["x", "y"]})
    check_refused(
        {"name": "parquet", "train": "*"}, tmp_path, "b.parquet differs", "texts", "numbers"
    )


def test_cifar10_and_cifar100_in_one_folder_are_no_set(tmp_path):
    shards(
        tmp_path, ["cifar10.parquet", "cifar100.parquet", "mnist-28.parquet", "mnist-64.parquet"]
    )
    for name in ("cifar10", "mnist-28"):
        assert (
            len(load_source({"name": "parquet", "train": f"{name}.parquet"}, tmp_path).labels) == 2
        )


# --- what can't be read ---------------------------------------------------------------------------


def bomb():
    """Return a small PNG that declares 60,000 x 60,000 pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BAD_IMAGES = {
    "null": (None, ["is null"]),
    "empty": (b" ", ["can't be decoded", "1 bytes"]),
    "no image": (b"no image at all", ["can't be decoded", "JPEG, PNG"]),
    "truncated": (encode(pixels(1, 64)[0], "JPEG")[:-500], ["can't be decoded", "truncated"]),
    "truncated png": (encode(pixels(1, 6)[0])[:-60], ["can't be decoded"]),
    "bomb": (bomb(), ["pixels", "refused before it is decoded"]),
    "other size": (encode(pixels(1, 9)[0]), ["9 x 9 pixels", "6 x 6", "`size`"]),
    "16 bits": (encode(Image.new("I;16", (6, 6), 999)), ["8 bits", "I;16"]),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@pytest.mark.parametrize("row", [0, 3])
def test_one_bad_image_ends_in_a_message_with_file_and_row(kind, row, tmp_path):
    if row == 0 and kind == "other size":
        return  # the first image is right by definition
    bad, said = BAD_IMAGES[kind]
    images = [encode(one) for one in pixels(5)]
    images[row] = bad
    settings = parquet(tmp_path / "a.parquet", images, [0, 1, 0, 1, 0])
    if kind == "truncated":
        settings["size"] = 6
    check_refused(settings, tmp_path, f"a.parquet, row {row}:", *said)


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        ([0, 1, None, 0], None, ["row 2", "is None", "every image a label"]),
        ([0.0, 1.0, 0.0, float("nan")], None, ["row 3", "is nan", "every image a label"]),
        (["a", "b", "a", " "], None, ["row 3", "is ''", "every image a label"]),
        ([0, 1, -1, -1], None, ["row 2", "is -1", "2 negative labels in 4 rows"]),
        ([0.5, 1.0, 0.0, 0.0], None, ["row 0", "is 0.5", "whole numbers"]),
        ([0, 1, 2, 0], ["a", "b"], ["row 2", "is 2", "2 class names", "0 to 1"]),
    ],
)
def test_a_bad_label_ends_in_a_message_with_file_and_row(labels, names, said, tmp_path):
    columns = {"img": [encode(one) for one in pixels(4)], "label": labels}
    write(tmp_path / "a.parquet", columns, names and {"label": {"names": names}})
    check_refused({"name": "parquet", "train": "a.parquet"}, tmp_path, "a.parquet", *said)


def test_a_test_set_with_other_classes_is_refused(tmp_path):
    images = [encode(one) for one in pixels(3)]
    settings = parquet(tmp_path / "a.parquet", images, [0, 1, 0], ["a", "b"])
    settings["test"] = "b.parquet"
    parquet(tmp_path / "b.parquet", images, [0, 1, 0], ["a", "c"])
    check_refused(settings, tmp_path, "b.parquet", "['a', 'c']", "['a', 'b']")
    parquet(tmp_path / "b.parquet", images, [0, 1, 2])
    check_refused(settings, tmp_path, "b.parquet, row 2", "is 2", "2 class names")


def test_files_that_are_missing_empty_or_no_parquet_are_refused_by_name(tmp_path):
    settings = parquet(tmp_path / "empty.parquet", [], [])
    check_refused(settings, tmp_path, "empty.parquet has no rows")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 something else PAR1")
    settings["train"] = "a.parquet"
    check_refused(settings, tmp_path, "a.parquet is no readable parquet file")
    settings["train"] = "b.parquet"
    check_refused(settings, tmp_path, str(tmp_path / "b.parquet"), "no file", "FOURFOLD_DATA")


def test_a_damaged_column_is_refused_by_file_and_name(tmp_path):
    images = [encode(one) for one in pixels(200, 16)]
    settings = parquet(tmp_path / "a.parquet", images, [0] * 200)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[4:60_000] = bytes(59_996)
    (tmp_path / "a.parquet").write_bytes(content)
    check_refused(settings, tmp_path, "a.parquet is no readable parquet file")
    (tmp_path / "a.parquet").write_bytes(content[:-500])
    check_refused(settings, tmp_path, "a.parquet is no readable parquet file")


def test_a_mistake_of_ours_is_not_reported_as_a_damaged_file(tmp_path, monkeypatch):
    settings = parquet(tmp_path / "a.parquet", [encode(one) for one in pixels(2)], [0, 1])
    for module, name in (("_decode", "_resize"), ("parquet", "_check_label")):
        with monkeypatch.context() as patched:
            patched.setattr(f"fourfold.data.sources.{module}.{name}", None)
            with pytest.raises(TypeError):
                load_source(settings | {"size": 4}, tmp_path)


# --- conversions ----------------------------------------------------------------------------------


def decoded(image, tmp_path, **settings):
    settings |= parquet(tmp_path / "a.parquet", [encode_any(image)], [0])
    return load_source(settings, tmp_path).images[0].permute(1, 2, 0).numpy()


def encode_any(image):
    return image if isinstance(image, bytes) else encode(image)


def test_grey_and_palette_images_become_rgb(tmp_path):
    grey = pixels(1)[0, :, :, 0]
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    assert np.array_equal(decoded(Image.fromarray(grey), tmp_path), expected)
    jpeg = encode(Image.fromarray(grey), "JPEG")
    assert np.ptp(decoded(jpeg, tmp_path).astype(int), axis=2).max() == 0
    colors = Image.fromarray(pixels(1, size=4)[0])
    palette = colors.quantize(16, dither=Image.Dither.NONE)
    assert np.array_equal(decoded(palette, tmp_path), np.asarray(palette.convert("RGB")))


def test_what_is_transparent_becomes_black(tmp_path):
    rgba = np.concatenate([pixels(1)[0], np.full((6, 6, 1), 255, np.uint8)], axis=2)
    rgba[0, :, 3] = 0
    rgba[1, :, 3] = 128
    rgb = decoded(Image.fromarray(rgba), tmp_path)
    assert (rgb[0] == 0).all()
    assert np.abs(rgb[1] - rgba[1, :, :3] * (128 / 255)).max() <= 1
    assert np.array_equal(rgb[2:], rgba[2:, :, :3])
    palette = Image.fromarray(pixels(1, size=2)[0]).quantize(4, dither=Image.Dither.NONE)
    hidden = palette.getpixel((0, 0))
    file = encode(palette, transparency=hidden)
    assert (decoded(file, tmp_path)[0, 0] == 0).all()


def test_the_exif_orientation_is_ignored(tmp_path):
    array = pixels(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    assert np.array_equal(decoded(encode(array, exif=exif), tmp_path), array)


def test_resizing_takes_the_central_square(tmp_path):
    wide = np.zeros((4, 10, 3), np.uint8)
    wide[:, 3:7] = pixels(1, size=4)[0]
    assert np.array_equal(decoded(wide, tmp_path, size=4), wide[:, 3:7])
    assert np.array_equal(
        decoded(wide.swapaxes(0, 1), tmp_path, size=4), wide[:, 3:7].swapaxes(0, 1)
    )
    half = decoded(wide, tmp_path, size=2)
    assert half.shape == (2, 2, 3)
    line = Image.new("L", (60_000, 1), 77)  # resized as a whole it would be huge
    assert (decoded(line, tmp_path, size=64) == 77).all()


# --- folders --------------------------------------------------------------------------------------


def class_folders(folder, arrays, labels, names, suffix=".png"):
    for k, (array, label) in enumerate(zip(arrays, labels, strict=True)):
        path = folder / names[label] / f"{k:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(array))


def test_a_folder_and_a_parquet_file_of_the_same_images_are_equal(tmp_path):
    arrays, labels, names = pixels(30), [k // 10 for k in range(30)], ["ant", "bee", "cat"]
    class_folders(tmp_path / "train", arrays, labels, names)
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    settings = parquet(tmp_path / "a.parquet", [encode(one) for one in arrays], labels, names)
    table = load_source(settings, tmp_path)
    folders = load_source(
        {"name": "image-folder", "train": "train", "test": "train", "size": 6}, tmp_path
    )
    sizes = {"train_images": None, "val_images": 6, "test_images": None}
    assert folders.classes == table.classes
    assert torch.equal(folders.images, table.images)
    assert torch.equal(folders.test[0], table.images)
    published = load_source(settings | {"test": "a.parquet"}, tmp_path)
    settings = {"by": "chance", "seed": 1, **sizes}
    hashes = {split_source(source, "a", **settings).sha256() for source in (folders, published)}
    assert len(hashes) == 1


def test_folders_that_can_not_be_used_are_refused_by_name(tmp_path):
    settings = {"name": "image-folder", "train": "train", "test": "test", "size": 6}
    check_refused(settings, tmp_path, f"no folder at {tmp_path / 'train'}")
    (tmp_path / "train").mkdir()
    check_refused(settings, tmp_path, "train has no folders")
    class_folders(tmp_path / "train", pixels(2), [0, 1], ["ant", "bee"])
    class_folders(tmp_path / "test", pixels(2), [0, 1], ["ant", "cat"])
    check_refused(settings, tmp_path, "other classes", "bee, cat")
    settings["test"] = None
    (tmp_path / "train" / "empty").mkdir()
    check_refused(settings, tmp_path, "empty has no images", ".png")
    (tmp_path / "train" / "empty" / "x.JPG").write_bytes(b"text")
    check_refused(settings, tmp_path, "x.JPG", "can't be decoded")
    check_refused(settings | {"size": 0}, tmp_path, "source.size is 0", "4096")


FOLDER = {"name": "image-folder", "train": "p", "test": None, "size": 6}


def pets(folder, classes=("cat", "dog"), count=3):
    """Write folders of classes below `folder`; return them."""
    for k, name in enumerate(classes):
        class_folders(folder, pixels(count, seed=k), [0] * count, [name])
    return [folder / name for name in classes]


def test_what_is_hidden_or_the_systems_is_left_out_anywhere(tmp_path):
    cat, _ = pets(tmp_path / "p")
    for hidden in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".thumbnails"):
        for place in (cat, cat / "deep" / "er", tmp_path / "p"):
            pets(place / hidden)
    (cat / "._000.png").write_bytes(b"no image")
    (cat / ".DS_Store").write_bytes(b"")
    (cat / "Thumbs.db").write_bytes(b"")
    source = load_source(FOLDER, tmp_path)
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == [0] * 3 + [1] * 3
    assert source.remarks == ()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_suffix_of_a_format_is_read(kind, tmp_path):
    suffixes = [s for s in SUFFIXES if Image.registered_extensions()[s] == kind]
    for suffix in suffixes:
        for name in ("ant", "bee"):
            path = tmp_path / "p" / name / f"x{suffix.upper()}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(pixels(1, 16)[0], kind))
    source = load_source(FOLDER, tmp_path)
    assert len(source.labels) == 2 * len(suffixes) > 0
    assert source.remarks == ()


def test_the_usual_suffixes_are_among_them():
    assert {*(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"),
            *(".ppm", ".pgm", ".pbm")} <= set(SUFFIXES)  # fmt: skip


def test_files_that_are_left_out_are_counted_and_named(tmp_path):
    cat, dog = pets(tmp_path / "p")
    for path in (cat / "a.heic", cat / "deep" / "b", dog / "c.txt"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "p" / "stray.png").write_bytes(encode(pixels(1)[0]))
    (dog / "nowhere.png").symlink_to(tmp_path / "nothing")
    (line,) = load_source(FOLDER, tmp_path).remarks
    assert line.startswith(f"{tmp_path / 'p'}: files left out: 5 (the first: stray.png, ")
    lines = load_source(FOLDER | {"test": "p"}, tmp_path).remarks
    assert lines == (line, line)


def test_links_are_followed_once(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    class_folders(elsewhere, pixels(4), [0, 0, 1, 1], ["more", "owl"])
    cat, _ = pets(tmp_path / "p")
    (cat / "more").symlink_to(elsewhere / "more")
    (cat / "again").symlink_to(elsewhere / "more")
    (cat / "loop").symlink_to(cat)
    (cat / "single.png").symlink_to(elsewhere / "owl" / "002.png")
    (tmp_path / "p" / "owl").symlink_to(elsewhere / "owl")
    source = load_source(FOLDER, tmp_path)
    assert source.classes == ["cat", "dog", "owl"]
    assert source.labels.bincount().tolist() == [6, 3, 2]


@pytest.mark.parametrize("link", ["cat/more", "wolf"])
def test_a_folder_of_two_classes_is_refused(link, tmp_path):
    _, dog = pets(tmp_path / "p")
    (tmp_path / "p" / link).symlink_to(dog)
    check_refused(FOLDER, tmp_path, str(dog), "belongs to two classes", "'dog'")


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (["p", "p/train", "p/val"], ["train, val have folders", "p/train", "source.test", "p/val"]),
        (["p/val", "p/test", "p/train"], ["train, test, val have", "p/train", "p/test"]),
        (["p", "p/more"], ["more have folders of classes inside (cat, dog)", "source.train"]),
    ],
)
def test_splits_are_no_classes(folders, said, tmp_path):
    for folder in folders:
        pets(tmp_path / folder)
    check_refused(FOLDER, tmp_path, "no classes alone", *said)
    load_source(FOLDER | {"train": folders[-1]}, tmp_path)


def test_folders_of_cameras_and_a_class_of_trains_are_no_splits(tmp_path):
    for name in ("cat", "dog"):
        pets(tmp_path / "p" / name, ("left", "right"))
    pets(tmp_path / "p", ("train", "val"))
    assert load_source(FOLDER, tmp_path).classes == ["cat", "dog", "train", "val"]


# --- Tiny-ImageNet --------------------------------------------------------------------------------

WNIDS = ["n03", "n01", "n02"]  # published in no order
ANNOTATED = ["n02", "n01", "n03", "n02", "n01"]


def tiny(folder):
    """Write the published layout with three classes; one of the val images is grey."""
    root = folder / "tiny-imagenet-200"
    arrays = pixels(11, 8)
    for k, wnid in enumerate(sorted(WNIDS)):
        for j in range(2):
            path = root / "train" / wnid / "images" / f"{wnid}_{j}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(arrays[2 * k + j], "JPEG"))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("n_0.JPEG\t0\t0\t1\t1\n")
    (root / "val" / "images").mkdir(parents=True)
    for k in range(5):
        image = Image.fromarray(arrays[6 + k]).convert("L" if k == 3 else "RGB")
        (root / "val" / "images" / f"val_{k}.JPEG").write_bytes(encode(image, "JPEG"))
    lines = [f"val_{k}.JPEG\t{wnid}\t0\t0\t7\t7\n" for k, wnid in enumerate(ANNOTATED)]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "test" / "images").mkdir(parents=True)
    (root / "test" / "images" / "test_0.JPEG").write_bytes(b"has no label and is never read")
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (root / "words.txt").write_text("n01\tgoldfish, carp\nn02\ttoad\nn03\tboa\nn04\tother\n")
    return root


def pack(root):
    """Replace the folder by the archive of it."""
    archive = root.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(root.rglob("*"), reverse=True):
            opened.write(path, path.relative_to(root.parent).as_posix())
    root.rename(root.parent / "unpacked")
    return archive


TINY = {"name": "tiny-imagenet", "download": False}


@pytest.mark.parametrize("is_packed", [False, True])
def test_val_has_the_labels_of_its_annotations_and_is_not_one_class(is_packed, tmp_path):
    root = tiny(tmp_path)
    if is_packed:
        pack(root)
    source = load_source(TINY, tmp_path, threads=2)
    assert source.classes == ["goldfish, carp", "toad", "boa"]  # of n01, n02, n03
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.images.shape == (6, 3, 8, 8)
    images, labels = source.test
    assert labels.tolist() == [1, 0, 2, 1, 0]
    assert torch.equal(images[3, 0], images[3, 1])  # the grey one
    assert not torch.equal(images[2, 0], images[2, 1])
    if is_packed:
        (tmp_path / "unpacked").rename(root)
        folder = load_source(TINY, tmp_path)
        assert torch.equal(folder.images, source.images)
        assert torch.equal(folder.test[0], images)


def edit(name, change):
    def apply(root):
        path = root / name
        path.write_text(change(path.read_text()))

    return apply


DAMAGE = {
    "no annotations": (
        lambda root: (root / "val" / "val_annotations.txt").unlink(),
        ["no file at", "val/val_annotations.txt"],
    ),
    "unknown wnid in an annotation": (
        edit("val/val_annotations.txt", lambda text: text.replace("n03", "n99")),
        ["val_annotations.txt, line 3", "'n99'", "wnids.txt"],
    ),
    "no wnid in an annotation": (
        edit("val/val_annotations.txt", lambda text: text.replace("\tn03", "")),
        ["val_annotations.txt, line 3"],
    ),
    "annotation of no image": (
        lambda root: (root / "val" / "images" / "val_1.JPEG").unlink(),
        ["val_annotations.txt, line 2", "val/images/val_1.JPEG"],
    ),
    "image without annotation": (
        edit("val/val_annotations.txt", lambda text: text.partition("\n")[2]),
        ["val/images/val_0.JPEG has no line", "val_annotations.txt"],
    ),
    "two annotations": (
        edit("val/val_annotations.txt", lambda text: text + text[: text.index("\n")]),
        ["val_annotations.txt, line 6", "val_0.JPEG"],
    ),
    "empty annotations": (
        edit("val/val_annotations.txt", lambda text: ""),
        ["val/images/val_0.JPEG has no line"],
    ),
    "unknown train class": (
        edit("wnids.txt", lambda text: text.replace("n02\n", "")),
        ["train/n02/images", "'n02'", "wnids.txt"],
    ),
    "class without images": (
        edit("wnids.txt", lambda text: text + "n04\n"),
        ["train/n04/images has no .JPEG", "1 of the 4"],
    ),
    "class without words": (
        edit("words.txt", lambda text: text.replace("n02", "n05")),
        ["words.txt", "n02"],
    ),
    "no wnids": (lambda root: (root / "wnids.txt").unlink(), ["no file at", "wnids.txt"]),
    "empty wnids": (edit("wnids.txt", lambda text: "\n"), ["wnids.txt is empty"]),
    "damaged image": (
        lambda root: (root / "train" / "n02" / "images" / "n02_1.JPEG").write_bytes(b"text"),
        ["train/n02/images/n02_1.JPEG", "can't be decoded"],
    ),
}


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_tiny_imagenet_is_refused_by_file_and_line(damage, is_packed, tmp_path):
    root = tiny(tmp_path)
    apply, said = DAMAGE[damage]
    apply(root)
    if is_packed:
        said = [*said, str(pack(root))]
    check_refused(TINY, tmp_path, *said)


def test_an_archive_that_is_damaged_or_missing_is_refused_by_name(tmp_path):
    check_refused(TINY, tmp_path, str(tmp_path), "tiny-imagenet-200.zip", "download")
    archive = pack(tiny(tmp_path))
    content = archive.read_bytes()
    at = content.index(encode(pixels(11, 8)[2], "JPEG")) + 50  # an image of class n02
    archive.write_bytes(content[:at] + b"####" + content[at + 4 :])
    check_refused(TINY, tmp_path, str(archive), "n02_0.JPEG", "CRC")
    archive.write_bytes(content[:2000])
    check_refused(TINY, tmp_path, f"{archive} is no readable archive")


def test_a_download_is_complete_or_not_there(tmp_path, monkeypatch):
    """The server is a folder: nothing is downloaded in a test."""
    (tmp_path / "server").mkdir()
    served = pack(tiny(tmp_path / "server"))
    monkeypatch.setattr(tiny_imagenet, "URL", served.as_uri())
    settings, folder = TINY | {"download": True}, tmp_path / "data"
    check_refused(settings, folder, "MD5", tiny_imagenet.MD5, served.as_uri())
    assert list(folder.iterdir()) == []
    monkeypatch.setattr(tiny_imagenet, "URL", (tmp_path / "nothing").as_uri())
    check_refused(settings, folder, "can't be downloaded", "nothing", str(folder))
    assert list(folder.iterdir()) == []
    monkeypatch.setattr(tiny_imagenet, "URL", served.as_uri())
    digest = hashlib.md5(served.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(tiny_imagenet, "MD5", digest)
    assert load_source(settings, folder).labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (folder / "tiny-imagenet-200.zip").read_bytes() == served.read_bytes()


# --- CIFAR ----------------------------------------------------------------------------------------


def cifar(folder, name, monkeypatch):
    """Write the published layout, small, and tell torchvision its checksums."""
    published = getattr(import_torchvision("datasets"), name)
    base = folder / published.base_folder
    base.mkdir(parents=True)
    key = "labels" if name == "CIFAR10" else "fine_labels"
    classes = 10 if name == "CIFAR10" else 100
    arrays = {}

    def dump(file, content):
        (base / file).write_bytes(pickle.dumps(content, protocol=2))
        return md5(base / file)

    for lists in ("train_list", "test_list"):
        entries = []
        for k, (file, _) in enumerate(getattr(published, lists)):
            arrays[file] = pixels(20, 32, seed=k + 7 * (lists == "test_list"))
            rows = arrays[file].transpose(0, 3, 1, 2).reshape(20, -1)
            labels = [(3 * j + k) % classes for j in range(20)]
            entries.append([file, dump(file, {"data": rows, key: labels})])
        monkeypatch.setattr(published, lists, entries)
    names = [f"class {k}" for k in range(classes)]
    meta = published.meta | {
        "md5": dump(published.meta["filename"], {published.meta["key"]: names})
    }
    monkeypatch.setattr(published, "meta", meta)
    return published, base, arrays


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar_is_read_from_its_folder_or_its_archive(name, tmp_path, monkeypatch):
    published, base, arrays = cifar(tmp_path, name, monkeypatch)
    settings = {"name": name.lower(), "download": False}
    source = load_source(settings, tmp_path)
    train = np.concatenate([arrays[file] for file, _ in published.train_list])
    assert torch.equal(source.images, as_tensor(train))
    assert torch.equal(source.test[0], as_tensor(arrays[published.test_list[0][0]]))
    assert source.test[1].tolist() == [3 * j % len(source.classes) for j in range(20)]
    assert source.labels[:3].tolist() == [0, 3, 6]
    assert source.classes[-1] == f"class {len(source.classes) - 1}"

    archive = tmp_path / "other" / published.filename
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(base, published.base_folder)
    check_refused(settings, archive.parent, "has no intact", str(archive.parent), "MD5")
    monkeypatch.setattr(published, "tgz_md5", md5(archive))
    again = load_source(settings, archive.parent)
    assert torch.equal(again.images, source.images)


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("something was unpickled",))


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
@pytest.mark.parametrize("which", ["train_list", "test_list", "meta"])
def test_nothing_with_a_wrong_checksum_is_unpickled(name, which, tmp_path, monkeypatch):
    published, base, _ = cifar(tmp_path, name, monkeypatch)
    file = published.meta["filename"] if which == "meta" else getattr(published, which)[0][0]
    (base / file).write_bytes(pickle.dumps(Trap()))
    settings = {"name": name.lower(), "download": False}
    check_refused(settings, tmp_path, str(tmp_path), name, published.filename, "source.download")


def test_cifar_without_files_or_network_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    """The server is a folder: nothing is downloaded in a test."""
    published = import_torchvision("datasets").CIFAR10
    settings, folder = {"name": "cifar10", "download": False}, tmp_path / "data"
    check_refused(settings, folder, str(folder), "cifar-10-batches-py/", published.url)
    monkeypatch.setattr(published, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    settings["download"] = True
    check_refused(settings, folder, "refused", "cifar-10-python.tar.gz")
    (tmp_path / "half.tar.gz").write_bytes(b"half")
    monkeypatch.setattr(published, "url", (tmp_path / "half.tar.gz").as_uri())
    check_refused(settings, folder, "MD5", published.tgz_md5, str(folder))
    assert not list(folder.glob("*"))


def test_cifar_is_downloaded_in_place_of_half_an_archive(tmp_path, monkeypatch):
    published, base, _ = cifar(tmp_path / "server", "CIFAR10", monkeypatch)
    served = tmp_path / "server" / published.filename
    with tarfile.open(served, "w:gz") as opened:
        opened.add(base, published.base_folder)
    monkeypatch.setattr(published, "tgz_md5", md5(served))
    monkeypatch.setattr(published, "url", served.as_uri())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / published.filename).write_bytes(served.read_bytes()[:1000])
    settings = {"name": "cifar10", "download": False}
    check_refused(settings, tmp_path / "data", "has no intact")
    assert len(load_source(settings | {"download": True}, tmp_path / "data").labels) == 100
    # What was extracted in part is extracted again, without a server.
    monkeypatch.setattr(published, "url", (tmp_path / "nothing").as_uri())
    file = tmp_path / "data" / published.base_folder / published.train_list[2][0]
    file.write_bytes(file.read_bytes()[:99])
    assert len(load_source(settings, tmp_path / "data").labels) == 100


def test_what_a_killed_download_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path, monkeypatch
):
    served = pack(tiny(tmp_path / "server"))
    monkeypatch.setattr(tiny_imagenet, "URL", served.as_uri())
    monkeypatch.setattr(tiny_imagenet, "MD5", md5(served))
    (tmp_path / "data").mkdir()
    left, others = tmp_path / "data" / ".unfinished-abc.zip", tmp_path / "data" / ".unfinished-x.gz"
    living = tmp_path / "data" / ".unfinished-def.zip"
    for path in (left, others, living):
        path.write_bytes(b"half")
    with living.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        load_source(TINY | {"download": True}, tmp_path / "data")
    assert sorted((tmp_path / "data").iterdir()) == [
        living, others, tmp_path / "data" / "tiny-imagenet-200.zip"
    ]  # fmt: skip


# --- the command ----------------------------------------------------------------------------------


def prepare(tmp_path, source, *arguments):
    split = {"by": "chance", "seed": 0, "train_images": None, "val_images": 6, "test_images": 6}
    return main(
        [
            *("prepare-data", "--name", "mine", "--output", str(tmp_path / "out"), *arguments),
            *("--settings", json.dumps({"source": source, "split": split})),
        ]
    )


def test_files_are_looked_up_in_the_folder_given_or_in_the_environment(tmp_path, monkeypatch):
    (tmp_path / "files").mkdir()
    images = [encode(one) for one in pixels(40)]
    source = parquet(tmp_path / "files" / "a.parquet", images, [k % 2 for k in range(40)])
    monkeypatch.delenv("FOURFOLD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert prepare(tmp_path, source) == 1
    assert not (tmp_path / "out").exists()
    assert prepare(tmp_path, source, "--folder", str(tmp_path / "files"), "--threads", "2") == 0
    first = (tmp_path / "out" / "train.safetensors").read_bytes()
    monkeypatch.setenv("FOURFOLD_DATA", str(tmp_path / "files"))
    assert prepare(tmp_path, source) == 0
    assert (tmp_path / "out" / "train.safetensors").read_bytes() == first
    monkeypatch.delenv("FOURFOLD_DATA")
    (tmp_path / "files").rename(tmp_path / "downloads")
    assert prepare(tmp_path, source) == 0
    _, header = load_tensors(tmp_path / "out" / "train.safetensors")
    assert str(tmp_path) not in json.dumps(header)


def test_what_is_left_out_and_images_in_two_splits_are_reported(tmp_path, capsys):
    cat, dog = pets(tmp_path / "p", count=20)
    (cat / "notes.txt").write_text("x")
    for path in dog.glob("*.png"):
        path.write_bytes(encode(pixels(1, seed=5)[0]))
    assert prepare(tmp_path, FOLDER, "--folder", str(tmp_path)) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert ["files left out: 1 " in line for line in notes] == [True, False, False, False]
    assert ["3 of 6 images of" in line for line in notes] == [False, True, True, True]


@pytest.mark.parametrize(
    ("source", "arguments", "said"),
    [
        ("digits", [], "object with a `name`"),
        ({"name": "digits"}, ["--threads", "0"], "--threads is 0"),
        ({"name": "parquet", "train": "none.parquet"}, [], "none.parquet"),
    ],
)
def test_a_wrong_input_ends_in_one_message_and_no_file(source, arguments, said, tmp_path, capsys):
    assert prepare(tmp_path, source, *arguments) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
