"""Masks: which parameters are kept, what a mask looks like, and which part of it is at work.

A mask set is a plain ``{parameter name: bool tensor}``, True where a connection is kept.
"""

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from snipkit.export import Masks, apply_, attach, from_torch_prune, load, matched, save, to_torch_prune  # noqa: F401
from snipkit.ladder import LAYERWISE, erk, relabel, shuffle, smart_ratio  # noqa: F401
from snipkit.pool import Where, check_keep, is_bias, is_norm, kept_count, pool, prunable  # noqa: F401

Sparsity = float | Mapping[str, float] | None


class EmptyLayerWarning(UserWarning):
    """A layer has no weight left: nothing that enters it can leave it."""


def keep_top(scores: Mapping[str, Tensor], sparsity: Sparsity = None, *, keep: int | None = None) -> Masks:
    """Keep the highest scores of the whole network: exactly ``kept_count(m, sparsity)`` of m, whatever the ties.

    Equal scores are kept from the lower index on, in the order of ``scores`` and row-major within a tensor.

    Args:
        scores: name → score tensor, such as a criterion returns; the masks are of its shape and on its device.
        sparsity: share to remove, in [0, 1); or a dict of layer → share. A layer is a parameter's name or a module's,
            whose parameters are then ranked together; what the dict does not name is kept whole.
        keep: in place of ``sparsity``, the number of parameters to keep, from 1 to m.

    Warns:
        EmptyLayerWarning: names the weights of which nothing is left.

    Raises:
        ValueError: a sparsity or count out of range, both or none of them, an unknown layer, layers that overlap, or
            scores that are NaN.

    Source: SNIP, equation 4 and Algorithm 1, lines 4 and 5; the tie rule is that of the authors' code.
    """
    if not scores:
        raise ValueError("no scores to rank: the model has no prunable parameter")
    if (sparsity is None) == (keep is None):
        raise ValueError("pass sparsity, the share to remove, or keep, the number to keep: one of them")
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
                raise ValueError(f"{layer} is none of the scored layers, or overlaps another one: {', '.join(scores)}")
            groups.append(({name: ungrouped.pop(name) for name in names}, share))
    for group, share in groups:
        masks |= _highest(group, keep or kept_count(sum(score.numel() for score in group.values()), share))
    if empty := empty_layers(masks):
        warnings.warn(
            f"no weight is left in {', '.join(empty)}: the network cannot learn; prune less, or by another criterion",
            EmptyLayerWarning, stacklevel=2,
        )
    return masks


def _highest(scores, kappa):
    """Masks of exactly ``kappa`` entries: the highest, and of equal ones the first."""
    flat = torch.cat([score.detach().flatten().cpu() for score in scores.values()])
    flat = flat.numpy() if flat.dtype.itemsize >= 4 else flat.float().numpy()  # numpy has no bfloat16
    if np.isnan(flat).any():
        raise ValueError("some scores are NaN: there is no order to keep the highest by")
    kept = np.ones(len(flat), bool)
    if kappa < len(flat):
        lowest_kept = np.partition(flat, len(flat) - kappa)[len(flat) - kappa] if kappa else np.inf
        kept = flat > lowest_kept
        ties = np.flatnonzero(flat == lowest_kept)
        kept[ties[: kappa - np.count_nonzero(kept)]] = True
    parts = torch.from_numpy(kept).split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape).to(score.device) for (name, score), part in zip(scores.items(), parts)}


def keep_lowest(scores: Mapping[str, Tensor], sparsity: Sparsity = None, *, keep: int | None = None) -> Masks:
    """The inverted criterion: as ``keep_top``, but the *least* important connections are kept (a sanity check)."""
    return keep_top({name: -score for name, score in scores.items()}, sparsity, keep=keep)


def overlap(first: Masks, second: Masks) -> tuple[float, float]:
    """The share of what the first mask set keeps that the second keeps too; and the share expected by chance, if each
    layer kept as many as it does, but independently."""
    common = sum(int((mask & second[name]).sum()) for name, mask in first.items())
    chance = sum(int(mask.sum()) * int(second[name].sum()) / mask.numel() for name, mask in first.items())
    kept = sum(int(mask.sum()) for mask in first.values())
    return common / kept, chance / kept


def empty_layers(masks: Masks) -> list[str]:
    """The names of the weights (not biases) of which nothing is kept."""
    return [name for name, mask in masks.items() if not is_bias(name) and not mask.any()]


def layer_table(masks: Masks) -> pd.DataFrame:
    """Kept and total parameters and density per parameter, as a table indexed by name."""
    rows = {name: (int(mask.sum()), mask.numel()) for name, mask in masks.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["kept", "total"]).rename_axis("parameter")
    return table.assign(density=table.kept / table.total)


def __getattr__(name):
    # Paths are defined in a later module.
    if name in ("compact", "effective"):
        return getattr(importlib.import_module("snipkit.beyond.paths"), name)
    raise AttributeError(f"module 'snipkit.masking' has no attribute {name!r}")
