"""`LossWeightScheduler`: the weight of a component as a function of the epoch or batch."""

from combined_losses._core.checks import as_number
from combined_losses._core.keras_types import KerasCallback
from combined_losses._core.names import quoted
from combined_losses.training import routing

__all__ = ["LossWeightScheduler"]


class LossWeightScheduler(KerasCallback):
    """Sets the weight of a component by a function of the epoch, or of the batch.

    As `keras.callbacks.LearningRateScheduler` does for the learning rate. For a weight that follows
    the steps of training by itself, and that a saved model keeps, pass a schedule in `weights=`.

    Args:
        name: the component, or `outer/inner` for a part of a nested composite.
        schedule: a function `f(index, weight)` of the index of the epoch or batch, from 0, and the
            current weight, which returns the new one: a finite number.
        per: `"epoch"` (default) or `"batch"`. Batches are counted on from epoch to epoch.
        verbose: 0 (default): quiet; 1: a line for each new weight.

    Raises:
        ValueError: if the model has no such component, or the new weight is no finite number.

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

    def __init__(self, name, schedule, per="epoch", verbose=0):
        super().__init__()
        if not callable(schedule):
            raise ValueError(
                "LossWeightScheduler needs a function f(index, weight). "
                f"Received: {schedule!r} of type {type(schedule).__name__}"
            )
        if per not in ("epoch", "batch"):
            raise ValueError(f"`per` must be 'epoch' or 'batch'. Received: {per!r}")
        self.name, self.schedule, self.per, self.verbose = name, schedule, per, verbose
        self._batches = 0

    def on_train_begin(self, logs=None):
        self._batches = 0
        self._composite()

    def on_epoch_begin(self, epoch, logs=None):
        if self.per == "epoch":
            self._set(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if self.per == "batch":
            self._set(self._batches)
            self._batches += 1

    def _composite(self):
        """The compiled loss that has the component."""
        compounds = routing.compounds(self.model.loss)
        found = [compound for compound in compounds if self.name in compound.settable_names]
        if len(found) != 1:
            names = [name for compound in compounds for name in compound.settable_names]
            raise ValueError(
                f"LossWeightScheduler needs one component of its name; the model has "
                f"{quoted(names)}. Received: {self.name!r}"
            )
        return found[0]

    def _set(self, index):
        composite = self._composite()
        weight = self.schedule(index, composite.weight_of(self.name))
        what = f"What the schedule of component '{self.name}' returns for {self.per} {index}"
        weight = as_number(what, int(weight) if isinstance(weight, bool) else weight)
        composite.set_weight(self.name, weight)
        if self.verbose:
            print(f"{self.per.capitalize()} {index + 1}: the weight of '{self.name}' is {weight}.")
