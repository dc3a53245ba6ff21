"""Long trainings in pieces: stopped, carried to another folder, gone on with."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from snipkit import data
from snipkit.study.sets import sources
from snipkit.study.train import checkpoints, experiment, prepare, records, scheduler
from snipkit.study.train.runs import RECIPES, Run

RECIPE = replace(RECIPES["paper-cifar"], steps=12, batch_size=8, decay_every=4)
STOPS = (3, 9)


@pytest.fixture
def small_set(monkeypatch, blobs):
    """In place of CIFAR-10, sixty images."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = data.Images(pixels, torch.arange(60) % 10, (0.5,) * 3, (0.3,) * 3)
    dataset = replace(blobs, train=images, val=images.take(slice(0)), test=images.take(slice(20)))
    monkeypatch.setattr(experiment, "load", lambda run, device: dataset)
    monkeypatch.setattr(sources, "fetch", lambda name: None)


def train(runs, folder):
    """All runs at once, one thread each: as many processes share a GPU."""
    with ThreadPoolExecutor(len(runs)) as executor:
        return scheduler.execute_all(dict.fromkeys(runs, folder / "a.jsonl"), executor)


def test_a_row_of_table_2_is_carried_over_calls_and_folders(tmp_path, monkeypatch, small_set):
    """AlexNet-s at 90 %, three seeds by the paper's recipe, but small and short.

    The records are those of trainings that nobody stopped, to the bit.
    """
    fields = {"data": "cifar-10", "model": "alexnet-s", "options": {"width": 0.1}}
    fields |= {"criterion": "snip", "sparsity": 0.9, "scoring_batch": 8, "recipe": RECIPE}
    runs = [Run(**fields, seed=seed) for seed in range(3)]
    whole = train(runs, tmp_path / "whole")

    still_to_stop = {(run.id, step) for run in runs for step in STOPS}
    after = checkpoints.Checkpoint.after

    def stopping(self, step):
        if (self.path.stem, step) in still_to_stop:
            still_to_stop.remove((self.path.stem, step))
            self.deadline = 0.0
        after(self, step)

    monkeypatch.setattr(checkpoints.Checkpoint, "after", stopping)
    dense_bytes = 4 * sum(p.numel() for p in prepare.build(runs[0], "lecun", 0).parameters())
    folder = tmp_path / "first occasion"
    for number, step in enumerate(STOPS):
        assert not train(runs, folder)
        files = [scheduler.checkpoint_of(run, folder) for run in runs]
        assert [torch.load(file, weights_only=True)["step"] for file in files] == [step] * 3
        # Weights and momentum of what is kept, a bit a connection for the masks, and the rest.
        assert max(file.stat().st_size for file in files) < dense_bytes
        folder = folder.rename(tmp_path / f"occasion after {number}")
    carried = train(runs, folder)

    for run in runs:
        record = carried[run.id]
        assert (record.outcome, record.kept) == (whole[run.id].outcome, whole[run.id].kept)
        assert record.provenance["resumed"] and "swapped" not in record.provenance
    assert records.read(folder).keys() == carried.keys()
    assert not list((folder / "checkpoints").iterdir())
