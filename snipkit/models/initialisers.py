"""Weight initialisers by name, drawn from an explicit generator.

All "variance scaling" schemes draw from a normal distribution truncated at two standard deviations, as TensorFlow 1
did, with the width corrected so that the *truncated* distribution has the stated variance.
"""

import math

import torch
from torch import nn

#: standard deviation of a standard normal distribution truncated at ±2
TRUNCATED_STD = 0.87962566103423978


def _truncated(weight, std, generator):
    """A normal distribution of standard deviation ``std``, cut off at two of it: what lies outside is drawn again.

    ``nn.init.trunc_normal_`` draws the same numbers in torch 2.13 and others in 2.11; a seed is to mean one draw.
    """
    weight.normal_(std=std, generator=generator)
    while (outside := weight.abs() > 2 * std).any():
        weight.copy_(torch.where(outside, torch.empty_like(weight).normal_(std=std, generator=generator), weight))


def _variance_scaling(gain, fan):
    """Variance ``gain / fan(fan_in, fan_out)``."""

    def draw(weight, fan_in, fan_out, generator):
        _truncated(weight, math.sqrt(gain / fan(fan_in, fan_out)) / TRUNCATED_STD, generator)

    return draw


def _normal(weight, fan_in, fan_out, generator):
    nn.init.normal_(weight, std=1.0, generator=generator)


def _truncated_normal(weight, fan_in, fan_out, generator):
    _truncated(weight, 1.0, generator)


#: name → function ``(weight, fan_in, fan_out, generator)`` filling the weight in place.
#: ``lecun`` is the default of the authors' code; ``glorot`` and ``he`` are VS-X and VS-H of the paper's Table 3,
#: ``normal`` and ``truncated-normal`` its RN and TN. The paper does not give the width of the last two: 1.0 is the
#: framework's default of the time (and what the authors' later code uses).
INITIALISERS = {
    "lecun": _variance_scaling(1.0, lambda fan_in, fan_out: fan_in),
    "glorot": _variance_scaling(1.0, lambda fan_in, fan_out: (fan_in + fan_out) / 2),
    "he": _variance_scaling(2.0, lambda fan_in, fan_out: fan_in),
    "normal": _normal,
    "truncated-normal": _truncated_normal,
}


@torch.no_grad()
def initialise_(model, name, seed):
    """Draw all weights of ``model`` in place: matrices and kernels by the scheme, biases zero, norm layers identity.

    Args:
        model: any ``nn.Module`` of layers with a weight of two or more dimensions (outputs first), biases, and
            normalisation layers.
        name: a name in ``INITIALISERS``.
        seed: int; a CPU generator seeded with it is drawn from in parameter order.

    Raises:
        ValueError: an unknown initialiser.
    """
    if name not in INITIALISERS:
        raise ValueError(f"unknown initialiser {name!r}; known: {', '.join(INITIALISERS)}")
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)):
            module.reset_parameters()  # scale 1, shift 0, running mean 0, running variance 1
            continue
        for weight in module.parameters(recurse=False):
            if weight.dim() < 2:
                weight.zero_()
                continue
            field = weight[0, 0].numel()  # kernel positions; 1 for a matrix
            INITIALISERS[name](weight, weight.shape[1] * field, weight.shape[0] * field, generator)
