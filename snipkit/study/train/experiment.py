"""Carrying out one run, or a stack of them: prepare, train, record."""

import dataclasses
import json
import time
from collections.abc import Sequence

import torch

import snipkit
from snipkit import data, outcomes, training
from snipkit.study.train import provenance
from snipkit.study.train.checkpoints import Checkpoint
from snipkit.study.train.prepare import load, prepare
from snipkit.study.train.records import Record
from snipkit.study.train.runs import Run
from snipkit.study.train.stacking import train_stack

# Small enough for stacks on a GPU, and chains that can be compacted.
LENETS = ("lenet-300-100", "lenet-5-caffe")
# Small enough for stacks on a CPU: half the time of training them alone.
TINY = ("mlp-1d", "cnn-1d")


def execute(run: Run, device: str = "cpu", checkpoint: Checkpoint | None = None) -> Record:
    """Do a run. A training that diverges is a result, too.

    Raises:
        checkpoints.Interrupted: it was stopped; the checkpoint has its state.
    """
    start = time.perf_counter()
    model: torch.nn.Module | None = None
    masks: dict[str, torch.Tensor] = {}
    dataset = load(run, device)
    outcome: outcomes.Outcome | outcomes.DivergedError
    try:
        model, masks, dataset = prepare(run, dataset, device)
        if checkpoint is not None:
            (masks,) = checkpoint.carried([run.id], [masks])
        network, network_masks = _compact(run, model, masks, dataset)
        outcome = training.train(
            network,
            network_masks,
            dataset,
            run.recipe,
            seed=run.seeds()["order"],
            checkpoint=checkpoint,
        )
    except outcomes.DivergedError as error:
        outcome = error
    seconds = round(time.perf_counter() - start, 2)
    origin = {"seconds": seconds} | _resumed(checkpoint) | provenance.of(device, model)
    return _record(run, model, masks, dataset, outcome, origin)


def execute_stack(
    runs: Sequence[Run], device: str = "cpu", checkpoint: Checkpoint | None = None
) -> list[Record]:
    """Do runs that fit together (``stacks``) at once: the records of ``execute``, to float
    tolerance.

    Their provenance says how many runs were done together ("stack"); their seconds are an equal
    share.

    Raises:
        ValueError: runs that do not fit together. What ``execute`` raises for any of them ends all.
        checkpoints.Interrupted: as ``execute``.
    """
    start = time.perf_counter()
    if len({_stack_key(run) for run in runs}) > 1:
        raise ValueError(
            "these runs differ in what the runs of one stack must share: group them with `stacks`"
        )
    data_by_split: dict[int, data.Splits] = {}
    test = None
    for run in runs:
        if (split := run.seeds()["split"]) not in data_by_split:
            dataset = load(run, device)
            # The test set does not depend on the split: it is held, and gone through, once for all.
            test = test or dataset.test
            data_by_split[split] = dataclasses.replace(dataset, test=test)
    prepared: dict[Run, tuple] = {}
    results: dict[Run, outcomes.Outcome | outcomes.DivergedError] = {}
    for run in runs:
        try:
            prepared[run] = prepare(run, data_by_split[run.seeds()["split"]], device)
        except outcomes.DivergedError as error:  # the dense training of a pretrained run
            results[run] = error
    if prepared:
        networks = [network for network, _, _ in prepared.values()]
        masks = [masks_of_run for _, masks_of_run, _ in prepared.values()]
        datasets_of_runs = [dataset for _, _, dataset in prepared.values()]
        if checkpoint is not None:
            masks = checkpoint.carried([run.id for run in prepared], masks)
            prepared = dict(zip(prepared, zip(networks, masks, datasets_of_runs)))
        seeds = [run.seeds()["order"] for run in prepared]
        trained = train_stack(
            networks, masks, datasets_of_runs, runs[0].recipe, seeds=seeds, checkpoint=checkpoint
        )
        results |= zip(prepared, trained)
    seconds = round((time.perf_counter() - start) / len(runs), 2)
    origin = {"seconds": seconds, "stack": len(runs)}
    origin |= _resumed(checkpoint) | provenance.of(device)
    records = []
    for run in runs:
        model, masks_of_run, dataset = prepared.get(run, (None, {}, None))
        record = _record(run, model, masks_of_run, dataset, results[run], dict(origin))
        records.append(record)
    return records


def stacks(runs: Sequence[Run], on_gpu: bool = True, limit: int = 64) -> list[list[Run]]:
    """The runs in groups that can train together, at most ``limit`` in each, in the order of the
    groups' first runs.

    Runs of ``TINY`` networks, and on a GPU of ``LENETS``, that share data set, sizes, model,
    options and recipe go together; all others are alone.
    """
    small = TINY + LENETS if on_gpu else TINY
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        key = _stack_key(run) if run.model in small else (len(groups), run.id)
        groups.setdefault(key, []).append(run)
    cut = []
    for group in groups.values():
        for start in range(0, len(group), limit):
            cut.append(group[start : start + limit])
    place = {run: number for number, run in enumerate(runs)}
    return sorted(cut, key=lambda group: place[group[0]])


def _stack_key(run):
    options = json.dumps(run.options, sort_keys=True)
    return run.data, run.pixels, run.model, options, run.recipe, run.train_size, run.test_size


def _resumed(checkpoint):
    """A training that carried on says so: its seconds are those of the last part only."""
    return checkpoint.origin if checkpoint is not None else {}


def _compact(run, model, masks, dataset):
    """The same function with fewer units, where some can be left out.

    It trains up to three times as fast.
    """
    if not masks or run.model not in LENETS:  # others have batch norm or gates between their layers
        return model, masks
    inputs = dataset.test[:1][0]
    on_path = snipkit.effective(model, masks, inputs)
    linear = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            linear.append(name)
    last = linear[-1]
    for name in linear:
        bias = f"{name}.bias"
        constant = bias in masks and name != last and (masks[bias] & ~on_path[bias]).any()
        if constant or not on_path[f"{name}.weight"].any():
            # It could get smaller, but the records were trained whole in these two cases.
            return model, masks
    return snipkit.compact(model, masks, inputs, convolutions=False)


def _record(run, model, masks, dataset, outcome, origin):
    diverged = isinstance(outcome, outcomes.DivergedError)
    return Record(
        run=run,
        outcome=None if diverged else outcome,
        diverged=str(outcome) if diverged else None,
        kept={name: (int(mask.sum()), mask.numel()) for name, mask in masks.items()},
        effective=_effective(run, model, masks, dataset),
        provenance=origin,
    )


def _effective(run, model, masks, dataset):
    """How many kept parameters are on a path from input to output.

    None where paths are not defined (recurrent).
    """
    if not masks or run.model.startswith(("lstm", "gru")):
        return None
    try:
        on_path = snipkit.effective(model, masks, dataset.test[:1][0])
    except ValueError:
        return None
    return sum(int(mask.sum()) for mask in on_path.values())
