"""What a worker does with a group of runs, in this process, in another, or on another machine."""

import os
import socket
import time
import warnings
from pathlib import Path

from snipkit.study import paths
from snipkit.study.sets import sources
from snipkit.study.train import checkpoints, executors, experiment, provenance
from snipkit.study.train.records import Record
from snipkit.study.train.runs import Run


def execute_group(
    runs: list[dict], code: str, path: str, seconds: float | None = None
) -> list[Record] | None:
    """Do a group of runs on one thread; None when it was stopped first.

    Args:
        runs: the fields of each ``Run``.
        code: the ``provenance.code`` of the machine that asks.
        path: of the checkpoint.
        seconds: from now on, after which the training stops at its checkpoint; None: never. (A
            time of day would ask for equal clocks on all machines.)

    Raises:
        RuntimeError: this machine has other code.
        sources.DataError: a data set is unavailable here.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    host = socket.gethostname()
    if code != provenance.code():
        raise RuntimeError(
            f"the worker on {host} has other code ({provenance.code()}, not {code}): "
            "install the same"
        )
    if checkpoints.stopping or (seconds is not None and seconds <= 0):
        return None
    if not Path(path).parent.is_dir():
        # A machine that does not share the folder of results: the state is of use if it gets the
        # run again.
        path = str(paths.temporary() / Path(path).name)
    checkpoint = checkpoints.Checkpoint(path, deadline)
    group = [Run(**fields) for fields in runs]
    executors.busy.set()
    try:
        with executors.one_thread():
            return _execute_anew(group, checkpoint)
    except checkpoints.Interrupted:
        return None
    except sources.DataError as error:
        raise sources.DataError(f"on {host}: {error}") from error
    finally:
        executors.busy.clear()


def _execute_anew(group, checkpoint):
    """Do the runs; from their beginning where the checkpoint is not theirs."""
    try:
        return _execute(group, checkpoint)
    except checkpoints.CheckpointError as error:  # of another torch, say; by its name it is ours
        stale = f"{checkpoint.path}.stale"
        os.replace(checkpoint.path, stale)
        text = f"{error}. It was renamed to {stale}, and the training starts anew"
        warnings.warn(text, stacklevel=3)
        return _execute(group, checkpoint)


def _execute(group, checkpoint):
    if len(group) > 1:
        return experiment.execute_stack(group, executors.device(), checkpoint)
    return [experiment.execute(group[0], executors.device(), checkpoint)]
