import shutil
import signal
import types
from dataclasses import replace

import pytest
import torch
from tiny import write_notebook
from torch import nn

import snipkit
from snipkit import data
from snipkit.study import notebooks, paths
from snipkit.study.sets import datasets

# A shell starts background jobs with Ctrl-C ignored, and children inherit that; tests of Ctrl-C
# need it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What a time limit sends (`timeout`, a CI job) ends the tests as Ctrl-C does: fixtures clean up
# after themselves.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(autouse=True)
def one_thread():
    """One thread: the number of threads changes the last digits of sums."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mnist():
    return datasets.load("mnist")


@pytest.fixture(scope="session")
def batch(mnist):
    """The 100 digits that every test scores on."""
    return data.sample(mnist.train, 100, torch.Generator().manual_seed(0))


@pytest.fixture
def small():
    """A small convolutional network with batch norm, and eight images, in double precision."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(12, 4),
        nn.ReLU(),
        nn.Linear(4, 3),
    ).double()
    for module in model:
        if getattr(module, "bias", None) is not None and not isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.bias)
    return model, (torch.randn(8, 1, 11, 11).double(), torch.arange(8) % 3)


@pytest.fixture(scope="session")
def blobs():
    """120 training and 40 test images of 8 x 8 pixels.

    A pattern for each of 5 classes under noise.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (160,), generator=generator)
    patterns = torch.randint(0, 156, (5, 1, 8, 8), generator=generator)
    pixels = (patterns[labels] + torch.randint(0, 100, (160, 1, 8, 8), generator=generator)).to(
        torch.uint8
    )
    images = data.Images(pixels, labels, (0.5,), (0.3,))
    return data.Splits(
        "blobs", 5, images.take(slice(120)), images.take(slice(0)), images.take(slice(120, None))
    )


def _mlp(seed=0, outputs=5):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, outputs))


def _conv(seed=0):
    """With batch norm, in the memory layout that the study uses.

    No unit is dead, whatever the masks.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, 2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(36, 5),
        )
        return model.to(memory_format=torch.channels_last)


def _masks(model, seed=0):
    """About half of the prunable parameters, at random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(p.shape, generator=generator) < 0.5
        for name, p in snipkit.prunable(model).items()
    }


class _Doubled(data.Images):
    def standardise(self, pixels):
        return super().standardise(pixels).double()


def _double(dataset):
    """The data set with batches in double precision."""
    parts = {name: getattr(dataset, name) for name in ("train", "test")}
    return replace(dataset, **{name: _Doubled(**vars(part)) for name, part in parts.items()})


class _Spy:
    """A checkpoint that keeps nothing: it calls a function after each step but the last."""

    def __init__(self, function):
        self.after = function

    def restore(self, state):
        self.state = state
        return 0

    def done(self):
        pass


@pytest.fixture(scope="session")
def small_networks():
    """Networks for ``blobs``, masks for them, and what the tests of training, stacks and
    checkpoints share.
    """
    return types.SimpleNamespace(mlp=_mlp, conv=_conv, masks=_masks, double=_double, Spy=_Spy)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A project folder with one small notebook."""
    (tmp_path / "notebooks/profiles").mkdir(parents=True)
    write_notebook(tmp_path)
    for profile in notebooks.PROFILES:
        if profile != "lesson":
            text = "toy: {seeds: 2}" if profile == "laptop" else ""
            (tmp_path / f"notebooks/profiles/{profile}.yml").write_text(text)
    shutil.copy(paths.home() / "registration.csv", tmp_path)
    monkeypatch.setenv("SNIPKIT_DATA", str(paths.data_root()))
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path))
    return tmp_path
