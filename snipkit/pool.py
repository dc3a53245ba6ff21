"""What can be pruned: the pool of parameters, and how many a sparsity keeps; ``snipkit.masking`` offers all of it."""

import re
from collections.abc import Callable
from numbers import Integral, Real
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from snipkit._optional import optional

if TYPE_CHECKING:
    import pandas as pd

Where = Callable[[str, nn.Module], bool]
NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
WEIGHT_LAYERS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
REFUSED = {
    "computed": "is part of a weight (weight or spectral norm, parametrization, torch's pruning): remove that first",
    "complex": "is complex: leave it out with where=",
    "lazy": "has no shape yet: pass one batch through the model first",
}


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer: torch's, or one of a class called ``…Norm`` (``…Norm2d``)."""
    return isinstance(module, NORM_LAYERS) or re.search(r"Norm(\dd)?$", type(module).__name__) is not None


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias, by its own name (``bias``, ``bias_ih_l0``, ``in_proj_bias``)."""
    return "bias" in name.rpartition(".")[2]


def prunable(model: nn.Module, *, biases: bool = True, where: Where | None = None) -> dict[str, nn.Parameter]:
    """The parameters that pruning may remove, in the order and under the (first) names of ``named_parameters``.

    The type of the module decides. Weights are the matrices and kernels of linear, bilinear, convolutional, recurrent
    and attention layers; in modules of other types, those called ``weight…`` with more than one row and column.
    Biases are those of modules with a pruned weight. Everything else stays: normalisation layers, lookup tables
    (``nn.Embedding``: the rows of all words outside the scoring batch would go), tokens, positions, scales, frozen
    parameters (``requires_grad`` is False). A shared parameter is a weight if one of its modules makes it one.

    Args:
        where: ``(name, owning module) -> bool``; parameters that it is False for (by any of their names) are left out.

    Raises:
        ValueError: weights that are complex, lazy and without a shape, or computed from other parameters.

    Source: SNIP section 5 with the authors' code, where biases are in the pool and batch norm is not.
    """
    survey = _survey(model, biases, where)
    refused = [(reason, [name for name, _, role, _ in survey if role == kind]) for kind, reason in REFUSED.items()]
    if any(names for _, names in refused):
        raise ValueError("cannot prune: " + "; ".join(f"{', '.join(names)} {why}" for why, names in refused if names))
    return {name: parameter for name, parameter, role, _ in survey if role in ("weight", "bias")}


def to_prune(model: nn.Module, *, biases: bool = True, where: Where | None = None) -> dict[str, nn.Parameter]:
    """``prunable``, of which there must be some: ValueError where there is none."""
    if not (found := prunable(model, biases=biases, where=where)):
        why = "masking.pool(model) says why, parameter by parameter"
        why = why if next(model.parameters(), None) is not None else "it has no parameters at all"
        raise ValueError(f"the model has no prunable parameter: {why}")
    return found


def pool(model: nn.Module, *, biases: bool = True, where: Where | None = None) -> "pd.DataFrame":
    """All parameters, and what ``prunable`` says to them: a table to look at before pruning.

    Columns: ``pruned``, ``role`` ("weight", "bias", or why not), ``layer`` (class), ``shape``, ``shared with`` (names).
    """
    rows = {}
    for name, parameter, role, [(_, module), *others] in _survey(model, biases, where):
        shape = () if nn.parameter.is_lazy(parameter) else tuple(parameter.shape)
        rows[name] = [role in ("weight", "bias"), role, type(module).__name__, shape, ", ".join(n for n, _ in others)]
    frame = optional("pandas").DataFrame
    table = frame.from_dict(rows, orient="index", columns=["pruned", "role", "layer", "shape", "shared with"])
    return table.rename_axis("parameter")


def _survey(model, biases, where):
    """(name, parameter, role, its owners as (name, module)) of each parameter, in the order of ``named_parameters``."""
    owners = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            owners.setdefault(parameter, []).append((name, module))
    roles = {}
    for parameter, places in owners.items():
        kinds = [_role(parameter, *place) for place in places]
        role = next((kind for kind in kinds if kind in ("weight", "bias", *REFUSED)), kinds[0])
        if not parameter.requires_grad:
            role = "frozen"
        elif where and not all(where(*place) for place in places):
            role = "left out by where"
        roles[parameter] = "left out by biases=False" if role == "bias" and not biases else role
    pruned = {module for parameter, role in roles.items() if role == "weight" for _, module in owners[parameter]}
    for parameter, role in roles.items():
        if role == "bias" and not any(module in pruned for _, module in owners[parameter]):
            roles[parameter] = "bias of no pruned weight"
    return [(places[0][0], parameter, roles[parameter], places) for parameter, places in owners.items()]


def _role(parameter, name, module):
    """What a parameter is to a module that owns it: "weight", "bias", or a reason to refuse it or to leave it."""
    own, known = name.rpartition(".")[2], isinstance(module, WEIGHT_LAYERS)
    source = getattr(module, re.sub("_(g|v|orig)$", "", own), None)  # weight, of weight_g and weight_v
    if is_norm(module) or isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "normalisation" if is_norm(module) else "lookup table"
    if isinstance(module, ParametrizationList) or type(source) is Tensor:
        return "computed" if "weight" in name else "not a weight"
    if nn.parameter.is_lazy(parameter):
        return "lazy"
    if is_bias(own) and parameter.dim() == 1:
        return "bias"
    weight = own.startswith("weight") or (known and own.endswith("proj_weight"))
    if weight and (parameter.dim() >= 2 if known else sum(size > 1 for size in parameter.shape) >= 2):
        return "complex" if parameter.is_complex() else "weight"
    return "not a weight"


def kept_count(total: int, sparsity: float) -> int:
    """κ = round(m · (1 − sparsity)), the number kept of m = ``total``. ValueError: a sparsity outside [0, 1)."""
    if not isinstance(sparsity, Real) or not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity!r}; it is the share of parameters removed, at least 0 and less than 1")
    return round(total * (1 - sparsity))


def check_keep(keep: int, total: int) -> None:
    """ValueError: a number of parameters to keep that is not from 1 to ``total``."""
    if not isinstance(keep, Integral) or not 1 <= keep <= total:
        raise ValueError(f"keep is {keep!r}; it is the number of parameters kept, from 1 to {total}")
