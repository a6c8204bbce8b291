"""The pages of README.md and docs/: their links lead somewhere, and each can be found.

Sphinx checks the links of the site when it builds it; here they are checked as they are read in the
repository, without building anything.
"""

import inspect
import re
import sys
from pathlib import Path

import pytest

import combined_losses as cl
from tests.test_readme import BLOCK, ROOT, TEXTS

sys.path.append(str(ROOT / "docs" / "_ext"))

from public import all_entries, public_modules

LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`[^`\n]+`")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
LABEL = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)
TOCTREE = re.compile(r"^:::+\{toctree\}\n(.*?)^:::+$", re.MULTILINE | re.DOTALL)
# Written by docs/_ext when the site is built.
MADE = ("docs/api/", "docs/gallery/")


def prose(text):
    """A page without its code."""
    return CODE.sub("", COMMENT.sub("", BLOCK.sub("", text)))


def slug(heading):
    """The anchor of a heading, as GitHub and MyST make it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(text):
    text = BLOCK.sub("", text)
    return {*map(slug, HEADING.findall(text)), *LABEL.findall(text)}


def local_links(name):
    """Pairs of a link as written and the file that it leads to."""
    for link in LINK.findall(prose(TEXTS[name])):
        path, _, anchor = link.partition("#")
        if not re.match(r"[a-z]+:", link):
            file = (ROOT / name).parent / path if path else ROOT / name
            yield link, file.resolve().relative_to(ROOT).as_posix(), anchor


@pytest.mark.backend_free
@pytest.mark.parametrize("name", TEXTS)
def test_each_link_leads_to_a_file_and_a_heading(name):
    for link, file, anchor in local_links(name):
        if file.startswith(MADE):
            continue
        assert (ROOT / file).exists(), f"{name} links to {link}"
        if anchor and file in TEXTS:
            assert anchor in anchors(TEXTS[file]), f"{name} links to {link}"


@pytest.mark.backend_free
@pytest.mark.parametrize("name", TEXTS)
def test_a_page_has_one_title(name):
    titles = re.findall(r"^# .+$", BLOCK.sub("", TEXTS[name]), re.MULTILINE)
    assert len(titles) == 1, titles


def contents(name):
    """The pages that the tables of contents of a page name."""
    for tree in TOCTREE.findall(TEXTS[name]):
        for line in tree.splitlines():
            if line and not line.startswith(":"):
                entry = re.sub(r"^.*<(.+)>$", r"\1", line).removesuffix(".md")
                yield (Path(name).parent / f"{entry}.md").as_posix()


@pytest.mark.backend_free
def test_each_page_is_in_the_contents_once():
    found, left = [], ["docs/index.md"]
    while left:
        name = left.pop()
        found.append(name)
        left += [page for page in contents(name) if not page.startswith(MADE)]
    assert sorted(found) == sorted(name for name in TEXTS if name.startswith("docs/"))


def public_paths():
    """Every public name, from the `__all__` of the package and of its public modules."""
    held = [getattr(cl, name) for name in cl.__all__]
    for module in (cl, *filter(inspect.ismodule, held)):
        for name in module.__all__:
            yield module, name


def test_each_public_name_has_its_page():
    pages = {entry.thing: entry.page for entry in all_entries()}
    modules = public_modules()
    for module, name in public_paths():
        thing = getattr(module, name)
        if name != "__version__":  # on the page of the package
            assert thing in modules if inspect.ismodule(thing) else thing in pages, name
    assert len(set(map(str.lower, pages.values()))) == len(pages), "a file system may ignore case"
