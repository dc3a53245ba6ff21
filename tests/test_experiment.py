"""Carrying out a run.

Every field of ``Run`` does what it says, and runs that are compared share the rest.
"""

import dataclasses
import math

import pytest
import torch
from tiny import QUICK, quick

import snipkit
from snipkit import data, masking, outcomes, saliency, training
from snipkit.beyond import controls, densities, shuffles
from snipkit.recipe import Recipe
from snipkit.study.train import checkpoints, experiment, prepare, records
from snipkit.study.train.runs import LABELS, Run, pruning

SNIP = {"criterion": "snip", "sparsity": 0.9}
ALL = {"masks", "training", "test"}
BATCH_NORM = {
    "data": "cifar-10",
    "model": "vgg-like",
    "options": {"width": 0.125, "bn_momentum": 0.1},
    "scoring_batch": 20,
    "recipe": Recipe(steps=2, batch_size=10),
    "train_size": 200,
    "test_size": 50,
}
#: field → what the run has besides, the variation, and what differs then
VARIATIONS = {
    "recipe": ({}, {"steps": 5, "schedule": "onecycle", "lr": 0.2}, {"training", "test"}),
    "data": ({}, "fashion-mnist", ALL),
    "model": ({}, "lenet-5-caffe", ALL),
    "options": ({"model": "lenet-5-caffe"}, {"conv_relu": True}, ALL),
    "criterion": ({}, "gradient", ALL),
    "sparsity": ({}, 0.8, ALL),
    "ablation": ({}, "shuffle", ALL),
    "seed": ({}, 1, ALL),
    "scoring_init": ({}, "he", ALL),
    "training_init": ({}, "he", {"training", "test"}),
    "same_draw": ({}, True, ALL),
    "scoring_batch": ({}, None, ALL),
    "scoring_sample": ({}, "balanced", ALL),
    "scoring_data": ({}, "noise", ALL),
    "scoring_augment": ({}, "flip-shift", ALL),
    "scoring_labels": ({}, "random", ALL),
    "train_labels": ({}, "random", {"training", "test"}),
    "biases": ({}, False, ALL),
    "batch_norm": (BATCH_NORM, "train", ALL),
    "train_size": ({}, 400, ALL),
    "test_size": ({}, 200, {"test"}),
    "pretrained": ({"criterion": "magnitude", "same_draw": True}, True, ALL),
    "layer_counts": ({}, "erk", ALL),
    "scoring_biases": ({}, "random", ALL),
    "pixels": ({}, "unit", ALL),
}


def observed(run):
    record = experiment.execute(run)
    masks = prepare.find_masks(run, prepare.load(run))
    assert record.kept == {name: (int(mask.sum()), mask.numel()) for name, mask in masks.items()}
    assert record.run == run and record.diverged is None
    outcome = record.outcome
    return masks, outcome.train_loss + outcome.train_error, [outcome.test_error, outcome.test_loss]


def same(first, second):
    masks = first[0].keys() == second[0].keys() and all(
        torch.equal(m, second[0][name]) for name, m in first[0].items()
    )
    return {"masks": masks, "training": first[1] == second[1], "test": first[2] == second[2]}


@pytest.fixture(scope="module")
def plain():
    """What a run comes to, each done once."""
    done = {}
    return lambda run: (
        done.setdefault(run.id, None) or done.update({run.id: observed(run)}) or done[run.id]
    )


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Run)])
def test_every_field_does_something(name, plain):
    """A new field without a variation, or forgotten on the way to the training, fails here."""
    besides, variation, expected = VARIATIONS[name]
    run = quick(**SNIP | besides)
    other = dataclasses.replace(run, **{name: variation})
    assert other.id != run.id
    agrees = same(plain(run), plain(other))
    assert {what for what, equal in agrees.items() if not equal} == expected


def test_a_run_comes_to_the_same_again(plain):
    run = quick(**SNIP)
    assert all(same(plain(run), observed(run)).values())


@pytest.fixture
def seen(monkeypatch):
    """What a run scores and what it hands to the training, instead of the training."""
    found = {}

    def score(model, batches, *, biases, batch_norm, generator, sparsity):
        found["scored"] = {name: p.detach().clone() for name, p in model.named_parameters()}
        found["batch"] = [tensor.clone() for pair in batches for tensor in pair]
        return saliency.random(model, biases=biases, generator=generator)

    def train(model, masks, dataset, recipe, *, seed, checkpoint):
        found["trained"] = {name: p.detach().clone() for name, p in model.named_parameters()}
        found.update(
            images=dataset.train.rows, labels=dataset.train.labels, test=dataset.test.labels
        )
        found.update(order=seed, recipe=recipe)
        return outcomes.Outcome(5.0, 4.0, 0.3, [1.0], [50.0])

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setitem(snipkit.CRITERIA, "snip", score)

    def look(**changes):
        found.clear()
        experiment.execute(quick(**{"criterion": "snip", "sparsity": 0.1} | changes))
        return dict(found)

    return look


def equal(first, second):
    if isinstance(first, dict):
        return all(equal(value, second[name]) for name, value in first.items())
    if isinstance(first, list):
        return all(map(equal, first, second))
    return torch.equal(first, second) if torch.is_tensor(first) else first == second


def test_runs_of_one_seed_share_all_that_is_not_compared(seen):
    """Split, both initialisations, scoring batch, order.

    Whatever the criterion, the sparsity, the ablation.
    """
    first, paired = seen(), ("trained", "images", "labels", "test", "order", "recipe")
    run = quick()
    for name, own in (("scored", "scoring_init"), ("trained", "training_init")):
        fresh = dict(prepare.build(run, "lecun", run.seeds()[own]).named_parameters())
        assert equal(first[name], fresh) and fresh.keys() == first[name].keys()
    assert first["order"] == run.seeds()["order"] and not equal(first["scored"], first["trained"])
    scored = (
        {"sparsity": 0.2},
        {"ablation": "shuffle"},
        {"biases": False},
        {"scoring_labels": "random"},
    )
    others = (
        {"criterion": "random"},
        {"criterion": "magnitude"},
        {"criterion": "dense", "sparsity": 0.0},
    )
    for changes in (*scored, *others):
        other = seen(**changes)
        assert all(equal(first[name], other[name]) for name in paired), changes
        if {"sparsity", "ablation"} & set(changes) and "scored" in other:
            assert equal(first["scored"], other["scored"]) and equal(first["batch"], other["batch"])
    other = seen(seed=1)
    assert not any(
        equal(first[name], other[name])
        for name in ("scored", "trained", "images", "order", "batch")
    )
    assert equal(first["test"], other["test"])


def test_the_same_draw_is_scored_and_trained(seen):
    found = seen(same_draw=True)
    assert equal(found["scored"], found["trained"]) and equal(found["trained"], seen()["trained"])


def test_random_biases_are_scored_and_trained_only_with_the_scored_draw(seen):
    zero, random = seen(), seen(scoring_biases="random")
    for name, parameter in random["scored"].items():
        drawn = name.endswith("bias")
        assert equal(parameter, zero["scored"][name]) != drawn
        if drawn:  # the variance of a vector's draw is one over its length
            assert 0.4 < float(parameter.square().mean()) * len(parameter) < 2.5
    assert equal(random["trained"], zero["trained"])
    both = seen(scoring_biases="random", same_draw=True)
    assert equal(both["scored"], both["trained"]) and both["trained"]["fc1.bias"].any()
    other_seed = seen(scoring_biases="random", seed=1)["scored"]["fc1.bias"]
    assert not equal(other_seed, random["scored"]["fc1.bias"])


def test_random_labels_are_the_true_ones_permuted(seen):
    """For scoring and for training in the same way.

    The test set keeps its labels, and the images their places.
    """
    true, random = seen(), seen(train_labels="random", scoring_labels="random")
    assert equal(true["images"], random["images"]) and equal(true["test"], random["test"])
    assert not torch.equal(true["labels"], random["labels"])
    assert equal(true["labels"].bincount(), random["labels"].bincount())
    run = quick(train_labels="random", **SNIP)
    dataset = prepare.load(run)
    shuffled = data.shuffle_labels(
        dataset.train, torch.Generator().manual_seed(run.seeds()["labels"])
    )
    assert equal(random["labels"], shuffled.labels)
    inputs, labels = data.sample(shuffled, 100, torch.Generator().manual_seed(run.seeds()["batch"]))
    assert equal(random["batch"], [inputs, labels]) and equal(true["batch"][0], inputs)


def test_ablations_change_what_they_should():
    def masks(ablation):
        return prepare.find_masks(quick(ablation=ablation, **SNIP), prepare.load(quick()))

    none, shuffled, inverted = masks("none"), masks("shuffle"), masks("invert")
    counts = [[int(mask.sum()) for mask in found.values()] for found in (none, shuffled, inverted)]
    assert counts[0] == counts[1] != counts[2] and sum(counts[0]) == sum(counts[2])
    assert not torch.equal(none["fc1.weight"], shuffled["fc1.weight"])
    assert not (none["fc3.weight"] & inverted["fc3.weight"]).any()


@pytest.mark.parametrize("criterion", ["snip", "erk"])
def test_the_rungs_of_the_ladder_are_those_of_masking(criterion):
    """Each is made from the same mask with the run's own generator."""
    run = quick(model="lenet-5-caffe", criterion=criterion, sparsity=0.95, seed=2)
    dataset = prepare.load(run)
    masks, seed = prepare.find_masks(run, dataset), run.seeds()["ablation"]
    for ablation, keep in {
        "": "layers",
        "-inputs": "inputs",
        "-outputs": "outputs",
        "-units": "units",
    }.items():
        found = prepare.find_masks(dataclasses.replace(run, ablation=f"shuffle{ablation}"), dataset)
        assert equal(found, shuffles.shuffle(masks, torch.Generator().manual_seed(seed), keep)), (
            ablation
        )
    found = prepare.find_masks(dataclasses.replace(run, ablation="shuffle-channels"), dataset)
    assert equal(
        found,
        shuffles.shuffle(masks, torch.Generator().manual_seed(seed), "units", positions=False),
    )
    found = prepare.find_masks(dataclasses.replace(run, ablation="relabel"), dataset)
    model, generator = prepare.build(run, "lecun", 0), torch.Generator().manual_seed(seed)
    assert equal(found, shuffles.relabel(model, masks, torch.zeros(1, 1, 28, 28), generator))


@pytest.mark.parametrize("layer_counts", ["own", "uniform", "erk"])
def test_the_controls_are_made_from_the_mask_of_the_layer_counts(layer_counts):
    run = quick(criterion="snip", sparsity=0.9, seed=2, layer_counts=layer_counts)
    dataset = prepare.load(run)
    model = prepare.build(run, "lecun", run.seeds()["scoring_init"])
    scores = saliency.snip(model, prepare.scoring_batches(run, dataset))
    shares = 0.9 if layer_counts == "own" else densities.DENSITIES[layer_counts](model, 0.9)
    masks = masking.keep_top(scores, shares)
    assert equal(prepare.find_masks(run, dataset), masks)
    for ablation, control in {
        "live-units": controls.keep_live_units,
        "misaligned": controls.misalign,
    }.items():
        controlled = prepare.find_masks(dataclasses.replace(run, ablation=ablation), dataset)
        assert equal(
            controlled, control(masks, torch.Generator().manual_seed(run.seeds()["ablation"]))
        ), ablation


@pytest.mark.parametrize("criterion", controls.TWINS)
def test_twins_have_the_gradient_of_the_scored_network_and_the_weights_of_another(criterion):
    run = quick(criterion=criterion, sparsity=0.9, seed=2, same_draw=True, layer_counts="uniform")
    dataset, seeds = prepare.load(run), run.seeds()
    gradients = saliency.gradient(
        prepare.build(run, "lecun", seeds["training_init"]),
        prepare.scoring_batches(run, dataset),
    )
    fresh = prepare.build(run, "lecun", seeds["criterion"])
    generator = torch.Generator().manual_seed(seeds["criterion"])
    scores = controls.TWINS[criterion](gradients, dict(fresh.named_parameters()), generator)
    expected = masking.keep_top(scores, densities.uniform(fresh, 0.9))
    assert equal(prepare.find_masks(run, dataset), expected)


@pytest.mark.parametrize("criterion", densities.COUNTS)
def test_layerwise_random_masks_come_from_the_runs_own_stream(criterion):
    run = quick(criterion=criterion, sparsity=0.9, seed=3, biases=False)
    model, generator = (
        prepare.build(run, "lecun", 0),
        torch.Generator().manual_seed(run.seeds()["criterion"]),
    )
    expected = densities.random_masks(criterion, model, 0.9, generator, biases=False)
    found = prepare.find_masks(run, prepare.load(run))
    assert found.keys() == expected.keys() and equal(found, expected)


def test_a_pretrained_run_ranks_trained_weights_and_trains_the_initial_ones(monkeypatch):
    """The trained ones are those of the dense run with its seed.

    They are trained once for all its sparsities.
    """
    run = quick(
        **pruning("magnitude, rewound", 0.9), seed=4, train_labels="random", recipe=Recipe(steps=20)
    )
    trained, train = [], training.train

    def spy(model, masks, *arguments, **options):
        initial = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        outcome = train(model, masks, *arguments, **options)
        trained.append((initial, model, masks, outcome))
        return outcome

    prepare._trained.cache_clear()
    monkeypatch.setattr(training, "train", spy)
    monkeypatch.setattr(experiment, "LENETS", ())
    experiment.execute(run)
    (initial, dense, none, outcome), (again, _, masks, _) = trained
    assert none == {} and equal(initial, again)
    assert (
        outcome
        == experiment.execute(quick(seed=4, train_labels="random", recipe=Recipe(steps=20))).outcome
    )
    assert equal(masks, masking.keep_top(saliency.magnitude(dense), 0.9))
    untrained = masking.keep_top(
        saliency.magnitude(prepare.build(run, "lecun", run.seeds()["training_init"])), 0.9
    )
    assert masking.overlap(masks, untrained)[0] < 0.99
    experiment.execute(dataclasses.replace(run, sparsity=0.5, ablation="shuffle"))
    assert len(trained) == 4  # dense, 0.9, dense again by itself, 0.5


def test_what_a_run_scores_on():
    def batches(**changes):
        run = quick(**SNIP | changes)
        pairs = prepare.scoring_batches(run, prepare.load(run))
        return [torch.cat(part) for part in zip(*pairs)], [len(labels) for _, labels in pairs]

    (inputs, labels), _ = batches()
    # Drawn, not the first.
    assert len(labels) == 100 and not equal(inputs, prepare.load(quick()).train[:100][0])
    assert batches(scoring_batch=None, train_size=2500)[1] == [1000, 1000, 500]
    assert batches(scoring_batch=None, train_size=2500, batch_norm="train")[1] == [2500]
    (shifted, unmoved), _ = batches(scoring_augment="flip-shift")
    assert torch.equal(labels, unmoved) and not torch.equal(inputs, shifted)
    assert batches(scoring_sample="balanced")[0][1].bincount().tolist() == [10] * 10
    (noise, classes), sizes = batches(scoring_data="noise")
    assert (
        abs(noise.mean()) < 0.02
        and abs(noise.std() - 1) < 0.02
        and set(classes.tolist()) == set(range(10))
    )
    assert sizes == [100] and batches(scoring_data="noise", scoring_batch=None)[1] == [500]
    for other in (None, "fashion-mnist"):
        (unit, _), _ = batches(pixels="unit", scoring_data=other)
        assert unit.min() == 0 and unit.max() == 1
    (garments, _), sizes = batches(scoring_data="fashion-mnist")
    first = prepare.load(quick(data="fashion-mnist")).train
    assert (
        sizes == [100]
        and (first[:][0][:, None] == garments[None, :5]).flatten(2).all(2).any(0).all()
    )


def test_scores_in_pieces_are_those_of_the_whole_batch():
    """Law 4 at work: 2,500 images go through in three pieces."""
    run = quick(criterion="snip", sparsity=0.95, scoring_batch=2500, train_size=3000)
    dataset, seeds = prepare.load(run), run.seeds()
    batch = data.sample(dataset.train, 2500, torch.Generator().manual_seed(seeds["batch"]))
    whole = masking.keep_top(
        saliency.snip(prepare.build(run, "lecun", seeds["scoring_init"]), batch), 0.95
    )
    pieces = prepare.find_masks(run, dataset)
    # A tie in the last digits may fall the other way.
    assert masking.overlap(pieces, whole)[0] > 0.9995


def test_random_masks_come_from_the_runs_own_stream():
    run = quick(criterion="random", sparsity=0.9, seed=3)
    model, generator = (
        prepare.build(run, "lecun", 0),
        torch.Generator().manual_seed(run.seeds()["criterion"]),
    )
    expected = masking.keep_top(saliency.random(model, generator=generator), 0.9)
    assert equal(prepare.find_masks(run, prepare.load(run)), expected)


def test_random_labels_are_learnt_by_heart_and_of_no_use():
    recipe = Recipe(steps=150, batch_size=50, schedule="onecycle", weight_decay=0.0)
    runs = [Run(recipe=recipe, train_labels=kind, train_size=200, test_size=500) for kind in LABELS]
    true, shuffled = (experiment.execute(run).outcome for run in runs)
    assert shuffled.train_error[0] > 80 and shuffled.train_error[-1] < 5
    assert true.test_error < 30 and shuffled.test_error > 75


def test_a_record_says_what_was_kept_and_where_it_was_made():
    record = experiment.execute(quick(criterion="snip", sparsity=0.999, seed=2))
    kept = sum(kept for kept, _ in record.kept.values())
    # Of the whole network, though what trained was one without the units that no path uses.
    assert (kept, sum(total for _, total in record.kept.values())) == (
        267,
        266_610,
    ) and 0 < record.effective <= kept
    masks = prepare.find_masks(record.run, prepare.load(record.run))
    model = prepare.build(record.run, "lecun", 0)
    paths = snipkit.effective(model, masks, torch.zeros(1, 1, 28, 28))
    assert record.effective == sum(int(mask.sum()) for mask in paths.values()) < kept
    assert set(record.provenance) == {
        "seconds",
        "device",
        "snipkit",
        "commit",
        "torch",
        "python",
        "date",
    }
    dense, recurrent = experiment.execute(quick()), experiment.execute(quick(model="gru-s", **SNIP))
    lstm = experiment.execute(quick(model="lstm-s", options={"width": 0.1}))
    assert (recurrent.provenance["kernel"], lstm.provenance["kernel"]) == ("loop", "fused")
    assert dense.kept == {} and dense.effective is recurrent.effective is None


def test_a_diverging_run_is_a_result():
    record = experiment.execute(quick(recipe=Recipe(steps=30, lr=1e6)))
    assert record.outcome is None and "use a lower learning rate" in record.diverged


def test_what_cannot_be_sampled_is_an_error():
    with pytest.raises(ValueError, match="cannot sample a batch of 501 from 500 examples"):
        experiment.execute(quick(scoring_batch=501, **SNIP))


def test_runs_that_can_train_together_are_grouped():
    first, other, alone = (
        quick(),
        quick(recipe=Recipe(steps=6)),
        quick(data="cifar-10", model="vgg-d"),
    )
    caffe = quick(model="lenet-5-caffe")
    relu = quick(model="lenet-5-caffe", options={"conv_relu": True})
    pruned = quick(seed=3, scoring_data="noise", train_labels="random", **SNIP)
    unit = quick(pixels="unit")
    sized, tested, garments = (
        quick(train_size=600),
        quick(test_size=50),
        quick(data="fashion-mnist"),
    )
    runs = [
        first,
        alone,
        other,
        pruned,
        relu,
        caffe,
        quick(seed=1),
        quick(seed=2),
        sized,
        tested,
        garments,
        unit,
    ]
    apart = [
        [run] for run in (alone, other, relu, caffe, quick(seed=2), sized, tested, garments, unit)
    ]
    assert experiment.stacks(runs, limit=3) == [[first, pruned, quick(seed=1)], *apart]
    again = dataclasses.replace(alone, seed=1)
    assert experiment.stacks([alone, again]) == [[alone], [again]]
    tiny = [quick(data="mnist-1d", model="mlp-1d", seed=seed) for seed in range(2)]
    assert experiment.stacks([first, pruned, *tiny], on_gpu=False) == [[first], [pruned], tiny]
    with pytest.raises(ValueError, match="group them with `stacks`"):
        experiment.execute_stack([quick(), quick(train_size=600)])


def test_a_stack_of_runs_comes_to_the_records_of_the_single_ones():
    runs = [
        quick(),
        quick(criterion="snip", sparsity=0.95),
        quick(criterion="random", sparsity=0.5, seed=1),
        quick(train_labels="random", scoring_labels="random", **SNIP),
        quick(criterion="magnitude", sparsity=0.9, scoring_init="he", training_init="he", seed=2),
        quick(model="lenet-5-caffe", test_size=50, **SNIP),
        quick(model="lenet-5-caffe", test_size=50, seed=1),
        *(
            quick(
                data="mnist-1d",
                model=model,
                seed=seed,
                criterion="snip",
                ablation=ablation,
                sparsity=0.8,
            )
            for model in experiment.TINY
            for seed, ablation in enumerate(("none", "shuffle-units"))
        ),
    ]
    groups = experiment.stacks(runs)
    assert [len(group) for group in groups] == [5, 2, 2, 2]
    for group in groups:
        for run, record in zip(group, experiment.execute_stack(group), strict=True):
            alone = experiment.execute(run)
            assert record.provenance["stack"] == len(group)
            assert (record.run, record.kept, record.effective) == (run, alone.kept, alone.effective)
            for name, value in dataclasses.asdict(alone.outcome).items():
                assert getattr(record.outcome, name) == pytest.approx(value, rel=1e-4), name


def test_a_diverging_run_leaves_its_stack_alone():
    recipe = Recipe(steps=30, lr=0.2)
    calm, wild = (
        quick(recipe=recipe, criterion="snip", sparsity=0.99),
        quick(recipe=recipe, training_init="normal"),
    )
    stack, alone = experiment.execute_stack([wild, calm]), experiment.execute(wild)
    assert (
        stack[0].outcome is alone.outcome is None and stack[0].diverged[:20] == alone.diverged[:20]
    )
    assert stack[1].diverged is None and math.isfinite(stack[1].outcome.test_loss)


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_or_a_stack_that_was_stopped_carries_on(tmp_path, count):
    """To the last bit; the record says that its seconds are those of a part."""
    runs, path = (
        [quick(recipe=QUICK, seed=seed, **SNIP) for seed in range(count)],
        tmp_path / "state.pt",
    )

    def execute(checkpoint=None):
        if count > 1:
            return experiment.execute_stack(runs, "cpu", checkpoint)
        return [experiment.execute(runs[0], "cpu", checkpoint)]

    with pytest.raises(checkpoints.Interrupted):
        execute(checkpoints.Checkpoint(path, deadline=0.0))
    assert path.exists()
    records = execute(checkpoints.Checkpoint(path))
    assert [record.outcome for record in records] == [record.outcome for record in execute()]
    assert all(record.provenance["resumed"] for record in records) and not path.exists()


def test_a_dense_training_that_diverges_before_the_masks_is_a_result():
    wild = Recipe(steps=60, lr=1e6)
    run, other = (
        quick(**pruning(method, 0.9), seed=4, recipe=wild)
        for method in ("magnitude, rewound", "random")
    )
    for found in (
        experiment.execute(run),
        *experiment.execute_stack([run]),
        experiment.execute_stack([run, other])[0],
    ):
        assert (
            found.run == run
            and found.outcome is None
            and "is nan by step" in found.diverged
            and not found.kept
        )
        assert records.Record.from_line(found.to_line()) == found
