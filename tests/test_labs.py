"""The labs: twins from one source, solutions that pass, and checks that help."""

import contextlib
import importlib
import importlib.util
import re

import lab_answers
import matplotlib
import nbformat
import pytest
from tiny import ROOT, short_recipes

from snipkit import training
from snipkit.study import notebooks

LABS = ROOT / "notebooks" / "labs"
spec = importlib.util.spec_from_file_location("labs_build", LABS / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


@pytest.mark.parametrize("source", build.SOURCES, ids=lambda path: path.stem)
def test_the_twins_are_those_of_the_source(source):
    for name, made in build.twins(source).items():
        stored = nbformat.read(LABS / name, as_version=4)
        assert [(c.cell_type, c.source) for c in stored.cells] == [
            (c.cell_type, c.source) for c in made.cells
        ], f"{name} is not what its source says: run `make labs`"
        for cell in stored.cells:
            if cell.cell_type == "code":
                assert ("solution" in name) == (cell.execution_count is not None)
                assert all(
                    o.output_type != "error" and o.get("name") != "stderr" for o in cell.outputs
                )


@pytest.mark.parametrize("source", build.SOURCES, ids=lambda path: path.stem)
def test_a_students_twin_has_blanks_and_no_answers(source):
    student, solution = (
        "\n".join(cell.source for cell in twin.cells) for twin in build.twins(source).values()
    )
    marks = len(re.findall("# SOLUTION$|# BEGIN SOLUTION$", source.read_text(), re.MULTILINE))
    assert (
        marks >= 3
        and student.count("...  # your code") + len(re.findall(r"^\w+ = \.\.\.", student, re.M))
        >= marks
    )
    assert (
        "SOLUTION" not in student + solution
        and "**Solution.**" in solution
        and "**Solution.**" not in student
    )


def test_marks_become_blanks():
    code = (
        "def f(x):\n    # BEGIN SOLUTION\n    y = x\n    return y\n    # END SOLUTION\n\na = 3  # "
        "of x  # SOLUTION"
    )
    assert build.student(code) == "def f(x):\n    ...  # your code\n\na = ...  # of x"
    assert build.solution(code) == "def f(x):\n    y = x\n    return y\n\na = 3  # of x"


def code_cells(source):
    """The code of a student's twin and of the solution twin, cell by cell."""
    sources = []
    for twin in build.twins(source).values():
        code = [cell for cell in twin.cells if cell.cell_type == "code"]
        sources.append([c.source for c in code if "colab" not in c.metadata.get("tags", [])])
    return sources


@pytest.mark.parametrize("source", build.SOURCES, ids=lambda path: path.stem)
def test_solutions_pass_all_checks(source, capsys, monkeypatch):
    matplotlib.use("agg")
    monkeypatch.setattr(training, "Recipe", short_recipes(2))
    _, solution = code_cells(source)
    space = {}
    for cell in solution:
        exec(cell, space)
    assert capsys.readouterr().out.count("✓") == sum(cell.startswith("check.") for cell in solution)


@pytest.mark.parametrize("source", build.SOURCES, ids=lambda path: path.stem)
def test_blanks_fail_every_check(source, monkeypatch):
    """As for one who runs all cells and fills in nothing."""
    monkeypatch.setattr(training, "Recipe", short_recipes(2))
    student, _ = code_cells(source)
    space = {}
    for cell in student:
        if cell.startswith("check."):
            with pytest.raises(lab_answers.Wrong, match="not filled in yet"):
                exec(cell, space)
        elif "def " in cell or "import " in cell or "..." in cell:
            exec(cell, space)
        else:  # what uses the blanks
            with contextlib.suppress(Exception):
                exec(cell, space)


@pytest.mark.parametrize("source", build.SOURCES, ids=lambda path: path.stem)
def test_points_are_those_that_the_lab_shows_and_sum_to_100(source):
    checks = importlib.import_module(f"checks.{source.name[:4]}")
    shown = re.findall(r"^# \| (\(\w\)) \|.* (\d+) \|$", source.read_text(encoding="utf-8"), re.M)
    points = {}
    for part, number in checks.POINTS.values():
        points[part] = points.get(part, 0) + number
    assert points == {part: int(number) for part, number in shown}
    assert sum(points.values()) == 100
    _, solution = code_cells(source)
    called = re.findall(r"^check\.(\w+)", "\n".join(solution), re.M)
    assert called == list(checks.POINTS)


NAMES = [f"{part}-{what}" for part, what, *_ in lab_answers.ANSWERS]


@pytest.mark.parametrize("part, what, check, hint", lab_answers.ANSWERS, ids=NAMES)
def test_a_wrong_answer_gets_the_hint_that_helps(part, what, check, hint):
    said = lab_answers.sentence(check)
    assert re.search(hint, said), said
    assert len(said) < 400 and "\n" not in said


def test_each_part_has_a_blank_and_two_wrong_answers():
    for part in "abcdefghij":
        own = [what for of, what, _, _ in lab_answers.ANSWERS if of == f"({part})"]
        assert "blank" in own and len(own) >= 3


def test_the_page_quotes_what_a_check_says():
    page = (ROOT / "docs" / "labs.md").read_text(encoding="utf-8")
    sentences = [lab_answers.sentence(check) for _, _, check, _ in lab_answers.ANSWERS]
    assert set(re.findall("^> (.*)$", page, re.M)) & set(sentences)


def test_a_failure_is_shown_without_a_traceback():
    assert lab_answers.Wrong("look there")._render_traceback_() == ["✗ look there"]


def test_labs_are_no_notebooks_of_the_study():
    assert not any("lab" in name for name in notebooks.names())
