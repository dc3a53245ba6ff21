"""The registration.

Unchanged, older than its runs, trained by the same method; and the rule's four words.
"""

import dataclasses
import datetime
import hashlib
import json
import math
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from snipkit.study.report import judging, registered
from snipkit.study.report.judging import AGREES, DISAGREES, OPEN
from snipkit.study.train import experiment, records, registration
from snipkit.study.train.runs import Run

PROJECT = Path(__file__).parents[1]
LOSSES = Path(__file__).parent / "data" / "registered_losses.json"
STEPS = 12
CHECKSUMS = {  # of the first up to its list of deviations
    "REGISTRATION.md": "647bba12c1d48db6",
    "registration.csv": "752833713e1c9103",
}


@pytest.mark.parametrize("name", CHECKSUMS)
def test_the_registration_is_unchanged(name):
    text = (PROJECT / name).read_text(encoding="utf-8").partition("\n## Deviations\n")[0]
    checksum = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert checksum == CHECKSUMS[name], f"{name} was changed after it was registered"


def git(*arguments):
    done = subprocess.run(["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def test_no_record_is_unlisted_or_older_than_the_registration():
    listed = {run.id for run in registration.runs()}
    recorded = records.read(PROJECT / "results" / registration.FOLDER)
    assert recorded.keys() <= listed
    first_commit = git(
        "log", "--diff-filter=A", "--format=%H %cI", "--", "registration.csv"
    ).splitlines()
    if not first_commit:
        pytest.skip("no git history: an unpacked archive")
    commit, date = first_commit[-1].split()
    registered_at = datetime.datetime.fromisoformat(date)
    for record in recorded.values():
        origin = record.provenance
        assert datetime.datetime.fromisoformat(origin["date"]) > registered_at, record.id
        trained_by = origin["commit"]
        assert not trained_by.endswith("+"), f"{record.id}: trained by files that were changed"
        if git("cat-file", "-t", trained_by) == "commit":
            assert git("merge-base", commit, trained_by) == commit, (
                f"{record.id}: trained by code from before"
            )


def test_registered_seeds_are_new_and_cells_complete():
    exploratory = set()
    for profile in ("overnight", "paper"):
        exploratory |= records.read(PROJECT / "results" / profile).keys()
    runs = registration.runs()
    assert min(run.seed for run in runs) == registration.FIRST_SEED
    assert not exploratory & {run.id for run in runs}
    assert all(run.training == "paper" for run in runs)
    assert len(set(registered.table(recorded={}).claim)) == 42


def first_losses(cell):
    """The training losses of the first steps of a registered cell, with its first seed."""
    run = Run(**cell, seed=registration.FIRST_SEED, test_size=100)
    short = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, steps=STEPS))
    return experiment.execute(short).outcome.train_loss


def tried_cells():
    """One pruned cell of each network and recipe that a CPU trains."""
    cells = {}
    for row in registration.settings():
        for cell in row.cells:
            if (
                cell.get("data", "mnist") == "mnist"
                and cell["model"] != "lstm-b"
                and "sparsity" in cell
            ):
                cells.setdefault(f"{cell['model']}, {json.dumps(cell['recipe'])}", cell)
    return cells


@pytest.mark.parametrize("name", tried_cells())
def test_the_method_still_trains_registered_runs_in_the_same_way(name):
    """Rounding differs between processors and kernels.

    Another order, draw, mask or recipe is far outside.
    """
    stored = json.loads(LOSSES.read_text(encoding="utf-8"))
    assert first_losses(tried_cells()[name]) == pytest.approx(stored[name], abs=1e-4)


def setting(kind="order", margin=math.nan, settings=1, effect=math.nan):
    return registration.Setting(
        "claim",
        kind,
        margin,
        effect,
        settings,
        "picture of it",
        "first",
        "second",
        3,
        (),
        math.nan,
        math.nan,
        "",
    )


def word(rows, *differences):
    """The word for settings with these differences, one a seed."""
    of_row = {id(row): dict(enumerate(values)) for row, values in zip(rows, differences)}

    def values(side, row):
        return of_row[id(row)] if side == "first" else dict.fromkeys(of_row[id(row)], 0.0)

    return judging.judge(rows, values).word


@pytest.mark.parametrize(
    ("differences", "expected"),
    [([1.0, 1.1, 0.9], AGREES), ([-1.0, -1.1, -0.9], DISAGREES), ([1.0, -0.5, 0.2], OPEN)],
)
def test_an_order(differences, expected):
    assert word([setting()], differences) == expected


def test_an_order_below_its_smallest_effect_disagrees():
    small = setting(effect=0.5)
    assert word([small], [0.1, -0.1, 0.0]) == DISAGREES
    assert word([small], [0.10, 0.11, 0.12]) == DISAGREES  # above 0, but too small to count
    assert word([small], [0.4, -0.4, 0.5]) == OPEN
    assert word([small], [0.4, 0.5, 0.6]) == AGREES


def test_a_margin_agrees_in_all_settings_or_disagrees_in_one():
    rows = [setting("margin", 0.5, 2), setting("margin", 0.5, 2)]
    near, far, wide = [0.0, 0.1, -0.1], [1.0, 1.1, 0.9], [0.0, 3.0, -3.0]
    assert word(rows, near, near) == AGREES
    assert word(rows, near, far) == DISAGREES
    assert word(rows, near, wide) == OPEN
    assert word(rows[:1], near) == OPEN, "one of two settings cannot agree"
    # mean 0.8, sd 0.1, n = 3: ± 0.248 for one setting, ± 0.358 widened for two
    assert word([setting("margin", 0.5, 1)], [0.7, 0.8, 0.9]) == DISAGREES
    assert word(rows, near, [0.7, 0.8, 0.9]) == OPEN


def test_a_printed_number_by_hand():
    # Table 1: 1.6; no dots of figure 1.
    cell = {"model": "lenet-300-100", "sparsity": 0.95, "recipe": {}}
    ours = [2.0, 2.1, 2.2]
    alone = judging.against_printed(ours, "table1-lenet-300-100-95", cell)
    assert alone.mean == pytest.approx(0.5)
    assert alone.half == pytest.approx(4.3027 * 0.1 / 3**0.5 + 0.05, abs=1e-4)
    pooled = judging.against_printed(ours, "table1-lenet-300-100-95", cell, [ours, [1.0, 1.2, 1.4]])
    assert pooled.half == pytest.approx(2.7764 * (0.025**0.5) / 3**0.5 + 0.05, abs=1e-4)


def test_dense_lenets_are_compared_with_the_dots_of_figure_1():
    cell = {"model": "lenet-300-100", "recipe": {}}
    interval = judging.against_printed([1.4, 1.4, 1.5], "table1-lenet-300-100-0", cell)
    assert interval.mean == pytest.approx(1.4333 - 1.6832, abs=1e-3)


def test_a_pool_has_the_cells_of_the_recipe_up_to_98_per_cent():
    rows = registration.settings()
    (row,) = [row for row in rows if row.claim == "table1-lenet-300-100-95"]
    pooled = [cell.get("sparsity", 0.0) for cell, _ in judging.pool_cells(row, rows)]
    assert sorted(pooled) == [0.0, 0.8, 0.9, 0.95, 0.98]
    (row,) = [row for row in rows if row.claim == "table2-gru-s"]
    assert {cell["model"] for cell, _ in judging.pool_cells(row, rows)} == {
        "gru-s",
        "lstm-s",
        "gru-b",
    }


def test_an_unfinished_claim_shows_its_count_and_no_number():
    table = registered.table(recorded={}).set_index("claim")
    line = table.loc["table1-lenet-300-100-95"]
    assert (line.word, line.difference, line.done, line.planned) == ("", "", 0, 10)
    assert math.isnan(line.low)
    assert table.word["table4-counts"] == DISAGREES
    assert table.word["figure1-lenet-5-caffe"] == judging.NOT_RUN


def test_a_complete_claim_is_judged_from_its_own_runs_and_its_pool():
    claims = ("table1-lenet-300-100", "figure1-lenet-300-100")
    recorded = {}
    for run in registration.runs(claims):
        error = 1.5 + 0.1 * (run.seed % 2) + (0.5 if run.sparsity == 0.98 else 0.0)
        outcome = SimpleNamespace(test_error=error, train_loss=[0.0])
        recorded[run.id] = SimpleNamespace(outcome=outcome, provenance={})
    table = registered.table(recorded).set_index("claim")
    assert table.ours["table1-lenet-300-100-95"] == "1.55; sd 0.05"
    assert list(table.word[["table1-lenet-300-100-95", "table1-lenet-300-100-98"]]) == [
        AGREES,
        DISAGREES,
    ]
    # Student's t with 45 degrees of freedom, and the rounding.
    half = 2.0141 * (0.0025 * 10 / 9) ** 0.5 / 10**0.5 + 0.05
    line = table.loc["table1-lenet-300-100-95"]
    assert line.high - line.low == pytest.approx(2 * half, abs=1e-3)
    diverged = SimpleNamespace(outcome=None, provenance={})
    (first, *_) = registration.runs(("table1-lenet-300-100-95",))
    line = (
        registered.table(recorded | {first.id: diverged})
        .set_index("claim")
        .loc["table1-lenet-300-100-95"]
    )
    assert (line.word, line.difference) == (OPEN, "a training diverged")
    recorded.popitem()
    assert set(registered.table(recorded).word[:3]) == {""}, "a run of the pool is missing"
