"""One component for each channel or element, computed in one vectorised pass."""

import json
import math

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
        self._part_names = self._resolve_names(names, size)
        self._part_weights = self._resolve_weights(weights)

    def _resolve_names(self, names, size):
        if names is not None:
            names = tuple(names)
            for name in names:
                check_name(name, self.name)
            check_log_keys(names, self.name)
            if size is not None and _count(size) != len(names):
                raise ValueError(
                    f"`names` and `size` of '{self.name}' must agree. Received: {len(names)} names "
                    f"and size={size!r}"
                )
            return names
        if size is None:
            return ()
        shape = (size,) if isinstance(size, int) else tuple(size)
        return tuple("_".join([self._part, *map(str, at)]) for at in np.ndindex(*shape))

    def _resolve_weights(self, weights):
        if isinstance(weights, dict):
            unknown = [name for name in weights if name not in self._part_names]
            if unknown:
                raise ValueError(
                    f"`weights` of '{self.name}' must name its parts {list(self._part_names)}. "
                    f"Received: {unknown[0]!r}"
                )
            weights = [weights.get(name, 1.0) for name in self._part_names]
        if weights is None:
            return None
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

    def _check_count(self, count, what, label, shape):
        if self._part_names and count is not None and count != len(self._part_names):
            raise ValueError(
                f"Component '{label}' has {len(self._part_names)} names for {count} {what}. Give "
                f"one name for each. Received: y_pred of shape {shape}"
            )

    def _weight_map(self, shape, label):
        """Weights as an array that broadcasts against values of `shape`, or None."""
        if self._part_weights is None:
            return None
        weights, per_sample = self._part_weights, tuple(shape[1:])
        fits = len(weights.shape) <= len(per_sample) and all(
            theirs is None or ours == theirs
            for ours, theirs in zip(weights.shape[::-1], per_sample[::-1], strict=False)
        )
        if not fits:
            raise ValueError(
                f"The weights of component '{label}' must have the shape of one sample, "
                f"{per_sample}, or one number for each part. Received: weights of shape "
                f"{weights.shape}"
            )
        return weights

    def _aggregate(self, values, scale):
        """The total of the parts, `values` with the parts first."""
        if self.aggregation == "sum":
            return ops.sum(values, axis=0)
        if self.aggregation == "mean" or scale is None:
            return ops.mean(values, axis=0)
        return ops.sum(values, axis=0) / ops.cast(scale, values.dtype)

    def _node_of(self, child, label):
        node = Component(label, child, traits_of(child))
        if node.opaque:
            raise ValueError(
                f"Component '{label}' has a loss with a `__call__` of its own, which cannot be "
                f"taken apart into parts. Received: {child!r}"
            )
        return node

    def _values(self, child, batch, label):
        """Unreduced values of a child that must not reduce the batch."""
        values, _ = self._node_of(child, label).values(batch, label)
        if not len(values.shape):
            raise ValueError(
                f"Component '{label}' needs one value for each sample, and its loss returns one "
                f"number for the whole batch. Received: {child!r}"
            )
        return values


def _count(size):
    return size if isinstance(size, int) else math.prod(size)


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
        several = isinstance(loss, (list, tuple, dict))
        if isinstance(loss, dict):
            names = list(loss) if names is None else names
        given = list(loss.values()) if isinstance(loss, dict) else loss if several else [loss]
        if not given:
            raise ValueError(f"PerChannel needs a loss. Received: {loss!r}")
        children = [as_child(child, "PerChannel", None) for child in given]
        if several and size is None and names is None:
            size = len(children)
        super().__init__(children[0], names, size, weights, aggregation, **kwargs)
        self.axis = axis
        if several:
            self._check_count(len(children), "losses", self.name, None)
            self.loss = dict(zip(loss, children, strict=True)) if isinstance(loss, dict) else children
        self._groups = _grouped(children) if several else [(children[0], None)]

    def _imposed(self, reduction):
        return (self.reduction or "none") if reduction == PER_COMPONENT else reduction

    @property
    def routes(self):
        return False

    def evaluate(self, batch, reduction=PER_COMPONENT, label=None):
        label, reduction = label or self.name, self._imposed(reduction)
        y_true, y_pred = align(batch.y_true, batch.y_pred)
        count = y_pred.shape[self.axis] if -len(y_pred.shape) < self.axis < len(y_pred.shape) else 0
        if count == 0:
            raise ValueError(
                f"Component '{label}' has no axis {self.axis}. Received: y_pred of shape "
                f"{tuple(y_pred.shape)}"
            )
        self._check_count(count, "channels", label, tuple(y_pred.shape))
        # Channels last, so that values, weights and masks all match from the left.
        batch = batch.replaced(y_true=self._last(y_true), y_pred=self._last(y_pred))
        groups = [self._group(c, at, batch, reduction, label) for c, at in self._groups]
        if len(groups) == 1:
            parts = groups[0]
        else:
            order = np.argsort([i for _, at in self._groups for i in at])
            parts = ops.take(ops.concatenate(groups, axis=0), order, axis=0)
        return self._evaluation(parts, tuple(batch.y_pred.shape), label)

    def _last(self, array):
        return array if self.axis in (-1, len(array.shape) - 1) else ops.moveaxis(array, self.axis, -1)

    def _evaluation(self, parts, shape, label):
        weights, scale = self._weight_map(shape, label), None
        if weights is not None:
            scale = weights.reshape(-1, weights.shape[-1]).mean(axis=0)
        if weights is not None and len(weights.shape) == 1:
            shaped = weights.reshape((-1, *([1] * (len(parts.shape) - 1))))
            weighted = parts * ops.cast(shaped, parts.dtype)
        else:
            weighted = parts  # an importance map is in the values already
        total = self._aggregate(weighted, None if scale is None else scale.sum())
        return Evaluation(total, (parts,) if self._part_names else ())

    def _group(self, child, at, batch, reduction, label):
        """The channels `at` (None: all) of one loss: `(channels,)` or `(channels, batch)`."""
        if at is not None:
            batch = batch.replaced(
                y_true=ops.take(batch.y_true, at, axis=-1),
                y_pred=ops.take(batch.y_pred, at, axis=-1),
            )
        elementwise = traits_of(child).elementwise
        values = (self._all_at_once if elementwise else self._folded)(child, batch, label)
        weights = self._weight_map(tuple(batch.y_pred.shape) if at is None else (None,), label) if at is None else None
        if weights is not None and len(weights.shape) > 1:
            if not elementwise:
                raise ValueError(
                    f"Component '{label}' has an importance map for a loss that does not judge "
                    f"single elements. Received: weights of shape {weights.shape}"
                )
            values = values * ops.cast(weights, values.dtype)
        reduced = reduce_values(values, batch, reduction, axes=range(len(values.shape) - 1))
        if reduction in ("none", None):
            inner = tuple(range(1, len(values.shape) - 1))
            return ops.transpose(ops.mean(reduced, axis=inner) if inner else reduced)
        return reduced

    def _all_at_once(self, child, batch, label):
        """A loss of single elements averages over the last axis: here an axis of length 1."""
        return self._values(
            child,
            batch.replaced(
                y_true=ops.expand_dims(batch.y_true, -1), y_pred=ops.expand_dims(batch.y_pred, -1)
            ),
            label,
        )

    def _folded(self, child, batch, label):
        """Each channel as a sample with one channel; `(batch, ..., channels)` of the values."""
        count = batch.y_pred.shape[-1]

        def fold(array):
            channels = ops.moveaxis(array, -1, 1)
            return ops.reshape(channels, (-1, *channels.shape[2:], 1))

        def repeat(weight):
            return None if weight is None else ops.repeat(weight, count, axis=0)

        values = self._values(
            child,
            batch.replaced(
                y_true=fold(batch.y_true),
                y_pred=fold(batch.y_pred),
                sample_weight=repeat(batch.sample_weight),
                mask=repeat(batch.mask),
            ),
            label,
        )
        values = ops.reshape(values, (-1, count, *values.shape[1:]))
        return ops.moveaxis(values, 1, -1)


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

    def _imposed(self, reduction):
        return (self.reduction or "none") if reduction == PER_COMPONENT else reduction

    def evaluate(self, batch, reduction=PER_COMPONENT, label=None):
        label, reduction = label or self.name, self._imposed(reduction)
        y_true, y_pred = align(batch.y_true, batch.y_pred)
        shape = tuple(y_pred.shape)
        self._check_count(None if None in shape[1:] else math.prod(shape[1:]), "elements", label, shape)
        batch = batch.replaced(y_true=ops.expand_dims(y_true, -1), y_pred=ops.expand_dims(y_pred, -1))
        values = self._values(self.loss, batch, label)
        parts = reduce_values(values, batch, reduction, axes=(0,))
        if reduction in ("none", None):
            parts = ops.transpose(ops.reshape(parts, (-1, math.prod(shape[1:]))))
        else:
            parts = ops.reshape(parts, (-1,))
        return self._evaluation(parts, shape, label)

    def _evaluation(self, parts, shape, label):
        weights = self._part_weights
        if weights is not None and weights.shape not in (shape[1:], (math.prod(shape[1:]),)):
            self._weight_map((None,), label)
        weighted = parts
        if weights is not None:
            flat = weights.reshape((-1, *([1] * (len(parts.shape) - 1))))
            weighted = parts * ops.cast(flat, parts.dtype)
        total = self._aggregate(weighted, None if weights is None else weights.sum())
        return Evaluation(total, (parts,) if self._part_names else ())
