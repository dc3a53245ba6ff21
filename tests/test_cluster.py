"""Workers on other machines: a real Dask scheduler with real workers, and what is said when something does not fit."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest

import snipkit
from snipkit import cluster, sources, study
from snipkit.study import Recipe, Run


def versions(**worker):
    """What ``Client.get_versions`` gives, with one worker that differs."""
    def one(python="3.11.7.final.0", torch="2.13.0", snipkit=snipkit.__version__):
        return {"host": {"python": python}, "packages": {"python": python, "torch": torch, "snipkit": snipkit}}

    return {"client": one(), "scheduler": one(), "workers": {"tcp://b:1": one(), "tcp://c:2": one(**worker)}}


def test_versions_are_compared():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cluster.compare(versions())
    with pytest.warns(UserWarning, match="^the worker tcp://c:2 has torch 2.12.0, not 2.13.0: results will differ in their last digits$"):
        cluster.compare(versions(torch="2.12.0"))
    with pytest.raises(RuntimeError, match="^the worker tcp://c:2 has snipkit 0.0.9, this machine .*: install the same on all machines"):
        cluster.compare(versions(snipkit="0.0.9"))
    with pytest.raises(RuntimeError, match=r"^the worker tcp://c:2 has snipkit \(none\)"):
        cluster.compare(versions(snipkit=None))


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RuntimeError, match=r"pip install '.\[cluster\]' in snipkit's folder"), cluster.connect("tcp://127.0.0.1:1"):
        pass


@pytest.fixture
def processes(tmp_path):
    """Start `dask …` processes with the machine's data; all are ended afterwards."""
    pytest.importorskip("distributed", reason="pip install '.[cluster]' in snipkit's folder")
    started = []

    def begin(*words):
        environment = os.environ | {"SNIPKIT_DATA": str(sources.data_root()), "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"}
        with open(tmp_path / f"log{len(started)}", "w") as log:
            command = [sys.executable, "-m", "dask", *words, "--no-dashboard"]
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_a_killed_worker_costs_nothing(tmp_path, processes):
    """A scheduler and two workers; one worker is killed while it trains, the other does its run again."""
    file, path = tmp_path / "scheduler.json", tmp_path / "results" / "a.jsonl"
    processes("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file)
    options = ("--scheduler-file", file, "--nthreads", "1", "--memory-limit", "0", "--no-nanny", "--local-directory", tmp_path)
    deadline = time.time() + 60
    while not file.exists():
        assert time.time() < deadline, (tmp_path / "log0").read_text()
        time.sleep(0.05)
    workers = [processes("worker", *options, "--name", name) for name in "ab"]
    runs = [Run(recipe=Recipe(steps=150, schedule="onecycle"), seed=seed, train_size=2000, test_size=100) for seed in range(10)]

    with cluster.connect(json.loads(file.read_text())["address"]) as executor:
        client, at_work = executor._client, []
        client.wait_for_workers(2)
        assert study.capacity(executor) == 2
        address = next(a for a, worker in client.scheduler_info()["workers"].items() if worker["name"] == "a")

        def kill_one():
            while not (path.exists() and path.read_bytes().count(b"\n") >= 2 and client.processing()[address]):
                time.sleep(0.02)
            at_work.extend(client.processing()[address])
            workers[0].kill()

        threading.Thread(target=kill_one, daemon=True).start()
        table = study.run_all(runs, path, executor)
    assert at_work and workers[0].wait() == -signal.SIGKILL and workers[1].poll() is None
    assert list(table.id) == [run.id for run in runs]
    assert sorted(json.loads(line)["id"] for line in path.read_text().splitlines()) == sorted(run.id for run in runs)


def test_a_scheduler_that_is_not_there_is_one_clear_error(monkeypatch):
    pytest.importorskip("distributed", reason="pip install '.[cluster]' in snipkit's folder")
    monkeypatch.setattr(cluster, "SECONDS", 1)
    with pytest.raises(RuntimeError, match="no Dask scheduler answers at tcp://127.0.0.1:9 .*start one with `dask scheduler`"):
        with cluster.connect("tcp://127.0.0.1:9"):
            pass
