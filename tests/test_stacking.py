"""Law 7: networks that train as a stack follow the paths that they follow alone."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from snipkit import models, training
from snipkit.data import Images
from snipkit.outcomes import DivergedError
from snipkit.recipe import Recipe
from snipkit.study.train.stacking import Stack, train_stack

SHORT = Recipe(steps=30, batch_size=13, lr=0.05)
SEEDS = (5, 6, 7)


def splits(dataset, kind):
    """Three data sets with different training examples, of equally many images."""
    orders = [
        torch.randperm(120, generator=torch.Generator().manual_seed(seed))[:100]
        for seed in range(3)
    ]
    parts = [dataset.train.take(order) for order in orders]
    tests = [dataset.test] * 3
    if kind == "own pixels":
        parts[1] = replace(parts[1], pixels=parts[1].pixels.clone())
        # Without rows.
        parts[2] = Images(
            parts[2].pixels[parts[2].rows], parts[2].labels, parts[2].mean, parts[2].std
        )
        tests = [dataset.test.take(slice(size)) for size in (40, 30, 20)]
    return [replace(dataset, train=part, test=test) for part, test in zip(parts, tests)]


def alone_and_stacked(small_networks, network, datasets, recipe, double=True):
    """Networks trained one by one and together, and the outcomes.

    The masks differ; the last network is dense.
    """
    alone = [getattr(small_networks, network)(seed) for seed in range(3)]
    masks = [small_networks.masks(model, seed) for seed, model in enumerate(alone)]
    masks[1] = dict(list(masks[1].items())[:1])
    masks[2] = {}
    if double:
        alone, datasets = (
            [model.double() for model in alone],
            [small_networks.double(d) for d in datasets],
        )
        # One object.
        datasets = [replace(d, test=datasets[0].test) if len(d.test) == 40 else d for d in datasets]
    together = copy.deepcopy(alone)
    expected = [
        training.train(*each, recipe, seed=seed)
        for *each, seed in zip(alone, masks, datasets, SEEDS)
    ]
    results = train_stack(together, masks, datasets, recipe, seeds=SEEDS)
    return alone, expected, together, results, masks


def largest_difference(models, others):
    pairs = [(a.state_dict(), b.state_dict()) for a, b in zip(models, others)]
    return max(
        float((a[name].double() - b[name].double()).abs().max()) for a, b in pairs for name in a
    )


@pytest.mark.parametrize(
    "network, kind, changes",
    [
        ("mlp", "shared pixels", {"weight_decay": 0.01, "decay_every": 10}),
        ("mlp", "own pixels", {"optimiser": "adam", "lr": 0.01, "augment": "flip-shift"}),
        ("conv", "own pixels", {"schedule": "onecycle", "weight_decay": 0.05}),
        (
            "conv",
            "shared pixels",
            {"optimiser": "adam", "lr": 0.01, "weight_decay": 0.05, "augment": "flip-shift"},
        ),
    ],
)
def test_law_7_a_stack_follows_each_network_alone(blobs, small_networks, network, kind, changes):
    """In double precision.

    In single precision a unit near 0 can be on in one training and off in the other.
    """
    recipe = replace(SHORT, **changes)
    alone, expected, stack, results, masks = alone_and_stacked(
        small_networks, network, splits(blobs, kind), recipe
    )
    assert largest_difference(alone, stack) < 1e-12  # measured: up to 2e-14
    for model, own in zip(stack, masks):
        assert (
            all(not model.get_parameter(name)[~mask].any() for name, mask in own.items())
            and not model.training
        )
    for outcome, other in zip(results, expected):
        assert outcome.train_error == other.train_error
        assert outcome.train_loss == pytest.approx(other.train_loss, rel=1e-6)
        assert (outcome.test_error, outcome.best_of_last_five) == (
            other.test_error,
            other.best_of_last_five,
        )
        assert outcome.test_loss == pytest.approx(other.test_loss, rel=1e-6)


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-5), ("bfloat16", 0.01)])
def test_a_stack_in_lower_precision(blobs, small_networks, precision, tolerance):
    recipe = replace(SHORT, steps=10, schedule="onecycle", precision=precision)
    datasets = splits(blobs, "shared pixels")
    alone, expected, stack, results, _ = alone_and_stacked(
        small_networks, "mlp", datasets, recipe, double=False
    )
    assert largest_difference(alone, stack) < tolerance
    assert results[0].train_loss == pytest.approx(expected[0].train_loss, rel=tolerance)


def test_a_stack_of_lenet_5_caffe(mnist):
    """Convolutions with max-pooling, on real digits."""
    dataset, recipe = (
        replace(mnist, test=mnist.test.take(slice(50))),
        Recipe(steps=3, batch_size=10, lr=0.01),
    )
    alone, together = (
        [models.build("lenet-5-caffe", seed=seed) for seed in range(2)] for _ in range(2)
    )
    expected = [
        training.train(model, {}, dataset, recipe, seed=seed) for seed, model in enumerate(alone)
    ]
    results = train_stack(together, [{}, {}], [dataset] * 2, recipe, seeds=[0, 1])
    assert largest_difference(alone, together) < 1e-5
    assert [o.test_loss for o in results] == pytest.approx(
        [o.test_loss for o in expected], rel=1e-4
    )


def test_a_stack_of_one(blobs, small_networks):
    recipe = replace(SHORT, augment="flip-shift")
    alone, stacked = small_networks.conv(), small_networks.conv()
    expected = training.train(alone, {}, blobs, recipe)
    (outcome,) = train_stack([stacked], [{}], [blobs], recipe, seeds=[0])
    assert (
        largest_difference([alone], [stacked]) < 1e-5 and outcome.test_error == expected.test_error
    )


def test_shared_pixels_are_held_once(blobs, small_networks):
    for kind, count in (("shared pixels", 1), ("own pixels", 3)):
        stack = Stack(
            [small_networks.mlp(seed) for seed in range(3)], [{}] * 3, splits(blobs, kind)
        )
        assert len(stack.pixels) == count


def test_networks_with_one_test_set_are_tested_together(blobs, small_networks, monkeypatch):
    stack, passes = (
        Stack([small_networks.mlp(seed) for seed in range(3)], [{}] * 3, [blobs] * 3),
        [],
    )

    def forward(self, inputs, shared=False):
        passes.append(inputs.shape)
        return torch.zeros(3 * len(inputs), 5)

    monkeypatch.setattr(Stack, "__call__", forward)
    assert len(stack.evaluate()) == 3 and passes == [(40, 1, 8, 8)]


def test_a_network_that_diverges_does_not_spoil_its_stack(blobs, small_networks):
    def build(seed):
        model = small_networks.mlp(seed)
        if seed == 1:
            with torch.no_grad():
                model[1].weight.mul_(1e30)
        return model

    networks = [build(seed) for seed in range(3)]
    results = train_stack(networks, [{}] * 3, [blobs] * 3, SHORT, seeds=SEEDS)
    assert isinstance(results[1], DivergedError) and "by step 2 of 30" in str(results[1])
    for number in (0, 2):
        alone = build(number)
        expected = training.train(alone, {}, blobs, SHORT, seed=SEEDS[number])
        assert results[number].train_loss == pytest.approx(expected.train_loss, rel=1e-4)
        assert largest_difference([alone], [networks[number]]) < 1e-5
    steps = []
    hopeless = train_stack(
        [build(1)], [{}], [blobs], SHORT, seeds=[0], checkpoint=small_networks.Spy(steps.append)
    )
    assert [type(outcome) for outcome in hopeless] == [DivergedError]
    assert steps == [1], "a training without a network that can be saved ends"


def test_what_cannot_be_stacked_is_named(blobs, small_networks):
    def refused(message, first, second, datasets=(blobs, blobs), recipe=SHORT, masks=({}, {})):
        with pytest.raises(ValueError, match=message):
            train_stack([first, second], masks, datasets, recipe, seeds=[0, 1])

    mlp = small_networks.mlp
    for layer in (nn.LSTM(28, 10), nn.GRU(28, 10), nn.LSTMCell(28, 10), nn.Dropout()):
        name = type(layer).__name__
        refused(
            f"1 is a {name}, which cannot be stacked", nn.Sequential(nn.Flatten(), layer), mlp()
        )
    refused(
        "the models of a stack must be alike: number 1 is not like number 0",
        mlp(),
        small_networks.conv(),
    )
    refused("the models of a stack must be alike", mlp(), mlp(outputs=6))
    fewer = replace(blobs, train=blobs.train.take(slice(100)))
    refused("the training sets of a stack must be alike", mlp(), mlp(), (blobs, fewer))
    brighter = replace(blobs, train=replace(blobs.train, mean=(0.4,)))
    refused("the training sets of a stack must be alike", mlp(), mlp(), (blobs, brighter))
    refused("a stack of 2 models, 1 mask sets, 2 data sets and 2 seeds", mlp(), mlp(), masks=[{}])
    refused("labels from 0 to 4 do not fit a network of 4 outputs", mlp(outputs=4), mlp(outputs=4))
    refused("batch size is 3000", mlp(), mlp(), recipe=Recipe(steps=1, batch_size=3000))
    refused("no images to evaluate on", mlp(), mlp(), (blobs, replace(blobs, test=blobs.val)))
    refused(
        "the mask of 1.weight",
        mlp(),
        mlp(),
        masks=[{}, {"1.weight": torch.ones(2, dtype=torch.bool)}],
    )
    with pytest.raises(ValueError, match="a stack of 0 models"):
        train_stack([], [], [], SHORT, seeds=[])
