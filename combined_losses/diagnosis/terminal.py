"""A `Diagnosis` as text, for a terminal; needs rich."""

import io
from typing import TYPE_CHECKING

from combined_losses.diagnosis import tables
from combined_losses.diagnosis.blind_spots import HEADLINE
from combined_losses.diagnosis.faults import ADVICE
from combined_losses.diagnosis.findings import Findings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# What stands for characters that a terminal cannot show.
_PLAIN = str.maketrans({"–": "-", "…": "."})


def text(diagnosis: Findings, width: int = 100, plain: bool = False) -> str:
    """The table and what is wrong, for a terminal; `plain`: in ASCII, except for names."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False)
    console.print(_table(diagnosis, plain))
    _print_findings(console, diagnosis)
    shown = stream.getvalue().rstrip()
    return shown.translate(_PLAIN) if plain else shown


def _table(diagnosis: Findings, plain: bool) -> "Table":
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=f"{escape(diagnosis.model_name)}: {tables.summary_line(diagnosis)}",
        title_justify="left",
        box=box.ASCII if plain else box.HEAVY_HEAD,
    )
    for column in tables.columns(diagnosis):
        left = column == "component"
        table.add_column(
            column, justify="left" if left else "right", no_wrap=not left, overflow="fold"
        )
    for *row, _ in tables.cells(diagnosis):
        table.add_row(*map(escape, row))
    return table


def _print_findings(console: "Console", diagnosis: Findings) -> None:
    """Prints what is wrong, what cannot be seen, and the proposed weights."""
    from rich.markup import escape
    from rich.padding import Padding

    def print_indented(names: str, message: str) -> None:
        console.print(Padding(escape(f"{names}: {message}"), (0, 0, 0, 2)))

    for flag, faults in tables.by_flag(diagnosis).items():
        console.print(f"\n{flag}: {escape(ADVICE[flag])}")
        for fault in faults:
            print_indented(fault.component, fault.message)
    if diagnosis.invisible:
        console.print(f"\n{escape(HEADLINE)}:")
        for names, message in tables.blind_spot_lines(diagnosis):
            print_indented(names, message)
    well = tables.all_is_well(diagnosis)
    if well is not None:
        console.print(f"\n{well}")
    weights = tables.proposal(diagnosis)
    if weights is not None:
        unseen = tables.unseen(diagnosis)
        console.print(escape(f"\nGradients equally long{unseen}: weights={weights}"))
