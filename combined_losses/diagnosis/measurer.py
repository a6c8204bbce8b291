"""What the components of a compiled model are on a batch: values, weights, gradients.

Nothing of the model changes: no weight, no statistic, no metric.
"""

import contextlib
import inspect
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from combined_losses import _backend as backend
from combined_losses._backend.capture import columns, float32
from combined_losses._internal.compound import Compound
from combined_losses._internal.domains import examining
from combined_losses._internal.evaluation import split
from combined_losses._internal.masks import read_mask
from combined_losses._internal.names import log_key, weight_key
from combined_losses._internal.observing import observing
from combined_losses.composite import CompositeLoss
from combined_losses.diagnosis.perturbations import beside, changed, like, other_mask, unlike
from combined_losses.training import gradients, routing
from combined_losses.training.keeping import measurers, tracking_of
from combined_losses.training.outputs import name_outputs, places_of
from combined_losses.training.tracker import routed


class Part(NamedTuple):
    """A component, or a part of a nested one.

    Attributes:
        name: as in the logs, without `_loss`.
        key: its log key.
        parent: the name of the component that it is a part of, or None.
        is_beyond_output: whether it acts on the model by more than its output.
        factor: what multiplies it beside its own weight: `loss_weights`.
        weight: what multiplies it in the value of its parent, where that does not move by itself;
            NaN: unknown.
        is_own: whether it is evaluated on its own, not in one array with its siblings.
    """

    name: str
    key: str
    parent: str | None
    is_beyond_output: bool
    factor: float
    weight: float
    is_own: bool


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


# With more parts than that it takes longer to compile their gradients than to take them.
_COMPILED_PARTS = 32


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
    kept = measurers(model)
    key = (at, *map(id, model.trainable_variables))
    if key not in kept:
        kept[key] = Measurer(model, at)
    return kept[key]


class Measurer:
    """Measures the components of a compiled model on batches.

    Args:
        model: a compiled `keras.Model`; it need not be a tracked one.
        at: where gradients are taken: `"output"` or `"parameters"`.

    Attributes:
        parts: a list of `Part`, known after the first batch.
        domains, notes: those of `Facts`, by the names of the parts; known after the first batch.
    """

    def __init__(self, model, at):
        self.model = model
        self.at = at
        self.parts: list[Part] = []
        self.domains: dict = {}
        self.notes: dict = {}
        self._facts: dict = {}  # of the last evaluation, or trace
        self._seen: dict = {}  # of the last evaluation, or trace
        self._seen_by_shapes: dict = {}
        self._routes: Any = None
        self._outputs: list[str] = []
        self._compiled: Any = None

    def predict(self, x):
        """The outputs of the model, as in `evaluate`."""
        takes_training = "training" in inspect.signature(self.model.call).parameters
        return self.model(x, **({"training": False} if takes_training else {}))

    def measure(self, x, y, sample_weight=None, other_weight=None):
        """What is `Measured` on a batch of arrays; `other_weight` is for `reweighted`."""
        data = keras.tree.map_structure(_tensor, (x, y, sample_weight, other_weight))
        if self._routes is None:
            self._find_routes(data[0])
        found, self._seen = None, {}
        size = keras.tree.flatten(data[0])[0].shape[0]
        if len(self.parts) <= _COMPILED_PARTS and not self.model.run_eagerly:
            if self._compiled is None:
                self._compiled = backend.compiled(self._look, self._variables())
            found = self._measured(self._compiled(*data), size)
        if found is None or not np.isfinite([*found.values, *found.gramian.diagonal()]).all():
            # One by one: 0 * NaN of another component is NaN.
            tensors, rows = self._look_closely(*data)
            found = self._measured(tensors, size, rows)
        return found

    def seen(self, x, y, sample_weight=None):
        """What each part was given and returned in the batch that was measured last.

        A dict of `Seen` by the names of the parts; from now, or from when its shapes were traced.
        """
        x, y, sample_weight = keras.tree.map_structure(_tensor, (x, y, sample_weight))
        leaves = keras.tree.flatten((x, y, sample_weight))
        key = str([None if leaf is None else tuple(leaf.shape) for leaf in leaves])
        shapes = [shape for what in self._seen.values() for shape in what[:3] if shape]
        exact = self._seen and not any(None in shape for shape in shapes)
        if key not in self._seen_by_shapes and not exact:
            with self._still():
                self._evaluate(x, y, changed(self.predict(x)), sample_weight)
        return self._seen_by_shapes.setdefault(key, self._seen)

    def _find_routes(self, x):
        model = self.model
        if not model.built:
            self.predict(x)
        tracking = tracking_of(model)
        if tracking is None:  # a plain model, or one whose outputs are not known before a call
            with self._still():
                y_pred = self.predict(x)
            tracking = tracking_of(model, y_pred)
        if tracking is None:
            self._places = places_of(y_pred, getattr(model, "output_names", None))
            # Elsewhere they are only together with the losses, saved, which a lambda cannot be.
            weights = getattr(model._compile_loss, "_user_loss_weights", None)
            self._routes = routing.make_routes(model.loss, weights, self._places)
        else:
            self._routes, self._places = tracking.routes, tracking.places
        self.parts = [part for route in self._routes for part in _parts(route)]

    def _variables(self):
        """The state of the model and of its losses."""
        losses = [v for loss in routing.compounds(self.model.loss) for v in loss.variables]
        return list({id(v): v for v in (*self.model.variables, *losses)}.values())

    def _still(self, points=None):
        """A scope in which no variable is changed; `points` are values of some, by their `id`."""
        points = points or {}
        mapping = [(v, points.get(id(v), v.value)) for v in self._variables()]
        return keras.StatelessScope(state_mapping=mapping, collect_losses=True)

    def _look(self, *data):
        return self._look_closely(*data)[0]

    def _look_closely(self, x, y, sample_weight, other_weight):
        """Tensors of all that is measured, and the gradients, k lists of one for each point."""
        with self._still():
            y_pred = self.predict(x)
            function, points = self._function(x, y, y_pred, sample_weight)
            values, (entries, total, facts), rows = backend.rows_of(function, points)
            parts = {part.key for part in self.parts}
            found = {
                "values": ops.stack(values),
                "extras": {key: entry for key, entry in entries.items() if key not in parts},
                "total": total,
                "facts": facts,
                "gramian": gradients.products_of(columns(rows))[:2],
            }
            found.update(self._otherwise(x, y, y_pred, sample_weight, other_weight))
        return found, rows

    def _otherwise(self, x, y, y_pred, sample_weight, other_weight):
        """The values with other sample weights, and with another mask, where there are such."""
        found = {}
        masked = any(read_mask(leaf) is not None for leaf in keras.tree.flatten(y_pred))
        if other_weight is None and not masked:
            return found
        # Where all samples have the same value, a mean over them is that with any weights.
        differing = changed(y_pred, change=unlike)
        values = self._values(x, y, differing, sample_weight)
        if other_weight is not None:
            found["reweighted"] = (values, self._values(x, y, differing, other_weight))
        if masked:
            other = changed(y_pred, other_mask, unlike)
            found["remasked"] = (values, self._values(x, y, other, sample_weight))
        return found

    def _measured(self, found, size, rows=None):
        found = keras.tree.map_structure(ops.convert_to_numpy, found)
        unit, scales = found["gramian"]
        scales = scales.astype("float64")
        faulty = [None] * len(self.parts)
        if rows is not None and self.at == "output":
            faulty = [_not_finite(row) for row in rows]
        return Measured(
            found["values"].astype("float64"),
            self._weights(found["extras"]),
            unit.astype("float64") * np.outer(scales, scales),
            faulty,
            float(found["total"]),
            size,
            found.get("reweighted"),
            found.get("remasked"),
            found["facts"],
        )

    # A closer look, at predictions that a function has changed.

    def values_at(self, change, x, y, sample_weight):
        """The values of the parts, `(k,)`."""
        x, y, sample_weight = keras.tree.map_structure(_tensor, (x, y, sample_weight))
        with self._still():
            y_pred = changed(self.predict(x), change=change)
            return ops.convert_to_numpy(self._values(x, y, y_pred, sample_weight))

    def output_shape(self, x):
        """The shape of the predictions, or None for several outputs."""
        with self._still():
            y_pred = self.predict(keras.tree.map_structure(_tensor, x))
        return None if keras.tree.is_nested(y_pred) else tuple(y_pred.shape)

    def has_gradient_beside(self, x, y, sample_weight):
        """Whether the parts have a gradient near the place where it is taken, `(k,)`."""
        x, y, sample_weight = keras.tree.map_structure(_tensor, (x, y, sample_weight))
        with self._still():
            function, points = self._function(x, y, self.predict(x), sample_weight)
            rows = backend.rows_of(function, [beside(point) for point in points])[-1]
            return ops.convert_to_numpy(gradients.largest_of(columns(rows))) != 0

    @property
    def may_act_beside(self):
        """Whether a function or class of the user's is among the losses."""
        return bool(self.model.trainable_variables) and any(
            not _is_known(route.loss) for route in self._routes
        )

    def acts_beside(self, x, y, sample_weight):
        """Which parts change with the parameters while the predictions stay as they are, `(k,)`.

        Such a part reads a layer, a variable or the model itself from its closure.
        """
        x, y, sample_weight = keras.tree.map_structure(_tensor, (x, y, sample_weight))
        variables = gradients.parameters(self.model, routing.compounds(self.model.loss))
        points = {id(v): _elsewhere(v) for v in variables}
        with self._still():
            y_pred = changed(self.predict(x))
            before = ops.convert_to_numpy(self._values(x, y, y_pred, sample_weight))
        with self._still(points):
            self.predict(x)  # what it leaves behind for a loss to read
            after = ops.convert_to_numpy(self._values(x, y, y_pred, sample_weight))
        return ~np.isclose(before, after, rtol=1e-6, atol=0, equal_nan=True)

    def meeting(self, x, y, sample_weight):
        """Which parts have gradients at some same place, `(k, k)`."""
        x, y, sample_weight = keras.tree.map_structure(_tensor, (x, y, sample_weight))
        with self._still():
            function, points = self._function(x, y, self.predict(x), sample_weight)
            rows = backend.rows_of(function, points)[-1]
        found = np.zeros((len(rows), len(rows)), bool)
        for column in columns(rows):
            used = np.stack([ops.convert_to_numpy(row) != 0 for row in column])
            found |= used.astype("float32") @ used.astype("float32").T > 0
        return found

    def _values(self, x, y, y_pred, sample_weight):
        entries, _ = self._evaluate(x, y, y_pred, sample_weight)
        return ops.stack([ops.cast(entries[part.key], "float32") for part in self.parts])

    def per_sample(self, x, y):
        """For each part its values for each sample; None for what has no such values."""
        x, y = keras.tree.map_structure(_tensor, (x, y))
        found: dict[str, np.ndarray] = {}
        with self._still():
            y_pred = self.predict(x)
            for route, batch in self._routed(x, y, y_pred, None):
                # A value of the whole batch cannot be had per sample; nor can any beside it.
                with contextlib.suppress(ValueError), observing():
                    evaluation = route.loss.evaluate(batch.unweighted(), reduction="none")
                    values = split(evaluation.values, reduced=False)
                    keys = [part.key for part in _parts(route)][-len(values) :] if values else []
                    found.update(zip(keys, map(ops.convert_to_numpy, values), strict=True))
        return [found.get(part.key) for part in self.parts]

    def _routed(self, x, y, y_pred, sample_weight):
        outputs = name_outputs(y_pred, getattr(self.model, "output_names", None))
        data = (self.model, x, y, y_pred, sample_weight)
        return routed(self._routes, self._places, outputs, *data)

    def _evaluate(self, x, y, y_pred, sample_weight):
        """All that is logged, by key, and the total."""
        entries, totals, self._seen, self._facts = {}, [], {}, {}
        for route, batch in self._routed(x, y, y_pred, sample_weight):
            with observing() as seen, examining() as facts:
                total, values = route.evaluate(batch)
            totals.append(ops.cast(total, "float32"))
            entries.update(zip(route.keys, split(values), strict=True))

            def own(label, route=route):
                return label if label == route.output else route.prefixed(label)

            self._seen.update((own(label), what) for label, what in seen.items())
            self._facts.update((own(label), what) for label, what in facts.numbers.items())
            self.domains.update((own(label), what) for label, what in facts.domains.items())
            self.notes.update((own(label), what) for label, what in facts.notes.items())
        totals += [ops.sum(ops.cast(loss, "float32")) for loss in self.model.losses]
        return entries, sum(totals[1:], totals[0])

    def _function(self, *data):
        """A function from points to the values, and the points at which gradients are taken."""
        return (self._at_output if self.at == "output" else self._at_parameters)(*data)

    def _at_output(self, x, y, y_pred, sample_weight):
        def of_predictions(points):
            return self._found(x, y, like(y_pred, points), sample_weight)

        return of_predictions, [float32(leaf) for leaf in keras.tree.flatten(y_pred)]

    def _at_parameters(self, x, y, y_pred, sample_weight):
        variables = gradients.parameters(self.model, routing.compounds(self.model.loss))

        def of_parameters(points):
            with self._still(dict(zip(map(id, variables), points, strict=True))):
                return self._found(x, y, self.predict(x), sample_weight)

        return of_parameters, [ops.convert_to_tensor(v.value) for v in variables]

    def _found(self, *data):
        entries, total = self._evaluate(*data)
        values = [ops.cast(entries[part.key], "float32") for part in self.parts]
        return values, (entries, total, self._facts)

    def _weights(self, extras):
        """What multiplies each part; `extras` are the numbers that are logged, by key."""
        fixed = {}
        for route in self._routes:
            fixed.update({part.name: part.weight for part in _parts(route)})
        weights = [
            part.factor * extras.get(weight_key(part.name), fixed[part.name]) for part in self.parts
        ]
        return np.array(weights, "float64")


def _parts(route):
    """The parts of a route, in the order of its log keys."""
    loss, parts, whole = route.loss, [], None
    if route.reports_total:
        whole = route.output
        beyond = gradients.is_beyond_output(loss)
        parts.append(Part(whole, log_key(whole), None, beyond, route.weight, 1.0, True))
    if not isinstance(loss, Compound):
        return parts
    parents, weights = loss.part_parents, loss.part_weights
    for path in loss.component_names:
        outer, name, weight = parents[path], route.prefixed(path), weights[path]
        parent = whole if outer is None else route.prefixed(outer)
        factor = 1.0 if parent else route.weight
        weight = np.nan if weight is None else weight
        beyond = _acts_beyond_output(loss, path)
        own = path in loss.settable_names
        parts.append(Part(name, log_key(name), parent, beyond, factor, weight, own))
    return parts


def _is_known(loss):
    """Whether a loss, and all inside, is of Keras or of this library, and reads nothing else."""
    if isinstance(loss, Compound):
        own = type(loss).__module__.startswith("combined_losses")
        return own and all(_is_known(child) for child, _ in loss._children)
    loss = getattr(loss, "loss", loss)  # of a `Component`
    loss = getattr(loss, "function", loss)
    where = (
        "keras.losses"
        if isinstance(loss, str)
        else getattr(loss, "__module__", type(loss).__module__)
    )
    return (where or "").split(".")[0] in ("keras", "combined_losses")


def _acts_beyond_output(loss, path):
    """Whether the outermost component of a path does."""
    first = path.partition("/")[0]
    child = loss.losses.get(first) if isinstance(loss, CompositeLoss) else loss
    return gradients.is_beyond_output(child)


def _elsewhere(variable):
    """Another value of a variable, of the same order."""
    value = ops.convert_to_tensor(variable.value)
    noise = keras.random.normal(ops.shape(value), dtype="float32", seed=3)
    noise = ops.cast(noise, value.dtype)
    return value * (1 + 0.1 * noise) + 0.01 * noise


def _tensor(array):
    return array if array is None else ops.convert_to_tensor(array)


def cosines(gramian, weights):
    """The cosines between the weighted gradients; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.sqrt(gramian.diagonal())
        signs = np.where(np.isnan(weights), 1.0, np.sign(weights))
        found = gramian / np.outer(lengths, lengths) * np.outer(signs, signs)
    found[:, weights == 0] = np.nan
    found[weights == 0] = np.nan
    return np.clip(found, -1.0, 1.0)


def _not_finite(row):
    """The samples at which a gradient is not finite, `(N,)`, of one array for each output."""
    arrays = [ops.convert_to_numpy(leaf) for leaf in row]
    flat = [~np.isfinite(array.reshape(len(array), -1)).all(axis=1) for array in arrays]
    return np.logical_or.reduce(flat)
