"""What a training comes to.

Its outcome, the log that it keeps, and the state that a checkpoint holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from snipkit.recipe import Recipe

TESTS = 5  # evaluations on the test set in a training; the authors' code keeps five checkpoints
LOG_EVERY = 100  # steps a point of the training curves, in long trainings


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
        best_of_last_five: percent, the lowest of the five evaluations. The authors' code reports
            it. It selects on the test set, so it is never the result.
        test_loss: mean cross-entropy in nats, of the final weights.
        train_loss: mini-batch loss without the L2 penalty in nats, the mean of each
            ``log_interval`` steps.
        train_error: mini-batch error in percent, the mean of the same steps. Both are of the
            augmented images, with the weights before the step.
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
        last = self.tests[-1]
        lowest = min(test.error for test in self.tests)
        return Outcome(last.error, lowest, last.loss, self.train_loss, self.train_error)


class State(NamedTuple):
    """All that changes during a training.

    The order of the examples and the learning rate follow from the recipe and the step.

    Attributes:
        identity: with the first ``tensors`` and the masks, this tells trainings apart: recipe,
            seeds, torch, data. It is the same on every device.
        tensors: parameters, buffers and running sums of one network or of a stack, changed in
            place.
        masked: pairs of a parameter among them and its mask, as for ``mask_gradients``.
    """

    identity: list[Any]
    tensors: dict[str, Tensor]
    masked: Sequence[tuple[Tensor, Tensor]]
    optimiser: torch.optim.Optimizer
    generators: list[torch.Generator]
    curves: list[Curves]
    diverged: dict[int, DivergedError]


class Checkpoint(Protocol):
    """Lets a training stop and resume; ``study.train.checkpoints.Checkpoint`` is one, in a file."""

    def restore(self, state: State) -> int:
        """Set the state in place to the one kept, if any. Return the number of steps done."""

    def after(self, step: int) -> None:
        """Called after every step but the last. It may keep the state; it may raise to stop."""

    def done(self) -> None:
        """Called when there is a result: the state is not needed any more."""


class Log:
    """The curves of S networks, and which of them have diverged.

    Attributes:
        tested_after: the steps after which the networks are tested.
        sums: (2, S): losses and errors since the last point of the curves.
    """

    def __init__(self, recipe: Recipe, count: int, device: torch.device):
        self.recipe = recipe
        self.interval = log_interval(recipe.steps)
        self.tested_after = _test_steps(recipe.steps)
        self.sums = torch.zeros(2, count, device=device)
        self.curves = [Curves([], [], []) for _ in range(count)]
        self.diverged: dict[int, DivergedError] = {}

    def add(self, step: int, losses: Tensor, wrong: Tensor) -> None:
        """Add a step's losses and errors, (S·B,); a point to the curves once an interval."""
        losses_so_far, errors_so_far = self.sums
        count = len(self.curves)
        losses_so_far += losses.view(count, -1).mean(1)
        errors_so_far += wrong.view(count, -1).sum(1)
        # Reading a loss makes a GPU wait.
        if step % self.interval == 0 or step == self.recipe.steps:
            self._add_point(step)

    def _add_point(self, step):
        steps = (step - 1) % self.interval + 1
        for curve, loss, errors in zip(self.curves, *self.sums.tolist()):
            curve.train_loss.append(loss / steps)
            curve.train_error.append(100 * errors / (steps * self.recipe.batch_size))
        self.sums.zero_()
        self._note_diverged("training", [curve.train_loss[-1] for curve in self.curves], step)

    def add_tests(self, step: int, evaluations: Sequence[Evaluation]) -> None:
        """Add an evaluation of each network."""
        for curve, evaluation in zip(self.curves, evaluations):
            curve.tests.append(evaluation)
        self._note_diverged("test", [evaluation.loss for evaluation in evaluations], step)

    def _note_diverged(self, kind, losses, step):
        """Keep the first error of each network whose loss is not finite."""
        recipe = self.recipe
        for number, loss in enumerate(losses):
            if not math.isfinite(loss):
                progress = f"{step} of {recipe.steps} (lr {recipe.lr}, momentum {recipe.momentum})"
                advice = "use a lower learning rate, no momentum, or another initialisation"
                error = DivergedError(f"the {kind} loss is {loss} by step {progress}: {advice}")
                self.diverged.setdefault(number, error)

    def all_diverged(self) -> bool:
        return len(self.diverged) == len(self.curves)

    def results(self) -> list[Outcome | DivergedError]:
        """For each network, its outcome, or why it has none."""
        numbered = enumerate(self.curves)
        return [self.diverged.get(number) or curve.outcome() for number, curve in numbered]


def log_interval(steps: int) -> int:
    """The steps a point of the curves is the mean of: ``LOG_EVERY``, or fewer for 30 points."""
    return max(1, min(LOG_EVERY, steps // 30))


def _test_steps(steps) -> range:
    """The steps after which the network is tested."""
    interval = max(1, min(1000, steps // 10))
    return range(steps - (TESTS - 1) * interval, steps + 1, interval)
