"""Runs chosen from a table, and paired by seed."""

import math

import pandas as pd
import pytest
from tiny import quick, record

from snipkit.study import report
from snipkit.study.report import statistics
from snipkit.study.train import records
from snipkit.study.train.runs import pruning

ERRORS = {"snip": [1.0, 2.0, 3.0], "random": [5.0, 7.0, 9.0]}


@pytest.fixture
def runs():
    return {
        (method, sparsity, seed): quick(seed=seed, **pruning(method, sparsity))
        for method in ERRORS
        for sparsity in (0.9, 0.98)
        for seed in range(3)
    }


@pytest.fixture
def table(runs):
    """Errors of two methods at two sparsities; at 98 % all are 10 higher."""
    recorded = {}
    for (method, sparsity, seed), run in runs.items():
        recorded[run.id] = record(run, ERRORS[method][seed] + 10 * (sparsity == 0.98))
    return records.table(runs.values(), recorded)


def test_errors_by_field_and_by_run(table, runs):
    part = [
        run for (method, sparsity, _), run in runs.items() if (method, sparsity) == ("random", 0.9)
    ]
    assert dict(report.errors(table, method="random", sparsity=0.9)) == {0: 5, 1: 7, 2: 9}
    assert report.errors(table, part).equals(report.errors(table, method="random", sparsity=0.9))
    assert list(report.errors(table, part[:1], "test_loss")) == [0.3]


def test_errors_of_more_than_one_setting_are_refused(table):
    with pytest.raises(ValueError, match="choose among them by sparsity$"):
        report.errors(table, method="snip")


def test_nothing_on_record_is_an_empty_series(table):
    for empty in (table[:0], pd.DataFrame()):
        assert statistics.cell(report.errors(empty, method="snip"), missing="none") == "none"
        assert report.gaps(empty, "snip").empty and list(report.gaps(empty, "snip")) == [
            "model",
            "sparsity",
            "method",
            "seed",
            "gap",
        ]


def test_rows_by_several_values_and_by_a_missing_one(table):
    assert len(report.rows(table, method=["snip", "random"], seed=0)) == 4
    assert len(report.rows(table, train_size=500, scoring_data=None)) == 12
    with pytest.raises(ValueError, match="no column 'methods'"):
        report.rows(table, methods="snip")


def test_a_gap_is_taken_seed_by_seed(table, runs):
    assert list(report.gap(table, "random", "snip", sparsity=0.98)) == [4, 5, 6]
    assert list(report.gap(table, {"sparsity": 0.98}, {"sparsity": 0.9}, method="snip")) == [
        10,
        10,
        10,
    ]
    part = [
        run
        for (method, sparsity, seed), run in runs.items()
        if method == "snip" and sparsity == 0.9 and seed
    ]
    assert dict(report.gap(table, part, {"method": "random"}, sparsity=0.9)) == {1: -5, 2: -6}


def test_gaps_of_all_settings_are_those_of_paired(table):
    gaps = report.gaps(table, "snip")
    assert list(gaps.gap) == [4, 5, 6, 4, 5, 6] and list(gaps.seed) == [0, 1, 2, 0, 1, 2]
    summary = statistics.summarise(gaps, ["model", "sparsity", "method"], "gap")
    paired = statistics.paired(table, "snip", ["model", "sparsity"])
    columns = ["model", "sparsity", "method", "n", "mean", "low", "high"]
    pd.testing.assert_frame_equal(summary[columns], paired[columns])


def test_gaps_of_named_pairs(table):
    gaps = report.gaps(table, {"what SNIP gains": ("random", "snip")}, by=["sparsity"])
    assert set(gaps.method) == {"what SNIP gains"} and list(gaps) == [
        "sparsity",
        "method",
        "seed",
        "gap",
    ]


def test_a_seed_that_diverged_leaves_no_mean(table):
    table.loc[
        (table.method == "random") & (table.sparsity == 0.9) & (table.seed == 1), "test_error"
    ] = math.nan
    gaps = report.gaps(table, "snip")
    assert gaps.gap[gaps.sparsity == 0.9].isna().all() and list(
        gaps.gap[gaps.sparsity == 0.98]
    ) == [4, 5, 6]


def test_errors_stand_beside_their_differences_to_a_baseline(table):
    texts = report.against(table, "snip", of="method", by=["sparsity"], digits=2)
    assert list(texts.index) == [(0.9, "snip"), (0.9, "random"), (0.98, "snip"), (0.98, "random")]
    assert list(texts["minus snip"]) == ["", "5.00 ± 2.48", "", "5.00 ± 2.48"]
    assert texts["test error, %"][0.98, "random"] == "17.00 ± 4.97"
    assert list(texts.n) == [3, 3, 3, 3]
    nothing = report.against(table.iloc[:0], "snip", of="method", by=["sparsity"])
    assert list(nothing) == ["test error, %", "minus snip", "n"] and not len(nothing)


def test_snip_with_its_biases_kept_is_paired_with_snip_of_the_same_seeds():
    table = report.biases_kept("overnight")
    assert set(table.seed) == set(range(100, 120))
    assert len(report.gaps(table, "snip")) == 4 * 20  # at each sparsity, of all parameters
    assert set(table.sparsity) == {0.8, 0.9, 0.95, 0.98}
    assert report.biases_kept("toy").empty
