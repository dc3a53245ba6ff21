"""The verdicts: never a better word than the numbers allow."""

import pandas as pd
import pytest

from snipkit import figures, replication
from snipkit.replication import INCONCLUSIVE, NOT, NOT_RUN, PARTLY, REPRODUCED

CLAIM = "table1-lenet-300-100-95"  # printed: 1.6


@pytest.mark.parametrize(
    "errors, protocol, verdict",
    [
        ([1.55, 1.6, 1.65, 1.62], True, REPRODUCED),
        ([1.55, 1.6, 1.65, 1.62], False, NOT_RUN),  # the right number from a shortened training is no evidence
        ([1.6, 1.6], True, NOT_RUN),  # two runs
        ([], True, NOT_RUN),
        ([0.6, 1.6, 2.6], True, PARTLY),  # an interval that would hold nearly anything
        ([1.9, 1.91, 1.92], True, PARTLY),  # within a quarter
        ([1.3, 1.31, 1.32], True, PARTLY),  # and a better number is a difference too
        ([2.2, 2.21, 2.19], True, NOT),
        ([1.6, 1.6, float("nan")], True, NOT),  # one diverged
    ],
)
def test_a_printed_number(errors, protocol, verdict):
    row = replication.value(CLAIM, errors, protocol)
    assert row["verdict"] == verdict and row["n"] == len(errors)
    assert bool(row["reason"]) == (verdict != REPRODUCED and bool(errors))


def settings(*rows):
    return pd.DataFrame([(n, low, high) for n, low, high in rows], columns=["n", "low", "high"])


@pytest.mark.parametrize(
    "rows, protocol, verdict",
    [
        ([(6, 0.1, 0.5), (6, 0.2, 0.4)], True, REPRODUCED),
        ([(6, 0.1, 0.5), (6, 0.2, 0.4)], False, PARTLY),
        ([(6, 0.1, 0.5), (6, -0.2, 0.4)], True, PARTLY),
        ([(6, 0.1, 0.5), (6, -0.4, -0.2)], True, INCONCLUSIVE),
        ([(6, 0.1, 0.5), (6, -0.4, -0.2), (6, -0.4, -0.2)], True, NOT),
        ([(6, -0.1, 0.5), (6, -0.2, 0.4), (6, 0.1, 0.4)], True, INCONCLUSIVE),
        ([(6, -0.1, 0.5)], True, INCONCLUSIVE),  # no sign of it is no sign of the contrary
        ([(6, 0.1, 0.5), (1, 0.1, 0.5)], True, PARTLY),  # a planned setting is not there yet
        ([(6, 0.1, 0.5), (6, float("nan"), float("nan"))], True, PARTLY),  # or diverged
        ([(6, -0.5, -0.1)], True, NOT),
        ([(2, 0.1, 0.5)], True, NOT_RUN),
        ([(6, float("nan"), float("nan"))], True, NOT_RUN),
        ([], True, NOT_RUN),
    ],
)
def test_an_order(rows, protocol, verdict):
    assert replication.order("figure3-order", settings(*rows), protocol, "")["verdict"] == verdict


def test_a_margin_is_judged_by_the_papers_training_only():
    rows = settings((6, 0.1, 0.5))
    assert replication.order("figure1-lenet-5-caffe", rows, False, "", margin=True)["verdict"] == NOT_RUN
    assert replication.order("figure1-lenet-5-caffe", rows, True, "", margin=True)["verdict"] == REPRODUCED


def test_differences_are_taken_seed_by_seed():
    table = pd.DataFrame({"kind": ["a"] * 3 + ["b"] * 3, "seed": [0, 1, 2] * 2, "test_error": [5.0, 7.0, 9.0, 4.0, 6.0, 8.0]})
    row = replication.differences(table, [(table.kind == "a", table.kind == "b")]).iloc[0]
    assert (row.n, row["mean"], row.low, row.high) == (3, 1.0, 1.0, 1.0)
    assert replication.differences(table, [(table.kind == "a", table.kind == "c")]).iloc[0].n == 0
    table.loc[1, "test_error"] = float("nan")  # diverged: not averaged away
    row = replication.differences(table, [(table.kind == "a", table.kind == "b")]).iloc[0]
    assert row.n == 3 and pd.isna(row["mean"])


def test_a_perfect_replication_is_mostly_found_to_be_one():
    """A printed number that is one more run of the very same distribution, 200 times over."""
    import numpy as np

    generator = np.random.default_rng(0)
    offsets = generator.normal(0, 0.07, (200, 1))  # of the printed run from the true mean
    verdicts = [replication.value(CLAIM, 1.6 - offset + generator.normal(0, 0.07, 20), True)["verdict"] for offset in offsets]
    assert verdicts.count(REPRODUCED) > 180


def test_an_unknown_claim_is_refused():
    with pytest.raises(ValueError, match="unknown claim 'figure9'; known: table1-"):
        replication.fact("figure9", True, "")


def test_every_table_and_figure_of_the_paper_has_a_claim():
    claims = figures.printed("claims")
    assert claims.claim.is_unique
    items = set(claims["where"].str.replace(r"(\d)[ab]$", r"\1", regex=True))
    assert items == {f"Table {i}" for i in range(1, 7)} | {f"Figure {i}" for i in range(1, 8)}


def test_the_report_prefers_the_papers_scale_where_that_has_a_verdict(tmp_path, monkeypatch):
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path))
    replication.save([replication.fact("table5", True, "|here|"), replication.order("figure3-order", settings((6, 0.1, 0.5)), False, "six")], "a", "laptop")
    replication.save([replication.value(CLAIM, [1.6, 1.6], True), replication.order("figure3-order", settings((1, 0.1, 0.5)), True, "one")], "a", "paper")
    rows = replication.report()
    assert len(rows) == len(figures.printed("claims"))
    assert list(rows.loc["figure3-order", ["verdict", "scale", "here"]]) == [PARTLY, "laptop", "six"]
    assert list(rows.loc["table5", ["verdict", "scale"]]) == [REPRODUCED, "laptop"]
    assert list(rows.loc[CLAIM, ["verdict", "scale"]]) == [NOT_RUN, "paper"]  # what has been run is shown all the same
    assert rows.loc["table6", "verdict"] == NOT_RUN and rows.loc["table6", "scale"] == ""
    replication.write()
    text = (tmp_path / "REPLICATION.md").read_text()
    assert "| Table 5 " in text and r"\|here\|" in text and "**reproduced**" in text and replication.summary(rows) in text
    assert replication.summary(rows) == f"reproduced: 1, partly: 1, not: 0, inconclusive: 0, not run at this scale: {len(rows) - 2}"


@pytest.mark.parametrize(
    "low, high, right, wrong",
    [
        (-0.05, 0.08, True, False), (-0.2, 0.05, False, False), (0.05, 0.2, False, False),
        (-0.3, 0.3, False, False), (0.11, 0.3, False, True), (-0.3, -0.11, False, True),
    ],
)
def test_within_a_margin_for_certain_or_beyond_it_for_certain(low, high, right, wrong):
    row = replication.within(pd.DataFrame({"n": [3], "mean": [(low + high) / 2], "low": [low], "high": [high]}), 0.1).iloc[0]
    assert ((row.low > 0), (row.high < 0)) == (right, wrong) and row.low <= row["mean"] <= row.high
