"""SNIP and its baselines: one number a connection, from a model and a mini-batch.

Each is written as ``(objective, **its own options) -> scores`` and called as ``(model, batches,
…)``, with the arguments of ``snip``. It returns ``{parameter name: float tensor of its shape}``,
whose absolute values sum to 1, and leaves the model as it was. ``snipkit.CRITERIA`` has all
criteria by name.
"""

import warnings
from typing import Any

import torch

from snipkit._scoring.arguments import cpu_generator
from snipkit._scoring.driver import from_objective
from snipkit._scoring.objective import Objective, Scores


@from_objective
def snip(objective: Objective) -> Scores:
    r"""Connection sensitivity: how much the loss reacts to a slight weakening of each connection.

    Every parameter w gets an indicator c that multiplies it. At c = 1 the chain rule gives

    .. math:: s_j = \frac{|\partial L / \partial c_j|}{\sum_k |\partial L / \partial c_k|},
              \qquad \frac{\partial L}{\partial c} = w \odot \frac{\partial L}{\partial w},

    so that one backward pass is enough and no c is ever built. Over several batches the *signed*
    derivatives are averaged over all examples: many small batches give the same scores as the one
    large batch.

    Args:
        model: any ``nn.Module``.
        batches: one pair of tensors ``(inputs, targets)``, or an iterable of such pairs, as a
            ``DataLoader`` is. With a ``closure`` batches can be anything: a tensor, a mapping, or a
            list or tuple with a tensor in it is one batch; all else is iterated over (put a single
            batch of another kind into a list).
        loss: ``(outputs, targets) -> scalar``; by default cross-entropy, labels of -100 ignored. A
            mean over examples, over labels that are not ignored or by weights of classes, or a sum:
            batches weigh as in the loss of all examples at once. That is tried on the outputs,
            joined along their first dimension.
        closure: ``(model, batch) -> scalar``, the mean loss of a batch, in place of ``loss``; or a
            pair of it and the batch's weight (without one, all batches weigh the same: give them
            one size). Use the model it is given: of a half-precision model that is a copy in
            float32. It is in evaluation mode. A closure that fails in it is called in training
            mode, where detectors give their losses; dropout is off and batch norm as told even
            then.
        biases, where: what to score, see ``prunable``. (The authors' code scores biases.)
        batch_norm: "eval" scores with the running statistics, as the authors' code did (in a fresh
            network: batch norm does nothing); "train" with those of the batch.

    Dropout is always off, and hooks on gradients do not run. A model that draws other random
    numbers gets the same ones in every call.

    Returns:
        dict of name → scores, float32 or the parameter's own wider type, on the parameter's device,
        summing to 1.

    Raises:
        TypeError: an option that the criterion does not have, or an argument of the wrong kind.
        ValueError: no batch, or one that is not a pair; labels out of range; a loss that is no
            scalar, that compares examples of several batches, or that reacts to nothing; nothing to
            prune; an unknown ``batch_norm``.
        FloatingPointError: the loss or a derivative is not finite.

    Source: SNIP, equations 3 to 6 and Algorithm 1.
    """
    weights = objective.weights
    return {name: (slope * weights[name]).abs_() for name, slope in objective.gradient().items()}


@from_objective
def gradient(objective: Objective) -> Scores:
    """``|∂L/∂w|``: how much the loss reacts to a step of each weight.

    Arguments, result and errors as for ``snip``.
    """
    return {name: slope.abs() for name, slope in objective.gradient().items()}


@from_objective
def signed_gradient(objective: Objective) -> Scores:
    """∂L/∂w with its sign: the most negative derivatives are removed first.

    The *absolute* values sum to 1. Arguments and errors as for ``snip``.

    Source: SNIP, appendix A, figure 6; that it keeps the sign is read from the pictures there.
    """
    return {name: slope.clone() for name, slope in objective.gradient().items()}


@from_objective
def magnitude(objective: Objective) -> Scores:
    """``|w|``, in one global ranking: the data-free baseline.

    Arguments, result and errors as for ``snip``.
    """
    return {name: weight.abs() for name, weight in objective.weights.items()}


@from_objective
def random(objective: Objective, *, generator: torch.Generator | None = None) -> Scores:
    """Uniform noise: pruning at random. Arguments, result and errors as for ``snip``.

    Args:
        generator: a CPU ``torch.Generator``; by default a new one seeded with 0.
    """
    generator = cpu_generator(generator)
    scores = {}
    for name, weight in objective.weights.items():
        draw = torch.rand(weight.shape, generator=generator, dtype=torch.float32, device="cpu")
        scores[name] = draw.to(weight.device)
    return scores


#: names of earlier versions → what to write
MOVED = {
    "CRITERIA": "snipkit.CRITERIA",
    "PASSES": "snipkit.PASSES",
    "BATCH_NORM_MODES": "snipkit.BATCH_NORM_MODES",
    "criterion": "snipkit.CRITERIA[name]",
    "grasp": 'snipkit.CRITERIA["grasp"]',
    "synflow": 'snipkit.CRITERIA["synflow"]',
    "iterative_snip": 'snipkit.CRITERIA["iterative-snip"]',
    "force": 'snipkit.CRITERIA["force"]',
}


def __getattr__(name: str) -> Any:
    if name not in MOVED:
        raise AttributeError(f"module 'snipkit.saliency' has no attribute {name!r}")
    import snipkit

    warnings.warn(f"saliency.{name}: write {MOVED[name]}", DeprecationWarning, stacklevel=2)
    if name in ("CRITERIA", "PASSES", "BATCH_NORM_MODES"):
        return getattr(snipkit, name)
    return snipkit._function if name == "criterion" else snipkit._function(name.replace("_", "-"))
