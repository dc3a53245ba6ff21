"""Table 2 of the paper, twelve networks: its runs as a grid, and its errors beside ours."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pandas as pd

from snipkit.study import paper
from snipkit.study.report import comparisons, grids, methods
from snipkit.study.train.recipes import recipe_of
from snipkit.study.train.runs import Run

RECURRENT = ("lstm-s", "lstm-b", "gru-s", "gru-b")
IMAGES = {"cifar-10": "CIFAR-10", "mnist": "MNIST, row by row"}
#: source of an error → colour and marker; of our runs, the longer the darker
LOOKS = {
    "printed": ("#000000", "s"),
    "others": ("#949494", "X"),
    "ours, shorter": ("#89BEDC", "v"),
    "ours": ("#0173B2", "o"),
    "ours, twice as long": ("#08306B", "D"),
}
ERROR, COST = "test error with SNIP, %", "SNIP minus dense, points"


def data_and_init(model: str) -> dict[str, str]:
    """The fields of ``Run`` for one of the networks: its data set, and how weights are drawn.

    Recurrent networks read a digit row by row and have Glorot weights. The others see CIFAR-10 and
    have LeCun weights.
    """
    if model in RECURRENT:
        return {"data": "mnist", "scoring_init": "glorot", "training_init": "glorot"}
    return {"data": "cifar-10", "scoring_init": "lecun", "training_init": "lecun"}


def planned(settings: Mapping[str, Mapping], method_names: str | Iterable[str]) -> list[Run]:
    """The runs of the table's networks, each at the sparsity that is printed for it.

    Args:
        settings: network → fields of ``Run``, and ``seeds``, as ``grids.planned`` takes them.
        method_names: values of ``Run.method``; see ``grids.planned``.
    """
    printed = paper.table("table2")
    runs = []
    for row in printed[printed.model.isin(settings)].itertuples():
        fields = dict(settings[row.model]) | {"model": row.model} | data_and_init(row.model)
        runs += grids.planned(fields, method_names, row.sparsity)
    return runs


def twice_as_long(settings: Mapping[str, Mapping], models: Iterable[str]) -> dict[str, dict]:
    """The settings of some networks, with twice as many steps: is the training too short?

    Args:
        settings: see ``planned``.
        models: networks among them.
    """
    longer = {}
    for model in models:
        recipe = recipe_of(settings[model]["recipe"])
        longer[model] = dict(settings[model]) | {"recipe": replace(recipe, steps=2 * recipe.steps)}
    return longer


def by_source(trained: Mapping[str, pd.DataFrame], others: str = "others") -> pd.DataFrame:
    """Errors with SNIP, and what they are above those of the dense networks, from all sources.

    Args:
        trained: source → rows of ``records.table``, a run each, of one setting per network and
            method. Only networks of the first source are listed.
        others: the name of the source that is ``paper.table("others_table2")``; "printed" is the
            paper's.

    Returns:
        DataFrame with a row a seed: ``network``, ``images`` (the data set, in words), ``source``,
        ``quantity`` (``ERROR`` or ``COST``), ``seed`` (0 for a number that is printed) and
        ``value``. Costs are taken seed by seed.
    """
    columns = ["model", "source", "method", "seed", "test_error"]
    parts = []
    for source, name in (("printed", "table2"), (others, "others_table2")):
        numbers = paper.table(name).rename(columns={"error_dense": "dense", "error_pruned": "snip"})
        numbers = numbers.melt("model", ["dense", "snip"], "method", "test_error")
        parts.append(numbers.assign(source=source, seed=0)[columns])
    for source, rows in trained.items():
        if len(rows):
            parts.append(rows.assign(source=source)[columns])
    errors = pd.concat(parts, ignore_index=True)
    errors = errors[errors.model.isin(next(iter(trained.values())).model)]

    pairs = {"snip": ("snip", "dense")}
    costs = comparisons.gaps(errors, pairs, by=["model", "source"]).rename(columns={"gap": "value"})
    of_snip = errors[errors.method == "snip"].rename(columns={"test_error": "value"})
    both = pd.concat([of_snip.assign(quantity=ERROR), costs.assign(quantity=COST)])
    both = both[["model", "source", "quantity", "seed", "value"]].reset_index(drop=True)
    both["images"] = [IMAGES[data_and_init(model)["data"]] for model in both.model]
    return methods.labelled(both)


def costs_of_snip(table: pd.DataFrame) -> pd.Series:
    """Mean error with SNIP minus that of the dense network, by network, from the runs on record.

    Each network is pruned as far as the table prints, and compared with dense ones that were
    trained for as many steps, seed by seed. Networks without such pairs are left out.

    Args:
        table: what ``records.table`` gives, of runs with one such setting a length of training.
    """
    if not len(table):
        return pd.Series(dtype=float)
    printed = table.model.map(paper.table("table2").set_index("model").sparsity)
    as_printed = table[(table.method == "dense") | (table.sparsity == printed)]
    pairs = {"cost": ("snip", "dense")}
    costs = comparisons.gaps(as_printed, pairs, by=["model", "steps"])
    return costs.groupby("model").gap.mean()
