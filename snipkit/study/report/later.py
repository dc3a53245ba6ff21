"""What the page on later methods compares: its pictures, its tables, the values of its sentences.

Tables here come from ``compared`` unless a docstring says otherwise, and ``biases`` from
``comparisons.biases_kept``.
"""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from snipkit.study.report import answers, charts, comparisons, methods, plots, statistics, tables

#: what a shuffle keeps → its name in methods
RUNGS = {"layer counts kept": "shuffle", "unit counts kept": "shuffle-units"}
_COLLAPSED = charts.GUESSING - 2  # per cent: networks that err more only guess
_COUNTS = {2: "two", 3: "three", 4: "four"}


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


def error_table(signals: pd.DataFrame, biases: pd.DataFrame, profile: str) -> pd.DataFrame:
    """The errors of all methods, a row a method and a column a sparsity; saved by network.

    Args:
        signals: one network's rows.
        biases: see the module.
        profile: of the file "after_methods".
    """
    both = pd.concat([signals, comparisons.rows(biases, method="snip, biases")])
    names = methods.LABELS | {"snip, biases": "SNIP, biases kept (other seeds)"}
    table = tables.setting_table(both.assign(gap=both.test_error), names, "after_methods", profile)
    return table.droplevel("network").drop(columns="n").T


def smaller_curves(table: pd.DataFrame, biases: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """SNIP and the smaller dense network, on images and on signals: a panel a data set.

    Args:
        table: both networks' rows.
        biases: see the module.

    Returns:
        The figure, and the rows that it shows.
    """
    both = comparisons.rows(table, method=["snip", "dense, smaller"])
    kept = comparisons.rows(biases, method="snip, biases")
    shown = pd.concat([methods.labelled(both), methods.labelled(kept)])
    data = {"mlp-1d": "signals of MNIST-1D", "lenet-300-100": "images of MNIST"}
    shown["on"] = shown.model.map(data)
    lines = ("SNIP", "smaller dense network", "SNIP, biases kept")  # the last one on top
    colors = {mask: methods.PALETTE[mask] for mask in lines}
    figure = plots.curves(
        shown, "removed, %", "test error, %", "mask", colors, col="on", markers=methods.MARKERS
    )
    for ax in figure.axes:
        ax.set_ylim(bottom=0)
    return figure, shown[["model", "sparsity", "mask", "test_error"]]


def shuffled_gaps(table: pd.DataFrame, criteria: list[str]) -> pd.DataFrame:
    """What each shuffle of a criterion's masks loses to its own masks, seed by seed.

    Args:
        table: one row a run, of the criteria and of their shuffles.
        criteria: names, such as "snip".

    Returns:
        What ``methods.labelled`` makes of ``comparisons.gaps``, with "shuffled", a key of
        ``RUNGS``.
    """
    parts = []
    for rung, ablation in RUNGS.items():
        pairs = {name: (f"{name}, {ablation}", name) for name in criteria}
        parts.append(comparisons.gaps(table, pairs).assign(shuffled=rung))
    return methods.labelled(pd.concat(parts, ignore_index=True))


def shuffled_rows(gaps: pd.DataFrame) -> Figure:
    """What ``shuffled_gaps`` gives, a row a criterion."""
    colors = {rung: methods.PALETTE[f"snip, {ablation}"] for rung, ablation in RUNGS.items()}
    markers = {rung: methods.MARKERS[f"snip, {ablation}"] for rung, ablation in RUNGS.items()}
    figure = plots.points(gaps, "mask", colors, hue="shuffled", markers=markers, size=(4, 2.0))
    figure.axes[0].set_xlabel("points worse than its own masks, 98 % removed")
    return figure


def collapse_table(signals: pd.DataFrame) -> pd.DataFrame:
    """How many masks of each method failed, by share removed and method.

    Args:
        signals: one network's rows.

    Returns:
        DataFrame with "n"; "on a path, %", the mean share of the kept connections; and the number
        of networks that "have an empty layer", and that "collapsed" (an error above 88 %).
    """
    masks = methods.labelled(signals[signals.method != "dense, smaller"]).assign(n=1)
    masks["on a path, %"] = 100 * (1 - masks.effective_sparsity) / (1 - masks.sparsity)
    masks["have an empty layer"] = masks.empty_layers > 0
    masks["collapsed"] = masks.test_error > _COLLAPSED
    counted = dict.fromkeys(["n", "have an empty layer", "collapsed"], "sum")
    counted["on a path, %"] = "mean"
    table = masks.groupby(["removed, %", "mask"], observed=True).agg(counted)
    return table[["n", "on a path, %", "have an empty layer", "collapsed"]].round(1)


def latency_table(latency: pd.DataFrame) -> pd.DataFrame:
    """What ``costs.kernel_times`` gives, rounded, with a column a kernel."""
    rounded = latency.round({"microseconds": 1, "times as fast": 2})
    wide = rounded.pivot(index=["network", "batch"], columns="kernels")
    return wide.drop(columns=("times as fast", "masked"))  # 1: the others are compared with it


def answer_values(
    signals: pd.DataFrame, images: pd.DataFrame, biases: pd.DataFrame
) -> dict[str, pd.Series | str]:
    """The values of ``after_answer``.

    Args:
        signals, images: one network's rows each.
        biases: see the module.
    """

    def gap(first, second, sparsity):
        return comparisons.gap(signals, first, second, sparsity=sparsity)

    return {
        "force": gap("force", "snip", 0.98),
        "smaller": gap("dense, smaller", "snip", 0.98),
        "behind": gap("force", "dense, smaller", 0.98),
        "biases_80": smaller_minus_biases(signals, biases, 0.8),
        "biases_90": smaller_minus_biases(signals, biases, 0.9),
        "rewound_95": gap("dense, smaller", "magnitude, rewound", 0.95),
        "images": comparisons.gap(images, "dense, smaller", "snip", sparsity=0.98),
    }


def methods_values(signals: pd.DataFrame, biases: pd.DataFrame) -> dict[str, pd.Series]:
    """The values of ``after_methods``; the arguments are those of ``answer_values``."""

    def minus_snip(method, sparsity):
        return comparisons.gap(signals, method, "snip", sparsity=sparsity)

    kept = comparisons.rows(biases, method="snip, biases")
    return {
        "rewound": minus_snip("magnitude, rewound", 0.9),
        "rewound_98": minus_snip("magnitude, rewound", 0.98),
        "examples": minus_snip("snip, all", 0.98),
        "erk_80": minus_snip("erk", 0.8),
        "erk_90": minus_snip("erk", 0.9),
        "biases_80": comparisons.errors(kept, sparsity=0.8),
        "biases_90": comparisons.errors(kept, sparsity=0.9),
    }


def shuffled_values(table: pd.DataFrame) -> dict[str, pd.Series]:
    """The values of ``after_crossed``, at 98 %; the argument is that of ``shuffled_gaps``."""
    chosen = {
        "snip_layers": ("snip", "shuffle"),
        "synflow_layers": ("synflow", "shuffle"),
        "synflow_units": ("synflow", "shuffle-units"),
        "grasp_units": ("grasp", "shuffle-units"),
    }
    values = {}
    for name, (criterion, ablation) in chosen.items():
        method = f"{criterion}, {ablation}"
        values[name] = comparisons.gap(table, method, criterion, sparsity=0.98)
    return values


def kernel_values(latency: pd.DataFrame) -> dict[str, str]:
    """The values of ``after_kernels``: in how many rows a kernel is faster than the masked network.

    Args:
        latency: what ``costs.kernel_times`` gives.
    """
    values = {}
    for name, kernel in {"compact": "units left out", "csr": "CSR"}.items():
        ratios = latency[latency.kernels == kernel]["times as fast"]
        faster, rows = int((ratios > 1).sum()), len(ratios)
        total = _COUNTS.get(rows, str(rows))
        few = _COUNTS.get(faster, str(faster))
        values[f"{name}_wins"] = f"all {total}" if faster == rows else f"{few} of the {total}"
        if kernel == "units left out":
            values["faster"] = answers.Estimate(ratios).range
    return values
