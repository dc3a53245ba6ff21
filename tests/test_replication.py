"""REPLICATION.md: what it shows of each claim."""

import pytest

from snipkit.study import paper
from snipkit.study.report import judging, registered, replication


@pytest.fixture(scope="module")
def claims():
    return registered.table(recorded={})


def test_every_claim_is_counted_once_on_the_scoreboard(claims):
    board = replication.scoreboard(claims)
    assert len(board) == 13
    counts = board[[*judging.WORDS, replication.RUNNING]].replace("", 0).sum()
    assert counts.sum() == len(claims) == 42
    assert replication.summary(claims).endswith(f"in progress {counts[replication.RUNNING]}")


def test_a_claim_stands_beside_what_others_found(claims):
    rows = replication.rows(claims, paper.earlier_verdicts()).set_index("the paper says")
    row = rows.loc["LeNet-300-100, SNIP 95 %: test error, %"]
    assert row.word == "0 of 10 runs"
    assert row.others.startswith("2.09 (3); 2.64 (3)")
    assert set(paper.table("others").claim) <= set(claims.claim)


def test_no_claim_of_the_paper_is_left_out(claims):
    known = set(paper.table("claims").claim)
    assert known - set(claims.claim) == {replication.DESIGNED_HERE}


def test_the_picture_has_a_square_for_each_claim_and_an_interval_where_there_is_one(claims):
    (squares,) = replication.draw(claims).axes
    assert len(squares.collections) - len(squares.get_legend().get_texts()) == len(claims)
    judged = (
        claims.assign(low=-0.1, high=0.1).iloc[:3].assign(word=[judging.AGREES, "", judging.OPEN])
    )
    intervals = replication.draw(judged).axes[1]
    labels = [text.get_text() for text in intervals.get_yticklabels()]
    assert labels == ["Table 1, LeNet-300-100, dense", "Table 1, LeNet-300-100, SNIP 98 %"]
