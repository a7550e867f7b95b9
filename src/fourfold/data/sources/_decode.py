"""Encoded image files to one uint8 tensor of RGB images."""

import io
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from fourfold.errors import InputError

# Named, because Pillow would try all it knows, and some of those start other programs. It has AVIF
# and JPEG 2000 where it was built with them.
_WANTED = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")
_FORMAT_OF = Image.registered_extensions()
FORMATS = tuple(name for name in _WANTED if name in _FORMAT_OF.values())
SUFFIXES = sorted(suffix for suffix, name in _FORMAT_OF.items() if name in FORMATS)
_CHUNK = 64  # encoded images in memory at a time


def decode_images(
    encoded: Iterator[tuple[str, bytes]], count: int, size: int | None = None, threads: int = 1
) -> Tensor:
    """Decode images of equal size into (count, 3, height, width) uint8.

    Args:
        encoded: `count` pairs: where the image is (for messages), and the bytes of its file.
        count: number of images.
        size: pixels; if given, each image is cut to its central square and resized to this.
        threads: decoded at the same time; Pillow decodes outside Python's global lock.
    """
    first = next(encoded)
    height, width, _ = _decode(*first, size).shape
    images = np.empty((count, 3, height, width), np.uint8)

    def decode_into(numbered: tuple[int, tuple[str, bytes]]) -> None:
        row, (where, file) = numbered
        pixels = _decode(where, file, size)
        if pixels.shape != (height, width, 3):
            raise InputError(
                f"{where}: the image has {pixels.shape[1]} x {pixels.shape[0]} pixels, the first "
                f"one {width} x {height}; all must be equal. Remove it, or let the source resize "
                "all images (setting `size`)."
            )
        images[row] = pixels.transpose(2, 0, 1)

    remaining = zip(range(count), itertools.chain([first], encoded), strict=True)
    with ThreadPoolExecutor(threads) as pool:
        while chunk := list(itertools.islice(remaining, _CHUNK)):
            # The results are taken in order, so that the first bad row is named, not any of them.
            list(pool.map(decode_into, chunk))
    return torch.from_numpy(images)


def _decode(where: str, encoded: bytes, size: int | None) -> np.ndarray:
    """Return one image as (height, width, 3) uint8."""
    try:
        file = Image.open(io.BytesIO(encoded), formats=FORMATS)
        if _is_deep(file):
            raise ValueError(f"more than 8 bits per channel, mode {file.mode}")
        file.load()
        image = _to_rgb(file)
    except Exception as error:  # damaged files end in errors of many kinds, SyntaxError among them
        # Pillow names the buffer that it reads from, which says nothing to anybody.
        reason = str(error).partition(" <_io.BytesIO")[0].rstrip(".") or type(error).__name__
        raise InputError(
            f"{where}: the image can't be decoded ({reason}; {len(encoded):,} bytes); allowed are "
            f"complete files in the formats {', '.join(FORMATS)}, of 8 bits per channel and up to "
            f"{2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels. Replace or remove it."
        ) from error
    return np.asarray(image if size is None else _resize(image, size))


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Return whether an image that isn't loaded has more than 8 bits per channel.

    Pillow would cut grey ones off at 255, and keep the high byte alone of those with colours or an
    alpha channel, of which only what it is about to read tells.
    """
    if image.mode.split(";")[0] in ("I", "F"):
        return True
    read = [
        part for tile in image.tile for part in (tile[3] if type(tile[3]) is tuple else tile[3:])
    ]
    names = {part for part in read if type(part) is str} - {"BGR;16"}  # of all channels together
    largest = [part for part in read if type(part) is int] if image.format == "PPM" else []
    return any(";16" in name for name in names) or max(largest, default=0) > 255


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB; what is transparent lies on black. The EXIF orientation is ignored."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB")


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
