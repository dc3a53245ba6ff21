"""Take named files out of what a source delivers, on any Python from 3.11.0.

Only the standard library is imported, so that a test can run this module on the oldest Python at
hand. Files are copied out by the names that the caller gives: an archive cannot choose where
anything goes. (tarfile's own protection, ``filter="data"``, is not in 3.11.0 to 3.11.3.)
"""

import gzip
import os
import posixpath
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path


def gunzip(packed: Path, target: Path) -> None:
    """Decompress one file.

    Raises:
        OSError: ``packed`` is no whole gzip file, or one of the two cannot be read or written.
    """
    try:
        with gzip.open(packed) as stream, open(target, "wb") as unpacked:
            shutil.copyfileobj(stream, unpacked)
    except (EOFError, zlib.error) as error:
        raise gzip.BadGzipFile(str(error)) from error


def take_from_tar(archive: Path, inner: str, files: Iterable[str], folder: Path) -> None:
    """Copy files out of the folder ``inner`` of a tar archive, packed or not, into ``folder``.

    Raises:
        OSError: a file is not in the archive or is no regular one, or cannot be written.
        tarfile.TarError: the archive is damaged.
    """
    with tarfile.open(archive) as tar:
        members = {posixpath.normpath(member.name): member for member in tar}
        for file in files:
            name = posixpath.normpath(f"{inner}/{file}")
            is_file = name in members and members[name].isfile()
            packed = tar.extractfile(members[name]) if is_file else None
            if packed is None:
                raise FileNotFoundError(f"{archive.name} has no file {name}")
            with open(folder / os.path.basename(file), "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)


def take_from_zip(archive: Path, inner: str, files: Iterable[str], folder: Path) -> None:
    """Copy files out of the folder ``inner`` of a zip archive into ``folder``.

    Raises:
        OSError: a file is not in the archive, or cannot be written.
        zipfile.BadZipFile: the archive is damaged.
    """
    with zipfile.ZipFile(archive) as packed:
        for file in files:
            name = posixpath.normpath(f"{inner}/{file}")
            if name not in packed.namelist():
                raise FileNotFoundError(f"{archive.name} has no file {name}")
            with packed.open(name) as stream, open(folder / os.path.basename(file), "wb") as target:
                shutil.copyfileobj(stream, target)
