"""Import torchvision beside a CPU-only torch.

The torchvision wheel on PyPI is linked against CUDA. Beside a CPU build of torch its C++ library does not load, and
torchvision's own start-up then stops at ``operator torchvision::nms does not exist`` (pytorch/vision issue 9077).
Declaring the two operators it misses is enough for the data sets. Delete this module once the guard proposed in
pytorch/vision pull request 9649 is in the oldest supported release.
"""

import importlib
import sys

import torch

_library = None  # the declarations live as long as this reference does


def load():
    """Import and return torchvision.

    Raises:
        RuntimeError: torchvision's start-up failed for any other reason than the missing C++ library.
    """
    global _library
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")
