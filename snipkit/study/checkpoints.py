"""The state of an unfinished training in a file. Another training's file is refused and left as it is."""

import hashlib
import os
import signal
import time
import warnings
import zipfile
from pathlib import Path

import torch

from snipkit.training import DivergedError, Evaluation, State

SECONDS = 120  # between two writings
ADVICE = "delete it, or name another file"
stopping = False  # set by a signal: all trainings of this process with a checkpoint stop after their next step


class Interrupted(Exception):
    """A training stopped before its last step; its state is in the checkpoint."""


class CheckpointError(RuntimeError):
    """The checkpoint file is not this training's state. It was not changed."""


def stop_on(*signals: signal.Signals) -> None:
    """Make these signals stop the trainings of this process after their next step, with their state in the file."""

    def stop(number, frame):
        global stopping
        stopping = True

    for number in signals:
        signal.signal(number, stop)


class Checkpoint:
    """Keeps a training's state in a file (see ``training.Checkpoint``).

    Args:
        path: the file. It is written every ``SECONDS`` and when the training stops, and deleted when there is a result.
        deadline: a ``time.monotonic()`` after which the training stops.

    Raises:
        CheckpointError: (when the training starts) the file is damaged, another training's, or not a checkpoint.
        Interrupted: (after a step) the deadline has passed, or a signal came; the file has the state.
        OSError: (after a step) the training must stop, but the file cannot be written.

    Warns:
        UserWarning: the file cannot be written; the training goes on.
    """

    def __init__(self, path: Path | str, deadline: float | None = None):
        self.path, self.deadline, self.written = Path(path), deadline, time.monotonic()

    @torch.no_grad()
    def restore(self, state: State) -> int:
        self.state, self.fingerprint, self.ours = state, _fingerprint(state), False
        if not self.path.exists():
            return 0
        try:
            with zipfile.ZipFile(self.path) as archive:  # torch.load does not compare checksums
                if damaged := archive.testzip():
                    raise ValueError(f"the checksum of {damaged} is wrong")
            found = torch.load(self.path, map_location="cpu", weights_only=True)
            known = found["fingerprint"]
        except Exception as error:  # torch, pickle and zipfile raise half a dozen kinds
            raise CheckpointError(f"{self.path} is no training's state, or is damaged ({error}): {ADVICE}") from error
        if known != self.fingerprint:
            raise CheckpointError(f"{self.path} is the state of another training: {ADVICE}")
        self.ours = True
        for name, tensor in state.tensors.items():
            tensor.copy_(found["tensors"][name])
        state.optimiser.load_state_dict(found["optimiser"])
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
                warnings.warn(f"the training's state cannot be written ({error}): it goes on without", stacklevel=2)
            self.written = now
        if late:
            raise Interrupted(f"stopped after step {step}; {self.path} has the state: call again to carry on")

    def done(self) -> None:
        if self.ours:
            self.path.unlink(missing_ok=True)

    def _write(self, step):
        content = {
            "fingerprint": self.fingerprint,
            "step": step,
            "tensors": self.state.tensors,
            "optimiser": self.state.optimiser.state_dict(),
            "generators": [generator.get_state() for generator in self.state.generators],
            "curves": [(c.train_loss, c.train_error, [tuple(test) for test in c.tests]) for c in self.state.curves],
            "diverged": {number: str(error) for number, error in self.state.diverged.items()},
        }
        if not self.ours and self.path.exists():
            raise FileExistsError(f"{self.path} is not ours: another training wrote it after this one had started")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            torch.save(content, unfinished)
            os.replace(unfinished, self.path)
            self.ours = True
        finally:
            unfinished.unlink(missing_ok=True)


def _fingerprint(state):
    """Equal for equal beginnings: weights and ``State.identity``."""
    digest = hashlib.sha256()
    for name, value in (*state.tensors.items(), *enumerate(state.identity)):
        if torch.is_tensor(value):
            digest.update(repr((name, value.shape, value.dtype)).encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        else:
            digest.update(repr((name, value)).encode())
    return digest.hexdigest()
