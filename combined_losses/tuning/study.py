"""The trials of a search in a storage of Optuna's: they survive a kill, and processes share them.

A trial has a *logical number*: its number, not counting the trials that repeat one which a killed
process has left. Its sampler is seeded with it. So a search that was killed and went on has the
same finished trials, in the order of these numbers, as one that was not.
"""

import contextlib
import datetime
import itertools
import json
import statistics
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from combined_losses.tuning.objectives import Objective
from combined_losses.tuning.owners import is_dead, this_process

if TYPE_CHECKING:
    import optuna

Frozen: TypeAlias = "optuna.trial.FrozenTrial"

# Seconds: how often a trial says that it lives, and when one of another machine counts as dead.
HEARTBEAT, GRACE = 30, 120
LEAST_ENDED = 5  # trials, before one is stopped
MOMENT = 5  # seconds that a process may take between ending a trial and having it repeated

# The attributes of trials and of the study that this package writes.
LOGICAL, REPEATS, OWNER, WHOLE = "number", "repeats", "owner", "all suggested"
RECORD = "run"  # what a trial has reached
SEARCH = "search"

_DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {"min": "minimize", "max": "maximize"}


_AT_WORK: set[int] = set()  # the trials that threads of this process work on, by their ids


class Study:
    """A study of Optuna's, and what this package keeps in it.

    Args:
        storage: None: in memory; the path of an SQLite file; or a URL as Optuna takes it.
        name: the name of the study in the storage.
        search: what the search is of; a storage that holds another one is refused.
        objectives: what the trials are judged by.
        seed: that of the samplers.
    """

    def __init__(
        self,
        storage: str | Path | None,
        name: str,
        search: Mapping[str, Any],
        objectives: Sequence[Objective],
        seed: int,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._seed = optuna, seed
        with _readable(storage):
            self._storage = self._open(storage)
            self._study: optuna.Study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                load_if_exists=True,
                directions=[_DIRECTIONS[objective.direction] for objective in objectives],
                pruner=optuna.pruners.NopPruner(),  # `is_behind` says which trials are stopped
            )
            known = self._study.user_attrs.get(SEARCH)
            if known is None:
                self.keep(SEARCH, dict(search))
        if known is not None:
            _check_same(known, search, storage)

    def _open(self, storage: str | Path | None) -> Any:
        storages = self._optuna.storages
        if storage is None:
            return storages.InMemoryStorage()
        text = str(storage)
        url = text if "://" in text else f"sqlite:///{Path(text).absolute()}"
        options = {
            "heartbeat_interval": HEARTBEAT,
            "grace_period": GRACE,
            "heartbeat_stale_trial_callback": lambda _, trial: self._repeat(trial),
        }
        with _no_warnings():
            try:
                return storages.RDBStorage(url, **options)
            except Exception:  # another process may be making the same file at this moment
                time.sleep(1)
                return storages.RDBStorage(url, **options)

    # What is kept beside the trials.

    def kept(self, key: str) -> Any:
        """What some process has kept under a key, or None."""
        return self._study.user_attrs.get(key)

    def keep(self, key: str, value: Any) -> None:
        self._study.set_user_attr(key, value)

    # Trials.

    @property
    def trials(self) -> list[Frozen]:
        """The trials by logical number; of one that was repeated the last."""
        found = {trial.user_attrs.get(LOGICAL): trial for trial in self._all()}
        return [
            found[number] for number in sorted(number for number in found if number is not None)
        ]

    def _all(self, *states: str) -> list[Frozen]:
        """All trials, or those in some of the states, such as `"RUNNING"`, in order."""
        wanted = tuple(self._optuna.trial.TrialState[state] for state in states) or None
        return list(self._study.get_trials(deepcopy=False, states=wanted))

    @contextlib.contextmanager
    def trial(self, count: int) -> Iterator["optuna.Trial | None"]:
        """A block for the next trial; None where `count` trials have been begun.

        A trial whose block is left by an exception is repeated, here or by another process.
        """
        self._repeat_the_dead()
        self._repeat_the_lost(count)
        if not self._is_one_left(count):
            yield None
            return
        with _no_warnings():
            trial = self._study.ask()
        trial.set_user_attr(OWNER, this_process())
        number = self._logical(trial.number)
        if number >= count:  # another process was faster, or it is to be repeated later
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            if REPEATS in trial.user_attrs:
                self._repeat(self._all()[trial.number])
            yield None
            return
        trial.set_user_attr(LOGICAL, number)
        self._study.sampler = self._optuna.samplers.TPESampler(
            seed=(self._seed + 1_000_003 * (number + 1)) % 2**32, multivariate=False
        )
        with self._at_work(trial.number):
            try:
                yield trial
            except self._optuna.exceptions.UpdateFinishedTrialError:
                return  # it took so long that another process has had it repeated
            except BaseException:
                self._give_up(trial.number)
                raise

    def _is_one_left(self, count: int) -> bool:
        """Whether one of the first `count` trials has not been begun, or is to be repeated."""
        waiting = self._optuna.trial.TrialState.WAITING
        found = [(number, trial.state) for number, trial in self._numbered() if number < count]
        return len({number for number, _ in found}) < count or waiting in dict(found).values()

    def _logical(self, number: int) -> int:
        """The logical number of a trial."""
        return self._numbered()[number][0]

    def _numbered(self) -> list[tuple[int, Frozen]]:
        """All trials in order, each after its logical number."""
        trials, new = self._all(), itertools.count()
        return [
            (int(trial.user_attrs[REPEATS]) if REPEATS in trial.user_attrs else next(new), trial)
            for trial in trials
        ]

    def is_suggested(self, trial: "optuna.Trial") -> None:
        """Says that a trial has all of its parameters, so that a repeat has the same."""
        trial.set_user_attr(WHOLE, True)

    def tell(
        self,
        trial: "optuna.Trial",
        values: Sequence[float] | None,
        is_pruned: bool = False,
    ) -> None:
        """Ends a trial with its values, or without."""
        states = self._optuna.trial.TrialState
        if values is not None:
            self._study.tell(trial, list(values))
        else:
            self._study.tell(trial, state=states.PRUNED if is_pruned else states.FAIL)

    def is_behind(self, value: float, epoch: int, objective: Objective) -> bool:
        """Whether a trial is worse at an epoch than the median of those that have ended.

        Asked once in a trial, so that the trials that were stopped are in that median. One of the
        finished trials alone becomes stricter with each trial, and stops nearly all.
        """
        others = [trial.intermediate_values for trial in self._all("COMPLETE", "PRUNED")]
        found = [values[epoch] for values in others if epoch in values]
        if len(found) < LEAST_ENDED:
            return False
        return objective.sign * value > objective.sign * float(statistics.median(found))

    def importances(self, objectives: Sequence[Objective]) -> dict[str, dict[str, float]]:
        """For each objective the share of each parameter in what moves it; {} if unknown."""
        importance, found = self._optuna.importance, {}
        # What the best trials have in common: the best tenth, but at least five.
        share = min(0.5, max(0.1, 5 / max(len(self._all("COMPLETE")), 1)))
        for i, objective in enumerate(objectives):
            with _no_warnings(), contextlib.suppress(ValueError, RuntimeError):
                found[objective.key] = importance.get_param_importances(
                    self._study,
                    evaluator=importance.PedAnovaImportanceEvaluator(target_quantile=share),
                    # The evaluator takes lower values for better.
                    target=lambda trial, i=i, sign=objective.sign: sign * trial.values[i],
                )
        return found

    # Trials that nobody works on any more.

    def is_waited_for(self, count: int) -> bool:
        """Waits a second where another process works on one of the first `count` trials.

        Returns False where none does; if that process dies, `trial` has its trial again.
        """
        running = self._optuna.trial.TrialState.RUNNING
        if not any(n < count and trial.state == running for n, trial in self._numbered()):
            return False
        time.sleep(1)
        return True

    def _repeat_the_dead(self) -> None:
        for trial in self._all("RUNNING"):
            owner = trial.user_attrs.get(OWNER)
            # A process may be killed before it has said that a trial is its own.
            is_left = owner is None and _age(trial.datetime_start) > GRACE
            is_mine = owner == this_process() and self._id_of(trial.number) not in _AT_WORK
            if is_dead(owner) or is_left or is_mine:
                self._give_up(trial.number)
        if isinstance(self._storage, self._optuna.storages.RDBStorage):
            with _no_warnings():
                self._optuna.storages.fail_stale_trials(self._study)

    def _repeat_the_lost(self, count: int) -> None:
        """Has trials repeated whose process was killed between ending and repeating them."""
        failed = self._optuna.trial.TrialState.FAIL
        lost, covered = {}, set()
        for number, trial in self._numbered():
            has_ended = trial.state == failed and _age(trial.datetime_complete) > MOMENT
            if has_ended and RECORD not in trial.user_attrs:
                lost[number] = trial
            else:
                covered.add(number)
        for number, trial in lost.items():
            if number < count and number not in covered:
                self._repeat(trial)

    def _give_up(self, number: int) -> None:
        """Ends a trial without a result and has it repeated, unless another process has done so."""
        failed = self._optuna.trial.TrialState.FAIL
        try:
            self._storage.set_trial_state_values(self._id_of(number), state=failed)
        except self._optuna.exceptions.UpdateFinishedTrialError:
            return
        self._repeat(self._all()[number])

    def _repeat(self, trial: Frozen) -> None:
        """Has the parameters of a trial tried before new ones."""
        parameters = trial.params if WHOLE in trial.user_attrs else {}
        number = self._logical(trial.number)
        self._study.enqueue_trial(parameters, user_attrs={REPEATS: number})

    def _id_of(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(self._study.study_name)
        return int(self._storage.get_trial_id_from_study_id_trial_number(study, number))

    @contextlib.contextmanager
    def _at_work(self, number: int) -> Iterator[None]:
        """Says, all the while, that this process works on a trial."""
        trial_id = self._id_of(number)
        _AT_WORK.add(trial_id)
        try:
            with self._beating(trial_id):
                yield
        finally:
            _AT_WORK.discard(trial_id)

    @contextlib.contextmanager
    def _beating(self, trial_id: int) -> Iterator[None]:
        """Tells other machines, all the while, that somebody works on a trial."""
        if not isinstance(self._storage, self._optuna.storages.RDBStorage):
            yield
            return
        end = threading.Event()

        def beat() -> None:
            while not end.wait(HEARTBEAT):
                with contextlib.suppress(Exception):  # the next beat comes soon
                    self._storage.record_heartbeat(trial_id)

        self._storage.record_heartbeat(trial_id)
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()


@contextlib.contextmanager
def _readable(storage: str | Path | None) -> Iterator[None]:
    """Turns what a database raises into one sentence."""
    try:
        yield
    except Exception as error:
        first = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            "`storage` must be the path of an SQLite file, or the URL of a database, that this "
            "process can write to and that nobody holds locked. "
            f"Received: {str(storage)!r}; opening it gave: {first}"
        ) from error


def _check_same(known: Mapping[str, Any], search: Mapping[str, Any], storage: object) -> None:
    """Raises if the search in the storage has other arguments than this one."""
    search = json.loads(json.dumps(search))  # as the storage keeps it: lists for tuples
    for key in search:
        if known.get(key) != search[key]:
            raise ValueError(
                "`storage` holds another search: repeat its arguments to go on with it, or give "
                f"another file. Received: {str(storage)!r}, with {key}={known.get(key)!r}; "
                f"here {key}={search[key]!r}"
            )


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Hides what Optuna says of heartbeats: experimental, and meant for its own loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _age(moment: datetime.datetime | None) -> float:
    """The seconds since a moment of Optuna's, which knows no time zones."""
    return 0.0 if moment is None else (datetime.datetime.now() - moment).total_seconds()
