"""The one driver of all criteria: it checks what is given, calls the criterion and scales."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from snipkit._prunable import Where, to_prune
from snipkit._scoring.arguments import Closure, Loss, check_arguments
from snipkit._scoring.objective import Objective, Scores


def score(
    model: nn.Module,
    batches: Any,
    criterion: Callable[..., Scores],
    *,
    loss: Loss | None = None,
    closure: Closure | None = None,
    biases: bool = True,
    where: Where | None = None,
    batch_norm: str = "eval",
    **options: Any,
) -> Scores:
    """The scores of a model by a criterion: checks what is given, scores, scales.

    Args:
        model, batches, loss, closure, biases, where, batch_norm: see ``saliency.snip``.
        criterion: ``(objective, **its own options) -> {parameter name: tensor of its shape}``.
        options: handed to the criterion.

    Returns:
        dict of name → scores, scaled so that their absolute values sum to 1.

    Raises:
        TypeError: an option that the criterion does not have, or an argument of the wrong kind.
        ValueError, FloatingPointError: see ``saliency.snip``.
    """
    check_arguments(model, loss, closure, where, batch_norm)
    unknown = [name for name in options if name not in option_names(criterion)]
    if unknown:
        takes = ["loss", "closure", "biases", "where", "batch_norm", *option_names(criterion)]
        raise TypeError(
            f"{criterion.__name__} has no option {', '.join(unknown)}; it takes {', '.join(takes)}"
        )
    parameters = to_prune(model, biases=biases, where=where)
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):  # a scoring pass would draw it
            raise ValueError(f"{name} has no shape yet: pass one batch through the model first")
        if parameter.is_meta and type(parameter) is nn.Parameter:  # no FakeTensor
            raise ValueError(f"{name} has no values, it is on the device meta: load them first")
    objective = Objective(model, parameters, batches, loss, closure, batch_norm)
    with torch.inference_mode(False):  # derivatives are taken even where the caller needs none
        return normalised(criterion(objective, **options), model)


def option_names(criterion: Callable[..., Scores]) -> list[str]:
    """The names of what a criterion takes besides the objective."""
    return list(inspect.signature(criterion).parameters)[1:]


def from_objective(criterion: Callable[..., Scores]) -> Callable[..., Scores]:
    """Decorator: a function ``(objective, **options) -> scores`` becomes one of a model.

    The result is called ``(model, batches, …, **options)``. It takes the arguments of
    ``saliency.snip``, checked by ``score``, and the criterion's own options. It can be handed to
    ``snipkit.prune``.
    """

    def of_model(
        model: nn.Module,
        batches: Any = None,
        loss: Loss | None = None,
        *,
        closure: Closure | None = None,
        biases: bool = True,
        where: Where | None = None,
        batch_norm: str = "eval",
        **options: Any,
    ) -> Scores:
        return score(
            model,
            batches,
            criterion,
            loss=loss,
            closure=closure,
            biases=biases,
            where=where,
            batch_norm=batch_norm,
            **options,
        )

    *shared, _ = inspect.signature(of_model).parameters.values()
    _, *options_of_its_own = inspect.signature(criterion).parameters.values()
    functools.update_wrapper(of_model, criterion)
    signature = inspect.Signature([*shared, *options_of_its_own], return_annotation=Scores)
    of_model.__signature__ = signature  # type: ignore[attr-defined]  # for help() and for ``prune``
    return of_model


def normalised(scores: Scores, model: nn.Module) -> Scores:
    """The scores, scaled in place so that their absolute values sum to 1.

    Scores that are scaled already are left as they are, to the bit: iterative criteria scale in
    every round.

    Args:
        model: what was scored, for the error.

    Raises:
        ValueError: every score is zero.
        FloatingPointError: some scores are not finite.
    """
    total = sum(score.abs().sum().item() for score in scores.values())
    if not math.isfinite(total):
        names = [name for name, score in scores.items() if not score.isfinite().all()]
        raise FloatingPointError(
            f"some scores are not finite ({', '.join(names)}): check the loss, the inputs and the "
            "initialisation"
        )
    if total == 0:
        zero = []
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2 and not parameter.any():
                zero.append(name)
        hint = f"; all zero, so that nothing passes: {', '.join(zero)}: initialise them first"
        raise ValueError(
            "every score is zero: the loss reacts to no prunable connection on this batch"
            + (hint if zero else "")
        )
    if not math.isclose(total, 1, rel_tol=1e-5):
        torch._foreach_mul_(list(scores.values()), 1 / total)
    return scores
