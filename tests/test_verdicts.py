"""The verdicts: never a better word than the numbers allow."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from snipkit.study import paper, statistics, verdicts
from snipkit.study.verdicts import (
    CONFIRMED,
    CONSISTENT,
    CONTRADICTED,
    DIFFERS,
    EQUIVALENT,
    MIXED,
    NOT_RUN,
    PARTLY,
    UNDECIDED,
)

CLAIM = "table1-lenet-300-100-95"  # printed: 1.6, margin 0.2, half a unit of the last digit 0.05


def around(mean, sd, n):
    """n numbers with exactly this mean and standard deviation."""
    numbers = np.linspace(-1, 1, n)
    return mean + sd * numbers / numbers.std(ddof=1)


@pytest.mark.parametrize(
    "errors, training, verdict",
    [
        (around(1.6, 0.05, 6), "paper", EQUIVALENT),
        (around(1.6, 0.05, 6), "converged", EQUIVALENT),
        (around(1.6, 0.05, 6), "short", NOT_RUN),  # the right number from a short training is no evidence
        (around(1.6, 0.05, 2), "paper", NOT_RUN),
        ([], "paper", NOT_RUN),
        (around(1.74, 0.05, 6), "paper", DIFFERS),  # 0.14 above: outside the margin for all we know, and not 0
        (around(1.46, 0.05, 6), "paper", DIFFERS),  # a better number is a difference, too
        (around(1.7, 0.02, 20), "paper", EQUIVALENT),  # a difference for certain, and a small one for certain
        (around(1.64, 0.1, 3), "paper", CONSISTENT),
        (around(1.6, 0.5, 4), "paper", UNDECIDED),
        ([1.6, 1.6, float("nan")], "paper", DIFFERS),  # one diverged
    ],
)
def test_a_printed_number(errors, training, verdict):
    row = verdicts.value(CLAIM, errors, training)
    assert row["verdict"] == verdict and row["n"] == len(errors)
    assert ("our schedule" in row["reason"]) == (training == "converged")


def test_more_runs_decide_what_few_do_not():
    few, many = (verdicts.value(CLAIM, around(1.6, 0.4, n), "paper", seconds=3600) for n in (4, 80))
    assert few["verdict"] == UNDECIDED and many["verdict"] == EQUIVALENT
    # (2.93 · 0.4 / 0.15)², less the four that are in
    assert few["reason"] == "it takes about 62 runs, 58.0 hours, if there is no difference"


@pytest.mark.parametrize(
    "twice, verdict, said",
    [
        ([-0.2, -0.1, 0.0], EQUIVALENT, "our schedule; twice the time: -0.10 ± 0.25"),
        ([-0.2, -0.2, -0.2], UNDECIDED, "our schedule; twice the time: -0.20 ± 0.00"),  # the margin
        ([0.2, 0.3, 0.4], UNDECIDED, "our schedule; twice the time: 0.30 ± 0.25"),  # longer is worse: not at its end
        ([-0.1, -0.1], UNDECIDED, "our schedule; twice the time: not tried"),  # not in enough pairs
        ([-0.1, float("nan"), -0.1], UNDECIDED, "our schedule; twice the time: diverged"),  # one of three
        (None, EQUIVALENT, "our schedule"),
    ],
)
def test_a_schedule_that_twice_the_time_improves_decides_nothing(twice, verdict, said):
    row = verdicts.value(CLAIM, around(1.6, 0.05, 6), "converged", twice=twice)
    assert row["verdict"] == verdict and row["reason"] == said
    assert verdicts.value(CLAIM, around(1.6, 0.05, 6), "paper", twice=twice)["verdict"] == EQUIVALENT
    if twice:
        row = verdicts.value(CLAIM, around(1.6, 0.05, 6), "converged", twice=twice, twice_at="at 98 %")
        assert row["reason"] == said.replace("time:", "time (at 98 %):")


@pytest.mark.parametrize("twice, verdict", [
    ([-0.1, -0.1, -0.1], DIFFERS),  # 0.3 become 0.2
    ([0.1, 0.1, 0.1], DIFFERS),
    ([-0.4, -0.1, 0.2], UNDECIDED),  # by 0.1 ± 0.75: could be all of it
])  # fmt: skip
def test_a_difference_that_more_time_could_make_up_for_is_none(twice, verdict):
    row = verdicts.value(CLAIM, around(1.9, 0.05, 6), "converged", twice=twice)
    assert row["verdict"] == verdict and np.isnan(row["p"]) == (verdict == UNDECIDED)
    assert verdicts.value(CLAIM, around(1.6, 0.05, 6), "converged", twice=twice)["verdict"] == EQUIVALENT


def test_equivalence_is_tested_at_five_per_cent_a_side():
    """The 90 % interval decides: here the 95 % one reaches beyond the margin."""
    assert verdicts.value(CLAIM, around(1.6, 0.155, 6), "paper")["verdict"] == EQUIVALENT
    gap = around(0, 1, 6)
    (_, _, at_90), (_, _, at_95) = (statistics.interval(gap, level) for level in (0.90, 0.95))
    assert verdicts.equivalence(gap, (at_90 + at_95) / 2, "paper") == EQUIVALENT


@pytest.mark.parametrize("mean, sd, verdict, tested, tails", [
    (1.9, 0.05, DIFFERS, 1.65, 2),  # against the printed 1.6, as far as its rounding reaches
    (1.5, 0.02, EQUIVALENT, 1.45, 1),  # against the margin of 0.2, less the rounding
    (1.6, 0.155, EQUIVALENT, 1.75, 1),
])  # fmt: skip
def test_a_decided_number_has_the_p_value_of_the_textbook_test(mean, sd, verdict, tested, tails):
    row = verdicts.value(CLAIM, errors := around(mean, sd, 6), "paper")
    assert row["verdict"] == verdict
    assert row["p"] == pytest.approx(stats.ttest_1samp(errors, tested).pvalue * tails / 2)
    assert np.isnan(verdicts.value(CLAIM, around(1.6, 0.5, 4), "paper")["p"])  # undecided
    assert np.isnan(verdicts.value(CLAIM, errors, "converged", twice=[1, 1, 1])["p"])


def test_an_order_has_the_p_value_of_its_weakest_setting_or_counts_how_many_could_contradict():
    near, far = around(0.3, 0.2, 6), around(0.9, 0.2, 6)
    order = pd.DataFrame([statistics.row(near), statistics.row(far)])
    p_near, p_far = (stats.ttest_1samp(gaps, 0).pvalue for gaps in (near, far))
    confirmed = verdicts.order("figure3-order", order, "paper", "")
    assert confirmed["verdict"] == CONFIRMED and confirmed["p"] == pytest.approx(p_near)
    flipped = -order.rename(columns={"low": "high", "high": "low"}).assign(n=-order.n)
    contradicted = verdicts.order("figure3-order", flipped, "paper", "")
    assert contradicted["verdict"] == CONTRADICTED and contradicted["p"] == pytest.approx(2 * p_far)


def test_a_mean_outside_its_interval_is_a_mistake():
    with pytest.raises(ValueError, match="'figure3-order': a mean lies outside its interval"):
        verdicts.order("figure3-order", settings((6, 0.1, 0.5)).assign(mean=0.6), "paper", "")


def test_holms_adjustment_by_hand():
    np.testing.assert_allclose(statistics.holm([0.04, 0.01, 0.03, 0.9]), [0.09, 0.04, 0.09, 0.9])
    assert statistics.holm([0.5, 0.6]).tolist() == [1, 1] and len(statistics.holm([])) == 0


def test_no_difference_at_all_asks_for_runs_without_end():
    row = verdicts.order("figure3-order", pd.DataFrame([statistics.row([0.0, 0.0, 0.0])]), "paper", "")
    assert row["verdict"] == UNDECIDED and "about 1,000,000 runs" in row["reason"]


def test_six_runs_have_their_own_spread():
    calm, wild = around(1.6, 0.02, 8), around(3, 1.0, 8)
    assert verdicts.value(CLAIM, calm, "paper", [calm, wild])["verdict"] == EQUIVALENT
    assert verdicts.value(CLAIM, calm[:5], "paper", [calm[:5], wild])["verdict"] == UNDECIDED


def test_the_spread_is_pooled_over_the_cells_of_a_network():
    lucky = [1.70, 1.71, 1.72]  # three that happen to lie close together
    pool = [lucky, around(2, 0.3, 10), around(3, 0.3, 10)]
    assert verdicts.value(CLAIM, lucky, "paper")["verdict"] == EQUIVALENT
    assert verdicts.value(CLAIM, lucky, "paper", pool)["verdict"] == CONSISTENT
    sd, freedom = statistics.pooled_sd(pool)
    assert freedom == 20 and sd == pytest.approx(np.sqrt((2 * 0.01**2 + 18 * 0.3**2) / 20))


def test_statistics_by_hand():
    gaps = pd.DataFrame({"mean": [0.05, 0.3, -0.3], "low": [-0.02, 0.2, -0.4], "high": [0.12, 0.4, -0.2]})
    inside = statistics.within(gaps, 0.1)[["mean", "low", "high"]]
    np.testing.assert_allclose(inside, [[0.05, -0.02, 0.1], [-0.2, -0.3, -0.1], [-0.2, -0.3, -0.1]])
    assert statistics.pooled_sd([[1.0, 2.0, 3.0], [1.0, float("nan")], [4.0]]) == (1.0, 2)
    narrow, wide = (statistics.welch([1.0, 2.0, 4.0], [1.0, 1.5], level) for level in (0.90, 0.95))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    table = pd.DataFrame({"batch": [1, None, None], "kind": "a", "test_error": [1.0, 2.0, 3.0]})
    assert statistics.summarise(table, ["batch", "kind"]).n.tolist() == [1, 2]  # None is a group, too


def test_the_papers_own_runs_are_compared_by_welch():
    figure1 = paper.table("figure1").query("model == 'lenet-300-100' and sparsity == 0").error
    claim = "table1-lenet-300-100-0"
    same = verdicts.value(claim, figure1.iloc[:6], "paper", theirs=figure1)
    better = verdicts.value(claim, figure1 - 0.3, "paper", theirs=figure1)
    assert same["verdict"] == EQUIVALENT and better["verdict"] == DIFFERS and better["low"] < -0.3 < better["high"]
    low, high = statistics.welch([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert low == -high and high == pytest.approx(2.7764 * np.sqrt(2 / 3), rel=1e-4)


def settings(*rows):
    rows = pd.DataFrame(rows, columns=["n", "low", "high"])
    return rows.assign(mean=(rows.low + rows.high) / 2)


@pytest.mark.parametrize(
    "rows, verdict",
    [
        ([(6, 0.1, 0.5), (6, 0.2, 0.4)], CONFIRMED),
        ([(6, 0.1, 0.5), (6, -0.2, 0.4)], PARTLY),
        ([(6, 0.1, 0.5), (6, -0.4, -0.2)], MIXED),
        ([(6, -0.1, 0.5), (6, -0.2, 0.4)], UNDECIDED),  # no sign of it is no sign of the contrary
        ([(6, -0.1, 0.5), (6, -0.4, -0.2)], CONTRADICTED),
        ([(6, 0.1, 0.5), (1, 0.1, 0.5)], PARTLY),  # a planned setting is not there yet
        ([(6, 0.1, 0.5), (6, float("nan"), float("nan"))], PARTLY),  # or diverged
        ([(2, 0.1, 0.5)], NOT_RUN),
        ([(6, float("nan"), float("nan"))], NOT_RUN),
        ([], NOT_RUN),
    ],
)
def test_an_order(rows, verdict):
    assert verdicts.order("figure3-order", settings(*rows), "paper", "")["verdict"] == verdict


def test_a_difference_too_small_to_matter_speaks_against_an_order():
    def judge(*rows):
        return verdicts.order("figure4-task", settings(*rows), "paper", "")["verdict"]  # margin: 0.23 nats

    assert judge((3, -0.01, 0.01)) == CONTRADICTED and judge((3, -0.3, 0.3)) == UNDECIDED
    assert judge((3, 0.3, 0.4), (3, -0.01, 0.01)) == MIXED
    assert judge((3, 0.01, 0.02)) == CONFIRMED  # small, but there


@pytest.mark.parametrize("mean, sd, n", [(0.3, 0.5, 6), (0.5, 0.4, 3)])  # by few more runs, and by many
def test_as_many_runs_as_an_undecided_order_asks_for_decide_it_four_times_in_five(mean, sd, n):
    seen = around(mean, sd, n)
    claim = verdicts.order("figure3-order", pd.DataFrame([statistics.row(seen)]), "paper", "")
    wanted = int(re.search(r"about (\d+) runs", claim["reason"]).group(1))
    studies = np.random.default_rng(0).normal(mean, sd, (2000, wanted))
    decided = np.mean([statistics.interval(study)[1] > 0 for study in studies])
    assert claim["verdict"] == UNDECIDED and 0.78 < decided < 0.87


def test_a_short_training_can_show_an_order_but_no_margin():
    rows = settings((6, 0.1, 0.5))
    order = verdicts.order("figure3-order", rows, "short", "")
    assert order["verdict"] == CONFIRMED and "shortened" in order["reason"]
    assert verdicts.order("figure1-lenet-5-caffe", rows, "short", "", margin=True)["verdict"] == NOT_RUN
    assert verdicts.order("figure1-lenet-5-caffe", rows, "converged", "", margin=True)["verdict"] == CONFIRMED


def test_printed_numbers_of_a_table_have_the_decimals_of_the_paper():
    """They say how far a number was rounded."""
    claims = paper.table("claims").query("margin.notna() and printed.str.fullmatch('[0-9.]+')", engine="python")
    decimals = claims.printed.str.partition(".")[2].str.len()
    assert decimals.groupby(claims["where"]).nunique().eq(1).all()


def test_every_printed_number_has_a_margin_and_every_claim_a_known_notebook():
    claims = paper.table("claims")
    numbers = pd.to_numeric(claims.printed, errors="coerce").notna() & ~claims.claim.str.startswith("figure4")
    numbers |= claims.claim == "figure4-task"  # an order, of losses that may be equal
    assert (claims.margin.notna() == numbers).all() and (claims.margin[numbers] > 0).all() and claims.claim.is_unique


def test_the_report_takes_the_best_evidence(tmp_path, monkeypatch):
    monkeypatch.setenv("SNIPKIT_HOME", str(tmp_path))
    verdicts.save([verdicts.value(CLAIM, around(1.6, 0.05, 6), "converged")], "rq2", "overnight")
    verdicts.save([verdicts.value(CLAIM, around(2.6, 0.05, 6), "short")], "rq2", "laptop")
    verdicts.save([verdicts.value(CLAIM, around(2.1, 0.05, 2), "paper")], "rq2", "paper")  # too few
    assert verdicts.report().loc[CLAIM, ["verdict", "scale"]].tolist() == [EQUIVALENT, "overnight"]
    verdicts.save([verdicts.value(CLAIM, around(2.1, 0.05, 6), "paper")], "rq2", "paper")
    row = verdicts.report().loc[CLAIM]
    assert row.verdict == DIFFERS and row.scale == "paper" and row["difference, 95 %"].startswith("+0.")
    spread = [1.2, 1.6, 2.6]  # says nothing, so what another scale decides counts
    verdicts.save([verdicts.value(CLAIM, spread, "paper")], "rq2", "paper")
    assert verdicts.report().loc[CLAIM, ["verdict", "scale"]].tolist() == [EQUIVALENT, "overnight"]
    order = settings((6, 0.1, 0.5))  # of short trainings: it hides nothing longer
    verdicts.save([verdicts.order("figure3-order", order, "short", "")], "rq5", "laptop")
    verdicts.save([verdicts.order("figure3-order", order.assign(low=-0.1), "converged", "")], "rq5", "overnight")
    assert verdicts.report().loc["figure3-order", ["verdict", "scale"]].tolist() == [UNDECIDED, "overnight"]
    mostly = settings((6, 0.1, 0.5), (6, -0.1, 0.5))  # some for, none against: does not hide what decides
    verdicts.save([verdicts.order("figure3-order", mostly, "paper", "")], "rq5", "paper")
    verdicts.save([verdicts.order("figure3-order", order, "converged", "")], "rq5", "overnight")
    assert verdicts.report().loc["figure3-order", ["verdict", "scale"]].tolist() == [CONFIRMED, "overnight"]
    against = verdicts.order("figure3-order", settings((6, -0.4, -0.2)), "converged", "")
    verdicts.save([against], "rq5", "overnight")  # our schedule must not hide what the paper's protocol says for it
    row = verdicts.report().loc["figure3-order"]
    assert row.verdict == MIXED and "paper: 1 of 2 settings on the claimed" in row.reason and np.isnan(row.p)
    assert "overnight: 0 of 1" in row.reason
    for profile in ("laptop", "overnight", "paper"):
        verdicts.save([], "rq5", profile)
    verdicts.save([verdicts.value(CLAIM, around(2.1, 0.05, 6), "paper")], "rq2", "paper")
    rows = verdicts.report()
    assert verdicts.summary(rows) == f"differs: 1, not run at this scale: {len(rows) - 1}"
    note = verdicts.holm_note(rows)
    assert "rest on 1 intervals (0 of" in note
    assert "all 1 rows with intervals (Holm's method), 0 of the 1 decided rows would be undecided: none." in note
    row = verdicts.order("figure3-order", settings((3, 0.05, 0.5)), "paper", "")
    assert row["verdict"] == CONFIRMED and 0.025 < row["p"] < 0.05  # would stay, but for the undecided row beside it
    verdicts.save([row, verdicts.order("figure4-task", settings((3, -0.3, 0.3)), "paper", "")], "rq5", "paper")
    note = verdicts.holm_note(verdicts.report())
    assert "1 of the 2 decided rows would be undecided: Figure 3, A larger scoring batch" in note
    with pytest.raises(ValueError, match="unknown claim 'table9'"):
        verdicts.fact("table9", True, "")


@pytest.mark.parametrize("differences, training, verdict", [
    ([-0.5, 0.1, 0.5, 0.2], "converged", "equivalent"),
    ([0.5, 0.6, 0.7, 0.6], "converged", "equivalent"),  # a difference, but one that was said not to count
    ([1.5, 1.6, 1.7, 1.6], "converged", "differs"),
    ([-1, 0.1, 1, 0.2], "converged", "consistent"),  # 90 %: -0.88 to 1.03; 95 %: half of it is 1.3
    ([-5, 5, -6, 6], "converged", "undecided"),
    ([0.0, float("nan"), 0.0], "converged", "differs"),  # diverged
    ([0.0, 0.0, 0.0], "short", "not run at this scale"),
    ([0.0, 0.0], "converged", "not run at this scale"),
])  # fmt: skip
def test_differences_that_should_be_0(differences, training, verdict):
    assert verdicts.equivalence(differences, 1.0, training) == verdict
