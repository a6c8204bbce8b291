"""`TerminateOnComponentNaN`: stops training when a component is not finite, and says which."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from combined_losses._core.keras_types import KerasCallback, Logs
from combined_losses._core.names import listed, quoted
from combined_losses.training.for_callbacks import (
    component_keys,
    last_batch,
    request_batches,
    skipped_throughout,
)
from combined_losses.training.model_state import state_of

__all__ = ["TerminateOnComponentNaN"]

Arrays: TypeAlias = dict[str, Any]  # the arrays of a batch by name, see `named_arrays`


class TerminateOnComponentNaN(KerasCallback):
    """Stops training when a component is NaN or infinite, and says which one, where and on what.

    `keras.callbacks.TerminateOnNaN` does the same for the total alone. A component of weight 0 does
    no harm and does not stop training. Nor does a component that its composite skips
    (`on_nonfinite="skip"`), unless all components were skipped in every step of an epoch. If all
    components are not finite at once although the batch is finite, then the network itself is no
    longer finite, because of the gradient of the step before: the batch of that step is saved.

    Args:
        path: None (default), or a file `.npz` for the batch to blame, as arrays `x`, `y` and
            `sample_weight` (`x/<name>` if there are several). `cl.diagnose` on that batch, or
            `combined-losses diagnose model.keras batch.npz`, says more. Not possible with several
            replicas or with `steps_per_execution` above 1, because the batch of a single step is
            then not known.
        raise_error: False (default): sets `model.stop_training`, so that other callbacks finish as
            usual; True: raises an error.

    Attributes:
        components: the names of the components to blame; empty while all are finite.
        epoch, batch, step: where it happened: the epoch and the batch in it, both from 0 as Keras
            counts them for callbacks, and the step of this `fit`, from 1.

    Raises:
        ValueError: at the start of training, if the model reports no components, or cannot provide
            its batches for `path`.
        RuntimeError: with `raise_error=True`, when a component is not finite.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> def log(y_true, y_pred):
    ...     return keras.ops.log(y_true[:, 0])
    >>> loss = cl.CompositeLoss(["mse", log])
    >>> model.compile("sgd", loss=loss)
    >>> x, y = np.ones((4, 1)), np.array([[1.0], [1.0], [-1.0], [1.0]])
    >>> stop = cl.callbacks.TerminateOnComponentNaN()
    >>> history = model.fit(x, y, batch_size=1, shuffle=False, verbose=0, callbacks=[stop])
    Component 'log' is nan in step 3 (epoch 1, batch 2); training stops.
    >>> stop.components, stop.batch
    (('log',), 2)
    """

    def __init__(
        self, path: "str | os.PathLike[str] | None" = None, raise_error: bool = False
    ) -> None:
        super().__init__()
        if path is not None and Path(path).suffix != ".npz":
            raise ValueError(f"`path` must be None or a file '.npz'. Received: {path!r}")
        self.path = path
        self.raise_error = raise_error
        self._start_over()

    def _start_over(self) -> None:
        self.components: tuple[str, ...] = ()
        self.epoch: int = 0
        self.batch: int = 0
        self.step: int = 0
        self._last_batch: Arrays = {}
        self._batch_before: Arrays = {}
        self._first_batch = 0
        self._harmless: set[str] = set()  # components that are not finite while the total is
        self._keys: dict[str, str] = {}  # the log keys of the components, by name

    def on_train_begin(self, logs: Logs = None) -> None:
        self._start_over()
        model = self.model
        if state_of(model) is None:
            raise ValueError(
                "TerminateOnComponentNaN needs a model that reports components: cl.Model, "
                "cl.Sequential or cl.track(model), compiled with a CompositeLoss. "
                f"Received: {model!r}"
            )
        if self.path is not None:
            request_batches(model, "TerminateOnComponentNaN(path=...)")

    def on_train_end(self, logs: Logs = None) -> None:
        self._last_batch = self._batch_before = {}

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self._first_batch = batch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self.step += 1 + batch - self._first_batch
        self.batch = batch
        if self.path is not None:
            self._batch_before, self._last_batch = self._last_batch, last_batch(self.model)
        logs = logs or {}
        self._keys = self._keys or component_keys(self.model)
        values = {name: float(logs[key]) for name, key in self._keys.items() if key in logs}
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        if math.isfinite(float(logs.get("loss", 0.0))):
            self._harmless = set(bad)  # the total is finite, so they do not count in it
            return
        bad = {name: value for name, value in bad.items() if name not in self._harmless} or bad
        self._stop(bad, are_all=len(bad) == len(values) > 1)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.components or not skipped_throughout(self.model, logs or {}):
            return
        self.components = tuple(self._keys)
        self.model.stop_training = True
        message = f"All components were skipped in every step of epoch {epoch + 1}; training stops."
        if self.raise_error:
            raise RuntimeError(message)
        print(message)

    def _stop(self, bad: Mapping[str, float], are_all: bool) -> None:
        """Stops training and says why.

        Args:
            bad: the values of the components to blame, by name.
            are_all: whether these are all components, and there are several.
        """
        self.components = tuple(bad) or ("loss",)
        blamed, why = self._blame() if are_all else (self._last_batch, "")
        self.model.stop_training = True
        message = f"{self._what(bad)} in {self._where()}{why}; training stops."
        if not self.raise_error:
            print(message, end="", flush=True)  # first, in case the file cannot be written
        saved = "" if self.path is None else self._save(Path(self.path), blamed)
        if self.raise_error:
            raise RuntimeError(message + saved)
        print(saved)

    def _blame(self) -> tuple[Arrays, str]:
        """The batch to blame if no component is finite, and why."""
        if self.path is None:
            return {}, ": its data are not finite, or the network is not after the step before"
        arrays = map(keras.ops.convert_to_numpy, self._last_batch.values())
        if not all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f"):
            return self._last_batch, ", whose data are not finite"
        if not self._batch_before:
            return self._last_batch, ", whose data are finite"
        return self._batch_before, ": the network is to blame, by the gradient of the step before"

    def _what(self, bad: Mapping[str, float]) -> str:
        """What is not finite, in words."""
        if not bad:
            return "The loss is not finite and all components are (a weight or penalty is not)"
        values = listed(list(dict.fromkeys(map(str, bad.values()))), "or")
        names = quoted(bad)
        return (
            f"Component {names} is {values}"
            if len(bad) == 1
            else f"Components {names} are {values}"
        )

    def _where(self) -> str:
        """The step, epoch and batch in words; several steps if they were run in one call."""
        several = self._first_batch != self.batch
        steps = f"steps {self.step - self.batch + self._first_batch} to {self.step}"
        batches = f"batches {self._first_batch} to {self.batch}"
        step = steps if several else f"step {self.step}"
        batch = batches if several else f"batch {self.batch}"
        return f"{step} (epoch {self.epoch + 1}, {batch})"

    def _save(self, path: Path, batch: Arrays) -> str:
        """Writes the batch; returns a sentence that says so, or why it was not possible."""
        which = "this step" if batch is self._last_batch else "the step before"
        try:
            arrays = {name: keras.ops.convert_to_numpy(array) for name, array in batch.items()}
            _write(path.absolute(), arrays)
        except Exception as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return f" The batch of {which} could not be written to {self.path}: {reason}."
        return f" The batch of {which} is in {self.path}."


def _write(path: Path, arrays: Arrays) -> None:
    """Writes a file of arrays under another name, then renames: `path` is never unfinished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    try:
        np.savez(unfinished, **arrays)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
