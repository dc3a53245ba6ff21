"""The paper's networks as plain ``nn.Module``s, by name.

>>> model = build("lenet-300-100", init="lecun", seed=0)
"""

import torch
from torch import nn

from snipkit.models import lenet
from snipkit.models.initialisers import INITIALISERS, initialise_

#: name → constructor ``(num_classes, **options) -> nn.Module``
MODELS = {
    "lenet-300-100": lenet.LeNet300100,
    "lenet-5-caffe": lenet.LeNet5Caffe,
}


def build(name, *, num_classes=10, init="lecun", seed=0, **options) -> nn.Module:
    """Build a network on the CPU and draw its weights.

    Args:
        name: a name in ``MODELS``.
        num_classes: number of outputs.
        init: a name in ``INITIALISERS``; biases start at zero, normalisation layers at the identity.
        seed: seeds the generator of the draw; nothing else of torch's random state is read or moved.
        **options: the network's own switches, see its class.

    Raises:
        ValueError: an unknown name or initialiser.
        TypeError: an option that this network does not have.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=[]):  # torch's own initial draw must not move the global random state
        model = MODELS[name](num_classes=num_classes, **options)
    initialise_(model, init, seed)
    return model


__all__ = ["INITIALISERS", "MODELS", "build", "initialise_"]
