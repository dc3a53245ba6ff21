"""snipkit: SNIP (Lee, Ajanthan, Torr, ICLR 2019) as a thin library and a rerunnable study.

>>> masks = snipkit.prune(model, batch, sparsity=0.95)      # score, select, apply

The way of the data is the order of the modules, and no module imports one to its right:
``data`` → ``masking`` → ``saliency`` → ``models`` → ``recipe`` → ``training`` → ``study``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from snipkit.export import Masks
    from snipkit.masking import Sparsity, Where
    from snipkit.saliency import Closure, Loss, Scores

__version__ = "0.1.0"
_MODULES = ("data", "models", "masking", "saliency", "recipe", "training", "study")
__all__ = [*_MODULES, "prune"]


def prune(
    model: torch.nn.Module, batches: Any, sparsity: Sparsity = None, criterion: str | Callable[..., Scores] = "snip", *,
    keep: int | None = None, loss: Loss | None = None, closure: Closure | None = None, biases: bool = True,
    where: Where | None = None, batch_norm: str = "eval", generator: torch.Generator | None = None,
) -> Masks:
    """Prune ``model`` in place, once: score every connection, keep the best of the whole network.

    Args:
        model: any ``nn.Module``. ``masking.pool(model)`` shows what would be pruned.
        batches: one ``(inputs, targets)`` pair, or an iterable of such pairs, as a ``DataLoader`` is; of any kind with
            a ``closure``.
        sparsity: share of the prunable parameters to remove, in [0, 1), or a dict of layer → share.
        criterion: a name in ``saliency.CRITERIA``, or a function ``(model, batches) -> {parameter name: scores}``; of
            the options below it gets those that differ from their defaults. (The sparsity is told to those of
            ``CRITERIA`` alone: iterative ones prune to it step by step.)
        keep: in place of ``sparsity``, the number of parameters to keep.
        loss, closure, biases, where, batch_norm, generator: see ``saliency.snip``.

    Returns:
        dict of parameter name → bool mask, True where a connection is kept. Hand it to ``training.train``; or, for a
        loop of your own, to ``masking.attach``.

    Raises:
        ValueError: an unknown criterion, a sparsity or count out of range, an unusable batch, a model whose weights
            cannot be masked (see ``masking.prunable``). The model is as it was then.

    Source: SNIP, Algorithm 1, lines 1 to 5.
    """
    from collections.abc import Mapping

    from snipkit import masking, saliency
    from snipkit.pool import check_keep, to_prune

    defaults = dict(loss=None, closure=None, biases=True, where=None, batch_norm="eval", generator=None)
    given: dict[str, Any] = dict(
        loss=loss, closure=closure, biases=biases, where=where, batch_norm=batch_norm, generator=generator
    )
    options = {name: value for name, value in given.items() if value != defaults[name]}
    score = criterion if callable(criterion) else saliency.criterion(criterion)
    if score in saliency.CRITERIA.values():
        options["sparsity"] = sparsity
        if keep is not None:
            total = sum(parameter.numel() for parameter in to_prune(model, biases=biases, where=where).values())
            check_keep(keep, total)
            options["sparsity"] = 1 - keep / total
    scores = score(model, batches, **options)
    if not isinstance(scores, Mapping) or not scores:
        raise ValueError(f"the criterion returned {scores!r}; it must return {{parameter name: scores}}")
    masks = masking.keep_top(scores, sparsity, keep=keep)
    masking.apply_(model, masks)
    return masks


def __getattr__(name):
    # Modules load on first use: `import snipkit` stays free of torch, so commands answer at once.
    if name in _MODULES:
        return importlib.import_module(f"snipkit.{name}")
    raise AttributeError(f"module 'snipkit' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_MODULES])
