"""Which run is done when and by whom: a queue of what is not on record, shared by processes."""

import dataclasses
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterable
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from tqdm import tqdm

from snipkit.study import paths
from snipkit.study.sets import sources
from snipkit.study.sets.datasets import SHAPES
from snipkit.study.train import executors, experiment, provenance, records
from snipkit.study.train.records import Record
from snipkit.study.train.runs import Run
from snipkit.study.train.worker import execute_group

LEAD = 2  # runs waiting at the executor, so that no worker waits for its next one
LATE = 60  # seconds after the deadline in which runs under way stop; then others are dropped


def run_all(
    runs: Iterable[Run],
    results: Path | str,
    executor: Executor | None = None,
    minutes: float | None = None,
) -> pd.DataFrame:
    """Do every run that is not on record yet; return the table of all.

    Each is put on record the moment it is finished. A run on record in *any* ``.jsonl`` file of the
    same folder is not done again, so notebooks share their runs. Killed at any moment, nothing that
    was finished is lost: the next call carries on.

    Args:
        runs: a run that is given twice is done once.
        results: the ``.jsonl`` file to append new records to; made if need be.
        executor: see ``execute_all``, also for what is raised.
        minutes: the time for training (else a ValueError): None is as long as it takes, 0 is none:
            what is on record is all there is.

    Returns:
        ``records.table`` of ``runs``, in their order, without those that the time was too short
        for, or whose data set is unavailable (see ``reachable``).
    """
    if minutes is not None and not (isinstance(minutes, int | float) and minutes >= 0):
        raise ValueError(f"minutes is {minutes!r}; it takes a number of minutes, or None")
    runs = list(runs)
    results = paths.expanded(results)
    if minutes == 0:
        return records.table(runs, records.read(results.parent))
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    return records.table(runs, execute_all(dict.fromkeys(runs, results), executor, deadline))


def execute_all(
    files: dict[Run, Path], executor: Executor | None = None, deadline: float | None = None
) -> dict[str, Record]:
    """Do the runs that are not on record yet, in the order given.

    Each is put on record the moment it is finished. Any number of processes and threads may do this
    in one folder at a time: each run is done by one of them, and the others wait for its record.

    Args:
        files: run → the ``.jsonl`` file for its record; all files lie in one folder.
        executor: any ``concurrent.futures.Executor``. By default one process a core with one thread
            each (on a GPU: one for every second core, ``executors.workers``), which is what small
            networks are fastest with.
        deadline: a ``time.monotonic()`` after which no run is started, and those under way stop at
            a checkpoint. What an executor on other machines has not given back by ``LATE`` is
            dropped.

    Returns:
        All records of the folder, by run id.

    Raises:
        ValueError: a file that does not end in ``.jsonl``, so that it would never be read again.
        sources.DataError: see ``reachable``.
        RuntimeError: some runs failed (each with its reason), a worker died, or a record could not
            be written. All that was finished is on record by then, as far as there was room.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the runs under way have written their
            state.
    """
    if not files:
        return {}
    wrong = {path.name for path in files.values() if path.suffix != ".jsonl"}
    if wrong:
        names = ", ".join(sorted(wrong))
        raise ValueError(f"records go into .jsonl files, not {names}: nothing would read them")
    folders = {path.parent for path in files.values()}
    if len(folders) > 1:
        raise ValueError("the files of one study lie in one folder")
    (folder,) = folders
    seen: dict[Path, tuple] = {}
    recorded = records.read(folder, seen)
    delete_checkpoints(folder, recorded)
    todo = reachable([run for run in files if run.id not in recorded])
    if todo:
        queue = _Queue(files, folder, recorded, seen)
        default = executor is None
        with executors.caught_signals() as signals:
            if executor is None:
                executor = executors.Processes(min(len(todo), executors.workers()))
            try:
                groups = experiment.stacks(todo, on_gpu=default and executors.on_gpu())
                queue.work(groups, executor, deadline, signals)
            except KeyboardInterrupt:
                # After the first signal the states are written; the second can come anywhere.
                executors.kill(executor)
                raise
            finally:
                if default:
                    executor.shutdown(cancel_futures=True)
    return recorded


def reachable(runs: Iterable[Run]) -> list[Run]:
    """Those of the runs whose data set is available.

    It is fetched, once, before several processes look for it.

    Raises:
        sources.DataError: no run can be done for want of data, or a file of it is damaged.

    Warns:
        UserWarning: for each data set that is unavailable: why, how to get it, and how many runs
            are left out.
    """
    needed = {run: {run.data, run.scoring_data} & set(SHAPES) for run in runs}
    unavailable: dict[str, sources.DataError] = {}
    for name in sorted(set().union(*needed.values())):
        try:
            sources.fetch(name)
        except sources.DamagedError:
            raise
        except sources.DataError as error:
            unavailable[name] = error
    doable = [run for run, names in needed.items() if not names & unavailable.keys()]
    if unavailable and not doable:
        raise next(iter(unavailable.values()))
    for name, reason in unavailable.items():
        count = sum(name in names for names in needed.values())
        warnings.warn(f"{count} runs are left out. {reason}", stacklevel=2)
    return doable


def checkpoint_of(run: Run, folder: Path | str) -> Path:
    """Where a folder of results keeps the state of an unfinished run.

    Of a stack, it is that of its first run.
    """
    return Path(folder) / "checkpoints" / f"{run.id}.pt"


def delete_checkpoints(folder: Path | str, recorded: dict[str, Record]) -> None:
    """Delete the states of runs that are on record by now, be it from another machine."""
    for path in (Path(folder) / "checkpoints").glob("*.pt"):
        if path.stem in recorded:
            path.unlink(missing_ok=True)


class _Queue:
    """Groups of runs on their way from the queue through the executor to the records.

    The runs of a group train together; if that fails they are done one by one.
    """

    def __init__(self, files, folder, recorded, seen):
        self.files, self.folder = files, folder
        self.recorded, self.seen = recorded, seen
        self.queue: deque[list[Run]] = deque()
        self.unwritten: deque[tuple[Run, Record]] = deque()
        self.running: dict[Future, list[Run]] = {}
        self.failed: dict[Run, Exception] = {}
        self.locks: dict[Run, FileLock] = {}
        self.died: Exception | None = None
        self.stuck: Exception | None = None
        self.full: Exception | None = None

    def work(self, groups, executor, deadline, signals):
        self.queue.extend(groups)
        self.planned = [run for group in groups for run in group]
        interval = 0.1 if sys.stderr.isatty() else 30  # a line every half minute in a log
        bar = tqdm(self.planned, desc="training runs", unit="run", mininterval=interval)
        try:
            with bar:
                while not signals and (self.running or (self.queue and self._goes_on(deadline))):
                    self._step(executor, deadline)
                    bar.update(self._done() - bar.n)
            if signals:
                self._stop(executor)
        finally:
            for run in list(self.locks):
                self._release(run)
        self._complain()

    def _step(self, executor, deadline):
        """Start what can be started, wait for a second at most, put on record what has ended."""
        try:
            self._submit(executor, deadline)
        except BrokenExecutor as error:
            self.died = error
        except RuntimeError as error:  # no room for a claim, say: what is under way still comes in
            self.stuck = error
        if self.queue and not self.running:
            time.sleep(1)  # all that is left is being done by other processes
        # Not for ever: workers may join, other processes may end, and signals are looked for.
        ended = wait(self.running, timeout=1, return_when=FIRST_COMPLETED).done
        for future in list(self.running):  # so records stand in the runs' order
            if future in ended:
                self._collect(future)
            elif deadline is not None and _passed(deadline + LATE) and future.cancel():
                for run in self.running.pop(future):  # it waited, or was done again
                    self._release(run)
        self._write()

    def _stop(self, executor):
        print("stopping: the runs under way write their state", file=sys.stderr, flush=True)
        for future in executors.stop(executor, list(self.running)):
            self._collect(future)
        self._write()
        done = f"{self._done()} of {len(self.planned)} runs are on record in {self.folder}"
        advice = "unfinished ones at their checkpoints: run again to carry on"
        print(f"{done}, {advice}", file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    def _goes_on(self, deadline):
        return not (self.died or self.stuck or self.full or _passed(deadline))

    def _done(self):
        return sum(run.id in self.recorded for run in self.planned)

    def _submit(self, executor, deadline):
        # A worker is told how many seconds are left. While a run waits they pass unseen, so with a
        # deadline none waits at the executor.
        lead = LEAD if deadline is None else 0
        while self._goes_on(deadline) and len(self.running) < executors.capacity(executor) + lead:
            group = self._next()
            if not group:
                break
            path = checkpoint_of(group[0], self.folder)  # written by trainings of some minutes only
            plain = [dataclasses.asdict(run) for run in group]
            seconds = None if deadline is None else deadline - time.monotonic()
            future = executor.submit(execute_group, plain, provenance.code(), str(path), seconds)
            self.running[future] = group

    def _next(self):
        """The first group of the queue, less what is on record or claimed by others.

        [] for none.
        """
        for _ in range(len(self.queue)):
            group = [run for run in self.queue.popleft() if run.id not in self.recorded]
            claimed = [run for run in group if self._claim(run)]
            busy = [run for run in group if run not in claimed]
            if busy:
                self.queue.append(busy)
            if claimed:
                for name, record in records.read(self.folder, self.seen).items():
                    self.recorded.setdefault(name, record)
            for run in list(claimed):
                if run.id in self.recorded:  # another process finished it before the claim
                    self._release(run)
                    claimed.remove(run)
            if claimed:
                return claimed
        return []

    def _claim(self, run):
        """Whether the run is ours to do; False: another process or thread does it.

        The system releases a lock when its process ends, however it ends.
        """
        path = checkpoint_of(run, self.folder).with_suffix(".lock")
        with records.readable_errors(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, timeout=0, thread_local=False, is_singleton=False)
            try:
                lock.acquire()
            except Timeout:
                return False
        self.locks[run] = lock
        return True

    def _release(self, run):
        lock = self.locks.pop(run, None)
        if lock is None:
            return
        if run.id in self.recorded:  # who claims it from now on finds its record
            Path(lock.lock_file).unlink(missing_ok=True)
            checkpoint_of(run, self.folder).unlink(missing_ok=True)
        lock.release()

    def _collect(self, future):
        group = self.running.pop(future)
        try:
            finished = future.result()
        except (BrokenExecutor, CancelledError) as error:
            self.died = error  # the runs that were finished before are still to come
        except KeyboardInterrupt:
            pass  # reached the worker of an executor that is not ours
        except Exception as error:
            if len(group) > 1:
                text = f"{len(group)} runs could not be trained together ({error})"
                warnings.warn(f"{text}: they are done one by one", stacklevel=5)
                self.queue.extend([run] for run in group)
            else:
                self.failed[group[0]] = error
        else:
            if finished is not None:
                self.unwritten.extend(zip(group, finished))
                return  # the claims are given up when it is on record
        for run in group:
            self._release(run)

    def _write(self):
        """Put finished runs on record; where there is no room, they wait for another try."""
        while self.unwritten:
            run, record = self.unwritten[0]
            try:
                records.append(self.files[run], record)
            except RuntimeError as error:
                self.full = error
                return
            self.full = None
            self.recorded[run.id] = record
            self._release(run)
            self.unwritten.popleft()

    def _complain(self):
        finished, total = self._done(), len(self.planned)
        if self.full:
            lost = f"{len(self.unwritten)} finished runs could not be put on record"
            raise RuntimeError(f"{self.full}. {lost} and will be done again") from self.full
        if self.stuck:
            raise self.stuck
        if self.died:
            reason = "a worker process died (was it killed, or out of memory?)"
            if not isinstance(self.died, BrokenProcessPool):
                reason = "the executor dropped its runs (has its scheduler died, or the network?)"
            raise RuntimeError(
                f"{reason}; {finished} of {total} runs were finished and are in {self.folder}: "
                "run again to carry on"
            ) from self.died
        if self.failed:
            run, error = next(iter(self.failed.items()))
            raise RuntimeError(
                f"{len(self.failed)} of {total} runs failed, the others are in {self.folder}. "
                f"The first: {run}: {type(error).__name__}: {error}"
            ) from error


def _passed(deadline):
    return deadline is not None and time.monotonic() >= deadline
