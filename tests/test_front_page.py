"""The README's measured numbers, each computed from the records."""

import re

import pytest
from tiny import ROOT

from snipkit import study
from snipkit.study import notebooks, paper, paths, report
from snipkit.study.report import Estimate, registered
from snipkit.study.train import ladder_runs
from snipkit.study.train.recipes import RECIPES

MEASURED = re.compile(r"\d+(?:\.\d+)? ± \d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def records():
    return study.read(paths.results("overnight"))


def gap(model, first, second, records, page="rq2_how_sparse"):
    """First minus second, (method, sparsity) each, a number per seed."""
    runs = [run for run in notebooks.grid(page, "overnight") if run.model == model]
    recipe = RECIPES["overnight-mnist-1d" if model == "mlp-1d" else f"overnight-{model}"]
    usual = [run for run in runs if run.recipe == recipe]
    table = study.table(usual, records)
    return report.gap(
        table,
        *({"method": method, "sparsity": sparsity} for method, sparsity in (first, second)),
        same_draw=False,
    )


def test_each_number_of_the_front_page_is_that_of_the_records(records):
    snip = "snip", 0.98
    ladder = "rq6_what_carries_the_gain"  # the page with the most seeds
    random = gap("lenet-300-100", ("random", 0.98), snip, records, ladder)
    random_90 = gap("lenet-300-100", ("random", 0.9), ("snip", 0.9), records, ladder)
    layers = gap("lenet-300-100", ("snip, shuffle", 0.98), snip, records, ladder)
    assert len(random) == len(layers) == 10
    ranked = study.table(ladder_runs.mlp_runs(), records)
    kept = study.table(ladder_runs.bias_runs(), records)
    biases = report.errors(ranked, method="snip", sparsity=0.9, same_draw=False) - report.errors(
        kept, method="snip", sparsity=0.90738
    )
    by_erk = gap("mlp-1d", ("snip", 0.9), ("erk", 0.9), records, ladder)
    registered_rise = registered.outcomes("figure1-lenet-300-100", sparsity=0.9)
    expected = [Estimate(random, 0), Estimate(random_90), Estimate(layers)]
    expected += [Estimate(registered_rise, 2)]
    more_images = registered.outcomes("figure3-100-10000")
    assert len(more_images) == 10
    erk_98 = gap("mlp-1d", ("erk", 0.98), snip, records, ladder)
    expected += [Estimate(more_images, 2), Estimate(biases), Estimate(by_erk), Estimate(erk_98)]
    findings = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Try it")[0]
    assert MEASURED.findall(findings) == [str(estimate) for estimate in expected]


def test_table_1_on_the_front_page_is_that_of_the_registered_runs():
    claims = registered.table().set_index("claim")
    others = paper.table("others").query("protocol == 'momentum, 100,000 steps'")
    authors = others.set_index("claim").error
    ours, theirs, printed = [], [], []
    for sparsity in (95, 98):
        claim = f"table1-lenet-300-100-{sparsity}"
        ours.append(claims.ours[claim].partition(";")[0])
        theirs.append(f"{authors[claim]:.2f}")
        printed.append(claims.printed[claim])
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"an error of {ours[0]} % at 95 % removed and of {ours[1]} % at 98 %" in text
    assert f"Table 1 prints {printed[0]} and {printed[1]} %" in text
    assert f"has {theirs[0]} and {theirs[1]} %" in text
