"""What the components of a compiled model are on a batch: values, weights, gradients.

Nothing of the model changes: no weight, no statistic, no metric.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from combined_losses._backend import backend
from combined_losses._backend.capture import columns, float32
from combined_losses._core.masks import read_mask
from combined_losses.composite import gradients
from combined_losses.diagnosis.evaluator import Evaluator
from combined_losses.diagnosis.perturbations import (
    different_samples,
    nearby,
    other_mask,
    other_value,
    packed_like,
    perturbed,
)
from combined_losses.training import routing
from combined_losses.training.captured import parameters
from combined_losses.training.keeping import measurers


class Measured(NamedTuple):
    """What k parts were on a batch of N samples.

    Attributes:
        values: `(k,)`, unweighted.
        weights: `(k,)`, those that multiply them; NaN where a wrapper weighs by itself.
        gramian: `(k, k)`, of the gradients; NaN where one is not finite.
        faulty: for each part the samples whose gradient is not finite, `(N,)`, or None: unknown.
        total: the loss, with the regularisation.
        size: N.
        reweighted: None, or two arrays `(k,)`: values with these and with other sample weights,
            both at other predictions.
        remasked: None, or such values with this and with another mask.
        facts: what the losses were given, see `Facts`: by name, a list of arrays `(6,)`.
    """

    values: np.ndarray
    weights: np.ndarray
    gramian: np.ndarray
    faulty: list
    total: float
    size: int
    reweighted: Any
    remasked: Any
    facts: dict


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
    if not any(compound.component_names for compound in compounds):
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


def measurer_of(model, at="output", owner="diagnose"):
    """The `Measurer` of a model; a tracked one keeps it, and what has been compiled of it."""
    if at not in ("output", "parameters"):
        raise ValueError(f"`at` must be 'output' or 'parameters'. Received: {at!r}")
    check_model(model, owner)
    if at == "parameters" and not model.trainable_variables and model.built:
        raise ValueError(
            f"The model '{model.name}' has no trainable parameters: take at='output'. "
            f"Received: at={at!r}"
        )
    cache = measurers(model)
    key = (at, *map(id, model.trainable_variables))
    if key not in cache:
        cache[key] = Measurer(model, at)
    return cache[key]


# With more parts than that it takes longer to compile their gradients than to take them.
_COMPILED_PARTS = 32


class Measurer:
    """Measures the components of a compiled model on batches.

    Begin with `measure`: the other methods look closer at a batch that has been measured. `data`
    are arrays `x, y, sample_weight`.

    Args:
        model: a compiled `keras.Model`; it need not be a tracked one.
        at: where gradients are taken: `"output"` or `"parameters"`.
    """

    def __init__(self, model, at):
        self.model = model
        self.at = at
        self._evaluator = Evaluator(model)
        self._observed_by_shapes: dict = {}
        self._compiled: Any = None

    @property
    def parts(self):
        """A list of `Part`, known after the first batch."""
        return self._evaluator.parts

    @property
    def domains(self):
        """The `domains` of `Facts`, by the names of the parts; known after the first batch."""
        return self._evaluator.domains

    @property
    def notes(self):
        """The `notes` of `Facts`, likewise."""
        return self._evaluator.notes

    def measure(self, x, y, sample_weight=None, other_weight=None):
        """What is `Measured` on a batch of arrays; `other_weight` is for `reweighted`."""
        data = _tensors(x, y, sample_weight, other_weight)
        evaluator, measured = self._evaluator, None
        evaluator.prepare(data[0])
        evaluator.observed = {}
        size = keras.tree.flatten(data[0])[0].shape[0]
        if len(self.parts) <= _COMPILED_PARTS and not self.model.run_eagerly:
            if self._compiled is None:
                self._compiled = backend.compiled(self._tensors_of, evaluator.variables())
            measured = self._measured(self._compiled(*data), size)
        if measured is None or not _is_finite(measured):
            # One by one: 0 * NaN of another component is NaN.
            tensors, rows = self._tensors_and_rows(*data)
            measured = self._measured(tensors, size, rows)
        return measured

    def _tensors_of(self, *data):
        return self._tensors_and_rows(*data)[0]

    def _tensors_and_rows(self, x, y, sample_weight, other_weight):
        """Tensors of all that is measured, and the gradients, k lists of one for each point."""
        with self._evaluator.frozen():
            y_pred = self._evaluator.predict(x)
            function, points = self._function(x, y, y_pred, sample_weight)
            values, (entries, total, facts), rows = backend.rows_of(function, points)
            parts = {part.key for part in self.parts}
            tensors = {
                "values": ops.stack(values),
                "extras": {key: entry for key, entry in entries.items() if key not in parts},
                "total": total,
                "facts": facts,
                "gramian": gradients.products_of(columns(rows))[:2],
            }
            tensors.update(self._with_others(x, y, y_pred, sample_weight, other_weight))
        return tensors, rows

    def _with_others(self, x, y, y_pred, sample_weight, other_weight):
        """The values with other sample weights, and with another mask, where there are such."""
        tensors, values_of = {}, self._evaluator.values
        masked = any(read_mask(leaf) is not None for leaf in keras.tree.flatten(y_pred))
        if other_weight is None and not masked:
            return tensors
        # Where all samples have the same value, a mean over them is that with any weights.
        different = perturbed(y_pred, different_samples)
        values = values_of(x, y, different, sample_weight)
        if other_weight is not None:
            tensors["reweighted"] = (values, values_of(x, y, different, other_weight))
        if masked:
            other = perturbed(y_pred, different_samples, other_mask)
            tensors["remasked"] = (values, values_of(x, y, other, sample_weight))
        return tensors

    def _measured(self, tensors, size, rows=None):
        arrays = keras.tree.map_structure(ops.convert_to_numpy, tensors)
        gramian, scales = arrays["gramian"]
        scales = scales.astype("float64")
        faulty = [None] * len(self.parts)
        if rows is not None and self.at == "output":
            faulty = [_faulty_samples(row) for row in rows]
        return Measured(
            arrays["values"].astype("float64"),
            self._evaluator.weights(arrays["extras"]),
            gramian.astype("float64") * np.outer(scales, scales),
            faulty,
            float(arrays["total"]),
            size,
            arrays.get("reweighted"),
            arrays.get("remasked"),
            arrays["facts"],
        )

    # Where gradients are taken: a function from points to the values, and the points.

    def _function(self, *data):
        return (self._at_output if self.at == "output" else self._at_parameters)(*data)

    def _at_output(self, x, y, y_pred, sample_weight):
        def of_predictions(points):
            return self._evaluated(x, y, packed_like(y_pred, points), sample_weight)

        return of_predictions, [float32(leaf) for leaf in keras.tree.flatten(y_pred)]

    def _at_parameters(self, x, y, y_pred, sample_weight):
        variables, evaluator = self._parameters(), self._evaluator

        def of_parameters(points):
            with evaluator.frozen(dict(zip(map(id, variables), points, strict=True))):
                return self._evaluated(x, y, evaluator.predict(x), sample_weight)

        return of_parameters, [ops.convert_to_tensor(v.value) for v in variables]

    def _parameters(self):
        return parameters(self.model, routing.compounds(self.model.loss))

    def _evaluated(self, *data):
        entries, total, facts = self._evaluator.evaluate(*data)
        return self._evaluator.values_in(entries), (entries, total, facts)

    # A closer look.

    def observed(self, *data):
        """What each part was given and returned in the batch that was measured last.

        A dict of `Seen` by the names of the parts; from now, or from when its shapes were traced.
        """
        x, y, sample_weight = data = _tensors(*data)
        key = str([None if a is None else tuple(a.shape) for a in keras.tree.flatten(data)])
        evaluator = self._evaluator
        shapes = [shape for seen in evaluator.observed.values() for shape in seen[:3] if shape]
        exact = evaluator.observed and not any(None in shape for shape in shapes)
        if key not in self._observed_by_shapes and not exact:
            with evaluator.frozen():
                evaluator.evaluate(x, y, perturbed(evaluator.predict(x)), sample_weight)
        return self._observed_by_shapes.setdefault(key, evaluator.observed)

    def values_at(self, change, *data):
        """The values of the parts at predictions that a function has changed, `(k,)`."""
        x, y, sample_weight = _tensors(*data)
        with self._evaluator.frozen():
            y_pred = perturbed(self._evaluator.predict(x), change)
            return ops.convert_to_numpy(self._evaluator.values(x, y, y_pred, sample_weight))

    def values_per_sample(self, x, y):
        """For each part its values for each sample; None for what has no such values."""
        return self._evaluator.values_per_sample(*_tensors(x, y))

    def output_shape(self, x):
        """The shape of the predictions, or None for several outputs."""
        with self._evaluator.frozen():
            y_pred = self._evaluator.predict(*_tensors(x))
        return None if keras.tree.is_nested(y_pred) else tuple(y_pred.shape)

    def has_gradient_nearby(self, *data):
        """Which parts have a gradient near the place where it is taken, `(k,)`."""
        rows = self._rows(*data, change=nearby)
        return ops.convert_to_numpy(gradients.largest_of(columns(rows))) != 0

    def have_common_places(self, *data):
        """Which two parts have gradients at some same place, `(k, k)`."""
        rows = self._rows(*data)
        common = np.zeros((len(rows), len(rows)), bool)
        for column in columns(rows):
            used = np.stack([ops.convert_to_numpy(row) != 0 for row in column])
            common |= used.astype("float32") @ used.astype("float32").T > 0
        return common

    def _rows(self, *data, change=lambda point: point):
        """The gradients of the parts at points that a function has changed."""
        x, y, sample_weight = _tensors(*data)
        with self._evaluator.frozen():
            function, points = self._function(x, y, self._evaluator.predict(x), sample_weight)
            return backend.rows_of(function, list(map(change, points)))[-1]

    @property
    def may_act_beyond_output(self):
        """Whether a loss of the user's may read the network by another way than the output."""
        return bool(self.model.trainable_variables) and self._evaluator.has_unknown_losses

    def acts_beyond_output(self, *data):
        """Which parts change with the parameters while the predictions stay as they are, `(k,)`.

        Such a part reads a layer, a variable or the model itself from its closure.
        """
        x, y, sample_weight = _tensors(*data)
        evaluator, others = self._evaluator, {id(v): other_value(v) for v in self._parameters()}
        with evaluator.frozen():
            y_pred = perturbed(evaluator.predict(x))
            before = ops.convert_to_numpy(evaluator.values(x, y, y_pred, sample_weight))
        with evaluator.frozen(others):
            evaluator.predict(x)  # what it leaves behind for a loss to read
            after = ops.convert_to_numpy(evaluator.values(x, y, y_pred, sample_weight))
        return ~np.isclose(before, after, rtol=1e-6, atol=0, equal_nan=True)


def _tensors(*arrays):
    return keras.tree.map_structure(
        lambda array: None if array is None else ops.convert_to_tensor(array), arrays
    )


def _is_finite(measured):
    return np.isfinite([*measured.values, *measured.gramian.diagonal()]).all()


def _faulty_samples(row):
    """The samples at which a gradient is not finite, `(N,)`, of one array for each output."""
    arrays = [ops.convert_to_numpy(leaf) for leaf in row]
    flat = [~np.isfinite(array.reshape(len(array), -1)).all(axis=1) for array in arrays]
    return np.logical_or.reduce(flat)
