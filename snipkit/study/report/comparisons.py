"""Which runs of a table are meant, and how two groups of them differ, seed by seed."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from snipkit.study import notebooks, paths
from snipkit.study.report import statistics
from snipkit.study.train import ladder_runs, records
from snipkit.study.train.runs import Run

_OUTCOMES = {
    "id", "seed", "training", "test_error", "best_of_last_five", "test_loss", "train_loss",
    "train_error", "empty_layers", "effective_sparsity", "seconds",
}  # fmt: skip

Chosen = str | Mapping | Sequence[Run]


def on_record(page: str, profile: str) -> pd.DataFrame:
    """``records.table`` of a page's whole grid, before the page itself has planned it.

    So a page can begin with its answer, and plan each part where it is needed.

    Args:
        page: the name of a notebook.
        profile: the scale of its grid and its records.
    """
    return records.table(notebooks.grid(page, profile), records.read(paths.results(profile)))


def recorded(profile: str, **fields) -> pd.DataFrame:
    """``records.table`` of all runs on record that have these fields, whichever grid planned them.

    Args:
        profile: the scale of the records.
        fields: of ``Run``, such as ``data="tiny-imagenet"``.
    """
    by_id = records.read(paths.results(profile))
    chosen = []
    for record in by_id.values():
        if all(getattr(record.run, name) == value for name, value in fields.items()):
            chosen.append(record.run)
    return records.table(chosen, by_id)


def biases_kept(profile: str) -> pd.DataFrame:
    """SNIP on the MLP for MNIST-1D, with its biases as it ranks them and with all of them kept.

    These are runs of RQ6, with seeds of their own (from 100 on).

    Returns:
        ``recorded``, with the method "snip, biases" and the sparsity of all parameters where the
        biases are kept; "snip" otherwise.
    """
    fields = {"model": "mlp-1d", "criterion": "snip", "ablation": "none", "same_draw": False}
    table = recorded(profile, scoring_batch=100, **fields)
    if not len(table):
        return table
    table = table[table.seed >= ladder_runs.FIRST_SEED]
    share = table.sparsity.where(table.biases, ladder_runs.of_all_parameters(table.sparsity))
    method = table.method.where(table.biases, "snip, biases")
    return table.assign(sparsity=share, method=method)


def rows(table: pd.DataFrame, runs: Iterable[Run] | None = None, **fields) -> pd.DataFrame:
    """The rows of some runs, or those with some values, or both.

    Args:
        table: what ``records.table`` gives: one row a run that is on record.
        runs: a part of the grid; None: all.
        fields: column → its value, or a list of values (None stands for a missing one):
            ``rows(table, method=["snip", "random"], sparsity=0.98)``.

    Raises:
        ValueError: the table has no such column.
    """
    if not len(table):
        return table
    chosen = pd.Series(True, index=table.index)
    if runs is not None:
        chosen &= table["id"].isin({run.id for run in runs})
    for column, value in fields.items():
        if column not in table:
            raise ValueError(
                f"the table has no column {column!r}; it has {', '.join(map(str, table))}"
            )
        values = value if isinstance(value, list | tuple | set) else [value]
        equal = table[column].isin([item for item in values if item is not None])
        if None in values:
            equal |= table[column].isna()
        chosen &= equal
    return table[chosen]


def collected(
    table: pd.DataFrame, parts: Mapping[object, Sequence[Run]], *columns: str
) -> pd.DataFrame:
    """The rows of several parts of a grid, one below the other, each with its key in new columns.

    A run that is in two parts has a row in each.

    Args:
        table: see ``rows``.
        parts: key → runs. With several columns a key is a tuple, a value for each.
        columns: their names: ``collected(table, {(0.9, "SNIP"): runs}, "sparsity", "mask")``.
    """
    labelled_parts = []
    for key, runs in parts.items():
        values = key if isinstance(key, tuple) else (key,)
        labelled_parts.append(rows(table, runs).assign(**dict(zip(columns, values, strict=True))))
    filled = [part for part in labelled_parts if len(part)]
    if not filled:
        return table[:0].assign(**dict.fromkeys(columns))
    return pd.concat(filled, ignore_index=True)


def curves(table: pd.DataFrame, value: str = "train_loss", points: int = 60) -> pd.DataFrame:
    """Training curves as seaborn draws them: a row per point.

    Args:
        table: one row a run.
        value: a column of curves.
        points: each is the mean of one of so many equal parts of the training.

    Returns:
        The table's other columns, "% of the training" (the middle of the part) and ``value``. A run
        that diverged has no curve, and no row.
    """
    parts = []
    for _, run in table.iterrows():
        curve = np.asarray(run[value], float)
        pieces = np.array_split(curve, min(points, len(curve)) or 1) if len(curve) else []
        middles = 100 * (np.arange(len(pieces)) + 0.5) / max(1, len(pieces))
        means = [piece.mean() for piece in pieces]
        others = run.drop(["train_loss", "train_error"]).to_dict()
        parts.append(pd.DataFrame({"% of the training": middles, value: means}).assign(**others))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def beside_the_paper(ours: pd.DataFrame, printed: pd.DataFrame, by: str) -> pd.DataFrame:
    """Training curves of both, a row per point, of what both have.

    Args:
        ours: one row a run, with the column ``by``.
        printed: ``paper.table("figure4")`` or ``"figure7"``, with the column ``by`` too: each row
            is the mean of 500 of 30,000 iterations.
        by: the column that tells the curves apart.

    Returns:
        Columns source ("the paper", "ours"), ``by``, "% of the training", "training loss, nats".
    """
    loss = {"train_loss": "training loss, nats"}
    share = (printed.iteration + 250) / 300
    parts = [
        printed.assign(source="the paper", **{"% of the training": share}).rename(columns=loss)
    ]
    if len(ours):
        parts.append(curves(ours).assign(source="ours").rename(columns=loss))
    both = pd.concat(parts, ignore_index=True)
    in_both = both[by].isin(set(ours.get(by, [])))
    return both[in_both][["source", by, "% of the training", *loss.values()]]


def last_sixth(curve) -> float:
    """The mean of a training curve's last sixth, 5,000 of 30,000 steps; NaN where it diverged."""
    return float(np.mean(curve[-max(1, len(curve) // 6) :])) if len(curve) else float("nan")


def errors(
    table: pd.DataFrame, runs: Iterable[Run] | None = None, value: str = "test_error", **fields
) -> pd.Series:
    """One number a seed, of runs that differ in nothing else.

    Args:
        table, runs, fields: see ``rows``.
        value: the column wanted.

    Returns:
        ``value`` by seed, NaN where training diverged; empty where nothing is on record.

    Raises:
        ValueError: two runs have one seed, so that more than one setting was meant. It says in what
            they differ.
    """
    chosen = rows(table, runs, **fields)
    if not len(chosen):
        return pd.Series(dtype=float, name=value, index=pd.Index([], dtype=int, name="seed"))
    by_seed = chosen.set_index("seed")
    if not by_seed.index.is_unique:
        apart = [column for column in settings(chosen) if chosen[column].astype(str).nunique() > 1]
        raise ValueError(
            f"several runs have one seed; choose among them by {' or '.join(apart) or 'id'}"
        )
    return by_seed[value]


def gap(
    table: pd.DataFrame, first: Chosen, second: Chosen, value: str = "test_error", **fields
) -> pd.Series:
    """``first`` minus ``second``, for each seed that both have; NaN where one diverged.

    Args:
        table, value: see ``errors``.
        first, second: a method, or columns and their values, or a part of the grid: ``gap(table,
            "random", "snip", sparsity=0.98)``, ``gap(table, parts["longer"], parts["usual"])``.
        fields: columns and values that both have.
    """
    sides = []
    for chosen in (first, second):
        if isinstance(chosen, str):
            chosen = {"method": chosen}
        if isinstance(chosen, Mapping):
            sides.append(errors(table, value=value, **fields | dict(chosen)))
        else:
            sides.append(errors(table, chosen, value, **fields))
    return statistics.difference(*sides)


def gaps(
    table: pd.DataFrame,
    pairs: str | Mapping[str, tuple[object, object]],
    by: Sequence[str] = ("model", "sparsity"),
    of: str = "method",
    value: str = "test_error",
) -> pd.DataFrame:
    """Differences seed by seed, in every setting: a row a pair of runs.

    That is what seaborn draws, and what ``statistics.summarise`` takes.

    Args:
        table: one row a run.
        pairs: the label of a difference → (minuend, subtrahend), two values of the column ``of``;
            or one value, which is then subtracted from each of the others, and their own names are
            the labels.
        by: columns that make a setting.
        of: the column that tells the two apart.
        value: the column whose differences are taken.

    Returns:
        DataFrame with the columns of ``by``, ``of`` (the label), ``seed`` and ``gap``. Where one
        seed of a difference diverged all of its rows are NaN, so that no mean is taken over the
        others.
    """
    by = list(by)
    columns = [*by, of, "seed", "gap"]
    if not len(table):
        return pd.DataFrame(columns=columns)
    if isinstance(pairs, str):
        baseline = pairs
        pairs = {name: (name, baseline) for name in table[of].unique() if name != baseline}
    parts = []
    for setting, group in table.groupby(by, sort=False):
        for label, (first, second) in pairs.items():
            difference = gap(group, {of: first}, {of: second}, value)
            part = pd.DataFrame({"seed": difference.index, "gap": difference.to_numpy()})
            parts.append(part.assign(**dict(zip(by, setting)), **{of: label}))
    if not parts:
        return pd.DataFrame(columns=columns)
    return statistics.blank_diverged(pd.concat(parts, ignore_index=True)[columns], [*by, of], "gap")


def in_pairs(
    table: pd.DataFrame, by: Sequence[str] = ("model", "sparsity"), of: str = "method"
) -> tuple[int, int]:
    """In how many settings all methods have the same seeds, and the number of settings.

    Args:
        table: one row a run.
        by: columns that make a setting.
        of: the column that tells apart what is compared.
    """
    equal = 0
    groups = table.groupby(list(by))
    for _, group in groups:
        seeds_of_methods = group.groupby(of).seed.agg(frozenset)
        equal += seeds_of_methods.nunique() == 1
    return equal, len(groups)


def against(
    table: pd.DataFrame, baseline, of: str, by: Sequence[str], digits: int = 1
) -> pd.DataFrame:
    """A table to read: the errors of each group, and their differences to a baseline's.

    Args:
        table: one row a run.
        baseline: a value of the column ``of``.
        of: the column that tells the groups apart.
        by: columns that make a setting; differences are taken within it.
        digits: decimals.

    Returns:
        DataFrame with the columns of ``by`` and ``of`` as its index, in the order of ``by``, and
        "test error, %" and "minus <baseline>" (means with half their 95 % intervals; "" for the
        baseline itself) and "n". Empty where nothing is on record.
    """
    index, minus = [*by, of], f"minus {baseline}"
    columns = ["test error, %", minus, "n"]
    if not len(table):
        return pd.DataFrame(columns=columns)
    pairs = {group: (group, baseline) for group in table[of].unique() if group != baseline}
    differences = statistics.means(gaps(table, pairs, by, of), index, "gap", digits=digits)
    differences = differences.set_index(index)[["gap"]].set_axis([minus], axis=1)
    errors_of = statistics.means(table, index, "test_error", digits=digits).set_index(index)
    errors_of = errors_of.set_axis(["test error, %", "n"], axis=1)
    both = errors_of.join(differences).fillna({minus: ""})
    return both[columns].sort_index(level=list(by), sort_remaining=False, kind="stable")


def settings(table: pd.DataFrame) -> list[str]:
    """The columns that say what a run was, without its seed and what came of it."""
    return [column for column in table if column not in _OUTCOMES]
