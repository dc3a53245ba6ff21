"""The pictures that notebooks share, the statistics behind them, and what the files say of their
origin.
"""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import seaborn
from PIL import Image

from snipkit.study import paths
from snipkit.study.report import figures, statistics

NAN = float("nan")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Figures and tables go to a folder of the test's own."""
    monkeypatch.setattr(paths, "figures", lambda profile: tmp_path / profile)
    yield tmp_path
    plt.close("all")


def test_the_interval_of_a_textbook_example():
    # Student's t for 4 degrees of freedom is 2.776; the standard error of 1, 2, 3, 4, 5 is √(2.5 /
    # 5).
    mean, low, high = statistics.interval([1, 2, 3, 4, 5])
    assert (
        mean == 3
        and low == pytest.approx(3 - 2.7764 * math.sqrt(0.5), abs=1e-4)
        and low + high == pytest.approx(6)
    )


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(7, 2, (2000, 4))
    covered = [low <= 7 <= high for _, low, high in map(statistics.interval, samples)]
    assert abs(np.mean(covered) - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("values, known", [([], 0), ([2.0], 1), ([1.0, NAN, 2.0], 0)])
def test_an_interval_says_only_what_is_known(values, known):
    # No runs; one run, without an interval; a run that diverged.
    result = statistics.interval(values)
    assert sum(not math.isnan(number) for number in result) == known


@pytest.mark.parametrize(
    "values, text",
    [
        ([], "none"),
        ([2.0], "2.00"),
        ([-0.001], "0.00"),
        ([1, 2, 3, 4, 5], "3.00 ± 1.96"),
        ([-1.001, -0.001, 0.999], "0.00 ± 2.48"),  # no sign before a zero
        ([1.0, NAN], "diverged"),
    ],
)
def test_a_cell_of_a_table(values, text):
    assert statistics.cell(values, 2, missing="none") == text


def runs(**errors):
    """A table of runs of one model at 90 % sparsity, from method → seed → error."""
    rows = [
        (method, seed, error)
        for method, by_seed in errors.items()
        for seed, error in by_seed.items()
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "test_error"]).assign(
        model="lenet-300-100", sparsity=0.9
    )


def test_a_summary_has_a_row_for_each_group():
    table = runs(snip={0: 1.0, 1: 3.0}, random={0: 9.0})
    summary = statistics.summarise(table, ["model", "method"]).set_index("method")
    assert (
        list(summary.n) == [2, 1]
        and list(summary["mean"]) == [2, 9]
        and list(summary.best) == [1, 9]
    )
    assert math.isnan(summary.low["random"]) and summary.low["snip"] < 1


def test_lines_are_labelled_where_they_end_and_labels_do_not_overlap():
    figure, (ax,) = figures.panels([""])
    ax.plot([1, 2, 3], [0, 1, NAN], color="#ff0000")
    ax.plot([1, 2, 3], [0, 0, 1.01], color="#0000ff")
    figures.label_lines(ax, {"red": "#ff0000", "blue": "#0000ff", "absent": "#00ff00"})
    texts = {text.get_text(): text for text in ax.texts}
    assert texts.keys() == {"red", "blue"}
    assert texts["red"].xy == pytest.approx((2, 1)) and texts["blue"].xy == pytest.approx((3, 1.01))
    figure.draw_without_rendering()
    low, high = (texts[name].get_window_extent() for name in ("red", "blue"))
    assert high.y0 - low.y0 > 9 * figure.dpi / 72  # a line of nine points


def test_a_logarithmic_axis_has_its_counts_in_full():
    figure, (ax,) = figures.panels([""])
    ax.plot([1, 1000, 54_000], [0, 0, 0])
    figures.log_counts(ax, [1, 1000, 54_000], {54_000: "all"})
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "1,000", "all"]
    assert not len(ax.get_xticks(minor=True))


def test_differences_are_taken_seed_by_seed():
    # The errors of the two methods lie far apart between seeds, and always 1 apart within one; seed
    # 7 has no partner.
    table = runs(snip={0: 1.0, 1: 50.0, 2: 20.0, 7: 90.0}, random={2: 21.0, 1: 51.0, 0: 2.0})
    (row,) = statistics.paired(table, "snip", ["model"]).itertuples()
    assert (row.method, row.n, row.mean, row.low, row.high, row.share) == ("random", 3, 1, 1, 1, 1)


def test_a_pair_of_which_one_diverged_is_not_dropped():
    table = runs(snip={0: 1.0, 1: 2.0}, random={0: 2.0, 1: NAN})
    (row,) = statistics.paired(table, "snip", ["model"]).itertuples()
    assert row.n == 2 and math.isnan(row.mean)


@pytest.mark.parametrize(
    "counts, text", [([3, 3], "n = 3"), ([6, 2, 3], "n = 2 to 6"), ([0, 3], "n = 3"), ([], "n = 0")]
)
def test_a_picture_says_how_many_seeds_it_shows(counts, text):
    assert figures.counted(counts) == text


def test_a_table_has_a_row_a_setting_and_says_n():
    table = pd.concat(
        [
            runs(snip={0: 1.0, 1: 3.0, 2: 2.0}, random={0: 9.0, 1: 9.5}),
            runs(dense={0: 1.0}).assign(sparsity=0.0),
        ]
    )
    summary = statistics.summarise(table, ["model", "method", "sparsity"])
    shown = figures.cells(
        summary, {"dense": "dense", "snip": "SNIP", "random": "random", "magnitude": "magnitude"}
    )
    # In the order asked for, without what was not run.
    assert list(shown.columns) == ["n", "dense", "SNIP", "random"]
    assert list(shown.loc[("LeNet-300-100", 90.0)]) == ["2 to 3", "", "2.0 ± 2.5", "9.2 ± 3.2"]
    assert shown.loc[("LeNet-300-100", 0.0), "dense"] == "1.0"


def test_a_picture_says_what_it_was_drawn_from(folder):
    notes, drawings = [], []
    with plt.rc_context():
        figures.use_style()
        figure, _ = plt.subplots(figsize=(1, 1))
        for data in (runs(snip={0: 1.0}), runs(snip={0: 1.0}), runs(snip={0: 1.5})):
            figures.save(figure, "picture", "lesson", data)
            notes.append(Image.open(folder / "lesson/picture.png").text["Description"])
            drawings.append((folder / "lesson/picture.svg").read_bytes())
    assert notes[0].startswith("picture, profile lesson: drawn from 1 rows, SHA-256 ")
    assert notes[0] == notes[1] != notes[2] and drawings[0] == drawings[1] != drawings[2]
    grid = seaborn.FacetGrid(data)
    figures.save(grid, "grid", "lesson", data)
    assert (folder / "lesson/grid.png").exists()
    figures.save(figure, "nothing", "lesson", data[:0])
    assert not list((folder / "lesson").glob("nothing*"))


def test_a_picture_full_of_text_stays_small(folder):
    with plt.rc_context():
        figures.use_style()
        figure = plt.figure(figsize=(9, 9))
        for row in range(100):
            figure.text(0, row / 100, f"{row} connection sensitivity " * 9, fontsize=7 + 0.01 * row)
        figures.save(figure, "text", "lesson", runs(snip={0: 1.0}))
    picture = folder / "lesson/text.png"
    assert picture.stat().st_size < 150_000
    with Image.open(picture) as stored:
        assert stored.text["Description"].startswith("text, profile lesson: drawn from 1 rows")


def test_a_table_is_written_for_programs_and_for_readers(folder):
    figures.save_table(
        pd.DataFrame({"n": [3], "error": [1.23456789], "none": [NAN]}), "errors", "paper"
    )
    assert (folder / "paper/errors.csv").read_text().splitlines()[1] == "3,1.23457,"
    text = (folder / "paper/errors.md").read_text()
    assert "1.235" in text and "1.2345" not in text


def test_every_run_is_listed_with_what_sets_it_apart(folder):
    table = runs(snip={0: 1.0, 1: 3.0}, random={0: 9.0})
    table = table.assign(id=["a", "b", "c"], train_loss=[[1.0]] * 3, seconds=1.0)
    figures.save_runs(table, "all", "lesson")
    listed = pd.read_csv(folder / "lesson/all_runs.csv")
    # One model, one sparsity: no columns.
    assert list(listed) == ["method", "seed", "test_error", "id"]
    assert list(listed.test_error) == [1.0, 3.0, 9.0]


def test_a_difference_of_seeds_that_are_no_pairs_has_welchs_interval():
    """By hand: 5 - 2, variances 1 / 3 and 4 / 3 of the means, 100 / 34 degrees of freedom."""
    assert statistics.unpaired_cell([3, 5, 7], [1, 2, 3], 2) == "3.00 ± 4.16"
    assert statistics.unpaired_cell([3, 5, 7], [3, 5, 7], 1) == "0.0 ± 4.5"
    assert statistics.unpaired_cell([3, 5, 7], [], missing="none") == "none"


def test_a_ratio_of_means_has_fiellers_interval():
    """At an end r of the interval, that of the mean of first - r * second has one end at 0."""
    first, second = np.array([1.0, 2.0, 4.0, 3.0]), np.array([4.0, 5.0, 9.0, 5.0])
    text = statistics.ratio_cell(first, second, digits=6)
    ratio, low, high = map(float, text.translate(str.maketrans("", "", "[],")).split())
    assert ratio == pytest.approx(10 / 23, abs=1e-6) and low < ratio < high
    for end in (low, high):
        _, *ends = statistics.interval(first - end * second)
        assert min(abs(value) for value in ends) == pytest.approx(0, abs=1e-5)


def test_a_ratio_without_a_denominator_has_no_interval():
    assert statistics.ratio_cell([1, 2, 3], [-1, 0, 4]) == "2.00"
    assert statistics.ratio_cell([1, 2], [2, 4]) == "0.50"
