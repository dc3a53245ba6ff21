"""Half a factorial of four switches on the protocol of table 1: its errors, and their effects."""

import pandas as pd
import seaborn

from snipkit.study.report import answers, comparisons, figures, methods, statistics

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
    groups = table.groupby(["method", "sparsity", "seed"]) if len(table) else []
    for (method, sparsity, seed), cells in groups:
        if len(cells) < CELLS[method]:
            continue
        for name, (column, value) in SWITCHES.items():
            errors = cells.groupby(cells[column] == value).test_error.mean()
            if len(errors) == 2:
                rows.append((name, sparsity, seed, errors[True] - errors[False]))
    return pd.DataFrame(rows, columns=["switch", "sparsity", "seed", "effect"])


def values(table: pd.DataFrame) -> dict[str, object]:
    """The numbers of ``notebooks/answers/rq2_switches.md``, for ``answers.fill``.

    Args:
        table: what ``named`` gave.

    Returns:
        Errors of the cell with the lowest mean, ``best_98`` and ``best_90``; ``usual_98``, the
        errors without any switch; ``dense``, the mean errors of the dense networks; the effect of
        each switch at 98 %, such as ``same_draw_98``; and ``pixels_0``, that of pixels in [0, 1] on
        the dense network.
    """
    numbers: dict[str, object] = {}
    for sparsity in (0.98, 0.9):
        cells = comparisons.rows(table, method="snip", sparsity=sparsity)
        best = cells.groupby("on").test_error.mean().idxmin() if len(cells) else ALL_OFF
        numbers[f"best_{100 * sparsity:.0f}"] = comparisons.errors(cells, on=best)
    numbers["usual_98"] = comparisons.errors(table, method="snip", sparsity=0.98, on=ALL_OFF)
    dense = comparisons.rows(table, method="dense")
    means = dense.groupby("on").test_error.mean() if len(dense) else pd.Series(dtype=float)
    numbers["dense"] = answers.Estimate(means, 2)
    of_switches = effects(table)
    for name, (column, _) in SWITCHES.items():
        at_98 = comparisons.rows(of_switches, switch=name, sparsity=0.98)
        numbers[f"{column}_98"] = answers.Estimate(at_98.effect, 2)
    dense = comparisons.rows(of_switches, switch="pixels in [0, 1]", sparsity=0.0)
    numbers["pixels_0"] = answers.Estimate(dense.effect, 2)
    return numbers


def draw(table: pd.DataFrame, printed: dict[float, float], explained: dict[float, float]):
    """The errors of each cell, a panel a sparsity: a dot a seed, a mean with its 95 % interval.

    Args:
        table: what ``named`` gave.
        printed: sparsity → the paper's error, a black line. Its panels are drawn, in this order.
        explained: sparsity → up to which error the cell would explain it: a grey area.

    Returns:
        The matplotlib figure.
    """
    pruned = comparisons.rows(table, method="snip")
    order = list(dict.fromkeys(pruned.on))
    figure, axes = figures.panels([f"{100 * sparsity:g} % removed" for sparsity in printed], 3.4, 3)
    color = methods.PALETTE["snip"]
    for ax, (sparsity, error) in zip(axes, printed.items()):
        ax.axvline(error, color="black", lw=1, label="printed")
        cells = comparisons.rows(pruned, sparsity=sparsity)
        if not len(cells):
            continue
        look = {"x": "test_error", "y": "on", "order": order, "color": color, "ax": ax}
        look["legend"] = False
        seaborn.stripplot(cells, size=3, alpha=0.5, jitter=False, **look)
        seaborn.pointplot(
            cells, linestyle="none", errorbar=statistics.errorbar, err_kws={"linewidth": 1.2},
            markersize=5, **look,
        )  # fmt: skip
        left = min(ax.get_xlim()[0], error - 0.1)
        ax.axvspan(left, explained[sparsity], color="0.9", zorder=0, label="would explain it")
        ax.set(xlim=(left, None), xlabel="test error, % (left: better)", ylabel="")
        ax.tick_params(labelleft=ax is axes[0])
    axes[0].set_ylabel("what is switched on")
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
