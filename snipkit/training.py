"""Masked training: one loop for a single network and for a stack of networks; a recipe is a value."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snipkit.data import Dataset, Images, augment
from snipkit.masking import apply_, matched
from snipkit.recipe import Recipe, augmentation_generator, batches, optimiser_of
from snipkit.saliency import at_least_float32, check_labels

TESTS = 5  # evaluations on the test set in a training; the authors' code kept as many checkpoints
LOG_EVERY = 100  # steps that a point of the training curves averages over; fewer in short runs (``log_interval``)
COMPILED_ON = ("cuda",)  # device types; on a CPU compiling gains little
COMPILED_FROM = 5000  # steps; below, compiling takes longer than it saves


class DivergedError(FloatingPointError):
    """The training or test loss stopped being a finite number."""


class Evaluation(NamedTuple):
    """Error in percent and mean cross-entropy in nats."""

    error: float
    loss: float


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        test_error: percent, of the final weights: the result.
        best_of_last_five: percent, the lowest of the last five evaluations. The authors' code reports this; it selects
            on the test set, so it only stands beside the result.
        test_loss: mean cross-entropy in nats, of the final weights.
        train_loss: mean over each ``log_interval`` steps of the mini-batch loss, nats, without the L2 penalty.
        train_error: the same of the mini-batch error, percent. Both are taken before each step, on augmented images.
    """

    test_error: float
    best_of_last_five: float
    test_loss: float
    train_loss: list[float]
    train_error: list[float]


class Curves(NamedTuple):
    """What one network has reported so far: see ``Outcome``; ``tests`` are its evaluations."""

    train_loss: list[float]
    train_error: list[float]
    tests: list[Evaluation]

    def outcome(self) -> Outcome:
        best = min(test.error for test in self.tests)
        return Outcome(self.tests[-1].error, best, self.tests[-1].loss, self.train_loss, self.train_error)


class State(NamedTuple):
    """All that changes during a training. The order of the examples follows from the seeds and the step.

    Attributes:
        identity: what, beside the first ``tensors``, makes a training this one: recipe, seeds, torch, masks, labels.
        tensors: parameters, buffers and running sums, of one network or of a stack, changed in place.
    """

    identity: list[Any]
    tensors: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    generators: list[torch.Generator]
    curves: list[Curves]
    diverged: dict[int, DivergedError]


class Checkpoint(Protocol):
    """Lets a training stop and carry on; ``study.checkpoints.Checkpoint`` keeps the state in a file."""

    def restore(self, state: State) -> int:
        """Bring the state to that of an earlier call, if there was one; return the number of steps done."""

    def after(self, step: int) -> None:
        """Called after every step but the last: may save the state, may raise to stop the training."""

    def done(self) -> None:
        """Called when there is a result."""


def train(
    model: nn.Module,
    masks: dict[str, Tensor],
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Train ``model`` in place with ``masks`` held fixed; leaves it in evaluation mode.

    The weights are multiplied by their masks once. From then on only the gradients are: a weight that is 0 with gradient
    0 has no momentum and no decay, so it stays exactly 0 (law 6).

    On a GPU a training of ``COMPILED_FROM`` steps or more goes through ``torch.compile`` with CUDA graphs, because it is
    launch-bound at the paper's batch sizes. ``TORCH_COMPILE_DISABLE=1`` turns that off.

    Args:
        model: any ``nn.Module`` on the device of ``data``.
        masks: name → bool tensor for all or some parameters; ``{}`` trains the dense network.
        data: ``data.train`` is trained on; ``data.test`` is evaluated at the last five of every 1,000 steps (of every
            tenth of a shorter run). ``data.val`` is not used.
        recipe: a ``Recipe``.
        seed: of the order of the examples and of the augmentation.
        checkpoint: see ``Checkpoint``. The training carries on to the same numbers: on one CPU to the last bit.

    Raises:
        ValueError: masks that do not fit, labels out of range, a batch larger than the training set.
        DivergedError: a loss that is not finite; says at which step and what to change.

    Source: SNIP Algorithm 1, lines 6 and 7, and section 5.
    """
    (result,) = fit(_Alone(model, masks, data, recipe), recipe, [seed], checkpoint)
    if isinstance(result, DivergedError):
        raise result
    return result


class _Alone:
    """One network, as ``Networks``."""

    def __init__(self, model, masks, data, recipe):
        apply_(model, masks)
        self.template, self.data = model, [data]
        self.parameters = dict(model.named_parameters())
        self.tensors = self.parameters | dict(model.named_buffers())
        self.masked = [(p, mask.to(p)) for p, mask in matched(model, masks)]  # in the weights' own layout and type
        device = data.train.labels.device
        self.forward = _compiled(model) if device.type in COMPILED_ON and recipe.steps >= COMPILED_FROM else model

    def batch(self, index):
        inputs, labels = self.data[0].train[index[0]]
        return inputs, labels[None]

    def __call__(self, inputs):
        return self.forward(inputs)[None]

    def train(self):
        self.template.train()

    def evaluate(self):
        return [evaluate(self.template, self.data[0].test)]

    def finish(self):
        self.template.eval()
        self.template.zero_grad()  # the gradients may lie in a CUDA graph's memory


def _compiled(model):
    """The same model with fewer launches. Without a C compiler torch warns, and it runs uncompiled."""
    torch.compiler.reset()  # a process trains many networks; their CUDA graphs would add up
    compiled = torch.compile(model, mode="reduce-overhead")

    def forward(inputs):
        with torch._dynamo.config.patch(suppress_errors=True):
            return compiled(inputs)

    return forward


class Networks(Protocol):
    """S networks that train together: ``_Alone`` for S = 1, ``stacking.Stack`` for more.

    Attributes:
        template: a module whose layers tell which parameters are decayed.
        parameters: name → tensor, to be optimised.
        tensors: ``parameters`` and buffers.
        masked: pairs of a parameter and its mask, as numbers.
        data: a ``Dataset`` for each network.
    """

    template: nn.Module
    parameters: dict[str, Tensor]
    tensors: dict[str, Tensor]
    masked: list[tuple[Tensor, Tensor]]
    data: Sequence[Dataset]

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (S, B, C, H, W), or (B, C, H, W) if S = 1, and labels (S, B), from indices (S, B)."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs (S, B, classes) in training mode."""

    def train(self) -> None:
        """Switch to training mode."""

    def evaluate(self) -> list[Evaluation]:
        """Evaluate each network on its test set."""

    def finish(self) -> None:
        """Leave the trained weights in the modules, in evaluation mode."""


def fit(
    networks: Networks, recipe: Recipe, seeds: Sequence[int], checkpoint: Checkpoint | None
) -> list[Outcome | DivergedError]:
    """The training loop, shared by ``train`` and ``stacking.train_stack``, for S = len(seeds) networks."""
    images = networks.data[0].train
    if recipe.batch_size > len(images):
        raise ValueError(f"the batch size is {recipe.batch_size}, but there are only {len(images)} training images")
    device, count = images.labels.device, len(seeds)
    optimiser, scheduler = optimiser_of(networks.template, recipe, networks.parameters)
    generators = [augmentation_generator(seed) for seed in seeds]
    curves, diverged = [Curves([], [], []) for _ in seeds], {}
    losses_so_far, errors_so_far = torch.zeros(count, device=device), torch.zeros(count, device=device)
    log_every, tests = log_interval(recipe.steps), _test_steps(recipe.steps)
    sums = {"losses so far": losses_so_far, "errors so far": errors_so_far}
    labels = [split.labels for dataset in networks.data for split in (dataset.train, dataset.test)]
    identity = [recipe, list(seeds), torch.__version__, *(mask for _, mask in networks.masked), *labels]
    state = State(identity, networks.tensors | sums, optimiser, scheduler, generators, curves, diverged)
    done = checkpoint.restore(state) if checkpoint else 0
    networks.train()
    for step, index in enumerate(islice(batches(len(images), recipe, seeds, device), done, None), start=done + 1):
        inputs, labels = networks.batch(index)
        if recipe.augment != "none":
            views = inputs if len(seeds) > 1 else inputs[None]
            views = [augment(view, recipe.augment, generator) for view, generator in zip(views, generators)]
            inputs = torch.stack(views) if len(seeds) > 1 else views[0]
        optimiser.zero_grad()  # before the forward pass: the next CUDA graph writes to the memory of the gradients
        with _autocast(recipe, device):
            outputs = at_least_float32(networks(inputs))  # (S, B, classes)
        if step == done + 1:
            for dataset, output in zip(networks.data, outputs):
                check_labels(dataset.train.labels, output)
        losses = _cross_entropies(outputs, labels).mean(1)
        losses.sum().backward()
        mask_gradients(networks.masked)
        optimiser.step()
        scheduler.step()
        losses_so_far += losses.detach()
        errors_so_far += (outputs.detach().argmax(2) != labels).sum(1)
        if step % log_every == 0 or step == recipe.steps:  # reading a loss makes a GPU wait: once an interval
            logged = (step - 1) % log_every + 1
            for curve, loss, errors in zip(curves, losses_so_far.tolist(), errors_so_far.tolist()):
                curve.train_loss.append(loss / logged)
                curve.train_error.append(100 * errors / (logged * recipe.batch_size))
            _note_diverged(diverged, "training", [curve.train_loss[-1] for curve in curves], step, recipe)
            losses_so_far.zero_()
            errors_so_far.zero_()
        if step in tests:
            with _autocast(recipe, device):
                evaluations = networks.evaluate()
            for curve, evaluation in zip(curves, evaluations):
                curve.tests.append(evaluation)
            _note_diverged(diverged, "test", [evaluation.loss for evaluation in evaluations], step, recipe)
            networks.train()
        if len(diverged) == count:
            break
        if checkpoint and step < recipe.steps:
            checkpoint.after(step)
    networks.finish()
    if checkpoint:
        checkpoint.done()
    return [diverged.get(number) or curve.outcome() for number, curve in enumerate(curves)]


def log_interval(steps: int) -> int:
    """Steps that a point of the training curves averages over: at least 30 points, of at most ``LOG_EVERY`` steps."""
    return max(1, min(LOG_EVERY, steps // 30))


def mask_gradients(masked: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Set the gradients of pruned entries to 0, in place: call it between ``backward`` and the optimiser's step.

    Args:
        masked: pairs of a parameter and its mask, as numbers of the parameter's type. Parameters without a gradient are
            passed over.
    """
    reached = [(parameter.grad, mask) for parameter, mask in masked if parameter.grad is not None]
    if reached:
        torch._foreach_mul_([gradient for gradient, _ in reached], [mask for _, mask in reached])


@torch.no_grad()
def evaluate(model: nn.Module, images: Images, batch_size: int = 500) -> Evaluation:
    """Error (percent) and mean cross-entropy (nats) of ``model`` on images; leaves the model in evaluation mode.

    Raises:
        ValueError: no images, or labels that do not fit the number of outputs.
    """
    model.eval()
    (result,) = evaluate_all(lambda inputs: model(inputs)[None], images, batch_size)
    return result


def evaluate_all(forward: Callable[[Tensor], Tensor], images: Images, batch_size: int) -> list[Evaluation]:
    """The evaluation of each of S networks, where ``forward`` gives outputs (S, B, classes).

    Raises:
        ValueError: as ``evaluate``.
    """
    if not len(images):
        raise ValueError("there are no images to evaluate on")
    errors = loss = torch.zeros(1, device=images.labels.device)
    for start in range(0, len(images), batch_size):
        inputs, labels = images[start : start + batch_size]
        outputs = at_least_float32(forward(inputs))
        check_labels(labels, outputs[0])
        errors = errors + (outputs.argmax(2) != labels).sum(1)
        loss = loss + _cross_entropies(outputs, labels.expand(len(outputs), -1)).sum(1)
    return [Evaluation(100 * e / len(images), total / len(images)) for e, total in zip(errors.tolist(), loss.tolist())]


def _cross_entropies(outputs, labels):
    """The cross-entropy of each example, (S, B), from outputs (S, B, classes) and labels (S, B)."""
    return cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


def _autocast(recipe, device):
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=recipe.precision == "bfloat16")


def _note_diverged(diverged, what, losses, step, recipe) -> None:
    """Keep the first error of each network whose loss is not finite."""
    for number, loss in enumerate(losses):
        if not math.isfinite(loss):
            diverged.setdefault(number, DivergedError(
                f"the {what} loss is {loss} by step {step} of {recipe.steps} (lr {recipe.lr}, momentum {recipe.momentum}): "
                "use a lower learning rate, no momentum, or another initialisation"
            ))


def _test_steps(steps) -> range:
    """The steps after which the network is tested."""
    interval = max(1, min(1000, steps // 10))
    return range(steps - (TESTS - 1) * interval, steps + 1, interval)
