"""Keep oneDNN from convolutions whose gradients it gets wrong."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def avoid_wrong_gradients(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Do without oneDNN inside, on a CPU, if `model` has a convolution that it gets wrong.

    That is one of 1 x 1 with a stride, of fewer input channels than a vector register holds, on
    images with the channels last: the gradient of its weights is wrong or NaN, and memory around it
    is overwritten (https://github.com/uxlfoundation/oneDNN/issues/6035). Seen with torch 2.13 and
    AVX2, of 2 to 7 channels. AVX-512 has registers of 16; whether it is wrong there was not tried.

    PyTorch's own convolutions take about twice as long.
    """
    if device.type != "cpu" or not any(_is_wrong(module) for module in model.modules()):
        yield
        return
    # None leaves the precision as it is; `flags()` would set it, and warn.
    before, *_ = torch.backends.mkldnn.set_flags(False, _fp32_precision=None)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before, _fp32_precision=None)


def _is_wrong(module: nn.Module) -> bool:
    channels = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.groups == 1
        and module.in_channels < channels
    )
