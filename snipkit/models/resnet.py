"""Residual networks of the follow-up literature (He et al. 2016): ResNet-20 and -32 for CIFAR, ResNet-18."""

import torch.nn.functional as F
from torch import nn

from snipkit.models.layers import first_stride, scaled


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the input (through a 1x1 convolution where the shape changes)."""

    def __init__(self, inputs, outputs, stride, momentum):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs, momentum=momentum)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs, momentum=momentum)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs, momentum=momentum)
            )

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 stem and groups of two-convolution blocks, each group but the first halving the image; no conv biases.

    The shortcuts are 1x1 convolutions where the shape changes, as in the pruning literature (open_lth, SynFlow). torch's own
    batch-norm settings and padding. ResNet-20 and -32 have groups of 16, 32 and 64 channels, ResNet-18 of 64 to 512.

    ``forward``: (B, 3, image_size, image_size) → (B, num_classes).

    Args:
        blocks: per group.
        channels: of each group.
        width: scales every hidden layer.
        image_size: 32, or 64 (the stem then has stride 2).
        bn_momentum: torch's batch-norm momentum.
    """

    def __init__(self, num_classes=10, blocks=3, channels=(16, 32, 64), width=1.0, image_size=32, bn_momentum=0.1):
        super().__init__()
        channels = [scaled(c, width) for c in channels]
        self.stem = nn.Conv2d(3, channels[0], 3, first_stride(1, image_size), padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels[0], momentum=bn_momentum)
        self.blocks, inputs = nn.ModuleList(), channels[0]
        for group, outputs in enumerate(channels):
            for number in range(blocks):
                self.blocks.append(Block(inputs, outputs, 2 if group and not number else 1, bn_momentum))
                inputs = outputs
        self.last = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.last(x.mean((2, 3)))
