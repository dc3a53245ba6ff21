"""The state of an unfinished training in a file: written whole, refused when it is another training's."""

import hashlib
import os
import signal
import time
import warnings
from pathlib import Path

import torch

from snipkit.training import DivergedError, Evaluation, State

SECONDS = 120  # between two writings
stopping = False  # set by a signal: every training of this process stops at its next step


class Interrupted(Exception):
    """A training stopped before its last step; its state is in the checkpoint."""


class CheckpointError(RuntimeError):
    """The checkpoint file is not this training's state. It was not changed."""


def stop_on(*signals: signal.Signals) -> None:
    """Make these signals stop the trainings of this process at their next step, with their state written."""

    def stop(number, frame):
        global stopping
        stopping = True

    for number in signals:
        signal.signal(number, stop)


class Checkpoint:
    """Keeps a training's state in a file (see ``training.Checkpoint``).

    Args:
        path: the file; written every ``SECONDS`` and when the training is to stop, removed when there is a result.
        deadline: a ``time.monotonic()`` after which the training stops.

    Raises:
        CheckpointError: (when the training starts) the file is damaged, another training's, or not a checkpoint.
        Interrupted: (after a step) the deadline has passed, or a signal came; the file has the state.

    Warns:
        UserWarning: the file cannot be written; the training goes on.
    """

    def __init__(self, path: Path | str, deadline: float | None = None):
        self.path, self.deadline, self.written = Path(path), deadline, time.monotonic()

    @torch.no_grad()
    def restore(self, state: State) -> int:
        self.state, self.fingerprint = state, _fingerprint(state)
        if not self.path.exists():
            return 0
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
            known = found["fingerprint"]
        except Exception as error:  # torch, pickle and zipfile raise half a dozen kinds
            raise CheckpointError(
                f"{self.path} is not the state of a training, or is damaged ({error}): delete it, or name another file"
            ) from error
        if known != self.fingerprint:
            raise CheckpointError(f"{self.path} is the state of another training: delete it, or name another file")
        for name, tensor in state.tensors.items():
            tensor.copy_(found["tensors"][name])
        state.optimiser.load_state_dict(found["optimiser"])
        state.scheduler.load_state_dict(found["scheduler"])
        for generator, own in zip(state.generators, found["generators"]):
            generator.set_state(own)
        for curve, (train_loss, train_error, tests) in zip(state.curves, found["curves"]):
            curve.train_loss.extend(train_loss)
            curve.train_error.extend(train_error)
            curve.tests.extend(Evaluation(*test) for test in tests)
        state.diverged.update({number: DivergedError(text) for number, text in found["diverged"].items()})
        return found["step"]

    def after(self, step: int) -> None:
        now = time.monotonic()
        late = stopping or (self.deadline is not None and now >= self.deadline)
        if late or now - self.written >= SECONDS:
            try:
                self._write(step)
            except OSError as error:
                if late:
                    raise
                warnings.warn(f"the state of the training cannot be written ({error}): it goes on without", stacklevel=2)
            self.written = now
        if late:
            raise Interrupted(f"stopped after step {step}; {self.path} has the state: train again as before to carry on")

    def done(self) -> None:
        self.path.unlink(missing_ok=True)

    def _write(self, step):
        content = {
            "fingerprint": self.fingerprint,
            "step": step,
            "tensors": self.state.tensors,
            "optimiser": self.state.optimiser.state_dict(),
            "scheduler": self.state.scheduler.state_dict(),
            "generators": [generator.get_state() for generator in self.state.generators],
            "curves": [(c.train_loss, c.train_error, [tuple(test) for test in c.tests]) for c in self.state.curves],
            "diverged": {number: str(error) for number, error in self.state.diverged.items()},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            torch.save(content, unfinished)
            os.replace(unfinished, self.path)
        finally:
            unfinished.unlink(missing_ok=True)


def _fingerprint(state):
    """Equal for equal beginnings: weights, masks, labels (they tell data sets and splits apart), recipe, seeds, torch."""
    digest = hashlib.sha256()
    for item in (*state.tensors.items(), *enumerate(state.identity)):
        name, value = item
        if torch.is_tensor(value):
            digest.update(repr((name, value.shape, value.dtype)).encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        else:
            digest.update(repr((name, value)).encode())
    return digest.hexdigest()
