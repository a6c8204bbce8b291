"""`Front`: what one component costs in another."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from combined_losses.plots import tuning as figures
from combined_losses.tuning import tables
from combined_losses.tuning.objectives import Objective
from combined_losses.tuning.results import Run, is_dominated
from combined_losses.tuning.shown import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Front(Shown):
    """What `cl.pareto` found. `print` shows a table and a sentence; a notebook too.

    Attributes:
        objectives: the two components, as `(key, direction)`.
        runs: a list of `Run`, one for each preference: the two ends first.
        utopia, nadir: the best and the worst values of the two ends, arrays of 2.
        hypervolumes: for each seed the share of the box from utopia to nadir that the front
            dominates, from 0 to about 1: higher is better.

    Example:

    >>> from combined_losses.tuning import Front, Run
    >>> from combined_losses.tuning.objectives import Objective
    >>> goals = [Objective("a_loss", "min"), Objective("b_loss", "min")]
    >>> values = {"1 : 0": (0.0, 1.0), "0 : 1": (1.0, 0.0), "0.5 : 0.5": (0.5, 0.25)}
    >>> runs = [Run(name, {}, {"a_loss": [a], "b_loss": [b]}) for name, (a, b) in values.items()]
    >>> front = Front(goals, runs, utopia=[0.0, 0.0], nadir=[1.0, 1.0])
    >>> front.hypervolume  # a box of 0.5 x 0.75
    0.375
    >>> [run.name for run in front.pareto]
    ['1 : 0', '0 : 1', '0.5 : 0.5']
    """

    title = "What one component costs in the other"

    def __init__(
        self, objectives: Sequence[Objective], runs: Sequence[Run], utopia: Any, nadir: Any
    ) -> None:
        super().__init__(objectives)
        self._runs = list(runs)
        self.utopia, self.nadir = np.asarray(utopia), np.asarray(nadir)
        self.hypervolumes = self._hypervolumes()

    @property
    def runs(self) -> list[Run]:
        return self._runs

    @property
    def pareto(self) -> list[Run]:
        """The runs that no other one dominates, by their means over the seeds."""
        done = self.finished
        return [run for run in done if not is_dominated(run, done, self.objectives)]

    @property
    def hypervolume(self) -> float:
        """The mean of `hypervolumes`."""
        return float(np.mean(self.hypervolumes))

    def _hypervolumes(self) -> list[float]:
        keys = [goal.key for goal in self.objectives]
        seeds = min(len(run.per_seed[keys[0]]) for run in self.finished)
        points = np.array(
            [
                [[run.per_seed[key][s] for key in keys] for run in self.finished]
                for s in range(seeds)
            ]
        )
        return [_hypervolume((each - self.utopia) / (self.nadir - self.utopia)) for each in points]

    @property
    def lines(self) -> list[str]:
        spread = np.std(self.hypervolumes, ddof=1) if len(self.hypervolumes) > 1 else math.nan
        said = "" if math.isnan(spread) else f" ± {spread:.2g} over {len(self.hypervolumes)} seeds"
        return [
            f"{len(self.pareto)} of {len(self.finished)} preferences are on the Pareto front. They "
            f"dominate {self.hypervolume:.3f}{said} of the box from utopia to nadir."
        ]

    def plot(self) -> "Figure":
        """A matplotlib `Figure`: `plots.pareto` of the runs."""
        return figures.front(self)

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        head, rows = tables.cells(self.runs, self.objectives)
        without = [[cell for i, cell in enumerate(row) if i != len(head) - 2] for row in rows]
        return ["preference", *head[1:-2], head[-1]], without

    def _more_columns(self, run: Run) -> dict[str, object]:
        return {"pareto": run in self.pareto}

    def __repr__(self) -> str:
        return f"<Front of {len(self.runs)} preferences, {tables.named(self.objectives)}>"


def _hypervolume(points: Any) -> float:
    """The area that points dominate within the box from 0 to 1, where lower is better."""
    area, lowest = 0.0, 1.0
    for x, y in sorted(map(tuple, np.clip(points, None, 1.0))):
        if y < lowest:  # each point adds a strip below those to the left of it
            area += (1.0 - x) * (lowest - y)
            lowest = y
    return float(area)
