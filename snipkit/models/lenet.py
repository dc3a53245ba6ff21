"""The two networks of SNIP's MNIST experiments (section 5.1)."""

import torch.nn.functional as F
from torch import nn


class LeNet300100(nn.Module):
    """784-300-100-classes, fully connected, ReLU in between; 266,610 parameters for 10 classes.

    Args:
        hidden: the numbers of units of the two hidden layers; ``dense_widths`` finds them for a number of parameters.
    """

    def __init__(self, num_classes=10, image_size=28, hidden=(300, 100)):
        super().__init__()
        only_28(image_size)
        if len(hidden) != 2 or min(hidden) < 1:
            raise ValueError(f"hidden is {hidden}; it is the number of units of two layers, each at least 1")
        first, second = hidden
        self.fc1 = nn.Linear(784, first)
        self.fc2 = nn.Linear(first, second)
        self.fc3 = nn.Linear(second, num_classes)

    def forward(self, x):
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def dense_widths(parameters: int, num_classes: int = 10) -> list[int]:
    """The ``hidden`` of the dense LeNet-300-100 with this number of parameters or just below: a baseline for pruning.

    The first layer is as wide as it can be with a third as many units in the second; the second then takes what is
    left, so that it is no bottleneck of a few units.

    Raises:
        ValueError: too few parameters for one unit in each layer.
    """

    def second(first):  # the widest second layer beside it
        return (parameters - 785 * first - num_classes) // (first + 1 + num_classes)

    fitting = [first for first in range(1, parameters // 785 + 1) if second(first) >= max(1, first // 3)]
    if not fitting:
        raise ValueError(f"{parameters} parameters are too few for one hidden unit in each layer of LeNet-300-100")
    return [fitting[-1], second(fitting[-1])]


class LeNet5Caffe(nn.Module):
    """Two 5x5 convolutions with max-pooling, then 800-500-classes; 431,080 parameters for 10 classes.

    Args:
        conv_relu: a ReLU after each convolution. The authors' code and Caffe's example have none; most ports add it.
    """

    def __init__(self, num_classes=10, conv_relu=False, image_size=28):
        super().__init__()
        only_28(image_size)
        self.after = nn.ReLU() if conv_relu else nn.Identity()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x):
        x = F.max_pool2d(self.after(self.conv1(x)), 2)
        x = F.max_pool2d(self.after(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


def only_28(image_size) -> None:
    """Raise ValueError for an image size other than MNIST's."""
    if image_size != 28:
        raise ValueError(f"this network is for images of 28 pixels, not {image_size}")
