"""The losses of a compiled model on a batch, as `evaluate` computes them.

Nothing of the model changes: no weight, no statistic, no metric.
"""

import contextlib
import inspect
from typing import Any

import keras
import numpy as np
from keras import ops

from combined_losses._backend import keras_private
from combined_losses._core.domains import examining
from combined_losses._core.evaluation import split
from combined_losses._core.names import weight_key
from combined_losses._core.observing import observing
from combined_losses._core.outputs import name_outputs, places_of
from combined_losses.diagnosis.parts import Part, is_known, parts_of
from combined_losses.training import routing
from combined_losses.training.keeping import tracking_of
from combined_losses.training.tracker import route_batch


class Evaluator:
    """Evaluates the losses of a compiled model and tells its parts apart.

    Call `prepare` before anything else, and evaluate within `frozen()`.

    Args:
        model: a compiled `keras.Model`; it need not be a tracked one.

    Attributes:
        parts: a list of `Part`.
        observed: what each part was given and returned in the last evaluation, or trace of one: a
            dict of `Seen` by the names of the parts.
        domains, notes: those of `Facts` in all evaluations, by the names of the parts.
    """

    def __init__(self, model):
        self.model = model
        self.parts: list[Part] = []
        self.observed: dict = {}
        self.domains: dict = {}
        self.notes: dict = {}
        self.routes: Any = None  # with the `places` of the outputs; None before `prepare`
        self.places: Any = None

    def prepare(self, x):
        """Finds the routes and parts, once; builds the model on a batch where it is not built."""
        if self.routes is not None:
            return
        model = self.model
        if not model.built:
            self.predict(x)
        tracking = tracking_of(model)
        if tracking is None:  # a plain model, or one whose outputs are not known before a call
            with self.frozen():
                y_pred = self.predict(x)
            tracking = tracking_of(model, y_pred)
        if tracking is None:
            self.places = places_of(y_pred, keras_private.output_names(model))
            weights = keras_private.compiled_loss_weights(model)
            self.routes = routing.make_routes(model.loss, weights, self.places)
        else:
            self.routes, self.places = tracking.routes, tracking.places
        self.parts = self._current_parts()

    def _current_parts(self):
        """The parts with the weights that they have now."""
        return [part for route in self.routes or () for part in parts_of(route)]

    @property
    def has_unknown_losses(self):
        """Whether a function or class of the user's is among the losses."""
        return not all(is_known(route.loss) for route in self.routes or ())

    def predict(self, x):
        """The outputs of the model, as in `evaluate`."""
        takes_training = "training" in inspect.signature(self.model.call).parameters
        return self.model(x, **({"training": False} if takes_training else {}))

    def variables(self):
        """The state of the model and of its losses."""
        losses = [v for loss in routing.compounds(self.model.loss) for v in loss.variables]
        return list({id(v): v for v in (*self.model.variables, *losses)}.values())

    def frozen(self, values=None):
        """A scope in which no variable is changed; `values` are those of some, by their `id`."""
        values = values or {}
        mapping = [(v, values.get(id(v), v.value)) for v in self.variables()]
        return keras.StatelessScope(state_mapping=mapping, collect_losses=True)

    def evaluate(self, x, y, y_pred, sample_weight):
        """All that is logged, by key; the total; and `Facts.numbers` by the names of the parts."""
        entries, totals, numbers, self.observed = {}, [], {}, {}
        for route, batch in self._routed(x, y, y_pred, sample_weight):
            with observing() as observed, examining() as facts:
                total, values = route.evaluate(batch)
            totals.append(ops.cast(total, "float32"))
            entries.update(zip(route.keys, split(values), strict=True))
            self.observed.update(_renamed(route, observed))
            numbers.update(_renamed(route, facts.numbers))
            self.domains.update(_renamed(route, facts.domains))
            self.notes.update(_renamed(route, facts.notes))
        totals += [ops.sum(ops.cast(loss, "float32")) for loss in self.model.losses]
        return entries, sum(totals[1:], totals[0]), numbers

    def values_in(self, entries):
        """The values of the parts among the entries that `evaluate` gives, a list of k scalars."""
        return [ops.cast(entries[part.key], "float32") for part in self.parts]

    def values(self, *data):
        """The values of the parts, `(k,)`; `data` as of `evaluate`."""
        return ops.stack(self.values_in(self.evaluate(*data)[0]))

    def values_per_sample(self, x, y):
        """For each part its values for each sample; None for what has no such values."""
        found: dict[str, np.ndarray] = {}
        with self.frozen():
            for route, batch in self._routed(x, y, self.predict(x), None):
                # A value of the whole batch cannot be had per sample; nor can any beside it.
                with contextlib.suppress(ValueError), observing():
                    evaluation = route.loss.evaluate(batch.unweighted(), reduction="none")
                    values = split(evaluation.values, reduced=False)
                    keys = [part.key for part in parts_of(route)][-len(values) :] if values else []
                    found.update(zip(keys, map(ops.convert_to_numpy, values), strict=True))
        return [found.get(part.key) for part in self.parts]

    def weights(self, logged):
        """What multiplies each part, `(k,)`; `logged` are weights that move, by log key."""
        weights = [
            part.factor * logged.get(weight_key(part.name), part.weight)
            for part in self._current_parts()
        ]
        return np.array(weights, "float64")

    def _routed(self, x, y, y_pred, sample_weight):
        outputs = name_outputs(y_pred, keras_private.output_names(self.model))
        data = (self.model, x, y, y_pred, sample_weight)
        return [(route, route_batch(route, self, outputs, data)) for route in self.routes]


def _renamed(route, by_label):
    """A dict by the labels inside a loss as one by the names of the parts."""
    return {
        label if label == route.output else route.prefixed(label): value
        for label, value in by_label.items()
    }
