"""A `Diagnosis` as HTML: a fragment for notebooks, and a page in one file."""

import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from combined_losses._version import __version__
from combined_losses.diagnosis import tables
from combined_losses.diagnosis.blind_spots import HEADLINE
from combined_losses.diagnosis.faults import ADVICE
from combined_losses.diagnosis.findings import Findings
from combined_losses.plots.diagnosis import overview

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
.cl-diagnosis { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 1120px; overflow-x: auto; }
.cl-diagnosis table { border-collapse: collapse; margin: 0.6em 0 1em; }
.cl-diagnosis th, .cl-diagnosis td { padding: 0.3em 0.8em; text-align: right; border: 0;
  border-bottom: 1px solid #d8d8d8; font-variant-numeric: tabular-nums; white-space: nowrap; }
.cl-diagnosis thead th { border-bottom: 2px solid #1a1a1a; }
.cl-diagnosis th:first-child, .cl-diagnosis td:first-child,
.cl-diagnosis th:last-child, .cl-diagnosis td:last-child,
.cl-diagnosis .cl-text { text-align: left; }
.cl-diagnosis td:last-child { min-width: 10em; }
.cl-diagnosis td:first-child, .cl-diagnosis td:last-child { white-space: pre-wrap; }
.cl-diagnosis .cl-flag { color: #a03c00; font-weight: 600; }
.cl-diagnosis code { font-family: ui-monospace, monospace; background: #f3f3f3;
  padding: 0.1em 0.3em; overflow-wrap: anywhere; }
.cl-diagnosis p { margin: 0.8em 0 0.2em; }
.cl-diagnosis ul { margin: 0 0 0.6em; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 2em auto; padding: 0 1.5em; max-width: 1120px; }}
h1 {{ font: 600 24px/1.3 system-ui, sans-serif; margin: 0 0 0.2em; overflow-wrap: anywhere; }}
figure {{ margin: 1em 0; }} figure svg {{ max-width: 100%; height: auto; }}
footer {{ font: 13px system-ui, sans-serif; color: #595959; margin-top: 2em; }}
</style>
</head>
<body>
<h1>{title}</h1>
{fragment}
<figure>
{figure}
</figure>
<footer>combined_losses {version}</footer>
</body>
</html>
"""


def fragment(diagnosis: Findings) -> str:
    """The table, what is wrong and the proposed weights, as a part of a page."""
    head = "".join(f"<th>{escape(column)}</th>" for column in (*tables.columns(diagnosis), "flags"))
    rows = "\n".join(f"<tr>{_row(cells)}</tr>" for cells in tables.cells(diagnosis))
    parts = [
        f"<p>{escape(_sentence(tables.summary_line(diagnosis)))}</p>",
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>",
        _faults(diagnosis),
    ]
    weights = tables.proposal(diagnosis)
    if weights is not None:
        parts.append(
            f"<p>With these weights all gradients{escape(tables.unseen(diagnosis))} were equally "
            f"long: <code>weights={escape(weights)}</code></p>"
        )
    return styled("\n".join(parts))


def page(diagnosis: Findings) -> str:
    """A page in one file: `fragment` and the figure, which needs matplotlib."""
    title = f"The losses of {diagnosis.model_name}"
    return document(title, fragment(diagnosis), figure_as_svg(overview(diagnosis)))


def styled(body: str) -> str:
    """A part of a page with the style of its tables."""
    return f'<style>{_STYLE}</style>\n<div class="cl-diagnosis">\n{body}\n</div>'


def document(title: str, fragment: str, figure: str) -> str:
    """A page in one file."""
    title = escape(title)
    return _PAGE.format(title=title, fragment=fragment, figure=figure, version=__version__)


def _row(cells: Sequence[str]) -> str:
    *numbers, flags = cells
    row = "".join(f"<td>{escape(cell)}</td>" for cell in numbers)
    return f'{row}<td class="cl-flag">{escape(flags)}</td>'


def _faults(diagnosis: Findings) -> str:
    parts = []
    for flag, faults in tables.by_flag(diagnosis).items():
        items = "\n".join(
            f"<li><b>{escape(fault.component)}</b>: {escape(fault.message)}</li>"
            for fault in faults
        )
        advice = escape(ADVICE[flag])
        parts.append(f'<p><span class="cl-flag">{flag}</span>: {advice}</p>\n<ul>\n{items}\n</ul>')
    if diagnosis.invisible:
        items = "\n".join(
            f"<li><b>{escape(names)}</b>: {escape(message)}</li>"
            for names, message in tables.blind_spot_lines(diagnosis)
        )
        parts.append(f"<p>{escape(_sentence(HEADLINE))}</p>\n<ul>\n{items}\n</ul>")
    well = tables.all_is_well(diagnosis)
    return "\n".join(parts if well is None else [*parts, f"<p>{well}</p>"])


def _sentence(line: str) -> str:
    return f"{line[0].upper()}{line[1:]}."


def figure_as_svg(figure: "Figure") -> str:
    """The figure as an `<svg>` element; its text is drawn as paths."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    source = stream.getvalue()
    return source[source.index("<svg") :]
