"""Controls of the second kind: which part of a unit's counts matters, and random twins of SNIP's
mask.

``shuffles.shuffle`` keeps counts of layers and of units. The controls here keep less than a unit's
counts (only which units are live; the counts, but not which unit has them on both of its sides), or
keep what SNIP sees of the data (the gradient) and draw the rest again.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from snipkit._prunable import is_bias
from snipkit._scoring.arguments import cpu_generator
from snipkit.beyond.shuffles import shuffle
from snipkit.masking import Masks

Scores = Mapping[str, Tensor]

# Moves tried for each connection (or for each gap, if there are fewer) by the walk of
# ``keep_live_units``.
MOVES = 10


def keep_live_units(masks: Masks, generator: torch.Generator) -> Masks:
    """Draw other connections at random among the live units of each layer, so that just these units
    stay live.

    An output unit (row, filter) or input unit (column, channel) is live in a layer that keeps a
    connection to it. All choices with the given number of connections for which every live unit
    keeps one, and no other unit gets one, are equally likely. How many a live unit has is not kept,
    and in convolutions nor is the kernel position. A bias mask has one input unit, which is always
    1, so it stays as it is.

    The choice is made by a random walk: the units change places, then connections move one by one
    to free places, unless that would leave a unit without any.

    Args:
        masks: parameter name → bool mask; outputs are the first dimension, inputs the second.
        generator: a CPU ``torch.Generator``.

    Returns:
        masks of the same shapes, on the same devices, with the same count in each tensor.
    """
    generator = cpu_generator(generator)
    return {name: _among_live_units(mask, generator) for name, mask in masks.items()}


def _among_live_units(mask, generator):
    kernels = mask.reshape(len(mask), math.prod(mask.shape[1:2]), -1).cpu()
    connected = kernels.any(2)
    live_rows = connected.any(1).nonzero().flatten()
    live_columns = connected.any(0).nonzero().flatten()

    rows = live_rows[torch.randperm(len(live_rows), generator=generator)]
    columns = live_columns[torch.randperm(len(live_columns), generator=generator)]
    walked = _walked(kernels[rows][:, columns], generator)

    drawn = torch.zeros_like(kernels)
    drawn[live_rows[:, None], live_columns] = walked
    return drawn.view(mask.shape).to(mask.device)


def _walked(block, generator):
    """The same number of connections elsewhere in a block whose rows and columns all keep at least
    one.

    A move and the move back are proposed equally often, so that the walk comes to all such blocks
    equally often.
    """
    cells = block.numel()
    places = block.flatten().nonzero().flatten().tolist()
    gaps = cells - len(places)
    if not places or not gaps:
        return block
    in_row = block.sum((1, 2)).tolist()
    in_column = block.sum((0, 2)).tolist()
    taken = set(places)
    # Only gaps / cells of the proposals meet a free place.
    trials = math.ceil(MOVES * min(len(places), gaps) * cells / gaps)
    movers = torch.randint(len(places), (trials,), generator=generator).tolist()
    targets = torch.randint(cells, (trials,), generator=generator).tolist()
    positions = block.shape[2]
    row_length = block.shape[1] * positions
    for mover, target in zip(movers, targets):
        if target in taken:
            continue
        place = places[mover]
        row, column = place // row_length, place % row_length // positions
        new_row, new_column = target // row_length, target % row_length // positions
        last_of_row = in_row[row] == 1 and new_row != row
        last_of_column = in_column[column] == 1 and new_column != column
        if last_of_row or last_of_column:
            continue
        in_row[row] -= 1
        in_row[new_row] += 1
        in_column[column] -= 1
        in_column[new_column] += 1
        taken.remove(place)
        taken.add(target)
        places[mover] = target
    walked = torch.zeros(cells, dtype=torch.bool)
    walked[places] = True
    return walked.view(block.shape)


def misalign(masks: Masks, generator: torch.Generator) -> Masks:
    """Shuffle with both counts of all units, then hand what hidden units *receive* to one another.

    Each layer keeps how many connections its units send, unit by unit, and how many they receive,
    as a list: the live units of a hidden layer swap their rows at random, so a unit that sends much
    no longer receives much. Only units that receive something take part, so just the same units
    stay live, on either side. Input and output units of the network have one side each, and keep
    their counts. A bias goes with its row.

    Compared with ``shuffle(keep="units")``, the one thing that is lost is which counts meet in a
    hidden unit; compared with ``keep_live_units``, the one thing that is kept besides is how many
    connections units have.

    Args:
        masks: parameter name → bool mask, in the order of ``named_parameters``: the last weight is
            the output layer.
        generator: a CPU ``torch.Generator``.

    Raises:
        ModuleNotFoundError: without igraph, as ``shuffle``.
    """
    shuffled = shuffle(masks, generator, keep="units")
    weights = [name for name in masks if not is_bias(name)]
    misaligned = dict(shuffled)
    for name in weights[:-1]:
        live = shuffled[name].flatten(1).any(1).nonzero().flatten()
        order = torch.randperm(len(live), generator=generator).to(live.device)
        bias = name.removesuffix("weight") + "bias"
        for moved in (name, bias):
            if moved in shuffled:
                misaligned[moved] = shuffled[moved].index_copy(
                    0, live, shuffled[moved][live[order]]
                )
    return misaligned


def gradient_twin(
    gradients: Scores, fresh: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    r"""Scores of a twin of SNIP's mask: the gradient of the scored network, the weights of another
    draw.

    SNIP keeps the top of :math:`|w \odot G|`; its twin the top of :math:`|w' \odot G|`. If G did
    not depend on the single weight, both would keep a connection with the same probability,
    ``twin_probabilities``, given G.

    Args:
        gradients: name → ∂L/∂w of the scored network, or any multiple of all of it
            (``saliency.gradient``).
        fresh: name → weights w' drawn as the scored ones were, but independently.
        generator: not used.

    Returns:
        name → scores, of the shapes of ``gradients``; ``keep_top`` makes exactly κ of them a mask.
    """
    return {
        name: gradient.abs() * fresh[name].detach().abs() for name, gradient in gradients.items()
    }


def rank_one_twin(
    gradients: Scores, fresh: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """The gradient twin of a gradient that is a product of a number for each unit: ``rank_one``.

    What is left of the data is one number for each unit of each layer, on either side. Arguments
    and result as for ``gradient_twin``.
    """
    return gradient_twin(rank_one(gradients), fresh, generator)


def noisy_rank_one_twin(
    gradients: Scores, fresh: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """The rank-one twin, with what the product leaves of each gradient put to a connection at
    random.

    A gradient is the mean over examples of products of both units' numbers, with signs. It
    therefore scatters around its size ``rank_one``, by a factor that is specific to the connection.
    Here these factors are permuted within each tensor: their distribution is kept, their places are
    not. Arguments and result as for ``gradient_twin``.

    Args:
        generator: a CPU ``torch.Generator``.
    """
    noisy = {}
    for name, size in rank_one(gradients).items():
        factors = torch.where(size > 0, gradients[name].abs() / size, 0.0).flatten()
        order = torch.randperm(len(factors), generator=generator).to(factors.device)
        noisy[name] = size * factors[order].view_as(size)
    return gradient_twin(noisy, fresh, generator)


#: name → scores of a twin of SNIP's mask, from ``(gradients, fresh weights, generator)``
TWINS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "gradient-twin": gradient_twin,
    "rank-one-twin": rank_one_twin,
    "noisy-rank-one-twin": noisy_rank_one_twin,
}


def rank_one(gradients: Scores) -> dict[str, Tensor]:
    r"""The size of each gradient as a product of a number for each of the two units that it
    connects.

    :math:`|G_{ij}| \approx u_i v_j` with the same sum of squares as G in each row and in each
    column. For one example the gradient is a product, of the derivative at the output unit and the
    activation of the input unit. Over a batch in which both vary independently and signs are
    random, the *mean square* is what stays a product. (A two-way fit of the logarithms weighs every
    gradient near 0 as much as a large one, and has none for a gradient of 0.) In a convolution a
    unit is a filter or a channel; all kernel positions get the root mean square. Vectors (biases)
    stay.

    Args:
        gradients: name → tensor with output units first and input units second.

    Returns:
        name → non-negative tensor of the same shape.
    """
    sizes = {}
    for name, gradient in gradients.items():
        if gradient.dim() < 2:
            sizes[name] = gradient.abs()
            continue
        positions = gradient.reshape(*gradient.shape[:2], -1)
        squares = positions.double().square().mean(2)
        total = squares.sum().clamp_min(torch.finfo(torch.double).tiny)
        product = (squares.sum(1, keepdim=True) * squares.sum(0, keepdim=True) / total).sqrt()
        shape = (*product.shape, *[1] * (gradient.dim() - 2))
        sizes[name] = product.to(gradient.dtype).view(shape).expand_as(gradient).contiguous()
    return sizes


def twin_probabilities(
    gradients: Scores, survival: Mapping[str, Callable[[Tensor], Tensor]], keep: int
) -> dict[str, Tensor]:
    r"""How likely the gradient twin is to keep each connection: :math:`p = P(|w'| > \tau / |G|)`.

    The threshold τ is such that ``keep`` connections are expected. A twin keeps exactly ``keep``,
    by a threshold that moves a little with each draw; in large networks that makes no difference to
    the mean.

    Args:
        gradients: name → ∂L/∂w, or a multiple of all of it.
        survival: name → function that gives :math:`P(|w'| > t)` for a tensor of t
            (``truncated_normal_survival``).
        keep: expected number of connections.

    Returns:
        name → probabilities, float64; their sum over a layer is its expected count.

    Raises:
        ValueError: fewer than ``keep`` connections have a gradient, so that no threshold keeps that
            many.
    """
    sizes = {name: gradient.detach().double().abs() for name, gradient in gradients.items()}
    possible = sum(int((size > 0).sum()) for size in sizes.values())
    if not 0 < keep < possible:
        raise ValueError(f"cannot expect {keep} connections to be kept: {possible} have a gradient")

    def probabilities(threshold):
        return {name: survival[name](threshold / size) for name, size in sizes.items()}

    low, high = 0.0, 1.0
    while sum(float(p.sum()) for p in probabilities(high).values()) > keep:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if sum(float(p.sum()) for p in probabilities(middle).values()) > keep:
            low = middle
        else:
            high = middle
    return probabilities(high)


def truncated_normal_survival(std: float) -> Callable[[Tensor], Tensor]:
    """``P(|w| > t)`` of a normal distribution truncated at two of its standard deviations, as a
    function of t.

    Args:
        std: the standard deviation *after* truncation, as the study's initialisers state it; 0 for
            weights that are 0.
    """
    inside = math.erf(math.sqrt(2))  # P(|x| < 2)
    # The standard deviation that is left of 1 after truncation at 2: 0.8796.
    shrunk = math.sqrt(1 - 2 * math.sqrt(2 / math.pi) * math.exp(-2) / inside)

    def survival(limit: Tensor) -> Tensor:
        if std == 0:
            return torch.zeros_like(limit)
        inner = torch.erf(limit * shrunk / std / math.sqrt(2))
        return (1 - inner / inside).clamp_min(0)

    return survival
