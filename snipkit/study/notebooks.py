"""What happens to the pages from outside: grids read, parameters set, cells run.

A **page** is a notebook in ``notebooks/`` that a profile (``notebooks/profiles/*.yml``) names. Any
other notebook there is a reader's own: no command runs it or counts it.

Three tags on a page's code cells carry all of it. ``parameters`` is papermill's. ``grid`` cells
hold imports and the list ``runs``; they need no Jupyter, so a grid can be trained on a machine that
has none. ``figure`` cells need the records alone, so figures can be drawn again without data.
"""

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from snipkit.study import paths
from snipkit.study.train.runs import one_line

if TYPE_CHECKING:
    from traitlets.config import Config

PROFILES = ("lesson", "laptop", "overnight", "evening", "paper")
ON_GPU = ("evening", "paper")  # profiles that take days or weeks without one
WRITTEN = "overnight"  # the profile whose parameters and outputs the committed pages show
LEFT_OUT = "left out"  # the key in a profile that is no page
SOCKET_PATH = 100  # bytes that the path of a socket may have: 107 on Linux, 103 on macOS


def folder() -> Path:
    """``notebooks/`` in the project's folder. Raises what ``paths.project`` raises."""
    return paths.project() / "notebooks"


def names() -> list[str]:
    """The names of all pages, sorted.

    Raises:
        ValueError: there are none, so this is not the project's folder; or a damaged profile.
    """
    listed = set()
    for file in sorted((folder() / "profiles").glob("*.yml")):
        listed |= _pages_of(file).keys()
    pages = [str(name) for name in listed if (folder() / f"{name}.ipynb").exists()]
    if not pages:
        raise ValueError(
            f"no notebooks in {folder()} that a profile there names: go to the project's folder, "
            f"or set ${paths.HOME_VARIABLE} to it"
        )
    return sorted(pages)


def parameters(name: str, profile: str) -> dict:
    """The papermill parameters of a page in a profile, ``notebooks/profiles/<profile>.yml``.

    Raises:
        ValueError: an unknown profile, or a parameter that the page does not have.
    """
    pages = names()
    file = _profile_file(profile)
    by_page = _pages_of(file)
    if name not in pages:
        raise ValueError(f"no notebook is called {name}; known: {', '.join(pages)}")
    for page in by_page:
        if page not in pages:
            raise ValueError(f"{file}: no notebook is called {page}; known: {', '.join(pages)}")
    defaults = _defaults(name)
    chosen = {"profile": profile} | (by_page.get(name) or {})
    for key, value in chosen.items():
        if key not in defaults:
            raise ValueError(f"{file}: {name} has no parameter {key}")
        if not _fits(value, defaults[key]):
            kind = type(defaults[key]).__name__
            raise ValueError(f"{file}: {key} of {name} is {value!r}, but it takes {kind}")
    return chosen


def _fits(value, default):
    """Whether a value has the type of the default; whole numbers are numbers, None is anything."""
    if value is None or default is None:
        return True
    if type(default) is float and type(value) is int:
        return True
    return type(value) is type(default)


def left_out(profile: str) -> dict[str, dict]:
    """What a profile leaves out by name.

    Returns:
        In words → fields of ``Run`` or ``Recipe``, with a value or a list of values. No run of the
        profile has all of them.

    Raises:
        ValueError: an unknown or a damaged profile.
    """
    return _read_profile(_profile_file(profile)).get(LEFT_OUT) or {}


def _pages_of(file):
    """Page → its parameters, or None."""
    content = _read_profile(file)
    content.pop(LEFT_OUT, None)
    return content


def _read_profile(file):
    """Page → its parameters, or None; and under ``LEFT_OUT``, what ``left_out`` gives."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file}: {' '.join(str(error).split())}") from error
    if isinstance(content, dict):
        if all(isinstance(value, dict | None) for value in content.values()):
            return content
    raise ValueError(f"{file}: it takes a mapping of parameters for each notebook")


def _profile_file(profile):
    return folder() / "profiles" / f"{checked_profile(profile)}.yml"


def checked_profile(profile: str) -> str:
    """The profile, if it is one.

    Raises:
        ValueError: it is not; the message lists the known ones.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    return profile


def grid(name: str, profile: str) -> list:
    """The runs of a page in a profile: what its ``grid`` cells leave in ``runs``, else []."""
    return _after_grid(name, profile).get("runs", [])


def _after_grid(name, profile):
    """The names that a page's ``parameters`` and ``grid`` cells leave, executed in this process.

    These cells of the project's own pages are plain Python, and so are the ``figure`` cells: they
    need no kernel. A whole page runs in one, through papermill.
    """
    namespace = _defaults(name) | parameters(name, profile)
    try:
        for source in _sources(name, "grid"):
            exec(source, namespace)
    except Exception as error:  # whatever the values of the profile lead to in there
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, ValidationError):
            reason = one_line(error)
        raise ValueError(f"{_profile_file(profile)} does not fit {name}: {reason}") from error
    return namespace


def _defaults(name):
    """The names that the ``parameters`` cells of a page set; executed here, as ``grid`` cells."""
    namespace: dict[str, Any] = {}
    for source in _sources(name, "parameters"):
        exec(source, namespace)
    return namespace


def _sources(name, tag):
    """The sources of a page's code cells with a tag."""
    file = folder() / f"{name}.ipynb"
    sources = []
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        for cell in content["cells"]:
            if cell["cell_type"] == "code" and tag in cell["metadata"].get("tags", []):
                sources.append("".join(cell["source"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no notebook, or is damaged ({error}): restore it") from error
    return sources


def draw(name: str, profile: str, records: dict) -> int:
    """Run a page's ``figure`` cells in this process, on the records alone: no data, no training.

    Args:
        records: what ``records.read`` gave for the profile.

    Returns:
        How many of the page's runs are on record; 0 means that nothing was drawn.

    Raises:
        ValueError: see ``parameters``.
        Exception: whatever a cell raises; the traceback says in which.
    """
    from snipkit.study.train.records import table

    with as_a_page_runs(profile):
        namespace = _after_grid(name, profile)
        runs = namespace.get("runs", [])
        on_record = {run.id for run in runs} & records.keys()
        if on_record:
            namespace["table"] = table(runs, records)
            namespace["display"] = lambda *shown: None
            with contextlib.redirect_stdout(None):  # the page shows what its cells print
                for number, source in enumerate(_sources(name, "figure"), 1):
                    exec(compile(source, f"{name}, figure cell {number}", "exec"), namespace)
    return len(on_record)


@contextlib.contextmanager
def as_a_page_runs(profile: str) -> Iterator[None]:
    """What a page finds in its kernel, for cells that run in this process, and no screen.

    That is the folder, the environment variables, and one thread. What the cells change of torch,
    matplotlib and the warnings ends with them.
    """
    import matplotlib
    import matplotlib.pyplot as plt

    from snipkit.study.train import executors

    try:  # the number of threads moves the last digits
        with executors.one_thread(), _environment(profile), contextlib.chdir(folder()):
            with warnings.catch_warnings(), plt.rc_context():
                plt.switch_backend("agg")
                matplotlib.rc_file_defaults()  # as in a process that has drawn nothing
                yield
    finally:
        plt.close("all")


def execute(name: str, profile: str, target: Path | str) -> None:
    """Run a whole page with a profile's parameters; ``target`` appears when all went well.

    The finished page is cleaned of everything that differs from run to run, so that a rerun leaves
    no diff.

    Raises:
        ValueError: see ``parameters``.
        RuntimeError: papermill is not installed.
        papermill.exceptions.PapermillExecutionError: a cell failed; the page as far as it came
            stays beside the target.
    """
    chosen = parameters(name, profile)
    if profile == WRITTEN:
        chosen = {}  # they are written in the page: it stays as it is
    nbformat = _needed("nbformat")
    target = paths.expanded(target).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part.ipynb")
    page = nbformat.read(folder() / f"{name}.ipynb", as_version=4)
    _run(page, unfinished, profile, chosen)
    _clean(unfinished)
    unfinished.replace(target)


def _clean(path):
    """Take away what differs from run to run: times, ids, the version of Python."""
    nbformat = _needed("nbformat")
    page = nbformat.read(path, as_version=4)
    page.metadata.pop("papermill", None)
    page.metadata.get("language_info", {}).pop("version", None)
    for number, cell in enumerate(page.cells):
        cell.id = f"cell-{number:02d}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    nbformat.write(page, path)


def _run(page, output, profile, chosen):
    """Run a notebook in ``notebooks/``, with these parameters.

    ``output``: a file for the result.
    """
    papermill = _needed("papermill")
    with kernel_config() as config, _environment(profile):
        papermill.execute_notebook(
            page,
            output,
            parameters=chosen,
            cwd=folder(),
            progress_bar=False,
            record_timing=False,
            coalesce_streams=True,
            iopub_timeout=60,
            config=config,
        )


def _needed(package):
    """Import what only those need who run notebooks.

    Raises:
        RuntimeError: it is not installed.
    """
    try:
        return __import__(package)
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"running a page needs {error.name}, which is not installed: "
            "pip install 'snipkit[notebooks]'"
        ) from error


@contextlib.contextmanager
def kernel_config() -> "Iterator[Config]":
    """How Jupyter talks to a kernel: by files in a folder that only this user can enter.

    Sockets have short paths (``SOCKET_PATH``): where no temporary folder is short enough, it is by
    ports of this machine.
    """
    from traitlets.config import Config

    around = tempfile.gettempdir()
    by_sockets = False
    for candidate in (around, "/tmp", "/var/tmp"):
        longest = os.fsencode(os.path.join(candidate, "snipkit-12345678", "kernel-5"))
        if len(longest) <= SOCKET_PATH and os.access(candidate, os.W_OK | os.X_OK):
            around, by_sockets = candidate, True
            break
    with tempfile.TemporaryDirectory(prefix="snipkit-", dir=around) as private:
        # Jupyter's own folder for this file is in the user's home, which may be read-only.
        manager = {"connection_file": os.path.join(private, "kernel.json")}
        if by_sockets:
            manager |= {"transport": "ipc", "ip": os.path.join(private, "kernel")}
        # Its work is done by then. Asked politely, it would take its time, and print a traceback.
        client = {"shutdown_kernel": "immediate"}
        yield Config({"KernelManager": manager, "NotebookClient": client})


@contextlib.contextmanager
def _environment(profile):
    """The environment variables of a kernel, which inherits those of this process."""
    before = dict(os.environ)
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars are for terminals, not for stored outputs
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # their number moves the last digits
    os.environ[paths.PROFILE_VARIABLE] = profile
    # The kernel works in notebooks/: a relative folder would be another one there.
    os.environ[paths.DATA_VARIABLE] = str(paths.data_root())
    os.environ[paths.HOME_VARIABLE] = str(paths.project())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
