"""Laws 6 and 7, the recipe, what a run reports, how it is stopped and carried on."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import snipkit
from snipkit import data, masking, models, training
from snipkit.training import Recipe


@pytest.fixture(scope="module")
def tiny():
    return data.load("mnist", train_size=2000, test_size=500)


COLOURED = Recipe(steps=12, batch_size=16, schedule="onecycle", augment="flip-shift")


@pytest.fixture(scope="module")
def noise():
    """Made-up colour images, for networks with batch norm."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (80, 3, 32, 32), generator=generator, dtype=torch.uint8)
    part = data.Images(pixels, torch.arange(80) % 10, (0.5,) * 3, (0.3,) * 3)
    return data.Dataset("noise", 10, part.take(slice(64)), part.take(slice(0)), part.take(slice(64, None)))


def resnet(noise, seed=0):
    model = models.build("resnet-20", width=0.25, seed=seed).to(memory_format=torch.channels_last)
    return model, snipkit.prune(model, noise.train[:32], 0.8)


def lenet(tiny, seed=0, name="lenet-300-100"):
    model = models.build(name, seed=seed)
    return model, snipkit.prune(model, tiny.train[:100], 0.95)


def pruned(tiny, sparsity=0.95):
    model = models.build("lenet-300-100")
    masks = snipkit.prune(model, tiny.train[:100], sparsity)
    return model, masks


@pytest.mark.parametrize("recipe", [Recipe(steps=1), Recipe(steps=30, weight_decay=0.01), Recipe(steps=30, optimiser="adam", lr=0.001, weight_decay=0.01)])
def test_law_6_pruned_weights_are_exactly_zero_after_every_step(tiny, recipe, monkeypatch):
    model, masks = pruned(tiny)
    kept_before = model.fc1.weight[masks["fc1.weight"]].clone()
    nonzero = []
    kind = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.SGD
    step = kind.step
    monkeypatch.setattr(kind, "step", lambda self, *a: (step(self, *a), nonzero.append(
        sum(int(p[~masks[n]].count_nonzero()) for n, p in model.named_parameters())))[0])
    training.train(model, masks, tiny, recipe)
    assert nonzero == [0] * recipe.steps
    assert (model.fc1.weight[masks["fc1.weight"]] != kept_before).all()  # and the kept ones do move


def test_law_6_kept_weights_follow_the_definition(tiny):
    """Training L(c ⊙ w) with autograd through c, against masked gradients: the same numbers in double precision."""
    recipe = Recipe(steps=20, weight_decay=0.01)
    doubled = replace(tiny, train=Doubled(tiny.train), test=Doubled(tiny.test))
    model, masks = pruned(tiny)
    model = model.double()
    reference = copy.deepcopy(model)
    training.train(model, masks, doubled, recipe, seed=3)

    weights = dict(reference.named_parameters())
    c = {name: mask.double() for name, mask in masks.items()}
    optimiser = torch.optim.SGD(weights.values(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    for index in training._order(len(tiny.train), recipe, 3):
        images, labels = doubled.train[index]
        loss = cross_entropy(functional_call(reference, {n: c[n] * w for n, w in weights.items()}, images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, c[name] * weights[name], rtol=1e-9, atol=1e-12)


class Doubled(data.Images):
    """A part of a data set whose batches are in double precision."""

    def __init__(self, part):
        super().__init__(part.pixels, part.labels, part.mean, part.std)

    def standardise(self, pixels):
        return super().standardise(pixels).double()


def test_the_same_seed_gives_the_same_numbers(tiny):
    outcomes = []
    for seed in (0, 0, 1):
        model, masks = pruned(tiny)
        outcomes.append((training.train(model, masks, tiny, Recipe(steps=30), seed=seed), model.fc2.weight))
    assert outcomes[0][0] == outcomes[1][0] and torch.equal(outcomes[0][1], outcomes[1][1])
    assert not torch.equal(outcomes[0][1], outcomes[2][1])


def test_final_and_best_of_the_last_five_are_both_reported(tiny, monkeypatch):
    seen, real = [], training.evaluate
    monkeypatch.setattr(training, "evaluate", lambda *a: seen.append(real(*a)) or seen[-1])
    outcome = training.train(models.build("lenet-300-100"), {}, tiny, Recipe(steps=50, schedule="onecycle"))
    assert len(seen) == 5
    assert outcome.test_error == seen[-1].error and outcome.best_of_last_five == min(e.error for e in seen)
    assert outcome.test_error < 60 and len(outcome.train_loss) == len(outcome.train_error) == 50


def test_snip_beats_random_at_98_percent(mnist, batch):
    errors = {}
    for criterion in ("snip", "random"):
        model = models.build("lenet-300-100", seed=1)
        masks = snipkit.prune(model, batch, 0.98, criterion)
        errors[criterion] = training.train(model, masks, mnist, Recipe(steps=300, schedule="onecycle")).test_error
    assert errors["snip"] < 20 and errors["random"] > errors["snip"] + 30


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5-caffe"])
def test_bfloat16_is_for_the_passes_only(tiny, name):
    """The network computes in bfloat16, the loss is float32, and what is trained is float32 and keeps law 6."""
    model, kinds = models.build(name), []
    masks = snipkit.prune(model, tiny.train[:100], 0.95)
    model.fc2.register_forward_hook(lambda _module, _inputs, output: kinds.append((torch.is_grad_enabled(), output.dtype)))
    outcome = training.train(model, masks, tiny, Recipe(steps=40, schedule="onecycle", precision="bfloat16"))
    assert set(kinds) == {(True, torch.bfloat16), (False, torch.bfloat16)}  # in training and in the tests of it
    assert all(p.dtype == torch.float32 and not p[~masks[n]].any() for n, p in model.named_parameters())
    assert outcome.train_loss[-1] < outcome.train_loss[0] - 0.5 and outcome.test_error < 60
    assert training.evaluate(model, tiny.test).error == pytest.approx(outcome.test_error, abs=1)


@pytest.mark.parametrize(
    "build, dataset, recipe",
    [(lenet, "tiny", Recipe(steps=20)), (resnet, "noise", COLOURED), (resnet, "noise", replace(COLOURED, precision="bfloat16"))],
)
def test_a_compiled_training_is_the_same_training(request, monkeypatch, build, dataset, recipe):
    # The tracing and the gradients are torch's own; its code generator, which needs a compiler on the machine, is left out.
    dataset, compile_ = request.getfixturevalue(dataset), torch.compile
    eager, compiled, another = (build(dataset, seed=seed) for seed in (0, 0, 1))
    expected = training.train(*eager, dataset, recipe)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    def compile(model, mode):
        assert mode == "reduce-overhead"
        return compile_(model, backend=backend, fullgraph=True)

    monkeypatch.setattr(training, "COMPILED_ON", ("cpu",))
    monkeypatch.setattr(torch, "compile", compile)
    training.train(*another, dataset, recipe)
    assert graphs == [], "a short training is not worth compiling"
    monkeypatch.setattr(training, "COMPILED_FROM", 1)
    with torch._dynamo.config.patch(suppress_errors=False):  # and set back
        outcome = training.train(*compiled, dataset, recipe)
    assert len(graphs) == 1, "one graph for all steps, training mode and evaluations between them included"
    assert outcome.train_loss == pytest.approx(expected.train_loss, rel=0.05 if recipe.precision == "bfloat16" else 1e-4)
    assert all(parameter.grad is None for parameter in compiled[0].parameters())


def test_evaluate_counts(tiny):
    model = models.build("lenet-300-100")
    images, labels = tiny.test[:]
    result = training.evaluate(model, tiny.test, batch_size=77)
    with torch.no_grad():
        outputs = model(images)
    assert result.error == pytest.approx(100 * (outputs.argmax(1) != labels).double().mean().item())
    assert result.loss == pytest.approx(cross_entropy(outputs, labels).item(), rel=1e-5)
    with pytest.raises(ValueError, match="no images"):
        training.evaluate(model, tiny.test.take(slice(0)))


def test_divergence_is_one_clear_error(tiny):
    with pytest.raises(training.DivergedError, match="by step 6 of 200.*use a lower learning rate"):
        training.train(models.build("lenet-300-100"), {}, tiny, Recipe(steps=200, lr=1e6))


def test_labels_and_masks_that_do_not_fit(tiny):
    with pytest.raises(ValueError, match="labels from 0 to 9 do not fit a network of 5 outputs"):
        training.train(models.build("lenet-300-100", num_classes=5), {}, tiny, Recipe(steps=1))
    with pytest.raises(ValueError, match="the mask of fc1.weight"):
        training.train(models.build("lenet-300-100"), {"fc1.weight": torch.ones(2, dtype=torch.bool)}, tiny, Recipe(steps=1))
    with pytest.raises(ValueError, match="batch size is 3000, but there are only 2000"):
        training.train(models.build("lenet-300-100"), {}, tiny, Recipe(steps=1, batch_size=3000))


@pytest.mark.parametrize("wrong", [{"optimiser": "sdg"}, {"schedule": "cyclic"}, {"precision": "half"}, {"steps": 0}, {"lr": -0.1}, {"momentum": 1.0}])
def test_a_recipe_is_validated(wrong):
    with pytest.raises(ValueError, match=str(list(wrong.values())[0]) + "|momentum must be"):
        Recipe(**({"steps": 10} | wrong))


def test_the_papers_schedule():
    recipe = Recipe(steps=100_000)
    rates = [recipe.lr * training._rate(step, recipe) for step in (0, 24_999, 25_000, 50_000, 75_000)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.0001])
    one_cycle = Recipe(steps=100, schedule="onecycle")
    rates = [training._rate(step, one_cycle) for step in range(100)]
    assert max(rates) == rates[20] == 1 and rates[0] == pytest.approx(0.04) and rates[-1] < 0.01


def test_norm_layers_are_not_decayed(small):
    model, _ = small
    optimiser, _ = training._optimiser(model, Recipe(steps=1))
    decayed = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert {name: decayed[id(p)] for name, p in model.named_parameters()} == {
        name: 0.0 if name.startswith("1.") else 5e-4 for name, _ in model.named_parameters()
    }


# --- stacks ---------------------------------------------------------------------------------------------------------


def doubled(dataset):
    return replace(dataset, train=Doubled(dataset.train), test=Doubled(dataset.test))


def alone_and_stacked(build, datasets, recipe, double=True):
    """The same networks trained one by one and together, with what came of it; the last one is dense."""
    alone, masks = map(list, zip(*(build(dataset, seed) for seed, dataset in enumerate(datasets))))
    masks[-1] = {}
    if double:
        alone, datasets = [model.double() for model in alone], [doubled(dataset) for dataset in datasets]
    together, seeds = copy.deepcopy(alone), range(5, 5 + len(alone))
    one_by_one = [training.train(*each, recipe, seed=seed) for *each, seed in zip(alone, masks, datasets, seeds)]
    return alone, one_by_one, together, training.train_stack(together, masks, datasets, recipe, seeds=seeds), masks


def largest_difference(models, others):
    pairs = [(a.state_dict(), b.state_dict()) for a, b in zip(models, others)]
    return max(float((a[name] - b[name]).abs().max()) for a, b in pairs for name in a)


@pytest.mark.parametrize(
    "name, recipe",
    [
        ("lenet-300-100", Recipe(steps=100, batch_size=50)),
        ("lenet-300-100", Recipe(steps=100, batch_size=50, optimiser="adam", lr=0.001, augment="flip-shift")),
        ("lenet-5-caffe", Recipe(steps=100, batch_size=5, lr=0.01, schedule="onecycle")),
        ("lenet-5-caffe", Recipe(steps=20, batch_size=5, optimiser="adam", lr=0.001)),
    ],
)
def test_law_7_a_stack_follows_the_paths_of_its_networks(tiny, name, recipe):
    """In double precision, so that no ReLU falls on the other side of zero: in float32 that sets the paths apart in the end."""
    test = tiny.test.take(slice(100))
    splits = (0, 1, 0) if name == "lenet-300-100" else (0, 1)
    datasets = [replace(data.load("mnist", split_seed=split, train_size=400), test=test) for split in splits]
    alone, expected, stack, outcomes, masks = alone_and_stacked(lambda d, seed: lenet(d, seed, name), datasets, recipe)
    assert largest_difference(alone, stack) < 1e-11  # measured: from 3e-16 to 5e-13
    assert all(not p[~kept[n]].any() for model, kept in zip(stack, masks) for n, p in model.named_parameters() if n in kept)
    for outcome, other in zip(outcomes, expected):
        assert outcome.train_error == other.train_error and outcome.train_loss == pytest.approx(other.train_loss, rel=1e-9)
        assert (outcome.test_error, outcome.best_of_last_five) == (other.test_error, other.best_of_last_five)
        assert outcome.test_loss == pytest.approx(other.test_loss, rel=1e-9)


def test_law_7_holds_for_batch_norm_and_its_statistics(noise):
    """And where every network has a test set of its own."""
    datasets = [replace(noise, test=noise.test.take(slice(size))) for size in (16, 10)]
    alone, expected, stack, outcomes, _ = alone_and_stacked(resnet, datasets, replace(COLOURED, steps=6))
    assert largest_difference(alone, stack) < 1e-11 and not stack[0].training
    assert [o.test_error for o in outcomes] == [o.test_error for o in expected]


def test_a_stack_in_single_precision_and_in_bfloat16(tiny):
    datasets = [tiny, tiny]
    for precision, tolerance in (("float32", 1e-5), ("bfloat16", 0.01)):
        recipe = Recipe(steps=10, schedule="onecycle", precision=precision)
        alone, expected, stack, outcomes, _ = alone_and_stacked(lenet, datasets, recipe, double=False)
        assert largest_difference(alone, stack) < tolerance
        assert outcomes[0].train_loss == pytest.approx(expected[0].train_loss, rel=tolerance)


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5-caffe"])
def test_a_network_that_diverges_does_not_spoil_its_stack(tiny, name):
    recipe = Recipe(steps=12, batch_size=20, schedule="onecycle")

    def build(dataset, seed):
        model, masks = lenet(dataset, seed, name)
        if seed == 1:
            with torch.no_grad():
                model.fc1.weight.mul_(1e20)
        return model, masks

    models, masks = map(list, zip(*(build(tiny, seed) for seed in range(3))))
    outcomes = training.train_stack(models, masks, [tiny] * 3, recipe, seeds=range(3))
    assert isinstance(outcomes[1], training.DivergedError) and "by step 2 of 12" in str(outcomes[1])
    for number in (0, 2):
        model, kept = build(tiny, number)
        expected = training.train(model, kept, tiny, recipe, seed=number)
        assert outcomes[number].train_loss == pytest.approx(expected.train_loss, rel=1e-4)
        assert largest_difference([model], [models[number]]) < 1e-5
    hopeless = training.train_stack([build(tiny, 1)[0]], [{}], [tiny], recipe, seeds=[0])
    assert [type(outcome) for outcome in hopeless] == [training.DivergedError]


def test_what_cannot_be_stacked_is_named(tiny, noise):
    def stacked(first, second, datasets=(tiny, tiny), recipe=Recipe(steps=1), masks=({}, {})):
        return training.train_stack([first, second], masks, datasets, recipe, seeds=[0, 1])

    def build(name="lenet-300-100", **options):
        return models.build(name, **options)

    for layer in (nn.LSTM(28, 10), nn.GRU(28, 10), nn.Dropout()):
        with pytest.raises(ValueError, match=f"1 is a {type(layer).__name__}, which cannot be stacked"):
            stacked(nn.Sequential(nn.Flatten(), layer), build())
    with pytest.raises(ValueError, match="the models of a stack must be alike: number 1"):
        stacked(build(), build("lenet-5-caffe"))
    with pytest.raises(ValueError, match="the models of a stack must be alike"):
        stacked(build(), build(num_classes=11))
    with pytest.raises(ValueError, match="the training sets of a stack must be alike"):
        stacked(build(), build(), (tiny, replace(tiny, train=tiny.train.take(slice(100)))))
    with pytest.raises(ValueError, match="a stack of 2 models, 1 mask sets, 2 data sets and 2 seeds"):
        stacked(build(), build(), masks=[{}])
    with pytest.raises(ValueError, match="labels from 0 to 9 do not fit a network of 5 outputs"):
        stacked(build(num_classes=5), build(num_classes=5))
    with pytest.raises(ValueError, match="batch size is 3000"):
        stacked(build(), build(), recipe=Recipe(steps=1, batch_size=3000))
    with pytest.raises(ValueError, match="no images to evaluate on"):
        stacked(build(), build(), [replace(tiny, test=tiny.test.take(slice(0)))] * 2)


# --- trainings that can be interrupted ------------------------------------------------------------------------------

@pytest.mark.parametrize(
    "build, dataset, recipe",
    [
        (resnet, "noise", COLOURED),
        (lenet, "tiny", Recipe(steps=12, optimiser="adam", lr=0.001, augment="half-flip-shift")),
        (lenet, "tiny", Recipe(steps=70, decay_every=20)),  # logged every other step, so more than one is lost
    ],
)
def test_an_interrupted_training_comes_to_the_same_bits(request, tmp_path, monkeypatch, build, dataset, recipe):
    """Stopped by its deadline at every step but the first, and then killed between two states, it ends where one that was not does."""
    dataset, path = request.getfixturevalue(dataset), tmp_path / "a" / "state.pt"
    whole, masks = build(dataset)
    expected = training.train(whole, masks, dataset, recipe, seed=3)
    stops = 0
    while True:
        model, masks = build(dataset)
        try:
            outcome = training.train(model, masks, dataset, recipe, seed=3, checkpoint=path, deadline=0.0 if stops < 7 else None)
            break
        except training.Interrupted as error:
            assert f"at step {(stops + 1) * training.log_interval(recipe.steps)};" in str(error) and path.exists()
            stops += 1
    assert stops == 7 and outcome == expected
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in whole.state_dict().items())
    assert not list(path.parent.iterdir())  # nothing is left lying about


def test_an_interrupted_stack_comes_to_the_same_bits(tiny, tmp_path):
    """One of its three networks has diverged by the time of the first stop."""
    recipe, path = Recipe(steps=40, lr=0.2, augment="flip-shift"), tmp_path / "stack.pt"

    def result(seeds=(3, 4, 5), **how):
        networks, masks = map(list, zip(*(lenet(tiny, seed) for seed in (0, 1, 2))))
        with torch.no_grad():
            networks[1].fc1.weight *= 1e4
        return networks, training.train_stack(networks, masks, [tiny] * 3, recipe, seeds=seeds, **how)

    def same(first, second):
        # An error is equal to no other, so those of the diverged network are compared as text.
        return list(map(str, first[1])) == list(map(str, second[1])) and all(
            torch.equal(*pair) for a, b in zip(first[0], second[0]) for pair in zip(a.parameters(), b.parameters()) if pair[0].isfinite().all()
        )

    whole = result()
    assert isinstance(whole[1][1], training.DivergedError)
    for stops in range(5):
        with pytest.raises(training.Interrupted, match=f"at step {stops + 1};"):
            result(checkpoint=path, deadline=0.0)
    assert same(result(checkpoint=path), whole) and not path.exists()
    with pytest.raises(training.Interrupted):
        result(checkpoint=path, deadline=0.0)
    with pytest.warns(UserWarning, match="the state of another training"):
        assert not same(result(seeds=(3, 4, 6), checkpoint=path), whole)


def test_a_killed_training_loses_what_came_after_the_last_state(tiny, tmp_path, monkeypatch):
    path, recipe, steps = tmp_path / "state.pt", Recipe(steps=40), []
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    real = training.mask_gradients

    def killed(masked):
        steps.append(1)
        if len(steps) == 20:
            raise KeyboardInterrupt
        real(masked)

    model, masks = lenet(tiny)
    monkeypatch.setattr(training, "mask_gradients", killed)
    with pytest.raises(KeyboardInterrupt):
        training.train(model, masks, tiny, recipe, checkpoint=path)
    model, masks = lenet(tiny)
    outcome = training.train(model, masks, tiny, recipe, checkpoint=path)
    assert len(steps) == 20 + 40 - 19 and not path.exists()
    model, masks = lenet(tiny)
    assert outcome == training.train(model, masks, tiny, recipe)


def test_states_that_are_damaged_or_of_another_training_are_not_used(tiny, tmp_path):
    path, recipe = tmp_path / "state.pt", Recipe(steps=10)

    def result(dataset=tiny, seed=0, **how):
        model, masks = lenet(tiny)
        return training.train(model, masks, dataset, recipe, seed=seed, **how)

    def interrupted(**how):
        with pytest.raises(training.Interrupted):
            result(checkpoint=path, deadline=0.0, **how)
        return path.read_bytes()

    expected, state = result(), interrupted()
    for torn in (b"", b"text", state[:1000], state[:-1]):
        path.write_bytes(torn)
        with pytest.warns(UserWarning, match="is not the state of a training, or is damaged: training starts anew"):
            assert result(checkpoint=path) == expected
    for other in ({"seed": 1}, {"dataset": replace(tiny, test=tiny.test.take(slice(10)))}):
        interrupted(**other)
        with pytest.warns(UserWarning, match="the state of another training"):
            assert result(checkpoint=path) == expected
    path.write_bytes(state)
    other, masks = lenet(tiny, seed=1)
    with pytest.warns(UserWarning, match="the state of another training"):
        training.train(other, masks, tiny, recipe, checkpoint=path)
    with pytest.raises(ValueError, match="a training with a deadline needs a checkpoint"):
        result(deadline=0.0)


def test_a_training_whose_state_cannot_be_written_goes_on(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    path, recipe = tmp_path / "state.pt", Recipe(steps=3)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match="cannot be written .*: it goes on without"):
        outcome = training.train(*lenet(tiny), tiny, recipe, checkpoint=path)
    assert outcome == training.train(*lenet(tiny), tiny, recipe)
    with pytest.raises(OSError, match="no space left"):  # nothing to carry on from: better to be told
        training.train(*lenet(tiny), tiny, recipe, checkpoint=path, deadline=0.0)


def test_a_diverged_training_leaves_no_state_behind(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    with pytest.raises(training.DivergedError):
        training.train(models.build("lenet-300-100"), {}, tiny, Recipe(steps=20, lr=1e6), checkpoint=tmp_path / "state.pt")
    assert not list(tmp_path.iterdir())
