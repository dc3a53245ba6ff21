"""Carrying out one run, or a stack of them: load, score, mask, train, record."""

import dataclasses
import inspect
import json
import time
import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

import snipkit
from snipkit import data, masking, models, outcomes, training
from snipkit.beyond import controls, densities, shuffles
from snipkit.study.sets import datasets
from snipkit.study.train import provenance
from snipkit.study.train.checkpoints import Checkpoint
from snipkit.study.train.records import Record
from snipkit.study.train.runs import NOISE, SHUFFLES, Run
from snipkit.study.train.stacking import train_stack

SCORED_AT_ONCE = 1000  # images; the scores are those of the whole batch (law 4)
LENETS = (
    "lenet-300-100",
    "lenet-5-caffe",
)  # small enough for stacks on a GPU, and chains that can be compacted
TINY = (
    "mlp-1d",
    "cnn-1d",
)  # small enough for stacks on a CPU: half the time of training them alone


def load(run: Run, device: str = "cpu") -> data.Dataset:
    """The data set of a run, with the run's split and sizes."""
    dataset = datasets.load(
        run.data,
        split_seed=run.seeds()["split"],
        train_size=run.train_size,
        test_size=run.test_size,
        device=device,
    )
    return _with_pixels(run, dataset)


def _with_pixels(run, dataset):
    """The data set with the pixels that the run asks for.

    Left as they are, "unit" ones are in [0, 1].
    """
    if run.pixels == "standardised":
        return dataset
    channels = len(dataset.train.mean)
    parts = {}
    for part in ("train", "val", "test"):
        images = getattr(dataset, part)
        parts[part] = dataclasses.replace(images, mean=(0.0,) * channels, std=(1.0,) * channels)
    return dataclasses.replace(dataset, **parts)


def build(run: Run, init: str, seed: int, device: str = "cpu") -> torch.nn.Module:
    """The network of a run, for its data set's images and classes, freshly initialised."""
    (_, _, side), classes = datasets.SHAPES[run.data]
    model = models.build(
        run.model, num_classes=classes, init=init, seed=seed, image_size=side, **run.options
    )
    return model.to(device, memory_format=torch.channels_last)


def scoring_batches(run: Run, dataset: data.Dataset) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The (inputs, targets) pairs that a run scores on: its mini-batch in pieces of
    ``SCORED_AT_ONCE`` images.

    With batch norm in train mode it stays in one piece, since there its statistics belong to the
    score.
    """
    seeds, images = run.seeds(), dataset.train
    generator = torch.Generator().manual_seed(seeds["batch"])
    device = images.labels.device
    if run.scoring_data == NOISE:
        shape, classes = datasets.SHAPES[run.data]
        size = run.scoring_batch or len(images)
        inputs = torch.randn(size, *shape, generator=generator).to(device)
        labels = torch.randint(classes, (size,), generator=generator).to(device)
    else:
        if run.scoring_data:
            split = seeds["split"]
            other = datasets.load(
                run.scoring_data, split_seed=split, train_size=run.train_size, device=device
            )
            images = _with_pixels(run, other).train
        if run.scoring_labels == "random":
            images = data.shuffle_labels(images, torch.Generator().manual_seed(seeds["labels"]))
        inputs, labels = data.sample(images, run.scoring_batch, generator, run.scoring_sample)
    inputs = data.augment(inputs, run.scoring_augment, generator)
    size = len(labels) if run.batch_norm == "train" else SCORED_AT_ONCE
    return list(zip(inputs.split(size), labels.split(size)))


def find_masks(run: Run, dataset: data.Dataset, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The masks of a run: initialise the network to be scored, score it on one batch, keep the best
    (or ablate).

    A pretrained run scores the network as a dense training leaves it: this takes as long as a run.

    Args:
        run: any run but a dense one.
        dataset: what ``load`` gave for the run.

    Raises:
        training.DivergedError: from the dense training of a pretrained run.

    Source: SNIP Algorithm 1, lines 1 to 5; for pretrained runs Frankle and Carbin (ICLR 2019),
    section 1, in one shot.
    """
    seeds = run.seeds()
    model = _scored(run, device)
    if run.criterion in densities.COUNTS:
        generator = torch.Generator().manual_seed(seeds["criterion"])
        masks = densities.random_masks(run.criterion, model, run.sparsity, generator, run.biases)
    else:
        sparsity = run.sparsity
        if run.layer_counts != "own":
            sparsity = densities.DENSITIES[run.layer_counts](model, sparsity, biases=run.biases)
        scores = _scores(
            run, _pretrained(run, device) if run.pretrained else model, dataset, device
        )
        masks = (masking.keep_lowest if run.ablation == "invert" else masking.keep_top)(
            scores, sparsity
        )
    generator = torch.Generator().manual_seed(seeds["ablation"])
    if run.ablation == "relabel":
        return shuffles.relabel(model, masks, dataset.test[:1][0], generator)
    if run.ablation == "shuffle-channels":
        return shuffles.shuffle(masks, generator, keep="units", positions=False)
    if run.ablation in SHUFFLES:
        return shuffles.shuffle(
            masks, generator, keep=run.ablation.removeprefix("shuffle").lstrip("-") or "layers"
        )
    if run.ablation == "live-units":
        return controls.keep_live_units(masks, generator)
    if run.ablation == "misaligned":
        return controls.misalign(masks, generator)
    return masks


def _scores(run, model, dataset, device):
    """The scores of a run's criterion.

    A twin draws its weights w' by the stream of the criterion, which SNIP does not use.
    """
    seed = run.seeds()["criterion"]
    generator = torch.Generator().manual_seed(seed)
    twin = controls.TWINS.get(run.criterion)
    criterion = snipkit.CRITERIA["gradient" if twin else run.criterion]
    options = {"generator": generator, "sparsity": run.sparsity}
    taken = inspect.signature(criterion).parameters
    scores = criterion(
        model,
        scoring_batches(run, dataset),
        biases=run.biases,
        batch_norm=run.batch_norm,
        **{name: value for name, value in options.items() if name in taken},
    )
    if not twin:
        return scores
    fresh = dict(build(run, run.scoring_init, seed, device).named_parameters())
    return twin(scores, fresh, generator)


def _scored(run, device):
    """The network that a run scores; with ``same_draw`` it is the one that it trains."""
    seed = run.seeds()["scoring_init"]
    model = build(run, run.scoring_init, seed, device)
    if run.scoring_biases == "random":
        _draw_biases_(model, run.scoring_init, seed)
    return model


@torch.no_grad()
def _draw_biases_(model, init, seed):
    """Biases as TensorFlow's variance scaling draws them: of a vector, fan-in and fan-out are both
    its length.

    The weights of the seed stay as they are: biases have a generator of their own.
    """
    own_seed = np.random.SeedSequence([seed, 2]).generate_state(1)[0]
    generator = torch.Generator().manual_seed(int(own_seed))
    for name in filter(snipkit.is_bias, snipkit.prunable(model)):
        bias = model.get_parameter(name)
        drawn = torch.empty(bias.shape)
        models.INITIALISERS[init](drawn, len(bias), len(bias), generator)
        bias.copy_(drawn)


def _pretrained(run, device):
    """The network after the dense training of a run.

    The very training of the dense run with its seed.
    """
    dense = dataclasses.replace(
        run, criterion="dense", sparsity=0.0, ablation="none", pretrained=False, layer_counts="own"
    )
    return _trained(dense, device)


@lru_cache(maxsize=64)  # as many as a stack: runs that differ in sparsity or ablation share it
def _trained(run, device):
    model, _, dataset = _prepare(run, load(run, device), device)
    training.train(model, {}, dataset, run.recipe, seed=run.seeds()["order"])
    return model


def execute(run: Run, device: str = "cpu", checkpoint: Checkpoint | None = None) -> Record:
    """Do a run. A training that diverges is a result, too.

    Raises:
        checkpoints.Interrupted: it was stopped; the checkpoint has its state.
    """
    start = time.perf_counter()
    model, masks, dataset = None, {}, load(run, device)
    try:
        model, masks, dataset = _prepare(run, dataset, device)
        if checkpoint is not None:
            (masks,) = checkpoint.carried([run.id], [masks])
        network, own_masks = _compact(run, model, masks, dataset)
        outcome = training.train(
            network,
            own_masks,
            dataset,
            run.recipe,
            seed=run.seeds()["order"],
            checkpoint=checkpoint,
        )
    except outcomes.DivergedError as error:
        outcome = error
    seconds = round(time.perf_counter() - start, 2)
    origin = {"seconds": seconds} | _resumed(checkpoint) | provenance.here(device, model)
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
    loaded, test = {}, None
    for run in runs:
        if (split := run.seeds()["split"]) not in loaded:
            dataset = load(run, device)
            test = (
                test or dataset.test
            )  # it does not depend on the split: held, and gone through, once for all
            loaded[split] = dataclasses.replace(dataset, test=test)
    prepared, results = {}, {}
    for run in runs:
        try:
            prepared[run] = _prepare(run, loaded[run.seeds()["split"]], device)
        except outcomes.DivergedError as error:  # the dense training of a pretrained run
            results[run] = error
    if prepared:
        if checkpoint is not None:
            found = [masks for _, masks, _ in prepared.values()]
            carried = checkpoint.carried([run.id for run in prepared], found)
            for (run, (model, _, dataset)), masks in zip(prepared.items(), carried):
                prepared[run] = model, masks, dataset
        networks, masks, sets = map(list, zip(*prepared.values()))
        seeds = [run.seeds()["order"] for run in prepared]
        trained = train_stack(
            networks, masks, sets, runs[0].recipe, seeds=seeds, checkpoint=checkpoint
        )
        results |= zip(prepared, trained)
    seconds = round((time.perf_counter() - start) / len(runs), 2)
    origin = (
        {"seconds": seconds, "stack": len(runs)} | _resumed(checkpoint) | provenance.here(device)
    )
    return [
        _record(run, *prepared.get(run, (None, {}, None)), results[run], dict(origin))
        for run in runs
    ]


def stacks(runs: Sequence[Run], on_gpu: bool = True, limit: int = 64) -> list[list[Run]]:
    """The runs in groups that can train together, at most ``limit`` in each, in the order of the
    groups' first runs.

    Runs of ``TINY`` networks, and on a GPU of ``LENETS``, that share data set, sizes, model,
    options and recipe go together; all others are alone.
    """
    groups, small = {}, TINY + LENETS * on_gpu
    for run in runs:
        groups.setdefault(
            _stack_key(run) if run.model in small else (len(groups), run.id), []
        ).append(run)
    cut = [
        group[start : start + limit]
        for group in groups.values()
        for start in range(0, len(group), limit)
    ]
    place = {run: number for number, run in enumerate(runs)}
    return sorted(cut, key=lambda group: place[group[0]])


def _stack_key(run):
    options = json.dumps(run.options, sort_keys=True)
    return run.data, run.pixels, run.model, options, run.recipe, run.train_size, run.test_size


def _resumed(checkpoint):
    """A training that carried on says so: its seconds are those of the last part only."""
    return checkpoint.origin if checkpoint is not None else {}


def _prepare(run, dataset, device):
    """What a run trains.

    The network, its masks, and the data set with the labels that it is to learn.
    """
    seeds = run.seeds()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", masking.EmptyLayerWarning
        )  # the record has the counts of every layer
        masks = {} if run.criterion == "dense" else find_masks(run, dataset, device)
    if run.train_labels == "random":
        shuffled = data.shuffle_labels(
            dataset.train, torch.Generator().manual_seed(seeds["labels"])
        )
        dataset = dataclasses.replace(dataset, train=shuffled)
    model = (
        _scored(run, device)
        if run.same_draw
        else build(run, run.training_init, seeds["training_init"], device)
    )
    return model, masks, dataset


def _compact(run, model, masks, dataset):
    """The same function with fewer units, where some can be left out.

    It trains up to three times as fast.
    """
    if not masks or run.model not in LENETS:  # others have batch norm or gates between their layers
        return model, masks
    inputs = dataset.test[:1][0]
    on_path = snipkit.effective(model, masks, inputs)
    *hidden, last = [
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
    ]
    for name in (*hidden, last):
        bias = f"{name}.bias"
        constant = bias in masks and name != last and (masks[bias] & ~on_path[bias]).any()
        if constant or not on_path[f"{name}.weight"].any():
            return (
                model,
                masks,
            )  # it could get smaller, but the records were trained whole in these two cases
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
        return sum(
            int(mask.sum())
            for mask in snipkit.effective(model, masks, dataset.test[:1][0]).values()
        )
    except ValueError:
        return None
