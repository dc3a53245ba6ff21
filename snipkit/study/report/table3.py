"""Table 3 of the paper, four ways to draw the scored weights: its runs, its errors beside ours."""

from collections.abc import Mapping
from functools import partial

import pandas as pd
import seaborn
from matplotlib.lines import Line2D

from snipkit.study import paper
from snipkit.study.report import charts, comparisons, grids, methods, statistics
from snipkit.study.train.runs import Run

SPARSITY = 0.9
#: value of ``Run.scoring_init`` → its name in pictures, in the order of the paper's table
INITS = {"normal": "normal", "truncated-normal": "trunc. normal", "glorot": "Glorot", "he": "He"}


def planned(settings: Mapping[str, Mapping]) -> list[Run]:
    """SNIP's masks of weights drawn in four ways. What is trained is always a Glorot draw.

    Args:
        settings: network → fields of ``Run``, and ``seeds``, as ``grids.planned`` takes them.
    """
    drawn_from = [{"scoring_init": init} for init in INITS]
    runs = []
    for model, fields in settings.items():
        common = dict(fields) | {"model": model, "training_init": "glorot"}
        runs += grids.planned(common, "snip", SPARSITY, vary=drawn_from)
    return runs


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """``methods.labelled``, with a column "weights": how the scored weights were drawn, in words.

    Args:
        table: runs of this table, or what ``against_glorot`` is made from.
    """
    return methods.labelled(table).assign(weights=table.scoring_init.map(INITS))


def printed() -> pd.DataFrame:
    """The errors that the paper prints, with the columns of ``labelled``."""
    numbers = paper.table("table3").rename(columns={"error_mean": "test error, %"})
    return labelled(numbers)


def against_glorot(table: pd.DataFrame) -> pd.DataFrame:
    """By how many points each way of drawing is worse than Glorot's, seed by seed: ``labelled``.

    Args:
        table: one row a run of this table.
    """
    return labelled(comparisons.gaps(table, "glorot", of="scoring_init"))


def runs_beside_printed(runs: pd.DataFrame, printed: pd.DataFrame, y: str, digits: int = 2):
    """Test errors of single runs and their means, beside printed means: a panel a network.

    A pale dot is a run, the bar below it the mean with its 95 % interval, and the black square the
    printed mean. Both means stand as numbers at the right of each row, each in its mark's colour.

    Args:
        runs, printed: with ``network``, ``test error, %`` and ``y``, which makes the rows.
        digits: decimals of the numbers.

    Returns:
        seaborn's FacetGrid; each panel has its own axis of errors, logarithmic where some are ten
        times as large as others.
    """
    error, color = "test error, %", methods.PALETTE["snip"]
    order = list(dict.fromkeys(runs[y]))
    axes = {"x": error, "y": y, "order": order}
    grid = seaborn.catplot(
        runs, kind="strip", col="network", color=color, jitter=False, alpha=0.4, size=4.5,
        sharex=False, height=2.9, aspect=1.12, **axes,
    )  # fmt: skip
    for network, ax in grid.axes_dict.items():
        ours = runs[runs.network == network]
        theirs = printed[printed.network == network]
        for dots in ax.collections:  # above the mean, so that both are seen
            dots.set_offsets(dots.get_offsets() - [0, 0.22])
        seaborn.pointplot(
            ours, color=color, marker="|", markersize=10, markeredgewidth=2, linestyle="none",
            errorbar=statistics.errorbar, err_kws={"linewidth": 1.5}, ax=ax, **axes,
        )  # fmt: skip
        squares = [theirs[theirs[y] == row][error].mean() for row in order]
        ax.plot(squares, [place + 0.25 for place in range(len(order))], "ks", ms=4.5)
        for place, (row, mean) in enumerate(zip(order, squares)):
            mean_of_ours = statistics.cell(ours[ours[y] == row][error].dropna(), digits)
            where = {"xy": (1.03, place), "xycoords": ax.get_yaxis_transform()}
            ax.annotate(mean_of_ours, **where, va="bottom", color=color)
            ax.annotate(f"{mean:.{digits}f}", **where, va="top", color="black")
        for place in range(len(order) - 1):
            ax.axhline(place + 0.5, color="0.85", lw=0.8, zorder=0)
        ax.set(title=network, ylabel="", ylim=(len(order) - 0.5, -0.5))
        if ours[error].max() > 10 * ours[error].min():
            charts.plain_log([ax], "x", charts.ERROR_TICKS)
            ax.set_title(f"{network} (logarithmic axis)")
    mark = partial(Line2D, [], [], ls="none")
    handles = [
        mark(color=color, marker="o", ms=4.5, alpha=0.4, label="ours, one run"),
        mark(color=color, marker="|", ms=10, mew=2, label="ours, mean (blue number)"),
        mark(color="black", marker="s", ms=4.5, label="printed mean (black number)"),
    ]
    columns, top = (3, 0.92) if len(grid.axes_dict) > 1 else (1, 0.78)  # one panel is narrow
    grid.figure.legend(handles=handles, loc="upper center", ncols=columns)
    return grid.tight_layout(rect=(0, 0, 1, top), w_pad=1.5)
