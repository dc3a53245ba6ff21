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


def test_the_answer(errors):
    agreement = pd.read_csv(paths.figures("overnight") / "rq1_first_order.csv")
    agreement = agreement[agreement.layer != "all layers"]
    agreement = agreement.sort_values("rank correlation of sizes")
    lowest, highest = agreement.iloc[0], agreement.iloc[-1]
    settings = (errors.random - errors.snip).dropna().groupby(["model", "sparsity"])
    lower_ends = settings.apply(lambda gap: statistics.interval(gap)[1])
    values = short_answer(errors) | {
        "lowest": f"{lowest['rank correlation of sizes']:.2f}",
        "highest": f"{highest['rank correlation of sizes']:.2f}",
        "equal_signs": math.floor(agreement["% of equal sign"].min()),  # "at least"
        "lowest_layer": f"{lowest.layer} of {lowest.network}",
        "ahead": int((lower_ends > 0).sum()),
        "settings": len(lower_ends),
        "random_ten": Estimate(ten_seeds()),
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
    signs = signs[signs.layer != "all layers"].set_index("layer")["% of equal sign"]
    assert set(signs[["conv1", "conv2"]].round(3)) == {round(100 * 58 / 60, 3)}
    assert (signs.drop(["conv1", "conv2"]) == 100).all()
