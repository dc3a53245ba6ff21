"""The registration: unchanged, older than its runs, trained by the same method; and its claims."""

import dataclasses
import datetime
import hashlib
import json
import math
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from snipkit.study.report import judging, measures, registered, statistics
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
    """Rounding differs between processors and kernels: by 0.001 nats after 12 steps of Adam.

    Another order, draw, mask or recipe is far outside.
    """
    stored = json.loads(LOSSES.read_text(encoding="utf-8"))
    assert first_losses(tried_cells()[name]) == pytest.approx(stored[name], abs=3e-3)


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
    unfinished = registered.table(recorded)
    assert set(unfinished.word[:3]) == {""}, "a run of the pool is missing"
    dense = next(unfinished.itertuples())
    assert registered.runs_done(dense) == "10 of 10 runs; 1 of its pool to come"


def test_outcomes_of_a_claim_are_numbers_by_seed():
    recorded = {}
    for run in registration.runs(("table1-lenet-300-100", "figure1-lenet-300-100")):
        error = 1.0 + 0.1 * (run.seed % 2) * (1 + run.sparsity) + run.sparsity
        outcome = SimpleNamespace(test_error=error, train_loss=[0.0])
        recorded[run.id] = SimpleNamespace(outcome=outcome, provenance={})
    lines = registered.table(recorded).set_index("claim")
    ours = registered.outcomes("table1-lenet-300-100-95", recorded)
    assert len(ours) == 10 and f"{ours.mean():.2f};" in lines.ours["table1-lenet-300-100-95"]
    rises = registered.outcomes("figure1-lenet-300-100", recorded, sparsity=0.9)
    last = lines.difference["figure1-lenet-300-100"].split("; ")[-1]
    assert f"+{statistics.cell(rises, 2)}" == last
    assert sorted(set(rises.round(9))) == [0.9, 0.99]
    with pytest.raises(ValueError, match="figure1-lenet-300-100 has 2 trained settings"):
        registered.outcomes("figure1-lenet-300-100", recorded)
    with pytest.raises(ValueError, match="table4-counts has 0 trained settings"):
        registered.outcomes("table4-counts", recorded)
    recorded.popitem()
    assert registered.outcomes("table1-lenet-300-100-95", recorded).empty  # its pool waits


def test_pictures_are_measured_as_when_they_were_registered():
    """The code has moved since; its numbers have not."""
    recorded = pd.read_csv(PROJECT / "results" / registration.FOLDER / registered.PICTURES)
    for row in recorded.drop_duplicates("claim").itertuples():
        measured = measures.MEASURES[row.claim](row.outcome.removeprefix("picture of "), row.seed)
        assert measured == pytest.approx((row.first, row.second), abs=1e-4), row.claim


def test_a_copy_of_a_clone_and_a_damaged_name_get_a_file_of_their_own(tmp_path, monkeypatch):
    files = []
    (tmp_path / "first").mkdir()
    for folder in ("first", "copy"):
        monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path / folder))
        files.append(registration.records_file())
        assert registration.records_file() == files[-1]
        if folder == "first":
            shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert files[0].name != files[1].name
    clone = tmp_path / "copy/results/registered/.clone"
    for text, kept in (("", False), ("../../x", False), ("0123abcd\n", True)):
        clone.write_text(text)
        name = registration.records_file().stem
        assert len(name) == 8 and (name == text.strip()) == kept


@pytest.mark.parametrize("change", [lambda text: text.replace(",", ";"), lambda text: text[:5000]])
def test_a_damaged_registration_is_named(tmp_path, monkeypatch, change):
    table = (PROJECT / "registration.csv").read_text(encoding="utf-8")
    (tmp_path / "registration.csv").write_text(change(table), encoding="utf-8")
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"registration.csv is not the registered table"):
        registration.settings()
