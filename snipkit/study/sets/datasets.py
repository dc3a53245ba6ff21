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

from snipkit.data import Images, Splits, channel_statistics, split
from snipkit.study import paths
from snipkit.study.sets import official, sources

#: name → (channels, height, width) of one image, number of classes;
#: the width is the networks' ``image_size``
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
) -> Splits:
    """Load a data set; fetch it if it is not there.

    Ten per cent of the training images are held out as ``val``, chosen by ``split_seed``.
    ``train_size`` and ``test_size`` take only so many at random, for lessons (of the test images
    always the same).

    Args:
        name: a name in ``SHAPES``.
        root: the data folder; ``paths.data_root()`` by default.

    Raises:
        ValueError: an unknown name, or a size the set does not have.
        sources.DataError: the set is not available, or a file of it is damaged.

    Source: SNIP section 5 (standardisation, the 10 % held out); the statistics include the held-out
    images, as in the authors' code.
    """
    if name not in SHAPES:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(SHAPES)}")
    images, test = _decoded(name, str(Path(root or paths.data_root()).expanduser()), str(device))
    train, val = split(images, torch.Generator().manual_seed(split_seed))
    sizes = ("train_size", train_size, len(train)), ("test_size", test_size, len(test))
    for field, size, limit in sizes:
        if size is not None and not 0 < size <= limit:
            raise ValueError(f"{field} is {size}; {name} has 1 to {limit}")
    train = train.take(slice(train_size))
    if test_size is not None:
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
        test = test.take(order[:test_size].to(test.labels.device))
    return Splits(name, SHAPES[name][1], train, val, test)


@functools.lru_cache(maxsize=2)  # so that all splits share their pixels
def _decoded(name, root, device):
    """The verified training and test images on a device."""
    train_pixels, train_labels, test_pixels, test_labels, statistics = DECODERS[name](
        name, Path(root)
    )
    mean, std = statistics or channel_statistics(train_pixels)
    pairs = (train_pixels, train_labels), (test_pixels, test_labels)
    return tuple(
        Images(pixels, labels, tuple(mean), tuple(std)).to(device) for pixels, labels in pairs
    )


def _decode_idx(name, root):
    folder = sources.fetch(name, root)
    train, train_labels, test, test_labels = official.read_idx(folder, sources.IDX_FILES)
    return train[:, None], train_labels, test[:, None], test_labels, None


def _decode_cifar(name, root):
    """10,000 records a file, of one label byte and 3 x 32 x 32 pixels; the last is the test set."""
    source = sources.SOURCES[name]
    folder = sources.fetch(name, root)
    if source.pickles and folder == root / source.pickles:
        records = official.read_cifar_10(root)
    else:
        records = {file: np.fromfile(folder / file, np.uint8) for file in source.sha256}
    files = [records[file].reshape(-1, 1 + 3 * 32 * 32) for file in source.sha256]

    decoded = []
    for array in (np.concatenate(files[:-1]), files[-1]):
        part = torch.from_numpy(array)
        decoded += [part[:, 1:].reshape(-1, 3, 32, 32), part[:, 0].long()]
    return *decoded, None


def _decode_tiny_imagenet(name, root):
    """110,000 JPEG files are decoded once into arrays beside the archive; later calls map those.

    The official validation images serve as the test set, since the test labels were never
    published. Classes are numbered by their sorted WordNet ids.
    """
    arrays = root / "tiny-imagenet-200-arrays"
    if not (arrays / "index.json").exists():
        archive = sources.fetch(name, root) / "tiny-imagenet-200.zip"
        try:
            scratch_folder = tempfile.TemporaryDirectory(dir=root, prefix=".decoding-")
        except OSError as error:
            raise sources.DataError(
                f"{name}: its images are decoded beside the archive, and nothing can be written "
                f"to {root} ({error.strerror}). Set ${paths.DATA_VARIABLE} to a folder of your own."
            ) from error
        with scratch_folder as scratch:
            decoded = Path(scratch, "arrays")
            decoded.mkdir()
            _unpack_tiny_imagenet(archive, decoded)
            if not arrays.exists():
                os.replace(decoded, arrays)
    index = json.loads((arrays / "index.json").read_text(encoding="utf-8"))
    for file, digest in index["sha256"].items():
        if sources.file_hash(arrays / file) != digest:
            raise sources.DamagedError(
                f"{arrays / file}: the file is damaged. Delete the folder {arrays}; "
                "it is made again from the archive."
            )
    tensors = [torch.from_numpy(np.load(arrays / file, mmap_mode="c")) for file in index["sha256"]]
    return *tensors, (index["mean"], index["std"])


def _unpack_tiny_imagenet(archive_path, target):
    """Decode the archive into ``target``: arrays, their SHA-256, and the channels' statistics."""
    digests = {}
    with zipfile.ZipFile(archive_path) as archive:
        for part, entries in _tiny_imagenet_entries(archive).items():
            pixels = np.empty((len(entries), 3, 64, 64), np.uint8)
            progress = tqdm(entries, desc=f"decoding Tiny-ImageNet {part}", unit="image")
            for number, (file, _) in enumerate(progress):
                image = Image.open(io.BytesIO(archive.read(file)))
                in_colour = image.convert("RGB")  # some are grey
                pixels[number] = np.asarray(in_colour).transpose(2, 0, 1)
            if part == "train":
                mean, std = channel_statistics(torch.from_numpy(pixels))
            labels = np.array([label for _, label in entries])
            for file, values in ((f"{part}_pixels.npy", pixels), (f"{part}_labels.npy", labels)):
                np.save(target / file, values)
                digests[file] = sources.file_hash(target / file)
    index = json.dumps({"sha256": digests, "mean": mean, "std": std})
    (target / "index.json").write_text(index, encoding="utf-8")


def _tiny_imagenet_entries(archive):
    """part → (file in the archive, label) of each image."""
    top = "tiny-imagenet-200"
    wnids = sorted(archive.read(f"{top}/wnids.txt").decode().split())
    train = []
    for label, wnid in enumerate(wnids):
        for number in range(TINY_IMAGES_PER_CLASS):
            train.append((f"{top}/train/{wnid}/images/{wnid}_{number}.JPEG", label))
    val = []
    for line in archive.read(f"{top}/val/val_annotations.txt").decode().splitlines():
        file, wnid, *_ = line.split("\t")
        val.append((f"{top}/val/images/{file}", wnids.index(wnid)))
    return {"train": train, "val": val}


TINY_IMAGES_PER_CLASS = 500
DECODERS = {
    "mnist": _decode_idx,
    "fashion-mnist": _decode_idx,
    "cifar-10": _decode_cifar,
    "tiny-imagenet": _decode_tiny_imagenet,
    "mnist-1d": _decode_idx,
}
