"""Controls keep exactly what they promise.

Twins keep κ, and in the mean what the gradient alone predicts.
"""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import snipkit
from snipkit import data, masking, models, saliency
from snipkit.beyond import controls, shuffles

SHAPES = [(7,), (1, 1), (1, 6), (5, 8), (9, 3), (12, 15), (4, 3, 2, 2), (6, 1, 3, 3), (3, 4, 5)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def with_hubs(shape, density, seed=0):
    """A mask whose rows and columns differ in their density."""
    return torch.rand(shape, generator=seeded(seed)) < 2 * density * torch.linspace(0, 1, shape[-1])


def of_units(mask):
    """How many connections each output unit receives, and each input unit (or channel) sends."""
    kernels = mask.reshape(len(mask), math.prod(mask.shape[1:2]), -1)
    return kernels.sum((1, 2)), kernels.sum((0, 2))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SHAPES), st.floats(0, 1), st.integers(0, 99))
def test_the_same_units_stay_live_and_the_same_number_is_kept(shape, density, seed):
    mask = with_hubs(shape, density, seed)
    (drawn,) = controls.keep_live_units({"w": mask}, seeded(seed)).values()
    assert drawn.shape == mask.shape and drawn.dtype == torch.bool and drawn.sum() == mask.sum()
    for before, after in zip(of_units(mask), of_units(drawn)):
        assert torch.equal(before > 0, after > 0)


@pytest.mark.parametrize(
    "shape, kept", [((3, 3), [0, 1, 5]), ((3, 3), [0, 4, 8]), ((2, 2, 2), [0, 1, 6])]
)
def test_all_choices_with_these_live_units_are_equally_likely(shape, kept):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask.view(-1)[kept] = True
    live = [counts > 0 for counts in of_units(mask)]
    allowed = set()
    for code in range(2 ** mask.numel()):
        bits = [code >> bit & 1 for bit in range(mask.numel())]
        other = torch.tensor(bits, dtype=torch.bool).view(shape)
        live_then = [counts > 0 for counts in of_units(other)]
        if all(map(torch.equal, live, live_then)) and other.sum() == len(kept):
            allowed.add(tuple(other.flatten().tolist()))
    generator, draws, times = seeded(), 600, {}
    for _ in range(draws):
        drawn = controls.keep_live_units({"w": mask}, generator)["w"]
        key = tuple(drawn.flatten().tolist())
        times[key] = times.get(key, 0) + 1
    assert times.keys() == allowed and len(allowed) > 1
    expected = draws / len(allowed)
    chi_squared = sum((count - expected) ** 2 / expected for count in times.values())
    assert chi_squared < len(allowed) + 5 * (2 * len(allowed)) ** 0.5


def test_among_live_units_hubs_are_lost_and_the_walk_has_mixed(monkeypatch):
    mask = with_hubs((60, 80), 0.1)
    drawn = controls.keep_live_units({"w": mask}, seeded())["w"]
    assert of_units(drawn)[1].float().std() < 0.7 * of_units(mask)[1].float().std()
    assert (drawn & mask).sum() < 0.3 * mask.sum()
    monkeypatch.setattr(controls, "MOVES", 100)
    longer = controls.keep_live_units({"w": mask}, seeded())["w"]
    spread = [float(of_units(some)[1].float().std()) for some in (drawn, longer)]
    assert abs(spread[0] - spread[1]) < 0.5


def network_masks(seed=0):
    """Of a chain of three layers in which units with many inputs have many outputs, and some are
    dead.
    """
    hubs = torch.rand(30, generator=seeded(seed)) ** 3
    hubs[:8] = 0
    first = torch.rand(30, 12, generator=seeded(seed + 1)) < hubs[:, None]
    second = torch.rand(20, 30, generator=seeded(seed + 2)) < hubs
    third = torch.rand(5, 20, generator=seeded(seed + 3)) < 0.3
    bias = first.any(1) & (torch.rand(30, generator=seeded(seed + 4)) < 0.5)
    return {
        "a.weight": first,
        "a.bias": bias,
        "b.weight": second,
        "c.weight": third,
        "c.bias": torch.ones(5) > 0,
    }


@pytest.mark.parametrize("seed", range(5))
def test_misaligning_keeps_both_degree_sequences_and_the_live_units(seed):
    masks = network_masks(seed)
    misaligned = controls.misalign(masks, seeded(seed))
    assert list(misaligned) == list(masks)
    for name, mask in masks.items():
        (received, sent), (received_then, sent_then) = of_units(mask), of_units(misaligned[name])
        assert torch.equal(sent, sent_then)
        assert torch.equal(received.sort().values, received_then.sort().values)
        if not name.endswith("bias"):
            assert torch.equal(received > 0, received_then > 0)
    for name in ("c.weight", "c.bias"):  # the classes keep theirs
        assert torch.equal(of_units(masks[name])[0], of_units(misaligned[name])[0])
    pairs = zip(of_units(masks["a.weight"])[0].tolist(), masks["a.bias"].tolist())
    moved = zip(of_units(misaligned["a.weight"])[0].tolist(), misaligned["a.bias"].tolist())
    assert sorted(pairs) == sorted(moved)  # a bias goes with its row


def test_misaligning_parts_what_a_unit_receives_from_what_it_sends():
    def correlation(masks):
        received, sent = of_units(masks["a.weight"])[0], of_units(masks["b.weight"])[1]
        live = received > 0  # the live units are the same ones on both sides of all these masks
        return float(torch.corrcoef(torch.stack([received[live], sent[live]]).float())[0, 1])

    masks = network_masks()
    units = shuffles.shuffle(masks, seeded(), "units")
    drawn = [correlation(controls.misalign(masks, seeded(seed))) for seed in range(20)]
    assert correlation(masks) == correlation(units) > 0.7 and abs(sum(drawn) / 20) < 0.2


def random_gradients(seed=0):
    """Two layers whose units differ, a bias, and a unit without any."""
    generator = seeded(seed)
    rows, columns = (torch.rand(size, 1, generator=generator).exp() for size in (40, 50))
    first = torch.randn(40, 50, generator=generator) * rows * columns.T
    first[3] = 0
    return {
        "a.weight": first,
        "a.bias": torch.randn(40, generator=generator),
        "b.weight": 10 * torch.randn(10, 40, generator=generator),
    }


STDS = {"a.weight": 0.3, "a.bias": 0.0, "b.weight": 0.1}


def draw(generator):
    return {
        name: STDS[name] * torch.randn(gradient.shape, generator=generator)
        for name, gradient in random_gradients().items()
    }


def normal_survival(std):
    return lambda limit: torch.erfc(limit / std / math.sqrt(2)) if std else torch.zeros_like(limit)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(controls.TWINS)), st.floats(0.1, 0.99), st.integers(0, 99))
def test_a_twin_keeps_exactly_kappa(twin, sparsity, seed):
    gradients, generator = random_gradients(seed), seeded(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", masking.EmptyLayerWarning)
        scores = controls.TWINS[twin](gradients, draw(generator), generator)
        masks = masking.keep_top(scores, sparsity)
    total = sum(gradient.numel() for gradient in gradients.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round(total * (1 - sparsity))
    assert all(mask.shape == gradients[name].shape for name, mask in masks.items())


@pytest.mark.parametrize(
    "twin, rank", [(controls.gradient_twin, False), (controls.rank_one_twin, True)]
)
def test_in_the_mean_over_draws_a_twin_keeps_what_the_gradient_predicts(twin, rank):
    """Each layer's share, and each connection's (a few of which leave their binomial interval by
    chance).
    """
    gradients, generator, draws, keep = random_gradients(), seeded(1), 300, 245
    sizes = controls.rank_one(gradients) if rank else gradients
    survival = {name: normal_survival(std) for name, std in STDS.items()}
    predicted = controls.twin_probabilities(sizes, survival, keep)
    assert sum(float(p.sum()) for p in predicted.values()) == pytest.approx(keep, abs=1e-6)
    times = {name: torch.zeros(gradient.shape) for name, gradient in gradients.items()}
    for _ in range(draws):
        scores = twin(gradients, draw(generator), generator)
        for name, mask in masking.keep_top(scores, keep=keep).items():
            times[name] += mask
    for name, count in times.items():
        assert float(count.sum()) / draws == pytest.approx(
            float(predicted[name].sum()), rel=0.02, abs=1e-9
        )
        spread = (predicted[name] * (1 - predicted[name]) / draws).sqrt()
        off = (count / draws - predicted[name]).abs() > 3 * spread + 0.01
        assert off.float().mean() < 0.01


def test_a_product_is_its_own_rank_one_and_sums_of_squares_are_kept():
    generator = seeded()
    product = torch.rand(6, 1, generator=generator) * torch.rand(1, 9, generator=generator)
    torch.testing.assert_close(controls.rank_one({"w": -product})["w"], product)
    kernels = torch.randn(6, 5, 3, 3, generator=generator)
    kernels[2] = 0
    bias = torch.randn(6, generator=generator)
    sizes = controls.rank_one({"w": kernels, "b": bias})
    for other_dims in ((1, 2, 3), (0, 2, 3)):
        expected = kernels.square().sum(other_dims)
        torch.testing.assert_close(sizes["w"].square().sum(other_dims), expected)
    assert (sizes["w"] == sizes["w"][..., :1, :1]).all() and torch.equal(sizes["b"], bias.abs())
    assert not controls.rank_one({"w": torch.zeros(3, 4)})["w"].any()


def test_the_noise_of_a_rank_one_twin_is_that_of_the_gradient_elsewhere():
    gradients = random_gradients()
    ones = {name: torch.ones_like(gradient) for name, gradient in gradients.items()}
    noisy = controls.noisy_rank_one_twin(gradients, ones, seeded())
    again = controls.noisy_rank_one_twin(gradients, ones, seeded())
    size, live = controls.rank_one(gradients)["b.weight"], "b.weight"
    factors, moved = gradients[live].abs() / size, noisy[live] / size
    torch.testing.assert_close(factors.flatten().sort().values, moved.flatten().sort().values)
    assert not torch.allclose(factors, moved) and torch.equal(noisy[live], again[live])
    assert not noisy["a.weight"][3].any()  # a unit without a gradient gets none


def test_the_gradient_alone_tells_lenets_layer_counts(mnist):
    """Truncated normal weights, as the study draws them.

    Predicted and SNIP's own counts at 98 %.
    """
    model = models.build("lenet-300-100", seed=0)
    batch = data.sample(mnist.train, 100, seeded())
    gradients = saliency.gradient(model, batch)
    survival = {}
    for name, parameter in model.named_parameters():
        std = 0.0 if snipkit.is_bias(name) else parameter.shape[1] ** -0.5
        survival[name] = controls.truncated_normal_survival(std)
    masks = masking.keep_top(saliency.snip(model, batch), 0.98)
    kept = sum(int(mask.sum()) for mask in masks.values())
    predicted = controls.twin_probabilities(gradients, survival, kept)
    for name, mask in masks.items():
        assert float(predicted[name].sum()) == pytest.approx(int(mask.sum()), rel=0.06), name


def test_the_survival_of_a_truncated_normal():
    weight = torch.empty(200, 400)
    models.INITIALISERS["lecun"](weight, 400, 200, seeded())
    survival = controls.truncated_normal_survival(400**-0.5)
    limits = torch.tensor([0.0, 0.02, 0.05, 0.1, 0.2], dtype=torch.double)
    shares = torch.stack([(weight.abs() > limit).double().mean() for limit in limits])
    torch.testing.assert_close(survival(limits), shares, atol=0.005, rtol=0)
    assert survival(limits)[0] == 1 and survival(limits)[-1] == 0


def test_more_than_there_are_gradients_cannot_be_expected():
    with pytest.raises(
        ValueError, match="cannot expect 5 connections to be kept: 4 have a gradient"
    ):
        controls.twin_probabilities(
            {"w": torch.tensor([[0.0, 1, 2, 3, 4]])}, {"w": normal_survival(1.0)}, 5
        )
