"""The factorial of four switches on table 1's protocol: names of its cells, effects, picture."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from snipkit.study.report import figures, switches
from snipkit.study.train import ladder_runs, records

POINTS = {"same_draw": -0.5, "training_init": 0.25, "scoring_biases": 0.0, "pixels": 1.0}


@pytest.fixture
def table():
    """One row a planned run. Each switch that is on adds its points to the error."""
    values = dict(switches.SWITCHES.values())
    rows = []
    for run in ladder_runs.protocol_runs():
        row = {name: getattr(run, name) for name in (*values, "method", "sparsity", "seed")}
        on = sum(POINTS[name] for name, value in values.items() if row[name] == value)
        rows.append(row | {"test_error": 2 + 10 * run.sparsity + 0.1 * run.seed + on})
    return switches.named(pd.DataFrame(rows))


def test_half_of_the_sixteen_cells_are_there_and_named(table):
    pruned = table[table.method == "snip"]
    assert dict(pruned.groupby("sparsity").on.nunique()) == {0.9: 8, 0.98: 8}
    counts = [
        0 if on == "none" else 4 if on == "all four" else on.count("+") + 1 for on in table.on
    ]
    assert set(table.on[table.method == "snip"]) <= {
        on for on, n in zip(table.on, counts) if n % 2 == 0
    }
    assert set(table.on[table.method == "dense"]) == {
        "none", "Glorot", "pixels in [0, 1]", "Glorot + pixels in [0, 1]"
    }  # fmt: skip


def test_the_effect_of_a_switch_is_what_it_adds(table):
    effects = switches.effects(table)
    for name, (column, _) in switches.SWITCHES.items():
        rows = effects[effects.switch == name]
        assert list(rows.effect) == pytest.approx([POINTS[column]] * len(rows))
        dense = 3 if name in ("Glorot", "pixels in [0, 1]") else 0  # seeds
        assert dict(rows.sparsity.value_counts()) == {0.9: 3, 0.98: 3} | (
            {0: dense} if dense else {}
        )


def test_a_seed_without_all_of_its_cells_has_no_effect(table):
    lost = table[(table.on == "all four") & (table.seed == 1) & (table.sparsity == 0.98)].index
    effects = switches.effects(table.drop(lost))
    assert set(effects[effects.sparsity == 0.98].seed) == {0, 2}
    assert set(effects[effects.sparsity == 0.9].seed) == {0, 1, 2}


def test_the_picture_has_a_panel_a_sparsity_and_a_row_a_cell(table):
    figures.use_style()
    figure = switches.draw(table, {0.98: 2.4, 0.9: 1.76}, {0.98: 2.6, 0.9: 1.85})
    assert [ax.get_title() for ax in figure.axes] == ["98 % removed", "90 % removed"]
    for ax in figure.axes:
        assert len(ax.get_yticks()) == 8
        assert ax.get_xlim()[0] < min(line.get_xdata()[0] for line in ax.get_lines())
    texts = [text.get_text() for text in figure.axes[-1].get_legend().texts]
    assert texts == ["printed", "would explain it"]
    plt.close(figure)


def test_without_records_there_are_no_effects_and_the_picture_has_the_printed_lines():
    table = switches.named(records.table([], {}))
    assert switches.effects(table).empty
    figure = switches.draw(table, {0.98: 2.4}, {0.98: 2.6})
    assert [len(ax.get_lines()) for ax in figure.axes] == [1]
    assert switches.values(table)["best_98"].empty
    plt.close(figure)


def test_the_lowest_cell_the_one_without_switches_and_the_dense_networks(table):
    values = switches.values(table)
    assert list(values["best_98"]) == pytest.approx([11.3, 11.4, 11.5])  # same draw + random biases
    assert list(values["usual_98"]) == pytest.approx([11.8, 11.9, 12.0])
    assert values["dense"].range == "2.10 to 3.35"  # none, and both switches that touch it
    assert str(values["pixels_0"]) == "1.00 ± 0.00"
