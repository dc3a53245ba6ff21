"""snipkit: SNIP (Lee, Ajanthan, Torr, ICLR 2019) as a thin library and a rerunnable study.

>>> masks = snipkit.prune(model, batch, sparsity=0.95)      # score, select, apply

The way of the data: ``saliency`` scores every connection, ``masking`` keeps the best, ``training``
trains what is kept. ``beyond`` has what came after the paper, ``study`` what makes the paper.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from snipkit._prunable import Where
    from snipkit._scoring.arguments import Closure, Loss
    from snipkit._scoring.objective import Scores
    from snipkit.masking import Masks, Sparsity

    Criterion = str | Callable[..., Scores]

__version__ = "0.1.0"
_MODULES = (
    "beyond",
    "data",
    "interop",
    "masking",
    "models",
    "outcomes",
    "recipe",
    "saliency",
    "study",
    "training",
)
#: names at the door → the module that defines them
_NAMES = {
    "CRITERIA": "_criteria",
    "PASSES": "_criteria",
    "BATCH_NORM_MODES": "_scoring.arguments",
    "from_objective": "_scoring.driver",
    "prunable": "_prunable",
    "prunable_table": "_prunable",
    "kept_count": "_prunable",
    "is_bias": "_prunable",
    "keep_top": "masking",
    "attach": "masking",
    "apply_": "masking",
    "train": "training",
    "effective": "beyond.paths",
    "compact": "beyond.paths",
}
__all__ = [*_MODULES, *_NAMES, "prune", "score"]


def prune(
    model: torch.nn.Module,
    batches: Any = None,
    sparsity: Sparsity = None,
    criterion: Criterion = "snip",
    *,
    keep: int | None = None,
    loss: Loss | None = None,
    closure: Closure | None = None,
    biases: bool = True,
    where: Where | None = None,
    batch_norm: str = "eval",
    **options: Any,
) -> Masks:
    """Prune ``model`` in place, once: score every connection, keep the best of the whole network.

    Args:
        model: any ``nn.Module``. ``prunable_table(model)`` shows what would be pruned.
        batches: one ``(inputs, targets)`` pair, or an iterable of such pairs, as a ``DataLoader``
            is; of any kind with a ``closure``; None for criteria without data.
        sparsity: share of the prunable parameters to remove, in [0, 1), or a dict of layer → share,
            such as ``beyond.densities.erk(model, 0.9)``.
        criterion: a name in ``snipkit.CRITERIA``, or a function ``(model, batches) -> {parameter
            name: scores}``; of the options below it gets those that differ from their defaults. One
            with a parameter ``sparsity`` is told the sparsity, unless it has been set
            (``functools.partial``): iterative ones prune to it step by step.
        keep: in place of ``sparsity``, the number of parameters to keep.
        loss, closure, biases, where, batch_norm: see ``saliency.snip``.
        options: the criterion's own, such as ``generator`` of "random" or ``rounds`` of "force".

    Returns:
        dict of parameter name → bool mask, True where a connection is kept. Hand it to
        ``training.train``; or, for a loop of your own, to ``attach``.

    Raises:
        TypeError: an option that the criterion does not have, or an argument of the wrong kind.
        ValueError: an unknown criterion, a sparsity or count out of range, an unusable batch, a
            model whose weights cannot be masked (see ``prunable``). The model is as it was
            then.

    Source: SNIP, Algorithm 1, lines 1 to 5.
    """
    from collections.abc import Mapping

    from snipkit import masking
    from snipkit._prunable import check_keep, to_prune
    from snipkit._scoring.arguments import check_arguments

    check_arguments(model, loss, closure, where, batch_norm)
    function = _function(criterion)
    share = sparsity
    if keep is not None:
        parameters = to_prune(model, biases=biases, where=where)
        total = sum(parameter.numel() for parameter in parameters.values())
        check_keep(keep, total)
        share = 1 - keep / total
    if _asks_for_sparsity(function):
        options["sparsity"] = share
    given = dict(loss=loss, closure=closure, where=where)
    options |= {name: value for name, value in given.items() if value is not None}
    if not biases:
        options["biases"] = biases
    if batch_norm != "eval":
        options["batch_norm"] = batch_norm
    scores = function(model, batches, **options)
    if not isinstance(scores, Mapping) or not scores:
        raise ValueError(
            f"the criterion returned {scores!r}; it must return {{parameter name: scores}}"
        )
    masks = masking.keep_top(scores, sparsity, keep=keep)
    masking.apply_(model, masks)
    return masks


def score(
    model: torch.nn.Module, batches: Any = None, criterion: Criterion = "snip", **options: Any
) -> Scores:
    """The scores by which ``prune`` ranks connections.

    Args:
        model, batches, criterion: as for ``prune``.
        options: those of ``saliency.snip``, and the criterion's own: ``sparsity`` for iterative
            ones, ``generator``.

    Returns:
        dict of parameter name → float tensor of its shape; the absolute values sum to 1.

    Raises:
        TypeError, ValueError, FloatingPointError: see ``saliency.snip``.
    """
    return _function(criterion)(model, batches, **options)


def _function(criterion: Criterion) -> Callable[..., Scores]:
    """The function of a criterion given by name or as a function."""
    from snipkit import _criteria

    if isinstance(criterion, str):
        return _criteria.criterion(criterion)
    if isinstance(criterion, type) or not callable(criterion):
        names = ", ".join(_criteria.CRITERIA)
        raise TypeError(
            f"criterion is {criterion!r}: pass a name ({names}) or a function "
            "(model, batches) -> scores"
        )
    return criterion


def _asks_for_sparsity(function: Callable[..., Scores]) -> bool:
    """Whether a criterion has a parameter ``sparsity`` that nobody has set yet."""
    import inspect

    try:
        parameter = inspect.signature(function).parameters.get("sparsity")
    except ValueError:  # written in C
        return False
    return parameter is not None and parameter.default in (None, inspect.Parameter.empty)


def __getattr__(name: str) -> Any:
    # Modules load on first use: `import snipkit` stays free of torch, so commands answer at once.
    if name in _MODULES:
        return importlib.import_module(f"snipkit.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"snipkit.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'snipkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, *_NAMES])
