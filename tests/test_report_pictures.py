"""Masks as images."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from snipkit.study import report


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_picture_shows_how_many_units_keep_each_pixel():
    weight = torch.zeros(4, 6, dtype=torch.bool)
    weight[:3, 1] = True  # three of four units look at the pixel in row 0, column 1
    weight[0, 5] = True
    picture = report.mask_picture(
        {"fc1.bias": torch.ones(4), "fc1.weight": weight, "fc2.weight": ~weight}, (2, 3)
    )
    assert picture.tolist() == [[0, 75, 0], [0, 0, 25]]


def test_the_shape_of_square_images_is_found_and_channels_are_averaged():
    assert report.mask_picture({"weight": torch.ones(2, 784, dtype=torch.bool)}).shape == (28, 28)
    weight = torch.zeros(1, 12, dtype=torch.bool)
    weight[0, [0, 4, 8]] = True  # the first pixel of each of three channels
    assert report.mask_picture({"weight": weight}).tolist() == [[100, 0], [0, 0]]


def test_of_a_convolution_the_kernel_is_pictured():
    weight = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    weight[0, 0, 2, 0] = True
    assert report.mask_picture({"weight": weight})[2].tolist() == [50, 0, 0]


@pytest.mark.parametrize("masks", [{"bias": torch.ones(3)}, {"weight": torch.ones(2, 40)}])
def test_what_is_no_image_is_refused(masks):
    with pytest.raises(ValueError, match="pass"):
        report.mask_picture(masks)


def test_a_sheet_has_one_scale_a_row_and_what_stands_beside_has_its_own():
    low, high = np.full((2, 2), 20.0), np.full((2, 2), 80.0)
    figure = report.draw_pictures(
        {"90 %": {"SNIP": low, "random": high, "mean image": high / 1000}, "98 %": {"SNIP": low}},
        beside=["mean image"],
    )
    images = [ax.images[0] for ax in figure.axes if ax.images]
    assert [image.get_clim()[1] for image in images] == [80, 80, 0.08, 20]
    assert [ax.get_title() for ax in figure.axes[:3]] == ["SNIP", "random", "mean image"]


def test_white_can_be_a_percentile_of_some_of_the_pictures():
    pictures = {"1": np.full((2, 2), 90.0), "10": np.array([[0.0, 10], [20, 30]])}
    figure = report.draw_pictures({"90 %": pictures}, percentile=50, beyond=["1"])
    images = [ax.images[0] for ax in figure.axes if ax.images]
    assert [image.get_clim()[1] for image in images] == [15, 15]
