"""What the demo shows in the terminal."""

import math

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from combined_losses.demo.comparison import Comparison


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def comparison_table(result: Comparison) -> Table:
    """Both arms side by side, and the change from one to the other."""
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
        alone, composite = result.values(label)
        table.add_row(Text(label), *cells(alone, composite))
    return table


def cells(alone: np.ndarray, composite: np.ndarray) -> list[Text]:
    """Mean ± standard deviation of both arms and of their paired difference."""
    change = composite - alone
    decimals = _decimals(max(abs(alone.mean()), abs(composite.mean())))
    mean, deviation = change.mean(), change.std(ddof=1)
    unclear = not abs(mean) > deviation
    texts = [Text(_plus_minus(values, decimals)) for values in (alone, composite)]
    sign = "~ " if unclear else ""
    text = Text(sign + _plus_minus(change, decimals, sign="+"), "dim" if unclear else "bold")
    return [*texts, text]


def _decimals(size: float) -> int | None:
    """For three significant digits; None where only powers of ten are readable."""
    if size == 0 or not 1e-3 <= size < 1e6:
        return None if size else 0
    return max(0, 2 - math.floor(math.log10(size)))


def _plus_minus(values: np.ndarray, decimals: int | None, sign: str = "-") -> str:
    form = ".2e" if decimals is None else f",.{decimals}f"
    return f"{values.mean():{sign}{form}} ± {values.std(ddof=1):{form}}"
