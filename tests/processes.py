"""Processes of tests: none is left behind, however the tests end."""

import ctypes
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1  # of Linux


def begin(command, before=None, **options) -> subprocess.Popen:
    """Start a process that the system kills when this one ends, be it by ``kill -9``.

    Where there is no such order to the system (macOS), the caller's own clean-up is all there is.

    Args:
        before: called in the new process, before the command.
    """
    libc = ctypes.CDLL(None)

    def prepare():
        if sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if before is not None:
            before()

    return subprocess.Popen(command, preexec_fn=prepare, **options)
