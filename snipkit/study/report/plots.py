"""Pictures that pages share: named lines, lines with named points, points beside a baseline, bars.

seaborn draws them, with the study's interval. What is added is the same on every page: a name or a
baseline in place of a legend, plain numbers on logarithmic axes, a panel a setting.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure

from snipkit.study.report import charts, figures, methods, statistics

PAIR = ["#332288", "#56B4E9"]  # of what is no method, such as two networks
#: where names stand above the points of a method, in points of type; no others have names
OFFSETS = {"SNIP": -11, "random": 10, "SNIP's layer counts": 10}


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
        ax.set(xlabel="", ylabel="")
    if hue:
        figures.legend(axes)
        for ax in axes[:-1]:
            ax.legend().remove()
    return figure


def ours_and_printed(
    table: pd.DataFrame, y: str, band: float, height: float = 2.9, aspect: float = 1.25
):
    """Means against sparsity, of our runs and of the paper's: a panel a network.

    Args:
        table: a row a run, with the columns in words of ``report.labelled``, and "source": "ours"
            or "the paper's".
        y: the column on the axis.
        band: how far a grey band reaches to either side of 0.
        height, aspect: of a panel: inches, and width / height.

    Returns:
        seaborn's FacetGrid.
    """
    palette = {"ours": methods.PALETTE["snip"], "the paper's": "#767676"}
    grid = seaborn.relplot(
        table, kind="line", x="removed, %", y=y, col="network", hue="source", palette=palette,
        hue_order=palette, style="source", style_order=palette, markers=["o", "s"], dashes=False,
        errorbar=statistics.errorbar, err_style="bars", height=height, aspect=aspect,
    )  # fmt: skip
    for ax in grid.axes.flat:
        ax.axhspan(-band, band, color="0.93", zorder=-1)
    grid.legend.set_title("")
    return grid


def by_sparsity(table: pd.DataFrame, y: str, height: float = 2.8, aspect: float = 1.25):
    """Means at each sparsity, one as far from the next: a panel a network, a line a method.

    Args:
        table: a row a run, with the columns in words of ``report.labelled``.
        y: the column on the axis.
        height, aspect: of a panel: inches, and width / height.

    Returns:
        seaborn's FacetGrid.
    """
    markers = [methods.MARKERS[label] for label in table["mask"].cat.categories]
    grid = seaborn.catplot(
        table, kind="point", x="removed, %", y=y, col="network", hue="mask", markers=markers,
        palette=methods.PALETTE, errorbar=statistics.errorbar, linewidth=1.5,
        formatter="{:g}".format, sharex=False, height=height, aspect=aspect,
    )  # fmt: skip
    grid.legend.set_title("")
    return grid.set_titles("{col_name}")


def traced(
    means: pd.DataFrame,
    x: str,
    y: str,
    name: str,
    *,
    ticks: tuple[Sequence[float], Sequence[float]],
    offsets: Mapping[str, float] = OFFSETS,
    height: float = 3.2,
    aspect: float = 1.15,
):
    """One quantity against another, both logarithmic: a panel a network, a line a method.

    Args:
        means: a row a point, with the columns "network" and "mask" of ``report.labelled``.
        x, y: the columns on the axes.
        name: the column with the name of a point.
        ticks: of both axes.
        offsets: label of a method → how far above its points their names stand, in points of type.
            Those of the first method are written first. A later name that would touch one of them
            is left out.
        height, aspect: of a panel: inches, and width / height.

    Returns:
        seaborn's FacetGrid.
    """
    look = {"palette": methods.PALETTE, "markers": methods.MARKERS, "dashes": False, "ms": 7}
    grid = seaborn.relplot(
        means, kind="line", x=x, y=y, col="network", hue="mask", style="mask", height=height,
        aspect=aspect, **look,
    )  # fmt: skip
    for ax in grid.axes.flat:
        ax.margins(0.1, 0.12)  # room for the names
        for above, line in enumerate(reversed(ax.get_lines())):
            line.set_zorder(2 + above / 10)  # the first method on top
    charts.plain_log(grid.axes.flat, "x", ticks[0])
    charts.plain_log(grid.axes.flat, "y", ticks[1])
    grid.legend.set_title("")
    grid.set_titles("{col_name}").tight_layout()
    grid.figure.draw_without_rendering()  # so that the layout knows where the points are
    for network, ax in grid.axes_dict.items():
        _name_where_free(ax, means[means.network == network], (x, y, name), offsets)
    return grid


def _name_where_free(ax, means, columns, offsets, apart=18):
    """Names of points; none nearer to another than ``apart``, in points of type."""
    taken: list[np.ndarray] = []
    for mask, offset in offsets.items():
        color = methods.PALETTE[mask]
        rows = means.loc[means["mask"] == mask, list(columns)]
        for x, y, name in rows.itertuples(index=False):
            place = ax.transData.transform((x, y)) * 72 / ax.figure.dpi + [0, offset]
            if all(np.hypot(*(place - other)) >= apart for other in taken):
                taken.append(place)
                charts.name_points(
                    ax, [x], [y], [name], (0, offset), color=color, ha="center", va="center"
                )


def bars(
    table: pd.DataFrame,
    hue: str,
    xlabel: str,
    *,
    line: float | None = None,
    height: float = 2.5,
    aspect: float = 2.2,
):
    """Means as bars from the left, each with its number behind it and the study's interval.

    Args:
        table: a row a seed; every column but ``hue`` is a row of the picture.
        hue: the column of the bars in a row, at most two values.
        xlabel: what the lengths are.
        line: where a dotted line stands.
        height, aspect: inches, and width / height.

    Returns:
        seaborn's FacetGrid.
    """
    values = table.melt(hue, var_name="row", value_name=xlabel)
    palette = PAIR[: values[hue].nunique()]
    grid = seaborn.catplot(
        values, kind="bar", x=xlabel, y="row", hue=hue, palette=palette, height=height,
        aspect=aspect, errorbar=statistics.errorbar, err_kws={"linewidth": 1.5},
    )  # fmt: skip
    for of_hue in grid.ax.containers:
        grid.ax.bar_label(of_hue, fmt="%.1f", padding=9)
    if line is not None:
        grid.ax.axvline(line, color="black", lw=1, ls=":")
    grid.legend.set_title("")
    return grid.set(ylabel="")


def _in_order(column):
    """The values that occur, in the order of the categories or else of the rows."""
    occurring = list(dict.fromkeys(column.dropna()))
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [value for value in column.dtype.categories if value in occurring]
    return occurring
