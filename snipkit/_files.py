"""Files that are there whole, old or new, whatever happens while they are written."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file to write to, which takes the place of ``path`` when all went well.

    Its name has the same suffix, by which some writers choose a format. A link stays a link.
    """
    path = path.resolve()
    unfinished = path.with_name(f".{path.stem[:50]}.{os.getpid()}.part{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
