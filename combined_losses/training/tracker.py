"""What a tracked model records in every step: one vector for all its components."""

import keras
import numpy as np
from keras import ops

from combined_losses import _backend as backend
from combined_losses._backend import keras_private
from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_trainable
from combined_losses._core.config import deeply
from combined_losses._core.keras_types import KerasMetric
from combined_losses._core.outputs import name_outputs, rename_single
from combined_losses._core.step import current_step
from combined_losses.training import routing
from combined_losses.training.keeping import state_of


class ComponentTracker(KerasMetric):
    """The running mean of a vector, weighted by the batch size.

    One variable and one result for all components: a compiled step that returns one scalar for
    each of 1,000 components takes JAX 15 s to compile instead of 0.4 s.

    Args:
        size: the length of the vector.
    """

    def __init__(self, size, name="combined_losses"):
        super().__init__(name=name, dtype="float32")
        self.total = self.add_variable((size,), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, weighted_sum, count):
        """Adds `weighted_sum`, the vector times the batch size, and `count`, the batch size."""
        self.total.assign_add(ops.stop_gradient(weighted_sum))
        self.count.assign_add(ops.cast(count, self.count.dtype))

    def result(self):
        return self.total / ops.maximum(self.count, 1.0)


class Tracking:
    """The routes of a model and the one vector in which everything is recorded.

    The vector: the total, the values of each route, the regularisation loss as a whole and that of
    each layer; a last one is what the model adds by itself.

    Args:
        loss, loss_weights: as compiled.
        places: where the outputs are, by their names, see `outputs.places_of`.
        layers: the names of what may have losses of its own: the layers, and the model.
    """

    def __init__(self, loss, loss_weights, places, layers):
        self.places = places
        self.routes = routing.make_routes(loss, loss_weights, places)
        self._parts = [key for route in self.routes for key in route.keys]
        self._penalties = [f"regularization/{name}_loss" for name in layers]
        self.keys = ["loss", *self._parts, "regularization_loss", *self._penalties]
        self.tracker = ComponentTracker(len(self.keys))
        self.seen = False  # a step has been traced
        self.regularized = False
        self.penalized: list[str] = []  # the keys of those that have such losses, where several do
        self.replicas = 1
        # Whether `evaluate` gives the whole loss: not where a user's `compute_loss` adds to it.
        self.is_whole = True

    @property
    def visible(self):
        """The keys after `loss` that logs show, in order."""
        return [*self._shown, *self.weights()]

    @property
    def _shown(self):
        """The keys of the entries after the total that logs show."""
        whole = ["regularization_loss"] if self.regularized else []
        return [*self._parts, *whole, *self.penalized]

    def weights(self, all_of_them=False):
        """The log keys and values of the weights that have been changed, or of all."""
        found = {}
        for route in self.routes:
            found.update(route.weights(all_of_them))
        return found

    def evaluate(self, model, x, y, y_pred, sample_weight, training):
        """The total; adds this batch to the tracker."""
        outputs = name_outputs(y_pred, keras_private.output_names(model))
        if set(outputs) != set(self.places):  # torch may sort a dict of outputs
            raise ValueError(
                f"The model was compiled for the outputs {list(self.places)} and now gives "
                f"{list(outputs)}; compile it again."
            )
        step = current_step()
        # On JAX: what is computed in a trace can be kept only where Keras threads the variables.
        recordable = step.keeps_results or not backend.is_traced(y_pred)
        totals, values = [], []
        data = (x, y, y_pred, sample_weight)
        for route, batch in routed(self.routes, self.places, outputs, model, *data):
            batch.weights_are_constants = step.of_model == "function" or not recordable
            batch.is_unthreaded = not recordable
            batch.training = recordable and bool(training) and step.of_model is not None
            batch.training &= not step.is_test
            if batch.training:
                check_trainable(route.loss.name, batch.y_pred)
            with deeply():
                total, parts = route.evaluate(batch)
            totals.append(total)
            values.extend(parts)
        whole, parts = self._regularization(model, batch.replicas)
        total = sum(totals[1:], totals[0])
        if whole is not None:
            total = total + ops.cast(whole, total.dtype)
        if recordable:
            self._update([total, *values, 0.0 if whole is None else whole, *parts], batch)
            state_of(model).recorded = True
        return total

    def _regularization(self, model, replicas):
        """The losses that layers and model add, as a whole (None without any) and one by one."""
        losses, nothing = model.losses, [0.0] * len(self._penalties)
        if not losses:
            return None, nothing
        self.regularized = True
        whole = _summed(losses) / replicas
        of_layers = _of_layers(model, losses)
        by_itself = len(losses) > sum(map(len, of_layers))
        if len(self._penalties) != len(of_layers) + 1 or sum(map(bool, of_layers)) + by_itself < 2:
            return whole, nothing
        parts = [_summed(found) / replicas if found else 0.0 for found in of_layers]
        parts.append(whole - sum(parts) if by_itself else 0.0)
        has = [*map(bool, of_layers), by_itself]
        self.penalized = [key for key, there in zip(self._penalties, has, strict=True) if there]
        return whole, parts

    def _update(self, entries, batch):
        """Adds the vector times the batch size.

        The entries are this replica's contributions to the batch that all replicas see, so they
        are weighed with the size of that whole batch.
        """
        self.seen = True
        self.replicas = batch.replicas
        size = ops.cast(batch.count, "float32")
        whole = size if batch.replicas == 1 else backend.global_sum(size)
        self.tracker.update_state(_vector(entries) * whole, size)

    def check_metrics(self, metrics):
        """Raises where a compiled metric would write to the key of a component or its weight."""
        taken = {*self.keys, *(key for route in self.routes for key in route.weights(True))}
        for metric in keras.tree.flatten(metrics):
            name = _name_of(metric)
            shared = taken & {name, *(f"{output}_{name}" for output in self.places)}
            if metric is not None and shared:
                raise ValueError(
                    f"A metric and a component would write to the log key '{shared.pop()}'. "
                    f"Rename the component or the metric. Received: metric {metric!r}"
                )

    def unpack(self, results, read):
        """Logs with a name for every entry of the vector that is shown; `read(index)` gives it."""
        logs = {"loss": results.pop("loss", read(0))}
        if self.replicas > 1 and self.is_whole:
            # Keras weighs each replica's share of the loss as if it were the whole.
            logs["loss"] = read(0)
        places = {key: index for index, key in enumerate(self.keys)}
        logs.update((key, read(places[key])) for key in self._shown)
        return {**logs, **self.weights(), **results}


def routed(routes, places, outputs, model, x, y, y_pred, sample_weight):
    """Each route with the `Batch` that its loss sees; `outputs` has the outputs by their names."""
    for route in routes:
        target, weight = (
            routing.pick(what, given, routes, places, route)
            for what, given in (("y", y), ("sample_weight", sample_weight))
        )
        joint = route.output is None
        seen = rename_single(outputs, y_pred, model) if joint else outputs[route.output]
        batch = Batch(target, seen, weight, route.loss.name, source=(model, x, y_pred))
        batch.places, batch.captured = places, current_step().captured
        yield route, batch


# The layers to which losses belong.


def owners_of(model, losses):
    """For each of a model's losses the index of the layer that has added it, or None.

    What weights add is made anew whenever it is asked for, so that it is nobody's here.
    """
    of_layers = [layer.losses for layer in getattr(model, "layers", ())]
    return [
        next((i for i, own in enumerate(of_layers) if any(loss is o for o in own)), None)
        for loss in losses
    ]


def _of_layers(model, losses):
    """The losses of each layer."""
    found = [list(layer.losses) for layer in getattr(model, "layers", ())]
    state = state_of(model)
    owners = [] if state is None else state.loss_owners
    for loss, owner in zip(losses, owners, strict=False):
        if owner is not None:
            found[owner].append(loss)
    return found


def _summed(losses):
    return sum(ops.sum(ops.cast(loss, "float32")) for loss in losses)


def _vector(entries):
    """Scalars and vectors as one vector in float32, with as few operations as possible."""
    entries = [ops.cast(entry, "float32") for entry in entries]
    if all(len(entry.shape) == 0 for entry in entries):
        return ops.stack(entries)
    return ops.concatenate([ops.reshape(entry, (-1,)) for entry in entries])


def _name_of(metric) -> str:
    if isinstance(metric, str):
        return metric
    return str(getattr(metric, "name", None) or getattr(metric, "__name__", ""))


class LazyVector:
    """The vector of a step, brought to the host once, when the first number is asked for."""

    def __init__(self, packed):
        self.packed = packed
        self.values = None

    def read(self, index):
        return _LazyNumber(self, index)

    def number(self, index):
        if self.values is None:
            self.values = ops.convert_to_numpy(self.packed)
        return float(self.values[index])


class _LazyNumber:
    """One entry of a vector that may still be computed on the device; a float when asked."""

    __slots__ = ("index", "vector")

    def __init__(self, vector, index):
        self.vector = vector
        self.index = index

    def __float__(self):
        return self.vector.number(self.index)

    def __array__(self, dtype=None, copy=None):
        return np.array(float(self), dtype=dtype)

    def __repr__(self):
        return repr(float(self))
