"""One look a method, and the study's interval in seaborn's pictures."""

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import seaborn
from matplotlib.colors import to_rgb

from snipkit.study import report
from snipkit.study.report import statistics
from snipkit.study.report.methods import METHODS, TOGETHER

NAN = math.nan
# Machado, Oliveira and Fernandes (2009): what red-blind and green-blind readers see, in linear RGB
VISION = {
    "full": np.eye(3),
    "red-blind": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "green-blind": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def linear(color):
    values = np.array(to_rgb(color))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(values):
    """CIE L*a*b* of linear RGB, in which distances are what is seen."""
    xyz = [
        [0.4124, 0.3576, 0.1805],
        [0.2126, 0.7152, 0.0722],
        [0.0193, 0.1192, 0.9505],
    ] @ values.clip(0, 1)
    share = xyz / [0.9505, 1, 1.089]
    x, y, z = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("picture", TOGETHER)
def test_methods_of_one_picture_can_be_told_apart(picture, vision):
    seen = {name: lab(VISION[vision] @ linear(METHODS[name].color)) for name in TOGETHER[picture]}
    for first, second in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[first] - seen[second]) > (25 if vision == "full" else 12), (
            first,
            second,
        )
        assert METHODS[first].marker != METHODS[second].marker, (first, second)


def test_no_two_methods_look_the_same_and_all_are_seen_on_white():
    looks = [(method.color, method.marker) for method in METHODS.values()]
    assert len(set(looks)) == len(METHODS) == len({method.label for method in METHODS.values()})
    for method in METHODS.values():
        luminance = np.dot([0.2126, 0.7152, 0.0722], linear(method.color))
        assert 1.05 / (luminance + 0.05) > 2, method.label


def runs(**errors):
    """A table of runs of one model, from method → errors by seed."""
    rows = [
        (method, seed, error)
        for method, values in errors.items()
        for seed, error in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "test_error"]).assign(
        model="lenet-300-100", sparsity=0.98
    )


def test_a_table_in_words():
    table = pd.concat(
        [runs(random=[9.0], mine=[5.0], snip=[1.0]), runs(snip=[2.0]).assign(sparsity=0.9)]
    )
    shown = report.labelled(table)
    assert list(shown["mask"]) == ["random", "mine", "SNIP", "SNIP"]
    # Drawing order, only what occurs.
    assert list(shown["mask"].cat.categories) == ["SNIP", "random", "mine"]
    assert list(shown["setting"].cat.categories) == [
        "LeNet-300-100, 90 % removed",
        "LeNet-300-100, 98 % removed",
    ]
    assert list(shown["kept, %"]) == [2, 2, 2, 10] and list(shown["test error, %"]) == [9, 5, 1, 2]
    assert report.labelled(pd.DataFrame()).empty


def test_the_bar_is_students_interval():
    low, high = statistics.errorbar(pd.Series([1, 2, 3, 4, 5]))
    assert (low, high) == pytest.approx(
        (3 - 2.7764 * math.sqrt(0.5), 3 + 2.7764 * math.sqrt(0.5)), abs=1e-4
    )


@pytest.mark.parametrize("values", [[], [2.0], [1.0, 2.0], [1.0, 2.0, 3.0, NAN]])
def test_no_bar_where_there_is_no_interval(values):
    assert np.isnan(
        statistics.errorbar(values)
    ).all()  # fewer than three seeds; a run that diverged


def drawn(table):
    """What seaborn draws of each method, found by its colour: low end, mean, high end."""
    ax = seaborn.pointplot(report.labelled(table), x="test error, %", y="mask", **report.POINTS)
    numbers = {}
    for method in table.method.unique():
        lines = [
            line.get_xdata() for line in ax.lines if line.get_color() == report.PALETTE[method]
        ]
        numbers[method] = sorted(
            number for line in lines for number in line if not np.isnan(number)
        )
    return numbers


def test_seaborn_draws_the_studys_mean_and_interval_in_the_methods_color():
    numbers = drawn(runs(snip=[1.0, 2.0, 4.0], random=[5.0, 6.0, 9.0]))
    assert numbers["snip"] == pytest.approx(sorted(statistics.interval([1, 2, 4])))
    assert numbers["random"] == pytest.approx(sorted(statistics.interval([5, 6, 9])))


def test_seaborn_draws_no_mean_of_the_others_where_a_seed_diverged():
    numbers = drawn(runs(snip=[1.0, 2.0, NAN, 4.0], random=[5.0, 6.0, 9.0]))
    assert numbers["snip"] == [] and len(numbers["random"]) == 3


def test_lines_have_the_methods_marker_and_a_band_of_the_studys_interval():
    table = pd.concat(
        [
            runs(snip=[1.0, 2.0, 4.0]).assign(
                sparsity=sparsity, test_error=lambda rows: rows.test_error + shift
            )
            for sparsity, shift in ((0.9, 0), (0.98, 10))
        ]
    )
    ax = seaborn.lineplot(report.labelled(table), x="kept, %", y="test error, %", **report.LINES)
    ax.set(yscale="log")  # after drawing: seaborn would take means of logarithms
    (band,) = ax.collections
    _, low, high = statistics.interval([1, 2, 4])
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((low, high + 10))
    assert list(ax.lines[0].get_ydata()) == pytest.approx([7 / 3 + 10, 7 / 3])
    assert ax.lines[0].get_color() == report.PALETTE["snip"]
