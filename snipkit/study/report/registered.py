"""The registered claims.

What is trained, and what the rule says of those whose runs are complete.
"""

import datetime
from collections.abc import Iterable

import numpy as np
import pandas as pd

from snipkit.study import paper
from snipkit.study.report import facts, judging, measures, statistics
from snipkit.study.report.judging import AGREES, DISAGREES, NOT_RUN
from snipkit.study.train import records, registration
from snipkit.study.train.records import Record
from snipkit.study.train.registration import Setting

PICTURES = "pictures.csv"  # the measurements that need no training
#: the scale of exploratory runs, in words: a reader takes "paper" for the paper's own numbers
SHORTER = "shorter training"
SHORTENED = ("our schedule", "the training was shortened")  # as earlier verdicts say it
SCALES = {"paper: ": "by the paper's protocol: ", "overnight: ": f"by {SHORTER}: "}


def by_claim(rows: Iterable[Setting]) -> dict[str, list[Setting]]:
    """The settings of each claim, in the order of the registration."""
    claims: dict[str, list[Setting]] = {}
    for row in rows:
        claims.setdefault(row.claim, []).append(row)
    return claims


def table(recorded: dict[str, Record] | None = None) -> pd.DataFrame:
    """One row a claim, in the paper's order: its word, or how far its runs are.

    Columns: claim, where, says, printed, ours (for a printed number our mean, and the standard
    deviation of one run), mean and sd (the same as numbers, not rounded; else NaN), difference
    (of each setting, with half its 95 % interval), low and high (of that interval, of the setting
    that is farthest from 0), margin, word, done, planned, pool (runs of the cells that share
    its spread which are still missing), note. A claim whose runs, or those of its pool, are not
    complete shows no number and no word.

    Args:
        recorded: the registered records, by run id; by default those in ``results/registered``.
    """
    if recorded is None:
        recorded = records.read(registration.folder())
    measured = _measured()
    rows = registration.settings()
    settings_of = by_claim(rows)
    claims = paper.table("claims").set_index("claim")
    lines = []
    for claim, about in claims.iterrows():
        if claim in settings_of:
            line = _line(settings_of[claim], rows, recorded, measured)
            lines.append(
                {
                    "claim": claim,
                    "where": about["where"],
                    "says": about.says,
                    "printed": about.printed,
                }
                | line
            )
    return pd.DataFrame(lines)


def outcomes(claim: str, recorded: dict[str, Record] | None = None, **cell) -> pd.Series:
    """What the runs of a claim gave, a number a seed: for ``report.render``.

    ``outcomes("table1-lenet-300-100-98")`` are our errors, where the paper prints one, and
    ``outcomes("figure1-lenet-300-100", sparsity=0.9)`` the errors at 90 % minus those of the dense
    network.

    Args:
        claim: its id in ``paper/claims.csv``.
        recorded: see ``table``.
        cell: fields of the runs, to choose among the settings of the claim.

    Returns:
        The outcomes of the setting, minus those that it is compared with, if it has any; empty
        while the claim waits for runs.

    Raises:
        ValueError: the claim has no such setting whose runs are trained, or several.
    """
    if recorded is None:
        recorded = records.read(registration.folder())
    rows = registration.settings()
    of_claim = [row for row in rows if row.claim == claim]
    chosen = []
    for row in of_claim:
        if isinstance(row.first, dict) and cell.items() <= row.first.items():
            chosen.append(row)
    if len(chosen) != 1:
        raise ValueError(f"{claim} has {len(chosen)} trained settings with {cell}, and not one")
    measured = _measured()
    if not _line(of_claim, rows, recorded, measured)["word"]:
        return pd.Series(dtype=float)
    (setting,) = chosen
    values = _values(recorded, measured)
    first = pd.Series(values(setting.first, setting))
    if isinstance(setting.second, dict):
        return statistics.difference(first, pd.Series(values(setting.second, setting)))
    return first if setting.second is None else first - setting.second


def evidence(page: str) -> pd.DataFrame:
    """The claims that a page is about, as a table to show: the word, or how many runs are done.

    Columns: in the paper, the paper says, printed, word or progress, ours, difference, exploratory
    (what earlier runs gave); those that are empty are left out.

    Args:
        page: the name of a notebook.
    """
    about = paper.table("claims").set_index("claim")
    earlier = paper.earlier_verdicts()
    lines = []
    for line in table().itertuples():
        if about.notebook[line.claim] == page:
            word = line.word or runs_done(line)
            shown = [line.where, line.says, line.printed, word, line.ours, line.difference]
            lines.append([*shown, exploratory(earlier.loc[line.claim])])
    columns = [
        "in the paper",
        "the paper says",
        "printed",
        "word, or progress",
        "ours",
        "difference",
        "exploratory",
    ]
    claims = pd.DataFrame(lines, columns=columns)
    return claims.loc[:, (claims != "").any()]  # without the columns that nothing stands in yet


def runs_done(line) -> str:
    """How far the runs of a claim without a word are, from a row of ``table``."""
    done = f"{line.done} of {line.planned} runs"
    if line.done == line.planned and line.pool:
        return f"{done}; {line.pool} of its pool to come"
    return done


def exploratory(verdict: pd.Series) -> str:
    """What earlier runs gave for a claim, and by which training.

    Args:
        verdict: a row of ``paper.earlier_verdicts``.
    """
    found = verdict.here
    for name, words in SCALES.items():
        found = found.replace(name, words)
    if found == verdict.here and found and any(words in verdict.reason for words in SHORTENED):
        return f"{found}, by {SHORTER}"
    return found


def show(claims: pd.DataFrame) -> None:
    """Show a table of claims in a notebook, with whole sentences."""
    from IPython.display import display

    with pd.option_context("display.max_colwidth", None):
        display(claims)


def _line(settings, rows, recorded, measured):
    first = settings[0]
    line = {
        "ours": "",
        "mean": float("nan"),
        "sd": float("nan"),
        "difference": "",
        "low": float("nan"),
        "high": float("nan"),
        "margin": first.margin,
        "word": "",
    }
    line |= {
        "done": 0,
        "planned": 0,
        "pool": 0,
        "note": "; ".join(dict.fromkeys(row.note for row in settings if row.note)),
    }
    if first.kind == "not registered":
        return line | {"word": NOT_RUN}
    if first.kind == "fact":
        holds, answer = facts.FACTS[first.claim]()
        return line | {"word": AGREES if holds else DISAGREES, "ours": answer}
    if first.outcome in registration.TRAINED:
        runs = registration.claim_runs(settings)
        done = sum(run.id in recorded for run in runs)
        line |= {"done": done, "planned": len(runs)}
        line["pool"] = sum(run.id not in recorded for run in _pool_runs(settings, rows))
        if done < len(runs) or line["pool"]:
            return line
        _check_one_kernel(first.claim, [recorded[run.id] for run in runs])
    else:
        line |= {
            "done": len(measured[measured.claim == first.claim]),
            "planned": sum(row.n for row in settings),
        }
        if line["done"] < line["planned"]:
            return line
    values = _values(recorded, measured)
    judgement = judging.judge(settings, values, _pool(first, rows, recorded))
    if not judgement.intervals:
        return line | {"word": judgement.word, "difference": "a training diverged"}
    widest = max(judgement.intervals, key=lambda interval: abs(interval.mean) + interval.half)
    line |= {
        "low": widest.mean - widest.half,
        "high": widest.mean + widest.half,
        "word": judgement.word,
    }
    if first.kind == "number":
        errors = list(values(first.first, first).values())
        line |= {"mean": np.mean(errors), "sd": np.std(errors, ddof=1)}
        line["ours"] = f"{line['mean']:.2f}; sd {line['sd']:.2f}"
    differences = [
        f"{interval.mean:+z.2f} ± {interval.half:.2f}" for interval in judgement.intervals
    ]
    return line | {"difference": "; ".join(differences)}


def _values(recorded, measured):
    """How ``judging.judge`` gets the outcomes of a cell, or of a measurement, by seed."""

    def values(side, row):
        if isinstance(side, dict):
            outcomes = {}
            for run in registration.cell_runs(side, row.n):
                outcomes[run.seed] = judging.outcome(recorded[run.id], row.outcome)
            return outcomes
        numbers = measured[(measured.claim == row.claim) & (measured.outcome == row.outcome)]
        column = "first" if side == row.first else "second"
        return dict(zip(numbers.seed, numbers[column]))

    return values


def _pool_runs(settings, rows):
    runs = []
    if settings[0].pool:
        for cell, n in judging.pool_cells(settings[0], rows):
            runs += registration.cell_runs(cell, n)
    return runs


def _pool(row, rows, recorded):
    """The outcomes of each cell that shares the spread.

    [] where the claim's own cell stands alone.
    """
    cells = []
    for cell, n in judging.pool_cells(row, rows) if row.pool else []:
        runs = registration.cell_runs(cell, n)
        cells.append([judging.outcome(recorded[run.id], row.outcome) for run in runs])
    return cells


def _check_one_kernel(claim, recorded):
    kernels = {record.provenance.get("kernel", "") for record in recorded}
    if len(kernels) > 1:
        raise ValueError(
            f"{claim}: its runs were trained by different kernels: {', '.join(sorted(kernels))}"
        )


def _measured():
    path = registration.folder() / PICTURES
    if not path.exists():
        return pd.DataFrame(columns=["claim", "outcome", "seed", "first", "second"])
    return pd.read_csv(path)


def measure() -> None:
    """Measure the pictures that need no training, once (minutes), into
    ``results/registered/pictures.csv``.
    """
    path = registration.folder() / PICTURES
    if path.exists():
        return
    numbers = measures.measure(registration.settings())
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    numbers.assign(date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")).to_csv(
        part, index=False, float_format="%.6g"
    )
    part.replace(path)


def progress(lines: pd.DataFrame) -> str:
    """One line a claim: its word, or how many of its runs are done."""
    states = []
    for line in lines.itertuples():
        state = line.word or runs_done(line)
        states.append(f"{state:>16}  {line.where:<9}  {line.says}")
    return "\n".join(states)
