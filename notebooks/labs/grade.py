"""Grade filled-in labs: ``make grade LAB=path.ipynb``, or a folder of them.

A lab is graded on a copy, in a kernel of its own, by the checks that lie here, not by those beside
the student's notebook. Beside the notebook appear ``<name>.grade.json`` and ``<name>.grade.md``,
and for a folder ``grades.csv`` as well. The student's notebook is only read.

A cell that raises, hangs or ends the kernel costs what depends on it: the rest is run all the same.

This finds mistakes, not fraud: a student's code runs as yours does. Run what you do not trust in a
container.
"""

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

sys.path.insert(0, str(Path(__file__).parent))
import build
from checks import grading

TIMEOUT = 120  # seconds that a cell may take
PATIENCE = 10  # seconds that a cell may take to stop after that
CHECK = re.compile(r"^check\.(\w+)\(", re.MULTILINE)


@dataclass
class Part:
    """What a check gave: its points, of how many, and what it says."""

    part: str
    check: str
    points: float
    of: int
    says: str


@dataclass
class Grade:
    """What a notebook has earned.

    Attributes:
        stopped: what cells of the student's own said when they stopped.
    """

    notebook: str
    lab: str
    parts: list[Part]
    stopped: list[str] = field(default_factory=list)

    @property
    def points(self) -> float:
        return round(sum(part.points for part in self.parts), 1)

    @property
    def of(self) -> int:
        return sum(part.of for part in self.parts)


def grade(path: Path, timeout: float = TIMEOUT) -> Grade:
    """Grade one notebook.

    Raises:
        ValueError: it cannot be read, or is none of the labs.
    """
    notebook = _read(path)
    lab, calls = _lab(notebook, path)
    token = secrets.token_hex(8)
    cells = _graded_cells(notebook, lab, calls, token)
    _execute(cells, timeout)
    return _judged(cells, path, lab, calls, token)


def _read(path):
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds for what is no notebook
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be read as a notebook: {reason}") from error


def _lab(notebook, path):
    """The module of the checks, "lab1", and check → the line that calls it, from the lab itself.

    Known by the title or by the import, whichever is left: students may rename the file.
    """
    text = "\n".join(cell.source for cell in notebook.cells)
    numbers = re.findall(r"^# Lab (\d)\b|\bchecks import lab(\d)\b|\bchecks\.lab(\d)\b", text, re.M)
    for source in build.SOURCES:
        lab = source.name.partition("_")[0]
        if any(lab.removeprefix("lab") in found for found in numbers):
            student = build.twins(source)[f"{source.stem}.ipynb"]
            calls = {}
            for cell in student.cells:
                if cell.cell_type == "code" and (name := CHECK.match(cell.source)):
                    calls[name[1]] = cell.source
            return lab, calls
    raise ValueError(f"{path} is none of the labs: it has no title “# Lab …” and imports no checks")


def _graded_cells(notebook, lab, calls, token):
    """The student's code with our calls of the checks in the place of theirs.

    A check whose cell was deleted comes at the end. The kinds of a cell are "student" and "check".
    """
    cells, left = [], dict(calls)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        names = [name for name in CHECK.findall(cell.source) if name in calls]
        rest = cell.source
        for name in names:
            rest = rest.replace(calls[name], "")
        if rest.strip():
            cells.append(_cell(rest, "student"))
        for name in names:
            if left.pop(name, None):
                cells.append(_check_cell(lab, name, calls[name], token))
    for name in left:
        cells.append(_check_cell(lab, name, calls[name], token))
    return cells


def _check_cell(lab, name, call, token):
    arguments = call.replace("check.", "_check.", 1)
    source = (
        "from checks import grading as _grading\n"
        f"_grading.report({token!r}, {lab!r}, {name!r}, lambda _check: {arguments})"
    )
    return _cell(source, "check", name)


def _cell(source, kind, name=""):
    return nbformat.v4.new_code_cell(source, metadata={"kind": kind, "check": name})


def _execute(cells, timeout):
    """Run all cells; those that end their kernel or cannot be stopped are left out of a new one."""
    from snipkit.study import notebooks, paths

    left_out = set()
    while True:
        with tempfile.TemporaryDirectory(prefix="snipkit-grade-") as folder:
            shutil.copytree(Path(__file__).parent / "checks", Path(folder, "checks"))
            with notebooks.kernel_config() as config, _environment(paths):
                ended = _run(cells, left_out, folder, config, timeout)
        if ended is None:
            return
        left_out.add(ended)


def _run(cells, left_out, folder, config, timeout):
    """Run the cells in one kernel; the number of the cell that ended it, or None."""
    client = NotebookClient(
        nbformat.v4.new_notebook(cells=list(cells), metadata=KERNEL),
        timeout=timeout,
        iopub_timeout=PATIENCE,
        interrupt_on_timeout=True,
        error_on_timeout={"ename": "Timeout", "evalue": "", "traceback": []},
        allow_errors=True,
        record_timing=False,
        resources={"metadata": {"path": folder}},
        config=config,
    )
    client.log.disabled = True  # a timeout is in the grade
    with client.setup_kernel():
        for number, cell in enumerate(cells):
            if number in left_out:
                continue
            cell.outputs = []
            try:
                client.execute_cell(cell, number)
                _still_answers(client)
            except (DeadKernelError, TimeoutError) as error:
                cell.outputs = []
                dead = isinstance(error, DeadKernelError)
                cell.metadata["ended"] = "ended the kernel" if dead else "could not be stopped"
                return number
    return None


KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def _still_answers(client):
    """TimeoutError if the kernel is still busy, as with a cell that ignores its interruption."""
    probe = nbformat.v4.new_code_cell("pass")
    client.timeout, timeout = PATIENCE, client.timeout
    client.interrupt_on_timeout = False
    try:
        client.execute_cell(probe, 0, store_history=False)
    finally:
        client.timeout, client.interrupt_on_timeout = timeout, True


@contextlib.contextmanager
def _environment(paths):
    """The kernel's variables: the data is where the project has it, and one thread is enough."""
    before = dict(os.environ)
    os.environ[paths.DATA_VARIABLE] = str(paths.data_root())
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["MPLBACKEND"] = "agg"
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _judged(cells, path, lab, calls, token):
    points = grading.load(lab).POINTS
    outcomes, stopped = {}, []
    for cell in cells:
        error = _error(cell)
        if cell.metadata["kind"] == "check":
            outcomes[cell.metadata["check"]] = _reported(cell, token) or {
                "share": 0.0,
                "says": error or "the check gave no result",
            }
        elif error:
            stopped.append(f"{error} — in the cell that begins: {_first_line(cell.source)}")
    parts = []
    for name in calls:
        part, of = points[name]
        outcome = outcomes[name]
        parts.append(Part(part, name, round(of * outcome["share"], 1), of, outcome["says"]))
    return Grade(path.name, lab, parts, stopped)


def _reported(cell, token):
    for output in cell.outputs:
        for line in output.get("text", "").splitlines():
            if line.startswith(token):
                return json.loads(line.removeprefix(token))
    return None


def _error(cell):
    """What a cell that did not end well says, or None."""
    if "ended" in cell.metadata:
        return f"it {cell.metadata['ended']}"
    for output in cell.outputs:
        if output.output_type == "error":
            if output.ename == "KeyboardInterrupt":
                return "it took too long and was stopped"
            return f"{output.ename}: {' '.join(output.evalue.split())[:200]}"
    return None


def _first_line(source):
    lines = [line for line in source.splitlines() if line.strip()]
    return f"`{lines[0].strip()}`"


# --- what is written ---


def by_part(grade: Grade) -> dict[str, float]:
    """Part → its points, over its checks."""
    points: dict[str, float] = {}
    for part in grade.parts:
        points[part.part] = round(points.get(part.part, 0) + part.points, 1)
    return points


def as_json(grade: Grade) -> str:
    content = {"points": grade.points, "of": grade.of, "by_part": by_part(grade)} | asdict(grade)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def as_markdown(grade: Grade) -> str:
    """A page that can be handed back."""
    lines = [
        f"# {grade.notebook}: {grade.points:g} of {grade.of} points",
        "",
        "| part | check | points | what it says |",
        "| --- | --- | --- | --- |",
    ]
    for part in grade.parts:
        says = part.says.replace("|", "\\|")
        lines.append(f"| {part.part} | `{part.check}` | {part.points:g} of {part.of} | {says} |")
    if grade.stopped:
        lines += ["", "Cells that stopped:", ""]
        lines += [f"- {sentence}" for sentence in grade.stopped]
    return "\n".join(lines) + "\n"


def as_csv(grades: dict[Path, Grade | str]) -> str:
    """One row a notebook; what could not be graded says why."""
    import pandas as pd

    rows = []
    for path, given in grades.items():
        row = {"notebook": str(path)}
        if isinstance(given, str):
            row["error"] = given
        else:
            row |= {"lab": given.lab, "points": given.points, "of": given.of} | by_part(given)
        rows.append(row)
    table = pd.DataFrame(rows)
    first = [name for name in ("notebook", "lab", "points", "of") if name in table]
    parts = sorted(name for name in table if name.startswith("("))
    return table[first + parts + [name for name in ("error",) if name in table]].to_csv(index=False)


def found(path: Path) -> list[Path]:
    """The notebook, or those in a folder and below it.

    Raises:
        ValueError: there is none.
    """
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*.ipynb") if ".ipynb_checkpoints" not in file.parts)
    if not files:
        raise ValueError(f"{path}: there is no such notebook, and no folder with notebooks")
    return files


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    from snipkit.study import paths

    parser = argparse.ArgumentParser(description="Grade filled-in labs.")
    parser.add_argument("lab", type=Path, help="a notebook, or a folder of them")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds a cell may take")
    chosen = parser.parse_args(arguments)
    grades: dict[Path, Grade | str] = {}
    try:
        for path in found(chosen.lab):
            try:
                given = grades[path] = grade(path, chosen.timeout)
            except ValueError as error:
                if path == chosen.lab:
                    raise
                grades[path] = str(error)
                print(f"{path}: not graded: {error}", flush=True)
                continue
            paths.write_text(path.with_suffix(".grade.json"), as_json(given))
            paths.write_text(path.with_suffix(".grade.md"), as_markdown(given))
            print(f"{path}: {given.points:g} of {given.of} points", flush=True)
        if chosen.lab.is_dir():
            paths.write_text(chosen.lab / "grades.csv", as_csv(grades))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
