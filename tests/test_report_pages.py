"""What pages take from the report to stay short: parts of a grid, curves, sheets, tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from tiny import carry_on, quick, record

from snipkit.study import notebooks, paths, report
from snipkit.study.report import figures, measures
from snipkit.study.train import records
from snipkit.study.train.runs import pruning

PARTS = {
    ("SNIP", 0.9): [quick(seed=seed, **pruning("snip", 0.9)) for seed in range(3)],
    ("random", 0.9): [quick(seed=seed, **pruning("random", 0.9)) for seed in range(3)],
    ("random", 0.98): [quick(seed=seed, **pruning("random", 0.98)) for seed in range(2)],
}


@pytest.fixture
def recorded():
    """The errors count up; one run of the last part is not on record."""
    runs = [run for part in PARTS.values() for run in part][:-1]
    return {run.id: record(run, float(number)) for number, run in enumerate(runs)}


@pytest.fixture
def table(recorded):
    return records.table([record.run for record in recorded.values()], recorded)


def test_parts_of_a_grid_with_their_names(table):
    collected = report.collected(table, PARTS, "mask", "removed")
    errors = collected.set_index(["mask", "removed", "seed"]).test_error
    assert dict(errors["SNIP", 0.9]) == {0: 0, 1: 1, 2: 2} and len(collected) == 7
    assert dict(errors["random", 0.98]) == {0: 6}
    by_one_name = report.collected(table, {"SNIP": PARTS["SNIP", 0.9]}, "mask")
    assert set(by_one_name["mask"]) == {"SNIP"}
    assert report.collected(table, {("SNIP", 0.5): []}, "mask", "removed").empty
    with pytest.raises(ValueError):
        report.collected(table, PARTS, "mask", "removed", "seeds")


def test_a_table_to_show_in_the_order_of_its_rows(table):
    collected = report.collected(table, PARTS, "mask", "removed")
    tall = report.means(collected, ["mask", "removed"], digits=1)
    assert list(tall["mask"]) == ["SNIP", "random", "random"] and list(tall.n) == [3, 3, 1]
    assert list(tall.test_error) == ["1.0 ± 2.5", "4.0 ± 2.5", "6.0"]
    both = report.means(collected, ["mask"], ["test_error", "test_loss"])
    assert list(both) == ["mask", "test_error", "test_loss", "n"]
    assert report.means(pd.DataFrame(), ["mask"]).empty


def test_the_points_of_curves():
    whole, diverged = {"seed": 0, "train_loss": [4, 2, 1, 1]}, {"seed": 1, "train_loss": []}
    table = pd.DataFrame([whole, diverged]).assign(train_error=None)
    points = report.curves(table, points=2)
    assert list(points.train_loss) == [3, 1] and list(points["% of the training"]) == [25, 75]
    assert set(points.seed) == {0}
    assert list(report.curves(table[:1]).train_loss) == [4, 2, 1, 1]  # fewer than 60
    assert report.last_sixth([9] * 10 + [2, 4]) == 3 and np.isnan(report.last_sixth([]))


def test_the_runs_on_record_of_a_page_and_of_a_data_set(toy):
    runs = notebooks.grid("toy", "laptop")
    carry_on(runs, paths.results("laptop") / "toy.jsonl")
    assert set(report.on_record("toy", "laptop").id) == {run.id for run in runs}
    assert len(report.recorded("laptop", data=runs[0].data, seed=1)) == 1
    assert report.recorded("laptop", data="tiny-imagenet").empty


def test_a_measure_on_each_data_set_by_each_criterion():
    def counted(name, draw, criterion="snip"):
        return len(name) + draw, criterion == "snip"

    rows = measures.repeated(counted, 2, ["sum", "usual"], ["ab", "abc"], ["snip", "random"])
    assert list(rows["sum"]) == [2, 3, 2, 3, 3, 4, 3, 4] and rows.usual.sum() == 4
    assert list(rows) == ["data", "ranked by", "draw", "sum", "usual"]
    assert list(measures.repeated(counted, 1, ["sum", "usual"], ["ab"])["sum"]) == [2]


def test_inverted_images_and_another_draw_have_a_row_each(monkeypatch):
    monkeypatch.setattr(measures, "overlaps", lambda name, draw: (1, 2, 3, 4 + draw))
    monkeypatch.setattr(measures, "figure5", lambda name, draw: (0.5, 0.25))
    rows = measures.inverted_and_redrawn(["ab"], 2).to_numpy().tolist()
    assert rows[:2] == [["ab", "inverted", 0, 1, 2, 0.5], ["ab", "redrawn", 0, 3, 4, 0.25]]
    assert rows[3] == ["ab", "redrawn", 1, 3, 5, 0.25] and len(rows) == 4


def test_sheets_of_pictures_and_rows_of_seeds():
    pictures = np.zeros((2, 3, 4, 4))
    pictures[1, 2] = 1
    fig = report.draw_sheets(
        {"left": pictures, "right": pictures}, "ab", range(3), ("row", "class")
    )
    drawn = fig.axes[0].images[0].get_array()
    assert drawn.shape == (12, 18) and (drawn[7:11, 13:17] == 1).all()
    assert (drawn[1:5, 1:5] == 0).all() and drawn[0, 0] == 0.5
    half = report.draw_sheets({"left": pictures / 2}, "ab", range(3), ("row", "class"), True)
    assert (half.axes[0].images[0].get_array()[7:11, 13:17] == 1).all()  # the highest of its row
    marks = half.axes[0].child_axes[0].get_yticklabels()
    assert [mark.get_text() for mark in marks] == ["0 %", "50 %"]

    _, ax = plt.subplots()
    gaps = pd.DataFrame({"mask": list("aaabbb"), "gap": [1, 2, 3, 5, 5, 5]})
    figures.seeds_and_means(gaps, "gap", "mask", ax, order=["b", "a"])
    assert [text.get_text() for text in ax.texts] == ["5.00 ± 0.00", "2.00 ± 2.48"]
    figures.seeds_and_means(gaps, "gap", "mask", ax, baseline="c")
    assert ax.texts[-1].get_text() == "c"
    fig = report.above_baseline(gaps, "mask", ["b", "none", "a"], "c", "title", "points")
    ax = fig.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a"]
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("title", "points", "mask")
    fig = report.above_baseline(gaps, "mask", ["a"], "c", "title", "points", digits=3)
    assert fig.axes[0].texts[0].get_text() == "2.000 ± 2.484"
    plt.close("all")


def test_our_curves_beside_the_papers():
    ours = pd.DataFrame([{"removed": 0.9, "seed": 0, "train_loss": [2.3, 2.1], "train_error": []}])
    iterations = {"iteration": [0, 29_500, 0], "removed": [0.9, 0.9, 0.5]}
    printed = pd.DataFrame(iterations | {"train_loss": [2.3, 2.0, 1.0]})
    both = report.beside_the_paper(ours, printed, "removed")
    assert list(both.source) == 2 * ["the paper"] + 2 * ["ours"]  # 50 % has no run of ours
    assert [round(share, 1) for share in both["% of the training"]] == [0.8, 99.2, 25, 75]
    fig = report.draw_losses(both, "removed")
    assert [ax.get_title() for ax in fig.axes[:2]] == ["the paper", "ours"]
    plt.close("all")
    assert report.beside_the_paper(pd.DataFrame(), printed, "removed").empty
