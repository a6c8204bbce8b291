"""`ComponentMetricsMixin`: the part of a model that trains on composites and reports parts."""

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import keras

from combined_losses._internal.config import serialize_losses
from combined_losses.training import backend, gradients, routing
from combined_losses.training.h5 import CompileConfig
from combined_losses.training.keeping import STATE, state_of, stop_keeping
from combined_losses.training.moving import check_scope, exclude_from_weight_decay, with_epoch_ends
from combined_losses.training.outputs import (
    BATCH,
    name_outputs,
    penalty_names,
    single_names,
    with_batch,
)
from combined_losses.training.tracker import (
    LazyVector,
    Tracking,
    calling,
    inside,
    is_calling,
    is_inside_step,
    owners_of,
    testing,
)

_Base: Any = keras.Model if TYPE_CHECKING else object


class ComponentMetricsMixin(_Base):
    """Makes a Keras model report every component of the `CompositeLoss` it is compiled with.

    Put it before `keras.Model` in a class of your own; `cl.Model`, `cl.Sequential` and `cl.track`
    are made of it. `compile`, `fit`, `evaluate`, callbacks and saving stay as they are. The logs
    gain `<name>_loss` for every component, unweighted, from the same forward pass, and
    `regularization_loss` where the model has such losses; the weights of the composite are part
    of the model's `variables`. A model that is compiled without a `CompositeLoss` behaves exactly
    as without the mixin.

    On a model of several outputs a composite is applied to each, and its keys are
    `<output>_<name>_loss`; in `loss={"a": composite, "b": "mse"}` they are `a_<name>_loss` and
    `b_loss`. `loss_weights` may be a partial dict; what it leaves out counts 1.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> class Line(cl.ComponentMetricsMixin, keras.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.dense = keras.layers.Dense(1, kernel_initializer="zeros")
    ...
    ...     def call(self, inputs):
    ...         return self.dense(inputs)
    >>> model = Line()
    >>> model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"]))
    >>> x, y = np.ones((4, 1)), np.full((4, 1), 2.0)
    >>> model.evaluate(x, y, verbose=0, return_dict=True)
    {'loss': 6.0, 'mse_loss': 4.0, 'mae_loss': 2.0}
    """

    loss: Any
    train_function: Any
    test_function: Any

    # Compiling: Keras is given no loss of its own to compute, so that there is one way from the
    # outputs to the total, this one, and nothing is computed or logged twice.

    @functools.wraps(keras.Model.compile)
    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        **kwargs,
    ):
        self.__dict__.pop(STATE, None)
        before = getattr(self, "loss", None)
        routing.check_compiled(loss, loss_weights)
        kwargs.update(metrics=metrics, weighted_metrics=weighted_metrics)
        if not routing.compounds(loss):
            if loss is None and routing.compounds(before):
                self.loss = None
            super().compile(optimizer, loss, loss_weights, **kwargs)
            return
        # A loss that Keras computed before stays in it until it is given another one.
        stale = before is not None and not routing.compounds(before)
        super().compile(optimizer, loss if stale else None, **kwargs)
        self.loss = loss
        self._exclude_learned()
        state = _State(loss, loss_weights, [metrics, weighted_metrics])
        self.__dict__[STATE] = state
        self._compile_config = CompileConfig(self._compile_config, state)
        for compound in state_of(self).compounds:
            compound.warn_of_model(self)
        self._tracking()  # checks names and outputs now, where the outputs are known

    def _exclude_learned(self):
        compounds = routing.compounds(getattr(self, "loss", None))
        learned = [v for compound in compounds for v in compound.learned_variables]
        exclude_from_weight_decay(self.optimizer, learned)

    def get_compile_config(self):
        config = super().get_compile_config()
        state = state_of(self)
        if state is not None:
            config = {
                **config,
                "loss": serialize_losses(state.loss),
                "loss_weights": keras.saving.serialize_keras_object(state.loss_weights),
            }
        return config

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    # The state of the losses is state of the model.

    @property
    def variables(self):
        return _joined(super().variables, self._loss_variables())

    @property
    def weights(self):
        return _joined(super().weights, [v for v in self._loss_variables() if v.trainable])

    def _loss_variables(self):
        compounds = routing.compounds(getattr(self, "loss", None))
        return [v for compound in compounds for v in compound.variables]

    @property
    def metrics(self):
        tracking = self._tracking()
        return super().metrics + ([] if tracking is None else [tracking.tracker])

    @property
    def metrics_names(self):
        if state_of(self) is None:
            return super().metrics_names
        names = []
        for metric in super().metrics:
            try:
                result = metric.result()
            except ValueError:  # a compiled metric before the first batch
                result = None
            names.extend(result if isinstance(result, dict) else [metric.name])
        tracking = self._tracking()
        return names if tracking is None else [*names[:1], *tracking.visible, *names[1:]]

    # Outputs: a subclassed model shows its outputs when it is called, the others beforehand.

    def __call__(self, *args, **kwargs):
        outputs = super().__call__(*args, **kwargs)
        state = state_of(self)
        if state is not None and state.outputs is None:
            state.outputs = list(name_outputs(outputs))
        return outputs

    def _output_names(self, y_pred=None):
        if isinstance(self, keras.Sequential):
            return [""]
        layer_names = getattr(self, "output_names", None)
        if layer_names is not None and y_pred is None:
            return list(name_outputs(self.output, layer_names))
        if y_pred is not None:
            return list(name_outputs(y_pred, layer_names))
        return state_of(self).outputs

    def _tracking(self, y_pred=None):
        """The routes and the tracker, or None without a composite or before outputs are known."""
        state = state_of(self)
        if state is None:
            return None
        if state.tracking is None:
            outputs = self._output_names(y_pred)
            if outputs is None:
                return None
            if outputs == [""]:
                routing.check_single(state.loss, state.loss_weights, single_names(self, y_pred))
            strategy = getattr(self, "distribute_strategy", None)
            check_scope(strategy, state.compounds)
            gradients.check_layers(self, state.readers)
            with contextlib.nullcontext() if strategy is None else strategy.scope():
                names = penalty_names(self)
                tracking = Tracking(state.loss, state.loss_weights, outputs, names)
            tracking.check_metrics(state.metrics)
            tracking.is_whole = type(self).compute_loss is ComponentMetricsMixin.compute_loss
            state.tracking = tracking
            for composite in state.compounds:
                composite.register_model(self)
        return state.tracking

    # Computing.

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The total of all losses; records the components of every `CompositeLoss`."""
        tracking = self._tracking(y_pred)
        if tracking is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        return tracking.evaluate(self, x, y, y_pred, sample_weight, training)

    if keras.backend.backend() == "torch":

        def zero_grad(self, *args, **kwargs):
            """Also of what is trained in the losses, which is no parameter of the module."""
            super().zero_grad(*args, **kwargs)
            for variable in self._loss_variables():
                variable.value.grad = None

    if keras.backend.backend() == "jax":  # what a repetition of the step needs

        @functools.wraps(keras.Model.stateless_call)
        def stateless_call(self, trainable_variables, non_trainable_variables, *args, **kwargs):
            gradients.note(self, call=(non_trainable_variables, args, kwargs))
            with calling():
                return super().stateless_call(
                    trainable_variables, non_trainable_variables, *args, **kwargs
                )

        @property
        def losses(self):
            """As Keras has them; notes which layer has added which, while that can be seen."""
            found, state = super().losses, state_of(self)
            if state is not None and is_calling():
                state.loss_owners = owners_of(self, found)
            return found

        @functools.wraps(keras.Model.stateless_compute_loss)
        def stateless_compute_loss(
            self,
            trainable_variables,
            non_trainable_variables,
            metrics_variables,
            x=None,
            y=None,
            y_pred=None,
            sample_weight=None,
            training=True,
        ):
            given = {
                "x": x,
                "y": y,
                "y_pred": y_pred,
                "sample_weight": sample_weight,
                "training": training,
            }
            gradients.note(self, loss=(metrics_variables, given))
            return super().stateless_compute_loss(
                trainable_variables, non_trainable_variables, metrics_variables, **given
            )

    def train_step(self, *args):
        state = state_of(self)
        readers, compounds = (state.readers, state.compounds) if state else ((), ())
        with inside("step"), gradients.capturing(self, readers, compounds, args):
            result = super().train_step(*args)
        keeps = state is not None and state.keepers > 0
        return with_batch(result, args[-1]) if keeps else result

    def test_step(self, *args):
        with inside("step"), testing():
            return super().test_step(*args)

    def get_metrics_result(self):
        results = super().get_metrics_result()
        tracking = self._tracking()
        if tracking is None:
            return results
        packed = results.pop(tracking.tracker.name)
        if not tracking.seen:
            return results
        if is_inside_step():
            return {**results, tracking.tracker.name: packed}
        return tracking.unpack(results, LazyVector(packed).number)

    def make_train_function(self, force=False):
        stale = force or self.train_function is None
        if stale:
            self._exclude_learned()  # again: the user may have replaced what is excluded
        with self._as_new("train_step"):
            result = super().make_train_function(force)
        if stale:
            self.train_function = self._unpacking(self.train_function, "train_step")
        return result

    def make_test_function(self, force=False):
        stale = force or self.test_function is None
        with self._as_new("test_step"):
            result = super().make_test_function(force)
        if stale:
            self.test_function = self._unpacking(self.test_function, "test_step")
        return result

    @contextlib.contextmanager
    def _as_new(self, step):
        """Gives Keras a function of its own to compile: JAX takes equal methods for compiled."""
        method = getattr(self, step)

        def own_step(*args):
            return method(*args)

        self.__dict__[step] = own_step
        try:
            yield
        finally:
            del self.__dict__[step]

    def _unpacking(self, function, step):
        """A step function whose logs have names again."""
        # A step of the user's may be compiled by the user, and would not be compiled anew here.
        methods = (step, "compute_loss")
        ours = all(getattr(type(self), m) is getattr(ComponentMetricsMixin, m) for m in methods)

        def unpacked(*args):
            still = testing() if step == "test_step" else contextlib.nullcontext()
            try:
                with inside("function" if ours else "step"), still:
                    result = function(*args)
            except Exception:
                backend.restore_state(self, args[0])
                raise
            logs, *state = result if isinstance(result, tuple) else (result,)
            if BATCH in logs:
                logs = dict(logs)
                state_of(self).batch = logs.pop(BATCH)
            tracking = self._tracking()
            if tracking is not None and tracking.tracker.name in logs:
                logs = dict(logs)
                vector = LazyVector(logs.pop(tracking.tracker.name))
                logs = tracking.unpack(logs, vector.read)
            return (logs, *state) if state else logs

        return unpacked

    # Training: checked before the first step, reported in order.

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        self._check_trainable()
        tracking = self._tracking()
        before = {} if tracking is None else tracking.weights(all_of_them=True)
        if any(compound.moves for compound in routing.compounds(getattr(self, "loss", None))):
            args, kwargs = with_epoch_ends(keras.Model.fit, self, args, kwargs)
        try:
            history = super().fit(*args, **kwargs)
        finally:
            stop_keeping(self)  # also where a callback has not come to its end
        _fill_in(history.history, before)
        history.component_weights = before  # for figures: what never changes is not in the logs
        return history

    @functools.wraps(keras.Model.evaluate)
    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ):
        self._check_trainable()
        tracked = state_of(self) is not None
        logs = super().evaluate(
            x,
            y,
            batch_size=batch_size,
            verbose=verbose,
            sample_weight=sample_weight,
            steps=steps,
            callbacks=callbacks,
            return_dict=return_dict or tracked,
            **kwargs,
        )
        return self._ordered(logs, return_dict) if tracked else logs

    @functools.wraps(keras.Model.train_on_batch)
    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        self._check_trainable()
        tracked = state_of(self) is not None
        logs = super().train_on_batch(x, y, sample_weight, class_weight, return_dict or tracked)
        if tracked:
            gradients.warn_of_disjoint(state_of(self).readers)
        return self._ordered(logs, return_dict) if tracked else logs

    @functools.wraps(keras.Model.test_on_batch)
    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        self._check_trainable()
        tracked = state_of(self) is not None
        logs = super().test_on_batch(x, y, sample_weight, return_dict or tracked)
        return self._ordered(logs, return_dict) if tracked else logs

    def _check_trainable(self):
        for composite in routing.compounds(getattr(self, "loss", None)):
            if composite.reduction in ("none", None):
                raise ValueError(
                    f"A model cannot train on '{composite.name}': its reduction is 'none', so it "
                    "gives one total for each sample. Use it in custom loops, or give it another "
                    "reduction, for example the default 'per_component'. "
                    f"Received: reduction={composite.reduction!r}"
                )
        self._tracking()

    def _ordered(self, logs, return_dict):
        names = [name for name in self.metrics_names if name in logs]
        names += [name for name in logs if name not in names]
        logs = {name: _python_number(logs[name]) for name in names}
        return logs if return_dict else list(logs.values())


def _python_number(value):
    try:
        return float(value)
    except (TypeError, ValueError):  # a metric of the user's that is no number
        return value


def _fill_in(history, weights):
    """Gives a weight that was first changed in a later epoch the epochs before, when it was not."""
    for prefix in ("", "val_"):
        epochs = len(history.get(f"{prefix}loss", []))
        for key, value in weights.items():
            logged = history.get(prefix + key)
            if logged is not None:
                logged[:0] = [value] * (epochs - len(logged))


def _joined(variables, more):
    known = {id(v) for v in variables}
    return [*variables, *(v for v in more if id(v) not in known)]


class _State:
    """What a model compiled with a composite keeps; no Keras object, so that no saver walks it."""

    def __init__(self, loss, loss_weights, metrics):
        self.loss = loss
        self.compounds = routing.compounds(loss)
        self.readers = gradients.rules_of(self.compounds)
        self.loss_weights = loss_weights
        self.metrics = metrics
        self.outputs = None
        self.tracking = None
        self.keepers = 0  # callbacks that look at batches
        self.batch = None
        self.keeping = self.resting = None  # the step functions with and without batches
        self.measurers = {}
        self.loss_owners: list[int | None] = []  # on JAX, see `tracker.owners_of`
