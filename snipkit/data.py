"""Whole data sets as tensors on one device.

They fit into memory (Tiny-ImageNet: 1.4 GB), so no loader is needed: a batch is an index into ``uint8`` pixels,
standardised and augmented on the device. The splits of a set share its pixels.
"""

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

VALIDATION_SHARE = 0.1  # of the training set (SNIP, section 5: 90 % is trained on)
SAMPLING = ("uniform", "balanced", "one-class")
AUGMENTATIONS = ("none", "flip-shift", "flip-shift-half")


@dataclass(frozen=True)
class Images:
    """Labelled images. ``images[index]`` is a standardised batch, for a slice or an int64 tensor on the same device.

    Attributes:
        pixels: uint8, (P, C, H, W); may be shared with other ``Images``.
        labels: int64, (N,).
        mean, std: per channel, of pixel / 255 over the whole training set.
        rows: int64, (N,): where in ``pixels`` each example is; None: N = P, and they are in order.
    """

    pixels: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | slice | Tensor) -> tuple[Tensor, Tensor]:
        """A batch, float32 (B, C, H, W) and int64 (B,); one example for an int, so that a ``DataLoader`` works."""
        labels = self.labels[index]
        rows = index if self.rows is None else self.rows[index]
        if labels.ndim == 0:
            return self.standardise(self.pixels[rows][None])[0], labels
        if isinstance(rows, Tensor) and rows.dtype == torch.long:  # index_select is several times as fast
            return self.standardise(self.pixels.index_select(0, rows)), labels
        return self.standardise(self.pixels[rows]), labels

    def standardise(self, pixels: Tensor) -> Tensor:
        """uint8 pixels (B, C, H, W) to float32 with the training set's mean 0 and standard deviation 1."""
        images = pixels.float().sub_(_in_pixels(self.mean, pixels.device)).div_(_in_pixels(self.std, pixels.device))
        return images.contiguous(memory_format=torch.channels_last) if len(self.mean) > 1 else images

    def to(self, device: str | torch.device) -> "Images":
        rows = None if self.rows is None else self.rows.to(device)
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device), rows=rows)

    def take(self, index: slice | Tensor) -> "Images":
        """The examples at ``index``, on the same pixels."""
        rows = torch.arange(len(self), device=self.pixels.device) if self.rows is None else self.rows
        return replace(self, labels=self.labels[index], rows=rows[index])


@functools.lru_cache(maxsize=64)
def _in_pixels(values, device):
    """A statistic of the channels in units of pixels, made once: a copy a batch would make a GPU wait for the CPU."""
    return torch.tensor(values, device=device).mul_(255).view(1, -1, 1, 1)


@dataclass(frozen=True)
class Dataset:
    """The training, validation and test images of one data set."""

    name: str
    num_classes: int
    train: Images
    val: Images
    test: Images


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 pixels (N, C, H, W), in units of pixel / 255."""
    value = torch.arange(256, dtype=torch.float64) / 255
    shares = [torch.bincount(c.flatten(), minlength=256).double() / c.numel() for c in pixels.unbind(1)]  # exact
    means = [float(share @ value) for share in shares]
    return tuple(means), tuple(float(share @ (value - mean) ** 2) ** 0.5 for share, mean in zip(shares, means))


def split(images: Images, generator: torch.Generator) -> tuple[Images, Images]:
    """Training and validation images, both in random order: ``VALIDATION_SHARE`` of them, at random, are held out."""
    order = torch.randperm(len(images), generator=generator)
    held_out = int(VALIDATION_SHARE * len(images))
    return images.take(order[held_out:]), images.take(order[:held_out])


def sample(images: Images, size: int | None, generator: torch.Generator, kind="uniform") -> tuple[Tensor, Tensor]:
    """A random batch without repetition, standardised and not augmented: the mini-batch that SNIP scores on.

    Args:
        size: number of examples; None: as many as there are.
        generator: on the CPU.
        kind: "uniform": all examples alike; "balanced": equally many of each class (to one); "one-class": one class
            at random, then the batch from that class alone.

    Raises:
        ValueError: an unknown ``kind``, or a ``size`` that is not between 1 and the number of examples.
    """
    if kind not in SAMPLING:
        raise ValueError(f"unknown sampling {kind!r}; known: {', '.join(SAMPLING)}")
    order = torch.randperm(len(images), generator=generator)
    labels = images.labels.cpu()[order]
    if kind == "balanced":
        one_hot = torch.nn.functional.one_hot(labels)
        earlier = (one_hot.cumsum(0) * one_hot).sum(1)  # 1 for the first example of each class, 2 for the second, …
        order = order[earlier.argsort(stable=True)]
    if kind == "one-class":
        chosen = torch.randint(int(labels.max()) + 1, (1,), generator=generator)
        order = order[labels == chosen]
    if size is not None and not 0 < size <= len(order):
        raise ValueError(f"cannot sample a batch of {size} from {len(order)} examples")
    return images[order[:size].to(images.labels.device)]


def shuffle_labels(images: Images, generator: torch.Generator) -> Images:
    """The same images with their labels permuted at random, so that only memorising helps; ``generator`` on the CPU."""
    order = torch.randperm(len(images), generator=generator)
    return replace(images, labels=images.labels[order.to(images.labels.device)])


def augment(images: Tensor, kind: str, generator: torch.Generator | None) -> Tensor:
    """Flip and shift each image of a batch (B, C, H, W) at random; ValueError for an unknown ``kind``.

    Args:
        kind: "none", or "flip-shift": each image is flipped with probability 1/2, and shifted by up to an eighth of its
            height and width (4 of 32 pixels) each way, filled with zero, the mean (SNIP, section 5.3).
            "flip-shift-half", of the authors' code: of these two changes each image gets none, one at random, or both,
            equally often; so half of the images are shifted, and a quarter are flipped.
        generator: on the CPU, so that all devices get the same numbers.
    """
    if kind not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {kind!r}; known: {', '.join(AUGMENTATIONS)}")
    if kind == "none":
        return images
    count, _, height, width = images.shape
    down, across = height // 8, width // 8
    flip = torch.rand(count, generator=generator) < 0.5
    shift = [torch.randint(-reach, reach + 1, (count, 1), generator=generator) for reach in (down, across)]
    if kind == "flip-shift-half":
        changes = torch.randint(3, (count,), generator=generator)
        flip_first = torch.rand(count, generator=generator) < 0.5
        flip &= (changes == 2) | ((changes == 1) & flip_first)
        shifted = (changes == 2) | ((changes == 1) & ~flip_first)
        shift = [reach * shifted[:, None] for reach in shift]
    rows, columns = torch.arange(height) + down + shift[0], torch.arange(width) + across + shift[1]
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    index = torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
    each, rows, columns = (part.to(images.device, non_blocking=True) for part in index)
    padded = torch.nn.functional.pad(images, (across, across, down, down))
    return padded[each, :, rows, columns].permute(0, 3, 1, 2)  # the channels last in memory, as convolutions want them
