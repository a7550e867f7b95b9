"""What every source returns."""

from dataclasses import dataclass

from torch import Tensor

# Of words in the names of files and folders.
SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Source:
    """A decoded data set as published, before it is split.

    Attributes:
        classes: class names; their positions are the labels.
        images: (n, channels, height, width) uint8, the published training set or everything.
        labels: (n,) int64.
        test: images and labels of the published test set, None if there is none.
        remarks: what its owner should know, a line each: files that were left out.
    """

    classes: list[str]
    images: Tensor
    labels: Tensor
    test: tuple[Tensor, Tensor] | None = None
    remarks: tuple[str, ...] = ()
