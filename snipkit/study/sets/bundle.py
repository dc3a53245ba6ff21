"""All data sets in one zip file, for machines without a network: ``make bundle``.

``sources.fetch`` takes from the bundle what is missing, where the bundle lies in the data folder.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from snipkit._files import replacing
from snipkit.study.sets import official, sources

SUMS = "SHA256SUMS"
README = f"""Data sets of snipkit, with their SHA-256 in {SUMS}.
Put this file as it is into the project's folder data/, or where SNIPKIT_DATA points to: what a notebook needs is taken out of it, and checked.
Or unpack it there: unzip {sources.BUNDLE} -d data && cd data && sha256sum --check {SUMS}
"""  # noqa: E501  three lines, as promised
EPOCH = (1980, 1, 1, 0, 0, 0)  # of all entries, so that equal data makes equal bundles


def write(names: Iterable[str], root: Path, target: Path) -> bool:
    """Write the bundle, all of it or nothing.

    Args:
        names: data sets; they are fetched if need be.
        root: the data folder.

    Returns:
        False if ``target`` was there already, with these very files.

    Raises:
        sources.DataError: a set is not available.
        OSError: the bundle cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="snipkit-bundle-") as scratch:
        files: dict[str, Path] = {}
        for name in names:
            files |= _verified(name, root, Path(scratch))
        sums = "".join(f"{sources.file_hash(path)}  {name}\n" for name, path in files.items())
        if _holds(target, sums, files):
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as unfinished:
            with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(zipfile.ZipInfo("README.txt", EPOCH), README)
                archive.writestr(zipfile.ZipInfo(SUMS, EPOCH), sums)
                for name, path in files.items():
                    _add(archive, name, path)
    return True


def _verified(name, root, scratch):
    """Name in the bundle, below the data folder → verified file."""
    source = sources.SOURCES[name]
    folder = sources.fetch(name, root)
    if folder != root / source.folder:  # torchvision's version: made into the one that is fetched
        folder = scratch
        for file, rows in official.read_cifar_10(root).items():
            rows.tofile(scratch / file)
    return {(Path(source.folder) / file).as_posix(): folder / file for file in source.sha256}


def _add(archive, name, path):
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    with open(path, "rb") as stream, archive.open(entry, "w", force_zip64=True) as packed:
        shutil.copyfileobj(stream, packed)


def _holds(target, sums, files):
    """Whether a whole bundle of these files is there."""
    try:
        with zipfile.ZipFile(target) as archive:
            complete = {*archive.namelist()} >= files.keys()
            return complete and archive.read(SUMS).decode() == sums and archive.testzip() is None
    except (OSError, KeyError, zipfile.BadZipFile):
        return False
