"""What `make test` adds to nbval: numbers may differ in their last digits, and nothing passes unseen.

nbval compares the text of each cell's outputs with the stored text, to the letter. Here two texts are equal when their
words and whole numbers are, and their decimal numbers are close: to 2 %, and in cells tagged ``trained`` (which train
as the page runs) to 1 and a quarter of the number, at most to 4 (most are percentage points), since training amplifies
the last digits in which processors differ. What is computed from the records, in cells tagged ``figure``, is compared
to the letter. A code cell that has never been run has nothing to compare, so it fails.
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
# Students' twins have blanks, so they cannot run; the solution twins are compared as all notebooks are.
collect_ignore = [
    str(path) for path in Path(__file__).parent.glob("labs/*.ipynb") if not path.stem.endswith("_solution")
]
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?(?![\w.])")

os.environ["TQDM_DISABLE"] = "1"  # bars differ from run to run
os.environ["OMP_NUM_THREADS"] = "1"  # the number of threads moves the last digits
_home = tempfile.TemporaryDirectory(prefix="snipkit-nbval-")
os.environ.setdefault("SNIPKIT_DATA", os.path.join(os.path.dirname(__file__), "..", "data"))
os.environ["SNIPKIT_HOME"] = _home.name  # the pages draw anew, from the committed records
_project = Path(__file__).absolute().parents[1]
for part in ("notebooks", "results/overnight", "figures/paper"):
    link = Path(_home.name) / part
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(_project / part)


class Close(str):
    """A text that equals another when the words do and the numbers nearly do."""

    trained = exact = False
    __hash__ = str.__hash__

    def __eq__(self, other):
        if str.__eq__(self, other):
            return True
        if self.exact or not isinstance(other, str) or _words(self) != _words(other):
            return False
        return all(
            a == b or ("." in a + b or "e" in (a + b).lower())
            and math.isclose(float(a), float(b), rel_tol=RELATIVE, abs_tol=self.tolerance(float(a), float(b)))
            for a, b in zip(NUMBER.findall(self), NUMBER.findall(other))
        )

    def __ne__(self, other):
        return not self == other

    def tolerance(self, a, b):
        return min(4.0, 1 + 0.25 * max(abs(a), abs(b))) if self.trained else NOTHING


def _words(text):
    """The text without its numbers; runs of blanks count once, because a table's columns move with its numbers."""
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
        pytest.fail("this cell has no stored output to compare with: run `make notebooks` and commit the result")
    _runtest(self)


IPyNbCell.sanitize, IPyNbCell.runtest = sanitize, runtest
