"""ResNet-20 for images of 32 pixels (He et al. 2016), which most follow-up papers prune."""

import torch.nn.functional as F
from torch import nn

from snipkit.models.layers import SameConv2d, first_stride, scaled


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the input (through a 1x1 convolution where the
    shape changes).
    """

    def __init__(self, inputs, outputs, stride, momentum):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs, momentum=momentum)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs, momentum=momentum)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:  # with a small width, both can be 1
            self.shortcut.append(SameConv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs, momentum=momentum))

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet20(nn.Module):
    """A 3x3 convolution, three groups of three blocks with 16, 32 and 64 channels, and a linear
    layer.

    The second and the third group halve the image. The shortcuts are 1x1 convolutions where the
    shape changes, as in the pruning literature (open_lth, SynFlow). Batch norm and padding are
    torch's own.
    """

    def __init__(self, num_classes=10, width=1.0, image_size=32, bn_momentum=0.1):
        super().__init__()
        inputs = scaled(16, width)
        self.stem = nn.Conv2d(3, inputs, 3, first_stride(1, image_size), padding=1, bias=False)
        self.norm = nn.BatchNorm2d(inputs, momentum=bn_momentum)
        self.blocks = nn.ModuleList()
        for group in range(3):
            outputs = scaled(16 * 2**group, width)
            for number in range(3):
                self.blocks.append(
                    Block(inputs, outputs, 2 if group and not number else 1, bn_momentum)
                )
                inputs = outputs
        self.last = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.last(x.mean((2, 3)))
