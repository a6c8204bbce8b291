"""The trials of a search in a storage of Optuna's: they survive a kill, and processes share them.

A trial has a *logical number*: its number, not counting the trials that repeat one which a killed
process has left. Its sampler is seeded with it. So a search that was killed and went on has the
same finished trials, in the order of these numbers, as one that was not.
"""

import contextlib
import json
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

# The attributes of trials and of the study that this package writes.
LOGICAL, REPEATS, OWNER, WHOLE = "number", "repeats", "owner", "all suggested"
RECORD = "run"  # what a trial has reached
SEARCH = "search"

_DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {"min": "minimize", "max": "maximize"}


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
                pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
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
        if not self._all("WAITING") and len(self.trials) >= count:
            yield None
            return
        with _no_warnings():
            trial = self._study.ask()
        trial.set_user_attr(OWNER, this_process())
        number = self._logical(trial.number, trial.user_attrs)
        if number >= count:  # another process was faster
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            yield None
            return
        trial.set_user_attr(LOGICAL, number)
        self._study.sampler = self._optuna.samplers.TPESampler(
            seed=(self._seed + 1_000_003 * (number + 1)) % 2**32, multivariate=False
        )
        with self._beating(trial.number):
            try:
                yield trial
            except BaseException:
                self._give_up(trial.number)
                raise

    def _logical(self, number: int, attributes: Mapping[str, Any]) -> int:
        """The logical number of a trial."""
        if REPEATS in attributes:
            return int(attributes[REPEATS])
        return sum(REPEATS not in each.user_attrs for each in self._all()[:number])

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

    def importances(self, objectives: Sequence[Objective]) -> dict[str, dict[str, float]]:
        """For each objective the share of each parameter in what moves it; {} if unknown."""
        importance, found = self._optuna.importance, {}
        for index, objective in enumerate(objectives):
            with _no_warnings(), contextlib.suppress(ValueError, RuntimeError):
                found[objective.key] = importance.get_param_importances(
                    self._study,
                    evaluator=importance.PedAnovaImportanceEvaluator(),
                    target=lambda trial, index=index: trial.values[index],
                )
        return found

    # Trials that nobody works on any more.

    def _repeat_the_dead(self) -> None:
        for trial in self._all("RUNNING"):
            if is_dead(trial.user_attrs.get(OWNER)):
                self._give_up(trial.number)
        if isinstance(self._storage, self._optuna.storages.RDBStorage):
            with _no_warnings():
                self._optuna.storages.fail_stale_trials(self._study)

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
        number = self._logical(trial.number, trial.user_attrs)
        self._study.enqueue_trial(parameters, user_attrs={REPEATS: number})

    def _id_of(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(self._study.study_name)
        return int(self._storage.get_trial_id_from_study_id_trial_number(study, number))

    @contextlib.contextmanager
    def _beating(self, number: int) -> Iterator[None]:
        """Tells other machines, all the while, that somebody works on a trial."""
        if not isinstance(self._storage, self._optuna.storages.RDBStorage):
            yield
            return
        end, trial_id = threading.Event(), self._id_of(number)

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
        first = str(error.__cause__ or error).strip().splitlines()[0]
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
