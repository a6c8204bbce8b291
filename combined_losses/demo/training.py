"""Training the same small network many times, and saving one so that it loads as it was."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import combined_losses as cl
from combined_losses._core.keras_types import KerasCallback
from combined_losses._core.shell import CommandError, quiet_stderr

EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class Split:
    """Training data and held-out data, each a pair of inputs and targets."""

    train: tuple[np.ndarray, np.ndarray]
    held_out: tuple[np.ndarray, np.ndarray]


class Advance(KerasCallback):
    """Calls `step` after every epoch."""

    def __init__(self, step: Callable[[], None]) -> None:
        super().__init__()
        self.step = step

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.step()


class Look(KerasCallback):
    """Predicts `x` after an epoch, counted from 1; None for never."""

    def __init__(self, x: np.ndarray, after: int | None) -> None:
        super().__init__()
        self.x, self.after = x, after
        self.y_pred: np.ndarray | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch + 1 == self.after:
            self.y_pred = predict(self.model, self.x)


def predict(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """What the model predicts, in few large batches."""
    y_pred: np.ndarray = model.predict(x, batch_size=EVALUATION_BATCH, verbose=0)
    return y_pred


class Trainer:
    """A compiled network that can start over, because compiling takes longer than training it."""

    def __init__(
        self, build: Callable[[], keras.Model], loss: cl.CompositeLoss, learning_rate: float
    ) -> None:
        self.build = build
        self.model: Any = build()
        self.model.compile(keras.optimizers.Adam(learning_rate), loss=loss)
        self.model.optimizer.build(self.model.trainable_variables)
        self._optimizer_start = [v.numpy() for v in self.model.optimizer.variables]

    def start_over(self, seed: int) -> None:
        """New starting weights, the same for every trainer of this network and `seed`."""
        keras.utils.set_random_seed(seed)
        for layer, fresh in zip(self.model.layers, self.build().layers, strict=True):
            layer.set_weights(fresh.get_weights())
        for variable, start in zip(
            self.model.optimizer.variables, self._optimizer_start, strict=True
        ):
            variable.assign(start)

    def fit(
        self, split: Split, *, seed: int, validate: bool, **kwargs: Any
    ) -> keras.callbacks.History:
        """Trains from the start; `validate`: also validates, which takes as long again."""
        self.start_over(seed)
        held_out = split.held_out if validate else None
        return self.model.fit(*split.train, validation_data=held_out, verbose=0, **kwargs)


def tensorboard(folder: Path) -> list[keras.callbacks.Callback]:
    """The TensorBoard callback; none where TensorFlow, which writes the events, is missing."""
    callback = keras.callbacks.TensorBoard(folder, write_graph=False)
    try:
        with quiet_stderr():
            callback.summary  # noqa: B018 - this imports TensorFlow, also on other backends
    except ImportError:
        return []
    return [callback]


def save_and_check(
    model: keras.Model, path: Path, data: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """Saves the model, loads it, and returns what both evaluate to; raises where they differ."""
    how = {"batch_size": EVALUATION_BATCH, "verbose": 0, "return_dict": True}
    before: dict[str, float] = model.evaluate(*data, **how)
    model.save(path)
    after = keras.models.load_model(path).evaluate(*data, **how)
    check_equal(before, after, path.name)
    return before


def check_equal(before: Mapping[str, float], after: Mapping[str, float], name: str) -> None:
    """Raises unless the numbers of a model before saving and after loading are the same."""
    same = before.keys() == after.keys() and all(
        np.isclose(before[key], after[key], rtol=1e-5, atol=1e-7, equal_nan=True) for key in before
    )
    if not same:
        raise CommandError(
            f"{name}, loaded again, does not evaluate to the same numbers, so nothing was "
            f"written: before saving {before}, after loading {after}; please report this"
        )
