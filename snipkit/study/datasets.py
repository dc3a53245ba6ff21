"""The data sets of the study by name: file formats decoded, training images split."""

import functools
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from snipkit.data import Dataset, Images, channel_statistics, split
from snipkit.study import paths, sources

#: name → (channels, height, width) of one image, number of classes; the width is the networks' ``image_size``
SHAPES = {
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar-10": ((3, 32, 32), 10),
    "tiny-imagenet": ((3, 64, 64), 200),
    "mnist-1d": ((1, 1, 40), 10),
}


def load(
    name: str,
    *,
    split_seed: int = 0,
    train_size: int | None = None,
    test_size: int | None = None,
    root: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> Dataset:
    """Load a data set; fetch it if it is not there.

    Ten per cent of the training images are held out as ``val``, chosen by ``split_seed``. ``train_size`` and
    ``test_size`` take only so many at random, for lessons (of the test images always the same).

    Args:
        name: a name in ``SHAPES``.
        root: the data folder; ``paths.data_root()`` by default.

    Raises:
        ValueError: an unknown name, or a size the set does not have.
        sources.DataError: the set cannot be had, or a file of it is damaged.

    Source: SNIP section 5 (standardisation, the 10 % held out); the statistics include the held-out images, as in the
    authors' code.
    """
    if name not in SHAPES:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(SHAPES)}")
    images, test = _decoded(name, str(root or paths.data_root()), str(device))
    train, val = split(images, torch.Generator().manual_seed(split_seed))
    for size, limit, what in ((train_size, len(train), "train_size"), (test_size, len(test), "test_size")):
        if size is not None and not 0 < size <= limit:
            raise ValueError(f"{what} is {size}; {name} has 1 to {limit}")
    train = train.take(slice(train_size))
    if test_size is not None:
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
        test = test.take(order[:test_size].to(test.labels.device))
    return Dataset(name, SHAPES[name][1], train, val, test)


@functools.lru_cache(maxsize=2)  # so that all splits share their pixels
def _decoded(name, root, device):
    """The verified training and test images on a device."""
    train_pixels, train_labels, test_pixels, test_labels, statistics = DECODERS[name](name, Path(root))
    mean, std = statistics or channel_statistics(train_pixels)
    pairs = (train_pixels, train_labels), (test_pixels, test_labels)
    return tuple(Images(pixels, labels, tuple(mean), tuple(std)).to(device) for pixels, labels in pairs)


def _decode_mnist(name, root):
    folder = sources.fetch(name, root)
    train, train_labels, test, test_labels = (_idx(folder / file) for file in sources.IDX_FILES)
    return train[:, None], train_labels.long(), test[:, None], test_labels.long(), None


def _idx(path):
    """Decode an IDX file: two zero bytes, a type code (8: unsigned byte), the rank, big-endian sizes, then the data."""
    content = path.read_bytes()
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape).copy())


def _decode_cifar(name, root):
    """10,000 records a file, of one label byte and 3 x 32 x 32 pixels; the last file is the test set."""
    folder = sources.fetch(name, root)
    files = [np.fromfile(folder / file, np.uint8).reshape(-1, 1 + 3 * 32 * 32) for file in sources.SOURCES[name].sha256]
    train, test = torch.from_numpy(np.concatenate(files[:-1])), torch.from_numpy(files[-1])
    pixels, labels = zip(*((part[:, 1:].reshape(-1, 3, 32, 32), part[:, 0].long()) for part in (train, test)))
    return pixels[0], labels[0], pixels[1], labels[1], None


def _decode_tiny_imagenet(name, root):
    """110,000 JPEG files are decoded once into arrays beside the archive; later calls check and map those.

    The official validation images serve as the test set, since the test labels were never published. Classes are
    numbered by their sorted WordNet ids.
    """
    arrays = root / "tiny-imagenet-200-arrays"
    if not (arrays / "index.json").exists():
        archive = sources.fetch(name, root) / "tiny-imagenet-200.zip"
        with tempfile.TemporaryDirectory(dir=root, prefix=".decoding-") as scratch:
            (made := Path(scratch, "arrays")).mkdir()
            _unpack_tiny_imagenet(archive, made)
            if not arrays.exists():
                os.replace(made, arrays)
    index = json.loads((arrays / "index.json").read_text(encoding="utf-8"))
    for file, digest in index["sha256"].items():
        if sources.file_hash(arrays / file) != digest:
            raise sources.DamagedError(
                f"{arrays / file}: the file is damaged. Delete the folder {arrays}; it is made again from the archive."
            )
    tensors = [torch.from_numpy(np.load(arrays / file, mmap_mode="c")) for file in index["sha256"]]
    return *tensors, (index["mean"], index["std"])


def _unpack_tiny_imagenet(archive_path, target):
    top, digests = "tiny-imagenet-200", {}
    with zipfile.ZipFile(archive_path) as archive:
        wnids = sorted(archive.read(f"{top}/wnids.txt").decode().split())
        val = [line.split("\t") for line in archive.read(f"{top}/val/val_annotations.txt").decode().splitlines()]
        count = TINY_IMAGES_PER_CLASS
        train = [(f"train/{w}/images/{w}_{i}.JPEG", label) for label, w in enumerate(wnids) for i in range(count)]
        test = [(f"val/images/{file}", wnids.index(wnid)) for file, wnid, *_ in val]
        for part, entries in (("train", train), ("val", test)):
            pixels = np.empty((len(entries), 3, 64, 64), np.uint8)
            for number, (file, _) in enumerate(tqdm(entries, desc=f"decoding {top} {part}", unit="image")):
                image = Image.open(io.BytesIO(archive.read(f"{top}/{file}"))).convert("RGB")  # some are grey
                pixels[number] = np.asarray(image).transpose(2, 0, 1)
            if part == "train":
                mean, std = channel_statistics(torch.from_numpy(pixels))
            for kind, values in (("pixels", pixels), ("labels", np.array([label for _, label in entries]))):
                np.save(target / f"{part}_{kind}.npy", values)
                digests[f"{part}_{kind}.npy"] = sources.file_hash(target / f"{part}_{kind}.npy")
    text = json.dumps({"sha256": digests, "mean": mean, "std": std})
    (target / "index.json").write_text(text, encoding="utf-8")


TINY_IMAGES_PER_CLASS = 500
DECODERS = {
    "mnist": _decode_mnist,
    "fashion-mnist": _decode_mnist,
    "cifar-10": _decode_cifar,
    "tiny-imagenet": _decode_tiny_imagenet,
    "mnist-1d": _decode_mnist,
}
