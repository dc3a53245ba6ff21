"""Which runs are done, when and by whom; and what is said when some cannot be."""

import json
import threading
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from tiny import carry_on, ids, quick, record

from snipkit.recipe import Recipe
from snipkit.study.sets import sources
from snipkit.study.train import checkpoints, executors, experiment, provenance, records, scheduler

SNIP = {"criterion": "snip", "sparsity": 0.9}


@pytest.fixture
def done(monkeypatch):
    """The runs that were asked for, in their order; no training."""
    asked = []

    def execute(run, device, checkpoint):
        asked.append(run)
        return record(run)

    monkeypatch.setattr(experiment, "execute", execute)
    return asked


def test_runs_are_done_once_in_their_order_and_put_on_record(tmp_path):
    runs = [quick(), quick(criterion="snip", sparsity=0.95), quick(), quick(seed=1)]
    table = carry_on(runs, tmp_path / "results" / "a.jsonl")
    expected_ids = [runs[0].id, runs[1].id, runs[3].id]
    assert list(table.id) == ids(tmp_path / "results") == expected_ids and list(table.method) == [
        "dense",
        "snip",
        "dense",
    ]
    recorded = records.read(tmp_path / "results")
    assert [recorded[name].outcome.test_error for name in expected_ids] == list(table.test_error)
    assert all(recorded[name].provenance["commit"] == provenance.commit() for name in expected_ids)
    assert not list((tmp_path / "results" / "checkpoints").iterdir())  # claims would pile up


def test_a_finished_run_never_runs_again_from_any_file_of_the_folder(tmp_path, done):
    runs = [quick(), quick(seed=1)]
    records.append(tmp_path / "a.jsonl", record(runs[0], error=7.0))
    table = carry_on(runs, tmp_path / "b.jsonl")
    assert done == runs[1:] and list(table.test_error) == [7.0, 5.0] and len(ids(tmp_path)) == 2


def test_no_time_for_training_means_what_is_on_record(tmp_path, done, monkeypatch):
    monkeypatch.setattr(sources, "fetch", lambda name: 1 / 0)  # nor for data
    runs = [quick(), quick(seed=1)]
    records.append(tmp_path / "a.jsonl", record(runs[1], error=7.0))
    table = scheduler.run_all(runs, tmp_path / "b.jsonl", minutes=0)
    assert done == [] and list(table.seed) == [1] and list(table.test_error) == [7.0]


def test_minutes_are_sixty_seconds(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        experiment,
        "execute",
        lambda run, device, checkpoint: seen.append(checkpoint) or record(run),
    )
    with ThreadPoolExecutor(1) as executor:
        assert len(scheduler.run_all([quick()], tmp_path / "a.jsonl", executor, minutes=5)) == 1
    assert 290 < seen[0].deadline - time.monotonic() <= 300


@pytest.mark.parametrize("minutes", ["none", -1, float("nan")])
def test_minutes_are_a_number(tmp_path, done, minutes):
    """A page's parameters may come from a command line."""
    with pytest.raises(
        ValueError, match=f"minutes is {minutes!r}; it takes a number of minutes, or None"
    ):
        scheduler.run_all([quick()], tmp_path / "a.jsonl", minutes=minutes)


def test_a_tilde_in_the_path_of_results(tmp_path, done, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with ThreadPoolExecutor(1) as executor:
        scheduler.run_all([quick()], "~/results/a.jsonl", executor)
    assert ids(tmp_path / "results") == [quick().id] and not Path("~").exists()


def test_the_runs_of_several_files_share_one_queue(tmp_path, done):
    runs = [quick(seed=seed) for seed in range(3)]
    files = {
        runs[2]: tmp_path / "a.jsonl",
        runs[0]: tmp_path / "b.jsonl",
        runs[1]: tmp_path / "a.jsonl",
    }
    with ThreadPoolExecutor(1) as executor:
        scheduler.execute_all(files, executor)
    assert done == list(files)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [runs[2].id, runs[1].id]


@pytest.mark.parametrize(
    "names, message",
    [
        (["results.json"], "go into .jsonl files, not results.json"),
        (["a.jsonl", "b/b.jsonl"], "lie in one folder"),
    ],
)
def test_files_that_would_not_be_read_again_are_refused(tmp_path, done, names, message):
    with pytest.raises(ValueError, match=message):
        scheduler.execute_all(
            {quick(seed=seed): tmp_path / name for seed, name in enumerate(names)}
        )
    assert not done and not list(tmp_path.iterdir()) and scheduler.execute_all({}) == {}


def test_one_failing_run_does_not_cost_the_others(tmp_path):
    runs, path = [quick(), quick(scoring_batch=501, **SNIP), quick(seed=1)], tmp_path / "a.jsonl"
    with pytest.raises(
        RuntimeError,
        match="1 of 3 runs failed, the others .*ValueError: cannot sample a batch of 501",
    ):
        carry_on(runs, path)
    assert (
        ids(tmp_path) == [runs[0].id, runs[2].id]
        and len(list(tmp_path.glob("checkpoints/*.lock"))) == 1
    )
    assert len(carry_on(runs[::2], path)) == 2


@pytest.fixture
def nowhere(monkeypatch):
    """CIFAR-10 cannot be had."""

    def refuse(files, scratch):
        raise OSError("no route to host")

    source = sources.Source("nowhere", {"data_batch_1.bin": "0"}, {"the site": refuse})
    monkeypatch.setitem(sources.SOURCES, "cifar-10", source)


def test_a_data_set_that_cannot_be_had_does_not_stop_the_others(tmp_path, done, nowhere):
    runs = [quick(), quick(data="cifar-10", model="resnet-20", **SNIP), quick(seed=1)]
    with pytest.warns(UserWarning, match="1 runs are left out. cifar-10: the data set is not here"):
        table = carry_on(runs, tmp_path / "a.jsonl")
    assert list(table.id) == [runs[0].id, runs[2].id] and done == [runs[0], runs[2]]
    with pytest.raises(sources.DataError, match="cifar-10: the data set is not here"):
        carry_on(runs[1:2], tmp_path / "a.jsonl")


def test_what_a_run_is_scored_on_must_be_here_too(monkeypatch):
    def fetch(name):
        if name == "fashion-mnist":
            raise sources.DataError(f"{name}: the data set is not here")

    monkeypatch.setattr(sources, "fetch", fetch)
    runs = [quick(), quick(scoring_data="fashion-mnist", **SNIP)]
    with pytest.warns(
        UserWarning, match="1 runs are left out. fashion-mnist: the data set is not here"
    ):
        assert scheduler.reachable(runs) == runs[:1]


def test_runs_that_are_on_record_need_no_data(tmp_path, done, monkeypatch):
    monkeypatch.setattr(sources, "fetch", lambda name: 1 / 0)
    records.append(tmp_path / "a.jsonl", record(quick()))
    assert len(carry_on([quick()], tmp_path / "a.jsonl")) == 1 and not done


def test_a_damaged_data_set_stops_the_study(tmp_path, done, monkeypatch):
    def damaged(name):
        if name == "fashion-mnist":
            raise sources.DamagedError(f"{name}: the file is damaged")

    monkeypatch.setattr(sources, "fetch", damaged)
    with pytest.raises(sources.DamagedError):
        carry_on([quick(), quick(data="fashion-mnist")], tmp_path / "a.jsonl")
    assert not done


def test_after_the_deadline_no_run_is_started(tmp_path, monkeypatch):
    """It passes while the fifth run is under way, which stops at its checkpoint."""
    asked, deadlines, deadline = [], [], time.monotonic() + 3600

    def execute(run, device, checkpoint):
        asked.append(checkpoint.path)
        deadlines.append(checkpoint.deadline)
        if len(asked) > 4:
            raise checkpoints.Interrupted
        return record(run)

    monkeypatch.setattr(
        scheduler, "_passed", lambda deadline: deadline is not None and len(asked) > 4
    )
    monkeypatch.setattr(experiment, "execute", execute)
    runs = [quick(seed=seed) for seed in range(20)]
    assert list(carry_on(runs, tmp_path / "a.jsonl", deadline=deadline).id) == [
        run.id for run in runs[:4]
    ]
    assert asked == [tmp_path / "checkpoints" / f"{run.id}.pt" for run in runs[:5]]
    assert deadlines == pytest.approx([deadline] * 5, abs=30)
    assert len(carry_on(runs, tmp_path / "a.jsonl", deadline=deadline)) == 4 and len(asked) == 5


def test_a_deadline_that_has_passed(tmp_path, done):
    assert len(carry_on([quick()], tmp_path / "a.jsonl", deadline=0.0)) == 0 and not done
    with ThreadPoolExecutor(1) as executor:
        executor.submit = None  # nothing travels to workers, who would only send it back
        assert scheduler.execute_all({quick(): tmp_path / "a.jsonl"}, executor, deadline=0.0) == {}
    assert not scheduler._passed(None) and not scheduler._passed(time.monotonic() + 60)


def test_a_run_cut_off_by_the_deadline_carries_on_from_its_checkpoint(tmp_path, monkeypatch):
    run = quick(recipe=Recipe(steps=60, schedule="onecycle"), **SNIP)
    whole = carry_on([run], tmp_path / "whole" / "a.jsonl")
    stops, real = [10, 25, 40], checkpoints.Checkpoint.after

    def after(self, step):
        if stops and step == stops[0]:
            del stops[0]
            self.deadline = 0.0
        real(self, step)

    monkeypatch.setattr(checkpoints.Checkpoint, "after", after)
    for _ in range(3):
        assert not len(carry_on([run], tmp_path / "a.jsonl", deadline=time.monotonic() + 3600))
        assert scheduler.checkpoint_of(run, tmp_path).exists()
    table = carry_on([run], tmp_path / "a.jsonl")
    assert table.train_loss[0] == whole.train_loss[0] and table.test_error[0] == whole.test_error[0]
    assert (
        records.read(tmp_path)[run.id].provenance["resumed"]
        and not scheduler.checkpoint_of(run, tmp_path).exists()
    )


def test_two_threads_share_the_runs(tmp_path, monkeypatch):
    """Each has an executor of its own, and all records; no run is done twice."""
    asked, tables = [], []
    monkeypatch.setattr(
        experiment, "execute", lambda run, *_: asked.append(run) or time.sleep(0.02) or record(run)
    )
    runs = [quick(seed=seed) for seed in range(12)]
    callers = [
        threading.Thread(target=lambda: tables.append(carry_on(runs, tmp_path / "a.jsonl")))
        for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (
        sorted(ids(tmp_path)) == sorted(run.id for run in asked) == sorted(run.id for run in runs)
    )
    assert [list(table.seed) for table in tables] == [list(range(12))] * 3


def test_what_another_finished_in_the_meantime_is_not_done_again(tmp_path, monkeypatch):
    runs, asked = [quick(seed=seed) for seed in range(6)], []

    def execute(run, *_):
        if not asked:
            records.append(tmp_path / "b.jsonl", record(runs[5]))
        asked.append(run)
        return record(run)

    monkeypatch.setattr(experiment, "execute", execute)
    assert len(carry_on(runs, tmp_path / "a.jsonl")) == 6 and asked == runs[:5]


def test_room_made_in_time_loses_nothing(tmp_path, monkeypatch):
    """A record that found no room is kept, no run is started meanwhile, and it is written when the
    next has come in.
    """
    runs, real, calls = [quick(seed=seed) for seed in range(5)], records.append, []
    monkeypatch.setattr(experiment, "execute", lambda run, *_: time.sleep(0.1) or record(run))

    def append(results, item):
        calls.append(item.id)
        if len(calls) == 1:
            raise RuntimeError("the disk is full")
        real(results, item)

    monkeypatch.setattr(records, "append", append)
    assert len(carry_on(runs, tmp_path / "a.jsonl")) == 5 and sorted(ids(tmp_path)) == sorted(
        run.id for run in runs
    )


def test_a_folder_that_cannot_be_written_is_said_before_training(tmp_path, done):
    (tmp_path / "results").write_text("a file where the folder should be")
    with pytest.raises(
        RuntimeError, match="results.* cannot be written: .* change that and run again"
    ):
        carry_on([quick()], tmp_path / "results" / "a.jsonl")
    assert not done


@pytest.mark.parametrize(
    "error, message",
    [
        (BrokenProcessPool("x"), "a worker process died .*; 1 of 20 runs were finished"),
        (scheduler.CancelledError(), "the executor dropped its runs .*; 1 of 20"),
    ],
)
def test_an_executor_that_dies(tmp_path, done, error, message):
    class Dying:
        _max_workers, submitted = 1, 0

        def submit(self, function, *arguments):
            self.submitted += 1
            future = Future()
            if done:
                future.set_exception(error)
            else:
                future.set_result(function(*arguments))
            return future

    executor = Dying()
    with pytest.raises(RuntimeError, match=message):
        scheduler.run_all([quick(seed=seed) for seed in range(20)], tmp_path / "a.jsonl", executor)
    assert (
        len(ids(tmp_path)) == 1 and executor.submitted <= 1 + executor._max_workers + scheduler.LEAD
    )


@pytest.fixture
def gpu(monkeypatch):
    """The way of a GPU's runs, with a CPU doing the work."""
    monkeypatch.setattr(executors, "Processes", lambda count: ThreadPoolExecutor(count))
    monkeypatch.setattr(executors, "on_gpu", lambda: True)
    monkeypatch.setattr(executors, "_gpu_memory", lambda: 6)
    monkeypatch.setattr(executors, "device", lambda: "cpu")


def test_on_a_gpu_runs_that_go_together_are_trained_together(tmp_path, gpu):
    runs = [*(quick(seed=seed, **SNIP) for seed in range(3)), quick(model="gru-s")]
    table = scheduler.run_all(runs, tmp_path / "a.jsonl")
    recorded = records.read(tmp_path)
    assert list(table.seed) == [0, 1, 2, 0] and len(ids(tmp_path)) == 4
    assert [recorded[run.id].provenance.get("stack") for run in runs] == [3, 3, 3, None]


def test_a_stack_that_fails_is_done_one_by_one(tmp_path, gpu, monkeypatch):
    monkeypatch.setattr(experiment, "stacks", lambda runs, on_gpu: [list(runs)])
    mixed = [quick(seed=5), quick(seed=5, model="lenet-5-caffe")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(scheduler.run_all(mixed, tmp_path / "a.jsonl")) == 2
    assert any("2 runs could not be trained together" in str(item.message) for item in caught)


def test_the_state_of_a_run_that_is_on_record_is_deleted(tmp_path, done):
    """The record may have come from another machine; the states of other runs stay."""
    runs = [quick(seed=seed) for seed in range(3)]
    records.append(tmp_path / "a.jsonl", record(runs[0]))
    states = [scheduler.checkpoint_of(run, tmp_path) for run in runs]
    states[0].parent.mkdir()
    for state in states:
        state.touch()
    carry_on(runs[:2], tmp_path / "a.jsonl")
    assert done == runs[1:2] and [state.exists() for state in states] == [False, False, True]
