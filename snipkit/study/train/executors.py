"""Who trains: this machine's processes, or any ``concurrent.futures.Executor``.

For several machines it is Dask's.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)

import torch

from snipkit.study.train import checkpoints, provenance

ANSWER = 30  # seconds to wait for a Dask scheduler
GRACE = 10  # seconds that trainings have to write their state when they are to stop
GPU_WORKERS = 8  # at most
#: GiB a worker: training takes up to 2.4 (WRN-22-8, a batch of 128), what CUDA loads about one
GPU_SHARE = 6
SIGNALS = {signal.SIGINT, signal.SIGTERM}  # Ctrl-C; and what `kill` and clusters send


def on_gpu() -> bool:
    return torch.cuda.is_available()


def device() -> str:
    return "cuda" if on_gpu() else "cpu"


def workers() -> int:
    """How many runs this machine does at a time.

    One a core; on a GPU one for every second core, memory allowing: one process with a small
    network leaves a large GPU partly idle, a wide residual network fills it.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    if not on_gpu():
        return cores
    return max(1, min(cores // 2, int(_gpu_memory() // GPU_SHARE), GPU_WORKERS))


def _gpu_memory():
    """Of the first GPU, in GiB."""
    return torch.cuda.get_device_properties(0).total_memory / 2**30


def capacity(executor: Executor | None = None) -> float:
    """How many runs an executor does at a time; infinity where it does not say.

    Args:
        executor: by default, this machine.
    """
    if executor is None:
        return workers()
    client = getattr(executor, "_client", None)
    if client is None:
        return getattr(executor, "_max_workers", math.inf)  # the standard library's
    try:
        return sum(client.nthreads().values())  # Dask's workers come and go
    except OSError as error:
        raise BrokenExecutor("its scheduler does not answer") from error


_threads = {"users": 0, "before": 1}
_threads_lock = threading.Lock()
busy = threading.Event()  # set while a worker process is at a run


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch, which is what small networks are fastest with.

    The last of several users puts back the number that was set before.
    """
    with _threads_lock:
        if not _threads["users"]:
            _threads["before"] = torch.get_num_threads()
        _threads["users"] += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        with _threads_lock:
            _threads["users"] -= 1
            if not _threads["users"]:
                torch.set_num_threads(_threads["before"])


class Processes(ProcessPoolExecutor):
    """Worker processes of this machine.

    They stop at a checkpoint when they are told to, and end when their parent does. Spawned, not
    forked: a forked copy of a process that used torch's threads can hang.

    Raises:
        RuntimeError: a worker started this, by importing a script that calls it.
    """

    def __init__(self, count: int):
        process = multiprocessing.current_process()
        if getattr(process, "_inheriting", False):  # as multiprocessing itself checks
            advice = "put its calls under if __name__ == '__main__':"
            raise RuntimeError(f"workers import the script that starts them: {advice}")
        context = multiprocessing.get_context("spawn")
        super().__init__(count, context, initializer=_start_worker)

    def submit(self, *task, **arguments):
        # A worker starts with the signals held back: Ctrl-C reaches it, too, and would kill it
        # while it imports.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return super().submit(*task, **arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker():
    # By default it is one a core, in each worker.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")
    checkpoints.stop_on(*SIGNALS)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    parent = multiprocessing.parent_process()
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent):
    """End this process when its parent has ended, or soon after a signal.

    A parent that is ended by ``kill -9`` has no chance to say so.
    """
    while parent.is_alive() and not checkpoints.stopping:
        parent.join(0.2)
    end = time.monotonic() + GRACE
    while parent.is_alive() and busy.is_set() and time.monotonic() < end:
        parent.join(0.1)
    parent.join(1)  # a result on its way gets through
    os._exit(1)


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect the first of ``SIGNALS`` in a list, for a safe place to look at.

    A second one raises KeyboardInterrupt. Only the main thread can do this, and a signal that is
    ignored stays so.
    """
    caught, handlers = [], {}

    def catch(number, frame):
        caught.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):
                handlers[number] = handler
    for number in handlers:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def stop(executor: Executor, futures: list[Future]) -> set[Future]:
    """Make the runs under way write their state and end; return the futures that ended.

    They have ``GRACE`` seconds: a training stops at its next step. Runs on other machines are
    dropped.
    """
    started = [future for future in futures if not future.cancel()]
    # The trainings of threads are in this process.
    checkpoints.stopping = isinstance(executor, ThreadPoolExecutor)
    try:
        _signal(executor, signal.SIGINT)
        return wait(started, timeout=GRACE).done
    finally:
        checkpoints.stopping = False


def kill(executor: Executor) -> None:
    """End the worker processes at once."""
    _signal(executor, signal.SIGKILL)


def _signal(executor, number):
    if not isinstance(executor, Processes):
        return
    for process in list((executor._processes or {}).values()):
        if process.pid is None:  # not started yet
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


@contextlib.contextmanager
def dask(address: str) -> Iterator[Executor]:
    """Give an executor whose runs are done by the workers of a Dask scheduler.

    It waits for the first worker. A run whose worker is killed is done again by another. Workers
    may join and leave at any time.

    Args:
        address: of the scheduler, as ``dask scheduler`` prints it: "tcp://host:port".

    Raises:
        RuntimeError: ``distributed`` is not installed, there is no scheduler, or a machine has
            other code.

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
        advice = "start one with `dask scheduler`"
        raise RuntimeError(f"no Dask scheduler answers at {address} ({error}): {advice}") from error
    with client:
        if not client.nthreads():
            print(f"{address} has no workers yet: waiting for the first", flush=True)
        client.wait_for_workers(1)
        try:
            versions = {"the scheduler": client.run_on_scheduler(_versions)}
            for name, of_worker in client.run(_versions).items():
                versions[f"the worker {name}"] = of_worker
        except (ImportError, AttributeError) as error:
            raise RuntimeError(
                f"a machine at {address} has no snipkit, or an old one ({error}): install it"
            ) from error
        compare(versions)
        yield client.get_executor(pure=False, retries=2)


def _versions():
    return {"code": provenance.code()} | provenance.versions()


def compare(versions: dict[str, dict[str, str]]) -> None:
    """Compare the versions of other machines with those of this process.

    Args:
        versions: the machine's name in messages → what ``_versions`` gave there.

    Raises:
        RuntimeError: other code of snipkit somewhere.

    Warns:
        UserWarning: another Python or torch somewhere.
    """
    expected, differences = _versions(), []
    for machine, of_machine in versions.items():
        if of_machine["code"] != expected["code"]:
            raise RuntimeError(
                f"{machine} has other code of snipkit than this machine: "
                "install the same on all machines"
            )
        for name, version in expected.items():
            if of_machine[name] != version:
                differences.append(f"{machine} has {name} {of_machine[name]}, not {version}")
    if differences:
        text = "; ".join(differences)
        warnings.warn(f"{text}: results will differ in their last digits", stacklevel=3)
