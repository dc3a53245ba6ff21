"""Our masks beside those of the authors' own TensorFlow code, for the same weights and the same
batch.

``tests/data/authors_masks_*.npz`` holds what github.com/namhoonlee/snip-public (commit f028496,
unmodified, on TensorFlow 2.21) drew and chose: weights (``w_…``), the scoring batch (``x``, ``y``)
and masks (``mask90_…``, …).
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import snipkit
from snipkit import models

DATA = Path(__file__).parent / "data"
FLATTENED = (4, 4, 50)  # what LeNet-5's first linear layer reads: height, width, channel
# file, our network, our layers in the authors' order (w1, b1, w2, b2, …)
CASES = [
    ("lenet300", "lenet-300-100", ["fc1", "fc2", "fc3"]),
    ("lenet5", "lenet-5-caffe", ["conv1", "conv2", "fc1", "fc2"]),
]


def in_our_layout(array):
    """TensorFlow's kernels are (height, width, in, out), its matrices (in, out); torch has the
    output first.
    """
    tensor = torch.from_numpy(array)
    if tensor.dim() == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    if tensor.dim() == 2 and len(tensor) == np.prod(FLATTENED):
        return tensor.view(*FLATTENED, -1).permute(3, 2, 0, 1).flatten(1).contiguous()
    return tensor.T.contiguous() if tensor.dim() == 2 else tensor


@pytest.mark.parametrize("file, network, layers", CASES, ids=[case[0] for case in CASES])
def test_our_masks_are_the_authors_to_the_last_connection(file, network, layers):
    stored = np.load(DATA / f"authors_masks_{file}.npz")
    images = torch.from_numpy(stored["x"]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(stored["y"]).long()
    authors_names = {}
    for number, layer in enumerate(layers, 1):
        authors_names |= {f"{layer}.weight": f"w{number}", f"{layer}.bias": f"b{number}"}
    weights = {name: in_our_layout(stored[f"w_{short}"]) for name, short in authors_names.items()}
    for percent in (90, 98, 99):
        # In double precision: at 98 % the scores beside LeNet-5's cut differ by one part in
        # 700,000, and another CPU may round float32 the other way. (Here float32 gives the same
        # masks.)
        model = models.build(network).double()
        model.load_state_dict(weights)
        masks = snipkit.prune(model, (images.double(), labels), percent / 100)
        assert masks.keys() == authors_names.keys()
        different = 0
        for name, authors_name in authors_names.items():
            shape = stored[f"w_{authors_name}"].shape
            bits = np.unpackbits(stored[f"mask{percent}_{authors_name}"], count=np.prod(shape))
            different += int((masks[name] != in_our_layout(bits.astype(bool).reshape(shape))).sum())
        assert different == 0, f"{different} connections differ at {percent} %"
