"""Records: what was run, what came of it, where; a JSON object a line in
``results/<profile>/*.jsonl``.

A file is only ever appended to, one whole line at a time under a lock. JSON lines by hand rather
than a database: two machines' records are merged by ``cat``, and a new record is one line in a
diff.
"""

import codecs
import contextlib
import dataclasses
import errno
import io
import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import filelock
import pandas as pd
from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

import snipkit
from snipkit.outcomes import Outcome
from snipkit.study import paths
from snipkit.study.train.runs import STRICT, Run, one_line

DIGITS = 4  # of the curves, which are most of a record
POLL = 0.01  # seconds between two looks at a lock that another process holds
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _with_train_error(outcome):
    """The first records have no curve of the training error."""
    return {"train_error": []} | outcome if isinstance(outcome, dict) else outcome


@dataclass(frozen=True, config=STRICT)
class Record:
    """A finished run.

    Attributes:
        run: what was run.
        outcome: what the training came to; None if it diverged.
        diverged: then, why.
        kept: parameter name → (kept, total) of each mask; {} for a dense run.
        effective: kept parameters on a path from input to output; None where not defined.
        provenance: seconds, device, versions, commit, date.
        id: that of the run.

    Raises:
        pydantic.ValidationError: (a ValueError) a wrong type, or contents that contradict each
            other.
    """

    run: Run
    outcome: Annotated[Outcome | None, BeforeValidator(_with_train_error)]
    kept: dict[str, tuple[int, int]]
    provenance: dict[str, Any]
    diverged: str | None = None
    effective: int | None = None
    id: str = ""

    def __post_init__(self):
        object.__setattr__(self, "id", self.id or self.run.id)
        if self.id != self.run.id:
            raise ValueError(
                f"the id is {self.id}, but the run's is {self.run.id}: the line was changed by hand"
            )
        self._check_outcome()
        self._check_masks()
        seconds = self.provenance.get("seconds")
        if not (isinstance(seconds, int | float) and 0 <= seconds < math.inf):
            raise ValueError(f"the provenance says that it took {seconds} seconds")

    def _check_outcome(self):
        outcome = self.outcome
        if (outcome is None) != bool(self.diverged):
            raise ValueError("it takes an outcome, or the reason why there is none")
        if outcome is None:
            return
        lowest, last = outcome.best_of_last_five, outcome.test_error
        if not (0 <= lowest <= last <= 100 and outcome.test_loss >= 0):
            raise ValueError(f"a test error of {last} % (best {lowest}), loss {outcome.test_loss}")

    def _check_masks(self):
        sparsity = self.run.sparsity
        # The dense training of a pretrained run comes before its masks, and may diverge.
        before_masks = self.diverged and self.run.pretrained and not self.kept
        has_masks = bool(sparsity and not before_masks)
        in_range = all(0 <= kept <= total for kept, total in self.kept.values())
        if bool(self.kept) != has_masks or not in_range:
            raise ValueError(f"the masks are {self.kept}, the sparsity is {sparsity}")
        kept = sum(kept for kept, _ in self.kept.values())
        total = sum(total for _, total in self.kept.values())
        if kept != (snipkit.kept_count(total, sparsity) if self.kept else 0):
            raise ValueError(f"{kept} of {total} parameters kept is not a sparsity of {sparsity}")
        if self.effective is not None and not 0 <= self.effective <= kept:
            raise ValueError(f"{self.effective} of {kept} kept parameters on a path")

    def to_line(self) -> str:
        """One line of JSON, curves rounded."""
        outcome = None
        if self.outcome:
            outcome = dataclasses.asdict(self.outcome)
            for name, value in outcome.items():
                if isinstance(value, list):
                    outcome[name] = [float(f"{point:.{DIGITS}g}") for point in value]
        fields = {
            "id": self.id,
            "run": dataclasses.asdict(self.run),
            "outcome": outcome,
            "diverged": self.diverged,
            "kept": self.kept,
            "effective": self.effective,
            "provenance": self.provenance,
        }
        return json.dumps(fields, allow_nan=False)

    @classmethod
    def from_line(cls, line: str | bytes) -> "Record":
        """Read what ``to_line`` wrote.

        Raises:
            ValueError: a line that is not a record of this version: torn, without a field, with an
                unknown field, with a wrong type, or with contents that contradict each other.
        """
        try:
            return TypeAdapter(cls).validate_json(line)
        except ValidationError as error:
            raise ValueError(one_line(error)) from error


def append(results: Path | str, record: Record) -> None:
    """Append one record as one line, locked and flushed to the disk.

    A torn line before it is closed first.

    Raises:
        RuntimeError: it cannot be written (a full disk, no permission); then the file is as it was
            before.
    """
    results = paths.expanded(results)
    line = record.to_line().encode() + b"\n"
    with readable_errors(results):
        results.parent.mkdir(parents=True, exist_ok=True)
        with open(results, "ab+", buffering=0) as stream:
            _lock(stream)
            end = stream.seek(0, os.SEEK_END)
            if end:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    line = b"\n" + line
            try:
                while line:
                    written = stream.write(line)
                    line = line[written:]
                os.fsync(stream.fileno())
            except BaseException:  # Ctrl-C, too
                stream.truncate(end)  # takes back the half of our own line, and no more
                raise


def _lock(stream):
    """Wait for the only lock on an open file, which is given up when the file is closed."""
    filelock.lock_descriptor(stream.fileno(), poll_interval=POLL)


@contextlib.contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turn the system's error about a file that cannot be written into what to do about it."""
    try:
        yield
    except OSError as error:
        reason, remedy = error.strerror, "change that"
        if error.errno in FULL:
            reason, remedy = "the disk is full", "make room"
        raise RuntimeError(
            f"{path} cannot be written: {reason}. What was on record still is; "
            f"{remedy} and run again to carry on"
        ) from error


def read(folder: Path | str, seen: dict | None = None) -> dict[str, Record]:
    """All records in the ``.jsonl`` files of a folder, by run id.

    The first of several records of one run counts. Hidden files, as editors and file systems make
    them beside a file, are left out.

    Args:
        seen: a dict in which a call keeps how far it read; the next call with it reads only what
            was added since.

    Warns:
        UserWarning: a line that is not a record of this version, with file and line number; it is
            skipped, and kept. Or runs with two records that differ.
    """
    records: dict[str, Record] = {}
    conflicts = []
    seen = {} if seen is None else seen
    for path in sorted(paths.expanded(folder).glob("*.jsonl")):
        if path.name.startswith("."):
            continue
        first_number, lines = _new_lines(path, seen)
        for number, line in enumerate(lines, first_number):
            record = _parsed(line, path, number)
            if record is None:
                continue
            first = records.setdefault(record.run.id, record)
            if _error(first) != _error(record):
                conflicts.append(f"{record.run.id} ({_error(first)} and {_error(record)} %)")
    if conflicts:
        text = f"two records that differ, of which the first counts: {', '.join(conflicts)}"
        warnings.warn(text, stacklevel=2)
    return records


def _new_lines(path, seen):
    """The number of the first line of a file that was not read yet, and all lines from there on."""
    start, number, inode = seen.get(path, (0, 1, 0))
    with open(path, "rb") as stream:
        status = os.fstat(stream.fileno())
        if status.st_size < start or status.st_ino != inode:  # another file than was read before
            start, number = 0, 1
        stream.seek(start)
        content = stream.read()
        if content and not content.endswith(b"\n"):
            # A line that is being written is waited for; a torn one stays as it is.
            with contextlib.suppress(OSError):  # NFS gives no such lock to who can only read
                _lock(stream)
            stream.seek(start)
            content = stream.read()
    lines = io.BytesIO(content).readlines()
    seen[path] = start + len(content), number + content.count(b"\n"), status.st_ino
    return number, lines


def _parsed(line, path, number):
    """The record in a line; None, with a warning, if there is none in it."""
    line = line.removeprefix(codecs.BOM_UTF8)  # some editors put it before the first line
    if not line.strip():
        return None
    try:
        return Record.from_line(line)
    except ValueError as error:
        warnings.warn(
            f"{path}, line {number} is not a record ({error}): skipped; its run is done again, "
            "the line can be deleted",
            stacklevel=3,
        )
        return None


def _error(record):
    return record.outcome and record.outcome.test_error


def table(runs: Iterable[Run], records: dict[str, Record]) -> pd.DataFrame:
    """One row a run that is on record, in the order of ``runs``: what it was, what it came to.

    A run that is given twice has one row. Columns: id; method; every field of ``Run`` but the
    recipe, which stands as its ``steps``; training; test_error and best_of_last_five (percent, NaN
    where training diverged); test_loss; train_loss and train_error (curves: a value each
    ``training.log_interval`` steps); empty_layers (weights without a kept entry);
    effective_sparsity (``snipkit.effective``; NaN where it is not known); seconds.
    """
    rows = []
    for run in {run.id: run for run in runs}.values():
        if run.id in records:
            rows.append(_row(run, records[run.id]))
    return pd.DataFrame(rows)


def _row(run, record):
    row = {"id": run.id, "method": run.method}
    for field in dataclasses.fields(run):
        if field.name != "recipe":
            row[field.name] = getattr(run, field.name)
    row |= {"steps": run.recipe.steps, "training": run.training}
    outcome = dataclasses.asdict(record.outcome) if record.outcome else {}
    for name in ("test_error", "best_of_last_five", "test_loss"):
        row[name] = outcome.get(name, math.nan)
    for name in ("train_loss", "train_error"):
        row[name] = outcome.get(name) or []
    row["empty_layers"] = 0
    for name, (kept, _) in record.kept.items():
        if not kept and not snipkit.is_bias(name):
            row["empty_layers"] += 1
    total = sum(total for _, total in record.kept.values())
    row["effective_sparsity"] = math.nan
    if record.effective is not None and total:
        row["effective_sparsity"] = 1 - record.effective / total
    row["seconds"] = record.provenance["seconds"]
    return row
