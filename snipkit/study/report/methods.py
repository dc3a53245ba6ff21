"""One label, one colour and one marker for every method, on all pages."""

from typing import NamedTuple

import pandas as pd

from snipkit.study.report import comparisons, figures, statistics


class Method(NamedTuple):
    """How a method is shown."""

    label: str
    color: str
    marker: str


#: ``Run.method`` → how it is shown, in drawing order. Colours of methods that stand in one picture
#: can be told apart by colour-blind readers too (``TOGETHER``, tested); where two methods share a
#: colour, no picture has both.
METHODS = {
    "dense": Method("dense", "#000000", "p"),
    "dense, smaller": Method("smaller dense network", "#949494", "s"),
    "snip": Method("SNIP", "#0173B2", "o"),
    "snip, biases": Method("SNIP, biases kept", "#EE3377", "D"),
    "snip, all": Method("SNIP, all examples", "#661100", "p"),
    "iterative-snip": Method("iterative SNIP", "#D4B000", "*"),
    "force": Method("FORCE", "#CA9161", "d"),
    "grasp": Method("GraSP", "#56B4E9", "v"),
    "synflow": Method("SynFlow", "#332288", "P"),
    "gradient": Method("gradient", "#00C2A0", "d"),
    "signed-gradient": Method("signed gradient", "#332288", "<"),
    "magnitude, rewound": Method("magnitude after training", "#117733", ">"),
    "magnitude": Method("magnitude at init", "#CC78BC", "^"),
    "snip, invert": Method("SNIP inverted", "#882255", "v"),
    "snip, relabel": Method("SNIP, units renamed", "#CC78BC", "P"),
    "snip, shuffle-channels": Method("SNIP's channel counts", "#661100", "h"),
    "snip, shuffle-units": Method("SNIP's unit counts", "#332288", "D"),
    "snip, shuffle-outputs": Method("SNIP's received counts", "#882255", ">"),
    "snip, shuffle-inputs": Method("SNIP's sent counts", "#D4B000", "<"),
    "snip, misaligned": Method("unit counts, not aligned", "#A0522D", "v"),
    "snip, live-units": Method("SNIP's live units", "#56B4E9", "P"),
    "gradient-twin": Method("gradient twin", "#661100", "d"),
    "noisy-rank-one-twin": Method("noisy rank-one twin", "#D4B000", "H"),
    "rank-one-twin": Method("rank-one twin", "#CC78BC", "X"),
    "snip, shuffle": Method("SNIP's layer counts", "#029E73", "s"),
    "erk": Method("ERK", "#999933", "H"),
    "smart-ratio": Method("smart ratio", "#882255", "<"),
    "random": Method("random", "#D55E00", "X"),
}
#: the methods that pictures show side by side
TOGETHER = {
    "baselines": ("dense", "snip", "snip, shuffle", "magnitude", "random", "snip, invert"),
    "ladder": (
        "dense", "snip", "snip, relabel", "snip, shuffle-channels", "snip, shuffle-units",
        "snip, shuffle-outputs", "snip, shuffle-inputs", "snip, shuffle", "erk", "random",
    ),
    "factorial": (
        "snip", "snip, shuffle-units", "snip, misaligned", "snip, live-units", "snip, shuffle",
    ),
    "twins": ("snip", "gradient-twin", "noisy-rank-one-twin", "rank-one-twin", "snip, shuffle"),
    "later methods": (
        "dense, smaller", "snip", "snip, biases", "snip, all", "iterative-snip", "force", "grasp",
        "synflow", "magnitude, rewound", "magnitude", "erk", "smart-ratio", "random",
    ),
    "scores": ("snip", "gradient", "signed-gradient", "random"),
}  # fmt: skip

#: for seaborn's ``hue_order=``, ``palette=`` and ``markers=``; the last two by method and by label
ORDER = list(METHODS)
LABELS = {name: method.label for name, method in METHODS.items()}
PALETTE = {key: method.color for name, method in METHODS.items() for key in (name, method.label)}
MARKERS = {key: method.marker for name, method in METHODS.items() for key in (name, method.label)}
#: seaborn's options for a table from ``labelled``: a line a method, with the study's interval
#: (``seaborn.lineplot(pruned, x="kept, %", y="test error, %", **LINES)``), or a point a method
LINES = {
    "hue": "mask",
    "style": "mask",
    "palette": PALETTE,
    "markers": MARKERS,
    "dashes": False,
    "errorbar": statistics.errorbar,
}
POINTS = {
    "hue": "mask",
    "palette": PALETTE,
    "linestyle": "none",
    "errorbar": statistics.errorbar,
}


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """A table of runs with columns in words, so that axes and legends need none of their own.

    Choose the rows first: a category that occurs here has its place in a legend.

    Args:
        table: what ``records.table`` or ``comparisons.gaps`` gives, or a part of it.

    Returns:
        The table and, where it has what they are made from, the columns "network", "mask" (the
        method's label; one that ``METHODS`` does not have keeps its name), "removed, %", "kept, %",
        "setting" (network and % removed) and "test error, %". Network, mask and setting are
        categories in drawing order. Where one seed of a setting diverged, the error of all of its
        seeds is NaN.
    """
    columns = {}
    if "model" in table:
        columns["network"] = _categories(table.model, figures.NETWORKS)
    if "method" in table:
        columns["mask"] = _categories(table.method, LABELS)
    if "sparsity" in table:
        columns["removed, %"] = (100 * table.sparsity).round(2)
        columns["kept, %"] = (100 * (1 - table.sparsity)).round(2)
    if "model" in table and "sparsity" in table:
        columns["setting"] = _settings(columns["network"], columns["removed, %"])
    if "test_error" in table:
        complete = statistics.blank_diverged(table, comparisons.settings(table))
        columns["test error, %"] = complete.test_error
    return table.assign(**columns)


def _categories(values, labels):
    """A column in words, as categories: those of ``labels`` that occur, then the others."""
    occurring = set(values)
    words = {value: word for value, word in labels.items() if value in occurring}
    words |= {value: value for value in values if value not in labels}
    return pd.Categorical(values.map(words), list(words.values()), ordered=True)


def _settings(networks, removed):
    """Such as "LeNet-300-100, 98 % removed", as categories by network, then by sparsity."""
    words = {}
    for network, percent in sorted(set(zip(networks.codes, removed))):
        words[network, percent] = f"{networks.categories[network]}, {percent:g} % removed"
    values = [words[key] for key in zip(networks.codes, removed)]
    return pd.Categorical(values, list(words.values()), ordered=True)
