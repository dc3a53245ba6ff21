"""Figures and tables: one style, means with intervals, and in every file what it was drawn from."""

import hashlib
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd

import snipkit
from snipkit.study import paths

STYLE = {
    "axes.grid": True,
    "axes.prop_cycle": plt.cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 90,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 120,
    "svg.hashsalt": "snipkit",  # without it the ids in an SVG differ at every save
}


#: network → its name in legends
NETWORKS = {
    "lenet-300-100": "LeNet-300-100", "lenet-5-caffe": "LeNet-5-Caffe", "alexnet-s": "AlexNet-s", "alexnet-b": "AlexNet-b",
    "vgg-c": "VGG-C", "vgg-d": "VGG-D", "vgg-like": "VGG-like", "resnet-20": "ResNet-20", "wrn-16-8": "WRN-16-8",
    "wrn-16-10": "WRN-16-10", "wrn-22-8": "WRN-22-8", "lstm-s": "LSTM-s", "lstm-b": "LSTM-b", "gru-s": "GRU-s", "gru-b": "GRU-b",
}
#: ``Run.method`` → its name in legends, in drawing order
METHODS = {
    "snip": "SNIP",
    "magnitude": "magnitude at init",
    "snip, shuffle": "random, SNIP's count per layer",
    "random": "random",
    "snip, invert": "SNIP inverted",
}


def use_style() -> None:
    """Set matplotlib's defaults to the study's style (colours that colour-blind readers can tell apart)."""
    mpl.rcParams.update(STYLE)


def lines(ax, summary, x, labels) -> None:
    """One line with an interval band a method.

    Args:
        ax: matplotlib axes.
        summary: from ``summarise`` over ``["method", x, …]``.
        x: the column for the horizontal axis.
        labels: method → legend text, in drawing order; methods without rows are left out.
    """
    for number, (method, label) in enumerate(labels.items()):
        rows = summary[summary.method == method].sort_values(x)
        if len(rows):
            ax.plot(rows[x], rows["mean"], "o-", ms=3.5, lw=1.3, color=f"C{number}", label=label)
            ax.fill_between(rows[x], rows.low, rows.high, color=f"C{number}", alpha=0.2, lw=0)


def save(figure, name, profile, source) -> None:
    """Write a figure as ``<name>.png`` and ``<name>.svg``, with its origin inside both files.

    Args:
        figure: a matplotlib figure.
        name: file name without suffix.
        profile: the profile whose numbers it shows.
        source: the DataFrame it was drawn from; its SHA-256 and number of rows are written into the files.
    """
    target = paths.figures(profile)
    target.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(source.to_csv(index=False, float_format="%.6g").encode()).hexdigest()
    note = f"{name}, profile {profile}: drawn from {len(source)} rows, SHA-256 {digest[:16]}"
    software = f"snipkit {snipkit.__version__}, matplotlib {mpl.__version__}"
    figure.savefig(target / f"{name}.png", metadata={"Title": name, "Description": note, "Software": software})
    figure.savefig(
        target / f"{name}.svg", metadata={"Title": name, "Description": note, "Creator": software, "Date": None}
    )


def save_runs(table, name, profile) -> None:
    """Write ``study.table`` as ``<name>_runs.csv``, one row a run, so that every mean can be computed again.

    Left out are the curves, and the seconds, which differ from machine to machine. The columns that are the same for
    all runs are left out too.
    """
    plain = table.drop(columns=["train_loss", "train_error", "seconds", "training"], errors="ignore")
    varying = [column for column in plain if column in ("id", "seed", "test_error") or plain[column].astype(str).nunique() > 1]
    paths.figures(profile).mkdir(parents=True, exist_ok=True)
    plain[varying].to_csv(paths.figures(profile) / f"{name}_runs.csv", index=False, float_format="%.6g")


def save_table(frame, name, profile) -> None:
    """Write a table as ``<name>.csv`` (six digits) and ``<name>.md`` (four)."""
    target = paths.figures(profile)
    target.mkdir(parents=True, exist_ok=True)
    frame.to_csv(target / f"{name}.csv", index=False, float_format="%.6g")
    text = frame.to_markdown(index=False, floatfmt=".4g", missingval="–")
    (target / f"{name}.md").write_text(f"{text}\n\nProfile `{profile}`; snipkit {snipkit.__version__}.\n")


def saved_table(name, profile) -> pd.DataFrame:
    """What ``save_table`` wrote; empty where nothing has been written yet."""
    path = paths.figures(profile) / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame()
