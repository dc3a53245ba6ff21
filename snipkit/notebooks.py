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

from snipkit import sources

PROFILES = ("lesson", "laptop", "overnight", "paper")


def folder() -> Path:
    """``notebooks/`` in the project's folder."""
    return sources.home() / "notebooks"


def names() -> list[str]:
    """The names of all notebooks, in reading order."""
    return sorted(path.stem for path in folder().glob("*.ipynb"))


def parameters(name, profile) -> dict:
    """The papermill parameters of a notebook in a profile, from ``notebooks/profiles/<profile>.yml``.

    Raises:
        ValueError: an unknown profile, or a parameter that the notebook does not have.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    given = yaml.safe_load((folder() / "profiles" / f"{profile}.yml").read_text()) or {}
    if unknown := set(given) - set(names()):
        raise ValueError(f"{profile}.yml has parameters for {', '.join(sorted(unknown))}; notebooks: {', '.join(names())}")
    chosen = {"profile": profile} | (given.get(name) or {})
    known = {}
    for source in _cells(name, "parameters"):
        exec(source, known)
    if unknown := set(chosen) - set(known):
        raise ValueError(f"{name} has no parameter {', '.join(sorted(unknown))}")
    return chosen


def grid(name, profile) -> list:
    """The runs of a notebook in a profile: what its ``grid`` cells leave in ``runs``; [] where it trains nothing."""
    return _namespace(name, profile).get("runs", [])


def draw(name, profile, records) -> int:
    """Run the notebook's ``figure`` cells on records alone, without data or training.

    Args:
        records: what ``study.read`` gave.

    Returns:
        How many of its runs are on record; 0 means that nothing was drawn.
    """
    import matplotlib.pyplot as plt

    from snipkit import study

    namespace = _namespace(name, profile)
    namespace["table"] = study.table(namespace.get("runs", []), records)
    if len(namespace["table"]):
        for source in _cells(name, "figure"):
            exec(source, namespace)
        plt.close("all")  # they are on disk
    return len(namespace["table"])


def execute(name, profile, target) -> None:
    """Run a whole notebook with a profile's parameters through papermill; ``target`` appears when all went well.

    The finished notebook is cleaned of everything that differs from run to run, so a rerun leaves no diff.

    Raises:
        papermill.exceptions.PapermillExecutionError: a cell failed; the half-run notebook stays beside the target.
    """
    import nbformat
    import papermill
    from traitlets.config import Config

    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part.ipynb")
    lesson = profile == "lesson"
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars are for terminals, not for stored outputs
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the number of threads moves the last digits
    with tempfile.TemporaryDirectory(prefix="snipkit-") as sockets:
        papermill.execute_notebook(
            str(folder() / f"{name}.ipynb"), str(part),
            # The lesson's parameters are those written in the notebook.
            parameters={} if lesson else parameters(name, profile),
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
    for source in _cells(name, "grid"):
        exec(source, namespace)
    return namespace
