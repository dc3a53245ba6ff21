"""Means, Student's t intervals, differences seed by seed, and how they are written."""

import numpy as np
import pandas as pd
from scipy import stats

#: seeds of an interval that is drawn; for two, Student's t is 12.7: a bar would span the picture
FEWEST = 3


def interval(values, level=0.95) -> tuple[float, float, float]:
    """Mean and Student's t confidence interval of the mean.

    Args:
        values: one number a seed; NaN (a run that diverged) makes all three NaN, so that it is not
            averaged away.
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


def errorbar(values) -> tuple[float, float]:
    """The ends of ``interval``, for seaborn's ``errorbar=``; NaN below ``FEWEST`` seeds: no bar.

    Two traps of seaborn. It leaves out NaN before it asks; ``blank_diverged``, which
    ``report.labelled`` and ``report.gaps`` call, keeps a run that diverged from being averaged
    away. And where an axis is logarithmic already it takes the mean of the logarithms: draw first,
    then ``ax.set(yscale="log")``.
    """
    _, low, high = interval(values)
    return (low, high) if len(values) >= FEWEST else (np.nan, np.nan)


def blank_diverged(table, by, value="test_error") -> pd.DataFrame:
    """The table with ``value`` NaN for all seeds of a group in which one is NaN.

    Args:
        by: the columns that make a group.
    """
    groups = [table[column].map(str) for column in by]
    diverged = table[value].isna().groupby(groups).transform("any")
    return table.assign(**{value: table[value].mask(diverged)})


def pooled_sd(cells) -> tuple[float, int]:
    """Standard deviation within cells, pooled, and its degrees of freedom.

    Args:
        cells: sequences of numbers, one a seed.
    """
    cells = [np.asarray(cell, float) for cell in cells if len(cell) > 1 and np.isfinite(cell).all()]
    freedom = sum(len(cell) - 1 for cell in cells)
    squares = sum(((cell - cell.mean()) ** 2).sum() for cell in cells)
    return (float(np.sqrt(squares / freedom)) if freedom else float("nan")), freedom


def summarise(table, by, value="test_error") -> pd.DataFrame:
    """Mean, 95 % interval, standard deviation, best and n of ``value`` in each group.

    Args:
        by: the columns that make a group.

    Returns:
        DataFrame with the columns of ``by`` and ``n, mean, low, high, sd, best`` (best is the
        lowest).
    """
    rows = []
    for key, group in table.groupby(by, sort=False, dropna=False, observed=True):
        mean, low, high = interval(group[value])
        sd = group[value].std()
        rows.append([*key, len(group), mean, low, high, sd, group[value].min()])
    return pd.DataFrame(rows, columns=[*by, "n", "mean", "low", "high", "sd", "best"])


def paired(table, baseline, by, value="test_error") -> pd.DataFrame:
    """Differences to the method ``baseline``, seed by seed: their mean and 95 % interval.

    Args:
        table: one row a run, with the columns ``method``, ``seed`` and those of ``by``.
        baseline: a value of ``method``; differences are the other method minus this one.
        by: further columns to pair within, such as ``["model", "sparsity"]``.

    Returns:
        DataFrame with the columns of ``by``, ``method``, ``n, mean, low, high`` and ``share``, the
        share of seeds in which the difference is positive.
    """
    rows = []
    for method in table.method.unique():
        if method == baseline:
            continue
        for key, group in table.groupby(by, sort=False):
            of_method = group[group.method == method].set_index("seed")[value]
            of_baseline = group[group.method == baseline].set_index("seed")[value]
            if len(gap := difference(of_method, of_baseline)):
                rows.append([*key, method, len(gap), *interval(gap), (gap > 0).mean()])
    return pd.DataFrame(rows, columns=[*by, "method", "n", "mean", "low", "high", "share"])


def difference(first, second) -> pd.Series:
    """First minus second, for each seed that both have; NaN where one diverged.

    Args:
        first, second: Series of numbers by seed.
    """
    shared = first.index.intersection(second.index, sort=False)
    return first[shared] - second[shared]


def row(values) -> dict:
    """``n, mean, low, high`` of one number a seed, as a row of ``differences``."""
    return dict(zip(("n", "mean", "low", "high"), (len(values), *interval(values))))


def with_interval(row, digits=1) -> str:
    """``2.4 ± 0.3`` from a row of ``summarise`` or ``paired``: mean and half the interval."""
    if np.isnan(row["mean"]):
        return "diverged"
    if np.isnan(row["low"]):
        return f"{row['mean']:z.{digits}f}"
    return f"{row['mean']:z.{digits}f} ± {(row['high'] - row['low']) / 2:.{digits}f}"


def cell(values, digits=1, missing="") -> str:
    """``2.4 ± 0.3`` from one number a seed; ``missing`` if there are none."""
    return with_interval(row(values), digits) if len(values) else missing


def unpaired_cell(first, second, digits=1, missing="(not on record)") -> str:
    """First minus second as ``2.4 ± 0.3``, of seeds that are no pairs: Welch's interval.

    ``missing`` where one side has fewer than two.
    """
    if min(len(first), len(second)) < 2:
        return missing
    low, high = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    return with_interval({"mean": (low + high) / 2, "low": low, "high": high}, digits)


def ratio_cell(first, second, digits=2) -> str:
    """The ratio of two means as ``0.54 [0.01, 0.93]``, with its 95 % interval by Fieller's theorem.

    Fieller's interval holds every ratio r for which the mean of ``first - r * second`` is not told
    from 0. It stands for pairs that vary together, and it need not be symmetric. No interval is
    written for fewer than ``FEWEST`` pairs, or where the second mean is not told from 0.

    Args:
        first, second: one number a seed, in the same order of seeds.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    ratio = first.mean() / second.mean()
    if len(first) < FEWEST:
        return f"{ratio:z.{digits}f}"
    covariance = np.cov(first, second) / len(first)
    squared_t = stats.t.ppf(0.975, len(first) - 1) ** 2
    # The ends are the roots of a r² − 2 b r + c.
    a = second.mean() ** 2 - squared_t * covariance[1, 1]
    b = first.mean() * second.mean() - squared_t * covariance[0, 1]
    c = first.mean() ** 2 - squared_t * covariance[0, 0]
    if not a > 0:
        return f"{ratio:z.{digits}f}"
    half = np.sqrt(b**2 - a * c)
    low, high = (b - half) / a, (b + half) / a
    return f"{ratio:z.{digits}f} [{low:z.{digits}f}, {high:z.{digits}f}]"


def means(table, by, values="test_error", digits=2) -> pd.DataFrame:
    """A table to show: "mean ± half the 95 % interval" of each group, in the order of the rows.

    Args:
        table: one row a seed.
        by: the columns that make a row.
        values: a column of numbers, or several. They stand under their own names, followed by n.
        digits: decimals.
    """
    several = [values] if isinstance(values, str) else list(values)
    by = list(by)
    if not len(table):
        return pd.DataFrame(columns=by)
    shown = table[by].drop_duplicates().reset_index(drop=True)
    for value in several:
        summary = summarise(table, by, value)
        summary[value] = summary.apply(with_interval, axis=1, digits=digits)
        shown = shown.merge(summary[[*by, value, "n"]].rename(columns={"n": f"n, {value}"}))
    shown = shown.rename(columns={f"n, {several[0]}": "n"})
    return shown[[*by, *several, "n"]]
