"""Laws 1 to 4 of connection sensitivity, and what a criterion must not do."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from snipkit import masking, models, saliency


def derivatives(model, batch, eps):
    """Central differences of the loss in every c_j: (L(c_j + ε) − L(c_j − ε)) / 2ε, one parameter at a time."""
    inputs, targets = batch
    result = {}
    with torch.no_grad():
        for name, weight in masking.prunable(model).items():
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
    return max(((scores[n] - r.abs() / total).abs().max() / scores[n].max().clamp_min(1e-30)).item() for n, r in reference.items())


def test_a_ten_weight_network_by_hand():
    """x = (1, 2), two ReLU units of which one is off, linear outputs, L = Σ outputs: every number fits on paper."""

    class Toy(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = nn.Linear(2, 2), nn.Linear(2, 1)
            self.skip = nn.Linear(1, 1, bias=False)
            self.skip.weight.data = torch.tensor([[3.0]])
            self.hidden.weight.data = torch.tensor([[1.0, 1.0], [-1.0, -2.0]])  # sums 3 (on) and −5 (off)
            self.hidden.bias.data = torch.tensor([2.0, 0.0])  # unit 1 carries 5
            self.out.weight.data = torch.tensor([[4.0, 7.0]])
            self.out.bias.data = torch.tensor([-6.0])

        def forward(self, x):
            return self.out(torch.relu(self.hidden(x))) + self.skip(x[:, :1])

    scores = saliency.snip(Toy(), (torch.tensor([[1.0, 2.0]]), torch.tensor([0.0])), lambda output, _: output.sum())
    by_hand = {  # |w · ∂L/∂w|; the sum is 4 + 8 + 8 + 20 + 6 + 3 = 49
        "hidden.weight": [[4 * 1 * 1, 4 * 1 * 2], [0, 0]], "hidden.bias": [4 * 2, 0],
        "out.weight": [[4 * 5, 0]], "out.bias": [6], "skip.weight": [[3]],
    }
    assert {name: (49 * score).round(decimals=4).tolist() for name, score in scores.items()} == by_hand
    with pytest.warns(masking.EmptyLayerWarning, match="no weight is left in skip.weight:"):
        masks = masking.keep_top(scores, 0.5)
    assert {name: mask.int().tolist() for name, mask in masks.items()} == {
        "hidden.weight": [[1, 1], [0, 0]], "hidden.bias": [1, 0], "out.weight": [[1, 0]], "out.bias": [1], "skip.weight": [[0]],
    }


@pytest.mark.parametrize("random_biases", [False, True])
def test_law_1_scores_are_the_derivative_in_c(small, random_biases):
    model, batch = small
    model.eval()
    if random_biases:
        for name, parameter in masking.prunable(model).items():
            if masking.is_bias(name):
                nn.init.normal_(parameter)
    scores = saliency.snip(model, batch)
    c = {n: torch.ones_like(p, requires_grad=True) for n, p in masking.prunable(model).items()}
    loss = cross_entropy(functional_call(model, {n: c[n] * p for n, p in masking.prunable(model).items()}, batch[0]), batch[1])
    explicit = dict(zip(c, torch.autograd.grad(loss, list(c.values()))))
    assert relative_error(scores, explicit) < 1e-12
    assert relative_error(scores, derivatives(model, batch, 1e-4)) < 1e-6


def narrow(name):
    """A network of the paper at a fraction of its width, in double precision, and a batch for it."""
    options = {} if "lenet" in name else {"width": 4 / 128 if name[:3] in ("lst", "gru") else 1 / 32}
    model = models.build(name, init="glorot", **options).double()
    shape = (1, 28, 28) if "lenet" in name or name[:3] in ("lst", "gru") else (3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    return model, (torch.randn(6, *shape, generator=generator).double(), torch.arange(6) % 10)


@pytest.mark.parametrize("mode", saliency.BATCH_NORM_MODES)
@pytest.mark.parametrize("name", models.MODELS)
def test_law_1_for_every_network_of_the_paper(name, mode):
    """Against an explicit c."""
    model, (inputs, targets) = narrow(name)
    scores = saliency.snip(model, (inputs, targets), batch_norm=mode)
    model.train(mode == "train")
    c = {n: torch.ones_like(p, requires_grad=True) for n, p in masking.prunable(model).items()}
    loss = cross_entropy(functional_call(model, {n: c[n] * p for n, p in masking.prunable(model).items()}, (inputs,)), targets)
    assert relative_error(scores, dict(zip(c, torch.autograd.grad(loss, list(c.values()))))) < 1e-10


@pytest.mark.parametrize("name", ["lstm-s", "gru-s"])
def test_law_1_for_recurrent_networks_against_central_differences(name):
    model, batch = narrow(name)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(1))  # or their scores are all 0
    scores = saliency.snip(model, batch)
    assert all(score.any() for score in scores.values())
    assert relative_error(scores, derivatives(model, batch, 1e-4)) < 1e-6


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5-caffe", "alexnet-s", "vgg-like"])
def test_law_2_the_signed_sum_is_the_same_in_every_layer(name):
    model, (inputs, targets) = narrow(name)
    model.eval()
    weights = masking.prunable(model, biases=False)
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
        sums, size = (kernel * gradient).flatten(1).sum(1), (kernel * gradient).flatten(1).abs().sum(1)
        assert bool((sums.abs() < 1e-10 * size).all()) is cancels


def test_law_4_many_batches_are_the_one_large_batch(small):
    model, (inputs, targets) = small
    whole = saliency.snip(model, (inputs, targets))
    for sizes in ([4, 4], [2, 2, 2, 2], [5, 3]):
        parts = saliency.snip(model, zip(inputs.split(sizes), targets.split(sizes)))
        for name in whole:
            torch.testing.assert_close(parts[name], whole[name], rtol=1e-9, atol=1e-15)


def test_summing_absolute_values_would_be_another_criterion(small):
    """Without this, law 4 could hold for the wrong reason."""
    model, (inputs, targets) = small
    separate = [saliency.snip(model, pair) for pair in zip(inputs.split(4), targets.split(4))]
    whole = saliency.snip(model, (inputs, targets))
    assert any(not torch.allclose((separate[0][n] + separate[1][n]) / 2, whole[n], rtol=1e-3) for n in whole)


@pytest.mark.parametrize("criterion", saliency.CRITERIA)
@pytest.mark.parametrize("mode", saliency.BATCH_NORM_MODES)
def test_the_model_is_left_as_it_was(small, criterion, mode):
    model, batch = small
    model.train()
    model[3].eval()  # modes are restored module by module
    (model(batch[0]).sum()).backward()
    before = copy.deepcopy({**model.state_dict(), **{n: p.grad for n, p in model.named_parameters()}})
    state = torch.get_rng_state()
    scores = saliency.CRITERIA[criterion](model, batch, batch_norm=mode)
    after = {**model.state_dict(), **{n: p.grad for n, p in model.named_parameters()}}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [module.training for module in model] == [True, True, True, False, True, True, True, True]
    assert torch.equal(state, torch.get_rng_state())
    assert math.isclose(sum(score.abs().sum().item() for score in scores.values()), 1, rel_tol=1e-6)
    assert all(not score.requires_grad for score in scores.values())
    assert all((score >= 0).all() for score in scores.values()) is (criterion != "signed-gradient")


def test_the_three_rankings_of_one_gradient(small):
    """|∂L/∂w|, ∂L/∂w and |w · ∂L/∂w|, against autograd."""
    model, (inputs, targets) = small
    model.eval()
    cross_entropy(model(inputs), targets).backward()
    for criterion, expected in (
        ("gradient", lambda p: p.grad.abs()), ("signed-gradient", lambda p: p.grad), ("snip", lambda p: (p.detach() * p.grad).abs())
    ):
        scores = saliency.CRITERIA[criterion](model, (inputs, targets))
        by_hand = {name: expected(p) for name, p in model.named_parameters() if name in scores}
        total = sum(value.abs().sum() for value in by_hand.values())
        assert all(torch.allclose(scores[name], by_hand[name] / total, rtol=1e-9) for name in scores)


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
            self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

        def forward(self, x):
            x = self.norm(self.lstm(x)[0])
            return self.head(self.attention(x, x, x, need_weights=False)[0][:, -1])

    torch.manual_seed(0)
    model, batch = Reader().double().eval(), (torch.randn(6, 7, 5).double(), torch.arange(6) % 3)
    scores = saliency.snip(model, batch)
    assert set(scores) == set(masking.prunable(model)) and "norm.weight" not in scores and "lstm.bias_hh_l0" in scores
    assert relative_error(scores, derivatives(model, batch, 1e-4)) < 1e-6


def test_magnitude_and_random(small):
    model, _ = small
    scores = saliency.magnitude(model)
    torch.testing.assert_close(scores["0.weight"] / scores["0.weight"].sum(), model[0].weight.abs().detach() / model[0].weight.abs().sum())
    draws = [saliency.random(model, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
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
        (lambda x, y: (x, y), {"batch_norm": "off"}, "unknown batch_norm mode 'off'; known: eval, train"),
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


def test_nothing_to_score():
    with pytest.raises(ValueError, match="no prunable parameter"):
        saliency.snip(nn.LayerNorm(3), (torch.ones(2, 3), torch.zeros(2, dtype=torch.long)))
    with pytest.raises(ValueError, match="every score is zero"):
        saliency.snip(nn.Linear(3, 2), (torch.ones(2, 3), torch.zeros(2, dtype=torch.long)), lambda o, t: o.sum() * 0)
    with pytest.raises(ValueError, match="unknown criterion 'snap'; known: snip, magnitude, random"):
        saliency.criterion("snap")
