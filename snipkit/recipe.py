"""How a network is trained: the recipe, and what follows from it alone.

That is the optimiser, the learning rates, and the order of the examples.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from snipkit._prunable import is_norm
from snipkit.data import AUGMENTATIONS

COUNTS = ("steps", "batch_size", "decay_every")
NUMBERS = ("lr", "momentum", "weight_decay", "decay_factor")
CHOICES = {
    "optimiser": ("sgd", "adam"),
    "schedule": ("constant", "step", "onecycle"),
    "augment": AUGMENTATIONS,
    "precision": ("float32", "bfloat16"),
}


def _with_optimizer(recipe_class: Any) -> Any:
    """Decorator: ``optimizer=`` sets the field ``optimiser``. It is no field of its own, for fields
    are what records and ids are made of.
    """
    initialise = recipe_class.__init__

    @functools.wraps(initialise)
    def __init__(self: Any, *values: Any, **fields: Any) -> None:
        if "optimizer" in fields:
            optimizer = fields.pop("optimizer")
            optimiser = fields.setdefault("optimiser", optimizer)
            if optimiser != optimizer:
                raise ValueError(
                    f"optimiser is {optimiser!r} and optimizer {optimizer!r}: they are two "
                    "spellings of one field, give one of them"
                )
        initialise(self, *values, **fields)

    recipe_class.__init__ = __init__
    return recipe_class


@_with_optimizer
@dataclass(frozen=True)
class Recipe:
    """How a network is trained, as a value. Its fields are checked when it is made.

    The defaults are the paper's for MNIST (SNIP, section 5). The paper does not say for how long it
    trains.

    Attributes:
        steps: number of optimiser steps.
        batch_size: examples a step. An epoch's last examples are left out if they do not fill a
            batch.
        optimiser: "sgd" or "adam". It can be given and read as ``optimizer``, too.
        lr: learning rate at the start; with "onecycle" the highest.
        momentum: of SGD, in [0, 1).
        weight_decay: this times the weight is added to its gradient (L2), except in normalisation
            layers.
        schedule: "constant"; "step": times ``decay_factor`` every ``decay_every`` steps;
            "onecycle": up along a cosine over the first fifth of the steps, down along a cosine
            over the rest.
        augment: a name in ``data.AUGMENTATIONS``, for the training images.
        precision: "float32", or "bfloat16": autocast in training and testing. Weights, losses and
            optimiser stay float32.

    Raises:
        ValueError: an unknown name, a value of another type (there is no conversion, but of whole
            numbers to floats), or a number out of range.
    """

    steps: int
    batch_size: int = 100
    optimiser: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["constant", "step", "onecycle"] = "step"
    decay_every: int = 25_000
    decay_factor: float = 0.1
    augment: str = "none"
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def optimizer(self) -> str:
        return self.optimiser

    def __post_init__(self):
        for name in COUNTS:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}; it takes a whole number of at least 1")

        for name in NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} is {value!r}; it takes a number")
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value!r}; it takes a finite number")
            # Equal recipes must be written alike: a run's id is a hash of its text.
            object.__setattr__(self, name, float(value))
        for name in ("lr", "decay_factor"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it takes more than 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; it takes 0 or more, and less than 1")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay is {self.weight_decay}; it takes 0 or more")

        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; it takes {', '.join(choices)}")


def optimiser_of(
    model: nn.Module, recipe: Recipe, parameters: dict[str, Tensor]
) -> torch.optim.Optimizer:
    """The optimiser of ``parameters``, by the model's names.

    Normalisation layers have no weight decay.

    Source: the L2 penalty of the authors' code leaves batch norm out.
    """
    norms = set()
    for module in model.modules():
        if is_norm(module):
            norms |= {id(parameter) for parameter in module.parameters(recurse=False)}
    decayed: list[Tensor] = []
    not_decayed: list[Tensor] = []
    for name, parameter in model.named_parameters():
        (not_decayed if id(parameter) in norms else decayed).append(parameters[name])
    pairs = (decayed, recipe.weight_decay), (not_decayed, 0.0)
    groups = [{"params": group, "weight_decay": decay} for group, decay in pairs if group]
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
    share = (done - warmup) / (recipe.steps - warmup)
    return recipe.lr * ((1 + math.cos(math.pi * share)) / 2)


def batches(size, recipe, seeds, device) -> Iterator[Tensor]:
    """The indices of each step's batches, (S, batch size).

    Every epoch and seed has a new permutation.
    They are drawn on the CPU, so they are the same on every device. They are moved once an epoch,
    because a GPU would wait for a copy at each step.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    per_epoch = size // recipe.batch_size
    for step in range(recipe.steps):
        if step % per_epoch == 0:
            orders = [torch.randperm(size, generator=generator) for generator in generators]
            epoch = torch.stack(orders).to(device)
        start = step % per_epoch * recipe.batch_size
        yield epoch[:, start : start + recipe.batch_size]


def augmentation_generator(seed) -> torch.Generator:
    """The generator of a seed's augmentation.

    It is independent of the order of the examples, of this seed and of others.
    """
    state = np.random.SeedSequence([seed, 1]).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))
