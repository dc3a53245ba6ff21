"""Laws 1 to 4 of connection sensitivity, and what a criterion must not do."""

import copy
import inspect
import math
import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import snipkit
from snipkit import BATCH_NORM_MODES, CRITERIA, masking, models, saliency
from snipkit._scoring import objective


def derivatives(model, batch, eps):
    """Central differences of the loss in every c_j.

    (L(c_j + ε) − L(c_j − ε)) / 2ε, one parameter at a time.
    """
    inputs, targets = batch
    result = {}
    with torch.no_grad():
        for name, weight in snipkit.prunable(model).items():
            flat, slopes = weight.view(-1), []
            for j in range(flat.numel()):
                value, losses = flat[j].item(), []
                for c in (1 + eps, 1 - eps):
                    flat[j] = c * value
                    losses.append(cross_entropy(model(inputs), targets).item())
                flat[j] = value
                slopes.append((losses[0] - losses[1]) / (2 * eps))
            result[name] = torch.tensor(slopes, dtype=torch.float64).view_as(weight)
    return result


def relative_error(scores, reference):
    """The largest difference, relative to the largest score."""
    total = sum(r.abs().sum() for r in reference.values())
    return max(
        ((scores[n] - r.abs() / total).abs().max() / scores[n].max().clamp_min(1e-30)).item()
        for n, r in reference.items()
    )


def scores_of(criterion, model, batches, sparsity, **options):
    """The scores by any criterion, told the sparsity if it asks for it."""
    if "sparsity" in inspect.signature(CRITERIA[criterion]).parameters:
        options["sparsity"] = sparsity
    return CRITERIA[criterion](model, batches, **options)


def test_a_ten_weight_network_by_hand():
    """x = (1, 2), two ReLU units of which one is off, linear outputs, L = Σ outputs.

    Every number fits on paper.
    """

    class Toy(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = nn.Linear(2, 2), nn.Linear(2, 1)
            self.skip = nn.Linear(1, 1, bias=False)
            self.skip.weight.data = torch.tensor([[3.0]])
            # Sums 3 (on) and −5 (off).
            self.hidden.weight.data = torch.tensor([[1.0, 1.0], [-1.0, -2.0]])
            self.hidden.bias.data = torch.tensor([2.0, 0.0])  # unit 1 carries 5
            self.out.weight.data = torch.tensor([[4.0, 7.0]])
            self.out.bias.data = torch.tensor([-6.0])

        def forward(self, x):
            return self.out(torch.relu(self.hidden(x))) + self.skip(x[:, :1])

    scores = saliency.snip(
        Toy(), (torch.tensor([[1.0, 2.0]]), torch.tensor([0.0])), lambda output, _: output.sum()
    )
    by_hand = {  # |w · ∂L/∂w|; the sum is 4 + 8 + 8 + 20 + 6 + 3 = 49
        "hidden.weight": [[4 * 1 * 1, 4 * 1 * 2], [0, 0]],
        "hidden.bias": [4 * 2, 0],
        "out.weight": [[4 * 5, 0]],
        "out.bias": [6],
        "skip.weight": [[3]],
    }
    assert {
        name: (49 * score).round(decimals=4).tolist() for name, score in scores.items()
    } == by_hand
    with pytest.warns(masking.EmptyLayerWarning, match="no weight is left in skip.weight:"):
        masks = masking.keep_top(scores, 0.5)
    assert {name: mask.int().tolist() for name, mask in masks.items()} == {
        "hidden.weight": [[1, 1], [0, 0]],
        "hidden.bias": [1, 0],
        "out.weight": [[1, 0]],
        "out.bias": [1],
        "skip.weight": [[0]],
    }


@pytest.mark.parametrize("random_biases", [False, True])
def test_law_1_scores_are_the_derivative_in_c(small, random_biases):
    model, batch = small
    model.eval()
    if random_biases:
        for name, parameter in snipkit.prunable(model).items():
            if snipkit.is_bias(name):
                nn.init.normal_(parameter)
    scores = saliency.snip(model, batch)
    c = {n: torch.ones_like(p, requires_grad=True) for n, p in snipkit.prunable(model).items()}
    loss = cross_entropy(
        functional_call(model, {n: c[n] * p for n, p in snipkit.prunable(model).items()}, batch[0]),
        batch[1],
    )
    explicit = dict(zip(c, torch.autograd.grad(loss, list(c.values()))))
    assert relative_error(scores, explicit) < 1e-12
    assert relative_error(scores, derivatives(model, batch, 1e-4)) < 1e-6


def narrow(name):
    """A network of the paper at a fraction of its width, in double precision, and a batch."""
    options = (
        {} if "lenet" in name else {"width": 3 / 128 if name[:3] in ("lst", "gru") else 1 / 32}
    )
    model = models.build(name, init="glorot", **options).double()
    shape = (1, 28, 28) if "lenet" in name or name[:3] in ("lst", "gru") else (3, 32, 32)
    shape = (1, 1, 40) if name.endswith("-1d") else shape
    generator = torch.Generator().manual_seed(0)
    return model, (torch.randn(6, *shape, generator=generator).double(), torch.arange(6) % 10)


@pytest.mark.parametrize("mode", BATCH_NORM_MODES)
@pytest.mark.parametrize("name", models.MODELS)
def test_law_1_for_every_network_of_the_paper(name, mode):
    """Against an explicit c."""
    model, (inputs, targets) = narrow(name)
    scores = saliency.snip(model, (inputs, targets), batch_norm=mode)
    model.train(mode == "train")
    c = {n: torch.ones_like(p, requires_grad=True) for n, p in snipkit.prunable(model).items()}
    loss = cross_entropy(
        functional_call(
            model, {n: c[n] * p for n, p in snipkit.prunable(model).items()}, (inputs,)
        ),
        targets,
    )
    assert relative_error(scores, dict(zip(c, torch.autograd.grad(loss, list(c.values()))))) < 1e-10


@pytest.mark.parametrize("name", ["lstm-s", "gru-s"])
def test_law_1_for_recurrent_networks_against_central_differences(name):
    model, batch = narrow(name)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            # Or their scores are all 0.
            nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(1))
    scores = saliency.snip(model, batch)
    assert all(score.any() for score in scores.values())
    assert relative_error(scores, derivatives(model, batch, 1e-4)) < 1e-6


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5-caffe", "alexnet-s", "vgg-like"])
def test_law_2_the_signed_sum_is_the_same_in_every_layer(name):
    model, (inputs, targets) = narrow(name)
    model.eval()
    weights = snipkit.prunable(model, biases=False)
    gradients = torch.autograd.grad(cross_entropy(model(inputs), targets), list(weights.values()))
    sums = torch.stack([(w * g).sum() for w, g in zip(weights.values(), gradients)])
    assert sums[0].abs() > 1e-5  # or the law would hold for a network that does nothing
    torch.testing.assert_close(sums, sums[:1].expand_as(sums), rtol=1e-9, atol=0)


def test_law_3_batch_statistics_cancel_every_filter(small):
    model, (inputs, targets) = small
    kernel = model[0].weight
    for mode, cancels in (("train", True), ("eval", False)):
        model.train(mode == "train")
        model[1].eps = 1e-30  # as good as exactly scale-invariant
        (gradient,) = torch.autograd.grad(cross_entropy(model(inputs), targets), [kernel])
        sums, size = (
            (kernel * gradient).flatten(1).sum(1),
            (kernel * gradient).flatten(1).abs().sum(1),
        )
        assert bool((sums.abs() < 1e-10 * size).all()) is cancels


@pytest.mark.parametrize("criterion", ["snip", "gradient", "signed-gradient"])
def test_law_4_many_batches_are_the_one_large_batch(small, criterion):
    """Labels of -100 count for nothing, so that batches of one size differ in weight."""
    model, (inputs, targets) = small
    for targets in (targets, torch.where(torch.arange(8) < 3, -100, targets)):
        whole = CRITERIA[criterion](model, (inputs, targets))
        for sizes in ([4, 4], [2, 2, 2, 2] if targets[0] >= 0 else [4, 2, 2], [5, 3]):
            parts = CRITERIA[criterion](model, zip(inputs.split(sizes), targets.split(sizes)))
            for name in whole:
                torch.testing.assert_close(parts[name], whole[name], rtol=1e-9, atol=1e-15)


def test_summing_absolute_values_would_be_another_criterion(small):
    """Without this, law 4 could hold for the wrong reason."""
    model, (inputs, targets) = small
    separate = [saliency.snip(model, pair) for pair in zip(inputs.split(4), targets.split(4))]
    whole = saliency.snip(model, (inputs, targets))
    assert any(
        not torch.allclose((separate[0][n] + separate[1][n]) / 2, whole[n], rtol=1e-3)
        for n in whole
    )


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("mode", BATCH_NORM_MODES)
def test_the_model_is_left_as_it_was(small, criterion, mode):
    model, batch = small
    model.train()
    model[3].eval()  # modes are restored module by module
    (model(batch[0]).sum()).backward()
    before = copy.deepcopy(
        {**model.state_dict(), **{n: p.grad for n, p in model.named_parameters()}}
    )
    state = torch.get_rng_state()
    scores = scores_of(criterion, model, batch, 0.9, batch_norm=mode)
    after = {**model.state_dict(), **{n: p.grad for n, p in model.named_parameters()}}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [module.training for module in model] == [
        True,
        True,
        True,
        False,
        True,
        True,
        True,
        True,
    ]
    assert torch.equal(state, torch.get_rng_state())
    assert math.isclose(sum(score.abs().sum().item() for score in scores.values()), 1, rel_tol=1e-6)
    assert all(not score.requires_grad for score in scores.values())
    # Of iterative criteria, pruned ones are just below 0.
    lowest = min(score.min().item() for score in scores.values())
    assert lowest < -1e-6 if criterion in ("signed-gradient", "grasp") else lowest > -1e-30


def test_the_three_rankings_of_one_gradient(small):
    """|∂L/∂w|, ∂L/∂w and |w · ∂L/∂w|, against autograd."""
    model, (inputs, targets) = small
    model.eval()
    cross_entropy(model(inputs), targets).backward()
    for criterion, expected in (
        ("gradient", lambda p: p.grad.abs()),
        ("signed-gradient", lambda p: p.grad),
        ("snip", lambda p: (p.detach() * p.grad).abs()),
    ):
        scores = CRITERIA[criterion](model, (inputs, targets))
        by_hand = {name: expected(p) for name, p in model.named_parameters() if name in scores}
        total = sum(value.abs().sum() for value in by_hand.values())
        assert all(
            torch.allclose(scores[name], by_hand[name] / total, rtol=1e-9) for name in scores
        )


def test_batch_norm_mode_changes_the_scores(small):
    model, batch = small
    inert, batchwise = (saliency.snip(model, batch, batch_norm=mode) for mode in ("eval", "train"))
    assert not torch.allclose(inert["0.weight"], batchwise["0.weight"], rtol=0.01)


def test_half_precision_models_are_scored_in_float32(batch):
    model = models.build("lenet-300-100").to(torch.bfloat16)
    scores = saliency.snip(model, batch)
    same = saliency.snip(copy.deepcopy(model).float(), batch)
    assert all(scores[n].dtype == torch.float32 and torch.equal(scores[n], same[n]) for n in same)
    assert model.fc1.weight.dtype == torch.bfloat16


def test_any_module_built_in_recurrent_and_attention_layers_included():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.norm = nn.LSTM(5, 4, batch_first=True), nn.LayerNorm(4)
            self.attention, self.head = (
                nn.MultiheadAttention(4, 2, batch_first=True),
                nn.Linear(4, 3),
            )

        def forward(self, x):
            x = self.norm(self.lstm(x)[0])
            return self.head(self.attention(x, x, x, need_weights=False)[0][:, -1])

    torch.manual_seed(0)
    model, batch = Reader().double().eval(), (torch.randn(6, 7, 5).double(), torch.arange(6) % 3)
    scores = saliency.snip(model, batch)
    assert (
        set(scores) == set(snipkit.prunable(model))
        and "norm.weight" not in scores
        and "lstm.bias_hh_l0" in scores
    )
    assert relative_error(scores, derivatives(model, batch, 1e-4)) < 1e-6


def test_magnitude_and_random(small):
    model, _ = small
    scores = saliency.magnitude(model)
    torch.testing.assert_close(
        scores["0.weight"] / scores["0.weight"].sum(),
        model[0].weight.abs().detach() / model[0].weight.abs().sum(),
    )
    draws = [
        saliency.random(model, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0]["0.weight"], draws[1]["0.weight"])
    assert not torch.equal(draws[0]["0.weight"], draws[2]["0.weight"])


@pytest.mark.parametrize(
    "batches, options, message",
    [
        (lambda x, y: [], {}, "no batch to score on"),
        (lambda x, y: (x[:0], y[:0]), {}, "at least one example"),
        (lambda x, y: (x, y[:3]), {}, "the same length"),
        (lambda x, y: (x, y + 1), {}, "labels from 1 to 3 do not fit a network of 3 outputs"),
        (lambda x, y: (x, y - 1), {}, "labels from -1 to 1 do not fit"),
        (
            lambda x, y: (x, y),
            {"batch_norm": "off"},
            "unknown batch_norm mode 'off'; known: eval, train",
        ),
        (lambda x, y: None, {}, "no batch to score on"),
        (lambda x, y: [{"x": x, "y": y}], {}, "for batches of another kind pass closure="),
        (
            lambda x, y: (x, y),
            {"loss": cross_entropy, "closure": lambda m, b: 0},
            "loss or closure, not both",
        ),
        (
            lambda x, y: (x, y),
            {"loss": nn.CrossEntropyLoss(reduction="none")},
            "one number in a tensor",
        ),
        (lambda x, y: (x, y), {"closure": lambda m, b: 1.0}, "one number in a tensor"),
        (
            lambda x, y: (x, y),
            {"closure": lambda m, b: m(b[0]).sum().detach()},
            "depends on no weight",
        ),
        (lambda x, y: (x, y.int()), {}, r"labels of type int32 and shape .*try labels.long\(\)"),
        (lambda x, y: (x, y.float()), {}, "labels of type float32"),
        (lambda x, y: (x, y[:, None]), {}, "one for each row of outputs"),
        (lambda x, y: (x, 0 * y - 100), {}, "not all labels may be -100"),
    ],
)
def test_bad_batches_get_one_clear_error(small, batches, options, message):
    model, batch = small
    with pytest.raises(ValueError, match=message):
        saliency.snip(model, batches(*batch), **options)
    assert model.training  # restored after an error, too


def test_a_loss_that_is_not_finite_is_named(small):
    model, (inputs, targets) = small
    with pytest.raises(FloatingPointError, match="the loss on the scoring batch is nan"):
        saliency.snip(model, (inputs * float("nan"), targets))


def test_dropout_is_off_in_every_mode(small):
    model, batch = small
    dropping = nn.Sequential(*model[:7], nn.Dropout(0.5), model[7])
    for mode in BATCH_NORM_MODES:
        scores = saliency.snip(model, batch, batch_norm=mode).values()
        assert all(
            map(torch.equal, saliency.snip(dropping, batch, batch_norm=mode).values(), scores)
        )


def test_scores_do_not_depend_on_the_callers_contexts(small):
    model, (inputs, targets) = small[0].float(), (small[1][0].float(), small[1][1])
    expected = saliency.snip(model, (inputs, targets))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        scores = saliency.snip(model, (inputs, targets))
    assert all(torch.equal(scores[name], expected[name]) for name in expected)
    halved = (
        saliency.snip(model, (inputs.half(), targets)),
        saliency.snip(model, (inputs.half().float(), targets)),
    )
    assert all(map(torch.equal, *(scores.values() for scores in halved)))


def test_the_class_and_the_function_of_cross_entropy_weigh_batches_alike(small):
    model, (inputs, targets) = small
    targets = torch.where(torch.arange(8) < 3, -100, targets)
    pieces = list(zip(inputs.split(4), targets.split(4)))
    expected = saliency.snip(model, (inputs, targets))
    for loss in (None, cross_entropy, nn.CrossEntropyLoss()):
        for name, score in saliency.snip(model, pieces, loss).items():
            torch.testing.assert_close(score, expected[name])


def test_a_weight_that_is_not_finite_is_named(small):
    model, batch = small
    with torch.no_grad():
        model[0].weight[0, 0] = float("inf")
    with pytest.raises(FloatingPointError, match="weights that are not finite: 0.weight$"):
        saliency.snip(model, batch)


def test_a_batch_whose_labels_are_all_ignored_does_not_count(small):
    model, (inputs, targets) = small
    scores = saliency.snip(model, [(inputs, targets), (inputs + 1, torch.full_like(targets, -100))])
    alone = saliency.snip(model, (inputs, targets))
    assert all(torch.equal(scores[name], alone[name]) for name in alone)


def test_nothing_to_score():
    labels = torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="no parameters at all"):
        saliency.snip(nn.ReLU(), (torch.ones(2, 3), labels))
    with pytest.raises(ValueError, match="no prunable parameter"):
        saliency.snip(nn.LayerNorm(3), (torch.ones(2, 3), labels))
    with pytest.raises(
        ValueError,
        match="every score is zero: the loss reacts to no prunable connection on this batch$",
    ):
        saliency.snip(nn.Linear(3, 2), (torch.ones(2, 3), labels), lambda o, t: o.sum() * 0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    nn.init.zeros_(model[1].weight), nn.init.zeros_(model[1].bias)
    with pytest.raises(
        ValueError,
        match="every score is zero.*all zero, so that nothing passes: 1.weight: initialise",
    ):
        saliency.snip(model, (torch.ones(2, 3), labels))
    with pytest.raises(
        ValueError, match="unknown criterion 'snap'; known: snip, magnitude, random"
    ):
        snipkit.prune(model, (torch.ones(2, 3), labels), 0.5, "snap")


# --- any loss, any batch
# --------------------------------------------------------------------------------------------


def equal(first, second):
    return list(first) == list(second) and all(
        torch.allclose(first[n], second[n], rtol=1e-9, atol=0) for n in first
    )


def test_a_closure_scores_batches_of_any_kind(small):
    model, (inputs, targets) = small

    def closure(network, batch):
        return cross_entropy(network(batch["x"]), batch["y"])

    whole, batch = saliency.snip(model, (inputs, targets)), {"x": inputs, "y": targets}
    assert equal(saliency.snip(model, batch, closure=closure), whole)
    halves = [
        {name: part[rows] for name, part in batch.items()} for rows in (slice(0, 4), slice(4, 8))
    ]
    assert equal(saliency.snip(model, halves, closure=closure), whole)
    assert equal(saliency.snip(model, iter(halves), closure=closure), whole)
    for single in ((inputs, targets), [inputs, targets], (inputs, targets, "a note")):
        assert equal(
            saliency.snip(model, single, closure=lambda m, b: cross_entropy(m(b[0]), b[1])), whole
        )
    assert equal(
        saliency.gradient(model, inputs, closure=lambda m, x: cross_entropy(m(x), targets)),
        saliency.gradient(model, (inputs, targets)),
    )
    with pytest.raises(ValueError, match="no batch to score on"):
        saliency.snip(model, [], closure=closure)


def test_batches_of_a_closure_weigh_the_same_whatever_their_size(small):
    model, (inputs, targets) = small
    uneven = [(inputs[:6], targets[:6]), (inputs[6:], targets[6:])]
    found = saliency.signed_gradient(
        model, uneven, closure=lambda m, b: cross_entropy(m(b[0]), b[1])
    )
    apart = [
        objective.Objective(model, snipkit.prunable(model), pair).gradient() for pair in uneven
    ]
    means = [(apart[0][name] + apart[1][name]) / 2 for name in found]
    total = sum(mean.abs().sum() for mean in means)
    assert all(
        torch.allclose(score, mean / total, rtol=1e-9) for score, mean in zip(found.values(), means)
    )


def test_a_data_loader_is_an_iterable_of_batches(small):
    model, (inputs, targets) = small
    # Lists of two tensors.
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, targets), 3)
    assert equal(saliency.snip(model, loader), saliency.snip(model, (inputs, targets)))
    assert equal(
        saliency.snip(model, next(iter(loader))), saliency.snip(model, (inputs[:3], targets[:3]))
    )


def test_labels_are_checked_for_cross_entropy_alone(small):
    model, (inputs, targets) = small
    # Labels to ±1.
    scores = saliency.snip(
        model, (inputs, 2 * targets - 1), lambda o, t: (1 - o[:, 0] * t).relu().mean()
    )
    assert scores["0.weight"].any()
    for loss in (None, cross_entropy):
        with pytest.raises(
            ValueError, match="labels from 0 to 3 do not fit a network of 3 outputs"
        ):
            saliency.snip(model, (inputs, torch.arange(8) % 4), loss)
        saliency.snip(model, (inputs, torch.where(targets == 1, -100, targets)), loss)
        # Probabilities.
        saliency.snip(model, (inputs, torch.softmax(torch.randn(8, 3).double(), 1)), loss)
    with pytest.raises(ValueError, match="labels from -1 to 2"):
        # A label a pixel.
        objective.check_labels(torch.tensor([[0, -1], [2, -100]]), torch.zeros(2, 3, 2))
    objective.check_labels(torch.tensor([-100]), torch.zeros(1, 3))


def test_models_with_outputs_of_any_kind(small):
    model, (inputs, targets) = small

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return {"out": self.model(x)}

    found = saliency.snip(
        Wrapped(), (inputs, targets), lambda outputs, t: cross_entropy(outputs["out"], t)
    )
    assert list(found.values())[0].equal(saliency.snip(model, (inputs, targets))["0.weight"])
    with pytest.raises(
        ValueError, match="cross-entropy of dict, not of a tensor: pass loss= or closure="
    ):
        saliency.snip(Wrapped(), (inputs, targets))
    halves = [(inputs[:5], targets[:5]), (inputs[5:], targets[5:])]
    parts = saliency.snip(Wrapped(), halves, lambda outputs, t: cross_entropy(outputs["out"], t))
    assert all(torch.allclose(parts[name], found[name], rtol=1e-9, atol=0) for name in found)


WEIGHTS = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)  # of three classes


class Subclass(nn.CrossEntropyLoss):
    pass


def one_hot(targets):
    return torch.nn.functional.one_hot(targets.clamp(min=0), 3).double()


LOSSES = {
    "cross-entropy": cross_entropy,
    "ignored": partial(cross_entropy, ignore_index=2),
    "ignored, a class": Subclass(ignore_index=2),
    "ignored, smoothed": nn.CrossEntropyLoss(ignore_index=2, label_smoothing=0.1),
    "ignored, log-likelihood": lambda o, t: nn.NLLLoss(ignore_index=2)(o.log_softmax(1), t),
    "weighted": nn.CrossEntropyLoss(weight=WEIGHTS),
    "weighted, ignored": lambda o, t: cross_entropy(o, t, WEIGHTS, ignore_index=2),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "sum, ignored": partial(cross_entropy, ignore_index=2, reduction="sum"),
    "squares": lambda o, t: (o - one_hot(t)).square().mean(),
    "root of the mean square": lambda o, t: (o - one_hot(t)).square().mean().sqrt(),
    "multi-margin": nn.MultiMarginLoss(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_batches_weigh_as_in_the_loss_of_all_examples_at_once(small, name):
    """Law 4 for a loss that is no plain mean over examples.

    A batch may consist of what it ignores.
    """
    model, (inputs, _) = small
    loss, targets = LOSSES[name], torch.tensor([0, 1, 2, 2, 2, 1, 0, 2])
    model.eval()
    weights = snipkit.prunable(model)
    gradients = torch.autograd.grad(loss(model(inputs), targets), list(weights.values()))
    by_hand = {name: (w * g).abs().detach() for (name, w), g in zip(weights.items(), gradients)}
    for order in (range(8), [3, 4, 0, 1, 2, 5, 6, 7]):
        order = list(order)
        pairs = list(zip(inputs[order].split([2, 2, 1, 3]), targets[order].split([2, 2, 1, 3])))
        assert relative_error(saliency.snip(model, pairs, loss), by_hand) < 1e-9


def test_a_loss_that_compares_examples_is_refused_but_for_one_batch(small):
    model, (inputs, targets) = small

    def contrast(outputs, targets):
        return torch.cdist(outputs, outputs)[targets[:, None] == targets].mean()

    assert saliency.snip(model, (inputs, targets), contrast)
    pairs = list(zip(inputs.split(4), targets.split(4)))
    for loss in (
        contrast,
        lambda o, t: cross_entropy(o - o.mean(0), t),
        lambda o, t: o[0].square().sum(),
    ):
        with pytest.raises(
            ValueError, match="the loss is no mean over the batch: that of two batches joined"
        ):
            saliency.snip(model, pairs, loss)
    with pytest.raises(FloatingPointError, match="the loss on the scoring batch is nan"):
        saliency.snip(model, pairs, lambda o, t: cross_entropy(o, t) * (math.nan if t[0] else 1))


def test_a_closure_can_say_what_a_batch_weighs(small):
    model, (inputs, targets) = small
    uneven = [(inputs[:6], targets[:6]), (inputs[6:], targets[6:])]
    scores = saliency.snip(
        model, uneven, closure=lambda m, b: (cross_entropy(m(b[0]), b[1]), len(b[1]))
    )
    assert equal(scores, saliency.snip(model, (inputs, targets)))
    scores = saliency.snip(
        model, uneven, closure=lambda m, b: (cross_entropy(m(b[0]), b[1]), int(len(b[1]) == 6))
    )
    assert equal(scores, saliency.snip(model, uneven[0]))
    with pytest.raises(
        ValueError, match="a pair whose second part is Tensor: it is the weight of the batch"
    ):
        # Loss and outputs.
        saliency.snip(model, uneven, closure=lambda m, b: (cross_entropy(m(b[0]), b[1]), m(b[0])))


# --- what users' models do
# ------------------------------------------------------------------------------------------


class Keeping(nn.Module):
    """It keeps an activation, as is done for pictures of attention."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        self.features = {"hidden": [self.model[:2](x)]}
        return self.model[2](self.features["hidden"][0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_model_that_keeps_an_activation_is_scored(criterion, dtype):
    torch.manual_seed(0)
    model, batch = Keeping().to(dtype), (torch.randn(12, 8), torch.arange(12) % 3)
    fresh = scores_of(criterion, model, batch, 0.5)
    model(batch[0].to(dtype))
    features = model.features["hidden"][0]
    scores = scores_of(criterion, model, batch, 0.5)
    assert all(torch.equal(scores[name], fresh[name]) for name in fresh)
    assert not features.is_leaf


def test_what_cannot_be_copied_is_named():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
    model[1].lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be copied, .*: attribute lock of 1, a lock"):
        snipkit.prune(model, (torch.randn(3, 8), torch.arange(3)), 0.5, "force")


class Hidden(nn.Module):
    """One hidden layer, whose activation goes through a function."""

    def __init__(self, function):
        super().__init__()
        self.function, self.a, self.b = function, nn.Linear(8, 64), nn.Linear(64, 3)

    def forward(self, x):
        return self.b(self.function(torch.relu(self.a(x))))


def hidden(function):
    torch.manual_seed(0)
    return Hidden(function), (torch.randn(20, 8), torch.arange(20) % 3)


def self_attention(x):
    rows = x.view(20, 4, 16)
    return torch.nn.functional.scaled_dot_product_attention(
        rows, rows, rows, None, DROP["attention"]
    ).flatten(1)


DROP = {"attention": 0.5}
F = torch.nn.functional


@pytest.mark.parametrize(
    "dropout",
    [
        F.dropout,
        F.dropout1d,
        F.alpha_dropout,
        F.feature_alpha_dropout,
        nn.Dropout(0.5),
        lambda x: F.dropout2d(x[:, :, None, None])[:, :, 0, 0],
        lambda x: torch.dropout(x, 0.5, True),
        lambda x: F.dropout(input=x, p=0.5, training=True),
    ],
)
def test_dropout_is_off_however_it_is_called(dropout):
    model, batch = hidden(dropout)
    plain, _ = hidden(lambda x: x)
    assert equal(saliency.snip(model, batch), saliency.snip(plain, batch))
    closure = saliency.snip(model, batch, closure=lambda m, b: cross_entropy(m.train()(b[0]), b[1]))
    assert equal(closure, saliency.snip(plain, batch))


def test_dropout_of_attention_is_off(monkeypatch):
    model, batch = hidden(self_attention)
    dropping = saliency.snip(model, batch)
    monkeypatch.setitem(DROP, "attention", 0.0)
    assert equal(dropping, saliency.snip(model, batch))
    attention = nn.MultiheadAttention(64, 2, dropout=0.5)
    model, batch = hidden(lambda x: attention(x, x, x)[0])
    model.attention = attention.train()
    dropping = saliency.snip(
        model, batch, closure=lambda m, b: cross_entropy(m.train()(b[0]), b[1])
    )
    assert equal(dropping, saliency.snip(model, batch))


@pytest.mark.parametrize(
    "noise",
    [
        lambda x: x + torch.randn_like(x),
        lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)),
        lambda x: F.gumbel_softmax(x),
        lambda x: F.rrelu(x - 1, training=True),
    ],
)
def test_a_model_that_draws_noise_gets_the_same_in_every_call(noise):
    model, batch = hidden(noise)
    state = torch.get_rng_state()
    first = saliency.snip(model, batch)
    torch.rand(1)
    assert equal(first, saliency.snip(model, batch))
    torch.set_rng_state(state)
    saliency.snip(model, batch)
    assert torch.equal(state, torch.get_rng_state())


def test_a_model_that_gives_its_losses_in_training_mode_only():
    """As torchvision's detectors do.

    Batch norm stays as it was told, and nothing is left changed.
    """

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
            )

        def forward(self, x, targets):
            return (
                {"loss": cross_entropy(self.layers(x), targets)}
                if self.training
                else [self.layers(x)]
            )

    torch.manual_seed(0)
    model, batch = Detector(), (torch.randn(20, 8), torch.arange(20) % 3)
    state = copy.deepcopy(model.state_dict())
    for mode in BATCH_NORM_MODES:
        expected = saliency.snip(model.layers, batch, batch_norm=mode)
        for closure in (lambda m, b: m(*b)["loss"], lambda m, b: sum(m.train()(*b).values())):
            scores = saliency.snip(model, [batch, batch], closure=closure, batch_norm=mode)
            assert all(
                torch.equal(scores[f"layers.{name}"], score) for name, score in expected.items()
            )
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    with pytest.raises(AttributeError, match="no attribute 'value'"):  # the closure's own mistake
        saliency.snip(model, [batch], closure=lambda m, b: m(*b).value())


def test_buffers_are_left_as_they_were():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 3)
            self.register_buffer("calls", torch.zeros(1))
            self.register_buffer("mean", torch.zeros(8))
            self.register_buffer("shared", torch.ones(1).expand(5))
            self.register_buffer("graph", torch.eye(3).to_sparse())

        def forward(self, x):
            self.calls += 1
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
            return self.layer(x) @ self.graph

    model = Counting()
    saliency.snip(model, (torch.randn(20, 8), torch.arange(20) % 3))
    assert not model.calls.any() and not model.mean.any()


def test_a_model_that_gives_more_in_training_mode_is_scored_in_evaluation_mode():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 3)

        def forward(self, x):
            return (self.layer(x), x) if self.training else self.layer(x)

    model, batch = Auxiliary().train(), (torch.randn(20, 8), torch.arange(20) % 3)
    assert saliency.snip(model, batch)["layer.weight"].any() and model.training


@pytest.mark.parametrize("criterion", CRITERIA)
def test_default_device_and_type_do_not_matter(criterion):
    model, batch = hidden(torch.tanh)
    expected = scores_of(criterion, model, batch, 0.5)
    try:
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float64)
        scores = scores_of(criterion, model, batch, 0.5)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(scores[name], expected[name]) for name in expected)


def clip(gradient):
    return gradient.clamp(-0.001, 0.001)


def hook_parameters(model):
    return [parameter.register_hook(clip) for parameter in model.parameters()]


def hook_modules(model):
    after = model.b.register_full_backward_hook(lambda _, inputs, __: tuple(map(clip, inputs)))
    return [
        after,
        model.b.register_full_backward_pre_hook(lambda _, outputs: tuple(map(clip, outputs))),
    ]


def hook_activations(model):
    model.function = lambda x: x.register_hook(clip) and x
    return []


@pytest.mark.parametrize("hook", [hook_parameters, hook_modules, hook_activations])
@pytest.mark.parametrize("criterion", ["snip", "grasp", "force"])
def test_hooks_on_gradients_change_no_score(criterion, hook):
    model, batch = hidden(lambda x: x)
    expected = scores_of(criterion, model, batch, 0.5)
    handles = hook(model)
    scores = scores_of(criterion, model, batch, 0.5)
    assert all(torch.equal(scores[name], expected[name]) for name in expected)
    unhooked, _ = hidden(lambda x: x)
    cross_entropy(unhooked(batch[0]), batch[1]).backward()
    cross_entropy(model(batch[0]), batch[1]).backward()
    # In training they still run.
    assert not torch.allclose(model.a.weight.grad, unhooked.a.weight.grad)
    for handle in handles:
        handle.remove()
    assert (
        not model.a.weight._backward_hooks
        and not model.a._backward_hooks
        and not model.b._backward_pre_hooks
    )


def test_a_closure_that_calls_backward_leaves_no_gradient_behind(small):
    model, (inputs, targets) = small
    model[0].weight.grad = torch.ones_like(model[0].weight)
    with pytest.raises(ValueError, match="one number in a tensor"):
        saliency.snip(model, inputs, closure=lambda m, x: cross_entropy(m(x), targets).backward())
    assert (
        torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
        and model[5].weight.grad is None
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda m, b: saliency.snip(m, b, sparsity=0.9),
            "snip has no option sparsity; it takes loss, closure,",
        ),
        (
            lambda m, b: saliency.random(m, rounds=2),
            "random has no option rounds; it takes .*, generator$",
        ),
        (lambda m, b: saliency.magnitude(m, closure=1), "closure is 1: it is a function of"),
        (lambda m, b: saliency.magnitude(m, b, "mse"), "loss is 'mse': it is a function of"),
        (
            lambda m, b: saliency.snip(m, b, nn.CrossEntropyLoss),
            "loss is <class .*CrossEntropyLoss'>: it is a func",
        ),
        (lambda m, b: saliency.random(m, generator=0), "generator is 0: pass torch.Generator"),
        (
            lambda m, b: snipkit.prune(m, b, 0.5, "erk", generator=0),
            "generator is 0: pass torch.Generator",
        ),
        (lambda m, b: snipkit.prune(m, b, 0.5, rounds=2), "snip has no option rounds"),
        (
            lambda m, b: snipkit.prune(m, b, 0.5, where="0"),
            r"where is '0': it is a function of \(name, module\)",
        ),
        (
            lambda m, b: snipkit.prune(m, b, 0.5, where=nn.Linear),
            r"write lambda .*: isinstance\(module, Linear\)",
        ),
        (
            lambda m, b: snipkit.prune(m, b, 0.5, where=lambda name: True),
            r"where cannot be called with \(name, mod",
        ),
        (lambda m, b: snipkit.prune(m, b, keep=3, where=nn.Linear), "where is <class"),
        (
            lambda m, b: snipkit.prune(m, b, 0.5, nn.Linear),
            r"criterion is <class .*: pass a name \(snip, magnitude",
        ),
        (lambda m, b: snipkit.prune(b, m, 0.5), "model is of type tuple, not a torch.nn.Module"),
    ],
)
def test_wrong_words_get_one_sentence_that_names_the_argument(small, call, message):
    with pytest.raises(TypeError, match=message):
        call(*small)


def test_a_batch_norm_mode_is_checked_even_where_it_does_not_matter(small):
    with pytest.raises(ValueError, match="unknown batch_norm mode 'nonsense'; known: eval, train"):
        saliency.magnitude(small[0], batch_norm="nonsense")


def test_recurrent_layers_are_scored_in_the_mode_that_cudnn_can_differentiate():
    """It refuses evaluation mode. Training mode without dropout is the same function."""
    model, seen = nn.LSTM(3, 4, num_layers=2, dropout=0.5).double().eval(), []
    torch.manual_seed(0)
    x = torch.randn(5, 2, 3).double()

    def closure(network, batch):
        seen.append((network.training, network.dropout))
        return network(batch)[0].square().mean()

    scores = saliency.snip(model, x, closure=closure)
    assert seen == [(True, 0.0)] and (model.training, model.dropout) == (False, 0.5)
    gradients = torch.autograd.grad(closure(model, x), list(model.parameters()))
    derivatives = [(w * g).abs().detach() for w, g in zip(model.parameters(), gradients)]
    total = sum(d.sum() for d in derivatives)
    assert all(
        torch.allclose(score, d / total, rtol=1e-9)
        for score, d in zip(scores.values(), derivatives)
    )


def test_one_gradient_for_two_parameters_is_not_scaled_twice():
    """Autograd gives both terms of a sum the same tensor."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Linear(2, 2, bias=False) for _ in range(2))
            nn.init.constant_(self.a.weight, 1.0)
            nn.init.constant_(self.b.weight, 2.0)

        def forward(self, x):
            return x @ (self.a.weight + self.b.weight)

    inputs, targets = torch.arange(24.0).view(12, 2) ** 2, torch.zeros(12)
    whole = saliency.signed_gradient(Sum(), (inputs, targets), lambda outputs, _: outputs.mean())
    parts = saliency.signed_gradient(
        Sum(), zip(inputs.split(4), targets.split(4)), lambda outputs, _: outputs.mean()
    )
    for scores in (whole, parts):
        assert torch.equal(scores["a.weight"], scores["b.weight"])
        assert sum(score.abs().sum() for score in scores.values()).item() == pytest.approx(1)
        torch.testing.assert_close(scores["a.weight"], whole["a.weight"])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_scores_what_the_caller_says(small, criterion):
    model, batch = small
    scores = scores_of(
        criterion,
        model,
        batch,
        0.5,
        biases=False,
        where=lambda name, module: isinstance(module, nn.Linear),
    )
    assert list(scores) == ["5.weight", "7.weight"]
    narrow = copy.deepcopy(model).to(torch.bfloat16)  # scored on a copy, whose modules are others
    found = scores_of(
        criterion,
        narrow,
        (batch[0].float(), batch[1]),
        0.5,
        where=lambda _, module: module is narrow[5],
    )
    assert list(found) == ["5.weight", "5.bias"]


@pytest.mark.filterwarnings("ignore::snipkit.masking.EmptyLayerWarning")
def test_prune_hands_its_options_on(small):
    model, (inputs, targets) = small
    plain, before = copy.deepcopy(model), {name: p.clone() for name, p in model.named_parameters()}
    masks = snipkit.prune(
        model,
        {"x": inputs},
        keep=7,
        closure=lambda m, batch: cross_entropy(m(batch["x"]), targets),
        biases=False,
        where=lambda name, _: name != "7.weight",
        batch_norm="train",
    )
    expected = saliency.snip(
        plain,
        (inputs, targets),
        biases=False,
        where=lambda name, _: name != "7.weight",
        batch_norm="train",
    )
    assert (
        sum(int(mask.sum()) for mask in masks.values())
        == 7
        == sum(int(p.count_nonzero()) for n, p in model.named_parameters() if n in masks)
    )
    assert all(
        torch.equal(mask, masking.keep_top(expected, keep=7)[name]) for name, mask in masks.items()
    )
    assert all(
        torch.equal(p, before[name]) for name, p in model.named_parameters() if name not in masks
    )


def test_a_criterion_can_be_a_function(small):
    model, batch = small
    masks = snipkit.prune(
        copy.deepcopy(model), batch, 0.5, lambda network, _: {"5.weight": network[5].weight.abs()}
    )
    assert list(masks) == ["5.weight"] and int(masks["5.weight"].sum()) == 24
    asked = []
    snipkit.prune(
        model,
        batch,
        0.5,
        lambda network, _, **options: asked.append(options) or {"5.weight": network[5].weight},
        biases=False,
    )
    assert asked == [{"biases": False}]
    draw = [
        snipkit.prune(
            copy.deepcopy(model), None, 0.5, "random", generator=torch.Generator().manual_seed(seed)
        )
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draw[0]["5.weight"], draw[1]["5.weight"]) and not torch.equal(
        draw[0]["5.weight"], draw[2]["5.weight"]
    )


def test_a_criterion_of_ones_own_is_written_on_the_objective(small):
    model, batch = small

    @snipkit.from_objective
    def squared(objective, *, power=2):
        """(w ∂L/∂w)²"""
        weights = objective.weights
        return {
            name: (weights[name] * slope).abs() ** power
            for name, slope in objective.gradient().items()
        }

    snip = saliency.snip(model, batch, biases=False)
    total = sum((score**2).sum() for score in snip.values())
    scores = squared(model, batch, biases=False)
    assert equal(scores, {name: score**2 / total for name, score in snip.items()})
    assert equal(squared(model, batch, biases=False, power=1), snip)
    masks = snipkit.prune(copy.deepcopy(model), batch, 0.5, squared)
    expected = snipkit.prune(copy.deepcopy(model), batch, 0.5)
    assert all(torch.equal(masks[name], expected[name]) for name in expected)
    with pytest.raises(TypeError, match="squared has no option sparsity"):
        squared(model, batch, sparsity=0.5)


def test_score_gives_what_prune_ranks_by(small):
    model, batch = small
    assert equal(snipkit.score(model, batch), saliency.snip(model, batch))
    scores = snipkit.score(model, batch, "force", sparsity=0.5, rounds=3, biases=False)
    masks = snipkit.prune(copy.deepcopy(model), batch, 0.5, "force", rounds=3, biases=False)
    assert all(
        torch.equal(mask, masks[name]) for name, mask in masking.keep_top(scores, 0.5).items()
    )
    by_partial = snipkit.prune(
        model, batch, 0.5, partial(CRITERIA["force"], rounds=3), biases=False
    )
    assert all(torch.equal(by_partial[name], masks[name]) for name in masks)


def test_a_criterion_that_was_told_the_sparsity_is_not_told_again(small):
    model, batch = small
    told = []

    def watching(network, batches, sparsity=None):
        told.append(sparsity)
        return {"5.weight": network[5].weight.detach()}

    snipkit.prune(model, batch, 0.25, watching)
    snipkit.prune(model, batch, 0.25, partial(watching, sparsity=0.5))
    assert told == [0.25, 0.5]


def test_names_of_earlier_versions_say_what_to_write(small):
    for name, advice in saliency.MOVED.items():
        with pytest.warns(DeprecationWarning, match=f"saliency.{name}: write snipkit") as caught:
            moved = getattr(saliency, name)
        assert str(caught[0].message).endswith(advice) and caught[0].filename == __file__
        if name != "criterion":
            assert moved is eval(advice)
        else:
            assert moved("force") is CRITERIA["force"]
    with pytest.raises(AttributeError, match="no attribute 'forze'"):
        saliency.forze  # noqa: B018


# --- losses and batches that are no plain mean over examples
# ------------------------------------------------------------------------------------------


def penalised(model, reduction):
    def loss(outputs, targets):
        penalty = sum(parameter.square().sum() for parameter in model.parameters())
        return cross_entropy(outputs, targets, reduction=reduction) + 0.1 * penalty

    return loss


def uneven_batches(batch):
    return list(zip(batch[0].split((5, 4, 3)), batch[1].split((5, 4, 3))))


@pytest.fixture
def double():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    return model, (torch.randn(12, 8).double(), torch.arange(12) % 3)


def test_a_penalty_of_the_weights_in_a_mean_counts_once(double):
    model, batch = double
    loss = penalised(model, "mean")
    scores = saliency.snip(model, uneven_batches(batch), loss)
    expected = saliency.snip(model, batch, loss)
    assert all(torch.allclose(scores[name], expected[name], rtol=1e-9) for name in expected)


def test_batches_are_not_weighed_against_one_whose_loss_is_flat(double):
    model, (inputs, _) = double
    counted = torch.tensor([0.0] * 3 + [1.0] * 9).double()

    def loss(outputs, counted):
        return (outputs.square().sum(1) * counted).mean()

    batches = list(zip(inputs.split([3, 2, 7]), counted.split([3, 2, 7])))
    scores = saliency.snip(model, batches, loss)
    expected = saliency.snip(model, (inputs, counted), loss)
    assert all(torch.allclose(scores[name], expected[name], rtol=1e-9) for name in expected)


class Auxiliary(nn.Module):
    """Its outputs have one number for the whole batch, as those of a mixture of experts have."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        outputs = self.model(x)
        return outputs, outputs.square().mean()


class Opaque(Auxiliary):
    """What it returns says nothing of the tensors in it."""

    def forward(self, x):
        return SimpleNamespace(logits=self.model(x))


def test_losses_of_several_batches_that_cannot_be_joined_are_refused(double):
    model, batch = double
    calls = []

    def rising(outputs, targets):
        calls.append(1)
        return len(calls) * cross_entropy(outputs, targets)

    auxiliary, opaque = Auxiliary(model), Opaque(model)
    for network, loss, reason in (
        (model, penalised(model, "sum"), "a penalty of the weights would count once a batch"),
        (model, rising, "the loss is another function in each call"),
        (auxiliary, lambda o, t: cross_entropy(o[0], t) + o[1], "one number for the whole batch"),
        (opaque, lambda o, t: cross_entropy(o.logits, t), "SimpleNamespace cannot be joined"),
    ):
        with pytest.raises(ValueError, match=reason):
            saliency.snip(network, uneven_batches(batch), loss)
        saliency.snip(network, batch, loss)
    unused = saliency.snip(auxiliary, uneven_batches(batch), lambda o, t: cross_entropy(o[0], t))
    expected = saliency.snip(model, batch)
    assert torch.allclose(unused["model.0.weight"], expected["0.weight"], rtol=1e-9)


def test_batches_of_soft_labels_weigh_by_their_places():
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 1).double()
    batches, inputs, targets = [], [], []
    for side in (2, 6):
        images = torch.randn(2, 3, side, side).double()
        labels = torch.randn(2, 4, side, side).double().softmax(1)
        batches.append((images, labels))
        inputs.append(images.movedim(1, 3).reshape(-1, 3, 1, 1))
        targets.append(labels.movedim(1, 3).reshape(-1, 4, 1, 1))
    scores = saliency.snip(model, batches)
    expected = saliency.snip(model, (torch.cat(inputs), torch.cat(targets)))
    assert all(torch.allclose(scores[name], expected[name], rtol=1e-9) for name in expected)


@pytest.mark.parametrize("outputs", [1, 3])
def test_targets_of_floats_that_are_no_probabilities_are_not_taken_for_them(outputs):
    """A regression, or several labels an example, would be scored by cross-entropy."""
    model = nn.Sequential(nn.Linear(8, outputs), nn.Flatten(0 if outputs == 1 else 1))
    targets = torch.ones(6) if outputs == 1 else torch.ones(6, 3)
    with pytest.raises(ValueError, match="for another loss pass loss="):
        saliency.snip(model, (torch.randn(6, 8), targets))


def test_a_closure_says_what_it_may_give(double):
    model, batch = double

    def backward(network, pair):
        loss = cross_entropy(network(pair[0]), pair[1])
        loss.backward()
        return loss

    with pytest.raises(ValueError, match="return it without calling backward"):
        saliency.snip(model, [batch], closure=backward)
    for weight in (math.nan, math.inf, torch.tensor(3)):
        with pytest.raises(ValueError, match="a number of at least 0"):
            saliency.snip(
                model,
                [batch],
                closure=lambda m, b: (cross_entropy(m(b[0]), b[1]), weight),
            )


# --- models and batches without values, or without derivatives
# ------------------------------------------------------------------------------------------


def test_scoring_works_under_inference_mode_and_with_its_inputs(double):
    model, batch = double
    expected = saliency.snip(model, batch)
    with torch.inference_mode():
        copies = batch[0].clone(), batch[1].clone()
        assert equal(saliency.snip(model, copies), expected)
    assert equal(saliency.snip(model, copies), expected)


def test_models_without_values_or_derivatives_are_refused_by_name(double):
    model, batch = double
    with torch.inference_mode():
        inference_model = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"made under torch.inference_mode \(0.weight\)"):
        saliency.snip(inference_model, batch)
    with pytest.raises(ValueError, match="0.weight has no values, .* meta"):
        saliency.snip(copy.deepcopy(model).to("meta"), batch)
    model.append(nn.LazyLinear(3))
    with pytest.raises(ValueError, match="3.weight has no shape yet: pass one batch"):
        saliency.snip(model, batch, where=lambda name, module: name.startswith("0"))
    assert nn.parameter.is_lazy(model[3].weight)


class WritesIntoItsInputs(nn.Linear):
    def forward(self, x):
        return super().forward(x.mul_(2))


def test_a_forward_pass_that_writes_into_its_inputs_does_not_change_the_batch():
    torch.manual_seed(0)
    model, batch = WritesIntoItsInputs(8, 3), (torch.randn(12, 8), torch.arange(12) % 3)
    inputs = batch[0].clone()
    scores = saliency.snip(model, batch)
    assert torch.equal(batch[0], inputs) and equal(saliency.snip(model, batch), scores)


class CastsItsInputs(nn.Linear):
    def forward(self, x):
        return super().forward(x.bfloat16())


def test_types_that_do_not_fit_are_told_in_a_sentence(double):
    model, (inputs, targets) = double
    with pytest.raises(ValueError, match="not take inputs of torch.float32 .*: convert them"):
        saliency.snip(model, (inputs.float(), targets))
    narrow = CastsItsInputs(8, 3).bfloat16()
    with pytest.raises(ValueError, match="is scored in float32, so a forward pass may not cast"):
        saliency.snip(narrow, (inputs.bfloat16(), targets))
    model[0].weight.data[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match=r"not finite \(0.weight\)"):
        saliency.magnitude(model)
    with pytest.raises(ValueError, match="SynFlow takes sizes of weights, but 1.weight is complex"):
        complex_layer = nn.Linear(3, 3, dtype=torch.complex64)
        CRITERIA["synflow"](
            nn.Sequential(nn.Linear(8, 3), complex_layer),
            (inputs.float(), targets),
            where=lambda name, module: name.startswith("0"),
            sparsity=0.5,
        )


class Observer(nn.Linear):
    """Its buffer is empty before the first pass, as those of quantisation-aware training are."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("largest", torch.zeros(0))

    def forward(self, x):
        outputs = super().forward(x)
        self.largest.resize_(outputs.shape[1]).copy_(outputs.detach().amax(0))
        return outputs


def test_buffers_that_grow_in_a_pass_are_put_back():
    model = Observer(8, 3)
    saliency.snip(model, (torch.randn(12, 8), torch.arange(12) % 3))
    assert model.largest.shape == (0,)


def test_scoring_leaves_no_hook_behind():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    batch = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 3)
    saliency.snip(model, batch, batch_norm="train")
    assert not any(module._forward_pre_hooks for module in model.modules())
