"""Sphinx settings of the site.

`make site` builds it into build/site/ from what docs/assemble.py has put together.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import address

import snipkit

REPOSITORY = address.repository()

project, release = "snipkit", snipkit.__version__
author = project_copyright = "The snipkit authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_togglebutton",
]

nb_execution_mode = "off"  # outputs as committed
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
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
    "on_github": address.on_github(REPOSITORY),
    "install": address.colab_cell(REPOSITORY),
    "install_lab": address.colab_cell(REPOSITORY, "notebooks/labs"),
}
copybutton_exclude = ".linenos, .gp, .go"
togglebutton_hint, togglebutton_hint_hide = "Show", "Hide"
