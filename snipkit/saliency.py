"""Saliency criteria: one number a connection, from a model and a mini-batch.

Every criterion takes the arguments of ``snip``, and ignores what it does not need. It returns ``{parameter name: float
tensor of its shape}``, whose absolute values sum to 1, and leaves the model as it was. ``CRITERIA`` names them: those
of the SNIP paper, here, and those that came after it, in ``successors``.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from snipkit import successors
from snipkit.masking import Sparsity
from snipkit.pool import Where, to_prune
from snipkit.scoring import (  # noqa: F401
    BATCH_NORM_MODES,
    Closure,
    Loss,
    Scores,
    at_least_float32,
    check_labels,
    gradients_of,
    normalised,
)
from snipkit.successors import force, grasp, iterative_snip, synflow


def snip(
    model: nn.Module, batches: Any, loss: Loss | None = None, *, closure: Closure | None = None, biases: bool = True,
    where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
    sparsity: Sparsity = None,
) -> Scores:
    r"""Connection sensitivity: how much the loss reacts to an infinitesimal weakening of each connection.

    Every parameter w gets an indicator c that multiplies it. At c = 1 the chain rule gives

    .. math:: s_j = \frac{|\partial L / \partial c_j|}{\sum_k |\partial L / \partial c_k|},
              \qquad \frac{\partial L}{\partial c} = w \odot \frac{\partial L}{\partial w},

    so that one backward pass is enough and no c is ever built. Over several batches the *signed* derivatives are
    averaged over all examples: many small batches give the same scores as the one large batch.

    Args:
        model: any ``nn.Module``.
        batches: one pair of tensors ``(inputs, targets)``, or an iterable of such pairs, as a ``DataLoader`` is. With a
            ``closure`` batches can be anything: a tensor, a mapping, or a list or tuple with a tensor in it is one
            batch; all else is iterated over (put a single batch of another kind into a list).
        loss: ``(outputs, targets) -> scalar``, a mean over the batch; by default cross-entropy, labels of -100 ignored.
        closure: ``(model, batch) -> scalar``, the mean loss of a batch, in place of ``loss``. Use the model it is given
            (of a half-precision model that is a copy in float32). All batches weigh the same: give them one size.
        biases, where: what to score, see ``masking.prunable``. (The authors' code scores biases.)
        batch_norm: "eval" scores with the running statistics, as the authors' code did (in a fresh network: batch
            norm does nothing); "train" with those of the batch. Dropout is always off.
        generator, sparsity: not used.

    Returns:
        dict of name → scores, float32 or the parameter's own wider type, on the parameter's device, summing to 1.

    Raises:
        ValueError: no batch, or one that is not a pair; labels out of range; a loss that is no scalar, that is no mean
            where batches differ in size, or that reacts to nothing; nothing to prune; an unknown ``batch_norm``.
        FloatingPointError: the loss or a derivative is not finite.

    Source: SNIP, equations 3 to 6 and Algorithm 1.
    """
    weights, gradients = gradients_of(model, batches, loss, closure, biases, where, batch_norm)
    derivatives = torch._foreach_mul(gradients, list(weights.values()))  # ∂L/∂c = w ⊙ ∂L/∂w
    del gradients
    torch._foreach_abs_(derivatives)
    return normalised(dict(zip(weights, derivatives)), model)


def gradient(
    model: nn.Module, batches: Any, loss: Loss | None = None, *, closure: Closure | None = None, biases: bool = True,
    where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
    sparsity: Sparsity = None,
) -> Scores:
    """``|∂L/∂w|``: how much the loss reacts to a step of each weight. Arguments, result and errors as for ``snip``."""
    weights, gradients = gradients_of(model, batches, loss, closure, biases, where, batch_norm)
    return normalised(dict(zip(weights, torch._foreach_abs(gradients))), model)


def signed_gradient(
    model: nn.Module, batches: Any, loss: Loss | None = None, *, closure: Closure | None = None, biases: bool = True,
    where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
    sparsity: Sparsity = None,
) -> Scores:
    """∂L/∂w with its sign, so that the most negative derivatives are removed first; the *absolute* values sum to 1.

    Arguments and errors as for ``snip``. Source: SNIP, appendix A, figure 6; that it keeps the sign is read from the
    pictures there.
    """
    weights, gradients = gradients_of(model, batches, loss, closure, biases, where, batch_norm)
    return normalised(dict(zip(weights, [gradient.clone() for gradient in gradients])), model, signed=True)


def magnitude(
    model: nn.Module, batches: Any = None, loss: Loss | None = None, *, closure: Closure | None = None,
    biases: bool = True, where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
    sparsity: Sparsity = None,
) -> Scores:
    """``|w|``, in one global ranking: the data-free baseline. Arguments, result and errors as for ``snip``."""
    weights = to_prune(model, biases=biases, where=where)
    return normalised({name: at_least_float32(weight.detach()).abs() for name, weight in weights.items()}, model)


def random(
    model: nn.Module, batches: Any = None, loss: Loss | None = None, *, closure: Closure | None = None,
    biases: bool = True, where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
    sparsity: Sparsity = None,
) -> Scores:
    """Uniform noise: pruning at random. Arguments, result and errors as for ``snip``.

    Args:
        generator: a CPU ``torch.Generator``; by default a new one seeded with 0.
    """
    generator = generator or torch.Generator().manual_seed(0)
    weights = to_prune(model, biases=biases, where=where)
    return normalised({n: torch.rand(w.shape, generator=generator).to(w.device) for n, w in weights.items()}, model)


#: name → criterion
CRITERIA: dict[str, Callable[..., Scores]] = {
    "snip": snip,
    "magnitude": magnitude,
    "random": random,
    "gradient": gradient,
    "signed-gradient": signed_gradient,
    "grasp": grasp,
    "synflow": synflow,
    "iterative-snip": iterative_snip,
    "force": force,
}

#: name → what a criterion costs, in passes forward and back through the network (SynFlow's: with one example, not a
#: batch). GraSP's second pass is differentiated once more, so that it costs about two.
PASSES = dict.fromkeys(CRITERIA, 1) | {
    "magnitude": 0,
    "random": 0,
    "grasp": 2,
    "synflow": successors.SYNFLOW_ROUNDS,
    "iterative-snip": successors.SNIP_ROUNDS,
    "force": successors.SNIP_ROUNDS,
}


def criterion(name: str) -> Callable[..., Scores]:
    """The criterion of that name; ValueError lists the known names."""
    if name not in CRITERIA:
        raise ValueError(f"unknown criterion {name!r}; known: {', '.join(CRITERIA)}")
    return CRITERIA[name]
