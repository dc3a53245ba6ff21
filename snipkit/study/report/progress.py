"""How far the evidence has come: runs planned, runs on record, and the hours they took."""

import pandas as pd

from snipkit.study import notebooks, paths
from snipkit.study.train import records, registration

SCALES = ("overnight", "paper")  # whose records are committed
SETS = {
    "mnist": "MNIST",
    "mnist-1d": "MNIST-1D",
    "cifar-10": "CIFAR-10",
    "tiny-imagenet": "Tiny-ImageNet",
}


def table() -> pd.DataFrame:
    """A row a page: runs planned and on record at each scale.

    Runs that pages share count for each.
    """
    columns = {}
    for scale in SCALES:
        recorded = records.read(paths.results(scale)).keys()
        planned_counts, recorded_counts = {}, {}
        for name in notebooks.names():
            if scale == notebooks.WRITTEN or has_its_own(name, scale):
                planned = {run.id for run in notebooks.grid(name, scale)}
                planned_counts[name] = len(planned)
                recorded_counts[name] = len(planned & recorded)
        columns[f"`{scale}`: planned"] = planned_counts
        columns["on record" + " " * len(columns)] = recorded_counts  # one heading, two columns
    rows = pd.DataFrame(columns).rename_axis("page")
    rows = rows[(rows > 0).any(axis=1)]
    return rows.map(lambda count: "" if pd.isna(count) else f"{count:.0f}").reset_index()


def has_its_own(page: str, scale: str) -> bool:
    """Whether a profile has parameters for a page; else its grid is that of another scale."""
    return notebooks.parameters(page, scale).keys() != {"profile"}


def sentence() -> str:
    """How many runs are on record, on what data, in how many core-hours.

    A run in several folders counts once. They took longer than that: a training that was stopped
    and resumed is on record with its last part's time. Runs on a GPU are counted only: several
    share it, and each has its own seconds.
    """
    recorded = {}
    for folder in (*SCALES, registration.FOLDER):
        for record in records.read(paths.results(folder)).values():
            recorded[record.run.id] = record
    counts: dict[str, int] = {}
    on_gpu, seconds = 0, 0.0
    for record in recorded.values():
        counts[record.run.data] = counts.get(record.run.data, 0) + 1
        if str(record.provenance.get("device")).startswith("NVIDIA"):
            on_gpu += 1
        else:
            seconds += record.provenance["seconds"]
    kinds = [f"{counts[name]:,} {label}" for name, label in SETS.items() if name in counts]
    took = f"{on_gpu} of them on a GPU, the others in at least" if on_gpu else "in at least"
    hours = seconds / 3600
    return f"{len(recorded):,} runs on record ({', '.join(kinds)}), {took} {hours:.0f} core-hours"
