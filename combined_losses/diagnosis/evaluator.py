"""The losses of a compiled model on a batch, as `evaluate` computes them.

Nothing of the model changes: no weight, no statistic, no metric.
"""

import contextlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import keras
import numpy as np
from keras import ops

from combined_losses._backend import keras_private
from combined_losses._core.batch import Batch
from combined_losses._core.domains import Domain, examining
from combined_losses._core.evaluation import split
from combined_losses._core.names import log_key, weight_key
from combined_losses._core.observing import Observation, observing
from combined_losses._core.outputs import Place, name_outputs, places_of
from combined_losses._numerics.arrays import Tensor
from combined_losses.composite.total import WeightedSum
from combined_losses.diagnosis.parts import Part, is_known, parts_of
from combined_losses.diagnosis.perturbations import Tensors
from combined_losses.training import routing
from combined_losses.training.model_state import tracking_of
from combined_losses.training.routing import Route
from combined_losses.training.tracker import route_batch

_T = TypeVar("_T")


class Evaluated(NamedTuple):
    """What the losses of a model gave on a batch.

    Attributes:
        entries: all that is logged of it, scalars by their log keys.
        total: the loss, with the regularisation.
        facts: `Facts.numbers` by the names of the parts.
        rows: over how many rows each of the `entries` is a mean.
    """

    entries: dict[str, Tensor]
    total: Tensor
    facts: dict[str, list[Tensor]]
    rows: dict[str, Tensor]


class Evaluator:
    """Evaluates the losses of a compiled model and tells its parts apart.

    Call `prepare` before any other method, and evaluate within `frozen()`.

    Args:
        model: a compiled `keras.Model`; it need not be a tracked one.

    Attributes:
        parts: the parts of the losses.
        observed: what each part was given and returned in the last evaluation, or the last trace
            of one: `Observation` by the names of the parts.
        domains, notes: those of `Facts` in all evaluations, by the names of the parts.
        routes: the outputs with their losses; None before `prepare`.
        places: where the outputs are, by their names.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.parts: list[Part] = []
        self.observed: dict[str, Observation] = {}
        self.domains: dict[str, list[tuple[Domain, int | None]]] = {}
        self.notes: dict[str, list[tuple[str, str]]] = {}
        self.routes: list[Route] | None = None
        self.places: dict[str, Place] = {}

    def prepare(self, x: Tensors) -> None:
        """Finds the routes and parts, once; builds the model on a batch if it is not built."""
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

    def _current_parts(self) -> list[Part]:
        """The parts with the weights that they have now."""
        return [part for route in self.routes or () for part in parts_of(route)]

    @property
    def has_unknown_losses(self) -> bool:
        """Whether a function or class of the user's is among the losses."""
        return not all(is_known(route.loss) for route in self.routes or ())

    def predict(self, x: Tensors) -> Tensors:
        """The outputs of the model, as in `evaluate`."""
        takes_training = "training" in inspect.signature(self.model.call).parameters
        return self.model(x, **({"training": False} if takes_training else {}))

    def variables(self) -> list[keras.Variable]:
        """The state of the model and of its losses."""
        losses = [v for loss in routing.compounds(self.model.loss) for v in loss.variables]
        return list({id(v): v for v in (*self.model.variables, *losses)}.values())

    def frozen(self, values: Mapping[int, Tensor] | None = None) -> keras.StatelessScope:
        """A scope in which no variable changes; `values` replaces those of some, by their `id`."""
        values = values or {}
        mapping = [(v, values.get(id(v), v.value)) for v in self.variables()]
        return keras.StatelessScope(state_mapping=mapping, collect_losses=True)

    def evaluate(
        self, x: Tensors, y: Tensors, y_pred: Tensors, sample_weight: Tensors
    ) -> Evaluated:
        """Evaluates all losses at given predictions; see also `observed`, `domains` and `notes`."""
        entries: dict[str, Tensor] = {}
        totals: list[Tensor] = []
        numbers: dict[str, list[Tensor]] = {}
        rows: dict[str, Tensor | None] = {}
        self.observed = {}
        for route, batch in self._routed(x, y, y_pred, sample_weight):
            with observing() as observed, examining() as facts:
                total, values, own_rows = route.evaluate(batch, len(self.routes or ()) == 1)
            totals.append(ops.cast(total, "float32"))
            entries.update(zip(route.keys, split(values), strict=True))
            rows.update(zip(route.keys, _rows_of(values, own_rows), strict=True))
            self.observed.update(_renamed(route, observed))
            numbers.update(_renamed(route, facts.numbers))
            self.domains.update(_renamed(route, facts.domains))
            self.notes.update(_renamed(route, facts.notes))
        totals += [ops.sum(ops.cast(loss, "float32")) for loss in self.model.losses]
        # As in the logs of `evaluate`, see `Tracking`.
        known = {key: batch.count if count is None else count for key, count in rows.items()}
        return Evaluated(entries, sum(totals[1:], totals[0]), numbers, known)

    def rows_in(self, rows: Mapping[str, Tensor]) -> Tensor:
        """The numbers of rows of the parts among those that `evaluate` gives, `(k,)`."""
        return ops.stack([ops.cast(rows[part.key], "int32") for part in self.parts])

    def values_in(self, entries: Mapping[str, Tensor]) -> list[Tensor]:
        """The values of the k parts among the entries that `evaluate` gives."""
        return [ops.cast(entries[part.key], "float32") for part in self.parts]

    def values(self, x: Tensors, y: Tensors, y_pred: Tensors, sample_weight: Tensors) -> Tensor:
        """The values of the parts, `(k,)`."""
        return ops.stack(self.values_in(self.evaluate(x, y, y_pred, sample_weight).entries))

    def values_per_sample(
        self, x: Tensors, y: Tensors, *, of_one_size: bool = True
    ) -> list[np.ndarray | None]:
        """For each part its value for each sample; None for a part that has no such values.

        `of_one_size`: all parts have as many rows, so that a composite has a total for each.
        """
        found: dict[str, Tensor] = {}
        with self.frozen():
            for route, batch in self._routed(x, y, self.predict(x), None):
                if not of_one_size and isinstance(route.loss, WeightedSum):
                    found.update(_per_row(route, route.loss, batch.unweighted()))
                else:
                    found.update(_per_sample(route, batch.unweighted()))
        arrays = {key: ops.convert_to_numpy(values) for key, values in found.items()}
        return [arrays.get(part.key) for part in self.parts]

    def weights(self, logged: Mapping[str, np.ndarray]) -> np.ndarray:
        """What multiplies each part, `(k,)`; `logged` has the weights that move, by log key."""
        weights = [
            part.factor * logged.get(weight_key(part.name), part.weight)
            for part in self._current_parts()
        ]
        return np.array(weights, "float64")

    def _routed(
        self, x: Tensors, y: Tensors, y_pred: Tensors, sample_weight: Tensors
    ) -> list[tuple[Route, Batch]]:
        """Each route with the batch that its loss sees."""
        outputs = name_outputs(y_pred, keras_private.output_names(self.model))
        data = (self.model, x, y, y_pred, sample_weight)
        return [(route, route_batch(route, self, outputs, data)) for route in self.routes or ()]


def _rows_of(values: Iterable[Tensor], rows: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The rows of each part, as `split` gives the values of each part."""
    found: list[Tensor | None] = []
    for index, value in enumerate(values):
        count = rows[index] if rows else None
        found += [count] * (value.shape[0] if len(value.shape) else 1)
    return found


def _per_sample(route: Route, batch: Batch) -> dict[str, Tensor]:
    """The values of each sample by log key, where a loss has them."""
    # A loss with one value for the whole batch raises; the others of its composite cannot be had
    # either.
    with contextlib.suppress(ValueError), observing():
        evaluation = route.loss.evaluate(batch, reduction="none")
        values = split(evaluation.values, reduced=False)
        keys = [part.key for part in parts_of(route)][-len(values) :] if values else []
        return dict(zip(keys, values, strict=True))
    return {}


def _per_row(route: Route, loss: WeightedSum, batch: Batch) -> dict[str, Tensor]:
    """The values of each row by log key, of components with rows of their own."""
    found: dict[str, Tensor] = {}
    for name, node in loss.nodes.items():
        paths = [name, *(f"{name}/{part}" for part in node.component_names)]
        # It has given one value for its rows before: what it raises now, in whatever class of
        # the framework, says that it has not one for each of them.
        with contextlib.suppress(Exception), observing():
            evaluation = loss.evaluate_part(name, batch, "none")
            values = split([evaluation.total, *evaluation.values], reduced=False)
            found.update(zip([log_key(route.prefixed(p)) for p in paths], values, strict=True))
    return found


def _renamed(route: Route, by_label: Mapping[str, _T]) -> dict[str, _T]:
    """A dict by labels inside a loss, as a dict by the names of the parts."""
    return {
        label if label == route.output else route.prefixed(label): value
        for label, value in by_label.items()
    }
