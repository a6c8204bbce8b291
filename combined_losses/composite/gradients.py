"""The gradients of the components of a composite, for the rules that read them.

At the output they are taken in the loss itself. At a layer, or at the parameters, a training step
is captured from its beginning: `capturing` is opened by the mixin around Keras's own step.
"""

import contextlib
import contextvars
import functools
import warnings
import weakref
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from combined_losses import _backend as backend
from combined_losses._backend import keras_private
from combined_losses._backend.capture import columns, float32
from combined_losses._backend.probing import probed
from combined_losses._core.compound import Compound, readers_of
from combined_losses._core.owned import owned_by
from combined_losses.weightings.products import Products, powers_of_two


class Taken(NamedTuple):
    """The gradients of k components where a rule reads them.

    Attributes:
        products: the `Products` of them, over the batch that all replicas see.
        rows: for each point the k gradients, flat, of this replica.
        points: what they were taken at.
    """

    products: Any
    rows: Any = None
    points: Any = None


def evaluate(rule, batch, parts, label, moving=()):
    """The evaluations of `parts`, and what is `Taken` of their gradients in a training step.

    Args:
        rule: None, or that of the composite.
        batch: a `Batch`.
        parts: functions of a batch, one for each component.
        label: the name of the composite.
        moving: variables that the parts move in a loop of one's own; of a model they are its own.
    """
    capture, probe = _current.get(), probed()
    if rule is None or not rule.reads_gradients or not batch.training:
        return [part(batch) for part in parts], None
    if probe is not None and probe[0] is rule:
        found = [part(batch) for part in parts]
        if not probe[1]:  # once, also where a rule around it reads the gradients of its value
            probe[1].extend(each.total for each in found)
        return found, None
    if rule.place == "output":
        variables = list(moving) if batch.model is None else batch.model.variables
        return _at_output(rule, batch, parts, variables)
    if batch.model is None:
        raise ValueError(
            f"The weighting of '{label}' reads gradients at a layer or at the parameters, which "
            "takes a training step of cl.Model, cl.Sequential or cl.track(model): in a loop of "
            "your own call `model.train_on_batch(...)` of such a model, or take "
            f"gradients='output'. Received: gradients={rule.place!r}"
        )
    # Taken already where the step, or this loss alone, is repeated for another rule's sake.
    if capture is not None and (probe is not None or id(rule) in capture.taken):
        return [part(batch) for part in parts], capture.taken.get(id(rule))
    if capture is None:
        raise ValueError(
            f"The weighting of '{label}' reads gradients at a layer or at the parameters, which "
            "takes the whole training step, and this `train_step` is not the one of "
            "cl.ComponentMetricsMixin: call `super().train_step(...)` in it, or take "
            f"gradients='output'. Received: gradients={rule.place!r}"
        )
    found = [part(batch) for part in parts]
    return found, capture.take(rule, [each.total for each in found])


def _at_output(rule, batch, parts, variables):
    # In float32 or more: the gradient of a mean over a batch vanishes in float16.
    points = [float32(leaf) for leaf in keras.tree.flatten(batch.y_pred)]

    def view(points):
        points = iter(points)
        return batch.map_predictions(lambda leaf: next(points))

    found, rows = backend.evaluate_with_rows(points, view, parts, variables)
    rows = columns(rows)
    return found, Taken(_products(rule, rows))


def products_of(rows):
    """`(gramian, scales, largest)` of k gradients, given for each point, of this replica.

    Each gradient is divided by its scale, a power of two near its largest entry in all replicas:
    the product of two that are very long, or very short, need not be a number of float32.
    """
    largest = backend.global_max(largest_of(rows))
    scales = powers_of_two(largest)
    gramian = sum(backend.gramian(column, scales) for column in rows)
    return ops.stop_gradient(gramian), scales, largest


def largest_of(rows):
    """The largest magnitude in each of k gradients, `(k,)`, given for each point."""
    return ops.stop_gradient(ops.max(ops.stack([backend.largest(c) for c in rows]), axis=0))


def _products(rule, rows, shared=False):
    """The `Products` that a rule needs; `shared`: every replica has the rows of all of them."""
    gramian, scales, largest = products_of(rows)
    gramian = gramian if shared else backend.global_sum(gramian)
    if "rows" not in rule.needs:
        return Products(gramian, scales)
    return Products(gramian, scales, largest, _mean_sizes(rows))


def _mean_sizes(rows):
    """The mean magnitude in each of the k gradients, over all replicas."""
    total = sum(ops.stack([ops.sum(ops.abs(row)) for row in column]) for column in rows)
    count = sum(ops.cast(ops.shape(column[0])[0], "float32") for column in rows)
    return ops.stop_gradient(backend.global_sum(total) / backend.global_sum(count))


# Capturing a step.

_current: Any = contextvars.ContextVar("combined_losses_capture", default=None)


@contextlib.contextmanager
def capturing(model, readers, compounds, arguments):
    """A training step of `model` whose gradients at layers and parameters may be asked for.

    Args:
        model: the model.
        readers: what `rules_of` gives of its losses.
        compounds: its losses that are made of losses.
        arguments: those of the step.
    """
    rules = [rule for _, rule in readers if rule.place != "output"]
    if not rules:
        yield
        return
    layers = [rule.place for rule in rules if rule.place != "parameters"]
    with backend.capture(model, arguments) as steps:
        token = _current.set(Captured(model, compounds, steps))
        try:
            with _watched([model.get_layer(name) for name in set(layers)]):
                yield
        finally:
            _current.reset(token)


def note(model, **what):
    """Keeps what the repetition of a captured step of a model needs, on JAX."""
    capture = _current.get()
    if capture is not None and capture.model is model and probed() is None:
        for name, value in what.items():
            setattr(capture.steps, name, value)


@contextlib.contextmanager
def _watched(layers):
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


def _watching(name, call):
    @functools.wraps(call)
    def watching(*args, **kwargs):
        found, capture = call(*args, **kwargs), _current.get()
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

    def __init__(self, model, compounds, steps):
        self.model = model
        self.compounds = compounds
        self.steps = steps
        self.taken = {}  # by the `id` of the rule, for repetitions of the step

    def take(self, rule, values):
        """What is `Taken` of the gradients of the values, one for each component."""
        self.taken[id(rule)] = self._take_if_due(rule, values)
        return self.taken[id(rule)]

    def _take_if_due(self, rule, values):
        timed = rule.innermost
        # Replicas cannot add up inside a condition; there the rule leaves alone what it is given.
        if timed.update_every == 1 or backend.replica_count() > 1:
            return self._take(rule, values)
        k = len(values)
        due = timed.is_due(timed.step_count)

        def taken():
            return [each for each in self._take(rule, values).products if each is not None]

        def untaken():
            return [each for each in _no_products(rule, k) if each is not None]

        return Taken(Products(*backend.either(due, taken, untaken)))

    def _take(self, rule, values):
        points, k = self._points(rule), len(values)
        if not points:  # all of them frozen: no component has a gradient
            return Taken(_no_products(rule, k), [], [])
        scale = self.steps.loss_scale()
        rows = self.steps.rows(rule, values, points, scale)
        shared = rule.place == "parameters"
        # Every replica has its part of the gradient at a parameter, but its own rows of a layer.
        whole = [backend.global_sum(column) for column in rows] if shared else rows
        return Taken(_products(rule, whole, shared), rows, points)

    def _points(self, rule):
        place = rule.place
        if place == "parameters":
            return parameters(self.model, self.compounds, rule.shared_layers)
        points = self.steps.watched(place)
        if not points:
            raise ValueError(
                f"The model has not called the layer '{place}' in this step, so that a weighting "
                f"finds no gradients there. Received: gradients={place!r}"
            )
        return points


def _no_products(rule, k):
    """What is measured where there is no gradient."""
    none = Products(ops.zeros((k, k)), ops.ones((k,)))
    if "rows" not in rule.needs:
        return none
    return none._replace(largest=ops.zeros((k,)), mean=ops.zeros((k,)))


def parameters(model, compounds, layers=None):
    """The variables at which gradients are taken for `gradients="parameters"`.

    Those of some layers, or all; without what is learned in the losses.
    """
    if layers is not None:
        layers = [model.get_layer(name) for name in layers]
        shared = {id(v) for layer in layers for v in layer.trainable_variables}
        return [v for v in model.trainable_variables if id(v) in shared]
    learned = {id(v) for loss in compounds for v in loss.learned_variables}
    return [v for v in model.trainable_variables if id(v) not in learned]


def with_gradient(total, taken, weights):
    """`total` with the gradient `sum_i weights_i * g_i` at the points of `taken`."""
    gradients = [
        ops.reshape(backend.combine(weights, column), ops.shape(point))
        for column, point in zip(taken.rows, taken.points, strict=True)
    ]
    return backend.attach(total, taken.points, gradients)


# Checks.


def rules_of(compounds):
    """The rules that read gradients, `(composite, rule)`, of composites and of those inside."""
    found = []
    for loss in compounds:
        rule = loss.weighting
        found.extend([(loss, rule)] if rule is not None and rule.reads_gradients else [])
        found.extend(
            rules_of([child for child, _ in loss._children() if isinstance(child, Compound)])
        )
    return found


def check_parts(composite, rule):
    """Raises where a component acts on more than the place where a rule reads its gradient."""
    if rule is None or not rule.reads_gradients or rule.place == "parameters":
        return
    for name, loss in composite.losses.items():
        if is_beyond_output(loss):
            raise ValueError(
                f"Component '{name}' of '{composite.name}' acts on the model by more than its "
                "output, where the weighting reads gradients: take gradients='parameters'. "
                f"Received: gradients={rule.place!r}"
            )


def acts_beside(composite):
    """Which components may act on the network by another way than where their rule reads.

    Booleans `(k,)`, or None: it reads at all parameters. Past the output there is a way for
    functions alone that hold a network, a layer or a variable.
    """
    rule = composite.weighting
    if rule.place == "parameters" and rule.shared_layers is None:
        return None
    if rule.place != "output":
        return np.ones(len(composite.losses), bool)
    readers = [filter(callable, readers_of(loss)) for loss in composite.losses.values()]
    return np.array([any(owned_by(reader) for reader in each) for each in readers])


def is_beyond_output(loss):
    """Whether a loss, or one inside, acts on the model by more than its output."""
    if not isinstance(loss, Compound):
        return False
    return loss.is_beyond_output or any(is_beyond_output(child) for child, _ in loss._children())


def warn_of_places(readers):
    """Says, once, what rules do not see where they read gradients; called after a first step."""
    warn_of_missing(readers)
    warn_of_disjoint(readers)


def warn_of_disjoint(readers):
    """Says, once, where a rule cannot see a conflict."""
    for composite, rule in readers:
        rule = rule.innermost
        if rule in _compared or not rule.reads_cosines:
            continue
        if len(composite.names) == 1:
            _compared.add(rule)
            continue
        meet = ops.convert_to_numpy(rule.cosines) != 0
        live = np.flatnonzero(np.diagonal(meet))
        if len(live) < 2:
            continue  # too few had a gradient; the next step may tell
        _compared.add(rule)
        group = _group(meet, live[0])
        others = [i for i in live if i not in group]
        if others and rule.place != "parameters":
            names = [" and ".join(repr(composite.names[i]) for i in g) for g in (group, others)]
            warnings.warn(
                f"{type(rule).__name__} cannot see a conflict between {names[0]} and {names[1]} in "
                f"'{composite.name}': they act on disjoint parts of {_place(rule)}. Take the "
                'gradients where both come together: gradients="<name of a layer>" or '
                '"parameters".',
                stacklevel=2,
            )


def warn_of_missing(readers):
    """Says, once, which components have no gradient where a rule reads it."""
    for composite, rule in readers:
        rule = rule.innermost
        found = rule.components_without_gradient()
        if rule in _warned_of_missing or not found:
            continue
        _warned_of_missing.add(rule)
        names = " and ".join(repr(composite.names[i]) for i in found)
        warnings.warn(
            f"{type(rule).__name__}, the weighting of '{composite.name}', reads gradients at "
            f"{_place(rule)}, where these components have none: {names}. It does not weigh them: "
            "they keep their fixed weights. If it should, take the gradients where all of them "
            'have one, such as gradients="parameters". '
            f"Received: gradients={rule.place!r}",
            stacklevel=2,
        )


def _place(rule):
    """Where a rule reads gradients, in words."""
    place, layers = rule.place, rule.shared_layers
    if place == "output":
        return "the output"
    if place != "parameters":
        return f"layer '{place}'"
    return "the parameters" + (f" of {', '.join(map(repr, layers))}" if layers else "")


_compared: Any = weakref.WeakSet()
_warned_of_missing: Any = weakref.WeakSet()


def _group(meet, first):
    """The components that are connected with one, in order."""
    found = {first}
    while True:
        more = {int(j) for i in found for j in np.flatnonzero(meet[i])} - found
        if not more:
            return sorted(found)
        found |= more


def check_layers(model, readers):
    """Raises where a rule names a layer that the model has not."""
    layers = getattr(model, "layers", ())  # a trainer need not have them
    names = [layer.name for layer in layers]
    for composite, rule in readers:
        place = rule.place
        wanted = list(rule.shared_layers or [])
        wanted += [] if place in ("output", "parameters") else [place]
        unknown = [name for name in wanted if name not in names]
        bare = [
            layer.name
            for layer in layers
            if layer.name in (rule.shared_layers or ()) and layer.built and not layer.weights
        ]
        if bare:
            raise ValueError(
                f"`shared_layers` of the weighting of '{composite.name}' must be layers that have "
                f"parameters. Received: {bare[0]!r}"
            )
        if unknown:
            raise ValueError(
                f"The weighting of '{composite.name}' reads gradients at a layer that the model "
                f"has not. It has {', '.join(map(repr, names))}; besides, `gradients` may be "
                f"'output' or 'parameters'. Received: {unknown[0]!r}"
            )
