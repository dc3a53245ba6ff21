"""The numbers in the sentences of RQ6: template → placeholder → the two masks that are compared."""

import pandas as pd

from snipkit.study.report import answers, comparisons, ladder

GUESSING = 88  # per cent; of ten classes, 90 % are wrong by guessing

_LAYERS, _UNITS = "snip, shuffle", "snip, shuffle-units"
#: of the first page: methods, the first minus the second, and the network; at 98 %
_FIRST_PAGE = {
    "rq6_answer": {
        "gain_mlp": ("random", "snip", "mlp-1d"),
        "units_mlp": (_UNITS, "snip", "mlp-1d"),
        "layers_lenet": ("random", _LAYERS, "lenet-300-100"),
        "gain_lenet": ("random", "snip", "lenet-300-100"),
        "erk": ("erk", "snip", "mlp-1d"),
    },
    "rq6_ladder": {
        "units": (_LAYERS, _UNITS, "mlp-1d"),
        "layers": (_LAYERS, "snip", "mlp-1d"),
    },
    "rq6_gain": {
        "layers_lenet": ("random", _LAYERS, "lenet-300-100"),
        "layers": ("random", _LAYERS, "mlp-1d"),
        "units": (_LAYERS, _UNITS, "mlp-1d"),
        "connections": (_UNITS, "snip", "mlp-1d"),
    },
}
#: of the second page: names of ``ladder.CELLS``, the first minus the second, and the share removed
_SECOND_PAGE = {
    "rq6b_answer": {
        "biases": ("SNIP", "SNIP, all biases", 0.9),
        "biases_98": ("SNIP, all biases", "SNIP", 0.98),
        "gradient_95": ("gradient twin", "SNIP", 0.95),
        "gradient": ("gradient twin", "SNIP", 0.98),
    },
    "rq6_factorial": {
        "snip_98": ("SNIP", ladder.BOTH, 0.98),
        "erk_98": ("ERK's layer counts", ladder.BOTH, 0.98),
        "snip_90": ("SNIP", ladder.BOTH, 0.9),
        "erk_90": ("ERK's layer counts", ladder.BOTH, 0.9),
        "layers_98": ("uniform layer counts", "ERK's layer counts", 0.98),
        "layers_90": ("uniform layer counts", "ERK's layer counts", 0.9),
    },
    "rq6_biases": {
        "gain_90": ("SNIP", "SNIP, all biases", 0.9),
        "erk_90": ("ERK, all biases", "SNIP, all biases", 0.9),
        "behind_80": ("SNIP", "ERK's layer counts", 0.8),
        "behind_90": ("SNIP", "ERK's layer counts", 0.9),
        "layers_80": ("layer counts", "ERK's layer counts", 0.8),
        "biases_80": ("ERK's layer counts", "ERK", 0.8),
        "layers_90": ("layer counts", "ERK's layer counts", 0.9),
        "biases_90": ("ERK's layer counts", "ERK", 0.9),
        "uniform_80": ("uniform layer counts", "layer counts", 0.8),
    },
    "rq6_twins": {
        "gradient": ("gradient twin", "SNIP", 0.98),
        "noisy": ("noisy rank-one twin", "SNIP", 0.98),
        "rank_one": ("rank-one twin", "SNIP", 0.98),
        "scored": ("gradient twin, scored weights", "SNIP, scored weights", 0.98),
        "units": ("unit counts", "SNIP", 0.98),
        "misaligned": ("not aligned", "unit counts", 0.98),
    },
}


def first_page(template: str, rungs: pd.DataFrame) -> dict[str, pd.Series]:
    """The differences in a template of RQ6's first page: placeholder → numbers by seed.

    Args:
        template: its name.
        rungs: one row a run, of the ladder in all settings.
    """
    values = {}
    for name, (first, second, model) in _FIRST_PAGE[template].items():
        values[name] = comparisons.gap(rungs, first, second, model=model, sparsity=0.98)
    return values


def second_page(template: str, table: pd.DataFrame) -> dict[str, pd.Series]:
    """The differences in a template of RQ6's second page: placeholder → numbers by seed.

    Args:
        template: its name.
        table: from ``ladder.ladder_table``.
    """
    values = {}
    for name, (first, second, sparsity) in _SECOND_PAGE[template].items():
        values[name] = ladder.between(table, first, second, sparsity)
    return values


def caution(rungs: pd.DataFrame, table: pd.DataFrame) -> dict[str, pd.Series]:
    """The values of ``rq6_caution``: what layer counts bring, from two kinds of uniform masks.

    Args:
        rungs: see ``first_page``; there a uniform mask keeps biases (``usual_80``).
        table: from ``ladder.ladder_table``; there it keeps none (``fair_80``).
    """
    usual = comparisons.rows(rungs, model="mlp-1d")
    values = {"gain_80": comparisons.gap(usual, "random", "snip", sparsity=0.8)}
    for percent in (80, 90, 95, 98):
        at = percent / 100
        values[f"usual_{percent}"] = comparisons.gap(usual, "random", _LAYERS, sparsity=at)
        values[f"fair_{percent}"] = ladder.between(
            table, "uniform layer counts", "layer counts", at
        )
    return values


def survival(rungs: pd.DataFrame, scored: pd.DataFrame) -> dict[str, pd.Series]:
    """The values of ``rq6_survival``: what unit counts lose, by the weights in training.

    Args:
        rungs: one row a run, trained from a new draw of the weights.
        scored: the same from the draw that was scored.
    """
    lost_scored = comparisons.gap(scored, _UNITS, "snip", model="mlp-1d", sparsity=0.98)
    lost_new = comparisons.gap(rungs, _UNITS, "snip", model="mlp-1d", sparsity=0.98)
    return {"scored": lost_scored, "new": lost_new, "more": lost_scored - lost_new}


def inverted(runs: pd.DataFrame) -> dict[str, object]:
    """The values of ``rq6_inverted``: errors, and what the masks keep where networks only guess.

    Args:
        runs: one row a seed, of SNIP inverted.
    """
    values: dict[str, object] = {"inverted": comparisons.errors(runs), "on_path": answers.ABSENT}
    guessing = runs[runs.test_error > GUESSING] if len(runs) else runs
    values["guessing"] = len(guessing)
    values["whole"] = int((guessing.empty_layers == 0).sum()) if len(guessing) else 0
    if len(guessing):
        on_path = 100 * (1 - guessing.effective_sparsity) / (1 - guessing.sparsity)
        values["on_path"] = f"{on_path.mean():.1f}"
    return values
