"""Tables that pages show and draw from: results by setting, means, masks and scores by layer."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import snipkit
from snipkit import masking
from snipkit.study.report import figures, methods, statistics


def stacked(parts: Mapping, *names: str) -> pd.DataFrame:
    """One table of the results of several settings, with the columns in words of ``labelled``.

    ``stacked({("lenet-300-100", "snip"): {"paths": 3}}, "model", "method")`` has one row.

    Args:
        parts: setting (a value, or a tuple of values) → its row (a dict), or its rows (a
            DataFrame).
        names: columns for the values that make a setting.

    Returns:
        DataFrame with those columns, the rows' own, and what ``methods.labelled`` adds; empty where
        there are no parts.
    """
    tables = []
    for setting, part in parts.items():
        rows = part if isinstance(part, pd.DataFrame) else pd.DataFrame([part])
        values = setting if isinstance(setting, tuple) else (setting,)
        tables.append(rows.assign(**dict(zip(names, values))))
    if not tables:
        return pd.DataFrame(columns=list(names))
    table = pd.concat(tables, ignore_index=True)
    columns = [column for column in table if column not in names]
    return methods.labelled(table[[*names, *columns]])


def save_and_show(table: pd.DataFrame, name: str, profile: str) -> pd.DataFrame:
    """``figures.save_table``, and the table again: for the last line of a cell.

    An index that says what the rows are is saved as columns, and columns of several levels with
    their names joined.
    """
    plain = table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
    if plain.columns.nlevels > 1:
        joined = [", ".join(str(level) for level in levels if level) for levels in plain]
        plain = plain.set_axis(joined, axis=1)
    figures.save_table(plain, name, profile)
    return table


def setting_table(
    gaps: pd.DataFrame, columns: Mapping[str, str], name: str, profile: str
) -> pd.DataFrame:
    """Mean ± half the 95 % interval: a row a network and share removed, a column a method.

    The table is saved, too (``figures.save_table``).

    Args:
        gaps: a row a seed, with "model", "sparsity", "method" and "gap", such as
            ``comparisons.gaps`` gives.
        columns: method → the name of its column, in their order; others are left out.
        name, profile: of the file.
    """
    means = statistics.summarise(gaps, ["model", "sparsity", "method"], "gap")
    table = figures.cells(means, columns).rename_axis(index=["network", "removed, %"])
    return save_and_show(table, name, profile)


def mean_table(
    table: pd.DataFrame,
    index: str | Sequence[str],
    columns: str | Sequence[str],
    value: str = "test_error",
    digits: int = 1,
    count: bool = False,
    fewest: int = 2,
) -> pd.DataFrame:
    """Mean ± half the 95 % interval of ``value``, as text: a row and a column for each setting.

    Args:
        table: one row a run, or a row a pair from ``comparisons.gaps``.
        index, columns: the columns of ``table`` whose values make the rows and the columns. They
            come in the order of their categories, or in that of the table.
        digits: decimals.
        count: write n behind each cell, "2.4 ± 0.3 (3)".
        fewest: seeds of an interval; of fewer the mean stands alone. ``statistics.FEWEST`` in a
            table beside a picture, which has no bar for fewer.

    Returns:
        DataFrame of texts; empty text where nothing is on record, "diverged" where a seed diverged.
    """
    rows = [index] if isinstance(index, str) else list(index)
    across = [columns] if isinstance(columns, str) else list(columns)
    means = statistics.summarise(table, [*rows, *across], value)
    means.loc[means.n < fewest, ["low", "high"]] = float("nan")
    texts = [statistics.with_interval(row, digits) for _, row in means.iterrows()]
    if count:
        texts = [f"{text} ({n})" for text, n in zip(texts, means.n)]
    for column in [*rows, *across]:
        # pandas would sort the settings by the alphabet.
        kinds = getattr(table[column].dtype, "categories", means[column].unique())
        means[column] = pd.Categorical(means[column], kinds)
    pivot = means.assign(text=texts).pivot(index=rows, columns=across, values="text")
    pivot = pivot.sort_index().sort_index(axis=1).fillna("")
    return pivot.set_axis(list(pivot.columns), axis=1) if isinstance(columns, str) else pivot


def layer_shares(masks: Mapping[str, Tensor]) -> pd.DataFrame:
    """How much of each layer's weights is kept, from the input to the output; without the biases.

    Args:
        masks: name → bool tensor, as ``keep_top`` gives them.

    Returns:
        DataFrame with a row a layer: ``layer`` ("fc1"), ``place`` (1, 2, …), ``kept``, ``weights``
        (how many the layer has), ``percent`` (kept, of these) and ``layer_and_size`` ("fc1, 1,000
        weights").
    """
    table = masking.layer_table(dict(masks)).reset_index()
    table = table[[not snipkit.is_bias(name) for name in table.parameter]]
    layers = pd.DataFrame({"layer": table.parameter.map(_layer), "place": range(1, len(table) + 1)})
    layers = layers.assign(kept=table.kept, weights=table.total, percent=100 * table.density)
    return _with_sizes(layers.reset_index(drop=True))


def unit_counts(masks: Mapping[str, Tensor]) -> pd.DataFrame:
    """How many incoming connections each hidden unit of a chain of linear layers keeps.

    Args:
        masks: name → bool tensor of (units, inputs), as ``keep_top`` gives them.

    Returns:
        DataFrame with a row a unit: ``layer`` ("fc1") and ``connections``.
    """
    weights = [name for name in masks if not snipkit.is_bias(name)]
    parts = []
    for name in weights[:-1]:  # the last layer has outputs
        kept = masks[name].sum(1)
        parts.append(pd.DataFrame({"layer": _layer(name), "connections": kept}))
    return pd.concat(parts, ignore_index=True)


def same_counts(masks: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, bool]:
    """Which counts of their weights two masks of a chain of linear layers have in common.

    Args:
        masks, others: name → bool tensor of (units, inputs); biases are left out.

    Returns:
        "layer counts", "sent counts" and "received counts" → whether all layers have the same.
    """
    weights = [name for name in others if not snipkit.is_bias(name)]
    along = {"layer counts": None, "sent counts": 0, "received counts": 1}
    same = {}
    for counts, dim in along.items():
        pairs = [(masks[name].sum(dim), others[name].sum(dim)) for name in weights]
        same[counts] = all(torch.equal(first, second) for first, second in pairs)
    return same


def agreement(masks: Sequence[dict[str, Tensor]]) -> dict[str, float]:
    """What masks of one network have in common: their connections, and their counts by layer.

    Args:
        masks: two or more, each name → bool tensor; all pairs of them are compared.

    Returns:
        "in common, %" of the kept connections and "by chance, %" (``masking.overlap``), the means
        over the pairs; and for each layer the standard deviation of its count over the masks, in
        per cent of the mean ("sd of the count in fc1, %").
    """
    pairs = itertools.combinations(masks, 2)
    share, chance = 100 * np.mean([masking.overlap(*pair) for pair in pairs], axis=0)
    row = {"in common, %": share, "by chance, %": chance}
    counts = pd.concat([layer_shares(mask) for mask in masks])
    for layer, kept in counts.groupby("layer", sort=False).kept:
        row[f"sd of the count in {layer}, %"] = 100 * kept.std() / kept.mean()
    return row


def layer_scores(scores: Mapping[str, Tensor]) -> pd.DataFrame:
    """The scores of all weights, a row a weight, from the input to the output; without the biases.

    Args:
        scores: name → tensor, as ``saliency.snip`` gives them.

    Returns:
        DataFrame with ``layer``, ``weights`` (how many the layer has), ``score`` and
        ``layer_and_size``, as in ``layer_shares``.
    """
    parts = []
    for name, score in scores.items():
        if not snipkit.is_bias(name):
            values = score.detach().flatten().cpu().numpy()
            part = {"layer": _layer(name), "weights": score.numel(), "score": values}
            parts.append(_with_sizes(pd.DataFrame(part)))
    return pd.concat(parts, ignore_index=True)


def _layer(name):
    """The layer that a weight belongs to, "fc1" for "fc1.weight"."""
    return name.removesuffix(".weight")


def _with_sizes(layers):
    """The table with ``layer_and_size``, a label for axes."""
    pairs = zip(layers.layer, layers.weights)
    labels = {(layer, weights): f"{layer}, {weights:,} weights" for layer, weights in set(pairs)}
    named = [labels[pair] for pair in zip(layers.layer, layers.weights)]
    return layers.assign(layer_and_size=named)
