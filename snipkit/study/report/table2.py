"""Table 2 of the paper, twelve networks: its runs as a grid, and its errors beside ours."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn

from snipkit.study import paper
from snipkit.study.report import comparisons, grids, methods, statistics, tables
from snipkit.study.train.recipes import recipe_of
from snipkit.study.train.runs import Run

RECURRENT = ("lstm-s", "lstm-b", "gru-s", "gru-b")
IMAGES = {"cifar-10": "CIFAR-10", "mnist": "MNIST, row by row"}
#: whose numbers, or how long we trained → colour and marker; of our runs, the longer the darker
LOOKS = {
    "printed": ("#000000", "s"),
    "others": ("#949494", "X"),
    "shorter": ("#89BEDC", "v"),
    "usual": ("#0173B2", "o"),
}
ERROR, COST = "test error with SNIP, %", "SNIP minus dense, points"
TITLES = {ERROR: "error", COST: "gap to dense"}  # a quantity, in the title of a panel
STEPS_PER_EPOCH = 45_000 / 128  # on CIFAR-10; 5,000 images are for validation


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


def length(model: str, steps: int) -> str:
    """How long a training is, in words: epochs on CIFAR-10, steps on MNIST."""
    if model in RECURRENT:
        return f"{steps:,} steps"
    return f"{steps / STEPS_PER_EPOCH:.0f} epochs"


def by_source(trained: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Errors with SNIP, and what they are above those of the dense networks, from all sources.

    Printed are the paper's numbers (``paper.table("table2")``). Those of others are
    ``paper.table("others_table2")``.

    Args:
        trained: how long ("usual", or another key of ``LOOKS``) → rows of ``records.table``, a run
            each, of one setting per network and method. Only networks of the first are listed.

    Returns:
        DataFrame with a row a seed: ``network``, ``images`` (the data set, in words), ``source``
        ("printed", "others" or "ours, 30 epochs"), ``look`` (a key of ``LOOKS``), ``quantity``
        (``ERROR`` or ``COST``), ``seed`` (0 for a number that is printed) and ``value``. Costs are
        taken seed by seed.
    """
    columns = ["model", "source", "look", "method", "seed", "test_error"]
    parts = []
    for source, name in (("printed", "table2"), ("others", "others_table2")):
        numbers = paper.table(name).rename(columns={"error_dense": "dense", "error_pruned": "snip"})
        numbers = numbers.melt("model", ["dense", "snip"], "method", "test_error")
        parts.append(numbers.assign(source=source, look=source, seed=0)[columns])
    for look, rows in trained.items():
        if len(rows):
            lengths = [length(model, steps) for model, steps in zip(rows.model, rows.steps)]
            ours = [f"ours, {words}" for words in lengths]
            parts.append(rows.assign(source=ours, look=look)[columns])
    errors = pd.concat(parts, ignore_index=True)
    errors = errors[errors.model.isin(next(iter(trained.values())).model)]

    setting = ["model", "source", "look"]
    costs = comparisons.gaps(errors, {"snip": ("snip", "dense")}, by=setting)
    costs = costs.rename(columns={"gap": "value"})
    of_snip = errors[errors.method == "snip"].rename(columns={"test_error": "value"})
    both = pd.concat([of_snip.assign(quantity=ERROR), costs.assign(quantity=COST)])
    both = both[[*setting, "quantity", "seed", "value"]].reset_index(drop=True)
    both["images"] = [IMAGES[data_and_init(model)["data"]] for model in both.model]
    return methods.labelled(both)


def side_by_side(both: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """The means of ``by_source`` as a table to show: a row a network, a column a source.

    Behind ours stands n, the number of seeds. There is no interval of fewer than
    ``statistics.FEWEST``, as in the picture.
    """
    fewest = statistics.FEWEST
    columns = ["quantity", "source"]
    means = tables.mean_table(both, "network", columns, "value", digits, count=True, fewest=fewest)
    for column in means:
        if not column[1].startswith("ours"):  # one number, whatever it is the mean of
            means[column] = means[column].str.removesuffix(" (1)")
    return means


def draw(both: pd.DataFrame):
    """The numbers of ``by_source``: a row of panels a data set, a column a quantity.

    Several seeds become a mean with its 95 % interval. Each row of panels has its own legend, since
    it says how long we trained.

    Returns:
        The matplotlib figure; networks are the rows of a panel.
    """
    by_images = dict(list(both.groupby("images")))
    sizes = [part.network.nunique() for part in by_images.values()]
    inches = 9.4, 0.7 * len(sizes) + 0.41 * sum(sizes)
    figure, axes = plt.subplots(
        len(sizes), len(TITLES), squeeze=False, sharey="row", height_ratios=sizes, figsize=inches,
        layout="constrained",
    )  # fmt: skip
    for axes_of_images, (images, part) in zip(axes, by_images.items()):
        looks = {look: style for look, style in LOOKS.items() if look in set(part["look"])}
        for ax, (quantity, words) in zip(axes_of_images, TITLES.items()):
            _draw_quantity(part[part.quantity == quantity], list(part.network.unique()), looks, ax)
            ax.set(title=f"{images}: {words}", xlabel=f"{quantity} (left: better)", ylabel="")
        handles, _ = axes_of_images[0].get_legend_handles_labels()
        names = [", ".join(part[part["look"] == look].source.unique()) for look in looks]
        ax.legend(handles, names, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _draw_quantity(rows, networks, looks, ax):
    """One panel of ``draw``."""
    seaborn.pointplot(
        rows, x="value", y="network", order=networks, hue="look", hue_order=looks,
        palette=[color for color, _ in looks.values()],
        markers=[marker for _, marker in looks.values()], linestyle="none",
        dodge=len(looks) > 1 and 0.6, errorbar=statistics.errorbar, err_kws={"linewidth": 1.2},
        markersize=5, ax=ax,
    )  # fmt: skip
    ax.get_legend().remove()
    if ax.get_xlim()[0] < 0:
        ax.axvline(0, color="black", lw=0.8)
    for between in range(len(networks) - 1):
        ax.axhline(between + 0.5, color="0.85", lw=0.8, zorder=0)
    ours = rows[rows.source.str.startswith("ours")]
    spread = 0.3 if len(looks) > 1 else 0  # half of seaborn's ``dodge`` above
    heights = dict(zip(looks, np.linspace(-spread, spread, len(looks))))
    for place, network in enumerate(networks):
        seeds = ours[ours.network == network].groupby("look").value
        if not len(seeds):
            at = {"xycoords": ax.get_yaxis_transform(), "ha": "right", "va": "center"}
            ax.annotate("none of ours", (0.98, place), color="0.5", size=8, **at)
        for look, values in seeds:
            if len(values) < statistics.FEWEST:  # a mark without a bar
                at = {"textcoords": "offset points", "ha": "right", "va": "center"}
                point = values.mean(), place + heights[look]
                ax.annotate(f"n = {len(values)}", point, (-6, 0), size=8, **at)
