"""The papermill path, the figures from records alone, and the tolerance of the notebook regression."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from snipkit import sources

ROOT = Path(__file__).parents[1]
NOTEBOOK = {
    "cells": [
        {"cell_type": "code", "source": "profile = 'lesson'\nsteps = 20\nseeds = 1", "metadata": {"tags": ["parameters"]}},
        {"cell_type": "code", "metadata": {"tags": ["grid"]}, "source": (
            "from snipkit import figures, sources, study\n"
            "runs = [study.Run(recipe={'steps': steps}, seed=s, train_size=200, test_size=50) for s in range(seeds)]")},
        {"cell_type": "code", "metadata": {}, "source": "table = study.run_all(runs, sources.home() / 'results' / profile / 'toy.jsonl')\nprint(len(table))"},
        {"cell_type": "code", "metadata": {"tags": ["figure"]}, "source": (
            "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot(table.seed, table.test_error)\n"
            "figures.save(fig, 'toy', profile, table)")},
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}, "nbformat": 4, "nbformat_minor": 5,
}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A project folder with one small notebook of the study's kind."""
    for number, cell in enumerate(NOTEBOOK["cells"]):
        cell |= {"execution_count": None, "outputs": [], "id": f"c{number}"}
    (tmp_path / "notebooks/profiles").mkdir(parents=True)
    (tmp_path / "notebooks/toy.ipynb").write_text(json.dumps(NOTEBOOK))
    for profile in ("lesson", "laptop", "paper"):
        (tmp_path / f"notebooks/profiles/{profile}.yml").write_text("toy: {steps: 30, seeds: 2}" if profile == "laptop" else "")
    monkeypatch.setenv("SNIPKIT_DATA", str(sources.data_root()))
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path))
    return tmp_path


def command(*words):
    return subprocess.run([sys.executable, "-m", "snipkit", *words], capture_output=True, text=True)


def test_a_profile_trained_executed_and_drawn_again(toy):
    """The whole path of `make paper` and `make figures`, in a folder of its own."""
    said = command("train", "--profile", "laptop")
    assert said.returncode == 0, said.stderr
    assert "toy: 2 runs, 2 to do" in said.stdout and "about 1 minutes here" in said.stdout and "PROFILE=lesson" in said.stdout
    records = (toy / "results/laptop/toy.jsonl").read_text()
    assert len(records.splitlines()) == 2

    target = toy / "build/laptop/toy.ipynb"
    said = command("execute", "toy", str(target), "--profile", "laptop")
    assert said.returncode == 0, said.stderr
    content = json.loads(target.read_text())
    assert content["cells"][3]["outputs"][0]["text"] == ["2\n"]  # the laptop's two seeds, not the notebook's one
    assert "papermill" not in content["metadata"] and "part" not in "".join(p.name for p in target.parent.iterdir())
    assert (toy / "results/laptop/toy.jsonl").read_text() == records  # nothing was trained twice

    picture = (toy / "figures/laptop/toy.png").read_bytes()
    (toy / "figures/laptop/toy.png").unlink()
    said = command("figures")
    assert said.returncode == 0 and "laptop: toy: drawn from 2 of 2 runs" in said.stdout, said.stderr
    assert (toy / "figures/laptop/toy.png").read_bytes() == picture

    said = command("train", "--profile", "laptop")
    assert "nothing to do" in said.stdout


def second_notebook(toy):
    """A notebook that wants one more seed than the first, and its own file for that."""
    content = json.loads((toy / "notebooks/toy.ipynb").read_text())
    content["cells"][0]["source"] = "profile = 'lesson'\nsteps = 30\nseeds = 3"
    (toy / "notebooks/zoo.ipynb").write_text(json.dumps(content))


def test_a_budget_of_no_time_trains_nothing_and_says_so_in_the_last_line(toy):
    second_notebook(toy)
    said = command("train", "--profile", "laptop", "--budget", "0")
    assert said.returncode == 0, said.stderr
    assert "toy: 2 runs, 2 to do\nzoo: 3 runs, 1 to do\n" in said.stdout
    assert said.stdout.splitlines()[-1] == "profile laptop: 0 of 3 on record" and not list(toy.glob("results/laptop/*.jsonl"))


def test_a_profile_trained_in_pieces(toy):
    """Each record goes into the file of the first notebook that wants it; seed 2 comes last."""
    second_notebook(toy)
    said = command("train", "--profile", "laptop", "--budget", "10")
    assert said.returncode == 0 and said.stdout.splitlines()[-1] == "profile laptop: 3 of 3 on record", said.stderr
    seeds = {name: [json.loads(line)["run"]["seed"] for line in (toy / f"results/laptop/{name}.jsonl").read_text().splitlines()] for name in ("toy", "zoo")}
    assert sorted(seeds["toy"]) == [0, 1] and seeds["zoo"] == [2]
    said = command("train", "--profile", "laptop", "--budget", "10")
    assert "nothing to do" in said.stdout and said.stdout.splitlines()[-1] == "profile laptop: 3 of 3 on record"


def test_the_committed_figures_are_those_of_the_committed_records(tmp_path, monkeypatch):
    """`make figures` in a folder that has nothing but notebooks and records."""
    if subprocess.run(["git", "status", "--porcelain", "results/paper"], cwd=ROOT, capture_output=True, text=True).stdout:
        pytest.skip("there are records in results/paper that are not committed")
    (tmp_path / "results").mkdir()
    for folder in ("notebooks", "results/paper"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path))
    monkeypatch.setenv("SNIPKIT_DATA", str(tmp_path / "none"))
    said = command("figures", "--profile", "paper")
    assert said.returncode == 0, said.stderr
    drawn, kept = (sorted((folder / "figures/paper").glob("*.csv")) for folder in (tmp_path, ROOT))
    assert drawn and [path.name for path in drawn] == [path.name for path in kept]
    for table in drawn:
        here, committed = (pd.read_csv(path) for path in (table, ROOT / "figures/paper" / table.name))
        pd.testing.assert_frame_equal(here, committed, obj=f"{table.name} (after `make figures`)")


def test_expected_failures_are_one_line(toy):
    said = command("train", "--profile", "huge")
    assert said.returncode == 1 and said.stderr.strip() == "error: unknown profile 'huge'; known: lesson, laptop, paper"
    (toy / "results").write_text("a file where the folder should be")
    said = command("train", "--profile", "laptop")
    assert said.returncode == 1 and said.stderr.strip().endswith("change that and run again to carry on")
    assert said.stderr.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in said.stderr


def test_a_failing_cell_leaves_no_target(toy):
    content = json.loads((toy / "notebooks/toy.ipynb").read_text())
    content["cells"][2]["source"] = "1 / 0"
    (toy / "notebooks/toy.ipynb").write_text(json.dumps(content))
    said = command("execute", "toy", str(toy / "build/toy.ipynb"), "--profile", "laptop")
    assert said.returncode == 1 and "ZeroDivisionError" in said.stderr and not (toy / "build/toy.ipynb").exists()


@pytest.fixture(scope="module")
def regression():
    """notebooks/conftest.py, loaded without leaving its environment variables behind."""
    before = dict(os.environ)
    spec = importlib.util.spec_from_file_location("notebook_conftest", ROOT / "notebooks/conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    os.environ.clear()
    os.environ.update(before)
    return module


@pytest.mark.parametrize(
    "stored, found, equal",
    [
        ("error 5.00 of 300", "error 5.05 of 300", True),
        ("error 5.00 of 300", "error 5.25 of 300", False),  # 5 %
        ("error 5.00 of 300", "error 5.00 of 301", False),  # whole numbers are exact
        ("error 5.00 of 300", "loss 5.00 of 300", False),
        ("kept 3", "kept 3.0", True),
        ("kept 3.", "kept", False),
        ("<td>1.234e-05</td>", "<td>1.235e-05</td>", True),
        ("<td>1.234e-05</td>", "<td>1.434e-05</td>", False),
        ("0.0", "1e-7", True),
        ("nan", "0.5", False),
    ],
)
def test_texts_are_close_or_not(regression, stored, found, equal):
    assert (regression.Close(stored) == regression.Close(found)) is equal


@pytest.mark.parametrize(
    "stored, found, equal",
    [
        ("41.0", "44.9", True), ("41.0", "45.1", False),  # errors in per cent: at most 4 points
        ("2.28", "1.50", True), ("2.28", "0.57", False),  # losses: learnt or not
        ("0.00", "1.30", True), ("0.00", "1.40", False), ("12", "13", False),
    ],
)
def test_trained_numbers_may_differ_by_more(regression, stored, found, equal):
    text = regression.Close(stored)
    text.trained = True
    assert (text == regression.Close(found)) is equal


@pytest.mark.parametrize("change, passes", [("none", True), ("number", False), ("stripped", False), ("text", False)])
def test_the_regression_can_fail(tmp_path, change, passes):
    """nbval with this conftest on a notebook whose stored output is right, wrong, or missing."""
    for file in ("conftest.py", "nbval.cfg"):
        shutil.copy(ROOT / "notebooks" / file, tmp_path)
    stored = {"none": "x is 0.5000\n", "number": "x is 0.6000\n", "text": "y is 0.5000\n"}.get(change)
    cell = {"cell_type": "code", "source": "print(f'x is {0.5:.4f}')", "metadata": {}, "id": "a", "execution_count": stored and 1,
            "outputs": [{"output_type": "stream", "name": "stdout", "text": stored}] if stored else []}
    (tmp_path / "n.ipynb").write_text(json.dumps({**NOTEBOOK, "cells": [cell]}))
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "--nbval-sanitize-with=nbval.cfg", "."],
        cwd=tmp_path, capture_output=True, text=True)
    assert (said.returncode == 0) is passes, said.stdout
    assert ("1 passed" if passes else "1 failed") in said.stdout
