"""VGG-C, VGG-D and VGG-like (SNIP, table 6)."""

import torch.nn.functional as F
from torch import nn

from snipkit.models.layers import BATCH_NORM, SameConv2d, first_stride, scaled

#: channels of the convolutions of each group; a 2x2 max-pool ends a group
GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Thirteen convolutions in five groups, then linear layers of 512; bias, batch norm and ReLU after each but the last.

    Prunable parameters with 10 classes: 10,526,538 (C), 15,245,130 (D), 14,982,474 (like). No dropout.

    ``forward``: (B, 3, image_size, image_size) → (B, num_classes).

    Args:
        small_third: the third convolution of groups three to five is 1x1 (VGG-C).
        hidden: linear layers of 512 units before the last: two in C and D, one in VGG-like.
        width: scales every hidden layer.
        image_size: 32, or 64 (the first convolution then has stride 2).
        bn_momentum: torch's batch-norm momentum; the default is the authors'. Runs of a few hundred steps need 0.1.
    """

    def __init__(
        self, num_classes=10, small_third=False, hidden=2, width=1.0, image_size=32, bn_momentum=BATCH_NORM["momentum"]
    ):
        super().__init__()
        norm = BATCH_NORM | {"momentum": bn_momentum}
        self.groups, inputs = nn.ModuleList(), 3
        for number, group in enumerate(GROUPS):
            layers = nn.ModuleList()
            for place, outputs in enumerate(group):
                outputs = scaled(outputs, width)
                kernel = 1 if small_third and place == 2 else 3
                stride = first_stride(1, image_size) if number == place == 0 else 1
                conv, inputs = SameConv2d(inputs, outputs, kernel, stride), outputs
                layers.append(nn.ModuleDict({"conv": conv, "norm": nn.BatchNorm2d(outputs, **norm)}))
            self.groups.append(layers)
        units = scaled(512, width)
        self.hidden = nn.ModuleList()
        for _ in range(hidden):
            self.hidden.append(nn.ModuleDict({"fc": nn.Linear(inputs, units), "norm": nn.BatchNorm1d(units, **norm)}))
            inputs = units
        self.last = nn.Linear(units, num_classes)

    def forward(self, x):
        for group in self.groups:
            for layer in group:
                x = F.relu(layer["norm"](layer["conv"](x)))
            x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        for layer in self.hidden:
            x = F.relu(layer["norm"](layer["fc"](x)))
        return self.last(x)
