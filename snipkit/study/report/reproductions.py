"""Tables 1 and 2 of the paper beside everybody else's numbers.

Ours, those of the authors' code that we ran ourselves, and those that other people published.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D
from scipy.stats import t

from snipkit.study import paper

OURS, AUTHORS, PUBLISHED = "ours", "authors' code, run here", "published by others"
SOURCES = (OURS, AUTHORS, PUBLISHED)
FULL_LENGTH = "100,000 steps"  # what the paper's protocol is taken to be on MNIST
#: protocol of the exploratory runs, by the scale that they belong to
EXPLORATORY = {"paper": "the paper's protocol", "overnight": "shorter training"}
REGISTERED = "registered runs"
OTHER_LAYERS = "layer"  # in the protocols of networks that are not built as the paper's
_STYLES = {OURS: ("#0173B2", "o"), AUTHORS: ("#D55E00", "^"), PUBLISHED: ("#029E73", "s")}
LEGEND = [  # text, source, marker, whether it is filled
    ("ours", OURS, "o", True),
    ("authors' code, momentum, 100,000 steps", AUTHORS, "^", True),
    ("authors' code, plain SGD, 100,000 steps", AUTHORS, "v", True),
    ("authors' code, its defaults, 10,000 steps", AUTHORS, "v", False),
    ("published by others", PUBLISHED, "s", False),
    ("published by others, of networks with other layers", PUBLISHED, "x", True),
    ("filled: trained as long as the paper's", None, "o", True),
    ("hollow: trained otherwise", None, "o", False),
]


def errors(claims: pd.DataFrame, earlier: pd.DataFrame) -> pd.DataFrame:
    """The test errors that were reached where tables 1 and 2 print one: a row an error.

    Args:
        claims: what ``registered.table`` gave. Registered runs count where all of them are done.
        earlier: what ``paper.earlier_verdicts`` gave: exploratory runs.

    Returns:
        DataFrame with the columns "table" (with its data, "Table 1, MNIST"), "network" (and the
        share removed), "printed", "source" (one of ``SOURCES``), "protocol", "error" (per cent),
        "half" (of the 95 % interval of the mean; NaN where it is not known), "n" (runs), "full"
        (whether the training is as long as the paper's) and "layers" (whether the network has the
        paper's layers).
    """
    reported = paper.table("others")
    lines = []
    for claim in claims[claims["says"].str.contains(": test error")].itertuples():
        if not claim.claim.startswith(("table1-", "table2-")):
            continue
        network, data = network_and_data(claim.says)
        about = [f"{claim.where}, {data}", network.replace("SNIP ", ""), float(claim.printed)]
        for row in _ours(claim, earlier.loc[claim.claim]):
            lines.append([*about, OURS, *row, True])
        for row in reported[reported.claim == claim.claim].itertuples():
            by_authors = row.source == "authors' code"
            protocol = row.protocol if by_authors else row.source
            full = by_authors and FULL_LENGTH in row.protocol
            source = AUTHORS if by_authors else PUBLISHED
            layers = OTHER_LAYERS not in row.protocol
            number = [row.error, float("nan"), row.n, full, layers]
            lines.append([*about, source, protocol, *number])
    columns = ["table", "network", "printed", "source", "protocol"]
    return pd.DataFrame(lines, columns=[*columns, "error", "half", "n", "full", "layers"])


def network_and_data(says: str) -> tuple[str, str]:
    """Of a claim on a test error: "VGG-C, SNIP 95 %: test error on CIFAR-10, %" has CIFAR-10."""
    network, _, measured_on = says.partition(": test error")
    return network, measured_on.removesuffix(", %").removeprefix(" on ") or "MNIST"


def _ours(claim, exploratory):
    """(protocol, error, half of its interval, n, whether as long as the paper's) of our runs.

    The registered ones where they are complete, else the exploratory ones.
    """
    if pd.notna(claim.mean):
        half = t.ppf(0.975, claim.planned - 1) * claim.sd / claim.planned**0.5
        return [[REGISTERED, claim.mean, half, claim.planned, True]]
    if exploratory.here:
        error, _, half = exploratory.here.partition(" ± ")
        full = exploratory.scale == "paper"
        protocol = EXPLORATORY[exploratory.scale]
        return [[protocol, float(error), float(half), int(exploratory.n), full]]
    return []


def side_by_side(numbers: pd.DataFrame) -> pd.DataFrame:
    """The errors as a table to read: a row a printed number, a column a source and protocol.

    Args:
        numbers: what ``errors`` gave, or the rows of one table of the paper.
    """
    texts = []
    for row in numbers.itertuples():
        text = f"{row.error:.2f}"
        if pd.notna(row.half):
            text += f" ± {row.half:.2f}"
        texts.append(f"{text} ({row.n})")
    keys = ["network", "printed"]
    wide = numbers.assign(text=texts).pivot(
        index=keys, columns=["source", "protocol"], values="text"
    )
    in_order = numbers[["source", "protocol"]].drop_duplicates()
    in_order = in_order.sort_values(
        "source", key=lambda names: names.map(SOURCES.index), kind="stable"
    )
    rows = numbers[keys].drop_duplicates().itertuples(index=False, name=None)
    return wide.reindex(index=list(rows), columns=list(in_order.itertuples(index=False, name=None)))


def draw(numbers: pd.DataFrame):
    """How far each error lies from the printed one, which is the line at 0.

    A panel a table and data set, a row a network. Filled marks: trained as long as the paper. A
    cross: a network that has other layers than the paper's.

    Args:
        numbers: what ``errors`` gave.

    Returns:
        The figure.
    """
    tables = list(dict.fromkeys(numbers.table))
    figure, axes = plt.subplots(
        2, 2, figsize=(9, 6), height_ratios=[6, 4], squeeze=False, layout="constrained"
    )
    for ax, table in zip(axes.flat, tables):
        _draw_table(ax, numbers[numbers.table == table])
        ax.set(title=table, xlabel="test error minus the printed one, points")
    for ax in axes.flat[len(tables) :]:
        ax.axis("off")
    _explain(axes.flat[-1])
    return figure


def _draw_table(ax, numbers):
    networks = list(dict.fromkeys(numbers.network))
    for row in numbers.itertuples():
        color, marker = _STYLES[row.source]
        if row.source == AUTHORS and "momentum" not in row.protocol:  # nor have its defaults
            marker = "v"
        if not row.layers:
            marker = "x"
        place = networks.index(row.network) + 0.26 * (SOURCES.index(row.source) - 1)
        difference = row.error - row.printed
        if pd.notna(row.half):
            ax.hlines(place, difference - row.half, difference + row.half, color=color, lw=1.2)
        face = color if row.full else "white"
        ax.plot(difference, place, marker, color=color, markerfacecolor=face, markersize=6)
    ax.axvline(0, color="black", lw=1)
    ax.set_yticks(range(len(networks)), networks)
    ax.set_ylim(len(networks) - 0.5, -0.5)


def _explain(ax):
    """The legend."""
    handles = [Line2D([], [], color="black", lw=1, label="printed in the paper")]
    for label, source, marker, filled in LEGEND:
        color = _STYLES[source][0] if source else "0.4"
        face = color if filled else "white"
        mark = Line2D([], [], color=color, marker=marker, ls="", label=label)
        mark.set_markerfacecolor(face)
        handles.append(mark)
    ax.legend(handles=handles, loc="center")
