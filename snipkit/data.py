"""Whole data sets as tensors on one device.

MNIST-sized sets fit into memory many times over, so there is no loader and no worker: a batch is an index into a
``uint8`` tensor, standardised on the device the moment it is taken.
"""

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from snipkit import sources

#: name → (channels, height, width) of one image, number of classes
SHAPES = {"mnist": ((1, 28, 28), 10), "fashion-mnist": ((1, 28, 28), 10)}

VALIDATION_SHARE = 0.1  # of the training set (SNIP, section 5: 90 % is trained on)


@dataclass(frozen=True)
class Images:
    """One part of a data set: raw pixels and labels on a device; indexing gives standardised batches.

    Attributes:
        pixels: uint8, (N, C, H, W).
        labels: int64, (N,).
        mean, std: per channel, in units of pixel / 255; of the whole training set, before any split.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        """The images and labels at ``index`` (slice or int64 tensor): float32 (B, C, H, W), int64 (B,)."""
        return self.standardise(self.pixels[index]), self.labels[index]

    def standardise(self, pixels):
        """uint8 pixels (B, C, H, W) to float32 with the training set's mean 0 and standard deviation 1."""
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=pixels.device).mul_(255).view(shape)
        std = torch.tensor(self.std, device=pixels.device).mul_(255).view(shape)
        return pixels.float().sub_(mean).div_(std)

    def to(self, device):
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def take(self, index):
        """The part of this part at ``index``, still as raw pixels."""
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """The training, validation and test part of one data set."""

    name: str
    num_classes: int
    train: Images
    val: Images
    test: Images


def load(name, *, split_seed=0, train_size=None, test_size=None, root=None, device="cpu") -> Dataset:
    """Load a data set, fetching it if need be.

    Ten per cent of the training images are held out as ``val``, chosen by ``split_seed``. ``train_size`` and
    ``test_size`` take only the first so many of the (shuffled) training images and of the test images, for lessons.

    Args:
        name: a name in ``SHAPES``.
        root: the data folder; ``$SNIPKIT_DATA`` or ``data/`` by default.

    Raises:
        ValueError: an unknown name, or a size the set does not have.
        sources.DataError: the set cannot be had, or a file of it is damaged.

    Source: SNIP section 5 (standardisation, the 10 % held out); the statistics include the held-out part, as in the
    authors' code.
    """
    if name not in SHAPES:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(SHAPES)}")
    train, test = _decoded(name, str(root or sources.data_root()))
    generator = torch.Generator().manual_seed(split_seed)
    order = torch.randperm(len(train), generator=generator)
    held_out = int(VALIDATION_SHARE * len(train))
    for size, limit, what in ((train_size, len(train) - held_out, "train_size"), (test_size, len(test), "test_size")):
        if size is not None and not 0 < size <= limit:
            raise ValueError(f"{what} is {size}; {name} has 1 to {limit}")
    kept = order[held_out:][:train_size]
    return Dataset(
        name,
        SHAPES[name][1],
        train=train.take(kept).to(device),
        val=train.take(order[:held_out]).to(device),
        test=test.take(slice(test_size)).to(device),
    )


def draw(part: Images, size, generator):
    """One random batch without repetition, standardised and not augmented: the mini-batch that SNIP scores on.

    Args:
        part: usually ``dataset.train``.
        size: number of examples; None takes the whole part.
        generator: a CPU ``torch.Generator``.

    Raises:
        ValueError: ``size`` is not between 1 and the number of examples.
    """
    if size is not None and not 0 < size <= len(part):
        raise ValueError(f"a batch of {size} cannot be drawn from {len(part)} examples")
    return part[torch.randperm(len(part), generator=generator)[:size].to(part.labels.device)]


@functools.lru_cache(maxsize=2)
def _decoded(name, root):
    """The verified training and test images, as Images on the CPU."""
    folder = sources.fetch(name, Path(root))
    (train_x, train_y), (test_x, test_y) = (
        (_idx(folder / f"{part}-images-idx3-ubyte")[:, None], _idx(folder / f"{part}-labels-idx1-ubyte").long())
        for part in ("train", "t10k")
    )
    mean, std = _statistics(train_x)
    return tuple(Images(x, y, mean, std) for x, y in ((train_x, train_y), (test_x, test_y)))


def _statistics(pixels):
    """Mean and standard deviation per channel of uint8 pixels (N, C, H, W), in units of pixel / 255.

    Exact and quick: from how often each of the 256 values occurs.
    """
    value = torch.arange(256, dtype=torch.float64) / 255
    shares = [torch.bincount(c.flatten(), minlength=256).double() / c.numel() for c in pixels.unbind(1)]
    means = [float(share @ value) for share in shares]
    return tuple(means), tuple(float(share @ (value - mean) ** 2) ** 0.5 for share, mean in zip(shares, means))


def _idx(path):
    """Decode an IDX file: two zero bytes, a type code (8: unsigned byte), the rank, big-endian sizes, then the data."""
    content = path.read_bytes()
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    return torch.from_numpy(values.copy())
