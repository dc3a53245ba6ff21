"""Table 1 of the paper, two networks: its errors beside ours and those of the authors' code."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
import seaborn
from matplotlib.figure import Figure

from snipkit.study import paper
from snipkit.study.report import answers, charts, comparisons, figures, statistics

PRINTED, AUTHORS, OURS = "printed in table 1", "authors' code, means", "our runs"
COLORS = {PRINTED: "black", OURS: "#0173B2", AUTHORS: "#DE8F05"}
DECAY = 5e-4  # the weight decay of the paper's text, which the authors' code has too
MARKERS = {DECAY: "o", 1e-4: "^"}
PROTOCOL = ["optimiser", "weight decay", "factor"]  # what a protocol of ours consists of
AS_READ: dict[str, Any] = {
    "optimiser": "momentum",
    "weight decay": DECAY,
    "factor": 0.1,
}  # the paper's text


def printed() -> pd.DataFrame:
    """The errors that table 1 prints for the dense networks and for SNIP.

    Returns:
        DataFrame with a row an error: ``model``, ``sparsity``, ``method`` ("dense" or "snip") and
        ``error``, in per cent.
    """
    rows = paper.table("table1").query("method in ['Reference', 'SNIP']")
    methods = rows.method.map({"Reference": "dense", "SNIP": "snip"})
    return rows.assign(method=methods)[["model", "sparsity", "method", "error"]]


def by_authors(model: str, sparsity: float) -> pd.Series:
    """Mean errors of the authors' code, which we ran, by the name of its protocol."""
    claim = f"table1-{model}-{100 * sparsity:g}"
    others = paper.table("others")
    rows = others[(others.claim == claim) & (others.source == "authors' code")]
    return rows.set_index("protocol").error


def rises_by_authors(model: str, sparsity: float) -> pd.Series:
    """``by_authors``, minus the mean error of the dense network by the same protocol."""
    return (by_authors(model, sparsity) - by_authors(model, 0.0)).dropna()


def dense_and_pruned(trained: pd.DataFrame, model: str, sparsity: float) -> pd.DataFrame:
    """Errors of the dense network and of the pruned one in pairs: printed, the authors', and ours.

    Args:
        trained: one row a run of SNIP or of the dense network, with the columns "optimiser",
            "weight decay" and "factor", which make a protocol.
        model, sparsity: the pruned network, one that table 1 has.

    Returns:
        DataFrame with a row a pair: ``source`` (``PRINTED``, ``AUTHORS`` or ``OURS``), ``dense``,
        ``pruned``, "weight decay" and ``group``, the name that stands beside it in the picture. A
        pair is two printed numbers, two means of one protocol of the authors' code, or two runs of
        ours with one protocol and seed.
    """
    numbers = printed().set_index(["model", "sparsity"]).error
    pair = {"dense": [numbers[model, 0.0]], "pruned": [numbers[model, sparsity]]}
    parts = [pd.DataFrame(pair).assign(source=PRINTED, group="table 1")]

    pair = {"dense": by_authors(model, 0.0), "pruned": by_authors(model, sparsity)}
    authors = pd.DataFrame(pair).dropna()
    groups = authors.index.str.replace(",.*", "", regex=True)  # without the number of steps
    groups = groups.str.replace("its defaults", "authors' defaults")
    parts.append(authors.assign(source=AUTHORS, group=groups))

    runs = comparisons.rows(trained, model=model)
    ours = runs.pivot(index=[*PROTOCOL, "seed"], columns="sparsity", values="test_error")
    ours = ours.rename(columns={0.0: "dense", sparsity: "pruned"}).reset_index()
    ours = ours.rename(columns={"optimiser": "group"})
    ours = ours.reindex(columns=["dense", "pruned", "weight decay", "group"])  # of no runs, too
    parts.append(ours.assign(source=OURS))

    points = pd.concat(parts, ignore_index=True)
    decay = points["weight decay"].astype(float).fillna(DECAY)
    return points.assign(**{"weight decay": decay})


def values(by_protocol: pd.DataFrame, usual: pd.DataFrame) -> dict[str, object]:
    """The errors of LeNet-300-100 in ``notebooks/answers/rq2_table1.md``, for ``answers.fill``.

    Args:
        by_protocol: one row a run with the columns of ``PROTOCOL``.
        usual: one row a run of the page's own schedule.
    """
    lenet: dict[str, Any] = {"model": "lenet-300-100", "method": "snip"}
    as_read = comparisons.rows(by_protocol, **AS_READ)
    return {
        "ours": comparisons.errors(as_read, **lenet, sparsity=0.98),
        "authors": by_authors("lenet-300-100", 0.98).filter(like="momentum"),
        "rises_98": answers.Estimate(mean_rises(by_protocol, 0.98), 1),
        "rises_90": answers.Estimate(mean_rises(by_protocol, 0.9), 2),
        "errors_95": comparisons.errors(usual, **lenet, sparsity=0.95),
        "shorter": comparisons.errors(usual, **lenet, sparsity=0.98),
    }


def rises(by_protocol: pd.DataFrame) -> dict[str, object]:
    """The rises at 98 % in ``notebooks/answers/rq2_found.md``: ours, and the authors' code's.

    Args:
        by_protocol: see ``values``.
    """
    authors = rises_by_authors("lenet-300-100", 0.98).map("{:.1f}".format)
    return {
        "rises_98": answers.Estimate(mean_rises(by_protocol, 0.98), 1),
        "authors_momentum": authors["momentum, 100,000 steps"],
        "authors_plain": authors["plain SGD, 100,000 steps"],
        "authors_defaults": authors["its defaults, 10,000 steps"],
    }


def mean_rises(by_protocol: pd.DataFrame, sparsity: float) -> pd.Series:
    """The mean rise of the error over the dense network's, in points: a number a protocol.

    Args:
        by_protocol: see ``values``.
        sparsity: of the pruned network.
    """
    pairs = {"pruned": (sparsity, 0.0)}
    of_seeds = comparisons.gaps(by_protocol, pairs, by=PROTOCOL, of="sparsity")
    return of_seeds.groupby(PROTOCOL).gap.mean()


def draw(points: pd.DataFrame, pruned: str, rises: Iterable[float] = ()) -> Figure:
    """The error of the pruned network against that of the dense one, a mark a pair.

    The name of a group stands above its highest mark.

    Args:
        points: what ``dense_and_pruned`` gave.
        pruned: the pruned network in words, such as "98 % removed".
        rises: differences, in points, that have a grey line each.
    """
    figure, (ax,) = figures.panels([""], 3.8, 3.5)
    ax.margins(0.15, 0.12)  # room for the names
    seaborn.scatterplot(
        points, x="dense", y="pruned", hue="source", palette=COLORS, hue_order=COLORS,
        style="weight decay", style_order=MARKERS, markers=MARKERS, s=45, alpha=0.8, ax=ax,
    )  # fmt: skip
    limits = {"xlim": ax.get_xlim(), "ylim": ax.get_ylim()}  # the lines would widen them
    right = ax.get_xlim()[1]
    for rise in rises:
        ax.axline((0, rise), slope=1, color="0.75", lw=0.8, zorder=0)
        ax.text(right, right + rise, f" rise {rise:g}", color="0.35", va="center")
    places = points.groupby("group").agg({"dense": "mean", "pruned": "max"})
    look = {"ha": "center", "weight": "bold"}
    charts.name_points(ax, places.dense, places.pruned, places.index, (0, 8), **look)
    ax.set(**limits, xlabel="dense: test error, %", ylabel=f"{pruned}: test error, %")
    legend = ax.legend(loc="upper left", bbox_to_anchor=(1.2, 1))
    for text in legend.get_texts():
        if text.get_text() in ("source", "weight decay"):  # seaborn's headings
            text.set_weight("bold")
    return figure


def side_by_side(trained: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """All errors of table 1: printed, of some runs of ours, and of the authors' code.

    Args:
        trained: one row a run, of one protocol for each network.
        protocol: its name.

    Returns:
        DataFrame with a row an error, by "network" and "removed, %", and a column a source and
        protocol: numbers as texts, ours with half their 95 % interval, and "" where nothing ran.
    """
    lines = {}
    for row in printed().itertuples():
        cell = {"model": row.model, "method": row.method, "sparsity": row.sparsity}
        line = {("table 1", "printed"): f"{row.error:g}"}
        line["ours", protocol] = statistics.cell(comparisons.errors(trained, **cell), 2)
        for of_authors, error in by_authors(row.model, row.sparsity).items():
            line["authors' code", of_authors] = f"{error:.2f}"
        lines[figures.NETWORKS[row.model], 100 * row.sparsity] = line
    table = pd.DataFrame.from_dict(lines, orient="index").fillna("")
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    table.index = pd.MultiIndex.from_tuples(table.index, names=["network", "removed, %"])
    return table.sort_index()
