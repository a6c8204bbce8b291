"""All that a model keeps that is compiled with a composite, under one name of its own."""

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from combined_losses._backend import keras_private
from combined_losses._core.compound import Compound
from combined_losses._core.outputs import Place, penalty_names, places_of, single_names
from combined_losses._core.ranks import check_scope
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.composite import reading
from combined_losses.composite.total import WeightedSum
from combined_losses.training import routing
from combined_losses.training.compile_checks import check_compiler
from combined_losses.training.fit_callbacks import with_callbacks
from combined_losses.training.logs import Results, fill_in, in_order
from combined_losses.training.owned_by_losses import OwnedByLosses
from combined_losses.training.routing import CompiledLoss, LossWeights
from combined_losses.training.tracker import Tracking
from combined_losses.weightings.base import Weighting

STATE = "_combined_losses"  # the name of the `ModelState` in the `__dict__` of its model


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
        self,
        model: keras.Model,
        loss: CompiledLoss,
        loss_weights: LossWeights,
        metrics: Sequence[Any],
        is_whole: bool,
    ) -> None:
        self._model = weakref.ref(model)
        self.loss = loss
        self.loss_weights = loss_weights
        self.metrics = metrics
        self.is_whole = is_whole
        self.compiled_with: dict[str, Any] = {}  # the arguments of `compile` beside the loss
        # The losses do not change after `compile`, so that these are computed once.
        self.compounds: list[Compound] = routing.compounds(loss)
        self._losses_made_of_losses = [each.loss_itself() for each in self.compounds]
        nodes = [node for compound in self.compounds for node in compound.compounds()]
        self.composites: list[WeightedSum] = [
            node for node in nodes if isinstance(node, WeightedSum)
        ]
        self._with_rules = [c for c in self.composites if c.weighting is not None]
        self.gradient_rules: list[reading.Reader] = reading.rules_of(self.compounds)
        rules = [rule for _, rule in self.gradient_rules]
        # Their gradients are taken inside the network, for which a step has to be captured.
        self.capturing_rules: list[Weighting] = [rule for rule in rules if rule.place != "output"]
        self.variables: list[Any] = [v for compound in self.compounds for v in compound.variables]
        self.learned: list[Any] = [
            v for compound in self.compounds for v in compound.learned_variables
        ]
        self.owned: OwnedByLosses = OwnedByLosses(self.compounds)
        # Where the outputs are, and what is recorded of them; None before the outputs are known.
        self.places: dict[str, Place] | None = None
        self.tracking: Tracking | None = None
        self._order: list[str] = []  # `metrics_names` when the logs had the keys in `_ordered`
        self._ordered: set[str] = set()
        self.loss_owners: list[int | None] = []  # on JAX, see `penalties.owners_of`
        # For callbacks that look at batches, see `for_callbacks.request_batches`.
        self.returns_batches: bool = False
        self.reads_steps: bool = True  # whether somebody reads the logs of each step of training
        self.last_batch: dict[str, ArrayLike] | None = None
        self.measurers: dict[tuple[object, ...], Any] = {}  # of `diagnosis.measurer`
        self.running: Running = Running()

    def tracking_for(self, model: keras.Model, y_pred: Any = None) -> Tracking | None:
        """The routes and the tracker; None before the outputs are known."""
        if self.tracking is None:
            places = self._find_places(model, y_pred)
            if places is not None:
                self._start_tracking(model, y_pred, places)
        return self.tracking

    def _start_tracking(self, model: keras.Model, y_pred: Any, places: dict[str, Place]) -> None:
        if list(places) == [""]:
            routing.check_single(self.loss, self.loss_weights, single_names(model, y_pred))
        strategy = keras_private.strategy_of(model)
        for loss in self.compounds:
            moving = loss.variables if loss.moves else loss.learned_variables
            check_scope(strategy, loss.name, moving)
        reading.check_layers(model, self.gradient_rules)
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            names = penalty_names(model)
            tracking = Tracking(self.loss, self.loss_weights, places, names)
        tracking.check_metrics(self.metrics)
        tracking.is_whole = self.is_whole
        self.tracking = tracking
        for composite in self.composites:
            composite.add_listener(self)

    def _find_places(self, model: keras.Model, y_pred: Any) -> dict[str, Place] | None:
        if isinstance(model, keras.Sequential):
            return places_of(None)
        layer_names = keras_private.output_names(model)
        if layer_names is not None and y_pred is None:
            return places_of(model.output, layer_names)
        return self.places if y_pred is None else places_of(y_pred, layer_names)

    # The state of the losses is state of the model.

    def with_all(
        self, model: keras.Model, variables: Sequence[keras.Variable]
    ) -> list[keras.Variable]:
        """The variables of the model, those of the losses, and those of what the losses read."""
        return joined(joined(variables, self.variables), self.owned_variables(model))

    def with_learned(self, variables: Sequence[keras.Variable]) -> list[keras.Variable]:
        """The weights of the model, trainable or not, and what the losses learn."""
        return joined(variables, [v for v in self.learned if v.trainable])

    def owned_variables(self, model: keras.Model) -> list[keras.Variable]:
        """The variables of what the losses read, without those that the model has itself."""
        if not self.owned.things:
            return []
        return self.owned.variables_besides((*model.weights, *self.variables))

    def without_owned(
        self, model: keras.Model, variables: list[keras.Variable]
    ) -> list[keras.Variable]:
        """The variables that the model trains, without those of what the losses read."""
        owned = {id(v) for v in self.owned_variables(model)}
        return [v for v in variables if id(v) not in owned] if owned else variables

    def with_tracker(
        self, model: keras.Model, variables: list[keras.Variable]
    ) -> list[keras.Variable]:
        """The variables of the model's metrics, and those of the tracker."""
        tracking = self.tracking or self.tracking_for(model)
        return variables if tracking is None else [*variables, *tracking.tracker.variables]

    def compute_loss(
        self, model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
    ) -> Tensor:
        """What `compute_loss` of the model gives."""
        tracking = self.tracking or self.tracking_for(model, y_pred)
        if tracking is None:
            raise ValueError("The loss needs the outputs of the model. Received: y_pred=None")
        data = (model, x, y, y_pred, sample_weight)
        return tracking.evaluate(data, training, self.loss_owners)

    # Before, around and after `fit`, `evaluate` and the like.

    def find_owned(self, model: keras.Model) -> None:
        """Finds what the losses read; raises where components that are skipped would act on it."""
        self.owned.find(model)
        for composite in self.composites:
            composite.check_skips(model)

    def check(self, model: keras.Model) -> None:
        """Raises if the model cannot train on its losses, whose reductions can be set."""
        for loss in self._losses_made_of_losses:
            if loss.reduction in ("none", None):
                raise ValueError(
                    f"A model cannot train on '{loss.name}': its reduction is 'none', so it "
                    "gives one total for each sample. Use it in custom loops, or give it another "
                    "reduction, for example the default 'per_component'. "
                    f"Received: reduction={loss.reduction!r}"
                )
        check_compiler(model, self.compounds)
        if self.tracking is None:
            self.tracking_for(model)

    def fit(
        self,
        fit: Callable[..., keras.callbacks.History],
        model: keras.Model,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> keras.callbacks.History:
        """Calls Keras's `fit` with our callbacks; gives the history what figures need to know."""
        self.find_owned(model)
        self.owned.check_built()
        before = {} if self.tracking is None else self.tracking.weights(all_of_them=True)
        self.reads_steps = keras_private.reads_steps(keras.Model.fit, model, args, kwargs)
        args, kwargs = with_callbacks(keras.Model.fit, self, model, args, kwargs)
        try:
            history = fit(*args, **kwargs)
        finally:
            self.last_batch = None  # also where `fit` is interrupted
            self.reads_steps = True
        fill_in(history.history, before)
        if self.tracking is not None:
            self.tracking.describe_weights(history, before)
        return history

    def after_step_outside_fit(self) -> None:
        """Called after `train_on_batch`: warns of what this step has shown of the rules."""
        if self.gradient_rules:
            reading.warn_of_places(self.gradient_rules)
        for composite in self._with_rules:
            composite.warn_of_values()
            composite.count_step_outside_fit()

    def metrics_names(self, model: keras.Model, metrics: Sequence[keras.Metric]) -> list[str]:
        """What `metrics_names` of the model gives; `metrics` are those of Keras."""
        names: list[str] = []
        for metric in metrics:
            try:
                result = metric.result()
            except ValueError:  # a compiled metric before the first batch
                result = None
            names.extend(result if isinstance(result, dict) else [metric.name])
        tracking = self.tracking or self.tracking_for(model)
        return keras_private.behind_loss(names, [] if tracking is None else tracking.visible)

    def in_order(self, model: keras.Model, logs: dict[str, Any], return_dict: bool) -> Results:
        """Logs as `evaluate` gives them, in the order of `metrics_names`."""
        if self._ordered != logs.keys():  # names of metrics take longer than a small step
            self._ordered, self._order = set(logs), model.metrics_names
        logs = in_order(logs, self._order)
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
        if keras_private.step_function(model, "train_step") is not None:
            keras_private.recompile_step(model, "train_step")
        if keras_private.step_function(model, "test_step") is not None:
            keras_private.recompile_step(model, "test_step")

    def _current_model(self) -> keras.Model | None:
        """The model; None if it is gone, or was compiled again and keeps another `ModelState`."""
        model = self._model()
        return model if model is not None and state_of(model) is self else None


class Running:
    """The thread in which a model runs, and a lock for who changes that, or the model's state."""

    def __init__(self) -> None:
        self.thread: int | None = None  # the ident of the thread; None while the model rests
        self.lock: contextlib.AbstractContextManager[bool] = threading.RLock()

    @contextlib.contextmanager
    def held_still(self) -> Iterator[bool]:
        """No model begins to run in the block; gives whether no other thread runs it already."""
        with self.lock:
            yield self.thread in (None, threading.get_ident())

    @contextlib.contextmanager
    def in_this_thread(self, then: Callable[[], None]) -> Iterator[None]:
        """The model runs in the block, in this thread; `then` is called at the end."""
        if self.thread is not None:  # the block is inside another one, which is not at its end
            yield
            return
        with self.lock:
            self.thread = threading.get_ident()
        try:
            yield
        finally:
            with self.lock:
                self.thread = None
                then()


def state_of(model: keras.Model) -> ModelState | None:
    """The `ModelState` of a model that is compiled with a composite, or None."""
    state: ModelState | None = vars(model).get(STATE)
    return state


def tracking_of(model: keras.Model, y_pred: Any = None) -> Tracking | None:
    """The `Tracking` of a model; None for a plain one, and before the outputs are known."""
    state = state_of(model)
    return None if state is None else state.tracking or state.tracking_for(model, y_pred)


@contextlib.contextmanager
def calling(model: keras.Model) -> Iterator[ModelState | None]:
    """The block is a `fit`, an `evaluate` or the like, of this thread; gives the `ModelState`.

    Raises if the model cannot train on its losses. After the block the changes are made that other
    threads have asked for.
    """
    state = state_of(model)
    if state is None:
        yield None
        return
    state.check(model)
    with state.running.in_this_thread(then=state.apply_pending):
        yield state


def predicting(model: keras.Model) -> contextlib.AbstractContextManager[None]:
    """The block is a `predict` of this thread."""
    state = state_of(model)
    if state is None:
        return contextlib.nullcontext()
    return state.running.in_this_thread(then=state.apply_pending)


def joined(
    variables: Sequence[keras.Variable], more: Sequence[keras.Variable]
) -> list[keras.Variable]:
    """Both, each variable once."""
    known = {id(v) for v in variables}
    return [*variables, *(v for v in more if id(v) not in known)]
