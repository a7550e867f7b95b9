"""Laws of the sources: small files in the published formats, read back; what is wrong is named."""

import fcntl
import glob
import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fourfold.data.dataset import Dataset
from fourfold.data.sources import load_source, tiny_imagenet
from fourfold.data.sources._decode import FORMATS, SUFFIXES
from fourfold.data.splitting import split_source
from fourfold.errors import InputError
from fourfold.files.tensors import load_tensors
from fourfold.networks._torchvision import import_torchvision
from fourfold.pipeline.cli import main


def pixels(count, size=6, seed=0):
    """Return (count, size, size, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def encode(image, kind="PNG", **options):
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def deep_png(color_type, channels):
    """Return the bytes of an image file with 16 bits per channel, which Pillow doesn't write."""

    def part(name, data):
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    header = part(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, color_type, 0, 0, 0))
    row = part(b"IDAT", zlib.compress(bytes(1 + 2 * 2 * channels)))
    return b"\x89PNG\r\n\x1a\n" + header + row + part(b"IEND", b"")


def as_tensor(arrays):
    return torch.from_numpy(np.ascontiguousarray(arrays)).permute(0, 3, 1, 2)


def check_refused(settings, folder, *said):
    """Check that a source ends in a message with all these parts."""
    with pytest.raises(InputError) as caught:
        load_source(settings, folder, threads=2)
    for part in said:
        assert part in str(caught.value)
    assert "BytesIO" not in str(caught.value)


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


# --- digits ---------------------------------------------------------------------------------------


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
    sizes = dict(zip(("train_images", "val_images", "test_images"), sizes, strict=True))
    source = load_source({"name": "digits"}, tmp_path)
    assert source.classes == [*"0123456789"]
    assert split_source(source, "d", by=by, seed=0, **sizes).sha256().startswith(sha256)


# --- parquet --------------------------------------------------------------------------------------

IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
PARQUET = {"name": "parquet", "train": "a.parquet"}


def write(path, columns, names=None, **options):
    """Write a table, with class names of its column `label` as data set hubs do."""
    table = pa.table(columns)
    if names:
        text = json.dumps({"info": {"features": {"label": {"names": names}}}})
        table = table.replace_schema_metadata({"huggingface": text})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)


def parquet(path, images, labels, names=None, image="img", label="label", **options):
    """Write images in structs, which is the usual way."""
    structs = [{"bytes": one, "path": None} if one else None for one in images]
    write(path, {image: pa.array(structs, IMAGE_TYPE), label: labels}, names, **options)


def encoded(count=3, **options):
    return [encode(one) for one in pixels(count, **options)]


def test_a_parquet_file_gives_its_images_labels_and_class_names(tmp_path):
    arrays, names = pixels(5), ["ape", "bee", "cat"]
    parquet(tmp_path / "a.parquet", encoded(5), [0, 2, 1, 0, 2], names)
    parquet(tmp_path / "b.parquet", encoded(5)[:2], [1, 0])
    settings = {"name": "parquet", "train": str(tmp_path / "a.parquet")}
    source = load_source(settings | {"test": "b.parquet"}, tmp_path)
    assert source.classes == names
    assert torch.equal(source.images, as_tensor(arrays))
    assert source.labels.tolist() == [0, 2, 1, 0, 2]
    assert torch.equal(source.test[0], as_tensor(arrays[:2]))
    assert source.test[1].tolist() == [1, 0]
    assert load_source(settings, tmp_path / "elsewhere").test is None


def test_neither_row_groups_nor_threads_change_the_result(tmp_path):
    images, labels = [encode(one, "JPEG") for one in pixels(200)], [k % 3 for k in range(200)]
    results = []
    for rows, threads in ((200, 1), (200, 3), (7, 2)):
        parquet(tmp_path / "a.parquet", images, labels, row_group_size=rows)
        results.append(load_source(PARQUET, tmp_path, threads))
    for result in results[1:]:
        assert torch.equal(result.images, results[0].images)
        assert torch.equal(result.labels, results[0].labels)


@pytest.mark.parametrize(
    ("others", "given", "image", "label"),
    [
        (["path", "fold", "width", "label.fold", "fine_label", "label"], {}, "image", "label"),
        (["img", "thumbnail", "fine_label", "fold"], {}, "image", "fine_label"),
        (["thumbnail", "label"], {"image_column": "thumbnail"}, "thumbnail", "label"),
        (["label", "coarse"], {"label_column": "coarse"}, "image", "coarse"),
    ],
)
def test_columns_have_usual_names_or_are_named(others, given, image, label, tmp_path):
    columns = {name: [k, 9, 9] for k, name in enumerate(others)}
    columns |= {name: ["x.png"] * 3 for name in others if name in ("img", "path")}
    columns |= {name: encoded(seed=1) for name in others if name == "thumbnail"}
    columns["image"] = encoded()
    write(tmp_path / "a.parquet", columns)
    source = load_source(PARQUET | given, tmp_path)
    assert torch.equal(source.images, as_tensor(pixels(3, seed=int(image != "image"))))
    assert source.classes == [str(columns[label][0]), "9"]


def test_the_only_column_of_images_needs_no_name(tmp_path):
    write(tmp_path / "a.parquet", {"scan": encoded(), "note": ["x"] * 3, "target": [1, 2, 2]})
    assert load_source(PARQUET, tmp_path).labels.tolist() == [0, 1, 1]


COLUMNS = {"binary": encoded(1), "int": [0], "list": [[0]], "text": ["a/path.png"]}


@pytest.mark.parametrize(
    ("columns", "given", "said"),
    [
        ({"a": "binary", "b": "binary", "label": "int"}, {}, "img, image); the columns are a (bin"),
        ({"label": "int"}, {}, "usual name of images"),
        ({"a": "binary", "fold": "int"}, {}, "label, labels, fine_label"),
        ({"a": "binary", "label": "list", "fine_label": "int"}, {}, "'label' can't hold labels"),
        ({"image": "binary", "label": "binary"}, {}, "'label' can't hold labels"),
        ({"image": "text", "scan": "binary", "label": "int"}, {}, "'image' can't hold images"),
        ({"a": "binary", "label": "int"}, {"image_column": "img"}, "no columns 'img'"),
        ({"a": "binary", "label": "int"}, {"label_column": "a"}, "'a' can't hold labels"),
    ],
)
def test_columns_that_can_not_be_decided_are_refused(columns, given, said, tmp_path):
    write(tmp_path / "a.parquet", {name: COLUMNS[kind] for name, kind in columns.items()})
    check_refused(PARQUET | given, tmp_path, "a.parquet", said, "_column")


@pytest.mark.parametrize(
    ("written", "classes", "labels"),
    [
        ([" dog", "cat", "dog "], ["cat", "dog"], [1, 0, 1]),
        (pa.array(["b", "a", "b"], pa.large_string()), ["a", "b"], [1, 0, 1]),
        (pa.array(["b", "a", "b"], pa.string_view()), ["a", "b"], [1, 0, 1]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ["a", "b"], [1, 0, 1]),
        (pa.array([7, 5, 7]).dictionary_encode(), ["5", "7"], [1, 0, 1]),
        ([True, False, True], ["false", "true"], [1, 0, 1]),
        ([1.0, 0.0, 1.0], ["0", "1"], [1, 0, 1]),
        (pa.array([10, 9, 200], pa.uint8()), ["9", "10", "200"], [1, 0, 2]),
        (pa.array([2**63 + 1, 0, 0], pa.uint64()), ["0", str(2**63 + 1)], [1, 0, 0]),
    ],
)
def test_labels_of_every_kind_become_the_sorted_classes(written, classes, labels, tmp_path):
    table = pa.table({"image": encoded(), "label": written})
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table.slice(1, 1), tmp_path / "b.parquet")
    source = load_source(PARQUET | {"test": "b.parquet"}, tmp_path)
    assert (source.classes, source.labels.tolist()) == (classes, labels)
    assert (source.labels.dtype, source.test[1].tolist()) == (torch.int64, labels[1:2])


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(300)),
        *(pa.dictionary(pa.int32(), pa.binary()), pa.dictionary(pa.int8(), pa.large_binary())),
        *(IMAGE_TYPE, pa.struct({"path": pa.string(), "bytes": pa.large_binary()})),
    ],
    ids=str,
)
def test_images_are_read_however_arrow_stores_them(kind, tmp_path):
    images = [image.ljust(300) for image in encoded()]
    if pa.types.is_struct(kind):
        images = [{"path": None, "bytes": image} for image in images]
    table = pa.table({"image": pa.array(images, kind), "label": [0, 1, 0]})
    for options in ({}, {"store_schema": False}, {"compression": "brotli", "row_group_size": 2}):
        pq.write_table(table, tmp_path / "a.parquet", **options)
        assert torch.equal(load_source(PARQUET, tmp_path).images, as_tensor(pixels(3)))


# Written by polars 2.1.0 (write_parquet), DuckDB 2.0.1 (COPY) and fastparquet 2026.9.0 (write):
# `pixels(4)` as PNG, in a column of bytes or of structs, with labels of the type in the file's
# name; with zstd, lz4, gzip or snappy, in row groups of two (DuckDB makes none that small).
OTHERS = Path(__file__).parent / "files"
WRITTEN = ["polars-categorical", "polars-uint8", "duckdb-enum", "duckdb-int32"]
WRITTEN += ["fastparquet-category", "fastparquet-int64", "fastparquet-text"]


@pytest.mark.parametrize("name", WRITTEN)
def test_files_of_other_writers_are_read(name):
    settings = PARQUET | {"train": f"{name}.parquet", "test": f"{name}.parquet"}
    source = load_source(settings, OTHERS, threads=2)
    assert torch.equal(source.images, as_tensor(pixels(4)))
    is_text = name.rpartition("-")[2] in ("categorical", "enum", "category", "text")
    assert source.classes == ([*"abc"] if is_text else [*"012"])
    assert source.labels.tolist() == source.test[1].tolist() == [2, 0, 1, 2]


# --- several files --------------------------------------------------------------------------------

SHARDS = [f"train-0000{k}-of-00003.parquet" for k in range(3)]


def shards(folder, names):
    """Write a file for each name, with its position as the label of two images."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        parquet(folder / name, encoded(2, seed=k), [k, k])


@pytest.mark.parametrize("is_absolute", [False, True])
@pytest.mark.parametrize(
    "train", ["data", "data/train-*.parquet", "**/train-*", "**/**/*.parquet", SHARDS]
)
def test_a_list_a_pattern_and_a_folder_name_all_files_in_order(train, is_absolute, tmp_path):
    folder = tmp_path / "odd [name]*"
    shards(folder / "data", SHARDS)
    (folder / "data" / ".train-00003-of-00003.parquet").write_bytes(b"no table")
    if train is SHARDS:
        train = [f"data/{name}" for name in SHARDS]
    elif is_absolute:
        train = str(glob.escape(str(folder)) if "*" in train else folder) + "/" + train
    source = load_source({"name": "parquet", "train": train}, folder, threads=2)
    assert source.classes == ["0", "1", "2"]
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = np.concatenate([pixels(2, seed=k) for k in range(3)])
    assert torch.equal(source.images, as_tensor(expected))


def test_a_list_keeps_its_order_and_may_be_a_part(tmp_path):
    shards(tmp_path, SHARDS)
    names = [SHARDS[2], SHARDS[0]]
    source = load_source({"name": "parquet", "train": names, "test": names[:1]}, tmp_path)
    assert source.classes == ["0", "2"]
    assert source.labels.tolist() == [1, 1, 0, 0]
    assert source.test[1].tolist() == [1, 1]


def test_a_data_set_of_a_hub_is_prepared_from_its_shards(tmp_path):
    """Splits in one folder, with hashes in the files' names and the classes in their metadata."""
    names, expected = ["ape", "bee", "cat"], {}
    for seed, shard in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-0-of-1")):
        labels = [k % 3 for k in range(12)]
        path = tmp_path / "data" / f"{shard}-1f0a{seed}.parquet"
        parquet(path, encoded(12, seed=seed), labels, names, row_group_size=5)
        images = as_tensor(pixels(12, seed=seed)).numpy()
        expected |= {a.tobytes(): label for a, label in zip(images, labels, strict=True)}
    source = {"name": "parquet", "train": "data/train-*.parquet", "test": "data/test-*.parquet"}
    assert prepare(tmp_path, source, "--folder", str(tmp_path)) == 0
    data = Dataset.load(tmp_path / "out")
    assert data.classes == tuple(names)
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [18, 6, 6]
    for split in data.splits.values():
        for image, label in zip(split.images.numpy(), split.labels.tolist(), strict=True):
            assert expected[image.tobytes()] == label


@pytest.mark.parametrize(
    ("names", "train", "said"),
    [
        (SHARDS[:1], SHARDS[0], "1 of the 3 files"),
        (["t-00000-of-00002-ab.parquet"], ".", "1 of the 2 files"),
        (["t-0-of-3.parquet", "t-2-of-3.parquet"], "t-*", "2 of the 3 files t-*"),
        (["0000.parquet", "0001.parquet"], "0000.parquet", "1 files of the same set lie beside"),
        (["part-000-x.parquet", "part-001-y.parquet"], "part-000-x.parquet", "(part-001-y.par"),
        (["part-0.parquet", "part-10.parquet"], "part-0.parquet", "a pattern (part-*"),
        (["train-a.parquet", "test-a.parquet"], ".", "several splits (test-a.parquet"),
        (["toy_train.parquet", "toy_val.parquet", "toy.parquet"], "*", "several splits"),
        (["train/0.parquet", "test/0.parquet"], "**/*.parquet", "several splits (test/0.par"),
        (["train/0.parquet", "test/0.parquet"], ".", "no file that ends in .parquet"),
        ([], "train-*.parquet", "no file at"),
        (["a.parquet"], ["a.parquet", "b.parquet"], "b.parquet, which is listed"),
        ([], "x" * 300, "name too long"),
        ([], "x\0", "no file at"),
    ],
)
def test_files_that_are_not_a_whole_set_are_refused(names, train, said, tmp_path):
    shards(tmp_path / "d", names)
    check_refused({"name": "parquet", "train": train}, tmp_path / "d", said)


@pytest.mark.parametrize("name", ["cifar10", "mnist-28"])
def test_files_of_other_data_sets_beside_one_are_no_part_of_it(name, tmp_path):
    names = ("cifar10", "cifar100", "mnist-28", "mnist-64")
    shards(tmp_path, [f"{one}.parquet" for one in names])
    assert len(load_source({"name": "parquet", "train": f"{name}.parquet"}, tmp_path).labels) == 2


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        ([0, 1], {"label": "fine_label"}, ["'fine_label'", "'label'"]),
        ([0, 1], {"image": "image"}, ["'image'", "'img'"]),
        ([0, 1], {"names": ["a", "b"]}, ["'a', 'b'"]),
        (["x", "y"], {}, ["texts", "numbers"]),
    ],
)
def test_files_of_one_set_have_the_same_columns_and_classes(labels, options, said, tmp_path):
    parquet(tmp_path / "a.parquet", encoded(2), [0, 1])
    parquet(tmp_path / "b.parquet", encoded(2), labels, **options)
    check_refused(PARQUET | {"train": "*"}, tmp_path, "b.parquet differs", "a.parquet", *said)


@pytest.mark.parametrize(
    ("names", "labels", "others", "said"),
    [
        (["a", "b"], [0, 1, 0], ["a", "c"], ["['a', 'c']", "['a', 'b']", "both alike"]),
        (["a", "b"], [0, 1, 2], None, ["row 2", "is 2", "2 class names"]),
        (None, [0, 1, 7], None, ["row 2", "is 7", "2 classes are those of", "a.parquet"]),
        (None, ["0", "1", "0"], None, ["texts", "numbers", "both alike"]),
    ],
)
def test_train_and_test_have_the_same_classes(names, labels, others, said, tmp_path):
    parquet(tmp_path / "a.parquet", encoded(), [0, 1, 0], names)
    parquet(tmp_path / "b.parquet", encoded(), labels, others)
    check_refused(PARQUET | {"test": "b.parquet"}, tmp_path, "b.parquet", *said)


# --- what can't be read ---------------------------------------------------------------------------


def test_a_bitmap_of_16_bits_for_all_channels_together_is_read(tmp_path):
    masks, red_and_green = (0xF800, 0x07E0, 0x001F), struct.pack("<2H", 0xF800, 0x07E0)
    header = struct.pack("<2sIHHI", b"BM", 70, 0, 0, 66)
    header += struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    bitmap = header + struct.pack("<3I", *masks) + red_and_green
    parquet(tmp_path / "a.parquet", [bitmap, bitmap], [0, 1])
    source = load_source(PARQUET, tmp_path)
    assert source.images[0, :, 0].T.tolist() == [[255, 0, 0], [0, 255, 0]]


@pytest.mark.parametrize("row", [0, 3])
@pytest.mark.parametrize(
    ("bad", "size", "said"),
    [
        (None, None, ["is null"]),
        (b"no image at all", None, ["can't be decoded", "15 bytes", "JPEG, PNG"]),
        (encode(pixels(1, 64)[0], "JPEG")[:-500], 6, ["can't be decoded", "truncated"]),
        (encode(pixels(1)[0])[:-60], None, ["can't be decoded"]),
        (encode(Image.new("I;16", (6, 6), 999)), None, ["more than 8 bits", "I;16"]),
        (deep_png(2, 3), None, ["more than 8 bits", "RGB"]),
        (deep_png(4, 2), None, ["more than 8 bits"]),
        (deep_png(6, 4), None, ["more than 8 bits", "RGBA"]),
        (b"P6 2 1 4095\n" + bytes(12), None, ["more than 8 bits", "RGB"]),
    ],
    ids=[
        "null",
        "no image",
        "truncated JPEG",
        "truncated PNG",
        "16 bits",
        "RGB",
        "LA",
        "RGBA",
        "PPM",
    ],
)
def test_one_bad_image_ends_in_a_message_with_file_and_row(bad, size, said, row, tmp_path):
    images = encoded(5)
    images[row] = bad
    parquet(tmp_path / "a.parquet", images, [0, 1, 0, 1, 0])
    check_refused(PARQUET | {"size": size}, tmp_path, f"a.parquet, row {row}:", *said)


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 17)  # of which Pillow allows twice as many
    parquet(tmp_path / "a.parquet", encoded(), [0, 1, 0])
    check_refused(PARQUET, tmp_path, "a.parquet, row 0:", "36 pixels", "exceeds limit of 34")


def test_the_first_image_decides_the_size_of_all(tmp_path):
    parquet(tmp_path / "a.parquet", encoded(2) + encoded(1, size=9), [0, 1, 0])
    check_refused(PARQUET, tmp_path, "a.parquet, row 2:", "9 x 9 pixels", "6 x 6", "`size`")


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
    write(tmp_path / "a.parquet", {"img": encoded(4), "label": labels}, names)
    check_refused(PARQUET, tmp_path, "a.parquet", *said)


def test_files_that_are_empty_or_no_parquet_are_refused_by_name(tmp_path):
    parquet(tmp_path / "a.parquet", [], pa.array([], pa.int64()))
    check_refused(PARQUET, tmp_path, "a.parquet has no rows")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 something else PAR1")
    check_refused(PARQUET, tmp_path, "a.parquet is no readable parquet file")


@pytest.mark.parametrize("function", ["_decode._resize", "parquet._check_label"])
def test_a_mistake_of_ours_is_not_reported_as_a_damaged_file(function, tmp_path, monkeypatch):
    parquet(tmp_path / "a.parquet", encoded(), [0, 1, 0])
    monkeypatch.setattr(f"fourfold.data.sources.{function}", None)
    with pytest.raises(TypeError):
        load_source(PARQUET | {"size": 4}, tmp_path)


# --- conversions ----------------------------------------------------------------------------------


def decoded(image, tmp_path, **settings):
    image = image if isinstance(image, bytes) else encode(image)
    parquet(tmp_path / "a.parquet", [image], [0])
    return load_source(PARQUET | settings, tmp_path).images[0].permute(1, 2, 0).numpy()


def test_grey_and_palette_images_become_rgb(tmp_path):
    grey = pixels(1)[0, :, :, 0]
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    assert np.array_equal(decoded(Image.fromarray(grey), tmp_path), expected)
    jpeg = encode(Image.fromarray(grey), "JPEG")
    assert np.ptp(decoded(jpeg, tmp_path).astype(int), axis=2).max() == 0
    palette = Image.fromarray(pixels(1, 4)[0]).quantize(16, dither=Image.Dither.NONE)
    assert np.array_equal(decoded(palette, tmp_path), np.asarray(palette.convert("RGB")))


def test_what_is_transparent_becomes_black(tmp_path):
    rgba = np.concatenate([pixels(1)[0], np.full((6, 6, 1), 255, np.uint8)], axis=2)
    rgba[0, :, 3] = 0
    rgba[1, :, 3] = 128
    rgb = decoded(Image.fromarray(rgba), tmp_path)
    assert (rgb[0] == 0).all()
    assert np.abs(rgb[1] - rgba[1, :, :3] * (128 / 255)).max() <= 1
    assert np.array_equal(rgb[2:], rgba[2:, :, :3])
    palette = Image.fromarray(pixels(1, 2)[0]).quantize(4, dither=Image.Dither.NONE)
    file = encode(palette, transparency=palette.getpixel((0, 0)))
    assert (decoded(file, tmp_path)[0, 0] == 0).all()


def test_the_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    assert np.array_equal(decoded(encode(pixels(1)[0], exif=exif), tmp_path), pixels(1)[0])


def test_resizing_takes_the_central_square(tmp_path):
    wide = np.zeros((4, 10, 3), np.uint8)
    wide[:, 3:7] = pixels(1, 4)[0]
    assert np.array_equal(decoded(wide, tmp_path, size=4), wide[:, 3:7])
    high = wide.swapaxes(0, 1)
    assert np.array_equal(decoded(high, tmp_path, size=4), high[3:7])
    line = Image.new("L", (60_000, 1), 77)  # resized as a whole it would be huge
    assert (decoded(line, tmp_path, size=64) == 77).all()


# --- folders --------------------------------------------------------------------------------------

FOLDER = {"name": "image-folder", "train": "p", "test": None, "size": 6}


def pets(folder, classes=("cat", "dog"), count=3):
    """Write folders of classes below `folder`; return them."""
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for j, image in enumerate(encoded(count, seed=k)):
            (folder / name / f"{j:03d}.png").write_bytes(image)
    return [folder / name for name in classes]


def test_a_folder_and_a_parquet_file_of_the_same_images_are_equal(tmp_path):
    pets(tmp_path / "p", ["ant", "bee"], count=12)
    images = encoded(12) + encoded(12, seed=1)
    parquet(tmp_path / "a.parquet", images, [0] * 12 + [1] * 12, ["ant", "bee"])
    folders = load_source(FOLDER | {"test": "p"}, tmp_path, threads=2)
    table = load_source(PARQUET | {"test": "a.parquet"}, tmp_path)
    assert folders.classes == table.classes
    for one, other in ((folders.images, table.images), *zip(folders.test, table.test, strict=True)):
        assert torch.equal(one, other)
    assert torch.equal(folders.labels, table.labels)


def test_folders_that_can_not_be_used_are_refused_by_name(tmp_path):
    settings = FOLDER | {"test": "q"}
    check_refused(settings, tmp_path, f"no folder at {tmp_path / 'p'}")
    check_refused(FOLDER | {"train": "x" * 300}, tmp_path, "name too long")
    (tmp_path / "p").mkdir()
    check_refused(settings, tmp_path, "p has no folders")
    pets(tmp_path / "p", ["ant", "bee"])
    pets(tmp_path / "q", ["ant", "cat"])
    check_refused(settings, tmp_path, "other classes", "bee, cat")
    (tmp_path / "p" / "empty").mkdir()
    check_refused(FOLDER, tmp_path, "empty has no images", ".png")
    (tmp_path / "p" / "empty" / "x.JPG").write_bytes(b"text")
    check_refused(FOLDER, tmp_path, "x.JPG", "can't be decoded")


def test_what_is_hidden_or_the_systems_is_left_out_anywhere(tmp_path):
    cat, _ = pets(tmp_path / "p")
    for hidden in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".thumbnails"):
        for place in (cat, cat / "deep" / "er", tmp_path / "p"):
            pets(place / hidden)
    for name in ("._000.png", ".DS_Store", "Thumbs.db"):
        (cat / name).write_bytes(b"no image")
    source = load_source(FOLDER, tmp_path)
    assert (source.classes, source.labels.tolist()) == (["cat", "dog"], [0] * 3 + [1] * 3)
    assert source.remarks == ()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_suffix_of_a_format_is_read(kind, tmp_path):
    suffixes = [s for s in SUFFIXES if Image.registered_extensions()[s] == kind]
    for cat in pets(tmp_path / "p", count=1):
        for suffix in suffixes:
            (cat / f"x{suffix.upper()}").write_bytes(encode(pixels(1, 16)[0], kind))
    assert len(load_source(FOLDER, tmp_path).labels) == 2 * len(suffixes) + 2 > 2
    usual = ".jpg .jpeg .jpe .jfif .png .gif .bmp .tif .tiff .webp .ppm .pgm .pbm"
    assert set(usual.split()) <= set(SUFFIXES)


def test_files_that_are_left_out_are_counted_and_named(tmp_path):
    cat, dog = pets(tmp_path / "p")
    for path in (cat / "a.heic", cat / "deep" / "b", dog / "c.txt", tmp_path / "p" / "stray.png"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (dog / "nowhere.png").symlink_to(tmp_path / "nothing")
    (line,) = load_source(FOLDER, tmp_path).remarks
    assert line.startswith(f"{tmp_path / 'p'}: files left out: 5 (the first: stray.png, ")
    assert load_source(FOLDER | {"test": "p"}, tmp_path).remarks == (line, line)


def test_links_are_followed_once(tmp_path):
    more, owl = pets(tmp_path / "elsewhere", ["more", "owl"], count=2)
    cat, _ = pets(tmp_path / "p")
    (cat / "more").symlink_to(more)
    (cat / "again").symlink_to(more)
    (cat / "loop").symlink_to(cat)
    (cat / "single.png").symlink_to(owl / "001.png")
    (tmp_path / "p" / "owl").symlink_to(owl)
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

TINY = {"name": "tiny-imagenet", "download": False}


def tiny(folder):
    """Write the published layout with three classes; one of the val images is grey."""
    root, arrays = folder / "tiny-imagenet-200", pixels(11, 8)
    files = {"wnids.txt": "n03\nn01\nn02\n", "test/images/t.JPEG": "is never read"}
    files["words.txt"] = "n01\tgoldfish, carp\nn02\ttoad\nn03\tboa\nn04\tother\n"
    files["val/val_annotations.txt"] = "".join(
        f"val_{k}.JPEG\t{wnid}\t0\t0\t7\t7\n"
        for k, wnid in enumerate(["n02", "n01", "n03", "n02", "n01"])
    )
    for k in range(6):
        wnid = f"n0{k // 2 + 1}"
        files[f"train/{wnid}/{wnid}_boxes.txt"] = "n_0.JPEG\t0\t0\t1\t1\n"
        files[f"train/{wnid}/images/{wnid}_{k % 2}.JPEG"] = encode(arrays[k], "JPEG")
    for k in range(5):
        image = Image.fromarray(arrays[6 + k]).convert("L" if k == 3 else "RGB")
        files[f"val/images/val_{k}.JPEG"] = encode(image, "JPEG")
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def pack(root):
    """Replace the folder by the archive of it."""
    archive = root.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(root.rglob("*"), reverse=True):
            opened.write(path, path.relative_to(root.parent).as_posix())
    root.rename(root.parent / "unpacked")
    return archive


def test_val_has_the_labels_of_its_annotations_packed_or_not(tmp_path):
    root = tiny(tmp_path)
    source = load_source(TINY, tmp_path, threads=2)
    assert source.classes == ["goldfish, carp", "toad", "boa"]  # of n01, n02, n03
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.images.shape == (6, 3, 8, 8)
    images, labels = source.test
    assert labels.tolist() == [1, 0, 2, 1, 0]
    assert [torch.equal(image[0], image[1]) for image in images] == [False] * 3 + [True, False]
    pack(root)
    packed = load_source(TINY, tmp_path)
    assert torch.equal(packed.images, source.images) and torch.equal(packed.test[0], images)


@pytest.mark.parametrize("is_packed", [False, True])
def test_tiny_imagenet_is_resized_as_parquet_files_of_its_images_are(is_packed, tmp_path):
    root, settings = tiny(tmp_path), {"size": 4}
    train = [path.read_bytes() for path in sorted(root.glob("train/*/images/*"))]
    val = [path.read_bytes() for path in sorted(root.glob("val/images/*"))]
    parquet(tmp_path / "train.parquet", train, [0, 0, 1, 1, 2, 2])
    parquet(tmp_path / "val.parquet", val, [1, 0, 2, 1, 0])
    files = {"name": "parquet", "train": "train.parquet", "test": "val.parquet"}
    expected = load_source(files | settings, tmp_path)
    if is_packed:
        pack(root)
    source = load_source(TINY | settings, tmp_path)
    assert source.images.shape == (6, 3, 4, 4) and torch.equal(source.images, expected.images)
    assert torch.equal(source.labels, expected.labels)
    assert all(map(torch.equal, source.test, expected.test))
    split = {"seed": 0, "train_images": None, "val_images": 3, "test_images": None}
    folders = ["--folder", str(tmp_path), "--output", str(tmp_path / "out")]
    chosen = json.dumps({"source": TINY | settings, "split": split})
    assert main(["prepare-data", "--name", "d", "--settings", chosen, *folders]) == 0
    assert Dataset.load(tmp_path / "out").image_shape == (3, 4, 4)


ANNOTATIONS = "val/val_annotations.txt"


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (ANNOTATIONS, None, None, ["no file at", ANNOTATIONS]),
        (ANNOTATIONS, b"n03", b"n99", [f"{ANNOTATIONS}, line 3", "'n99'", "wnids.txt"]),
        (ANNOTATIONS, b"\tn03", b"", [f"{ANNOTATIONS}, line 3"]),
        (ANNOTATIONS, b"val_0.JPEG\tn02", b"", [f"{ANNOTATIONS}, line 1", "wnids.txt"]),
        (ANNOTATIONS, b"val_4.JPEG\tn01\t0\t0\t7\t7", b"", ["val_4.JPEG has no line"]),
        ("val/images/val_1.JPEG", None, None, [f"{ANNOTATIONS}, line 2", "images/val_1.JPEG"]),
        ("wnids.txt", b"n02\n", b"", ["train/n02", "is of no class", "wnids.txt"]),
        ("wnids.txt", b"n02\n", b"n02\nn04\n", ["train/n04/images has no .JPEG", "1 of the 4"]),
        ("words.txt", b"n02", b"n05", ["words.txt", "'n02'"]),
        ("train/n02/images/n02_1.JPEG", b"\xff\xd8", b"", ["n02_1.JPEG", "can't be decoded"]),
    ],
)
def test_a_damaged_tiny_imagenet_is_refused_by_file_and_line(
    name, old, new, said, is_packed, tmp_path
):
    root = tiny(tmp_path)
    content = (root / name).read_bytes()
    (root / name).unlink()
    if old:
        (root / name).write_bytes(content.replace(old, new))
    check_refused(TINY, tmp_path, *said, str(pack(root) if is_packed else root))


def test_an_archive_that_is_damaged_or_missing_is_refused_by_name(tmp_path):
    check_refused(TINY, tmp_path, str(tmp_path), "tiny-imagenet-200.zip", "download")
    archive = pack(tiny(tmp_path))
    content = archive.read_bytes()
    at = content.index(encode(pixels(11, 8)[2], "JPEG")) + 50  # an image of class n02
    archive.write_bytes(content[:at] + b"####" + content[at + 4 :])
    check_refused(TINY, tmp_path, str(archive), "n02_0.JPEG", "CRC")
    archive.write_bytes(content[:2000])
    check_refused(TINY, tmp_path, f"{archive} is damaged")


def test_a_folder_without_tiny_imagenet_is_refused_for_what_it_is(tmp_path):
    check_refused(TINY, tmp_path, "has neither the folder tiny-imagenet-200/ nor the archive")
    check_refused(TINY, tmp_path / ("x" * 300), "name too long")


# --- downloads: the server is a folder ------------------------------------------------------------


@pytest.fixture
def served(tmp_path, monkeypatch):
    archive = pack(tiny(tmp_path / "server"))
    monkeypatch.setattr(tiny_imagenet, "URL", archive.as_uri())
    monkeypatch.setattr(tiny_imagenet, "MD5", md5(archive))
    return archive


def test_a_download_is_complete_or_not_there(served, tmp_path, monkeypatch):
    settings, folder = TINY | {"download": True}, tmp_path / "data"
    with monkeypatch.context() as patched:
        patched.setattr(tiny_imagenet, "MD5", "0" * 32)
        check_refused(settings, folder, "MD5", "0" * 32, served.as_uri())
        patched.setattr(tiny_imagenet, "URL", (tmp_path / "nothing").as_uri())
        check_refused(settings, folder, "can't be downloaded", "nothing", str(folder))
        patched.setattr(tiny_imagenet, "URL", "http://127.0.0.1:9/nothing")
        check_refused(settings, folder, "can't be downloaded", "refused")
    assert list(folder.iterdir()) == []
    assert load_source(settings, folder).labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (folder / "tiny-imagenet-200.zip").read_bytes() == served.read_bytes()


def test_what_a_killed_download_left_is_removed_and_what_a_living_one_writes_is_not(
    served, tmp_path
):
    folder = tmp_path / "data"
    folder.mkdir()
    left, others, living = (
        folder / f".unfinished-{name}" for name in ("abc.zip", "x.gz", "def.zip")
    )
    for path in (left, others, living):
        path.write_bytes(b"half")
    with living.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        load_source(TINY | {"download": True}, folder)
    assert set(folder.iterdir()) == {living, others, folder / served.name}


# --- CIFAR ----------------------------------------------------------------------------------------


@pytest.fixture(params=["CIFAR10", "CIFAR100"])
def cifar(request, tmp_path, monkeypatch):
    """Write the published layout, small, and tell torchvision its checksums."""
    published = getattr(import_torchvision("datasets"), request.param)
    base = tmp_path / published.base_folder
    base.mkdir()
    classes, key = (10, "labels") if request.param == "CIFAR10" else (100, "fine_labels")
    rng = np.random.default_rng(0)

    def dump(file, content):
        (base / file).write_bytes(pickle.dumps(content, protocol=2))
        return md5(base / file)

    for lists in ("train_list", "test_list"):
        entries = []
        for file, _ in getattr(published, lists):
            data = rng.integers(0, 256, (20, 3 * 32 * 32), np.uint8)
            labels = [3 * j % classes for j in range(20)]
            entries.append([file, dump(file, {"data": data, key: labels})])
        monkeypatch.setattr(published, lists, entries)
    meta, names = published.meta, [f"class {k}" for k in range(classes)]
    digest = dump(meta["filename"], {meta["key"]: names})
    monkeypatch.setattr(published, "meta", meta | {"md5": digest})
    archive = tmp_path / "server" / published.filename
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(base, published.base_folder)
    monkeypatch.setattr(published, "tgz_md5", md5(archive))
    monkeypatch.setattr(published, "url", archive.as_uri())
    return published, {"name": request.param.lower(), "download": False}, base


def test_cifar_is_read_from_its_folder_its_archive_or_the_server(cifar, tmp_path, monkeypatch):
    published, settings, base = cifar
    expected = [
        np.concatenate([pickle.loads((base / file).read_bytes())["data"] for file, _ in files])
        for files in (published.train_list, published.test_list)
    ]
    data = tmp_path / "data"
    data.mkdir()
    check_refused(settings, data, "has no intact", str(data), "MD5", published.base_folder)
    (data / published.filename).write_bytes(b"half an archive")
    check_refused(settings, data, "has no intact")
    for folder, download in ((tmp_path, False), (base.parent / "server", False), (data, True)):
        source = load_source(settings | {"download": download}, folder)
        for images, pixels in zip((source.images, source.test[0]), expected, strict=True):
            assert np.array_equal(images.flatten(1), pixels)
        assert source.labels[:3].tolist() == source.test[1][:3].tolist() == [0, 3, 6]
        assert source.classes[-1] == f"class {len(source.classes) - 1}"
    # What was extracted in part is extracted again, without a server.
    monkeypatch.setattr(published, "url", (tmp_path / "nothing").as_uri())
    (data / published.base_folder / published.test_list[0][0]).write_bytes(b"half")
    assert torch.equal(load_source(settings, data).test[0], source.test[0])


def test_cifar_waits_while_another_process_extracts_it(cifar, tmp_path):
    published, settings, base = cifar
    file = base / published.test_list[0][0]
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)

    def end():
        file.write_bytes(whole)
        os.close(held)

    timer = threading.Timer(0.3, end)
    timer.start()
    assert load_source(settings, tmp_path).test[1][:3].tolist() == [0, 3, 6]
    timer.join()


@pytest.mark.parametrize("damaged", [b"", b"half"])
def test_a_file_of_cifar_that_changes_after_its_checksum_is_refused(
    damaged, cifar, tmp_path, monkeypatch
):
    published, settings, base = cifar
    (base / published.test_list[0][0]).write_bytes(damaged)
    changed = [[published.test_list[0][0], hashlib.md5(damaged).hexdigest()]]
    monkeypatch.setattr(published, "test_list", changed)
    check_refused(settings, tmp_path, "has no intact", str(tmp_path), "Remove what is damaged")


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("something was unpickled",))


@pytest.mark.parametrize("which", ["train_list", "test_list", "meta"])
def test_nothing_with_a_wrong_checksum_is_unpickled(cifar, which, tmp_path):
    published, settings, base = cifar
    file = published.meta["filename"] if which == "meta" else getattr(published, which)[0][0]
    (base / file).write_bytes(pickle.dumps(Trap()))
    check_refused(settings, tmp_path, str(tmp_path), published.filename, "source.download")


# --- the command ----------------------------------------------------------------------------------


def prepare(tmp_path, source, *arguments):
    split = {"by": "chance", "seed": 0, "train_images": None, "val_images": 6, "test_images": 6}
    settings = json.dumps({"source": source, "split": split})
    arguments = ["--settings", settings, "--output", str(tmp_path / "out"), *arguments]
    return main(["prepare-data", "--name", "mine", *arguments])


def test_files_are_looked_up_in_the_folder_given_or_in_the_environment(tmp_path, monkeypatch):
    source = {"name": "parquet", "train": ["a.parquet"], "test": None}
    files, prepared = tmp_path / "files", tmp_path / "out" / "train.safetensors"
    parquet(files / "a.parquet", encoded(40), [k % 2 for k in range(40)])
    monkeypatch.delenv("FOURFOLD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert prepare(tmp_path, source) == 1
    assert not prepared.exists()
    assert prepare(tmp_path, source, "--folder", str(files), "--threads", "2") == 0
    first = prepared.read_bytes()
    monkeypatch.setenv("FOURFOLD_DATA", str(files))
    assert prepare(tmp_path, source) == 0
    assert prepared.read_bytes() == first
    monkeypatch.delenv("FOURFOLD_DATA")
    files.rename(tmp_path / "downloads")
    assert prepare(tmp_path, source) == 0
    _, header = load_tensors(prepared)
    assert str(tmp_path) not in json.dumps(header)


def test_what_is_left_out_and_images_in_two_splits_are_reported(tmp_path, capsys):
    cat, dog = pets(tmp_path / "p", count=20)
    (cat / "notes.txt").write_text("x")
    for path in dog.glob("*.png"):
        path.write_bytes(encoded(1, seed=5)[0])
    assert prepare(tmp_path, FOLDER, "--folder", str(tmp_path)) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert ["files left out: 1 " in line for line in notes] == [True, False, False, False]
    assert ["3 of 6 images of" in line for line in notes] == [False, True, True, True]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("digits", "'digits'"),
        ({"train": "a"}, "name"),
        ({"name": "mnist"}, "mnist"),
        ({"name": "digits", "size": 3}, "size"),
        ({"name": "cifar10"}, "download"),
        ({"name": "cifar100", "download": 1}, "source.download"),
        ({"name": "parquet", "train": [], "test": None}, "source.train"),
        ({"name": "parquet", "train": ["a", "a"], "test": None}, "source.train"),
        ({"name": "parquet", "train": "a", "test": 3}, "source.test"),
        (FOLDER | {"size": 0}, "source.size"),
        (TINY | {"size": 4097}, "source.size"),
        ({"name": "cifar10", "download": False, "size": 16}, "size"),
        ({"name": "parquet", "train": "none.parquet", "test": None}, "none.parquet"),
    ],
)
def test_a_wrong_source_ends_in_one_message_and_no_file(source, said, tmp_path, capsys):
    assert prepare(tmp_path, source) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
