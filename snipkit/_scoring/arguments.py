"""What every criterion is given, and one sentence for each way to give it wrong."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from snipkit._prunable import Where, check_model

BATCH_NORM_MODES = ("eval", "train")

Loss = Callable[[Any, Tensor], Tensor]
Closure = Callable[[nn.Module, Any], Any]


def check_arguments(
    model: nn.Module,
    loss: Loss | None,
    closure: Closure | None,
    where: Where | None,
    batch_norm: str,
) -> None:
    """Raise TypeError or ValueError, naming the argument, for what every criterion is given."""
    check_model(model, ", then the batches")
    if batch_norm not in BATCH_NORM_MODES:
        modes = ", ".join(BATCH_NORM_MODES)
        raise ValueError(f"unknown batch_norm mode {batch_norm!r}; known: {modes}")
    if loss is not None and closure is not None:
        raise ValueError("pass loss or closure, not both")
    _check_function("loss", loss, "(outputs, targets)", "a mean over the batch")
    _check_function("closure", closure, "(model, batch)", "the mean loss of the batch")
    _check_function("where", where, "(name, module)", "True for what may be pruned")


def _check_function(argument: str, function: Any, takes: str, gives: str) -> None:
    """Raise TypeError unless the function, if there is one, can be called with two arguments."""
    if function is None:
        return
    advice = f"it is a function of {takes} that returns {gives}"
    if argument == "where" and isinstance(function, type):
        advice = f"write lambda name, module: isinstance(module, {function.__name__})"
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"{argument} is {function!r}: {advice}")
    try:
        inspect.signature(function).bind(None, None)
    except ValueError:  # some functions written in C cannot be inspected
        return
    except TypeError as error:
        raise TypeError(f"{argument} cannot be called with {takes}: {error}") from None


def cpu_generator(generator: torch.Generator | None) -> torch.Generator:
    """The generator, or a new one seeded with 0.

    Raises:
        TypeError, ValueError: it is no generator, or not one of the CPU.
    """
    if generator is None:
        return torch.Generator("cpu").manual_seed(0)
    advice = "pass torch.Generator().manual_seed(0), or with a seed of yours"
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is {generator!r}: {advice}")
    if generator.device.type != "cpu":
        raise ValueError(f"generator is one of {generator.device}: {advice}, on the CPU")
    return generator
