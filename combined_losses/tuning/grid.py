"""Trainings in a fixed order: the number of a trial says which it is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from combined_losses.tuning.bench import Bench, Failed
from combined_losses.tuning.progress import Progress
from combined_losses.tuning.results import Run, as_record, from_record, joined_seeds, run_of
from combined_losses.tuning.settings import Setting
from combined_losses.tuning.study import LOGICAL, RECORD, Study
from combined_losses.tuning.tables import line_of


def trained(
    bench: Bench, name: str, parameters: Mapping[str, Any], setting: Setting, seeds: Sequence[int]
) -> Run:
    """The run of a setting; one that has failed says why."""
    try:
        return run_of(name, parameters, bench.run(setting, seeds))
    except Failed as failed:
        return Run(name, dict(parameters), state="failed", note=str(failed))


def train_next(
    study: Study,
    bench: Bench,
    count: int,
    training: Callable[[int], tuple[str, Setting, int]],
    progress: Progress,
) -> bool:
    """Trains the next one; False where `count` have been begun.

    `training` gives the name, the setting and the seed of a number.
    """
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


def joined_runs(study: Study, name_of: Callable[[int], str]) -> list[Run]:
    """One run for each name, of all seeds that it has been trained with, in order."""
    found: dict[str, list[Run]] = {}
    for trial in study.trials:
        if RECORD in trial.user_attrs:
            name = name_of(trial.user_attrs[LOGICAL])
            found.setdefault(name, []).append(from_record(name, trial.user_attrs[RECORD]))
    return [joined_seeds(name, runs) for name, runs in found.items()]
