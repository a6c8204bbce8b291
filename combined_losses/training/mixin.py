"""`ComponentMetricsMixin`: the part of a model that trains on composites and reports their parts."""

import contextlib
import contextvars
import functools

import keras
from keras import ops

from combined_losses._internal.batch import Batch
from combined_losses.training import backend, routing
from combined_losses.training.tracker import ComponentTracker

# True inside a training or test step: results leave the step as one vector, not as n scalars.
_in_step = contextvars.ContextVar("combined_losses_in_step", default=False)
_STATE = "_combined_losses"


class ComponentMetricsMixin:
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

    # Compiling: Keras is given no loss of its own to compute, so that there is one way from the
    # outputs to the total, this one, and nothing is computed or logged twice.

    @functools.wraps(keras.Model.compile)
    def compile(self, optimizer="rmsprop", loss=None, loss_weights=None, **kwargs):
        self.__dict__.pop(_STATE, None)
        if not routing.composites(loss):
            super().compile(optimizer=optimizer, loss=loss, loss_weights=loss_weights, **kwargs)
            return
        stale = getattr(self, "loss", None) is not None and not routing.composites(self.loss)
        super().compile(optimizer=optimizer, loss=loss if stale else None, **kwargs)
        self.loss = loss
        self.__dict__[_STATE] = _State(loss, loss_weights)

    def get_compile_config(self):
        config = super().get_compile_config()
        if _STATE in self.__dict__:
            state = self.__dict__[_STATE]
            config = {
                **config,
                "loss": keras.saving.serialize_keras_object(state.loss),
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
        composites = routing.composites(getattr(self, "loss", None))
        return [v for composite in composites for v in composite.variables]

    @property
    def metrics(self):
        tracking = self._tracking()
        return super().metrics + ([] if tracking is None else [tracking.tracker])

    @property
    def metrics_names(self):
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
        state = self.__dict__.get(_STATE)
        if state is not None and state.outputs is None:
            state.outputs = list(routing.name_outputs(outputs))
        return outputs

    def _output_names(self, y_pred=None):
        if isinstance(self, keras.Sequential):
            return [""]
        layer_names = getattr(self, "output_names", None)
        if layer_names is not None and y_pred is None:
            return list(routing.name_outputs(self.output, layer_names))
        if y_pred is not None:
            return list(routing.name_outputs(y_pred, layer_names))
        return self.__dict__[_STATE].outputs

    def _tracking(self, y_pred=None):
        """The routes and the tracker, or None without a composite or before outputs are known."""
        state = self.__dict__.get(_STATE)
        if state is None:
            return None
        if state.tracking is None:
            outputs = self._output_names(y_pred)
            if outputs is None:
                return None
            strategy = getattr(self, "distribute_strategy", None)
            with contextlib.nullcontext() if strategy is None else strategy.scope():
                state.tracking = _Tracking(state.loss, state.loss_weights, outputs)
            for composite in routing.composites(state.loss):
                composite._register_model(self)
        return state.tracking

    # Computing.

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The total of all losses; records the components of every `CompositeLoss`."""
        tracking = self._tracking(y_pred)
        if tracking is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        outputs = routing.name_outputs(y_pred, getattr(self, "output_names", None))
        return tracking.evaluate(y, outputs, sample_weight, self.losses)

    def train_step(self, *args):
        with _step():
            return super().train_step(*args)

    def test_step(self, *args):
        with _step():
            return super().test_step(*args)

    def get_metrics_result(self):
        results = super().get_metrics_result()
        tracking = self._tracking()
        if tracking is None:
            return results
        packed = results.pop(tracking.tracker.name)
        if not tracking.seen:
            return results
        tracking.check_collisions(results)
        if _in_step.get():
            return {**results, tracking.tracker.name: packed}
        return tracking.unpack(results, packed)

    def make_train_function(self, force=False):
        stale = force or self.train_function is None
        result = super().make_train_function(force)
        if stale:
            self.train_function = self._unpacking(self.train_function)
        return result

    def make_test_function(self, force=False):
        stale = force or self.test_function is None
        result = super().make_test_function(force)
        if stale:
            self.test_function = self._unpacking(self.test_function)
        return result

    def _unpacking(self, function):
        """A step function whose logs have names again."""

        def unpacked(*args):
            result = function(*args)
            logs, *state = result if isinstance(result, tuple) else (result,)
            tracking = self._tracking()
            if tracking is not None and tracking.tracker.name in logs:
                logs = dict(logs)
                logs = tracking.unpack(logs, logs.pop(tracking.tracker.name))
            return (logs, *state) if state else logs

        return unpacked

    # Training: checked before the first step, reported in order.

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        self._check_trainable()
        return super().fit(*args, **kwargs)

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
        tracked = _STATE in self.__dict__
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
    def train_on_batch(
        self, x, y=None, sample_weight=None, class_weight=None, return_dict=False
    ):
        self._check_trainable()
        tracked = _STATE in self.__dict__
        logs = super().train_on_batch(x, y, sample_weight, class_weight, return_dict or tracked)
        return self._ordered(logs, return_dict) if tracked else logs

    @functools.wraps(keras.Model.test_on_batch)
    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        self._check_trainable()
        tracked = _STATE in self.__dict__
        logs = super().test_on_batch(x, y, sample_weight, return_dict or tracked)
        return self._ordered(logs, return_dict) if tracked else logs

    def _check_trainable(self):
        for composite in routing.composites(getattr(self, "loss", None)):
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
        logs = {name: logs[name] for name in [*names, *(k for k in logs if k not in names)]}
        return logs if return_dict else list(logs.values())


@contextlib.contextmanager
def _step():
    token = _in_step.set(True)
    try:
        yield
    finally:
        _in_step.reset(token)


def _joined(variables, more):
    known = {id(v) for v in variables}
    return [*variables, *(v for v in more if id(v) not in known)]


class _State:
    """What a model compiled with a composite keeps; no Keras object, so that no saver walks it."""

    def __init__(self, loss, loss_weights):
        self.loss = loss
        self.loss_weights = loss_weights
        self.outputs = None
        self.tracking = None


class _Tracking:
    """The routes of a model and the one vector in which everything is recorded.

    The vector: the total, the values of each route, the regularisation loss.
    """

    def __init__(self, loss, loss_weights, outputs):
        self.outputs = outputs
        self.routes = routing.make_routes(loss, loss_weights, outputs)
        keys = [key for route in self.routes for key in route.keys]
        self.keys = ["loss", *keys, "regularization_loss"]
        self.tracker = ComponentTracker(len(self.keys))
        self.seen = False  # a step has been traced
        self.regularized = False
        self.replicas = 1

    @property
    def visible(self):
        """The keys after `loss` that logs show, in order."""
        keys = self.keys[1:] if self.regularized else self.keys[1:-1]
        return [*keys, *self.weights()]

    def weights(self):
        """The log keys and values of the weights that have been changed."""
        found = {}
        for route in self.routes:
            found.update(route.moving_weights())
        return found

    def evaluate(self, y, outputs, sample_weight, regularization):
        """The total; adds this batch to the tracker."""
        if list(outputs) != self.outputs:
            raise ValueError(
                f"The model was compiled for the outputs {self.outputs} and now gives "
                f"{list(outputs)}; compile it again."
            )
        totals, values, batch = [], [], None
        for route in self.routes:
            target, weight = (
                routing.pick(what, given, self.routes, self.outputs, route)
                for what, given in (("y", y), ("sample_weight", sample_weight))
            )
            batch = Batch(target, outputs[route.output], weight)
            total, parts = route.evaluate(batch)
            totals.append(total)
            values.extend(parts)
        penalty = self._regularization(regularization, batch.replicas)
        total = sum(totals[1:], totals[0])
        if penalty is not None:
            total = total + ops.cast(penalty, total.dtype)
        self._update([total, *values, 0.0 if penalty is None else penalty], batch)
        return total

    def _regularization(self, losses, replicas):
        if not losses:
            return None
        self.regularized = True
        return sum(ops.sum(ops.cast(loss, "float32")) for loss in losses) / replicas

    def _update(self, entries, batch):
        """Adds the vector times the batch size.

        The entries are this replica's contributions to the batch that all replicas see, so they
        are weighed with the size of that whole batch.
        """
        self.seen = True
        self.replicas = batch.replicas
        first = keras.tree.flatten(batch.y_pred)[0]
        size = ops.cast(ops.shape(first)[0] if len(first.shape) else 1, "float32")
        whole = size if batch.replicas == 1 else backend.global_sum(size)
        vector = ops.stack([ops.cast(entry, "float32") for entry in entries])
        self.tracker.update_state(vector * whole, size)

    def check_collisions(self, results):
        for key in results:
            if key != "loss" and key in self.visible:
                raise ValueError(
                    f"A metric and a component would write to the log key '{key}'. Rename the "
                    f"component or the metric. Received: metrics {sorted(results)}"
                )

    def unpack(self, results, packed):
        """Logs with a name for every entry of the vector that is shown."""
        read = _reader(packed)
        logs = {"loss": results.pop("loss", read(0))}
        if self.replicas > 1:
            # Keras weighs each replica's share of the loss as if it were the whole.
            logs["loss"] = read(0)
        last = len(self.keys) if self.regularized else len(self.keys) - 1
        logs.update((self.keys[index], read(index)) for index in range(1, last))
        return {**logs, **self.weights(), **results}


def _reader(packed):
    """Reads entries of the vector: lazily on the host, as scalars inside a compiled step."""
    if not _in_step.get():
        return _HostVector(packed).read
    return lambda index: packed[index]


class _HostVector:
    """The vector of a step, brought to the host once, when the first number is asked for."""

    def __init__(self, packed):
        self.packed = packed
        self.values = None

    def read(self, index):
        return _Number(self, index)


class _Number:
    """One entry of a vector that may still be computed on the device; a float when asked."""

    __slots__ = ("index", "vector")

    def __init__(self, vector, index):
        self.vector = vector
        self.index = index

    def __float__(self):
        if self.vector.values is None:
            self.vector.values = ops.convert_to_numpy(self.vector.packed)
        return float(self.vector.values[self.index])

    def __repr__(self):
        return repr(float(self))
