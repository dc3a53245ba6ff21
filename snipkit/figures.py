"""Figures and tables: one style, means with intervals, and in every file what it was drawn from."""

import hashlib
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

import snipkit
from snipkit import sources

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


def interval(values, level=0.95) -> tuple[float, float, float]:
    """Mean and Student's t confidence interval of the mean.

    Args:
        values: one number a seed; NaN (a run that diverged) makes all three NaN, so that it is not averaged away.
        level: coverage.

    Returns:
        (mean, low, high); low and high are NaN for a single value, and all three for none.
    """
    values = np.asarray(values, float)
    mean = values.mean() if len(values) else np.nan
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
    return mean, mean - half, mean + half


def summarise(table, by, value="test_error") -> pd.DataFrame:
    """Mean, 95 % interval, standard deviation, best and n of ``value`` for each combination of the columns ``by``.

    Returns:
        DataFrame with the columns of ``by`` and ``n, mean, low, high, sd, best`` (best is the lowest).
    """
    rows = []
    for key, group in table.groupby(by, sort=False, dropna=False):
        mean, low, high = interval(group[value])
        sd = group[value].std()
        rows.append([*key, len(group), mean, low, high, sd, group[value].min()])
    return pd.DataFrame(rows, columns=[*by, "n", "mean", "low", "high", "sd", "best"])


def paired(table, baseline, by, value="test_error") -> pd.DataFrame:
    """Differences of ``value`` to the method ``baseline``, seed by seed, with mean and 95 % interval.

    Args:
        table: one row a run, with the columns ``method``, ``seed`` and those of ``by``.
        baseline: a value of ``method``; differences are the other method minus this one.
        by: further columns to pair within, such as ``["model", "sparsity"]``.

    Returns:
        DataFrame with the columns of ``by``, ``method``, ``n, mean, low, high`` and ``share``, the share of seeds in
        which the difference is positive.
    """
    rows = []
    for method in [m for m in table.method.unique() if m != baseline]:
        for key, group in table.groupby(by, sort=False):
            ours, theirs = (group[group.method == m].set_index("seed")[value] for m in (method, baseline))
            if len(gap := difference(ours, theirs)):
                rows.append([*key, method, len(gap), *interval(gap), (gap > 0).mean()])
    return pd.DataFrame(rows, columns=[*by, "method", "n", "mean", "low", "high", "share"])


def difference(first, second) -> pd.Series:
    """First minus second, seed by seed, for the seeds that both have; NaN where one diverged, so that ``interval`` says so.

    Args:
        first, second: Series of numbers by seed.
    """
    shared = first.index.intersection(second.index, sort=False)
    return first[shared] - second[shared]


def with_interval(row, digits=1) -> str:
    """``2.4 ± 0.3`` from a row of ``summarise`` or ``paired``: the mean and half the width of its interval."""
    if np.isnan(row["mean"]):
        return "diverged"
    if np.isnan(row["low"]):
        return f"{row['mean']:.{digits}f}"
    return f"{row['mean']:.{digits}f} ± {(row['high'] - row['low']) / 2:.{digits}f}"


def cell(values, digits=1, missing="") -> str:
    """``2.4 ± 0.3`` from one number a seed: ``with_interval`` of their ``interval``; ``missing`` if there are none."""
    return with_interval(dict(zip(("mean", "low", "high"), interval(values))), digits) if len(values) else missing


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


def printed(name) -> pd.DataFrame:
    """Numbers printed in the paper, from ``snipkit/printed/<name>.csv`` (its README says where in the paper they stand)."""
    return pd.read_csv(Path(__file__).parent / "printed" / f"{name}.csv")


def folder(profile) -> Path:
    """Where the figures and tables of a profile go: ``figures/<profile>/`` in the project's folder."""
    return sources.home() / "figures" / profile


def save(figure, name, profile, source) -> None:
    """Write a figure as ``<name>.png`` and ``<name>.svg``, with its origin inside both files.

    Args:
        figure: a matplotlib figure.
        name: file name without suffix.
        profile: the profile whose numbers it shows.
        source: the DataFrame it was drawn from; its SHA-256 and number of rows are written into the files.
    """
    target = folder(profile)
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
    plain = table.drop(columns=["train_loss", "train_error", "seconds"], errors="ignore")
    varying = [column for column in plain if column in ("id", "seed", "test_error") or plain[column].astype(str).nunique() > 1]
    folder(profile).mkdir(parents=True, exist_ok=True)
    plain[varying].to_csv(folder(profile) / f"{name}_runs.csv", index=False, float_format="%.6g")


def save_table(frame, name, profile) -> None:
    """Write a table as ``<name>.csv`` (six digits) and ``<name>.md`` (four)."""
    target = folder(profile)
    target.mkdir(parents=True, exist_ok=True)
    frame.to_csv(target / f"{name}.csv", index=False, float_format="%.6g")
    text = frame.to_markdown(index=False, floatfmt=".4g", missingval="–")
    (target / f"{name}.md").write_text(f"{text}\n\nProfile `{profile}`; snipkit {snipkit.__version__}.\n")


def saved_table(name, profile) -> pd.DataFrame:
    """What ``save_table`` wrote; empty where nothing has been written yet."""
    path = folder(profile) / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame()
