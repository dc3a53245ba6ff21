"""What holds the project's files together."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from snipkit import notebooks

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [Requirement(r) for r in PROJECT["dependencies"] + sum(PROJECT["optional-dependencies"].values(), [])]
CONDA = {"torch": "pytorch"}  # names that differ on conda-forge


def test_environment_yml_says_the_same_as_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, pip = environment["dependencies"]
    assert pip == {"pip": ["-e ."]}
    wanted = {f"{CONDA.get(r.name, r.name)}{r.specifier}" for r in REQUIREMENTS}
    assert set(packages) == wanted | {f"python{PROJECT['requires-python']}", "pip"}


def test_every_pin_satisfies_its_lower_bound():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if match := re.match(r"([\w.-]+)==([\w.+]+)", line):
            pins.setdefault(match[1], []).append(match[2])
    for requirement in REQUIREMENTS:
        assert all(requirement.specifier.contains(version) for version in pins[requirement.name]), requirement


def test_importing_snipkit_does_not_import_torch():
    code = "import sys, snipkit; assert 'torch' not in sys.modules; snipkit.masking; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_flows_back():
    """A module imports only from those before it in the order of the README."""
    order = ["_torchvision", "sources", "data", "models", "masking", "saliency", "training", "study", "cluster", "figures", "replication", "notebooks", "__main__"]
    for path in sorted((ROOT / "snipkit").rglob("*.py")):
        name = path.relative_to(ROOT / "snipkit").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())) if name != "__init__" else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "snipkit":
                module = (node.module.split(".") + [None])[1]
                for other in [module] if module else [alias.name for alias in node.names]:
                    assert order.index(other) <= order.index(name), f"{path.name} imports {other}"


@pytest.mark.parametrize("name", notebooks.names())
def test_a_notebook_is_fit_to_be_committed(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    text = path.read_text()
    content = json.loads(text)
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))  # restarted and run, top to bottom
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)
    assert set(content["metadata"]) <= {"kernelspec", "language_info"}
    for cell in code:
        for output in cell["outputs"]:
            assert output["output_type"] != "error" and output.get("name") != "stderr", output
            assert len(output.get("data", {}).get("image/png", "")) * 3 / 4 < 150_000
    assert "## Exercises" in "".join(content["cells"][-1]["source"])


@pytest.mark.parametrize("profile", notebooks.PROFILES)
@pytest.mark.parametrize("name", notebooks.names())
def test_every_profile_fits_every_notebook(name, profile):
    assert notebooks.parameters(name, profile)["profile"] == profile
    runs = notebooks.grid(name, profile)
    assert len({run.id for run in runs}) == len(runs) and (runs or name.startswith("00"))


def test_unknown_profiles_and_parameters_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unknown profile 'huge'; known: lesson, laptop, paper"):
        notebooks.parameters("00_snip_in_ten_minutes", "huge")
    (tmp_path / "notebooks/profiles").mkdir(parents=True)
    (tmp_path / "notebooks/one.ipynb").write_text((ROOT / "notebooks/00_snip_in_ten_minutes.ipynb").read_text())
    (tmp_path / "notebooks/profiles/laptop.yml").write_text("one: {setps: 3}")
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="one has no parameter setps"):
        notebooks.parameters("one", "laptop")


def test_committed_figures_say_where_they_come_from():
    from PIL import Image

    pictures = list((ROOT / "figures").glob("*/*.png"))
    assert pictures
    for path in pictures:
        note = Image.open(path).text["Description"]
        assert f"profile {path.parent.name}" in note and re.search(r"SHA-256 [0-9a-f]{16}", note)
        assert path.with_suffix(".svg").exists()
