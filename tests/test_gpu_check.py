"""The GPU check as far as a CPU goes: each function runs, and its lines fit the step times."""

import csv
import importlib.util
import io
import subprocess
import sys

import pytest
from tiny import ENVIRONMENT, ROOT

from snipkit.study.train import step_times
from snipkit.training import COMPILED_FROM

PATH = ROOT / "tools" / "gpu_check.py"


def loaded():
    spec = importlib.util.spec_from_file_location("gpu_check", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # where its dataclass looks for itself
    spec.loader.exec_module(module)
    return module


gpu_check = loaded()


@pytest.mark.parametrize("check", gpu_check.CHECKS, ids=lambda check: check.__name__)
def test_a_check_passes_on_a_cpu(check):
    assert check("cpu")


def test_step_times_are_lines_of_the_table(capsys):
    trainings = [
        gpu_check.Timed("mnist", "lenet-300-100", stack=2),
        gpu_check.Timed("mnist", "gru-s", compiled=True),
        gpu_check.Timed("tiny-imagenet", "alexnet-s", 4),
    ]
    gpu_check.step_times("cpu", trainings)
    lines = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    columns = list(step_times.read().columns)
    rows = [dict(zip(columns, line, strict=True)) for line in lines]
    assert [row["model"] for row in rows] == ["lenet-300-100", "gru-s", "alexnet-s"]
    assert [row["stack"] for row in rows] == ["2", "1", "1"]
    assert [row["compiled"] for row in rows] == ["no", "yes", "no"]
    assert all(float(row["milliseconds"]) > 0 for row in rows)
    assert "measured" in rows[0]["source"]


def test_all_step_times_that_were_not_measured_are_measured_by_it():
    """Each guess in the table can be replaced by a line that the check prints."""
    table = step_times.read()
    of_gpu = table[table.device == step_times.GPU]
    timed = set()
    for training in gpu_check.TIMED + gpu_check.LARGE:
        compiled = "yes" if training.compiled else "no"
        timed.add((training.data, training.model, training.batch, training.stack, compiled))
        assert (training.recipe.steps >= COMPILED_FROM) == training.compiled
    columns = ["data", "model", "batch", "stack", "compiled"]
    assert set(of_gpu[columns].itertuples(index=False, name=None)) <= timed
    recurrent = of_gpu[of_gpu.model.str.startswith(("lstm", "gru"))]
    in_short = {(training.model, training.compiled) for training in gpu_check.TIMED}
    assert {(row.model, row.compiled == "yes") for row in recurrent.itertuples()} <= in_short


BLOCKED = """
import sys
for name in {missing}:
    sys.modules[name] = None
import runpy
module = runpy.run_path({path!r})
print(module["resumed"]("cpu"))
"""


def test_it_needs_no_package_of_the_study_but_these():
    """As on a machine that has torch and not much else."""
    missing = ["pydantic", "yaml", "igraph", "mnist1d", "tabulate", "papermill", "nbformat"]
    missing += ["IPython", "ipykernel", "distributed", "safetensors", "pandas", "filelock"]
    code = BLOCKED.format(missing=missing, path=str(PATH))
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "differ by 0" in done.stdout, done.stderr
