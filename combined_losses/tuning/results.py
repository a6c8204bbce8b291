"""What trainings reached: a run, and how much of a difference is noise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from combined_losses.tuning.bench import Outcome
from combined_losses.tuning.objectives import Objective

State = Literal["finished", "stopped", "failed"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Run:
    """One setting, trained once for each seed.

    Attributes:
        name: `"trial 7"`, or `"equal weights"`, `"proposed by diagnose"`, `"as compiled"`.
        parameters: what was changed, from parameter to number or the name of a rule.
        per_seed: from objective to its values, one for each seed; empty without a result.
        state: `"finished"`; `"stopped"` early, because it was worse than the median; `"failed"`.
        note: what failed, or when it was stopped.
        seconds_per_step: the median of the seeds.

    Example:

    >>> from combined_losses.tuning import Run
    >>> run = Run("trial 0", {"under": 0.3}, {"val_mae": [1.0, 2.0]})
    >>> run.values, run.spreads
    ({'val_mae': 1.5}, {'val_mae': 0.7071})
    """

    name: str
    parameters: Mapping[str, Any]
    per_seed: Mapping[str, Sequence[float]] = field(default_factory=dict)
    state: State = "finished"
    note: str = ""
    seconds_per_step: float = math.nan

    @property
    def values(self) -> dict[str, float]:
        """The mean over the seeds of each objective."""
        return {key: float(np.mean(values)) for key, values in self.per_seed.items()}

    @property
    def spreads(self) -> dict[str, float]:
        """The standard deviation over the seeds; NaN with one seed."""
        return {
            key: float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            for key, values in self.per_seed.items()
        }


def run_of(name: str, parameters: Mapping[str, Any], outcome: Outcome) -> Run:
    """The run of a training that has come to its end."""
    seconds = float(np.median(outcome.seconds_per_step))
    return Run(name, dict(parameters), dict(outcome.values), seconds_per_step=seconds)


def as_record(run: Run) -> dict[str, Any]:
    """A run as a storage keeps it."""
    return {
        "parameters": dict(run.parameters),
        "per_seed": {key: list(values) for key, values in run.per_seed.items()},
        "state": run.state,
        "note": run.note,
        "seconds_per_step": run.seconds_per_step,
    }


def from_record(name: str, record: Mapping[str, Any]) -> Run:
    return Run(name, **record)


def joined_seeds(name: str, parts: Sequence[Run]) -> Run:
    """One run of several that had a seed each; it has failed if one of them has."""
    failed = [part for part in parts if part.state == "failed"]
    if failed:
        return replace(failed[0], name=name)
    per_seed: dict[str, list[float]] = {}
    for part in parts:
        for key, values in part.per_seed.items():
            per_seed.setdefault(key, []).extend(values)
    seconds = float(np.median([part.seconds_per_step for part in parts]))
    return Run(name, parts[0].parameters, per_seed, seconds_per_step=seconds)


@dataclass(frozen=True)
class Difference:
    """By how much a run is better than another, seed by seed.

    Attributes:
        mean: the mean difference; above 0 where the run is better, whatever the direction.
        low, high: the ends of the 95 % interval of that mean (Student's t of the paired
            differences); NaN with one seed.
        exceeds_noise: whether the whole interval is above 0.

    Example:

    >>> from combined_losses.tuning import Difference
    >>> gain = Difference(mean=0.2, low=-0.1, high=0.5)
    >>> gain.exceeds_noise
    False
    >>> print(gain)
    +0.2, 95 % interval -0.1 to +0.5
    """

    mean: float
    low: float
    high: float

    @property
    def exceeds_noise(self) -> bool:
        return self.low > 0

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.mean:+.3g} (one seed: the noise is unknown)"
        return f"{self.mean:+.3g}, 95 % interval {self.low:+.3g} to {self.high:+.3g}"


def difference(run: Run, base: Run, objective: Objective) -> Difference:
    """By how much `run` is better than `base` in one objective."""
    from scipy.stats import t

    pairs = zip(run.per_seed[objective.key], base.per_seed[objective.key], strict=False)
    ours, theirs = np.array(list(pairs)).T  # without seeds that only one of them has had yet
    better = objective.sign * (theirs - ours)
    mean, n = float(better.mean()), len(better)
    if n < 2:
        return Difference(mean, math.nan, math.nan)
    half = float(t.ppf(0.5 + CONFIDENCE / 2, n - 1) * better.std(ddof=1) / math.sqrt(n))
    return Difference(mean, mean - half, mean + half)


def is_dominated(run: Run, others: Sequence[Run], objectives: Sequence[Objective]) -> bool:
    """Whether another run is at least as good in all objectives and better in one."""
    mine = _signed(run, objectives)
    return any(
        np.all(theirs <= mine) and np.any(theirs < mine)
        for theirs in (_signed(other, objectives) for other in others)
    )


def _signed(run: Run, objectives: Sequence[Objective]) -> Any:
    """The objectives, so that lower is better."""
    return np.array([objective.sign * run.values[objective.key] for objective in objectives])


def preferred(
    runs: Sequence[Run], objectives: Sequence[Objective], prefer: Mapping[str, float]
) -> Run:
    """The run that a preference chooses.

    Of several objectives each is put on a scale from 0, the best of the runs, to 1, the worst on
    the Pareto front; the run whose largest `prefer * scaled` is the smallest is chosen.
    """
    points = np.array([_signed(run, objectives) for run in runs])
    front = np.array([not is_dominated(run, runs, objectives) for run in runs])
    low, high = points[front].min(axis=0), points[front].max(axis=0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    weights = np.array([prefer.get(objective.key, 1.0) for objective in objectives])
    worst = (weights * scaled).max(axis=1)
    # Between equals the one with the smaller sum: it is not dominated.
    return runs[int(np.lexsort(((weights * scaled).sum(axis=1), worst))[0])]
