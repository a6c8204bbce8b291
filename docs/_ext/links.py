"""Links of pages, which are read in the repository, too, and to the pages of the API."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

# A file of the repository, as a page of docs/ links to it, and its page.
PAGE_OF = {
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changelog.md",
}
# The pages that are nothing but such a file.
WHOLE = {page.removesuffix(".md"): file for file, page in PAGE_OF.items()}
PUBLIC = re.compile(r"(?:cl|combined_losses)\.([\w.]+)(?:\(.*\))?$")


def point_to_pages(app: Sphinx, page: str, text: list[str]) -> None:
    """Puts the text of a file into its page, and replaces the targets of links."""
    if page in WHOLE:
        file = (Path(app.srcdir) / WHOLE[page]).resolve()
        app.env.note_dependency(file)
        text[0] = re.sub(r"\]\((?!#|\w+:)", "](../", file.read_text(encoding="utf-8"))
        text[0] = text[0].replace("](../docs/", "](")
    up = "../" * page.count("/")
    for file, target in PAGE_OF.items():
        text[0] = re.sub(rf"\]\({re.escape(up + file)}(?=[)#])", f"]({up}{target}", text[0])


def link_names(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Code such as `cl.losses.Dice` becomes a link to the page of that name."""
    domain = app.env.domains["py"]
    for literal in list(doctree.findall(nodes.literal)):
        found = PUBLIC.match(literal.astext())
        target = found and domain.objects.get(f"combined_losses.{found[1]}")
        inside_link = isinstance(literal.parent, nodes.reference | nodes.title)
        if target and target.docname != page and not inside_link:
            node = literal.deepcopy()
            link = make_refnode(app.builder, page, target.docname, target.node_id, node)
            literal.replace_self(link)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", point_to_pages)
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True}
