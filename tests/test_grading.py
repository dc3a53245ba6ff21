"""Graded labs: right, blank and wrong answers, and cells that raise, hang or end the kernel."""

import csv
import importlib.util
import json

import nbformat
import pytest
from tiny import ROOT

LABS = ROOT / "notebooks" / "labs"
spec = importlib.util.spec_from_file_location("labs_grade", LABS / "grade.py")
grading = importlib.util.module_from_spec(spec)
spec.loader.exec_module(grading)

STUDENT = LABS / "lab2_train_and_question.ipynb"
SOLUTION = LABS / "lab2_train_and_question_solution.ipynb"
STUBBORN = """def train(model, masks, batches, optimiser):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""


def handed_in(folder, name, change=lambda cells: cells, source=SOLUTION):
    """A student's notebook: cells of the solution, changed."""
    notebook = nbformat.read(source, as_version=4)
    notebook.cells = change(notebook.cells)
    nbformat.write(notebook, folder / name)
    return folder / name


def points(grade):
    return {part.check: part.points for part in grade.parts}


def test_a_right_answer_has_all_points_and_is_only_read(tmp_path, capsys):
    path = handed_in(tmp_path, "ann.ipynb")
    before = path.read_bytes()
    grading.main([str(path)])
    assert capsys.readouterr().out.endswith("ann.ipynb: 100 of 100 points\n")
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "ann.grade.json", "ann.grade.md", "ann.ipynb",
    ]  # fmt: skip
    content = json.loads((tmp_path / "ann.grade.json").read_text(encoding="utf-8"))
    assert content["by_part"] == {"(d)": 45, "(e)": 25, "(f)": 30} and content["points"] == 100
    page = (tmp_path / "ann.grade.md").read_text(encoding="utf-8")
    assert "| (d) | `train` | 45 of 45 | ✓ (d): removed weights are exactly 0" in page


def test_a_blank_answer_has_none(tmp_path):
    grade = grading.grade(handed_in(tmp_path, "blank.ipynb", source=STUDENT))
    assert set(points(grade).values()) == {0}
    assert all("is not filled in yet" in part.says for part in grade.parts)


def test_what_raises_hangs_or_forges_costs_its_part_alone(tmp_path, monkeypatch):
    def changed(cells):
        forged = nbformat.v4.new_code_cell(
            "check.switches = lambda *_: print('✓ (e): right')\n1 / 0"
        )
        dead = nbformat.v4.new_code_cell("import os\nos._exit(1)")
        kept = [cell for cell in cells if not cell.source.startswith("check.rescale")]
        for cell in kept:
            if cell.source.startswith("def train"):
                cell.source = STUBBORN
            elif cell.source.startswith("def loss_with_switches"):
                cell.source = "def loss_with_switches(*_): return 0"
            elif cell.source.startswith("magnitude_factor"):
                cell.source = cell.source.replace("0.1", "10")
        return [*kept[:3], forged, dead, *kept[3:]]

    monkeypatch.setattr(grading, "PATIENCE", 2)
    grade = grading.grade(handed_in(tmp_path, "eve.ipynb", changed), timeout=10)
    assert points(grade) == {"train": 0, "switches": 0, "rescale": 20, "factors": 3.3}
    says = {part.check: part.says for part in grade.parts}
    assert says["train"] == "it could not be stopped"
    assert "one number in a tensor" in says["switches"]
    stopped = "\n".join(grade.stopped)
    assert "ZeroDivisionError" in stopped and "ended the kernel — in the cell" in stopped


def test_a_folder_has_a_row_a_notebook(tmp_path, monkeypatch, capsys):
    (tmp_path / "bob").mkdir()
    for folder in (tmp_path, tmp_path / "bob"):
        handed_in(folder, "lab2.ipynb")
    (tmp_path / "notes.ipynb").write_text("not a notebook", encoding="utf-8")
    parts = [grading.Part("(f)", "rescale", 10.0, 20, "half"), grading.Part("(f)", "b", 5, 10, "")]
    graded = grading.grade

    def quickly(path, timeout):
        return graded(path) if "notes" in path.name else grading.Grade(path.name, "lab2", parts)

    monkeypatch.setattr(grading, "grade", quickly)
    grading.main([str(tmp_path)])
    with open(tmp_path / "grades.csv", encoding="utf-8", newline="") as stream:
        rows = {row["notebook"].removeprefix(f"{tmp_path}/"): row for row in csv.DictReader(stream)}
    assert list(rows) == ["bob/lab2.ipynb", "lab2.ipynb", "notes.ipynb"]
    assert rows["bob/lab2.ipynb"]["(f)"] == rows["lab2.ipynb"]["points"] == "15.0"
    assert "cannot be read as a notebook" in rows["notes.ipynb"]["error"]
    assert "notes.ipynb: not graded" in capsys.readouterr().out


def test_what_is_no_lab_is_refused_in_one_line(tmp_path):
    other = handed_in(tmp_path, "other.ipynb", lambda cells: [nbformat.v4.new_code_cell("1 + 1")])
    for path, words in ((other, "is none of the labs"), (tmp_path / "no", "no such notebook")):
        with pytest.raises(SystemExit, match=f"^error: .*{words}"):
            grading.main([str(path)])
    assert [file.name for file in tmp_path.iterdir()] == ["other.ipynb"]
