"""Masks as images: for each input pixel, how much of the first layer still looks at it."""

import math
from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

import snipkit


def mask_picture(masks: Mapping[str, Tensor], shape: tuple[int, int] | None = None) -> np.ndarray:
    """Per cent of the first layer's units that keep each input pixel.

    Args:
        masks: name → bool tensor; the first weight is the one pictured.
        shape: (height, width) of an image. None: a square one, for one or three channels.

    Returns:
        An array of that shape. Channels are averaged. Of a convolution it is the kernel: the share
        of the pairs of an input and an output channel that keep each place.

    Raises:
        ValueError: there is no weight, or its inputs are no image of this shape.
    """
    weights = [name for name in masks if not snipkit.is_bias(name)]
    if not weights:
        raise ValueError("no picture of masks without a weight: pass those of all layers")
    mask = masks[weights[0]].detach().cpu().double()
    if mask.dim() == 4:
        return 100 * mask.mean((0, 1)).numpy()
    if shape is None:
        shape = _square(mask.shape[-1])
    pixels = math.prod(shape)
    channels, remainder = divmod(mask.shape[-1], pixels)
    if mask.dim() != 2 or remainder or channels not in (1, 3):
        raise ValueError(
            f"{weights[0]} is {tuple(mask.shape)}: its inputs are no image of {shape}; pass shape"
        )
    return 100 * mask.mean(0).view(-1, *shape).mean(0).numpy()


def _square(inputs):
    """(height, width) of a square image with so many values, of one channel or of three."""
    for channels in (1, 3):
        side = math.isqrt(inputs // channels)
        if channels * side**2 == inputs:
            return side, side
    raise ValueError(f"{inputs} inputs are no square image: pass shape, (height, width)")


def draw_pictures(
    pictures: Mapping[str, Mapping[str, np.ndarray]],
    label: str = "% of units",
    beside: Collection[str] = (),
    size: float = 1.15,
    percentile: float = 100,
    beyond: Collection[str] = (),
):
    """A sheet of grey pictures, 0 black and the highest value of a row white.

    Args:
        pictures: row → column → an array of (height, width); a row may lack a column.
        label: beside each colour bar.
        beside: columns that show something else, such as a mean image: each of their pictures has
            its own scale.
        size: of a picture, in inches.
        percentile: of a row's values that is white; all above it are white too.
        beyond: columns that have no part in finding that value.

    Returns:
        The matplotlib figure.
    """
    columns = list(dict.fromkeys(column for images in pictures.values() for column in images))
    figure, axes = plt.subplots(
        len(pictures),
        len(columns),
        figsize=(1.3 + size * len(columns), 0.3 + size * len(pictures)),
        squeeze=False,
        layout="constrained",
    )
    for ax, column in zip(axes[0], columns):
        ax.set_title(column)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)

    for axes_of_row, (row, images) in zip(axes, pictures.items()):
        axes_of_row[0].set_ylabel(row)
        images = {column: np.asarray(image) for column, image in images.items()}
        scaled = []
        for column, image in images.items():
            if column not in beside and column not in beyond:
                scaled.append(image.ravel())
        highest = np.percentile(np.concatenate(scaled), percentile)
        axes_of_scale = []
        for ax, column in zip(axes_of_row, columns):
            if column in beside and column in images:
                _grey(ax, images[column], images[column].max())
            elif column in images:
                shared = _grey(ax, images[column], highest)
                axes_of_scale.append(ax)
        figure.colorbar(shared, ax=axes_of_scale, label=label, pad=0.02)
    return figure


def draw_sheets(
    sheets: Mapping[str, np.ndarray],
    rows: Sequence,
    columns: Sequence,
    labels: tuple[str, str],
    scale_rows: bool = False,
):
    """Contact sheets side by side: many small pictures each, 0 black and 1 white, in 16 greys.

    Args:
        sheets: title → an array of (rows, columns, height, width).
        rows, columns: what stands beside each row, and below each column.
        labels: of the rows and of the columns.
        scale_rows: make the highest value of a row white in place of 1, and write it on its right.

    Returns:
        The matplotlib figure.
    """
    across = {title: 0.33 * len(columns) * (1 if len(columns) > 5 else 1.6) for title in sheets}
    size = (
        0.9 + sum(across.values()) + 0.6 * len(sheets) * scale_rows,
        0.75 + next(iter(across.values())) * len(rows) / len(columns),
    )
    figure, axes = plt.subplots(1, len(sheets), figsize=size, squeeze=False, layout="constrained")
    for ax, (title, images) in zip(axes[0], sheets.items()):
        highest = images.max((1, 2, 3), keepdims=True)
        if scale_rows:
            images = images / np.where(highest > 0, highest, 1)
            right = ax.secondary_yaxis("right")
            marks = [f"{100 * top:.0f} %" for top in highest.flat]
            right.set_yticks((images.shape[2] + 2) * (np.arange(len(rows)) + 0.5), marks)
            right.tick_params(length=0)
            right.spines[:].set_visible(False)
            right.set_ylabel("white")
        framed = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.5)
        height, width = framed.shape[2:]
        sheet = framed.swapaxes(1, 2).reshape(len(rows) * height, len(columns) * width)
        ax.imshow((16 * sheet).round() / 16, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(title)
        ax.set_xticks(width * (np.arange(len(columns)) + 0.5), columns)
        ax.set_yticks(height * (np.arange(len(rows)) + 0.5), rows)
        ax.set_xlabel(labels[1])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    axes[0, 0].set_ylabel(labels[0])
    return figure


def _grey(ax, image, top):
    """One grey picture, 0 black and ``top`` white."""
    return ax.imshow(image, cmap="gray", vmin=0, vmax=top or 1, interpolation="nearest")
