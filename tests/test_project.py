"""What holds the project's files together."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from tiny import ENVIRONMENT, ROOT

import snipkit
from snipkit.study import notebooks

sys.path.insert(0, str(ROOT / "docs"))
import address

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [Requirement(r) for r in PROJECT["dependencies"] + sum(EXTRAS.values(), [])]
CONDA = {"torch": "pytorch", "igraph": "python-igraph"}  # names that differ on conda-forge
NOT_ON_CONDA_FORGE = ("mnist1d",)


def test_environment_yml_says_the_same_as_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, pip = environment["dependencies"]
    assert pip == {"pip": [*(str(r) for r in REQUIREMENTS if r.name in NOT_ON_CONDA_FORGE), "-e ."]}
    expected = {f"python{PROJECT['requires-python']}", "pip"}
    for r in REQUIREMENTS:
        if str(r) not in EXTRAS["site"] and r.name not in NOT_ON_CONDA_FORGE:
            expected.add(f"{CONDA.get(r.name, r.name)}{r.specifier}")
    assert set(packages) == expected and len(packages) == len(expected)


def test_every_pin_satisfies_its_lower_bound():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if match := re.match(r"([\w.-]+)==([\w.+]+)", line):
            pins.setdefault(match[1], []).append(match[2])
    for requirement in REQUIREMENTS:
        assert all(requirement.specifier.contains(version) for version in pins[requirement.name]), (
            requirement
        )


#: names to import, where they are not those of the packages
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml"}
COME_ALONG = {"traitlets": "papermill", "IPython": "ipykernel"}  # what they are configured with
NOT_IMPORTED = {
    "igraph",  # by the method, for one control
    "ipykernel", "jupyterlab",  # started by papermill, and by `make lab`
    "nbformat", "papermill",  # by name, so that a message can say what is missing
    "tabulate",  # by pandas.DataFrame.to_markdown
    "torchvision",  # by study.sets.vision
}  # fmt: skip


def packages_imported(paths):
    """The packages that files import, anywhere in them, but the standard library and snipkit."""
    packages = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                packages |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                packages.add(node.module.split(".")[0])
    return packages - {*sys.stdlib_module_names, "snipkit"}


def names_to_import(requirements):
    names = {Requirement(requirement).name for requirement in requirements}
    return {IMPORTED_AS.get(name, name) for name in names}


def test_the_extras_bring_what_the_code_imports():
    study = set((ROOT / "snipkit" / "study").rglob("*.py"))
    method = set((ROOT / "snipkit").rglob("*.py")) - study
    basic = names_to_import(PROJECT["dependencies"])
    # these are for one function each, which says so
    assert packages_imported(method) - basic == {"pandas", "igraph", "safetensors"}
    extras = names_to_import(EXTRAS["study"] + EXTRAS["notebooks"] + EXTRAS["cluster"])
    assert packages_imported(study) - basic - {*COME_ALONG} == extras - NOT_IMPORTED


def test_the_version_stands_in_one_place():
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == snipkit.__version__


@pytest.fixture(scope="module")
def away(tmp_path_factory):
    """A folder that holds what the wheel holds, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "snipkit", source / "snipkit", ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = "from setuptools import build_meta; build_meta.build_wheel('../dist')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = (folder / "dist").iterdir()
    assert wheel.name == f"snipkit-{snipkit.__version__}-py3-none-any.whl"
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_is_whole(away):
    files = {path.relative_to(away) for path in (away / "snipkit").rglob("*") if path.is_file()}
    expected = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "snipkit"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    listed = [line for line in expected.stdout.splitlines() if (ROOT / line).exists()]
    assert sorted(map(str, files)) == sorted(listed)
    (metadata,) = away.glob("*.dist-info/METADATA")
    required = re.findall(r"^Requires-Dist: (.*)$", metadata.read_text(encoding="utf-8"), re.M)
    slim = [requirement for requirement in required if "extra ==" not in requirement]
    assert sorted(slim) == sorted(PROJECT["dependencies"])


@pytest.fixture(scope="module")
def bare_packages(tmp_path_factory):
    """torch, numpy and what they need: what `pip install snipkit` brings."""
    folder = tmp_path_factory.mktemp("packages")
    todo, done = ["torch", "numpy"], set()
    while todo:
        name = todo.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # needed on another system
        done.add(name)
        for file in distribution.files:
            if file.parts[0] != ".." and not (folder / file.parts[0]).exists():
                (folder / file.parts[0]).symlink_to(distribution.locate_file(file.parts[0]))
        for line in distribution.requires or ():
            if "extra ==" not in line and (needed := Requirement(line).name) not in done:
                todo.append(needed)
    assert not (folder / "pandas").exists() and not (folder / "pydantic").exists()
    return folder


PRUNE = """
import importlib, pkgutil
import torch, snipkit
from torch import nn
from snipkit.recipe import Recipe
for module in pkgutil.iter_modules(snipkit.__path__):
    if module.name != "study":
        importlib.import_module("snipkit." + module.name)
model = nn.Sequential(nn.Flatten(), nn.Linear(16, 50), nn.ReLU(), nn.Linear(50, 3))
pixels = torch.randint(0, 256, (60, 1, 4, 4), dtype=torch.uint8)
images = snipkit.data.Images(pixels, torch.arange(60) % 3, *snipkit.data.channel_statistics(pixels))
masks = snipkit.prune(model, images[:], sparsity=0.9)
dataset = snipkit.data.Splits("noise", 3, images, images, images)
snipkit.training.train(model, masks, dataset, Recipe(steps=5, batch_size=20))
print(sum(int(mask.sum()) for mask in masks.values()), int((model[1].weight != 0).sum()) <= 100)
print(snipkit.__file__)
try:
    snipkit.masking.layer_table(masks)
except ModuleNotFoundError as error:
    print(error)
"""


def in_bare_environment(away, bare_packages, folder, code, *words):
    """Run Python code in ``folder`` with the wheel's content, torch and numpy, and no more."""
    paths = f"import sys; sys.path[:0] = [{str(away)!r}, {str(bare_packages)!r}]\n"
    command = [sys.executable, "-I", "-S", "-c", paths + code, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_method_needs_torch_and_numpy_alone(away, bare_packages, tmp_path):
    finished = in_bare_environment(away, bare_packages, tmp_path, PRUNE)
    assert finished.returncode == 0, finished.stderr
    counts, file, table = finished.stdout.splitlines()
    assert counts == "100 True" and file == str(away / "snipkit" / "__init__.py")
    assert table == "this function needs the package pandas: pip install pandas"


def test_the_study_says_what_to_install(away, bare_packages, tmp_path):
    code = "import runpy; runpy.run_module('snipkit.study', run_name='__main__')"
    finished = in_bare_environment(away, bare_packages, tmp_path, code, "--help")
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: the study needs typer, which is not installed")
    assert "pip install 'snipkit[study]'" in finished.stderr
    code = "from snipkit import study\nstudy.Run"
    finished = in_bare_environment(away, bare_packages, tmp_path, code)
    message = "the study needs the package pydantic: pip install 'snipkit[study]'"
    assert finished.stderr.splitlines()[-1] == f"ModuleNotFoundError: {message}"


# --- the public address ---


def test_nothing_shows_an_address_that_is_not_known():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    placeholder = "github.com/" + "OWNER"
    for line in listed.stdout.splitlines():
        path = ROOT / line
        if path.suffix in (".md", ".toml", ".py", ".html", ".yml", ".yaml", ".cff", ".ipynb"):
            assert placeholder not in path.read_text(encoding="utf-8"), line
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == address.with_badges(readme, address.repository()), "run docs/address.py"
    assert address.badges("") == address.colab_cell("") == ""


def test_badges_appear_with_the_address(monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    monkeypatch.setenv("REPOSITORY", "https://github.com/you/snipkit/")
    with_them = address.with_badges(readme, address.repository())
    title, blank, badges, *rest = with_them.splitlines()
    assert (title, blank) == (readme.splitlines()[0], "")
    links = re.findall(r"\]\((https://[^)]*)\)", badges)
    workflow = "https://github.com/you/snipkit/actions/workflows/tests.yml"
    assert workflow in links and (ROOT / ".github/workflows/tests.yml").exists()
    assert any("colab" in link and "/github/you/snipkit/blob/main/" in link for link in links)
    assert (ROOT / address.FIRST_NOTEBOOK).exists()
    assert address.with_badges(with_them, "https://github.com/you/snipkit") == with_them
    assert address.with_badges(with_them, "") == readme


@pytest.mark.parametrize("folder", ["notebooks", "notebooks/labs"])
def test_the_cell_for_colab_works_on_a_clone(tmp_path, folder):
    """As a reader runs it in IPython, from a clone on this machine in place of the public one."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    (tmp_path / "public").mkdir()
    installed = tmp_path / "installed"
    installed.mkdir()
    copy = ["git", "clone", "-q", "--bare", str(ROOT), str(tmp_path / "public" / "snipkit")]
    subprocess.run(copy, check=True)
    cell = address.colab_cell(f"file://{tmp_path}/public/snipkit", folder)
    look = "import os, snipkit; from snipkit.study import paths"
    show = "print(snipkit.__file__, paths.home(), os.getcwd())"
    environment = os.environ | {
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it the wrong way round: no download
        "PIP_NO_INDEX": "1",
        "PIP_TARGET": str(installed),
        "PYTHONPATH": str(installed),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    # Without site, for it would find the snipkit that is being tested.
    start = (
        f"import sys; sys.path.append({sysconfig.get_path('purelib')!r}); import IPython; "
        "IPython.start_ipython(['--no-banner', '--colors=NoColor', '-c', sys.argv[1]])"
    )
    command = [sys.executable, "-S", "-c", start, f"{cell}\n{look}\n{show}"]
    finished = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    clone = tmp_path / "snipkit"
    expected = f"{installed}/snipkit/__init__.py {clone} {clone}/{folder}"
    assert finished.stdout.splitlines()[-1:] == [expected], finished
    assert (installed / "snipkit" / "study").is_dir()


def test_the_cell_for_colab_comes_with_the_address_and_goes_with_it():
    path = ROOT / address.FIRST_NOTEBOOK
    page = address.with_colab_cell(json.loads(path.read_text(encoding="utf-8")), "")
    with_cell = address.with_colab_cell(page, "https://github.com/you/snipkit")
    title, cell = with_cell["cells"][:2]
    assert title == page["cells"][0] and cell["cell_type"] == "code"
    assert "clones https://github.com/you/snipkit, with" in cell["source"][0]
    nbformat.validate(nbformat.from_dict(with_cell))
    assert address.with_colab_cell(with_cell, "https://github.com/you/snipkit") == with_cell
    assert address.with_colab_cell(with_cell, "") == page


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_every_page_has_the_cell_of_the_address(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert address.with_colab_cell(notebook, address.repository()) == notebook, "docs/address.py"


# --- what runs on GitHub and before a commit ---


def workflow(name):
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["jobs"]


def test_the_workflows_test_every_python_that_is_promised():
    jobs = workflow("tests")
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    promised = [
        re.match(r"Programming Language :: Python :: (3\.\d+)", c) for c in PROJECT["classifiers"]
    ]
    assert pythons == [match[1] for match in promised if match]
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    for job in jobs.values():
        assert "make test" in job["steps"][-1]["run"]


def test_the_release_prunes_in_an_empty_environment(tmp_path):
    """The script of the workflow, run here."""
    steps = workflow("release")["wheel"]["steps"]
    (script,) = [step["run"] for step in steps if "prune" in step.get("name", "")]
    code = re.search(r"<<'PYTHON'\n(.*?)^PYTHON$", script, re.S | re.M)[1]
    finished = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True
    )
    assert finished.stdout == f"snipkit {snipkit.__version__} kept 120 connections\n", finished


def test_before_a_commit_the_tools_of_the_environment_run():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    programs = [hook["entry"].split()[0] for repo in hooks for hook in repo["hooks"]]
    assert programs == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]
    assert {"ruff", "mypy"} <= names_to_import(EXTRAS["test"])


def test_importing_snipkit_does_not_import_torch():
    code = (
        "import sys, snipkit, snipkit.study; assert 'torch' not in sys.modules\n"
        "snipkit.masking; assert 'torch' in sys.modules; snipkit.study.Run, snipkit.study.run_all"
    )
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True)


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
    assert re.search(
        "^## (Exercises|Open questions)$", "".join(content["cells"][-1]["source"]), re.MULTILINE
    )


@pytest.mark.parametrize("profile", notebooks.PROFILES)
@pytest.mark.parametrize("name", notebooks.names())
def test_every_profile_fits_every_notebook(name, profile):
    assert notebooks.parameters(name, profile)["profile"] == profile
    runs = notebooks.grid(name, profile)
    assert len({run.id for run in runs}) == len(runs)
    assert runs or name in ("00_snip_in_ten_minutes", "replication")


def test_committed_figures_say_where_they_come_from():
    from PIL import Image

    pictures = list((ROOT / "figures").glob("*/*.png"))
    assert pictures
    for path in pictures:
        note = Image.open(path).text["Description"]
        assert f"profile {path.parent.name}" in note and re.search(r"SHA-256 [0-9a-f]{16}", note)
        assert path.with_suffix(".svg").exists()
