"""Masks as images: for each input pixel, how much of the first layer still looks at it."""

import math
from collections.abc import Collection, Mapping

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

from snipkit import masking


def mask_picture(masks: Mapping[str, Tensor], shape: tuple[int, int] | None = None) -> np.ndarray:
    """Per cent of the first layer's units that keep each input pixel.

    Args:
        masks: name → bool tensor; the first weight is the one pictured.
        shape: (height, width) of an image. None: a square one, for one or three channels.

    Returns:
        An array of that shape. Channels are averaged. Of a convolution it is the kernel: the share of the pairs of an
        input and an output channel that keep each place.

    Raises:
        ValueError: there is no weight, or its inputs are no image of this shape.
    """
    weights = [name for name in masks if not masking.is_bias(name)]
    if not weights:
        raise ValueError("no picture of masks without a weight: pass those of all layers")
    mask = masks[weights[0]].detach().cpu().double()
    if mask.dim() == 4:
        return 100 * mask.mean((0, 1)).numpy()
    inputs = mask.shape[-1]
    if shape is None:
        side = math.isqrt(inputs // 3 if inputs % 3 == 0 and math.isqrt(inputs // 3) ** 2 * 3 == inputs else inputs)
        shape = side, side
    pixels = math.prod(shape)
    if mask.dim() != 2 or inputs % pixels or inputs // pixels not in (1, 3):
        raise ValueError(f"{weights[0]} has shape {tuple(mask.shape)}: its inputs are no image of {shape}; pass shape")
    return 100 * mask.mean(0).view(-1, *shape).mean(0).numpy()


def draw_pictures(
    pictures: Mapping[str, Mapping[str, np.ndarray]],
    label: str = "% of the first layer's\nunits that keep the pixel",
    beside: Collection[str] = (),
    size: float = 1.15,
):
    """A sheet of grey pictures: a row each with its own scale and colour bar, 0 black and the row's highest value white.

    Args:
        pictures: row → column → an array of (height, width); a row may lack a column.
        label: of the colour bars.
        beside: columns that show something else, such as a mean image: each of their pictures has its own scale.
        size: of a picture, in inches.

    Returns:
        The matplotlib figure.
    """
    columns = list(dict.fromkeys(column for row in pictures.values() for column in row))
    figure, axes = plt.subplots(
        len(pictures),
        len(columns),
        figsize=(1.3 + size * len(columns), 0.3 + 1.05 * size * len(pictures)),
        squeeze=False,
    )
    for axes_of_row, (row, images) in zip(axes, pictures.items()):
        top = max((np.max(image) for column, image in images.items() if column not in beside), default=1)
        shared = None
        for ax, column in zip(axes_of_row, columns):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if ax in axes[0]:
                ax.set_title(column)
            if column not in images:
                continue
            highest = np.max(images[column]) if column in beside else top
            image = ax.imshow(images[column], cmap="gray", vmin=0, vmax=highest or 1, interpolation="nearest")
            shared = shared if column in beside else image
        axes_of_row[0].set_ylabel(row)
        if shared is not None:
            figure.colorbar(shared, ax=list(axes_of_row), shrink=0.9, pad=0.02)
    figure.supxlabel("") if not label else axes[0, 0].figure.text(1.005, 0.5, label, rotation=90, va="center")
    return figure
