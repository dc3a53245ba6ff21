"""How a network is trained: the recipe, and what follows from it alone (optimiser, learning rates, order)."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from snipkit.data import AUGMENTATIONS
from snipkit.masking import is_norm

#: types and ranges are checked when a value is made
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """How a network is trained, as a value.

    The defaults are the paper's for MNIST (SNIP, section 5). The paper does not say for how long it trains.

    Attributes:
        steps: number of optimiser steps.
        batch_size: examples a step. An epoch's last examples are left out if they do not fill a batch.
        optimiser: "sgd" or "adam".
        lr: learning rate at the start; with "onecycle" the highest.
        momentum: of SGD, in [0, 1).
        weight_decay: this times the weight is added to its gradient (L2), except in normalisation layers.
        schedule: "constant"; "step": times ``decay_factor`` every ``decay_every`` steps; "onecycle": up along a cosine
            over the first fifth of the steps, down along a cosine over the rest.
        augment: a name in ``data.AUGMENTATIONS``, for the training images.
        precision: "float32", or "bfloat16": autocast in training and testing. Weights, losses and optimiser stay
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


def optimiser_of(model: nn.Module, recipe: Recipe, parameters: dict[str, Tensor]) -> torch.optim.Optimizer:
    """The optimiser of ``parameters`` (by the model's names). Normalisation layers have no weight decay.

    Source: the L2 penalty of the authors' code leaves batch norm out.
    """
    norms = {id(p) for module in model.modules() if is_norm(module) for p in module.parameters(recurse=False)}
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        (others if id(parameter) in norms else decayed).append(parameters[name])
    pairs = (decayed, recipe.weight_decay), (others, 0.0)
    groups: list[dict] = [{"params": own, "weight_decay": decay} for own, decay in pairs if own]
    if recipe.optimiser == "adam":
        return torch.optim.Adam(groups, lr=recipe.lr, fused=True)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, fused=True)


def learning_rate(step, recipe) -> float:
    """The learning rate of a step, counted from 1."""
    done, warmup = step - 1, 0.2 * recipe.steps
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "step":
        return recipe.lr * recipe.decay_factor ** (done // recipe.decay_every)
    if done < warmup:
        return recipe.lr * (0.04 + 0.96 * (1 - math.cos(math.pi * done / warmup)) / 2)
    return recipe.lr * ((1 + math.cos(math.pi * (done - warmup) / (recipe.steps - warmup))) / 2)


def batches(size, recipe, seeds, device) -> Iterator[Tensor]:
    """The indices of each step's batches, (S, batch size): a new permutation for every epoch and seed.

    They are drawn on the CPU, so they are the same on every device. They are moved once an epoch, because a GPU would
    wait for a copy at each step.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    per_epoch = size // recipe.batch_size
    for step in range(recipe.steps):
        if step % per_epoch == 0:
            epoch = torch.stack([torch.randperm(size, generator=generator) for generator in generators]).to(device)
        start = step % per_epoch * recipe.batch_size
        yield epoch[:, start : start + recipe.batch_size]


def augmentation_generator(seed) -> torch.Generator:
    """The generator of a seed's augmentation: independent of the order of the examples, of this and of other seeds."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
