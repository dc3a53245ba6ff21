"""What a worker does with a group of runs: on time, with this code, its own state and its data."""

import dataclasses
import os
import socket
import time

import pytest
import torch
from tiny import quick, record

from snipkit.study import paths
from snipkit.study.sets import sources
from snipkit.study.train import checkpoints, executors, experiment, provenance, worker

SNIP = {"criterion": "snip", "sparsity": 0.9}


@pytest.fixture
def seen(monkeypatch):
    """The checkpoints that trainings were started with; no training."""
    checkpoints_given = []

    def execute(run, device, checkpoint):
        checkpoints_given.append(checkpoint)
        return record(run)

    monkeypatch.setattr(experiment, "execute", execute)
    return checkpoints_given


def work(run, path, code=None, seconds=None):
    fields = [dataclasses.asdict(run)]
    return worker.execute_group(fields, code or provenance.code(), str(path), seconds)


def test_the_seconds_that_are_left_count_from_the_beginning_of_the_work(tmp_path, seen):
    """So no clock of another machine has to be right."""
    work(quick(), tmp_path / "a.pt", seconds=3600.0)
    work(quick(), tmp_path / "a.pt")
    assert seen[0].deadline == pytest.approx(time.monotonic() + 3600, abs=60)
    assert seen[1].deadline is None
    assert work(quick(), tmp_path / "a.pt", seconds=0.0) is None and len(seen) == 2


def test_a_worker_with_other_code_does_nothing(tmp_path, seen):
    with pytest.raises(
        RuntimeError, match=rf"the worker on {socket.gethostname()} has other code \(.*, not 123\)"
    ):
        work(quick(), tmp_path / "a.pt", code="123")
    assert not seen


def test_a_checkpoint_of_another_training_is_put_aside(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"what is this?")
    with pytest.warns(
        UserWarning, match="It was renamed to .*a.pt.stale, and the training starts anew"
    ):
        (finished,) = work(quick(), path)
    assert finished.outcome == experiment.execute(quick()).outcome and not path.exists()
    assert (tmp_path / "a.pt.stale").read_bytes() == b"what is this?"


def test_a_worker_without_the_folder_keeps_its_state_in_a_place_of_its_own(tmp_path, seen):
    work(quick(), tmp_path / "not here" / "a.pt")
    path = seen[0].path
    assert path.name == "a.pt" and path.parent.is_dir() and f"snipkit-{os.getuid()}" in str(path)


def test_a_worker_without_the_data_says_where_and_what(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.DATA_VARIABLE, str(tmp_path))
    for name, source in sources.SOURCES.items():
        monkeypatch.setitem(sources.SOURCES, name, dataclasses.replace(source, fetchers={}))
    with pytest.raises(sources.DataError) as caught:
        work(quick(data="fashion-mnist"), tmp_path / "a.pt")
    message = str(caught.value)
    assert message.startswith(f"on {socket.gethostname()}: fashion-mnist: the data set is not here")
    assert f"Put the files {', '.join(sources.IDX_FILES)}" in message and str(tmp_path) in message


def test_torchs_threads_are_put_back(tmp_path, monkeypatch):
    torch.set_num_threads(2)
    within = []
    monkeypatch.setattr(
        experiment, "execute", lambda run, *_: within.append(torch.get_num_threads()) or record(run)
    )
    work(quick(), tmp_path / "a.pt")
    assert within == [1] and torch.get_num_threads() == 2
    monkeypatch.setattr(experiment, "execute", None)
    with pytest.raises(TypeError):
        work(quick(), tmp_path / "a.pt")
    assert torch.get_num_threads() == 2 and not executors.busy.is_set()


def test_a_stack_cut_off_by_the_deadline_carries_on(tmp_path):
    runs = [quick(seed=seed, **SNIP) for seed in range(3)]
    whole, path = experiment.execute_stack(runs), tmp_path / "a.pt"
    with pytest.raises(checkpoints.Interrupted):
        experiment.execute_stack(runs, "cpu", checkpoints.Checkpoint(path, deadline=0.0))
    plain = [dataclasses.asdict(run) for run in runs]
    finished = worker.execute_group(plain, provenance.code(), str(path), None)
    assert [one.outcome for one in finished] == [one.outcome for one in whole] and not path.exists()
    assert all(one.provenance["resumed"] for one in finished)
