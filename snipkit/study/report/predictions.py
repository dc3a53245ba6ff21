"""The word for a prediction, holds, failed or open, by the rule of ``docs/predictions.md``."""

from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from snipkit.study.report import comparisons, statistics

HOLDS, FAILED, OPEN = "holds", "failed", "open"
#: network → points: two masks are equal if the 90 % interval of their difference lies within
MARGINS = {
    "mlp-1d": 1.5,
    "cnn-1d": 1.5,
    "lenet-300-100": 0.3,
    "lenet-5-caffe": 0.3,
    "resnet-20": 2.0,
}


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
    words = {}
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
