"""Wide residual networks, WRN-depth-k (Zagoruyko and Komodakis 2016; SNIP, table 2)."""

import torch.nn.functional as F
from torch import nn

from snipkit.models.layers import BATCH_NORM, SameConv2d, first_stride, scaled


class Block(nn.Module):
    """Norm, ReLU, convolution, twice, added to the block's raw input (through a 1x1 convolution where the width changes)."""

    def __init__(self, inputs, outputs, stride, norm):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs, **norm), SameConv2d(inputs, outputs, 3, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs, **norm), SameConv2d(outputs, outputs, 3)
        self.shortcut = SameConv2d(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x)))
        return self.conv2(F.relu(self.norm2(y))) + self.shortcut(x)


class WideResNet(nn.Module):
    """Three groups of (depth − 4) / 6 pre-activation blocks, 16k, 32k and 64k channels wide, after a 16-channel stem.

    Prunable parameters with 10 classes: 10,958,666 (16-8), 17,113,258 (16-10), 17,153,610 (22-8). The authors never published
    their WRN. A bias on every convolution and batch norm left unpruned is the reading that gives the paper's kept counts
    (548k, 856k, 858k at 95 %) and that their follow-up code has; the "10.0m" printed for WRN-16-8 cannot give 548k.

    ``forward``: (B, 3, image_size, image_size) → (B, num_classes).

    Args:
        depth: 6n + 4.
        k: widening factor.
        width: scales every hidden layer.
        image_size: 32, or 64 (the stem then has stride 2).
        bn_momentum: torch's batch-norm momentum; the default is the authors'. Runs of a few hundred steps need 0.1.
    """

    def __init__(self, num_classes=10, depth=16, k=8, width=1.0, image_size=32, bn_momentum=BATCH_NORM["momentum"]):
        super().__init__()
        norm = BATCH_NORM | {"momentum": bn_momentum}
        channels = scaled(16, width)
        self.stem = SameConv2d(3, channels, 3, first_stride(1, image_size))
        self.blocks = nn.ModuleList()
        for group in range(3):
            outputs = scaled(16 * k * 2**group, width)
            for number in range((depth - 4) // 6):
                self.blocks.append(Block(channels, outputs, 2 if group and not number else 1, norm))
                channels = outputs
        self.norm, self.last = nn.BatchNorm2d(channels, **norm), nn.Linear(channels, num_classes)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.last(F.relu(self.norm(x)).mean((2, 3)))
