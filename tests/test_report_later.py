"""The table and the picture of the page on later methods."""

import pandas as pd
import pytest

from snipkit import study
from snipkit.study import paths, report
from snipkit.study.report import later

SIGNALS = {
    "model": "mlp-1d",
    "data": "mnist-1d",
    "recipe": "overnight-mnist-1d",
    "seeds": 5,
    "sparsities": [0.9, 0.98],
}


@pytest.fixture(scope="module")
def compared():
    """Three methods on record, SNIP on all examples, and the smaller dense networks."""
    parts = {
        "methods": report.planned(SIGNALS, ["snip", "force", "magnitude"]),
        "all examples": report.planned(SIGNALS | {"scoring_batch": None}, "snip"),
        "images": [],
        "smaller": [report.smaller_dense(SIGNALS)],
    }
    records = study.read(paths.results("overnight"))
    return later.compared(study.table(report.distinct(parts), records), parts)


def test_each_group_has_a_method_and_a_sparsity_of_its_own(compared):
    counts = compared.groupby(["method", "sparsity"]).size()
    names = {"snip", "snip, all", "force", "magnitude", "dense, smaller"}
    assert set(counts.index) == {(name, sparsity) for name in names for sparsity in (0.9, 0.98)}
    assert set(counts) == {5}
    assert report.gap(compared, "dense, smaller", "snip", sparsity=0.98).mean() < -10


def test_the_smaller_network_and_other_seeds_are_no_pairs(compared):
    biases = report.biases_kept("overnight")
    text = later.smaller_minus_biases(compared, biases, 0.9)
    small = report.errors(compared, method="dense, smaller", sparsity=0.9)
    kept = report.errors(biases, method="snip, biases", sparsity=0.9)
    assert text.startswith(f"{small.mean() - kept.mean():.1f} ± ")
    assert later.smaller_minus_biases(compared, biases, 0.5) == "(not on record)"


def test_errors_stand_by_method(compared, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "figures", lambda profile: tmp_path)
    shown = later.error_table(compared, report.biases_kept("overnight"), "lesson")
    assert list(shown) == [80, 90, 95, 98]  # the biases were kept at all four
    assert shown.loc["SNIP, biases kept (other seeds)", 98] == "69.7 ± 1.9"
    force = report.errors(compared, method="force", sparsity=0.98)
    assert shown.loc["FORCE", 98].startswith(f"{force.mean():.1f} ± ")


def test_the_smaller_network_beside_snip_with_and_without_its_biases(compared):
    figure, shown = later.smaller_curves(compared, report.biases_kept("overnight"))
    assert [ax.get_title() for ax in figure.axes] == ["signals of MNIST-1D"]
    assert set(shown["mask"]) == {"SNIP", "smaller dense network", "SNIP, biases kept"}


def test_each_shuffle_loses_to_its_own_masks():
    rows = []
    errors = {"snip": 60, "snip, shuffle": 68, "snip, shuffle-units": 61}
    for method, error in errors.items():
        for seed in range(3):
            rows.append(["mlp-1d", 0.98, method, seed, error + seed])
    columns = ["model", "sparsity", "method", "seed", "test_error"]
    table = pd.DataFrame(rows, columns=columns)
    gaps = later.shuffled_gaps(table, ["snip"])
    assert gaps.groupby("shuffled").gap.unique().map(list).to_dict() == {
        "layer counts kept": [8], "unit counts kept": [1],
    }  # fmt: skip
    figure = later.shuffled_rows(gaps)
    assert figure.axes[0].get_xlabel() == "points worse than its own masks, 98 % removed"


def test_masks_that_collapsed_are_counted():
    runs = {
        "model": "mlp-1d", "method": ["random", "random", "dense, smaller"], "sparsity": 0.9,
        "effective_sparsity": [0.95, 0.97, 0.0], "empty_layers": [0, 1, 0],
        "test_error": [88.5, 50.0, 30.0],
    }  # fmt: skip
    table = later.collapse_table(pd.DataFrame(runs))
    assert list(table.index) == [(90, "random")]
    assert list(table.iloc[0]) == [2, 40, 1, 1]


def test_kernels_are_counted_in_words():
    ratios = {"units left out": [1.2, 2.2, 1.4, 1.3], "CSR": [0.7, 1.6, 1.1, 0.9]}
    rows = []
    for kernel, values in ratios.items():
        for place, ratio in enumerate(values):
            rows.append(["net", place, kernel, 9.99, ratio])
    columns = ["network", "batch", "kernels", "microseconds", "times as fast"]
    latency = pd.DataFrame(rows, columns=columns)
    values = later.kernel_values(latency)
    assert values == {"compact_wins": "all four", "csr_wins": "two of the four",
                      "faster": "1.2 to 2.2"}  # fmt: skip


def test_rows_stand_in_the_order_of_the_highest_sparsity(compared):
    gaps = report.labelled(report.gaps(compared, "snip"))
    figure = later.method_rows(gaps[(gaps.method != "magnitude") | (gaps.sparsity < 0.95)])
    left, right = figure.axes
    rows = [label.get_text() for label in left.get_yticklabels()]
    assert rows[:2] == ["smaller dense network", "FORCE"] and rows[-1] == "magnitude at init"
    assert [ax.get_title() for ax in (left, right)] == ["90 % removed", "98 % removed"]
