"""Who trains: the processes of this machine, or any ``concurrent.futures.Executor``, Dask's for several machines."""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait

import torch

import snipkit
from snipkit.study import checkpoints, provenance

ANSWER = 30  # seconds to wait for a Dask scheduler
GRACE = 15  # seconds that workers have to write their checkpoints after Ctrl-C
COMPARED = ("python", "torch")  # other versions give other last digits, no more


def on_gpu() -> bool:
    return torch.cuda.is_available()


def workers() -> int:
    """How many runs this machine does at a time: one a core, or one on the GPU."""
    if on_gpu():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


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


def processes(count: int) -> ProcessPoolExecutor:
    """Worker processes of this machine. Spawned, not forked: a forked copy of a process that used torch's threads can hang."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_start_worker)


def _start_worker():
    checkpoints.stop_on(signal.SIGINT)
    parent = multiprocessing.parent_process()

    def watch():  # kill -9 leaves the parent no chance to end its workers
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def stop(executor: Executor, futures: list[Future]) -> set[Future]:
    """Make the runs under way write their state and end, within ``GRACE`` seconds; return the futures that ended.

    A second Ctrl-C ends the worker processes at once.
    """
    children = multiprocessing.active_children() if isinstance(executor, ProcessPoolExecutor) else []
    started = [future for future in futures if not future.cancel()]
    try:
        for child in children:
            os.kill(child.pid, signal.SIGINT)
        ended = wait(started, timeout=GRACE)
    except KeyboardInterrupt:
        ended = wait(started, timeout=0)
    if ended.not_done:  # scoring, or hanging: a training stops at its next step
        for child in children:
            child.kill()
    return ended.done


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
        compare(client.get_versions(packages=["torch", "snipkit"]))
        theirs = client.run(provenance.code)
        if differing := [name for name, code in theirs.items() if code != provenance.code()]:
            raise RuntimeError(f"{', '.join(differing)}: not the code of this machine; install the same on all machines")
        yield client.get_executor(pure=False, retries=2)


def compare(versions: dict) -> None:
    """Compare what ``Client.get_versions`` gave of the scheduler and the workers with this process.

    Raises:
        RuntimeError: another snipkit somewhere, or none.

    Warns:
        UserWarning: another Python or torch somewhere.
    """
    named = {f"the worker {name}": found for name, found in versions["workers"].items()}
    ours, differing = _flat(versions["client"]), []
    for name, found in ({"the scheduler": versions["scheduler"]} | named).items():
        theirs = _flat(found)
        if theirs.get("snipkit") != snipkit.__version__:
            raise RuntimeError(
                f"{name} has snipkit {theirs.get('snipkit') or '(none)'}, this machine {snipkit.__version__}: "
                "install the same on all machines"
            )
        differing += [f"{name} has {k} {theirs.get(k)}, not {ours[k]}" for k in COMPARED if theirs.get(k) != ours[k]]
    if differing:
        warnings.warn("; ".join(differing) + ": results will differ in their last digits", stacklevel=3)


def _flat(versions):
    return versions["host"] | versions["packages"]
