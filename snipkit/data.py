"""Whole data sets as tensors on one device.

They fit into memory (Tiny-ImageNet: 1.4 GB), so no loader is needed: a batch is an index into
``uint8`` pixels, standardised and augmented on the device. The splits of a set share its pixels.
"""

import functools
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

VALIDATION_SHARE = 0.1  # of the training set (SNIP, section 5: 90 % is trained on)
SAMPLING = ("uniform", "balanced", "one-class")
AUGMENTATIONS = ("none", "flip-shift", "flip-shift-half")


@dataclass(frozen=True)
class Images:
    """Labelled images. ``images[index]`` is a standardised batch.

    The index is a slice, an int, or an int64 or bool tensor on the same device.

    Attributes:
        pixels: uint8 from 0 to 255, (P, C, H, W); may be shared with other ``Images``.
        labels: int64, (N,).
        mean, std: one number a channel, of pixel / 255 over the whole training set
            (``channel_statistics``).
        rows: int64, (N,): where in ``pixels`` each example is; None: N = P, and they are in order.

    Raises:
        TypeError: something is no tensor, or of another type.
        ValueError: shapes that do not fit together, or statistics in another unit.
    """

    pixels: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rows: Tensor | None = None

    def __post_init__(self):
        # Types and shapes alone: a look at the values would make a GPU wait at every ``take``.
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, values)
        _check_types(self.pixels, self.labels)
        if self.pixels.ndim != 4 or len(self.mean) != self.pixels.shape[1]:
            raise ValueError(
                f"pixels have the shape {tuple(self.pixels.shape)} with {len(self.mean)} means; "
                "they take (N, C, H, W), channels before height and width, and a mean a channel"
            )
        if len(self.std) != len(self.mean):
            raise ValueError(f"there are {len(self.mean)} means and {len(self.std)} deviations")
        if not all(0 <= value <= 1 for value in self.mean + self.std) or 0 in self.std:
            raise ValueError(
                f"mean {self.mean} and std {self.std} must be of pixel / 255: within 0 and 1, and "
                "std above 0 (data.channel_statistics gives them)"
            )
        count = len(self.pixels) if self.rows is None else len(self.rows)
        if self.labels.shape != (count,):
            raise ValueError(
                f"labels have the shape {tuple(self.labels.shape)}; there are {count} images, so "
                f"they take ({count},)"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | slice | Tensor) -> tuple[Tensor, Tensor]:
        """A batch, float32 (B, C, H, W) and int64 (B,).

        One example for an int, so that a ``DataLoader`` works.
        """
        labels = self.labels[index]
        rows = index if self.rows is None else self.rows[index]
        if labels.ndim == 0:
            return self.standardise(self.pixels[rows][None])[0], labels
        if isinstance(rows, Tensor) and rows.dtype == torch.long:
            # several times as fast as an index
            return self.standardise(self.pixels.index_select(0, rows)), labels
        return self.standardise(self.pixels[rows]), labels

    def standardise(self, pixels: Tensor) -> Tensor:
        """uint8 pixels (B, C, H, W) to float32.

        Over the training set each channel has mean 0 and standard deviation 1.
        """
        mean = _in_pixels(self.mean, pixels.device)
        std = _in_pixels(self.std, pixels.device)
        images = pixels.float().sub_(mean).div_(std)
        if len(self.mean) == 1:
            return images
        return images.contiguous(memory_format=torch.channels_last)

    def to(self, device: str | torch.device) -> "Images":
        rows = None if self.rows is None else self.rows.to(device)
        pixels, labels = self.pixels.to(device), self.labels.to(device)
        return replace(self, pixels=pixels, labels=labels, rows=rows)

    def take(self, index: slice | Tensor) -> "Images":
        """The examples at ``index``, on the same pixels."""
        rows = self.rows
        if rows is None:
            rows = torch.arange(len(self), device=self.pixels.device)
        return replace(self, labels=self.labels[index], rows=rows[index])


def _check_types(pixels, labels):
    if not isinstance(pixels, Tensor) or not isinstance(labels, Tensor):
        kinds = f"{type(pixels).__name__} and {type(labels).__name__}"
        raise TypeError(f"pixels and labels are {kinds}; they take tensors (torch.as_tensor)")
    if pixels.dtype != torch.uint8:
        raise TypeError(
            f"pixels are {pixels.dtype}; they take torch.uint8 from 0 to 255: for floats in [0, 1] "
            "write (255 * pixels).round().to(torch.uint8)"
        )
    if labels.dtype != torch.int64:
        raise TypeError(f"labels are {labels.dtype}; they take torch.int64: write labels.long()")


@functools.lru_cache(maxsize=64)
def _in_pixels(values, device):
    """A statistic of the channels in units of pixels.

    It is made once, since a copy with every batch would make a GPU wait for the CPU.
    """
    return torch.tensor(values, device=device).mul_(255).view(1, -1, 1, 1)


@dataclass(frozen=True)
class Splits:
    """The training, validation and test images of one data set."""

    name: str
    num_classes: int
    train: Images
    val: Images
    test: Images


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 pixels (N, C, H, W), of pixel / 255.

    They come from counts of the 256 values, so they are exact, and the same on every machine.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in pixels.unbind(1):
        shares = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = float(shares @ values)
        means.append(mean)
        deviations.append(float(shares @ (values - mean) ** 2) ** 0.5)
    return tuple(means), tuple(deviations)


def split(images: Images, generator: torch.Generator) -> tuple[Images, Images]:
    """Training and validation images, both in random order.

    ``VALIDATION_SHARE`` of the images, at random, are held out.
    """
    order = torch.randperm(len(images), generator=generator)
    held_out = int(VALIDATION_SHARE * len(images))
    return images.take(order[held_out:]), images.take(order[:held_out])


def sample(
    images: Images, size: int | None, generator: torch.Generator, kind: str = "uniform"
) -> tuple[Tensor, Tensor]:
    """A random batch without repetition: the mini-batch that SNIP scores on.

    It is standardised, and not augmented.

    Args:
        size: number of examples; None: as many as there are.
        generator: on the CPU.
        kind: "uniform": all examples alike; "balanced": equally many of each class (to one);
            "one-class": one class at random, then the batch from that class alone.

    Raises:
        ValueError: an unknown ``kind``, or a ``size`` that is not between 1 and the number of
            examples.
    """
    if kind not in SAMPLING:
        raise ValueError(f"unknown sampling {kind!r}; known: {', '.join(SAMPLING)}")
    order = torch.randperm(len(images), generator=generator)
    labels = images.labels.cpu()[order]
    if kind == "balanced":
        one_hot = torch.nn.functional.one_hot(labels)
        # 1 for the first example of each class, 2 for the second, …
        place_in_class = (one_hot.cumsum(0) * one_hot).sum(1)
        order = order[place_in_class.argsort(stable=True)]
    if kind == "one-class":
        chosen = torch.randint(int(labels.max()) + 1, (1,), generator=generator)
        order = order[labels == chosen]
    if size is not None and not 0 < size <= len(order):
        raise ValueError(f"cannot sample a batch of {size} from {len(order)} examples")
    return images[order[:size].to(images.labels.device)]


def shuffle_labels(images: Images, generator: torch.Generator) -> Images:
    """The same images with their labels permuted at random, so that only memorising helps.

    ``generator`` is on the CPU.
    """
    order = torch.randperm(len(images), generator=generator)
    return replace(images, labels=images.labels[order.to(images.labels.device)])


def augment(images: Tensor, kind: str, generator: torch.Generator | None) -> Tensor:
    """Flip and shift each image of a batch (B, C, H, W) at random.

    Args:
        kind: "none", or "flip-shift": each image is flipped with probability 1/2, and shifted by up
            to an eighth of its height and width (4 of 32 pixels) each way, filled with zero, the
            mean (SNIP, section 5.3). "flip-shift-half", of the authors' code: of these two changes
            each image gets none, one at random, or both, equally often; so half of the images are
            shifted, and a quarter are flipped.
        generator: on the CPU, so that all devices get the same numbers.

    Raises:
        ValueError: an unknown ``kind``.
    """
    if kind not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {kind!r}; known: {', '.join(AUGMENTATIONS)}")
    if kind == "none":
        return images
    count, _, height, width = images.shape
    down, across = height // 8, width // 8
    flip = torch.rand(count, generator=generator) < 0.5
    shift_down = torch.randint(-down, down + 1, (count, 1), generator=generator)
    shift_across = torch.randint(-across, across + 1, (count, 1), generator=generator)
    if kind == "flip-shift-half":
        changes = torch.randint(3, (count,), generator=generator)
        flip_first = torch.rand(count, generator=generator) < 0.5
        flip &= (changes == 2) | ((changes == 1) & flip_first)
        shifted = ((changes == 2) | ((changes == 1) & ~flip_first))[:, None]
        shift_down, shift_across = shift_down * shifted, shift_across * shifted
    rows = torch.arange(height) + down + shift_down
    columns = torch.arange(width) + across + shift_across
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    index = torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
    examples, rows, columns = (part.to(images.device, non_blocking=True) for part in index)
    padded = torch.nn.functional.pad(images, (across, across, down, down))
    # The channels come last in memory, as convolutions want them.
    return padded[examples, :, rows, columns].permute(0, 3, 1, 2)


def __getattr__(name: str) -> Any:
    if name != "Dataset":
        raise AttributeError(f"module 'snipkit.data' has no attribute {name!r}")
    warnings.warn("data.Dataset: write data.Splits", DeprecationWarning, stacklevel=2)
    return Splits
