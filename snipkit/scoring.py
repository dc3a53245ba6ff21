"""From batches to scores: the mean gradient over all examples, on a model that is left as it was.

Every criterion in ``saliency`` and ``successors`` is built from these functions.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snipkit.pool import Where, is_norm, to_prune

BATCH_NORM_MODES = ("eval", "train")
IGNORED = -100  # the label that torch's cross-entropy passes over

Scores = dict[str, Tensor]
Weights = dict[str, nn.Parameter]
Loss = Callable[[Any, Tensor], Tensor]
Closure = Callable[[nn.Module, Any], Tensor]
Tensors = tuple[Tensor, ...]
Derivative = Callable[[Tensor, list[nn.Parameter]], Tensors]


def check_labels(targets: Tensor, outputs: Tensor) -> None:
    """Raise ValueError when labels are no class numbers that fit the outputs (torch's own errors are obscure)."""
    if not torch.is_tensor(outputs):
        raise ValueError(f"cross-entropy of {type(outputs).__name__}, not of a tensor: pass loss= or closure=")
    if targets.is_floating_point() and targets.shape == outputs.shape:
        return  # probabilities of the classes
    found = f"labels of type {str(targets.dtype).removeprefix('torch.')} and shape {tuple(targets.shape)}"
    if targets.dtype not in (torch.long, torch.uint8) or (outputs.dim() >= 2 and targets.dim() != outputs.dim() - 1):
        raise ValueError(f"{found} for outputs of shape {tuple(outputs.shape)}: cross-entropy takes class numbers, one "
                         "for each row of outputs (try labels.long(), labels.squeeze(1)); for another loss pass loss=")
    if outputs.dim() >= 2:
        labels, classes = targets[targets != IGNORED], outputs.shape[1]
        low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
        if low < 0 or high >= classes:
            raise ValueError(f"labels from {low} to {high} do not fit a network of {classes} outputs")


def at_least_float32(tensor: Tensor) -> Tensor:
    """In float32 if it was narrower: half-precision scores move a good part of the mask, and losses would be coarse."""
    return tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor


def in_float32(model: nn.Module, weights: Weights) -> tuple[nn.Module, Weights]:
    """The model and its weights; where a weight is narrower, a copy of both in float32."""
    narrow = any(at_least_float32(weight) is not weight for weight in weights.values())
    return own_copy(model, weights, torch.float32) if narrow else (model, weights)


def own_copy(model: nn.Module, weights: Weights, dtype: torch.dtype | None = None) -> tuple[nn.Module, Weights]:
    """A copy of a model and the same weights of the copy. A ``where`` that knows modules has seen the original."""
    copied = copy.deepcopy(model)
    for tensor in (*copied.parameters(), *copied.buffers()):  # Module.to, which pretended devices do not take
        if dtype and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    parameters = dict(copied.named_parameters())
    return copied, {name: parameters[name] for name in weights}


def gradient(value: Tensor, parameters: list[nn.Parameter]) -> Tensors:
    """∂value/∂parameters; 0 where the value does not depend on one."""
    # Not backward(): that would add to the model's own gradients.
    return torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)


def gradients_of(
    model: nn.Module, batches: Any, loss: Loss | None, closure: Closure | None, biases: bool, where: Where | None,
    batch_norm: str,
) -> tuple[Scores, Tensors]:
    """The prunable weights, detached, and ∂L/∂w of each; the arguments are those of ``saliency.snip``."""
    model, weights = in_float32(model, to_prune(model, biases=biases, where=where))
    mean = mean_over_examples(gradient, model, weights, batches, loss, closure, batch_norm)
    return {name: weight.detach() for name, weight in weights.items()}, mean


def mean_over_examples(
    derivative: Derivative, model: nn.Module, weights: Weights, batches: Any, loss: Loss | None,
    closure: Closure | None, batch_norm: str,
) -> Tensors:
    """The mean of a derivative of the loss over all examples of all batches: one tensor a weight.

    Args:
        derivative: ``(loss of a batch, weights) -> tensors`` of the weights' shapes, such as ``gradient``.
        model, weights: in at least float32; the weights are the model's own.
        batches, loss, closure, batch_norm: see ``saliency.snip``, with the errors that it names.
    """
    if batch_norm not in BATCH_NORM_MODES:
        raise ValueError(f"unknown batch_norm mode {batch_norm!r}; known: {', '.join(BATCH_NORM_MODES)}")
    if loss is not None and closure is not None:
        raise ValueError("pass loss or closure, not both")
    parameters, device = list(weights.values()), next(iter(weights.values())).device.type
    batches = [] if batches is None else batches
    losses = _closure_losses(model, batches, closure) if closure else _losses(model, batches, loss or cross_entropy)
    mean, examples = None, 0
    with evaluating(model, batch_norm), torch.enable_grad(), torch.autocast(device, enabled=False), _no_tf32():
        for value, size in losses:
            if not torch.is_tensor(value) or value.numel() != 1:
                raise ValueError("the loss of a batch must be one number in a tensor, the mean over its examples")
            if not math.isfinite(value.item()):
                broken = ", ".join(name for name, weight in weights.items() if not weight.isfinite().all())
                advice = "standardise the inputs, or use a smaller initialisation"
                advice = f"weights that are not finite: {broken}" if broken else advice
                raise FloatingPointError(f"the loss on the scoring batch is {value.item()}: {advice}")
            if not value.requires_grad:
                raise ValueError("the loss depends on no weight: return it as the model gives it, not detached")
            found = derivative(value, parameters)
            examples += size
            # Not in place: autograd may hand out one tensor for two parameters.
            mean = found if mean is None else torch._foreach_lerp(mean, found, size / examples)
    if mean is None:
        raise ValueError("no batch to score on: pass one (inputs, targets) pair, or an iterable of such pairs; "
                         f"not all labels may be {IGNORED}")
    return mean


def _no_tf32():
    """On a GPU, convolutions are in TF32 by default, which has 10 bits: too few for a ranking."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(cudnn.enabled, cudnn.benchmark, cudnn.benchmark_limit, cudnn.deterministic, allow_tf32=False)


def _losses(model, batches, loss):
    """(loss, its weight in the mean) for each (inputs, targets) pair."""
    sizes, ignored = set(), getattr(loss, "ignore_index", IGNORED)
    of_classes = loss is cross_entropy or (
        isinstance(loss, nn.CrossEntropyLoss) and loss.reduction == "mean" and loss.weight is None
    )
    for inputs, targets in map(_checked, [batches] if is_pair(batches) else batches):
        outputs, size = model(at_least_float32(inputs)), len(targets)
        if loss is cross_entropy:
            check_labels(targets, outputs)
        if of_classes:
            size = size if targets.is_floating_point() else int((targets != ignored).sum())
            if not size:  # its mean is 0 / 0
                continue
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


def is_pair(batch):
    return isinstance(batch, (tuple, list)) and len(batch) == 2 and all(map(torch.is_tensor, batch))


def _checked(batch):
    if not is_pair(batch) or not all(part.dim() for part in batch) or not 0 < len(batch[0]) == len(batch[1]):
        what = "a pair of tensors (inputs, targets) of the same length, with at least one example"
        raise ValueError(f"a scoring batch is {what}; for batches of another kind pass closure=")
    return batch


@contextlib.contextmanager
def evaluating(model: nn.Module, batch_norm: str) -> Iterator[None]:
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


def normalised(scores: Scores, model: nn.Module, *, signed: bool = False) -> Scores:
    """The scores, scaled in place so that their absolute values sum to 1.

    Args:
        model: what was scored, for the error.
        signed: some scores can be negative (if not, a copy of each is saved).
    """
    total = sum((score.abs() if signed else score).sum().item() for score in scores.values())
    if not math.isfinite(total):
        raise FloatingPointError("some scores are not finite: check the loss, the inputs and the initialisation")
    if total == 0:
        zero = [name for name, parameter in model.named_parameters() if parameter.dim() >= 2 and not parameter.any()]
        hint = f"; all zero, so that nothing passes: {', '.join(zero)}: initialise them first" if zero else ""
        raise ValueError(f"every score is zero: the loss reacts to no prunable connection on this batch{hint}")
    torch._foreach_mul_(list(scores.values()), 1 / total)
    return scores
