"""The two networks of SNIP's MNIST experiments (section 5.1)."""

import torch.nn.functional as F
from torch import nn

from snipkit.models.layers import ThreeLayers, only_size


class LeNet300100(ThreeLayers):
    """784-300-100-classes, fully connected, ReLU in between; 266,610 parameters for 10 classes.

    Args:
        first, second: units of the hidden layers.
    """

    def __init__(self, num_classes=10, first=300, second=100, image_size=28):
        only_size(28, image_size)
        super().__init__(784, first, second, num_classes)


class LeNet5Caffe(nn.Module):
    """Two 5x5 convolutions with max-pooling, then 800-500-classes; 431,080 parameters for 10
    classes.

    Args:
        conv_relu: a ReLU after each convolution. The authors' code and Caffe's example have none;
            most ports add it.
    """

    def __init__(self, num_classes=10, conv_relu=False, image_size=28):
        super().__init__()
        only_size(28, image_size)
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
