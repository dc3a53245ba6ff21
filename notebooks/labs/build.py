"""Make the two twins of every lab from its source: ``make labs``.

A source is a Python file in jupytext's percent format. In the student's twin every block between
``# BEGIN SOLUTION`` and ``# END SOLUTION``, and every value before ``# SOLUTION``, becomes ``...``,
and cells tagged ``solution`` are left out. The solution twin has all of it, without the marks, and
is executed. (nbgrader has such marks, too, but with them a web server and a database of grades.)
"""

import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1] / "docs"))
import address  # noqa: E402

SOURCES = sorted((FOLDER / "source").glob("*.py"))
BLOCK = re.compile(r"^( *)# BEGIN SOLUTION\n(.*?)^ *# END SOLUTION$", re.MULTILINE | re.DOTALL)
VALUE = re.compile(r"^(\w+) = .*?(  #.*)?  # SOLUTION$", re.MULTILINE)


def twins(source: Path) -> dict[str, nbformat.NotebookNode]:
    """File name → notebook without outputs, for the student's and the solution twin."""
    return {
        f"{source.stem}.ipynb": _twin(source, student),
        f"{source.stem}_solution.ipynb": _twin(source, solution),
    }


def student(code: str) -> str:
    """The code without its answers."""
    return VALUE.sub(r"\1 = ...\2", BLOCK.sub(r"\1...  # your code", code))


def solution(code: str) -> str:
    """The code without the marks."""
    return re.sub(
        "  # SOLUTION$", "", BLOCK.sub(lambda found: found[2].rstrip(), code), flags=re.MULTILINE
    )


def _twin(source, edited):
    notebook = jupytext.read(source)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
    }
    if edited is student:
        notebook.cells = [
            cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", [])
        ]
    else:  # two entries of one name would stand in a list of pages
        title = notebook.cells[0]
        title.source = re.sub(r"^# (Lab \d+):", r"# \1, solution:", title.source)
    for number, cell in enumerate(notebook.cells):
        # What nbval must know of an executed cell: that it trains, or that no two machines agree.
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != "solution"]
        cell.id = f"cell-{number:02d}"
        cell.metadata = {"tags": tags} if tags else {}
        cell.source = edited(cell.source)
    with_cell = address.with_colab_cell(notebook, address.repository(), "notebooks/labs")
    return nbformat.from_dict(with_cell)


def main() -> None:
    """Write all twins; run those with solutions."""
    from nbclient import NotebookClient

    from snipkit.study import notebooks

    os.environ["OMP_NUM_THREADS"] = "1"  # the number of threads moves the last digits
    for source in SOURCES:
        for name, notebook in twins(source).items():
            if name.endswith("_solution.ipynb"):
                with notebooks.kernel_config() as config:
                    resources = {"metadata": {"path": str(FOLDER)}}
                    NotebookClient(
                        notebook, resources=resources, record_timing=False, config=config
                    ).execute()
                notebook.metadata.pop("language_info", None)
            nbformat.write(notebook, FOLDER / name)


if __name__ == "__main__":
    main()
