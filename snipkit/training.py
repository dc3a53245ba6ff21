"""Masked training: a plain loop, exact masks, a recipe that is a value; and the same loop for a stack of networks."""

import contextlib
import hashlib
import math
import os
import time
import warnings
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, stack_module_state
from torch.nn.functional import cross_entropy

from snipkit.data import AUGMENTATIONS, augment
from snipkit.masking import apply_, is_norm, matched
from snipkit.saliency import check_labels, wide

CHECKPOINTS = 5  # as many as the authors' code kept
LOG_EVERY = 100  # steps that a point of the training curves averages over; less in short runs (``log_interval``)

CHECKPOINT_SECONDS = 120  # between two writings of the state of a training that is to be resumable

COMPILED_ON = ("cuda",)  # types of device; on a CPU it would gain little
COMPILED_FROM = 5000  # steps: below, compiling takes longer than it saves

OPTIMISERS = ("sgd", "adam")
SCHEDULES = ("constant", "step", "onecycle")
PRECISIONS = ("float32", "bfloat16")


class DivergedError(FloatingPointError):
    """The training or test loss stopped being a finite number."""


class Interrupted(Exception):
    """The deadline of a training passed before its last step; its state is on disk."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, as a value.

    The defaults are the paper's for MNIST: momentum SGD, learning rate 0.1 times 0.1 every 25,000 steps, weight decay
    5e-4, batches of 100 (SNIP, section 5). The paper does not say for how long it trains.

    Attributes:
        steps: number of optimiser steps.
        batch_size: examples a step; the rest of an epoch that does not fill a batch is dropped.
        optimiser: "sgd" or "adam".
        lr: learning rate; with "onecycle" the peak.
        momentum: of SGD.
        weight_decay: L2 penalty in gradient form, on every parameter but those of normalisation layers.
        schedule: "constant", "step" (times ``decay_factor`` every ``decay_every`` steps) or "onecycle" (cosine up over
            the first fifth, cosine down over the rest; for short budgets).
        augment: a name in ``data.AUGMENTATIONS``, for the training images.
        precision: "float32", or "bfloat16": the network computes in bfloat16 where autocast thinks it safe, in training and
            in the tests of it. Weights, loss and optimiser stay float32, and so do the scores.

    Raises:
        ValueError: an unknown optimiser, schedule or precision, or a number out of range.
    """

    steps: int
    batch_size: int = 100
    optimiser: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "step"
    decay_every: int = 25_000
    decay_factor: float = 0.1
    augment: str = "none"
    precision: str = "float32"

    def __post_init__(self):
        for part in fields(self):
            if part.type is float:  # so that 0 and 0.0 are the same recipe
                object.__setattr__(self, part.name, float(getattr(self, part.name)))
        for value, known, what in (
            (self.optimiser, OPTIMISERS, "optimiser"),
            (self.schedule, SCHEDULES, "schedule"),
            (self.augment, AUGMENTATIONS, "augmentation"),
            (self.precision, PRECISIONS, "precision"),
        ):
            if value not in known:
                raise ValueError(f"unknown {what} {value!r}; known: {', '.join(known)}")
        for name in ("steps", "batch_size", "lr", "decay_every", "decay_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        if not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ValueError("momentum must be in [0, 1) and weight_decay not negative")


#: The protocols, by name. The paper gives no number of steps for MNIST, Tiny-ImageNet or table 3: MNIST runs until the fourth
#: decay would come, Tiny-ImageNet is trained as CIFAR-10 is, table 3 for 30,000 steps. "repository" is the command line in the
#: authors' repository (decays of a fifth, half-strength augmentation). "short" is ours: 30 epochs of CIFAR-10 in batches of 128.
#: The CIFAR protocols compute in bfloat16: their networks are bound by arithmetic, which is several times quicker that way.
RECIPES = {
    "paper-mnist": Recipe(steps=100_000),
    "paper-mnist-plain-sgd": Recipe(steps=100_000, momentum=0.0),
    "paper-cifar": Recipe(steps=150_000, batch_size=128, decay_every=30_000, augment="flip-shift", precision="bfloat16"),
    "repository-cifar": Recipe(
        steps=150_000, batch_size=128, decay_every=30_000, decay_factor=0.2, augment="half-flip-shift", precision="bfloat16"
    ),
    "paper-table-3": Recipe(steps=30_000, optimiser="adam", lr=0.001, weight_decay=0.0, schedule="constant"),
    "short-cifar": Recipe(steps=10_500, batch_size=128, schedule="onecycle", augment="flip-shift", precision="bfloat16"),
}


class Evaluation(NamedTuple):
    """Error in percent and mean cross-entropy in nats."""

    error: float
    loss: float


@dataclass(frozen=True)
class Outcome:
    """What a training run came to.

    Attributes:
        test_error: percent, of the final weights: the result.
        best_of_last_five: percent, the lowest among the last five checkpoints. The authors' code reports this; it
            picks on the test set, so it stands only beside the result.
        test_loss: mean cross-entropy in nats, of the final weights.
        train_loss: mean over each ``log_interval`` steps of the loss on the mini-batches, nats, without the L2 penalty.
        train_error: the same of the error on the mini-batches, percent. Both are taken before each step, in training
            mode and on augmented images.
    """

    test_error: float
    best_of_last_five: float
    test_loss: float
    train_loss: list[float]
    train_error: list[float]


class Curves(NamedTuple):
    """What a training has reported so far: see ``Outcome``; ``tests`` are the evaluations at its checkpoints."""

    train_loss: list[float]
    train_error: list[float]
    tests: list[Evaluation]

    def outcome(self) -> Outcome:
        return Outcome(
            self.tests[-1].error, min(test.error for test in self.tests), self.tests[-1].loss, self.train_loss, self.train_error
        )


def train(model, masks, data, recipe, *, seed=0, checkpoint=None, deadline=None) -> Outcome:
    """Train ``model`` in place with ``masks`` held fixed; pruned entries are exactly 0 before and after every step.

    The weights are multiplied by their mask once. From then on only gradients are: a weight that is 0 with gradient
    0 has no momentum and no decay, so it stays 0 (law 6; unlike a gradient hook alone, which lets weight decay and
    momentum revive what was not zero to begin with).

    With a ``checkpoint`` a training that was killed or interrupted carries on where it was, if called again with the same
    arguments, and comes to the same numbers as one that was not: on one CPU to the last bit, on a GPU but for rounding (a
    network that draws from torch's global generator, as dropout does, is not followed). The file is removed when there is a
    result.

    On a GPU a training of ``COMPILED_FROM`` steps or more goes through ``torch.compile`` with CUDA graphs, since at the
    paper's batch sizes launching the kernels of a network one by one takes longer than they do. It changes the rounding.
    ``TORCH_COMPILE_DISABLE=1`` in the environment turns it off. (Each such training resets what torch has compiled before in
    this process, and makes failures of compiling warnings.)

    Args:
        model: any ``nn.Module`` on the device of ``data``.
        masks: name → bool tensor for all or some parameters; ``{}`` trains the dense network.
        data: a ``data.Dataset``; ``data.train`` is trained on, ``data.test`` evaluated at the last five checkpoints
            (every 1,000 steps, or every tenth of a shorter run). ``data.val`` is not touched.
        recipe: a ``Recipe``.
        seed: seeds the order of the examples and the augmentation.
        checkpoint: a file to keep the state of the training in; written every ``CHECKPOINT_SECONDS``.
        deadline: seconds since the epoch (``time.time()``) after which to stop; looked at every ``log_interval`` steps.

    Raises:
        ValueError: masks that do not fit, labels out of range, a batch larger than the training set, a deadline without
            a checkpoint.
        DivergedError: a non-finite loss; says at which step and what to change.
        Interrupted: the deadline has passed; ``checkpoint`` has the state.

    Warns:
        UserWarning: ``checkpoint`` is damaged, or of another training; training starts from the beginning. Or it cannot be
            written; training goes on.

    Source: SNIP Algorithm 1, lines 6 and 7, and section 5.
    """
    images = data.train
    _check_batch_size(recipe, images)
    apply_(model, masks)
    masked = [(p, mask.to(p)) for p, mask in matched(model, masks)]  # in the weights' own layout and type
    optimiser, scheduler = _optimiser(model, recipe)
    draws = _augmentation_generator(seed)
    curves, running, wrong = Curves([], [], []), 0.0, 0
    log_every, tests = log_interval(recipe.steps), _checkpoints(recipe.steps)
    order = _order(len(images), recipe, seed, images.labels.device)
    state = _State(dict(_tensors(model)), optimiser, scheduler, [draws], [curves], {})
    beginning = checkpoint and _fingerprint([model], [masks], [data], recipe, [seed])
    network = _compiled(model, recipe, images.labels.device)  # the same weights; ``evaluate`` has no use for it
    with _resumable(checkpoint, deadline, state, beginning) as (done, keep):
        model.train()
        for step, index in enumerate(islice(order, done, None), start=done + 1):
            inputs, labels = images[index]
            optimiser.zero_grad()  # first, since the gradients lie in memory that the next CUDA graph writes to
            with _autocast(recipe, inputs.device):
                outputs = wide(network(augment(inputs, recipe.augment, draws)))
            if step == 1:
                check_labels(images.labels, outputs)
            loss = cross_entropy(outputs, labels)
            loss.backward()
            mask_gradients(masked)
            optimiser.step()
            scheduler.step()
            running = running + loss.detach()
            wrong = wrong + (outputs.detach().argmax(1) != labels).sum()
            if step % log_every == 0 or step == recipe.steps:
                # Read once an interval: a look at every loss would make a GPU wait for the CPU.
                logged = (step - 1) % log_every + 1
                curves.train_loss.append(float(running) / logged)
                curves.train_error.append(100 * float(wrong) / (logged * recipe.batch_size))
                _check_finite("training", curves.train_loss[-1], step, recipe)
                running, wrong = 0.0, 0
            if step in tests:
                with _autocast(recipe, inputs.device):
                    curves.tests.append(evaluate(model, data.test))
                _check_finite("test", curves.tests[-1].loss, step, recipe)
                model.train()
            if step % log_every == 0 and step < recipe.steps:
                keep(step)
    optimiser.zero_grad()  # they may lie in a CUDA graph's memory
    return curves.outcome()


def log_interval(steps) -> int:
    """Steps a point of the training curves of a run of ``steps``: at least 30 points, of at most ``LOG_EVERY`` steps."""
    return max(1, min(LOG_EVERY, steps // 30))


def mask_gradients(masked) -> None:
    """Set the gradients of pruned entries to 0, in place: call it between ``backward`` and the optimiser's step.

    Args:
        masked: pairs of a parameter and its mask, as numbers of the parameter's type; parameters that the loss does not
            reach have no gradient and are passed over.
    """
    reached = [(parameter.grad, mask) for parameter, mask in masked if parameter.grad is not None]
    if reached:
        torch._foreach_mul_([gradient for gradient, _ in reached], [mask for _, mask in reached])


@torch.no_grad()
def evaluate(model, images, batch_size=500) -> Evaluation:
    """Error (percent) and mean cross-entropy (nats) of ``model`` on a part of a data set; leaves it in evaluation mode.

    Args:
        images: a ``data.Images``, on the model's device.

    Raises:
        ValueError: no images, or labels that do not fit the number of outputs.
    """
    if not len(images):
        raise ValueError("there are no images to evaluate on")
    model.eval()
    wrong = loss = 0.0
    for start in range(0, len(images), batch_size):
        inputs, labels = images[start : start + batch_size]
        outputs = wide(model(inputs))
        check_labels(labels, outputs)
        wrong = wrong + (outputs.argmax(1) != labels).sum()
        loss = loss + cross_entropy(outputs, labels, reduction="sum")
    return Evaluation(100 * float(wrong) / len(images), float(loss) / len(images))


def _autocast(recipe, device):
    """The recipe's precision, for the passes through the network; the optimiser never sees it."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=recipe.precision == "bfloat16")


def _compiled(model, recipe, device):
    """The model, or what does the same with fewer launches where that pays."""
    if device.type not in COMPILED_ON or recipe.steps < COMPILED_FROM:
        return model
    torch.compiler.reset()  # a process trains many networks, and the CUDA graphs of each would stay
    torch._dynamo.config.suppress_errors = True  # where compiling fails (no C compiler, say), a warning, and no compiling
    return torch.compile(model, mode="reduce-overhead")


def _check_finite(what, loss, step, recipe):
    if not math.isfinite(loss):
        raise DivergedError(
            f"the {what} loss is {loss} by step {step} of {recipe.steps} (lr {recipe.lr}, momentum {recipe.momentum}): "
            "use a lower learning rate, no momentum, or another initialisation"
        )


def _check_batch_size(recipe, images):
    if recipe.batch_size > len(images):
        raise ValueError(f"the batch size is {recipe.batch_size}, but there are only {len(images)} training images")


def _checkpoints(steps):
    """The steps after which the network is tested."""
    interval = max(1, min(1000, steps // 10))
    return range(steps - (CHECKPOINTS - 1) * interval, steps + 1, interval)


def _augmentation_generator(seed):
    """The augmentation's own stream: no seed's is the order of the examples of another seed."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))


def _order(size, recipe, seed, device="cpu"):
    """The indices of each step's batch, (batch size,)."""
    return (index[0] for index in _orders(size, recipe, [seed], device))


def _orders(size, recipe, seeds, device):
    """The indices of each step's batches, (seeds, batch size): a fresh permutation an epoch and seed.

    They are drawn on the CPU (the same on every device) and moved an epoch at a time: a copy a step would stop a GPU.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    per_epoch = size // recipe.batch_size
    for step in range(recipe.steps):
        if step % per_epoch == 0:
            epoch = torch.stack([torch.randperm(size, generator=generator) for generator in generators]).to(device)
        start = step % per_epoch * recipe.batch_size
        yield epoch[:, start : start + recipe.batch_size]


def _optimiser(model, recipe, stacked=None):
    """The optimiser and its schedule; parameters of norm layers are not decayed (as in the authors' code).

    With ``stacked``, name → tensor, it is those that are optimised, each as the model's parameter of the same name is.
    """
    norms = {id(p) for module in model.modules() if is_norm(module) for p in module.parameters(recurse=False)}
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        (others if id(parameter) in norms else decayed).append(parameter if stacked is None else stacked[name])
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if recipe.optimiser == "adam":
        optimiser = torch.optim.Adam(groups, lr=recipe.lr, fused=True)
    else:
        optimiser = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, fused=True)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe))


def _rate(step, recipe):
    """The learning rate of a step (counted from 0) as a multiple of ``recipe.lr``."""
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "step":
        return recipe.decay_factor ** (step // recipe.decay_every)
    warmup = 0.2 * recipe.steps
    if step < warmup:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * step / warmup)) / 2
    return (1 + math.cos(math.pi * (step - warmup) / (recipe.steps - warmup))) / 2


# --- stacks of networks ---------------------------------------------------------------------------------------------

UNSTACKABLE = (nn.RNNBase, nn.RNNCellBase, nn.modules.dropout._DropoutNd)  # no batching rule, or draws that nothing repeats
STACK_TEST_BATCH = 200  # images that all networks of a stack are tested on at a time


def train_stack(models, masks, data, recipe, *, seeds, checkpoint=None, deadline=None) -> list[Outcome | DivergedError]:
    """Train networks of one architecture by one recipe all at once, each as ``train`` would alone (law 7).

    Small networks leave a GPU idle between the launches of its kernels, and a stack has no more of those than one network.
    Their weights are stacked along a new first dimension (S networks), and ``vmap`` puts the forward pass through it. Losses,
    and with them gradients, stay apart, and momentum SGD and Adam go entry by entry, so nothing else changes.

    Args:
        models: S modules of the same architecture and switches, trained in place; the forward pass is the first one's.
        masks: S mask sets as for ``train``, not necessarily of the same parameters.
        data: S ``data.Dataset``s with equally many training images of the same standardisation. Pixels that are the same
            tensor are held in memory once, and networks with the same test set are tested together.
        recipe: a ``Recipe``.
        seeds: S seeds.
        checkpoint, deadline: as for ``train``; the state is that of the whole stack.

    Returns:
        For each network what ``train`` returns, or the ``DivergedError`` it raises: the others go on.

    Raises:
        ValueError: as ``train``; lists of different lengths; models, or data sets, that do not go together; a layer that
            cannot be stacked, by its name.
        Interrupted: as ``train``.

    Warns:
        UserWarning: as ``train``.
    """
    _check_stack(models, masks, data, seeds)
    network, parts = models[0], [dataset.train for dataset in data]
    _check_batch_size(recipe, parts[0])
    beginning = checkpoint and _fingerprint(models, masks, data, recipe, seeds)
    for model, kept in zip(models, masks):
        apply_(model, kept)
        model.train()
    parameters, buffers = stack_module_state(models)
    masked = _stacked_masks(parameters, masks)
    optimiser, scheduler = _optimiser(network, recipe, parameters)
    draws = [_augmentation_generator(seed) for seed in seeds]
    batch, device = _batches(parts), parts[0].labels.device
    curves, diverged = [Curves([], [], []) for _ in models], {}
    running, wrong, log_every, tests = 0.0, 0, log_interval(recipe.steps), _checkpoints(recipe.steps)
    orders = _orders(len(parts[0]), recipe, seeds, device)
    state = _State(parameters | buffers, optimiser, scheduler, draws, curves, diverged)
    with _resumable(checkpoint, deadline, state, beginning) as (done, keep):
        for step, index in enumerate(islice(orders, done, None), start=done + 1):
            inputs, labels = batch(index)
            if recipe.augment != "none":
                inputs = torch.stack([augment(images, recipe.augment, generator) for images, generator in zip(inputs, draws)])
            with _autocast(recipe, device):
                outputs = wide(_forward(network, parameters, buffers, inputs))  # (S, B, classes)
            if step == 1:
                for part, output in zip(parts, outputs):
                    check_labels(part.labels, output)
            losses = _losses(outputs, labels).mean(1)
            optimiser.zero_grad()
            losses.sum().backward()
            mask_gradients(masked)
            optimiser.step()
            scheduler.step()
            running = running + losses.detach()
            wrong = wrong + (outputs.detach().argmax(2) != labels).sum(1)
            if step % log_every == 0 or step == recipe.steps:
                logged = (step - 1) % log_every + 1
                for curve, loss, errors in zip(curves, running.tolist(), wrong.tolist()):
                    curve.train_loss.append(loss / logged)
                    curve.train_error.append(100 * errors / (logged * recipe.batch_size))
                _note_diverged(diverged, "training", [curve.train_loss[-1] for curve in curves], step, recipe)
                running, wrong = 0.0, 0
            if step in tests:
                with _autocast(recipe, device):
                    evaluations = _evaluate_stack(models, parameters, buffers, [dataset.test for dataset in data])
                for curve, evaluation in zip(curves, evaluations):
                    curve.tests.append(evaluation)
                _note_diverged(diverged, "test", [evaluation.loss for evaluation in evaluations], step, recipe)
                network.train()
            if len(diverged) == len(models):
                break
            if step % log_every == 0 and step < recipe.steps:
                keep(step)
    _unstack(models, parameters, buffers)
    return [diverged.get(number) or curve.outcome() for number, curve in enumerate(curves)]


def _forward(network, parameters, buffers, inputs, shared=False):
    """The outputs (S, B, classes) of a stack for inputs (S, B, ...), or (B, ...) if they are shared by all."""

    def one(parameters, buffers, inputs):
        return functional_call(network, (parameters, buffers), (inputs,))

    return torch.vmap(one, in_dims=(0, 0, None if shared else 0))(parameters, buffers, inputs)


def _losses(outputs, labels):
    """The cross-entropy of each example, (S, B), from outputs (S, B, classes) and labels (S, B)."""
    return cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


def _batches(parts):
    """A function from indices (S, B) to standardised inputs (S, B, C, H, W) and labels (S, B), for S parts of data sets."""
    distinct = {_address(part.pixels): part.pixels for part in parts}
    pixels, labels = torch.stack(list(distinct.values())), torch.stack([part.labels for part in parts])
    device, numbers = labels.device, list(distinct)
    which = torch.tensor([[numbers.index(_address(part.pixels))] for part in parts], device=device)
    row = torch.arange(len(parts), device=device)[:, None]

    def batch(index):
        inputs = parts[0].standardise(pixels[which, index].flatten(0, 1))
        return inputs.unflatten(0, index.shape), labels[row, index]

    return batch


def _address(tensor):
    """The same for tensors that are the same memory seen in the same way."""
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _stacked_masks(parameters, masks):
    """Pairs of a stacked parameter and its stacked masks, for every parameter that is masked in any of the networks."""
    pairs = []
    for name, parameter in parameters.items():
        if any(name in kept for kept in masks):
            stacked = torch.ones_like(parameter, requires_grad=False)
            for row, kept in zip(stacked, masks):
                if name in kept:
                    row.copy_(kept[name])
            pairs.append((parameter, stacked))
    return pairs


@torch.no_grad()
def _evaluate_stack(models, parameters, buffers, parts):
    """What ``evaluate`` gives for each network of a stack: together on one test set, one after the other on several."""
    if len({(_address(part.pixels), _address(part.labels)) for part in parts}) > 1:
        _unstack(models, parameters, buffers)
        return [evaluate(model, part) for model, part in zip(models, parts)]
    network, part = models[0].eval(), parts[0]
    if not len(part):
        raise ValueError("there are no images to evaluate on")
    wrong = loss = 0.0
    for start in range(0, len(part), STACK_TEST_BATCH):
        inputs, labels = part[start : start + STACK_TEST_BATCH]
        outputs = wide(_forward(network, parameters, buffers, inputs, shared=True))
        wrong = wrong + (outputs.argmax(2) != labels).sum(1)
        loss = loss + _losses(outputs, labels.expand(len(models), -1)).sum(1)
    return [Evaluation(100 * errors / len(part), total / len(part)) for errors, total in zip(wrong.tolist(), loss.tolist())]


@torch.no_grad()
def _unstack(models, parameters, buffers):
    """Write the state of a stack into its networks."""
    stacked = parameters | buffers
    for number, model in enumerate(models):
        for name, tensor in _tensors(model):
            tensor.copy_(stacked[name][number])
        model.eval()  # as ``train`` leaves it


def _note_diverged(diverged, what, losses, step, recipe):
    """Keep the first error of each network of a stack whose loss is not finite."""
    for number, loss in enumerate(losses):
        try:
            _check_finite(what, loss, step, recipe)
        except DivergedError as error:
            diverged.setdefault(number, error)


def _check_stack(models, masks, data, seeds):
    """Raise ValueError, with the reason, for what ``train_stack`` cannot train together."""
    if not models or not len(models) == len(masks) == len(data) == len(seeds):
        raise ValueError(f"a stack of {len(models)} models, {len(masks)} mask sets, {len(data)} data sets and {len(seeds)} seeds")
    for name, module in models[0].named_modules():
        if isinstance(module, UNSTACKABLE):
            raise ValueError(f"{name or 'the model'} is a {type(module).__name__}, which cannot be stacked: train them alone")
    alike = {
        "models": [(type(m), [(name, p.shape, p.dtype) for name, p in m.state_dict().items()]) for m in models],
        "training sets": [(d.train.pixels.shape, d.train.labels.shape, d.train.mean, d.train.std) for d in data],
    }
    for what, (first, *others) in alike.items():
        for number, other in enumerate(others, start=1):
            if other != first:
                raise ValueError(f"the {what} of a stack must be alike: number {number} is not like number 0")


# --- trainings that can be interrupted ------------------------------------------------------------------------------


class _State(NamedTuple):
    """All that changes in the course of a training; the order of the examples follows from the seeds and the step."""

    tensors: dict[str, torch.Tensor]  # parameters and buffers, of one network or of a stack
    optimiser: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LambdaLR
    draws: list[torch.Generator]
    curves: list[Curves]
    diverged: dict[int, DivergedError]  # of a stack


def _tensors(model):
    return (*model.named_parameters(), *model.named_buffers())


@contextlib.contextmanager
def _resumable(path, deadline, state, beginning):
    """Restore the state from ``path``, if it is that of a training with the same beginning; give the steps done by then,
    and what is to be called from time to time.

    That is ``keep(step)``: it writes the state if it is time to, and raises ``Interrupted`` after the deadline. The file is
    removed when there is a result, which a divergence is too. Without a path nothing is kept.
    """
    if path is None:
        if deadline is not None:
            raise ValueError("a training with a deadline needs a checkpoint, a file to leave its state in")
        yield 0, lambda step: None
        return
    path = Path(path)
    done, written = _restore(path, state, beginning), time.time()

    def keep(step):
        nonlocal written
        late = deadline is not None and time.time() >= deadline
        if late or time.time() - written >= CHECKPOINT_SECONDS:
            try:
                _write(path, state, beginning, step)
            except OSError as error:
                if late:
                    raise
                warnings.warn(f"the state of the training cannot be written ({error}): it goes on without", stacklevel=3)
            written = time.time()
        if late:
            raise Interrupted(f"the deadline passed at step {step}; {path} has the state: train again as before to carry on")

    try:
        yield done, keep
    except DivergedError:
        path.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)


def _fingerprint(models, masks, data, recipe, seeds):
    """Equal for equal beginnings: weights, masks, labels (they tell data sets and splits apart), recipe, seeds, torch."""
    digest = hashlib.sha256(repr((recipe, list(seeds), torch.__version__)).encode())
    for model, kept, dataset in zip(models, masks, data):
        labels = ("train", dataset.train.labels), ("test", dataset.test.labels)
        for name, tensor in (*_tensors(model), *kept.items(), *labels):
            digest.update(repr((name, tensor.shape, tensor.dtype)).encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _write(path, state, beginning, step):
    """Write the state whole or not at all."""
    written = {
        "fingerprint": beginning,
        "step": step,
        "tensors": state.tensors,
        "optimiser": state.optimiser.state_dict(),
        "scheduler": state.scheduler.state_dict(),
        "draws": [generator.get_state() for generator in state.draws],
        "curves": [(curve.train_loss, curve.train_error, [tuple(test) for test in curve.tests]) for curve in state.curves],
        "diverged": {number: str(error) for number, error in state.diverged.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        torch.save(written, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@torch.no_grad()
def _restore(path, state, beginning):
    """Bring the state into that on disk, if there is one that fits; give the number of steps done."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        known = found["fingerprint"]
    except FileNotFoundError:
        return 0
    except Exception as error:  # torch, pickle and zipfile raise half a dozen kinds
        warnings.warn(f"{path} is not the state of a training, or is damaged: training starts anew ({error})", stacklevel=6)
        return 0
    if known != beginning:
        warnings.warn(f"{path} is the state of another training: this one starts anew", stacklevel=6)
        return 0
    for name, tensor in state.tensors.items():
        tensor.copy_(found["tensors"][name])
    state.optimiser.load_state_dict(found["optimiser"])
    state.scheduler.load_state_dict(found["scheduler"])
    for generator, drawn in zip(state.draws, found["draws"]):
        generator.set_state(drawn)
    for curve, (train_loss, train_error, tests) in zip(state.curves, found["curves"]):
        curve.train_loss.extend(train_loss)
        curve.train_error.extend(train_error)
        curve.tests.extend(Evaluation(*test) for test in tests)
    state.diverged.update({number: DivergedError(text) for number, text in found["diverged"].items()})
    return found["step"]
