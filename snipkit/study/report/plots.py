"""Lines with their names at the end, points beside a baseline, and runs beside printed means.

seaborn draws them, with the study's interval. What is added is the same on every page: a name or a
baseline in place of a legend, plain numbers on logarithmic axes, a panel a setting.
"""

from collections.abc import Collection, Mapping

import pandas as pd
import seaborn
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from snipkit.study.report import charts, figures, methods, statistics


def curves(
    table: pd.DataFrame,
    x: str,
    y: str,
    line: str,
    colors: Mapping[str, str],
    *,
    col: str,
    title: str = "{}",
    markers: Mapping[str, str] | None = None,
    errorbar=statistics.errorbar,
    band: bool = False,
    counts: Collection[int] = (),
    names: Mapping[int, str] | None = None,
    zero: bool = False,
    size: tuple[float, float] = (2.8, 2.9),
    **panel_options,
) -> Figure:
    """Means against ``x``: a panel a setting, and a line a group, named where it ends.

    Args:
        table: a row a value; no value of a run that diverged (``report.labelled`` blanks them).
        x, y: the columns on the axes.
        line: the column that makes lines.
        colors: value of ``line`` → its colour.
        col: the column that makes panels, in the order of its values.
        title: of a panel, a format for its value, such as ``"{:g} % removed"``.
        markers: value of ``line`` → its marker; None: discs.
        errorbar: see seaborn's ``lineplot``.
        band: whether the interval is a band; else a bar a mean.
        counts: where x has ticks, on a logarithmic axis; (): a linear one, with ticks at the data.
        names: count → what its tick says in place of it.
        zero: whether to draw the line y = 0, of a baseline that was subtracted.
        size: width and height of a panel, in inches.
        panel_options: for ``figures.panels``, such as ``sharey=True``.
    """
    values = sorted(set(table[col]))
    figure, axes = figures.panels([title.format(value) for value in values], *size, **panel_options)
    figure.set_figwidth(len(values) * (size[0] + 1.2))  # room for names
    for ax, value in zip(axes, values):
        part = table[table[col] == value]
        lines = [name for name in colors if (part[line] == name).any()]
        if zero:
            ax.axhline(0, color="black", lw=0.8, ls=":")
        seaborn.lineplot(
            part,
            x=x,
            y=y,
            hue=line,
            hue_order=lines,
            palette=dict(colors),
            style=line,
            style_order=lines,
            markers=dict(markers or dict.fromkeys(lines, "o")),
            dashes=False,
            errorbar=errorbar,
            err_style="band" if band else "bars",
            legend=False,
            ax=ax,
        )
        if counts:
            present = [count for count in counts if (part[x] == count).any()]
            figures.log_counts(ax, present, names or {})
        else:
            ax.set_xticks(sorted(set(part[x])))
    for ax in axes:
        figures.label_lines(ax, colors)
    return figure


def points(
    table: pd.DataFrame,
    y: str,
    colors: Mapping[str, str],
    *,
    hue: str | None = None,
    col: str | None = None,
    title: str = "{}",
    markers: Mapping[str, str] | None = None,
    order: Collection[str] | None = None,
    hollow: Collection[str] = (),
    baseline: str = "black",
    seeds: bool = False,
    size: tuple[float, float] = (1.7, 3.0),
    **panel_options,
) -> Figure:
    """Mean differences to a baseline, which is the line at 0, with the study's interval.

    Args:
        table: what ``report.gaps`` gives, or a part of it: the column "gap" is on the axis.
        y: the column that makes rows.
        colors: value of ``hue``, or else of ``y``, → its colour.
        hue: a column whose values stand in one row, one above the other, with a legend.
        col: the column that makes panels.
        title: of a panel, a format for its value.
        markers: value of ``hue``, or else of ``y``, → its marker; None: discs.
        order: the rows from top to bottom; None: as in the table, or in the order of categories.
        hollow: values of ``hue``, or else of ``y``, whose marks are not filled.
        baseline: the colour of the line at 0.
        seeds: whether to draw each seed, pale, below its mean.
        size: width and height of a panel, in inches.
        panel_options: for ``figures.panels``; by default panels share both axes.
    """
    values = [None] if col is None else sorted(set(table[col]))
    titles = ["" if value is None else title.format(value) for value in values]
    shared = {"sharey": True, "sharex": True}
    figure, axes = figures.panels(titles, *size, **shared | panel_options)
    rows = _in_order(table[y]) if order is None else list(order)
    groups = rows if hue is None else _in_order(table[hue])
    for ax, value in zip(axes, values):
        part = table if value is None else table[table[col] == value]
        place = {"x": "gap", "y": y, "order": rows, "ax": ax}
        color = {"hue": hue or y, "hue_order": groups, "palette": dict(colors)}
        ax.axvline(0, color=baseline, lw=1.2)
        if seeds:
            seaborn.stripplot(part, **place, **color, alpha=0.4, jitter=False, legend=False)
            for dots in ax.collections:  # below the interval, so that both are seen
                dots.set_offsets(dots.get_offsets() + [0, 0.2])
        seaborn.pointplot(
            part,
            **place,
            **color,
            markers=[(markers or {}).get(name, "o") for name in groups],
            markersize=5,
            markeredgewidth=0.5,
            linewidth=1.5,
            linestyle="none",
            errorbar=statistics.errorbar,
            dodge=0.3 if hue else False,
            legend="full" if hue else False,
        )
        for name in hollow:
            for mark in ax.lines:
                if same_color(mark.get_color(), colors[name]):
                    mark.set(
                        markerfacecolor="white", markeredgecolor=colors[name], markeredgewidth=1
                    )
        ax.set(xlabel="", ylabel="")
    if hue:
        figures.legend(axes)
        for ax in axes[:-1]:
            ax.legend().remove()
    return figure


def runs_beside_printed(runs: pd.DataFrame, printed: pd.DataFrame, y: str, digits: int = 2):
    """Test errors of single runs and their means, beside printed means: a panel a network.

    A pale dot is a run, the bar below it the mean with its 95 % interval, and the black square the
    printed mean. Both means stand as numbers at the right of each row.

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
            text = f"{mean_of_ours}\n{mean:.{digits}f}"
            ax.annotate(text, (1.03, place), xycoords=ax.get_yaxis_transform(), va="center")
        for place in range(len(order) - 1):
            ax.axhline(place + 0.5, color="0.85", lw=0.8, zorder=0)
        ax.set(title=network, ylabel="", ylim=(len(order) - 0.5, -0.5))
        if ours[error].max() > 10 * ours[error].min():
            charts.plain_log([ax], "x", charts.ERROR_TICKS)
            ax.set_title(f"{network} (logarithmic axis)")
    marks = {"color": color, "ls": "none"}
    handles = [
        Line2D([], [], marker="o", ms=4.5, alpha=0.4, label="ours, one run", **marks),
        Line2D([], [], marker="|", ms=10, mew=2, label="ours, mean (upper number)", **marks),
        Line2D([], [], color="black", marker="s", ms=4.5, ls="none", label="printed mean (lower)"),
    ]
    columns, top = (3, 0.92) if len(grid.axes_dict) > 1 else (1, 0.78)  # one panel is narrow
    grid.figure.legend(handles=handles, loc="upper center", ncols=columns)
    return grid.tight_layout(rect=(0, 0, 1, top), w_pad=1.5)


def _in_order(column):
    """The values that occur, in the order of the categories or else of the rows."""
    occurring = list(dict.fromkeys(column.dropna()))
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [value for value in column.dtype.categories if value in occurring]
    return occurring
