"""What the components of a compiled model are on a batch: values, weights, gradients.

Nothing of the model changes: no weight, no statistic, no metric.
"""

import contextlib
import inspect
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from combined_losses._internal.component import observing, split
from combined_losses._internal.compound import Compound
from combined_losses._internal.masks import read_mask, with_mask
from combined_losses._internal.names import log_key, weight_key
from combined_losses.composite import CompositeLoss
from combined_losses.training import backend, gradients, routing
from combined_losses.training.capture import columns
from combined_losses.training.outputs import name_outputs
from combined_losses.training.tracker import routed


class Part(NamedTuple):
    """A component, or a part of a nested one.

    Attributes:
        name: as in the logs, without `_loss`.
        key: its log key.
        path: its name without that of the output, as in messages.
        parent: the name of the component that it is a part of, or None.
        is_beyond_output: whether it acts on the model by more than its output.
        factor: what multiplies it beside its own weight: `loss_weights`.
    """

    name: str
    key: str
    path: str
    parent: str | None
    is_beyond_output: bool
    factor: float


class Measured(NamedTuple):
    """What k parts were on a batch of N samples.

    Attributes:
        values: `(k,)`, unweighted.
        weights: `(k,)`, those that multiply them; NaN where a wrapper weighs by itself.
        gramian: `(k, k)`, of the gradients; NaN where one is not finite.
        faulty: for each part the samples whose gradient is not finite, `(N,)`, or None: unknown.
        total: the loss.
        size: N.
    """

    values: np.ndarray
    weights: np.ndarray
    gramian: np.ndarray
    faulty: list
    total: float
    size: int


def check_model(model, owner):
    """Raises unless a model is compiled with a loss made of losses."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"{owner} needs a keras.Model. Received: {model!r}")
    if not getattr(model, "compiled", False):
        raise ValueError(
            f"{owner} needs a compiled model: call `model.compile(optimizer, loss=CompositeLoss("
            f"...))` first. Received: the model '{model.name}', not compiled"
        )
    compounds = routing.compounds(getattr(model, "loss", None))
    if not compounds:
        raise ValueError(
            f"{owner} needs a model whose loss is a CompositeLoss, or has one: compile it with "
            f"loss=cl.CompositeLoss([...]). Received: loss={getattr(model, 'loss', None)!r}"
        )
    for compound in compounds:
        if compound.reduction in ("none", None):
            raise ValueError(
                f"{owner} needs losses that a model can train on, and the reduction of "
                f"'{compound.name}' is 'none'. Received: reduction={compound.reduction!r}"
            )


class Measurer:
    """Measures the components of a compiled model on batches.

    Args:
        model: a compiled `keras.Model`; it need not be a tracked one.
        at: where gradients are taken: `"output"` or `"parameters"`.
        owner: the name of what measures, for messages.

    Attributes:
        parts: a list of `Part`, known after the first batch.
    """

    def __init__(self, model, at="output", owner="diagnose"):
        if at not in ("output", "parameters"):
            raise ValueError(f"`at` must be 'output' or 'parameters'. Received: {at!r}")
        check_model(model, owner)
        self.model = model
        self.at = at
        self.routes: Any = None
        self.parts: list[Part] = []
        self._outputs: list[str] = []

    def predict(self, x):
        """The outputs of the model, as in `evaluate`."""
        takes_training = "training" in inspect.signature(self.model.call).parameters
        y_pred = self.model(x, **({"training": False} if takes_training else {}))
        if self.routes is None:
            self._find_routes(y_pred)
        return y_pred

    def _find_routes(self, y_pred):
        model = self.model
        self._outputs = list(name_outputs(y_pred, getattr(model, "output_names", None)))
        tracking = model._tracking(y_pred) if hasattr(model, "_tracking") else None
        if tracking is None:  # a plain model
            weights = model.get_compile_config().get("loss_weights")
            self.routes = routing.make_routes(model.loss, weights, self._outputs)
        else:
            self.routes, self._outputs = tracking.routes, tracking.outputs
        self.parts = [part for route in self.routes for part in _parts(route)]

    def values(self, x, y, y_pred, sample_weight):
        """The values of the parts, `(k,)`, and the weights and the total, at given predictions."""
        with observing():
            entries, total = self._evaluate(x, y, y_pred, sample_weight)
        entries = {key: _number(entry) for key, entry in entries.items()}
        values = np.array([entries[part.key] for part in self.parts])
        return values, self._weights(entries), _number(total)

    def shapes(self, x, y, y_pred, sample_weight):
        """What each component was given and returned, by its path: a dict of `Seen`."""
        with observing() as seen:
            self._evaluate(x, y, y_pred, sample_weight)
        return seen

    def measure(self, x, y, y_pred, sample_weight):
        """What is `Measured` on a batch; `y_pred` is what `predict` gave of `x`."""
        size = keras.tree.flatten(y_pred)[0].shape[0]
        function, points = self._function(x, y, y_pred, sample_weight)
        with observing():
            values, (entries, total), rows = backend.rows_of(function, points)
        entries = {key: _number(entry) for key, entry in entries.items()}
        gramian = _gramian(columns(rows))
        faulty: list = [None] * len(self.parts)
        if self.at == "output":
            faulty = [_not_finite(each) for each in rows]
        return Measured(
            np.array([_number(value) for value in values]),
            self._weights(entries),
            gramian,
            faulty,
            _number(total),
            size,
        )

    def per_sample(self, x, y, y_pred, sample_weight):
        """The values of the parts for each sample, by key; none of what has no such values."""
        found: dict[str, np.ndarray] = {}
        for route, batch in self._routed(x, y, y_pred, sample_weight):
            # A value of the whole batch cannot be had per sample; nor can any beside it.
            with contextlib.suppress(ValueError), observing():
                evaluation = route.loss.evaluate(batch.unweighted(), reduction="none")
                values = split(evaluation.values, reduced=False)
                keys = [part.key for part in _parts(route)][-len(values) :] if values else []
                found.update(zip(keys, map(ops.convert_to_numpy, values), strict=True))
        return found

    def _routed(self, x, y, y_pred, sample_weight):
        outputs = name_outputs(y_pred, getattr(self.model, "output_names", None))
        data = (self.model, x, y, y_pred, sample_weight)
        return routed(self.routes, self._outputs, outputs, *data)

    def _evaluate(self, x, y, y_pred, sample_weight):
        """All that is logged, by key, and the total."""
        entries, totals = {}, []
        for route, batch in self._routed(x, y, y_pred, sample_weight):
            total, values = route.evaluate(batch)
            totals.append(ops.cast(total, "float32"))
            entries.update(zip(route.keys, split(values), strict=True))
        return entries, sum(totals[1:], totals[0])

    def _function(self, x, y, y_pred, sample_weight):
        """A function from points to the values, and the points at which gradients are taken."""

        def found(y_pred):
            entries, total = self._evaluate(x, y, y_pred, sample_weight)
            values = [ops.cast(entries[part.key], "float32") for part in self.parts]
            return values, (entries, total)

        if self.at == "output":
            leaves = keras.tree.flatten(y_pred)
            # In float32 or more: the gradient of a mean over a batch vanishes in float16.
            return lambda points: found(_like(y_pred, points)), [_float32(leaf) for leaf in leaves]
        compounds = routing.compounds(self.model.loss)
        variables = gradients.parameters(self.model, compounds)

        def of_parameters(points):
            with keras.StatelessScope(state_mapping=list(zip(variables, points, strict=True))):
                return found(self.predict(x))

        return of_parameters, [ops.convert_to_tensor(v.value) for v in variables]

    def _weights(self, entries):
        """What multiplies each part, from numbers by key."""
        known = dict(entries)
        for route in self.routes:
            known.update(
                {k: w for k, w in route.weights(all_of_them=True).items() if k not in known}
            )
        return np.array(
            [
                part.factor * known.get(weight_key(part.name), np.nan if part.parent else 1.0)
                for part in self.parts
            ]
        )


def _parts(route):
    """The parts of a route, in the order of its log keys."""
    loss, parts, whole = route.loss, [], None
    if route.output and not isinstance(loss, CompositeLoss):
        whole = route.output
        beyond = gradients.is_beyond_output(loss)
        parts.append(Part(whole, log_key(whole), whole, None, beyond, route.weight))
    for path in loss.component_names if isinstance(loss, Compound) else ():
        outer, name = path.rpartition("/")[0], route.prefixed(path)
        parent = route.prefixed(outer) if outer else whole
        factor = 1.0 if parent else route.weight
        beyond = _acts_beyond_output(loss, path)
        parts.append(Part(name, log_key(name), path, parent, beyond, factor))
    return parts


def _acts_beyond_output(loss, path):
    """Whether the outermost component of a path does."""
    first = path.partition("/")[0]
    child = loss.losses.get(first) if isinstance(loss, CompositeLoss) else loss
    return gradients.is_beyond_output(child)


def _like(y_pred, points):
    """Points in the structure of predictions, with their masks."""
    masked = [
        with_mask(point, read_mask(leaf))
        for point, leaf in zip(points, keras.tree.flatten(y_pred), strict=True)
    ]
    return keras.tree.pack_sequence_as(y_pred, masked)


def _float32(tensor):
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return tensor if dtype in ("float32", "float64") else ops.cast(tensor, "float32")


def _number(value):
    return float(ops.convert_to_numpy(value))


def cosines(gramian, weights):
    """The cosines between the weighted gradients; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.sqrt(gramian.diagonal())
        signs = np.where(np.isnan(weights), 1.0, np.sign(weights))
        found = gramian / np.outer(lengths, lengths) * np.outer(signs, signs)
    found[:, weights == 0] = np.nan
    found[weights == 0] = np.nan
    return np.clip(found, -1.0, 1.0)


def _gramian(columns):
    """The Gramian of k gradients, which may be of very different lengths, in float64."""
    largest = [ops.stack([ops.max(ops.abs(row)) for row in column]) for column in columns]
    largest = ops.max(ops.stack(largest), axis=0)
    safe = ops.where(ops.greater(largest, 0.0), largest, ops.ones_like(largest))
    scales = ops.unstack(safe, len(columns[0]))
    unit = sum(
        backend.gramian([row / scale for row, scale in zip(column, scales, strict=True)])
        for column in columns
    )
    lengths = ops.convert_to_numpy(safe).astype("float64")
    return ops.convert_to_numpy(unit).astype("float64") * np.outer(lengths, lengths)


def _not_finite(row):
    """The samples at which a gradient is not finite, `(N,)`, of one array for each output."""
    arrays = [ops.convert_to_numpy(leaf) for leaf in row]
    flat = [~np.isfinite(array.reshape(len(array), -1)).all(axis=1) for array in arrays]
    return np.logical_or.reduce(flat)
