"""`ComponentMetricsMixin`: the part of a model that trains on composites and reports parts."""

from typing import TYPE_CHECKING, Any

import keras

from combined_losses._backend import keras_private
from combined_losses._core.config import deeply, serialize_losses
from combined_losses._core.keras_types import documented_by
from combined_losses._core.outputs import places_of, with_batch
from combined_losses._core.step import current_step, inside, step_with
from combined_losses.composite.reading import warn_of_places
from combined_losses.training import routing
from combined_losses.training.captured import capturing, note
from combined_losses.training.h5 import CompileConfig
from combined_losses.training.keeping import (
    STATE,
    leave_weights,
    running_here,
    state_of,
    stop_keeping,
    tracking_of,
)
from combined_losses.training.model_state import (
    ModelState,
    check_built,
    check_reductions,
    exclude_learned,
    fill_in,
    find_owned,
    joined,
    loss_variables,
    ordered,
    owned_variables,
    warn_of_parts,
)
from combined_losses.training.moving import warn_of_accumulation, with_callbacks
from combined_losses.training.steps import anew, unpacking
from combined_losses.training.tracker import (
    LazyVector,
    owners_of,
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

    # Compiling: Keras is given no loss of its own to compute, so that there is one way from the
    # outputs to the total, this one, and nothing is computed or logged twice.

    @documented_by(keras.Model.compile)
    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        **kwargs,
    ):
        keras_private.drop_hidden(self, STATE)
        before = getattr(self, "loss", None)
        routing.check_compiled(loss, loss_weights)
        kwargs.update(metrics=metrics, weighted_metrics=weighted_metrics)
        if not routing.compounds(loss):
            if loss is None and routing.compounds(before):
                keras_private.forget_loss(self)
            super().compile(optimizer, loss, loss_weights, **kwargs)
            return
        computed = before is not None and not routing.compounds(before)
        keras_private.compile_without_loss(super().compile, self, optimizer, loss, computed, kwargs)
        exclude_learned(self)
        is_whole = type(self).compute_loss is ComponentMetricsMixin.compute_loss
        state = ModelState(self, loss, loss_weights, [metrics, weighted_metrics], is_whole)
        keras_private.hide(self, STATE, state)
        keras_private.replace_compile_config(self, lambda plain: CompileConfig(plain, state))
        find_owned(self)
        tracking_of(self)  # checks names and outputs now, where the outputs are known
        for compound in state.compounds:
            compound.warn_of_model(self)
        warn_of_accumulation(self.optimizer, state.compounds)

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
        with deeply():
            self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    @documented_by(keras.Model.save)
    def save(self, *args, **kwargs):
        warn_of_parts(self)
        with deeply():
            return super().save(*args, **kwargs)

    # The state of the losses is state of the model.

    @property
    def variables(self):
        own = joined(super().variables, loss_variables(self))
        return joined(own, owned_variables(self))

    # What a loss reads beside its arguments, such as a teacher, is threaded and not trained.

    @property
    def trainable_variables(self):
        found = super().trainable_variables
        owned = {id(v) for v in owned_variables(self)}
        return [v for v in found if id(v) not in owned] if owned else found

    @property
    def non_trainable_variables(self):
        return joined(super().non_trainable_variables, owned_variables(self))

    @property
    def weights(self):
        return joined(super().weights, [v for v in loss_variables(self) if v.trainable])

    # The vector of the parts is counted beside `metrics`, where a step of the user's may call
    # `update_state(y, y_pred)` of all that it finds.

    @property
    def metrics_variables(self):
        tracking = tracking_of(self)
        found = super().metrics_variables
        return found if tracking is None else [*found, *tracking.tracker.variables]

    def reset_metrics(self):
        super().reset_metrics()
        tracking = tracking_of(self)
        if tracking is not None:
            tracking.tracker.reset_state()

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
        tracking = tracking_of(self)
        more = () if tracking is None else tracking.visible
        return keras_private.behind_loss(names, more)

    # Outputs: a subclassed model shows its outputs when it is called, the others beforehand.

    def __call__(self, *args, **kwargs):
        outputs = super().__call__(*args, **kwargs)
        state = state_of(self)
        if state is not None and state.places is None:
            state.places = places_of(outputs)
        return outputs

    # Computing.

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The total of all losses; records the components of every `CompositeLoss`."""
        tracking = tracking_of(self, y_pred)
        if tracking is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        return tracking.evaluate(self, x, y, y_pred, sample_weight, training)

    if keras.backend.backend() == "torch":

        def zero_grad(self, *args, **kwargs):
            """Also of what is trained in the losses, which is no parameter of the module."""
            super().zero_grad(*args, **kwargs)
            for variable in loss_variables(self):
                keras_private.clear_gradient(variable)

    if keras.backend.backend() == "jax":  # what a repetition of the step needs

        @documented_by(keras.Model.stateless_call)
        def stateless_call(self, trainable_variables, non_trainable_variables, *args, **kwargs):
            note(self, call=(non_trainable_variables, args, kwargs))
            with step_with(calls_model=True):
                return super().stateless_call(
                    trainable_variables, non_trainable_variables, *args, **kwargs
                )

        @property
        def losses(self):
            """As Keras has them; notes which layer has added which, while that can be seen."""
            found, state = super().losses, state_of(self)
            if state is not None and current_step().calls_model:
                state.loss_owners = owners_of(self, found)
            return found

        @documented_by(keras.Model.stateless_compute_loss)
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
            note(self, loss=(metrics_variables, given))
            with step_with(keeps_results=True):
                return super().stateless_compute_loss(
                    trainable_variables, non_trainable_variables, metrics_variables, **given
                )

    def train_step(self, *args):
        state = state_of(self)
        readers, compounds = (state.readers, state.compounds) if state else ((), ())
        with inside("step"), capturing(self, readers, compounds, args):
            result = super().train_step(*args)
        keeps = state is not None and state.keepers > 0
        return with_batch(result, keras_private.batch_of(args)) if keeps else result

    def test_step(self, *args):
        with inside("step"), step_with(is_test=True):
            return super().test_step(*args)

    def get_metrics_result(self):
        results = super().get_metrics_result()
        tracking = tracking_of(self)
        if tracking is None or not tracking.seen:
            return results
        packed = tracking.tracker.result()
        if current_step().of_model is not None:
            return {**results, tracking.tracker.name: packed}
        if keras_private.has_counted_no_loss(
            super().metrics
        ):  # a step of the user's has computed the loss alone
            results = {key: value for key, value in results.items() if key != "loss"}
        return tracking.unpack(results, LazyVector(packed).number)

    def make_train_function(self, force=False):
        stale = force or keras_private.step_function(self, "train_step") is None
        if stale:
            exclude_learned(self)  # again: the user may have replaced what is excluded
        with anew(self, "train_step"):
            result = super().make_train_function(force)
        if stale:
            _unpack(self, "train_step")
        return result

    def make_test_function(self, force=False):
        stale = force or keras_private.step_function(self, "test_step") is None
        with anew(self, "test_step"):
            result = super().make_test_function(force)
        if stale:
            _unpack(self, "test_step")
        return result

    # Training: checked before the first step, reported in order.

    @documented_by(keras.Model.fit)
    def fit(self, *args, **kwargs):
        check_reductions(self)
        find_owned(self)  # again: a global may have been made since `compile`
        check_built(self)
        tracking = tracking_of(self)
        before = {} if tracking is None else tracking.weights(all_of_them=True)
        if state_of(self) is not None:
            args, kwargs = with_callbacks(keras.Model.fit, self, args, kwargs)
        try:
            with running_here(self):
                history = super().fit(*args, **kwargs)
        finally:
            stop_keeping(self)  # also where a callback has not come to its end
        fill_in(history.history, before)
        leave_weights(self, history, before)
        return history

    @documented_by(keras.Model.evaluate)
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
        check_reductions(self)
        tracked = state_of(self) is not None
        with running_here(self):
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
        return ordered(self, logs, return_dict) if tracked else logs

    @documented_by(keras.Model.train_on_batch)
    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        check_reductions(self)
        tracked = state_of(self) is not None
        with running_here(self):
            logs = super().train_on_batch(x, y, sample_weight, class_weight, return_dict or tracked)
        if tracked:
            warn_of_places(state_of(self).readers)
            for composite in state_of(self).composites:
                composite.warn_of_values()
                composite.note_lone_step()
        return ordered(self, logs, return_dict) if tracked else logs

    @documented_by(keras.Model.test_on_batch)
    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        check_reductions(self)
        tracked = state_of(self) is not None
        with running_here(self):
            logs = super().test_on_batch(x, y, sample_weight, return_dict or tracked)
        return ordered(self, logs, return_dict) if tracked else logs

    @documented_by(keras.Model.predict)
    def predict(self, *args, **kwargs):
        with running_here(self):
            return super().predict(*args, **kwargs)


def _unpack(model, step):
    """Lets the function that Keras has compiled of a step give logs by name."""
    function = keras_private.step_function(model, step)
    function = unpacking(model, function, step, _is_ours(model, step))
    keras_private.set_step_function(model, step, function)


def _is_ours(model, step):
    """Whether a step and its loss are the mixin's own."""
    methods = (step, "compute_loss")
    return all(getattr(type(model), m) is getattr(ComponentMetricsMixin, m) for m in methods)
