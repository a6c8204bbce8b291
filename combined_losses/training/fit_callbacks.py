"""The callbacks of ours in every `fit` of a tracked model: they tell the losses where it is."""

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import keras

from combined_losses._backend import backend, keras_private
from combined_losses._core.compound import Compound
from combined_losses._core.keras_types import KerasCallback, Logs
from combined_losses.composite import reading
from combined_losses.training import routing
from combined_losses.training.owned_by_losses import OwnedByLosses
from combined_losses.training.tracker import Tracking


class _State(Protocol):
    """What the callbacks need of a `ModelState`."""

    compounds: list[Compound]
    owned: OwnedByLosses
    tracking: Tracking | None

    def apply_pending(self) -> None: ...


class _EpochEnd(KerasCallback):
    """Tells rules that go by epochs when one ends; warns of what a first step has shown."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._is_first_step = True

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self._is_first_step:
            self._is_first_step = False
            compounds = routing.compounds(self.model.loss)
            reading.warn_of_places(reading.rules_of(compounds))
            for composite in (c for compound in compounds for c in compound.composites()):
                composite.warn_of_values()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        keras_private.bring_back_state(self.model)
        for compound in routing.compounds(self.model.loss):
            loss: Any = compound.loss_itself()  # a class of the user's may override the method
            loss.end_epoch()


class _SkippedAll(KerasCallback):
    """Warns, once, if nothing in an epoch was finite: the total of 0 would look perfect."""

    def __init__(self, state: _State) -> None:
        super().__init__()
        self._state = state
        self._warned = False

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        tracking = self._state.tracking
        if self._warned or tracking is None:
            return
        prefixes = {"training": "", "validation": "val_"}
        found = [what for what, p in prefixes.items() if tracking.skipped_throughout(logs or {}, p)]
        if found:
            self._warned = True
            warnings.warn(
                f"In epoch {epoch + 1} every component of a loss with on_nonfinite='skip' was "
                f"skipped in every step of the {' and the '.join(found)}: the loss of 0 says "
                "nothing. The data, or the predictions of the network, are not finite.",
                stacklevel=2,
            )


class _Together(KerasCallback):
    """Gives all processes of torch the variables of the first one, when the model is built."""

    def on_train_begin(self, logs: Logs = None) -> None:
        backend.begin_together(self.model, lambda: repr(self.model.loss))


class _BringBack(KerasCallback):
    """Brings the state of a step on JAX back before the user's callbacks are called.

    They may look at a network that a loss reads. Its variables are part of the state that the step
    was given, like those of the model, and are empty until the state is brought back.
    """

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        keras_private.bring_back_state(self.model)

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        keras_private.bring_back_state(self.model)


class _BeforeStep(KerasCallback):
    """Makes the changes of weights that other threads have asked for, before a step begins.

    At the beginning it describes the weights in the history, so that a training that is stopped
    can be shown too.
    """

    def __init__(self, state: _State) -> None:
        super().__init__()
        self._state = state

    def on_train_begin(self, logs: Logs = None) -> None:
        if self._state.tracking is not None:
            self._state.tracking.describe_weights(self.model.history)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self._state.apply_pending()


def with_callbacks(
    fit: Callable[..., Any],
    state: _State,
    model: keras.Model,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `fit`, with callbacks of ours before and after those of the user.

    Before them go those that change weights or state, because a callback of the user may save.
    """
    moves = any(compound.moves for compound in state.compounds)
    first: list[keras.callbacks.Callback] = [_Together(), *([_EpochEnd()] if moves else [])]
    if state.owned.things and keras.backend.backend() == "jax":
        first.append(_BringBack())
    if any(compound.skips for compound in state.compounds):
        first.append(_SkippedAll(state))
    last = _BeforeStep(state)
    return keras_private.add_callbacks(fit, model, args, kwargs, first, [last])
