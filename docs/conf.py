"""How Sphinx builds the site (the command is in CONTRIBUTING.md). It fetches nothing."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # also for the kernels of the notebooks

import combined_losses  # noqa: E402

project = "combined_losses"
author = "the authors of combined_losses"
copyright = author
version = release = combined_losses.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx.ext.viewcode",
    "api_pages",
    "gallery",
    "links",
    "search_words",
]
exclude_patterns = ["_ext", "_static"]
nitpicky = True
nitpick_ignore_regex = [
    # None of their inventories is fetched, so that nothing of them can be linked.
    (r"py:.*", r"(keras|tensorflow|tf|jax|torch|numpy|np|pandas|pd|matplotlib)\..*"),
    (
        r"py:.*",
        r"(collections\.abc|contextlib|os|pathlib|typing)\..*|NDArray|DataFrame|Axes|Figure",
    ),
    # Types of ours that only annotations name; what users import has at most two dots.
    (r"py:.*", r"combined_losses\.(_core|\w+\.\w+)\..*"),
]

# Markdown
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # _ext/gallery.py runs the notebooks

# Docstrings
default_role = "code"  # `single backticks` are code, as in Markdown
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_param = False  # a line of a docstring may name several arguments
napoleon_custom_sections = [("Attributes", "params_style")]
python_maximum_signature_line_length = 80

# Looks
html_theme = "furo"
html_title = "combined_losses"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = html_favicon = "_static/logo.svg"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
