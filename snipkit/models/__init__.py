"""The networks of the paper, each a plain ``nn.Module``, by name.

>>> model = build("lenet-300-100", init="lecun", seed=0)
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from snipkit.models import alexnet, lenet, recurrent, resnet, signals, vgg, wide_resnet
from snipkit.models.initialisers import INITIALISERS, initialise_

#: name → constructor ``(num_classes, **options) -> nn.Module``
MODELS: dict[str, Callable[..., nn.Module]] = {
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
    "resnet-20": resnet.ResNet20,  # not in the paper, but in most that followed it
    "mlp-1d": signals.MLP1D,  # these two are for MNIST-1D
    "cnn-1d": signals.CNN1D,
}


def build(
    name: str, *, num_classes: int = 10, init: str = "lecun", seed: int = 0, **options
) -> nn.Module:
    """Build a network on the CPU and draw its weights; it maps float images (B, C, size, size) to
    (B, num_classes).

    Args:
        name: a name in ``MODELS``.
        num_classes: number of outputs.
        init: a name in ``INITIALISERS``. Biases start at zero, normalisation layers at the
            identity.
        seed: of the draw. The global random state of torch is neither read nor changed.
        **options: the arguments of the network's class. All have ``image_size``: 28 for MNIST's
            networks, 40 for MNIST-1D's, else 32, or 64 with twice the stride in the first
            convolution. All but the LeNets have ``width``, which scales the hidden layers;
            LeNet-300-100 has ``first`` and ``second``. Those with batch norm have ``bn_momentum``;
            trainings of a few hundred steps need 0.1.

    Raises:
        ValueError: an unknown name or initialiser, or a wrong image size.
        TypeError: an option that this network does not have.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    # torch's own initial draw must not change the global random state.
    with torch.random.fork_rng(devices=[]):
        model = MODELS[name](num_classes=num_classes, **options)
    initialise_(model, init, seed)
    return model


__all__ = ["INITIALISERS", "MODELS", "build", "initialise_"]
