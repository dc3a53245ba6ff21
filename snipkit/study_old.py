"""The study: a run is a value, its record a line in a file, and a finished run never runs again.

``results/<profile>/*.jsonl`` hold one JSON object a line: ``{"id", "run", "outcome", "kept", "provenance"}``. A file
is only ever appended to, one whole line at a time under a lock; whoever reads skips (and names) a torn line. Beside them
lie ``checkpoints/<id>.pt``, the states of unfinished runs, and ``.claims``, by which processes share out the runs.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import functools
import hashlib
import json
import math
import multiprocessing
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

import snipkit
from snipkit import data, masking, models, saliency, sources, training
from snipkit.training import Recipe

ABLATIONS = ("none", "shuffle", "invert")
LABELS = ("true", "random")
NOISE = "noise"  # as ``scoring_data``: standard normal pixels under random labels
# In this order for good: seeds go by it.
STREAMS = ("split", "scoring_init", "training_init", "batch", "criterion", "ablation", "order", "labels")


@dataclass(frozen=True)
class Run:
    """One training run, described completely; equal runs have equal ids, on every machine and day.

    The defaults are the paper's: the scores come from one draw of the weights and one mini-batch of 100, the network
    that is trained is a *fresh* draw (as in the authors' code), biases are in the pool, batch norm is inert.

    Attributes:
        recipe: how it is trained: a ``Recipe``, its fields as a dict, or a name in ``training.RECIPES``.
        data, model: names in ``data.SHAPES`` and ``models.MODELS``.
        options: the network's own switches (``models.build``).
        criterion: a name in ``saliency.CRITERIA``, or "dense" for no pruning at all.
        sparsity: share of the prunable parameters removed; 0 with "dense" and only then.
        ablation: "none"; "shuffle" permutes the mask within each layer; "invert" keeps the lowest scores.
        seed: everything random in the run follows from it. Runs that differ only in criterion, ablation or sparsity
            share split, draws, scoring batch and order of examples, so that they can be compared in pairs.
        scoring_init, training_init: names in ``models.INITIALISERS``.
        same_draw: train the very weights that were scored instead of a fresh draw.
        scoring_batch: examples in the scoring mini-batch; None: all training images.
        scoring_sample: how they are drawn, a name in ``data.SAMPLES``.
        scoring_data: another data set to score on, of the same shape, or "noise"; None: the one that is trained on.
        scoring_augment: a name in ``data.AUGMENTATIONS``, for the scoring batch.
        scoring_labels, train_labels: "true", or "random": the labels of the training images shuffled among them (both
            in the same way). Test labels are always true.
        biases, batch_norm: see ``saliency.snip``.
        train_size, test_size: use only so many images (None: all), for lessons and laptops.

    Raises:
        ValueError: an unknown name, or values that contradict each other.
    """

    recipe: Recipe
    data: str = "mnist"
    model: str = "lenet-300-100"
    options: dict = field(default_factory=dict, hash=False)
    criterion: str = "dense"
    sparsity: float = 0.0
    ablation: str = "none"
    seed: int = 0
    scoring_init: str = "lecun"
    training_init: str = "lecun"
    same_draw: bool = False
    scoring_batch: int | None = 100
    scoring_sample: str = "uniform"
    scoring_data: str | None = None
    scoring_augment: str = "none"
    scoring_labels: str = "true"
    train_labels: str = "true"
    biases: bool = True
    batch_norm: str = "eval"
    train_size: int | None = None
    test_size: int | None = None

    def __post_init__(self):
        if isinstance(self.recipe, str) and self.recipe not in training.RECIPES:
            raise ValueError(f"unknown recipe {self.recipe!r}; known: {', '.join(training.RECIPES)}")
        if not isinstance(self.recipe, Recipe):
            named = isinstance(self.recipe, str)
            object.__setattr__(self, "recipe", training.RECIPES[self.recipe] if named else Recipe(**self.recipe))
        object.__setattr__(self, "sparsity", float(self.sparsity))
        for value, known, what in (
            (self.data, data.SHAPES, "data set"),
            (self.model, models.MODELS, "model"),
            (self.criterion, ("dense", *saliency.CRITERIA), "criterion"),
            (self.ablation, ABLATIONS, "ablation"),
            (self.scoring_init, models.INITIALISERS, "initialiser"),
            (self.training_init, models.INITIALISERS, "initialiser"),
            (self.batch_norm, saliency.BATCH_NORM_MODES, "batch_norm mode"),
            (self.scoring_sample, data.SAMPLES, "sample"),
            (self.scoring_data, (None, NOISE, *data.SHAPES), "data set to score on"),
            (self.scoring_augment, data.AUGMENTATIONS, "augmentation"),
            (self.scoring_labels, LABELS, "labels"),
            (self.train_labels, LABELS, "labels"),
        ):
            if value not in known:
                raise ValueError(f"unknown {what} {value!r}; known: {', '.join(map(str, known))}")
        masking.kept_count(1, self.sparsity)
        if (self.criterion == "dense") != (self.sparsity == 0):
            raise ValueError("a dense run has sparsity 0 and criterion 'dense', a pruned run has neither")
        if self.criterion == "dense" and self.ablation != "none":
            raise ValueError("a dense run has no mask to ablate")
        if self.same_draw and self.scoring_init != self.training_init:
            raise ValueError("the scored draw can only be trained when both initialisers are the same")
        if self.scoring_data in data.SHAPES and data.SHAPES[self.scoring_data] != data.SHAPES[self.data]:
            raise ValueError(f"{self.scoring_data} has other images or classes than {self.data}: nothing to score this network on")

    @property
    def id(self) -> str:
        """Twelve hex digits of the SHA-256 of the description.

        Only what differs from the defaults is hashed, so a later version can add a field without renaming old runs.
        """
        return hashlib.sha256(json.dumps(_changed(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def method(self) -> str:
        """What the masks come from, for legends: "snip", "snip, shuffle", "dense"."""
        return self.criterion if self.ablation == "none" else f"{self.criterion}, {self.ablation}"

    def seeds(self) -> dict[str, int]:
        """One independent seed for each random part of the run (numpy ``SeedSequence``), by the names in ``STREAMS``."""
        children = np.random.SeedSequence(self.seed).spawn(len(STREAMS))
        seeds = {name: int(child.generate_state(1)[0]) for name, child in zip(STREAMS, children)}
        if self.same_draw:
            seeds["scoring_init"] = seeds["training_init"]
        return seeds


def seeded(settings, **changes) -> list[Run]:
    """The runs of one setting, a seed each.

    Args:
        settings: fields of ``Run``, and their number as ``seeds``; seeds count from 0.
        **changes: fields that take the place of the settings'.
    """
    settings = settings | changes
    return [Run(**settings, seed=seed) for seed in range(settings.pop("seeds"))]


def pruning(method, sparsity) -> dict:
    """The fields of a ``Run`` whose ``method`` is this one, as the study's comparisons have it.

    Magnitude is trained on the draw that it ranked: the size of a weight says nothing about another draw.
    """
    criterion, _, ablation = method.partition(", ")
    return dict(criterion=criterion, ablation=ablation or "none", sparsity=sparsity, same_draw=criterion == "magnitude")


def _changed(value):
    """The fields of a dataclass that differ from their defaults, as plain JSON values."""
    changed = {}
    for part in fields(value):
        current = getattr(value, part.name)
        default = part.default_factory() if part.default_factory is not dataclasses.MISSING else part.default
        if dataclasses.is_dataclass(current):
            changed[part.name] = _changed(current)
        elif current != default:
            changed[part.name] = current
    return changed


def build(run: Run, init, seed, device="cpu") -> torch.nn.Module:
    """The network of a run, for its data set's images and classes, freshly drawn."""
    (_, _, side), classes = data.SHAPES[run.data]
    model = models.build(run.model, num_classes=classes, init=init, seed=seed, image_size=side, **run.options)
    return model.to(device, memory_format=torch.channels_last)


def score(run: Run, dataset, device="cpu") -> dict[str, torch.Tensor]:
    """The masks of a run: build the network to be scored, score it on one batch, keep the best (or ablate).

    Args:
        run: any run but a dense one.
        dataset: what ``data.load`` gave for the run.

    Source: SNIP Algorithm 1, lines 1 to 5.
    """
    seeds = run.seeds()
    model = build(run, run.scoring_init, seeds["scoring_init"], device)
    scores = saliency.criterion(run.criterion)(
        model, scoring_batches(run, dataset), biases=run.biases, batch_norm=run.batch_norm,
        generator=torch.Generator().manual_seed(seeds["criterion"]),
    )
    masks = (masking.keep_lowest if run.ablation == "invert" else masking.keep_top)(scores, run.sparsity)
    if run.ablation == "shuffle":
        masks = masking.shuffle(masks, torch.Generator().manual_seed(seeds["ablation"]))
    return masks


CHUNK = 1000  # images scored at a time; the scores are those of the whole batch (law 4)


def scoring_batches(run: Run, dataset) -> list:
    """The (inputs, targets) pairs that a run scores on: its one mini-batch, in pieces of at most ``CHUNK`` images.

    With batch norm in train mode it stays in one piece, since there its statistics are part of the score.
    """
    seeds, part = run.seeds(), dataset.train
    generator = torch.Generator().manual_seed(seeds["batch"])
    if run.scoring_data == NOISE:
        shape, classes = data.SHAPES[run.data]
        size = run.scoring_batch or len(part)
        inputs, labels = torch.randn(size, *shape, generator=generator), torch.randint(classes, (size,), generator=generator)
        inputs, labels = inputs.to(part.pixels.device), labels.to(part.labels.device)
    else:
        if run.scoring_data:
            part = data.load(run.scoring_data, split_seed=seeds["split"], train_size=run.train_size, device=part.pixels.device).train
        if run.scoring_labels == "random":
            part = data.shuffle_labels(part, torch.Generator().manual_seed(seeds["labels"]))
        inputs, labels = data.draw(part, run.scoring_batch, generator, run.scoring_sample)
    inputs = data.augment(inputs, run.scoring_augment, generator)
    size = len(labels) if run.batch_norm == "train" else CHUNK
    return list(zip(inputs.split(size), labels.split(size)))


def load(run: Run, device="cpu"):
    """The data set of a run, with the run's split and sizes."""
    return data.load(
        run.data, split_seed=run.seeds()["split"], train_size=run.train_size, test_size=run.test_size, device=device
    )


def execute(run: Run, device="cpu", checkpoint=None, deadline=None) -> dict:
    """Do a run and return its record (plain JSON values).

    A training that diverges is a result too: its record has ``outcome`` None and says why under ``diverged``.

    Args:
        checkpoint, deadline: see ``training.train``.

    Raises:
        training.Interrupted: the deadline came first.
    """
    start, provenance = time.perf_counter(), _resumed(checkpoint)
    model, masks, dataset = _prepare(run, load(run, device), device)
    network, kept = _compacted(model, masks, dataset)
    try:
        outcome = training.train(
            network, kept, dataset, run.recipe, seed=run.seeds()["order"], checkpoint=checkpoint, deadline=deadline
        )
    except training.DivergedError as error:
        outcome = error
    provenance["seconds"] = round(time.perf_counter() - start, 2)
    return _record(run, model, masks, dataset, outcome, device, provenance)


def _compacted(model, masks, dataset):
    """The same function with fewer units, where there are any to leave out: it trains up to three times as fast."""
    try:
        return masking.compact(model, masks, dataset.test[:1][0]) if masks else (model, masks)
    except ValueError:
        return model, masks


def _resumed(checkpoint):
    """What the provenance says of a training that carries on: its seconds are those of the last part only."""
    return {"resumed": True} if checkpoint is not None and Path(checkpoint).exists() else {}


def execute_stack(runs, device="cpu", checkpoint=None, deadline=None) -> list[dict]:
    """Do runs that go together (``stacks``) all at once and return their records, in order.

    They are those of ``execute`` to float tolerance, but for the provenance: it says how many runs were done together
    ("stack"), and its seconds are an equal share of the whole.

    Args:
        checkpoint, deadline: see ``training.train``; the state is that of the whole stack.

    Raises:
        ValueError: runs that do not go together. What ``execute`` raises for any one of them ends all.
        training.Interrupted: the deadline came first.
    """
    start, provenance = time.perf_counter(), _resumed(checkpoint)
    if len({_stack_key(run) for run in runs}) > 1:
        raise ValueError("these runs differ in what the runs of one stack must share: group them with study.stacks")
    datasets, test = {}, None
    for run in runs:
        if (split := run.seeds()["split"]) not in datasets:
            loaded = load(run, device)
            test = test or loaded.test  # it does not depend on the split: held, and gone through, once for all
            datasets[split] = dataclasses.replace(loaded, test=test)
    prepared = [_prepare(run, datasets[run.seeds()["split"]], device) for run in runs]
    networks, masks, parts = map(list, zip(*prepared))
    seeds = [run.seeds()["order"] for run in runs]
    outcomes = training.train_stack(
        networks, masks, parts, runs[0].recipe, seeds=seeds, checkpoint=checkpoint, deadline=deadline
    )
    provenance |= {"seconds": round((time.perf_counter() - start) / len(runs), 2), "stack": len(runs)}
    done = zip(runs, networks, masks, parts, outcomes)
    return [_record(*what, device, provenance) for what in done]


STACKED = ("lenet-300-100", "lenet-5-caffe")  # small enough for the launches of its kernels to be what a GPU waits for


def stacks(runs, limit=64) -> list[list[Run]]:
    """The runs in groups that can train together, at most ``limit`` in each, in the order of the groups' first runs.

    Later seeds come along with the first, since a GPU trains a stack in little more time than one network.

    Together go runs of a model in ``STACKED`` that share data set, sizes, model, options and recipe; all others are alone.
    """
    groups = {}
    for run in runs:
        groups.setdefault(_stack_key(run) if run.model in STACKED else (len(groups), run.id), []).append(run)
    cut = [group[start : start + limit] for group in groups.values() for start in range(0, len(group), limit)]
    place = {run: number for number, run in enumerate(runs)}
    return sorted(cut, key=lambda group: place[group[0]])


def _stack_key(run):
    return run.data, run.model, json.dumps(run.options, sort_keys=True), run.recipe, run.train_size, run.test_size


def _prepare(run, dataset, device):
    """What a run trains: the network, its masks, and the data set with the labels that it is to learn."""
    seeds = run.seeds()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", masking.EmptyLayerWarning)  # the record has the counts of every layer
        masks = {} if run.criterion == "dense" else score(run, dataset, device)
    if run.train_labels == "random":
        shuffled = data.shuffle_labels(dataset.train, torch.Generator().manual_seed(seeds["labels"]))
        dataset = dataclasses.replace(dataset, train=shuffled)
    return build(run, run.training_init, seeds["training_init"], device), masks, dataset


def _record(run, model, masks, dataset, outcome, device, provenance):
    """The record of a run that came to an outcome, or to a ``DivergedError``."""
    diverged = isinstance(outcome, training.DivergedError)
    return {
        "id": run.id,
        "run": dataclasses.asdict(run),
        "outcome": None if diverged else _rounded(dataclasses.asdict(outcome)),
        "diverged": str(outcome) if diverged else None,
        "kept": {name: [int(mask.sum()), mask.numel()] for name, mask in masks.items()},
        "effective": _effective(model, masks, dataset),
        "provenance": provenance | {
            "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
            "snipkit": snipkit.__version__,
            "commit": _commit(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    }


def _rounded(outcome):
    """Curves to four significant digits: they are most of a record."""
    return {name: [float(f"{v:.4g}") for v in value] if isinstance(value, list) else value for name, value in outcome.items()}


@functools.lru_cache(maxsize=1)
def _commit():
    """The commit of the checkout that this code is in, with a + where files were changed since; "" outside of one."""
    git = ["git", "-C", str(Path(snipkit.__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + "+" * bool(changed)


def _effective(model, masks, dataset):
    """How many of the kept parameters are on a path from input to output; None where paths are not defined (recurrent)."""
    if not masks:
        return None
    try:
        return sum(int(mask.sum()) for mask in masking.effective(model, masks, dataset.test[:1][0]).values())
    except ValueError:
        return None


def run_all(runs, results, executor: Executor | None = None, deadline: float | None = None) -> pd.DataFrame:
    """Do every run that is not on record yet, put each on record the moment it is finished, return the table of all.

    A run on record in *any* ``.jsonl`` file of the same folder is not run again, so notebooks share their runs.
    Killed at any moment, nothing that was finished is lost: the next call carries on.

    Args:
        runs: the runs wanted; doubles are run once.
        results: the ``.jsonl`` file to append new records to; made if need be.
        executor, deadline: see ``carry_out``.

    Returns:
        ``table`` of the records of ``runs``, in their order. Runs that the deadline cut off are left out, and those
        whose data set cannot be had (see ``reachable``).

    Raises:
        RuntimeError: see ``carry_out``.
    """
    runs = list({run.id: run for run in runs}.values())
    return table(runs, carry_out({run: Path(results) for run in runs}, executor, deadline))


def carry_out(files, executor: Executor | None = None, deadline: float | None = None) -> dict[str, dict]:
    """Do the runs that are not on record yet, in the order given; put each on record the moment it is finished.

    Any number of processes may do this in one folder at a time: each run is done by one, the others wait for its record.

    Args:
        files: run → the ``.jsonl`` file for its record; all files lie in one folder.
        executor: any ``concurrent.futures.Executor``. By default one process a core, one thread each (on a GPU: one
            process), which is what small networks are fastest with.
        deadline: a ``time.time()`` after which no run is started, and those under way stop at a checkpoint.

    Returns:
        All records of the folder, by run id.

    Raises:
        RuntimeError: some runs failed (each with its reason), a worker died, or a record could not be written. All that
            was finished is on record by then, as far as there was room.
    """
    if not files:
        return {}
    folder, seen = _folder(files), {}
    records = read(folder, seen)
    todo = reachable([run for run in files if run.id not in records])
    if todo:
        own = executor is None
        executor = executor or _processes(min(len(todo), _workers()))
        try:
            groups = stacks(todo) if own and _on_gpu() else [[run] for run in todo]
            _work(groups, files, records, seen, executor, deadline)
        finally:
            if own:
                executor.shutdown(cancel_futures=True)
    return records


def _folder(files):
    return next(iter(files.values())).parent


def in_order(runs, seconds) -> list[Run]:
    """One seed of everything before the second seed of anything; the cheapest first within a seed.

    So a study stopped at any time has as many complete repetitions as it can.

    Args:
        seconds: run → its cost, as from ``seconds``.
    """
    return sorted(runs, key=lambda run: (run.seed, seconds[run]))


def reachable(runs) -> list[Run]:
    """Those of the runs whose data set can be had; it is fetched, once, before several processes look for it.

    Warns:
        UserWarning: for each data set that cannot be had: why, how to get it, and how many runs are left out.
    """
    missing = {}
    needed = {run: {run.data, run.scoring_data} & set(data.SHAPES) for run in runs}
    for name in sorted(set().union(*needed.values())):
        try:
            sources.fetch(name)
        except sources.DataError as error:
            missing[name] = error
    for name, error in missing.items():
        warnings.warn(f"{sum(name in sets for sets in needed.values())} runs are left out. {error}", stacklevel=2)
    return [run for run in runs if not needed[run] & set(missing)]


LEAD = 2  # runs waiting at the executor, so that no worker waits for its next one


def _work(groups, files, records, seen, executor, deadline):
    """Hand groups of runs to the executor, a few at a time; append each record as it comes in, and add it to ``records``.

    The runs of a group train together; if that fails they are done one by one.
    """
    queue, running, failed, unwritten = deque(groups), {}, {}, deque()
    folder, died, full, cut_off, total = _folder(files), None, None, 0, sum(map(len, groups))
    interval = 0.1 if sys.stderr.isatty() else 30  # in a log, a line every half minute is enough
    with _open_claims(folder) as claims, tqdm(total=total, desc="training runs", unit="run", mininterval=interval) as bar:
        while running or (queue and not (died or full or _passed(deadline))):
            try:
                while not (died or full or _passed(deadline)) and len(running) < capacity(executor) + LEAD:
                    if not (group := _next(queue, records, seen, folder, claims)):
                        break
                    running[executor.submit(_execute, *_task(group, folder, deadline))] = group
            except BrokenExecutor as error:
                died = error
            if not running:
                time.sleep(1)  # all that is left is being done by other processes
            # Not for ever: workers may join, and other processes may finish or die.
            for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
                group = running.pop(future)
                try:
                    done = future.result()
                except (BrokenExecutor, CancelledError) as error:
                    died = error  # the runs that were finished before are still to come
                except Exception as error:
                    if len(group) > 1:
                        warnings.warn(f"{len(group)} runs could not be trained together ({error}): they are done one by one", stacklevel=4)
                        queue.extend([run] for run in group)
                    else:
                        failed[group[0]] = error
                else:
                    if done is not None:
                        unwritten.extend(zip(group, done))
                        continue  # the claims are given up when it is on record
                    cut_off += len(group)
                for run in group:
                    _release(claims, run)
            full = _record_all(unwritten, files, records, claims)
            bar.update(total - sum(map(len, (*queue, *running.values()))) - cut_off - bar.n)
    finished = sum(run.id in records for group in groups for run in group)
    if full:
        raise RuntimeError(f"{full}. {len(unwritten)} finished runs could not be put on record and will be done again") from full
    if died:
        what = "a worker process died (was it killed, or out of memory?)"
        if not isinstance(died, BrokenProcessPool):
            what = "the executor dropped its runs (has its scheduler died, or the network?)"
        raise RuntimeError(
            f"{what}; {finished} of {total} runs were finished and are in {folder}: run again to carry on"
        ) from died
    if failed:
        run, error = next(iter(failed.items()))
        raise RuntimeError(
            f"{len(failed)} of {total} runs failed, the others are in {folder}. The first: {run}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _record_all(unwritten, files, records, claims):
    """Put finished runs on record; the error if there was no room for all: the rest stays in ``unwritten`` for another try."""
    while unwritten:
        run, record = unwritten[0]
        try:
            append(files[run], record)
        except RuntimeError as error:
            return error
        records[run.id] = record
        _release(claims, run)
        unwritten.popleft()
    return None


def _passed(deadline):
    return deadline is not None and time.time() >= deadline


def _next(queue, records, seen, folder, claims):
    """Take the first group off the queue, less what is on record and what other processes are at; []: there is none now."""
    for _ in range(len(queue)):
        wanted = [run for run in queue.popleft() if run.id not in records]
        mine = [run for run in wanted if _claim(claims, run)]
        if busy := [run for run in wanted if run not in mine]:
            queue.append(busy)
        if mine:
            for found, record in read(folder, seen).items():
                records.setdefault(found, record)
            for run in [run for run in mine if run.id in records]:
                _release(claims, run)
                mine.remove(run)
        if mine:
            return mine
    return []


def _task(group, folder, deadline):
    """The arguments of ``_execute`` for a group of runs."""
    checkpoint = checkpoint_of(group[0], folder)  # only trainings of some minutes ever write it
    checkpoint.parent.mkdir(exist_ok=True)
    return [dataclasses.asdict(run) for run in group], snipkit.__version__, str(checkpoint), deadline


def checkpoint_of(run, folder) -> Path:
    """Where the state of an unfinished run, or of the stack that it is the first of, is kept in a folder of results."""
    return Path(folder) / "checkpoints" / f"{run.id}.pt"


def _execute(runs, version, checkpoint, deadline):
    """What a worker does with a group: plain values in, plain values out, one thread; None when the deadline came first."""
    here = socket.gethostname()
    if version != snipkit.__version__:
        raise RuntimeError(f"the worker on {here} has snipkit {snipkit.__version__}, not {version}: install the same on all machines")
    if _passed(deadline):
        return None
    if not Path(checkpoint).parent.is_dir():
        # A machine that does not share the folder of results: the state is of use if the same machine gets the run again.
        checkpoint = Path(tempfile.gettempdir()) / f"snipkit-{os.getuid()}" / Path(checkpoint).name
        checkpoint.parent.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    device = "cuda" if _on_gpu() else "cpu"
    runs = [Run(**run) for run in runs]
    try:
        if len(runs) > 1:
            return execute_stack(runs, device, checkpoint, deadline)
        return [execute(runs[0], device, checkpoint, deadline)]
    except training.Interrupted:
        return None
    except sources.DataError as error:
        raise sources.DataError(f"on {here}: {error}") from error


def _on_gpu():
    return torch.cuda.is_available()


def capacity(executor: Executor | None = None) -> float:
    """How many runs an executor (by default: this machine) does at a time; infinity where it does not say."""
    if executor is None:
        return _workers()
    if client := getattr(executor, "_client", None):  # Dask's: its workers come and go
        try:
            return sum(client.nthreads().values())
        except OSError as error:
            raise BrokenExecutor("its scheduler does not answer") from error
    return getattr(executor, "_max_workers", math.inf)  # the standard library's


def _workers():
    return 1 if _on_gpu() else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processes(workers):
    # Spawned, not forked: a forked copy of a process that used torch's threads can hang.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_die_with_parent)


def _die_with_parent():
    """End this worker when the parent is gone (kill -9 leaves it no chance to say so)."""
    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- the results files ----------------------------------------------------------------------------------------------


def append(results, record) -> None:
    """Append one record as one line, locked and flushed to the disk; a torn line before it is closed first.

    Raises:
        RuntimeError: it cannot be written (a full disk, no permission); then the file is as it was before.
    """
    results = Path(results)
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    with _clearly(results):
        results.parent.mkdir(parents=True, exist_ok=True)
        with open(results, "ab+", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if end := stream.seek(0, os.SEEK_END):
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    line = b"\n" + line
            try:
                while line:
                    line = line[stream.write(line) :]
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(end)  # takes back the half of our own line, and no more
                raise


@contextlib.contextmanager
def _clearly(path):
    """Turn what the system says of a file that cannot be written into what to do about it."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise RuntimeError(
            f"{path} cannot be written: {'the disk is full' if full else error.strerror}. What was on record still is; "
            f"{'make room' if full else 'change that'} and run again to carry on"
        ) from error


# One byte of the lock file stands for one run. The system frees what a process held when it ends, however it ends.


def _open_claims(folder):
    with _clearly(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / ".claims", "ab")


def _claim(claims, run):
    """Whether the run is ours to do; False: another process is at it."""
    try:
        fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(run.id, 16))
    except (BlockingIOError, PermissionError):  # systems differ in how they say so
        return False
    return True


def _release(claims, run):
    fcntl.lockf(claims, fcntl.LOCK_UN, 1, int(run.id, 16))


def read(folder, seen=None) -> dict[str, dict]:
    """All records in the ``.jsonl`` files of a folder, by run id; the first of several of one run counts.

    Args:
        seen: a dict, in which a call keeps how far it read; the next call with it reads only what was added since.

    Warns:
        UserWarning: a line that is not a record of this version (a torn write, a field that ``Run`` does not have), with file
            and line number; it is skipped and left alone.
    """
    records, seen = {}, {} if seen is None else seen
    for path in sorted(Path(folder).glob("*.jsonl")):
        start, number = seen.get(path, (0, 1))
        with open(path, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)  # a line that is just being written is waited for
            stream.seek(start)
            lines = stream.readlines()
        for line in lines:
            if line.strip():
                try:
                    record = json.loads(line)
                    if missing := {"run", "outcome", "kept", "provenance"} - set(record):
                        raise ValueError(f"without {', '.join(sorted(missing))}")
                    # Recomputed, not trusted: a field that has got a new default must not make an old record match.
                    records.setdefault(Run(**record["run"]).id, record)
                except (ValueError, TypeError) as error:
                    warnings.warn(f"{path}, line {number} is not a record ({error}): skipped", stacklevel=2)
            number += line.endswith(b"\n")
        seen[path] = start + sum(map(len, lines)), number
    return records


def table(runs, records) -> pd.DataFrame:
    """One row a run that is on record, in the order of ``runs``: what it was, what it came to.

    Columns: id; method; every field of ``Run`` but the recipe, which stands as its ``steps``; test_error and
    best_of_last_five (percent, NaN where training diverged); test_loss; train_loss and train_error (their curves: a value
    each ``training.log_interval`` steps); empty_layers (weights without a kept entry); effective_sparsity
    (``masking.effective``; NaN where it is not known); seconds.
    """
    rows = []
    for run in runs:
        if (record := records.get(run.id)) is None:
            continue
        outcome = record["outcome"] or {}
        rows.append(
            {"id": run.id, "method": run.method}
            | {part.name: getattr(run, part.name) for part in fields(run) if part.name != "recipe"}
            | {"steps": run.recipe.steps}
            | {name: outcome.get(name, np.nan) for name in ("test_error", "best_of_last_five", "test_loss")}
            | {name: outcome.get(name) or [] for name in ("train_loss", "train_error")}
            | {
                "empty_layers": sum(
                    not kept for name, (kept, _) in record["kept"].items() if not masking.is_bias(name)
                ),
                "effective_sparsity": _effective_sparsity(record),
                "seconds": record["provenance"]["seconds"],
            }
        )
    return pd.DataFrame(rows)


def _effective_sparsity(record):
    total = sum(total for _, total in record["kept"].values())
    return np.nan if record.get("effective") is None or not total else 1 - record["effective"] / total


def seconds(runs, records) -> dict[Run, float]:
    """How long each of the runs takes on one worker of this machine.

    Runs of the same model, recipe and test size that are on record *here* are the measure where there are any; for
    the rest a few training steps and one evaluation batch are timed.

    Args:
        runs: the runs still to do.
        records: what ``read`` gave; only the records of this machine's own results should be passed.
    """
    spent = {}
    for record in records.values():
        if not record["provenance"].get("resumed"):
            spent.setdefault(_cost_key(Run(**record["run"])), []).append(record["provenance"]["seconds"])
    known = {key: float(np.median(values)) for key, values in spent.items()}
    for run in runs:
        if _cost_key(run) not in known:
            known[_cost_key(run)] = _time(run)
    return {run: known[_cost_key(run)] for run in runs}


def _cost_key(run):
    return run.data, run.model, str(run.options), run.recipe, run.test_size


def _time(run):
    """Seconds of one run, extrapolated from a few steps on made-up images."""
    (shape, classes), device = data.SHAPES[run.data], "cuda" if _on_gpu() else "cpu"
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (10 * run.recipe.batch_size, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (len(pixels),), generator=generator)
    images = data.Images(pixels, labels, (0.5,) * shape[0], (0.3,) * shape[0]).to(device)
    made_up = data.Dataset(run.data, classes, images, images, images.take(slice(1)))
    model = build(run, run.training_init, 0, device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        training.train(model, {}, made_up, dataclasses.replace(run.recipe, steps=1))  # the first step is slower
        spent, steps = 0.0, 0
        while spent < 0.2:
            start = time.perf_counter()
            training.train(model, {}, made_up, dataclasses.replace(run.recipe, steps=10, lr=1e-4))
            spent, steps = spent + time.perf_counter() - start, steps + 10
        step = spent / steps
        start = time.perf_counter()
        training.evaluate(model, images)
        test = (time.perf_counter() - start) / len(images)
    finally:
        torch.set_num_threads(threads)
    return run.recipe.steps * step + training.CHECKPOINTS * (run.test_size or 10_000) * test
