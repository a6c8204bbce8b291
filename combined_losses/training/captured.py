"""A training step from its beginning, in which gradients can be taken at layers and parameters.

`capturing` is opened by the mixin around Keras's own step.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras

from combined_losses._backend import backend, keras_private
from combined_losses._backend.probing import probed
from combined_losses._core.compound import Compound
from combined_losses._core.step import current_step, step_with
from combined_losses._numerics.arrays import Tensor
from combined_losses.composite.gradients import Taken, no_products, products_for
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.products import Products

if TYPE_CHECKING:
    from combined_losses.training.model_state import ModelState


@contextlib.contextmanager
def capturing(model: Any, state: "ModelState | None", arguments: tuple[Any, ...]) -> Iterator[None]:
    """A training step of `model` whose gradients at layers and parameters may be asked for.

    Args:
        model: the model.
        state: its `ModelState`, or None.
        arguments: those of the step.
    """
    if state is None or not state.captures:
        yield
        return
    layers = [rule.place for rule in state.captures if rule.place != "parameters"]
    with backend.capture(model, arguments) as steps:
        watched = _watched([model.get_layer(name) for name in set(layers)])
        with step_with(captured=Captured(model, state.compounds, steps)), watched:
            yield


def note(model: Any, **what: Any) -> None:
    """Keeps what the repetition of a captured step of a model needs, on JAX."""
    capture = current_step().captured
    if capture is not None and capture.model is model and probed() is None:
        for name, value in what.items():
            setattr(capture.steps, name, value)


@contextlib.contextmanager
def _watched(layers: Sequence[Any]) -> Iterator[None]:
    """Layers whose output goes through `watch(name, tensor) -> tensor` of the captured step."""
    # Replicas take turns in one step, in threads of their own: the first to come is the one that
    # puts watchers on and off, and each finds its own step.
    ours = [layer for layer in layers if not hasattr(layer.call, "watches")]
    for layer in ours:
        keras_private.put_call(layer, _watching(layer.name, layer.call))
    try:
        yield
    finally:
        for layer in ours:
            keras_private.restore_call(layer)


def _watching(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def watching(*args: Any, **kwargs: Any) -> Any:
        found, capture = call(*args, **kwargs), current_step().captured
        if capture is None:
            return found
        return keras.tree.map_structure(lambda leaf: capture.steps.watch(name, leaf), found)

    watching.watches = True  # type: ignore[attr-defined]
    return watching


class Captured:
    """A training step from its beginning, in which gradients can be taken at layers and parameters.

    Args:
        model: the model.
        compounds: its losses that are made of losses.
        steps: the `capture` of the framework.
    """

    def __init__(self, model: Any, compounds: Sequence[Compound], steps: Any) -> None:
        self.model = model
        self.compounds = compounds
        self.steps = steps
        self.taken: dict[int, Taken] = {}  # by the `id` of the rule, for repetitions of the step

    def take(self, rule: Weighting, values: Sequence[Tensor]) -> Taken:
        """What is `Taken` of the gradients of the values, one for each component."""
        self.taken[id(rule)] = self._take_if_due(rule, values)
        return self.taken[id(rule)]

    def _take_if_due(self, rule: Weighting, values: Sequence[Tensor]) -> Taken:
        timed = rule.innermost
        # Replicas cannot add up inside a condition; there the rule leaves alone what it is given.
        if timed.update_every == 1 or backend.replica_count() > 1:
            return self._take(rule, values)
        k = len(values)
        due = timed.is_due(timed.step_count)

        def taken() -> list[Tensor]:
            return [each for each in self._take(rule, values).products if each is not None]

        def untaken() -> list[Tensor]:
            return [each for each in no_products(rule, k) if each is not None]

        return Taken(Products(*backend.either(due, taken, untaken)))

    def _take(self, rule: Weighting, values: Sequence[Tensor]) -> Taken:
        points, k = self._points(rule), len(values)
        if not points:  # all of them frozen: no component has a gradient
            return Taken(no_products(rule, k), [], [])
        scale = self.steps.loss_scale()
        rows = self.steps.rows(rule, values, points, scale)
        shared = rule.place == "parameters"
        # Every replica has its part of the gradient at a parameter, but its own rows of a layer.
        whole = [backend.global_sum(column) for column in rows] if shared else rows
        return Taken(products_for(rule, whole, shared), rows, points)

    def _points(self, rule: Weighting) -> Sequence[Any]:
        place = rule.place
        if place == "parameters":
            return parameters(self.model, self.compounds, rule.shared_layers)
        points: Sequence[Any] = self.steps.watched(place)
        if not points:
            raise ValueError(
                f"The model has not called the layer '{place}' in this step, so that a weighting "
                f"finds no gradients there. Received: gradients={place!r}"
            )
        return points


def parameters(
    model: Any, compounds: Iterable[Compound], layers: Iterable[str] | None = None
) -> list[Any]:
    """The variables at which gradients are taken for `gradients="parameters"`.

    Those of some layers, or all; without what is learned in the losses.
    """
    if layers is not None:
        named = [model.get_layer(name) for name in layers]
        shared = {id(v) for layer in named for v in layer.trainable_variables}
        return [v for v in model.trainable_variables if id(v) in shared]
    learned = {id(v) for loss in compounds for v in loss.learned_variables}
    return [v for v in model.trainable_variables if id(v) not in learned]
