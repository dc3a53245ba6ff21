"""The statistics behind the figures, and what the files say of their origin."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from snipkit import figures

NAN = float("nan")


def test_the_interval_of_a_textbook_example():
    # Student's t for 4 degrees of freedom is 2.776; the standard error of 1, 2, 3, 4, 5 is √(2.5 / 5).
    mean, low, high = figures.interval([1, 2, 3, 4, 5])
    assert mean == 3 and low == pytest.approx(3 - 2.7764 * math.sqrt(0.5), abs=1e-4) and low + high == pytest.approx(6)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(7, 2, (2000, 4))
    covered = [low <= 7 <= high for _, low, high in map(figures.interval, samples)]
    assert abs(np.mean(covered) - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("values, known", [([], 0), ([2.0], 1), ([1.0, NAN, 2.0], 0)])
def test_an_interval_says_only_what_is_known(values, known):
    result = figures.interval(values)  # no runs; one run, without an interval; a run that diverged
    assert sum(not math.isnan(number) for number in result) == known


@pytest.mark.parametrize(
    "values, text", [([], "none"), ([2.0], "2.00"), ([1, 2, 3, 4, 5], "3.00 ± 1.96"), ([1.0, NAN], "diverged")]
)
def test_a_cell_of_a_table(values, text):
    assert figures.cell(values, 2, missing="none") == text


def runs(**errors):
    return pd.DataFrame(
        [{"model": "m", "method": method, "seed": seed, "test_error": e} for method, some in errors.items() for seed, e in some.items()]
    )


def test_a_summary_has_a_row_for_each_group():
    summary = figures.summarise(runs(snip={0: 1.0, 1: 3.0}, random={0: 9.0}), ["model", "method"]).set_index("method")
    assert list(summary.n) == [2, 1] and list(summary["mean"]) == [2, 9] and list(summary.best) == [1, 9]
    assert math.isnan(summary.low["random"]) and summary.low["snip"] < 1


def test_differences_are_taken_seed_by_seed():
    # The errors of the two methods lie far apart between seeds, and always 1 apart within one; seed 7 has no partner.
    table = runs(snip={0: 1.0, 1: 50.0, 2: 20.0, 7: 90.0}, random={2: 21.0, 1: 51.0, 0: 2.0})
    (row,) = figures.paired(table, "snip", ["model"]).itertuples()
    assert (row.method, row.n, row.mean, row.low, row.high, row.share) == ("random", 3, 1, 1, 1, 1)


def test_a_pair_of_which_one_diverged_is_not_dropped():
    (row,) = figures.paired(runs(snip={0: 1.0, 1: 2.0}, random={0: 2.0, 1: NAN}), "snip", ["model"]).itertuples()
    assert row.n == 2 and math.isnan(row.mean)


def test_a_picture_says_what_it_was_drawn_from(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "folder", lambda profile: tmp_path / profile)
    notes, drawings = [], []
    with plt.rc_context():
        figures.use_style()
        figure, _ = plt.subplots(figsize=(1, 1))
        for data in (runs(snip={0: 1.0}), runs(snip={0: 1.0}), runs(snip={0: 1.5})):
            figures.save(figure, "picture", "lesson", data)
            notes.append(Image.open(tmp_path / "lesson/picture.png").text["Description"])
            drawings.append((tmp_path / "lesson/picture.svg").read_bytes())
        plt.close(figure)
    assert notes[0].startswith("picture, profile lesson: drawn from 1 rows, SHA-256 ")
    assert notes[0] == notes[1] != notes[2] and drawings[0] == drawings[1] != drawings[2]


def test_tables_are_written_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "folder", lambda profile: tmp_path / profile)
    assert figures.saved_table("errors", "lesson").empty
    figures.save_table(pd.DataFrame({"n": [3], "error": [1.23456789], "none": [NAN]}), "errors", "lesson")
    assert figures.saved_table("errors", "lesson").iloc[0].to_dict() == pytest.approx({"n": 3, "error": 1.23457, "none": NAN}, nan_ok=True)
    text = (tmp_path / "lesson/errors.md").read_text()
    assert "1.235" in text and "1.2345" not in text


def test_every_run_is_listed_with_what_sets_it_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "folder", lambda profile: tmp_path / profile)
    table = runs(snip={0: 1.0, 1: 3.0}, random={0: 9.0}).assign(id=["a", "b", "c"], train_loss=[[1.0]] * 3, seconds=1.0)
    figures.save_runs(table, "all", "lesson")
    listed = pd.read_csv(tmp_path / "lesson/all_runs.csv")
    assert list(listed) == ["method", "seed", "test_error", "id"] and list(listed.test_error) == [1.0, 3.0, 9.0]  # one model: no column
