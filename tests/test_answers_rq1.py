"""The sentences of RQ1: each number is that of the records, computed here in another way."""

import math

import pandas as pd
import pytest
from answers import differences, literal_numbers, shown

from snipkit import study
from snipkit.study import notebooks, paths
from snipkit.study.report import Estimate, statistics

PAGE = "rq1_important_connections"


@pytest.fixture(scope="module")
def errors():
    """Test errors by (model, sparsity, seed), a column a method."""
    table = study.table(notebooks.grid(PAGE, "overnight"), study.read(paths.results("overnight")))
    return table.pivot(index=["model", "sparsity", "seed"], columns="method", values="test_error")


def behind_snip(errors, method, model, sparsity, digits=1):
    rows = errors.loc[model, sparsity]
    return Estimate(rows[method] - rows.snip, digits)


def page():
    return (notebooks.folder() / f"{PAGE}.ipynb").read_text(encoding="utf-8")


def ten_seeds():
    """Random minus SNIP at 98 % of LeNet-300-100, of the ten seeds of RQ6's ladder."""
    table = study.table(
        notebooks.grid("rq6_what_carries_the_gain", "overnight"),
        study.read(paths.results("overnight")),
    )
    chosen = table[(table.model == "lenet-300-100") & (table.sparsity == 0.98) & (table.seed < 10)]
    plain = chosen[(chosen.layer_counts == "own") & ~chosen.same_draw & chosen.biases]
    by_method = plain.pivot(index="seed", columns="method", values="test_error")
    return by_method.random - by_method.snip


def short_answer(errors):
    return {
        "random": behind_snip(errors, "random", "lenet-300-100", 0.98),
        "layer_counts": behind_snip(errors, "snip, shuffle", "lenet-300-100", 0.98),
    }


def test_the_sentences_at_the_top(errors):
    of_rq6 = ten_seeds()
    assert differences(shown(PAGE)[0], "rq1_short", short_answer(errors)) == []
    own = errors.loc["lenet-300-100", 0.98]
    assert list(of_rq6[:6]) == list(own.random - own.snip)  # the same runs
    assert (of_rq6[6:] < own.random.min() - own.snip.max()).sum() == 1  # "far better" in one
    assert 0.5 < of_rq6[:6].mean() - of_rq6.mean() < 2  # "a little lower"


def test_the_answer(errors):
    agreement = pd.read_csv(paths.figures("overnight") / "rq1_first_order.csv")
    agreement = agreement.sort_values("rank correlation of sizes")
    lowest, highest = agreement.iloc[0], agreement.iloc[-1]
    assert (lowest.layer, lowest.network) == ("conv1", "LeNet-5-Caffe")
    settings = (errors.random - errors.snip).dropna().groupby(["model", "sparsity"])
    lower_ends = settings.apply(lambda gap: statistics.interval(gap)[1])
    assert len(lower_ends) == 11 and (lower_ends > 0).all()  # "in all settings"
    values = short_answer(errors) | {
        "lowest": f"{lowest['rank correlation of sizes']:.2f}",
        "highest": f"{highest['rank correlation of sizes']:.2f}",
        "equal_signs": math.floor(agreement["% of equal sign"].min()),  # "at least"
        "random_caffe": behind_snip(errors, "random", "lenet-5-caffe", 0.98),
        "layer_counts_995": behind_snip(errors, "snip, shuffle", "lenet-300-100", 0.995),
        "layer_counts_caffe": behind_snip(errors, "snip, shuffle", "lenet-5-caffe", 0.98, 2),
        "magnitude_90": behind_snip(errors, "magnitude", "lenet-300-100", 0.9, 2),
        "magnitude_98": behind_snip(errors, "magnitude", "lenet-300-100", 0.98),
    }
    assert differences(shown(PAGE)[1], "rq1_answer", values) == []


def test_no_measured_number_is_written_by_hand():
    settings = {"1", "2", "3", "4", "5", "300", "100", "90", "98", "99.5", "0"}
    for name in ("rq1_short", "rq1_answer"):
        written = {number.strip("-,.") for number in literal_numbers(name)}
        assert written <= settings, name


def test_the_text_quotes_the_tables_of_paths_and_of_signs():
    """What one draw shows: classes and pixels on a path, and signs of 60 connections a layer."""
    reached = pd.read_csv(paths.figures("overnight") / "rq1_paths.csv", index_col="mask")
    random = reached.loc["random"]
    assert random["classes on a path, 98 % removed"] == 9  # "one class cannot be reached"
    assert random["classes on a path, 99 % removed"] == 8  # "and at 99 % two"
    pixels = reached["pixels on a path, 95 % removed"]
    assert pixels["SNIP"] == 435 and (pixels.drop("SNIP") >= 782).all()
    signs = pd.read_csv(paths.figures("overnight") / "rq1_first_order.csv")
    signs = signs.set_index("layer")["% of equal sign"]
    assert set(signs[["conv1", "conv2"]].round(3)) == {round(100 * 58 / 60, 3)}
    assert (signs.drop(["conv1", "conv2"]) == 100).all()


def test_magnitude_beside_snips_layer_counts_until_it_fails(errors):
    pruned = errors.drop(0.0, level="sparsity")
    gap = (pruned.magnitude - pruned["snip, shuffle"]).groupby(["model", "sparsity"])
    table = gap.apply(lambda seeds: pd.Series(statistics.interval(seeds))).unstack()
    fails = table[table[0] > 1].index
    rises = [("lenet-300-100", 0.98), ("lenet-300-100", 0.99), ("lenet-300-100", 0.995)]
    assert list(fails) == [*rises, ("lenet-5-caffe", 0.995)]
    table = table.drop(fails)
    assert table[0].abs().max() < 0.105  # "about 0.1 points"
    assert ((table[1] > 0) | (table[2] < 0)).sum() == 1  # "all but one contain 0"
    assert table.abs().max(axis=None) < 0.3  # "none reaches 0.3 points"
    behind_in_the_mean = (pruned.magnitude - pruned.snip).groupby(["model", "sparsity"]).mean()
    assert behind_in_the_mean.drop(fails).max() < 0.5  # "less than half a point"


def test_the_gap_to_the_layer_counts_and_its_steps(errors):
    gap = errors["snip, shuffle"] - errors.snip
    of_lenet = gap["lenet-300-100"].unstack("sparsity").dropna(axis=1)
    steps = of_lenet.diff(axis=1).iloc[:, 1:]
    assert list(steps) == [0.9, 0.95, 0.98, 0.99, 0.995] and (steps.mean() > 0).all()
    lower_ends = [statistics.interval(steps[sparsity])[1] for sparsity in steps]
    assert [low > 0 for low in lower_ends] == [False, False, True, True, True]
    of_caffe = gap["lenet-5-caffe"].unstack("sparsity").dropna(axis=1)
    assert of_caffe.mean().max() < 1
    ends = {sparsity: statistics.interval(of_caffe[sparsity])[1:] for sparsity in of_caffe}
    assert [key for key, (low, high) in ends.items() if low < 0 < high] == [0.9, 0.995]


def test_the_share_of_random_prunings_gap_that_is_left(errors):
    shares = {}
    for setting, rows in errors.groupby(["model", "sparsity"]):
        counts, random = rows["snip, shuffle"] - rows.snip, rows.random - rows.snip
        shares[setting] = statistics.ratio_cell(counts, random)
    assert shares["lenet-300-100", 0.8] == "0.54 [0.01, 0.93]"  # "six seeds do not tell"
    assert shares["lenet-300-100", 0.9] == "0.45 [0.20, 0.67]"  # "a fifth to two thirds"
    assert f"at most {shares['lenet-300-100', 0.95]} of the gap is left" in page()
    assert shares["lenet-5-caffe", 0.9] == "-0.05 [-0.16, 0.03]"  # "small already at 90 %"
    low = errors.loc["lenet-300-100"].loc[[0.8, 0.9]]
    assert (low.random - low.snip).groupby("sparsity").mean().max() < 1  # "below one point"


def test_snip_inverted_and_the_number_of_intervals(errors):
    inverted = behind_snip(errors, "snip, invert", "lenet-300-100", 0.98, 0)
    assert f"errs {inverted} points more than SNIP at 98 % of LeNet-300-100" in page()
    settings = (
        errors.drop(columns=["dense", "snip"]).dropna().groupby(["model", "sparsity"]).ngroups
    )
    assert f"has {4 * settings} intervals" in page()
