"""Scoring, training and resuming on a pretended device, so that a tensor left on the CPU fails
here, not on a GPU.

``FakeTensorMode`` calculates shapes and devices without numbers. The device is "meta", the only one
besides the CPU on which a CPU build of torch runs a backward pass. Reading a value, autocast and
fused optimisers are replaced, since they need a real device. What a real GPU alone can show is in
``gpu_check.py``.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_map_only

import snipkit
from snipkit import data, models, training
from snipkit._scoring import objective
from snipkit.beyond import shuffles
from snipkit.recipe import Recipe
from snipkit.study.train import checkpoints
from snipkit.study.train.stacking import train_stack

DEVICE = "meta"
SGD = Recipe(steps=3, batch_size=10, augment="flip-shift", precision="bfloat16")
ADAM = Recipe(steps=3, batch_size=10, optimiser="adam", schedule="onecycle")
RECIPES = pytest.mark.parametrize("recipe", [SGD, ADAM], ids=["sgd", "adam"])


@pytest.fixture
def pretended(monkeypatch):
    """The mode, entered. Values read from tensors are made up."""

    def made_up(real, value):
        return lambda self, *given: (
            value(self) if isinstance(self, FakeTensor) else real(self, *given)
        )

    values = {
        "item": lambda _: 1.0,
        "__float__": lambda _: 1.0,
        "__int__": lambda _: 1,
        "__index__": lambda _: 0,
        "__bool__": lambda _: True,
        "tolist": lambda self: np.ones(self.shape).tolist(),
        "numpy": lambda self: np.random.default_rng(0).random(self.shape, np.float32),
    }
    for name, value in values.items():
        monkeypatch.setattr(torch.Tensor, name, made_up(getattr(torch.Tensor, name), value))
    sgd, adam, autocast = torch.optim.SGD, torch.optim.Adam, torch.autocast
    monkeypatch.setattr(torch.optim, "SGD", lambda *given, fused, **options: sgd(*given, **options))
    monkeypatch.setattr(
        torch.optim, "Adam", lambda *given, fused, **options: adam(*given, **options)
    )
    monkeypatch.setattr(
        torch, "autocast", lambda _device, *given, **options: autocast("cpu", *given, **options)
    )
    for module in (objective, training):
        monkeypatch.setattr(
            module, "check_labels", lambda targets, outputs: targets + outputs.argmax(1)[:1]
        )
    data._in_pixels.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode
    data._in_pixels.cache_clear()


def network(name="lenet-300-100", **options):
    with torch.device(DEVICE):
        return models.MODELS[name](num_classes=10, **options)


def dataset(shape=(1, 28, 28), test=10):
    pixels, labels = torch.zeros(50, *shape, dtype=torch.uint8), torch.zeros(50, dtype=torch.int64)
    images = data.Images(pixels, labels, (0.5,) * shape[0], (0.3,) * shape[0]).to(DEVICE)
    parts = images.take(slice(30)), images.take(slice(0)), images.take(slice(50 - test, None))
    return data.Splits("pretended", 10, *parts)


def devices(tensors):
    return {tensor.device.type for tensor in tensors}


def test_the_mode_notices_a_tensor_on_another_device(pretended):
    with pytest.raises(RuntimeError, match="found at least two devices"):
        network()(torch.zeros(2, 1, 28, 28))


@pytest.mark.parametrize("criterion", snipkit.CRITERIA)
def test_scores_and_masks_are_on_the_models_device(pretended, criterion):
    model, sample = network(), data.sample(dataset().train, 10, torch.Generator().manual_seed(0))
    assert devices(sample) == {DEVICE}
    if snipkit.PASSES[criterion] > 2:
        criterion = partial(snipkit.CRITERIA[criterion], rounds=3)
    masks = snipkit.prune(model, [sample, sample], 0.5, criterion, batch_norm="train")
    assert devices(masks.values()) == {DEVICE}
    shuffled = shuffles.shuffle(masks, torch.Generator().manual_seed(0))
    assert devices(shuffled.values()) == {DEVICE}


@pytest.mark.parametrize(
    "name, options",
    [
        ("lenet-5-caffe", {}),
        ("lstm-s", {}),
        ("gru-s", {}),
        ("alexnet-s", {"width": 0.1}),
    ],
)
def test_other_networks_are_pruned(pretended, name, options):
    images = dataset((1, 28, 28) if name in ("lenet-5-caffe", "lstm-s", "gru-s") else (3, 32, 32))
    model = network(name, **options)
    assert devices(snipkit.prune(model, images.train[:10], 0.5).values()) == {DEVICE}


@RECIPES
def test_training_stays_on_the_device(pretended, recipe):
    model, images = network(), dataset()
    # As from a file.
    masks = {name: torch.ones(p.shape, dtype=torch.bool) for name, p in model.named_parameters()}
    outcome = training.train(model, masks, images, recipe)
    assert len(outcome.train_loss) == 3
    assert devices(model.state_dict().values()) == {DEVICE}


@RECIPES
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "unshared"])
def test_a_stack_stays_on_the_device(pretended, recipe, shared):
    networks, images = [network() for _ in range(3)], dataset()
    masks = [{"fc1.weight": torch.ones(300, 784, dtype=torch.bool)}, {}, {}]
    sets = (
        [images] * 3 if shared else [images, dataset(test=5), replace(dataset(), train=plain(30))]
    )
    train_stack(networks, masks, sets, recipe, seeds=[0, 1, 2])
    assert devices(networks[1].state_dict().values()) == {DEVICE}


def plain(count):
    """Images without row numbers."""
    pixels = torch.zeros(count, 1, 28, 28, dtype=torch.uint8)
    return data.Images(pixels, torch.zeros(count, dtype=torch.int64), (0.5,), (0.3,)).to(DEVICE)


@RECIPES
@pytest.mark.parametrize("stacked", [False, True], ids=["alone", "stack"])
def test_a_resumed_training_is_on_the_device_again(
    pretended, recipe, stacked, tmp_path, monkeypatch
):
    """A file gives tensors on the CPU, of which some belong on the device and some, as generators'
    states, do not.
    """
    kept = {}

    def save(content, path):
        kept.update(
            tree_map_only(
                torch.Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), content
            )
        )
        path.touch()

    monkeypatch.setattr(torch, "save", save)
    monkeypatch.setattr(torch, "load", lambda *_, **__: kept)
    monkeypatch.setattr(checkpoints, "_digest", lambda parts: "the same")
    monkeypatch.setattr(checkpoints.zipfile, "ZipFile", Whole)
    monkeypatch.setattr(training, "augmentation_generator", lambda seed: Stream())
    recipe = replace(recipe, augment="none")

    def train(deadline):
        checkpoint = checkpoints.Checkpoint(tmp_path / "state.pt", deadline)
        if stacked:
            networks, sets = [network(), network()], [dataset()] * 2
            return train_stack(
                networks, [{}, {}], sets, recipe, seeds=[0, 1], checkpoint=checkpoint
            )
        return training.train(network(), {}, dataset(), recipe, checkpoint=checkpoint)

    for step in (1, 2):
        with pytest.raises(checkpoints.Interrupted, match=f"after step {step};"):
            train(deadline=0.0)
    train(deadline=None)


class Stream:
    """A generator: its state must be on the CPU."""

    def get_state(self):
        return torch.zeros(1, dtype=torch.uint8)

    def set_state(self, state):
        assert state.device.type == "cpu"


class Whole:
    """An archive without damage."""

    def __init__(self, path):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def testzip(self):
        pass
