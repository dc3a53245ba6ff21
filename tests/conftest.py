import pytest
import torch
from torch import nn

from snipkit import data
from snipkit.study import datasets


@pytest.fixture(autouse=True)
def one_thread():
    """One thread: the number of threads moves the last digits of sums."""
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
    """A small convolutional network with batch norm, and eight images for it, in double precision."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3)
    ).double()
    for module in model:
        if getattr(module, "bias", None) is not None and not isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.bias)
    return model, (torch.randn(8, 1, 11, 11).double(), torch.arange(8) % 3)
