"""Training steps that are captured, so that gradients can be taken at layers and parameters.

`capturing` is opened by the mixin around Keras's own step.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras

from combined_losses._backend import backend, keras_private
from combined_losses._backend.capture import Capture
from combined_losses._backend.factors import Product
from combined_losses._backend.probing import probed
from combined_losses._core.compound import Compound
from combined_losses._core.step import current_step, step_with
from combined_losses._numerics.arrays import Tensor
from combined_losses.composite.gradients import MeasuredGradients, no_products, products_for
from combined_losses.training.model_state import ModelState
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.products import Products


def capturing(
    model: keras.Model, state: ModelState | None, arguments: tuple[Any, ...]
) -> contextlib.AbstractContextManager[None]:
    """The block is a training step; it is captured if a rule reads gradients inside the network.

    Args:
        model: the model.
        state: its `ModelState`, or None.
        arguments: those of the step.
    """
    if state is None or not state.capturing_rules:
        return contextlib.nullcontext()
    return _captured(model, state, arguments)


@contextlib.contextmanager
def _captured(model: keras.Model, state: ModelState, arguments: tuple[Any, ...]) -> Iterator[None]:
    layers = {rule.place for rule in state.capturing_rules if rule.place != "parameters"}
    with backend.capture(model, arguments) as steps:
        captured = CapturedStep(model, state.compounds, steps)
        watched = _watched([model.get_layer(name) for name in layers])
        dense = _dense_layers(model) if captured.reads_parameters(state.capturing_rules) else []
        with step_with(captured=captured), watched, _with_products_watched(dense):
            yield


def keep_for_repetition(model: keras.Model, **arguments: Any) -> None:
    """Keeps arguments with which a captured step of a model can be repeated, on JAX.

    Args:
        model: the model.
        arguments: `call`, those of the model's call, or `loss`, those of its loss; see
            `_backend.capture.Capture`.
    """
    captured = current_step().captured
    if captured is not None and captured.model is model and probed() is None:
        for name, value in arguments.items():
            setattr(captured.steps, name, value)


@contextlib.contextmanager
def _watched(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """In the block the outputs of layers go through `Capture.watch`, which may replace them.

    Keras has no public hook for that: a functional model with the layer's output beside its own
    would give a tensor of another pass, and a subclassed model has no graph. So `call` of the layer
    is replaced.
    """
    # Replicas run one step in threads of their own: the first thread replaces `call` and puts it
    # back, and each thread finds its own captured step in the context.
    replaced = [layer for layer in layers if not hasattr(layer.call, "watches")]
    for layer in replaced:
        keras_private.put_call(layer, _watching(layer.name, layer.call))
    try:
        yield
    finally:
        for layer in replaced:
            keras_private.restore_call(layer)


def _dense_layers(model: keras.Model) -> list[keras.layers.Dense]:
    """The layers of a model, and of models in it, that are `Dense` and nothing else."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += _dense_layers(layer)
        # JAX keeps what it has traced of a rematerialised `call` by the function, with the kernel
        # of that time: such a layer needs a `call` of its own.
        elif (
            type(layer) is keras.layers.Dense
            and layer.compute_dtype == "float32"
            and not keras_private.is_rematerialised(layer)
        ):
            found.append(layer)
    return found


@contextlib.contextmanager
def _with_products_watched(layers: Iterable[keras.layers.Dense]) -> Iterator[None]:
    """In the block the products of inputs and kernels go through `Capture.watch_product`."""
    # A layer whose `call` is replaced already, by us or somebody else, is left as it is.
    replaced = [layer for layer in dict.fromkeys(layers) if "call" not in vars(layer)]
    for layer in replaced:
        keras_private.put_call(layer, _watching_product(layer, layer.call))
    try:
        yield
    finally:
        for layer in replaced:
            keras_private.restore_call(layer)


def _watching_product(layer: keras.layers.Dense, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def watching(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        captured, activation = current_step().captured, layer.activation
        # A kernel that is no variable, such as one with the products of LoRA, has no gradient.
        if captured is None or not isinstance(layer.kernel, keras.Variable):
            return call(inputs, *args, **kwargs)

        def watched(z: Tensor) -> Tensor:
            z = captured.steps.watch_product(Product(layer.kernel, inputs, z))
            return z if activation is None else activation(z)

        with keras_private.other_activation(layer, watched):
            return call(inputs, *args, **kwargs)

    return watching


def _watching(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def watching(*args: Any, **kwargs: Any) -> Any:
        outputs, captured = call(*args, **kwargs), current_step().captured
        if captured is None:
            return outputs
        return keras.tree.map_structure(lambda leaf: captured.steps.watch(name, leaf), outputs)

    vars(watching)["watches"] = True
    return watching


class CapturedStep:
    """A training step in which gradients can be taken at layers and parameters.

    Args:
        model: the model.
        compounds: its losses that are made of losses.
        steps: the `Capture` of the backend.
    """

    def __init__(self, model: keras.Model, compounds: Sequence[Compound], steps: Capture) -> None:
        self.model = model
        self.compounds = compounds
        self.steps = steps
        self._gradients: dict[int, MeasuredGradients] = {}  # by the `id` of the rule

    def reads_parameters(self, rules: Iterable[Weighting]) -> bool:
        """Whether a rule reads the products of gradients at the parameters.

        Not where there are several replicas, each of which has but a part of each gradient.
        """
        readers = [r for r in rules if r.place == "parameters" and "rows" not in r.needs]
        return bool(readers) and backend.replica_count() == 1

    def gradients_of(self, rule: Weighting) -> MeasuredGradients | None:
        """The gradients that were measured for a rule, where the step is repeated; else None."""
        return self._gradients.get(id(rule))

    def measure_gradients(self, rule: Weighting, values: list[Tensor]) -> MeasuredGradients:
        """The gradients of the values, one for each component, where the rule reads them."""
        self._gradients[id(rule)] = measured = self._measure_if_due(rule, values)
        return measured

    def _measure_if_due(self, rule: Weighting, values: list[Tensor]) -> MeasuredGradients:
        timed = rule.innermost
        # Replicas cannot add up inside a condition. With several of them the gradients are measured
        # in every step, and the rule ignores them when it is not due.
        if timed.update_every == 1 or backend.replica_count() > 1:
            return self._measure(rule, values)
        k = len(values)
        due = timed.is_due(timed.step_count)

        def measured() -> list[Tensor]:
            return [each for each in self._measure(rule, values).products if each is not None]

        def zeros() -> list[Tensor]:
            return [each for each in no_products(rule, k) if each is not None]

        return MeasuredGradients(Products(*backend.either(due, measured, zeros)))

    def _measure(self, rule: Weighting, values: list[Tensor]) -> MeasuredGradients:
        points, k = self._points(rule), len(values)
        if not points:  # all parameters are frozen: no component has a gradient
            return MeasuredGradients(no_products(rule, k), [], [])
        scale = self.steps.loss_scale()
        rows = self.steps.rows(rule, values, points, scale)
        shared = rule.place == "parameters"
        # Each replica has a part of the gradient at a parameter, to be added to those of others; at
        # a layer it has the gradients of its own rows, all there is of them.
        whole = [backend.global_sum(column) for column in rows] if shared else rows
        return MeasuredGradients(products_for(rule, whole, shared), rows, points)

    def _points(self, rule: Weighting) -> list[Any]:
        place = rule.place
        if place == "parameters":
            return parameters(self.model, self.compounds, rule.shared_layers)
        points = [] if place is None else self.steps.watched(place)
        if not points:
            raise ValueError(
                f"The model has not called the layer '{place}' in this step, so there are no "
                f"gradients for the weighting to read. Received: gradients={place!r}"
            )
        return points


def parameters(
    model: keras.Model, compounds: Iterable[Compound], layers: Iterable[str] | None = None
) -> list[keras.Variable]:
    """The variables at which gradients are taken for `gradients="parameters"`.

    Those of the layers with some names, or all of the model; never what the losses learn.
    """
    if layers is not None:
        chosen = [model.get_layer(name) for name in layers]
        shared = {id(v) for layer in chosen for v in layer.trainable_variables}
        return [v for v in model.trainable_variables if id(v) in shared]
    learned = {id(v) for loss in compounds for v in loss.learned_variables}
    return [v for v in model.trainable_variables if id(v) not in learned]
