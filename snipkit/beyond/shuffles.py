"""The ladder of controls: masks that keep a part of what a criterion chose; ``snipkit.masking``
offers all of it.

From the bottom: random masks with densities from the layers' shapes alone (``erk``,
``smart_ratio``); ``shuffle`` with ``keep="layers"``, then "inputs" or "outputs", then "units";
``relabel`` is the null, which changes nothing but the names of hidden units. Where a rung does as
well as the criterion, what that rung keeps carries the gain.
"""

import math
import random
from typing import Any

import torch
from torch import Tensor, nn

from snipkit._attach import bare_copy
from snipkit._scoring.arguments import cpu_generator
from snipkit.masking import Masks

KEPT = ("layers", "inputs", "outputs", "units")
# Swaps tried for each connection. Overlap of SNIP's first LeNet-300-100 layer at 98 % with the
# original after 1, 3, 10 and 30: 0.31, 0.17, 0.16, 0.16.
TRIALS = 10
ROUNDS = 5  # of moving within kernels and of rewiring, where a unit is a whole channel


def shuffle(
    masks: Masks, generator: torch.Generator, keep: str = "layers", *, positions: bool = True
) -> Masks:
    """Choose other connections at random in each tensor, all choices that keep the given counts
    being equally likely.

    A weight is taken as the matrix that the layer multiplies by: a row for each output unit, a
    column for each input unit. A convolution's matrix is the unfolded one, with a column for each
    channel and kernel position. A bias is a column, too, from a unit that is always 1.

    Args:
        generator: a CPU ``torch.Generator``.
        keep: "layers" keeps the count of each tensor only. "inputs" keeps how many connections each
            input unit sends (columns), "outputs" how many each output unit receives (rows; a bias
            stays), "units" both.
        positions: False takes a whole channel for an input unit of a convolution: how its
            connections spread over the kernel positions is not kept.

    Returns:
        masks of the same shapes, on the same devices.

    Raises:
        ValueError: an unknown ``keep``.
        ModuleNotFoundError: "units" without igraph.

    In grouped convolutions, a column is one channel of every group; in transposed ones, rows are
    inputs.

    Source: "layers" is the layer-wise shuffling of Frankle et al. (ICLR 2021) and Su et al.
    (NeurIPS 2020); "units" is the configuration model of a bipartite graph, drawn by
    degree-preserving swaps.
    """
    if keep not in KEPT:
        raise ValueError(f"unknown keep {keep!r}; known: {', '.join(KEPT)}")
    generator = cpu_generator(generator)
    return {name: _shuffled(mask, generator, keep, positions) for name, mask in masks.items()}


def _shuffled(mask, generator, keep, positions):
    if keep == "layers":
        order = torch.randperm(mask.numel(), generator=generator).to(mask.device)
        return mask.flatten()[order].view_as(mask)
    # (outputs, inputs, kernel positions)
    kernels = mask.reshape(len(mask), math.prod(mask.shape[1:2]), -1)
    matrix = kernels.flatten(1)
    if keep == "outputs":
        matrix = _permuted(matrix, 1, generator)
    elif keep == "inputs" and positions:
        matrix = _permuted(matrix, 0, generator)
    elif keep == "inputs":
        channels = _permuted(kernels.transpose(0, 1).flatten(1), 1, generator)
        matrix = channels.view(kernels.transpose(0, 1).shape).transpose(0, 1)
    elif positions or kernels.shape[2] == 1:
        matrix = _rewired(matrix, generator)
    else:
        for _ in range(ROUNDS):
            moved_within_kernels = _permuted(matrix.view_as(kernels), 2, generator)
            matrix = _rewired(moved_within_kernels.flatten(1), generator)
    return matrix.reshape(mask.shape)


def _permuted(tensor, dim, generator):
    """Each line along ``dim`` in an order of its own."""
    order = torch.rand(tensor.shape, generator=generator).argsort(dim)
    return tensor.gather(dim, order.to(tensor.device))


def _rewired(matrix, generator):
    """The same sums of rows and of columns: swaps of the ends of two random connections, as long as
    it takes to mix.

    The graph is directed, from inputs to outputs: a swap gives (a → d) and (c → b) for (a → b) and
    (c → d), never a connection of two inputs. igraph leaves a swap out that would make a second
    connection between the same units.
    """
    import igraph  # here: the only function that needs it

    # Few swaps are possible among many connections, but among few gaps.
    if 2 * int(matrix.sum()) > matrix.numel():
        return ~_rewired(~matrix, generator)
    receiving, sending = matrix.cpu().nonzero().T
    edges = torch.stack([sending + len(matrix), receiving], dim=1)
    graph = igraph.Graph(sum(matrix.shape), edges.tolist(), directed=True)
    seed = int(torch.randint(2**62, (), generator=generator))
    igraph.set_random_number_generator(random.Random(seed))
    try:
        graph.rewire(TRIALS * len(edges))
    finally:
        igraph.set_random_number_generator(random)  # igraph's default
    rewired = torch.zeros(matrix.shape, dtype=torch.bool)
    sending, receiving = torch.tensor(graph.get_edgelist(), dtype=torch.long).view(-1, 2).T
    rewired[receiving, sending - len(matrix)] = True
    return rewired.to(matrix.device)


def relabel(model: nn.Module, masks: Masks, inputs: Tensor, generator: torch.Generator) -> Masks:
    """The masks with the hidden units in a random order: the null of the ladder, for only their
    names change.

    The units of a layer and what they send to the next layer move together. A fresh initialisation
    draws all units of a layer alike, so the masked network is distributed as before: what differs
    in its error is chance.

    Args:
        model: a chain of ``nn.Linear`` and ``nn.Conv2d`` layers, in the order of ``named_modules``,
            freshly initialised (normalisation layers treat all channels alike then). After
            ``flatten`` a channel's positions stay side by side. Inputs and outputs of the network
            keep their places.
        masks: name → tensor; other tensors of the parameters' shapes (the weights) are moved in the
            same way.
        inputs: one batch; only its shape is used.
        generator: a CPU ``torch.Generator``.

    Raises:
        ValueError: layers of other kinds, or layers that are no chain (tried on the model's own
            weights).
    """
    generator = cpu_generator(generator)
    layers: list[tuple[str, Any]] = []
    unsupported = []
    for name, module in model.named_modules():
        if any(parameter.dim() >= 2 for parameter in module.parameters(recurse=False)):
            layers.append((name, module))
            if not isinstance(module, (nn.Linear, nn.Conv2d)):
                unsupported.append(name)
    if unsupported:
        raise ValueError(
            f"hidden units cannot be relabelled here: {', '.join(unsupported)} "
            "is neither Linear nor Conv2d"
        )
    moves = []
    for (name, layer), (following, next_layer) in zip(layers, layers[1:]):
        units, columns = len(layer.weight), next_layer.weight.shape[1]
        if columns % units:
            raise ValueError(
                f"hidden units cannot be relabelled: {name} has {units}, "
                f"{following} takes {columns}"
            )
        order = torch.randperm(units, generator=generator)
        columns_of_units = torch.arange(columns).view(units, -1)
        moves.append((name, following, order, columns_of_units[order].flatten()))
    moved = bare_copy(model).double().eval()
    seeded = torch.Generator().manual_seed(0)
    images = torch.randn(8, *inputs.shape[1:], dtype=torch.float64, generator=seeded)
    with torch.no_grad():
        before = moved(images.to(inputs.device))
        parameters = dict(moved.named_parameters())
        for name, tensor in _moved(parameters, moves).items():
            parameters[name].copy_(tensor)
        after = moved(images.to(inputs.device))
    if (after - before).abs().max() > 1e-6 * before.abs().max():
        raise ValueError(
            f"hidden units cannot be relabelled: {', '.join(name for name, _ in layers)} "
            "are no plain chain"
        )
    return _moved(masks, moves)


def _moved(tensors, moves):
    """Rows of each layer, entries of its bias and columns of the next layer, in the new order."""
    moved = dict(tensors)
    for name, following, order, columns in moves:
        for key, dim, index in (
            (f"{name}.weight", 0, order),
            (f"{name}.bias", 0, order),
            (f"{following}.weight", 1, columns),
        ):
            if key in moved:
                moved[key] = moved[key].index_select(dim, index.to(moved[key].device))
    return moved
