"""Criteria since SNIP: GraSP, SynFlow, iterative SNIP, FORCE; and random masks by layers' shapes.

They are called as ``saliency.snip``. SynFlow, iterative SNIP and FORCE are iterative: they score,
prune a little and score again, on a copy of the model, until only ``sparsity`` is missing. So they
need to know it, and ``masking.keep_top`` makes the last cut. The network left after t of T rounds
has (1 − sparsity)^(t/T) of its connections.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.attention import SDPBackend, sdpa_kernel

from snipkit._prunable import is_norm, kept_count
from snipkit._scoring.arguments import cpu_generator
from snipkit._scoring.driver import from_objective, normalised
from snipkit._scoring.objective import Objective, Scores, is_pair
from snipkit.beyond import densities
from snipkit.beyond._flow import Flow
from snipkit.masking import EmptyLayerWarning, Sparsity, keep_top

SYNFLOW_ROUNDS = 100  # of the paper
SNIP_ROUNDS = 60  # for iterative SNIP and FORCE: what the authors' instructions take


@from_objective
def grasp(objective: Objective, *, temperature: float = 200.0) -> Scores:
    r"""Gradient signal preservation: how the gradient's norm shrinks without each connection.

    With g = ∂L/∂w and the Hessian H of L, the change of gᵀg when w is removed is −2 w ⊙ Hg to first
    order. The paper removes the *highest* −w ⊙ Hg, so the score is its negative,

    .. math:: s = w \odot H g, \qquad H g = \frac{\partial}{\partial w} \left( g^\top \bar g \right)
              \text{ with } \bar g \text{ held constant,}

    *with its sign*: the highest are kept, and a connection whose removal makes the gradient larger
    scores below 0. Many batches give the scores of the one large batch, since g is complete before
    H is applied.

    Args:
        temperature: the outputs are divided by it, under the default loss only: 200 in the authors'
            code.
        batches, batch_norm: the authors take 10 examples a class and "train". See
            ``saliency.snip``.

    Returns:
        as ``saliency.snip``, but signed: the *absolute* values sum to 1. Errors as there.

    Cost: 2 passes forward and back, of which the second is differentiated once more.
    Source: Wang, Zhang, Grosse: Picking Winning Tickets Before Training by Preserving Gradient Flow
    (ICLR 2020), equation 8 and algorithms 1 and 2.
    """
    softened = objective.repeatable(temperature=temperature)
    with _twice_differentiable(objective.model):
        curvature = softened.hessian_times(softened.gradient())
    weights = objective.weights
    return {name: product * weights[name] for name, product in curvature.items()}


@from_objective
def synflow(
    objective: Objective, *, sparsity: Sparsity = None, rounds: int = SYNFLOW_ROUNDS
) -> Scores:
    r"""Synaptic flow: the share of each connection in what flows through, without data.

    .. math:: s = |w| \odot \frac{\partial R}{\partial |w|},
              \qquad R = \mathbf{1}^\top f_{|w|}(\mathbf{1}),

    where f with the absolute values of all parameters gets an input of ones, and R sums its
    outputs. Pruned connections stay pruned. In double precision, since R grows and shrinks with
    every layer; normalisation layers are left out (in a fresh network they do nothing in evaluation
    mode), and so are a softmax, log-softmax, sigmoid or tanh at the very end. In a chain without
    biases, as one whose biases start at 0, the scores of every layer sum to the same: that is what
    keeps small steps from emptying a layer.

    Args:
        batches: as for ``saliency.snip``, or one tensor of inputs. Only the inputs' shape is used.
        sparsity: the share that will be removed, in [0, 1), or a dict of layer → share, as for
            ``masking.keep_top``.
        rounds: how often it scores. (Once is not SynFlow: it leaves empty layers, as the others
            do.)

    Returns:
        as ``saliency.snip``, but in float64, of the last round. Pruned connections are just below 0
        and all alike, so that a mask from the lowest scores would mean nothing.

    Raises:
        ValueError: no sparsity, or one out of range; inputs that are not floating-point; an output
            that is no tensor, or that shrinks where a weight of the last layer grows.
        FloatingPointError: R is not finite.

    Cost: ``rounds`` passes forward and back with a single example.
    Source: Tanaka, Kunin, Yamins, Ganguli: Pruning neural networks without any data by iteratively
    conserving synaptic flow (NeurIPS 2020), algorithm 1.
    """
    ones = _ones(objective.batches)
    probe = objective.copy(torch.float64)
    with torch.no_grad():
        for name, parameter in probe.model.named_parameters():
            if parameter.is_complex():
                raise ValueError(f"SynFlow takes sizes of weights, but {name} is complex")
            parameter.abs_()
    for module in probe.model.modules():
        if is_norm(module):  # in its place, since others may look at its attributes
            module.forward = _same  # type: ignore[method-assign]
    return _in_rounds(Flow(probe.model, probe.parameters, ones), sparsity, rounds)


@from_objective
def iterative_snip(
    objective: Objective, *, sparsity: Sparsity = None, rounds: int = SNIP_ROUNDS
) -> Scores:
    """SNIP in small steps: the pruned network is scored again; what is pruned stays pruned.

    Args:
        batches: see ``saliency.snip``. All are used in every round (the authors' code draws a new
            one each time).
        sparsity: the share that will be removed, in [0, 1), or a dict of layer → share, as for
            ``masking.keep_top``.
        rounds: how often it scores; with 1 it is ``saliency.snip``.

    Returns:
        as ``saliency.snip``, of the last round (or of the last in which the loss reacted to
        anything). Pruned connections are just below 0 and all alike, so that a mask from the lowest
        scores would mean nothing.

    Raises:
        ValueError: no sparsity, or one out of range; a model that cannot be copied; and what
            ``saliency.snip`` raises.

    Cost: ``rounds`` passes forward and back.
    Source: de Jorge, Sanyal, Behl, Torr, Rogez, Dokania: Progressive Skeletonization (ICLR 2021),
    algorithm 1.
    """
    return _in_rounds(objective.repeatable().copy(), sparsity, rounds)


@from_objective
def force(objective: Objective, *, sparsity: Sparsity = None, rounds: int = SNIP_ROUNDS) -> Scores:
    """Foresight connection sensitivity: ``iterative_snip``, but what is pruned may come back.

    The gradient is that of the pruned network, the weights are those of the dense one. So a pruned
    connection has a score, too: how much the loss would react if it came back.

    Arguments, errors and cost as for ``iterative_snip``. Returns the scores of the last round, none
    below 0. Source: de Jorge et al. (ICLR 2021), algorithm 1.
    """
    return _in_rounds(objective.repeatable().copy(), sparsity, rounds, come_back=True)


@from_objective
def erk(
    objective: Objective, *, sparsity: Sparsity = None, generator: torch.Generator | None = None
) -> Scores:
    """Random masks with the densities of ``densities.erk``: scores of which the highest keep just
    these.

    Args:
        sparsity: the share that will be removed, in [0, 1).
        generator: a CPU ``torch.Generator``; by default a new one seeded with 0.

    Returns:
        as ``saliency.snip``, in float64. Scores for another sparsity than the given one mean
        nothing.

    Raises:
        ValueError: no sparsity, or one out of range; nothing to prune.
    """
    return _random_within("erk", objective, sparsity, generator)


@from_objective
def smart_ratio(
    objective: Objective, *, sparsity: Sparsity = None, generator: torch.Generator | None = None
) -> Scores:
    """Random masks with the densities of ``densities.smart_ratio``; otherwise as ``erk``."""
    return _random_within("smart-ratio", objective, sparsity, generator)


# --- rounds -------------------------------------------------------------------------------------


def _in_rounds(
    objective: Objective, sparsity: Sparsity, rounds: int, come_back: bool = False
) -> Scores:
    """The connection sensitivity of the last of several rounds.

    Args:
        objective: on a copy of the model, whose weights are pruned in place after each round, by
            its scores.
        come_back: score the dense weights by the gradient of the pruned network, instead of the
            pruned weights.
    """
    _check_rounds(sparsity, rounds)
    weights = objective.weights
    dense = {name: weight.clone() for name, weight in weights.items()}

    def sensitivity() -> Scores:
        slopes = objective.gradient()
        scored = dense if come_back else weights
        return {name: (slope * scored[name]).abs_() for name, slope in slopes.items()}

    scores = normalised(sensitivity(), objective.model)
    for done in range(1, rounds):
        with warnings.catch_warnings():
            # Who makes the last cut gets the warning.
            warnings.simplefilter("ignore", EmptyLayerWarning)
            masks = keep_top(scores, _by_then(sparsity, done / rounds))
        for name, weight in weights.items():
            weight.copy_(dense[name] * masks[name])
        latest = sensitivity()
        if not any(score.any() for score in latest.values()):
            return scores  # nothing passes any more: the round before decides
        scores = normalised(latest, objective.model)
        if not come_back:
            for name, score in scores.items():  # below all others: a survivor may well score 0
                score.masked_fill_(~masks[name], -torch.finfo(score.dtype).tiny)
    return scores


def _check_rounds(sparsity: Sparsity, rounds: int) -> None:
    if sparsity is None:
        raise ValueError(
            "an iterative criterion prunes step by step: pass sparsity=, "
            "the share to remove in the end"
        )
    for share in sparsity.values() if isinstance(sparsity, Mapping) else [sparsity]:
        kept_count(1, share)  # raises ValueError
    if not isinstance(rounds, Integral) or rounds < 1:
        raise ValueError(
            f"rounds is {rounds!r}; an iterative criterion scores at least once, "
            "a whole number of times"
        )


def _by_then(sparsity: Any, share: float) -> Any:
    """The sparsity after a share of the rounds, where what is kept decays exponentially."""
    if isinstance(sparsity, Mapping):
        return {layer: _by_then(removed, share) for layer, removed in sparsity.items()}
    return 1 - (1 - sparsity) ** share


def _random_within(
    name: str, objective: Objective, sparsity: Sparsity, generator: torch.Generator | None
) -> Scores:
    """Above 2 for what is kept, at most 1 for the rest, in random order within each layer."""
    if sparsity is None or isinstance(sparsity, Mapping):
        raise ValueError(
            f"{name} derives the layers' densities from one share to remove: pass it as sparsity="
        )
    layers = densities.layers_of(objective.parameters)
    counts = densities.COUNTS[name](layers, sparsity)
    ranks = densities.random_ranks(layers, cpu_generator(generator))
    scores = {}
    for layer, count in zip(layers.values(), counts):
        for parameter in layer:
            places = ranks[parameter]
            score = 1 - places.double() / densities.size_of(layer)
            scores[parameter] = score + 2.0 * (places < count)
    return {parameter: scores[parameter] for parameter in objective.parameters}


def _same(inputs: Tensor, *_: Any, **__: Any) -> Tensor:
    return inputs


def _ones(batches: Any) -> Tensor:
    """One example of ones, in double precision, of the shape of the inputs in the first batch."""
    single = batches is None or torch.is_tensor(batches) or is_pair(batches)
    batch = batches if single else next(iter(batches), None)
    inputs = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not torch.is_tensor(inputs) or not inputs.dim() or not inputs.is_floating_point():
        raise ValueError(
            "SynFlow feeds ones of the inputs' shape: pass (inputs, targets), inputs of floats"
        )
    return torch.ones_like(inputs[:1], dtype=torch.float64)


@contextlib.contextmanager
def _twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Without the kernels that have no second derivative: fused attention, cuDNN's recurrence."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    without_cudnn = cudnn.flags(enabled=False) if recurrent else contextlib.nullcontext()
    with sdpa_kernel(SDPBackend.MATH), without_cudnn:
        yield
