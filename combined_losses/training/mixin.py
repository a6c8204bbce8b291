"""`ComponentMetricsMixin`: the part of a model that trains on composites and reports parts."""

from typing import Any, Literal

import keras

from combined_losses._backend import keras_private
from combined_losses._core.config import deeply
from combined_losses._core.keras_types import documented_by
from combined_losses._core.outputs import places_of, with_batch
from combined_losses._core.step import inside
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.training.backend_steps import OF_BACKEND
from combined_losses.training.compiling import Optimizer, compile_model, with_losses
from combined_losses.training.gradient_capture import capturing
from combined_losses.training.logs import Results
from combined_losses.training.model_state import STATE, ModelState, calling, joined, predicting
from combined_losses.training.routing import CompiledLoss, LossWeights
from combined_losses.training.steps import make_function


class ComponentMetricsMixin(OF_BACKEND):
    """Makes a Keras model report every component of the `CompositeLoss` it is compiled with.

    Put it before `keras.Model` in a class of your own; `cl.Model`, `cl.Sequential` and `cl.track`
    are built on it. `compile`, `fit`, `evaluate`, callbacks and saving stay as they are. The logs
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

    # `vars(self).get(STATE)` is the `ModelState` of a model that is compiled with a composite.

    @documented_by(keras.Model.compile)
    def compile(
        self,
        optimizer: Optimizer = "rmsprop",
        loss: CompiledLoss = None,
        loss_weights: LossWeights = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        kwargs.update(metrics=metrics, weighted_metrics=weighted_metrics)
        is_whole = type(self).compute_loss is ComponentMetricsMixin.compute_loss
        compile_model(self, super().compile, (optimizer, loss, loss_weights, kwargs), is_whole)

    def get_compile_config(self) -> dict[str, Any]:
        config, state = super().get_compile_config(), vars(self).get(STATE)
        return config if state is None else with_losses(config, state)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        with deeply():
            self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    @documented_by(keras.Model.save)
    def save(self, *args: Any, **kwargs: Any) -> Any:
        state = vars(self).get(STATE)
        if state is not None:
            state.owned.warn_of_parts(self)
        with deeply():
            return super().save(*args, **kwargs)

    # The state of the losses is state of the model. The networks that losses read, such as a
    # teacher, are state too, which a step on JAX has to be given, but are not trained.

    @property
    def variables(self) -> list[keras.Variable]:
        found: list[keras.Variable] = super().variables
        state: ModelState | None = vars(self).get(STATE)
        return found if state is None else state.with_all(self, found)

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        found: list[keras.Variable] = super().trainable_variables
        state: ModelState | None = vars(self).get(STATE)
        return found if state is None else state.without_owned(self, found)

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        found: list[keras.Variable] = super().non_trainable_variables
        state: ModelState | None = vars(self).get(STATE)
        return found if state is None else joined(found, state.owned_variables(self))

    @property
    def weights(self) -> list[keras.Variable]:
        found: list[keras.Variable] = super().weights
        state: ModelState | None = vars(self).get(STATE)
        return state.with_learned(found) if state is not None and state.learned else found

    # The tracker is not among `metrics`: a step of the user's may call `update_state(y, y_pred)` of
    # all that it finds there.

    @property
    def metrics_variables(self) -> list[keras.Variable]:
        found: list[keras.Variable] = super().metrics_variables
        state: ModelState | None = vars(self).get(STATE)
        return found if state is None else state.with_tracker(self, found)

    def reset_metrics(self) -> None:
        super().reset_metrics()
        state = vars(self).get(STATE)
        if state is not None and state.tracking is not None:
            state.tracking.tracker.reset_state()

    @property
    def metrics_names(self) -> list[str]:
        state: ModelState | None = vars(self).get(STATE)
        if state is None:
            return list(super().metrics_names)
        return state.metrics_names(self, super().metrics)

    # Outputs: those of a subclassed model are known when it is called, those of others before.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outputs, state = super().__call__(*args, **kwargs), vars(self).get(STATE)
        if state is not None and state.places is None:
            state.places = places_of(outputs)
        return outputs

    # Computing.

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The total of all losses; records the components of every `CompositeLoss`."""
        state = vars(self).get(STATE)
        if state is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        return state.compute_loss(self, x, y, y_pred, sample_weight, training)

    def train_step(self, *args: Any) -> Any:
        state = vars(self).get(STATE)
        with inside("step"), capturing(self, state, args):
            result = super().train_step(*args)
        has_batch = state is not None and state.returns_batches
        return with_batch(result, keras_private.batch_of(args)) if has_batch else result

    def test_step(self, *args: Any) -> Any:
        with inside("step", is_test=True):
            return super().test_step(*args)

    def get_metrics_result(self) -> dict[str, Any]:
        results: dict[str, Any] = super().get_metrics_result()
        state: ModelState | None = vars(self).get(STATE)
        if state is None or state.tracking is None:
            return results
        return state.tracking.metrics_result(results, super().metrics)

    def make_train_function(self, force: bool = False) -> Any:
        make = super().make_train_function
        return make_function(self, "train_step", make, force, ComponentMetricsMixin)

    def make_test_function(self, force: bool = False) -> Any:
        make = super().make_test_function
        return make_function(self, "test_step", make, force, ComponentMetricsMixin)

    # Running: what can be checked is checked before the first step; logs are returned in order.

    @documented_by(keras.Model.fit)
    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        with calling(self) as state:
            if state is None:
                return super().fit(*args, **kwargs)
            return state.fit(super().fit, self, args, kwargs)

    @documented_by(keras.Model.evaluate)
    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Literal["auto", 0, 1, 2] = "auto",
        sample_weight: ArrayLike = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Results:
        kwargs.update(verbose=verbose, sample_weight=sample_weight, steps=steps)
        kwargs.update(batch_size=batch_size, callbacks=callbacks)
        with calling(self) as state:
            if state is None:
                return super().evaluate(x, y, return_dict=return_dict, **kwargs)
            logs = super().evaluate(x, y, return_dict=True, **kwargs)
        return state.in_order(self, logs, return_dict)

    @documented_by(keras.Model.train_on_batch)
    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: ArrayLike = None,
        class_weight: dict[int, float] | None = None,
        return_dict: bool = False,
    ) -> Results:
        with calling(self) as state:
            if state is None:
                return super().train_on_batch(x, y, sample_weight, class_weight, return_dict)
            logs = super().train_on_batch(x, y, sample_weight, class_weight, True)
        state.after_step_outside_fit()
        return state.in_order(self, logs, return_dict)

    @documented_by(keras.Model.test_on_batch)
    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: ArrayLike = None, return_dict: bool = False
    ) -> Results:
        with calling(self) as state:
            if state is None:
                return super().test_on_batch(x, y, sample_weight, return_dict)
            logs = super().test_on_batch(x, y, sample_weight, True)
        return state.in_order(self, logs, return_dict)

    @documented_by(keras.Model.predict)
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with predicting(self):
            return super().predict(*args, **kwargs)
