"""One component for each channel or element, computed in one vectorised pass."""

import contextlib
import json
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from combined_losses._internal.arguments import as_child
from combined_losses._internal.batch import fit_from_left
from combined_losses._internal.channels import all_at_once, evaluate_channels
from combined_losses._internal.checks import (
    are_finite,
    as_array,
    check_equal_shapes,
    check_reduction,
    check_size,
    is_integer,
    shown,
)
from combined_losses._internal.component import Evaluation
from combined_losses._internal.compound import Compound, as_node, traits_of
from combined_losses._internal.config import serialize_loss
from combined_losses._internal.data_format import Formatted, telling
from combined_losses._internal.names import check_log_keys, check_name
from combined_losses._internal.reduction import PER_COMPONENT, REDUCTIONS, reduce_values
from combined_losses.wrappers.base import Wrapper
from combined_losses.wrappers.softmax import loading, refuse_softmax

AGGREGATIONS = ("sum", "mean", "weighted_mean")


class _PerPart(Wrapper):
    """What `PerChannel` and `PerElement` share: parts with names and weights, and their sum."""

    _part = "part"  # what messages and names call one
    _size_may_be_tuple = False

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
        check_size(size, f"{type(self).__name__} ('{self.name}')", self._size_may_be_tuple)
        if names is None:
            shape = () if size is None else np.atleast_1d(size)
            at = np.ndindex(*shape) if size is not None else ()
            return tuple("_".join([self._part, *map(str, index)]) for index in at)
        if not isinstance(names, (list, tuple)):
            raise ValueError(
                f"The argument `names` of {type(self).__name__} ('{self.name}') must be a list of "
                f"strings. Received: {names!r}"
            )
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
            if not self._part_names:
                raise ValueError(
                    f"`weights` of '{self.name}' is a dict from name, and it has no names: give "
                    f"`names` too, or a list of weights. Received: {weights!r}"
                )
            unknown = [name for name in weights if name not in self._part_names]
            if unknown:
                raise ValueError(
                    f"`weights` of '{self.name}' must name its parts {list(self._part_names)}. "
                    f"Received: {unknown[0]!r}"
                )
            weights = [weights.get(name, 1.0) for name in self._part_names]
        values = as_array(weights)
        if not are_finite(values):
            raise ValueError(
                f"`weights` of '{self.name}' must be finite numbers, which a float32 can hold. "
                f"Received: {shown(weights)}"
            )
        values = values.astype("float64")
        if self.aggregation == "weighted_mean" and values.sum() == 0:
            raise ValueError(
                f"`weights` of '{self.name}' must not sum to 0, because aggregation is "
                f"'weighted_mean'. Received: {weights!r}"
            )
        return values

    @property
    def component_names(self):
        return self._part_names

    @property
    def part_weights(self):
        count, weights = len(self._part_names), self._factors()
        factors = np.ones(count) if weights is None else weights.reshape(-1)
        if self.aggregation == "mean" or (weights is None and self.aggregation != "sum"):
            factors = factors / max(count, 1)
        elif self.aggregation == "weighted_mean":
            factors = factors / weights.sum()
        # A number of weights that does not fit is an error when it is called.
        known = map(float, factors) if len(factors) == count else [None] * count
        return dict(zip(self._part_names, known, strict=True))

    def _factors(self):
        """What multiplies the parts before they are added up: an array, or None."""
        return self._weights

    @property
    def children(self):
        return [(self.loss, None)]

    def evaluate(self, batch, reduction=PER_COMPONENT, label=None):
        label = label or self.name
        batch = self.one_array(self.choose_output(batch, label), label).with_target()
        with telling(batch):
            view = self.view(batch, label)
            if view is None:
                check_equal_shapes(label, batch.y_true, batch.y_pred)
            else:
                batch = view.batch
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


@keras.saving.register_keras_serializable("combined_losses")
class PerChannel(Formatted, _PerPart):
    """One component for each channel, in one vectorised pass, each under its own name.

    Args:
        loss: as in `cl.wrappers.Wrapper`, for all channels; or a list or dict with one loss for
            each channel, of which equal ones share one pass.
        axis: the channel axis, never the batch axis 0. Default None: by `data_format`. Where it is
            given, `data_format` says nothing, and the losses inside see single channels.
        names: one name for each channel. Without names (and `size`) the channels are not reported.
        weights: None; one number for each channel, as a list or a dict from name; or an array of
            the shape of one sample (an importance map), for losses of single elements.
        size: the number of channels, instead of names: `channel_0`, `channel_1`, …
        aggregation: `"sum"` (default), `"mean"` or `"weighted_mean"` of the channels.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as the losses inside say, or else as
            Keras's setting does, which acts on predictions of rank 4 and more alone. Another one
            than that of a loss inside is an error.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    A loss of single elements (MSE, MAE, Huber, …) sees all channels at once; any other sees each
    channel as an array with one channel, folded into the batch axis. Only a loss that takes the
    batch as a whole (one that returns a scalar, has a `__call__` of its own or compares samples)
    and a composite are called once for each channel.

    Weights and masks are those of the other axes, as each channel sees them. Where each target has
    several predictions (`GaussianNLL`, `Pinball` of several quantiles), the channels are those of
    the targets, and each keeps its predictions.

    A softmax needs all channels: put it around, `Activated(PerChannel(Dice()), "softmax")`. For
    channels that are independent, each with a sigmoid, a loss has `multilabel=True`.

    Raises:
        ValueError: if the number of channels differs from `names`, the weights do not fit, or the
            loss has a softmax (or divides by the sum) over the channels.

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
        self,
        loss,
        axis=None,
        names=None,
        weights=None,
        size=None,
        aggregation="sum",
        *,
        data_format=None,
        **kwargs,
    ):
        if axis is not None and (not is_integer(axis) or axis == 0):
            raise ValueError(
                "The argument `axis` of PerChannel must be None or an integer other than the batch "
                f"axis 0. Received: {axis!r}"
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
        refuse_softmax(f"PerChannel ('{self.name}')", children, axis)
        self.axis = axis
        self.sees_channels_last = axis is None
        if several:
            self._check_count(len(children), self.name, None)
            self._keep_reductions(children, kwargs.get("reduction", PER_COMPONENT))
            self._several = dict(zip(loss, children, strict=True)) if by_name else children
        self._groups = [
            (child, as_node(self.name, child), at)
            for child, at in (_grouped(children) if several else [(children[0], None)])
        ]
        self._refuse_moving()
        self._set_format(data_format)

    @property
    def formats(self):
        return super().formats if self.axis is None else []

    def _keep_reductions(self, children, given):
        """Losses of their own have their own reductions, unless one is given."""
        if any(isinstance(child, Compound) and child.routes for child in children):
            raise ValueError(
                f"A loss of PerChannel ('{self.name}') chooses its output by itself; put "
                f"cl.wrappers.OnOutput around PerChannel. Received: {children!r}"
            )
        reductions = {child.reduction for child in children}
        if len(reductions) > 1 and given == PER_COMPONENT:
            self.reduction = PER_COMPONENT
            if reductions & {"none", None}:
                raise ValueError(
                    f"All losses of PerChannel ('{self.name}') must have the reduction 'none', or "
                    f"none of them. Received: reductions {sorted(map(str, reductions))}"
                )

    @classmethod
    def from_config(cls, config):
        with loading():
            return super().from_config(config)

    _several: Any = None  # a dict or list of losses, where each channel has its own

    def _wrapped(self):
        return super()._wrapped() if self._several is None else self._several

    @property
    def children(self):
        return [(child, None) for child, _, _ in self._groups]

    def _evaluate_parts(self, batch, reduction, label):
        shape, axis = batch.shape, -1 if self.axis is None else self.axis
        if not -len(shape) < axis < len(shape):
            raise ValueError(
                f"Component '{label}' has no axis {axis}. Received: y_pred of shape {shape}"
            )
        count = shape[axis]
        if count is None:
            raise ValueError(
                f"Component '{label}' needs a static number of channels. "
                f"Received: y_pred of shape {shape}"
            )
        self._check_count(count, label, shape)
        sample = (count, *shape[1:-1]) if batch.channels == "moved" else shape[1:]
        self._check_weights((None, *sample), label, (count,), sample)
        # Channels last, so that values, weights and masks all match from the left.
        source, last = axis % len(shape), len(shape) - 1

        def move(array):
            return array if source == last else ops.moveaxis(array, source, last)

        batch = batch.map_elements(move)
        if self.axis is not None:
            batch = batch.replaced(channels="last")
        parts = [
            self._group(child, node, at, batch, reduction, label)
            for child, node, at in self._groups
        ]
        if len(parts) > 1:
            order = np.argsort([channel for _, _, at in self._groups for channel in at or ()])
            parts = [ops.take(ops.concatenate(parts, axis=0), order, axis=0)]
        return parts[0], self._factors()

    def _factors(self):
        # An importance map is in the parts already.
        return None if self._weights is None or self._weights.ndim > 1 else self._weights

    def _importance(self, batch):
        """The importance map with the channels last, or None."""
        if self._weights is None or self._weights.ndim == 1:
            return None
        axis = self.axis
        if axis is None:
            axis = 1 if batch.channels == "moved" else -1
        # Without the batch axis.
        weights = np.moveaxis(self._weights, axis if axis < 0 else axis - 1, -1)
        if self.aggregation == "weighted_mean":
            return weights / weights.mean()
        return weights

    def _group(self, child, node, at, batch, reduction, label):
        """The channels `at` (None: all) of one loss: `(channels,)` or `(channels, batch)`."""
        importance = self._importance(batch)
        if at is not None:
            last = len(batch.shape) - 1
            batch = batch.map_elements(lambda array: ops.take(array, at, axis=last))
            importance = None if importance is None else importance[..., at]
        if reduction == PER_COMPONENT and self.reduction not in (PER_COMPONENT, child.reduction):
            reduction = self.reduction or "none"
        return evaluate_channels(child, node, batch, reduction, label, importance)


def _grouped(children):
    """`(loss, channels)` for each set of equal losses."""
    groups = {}
    for index, child in enumerate(children):
        key = f"object {id(child)}"
        if not isinstance(child, Compound):
            with contextlib.suppress(TypeError, ValueError):  # what has no config equals itself
                key = json.dumps(serialize_loss(child), sort_keys=True)
        groups.setdefault(key, (child, []))[1].append(index)
    return list(groups.values())


@keras.saving.register_keras_serializable("combined_losses")
class PerElement(_PerPart):
    """One component for each element of a sample, in one vectorised pass.

    Args:
        loss: a loss of single elements: MSE, MAE, Huber, binary cross-entropy, …; or one with
            several predictions for each target, such as `GaussianNLL`, whose targets are elements.
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
    _size_may_be_tuple = True

    def __init__(self, loss, names=None, weights=None, size=None, aggregation="sum", **kwargs):
        super().__init__(loss, names, size, weights, aggregation, **kwargs)
        self._refuse_moving()
        traits = traits_of(self.loss)
        if not traits.elementwise and traits.layout is None:
            raise ValueError(
                f"PerElement ('{self.name}') needs a loss of single elements, such as 'mse'; a "
                "loss of your own says so with `elementwise = True`. "
                f"Received: {self.loss!r}"
            )

    def _evaluate_parts(self, batch, reduction, label):
        shape = batch.shape
        self._check_shape(shape, label)
        count = math.prod(shape[1:])
        weights = None if self._weights is None else self._weights.reshape(-1)
        imposed = self._imposed(reduction)
        found = None
        if not isinstance(self.loss, Compound):
            found = all_at_once(self.loss, self._node, batch, imposed != PER_COMPONENT, label)
        if found is None:
            flat = _flattened(batch, count)
            return evaluate_channels(self.loss, self._node, flat, imposed, label), weights
        values, batch = found
        reduction = self.loss.reduction if imposed == PER_COMPONENT else imposed
        check_reduction(label, reduction, REDUCTIONS)
        parts = reduce_values(values, batch, reduction, axes=(0,))
        if reduction in ("none", None):
            return ops.transpose(ops.reshape(parts, (-1, count))), weights
        return ops.reshape(parts, (-1,)), weights

    def _check_shape(self, shape, label):
        if None in shape[1:]:
            raise ValueError(
                f"Component '{label}' needs a static shape but for the batch axis. "
                f"Received: y_pred of shape {shape}"
            )
        count = math.prod(shape[1:])
        self._check_count(count, label, shape)
        self._check_weights(shape, label, (count,), shape[1:])
        if isinstance(self.size, (tuple, list)) and tuple(self.size) != shape[1:]:
            raise ValueError(
                f"Component '{label}' has `size={tuple(self.size)}` for samples of shape "
                f"{shape[1:]}. Received: y_pred of shape {shape}"
            )


def _flattened(batch, count):
    """Samples as vectors of `count` elements, and weights and masks of as many."""

    def flatten(array):
        own = ops.shape(array)[len(batch.shape) :]
        return ops.reshape(array, (-1, count, *own))

    def flatten_weight(weight):
        fitted = None if weight is None else fit_from_left(weight, batch.y_true)
        if fitted is None or len(weight.shape) < 2:
            return weight  # of samples
        return flatten(ops.broadcast_to(fitted, batch.sizes))

    return batch.replaced(
        channels="last",
        y_true=flatten(batch.y_true),
        y_pred=flatten(batch.y_pred),
        sample_weight=flatten_weight(batch.sample_weight),
        mask=flatten_weight(batch.mask),
    )
