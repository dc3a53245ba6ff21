"""Grids of runs, declared: the runs are the very ones that are on record."""

import pytest
from tiny import ROOT

from snipkit.study import report
from snipkit.study.train import records
from snipkit.study.train.runs import pruning, seeded

COMMON = {"model": "lenet-300-100", "recipe": "overnight-lenet-300-100"}


@pytest.fixture(scope="module")
def recorded():
    return set(records.read(ROOT / "results" / "overnight"))


def test_the_grid_of_baselines_is_on_record(recorded):
    methods = ["dense", "snip", "magnitude", "snip, shuffle", "random", "snip, invert"]
    runs = report.planned(COMMON, methods, [0.8, 0.9, 0.95, 0.98, 0.99, 0.995], seeds=6)
    assert len(runs) == 6 * (1 + 5 * 6) and {run.id for run in runs} <= recorded


def test_the_grid_of_scoring_batches_is_on_record(recorded):
    sizes = [{"scoring_batch": size} for size in (1, 10, 100, 1000, 10000, None)]
    labels = [{"scoring_sample": "balanced"}, {"scoring_labels": "random"}]
    grid = COMMON | {"seeds": 6}
    by_size = report.planned(grid, "snip", [0.9, 0.98], vary=sizes)
    runs = report.distinct(by_size, report.planned(grid, "snip", 0.98, vary=labels))
    assert len(runs) == 6 * (2 * 6 + 2) and {run.id for run in runs} <= recorded


def test_settings_may_hold_the_grid_and_an_argument_comes_first():
    settings = COMMON | {"methods": ["snip", "random"], "sparsities": [0.9, 0.98], "seeds": 3}
    runs = report.planned(settings, sparsities=0.5, seeds=1)
    assert [(run.method, run.sparsity, run.seed) for run in runs] == [
        ("snip", 0.5, 0),
        ("random", 0.5, 0),
    ]
    assert "seeds" in settings  # a page's parameter stays as it is


def test_the_dense_network_stands_once_and_is_every_method_at_sparsity_0():
    runs = report.planned(COMMON, ["dense", "snip", "random"], [0.0, 0.9], seeds=1)
    assert [run.method for run in runs] == ["dense", "snip", "random"]


def test_a_field_that_is_written_down_comes_before_what_the_method_would_set():
    (run,) = report.planned(COMMON | {"same_draw": True}, "snip", 0.9, 1)
    assert run == seeded(COMMON | pruning("snip", 0.9) | {"same_draw": True, "seeds": 1})[0]
    assert run.same_draw


def test_the_smaller_dense_networks_are_on_record_and_as_wide_as_they_can_be(recorded):
    signals = {"model": "mlp-1d", "data": "mnist-1d", "recipe": "overnight-mnist-1d"}
    planned = report.smaller_dense(signals | {"sparsities": [0.98, 0.9], "seeds": 20})
    assert [runs[0].options for runs in planned.values()] == [{"width": 0.07}, {"width": 0.245}]
    on_images = report.smaller_dense(COMMON | {"sparsities": [0.98], "seeds": 10})
    assert on_images[0.98][0].options == {"first": 6, "second": 6}
    assert {run.id for run in report.distinct(planned, on_images)} <= recorded
    assert report.units_for(784, 785 * 6 + 7 * 6 + 70) == 6  # exactly six fit


def test_no_methods_are_no_runs():
    assert report.planned(COMMON, [], [0.9], seeds=3) == []


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"methods": None}, "pass methods"),
        ({"seeds": None}, "pass seeds"),
        ({"sparsities": None}, "pass sparsities"),
        ({"vary": [{"criterion": "random"}]}, "criterion among the fields"),
    ],
)
def test_a_grid_without_its_parts_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        report.planned(COMMON, **{"methods": "snip", "sparsities": 0.9, "seeds": 1} | changes)


def test_nested_grids_are_one_list_without_repetition():
    first, second = report.planned(COMMON, "dense", seeds=2)
    again = report.planned(COMMON, "dense", seeds=2)  # equal runs, other objects
    assert report.distinct({"a": [first], "b": {"c": [second, first]}}, again) == [first, second]


def test_a_recipe_among_the_changes_is_laid_over_the_one_that_is_there():
    fields = {"model": "mlp-1d", "recipe": {"steps": 9, "lr": 1.0}}
    changed = report.changed(fields, {"seeds": 2}, {"recipe": {"lr": 2.0}, "model": "cnn-1d"})
    assert changed == {"model": "cnn-1d", "recipe": {"steps": 9, "lr": 2.0}, "seeds": 2}
    assert fields["recipe"] == {"steps": 9, "lr": 1.0}  # a page's parameter stays as it is
    assert report.changed({"model": "mlp-1d"}) == {"model": "mlp-1d"}


def test_parts_of_a_grid_by_name():
    parts = {
        "true labels": ("snip", {}),
        "random labels": ("snip", {"train_labels": "random"}),
        "dense, penalty": ("dense", {"recipe": {"weight_decay": 5e-4}}),
    }
    common = COMMON | {"recipe": {"steps": 9, "weight_decay": 0.0}, "seeds": 2}
    grids = report.planned_by_name(common, parts, 0.9)
    assert list(grids) == list(parts) and {len(runs) for runs in grids.values()} == {2}
    assert grids["random labels"] == report.planned(
        common | {"train_labels": "random"}, "snip", 0.9
    )
    recipe = grids["dense, penalty"][0].recipe
    assert (recipe.steps, recipe.weight_decay) == (9, 5e-4)
    assert grids["dense, penalty"][0].sparsity == 0
