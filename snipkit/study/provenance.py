"""Where a record comes from: device, versions, commit, date; and the code's fingerprint, which workers compare."""

import datetime
import functools
import hashlib
import platform
import subprocess
from pathlib import Path

import torch

import snipkit

PACKAGE = Path(snipkit.__file__).parent


def here(device: str = "cpu") -> dict[str, str]:
    """What a record says of its origin."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"device": name(device), "snipkit": snipkit.__version__, "commit": commit(), **versions(), "date": date}


def versions() -> dict[str, str]:
    """What moves the last digits of results."""
    return {"torch": torch.__version__, "python": platform.python_version()}


@functools.lru_cache(maxsize=1)
def commit() -> str:
    """The commit of the checkout that this code is in, with a + where files of it were changed; "" outside of one."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + "+" * bool(changed.stdout)


@functools.lru_cache(maxsize=1)
def code() -> str:
    """A hash of the package's source: equal on machines that train by the same code, with or without git."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


@functools.lru_cache(maxsize=2)
def name(device: str) -> str:
    """The model of the GPU or the processor, as far as the system tells."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
