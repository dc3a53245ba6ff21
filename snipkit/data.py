"""Whole data sets as tensors on one device.

The sets fit into memory (MNIST 0.05 GB, CIFAR-10 0.2 GB, Tiny-ImageNet 1.4 GB), so there is no loader and no worker: a
batch is an index into a ``uint8`` tensor, standardised and augmented on the device the moment it is taken.
"""

import functools
import io
import json
import os
import shutil
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from snipkit import sources

#: name → (channels, height, width) of one image, number of classes
SHAPES = {
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar-10": ((3, 32, 32), 10),
    "tiny-imagenet": ((3, 64, 64), 200),
}

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
        if torch.is_tensor(index) and index.dtype == torch.long:  # several times as fast as indexing
            return self.standardise(self.pixels.index_select(0, index)), self.labels[index]
        return self.standardise(self.pixels[index]), self.labels[index]

    def standardise(self, pixels):
        """uint8 pixels (B, C, H, W) to float32 with the training set's mean 0 and standard deviation 1."""
        images = pixels.float().sub_(_in_pixels(self.mean, pixels.device)).div_(_in_pixels(self.std, pixels.device))
        return images.contiguous(memory_format=torch.channels_last) if len(self.mean) > 1 else images

    def to(self, device):
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def take(self, index):
        """The part of this part at ``index``, still as raw pixels."""
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])


@functools.lru_cache(maxsize=64)
def _in_pixels(values, device):
    """A statistic of the channels in units of pixels, made once: a copy a batch would make a GPU wait for the CPU."""
    return torch.tensor(values, device=device).mul_(255).view(1, -1, 1, 1)


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


SAMPLES = ("uniform", "balanced", "one-class")


def draw(part: Images, size, generator, sample="uniform"):
    """One random batch without repetition, standardised and not augmented: the mini-batch that SNIP scores on.

    Args:
        part: usually ``dataset.train``.
        size: number of examples; None takes the whole part.
        generator: a CPU ``torch.Generator``.
        sample: "uniform" draws from all examples alike; "balanced" takes as many of each class (to one); "one-class"
            draws a class, then the batch from that class alone.

    Raises:
        ValueError: an unknown ``sample``, or a ``size`` that is not between 1 and the number of examples.
    """
    if sample not in SAMPLES:
        raise ValueError(f"unknown sample {sample!r}; known: {', '.join(SAMPLES)}")
    order = torch.randperm(len(part), generator=generator)
    labels = part.labels.cpu()[order]
    if sample == "balanced":
        one_hot = torch.nn.functional.one_hot(labels)
        earlier = (one_hot.cumsum(0) * one_hot).sum(1)  # the how-manieth of its class each example is
        order = order[earlier.argsort(stable=True)]
    if sample == "one-class":
        chosen = torch.randint(int(labels.max()) + 1, (1,), generator=generator)
        order = order[labels == chosen]
    if size is not None and not 0 < size <= len(order):
        raise ValueError(f"a batch of {size} cannot be drawn from {len(order)} examples")
    return part[order[:size].to(part.labels.device)]


def shuffle_labels(part: Images, generator) -> Images:
    """The same images under each other's labels: as many of each class, nothing to be learnt but by heart.

    Args:
        generator: a CPU ``torch.Generator``.
    """
    return replace(part, labels=part.labels[torch.randperm(len(part), generator=generator).to(part.labels.device)])


AUGMENTATIONS = ("none", "flip-shift", "half-flip-shift")


def augment(images, kind, generator):
    """Flip and shift a batch, every image by its own draw, all at once on the device.

    Args:
        images: standardised, (B, C, H, W); what a shift brings in is zero, the mean.
        kind: "none"; "flip-shift": half of the images are flipped, all are shifted by up to an eighth of their side (4 of
            32 pixels) each way, SNIP section 5.3; "half-flip-shift": of the two, each image gets a random number in random
            choice, so that a quarter is flipped and half are shifted, which is what the authors' code does.
        generator: a CPU ``torch.Generator`` (the same draws on every device).

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {kind!r}; known: {', '.join(AUGMENTATIONS)}")
    if kind == "none":
        return images
    count, side = images.shape[0], images.shape[-1]
    reach = side // 8
    flip = torch.rand(count, generator=generator) < 0.5
    shift = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator)
    if kind == "half-flip-shift":
        chosen = torch.randint(0, 3, (count,), generator=generator)  # how many of the two
        which = torch.rand(count, generator=generator) < 0.5  # and which one, where it is one
        flip &= (chosen == 2) | ((chosen == 1) & which)
        shift[:, ~((chosen == 2) | ((chosen == 1) & ~which))] = 0
    rows, columns = torch.arange(side) + reach + shift
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    padded = torch.nn.functional.pad(images, (reach,) * 4)
    each, rows, columns = (
        index.to(images.device, non_blocking=True) for index in (torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :])
    )
    return padded[each, :, rows, columns].permute(0, 3, 1, 2)  # indexing puts the channels last, where convolutions want them


@functools.lru_cache(maxsize=2)
def _decoded(name, root):
    """The verified training and test images, as Images on the CPU."""
    root = Path(root)
    train_x, train_y, test_x, test_y, statistics = DECODERS[name](name, root)
    mean, std = statistics or _statistics(train_x)
    return tuple(Images(x, y, tuple(mean), tuple(std)) for x, y in ((train_x, train_y), (test_x, test_y)))


def _decode_mnist(name, root):
    folder = sources.fetch(name, root)
    parts = []
    for part in ("train", "t10k"):
        parts += [_idx(folder / f"{part}-images-idx3-ubyte")[:, None], _idx(folder / f"{part}-labels-idx1-ubyte").long()]
    return *parts, None


def _decode_cifar(name, root):
    folder = sources.fetch(name, root)
    records = [
        torch.from_numpy(np.fromfile(folder / file, np.uint8).reshape(-1, 1 + 3 * 32 * 32)) for file in sources.SOURCES[name].sha256
    ]
    train, test = torch.cat(records[:-1]), records[-1]
    return *(part for r in (train, test) for part in (r[:, 1:].reshape(-1, 3, 32, 32), r[:, 0].long())), None


def _decode_tiny_imagenet(name, root):
    """110,000 JPEG files are decoded once into arrays beside the archive; later calls check and map those.

    The official validation images serve as the test set, since the test labels were never published. Classes are numbered
    by their sorted WordNet ids.
    """
    arrays = root / "tiny-imagenet-200-arrays"
    if not (arrays / "index.json").exists():
        archive = sources.fetch(name, root) / "tiny-imagenet-200.zip"
        part = arrays.with_name(f".{arrays.name}.{os.getpid()}.part")
        try:
            part.mkdir(parents=True)
            _unpack_tiny_imagenet(archive, part)
            if not arrays.exists():
                os.replace(part, arrays)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    index = json.loads((arrays / "index.json").read_text())
    for file, digest in index["sha256"].items():
        if sources.file_digest(arrays / file) != digest:
            raise sources.DataError(f"{arrays / file}: the file is damaged. Delete the folder {arrays}; it is made again from the archive.")
    tensors = [torch.from_numpy(np.load(arrays / file, mmap_mode="c")) for file in index["sha256"]]
    return *tensors, (index["mean"], index["std"])


TINY_IMAGES_PER_CLASS = 500


def _unpack_tiny_imagenet(archive_path, target):
    from PIL import Image

    top = "tiny-imagenet-200"
    with zipfile.ZipFile(archive_path) as archive:
        wnids = sorted(archive.read(f"{top}/wnids.txt").decode().split())
        val = [line.split("\t")[:2] for line in archive.read(f"{top}/val/val_annotations.txt").decode().splitlines()]
        parts = {
            "train": [
                (f"{top}/train/{wnid}/images/{wnid}_{i}.JPEG", label)
                for label, wnid in enumerate(wnids) for i in range(TINY_IMAGES_PER_CLASS)
            ],
            "val": [(f"{top}/val/images/{file}", wnids.index(wnid)) for file, wnid in val],
        }
        files, first = {}, None
        for part, entries in parts.items():
            pixels = np.empty((len(entries), 3, 64, 64), np.uint8)
            for number, (file, _) in enumerate(tqdm(entries, desc=f"decoding {top} {part}", unit="image")):
                image = Image.open(io.BytesIO(archive.read(file))).convert("RGB")  # some are grey
                pixels[number] = np.asarray(image).transpose(2, 0, 1)
            for kind, values in (("pixels", pixels), ("labels", np.array([label for _, label in entries]))):
                np.save(target / f"{part}_{kind}.npy", values)
                files[f"{part}_{kind}.npy"] = sources.file_digest(target / f"{part}_{kind}.npy")
            first = pixels if first is None else first
    mean, std = _statistics(torch.from_numpy(first))
    (target / "index.json").write_text(json.dumps({"sha256": files, "mean": mean, "std": std}))


DECODERS = {
    "mnist": _decode_mnist,
    "fashion-mnist": _decode_mnist,
    "cifar-10": _decode_cifar,
    "tiny-imagenet": _decode_tiny_imagenet,
}


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
