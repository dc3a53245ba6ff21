"""Masks in files, and in ``torch.nn.utils.prune``.

A mask set is a plain ``{parameter name: bool tensor}``, True where a connection is kept.
"""

import errno
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from snipkit._attach import bare_copy
from snipkit._files import replacing
from snipkit._weights import refuse_recomputed
from snipkit.masking import Masks, named_matches

NEVER_CALLED = (
    nn.modules.linear.NonDynamicallyQuantizableLinear,
    nn.ParameterList,
    nn.ParameterDict,
)


def save(masks: Masks, path: str | Path) -> None:
    """Write masks to a file.

    It is in numpy's ``.npz`` format, one bit an entry, whatever the suffix; but in that of
    safetensors, one byte an entry, if the suffix is ``.safetensors`` (which needs that package).

    A file that was there is replaced when the new one is whole.

    Raises:
        TypeError: no dict of masks.
        ValueError: a mask that is no tensor of bool type.
        OSError: the file cannot be written; then what was there still is.
    """
    if not isinstance(masks, Mapping):
        kind = type(masks).__name__
        raise TypeError(f"masks is of type {kind}: the dict of masks comes first, then the path")
    for name, mask in masks.items():
        if not torch.is_tensor(mask) or mask.dtype != torch.bool:
            kind = getattr(mask, "dtype", type(mask).__name__)
            raise ValueError(f"the mask of {name} is {kind}, not torch.bool")
    if Path(path).suffix == ".safetensors":
        from safetensors.torch import save_file

        # It refuses tensors that share memory, as the parts of one tensor do.
        separate = {name: mask.detach().cpu().clone().contiguous() for name, mask in masks.items()}
        with replacing(_target(path)) as unfinished:
            save_file(separate, unfinished)
        return
    packed: dict[str, Any] = {}
    for name, mask in masks.items():
        sizes = "x".join(map(str, mask.shape))
        packed[f"{name}:{sizes}"] = np.packbits(mask.cpu().numpy().reshape(-1))
    with replacing(_target(path)) as unfinished:
        with open(unfinished, "wb") as stream:  # numpy would add a suffix to a name without one
            np.savez_compressed(stream, **packed)


def _target(path: str | Path) -> Path:
    """The path, if a file can be written there. OSError: it cannot."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return path


def load(path: str | Path) -> Masks:
    """Read what ``save`` wrote, to the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is not such masks, or a damaged one.
    """
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            masks = load_file(path)
            other_names = [name for name, mask in masks.items() if mask.dtype != torch.bool]
            if other_names:
                raise ValueError(f"{', '.join(other_names)} is not of bool type")
            return masks
        with np.load(path) as stored:
            return dict(_unpacked(key, stored[key]) for key in stored.files)
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:  # zipfile, zlib, numpy and safetensors raise half a dozen kinds
        raise ValueError(
            f"{Path(path)} does not hold masks, or is damaged: save them again ({error})"
        ) from error


def _unpacked(key: str, packed: np.ndarray) -> tuple[str, Tensor]:
    """(name, mask) from "name:3x4" and packed bits."""
    name, colon, sizes = key.rpartition(":")
    shape = tuple(int(size) for size in sizes.split("x") if size)
    count = math.prod(shape)
    n_bytes = (count + 7) // 8
    if not colon or packed.dtype != np.uint8 or packed.shape != (n_bytes,):
        raise ValueError(f"{key} has {packed.size} entries of {packed.dtype}, not {n_bytes} bytes")
    bits = np.unpackbits(packed, count=count).astype(bool)
    return name, torch.from_numpy(bits.reshape(shape))


def to_torch_prune(model: nn.Module, masks: Masks, inputs: Any = None) -> None:
    """Hand the masks over to ``torch.nn.utils.prune``, in place, as its ``weight_mask`` buffers.

    torch computes a masked weight anew just before its layer is called. All layers that share a
    weight get its mask.

    Args:
        inputs: a batch for the model (a tuple: its arguments). With it all layers are found whose
            weights their user reads without calling them (torchvision's Swin, this library's LSTM);
            without it only those in ``nn.MultiheadAttention`` and in parameter lists.

    Raises:
        ValueError: masks that do not fit the model; weights of layers that are never called (torch
            would not compute those anew, so use ``attach`` there); weights in which a 0 is no
            pruned connection (see ``prunable``). Nothing is changed then.
    """
    located = named_matches(model, masks)
    owners: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for prefix, module in model.named_modules():
        for own_name, parameter in module.named_parameters(recurse=False):
            full_name = f"{prefix}.{own_name}".removeprefix(".")
            owners.setdefault(id(parameter), []).append((full_name, module, own_name))
    places = []
    for _, parameter, mask in located:
        for full_name, module, own_name in owners[id(parameter)]:
            places.append((full_name, module, own_name, mask))
    called = None if inputs is None else _called(model, inputs)
    uncalled = []
    for full_name, module, own_name, _ in places:
        prefix = full_name.removesuffix(own_name).removesuffix(".")
        if isinstance(module, NEVER_CALLED) or (called is not None and prefix not in called):
            uncalled.append(full_name)
    if uncalled:
        raise ValueError(
            f"{', '.join(uncalled)}: these layers are never called, their weights are read by "
            "other modules, where torch.nn.utils.prune cannot mask them. Use attach, or leave "
            "them out of the masks"
        )
    refuse_recomputed(model, [full_name for full_name, _, _, _ in places])
    for _, module, own_name, mask in places:
        torch_prune.custom_from_mask(module, own_name, mask)


@torch.no_grad()
def _called(model: nn.Module, inputs: Any) -> set[str]:
    """The names of the modules that a forward pass calls."""
    probe = bare_copy(model).eval()
    called: set[str] = set()
    for name, module in probe.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: called.add(name))
    probe(*inputs if isinstance(inputs, tuple) else (inputs,))
    return called


def from_torch_prune(model: nn.Module) -> Masks:
    """The masks of a model that ``torch.nn.utils.prune`` has pruned, by whichever method.

    The model is left as it is; ``torch.nn.utils.prune.remove`` makes its weights plain parameters
    again.

    Raises:
        ValueError: ``torch.nn.utils.prune`` has no mask in this model.
    """
    masks = {}
    seen = set()
    for prefix, module in model.named_modules():
        for own_name, original in module.named_parameters(recurse=False):
            name = own_name.removesuffix("_orig")
            mask = getattr(module, f"{name}_mask", None)
            if own_name != name and mask is not None and id(original) not in seen:
                seen.add(id(original))
                masks[f"{prefix}.{name}".removeprefix(".")] = mask.bool()
    if masks:
        return masks
    sparsified = []
    for name, module in model.named_modules():
        if type(module).__name__ == "FakeSparsity":
            sparsified.append(name)
    if sparsified:
        raise ValueError(
            "torch.ao.pruning masks this model, not torch.nn.utils.prune "
            f"({', '.join(sparsified)}): call its sparsifier's squash_mask(), after which the "
            "masks "
            "are {name: parameter != 0}"
        )
    raise ValueError(
        "torch.nn.utils.prune has no mask in this model: "
        "it was never pruned by it, or its remove() "
        "was called since"
    )
