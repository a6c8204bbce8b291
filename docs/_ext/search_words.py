"""The name of the file of a page is what people search for: the search finds that page first."""

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def add_words(app: Sphinx, doctree: nodes.document) -> None:
    """Main entries of the index, which Sphinx's search puts before all else."""
    name = app.env.docname.removesuffix("/index").rpartition("/")[2]
    words = dict.fromkeys([name, name.replace("_", " ")])
    entries = [("single", word, "", "main", None) for word in words]
    doctree.insert(0, addnodes.index(entries=entries))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", add_words)
    return {"parallel_read_safe": True}
