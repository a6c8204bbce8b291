"""Trainings in a fixed order: the number of a trial says which it is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from combined_losses.tuning.bench import Bench, Failed
from combined_losses.tuning.progress import Progress
from combined_losses.tuning.results import Run, as_record, from_record, joined_seeds, run_of
from combined_losses.tuning.settings import Setting
from combined_losses.tuning.study import LOGICAL, RECORD, Study
from combined_losses.tuning.tables import line_of

Training: TypeAlias = Callable[[int], tuple[str, Setting, int]]
"""From the number of a training to its name, its setting and its seed."""


def trained(
    bench: Bench, name: str, parameters: Mapping[str, Any], setting: Setting, seeds: Sequence[int]
) -> Run:
    """The run of a setting; one that has failed says why."""
    try:
        return run_of(name, parameters, bench.run(setting, seeds))
    except Failed as failed:
        return Run(name, dict(parameters), state="failed", note=str(failed))


def train_all(
    study: Study, bench: Bench, count: int, training: Training, progress: Progress
) -> None:
    """Trains until `count` trainings have ended, those of other processes too."""
    while _train_next(study, bench, count, training, progress) or study.is_waited_for(count):
        pass


def _train_next(
    study: Study, bench: Bench, count: int, training: Training, progress: Progress
) -> bool:
    """Trains the next one; False where `count` have been begun."""
    with study.trial(count) as trial:
        if trial is None:
            return False
        name, setting, seed = training(trial.user_attrs[LOGICAL])
        run = trained(bench, name, {}, setting, [seed])
        trial.set_user_attr(RECORD, as_record(run))
        values = [run.values[goal.key] for goal in bench.objectives if run.per_seed]
        study.tell(trial, values or None)
        progress.done(f"seed {seed}, {line_of(run)}")
    return True


def joined_runs(study: Study, named: Callable[[int], tuple[str, int]]) -> list[Run]:
    """One run for each name, of the seeds that it has been trained with.

    Where one is missing, because another process still works on it or the user has stopped, those
    after it are left out: differences between runs are taken seed by seed. `named` gives the name
    and the seed of a number.
    """
    found: dict[str, list[Run]] = {}
    for trial in study.trials:
        if RECORD in trial.user_attrs:
            name, seed = named(trial.user_attrs[LOGICAL])
            runs = found.setdefault(name, [])
            if len(runs) == seed:
                runs.append(from_record(name, trial.user_attrs[RECORD]))
    return [joined_seeds(name, runs) for name, runs in found.items() if runs]
