"""Every notebook at lesson scale in an empty home, really training.

What holds at any scale. Part of `make test`.
"""

import os
import re

import nbformat
import pandas as pd
import pytest
from IPython.display import display
from tiny import ROOT

from snipkit._prunable import kept_count
from snipkit.study import notebooks, paths
from snipkit.study.train import records


@pytest.fixture(scope="module")
def home(tmp_path_factory, worker_id):
    """An empty home, but for notebooks and the registered list.

    Of several pages at a time, each has a core for its trainings.
    """
    if worker_id != "master" and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker_id.removeprefix("gw")) % len(cores)]})
    folder = tmp_path_factory.mktemp("home")
    for part in ("notebooks", "registration.csv"):
        (folder / part).symlink_to(ROOT / part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNIPKIT_DATA", str(paths.data_root()))
        patch.setenv("SNIPKIT_HOME", str(folder))
        yield folder


def run_page(name, profile):
    """Run all code cells of a page in this process; its source texts.

    In a kernel `make test` runs the page against its stored outputs, and a kernel takes seconds to
    start.
    """
    page = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
    namespace = {"__name__": "__main__", "display": display}
    sources = []
    with notebooks.as_a_page_runs(profile):
        for number, cell in enumerate(page.cells):
            if cell.cell_type == "code":
                sources.append(cell.source)
                exec(compile(cell.source, f"{name} [{number}]", "exec"), namespace)
                if "parameters" in cell.metadata.get("tags", []):
                    namespace |= notebooks.parameters(name, profile)
    return sources


def errors(recorded, **fields):
    """The test errors of the records whose runs have these fields."""
    return [
        record.outcome.test_error
        for record in recorded.values()
        if record.outcome
        and all(getattr(record.run, name) == value for name, value in fields.items())
    ]


@pytest.mark.parametrize("name", notebooks.names())
def test_a_notebook_from_nothing(name, home):
    sources = run_page(name, "lesson")
    saved = set(re.findall(r'figures\.save\([\w.]+, "(\w+)"', "\n".join(sources)))
    assert any((paths.figures("lesson") / f"{picture}.png").exists() for picture in saved)
    if not (runs := notebooks.grid(name, "lesson")):
        return
    recorded = records.read(paths.results("lesson"))
    assert {run.id for run in runs} <= recorded.keys()  # all that was planned was done
    for run in runs:
        kept = recorded[run.id].kept.values()
        if kept:
            assert sum(k for k, _ in kept) == kept_count(
                sum(total for _, total in kept), run.sparsity
            )
    # An order with a wide margin, wherever both are trained: at 98 % random masks of LeNet-300-100
    # hardly learn.
    of = dict(
        model="lenet-300-100",
        sparsity=0.98,
        ablation="none",
        scoring_batch=100,
        recipe=runs[0].recipe,
    )
    snip, random = (errors(recorded, criterion=criterion, **of) for criterion in ("snip", "random"))
    if snip and random:
        assert sum(snip) / len(snip) + 10 < sum(random) / len(random)
    if (path := paths.figures("lesson") / "rq3_counts.csv").exists():  # without training
        counts = pd.read_csv(path)
        left_out = notebooks.parameters("rq3_architecture_and_initialisation", "lesson")
        assert len(counts) == 12 - len(left_out["not_scored"])
        assert not counts["empty layers"].any()
