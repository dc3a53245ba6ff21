"""Weight initialisers by name, drawn from an explicit generator.

All "variance scaling" schemes draw from a normal distribution truncated at two standard deviations,
as TensorFlow 1 did, with the width corrected so that the *truncated* distribution has the stated
variance.
"""

import math

import torch

from snipkit._prunable import is_norm

#: standard deviation of a standard normal distribution truncated at ±2
TRUNCATED_STD = 0.87962566103423978


def _truncated(weight, std, generator):
    """A normal distribution of standard deviation ``std``, truncated at two of it: values outside
    are drawn again.

    ``nn.init.trunc_normal_`` draws other numbers in torch 2.11 than in 2.13; a seed must mean one
    draw.
    """
    weight.normal_(std=std, generator=generator)
    while (outside := weight.abs() > 2 * std).any():
        weight.copy_(
            torch.where(
                outside, torch.empty_like(weight).normal_(std=std, generator=generator), weight
            )
        )


def _variance_scaling(gain, fan):
    """Variance ``gain / fan(fan_in, fan_out)``."""

    def draw(weight, fan_in, fan_out, generator):
        _truncated(weight, math.sqrt(gain / fan(fan_in, fan_out)) / TRUNCATED_STD, generator)

    return draw


#: name → function ``(weight, fan_in, fan_out, generator)`` that fills the weight in place.
#: ``lecun`` is the default of the authors' code. ``glorot`` and ``he`` are VS-X and VS-H of its
#: table 3, ``normal`` and ``truncated-normal`` RN and TN. The paper does not give the width of
#: these two: 1.0 is its framework's default of the time.
INITIALISERS = {
    "lecun": _variance_scaling(1.0, lambda fan_in, fan_out: fan_in),
    "glorot": _variance_scaling(1.0, lambda fan_in, fan_out: (fan_in + fan_out) / 2),
    "he": _variance_scaling(2.0, lambda fan_in, fan_out: fan_in),
    "normal": lambda weight, fan_in, fan_out, generator: weight.normal_(generator=generator),
    "truncated-normal": lambda weight, fan_in, fan_out, generator: _truncated(weight, 1, generator),
}


@torch.no_grad()
def initialise_(model: torch.nn.Module, name: str, seed: int) -> None:
    """Draw all weights of ``model`` in place: matrices and kernels by the scheme, biases zero, norm
    layers identity.

    Args:
        model: any module. Parameters of two or more dimensions have their outputs first; all others
            are set to zero.
        name: a name in ``INITIALISERS``.
        seed: of the CPU generator that all weights are drawn from, in parameter order.

    Raises:
        ValueError: an unknown initialiser.
    """
    if name not in INITIALISERS:
        raise ValueError(f"unknown initialiser {name!r}; known: {', '.join(INITIALISERS)}")
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if is_norm(module):
            # Scale 1, shift 0, running mean 0, running variance 1.
            module.reset_parameters()  # type: ignore[operator]
            continue
        for weight in module.parameters(recurse=False):
            if weight.dim() < 2:
                weight.zero_()
                continue
            field = weight[0, 0].numel()  # kernel positions; 1 for a matrix
            INITIALISERS[name](weight, weight.shape[1] * field, weight.shape[0] * field, generator)
