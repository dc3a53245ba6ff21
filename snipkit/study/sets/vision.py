"""torchvision, also beside a CPU-only torch.

The torchvision wheel on PyPI is linked against CUDA. Beside a CPU build of torch its C++ library
does not load, and torchvision's own start-up then stops at ``operator torchvision::nms does not
exist`` (pytorch/vision issue 9077). Declaring the two operators that it misses is enough for data
sets, transforms and models. Delete this module once the guard proposed in pytorch/vision pull
request 9649 is in the oldest supported release.
"""

import importlib
import sys
from types import ModuleType

_library = None  # the declarations live as long as this reference does


def load_torchvision() -> ModuleType:
    """Import and return torchvision; after this, ``import torchvision`` works everywhere.

    Raises:
        RuntimeError: torchvision's start-up failed for another reason than its C++ library.
    """
    global _library
    import torch  # here: `make data` answers at once where all sets are on disk

    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise

    half_imported = [name for name in sys.modules if name.split(".")[0] == "torchvision"]
    for name in half_imported:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        _library.define(schema)
    return importlib.import_module("torchvision")
