"""The arithmetic of a network's forward and backward pass; parameters are float32 throughout."""

import contextlib
from collections.abc import Iterator

import torch

from fourfold.errors import InputError

PRECISIONS = ("float32", "tf32", "bfloat16")


def check_precision(name: str) -> None:
    """Refuse an unknown precision."""
    if name not in PRECISIONS:
        raise InputError(f"precision is {name!r}; choose one of {', '.join(PRECISIONS)}.")


@contextlib.contextmanager
def compute_precision(name: str, device: torch.device) -> Iterator[None]:
    """Run what is inside in `float32`, in `tf32`, or with autocast to `bfloat16`.

    `float32` means IEEE single precision on every device: on a GPU PyTorch by itself lets
    convolutions round their inputs to TF32's 10-bit mantissa, which is what `tf32` stands for (on
    a CPU it changes nothing). Enter it anew for each forward pass: autocast keeps its copies of the
    parameters until the block ends, and a step changes the parameters.
    """
    if device.type != "cuda":
        with torch.autocast(device.type, torch.bfloat16, enabled=name == "bfloat16"):
            yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = name != "float32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=name == "bfloat16"):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
