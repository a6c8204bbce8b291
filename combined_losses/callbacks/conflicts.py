"""`GradientConflict`: how far the gradients of the components pull against each other."""

import sys
from typing import Any

import numpy as np

from combined_losses._core.keras_types import KerasCallback
from combined_losses._core.named_arrays import from_named
from combined_losses.diagnosis.batches import batches
from combined_losses.diagnosis.measurer import measurer_of
from combined_losses.diagnosis.summary import cosines
from combined_losses.training.keeping import keep_batches, last_batch, state_of

__all__ = ["GradientConflict"]


class GradientConflict(KerasCallback):
    """Measures, every few steps, the cosines between the gradients of the components.

    Below 0 two components pull against each other: what one gains the other loses. It only
    looks; `cl.weightings.UPGrad` and its kin do something about it. The logs of every epoch gain
    `min_cosine`, the smallest of all pairs, as a mean over the measurements in the epoch: put it
    before callbacks that shall see it, such as `CSVLogger`; `History` always does.

    One measurement costs a pass through the network and one through the losses for each component;
    at the parameters one through the network for each component.

    Args:
        every: measure in the first step and in every so many steps after it, default 100.
        data: None: the batch of the step; or a batch `(x, y)` or `(x, y, sample_weight)` of arrays
            that is the same for all measurements. A model that is not tracked, several replicas
            and `steps_per_execution` above 1 need one.
        at: `"output"` (default) or `"parameters"`, where gradients are taken; see `cl.diagnose`.

    Attributes:
        names: the names of the components, a tuple of k.
        cosines: `(k, k)`, the mean of all measurements, for `cl.plots.conflicts`; NaN where a
            component has no gradient; None before the first one.
        steps: the steps of this `fit`, from 1, after which it was measured.
        history: the cosines after each of them, a list of arrays `(k, k)`.

    Raises:
        ValueError: if `every` is no integer of at least 1, or, at the start of training, if the
            model has no composite or cannot give its batches.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> def over(y_true, y_pred):
    ...     return keras.ops.relu(y_pred - y_true)[:, 0]
    >>> def under(y_true, y_pred):
    ...     return -y_pred[:, 0]
    >>> model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", loss=cl.CompositeLoss({"over": over, "under": under}))
    >>> x, y = np.ones((4, 1)), np.full((4, 1), -9.0)
    >>> conflict = cl.callbacks.GradientConflict(every=1)
    >>> model.fit(x, y, verbose=0, callbacks=[conflict]).history["min_cosine"]
    [-1.0]
    """

    def __init__(self, every=100, data=None, at="output"):
        super().__init__()
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise ValueError(f"`every` must be an integer of at least 1. Received: {every!r}")
        if data is not None and not (isinstance(data, tuple) and len(data) in (2, 3)):
            raise ValueError(
                "`data` must be None or a batch (x, y) or (x, y, sample_weight). "
                f"Received: {type(data).__name__}"
            )
        self.every = every
        self.data = data
        self.at = at
        self._start_over()

    def _start_over(self):
        self.names: tuple[str, ...] = ()
        self.steps: list[int] = []
        self.history: list[np.ndarray] = []
        self._step = self._first = 0
        self._in_epoch: list[float] = []
        self._measurer: Any = None
        self._batch: Any = None

    @property
    def cosines(self):
        if not self.history:
            return None
        stacked = np.stack(self.history)
        known = ~np.isnan(stacked)
        total = np.where(known, stacked, 0.0).sum(axis=0)
        return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)

    def on_train_begin(self, logs=None):
        self._start_over()
        self._measurer = measurer_of(self.model, self.at, "GradientConflict")
        if self.data is not None:  # as `fit` takes it
            x, y, sample_weight = (*self.data, None)[:3]
            self._batch = next(batches(x, y, sample_weight, batch_size=sys.maxsize))
        else:
            if state_of(self.model) is None:
                raise ValueError(
                    "GradientConflict sees the batches of a tracked model alone: take cl.Model, "
                    "cl.Sequential or cl.track(model), or give a batch as `data`. "
                    f"Received: data=None and {self.model!r}"
                )
            keep_batches(self.model, "GradientConflict(data=None)")

    def on_train_end(self, logs=None):
        self._measurer = None

    def on_epoch_begin(self, epoch, logs=None):
        self._in_epoch = []

    def on_train_batch_begin(self, batch, logs=None):
        self._first = batch

    def on_train_batch_end(self, batch, logs=None):
        before = self._step
        self._step += 1 + batch - self._first
        # The steps 1, 1 + every, 1 + 2 * every, …; of several in one call the last one is seen.
        if (self._step - 1) // self.every == (before - 1) // self.every:
            return
        self.steps.append(self._step)
        self.history.append(self._measure())
        self._in_epoch.append(self._smallest(self.history[-1]))

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None and self._in_epoch and "min_cosine" not in logs:
            known = [cosine for cosine in self._in_epoch if not np.isnan(cosine)]
            logs["min_cosine"] = float(np.mean(known)) if known else float("nan")

    def _measure(self):
        # `self.model` brings JAX's state back into the variables first.
        model = self.model
        given = from_named(last_batch(model)) if self.data is None else self._batch
        measured = self._measurer.measure(*given)
        parts = self._measurer.parts
        top = [index for index, part in enumerate(parts) if part.parent is None]
        self.names = tuple(parts[index].name for index in top)
        found = cosines(measured.gramian, measured.weights)
        return found[np.ix_(top, top)]

    @staticmethod
    def _smallest(cosines):
        pairs = cosines[np.triu_indices(len(cosines), 1)]
        pairs = pairs[~np.isnan(pairs)]
        return float(pairs.min()) if len(pairs) else float("nan")
