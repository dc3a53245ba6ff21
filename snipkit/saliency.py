"""Saliency criteria: one number a connection, from a model and a mini-batch.

Every criterion is a pure function of the same shape, ``(model, batches, loss, *, biases, batch_norm, generator)``, that
returns ``{parameter name: float tensor of the parameter's shape}``, whose absolute values sum to 1, and leaves the model as it found it.
What it does not need, it ignores. ``CRITERIA`` names them.
"""

import contextlib
import copy
import math

import torch
from torch.nn.functional import cross_entropy

from snipkit.masking import is_norm, prunable

BATCH_NORM_MODES = ("eval", "train")


def snip(model, batches, loss=cross_entropy, *, biases=True, batch_norm="eval", generator=None):
    r"""Connection sensitivity: how much the loss reacts to an infinitesimal weakening of each connection.

    Every parameter w gets an indicator c that multiplies it. At c = 1 the chain rule gives

    .. math:: s_j = \frac{|\partial L / \partial c_j|}{\sum_k |\partial L / \partial c_k|},
              \qquad \frac{\partial L}{\partial c} = w \odot \frac{\partial L}{\partial w},

    so that one backward pass is enough and no c is ever built. Over several batches the *signed* derivatives are
    summed, each weighted with its batch's size, and only the sum's absolute value is taken: many small batches give
    the same scores as the one large batch.

    Args:
        model: any ``nn.Module`` whose output ``loss`` accepts.
        batches: one ``(inputs, targets)`` pair, or an iterable of such pairs.
        loss: ``(outputs, targets) -> scalar``, a mean over the batch.
        biases: also score the biases (the authors' code does).
        batch_norm: "eval" scores with the running statistics, as the authors' code did (in a fresh network: batch
            norm does nothing); "train" with those of the batch. Everything else, dropout for one, is always in
            evaluation mode.
        generator: not used.

    Returns:
        dict of name → scores, float32 or the parameter's own wider type, on the parameter's device, summing to 1.

    Raises:
        ValueError: no batch, an empty one, labels out of range, an unknown ``batch_norm``, nothing to prune, or a loss
            that reacts to no connection at all.
        FloatingPointError: the loss or a derivative is not finite.

    Source: SNIP, equations 3 to 6 and Algorithm 1.
    """
    weights, gradients = _mean_gradients(model, batches, loss, biases, batch_norm)
    derivatives = torch._foreach_mul(gradients, list(weights.values()))  # ∂L/∂c = w ⊙ ∂L/∂w
    return _normalised(dict(zip(weights, torch._foreach_abs(derivatives))))


def gradient(model, batches, loss=cross_entropy, *, biases=True, batch_norm="eval", generator=None):
    """|∂L/∂w|: how much the loss reacts to a step of each weight. Arguments, result and errors as for ``snip``."""
    weights, gradients = _mean_gradients(model, batches, loss, biases, batch_norm)
    return _normalised(dict(zip(weights, torch._foreach_abs(gradients))))


def signed_gradient(model, batches, loss=cross_entropy, *, biases=True, batch_norm="eval", generator=None):
    """∂L/∂w with its sign, so that the most negative derivatives are removed first; the *absolute* values sum to 1.

    Arguments and errors as for ``snip``.

    Source: what SNIP's appendix A (figure 6) sets beside connection sensitivity; that the sign is kept there is read from
    its pictures.
    """
    weights, gradients = _mean_gradients(model, batches, loss, biases, batch_norm)
    return _normalised(dict(zip(weights, gradients)))


def _mean_gradients(model, batches, loss, biases, batch_norm):
    """The prunable weights and ∂L/∂w of each, the mean over all examples; in at least float32."""
    if batch_norm not in BATCH_NORM_MODES:
        raise ValueError(f"unknown batch_norm mode {batch_norm!r}; known: {', '.join(BATCH_NORM_MODES)}")
    weights = _some(prunable(model, biases=biases))
    if any(wide(weight) is not weight for weight in weights.values()):
        model = copy.deepcopy(model).float()
        weights = prunable(model, biases=biases)
    mean, examples = None, 0
    with _scoring(model, list(weights.values()), batch_norm):
        for inputs, targets in _pairs(batches):
            inputs = wide(inputs)
            with torch.enable_grad(), torch.autocast(inputs.device.type, enabled=False):
                outputs = model(inputs)
                check_labels(targets, outputs)
                value = loss(outputs, targets)
                # Not backward(): that would add to the model's own gradients.
                gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
            if not math.isfinite(value.item()):
                raise FloatingPointError(
                    f"the loss on the scoring batch is {value.item()}: standardise the inputs, or use a smaller initialisation"
                )
            # A weight that the loss does not reach has derivative 0 (None from autograd).
            gradients = [torch.zeros_like(w) if g is None else g for w, g in zip(weights.values(), gradients)]
            examples += len(targets)
            if mean is None:
                mean = gradients
            else:
                torch._foreach_lerp_(mean, gradients, len(targets) / examples)
    if mean is None:
        raise ValueError("no batch to score on: pass one (inputs, targets) pair, or an iterable of such pairs")
    return {name: weight.detach() for name, weight in weights.items()}, mean


@contextlib.contextmanager
def _scoring(model, weights, batch_norm):
    """Set modes for scoring and let the block differentiate in ``weights``; put modes, flags and buffers back after it."""
    modules = list(model.modules())
    modes, flags = [module.training for module in modules], [weight.requires_grad for weight in weights]
    batchwise = [module for module in modules if is_norm(module)] if batch_norm == "train" else []
    stored = [(buffer, buffer.clone()) for module in batchwise for buffer in module.buffers(recurse=False)]
    try:
        for module in modules:
            module.training = False
        for module in batchwise:
            module.training = True
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for module, training in zip(modules, modes):
            module.training = training
        for weight, flag in zip(weights, flags):
            weight.requires_grad_(flag)
        for buffer, content in stored:
            buffer.copy_(content)


def magnitude(model, batches=None, loss=None, *, biases=True, batch_norm="eval", generator=None):
    """|w|, in one global ranking: the data-free baseline. Arguments, result and errors as for ``snip``."""
    return _normalised({name: wide(w.detach()).abs() for name, w in _some(prunable(model, biases=biases)).items()})


def random(model, batches=None, loss=None, *, biases=True, batch_norm="eval", generator=None):
    """Uniform noise: pruning at random. Arguments, result and errors as for ``snip``.

    Args:
        generator: a CPU ``torch.Generator``; by default a new one seeded with 0.
    """
    generator = generator or torch.Generator().manual_seed(0)
    return _normalised({
        name: torch.rand(w.shape, generator=generator).to(w.device)
        for name, w in _some(prunable(model, biases=biases)).items()
    })


#: name → criterion
CRITERIA = {
    "snip": snip, "magnitude": magnitude, "random": random, "gradient": gradient, "signed-gradient": signed_gradient
}


def criterion(name):
    """The criterion of that name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name not in CRITERIA:
        raise ValueError(f"unknown criterion {name!r}; known: {', '.join(CRITERIA)}")
    return CRITERIA[name]


def check_labels(targets, outputs):
    """Raise ValueError when integer class labels do not fit the number of outputs (torch's own error is obscure)."""
    if targets.dtype == torch.long and outputs.dim() == 2 and targets.dim() == 1 and len(targets):
        low, high, classes = int(targets.min()), int(targets.max()), outputs.shape[1]
        if low < 0 or high >= classes:
            raise ValueError(f"labels from {low} to {high} do not fit a network of {classes} outputs (0 to {classes - 1})")


def _pairs(batches):
    """Iterate over (inputs, targets) pairs, whether one pair was given or many."""
    one = isinstance(batches, (tuple, list)) and len(batches) == 2 and all(map(torch.is_tensor, batches))
    for pair in [batches] if one else batches:
        if len(pair) != 2 or len(pair[0]) != len(pair[1]) or not len(pair[1]):
            raise ValueError("a scoring batch is a pair (inputs, targets) of the same length, with at least one example")
        yield pair


def wide(tensor):
    """At least float32: half-precision scores move a good part of the mask, and sums of half-precision losses are coarse."""
    return tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor


def _some(parameters):
    if not parameters:
        raise ValueError("the model has no prunable parameter")
    return parameters


def _normalised(scores):
    total = sum(score.abs().sum().item() for score in scores.values())
    if not math.isfinite(total):
        raise FloatingPointError("some scores are not finite: check the loss, the inputs and the initialisation")
    if total == 0:
        raise ValueError("every score is zero: the loss reacts to no prunable connection on this batch")
    torch._foreach_mul_(list(scores.values()), 1 / total)
    return scores


at_least_float32 = wide
