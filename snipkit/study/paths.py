"""Where the study keeps its files, and how they are written."""

import functools
import os
import stat
import sys
import tempfile
import warnings
from pathlib import Path

from snipkit._files import replacing

HOME_VARIABLE = "SNIPKIT_HOME"
DATA_VARIABLE = "SNIPKIT_DATA"
#: set for the kernels that the study's own commands start: the profile whose parameters they have
PROFILE_VARIABLE = "SNIPKIT_PAGE_PROFILE"
#: profiles whose figures are committed
COMMITTED = ("overnight", "paper", "registered")
BY_HAND = "by-hand"  # the folder for figures of pages that are run by hand


def home() -> Path:
    """The project's folder.

    The first of these: ``$SNIPKIT_HOME``; the working directory or a parent of it that holds
    ``notebooks/profiles/``; the checkout that this code is in. The working directory if there is
    none of them, as for a package that was installed from a wheel.

    Raises:
        ValueError: ``$SNIPKIT_HOME`` is not a folder.
    """
    if os.environ.get(HOME_VARIABLE, "").strip():
        return _chosen_home()
    return _project() or Path.cwd()


def project() -> Path:
    """As ``home``, where it takes the project itself.

    Raises:
        ValueError: there is none; the message says which folders were searched.
    """
    if os.environ.get(HOME_VARIABLE, "").strip():
        return _chosen_home()
    folder = _project()
    if folder is None:
        raise ValueError(
            f"neither {Path.cwd()} nor a folder above it is the project (it holds "
            f"notebooks/profiles/): go to the project's folder, or set ${HOME_VARIABLE} to it"
        )
    return folder


def _chosen_home():
    folder = expanded(os.environ[HOME_VARIABLE])
    if not folder.is_dir():
        raise ValueError(f"${HOME_VARIABLE} is {str(folder)!r}, and there is no such folder")
    return folder.absolute()


def _project():
    working_directory = Path.cwd()
    for folder in (working_directory, *working_directory.parents):
        if _is_project(folder):
            _warn_of_other_code(folder)
            return folder
    # A page that Jupyter or papermill runs from anywhere belongs to the checkout whose code it
    # imports. (For an installed wheel this is a folder of packages.)
    checkout = Path(__file__).absolute().parents[2]
    return checkout if _is_project(checkout) else None


@functools.cache
def _warn_of_other_code(project):
    """Say so where the project's pages are run by the code of another clone."""
    code = Path(__file__).resolve()
    place = code.relative_to(code.parents[2])
    if (project / place).exists() and (project / place).resolve() != code:
        warnings.warn(
            f"the project is {project}, but the code that runs is that of {code.parents[2]}: "
            f"install the project's own (pip install -e {project}), or set ${HOME_VARIABLE}",
            stacklevel=2,
        )


def _is_project(folder):
    """Whether a folder holds the study's notebooks, and not ones that anybody put there.

    In a folder that all may write to, as /tmp, anyone can make notebooks, and their cells would be
    run. But where a file system knows no modes (a Windows drive in WSL, a shared folder of a
    virtual machine), *every* folder is open to all: there it counts that the notebooks belong to
    this user, or to the owner of the folder around them.
    """
    notebooks = folder / "notebooks"
    if not (notebooks / "profiles").is_dir():
        return False
    around = folder.stat()
    if not around.st_mode & stat.S_IWOTH:
        return True
    if around.st_mode & stat.S_ISVTX:  # a temporary folder of the system
        return False
    return notebooks.stat().st_uid in (os.getuid(), around.st_uid)


def expanded(path: str | Path) -> Path:
    """A path as a user gives it: without blanks around it, and with ``~`` for the home folder.

    Raises:
        ValueError: there is no such home folder.
    """
    text = str(path).strip() if isinstance(path, str) else path
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{str(path)!r}: nobody knows the home folder that ~ stands for"
        ) from error


def data_root() -> Path:
    """The data folder: ``$SNIPKIT_DATA``, else ``data/`` in the project's folder."""
    chosen = os.environ.get(DATA_VARIABLE, "").strip()
    return expanded(chosen).absolute() if chosen else home() / "data"


def results(profile: str) -> Path:
    """The folder of a profile's records. Raises what ``project`` raises."""
    return project() / "results" / profile


def figures(profile: str) -> Path:
    """The folder of a profile's figures. Raises what ``project`` raises."""
    return project() / "figures" / profile


def figures_to_write(profile: str) -> Path:
    """The folder that new figures of a profile go to, made if need be.

    Committed figures are written by the study's own commands, which set the parameters of the
    profile. A page that somebody runs by hand may have others: its figures go to
    ``figures/by-hand/``.
    """
    folder = figures(profile)
    by_a_command = os.environ.get(PROFILE_VARIABLE) == profile
    if profile in COMMITTED and _in_ipython() and not by_a_command:
        folder = figures(BY_HAND) / profile
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _in_ipython():
    """Whether this is a notebook's kernel, or IPython in a terminal."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, whatever the locale, all of it or nothing."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def temporary() -> Path:
    """This user's own folder in the system's temporary folder.

    Raises:
        PermissionError: others made it, or may write to it.
    """
    folder = Path(tempfile.gettempdir()) / f"snipkit-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(
            f"{folder}: others made it or may write to it; delete it, or set $TMPDIR"
        )
    return folder
