"""What a tracked model records in every step: one vector for all its components."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import keras
from keras import ops

from combined_losses._backend import backend, keras_private
from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_trainable
from combined_losses._core.keras_types import KerasMetric
from combined_losses._core.outputs import Place, name_outputs, rename_single
from combined_losses._core.step import current_step
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import in_dtype
from combined_losses.training import routing
from combined_losses.training.penalties import Penalties
from combined_losses.training.routing import CompiledLoss, LossWeights, Route

Data: TypeAlias = tuple[keras.Model, Any, Any, Any, Any]
"""`(model, x, y, y_pred, sample_weight)` of one call of `compute_loss`."""


class ComponentTracker(KerasMetric):
    """The running mean of a vector, each entry weighted by the rows that it is a mean over.

    One variable and one result for all components: a compiled step that returns one scalar for
    each of 1,000 components takes JAX 15 s to compile instead of 0.4 s.

    Args:
        size: the length of the vector.
    """

    def __init__(self, size: int, name: str = "combined_losses") -> None:
        super().__init__(name=name, dtype="float32")
        # The sums of the vector times its counts, and the sums of its counts.
        self.sums: keras.Variable = self.add_variable((2, size), "zeros", name="sums")

    def update_state(self, weighted_sum: Tensor, count: Tensor) -> None:
        """Adds `weighted_sum`, the vector times `count`: one number, or one for each entry."""
        count = ops.broadcast_to(ops.cast(count, self.sums.dtype), self.sums.shape[1:])
        self.sums.assign_add(ops.stack([ops.stop_gradient(weighted_sum), count]))

    def result(self) -> Tensor:
        weighted_sum, count = ops.unstack(ops.convert_to_tensor(self.sums), 2)
        return weighted_sum / ops.maximum(count, 1.0)


class Tracking:
    """The routes of a model and the one vector in which everything is recorded.

    The vector holds the total, the values of each route, the sum of the losses that layers add,
    those of each layer, and last those that the model adds itself.

    Args:
        loss, loss_weights: as compiled.
        places: where the outputs are, by their names, see `outputs.places_of`.
        layers: the names of what may have losses of its own: the layers, and the model.
    """

    def __init__(
        self,
        loss: CompiledLoss,
        loss_weights: LossWeights,
        places: dict[str, Place],
        layers: Iterable[str],
    ) -> None:
        self.places = places
        self.routes: list[routing.Route] = routing.make_routes(loss, loss_weights, places)
        self.penalties: Penalties = Penalties(layers)
        self._parts = [key for route in self.routes for key in route.keys]
        self.keys: list[str] = ["loss", *self._parts, "regularization_loss", *self.penalties.keys]
        self._index = {key: index for index, key in enumerate(self.keys)}
        self.tracker: ComponentTracker = ComponentTracker(len(self.keys))
        self.has_recorded: bool = False  # whether any step has recorded, so that there is a result
        self.step_has_recorded: bool = False  # whether the one that runs, or is traced, has
        self.replicas: int = 1
        # Whether `evaluate` gives the whole loss: not where a user's `compute_loss` adds to it.
        self.is_whole: bool = True

    @property
    def visible(self) -> list[str]:
        """The keys after `loss` that logs show, in order."""
        return [*self._shown, *self.weights()]

    @property
    def _shown(self) -> list[str]:
        """The keys of the entries after the total that logs show."""
        if not self.penalties.found:
            return self._parts
        return [*self._parts, "regularization_loss", *self.penalties.shown]

    def weights(self, all_of_them: bool = False) -> dict[str, float]:
        """The log keys and values of the weights that have been changed, or of all."""
        found: dict[str, float] = {}
        for route in self.routes:
            found.update(route.weights(all_of_them))
        return found

    def describe_weights(
        self, history: "_Described", weights: Mapping[str, float] | None = None
    ) -> None:
        """Tells a history, for figures, what its entries are multiplied by; logs show changes only.

        `component_weights`: by `<name>_weight`, the current weights or those that are passed;
        `output_weights`: by log key, the compiled `loss_weights`.
        """
        history.component_weights = weights or self.weights(all_of_them=True)
        history.output_weights = {key: route.weight for route in self.routes for key in route.keys}

    def skipped_throughout(self, logs: Mapping[str, Any], prefix: str) -> bool:
        """Whether a composite has skipped all of its components in every step of an epoch.

        `prefix` is that of the log keys: "" in training, "val_" in validation.
        """
        groups = [keys for route in self.routes for keys in route.skipped_keys]
        return any(all(float(logs.get(prefix + key, 0.0)) == 1 for key in keys) for keys in groups)

    def evaluate(self, data: Data, training: bool, loss_owners: Sequence[int | None]) -> Tensor:
        """The total; adds this batch to the tracker.

        `loss_owners` are, on JAX, the layers that have added the model's losses: `owners_of`.
        """
        model, *_, y_pred, _ = data
        outputs = self._outputs(model, y_pred)
        step = current_step()
        # On JAX a trace can change variables only in a step, from which Keras returns them.
        recordable = step.keeps_results or not backend.is_traced(y_pred)
        in_training = bool(training) and step.of_model is not None and not step.is_test
        weights_move = recordable and in_training
        total: Tensor = None
        values: list[Tensor] = []
        rows: list[Tensor | None] = []
        for route in self.routes:
            batch = route_batch(route, self, outputs, data)
            batch.weights_are_constants = step.of_model == "function" or not recordable
            batch.is_unthreaded = not recordable
            batch.training = weights_move
            if weights_move:
                check_trainable(route.loss_name, batch.y_pred)
            route_total, parts, rows_of_parts = route.evaluate(batch, len(self.routes) == 1)
            total = route_total if total is None else total + route_total
            values.extend(parts)
            rows.extend(rows_of_parts)
        penalty, penalties = self.penalties.measure(model, loss_owners, batch.replicas)
        if penalty is not None:
            total = total + ops.cast(penalty, total.dtype)
        if recordable:
            entries = [total, *values, 0.0 if penalty is None else penalty, *penalties]
            self._record(entries, rows, batch)
        return total

    def _outputs(self, model: keras.Model, y_pred: Any) -> dict[str, Tensor]:
        """The outputs by their names."""
        if "" in self.places and not keras.tree.is_nested(y_pred):
            return {"": y_pred}
        outputs = name_outputs(y_pred, keras_private.output_names(model))
        if set(outputs) != set(self.places):  # torch may sort a dict of outputs
            raise ValueError(
                f"The model was compiled for the outputs {list(self.places)} and now gives "
                f"{list(outputs)}; compile it again."
            )
        return outputs

    def _record(
        self, entries: Sequence[Tensor], rows: Sequence[Tensor | None], batch: Batch
    ) -> None:
        """Adds the vector times the numbers of rows that its entries are means over.

        The entries are this replica's contributions to the batch that all replicas see, so they
        are multiplied by the numbers of rows in that whole batch. `rows` has those of the values
        of the routes, None for the batch size; it is empty if all have that.
        """
        self.has_recorded = self.step_has_recorded = True
        self.replicas = batch.replicas
        counts = ops.cast(batch.count, "float32")
        if any(each is not None for each in rows):
            # Keras's mean of the loss counts the rows of the first input.
            first = keras.tree.flatten(batch.x)[:1]
            size = ops.cast(ops.shape(first[0])[0], "float32") if first else counts
            own = [batch.count if each is None else each for each in rows]
            counts = _counts(entries, own, size)
        whole = counts if batch.replicas == 1 else backend.global_sum(counts)
        self.tracker.update_state(*backend.recorded(_vector(entries) * whole, counts, whole))

    def check_metrics(self, metrics: Any) -> None:
        """Raises if a compiled metric would write to the key of a component or its weight."""
        own_keys = {*self.keys, *(key for route in self.routes for key in route.weights(True))}
        for metric in keras.tree.flatten(metrics):
            name = _name_of(metric)
            shared = own_keys & {name, *(f"{output}_{name}" for output in self.places)}
            if metric is not None and shared:
                raise ValueError(
                    f"A metric and a component would write to the log key '{shared.pop()}'. "
                    f"Rename the component or the metric. Received: metric {metric!r}"
                )

    def metrics_result(
        self, results: dict[str, Any], metrics: Sequence[keras.Metric]
    ) -> dict[str, Any]:
        """What `get_metrics_result` gives; `results` and `metrics` are those of Keras."""
        if not self.has_recorded:
            return results
        vector = self.tracker.result()
        if current_step().of_model is not None:
            return {**results, self.tracker.name: vector}
        if keras_private.has_counted_no_loss(metrics):
            results.pop("loss", None)  # a step of the user's has computed the loss alone
        return self.unpack(results, ops.convert_to_numpy(vector).tolist())

    def unpack(self, results: dict[str, Any], vector: Any) -> dict[str, Any]:
        """Logs with a name for every entry of the vector that is shown.

        `vector` is a list of numbers, or a `LazyVector`.
        """
        loss = results.pop("loss", None)
        if loss is None or (self.replicas > 1 and self.is_whole):
            # Keras averages each replica's share of the loss as if it were the whole loss.
            loss = vector[0]
        logs = {"loss": loss}
        for key in self._shown:
            logs[key] = vector[self._index[key]]
        logs.update(self.weights())
        logs.update(results)
        return logs


class _Described(Protocol):
    """A `keras.callbacks.History`, or what stands for one."""

    component_weights: Mapping[str, float]
    output_weights: Mapping[str, float]


class _Routed(Protocol):
    """What knows how outputs meet losses: a `Tracking`, or the `Evaluator` of a diagnosis."""

    @property
    def routes(self) -> Sequence[Route] | None:
        """All routes of the model."""

    @property
    def places(self) -> dict[str, Place]:
        """Where the outputs are, by their names."""


def route_batch(route: Route, routed: _Routed, outputs: dict[str, Tensor], data: Data) -> Batch:
    """The `Batch` that the loss of a route sees.

    Args:
        route: the `Route`.
        routed: what has all `routes` of the model and the `places` of its outputs.
        outputs: the outputs by their names.
        data: `(model, x, y, y_pred, sample_weight)`.
    """
    model, x, y, y_pred, sample_weight = data
    routes, places = routed.routes or (), routed.places
    target = routing.pick("y", y, routes, places, route)
    weight = routing.pick("sample_weight", sample_weight, routes, places, route)
    if route.output is None:
        prediction = rename_single(outputs, y_pred, model)
    else:
        prediction = outputs[route.output]
    batch = Batch(target, prediction, weight, route.loss_name, source=(model, x, y_pred))
    batch.places, batch.captured = places, current_step().captured
    return batch


def _counts(entries: Sequence[Tensor], rows: Sequence[Tensor | None], size: Tensor) -> Tensor:
    """The rows of each entry of the vector; the first is the total, and the last are penalties."""
    known = [None, *rows, *[None] * (len(entries) - 1 - len(rows))]
    counts = []
    for entry, count in zip(entries, known, strict=True):
        count = size if count is None else ops.cast(count, "float32")
        counts.append(ops.broadcast_to(count, ops.shape(ops.convert_to_tensor(entry))))
    return _vector(counts)


def _vector(entries: Sequence[Tensor | float]) -> Tensor:
    """Scalars and vectors as one vector in float32, with as few operations as possible."""
    numbers = in_dtype(entries, "float32")
    if not any(len(number.shape) for number in numbers):
        return ops.stack(numbers)
    return ops.concatenate([ops.reshape(number, (-1,)) for number in numbers])


def _name_of(metric: object) -> str:
    if isinstance(metric, str):
        return metric
    return str(getattr(metric, "name", None) or getattr(metric, "__name__", ""))
