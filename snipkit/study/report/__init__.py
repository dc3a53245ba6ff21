"""What the pages share: grids of runs, comparisons, pictures, costs and answers in words.

``grids`` plans runs, ``comparisons`` picks them from a table and pairs them by seed, ``methods``
gives every method one label, colour and marker, ``pictures`` shows masks as images, ``costs``
counts what a mask saves, and ``answers`` writes a page's sentences from templates. seaborn draws
the statistics. The names that pages use are here.
"""

import importlib

_NAMES = {
    "planned": "grids",
    "distinct": "grids",
    "rows": "comparisons",
    "errors": "comparisons",
    "grouped": "comparisons",
    "gap": "comparisons",
    "gaps": "comparisons",
    "against": "comparisons",
    "METHODS": "methods",
    "LABELS": "methods",
    "PALETTE": "methods",
    "MARKERS": "methods",
    "ORDER": "methods",
    "LINES": "methods",
    "POINTS": "methods",
    "labelled": "methods",
    "mask_picture": "pictures",
    "draw_pictures": "pictures",
    "mask_costs": "costs",
    "compact_costs": "costs",
    "Estimate": "answers",
    "fill": "answers",
    "render": "answers",
}
__all__ = sorted(_NAMES)


def __getattr__(name):
    # On first use, so that commands which need no network stay free of torch and answer at once.
    if name in _NAMES:
        return getattr(importlib.import_module(f"snipkit.study.report.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'snipkit.study.report' has no attribute {name!r}")
