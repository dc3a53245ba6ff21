"""Masked training: one loop, for a single network and for a stack of networks."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from snipkit.data import Dataset, Images, augment
from snipkit.masking import apply_, matched
from snipkit.recipe import Recipe, augmentation_generator, batches, learning_rate, optimiser_of
from snipkit.scoring import at_least_float32, check_labels

TESTS = 5  # evaluations on the test set in a training; the authors' code keeps five checkpoints
LOG_EVERY = 100  # steps a point of the training curves, in long trainings
COMPILED_ON = ("cuda",)  # device types; compiling gains little on a CPU
COMPILED_FROM = 5000  # steps; in a shorter training, compiling takes longer than it saves


class DivergedError(FloatingPointError):
    """The training or test loss stopped being a finite number."""


class Evaluation(NamedTuple):
    """Error in percent and mean cross-entropy in nats."""

    error: float
    loss: float


@dataclass(frozen=True)
class Outcome:
    """The result of a training.

    Attributes:
        test_error: percent, of the final weights. This is the result.
        best_of_last_five: percent, the lowest of the five evaluations. The authors' code reports it. It selects on the
            test set, so it is never the result.
        test_loss: mean cross-entropy in nats, of the final weights.
        train_loss: mini-batch loss without the L2 penalty in nats, the mean of each ``log_interval`` steps.
        train_error: mini-batch error in percent, the mean of the same steps. Both are of the augmented images, with the
            weights before the step.
    """

    test_error: float
    best_of_last_five: float
    test_loss: float
    train_loss: list[float]
    train_error: list[float]


class Curves(NamedTuple):
    """The ``Outcome`` of one network so far; ``tests`` are its evaluations."""

    train_loss: list[float]
    train_error: list[float]
    tests: list[Evaluation]

    def outcome(self) -> Outcome:
        best = min(test.error for test in self.tests)
        return Outcome(self.tests[-1].error, best, self.tests[-1].loss, self.train_loss, self.train_error)


class State(NamedTuple):
    """All that changes during a training. Order of the examples and learning rate follow from the recipe and the step.

    Attributes:
        identity: with the first ``tensors``, this tells trainings apart: recipe, seeds, torch, masks, data.
        tensors: parameters, buffers and running sums of one network or of a stack, changed in place.
    """

    identity: list[Any]
    tensors: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    generators: list[torch.Generator]
    curves: list[Curves]
    diverged: dict[int, DivergedError]


class Checkpoint(Protocol):
    """Lets a training stop and resume. ``study.checkpoints.Checkpoint`` keeps the state in a file."""

    def restore(self, state: State) -> int:
        """Set the state to the one kept, if there is one, in place. Return the number of steps done."""

    def after(self, step: int) -> None:
        """Called after every step but the last. It may keep the state; it may raise to stop the training."""

    def done(self) -> None:
        """Called when there is a result: the state is not needed any more."""


def train(
    model: nn.Module, masks: dict[str, Tensor], data: Dataset, recipe: Recipe, *,
    seed: int = 0, checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Train ``model`` in place with fixed ``masks``, and leave it in evaluation mode.

    The weights are masked once, and the gradients at each step. A weight of 0 with gradient 0 has no momentum and no
    decay, so it stays exactly 0 (law 6).

    On a GPU, small networks are launch-bound: starting the kernels takes longer than running them. Therefore a training
    of ``COMPILED_FROM`` steps or more uses ``torch.compile`` with CUDA graphs. ``TORCH_COMPILE_DISABLE=1`` prevents it.
    An ``LSTM`` of ``models.recurrent`` trains by torch's own layer instead; its tests keep the loop over rows.

    Args:
        model: any ``nn.Module`` on the device of ``data``.
        masks: name → bool tensor for all or some parameters; ``{}`` trains the dense network.
        data: ``data.train`` is trained on. ``data.test`` is evaluated five times: after the last step, and 1 to 4
            intervals before it, of 1,000 steps (a tenth of a shorter training). ``data.val`` is not used.
        recipe: a ``Recipe``.
        seed: of the order of the examples and of the augmentation.
        checkpoint: see ``Checkpoint``. A resumed training gives the same numbers; on a CPU, to the bit.

    Raises:
        ValueError: masks that do not fit, labels out of range, a batch larger than the training set, no test images.
        DivergedError: a loss that is not finite. The message has the step, and what to change.

    Source: SNIP Algorithm 1, lines 6 and 7, and section 5.
    """
    with training_kernels(model):
        (result,) = fit(Alone(model, masks, data, recipe), recipe, [seed], checkpoint)
    if isinstance(result, DivergedError):
        raise result
    return result


@contextlib.contextmanager
def training_kernels(model: nn.Module) -> Iterator[None]:
    """Let modules that have another kernel for training (``models.recurrent.LSTM``) use it for a while."""
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "training_kernel")]
    kernels = [module.kernel for module in modules]
    for module in modules:
        module.kernel = module.training_kernel
    try:
        yield
    finally:
        for module, kernel in zip(modules, kernels):
            module.kernel = kernel


class Alone:
    """One network, as ``fit`` trains it. ``study.stacking.Stack`` has the same methods for S networks.

    Attributes:
        template: a module; its layers decide which parameters have weight decay.
        parameters: name → tensor to optimise.
        tensors: ``parameters`` and buffers.
        masked: pairs of a parameter and its mask, as for ``mask_gradients``.
        data: a ``Dataset`` for each network, all with equally many training images.
    """

    def __init__(self, model, masks, data, recipe):
        apply_(model, masks)
        self.template, self.data = model, [data]
        self.parameters = dict(model.named_parameters())
        self.tensors = self.parameters | dict(model.named_buffers())
        # Multiplying a list of tensors is one launch only if masks have the type and the memory layout of the weights.
        self.masked = [(p, torch.empty_like(p, requires_grad=False).copy_(mask)) for p, mask in matched(model, masks)]
        compiled = data.train.labels.device.type in COMPILED_ON and recipe.steps >= COMPILED_FROM
        fused = any(getattr(module, "kernel", None) == "fused" for module in model.modules())
        self.forward = _compiled(model) if compiled and not fused else model  # compiling would unroll a fused layer

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (S, B, C, H, W) and labels (S·B,), network after network, from indices (S, B)."""
        inputs, labels = self.data[0].train[index[0]]
        return inputs[None], labels

    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs (S·B, classes) from inputs (S, B, C, H, W)."""
        return self.forward(inputs[0])

    def train(self) -> None:
        """Switch to training mode."""
        self.template.train()

    def evaluate(self) -> list[Evaluation]:
        """Evaluate each network on its test set."""
        return [evaluate(self.template, self.data[0].test)]

    def finish(self) -> None:
        """Leave the trained weights in the modules, in evaluation mode."""
        self.template.eval()
        self.template.zero_grad()  # the gradients may lie in a CUDA graph's memory


def _compiled(model):
    """The same model with fewer kernel launches. Without a C compiler torch warns, and the model runs uncompiled."""
    torch.compiler.reset()  # frees the CUDA graphs of the network trained before
    compiled = torch.compile(model, mode="reduce-overhead")

    def forward(inputs):
        with torch._dynamo.config.patch(suppress_errors=True):
            return compiled(inputs)

    return forward


def fit(networks: Alone, recipe: Recipe, seeds: Sequence[int], checkpoint: Checkpoint | None) -> list:
    """The training loop of ``train`` and of ``study.stacking.train_stack``, for S = len(seeds) networks.

    It returns for each network what ``train`` returns, or the ``DivergedError`` that it raises.
    """
    images = networks.data[0].train
    if recipe.batch_size > len(images):
        raise ValueError(f"the batch size is {recipe.batch_size}, but there are only {len(images)} training images")
    if not all(len(dataset.test) for dataset in networks.data):  # now, not at the first evaluation
        raise ValueError("there are no images to evaluate on")
    device, count = images.labels.device, len(seeds)
    optimiser = optimiser_of(networks.template, recipe, networks.parameters)
    generators = [augmentation_generator(seed) for seed in seeds]
    curves, diverged = [Curves([], [], []) for _ in seeds], dict[int, DivergedError]()
    losses_so_far, errors_so_far = sums = torch.zeros(2, count, device=device)  # since the last point of the curves
    identity = [recipe, list(seeds), torch.__version__, *(mask for _, mask in networks.masked), *_traits(networks.data)]
    state = State(identity, networks.tensors | {"sums": sums}, optimiser, generators, curves, diverged)
    done = checkpoint.restore(state) if checkpoint else 0
    log_every, tests = log_interval(recipe.steps), _test_steps(recipe.steps)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
    networks.train()
    for step, index in enumerate(islice(batches(len(images), recipe, seeds, device), done, None), start=done + 1):
        inputs, labels = networks.batch(index)
        if recipe.augment != "none":
            views = [augment(view, recipe.augment, generator) for view, generator in zip(inputs, generators)]
            inputs = torch.stack(views) if count > 1 else views[0][None]  # stacking one would copy it
        optimiser.zero_grad()  # before the forward pass: the next CUDA graph writes to the memory of the gradients
        with autocast:
            outputs = networks(inputs)
        outputs = at_least_float32(outputs)
        if step == done + 1:
            for dataset in networks.data:
                check_labels(dataset.train.labels, outputs)
                check_labels(dataset.test.labels, outputs)
        losses = cross_entropy(outputs, labels, reduction="none")
        (losses.sum() / recipe.batch_size).backward()  # the sum over the networks of each one's mean
        mask_gradients(networks.masked)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe)
        optimiser.step()
        losses_so_far += losses.detach().view(count, -1).mean(1)
        errors_so_far += (outputs.argmax(1) != labels).view(count, -1).sum(1)
        if step % log_every == 0 or step == recipe.steps:  # reading a loss makes a GPU wait: once an interval
            logged = (step - 1) % log_every + 1
            for curve, loss, errors in zip(curves, *sums.tolist()):
                curve.train_loss.append(loss / logged)
                curve.train_error.append(100 * errors / (logged * recipe.batch_size))
            _note_diverged(diverged, "training", [curve.train_loss[-1] for curve in curves], step, recipe)
            sums.zero_()
        if step in tests:
            with autocast:
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
    """The steps that a point of the training curves is the mean of: at most ``LOG_EVERY``, fewer for 30 points."""
    return max(1, min(LOG_EVERY, steps // 30))


def _traits(data):
    """What tells data sets and splits apart: their labels, and their first images as a network sees them."""
    splits = [split for dataset in data for split in (dataset.train, dataset.test)]
    return [part for split in splits for part in (split.labels, split[:100][0])]


def mask_gradients(masked: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Set the gradients of pruned entries to 0, in place. Call it between ``backward`` and the optimiser's step.

    Args:
        masked: pairs of a parameter and its mask, as numbers of its type. Parameters without a gradient are skipped.
    """
    reached = [(parameter.grad, mask) for parameter, mask in masked if parameter.grad is not None]
    if reached:
        torch._foreach_mul_([gradient for gradient, _ in reached], [mask for _, mask in reached])


@torch.no_grad()
def evaluate(model: nn.Module, images: Images, batch_size: int = 500) -> Evaluation:
    """Error (percent) and mean cross-entropy (nats) of ``model`` on ``images``. The model is left in evaluation mode.

    Raises:
        ValueError: no images, or labels that do not fit the number of outputs.
    """
    model.eval()
    (result,) = evaluate_all(model, images, batch_size)
    return result


def evaluate_all(forward: Callable[[Tensor], Tensor], images: Images, batch_size: int) -> list[Evaluation]:
    """``evaluate`` for S networks, where ``forward`` gives outputs (S·B, classes) from inputs (B, C, H, W)."""
    if not len(images):
        raise ValueError("there are no images to evaluate on")
    errors = loss = torch.zeros(1, device=images.labels.device)
    for start in range(0, len(images), batch_size):
        inputs, labels = images[start : start + batch_size]
        outputs = at_least_float32(forward(inputs))
        check_labels(labels, outputs)
        size, labels = len(labels), labels.repeat(len(outputs) // len(labels))
        errors = errors + (outputs.argmax(1) != labels).view(-1, size).sum(1)
        loss = loss + cross_entropy(outputs, labels, reduction="none").view(-1, size).sum(1)
    return [Evaluation(100 * e / len(images), total / len(images)) for e, total in zip(errors.tolist(), loss.tolist())]


def _note_diverged(diverged, what, losses, step, recipe):
    """Keep the first error of each network whose loss is not finite."""
    for number, loss in enumerate(losses):
        if not math.isfinite(loss):
            where = f"{step} of {recipe.steps} (lr {recipe.lr}, momentum {recipe.momentum})"
            advice = "use a lower learning rate, no momentum, or another initialisation"
            diverged.setdefault(number, DivergedError(f"the {what} loss is {loss} by step {where}: {advice}"))


def _test_steps(steps) -> range:
    """The steps after which the network is tested."""
    interval = max(1, min(1000, steps // 10))
    return range(steps - (TESTS - 1) * interval, steps + 1, interval)
