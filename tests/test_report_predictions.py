"""The word for a prediction: holds, failed or open."""

import pandas as pd
import pytest

from snipkit.study.report import predictions


def around(mean, spread):
    """Five differences whose 95 % interval is mean ± 1.24 spread, and whose 90 % one ± 0.95."""
    return pd.Series([mean - spread, mean - spread, mean, mean + spread, mean + spread])


@pytest.mark.parametrize(
    "mean, spread, is_equal, is_worse",
    [
        (0.0, 1.0, "holds", "open"),  # within the margin of 1.5
        (0.5, 0.1, "holds", "holds"),  # a small difference that is sure
        (3.0, 1.0, "failed", "holds"),
        (-3.0, 1.0, "failed", "failed"),
        (1.0, 3.0, "open", "open"),
    ],
)
def test_a_difference_has_a_word_for_each_prediction(mean, spread, is_equal, is_worse):
    difference = around(mean, spread)
    assert predictions.equal(difference, 1.5) == is_equal
    assert predictions.worse(difference) == is_worse


def test_a_run_that_diverged_leaves_it_open():
    difference = pd.Series([1.0, 1.1, float("nan")])
    assert predictions.equal(difference, 1.5) == predictions.worse(difference) == "open"


def test_each_setting_has_the_margin_of_its_network():
    rows = []
    for model in ("mlp-1d", "lenet-300-100"):
        for seed in range(5):
            rows.append([model, 0.9, "snip", seed, 0.0])
            rows.append([model, 0.9, "random", seed, 1.0 + 0.01 * seed])
    columns = ["model", "sparsity", "method", "seed", "test_error"]
    table = pd.DataFrame(rows, columns=columns)
    words = predictions.by_setting(table, "random", "snip", predictions.equal)
    assert words == {("mlp-1d", 0.9): "holds", ("lenet-300-100", 0.9): "failed"}
    assert predictions.by_setting(table, "erk", "snip", predictions.equal) == {}
    assert predictions.by_setting(table[:0], "random", "snip", predictions.equal) == {}


def test_all_parts_must_hold():
    assert predictions.together(["holds", "holds"]) == "holds"
    assert predictions.together(["holds", "open"]) == "open"
    assert predictions.together(["holds", "open", "failed"]) == "failed"


def test_settings_are_counted():
    assert predictions.tally({}) == "not on record"
    assert predictions.tally({"a": "holds"}) == "holds"
    assert predictions.tally(["open", "open"]) == "open in 2 of 2 settings"
    words = ["holds", "failed", "holds"]
    assert predictions.tally(words) == "failed: holds in 2, failed in 1 of 3 settings"


def test_predictions_about_later_methods_without_records_are_open():
    nothing = pd.DataFrame()
    values = predictions.after_values(nothing, nothing)
    assert values["so_units"] == values["so_narrow"] == "not on record"
    assert values["so_synflow"] == "open" and len(values["force"]) == 0
