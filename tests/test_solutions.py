"""The solutions of the exercises, run as they stand but for the number of steps, one section at a
time.
"""

import functools
import json
import re

import matplotlib
import pytest
from tiny import ROOT, short_recipes

from snipkit import training
from snipkit.study.sets import datasets
from snipkit.study.sets.vision import load_torchvision

FOLDER = ROOT / "docs" / "solutions"
BLOCK = re.compile(r"^```python(.*)\n((?:.*\n)*?)```$", re.M)
STEPS = 20  # of each training here: the code is tested, not the errors that the pages report
load = functools.cache(datasets.load)


def sections(page):
    """(what all sections start from, {heading: text}) of a page of solutions."""
    start, *parts = re.split(r"^## ", page.read_text(), flags=re.M)
    return start, {part.partition("\n")[0]: part for part in parts}


def code(text):
    return "".join(block for kind, block in BLOCK.findall(text) if kind != " no-run")


PAGES = sorted(FOLDER.glob("*.md"))
SECTIONS = [
    (page, heading) for page in PAGES for heading, text in sections(page)[1].items() if code(text)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_exercise_has_its_solution(page):
    if not (notebook := ROOT / "notebooks" / f"{page.stem}.ipynb").exists():
        pytest.skip("not the solutions of a notebook")
    cells = json.loads(notebook.read_text())["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    numbers = re.findall(r"^(\d+)\. ", text.partition("\n## Exercises")[2], re.M)
    assert [heading.partition(".")[0] for heading in sections(page)[1]] == numbers


def test_every_notebook_with_exercises_has_a_page():
    notebooks = [
        n for n in (ROOT / "notebooks").glob("*.ipynb") if '"## Exercises' in n.read_text()
    ]
    assert {n.stem for n in notebooks} <= {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_says_why_and_what_it_gave(page):
    text = page.read_text()
    assert all(kind in ("", " no-run") for kind, _ in BLOCK.findall(text))
    assert text.count("```python no-run") == text.count("**Not run in the tests**")


@pytest.mark.filterwarnings("ignore::snipkit.masking.EmptyLayerWarning", "ignore:Sparse CSR")
@pytest.mark.parametrize(
    "page, heading", SECTIONS, ids=[f"{page.stem}-{h.split('.')[0]}" for page, h in SECTIONS]
)
def test_solution_runs(page, heading, monkeypatch):
    monkeypatch.chdir(ROOT)  # for the records
    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.setattr(training, "Recipe", short_recipes(STEPS))
    matplotlib.use("agg")
    start, parts = sections(page)
    if "torchvision" in parts[heading]:
        load_torchvision()
    found = {}
    exec(compile(code(start), f"{page.name} (start)", "exec"), found)
    exec(compile(code(parts[heading]), f"{page.name} ({heading})", "exec"), found)
