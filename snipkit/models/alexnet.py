"""AlexNet-s and AlexNet-b, the paper's AlexNets without pooling (SNIP, table 5)."""

import torch.nn.functional as F
from torch import nn

from snipkit.models.layers import BN_MOMENTUM, SameConv2d, first_stride, norm, scaled

#: (outputs, kernel, stride) of the five convolutions
CONVOLUTIONS = ((96, 11, 2), (256, 5, 2), (384, 3, 2), (384, 3, 2), (256, 3, 2))


class AlexNet(nn.Module):
    """Five strided convolutions and three linear layers, with bias, batch norm and ReLU after each
    but the last.

    It has 5,070,218 prunable parameters for ``k=1`` (s) and 8,490,378 for ``k=2`` (b), with 10
    classes. Section 5.3 of the paper gives the linear layers 512 and 1024 units; its table 5, its
    counts and the code give them 1024 and 2048.

    Args:
        k: the linear layers have 1024·k units.
    """

    def __init__(self, num_classes=10, k=1, width=1.0, image_size=32, bn_momentum=BN_MOMENTUM):
        super().__init__()
        self.convs, self.conv_norms, inputs = nn.ModuleList(), nn.ModuleList(), 3
        for number, (outputs, kernel, stride) in enumerate(CONVOLUTIONS):
            outputs, stride = (
                scaled(outputs, width),
                first_stride(stride, image_size) if number == 0 else stride,
            )
            self.convs.append(SameConv2d(inputs, outputs, kernel, stride))
            self.conv_norms.append(norm(outputs, bn_momentum))
            inputs = outputs
        units = scaled(1024 * k, width)
        self.fc1, self.norm1 = nn.Linear(inputs, units), norm(units, bn_momentum, nn.BatchNorm1d)
        self.fc2, self.norm2 = nn.Linear(units, units), norm(units, bn_momentum, nn.BatchNorm1d)
        self.fc3 = nn.Linear(units, num_classes)

    def forward(self, x):
        for conv, bn in zip(self.convs, self.conv_norms):
            x = F.relu(bn(conv(x)))
        x = F.relu(self.norm1(self.fc1(x.flatten(1))))
        x = F.relu(self.norm2(self.fc2(x)))
        return self.fc3(x)
