"""Table 3 of the paper, four ways to draw the scored weights: its runs, its errors beside ours."""

from collections.abc import Mapping

import pandas as pd

from snipkit.study import paper
from snipkit.study.report import comparisons, grids, methods
from snipkit.study.train.runs import Run

SPARSITY = 0.9
#: value of ``Run.scoring_init`` → its name in pictures, in the order of the paper's table
INITS = {"normal": "normal", "truncated-normal": "trunc. normal", "glorot": "Glorot", "he": "He"}


def planned(settings: Mapping[str, Mapping]) -> list[Run]:
    """SNIP's masks of weights drawn in four ways. What is trained is always a Glorot draw.

    Args:
        settings: network → fields of ``Run``, and ``seeds``, as ``grids.planned`` takes them.
    """
    drawn_from = [{"scoring_init": init} for init in INITS]
    runs = []
    for model, fields in settings.items():
        common = dict(fields) | {"model": model, "training_init": "glorot"}
        runs += grids.planned(common, "snip", SPARSITY, vary=drawn_from)
    return runs


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """``methods.labelled``, with a column "weights": how the scored weights were drawn, in words.

    Args:
        table: runs of this table, or what ``against_glorot`` is made from.
    """
    return methods.labelled(table).assign(weights=table.scoring_init.map(INITS))


def printed() -> pd.DataFrame:
    """The errors that the paper prints, with the columns of ``labelled``."""
    numbers = paper.table("table3").rename(columns={"error_mean": "test error, %"})
    return labelled(numbers)


def against_glorot(table: pd.DataFrame) -> pd.DataFrame:
    """By how many points each way of drawing is worse than Glorot's, seed by seed: ``labelled``.

    Args:
        table: one row a run of this table.
    """
    return labelled(comparisons.gaps(table, "glorot", of="scoring_init"))
