"""What a criterion is given: the mean loss over all examples, and its derivatives."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snipkit._copies import copied
from snipkit._scoring.arguments import Closure, Loss
from snipkit._scoring.evaluation import evaluating, no_tf32, same_every_time
from snipkit._scoring.joined import Part

IGNORED = -100  # the label that torch's cross-entropy passes over

USED_UP = (
    "the derivatives of the loss have been taken already: return it without calling backward()"
)

Scores = dict[str, Tensor]
Weights = dict[str, nn.Parameter]
Tensors = tuple[Tensor, ...]
Derivative = Callable[[Tensor, list[nn.Parameter]], Tensors]


def check_labels(targets: Tensor, outputs: Tensor) -> None:
    """Raise ValueError, clearer than torch, when labels are no class numbers that fit."""
    if not torch.is_tensor(outputs):
        kind = type(outputs).__name__
        raise ValueError(f"cross-entropy of {kind}, not of a tensor: pass loss= or closure=")
    if targets.is_floating_point() and targets.shape == outputs.shape and outputs.dim() >= 2:
        sums = targets.sum(1)
        if (targets < 0).any() or not torch.allclose(sums, torch.ones_like(sums), atol=0.01):
            raise ValueError(
                "targets of floats that are no probabilities of classes, which are at least 0 and "
                "sum to 1: cross-entropy is the default, for another loss pass loss="
            )
        return
    dtype = str(targets.dtype).removeprefix("torch.")
    one_each = outputs.dim() < 2 or targets.dim() == outputs.dim() - 1
    if targets.dtype not in (torch.long, torch.uint8) or not one_each:
        raise ValueError(
            f"labels of type {dtype} and shape {tuple(targets.shape)} for outputs of shape "
            f"{tuple(outputs.shape)}: cross-entropy takes class numbers, one for each row of "
            "outputs (try labels.long(), labels.squeeze(1)); for another loss pass loss="
        )
    if outputs.dim() >= 2:
        labels, classes = targets[targets != IGNORED], outputs.shape[1]
        low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
        if low < 0 or high >= classes:
            raise ValueError(
                f"labels from {low} to {high} do not fit a network of {classes} outputs"
            )


@dataclasses.dataclass(eq=False)
class Objective:
    """The loss on some batches as a function of the weights that may be pruned.

    Attributes:
        model: the user's model. Criteria leave it as it is; what they change is a ``copy``.
        parameters: name → what may be pruned, the model's own parameters.
        batches, loss, closure, batch_norm: see ``saliency.snip``.
        temperature: the outputs are divided by it, under the default loss only.
    """

    model: nn.Module
    parameters: Weights
    batches: Any = None
    loss: Loss | None = None
    closure: Closure | None = None
    batch_norm: str = "eval"
    temperature: float = 1.0

    @property
    def weights(self) -> Scores:
        """name → what may be pruned, detached, in float32 if it was narrower."""
        return {name: at_least_float32(p.detach()) for name, p in self.parameters.items()}

    def gradient(self) -> Scores:
        """∂L/∂w, name → tensor of the parameter's shape: the mean over all examples of all batches.

        In float32 or the parameter's own wider type. The errors are those of ``saliency.snip``.
        """
        return self._mean(gradient)

    def hessian_times(self, vector: Scores) -> Scores:
        """∂²L/∂w² times a vector (name → tensor), in the form of ``gradient``."""

        def derivative(value: Tensor, parameters: list[nn.Parameter]) -> Tensors:
            slopes = torch.autograd.grad(
                value, parameters, create_graph=True, allow_unused=True, materialize_grads=True
            )
            product = sum((slope * part).sum() for slope, part in zip(slopes, vector.values()))
            if not product.requires_grad:  # type: ignore[union-attr]
                return tuple(map(torch.zeros_like, slopes))
            return gradient(product, parameters)  # type: ignore[arg-type]

        return self._mean(derivative)

    def copy(self, dtype: torch.dtype | None = None) -> "Objective":
        """The same on a copy of the model, whose ``weights`` can be changed in place.

        Args:
            dtype: of the copy; by default float32 where a weight is narrower, and else the model's.
        """
        if dtype is None and self._is_narrow():
            dtype = torch.float32
        model = copied(self.model)
        for tensor in (*model.parameters(), *model.buffers()):
            if dtype and tensor.is_floating_point():
                # Not Module.to, which pretended devices do not take.
                tensor.data = tensor.data.to(dtype)
        parameters = dict(model.named_parameters())
        parameters = {name: parameters[name] for name in self.parameters}
        return dataclasses.replace(self, model=model, parameters=parameters)

    def repeatable(self, **changes: Any) -> "Objective":
        """The same, but for the changes, with batches that can be gone through more than once."""
        if isinstance(self.batches, Iterator):
            changes["batches"] = list(self.batches)
        return dataclasses.replace(self, **changes)

    def _is_narrow(self) -> bool:
        return any(at_least_float32(p) is not p for p in self.parameters.values())

    @functools.cached_property
    def _in_float32(self) -> "Objective":
        """This objective, or where a weight is narrower one on a copy in float32."""
        return self.copy() if self._is_narrow() else self

    def _mean(self, derivative: Derivative) -> Scores:
        """The mean of a derivative of the loss over all examples of all batches.

        Args:
            derivative: ``(loss of a batch, weights) -> tensors`` of the weights' shapes.
        """
        scored = self._in_float32
        refuse_inference(scored.model)
        parameters = list(scored.parameters.values())
        device = parameters[0].device.type
        mean: Any = None
        total = 0.0
        with (
            evaluating(scored.model, self.batch_norm),
            torch.enable_grad(),
            torch.autocast(device, enabled=False),
            no_tf32(),
        ):
            for value, size in scored._losses():
                _check_value(value, scored.parameters)
                try:
                    slopes = derivative(value, parameters)
                except RuntimeError as error:
                    if "backward through the graph a second time" in str(error):
                        raise ValueError(USED_UP) from error
                    raise
                total += size
                # Not in place: autograd may hand out one tensor for two parameters.
                mean = slopes if mean is None else torch._foreach_lerp(mean, slopes, size / total)
        if mean is None:
            raise ValueError(
                "no batch to score on: pass one (inputs, targets) pair, or an iterable of such "
                "pairs (a generator can be gone through once); not all labels may be "
                f"{IGNORED}, nor all weights 0"
            )
        return dict(zip(scored.parameters, mean))

    def _losses(self) -> Iterator[tuple[Tensor, float]]:
        """(loss, its weight in the mean) of each batch."""
        batches = [] if self.batches is None else self.batches
        if self.closure is not None:
            return self._closure_losses(batches, self.closure)
        pairs = [batches] if is_pair(batches) else batches
        if self.loss is None or self.loss is cross_entropy:
            return self._cross_entropies(pairs)
        return self._other_losses(pairs, self.loss)

    def _outputs(self, inputs: Tensor, number: int) -> Any:
        # A copy, since a forward pass may write into its inputs.
        inputs = at_least_float32(inputs.clone())
        try:
            with same_every_time(inputs.device, number):
                return self.model(inputs)
        except RuntimeError as error:
            if "dtype" not in str(error) and "scalar type" not in str(error):
                raise
            raise ValueError(
                f"the model does not take inputs of {inputs.dtype} ({error}): convert them. What "
                "is narrower than float32 is scored in float32, so a forward pass may not cast to "
                "a type of its own"
            ) from error

    def _cross_entropies(self, pairs: Iterable) -> Iterator[tuple[Tensor, float]]:
        """Batches weigh by their labels that are not ignored."""
        for number, (inputs, targets) in enumerate(map(_checked, pairs)):
            outputs = self._outputs(inputs, number)
            if self.temperature != 1 and torch.is_tensor(outputs):
                outputs = outputs / self.temperature
            check_labels(targets, outputs)
            if targets.is_floating_point():  # probabilities of the classes, the second dimension
                size = targets[:, 0].numel()
            else:
                size = int((targets != IGNORED).sum())
            if size:  # or the mean is 0 / 0
                yield cross_entropy(outputs, targets), size

    def _other_losses(self, pairs: Iterable, loss: Loss) -> Iterator[tuple[Tensor, float]]:
        """Batches weigh as much as they do in the loss of two batches joined."""
        first: Part | None = None
        undefined: list[Part] = []
        value = None
        for number, (inputs, targets) in enumerate(map(_checked, pairs)):
            outputs = self._outputs(inputs, number)
            with same_every_time(inputs.device, number):
                value = loss(outputs, targets)
            part = Part(outputs, targets, loss, list(self.parameters.values()))
            if torch.is_tensor(value) and value.numel() == 1 and value.isnan():
                undefined.append(part)  # 0 / 0, if it has no label that counts
            elif first is None or not first.has_slope():
                first = part
                yield value, 1.0
            else:
                yield value, first.weight_of(part)
        for part in undefined:
            if first is None or not first.ignores(part):
                yield torch.tensor(math.nan), 1.0

    def _closure_losses(self, batches: Any, closure: Closure) -> Iterator[tuple[Tensor, float]]:
        """Batches of any kind weigh the same, or what the closure says."""
        of_tensors = isinstance(batches, (list, tuple)) and any(map(torch.is_tensor, batches))
        single = of_tensors or torch.is_tensor(batches) or isinstance(batches, Mapping)
        device = next(iter(self.parameters.values())).device
        for number, batch in enumerate([batches] if single else batches):
            with same_every_time(device, number):
                try:
                    result = closure(self.model, batch)
                except Exception as error:
                    result = self._in_training_mode(closure, batch, error)
            weighted = isinstance(result, tuple) and len(result) == 2
            value, weight = result if weighted else (result, 1)
            if not isinstance(weight, Real) or not 0 <= float(weight) < math.inf:
                kind = type(weight).__name__ if not isinstance(weight, Real) else repr(weight)
                raise ValueError(
                    f"the closure returned a pair whose second part is {kind}: it is the weight of "
                    "the batch, a number of at least 0 (of a tensor, its item()); without one "
                    "return the loss alone"
                )
            if weight:
                yield value, float(weight) if weighted else 1

    def _in_training_mode(self, closure: Closure, batch: Any, error: Exception) -> Any:
        """What a closure gives that failed in evaluation mode, as it does for detectors."""
        if self.model.training:
            raise error
        # ``evaluating`` keeps normalisation layers as they are, and puts all back.
        self.model.train()
        try:
            return closure(self.model, batch)
        except Exception:
            raise error from None


def refuse_inference(model: nn.Module) -> None:
    """Raise ValueError for tensors of a model that torch cannot differentiate with."""
    names = []
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not nn.parameter.is_lazy(tensor) and tensor.is_inference():
            names.append(name)
    if names:
        raise ValueError(
            f"the model was made under torch.inference_mode ({names[0]}), so that torch takes no "
            "derivatives with it: build it, or load its weights, outside"
        )


def _check_value(value: Any, weights: Weights) -> None:
    """Raise ValueError or FloatingPointError for a loss that is no differentiable number."""
    if not torch.is_tensor(value) or value.numel() != 1:
        raise ValueError(
            "the loss of a batch must be one number in a tensor, the mean over its examples"
        )
    if not math.isfinite(value.item()):
        broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
        advice = (
            "standardise the inputs, or use a smaller initialisation (a mean over no label is nan)"
        )
        if broken:
            advice = f"weights that are not finite: {', '.join(broken)}"
        raise FloatingPointError(f"the loss on the scoring batch is {value.item()}: {advice}")
    if not value.requires_grad:
        raise ValueError(
            "the loss depends on no weight: return it as the model gives it, not detached"
        )


def gradient(value: Tensor, parameters: list[nn.Parameter]) -> Tensors:
    """∂value/∂parameters; 0 where the value does not depend on one."""
    # Not backward(): that would add to the model's own gradients.
    return torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)


def at_least_float32(tensor: Tensor) -> Tensor:
    """In float32 if it was narrower: half-precision scores move a good part of the mask."""
    return tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor


def is_pair(batch: Any) -> bool:
    """Whether a batch is a pair of tensors."""
    return isinstance(batch, (tuple, list)) and len(batch) == 2 and all(map(torch.is_tensor, batch))


def _checked(batch: Any) -> Any:
    fits = is_pair(batch) and all(part.dim() for part in batch)
    if not fits or not 0 < len(batch[0]) == len(batch[1]):
        raise ValueError(
            "a scoring batch is a pair of tensors (inputs, targets) of the same length, with at "
            "least one example; for batches of another kind pass closure="
        )
    # torch takes no derivatives with tensors that were made under torch.inference_mode.
    return tuple(part.clone() if part.is_inference() else part for part in batch)
