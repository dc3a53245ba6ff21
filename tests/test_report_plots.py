"""Curves and points with names, differences beside a baseline, and bars."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snipkit.study.report import methods, plots, statistics

COLORS = {"a": "#0173B2", "b": "#808080"}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def errors():
    """Errors of two groups for 1, 10 and 100 images, at two sparsities; group b at one of them."""
    rows = []
    for removed, groups in ((90, "ab"), (98, "a")):
        for group in groups:
            for images in (1, 10, 100):
                for seed in range(3):
                    gap = removed / 10 + images + seed + (group == "b")
                    rows.append([removed, group, images, seed, gap])
    return pd.DataFrame(rows, columns=["removed", "group", "images", "seed", "gap"])


def lines_in(ax, color):
    return [line for line in ax.lines if line.get_color() == color and len(line.get_xdata()) > 2]


def test_a_panel_a_setting_and_a_named_line_a_group(errors):
    figure = plots.curves(
        errors, "images", "gap", "group", COLORS, col="removed", title="{} %",
        counts=[1, 10, 100], names={100: "all"},
    )  # fmt: skip
    left, right = figure.axes
    assert [left.get_title(), right.get_title()] == ["90 %", "98 %"]
    line = lines_in(left, COLORS["b"])[0]
    assert list(line.get_ydata()) == pytest.approx([12, 21, 111])  # means of three seeds
    assert [text.get_text() for text in left.texts] == ["a", "b"]
    assert [text.get_text() for text in right.texts] == ["a"]
    assert [text.get_text() for text in left.get_xticklabels()] == ["1", "10", "all"]


def test_bars_of_curves_are_the_studys_intervals(errors):
    ax = plots.curves(errors, "images", "gap", "group", COLORS, col="removed").axes[1]
    _, low, high = statistics.interval([9.8 + 1 + seed for seed in range(3)])
    (bars,) = ax.collections
    assert bars.get_segments()[0][:, 1] == pytest.approx([low, high])


def test_a_row_a_group_and_its_mean_beside_the_baseline(errors):
    at_90 = errors[(errors.removed == 90) & (errors.images == 1)]
    (ax,) = plots.points(at_90, "group", COLORS, order=["b", "a"], seeds=True).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a"]
    means = {}
    for line in ax.lines:
        if line.get_marker() == "o":
            for x, y in line.get_xydata():
                if not np.isnan(x):
                    means[y] = x
    assert means == pytest.approx({0: 12, 1: 11})
    assert sum(len(dots.get_offsets()) for dots in ax.collections) == 6  # a dot a seed


def test_groups_in_one_row_have_a_legend_and_their_markers(errors):
    figure = plots.points(
        errors.assign(removed=errors.removed.astype(str)),
        "removed",
        COLORS,
        hue="group",
        markers={"a": "s", "b": "D"},
    )
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert {line.get_marker() for line in figure.axes[0].lines} >= {"s", "D"}


def test_rows_stand_in_the_order_of_their_categories(errors):
    ordered = errors.assign(group=pd.Categorical(errors.group, ["z", "b", "a"]))
    (ax,) = plots.points(ordered, "group", COLORS).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a"]


def test_panels_may_have_scales_of_their_own(errors):
    left, right = plots.points(errors, "group", COLORS, col="removed", sharex=False).axes
    assert left.get_xlim() != right.get_xlim()


def test_our_means_and_the_papers_stand_in_one_panel():
    rows = [("ours", 0.1, 0.3), ("ours", 0.9, 0.5), ("the paper's", 0.1, 0.0)]
    table = pd.DataFrame(rows, columns=["source", "sparsity", "rise"]).assign(model="lenet-300-100")
    grid = plots.ours_and_printed(methods.labelled(table), "rise", band=0.2)
    ax = grid.axes.flat[0]
    line = next(line for line in ax.lines if len(line.get_xdata()) == 2)
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([10, 90], [0.3, 0.5])
    assert line.get_color() == methods.PALETTE["snip"]
    assert [text.get_text() for text in grid.legend.get_texts()] == ["ours", "the paper's"]
    (band,) = ax.patches
    assert (band.get_y(), band.get_height()) == (-0.2, 0.4)


def test_sparsities_are_equally_far_apart():
    rows = [(sparsity, seed, 10 + seed) for sparsity in (0.9, 0.98, 0.995) for seed in range(3)]
    table = pd.DataFrame(rows, columns=["sparsity", "seed", "share"])
    table = methods.labelled(table.assign(model="lenet-300-100", method="snip"))
    ax = plots.by_sparsity(table, "share").axes.flat[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["90", "98", "99.5"]
    line = next(line for line in ax.lines if len(line.get_xdata()) == 3)
    assert list(line.get_ydata()) == [11, 11, 11] and ax.get_title() == "LeNet-300-100"
    assert line.get_color() == methods.PALETTE["snip"]


def test_points_have_names_where_there_is_room():
    points = pd.DataFrame({"on a path": [1, 10, 1.01, 3], "error": [9, 2, 9.0, 20]})
    points["mask"] = ["SNIP", "SNIP", "random", "random"]
    points["name"] = ["99", "90", "98", "95"]
    points["network"] = "LeNet-300-100"
    offsets = {"random": 10, "SNIP": 10}
    grid = plots.traced(
        points, "on a path", "error", "name", offsets=offsets, ticks=([1, 10], [2, 5, 20])
    )  # fmt: skip
    ax = grid.axes.flat[0]
    assert [text.get_text() for text in ax.texts] == ["98", "95", "90"]  # "98" is where "99" was
    assert {text.get_color() for text in ax.texts[:2]} == {methods.PALETTE["random"]}
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert list(ax.get_lines()[0].get_ydata()) == [9, 2]


def test_bars_are_means_with_their_numbers_behind_them(errors):
    at_90 = errors[(errors.removed == 90) & (errors.images < 100)].astype({"images": str})
    wide = at_90.pivot(index=["group", "seed"], columns="images", values="gap").reset_index("group")
    ax = plots.bars(wide, "group", "error, points", line=15).ax
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("error, points", "")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "10"]
    lengths = [bar.get_width() for bars in ax.containers for bar in bars]
    assert lengths == pytest.approx([11, 20, 12, 21])
    assert [text.get_text() for text in ax.texts] == ["11.0", "20.0", "12.0", "21.0"]
    _, low, high = statistics.interval([10, 11, 12])
    ends = [list(line.get_xdata()) for line in ax.lines]
    assert ends[0] == pytest.approx([low, high]) and ends[-1] == [15, 15]
