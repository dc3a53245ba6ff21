"""How long runs, and single calls, take on this machine."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from timeit import Timer

import numpy as np
import torch

from snipkit import data, outcomes, training
from snipkit.study.sets.datasets import SHAPES
from snipkit.study.train import executors, prepare, provenance
from snipkit.study.train.records import Record
from snipkit.study.train.runs import Run


def microseconds(
    calls: Mapping[str, Callable], turns: int = 15, repeats: int = 50
) -> dict[str, float]:
    """The shortest time of each of several calls, by name.

    The shortest, since whatever else the machine does only adds to a time.

    Args:
        calls: name → a function without arguments. They take turns, so that a slow spell meets all
            of them.
        turns: how often each is timed.
        repeats: calls in a turn, whose mean is the time of that turn.
    """
    timers = {name: Timer(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, timer in timers.items():
            times[name].append(timer.timeit(repeats) / repeats)
    return {name: 1e6 * min(of_call) for name, of_call in times.items()}


def seconds(runs: Iterable[Run], records: dict[str, Record]) -> dict[Run, float]:
    """How long each of the runs takes on one worker of this machine.

    Runs of the same model, recipe and test size that are on record from a machine like this are the
    measure where there are any; for the rest a few training steps and one evaluation are timed.

    Args:
        runs: the runs still to do.
        records: what ``records.read`` gave.
    """
    machine = provenance.name(executors.device())
    recorded: dict[tuple, list[float]] = {}
    for record in records.values():
        # A training that was resumed, or that diverged, is on record with a part of its time.
        undivided = record.outcome and not record.provenance.get("resumed")
        if undivided and record.provenance.get("device") == machine:
            recorded.setdefault(_kind(record.run), []).append(record.provenance["seconds"])
    by_kind = {kind: float(np.median(values)) for kind, values in recorded.items()}
    for run in runs:
        if _kind(run) not in by_kind:
            by_kind[_kind(run)] = _measure(run)
    return {run: by_kind[_kind(run)] for run in runs}


def _kind(run):
    """What the time of a run depends on."""
    return run.data, run.model, str(run.options), run.recipe, run.test_size, run.pretrained


def _measure(run):
    """Seconds of one run, extrapolated from a few steps on made-up images."""
    device = executors.device()
    images, dataset = _made_up(run, device)
    model = prepare.build(run, run.training_init, 0, device)
    with executors.one_thread():
        one_step = dataclasses.replace(run.recipe, steps=1)  # it is slower than the others
        training.train(model, {}, dataset, one_step)
        spent, steps = 0.0, 0
        ten_steps = dataclasses.replace(run.recipe, steps=10, lr=1e-4)
        while spent < 0.2:
            start = time.perf_counter()
            training.train(model, {}, dataset, ten_steps)
            spent += time.perf_counter() - start
            steps += ten_steps.steps
        start = time.perf_counter()
        training.evaluate(model, images)
        per_image = (time.perf_counter() - start) / len(images)
    train_seconds = run.recipe.steps * spent / steps
    test_seconds = outcomes.TESTS * (run.test_size or 10_000) * per_image
    trainings = 2 if run.pretrained else 1
    return trainings * (train_seconds + test_seconds)


def _made_up(run, device):
    """Ten batches of random images of a run's shape, by themselves and as a data set."""
    shape, classes = SHAPES[run.data]
    generator = torch.Generator().manual_seed(0)
    size = (10 * run.recipe.batch_size, *shape)
    pixels = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (len(pixels),), generator=generator)
    images = data.Images(pixels, labels, (0.5,) * shape[0], (0.3,) * shape[0]).to(device)
    return images, data.Splits(run.data, classes, images, images, images.take(slice(1)))
