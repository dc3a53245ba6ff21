"""The registered rule, by hand: an interval, a margin, four words."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
from scipy import stats

from snipkit.study import paper
from snipkit.study.report import judging
from snipkit.study.report.judging import AGREES, DISAGREES, OPEN, Interval
from snipkit.study.train import registration


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
    diverged = [math.nan, 1.0, 1.2]
    pooled = judging.against_printed(ours, "table1-lenet-300-100-95", cell, [ours, diverged])
    assert pooled.half == alone.half


def test_dense_lenets_are_compared_with_the_dots_of_figure_1():
    cell = {"model": "lenet-300-100", "recipe": {}}
    ours = [1.4, 1.4, 1.5]
    interval = judging.against_printed(ours, "table1-lenet-300-100-0", cell)
    assert interval.mean == pytest.approx(1.4333 - 1.6832, abs=1e-3)
    runs = paper.table("figure1")
    dots = runs.error[(runs.model == "lenet-300-100") & (runs.sparsity == 0)]
    low, high = stats.ttest_ind(ours, dots, equal_var=False).confidence_interval()
    assert (interval.mean - interval.half, interval.mean + interval.half) == pytest.approx(
        (low, high)
    )


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


def test_on_the_margin_nothing_is_decided():
    assert not Interval(0.25, 0.25, 0.25).inside(0.5)
    assert not Interval(0.75, 0.25, 0.25).outside(0.5)
    assert Interval(-0.25, 0.125, 9.0).inside(0.5)
    assert Interval(-0.75, 9.0, 0.125).outside(0.5)


def test_an_order_is_undecided_where_its_interval_ends_at_0_or_at_the_smallest_effect():
    no_spread = [0.0, 0.0, 0.0]
    assert word([setting()], no_spread) == OPEN
    assert word([setting(effect=0.5)], [0.5, 0.5, 0.5]) == AGREES
    assert word([setting(settings=2)], [1.0, 1.1, 0.9]) == OPEN, "one of two settings"


def test_a_training_that_diverged_leaves_its_claim_open():
    cell = {"model": "lenet-300-100", "recipe": {}}
    row = dataclasses.replace(setting("margin", 9.0), first=cell)
    judgement = judging.judge([row], lambda side, row: {0: math.nan, 1: 1.0})
    assert (judgement.word, judgement.intervals) == (OPEN, [])


def test_the_final_loss_is_the_mean_of_the_last_sixth_of_the_curve():
    outcome = SimpleNamespace(test_error=7.0, train_loss=[9.0] * 10 + [1.0, 3.0])
    record = SimpleNamespace(outcome=outcome)
    assert judging.outcome(record, "final_loss") == 2.0
    assert judging.outcome(record, "test_error") == 7.0
    assert math.isnan(judging.outcome(SimpleNamespace(outcome=None), "test_error"))


def test_a_pool_shares_model_recipe_batch_and_outcome():
    """One cell of each kind that must stay out, beside one that belongs to it."""
    cell = {"model": "lenet-5-caffe", "recipe": {"steps": 1}, "sparsity": 0.9}
    cell["criterion"] = "snip"
    outsiders = [
        {"model": "gru-s"},
        {"recipe": {"steps": 2}},
        {"scoring_batch": 1},
        {"sparsity": 0.99},
    ]
    printed = dataclasses.replace(setting("number"), first=cell, second=None, outcome="test_error")
    printed = dataclasses.replace(printed, pool=("lenet-5-caffe",))
    rows = [printed]
    for fields in outsiders:
        rows.append(dataclasses.replace(printed, first=cell | fields))
    rows.append(dataclasses.replace(printed, first=cell | {"sparsity": 0.5}, outcome="final_loss"))
    rows.append(dataclasses.replace(printed, first=cell | {"sparsity": 0.98}))
    pooled = [member for member, _ in judging.pool_cells(printed, rows)]
    assert pooled == [cell, cell | {"sparsity": 0.98}]
