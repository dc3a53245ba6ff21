"""The study: everything that makes the paper out of the method.

``train``: a ``Run`` describes one training, a ``Record`` is its result; runs are scheduled, carried
out and recorded there. ``sets``: the data sets. ``report``: statistics, figures, the claims of the
paper. ``paper``: the numbers that it prints. The names that notebooks use most are here.
"""

import importlib

_NAMES = {
    "Run": "runs",
    "RECIPES": "recipes",
    "seeded": "runs",
    "pruning": "runs",
    "run_all": "scheduler",
    "load": "prepare",
    "build": "prepare",
    "find_masks": "prepare",
    "scoring_batches": "prepare",
    "Record": "records",
    "read": "records",
    "table": "records",
}
__all__ = sorted(_NAMES)


def __getattr__(name):
    # On first use: `python -m snipkit.study --help` stays free of torch, so it answers at once.
    if name in _NAMES:
        try:
            module = importlib.import_module(f"snipkit.study.train.{_NAMES[name]}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "snipkit":
                raise
            message = f"the study needs the package {error.name}: pip install 'snipkit[study]'"
            raise ModuleNotFoundError(message, name=error.name) from error
        return getattr(module, name)
    raise AttributeError(f"module 'snipkit.study' has no attribute {name!r}")
