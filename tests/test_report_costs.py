"""What a mask costs, counted by hand."""

import pytest
import torch
from torch import nn

import snipkit
from snipkit import models
from snipkit.study import report


def test_the_costs_of_a_small_network_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    masks = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in network.named_parameters()}
    masks["0.weight"][0] = True  # half of the kernels: 9 of 18 weights
    masks["3.weight"][:, :2] = True  # 6 of 24
    masks["3.bias"][0] = True
    network.train()
    costs = report.mask_costs(network, masks, torch.zeros(1, 1, 4, 4))
    assert costs == {
        "parameters": 18 + 2 + 24 + 3,
        "kept": 9 + 6 + 1,
        "multiply-adds": 4 * 18 + 24,  # the kernels are used at four places
        "multiply-adds kept": 4 * 9 + 6,
        "bytes": 4 * 47,
        "bytes, CSR": 8 * 16 + 4 * (2 + 1 + 3 + 1),
        "bytes, bit mask": 4 * 16 + 6,  # 47 bits
    }
    assert network.training


def test_all_layers_of_a_residual_network_are_counted():
    network = models.build("resnet-20")
    masks = {
        name: torch.ones(p.shape, dtype=torch.bool) for name, p in snipkit.prunable(network).items()
    }
    costs = report.mask_costs(network, masks, torch.zeros(1, 3, 32, 32))
    # He et al. (2016).
    assert costs["multiply-adds kept"] == costs["multiply-adds"] == pytest.approx(40.8e6, rel=0.02)


def test_a_layer_that_cannot_be_counted_is_not_left_out():
    network = models.build("lstm-s")  # its steps use one weight outside of the module that holds it
    masks = {
        name: torch.ones(p.shape, dtype=torch.bool) for name, p in snipkit.prunable(network).items()
    }
    with pytest.raises(ValueError, match="no multiply-add was counted in gates.weight's module"):
        report.mask_costs(network, masks, torch.zeros(1, 1, 28, 28))


def test_without_the_units_that_no_path_uses_a_chain_is_small():
    network = models.build("lenet-300-100")
    masks = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in network.named_parameters()}
    masks["fc1.weight"][5, [3, 4]] = True  # two pixels → unit 5 → unit 7 → class 0
    masks["fc2.weight"][7, 5] = True
    masks["fc3.weight"][0, 7] = True
    masks["fc1.weight"][6, 9] = True  # leads nowhere
    masks["fc2.bias"][8] = True
    costs = report.compact_costs(network, masks, torch.zeros(1, 1, 28, 28))
    assert costs == {"units": "2-1-1-10", "weights": 13, "kept": 4, "bytes": 52}


def test_three_kernels_of_one_network_are_timed_on_one_thread():
    images = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    batch = images, torch.arange(20) % 10
    threads = torch.get_num_threads()
    times = report.kernel_times(["lenet-300-100"], batch, images, sizes=(1, 4), turns=2)
    assert list(times.kernels) == 2 * ["masked", "units left out", "CSR"]
    assert list(times.batch) == 3 * [1] + 3 * [4]
    assert set(times.network) == {"LeNet-300-100"} and (times.microseconds > 0).all()
    masked = times.microseconds.iloc[0]
    assert times["times as fast"].iloc[2] == pytest.approx(masked / times.microseconds.iloc[2])
    assert torch.get_num_threads() == threads
