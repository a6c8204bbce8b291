"""What the demo shows in the terminal."""

import math

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from combined_losses.demo import tables
from combined_losses.demo.comparison import Comparison
from combined_losses.demo.units import power_of_ten, put_power

MOST_CHOICES = 24  # rows of the table of choices


def progress_bar(console: Console) -> Progress:
    """A bar with the share that is done and the time that has passed."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def choices_table(table: tables.Table) -> Table:
    """What was found in a file of the user's, and what becomes of its columns."""
    shown = Table(title=Text(table.name, "bold"), title_justify="left", show_header=False)
    shown.add_column("", max_width=26)
    shown.add_column("")
    for what, choice in table.choices[:MOST_CHOICES]:
        style = "yellow" if "dropped" in choice else ""
        shown.add_row(Text(what), Text(choice, style))
    if len(table.choices) > MOST_CHOICES:
        shown.add_row("…", f"{len(table.choices) - MOST_CHOICES} more, in summary.json")
    return shown


def comparison_table(result: Comparison) -> Table:
    """Both arms side by side, and the change from the first to the second."""
    table = Table(
        title=Text(result.experiment.title, "bold"),
        caption=Text(
            f"{result.experiment.caption}; ± is the standard deviation over the trainings, "
            "~ a change smaller than its own",
            "dim",
        ),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("")
    for arm in result.experiment.arms:
        table.add_column(arm.replace(" + ", "\n+ "), justify="right", no_wrap=True)
    table.add_column("change", justify="right", no_wrap=True)
    for label in result.labels:
        table.add_row(*cells(label, *result.values(label)))
    return table


def cells(label: str, alone: np.ndarray, composite: np.ndarray) -> list[Text]:
    """The label, and mean ± standard deviation of both arms and of their paired difference."""
    power = power_of_ten(max(abs(alone.mean()), abs(composite.mean())))
    label = put_power(label, power)
    alone, composite = alone / 10.0**power, composite / 10.0**power
    change = composite - alone
    decimals = _decimals(max(abs(alone.mean()), abs(composite.mean())), change.std(ddof=1))
    unclear = not abs(change.mean()) > change.std(ddof=1)
    text = ("~ " if unclear else "") + _plus_minus(change, decimals, sign="+")
    return [
        Text(label),
        Text(_plus_minus(alone, decimals)),
        Text(_plus_minus(composite, decimals)),
        Text(text, "dim" if unclear else "bold"),
    ]


def _decimals(size: float, deviation: float) -> int:
    """For three digits of `size`, or one more if `deviation` had none otherwise."""
    if size == 0 or not math.isfinite(size):
        return 0
    digits = 2 - math.floor(math.log10(size))
    if 0 < deviation < math.inf:
        digits = max(digits, min(digits + 1, -math.floor(math.log10(deviation))))
    return max(0, digits)


def _plus_minus(values: np.ndarray, decimals: int, sign: str = "-") -> str:
    return f"{values.mean():{sign},.{decimals}f} ± {values.std(ddof=1):,.{decimals}f}"
