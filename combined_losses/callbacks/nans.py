"""`TerminateOnComponentNaN`: training that stops where a component is no number, and says which."""

import math
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from combined_losses._core.keras_types import KerasCallback
from combined_losses._core.names import listed, quoted
from combined_losses.training.keeping import (
    component_keys,
    keep_batches,
    last_batch,
    skipped_throughout,
    state_of,
)

__all__ = ["TerminateOnComponentNaN"]


class TerminateOnComponentNaN(KerasCallback):
    """Stops training when a component is NaN or infinite, and says which one, where and on what.

    As `keras.callbacks.TerminateOnNaN`, which knows the total alone. A component of weight 0 does
    no harm and does not stop it. Nor does one that its composite skips (`on_nonfinite="skip"`), but
    after an epoch in which all components were skipped in every step it stops. Where all components
    are not finite at once although the batch is, the network is not any more, and the gradient of
    the step before is to blame: then its batch is the one that is saved.

    Args:
        path: None, or a file `.npz` for the batch to blame, as arrays `x`, `y` and `sample_weight`
            (`x/<name>` of several). `cl.diagnose` on it, or `combined-losses diagnose model.keras
            batch.npz`, says more. Not with several replicas, nor with `steps_per_execution` above
            1, where one step of several is to blame.
        raise_error: False (default): sets `model.stop_training`, so that other callbacks come to
            their end; True: raises.

    Attributes:
        components: the names of the components to blame; empty as long as all is well.
        epoch, batch, step: where: the epoch and the batch in it, both from 0 as Keras gives them to
            callbacks, and the step of this `fit`, from 1.

    Raises:
        ValueError: at the start of training, if the model reports no components, or cannot give
            its batches to `path`.
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

    def __init__(self, path=None, raise_error=False):
        super().__init__()
        if path is not None and Path(path).suffix != ".npz":
            raise ValueError(f"`path` must be None or a file '.npz'. Received: {path!r}")
        self.path = path
        self.raise_error = raise_error
        self._start_over()

    def _start_over(self):
        self.components: tuple[str, ...] = ()
        self.epoch = self.batch = self.step = 0
        self._kept: Any = None
        self._kept_before: Any = None
        self._first = 0
        self._watched: set[str] = set()
        self._keys: dict[str, str] = {}  # the log keys of the components

    def on_train_begin(self, logs=None):
        self._start_over()
        model = self.model
        if state_of(model) is None:
            raise ValueError(
                "TerminateOnComponentNaN needs a model that reports components: cl.Model, "
                "cl.Sequential or cl.track(model), compiled with a CompositeLoss. "
                f"Received: {model!r}"
            )
        if self.path is not None:
            keep_batches(model, "TerminateOnComponentNaN(path=...)")

    def on_train_end(self, logs=None):
        self._kept = self._kept_before = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self._first = batch

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1 + batch - self._first
        self.batch = batch
        if self.path is not None:
            self._kept_before, self._kept = self._kept, last_batch(self.model)
        logs = logs or {}
        self._keys = self._keys or component_keys(self.model)
        values = {name: float(logs[key]) for name, key in self._keys.items() if key in logs}
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        if math.isfinite(float(logs.get("loss", 0.0))):
            self._watched = set(bad)  # of weight 0: they do no harm
            return
        bad = {name: value for name, value in bad.items() if name not in self._watched} or bad
        self._stop(bad, everything=len(bad) == len(values) > 1)

    def on_epoch_end(self, epoch, logs=None):
        if self.components or not skipped_throughout(self.model, logs or {}):
            return
        self.components = tuple(self._keys)
        self.model.stop_training = True
        message = f"All components were skipped in every step of epoch {epoch + 1}; training stops."
        if self.raise_error:
            raise RuntimeError(message)
        print(message)

    def _stop(self, bad, everything):
        self.components = tuple(bad) or ("loss",)
        blamed, why = self._blame() if everything else (self._kept, "")
        self.model.stop_training = True
        message = f"{self._what(bad)} in {self._where()}{why}; training stops."
        if not self.raise_error:
            print(message, end="", flush=True)  # the finding is said whatever happens to the file
        saved = "" if self.path is None else self._save(blamed)
        if self.raise_error:
            raise RuntimeError(message + saved)
        print(saved)

    def _blame(self):
        """The batch to blame where no component is finite, and why."""
        if self.path is None:
            return None, ": its data are not finite, or the network is not after the step before"
        arrays = map(keras.ops.convert_to_numpy, self._kept.values())
        if not all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f"):
            return self._kept, ", whose data are not finite"
        if self._kept_before is None:
            return self._kept, ", whose data are finite"
        return self._kept_before, ": the network is to blame, by the gradient of the step before"

    def _what(self, bad):
        if not bad:
            return "The loss is not finite and all components are (a weight or penalty is not)"
        values = listed(list(dict.fromkeys(map(str, bad.values()))), "or")
        names = quoted(bad)
        return (
            f"Component {names} is {values}"
            if len(bad) == 1
            else f"Components {names} are {values}"
        )

    def _where(self):
        several = self._first != self.batch
        steps = f"steps {self.step - self.batch + self._first} to {self.step}"
        batches = f"batches {self._first} to {self.batch}"
        step = steps if several else f"step {self.step}"
        batch = batches if several else f"batch {self.batch}"
        return f"{step} (epoch {self.epoch + 1}, {batch})"

    def _save(self, batch):
        which = "this step" if batch is self._kept else "the step before"
        try:
            arrays = {name: keras.ops.convert_to_numpy(array) for name, array in batch.items()}
            _write(Path(self.path).absolute(), arrays)
        except Exception as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return f" The batch of {which} could not be written to {self.path}: {reason}."
        return f" The batch of {which} is in {self.path}."


def _write(path, arrays):
    """Writes a file of arrays whole or not at all: one that is there stays until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    try:
        np.savez(unfinished, **arrays)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
