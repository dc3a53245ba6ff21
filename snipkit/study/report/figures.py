"""Figures and tables: one style, what notebooks share, and in every file what it was drawn from."""

import hashlib

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from PIL import Image, PngImagePlugin

import snipkit
from snipkit._files import replacing
from snipkit.study import paths
from snipkit.study.report import statistics

#: on top of seaborn's theme: nine points, one font on every machine, the same files each time
STYLE = {
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.dpi": 100,
    "font.sans-serif": [
        "DejaVu Sans"
    ],  # seaborn's first choice is Arial, which not every machine has
    "font.size": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.title_fontsize": 9,
    "savefig.dpi": 150,
    "svg.hashsalt": "snipkit",  # without it the ids in an SVG differ at every save
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}
#: network → its name in legends
NETWORKS = {
    "lenet-300-100": "LeNet-300-100", "lenet-5-caffe": "LeNet-5-Caffe",
    "alexnet-s": "AlexNet-s", "alexnet-b": "AlexNet-b", "vgg-c": "VGG-C", "vgg-d": "VGG-D",
    "vgg-like": "VGG-like", "resnet-20": "ResNet-20", "wrn-16-8": "WRN-16-8",
    "wrn-16-10": "WRN-16-10", "wrn-22-8": "WRN-22-8",
    "mlp-1d": "MLP, MNIST-1D", "cnn-1d": "CNN, MNIST-1D",
    "lstm-s": "LSTM-s", "lstm-b": "LSTM-b", "gru-s": "GRU-s", "gru-b": "GRU-b",
}  # fmt: skip


def use_style() -> None:
    """Set seaborn's theme to the study's (colours that colour-blind readers can tell apart)."""
    seaborn.set_theme(context="paper", style="ticks", palette="colorblind", rc=STYLE)


def panels(titles, width=3.6, height=3.0, **options):
    """A figure with one panel a title, side by side, and room for a legend; and its axes."""
    size = 1.6 + width * len(titles), height
    figure, axes = plt.subplots(
        1, len(titles), figsize=size, squeeze=False, layout="constrained", **options
    )
    for ax, title in zip(axes[0], titles):
        ax.set_title(title)
    return figure, list(axes[0])


def legend(axes) -> None:
    """One legend of all the panels, to the right of the last."""
    handles = {
        label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())
    }
    axes[-1].legend(handles.values(), handles, loc="center left", bbox_to_anchor=(1.0, 0.5))


def log_counts(ax, counts, names=()) -> None:
    """A logarithmic axis of whole numbers, with each of them in full: 1, 10, 1,000.

    Call it when all is drawn.

    Args:
        counts: where the ticks are.
        names: count → what stands there in place of it, such as "all".
    """
    labels = [dict(names).get(count, f"{count:,}") for count in counts]
    ax.set_xscale("log")
    ax.set_xticks(list(counts), labels)
    ax.minorticks_off()


def label_lines(ax, colors) -> None:
    """The name of each line at its right end, in its colour, in place of a legend.

    Labels that would overlap are moved apart. Call it when limits and scales are set.

    Args:
        colors: label → the colour of its line.
    """
    ax.figure.draw_without_rendering()  # so that the layout knows where the lines end
    ends = []
    for label, color in colors.items():
        for line in ax.get_lines():
            points = np.asarray(line.get_xydata(), float)
            points = points[np.isfinite(points).all(1)]
            if len(points) > 1 and mpl.colors.same_color(line.get_color(), color):
                ends.append((ax.transData.transform(points[-1]), label, color))
                break
    ends.sort(key=lambda end: end[0][1])
    line_height = 1.5 * mpl.rcParams["font.size"] * ax.figure.dpi / 72
    lowest = -np.inf
    for (x, y), label, color in ends:
        place = max(y, lowest)
        lowest = place + line_height
        points_up = (place - y) * 72 / ax.figure.dpi
        ax.annotate(
            label,
            ax.transData.inverted().transform((x, y)),
            (6, points_up),
            textcoords="offset points",
            va="center",
            color=color,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            annotation_clip=False,
        )


def title(rows) -> str:
    """Name, number of seeds and steps of one network, from its rows of ``records.table``."""
    seeds = counted(rows.groupby(["method", "sparsity"]).size())
    return f"{NETWORKS[rows.model.iloc[0]]} ({seeds}, {rows.steps.max():,} steps)"


def counted(counts) -> str:
    """How many seeds: "n = 3" or "n = 2 to 6", from the counts of all the groups that are shown."""
    sizes = sorted({int(count) for count in counts if count})
    return "n = " + " to ".join(map(str, sizes[:1] + sizes[1:][-1:])) if sizes else "n = 0"


def draw_losses(curves, by, **look):
    """The paper's training curves and ours side by side, with a line at the loss of guessing.

    Args:
        curves: from ``comparisons.beside_the_paper``.
        by: the column that tells the curves apart.
        look: further options of ``seaborn.relplot``, such as the palette.

    Returns:
        The matplotlib figure.
    """
    picture = seaborn.relplot(
        curves, kind="line", x="% of the training", y="training loss, nats", hue=by, col="source",
        errorbar=statistics.errorbar, height=2.9, aspect=1.15, **look,
    )  # fmt: skip
    guessing = np.log(10)  # among ten classes
    picture.refline(y=guessing, color="0.6", linestyle=":")
    picture.axes.flat[0].text(100, guessing + 0.05, "guessing, ln 10", ha="right", color="0.35")
    return picture.set_titles("{col_name}").set(ylim=(0, 2.6)).figure


def seeds_and_means(table, x, y, ax, order=None, color="#332288", baseline=None, digits=2) -> None:
    """A row per value of ``y``: a small dot per seed, and the mean with its 95 % interval.

    Beside each row stands the mean ± half of the interval.

    Args:
        table: a row per seed, with the columns ``x`` and ``y``.
        ax: the matplotlib axes.
        order: of the rows, from above.
        color: of all rows.
        baseline: the name of what was subtracted, above a line at 0.
        digits: decimals of the numbers.
    """
    names = order or list(dict.fromkeys(table[y]))
    look = {"x": x, "y": y, "order": names, "color": color, "ax": ax}
    np.random.seed(0)  # of the jitter
    seaborn.stripplot(table, **look, alpha=0.45, jitter=0.12)
    seaborn.pointplot(table, **look, linestyle="none", errorbar=statistics.errorbar)
    for row, name in enumerate(names):
        values = table[table[y] == name][x]
        text = statistics.cell(values, digits)
        ax.annotate(text, (1.02, row), xycoords=ax.get_yaxis_transform(), va="center")
    if baseline:
        ax.axvline(0, color="black", lw=0.8)
        place = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points"}
        ax.annotate(baseline, (0, 1), (0, 4), ha="center", **place)
        ax.set_title(ax.get_title(), pad=18)  # above that name


def above_baseline(gaps, y, order, baseline, title, xlabel, digits=2):
    """One panel of ``seeds_and_means``: differences to a baseline, which is the line at 0.

    Args:
        gaps: what ``comparisons.gaps`` gives.
        y: the column that makes rows, and the label of that axis.
        order: of the rows, from above; those without a value are left out.
        baseline: the name of what was subtracted.
        title, xlabel: of the panel, and of its axis of differences.
        digits: decimals of the numbers beside the rows.

    Returns:
        The matplotlib figure.
    """
    rows = [name for name in order if name in set(gaps[y])]
    figure, (ax,) = panels([title], 4.6, 1.6 + 0.2 * len(rows))
    seeds_and_means(gaps, "gap", y, ax, rows, baseline=baseline, digits=digits)
    ax.set(xlabel=xlabel)
    return figure


def cells(summary, methods, digits=1) -> pd.DataFrame:
    """A table of "mean ± half the 95 % interval": a row a setting, a column a method.

    ``summary`` is from ``summarise`` or ``paired`` over ``model``, ``sparsity`` and ``method``, or
    has ``cell``.
    """
    rows = summary.assign(
        cell=summary.get("cell", summary.apply(statistics.with_interval, axis=1, digits=digits)),
        network=summary.model.map(NETWORKS),
        percent=(100 * summary.sparsity).round(2),
    )
    wide = rows.pivot(index=["network", "percent"], columns="method", values="cell").rename(
        columns=methods
    )
    n = rows.groupby(["network", "percent"]).n.agg(counted).str.removeprefix("n = ")
    wide.insert(0, "n", n)
    shown = [column for column in ("n", *methods.values()) if column in wide]
    return wide[shown].rename_axis(index=["network", "sparsity, %"], columns=None).fillna("")


def save(figure, name, profile, source) -> None:
    """Write a figure as ``<name>.png`` and ``<name>.svg``, with its origin inside both files.

    That is the SHA-256 and the number of rows of ``source``, the DataFrame from which it was drawn.
    Where it has no rows, nothing of the picture is on record yet, and nothing is written.

    Args:
        figure: of matplotlib, or a grid of seaborn.
    """
    if source.empty:
        return
    figure = figure.figure  # of a grid; matplotlib's own is its own
    target = paths.figures_to_write(profile)
    digest = hashlib.sha256(source.to_csv(index=False, float_format="%.6g").encode()).hexdigest()
    note = f"{name}, profile {profile}: drawn from {len(source)} rows, SHA-256 {digest[:16]}"
    software = f"snipkit {snipkit.__version__}, matplotlib {mpl.__version__}"
    says, png = {"Title": name, "Description": note}, target / f"{name}.png"
    with replacing(png) as picture:
        figure.savefig(picture, metadata=says | {"Software": software})
        if picture.stat().st_size > 150_000:  # mostly text: a palette takes a quarter of the space
            text = PngImagePlugin.PngInfo()
            for item in (says | {"Software": software}).items():
                text.add_text(*item)
            # Median cut, the default, would shift a colour that only one small mark has.
            with Image.open(picture) as image:
                small = image.convert("RGB").quantize(
                    256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
                )
            small.save(picture, pnginfo=text, optimize=True)
    with replacing(target / f"{name}.svg") as drawing:
        figure.savefig(drawing, metadata=says | {"Creator": software, "Date": None})


def save_runs(table, name, profile) -> None:
    """Write ``study.table`` as ``<name>_runs.csv``, a row a run: every mean can be made again.

    Left out are the curves, the seconds (they differ from machine to machine), and columns that are
    the same for all.
    """
    plain = table.drop(
        columns=["train_loss", "train_error", "seconds", "training"], errors="ignore"
    )
    always = ("id", "seed", "test_error")
    varying = [
        column for column in plain if column in always or plain[column].astype(str).nunique() > 1
    ]
    text = plain[varying].to_csv(index=False, float_format="%.6g")
    paths.write_text(paths.figures_to_write(profile) / f"{name}_runs.csv", text)


def save_table(frame, name, profile) -> None:
    """Write a table as ``<name>.csv`` (six digits) and ``<name>.md`` (four)."""
    target = paths.figures_to_write(profile)
    paths.write_text(target / f"{name}.csv", frame.to_csv(index=False, float_format="%.6g"))
    text = frame.to_markdown(index=False, floatfmt=".4g", missingval="–")
    text += f"\n\nProfile `{profile}`; snipkit {snipkit.__version__}.\n"
    paths.write_text(target / f"{name}.md", text)
