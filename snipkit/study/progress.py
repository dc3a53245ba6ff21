"""How far the evidence has come: runs that the notebooks plan, runs on record, and the hours they took."""

import pandas as pd

from snipkit.study import notebooks, paths, records

SCALES = ("overnight", "paper")  # whose records are committed
SETS = {"mnist": "MNIST", "mnist-1d": "MNIST-1D", "cifar-10": "CIFAR-10", "tiny-imagenet": "Tiny-ImageNet"}


def table() -> pd.DataFrame:
    """A row a notebook: runs planned and on record at each scale. Runs that notebooks share count for each."""
    columns = {}
    for scale in SCALES:
        found = records.read(paths.results(scale))
        pages = [name for name in notebooks.names() if scale == notebooks.WRITTEN or has_its_own(name, scale)]
        wanted = {name: {run.id for run in notebooks.grid(name, scale)} for name in pages}
        columns[f"`{scale}`: planned"] = {name: len(ids) for name, ids in wanted.items()}
        columns["on record" + " " * len(columns)] = {name: len(ids & found.keys()) for name, ids in wanted.items()}
    rows = pd.DataFrame(columns).rename_axis("page")
    return rows[(rows > 0).any(axis=1)].map(lambda count: "" if pd.isna(count) else f"{count:.0f}").reset_index()


def has_its_own(page: str, scale: str) -> bool:
    """Whether a profile has parameters for a notebook; else its grid is that of another scale."""
    return notebooks.parameters(page, scale).keys() != {"profile"}


def sentence() -> str:
    """How many runs are on record, on what data, in how many core-hours. A run in both folders counts once.

    They took longer than that: a training that was stopped and resumed is on record with its last part's time.
    """
    found = {record.run.id: record for scale in SCALES for record in records.read(paths.results(scale)).values()}
    hours = sum(record.provenance["seconds"] for record in found.values()) / 3600
    kinds = [f"{sum(one.run.data == name for one in found.values()):,} {label}" for name, label in SETS.items()]
    kinds = [kind for kind in kinds if not kind.startswith("0 ")]
    return f"{len(found):,} runs on record ({', '.join(kinds)}), at least {hours:.0f} core-hours"
