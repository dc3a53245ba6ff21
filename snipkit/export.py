"""Masks on a model, in files, and in ``torch.nn.utils.prune``; ``snipkit.masking`` offers all of it.

A mask set is a plain ``{parameter name: bool tensor}``, True where a connection is kept.
"""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from snipkit._weights import refuse_recomputed

Masks = dict[str, Tensor]
NEVER_CALLED = (nn.modules.linear.NonDynamicallyQuantizableLinear, nn.ParameterList, nn.ParameterDict)


def plain_name(name: str) -> str:
    """A parameter's name without what ``torch.compile`` and data-parallel wrappers put before it."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def _located(model, masks):
    """(the model's own name, parameter, mask) for every mask; see ``matched``."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names = {plain_name(name): name for name in parameters} | {name: name for name in parameters}
    unmatched = [name for name in masks if name not in names and plain_name(name) not in names]
    if unmatched:
        raise ValueError(f"masks for {', '.join(unmatched)}, but {_why_unmatched(unmatched, names)}")
    located = []
    for name, mask in masks.items():
        own_name = names.get(name) or names[plain_name(name)]
        parameter = parameters[own_name]
        if not torch.is_tensor(mask):
            raise ValueError(f"the mask of {name} is {type(mask).__name__}, not a tensor of torch.bool")
        if mask.shape != parameter.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"the mask of {name} is {mask.dtype} of shape {tuple(mask.shape)}; "
                f"the parameter needs torch.bool of shape {tuple(parameter.shape)}"
            )
        located.append((own_name, parameter, mask))
    return located


def _why_unmatched(unmatched, names):
    if any(f"{plain_name(name)}_orig" in names for name in unmatched):
        return "torch.nn.utils.prune has pruned the model: from_torch_prune reads its masks, torch's remove() ends them"
    for name in unmatched:
        prefix, _, own_name = name.rpartition(".")
        parametrized = f"{prefix}.parametrizations.{own_name}.".removeprefix(".")
        if any(other.startswith(parametrized) for other in names):
            return f"{name} is parametrized: remove the parametrization first"
    first_names = ", ".join([*names][:5]) + (", …" if len(names) > 5 else "")
    return f"the model's parameters are {first_names}"


def matched(model: nn.Module, masks: Masks) -> list[tuple[nn.Parameter, Tensor]]:
    """The model's parameters beside their masks, in the order of ``masks``.

    Any name of a shared parameter will do, and so will names with or without the prefixes of ``torch.compile``
    (``_orig_mod.``) and of data-parallel wrappers (``module.``).

    Raises:
        ValueError: a mask for a parameter that the model does not have, of another shape, or not of bool type.
    """
    return [(parameter, mask) for _, parameter, mask in _located(model, masks)]


@torch.no_grad()
def apply_(model: nn.Module, masks: Masks) -> None:
    """Set the pruned entries of the model's parameters to exactly 0, in place.

    Raises:
        ValueError: masks that do not fit the model (see ``matched``); nothing is changed then.
    """
    for parameter, mask in matched(model, masks):
        parameter.masked_fill_(~mask.to(parameter.device), 0)


def save(masks: Masks, path: str | Path) -> None:
    """Write masks to a file: one bit an entry in numpy's ``.npz`` format, whatever the suffix; but one byte an entry
    if it is ``.safetensors`` (which needs the package safetensors).

    Raises:
        ValueError: a mask that is no tensor of bool type.
    """
    for name, mask in masks.items():
        if not torch.is_tensor(mask) or mask.dtype != torch.bool:
            raise ValueError(f"the mask of {name} is {getattr(mask, 'dtype', type(mask).__name__)}, not torch.bool")
    if Path(path).suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: mask.detach().cpu().clone().contiguous() for name, mask in masks.items()}, path)
        return
    arrays = {name: mask.cpu().numpy() for name, mask in masks.items()}
    packed = {f"{name}:{'x'.join(map(str, a.shape))}": np.packbits(a.reshape(-1)) for name, a in arrays.items()}
    with open(path, "wb") as stream:  # numpy would add a suffix to a name without one
        np.savez_compressed(stream, **packed)


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
            if others := [name for name, mask in masks.items() if mask.dtype != torch.bool]:
                raise ValueError(f"{', '.join(others)} is not of bool type")
            return masks
        with np.load(path) as stored:
            return dict(_unpacked(key, stored[key]) for key in stored.files)
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:  # zipfile, zlib, numpy and safetensors raise half a dozen kinds
        raise ValueError(f"{Path(path)} does not hold masks, or is damaged: save them again ({error})") from error


def _unpacked(key, packed):
    name, colon, sizes = key.rpartition(":")
    shape = tuple(int(size) for size in sizes.split("x") if size)
    count = math.prod(shape)
    if not colon or packed.dtype != np.uint8 or packed.shape != ((count + 7) // 8,):
        raise ValueError(f"{key} has {packed.size} entries of {packed.dtype}, not {(count + 7) // 8} bytes")
    return name, torch.from_numpy(np.unpackbits(packed, count=count).astype(bool).reshape(shape))


def to_torch_prune(model: nn.Module, masks: Masks, inputs: Any = None) -> None:
    """Hand the masks over to ``torch.nn.utils.prune``, in place, for code that expects its ``weight_mask`` buffers.

    torch computes a masked weight anew just before its layer is called. All layers that share a weight get its mask.

    Args:
        inputs: a batch for the model (a tuple: its arguments). With it all layers are found whose weights their user
            reads without calling them (torchvision's Swin, this library's LSTM); without it only those in
            ``nn.MultiheadAttention`` and in parameter lists.

    Raises:
        ValueError: masks that do not fit the model, or weights of layers that are never called: torch would not compute
            those anew, so use ``attach`` there. Nothing is changed then.
    """
    owners, places = {}, []
    for prefix, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((prefix, module, own))
    for _, parameter, mask in _located(model, masks):
        places += [(*owner, mask) for owner in owners[id(parameter)]]
    called = None if inputs is None else _called(model, inputs)
    if uncalled := [
        f"{prefix}.{own}" for prefix, owner, own, _ in places
        if isinstance(owner, NEVER_CALLED) or not (called is None or prefix in called)
    ]:
        raise ValueError(
            f"{', '.join(uncalled)}: these layers are never called, their weights are read by other modules, where "
            "torch.nn.utils.prune cannot mask them. Use masking.attach, or leave them out of the masks"
        )
    refuse_recomputed(model, [f"{prefix}.{own}".removeprefix(".") for prefix, _, own, _ in places])
    for _, owner, own, mask in places:
        torch_prune.custom_from_mask(owner, own, mask)


@torch.no_grad()
def _called(model, inputs):
    """The names of the modules that a forward pass calls."""
    probe, called = copy.deepcopy(model).eval(), set()
    for name, module in probe.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: called.add(name))
    probe(*inputs if isinstance(inputs, tuple) else (inputs,))
    return called


def from_torch_prune(model: nn.Module) -> Masks:
    """The masks of a model that ``torch.nn.utils.prune`` has pruned, by this library or by any of its own methods.

    The model is left as it is; ``torch.nn.utils.prune.remove`` makes its weights plain parameters again.

    Raises:
        ValueError: ``torch.nn.utils.prune`` has no mask in this model.
    """
    masks, seen = {}, set()
    for prefix, module in model.named_modules():
        for own, original in module.named_parameters(recurse=False):
            name = own.removesuffix("_orig")
            mask = getattr(module, f"{name}_mask", None)
            if own != name and mask is not None and id(original) not in seen:
                seen.add(id(original))
                masks[f"{prefix}.{name}".removeprefix(".")] = mask.bool()
    if masks:
        return masks
    sparsified = [name for name, module in model.named_modules() if type(module).__name__ == "FakeSparsity"]
    if sparsified:
        raise ValueError(
            f"torch.ao.pruning masks this model, not torch.nn.utils.prune ({', '.join(sparsified)}): call its "
            "sparsifier's squash_mask(), after which the masks are {name: parameter != 0}"
        )
    raise ValueError(
        "torch.nn.utils.prune has no mask in this model: it was never pruned by it, or its remove() was called since"
    )
