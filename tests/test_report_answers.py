"""Answers from templates: every name filled, every value used, every number that of the records."""

import pandas as pd
import pytest
from answers import differences, literal_numbers

from snipkit.study import notebooks, report
from snipkit.study.report import answers

GAP = pd.Series([33.0, 35.0, 37.0])
TEXT = """At 98 %, random masks are {{ gap }} points worse
(n = {{ gap.n }}; about {{ gap.mean }}). $\\frac{a}{b}$
"""


@pytest.fixture(autouse=True)
def template(tmp_path, monkeypatch):
    """A template in a folder of the test's own."""
    monkeypatch.setattr(answers, "folder", lambda: tmp_path)
    (tmp_path / "page.md").write_text(TEXT)
    return tmp_path / "page.md"


def test_numbers_by_seed_are_written_with_their_interval():
    text = report.fill("page", {"gap": GAP})
    assert (
        text
        == "At 98 %, random masks are 35.0 ± 5.0 points worse\n(n = 3; about 35.0). $\\frac{a}{b}$"
    )
    assert "35.00 ± 4.97 points" in report.fill("page", {"gap": report.Estimate(GAP, 2)})


def test_a_page_shows_markdown_and_says_when_its_words_are_of_another_scale():
    shown = report.render("page", {"gap": GAP})
    assert shown._repr_markdown_() == report.fill("page", {"gap": GAP})
    lesson = report.render("page", {"gap": GAP}, "lesson")._repr_markdown_()
    assert lesson.startswith("*The numbers are of the profile lesson") and "35.0 ± 5.0" in lesson


def test_the_sentences_are_written_for_the_profile_that_the_notebooks_show():
    assert answers.WRITTEN_FOR == notebooks.WRITTEN


def test_what_is_not_on_record_is_said():
    assert "random masks are (not on record) points worse\n(n = 0;" in report.fill(
        "page", {"gap": GAP[:0]}
    )
    assert report.Estimate(GAP[:0]).range == "(not on record)"
    assert report.Estimate(GAP, 0).range == "33 to 37"
    assert (report.Estimate(GAP, 0).lowest, report.Estimate(GAP).highest) == ("33", "37.0")
    assert report.Estimate(GAP[:0]).lowest == report.Estimate(GAP[:0]).highest == "(not on record)"
    assert (
        str(report.Estimate(-GAP)) == "-35.0 ± 5.0" and report.Estimate(-GAP).size == "35.0 ± 5.0"
    )


@pytest.mark.parametrize(
    "values, says",
    [
        ({}, "placeholders without a value: gap"),
        ({"gap": GAP, "other": 3}, "no placeholder for: other"),
        ({"gap": "text"}, "has no attribute 'n'"),
    ],
)
def test_a_name_that_is_forgotten_is_an_error(values, says):
    with pytest.raises(ValueError, match=says):
        report.fill("page", values)


def test_a_broken_template_is_one_error_that_names_the_file(template):
    template.write_text("At 98 % {{ gap points")
    with pytest.raises(ValueError, match="page.md: expected token"):
        report.fill("page", {"gap": GAP})


def test_a_number_without_digits_and_a_missing_template_are_errors():
    with pytest.raises(TypeError, match="gap is a float"):
        report.fill("page", {"gap": 35.123456})
    with pytest.raises(FileNotFoundError, match="write the answer there"):
        report.fill("pgae", {})


def test_each_number_of_a_page_is_compared_with_the_records():
    text = report.fill("page", {"gap": GAP})
    assert differences(text, "page", {"gap": GAP}) == []
    (line,) = differences(text.replace("± 5.0", "± 4.9"), "page", {"gap": GAP})
    assert "4.9 on the page, 5.0 by the records" in line
    assert differences(text.replace("(n = 3", "(n"), "page", {"gap": GAP}) == [
        "4 numbers on the page, 5 by page.md"
    ]


def test_numbers_written_by_hand_are_listed(template):
    assert literal_numbers("page") == ["98"]
    template.write_text(TEXT + "It is 35.0 ± 5.0.")
    assert literal_numbers("page") == ["98", "35.0", "5.0"]
