"""A result as HTML: a fragment for notebooks, and a page in one file."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from combined_losses.diagnosis.page import document, figure_as_svg, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def fragment(head: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[str]) -> str:
    """The sentences and the table, as a part of a page."""
    kinds = [' class="cl-text"' if name == "parameters" else "" for name in head]

    def cells(tag: str, row: Sequence[str]) -> str:
        pairs = zip(row, kinds, strict=True)
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in pairs)

    first = cells("th", head)
    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    said = "\n".join(f"<p>{escape(line)}</p>" for line in lines)
    table = f"<table><thead><tr>{first}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return styled(f"{said}\n{table}")


def page(title: str, part: str, figure: "Figure") -> str:
    """A page in one file: a fragment and a figure."""
    return document(title, part, figure_as_svg(figure))
