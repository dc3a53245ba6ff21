"""Who trains: the processes of this machine, or any ``concurrent.futures.Executor``, Dask's for several machines."""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait

import torch

from snipkit.study import checkpoints, provenance

ANSWER = 30  # seconds to wait for a Dask scheduler
GRACE = 10  # seconds that trainings have to write their state when they are to stop
GPU_WORKERS = 8  # at most
GPU_SHARE = 6  # GiB a worker: training takes up to 2.4 (WRN-22-8, a batch of 128), what CUDA loads about one
SIGNALS = {signal.SIGINT, signal.SIGTERM}  # Ctrl-C; and what `kill` and clusters send


def on_gpu() -> bool:
    return torch.cuda.is_available()


def device() -> str:
    return "cuda" if on_gpu() else "cpu"


def workers() -> int:
    """How many runs this machine does at a time: one a core; on a GPU one for every second core, memory allowing.

    One process with a small network leaves a large GPU partly idle; a wide residual network fills it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if on_gpu():
        return max(1, min(cores // 2, int(_gpu_memory() // GPU_SHARE), GPU_WORKERS))
    return cores


def _gpu_memory():
    """Of the first GPU, in GiB."""
    return torch.cuda.get_device_properties(0).total_memory / 2**30


def capacity(executor: Executor | None = None) -> float:
    """How many runs an executor (by default: this machine) does at a time; infinity where it does not say."""
    if executor is None:
        return workers()
    if client := getattr(executor, "_client", None):  # Dask's: its workers come and go
        try:
            return sum(client.nthreads().values())
        except OSError as error:
            raise BrokenExecutor("its scheduler does not answer") from error
    return getattr(executor, "_max_workers", math.inf)  # the standard library's


_threads = {"lock": threading.Lock(), "users": 0, "before": 1}
busy = threading.Event()  # set while a worker process is at a run


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch, which is what small networks are fastest with; the last of several users puts it back."""
    with _threads["lock"]:
        if not _threads["users"]:
            _threads["before"] = torch.get_num_threads()
        _threads["users"] += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        with _threads["lock"]:
            _threads["users"] -= 1
            if not _threads["users"]:
                torch.set_num_threads(_threads["before"])


class Processes(ProcessPoolExecutor):
    """Worker processes of this machine that stop at a checkpoint when they are told to, and end when their parent does.

    Spawned, not forked: a forked copy of a process that used torch's threads can hang.
    """

    def __init__(self, count: int):
        if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself checks
            advice = "put its calls under if __name__ == '__main__':"
            raise RuntimeError(f"workers import the script that starts them: {advice}")
        super().__init__(count, multiprocessing.get_context("spawn"), initializer=_start_worker)

    def submit(self, *task):
        # A worker starts with the signals held back: Ctrl-C reaches it, too, and would kill it while it imports.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return super().submit(*task)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker():
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")  # by default one a core, in each worker
    checkpoints.stop_on(*SIGNALS)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_watch, args=(multiprocessing.parent_process(),), daemon=True).start()


def _watch(parent):
    """End this process when its parent has ended (kill -9 leaves it no chance to say so), or soon after a signal."""
    while parent.is_alive() and not checkpoints.stopping:
        parent.join(0.2)
    end = time.monotonic() + GRACE
    while parent.is_alive() and busy.is_set() and time.monotonic() < end:
        parent.join(0.1)
    parent.join(1)  # a result on its way gets through
    os._exit(1)


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect the first of ``SIGNALS`` in a list, for a safe place to look at; a second raises KeyboardInterrupt.

    Only the main thread can do this, and a signal that is ignored stays so.
    """
    caught, before = [], {}

    def catch(number, frame):
        caught.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        before = {one: signal.getsignal(one) for one in SIGNALS if signal.getsignal(one) not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(executor: Executor, futures: list[Future]) -> set[Future]:
    """Make the runs under way write their state and end, within ``GRACE`` seconds; return the futures that ended.

    A training stops at its next step. Runs on other machines are dropped.
    """
    started = [future for future in futures if not future.cancel()]
    checkpoints.stopping = isinstance(executor, ThreadPoolExecutor)  # its trainings are in this process
    try:
        _signal(executor, signal.SIGINT)
        return wait(started, timeout=GRACE).done
    finally:
        checkpoints.stopping = False


def kill(executor: Executor) -> None:
    """End the worker processes at once."""
    _signal(executor, signal.SIGKILL)


def _signal(executor, number):
    for process in list((executor._processes or {}).values()) if isinstance(executor, Processes) else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


@contextlib.contextmanager
def dask(address: str) -> Iterator[Executor]:
    """Give an executor whose runs are done by the workers of a Dask scheduler, once there is a worker.

    A run whose worker is killed is done again by another. Workers may join and leave at any time.

    Args:
        address: of the scheduler, as ``dask scheduler`` prints it: "tcp://host:port".

    Raises:
        RuntimeError: ``distributed`` is not installed, there is no scheduler, or a machine has other code.

    Warns:
        UserWarning: a machine has another version of Python or torch.
    """
    try:
        import distributed
    except ImportError:
        install = "pip install '.[cluster]' in snipkit's folder"
        raise RuntimeError(f"several machines need the package distributed: {install}") from None
    try:
        client = distributed.Client(address, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`"
        ) from error
    with client:
        if not client.nthreads():
            print(f"{address} has no workers yet: waiting for the first", flush=True)
        client.wait_for_workers(1)
        try:
            theirs = {"the scheduler": client.run_on_scheduler(_versions)}
            theirs |= {f"the worker {name}": found for name, found in client.run(_versions).items()}
        except (ImportError, AttributeError) as error:
            raise RuntimeError(f"a machine at {address} has no snipkit, or an old one ({error}): install it") from error
        compare(theirs)
        yield client.get_executor(pure=False, retries=2)


def _versions():
    return {"code": provenance.code()} | provenance.versions()


def compare(theirs: dict[str, dict[str, str]]) -> None:
    """Compare the versions of other machines, by their names in messages, with those of this process.

    Raises:
        RuntimeError: other code of snipkit somewhere.

    Warns:
        UserWarning: another Python or torch somewhere.
    """
    ours, differing = _versions(), []
    for name, found in theirs.items():
        if found["code"] != ours["code"]:
            raise RuntimeError(f"{name} has other code of snipkit than this machine: install the same on all machines")
        differing += [f"{name} has {k} {found[k]}, not {ours[k]}" for k in ours if found[k] != ours[k]]
    if differing:
        warnings.warn("; ".join(differing) + ": results will differ in their last digits", stacklevel=3)
