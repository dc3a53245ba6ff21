"""VGG-C, VGG-D and VGG-like (SNIP, table 6)."""

from typing import Any

import torch.nn.functional as F
from torch import nn

from snipkit.models.layers import BN_MOMENTUM, SameConv2d, first_stride, norm, scaled

#: channels of the convolutions of each group; a 2x2 max-pool ends a group
GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Thirteen convolutions in five groups, then linear layers, with bias, batch norm and ReLU
    after each but the last.

    Prunable parameters with 10 classes: 10,526,538 (C), 15,245,130 (D), 14,982,474 (like). It has
    no dropout.

    Args:
        small_third: the third convolution of groups three to five is 1x1 (VGG-C).
        hidden: linear layers of 512 units before the last: two in C and D, one in VGG-like.
    """

    def __init__(
        self,
        num_classes=10,
        small_third=False,
        hidden=2,
        width=1.0,
        image_size=32,
        bn_momentum=BN_MOMENTUM,
    ):
        super().__init__()
        self.groups, inputs, stride = nn.ModuleList(), 3, first_stride(1, image_size)
        for group in GROUPS:
            layers = nn.ModuleList()
            for place, outputs in enumerate(group):
                outputs, kernel = scaled(outputs, width), 1 if small_third and place == 2 else 3
                conv = SameConv2d(inputs, outputs, kernel, stride)
                layers.append(nn.ModuleDict({"conv": conv, "norm": norm(outputs, bn_momentum)}))
                inputs, stride = outputs, 1
            self.groups.append(layers)
        units, self.hidden = scaled(512, width), nn.ModuleList()
        for _ in range(hidden):
            layer = {
                "fc": nn.Linear(inputs, units),
                "norm": norm(units, bn_momentum, nn.BatchNorm1d),
            }
            self.hidden.append(nn.ModuleDict(layer))
            inputs = units
        self.last = nn.Linear(units, num_classes)

    def forward(self, x):
        group: Any  # a ModuleList of ModuleDicts, as all of these; torch calls them Module
        layer: Any
        for group in self.groups:
            for layer in group:
                x = F.relu(layer["norm"](layer["conv"](x)))
            x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        for layer in self.hidden:
            x = F.relu(layer["norm"](layer["fc"](x)))
        return self.last(x)
