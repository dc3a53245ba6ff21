import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.overrides import TorchFunctionMode

import snipkit
from snipkit import _prunable, models, study
from snipkit.models import initialisers
from snipkit.models.layers import SameConv2d

#: prunable parameters (weights and biases, no norm layers) for 10 and for 200 classes, as in the
#: paper
COUNTS = {
    "lenet-300-100": (266_610, None),
    "lenet-5-caffe": (431_080, None),
    "alexnet-s": (5_070_218, 5_264_968),
    "alexnet-b": (8_490_378, 8_879_688),
    "vgg-c": (10_526_538, 10_624_008),
    "vgg-d": (15_245_130, 15_342_600),
    "vgg-like": (14_982_474, 15_079_944),
    "wrn-16-8": (10_958_666, None),
    "wrn-16-10": (17_113_258, None),
    "wrn-22-8": (17_153_610, None),
    "lstm-s": (136_586, None),
    "lstm-b": (535_306, None),
    "gru-s": (103_690, None),
    "gru-b": (403_978, None),
    # weights and biases without batch norm; with it, ResNet-20 has its usual 0.27 million
    "resnet-20": (270_906, None),
    "mlp-1d": (50_410, None),
    "cnn-1d": (5_210, None),
}
MNIST_NETWORKS = ("lenet-300-100", "lenet-5-caffe", "lstm-s", "lstm-b", "gru-s", "gru-b")
OF_ONE_SIZE = dict.fromkeys(MNIST_NETWORKS, (1, 28, 28)) | dict.fromkeys(
    ("mlp-1d", "cnn-1d"), (1, 1, 40)
)


def images(name, count=2, side=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *OF_ONE_SIZE.get(name, (3, side, side)), generator=generator)


@pytest.mark.parametrize("name", models.MODELS)
def test_prunable_counts_are_the_papers(name):
    """Table 2 and table 4, and the recomputed counts; the printed kept counts follow from them."""
    for count, classes in zip(COUNTS[name], (10, 200)):
        if count:
            options = {} if name in OF_ONE_SIZE else {"image_size": 32 if classes == 10 else 64}
            with torch.device("meta"):  # counted, not drawn
                model = models.MODELS[name](num_classes=classes, **options)
            assert sum(p.numel() for p in snipkit.prunable(model).values()) == count


def test_kept_counts_round_to_what_table_2_prints():
    for row in pd.read_csv(Path(study.__file__).parent / "paper" / "table2.csv").itertuples():
        kept = snipkit.kept_count(COUNTS[row.model][0], row.sparsity)
        assert kept == row.kept
        digits = 1 if "." in row.kept_printed else 0
        printed = f"{kept / 1000:.{digits}f}k"
        # the paper cuts some and rounds others: 449,474 is 449k, 5,184.5 is 5.2k
        assert printed == row.kept_printed, (row.model, printed)


@pytest.mark.parametrize("name", models.MODELS)
def test_forward_shapes(name):
    options = {"width": 0.25} if "lenet" not in name else {}
    assert models.build(name, num_classes=7, **options)(images(name)).shape == (2, 7)
    if name not in OF_ONE_SIZE:
        assert models.build(name, image_size=64, width=0.25)(images(name, side=64)).shape == (2, 10)


def test_lenet_300_100_takes_other_hidden_layers():
    narrow = models.build("lenet-300-100", first=6, second=5)
    assert [tuple(p.shape) for p in narrow.parameters()] == [
        (6, 784),
        (6,),
        (5, 6),
        (5,),
        (10, 5),
        (10,),
    ]


@pytest.mark.parametrize("name", ["lenet-5-caffe", "lstm-s", "vgg-d", "resnet-20", "cnn-1d"])
def test_images_of_the_wrong_size_are_refused(name):
    with pytest.raises(ValueError, match="not 48"):
        models.build(name, image_size=48)


@pytest.mark.parametrize(
    "size, kernel, stride, before, after",
    [
        (32, 11, 2, 4, 5),
        (16, 5, 2, 1, 2),
        (8, 3, 2, 0, 1),
        (64, 11, 4, 3, 4),
        (32, 3, 1, 1, 1),
        (7, 3, 2, 1, 1),
        (32, 1, 2, 0, 0),
    ],
)
def test_same_padding_is_tensorflows(size, kernel, stride, before, after):
    """Padding before and after, worked out by hand from ceil(size / stride) outputs."""
    torch.manual_seed(0)
    conv, x = SameConv2d(2, 3, kernel, stride), torch.randn(1, 2, size, size)
    padded = torch.nn.functional.pad(x, (before, after, before, after))
    expected = torch.nn.functional.conv2d(padded, conv.weight, conv.bias, stride)
    assert conv(x).shape[-1] == -(-size // stride)
    torch.testing.assert_close(conv(x), expected)


def test_strided_1x1_convolutions_have_the_right_gradient():
    """With few channels that are last in memory, torch's own crashes or is wrong on some processors
    (oneDNN 6035).
    """
    conv = SameConv2d(4, 8, 1, 2).to(memory_format=torch.channels_last)
    reference = torch.nn.Conv2d(4, 8, 1, 2).double()
    reference.load_state_dict(conv.state_dict())
    x = images("vgg-d", 100).repeat(1, 2, 1, 1)[:, :4].contiguous(memory_format=torch.channels_last)
    conv(x).square().sum().backward()
    reference(x.double().contiguous()).square().sum().backward()
    torch.testing.assert_close(
        conv.weight.grad.double(), reference.weight.grad, rtol=1e-3, atol=1e-2
    )


def test_the_lstm_is_torchs_lstm():
    """Against nn.LSTM, whose second bias is zero and whose gates come in another order."""
    model, x = models.build("lstm-s", init="glorot"), images("lstm-s", 5)
    torch.nn.init.normal_(model.gates.bias, generator=torch.Generator().manual_seed(0))
    reference = torch.nn.LSTM(128, 128, batch_first=True)
    enter, forget, leave, new = torch.cat([model.gates.weight, model.gates.bias[:, None]], 1).chunk(
        4
    )
    # The constant 1 of the forget gate.
    forget = forget + torch.nn.functional.one_hot(torch.tensor(256), 257)
    packed = torch.cat([enter, forget, new, leave])
    with torch.no_grad():
        (
            reference.weight_ih_l0.copy_(packed[:, :128]),
            reference.weight_hh_l0.copy_(packed[:, 128:256]),
        )
        reference.bias_ih_l0.copy_(packed[:, 256]), reference.bias_hh_l0.zero_()
        expected = model.last(reference(model.embed(x.squeeze(1)))[0][:, -1])
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_the_gru_by_its_equations():
    model, x = models.build("gru-s", init="glorot"), images("gru-s", 5)
    state = torch.zeros(5, 128)
    for row in model.embed(x.squeeze(1)).unbind(1):
        reset, update = torch.sigmoid(model.gates(torch.cat([row, state], 1)) + 1).chunk(2, 1)
        new = torch.tanh(model.candidate(torch.cat([row, reset * state], 1)))
        state = update * state + (1 - update) * new
    torch.testing.assert_close(model(x), model.last(state), rtol=1e-4, atol=1e-5)


def test_the_authors_batch_norm():
    norms = [m for m in models.build("vgg-like", width=0.1).modules() if _prunable.is_norm(m)]
    assert {(m.momentum, m.eps) for m in norms} == {(0.01, 0.001)} and len(norms) == 14


def test_lenet_5_has_no_relu_after_its_convolutions_unless_asked():
    x = images("lenet-5-caffe", 4)
    plain, relu = models.build("lenet-5-caffe"), models.build("lenet-5-caffe", conv_relu=True)
    assert torch.equal(plain.conv1.weight, relu.conv1.weight)
    assert not torch.allclose(plain(x), relu(x))
    features = plain.conv2(torch.nn.functional.max_pool2d(plain.conv1(x), 2))
    expected = plain.fc2(
        torch.relu(plain.fc1(torch.nn.functional.max_pool2d(features, 2).flatten(1)))
    )
    torch.testing.assert_close(plain(x), expected)


RELUS = {
    "lenet-300-100": 2,
    "lenet-5-caffe": 1,
    "alexnet-s": 7,
    "alexnet-b": 7,
    "vgg-c": 15,
    "vgg-d": 15,
    "vgg-like": 14,
    "wrn-16-8": 13,
    "wrn-16-10": 13,
    "wrn-22-8": 19,
    "resnet-20": 19,
    "mlp-1d": 2,
    "cnn-1d": 3,
}


@pytest.mark.parametrize("name", RELUS)
def test_no_relu_is_missing(name):
    """One behind each hidden layer (LeNet-5-Caffe's convolutions have none)."""

    class Counting(TorchFunctionMode):
        relus = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.relus += getattr(function, "__name__", "") == "relu"
            return function(*args, **(kwargs or {}))

    model = models.build(name, **({} if name.startswith("lenet") else {"width": 0.1}))
    with torch.no_grad(), Counting() as counting:
        model(images(name, 2))
    assert counting.relus == RELUS[name]


def test_glorot_counts_the_kernel_on_both_sides():
    """The second convolution of LeNet-5-Caffe: 20 · 25 inputs, 50 · 25 outputs."""
    glorot, lecun = (
        models.build("lenet-5-caffe", init=init).conv2.weight.std() for init in ("glorot", "lecun")
    )
    assert (glorot / lecun).item() == pytest.approx((2 / (500 + 1250) * 500) ** 0.5, rel=1e-3)


def test_a_seed_means_the_same_draw_with_every_torch():
    """Written down with torch 2.13.

    Records from machines with different versions are compared seed by seed.
    """
    names = ("lecun", "truncated-normal", "normal")
    weights = {init: models.build("lenet-300-100", init=init, seed=0).fc1.weight for init in names}
    assert weights["lecun"][0, :3].tolist() == pytest.approx(
        [-0.0457110, -0.0467878, -0.0101739], abs=1e-6
    )
    # Many of them were drawn again.
    assert weights["lecun"].double().sum().item() == pytest.approx(-10.82541, abs=1e-3)
    assert weights["truncated-normal"].double().sum().item() == pytest.approx(-266.6247, abs=1e-2)
    assert weights["normal"].double().sum().item() == pytest.approx(-884.1979, abs=1e-2)


@pytest.mark.parametrize("name", initialisers.INITIALISERS)
def test_initialisers_have_the_stated_variance(name):
    weight = torch.empty(400, 25, 4, 4)  # fan-in 400, fan-out 6400
    initialisers.INITIALISERS[name](weight, 400, 6400, torch.Generator().manual_seed(0))
    std = {
        "lecun": (1 / 400) ** 0.5,
        "he": (2 / 400) ** 0.5,
        "glorot": (2 / 6800) ** 0.5,
        "normal": 1.0,
        "truncated-normal": initialisers.TRUNCATED_STD,
    }[name]
    assert (
        weight.std().item() == pytest.approx(std, rel=0.01)
        and abs(weight.mean().item()) < 0.01 * std
    )
    limit = {"normal": float("inf"), "truncated-normal": 2.0}.get(
        name, 2 * std / initialisers.TRUNCATED_STD
    )
    assert weight.abs().max() <= limit * (1 + 1e-5)


def test_build_is_reproducible_and_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    one, same, other = (models.build("lenet-5-caffe", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters()))
    assert not torch.equal(one.fc1.weight, other.fc1.weight)
    assert not any(
        parameter.any() for name, parameter in one.named_parameters() if snipkit.is_bias(name)
    )


def test_unknown_names_list_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown model 'lenet'; known: lenet-300-100, lenet-5-caffe, alexnet-s"
    ):
        models.build("lenet")
    with pytest.raises(
        ValueError,
        match="unknown initialiser 'xavier'; known: lecun, glorot, he, normal, truncated",
    ):
        models.build("lenet-5-caffe", init="xavier")


@pytest.mark.parametrize("name", ["resnet-20", "wrn-16-8"])
def test_narrow_networks_train_with_channels_last(name):
    """In a process of its own.

    Torch 2.13 crashes in a strided 1x1 convolution of few channels (see ``SameConv2d``).
    """
    width = 0.25 if name == "resnet-20" else 0.05
    code = (
        "import torch; from snipkit import models\n"
        f"model = models.build({name!r}, width={width}).to(memory_format=torch.channels_last)\n"
        "x = torch.randn(16, 3, 32, 32).contiguous(memory_format=torch.channels_last)\n"
        "for _ in range(3): model(x).square().sum().backward()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
