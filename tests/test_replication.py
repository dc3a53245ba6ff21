"""REPLICATION.md: what it shows of each claim."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from snipkit.study import paper
from snipkit.study.report import judging, registered, replication, reproductions
from snipkit.study.train import registration


@pytest.fixture(scope="module")
def claims():
    return registered.table(recorded={})


def test_every_claim_is_counted_once_on_the_scoreboard(claims):
    board = replication.scoreboard(claims)
    assert len(board) == 13
    counts = board[[*judging.WORDS, replication.WAITING]].replace("", 0).sum()
    assert counts.sum() == len(claims) == 42
    assert replication.summary(claims).endswith(f"waiting {counts[replication.WAITING]}")


def test_a_training_that_two_claims_share_counts_once(claims):
    (dense, *_) = registration.claim_runs([registration.settings()[0]])
    sharing = [claims.planned[0], claims.planned[6]]  # table 1's dense network, and figure 1a
    assert sharing == [10, 30]
    assert replication.counts(claims, recorded={dense.id}) == {
        "claims": "42",
        "done": "1",
        "planned": "267",
        "trained": "none has a word yet",
        "words": replication.summary(claims),
    }


def test_a_claim_stands_beside_what_others_found(claims):
    rows = replication.rows(claims, paper.earlier_verdicts()).set_index("the paper says")
    row = rows.loc["LeNet-300-100, SNIP 95 %: test error, %"]
    assert row.word == "0 of 10 runs"
    assert row.others == (
        "authors' code 2.09 (momentum), 2.64 (plain SGD), 3.12 (defaults); others 2.23, 2.16"
    )
    assert rows.exploratory["LeNet-5-Caffe, SNIP 98 %: test error, %"].endswith("shorter training")
    assert set(paper.table("others").claim) <= set(claims.claim)


def test_the_report_has_each_claim_once_under_the_table_or_figure_that_makes_it(claims):
    rows = replication.rows(claims, paper.earlier_verdicts())
    parts = replication.by_item(rows).split("### ")[1:]
    assert [part.partition(":")[0] for part in parts] == list(replication.ABOUT)
    figure_1 = parts[list(replication.ABOUT).index("Figure 1")]
    for row in rows.itertuples():
        (part,) = [part for part in parts if f"| {row[2]} " in part]
        assert (part is figure_1) == row.where.startswith("Figure 1")
    assert "| Figure 1a " in figure_1 and "margin 0.1" in figure_1
    heading = next(line for line in figure_1.splitlines() if line.startswith("|"))
    assert "others" not in heading  # nothing stands in this column


def test_the_numbers_in_the_notes_are_those_of_the_paper():
    dots = paper.table("figure1").query("model == 'lenet-300-100' and sparsity == 0").error
    assert f"with {dots.mean():.2f}, the mean" in replication.NOTES["Table 1"]
    *counts, last = paper.table("table4").kept_printed
    assert f"Printed: {', '.join(counts)} and {last}." in replication.NOTES["Table 4"]


def test_no_claim_of_the_paper_is_left_out(claims):
    known = set(paper.table("claims").claim)
    assert known - set(claims.claim) == {replication.DESIGNED_HERE}


def test_the_picture_has_a_square_for_each_claim_and_an_interval_where_there_is_one(claims):
    (squares,) = replication.draw(claims).axes
    assert len(squares.patches) == 2 * len(claims)  # a square, and in it the share that is done
    judged = (
        claims.assign(low=-0.1, high=0.1).iloc[:3].assign(word=[judging.AGREES, "", judging.OPEN])
    )
    intervals = replication.draw(judged).axes[1]
    labels = [text.get_text() for text in intervals.get_yticklabels()]
    assert labels == ["Table 1, LeNet-300-100, dense", "Table 1, LeNet-300-100, SNIP 98 %"]


def test_the_rule_in_words_has_all_words():
    assert tuple(judging.rule().index) == judging.WORDS


def test_ours_the_authors_code_and_others_stand_apart(claims):
    found = reproductions.errors(claims, paper.earlier_verdicts())
    row = found[found.network == "LeNet-300-100, 95 %"]
    by_source = {source: list(part.error) for source, part in row.groupby("source")}
    assert by_source == {
        reproductions.OURS: [2.06],
        reproductions.AUTHORS: [2.09, 2.64, 3.12],
        reproductions.PUBLISHED: [2.23, 2.16],
    }
    assert set(row.printed) == {1.6}
    as_long = row[row.full]
    assert list(as_long.error) == [2.06, 2.09, 2.64]  # 10,000 steps and other people's are not


def test_registered_errors_are_shown_when_there_are_any(claims):
    complete = claims.assign(mean=2.1, sd=0.084, planned=10)  # 0.084: it must not be rounded
    found = reproductions.errors(complete, paper.earlier_verdicts())
    registered_rows = found[found.protocol == reproductions.REGISTERED]
    assert set(registered_rows.error) == {2.1} and len(registered_rows) == 18
    # Student's t with nine degrees of freedom; not the interval of the difference, which is wider.
    assert registered_rows.half.round(4).eq(round(2.2622 * 0.084 / 10**0.5, 4)).all()
    assert not len(
        found[(found.source == reproductions.OURS) & (found.protocol != reproductions.REGISTERED)]
    )
    assert reproductions.REGISTERED not in set(
        reproductions.errors(claims, paper.earlier_verdicts()).protocol
    )


def test_a_table_to_read_has_a_column_for_each_source_and_protocol(claims):
    found = reproductions.errors(claims, paper.earlier_verdicts())
    table = reproductions.side_by_side(found[found.table == "Table 1, MNIST"])
    assert table.index[1] == ("LeNet-300-100, 95 %", 1.6)
    row = table.loc[("LeNet-300-100, 95 %", 1.6)]
    assert row[reproductions.OURS, "the paper's protocol"] == "2.06 ± 0.22 (3)"
    assert row[reproductions.AUTHORS, "momentum, 100,000 steps"] == "2.09 (3)"
    sources = list(dict.fromkeys(source for source, _ in table.columns))
    assert sources == list(reproductions.SOURCES)


def test_each_error_is_drawn_as_far_from_0_as_it_is_from_the_printed_one(claims):
    found = reproductions.errors(claims, paper.earlier_verdicts())
    row = found[(found.network == "LeNet-300-100, 95 %") & (found.source == reproductions.OURS)]
    ax = reproductions.draw(row).axes[0]
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([2.06 - 1.6])
    authors = found[(found.source == reproductions.AUTHORS) & found.full]
    ax = reproductions.draw(authors[authors.network == "LeNet-300-100, 95 %"]).axes[0]
    assert [line.get_marker() for line in ax.lines[:2]] == ["^", "v"]  # with momentum, without
    defaults = found[found.protocol.str.contains("defaults")]
    others = found[~found.layers]
    for rows, marker in ((defaults, "v"), (others, "x")):
        marks = (
            reproductions.draw(rows).axes[0].lines[: len(rows[rows.table == rows.table.iloc[0]])]
        )
        assert {line.get_marker() for line in marks} == {marker}
    assert set(others.source) == {reproductions.PUBLISHED}
    plt.close("all")


def test_intervals_are_drawn_in_units_of_their_margins():
    rows = pd.DataFrame({"name": ["A"], "low": [0.1], "high": [0.3], "margin": [0.2]})
    _, ax = plt.subplots()
    replication.draw_intervals(ax, rows.assign(word=judging.OPEN))
    assert list(ax.lines[0].get_xdata()) == pytest.approx([0.5, 1.5])
    assert [text.get_text() for text in ax.texts] == [judging.OPEN]
    plt.close("all")
