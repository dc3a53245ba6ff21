"""Laws of the criteria since SNIP: GraSP, SynFlow (law 10), iterative SNIP and FORCE."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import cross_entropy

import snipkit
from snipkit import CRITERIA, PASSES, _prunable, masking, models, saliency
from snipkit.beyond import criteria, densities

NEW = ["grasp", "synflow", "iterative-snip", "force"]
ITERATIVE = NEW[1:]
pytestmark = pytest.mark.filterwarnings("ignore::snipkit.masking.EmptyLayerWarning")


def equal(first, second):
    return all(torch.allclose(first[name], second[name], rtol=1e-9, atol=1e-15) for name in second)


def squared_gradient(model, batch):
    """gᵀg of the loss that GraSP looks at."""
    loss = cross_entropy(model(batch[0]) / 200, batch[1])
    return sum(
        g.square().sum() for g in torch.autograd.grad(loss, list(snipkit.prunable(model).values()))
    ).item()


def test_grasp_is_how_much_the_gradients_norm_shrinks_with_each_connection(small):
    """Against central differences of gᵀg.

    W · ∂(gᵀg)/∂w = 2 w · Hg. What shrinks it most without it is kept.
    """
    model, batch = small
    model.eval()
    scores, slopes = criteria.grasp(model, batch), {}
    for name, weight in snipkit.prunable(model).items():
        flat, slopes[name] = weight.detach().view(-1), torch.zeros_like(weight).view(-1)
        for j, value in enumerate(flat.tolist()):
            norms = []
            for c in (1 + 1e-4, 1 - 1e-4):
                flat[j] = c * value
                norms.append(squared_gradient(model, batch))
            flat[j] = value
            slopes[name][j] = norms[0] - norms[1]
    total = sum(slope.abs().sum() for slope in slopes.values())
    for name, slope in slopes.items():
        torch.testing.assert_close(scores[name].flatten(), slope / total, rtol=1e-4, atol=1e-9)


def test_grasp_of_many_batches_is_that_of_the_one_large_batch(small):
    """g is complete before H is applied."""
    model, (inputs, targets) = small
    whole = criteria.grasp(model, (inputs, targets))
    assert equal(whole, criteria.grasp(model, zip(inputs.split([5, 3]), targets.split([5, 3]))))


def test_grasps_temperature_is_for_cross_entropy_alone(small):
    model, (inputs, targets) = small
    own = criteria.grasp(
        model, (inputs, targets), closure=lambda m, batch: cross_entropy(m(batch[0]), batch[1])
    )
    assert equal(own, criteria.grasp(model, (inputs, targets), temperature=1))
    assert not equal(own, criteria.grasp(model, (inputs, targets)))
    assert not model._forward_hooks


def test_grasp_goes_through_layers_whose_fast_kernels_have_no_second_derivative():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.attention = (
                nn.LSTM(5, 4, batch_first=True),
                nn.MultiheadAttention(4, 2, batch_first=True),
            )

        def forward(self, x):
            x = self.lstm(x)[0]
            return self.attention(x, x, x, need_weights=False)[0][:, -1]

    scores = criteria.grasp(Reader(), (torch.randn(6, 40, 5), torch.arange(6) % 4))
    assert scores["lstm.weight_ih_l0"].any() and scores["attention.in_proj_weight"].any()


@pytest.mark.parametrize(
    "name, options",
    [
        ("lenet-300-100", {}),
        ("lenet-5-caffe", {}),
        ("alexnet-s", {"width": 1 / 32}),
        ("vgg-like", {"width": 1 / 16}),
    ],
)
def test_law_10_synflows_scores_sum_to_the_same_in_every_layer(name, options):
    """In float32 weights, on a network in float32, with batch norm.

    The sums agree to double precision all the same.
    """
    model = models.build(name, **options)
    for module in filter(_prunable.is_norm, model.modules()):
        nn.init.ones_(module.bias)  # a trained one would add to the flow
    batch = (
        torch.randn(2, *((1, 28, 28) if "lenet" in name else (3, 32, 32))),
        torch.zeros(2, dtype=torch.long),
    )
    for rounds in (1, 4):
        scores = criteria.synflow(model, batch, biases=False, sparsity=0.9, rounds=rounds)
        sums = torch.stack([score.sum() for score in scores.values()])
        torch.testing.assert_close(sums, torch.full_like(sums, 1 / len(sums)), rtol=1e-9, atol=0)
    assert sum(int((score < 0).sum()) for score in scores.values()) > 0


def deep(width=30):
    """A chain of ten layers without biases."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = [300, *[width] * 9, 3]
        layers = [nn.Linear(*pair, bias=False) for pair in zip(sizes, sizes[1:])]
        return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]


def test_synflow_sums_over_all_outputs():
    """In one layer every output depends on its own weights alone.

    R = Σ|w|, so the scores are the shares of |w|.
    """
    model = nn.Linear(3, 2, bias=False)
    scores = criteria.synflow(
        model, (torch.ones(1, 3), torch.zeros(1, dtype=torch.long)), sparsity=0.5, rounds=1
    )
    size = model.weight.detach().abs().double()
    torch.testing.assert_close(scores["weight"], size / size.sum())


def test_synflow_leaves_no_layer_empty_where_one_shot_criteria_do():
    """33 of 16,290 weights are kept. One round of it is no better than they are."""
    model, batch = deep(), (torch.randn(50, 300), torch.arange(50) % 3)
    kept = {}
    for name in ("synflow", "snip", "magnitude"):
        scores = snipkit.score(
            model, batch, name, **({"sparsity": 0.998} if name == "synflow" else {})
        )
        kept[name] = masking.keep_top(scores, 0.998)
    once = masking.keep_top(criteria.synflow(model, batch, sparsity=0.998, rounds=1), 0.998)
    effective = snipkit.effective(model, kept["synflow"], batch[0])
    assert not masking.empty_layers(kept["synflow"]) and all(
        mask.any() for mask in effective.values()
    )
    assert masking.empty_layers(kept["snip"]) and masking.empty_layers(kept["magnitude"])
    assert masking.empty_layers(once)


def test_synflow_needs_no_data_but_the_inputs_shape(small):
    model, (inputs, targets) = small
    scores = criteria.synflow(model, (inputs, targets), sparsity=0.5)
    assert all(score.dtype == torch.float64 for score in scores.values())
    for batches in (inputs * 9, (inputs[:1], targets[:1] + 7), iter([(inputs, targets)])):
        assert equal(criteria.synflow(model, batches, sparsity=0.5), scores)
    for bad in (None, [], {"x": inputs}, (targets, targets)):
        with pytest.raises(ValueError, match="SynFlow feeds ones of the inputs' shape: pass"):
            criteria.synflow(model, bad, sparsity=0.5)
    with pytest.raises(ValueError, match="SynFlow sums the outputs, but they are tuple"):
        criteria.synflow(nn.LSTM(3, 4), torch.zeros(2, 1, 3), sparsity=0.5)


class Ending(nn.Module):
    """A network as newcomers write it: something comes after the logits."""

    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 16), nn.ReLU()
        )
        self.last, self.end = nn.Linear(16, 5), end

    def forward(self, x):
        return self.end(self.last(self.layers(x)))


@pytest.mark.parametrize(
    "end",
    [
        lambda x: F.log_softmax(x, 1),
        lambda x: F.softmax(x, dim=-1),
        lambda x: x.softmax(1),
        torch.sigmoid,
        lambda x: x.sigmoid().squeeze(1),
        lambda x: torch.softmax(x.view(-1, 1, 5), 2).flatten(1),
        F.logsigmoid,
        lambda x: F.softmax(torch.tanh(x), 1),
        F.normalize,
        nn.LogSoftmax(1),
        nn.Softmax(1),
        nn.Sigmoid(),
        nn.Tanh(),
        nn.Sequential(nn.Sigmoid(), nn.Flatten()),
    ],
)
def test_synflow_looks_at_the_logits_whatever_comes_after_them(end):
    images = torch.randn(3, 1, 8, 8)
    logits = criteria.synflow(Ending(nn.Identity()), images, sparsity=0.9, rounds=3)
    scores = criteria.synflow(Ending(end), images, sparsity=0.9, rounds=3)
    assert all(torch.equal(scores[name], logits[name]) for name in logits)


def test_synflow_refuses_outputs_that_shrink():
    """A softmax or a centring that is written out cannot be told from other arithmetic, but its
    slopes can.
    """
    shrinks = "they shrink where last.weight grows .*: let the model end in its logits"
    for end, message in (
        (lambda x: x - x.logsumexp(1, keepdim=True), shrinks),
        (lambda x: -x, shrinks),
        (lambda x: x.exp() / x.exp().sum(1), "every score is zero"),
    ):
        with pytest.raises(ValueError, match=message):
            criteria.synflow(Ending(end), torch.randn(3, 1, 8, 8), sparsity=0.9, rounds=2)


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}])
def test_synflow_goes_through_layers_that_read_their_norms(options):
    """An encoder layer asks its normalisation for its eps. They are left out all the same."""

    class Encoder(nn.Module):
        def __init__(self, **more):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options, **more)
            self.last = nn.Linear(8, 3)

        def forward(self, x):
            return self.last(self.layer(x).mean(1))

    model, x = Encoder(), torch.randn(6, 7, 8)
    scores = criteria.synflow(model, x, sparsity=0.5, rounds=3)
    assert set(scores) == set(snipkit.prunable(model)) and scores["layer.linear1.weight"].any()
    other = criteria.synflow(Encoder(layer_norm_eps=1.0), x, sparsity=0.5, rounds=3)
    assert all(torch.equal(scores[name], other[name]) for name in scores)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("criterion", ["iterative-snip", "force"])
def test_law_10_one_round_is_snip(small, criterion):
    model, (inputs, targets) = small
    for batches, mode in (
        ((inputs, targets), "eval"),
        (list(zip(inputs.split(5), targets.split(5))), "train"),
    ):
        scores = CRITERIA[criterion](model, batches, batch_norm=mode, sparsity=0.9, rounds=1)
        expected = saliency.snip(model, batches, batch_norm=mode)
        assert all(torch.equal(scores[name], expected[name]) for name in expected)


@pytest.mark.parametrize("criterion", ["iterative-snip", "force"])
def test_every_round_scores_the_network_that_the_round_before_left(criterion):
    """Three rounds to 99 %, spelled out: 21.5, 4.6 and 1 % are kept, one after the other."""
    # Images for which a path is left after each round: where there is none, all scores are 0, and
    # those of the round before count. In double precision, since two scores at the threshold may
    # change places by the last digit.
    generator = torch.Generator().manual_seed(0)
    model = deep(10).double()
    batch = torch.randn(50, 300, dtype=torch.float64, generator=generator), torch.arange(50) % 3
    dense = {name: weight.detach().clone() for name, weight in snipkit.prunable(model).items()}
    pruned, alive = copy.deepcopy(model), {name: weight == weight for name, weight in dense.items()}
    returned = 0
    for density in (0.01 ** (1 / 3), 0.01 ** (2 / 3), 0.01):
        weights = snipkit.prunable(pruned)
        gradients = torch.autograd.grad(
            cross_entropy(pruned(batch[0]), batch[1]), list(weights.values())
        )
        by_hand = {name: (dense[name] * g).abs() for name, g in zip(dense, gradients)}
        if criterion == "iterative-snip":
            by_hand = {name: score.masked_fill(~alive[name], -1) for name, score in by_hand.items()}
        assert any(score.max() > 0 for score in by_hand.values())
        masks = masking.keep_top(by_hand, 1 - density)
        returned += sum(int((mask & ~alive[name]).sum()) for name, mask in masks.items())
        alive, pruned = masks, copy.deepcopy(model)
        masking.apply_(pruned, alive)
    found = masking.keep_top(CRITERIA[criterion](model, batch, sparsity=0.99, rounds=3), 0.99)
    assert all(torch.equal(found[name], masks[name]) for name in masks)
    assert bool(returned) is (criterion == "force")


@pytest.mark.parametrize("criterion", NEW)
def test_counts_are_exact(small, criterion):
    model, batch = small
    total = sum(weight.numel() for weight in snipkit.prunable(model).values())
    for share in (0.3, 0.9, 0.975):
        pruned = copy.deepcopy(model)
        masks = snipkit.prune(pruned, batch, share, criterion)
        assert sum(int(mask.sum()) for mask in masks.values()) == snipkit.kept_count(total, share)
    by_count = snipkit.prune(copy.deepcopy(model), batch, keep=6, criterion=criterion)
    as_share = snipkit.prune(copy.deepcopy(model), batch, 1 - 6 / total, criterion)
    assert all(torch.equal(by_count[name], as_share[name]) for name in masks)
    by_layer = snipkit.prune(copy.deepcopy(model), batch, {"0": 0.5, "5.weight": 0.75}, criterion)
    assert [int(by_layer[name].sum()) for name in ("5.weight", "5.bias", "7.weight")] == [12, 4, 12]


@pytest.mark.parametrize("criterion", ["synflow", "iterative-snip"])
def test_what_is_pruned_stays_pruned_though_survivors_score_nothing(criterion):
    """The second unit is off, so that its weights score 0, as pruned ones would.

    Those must not come back.
    """
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    model[0].weight.data[:] = torch.tensor([[1.0], [-1.0]])
    scores = CRITERIA[criterion](
        model, (torch.rand(6, 4), torch.arange(6) % 2), sparsity=0.5, rounds=3
    )
    flat = torch.cat([score.flatten() for score in scores.values()])
    assert int((flat < 0).sum()) == 12 - snipkit.kept_count(12, 1 - 0.5 ** (2 / 3))


@pytest.mark.parametrize("criterion", NEW)
def test_batches_that_can_be_gone_through_once_are_enough(small, criterion):
    model, (inputs, targets) = small
    pairs = list(zip(inputs.split(4), targets.split(4)))
    options = {"sparsity": 0.8} if criterion in ITERATIVE else {}
    scores = CRITERIA[criterion](model, pairs, **options)
    assert equal(CRITERIA[criterion](model, iter(pairs), **options), scores)


def test_a_network_that_comes_apart_on_the_way_still_gives_a_mask():
    model, batch = deep(), (torch.randn(50, 300), torch.arange(50) % 3)
    for criterion in ITERATIVE:
        scores = CRITERIA[criterion](model, batch, sparsity=0.9998, rounds=3)
        assert sum(int(mask.sum()) for mask in masking.keep_top(scores, 0.9998).values()) == 3


def test_once_nothing_passes_the_round_before_decides():
    """A unit's connection in scores as its two out together, so the first round keeps only those:
    no path is left.

    Pruned connections out still have gradients then. They must not pass for a score, or ties would
    decide.
    """
    model = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Linear(4, 2, bias=False))
    model[0].weight.data[:] = 1
    model[1].weight.data[:] = torch.tensor([1.0, 1.1, 1.2, 0.1])
    batch = torch.ones(3, 1), torch.zeros(3)
    scores = CRITERIA["iterative-snip"](
        model, batch, lambda outputs, _: outputs.sum(), sparsity=11 / 12, rounds=2
    )
    masks = masking.keep_top(scores, 11 / 12)
    assert masks["0.weight"].flatten().tolist() == [0, 0, 1, 0] and not masks["1.weight"].any()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_what_a_criterion_costs(small, criterion):
    model, batch = small
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))  # copies have it, too
    snipkit.prune(model, batch, 0.5, criterion)
    assert len(calls) == PASSES[criterion]


@pytest.mark.parametrize("criterion", ITERATIVE)
def test_iterative_criteria_say_what_they_need(small, criterion):
    model, batch = small
    score = CRITERIA[criterion]
    for options, message in (
        ({}, "pass sparsity=, the share to remove in the end"),
        ({"sparsity": 1.0}, "sparsity is 1.0; it is the share"),
        ({"sparsity": {"0": 0.5, "5": -1}}, "sparsity is -1; it is the share"),
        ({"sparsity": "0.9"}, "sparsity is '0.9'; it is the share"),
        (
            {"sparsity": 0.5, "rounds": 0},
            "rounds is 0; an iterative criterion scores at least once",
        ),
        (
            {"sparsity": 0.5, "rounds": 2.5},
            "rounds is 2.5; an iterative criterion scores at least once",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            score(model, batch, **options)
    with warnings.catch_warnings():
        # What a round before the last leaves empty is nobody's concern.
        warnings.simplefilter("error")
        score(model, batch, sparsity=0.99)


# --- densities from the layers' shapes
# ------------------------------------------------------------------------------


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("name", ["erk", "smart-ratio"])
def test_prune_draws_the_random_masks_of_recorded_runs(name, biases):
    """Equal to ``densities.COUNTS``, by which runs were done, whatever the way to say how many."""
    model = models.build("lenet-5-caffe")
    total = sum(weight.numel() for weight in snipkit.prunable(model, biases=biases).values())
    for share in (0.5, 0.9, 0.97):
        expected = densities.random_masks(
            name, model, share, torch.Generator().manual_seed(3), biases=biases
        )
        for amount in ({"sparsity": share}, {"keep": snipkit.kept_count(total, share)}):
            generator = torch.Generator().manual_seed(3)
            pruned = copy.deepcopy(model)
            masks = snipkit.prune(
                pruned, None, **amount, criterion=name, biases=biases, generator=generator
            )
            assert list(masks) == list(expected)
            assert all(torch.equal(masks[parameter], expected[parameter]) for parameter in masks)
    with pytest.raises(
        ValueError, match=f"{name} derives the layers' densities from one share to remove"
    ):
        snipkit.prune(model, None, {"fc1": 0.5}, name)


@pytest.mark.parametrize("name", ["uniform", "erk", "smart_ratio"])
def test_any_scores_can_be_ranked_within_the_layers(name):
    model = models.build("lenet-5-caffe")
    batch = torch.randn(10, 1, 28, 28), torch.arange(10)
    total = sum(weight.numel() for weight in snipkit.prunable(model).values())
    shares = getattr(densities, name)(model, 0.95)
    masks = snipkit.prune(model, batch, shares)
    assert list(shares) == ["conv1", "conv2", "fc1", "fc2"]
    assert sum(int(mask.sum()) for mask in masks.values()) == snipkit.kept_count(total, 0.95)
    if name != "uniform":
        layerwise = densities.random_masks(
            name.replace("_", "-"), model, 0.95, torch.Generator().manual_seed(0)
        )
        for layer in shares:
            count = sum(int(masks[f"{layer}.{part}"].sum()) for part in ("weight", "bias"))
            assert count == sum(
                int(layerwise[f"{layer}.{part}"].sum()) for part in ("weight", "bias")
            )


@pytest.mark.filterwarnings("ignore::snipkit.masking.EmptyLayerWarning")
def test_densities_of_layers_that_hold_others_and_of_layers_left_empty():
    attention = nn.MultiheadAttention(8, 2)  # holds its output layer
    shares = densities.erk(attention, 0.7)
    assert list(shares) == ["in_proj_weight", "in_proj_bias", "out_proj"]
    masks = masking.keep_top(saliency.random(attention), shares)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == snipkit.kept_count(total, 0.7)
    assert densities.erk(attention, 0.7, where=lambda name, _: "out" in name).keys() == {"out_proj"}
    wide = nn.Sequential(nn.Linear(400, 400, bias=False), nn.Linear(400, 1, bias=False))
    shares = densities.uniform(wide, 0.9999)
    assert [int(m.sum()) for m in masking.keep_top(saliency.magnitude(wide), shares).values()] == [
        16,
        0,
    ]
