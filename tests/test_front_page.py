"""The README's measured numbers, each computed from the records."""

import re

import pytest
from tiny import ROOT

from snipkit import study
from snipkit.study import notebooks, paths, report
from snipkit.study.report import Estimate
from snipkit.study.train import ladder_runs
from snipkit.study.train.recipes import RECIPES

MEASURED = re.compile(r"[\d.]+ ± [\d.]+")


@pytest.fixture(scope="module")
def records():
    return study.read(paths.results("overnight"))


def lenet_gap(page, first, second, records):
    """First minus second, (method, sparsity) each, a number per seed."""
    runs = [run for run in notebooks.grid(page, "overnight") if run.model == "lenet-300-100"]
    usual = [run for run in runs if run.recipe == RECIPES["overnight-lenet-300-100"]]
    table = study.table(usual, records)
    sides = [report.errors(table, method=method, sparsity=at) for method, at in (first, second)]
    return sides[0] - sides[1]


def test_each_number_of_the_front_page_is_that_of_the_records(records):
    snip = "snip", 0.98
    random = lenet_gap("rq1_important_connections", ("random", 0.98), snip, records)
    layers = lenet_gap("rq1_important_connections", ("snip, shuffle", 0.98), snip, records)
    price = lenet_gap("rq2_how_sparse", ("snip", 0.9), ("dense", 0.0), records)
    ranked = study.table(ladder_runs.mlp_runs(), records)
    kept = study.table(ladder_runs.bias_runs(), records)
    biases = report.errors(ranked, method="snip", sparsity=0.9, same_draw=False) - report.errors(
        kept, method="snip", sparsity=0.90738
    )
    expected = [Estimate(random, 0), Estimate(layers), Estimate(price), Estimate(biases)]
    findings = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Try it")[0]
    assert MEASURED.findall(findings) == [str(estimate) for estimate in expected]
