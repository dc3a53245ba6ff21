"""Layers that the paper's framework has and torch has not."""

import torch.nn.functional as F
from torch import nn

# Of the authors' code: TensorFlow's defaults, a moving average of 0.99.
BN_MOMENTUM, BN_EPSILON = 0.01, 0.001


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: ceil(size / stride) outputs, the odd pixel of
    padding at the end.

    torch pads both sides alike, which moves the grid of a strided convolution by a pixel.
    """

    def forward(self, x):
        if self.kernel_size == (1, 1):
            # oneDNN's strided kernel fails with few channels last in memory: its issue 6035.
            return F.conv2d(x[:, :, :: self.stride[0], :: self.stride[1]], self.weight, self.bias)
        padding = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        if padding[::2] == padding[1::2]:
            # The convolution pads symmetrically by itself, without a copy.
            return F.conv2d(x, self.weight, self.bias, self.stride, padding[::-2])
        return F.conv2d(F.pad(x, padding), self.weight, self.bias, self.stride)


class ThreeLayers(nn.Module):
    """Fully connected, ReLU in between."""

    def __init__(self, inputs, first, second, num_classes):
        super().__init__()
        self.fc1 = nn.Linear(inputs, first)
        self.fc2 = nn.Linear(first, second)
        self.fc3 = nn.Linear(second, num_classes)

    def forward(self, x):
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def norm(channels, momentum, kind=nn.BatchNorm2d) -> nn.Module:
    """The authors' batch norm.

    ``momentum`` is torch's; trainings of a few hundred steps need 0.1.
    """
    return kind(channels, momentum=momentum, eps=BN_EPSILON)


def scaled(channels, width) -> int:
    """``channels`` times ``width``, at least 1."""
    return max(1, round(channels * width))


def only_size(size, image_size) -> None:
    """Raise ValueError for images (signals) that are not ``size`` pixels (points) wide."""
    if image_size != size:
        raise ValueError(f"this network is for inputs {size} wide, not {image_size}")


def first_stride(stride, image_size) -> int:
    """The stride of a network's first convolution: doubled for 64x64 images (SNIP, appendix C).

    Raises:
        ValueError: images that are neither 32 nor 64 pixels wide.
    """
    if image_size not in (32, 64):
        raise ValueError(f"this network is for images of 32 or 64 pixels, not {image_size}")
    return stride * image_size // 32
