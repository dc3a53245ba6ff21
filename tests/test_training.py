"""Law 6, the recipe, and what a training reports."""

import contextlib
import copy
import dataclasses
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import snipkit
from snipkit import data, models, outcomes, recipe, saliency, training
from snipkit.models import recurrent
from snipkit.recipe import Recipe

SHORT = Recipe(steps=24, batch_size=10, lr=0.05)  # two epochs of ``blobs``
ADAM = {"optimiser": "adam", "lr": 0.01}


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("changes", [{}, ADAM], ids=["sgd", "adam"])
def test_law_6_pruned_weights_are_exactly_zero_after_every_step(
    blobs, small_networks, network, changes
):
    model = getattr(small_networks, network)()
    masks, pruned_are_zero = small_networks.masks(model), []
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def check(step):
        pruned_are_zero.append(
            not any(model.get_parameter(name)[~mask].any() for name, mask in masks.items())
        )

    recipe = replace(SHORT, weight_decay=0.01, **changes)
    training.train(model, masks, blobs, recipe, checkpoint=small_networks.Spy(check))
    check(SHORT.steps)
    assert pruned_are_zero == [True] * SHORT.steps
    # The kept ones move, but for a few units that no image activates.
    moved = [
        (model.get_parameter(name) != before[name])[mask].float().mean()
        for name, mask in masks.items()
    ]
    assert min(moved) > 0.7


def by_definition(model, masks, dataset, recipe, seed):
    """Training of L(c * w), written out: weights w, the curves and the five evaluations."""
    kinds = {
        name: type(model.get_submodule(name.rpartition(".")[0]))
        for name, _ in model.named_parameters()
    }
    w = {
        name: parameter.detach().clone().requires_grad_()
        for name, parameter in model.named_parameters()
    }
    c = {name: masks[name].double() if name in masks else torch.ones_like(w[name]) for name in w}
    decay = {name: 0 if kinds[name] is nn.BatchNorm2d else recipe.weight_decay for name in w}
    mean, square = ({name: torch.zeros_like(w[name]) for name in w} for _ in range(2))
    order = torch.Generator().manual_seed(seed)
    views = torch.Generator().manual_seed(
        int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    )
    losses, errors, tests, images = [], [], [], dataset.train
    for step in range(recipe.steps):
        place = step % (len(images) // recipe.batch_size)
        if place == 0:
            permutation = torch.randperm(len(images), generator=order)
        inputs, labels = images[permutation[place * recipe.batch_size :][: recipe.batch_size]]
        inputs = data.augment(inputs, recipe.augment, views)
        model.train()
        outputs = functional_call(model, {name: c[name] * w[name] for name in w}, inputs)
        loss = cross_entropy(outputs, labels)
        losses.append(loss.item())
        errors.append(100 * (outputs.argmax(1) != labels).double().mean().item())
        gradients = torch.autograd.grad(loss, list(w.values()))
        with torch.no_grad():
            for (name, weight), gradient in zip(w.items(), gradients):
                gradient = gradient + decay[name] * weight * c[name]
                if recipe.optimiser == "sgd":
                    mean[name] = recipe.momentum * mean[name] + gradient
                    weight -= rate(step, recipe) * mean[name]
                else:
                    mean[name] = 0.9 * mean[name] + 0.1 * gradient
                    square[name] = 0.999 * square[name] + 0.001 * gradient**2
                    corrected = (
                        mean[name] / (1 - 0.9 ** (step + 1)),
                        square[name] / (1 - 0.999 ** (step + 1)),
                    )
                    weight -= rate(step, recipe) * corrected[0] / (corrected[1].sqrt() + 1e-8)
            if step + 1 in [recipe.steps - back * (recipe.steps // 10) for back in range(5)]:
                model.eval()
                inputs, labels = dataset.test[:]
                outputs = functional_call(model, {name: c[name] * w[name] for name in w}, inputs)
                error = 100 * (outputs.argmax(1) != labels).double().mean().item()
                tests.append((error, cross_entropy(outputs, labels).item()))
    return {name: c[name] * w[name] for name in w}, losses, errors, tests


def rate(step, recipe):
    """The learning rate of the step after ``step`` others."""
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "step":
        return recipe.lr * recipe.decay_factor ** (step // recipe.decay_every)
    if step < recipe.steps / 5:
        return recipe.lr * (0.04 + 0.96 * np.sin(np.pi / 2 * step / (recipe.steps / 5)) ** 2)
    return recipe.lr * np.cos(np.pi / 2 * (step - recipe.steps / 5) / (recipe.steps * 4 / 5)) ** 2


@pytest.mark.parametrize(
    "network, changes",
    [
        ("conv", {"weight_decay": 0.05, "decay_every": 10, "decay_factor": 0.5}),
        ("conv", {"schedule": "onecycle", "momentum": 0.5, "augment": "flip-shift"}),
        ("mlp", ADAM | {"weight_decay": 0.05, "schedule": "constant"}),
    ],
    ids=["sgd-step", "sgd-onecycle-augmented", "adam"],
)
def test_law_6_training_is_that_of_the_masked_loss(blobs, small_networks, network, changes):
    """The same weights, curves and tests as by the definition, in double precision; seed 3."""
    recipe = Recipe(**({"steps": 100, "batch_size": 13, "lr": 0.02} | changes))
    dataset = small_networks.double(blobs)
    model, reference = (getattr(small_networks, network)().double() for _ in range(2))
    masks = small_networks.masks(model)
    # Whatever the mode before.
    outcome = training.train(model.eval(), masks, dataset, recipe, seed=3)
    weights, losses, errors, tests = by_definition(reference, masks, dataset, recipe, seed=3)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=1e-8, atol=1e-11)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, reference.get_buffer(name))
    # 33 points of 3 steps, and one of 1.
    intervals = [slice(start, start + 3) for start in range(0, 100, 3)]
    assert outcome.train_loss == pytest.approx(
        [np.mean(losses[part]) for part in intervals], rel=1e-5
    )
    assert outcome.train_error == pytest.approx(
        [np.mean(errors[part]) for part in intervals], rel=1e-5
    )
    assert (outcome.test_error, outcome.test_loss) == pytest.approx(tests[-1], rel=1e-5)
    assert len(tests) == 5 and outcome.best_of_last_five == pytest.approx(
        min(error for error, _ in tests)
    )
    assert not model.training and all(parameter.grad is None for parameter in model.parameters())


def test_the_best_of_the_last_five_is_not_the_result(blobs, small_networks, monkeypatch):
    errors = iter([5.0, 3.0, 4.0, 2.0, 6.0])
    monkeypatch.setattr(training, "evaluate", lambda *_: outcomes.Evaluation(next(errors), 1.0))
    outcome = training.train(small_networks.mlp(), {}, blobs, replace(SHORT, steps=50))
    assert (outcome.test_error, outcome.best_of_last_five) == (6.0, 2.0)


#: field → two recipes that differ in it alone and must not give the same training
VARIATIONS = {
    "steps": (SHORT, {"steps": 25}),
    "batch_size": (SHORT, {"batch_size": 12}),
    "optimiser": (replace(SHORT, lr=0.01), {"optimiser": "adam"}),
    "lr": (replace(SHORT, **ADAM), {"lr": 0.02}),
    "momentum": (SHORT, {"momentum": 0.8}),
    "weight_decay": (replace(SHORT, **ADAM), {"weight_decay": 0.01}),
    "schedule": (SHORT, {"schedule": "onecycle"}),
    "decay_every": (replace(SHORT, decay_every=20), {"decay_every": 10}),
    "decay_factor": (replace(SHORT, decay_every=20), {"decay_factor": 0.5}),
    "augment": (SHORT, {"augment": "flip-shift"}),
    "precision": (SHORT, {"precision": "bfloat16"}),
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Recipe)])
def test_every_field_of_a_recipe_does_something(blobs, small_networks, field):
    base, change = VARIATIONS[field]  # a new field needs a line there
    assert set(change) == {field}
    trained = []
    for recipe_ in (base, replace(base, **change)):
        model = small_networks.mlp()
        outcome = training.train(model, {}, blobs, recipe_)
        trained.append(
            (outcome.test_loss, nn.utils.parameters_to_vector(model.parameters()).tolist())
        )
    assert trained[0] != trained[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 10.5},
        {"steps": True},
        {"steps": 0},
        {"steps": "10"},
        {"batch_size": 0},
        {"batch_size": 10.0},
        {"lr": float("inf")},
        {"lr": float("nan")},
        {"lr": 0.0},
        {"lr": -0.1},
        {"lr": "0.1"},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"weight_decay": float("nan")},
        {"weight_decay": -1e-4},
        {"decay_every": 0},
        {"decay_factor": 0.0},
        {"optimiser": "sdg"},
        {"schedule": "cyclic"},
        {"augment": "flip"},
        {"precision": "half"},
        {"momentum": False},
        {"schedule": None},
        {"lr": None},
    ],
    ids=str,
)
def test_a_wrong_recipe_is_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"^{name} is {re.escape(repr(value))}; it takes "):
        Recipe(**({"steps": 10} | wrong))


def test_a_recipe_needs_its_steps():
    with pytest.raises(TypeError, match="steps"):
        Recipe()
    with pytest.raises(TypeError, match="nesterov"):
        Recipe(steps=10, nesterov=True)


def test_optimizer_is_taken_for_optimiser():
    adam = Recipe(steps=10, optimizer="adam")
    assert adam == Recipe(10, optimiser="adam", optimizer="adam") and adam.optimizer == "adam"
    assert "optimizer" not in dataclasses.asdict(adam)
    with pytest.raises(ValueError, match="optimiser is 'sgd' and optimizer 'adam': .* give one"):
        Recipe(steps=10, optimiser="sgd", optimizer="adam")
    with pytest.raises(ValueError, match="optimiser is 'adamw'; it takes sgd, adam"):
        Recipe(steps=10, optimizer="adamw")


def test_equal_recipes_are_written_alike():
    """A run's id is a hash of its text, and YAML writes 1 for 1.0."""
    recipe_ = Recipe(steps=10, lr=1, momentum=0, weight_decay=0, decay_factor=1)
    fields = [recipe_.lr, recipe_.momentum, recipe_.weight_decay, recipe_.decay_factor]
    assert list(map(repr, fields)) == ["1.0", "0.0", "0.0", "1.0"]


def test_the_papers_learning_rates():
    paper = Recipe(steps=100_000)
    rates = [recipe.learning_rate(step, paper) for step in (1, 25_000, 25_001, 50_001, 75_001)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.0001])


def test_snip_beats_random_at_98_percent(mnist, batch):
    errors = {}
    for criterion in ("snip", "random"):
        model = models.build("lenet-300-100", seed=1)
        masks = snipkit.prune(model, batch, 0.98, criterion)
        dataset = replace(mnist, test=mnist.test.take(slice(1000)))
        errors[criterion] = training.train(
            model, masks, dataset, Recipe(steps=200, schedule="onecycle")
        ).test_error
    assert errors["snip"] < 25 and errors["random"] > errors["snip"] + 30


def test_bfloat16_is_for_the_passes_only(blobs, small_networks):
    """The network computes in bfloat16.

    The loss and all that is trained are float32, and law 6 holds.
    """
    model, kinds = small_networks.conv(), []
    masks = small_networks.masks(model)
    model[3].register_forward_hook(
        lambda _module, _inputs, out: kinds.append((torch.is_grad_enabled(), out.dtype))
    )
    outcome = training.train(model, masks, blobs, replace(SHORT, steps=60, precision="bfloat16"))
    # In training and in its tests.
    assert set(kinds) == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in masks.items())
    assert outcome.train_loss[0] * 2**10 % 1, (
        "between 1 and 2, numbers in bfloat16 are multiples of 2 to the -7th"
    )


def test_a_compiled_training_is_the_same_training(blobs, small_networks, monkeypatch):
    # Tracing and gradients are torch's own. Its code generator needs a compiler on the machine: it
    # is left out.
    compile_, recipe, graphs = torch.compile, replace(SHORT, steps=12, augment="flip-shift"), []
    eager, compiled, another = (small_networks.conv() for _ in range(3))
    masks = small_networks.masks(eager)
    expected = training.train(eager, masks, blobs, recipe)

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    def compile(model, mode):
        assert mode == "reduce-overhead"
        return compile_(model, backend=backend, fullgraph=True)

    monkeypatch.setattr(training, "COMPILED_ON", ("cpu",))
    monkeypatch.setattr(torch, "compile", compile)
    training.train(another, masks, blobs, recipe)
    assert graphs == [], "a short training is not worth compiling"
    monkeypatch.setattr(training, "COMPILED_FROM", 1)
    with torch._dynamo.config.patch(suppress_errors=False):  # and set back
        outcome = training.train(compiled, masks, blobs, recipe)
    assert len(graphs) == 1, "one graph for all steps, although tests come between them"
    assert outcome.train_loss == pytest.approx(expected.train_loss, rel=1e-4)


@pytest.fixture
def rows(mnist):
    """A small LSTM, and 100 digits for it."""
    dataset = replace(mnist, train=mnist.train.take(slice(100)), test=mnist.test.take(slice(20)))
    model = recurrent.LSTM(units=6)
    models.initialise_(model, "lecun", seed=0)
    return model, dataset


@pytest.mark.parametrize(
    "double, tolerance", [(True, 1e-12), (False, 1e-4)], ids=["double", "float"]
)
@pytest.mark.parametrize("changes", [{}, ADAM], ids=["sgd", "adam"])
def test_an_lstm_trains_by_torchs_kernel_as_by_the_loop(
    rows, small_networks, monkeypatch, double, tolerance, changes
):
    model, dataset = rows
    if double:
        model, dataset = model.double(), small_networks.double(dataset)
    masks, recipe = (
        small_networks.masks(model),
        replace(SHORT, steps=30, weight_decay=0.01, **changes),
    )
    by_loop = copy.deepcopy(model)
    by_loop.training_kernel = "loop"
    expected = training.train(by_loop, masks, dataset, recipe)
    batches, state_by_torch = [], recurrent.LSTM.state_by_torch

    def counted(self, x):
        batches.append(len(x))
        return state_by_torch(self, x)

    monkeypatch.setattr(recurrent.LSTM, "state_by_torch", counted)
    outcome = training.train(model, masks, dataset, recipe)
    assert batches == [10] * 30, "in the steps, and in no evaluation"
    for name, weight in model.named_parameters():
        torch.testing.assert_close(
            weight, by_loop.get_parameter(name), rtol=tolerance, atol=tolerance
        )
        assert name not in masks or not weight[~masks[name]].any()
    assert outcome.train_loss == pytest.approx(expected.train_loss, rel=1e-4)
    assert outcome.test_loss == pytest.approx(expected.test_loss, rel=1e-4)


def test_after_its_training_an_lstm_is_scored_by_the_loop(rows, small_networks):
    """In any mode, and with second derivatives, which the fused kernel has not.

    After a training that failed, too.
    """
    model, dataset = rows
    batch = dataset.train[:10]
    training.train(model, {}, dataset, SHORT)
    with pytest.raises(outcomes.DivergedError):
        training.train(copy.deepcopy(model), {}, dataset, replace(SHORT, lr=float("1e30")))
    stopped, twin = copy.deepcopy(model), recurrent.LSTM(units=6)
    with pytest.raises(KeyboardInterrupt):
        training.train(stopped, {}, dataset, SHORT, checkpoint=small_networks.Spy(interrupt))
    twin.load_state_dict(stopped.state_dict())
    assert stopped.training and stopped.kernel == model.kernel == "loop"
    for criterion in (saliency.snip, snipkit.CRITERIA["grasp"]):
        expected = criterion(twin, batch)
        assert all(
            torch.equal(score, expected[name]) for name, score in criterion(stopped, batch).items()
        )
    loss = cross_entropy(stopped(batch[0]), batch[1])
    (gradient,) = torch.autograd.grad(loss, stopped.gates.weight, create_graph=True)
    assert torch.autograd.grad(gradient.square().sum(), stopped.gates.weight)[0].any()


def test_a_subclass_that_changes_the_loop_trains_by_it():
    class Forgetful(recurrent.LSTM):
        pass

    assert (recurrent.LSTM.training_kernel, Forgetful.training_kernel) == ("fused", "loop")
    with training.training_kernels(model := Forgetful(units=6)):
        assert model.kernel == "loop"


def interrupt(step):
    raise KeyboardInterrupt


def test_evaluate_counts(blobs, small_networks):
    model = small_networks.conv().train()
    images, labels = blobs.test[:]
    result = training.evaluate(model, blobs.test, batch_size=13)
    assert not model.training
    with torch.no_grad():
        outputs = model(images)
    assert result.error == pytest.approx(100 * (outputs.argmax(1) != labels).double().mean().item())
    assert result.loss == pytest.approx(cross_entropy(outputs, labels).item(), rel=1e-5)
    with pytest.raises(ValueError, match="no images"):
        training.evaluate(model, blobs.val)


def test_masks_have_the_layout_of_their_weights(blobs, small_networks):
    """Else multiplying the gradients is a launch a tensor."""
    model = small_networks.conv()
    pairs = training.Alone(model, small_networks.masks(model), blobs, SHORT).masked
    assert not pairs[2][0].is_contiguous()
    assert all(
        mask.stride() == weight.stride() and mask.dtype == weight.dtype for weight, mask in pairs
    )


def test_a_masked_parameter_may_be_unused(blobs):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    model.unused = nn.Parameter(torch.ones(2, 2))
    training.train(model, {"unused": torch.eye(2, dtype=torch.bool)}, blobs, SHORT)
    assert torch.equal(model.unused, torch.eye(2))


def test_divergence_is_one_clear_error(blobs, small_networks):
    with pytest.raises(
        outcomes.DivergedError, match="training loss is .* by step 6 of 200 .*a lower learning rate"
    ):
        training.train(small_networks.mlp(), {}, blobs, replace(SHORT, steps=200, lr=1e20))
    wrong = replace(blobs, test=replace(blobs.test, std=(1e-40,)))  # the pixels overflow
    with pytest.raises(outcomes.DivergedError, match="test loss is nan by step 16 of 24"):
        training.train(small_networks.mlp(), {}, wrong, SHORT)


def test_what_does_not_fit_is_refused_before_the_first_step(blobs, small_networks):
    def refused(message, model=None, masks=None, train=blobs.train, test=blobs.test, **changes):
        model, dataset = model or small_networks.mlp(), replace(blobs, train=train, test=test)
        before = nn.utils.parameters_to_vector(model.parameters()).clone()
        with pytest.raises(ValueError, match=re.escape(message)):
            training.train(model, masks or {}, dataset, replace(SHORT, **changes))
        assert torch.equal(before, nn.utils.parameters_to_vector(model.parameters()))

    zeros = replace(blobs.test, labels=torch.zeros_like(blobs.test.labels))
    refused(
        "labels from 0 to 4 do not fit a network of 3 outputs",
        small_networks.mlp(outputs=3),
        test=zeros,
    )
    wrong = replace(blobs.test, labels=blobs.test.labels + 1)
    refused("labels from 1 to 5 do not fit a network of 5 outputs", test=wrong)
    refused("there are no images to evaluate on", test=blobs.val)
    refused("the mask of 1.weight", masks={"1.weight": torch.ones(2, dtype=torch.bool)})
    refused("the batch size is 121, but there are only 120", batch_size=121)


def test_when_a_long_training_is_tested_and_logged():
    # As the authors keep checkpoints.
    assert outcomes._test_steps(100_000) == range(96_000, 100_001, 1_000)
    assert outcomes.log_interval(100_000) == 100 and outcomes.log_interval(300) == 10


class Standardised(nn.Linear):
    def forward(self, x):
        weight = self.weight - self.weight.mean(1, keepdim=True)
        return nn.functional.linear(x.flatten(1), weight, self.bias)


class AsDict(nn.Linear):
    def forward(self, x):
        return {"logits": super().forward(x.flatten(1))}


def test_what_cannot_be_trained_is_told_in_a_sentence(blobs):
    size = blobs.train[:1][0].numel()

    def build(kind=nn.Linear):
        return nn.Sequential(nn.Flatten(), kind(size, blobs.num_classes))

    masks = {"1.weight": torch.ones(blobs.num_classes, size, dtype=torch.bool)}
    tied = build().append(nn.Linear(blobs.num_classes, blobs.num_classes))
    tied.append(nn.Linear(blobs.num_classes, blobs.num_classes))
    tied[3].weight.data = tied[2].weight.data
    tied_masks = {"2.weight": torch.ones_like(tied[2].weight, dtype=torch.bool)}
    loader = [blobs.train[:10]]
    for model, model_masks, data_, recipe_, message in (
        (build(), {}, loader, SHORT, "data is of type list; it is a snipkit.data.Splits"),
        (build(), {}, blobs, {"steps": 3}, "recipe is of type dict; it is a snipkit.recipe"),
        (build(), None, blobs, SHORT, "masks is of type NoneType; it is a dict"),
        (build().half(), {}, blobs, SHORT, r"1.weight is torch.float16: .* model.float\(\)"),
        (build().requires_grad_(False), {}, blobs, SHORT, "no parameter .* has requires_grad"),
        (build(AsDict), {}, blobs, SHORT, "returns a dict; a training takes one tensor"),
        (build(Standardised), masks, blobs, SHORT, "1.weight: the layer computes another weight"),
        (tied, tied_masks, blobs, SHORT, "2.weight shares memory with 3.weight"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            training.train(model, model_masks, data_, recipe_)


def test_a_training_takes_derivatives_where_its_caller_takes_none(blobs, small_networks):
    outcomes_ = []
    for around in (contextlib.nullcontext, torch.no_grad, torch.inference_mode):
        model = small_networks.mlp()
        with around():
            outcomes_.append(training.train(model, {}, blobs, SHORT))
    assert outcomes_[0] == outcomes_[1] == outcomes_[2]
