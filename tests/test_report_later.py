"""The table and the picture of the page on later methods."""

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


def test_rows_stand_in_the_order_of_the_highest_sparsity(compared):
    gaps = report.labelled(report.gaps(compared, "snip"))
    figure = later.method_rows(gaps[(gaps.method != "magnitude") | (gaps.sparsity < 0.95)])
    left, right = figure.axes
    rows = [label.get_text() for label in left.get_yticklabels()]
    assert rows[:2] == ["smaller dense network", "FORCE"] and rows[-1] == "magnitude at init"
    assert [ax.get_title() for ax in (left, right)] == ["90 % removed", "98 % removed"]
