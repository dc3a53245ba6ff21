"""The study: everything that makes the paper out of the method. Runs are values, records are lines, notebooks ask.

The way of a run, in the order of the modules: ``runs`` (what to do) → ``scheduler`` (when and by whom; ``executors``) →
``experiment`` (load, score, mask, train; ``datasets``, ``stacking``, ``checkpoints``) → ``records`` → ``statistics`` →
``figures`` and ``report``. The names that notebooks use most are here.
"""

import importlib

_NAMES = {
    "Run": "runs", "RECIPES": "runs", "seeded": "runs", "pruning": "runs",
    "run_all": "scheduler",
    "load": "experiment", "build": "experiment", "find_masks": "experiment", "scoring_batches": "experiment",
    "Record": "records", "read": "records", "table": "records",
}
__all__ = sorted(_NAMES)


def __getattr__(name):
    # On first use: `python -m snipkit.study --help` stays free of torch, so it answers at once.
    if name in _NAMES:
        try:
            module = importlib.import_module(f"snipkit.study.{_NAMES[name]}")
        except ModuleNotFoundError as error:
            if error.name.split(".")[0] == "snipkit":
                raise
            message = f"the study needs the package {error.name}: pip install 'snipkit[study]'"
            raise ModuleNotFoundError(message, name=error.name) from error
        return getattr(module, name)
    raise AttributeError(f"module 'snipkit.study' has no attribute {name!r}")
