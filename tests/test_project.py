"""What holds the project's files together."""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from tiny import ENVIRONMENT, ROOT

from snipkit.study import notebooks, paper, verdicts

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [Requirement(r) for r in PROJECT["dependencies"] + sum(EXTRAS.values(), [])]
CONDA = {"torch": "pytorch", "igraph": "python-igraph"}  # names that differ on conda-forge
NOT_ON_CONDA_FORGE = ("mnist1d",)


def test_environment_yml_says_the_same_as_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, pip = environment["dependencies"]
    assert pip == {"pip": [*(str(r) for r in REQUIREMENTS if r.name in NOT_ON_CONDA_FORGE), "-e ."]}
    left_out = {*EXTRAS["site"]} | {str(r) for r in REQUIREMENTS if r.name in NOT_ON_CONDA_FORGE}
    wanted = {f"{CONDA.get(r.name, r.name)}{r.specifier}" for r in REQUIREMENTS if str(r) not in left_out}
    assert set(packages) == wanted | {f"python{PROJECT['requires-python']}", "pip"}


def test_every_pin_satisfies_its_lower_bound():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if match := re.match(r"([\w.-]+)==([\w.+]+)", line):
            pins.setdefault(match[1], []).append(match[2])
    for requirement in REQUIREMENTS:
        assert all(requirement.specifier.contains(version) for version in pins[requirement.name]), requirement


def test_importing_snipkit_does_not_import_torch():
    code = (
        "import sys, snipkit, snipkit.study; assert 'torch' not in sys.modules\n"
        "snipkit.masking; assert 'torch' in sys.modules; snipkit.study.Run, snipkit.study.run_all"
    )
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True)


def imported(path):
    """The modules of snipkit that a file imports, by their names below `snipkit.`"""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "snipkit":
            module = node.module.removeprefix("snipkit").lstrip(".")
            inside = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            yield from inside if module in ("", "study") else [module]
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("snipkit.") for alias in node.names if alias.name.startswith("snipkit"))


METHOD = [
    "data", "export", "pool", "ladder", "masking", "beyond", "scoring", "successors", "saliency", "models", "recipe",
    "training",
]
STUDY = [
    "paths", "sources", "datasets", "paper", "runs", "checkpoints", "stacking", "provenance", "records",
    "experiment", "executors", "scheduler", "estimate", "statistics", "figures", "verdicts", "notebooks",
    "progress", "__main__",
]  # fmt: skip
ORDER = [*METHOD, *(f"study.{name}" for name in STUDY)]


def test_the_method_knows_nothing_of_the_study_and_nothing_flows_back():
    """A module imports only from those before it."""
    for path in sorted((ROOT / "snipkit").rglob("*.py")):
        parts = path.relative_to(ROOT / "snipkit").with_suffix("").parts
        name = ".".join(parts[: 1 + (parts[0] == "study")])
        if parts[-1] == "__init__" and name not in ("models", "study.paper"):
            continue  # they load the others on first use
        assert name in ORDER, f"{name} has no place in the order"
        for other in imported(path):
            place = next((one for one in ORDER if other == one or other.startswith(f"{one}.")), None)
            assert place is None or ORDER.index(place) <= ORDER.index(name), f"{name} imports {other}"


def lines_of_code(text):
    """How many lines hold code: no blank lines, comments or docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented) and ast.get_docstring(node)]
    docstrings = {line for node in nodes for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = [one for one in tokenize.generate_tokens(io.StringIO(text).readline) if one.type not in layout]
    return len({line for one in tokens for line in range(one.start[0], one.end[0] + 1)} - docstrings)


def test_both_rooms_stay_small():
    """No long file; in lines of code at most 2,600 for the method with its networks, and 2,300 for the study."""
    rooms = {"method": 0, "study": 0}
    for path in (ROOT / "snipkit").rglob("*.py"):
        text = path.read_text()
        lines = text.splitlines()
        assert len(lines) <= 350 and max(map(len, lines), default=0) <= 120, path
        rooms["study" if "study" in path.relative_to(ROOT).parts else "method"] += lines_of_code(text)
    assert rooms["method"] <= 2600 and rooms["study"] <= 2300, rooms


def test_lines_of_code_are_counted_without_docstrings_and_comments():
    assert lines_of_code('"""A\nB."""\n\n# why\ndef f():\n    """C."""\n    return (1,\n        2)  # d\n') == 3


@pytest.mark.parametrize("name", notebooks.names())
def test_a_notebook_is_fit_to_be_committed(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    text = path.read_text()
    content = json.loads(text)
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    counts = [cell["execution_count"] for cell in code]
    assert counts == list(range(1, len(code) + 1))  # restarted and run, top to bottom
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)
    assert set(content["metadata"]) <= {"kernelspec", "language_info"}
    for cell in code:
        for output in cell["outputs"]:
            assert output["output_type"] != "error" and output.get("name") != "stderr", output
            assert len(output.get("data", {}).get("image/png", "")) * 3 / 4 < 150_000
    assert re.search("^## (Exercises|Open questions)$", "".join(content["cells"][-1]["source"]), re.MULTILINE)


@pytest.mark.parametrize("profile", notebooks.PROFILES)
@pytest.mark.parametrize("name", notebooks.names())
def test_every_profile_fits_every_notebook(name, profile):
    assert notebooks.parameters(name, profile)["profile"] == profile
    runs = notebooks.grid(name, profile)
    assert len({run.id for run in runs}) == len(runs) and (runs or name.startswith("00"))


def test_the_numbers_of_the_front_page_are_those_of_the_notebooks():
    """Prose is not printed from the records, so it is compared with what is."""
    readme = (ROOT / "README.md").read_text()
    pages = [json.loads((ROOT / f"notebooks/{name}.ipynb").read_text()) for name in notebooks.names()]
    shown = json.dumps([cell.get("outputs", []) for page in pages for cell in page["cells"]], ensure_ascii=False)
    numbers = re.findall(r"-?\d+\.\d+ ± \d+\.\d+", readme)
    assert len(numbers) > 5 and not [number for number in numbers if number not in shown]
    rows = verdicts.report(("paper", "overnight"))
    assert verdicts.summary(rows) in readme
    confirmed = rows[rows.verdict == verdicts.CONFIRMED]
    pictures = confirmed["where"].str.fullmatch("Figure (2[ab]|5|6)").sum()
    built = confirmed.index.isin(["table2-counts", "table5", "table6"]).sum()
    words = "none one two three four five six seven eight nine ten".split()
    trained, pictures, built = (words[n] for n in (len(confirmed) - pictures - built, pictures, built))
    assert f"{trained} rest on training, {pictures} on pictures of masks, {built} on counts" in readme
    assert paper.text("rule").strip() in (ROOT / "REPLICATION.md").read_text(), "run `make figures`"


def test_committed_figures_say_where_they_come_from():
    from PIL import Image

    pictures = list((ROOT / "figures").glob("*/*.png"))
    assert pictures
    for path in pictures:
        note = Image.open(path).text["Description"]
        assert f"profile {path.parent.name}" in note and re.search(r"SHA-256 [0-9a-f]{16}", note)
        assert path.with_suffix(".svg").exists()
