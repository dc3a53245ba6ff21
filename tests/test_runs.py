"""A run is a value: its id never changes, every wrong value is refused when it is made."""

import dataclasses
import json
import re
import warnings

import numpy as np
import pytest
from pydantic import ValidationError
from tiny import QUICK, ROOT, quick

from snipkit.beyond import controls
from snipkit.recipe import Recipe
from snipkit.study.train import records
from snipkit.study.train.recipes import RECIPES
from snipkit.study.train.runs import ABLATIONS, STREAMS, Run, one_line, pruning, seeded

COMMITTED = sorted((ROOT / "results").glob("*/*.jsonl"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_committed_records_keep_their_ids(path):
    """A changed default, or a field that is hashed in another way, would have all of them trained
    again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for line in path.read_text().splitlines():
            record = records.Record.from_line(line)
            assert record.run.id == record.id == json.loads(line)["id"]
            assert json.loads(record.to_line())["run"].keys() >= json.loads(line)["run"].keys()


def test_there_are_committed_records():
    assert len(COMMITTED) > 3


def test_an_id_is_the_same_on_every_machine_and_day():
    # Written down: records must be found again next year.
    assert Run(recipe=Recipe(steps=100)).id == "c7225c74e20e"
    run = quick(model="lenet-5-caffe", options={"conv_relu": True}, criterion="snip", sparsity=0.9)
    assert Run(**json.loads(json.dumps(dataclasses.asdict(run)))) == run
    # YAML's 0.
    assert (
        quick(recipe={"steps": 5, "momentum": 0}).id
        == quick(recipe=Recipe(steps=5, momentum=0.0)).id
    )
    adam = quick(recipe={"steps": 5, "optimizer": "adam"})
    assert adam.id == quick(recipe=Recipe(steps=5, optimiser="adam")).id
    assert quick(recipe="paper-mnist").id == quick(recipe=RECIPES["paper-mnist"]).id
    defaults = {"layer_counts": "own", "scoring_biases": "zero", "pixels": "standardised"}
    assert quick(**defaults).id == quick().id  # fields that came later, at what was done before


def test_the_recipe_of_the_authors_code_differs_from_the_papers_in_two_things():
    paper, authors = RECIPES["paper-cifar"], RECIPES["authors-cifar"]
    assert dataclasses.replace(paper, decay_factor=0.2, augment="flip-shift-half") == authors


def test_runs_of_one_seed_are_paired():
    snip, random = quick(criterion="snip", sparsity=0.9), quick(criterion="random", sparsity=0.5)
    assert snip.seeds() == random.seeds() and set(snip.seeds()) == set(STREAMS)
    other = quick(seed=1).seeds()
    assert all(other[name] != seed for name, seed in snip.seeds().items())
    assert len({*snip.seeds().values(), *other.values()}) == 2 * len(STREAMS)
    same = quick(same_draw=True).seeds()
    assert same == snip.seeds() | {"scoring_init": snip.seeds()["training_init"]}
    # As numpy gives them, in this order for ever.
    assert list(snip.seeds().values()) == [
        int(s.generate_state(1)[0]) for s in np.random.SeedSequence(0).spawn(8)
    ]


def test_the_runs_of_a_configuration_differ_in_their_seed_alone():
    configuration = {"recipe": QUICK, "seeds": 3, "criterion": "snip", "sparsity": 0.9}
    runs = seeded(configuration, sparsity=0.5, scoring_batch=10)
    assert runs == [
        Run(QUICK, criterion="snip", sparsity=0.5, scoring_batch=10, seed=seed)
        for seed in (0, 1, 2)
    ]
    assert configuration["seeds"] == 3 and configuration["sparsity"] == 0.9


METHODS = {
    "snip",
    "magnitude",
    "random",
    "snip, shuffle",
    "erk",
    "smart-ratio, shuffle",
    "magnitude, rewound",
    "snip, invert",
    "magnitude, relabel",
}
METHODS |= {*controls.TWINS}
METHODS |= {f"magnitude, rewound, {ablation}" for ablation in ABLATIONS[1:]}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_pruning_by_a_method_gives_runs_of_that_method(method):
    run = Run(QUICK, **pruning(method, 0.9))
    assert (run.method, run.sparsity) == (method, 0.9)
    assert run.same_draw == method.startswith("magnitude") and run.pretrained == (
        "rewound" in method
    )


def test_a_verdict_counts_on_the_recipe_not_on_the_profile():
    assert Run("paper-mnist").training == Run({"steps": 100_000}).training == "paper"
    assert Run({"steps": 25_000, "schedule": "onecycle"}).training == "converged"
    assert Run("overnight-cifar", data="cifar-10", model="vgg-d").training == "converged"
    assert (
        Run("short-resnet-20", data="cifar-10", model="resnet-20").training
        == Run(QUICK).training
        == "short"
    )
    assert Run({"steps": 100_000, "lr": 0.2}).training == "short"
    assert (
        Run("paper-mnist", train_size=5000).training
        == Run("paper-mnist", test_size=50).training
        == "short"
    )


SNIP = {"criterion": "snip", "sparsity": 0.5}


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"data": "mist"}, "data: Input should be 'mnist', 'fashion-mnist'.*not 'mist'"),
        ({"model": "lenet"}, "model: Input should be 'lenet-300-100'"),
        ({"criterion": "snap", "sparsity": 0.5}, "criterion: Input should be 'dense', 'snip'"),
        ({"ablation": "flip"} | SNIP, "ablation: Input should be"),
        ({"scoring_init": "hee"}, "scoring_init: Input should be"),
        ({"training_init": "hee"}, "training_init: Input should be"),
        ({"scoring_sample": "odd"}, "scoring_sample: Input should be"),
        ({"scoring_data": "imagenet"}, "scoring_data: Input should be"),
        ({"scoring_augment": "flip"}, "scoring_augment: Input should be"),
        ({"scoring_labels": "wrong"}, "scoring_labels: Input should be 'true' or 'random'"),
        ({"train_labels": "wrong"}, "train_labels: Input should be 'true' or 'random'"),
        ({"batch_norm": "off"}, "batch_norm: Input should be 'eval' or 'train'"),
        ({"moonphase": "full"}, "moonphase: Unexpected keyword argument"),
        ({"scoring_batch": -1}, "scoring_batch: Input should be greater than 0, not -1"),
        ({"scoring_batch": 0}, "scoring_batch: "),
        ({"scoring_batch": 10.5}, "scoring_batch: Input should be a valid integer"),
        ({"scoring_batch": True}, "scoring_batch: Input should be a valid integer"),
        ({"train_size": -5}, "train_size: Input should be greater than 0"),
        ({"test_size": 0}, "test_size: Input should be greater than 0"),
        ({"seed": -1}, "seed: "),
        ({"biases": "no"}, "biases: Input should be a valid boolean, not 'no'"),
        ({"biases": 1}, "biases: Input should be a valid boolean"),
        ({"same_draw": "yes"}, "same_draw: Input should be a valid boolean"),
        ({"criterion": "snip", "sparsity": 1.0}, "sparsity: Input should be less than 1"),
        ({"criterion": "snip", "sparsity": -0.1}, "sparsity: Input should be greater"),
        (
            {"criterion": "snip", "sparsity": float("nan")},
            "sparsity: Input should be a finite number",
        ),
        ({"criterion": "snip", "sparsity": "0.9"}, "sparsity: Input should be a valid number"),
        ({"criterion": "snip"}, "a dense run has sparsity 0"),
        ({"sparsity": 0.5}, "a dense run has sparsity 0"),
        ({"ablation": "shuffle"}, "a dense run has no mask to ablate"),
        (
            {"criterion": "erk", "sparsity": 0.5, "ablation": "invert"},
            "erk does not rank what it removes",
        ),
        (
            {"layer_counts": "mine"} | SNIP,
            "layer_counts: Input should be 'own', 'uniform' or 'erk'",
        ),
        ({"layer_counts": "erk"}, "dense does not rank all connections at once"),
        (
            {"layer_counts": "erk", "criterion": "force", "sparsity": 0.5},
            "take layer_counts 'own', or one of snip",
        ),
        ({"scoring_biases": "one"}, "scoring_biases: Input should be 'zero' or 'random'"),
        ({"scoring_biases": "random"}, "dense scores nothing"),
        ({"scoring_biases": "random"} | pruning("magnitude, rewound", 0.9), "not random ones"),
        ({"pixels": "raw"}, "pixels: Input should be 'standardised' or 'unit'"),
        ({"pixels": "unit", "scoring_data": "noise"} | SNIP, "noise is standard normal"),
        (
            {"pretrained": True, "criterion": "magnitude", "sparsity": 0.5},
            "goes back to the same draw: set both",
        ),
        ({"pretrained": True, "same_draw": True} | SNIP, "a pretrained run ranks by magnitude"),
        (
            {"same_draw": True, "scoring_init": "he"},
            "only be trained when both initialisers are the same",
        ),
        ({"scoring_data": "cifar-10"}, "cifar-10 has other images or classes than mnist"),
        ({"scoring_data": "noise", "scoring_labels": "random"}, "noise has no labels"),
        ({"scoring_data": "noise", "scoring_sample": "balanced"}, "noise has no labels"),
        ({"recipe": "papr"}, "recipe: unknown recipe 'papr'; known: paper-mnist"),
        ({"recipe": {"steps": 10.5}}, "recipe: steps is 10.5; it takes a whole number"),
        (
            {"recipe": {"steps": 5, "lr": float("inf")}},
            "recipe: lr is inf; it takes a finite number",
        ),
        ({"recipe": {"setps": 5}}, "recipe: no field setps; a recipe has steps, batch_size"),
        (
            {"recipe": {"steps": 5, "optimiser": "sgd", "optimizer": "adam"}},
            "recipe: optimiser is 'sgd' and optimizer 'adam'",
        ),
        ({"recipe": {"lr": 0.1}}, "recipe: a recipe needs its number of steps"),
        ({"recipe": None}, "recipe: Input should be an instance of Recipe"),
        ({"options": {"width": 2}}, "lenet-300-100 does not take these options"),
        ({"options": {"x": object()}}, "the options take JSON values"),
        (
            {"model": "lenet-5-caffe", "options": {"conv_relu": "yes"}},
            "conv_relu of .* is 'yes', but it takes bool",
        ),
        ({"model": "lstm-s", "options": {"units": -8}}, "units of lstm-s is -8, but it is a size"),
        ({"model": "vgg-d"}, "for images of 32 or 64 pixels, not 28"),
        ({"data": "cifar-10"}, "inputs 28 wide"),
    ],
)
def test_a_value_that_lies_is_refused(wrong, message):
    with pytest.raises(ValidationError) as caught:
        quick(**wrong)
    line = one_line(caught.value)
    assert "\n" not in line and len(line) < 400
    assert re.search(message, line)


def test_a_run_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        quick().seed = 5
