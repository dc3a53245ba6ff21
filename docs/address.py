"""The project's public address, and what is made from it: badges, links, the cell for Colab.

It stands in one place, `[project.urls]` of pyproject.toml. While it is not known, nothing is made.
`python docs/address.py` puts badges on the front page and a first cell for Colab into every page,
or takes them off; `make labs` does so for the labs.
"""

import json
import os
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TAG = "colab"
FIRST_NOTEBOOK = "notebooks/00_snip_in_ten_minutes.ipynb"


def repository() -> str:
    """The address of the repository; "" while it is not known.

    The workflow that publishes the site sets $REPOSITORY, so a fork's links open the fork.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = os.environ.get("REPOSITORY") or project.get("urls", {}).get("Repository", "")
    return address.rstrip("/")


def on_github(address: str) -> str:
    """The "owner/name" of an address."""
    return address.removeprefix("https://github.com/")


def badges(address: str) -> str:
    """One line of Markdown: the tests' state, and the first notebook in Colab and Binder."""
    if not address:
        return ""
    workflow = f"{address}/actions/workflows/tests.yml"
    colab = f"https://colab.research.google.com/github/{on_github(address)}/blob/main"
    binder = f"https://mybinder.org/v2/gh/{on_github(address)}/main"
    return (
        f"[![tests]({workflow}/badge.svg)]({workflow}) "
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"({colab}/{FIRST_NOTEBOOK}) "
        "[![Open in Binder](https://mybinder.org/badge_logo.svg)]"
        f"({binder}?labpath={FIRST_NOTEBOOK.replace('/', '%2F')})"
    )


def with_badges(page: str, address: str) -> str:
    """The front page with the badges of this address, and no others, under its title."""
    title, *lines = page.splitlines()
    while lines and (not lines[0] or lines[0].startswith("[![")):
        del lines[0]
    head = [title, "", badges(address), ""] if address else [title, ""]
    return "\n".join([*head, *lines]) + "\n"


def colab_cell(address: str, folder: str = "notebooks") -> str:
    """What a notebook runs first in Colab; "" while there is no address.

    It takes a clone, not the package alone: with its records on disk a notebook trains nothing
    anew, and the labs need the checks that lie beside them.

    Args:
        folder: of the notebook, in the project.
    """
    if not address:
        return ""
    clone = address.rpartition("/")[2]
    return f"""\
# In Colab this clones {address}, with its records,
# and installs snipkit[study] from the clone. Where snipkit is installed, it does nothing.
import importlib.util

if importlib.util.find_spec("snipkit") is None:
    !git clone -q --depth 1 {address}
    %pip install -q "./{clone}[study]"
    %cd -q {clone}/{folder}"""


def with_colab_cell(notebook: dict, address: str, folder: str = "notebooks") -> dict:
    """A notebook, as JSON has it, with this cell behind its title; without it for no address."""
    cells = [cell for cell in notebook["cells"] if TAG not in cell["metadata"].get("tags", [])]
    if address:
        cell = {
            "cell_type": "code",
            "execution_count": 0,  # nbval takes None for a cell that was forgotten
            "id": TAG,
            "metadata": {"tags": [TAG]},
            "outputs": [],
            "source": colab_cell(address, folder).splitlines(keepends=True),
        }
        cells.insert(1, cell)
    return notebook | {"cells": cells}


def main() -> None:
    """Badges on the front page and the cell in every page, or neither."""
    known = repository()
    text = README.read_text(encoding="utf-8")
    README.write_text(with_badges(text, known), encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        changed = with_colab_cell(notebook, known)
        if changed != notebook:
            text = json.dumps(changed, indent=1, ensure_ascii=False)
            path.write_text(f"{text}\n", encoding="utf-8")
    print(f"{README.name} and notebooks: {known or 'no badges and no cell, no address is known'}")


if __name__ == "__main__":
    main()
