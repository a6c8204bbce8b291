"""All that a model keeps that is compiled with a composite, under one name of its own."""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from combined_losses._backend import keras_private
from combined_losses._core.outputs import Place, penalty_names, places_of, single_names
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.composite import reading
from combined_losses.training import routing
from combined_losses.training.keeping import leave_weights, state_of, stop_keeping
from combined_losses.training.logs import fill_in, in_order
from combined_losses.training.moving import check_scope, with_callbacks
from combined_losses.training.owned import OwnedByLosses
from combined_losses.training.running import Running
from combined_losses.training.tracker import Tracking


class ModelState:
    """What a model compiled with a composite keeps; no Keras object, so that no saver walks it.

    It listens to the composites: see `composite.listeners.Listener`.

    Args:
        model: the model.
        loss, loss_weights: as compiled.
        metrics: the compiled metrics and weighted metrics.
        is_whole: whether `compute_loss` is the mixin's, so that `evaluate` gives the whole loss.
    """

    def __init__(
        self, model: Any, loss: Any, loss_weights: Any, metrics: Any, is_whole: bool
    ) -> None:
        self._model = weakref.ref(model)
        self.loss = loss
        self.loss_weights = loss_weights
        self.metrics = metrics
        self.is_whole = is_whole
        # What of the losses cannot change after `compile`.
        self.compounds = routing.compounds(loss)
        self.composites = [c for compound in self.compounds for c in compound.composites()]
        self.with_rules = [c for c in self.composites if c.weighting is not None]
        self.readers = reading.rules_of(self.compounds)
        self.captures = [rule for _, rule in self.readers if rule.place != "output"]
        self.variables = [v for compound in self.compounds for v in compound.variables]
        self.learned = [v for compound in self.compounds for v in compound.learned_variables]
        self.owned = OwnedByLosses(self.compounds)
        # The outputs and what is recorded of them; None before they are known.
        self.places: dict[str, Place] | None = None
        self.tracking: Tracking | None = None
        self.recorded = False  # whether the step that is traced, or runs, has recorded its parts
        self.loss_owners: list[int | None] = []  # on JAX, see `penalties.owners_of`
        # Callbacks that look at batches, and the step functions with and without batches.
        self.keepers = 0
        self.batch: dict[str, ArrayLike] | None = None
        self.keeping: Callable[..., Any] | None = None
        self.resting: Callable[..., Any] | None = None
        self.measurers: dict[Any, Any] = {}
        self.running = Running()

    def tracking_for(self, model: Any, y_pred: Any = None) -> Tracking | None:
        """The routes and the tracker; None before the outputs are known."""
        if self.tracking is None:
            places = self._find_places(model, y_pred)
            if places is not None:
                self._start(model, y_pred, places)
        return self.tracking

    def _start(self, model: Any, y_pred: Any, places: dict[str, Place]) -> None:
        if list(places) == [""]:
            routing.check_single(self.loss, self.loss_weights, single_names(model, y_pred))
        strategy = keras_private.strategy_of(model)
        check_scope(strategy, self.compounds)
        reading.check_layers(model, self.readers)
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            names = penalty_names(model)
            tracking = Tracking(self.loss, self.loss_weights, places, names)
        tracking.check_metrics(self.metrics)
        tracking.is_whole = self.is_whole
        self.tracking = tracking
        for composite in self.composites:
            composite.add_listener(self)

    def _find_places(self, model: Any, y_pred: Any) -> dict[str, Place] | None:
        if isinstance(model, keras.Sequential):
            return places_of(None)
        layer_names = keras_private.output_names(model)
        if layer_names is not None and y_pred is None:
            return places_of(model.output, layer_names)
        return self.places if y_pred is None else places_of(y_pred, layer_names)

    # The state of the losses, which is state of the model.

    def with_all(self, model: Any, variables: list[Any]) -> list[Any]:
        """All variables of the model, with those of the losses and of what these read."""
        return joined(joined(variables, self.variables), self.owned_variables(model))

    def with_learned(self, variables: list[Any]) -> list[Any]:
        """The trained and not trained weights of the model, with those that losses learn."""
        return joined(variables, [v for v in self.learned if v.trainable])

    def owned_variables(self, model: Any) -> list[Any]:
        """The variables of what the losses read, without those that the model has itself."""
        if not self.owned.things:
            return []
        return self.owned.variables_besides((*model.weights, *self.variables))

    def without_owned(self, model: Any, variables: list[Any]) -> list[Any]:
        """The variables that the model trains: nothing of what the losses read."""
        owned = {id(v) for v in self.owned_variables(model)}
        return [v for v in variables if id(v) not in owned] if owned else variables

    def compute(
        self, model: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
    ) -> Tensor:
        """What `compute_loss` gives."""
        tracking = self.tracking or self.tracking_for(model, y_pred)
        assert tracking is not None  # `y_pred` tells what the outputs are
        return tracking.evaluate(self, model, x, y, y_pred, sample_weight, training)

    # Before, around and after `fit`, `evaluate` and the like.

    def find_owned(self, model: Any) -> None:
        """Looks for what the losses read; raises where what is skipped could not be cut off."""
        self.owned.find(model)
        for composite in self.composites:
            composite.check_skips(model)

    def check(self, model: Any) -> None:
        """Raises where a composite gives one total for each sample; checks the rest beforehand."""
        for compound in self.compounds:
            if compound.reduction in ("none", None):
                raise ValueError(
                    f"A model cannot train on '{compound.name}': its reduction is 'none', so it "
                    "gives one total for each sample. Use it in custom loops, or give it another "
                    "reduction, for example the default 'per_component'. "
                    f"Received: reduction={compound.reduction!r}"
                )
        if self.tracking is None:
            self.tracking_for(model)

    def fit(
        self, fit: Callable[..., Any], model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Calls Keras's `fit` with callbacks of ours; leaves the weights with the history."""
        self.find_owned(model)
        self.owned.check_built()
        before = {} if self.tracking is None else self.tracking.weights(all_of_them=True)
        args, kwargs = with_callbacks(keras.Model.fit, self, model, args, kwargs)
        try:
            history = fit(*args, **kwargs)
        finally:
            stop_keeping(model)  # also where a callback has not come to its end
        fill_in(history.history, before)
        leave_weights(model, history, before)
        return history

    def after_lone_step(self) -> None:
        """Called after `train_on_batch`: says what a step has shown of the rules."""
        if self.readers:
            reading.warn_of_places(self.readers)
        for composite in self.with_rules:
            composite.warn_of_values()
            composite.note_lone_step()

    def metrics_names(self, model: Any, metrics: Iterable[Any]) -> list[str]:
        """What `metrics_names` gives; `metrics` are Keras's."""
        names: list[str] = []
        for metric in metrics:
            try:
                result = metric.result()
            except ValueError:  # a compiled metric before the first batch
                result = None
            names.extend(result if isinstance(result, dict) else [metric.name])
        tracking = self.tracking or self.tracking_for(model)
        return keras_private.behind_loss(names, [] if tracking is None else tracking.visible)

    def in_order(self, model: Any, logs: dict[str, Any], return_dict: bool) -> Any:
        """Logs as `evaluate` gives them, in the order of `metrics_names`."""
        order = None if self.tracking is None else self.tracking.order
        logs = in_order(logs, order or model.metrics_names)
        return logs if return_dict else list(logs.values())

    # A listener of the composites.

    def apply_pending(self) -> None:
        """Makes the changes of weights that other threads have asked for."""
        for composite in self.composites:
            composite.apply_pending()

    def held_still(self) -> contextlib.AbstractContextManager[bool]:
        return self.running.held_still()

    def sync(self) -> None:
        model = self._current_model()
        if model is not None:
            keras_private.bring_back_state(model)

    def rebuild(self) -> None:
        model = self._current_model()
        if model is None:
            return
        self.measurers.clear()
        self.resting = self.keeping = None
        if keras_private.step_function(model, "train_step") is not None:
            keras_private.compile_step_anew(model, "train_step")
            function = keras_private.step_function(model, "train_step")
            self.keeping = function if self.keepers else None
        if keras_private.step_function(model, "test_step") is not None:
            keras_private.compile_step_anew(model, "test_step")

    def _current_model(self) -> Any:
        """The model; None where it is gone, or has been compiled anew and keeps another state."""
        model = self._model()
        return model if model is not None and state_of(model) is self else None


@contextlib.contextmanager
def calling(model: Any) -> Iterator[ModelState | None]:
    """The block is a `fit`, an `evaluate` or the like, of this thread; gives the `ModelState`.

    Raises where the losses cannot be trained; afterwards what other threads asked for is done.
    """
    state = state_of(model)
    if state is None:
        yield None
        return
    state.check(model)
    with state.running.here(then=state.apply_pending):
        yield state


def running(model: Any) -> contextlib.AbstractContextManager[None]:
    """The block is a `predict` of this thread."""
    state = state_of(model)
    if state is None:
        return contextlib.nullcontext()
    return state.running.here(then=state.apply_pending)


def joined(variables: Iterable[Any], more: Iterable[Any]) -> list[Any]:
    """Both, each variable once."""
    known = {id(v) for v in variables}
    return [*variables, *(v for v in more if id(v) not in known)]
