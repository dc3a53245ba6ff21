"""What `make test` adds to nbval: numbers may differ in their last digits, and nothing passes
unseen.

nbval compares the text of each cell's outputs with the stored text, to the letter. Here two texts
are equal when their words and whole numbers are, and their decimal numbers are close: to 2 %, and
in cells tagged ``trained`` (which train as the page runs) to 1 and a quarter of the number, at most
to 4 (most are percentage points), since training amplifies the last digits in which processors
differ. What is computed from the records, in cells tagged ``figure``, is compared to the letter. A
code cell that has never been run has nothing to compare, so it fails.
"""

import math
import os
import re
import tempfile
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell

RELATIVE = 0.02
NOTHING = 1e-6  # what counts as 0
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?(?![\w.])")

FOLDER = Path(__file__).absolute().parent


def not_compared() -> list[str]:
    """Students' twins, which have blanks and cannot run; and a reader's own notebooks."""
    named = set()
    for profile in (FOLDER / "profiles").glob("*.yml"):
        named |= set(re.findall(r"^([\w-]+):", profile.read_text(encoding="utf-8"), re.MULTILINE))
    ignored = []
    for path in FOLDER.glob("*.ipynb"):
        if named and path.stem not in named:
            ignored.append(str(path))
    for path in FOLDER.glob("labs/*.ipynb"):
        if not path.stem.endswith("_solution"):
            ignored.append(str(path))
    return ignored


def fresh_home() -> tempfile.TemporaryDirectory:
    """A home in which the pages draw anew, from the committed records."""
    home = tempfile.TemporaryDirectory(prefix="snipkit-nbval-")
    parts = ["notebooks", "registration.csv", "results/overnight", "results/registered"]
    for part in [*parts, "figures/paper"]:
        if (FOLDER.parent / part).exists():
            link = Path(home.name) / part
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(FOLDER.parent / part)
    return home


collect_ignore = not_compared()
_home = fresh_home()  # deleted with this variable
os.environ["SNIPKIT_HOME"] = _home.name
os.environ["SNIPKIT_PAGE_PROFILE"] = "overnight"  # whose parameters are written in the pages
os.environ.setdefault("SNIPKIT_DATA", str(FOLDER.parent / "data"))
os.environ["TQDM_DISABLE"] = "1"  # bars differ from run to run
os.environ["OMP_NUM_THREADS"] = "1"  # the number of threads moves the last digits


class Close(str):
    """A text that equals another when the words do and the numbers nearly do."""

    trained = exact = False
    __hash__ = str.__hash__

    def __eq__(self, other):
        if str.__eq__(self, other):
            return True
        if self.exact or not isinstance(other, str) or _words(self) != _words(other):
            return False
        for stored, computed in zip(NUMBER.findall(self), NUMBER.findall(other)):
            if stored != computed and not self.near(stored, computed):
                return False
        return True

    def __ne__(self, other):
        return not self == other

    def near(self, stored, computed):
        """Whether two numbers, as texts, are decimal numbers that are nearly equal."""
        text = (stored + computed).lower()
        if "." not in text and "e" not in text:
            return False
        numbers = float(stored), float(computed)
        tolerance = NOTHING
        if self.trained:
            tolerance = min(4.0, 1 + 0.25 * max(map(abs, numbers)))
        return math.isclose(*numbers, rel_tol=RELATIVE, abs_tol=tolerance)


def _words(text):
    """The text without its numbers.

    Runs of blanks count once, because a table's columns move with its numbers.
    """
    return re.sub(r"[\s-]+", " ", NUMBER.sub("#", text))


_sanitize, _runtest = IPyNbCell.sanitize, IPyNbCell.runtest


def sanitize(self, text):
    text = _sanitize(self, text)
    if not isinstance(text, str):
        return text
    close = Close(text)
    tags = self.cell.metadata.get("tags", [])
    close.trained, close.exact = "trained" in tags, "figure" in tags and "trained" not in tags
    return close


def runtest(self):
    if self.cell.source.strip() and self.cell.execution_count is None:
        pytest.fail(
            "this cell has no stored output to compare with: "
            "run `make notebooks` and commit the result"
        )
    _runtest(self)


IPyNbCell.sanitize, IPyNbCell.runtest = sanitize, runtest
