"""Masks: which parameters are kept, put on a model, and described.

A mask set is a plain ``{parameter name: bool tensor}``, True where a connection is kept.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from snipkit._attach import Attachment, Pruned, distributed, hooks_for, hooks_of
from snipkit._optional import optional
from snipkit._prunable import check_keep, check_model, is_bias, kept_count
from snipkit._weights import overlaps_itself, refuse_recomputed, refuse_shared

if TYPE_CHECKING:
    import pandas as pd

Masks = dict[str, Tensor]
Sparsity = float | Mapping[str, float] | None


class EmptyLayerWarning(UserWarning):
    """A layer has no weight left: nothing that enters it can leave it."""


def plain_name(name: str) -> str:
    """A parameter's name without the prefixes of ``torch.compile`` and data-parallel wrappers."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def matched(model: nn.Module, masks: Masks) -> list[tuple[nn.Parameter, Tensor]]:
    """The model's parameters beside their masks, in the order of ``masks``.

    Any name of a shared parameter will do, and so will names with or without the prefixes of
    ``torch.compile`` (``_orig_mod.``) and of data-parallel wrappers (``module.``).

    Raises:
        TypeError: no model, or no dict of masks.
        ValueError: a mask for a parameter that the model does not have, of another shape, or not of
            bool type; a parameter whose entries share their memory.
    """
    return [(parameter, mask) for _, parameter, mask in named_matches(model, masks)]


def named_matches(model: nn.Module, masks: Masks) -> list[tuple[str, nn.Parameter, Tensor]]:
    """(the model's own name, parameter, mask) for every mask; see ``matched``."""
    check_model(model, ", then the masks")
    if not isinstance(masks, Mapping):
        raise TypeError(
            f"masks is of type {type(masks).__name__}; it is a dict of parameter name → bool tensor"
        )
    parameters = dict(model.named_parameters(remove_duplicate=False))
    model_names = {plain_name(name): name for name in parameters}
    model_names |= {name: name for name in parameters}
    located = []
    unmatched = []
    for name, mask in masks.items():
        model_name = model_names.get(name) or model_names.get(plain_name(name))
        if model_name is None:
            unmatched.append(name)
            continue
        parameter = parameters[model_name]
        if not torch.is_tensor(mask):
            raise ValueError(
                f"the mask of {name} is {type(mask).__name__}, not a tensor of torch.bool"
            )
        if mask.shape != parameter.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"the mask of {name} is {mask.dtype} of shape {tuple(mask.shape)}; "
                f"the parameter needs torch.bool of shape {tuple(parameter.shape)}"
            )
        if overlaps_itself(parameter):
            raise ValueError(
                f"entries of {name} share their memory, so that they cannot be masked one by one: "
                "give it its own (nn.Parameter(weight.detach().clone()))"
            )
        located.append((model_name, parameter, mask))
    if unmatched:
        raise ValueError(f"masks for {', '.join(unmatched)}, but {_why(unmatched, [*model_names])}")
    return located


def _why(unmatched: list[str], model_names: list[str]) -> str:
    """Why a model does not have the parameters that masks are for."""
    for name in unmatched:
        if f"{plain_name(name)}_orig" in model_names:
            return (
                "torch.nn.utils.prune has pruned the model: from_torch_prune reads its masks, "
                "torch's remove() ends them"
            )
        prefix, _, own_name = name.rpartition(".")
        parametrized = f"{prefix}.parametrizations.{own_name}.".removeprefix(".")
        if any(model_name.startswith(parametrized) for model_name in model_names):
            return f"{name} is parametrized: remove the parametrization first"
    first_names = ", ".join(model_names[:5])
    return f"the model's parameters are {first_names}" + (", …" if len(model_names) > 5 else "")


@torch.no_grad()
def apply_(model: nn.Module, masks: Masks) -> None:
    """Set the pruned entries of the model's parameters to exactly 0, in place.

    Raises:
        ValueError: masks that do not fit the model (see ``matched``); nothing is changed then.
    """
    for parameter, mask in matched(model, masks):
        parameter.masked_fill_(~mask.to(parameter.device), 0)


def check_maskable(model: nn.Module, masks: Masks) -> None:
    """ValueError for masks that would not do what they say: of weights that a layer recomputes, or
    that share memory with others.
    """
    located = named_matches(model, masks)
    refuse_recomputed(model, [name for name, _, _ in located])
    refuse_shared(model, [(name, parameter) for name, parameter, _ in located])


def attach(model: nn.Module, masks: Masks) -> Attachment:
    """Apply masks, and keep the pruned entries at exactly 0 in a training loop of your own.

    They are set to 0 again

    - whenever the model, a layer with a mask or the parent of such a layer is called: whatever has
      replaced, drawn or written the parameters by then;
    - before and after each step of any ``torch.optim.Optimizer``, for gradients may come from
      elsewhere than ``backward``;
    - by ``load_state_dict`` and ``state_dict``.

    ``backward`` leaves 0 in their gradients, so that clipping by norm sees the kept ones only.
    Copies of the model, and a model that was saved whole and loaded, keep their masks:
    ``attached(copy).remove()`` takes them off.

    Between a write of your own and the next call the parameters hold what was written: call
    ``apply_`` if you read them before. A compiled model has no masking inside: attach to what
    ``torch.compile`` returns.

    Args:
        model: any module whose parameters are in one piece on each process.
        masks: see ``matched``. Several attachments are independent: what one of them prunes is 0.

    Returns:
        a handle; its ``remove()`` takes the hooks off.

    Raises:
        TypeError, ValueError: masks that do not fit the model, or weights in which a 0 is no pruned
            connection (see ``prunable``); nothing is changed then. Later on, when a masked
            parameter is read that has got another shape or a parametrization since.
    """
    located = named_matches(model, masks)
    for name, parameter, _ in located:
        if problem := distributed(parameter):
            raise ValueError(f"no mask can be attached to {name}: {problem}")
    pruned_by_name: dict[str, Pruned] = {}
    for _, parameter, mask in located:
        # Under all its names, for every layer that shares a parameter may be called by itself.
        names = []
        for name, candidate in model.named_parameters(remove_duplicate=False):
            if candidate is parameter:
                names.append(name)
        entries = ~mask.detach()
        if names[0] in pruned_by_name:  # two masks for one parameter, by two of its names
            entries |= pruned_by_name[names[0]].entries.to(entries.device)
        pruned_by_name |= dict.fromkeys(names, Pruned(entries))
    check_maskable(model, masks)
    apply_(model, masks)
    hooks = hooks_for(model, pruned_by_name)
    for hook in hooks:
        hook.register()
    return Attachment(hooks)


def attached(model: nn.Module) -> Attachment:
    """A handle for the masks that a copied or loaded model has brought with it, to ``remove()``."""
    return Attachment(hooks_of(model))


def keep_top(
    scores: Mapping[str, Tensor], sparsity: Sparsity = None, *, keep: int | None = None
) -> Masks:
    """Keep the highest scores of the whole network: exactly ``kept_count(m, sparsity)`` of m.

    Equal scores are kept from the lower index on, in the order of ``scores`` and row-major within a
    tensor.

    Args:
        scores: name → score tensor, such as a criterion returns; the masks are of its shape and on
            its device.
        sparsity: share to remove, in [0, 1); or a dict of layer → share. A layer is a parameter's
            name or a module's, whose parameters are then ranked together; what the dict does not
            name is kept whole.
        keep: in place of ``sparsity``, the number of parameters to keep, from 1 to m.

    Warns:
        EmptyLayerWarning: names the weights of which nothing is left.

    Raises:
        TypeError: scores that are no dict of tensors.
        ValueError: a sparsity or count out of range, both or none of them, an unknown layer, layers
            that overlap, or scores that are NaN.

    Source: SNIP, equation 4 and Algorithm 1, lines 4 and 5; the tie rule is that of the authors'
    code.
    """
    if not isinstance(scores, Mapping) or not all(map(torch.is_tensor, scores.values())):
        raise TypeError("scores are a dict of layer name → tensor, such as a criterion returns")
    if not scores:
        raise ValueError("no scores to rank: the model has no prunable parameter")
    if (sparsity is None) == (keep is None):
        raise ValueError(
            "pass sparsity, the share to remove, or keep, the number to keep: one of them"
        )
    total = sum(score.numel() for score in scores.values())
    if keep is not None:
        check_keep(keep, total)
    if isinstance(sparsity, Mapping) and not sparsity:
        raise ValueError("sparsity is an empty dict: name at least one layer")
    masks = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    groups: list[tuple[Mapping[str, Tensor], Any]] = [(scores, sparsity)]
    ungrouped = dict(scores)
    if isinstance(sparsity, Mapping):
        groups = []
        for layer, share in sparsity.items():
            names = [name for name in scores if f"{name}.".startswith(f"{layer}.")]
            if not names or not ungrouped.keys() >= set(names):
                raise ValueError(
                    f"{layer} is none of the scored layers, or overlaps another one: "
                    f"{', '.join(scores)}"
                )
            groups.append(({name: ungrouped.pop(name) for name in names}, share))
    for group, share in groups:
        size = sum(score.numel() for score in group.values())
        masks |= _highest(group, keep or kept_count(size, share))
    empty = empty_layers(masks)
    if empty:
        warnings.warn(
            f"no weight is left in {', '.join(empty)}: the network cannot learn; prune less, or by "
            "another criterion",
            EmptyLayerWarning,
            stacklevel=2,
        )
    return masks


def _highest(scores: Mapping[str, Tensor], kappa: int) -> Masks:
    """Masks of exactly ``kappa`` entries: the highest, and of equal ones the first."""
    joined = torch.cat([score.detach().flatten().cpu() for score in scores.values()])
    if joined.dtype.itemsize < 4:  # numpy has no bfloat16
        joined = joined.float()
    flat = joined.numpy()
    if np.isnan(flat).any():
        raise ValueError("some scores are NaN: there is no order to keep the highest by")
    kept = np.ones(len(flat), bool)
    if kappa < len(flat):
        lowest_kept = np.partition(flat, len(flat) - kappa)[len(flat) - kappa] if kappa else np.inf
        kept = flat > lowest_kept
        ties = np.flatnonzero(flat == lowest_kept)
        kept[ties[: kappa - np.count_nonzero(kept)]] = True
    parts = torch.from_numpy(kept).split([score.numel() for score in scores.values()])
    masks = {}
    for (name, score), part in zip(scores.items(), parts):
        masks[name] = part.view(score.shape).to(score.device)
    return masks


def keep_lowest(
    scores: Mapping[str, Tensor], sparsity: Sparsity = None, *, keep: int | None = None
) -> Masks:
    """The inverted criterion, a sanity check: as ``keep_top``, but the *lowest* scores are kept."""
    return keep_top({name: -score for name, score in scores.items()}, sparsity, keep=keep)


def overlap(first: Masks, second: Masks) -> tuple[float, float]:
    """The share of what the first mask set keeps that the second keeps, too; and what chance gives.

    By chance: if each layer kept as many as it does, but independently.

    Raises:
        ValueError: a mask that the second set has not, or of another shape, or a first set that
            keeps nothing.
    """
    for name, mask in first.items():
        if name not in second or second[name].shape != mask.shape:
            raise ValueError(f"the second mask set has no {name} of shape {tuple(mask.shape)}")
    if not any(mask.any() for mask in first.values()):
        raise ValueError("the first mask set keeps nothing, so there is no share of it")
    common, chance, kept = 0, 0.0, 0
    for name, mask in first.items():
        count = int(mask.sum())
        kept += count
        common += int((mask & second[name]).sum())
        chance += count * int(second[name].sum()) / mask.numel()
    return common / kept, chance / kept


def empty_layers(masks: Masks) -> list[str]:
    """The names of the weights (not biases) of which nothing is kept."""
    return [name for name, mask in masks.items() if not is_bias(name) and not mask.any()]


def layer_table(masks: Masks) -> pd.DataFrame:
    """Kept and total entries and density of each parameter, a table by name. Needs pandas."""
    rows = {name: (int(mask.sum()), mask.numel()) for name, mask in masks.items()}
    pandas = optional("pandas")
    table = pandas.DataFrame.from_dict(rows, orient="index", columns=["kept", "total"])
    return table.rename_axis("parameter").assign(density=table.kept / table.total)


def mask_gradients(masked: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Set the gradients of pruned entries to 0, in place.

    Call it between ``backward`` and the optimiser's step.

    Args:
        masked: pairs of a parameter and its mask, as numbers of its type. Parameters without a
            gradient are skipped.
    """
    reached = [(parameter.grad, mask) for parameter, mask in masked if parameter.grad is not None]
    if reached:
        torch._foreach_mul_([gradient for gradient, _ in reached], [mask for _, mask in reached])


#: names that this module had before → where they are now
MOVED = {
    "prunable": "snipkit.prunable",
    "prunable_table": "snipkit.prunable_table",
    "pool": "snipkit.prunable_table",
    "kept_count": "snipkit.kept_count",
    "is_bias": "snipkit.is_bias",
    "effective": "snipkit.effective",
    "compact": "snipkit.compact",
    "save": "interop.save",
    "load": "interop.load",
    "to_torch_prune": "interop.to_torch_prune",
    "from_torch_prune": "interop.from_torch_prune",
    "shuffle": "beyond.shuffles.shuffle",
    "relabel": "beyond.shuffles.relabel",
}


def __getattr__(name: str) -> Any:
    if name not in MOVED:
        raise AttributeError(f"module 'snipkit.masking' has no attribute {name!r}")
    path = MOVED[name]
    warnings.warn(f"masking.{name} has moved: write {path}", DeprecationWarning, stacklevel=2)
    module, _, moved_name = path.rpartition(".")
    module = module if module == "snipkit" else f"snipkit.{module}"
    return getattr(importlib.import_module(module), moved_name)
