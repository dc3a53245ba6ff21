"""AlexNet-s and AlexNet-b, the paper's all-convolutional-stride AlexNets (SNIP, table 5)."""

import torch.nn.functional as F
from torch import nn

from snipkit.models.layers import BATCH_NORM, SameConv2d, first_stride, scaled

#: (outputs, kernel, stride) of the five convolutions
CONVOLUTIONS = ((96, 11, 2), (256, 5, 2), (384, 3, 2), (384, 3, 2), (256, 3, 2))


class AlexNet(nn.Module):
    """Five strided convolutions and three linear layers; bias, batch norm and ReLU after each but the last.

    5,070,218 prunable parameters for ``k=1`` (s), 8,490,378 for ``k=2`` (b), with 10 classes. Section 5.3 of the paper says the linear layers are
    512 and 1024 wide; its table 5, its counts and the code say 1024 and 2048, so that is what they are here.

    ``forward``: (B, 3, image_size, image_size) → (B, num_classes).

    Args:
        k: the linear layers have 1024·k units.
        width: scales every hidden layer.
        image_size: 32 or 64.
        bn_momentum: torch's batch-norm momentum; the default is the authors'. Runs of a few hundred steps need 0.1.
    """

    def __init__(self, num_classes=10, k=1, width=1.0, image_size=32, bn_momentum=BATCH_NORM["momentum"]):
        super().__init__()
        norm = BATCH_NORM | {"momentum": bn_momentum}
        self.convs, self.conv_norms, channels = nn.ModuleList(), nn.ModuleList(), 3
        for number, (outputs, kernel, stride) in enumerate(CONVOLUTIONS):
            outputs = scaled(outputs, width)
            stride = first_stride(stride, image_size) if number == 0 else stride
            self.convs.append(SameConv2d(channels, outputs, kernel, stride))
            self.conv_norms.append(nn.BatchNorm2d(outputs, **norm))
            channels = outputs
        units = scaled(1024 * k, width)
        self.fc1, self.norm1 = nn.Linear(channels, units), nn.BatchNorm1d(units, **norm)
        self.fc2, self.norm2 = nn.Linear(units, units), nn.BatchNorm1d(units, **norm)
        self.fc3 = nn.Linear(units, num_classes)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.conv_norms):
            x = F.relu(norm(conv(x)))
        x = x.flatten(1)
        x = F.relu(self.norm1(self.fc1(x)))
        x = F.relu(self.norm2(self.fc2(x)))
        return self.fc3(x)
