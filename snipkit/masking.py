"""Masks: which parameters can be pruned, which are kept, what a mask looks like, and the ablations of masks.

A mask set is a plain ``{parameter name: bool tensor}``, True where a connection is kept.
"""

import copy
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.overrides import TorchFunctionMode

NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class EmptyLayerWarning(UserWarning):
    """A layer has no weight left: nothing that enters it can leave it."""


def is_norm(module) -> bool:
    """Whether a module is a normalisation layer; its parameters are never pruned."""
    return isinstance(module, NORM_LAYERS)


def is_bias(name) -> bool:
    """Whether a parameter is a bias, by its own name (``bias``, ``bias_ih_l0``, ``in_proj_bias``)."""
    return "bias" in name.rpartition(".")[2]


def prunable(model, *, biases=True) -> dict[str, nn.Parameter]:
    """The parameters that pruning may remove, in the order and under the names of ``named_parameters``.

    Weights are all parameters of two or more dimensions outside normalisation layers; biases, if wanted, those called
    so. Everything else (scales and shifts of norm layers, other vectors) is never pruned.

    Source: SNIP section 5 with the authors' code, where biases are in the pool and batch norm is not.
    """
    norms = {id(p) for module in model.modules() if is_norm(module) for p in module.parameters(recurse=False)}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if id(parameter) not in norms and (biases if is_bias(name) else parameter.dim() >= 2)
    }


def kept_count(total, sparsity) -> int:
    """κ = round(m · (1 − sparsity)), the number of parameters kept out of m = ``total``.

    Raises:
        ValueError: a sparsity outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}; it is the share of parameters removed, at least 0 and less than 1")
    return round(total * (1 - sparsity))


def keep_top(scores, sparsity) -> dict[str, torch.Tensor]:
    """Keep the highest scores of the whole network: exactly ``kept_count(m, sparsity)`` of m, whatever the ties.

    Equal scores are kept from the lower index on, in the order of ``scores`` and row-major within a tensor.

    Args:
        scores: name → score tensor, such as a criterion returns.
        sparsity: share to remove, in [0, 1).

    Returns:
        name → bool tensor of the same shape and device.

    Warns:
        EmptyLayerWarning: names the weights of which nothing is left.

    Raises:
        ValueError: a sparsity outside [0, 1), or scores that are NaN.

    Source: SNIP, equation 4 and Algorithm 1, lines 4 and 5; the tie rule is that of the authors' code.
    """
    if not scores:
        raise ValueError("no scores to rank: the model has no prunable parameter")
    flat = torch.cat([score.detach().flatten() for score in scores.values()]).cpu().numpy()
    kappa = kept_count(len(flat), sparsity)
    if np.isnan(flat).any():
        raise ValueError("some scores are NaN: there is no order to keep the highest by")
    kept = np.ones(len(flat), bool)
    if kappa < len(flat):
        lowest_kept = np.partition(flat, len(flat) - kappa)[len(flat) - kappa] if kappa else np.inf
        kept = flat > lowest_kept
        ties = np.flatnonzero(flat == lowest_kept)
        kept[ties[: kappa - np.count_nonzero(kept)]] = True
    parts = torch.from_numpy(kept).split([score.numel() for score in scores.values()])
    masks = {name: part.view(score.shape).to(score.device) for (name, score), part in zip(scores.items(), parts)}
    if empty := empty_layers(masks):
        warnings.warn(
            f"no weight is left in {', '.join(empty)}: the network cannot learn; prune less, or by another criterion",
            EmptyLayerWarning, stacklevel=2,
        )
    return masks


def keep_lowest(scores, sparsity) -> dict[str, torch.Tensor]:
    """The inverted criterion: as ``keep_top``, but the *least* important connections are kept (a sanity check)."""
    return keep_top({name: -score for name, score in scores.items()}, sparsity)


def shuffle(masks, generator) -> dict[str, torch.Tensor]:
    """Permute every mask within its own tensor: the counts per layer stay, the choice of connections is lost.

    Args:
        generator: a CPU ``torch.Generator``.

    Source: the layer-wise shuffling of Frankle et al. (ICLR 2021) and Su et al. (NeurIPS 2020).
    """
    return {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=generator).to(mask.device)].view_as(mask)
        for name, mask in masks.items()
    }


def overlap(first, second) -> tuple[float, float]:
    """How much two mask sets of one network agree: the share of what the first keeps that the second keeps too.

    Returns:
        (share, share expected by chance, if each layer kept as many as it does, but independently).
    """
    common = sum(int((mask & second[name]).sum()) for name, mask in first.items())
    chance = sum(int(mask.sum()) * int(second[name].sum()) / mask.numel() for name, mask in first.items())
    kept = sum(int(mask.sum()) for mask in first.values())
    return common / kept, chance / kept


@torch.no_grad()
def apply_(model, masks) -> None:
    """Set the pruned entries of the model's parameters to exactly 0, in place.

    Raises:
        ValueError: masks whose names or shapes do not fit the model; nothing is changed then.
    """
    for parameter, mask in matched(model, masks):
        parameter.masked_fill_(~mask.to(parameter.device), 0)


def matched(model, masks) -> list[tuple[nn.Parameter, torch.Tensor]]:
    """The model's parameters beside their masks.

    Raises:
        ValueError: a mask for a parameter that the model does not have, of another shape, or not of bool type.
    """
    parameters = dict(model.named_parameters())
    if unknown := [name for name in masks if name not in parameters]:
        raise ValueError(f"masks for {', '.join(unknown)}, but the model's parameters are {', '.join(parameters)}")
    for name, mask in masks.items():
        if mask.shape != parameters[name].shape or mask.dtype != torch.bool:
            raise ValueError(
                f"the mask of {name} is {mask.dtype} of shape {tuple(mask.shape)}; "
                f"the parameter needs torch.bool of shape {tuple(parameters[name].shape)}"
            )
    return [(parameters[name], mask) for name, mask in masks.items()]


def empty_layers(masks) -> list[str]:
    """The names of the weights (not biases) of which nothing is kept."""
    return [name for name, mask in masks.items() if not is_bias(name) and not mask.any()]


def layer_table(masks) -> pd.DataFrame:
    """Kept and total parameters and density per parameter, as a table indexed by name."""
    rows = {name: (int(mask.sum()), mask.numel()) for name, mask in masks.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["kept", "total"])
    table.index.name = "parameter"
    return table.assign(density=table.kept / table.total)


def effective(model, masks, inputs) -> dict[str, torch.Tensor]:
    """The kept connections that lie on a path of kept connections from an input to an output.

    Whatever else is kept cannot change the output (a weight into a unit that leads nowhere) or always sees zero (a weight
    out of a unit that nothing leads to). Paths are looked for, not counted: every unit is set back to 0 or 1 on the way, so
    nothing under- or overflows however deep the network. A bias counts where its unit is on such a path.

    Args:
        model: a feed-forward network of ``nn.Linear`` and ``nn.Conv2d``, pooling, batch norm, ReLU and sums.
        masks: name → bool tensor, as from ``keep_top``; parameters without a mask count as kept.
        inputs: one batch in the shape the network takes; only its shape is used.

    Returns:
        name → bool tensor, a part of ``masks``.

    Raises:
        ValueError: masks that do not fit, or a layer with weights of another kind.

    Source: effective sparsity, Vysogorets and Kempe (arXiv 2107.02306).
    """
    probe = copy.deepcopy(model).double().eval()
    for parent in list(probe.modules()):
        for name, child in list(parent.named_children()):
            if is_norm(child):
                setattr(parent, name, nn.Identity())
    for module in probe.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.register_forward_hook(lambda _module, _inputs, output: _Reached.apply(output))
        elif any(parameter.dim() >= 2 for parameter in module.parameters(recurse=False)):
            raise ValueError(f"paths through {type(module).__name__} are not defined here: Linear and Conv2d only")
    weights = prunable(probe)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.fill_(0 if is_bias(name) else 1)
        apply_(probe, masks)
    with torch.enable_grad(), _AveragePooling():
        outputs = probe(torch.ones_like(inputs[:1], dtype=torch.float64))
        found = torch.autograd.grad(outputs.sum(), list(weights.values()), allow_unused=True)
    on_path = {name: torch.zeros_like(w, dtype=torch.bool) if g is None else g > 0 for (name, w), g in zip(weights.items(), found)}
    return {name: mask & on_path[name].to(mask.device) for name, mask in masks.items()}


def compact(model, masks, inputs) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A smaller copy of a masked network that computes the same function: inputs and units of ``nn.Linear`` layers that lie on no path of
    kept connections are left out. Trained with its own masks, it goes the same way as the whole network, but for rounding.

    Args:
        model: see ``effective``, with its weights.
        masks: name → bool tensor for all prunable parameters.
        inputs: one batch in the shape the network takes; only its shape is used.

    Returns:
        (the smaller model, its masks); the layers keep their names, and a layer that sees only some of its inputs selects them itself.

    Raises:
        ValueError: paths are not defined for this network (see ``effective``), a layer is left out whole, or a bias is kept in a unit that
            no input reaches: such a unit has an output all the same.
    """
    on_path = effective(model, masks, inputs)
    small, kept, before = copy.deepcopy(model), dict(masks), None
    layers = [(name, module) for name, module in small.named_modules() if isinstance(module, nn.Linear)]
    for number, (name, layer) in enumerate(layers):
        path = on_path[f"{name}.weight"]
        rows, columns = path.any(1), path.any(0)
        bias = masks.get(f"{name}.bias")
        if number == len(layers) - 1:
            rows = torch.ones_like(rows)
        if not columns.any() or (layer.bias is not None and (bias is None or (bias & ~rows).any())):
            raise ValueError(f"{name} cannot be made smaller: it has no path through it, or a bias in a unit that no input reaches")
        smaller = nn.Linear(int(columns.sum()), int(rows.sum()), layer.bias is not None, layer.weight.device, layer.weight.dtype)
        with torch.no_grad():
            smaller.weight.copy_(layer.weight[rows][:, columns])
            kept[f"{name}.weight"] = masks[f"{name}.weight"][rows][:, columns]
            if layer.bias is not None:
                smaller.bias.copy_(layer.bias[rows])
                kept[f"{name}.bias"] = bias[rows]
        if before is None or len(before) != len(columns) or not torch.equal(before, columns):
            smaller.register_forward_pre_hook(_Select(columns.nonzero().squeeze(1)))
        parent, _, own = name.rpartition(".")
        setattr(small.get_submodule(parent), own, smaller)
        before = rows
    return small, kept


class _Select:
    """Hands a layer the columns of its input that it is made for."""

    def __init__(self, columns):
        self.columns = columns

    def __call__(self, module, inputs):
        return (inputs[0].index_select(-1, self.columns),)


class _AveragePooling(TorchFunctionMode):
    """Means for maxima: of several equal values, a maximum leads back to one only."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        options = kwargs or {}
        if function is nn.functional.max_pool2d:
            shared = {name: options[name] for name in ("stride", "padding", "ceil_mode") if name in options}
            return nn.functional.avg_pool2d(*args, **shared)
        return function(*args, **options)


class _Reached(torch.autograd.Function):
    """1 where anything arrives, forwards and backwards."""

    @staticmethod
    def forward(context, signal):
        reached = (signal > 0).to(signal.dtype)
        context.save_for_backward(reached)
        return reached

    @staticmethod
    def backward(context, signal):
        return (signal > 0).to(signal.dtype) * context.saved_tensors[0]


def save(masks, path) -> None:
    """Write masks to ``path`` (``.npz``), one bit an entry."""
    arrays = {name: mask.cpu().numpy() for name, mask in masks.items()}
    packed = {f"{name}:{'x'.join(map(str, a.shape))}": np.packbits(a) for name, a in arrays.items()}
    with open(path, "wb") as stream:  # numpy would add a suffix to a name without one
        np.savez_compressed(stream, **packed)


def load(path) -> dict[str, torch.Tensor]:
    """Read what ``save`` wrote.

    Raises:
        ValueError: a file that is not such masks, or a damaged one.
    """
    masks = {}
    try:
        with np.load(path) as stored:
            for key in stored.files:
                name, _, sizes = key.rpartition(":")
                shape = tuple(map(int, sizes.split("x")))
                bits = np.unpackbits(stored[key], count=int(np.prod(shape)))
                masks[name] = torch.from_numpy(bits.astype(bool).reshape(shape))
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise half a dozen kinds
        raise ValueError(f"{Path(path)} does not hold masks, or is damaged: save them again ({error})") from error
    return masks


def to_torch_prune(model, masks) -> None:
    """Hand the masks over to ``torch.nn.utils.prune``, in place, for code that expects its ``weight_mask`` buffers.

    Raises:
        ValueError: masks that do not fit the model; nothing is changed then.
    """
    matched(model, masks)
    for name, mask in masks.items():
        owner, _, parameter = name.rpartition(".")
        torch_prune.custom_from_mask(model.get_submodule(owner), parameter, mask)
