"""The registered rule.

One interval of a difference, one margin, four words. REGISTRATION.md states it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from snipkit.study import paper
from snipkit.study.train import registration
from snipkit.study.train.registration import Setting

AGREES, DISAGREES, OPEN, NOT_RUN = "agrees", "disagrees", "open", "not run"
WORDS = (AGREES, DISAGREES, OPEN, NOT_RUN)
POOLED_TO = 0.98  # cells beyond this sparsity spread several times as much
# The final loss is the mean of the last sixth of the curve, as the paper's last 5,000 of 30,000
# steps
LAST_SHARE = 6

#: gives the outcomes of a cell or of a measurement, by seed
Values = Callable[[dict | str, Setting], dict[int, float]]


def rule() -> pd.DataFrame:
    """What each word means, as a table to read; REGISTRATION.md has the rule in full."""
    meanings = {
        AGREES: ("it lies inside ± the margin", "it lies on the claimed side of 0"),
        DISAGREES: (
            "it lies wholly outside ± the margin",
            "it lies on the other side of 0, or below the smallest effect that counts",
        ),
        OPEN: ("neither", "neither"),
        NOT_RUN: ("there are no runs by the paper's protocol", "there are no runs"),
    }
    columns = ["where the claim is a number, and its interval:", "where it is an order:"]
    table = pd.DataFrame.from_dict(meanings, orient="index", columns=columns)
    return table.rename_axis("word")


@dataclass(frozen=True)
class Interval:
    """A difference, half its 95 % interval, and half the interval widened for the number of the
    claim's settings.
    """

    mean: float
    half: float
    widened: float

    def inside(self, margin: float) -> bool:
        return abs(self.mean) + self.half < margin

    def outside(self, margin: float) -> bool:
        return abs(self.mean) - self.widened > margin


@dataclass(frozen=True)
class Judgement:
    """What the rule says of a claim.

    Attributes:
        word: one of ``WORDS``.
        intervals: one for each setting; [] where nothing was judged.
        n: the seeds of each setting.
    """

    word: str
    intervals: list[Interval]
    n: list[int]


def outcome(record, kind: str) -> float:
    """Test error in percent, or final training loss in nats, that a record stands for.

    NaN if it diverged.
    """
    if record.outcome is None:
        return math.nan
    if kind == "test_error":
        return record.outcome.test_error
    curve = record.outcome.train_loss
    return float(np.mean(curve[-max(1, len(curve) // LAST_SHARE) :]))


def judge(
    rows: Sequence[Setting], values: Values, pool: Sequence[Sequence[float]] = ()
) -> Judgement:
    """Judge one claim from the values of its settings.

    Args:
        rows: the claim's settings; not facts.
        values: the outcomes of a cell or measurement, by seed.
        pool: the outcomes of the cells that share their spread with a printed number's.
    """
    if _diverged(rows, values):
        return Judgement(OPEN, [], [])
    if rows[0].kind == "number":
        (row,) = rows
        cell = row.cells[0]
        outcomes = list(values(cell, row).values())
        interval = against_printed(outcomes, row.claim, cell, pool)
        word = _number_word([interval], row.margin, complete=True)
        return Judgement(word, [interval], [len(outcomes)])
    intervals, counts = [], []
    for row in rows:
        differences = _differences(row, values)
        intervals.append(_paired(differences, len(rows)))
        counts.append(len(differences))
    complete = len(rows) == rows[0].settings
    if rows[0].kind == "margin":
        return Judgement(_number_word(intervals, rows[0].margin, complete), intervals, counts)
    return Judgement(_order_word(intervals, rows[0].effect, complete), intervals, counts)


def _diverged(rows, values):
    """Whether a training of the claim has no number."""
    for row in rows:
        for side in (row.first, row.second):
            if isinstance(side, dict) and any(
                math.isnan(value) for value in values(side, row).values()
            ):
                return True
    return False


def _number_word(intervals, margin, complete):
    if complete and all(interval.inside(margin) for interval in intervals):
        return AGREES
    if any(interval.outside(margin) for interval in intervals):
        return DISAGREES
    return OPEN


def _order_word(intervals, effect, complete):
    """The difference should be positive.

    The registration may name the smallest effect that counts (else NaN).
    """
    least = 0.0 if math.isnan(effect) else effect
    if any(interval.mean + interval.half < least for interval in intervals):
        return DISAGREES
    if complete and all(interval.mean - interval.half > 0 for interval in intervals):
        return AGREES
    return OPEN


def _differences(row, values):
    """First minus second, seed by seed; a side may be a number."""
    first, second = (_by_seed(side, row, values) for side in (row.first, row.second))
    if isinstance(first, float):
        return [first - value for value in second.values()]
    if isinstance(second, float):
        return [value - second for value in first.values()]
    return [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]


def _by_seed(side, row, values):
    return side if isinstance(side, float) else values(side, row)


def _paired(differences, settings):
    """Student's t interval of the mean difference."""
    if len(differences) < 2:
        return Interval(
            float(np.mean(differences)) if differences else math.nan, math.inf, math.inf
        )
    error = float(stats.sem(differences))
    return _interval(float(np.mean(differences)), error, len(differences) - 1, settings)


def _interval(mean, error, freedom, settings, rounding=0.0):
    half, widened = (
        stats.t.ppf(1 - 0.025 / count, freedom) * error + rounding for count in (1, settings)
    )
    return Interval(mean, float(half), float(widened))


def against_printed(
    outcomes: Sequence[float], claim: str, cell: dict, pool: Sequence[Sequence[float]] = ()
) -> Interval:
    """Our mean minus the printed number, or minus the paper's own runs where they are known (figure
    1's dots).

    Args:
        outcomes: of our runs, one number a seed.
        claim: an id in ``paper/claims.csv``.
        cell: the fields of the runs; they say which dots are theirs.
        pool: the numbers of the cells that share one spread; by default ``outcomes`` alone.
    """
    spread, freedom = _spread(pool or [outcomes])
    error = spread / len(outcomes) ** 0.5
    dots = _dots(cell)
    if len(dots):
        dots_error = float(stats.sem(dots))
        variance = error**2 + dots_error**2
        # Welch and Satterthwaite's degrees of freedom, with those of our spread for our part.
        freedom = variance**2 / (error**4 / freedom + dots_error**4 / (len(dots) - 1))
        return _interval(float(np.mean(outcomes) - np.mean(dots)), variance**0.5, freedom, 1)
    printed = str(paper.table("claims").set_index("claim").printed[claim])
    rounding = 0.5 * 10.0 ** -len(printed.partition(".")[2])
    return _interval(float(np.mean(outcomes)) - float(printed), error, freedom, 1, rounding)


def _spread(cells):
    """Standard deviation within cells, and its degrees of freedom."""
    cells = [np.asarray(cell, float) for cell in cells]
    cells = [cell for cell in cells if len(cell) > 1 and np.isfinite(cell).all()]
    freedom = sum(len(cell) - 1 for cell in cells)
    squares = sum(float(((cell - cell.mean()) ** 2).sum()) for cell in cells)
    return ((squares / freedom) ** 0.5 if freedom else math.inf), max(freedom, 1)


def _dots(cell):
    """The paper's own runs of a cell, in percent.

    Those of figure 1, which has them at some sparsities.
    """
    runs = paper.table("figure1")
    return runs.error[
        (runs.model == cell.get("model")) & (runs.sparsity == cell.get("sparsity", 0.0))
    ].to_numpy()


def pool_cells(row: Setting, rows: Sequence[Setting]) -> list[tuple[dict, int]]:
    """The cells, with their numbers of seeds, that share their spread with a printed number's."""
    recipe = row.cells[0]["recipe"]
    cells = {}
    for candidate in rows:
        for cell in candidate.cells:
            alike = cell["model"] in row.pool and cell["recipe"] == recipe
            usual = cell.get("scoring_batch", 100) == 100 and cell.get("sparsity", 0.0) <= POOLED_TO
            if alike and usual and candidate.outcome == row.outcome:
                cells[registration.key(cell)] = cell, candidate.n
    return list(cells.values())
