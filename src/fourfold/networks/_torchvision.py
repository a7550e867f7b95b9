"""Import torchvision also where only its Python part loads.

A CPU-only torch beside a torchvision that was compiled for CUDA can't register the compiled
operators, and `import torchvision` stops with `operator torchvision::nms does not exist`. The
networks and data sets need none of those operators, so their schemas are declared here and the
import is tried again. Where torch and torchvision match, the first import succeeds and nothing is
declared.
"""

import importlib
import sys
from types import ModuleType

from torch import library as torch_library

_declared: list[torch_library.Library] = []  # a Library takes its schemas back when it is collected


def import_torchvision(module: str) -> ModuleType:
    """Import `torchvision.<module>`, declaring missing compiled operators if need be."""
    name = f"torchvision.{module}"
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for loaded in [key for key in sys.modules if key.split(".")[0] == "torchvision"]:
        del sys.modules[loaded]
    if not _declared:
        library = torch_library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
    return importlib.import_module(name)
