"""Where the study keeps its files."""

import os
import stat
import tempfile
from pathlib import Path

HOME_VARIABLE, DATA_VARIABLE = "SNIPKIT_HOME", "SNIPKIT_DATA"


def home() -> Path:
    """The project's folder: ``$SNIPKIT_HOME``, else the first of the working directory and its parents that holds
    ``notebooks/``, else the working directory.

    Raises:
        ValueError: ``$SNIPKIT_HOME`` is not a folder.
    """
    if chosen := os.environ.get(HOME_VARIABLE):
        if not Path(chosen).is_dir():
            raise ValueError(f"${HOME_VARIABLE} is {chosen!r}, and there is no such folder")
        return Path(chosen).absolute()
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _is_project(folder)), here)


def _is_project(folder):
    # Anyone can make /tmp/notebooks: a folder that everybody may write to is nobody's project.
    return (folder / "notebooks").is_dir() and not folder.stat().st_mode & stat.S_IWOTH


def data_root() -> Path:
    """The data folder: ``$SNIPKIT_DATA``, else ``data/`` in the project's folder."""
    return Path(os.environ.get(DATA_VARIABLE) or home() / "data").absolute()


def results(profile: str) -> Path:
    return home() / "results" / profile


def figures(profile: str) -> Path:
    return home() / "figures" / profile


def temporary() -> Path:
    """This user's own folder in the system's temporary folder; PermissionError if others made it or may write to it."""
    folder = Path(tempfile.gettempdir()) / f"snipkit-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if (found := folder.lstat()).st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder}: others made it or may write to it; delete it, or set $TMPDIR")
    return folder
