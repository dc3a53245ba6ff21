"""Whole notebooks.

Executed, drawn again from the records, and the tolerance of the notebook regression.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import pandas as pd
import papermill
import pytest
from PIL import Image
from tiny import ENVIRONMENT, NOTEBOOK, ROOT, carry_on, write_notebook

from snipkit.study import notebooks, paths
from snipkit.study.train import records


def test_a_notebook_executed_with_a_profiles_parameters_and_drawn_again(toy, monkeypatch):
    """The whole path of `make paper` and `make figures`, in a folder of its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the kernel
    runs = notebooks.grid("toy", "laptop")
    carry_on(runs, paths.results("laptop") / "toy.jsonl")
    before = (toy / "results/laptop/toy.jsonl").read_text()
    target = toy / "build/laptop/toy.ipynb"
    notebooks.execute("toy", "laptop", target)
    content = json.loads(target.read_text())
    # The laptop's two seeds, not the notebook's one.
    assert content["cells"][3]["outputs"][0]["text"] == ["2\n"]
    assert "papermill" not in content["metadata"] and [
        path.name for path in target.parent.iterdir()
    ] == ["toy.ipynb"]
    assert all(set(cell["metadata"]) <= {"tags"} for cell in content["cells"])
    assert (toy / "results/laptop/toy.jsonl").read_text() == before  # nothing was trained twice

    picture = (toy / "figures/laptop/toy.png").read_bytes()
    (toy / "figures/laptop/toy.png").unlink()
    monkeypatch.setitem(plt.rcParams, "lines.linewidth", 9.0)  # as if something was drawn before
    assert notebooks.draw("toy", "laptop", records.read(paths.results("laptop"))) == 2
    assert (toy / "figures/laptop/toy.png").read_bytes() == picture
    assert notebooks.draw("toy", "lesson", {}) == 0 and not (toy / "figures/lesson").exists()


def test_a_failing_cell_leaves_no_target(toy, monkeypatch):
    write_notebook(toy, grid="1 / 0")
    with pytest.raises(ValueError, match="laptop.yml does not fit toy: ZeroDivisionError"):
        notebooks.grid("toy", "laptop")
    with pytest.raises(papermill.exceptions.PapermillExecutionError, match="ZeroDivisionError"):
        notebooks.execute("toy", "laptop", toy / "build/toy.ipynb")
    assert not (toy / "build/toy.ipynb").exists()


@pytest.mark.parametrize(
    "around, short", [("/tmp", True), ("/tmp/" + 95 * "x", True), (None, False)]
)
def test_sockets_have_short_paths_whatever_the_temporary_folder(
    tmp_path, monkeypatch, around, short
):
    """None: no short folder can be written to, so it is by ports."""
    around = around or str(tmp_path / (95 * "x"))
    monkeypatch.setattr(notebooks.tempfile, "gettempdir", lambda: around)
    if not short:
        os.mkdir(around)
        monkeypatch.setattr(notebooks.os, "access", lambda path, mode: path == around)
    with notebooks.kernel_config() as config:
        assert os.path.isdir(os.path.dirname(config.KernelManager.connection_file))
        if short:
            assert len(config.KernelManager.ip + "-5") <= notebooks.SOCKET_PATH
        else:
            assert "transport" not in config.KernelManager


def committed_pages():
    """Profile and page, where the page's own training has begun at that scale.

    And the page whose records are in a file of another name.
    """
    for profile in ("overnight", "paper"):
        for path in sorted((ROOT / "results" / profile).glob("*.jsonl")):
            if path.stem in notebooks.names():
                yield profile, path.stem
    yield "overnight", "rq6b_units_biases_twins"


@pytest.mark.parametrize("profile, name", list(committed_pages()))
def test_the_committed_figures_are_those_of_the_committed_records(
    profile, name, tmp_path, monkeypatch
):
    """`make figures` in a folder that has nothing but notebooks and records."""
    command = ["git", "status", "--porcelain", f"results/{profile}"]
    if subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout:
        pytest.skip(f"there are records in results/{profile} that are not committed")
    (tmp_path / "results").mkdir()
    for folder in ("notebooks", f"results/{profile}"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path))
    monkeypatch.setenv("SNIPKIT_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert notebooks.draw(name, profile, records.read(paths.results(profile)))
    drawn, committed = tmp_path / "figures" / profile, ROOT / "figures" / profile
    tables = {path.name for path in drawn.glob("*.csv")}
    assert tables
    for table in tables:
        frames = pd.read_csv(drawn / table), pd.read_csv(committed / table)
        pd.testing.assert_frame_equal(*frames, obj=f"{table} (after `make figures`)")
    for picture in drawn.glob("*.png"):  # its pixels depend on the system's fonts
        files = picture, committed / picture.name
        assert len({Image.open(file).text["Description"] for file in files}) == 1, picture.name
    if profile != notebooks.WRITTEN:  # there pages also have tables that need no training
        page = min(tables).split("_")[0]
        assert {path.name for path in committed.glob(f"{page}_*.csv")} == tables


@pytest.fixture(scope="module")
def regression():
    """notebooks/conftest.py, loaded without leaving its environment variables behind."""
    before = dict(os.environ)
    spec = importlib.util.spec_from_file_location(
        "notebook_conftest", ROOT / "notebooks/conftest.py"
    )
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


def test_what_comes_from_records_is_compared_to_the_letter(regression):
    text = regression.Close("error 5.00")
    text.exact = True
    assert text == regression.Close("error 5.00") and text != regression.Close("error 5.01")


@pytest.mark.parametrize(
    "stored, found, equal",
    [
        ("41.0", "44.9", True),
        ("41.0", "45.1", False),  # errors in per cent: at most 4 points
        ("2.28", "1.50", True),
        ("2.28", "0.57", False),  # losses: learnt or not
        ("0.00", "1.30", True),
        ("0.00", "1.40", False),
        ("12", "13", False),
    ],
)
def test_trained_numbers_may_differ_by_more(regression, stored, found, equal):
    text = regression.Close(stored)
    text.trained = True
    assert (text == regression.Close(found)) is equal


def test_the_regression_can_fail(tmp_path):
    """nbval with this conftest on notebooks whose stored output is right, wrong, or missing."""
    for file in ("conftest.py", "nbval.cfg"):
        shutil.copy(ROOT / "notebooks" / file, tmp_path)
    stored = {
        "right": "x is 0.5000\n",
        "number": "x is 0.6000\n",
        "text": "y is 0.5000\n",
        "stripped": None,
    }
    for name, text in stored.items():
        output = [{"output_type": "stream", "name": "stdout", "text": text}] if text else []
        cell = {
            "cell_type": "code",
            "source": "print(f'x is {0.5:.4f}')",
            "metadata": {},
            "id": "a",
            "outputs": output,
        }
        content = NOTEBOOK | {"cells": [cell | {"execution_count": text and 1}]}
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(content))
    words = [
        "-m",
        "pytest",
        "-q",
        "-rA",
        "--nbval",
        "--nbval-current-env",
        "--nbval-sanitize-with=nbval.cfg",
        ".",
    ]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    output = done.stdout
    assert re.findall(r"^(PASSED|FAILED) (\w+)\.ipynb", output, re.MULTILINE) == [
        ("PASSED", "right"), ("FAILED", "number"), ("FAILED", "stripped"), ("FAILED", "text")
    ], output  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"<<<<<<< HEAD\n{}", b'{"worksheets": []}'])
def test_a_damaged_page_is_named(toy, content):
    page = toy / "notebooks/toy.ipynb"
    whole = page.read_bytes()
    page.write_bytes(content)
    with pytest.raises(ValueError, match="toy.ipynb is no notebook, or is damaged"):
        notebooks.grid("toy", "laptop")
    page.write_bytes(b"\xef\xbb\xbf" + whole)
    assert notebooks.grid("toy", "laptop")
