"""The trainings of a search: the same data, the same seeds, a new model each time."""

import contextlib
import copy
import gc
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import keras
import numpy as np

from combined_losses._backend import backend
from combined_losses._core.shell import quiet_if_command
from combined_losses.callbacks import TerminateOnComponentNaN
from combined_losses.tuning.arguments import check_count
from combined_losses.tuning.given import (
    described_data,
    described_model,
    fit_arguments,
    is_plain,
)
from combined_losses.tuning.objectives import Objective, all_finite, check_keys, values_in
from combined_losses.tuning.settings import Setting, composite_of

Build: TypeAlias = Callable[[], keras.Model]
Report: TypeAlias = Callable[[int, Mapping[str, float]], bool]
"""Given an epoch and its values; returns whether the training is to stop there."""


class Failed(Exception):
    """A training that has no result; its text says why."""


class Stopped(Exception):
    """A training that was stopped early, because it was worse than others."""


@dataclass
class Outcome:
    """What one setting reached, for each seed.

    Attributes:
        values: from objective to one number for each seed.
        seconds_per_step: the median over epochs of a step, without the first epoch, for each seed.
    """

    values: dict[str, list[float]] = field(default_factory=dict)
    seconds_per_step: list[float] = field(default_factory=list)

    def add(self, values: Mapping[str, float], seconds: float) -> None:
        for key, value in values.items():
            self.values.setdefault(key, []).append(value)
        self.seconds_per_step.append(seconds)


class Bench:
    """Trains settings on the user's data.

    Args:
        build: returns a compiled model, a new one in every call.
        data: `(x, y)`, `(x, y, sample_weight)`, or a data set that can be read many times.
        validation: None, a share of the arrays, or as `data`.
        objectives: what is read from the logs of the last epoch.
        seed: the seed of the first training; the next ones have `seed + 1`, and so on.
        fit: more arguments of `fit`, such as `epochs` and `batch_size`.
    """

    def __init__(
        self,
        build: Build,
        data: Any,
        validation: Any,
        objectives: Sequence[Objective],
        seed: int,
        fit: Mapping[str, Any],
    ) -> None:
        if not callable(build):
            raise ValueError(
                "`build` must be a function without arguments that returns a new compiled model. "
                f"Received: {build!r} of type {type(build).__name__}"
            )
        check_count("seed", seed, 0)
        check_count("epochs", fit.get("epochs", 1), 1)
        self.build = build
        self.objectives = objectives
        self.seed = seed
        self._data = fit_arguments(data, validation)
        self._fit = {"epochs": 1, **fit}

    @contextlib.contextmanager
    def first_model(self) -> Iterator[keras.Model]:
        """A new model, after a look at what `build` returns; freed after the block.

        Raises if models cannot be trained anew again and again, or do not log the objectives.
        """
        with freed():
            tried = self._model()
            self._try_first_step(tried)
            keras.utils.set_random_seed(self.seed)
            model = self.build()
            _check_apart(tried, model)
            del tried
            yield model
            del model

    @property
    def epochs(self) -> int:
        """How many epochs a training has."""
        return int(self._fit["epochs"])

    def described(self, model: keras.Model) -> dict[str, Any]:
        """By what a storage knows the same trainings again: a part of JSON."""
        return {
            "objectives": [list(goal) for goal in self.objectives],
            "seed": self.seed,
            **{name: value for name, value in self._fit.items() if is_plain(value)},
            **described_data(self._data),
            **described_model(model),
        }

    def _model(self, seed: int = 0) -> keras.Model:
        keras.utils.set_random_seed(self.seed + seed)
        model = self.build()
        composite_of(model)  # raises
        if int(keras.ops.convert_to_numpy(model.optimizer.iterations.value)):
            raise ValueError(
                "`build` must return a model that has not been trained. Received: a model after "
                "some steps of training"
            )
        return model

    def _try_first_step(self, model: keras.Model) -> None:
        """Reads the log keys of one epoch of one step, and checks the objectives."""
        arguments = {**self._fit, "epochs": 1, "steps_per_epoch": 1, "callbacks": None}
        if self._data.get("validation_data") is not None:
            arguments["validation_steps"] = 1
        with quiet_if_command():  # on torch and JAX, Keras imports TensorFlow at this moment
            history = model.fit(**self._data, **{**arguments, "verbose": 0})
        keys = [key for key in history.history if not key.endswith("_weight")]
        check_keys(self.objectives, keys)

    @contextlib.contextmanager
    def model(self, setting: Setting, seed: int = 0) -> Iterator[keras.Model]:
        """A new model with a setting, freed after the block."""
        with freed():
            model = self._model(seed)
            setting.apply(model)
            yield model
            del model

    @property
    def batches(self) -> Any:
        """What `diagnose` takes: `(x, y, sample_weight)`."""
        return tuple(self._data.get(name) for name in ("x", "y", "sample_weight"))

    def run(self, setting: Setting, seeds: Sequence[int], report: Report | None = None) -> Outcome:
        """Trains a setting once for each seed; the report is made of the first one.

        Raises `Failed` or `Stopped`.
        """
        outcome = Outcome()
        for index, seed in enumerate(seeds):
            watch = _Watch(self.objectives, report if index == 0 else None)
            try:
                self._fit_new(setting, seed, watch)
            except Exception as error:
                first = (str(error).strip().splitlines() or [""])[0]
                raise Failed(f"{type(error).__name__}: {first}") from error
            if watch.what_is_not_finite:
                raise Failed(self._blame(setting, seed) or watch.what_is_not_finite)
            if watch.is_stopped:
                raise Stopped(f"after epoch {watch.epochs}")
            outcome.add(watch.values, watch.seconds_per_step)
        return outcome

    def _blame(self, setting: Setting, seed: int) -> str:
        """Which component is not finite first: the same training again, looking at every step."""
        try:
            self._fit_new(setting, seed, TerminateOnComponentNaN(raise_error=True))
        except RuntimeError as error:
            return str(error).partition("; training stops")[0]
        return ""  # in training all are finite

    def _fit_new(self, setting: Setting, seed: int, watch: keras.callbacks.Callback) -> None:
        """Trains a new model. A frame of its own, so that nothing holds the model afterwards."""
        with self.model(setting, seed) as model:
            callbacks = [*copy.deepcopy(self._fit.get("callbacks") or []), watch]
            with _without_advice():
                model.fit(**self._data, **{**self._fit, "callbacks": callbacks, "verbose": 0})


class _Watch(keras.callbacks.Callback):
    """Reads the objectives of every epoch, and stops where nothing can come of it."""

    def __init__(self, objectives: Sequence[Objective], report: Report | None) -> None:
        super().__init__()
        self._objectives = objectives
        self._report = report
        self._steps = 0
        self._seconds: list[float] = []
        self.values: dict[str, float] = {}
        self.epochs = 0
        self.what_is_not_finite = ""
        self.is_stopped = False

    @property
    def seconds_per_step(self) -> float:
        """The median over the epochs but the first, which compiles."""
        found = self._seconds[1:] or self._seconds
        return float(np.median(found)) if found else math.nan

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._steps, self._start = 0, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._steps == batch:
            self._steps = batch + 1
            self._end = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._seconds.append((self._end - self._start) / max(self._steps, 1))
        logs, self.epochs = dict(logs or {}), epoch + 1
        self.values = values_in(logs, self._objectives)
        if not all_finite(self.values):
            key = next(key for key, value in logs.items() if not np.isfinite(value))
            self.what_is_not_finite = f"'{key}' is {logs[key]:g} in epoch {epoch + 1}"
            self.model.stop_training = True
        elif self._report is not None and self._report(epoch, self.values):
            self.is_stopped = self.model.stop_training = True


def _check_apart(first: keras.Model, second: keras.Model) -> None:
    """Raises if two models, or their composites, share what trainings change."""
    ours, theirs = composite_of(first), composite_of(second)
    ids = {id(v) for v in (*first.variables, *ours.variables)}
    shared = any(id(v) in ids for v in (*second.variables, *theirs.variables))
    if first is second or shared or ours is theirs:
        raise ValueError(
            "`build` must make a new model and a new loss in every call, or trainings go on from "
            "one another: create the layers, the optimizer and the CompositeLoss inside of it. "
            "Received: "
            + ("the same model twice" if first is second else "two models that share them")
        )


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Hides TensorFlow's advice against many compiled steps: each training has to have its own."""

    def is_other(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


@contextlib.contextmanager
def freed() -> Iterator[None]:
    """Frees the models that were made in the block, and what is left of those before it."""
    # Frames that have ended by now still held the last model when its own block was left.
    gc.collect()
    try:
        with backend.forgetting():
            yield
    finally:
        keras.utils.clear_session(free_memory=True)


@contextlib.contextmanager
def new_garbage_alone() -> Iterator[None]:
    """In the block the garbage collector looks only at what the block has made.

    It runs after every training, and looking at all that three frameworks hold takes half a second.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
