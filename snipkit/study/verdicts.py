"""The replication report: one row for each claim, table and figure of the paper, with a verdict by a stated rule.

``printed/claims.csv`` lists the claims. The notebooks judge them beside the evidence (``value``, ``order``, ``fact``) and
``save`` their rows; ``write`` puts all rows of the ``paper`` and ``laptop`` profiles together in ``REPLICATION.md``.
"""

import math

import pandas as pd

from snipkit.study import paper, paths, statistics

REPRODUCED, PARTLY, NOT, INCONCLUSIVE, NOT_RUN = "reproduced", "partly", "not", "inconclusive", "not run at this scale"
SEEDS = 3  # fewer runs than this are no ground for a verdict

RULE = f"""\
- **A printed number** is judged only by runs of the paper's protocol, and by at least {SEEDS} seeds. Since the paper seldom says how many runs are behind it, it is
  taken for one more run: *reproduced* if it lies in the 95 % prediction interval of our next run (plus half a unit of its last digit) and half of that
  is at most 15 % of it (or 0.15 points). *Partly*: it lies in a wider interval, or within 25 % of our mean. *Not*: neither. A better number than the
  printed one is a difference like any other.
- **A claim about an order** is judged in every setting that was tried, by whether the 95 % interval of the difference lies wholly on the claimed side.
  *Reproduced*: in all that were planned, trained by the paper's protocol (or without any training). *Partly*: in at least half, and in more than lie wholly on the
  other side; and at best this where the training was shortened or a setting is missing. *Not*: in more settings wholly on the other side than on the claimed one. *Inconclusive*: otherwise. A
  claim that something stays *within a margin* is judged so too, but only by runs of the paper's protocol.
- **A fact that needs no training** (a count, an identity) is *reproduced* or *not*.
- Everything else is *not run at this scale*.
"""

COLUMNS = ["claim", "here", "n", "verdict", "reason"]


def value(claim, errors, protocol) -> dict:
    """Judge a printed number.

    Args:
        claim: an id in ``printed/claims.csv``, whose ``printed`` is a number.
        errors: our numbers, one a seed.
        protocol: whether they were trained by the paper's protocol.
    """
    printed, n = float(_claims().loc[claim, "printed"]), len(errors)
    if not n:
        return _row(claim, "", 0, NOT_RUN, "")
    mean, low, high = statistics.interval(errors)
    here = statistics.cell(errors, 2)
    if not protocol:
        return _row(claim, here, n, NOT_RUN, "the training was shortened")
    if n < SEEDS:
        return _row(claim, here, n, NOT_RUN, f"too few runs for a verdict (it takes {SEEDS})")
    if math.isnan(mean):
        return _row(claim, here, n, NOT, "training diverged")
    digits = len(str(_claims().loc[claim, "printed"]).partition(".")[2])
    half = (high - low) / 2 * math.sqrt(n + 1) + 0.5 * 10**-digits  # of the prediction interval: t · sd · √(1 + 1/n)
    narrow = half <= max(0.15, 0.15 * printed)
    difference = f"our mean is {abs(mean - printed):.2f} {'above' if mean > printed else 'below'} the printed number"
    if abs(mean - printed) <= half:
        return _row(claim, here, n, REPRODUCED, "") if narrow else _row(claim, here, n, PARTLY, "the interval is wide")
    return _row(claim, here, n, PARTLY if abs(mean - printed) <= 0.25 * printed else NOT, difference)


def order(claim, differences, protocol, here, reason="", margin=False) -> dict:
    """Judge a claim about an order, or about a margin.

    Args:
        differences: one row a setting that was planned, with ``n, low, high`` of a difference that the claim says is positive. A row
            with too few runs, or without an interval (a run diverged), does not count, and the verdict is "partly" at best.
        protocol: whether the runs were trained by the paper's protocol; True where nothing is trained.
        here: how to show ours.
        reason: what else to say.
        margin: the claim is that errors agree within a margin; a shortened training can say nothing about that.
    """
    if margin and not protocol:
        return _row(claim, here, "", NOT_RUN, "the training was shortened")
    planned = len(differences)
    differences = differences[differences.low.notna() & (differences.n >= SEEDS)]
    if not len(differences):
        return _row(claim, here, "", NOT_RUN, f"no setting with {SEEDS} runs")
    n = f"{differences.n.min()}" if differences.n.nunique() == 1 else f"{differences.n.min()} to {differences.n.max()}"
    right, wrong, all_of_them = int((differences.low > 0).sum()), int((differences.high < 0).sum()), len(differences)
    if right > wrong and 2 * right >= all_of_them:
        verdict = REPRODUCED if right == planned and protocol else PARTLY
    else:
        verdict = NOT if wrong > right else INCONCLUSIVE
    said = [f"{right} of {all_of_them} settings on the claimed side" + (f", {wrong} on the other" if wrong else "")]
    said += [f"{planned - all_of_them} more not judged"] if planned > all_of_them else []
    said += [] if protocol else ["the training was shortened"]
    return _row(claim, here, n, verdict, "; ".join(said + [reason] * bool(reason)))


def fact(claim, holds, here, n="", reason="") -> dict:
    """Judge a fact that needs no training."""
    return _row(claim, here, n, REPRODUCED if holds else NOT, reason)


def _row(claim, here, n, verdict, reason):
    if claim not in _claims().index:
        raise ValueError(f"unknown claim {claim!r}; known: {', '.join(_claims().index)}")
    return dict(zip(COLUMNS, (claim, here, n, verdict, reason)))


def _claims():
    return paper.table("claims").set_index("claim")


def save(rows, name, profile) -> pd.DataFrame:
    """Keep a notebook's rows as ``figures/<profile>/<name>_claims.csv``, and return them with the claims' words, to be shown."""
    rows = pd.DataFrame(rows, columns=COLUMNS)
    paths.figures(profile).mkdir(parents=True, exist_ok=True)
    rows.to_csv(paths.figures(profile) / f"{name}_claims.csv", index=False)
    return _claims()[["where", "says", "printed"]].merge(rows, left_index=True, right_on="claim").drop(columns="claim")


def gather(profile) -> pd.DataFrame:
    """All rows that the notebooks saved in a profile, by claim."""
    parts = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in sorted(paths.figures(profile).glob("*_claims.csv"))]
    rows = pd.concat([pd.DataFrame(columns=COLUMNS), *parts])
    return rows.drop_duplicates("claim", keep="last").set_index("claim")


def report(profiles=("paper", "laptop")) -> pd.DataFrame:
    """One row a claim: from the first of the profiles that has a verdict on it, or else that has run anything."""
    claims, found = _claims(), {profile: gather(profile) for profile in profiles}
    rows = []
    for claim, says in claims.iterrows():
        candidates = [(profile, rows.loc[claim]) for profile, rows in found.items() if claim in rows.index]
        judged = [c for c in candidates if c[1].verdict != NOT_RUN] or [c for c in candidates if c[1].here] or candidates
        profile, row = judged[0] if judged else ("", pd.Series(dict.fromkeys(COLUMNS, ""), dtype=str))
        rows.append([says["where"], says.says, says.printed, row.here, row.n, row.verdict or NOT_RUN, row.reason, profile])
    return pd.DataFrame(rows, columns=["where", "the paper says", "printed", "here", "n", "verdict", "reason", "scale"], index=claims.index)


def evidence(notebook) -> pd.DataFrame:
    """The claims of one notebook with what the committed runs at the paper's scale say about them."""
    rows = report(("paper",))
    return rows[_claims().notebook == notebook].drop(columns="scale").reset_index(drop=True)


def summary(rows) -> str:
    """How many claims got which verdict, in one line."""
    counts = rows.verdict.value_counts()
    return ", ".join(f"{verdict}: {counts.get(verdict, 0)}" for verdict in (REPRODUCED, PARTLY, NOT, INCONCLUSIVE, NOT_RUN))


def write() -> pd.DataFrame:
    """Write ``REPLICATION.md`` into the project's folder from what ``figures/paper`` and ``figures/laptop`` hold; return its rows."""
    rows, claims = report(), _claims()
    made = claims.assign(item=claims["where"].str.replace(r"(\d)[ab]$", r"\1", regex=True)).groupby("item", sort=False)
    links = {claim: _link(file, rows.scale[claim]) for claim, file in claims.file.items()}
    items = [[item, part.notebook.iloc[0], ", ".join(dict.fromkeys(links[claim] for claim in part.index))] for item, part in made]
    items = pd.DataFrame(sorted(items), columns=["in the paper", "notebook", "file"])
    items["notebook"] = [f"[`{name}`](notebooks/{name}.ipynb)" for name in items.notebook]
    shown = rows.assign(verdict="**" + rows.verdict + "**").map(lambda text: text.replace("|", "\\|"))  # or it would end a cell
    text = f"""# Replication report

One row for each claim, table and figure of *SNIP: single-shot network pruning based on connection sensitivity* (Lee, Ajanthan, Torr, ICLR 2019). Written
by `make paper`; do not edit. {summary(rows)} (of {len(rows)}).

## The rule

{RULE}
*Scale* says whose runs the row rests on: `paper` (the paper's protocol, `results/paper/`) where there is a verdict from them, else `laptop` (a short
training that can show orders, not error levels). Errors are of the final weights, mean ± half a 95 % t-interval over n seeds.

## The claims

{shown.to_markdown(index=False, disable_numparse=True)}

## What makes each table and figure

{items.to_markdown(index=False)}
"""
    (paths.home() / "REPLICATION.md").write_text(text)
    return rows


def _link(file, scale):
    """A figure or table as a link: that of the scale that the verdict rests on, if there is one."""
    for profile in (scale, "laptop", "paper"):
        for suffix in (".png", ".md"):
            if (paths.figures(profile) / f"{file}{suffix}").exists():
                return f"[{file}, {profile}](figures/{profile}/{file}{suffix})"
    return file
