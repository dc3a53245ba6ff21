"""What can break in the middle of a study, broken on purpose: the message says what to do, and nothing on record is lost."""

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from snipkit import sources, study
from snipkit.study import Recipe, Run

QUICK = Recipe(steps=5, schedule="onecycle")
QUIET = os.environ | {"TQDM_DISABLE": "1"}


def quick(**changes):
    return Run(**({"recipe": QUICK, "train_size": 500, "test_size": 100} | changes))


def carry_on(runs, path):
    """The rerun after the accident, in this process (a new one would import torch for seconds)."""
    with ThreadPoolExecutor(1) as executor:
        return study.run_all(runs, path, executor)


def ids(folder):
    """The id of each whole line, doubles included."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
    return [json.loads(line)["id"] for line in lines if line.endswith(b"}")]


# The same eight runs as `SLOW`; workers: 0 for the default executor, else so many threads.
STUDY = """
import sys
from concurrent.futures import ThreadPoolExecutor
from snipkit.study import Recipe, Run, run_all
if __name__ == "__main__":
    path, threads, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    recipe = Recipe(steps=150, schedule="onecycle")
    executor = ThreadPoolExecutor(threads) if threads else None
    table = run_all([Run(recipe=recipe, seed=seed, train_size=2000, test_size=100) for seed in range(runs)], path, executor)
    print(len(table), table.id.nunique())
"""
SLOW = [Run(recipe=Recipe(steps=150, schedule="onecycle"), seed=seed, train_size=2000, test_size=100) for seed in range(8)]


@pytest.fixture
def start(tmp_path):
    """Start the study above as a process of its own."""
    script, started = tmp_path / "study.py", []
    script.write_text(STUDY)

    def begin(path, threads=0, runs=8, **options):
        command = [sys.executable, script, path, str(threads), str(runs)]
        options = {"env": QUIET, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        started.append(subprocess.Popen(command, **options))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for_lines(path, count, process):
    deadline = time.time() + 120
    while not (path.exists() and path.read_bytes().count(b"\n") >= count):
        assert process.poll() is None and time.time() < deadline, process.communicate()
        time.sleep(0.02)


def workers_of(process):
    """The process ids of its workers (not of Python's resource tracker)."""
    said = subprocess.run(["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in said.splitlines() if "spawn_main" in line]


def gone(pids):
    deadline = time.time() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.time() < deadline:
        time.sleep(0.05)
    return not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_kill_9_of_a_worker(tmp_path, start):
    path = tmp_path / "results" / "a.jsonl"
    process = start(path)
    wait_for_lines(path, 1, process)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    _, said = process.communicate()
    before = path.read_bytes()
    count = before.count(b"\n")
    assert process.returncode == 1 and 1 <= count < 8
    assert f"RuntimeError: a worker process died (was it killed, or out of memory?); {count} of 8 runs were finished" in said
    assert said.strip().endswith("run again to carry on")
    assert len(carry_on(SLOW, path)) == 8
    assert path.read_bytes().startswith(before) and sorted(ids(path.parent)) == sorted(run.id for run in SLOW)


def test_kill_9_of_the_parent(tmp_path, start):
    """Nothing that was finished is lost, no worker outlives its parent, and the rerun does the rest only."""
    path = tmp_path / "results" / "a.jsonl"
    process = start(path)
    wait_for_lines(path, 2, process)
    workers = workers_of(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = path.read_bytes()
    assert 2 <= before.count(b"\n") < 8 and workers and gone(workers)
    assert len(carry_on(SLOW, path)) == 8
    assert path.read_bytes().startswith(before) and sorted(ids(path.parent)) == sorted(run.id for run in SLOW)


def test_killed_in_the_middle_of_a_write(tmp_path, start):
    """The system writes half of the second line, then kills the process and with it its worker."""
    path = tmp_path / "results" / "a.jsonl"
    carry_on(SLOW[:1], path)
    first = path.read_bytes()

    # A file that grows past the limit costs a process its life, unless it ignores the signal, as Python does from its start.
    (tmp_path / "sitecustomize.py").write_text(
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(first) + 1000},) * 2)\n")
    process = start(path, threads=1, runs=3, env=QUIET | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})
    process.communicate()
    torn = path.read_bytes()
    assert process.returncode == -signal.SIGXFSZ and torn.startswith(first) and len(torn) == len(first) + 1000
    with pytest.warns(UserWarning, match=r"a.jsonl, line 2 is not a record .*: skipped"):
        assert len(carry_on(SLOW[:3], path)) == 3
    assert path.read_bytes().startswith(torn + b"\n")  # named and left; the next record begins on a line of its own
    assert ids(path.parent) == [run.id for run in SLOW[:3]]


@contextlib.contextmanager
def small_disk(folder, room):
    """A file system of its own with about so many bytes of room; a function that makes more."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        filler = folder / "filler"
        filler.write_bytes(b"x" * (256 * 1024 - room))
        yield filler.unlink
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def small_file(folder, room):
    """No file may grow longer than a megabyte, and the file of records has that length but for ``room``."""
    size = (1 << 20) - room
    (folder / "a.jsonl").write_bytes(b"\n" * size)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limited", [small_disk, small_file])
def test_a_full_disk(tmp_path, limited):
    runs, folder = [quick(seed=seed) for seed in range(12)], tmp_path / "results"
    folder.mkdir()
    with limited(folder, 8192) as make_room:
        with pytest.raises(RuntimeError, match=(
                r"a.jsonl cannot be written: the disk is full. What was on record still is; make room and run again to carry on. "
                r"[1-4] finished runs could not be put on record and will be done again")):
            carry_on(runs, folder / "a.jsonl")
        before = (folder / "a.jsonl").read_bytes()
        on_record = ids(folder)
        assert before.endswith(b"}\n") and 1 <= len(on_record) < 12 and on_record == [run.id for run in runs[: len(on_record)]]
        make_room()
        assert len(carry_on(runs, folder / "a.jsonl")) == 12
        assert (folder / "a.jsonl").read_bytes().startswith(before) and ids(folder) == [run.id for run in runs]


def test_room_made_in_time_loses_nothing(tmp_path, monkeypatch):
    """A record that found no room is kept, and written when the next run has finished."""
    runs, real, calls = [quick(seed=seed) for seed in range(5)], study.append, []

    def append(results, record):
        calls.append(record["id"])
        if len(calls) == 1:
            raise RuntimeError("the disk is full")
        real(results, record)

    monkeypatch.setattr(study, "append", append)
    assert len(carry_on(runs, tmp_path / "a.jsonl")) == 5 and sorted(ids(tmp_path)) == sorted(run.id for run in runs)


def test_a_folder_that_cannot_be_written_is_said_before_training(tmp_path, monkeypatch):
    (tmp_path / "results").write_text("a file where the folder should be")
    monkeypatch.setattr(study, "_execute", None)
    with pytest.raises(RuntimeError, match="results cannot be written: File exists. .* change that and run again"):
        carry_on([quick()], tmp_path / "results" / "a.jsonl")


@pytest.mark.parametrize(
    "line, why",
    [
        (b'{"id": "torn", "ru', "Unterminated string"),
        (b"\x00" * 300, "Expecting value"),  # what a power cut leaves
        (b'{"\xe9\xe9"}', "codec can't decode"),
        (b"<<<<<<< HEAD", "Expecting value"),  # two machines' records merged by git
        (b"[1, 2]", "without kept, outcome, provenance, run"),
        (b'{"run": {}, "outcome": null, "kept": {}}', "without provenance"),
        (b'{"run": {"recipe": {"steps": 5}, "data": "mist"}, "outcome": null, "kept": {}, "provenance": {}}', "unknown data set 'mist'"),
    ],
)
def test_a_torn_or_garbled_line_is_named_skipped_and_left_alone(tmp_path, line, why):
    path, runs = tmp_path / "a.jsonl", [quick(), quick(seed=1)]
    carry_on(runs[:1], path)
    whole = path.read_bytes()
    path.write_bytes(whole + line)
    with pytest.warns(UserWarning, match=rf"a.jsonl, line 2 is not a record \(.*{why}.*: skipped"):
        assert len(carry_on(runs, path)) == 2
    lines = path.read_bytes().split(b"\n")
    assert lines[0] + b"\n" == whole and lines[1] == line and json.loads(lines[2])["id"] == runs[1].id


def test_two_at_once_share_the_runs(tmp_path, start):
    path = tmp_path / "results" / "a.jsonl"
    both = [start(path, threads=1, runs=6), start(path, threads=1, runs=6)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [out.strip() for out, _ in said] == ["6 6", "6 6"]  # both have the whole table
    assert sorted(ids(path.parent)) == sorted(run.id for run in SLOW[:6])  # and each run was done once


def test_a_run_of_a_killed_process_is_taken_over(tmp_path):
    """Another process has claimed the first run; the others are done, and that one as soon as the other is dead."""
    runs, path = [quick(), quick(seed=1)], tmp_path / "a.jsonl"
    code = "import fcntl, sys, time; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX, 1, int(sys.argv[2], 16)); print(flush=True); time.sleep(99)"
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path / ".claims", runs[0].id], stdout=subprocess.PIPE)
    other.stdout.readline()
    threading.Timer(4, other.kill).start()
    seen_alive = []
    threading.Timer(3, lambda: seen_alive.extend(ids(tmp_path))).start()
    assert len(carry_on(runs, path)) == 2
    other.communicate()
    assert seen_alive == [runs[1].id] and ids(tmp_path) == [runs[1].id, runs[0].id]


def test_a_worker_without_the_data(tmp_path):
    """Its runs fail with what to do and where; runs on the data it has go on."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "MNIST").symlink_to(sources.data_root() / "MNIST")
    runs, path = [quick(), quick(data="fashion-mnist"), quick(seed=1)], tmp_path / "a.jsonl"
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=_elsewhere, initargs=(tmp_path / "data",)) as executor:
        with pytest.raises(RuntimeError, match="1 of 3 runs failed") as caught:
            study.run_all(runs, path, executor)
    assert f"DataError: on {socket.gethostname()}: fashion-mnist: the data set is not here" in str(caught.value)
    assert f"Put the files {', '.join(sources.IDX_FILES)}" in str(caught.value) and str(tmp_path / "data") in str(caught.value)
    assert set(ids(tmp_path)) == {runs[0].id, runs[2].id}


def _elsewhere(data):
    """Make a worker one of a machine with other data and without a way of fetching any."""
    os.environ[sources.ROOT_VARIABLE] = str(data)
    for source in sources.SOURCES.values():
        source.fetchers.clear()


def test_a_worker_with_another_snipkit_is_named():
    with pytest.raises(RuntimeError, match=f"the worker on {socket.gethostname()} has snipkit .*, not 9.9: install the same"):
        study._execute([{}], "9.9", None, None)


def test_records_of_an_older_and_of_a_newer_version(tmp_path):
    """Fields that came later have their defaults in an old record; a field that is not known here is named."""
    runs, path = [quick(), quick(seed=1)], tmp_path / "a.jsonl"
    carry_on(runs, path)
    old, new = map(json.loads, path.read_text().splitlines())
    for name in ("scoring_sample", "scoring_data", "scoring_augment", "scoring_labels", "train_labels"):
        del old["run"][name]
    new["run"]["moonphase"] = "full"
    path.write_text(json.dumps(old) + "\n" + json.dumps(new) + "\n")
    with pytest.warns(UserWarning, match="a.jsonl, line 2 is not a record .*unexpected keyword argument 'moonphase'"):
        assert set(study.read(tmp_path)) == {runs[0].id}
    with pytest.warns(UserWarning, match="moonphase"):
        assert len(carry_on(runs, path)) == 2
    assert ids(tmp_path) == [runs[0].id, runs[1].id, runs[1].id]  # the second was done again, not taken for the strange one


def test_records_of_two_machines_are_merged_by_cat(tmp_path, monkeypatch):
    """Both did the middle run; the first record of it counts, and nothing is done again."""
    runs, here = [quick(seed=seed) for seed in range(3)], tmp_path / "here" / "a.jsonl"
    carry_on(runs[:2], here)
    carry_on(runs[1:], tmp_path / "there" / "a.jsonl")
    first = study.read(tmp_path / "here")[runs[1].id]
    with open(here, "ab") as stream:
        subprocess.run(["cat", tmp_path / "there" / "a.jsonl"], stdout=stream, check=True)
    monkeypatch.setattr(study, "_execute", None)  # nothing may be done
    table = carry_on(runs, here)
    assert list(table.id) == [run.id for run in runs] and len(ids(here.parent)) == 4
    assert study.read(here.parent)[runs[1].id] == first
