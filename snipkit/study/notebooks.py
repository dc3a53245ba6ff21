"""What happens to the notebooks from outside: their grids read, their parameters set, their cells run.

Three tags on a notebook's code cells carry all of it. ``parameters`` is papermill's; ``grid`` cells (imports, and the
list ``runs``) and ``figure`` cells need no Jupyter: a grid can be trained on a machine that has none, and figures can
be drawn again from the records alone.
"""

import json
import os
import tempfile
from pathlib import Path

import yaml
from pydantic import ValidationError

from snipkit.study import paths
from snipkit.study.runs import one_line

PROFILES = ("lesson", "laptop", "overnight", "paper")
WRITTEN = "overnight"  # the profile whose parameters and outputs the committed notebooks show


def folder() -> Path:
    """``notebooks/`` in the project's folder."""
    return paths.home() / "notebooks"


def names() -> list[str]:
    """The names of all notebooks, in reading order.

    Raises:
        ValueError: there are none: this is not the project's folder.
    """
    found = sorted(path.stem for path in folder().glob("*.ipynb") if not path.stem.endswith(".part"))
    if not found:
        raise ValueError(f"no notebooks in {folder()}: go to the project's folder, or set ${paths.HOME_VARIABLE} to it")
    return found


def parameters(name: str, profile: str) -> dict:
    """The papermill parameters of a notebook in a profile, from ``notebooks/profiles/<profile>.yml``.

    Raises:
        ValueError: an unknown profile, or a parameter that the notebook does not have.
    """
    known_names, path = names(), _file(profile)
    try:
        given = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict) or not all(isinstance(value, dict | None) for value in given.values()):
        raise ValueError(f"{path}: it takes a mapping of parameters for each notebook")
    for wanted in given.keys() | {name}:
        if wanted not in known_names:
            raise ValueError(f"{path}: no notebook is called {wanted}; known: {', '.join(known_names)}")
    chosen = {"profile": profile} | (given.get(name) or {})
    defaults = {}
    for source in _cells(name, "parameters"):
        exec(source, defaults)
    for key, value in chosen.items():
        if key not in defaults:
            raise ValueError(f"{path}: {name} has no parameter {key}")
        default, kind = defaults[key], type(value)
        if None not in (default, value) and type(default) is not kind and (type(default), kind) != (float, int):
            raise ValueError(f"{path}: {key} of {name} is {value!r}, but it takes {type(default).__name__}")
    return chosen


def _file(profile):
    return folder() / "profiles" / f"{known(profile)}.yml"


def known(profile: str) -> str:
    """The profile, if it is one.

    Raises:
        ValueError: it is not; the message lists the known ones.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    return profile


def grid(name: str, profile: str) -> list:
    """The runs of a notebook in a profile: what its ``grid`` cells leave in ``runs``; [] where it trains nothing."""
    return _namespace(name, profile).get("runs", [])


def draw(name: str, profile: str, records: dict) -> int:
    """Run the notebook's ``figure`` cells on records alone, without data or training.

    Args:
        records: what ``records.read`` gave.

    Returns:
        How many of its runs are on record; 0 means that nothing was drawn.
    """
    import matplotlib.pyplot as plt

    from snipkit.study import records as recorded

    namespace = _namespace(name, profile)
    namespace["table"] = recorded.table(namespace.get("runs", []), records)
    if len(namespace["table"]):
        for source in _cells(name, "figure"):
            exec(source, namespace)
        plt.close("all")  # they are on disk
    return len(namespace["table"])


def execute(name: str, profile: str, target: Path) -> None:
    """Run a whole notebook with a profile's parameters through papermill; ``target`` appears when all went well.

    The finished notebook is cleaned of everything that differs from run to run, so a rerun leaves no diff.

    Raises:
        ValueError: see ``parameters``.
        papermill.exceptions.PapermillExecutionError: a cell failed; the half-run notebook stays beside the target.
    """
    chosen, target = parameters(name, profile), Path(target)

    import nbformat
    import papermill
    from traitlets.config import Config

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part.ipynb")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars are for terminals, not for stored outputs
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the number of threads moves the last digits
    with tempfile.TemporaryDirectory(prefix="snipkit-") as sockets:
        papermill.execute_notebook(
            str(folder() / f"{name}.ipynb"), str(part),
            # The parameters of that profile are those written in the notebook: it stays as it is.
            parameters={} if profile == WRITTEN else chosen,
            cwd=str(folder()), progress_bar=False, record_timing=False, coalesce_streams=True, iopub_timeout=60,
            config=Config({"KernelManager": {"transport": "ipc", "ip": os.path.join(sockets, "kernel")}}),
        )
    notebook = nbformat.read(part, as_version=4)
    notebook.metadata.pop("papermill", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    nbformat.write(notebook, part)
    part.replace(target)


def _cells(name, tag) -> list[str]:
    """The sources of a notebook's code cells with that tag."""
    content = json.loads((folder() / f"{name}.ipynb").read_text())
    return [
        "".join(cell["source"])
        for cell in content["cells"]
        if cell["cell_type"] == "code" and tag in cell["metadata"].get("tags", [])
    ]


def _namespace(name, profile) -> dict:
    """The names a notebook has after its ``parameters`` (set by the profile) and its ``grid`` cells."""
    namespace = {}
    for source in _cells(name, "parameters"):
        exec(source, namespace)
    namespace |= parameters(name, profile)
    try:
        for source in _cells(name, "grid"):
            exec(source, namespace)
    except Exception as error:  # whatever the values of the profile lead to in there
        what = one_line(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{_file(profile)} does not fit {name}: {what}") from error
    return namespace
