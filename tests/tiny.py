"""What the tests of the study share.

Tiny runs, records without training, and ways to do and to count runs.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import snipkit
from snipkit.outcomes import Outcome
from snipkit.recipe import Recipe
from snipkit.study import paths
from snipkit.study.train import records, scheduler
from snipkit.study.train.records import Record
from snipkit.study.train.runs import Run

ROOT = Path(__file__).parents[1]
QUICK = Recipe(steps=5, schedule="onecycle")
#: for processes of their own: this snipkit (not one that is installed), this data, no bars
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "SNIPKIT_DATA": str(paths.data_root()),
    "TQDM_DISABLE": "1",
}


def quick(**changes):
    return Run(**({"recipe": QUICK, "train_size": 500, "test_size": 100} | changes))


def record(run, error=5.0, **changes):
    """A record of a run that nobody did."""
    kept = {"fc1.weight": (snipkit.kept_count(1000, run.sparsity), 1000)} if run.sparsity else {}
    outcome = Outcome(error, error, 0.3, [2.0, 1.0], [90.0, 50.0])
    return Record(
        **({"run": run, "outcome": outcome, "kept": kept, "provenance": {"seconds": 1.0}} | changes)
    )


def carry_on(runs, path, deadline=None):
    """Do the runs in this process (a new one would import torch for seconds)."""
    with ThreadPoolExecutor(1) as executor:
        if deadline is None:
            return scheduler.run_all(runs, path, executor)
        return records.table(
            runs, scheduler.execute_all({run: Path(path) for run in runs}, executor, deadline)
        )


def ids(folder):
    """The id of each whole line in the folder's files, doubles included."""
    lines = [
        line
        for path in sorted(Path(folder).glob("*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]
    return [json.loads(line)["id"] for line in lines if line.endswith(b"}")]


GRID = """from snipkit import study
runs = study.seeded({'recipe': recipe, 'seeds': seeds, 'train_size': 200, 'test_size': 50})"""
PARAMETERS = "profile = 'lesson'\nseeds = 1\nrecipe = {'steps': 5}\nrate = 0.5\nname = None"
RUN = """from snipkit.study import paths
table = study.run_all(runs, paths.results(profile) / 'toy.jsonl')
print(len(table))"""
FIGURE = """import matplotlib.pyplot as plt
from snipkit.study.report import figures
fig, ax = plt.subplots()
ax.plot(table.seed, table.test_error)
figures.save(fig, 'toy', profile, table)"""
NOTEBOOK = {
    "cells": [
        {"source": PARAMETERS, "tags": ["parameters"]},
        {"source": GRID, "tags": ["grid"]},
        {"source": RUN, "tags": []},
        {"source": FIGURE, "tags": ["figure"]},
    ],
    "metadata": {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    },
    "nbformat": 4,
    "nbformat_minor": 5,
}


def write_notebook(folder, name="toy", **replaced):
    """A notebook of the study's kind; ``replaced``: the sources of cells, by tag."""
    cells = []
    for number, cell in enumerate(NOTEBOOK["cells"]):
        source = replaced.get("".join(cell["tags"]), cell["source"])
        about = {
            "cell_type": "code",
            "metadata": {"tags": cell["tags"]},
            "execution_count": None,
            "outputs": [],
        }
        cells.append(about | {"source": source, "id": f"c{number}"})
    (folder / "notebooks" / f"{name}.ipynb").write_text(json.dumps(NOTEBOOK | {"cells": cells}))
    listed = folder / "notebooks/profiles/lesson.yml"  # a page is what a profile names
    with open(listed, "a+", encoding="utf-8") as stream:
        stream.seek(0)
        if f"{name}:" not in stream.read().split():
            stream.write(f"{name}:\n")


def short_recipes(steps):
    """What takes the place of ``training.Recipe`` in code that trains for the pages' many steps."""

    class OfFewSteps(type):
        def __call__(cls, **fields):
            return Recipe(**fields | {"steps": min(fields["steps"], steps)})

        def __instancecheck__(cls, instance):
            return isinstance(instance, Recipe)

    return OfFewSteps("ShortRecipe", (), {})
