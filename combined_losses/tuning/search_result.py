"""`SearchResult`: what a search found, as a table, a data frame, figures, a page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import keras

from combined_losses._core.names import quoted
from combined_losses.plots import tuning as figures
from combined_losses.tuning import references, tables
from combined_losses.tuning.objectives import Objective
from combined_losses.tuning.results import Difference, Run, difference, is_dominated, preferred
from combined_losses.tuning.shown import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["overview", "values", "front", "parallel", "importance"]


@dataclass(frozen=True)
class Best:
    """The best run of a search, and by how much it beats equal weights.

    Attributes:
        run: the run.
        gains: from objective to the `Difference` to equal weights with the seeds of the search.
            The best of many trials is chosen by these values, so that they are optimistic.
        confirmed: the same with fresh seeds, by which nothing was chosen; empty without them.

    Example:

    >>> from combined_losses.tuning import Best, Difference, Run
    >>> run = Run("trial 0", {"under": 0.3}, {"val_mae": [1.0, 2.0]})
    >>> best = Best(run, {"val_mae": Difference(mean=0.2, low=-0.1, high=0.5)}, {})
    >>> best.parameters, best.exceeds_noise
    ({'under': 0.3}, False)
    >>> print(best)  # doctest: +NORMALIZE_WHITESPACE
    The best run is trial 0 (under=0.3). It beats equal weights in val_mae: by +0.2
    (95 % interval -0.1 to +0.5): not more than the noise.
    """

    run: Run
    gains: Mapping[str, Difference]
    confirmed: Mapping[str, Difference]

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self.run.parameters

    @property
    def values(self) -> dict[str, float]:
        return self.run.values

    @property
    def exceeds_noise(self) -> bool:
        """Whether it beats equal weights in some objective by more than the noise over seeds."""
        return any(each.exceeds_noise for each in (self.confirmed or self.gains).values())

    def __str__(self) -> str:
        return tables.sentence_of(self.run, self.gains, self.confirmed)


class SearchResult(Shown):
    """What `cl.search` found. `print` shows a table; a notebook too.

    Attributes:
        objectives: the objectives, a tuple of `(key, direction)`.
        references: the runs that are always in the comparison, a list of `Run`.
        trials: a list of `Run`, in order; those that were stopped or failed too.
        prefer: the importance of each objective, by which `best` was chosen.
        importances: from objective to a dict from parameter to its share in what moves the
            objective (PED-ANOVA), which sum to 1; empty with too few trials.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> x, y = np.random.rand(32, 2), np.random.rand(32, 1)
    >>> def build():
    ...     model = cl.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    ...     model.compile("sgd", loss=cl.CompositeLoss({"fit": "mse", "far": "mae"}))
    ...     return model
    >>> found = cl.search(
    ...     build,
    ...     (x, y),
    ...     parameters={"far": (0.1, 10.0)},
    ...     objectives="fit_loss",
    ...     trials=1,
    ...     seeds=1,
    ...     confirm=0,
    ...     storage=None,
    ...     verbose=0,
    ... )
    >>> isinstance(found, cl.tuning.SearchResult), found
    (True, <SearchResult of 1 trials, fit_loss (lower is better)>)
    >>> found.build_best().compiled
    True
    """

    title = "What the search found"

    def __init__(
        self,
        *,
        objectives: Sequence[Objective],
        references: Sequence[Run],
        trials: Sequence[Run],
        prefer: Mapping[str, float],
        confirmed: Sequence[Run],
        importances: Mapping[str, Mapping[str, float]],
        builder: Callable[[Run], keras.Model],
    ) -> None:
        super().__init__(objectives)
        self.references = list(references)
        self.trials = list(trials)
        self.prefer = dict(prefer)
        self.importances = importances
        self._confirmed = confirmed
        self._builder = builder

    @property
    def runs(self) -> list[Run]:
        """The references, then the trials."""
        return [*self.references, *self.trials]

    @cached_property
    def pareto(self) -> list[Run]:
        """The finished runs that no other one dominates; with one objective the best of them."""
        runs = self.finished
        return [run for run in runs if not is_dominated(run, runs, self.objectives)]

    @property
    def equal(self) -> Run | None:
        """The run with equal weights; None if it has no result."""
        return next((run for run in self.finished if run.name == references.EQUAL), None)

    @cached_property
    def winner(self) -> Run | None:
        """The best finished run; None if there is none."""
        runs = self.finished
        return preferred(runs, self.objectives, self.prefer) if runs else None

    @property
    def best(self) -> Best:
        """The run with the best objective.

        Each of several objectives is put on a scale from 0 (the best run) to 1 (the worst on the
        Pareto front). The best run is then the one whose largest scaled objective, times its
        `prefer`, is the smallest.
        """
        if self.winner is None:
            notes = quoted(dict.fromkeys(run.note for run in self.runs))
            raise ValueError(f"No run of the search has a result. Received: {notes}")
        pairs = {False: (self.winner, self.equal), True: tuple(self._confirmed) or (None, None)}
        gains = {
            is_fresh: {
                goal.key: difference(run, base, goal) for goal in self.objectives if run and base
            }
            for is_fresh, (run, base) in pairs.items()
        }
        return Best(self.winner, gains[False], gains[True])

    @property
    def lines(self) -> list[str]:
        """What the search says, in sentences."""
        if self.winner is None:
            return ["No run has a result."]
        return [str(self.best)]

    def build_best(self) -> keras.Model:
        """A new model, compiled with the best setting, not trained."""
        return self._builder(self.best.run)

    def _more_columns(self, run: Run) -> dict[str, object]:
        return {"pareto": run in self.pareto}

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        return tables.cells(self.runs, self.objectives)

    def plot(self, kind: Kind = "overview") -> "Figure":
        """A matplotlib `Figure`; needs matplotlib.

        Args:
            kind: `"values"`: the objective of each run, the references marked (`"front"` for two
                objectives: one against the other, the Pareto front joined); `"parallel"`: a line
                through the parameters of each run, by its objective; `"importance"`: how much each
                parameter matters; `"overview"` (default): all three.
        """
        return figures.search(self, kind)

    def __repr__(self) -> str:
        return f"<SearchResult of {len(self.trials)} trials, {tables.named(self.objectives)}>"
