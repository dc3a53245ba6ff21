"""From batches to scores: what a criterion is given (``Objective``), and the one driver of all criteria (``score``)."""

import contextlib
import copy
import dataclasses
import functools
import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree
from torch.utils.hooks import RemovableHandle

from snipkit.pool import Where, is_norm, to_prune

BATCH_NORM_MODES = ("eval", "train")
IGNORED = -100  # the label that torch's cross-entropy passes over

Scores = dict[str, Tensor]
Weights = dict[str, nn.Parameter]
Loss = Callable[[Any, Tensor], Tensor]
Closure = Callable[[nn.Module, Any], Any]
Tensors = tuple[Tensor, ...]
Derivative = Callable[[Tensor, list[nn.Parameter]], Tensors]


# --- the driver ---------------------------------------------------------------------------------


def score(
    model: nn.Module,
    batches: Any,
    criterion: Callable[..., Scores],
    *,
    loss: Loss | None = None,
    closure: Closure | None = None,
    biases: bool = True,
    where: Where | None = None,
    batch_norm: str = "eval",
    **options: Any,
) -> Scores:
    """The scores of a model by a criterion: checks what is given, scores, scales.

    Args:
        model, batches, loss, closure, biases, where, batch_norm: see ``saliency.snip``.
        criterion: ``(objective, **its own options) -> {parameter name: tensor of its shape}``.
        options: handed to the criterion.

    Returns:
        dict of name → scores, scaled so that their absolute values sum to 1.

    Raises:
        TypeError: an option that the criterion does not have, or an argument of the wrong kind.
        ValueError, FloatingPointError: see ``saliency.snip``.
    """
    check_arguments(model, loss, closure, where, batch_norm)
    unknown = [name for name in options if name not in own_options(criterion)]
    if unknown:
        takes = ["loss", "closure", "biases", "where", "batch_norm", *own_options(criterion)]
        raise TypeError(
            f"{criterion.__name__} has no option {', '.join(unknown)}; it takes {', '.join(takes)}"
        )
    parameters = to_prune(model, biases=biases, where=where)
    objective = Objective(model, parameters, batches, loss, closure, batch_norm)
    return normalised(criterion(objective, **options), model)


def own_options(criterion: Callable[..., Scores]) -> list[str]:
    """The names of what a criterion takes besides the objective."""
    return list(inspect.signature(criterion).parameters)[1:]


def from_objective(criterion: Callable[..., Scores]) -> Callable[..., Scores]:
    """Decorator: ``(objective, **options) -> scores`` becomes ``(model, batches, …, **options) -> scores``.

    The result takes the arguments of ``saliency.snip``, checked by ``score``, and the criterion's own
    options. It can be handed to ``snipkit.prune``.
    """

    def of_model(
        model: nn.Module,
        batches: Any = None,
        loss: Loss | None = None,
        *,
        closure: Closure | None = None,
        biases: bool = True,
        where: Where | None = None,
        batch_norm: str = "eval",
        **options: Any,
    ) -> Scores:
        return score(
            model,
            batches,
            criterion,
            loss=loss,
            closure=closure,
            biases=biases,
            where=where,
            batch_norm=batch_norm,
            **options,
        )

    *shared, _ = inspect.signature(of_model).parameters.values()
    _, *own = inspect.signature(criterion).parameters.values()
    functools.update_wrapper(of_model, criterion)
    signature = inspect.Signature([*shared, *own], return_annotation=Scores)
    of_model.__signature__ = signature  # type: ignore[attr-defined]  # for help() and for ``prune``
    return of_model


def check_arguments(
    model: nn.Module,
    loss: Loss | None,
    closure: Closure | None,
    where: Where | None,
    batch_norm: str,
) -> None:
    """Raise TypeError or ValueError, naming the argument, for what every criterion is given."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is of type {type(model).__name__}, not a torch.nn.Module: the model comes first, "
            "then the batches"
        )
    if batch_norm not in BATCH_NORM_MODES:
        known = ", ".join(BATCH_NORM_MODES)
        raise ValueError(f"unknown batch_norm mode {batch_norm!r}; known: {known}")
    if loss is not None and closure is not None:
        raise ValueError("pass loss or closure, not both")
    _check_function("loss", loss, "(outputs, targets)", "a mean over the batch")
    _check_function("closure", closure, "(model, batch)", "the mean loss of the batch")
    _check_function("where", where, "(name, module)", "True for what may be pruned")


def _check_function(argument: str, function: Any, takes: str, gives: str) -> None:
    """Raise TypeError unless the function, if there is one, can be called with two arguments."""
    if function is None:
        return
    advice = f"it is a function of {takes} that returns {gives}"
    if argument == "where" and isinstance(function, type):
        advice = f"write lambda name, module: isinstance(module, {function.__name__})"
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"{argument} is {function!r}: {advice}")
    try:
        inspect.signature(function).bind(None, None)
    except ValueError:  # some functions written in C cannot be inspected
        return
    except TypeError as error:
        raise TypeError(f"{argument} cannot be called with {takes}: {error}") from None


def check_labels(targets: Tensor, outputs: Tensor) -> None:
    """Raise ValueError when labels are no class numbers that fit the outputs (torch's own errors are obscure)."""
    if not torch.is_tensor(outputs):
        kind = type(outputs).__name__
        raise ValueError(f"cross-entropy of {kind}, not of a tensor: pass loss= or closure=")
    if targets.is_floating_point() and targets.shape == outputs.shape:
        return  # probabilities of the classes
    dtype = str(targets.dtype).removeprefix("torch.")
    one_each = outputs.dim() < 2 or targets.dim() == outputs.dim() - 1
    if targets.dtype not in (torch.long, torch.uint8) or not one_each:
        raise ValueError(
            f"labels of type {dtype} and shape {tuple(targets.shape)} for outputs of shape "
            f"{tuple(outputs.shape)}: cross-entropy takes class numbers, one for each row of outputs "
            "(try labels.long(), labels.squeeze(1)); for another loss pass loss="
        )
    if outputs.dim() >= 2:
        labels, classes = targets[targets != IGNORED], outputs.shape[1]
        low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
        if low < 0 or high >= classes:
            raise ValueError(
                f"labels from {low} to {high} do not fit a network of {classes} outputs"
            )


def cpu_generator(generator: torch.Generator | None) -> torch.Generator:
    """The generator, or a new one seeded with 0. TypeError or ValueError: it is none, or not one of the CPU."""
    if generator is None:
        return torch.Generator("cpu").manual_seed(0)
    advice = "pass torch.Generator().manual_seed(0), or with a seed of yours"
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is {generator!r}: {advice}")
    if generator.device.type != "cpu":
        raise ValueError(f"generator is one of {generator.device}: {advice}, on the CPU")
    return generator


def normalised(scores: Scores, model: nn.Module) -> Scores:
    """The scores, scaled in place so that their absolute values sum to 1.

    Scores that are scaled already are left as they are, to the bit: iterative criteria scale in every round.

    Args:
        model: what was scored, for the error.

    Raises:
        ValueError: every score is zero.
        FloatingPointError: some scores are not finite.
    """
    total = sum(score.abs().sum().item() for score in scores.values())
    if not math.isfinite(total):
        raise FloatingPointError(
            "some scores are not finite: check the loss, the inputs and the initialisation"
        )
    if total == 0:
        zero = []
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2 and not parameter.any():
                zero.append(name)
        hint = f"; all zero, so that nothing passes: {', '.join(zero)}: initialise them first"
        raise ValueError(
            "every score is zero: the loss reacts to no prunable connection on this batch"
            + (hint if zero else "")
        )
    if not math.isclose(total, 1, rel_tol=1e-5):
        torch._foreach_mul_(list(scores.values()), 1 / total)
    return scores


# --- what a criterion is given ------------------------------------------------------------------


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
        """The product of the Hessian ∂²L/∂w² with a vector (name → tensor), in the form of ``gradient``."""

        def derivative(value: Tensor, parameters: list[nn.Parameter]) -> Tensors:
            slopes = torch.autograd.grad(
                value, parameters, create_graph=True, allow_unused=True, materialize_grads=True
            )
            product = sum((slope * part).sum() for slope, part in zip(slopes, vector.values()))
            if not product.requires_grad:  # type: ignore[union-attr]
                return tuple(map(torch.zeros_like, slopes))
            return gradient(product, parameters)  # type: ignore[arg-type]

        return self._mean(derivative)

    def copy(self, dtype: torch.dtype | None = None, **changes: Any) -> "Objective":
        """The same on a copy of the model, whose ``weights`` can be changed in place.

        Args:
            dtype: of the copy; by default float32 where a weight is narrower, and else the model's.
            changes: other attributes of the copy.
        """
        if dtype is None and self._is_narrow():
            dtype = torch.float32
        model = copied(self.model)
        for tensor in (*model.parameters(), *model.buffers()):
            if dtype and tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)  # not Module.to, which pretended devices do not take
        parameters = dict(model.named_parameters())
        parameters = {name: parameters[name] for name in self.parameters}
        return dataclasses.replace(self, model=model, parameters=parameters, **changes)

    def repeatable(self, **changes: Any) -> "Objective":
        """The same, but for the changes, with batches that can be gone through more than once."""
        if isinstance(self.batches, Iterator):
            changes["batches"] = list(self.batches)
        return dataclasses.replace(self, **changes)

    def _is_narrow(self) -> bool:
        return any(at_least_float32(p) is not p for p in self.parameters.values())

    @functools.cached_property
    def _in_float32(self) -> "Objective":
        """This objective, or one on a copy in float32: half-precision scores move a good part of the mask."""
        return self.copy() if self._is_narrow() else self

    def _mean(self, derivative: Derivative) -> Scores:
        """The mean of a derivative of the loss over all examples of all batches.

        Args:
            derivative: ``(loss of a batch, weights) -> tensors`` of the weights' shapes.
        """
        scored = self._in_float32
        parameters = list(scored.parameters.values())
        device = parameters[0].device.type
        mean: Any = None
        total = 0.0
        with (
            evaluating(scored.model, self.batch_norm),
            torch.enable_grad(),
            torch.autocast(device, enabled=False),
            _no_tf32(),
        ):
            for value, size in scored._losses():
                _check_value(value, scored.parameters)
                slopes = derivative(value, parameters)
                total += size
                # Not in place: autograd may hand out one tensor for two parameters.
                mean = slopes if mean is None else torch._foreach_lerp(mean, slopes, size / total)
        if mean is None:
            raise ValueError(
                "no batch to score on: pass one (inputs, targets) pair, or an iterable of such pairs; "
                f"not all labels may be {IGNORED}"
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
        with _same_every_time(inputs.device, number):
            return self.model(at_least_float32(inputs))

    def _cross_entropies(self, pairs: Iterable) -> Iterator[tuple[Tensor, float]]:
        """Batches weigh by their labels that are not ignored."""
        for number, (inputs, targets) in enumerate(map(_checked, pairs)):
            outputs = self._outputs(inputs, number)
            if self.temperature != 1 and torch.is_tensor(outputs):
                outputs = outputs / self.temperature
            check_labels(targets, outputs)
            size = len(targets)
            if not targets.is_floating_point():
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
            with _same_every_time(inputs.device, number):
                value = loss(outputs, targets)
            part = Part(outputs, targets, loss)
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
            try:
                with _same_every_time(device, number):
                    result = closure(self.model, batch)
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                raise ValueError(
                    f"the closure failed on the model in evaluation mode ({type(error).__name__}: {error}); "
                    "a model that gives its losses in training mode only, as detectors do, needs "
                    "model.train() in the closure (dropout stays off, and the modes are put back)"
                ) from error
            pair = isinstance(result, tuple) and len(result) == 2
            yield result if pair else (result, 1)


class Part:
    """Outputs and targets of one batch under a loss, to compare with other batches."""

    def __init__(self, outputs: Any, targets: Tensor, loss: Loss):
        self.outputs = _pytree.tree_map_only(Tensor, Tensor.detach, outputs)
        self.targets, self.loss = targets, loss

    def joined(self, other: "Part") -> "Part":
        """Both batches as one."""
        outputs = _pytree.tree_map(_join, self.outputs, other.outputs)
        return Part(outputs, torch.cat([self.targets, other.targets]), self.loss)

    def slopes(self) -> list[Tensor]:
        """∂L/∂outputs, for each tensor of the outputs that can have a derivative."""
        leaves, structure = _pytree.tree_flatten(self.outputs)
        differentiable = []
        for place, leaf in enumerate(leaves):
            if torch.is_tensor(leaf) and leaf.is_floating_point():
                leaves[place] = leaf.detach().requires_grad_()
                differentiable.append(leaves[place])
        outputs = _pytree.tree_unflatten(leaves, structure)
        with _same_every_time(self.targets.device, 0):
            value = self.loss(outputs, self.targets)
        if not value.requires_grad:
            return [torch.zeros_like(leaf) for leaf in differentiable]
        return list(gradient(value, differentiable))

    def has_slope(self) -> bool:
        return any(bool(slope.any()) for slope in self.slopes())

    def weight_of(self, other: "Part") -> float:
        """How much the other batch weighs in the loss of both joined, where this one weighs 1.

        If L(joined) = a L(this) + b L(other), the slopes of L(joined) are a and b times those of the two,
        whatever a mean is taken over: examples, labels that are not ignored, weights of classes, or nothing.

        Raises:
            ValueError: the slopes are no such multiples.
        """
        try:
            together = self.joined(other).slopes()
            here = [slope[: len(part)] for slope, part in zip(together, self.slopes())]
            there = [slope[len(part) :] for slope, part in zip(together, here)]
            weight = _multiple(there, other.slopes()) / _multiple(here, self.slopes())
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise _no_mean(str(error).splitlines()[0]) from error
        return weight

    def ignores(self, other: "Part") -> bool:
        """Whether the other batch changes nothing in the loss of both joined."""
        joined = self.joined(other)
        value, expected = joined.loss(joined.outputs, joined.targets), self.loss(self.outputs, self.targets)
        return torch.allclose(value, expected, rtol=1e-3)


def _join(first: Any, second: Any) -> Any:
    return torch.cat([first, second]) if torch.is_tensor(first) and first.dim() else first


def _multiple(slopes: list[Tensor], reference: list[Tensor]) -> float:
    """The number that the reference has to be multiplied by. ValueError: there is none."""
    square = sum((part * part).sum().item() for part in reference)
    if not square:
        return 1.0  # a batch without slopes adds nothing, whatever it weighs
    factor = sum((s * part).sum().item() for s, part in zip(slopes, reference)) / square
    rest = sum((s - factor * part).square().sum().item() for s, part in zip(slopes, reference))
    if factor <= 0 or rest > 1e-6 * factor**2 * square:
        raise ValueError("the loss of a batch depends on what else is in the batch")
    return factor


def _no_mean(reason: str) -> ValueError:
    return ValueError(
        "the loss is no mean over the batch: that of two batches joined is no weighted mean of theirs "
        f"({reason}); score on one batch, or say by closure= what the mean is over"
    )


def _check_value(value: Any, weights: Weights) -> None:
    """Raise ValueError or FloatingPointError unless the loss of a batch is a number that can be differentiated."""
    if not torch.is_tensor(value) or value.numel() != 1:
        raise ValueError(
            "the loss of a batch must be one number in a tensor, the mean over its examples"
        )
    if not math.isfinite(value.item()):
        broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
        advice = "standardise the inputs, or use a smaller initialisation"
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
    """In float32 if it was narrower: half-precision scores move a good part of the mask, and losses would be coarse."""
    return tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor


def is_pair(batch: Any) -> bool:
    """Whether a batch is a pair of tensors."""
    return isinstance(batch, (tuple, list)) and len(batch) == 2 and all(map(torch.is_tensor, batch))


def _checked(batch: Any) -> Any:
    fits = is_pair(batch) and all(part.dim() for part in batch)
    if not fits or not 0 < len(batch[0]) == len(batch[1]):
        raise ValueError(
            "a scoring batch is a pair of tensors (inputs, targets) of the same length, with at least one "
            "example; for batches of another kind pass closure="
        )
    return batch


# --- the model as it is scored ------------------------------------------------------------------


class _Detaching(TorchFunctionMode):
    """``copy.deepcopy`` of a tensor with a history, which torch refuses, copies its values."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return function(*args, **(kwargs or {}))


def copied(model: nn.Module) -> nn.Module:
    """A deep copy of a model, which may hold activations of its last pass.

    Raises:
        ValueError: names the attribute that cannot be copied.
    """
    with _Detaching():
        try:
            return copy.deepcopy(model)
        except (TypeError, RuntimeError, copy.Error) as error:
            culprit = _not_copied(model)
            raise ValueError(
                f"the model cannot be copied, which this needs: {culprit} ({error}); set it to None first"
            ) from error


def _not_copied(model: nn.Module) -> str:
    """The attribute of a model that ``copy.deepcopy`` cannot copy."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute == "_modules":
                continue
            try:
                copy.deepcopy(value)
            except Exception:
                return f"attribute {attribute} of {name or 'the model'}, a {type(value).__name__}"
    return type(model).__name__


@contextlib.contextmanager
def evaluating(model: nn.Module, batch_norm: str) -> Iterator[None]:
    """Set modes for scoring; put modes, buffers and gradients back after it.

    Normalisation layers keep the mode that ``batch_norm`` says, even if a closure calls ``model.train()``. Hooks
    on gradients do not run: they would clip or mask what is the derivative of the loss.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    norms = [module for module in modules if is_norm(module)]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    # cuDNN has no backward pass for recurrent layers in evaluation mode; but for dropout the modes are the same.
    recurrent = [(module, module.dropout) for module in modules if isinstance(module, nn.RNNBase)]
    handles: list[RemovableHandle] = []

    def set_mode(module, _inputs=None):
        module.training = batch_norm == "train"

    with _no_gradient_hooks(model):
        try:
            for module in modules:
                module.training = False
            for module in norms:
                set_mode(module)
                handles.append(module.register_forward_pre_hook(set_mode))
            for layer, _ in recurrent:
                layer.training = True
                layer.dropout = 0.0
            for parameter, _ in gradients:
                parameter.grad = None
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module, training in zip(modules, modes):
                module.training = training
            for layer, dropout in recurrent:
                layer.dropout = dropout
            for parameter, stored in gradients:
                parameter.grad = stored
            with torch.no_grad():
                for buffer, content in buffers:
                    buffer.copy_(content)


@contextlib.contextmanager
def _no_gradient_hooks(model: nn.Module) -> Iterator[None]:
    """Without the hooks on parameters and modules that see, and may change, gradients."""
    parameters = [p for p in model.parameters() if p._backward_hooks]
    stored = [parameter._backward_hooks for parameter in parameters]
    places = []
    for module in model.modules():
        for attribute in ("_backward_hooks", "_backward_pre_hooks"):
            if vars(module).get(attribute):
                places.append((module, attribute, vars(module)[attribute]))
    try:
        for parameter in parameters:
            parameter._backward_hooks = None
        for module, attribute, _ in places:
            setattr(module, attribute, OrderedDict())
        yield
    finally:
        for parameter, hooks in zip(parameters, stored):
            parameter._backward_hooks = hooks
        for module, attribute, hooks in places:
            setattr(module, attribute, hooks)


DROPOUTS = {
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
    torch.dropout,
    torch.dropout_,
    torch.alpha_dropout,
    torch.alpha_dropout_,
    torch.feature_dropout,
    torch.feature_dropout_,
    torch.feature_alpha_dropout,
    torch.feature_alpha_dropout_,
}
ATTENTION = inspect.signature(F.multi_head_attention_forward)


class _AsInEvaluation(TorchFunctionMode):
    """Dropout is off however it is called, and tensors of a forward pass get no hooks on their gradients."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in DROPOUTS:
            return args[0] if args else kwargs["input"]
        if function is F.scaled_dot_product_attention:
            args, kwargs = args[:4] + (0.0,) * (len(args) > 4) + args[5:], kwargs
            if "dropout_p" in kwargs:
                kwargs = kwargs | {"dropout_p": 0.0}
        elif function is F.multi_head_attention_forward:
            bound = ATTENTION.bind(*args, **kwargs)
            bound.arguments["dropout_p"] = 0.0
            args, kwargs = bound.args, bound.kwargs
        elif function is Tensor.register_hook:
            return RemovableHandle(OrderedDict())
        return function(*args, **kwargs)


@contextlib.contextmanager
def _same_every_time(device: torch.device, seed: int) -> Iterator[None]:
    """Without dropout; a model that draws other noise draws the same in every call, and nobody else notices."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []), _AsInEvaluation():
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _no_tf32():
    """On a GPU, convolutions are in TF32 by default, which has 10 bits: too few for a ranking."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(
        cudnn.enabled,
        cudnn.benchmark,
        cudnn.benchmark_limit,
        cudnn.deterministic,
        allow_tf32=False,
    )
