"""Criteria since SNIP: GraSP, SynFlow, iterative SNIP and FORCE; ``saliency.CRITERIA`` names them.

They take the arguments of ``saliency.snip``. The last three are iterative: they score, prune a little and score again,
on a copy of the model, until only ``sparsity`` is missing. So they need to know it, and ``masking.keep_top`` makes the
last cut. The network left after t of T rounds has (1 − sparsity)^(t/T) of its connections.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from snipkit.masking import EmptyLayerWarning, Sparsity, keep_top
from snipkit.pool import Where, is_norm, kept_count, to_prune
from snipkit.scoring import (
    Closure,
    Loss,
    Scores,
    Tensors,
    Weights,
    gradient,
    in_float32,
    is_pair,
    mean_over_examples,
    normalised,
    own_copy,
)

SYNFLOW_ROUNDS = 100  # of the paper
SNIP_ROUNDS = 60  # for iterative SNIP and FORCE: what the authors' instructions take


def grasp(
    model: nn.Module, batches: Any, loss: Loss | None = None, *, closure: Closure | None = None, biases: bool = True,
    where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
    sparsity: Sparsity = None, temperature: float = 200.0,
) -> Scores:
    r"""Gradient signal preservation: how much the squared norm of the gradient shrinks without each connection.

    With g = ∂L/∂w and the Hessian H of L, the change of gᵀg when w is removed is −2 w ⊙ Hg to first order. The paper
    removes the *highest* −w ⊙ Hg, so the score is its negative,

    .. math:: s = w \odot H g, \qquad H g = \frac{\partial}{\partial w} \left( g^\top \bar g \right)
              \text{ with } \bar g \text{ held constant,}

    *with its sign*: the highest are kept, and a connection whose removal makes the gradient larger scores below 0.
    Many batches give the scores of the one large batch, since g is complete before H is applied.

    Args:
        temperature: the outputs are divided by it, under the default loss only: 200 in the authors' code.
        batches, batch_norm: the authors take 10 examples a class and "train". See ``saliency.snip``.
        generator, sparsity: not used.

    Returns:
        as ``saliency.snip``, but signed: the *absolute* values sum to 1. Errors as there.

    Cost: 2 passes forward and back, of which the second is differentiated once more.
    Source: Wang, Zhang, Grosse: Picking Winning Tickets Before Training by Preserving Gradient Flow (ICLR 2020),
    equation 8 and algorithms 1 and 2.
    """
    model, weights = in_float32(model, to_prune(model, biases=biases, where=where))
    batches = _repeatable(batches)

    def soften(_module, _inputs, outputs):
        cross = closure is None and loss in (None, cross_entropy)
        return outputs / temperature if cross and torch.is_tensor(outputs) else outputs

    def hessian_times(vector):
        def derivative(value, parameters):
            first = torch.autograd.grad(
                value, parameters, create_graph=True, allow_unused=True, materialize_grads=True
            )
            product = sum((one * other).sum() for one, other in zip(first, vector))
            return gradient(product, parameters) if product.requires_grad else tuple(map(torch.zeros_like, first))

        return derivative

    given = (model, weights, batches, loss, closure, batch_norm)
    with model.register_forward_hook(soften), _twice_differentiable(model):
        mean_gradient = mean_over_examples(gradient, *given)
        curvature = mean_over_examples(hessian_times(mean_gradient), *given)
    scores = torch._foreach_mul(curvature, [weight.detach() for weight in weights.values()])
    return normalised(dict(zip(weights, scores)), model, signed=True)


def synflow(
    model: nn.Module, batches: Any, loss: Loss | None = None, *, closure: Closure | None = None, biases: bool = True,
    where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
    sparsity: Sparsity = None, rounds: int = SYNFLOW_ROUNDS,
) -> Scores:
    r"""Synaptic flow: the share of each connection in what flows from the inputs to the outputs; without data.

    .. math:: s = |w| \odot \frac{\partial R}{\partial |w|}, \qquad R = \mathbf{1}^\top f_{|w|}(\mathbf{1}),

    where f with the absolute values of all parameters gets an input of ones, and R sums its outputs. Pruned connections
    stay pruned. In double precision, since R grows and shrinks with every layer; normalisation layers are left out (in
    a fresh network they do nothing in evaluation mode). In a chain without biases, as one whose biases start at 0, the
    scores of every layer sum to the same: that is what keeps small steps from emptying a layer.

    Args:
        batches: as for ``saliency.snip``, or one tensor of inputs. Only the inputs' shape is used.
        sparsity: the share that will be removed, in [0, 1), or a dict of layer → share, as for ``masking.keep_top``.
        rounds: how often it scores. (Once is not SynFlow: it leaves empty layers, as the others do.)
        loss, closure, batch_norm, generator: not used.

    Returns:
        as ``saliency.snip``, but in float64, of the last round. Pruned connections are just below 0 and all alike, so
        that a mask from the lowest scores would mean nothing.

    Raises:
        ValueError: no sparsity, or one out of range; inputs that are not floating-point; an output that is no tensor.
        FloatingPointError: R is not finite.

    Cost: ``rounds`` passes forward and back with a single example.
    Source: Tanaka, Kunin, Yamins, Ganguli: Pruning neural networks without any data by iteratively conserving synaptic
    flow (NeurIPS 2020), algorithm 1.
    """
    ones = _ones(batches)
    probe, weights = own_copy(model, to_prune(model, biases=biases, where=where), torch.float64)
    for parent in list(probe.modules()):
        for name, child in list(parent.named_children()):
            if is_norm(child):
                setattr(parent, name, nn.Identity())
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.abs_()

    def flow() -> Scores:
        def total_output(network, inputs):
            outputs = network(inputs)
            if not torch.is_tensor(outputs):
                raise ValueError(f"SynFlow sums the outputs, but they are {type(outputs).__name__}, not a tensor")
            return outputs.sum()

        slopes = mean_over_examples(gradient, probe, weights, ones, None, total_output, "eval")
        return _products(weights, slopes)

    return _in_rounds(flow, probe, weights, sparsity, rounds)


def iterative_snip(
    model: nn.Module, batches: Any, loss: Loss | None = None, *, closure: Closure | None = None, biases: bool = True,
    where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
    sparsity: Sparsity = None, rounds: int = SNIP_ROUNDS,
) -> Scores:
    """SNIP in small steps: the pruned network is scored again; what is pruned stays pruned.

    Args:
        batches: see ``saliency.snip``. All are used in every round (the authors' code draws a new one each time).
        sparsity: the share that will be removed, in [0, 1), or a dict of layer → share, as for ``masking.keep_top``.
        rounds: how often it scores; with 1 it is ``saliency.snip``.

    Returns:
        as ``saliency.snip``, of the last round (or of the last in which the loss reacted to anything). Pruned
        connections are just below 0 and all alike, so that a mask from the lowest scores would mean nothing.

    Raises:
        ValueError: no sparsity, or one out of range; and what ``saliency.snip`` raises.

    Cost: ``rounds`` passes forward and back.
    Source: de Jorge, Sanyal, Behl, Torr, Rogez, Dokania: Progressive Skeletonization (ICLR 2021), algorithm 1.
    """
    weights = to_prune(model, biases=biases, where=where)
    return _sensitivity_in_rounds(model, weights, batches, loss, closure, batch_norm, sparsity, rounds, False)


def force(
    model: nn.Module, batches: Any, loss: Loss | None = None, *, closure: Closure | None = None, biases: bool = True,
    where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
    sparsity: Sparsity = None, rounds: int = SNIP_ROUNDS,
) -> Scores:
    """Foresight connection sensitivity: as ``iterative_snip``, but pruned connections may come back.

    The gradient is that of the pruned network, the weights are those of the dense one. So a pruned connection has a
    score, too: how much the loss would react if it came back.

    Arguments, errors and cost as for ``iterative_snip``. Returns the scores of the last round, none below 0.
    Source: de Jorge et al. (ICLR 2021), algorithm 1.
    """
    weights = to_prune(model, biases=biases, where=where)
    return _sensitivity_in_rounds(model, weights, batches, loss, closure, batch_norm, sparsity, rounds, True)


def _sensitivity_in_rounds(
    model: nn.Module, weights: Weights, batches: Any, loss: Loss | None, closure: Closure | None, batch_norm: str,
    sparsity: Sparsity, rounds: int, come_back: bool,
) -> Scores:
    """Connection sensitivity, round by round: of the pruned weights, or of the dense ones if they may come back."""
    network, weights = own_copy(*in_float32(model, weights))
    batches = _repeatable(batches)
    dense = {name: weight.detach().clone() for name, weight in weights.items()}

    def sensitivity() -> Scores:
        gradients = mean_over_examples(gradient, network, weights, batches, loss, closure, batch_norm)
        return _products(dense if come_back else weights, gradients)

    return _in_rounds(sensitivity, network, weights, sparsity, rounds, come_back)


def _in_rounds(
    score: Callable[[], Scores], network: nn.Module, weights: Weights, sparsity: Sparsity, rounds: int,
    come_back: bool = False,
) -> Scores:
    """The scores of the last of several rounds; between them the weights are pruned, in place, by those so far."""
    if sparsity is None:
        raise ValueError("an iterative criterion prunes step by step: pass sparsity=, the share to remove in the end")
    for share in sparsity.values() if isinstance(sparsity, Mapping) else [sparsity]:
        kept_count(1, share)  # raises ValueError
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; an iterative criterion scores at least once")
    dense = {name: weight.detach().clone() for name, weight in weights.items()}
    scores = normalised(score(), network)
    for done in range(1, rounds):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EmptyLayerWarning)  # who makes the last cut gets the warning
            masks = keep_top(scores, _by_then(sparsity, done / rounds))
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(dense[name] * masks[name])
        found = score()
        if not any(one.any() for one in found.values()):
            return scores  # nothing passes any more: the round before decides
        scores = normalised(found, network)
        if not come_back:
            for name, one in scores.items():  # below all others: a survivor may well score 0
                one.masked_fill_(~masks[name], -torch.finfo(one.dtype).tiny)
    return scores


def _by_then(sparsity: Any, share: float) -> Any:
    """The sparsity after a share of the rounds, where what is kept decays exponentially."""
    if isinstance(sparsity, Mapping):
        return {layer: _by_then(one, share) for layer, one in sparsity.items()}
    return 1 - (1 - sparsity) ** share


def _products(weights: Mapping[str, Tensor], gradients: Tensors) -> Scores:
    """|w ⊙ ∂L/∂w|"""
    products = torch._foreach_mul(gradients, [weight.detach() for weight in weights.values()])
    torch._foreach_abs_(products)
    return dict(zip(weights, products))


def _repeatable(batches: Any) -> Any:
    """Batches that can be gone through more than once."""
    return list(batches) if isinstance(batches, Iterator) else batches


def _ones(batches: Any) -> Tensor:
    """One example of ones, in double precision, of the shape of the inputs in the first batch."""
    single = batches is None or torch.is_tensor(batches) or is_pair(batches)
    batch = batches if single else next(iter(batches), None)
    inputs = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not torch.is_tensor(inputs) or not inputs.dim() or not inputs.is_floating_point():
        raise ValueError("SynFlow feeds ones of the inputs' shape: pass (inputs, targets), inputs of floats")
    return torch.ones_like(inputs[:1], dtype=torch.float64)


@contextlib.contextmanager
def _twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Without the kernels that have no second derivative: fused attention, and cuDNN's of recurrent layers."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with sdpa_kernel(SDPBackend.MATH), cudnn.flags(enabled=False) if recurrent else contextlib.nullcontext():
        yield
