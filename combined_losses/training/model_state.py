"""All that a model keeps that is compiled with a composite, under one name of its own."""

import contextlib
import warnings
import weakref

import keras

from combined_losses._backend import keras_private
from combined_losses._core.outputs import penalty_names, places_of, single_names
from combined_losses._core.owned import owned_by, variables_of
from combined_losses.composite import reading
from combined_losses.training import routing
from combined_losses.training.keeping import state_of, tracking_of
from combined_losses.training.moving import check_scope
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

    def __init__(self, model, loss, loss_weights, metrics, is_whole):
        self._model = weakref.ref(model)
        self.loss = loss
        self.compounds = routing.compounds(loss)
        self.composites = [c for compound in self.compounds for c in compound.composites()]
        self.readers = reading.rules_of(self.compounds)
        self.loss_weights = loss_weights
        self.metrics = metrics
        self.is_whole = is_whole
        self.places = None  # of the outputs, see `outputs.places_of`; None before they are known
        self.tracking = None
        self.owned: list = []  # what the losses read beside their arguments, see `find_owned`
        self.given: list = []  # of these, the models that were given to be saved
        self.warned_of_parts = False
        self.keepers = 0  # callbacks that look at batches
        self.batch = None
        self.keeping = self.resting = None  # the step functions with and without batches
        self.measurers = {}
        self.running = Running()
        self.recorded = False  # whether the step that is traced, or runs, has recorded its parts
        self.loss_owners: list[int | None] = []  # on JAX, see `tracker.owners_of`

    def tracking_for(self, model, y_pred=None):
        """The routes and the tracker; None before the outputs are known."""
        if self.tracking is None:
            places = self._find_places(model, y_pred)
            if places is not None:
                self._start(model, y_pred, places)
        return self.tracking

    def _start(self, model, y_pred, places):
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

    def apply_pending(self):
        """Makes the changes of weights that other threads have asked for."""
        for composite in self.composites:
            composite.apply_pending()

    def held_still(self):
        return self.running.held_still()

    def sync(self):
        model = self._current_model()
        if model is not None:
            keras_private.bring_back_state(model)

    def rebuild(self):
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

    def _current_model(self):
        """The model; None where it is gone, or has been compiled anew and keeps another state."""
        model = self._model()
        return model if model is not None and state_of(model) is self else None

    def _find_places(self, model, y_pred):
        if isinstance(model, keras.Sequential):
            return places_of(None)
        layer_names = keras_private.output_names(model)
        if layer_names is not None and y_pred is None:
            return places_of(model.output, layer_names)
        return self.places if y_pred is None else places_of(y_pred, layer_names)


# Of a model, whether it is compiled with a composite or not.


def compiled_compounds(model):
    """The losses of a model that are made of losses."""
    return routing.compounds(getattr(model, "loss", None))


def loss_variables(model):
    """The state of the losses, which is state of the model."""
    return [v for compound in compiled_compounds(model) for v in compound.variables]


def find_owned(model):
    """Looks for the networks, variables and seeds that the losses read beside their arguments.

    They are state of the model, which its steps are given on JAX, but nothing that it trains.
    """
    state = state_of(model)
    if state is not None:
        readers = [r for compound in state.compounds for r in compound.find_readers()]
        things = [thing for reader in readers if callable(reader) for thing in owned_by(reader)]
        state.owned = [thing for thing in things if thing is not model]
        for composite in state.composites:
            composite.check_skips(model)
        state.given = [reader for reader in readers if isinstance(reader, keras.Model)]


def check_built(model):
    """Raises where a network that a loss reads would make its variables inside a step of JAX."""
    state = state_of(model)
    if state is None or keras.backend.backend() != "jax":
        return
    for thing in state.owned:
        if isinstance(thing, keras.layers.Layer) and not thing.built:
            raise ValueError(
                f"The loss reads '{thing.name}', which has no variables yet, and a compiled step "
                "on JAX cannot make them: call it once on data, or give it a keras.Input, before "
                f"`fit`. Received: {thing!r}, not built"
            )


def warn_of_parts(model):
    """Called before a model is saved: says which of the saved networks it has a part of itself."""
    state = state_of(model)
    if state is None or state.warned_of_parts:
        return
    own = {id(v) for v in model.weights}
    shared = [m.name for m in state.given if own & {id(v) for v in variables_of([m])}]
    if shared:
        state.warned_of_parts = True
        warnings.warn(
            f"The loss is given {', '.join(map(repr, shared))} by `models=`, which is, or has, a "
            "part of the trained model. In the file it is a network of its own: after loading, the "
            "two have the same weights and are no longer one.",
            stacklevel=3,
        )


def owned_variables(model):
    """The variables of what the losses read, without those that the model has itself."""
    state = state_of(model)
    if state is None or not state.owned:
        return []
    known = {id(v) for v in (*model.weights, *loss_variables(model))}
    return [v for v in variables_of(state.owned) if id(v) not in known]


def exclude_learned(model):
    """Keeps weight decay from what the optimizer trains in the losses."""
    learned = [v for compound in compiled_compounds(model) for v in compound.learned_variables]
    keras_private.keep_from_weight_decay(model.optimizer, learned)


def joined(variables, more):
    """Both, each variable once."""
    known = {id(v) for v in variables}
    return [*variables, *(v for v in more if id(v) not in known)]


def check_reductions(model):
    """Raises where a composite gives one total for each sample; checks the rest beforehand."""
    for composite in compiled_compounds(model):
        if composite.reduction in ("none", None):
            raise ValueError(
                f"A model cannot train on '{composite.name}': its reduction is 'none', so it "
                "gives one total for each sample. Use it in custom loops, or give it another "
                "reduction, for example the default 'per_component'. "
                f"Received: reduction={composite.reduction!r}"
            )
    tracking_of(model)


# Logs.


def ordered(model, logs, return_dict):
    """Logs of a tracked model in the order of `metrics_names`, as Python's numbers."""
    names = [name for name in model.metrics_names if name in logs]
    names += [name for name in logs if name not in names]
    logs = {name: _python_number(logs[name]) for name in names}
    return logs if return_dict else list(logs.values())


def _python_number(value):
    try:
        return float(value)
    except (TypeError, ValueError):  # a metric of the user's that is no number
        return value


def fill_in(history, weights):
    """Back-fills a weight for the epochs before it was first changed."""
    for prefix in ("", "val_"):
        epochs = len(history.get(f"{prefix}loss", []))
        for key, value in weights.items():
            logged = history.get(prefix + key)
            if logged is not None:
                logged[:0] = [value] * (epochs - len(logged))
