"""`GradientConflict`: how far the gradients of the components pull against each other."""

import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from combined_losses._core.keras_types import KerasCallback, Logs
from combined_losses._core.named_arrays import from_named
from combined_losses.diagnosis.batches import batches
from combined_losses.diagnosis.measurer import measurer_of
from combined_losses.diagnosis.summary import cosines
from combined_losses.training.for_callbacks import last_batch, request_batches
from combined_losses.training.model_state import state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GradientConflict"]


class GradientConflict(KerasCallback):
    """Measures, every few steps, the cosines between the gradients of the components.

    Below 0, two components pull against each other: what one gains, the other loses. The callback
    only measures; `cl.weightings.UPGrad` and the other rules that read gradients act on it. It adds
    `min_cosine` to the logs of every epoch: the smallest cosine of all pairs, as a mean over the
    measurements of the epoch. Put it before the callbacks that should see it, such as `CSVLogger`;
    `History` always sees it.

    One measurement costs one pass through the network, and one through the losses for each
    component; at the parameters, one pass through the network for each component.

    Args:
        every: the number of steps from one measurement to the next, default 100. The first step
            is measured.
        data: None (default): the batch of the step; or a batch `(x, y)` or `(x, y, sample_weight)`
            of arrays, used for all measurements. A model that is not tracked, several replicas and
            `steps_per_execution` above 1 need one.
        at: where gradients are taken: `"output"` (default) or `"parameters"`; see `cl.diagnose`.

    Attributes:
        names: the names of the components, a tuple of k.
        cosines: `(k, k)`, the mean of all measurements, for `cl.plots.conflicts`; NaN where a
            component has no gradient; None before the first one.
        steps: the steps of this `fit`, counted from 1, after which the cosines were measured.
        history: the cosines after each of these steps, a list of arrays `(k, k)`.

    Raises:
        ValueError: if `every` is not an integer of at least 1; at the start of training, if the
            model has no composite or cannot provide its batches.

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

    def __init__(
        self,
        every: int = 100,
        data: tuple[Any, ...] | None = None,
        at: Literal["output", "parameters"] = "output",
    ) -> None:
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

    def _start_over(self) -> None:
        self.names: tuple[str, ...] = ()
        self.steps: list[int] = []
        self.history: list[NDArray[np.float64]] = []
        self._step = self._first_batch = 0
        self._minima: list[float] = []  # of the measurements in this epoch
        self._measurer: Any = None
        self._batch: Any = None

    @property
    def cosines(self) -> "NDArray[np.float64] | None":
        """The mean of all measurements, `(k, k)`; None before the first one."""
        if not self.history:
            return None
        stacked = np.stack(self.history)
        known = ~np.isnan(stacked)
        total = np.where(known, stacked, 0.0).sum(axis=0)
        return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)

    def on_train_begin(self, logs: Logs = None) -> None:
        self._start_over()
        self._measurer = measurer_of(self.model, self.at, "GradientConflict")
        if self.data is not None:  # converted as `fit` converts it
            x, y, sample_weight = (*self.data, None)[:3]
            self._batch = next(batches(x, y, sample_weight, batch_size=sys.maxsize))
        else:
            if state_of(self.model) is None:
                raise ValueError(
                    "GradientConflict sees the batches of tracked models only: use cl.Model, "
                    "cl.Sequential or cl.track(model), or give a batch as `data`. "
                    f"Received: data=None and {self.model!r}"
                )
            request_batches(self.model, "GradientConflict(data=None)")

    def on_train_end(self, logs: Logs = None) -> None:
        self._measurer = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._minima = []

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self._first_batch = batch  # with `steps_per_execution` the end names the last one

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        before = self._step
        self._step += 1 + batch - self._first_batch
        # The steps 1, 1 + every, 1 + 2 * every, … are due. Of several steps in one call only the
        # last one can be measured: it stands for those that were due.
        if (self._step - 1) // self.every == (before - 1) // self.every:
            return
        self.steps.append(self._step)
        self.history.append(self._measure())
        self._minima.append(_smallest_of_pairs(self.history[-1]))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None and self._minima and "min_cosine" not in logs:
            known = [cosine for cosine in self._minima if not np.isnan(cosine)]
            logs["min_cosine"] = float(np.mean(known)) if known else float("nan")

    def _measure(self) -> "NDArray[np.float64]":
        """The cosines of the components, `(k, k)`, after this step."""
        # On JAX, reading `self.model` copies the state of training into the variables.
        model = self.model
        batch = from_named(last_batch(model)) if self.data is None else self._batch
        measured = self._measurer.measure(*batch)
        parts = self._measurer.parts
        outermost = [index for index, part in enumerate(parts) if part.parent is None]
        self.names = tuple(parts[index].name for index in outermost)
        found: NDArray[np.float64] = cosines(measured.gramian, measured.weights)
        return found[np.ix_(outermost, outermost)]


def _smallest_of_pairs(cosines: "NDArray[np.float64]") -> float:
    """The smallest cosine between two components; NaN if no two have a gradient."""
    pairs = cosines[np.triu_indices(len(cosines), 1)]
    pairs = pairs[~np.isnan(pairs)]
    return float(pairs.min()) if len(pairs) else float("nan")
