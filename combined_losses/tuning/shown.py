"""What every result can do: print itself, be a data frame, a figure, a page."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from combined_losses.tuning import tables
from combined_losses.tuning.objectives import Objective
from combined_losses.tuning.page import fragment, page
from combined_losses.tuning.results import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Shown(ABC):
    """A result of trainings.

    Attributes:
        objectives: the objectives, a tuple of `(key, direction)`.
    """

    title: str  # of the page

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = tuple(objectives)

    @property
    @abstractmethod
    def runs(self) -> list[Run]:
        """All runs, also those that failed."""

    @property
    @abstractmethod
    def lines(self) -> list[str]:
        """What the result says, in sentences."""

    @abstractmethod
    def plot(self) -> "Figure":
        """A matplotlib `Figure`; needs matplotlib."""

    @abstractmethod
    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """The head and the rows of the table."""

    def _more_columns(self, run: Run) -> dict[str, object]:
        """What the data frame has of a run besides what all results have."""
        return {}

    @property
    def finished(self) -> list[Run]:
        """The runs with a result."""
        return [run for run in self.runs if run.state == "finished"]

    def to_frame(self) -> "DataFrame":
        """A `pandas.DataFrame` with a row for each run; needs pandas.

        Its columns are the parameters, each objective and its `<key> spread` over the seeds,
        `state`, `note`, `seconds_per_step`, and what only this result has.
        """
        import pandas as pd

        rows = [
            {**tables.row(run, self.objectives), **self._more_columns(run)} for run in self.runs
        ]
        return pd.DataFrame(rows, index=pd.Index([run.name for run in self.runs], name="run"))

    def to_html(self, path: str | Path | None = None) -> str:
        """A self-contained page with the table and the figures; needs matplotlib.

        Args:
            path: where the page is written too; None (default): nowhere.
        """
        text = page(self.title, self._fragment(), self.plot())
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def _fragment(self) -> str:
        return fragment(*self._cells(), self.lines)

    def _repr_html_(self) -> str:
        return self._fragment()

    def __str__(self) -> str:
        return tables.text(*self._cells(), self.lines)
