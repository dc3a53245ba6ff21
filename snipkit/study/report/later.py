"""What the page on later methods compares, and the picture of all methods against SNIP."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from snipkit.study.report import comparisons, methods, plots, statistics


def compared(table: pd.DataFrame, parts: Mapping) -> pd.DataFrame:
    """One row a run of what the page compares, each under a method of its own.

    Args:
        table: one row a run.
        parts: the page's grid: "methods" and "images" (runs of masks), "all examples" (runs of SNIP
            that score on all examples), and "smaller" (what ``grids.smaller_dense`` gives, a
            mapping a network).

    Returns:
        The rows, with the method "snip, all" for all examples and "dense, smaller" for the smaller
        dense networks. Their sparsity is that of the masks with as many parameters.
    """
    masks = comparisons.rows(table, [*parts["methods"], *parts["images"]])
    all_examples = comparisons.rows(table, parts["all examples"]).assign(method="snip, all")
    collected = [masks, all_examples]
    for networks in parts["smaller"]:
        small = comparisons.collected(table, networks, "sparsity")
        collected.append(small.assign(method="dense, smaller"))
    return pd.concat(collected)


def smaller_minus_biases(small: pd.DataFrame, biases: pd.DataFrame, sparsity: float) -> str:
    """The smaller dense network's errors minus those of SNIP with its biases kept, as "2.4 ± 0.3".

    The two have other seeds, so that they are no pairs.

    Args:
        small: rows of ``compared`` of one network.
        biases: what ``comparisons.biases_kept`` gives.
        sparsity: the share of parameters removed.
    """
    of_small = comparisons.errors(small, method="dense, smaller", sparsity=sparsity)
    of_biases = comparisons.errors(biases, method="snip, biases", sparsity=sparsity)
    return statistics.unpaired_cell(of_small, of_biases)


def method_rows(table: pd.DataFrame) -> Figure:
    """Each method's errors minus SNIP's: a panel a sparsity, a row a method.

    The rows stand in the order of the highest sparsity; those that it lacks come last. A grey band
    is within one point of SNIP.

    Args:
        table: what ``methods.labelled`` makes of ``comparisons.gaps``.
    """
    highest = table[table.sparsity == table.sparsity.max()]
    means = highest.groupby("mask", observed=True).gap.mean().sort_values()
    order = list(means.index)
    order += [mask for mask in table["mask"].unique() if mask not in order]
    figure = plots.points(
        table,
        "mask",
        methods.PALETTE,
        col="removed, %",
        title="{:g} % removed",
        markers=methods.MARKERS,
        order=order,
        baseline=methods.PALETTE["snip"],
        sharex=False,
        size=(1.9, 3.2),
    )
    for ax in figure.axes:
        ax.axvspan(-1, 1, color="0.92", zorder=0)
        ax.locator_params(axis="x", nbins=5, integer=True)
    axis = (
        "test error minus SNIP's, points (left of the blue line: better; own scale in each panel)"
    )
    figure.supxlabel(axis, size=9)
    return figure
