"""What a mask is worth when a network is used.

The same function, folded, smaller, sparse; and multiply-adds.
"""

import pytest
import torch
from test_paths import NETWORKS, Residual, batch, build, dense, random_masks, without_biases
from torch import nn

from snipkit import _prunable, masking
from snipkit.beyond import inference, paths


def trained(model, seed=0):
    """With statistics, scales and shifts as they are after a training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                if tensor.is_floating_point() and tensor.dim() == 1:
                    positive = _prunable.is_norm(module)
                    draw = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                    tensor.copy_(draw + 0.2 if positive else draw - 0.5)
    return model


def assert_same(first, second, x):
    with torch.no_grad():
        torch.testing.assert_close(second.eval()(x), first.eval()(x), rtol=1e-8, atol=1e-10)


def test_multiply_adds_by_hand():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.Flatten(), nn.Dropout(), nn.Linear(36, 5)
    )
    assert inference.multiply_adds(model, torch.zeros(7, 2, 6, 6)) == 9 * 4 * 2 * 9 + 36 * 5
    assert model.training


@pytest.mark.parametrize(
    "name", ["lenet-5-caffe", "alexnet-s", "vgg-like", "resnet-20", "wrn-16-8"]
)
def test_the_same_function_in_evaluation_folded_compacted_and_in_csr(name):
    model, shape = build(name)
    trained(model)
    masks = random_masks(model, 0.08)
    x, _ = batch(shape)
    masking.apply_(model, masks)
    folded = inference.fold_batch_norm(model, x)
    norms = [
        sum(_prunable.is_norm(module) for module in network.modules())
        for network in (model, folded)
    ]
    # Those of a WRN that read its residual stream stay: a sum stands before them.
    assert norms[1] == (7 if name == "wrn-16-8" else 0) and norms[0] >= norms[1]
    assert_same(model, folded, x)
    small = inference.for_inference(model, masks, x)
    assert inference.multiply_adds(small, x) <= inference.multiply_adds(
        paths.compact(model, masks, x)[0], x
    )
    assert_same(model, small, x)
    assert_same(model, inference.in_csr(model, masks), x)


def test_a_constant_goes_into_a_bias_where_it_can():
    """A channel that only batch norm gives a value.

    A 1x1 convolution adds it to its bias, a padded one cannot.
    """
    for padding, width in ((0, 4), (1, 5)):
        model = trained(Residual().double())
        model.leave = nn.Conv2d(
            5, 6, 2 * padding + 1, padding=padding, dtype=torch.float64, bias=False
        )
        masks = without_biases(dense(model))
        masks["enter.weight"][1] = False
        masking.apply_(model, masks)
        x = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        small = inference.for_inference(model, masks, x)
        assert small.enter.out_channels == width
        assert_same(model, small, x)
        with torch.no_grad():
            model.between.bias[1] = -5.0  # the ReLU makes 0 of it
        small = inference.for_inference(model, masks, x)
        assert small.enter.out_channels == 4
        assert_same(model, small, x)


def test_a_batch_norm_that_is_not_alone_is_not_folded():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            x = self.conv(x)
            return x + self.norm(x)

    model, x = trained(Twice()), torch.randn(2, 2, 3, 3)
    folded = inference.fold_batch_norm(model, x)
    assert isinstance(folded.norm, nn.BatchNorm2d)
    torch.testing.assert_close(folded(x), model.eval()(x))


def test_the_table_of_latencies():
    model, shape = build(next(iter(NETWORKS)))
    table = inference.latencies(
        model, random_masks(model, 0.02), batch(shape)[0], batch_sizes=(1, 4), seconds=0.01
    )
    assert list(table.batch) == [1] * 4 + [4] * 4 and list(table.network[:2]) == [
        "masked",
        "compacted",
    ]
    assert (table.milliseconds > 0).all() and table["times as fast"][0] == table["times as fast"][
        4
    ] == 1
    assert table["multiply-adds"][1] < table["multiply-adds"][0]
