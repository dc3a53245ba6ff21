"""What can be pruned, why the rest cannot, and how many connections a sparsity keeps."""

from __future__ import annotations

import re
from collections.abc import Callable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from snipkit._optional import optional
from snipkit._weights import is_recomputed, overlaps_itself, share_memory

if TYPE_CHECKING:
    import pandas as pd

Where = Callable[[str, nn.Module], bool]
# (full name, owning module) of a parameter, one a layer that shares it
Places = list[tuple[str, nn.Module]]

NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
LOOKUP_LAYERS = (nn.Embedding, nn.EmbeddingBag)
WEIGHT_LAYERS = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
PRUNED = ("weight", "bias")
REFUSED = {
    "computed": "is part of a weight (weight or spectral norm, parametrization, torch's pruning): "
    "remove that first",
    "recomputed": "is not what its layer multiplies by: the layer computes another weight from it, "
    "in which a 0 is no pruned connection (weight standardisation): leave it out with where=",
    "same memory": "shares memory with another parameter, which would be pruned with it: tie them "
    "as one parameter (second.weight = first.weight, not .data)",
    "expanded": "has entries that share their memory: give it its own "
    "(nn.Parameter(weight.detach().clone()))",
    "complex": "is complex: leave it out with where=",
    "lazy": "has no shape yet: pass one batch through the model first",
}


def check_model(model: Any, follows: str) -> None:
    """TypeError for what is no model.

    Args:
        follows: the arguments after it.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is of type {type(model).__name__}, not a torch.nn.Module: the model comes "
            f"first{follows}"
        )


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer: torch's, or of a class ``…Norm``, ``…Norm2d``."""
    named_so = re.search(r"Norm(\dd)?$", type(module).__name__) is not None
    return isinstance(module, NORM_LAYERS) or named_so


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias, by its own name (``bias``, ``bias_ih_l0``)."""
    return "bias" in name.rpartition(".")[2]


def prunable(
    model: nn.Module, *, biases: bool = True, where: Where | None = None
) -> dict[str, nn.Parameter]:
    """The parameters that pruning may remove, by the first of their names, in the model's order.

    The type of the module decides. Weights are the matrices and kernels of linear, bilinear,
    convolutional, recurrent and attention layers; in modules of other types, those called
    ``weight…`` with more than one row and column. Biases are those of modules with a pruned weight.
    Everything else stays: normalisation layers, lookup tables (``nn.Embedding``: the rows of all
    words outside the scoring batch would go), tokens, positions, scales, frozen parameters
    (``requires_grad`` is False). A shared parameter is a weight if one of its modules makes it one.

    Args:
        where: ``(name, owning module) -> bool``; parameters that it is False for (by any of their
            names) are left out.

    Raises:
        ValueError: weights that are complex, lazy and without a shape, computed from other
            parameters, or other than what their layer multiplies by; two parameters that share
            memory.

    Source: SNIP section 5 with the authors' code, where biases are in the pool and batch norm is
    not.
    """
    survey = _survey(model, biases, where)
    problems = []
    for refused_role, reason in REFUSED.items():
        names = [name for name, _, role, _ in survey if role == refused_role]
        if names:
            problems.append(f"{', '.join(names)} {reason}")
    if problems:
        raise ValueError("cannot prune: " + "; ".join(problems))
    return {name: parameter for name, parameter, role, _ in survey if role in PRUNED}


def to_prune(
    model: nn.Module, *, biases: bool = True, where: Where | None = None
) -> dict[str, nn.Parameter]:
    """``prunable``, of which there must be some: ValueError where there is none."""
    parameters = prunable(model, biases=biases, where=where)
    if not parameters:
        reason = "snipkit.prunable_table(model) says why, parameter by parameter"
        if next(model.parameters(), None) is None:
            reason = "it has no parameters at all"
        raise ValueError(f"the model has no prunable parameter: {reason}")
    return parameters


def prunable_table(
    model: nn.Module, *, biases: bool = True, where: Where | None = None, by: str = "parameter"
) -> pd.DataFrame:
    """All parameters, and what ``prunable`` says to them: a table to look at before pruning.

    Args:
        biases, where: as for ``prunable``.
        by: "parameter" for a row a parameter; "layer" for the short form, a row for each class of
            layers and each role that it has.

    Returns:
        By parameter: ``pruned``, ``role`` ("weight", "bias", or why not), ``layer`` (class),
        ``shape``, ``shared with`` (names).

        By layer: ``layer``, ``role``, ``pruned``, ``tensors`` and ``entries`` (how many), ``first``
        (the name of one). What is pruned comes first, the largest on top.

    Raises:
        ValueError: another ``by``.
        ModuleNotFoundError: pandas is not installed.
    """
    if by not in ("parameter", "layer"):
        raise ValueError(f'by is {by!r}; it is "parameter" or "layer"')
    pandas = optional("pandas")
    rows = []
    for name, parameter, role, places in _survey(model, biases, where):
        lazy = nn.parameter.is_lazy(parameter)
        row = {
            "parameter": name,
            "pruned": role in PRUNED,
            "role": role,
            "layer": type(places[0][1]).__name__,
            "shape": () if lazy else tuple(parameter.shape),
            "shared with": ", ".join(other_name for other_name, _ in places[1:]),
            "entries": 0 if lazy else parameter.numel(),
        }
        rows.append(row)
    columns = ["parameter", "pruned", "role", "layer", "shape", "shared with", "entries"]
    table = pandas.DataFrame(rows, columns=columns)
    if by == "parameter":
        return table.drop(columns="entries").set_index("parameter")
    groups = table.groupby(["layer", "role", "pruned"], sort=False)
    short = groups.agg(
        tensors=("entries", "size"),
        entries=("entries", "sum"),
        first=("parameter", "first"),
    )
    return short.reset_index().sort_values(
        ["pruned", "entries"], ascending=False, ignore_index=True
    )


def _survey(
    model: nn.Module, biases: bool, where: Where | None
) -> list[tuple[str, nn.Parameter, str, Places]]:
    """(name, parameter, role, places) of each parameter, in the order of ``named_parameters``."""
    check_model(model, "")
    owners: dict[nn.Parameter, Places] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            owners.setdefault(parameter, []).append((name, module))
    roles = {}
    for parameter, places in owners.items():
        role = _shared_role(parameter, places)
        if not parameter.requires_grad:
            role = "frozen"
        elif where and not all(where(name, module) for name, module in places):
            role = "left out by where"
        elif role == "bias" and not biases:
            role = "left out by biases=False"
        elif role in PRUNED:
            role = _checked_role(role, parameter, places, owners)
        roles[parameter] = role
    weight_owners: set[nn.Module] = set()
    for parameter, role in roles.items():
        if role == "weight":
            weight_owners.update(module for _, module in owners[parameter])
    for parameter, role in roles.items():
        if role == "bias" and not any(module in weight_owners for _, module in owners[parameter]):
            roles[parameter] = "bias of no pruned weight"
    return [
        (places[0][0], parameter, roles[parameter], places) for parameter, places in owners.items()
    ]


def _shared_role(parameter: nn.Parameter, places: Places) -> str:
    """Of what a parameter is to its modules, the role that decides."""
    roles = [_role(parameter, name, module) for name, module in places]
    for role in roles:
        if role in PRUNED or role in REFUSED:
            return role
    return roles[0]


def _checked_role(
    role: str, parameter: nn.Parameter, places: Places, owners: dict[nn.Parameter, Places]
) -> str:
    """The role, or the reason why pruning would do something else than it says."""
    if overlaps_itself(parameter):
        return "expanded"
    for candidate in owners:
        if candidate is not parameter and share_memory(parameter, candidate):
            return "same memory"
    if role == "weight":
        for name, module in places:
            if is_recomputed(module, name.rpartition(".")[2]):
                return "recomputed"
    return role


def _role(parameter: nn.Parameter, name: str, module: nn.Module) -> str:
    """What a parameter is to its module: "weight", "bias", or a reason to refuse or leave it."""
    own_name = name.rpartition(".")[2]
    of_weight_layer = isinstance(module, WEIGHT_LAYERS)
    if is_norm(module):
        return "normalisation"
    if isinstance(module, LOOKUP_LAYERS):
        return "lookup table"
    # The layer's weight, of weight_g and weight_v.
    computed = getattr(module, re.sub("_(g|v|orig)$", "", own_name), None)
    if isinstance(module, ParametrizationList) or type(computed) is Tensor:
        return "computed" if "weight" in name else "not a weight"
    if nn.parameter.is_lazy(parameter):
        return "lazy"
    if is_bias(own_name) and parameter.dim() == 1:
        return "bias"
    if own_name.startswith("weight") or (of_weight_layer and own_name.endswith("proj_weight")):
        wide_sizes = [size for size in parameter.shape if size > 1]
        if parameter.dim() >= 2 if of_weight_layer else len(wide_sizes) >= 2:
            return "complex" if parameter.is_complex() else "weight"
    return "not a weight"


def kept_count(total: int, sparsity: float) -> int:
    """κ = round(m · (1 − sparsity)), the number kept of m = ``total``.

    Raises:
        ValueError: a sparsity outside [0, 1).
    """
    if not isinstance(sparsity, Real) or isinstance(sparsity, bool) or not 0 <= sparsity < 1:
        raise ValueError(
            f"sparsity is {sparsity!r}; it is the share of parameters removed, at least 0 and "
            "less than 1"
        )
    return round(total * (1 - sparsity))


def check_keep(keep: int, total: int) -> None:
    """ValueError: a number of parameters to keep that is not from 1 to ``total``."""
    if not isinstance(keep, Integral) or isinstance(keep, bool) or not 1 <= keep <= total:
        raise ValueError(
            f"keep is {keep!r}; it is the number of parameters kept, from 1 to {total}"
        )
