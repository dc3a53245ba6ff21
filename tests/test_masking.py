"""Law 5, the tie rule, the pool, the ablations, masks on a model and in files."""

import copy
import importlib.util
import pickle
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

import snipkit
from snipkit import interop, masking, models, saliency
from snipkit.beyond import shuffles

warnings.simplefilter("ignore", masking.EmptyLayerWarning)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=4),
    st.floats(0, 1, exclude_max=True),
)
def test_law_5_exactly_kappa_are_kept_and_ties_go_to_the_lower_index(values, sparsity):
    """Against the definition: a stable sort of all scores, highest first."""
    scores = {f"layer{i}": torch.tensor(v, dtype=torch.float32) for i, v in enumerate(values)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masks = masking.keep_top(scores, sparsity)
    flat, kept = np.concatenate(values), torch.cat(list(masks.values())).numpy()
    kappa = round(len(flat) * (1 - sparsity))
    assert kept.sum() == kappa
    assert set(np.flatnonzero(kept)) == set(np.argsort(-flat, kind="stable")[:kappa])


def test_counts_are_exact_on_a_network_with_a_fifth_of_its_scores_tied(batch):
    """LeNet-5 with ReLU units, a fifth of the scores set to exactly 0 (dead units do that).

    Every κ is met.
    """
    scores = saliency.snip(models.build("lenet-5-caffe", conv_relu=True), batch)
    total = sum(s.numel() for s in scores.values())
    flat = torch.cat([s.flatten() for s in scores.values()])
    flat[torch.randperm(total, generator=torch.Generator().manual_seed(0))[: total // 5]] = 0
    tied = dict(
        zip(
            scores,
            (
                part.view_as(s)
                for part, s in zip(
                    flat.split([s.numel() for s in scores.values()]), scores.values()
                )
            ),
        )
    )
    assert (flat == 0).float().mean() >= 0.2
    # At 0.05 to 0.15 the cut falls among the ties.
    for sparsity in (0, 0.05, 0.1, 0.15, 0.5, 0.9, 0.98, 0.999):
        assert sum(int(m.sum()) for m in masking.keep_top(tied, sparsity).values()) == round(
            total * (1 - sparsity)
        )


def test_the_highest_scores_are_kept(batch):
    scores = saliency.snip(models.build("lenet-300-100"), batch)
    masks = masking.keep_top(scores, 0.9)
    kept = torch.cat([scores[n][m] for n, m in masks.items()])
    pruned = torch.cat([scores[n][~m] for n, m in masks.items()])
    assert kept.min() >= pruned.max() > 0
    lowest = masking.keep_lowest(scores, 0.9)
    assert max(scores[n][m].max() for n, m in lowest.items() if m.any()) <= min(
        scores[n][~m].min() for n, m in lowest.items() if not m.all()
    )


@pytest.mark.parametrize("sparsity", [1, 1.5, -0.1, float("nan"), 95])
def test_a_sparsity_outside_0_1_is_refused(sparsity):
    with pytest.raises(ValueError, match="share of parameters removed"):
        masking.keep_top({"w": torch.ones(3)}, sparsity)


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        masking.keep_top({"w": torch.tensor([1.0, float("nan")])}, 0.5)


def test_an_empty_layer_is_a_warning_that_names_it():
    with pytest.warns(masking.EmptyLayerWarning, match="no weight is left in second.weight:"):
        masking.keep_top(
            {
                "first.weight": torch.ones(2, 2),
                "first.bias": torch.zeros(2),
                "second.weight": torch.zeros(2, 2),
            },
            0.6,
        )


@pytest.mark.filterwarnings("ignore::snipkit.masking.EmptyLayerWarning")
def test_a_count_in_place_of_a_sparsity():
    scores = {
        "a.weight": torch.tensor([[4.0, 1.0], [3.0, 3.0]]),
        "b.weight": torch.tensor([[2.0], [3.0]]),
    }
    assert {n: m.int().tolist() for n, m in masking.keep_top(scores, keep=3).items()} == {
        "a.weight": [[1, 0], [1, 1]],
        "b.weight": [[0], [0]],
    }
    assert sum(int(m.sum()) for m in masking.keep_lowest(scores, keep=2).values()) == 2
    assert all(m.all() for m in masking.keep_top(scores, keep=6).values())
    for keep in (0, 7, -1, 2.5):
        with pytest.raises(ValueError, match="the number of parameters kept, from 1 to 6"):
            masking.keep_top(scores, keep=keep)
    for both in ({}, {"sparsity": 0.5, "keep": 3}):
        with pytest.raises(ValueError, match="one of them"):
            masking.keep_top(scores, **both)
    for sparsity in ("0.9", [0.9], {"a": "0.9"}):
        with pytest.raises(ValueError, match="share of parameters removed"):
            masking.keep_top(scores, sparsity)
    with pytest.raises(ValueError, match="name at least one layer"):
        masking.keep_top(scores, {})


def test_a_sparsity_for_each_layer():
    """Each is ranked on its own, a module's parameters together.

    What is not named is kept whole.
    """
    generator = torch.Generator().manual_seed(0)
    scores = {
        name: torch.rand(4, 5, generator=generator)
        for name in ("a.0.weight", "a.0.bias", "a.1.weight", "ab.weight", "c.weight")
    }
    scores["a.0.bias"] /= 9
    scores["ab.weight"] += 9  # so that a ranking of the whole network would keep other entries
    masks = masking.keep_top(scores, {"a.0": 0.5, "a.1.weight": 0.9, "ab": 0.25})
    assert {name: int(mask.sum()) for name, mask in masks.items() if name[:3] != "a.0"} == {
        "a.1.weight": 2,
        "ab.weight": 15,
        "c.weight": 20,
    }
    together = {name: scores[name] for name in ("a.0.weight", "a.0.bias")}
    assert all(
        torch.equal(masks[name], mask) for name, mask in masking.keep_top(together, 0.5).items()
    )
    assert list(masks) == list(scores)
    for wrong in ({"d": 0.5}, {"a": 0.5, "a.0": 0.5}, {"a.0": 0.5, "a": 0.5}, {"a.0.weigh": 0.5}):
        with pytest.raises(
            ValueError, match="is none of the scored layers, or overlaps another one"
        ):
            masking.keep_top(scores, wrong)
    with pytest.raises(ValueError, match="share of parameters removed"):
        masking.keep_top(scores, {"a.0": 1.0})


def test_scores_in_double_precision_are_ranked_as_such():
    scores = {"w": torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)}
    assert masking.keep_top(scores, keep=1)["w"].tolist() == [False, True]


def test_scores_in_half_precision_are_ranked():
    assert masking.keep_top({"w": torch.tensor([1.0, 3.0, 2.0], dtype=torch.bfloat16)}, keep=1)[
        "w"
    ].tolist() == [
        False,
        True,
        False,
    ]


# --- the pool -------------------------------------------------------------------------------------
# ------------------


class Own(nn.Module):
    """What users write: a matrix, a gain, a token, and a bias."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(3, 3)), nn.Parameter(torch.zeros(3))
        self.weight_gain, self.layer_scale = (
            nn.Parameter(torch.ones(1, 3, 1)),
            nn.Parameter(torch.ones(3, 1, 1)),
        )
        self.cls_token, self.bias_table = (
            nn.Parameter(torch.randn(1, 3)),
            nn.Parameter(torch.randn(3, 3)),
        )

    def forward(self, x):
        return (x + self.cls_token) @ self.weight + self.bias


class OwnNorm2d(Own):
    pass


def test_prunable_is_decided_by_the_type_of_the_layer():
    layers = {
        "conv": nn.Conv2d(1, 2, 3),
        "norm": nn.BatchNorm2d(2),
        "group": nn.GroupNorm(1, 2),
        "prelu": nn.PReLU(3),
        "own_norm": OwnNorm2d(),
        "layer_norm": nn.LayerNorm((2, 2)),
        "up": nn.ConvTranspose1d(1, 1, 1),
        "linear": nn.Linear(1, 1),
        "both": nn.Bilinear(1, 2, 1, bias=False),
        "lstm": nn.LSTM(2, 3, proj_size=1),
        "cell": nn.GRUCell(1, 1),
        "table": nn.Embedding(4, 2),
        "bag": nn.EmbeddingBag(4, 2),
        "attention": nn.MultiheadAttention(4, 2, add_bias_kv=True),
        "apart": nn.MultiheadAttention(4, 2, kdim=3, vdim=2),
        "own": Own(),
    }
    weights = [
        "conv.weight",
        "up.weight",
        "linear.weight",
        "both.weight",
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "lstm.weight_hr_l0",
        "cell.weight_ih",
        "cell.weight_hh",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "apart.q_proj_weight",
        "apart.k_proj_weight",
        "apart.v_proj_weight",
        "apart.out_proj.weight",
        "own.weight",
    ]
    biases = [
        "conv.bias",
        "up.bias",
        "linear.bias",
        "lstm.bias_ih_l0",
        "lstm.bias_hh_l0",
        "cell.bias_ih",
        "cell.bias_hh",
        "attention.in_proj_bias",
        "attention.out_proj.bias",
        "apart.in_proj_bias",
        "apart.out_proj.bias",
        "own.bias",
    ]
    model = nn.ModuleDict(layers)
    assert list(snipkit.prunable(model)) == [
        name for name, _ in model.named_parameters() if name in weights + biases
    ]
    assert set(snipkit.prunable(model)) == set(weights + biases)
    assert set(snipkit.prunable(model, biases=False)) == set(weights)
    assert snipkit.prunable(model)["conv.weight"] is model["conv"].weight


def test_frozen_parameters_and_what_the_caller_excludes_stay():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    model[1].weight.requires_grad_(False)  # its bias alone is not pruned
    assert list(snipkit.prunable(model)) == ["2.weight", "2.bias"]
    assert list(
        snipkit.prunable(
            model.requires_grad_(True), where=lambda name, module: module is not model[1]
        )
    ) == [
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    ]
    assert list(snipkit.prunable(model, where=lambda name, _: name != "0.weight")) == [
        "1.weight",
        "1.bias",
        "2.weight",
        "2.bias",
    ]
    before = copy.deepcopy(model[0].requires_grad_(False).state_dict())
    snipkit.prune(model, (torch.randn(4, 2), torch.arange(4) % 2), 0.5)
    assert all(
        torch.equal(before[name], content) for name, content in model[0].state_dict().items()
    )


class Tied(nn.Module):
    """A language model in small: the table of words is the weight of the head."""

    def __init__(self):
        super().__init__()
        self.words, self.inner, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7)
        self.head.weight = self.words.weight

    def forward(self, x):
        return self.head(torch.tanh(self.inner(self.words(x))))


def test_a_shared_parameter_is_a_weight_if_it_is_one_anywhere():
    model = Tied()
    assert list(snipkit.prunable(model)) == [
        "words.weight",
        "inner.weight",
        "inner.bias",
        "head.bias",
    ]
    for refused in ("words.weight", "head.weight"):  # by either name
        assert list(snipkit.prunable(model, where=lambda name, _: name != refused)) == [
            "inner.weight",
            "inner.bias",
        ]
    assert list(snipkit.prunable(model, where=lambda _, module: isinstance(module, nn.Linear))) == [
        "inner.weight",
        "inner.bias",
    ]


def test_the_table_of_what_is_prunable():
    model = nn.ModuleDict(
        {
            "tied": Tied(),
            "norm": nn.LayerNorm(2),
            "own": Own(),
            "frozen": nn.Linear(2, 1),
            "table": nn.Embedding(2, 2),
        }
    )
    model["frozen"].weight.requires_grad_(False)
    table = snipkit.prunable_table(
        model, biases=True, where=lambda name, _: not name.startswith("tied.inner")
    )
    assert table.index.tolist() == [name for name, _ in model.named_parameters()]
    assert table.index[table.pruned].tolist() == list(
        snipkit.prunable(model, where=lambda name, _: not name.startswith("tied.inner"))
    )
    assert table.loc["tied.words.weight"].tolist() == [
        True,
        "weight",
        "Embedding",
        (7, 4),
        "tied.head.weight",
    ]
    roles = {
        "tied.inner.weight": "left out by where",
        "norm.weight": "normalisation",
        "own.cls_token": "not a weight",
        "own.bias": "bias",
        "frozen.weight": "frozen",
        "frozen.bias": "bias of no pruned weight",
        "table.weight": "lookup table",
    }
    assert table.role[list(roles)].to_dict() == roles
    assert (
        snipkit.prunable_table(model, biases=False).role["own.bias"] == "left out by biases=False"
    )
    assert snipkit.prunable_table(nn.LazyLinear(2)).role.tolist() == ["lazy", "lazy"]


def test_the_short_table_has_a_row_for_each_class_of_layers():
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, bias=False),
        nn.Flatten(),
        nn.Linear(4, 2),
    ]
    table = snipkit.prunable_table(nn.Sequential(*layers, nn.LazyLinear(2)), by="layer")
    assert table.values.tolist() == [
        ["Conv2d", "weight", True, 2, 252, "0.weight"],
        ["Linear", "weight", True, 1, 8, "4.weight"],
        ["Conv2d", "bias", True, 1, 4, "0.bias"],
        ["Linear", "bias", True, 1, 2, "4.bias"],
        ["BatchNorm2d", "normalisation", False, 2, 8, "1.weight"],
        ["LazyLinear", "lazy", False, 2, 0, "5.weight"],
    ]
    assert (
        snipkit.prunable_table(nn.Flatten(), by="layer").empty
        and snipkit.prunable_table(nn.Flatten()).empty
    )
    with pytest.raises(
        ValueError, match='by is "role"; it is "parameter" or "layer"'.replace('"role"', "'role'")
    ):
        snipkit.prunable_table(nn.Linear(1, 1), by="role")


def test_the_table_by_its_old_name_says_the_new_one():
    model = nn.Linear(2, 1)
    with pytest.deprecated_call(match="masking.pool has moved: write snipkit.prunable_table"):
        old = getattr(masking, "pool")  # noqa: B009 (a tool that moves names would follow it)
    table = old(model, biases=False)
    assert table.equals(snipkit.prunable_table(model, biases=False))


def test_only_tables_need_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    masks = {"weight": torch.ones(2, 2, dtype=torch.bool)}
    for table in (
        lambda: snipkit.prunable_table(nn.Linear(2, 2)),
        lambda: masking.layer_table(masks),
    ):
        with pytest.raises(
            ModuleNotFoundError, match="needs the package pandas: pip install pandas"
        ):
            table()


class Standardised(nn.Conv2d):
    """Multiplies by its weight less the mean of each unit's, over their deviation."""

    def forward(self, x):
        deviation, mean = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / deviation, self.bias)


class KeepingItsWeight(Standardised):
    """It keeps a tensor with a history, which torch does not copy."""

    def forward(self, x):
        self.deviation = self.weight.std((1, 2, 3))
        return super().forward(x)


class StandardisedMatrix(Own):
    def forward(self, x):
        return x @ (self.weight - self.weight.mean()) + self.bias


class Scaled(nn.Linear):
    """Other numbers, and still 0 where the weight is."""

    def forward(self, x):
        return nn.functional.linear(
            x, (2 * self.weight / self.weight.norm()).double().float(), self.bias
        )


class TwoInputs(nn.Linear):
    def forward(self, x, y):
        return super().forward(x + y)


def test_weights_that_their_layer_recomputes_are_refused_by_name():
    """A 0 in them is no pruned connection."""
    model = nn.Sequential(
        Standardised(3, 4, 3, dilation=2),
        Scaled(6, 5),
        TwoInputs(4, 3),
        Own(),
        StandardisedMatrix(),
    )
    draws = torch.get_rng_state()
    with pytest.raises(
        ValueError, match="cannot prune: 0.weight, 4.weight is not what its layer multiplies by"
    ):
        snipkit.prunable(model)
    assert torch.equal(draws, torch.get_rng_state())
    table = snipkit.prunable_table(model)
    assert (
        table.role[["0.weight", "1.weight", "2.weight", "3.weight"]].tolist()
        == ["recomputed"] + ["weight"] * 3
    )
    kept = snipkit.prunable(
        model, where=lambda _, module: not isinstance(module, (Standardised, StandardisedMatrix))
    )
    assert [name for name in kept if "weight" in name] == ["1.weight", "2.weight", "3.weight"]
    masks = {
        f"{place}.weight": torch.zeros_like(model[place].weight, dtype=torch.bool)
        for place in range(5)
    }
    for use in (masking.attach, interop.to_torch_prune):
        with pytest.raises(
            ValueError, match="0.weight, 4.weight: the layer computes another weight from it"
        ):
            use(model, masks)
    assert model[1].weight.all()


def test_a_layer_that_keeps_a_tensor_is_looked_at_all_the_same():
    layer = KeepingItsWeight(3, 4, 3)
    layer(torch.randn(1, 3, 5, 5))
    with pytest.raises(ValueError, match="cannot prune: weight is not what its layer"):
        snipkit.prunable(layer)


def test_parameters_that_share_memory_without_being_one_are_refused_by_name():
    model = nn.Sequential(
        nn.Linear(4, 4), nn.Linear(4, 4), nn.Embedding(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    )
    model[1].weight.data = model[0].weight.data
    model[2].weight.data = model[3].weight.data.T
    with pytest.raises(
        ValueError, match="cannot prune: 0.weight, 1.weight, 3.weight shares memory with another"
    ):
        snipkit.prunable(model)


def test_parameters_side_by_side_in_one_memory_are_pruned():
    """So cuDNN wants the weights of an LSTM, and some optimisers all of them.

    Without memory they share none.
    """
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False))
    memory = torch.randn(4, 6)
    model[0].weight.data, model[1].weight.data = (
        memory.view(-1)[:12].view(4, 3),
        memory.view(-1)[12:].view(4, 3),
    )
    assert len(snipkit.prunable(model)) == 2
    model[0].weight.data, model[1].weight.data = memory[:, ::2], memory[:, 1::2]
    assert len(snipkit.prunable(model)) == 2
    model[1].weight.data = memory[:, 2:5]
    with pytest.raises(ValueError, match="shares memory"):
        snipkit.prunable(model)
    assert len(snipkit.prunable(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).to("meta"))) == 4


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Complex modules:UserWarning")
@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda m: parametrizations.weight_norm(m[0]),
            "0.parametrizations.weight.original0, 0.parametrizations.weight.original1 is part of a "
            "weight",
        ),
        (
            lambda m: parametrizations.spectral_norm(m[0]),
            "0.parametrizations.weight.original is part of a weight",
        ),
        (lambda m: nn.utils.weight_norm(m[0]), "0.weight_g, 0.weight_v is part of a weight"),
        (lambda m: nn.utils.spectral_norm(m[0]), "0.weight_orig is part of a weight"),
        (
            lambda m: torch_prune.l1_unstructured(m[0], "weight", 1),
            "0.weight_orig is part of a weight",
        ),
        (lambda m: m[0].to(torch.complex64), "0.weight is complex: leave it out"),
        (lambda m: m.append(nn.LazyLinear(2)), "1.weight, 1.bias has no shape yet: pass one batch"),
    ],
)
def test_weights_that_cannot_be_masked_are_refused_by_name(change, message):
    model = nn.Sequential(nn.Linear(3, 2))
    change(model)
    with pytest.raises(ValueError, match=message):
        snipkit.prunable(model)
    prefix = message[:2]
    assert not [
        name
        for name in snipkit.prunable(model, where=lambda name, _: not name.startswith(prefix))
        if name.startswith(prefix)
    ]
    if message[0] == "0":
        assert not snipkit.prunable(model.requires_grad_(False))  # what is frozen is no obstacle


def test_prune_is_score_select_apply(batch):
    model = models.build("lenet-300-100")
    expected = masking.keep_top(saliency.snip(model, batch), 0.95)
    before = {n: p.clone() for n, p in model.named_parameters()}
    masks = snipkit.prune(model, batch, 0.95)
    for name, parameter in model.named_parameters():
        assert torch.equal(masks[name], expected[name])
        assert torch.equal(parameter, before[name] * masks[name])
    assert sum(int(m.sum()) for m in masks.values()) == 13_331  # of 266,610


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"keep": 0, "criterion": "force"},
            "keep is 0; it is the number of parameters kept, from 1 to 266610",
        ),
        ({"keep": 10**6, "criterion": "synflow"}, "keep is 1000000; "),
        (
            {"sparsity": 0.5, "criterion": lambda model, batches: None},
            "the criterion returned None; it must return",
        ),
        ({"sparsity": 0.5, "criterion": lambda model, batches: {}}, "the criterion returned {}"),
    ],
)
def test_prune_refuses_before_it_changes_anything(batch, options, message):
    model = models.build("lenet-300-100")
    before = {n: p.clone() for n, p in model.named_parameters()}
    with pytest.raises(ValueError, match=message):
        snipkit.prune(model, batch, **options)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize(
    "masks, message",
    [
        (
            {"nose": torch.ones(2, dtype=torch.bool)},
            "masks for nose, but the model's parameters are weight, bias",
        ),
        (
            {"weight": torch.ones(3, 2, dtype=torch.bool)},
            r"mask of weight is torch.bool of shape \(3, 2\)",
        ),
        ({"weight": torch.ones(2, 3)}, "torch.float32"),
    ],
)
def test_masks_that_do_not_fit_change_nothing(masks, message):
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    with pytest.raises(ValueError, match=message):
        masking.apply_(model, {"bias": torch.zeros(2, dtype=torch.bool)} | masks)
    assert torch.equal(before, model.weight) and model.bias.any()


def test_shuffling_keeps_the_counts_and_nothing_else(batch):
    masks = masking.keep_top(saliency.snip(models.build("lenet-300-100"), batch), 0.95)
    shuffled = shuffles.shuffle(masks, torch.Generator().manual_seed(0))
    again = shuffles.shuffle(masks, torch.Generator().manual_seed(0))
    for name, mask in masks.items():
        assert shuffled[name].sum() == mask.sum() and shuffled[name].shape == mask.shape
        assert torch.equal(shuffled[name], again[name])
    first, other = masks["fc1.weight"], shuffled["fc1.weight"]
    overlap = (first & other).sum() / first.sum()
    assert overlap < 2 * first.float().mean()  # by chance: the density of the layer


def test_overlap_and_what_chance_would_give():
    first = {"a": torch.tensor([True, True, False, False]), "b": torch.tensor([True, False])}
    second = {"a": torch.tensor([True, False, True, False]), "b": torch.tensor([True, False])}
    assert masking.overlap(first, second) == (
        pytest.approx(2 / 3),
        pytest.approx((2 * 2 / 4 + 1 / 2) / 3),
    )
    assert masking.overlap(first, first)[0] == 1
    many = [
        {"w": torch.rand(200_000, generator=torch.Generator().manual_seed(s)) < 0.1} for s in (0, 1)
    ]
    share, chance = masking.overlap(*many)
    assert share == pytest.approx(chance, abs=0.01)
    for other, message in (
        ({"a": first["a"]}, r"the second mask set has no b of shape \(2,\)"),
        (first | {"b": torch.ones(2, 2).bool()}, "has no b of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            masking.overlap(first, other)
    nothing = {"a": torch.zeros(4).bool()}
    with pytest.raises(ValueError, match="the first mask set keeps nothing"):
        masking.overlap(nothing, first)


def test_numbers_and_scores_of_another_kind_are_refused():
    scores = {"w": torch.rand(4)}
    for arguments, error in (
        (([torch.rand(4)], 0.5), TypeError),
        (({"w": np.random.rand(4)}, 0.5), TypeError),
        ((scores, True), ValueError),
        ((scores, False), ValueError),
    ):
        with pytest.raises(error):
            masking.keep_top(*arguments)
    with pytest.raises(ValueError, match="keep is True"):
        masking.keep_top(scores, keep=True)


def test_layer_table():
    table = masking.layer_table(
        {"a.weight": torch.tensor([[True, False], [True, True]]), "a.bias": torch.tensor([False])}
    )
    assert table.to_dict("index") == {
        "a.weight": {"kept": 3, "total": 4, "density": 0.75},
        "a.bias": {"kept": 0, "total": 1, "density": 0.0},
    }


def test_masks_are_saved_at_one_bit_an_entry_and_come_back(tmp_path, batch):
    model = models.build("lenet-300-100")
    masks = masking.keep_top(saliency.random(model), 0.5)
    interop.save(masks, tmp_path / "masks.npz")
    assert (tmp_path / "masks.npz").stat().st_size < 266_610 / 8 + 3000
    found = interop.load(tmp_path / "masks.npz")
    assert list(found) == list(masks) and all(torch.equal(found[n], masks[n]) for n in masks)
    content = bytearray((tmp_path / "masks.npz").read_bytes())
    content[2000] ^= 255
    (tmp_path / "masks.npz").write_bytes(content)
    with pytest.raises(ValueError, match="masks.npz does not hold masks, or is damaged"):
        interop.load(tmp_path / "masks.npz")


def test_masks_of_any_shape_are_saved(tmp_path):
    masks = {
        "scalar": torch.tensor(True),
        "none": torch.ones(0, 3, dtype=torch.bool),
        "a:b.weight": torch.eye(3, dtype=torch.bool),
    }
    formats = ["npz", "anything"] + ["safetensors"] * has("safetensors")
    for suffix in formats:
        interop.save(masks, tmp_path / f"masks.{suffix}")
        found = interop.load(tmp_path / f"masks.{suffix}")
        assert set(found) == set(masks) and all(
            torch.equal(found[n], masks[n]) and found[n].dtype == torch.bool for n in masks
        )
        with pytest.raises(FileNotFoundError):
            interop.load(tmp_path / f"none.{suffix}")
        (tmp_path / f"masks.{suffix}").write_bytes(b"other")
        with pytest.raises(ValueError, match="does not hold masks, or is damaged"):
            interop.load(str(tmp_path / f"masks.{suffix}"))


def has(package):
    return importlib.util.find_spec(package) is not None


@pytest.mark.parametrize(
    "content",
    [
        {"w:3x3": np.zeros(1, np.uint8)},
        {"w:3x3": np.zeros(3, np.uint8)},
        {"w:3x3": np.zeros(2)},
        {"w": np.zeros(2, np.uint8)},
        {"w:3xb": np.zeros(2, np.uint8)},
        {"w:3x3": np.zeros((2, 1), np.uint8)},
    ],
)
def test_masks_of_the_wrong_length_are_refused(tmp_path, content):
    np.savez(tmp_path / "masks.npz", **content)
    with pytest.raises(ValueError, match="masks.npz does not hold masks, or is damaged"):
        interop.load(tmp_path / "masks.npz")


def test_only_masks_are_saved_and_matched(tmp_path):
    for wrong in (torch.ones(2), [True, False]):
        with pytest.raises(
            ValueError, match="the mask of w is (torch.float32|list), not torch.bool"
        ):
            interop.save({"w": wrong}, tmp_path / "masks.npz")
    assert not (tmp_path / "masks.npz").exists()
    with pytest.raises(ValueError, match="the mask of bias is list, not a tensor"):
        masking.apply_(nn.Linear(2, 2), {"bias": [True, False]})


def test_safetensors_hold_masks_and_nothing_else(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"w": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="w is not of bool type"):
        interop.load(tmp_path / "weights.safetensors")
    # Views of one tensor.
    interop.save(
        masking.keep_top({"a": torch.rand(3), "b": torch.rand(3)}, 0.5), tmp_path / "m.safetensors"
    )


# --- masks on a model
# -----------------------------------------------------------------------------------------------


class Compiled(nn.Module):
    """Names its parameters as ``torch.compile`` does, without the ten seconds that its first call
    takes.
    """

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model


def test_masks_fit_compiled_and_wrapped_models_both_ways():
    plain = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    compiled, wrapped = Compiled(plain), nn.DataParallel(plain)
    nested = nn.DataParallel(nn.Sequential(Compiled(plain[0]), plain[1]))
    inside = nn.ModuleDict({"module": plain})  # a part of the model that happens to be called so
    names = {
        model: list(snipkit.prunable(model)) for model in (plain, compiled, wrapped, nested, inside)
    }
    assert (
        names[compiled][0] == "_orig_mod.0.weight"
        and names[wrapped][0] == "module.0.weight" == names[inside][0]
    )
    assert names[nested][0] == "module.0._orig_mod.weight"
    for source in names.values():
        masks = {name: torch.rand_like(p) < 0.5 for name, p in zip(source, plain.parameters())}
        for model in names:
            pairs = masking.matched(model, masks)
            assert all(
                p is own and mask is masks[name]
                for (p, mask), own, name in zip(pairs, plain.parameters(), source, strict=True)
            )


def test_long_lists_of_names_are_cut():
    with pytest.raises(
        ValueError,
        match="masks for nose, but the model's parameters are fc1.weight, .*, fc3.weight, …",
    ):
        masking.matched(models.build("lenet-300-100"), {"nose": torch.ones(1, dtype=torch.bool)})


def text(count=8):
    x = torch.randint(7, (count, 5), generator=torch.Generator().manual_seed(0))
    return x, x.roll(1)


def step(model, optimiser):
    optimiser.zero_grad()
    x, y = text()
    nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
    optimiser.step()


def pruned_language_model():
    torch.manual_seed(0)
    model = Tied()
    masks = snipkit.prune(
        model,
        text(),
        0.8,
        closure=lambda m, b: nn.functional.cross_entropy(m(b[0]).flatten(0, 1), b[1].flatten()),
    )
    return model, masks


def test_pruning_a_shared_weight_prunes_it_under_every_name():
    model, masks = pruned_language_model()
    assert (
        model.head.weight is model.words.weight
        and int(model.head.weight.count_nonzero()) == int(masks["words.weight"].sum()) < 14
    )
    other = Tied()
    masking.apply_(other, {"head.weight": masks["words.weight"]})  # by its other name
    assert not other.words.weight[~masks["words.weight"]].any()


@pytest.mark.parametrize(
    "optimiser",
    [
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
        lambda p: torch.optim.AdamW(p, 0.1),
        lambda p: torch.optim.Adam(p, 0.1),
    ],
)
def test_attached_masks_hold_in_a_loop_of_ones_own(optimiser):
    model, masks = pruned_language_model()
    nn.init.ones_(model.inner.weight)  # what was not masked yet is masked by attach
    handle = masking.attach(model, masks)
    optimiser, before = optimiser(model.parameters()), copy.deepcopy(model.state_dict())
    for _ in range(5):
        step(model, optimiser)
        for parameter, mask in masking.matched(model, masks):
            assert not parameter[~mask].any()
    assert not torch.equal(before["words.weight"], model.words.weight)
    kept = model.inner.weight[masks["inner.weight"]]
    assert not torch.equal(before["inner.weight"][masks["inner.weight"]], kept)
    handle.remove()
    handle.remove()  # again does nothing
    step(model, optimiser)
    assert model.inner.weight[~masks["inner.weight"]].any()


def test_attaching_to_a_frozen_parameter_counts_once_it_is_trained():
    model, mask = nn.Linear(3, 2).requires_grad_(False), torch.tensor([[True, False, True]] * 2)
    masking.attach(model, {"weight": mask})
    assert not model.weight.requires_grad
    model.requires_grad_(True)(torch.ones(1, 3)).sum().backward()
    assert torch.equal(model.weight.grad, mask.float()) and model.bias.grad.all()


def test_masks_that_do_not_fit_attach_nothing():
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="masks for nose"):
        masking.attach(
            model,
            {
                "weight": torch.zeros(2, 3, dtype=torch.bool),
                "nose": torch.ones(1, dtype=torch.bool),
            },
        )
    model(torch.ones(1, 3)).sum().backward()
    assert model.weight.grad.all() and model.weight.all()


def test_torch_prune_and_back():
    """All names of a shared weight are masked, over several steps.

    The masks come back; torch can remove its own.
    """
    model, masks = pruned_language_model()
    interop.to_torch_prune(model, masks)
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        step(model, optimiser)
    step(model, torch.optim.SGD(model.parameters(), 0))
    assert (
        torch.equal(model.words.weight, model.head.weight)
        and not model.head.weight[~masks["words.weight"]].any()
    )
    assert model.words.weight_orig is model.head.weight_orig
    back = interop.from_torch_prune(model)
    assert list(back) == list(masks) or set(back) == set(masks)
    assert all(
        torch.equal(back[name], mask) and back[name].dtype == torch.bool
        for name, mask in masks.items()
    )
    for module, name in [
        (model.words, "weight"),
        (model.head, "weight"),
        (model.head, "bias"),
        (model.inner, "weight"),
        (model.inner, "bias"),
    ]:
        torch_prune.remove(module, name)
    assert model.head.weight is model.words.weight
    with pytest.raises(ValueError, match="never pruned by it, or its remove"):
        interop.from_torch_prune(model)
    assert all(not p[~mask].any() for p, mask in masking.matched(model, back))


def test_masks_for_torch_prune(batch):
    model = models.build("lenet-300-100")
    plain = models.build("lenet-300-100")
    masks = snipkit.prune(plain, batch, 0.9)
    interop.to_torch_prune(model, masks)
    assert torch.equal(model.fc1.weight_mask.bool(), masks["fc1.weight"])
    assert torch.equal(model(batch[0]), plain(batch[0]))
    own = nn.Linear(4, 2)
    torch_prune.l1_unstructured(own, "weight", 3)
    assert torch.equal(interop.from_torch_prune(own)["weight"], own.weight_mask.bool())
    assert pickle.loads(pickle.dumps(model)).fc1.weight_mask.sum() == masks["fc1.weight"].sum()


def test_models_pruned_by_other_means_have_no_masks_to_read_and_none_to_add():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    sparsifier = WeightNormSparsifier(
        sparsity_level=0.5, sparse_block_shape=(1, 1), zeros_per_block=1
    )
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    with pytest.raises(
        ValueError, match=r"torch.ao.pruning masks this model.*0.parametrizations.*squash_mask\(\)"
    ):
        interop.from_torch_prune(model)
    masks = {"0.weight": torch.eye(4, dtype=torch.bool)}
    with pytest.raises(
        ValueError, match="masks for 0.weight, but 0.weight is parametrized: remove"
    ):
        interop.to_torch_prune(model, masks)
    sparsifier.squash_mask()
    interop.to_torch_prune(model, masks)
    with pytest.raises(ValueError, match="from_torch_prune reads its masks"):
        interop.to_torch_prune(model, masks)


class Reads(nn.Module):
    """Takes the weight of ``inner`` without calling it; ``outer`` it looks at and calls."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.list = (
            nn.Linear(4, 4),
            nn.Linear(4, 4),
            nn.ParameterList([torch.randn(4, 4)]),
        )
        nn.init.ones_(self.outer.weight)

    def forward(self, x):
        return (
            self.outer(nn.functional.linear(x, self.inner.weight).to(self.outer.weight.dtype))
            @ self.list[0]
        )


@pytest.mark.parametrize(
    "build, inputs, names",
    [
        (Reads, torch.ones(2, 4), ["inner.weight", "list.0"]),
        (Reads, None, ["list.0"]),
        (lambda: nn.MultiheadAttention(4, 2), None, ["out_proj.weight"]),
        (lambda: nn.TransformerEncoderLayer(4, 2, 8), None, ["self_attn.out_proj.weight"]),
        (lambda: models.build("lstm-s", width=0.1), torch.ones(2, 1, 28, 28), ["gates.weight"]),
    ],
)
def test_layers_that_are_never_called_are_refused_by_name(build, inputs, names):
    """torch.nn.utils.prune computes a masked weight anew only when its layer is called.

    A second step would fail.
    """
    model = build()
    parameters = dict(model.named_parameters())
    masks = {
        name: torch.ones_like(p, dtype=torch.bool) for name, p in parameters.items() if p.dim() >= 2
    }
    with pytest.raises(ValueError) as refusal:
        interop.to_torch_prune(model, masks, inputs)
    assert str(refusal.value).split(":")[0].split(", ") == names
    assert dict(model.named_parameters()).keys() == parameters.keys()  # nothing was changed
    interop.to_torch_prune(
        model, {name: mask for name, mask in masks.items() if name not in names}, inputs
    )


class KeepingFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        features = torch.relu(self.first(x))
        if self.training:
            self.features = features
        return self.last(features)


def test_a_model_that_keeps_an_activation_is_exported_relabelled_and_made_smaller():
    model, inputs = KeepingFeatures(), torch.randn(5, 4)
    model(inputs)
    features = model.features
    masks = masking.keep_top(saliency.magnitude(model), 0.5)
    shuffles.relabel(model, masks, inputs, torch.Generator().manual_seed(0))
    snipkit.compact(model, masks, inputs)
    interop.to_torch_prune(model, masks, inputs)
    assert torch.equal(model.first.weight_mask.bool(), masks["first.weight"])
    assert model.features is features and model.training


def orthogonal_layer():
    return parametrizations.orthogonal(nn.Linear(4, 4))


def test_masks_of_what_a_weight_is_computed_from_hold_or_are_refused():
    """A 0 in weight norm's directions is one in the weight; in an orthogonal map's it is not."""
    name = "parametrizations.weight.original"
    with pytest.raises(ValueError, match=f"{name}: the layer computes another weight from it"):
        masking.attach(orthogonal_layer(), {name: torch.eye(4, dtype=torch.bool)})
    layer = parametrizations.weight_norm(nn.Linear(4, 4))
    masks = {f"{name}0": torch.ones(4, 1).bool(), f"{name}1": torch.eye(4, dtype=torch.bool)}
    masking.attach(layer, masks)
    layer(torch.ones(1, 4))
    assert torch.equal(layer.weight != 0, masks[f"{name}1"])


def test_masks_of_parameters_that_share_memory_are_refused_wherever_they_come_from():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    masks = {"1.weight": torch.eye(4, dtype=torch.bool)}
    masking.attach(model, masks).remove()
    model[1].weight.data = model[0].weight.data
    with pytest.raises(ValueError, match="1.weight shares memory with 0.weight"):
        masking.attach(model, masks)


def test_a_parameter_whose_entries_share_their_memory_is_refused():
    """Masking one entry would mask all that lie in its place."""
    layer = nn.Linear(8, 32)
    layer.weight = nn.Parameter(torch.ones(1, 8).expand(32, 8))
    masks = {"weight": torch.ones(32, 8, dtype=torch.bool)}
    for use in (masking.apply_, masking.attach):
        with pytest.raises(ValueError, match="entries of weight share their memory"):
            use(layer, masks)
    assert snipkit.prunable_table(layer).role["weight"] == "expanded"
    with pytest.raises(ValueError, match="weight has entries that share their memory"):
        snipkit.prunable(layer)


def test_arguments_in_the_wrong_order_or_of_another_kind_are_told_so(tmp_path):
    model, generator = nn.Linear(4, 2), torch.Generator()
    masks = {"weight": torch.ones(2, 4, dtype=torch.bool)}
    for call, message in (
        (lambda: masking.attach(masks, model), "model is of type dict, .* then the masks"),
        (lambda: masking.apply_(model, None), "masks is of type NoneType; it is a dict"),
        (lambda: interop.to_torch_prune(masks, model), "model is of type dict"),
        (lambda: interop.save(tmp_path / "m", masks), "the dict of masks comes first"),
        (lambda: snipkit.prunable(model.parameters()), "model is of type generator"),
        (lambda: snipkit.effective(model, masks, (1, 4)), "inputs is of type tuple"),
        (lambda: shuffles.shuffle(masks, 0), "generator is 0: pass torch.Generator"),
        (lambda: shuffles.relabel(model, masks, torch.ones(1, 4), 0), "generator is 0"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
    shuffles.shuffle(masks, generator)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_file_of_masks_is_whole_whatever_happens(tmp_path, monkeypatch, suffix):
    path, link = tmp_path / f"masks ü.{suffix}", tmp_path / f"link.{suffix}"
    masks = {"weight": torch.ones(2, 4, dtype=torch.bool)}
    interop.save(masks, path)
    link.symlink_to(path)
    other_masks = {"weight": torch.zeros(2, 4, dtype=torch.bool)}
    interop.save(other_masks, link)
    assert link.is_symlink() and not interop.load(path)["weight"].any()

    def full(source, *rest, **options):
        raise OSError(28, "No space left on device")

    if suffix == "npz":
        monkeypatch.setattr("numpy.savez_compressed", full)
    else:
        monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        interop.save(masks, path)
    assert not interop.load(path)["weight"].any()
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, link.name])
    with pytest.raises(FileNotFoundError, match="there is no such folder: '.*missing'"):
        interop.save(masks, tmp_path / "missing" / "masks.npz")
