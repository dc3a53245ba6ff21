"""How a network is trained, as a value: the recipe, and what follows from it alone (optimiser, schedule, order)."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from snipkit.data import AUGMENTATIONS
from snipkit.masking import is_norm

#: checks of types and ranges when a value is made; pydantic rather than thirty lines of ours
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """How a network is trained, as a value. Types and ranges are checked when it is made.

    The defaults are the paper's for MNIST: momentum SGD, learning rate 0.1 times 0.1 every 25,000 steps, weight decay
    5e-4, batches of 100 (SNIP, section 5). The paper does not say for how long it trains.

    Attributes:
        steps: number of optimiser steps.
        batch_size: examples a step; the rest of an epoch that does not fill a batch is dropped.
        optimiser: "sgd" or "adam".
        lr: learning rate; with "onecycle" the peak.
        momentum: of SGD, in [0, 1).
        weight_decay: L2 penalty in gradient form, on every parameter but those of normalisation layers.
        schedule: "constant", "step" (times ``decay_factor`` every ``decay_every`` steps) or "onecycle" (cosine up over
            the first fifth, cosine down over the rest; for short budgets).
        augment: a name in ``data.AUGMENTATIONS``, for the training images.
        precision: "float32", or "bfloat16": autocast in training and testing. Weights, loss, optimiser and scores stay
            float32.

    Raises:
        pydantic.ValidationError: (a ValueError) an unknown name, a wrong type, a number out of range.
    """

    steps: PositiveInt
    batch_size: PositiveInt = 100
    optimiser: Literal["sgd", "adam"] = "sgd"
    lr: PositiveFloat = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    schedule: Literal["constant", "step", "onecycle"] = "step"
    decay_every: PositiveInt = 25_000
    decay_factor: PositiveFloat = 0.1
    augment: Literal[AUGMENTATIONS] = "none"  # type: ignore[valid-type]
    precision: Literal["float32", "bfloat16"] = "float32"


def optimiser_of(model, recipe, parameters):
    """The optimiser of ``parameters`` (by the model's names) and its schedule; norm layers are not decayed.

    Source: the L2 penalty of the authors' code leaves batch norm out.
    """
    norms = {id(p) for module in model.modules() if is_norm(module) for p in module.parameters(recurse=False)}
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        (others if id(parameter) in norms else decayed).append(parameters[name])
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if recipe.optimiser == "adam":
        optimiser = torch.optim.Adam(groups, lr=recipe.lr, fused=True)
    else:
        optimiser = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, fused=True)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe))


def _rate(step, recipe) -> float:
    """The learning rate of a step (counted from 0) as a multiple of ``recipe.lr``."""
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "step":
        return recipe.decay_factor ** (step // recipe.decay_every)
    warmup = 0.2 * recipe.steps
    if step < warmup:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * step / warmup)) / 2
    return (1 + math.cos(math.pi * (step - warmup) / (recipe.steps - warmup))) / 2


def batches(size, recipe, seeds, device) -> Iterator[Tensor]:
    """The indices of each step's batches, (S, batch size): a fresh permutation for every epoch and seed.

    They are drawn on the CPU (the same on every device) and moved an epoch at a time: a copy a step would stop a GPU.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    per_epoch = size // recipe.batch_size
    for step in range(recipe.steps):
        if step % per_epoch == 0:
            epoch = torch.stack([torch.randperm(size, generator=generator) for generator in generators]).to(device)
        start = step % per_epoch * recipe.batch_size
        yield epoch[:, start : start + recipe.batch_size]


def augmentation_generator(seed) -> torch.Generator:
    """A stream of its own: no seed's augmentation is the order of the examples of another seed."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
