"""Figures 2, 5 and 6 as numbers: correlations of the pictures that LeNet-300-100's masks draw.

Nothing here is trained.
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
LIGHT, HEAVY = 0.2, 0.8  # sparsities that figure 6 compares
IMAGES = 100  # a scoring batch, all of one class
CLASSES = 10


def class_batch(name: str, label: int, draw: int, inverted: bool = False):
    """A hundred images of one class, standardised, and their labels.

    Args:
        name: a data set, "mnist" or "fashion-mnist".
        label: the class.
        draw: which hundred; the same ones whether inverted or not.
        inverted: 255 - pixel in place of each pixel.
    """
    part = _inverted_images(name) if inverted else _images(name)
    images = part.take(torch.nonzero(part.labels == label).flatten())
    return data.sample(images, IMAGES, torch.Generator().manual_seed(1000 * draw + label))


def class_scores(
    name: str, label: int, criterion: str = "snip", draw: int = 0, inverted: bool = False
) -> dict[str, torch.Tensor]:
    """Scores of one draw of LeNet-300-100 on images of one class, by parameter name.

    Args:
        name, label, draw, inverted: see ``class_batch``.
        criterion: a name in ``snipkit.CRITERIA``.
        draw: of the images, and of the weights.
    """
    batch = class_batch(name, label, draw, inverted)
    return snipkit.CRITERIA[criterion](_network(draw), batch)


def class_pictures(
    name: str,
    criterion: str = "snip",
    draw: int = 0,
    sparsity: float = PICTURED,
    inverted: bool = False,
) -> np.ndarray:
    """For each of the ten classes, the share of the 300 hidden units that keep each pixel.

    Args:
        name, criterion, draw, inverted: see ``class_scores``.
        sparsity: share of the connections removed.

    Returns:
        An array of (10, 784).
    """
    drawn = []
    for label in range(CLASSES):
        drawn.append(_picture(class_scores(name, label, criterion, draw, inverted), sparsity))
    return np.stack(drawn)


@functools.cache
def class_moments(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each pixel over a class's standardised training images: (10, 784)."""
    part = _images(name)
    pixels = part[:][0].flatten(1)
    of_class = [pixels[part.labels == label] for label in range(CLASSES)]
    means = torch.stack([images.mean(0) for images in of_class])
    variances = torch.stack([images.var(0) for images in of_class])
    return means.numpy(), variances.numpy()


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """The correlation of two pictures of a class, the mean over the classes.

    Args:
        first, second: such as ``class_pictures`` gives, (10, 784).
    """
    return float(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(first, second)]))


def figure2(name: str, draw: int, criterion: str = "snip") -> tuple[float, float]:
    """Mean correlation of a class's mask with |mean image|: of that class, and of the others.

    The absolute value, because a score has no sign: a pixel that is always dark says as much as one
    that is always bright.
    """
    means, _ = class_moments(name)
    drawn = class_pictures(name, criterion, draw)
    correlations = np.corrcoef(drawn, np.abs(means))[:CLASSES, CLASSES:]
    same_class = np.eye(CLASSES, dtype=bool)
    return correlations[same_class].mean(), correlations[~same_class].mean()


def figure5(name: str, draw: int) -> tuple[float, float]:
    """Correlation of pictures before and after inverting, and of those of two draws of the weights.

    Images and weights of the second draw are both others.
    """
    usual = class_pictures(name, draw=draw)
    negative = class_pictures(name, draw=draw, inverted=True)
    other = class_pictures(name, draw=draw + 1000)
    return alike(usual, negative), alike(usual, other)


def consistency(name: str, draw: int, criterion: str) -> float:
    """Correlation of a class's pictures at 20 and 80 % sparsity, the mean over the classes."""
    correlations = []
    for label in range(CLASSES):
        scores = class_scores(name, label, criterion, draw)
        light, heavy = _picture(scores, LIGHT), _picture(scores, HEAVY)
        correlations.append(np.corrcoef(light, heavy)[0, 1])
    return float(np.mean(correlations))


def figure6(name: str, draw: int) -> tuple[float, float]:
    """``consistency`` of masks ranked by SNIP, and of those ranked by the signed gradient."""
    return consistency(name, draw, "snip"), consistency(name, draw, "signed-gradient")


def overlaps(name: str, draw: int) -> tuple[float, float, float, float]:
    """Per cent of the kept connections that two masks share, the mean over the classes.

    Returns:
        Those of the original and the inverted images, and what chance gives (as many kept in each
        layer); those of two draws of the weights and images, and what chance gives.
    """
    shared = []
    for label in range(CLASSES):
        usual = masking.keep_top(class_scores(name, label, draw=draw), PICTURED)
        negative = class_scores(name, label, draw=draw, inverted=True)
        redrawn = class_scores(name, label, draw=draw + 1000)
        row: list[float] = []
        for scores in (negative, redrawn):
            row += masking.overlap(usual, masking.keep_top(scores, PICTURED))
        shared.append(row)
    with_negative, chance, with_redrawn, chance_redrawn = 100 * np.mean(shared, axis=0)
    return with_negative, chance, with_redrawn, chance_redrawn


def inverted_and_redrawn(names, draws: int) -> pd.DataFrame:
    """What a mask shares with that of the inverted images, and with one of another draw.

    Args:
        names: data sets.
        draws: how many of the weights and the images.

    Returns:
        DataFrame with "data", "second mask" ("inverted" or "redrawn"), "draw", "in common, %", "by
        chance, %" (see ``overlaps``) and "correlation of the pictures" (see ``figure5``).
    """
    rows = []
    for name in names:
        for draw in range(draws):
            shared = overlaps(name, draw)
            inverted, redrawn = figure5(name, draw)
            rows.append([name, "inverted", draw, *shared[:2], inverted])
            rows.append([name, "redrawn", draw, *shared[2:], redrawn])
    shares = ["in common, %", "by chance, %", "correlation of the pictures"]
    return pd.DataFrame(rows, columns=["data", "second mask", "draw", *shares])


def repeated(measure, draws: int, columns, names, criteria=None) -> pd.DataFrame:
    """A measure on several data sets, for several criteria, draw by draw.

    Args:
        measure: ``measure(name, draw)``, or ``measure(name, draw, criterion)``, gives a number or
            one for each of ``columns``.
        draws: how many.
        columns: names of the numbers.
        names: data sets.
        criteria: names in ``snipkit.CRITERIA``. None: the measure takes none.

    Returns:
        DataFrame with "data", "ranked by" (where there are criteria), "draw" and ``columns``.
    """
    rows = []
    for name in names:
        for criterion in criteria or [None]:
            for draw in range(draws):
                about = [] if criterion is None else [criterion]
                numbers = np.atleast_1d(measure(name, draw, *about))
                rows.append([name, *about, draw, *numbers])
    keys = ["data", "ranked by", "draw"] if criteria else ["data", "draw"]
    return pd.DataFrame(rows, columns=[*keys, *columns])


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
def _inverted_images(name):
    """Standardised, 255 - pixel is the negative: same standard deviation, and the mean 1 - mean."""
    part = _images(name)
    return dataclasses.replace(part, pixels=255 - part.pixels, mean=(1 - part.mean[0],))


@functools.cache
def _network(draw):
    return models.build("lenet-300-100", seed=draw)  # scoring leaves it as it is


def _picture(scores, sparsity):
    """The share of the 300 hidden units that keep each pixel: (784,)."""
    return masking.keep_top(scores, sparsity)["fc1.weight"].float().mean(0).numpy()
