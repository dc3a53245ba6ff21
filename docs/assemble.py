"""Put the source of the site together in build/site-source: pages, notebooks with folded code,
solutions, the slider.

The notebooks stay where and as they are. A file is written only if it changed, so that Sphinx
builds no page twice.
"""

import json
import os
import re
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))
import address  # noqa: E402

REPOSITORY = address.repository()

SOLUTIONS = DOCS / "solutions"
# `make site SOLUTIONS=no` is for students: no solutions of exercises, homework and labs.
WITH_SOLUTIONS = os.environ.get("SOLUTIONS") != "no"
TARGET = ROOT / "build" / "site-source"
BROKEN: list[str] = []  # links
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb")) + sorted(
    (ROOT / "notebooks" / "labs").glob("*.ipynb")
)
if not WITH_SOLUTIONS:
    NOTEBOOKS = [path for path in NOTEBOOKS if not path.stem.endswith("_solution")]
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "REPLICATION.md", ROOT / "REGISTRATION.md"]


def place(source: Path) -> Path | None:
    """Where a file of the repository is on the site, relative to its root.

    None if it is not a page of it.
    """
    if source.parent == SOLUTIONS:  # they are on the page of their exercises
        source = next((page for page in [*NOTEBOOKS, *PAGES] if page.stem == source.stem), source)
    if source in NOTEBOOKS:
        return source.relative_to(ROOT)
    return (
        Path(source.name.lower() if source.parent == ROOT else source.name)
        if source in PAGES
        else None
    )


def is_solution(file: Path) -> bool:
    """Whether a file answers exercises, homework or labs."""
    return SOLUTIONS in (file, file.parent) or file.stem.endswith("_solution")


def relinked(text: str, source: Path, page: Path) -> str:
    """Markdown with its relative links as the site needs them.

    To a page of the site, or to the repository.
    """

    def link(match):
        picture, label, target, anchor = (
            match["picture"],
            match["label"],
            match["target"],
            match["anchor"] or "",
        )
        file = Path(os.path.normpath(source.parent / target))
        if not file.exists():
            BROKEN.append(
                f"{source.relative_to(ROOT)}: link to {target}, and there is no such file"
            )
            return label
        if picture:
            copy = Path("pictures", *file.relative_to(ROOT).parts)
            (TARGET / copy).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, TARGET / copy)
            return f"![{label}]({os.path.relpath(copy, page.parent)})"
        if not WITH_SOLUTIONS and is_solution(file):
            return label
        if (on_site := place(file)) is not None:
            return f"[{label}]({os.path.relpath(on_site, page.parent)}{anchor})"
        if not REPOSITORY:
            return label  # nobody knows where the repository is: its own readers have the file
        kind = "tree" if file.is_dir() else "blob"
        return f"[{label}]({REPOSITORY}/{kind}/main/{file.relative_to(ROOT)}{anchor})"

    text_of_link = r"(?P<picture>!?)\[(?P<label>[^\]\n]*)\]"
    address = r"\((?P<target>[\w./-]*[./][\w./-]+)(?P<anchor>#[\w-]+)?\)"
    return re.sub(text_of_link + address, link, text)


def with_references(text: str, page: Path) -> str:
    """ "law 4" and "`rq1`" as links to the law and the notebook, unless the page is that of the
    laws.
    """
    if page.stem == "laws":
        return text
    laws = os.path.relpath("laws.md", page.parent)
    text = re.sub(r"(?<!\[)\blaw (\d+)\b", rf"[law \1]({laws}#law-\1)", text)
    for notebook in NOTEBOOKS:
        name = notebook.stem.partition("_")[0]
        if notebook.parent.name == "notebooks":
            text = re.sub(
                rf"(?<!\[)`{name}`",
                f"[`{name}`]({os.path.relpath(place(notebook), page.parent)})",
                text,
            )
    return text


def linked(text: str, source: Path, page: Path) -> str:
    """Both, outside of blocks of code."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)
    parts[::2] = [with_references(relinked(part, source, page), page) for part in parts[::2]]
    return "".join(parts)


def draws(cell: dict) -> bool:
    """Whether a cell's code is there for a figure or a table, not for the method."""
    tags = cell["metadata"].get("tags", [])
    return "grid" not in tags and (
        "figure" in tags or re.search(r"\bfigures\.\w+\(", cell["source"]) is not None
    )


def folded(solutions: str) -> str:
    """Solutions, one "## …" section an exercise, as boxes that open with a click."""
    fence, box, lines = False, False, []
    for line in solutions.splitlines():
        fence ^= line.startswith("```")
        heading = None if fence else re.match(r"(#+) (.*)", line)
        if heading and heading[1] == "##":
            lines += ["::::::", ""] * box + [f"::::::{{dropdown}} {heading[2]}"]
            box = True
        elif heading:
            lines += ["", f"**{heading[2]}**", ""] if len(heading[1]) > 2 else []
        else:
            lines.append(line)
    return "\n".join(lines + ["::::::"] * box) + "\n"


def notebook(source: Path) -> str:
    """A notebook with its figure code folded, its references linked, its solutions at the end."""
    content = json.loads(source.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = linked(cell["source"], source, place(source))
        elif draws(cell):
            cell["metadata"]["tags"] = [*cell["metadata"].get("tags", []), "hide-input"]
    if answers := solutions(source):
        markdown = {"cell_type": "markdown", "id": "solutions", "metadata": {}, "source": answers}
        content["cells"].append(markdown)
    return json.dumps(content, ensure_ascii=False)


def page(source: Path) -> str:
    """A Markdown page; the slider goes where the page says so."""
    text = (
        linked(source.read_text(encoding="utf-8"), source, place(source)) + "\n" + solutions(source)
    )
    text = re.sub(
        r"^[\w/]+\*\n", lambda line: line[0] if matches(line[0].strip()) else "", text, flags=re.M
    )
    return text.replace("<!-- slider -->", slider()) if "<!-- slider -->" in text else text


def solutions(source: Path) -> str:
    """The folded solutions of a page's exercises, if there are any."""
    answers = SOLUTIONS / f"{source.stem}.md"
    if not (WITH_SOLUTIONS and answers.exists()):
        return ""
    text = folded(answers.read_text(encoding="utf-8"))
    return f"## Solutions\n\n{linked(text, answers, place(source))}"


def matches(pattern: str) -> bool:
    """Whether a line of a table of contents stands for any page.

    Sphinx warns of one that does not.
    """
    return any(
        fnmatch(str(place(source).with_suffix("")), pattern) for source in [*PAGES, *NOTEBOOKS]
    )


def slider() -> str:
    numbers = (DOCS / "slider.json").read_text(encoding="utf-8").strip()
    html = (DOCS / "slider.html").read_text(encoding="utf-8").replace("DATA", numbers)
    return f"```{{raw}} html\n{html}\n```"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def main() -> None:
    made = {TARGET / place(source): notebook(source) for source in NOTEBOOKS}
    made |= {TARGET / place(source): page(source) for source in PAGES}
    for path, text in made.items():
        write(path, text)
    for path in [*TARGET.rglob("*.md"), *TARGET.rglob("*.ipynb")]:
        if path not in made:
            path.unlink()  # its source is gone
    sys.exit("\n".join(BROKEN) or 0)


if __name__ == "__main__":
    main()
