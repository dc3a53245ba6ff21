"""Two small networks for MNIST-1D, signals of 40 points.

Not in the paper, but cheap enough for many seeds.
"""

import torch.nn.functional as F
from torch import nn

from snipkit.models.layers import ThreeLayers, only_size, scaled


class MLP1D(ThreeLayers):
    """40-200-200-classes, fully connected, ReLU in between; 50,410 parameters for 10 classes.

    Args:
        width: times 200 units in both hidden layers.
    """

    def __init__(self, num_classes=10, width=1.0, image_size=40):
        only_size(40, image_size)
        units = scaled(200, width)
        super().__init__(40, units, units, num_classes)


class CNN1D(nn.Module):
    """Three convolutions along the signal, each with stride 2, then 125-classes; 5,210 parameters
    for 10 classes.

    Args:
        width: times 25 channels in all layers.

    Source: the ``ConvBase`` of Greydanus and Kobak (arXiv 2011.14439), as convolutions over one row
    of pixels.
    """

    def __init__(self, num_classes=10, width=1.0, image_size=40):
        super().__init__()
        only_size(40, image_size)
        channels = scaled(25, width)
        self.conv1 = nn.Conv2d(1, channels, (1, 5), (1, 2), (0, 1))
        self.conv2 = nn.Conv2d(channels, channels, (1, 3), (1, 2), (0, 1))
        self.conv3 = nn.Conv2d(channels, channels, (1, 3), (1, 2), (0, 1))
        self.last = nn.Linear(5 * channels, num_classes)

    def forward(self, x):
        for layer in (self.conv1, self.conv2, self.conv3):
            x = F.relu(layer(x))
        return self.last(x.flatten(1))
