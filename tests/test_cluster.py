"""Workers on other machines: a real Dask scheduler with real workers."""

import json
import signal
import sys
import threading
import time

import pytest
from processes import begin
from tiny import ENVIRONMENT, ids

from snipkit.recipe import Recipe
from snipkit.study.train import executors, scheduler
from snipkit.study.train.runs import Run


@pytest.fixture
def processes(tmp_path):
    """Start `dask …` processes with the machine's data; all are ended afterwards."""
    pytest.importorskip("distributed", reason="pip install '.[cluster]' in snipkit's folder")
    started = []

    def start(*words):
        environment = ENVIRONMENT | {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"}
        with open(tmp_path / f"log{len(started)}", "w", encoding="utf-8") as log:
            command = [sys.executable, "-m", "dask", *words, "--no-dashboard"]
            started.append(begin(command, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_killed_worker_costs_nothing(tmp_path, processes):
    """A scheduler and two workers.

    One worker is killed while it trains, the other does its run again.
    """
    file, path = tmp_path / "scheduler.json", tmp_path / "results" / "a.jsonl"
    processes("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file)
    options = ("--scheduler-file", file, "--nthreads", "1", "--memory-limit", "0", "--no-nanny")
    options = (*options, "--local-directory", tmp_path)
    deadline = time.time() + 60
    while not file.exists():
        assert time.time() < deadline, (tmp_path / "log0").read_text()
        time.sleep(0.05)
    workers = [processes("worker", *options, "--name", name) for name in "ab"]
    recipe = Recipe(steps=150, schedule="onecycle")
    runs = [Run(recipe=recipe, seed=seed, train_size=2000, test_size=100) for seed in range(10)]

    with executors.dask(json.loads(file.read_text())["address"]) as executor:
        client, at_work = executor._client, []
        client.wait_for_workers(2)
        assert executors.capacity(executor) == 2
        address = next(
            a for a, worker in client.scheduler_info()["workers"].items() if worker["name"] == "a"
        )

        def kill_one():
            while not (
                path.exists()
                and path.read_bytes().count(b"\n") >= 2
                and client.processing()[address]
            ):
                time.sleep(0.02)
            at_work.extend(client.processing()[address])
            workers[0].kill()

        threading.Thread(target=kill_one, daemon=True).start()
        table = scheduler.run_all(runs, path, executor)
    assert at_work and workers[0].wait() == -signal.SIGKILL and workers[1].poll() is None
    assert list(table.id) == [run.id for run in runs]
    assert sorted(ids(path.parent)) == sorted(run.id for run in runs)
