"""The replication report: one row for each claim, table and figure of the paper, with a verdict by a rule.

``paper/claims.csv`` lists the claims and their margins; ``paper/rule.md`` states the rule. The notebooks judge the
claims beside the evidence (``value``, ``order``, ``fact``) and ``save`` their rows; ``write`` puts all rows together in
``REPLICATION.md``.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from snipkit.study import paper, paths, statistics

EQUIVALENT, DIFFERS, CONSISTENT, UNDECIDED = "equivalent", "differs", "consistent", "undecided"  # printed numbers
CONFIRMED, PARTLY, MIXED, CONTRADICTED = "confirmed", "partly confirmed", "mixed", "contradicted"  # orders, facts
NOT_RUN = "not run at this scale"
COLORS = {  # of the picture
    EQUIVALENT: "#009E73", CONFIRMED: "#009E73", CONSISTENT: "#56B4E9", PARTLY: "#56B4E9", MIXED: "#E69F00",
    UNDECIDED: "#E69F00", DIFFERS: "#D55E00", CONTRADICTED: "#D55E00", NOT_RUN: "0.6",
}  # fmt: skip
VERDICTS = tuple(COLORS)
PROFILES = ("paper", "overnight", "laptop")  # whose rows are taken first; short trainings only where there is no other
TRAININGS = ("short", "converged", "paper")  # in rising order of what they can show
SEEDS = 3  # fewer runs than this are no ground for a verdict
OWN_SPREAD = 6  # runs from which on a cell has its own spread, and needs none pooled over others

COLUMNS = ["claim", "here", "n", "verdict", "reason", "difference", "low", "high", "intervals", "p"]


def least(training: Sequence[str]) -> str:
    """The ``Run.training`` that a verdict can count on: the least of its runs'; "short" if there are none."""
    return min(training, key=TRAININGS.index, default="short")


def value(
    claim: str,
    errors: Sequence[float],
    training: str,
    pool: Sequence = (),
    theirs: Sequence[float] = (),
    seconds: float = 0.0,
    twice: Sequence[float] | None = None,
    twice_at: str = "",
) -> dict:
    """Judge a printed number.

    Args:
        claim: an id in ``paper/claims.csv`` with a number as ``printed`` and a ``margin``.
        errors: our numbers, one a seed.
        training: the ``Run.training`` of all of them: "paper", "converged" or "short".
        pool: the numbers of each cell of the same network, for the spread; by default ``errors`` alone.
        theirs: the paper's own runs, where known.
        seconds: of one run, for the hours that would decide.
        twice: our errors after training twice as long minus ours, one a pair. A schedule of our own is no ground for a
            verdict where that changes the error by the margin or more, or fewer than 3 pairs are known; nor for
            *differs* where the change, with its interval, could make up for the difference. None: not asked for, since
            the paper's protocol stands beside it.
        twice_at: where that was tried, if not at the claim's own setting.
    """
    row, errors = _claims().loc[claim], np.asarray(errors, float)
    n, printed, margin = len(errors), float(row.printed), float(row.margin)
    if not n:
        return _row(claim, "", 0, NOT_RUN, "no runs; docs/evidence.md says what they take")
    here = statistics.cell(errors, 2)
    if training == "short":
        return _row(claim, here, n, NOT_RUN, "the training was shortened")
    if np.isnan(errors).any():
        return _row(claim, here, n, DIFFERS, "training diverged")
    if n < SEEDS:
        return _row(claim, here, n, NOT_RUN, f"too few runs for a verdict (it takes {SEEDS})")
    rounding = 0.0 if len(theirs) else 0.5 * 10.0 ** -len(str(row.printed).partition(".")[2])
    sd, freedom = statistics.pooled_sd(pool if len(pool) and n < OWN_SPREAD else [errors])
    difference, error = errors.mean() - (np.mean(theirs) if len(theirs) else printed), sd / n**0.5
    if len(theirs):
        freedom = stats.ttest_ind(errors, theirs, equal_var=False).df  # Welch's
        error = np.hypot(stats.sem(errors), stats.sem(theirs))
    at_90, at_95 = (stats.t.ppf(quantile, freedom) * error + rounding for quantile in (0.95, 0.975))
    low, high = difference - at_95, difference + at_95
    verdict, reason = _judged((difference - at_90, difference + at_90), (low, high), margin), ""
    away = {DIFFERS: abs(difference), EQUIVALENT: margin - abs(difference)}.get(verdict, math.nan) - rounding
    p = (1 + (verdict == DIFFERS)) * stats.t.sf(away / max(error, 1e-300), freedom)  # equivalence: one side each
    if verdict == DIFFERS:
        reason = f"{abs(difference):.2f} {'above' if difference > 0 else 'below'}"
    elif verdict == UNDECIDED:
        # Equivalence with 80 % power if there is no difference: z(0.95) + z(0.90) standard errors within the margin.
        wanted = math.ceil((2.93 * sd / max(margin - rounding, margin / 2)) ** 2)
        hours = f", {max(wanted - n, 0) * seconds / 3600:.1f} hours" if seconds else ""
        reason = f"it takes about {max(wanted, n + 1)} runs{hours}, if there is no difference"
    own = "" if training == "paper" else "our schedule"
    if own and twice is not None:
        change, _, most = statistics.interval(twice) if len(twice) >= SEEDS else 3 * [math.nan]
        said = "not tried" if len(twice) < SEEDS else "diverged" if math.isnan(change) else statistics.cell(twice, 2)
        own += f"; twice the time{twice_at and f' ({twice_at})'}: {said}"
        stays = verdict != DIFFERS or abs(difference + change) > np.hypot(at_95, most - change)
        if not (abs(change) < margin and stays):
            verdict, p = UNDECIDED, math.nan
    return _row(claim, here, n, verdict, "; ".join(filter(None, (reason, own))), difference, low, high, 1, p)


def order(
    claim: str, differences: pd.DataFrame, training: str, here: str, reason: str = "", margin: bool = False
) -> dict:
    """Judge a claim about an order, or about a margin.

    Args:
        differences: one row a planned setting, with ``n, mean, low, high`` of a difference that should be positive.
            A row with too few runs, or without an interval (a run diverged), does not count, and forbids *confirmed*.
            An interval below the claim's margin, if it has one, is on the other side: no such difference that matters.
        training: the least ``Run.training`` of the runs; "paper" where nothing is trained.
        here: how to show ours.
        reason: what else to say.
        margin: the claim is that errors agree within a margin; a short training can say nothing about that.

    Raises:
        ValueError: a mean lies outside its interval.
    """
    if margin and training == "short":
        return _row(claim, here, "", NOT_RUN, "the training was shortened")
    planned, differences = len(differences), differences[differences.low.notna() & (differences.n >= SEEDS)]
    if not differences["mean"].between(differences.low, differences.high).all():
        raise ValueError(f"claim {claim!r}: a mean lies outside its interval:\n{differences}")
    if not (judged := len(differences)):
        return _row(claim, here, "", NOT_RUN, f"no setting with {SEEDS} runs")
    n = f"{differences.n.min()}" if differences.n.nunique() == 1 else f"{differences.n.min()} to {differences.n.max()}"
    matters = 0.0 if margin else np.nan_to_num(_claims().margin[claim])  # differences below it are none
    against = differences[(differences.low <= 0) & (differences.high < matters)]
    right, wrong, p = int((differences.low > 0).sum()), len(against), math.nan
    if right == planned:
        verdict, p = CONFIRMED, statistics.p_values(differences).max()  # all must hold
    elif right:
        verdict = MIXED if wrong else PARTLY
    elif wrong:
        verdict, p = CONTRADICTED, judged * statistics.p_values(against, matters).min()  # one is enough (Bonferroni)
    else:
        verdict = UNDECIDED
    said = [f"{right} of {judged} settings on the claimed side" + (f", {wrong} on the other" if wrong else "")]
    said += [f"{planned - judged} more not judged"] if planned > judged else []
    said += [f"about {_runs_that_decide(differences):,} runs each would decide"] if verdict == UNDECIDED else []
    said += {"paper": [], "converged": ["our schedule"], "short": ["the training was shortened"]}[training]
    return _row(claim, here, n, verdict, "; ".join(said + [reason] * bool(reason)), intervals=judged, p=p)


def _runs_that_decide(differences) -> int:
    """Runs for a verdict in every setting with 80 % power at 5 %, if the differences are those seen."""
    error = statistics.standard_error(differences) / differences["mean"]
    wanted = differences.n * ((1.96 + 0.84) * error).pow(2) + 1.96**2 / 2  # the last term for t (Guenther 1981)
    return math.ceil(max(wanted.fillna(1e6).clip(upper=1e6).max(), differences.n.max() + 1))  # no difference: no end


def equivalence(differences: Sequence[float], margin: float, training: str) -> str:
    """Judge differences, one a seed, that should be 0, by the rule for printed numbers; for what the paper lacks.

    Args:
        margin: what counts as no difference; stated before the runs.
        training: the least ``Run.training`` of the runs.
    """
    differences = np.asarray(differences, float)
    if training == "short" or len(differences) < SEEDS:
        return NOT_RUN
    if np.isnan(differences).any():
        return DIFFERS
    at_90, at_95 = (statistics.interval(differences, level)[1:] for level in (0.90, 0.95))
    return _judged(at_90, at_95, margin)


def _judged(at_90, at_95, margin):
    """The rule for a difference that should be 0, from its 90 and 95 % intervals (low, high)."""
    if -margin < at_90[0] and at_90[1] < margin:
        return EQUIVALENT
    if at_95[0] > 0 or at_95[1] < 0:
        return DIFFERS
    return CONSISTENT if (at_95[1] - at_95[0]) / 2 <= 2 * margin else UNDECIDED


def fact(claim: str, holds: bool, here: str, n: str | int = "", reason: str = "") -> dict:
    """Judge a fact that needs no training."""
    return _row(claim, here, n, CONFIRMED if holds else CONTRADICTED, reason)


def _row(claim, here, n, verdict, reason, difference=math.nan, low=math.nan, high=math.nan, intervals=0, p=math.nan):
    if claim not in _claims().index:
        raise ValueError(f"unknown claim {claim!r}; known: {', '.join(_claims().index)}")
    return dict(zip(COLUMNS, (claim, here, n, verdict, reason, difference, low, high, intervals, p)))


def _claims():
    return paper.table("claims").set_index("claim")


def save(rows: list[dict], name: str, profile: str) -> pd.DataFrame:
    """Keep a notebook's rows as ``figures/<profile>/<name>_claims.csv``; return them with the claims' words."""
    frame = pd.DataFrame(rows, columns=COLUMNS)
    text = frame.to_csv(index=False, float_format="%.4g")
    paths.write_text(paths.figures_to_write(profile) / f"{name}_claims.csv", text)
    shown = frame.drop(columns=["difference", "low", "high", "intervals", "p"])
    return _claims()[["where", "says", "printed"]].merge(shown, left_index=True, right_on="claim").drop(columns="claim")


def gather(profile: str) -> pd.DataFrame:
    """All rows that the notebooks saved in a profile, by claim."""
    files = sorted(paths.figures(profile).glob("*_claims.csv"))
    rows = [pd.DataFrame(columns=COLUMNS), *(pd.read_csv(path, dtype=str, keep_default_na=False) for path in files)]
    return pd.concat(rows).fillna("").drop_duplicates("claim", keep="last").set_index("claim")


def report(profiles: Sequence[str] = PROFILES) -> pd.DataFrame:
    """One row a claim: from the first of the profiles that decides it, else has a verdict, else has run anything."""
    claims, found, rows = _claims(), {profile: gather(profile) for profile in profiles}, []
    for claim, says in claims.iterrows():
        known = [(profile, own.loc[claim]) for profile, own in found.items() if claim in own.index]
        judged = [one for one in known if one[1].verdict != NOT_RUN]
        long = [one for one in judged if one[0] != PROFILES[-1]]
        decided = [one for one in long if one[1].verdict not in (UNDECIDED, PARTLY)]
        best = decided or judged or [one for one in known if one[1].here] or known
        profile, row = best[0] if best else ("", pd.Series(dict.fromkeys(COLUMNS, ""), dtype=str))
        if (sides := {own.verdict for _, own in long}) & {CONFIRMED, PARTLY} and CONTRADICTED in sides:
            both = {name: "; ".join(f"{scale}: {own[name]}" for scale, own in long) for name in ("here", "reason")}
            row = pd.Series({**row, **both, "verdict": MIXED, "p": ""})  # our schedule alone would hide the paper's
        margin = "" if math.isnan(says.margin) else f"{says.margin:g}"
        interval = f"{float(row.low):+.2f} to {float(row.high):+.2f}" if row.low else ""
        ours = [row.here, row.n, interval, margin, row.verdict or NOT_RUN, row.reason, profile, int(row.intervals or 0)]
        rows.append([says["where"], says.says, says.printed, *ours, float(row.p or "nan")])
    ours = ["here", "n", "difference, 95 %", "margin", "verdict", "reason", "scale", "intervals", "p"]
    return pd.DataFrame(rows, columns=["where", "the paper says", "printed", *ours], index=claims.index)


def evidence(notebook: str) -> pd.DataFrame:
    """The claims of one notebook as ``REPLICATION.md`` has them: judged by the best runs on record, at any scale."""
    return report()[_claims().notebook == notebook].drop(columns=["intervals", "p"]).reset_index(drop=True)


def summary(rows: pd.DataFrame) -> str:
    """How many claims got which verdict, in one line."""
    counts = rows.verdict.value_counts()
    return ", ".join(f"{verdict}: {counts[verdict]}" for verdict in VERDICTS if verdict in counts)


def sources(rows: pd.DataFrame) -> pd.DataFrame:
    """Which notebook and which file make each table and figure of the paper.

    Args:
        rows: what ``report`` gave; a link goes to the scale that a row rests on.
    """
    claims = _claims()
    items = claims["where"].str.replace(r"(\d)[ab]$", r"\1", regex=True)
    lines = []
    for item, group in claims.groupby(items):
        links = dict.fromkeys(_link(file, rows.scale[claim]) for claim, file in group.file.items())
        notebook = group.notebook.iloc[0]
        lines.append([item, f"[`{notebook}`](notebooks/{notebook}.ipynb)", ", ".join(links)])
    return pd.DataFrame(lines, columns=["in the paper", "notebook", "file"])


def holm_note(rows: pd.DataFrame) -> str:
    """How many intervals the rows rest on, and which of them a correction for their number would leave open."""
    intervals, orders = rows.intervals.sum(), rows.intervals[rows["difference, 95 %"] == ""].sum()
    return (
        f"They rest on {intervals} intervals ({orders} of them for orders and margins), "
        f"of which one in twenty misses by chance; {_together(rows)}"
    )


def _together(rows):
    """Which verdicts are left if the whole report is to have no false one, at 5 % (Holm), as the end of a sentence."""
    tested = rows[rows.intervals > 0]
    lost = tested[tested.p.notna() & (statistics.holm(tested.p.fillna(1)) >= 0.05)]
    names = lost["where"] + ", " + lost["the paper says"].str.replace(":.*", "", regex=True)
    among = f"all {len(tested)} rows with intervals (Holm's method), {len(lost)} of the {tested.p.count()} decided rows"
    return f"at 5 % for one false decision or more among {among} would be undecided: {'; '.join(names) or 'none'}."


def _link(file, scale):
    """A figure or table as a link: that of the scale that the verdict rests on, if there is one."""
    for profile in (scale, *PROFILES):
        for suffix in (".png", ".md"):
            if (paths.figures(profile) / f"{file}{suffix}").exists():
                return f"[{file}, {profile}](figures/{profile}/{file}{suffix})"
    return file
