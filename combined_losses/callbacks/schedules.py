"""`LossWeightScheduler`: the weight of a component as a function of the epoch or batch."""

from collections.abc import Callable
from typing import Any, Literal

from combined_losses._core.checks import as_number
from combined_losses._core.keras_types import KerasCallback, Logs
from combined_losses._core.names import quoted
from combined_losses.training import routing

__all__ = ["LossWeightScheduler"]


class LossWeightScheduler(KerasCallback):
    """Sets the weight of a component by a function of the epoch, or of the batch.

    It is for weights what `keras.callbacks.LearningRateScheduler` is for the learning rate. For a
    weight that follows the steps of training without a callback, and that is saved with the model,
    pass a schedule in `weights=` of the composite.

    Args:
        name: the component, or `outer/inner` for a part of a nested composite.
        schedule: a function `f(index, weight)` of the index of the epoch or batch, from 0, and of
            the current weight; it returns the new weight, a finite number.
        per: `"epoch"` (default) or `"batch"`. The count of batches does not restart with an epoch.
        verbose: 0 (default): quiet; 1: prints a line for each new weight.

    Raises:
        ValueError: if the model has no such component, or the new weight is not a finite number.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"]))
    >>> halve = cl.callbacks.LossWeightScheduler("mae", lambda epoch, weight: 0.5**epoch)
    >>> x, y = np.ones((4, 1)), np.ones((4, 1))
    >>> model.fit(x, y, epochs=3, verbose=0, callbacks=[halve]).history["mae_weight"]
    [1.0, 0.5, 0.25]
    """

    def __init__(
        self,
        name: str,
        schedule: Callable[[int, float], float],
        per: Literal["epoch", "batch"] = "epoch",
        verbose: int = 0,
    ) -> None:
        super().__init__()
        if not callable(schedule):
            raise ValueError(
                "LossWeightScheduler needs a function f(index, weight). "
                f"Received: {schedule!r} of type {type(schedule).__name__}"
            )
        if per not in ("epoch", "batch"):
            raise ValueError(f"`per` must be 'epoch' or 'batch'. Received: {per!r}")
        self.name = name
        self.schedule = schedule
        self.per = per
        self.verbose = verbose
        self._batches = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        self._batches = 0
        self._composite()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        if self.per == "epoch":
            self._set(epoch)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        if self.per == "batch":
            self._set(self._batches)
            self._batches += 1

    def _composite(self) -> Any:
        """The compiled loss that has the component; raises unless there is exactly one."""
        compounds = routing.compounds(self.model.loss)
        found = [compound for compound in compounds if self.name in compound.settable_names]
        if len(found) != 1:
            names = [name for compound in compounds for name in compound.settable_names]
            raise ValueError(
                "LossWeightScheduler needs exactly one component of the given name; the model has "
                f"{quoted(names)}. Received: {self.name!r}"
            )
        return found[0]

    def _set(self, index: int) -> None:
        composite = self._composite()
        weight = self.schedule(index, composite.weight_of(self.name))
        what = f"What the schedule of component '{self.name}' returns for {self.per} {index}"
        # True and False, such as a comparison returns, count as 1 and 0.
        weight = as_number(what, int(weight) if isinstance(weight, bool) else weight)
        composite.set_weight(self.name, weight)
        if self.verbose:
            print(f"{self.per.capitalize()} {index + 1}: the weight of '{self.name}' is {weight}.")
