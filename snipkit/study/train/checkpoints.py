"""The state of an unfinished training in a file. Another training's file is refused and left alone.

Of a pruned network the file holds what is kept, and the masks, one bit a connection: at 90 % about
a ninth of the dense state, at 95 % a fifteenth.
"""

import hashlib
import os
import signal
import time
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snipkit.outcomes import DivergedError, Evaluation, State

FORMAT = 2  # of the files
SECONDS = 120  # between two writings
ADVICE = "delete it, or name another file"
stopping = False  # set by a signal: all trainings of this process stop after their next step

Masks = dict[str, Tensor]


class Interrupted(Exception):
    """A training stopped before its last step; its state is in the checkpoint."""


class CheckpointError(RuntimeError):
    """The checkpoint file is not this training's state. It was not changed."""


def stop_on(*signals: signal.Signals) -> None:
    """Make these signals stop the trainings of this process after their next step."""

    def stop(number, frame):
        global stopping
        stopping = True

    for number in signals:
        signal.signal(number, stop)


class Checkpoint:
    """Keeps a training's state in a file (see ``outcomes.Checkpoint``).

    The file can be carried to another machine of the same torch. Nothing in it depends on paths or
    devices; ``carried`` says what happens to masks.

    Attributes:
        origin: what a record of the training should say: "resumed"; "swapped", the number of kept
            connections by which the file's masks differ from those found here; "other weights",
            if the weights drawn here were not those that the training had started from.

    Args:
        path: the file. It is written every ``SECONDS`` and when the training stops, and deleted
            when there is a result.
        deadline: a ``time.monotonic()`` after which the training stops.

    Raises:
        CheckpointError: (when the training starts) the file is damaged, another training's, of
            another version of this module, or not a checkpoint.
        Interrupted: (after a step) the deadline has passed, or a signal came; the file has the
            state.
        OSError: (after a step) the training must stop, but the file cannot be written.

    Warns:
        UserWarning: the file cannot be written; the training goes on.
    """

    def __init__(self, path: Path | str, deadline: float | None = None):
        self.path = Path(path)
        self.deadline = deadline
        self.written = time.monotonic()
        self.runs: list[str] = []
        self.origin: dict[str, Any] = {}

    def carried(self, runs: Sequence[str], masks: Sequence[Masks]) -> list[Masks]:
        """Say which runs will be trained, before the training; get the masks to train with.

        On another device, scores are equal but for rounding, so a few connections of masks found
        anew can differ. If the file is of these very runs, its masks are taken, with a warning, and
        the training goes on with them. Initial weights may then differ, too: the file has the
        weights of a later step in any case.

        Args:
            runs: the ids of the runs, one for each network.
            masks: the masks found for each.

        Raises:
            CheckpointError: as for a training.
        """
        self.runs, self.origin = list(runs), {}
        content = self._read()
        if content is None:
            return list(masks)
        self.origin["resumed"] = True
        stored = _masks_of_runs(content, masks) if content["runs"] == self.runs else None
        if stored is None:
            return list(masks)
        swapped = 0
        for found_masks, stored_masks in zip(masks, stored):
            for name, mask in found_masks.items():
                swapped += int((mask & ~stored_masks[name]).sum())
        if swapped:
            self.origin["swapped"] = swapped
            warnings.warn(
                f"{self.path} is of masks that differ by {swapped} connections from those found "
                "here, as they may on another device: the training goes on with the file's",
                stacklevel=2,
            )
        return stored

    @torch.no_grad()
    def restore(self, state: State) -> int:
        self.state, self.writable = state, False
        self.kind = _digest(_kind(state, self.runs))
        self.beginning = _digest(state.tensors)
        content = self._read()
        if content is None:
            return 0
        other_beginning = content["beginning"] != self.beginning
        if content["kind"] != self.kind or (other_beginning and not self.runs):
            raise CheckpointError(f"{self.path} is the state of another training: {ADVICE}")
        if other_beginning:
            self.origin["other weights"] = True
            warnings.warn(
                f"{self.path} is of other initial weights than those drawn here, as they may be on "
                "another device: the training goes on with the file's",
                stacklevel=2,
            )
        self.writable = True
        kept = _kept(state)
        for name, tensor in state.tensors.items():
            tensor.copy_(_unpacked(content["tensors"][name], tensor, kept))
        state.optimiser.load_state_dict(_unpacked_optimiser(content["optimiser"], state, kept))
        for generator, position in zip(state.generators, content["generators"]):
            generator.set_state(position)
        for curve, (train_loss, train_error, tests) in zip(state.curves, content["curves"]):
            curve.train_loss.extend(train_loss)
            curve.train_error.extend(train_error)
            curve.tests.extend(Evaluation(*test) for test in tests)
        for number, text in content["diverged"].items():
            state.diverged[number] = DivergedError(text)
        return content["step"]

    def after(self, step: int) -> None:
        now = time.monotonic()
        late = stopping or (self.deadline is not None and now >= self.deadline)
        if late or now - self.written >= SECONDS:
            try:
                self._write(step)
            except OSError as error:
                if late:
                    raise
                warnings.warn(
                    f"the training's state cannot be written ({error}): it goes on without",
                    stacklevel=2,
                )
            self.written = now
        if late:
            raise Interrupted(
                f"stopped after step {step}; {self.path} has the state: call again to carry on"
            )

    def done(self) -> None:
        if self.writable:
            self.path.unlink(missing_ok=True)

    def _read(self):
        """What the file says; None if there is none."""
        if not self.path.exists():
            return None
        try:
            with zipfile.ZipFile(self.path) as archive:  # torch.load does not compare checksums
                if damaged := archive.testzip():
                    raise ValueError(f"the checksum of {damaged} is wrong")
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            version = content.get("format", 1 if "fingerprint" in content else None)
            if version is None:
                raise ValueError("it has no version")
        except Exception as error:  # torch, pickle and zipfile raise half a dozen kinds
            problem = f"{self.path} is no training's state, or is damaged ({error})"
            raise CheckpointError(f"{problem}: {ADVICE}") from error
        if version != FORMAT:
            problem = (
                f"{self.path} was written by a snipkit of another version ({version}, not {FORMAT})"
            )
            raise CheckpointError(f"{problem}: finish the training with that one, {ADVICE}")
        return content

    @torch.no_grad()
    def _write(self, step):
        state, kept = self.state, _kept(self.state)
        tensors = {}
        for name, tensor in state.tensors.items():
            tensors[name] = _packed(tensor, tensor, kept)
        curves = []
        for curve in state.curves:
            tests = [tuple(test) for test in curve.tests]
            curves.append((curve.train_loss, curve.train_error, tests))
        content = {
            "format": FORMAT,
            "kind": self.kind,
            "beginning": self.beginning,
            "runs": self.runs,
            "step": step,
            "masks": _packed_masks(state, kept),
            "tensors": tensors,
            "optimiser": _packed_optimiser(state, kept),
            "generators": [generator.get_state() for generator in state.generators],
            "curves": curves,
            "diverged": {number: str(error) for number, error in state.diverged.items()},
        }
        if not self.writable and self.path.exists():
            problem = "another training wrote it after this one had started"
            raise FileExistsError(f"{self.path} is not ours: {problem}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            torch.save(content, unfinished)
            os.replace(unfinished, self.path)
            self.writable = True
        finally:
            unfinished.unlink(missing_ok=True)


def _kept(state):
    """id of a masked parameter → bool tensor: what is kept of it."""
    return {id(parameter): mask != 0 for parameter, mask in state.masked}


def _packed(tensor, parameter, kept):
    """What is kept of a tensor that belongs to a parameter.

    It is the whole tensor if there is no mask, or if a pruned entry is not 0. (A network that
    diverges has entries that are no numbers, pruned ones as well.)
    """
    mask = kept.get(id(parameter))
    if mask is None or mask.shape != tensor.shape or tensor[~mask].any():
        return tensor
    return {"kept": tensor[mask]}


def _unpacked(stored, parameter, kept):
    """The tensor again; its pruned entries are exactly 0."""
    if torch.is_tensor(stored):
        return stored
    tensor = torch.zeros_like(parameter)
    tensor[kept[id(parameter)]] = stored["kept"].to(tensor.device)
    return tensor


def _packed_optimiser(state, kept):
    """The optimiser's ``state_dict``; of momentum and moments, what is kept."""
    content = state.optimiser.state_dict()
    parameters = _parameters(state.optimiser)
    packed: dict[int, dict] = {}
    for number, values in content["state"].items():
        packed[number] = {}
        for key, value in values.items():
            tensor = torch.is_tensor(value)
            packed[number][key] = _packed(value, parameters[number], kept) if tensor else value
    return content | {"state": packed}


def _unpacked_optimiser(content, state, kept):
    parameters = _parameters(state.optimiser)
    unpacked: dict[int, dict] = {}
    for number, values in content["state"].items():
        unpacked[number] = {}
        for key, value in values.items():
            packed = isinstance(value, dict)
            unpacked[number][key] = _unpacked(value, parameters[number], kept) if packed else value
    return content | {"state": unpacked}


def _parameters(optimiser):
    """In the order of the numbers in its ``state_dict``."""
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _packed_masks(state, kept):
    """name → (shape, bits): eight connections a byte."""
    packed = {}
    for name, tensor in state.tensors.items():
        if (mask := kept.get(id(tensor))) is not None:
            bits = np.packbits(mask.cpu().numpy())
            packed[name] = tuple(mask.shape), torch.from_numpy(bits)
    return packed


def _masks_of_runs(content, masks):
    """The file's masks for each run; None if it has not as many connections for each as ``masks``.

    That is so for a network that was made smaller before its training.
    """
    stored = {}
    for name, (shape, bits) in content["masks"].items():
        flat = np.unpackbits(bits.numpy(), count=int(np.prod(shape)))
        stored[name] = torch.from_numpy(flat).bool().view(shape)
    result = []
    for number, found_masks in enumerate(masks):
        stored_masks = {}
        for name, mask in found_masks.items():
            candidate = stored.get(name)
            if candidate is not None and candidate.shape == (len(masks), *mask.shape):
                candidate = candidate[number]  # of a stack
            if candidate is None or candidate.shape != mask.shape:
                return None
            stored_masks[name] = candidate.to(mask.device)
        if _count(stored_masks) != _count(found_masks):
            return None
        result.append(stored_masks)
    return result


def _count(masks):
    return sum(int(mask.sum()) for mask in masks.values())


def _kind(state, runs):
    """What tells trainings apart, but for the weights that they start from."""
    parts = {"identity": state.identity, "runs": runs}
    for name, tensor in state.tensors.items():
        parts[name] = tuple(tensor.shape), tensor.dtype
    for name, (_, bits) in _packed_masks(state, _kept(state)).items():
        parts[f"mask of {name}"] = bits
    return parts


def _digest(parts):
    """Equal for equal values, in tensors, dictionaries and lists."""
    digest = hashlib.sha256()

    def add(value):
        if torch.is_tensor(value):
            digest.update(repr((tuple(value.shape), value.dtype)).encode())
            flat = value.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().data)
        elif isinstance(value, dict):
            digest.update(f"{len(value)} entries".encode())
            for key, part in value.items():
                add(key)
                add(part)
        elif isinstance(value, list):
            digest.update(f"{len(value)} parts".encode())
            for part in value:
                add(part)
        else:
            digest.update(repr(value).encode())

    add(parts)
    return digest.hexdigest()
