"""What tests of the pages' answers share: numbers on a page against those of the records."""

import json
import re

from snipkit.study import notebooks
from snipkit.study.report import answers

NUMBER = re.compile(r"(?<![\w.])[-+−]?\d[\d,]*(?:\.\d+)?")


def shown(page):
    """The texts that a committed notebook's cells write by templates, in order."""
    cells = json.loads((notebooks.folder() / f"{page}.ipynb").read_text())["cells"]
    texts = []
    for cell in cells:
        if "report.render(" in "".join(cell["source"]):
            for output in cell.get("outputs", []):
                if "text/markdown" in output.get("data", {}):
                    texts.append("".join(output["data"]["text/markdown"]))
    return texts


def differences(text, name, values):
    """One line for each number of a text that is not what the template gives with these values."""
    expected = answers.fill(name, values)
    shown_numbers, expected_numbers = list(NUMBER.finditer(text)), list(NUMBER.finditer(expected))
    if len(shown_numbers) != len(expected_numbers):
        return [f"{len(shown_numbers)} numbers on the page, {len(expected_numbers)} by {name}.md"]
    lines = []
    for on_page, from_records in zip(shown_numbers, expected_numbers):
        if on_page.group() != from_records.group():
            before = expected[max(0, from_records.start() - 30) : from_records.start()]
            lines.append(
                f"…{before}: {on_page.group()} on the page, {from_records.group()} by the records"
            )
    return lines


def literal_numbers(name):
    """The numbers written into a template by hand: settings such as 98 %, nothing measured."""
    source = (answers.folder() / f"{name}.md").read_text(encoding="utf-8")
    return NUMBER.findall(re.sub(r"\{\{.*?\}\}|\{%.*?%\}", " ", source))
