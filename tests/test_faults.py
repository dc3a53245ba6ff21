"""What can break in the middle of a study, broken on purpose with real processes: nothing on record
is lost, and no process is left behind."""

import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from processes import begin
from tiny import ENVIRONMENT, carry_on, ids, quick, record

from snipkit.recipe import Recipe
from snipkit.study.train import checkpoints, experiment, records, scheduler
from snipkit.study.train.runs import Run

LONG = 1_000_000  # steps: minutes

# Started as a process: the same study again and again, until it is killed or finished, one worker
# process at a time.
STUDY = """
import sys
from snipkit.study import Run, run_all
if __name__ == "__main__":
    path, runs, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    recipe = {"steps": steps, "schedule": "onecycle"}
    for start in range(9):
        try:
            sizes = {"train_size": 2000, "test_size": 100}
            run_all([Run(recipe=recipe, seed=seed, **sizes) for seed in range(runs)], path)
        except (KeyboardInterrupt, RuntimeError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
"""


def of_study(runs, steps):
    recipe = Recipe(steps=steps, schedule="onecycle")
    return [Run(recipe=recipe, seed=seed, train_size=2000, test_size=100) for seed in range(runs)]


class Study:
    """A study as a process, in a session of its own."""

    def __init__(self, folder, runs, steps):
        (folder / "study.py").write_text(STUDY)
        self.path, self.log = folder / "results" / "a.jsonl", folder / "log"
        with open(self.log, "w") as log:
            command = [sys.executable, folder / "study.py", self.path, str(runs), str(steps)]
            one_core = {min(os.sched_getaffinity(0))}  # so one worker
            self.process = begin(
                command, before=lambda: os.sched_setaffinity(0, one_core),
                start_new_session=True, env=ENVIRONMENT, stdout=log, stderr=log,
            )  # fmt: skip

    def said(self):
        return self.log.read_text()

    def lines(self):
        return self.path.read_bytes().count(b"\n") if self.path.exists() else 0

    def until(self, condition):
        deadline = time.monotonic() + 120
        while not (found := condition()):
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.1)
        return found

    def others(self, word=""):
        """The other processes of its session with that word in their command.

        Workers, Python's resource tracker.
        """
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                state, _, _, session = (path / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.process.pid != int(path.name) and state != "Z":
                    found += [int(path.name)] * (word in (path / "cmdline").read_text())
        return found

    def workers(self):
        return self.others("spawn_main")

    def stop(self, *numbers):
        """As Ctrl-C at a terminal does: the signal reaches the workers, too."""
        for number in numbers:
            os.killpg(self.process.pid, number)
            time.sleep(0.05)

    def ended(self, times):
        return self.said().count("Error: ") + self.said().count("KeyboardInterrupt: ") == times


@pytest.fixture
def start(tmp_path):
    started = []
    yield lambda **options: started.append(Study(tmp_path, **options)) or started[-1]
    for study in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(study.process.pid, signal.SIGKILL)
        study.process.wait()


def in_training(study):
    """A worker in the middle of a training.

    It has its handler for signals, and has computed for a second since.
    """
    begun = {}

    def check():
        for pid in study.workers():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                caught = next(
                    int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")
                )
                times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                seconds = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
                if (
                    caught >> (signal.SIGTERM - 1) & 1
                    and seconds > begun.setdefault(pid, seconds) + 1
                ):
                    return pid
        return None

    return check


def steps_in(state):
    return torch.load(state, weights_only=True)["step"]


def test_a_study_that_is_told_to_stop(start):
    """Four times.

    By `kill`; by Ctrl-C while its worker still starts; by Ctrl-C; by Ctrl-C twice.
    """
    study = start(runs=1, steps=LONG)
    ((run,), folder) = of_study(1, LONG), study.path.parent
    state = scheduler.checkpoint_of(run, folder)

    study.until(in_training(study))
    study.process.send_signal(signal.SIGTERM)
    study.until(lambda: study.ended(1))
    polite = (
        f"stopping: the runs under way write their state\n0 of 1 runs are on record in {folder}"
    )
    assert (
        polite in study.said()
        and "run again to carry on" in study.said()
        and "Traceback" not in study.said()
    )
    first = steps_in(state)

    study.until(lambda: len(study.workers()) == 1)
    study.stop(signal.SIGINT)
    study.until(lambda: study.ended(2))
    # A worker that imports would die noisily.
    assert "Traceback" not in study.said() and steps_in(state) == first

    study.until(in_training(study))
    study.stop(signal.SIGINT)
    study.until(lambda: study.ended(3))
    assert (
        study.said().count(polite) == 3
        and "Traceback" not in study.said()
        and steps_in(state) > first > 0
    )

    study.until(in_training(study))
    before = set(study.workers())
    study.stop(signal.SIGINT, signal.SIGINT)
    # On a fast machine it has ended politely before the second signal, which then ends its next
    # round: twice ended.
    study.until(lambda: (study.ended(4) or study.ended(5)) and not before & set(study.workers()))
    study.stop(signal.SIGKILL)
    assert not ids(folder) and [
        path.name for path in state.parent.iterdir() if path.suffix == ".pt"
    ] == [state.name]

    last, steps, real = steps_in(state), [], checkpoints.Checkpoint.after

    def after(self, step):
        steps.append(step)
        self.deadline = 0.0
        real(self, step)

    with pytest.MonkeyPatch.context() as patch:  # the rerun carries on where the last one stopped
        patch.setattr(checkpoints.Checkpoint, "after", after)
        assert not len(carry_on([run], study.path, deadline=time.monotonic() + 60))
    assert steps == [last + 1] and steps_in(state) == last + 1


def test_kill_9_of_a_worker_and_of_the_study(start):
    """Nothing that was finished is lost, no worker outlives its parent, and the rerun does the
    rest, once.
    """
    study, runs = start(runs=12, steps=150), of_study(12, 150)
    study.until(lambda: study.lines() >= 1)
    os.kill(study.workers()[0], signal.SIGKILL)
    study.until(lambda: study.ended(1))
    before = study.path.read_bytes()
    count = before.count(b"\n")
    said = (
        "RuntimeError: a worker process died (was it killed, "
        f"or out of memory?); {count} of 12 runs were finished"
    )
    assert (
        1 <= count < 12
        and said in study.said()
        and study.said().strip().endswith("run again to carry on")
    )

    study.until(lambda: study.lines() > count)
    assert study.workers()
    study.process.send_signal(signal.SIGKILL)
    study.process.wait()
    deadline = time.monotonic() + 10
    while study.others() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not study.others()
    assert len(carry_on(runs, study.path)) == 12
    assert study.path.read_bytes().startswith(before)
    assert sorted(ids(study.path.parent)) == sorted(run.id for run in runs)


@pytest.fixture
def instead(monkeypatch):
    """Records without training.

    What follows is about files, and forked processes must not compute with torch.
    """
    monkeypatch.setattr(experiment, "execute", lambda run, *_: time.sleep(0.02) or record(run))
    return multiprocessing.get_context("fork")


def limited(runs, path, size):
    """Do runs in a process that dies when a file grows past the size."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    carry_on(runs, path)


def test_killed_in_the_middle_of_a_write(tmp_path, instead):
    """The system writes half of the second line, then kills the process."""
    path, runs = tmp_path / "results" / "a.jsonl", [quick(seed=seed) for seed in range(3)]
    carry_on(runs[:1], path)
    first = path.read_bytes()
    child = instead.Process(target=limited, args=(runs, path, len(first) + 500))
    child.start()
    child.join()
    torn = path.read_bytes()
    assert (
        child.exitcode == -signal.SIGXFSZ
        and torn.startswith(first)
        and len(torn) == len(first) + 500
    )
    with pytest.warns(UserWarning, match=r"a.jsonl, line 2 is not a record .*: skipped"):
        assert len(carry_on(runs, path)) == 3
    # Named and left; the next record begins on a line of its own.
    assert path.read_bytes().startswith(torn + b"\n")
    assert ids(path.parent) == [run.id for run in runs]


def test_two_studies_at_once_share_the_runs(tmp_path, instead):
    runs = [quick(seed=seed) for seed in range(20)]
    both = [
        instead.Process(target=carry_on, args=(runs, tmp_path / f"{name}.jsonl")) for name in "ab"
    ]
    for study in both:
        study.start()
    for study in both:
        study.join()
    assert [study.exitcode for study in both] == [0, 0]
    assert (
        sorted(ids(tmp_path)) == sorted(run.id for run in runs)
        and len(list(tmp_path.glob("*.jsonl"))) == 2
    )


@contextlib.contextmanager
def small_disk(folder, room):
    """A file system of its own with about so many bytes of room; a function that makes more."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True
    )
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
    """No file may grow longer than a megabyte, and the file of records has that length but for
    ``room``.
    """
    size = (1 << 20) - room
    (folder / "a.jsonl").write_bytes(b"\n" * size)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limited", [small_disk, small_file])
def test_a_full_disk(tmp_path, instead, limited):
    runs, folder = [quick(seed=seed) for seed in range(12)], tmp_path / "results"
    folder.mkdir()
    with limited(folder, 8192) as make_room:
        said = (
            "cannot be written: the disk is full. What was on "
            "record still is; make room and run again to carry on"
        )
        with pytest.raises(RuntimeError, match=said):
            carry_on(runs, folder / "a.jsonl")
        before = (folder / "a.jsonl").read_bytes()
        on_record = ids(folder)
        assert before.endswith(b"}\n") and 1 <= len(on_record) < 12
        assert set(on_record) < {run.id for run in runs}
        make_room()
        assert len(carry_on(runs, folder / "a.jsonl")) == 12
        assert (folder / "a.jsonl").read_bytes().startswith(before)
        assert sorted(ids(folder)) == sorted(run.id for run in runs)


def test_a_run_of_a_killed_process_is_taken_over(tmp_path):
    """Another process has claimed the first run.

    The others are done, and that one as soon as the other is dead.
    """
    runs, path = [quick(), quick(seed=1)], tmp_path / "a.jsonl"
    code = (
        "import sys, time; from filelock import FileLock\n"
        "lock = FileLock(sys.argv[1]); lock.acquire(); print(flush=True); time.sleep(99)"
    )
    lock = scheduler.checkpoint_of(runs[0], tmp_path).with_suffix(".lock")
    lock.parent.mkdir()
    command = [sys.executable, "-c", code, lock]
    with begin(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        seen_alive = []

        def kill():
            seen_alive.extend(ids(tmp_path))
            other.kill()

        threading.Timer(2.5, kill).start()
        assert len(carry_on(runs, path)) == 2
    assert seen_alive == [runs[1].id] and ids(tmp_path) == [runs[1].id, runs[0].id]


def test_records_of_two_machines_are_merged_by_cat(tmp_path, instead, monkeypatch):
    """Both did the middle run; the first record of it counts, and nothing is done again."""
    runs, here = [quick(seed=seed) for seed in range(3)], tmp_path / "here" / "a.jsonl"
    carry_on(runs[:2], here)
    carry_on(runs[1:], tmp_path / "there" / "a.jsonl")
    first = records.read(tmp_path / "here")[runs[1].id]
    with open(here, "ab") as stream:
        subprocess.run(["cat", tmp_path / "there" / "a.jsonl"], stdout=stream, check=True)
    monkeypatch.setattr(experiment, "execute", None)  # nothing may be done
    table = carry_on(runs, here)
    assert list(table.id) == [run.id for run in runs] and len(ids(here.parent)) == 4
    assert records.read(here.parent)[runs[1].id] == first


def test_a_script_without_a_main_guard_ends_with_advice(tmp_path):
    """Its worker would wait for a run that its own parent has claimed."""
    script = tmp_path / "study.py"
    script.write_text(
        "from snipkit.study import Run, run_all\n"
        "run_all([Run(recipe=dict(steps=2), train_size=200, test_size=20)], 'results/rq1.jsonl')\n"
    )
    call = [sys.executable, script]
    done = subprocess.run(
        call, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode and "put its calls under if __name__ == '__main__':" in done.stderr
