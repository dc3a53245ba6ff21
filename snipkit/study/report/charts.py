"""Statistical pictures that more than one page draws, in the study's colours and intervals."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import seaborn
from matplotlib.ticker import NullLocator

from snipkit.study.report import figures, methods, statistics

ERROR_TICKS = (1, 2, 5, 10, 20, 50, 90)  # per cent, on a logarithmic axis
LIGHT = "#89BEDC"  # a lighter shade of SNIP's blue
SHADES = [LIGHT, "#0173B2", "#08306B"]  # the more is removed, the darker
NAMED_LAYERS = 4  # as many names have room below a panel
GUESSING = 90  # test error of a guess among ten classes, in per cent


def error_curves(table: pd.DataFrame, height: float = 3.2, width: float = 6.08):
    """Test error against sparsity: a panel a network, a line a method with its 95 % interval.

    The dense network and a guess are dotted lines. The error is on a logarithmic axis. The legend
    is a line above the panels, so that the picture stays legible at half the width of a page.

    Args:
        table: one row a run, as ``records.table`` gives them, with the dense runs.
        height, width: of the picture, in inches. One panel alone is as wide as two, for the legend.

    Returns:
        seaborn's FacetGrid.
    """
    pruned = methods.labelled(table[table.sparsity > 0].sort_values("sparsity"))
    pruned["% removed"] = pruned["removed, %"].map("{:g}".format)
    aspect = width / height / pruned.network.nunique()
    grid = seaborn.relplot(
        pruned, kind="line", x="% removed", y="test error, %", col="network", height=height,
        aspect=aspect, facet_kws={"sharex": False, "legend_out": False}, **methods.LINES,
    )  # fmt: skip
    for network, ax in grid.axes_dict.items():
        of_network = table[table.model.map(figures.NETWORKS) == network]
        dense = of_network[of_network.method == "dense"].test_error.mean()
        for error, label, place in ((dense, "dense", -10), (GUESSING, "a guess", 3)):
            ax.axhline(error, color=methods.PALETTE["dense"], lw=1, ls=":", zorder=0)
            # From the left edge of the panel: the curves are far from both lines there, or above.
            ax.annotate(
                label, (0, error), (3, place), xycoords=ax.get_yaxis_transform(),
                textcoords="offset points",
            )  # fmt: skip
        ax.set_title(figures.title(of_network))
    plain_log(grid.axes.flat, "y", ERROR_TICKS)
    grid.set(ylim=(0.4, 130))
    grid.tight_layout(rect=(0, 0, 1, 0.91))
    above = {"loc": "upper center", "bbox_to_anchor": (0.5, 1), "ncol": 4, "columnspacing": 1.2}
    seaborn.move_legend(grid, **above, title="", frameon=False)
    return grid


def gap_rows(gaps: pd.DataFrame, linear: float | None = None, ticks=None):
    """Differences seed by seed: a panel a network, a row a sparsity.

    A dot is a seed, the line across a row the mean, and the bar its 95 % interval.

    Args:
        gaps: what ``comparisons.gaps`` gives, through ``methods.labelled``.
        linear: up to this size, to either side of 0, the axis is linear, beyond it logarithmic.
            None: linear throughout.
        ticks: of the axis of differences.

    Returns:
        seaborn's FacetGrid.
    """
    height = 0.8 + 0.3 * gaps.groupby("network", observed=True)["removed, %"].nunique().max()
    gaps = gaps.assign(removed=gaps["removed, %"].map("{:g} % removed".format))
    shape = {"x": "gap", "y": "removed", "hue": "mask", "palette": methods.PALETTE}
    grid = seaborn.catplot(
        gaps, kind="strip", col="network", jitter=False, alpha=0.45, size=5.5, legend=False,
        sharey=False, height=height, aspect=3.6 / height, **shape,
    )  # fmt: skip
    for network, ax in grid.axes_dict.items():
        seaborn.pointplot(
            gaps[gaps.network == network], errorbar=statistics.errorbar, linestyle="none",
            marker="|", markersize=11, err_kws={"linewidth": 1.5}, legend=False, ax=ax, **shape,
        )  # fmt: skip
        ax.axvline(0, color="black", lw=0.8)
    # The panels share this axis. On an axis that is logarithmic already, seaborn would take the
    # means and intervals of the logarithms. So the scale comes when all panels are drawn.
    for ax in grid.axes.flat:
        if linear is not None:
            ax.set_xscale("symlog", linthresh=linear)
            ax.autoscale(axis="x")  # its limits were those of a linear axis
        if ticks is not None:
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    grid.set_titles("{col_name}").set_axis_labels("difference, points", "")
    return grid.tight_layout()


def layer_boxes(scores: pd.DataFrame, sparsity: float):
    """The scores of each layer as a box, on a logarithmic axis: a panel a network.

    The box holds the middle half, the whiskers end at 1 and 99 %. A dotted line is the threshold:
    the share ``sparsity`` of all scores is lower.

    Args:
        scores: what ``tables.layer_scores`` gives, of several networks (``tables.stacked``).

    Returns:
        seaborn's FacetGrid, the smallest layer of each network on top.
    """
    positive = scores[scores.score > 0].sort_values(["network", "weights"])
    grid = seaborn.catplot(
        positive, kind="box", x="score", y="layer_and_size", col="network", log_scale=True,
        sharey=False, whis=(1, 99), showfliers=False, color=LIGHT, height=2.2, aspect=1.9,
    )  # fmt: skip
    for network, ax in grid.axes_dict.items():
        threshold = scores[scores.network == network].score.quantile(sparsity)
        ax.axvline(threshold, color="black", ls=":")
    grid.set_titles(f"{{col_name}}; dotted: {100 * sparsity:g} % are lower")
    grid.set_axis_labels("score (box: middle half; whiskers: 1 to 99 %)", "")
    return grid.tight_layout()


def layer_dots(shares: pd.DataFrame, percent: float, hue: str = "mask", palette=None, marks=None):
    """How much of each layer is kept: a panel a network, a row a layer, a dot a value of ``hue``.

    Args:
        shares: what ``tables.layer_shares`` gives, of several masks (``tables.stacked``).
        percent: what is kept of the whole network, a dotted line.
        hue: the column that the dots differ by.
        palette, marks: a colour and a marker for each value of ``hue``. None: those of the methods.

    Returns:
        seaborn's FacetGrid; layers are in the order of the table.
    """
    if marks is None:
        marks = [methods.MARKERS[label] for label in shares["mask"].cat.categories]
    grid = seaborn.catplot(
        shares, kind="point", x="percent", y="layer_and_size", col="network", hue=hue,
        palette=palette or methods.PALETTE, markers=marks, linestyle="none",
        dodge=shares[hue].nunique() > 1 and 0.5,
        errorbar=None, markersize=5, sharey=False, height=2.5, aspect=1.7,
    )  # fmt: skip
    for ax in grid.axes.flat:
        ax.axvline(percent, color="black", lw=1, ls=":", zorder=0)
        ax.set_xscale("symlog", linthresh=0.1, linscale=0.4)
        ticks = [0, 0.1, 1, 10, 100]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_xlim(-0.02, 150)
    grid.legend.set_title("")
    grid.set_titles("{col_name}")
    grid.set_axis_labels(f"% of the layer kept (dotted: {percent:g} % of the network)", "")
    return grid


def layer_lines(shares: pd.DataFrame, notes: Mapping[str, str] | None = None, wrap: int = 3):
    """How much of each layer is kept, from the input to the output: a panel a network.

    A line a sparsity, darker where more is removed. The axis is logarithmic above 0.01 %, and has a
    place for 0: an empty layer. Where there are up to ``NAMED_LAYERS`` layers their names stand
    below them, else their numbers.

    Args:
        shares: what ``tables.layer_shares`` gives, of masks of several networks and sparsities
            (``tables.stacked`` by "model" and "sparsity").
        notes: network → a remark for the title of its panel.
        wrap: panels in a line.

    Returns:
        seaborn's FacetGrid.
    """
    shares = shares.assign(removed=shares["removed, %"].map("{:g} % removed".format))
    networks = shares.network.cat.remove_unused_categories()
    grid = seaborn.relplot(
        shares.assign(network=networks), kind="line", x="place", y="percent", col="network",
        hue="removed", style="removed", palette=SHADES[: shares.removed.nunique()],
        markers=["o", "s", "D"][: shares.removed.nunique()], dashes=False, markersize=5,
        col_wrap=wrap, height=2.0, aspect=1.3, facet_kws={"sharex": False},
    )  # fmt: skip
    for network, ax in grid.axes_dict.items():
        note = (notes or {}).get(network)
        ax.set_title(f"{network} ({note})" if note else network)
        ax.set_yscale("symlog", linthresh=0.01, linscale=0.5)
        ax.set_yticks([0, 0.01, 0.1, 1, 10, 100], ["0", "0.01", "0.1", "1", "10", "100"])
        layers = shares[shares.network == network].drop_duplicates("place")
        if len(layers) <= NAMED_LAYERS:
            ax.set_xticks(layers.place, layers.layer)
        else:
            ax.xaxis.get_major_locator().set_params(integer=True)
    grid.legend.set_title("")
    grid.set(ylim=(-0.001, 200))
    grid.set_axis_labels("layer, from the input", "% of the layer kept")
    return grid.tight_layout(w_pad=1.5)


def size_law(layers: pd.DataFrame):
    """The rms score of each layer against its size, with the line C/√m: a panel a network.

    Args:
        layers: one row a layer, with ``network``, ``layer``, ``weights`` and ``rms``.

    Returns:
        seaborn's FacetGrid; C is the mean of rms·√m over the layers.
    """
    grid = seaborn.relplot(
        layers, x="weights", y="rms", col="network", s=60, height=2.6, aspect=1.45
    )
    for network, ax in grid.axes_dict.items():
        part = layers[layers.network == network].sort_values("weights")
        constant = (part.rms * part.weights**0.5).mean()
        ax.plot(part.weights, constant / part.weights**0.5, "k:", zorder=0)
        name_points(ax, part.weights, part.rms, part.layer)
    grid.set(xscale="log", yscale="log")
    low, high = grid.axes.flat[0].get_xlim()
    grid.set(xlim=(low, 4 * high), ylim=(None, 1.6 * layers.rms.max()))  # room for the names
    grid.set_titles("{col_name}; dotted: C / √m")
    grid.set_axis_labels("weights in the layer, m", "typical score (rms)")
    return grid.tight_layout()


def against_equality(table: pd.DataFrame, x: str, y: str, hue: str, palette, unit: str):
    """``y`` against ``x`` on logarithmic axes, with a dotted line where they are equal.

    A panel a network, a dot a row.

    Args:
        table: with the columns ``network``, ``x``, ``y`` and ``hue``; rows with a 0 are not drawn.
        palette: value of ``hue`` → colour, in drawing order.
        unit: of both axes.

    Returns:
        seaborn's FacetGrid.
    """
    positive = table[(table[x] > 0) & (table[y] > 0)]
    grid = seaborn.relplot(
        positive, x=x, y=y, col="network", hue=hue, style=hue, hue_order=palette, palette=palette,
        s=22, height=2.8, aspect=1.25,
    )  # fmt: skip
    low, high = positive[[x, y]].min().min(), positive[[x, y]].max().max()
    for ax in grid.axes.flat:
        ax.plot([low, high], [low, high], color="black", ls=":", zorder=0)
    grid.legend.set_title("")
    grid.set(xscale="log", yscale="log").set_titles("{col_name}; dotted: equal")
    grid.set_axis_labels(f"{x}, {unit}", f"{y}, {unit}")
    return grid.tight_layout()


def write_means(grid, table: pd.DataFrame, x: str, y: str, col: str, digits: int = 1) -> None:
    """Write "mean ± half the 95 % interval" at the right of each row of a grid's panels.

    Args:
        grid: seaborn's FacetGrid, with a panel a value of ``col`` and a row a value of ``y``.
        table: what was drawn: a row a seed.
        x, y, col: its columns; ``y`` in categories, whose order is that of the rows.
        digits: decimals.
    """
    for name, ax in grid.axes_dict.items():
        panel = table[table[col] == name]
        for place, row in enumerate(table[y].cat.categories):
            text = statistics.cell(panel[panel[y] == row][x].dropna(), digits)
            where = {"xycoords": ax.get_yaxis_transform(), "va": "center", "annotation_clip": False}
            ax.annotate(text, (1.02, place), **where)


def plain_log(axes: Iterable, which: str, ticks: Sequence[float]) -> None:
    """Make an axis logarithmic, with these ticks and plain numbers beside them.

    Args:
        axes: matplotlib's axes, such as ``grid.axes.flat``. Draw on them first: where an axis is
            logarithmic already, seaborn takes the mean of the logarithms.
        which: "x" or "y".
    """
    for ax in axes:
        ax.set(**{f"{which}scale": "log"})
        ax.set(**{f"{which}ticks": ticks, f"{which}ticklabels": [f"{tick:g}" for tick in ticks]})
        (ax.xaxis if which == "x" else ax.yaxis).set_minor_locator(NullLocator())


def name_points(ax, x, y, names, offset: tuple[float, float] = (6, 2), **look) -> None:
    """Write a name beside each point, in place of a legend; ``offset`` is in points of type."""
    for *point, name in zip(x, y, names):
        ax.annotate(name, point, offset, textcoords="offset points", **look)
