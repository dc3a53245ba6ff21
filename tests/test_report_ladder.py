"""The masks behind docs/predictions.md by name, and what came of each prediction."""

import jinja2
import jinja2.meta
import pandas as pd
import pytest
from tiny import ROOT

from snipkit import study
from snipkit.study.report import answers, ladder, ladder_answers
from snipkit.study.train import ladder_runs

OF_WEIGHTS = {0.8: 0.80656, 0.9: 0.90738, 0.95: 0.95778, 0.98: 0.98804}  # with all biases kept


def planned(seeds=2):
    """All runs of the MLP, with fewer seeds."""
    fields = {"sparsities": (0.8, 0.9, 0.95, 0.98), "seeds": seeds}
    masks = [*ladder_runs.factorial(), *ladder_runs.twins(), {"criterion": "erk"}]
    runs = ladder_runs.each_seed(ladder_runs.MLP, masks, **fields)
    return runs + ladder_runs.bias_runs(**fields)


def table(error=lambda run: 50.0):
    """What ``records.table`` gives, as far as the ladder looks, with made-up errors."""
    rows = []
    for run in planned():
        fields = ("seed", "sparsity", "layer_counts", "same_draw", "biases", "model")
        row = {name: getattr(run, name) for name in fields}
        rows.append(row | {"method": run.method, "test_error": error(run)})
    return pd.DataFrame(rows)


def test_runs_that_keep_all_biases_stand_at_the_share_of_all_parameters():
    rows = ladder.ladder_table(table())
    assert set(rows.sparsity) == {0.8, 0.9, 0.95, 0.98}
    kept = rows[rows.biases == ladder.ALL_KEPT]
    assert len(kept) == len(ladder_runs.bias_runs(seeds=2))
    assert set(kept["removed, %"]) == {80, 90, 95, 98}
    of_weights = {run.sparsity for run in ladder_runs.bias_runs(seeds=2)}
    assert of_weights == set(OF_WEIGHTS.values())


@pytest.mark.parametrize("name", ladder.CELLS)
def test_a_name_stands_for_one_mask(name):
    """So that there is one run a seed, with nothing left to choose."""
    rows = ladder.ladder_table(table())
    for sparsity in (0.8, 0.98):
        assert list(ladder.between(rows, name, name, sparsity)) == [0, 0]


def test_a_difference_is_the_first_minus_the_second_seed_by_seed():
    def error(run):
        return 40 + run.seed - 100 if run.method == "gradient-twin" else 30

    rows = ladder.ladder_table(table(error))
    assert list(ladder.between(rows, "gradient twin", "SNIP", 0.98)) == [10, 11]
    scored = ladder.between(rows, "SNIP, scored weights", "gradient twin, scored weights", 0.9)
    assert list(scored) == [-10, -11]
    assert ladder.between(rows, "gradient twin", "SNIP", 0.5).empty


def test_the_values_are_those_that_the_template_asks_for():
    source = (ROOT / "notebooks/answers/rq6_new_predictions.md").read_text()
    placeholders = jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(source))
    rows = ladder.ladder_table(table(lambda run: 50.0 - 2 * ("units" in run.method)))
    assert ladder.predicted_values(rows).keys() == placeholders


def test_the_share_of_live_units_and_the_extra_gain():
    errors = {"snip, shuffle": 80.0, "snip, live-units": 77.0, "snip, shuffle-units": 74.0}

    def error(run):
        at_erks = run.layer_counts == "erk" and run.method == "snip, shuffle-units"
        return errors.get(run.method, 70.0) - at_erks

    values = ladder.predicted_values(ladder.ladder_table(table(error)))
    assert values["live_share_80"] == values["live_share_90"] == "50 %"
    assert list(values["units_98"]) == [6, 6] and list(values["extra_90"]) == [1, 1]
    assert list(values["erk_98"]) == [7, 7]


def test_the_two_properties_of_the_factorial_in_words():
    rows = ladder.ladder_table(table())
    crossed = ladder.crossed(rows[rows.method.isin(ladder.INSIDE.values())])
    assert list(crossed.sparsity) == sorted(crossed.sparsity)
    assert list(crossed["layer counts"].cat.categories) == ["uniform", "ERK's", "SNIP's"]
    one = crossed[(crossed.layer_counts == "own") & (crossed.method == "snip, shuffle")]
    assert set(one["layer counts"]) == {"SNIP's"}
    assert set(one["inside a layer"]) == {"any connections"}


def test_the_mlps_rungs_are_replaced_by_masks_without_biases():
    rows = ladder.ladder_table(table(lambda run: 70.0 + 5 * (run.layer_counts == "uniform")))
    rungs = pd.DataFrame({"model": ["mlp-1d", "resnet-20"], "method": "random", "sparsity": 0.98})
    rungs = rungs.assign(seed=0, test_error=90.0)
    free = ladder.without_biases(rungs, rows)
    assert set(free[free.model == "resnet-20"].test_error) == {90}
    mlp = free[(free.model == "mlp-1d") & (free.sparsity == 0.98)]
    assert mlp.groupby("method").test_error.unique().map(list).to_dict() == {
        "random": [75], "snip": [70], "snip, shuffle": [70], "snip, shuffle-units": [70],
    }  # fmt: skip
    assert set(mlp.biases) == {ladder.RANKED} and set(mlp.seed) == {100, 101}
    nothing = ladder.ladder_table(study.table([], {}))
    assert ladder.without_biases(rungs, nothing) is rungs


def test_the_answers_have_all_values_of_their_templates():
    rows = ladder.ladder_table(table())
    for template in ("rq6_factorial", "rq6_biases", "rq6_twins"):
        source = (ROOT / f"notebooks/answers/{template}.md").read_text()
        placeholders = jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(source))
        assert ladder_answers.second_page(template, rows).keys() <= placeholders


def test_masks_upside_down_that_only_guess():
    runs = pd.DataFrame(
        {
            "seed": [0, 1, 2],
            "test_error": [50.0, 90.0, 89.0],
            "sparsity": 0.9,
            "effective_sparsity": [0.9, 0.98, 1.0],
            "empty_layers": [0, 0, 1],
        }
    )
    values = ladder_answers.inverted(runs)
    assert (values["guessing"], values["whole"], values["on_path"]) == (2, 1, "10.0")
    assert ladder_answers.inverted(runs[:0])["on_path"] == answers.ABSENT


def test_what_is_not_on_record_is_absent():
    nothing = study.table([], {})
    values = ladder.predicted_values(ladder.ladder_table(nothing))
    assert values["live_share_90"] == answers.ABSENT and values["snip_98"].empty
