"""Which run is done when and by whom: a queue of what is not on record, shared by any number of processes."""

import dataclasses
import os
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from tqdm import tqdm

from snipkit.study import checkpoints, executors, experiment, paths, provenance, records, sources
from snipkit.study.datasets import SHAPES
from snipkit.study.records import Record
from snipkit.study.runs import Run

LEAD = 2  # runs waiting at the executor, so that no worker waits for its next one


def run_all(
    runs: Iterable[Run], results: Path | str, executor: Executor | None = None, minutes: float | None = None
) -> pd.DataFrame:
    """Do every run that is not on record yet, put each on record the moment it is finished, return the table of all.

    A run on record in *any* ``.jsonl`` file of the same folder is not done again, so notebooks share their runs.
    Killed at any moment, nothing that was finished is lost: the next call carries on.

    Args:
        runs: the runs wanted; doubles are done once.
        results: the ``.jsonl`` file to append new records to; made if need be.
        executor: see ``execute_all``, also for what is raised.
        minutes: the time for training: None is as long as it takes, 0 is none: what is on record is all there is.

    Returns:
        ``records.table`` of ``runs``, in their order, without those that the time was too short for, or whose data set
        cannot be had (see ``reachable``).
    """
    runs = list({run.id: run for run in runs}.values())
    if minutes == 0:
        return records.table(runs, records.read(Path(results).parent))
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    return records.table(runs, execute_all({run: Path(results) for run in runs}, executor, deadline))


def execute_all(
    files: dict[Run, Path], executor: Executor | None = None, deadline: float | None = None
) -> dict[str, Record]:
    """Do the runs that are not on record yet, in the order given; put each on record the moment it is finished.

    Any number of processes and threads may do this in one folder at a time: each run is done by one of them, and the
    others wait for its record.

    Args:
        files: run → the ``.jsonl`` file for its record; all files lie in one folder.
        executor: any ``concurrent.futures.Executor``. By default one process a core with one thread each (on a GPU:
            one for every second core, ``executors.workers``), which is what small networks are fastest with.
        deadline: a ``time.monotonic()`` after which no run is started, and those under way stop at a checkpoint.

    Returns:
        All records of the folder, by run id.

    Raises:
        ValueError: a file that does not end in ``.jsonl``, so that it would never be read again.
        sources.DataError: see ``reachable``.
        RuntimeError: some runs failed (each with its reason), a worker died, or a record could not be written. All that
            was finished is on record by then, as far as there was room.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the runs under way have written their state.
    """
    if not files:
        return {}
    if wrong := {path.name for path in files.values() if path.suffix != ".jsonl"}:
        raise ValueError(f"records go into .jsonl files, not {', '.join(sorted(wrong))}: they would not be read again")
    if len({path.parent for path in files.values()}) > 1:
        raise ValueError("the files of one study lie in one folder")
    folder, seen = next(iter(files.values())).parent, {}
    found = records.read(folder, seen)
    todo = reachable([run for run in files if run.id not in found])
    if todo:
        own = executor is None
        with executors.caught_signals() as signals:
            executor = executor or executors.Processes(min(len(todo), executors.workers()))
            try:
                groups = experiment.stacks(todo, on_gpu=own and executors.on_gpu())
                _Queue(groups, files, folder, found, seen).work(executor, deadline, signals)
            except KeyboardInterrupt:  # after the first signal the states are written; the second can come anywhere
                executors.kill(executor)
                raise
            finally:
                if own:
                    executor.shutdown(cancel_futures=True)
    return found


def reachable(runs: Iterable[Run]) -> list[Run]:
    """Those of the runs whose data set can be had; it is fetched, once, before several processes look for it.

    Raises:
        sources.DataError: no run can be done for want of data, or a file of it is damaged.

    Warns:
        UserWarning: for each data set that cannot be had: why, how to get it, and how many runs are left out.
    """
    missing, needed = {}, {run: {run.data, run.scoring_data} & set(SHAPES) for run in runs}
    for name in sorted(set().union(*needed.values())):
        try:
            sources.fetch(name)
        except sources.DamagedError:
            raise
        except sources.DataError as error:
            missing[name] = error
    left = [run for run in needed if not needed[run] & set(missing)]
    if missing and not left:
        raise next(iter(missing.values()))
    for name, error in missing.items():
        out = sum(name in sets for sets in needed.values())
        warnings.warn(f"{out} runs are left out. {error}", stacklevel=2)
    return left


def checkpoint_of(run: Run, folder: Path | str) -> Path:
    """Where a folder of results keeps the state of an unfinished run, or of the stack that it is the first of."""
    return Path(folder) / "checkpoints" / f"{run.id}.pt"


class _Queue:
    """Groups of runs on their way from the queue through the executor to the records.

    The runs of a group train together; if that fails they are done one by one.
    """

    def __init__(self, groups, files, folder, found, seen):
        self.queue, self.files, self.folder, self.found, self.seen = deque(groups), files, folder, found, seen
        self.wanted = [run for group in groups for run in group]
        self.running, self.failed, self.unwritten, self.locks = {}, {}, deque(), {}
        self.died = self.stuck = self.full = None

    def work(self, executor, deadline, signals):
        interval = 0.1 if sys.stderr.isatty() else 30  # in a log, a line every half minute is enough
        try:
            with tqdm(total=len(self.wanted), desc="training runs", unit="run", mininterval=interval) as bar:
                while (self.running or (self.queue and self._go_on(deadline))) and not signals:
                    try:
                        self._submit(executor, deadline)
                    except BrokenExecutor as error:
                        self.died = error
                    except RuntimeError as error:  # no room for a claim, say: what is under way still comes in
                        self.stuck = error
                    if self.queue and not self.running:
                        time.sleep(1)  # all that is left is being done by other processes
                    # Not for ever: workers may join, other processes may end, and signals are looked for here.
                    ended = wait(self.running, timeout=1, return_when=FIRST_COMPLETED).done
                    for future in [one for one in self.running if one in ended]:  # records stand in the runs' order
                        self._collect(future)
                    self._write()
                    bar.update(self._done() - bar.n)
            if signals:
                self._stop(executor)
        finally:
            for run in list(self.locks):
                self._release(run)
        self._complain()

    def _stop(self, executor):
        print("stopping: the runs under way write their state", file=sys.stderr, flush=True)
        for future in executors.stop(executor, list(self.running)):
            self._collect(future)
        self._write()
        where = f"{self._done()} of {len(self.wanted)} runs are on record in {self.folder}"
        print(f"{where}, unfinished ones at their checkpoints: run again to carry on", file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    def _go_on(self, deadline):
        return not (self.died or self.stuck or self.full or _passed(deadline))

    def _done(self):
        return sum(run.id in self.found for run in self.wanted)

    def _submit(self, executor, deadline):
        while self._go_on(deadline) and len(self.running) < executors.capacity(executor) + LEAD:
            if not (group := self._next()):
                break
            path = checkpoint_of(group[0], self.folder)  # only trainings of some minutes ever write it
            plain = [dataclasses.asdict(run) for run in group]
            clocks = None
            if deadline is not None:
                clocks = socket.gethostname(), deadline, deadline - time.monotonic() + time.time()
            self.running[executor.submit(execute_group, plain, provenance.code(), str(path), clocks)] = group

    def _next(self):
        """Take the first group off the queue, less what is on record and what others are at; []: there is none now."""
        for _ in range(len(self.queue)):
            wanted = [run for run in self.queue.popleft() if run.id not in self.found]
            mine = [run for run in wanted if self._claim(run)]
            if busy := [run for run in wanted if run not in mine]:
                self.queue.append(busy)
            if mine:
                for name, record in records.read(self.folder, self.seen).items():
                    self.found.setdefault(name, record)
                for run in [run for run in mine if run.id in self.found]:
                    self._release(run)
                    mine.remove(run)
            if mine:
                return mine
        return []

    def _claim(self, run):
        """Whether the run is ours to do; False: another process or thread is at it.

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
        if lock := self.locks.pop(run, None):
            if run.id in self.found:  # who claims it from now on finds its record
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def _collect(self, future):
        group = self.running.pop(future)
        try:
            done = future.result()
        except (BrokenExecutor, CancelledError) as error:
            self.died = error  # the runs that were finished before are still to come
        except KeyboardInterrupt:
            pass  # reached the worker of an executor that is not ours
        except Exception as error:
            if len(group) > 1:
                text = f"{len(group)} runs could not be trained together ({error}): they are done one by one"
                warnings.warn(text, stacklevel=4)
                self.queue.extend([run] for run in group)
            else:
                self.failed[group[0]] = error
        else:
            if done is not None:
                self.unwritten.extend(zip(group, done))
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
            self.found[run.id] = record
            self._release(run)
            self.unwritten.popleft()

    def _complain(self):
        finished, total = self._done(), len(self.wanted)
        if self.full:
            lost = f"{len(self.unwritten)} finished runs could not be put on record and will be done again"
            raise RuntimeError(f"{self.full}. {lost}") from self.full
        if self.stuck:
            raise self.stuck
        if self.died:
            what = "a worker process died (was it killed, or out of memory?)"
            if not isinstance(self.died, BrokenProcessPool):
                what = "the executor dropped its runs (has its scheduler died, or the network?)"
            where = f"{finished} of {total} runs were finished and are in {self.folder}: run again to carry on"
            raise RuntimeError(f"{what}; {where}") from self.died
        if self.failed:
            run, error = next(iter(self.failed.items()))
            raise RuntimeError(
                f"{len(self.failed)} of {total} runs failed, the others are in {self.folder}. The first: {run}: "
                f"{type(error).__name__}: {error}"
            ) from error


def _passed(deadline):
    return deadline is not None and time.monotonic() >= deadline


def execute_group(
    runs: list[dict], code: str, path: str, clocks: tuple[str, float, float] | None
) -> list[Record] | None:
    """What a worker does with a group of runs, on one thread; None when it was stopped first.

    Args:
        runs: the fields of each ``Run``.
        code: the ``provenance.code`` of the machine that asks.
        path: of the checkpoint.
        clocks: the deadline: a host, its ``time.monotonic()`` then, and ``time.time()`` then, for other hosts.
    """
    here = socket.gethostname()
    if code != provenance.code():
        raise RuntimeError(f"the worker on {here} has other code ({provenance.code()}, not {code}): install the same")
    deadline = None
    if clocks:
        deadline = clocks[1] if clocks[0] == here else clocks[2] - time.time() + time.monotonic()
    if checkpoints.stopping or _passed(deadline):
        return None
    if not Path(path).parent.is_dir():
        # A machine that does not share the folder of results: the state is of use if it gets the run again.
        path = paths.temporary() / Path(path).name
    checkpoint, group = checkpoints.Checkpoint(path, deadline), [Run(**run) for run in runs]
    executors.busy.set()
    try:
        with executors.one_thread():
            try:
                return _execute(group, checkpoint)
            except checkpoints.CheckpointError as error:  # of another torch, say; by its name it is ours
                os.replace(path, f"{path}.stale")
                warnings.warn(f"{error}. It was renamed to {path}.stale, and the training starts anew", stacklevel=2)
                return _execute(group, checkpoint)
    except checkpoints.Interrupted:
        return None
    except sources.DataError as error:
        raise sources.DataError(f"on {here}: {error}") from error
    finally:
        executors.busy.clear()


def _execute(group, checkpoint):
    if len(group) > 1:
        return experiment.execute_stack(group, executors.device(), checkpoint)
    return [experiment.execute(group[0], executors.device(), checkpoint)]
