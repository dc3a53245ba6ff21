"""The site's source.

Pages, links, folds, laws and the slider. (`make site-check` looks at what is built.)
"""

import importlib
import json
import re
import subprocess
import sys
import warnings

import pytest
import yaml
from tiny import ROOT

import snipkit

sys.path.insert(0, str(ROOT / "docs"))
import assemble
import slider

LAWS = (ROOT / "docs" / "laws.md").read_text()
SOURCES = [*assemble.NOTEBOOKS, *assemble.PAGES, *assemble.SOLUTIONS.glob("*.md")]
ROOT_PAGES = [ROOT / name for name in ("CHECKLIST.md", "CONTRIBUTING.md", "CHANGELOG.md")]
WRITTEN = [*sorted((ROOT / "docs").rglob("*.md")), *ROOT_PAGES]  # by hand, and kept up to date
FOLDERS = "snipkit|tests|tools|notebooks|docs|figures|results"
MODULES = "snipkit|saliency|masking|training|interop|data|models|recipe|outcomes|beyond|study"


def test_every_law_names_tests_that_exist():
    for law in re.split(r"^\(law-\d+\)=$", LAWS, flags=re.M)[1:]:
        file = ROOT / re.search(r"`(tests/\w+\.py)`", law)[1]
        names = re.findall(r"`(test_\w+)`", law)
        assert names, law
        assert set(names) <= set(re.findall(r"^def (\w+)", file.read_text(), re.M)), law


def test_every_law_that_is_cited_is_on_the_page():
    stated = set(re.findall(r"^\(law-(\d+)\)=$", LAWS, re.M))
    assert stated == set(re.findall(r"^## Law (\d+):", LAWS, re.M))
    for path in SOURCES:
        assert set(re.findall(r"\b[Ll]aw (\d+)\b", path.read_text())) <= stated, path


def test_a_page_links_to_files_that_exist():
    for path in SOURCES:
        assemble.linked(path.read_text(), path, assemble.place(path))
    assert not assemble.BROKEN


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_a_file_that_a_page_names_exists(path):
    named = re.findall(rf"(?<![\w/.])(?:{FOLDERS})/[\w./-]*\.\w+", path.read_text(encoding="utf-8"))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_a_name_that_a_page_uses_is_where_the_code_has_it(path):
    """In code and between backticks. A name that has moved is an error, too."""
    if path.name == "CHANGELOG.md":
        pytest.skip("it names what has moved")
    text = path.read_text(encoding="utf-8")
    code = re.findall(r"```python.*?^ *```|`[^`\n]+`", text, flags=re.M | re.S)
    names = re.findall(rf"(?<![\w/.])((?:{MODULES})(?:\.[A-Za-z_]\w*)+)", "\n".join(code))
    directives = re.findall(r"^\.\. auto\w+:: (\S+)$", text, flags=re.M)
    for name in {*names, *directives}:
        if name.endswith((".py", ".md")):
            continue
        value = snipkit
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            for part in name.removeprefix("snipkit").strip(".").split("."):
                value = value if not part else attribute(value, part)


def attribute(value, name):
    """An attribute, or a module below a package."""
    if hasattr(value, "__path__") and importlib.util.find_spec(f"{value.__name__}.{name}"):
        return importlib.import_module(f"{value.__name__}.{name}")
    return getattr(value, name)


def test_the_layout_has_a_line_for_every_module():
    layout = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
    listed = subprocess.run(
        ["git", "ls-files", "snipkit", "tools"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for line in listed.stdout.splitlines():
        name = line.rsplit("/", 1)[-1]
        if name.endswith(".py") and not name.startswith("__init__"):
            assert f"`{name}`" in layout, line


def test_links_go_to_pages_of_the_site_or_to_the_repository(monkeypatch):
    monkeypatch.setattr(assemble, "BROKEN", broken := [])
    monkeypatch.setattr(assemble, "REPOSITORY", "https://github.com/you/snipkit")
    source, page = ROOT / "docs" / "machines.md", assemble.Path("machines.md")
    text = (
        "[a](laws.md#law-1) [b](../snipkit/data.py) [c](../notebooks/rq2_how_sparse.ipynb) "
        "[d](https://x.org) "
    )
    assert assemble.linked(f"{text}[e](no.md)", source, page) == (
        f"[a](laws.md#law-1) [b]({assemble.REPOSITORY}/blob/main/snipkit/data.py) "
        "[c](notebooks/rq2_how_sparse.ipynb) "
        "[d](https://x.org) e"
    )
    assert broken == ["docs/machines.md: link to no.md, and there is no such file"]
    monkeypatch.setattr(assemble, "REPOSITORY", "")  # not known
    assert assemble.linked("[b](../snipkit/data.py)", source, page) == "b"
    once = "[law 1](laws.md#law-1)"
    assert assemble.linked(once, source, page) == once
    assert assemble.linked(
        "by law 4, see `rq2`\n```\nlaw 4\n```", source, assemble.Path("notebooks/x.ipynb")
    ) == ("by [law 4](../laws.md#law-4), see [`rq2`](rq2_how_sparse.ipynb)\n```\nlaw 4\n```")


def test_each_solution_is_a_box_and_code_is_no_heading():
    text = assemble.folded(
        "# Title\nfirst\n## 1. One\n```python\n## no heading\n```\n### part\n## 2. Two\nend"
    )
    assert text.count("::::::{dropdown}") == 2 and text.count("::::::\n") == 2
    first, one, two = text.split("::::::{dropdown} ")
    assert "Title" not in text and first.strip() == "first"
    assert (
        one.startswith("1. One")
        and "## no heading" in one
        and "**part**" in one
        and two.startswith("2. Two\nend")
    )


def test_every_slide_has_notes_and_the_page_says_how_long_they_take():
    start, *slides = re.split(
        "^## ", (ROOT / "docs/slides.md").read_text(encoding="utf-8"), flags=re.M
    )
    minutes = [
        int(*re.findall(r"^:::\{admonition\} Notes, (\d+) minutes$", s, re.M)) for s in slides
    ]
    assert min(minutes) > 0 and f"{sum(minutes)} minutes in all" in start


def test_a_site_for_students_has_no_solutions(monkeypatch):
    monkeypatch.setattr(assemble, "WITH_SOLUTIONS", False)
    source = ROOT / "docs" / "homework.md"
    assert assemble.solutions(source) == ""
    lab = "../notebooks/labs/lab1_score_and_keep_solution.ipynb"
    text = f"the [solutions](solutions/homework.md), [lab]({lab})"
    assert assemble.linked(text, source, assemble.Path("homework.md")) == "the solutions, lab"


@pytest.mark.parametrize(
    "source, tags, folds",
    [
        ("figures.save(fig)", [], True),
        ("table", ["figure", "trained"], True),
        ("training.train(model)", [], False),
        ("figures.use_style()", ["grid"], False),
    ],
)
def test_code_that_draws_is_folded(source, tags, folds):
    assert assemble.draws({"source": source, "metadata": {"tags": tags}}) is folds


def test_a_notebook_on_the_site_has_the_outputs_as_committed():
    path = ROOT / "notebooks" / "00_snip_in_ten_minutes.ipynb"
    before, after = (
        json.loads(path.read_text())["cells"],
        json.loads(assemble.notebook(path))["cells"],
    )
    for old, new in zip(before, after):
        assert old.get("outputs") == new.get("outputs")
        assert old["cell_type"] == "markdown" or "".join(old["source"]) == new["source"]


def test_the_slider_shows_what_snipkit_computes():
    """Exact but for scores that nearly tie, which another processor may order otherwise."""
    committed, computed = json.loads(slider.FILE.read_text()), slider.compute()
    assert slider.FILE.stat().st_size < 100_000
    assert [step["sparsity"] for step in committed["steps"]] == list(slider.SPARSITIES)
    for old, new in zip(committed["steps"], computed["steps"]):
        for name in ("SNIP", "random"):
            kept = sum(old["kept"][name]) + old["biases"][name]
            assert kept == round(266_610 * (1 - old["sparsity"]))
            assert sum(old["pixels"][name]) == old["kept"][name][0]
            moved = sum(abs(a - b) for a, b in zip(old["pixels"][name], new["pixels"][name]))
            assert moved <= 2 + 0.001 * kept
    assert {key: committed[key] for key in ("ink", "layers", "total", "biases")} == {
        key: computed[key] for key in ("ink", "layers", "total", "biases")
    }


def test_the_workflow_builds_as_a_reader_does_and_with_its_own_address():
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text())["jobs"]["build"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert (
        commands == ["make site", "make site-check"]
        and "github.repository" in job["env"]["REPOSITORY"]
    )
