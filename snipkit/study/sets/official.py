"""torchvision's part: it downloads the official data sets, and reads their files.

Nothing here trusts a download. ``sources`` compares the content with its own SHA-256, and moves
files into the data folder only then.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snipkit.study.sets.vision import load_torchvision

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT = 15.0  # seconds without an answer: torchvision itself would wait for ever


def download_idx(name: str, files: list[str], scratch: Path) -> None:
    """Put the files of torchvision's data set ``name``, MNIST or FashionMNIST, into ``scratch``."""
    dataset = getattr(load_torchvision().datasets, name)
    with _impatient():
        dataset(scratch, download=True)
    for file in files:
        os.replace(scratch / name / "raw" / file, scratch / file)


def download_cifar_10(files: list[str], scratch: Path) -> None:
    """Download CIFAR-10 and put it into ``scratch`` in the binary version."""
    with _impatient():
        load_torchvision().datasets.CIFAR10(scratch, download=True)
    records = read_cifar_10(scratch)
    for file in files:
        records[file].tofile(scratch / file)


def download_file(url: str, files: list[str], scratch: Path) -> None:
    """Download a file and leave it as it is; ``files`` is its name."""
    with _impatient():
        load_torchvision().datasets.utils.download_url(url, scratch, files[0])


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Connections that are opened meanwhile give up after ``TIMEOUT``."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_idx(folder: Path, files: tuple[str, ...]) -> list[Tensor]:
    """Training pixels, uint8 (N, H, W), and labels, int64 (N,), then those for testing.

    By torchvision's readers of single files: its data set classes prefer files of an old version
    of their own (``processed/``), which nobody verified.
    """
    readers = load_torchvision().datasets.mnist
    tensors = []
    for file in files:
        read = readers.read_image_file if "images" in file else readers.read_label_file
        tensors.append(read(os.fspath(folder / file)))
    return tensors


def read_cifar_10(root: Path) -> dict[str, np.ndarray]:
    """What the binary version would hold, from torchvision's folder ``cifar-10-batches-py``.

    Returns:
        file name of the binary version → uint8 (images, 1 + 3 * 32 * 32): a byte for the label,
        then the red, the green and the blue plane.

    Raises:
        FileNotFoundError: not all of the six files are there.
        ValueError: a file holds something else than arrays.
    """
    dataset = load_torchvision().datasets.CIFAR10
    try:
        train, test = (dataset(root, train=train) for train in (True, False))
    except RuntimeError:  # not as they were published: MD5 sums differ, or files are missing
        return _read_pickled_anew(root / dataset.base_folder)
    pixels = [*np.split(train.data.transpose(0, 3, 1, 2), 5), test.data.transpose(0, 3, 1, 2)]
    labels = [*np.split(np.array(train.targets), 5), np.array(test.targets)]
    return {
        f"{name}.bin": _as_records(*pair) for name, *pair in zip(CIFAR_10_FILES, labels, pixels)
    }


CIFAR_10_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def _as_records(labels, pixels) -> np.ndarray:
    rows = np.asarray(pixels).reshape(len(labels), -1)
    return np.column_stack([labels, rows]).astype(np.uint8)


def _read_pickled_anew(folder: Path) -> dict[str, np.ndarray]:
    """The same from files that somebody has pickled again, as converters and mirrors do."""
    records = {}
    for name in CIFAR_10_FILES:
        with open(folder / name, "rb") as stream:
            try:
                content = _ArraysOnly(stream, encoding="latin1").load()
                content = {os.fsdecode(key): value for key, value in content.items()}
                records[f"{name}.bin"] = _as_records(content["labels"], content["data"])
            except Exception as error:  # a damaged pickle can raise anything
                raise ValueError(f"{name}: {error}") from error
    return records


class _ArraysOnly(pickle.Unpickler):
    """Unpickling can run any code. This makes arrays, and the strings and lists around them."""

    ALLOWED = {
        "numpy": {"ndarray", "dtype", "_reconstruct", "_frombuffer", "scalar"},
        "_codecs": {"encode"},
        "builtins": {"bytes"},
        "__builtin__": {"bytes"},  # as Python 2 called it
    }

    def find_class(self, module, name):
        if name not in self.ALLOWED.get(module.split(".")[0], ()):
            raise pickle.UnpicklingError(f"it would call {module}.{name}")
        return super().find_class(module, name)
