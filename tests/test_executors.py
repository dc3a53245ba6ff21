"""Who trains.

What an executor can do, what machines must have in common, how signals and threads are put back.
"""

import math
import os
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest
import torch
from tiny import quick, record

from snipkit import outcomes, training
from snipkit.recipe import Recipe
from snipkit.study.train import checkpoints, estimate, executors, provenance


def test_how_many_runs_go_on_at_a_time(monkeypatch):
    assert executors.capacity() == executors.workers() == len(os.sched_getaffinity(0))
    assert (
        executors.capacity(ThreadPoolExecutor(3)) == 3
        and executors.capacity(Executor()) == math.inf
    )
    monkeypatch.setattr(executors, "on_gpu", lambda: True)
    for cores, gib, workers in ((16, 4, 1), (16, 24, 4), (32, 80, 8), (6, 80, 3), (1, 80, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cores=cores: set(range(cores)))
        monkeypatch.setattr(executors, "_gpu_memory", lambda gib=gib: gib)
        assert executors.capacity() == workers and executors.device() == "cuda"


def test_versions_are_compared():
    of_this_process = executors._versions()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        executors.compare(
            {"the scheduler": of_this_process, "the worker tcp://b:1": dict(of_this_process)}
        )
    with pytest.warns(
        UserWarning, match="^the worker b has torch 1.0, not .*: results will differ"
    ):
        executors.compare({"the worker b": of_this_process | {"torch": "1.0"}})
    with pytest.raises(
        RuntimeError, match="^the scheduler has other code of snipkit .*: install the same"
    ):
        executors.compare(
            {"the scheduler": of_this_process | {"code": "123"}, "the worker b": of_this_process}
        )


def test_the_code_of_a_worker_is_all_of_the_package(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "a.py").write_text("x = 1")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)

    def code():
        provenance.code.cache_clear()
        return provenance.code()

    first = code()
    (tmp_path / "study" / "a.py").write_text("x = 2")
    second = code()
    (tmp_path / "study" / "a.py").rename(tmp_path / "a.py")
    third = code()
    provenance.code.cache_clear()
    assert len({first, second, third}) == 3


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(RuntimeError, match=r"pip install '.\[cluster\]' in snipkit's folder"),
        executors.dask("tcp://127.0.0.1:1"),
    ):
        pass


def test_a_scheduler_that_is_not_there_is_one_clear_error(monkeypatch):
    pytest.importorskip("distributed", reason="pip install '.[cluster]' in snipkit's folder")
    monkeypatch.setattr(executors, "ANSWER", 1)
    with pytest.raises(
        RuntimeError, match="no Dask scheduler answers at tcp://127.0.0.1:9 .*start one with"
    ):
        with executors.dask("tcp://127.0.0.1:9"):
            pass


def test_the_last_of_several_users_puts_the_threads_back():
    torch.set_num_threads(2)
    with executors.one_thread():
        assert torch.get_num_threads() == 1
        with executors.one_thread():
            pass
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_one_signal_is_collected_the_second_interrupts():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), executors.caught_signals() as caught:
        os.kill(os.getpid(), signal.SIGTERM)
        assert caught == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGINT)
    assert caught == [signal.SIGTERM, signal.SIGINT]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_ignored_signal_stays_ignored_and_other_threads_catch_none():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # such is a job in a shell's background
    try:
        with executors.caught_signals() as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert caught == [] and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: executors.caught_signals().__enter__()).result() == []


def test_a_training_in_a_thread_is_stopped_with_its_state():
    started, seen = threading.Event(), []

    def train():
        started.set()
        end = time.monotonic() + 20
        while not checkpoints.stopping and time.monotonic() < end:
            time.sleep(0.01)
        seen.append(time.monotonic() < end)

    with ThreadPoolExecutor(1) as executor:
        under_way, waiting = executor.submit(train), executor.submit(print)
        started.wait()
        assert executors.stop(executor, [under_way, waiting]) == {under_way} and seen == [True]
        assert waiting.cancelled()
    assert not checkpoints.stopping


def test_the_cost_of_a_run_is_taken_from_the_records_of_such_a_machine(monkeypatch):
    measured = []
    monkeypatch.setattr(estimate, "_measure", lambda run: measured.append(run) or 100.0)
    machine, run = provenance.name("cpu"), quick()

    def on_record(seconds, device=machine, run=run, **changes):
        return record(run, **{"provenance": {"seconds": seconds, "device": device}} | changes)

    done = [on_record(seconds) for seconds in (1.0, 2.0, 9.0)]
    done += [
        on_record(70.0, "another"),
        on_record(75.0, "another"),
        on_record(80.0, outcome=None, diverged="nan"),
    ]
    done += [
        on_record(0.1, provenance={"seconds": 0.1, "device": machine, "resumed": True}),
        record(run),
    ]
    done += [on_record(50.0, run=quick(recipe=Recipe(steps=6)))]
    runs = [
        quick(seed=7),
        quick(seed=8, criterion="snip", sparsity=0.9),
        quick(test_size=50),
        quick(model="gru-s"),
    ]
    estimated = estimate.seconds(runs, dict(enumerate(done)))
    assert list(estimated.values()) == [2.0, 2.0, 100.0, 100.0] and measured == runs[2:]


def test_the_cost_of_a_new_run_is_measured(monkeypatch):
    """In proportion to its steps, with its evaluations; nothing is left changed."""
    torch.set_num_threads(2)
    trained, real = [], training.train

    def train(model, masks, images, recipe, **options):
        trained.append(recipe)
        return real(model, masks, images, recipe, **options)

    monkeypatch.setattr(training, "train", train)
    ticks = iter(range(10_000))
    # Half a second for whatever is timed.
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: 0.5 * next(ticks))
    run = quick(recipe=Recipe(steps=1000), test_size=200)
    (seconds,) = estimate.seconds([run], {}).values()
    assert [recipe.steps for recipe in trained] == [1, 10] and trained[
        0
    ].batch_size == run.recipe.batch_size
    assert seconds == pytest.approx(1000 * 0.5 / 10 + outcomes.TESTS * 200 * 0.5 / 1000)
    assert torch.get_num_threads() == 2


def test_calls_are_timed_in_turns_and_the_shortest_counts(monkeypatch):
    calls, spent = [], iter([8e-6, 4e-6, 6e-6, 10e-6])  # seconds of two calls each

    class Timer:
        def __init__(self, call):
            self.call = call

        def timeit(self, repeats):
            assert repeats == 2
            self.call()
            return next(spent)

    monkeypatch.setattr(estimate, "Timer", Timer)
    named = {name: lambda name=name: calls.append(name) for name in "ab"}
    assert estimate.microseconds(named, turns=2, repeats=2) == pytest.approx({"a": 3.0, "b": 2.0})
    assert calls == ["a", "b", "a", "b"]
