"""The list behind the predictions.

What is said there of seeds, cells and the half-factorial is what will be run.
"""

from collections import Counter
from itertools import combinations

import pandas as pd
import pytest

from snipkit.study import paths, report
from snipkit.study.train import ladder_runs, records, scheduler

LADDER = ("mlp-1d", "lenet-300-100", "resnet-20")
SWITCHES = {
    "same_draw": True,
    "training_init": "glorot",
    "scoring_biases": "random",
    "pixels": "unit",
}


def runs_of(part):
    planned, _ = ladder_runs.PARTS[part]
    return planned()


@pytest.mark.parametrize(
    "part, count, seeds", [(LADDER[0], 1680, 20), (LADDER[1], 550, 10), (LADDER[2], 30, 5)]
)
def test_every_cell_has_the_planned_seeds_none_of_which_was_seen(part, count, seeds):
    runs = runs_of(part)
    assert len({run.id for run in runs}) == len(runs) == count
    assert {run.seed for run in runs} == set(range(100, 100 + seeds))
    cells = Counter((run.sparsity, run.method, run.layer_counts, run.same_draw) for run in runs)
    assert set(cells.values()) == {seeds} and runs[0].sparsity == 0.98
    width = count // seeds // len({run.sparsity for run in runs})
    if part != "lenet-300-100":  # stopped at any time, there are whole repetitions
        assert [run.seed for run in runs[: 2 * width]] == [100] * width + [101] * width


def test_runs_with_all_biases_have_the_parameters_of_the_others():
    runs = ladder_runs.bias_runs()
    assert len({run.id for run in runs}) == 480 and {run.seed for run in runs} == set(
        range(100, 120)
    )
    kept = {round(50_000 * (1 - run.sparsity)) + 410 for run in runs}
    assert kept == {round(50_410 * (1 - sparsity)) for sparsity in (0.8, 0.9, 0.95, 0.98)}
    of_all = {ladder_runs.of_all_parameters(pd.Series([run.sparsity]))[0] for run in runs}
    assert of_all == {0.8, 0.9, 0.95, 0.98}


def test_half_of_the_factorial_is_balanced_and_of_resolution_four():
    runs = [run for run in ladder_runs.protocol_runs(seeds=1) if run.sparsity == 0.9]
    signs = []
    for run in runs:
        signs.append([1 if getattr(run, name) == on else -1 for name, on in SWITCHES.items()])
        assert run.scoring_init == (run.training_init if run.same_draw else "lecun")
    assert len({tuple(row) for row in signs}) == 8
    # So a switch is aliased with the other three together.
    assert all(a * b * c * d == 1 for a, b, c, d in signs)
    assert all(sum(column) == 0 for column in zip(*signs))
    for first, second in combinations(range(4), 2):
        assert sum(row[first] * row[second] for row in signs) == 0


def test_the_references_of_the_protocol_are_on_record():
    recorded = records.read(paths.results("overnight"))
    runs = ladder_runs.protocol_runs()
    plain = [
        run for run in runs if not any(getattr(run, name) == on for name, on in SWITCHES.items())
    ]
    assert len(runs) == 60 and len(plain) == 9 and all(run.id in recorded for run in plain)
    assert (
        len(ladder_runs.figure7_runs()) == len({run.id for run in ladder_runs.figure7_runs()}) == 8
    )


def test_the_first_look_at_tiny_imagenet_is_what_the_page_would_plan():
    """So RQ2 shows the records as soon as its parameter has this network."""
    recipe = {"steps": 7030, "batch_size": 128, "schedule": "onecycle"}
    recipe |= {"augment": "flip-shift", "precision": "bfloat16"}
    common = {"data": "tiny-imagenet", "model": "alexnet-s", "recipe": recipe}
    planned = report.planned(common | {"scoring_batch": 128, "seeds": 3}, ["dense", "snip"], 0.9)
    runs = ladder_runs.tiny_imagenet_runs()
    assert len(runs) == 6 and {run.id for run in runs} == {run.id for run in planned}
    assert [run.seed for run in runs] == [0, 0, 1, 1, 2, 2]


def test_a_part_is_counted_and_trained_into_its_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "results", lambda profile: tmp_path / profile)
    asked = []

    def run_all(runs, file, minutes):
        asked.append((len(runs), file, minutes))
        return runs

    monkeypatch.setattr(scheduler, "run_all", run_all)
    ladder_runs.train("resnet-20", dry=True)
    assert not asked and "resnet-20: 30 runs, 30 to do, in 30 trainings" in capsys.readouterr().out
    ladder_runs.train("resnet-20", budget=5.0)
    assert asked == [(30, tmp_path / "overnight" / "ladder_resnet.jsonl", 5.0)]
    with pytest.raises(
        SystemExit, match="unknown part 'resnet'; known: mlp-1d, biases, lenet-300-100"
    ):
        ladder_runs.train("resnet")
