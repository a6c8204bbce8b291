"""Writes the pages of the API: one for each public name, and one for each module.

The pages are in docs/api/, which git ignores. What is unchanged is not written again, so that
Sphinx reads only the pages of what has changed.
"""

import inspect
import itertools
import sys
from pathlib import Path
from typing import Any

from public import Entry, all_entries, public_modules
from signatures import with_keywords
from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature

INDEX = """\
API
===

Every public name, from `import combined_losses as cl`. A module has a page of all its names.
Each name has a page: its formula, its arguments, an example that runs, a link to its source.

.. py:data:: combined_losses.__version__
   :type: str

   The version of the package.
"""


def write_pages(app: Sphinx) -> None:
    """Writes what has changed, and removes the pages of names that are gone."""
    pages = {"api/index": index(), **group_pages()}
    pages |= {entry.page: entry_page(entry) for entry in all_entries()}
    docs = Path(app.srcdir)
    for file in (docs / "api").rglob("*.rst"):
        if file.relative_to(docs).with_suffix("").as_posix() not in pages:
            file.unlink()
    for page, text in pages.items():
        file = docs / f"{page}.rst"
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")


def entry_page(entry: Entry) -> str:
    """The page of one name."""
    kind = "class" if inspect.isclass(entry.thing) else "function"
    parts = [heading(entry.name, "="), f".. auto{kind}:: {entry.path}\n"]
    for name in entry.members:
        method = "property" if isinstance(vars_of(entry.thing, name), property) else "method"
        parts.append(f"   .. auto{method}:: {entry.path}.{name}\n")
    return "\n".join(parts)


def vars_of(cls: type, name: str) -> Any:
    return next(vars(base)[name] for base in cls.__mro__ if name in vars(base))


def index() -> str:
    """The page of the package itself: its own names, and its modules."""
    own, *modules = public_modules()
    parts = [INDEX, *families(own.__name__)]
    parts.append(heading("Modules", "-"))
    names = [module.__name__ for module in modules]
    parts.append(table([(group_page(name), short(name), first_line(name)) for name in names]))
    parts.append(toctree([group_page(name) for name in names]))
    return "\n".join(parts)


def group_pages() -> dict[str, str]:
    """The page of each public module."""
    pages = {}
    for module in public_modules()[1:]:
        parts = [
            heading(short(module.__name__), "="),
            f"{inspect.getdoc(module)}\n",
            *families(module.__name__),
        ]
        pages[group_page(module.__name__)] = "\n".join(parts)
    return pages


def group_page(module: str) -> str:
    return "api/" + module.removeprefix("combined_losses.") + "/index"


def families(module: str) -> list[str]:
    """The names of a module, those together that are alike; the base classes of all come last."""
    entries = [entry for entry in all_entries() if entry.module == module]
    if len({entry.family for entry in entries}) > len(entries) / 2:  # hardly any are alike
        pages = [entry.page for entry in entries]
        return [table([(each.page, each.name, each.summary) for each in entries]), toctree(pages)]
    parts = []
    entries.sort(key=lambda entry: (entry.family == module, entry.family))
    for family, members in itertools.groupby(entries, lambda entry: entry.family):
        members = list(members)
        title, text = title_and_text(family) if family != module else ("The base class", "")
        parts += [heading(title, "-"), f"{text}\n"]
        parts.append(table([(each.page, each.name, each.summary) for each in members]))
        parts.append(toctree([each.page for each in members]))
    return parts


def title_and_text(module: str) -> tuple[str, str]:
    """`"Boxes: how far they are."` is the title `Boxes` and a text."""
    line = first_line(module)
    title, colon, text = line.partition(": ")
    if not colon or len(title) > 40:
        return line.rstrip("."), ""
    return title, text[:1].upper() + text[1:]


def first_line(module: str) -> str:
    return " ".join((inspect.getdoc(sys.modules[module]) or "").split("\n\n")[0].split())


def short(module: str) -> str:
    return module.replace("combined_losses", "cl")


def heading(title: str, line: str) -> str:
    return f"{title}\n{line * len(title)}\n"


def table(rows: list[tuple[str, str, str]]) -> str:
    """Links to pages, and what each says."""
    lines = [".. list-table::", "   :class: names", "   :widths: 30 70", ""]
    for page, name, text in rows:
        lines += [f"   * - :doc:`{name} </{page}>`", f"     - {text}"]
    return "\n".join([*lines, ""])


def toctree(pages: list[str]) -> str:
    return "\n".join([".. toctree::", "   :hidden:", "", *(f"   /{page}" for page in pages), ""])


def find_module(app: Sphinx, module: str, name: str | None) -> str | None:
    """For the links to the source: where a public name is written."""
    path = f"{module}.{(name or '').partition('.')[0]}"
    return next((entry.source for entry in all_entries() if entry.path == path), None)


def spell_out(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, result: str
) -> tuple[str, str] | None:
    """The signature with the keywords that `**kwargs: Unpack[...]` stands for."""
    if not inspect.isclass(thing) and not inspect.isfunction(thing):
        return None
    found = with_keywords(thing)
    return found and (stringify_signature(found, unqualified_typehints=True), result)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-signature", spell_out)
    app.connect("viewcode-follow-imported", find_module)
    return {"parallel_read_safe": True}
