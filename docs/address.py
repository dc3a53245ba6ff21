"""The project's public address, and what is made from it: badges, links, the cell for Colab.

It stands in one place, `[project.urls]` of pyproject.toml. While it is not known, nothing is made.
`python docs/address.py` puts the badges on the front page, or takes them off.
"""

import os
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
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


def colab_cell(address: str) -> str:
    """What a reader runs first in Colab; "" while there is no address.

    It takes a clone, not the package alone: with its records on disk a notebook trains nothing
    anew.
    """
    if not address:
        return ""
    folder = address.rpartition("/")[2]
    return f"!git clone -q --depth 1 {address}\n%cd {folder}\n%pip install -q '.[study]'"


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(with_badges(text, repository()), encoding="utf-8")
    print(f"{README.name}: {badges(repository()) or 'no badges, the address is not known'}")
