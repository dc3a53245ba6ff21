"""Tests that are cut off leave no process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Starts a process that would live for minutes, says which, and waits to be killed.
PARENT = """
import sys, time
from processes import begin
child = begin([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="the order to the system is Linux's")
def test_a_process_ends_with_the_tests_that_are_killed():
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 60
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    ended = gone(child)
    if not ended:
        os.kill(child, signal.SIGKILL)
    assert ended


def test_a_time_limit_ends_the_tests_as_ctrl_c_does():
    """So fixtures still clean up: `timeout`, and CI jobs, send SIGTERM."""
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
