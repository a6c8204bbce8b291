"""`pareto`: what one component costs in another, as a front of trainings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from combined_losses import weightings
from combined_losses._core.names import log_key, quoted
from combined_losses.tuning.arguments import check_count, check_installed
from combined_losses.tuning.bench import Bench, Build, freed, new_garbage_alone
from combined_losses.tuning.front import Front
from combined_losses.tuning.grid import joined_runs, train_all
from combined_losses.tuning.objectives import Objective
from combined_losses.tuning.progress import Progress
from combined_losses.tuning.results import Run
from combined_losses.tuning.settings import Setting, composite_of
from combined_losses.tuning.study import Study

Method = Literal["weights", "tchebycheff"]

TEMPERATURE = 0.1  # of the smooth maximum, in units of the distance from utopia to nadir


@new_garbage_alone()
def pareto(
    build: Build,
    data: Any,
    *,
    parts: tuple[str, str],
    points: int = 9,
    method: Method = "weights",
    validation: Any = None,
    seeds: int = 2,
    storage: str | Path | None = None,
    name: str = "pareto",
    seed: int = 0,
    verbose: int = 1,
    **fit: Any,
) -> Front:
    """Trains with several preferences between two components: what does one cost in the other?

    First each of the two is trained with the other one switched off. The best values that are
    reached so are *utopia*, the worst are *nadir*. The preferences between lie evenly from one end
    to the other, in units of the distance from utopia to nadir. Needs `pip install
    "combined_losses[search]"`.

    Args:
        build, data, validation: as in `cl.search`. Without a rule for the weights.
        parts: the names of the two components. Others keep their weights.
        points: the number of preferences with both ends, at least 3. Default 9.
        method: `"weights"` (default): fixed weights. It reaches only points of a front that is
            convex. `"tchebycheff"`: the smooth Tchebycheff rule, `cl.weightings.Worst` with a
            temperature of a tenth of the distance from utopia to nadir; it reaches other points
            too, and needs a composite of the two components alone.
        seeds: how often each preference is trained. Default 2.
        storage: None (default): in memory; or as in `cl.search`.
        name, seed, verbose, **fit: as in `cl.search`.

    Returns:
        A `Front`: `.plot()` draws it, `.hypervolume` says how good it is.

    Raises:
        ValueError: as `cl.search`; for components that are not two of the composite's; where one
            of the two cannot be trained alone, or training the one alone brings the other to its
            best, too: then there is nothing to choose.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(64, 3)), rng.normal(size=(64, 1))
    >>> def build():
    ...     model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    ...     parts = {"fit": "mse", "under": cl.losses.UnderestimationPenalty()}
    ...     model.compile(keras.optimizers.Adam(0.1), loss=cl.CompositeLoss(parts))
    ...     return model
    >>> front = cl.pareto(
    ...     build, (x, y), parts=("fit", "under"), points=3, seeds=1, verbose=0, epochs=5
    ... )
    >>> len(front.runs)
    3
    """
    check_installed()
    check_count("points", points, 3)
    check_count("seeds", seeds, 1)
    if method not in ("weights", "tchebycheff"):
        raise ValueError(f"`method` must be 'weights' or 'tchebycheff'. Received: {method!r}")
    _check_pair(parts)
    with freed():
        composite = composite_of(build())
        names = composite.names
        _check_parts(parts, names, method, composite.weighting)
        del composite
    prefix = "" if validation is None else "val_"
    goals = _objectives(parts, prefix)
    bench = Bench(build, data, validation, goals, seed, fit)
    with bench.first_model() as model:
        described = {"parts": list(parts), "points": points, "method": method, "seeds": seeds}
        described |= bench.described(model)
        del model
    study = Study(storage, name, described, goals, seed)
    job = _Job(study, bench, parts, names, points, method, seeds)
    with Progress(points * seeds - len(study.trials), verbose) as progress:
        job.run(progress)
    shown = goals if not prefix else goals[:2]
    return Front(shown, job.runs(), job.utopia, job.nadir)


def _check_pair(parts: object) -> None:
    if not isinstance(parts, (tuple, list)) or len(set(parts)) != 2:
        raise ValueError(
            "`parts` must be the names of two components, such as ('fit', 'smooth'). "
            f"Received: {parts!r}"
        )


def _objectives(parts: Sequence[str], prefix: str) -> list[Objective]:
    """The two components in validation, and in training, which the rule sees."""
    prefixes = dict.fromkeys([prefix, ""])
    return [Objective(f"{each}{log_key(part)}", "min") for each in prefixes for part in parts]


def _check_parts(
    parts: Sequence[str], names: Sequence[str], method: str, weighting: object
) -> None:
    missing = [part for part in parts if part not in names]
    if missing:
        raise ValueError(f"`parts` must be components, {quoted(names)}. Received: {missing[0]!r}")
    if weighting is not None:
        raise ValueError(
            "The composite must have fixed weights, because the preferences give them. "
            f"Received: weighting={weighting!r}"
        )
    if method == "tchebycheff" and len(names) > 2:
        raise ValueError(
            "With method='tchebycheff' the composite must be of the two `parts` alone; use "
            f"method='weights'. Received: the components {quoted(names)}"
        )


class _Job:
    """The trainings of a front: number n is preference `n // seeds`, the two ends first."""

    def __init__(
        self,
        study: Study,
        bench: Bench,
        parts: Sequence[str],
        names: Sequence[str],
        points: int,
        method: Method,
        seeds: int,
    ) -> None:
        self.study, self.bench, self.parts, self.names = study, bench, parts, names
        self.method, self.seeds = method, seeds
        shares = np.linspace(1.0, 0.0, points)
        self.preferences = [1.0, 0.0, *(float(share) for share in shares[1:-1])]
        self.utopia = self.nadir = np.full(2, np.nan)

    def run(self, progress: Progress) -> None:
        self._train(2 * self.seeds, progress)
        self._measure_ends()
        try:
            self._train(len(self.preferences) * self.seeds, progress)
        except KeyboardInterrupt:
            progress.say("stopped; the front is of what there is")

    def _train(self, count: int, progress: Progress) -> None:
        train_all(self.study, self.bench, count, self._training, progress)

    def _training(self, number: int) -> tuple[str, Setting, int]:
        name, seed = self._named(number)
        return name, self._setting(self.preferences[number // self.seeds]), seed

    def _named(self, number: int) -> tuple[str, int]:
        point, seed = divmod(number, self.seeds)
        share = self.preferences[point]
        return f"{share:.3g} : {1 - share:.3g}", seed

    def _setting(self, share: float) -> Setting:
        """The weights, or the rule, of a preference for the first part."""
        preference = np.array([share, 1 - share])
        if share in (0.0, 1.0):
            return Setting(dict(zip(self.parts, preference.tolist(), strict=True)))
        # In units of the distance between the ends; the sum 1 keeps the size of the gradient.
        scaled = preference / self._distances(len(self.bench.objectives) - 2)
        scale = scaled.sum()
        if self.method == "weights":
            return Setting(dict(zip(self.parts, (scaled / scale).tolist(), strict=True)))
        order = [list(self.parts).index(name) for name in self.names]
        rule = weightings.Worst(
            temperature=float(TEMPERATURE / scale),
            weights=(scaled / scale)[order].tolist(),
            reference=self._ends[:, -2:].min(axis=0)[order].tolist(),
        )
        return Setting(dict.fromkeys(self.parts, 1.0), rule=rule)

    def _distances(self, first: int) -> Any:
        """From utopia to nadir: in training, which is where the weights act."""
        found = self._ends[:, first : first + 2]
        return found.max(axis=0) - found.min(axis=0)

    def _measure_ends(self) -> None:
        """Reads utopia and nadir from the two single-part trainings."""
        ends = self.runs()[:2]
        failed = [run for run in ends if not run.per_seed]
        if failed:
            raise ValueError(
                "Each of the two `parts` must be trained alone first. Received: "
                f"{failed[0].name}, which ended so: {failed[0].note}"
            )
        keys = [goal.key for goal in self.bench.objectives]
        self._ends = np.array([[run.values[key] for key in keys] for run in ends])
        self.utopia, self.nadir = self._ends[:, :2].min(axis=0), self._ends[:, :2].max(axis=0)
        first, second = self._ends[:, -2:]
        if not (first[0] < second[0] and second[1] < first[1]):
            raise ValueError(
                f"The two `parts` must be in conflict, so that there is something to choose. "
                f"Received: trained alone '{self.parts[0]}' ends at {first.tolist()}, "
                f"'{self.parts[1]}' at {second.tolist()} (values of both)"
            )

    def runs(self) -> list[Run]:
        """One run for each preference that has been trained with, the two ends first."""
        return joined_runs(self.study, self._named)
