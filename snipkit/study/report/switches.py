"""Half a factorial of four switches on the protocol of table 1: its errors, and their effects."""

import pandas as pd
import seaborn

from snipkit.study.report import figures, methods, statistics

#: a switch → the column of ``records.table`` and its value where the switch is on
SWITCHES = {
    "same draw": ("same_draw", True),
    "Glorot": ("training_init", "glorot"),
    "random biases": ("scoring_biases", "random"),
    "pixels in [0, 1]": ("pixels", "unit"),
}
CELLS = {"snip": 8, "dense": 4}  # of one seed and sparsity; a dense network has no scores
ALL_ON, ALL_OFF = "all four", "none"


def named(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column ``on``: the switches that are on in a run, such as "Glorot + …".

    Args:
        table: what ``records.table`` gives for ``ladder_runs.protocol_runs``.
    """
    names = []
    for _, run in table.iterrows():
        on = [name for name, (column, value) in SWITCHES.items() if run[column] == value]
        all_on = len(on) == len(SWITCHES)
        names.append(ALL_ON if all_on else " + ".join(on) or ALL_OFF)
    return table.assign(on=names)


def effects(table: pd.DataFrame) -> pd.DataFrame:
    """What each switch does: the mean error of the cells with it minus that of those without.

    Args:
        table: see ``named``.

    Returns:
        DataFrame with a row a switch, sparsity and seed: ``switch``, ``sparsity`` (0 for the dense
        network, which two of the switches touch), ``seed`` and ``effect``, in points. A seed whose
        cells are not all on record is left out.
    """
    rows = []
    for (method, sparsity, seed), cells in table.groupby(["method", "sparsity", "seed"]):
        if len(cells) < CELLS[method]:
            continue
        for name, (column, value) in SWITCHES.items():
            errors = cells.groupby(cells[column] == value).test_error.mean()
            if len(errors) == 2:
                rows.append((name, sparsity, seed, errors[True] - errors[False]))
    return pd.DataFrame(rows, columns=["switch", "sparsity", "seed", "effect"])


def draw(table: pd.DataFrame, printed: dict[float, float], explained: dict[float, float]):
    """The errors of each cell, a panel a sparsity: a dot a seed, a mean with its 95 % interval.

    Args:
        table: what ``named`` gave.
        printed: sparsity → the paper's error, a black line. Its panels are drawn, in this order.
        explained: sparsity → up to which error the cell would explain it: a grey area.

    Returns:
        The matplotlib figure.
    """
    pruned = table[table.method == "snip"]
    order = list(dict.fromkeys(pruned.on))
    figure, axes = figures.panels([f"{100 * sparsity:g} % removed" for sparsity in printed], 3.4, 3)
    color = methods.PALETTE["snip"]
    for ax, (sparsity, error) in zip(axes, printed.items()):
        cells = pruned[pruned.sparsity == sparsity]
        look = {"x": "test_error", "y": "on", "order": order, "color": color, "ax": ax}
        seaborn.stripplot(cells, size=3, alpha=0.5, jitter=False, **look)
        seaborn.pointplot(
            cells, linestyle="none", errorbar=statistics.errorbar, err_kws={"linewidth": 1.2},
            markersize=5, **look,
        )  # fmt: skip
        ax.axvline(error, color="black", lw=1, label="printed")
        left = min(ax.get_xlim()[0], error - 0.1)
        ax.axvspan(left, explained[sparsity], color="0.9", zorder=0, label="would explain it")
        ax.set(xlim=(left, None), xlabel="test error, % (left: better)", ylabel="")
    axes[0].set_ylabel("what is switched on")
    for ax in axes[1:]:
        ax.set_yticklabels([])
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
