"""What a job cost: time, images, floating-point operations, memory."""

import resource
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass
class CostMeter:
    """Measures one job from its creation on.

    Attributes:
        device: where its networks run.
        images_forward: images passed forward through a network.
        images_backward: of these, the ones that were passed backward as well.
        seconds_before: time of earlier processes whose work this one continued.
    """

    device: torch.device
    images_forward: int = 0
    images_backward: int = 0
    seconds_before: float = 0.0
    _start: float = field(default_factory=time.perf_counter)

    def trained(self, images: int) -> None:
        """Count images that were passed forward and backward."""
        self.images_forward += images
        self.images_backward += images

    def row(self, stage: str, item: str, flop_per_image: int) -> dict[str, Any]:
        """Return the job's row of the `cost` table."""
        return {
            "stage": stage,
            "item": item,
            "device": describe_device(self.device),
            "wall_s": self.seconds_before + time.perf_counter() - self._start,
            "images_forward": self.images_forward,
            "images_backward": self.images_backward,
            # The gradient with respect to inputs and to weights costs one forward pass each.
            "flop": float(flop_per_image * (self.images_forward + 2 * self.images_backward)),
            "peak_bytes": peak_bytes(self.device),
        }


def flop_per_image(model: nn.Module, image_shape: tuple[int, ...]) -> int:
    """Return the floating-point operations of one forward pass of one image.

    A multiplication and its addition count as two; only convolutions, matrix products and attention
    count, as usual.
    """
    parameter = next(model.parameters())
    was_training, was_fused = model.training, torch.backends.mha.get_fastpath_enabled()
    model.eval()
    # The counter doesn't see inside fused attention.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            model(torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fused)
        model.train(was_training)
    flop: int = counter.get_total_flops()
    return flop


def describe_device(device: torch.device) -> str:
    """Return `cpu` or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_bytes(device: torch.device) -> int:
    """Return the largest memory of the job so far: of the GPU, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes
