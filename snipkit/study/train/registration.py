"""The registered replication: which runs judge which claim of the paper, fixed before any of them
started.

``registration.csv`` has a row for each setting of a claim, in the order of training;
``REGISTRATION.md`` has the rule.
"""

import json
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from snipkit.study import paths
from snipkit.study.train.runs import Run

FIRST_SEED = 100  # seeds below it are exploratory: they were used before the registration
FOLDER = "registered"  # below results/
TRAINED = ("test_error", "final_loss")  # outcomes that need a training


@dataclass(frozen=True)
class Setting:
    """One difference that a claim is judged by: ``first`` minus ``second``.

    Attributes:
        claim: its id.
        kind: "number", "order", "margin", "fact" or "not registered"; REGISTRATION.md says how each
            is judged.
        margin: Δ in the unit of the outcome; NaN for an order or a fact.
        effect: of an order, the smallest difference that counts; NaN where the registration names
            none.
        settings: how many settings the claim names. Fewer may be registered; then it cannot agree.
        outcome: "test_error" (percent), "final_loss" (nats), "picture of …" (a correlation) or
            "count".
        first, second: fields of ``Run`` without a seed; a number; the name of a measurement; or
            None.
        n: seeds a cell, from ``FIRST_SEED`` on.
        pool: models whose cells share one spread; () where a cell has its own.
        half_width: of the 95 % interval, as expected from exploratory runs.
        hours: core-hours of the runs that no earlier row has.
        note: what else to know.
    """

    claim: str
    kind: str
    margin: float
    effect: float
    settings: int
    outcome: str
    first: dict | float | str | None
    second: dict | float | str | None
    n: int
    pool: tuple[str, ...]
    half_width: float
    hours: float
    note: str

    @property
    def cells(self) -> list[dict]:
        """The descriptions of runs among ``first`` and ``second``."""
        return [side for side in (self.first, self.second) if isinstance(side, dict)]


def file() -> Path:
    """``registration.csv`` in the project's folder."""
    return paths.home() / "registration.csv"


def settings() -> list[Setting]:
    """All rows of ``registration.csv``.

    Raises:
        ValueError: there is no such file: this is not the project's folder.
    """
    if not file().exists():
        raise ValueError(f"no {file().name} in {paths.home()}: go to the project's folder")
    try:
        table = pd.read_csv(file(), dtype=str, keep_default_na=False)
        return [_setting(row) for row in table.to_dict("records")]
    except (KeyError, ValueError) as error:
        kind = type(error).__name__
        raise ValueError(
            f"{file()} is not the registered table ({kind}: {error}): it has a line for each "
            "setting, with commas; git has the registered one"
        ) from error


def _setting(row):
    return Setting(
        claim=row["claim"],
        kind=row["kind"],
        margin=float(row["margin"] or "nan"),
        effect=float(row["effect"] or "nan"),
        settings=int(row["settings"]),
        outcome=row["outcome"],
        first=_side(row["first"], row["outcome"]),
        second=_side(row["second"], row["outcome"]),
        n=int(row["n"] or 0),
        pool=tuple(row["pool"].split()),
        half_width=float(row["half_width"] or "nan"),
        hours=float(row["hours"] or "nan"),
        note=row["note"],
    )


def _side(text, outcome):
    if not text:
        return None
    return json.loads(text) if outcome in TRAINED else text


def key(cell: dict) -> str:
    """The same text for equal cells, however their fields are written: the id of a run."""
    return Run(**cell).id


def cell_runs(cell: dict, n: int) -> list[Run]:
    """The runs of one cell, a seed each."""
    return [Run(**cell, seed=FIRST_SEED + number) for number in range(n)]


def claim_runs(rows: list[Setting]) -> list[Run]:
    """The runs that some settings need, seed after seed, each once."""
    runs_by_id: dict[str, Run] = {}
    for row in rows:
        for cell in row.cells:
            for run in cell_runs(cell, row.n):
                runs_by_id.setdefault(run.id, run)
    return sorted(runs_by_id.values(), key=lambda run: run.seed)


def runs(claims: tuple[str, ...] = ("",), gpu: bool = True) -> list[Run]:
    """The registered runs, in the order of training.

    Args:
        claims: ids of claims, or how they begin.
        gpu: with those that take days without a GPU.
    """
    rows_of: dict[str, list[Setting]] = {}
    for row in settings():
        if row.claim.startswith(claims) and (gpu or not row.note.startswith("needs a GPU")):
            rows_of.setdefault(row.claim, []).append(row)
    runs_by_id: dict[str, Run] = {}
    for rows in rows_of.values():
        for run in claim_runs(rows):
            runs_by_id.setdefault(run.id, run)
    return list(runs_by_id.values())


def folder() -> Path:
    """Where the records of registered runs lie."""
    return paths.results(FOLDER)


def records_file() -> Path:
    """The file that this clone of the repository appends to.

    No two clones share one, so merging never conflicts. A copy of a clone is another clone.
    """
    clone = folder() / ".clone"
    here = str(folder().resolve())
    text = clone.read_text(encoding="utf-8", errors="replace") if clone.exists() else ""
    name, _, place = text.strip().partition(" ")
    # Earlier versions wrote no place.
    if not re.fullmatch("[0-9a-f]{8}", name) or place not in ("", here):
        name = uuid.uuid4().hex[:8]
        clone.parent.mkdir(parents=True, exist_ok=True)
        paths.write_text(clone, f"{name} {here}\n")
    return folder() / f"{name}.jsonl"
