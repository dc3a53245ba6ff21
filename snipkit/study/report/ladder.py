"""What ``docs/predictions.md`` predicts of the MLP: its masks by name, and the numbers that came.

All of them start from SNIP's scores on new seeds. They differ in how many connections each layer
keeps, in which ones these are, in whether biases are pruned, and in the weights that are trained.
"""

import pandas as pd

from snipkit.study.report import answers, comparisons, methods
from snipkit.study.train import ladder_runs

RANKED, ALL_KEPT = "as the rule ranks them", "all kept"  # the biases

_USUAL = {"layer_counts": "own", "same_draw": False, "biases": RANKED}
_TWINS = ("gradient twin", "noisy rank-one twin", "rank-one twin")
_RULES = {"uniform": "uniform", "erk": "ERK's"}  # layer counts that are not the mask's own


def _cells():
    """Each method with its own layer counts, then what only some of them have."""
    names = {
        "SNIP": "snip",
        "layer counts": "snip, shuffle",
        "live units": "snip, live-units",
        "not aligned": "snip, misaligned",
        "unit counts": "snip, shuffle-units",
        "ERK": "erk",
    }
    names |= {name: name.replace(" ", "-") for name in _TWINS}
    cells = {name: _USUAL | {"method": method} for name, method in names.items()}
    for rule, words in _RULES.items():
        cells[f"{words} layer counts"] = cells["layer counts"] | {"layer_counts": rule}
        cells[f"{words} layer counts, SNIP's units"] = cells["unit counts"] | {"layer_counts": rule}
    for name in ("SNIP", *_TWINS):
        cells[f"{name}, scored weights"] = cells[name] | {"same_draw": True}
    for name in ("SNIP", "layer counts", "unit counts", "ERK"):
        cells[f"{name}, all biases"] = cells[name] | {"biases": ALL_KEPT}
    return cells


#: the name of a mask → the fields of its runs in the table from ``ladder_table``
CELLS = _cells()
BOTH = "ERK's layer counts, SNIP's units"

#: what is kept inside a layer → the method
INSIDE = {
    "SNIP's unit counts": "snip, shuffle-units",
    "unit counts, not aligned": "snip, misaligned",
    "SNIP's live units": "snip, live-units",
    "any connections": "snip, shuffle",
}
_ALL_RULES = _RULES | {"own": "SNIP's"}
#: a rung of the ladder → the mask that stands there, if none may keep a bias
_BIAS_FREE = {
    "random": "uniform layer counts",
    "snip, shuffle": "layer counts",
    "snip, shuffle-units": "unit counts",
    "snip": "SNIP",
}
#: network → controls that only some networks have (ResNet-20's units share their names)
CONTROLS = {
    "mlp-1d": ["snip, relabel", "erk"],
    "lenet-300-100": ["snip, relabel"],
    "lenet-5-caffe": ["snip, relabel", "snip, shuffle-channels"],
    "resnet-20": ["snip, shuffle-channels"],
    "cnn-1d": ["snip, relabel", "snip, shuffle-channels"],
}

#: placeholder → the two masks whose difference it is (the first minus the second), and the shares
#: removed, in per cent, at which it was predicted
_EVERYWHERE = (80, 90, 95, 98)
_DIFFERENCES = {
    "snip": ("SNIP", BOTH, _EVERYWHERE),
    "erk": ("ERK's layer counts", BOTH, (90, 95, 98)),
    "live": ("layer counts", "live units", (80, 90, 98)),
    "units": ("layer counts", "unit counts", (80, 90, 98)),
    "misaligned": ("not aligned", "unit counts", _EVERYWHERE),
    "gradient": ("gradient twin", "SNIP", _EVERYWHERE),
    "noisy": ("noisy rank-one twin", "SNIP", _EVERYWHERE),
    "rank_one": ("rank-one twin", "SNIP", _EVERYWHERE),
    "scored": ("gradient twin, scored weights", "SNIP, scored weights", (90, 98)),
    "rank_scored": ("rank-one twin, scored weights", "SNIP, scored weights", (90, 98)),
    "erk_layers": ("layer counts, all biases", "ERK, all biases", _EVERYWHERE),
    "erk_snip": ("ERK, all biases", "SNIP, all biases", _EVERYWHERE),
    "biases": ("SNIP", "SNIP, all biases", _EVERYWHERE),
    "units_snip": ("unit counts, all biases", "SNIP, all biases", _EVERYWHERE),
    "units_layers": ("layer counts, all biases", "unit counts, all biases", (95, 98)),
}


def ladder_table(table: pd.DataFrame) -> pd.DataFrame:
    """The runs of the predictions as pages compare them, in words (``labelled``).

    Args:
        table: what ``records.table`` gives for ``ladder_runs.mlp_runs`` and ``bias_runs``.

    Returns:
        The table with ``biases`` in words. A run that keeps all biases removes weights alone; here
        its ``sparsity`` is that of all parameters, as in the other runs.
    """
    if not len(table):
        return table
    pruned = table.biases
    columns = {
        "sparsity": table.sparsity.where(pruned, ladder_runs.of_all_parameters(table.sparsity)),
        "biases": pruned.map({True: RANKED, False: ALL_KEPT}),
    }
    return methods.labelled(table.assign(**columns))


def between(table: pd.DataFrame, first: str, second: str, sparsity: float) -> pd.Series:
    """The errors of one mask minus those of another, by seed (``comparisons.gap``).

    Args:
        table: from ``ladder_table``.
        first, second: names in ``CELLS``.
        sparsity: the share of all parameters that is removed.
    """
    return comparisons.gap(table, CELLS[first], CELLS[second], sparsity=sparsity)


def predicted_values(table: pd.DataFrame) -> dict[str, pd.Series | str]:
    """All values of the template ``rq6_new_predictions``: what came of each prediction.

    Args:
        table: from ``ladder_table``.

    Returns:
        Placeholder, such as "gradient_98" → numbers by seed; and ``live_share_90``, the mean gain
        of live units in per cent of that of unit counts, as a text.
    """
    differences: dict[str, pd.Series] = {}
    for name, (first, second, percents) in _DIFFERENCES.items():
        for percent in percents:
            differences[f"{name}_{percent}"] = between(table, first, second, percent / 100)
    values: dict[str, pd.Series | str] = dict(differences)
    for percent in (80, 90):
        live, units = differences[f"live_{percent}"], differences[f"units_{percent}"]
        values[f"live_share_{percent}"] = answers.ABSENT
        if len(live) and len(units):
            values[f"live_share_{percent}"] = f"{100 * live.mean() / units.mean():.0f} %"
    for percent in (80, 90, 95):
        values[f"extra_{percent}"] = extra_of_units(table, percent / 100)
    return values


def extra_of_units(table: pd.DataFrame, sparsity: float) -> pd.Series:
    """What unit counts bring at ERK's layer counts, minus what they bring at SNIP's, by seed."""
    at_erks = between(table, "ERK's layer counts", BOTH, sparsity)
    return at_erks - between(table, "layer counts", "unit counts", sparsity)


def crossed(table: pd.DataFrame) -> pd.DataFrame:
    """The runs of the factorial with its two properties in words, as categories.

    Args:
        table: rows from ``ladder_table``.

    Returns:
        The table, by sparsity, with "layer counts" and "inside a layer" (the keys of ``INSIDE``).
    """
    table = table.sort_values("sparsity", kind="stable")
    inside = table.method.map({method: words for words, method in INSIDE.items()})
    columns = {
        "layer counts": pd.Categorical(table.layer_counts.map(_ALL_RULES), [*_ALL_RULES.values()]),
        "inside a layer": pd.Categorical(inside, list(INSIDE), ordered=True),
    }
    return table.assign(**columns)


def without_biases(rungs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The ladder's rows, with those of the MLP from masks of which none keeps a bias.

    A usual uniform mask keeps biases, and SNIP's keeps none. Without them in either, a step from
    one to the other changes the connections alone.

    Args:
        rungs: one row a run, of the methods in ``_BIAS_FREE``.
        table: from ``ladder_table``. Where it is empty, the rows stay as they are.
    """
    if not len(table):
        return rungs
    parts = [rungs[rungs.model != "mlp-1d"]]
    for method, name in _BIAS_FREE.items():
        parts.append(comparisons.rows(table, **CELLS[name]).assign(method=method))
    return pd.concat(parts, ignore_index=True)
