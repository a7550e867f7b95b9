"""The arithmetic of a network's forward and backward pass; parameters are float32 throughout."""

import contextlib
from collections.abc import Iterator
from typing import Any

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
    check_precision(name)
    if device.type != "cuda":
        with torch.autocast(device.type, torch.bfloat16, enabled=name == "bfloat16"):
            yield
        return
    with (
        _tf32(allowed=name != "float32"),
        torch.autocast(device.type, torch.bfloat16, enabled=name == "bfloat16"),
    ):
        yield


@contextlib.contextmanager
def _tf32(*, allowed: bool) -> Iterator[None]:
    """Allow TF32 to a GPU's matrix products and convolutions, or don't; afterwards as before."""
    cuda: Any = torch.backends.cuda
    cudnn: Any = torch.backends.cudnn
    try:
        before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    except RuntimeError:  # as soon as somebody has set `fp32_precision`, the older names refuse
        operations = (cuda.matmul, cudnn.conv, cudnn.rnn)
        settings = [operation.fp32_precision for operation in operations]
        try:
            for operation in operations:
                operation.fp32_precision = "tf32" if allowed else "ieee"
            yield
        finally:
            for operation, setting in zip(operations, settings, strict=True):
                operation.fp32_precision = setting
        return
    try:
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        cudnn.allow_tf32 = allowed
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]
