"""Where a record comes from: device, kernel, versions, commit, date.

``code`` is a fingerprint of the package, which workers compare.
"""

import datetime
import functools
import hashlib
import platform
import subprocess
from pathlib import Path

import torch
from torch import nn

import snipkit

PACKAGE = Path(snipkit.__file__).parent


def of(device: str = "cpu", model: nn.Module | None = None) -> dict[str, str]:
    """What a record says of its origin.

    Args:
        device: that trained.
        model: what was trained, alone. A recurrent one has a "kernel"; a record without one is of
            the "loop".
    """
    origin = {"device": name(device)}
    if kernel := getattr(model, "training_kernel", None):
        origin["kernel"] = kernel
    origin |= {"snipkit": snipkit.__version__, "commit": commit()} | versions()
    return origin | {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}


def versions() -> dict[str, str]:
    """What moves the last digits of results."""
    return {"torch": torch.__version__, "python": platform.python_version()}


@functools.lru_cache(maxsize=1)
def commit() -> str:
    """The commit of this code's checkout, with a + if its files were changed; "" outside of one."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + "+" * bool(changed.stdout)


@functools.lru_cache(maxsize=1)
def code() -> str:
    """A hash of the package's source: equal on machines that train by the same code."""
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
