"""`search`: which weights does the user's own data want?"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from combined_losses._core.checks import is_number
from combined_losses._core.names import quoted
from combined_losses.tuning import references
from combined_losses.tuning.arguments import check_count, check_installed
from combined_losses.tuning.bench import Bench, Build, Failed, Report, Stopped, new_garbage_alone
from combined_losses.tuning.grid import trained
from combined_losses.tuning.objectives import Objective, Objectives, as_objectives
from combined_losses.tuning.parameters import Parameters, Space
from combined_losses.tuning.progress import Progress
from combined_losses.tuning.results import Run, State, as_record, from_record, run_of
from combined_losses.tuning.search_result import SearchResult
from combined_losses.tuning.settings import Setting, composite_of
from combined_losses.tuning.study import LOGICAL, RECORD, Study
from combined_losses.tuning.tables import line_of

if TYPE_CHECKING:
    import optuna

CONFIRMED = 10_000  # the first of the fresh seeds that confirm the best


@new_garbage_alone()
def search(
    build: Build,
    data: Any,
    *,
    parameters: Parameters,
    objectives: Objectives,
    validation: Any = None,
    trials: int = 40,
    seeds: int = 2,
    confirm: int = 3,
    prefer: Mapping[str, float] | None = None,
    storage: str | Path | None = "search.db",
    name: str = "search",
    seed: int = 0,
    verbose: int = 1,
    **fit: Any,
) -> SearchResult:
    """Searches for the weights that a user's own data want, and says how much is noise.

    Every trial is an ordinary `fit` of a new model. Three references are trained beside the trials:
    equal weights, the weights that `cl.diagnose` proposes, and the weights as compiled. With one
    objective Optuna's TPE sampler proposes the trials, and a trial that is worse than the median of
    the earlier ones after half of its epochs is stopped. With several, the same sampler looks for
    the Pareto front.

    A search that was killed goes on where it was when the same call is made again. Several
    processes that make the same call divide the trials. Needs `pip install
    "combined_losses[search]"`.

    Args:
        build: a function without arguments that returns a new compiled model: a `cl.Model`,
            `cl.Sequential` or `cl.track(model)` with one `CompositeLoss`.
        data: `(x, y)`, `(x, y, sample_weight)`, or a data set that can be read again.
        parameters: a dict. From a component, or `outer/inner`, to a range `(low, high)` of its
            fixed weight, which is searched on a logarithmic scale, or to a list of weights; from
            `<component>.<argument>` to the same for a number of its schedule, such as
            `"under.end"`; from `"weighting"` to a list of rules: names, rules, or None.
        objectives: log keys of `fit` with their directions, `"val_mae:min"`, a list of such, or a
            dict `{"val_mae": "min"}`. The last epoch counts. Take a metric, or the unweighted value
            of a component: the total changes with the weights.
        validation: None; a share of the arrays, such as 0.2; or as `data`.
        trials: how many settings are tried, at least 1. Default 40.
        seeds: how often each is trained, with the same seeds for all. Default 2.
        confirm: how often the best setting and equal weights are trained anew at the end, with
            fresh seeds: the best of many noisy trials looks better than it is. Default 3; 0: never.
        prefer: for several objectives the importance of each, default 1: see
            `SearchResult.best`.
        storage: the path of an SQLite file, a URL as Optuna takes it, or None: in memory. It is
            refused if it holds a search of other data, of another model or with other arguments.
        name: the name of the search in the storage.
        seed: the seed of the sampler, and the first seed of the trainings.
        verbose: 1 (default): a progress bar, and a line for each trial; 0: nothing.
        **fit: arguments of `fit`, such as `epochs`, `batch_size` and `callbacks` (which are copied
            for each training).

    Returns:
        A `SearchResult`. Ctrl-C ends the search early: the result then holds what there is.

    Raises:
        ValueError: for an unknown component, a range that is not 0 < low < high, an objective that
            is no log key, a `build` whose model is not compiled, is not tracked or is not new, a
            storage that is locked or holds another search, and numbers that are too small.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(64, 3))
    >>> y = x.sum(axis=1, keepdims=True) + rng.normal(size=(64, 1))
    >>> def build():
    ...     model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    ...     loss = cl.CompositeLoss({"fit": "mse", "under": cl.losses.UnderestimationPenalty()})
    ...     model.compile(keras.optimizers.Adam(0.1), loss=loss, metrics=["mae"])
    ...     return model
    >>> found = cl.search(
    ...     build,
    ...     (x, y),
    ...     parameters={"under": (0.01, 10.0)},
    ...     objectives="val_mae:min",
    ...     validation=0.25,
    ...     trials=2,
    ...     seeds=1,
    ...     confirm=0,
    ...     storage=None,
    ...     verbose=0,
    ...     epochs=2,
    ... )
    >>> [run.name for run in found.runs]
    ['equal weights', 'proposed by diagnose', 'as compiled', 'trial 0', 'trial 1']
    """
    check_installed()
    check_count("trials", trials, 1)
    check_count("seeds", seeds, 1)
    check_count("confirm", confirm, 0)
    goals = as_objectives(objectives)
    bench = Bench(build, data, validation, goals, seed, fit)
    _check_preference(prefer, goals)
    _warn_of_weighted(goals)
    with bench.first_model() as model:
        space = Space(parameters, composite_of(model))
        described = {"parameters": space.described(), "seeds": seeds, **bench.described(model)}
        study = Study(storage, name, described, goals, seed)
        settings = references.settings(model, bench.batches)
        del model
    job = _Search(bench, space, study, settings, range(seeds), verbose)
    return job.run(trials, confirm, dict(prefer or {}))


def _check_preference(prefer: Any, objectives: Sequence[Objective]) -> None:
    if prefer is None:
        return
    keys = [goal.key for goal in objectives]
    sound = isinstance(prefer, Mapping) and all(
        key in keys and is_number(value) and value > 0 for key, value in prefer.items()
    )
    if not sound:
        raise ValueError(
            f"`prefer` must be a dict from objectives, {quoted(keys)}, to positive numbers. "
            f"Received: {prefer!r}"
        )


def _warn_of_weighted(objectives: Sequence[Objective]) -> None:
    weighted = [goal.key for goal in objectives if goal.is_weighted]
    if weighted:
        warnings.warn(
            f"'{weighted[0]}' is a sum with the weights that are searched, so that the smallest "
            "weights make it small. Take a metric or the value of one component as the objective. "
            f"Received: objectives with {weighted}",
            stacklevel=4,  # of the caller of `search`, which is decorated
        )


class _Search:
    """A search under way."""

    def __init__(
        self,
        bench: Bench,
        space: Space,
        study: Study,
        settings: Mapping[str, Setting],
        seeds: range,
        verbose: int,
    ) -> None:
        self.bench, self.space, self.study = bench, space, study
        self.settings, self.seeds, self.verbose = settings, seeds, verbose
        self.objectives = bench.objectives

    def run(self, trials: int, confirm: int, prefer: Mapping[str, float]) -> SearchResult:
        """All of it; returns early, with what there is, when the user interrupts."""
        begun = len(self.study.trials)
        total = len(self.settings) + max(trials - begun, 0) + 2 * bool(confirm)
        with Progress(total, self.verbose) as self.progress:
            try:
                for name in self.settings:
                    self.reference(name, self.seeds)
                while self.next_trial(trials) or self.study.is_waited_for(trials):
                    pass
                return self._confirmed(confirm, prefer)
            except KeyboardInterrupt:
                self.progress.say("stopped; the same call goes on from here")
                return self.result(prefer)

    def result(self, prefer: Mapping[str, float], confirmed: Sequence[Run] = ()) -> SearchResult:
        found = [self.study.kept(name) for name in self.settings]
        pairs = zip(self.settings, found, strict=True)
        marked = [from_record(name, record) for name, record in pairs if record is not None]
        tried = [run for trial in self.study.trials if (run := _run_of_trial(trial)) is not None]
        return SearchResult(
            objectives=self.objectives,
            references=marked,
            trials=tried,
            prefer=prefer,
            confirmed=confirmed,
            importances=self.study.importances(self.objectives),
            builder=self._built,
        )

    def _built(self, run: Run) -> Any:
        """A new model with the setting of a run."""
        model = self.bench.build()
        self._setting(run).apply(model)
        return model

    def _setting(self, run: Run) -> Setting:
        return self.settings.get(run.name) or self.space.setting(run.parameters)

    # References, and the best once more.

    def reference(self, name: str, seeds: Sequence[int], setting: Setting | None = None) -> Run:
        """Trains a reference, unless the storage has it."""
        setting = self.settings[name] if setting is None else setting
        record = self.study.kept(name)
        if record is None:
            record = as_record(trained(self.bench, name, setting.shown(), setting, seeds))
            self.study.keep(name, record)
        run = from_record(name, record)
        self.progress.done(line_of(run))
        return run

    def _confirmed(self, confirm: int, prefer: Mapping[str, float]) -> SearchResult:
        """The result, with the best and equal weights trained anew."""
        result = self.result(prefer)
        best, equal = result.winner, result.equal
        if not confirm or best is None or equal is None or best is equal:
            return result
        fresh = range(CONFIRMED, CONFIRMED + confirm)
        pair = [
            self.reference(f"{run.name}, fresh seeds {confirm}", fresh, self._setting(run))
            for run in (best, equal)
        ]
        return self.result(prefer, pair if all(run.per_seed for run in pair) else ())

    # Trials.

    def next_trial(self, trials: int) -> bool:
        """Trains the next trial; False where there is none left."""
        with self.study.trial(trials) as trial:
            if trial is None:
                return False
            values = self.space.suggest(trial)
            self.study.is_suggested(trial)
            self._train(trial, values)
        return True

    def _train(self, trial: "optuna.Trial", values: Mapping[str, Any]) -> None:
        name = f"trial {trial.user_attrs[LOGICAL]}"
        setting = self.space.setting(values)
        try:
            outcome = self.bench.run(setting, self.seeds, self._report_to(trial))
        except (Failed, Stopped) as end:
            is_pruned = isinstance(end, Stopped)
            state: State = "stopped" if is_pruned else "failed"
            run = Run(name, dict(values), state=state, note=str(end))
            trial.set_user_attr(RECORD, as_record(run))
            self.study.tell(trial, None, is_pruned)
        else:
            run = run_of(name, values, outcome)
            trial.set_user_attr(RECORD, as_record(run))
            self.study.tell(trial, [run.values[goal.key] for goal in self.objectives])
        self.progress.done(line_of(run))

    def _report_to(self, trial: "optuna.Trial") -> Report | None:
        """Tells the study the objective of each epoch; None where several cannot be compared."""
        if len(self.objectives) > 1:
            return None
        goal, epochs = self.objectives[0], self.bench.epochs
        half = epochs // 2 if epochs > 2 else 0  # earlier the order is not yet that of the end

        def report(epoch: int, values: Mapping[str, float]) -> bool:
            trial.report(values[goal.key], epoch)
            return epoch + 1 == half and self.study.is_behind(values[goal.key], epoch, goal)

        return report


def _run_of_trial(trial: "optuna.trial.FrozenTrial") -> Run | None:
    record = trial.user_attrs.get(RECORD)
    return None if record is None else from_record(f"trial {trial.user_attrs[LOGICAL]}", record)
