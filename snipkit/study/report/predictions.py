"""The word for a prediction, holds, failed or open, by the rule of ``docs/predictions.md``."""

from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from snipkit.study.report import answers, comparisons, statistics

HOLDS, FAILED, OPEN = "holds", "failed", "open"
#: network → points: two masks are equal if the 90 % interval of their difference lies within
MARGINS = {
    "mlp-1d": 1.5,
    "cnn-1d": 1.5,
    "lenet-300-100": 0.3,
    "lenet-5-caffe": 0.3,
    "resnet-20": 2.0,
}
JUDGED_BELOW = 0.99  # beyond it, at 99.5 %, errors spread too far

_LAYERS, _UNITS = "snip, shuffle", "snip, shuffle-units"
_NULL, _CHANNELS = "snip, relabel", "snip, shuffle-channels"
_SENT, _RECEIVED = "snip, shuffle-inputs", "snip, shuffle-outputs"
#: placeholder → the two masks whose difference it is (the first minus the second), and the setting
_SEEN = {
    "null_mlp": (_NULL, "snip", "mlp-1d", 0.98),
    "null_lenet": (_NULL, "snip", "lenet-300-100", 0.98),
    "null_cnn": (_NULL, "snip", "cnn-1d", 0.9),
    "units_mlp": (_UNITS, "snip", "mlp-1d", 0.9),
    "units_lenet": (_UNITS, "snip", "lenet-300-100", 0.98),
    "units_cnn": (_UNITS, "snip", "cnn-1d", 0.9),
    "layers_mlp": (_LAYERS, "snip", "mlp-1d", 0.98),
    "layers_resnet": (_LAYERS, "snip", "resnet-20", 0.98),
    "layers_caffe": (_LAYERS, "snip", "lenet-5-caffe", 0.98),
    "received_lenet": (_RECEIVED, "snip", "lenet-300-100", 0.98),
    "layers_lenet": (_LAYERS, "snip", "lenet-300-100", 0.98),
    "layers_80": (_LAYERS, "snip", "mlp-1d", 0.8),
    "layers_90": (_LAYERS, "snip", "mlp-1d", 0.9),
    "channels": (_CHANNELS, _UNITS, "cnn-1d", 0.9),
}
#: criteria whose masks learn at 98 %, and those that score before training, as SynFlow does
_THAT_LEARN = ("grasp", "synflow")
_RIVALS = ("snip", "iterative-snip", "force", "grasp", "magnitude")
_WIDTHS = {"narrow": 0.5, "usual": 1.0, "broad": 2.0}  # of the MLP's hidden layers


def equal(difference: pd.Series, margin: float) -> str:
    """The word for "the two are equal".

    Failed: the 95 % interval excludes 0, and the 90 % interval does not lie within the margin.

    Args:
        difference: one number a seed.
        margin: in points.
    """
    _, low, high = statistics.interval(difference, level=0.9)
    if -margin < low and high < margin:
        return HOLDS
    _, low, high = statistics.interval(difference)
    return FAILED if low > 0 or high < 0 else OPEN


def worse(difference: pd.Series, _margin: float = 0.0) -> str:
    """The word for "the first is worse than the second".

    Holds: the 95 % interval lies above 0. Failed: it lies below. There is no margin; ``by_setting``
    passes one to ``equal``.

    Args:
        difference: the first minus the second, one number a seed.
    """
    _, low, high = statistics.interval(difference)
    if low > 0:
        return HOLDS
    return FAILED if high < 0 else OPEN


def together(words: Iterable[str]) -> str:
    """The word for a prediction of several parts: all must hold."""
    present = set(words)
    if FAILED in present:
        return FAILED
    return HOLDS if present == {HOLDS} else OPEN


def by_setting(
    table: pd.DataFrame, first: str, second: str, judge: Callable[[pd.Series, float], str]
) -> dict[tuple[str, float], str]:
    """Judge one method minus another in each setting that has both, with its network's margin.

    Args:
        table: one row a run.
        first, second: methods.
        judge: ``equal`` or ``worse``.

    Returns:
        (model, sparsity) → the word.
    """
    words: dict[tuple[str, float], str] = {}
    if not len(table):
        return words
    for (model, sparsity), group in table.groupby(["model", "sparsity"]):
        difference = comparisons.gap(group, first, second)
        if len(difference) >= 2:
            words[model, sparsity] = judge(difference, MARGINS[model])
    return words


def tally(words: Mapping | Iterable[str]) -> str:
    """Such as "failed: holds in 8, failed in 1, open in 2 of 11 settings"; one setting: its word.

    Args:
        words: one a setting, or setting → word.
    """
    parts = list(words.values()) if isinstance(words, Mapping) else list(words)
    if not parts:
        return "not on record"
    if len(parts) == 1:
        return parts[0]
    counts = {word: parts.count(word) for word in (HOLDS, FAILED, OPEN)}
    counted = ", ".join(f"{word} in {count}" for word, count in counts.items() if count)
    text = f"{counted} of {len(parts)} settings"
    return text if len(set(parts)) == 1 else f"{together(parts)}: {text}"


def ladder_values(ladder: pd.DataFrame, widths: pd.DataFrame) -> dict[str, object]:
    """All values of the template ``rq6_predictions``: what came of the predictions of the ladder.

    Args:
        ladder: one row a run, of SNIP's masks and their controls in all settings.
        widths: the same of the MLP with hidden layers of several widths, at one sparsity.

    Returns:
        Placeholder, such as "layers_mlp" → numbers by seed; and, from "so_null" on, the words.
    """
    values: dict[str, object] = {}
    for name, (first, second, model, sparsity) in _SEEN.items():
        values[name] = comparisons.gap(ladder, first, second, model=model, sparsity=sparsity)
    values["units_lenet"] = answers.Estimate(values["units_lenet"], 2)
    scale = pd.Series([options.get("width", 1.0) for options in widths.options], widths.index)
    costs = {}
    for name, width in _WIDTHS.items():
        costs[name] = comparisons.gap(widths[scale == width], _LAYERS, "snip")
    judged = ladder[ladder.sparsity < JUDGED_BELOW]
    at_98 = comparisons.rows(ladder, sparsity=0.98)
    mlp = comparisons.rows(ladder, model="mlp-1d", sparsity=[0.8, 0.9])
    words: dict[str, Mapping | list[str]] = {
        "so_null": by_setting(judged, _NULL, "snip", equal),
        "so_units": by_setting(judged, _UNITS, "snip", equal),
        "so_layers": by_setting(at_98, _LAYERS, "snip", worse),
        "so_between": [*_between(at_98, _SENT), *_between(at_98, _RECEIVED)],
        "so_helps": by_setting(mlp, "snip", _LAYERS, worse),
        "so_width": [worse(statistics.difference(costs["narrow"], costs["broad"]))],
        "so_channels": by_setting(judged, _CHANNELS, _UNITS, equal),
    }
    return values | costs | {name: tally(of_settings) for name, of_settings in words.items()}


def after_values(compared: pd.DataFrame, shuffled: pd.DataFrame) -> dict[str, object]:
    """All values of the template ``after_predictions``: what came of those about later methods.

    Args:
        compared: one row a run, of all methods (what ``later.compared`` gives).
        shuffled: one row a run, of the masks of several criteria and of their shuffles.

    Returns:
        Placeholder, such as "grasp_units" → numbers by seed; and, from "so_units" on, the words.
    """
    units: list[str] = []
    for criterion in _THAT_LEARN:
        units += by_setting(shuffled, f"{criterion}, shuffle-units", criterion, equal).values()
    mlp_98 = comparisons.rows(compared, model="mlp-1d", sparsity=0.98)
    leads: list[str] = []
    for rival in _RIVALS:
        leads += by_setting(mlp_98, rival, "synflow", worse).values()
    images = comparisons.rows(compared, model="lenet-300-100")
    narrow = {}
    for percent in (90, 95, 98):
        narrow[percent] = comparisons.gap(images, "dense, smaller", "snip", sparsity=percent / 100)
    return {
        "grasp_units": comparisons.gap(shuffled, "grasp, shuffle-units", "grasp", sparsity=0.98),
        "synflow_units": comparisons.gap(
            shuffled, "synflow, shuffle-units", "synflow", sparsity=0.98
        ),
        "force": comparisons.gap(mlp_98, "force", "synflow"),
        "narrow_90": answers.Estimate(narrow[90], 2),
        "narrow_95": answers.Estimate(narrow[95], 2),
        "narrow_98": narrow[98],
        "so_units": tally(units),
        "so_synflow": together(leads),
        "so_narrow": tally(by_setting(images, "dense, smaller", "snip", worse)),
    }


def _between(table, side):
    """Whether a control of one side is worse than the unit counts, better than the layer counts."""
    below, above = by_setting(table, _LAYERS, side, worse), by_setting(table, side, _UNITS, worse)
    return [together([below[key], above[key]]) for key in below if key in above]
