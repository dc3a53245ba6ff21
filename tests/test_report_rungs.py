"""The pictures of RQ6: masks by what they keep."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib.colors import same_color

from snipkit.data import Images
from snipkit.study import report
from snipkit.study.report import statistics

MASKS = ["snip, shuffle-units", "snip, shuffle"]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def gaps():
    """Differences of two masks to SNIP at two sparsities, from new and from scored weights."""
    rows = []
    for sparsity in (0.9, 0.98):
        for place, method in enumerate(MASKS):
            for scored in (False, True):
                for seed in range(3):
                    gap = 10 * place + 100 * (sparsity > 0.9) + 5 * scored + seed
                    rows.append(["mlp-1d", sparsity, method, scored, seed, gap])
    columns = ["model", "sparsity", "method", "same_draw", "seed", "gap"]
    table = report.labelled(pd.DataFrame(rows, columns=columns))
    return table.assign(weights=table.same_draw.map(report.WEIGHTS))


def means(ax):
    """Where the marks of a panel are."""
    marks = [line for line in ax.lines if line.get_marker() not in ("", "None", None)]
    places = [float(number) for line in marks for number in line.get_xdata()]
    return sorted(place for place in places if place == place)  # seaborn pads with NaN


def test_each_mask_has_its_row_colour_and_marker(gaps):
    grid = report.mask_rows(gaps[~gaps.same_draw], "gap", "setting")
    left, right = grid.axes.flat
    assert left.get_title() == "MLP, MNIST-1D, 90 % removed"
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert labels == [report.LABELS[method] for method in MASKS]
    assert means(left) == [1, 11] and means(right) == [101, 111]
    for method in MASKS:
        looks = [
            line for line in left.lines if same_color(line.get_color(), report.PALETTE[method])
        ]
        assert report.MARKERS[method] in [line.get_marker() for line in looks]
    assert left.get_xlim() != right.get_xlim()


def test_a_setting_that_is_not_chosen_has_no_panel(gaps):
    chosen = gaps[(gaps.sparsity == 0.98) & ~gaps.same_draw]
    assert len(report.mask_rows(chosen, "gap", "setting").axes.flat) == 1


def test_two_kinds_stand_in_one_row_with_a_legend(gaps):
    grid = report.mask_rows(gaps, "gap", "removed, %", kinds="weights")
    assert [text.get_text() for text in grid.legend.texts] == ["new draw", "scored"]
    assert means(grid.axes.flat[0]) == [1, 6, 11, 16]


def test_a_gain_is_grey_and_its_steps_have_the_colour_that_they_reach(gaps):
    steps = {"the gain": ("random", "snip"), "layer counts": ("random", "snip, shuffle")}
    rows = gaps[(gaps.sparsity == 0.9) & ~gaps.same_draw].drop(columns=["mask", "setting"])
    rows = rows.assign(method=rows.method.map(dict(zip(MASKS, steps))))
    grid = report.step_bars(report.labelled(rows), steps)
    (ax,) = grid.axes.flat
    widths = [bar.get_width() for bar in ax.patches if bar.get_width()]
    assert widths == [1, 11]
    texts = [text.get_text() for text in ax.texts]
    assert texts == [statistics.cell(pd.Series([0.0, 1, 2])), "11.0 ± 2.5"]


def test_a_row_without_a_value_says_that_it_was_not_run(gaps):
    chosen = gaps[~gaps.same_draw & ~((gaps.sparsity > 0.9) & (gaps.method == MASKS[0]))]
    left, right = report.mask_rows(chosen, "gap", "setting").axes.flat
    assert [text.get_text() for text in left.texts] == []
    assert [(text.get_text(), text.get_position()[1]) for text in right.texts] == [("not run", 0)]


def test_examples_of_a_class_are_the_first_ones():
    signals = torch.zeros(6, 1, 1, 4, dtype=torch.uint8)
    images = Images(signals, torch.tensor([0, 1, 1, 0, 1, 1]), mean=(0.0,), std=(1.0,))
    grid, table = report.example_signals(images, classes=(1, 0), examples=2)
    assert [ax.get_title() for ax in grid.axes.flat] == ["class 1", "class 0"]
    assert list(table.example.unique()) == [1, 2, 0, 3]
    assert list(table[table.example == 2].value) == [6, 6, 6, 6]  # above the first


def test_what_is_expected_stands_beside_what_was_kept():
    odds = torch.tensor([[0.5, 0.25], [0.0, 0.25]])
    mask = torch.tensor([[True, False], [False, False]])
    grid, table = report.expected_and_kept(odds, mask, "two pixels, two units")
    assert list(table.expected) == [0.5, 0.5, 0.75, 0.25] and list(table.kept) == [1, 0, 1, 0]
    assert [ax.get_title() for ax in grid.axes.flat] == ["each pixel", "each hidden unit"]
    assert grid.axes.flat[0].get_xscale() == grid.axes.flat[1].get_yscale() == "symlog"


def test_connections_of_pixels_and_units_are_counted():
    mask = torch.zeros(2, 784, dtype=torch.bool)
    mask[1, :3] = True
    figure, table = report.pixels_and_units({"SNIP": mask})
    assert figure.axes[0].get_title() == "SNIP:\n781 pixels without any"
    assert list(table.unit) == [1, 2] and list(table.connections) == [3, 0]
