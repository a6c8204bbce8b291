"""What the components of a compiled model are on a batch: values, weights, gradients.

Nothing of the model changes: no weight, no statistic, no metric.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import keras
import numpy as np
from keras import ops

from combined_losses._backend import backend
from combined_losses._backend.arrays import Rows
from combined_losses._backend.capture import columns, float32
from combined_losses._core.domains import Domain
from combined_losses._core.masks import read_mask
from combined_losses._core.observing import Observation
from combined_losses._numerics.arrays import Tensor
from combined_losses.composite import gradients
from combined_losses.diagnosis.batches import Arrays
from combined_losses.diagnosis.evaluator import Evaluated, Evaluator
from combined_losses.diagnosis.parts import Part
from combined_losses.diagnosis.perturbations import (
    Change,
    Tensors,
    different_samples,
    nearby,
    other_mask,
    other_value,
    packed_like,
    perturbed,
)
from combined_losses.training import routing
from combined_losses.training.for_callbacks import measurers
from combined_losses.training.gradient_capture import parameters

At: TypeAlias = Literal["output", "parameters"]
"""Where gradients are taken."""


class Measured(NamedTuple):
    """What was measured of k parts on a batch.

    Attributes:
        values: `(k,)`, unweighted.
        weights: `(k,)`, the weights that multiply them; NaN where a wrapper weighs by itself.
        gramian: `(k, k)`, the products of the gradients; NaN where a gradient is not finite.
        faulty: for each part which of its rows have a gradient that is not finite, or None:
            unknown.
        total: the loss, with the regularisation.
        size: the number of samples as Keras counts them: the rows of the first input.
        rows: `(k,)`, over how many rows each of the values is a mean.
        reweighted: None without sample weights; else the values `(k,)` with these and with other
            weights, both at predictions that differ from sample to sample.
        remasked: None without a mask; else such values with this and with another mask.
        facts: what the losses were given, see `Facts`: by name, a list of arrays `(6,)`.
    """

    values: np.ndarray
    weights: np.ndarray
    gramian: np.ndarray
    faulty: list[np.ndarray | None]
    total: float
    size: int
    rows: np.ndarray
    reweighted: tuple[np.ndarray, np.ndarray] | None
    remasked: tuple[np.ndarray, np.ndarray] | None
    facts: dict[str, list[np.ndarray]]


# A function of the points where gradients are taken, which gives the values of the parts first.
_Function = Callable[[list[Tensor]], tuple[list[Tensor], Evaluated]]


def check_model(model: keras.Model, owner: str) -> None:
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


def measurer_of(model: keras.Model, at: At = "output", owner: str = "diagnose") -> "Measurer":
    """The `Measurer` of a model; a tracked model keeps it, with the function that it compiles."""
    if at not in ("output", "parameters"):
        raise ValueError(f"`at` must be 'output' or 'parameters'. Received: {at!r}")
    check_model(model, owner)
    if at == "parameters" and not model.trainable_variables and model.built:
        raise ValueError(
            f"The model '{model.name}' has no trainable parameters: take at='output'. "
            f"Received: at={at!r}"
        )
    cache: dict[tuple[object, ...], Measurer] = measurers(model)
    key = (at, *map(id, model.trainable_variables))
    if key not in cache:
        cache[key] = Measurer(model, at)
    return cache[key]


# The gradients of more parts than this take longer to compile than to compute.
_COMPILED_PARTS = 32


class Measurer:
    """Measures the components of a compiled model on batches.

    Begin with `measure`: the other methods look closer at a batch that has been measured. Their
    arguments `data` are the arrays `x, y, sample_weight`.

    Args:
        model: a compiled `keras.Model`; it need not be a tracked one.
        at: where gradients are taken: `"output"` or `"parameters"`.
    """

    def __init__(self, model: keras.Model, at: At) -> None:
        self.model = model
        self.at = at
        self._evaluator = Evaluator(model)
        self._observed_by_shapes: dict[str, dict[str, Observation]] = {}
        self._compiled: Callable[..., dict[str, Any]] | None = None

    @property
    def parts(self) -> list[Part]:
        """The parts of the losses, known after the first batch."""
        return self._evaluator.parts

    @property
    def domains(self) -> dict[str, list[tuple[Domain, int | None]]]:
        """The `domains` of `Facts`, by the names of the parts; known after the first batch."""
        return self._evaluator.domains

    @property
    def notes(self) -> dict[str, list[tuple[str, str]]]:
        """The `notes` of `Facts`, by the names of the parts; known after the first batch."""
        return self._evaluator.notes

    def measure(
        self, x: Arrays, y: Arrays, sample_weight: Arrays = None, other_weight: Arrays = None
    ) -> Measured:
        """What is `Measured` on a batch of arrays; `other_weight` is for `reweighted`."""
        data = _tensors(x, y, sample_weight, other_weight)
        evaluator, measured = self._evaluator, None
        evaluator.prepare(data[0])
        evaluator.observed = {}
        size = _size_of(data[0])
        if len(self.parts) <= _COMPILED_PARTS and not self.model.run_eagerly:
            if self._compiled is None:
                self._compiled = backend.compiled(self._tensors_of, evaluator.variables())
            measured = self._measured(self._compiled(*data), size)
        if measured is None or not _is_finite(measured):
            # Take the gradients one by one: together, 0 * NaN of one component is NaN in all.
            tensors, rows = self._tensors_and_rows(*data)
            measured = self._measured(tensors, size, rows)
        return measured

    def _tensors_of(self, *data: Tensors) -> dict[str, Any]:
        return self._tensors_and_rows(*data)[0]

    def _tensors_and_rows(
        self, x: Tensors, y: Tensors, sample_weight: Tensors, other_weight: Tensors
    ) -> tuple[dict[str, Any], Rows]:
        """Tensors of all that is measured, by name, and the gradients of the parts."""
        with self._evaluator.frozen():
            y_pred = self._evaluator.predict(x)
            function, points = self._function(x, y, y_pred, sample_weight)
            values, found, rows = backend.rows_of(function, points)
            parts = {part.key for part in self.parts}
            tensors = {
                "values": ops.stack(values),
                "extras": {key: e for key, e in found.entries.items() if key not in parts},
                "total": found.total,
                "rows": self._evaluator.rows_in(found.rows),
                "facts": found.facts,
                "gramian": gradients.products_of(columns(rows))[:2],
            }
            tensors.update(self._with_others(x, y, y_pred, sample_weight, other_weight))
        return tensors, rows

    def _with_others(
        self,
        x: Tensors,
        y: Tensors,
        y_pred: Tensors,
        sample_weight: Tensors,
        other_weight: Tensors,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """`reweighted` and `remasked`, where there are weights, and where there is a mask."""
        tensors: dict[str, tuple[Tensor, Tensor]] = {}
        values_of = self._evaluator.values
        masked = any(read_mask(leaf) is not None for leaf in keras.tree.flatten(y_pred))
        if other_weight is None and not masked:
            return tensors
        # If all samples had the same value, weights would not change the mean.
        different = perturbed(y_pred, different_samples)
        values = values_of(x, y, different, sample_weight)
        if other_weight is not None:
            tensors["reweighted"] = (values, values_of(x, y, different, other_weight))
        if masked:
            other = perturbed(y_pred, different_samples, other_mask)
            tensors["remasked"] = (values, values_of(x, y, other, sample_weight))
        return tensors

    def _measured(
        self, tensors: Mapping[str, Any], size: int, rows: Rows | None = None
    ) -> Measured:
        arrays = keras.tree.map_structure(ops.convert_to_numpy, tensors)
        gramian, scales = arrays["gramian"]
        scales = scales.astype("float64")
        faulty: list[np.ndarray | None] = [None] * len(self.parts)
        if rows is not None and self.at == "output":
            pairs = zip(rows, arrays["rows"], strict=True)
            faulty = [_faulty_rows(row, count) for row, count in pairs]
        return Measured(
            arrays["values"].astype("float64"),
            self._evaluator.weights(arrays["extras"]),
            gramian.astype("float64") * np.outer(scales, scales),
            faulty,
            float(arrays["total"]),
            size,
            arrays["rows"],
            arrays.get("reweighted"),
            arrays.get("remasked"),
            arrays["facts"],
        )

    # Where gradients are taken: a function from points to the values, and the points.

    def _function(
        self, x: Tensors, y: Tensors, y_pred: Tensors, sample_weight: Tensors
    ) -> tuple[_Function, list[Tensor]]:
        data = (x, y, y_pred, sample_weight)
        return (self._at_output if self.at == "output" else self._at_parameters)(*data)

    def _at_output(
        self, x: Tensors, y: Tensors, y_pred: Tensors, sample_weight: Tensors
    ) -> tuple[_Function, list[Tensor]]:
        def of_predictions(points: list[Tensor]) -> tuple[list[Tensor], Evaluated]:
            return self._evaluated(x, y, packed_like(y_pred, points), sample_weight)

        return of_predictions, [float32(leaf) for leaf in keras.tree.flatten(y_pred)]

    def _at_parameters(
        self, x: Tensors, y: Tensors, y_pred: Tensors, sample_weight: Tensors
    ) -> tuple[_Function, list[Tensor]]:
        variables, evaluator = self._parameters(), self._evaluator

        def of_parameters(points: list[Tensor]) -> tuple[list[Tensor], Evaluated]:
            with evaluator.frozen(dict(zip(map(id, variables), points, strict=True))):
                return self._evaluated(x, y, evaluator.predict(x), sample_weight)

        return of_parameters, [ops.convert_to_tensor(v.value) for v in variables]

    def _parameters(self) -> list[keras.Variable]:
        variables: list[keras.Variable] = parameters(self.model, routing.compounds(self.model.loss))
        return variables

    def _evaluated(
        self, x: Tensors, y: Tensors, y_pred: Tensors, sample_weight: Tensors
    ) -> tuple[list[Tensor], Evaluated]:
        found = self._evaluator.evaluate(x, y, y_pred, sample_weight)
        return self._evaluator.values_in(found.entries), found

    # A closer look.

    def observed(self, *data: Arrays) -> dict[str, Observation]:
        """What each part was given and returned, by name, in the batch that was measured last.

        Of a batch with shapes that were measured before it is what a part was given then.
        """
        x, y, sample_weight = tensors = _tensors(*data)
        key = str([None if a is None else tuple(a.shape) for a in keras.tree.flatten(tensors)])
        evaluator = self._evaluator
        observed = evaluator.observed.values()
        shapes = [shape for each in observed for shape in each[:3] if shape]
        # A function that was compiled for any size knows no shapes: evaluate once more without it.
        exact = evaluator.observed and not any(None in shape for shape in shapes)
        if key not in self._observed_by_shapes and not exact:
            with evaluator.frozen():
                evaluator.evaluate(x, y, perturbed(evaluator.predict(x)), sample_weight)
        return self._observed_by_shapes.setdefault(key, evaluator.observed)

    def values_at(self, change: Change, *data: Arrays) -> np.ndarray:
        """The values of the parts at predictions that a function has changed, `(k,)`."""
        x, y, sample_weight = _tensors(*data)
        with self._evaluator.frozen():
            y_pred = perturbed(self._evaluator.predict(x), change)
            return _as_numpy(self._evaluator.values(x, y, y_pred, sample_weight))

    def values_per_sample(
        self, x: Arrays, y: Arrays, of_one_size: bool = True
    ) -> list[np.ndarray | None]:
        """See `Evaluator.values_per_sample`."""
        return self._evaluator.values_per_sample(*_tensors(x, y), of_one_size=of_one_size)

    def output_shape(self, x: Arrays) -> tuple[int, ...] | None:
        """The shape of the predictions, or None for several outputs."""
        with self._evaluator.frozen():
            y_pred = self._evaluator.predict(*_tensors(x))
        return None if keras.tree.is_nested(y_pred) else tuple(y_pred.shape)

    def has_gradient_nearby(self, *data: Arrays) -> np.ndarray:
        """Which parts have a gradient near the points where it is taken, `(k,)`."""
        rows = self._rows(nearby, *data)
        are_there: np.ndarray = _as_numpy(gradients.largest_of(columns(rows))) != 0
        return are_there

    def have_common_places(self, *data: Arrays) -> np.ndarray:
        """Which two parts have gradients at the same entries of the points, `(k, k)`."""
        rows = self._rows(lambda point: point, *data)
        common = np.zeros((len(rows), len(rows)), bool)
        for column in columns(rows):
            used = np.stack([_as_numpy(row) != 0 for row in column])
            common |= used.astype("float32") @ used.astype("float32").T > 0
        return common

    def _rows(self, change: Change, *data: Arrays) -> Rows:
        """The gradients of the parts at points that a function has changed."""
        x, y, sample_weight = _tensors(*data)
        with self._evaluator.frozen():
            function, points = self._function(x, y, self._evaluator.predict(x), sample_weight)
            return backend.rows_of(function, list(map(change, points)))[-1]

    @property
    def may_act_beyond_output(self) -> bool:
        """Whether a loss of the user's may read the network in another way than by its output."""
        return bool(self.model.trainable_variables) and self._evaluator.has_unknown_losses

    def acts_beyond_output(self, *data: Arrays) -> np.ndarray:
        """Which parts change with the parameters while the predictions stay as they are, `(k,)`.

        Such a part reads a layer, a variable or the model itself from its closure.
        """
        x, y, sample_weight = _tensors(*data)
        evaluator, others = self._evaluator, {id(v): other_value(v) for v in self._parameters()}
        with evaluator.frozen():
            y_pred = perturbed(evaluator.predict(x))
            before = _as_numpy(evaluator.values(x, y, y_pred, sample_weight))
        with evaluator.frozen(others):
            evaluator.predict(x)  # a layer may leave a tensor at itself, for a loss to read
            after = _as_numpy(evaluator.values(x, y, y_pred, sample_weight))
        changed: np.ndarray = ~np.isclose(before, after, rtol=1e-6, atol=0, equal_nan=True)
        return changed


def _tensors(*arrays: Arrays) -> tuple[Tensors, ...]:
    tensors: tuple[Tensors, ...] = keras.tree.map_structure(
        lambda array: None if array is None else ops.convert_to_tensor(array), arrays
    )
    return tensors


def _as_numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = ops.convert_to_numpy(tensor)
    return array


def _size_of(x: Tensors) -> int:
    """The number of samples as Keras counts them: the rows of the first input."""
    return int(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None).shape[0])


def _is_finite(measured: Measured) -> bool:
    return bool(np.isfinite([*measured.values, *measured.gramian.diagonal()]).all())


def _faulty_rows(row: list[Tensor], count: int) -> np.ndarray | None:
    """Which of the rows of a part have a gradient that is not finite, `(count,)`; None: unknown.

    `row` holds an array for each output; those with another number of rows are of other parts.
    """
    arrays = [_as_numpy(leaf) for leaf in row]
    own = [array.reshape(count, -1) for array in arrays if len(array) == count > 0]
    return np.logical_or.reduce([~np.isfinite(a).all(axis=1) for a in own]) if own else None
