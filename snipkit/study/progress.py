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

    They took longer than that: a training that was stopped and resumed is on record with its last part's time. Runs on
    a GPU are counted only: several share it, and each has its own seconds.
    """
    found = {record.run.id: record for scale in SCALES for record in records.read(paths.results(scale)).values()}
    on_gpu = {name for name, one in found.items() if str(one.provenance.get("device")).startswith("NVIDIA")}
    hours = sum(one.provenance["seconds"] for name, one in found.items() if name not in on_gpu) / 3600
    counts = pd.Series([one.run.data for one in found.values()]).value_counts()
    kinds = [f"{counts[name]:,} {label}" for name, label in SETS.items() if name in counts]
    rest = f"{len(on_gpu)} of them on a GPU, the others in at least" if on_gpu else "in at least"
    return f"{len(found):,} runs on record ({', '.join(kinds)}), {rest} {hours:.0f} core-hours"
