"""What a run trains: its data set, the network that it scores, its masks, its network."""

import dataclasses
import inspect
import warnings
from functools import lru_cache

import numpy as np
import torch

import snipkit
from snipkit import data, masking, models, training
from snipkit.beyond import controls, densities, shuffles
from snipkit.study.sets import datasets
from snipkit.study.train.runs import NOISE, SHUFFLES, Run

SCORED_AT_ONCE = 1000  # images; the scores are those of the whole batch (law 4)


def load(run: Run, device: str = "cpu") -> data.Splits:
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
    # torch's stubs do not have this argument of ``Module.to``.
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def scoring_batches(run: Run, dataset: data.Splits) -> list[tuple[torch.Tensor, torch.Tensor]]:
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
            scoring_set = datasets.load(
                run.scoring_data,
                split_seed=seeds["split"],
                train_size=run.train_size,
                device=device,
            )
            images = _with_pixels(run, scoring_set).train
        if run.scoring_labels == "random":
            images = data.shuffle_labels(images, torch.Generator().manual_seed(seeds["labels"]))
        inputs, labels = data.sample(images, run.scoring_batch, generator, run.scoring_sample)
    inputs = data.augment(inputs, run.scoring_augment, generator)
    size = len(labels) if run.batch_norm == "train" else SCORED_AT_ONCE
    return list(zip(inputs.split(size), labels.split(size)))


def find_masks(run: Run, dataset: data.Splits, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The masks of a run: initialise the network to be scored, score it on one batch, keep the best
    (or ablate).

    A pretrained run scores the network as a dense training leaves it: this takes as long as a run.

    Args:
        run: any run but a dense one.
        dataset: what ``load`` gave for the run.

    Raises:
        outcomes.DivergedError: from the dense training of a pretrained run.

    Source: SNIP Algorithm 1, lines 1 to 5; for pretrained runs Frankle and Carbin (ICLR 2019),
    section 1, in one shot.
    """
    seeds = run.seeds()
    model = _scored(run, device)
    if run.criterion in densities.COUNTS:
        generator = torch.Generator().manual_seed(seeds["criterion"])
        masks = densities.random_masks(run.criterion, model, run.sparsity, generator, run.biases)
    else:
        sparsity: float | dict[str, float] = run.sparsity
        if run.layer_counts != "own":
            layer_sparsities = densities.DENSITIES[run.layer_counts]
            sparsity = layer_sparsities(model, run.sparsity, biases=run.biases)
        ranked = _pretrained(run, device) if run.pretrained else model
        scores = _scores(run, ranked, dataset, device)
        select = masking.keep_lowest if run.ablation == "invert" else masking.keep_top
        masks = select(scores, sparsity)
    generator = torch.Generator().manual_seed(seeds["ablation"])
    if run.ablation == "relabel":
        return shuffles.relabel(model, masks, dataset.test[:1][0], generator)
    if run.ablation == "shuffle-channels":
        return shuffles.shuffle(masks, generator, keep="units", positions=False)
    if run.ablation in SHUFFLES:
        keep = run.ablation.removeprefix("shuffle").lstrip("-") or "layers"
        return shuffles.shuffle(masks, generator, keep=keep)
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
    seed_of_biases = np.random.SeedSequence([seed, 2]).generate_state(1)[0]
    generator = torch.Generator().manual_seed(int(seed_of_biases))
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
    model, _, dataset = prepare(run, load(run, device), device)
    training.train(model, {}, dataset, run.recipe, seed=run.seeds()["order"])
    return model


def prepare(
    run: Run, dataset: data.Splits, device: str = "cpu"
) -> tuple[torch.nn.Module, dict[str, torch.Tensor], data.Splits]:
    """What a run trains.

    The network, its masks, and the data set with the labels that it is to learn.
    """
    seeds = run.seeds()
    with warnings.catch_warnings():
        # The record has the counts of every layer.
        warnings.simplefilter("ignore", masking.EmptyLayerWarning)
        masks = {} if run.criterion == "dense" else find_masks(run, dataset, device)
    if run.train_labels == "random":
        generator = torch.Generator().manual_seed(seeds["labels"])
        shuffled = data.shuffle_labels(dataset.train, generator)
        dataset = dataclasses.replace(dataset, train=shuffled)
    if run.same_draw:
        model = _scored(run, device)
    else:
        model = build(run, run.training_init, seeds["training_init"], device)
    return model, masks, dataset
