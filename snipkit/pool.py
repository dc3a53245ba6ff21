"""What can be pruned: the pool of parameters, and how many a sparsity keeps; ``snipkit.masking`` offers all of it."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from numbers import Integral, Real
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    import pandas as pd

Where = Callable[[str, nn.Module], bool]
NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
LAYER_FUNCTIONS = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
PRODUCTS = ("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "einsum", "tensordot")
WEIGHT_LAYERS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
REFUSED = {
    "computed": "is part of a weight (weight or spectral norm, parametrization, torch's pruning): remove that first",
    "recomputed": "is not what its layer multiplies by: the layer computes another weight from it, in which a 0 is no "
    "pruned connection (weight standardisation): leave it out with where=",
    "same memory": "shares memory with another parameter, and would be pruned with it: tie them as one parameter "
    "(second.weight = first.weight, not .data)",
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
        ValueError: weights that are complex, lazy and without a shape, computed from other parameters, or different from
            what their layer multiplies by; parameters of which two share their memory.

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
        why = "masking.prunable_table(model) says why, parameter by parameter"
        why = why if next(model.parameters(), None) is not None else "it has no parameters at all"
        raise ValueError(f"the model has no prunable parameter: {why}")
    return found


def prunable_table(
    model: nn.Module, *, biases: bool = True, where: Where | None = None, by: str = "parameter"
) -> pd.DataFrame:
    """All parameters, and what ``prunable`` says to them: a table to look at before pruning. Needs pandas.

    Args:
        biases, where: as for ``prunable``.
        by: "parameter" for a row a parameter; "layer" for the short form, a row for each class of layers and role.

    Returns:
        by parameter: ``pruned``, ``role`` ("weight", "bias", or why not), ``layer`` (class), ``shape``, ``shared with``
        (names). By layer: ``pruned``, ``role``, ``layer``, ``tensors`` and ``parameters`` (how many), ``first`` (the
        name of one); what is pruned comes first, and of that what has most parameters.

    Raises:
        ValueError: another ``by``.
    """
    if by not in ("parameter", "layer"):
        raise ValueError(f'by is {by!r}; it is "parameter" or "layer"')
    rows = []
    for name, parameter, role, places in _survey(model, biases, where):
        lazy = nn.parameter.is_lazy(parameter)
        row = {
            "parameter": name,
            "pruned": role in ("weight", "bias"),
            "role": role,
            "layer": type(places[0][1]).__name__,
            "shape": () if lazy else tuple(parameter.shape),
            "shared with": ", ".join(other for other, _ in places[1:]),
            "entries": 0 if lazy else parameter.numel(),
        }
        rows.append(row)
    columns = ["parameter", "pruned", "role", "layer", "shape", "shared with", "entries"]
    table = import_pandas().DataFrame(rows, columns=columns)
    if by == "parameter":
        return table.set_index("parameter").drop(columns="entries")
    groups = table.groupby(["pruned", "role", "layer"], sort=False)
    short = groups.agg(
        tensors=("entries", "size"),
        parameters=("entries", "sum"),
        first=("parameter", "first"),
    )
    return short.reset_index().sort_values(["pruned", "parameters"], ascending=False, ignore_index=True)


def pool(model: nn.Module, *, biases: bool = True, where: Where | None = None) -> pd.DataFrame:
    """``prunable_table`` by its old name."""
    warnings.warn("pool has become prunable_table: write that", DeprecationWarning, stacklevel=2)
    return prunable_table(model, biases=biases, where=where)


def import_pandas() -> ModuleType:
    """pandas, which only tables need. ModuleNotFoundError says what to install."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        raise ModuleNotFoundError("this table needs pandas: pip install pandas", name="pandas") from error
    return pandas


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
    for parameter, role in roles.items():
        if role in ("weight", "bias") and any(_overlap(parameter, other) for other in owners if other is not parameter):
            roles[parameter] = "same memory"
        elif role == "weight" and any(_recomputes(module, name, parameter) for name, module in owners[parameter]):
            roles[parameter] = "recomputed"
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


def storage_of(tensor: Tensor) -> int:
    """A number for the memory that a tensor lies in, the same for all tensors in it."""
    if tensor.layout != torch.strided:
        return id(tensor)
    return tensor.untyped_storage()._cdata


def _overlap(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have an entry in common."""
    if any(nn.parameter.is_lazy(tensor) or not tensor.numel() for tensor in (first, second)):
        return False
    if storage_of(first) != storage_of(second):
        return False
    (start, end), (other_start, other_end) = _extent(first), _extent(second)
    if end <= other_start or other_end <= start:
        return False  # such as the weights of an LSTM on a GPU, which lie in one piece of memory
    if first.dtype != second.dtype or (first.is_contiguous() and second.is_contiguous()):
        return True
    places = torch.arange(max(end, other_end))
    mine, others = (places.as_strided(t.shape, t.stride(), t.storage_offset()).flatten() for t in (first, second))
    return bool(torch.isin(mine, others).any())


def _extent(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor begins in its storage, and ends, in entries."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return tensor.storage_offset(), tensor.storage_offset() + last + 1


def _recomputes(module: nn.Module, name: str, parameter: Tensor) -> bool:
    """Whether a layer of a class of its own turns zeros of its weight into something else before it multiplies by it.

    A copy of the layer is called with half of its weight at 0, and the weight that reaches torch's function is looked
    at. Scaled weights, rounded ones and those in another precision have the same zeros; standardised ones have not.
    """
    from_torch = (getattr(module.forward, "__module__", None) or "").startswith("torch.")
    own_name = name.rpartition(".")[2]
    if from_torch or parameter.is_meta or not parameter.is_floating_point() or next(module.children(), None):
        return False
    entries = torch.linspace(1, 2, parameter.numel(), device=parameter.device).view(parameter.shape)
    entries.view(-1)[::2] = 0
    try:
        layer = copy.deepcopy(module).eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _WatchedWeights(parameter) as watched:
            getattr(layer, own_name).copy_(entries)
            layer.forward(_ones_for(module, parameter))  # not by a call: hooks are made for other inputs
    except Exception:  # it takes another input than a layer with such a weight: nothing is known about it
        return False
    return any(count > parameter.numel() // 2 for count in watched.nonzero_counts)


def _ones_for(module: nn.Module, weight: Tensor) -> Tensor:
    """An input for a layer with such a weight, of a size that is not the weight's."""
    inputs, *kernel = weight.shape[1:]
    if isinstance(module, nn.modules.conv._ConvNd):
        inputs = module.in_channels
        kernel = [rate * (size - 1) + 1 for size, rate in zip(module.kernel_size, module.dilation)]
    else:
        inputs *= getattr(module, "groups", 1)
    return weight.detach().new_ones(len(weight) + 1, inputs, *kernel)


class _WatchedWeights(TorchFunctionMode):
    """Counts the non-zero entries of what torch's layer functions get in the place of a weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.nonzero_counts: list[int] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        candidates: list[Any] = []
        if name in LAYER_FUNCTIONS:
            candidates = [kwargs.get("weight"), *args[1:2]]
        elif name in PRODUCTS:
            candidates = [*args, *kwargs.values()]
        for tensor in candidates:
            if torch.is_tensor(tensor) and sorted(tensor.shape) == sorted(self.weight.shape):
                self.nonzero_counts.append(int(tensor.count_nonzero()))
        return function(*args, **kwargs)


def kept_count(total: int, sparsity: float) -> int:
    """κ = round(m · (1 − sparsity)), the number kept of m = ``total``. ValueError: a sparsity outside [0, 1)."""
    if not isinstance(sparsity, Real) or not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity!r}; it is the share of parameters removed, at least 0 and less than 1")
    return round(total * (1 - sparsity))


def check_keep(keep: int, total: int) -> None:
    """ValueError: a number of parameters to keep that is not from 1 to ``total``."""
    if not isinstance(keep, Integral) or not 1 <= keep <= total:
        raise ValueError(f"keep is {keep!r}; it is the number of parameters kept, from 1 to {total}")
