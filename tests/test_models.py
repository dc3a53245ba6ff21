import pytest
import torch

from snipkit import masking, models
from snipkit.models import initialisers

#: prunable parameters (weights and biases, no norm layers) as in the paper
COUNTS = {"lenet-300-100": 266_610, "lenet-5-caffe": 431_080}


@pytest.mark.parametrize("name", models.MODELS)
def test_prunable_counts_are_the_papers(name):
    assert sum(p.numel() for p in masking.prunable(models.build(name)).values()) == COUNTS[name]


@pytest.mark.parametrize("name, images", [(name, torch.zeros(2, 1, 28, 28)) for name in COUNTS])
def test_forward_shapes(name, images):
    assert models.build(name, num_classes=7)(images).shape == (2, 7)


def test_lenet_5_has_no_relu_after_its_convolutions_unless_asked():
    images = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    plain, relu = models.build("lenet-5-caffe"), models.build("lenet-5-caffe", conv_relu=True)
    assert torch.equal(plain.conv1.weight, relu.conv1.weight)
    assert not torch.allclose(plain(images), relu(images))
    features = plain.conv2(torch.nn.functional.max_pool2d(plain.conv1(images), 2))
    expected = plain.fc2(torch.relu(plain.fc1(torch.nn.functional.max_pool2d(features, 2).flatten(1))))
    torch.testing.assert_close(plain(images), expected)


@pytest.mark.parametrize("name", initialisers.INITIALISERS)
def test_initialisers_have_the_stated_variance(name):
    weight = torch.empty(400, 25, 4, 4)  # fan-in 400, fan-out 6400
    initialisers.INITIALISERS[name](weight, 400, 6400, torch.Generator().manual_seed(0))
    std = {
        "lecun": (1 / 400) ** 0.5, "he": (2 / 400) ** 0.5, "glorot": (2 / 6800) ** 0.5,
        "normal": 1.0, "truncated-normal": initialisers.TRUNCATED_STD,
    }[name]
    assert weight.std().item() == pytest.approx(std, rel=0.01) and abs(weight.mean().item()) < 0.01 * std
    limit = {"normal": float("inf"), "truncated-normal": 2.0}.get(name, 2 * std / initialisers.TRUNCATED_STD)
    assert weight.abs().max() <= limit * (1 + 1e-5)


def test_build_is_reproducible_and_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    one, same, other = (models.build("lenet-5-caffe", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters()))
    assert not torch.equal(one.fc1.weight, other.fc1.weight)
    assert not any(parameter.any() for name, parameter in one.named_parameters() if masking.is_bias(name))


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown model 'lenet'; known: lenet-300-100, lenet-5-caffe"):
        models.build("lenet")
    with pytest.raises(ValueError, match="unknown initialiser 'xavier'; known: lecun, glorot, he, normal, truncated-normal"):
        models.build("lenet-5-caffe", init="xavier")
