"""Links and texts of pages that are read in the repository, too."""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

# A file of the repository, as a page of docs/ links to it, and its page.
PAGE_OF = {
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changelog.md",
}
# The pages that are nothing but such a file.
WHOLE = {page.removesuffix(".md"): file for file, page in PAGE_OF.items()}
TOCTREE = re.compile(r"^:::\{toctree\}\n.*?^:::$", re.MULTILINE | re.DOTALL)


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


def without_missing(app: Sphinx, page: str, text: list[str]) -> None:
    """While pages are being written: takes those that do not exist out of the contents."""
    if page != "index":
        return

    def existing(tree: re.Match[str]) -> str:
        lines = tree[0].splitlines()
        kept = [line for line in lines if line[:1] in {":", ""} or line in app.env.found_docs]
        return "\n".join(kept)

    text[0] = TOCTREE.sub(existing, text[0])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", point_to_pages)
    app.connect("source-read", without_missing)
    return {"parallel_read_safe": True}
