"""What runs will take by the step times on record, and the profile that fits an evening."""

from dataclasses import replace
from itertools import chain

import pytest
from tiny import ROOT

from snipkit import models
from snipkit.study import notebooks, paper
from snipkit.study.sets.datasets import SHAPES
from snipkit.study.train import step_times
from snipkit.study.train.runs import RECIPES, Run

KEY = ["device", "data", "model", "batch", "stack", "compiled"]


@pytest.fixture
def round_times(tmp_path, monkeypatch):
    """Step times that are easy to calculate with."""
    lines = [
        ",".join([*KEY, "milliseconds", "source"]),
        f"{step_times.GPU},mnist,lenet-300-100,100,64,no,6,a stack",
        f"{step_times.GPU},mnist-1d,mlp-1d,100,64,no,5,a stack",
        f"{step_times.GPU},mnist-1d,mlp-1d,100,1,no,1,alone",
        f"{step_times.GPU},mnist,gru-s,100,1,yes,2,compiled",
        f"{step_times.GPU},mnist,gru-s,100,1,no,10,not compiled",
        f"{step_times.CPU},mnist,lenet-300-100,100,1,no,1,alone",
        f"{step_times.CPU},mnist-1d,mlp-1d,100,1,no,3,alone",
    ]
    path = tmp_path / "step_times.csv"
    path.write_text("\n".join(lines))
    monkeypatch.setattr(step_times, "FILE", path)


def lenets(count, steps=10_000):
    return [Run(recipe={"steps": steps}, seed=seed) for seed in range(count)]


def row(runs, device):
    (group,) = step_times.forecast(runs, device).groups.to_dict("records")
    return group


def test_the_step_times_are_of_what_there_is_and_say_where_they_come_from():
    table = step_times.read()
    assert list(table.columns) == [*KEY, "milliseconds", "source"]
    assert set(table.device) == {step_times.GPU, step_times.CPU}
    assert set(table.model) <= set(models.MODELS) and set(table.data) <= set(SHAPES)
    assert set(table.compiled) == {"yes", "no"} and (table.milliseconds > 0).all()
    assert not table.duplicated(KEY).any() and table.source.str.len().min() > 10


def test_a_stack_is_one_training_on_a_gpu(round_times):
    group = row(lenets(65), step_times.GPU)
    assert (group["runs"], group["trainings"]) == (65, 2)
    assert group["minutes"] == pytest.approx(2 * 10_000 * 0.006 / 60)
    assert group["ms a step"] == pytest.approx(6) and group["source"] == "a stack"
    of_first_stack = step_times.forecast(lenets(64), step_times.GPU).seconds
    assert list(of_first_stack.values()) == pytest.approx([60 / 64] * 64)


def test_a_network_alone_does_not_take_as_long_as_a_stack(round_times):
    tiny = {"recipe": {"steps": 1000}, "model": "mlp-1d", "data": "mnist-1d"}
    assert row([Run(**tiny)], step_times.GPU)["source"] == "alone"
    assert row([Run(**tiny), Run(**tiny, seed=1)], step_times.GPU)["source"] == "a stack"


def test_on_a_cpu_each_network_counts(round_times):
    assert row(lenets(3), step_times.CPU)["minutes"] == pytest.approx(3 * 10 / 60)
    tiny = {"recipe": {"steps": 1000}, "model": "mlp-1d", "data": "mnist-1d"}
    group = row([Run(**tiny, seed=seed) for seed in range(4)], step_times.CPU)  # these are stacked
    assert group["trainings"] == 1 and group["minutes"] == pytest.approx(4 * 3 / 60)
    assert group["start"] == 0


@pytest.mark.parametrize(
    "steps, source, start", [(5000, "compiled", 50), (4999, "not compiled", 13)]
)
def test_a_long_training_is_compiled_and_starts_later(round_times, steps, source, start):
    group = row([Run(recipe={"steps": steps}, model="gru-s")], step_times.GPU)
    assert group["source"] == source and group["start"] == pytest.approx(start / 60)


def test_what_is_trained_before_a_mask_counts_once(round_times):
    """Two sparsities of one seed go back to the same weights."""
    rewound = Run(
        recipe={"steps": 6000}, criterion="magnitude", pretrained=True, same_draw=True, sparsity=0.9
    )
    group = row([rewound, replace(rewound, sparsity=0.5)], step_times.CPU)
    assert (group["runs"], group["trainings"]) == (2, 3)
    assert group["minutes"] == pytest.approx(3 * 6 / 60)


def test_what_is_not_on_record_is_named_and_not_counted(round_times):
    other_batch = Run(recipe={"steps": 300, "batch_size": 25})
    forecast = step_times.forecast([*lenets(1), other_batch, other_batch], step_times.CPU)
    assert forecast.minutes == pytest.approx(10 / 60) and len(forecast.seconds) == 1
    text = step_times.text(forecast)
    assert "1 runs of lenet-300-100 on mnist, 300 steps of 25" in text
    assert "total by step times: 0 minutes (0.0 core-hours)" in text and "[1] alone" in text
    with pytest.raises(ValueError, match="no step times of 'abacus' are on record, only of NVIDIA"):
        step_times.forecast([], "abacus")


# --- the profile evening ---


@pytest.fixture(scope="module")
def evening():
    return list(chain(*[notebooks.grid(name, "evening") for name in notebooks.names()]))


def test_an_evening_has_at_most_five_hours(evening):
    forecast = step_times.forecast(evening, step_times.GPU)
    assert forecast.unknown.empty and 200 < forecast.minutes <= 300
    assert len(forecast.seconds) == len({run.id for run in evening})


def test_every_cell_of_an_evening_has_three_seeds(evening):
    seeds: dict[Run, set] = {}
    for run in evening:
        seeds.setdefault(replace(run, seed=0), set()).add(run.seed)
    assert min(map(len, seeds.values())) == 3


def test_an_evening_trains_all_networks_of_tables_2_and_4(evening):
    """By 100 epochs on CIFAR-10, by 30 on Tiny-ImageNet."""
    for table, data, steps in (("table2", "cifar-10", 35_000), ("table4", "tiny-imagenet", 21_090)):
        of_set = [run for run in evening if run.data == data]
        assert {run.recipe.steps for run in of_set} == {steps}
        printed = set(paper.table(table).model)
        recurrent = {name for name in printed if name.startswith(("lstm", "gru"))}
        assert {run.model for run in of_set} == printed - recurrent
        assert recurrent <= {run.model for run in evening}
    assert RECIPES["paper-mnist"] in {run.recipe for run in evening}  # tables and figures of LeNets


def matches(run, fields):
    """Whether a run, or its recipe, has one of the values of every field."""
    for name, values in fields.items():
        value = getattr(run, name) if hasattr(run, name) else getattr(run.recipe, name)
        if value not in (values if isinstance(values, list) else [values]):
            return False
    return True


@pytest.fixture(scope="module")
def elsewhere():
    """The runs of the profiles that an evening is a part of."""
    grids = []
    for name in notebooks.names():
        grids += [notebooks.grid(name, profile) for profile in ("overnight", "paper")]
    return list(chain(*grids))


@pytest.mark.parametrize("words", notebooks.left_out("evening"))
def test_what_an_evening_leaves_out_is_not_in_it_and_is_elsewhere(words, evening, elsewhere):
    fields = notebooks.left_out("evening")[words]
    assert not [run for run in evening if matches(run, fields)]
    assert any(matches(run, fields) for run in elsewhere)
    assert f"- {words}\n" in (ROOT / "docs" / "machines.md").read_text(encoding="utf-8")


def test_no_other_profile_leaves_out_anything_by_name():
    assert not any(notebooks.left_out(name) for name in notebooks.PROFILES if name != "evening")
