"""The pictures of RQ6: masks that keep different counts, side by side in the study's colours."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn
from torch import Tensor

from snipkit.data import Images
from snipkit.study.report import charts, methods, statistics

#: ``same_draw`` of a run → the weights that it trained, in words
WEIGHTS = {False: "new draw", True: "scored"}
#: two kinds that stand in one row, one above the other → colour and marker
_KINDS = {
    "new draw": ("0.1", "o"),
    "scored": ("0.6", "s"),
    "as the rule ranks them": ("0.6", "s"),
    "all kept": ("0.1", "o"),
}
_POINTS = {
    "kind": "point",
    "linestyle": "none",
    "errorbar": statistics.errorbar,
    "markersize": 5,
    "linewidth": 1.5,
}


def mask_rows(
    table: pd.DataFrame,
    x: str,
    col: str,
    kinds: str | None = None,
    wrap: int = 2,
    height: float = 1.7,
    aspect: float = 2.0,
):
    """Means of ``x`` with the study's interval: a panel a setting, and a row a mask.

    Args:
        table: what ``methods.labelled`` gives: a row a run, or a row a difference.
        x: the column on the axis, with a scale of its own in each panel. Where it is "gap", a
            dashed line at 0 is the mask that was subtracted.
        col: the column that makes panels. Where a panel has no run of a mask, its row says so.
        kinds: a column of two kinds that stand in one row: "weights" or "biases". None: each mask
            has its own colour and marker.
        wrap: panels in a line.
        height, aspect: of a panel: inches, and width / height.

    Returns:
        seaborn's FacetGrid.
    """
    table = table.assign(mask=table["mask"].cat.remove_unused_categories())
    if col == "setting":
        table["setting"] = table["setting"].cat.remove_unused_categories()
    dodge: bool | float = False
    if kinds is None:
        names = list(table["mask"].cat.categories)
        looks = {name: (methods.PALETTE[name], methods.MARKERS[name]) for name in names}
    else:
        names = [name for name in _KINDS if name in set(table[kinds])]
        looks, dodge = _KINDS, 0.3
    grid = seaborn.catplot(
        table, x=x, y="mask", col=col, col_wrap=wrap, hue=kinds or "mask",
        hue_order=names, palette=[looks[name][0] for name in names],
        markers=[looks[name][1] for name in names], dodge=dodge, legend=kinds is not None,
        sharex=False, height=height, aspect=aspect, **_POINTS,
    )  # fmt: skip
    grid.set_titles("{col_name}" if col == "setting" else "{col_name:g} % removed")
    grid.set_axis_labels("points worse than SNIP's masks" if x == "gap" else x, "")
    if x == "gap":
        grid.refline(x=0)
    _say_what_was_not_run(grid, table, col)
    _names_at_the_left(grid, wrap)
    return grid.tight_layout() if kinds is None else grid


def crossed_masks(table: pd.DataFrame, x: str, hue: str, looks: Mapping[str, str]):
    """Test errors of two crossed properties of a mask: a panel a sparsity.

    Args:
        table: what ``methods.labelled`` gives, a row a run.
        x: the column of the first property, in categories.
        hue: the column of the second property.
        looks: value of ``hue`` → the method whose colour and marker it gets, in drawing order: the
            first keeps most of the mask.

    Returns:
        seaborn's FacetGrid; each panel has its own axis of errors.
    """
    grid = seaborn.catplot(
        table, x=x, y="test error, %", col="removed, %", col_wrap=2, hue=hue, hue_order=looks,
        palette=[methods.PALETTE[method] for method in looks.values()],
        markers=[methods.MARKERS[method] for method in looks.values()], dodge=0.45,
        sharey=False, height=2.1, aspect=1.5, **_POINTS,
    )  # fmt: skip
    grid.set_xlabels(f"{x} (← in a group: keeps more)")
    return grid.set_titles("{col_name:g} % removed")


def step_bars(gaps: pd.DataFrame, steps: Mapping[str, tuple[str, str]], wrap: int = 3):
    """A gain and the steps that it is made of, as bars: a panel a setting, numbers at the right.

    Args:
        gaps: what ``comparisons.gaps`` gives for ``steps``, through ``methods.labelled``.
        steps: name → the two masks between which the step lies. The first is the whole gain, grey;
            each other one has the colour of the mask that it reaches.
        wrap: panels in a line.

    Returns:
        seaborn's FacetGrid.
    """
    settings = gaps["setting"].cat.remove_unused_categories()
    colors = [methods.PALETTE[reached] for _, reached in steps.values()]
    shown = gaps.assign(setting=settings).rename(columns={"mask": "step"})
    grid = seaborn.catplot(
        shown, kind="bar", x="gap", y="step", col="setting", col_wrap=wrap, hue="step",
        palette=["0.5", *colors[1:]], errorbar=statistics.errorbar, err_kws={"linewidth": 1.5},
        dodge=False, legend=False, sharex=False, height=1.5, aspect=1.95,
    )  # fmt: skip
    grid.set_titles("{col_name}").set_axis_labels("points of test error", "").refline(x=0, ls="-")
    charts.write_means(grid, shown, "gap", "step", "setting")
    _names_at_the_left(grid, wrap)
    return grid.tight_layout()


def example_signals(images: Images, classes: Sequence[int], examples: int = 3):
    """Signals of some classes, one above the other: a panel a class.

    Args:
        images: signals and their classes, such as the training set of MNIST-1D.
        classes: one a panel.
        examples: of each class, the first so many.

    Returns:
        seaborn's FacetGrid, and a table with the columns "class", "example" (its place in
        ``images``), "point" and "value".
    """
    parts: list[pd.DataFrame] = []
    for label in classes:
        places = (images.labels == label).nonzero()[:examples, 0].tolist()
        for row, place in enumerate(places):
            values = images[place][0].flatten().numpy().round(3) + 6 * row  # moved apart
            columns = {"class": label, "example": place, "point": range(len(values))}
            parts.append(pd.DataFrame(columns | {"value": values}))
    table = pd.concat(parts, ignore_index=True)
    grid = seaborn.relplot(
        table, kind="line", x="point", y="value", col="class", col_order=classes, units="example",
        estimator=None, height=2.1, aspect=0.9, lw=1.2,
    )  # fmt: skip
    grid.set_titles("class {col_name}").set(yticks=[]).set_ylabels("value (moved apart)")
    return grid.tight_layout(), table


def expected_and_kept(odds: Tensor, mask: Tensor, title: str):
    """How many connections each pixel and each hidden unit keeps, against how many are expected.

    Both axes are linear up to 2, so that they have a place for 0, and logarithmic beyond.

    Args:
        odds: the probability of each connection of the first layer, (units, pixels).
        mask: the bool tensor of the connections that were kept, of the same shape.
        title: of the picture.

    Returns:
        seaborn's FacetGrid, and a table with the columns "expected", "kept" and "side".
    """
    parts: list[pd.DataFrame] = []
    for side, dim in (("each pixel", 0), ("each hidden unit", 1)):
        columns = {"expected": odds.sum(dim), "kept": mask.sum(dim)}
        parts.append(pd.DataFrame(columns | {"side": side}))
    table = pd.concat(parts, ignore_index=True)
    grid = seaborn.relplot(
        table, x="expected", y="kept", col="side", s=16, alpha=0.4, linewidth=0, height=2.6,
        aspect=1.3,
    )  # fmt: skip
    ticks = [0, 1, 2, 5, 10, 20, 50]
    for ax in grid.axes.flat:
        ax.plot([0, 60], [0, 60], color="0.3", lw=0.8)
        ax.set(xscale="symlog", yscale="symlog", xticks=ticks, yticks=ticks)
        ax.set(xticklabels=ticks, yticklabels=ticks)
        ax.minorticks_off()
    grid.set_titles("{col_name}")
    grid.set_axis_labels("connections expected from g", "kept by SNIP")
    grid.figure.suptitle(title, fontsize="medium")
    return grid.tight_layout(), table


def pixels_and_units(masks: Mapping[str, Tensor]):
    """How many connections each pixel sends, as images, and each hidden unit receives, as lines.

    Args:
        masks: label → the first layer's bool tensor of (units, 784 pixels).

    Returns:
        The matplotlib figure, and a table with the columns "mask", "unit" (by rank, from 1) and
        "connections".
    """
    figure, axes = plt.subplots(
        1, len(masks) + 1, figsize=(9, 2.2), width_ratios=[*[1] * len(masks), 1.7],
        layout="constrained",
    )  # fmt: skip
    received: list[pd.DataFrame] = []
    for ax, (label, mask) in zip(axes, masks.items()):
        of_pixels = mask.sum(0)
        seaborn.heatmap(
            of_pixels.view(28, 28), ax=ax, vmax=20, cmap="viridis", square=True,
            xticklabels=[], yticklabels=[], cbar=len(received) == len(masks) - 1,
        )  # fmt: skip
        ax.set_title(f"{label}:\n{int((of_pixels == 0).sum())} pixels without any")
        ranked = mask.sum(1).sort(descending=True).values
        units = {"mask": label, "unit": range(1, len(ranked) + 1), "connections": ranked}
        received.append(pd.DataFrame(units))
    table = pd.concat(received, ignore_index=True)
    seaborn.lineplot(
        table, x="unit", y="connections", hue="mask", style="mask", palette=methods.PALETTE,
        ax=axes[-1],
    )  # fmt: skip
    axes[-1].set(xlabel="hidden unit, by rank", title="connections per hidden unit")
    axes[-1].legend(title=None)
    return figure, table


def _say_what_was_not_run(grid, table, col):
    """Words in the empty rows of a panel, where a mark would else seem forgotten."""
    for value, ax in grid.axes_dict.items():
        run = set(table.loc[table[col] == value, "mask"])
        for row, mask in enumerate(table["mask"].cat.categories):
            if mask not in run:
                place = ax.get_yaxis_transform()
                ax.text(0.5, row, "not run", transform=place, ha="center", va="center", color="0.4")


def _names_at_the_left(grid, wrap):
    """Only the first panel of a line names its rows."""
    for place, ax in enumerate(grid.axes.flat):
        ax.tick_params(labelleft=place % wrap == 0, left=place % wrap == 0)
