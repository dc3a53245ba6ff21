"""snipkit: SNIP (Lee, Ajanthan, Torr, ICLR 2019) as a thin library and a rerunnable study.

>>> masks = snipkit.prune(model, batch, sparsity=0.95)      # score, select, apply

The way of the data is the order of the modules, and no module imports one to its right:
``data`` → ``models`` → ``masking`` → ``saliency`` → ``training`` → ``study`` → ``figures``.
"""

import importlib

__version__ = "0.1.0"
_MODULES = ("data", "models", "masking", "saliency", "recipe", "training", "study")
__all__ = [*_MODULES, "prune"]


def prune(model, batches, sparsity, criterion="snip", **options):
    """Prune ``model`` in place, once: score every connection, keep the best of the whole network.

    Args:
        model: any ``nn.Module``.
        batches: one ``(inputs, targets)`` pair, or an iterable of such pairs.
        sparsity: share of the prunable parameters to remove, in [0, 1).
        criterion: a name in ``saliency.CRITERIA``.
        **options: passed on to the criterion (``loss``, ``biases``, ``batch_norm``, ``generator``).

    Returns:
        dict of parameter name → bool mask, True where a connection is kept; hand it to
        ``training.train``, or multiply the gradients by it in a loop of your own.

    Raises:
        ValueError: an unknown criterion, a sparsity outside [0, 1), an unusable batch.

    Source: SNIP, Algorithm 1, lines 1 to 5.
    """
    from snipkit import masking, saliency

    scores = saliency.criterion(criterion)(model, batches, **options)
    masks = masking.keep_top(scores, sparsity)
    masking.apply_(model, masks)
    return masks


def __getattr__(name):
    # Modules load on first use: `import snipkit` stays free of torch, so commands answer at once.
    if name in _MODULES:
        return importlib.import_module(f"snipkit.{name}")
    raise AttributeError(f"module 'snipkit' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_MODULES])
