"""Sphinx settings of the site; `make site` builds it into build/site/ from what docs/assemble.py has put together."""

import os
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# The workflow that publishes the site passes its own address, so a fork's badges open the fork.
REPOSITORY = os.environ.get("REPOSITORY") or METADATA["urls"]["Repository"]

project, release = METADATA["name"], METADATA["version"]
author = project_copyright = METADATA["authors"][0]["name"]
extensions = [
    "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinx_design", "sphinx_togglebutton",
]  # fmt: skip

nb_execution_mode = "off"  # outputs as committed
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "snipkit"
html_static_path = ["_static", "../build/mathjax"]
html_css_files = ["snipkit.css"]
templates_path = ["_templates"]
mathjax_path = "tex-svg-full.js"  # in build/mathjax, from npm: no reader's browser asks a CDN
html_show_sourcelink = False
html_copy_source = False
html_context = {
    "repository": REPOSITORY,
    "on_github": REPOSITORY.removeprefix("https://github.com/"),
    # A clone, not the package alone: with its records on disk a notebook trains nothing anew.
    "install": f"!git clone -q --depth 1 {REPOSITORY}\n%cd {REPOSITORY.rpartition('/')[2]}\n%pip install -q .",
}
copybutton_exclude = ".linenos, .gp, .go"
togglebutton_hint, togglebutton_hint_hide = "Show", "Hide"

linkcheck_ignore = [rf"{REPOSITORY}.*"] if "OWNER" in REPOSITORY else []
