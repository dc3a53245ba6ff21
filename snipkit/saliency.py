"""Saliency criteria: one number a connection, from a model and a mini-batch.

Every criterion takes the arguments of ``snip``, and ignores what it does not need. It returns ``{parameter name: float
tensor of its shape}``, whose absolute values sum to 1, and leaves the model as it was. ``CRITERIA`` names them.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snipkit.masking import Where, is_norm, prunable

BATCH_NORM_MODES = ("eval", "train")
IGNORED = -100  # the label that torch's cross-entropy passes over

Scores = dict[str, Tensor]
Loss = Callable[[Any, Tensor], Tensor]
Closure = Callable[[nn.Module, Any], Tensor]


def snip(
    model: nn.Module, batches: Any, loss: Loss | None = None, *, closure: Closure | None = None, biases: bool = True,
    where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
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
        generator: not used.

    Returns:
        dict of name → scores, float32 or the parameter's own wider type, on the parameter's device, summing to 1.

    Raises:
        ValueError: no batch, or one that is not a pair; labels out of range; a loss that is no scalar, that is no mean
            where batches differ in size, or that reacts to nothing; nothing to prune; an unknown ``batch_norm``.
        FloatingPointError: the loss or a derivative is not finite.

    Source: SNIP, equations 3 to 6 and Algorithm 1.
    """
    weights, gradients = _mean_gradients(model, batches, loss, closure, biases, where, batch_norm)
    derivatives = torch._foreach_mul(gradients, list(weights.values()))  # ∂L/∂c = w ⊙ ∂L/∂w
    return _normalised(dict(zip(weights, torch._foreach_abs(derivatives))), model)


def gradient(
    model: nn.Module, batches: Any, loss: Loss | None = None, *, closure: Closure | None = None, biases: bool = True,
    where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
) -> Scores:
    """|∂L/∂w|: how much the loss reacts to a step of each weight. Arguments, result and errors as for ``snip``."""
    weights, gradients = _mean_gradients(model, batches, loss, closure, biases, where, batch_norm)
    return _normalised(dict(zip(weights, torch._foreach_abs(gradients))), model)


def signed_gradient(
    model: nn.Module, batches: Any, loss: Loss | None = None, *, closure: Closure | None = None, biases: bool = True,
    where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
) -> Scores:
    """∂L/∂w with its sign, so that the most negative derivatives are removed first; the *absolute* values sum to 1.

    Arguments and errors as for ``snip``. Source: SNIP, appendix A, figure 6; that it keeps the sign is read from the
    pictures there.
    """
    weights, gradients = _mean_gradients(model, batches, loss, closure, biases, where, batch_norm)
    return _normalised(dict(zip(weights, [gradient.clone() for gradient in gradients])), model)


def magnitude(
    model: nn.Module, batches: Any = None, loss: Loss | None = None, *, closure: Closure | None = None,
    biases: bool = True, where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
) -> Scores:
    """|w|, in one global ranking: the data-free baseline. Arguments, result and errors as for ``snip``."""
    weights = _prunable(model, biases, where)
    return _normalised({name: at_least_float32(weight.detach()).abs() for name, weight in weights.items()}, model)


def random(
    model: nn.Module, batches: Any = None, loss: Loss | None = None, *, closure: Closure | None = None,
    biases: bool = True, where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
) -> Scores:
    """Uniform noise: pruning at random. Arguments, result and errors as for ``snip``.

    Args:
        generator: a CPU ``torch.Generator``; by default a new one seeded with 0.
    """
    generator = generator or torch.Generator().manual_seed(0)
    weights = _prunable(model, biases, where)
    return _normalised({n: torch.rand(w.shape, generator=generator).to(w.device) for n, w in weights.items()}, model)


#: name → criterion
CRITERIA = dict(snip=snip, magnitude=magnitude, random=random, gradient=gradient) | {"signed-gradient": signed_gradient}


def criterion(name: str) -> Callable[..., Scores]:
    """The criterion of that name; ValueError lists the known names."""
    if name not in CRITERIA:
        raise ValueError(f"unknown criterion {name!r}; known: {', '.join(CRITERIA)}")
    return CRITERIA[name]


def check_labels(targets: Tensor, outputs: Tensor) -> None:
    """Raise ValueError when integer class labels do not fit the number of outputs (torch's own error is obscure)."""
    if not torch.is_tensor(outputs):
        raise ValueError(f"cross-entropy of {type(outputs).__name__}, not of a tensor: pass loss= or closure=")
    if targets.dtype == torch.long and outputs.dim() >= 2 and targets.dim() == outputs.dim() - 1:
        labels, classes = targets[targets != IGNORED], outputs.shape[1]
        low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
        if low < 0 or high >= classes:
            raise ValueError(f"labels from {low} to {high} do not fit a network of {classes} outputs")


def at_least_float32(tensor: Tensor) -> Tensor:
    """In float32 if it was narrower: half-precision scores move a good part of the mask, and losses would be coarse."""
    return tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor


def _prunable(model, biases, where):
    weights = prunable(model, biases=biases, where=where)
    if not weights:
        raise ValueError("the model has no prunable parameter: masking.pool(model) says why, parameter by parameter")
    return weights


def _mean_gradients(model, batches, loss, closure, biases, where, batch_norm):
    """The prunable weights and ∂L/∂w of each, the mean over all examples; in at least float32."""
    if batch_norm not in BATCH_NORM_MODES:
        raise ValueError(f"unknown batch_norm mode {batch_norm!r}; known: {', '.join(BATCH_NORM_MODES)}")
    if loss is not None and closure is not None:
        raise ValueError("pass loss or closure, not both")
    weights = _prunable(model, biases, where)
    if any(at_least_float32(weight) is not weight for weight in weights.values()):
        model = copy.deepcopy(model).float()
        parameters = dict(model.named_parameters())
        weights = {name: parameters[name] for name in weights}
    parameters, device = list(weights.values()), next(iter(weights.values())).device.type
    batches = [] if batches is None else batches
    losses = _closure_losses(model, batches, closure) if closure else _losses(model, batches, loss or cross_entropy)
    mean, examples = None, 0
    with _scoring(model, batch_norm), torch.enable_grad(), torch.autocast(device, enabled=False):
        for value, size in losses:
            if not torch.is_tensor(value) or value.numel() != 1:
                raise ValueError("the loss of a batch must be one number in a tensor, the mean over its examples")
            if not math.isfinite(value.item()):
                advice = "standardise the inputs, or use a smaller initialisation"
                raise FloatingPointError(f"the loss on the scoring batch is {value.item()}: {advice}")
            # Not backward(): that would add to the model's own gradients. Where the loss does not reach, 0.
            gradients = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
            examples += size
            # Not in place: autograd may hand out one tensor for two parameters.
            mean = gradients if mean is None else torch._foreach_lerp(mean, gradients, size / examples)
    if mean is None:
        raise ValueError("no batch to score on: pass one (inputs, targets) pair, or an iterable of such pairs")
    return {name: weight.detach() for name, weight in weights.items()}, mean


def _losses(model, batches, loss):
    """(loss, its weight in the mean) for each (inputs, targets) pair."""
    sizes = set()
    for inputs, targets in map(_checked, [batches] if _is_pair(batches) else batches):
        outputs, size = model(at_least_float32(inputs)), len(targets)
        if loss is cross_entropy:
            check_labels(targets, outputs)
            size = size if targets.is_floating_point() else int((targets != IGNORED).sum())
        value = loss(outputs, targets)
        sizes.add(len(targets))
        if len(sizes) == 2 and not _is_mean(loss, outputs, targets, value):
            raise ValueError("the loss is no mean over the batch, and batches differ in size: average, or use one size")
        yield value, size


def _is_mean(loss, outputs, targets, value):
    """Whether a loss stays what it is when every example comes twice; taken for granted where that cannot be tried."""
    if not torch.is_tensor(outputs) or len(outputs) != len(targets):
        return getattr(loss, "reduction", "mean") == "mean"
    with torch.no_grad():
        return torch.allclose(loss(torch.cat([outputs, outputs]), torch.cat([targets, targets])), value, rtol=1e-3)


def _closure_losses(model, batches, closure):
    """The same for batches of any kind; all weigh the same."""
    of_tensors = isinstance(batches, (list, tuple)) and any(map(torch.is_tensor, batches))
    for batch in [batches] if of_tensors or torch.is_tensor(batches) or isinstance(batches, Mapping) else batches:
        yield closure(model, batch), 1


def _is_pair(batch):
    return isinstance(batch, (tuple, list)) and len(batch) == 2 and all(map(torch.is_tensor, batch))


def _checked(batch):
    if not _is_pair(batch) or not all(part.dim() for part in batch) or not 0 < len(batch[0]) == len(batch[1]):
        what = "a pair of tensors (inputs, targets) of the same length, with at least one example"
        raise ValueError(f"a scoring batch is {what}; for batches of another kind pass closure=")
    return batch


@contextlib.contextmanager
def _scoring(model, batch_norm):
    """Set modes for scoring; put modes and the buffers of normalisation layers back after it."""
    modules = list(model.modules())
    modes = [module.training for module in modules]
    batchwise = [module for module in modules if is_norm(module)] if batch_norm == "train" else []
    stored = [(buffer, buffer.clone()) for module in batchwise for buffer in module.buffers(recurse=False)]
    # cuDNN has no backward pass for recurrent layers in evaluation mode; but for dropout the modes are the same.
    recurrent = [(module, module.dropout) for module in modules if isinstance(module, nn.RNNBase)]
    try:
        for module in modules:
            module.training = False
        for module in (*batchwise, *(module for module, _ in recurrent)):
            module.training = True
        for module, _ in recurrent:
            module.dropout = 0.0
        yield
    finally:
        for module, training in zip(modules, modes):
            module.training = training
        for module, dropout in recurrent:
            module.dropout = dropout
        for buffer, content in stored:
            buffer.copy_(content)


def _normalised(scores, model):
    total = sum(score.abs().sum().item() for score in scores.values())
    if not math.isfinite(total):
        raise FloatingPointError("some scores are not finite: check the loss, the inputs and the initialisation")
    if total == 0:
        zero = [name for name, parameter in model.named_parameters() if parameter.dim() >= 2 and not parameter.any()]
        hint = f"; all zero, so that nothing passes: {', '.join(zero)}: initialise them first" if zero else ""
        raise ValueError(f"every score is zero: the loss reacts to no prunable connection on this batch{hint}")
    torch._foreach_mul_(list(scores.values()), 1 / total)
    return scores
