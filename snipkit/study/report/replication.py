"""REPLICATION.md.

What the registered rule says of each claim, beside what others found; then earlier verdicts.
"""

import re
import string
from collections.abc import Collection
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.patches import Patch, Rectangle

from snipkit.study import paper, paths
from snipkit.study.report import answers, facts, figures, judging, registered, reproductions
from snipkit.study.train import records, registration

TEMPLATE = Path(__file__).parent / "replication.md"
WAITING = "waiting"  # for runs, its own or those of its pool
#: a table or figure of the paper → what it shows
ABOUT = {
    "Table 1": "errors of pruned LeNets",
    "Table 2": "errors and counts of twelve networks",
    "Table 3": "does the initialiser of the scored weights matter?",
    "Table 4": "errors and counts on Tiny-ImageNet",
    "Table 5": "layers of AlexNet",
    "Table 6": "layers of VGG",
    "Figure 1": "error against sparsity, LeNets",
    "Figure 2": "masks show the class that they were scored on",
    "Figure 3": "error against the size of the scoring batch",
    "Figure 4": "a pruned network does not fit random labels",
    "Figure 5": "masks of inverted images",
    "Figure 6": "masks ranked by the signed gradient",
    "Figure 7": "random labels, by sparsity",
}
#: a table or figure of the paper → what its rows leave out
NOTES = {
    "Table 1": "The dense LeNet-300-100 is compared with 1.68, the mean of the paper's own runs in"
    " figure 1, and not with 1.7.",
    "Table 3": "Scored weights: VS-X is variance scaling by Glorot, VS-H by He, RN a normal and TN"
    " a truncated normal distribution. The differences are RN, TN and VS-H minus VS-X (recurrent"
    " networks: RN and TN).",
    "Table 4": "The printed counts are those of networks with 10 outputs, and the task has 200"
    " classes. So this is about the paper's table, and not about SNIP. The counts are of AlexNet-s,"
    " AlexNet-b, VGG-C, VGG-D and VGG-like. Printed: 507k, 849k, 526k, 762k and 749k.",
    "Figure 1": "The differences are those at 80 and at 90 % removed.",
    "Figure 2": "The difference is the correlation of a mask's picture with the mean image of its"
    " own class, without the sign, minus that with other classes'. It is above 0 if the claim"
    " holds.",
    "Figure 3": "The differences are the error with the smaller scoring batch minus that with the"
    " larger one.",
    "Figure 4": "What is compared, in nats, is above 0 if the claim holds.",
    "Figure 5": "The difference is the correlation of the pictures of inverted and of plain images,"
    " minus that of the pictures of two draws of the weights: first MNIST, then Fashion-MNIST. It"
    " is above 0 if the claim holds. (The pictures are alike; the connections are not.)",
    "Figure 6": "The difference is the correlation of the pictures at 20 and 80 % removed, ranked"
    " by SNIP, minus that ranked by the *signed* derivative: first MNIST, then Fashion-MNIST. It is"
    " above 0 if the claim holds. Ranked by the absolute derivative, the pictures stay as SNIP's"
    " do, and the paper does not say which of the two it draws.",
    "Figure 7": "The differences are those of the final losses, in nats: at 50 minus 10 %, at 90"
    " minus 50 %, and at 99 minus 90 % removed.",
}
AUTHORS_PROTOCOL = "momentum, 100,000 steps"  # of their code, nearest to the paper's text
DESIGNED_HERE = "figure4-task"  # a test of ours, not a claim of the paper


def write(progress: str = "") -> pd.DataFrame:
    """Write ``REPLICATION.md`` and its picture; return the table of registered claims.

    Args:
        progress: a last section: what is planned, and what is on record.
    """
    claims = registered.table()
    earlier = paper.earlier_verdicts()
    figures.use_style()
    figures.save(draw(claims), "replication", "", claims.drop(columns=["note"]))
    text = string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        findings=_found_so_far(claims),
        scoreboard=_markdown(scoreboard(claims)),
        claims=by_item(rows(claims, earlier)),
        others=_markdown(others()),
        files=_markdown(sources()),
        progress=progress,
    )
    paths.write_text(paths.home() / "REPLICATION.md", text)
    return claims


def summary(claims: pd.DataFrame) -> str:
    """How many claims have which word, in one line."""
    by_state = states(claims).value_counts()
    parts = {state: f"{state} {by_state[state]}" for state in by_state.index}
    built = (claims.claim.isin(facts.FACTS) & (claims.word == judging.AGREES)).sum()
    if built:
        # Counts and layers say that our networks are the paper's, and nothing about pruning.
        parts[judging.AGREES] += f" ({built} of them by the way our networks are built)"
    return ", ".join(parts[state] for state in (*judging.WORDS, WAITING) if state in parts)


def trained(claims: pd.DataFrame) -> str:
    """The words of the claims that needed training, such as "agrees 1, disagrees 5, open 1"."""
    with_runs = {setting.claim for setting in registration.settings() if setting.cells}
    words = claims[claims.claim.isin(with_runs)].word.value_counts()
    present = [word for word in judging.WORDS if word in words]
    return ", ".join(f"{word} {words[word]}" for word in present) or "none has a word yet"


def _found_so_far(claims):
    """The first section; one line in a folder without the pages, where its template is not."""
    if not (answers.folder() / "replication_answer.md").exists():
        return f"**Now: {summary(claims)}.**\n\n"
    text = answers.fill("replication_answer", findings(claims), digits=2)
    return f"## What we found so far\n\n{text}\n\n"


def findings(claims: pd.DataFrame) -> dict[str, object]:
    """The numbers of ``notebooks/answers/replication_answer.md``, for ``answers.fill``.

    Args:
        claims: what ``registered.table`` gave.
    """
    recorded = records.read(registration.folder())
    outcomes = partial(registered.outcomes, recorded=recorded)
    values: dict[str, object] = {
        "rise": outcomes("figure1-lenet-300-100", sparsity=0.9),
        "one_image": outcomes("figure3-order"),
        "beyond_100": outcomes("figure3-100-10000"),
        "initialiser": outcomes("table3-lenet-300-100", scoring_init="normal"),
    }
    reported = paper.table("others")
    with_momentum = reported[reported.protocol == AUTHORS_PROTOCOL].set_index("claim").error
    for name, sparsity in (("dense", 0), ("at_95", 95), ("at_98", 98)):
        claim = f"table1-lenet-300-100-{sparsity}"
        values[name] = outcomes(claim)
        values[f"authors_{sparsity}"] = f"{with_momentum[claim]:.2f}"
    return values | counts(claims, recorded)


def counts(claims: pd.DataFrame, recorded: Collection[str] | None = None) -> dict[str, str]:
    """How far the registration has come, as texts.

    Args:
        claims: what ``registered.table`` gave.
        recorded: ids of the registered runs that are on record; by default those in
            ``results/registered``.

    Returns:
        "claims"; their "words", as ``summary`` says; those of the claims that needed training,
        "trained"; and trainings "done" and "planned". Claims share trainings, each counts once.
    """
    if recorded is None:
        recorded = records.read(registration.folder())
    trainings = registration.runs()
    done = sum(run.id in recorded for run in trainings)
    return {
        "claims": f"{len(claims):,}",
        "done": f"{done:,}",
        "planned": f"{len(trainings):,}",
        "trained": trained(claims),
        "words": summary(claims),
    }


def states(claims: pd.DataFrame) -> pd.Series:
    """The word of each claim, or that its runs are not complete."""
    return claims.word.where(claims.word != "", WAITING)


def scoreboard(claims: pd.DataFrame) -> pd.DataFrame:
    """One row for each table and figure of the paper: how many of its claims have which word."""
    board = pd.crosstab(_items(claims), states(claims)).reindex(
        columns=[*judging.WORDS, WAITING], fill_value=0
    )
    board = board.loc[sorted(board.index, key=lambda name: (name.split()[0] != "Table", name))]
    board.insert(0, "what it shows", [ABOUT[name] for name in board.index])
    return board.replace(0, "").rename_axis("in the paper").reset_index()


def rows(claims: pd.DataFrame, earlier: pd.DataFrame) -> pd.DataFrame:
    """The table of all claims, beside exploratory runs and others' numbers."""
    lines = []
    reported = paper.table("others")
    for claim in claims.itertuples():
        numbers = reported[reported.claim == claim.claim]
        exploratory = registered.exploratory(earlier.loc[claim.claim])
        margin = "" if pd.isna(claim.margin) else f"margin {claim.margin:g}"
        lines.append(
            {
                "where": claim.where,
                "the paper says": claim.says,
                "printed": claim.printed,
                "word": f"**{claim.word}**" if claim.word else registered.runs_done(claim),
                "ours": claim.ours,
                "difference": "; ".join(filter(None, [claim.difference, margin])),
                "exploratory": "" if claim.ours or claim.difference else exploratory,
                "others": _in_short(numbers),
                "note": claim.note,
            }
        )
    return pd.DataFrame(lines)


def by_item(claims: pd.DataFrame) -> str:
    """The claims as Markdown: a heading and a table for each table and figure of the paper.

    A table has only the columns in which something stands.

    Args:
        claims: what ``rows`` gave, or some of its rows.
    """
    items = _items(claims)
    parts = []
    for item, about in ABOUT.items():
        if item not in set(items):
            continue
        part = claims[items == item]
        if part["where"].nunique() == 1:
            part = part.drop(columns="where")  # the heading says it
        part = part.loc[:, (part != "").any()]
        note = f"{NOTES[item]}\n\n" if item in NOTES else ""
        parts.append(f"### {item}: {about}\n\n{note}{_markdown(part)}")
    return "\n\n".join(parts)


def _items(claims):
    """The table or figure of each claim: "Figure 1" for "Figure 1a"."""
    return claims["where"].str.replace(r"(\d)[ab]$", r"\1", regex=True)


def _in_short(numbers):
    """The errors that others reached for one claim, in one line: the authors' code first."""
    by_authors = numbers.source == "authors' code"
    parts = []
    for whose, errors in (("authors' code", numbers[by_authors]), ("others", numbers[~by_authors])):
        if len(errors):
            named = [f"{row.error:.2f}{_how(row)}" for row in errors.itertuples()]
            parts.append(f"{whose} {', '.join(named)}")
    return "; ".join(parts)


def _how(row):
    """The authors' code was run by several protocols: " (momentum)"."""
    if row.source != "authors' code":
        return ""
    return f" ({row.protocol.partition(',')[0].removeprefix('its ')})"


def others() -> pd.DataFrame:
    """Numbers of other people for the claims of tables 1 and 2, with their protocols."""
    claims = paper.table("claims").set_index("claim")
    table = paper.table("others")
    order = {claim: place for place, claim in enumerate(claims.index)}
    table = table.sort_values("claim", key=lambda names: names.map(order), kind="stable")
    says = [", ".join(reproductions.network_and_data(claims.says[name])) for name in table.claim]
    table.insert(0, "network and data: test error, %", says)
    table.insert(1, "printed", [claims.printed[claim] for claim in table.claim])
    spread = ["" if pd.isna(sd) else f" (sd {sd:.2f})" for sd in table.sd]
    table["error"] = [f"{error:.2f}{sd}" for error, sd in zip(table.error, spread)]
    return table.drop(columns=["claim", "sd"])


def sources() -> pd.DataFrame:
    """Which page and which files make each table and figure of the paper."""
    claims = paper.table("claims")
    lines = []
    for item, group in claims.groupby(_items(claims)):
        links = []
        for name in dict.fromkeys(group.file):
            links += _links(name)
        page = group.notebook.iloc[0]
        lines.append([item, f"[`{page}`](notebooks/{page}.ipynb)", ", ".join(links)])
    return pd.DataFrame(lines, columns=["in the paper", "page", "files"])


def _links(name):
    """A figure or table as links, one for each committed scale that has it."""
    links = []
    for scale in ("overnight", "paper"):
        for suffix in (".png", ".md"):
            if (paths.figures(scale) / f"{name}{suffix}").exists():
                links.append(f"[{name}, {scale}](figures/{scale}/{name}{suffix})")
                break
    return links


#: word → colour; a claim whose runs are not complete is white
COLORS = {
    judging.AGREES: "#009E73",
    judging.DISAGREES: "#D55E00",
    judging.OPEN: "#F0E442",
    judging.NOT_RUN: "0.8",
    WAITING: "white",
}
DONE = "#A6CEE3"  # the part of a claim's runs that is on record


def draw(claims: pd.DataFrame):
    """The scoreboard as a picture: a square for each claim, in the colour of its word.

    Below it, where there are any, the complete claims that have a margin, with their intervals in
    units of the margin.

    Args:
        claims: what ``registered.table`` gave.

    Returns:
        The figure.
    """
    import matplotlib.pyplot as plt

    judged = claims[(claims.word != "") & claims.low.notna() & claims.margin.notna()]
    names = []
    for claim in judged.itertuples():
        about = re.split(r":| does ", claim.says)[0]
        several = claim.difference.count(";") + 1  # settings; the interval is the farthest one's
        farthest = f" (farthest of {several})" if several > 1 else ""
        names.append(f"{claim.where}, {about}{farthest}")
    heights = [13, len(judged)] if len(judged) else [13]  # rows in each panel
    figure, axes = plt.subplots(
        len(heights),
        1,
        figsize=(8.5, 0.9 + 0.27 * sum(heights) + 0.6 * (len(heights) - 1)),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    _draw_squares(axes[0, 0], claims)
    if len(judged):
        draw_intervals(axes[1, 0], judged.assign(name=names))
        axes[1, 0].set_title("complete claims with a margin: our difference, 95 % interval")
    return figure


def _draw_squares(ax, claims):
    items = _items(claims)
    places = {item: place for place, item in enumerate(scoreboard(claims)["in the paper"])}
    columns, some_done = dict.fromkeys(places, 0), False
    for item, claim, state in zip(items, claims.itertuples(), states(claims)):
        corner = columns[item] - 0.32, places[item] + 0.38
        done = claim.done / claim.planned if state == WAITING else 0
        some_done = some_done or done > 0
        for share, color in ((1, COLORS[state]), (done, DONE)):
            size = 0.64, -0.76 * share  # upwards: the axis is inverted
            ax.add_patch(Rectangle(corner, *size, facecolor=color, edgecolor="0.3", lw=0.8))
        columns[item] += 1
    ax.set_yticks(list(places.values()), [f"{item}: {ABOUT[item]}" for item in places])
    ax.set(xticks=[], xlim=(-0.7, 13), ylim=(len(places) - 0.4, -0.6))
    ax.spines["bottom"].set_visible(False)
    ax.set_title("a square for each claim of the paper")
    handles = []
    for state, count in states(claims).value_counts().reindex(list(COLORS)).dropna().items():
        label = f"{state}: {count:.0f}"
        handles.append(Patch(facecolor=COLORS[state], edgecolor="0.3", label=label))
    if some_done:
        label = "share of its runs that is done"
        handles.append(Patch(facecolor=DONE, edgecolor="0.3", label=label))
    ax.legend(handles=handles, loc="lower right", frameon=False)


def draw_intervals(ax, rows: pd.DataFrame) -> None:
    """Intervals of differences, in the colours of their words, over the grey band of the margin.

    Args:
        ax: the axes to draw on.
        rows: name, low and high (of the 95 % interval), margin, word; a row an interval.
    """
    ax.axvspan(-1, 1, color="0.92")
    for place, row in enumerate(rows.itertuples()):
        low, high = row.low / row.margin, row.high / row.margin
        ax.plot([low, high], [place, place], color="0.3", lw=2)
        ax.plot((low + high) / 2, place, "o", color=COLORS[row.word], markeredgecolor="0.3")
        where = {"xycoords": ax.get_yaxis_transform(), "va": "center", "annotation_clip": False}
        ax.annotate(row.word, (1.02, place), **where)
    ax.set_yticks(range(len(rows)), rows.name)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_xlabel("difference in units of the margin (grey band)")


def _markdown(table):
    escaped = table.astype(str).map(lambda text: text.replace("|", "\\|"))  # a bar would end a cell
    return escaped.to_markdown(index=False, disable_numparse=True)
