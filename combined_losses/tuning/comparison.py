"""`Comparison`: rules side by side, and which of them beats equal weights."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from combined_losses._core.names import listed
from combined_losses.plots import tuning as figures
from combined_losses.tuning import references, tables
from combined_losses.tuning.objectives import Objective
from combined_losses.tuning.results import CONFIDENCE, Difference, Run, difference
from combined_losses.tuning.shown import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Comparison(Shown):
    """What `cl.compare` found. `print` shows a table and a sentence; a notebook too.

    Attributes:
        objectives: the objectives, a tuple of `(key, direction)`.
        runs: a list of `Run`, one for each rule; equal weights first.
        differences: from the name of a run to a dict from objective to its `Difference` to equal
            weights; without the runs that failed.

    Example:

    >>> from combined_losses.tuning import Comparison, Run
    >>> from combined_losses.tuning.objectives import Objective
    >>> runs = [
    ...     Run("equal weights", {}, {"val_mae": [1.0, 1.2, 1.1]}),
    ...     Run("FAMO", {}, {"val_mae": [0.9, 1.1, 1.0]}),
    ... ]
    >>> found = Comparison([Objective("val_mae", "min")], runs)
    >>> print(found.differences["FAMO"]["val_mae"])
    +0.1, 95 % interval +0.1 to +0.1
    """

    title = "Rules side by side"

    def __init__(self, objectives: Sequence[Objective], runs: Sequence[Run]) -> None:
        super().__init__(objectives)
        self._runs = list(runs)

    @property
    def runs(self) -> list[Run]:
        return self._runs

    @property
    def equal(self) -> Run | None:
        return next((run for run in self.finished if run.name == references.EQUAL), None)

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        base = self.equal
        if base is None:
            return {}
        return {
            run.name: {goal.key: difference(run, base, goal) for goal in self.objectives}
            for run in self.finished
            if run is not base
        }

    def time_of_step(self, run: Run) -> float:
        """How long a step takes beside one with equal weights; NaN if nobody knows."""
        base = self.equal
        return math.nan if base is None else run.seconds_per_step / base.seconds_per_step

    @property
    def lines(self) -> list[str]:
        if self.equal is None:
            return ["Equal weights have no result, so that there is nothing to compare with."]
        return [self._sentence(goal) for goal in self.objectives]

    def _sentence(self, objective: Objective) -> str:
        """Which runs beat equal weights by more than the noise."""
        found = [name for name, of in self.differences.items() if of[objective.key].exceeds_noise]
        count = len(self.differences)
        chance = (1 - CONFIDENCE) / 2 * count
        seeds = len(next(iter(self.equal.per_seed.values()))) if self.equal else 0
        if seeds < 2:
            return f"{objective.key}: with one seed the noise is unknown."
        if not found:
            return (
                f"{objective.key}: no rule beats equal weights by more than the noise of {seeds} "
                "seeds."
            )
        verb = "beats" if len(found) == 1 else "beat"
        return (
            f"{objective.key}: {listed(found)} {verb} equal weights by more than the noise of "
            f"{seeds} seeds. Of {count} that were compared about {chance:.1f} would by chance."
        )

    def plot(self) -> "Figure":
        """A matplotlib `Figure`: the difference of each run to equal weights, with its interval."""
        return figures.comparison(self)

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        goals = self.objectives
        head = ["rule"]
        for goal in goals:
            head += [str(goal), "better than equal weights by"]
        head += ["time of a step", "ended"]
        rows = []
        for run in sorted(self.runs, key=lambda run: tables.order(run, goals[0])):
            row = [run.name]
            for goal in goals:
                gain = self.differences.get(run.name, {}).get(goal.key)
                row += [tables.with_spread(run, goal), tables.interval(gain)]
            ratio = self.time_of_step(run)
            row += ["–" if math.isnan(ratio) else f"{ratio:.2f}", tables.ended(run)]
            rows.append(row)
        return tables.with_endings(head, rows)

    def _more_columns(self, run: Run) -> dict[str, object]:
        found: dict[str, object] = {"time_of_step": self.time_of_step(run)}
        for key, gain in self.differences.get(run.name, {}).items():
            found |= {f"{key} gain": gain.mean, f"{key} low": gain.low, f"{key} high": gain.high}
        return found

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.runs)} settings, {tables.named(self.objectives)}>"
