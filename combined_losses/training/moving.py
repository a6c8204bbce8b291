"""What weights that move need of a model: ends of epochs, and an optimizer that lets them alone."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import keras

from combined_losses._backend import backend, keras_private
from combined_losses._core.compound import Compound, weighted_means
from combined_losses._core.keras_types import KerasCallback, Logs
from combined_losses._core.names import quoted
from combined_losses.composite import reading
from combined_losses.training import routing
from combined_losses.training.keeping import (
    leave_weights,
    skipped_throughout,
)

if TYPE_CHECKING:
    from combined_losses.training.model_state import ModelState


class _EpochEnd(KerasCallback):
    """Tells rules that count epochs of every end of one, and what a first step has shown."""

    _first: bool

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._first = True

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self._first:
            self._first = False
            compounds = routing.compounds(self.model.loss)
            reading.warn_of_places(reading.rules_of(compounds))
            for composite in (c for compound in compounds for c in compound.composites()):
                composite.warn_of_values()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        keras_private.bring_back_state(self.model)
        for compound in routing.compounds(self.model.loss):
            compound.end_epoch()


class _SkippedAll(KerasCallback):
    """Says, once, that a total is 0 because nothing in an epoch was finite: it looks perfect."""

    def __init__(self) -> None:
        super().__init__()
        self._warned = False

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        places = {"training": "", "validation": "val_"}
        found = [p for p, k in places.items() if skipped_throughout(self.model, logs or {}, k)]
        if found and not self._warned:
            self._warned = True
            warnings.warn(
                f"In epoch {epoch + 1} every component of a loss with on_nonfinite='skip' was "
                f"skipped in every step of the {' and the '.join(found)}: the loss of 0 says "
                "nothing. The data, or the predictions of the network, are not finite.",
                stacklevel=2,
            )


class _BringBack(KerasCallback):
    """Before callbacks of the user's: they may look at a network that a loss reads, whose state a
    step on JAX has taken with that of the model."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        keras_private.bring_back_state(self.model)

    on_test_batch_end = on_train_batch_end


class _BeforeStep(KerasCallback):
    """Makes the changes of weights that other threads have asked for, before a step begins.

    Leaves the weights at the beginning with the history, which a training that is stopped shows.
    """

    def __init__(self, state: "ModelState") -> None:
        super().__init__()
        self._state = state

    def on_train_begin(self, logs: Logs = None) -> None:
        leave_weights(self.model, self.model.history)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self._state.apply_pending()


def with_callbacks(
    fit: Callable[..., Any],
    state: "ModelState",
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `fit` with callbacks of ours: one before the user's, which may save, where
    weights move, and one after them."""
    moves = any(compound.moves for compound in state.compounds)
    first: list[KerasCallback] = [_EpochEnd()] if moves else []
    if state.owned.things and keras.backend.backend() == "jax":
        first.append(_BringBack())
    if any(compound.skips for compound in state.compounds):
        first.append(_SkippedAll())
    last = _BeforeStep(state)
    return keras_private.add_callbacks(fit, model, args, kwargs, first, [last])


def check_scope(strategy: Any, compounds: Iterable[Compound]) -> None:
    """Raises where weights that move were made outside the scope of a strategy: each replica would
    move them."""
    if keras_private.replicas_of(strategy) == 1:
        return
    for compound in compounds:
        outside = [v for v in compound.variables if not backend.is_in_scope(strategy, v)]
        if compound.moves and outside:
            raise ValueError(
                f"'{compound.name}' has weights that move: make it inside `strategy.scope()`, like "
                "the model, else each replica would move them. "
                f"Received: {len(outside)} variables made outside"
            )


def warn_of_accumulation(optimizer: Any, compounds: Sequence[Compound]) -> None:
    """Says where an optimizer would average means over sample weights as if those were equal."""
    optimizer = keras_private.inner_optimizer(optimizer)
    steps = getattr(optimizer, "gradient_accumulation_steps", None)
    names = [name for loss in compounds for name in weighted_means(loss, loss.name)]
    if not steps or not names:
        return
    warnings.warn(
        f"{quoted(names)}: a mean over the sample weights of a batch, and with "
        f"`gradient_accumulation_steps={steps}` the optimizer averages {steps} of them, whatever "
        "the sum of the weights in each: a sample counts more in a batch of small weights. For the "
        "mean of the larger batch give batches of one size the reduction 'sum_over_batch_size'. "
        "Received: reduction='mean_with_sample_weight'",
        stacklevel=4,
    )
