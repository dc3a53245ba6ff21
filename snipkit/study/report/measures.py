"""Figures 2, 5 and 6 as numbers.

Correlations of the pictures that masks of LeNet-300-100 draw (no training).
"""

import dataclasses
import functools

import numpy as np
import pandas as pd
import torch

import snipkit
from snipkit import data, masking, models
from snipkit.study.sets import datasets
from snipkit.study.train import registration

PICTURED = 0.9  # sparsity of the masks of figures 2 and 5
IMAGES = 100  # a scoring batch, all of one class
CLASSES = 10


def figure2(name: str, draw: int) -> tuple[float, float]:
    """Mean correlation of a class's mask with that class's |mean image|, and with those of the
    other classes.
    """
    part = _images(name)
    pixels = part[:][0].flatten(1)  # standardised
    mean_images = [pixels[part.labels == label].mean(0) for label in range(CLASSES)]
    means = torch.stack(mean_images).abs().numpy()
    pictures = [_picture(_scores(name, label, "snip", draw), PICTURED) for label in range(CLASSES)]
    correlations = np.corrcoef(np.stack(pictures), means)[:CLASSES, CLASSES:]
    diagonal = np.eye(CLASSES, dtype=bool)
    return correlations[diagonal].mean(), correlations[~diagonal].mean()


def figure5(name: str, draw: int) -> tuple[float, float]:
    """Correlation of the pictures before and after the images are inverted, and of two draws of the
    weights.
    """
    inverted, redrawn = [], []
    for label in range(CLASSES):
        usual = _picture(_scores(name, label, "snip", draw), PICTURED)
        negative = _picture(_scores(name, label, "snip", draw, inverted=True), PICTURED)
        redraw = _picture(_scores(name, label, "snip", draw + 1000), PICTURED)
        inverted.append(np.corrcoef(usual, negative)[0, 1])
        redrawn.append(np.corrcoef(usual, redraw)[0, 1])
    return float(np.mean(inverted)), float(np.mean(redrawn))


def figure6(name: str, draw: int) -> tuple[float, float]:
    """Correlation of the pictures at 20 and 80 % sparsity, ranked by SNIP and by the signed
    gradient.
    """
    means = []
    for criterion in ("snip", "signed-gradient"):
        alike = []
        for label in range(CLASSES):
            scores = _scores(name, label, criterion, draw)
            alike.append(np.corrcoef(_picture(scores, 0.2), _picture(scores, 0.8))[0, 1])
        means.append(float(np.mean(alike)))
    return means[0], means[1]


MEASURES = {
    "figure2-mnist": figure2,
    "figure2-fashion-mnist": figure2,
    "figure5": figure5,
    "figure6": figure6,
}


def measure(rows: list[registration.Setting]) -> pd.DataFrame:
    """The numbers of all settings of these figures: columns claim, outcome, seed, first, second."""
    numbers = []
    for row in rows:
        if row.claim not in MEASURES:
            continue
        for number in range(row.n):
            seed = registration.FIRST_SEED + number
            first, second = MEASURES[row.claim](row.outcome.removeprefix("picture of "), seed)
            numbers.append([row.claim, row.outcome, seed, first, second])
    return pd.DataFrame(numbers, columns=["claim", "outcome", "seed", "first", "second"])


@functools.cache
def _images(name):
    return datasets.load(name).train


@functools.cache
def _network(draw):
    return models.build("lenet-300-100", seed=draw)  # scoring leaves it as it is


def _scores(name, label, criterion, draw, inverted=False):
    """Scores of one draw of the network on images of one class.

    The same images, inverted or not.
    """
    part = _images(name)
    if inverted:
        # Standardised, 255 - pixel is the negative: its standard deviation is the same, and its
        # mean is 1 - mean.
        part = dataclasses.replace(part, pixels=255 - part.pixels, mean=(1 - part.mean[0],))
    images = part.take(torch.nonzero(part.labels == label).flatten())
    batch = data.sample(images, IMAGES, torch.Generator().manual_seed(1000 * draw + label))
    return snipkit.CRITERIA[criterion](_network(draw), batch)


def _picture(scores, sparsity):
    """The share of the 300 hidden units that keep each pixel: (784,)."""
    return masking.keep_top(scores, sparsity)["fc1.weight"].float().mean(0).numpy()
