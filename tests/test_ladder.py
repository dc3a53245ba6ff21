"""Law 8.

Every rung of the ladder keeps exactly what it promises, and nothing else; relabelling changes only
names.
"""

import random
import sys

import igraph
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snipkit
from snipkit import masking, models, saliency
from snipkit.beyond import densities, shuffles
from snipkit.beyond.shuffles import TRIALS, _rewired

SHAPES = [(1,), (7,), (1, 1), (1, 6), (2, 2), (5, 8), (9, 3), (4, 3, 2, 2), (6, 1, 3, 3), (3, 4, 5)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some(shape, density, seed=0):
    """A mask with hubs: rows and columns differ in their density."""
    matrix = torch.rand(shape, generator=seeded(seed))
    return matrix < 2 * density * torch.linspace(0, 1, shape[-1])


def counts(mask):
    """What the rungs keep, computed by sums of the tensor as it is.

    Of all, of columns, of channels, of rows.
    """
    return {
        "layers": mask.sum(),
        "inputs": mask.sum(0),
        "channels": mask.sum([0, *range(2, mask.dim())]),
        "outputs": mask.sum([*range(1, mask.dim())]) if mask.dim() > 1 else mask,
    }


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.floats(0, 1),
    st.sampled_from(["layers", "inputs", "outputs", "units"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_law_8_every_rung_keeps_exactly_its_counts(shape, density, keep, positions, seed):
    mask = some(shape, density, seed)
    (shuffled,) = shuffles.shuffle({"w": mask}, seeded(seed), keep, positions=positions).values()
    assert shuffled.shape == mask.shape and shuffled.dtype == torch.bool
    promised = {
        "layers": [],
        "inputs": ["inputs"],
        "outputs": ["outputs"],
        "units": ["inputs", "outputs"],
    }[keep]
    promised = [
        name if positions or name == "outputs" or mask.dim() == 1 else "channels"
        for name in promised
    ]
    before, after = counts(mask), counts(shuffled)
    for name in ("layers", *promised):
        assert torch.equal(before[name], after[name]), name


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("keep", ["layers", "inputs", "outputs", "units"])
def test_a_rung_loses_what_it_does_not_promise(keep, positions):
    mask = some((30, 20, 3, 3), 0.2)
    (shuffled,) = shuffles.shuffle({"w": mask}, seeded(), keep, positions=positions).values()
    kept = {
        name for name, count in counts(mask).items() if torch.equal(count, counts(shuffled)[name])
    }
    inputs = {"inputs", "channels"} if positions else {"channels"}
    expected = {
        "layers": set(),
        "inputs": inputs,
        "outputs": {"outputs"},
        "units": inputs | {"outputs"},
    }[keep]
    assert kept == expected | {"layers"} and (shuffled & mask).sum() < 0.6 * mask.sum()


@pytest.mark.parametrize("keep", ["layers", "inputs", "outputs", "units"])
@pytest.mark.parametrize("positions", [True, False])
def test_all_choices_with_these_counts_are_equally_likely(keep, positions):
    """Eight connections at most: every mask that a rung allows comes up, about equally often."""
    shape = (2, 2, 2) if not positions else (3, 3)
    mask = torch.zeros(shape, dtype=torch.bool)
    mask.view(-1)[[0, 1, 5]] = True
    size, draws = mask.numel(), 400
    allowed = set()
    for code in range(2**size):
        other = torch.tensor([code >> bit & 1 for bit in range(size)], dtype=torch.bool).view(shape)
        names = {
            "layers": ["layers"],
            "inputs": ["inputs" if positions else "channels"],
            "outputs": ["outputs"],
        }
        names["units"] = names["inputs"] + names["outputs"]
        if all(torch.equal(counts(mask)[name], counts(other)[name]) for name in names[keep]):
            allowed.add(tuple(other.flatten().tolist()))
    generator, seen = seeded(), {}
    for _ in range(draws):
        key = tuple(
            shuffles.shuffle({"w": mask}, generator, keep, positions=positions)["w"]
            .flatten()
            .tolist()
        )
        seen[key] = seen.get(key, 0) + 1
    assert seen.keys() == allowed and len(allowed) > 1
    chi_squared = sum((n - draws / len(allowed)) ** 2 for n in seen.values()) * len(allowed) / draws
    assert chi_squared < len(allowed) + 5 * (2 * len(allowed)) ** 0.5


def test_a_bias_is_a_column():
    bias = torch.tensor([True, False, False, True, False, False, False])
    for keep, moves in {"layers": True, "inputs": True, "outputs": False, "units": False}.items():
        found = [shuffles.shuffle({"bias": bias}, seeded(seed), keep)["bias"] for seed in range(4)]
        assert any(not torch.equal(one, bias) for one in found) == moves


def test_layers_are_shuffled_as_ever():
    """Written down: committed records were made with these numbers."""
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[0] = True
    shuffled = shuffles.shuffle({"w": mask, "v": mask[:2]}, seeded())
    assert shuffled["w"].int().tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0]]
    assert shuffled["v"].int().tolist() == [[1, 1, 0, 0], [0, 1, 1, 0]]


@pytest.mark.parametrize("density", [0.02, 0.4, 0.95])
def test_the_rewiring_has_mixed(density, monkeypatch):
    """The overlap with the original (with its gaps, where it is dense) stays the same after ten
    times as many swaps.
    """
    dense = density > 0.5
    sparse = some((100, 80), 1 - density if dense else density)

    def overlap(trials):
        monkeypatch.setattr("snipkit.beyond.shuffles.TRIALS", trials)
        shuffled = [_rewired(sparse ^ dense, seeded(seed)) ^ dense for seed in range(3)]
        return sum(float((one & sparse).sum() / sparse.sum()) for one in shuffled) / 3

    few, enough, many = overlap(0.3), overlap(TRIALS), overlap(10 * TRIALS)
    assert few > many + 0.2 and abs(enough - many) < 0.03 and many < 0.7


def test_rewiring_follows_its_generator_and_leaves_the_global_ones_alone():
    masks = {"w": some((20, 30), 0.3)}
    random.seed(5)
    torch.manual_seed(5)
    python, torchs = random.getstate(), torch.get_rng_state()
    first = shuffles.shuffle(masks, seeded(1), "units")["w"]
    assert random.getstate() == python and torch.equal(torch.get_rng_state(), torchs)
    igraph.Graph.Erdos_Renyi(20, 0.5)
    # igraph draws from Python's generator again, as it does by default.
    assert random.getstate() != python
    assert torch.equal(first, shuffles.shuffle(masks, seeded(1), "units")["w"])
    assert not torch.equal(first, shuffles.shuffle(masks, seeded(2), "units")["w"])


def test_an_unknown_rung_is_refused_and_igraph_is_needed_for_units_only(monkeypatch):
    monkeypatch.setitem(sys.modules, "igraph", None)
    masks = {"w": some((4, 5), 0.5)}
    for keep in ("layers", "inputs", "outputs"):
        shuffles.shuffle(masks, seeded(), keep)
    with pytest.raises(ImportError):
        shuffles.shuffle(masks, seeded(), "units")
    with pytest.raises(
        ValueError, match="unknown keep 'rows'; known: layers, inputs, outputs, units"
    ):
        shuffles.shuffle(masks, seeded(), "rows")


def plain():
    """Convolutions with batch norm, two after one another, and linear layers.

    4 channels of 3 x 3 are flattened.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Conv2d(3, 4, 3, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 6),
            nn.ReLU(),
            nn.Linear(6, 5),
            nn.ReLU(),
            nn.Linear(5, 3),
        )


CHAINS = {
    "lenet-300-100": (lambda: models.build("lenet-300-100"), (1, 28, 28)),
    "lenet-5-caffe": (lambda: models.build("lenet-5-caffe"), (1, 28, 28)),
    "plain": (plain, (1, 7, 7)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_law_8_relabelling_mask_and_weights_leaves_the_function_unchanged(name):
    build, shape = CHAINS[name]
    model, images = build().eval(), torch.randn(20, *shape, generator=seeded())
    generator = seeded()
    masks = {
        n: torch.rand(p.shape, generator=generator) < 0.4
        for n, p in snipkit.prunable(model).items()
    }
    for bias in filter(snipkit.is_bias, masks):
        nn.init.normal_(model.get_parameter(bias), generator=generator)
    relabelled = shuffles.relabel(model, masks, images, seeded(3))
    weights = {n: p.detach() for n, p in model.named_parameters()}
    moved = shuffles.relabel(model, weights, images, seeded(3))
    assert relabelled.keys() == masks.keys()
    assert not any(
        torch.equal(masks[name], relabelled[name]) for name in masks if not snipkit.is_bias(name)
    )

    def function(weights, masks):
        masked = {n: weight * masks[n] if n in masks else weight for n, weight in weights.items()}
        return torch.func.functional_call(model, masked, images)

    before = function(weights, masks)
    assert before.std() > 0.01
    torch.testing.assert_close(function(moved, relabelled), before, rtol=1e-4, atol=1e-5)
    assert (
        function(weights, relabelled) - before
    ).abs().max() > 0.01  # the masks alone make another network
    first, *_, last = (n for n in masks if not snipkit.is_bias(n))
    assert torch.equal(masks[first].sum(0), relabelled[first].sum(0))  # inputs keep their places
    assert torch.equal(masks[last].sum(1), relabelled[last].sum(1))  # and outputs


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.second(x).relu())


@pytest.mark.parametrize(
    "model, shape, message",
    [
        (Residual(), (4,), "first, second, last are no plain chain"),
        (models.build("resnet-20"), (3, 32, 32), "conv2 has 32, blocks.3.shortcut.0 takes 16"),
        (models.build("gru-s"), (1, 28, 28), "cannot be relabelled"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.Bilinear(4, 4, 2)),
            (3,),
            "1 is neither Linear nor Conv2d",
        ),
        (
            nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(2, 6), nn.ReLU(), nn.Linear(6, 2)),
            (4,),
            "no plain chain",
        ),
    ],
)
def test_layers_that_are_no_chain_are_refused(model, shape, message):
    with pytest.raises(ValueError, match=message):
        shuffles.relabel(model, {}, torch.zeros(1, *shape), seeded(1))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["erk", "smart-ratio"]),
    st.lists(st.integers(1, 30), min_size=2, max_size=5),
    st.floats(0, 0.9),
    st.booleans(),
)
def test_random_masks_keep_exactly_the_count(name, widths, sparsity, biases):
    layers = [nn.Linear(*sizes) for sizes in zip(widths, widths[1:])]
    total = sum(p.numel() for layer in layers for p in layer.parameters() if biases or p.dim() > 1)
    kept, last = round(total * (1 - sparsity)), layers[-1].weight.numel() + biases * widths[-1]
    if name == "smart-ratio" and round(0.3 * last) > kept:
        with pytest.raises(ValueError, match="prune less"):
            densities.random_masks(
                "smart-ratio", nn.Sequential(*layers), sparsity, seeded(), biases=biases
            )
        return
    masks = densities.random_masks(name, nn.Sequential(*layers), sparsity, seeded(), biases=biases)
    assert sum(int(mask.sum()) for mask in masks.values()) == kept
    assert len(masks) == len(layers) * (1 + biases)


def densities_of(masks):
    return [float(mask.float().mean()) for mask in masks.values()]


def test_erk_densities_by_hand():
    """ε times the sum of the shape (40, 25 and 7) is kept.

    Where that is more than a layer has, the layer is whole.
    """
    model = nn.Sequential(nn.Conv2d(4, 30, 3), nn.Flatten(), nn.Linear(20, 5), nn.Linear(5, 2))
    # ε = 70 / 72: 38.9, 24.3 and 6.8.
    masks = densities.random_masks("erk", model, 1 - 70 / 1190, seeded(), biases=False)
    assert [int(mask.sum()) for mask in masks.values()] == [39, 24, 7]
    # ε = 140 / 72 would be 13.6 of the last 10.
    masks = densities.random_masks("erk", model, 1 - 140 / 1190, seeded(), biases=False)
    assert [int(mask.sum()) for mask in masks.values()] == [80, 50, 10]


def test_smart_ratio_densities_by_hand():
    """Four layers of 100: 20, 12, 6 parts, and 0.3 of the last."""
    model = nn.Sequential(*(nn.Linear(10, 10, bias=False) for _ in range(4)))
    assert densities_of(
        densities.random_masks("smart-ratio", model, 1 - 68 / 400, seeded())
    ) == pytest.approx([0.20, 0.12, 0.06, 0.3])
    # 210 for the first three: 20 parts of 38 would be 111 of the first 100, so 110 are shared 12 to
    # 6.
    assert densities_of(
        densities.random_masks("smart-ratio", model, 1 - 240 / 400, seeded())
    ) == pytest.approx([1, 0.73, 0.37, 0.3])
    assert densities_of(
        densities.random_masks("smart-ratio", model, 0.05, seeded())
    ) == pytest.approx([1, 1, 1, 0.8])
    with pytest.raises(
        ValueError, match="keeps 30 parameters of the last layer, but all are 20: prune less"
    ):
        densities.random_masks("smart-ratio", model, 0.95, seeded())


@pytest.mark.parametrize("name", ["erk", "smart-ratio"])
def test_random_masks_follow_the_generator(name):
    model = models.build("lenet-300-100")
    first, again, other = (
        densities.random_masks(name, model, 0.9, seeded(seed)) for seed in (0, 0, 1)
    )
    assert all(
        torch.equal(first[n], again[n]) and first[n].shape == p.shape
        for n, p in model.named_parameters()
    )
    same = masking.overlap(first, other)
    assert same[0] == pytest.approx(same[1], abs=0.02)
    with pytest.raises(ValueError, match="share of parameters removed"):
        densities.random_masks(name, model, 1.0, seeded())
    with pytest.raises(ValueError, match="no prunable parameter"):
        densities.random_masks(name, nn.ReLU(), 0.5, seeded())


@pytest.mark.parametrize("kind", ["uniform", "erk"])
@pytest.mark.parametrize(
    "name, sparsity", [("lenet-300-100", 0.98), ("mlp-1d", 0.8), ("resnet-20", 0.98)]
)
def test_scores_can_be_ranked_within_layers_of_given_counts(kind, name, sparsity):
    model = models.build(name)
    masks = masking.keep_top(saliency.random(model), densities.DENSITIES[kind](model, sparsity))
    reference = densities.random_masks("erk", model, sparsity, seeded())
    totals, kept = {}, {}
    for key, mask in masks.items():
        layer = key.rpartition(".")[0]
        totals[layer] = totals.get(layer, 0) + mask.numel()
        kept[layer] = kept.get(layer, 0) + int(mask.sum())
    assert sum(kept.values()) == snipkit.kept_count(sum(totals.values()), sparsity)
    for layer, count in kept.items():
        as_erk = sum(
            int(mask.sum()) for key, mask in reference.items() if key.rpartition(".")[0] == layer
        )
        expected = as_erk if kind == "erk" else (1 - sparsity) * totals[layer]
        assert abs(count - expected) < (1 if kind == "uniform" else 0.5), layer
