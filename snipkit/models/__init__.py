"""The paper's networks as plain ``nn.Module``s, by name.

>>> model = build("lenet-300-100", init="lecun", seed=0)
"""

from functools import partial

import torch
from torch import nn

from snipkit.models import alexnet, lenet, recurrent, resnet, vgg, wide_resnet
from snipkit.models.initialisers import INITIALISERS, initialise_

#: name → constructor ``(num_classes, **options) -> nn.Module``
MODELS = {
    "lenet-300-100": lenet.LeNet300100,
    "lenet-5-caffe": lenet.LeNet5Caffe,
    "alexnet-s": partial(alexnet.AlexNet, k=1),
    "alexnet-b": partial(alexnet.AlexNet, k=2),
    "vgg-c": partial(vgg.VGG, small_third=True),
    "vgg-d": vgg.VGG,
    "vgg-like": partial(vgg.VGG, hidden=1),
    "wrn-16-8": partial(wide_resnet.WideResNet, depth=16, k=8),
    "wrn-16-10": partial(wide_resnet.WideResNet, depth=16, k=10),
    "wrn-22-8": partial(wide_resnet.WideResNet, depth=22, k=8),
    "lstm-s": partial(recurrent.LSTM, units=128),
    "lstm-b": partial(recurrent.LSTM, units=256),
    "gru-s": partial(recurrent.GRU, units=128),
    "gru-b": partial(recurrent.GRU, units=256),
    # not in the paper, but in most that followed it
    "resnet-20": resnet.ResNet,
    "resnet-32": partial(resnet.ResNet, blocks=5),
    "resnet-18": partial(resnet.ResNet, blocks=2, channels=(64, 128, 256, 512)),
}


def build(name, *, num_classes=10, init="lecun", seed=0, **options) -> nn.Module:
    """Build a network on the CPU and draw its weights.

    Args:
        name: a name in ``MODELS``.
        num_classes: number of outputs.
        init: a name in ``INITIALISERS``; biases start at zero, normalisation layers at the identity.
        seed: seeds the generator of the draw; nothing else of torch's random state is read or moved.
        **options: the network's own switches, see its class: ``image_size`` for all, ``width`` for all but the LeNets, …

    Raises:
        ValueError: an unknown name or initialiser, or images of a size that this network is not for.
        TypeError: an option that this network does not have.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=[]):  # torch's own initial draw must not move the global random state
        model = MODELS[name](num_classes=num_classes, **options)
    initialise_(model, init, seed)
    return model


__all__ = ["INITIALISERS", "MODELS", "build", "initialise_"]
