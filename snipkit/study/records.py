"""Records: what was run, what came of it, where; one JSON object a line in ``results/<profile>/*.jsonl``.

A file is only ever appended to, one whole line at a time under a lock. JSON lines by hand rather than a database: two
machines' records are merged by ``cat``, and a new record is one line in a diff.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import math
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from snipkit import masking
from snipkit.study.runs import STRICT, Run, one_line
from snipkit.training import Outcome

DIGITS = 4  # of the curves, which are most of a record


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
        pydantic.ValidationError: (a ValueError) a wrong type, or contents that contradict each other.
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
            raise ValueError(f"the id is {self.id}, but the run's is {self.run.id}: the line was changed by hand")
        if (self.outcome is None) != bool(self.diverged):
            raise ValueError("it takes an outcome, or the reason why there is none")
        if (one := self.outcome) and not (0 <= one.best_of_last_five <= one.test_error <= 100 and one.test_loss >= 0):
            raise ValueError(f"a test error of {one.test_error} % (best {one.best_of_last_five}), loss {one.test_loss}")
        masked = self.run.sparsity and not (self.diverged and self.run.pretrained and not self.kept)  # before the masks
        if bool(self.kept) != bool(masked) or not all(0 <= k <= total for k, total in self.kept.values()):
            raise ValueError(f"the masks are {self.kept}, the sparsity is {self.run.sparsity}")
        kept, total = (sum(counts) for counts in zip((0, 0), *self.kept.values()))
        if kept != (masking.kept_count(total, self.run.sparsity) if self.kept else 0):
            raise ValueError(f"{kept} of {total} parameters kept is not a sparsity of {self.run.sparsity}")
        if self.effective is not None and not 0 <= self.effective <= kept:
            raise ValueError(f"{self.effective} of {kept} kept parameters on a path")
        if not (isinstance(seconds := self.provenance.get("seconds"), int | float) and 0 <= seconds < math.inf):
            raise ValueError(f"the provenance says that it took {seconds} seconds")

    def to_line(self) -> str:
        """One line of JSON, curves rounded."""
        outcome = self.outcome and {
            name: [float(f"{v:.{DIGITS}g}") for v in value] if isinstance(value, list) else value
            for name, value in dataclasses.asdict(self.outcome).items()
        }
        fields = {"id": self.id, "run": dataclasses.asdict(self.run), "outcome": outcome, "diverged": self.diverged}
        rest = {"kept": self.kept, "effective": self.effective, "provenance": self.provenance}
        return json.dumps(fields | rest, allow_nan=False)

    @classmethod
    def from_line(cls, line: str | bytes) -> "Record":
        """Read what ``to_line`` wrote.

        Raises:
            ValueError: a line that is not a record of this version: torn, without a field, with an unknown field, with
                a wrong type, or with contents that contradict each other.
        """
        try:
            return TypeAdapter(cls).validate_json(line)
        except ValidationError as error:
            raise ValueError(one_line(error)) from error


def append(results: Path | str, record: Record) -> None:
    """Append one record as one line, locked and flushed to the disk; a torn line before it is closed first.

    Raises:
        RuntimeError: it cannot be written (a full disk, no permission); then the file is as it was before.
    """
    results = Path(results)
    line = record.to_line().encode() + b"\n"
    with readable_errors(results):
        results.parent.mkdir(parents=True, exist_ok=True)
        # The lock is on the file itself, so a reader without write permission can wait for it, too.
        with open(results, "ab+", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if end := stream.seek(0, os.SEEK_END):
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    line = b"\n" + line
            try:
                while line:
                    line = line[stream.write(line) :]
                os.fsync(stream.fileno())
            except BaseException:  # Ctrl-C, too
                stream.truncate(end)  # takes back the half of our own line, and no more
                raise


@contextlib.contextmanager
def readable_errors(path: Path):
    """Turn the system's error about a file that cannot be written into what to do about it."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise RuntimeError(
            f"{path} cannot be written: {'the disk is full' if full else error.strerror}. What was on record still is; "
            f"{'make room' if full else 'change that'} and run again to carry on"
        ) from error


def read(folder: Path | str, seen: dict | None = None) -> dict[str, Record]:
    """All records in the ``.jsonl`` files of a folder, by run id; the first of several of one run counts.

    Args:
        seen: a dict in which a call keeps how far it read; the next call with it reads only what was added since.

    Warns:
        UserWarning: a line that is not a record of this version, with file and line number; it is skipped, and kept.
            Or runs with two records that differ.
    """
    records, doubles, seen = {}, [], {} if seen is None else seen
    for path in sorted(Path(folder).glob("*.jsonl")):
        start, number, inode = seen.get(path, (0, 1, 0))
        with open(path, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)  # a line that is being written is waited for
            known = os.fstat(stream.fileno())
            if known.st_size < start or known.st_ino != inode:  # another file than the one read before
                start, number = 0, 1
            stream.seek(start)
            lines = stream.readlines()
        for line in lines:
            if line.strip():
                try:
                    record = Record.from_line(line)
                except ValueError as error:
                    what = f"{path}, line {number} is not a record ({error})"
                    warnings.warn(f"{what}: skipped; its run is done again, the line can be deleted", stacklevel=2)
                else:
                    first = records.setdefault(record.run.id, record)
                    if _error(first) != _error(record):
                        doubles.append(f"{record.run.id} ({_error(first)} and {_error(record)} %)")
            number += line.endswith(b"\n")
        seen[path] = start + sum(map(len, lines)), number, known.st_ino
    if doubles:
        warnings.warn(f"two records that differ, of which the first counts: {', '.join(doubles)}", stacklevel=2)
    return records


def _error(record):
    return record.outcome and record.outcome.test_error


def table(runs: Iterable[Run], records: dict[str, Record]) -> pd.DataFrame:
    """One row a run that is on record, in the order of ``runs`` (doubles once): what it was, what it came to.

    Columns: id; method; every field of ``Run`` but the recipe, which stands as its ``steps``; training; test_error and
    best_of_last_five (percent, NaN where training diverged); test_loss; train_loss and train_error (curves: a value
    each ``training.log_interval`` steps); empty_layers (weights without a kept entry); effective_sparsity
    (``masking.effective``; NaN where it is not known); seconds.
    """
    rows = []
    for run in {run.id: run for run in runs}.values():
        if (record := records.get(run.id)) is None:
            continue
        outcome = dataclasses.asdict(record.outcome) if record.outcome else {}
        total = sum(total for _, total in record.kept.values())
        known = record.effective is not None and total
        rows.append(
            {"id": run.id, "method": run.method}
            | {one.name: getattr(run, one.name) for one in dataclasses.fields(run) if one.name != "recipe"}
            | {"steps": run.recipe.steps, "training": run.training}
            | {name: outcome.get(name, math.nan) for name in ("test_error", "best_of_last_five", "test_loss")}
            | {name: outcome.get(name) or [] for name in ("train_loss", "train_error")}
            | {"empty_layers": sum(not kept for name, (kept, _) in record.kept.items() if not masking.is_bias(name))}
            | {"effective_sparsity": 1 - record.effective / total if known else math.nan}
            | {"seconds": record.provenance["seconds"]}
        )
    return pd.DataFrame(rows)
