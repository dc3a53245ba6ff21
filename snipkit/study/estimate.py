"""How long runs, and single calls, take on this machine."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from timeit import Timer

import numpy as np
import torch

from snipkit import data, training
from snipkit.study import executors, experiment, provenance
from snipkit.study.datasets import SHAPES
from snipkit.study.records import Record
from snipkit.study.runs import Run


def microseconds(calls: Mapping[str, Callable], turns: int = 15, repeats: int = 50) -> dict[str, float]:
    """The shortest time of each of several calls, by name: whatever else the machine does only adds to a time.

    Args:
        calls: name → a function without arguments. They take turns, so that a slow spell meets all of them.
        turns: how often each is timed.
        repeats: calls in a turn, whose mean is the time of that turn.
    """
    timers = {name: Timer(call) for name, call in calls.items()}
    times = [[timer.timeit(repeats) / repeats for timer in timers.values()] for _ in range(turns)]
    return dict(zip(timers, (1e6 * np.min(times, axis=0)).tolist()))


def seconds(runs: Iterable[Run], records: dict[str, Record]) -> dict[Run, float]:
    """How long each of the runs takes on one worker of this machine.

    Runs of the same model, recipe and test size that are on record from a machine like this are the measure where there
    are any; for the rest a few training steps and one evaluation are timed.

    Args:
        runs: the runs still to do.
        records: what ``records.read`` gave.
    """
    spent, here = {}, provenance.name(executors.device())
    for record in records.values():
        # A training that was resumed, or that diverged, is on record with a part of its time.
        if record.outcome and not record.provenance.get("resumed") and record.provenance.get("device") == here:
            spent.setdefault(_key(record.run), []).append(record.provenance["seconds"])
    known = {key: float(np.median(values)) for key, values in spent.items()}
    for run in runs:
        if _key(run) not in known:
            known[_key(run)] = _measure(run)
    return {run: known[_key(run)] for run in runs}


def _key(run):
    return run.data, run.model, str(run.options), run.recipe, run.test_size, run.pretrained


def _measure(run):
    """Seconds of one run, extrapolated from a few steps on made-up images."""
    (shape, classes), device = SHAPES[run.data], executors.device()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (10 * run.recipe.batch_size, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (len(pixels),), generator=generator)
    images = data.Images(pixels, labels, (0.5,) * shape[0], (0.3,) * shape[0]).to(device)
    made_up = data.Dataset(run.data, classes, images, images, images.take(slice(1)))
    model = experiment.build(run, run.training_init, 0, device)
    with executors.one_thread():
        training.train(model, {}, made_up, dataclasses.replace(run.recipe, steps=1))  # the first step is slower
        spent, steps = 0.0, 0
        while spent < 0.2:
            start = time.perf_counter()
            training.train(model, {}, made_up, dataclasses.replace(run.recipe, steps=10, lr=1e-4))
            spent, steps = spent + time.perf_counter() - start, steps + 10
        start = time.perf_counter()
        training.evaluate(model, images)
        test = (time.perf_counter() - start) / len(images)
    trainings = 2 if run.pretrained else 1
    return trainings * (run.recipe.steps * spent / steps + training.TESTS * (run.test_size or 10_000) * test)
