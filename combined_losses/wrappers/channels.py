"""One component for each channel or element, computed in one vectorised pass."""

import json
import math
import types

import keras
import numpy as np
from keras import ops

from combined_losses._internal.arguments import as_child
from combined_losses._internal.batch import align
from combined_losses._internal.component import Component, Evaluation
from combined_losses._internal.compound import Compound, traits_of
from combined_losses._internal.config import serialize_loss
from combined_losses._internal.names import check_log_keys, check_name
from combined_losses._internal.reduction import PER_COMPONENT, reduce_values
from combined_losses.losses.base import FunctionLoss
from combined_losses.wrappers.base import Wrapper

AGGREGATIONS = ("sum", "mean", "weighted_mean")


class _PerPart(Wrapper):
    """What `PerChannel` and `PerElement` share: parts with names and weights, and their sum."""

    _part = "part"

    def __init__(self, loss, names, size, weights, aggregation, **kwargs):
        super().__init__(loss, **kwargs)
        if aggregation not in AGGREGATIONS:
            raise ValueError(
                f"The argument `aggregation` of {type(self).__name__} ('{self.name}') must be one "
                f"of {', '.join(map(repr, AGGREGATIONS))}. Received: {aggregation!r}"
            )
        self.names, self.size, self.weights, self.aggregation = names, size, weights, aggregation
        self._part_names = self._as_names(names, size)
        self._weights = self._as_weights(weights)

    def _as_names(self, names, size):
        if names is None:
            shape = () if size is None else (size,) if isinstance(size, int) else tuple(size)
            at = np.ndindex(*shape) if shape else ()
            return tuple("_".join([self._part, *map(str, index)]) for index in at)
        names = tuple(names)
        for name in names:
            check_name(name, self.name)
        check_log_keys(names, self.name)
        if size is not None and np.prod(size) != len(names):
            raise ValueError(
                f"`names` and `size` of '{self.name}' must agree. Received: {len(names)} names "
                f"and size={size!r}"
            )
        return names

    def _as_weights(self, weights):
        """An array, or None."""
        if weights is None:
            return None
        if isinstance(weights, dict):
            unknown = [name for name in weights if name not in self._part_names]
            if unknown:
                raise ValueError(
                    f"`weights` of '{self.name}' must name its parts {list(self._part_names)}. "
                    f"Received: {unknown[0]!r}"
                )
            weights = [weights.get(name, 1.0) for name in self._part_names]
        values = np.asarray(weights, "float64")
        if not np.all(np.isfinite(values)):
            raise ValueError(
                f"`weights` of '{self.name}' must be finite numbers. Received: {weights!r}"
            )
        return values

    @property
    def component_names(self):
        return self._part_names

    @property
    def children(self):
        return {}

    @property
    def routes(self):
        return False

    def evaluate(self, batch, reduction=PER_COMPONENT, label=None):
        label = label or self.name
        reduction = self.reduction or "none" if reduction == PER_COMPONENT else reduction
        batch = batch.with_target()
        y_true, y_pred = align(batch.y_true, batch.y_pred)
        batch = batch.replaced(y_true=y_true, y_pred=y_pred)
        parts, weights = self._evaluate_parts(batch, reduction, label)
        total = self._total(parts, weights)
        return Evaluation(total, (parts,) if self._part_names else ())

    def _evaluate_parts(self, batch, reduction, label):
        """The parts, `(parts,)` or `(parts, batch)`, and their weights: None or an array."""
        raise NotImplementedError

    def _total(self, parts, weights):
        weighted = parts
        if weights is not None:
            shape = (-1, *([1] * (len(parts.shape) - 1)))
            weighted = parts * ops.cast(weights.reshape(shape), parts.dtype)
        if self.aggregation == "sum":
            return ops.sum(weighted, axis=0)
        if self.aggregation == "mean" or weights is None:
            return ops.mean(weighted, axis=0)
        return ops.sum(weighted, axis=0) / float(weights.sum())

    def _check_count(self, count, label, shape):
        if self._part_names and count is not None and count != len(self._part_names):
            raise ValueError(
                f"Component '{label}' has {len(self._part_names)} names for {count} "
                f"{self._part}s; give one for each. Received: y_pred of shape {shape}"
            )

    def _check_weights(self, shape, label, *allowed):
        if self._weights is not None and self._weights.shape not in allowed:
            raise ValueError(
                f"The weights of component '{label}' must be one number for each {self._part} or "
                f"an array of the shape of one sample, {tuple(shape[1:])}. "
                f"Received: weights of shape {self._weights.shape}"
            )

    def _values(self, child, batch, label):
        """The unreduced values of a child, which must not reduce the batch."""
        node = Component(label, child, traits_of(child))
        values = None if node.opaque else node.values(batch, label)[0]
        if values is None or not len(values.shape):
            raise ValueError(
                f"Component '{label}' needs a loss that gives one value for each sample, in "
                f"`call`; this one reduces the batch. Received: {child!r}"
            )
        return _at_least_single(values)


@keras.saving.register_keras_serializable("combined_losses")
class PerChannel(_PerPart):
    """One component for each channel, in one vectorised pass, each under its own name.

    Args:
        loss: as in `cl.wrappers.Wrapper`, for all channels; or a list or dict with one loss for
            each channel, of which equal ones share one pass.
        axis: the channel axis, never the batch axis 0. Default -1.
        names: one name for each channel. Without names (and `size`) the channels are not reported.
        weights: None; one number for each channel, as a list or a dict from name; or an array of
            the shape of one sample (an importance map), for losses of single elements.
        size: the number of channels, instead of names: `channel_0`, `channel_1`, …
        aggregation: `"sum"` (default), `"mean"` or `"weighted_mean"` of the channels.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    A loss of single elements (MSE, MAE, Huber, …) sees all channels at once; any other sees each
    channel as an array with one channel, folded into the batch axis.

    Raises:
        ValueError: if the number of channels differs from `names`, or the weights do not fit.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss({"rgb": cl.wrappers.PerChannel("mse", names=["r", "g", "b"])})
    >>> y_true, y_pred = np.ones((2, 4, 4, 3)), np.zeros((2, 4, 4, 3))
    >>> {name: float(value) for name, value in loss.components(y_true, y_pred).items()}
    {'rgb': 3.0, 'rgb/r': 1.0, 'rgb/g': 1.0, 'rgb/b': 1.0}
    """

    _part = "channel"

    def __init__(
        self, loss, axis=-1, names=None, weights=None, size=None, aggregation="sum", **kwargs
    ):
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
            raise ValueError(
                "The argument `axis` of PerChannel must be an integer other than the batch axis "
                f"0. Received: {axis!r}"
            )
        by_name, several = isinstance(loss, dict), isinstance(loss, (list, tuple, dict))
        if by_name and names is None:
            names = list(loss)
        given = list(loss.values()) if by_name else list(loss) if several else [loss]
        if not given:
            raise ValueError(f"PerChannel needs a loss. Received: {loss!r}")
        children = [as_child(child, "PerChannel", None) for child in given]
        if several and size is None and names is None:
            size = len(children)
        super().__init__(children[0], names, size, weights, aggregation, **kwargs)
        self.axis = axis
        if several:
            self._check_count(len(children), self.name, None)
            self.loss = dict(zip(loss, children, strict=True)) if by_name else children
        self._groups = _grouped(children) if several else [(children[0], None)]

    def _evaluate_parts(self, batch, reduction, label):
        shape = tuple(batch.y_pred.shape)
        if not -len(shape) < self.axis < len(shape):
            raise ValueError(
                f"Component '{label}' has no axis {self.axis}. Received: y_pred of shape {shape}"
            )
        count = shape[self.axis]
        self._check_count(count, label, shape)
        self._check_weights(shape, label, (count,), shape[1:])
        # Channels last, so that values, weights and masks all match from the left.
        batch = batch.replaced(y_true=self._last(batch.y_true), y_pred=self._last(batch.y_pred))
        importance = self._importance()
        parts = [
            self._group(child, at, batch, importance, reduction, label)
            for child, at in self._groups
        ]
        if len(parts) > 1:
            order = np.argsort([channel for _, at in self._groups for channel in at])
            parts = [ops.take(ops.concatenate(parts, axis=0), order, axis=0)]
        # An importance map is in the parts already.
        return parts[0], self._weights if importance is None else None

    def _last(self, array):
        rank = len(array.shape)
        return array if self.axis in (-1, rank - 1) else ops.moveaxis(array, self.axis, -1)

    def _importance(self):
        """The importance map with the channels last, or None."""
        if self._weights is None or self._weights.ndim == 1:
            return None
        axis = self.axis if self.axis < 0 else self.axis - 1  # without the batch axis
        weights = np.moveaxis(self._weights, axis, -1)
        if self.aggregation == "weighted_mean":
            return weights / weights.mean()
        return weights

    def _group(self, child, at, batch, importance, reduction, label):
        """The channels `at` (None: all) of one loss: `(channels,)` or `(channels, batch)`."""
        if at is not None:
            batch = batch.replaced(
                y_true=ops.take(batch.y_true, at, axis=-1),
                y_pred=ops.take(batch.y_pred, at, axis=-1),
            )
        elementwise = traits_of(child).elementwise
        values = (_all_at_once if elementwise else _folded)(self._values, child, batch, label)
        if importance is not None:
            if not elementwise:
                raise ValueError(
                    f"Component '{label}' has an importance map for a loss that does not judge "
                    f"single elements. Received: {child!r}"
                )
            chosen = importance if at is None else importance[..., at]
            values = values * ops.cast(chosen, values.dtype)
        values = _without_last_axis(values, batch, reduction)
        reduced = reduce_values(values, batch, reduction, axes=range(len(values.shape) - 1))
        if reduction not in ("none", None):
            return reduced
        inner = tuple(range(1, len(values.shape) - 1))
        return ops.transpose(ops.mean(reduced, axis=inner) if inner else reduced)


def _all_at_once(values_of, child, batch, label):
    """The values of a loss of single elements, one for each element."""
    formula = _FORMULAS.get(_function(child))
    if formula is not None:
        node = Component(label, child, traits_of(child)._replace(elementwise=False))
        node.loss = types.SimpleNamespace(call=formula)
        return _at_least_single(node.values(batch, label)[0])
    # It averages over the last axis: here one of length 1, so over none.
    y_true, y_pred = ops.expand_dims(batch.y_true, -1), ops.expand_dims(batch.y_pred, -1)
    return values_of(child, batch.replaced(y_true=y_true, y_pred=y_pred), label)


# Losses of Keras without their mean over the last axis. Over an axis of length 1 it is the
# identity, but XLA then keeps the differences for the gradient in an array of their own, as large
# as y_pred (`benchmarks/channels.py`). Other losses are dearer than the pass that this costs.
_FORMULAS = {
    keras.losses.mean_squared_error: lambda y_true, y_pred: ops.square(y_true - y_pred),
    keras.losses.mean_absolute_error: lambda y_true, y_pred: ops.abs(y_true - y_pred),
}
_FUNCTIONS = {
    keras.losses.MeanSquaredError: keras.losses.mean_squared_error,
    keras.losses.MeanAbsoluteError: keras.losses.mean_absolute_error,
}


def _function(child):
    """The function of Keras that a child is; None for others, such as subclasses."""
    return child._function if type(child) is FunctionLoss else _FUNCTIONS.get(type(child))


def _at_least_single(values):
    """Values to accumulate, in float32 or more."""
    half = keras.backend.standardize_dtype(values.dtype) in ("float16", "bfloat16")
    return ops.cast(values, "float32") if half else values


def _without_last_axis(values, batch, reduction):
    """Values `(batch, ..., channels)` reduced over the axis before the channels, where it is free.

    Weights and mask do not reach it, so that it makes no difference but in time: one reduction over
    all axes leaves XLA with columns, which it neither vectorises nor spreads over cores.
    """
    rank = len(values.shape)
    if rank < 3 or any(len(weight.shape) > rank - 2 for _, weight in batch.weights()):
        return values
    return (ops.sum if reduction == "sum" else ops.mean)(values, axis=-2)


def _folded(values_of, child, batch, label):
    """Each channel as a sample with one channel; the values are `(batch, ..., channels)`."""
    count = batch.y_pred.shape[-1]

    def fold(array):
        channels = ops.moveaxis(array, -1, 1)
        return ops.reshape(channels, (-1, *channels.shape[2:], 1))

    def repeat(weight):
        return weight if weight is None or not len(weight.shape) else ops.repeat(weight, count, 0)

    folded = batch.replaced(
        y_true=fold(batch.y_true),
        y_pred=fold(batch.y_pred),
        sample_weight=repeat(batch.sample_weight),
        mask=repeat(batch.mask),
    )
    values = values_of(child, folded, label)
    return ops.moveaxis(ops.reshape(values, (-1, count, *values.shape[1:])), 1, -1)


def _grouped(children):
    """`(loss, channels)` for each set of equal losses."""
    groups = {}
    for index, child in enumerate(children):
        if isinstance(child, Compound):
            key = id(child)
        else:
            try:
                key = json.dumps(serialize_loss(child), sort_keys=True)
            except (TypeError, ValueError):
                key = id(child)
        groups.setdefault(key, (child, []))[1].append(index)
    return list(groups.values())


@keras.saving.register_keras_serializable("combined_losses")
class PerElement(_PerPart):
    """One component for each element of a sample, in one vectorised pass.

    Args:
        loss: a loss of single elements: MSE, MAE, Huber, binary cross-entropy, …
        names: one name for each element, in row-major order. Without names (and `size`) the
            elements are not reported.
        weights: None, or an array of the shape of one sample; with names also a dict from name.
        size: the number of elements, or the shape of one sample such as `(10, 10)`, instead of
            names: `element_0_0`, `element_0_1`, …
        aggregation: `"sum"` (default), `"mean"` or `"weighted_mean"` of the elements.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Raises:
        ValueError: if the loss does not judge single elements, the number of elements differs from
            `names`, or the weights do not fit.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss({"price": cl.wrappers.PerElement("mae", names=["bid", "ask"])})
    >>> y_true, y_pred = np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]])
    >>> {name: float(value) for name, value in loss.components(y_true, y_pred).items()}
    {'price': 2.0, 'price/bid': 0.0, 'price/ask': 2.0}
    """

    _part = "element"

    def __init__(self, loss, names=None, weights=None, size=None, aggregation="sum", **kwargs):
        super().__init__(loss, names, size, weights, aggregation, **kwargs)
        if not traits_of(self.loss).elementwise:
            raise ValueError(
                f"PerElement ('{self.name}') needs a loss of single elements, such as 'mse'; a "
                "loss of your own says so with `elementwise = True`. "
                f"Received: {self.loss!r}"
            )

    def _evaluate_parts(self, batch, reduction, label):
        shape = tuple(batch.y_pred.shape)
        if None in shape[1:]:
            raise ValueError(
                f"Component '{label}' needs a static shape but for the batch axis. "
                f"Received: y_pred of shape {shape}"
            )
        count = math.prod(shape[1:])
        self._check_count(count, label, shape)
        self._check_weights(shape, label, (count,), shape[1:])
        values = _all_at_once(self._values, self.loss, batch, label)
        parts = reduce_values(values, batch, reduction, axes=(0,))
        if reduction in ("none", None):
            parts = ops.transpose(ops.reshape(parts, (-1, count)))
        else:
            parts = ops.reshape(parts, (-1,))
        return parts, None if self._weights is None else self._weights.reshape(-1)
