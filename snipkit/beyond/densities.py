"""Densities from the shapes of layers alone: how much of each layer to remove, without scores.

``snipkit.prune(model, batch, erk(model, 0.9))`` ranks within each layer. Random masks with these
densities are the criteria "erk" and "smart-ratio".
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from snipkit._prunable import Where, is_bias, kept_count, to_prune

LAST = 0.3  # density of the last layer in smart-ratio masks
ALMOST_ALL = math.nextafter(1.0, 0.0)  # what removes a whole layer: a sparsity is less than 1

#: a module's name → its parameters that may be pruned, by name
Layers = dict[str, dict[str, Tensor]]


def uniform(
    model: nn.Module, sparsity: float, *, biases: bool = True, where: Where | None = None
) -> dict[str, float]:
    """The same density in each layer. Arguments, result and errors as for ``erk``."""
    return _shares(uniform_counts, model, sparsity, biases, where)


def erk(
    model: nn.Module, sparsity: float, *, biases: bool = True, where: Where | None = None
) -> dict[str, float]:
    """Erdős-Rényi-kernel densities: the wider a layer, the sparser.

    The density of a layer is proportional to the sum of its weight's shape over the product. Layers
    that would pass 1 are kept whole, and the others share the rest in proportion.

    Args:
        model: any network; a layer is a module with prunable parameters.
        sparsity: share to remove of all prunable parameters; exactly ``kept_count`` of them are
            kept.
        biases, where: as for ``prunable``. A bias is as dense as its layer.

    Returns:
        dict of layer → share to remove, as ``masking.keep_top`` takes it. A layer is a module's
        name; or a parameter's, where a module holds other layers.

    Raises:
        ValueError: a sparsity outside [0, 1), or nothing to prune.

    Source: Evci et al. (ICML 2020), section 3; Mocanu et al. (2018) for linear layers.
    """
    return _shares(erk_counts, model, sparsity, biases, where)


def smart_ratio(
    model: nn.Module, sparsity: float, *, biases: bool = True, where: Where | None = None
) -> dict[str, float]:
    """Densities in proportion to d² + d, d layers before the end.

    The last layer has d = 1 and keeps 0.3 of its parameters. Layers that would pass 1 are kept
    whole, and the others share the rest in proportion; the last layer takes what nobody else can.

    Args:
        model, sparsity, biases, where: as for ``erk``, with its result.

    Raises:
        ValueError: as ``erk``; or fewer parameters to keep than 0.3 of the last layer.

    Source: Su et al. (NeurIPS 2020), section 4. (For VGG they divide by the squared number of the
    layer; not here.)
    """
    return _shares(smart_ratio_counts, model, sparsity, biases, where)


# --- how many each layer keeps ------------------------------------------------------------------


def uniform_counts(layers: Layers, sparsity: float) -> list[int]:
    """How many parameters each layer keeps by ``uniform``."""
    sizes = [size_of(layer) for layer in layers.values()]
    return _counts(sizes, [1.0] * len(sizes), kept_count(sum(sizes), sparsity))


def erk_counts(layers: Layers, sparsity: float) -> list[int]:
    """How many parameters each layer keeps by ``erk``."""
    sizes, ratios = [], []
    for layer in layers.values():
        shapes = [parameter.shape for name, parameter in layer.items() if not is_bias(name)]
        # A bias that stands alone, since its module holds other layers, is as dense as a vector.
        shapes = shapes or [parameter.shape for parameter in layer.values()]
        sizes.append(size_of(layer))
        ratios.append(sum(map(sum, shapes)) / sum(map(math.prod, shapes)))
    return _counts(sizes, ratios, kept_count(sum(sizes), sparsity))


def smart_ratio_counts(layers: Layers, sparsity: float) -> list[int]:
    """How many parameters each layer keeps by ``smart_ratio``. ValueError: see there."""
    sizes = [size_of(layer) for layer in layers.values()]
    kept, last = kept_count(sum(sizes), sparsity), round(LAST * sizes[-1])
    if last > kept:
        raise ValueError(
            f"smart-ratio keeps {last} parameters of the last layer, but all are {kept}: prune less"
        )
    last = max(last, kept - sum(sizes[:-1]))
    depths = range(len(sizes), 1, -1)
    counts = _counts(sizes[:-1], [depth**2 + depth for depth in depths], kept - last)
    return [*counts, last]


#: name → ``(layers, sparsity) -> how many parameters each keeps``
COUNTS: dict[str, Callable[[Layers, float], list[int]]] = {
    "erk": erk_counts,
    "smart-ratio": smart_ratio_counts,
}


#: name → densities from shapes alone
DENSITIES = {"uniform": uniform, "erk": erk, "smart-ratio": smart_ratio}


def _counts(sizes, ratios, kept):
    """How many each layer keeps, ``kept`` in all: densities in proportion to ``ratios``, or 1 where
    they would pass it.

    What rounding down leaves over goes to the layers with the largest fractions.
    """
    sizes, ratios = np.asarray(sizes), np.asarray(ratios, dtype=float)
    density, shared = np.ones(len(sizes)), np.ones(len(sizes), bool)
    while shared.any():
        remaining = kept - sizes[~shared].sum()
        density = np.where(shared, ratios * remaining / (sizes * ratios)[shared].sum(), 1.0)
        if not (density > 1).any():
            break
        shared &= density <= 1
        density[~shared] = 1
    exact = sizes * density
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: kept - counts.sum()]] += 1
    return counts.tolist()


def _shares(counts_of, model, sparsity, biases, where):
    layers = layers_of(to_prune(model, biases=biases, where=where))
    shares = {}
    for (name, layer), count in zip(layers.items(), counts_of(layers, sparsity)):
        shares[name] = min(1 - count / size_of(layer), ALMOST_ALL)
    return shares


# --- layers, and a random choice within them ----------------------------------------------------


def layers_of(parameters: Mapping[str, Tensor]) -> Layers:
    """The parameters by module, in order; one by one where a module holds other layers."""
    modules = {name.rpartition(".")[0] for name in parameters}
    layers: Layers = {}
    for name, parameter in parameters.items():
        module = name.rpartition(".")[0]
        holds_others = any(candidate.startswith(f"{module}.") for candidate in modules)
        layer = name if holds_others or not module else module
        layers.setdefault(layer, {})[name] = parameter
    return layers


def size_of(layer: Mapping[str, Tensor]) -> int:
    """How many entries the parameters of a layer have."""
    return sum(parameter.numel() for parameter in layer.values())


def random_ranks(layers: Layers, generator: torch.Generator) -> dict[str, Tensor]:
    """name → the place of each entry in a random order of its layer, from 0 on."""
    ranks = {}
    for layer in layers.values():
        size = size_of(layer)
        order = torch.randperm(size, generator=generator, device="cpu")
        places = torch.empty(size, dtype=torch.long, device="cpu")
        places[order] = torch.arange(size, device="cpu")
        parts = places.split([parameter.numel() for parameter in layer.values()])
        for (name, parameter), part in zip(layer.items(), parts):
            ranks[name] = part.view(parameter.shape).to(parameter.device)
    return ranks


def random_masks(
    name: str,
    model: nn.Module,
    sparsity: float,
    generator: torch.Generator,
    biases: bool = True,
) -> dict[str, Tensor]:
    """Random masks with the densities of that name, "erk" or "smart-ratio": name → bool tensor.

    Args:
        model: any network; a layer is a module with prunable parameters.
        sparsity: share to remove of all prunable parameters; exactly ``kept_count`` are kept.
        generator: a CPU ``torch.Generator``.
        biases: as for ``prunable``. With False all biases are kept, as in the sources.

    Raises:
        ValueError: see ``erk`` and ``smart_ratio``.
    """
    layers = layers_of(to_prune(model, biases=biases))
    counts = COUNTS[name](layers, sparsity)
    ranks = random_ranks(layers, generator)
    masks = {}
    for layer, count in zip(layers.values(), counts):
        for parameter in layer:
            masks[parameter] = ranks[parameter] < count
    return masks
