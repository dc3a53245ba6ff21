"""Law 5, the tie rule, the ablations."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snipkit
from snipkit import masking, models, saliency

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
    """LeNet-5 with ReLU units, a fifth of the scores set to exactly 0 (dead units do that): every κ is met."""
    scores = saliency.snip(models.build("lenet-5-caffe", conv_relu=True), batch)
    total = sum(s.numel() for s in scores.values())
    flat = torch.cat([s.flatten() for s in scores.values()])
    flat[torch.randperm(total, generator=torch.Generator().manual_seed(0))[: total // 5]] = 0
    tied = dict(zip(scores, (part.view_as(s) for part, s in zip(flat.split([s.numel() for s in scores.values()]), scores.values()))))
    assert (flat == 0).float().mean() >= 0.2
    for sparsity in (0, 0.05, 0.1, 0.15, 0.5, 0.9, 0.98, 0.999):  # at 0.05 to 0.15 the cut falls among the ties
        assert sum(int(m.sum()) for m in masking.keep_top(tied, sparsity).values()) == round(total * (1 - sparsity))


def test_the_highest_scores_are_kept(batch):
    scores = saliency.snip(models.build("lenet-300-100"), batch)
    masks = masking.keep_top(scores, 0.9)
    kept = torch.cat([scores[n][m] for n, m in masks.items()])
    pruned = torch.cat([scores[n][~m] for n, m in masks.items()])
    assert kept.min() >= pruned.max() > 0
    lowest = masking.keep_lowest(scores, 0.9)
    assert max(scores[n][m].max() for n, m in lowest.items() if m.any()) <= min(scores[n][~m].min() for n, m in lowest.items() if not m.all())


@pytest.mark.parametrize("sparsity", [1, 1.5, -0.1, float("nan"), 95])
def test_a_sparsity_outside_0_1_is_refused(sparsity):
    with pytest.raises(ValueError, match="share of parameters removed"):
        masking.keep_top({"w": torch.ones(3)}, sparsity)


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        masking.keep_top({"w": torch.tensor([1.0, float("nan")])}, 0.5)


def test_an_empty_layer_is_a_warning_that_names_it():
    with pytest.warns(masking.EmptyLayerWarning, match="no weight is left in second.weight:"):
        masking.keep_top({"first.weight": torch.ones(2, 2), "first.bias": torch.zeros(2), "second.weight": torch.zeros(2, 2)}, 0.6)


def test_prunable_is_weights_and_biases_never_norm_layers():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GroupNorm(1, 2), nn.PReLU(), nn.Linear(2, 2), nn.LayerNorm(2))
    assert list(masking.prunable(model)) == ["0.weight", "0.bias", "4.weight", "4.bias"]
    assert list(masking.prunable(model, biases=False)) == ["0.weight", "4.weight"]
    assert masking.prunable(model)["0.weight"] is model[0].weight


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
    "masks, message",
    [
        ({"nose": torch.ones(2, dtype=torch.bool)}, "masks for nose, but the model's parameters are weight, bias"),
        ({"weight": torch.ones(3, 2, dtype=torch.bool)}, r"mask of weight is torch.bool of shape \(3, 2\)"),
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
    shuffled = masking.shuffle(masks, torch.Generator().manual_seed(0))
    again = masking.shuffle(masks, torch.Generator().manual_seed(0))
    for name, mask in masks.items():
        assert shuffled[name].sum() == mask.sum() and shuffled[name].shape == mask.shape
        assert torch.equal(shuffled[name], again[name])
    first, other = masks["fc1.weight"], shuffled["fc1.weight"]
    overlap = (first & other).sum() / first.sum()
    assert overlap < 2 * first.float().mean()  # by chance: the density of the layer


def test_overlap_and_what_chance_would_give():
    first = {"a": torch.tensor([True, True, False, False]), "b": torch.tensor([True, False])}
    second = {"a": torch.tensor([True, False, True, False]), "b": torch.tensor([True, False])}
    assert masking.overlap(first, second) == (pytest.approx(2 / 3), pytest.approx((2 * 2 / 4 + 1 / 2) / 3))
    assert masking.overlap(first, first)[0] == 1
    many = [{"w": torch.rand(200_000, generator=torch.Generator().manual_seed(s)) < 0.1} for s in (0, 1)]
    share, chance = masking.overlap(*many)
    assert share == pytest.approx(chance, abs=0.01)


def test_layer_table():
    table = masking.layer_table({"a.weight": torch.tensor([[True, False], [True, True]]), "a.bias": torch.tensor([False])})
    assert table.to_dict("index") == {
        "a.weight": {"kept": 3, "total": 4, "density": 0.75}, "a.bias": {"kept": 0, "total": 1, "density": 0.0}
    }


def test_effective_masks_by_boolean_matrices():
    """Three linear layers: a weight counts when its unit is fed from the input and leads on to the output."""
    model = models.build("lenet-300-100")
    masks = masking.keep_top(saliency.random(model, generator=torch.Generator().manual_seed(0)), 0.99)
    for name in ("fc1.bias", "fc2.bias", "fc3.bias"):
        masks[name][:] = True  # also of units that nothing reaches, or that lead nowhere
    first, second, third = (masks[f"fc{i}.weight"] for i in (1, 2, 3))
    fed1, leads2 = first.any(1), third.any(0)
    fed2, leads1 = (second & fed1).any(1), (second & leads2[:, None]).any(0)
    found = masking.effective(model, masks, torch.zeros(1, 1, 28, 28))
    assert torch.equal(found["fc1.weight"], first & leads1[:, None])
    assert torch.equal(found["fc2.weight"], second & fed1 & leads2[:, None])
    assert torch.equal(found["fc3.weight"], third & fed2)
    assert torch.equal(found["fc1.bias"], masks["fc1.bias"] & leads1 & fed1)
    assert torch.equal(found["fc3.bias"], (third & fed2).any(1)) and 0 < found["fc3.bias"].sum() < 10
    assert 0 < sum(int(m.sum()) for m in found.values()) < sum(int(m.sum()) for m in masks.values())


@pytest.mark.filterwarnings("ignore::snipkit.masking.EmptyLayerWarning")
def test_removing_what_is_not_effective_changes_no_output():
    """By its meaning: a convolutional network with pooling and batch norm, a residual one; biases zero."""
    for name in ("lenet-5-caffe", "resnet-20", "vgg-like"):
        model = models.build(name, **({} if name.startswith("lenet") else {"width": 0.25})).eval()
        inputs = torch.randn(2, *((1, 28, 28) if name.startswith("lenet") else (3, 32, 32)), generator=torch.Generator().manual_seed(0))
        masks = masking.keep_top(saliency.random(model, generator=torch.Generator().manual_seed(1)), 0.99 if name.startswith("lenet") else 0.97)
        found = masking.effective(model, masks, inputs)
        masking.apply_(model, masks)
        with torch.no_grad():
            before = model(inputs)
            masking.apply_(model, found)
            assert before.abs().max() > 0 and (model(inputs) - before).abs().max() < 1e-4 * before.abs().max()
        assert sum(int(m.sum()) for m in found.values()) < sum(int(m.sum()) for m in masks.values())


def test_nothing_is_effective_behind_an_empty_layer_and_everything_in_a_deep_dense_network():
    model = models.build("lenet-300-100")
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masking.prunable(model).items()}
    assert all(torch.equal(m, masks[n]) for n, m in masking.effective(model, masks, torch.zeros(1, 1, 28, 28)).items())
    masks["fc2.weight"][:] = False
    assert not any(m.any() for n, m in masking.effective(model, masks, torch.zeros(1, 1, 28, 28)).items() if n.endswith("weight"))
    deep = nn.Sequential(*(nn.Linear(64, 64) for _ in range(300)))  # 64^300 paths: their number is no float
    ones = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masking.prunable(deep).items()}
    assert all(m.all() for m in masking.effective(deep, ones, torch.zeros(1, 64)).values())
    with pytest.raises(ValueError, match="paths through LSTM"):
        masking.effective(nn.Sequential(nn.LSTM(3, 4)), {}, torch.zeros(1, 2, 3))


def test_masks_are_saved_at_one_bit_an_entry_and_come_back(tmp_path, batch):
    model = models.build("lenet-300-100")
    masks = masking.keep_top(saliency.random(model), 0.5)
    masking.save(masks, tmp_path / "masks.npz")
    assert (tmp_path / "masks.npz").stat().st_size < 266_610 / 8 + 3000
    found = masking.load(tmp_path / "masks.npz")
    assert list(found) == list(masks) and all(torch.equal(found[n], masks[n]) for n in masks)
    content = bytearray((tmp_path / "masks.npz").read_bytes())
    content[2000] ^= 255
    (tmp_path / "masks.npz").write_bytes(content)
    with pytest.raises(ValueError, match="masks.npz does not hold masks, or is damaged"):
        masking.load(tmp_path / "masks.npz")


def test_masks_for_torch_prune(batch):
    model = models.build("lenet-300-100")
    plain = models.build("lenet-300-100")
    masks = snipkit.prune(plain, batch, 0.9)
    masking.to_torch_prune(model, masks)
    assert torch.equal(model.fc1.weight_mask.bool(), masks["fc1.weight"])
    assert torch.equal(model(batch[0]), plain(batch[0]))


def test_every_weight_of_a_dense_network_is_effective():
    """Behind pooling too, and where a map is so small that a kernel's border only ever sees padding it is not."""
    model = models.build("lenet-5-caffe")
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masking.prunable(model).items()}
    assert all(m.all() for m in masking.effective(model, masks, torch.zeros(1, 1, 28, 28)).values())
    model = models.build("vgg-like", width=0.125)
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masking.prunable(model).items()}
    assert all(m.all() for m in masking.effective(model, masks, torch.zeros(1, 3, 32, 32)).values())
