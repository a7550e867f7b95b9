"""Encoded image files to one uint8 tensor of RGB images."""

import contextlib
import io
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fourfold.errors import InputError

# Named, because Pillow would try all it knows, and some of those start other programs. It has AVIF
# and JPEG 2000 where it was built with them.
_WANTED = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")
_FORMAT_OF = Image.registered_extensions()
FORMATS = tuple(name for name in _WANTED if name in _FORMAT_OF.values())
SUFFIXES = sorted(suffix for suffix, name in _FORMAT_OF.items() if name in FORMATS)
MAX_SIZE = 4096  # pixels along a side of a resized image
_DEEP_MODES = ("I", "F")  # 32 and 16 bits per channel; Pillow would cut them off at 255
_CHUNK_IMAGES, _CHUNK_BYTES = 256, 64_000_000  # encoded images in memory at a time


def decode_images(
    encoded: Iterable[tuple[str, bytes]],
    count: int,
    size: int | None = None,
    threads: int = 1,
) -> Tensor:
    """Decode images of equal size into (count, 3, height, width) uint8.

    The first image decides the size of all, unless `size` is given. The result does not depend on
    the number of threads.

    Args:
        encoded: `count` pairs: where the image is (for messages), and the bytes of its file.
        count: number of images.
        size: pixels; if given, each image is cut to its central square and resized to this. None
            leaves the images as they are.
        threads: decoded at the same time; Pillow decodes outside Python's global lock.

    Raises:
        InputError: naming the place, if an image can't be decoded or has another size.
    """
    if size is not None and not 1 <= size <= MAX_SIZE:
        raise InputError(f"source.size is {size}; it must be from 1 to {MAX_SIZE} pixels.")
    remaining = iter(encoded)
    first = next(remaining)
    pixels = _decode(*first, size, None)
    expected = pixels.shape[1::-1]
    images = _allocate(count, pixels.shape)
    images[0] = pixels.transpose(2, 0, 1)

    def decode_into(row: int, one: tuple[str, bytes]) -> None:
        images[row] = _decode(*one, size, expected).transpose(2, 0, 1)

    with ThreadPoolExecutor(threads) as pool:
        start = 1
        for chunk in _chunks(remaining):
            # The results are taken in order, so that the first bad row is named, not any of them.
            for _ in pool.map(decode_into, itertools.count(start), chunk):
                pass
            start += len(chunk)
    assert start == count, f"{start} images came, {count} were announced"
    return torch.from_numpy(images)


def _allocate(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    height, width, channels = shape
    try:
        return np.empty((count, channels, height, width), np.uint8)
    except MemoryError as error:
        raise InputError(
            f"{count} images of {width} x {height} pixels need "
            f"{count * height * width * channels / 1e9:.0f} GB of memory, more than there is; "
            "let the source resize them to a smaller `size`."
        ) from error


def _chunks(items: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    chunk, size = [], 0
    for item in items:
        chunk.append(item)
        size += len(item[1])
        if len(chunk) == _CHUNK_IMAGES or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _decode(
    where: str, encoded: bytes, size: int | None, expected: tuple[int, int] | None
) -> np.ndarray:
    """Return one image as (height, width, 3) uint8; `expected` is (width, height)."""
    with _pillow(where, encoded):
        image: Image.Image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    _check_header(where, image, size, expected)
    with _pillow(where, encoded):
        image.load()
        image = _to_rgb(image)
    return np.asarray(image if size is None else _resize(image, size))


@contextlib.contextmanager
def _pillow(where: str, encoded: bytes) -> Iterator[None]:
    """Turn what Pillow raises into a message; for calls of Pillow alone."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{where}: the image is refused before it is decoded ({error}) Make it smaller."
        ) from error
    except Exception as error:  # damaged files end in errors of many kinds, SyntaxError among them
        # Pillow names the buffer that it reads from, which says nothing to anybody.
        reason = str(error).partition(" <_io.BytesIO")[0] or type(error).__name__
        raise InputError(
            f"{where}: the image can't be decoded ({reason}; {len(encoded):,} bytes); allowed are "
            f"complete files in the formats {', '.join(FORMATS)}. Replace or remove it."
        ) from error


def _check_header(
    where: str,
    image: Image.Image,
    size: int | None,
    expected: tuple[int, int] | None,
) -> None:
    """Refuse an image by what its header declares, before its pixels are decoded."""
    if size is None and expected is not None and image.size != expected:
        raise InputError(
            f"{where}: the image has {image.width} x {image.height} pixels, the first one "
            f"{expected[0]} x {expected[1]}; all must be equal. Remove it, or let the source "
            "resize all images (setting `size`)."
        )
    if image.mode.split(";")[0] in _DEEP_MODES:
        raise InputError(
            f"{where}: the image has more than 8 bits per channel (Pillow's mode {image.mode}); "
            "save it with 8."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB; what is transparent lies on black. The EXIF orientation is ignored."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _resize(image: Image.Image, size: int) -> Image.Image:
    """Resize the central square to `size` pixels.

    That is resizing the shorter side and cropping the center, without ever holding the whole
    resized image, which is huge for one that is 1 pixel high.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
