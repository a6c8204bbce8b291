"""How a composite shows itself: on one line, and as a small table in a notebook."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from combined_losses._core.node import Node
from combined_losses._core.short_call import off_default, short, unchosen
from combined_losses.composite.total import WeightedSum

if TYPE_CHECKING:  # for the types alone: it shows itself by this file
    from combined_losses.composite.loss import CompositeLoss

MOST_ON_A_LINE = 20
MOST_ROWS = 200  # of the table


def on_one_line(composite: "CompositeLoss", losses: Mapping[str, Any]) -> str:
    """`CompositeLoss({'mse': 'mse'}, weights={...}, ...)`, without what is at its default."""
    weights = {name: w for name, w in weights_of(composite._node).items() if w != "1.0"}
    arguments = {
        "weighting": composite.weighting,
        "reduction": composite.reduction,
        "name": composite.name,
        "dtype": composite.dtype,
        "on_nonfinite": composite.on_nonfinite,
    }
    chosen = {k: v for k, v in arguments.items() if k not in unchosen(composite)}
    shown = [
        _dict((name, short(loss)) for name, loss in losses.items()),
        *([f"weights={_dict(weights.items())}"] if weights else []),
        *off_default(type(composite), chosen),
    ]
    return f"{type(composite).__name__}({', '.join(shown)})"


def weights_of(composite: WeightedSum) -> dict[str, str]:
    """The fixed weight of each component as text, or its schedule; no variable is read."""
    weights = composite.own_weights
    return {
        name: short(weights.schedules[name]) if name in weights.schedules else repr(weight)
        for name, weight in weights.fixed.items()
    }


def _dict(entries: Iterable[tuple[str, str]]) -> str:
    """A dict on a line; of many entries the first, and how many more there are."""
    remaining = iter(entries)
    shown = [f"{name!r}: {text}" for name, text in islice(remaining, MOST_ON_A_LINE)]
    more = sum(1 for _ in remaining)
    return f"{{{', '.join([*shown, f'… {more} more'] if more else shown)}}}"


class Row(NamedTuple):
    """A component in the table; `depth` is the number of composites around its own."""

    name: str
    loss: str
    weight: str
    depth: int


def rows_of(composite: WeightedSum, depth: int = 0) -> Iterator[Row]:
    """The components in order, each followed by those of a composite in it."""
    weights = weights_of(composite)
    for name, node in composite.nodes.items():
        inner = _composite_in(node)
        loss = type(inner.loss_itself()).__name__ if inner is node else short(node.loss_itself())
        if inner is not None:  # what is in it has rows of its own
            loss = loss.replace(repr(inner.loss_itself()), "…", 1)
        yield Row(name, loss, weights[name], depth)
        if inner is not None:
            yield from rows_of(inner, depth + 1)


def _composite_in(node: Node) -> WeightedSum | None:
    """The composite that a component is, or that wrappers hold as their only loss; else None."""
    while not isinstance(node, WeightedSum):
        inside = [child for child, prefix in node.nodes_inside() if prefix == ""]
        if len(inside) != 1:
            return None
        node = inside[0]
    return node


_STYLE = """
.cl-composite { font: 14px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  overflow-x: auto; }
.cl-composite table { border-collapse: collapse; margin: 0.4em 0 0.6em; }
.cl-composite th, .cl-composite td { padding: 0.2em 0.8em; text-align: left; border: 0;
  border-bottom: 1px solid #d8d8d8; white-space: pre; }
.cl-composite td:nth-child(2) { white-space: pre-wrap; }
.cl-composite thead th { border-bottom: 2px solid #1a1a1a; }
.cl-composite td:last-child { font-variant-numeric: tabular-nums; }
.cl-composite code { font-family: ui-monospace, monospace; }
"""


def table(composite: WeightedSum) -> str:
    """HTML: a row for each component, its loss and its weight; its parts follow, indented."""
    rows = list(rows_of(composite))
    body = "\n".join(map(_row, rows[:MOST_ROWS]))
    if len(rows) > MOST_ROWS:
        body += f'\n<tr><td colspan="3">… {len(rows) - MOST_ROWS} more</td></tr>'
    rule = "" if composite.weighting is None else f", weights by {short(composite.weighting)}"
    owner = type(composite.loss_itself()).__name__
    return (
        f'<style>{_STYLE}</style>\n<div class="cl-composite">\n'
        f"{escape(owner)} <b>{escape(composite.name)}</b>{escape(rule)}\n"
        "<table><thead><tr><th>component</th><th>loss</th><th>weight</th></tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table>\n</div>"
    )


def _row(row: Row) -> str:
    indent = f' style="padding-left: {0.8 + 1.4 * row.depth:.1f}em"'
    return (
        f"<tr><td{indent}>{escape(row.name)}</td>"
        f"<td><code>{escape(row.loss)}</code></td><td>{escape(row.weight)}</td></tr>"
    )
