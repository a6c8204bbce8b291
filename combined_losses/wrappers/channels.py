"""One component for each channel, computed in one vectorised pass."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._core.arguments import as_child
from combined_losses._core.batch import Batch
from combined_losses._core.checks import is_integer
from combined_losses._core.compound import as_node
from combined_losses._core.config import serialize_loss
from combined_losses._core.data_format import Format, Formatted
from combined_losses._core.keras_types import (
    CompositeArguments,
    DataFormat,
    KerasLoss,
    LossLike,
)
from combined_losses._core.node import Node, node_of
from combined_losses._core.presence import any_present
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses.wrappers.parts import Aggregation, PerPart, Weights
from combined_losses.wrappers.per_channel import evaluate_channels
from combined_losses.wrappers.softmax import loading, refuse_softmax

__all__ = ["PerChannel"]


@keras.saving.register_keras_serializable("combined_losses")
class PerChannel(Formatted, PerPart):
    """One component for each channel, in one vectorised pass, each under its own name.

    Args:
        loss: as in `cl.wrappers.Wrapper`, for all channels; or a list or dict with one loss for
            each channel. Equal losses share one pass.
        axis: the axis of the channels, never the batch axis 0. Default None: `data_format` decides.
            If it is given, `data_format` has no effect, and the losses inside see single channels.
        names: one name for each channel. Without names (and `size`) the channels are not reported.
        weights: None (default): 1 for each channel; one number for each channel, as a list or a
            dict from its name; or an array of the shape of one sample (an importance map), which
            needs a loss of single elements.
        size: the number of channels, instead of names: `channel_0`, `channel_1`, …
        aggregation: `"sum"` (default), `"mean"` or `"weighted_mean"` of the channels.
        data_format, reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    A loss of single elements (MSE, MAE, Huber, …) sees all channels at once. Any other loss sees
    each channel as an array with one channel, and all of them in one call, as samples of one batch.
    Two kinds are called once for each channel: composites, and losses that take the batch as a
    whole (which return a scalar, have a `__call__` of their own or compare samples).

    Sample weights and masks of the other axes act on every channel. Where each target has several
    predictions (`GaussianNLL`, `Pinball` of several quantiles), the channels are those of the
    targets, and each keeps its predictions.

    A softmax needs all channels, so it belongs outside: `Activated(PerChannel(Dice()), "softmax")`.
    For channels that are independent, each with a sigmoid, losses have `multilabel=True`.

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
        loss: LossLike | Sequence[LossLike] | Mapping[str, LossLike],
        axis: int | None = None,
        names: Sequence[str] | None = None,
        weights: ArrayLike | Mapping[str, float] | None = None,
        size: int | None = None,
        aggregation: Aggregation = "sum",
        *,
        data_format: DataFormat = None,
        **kwargs: Unpack[CompositeArguments],
    ) -> None:
        if axis is not None and (not is_integer(axis) or axis == 0):
            raise ValueError(
                "The argument `axis` of PerChannel must be None or an integer other than the batch "
                f"axis 0. Received: {axis!r}"
            )
        several = isinstance(loss, (list, tuple, dict))
        by_name = list(loss) if isinstance(loss, dict) else None
        if names is None:
            names = by_name
        given = list(loss.values()) if isinstance(loss, dict) else loss
        given = list(given) if isinstance(given, (list, tuple)) else [given]
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
            self._several = dict(zip(by_name, children, strict=True)) if by_name else children
        groups = _grouped(children) if several else [(children[0], None)]
        self._groups = [(child, as_node(self.name, child), at) for child, at in groups]
        self._refuse_moving()
        self._set_format(data_format)

    @property
    def formats(self) -> list[Format]:
        return super().formats if self.axis is None else []

    def _keep_reductions(self, children: list[KerasLoss], given: str | None) -> None:
        """Lets each loss keep its own reduction if these differ, unless one is given."""
        if any(node.chooses_outputs for node in map(node_of, children) if node is not None):
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
    def from_config(cls, config: dict[str, Any]) -> Self:
        with loading():
            return super().from_config(config)

    _several: Any = None  # the dict or list of losses, if each channel has its own

    def _wrapped(self) -> Any:
        return super()._wrapped() if self._several is None else self._several

    def nodes_inside(self) -> list[tuple[Node, str | None]]:
        return [(node, None) for _, node, _ in self._groups]

    def _evaluate_parts(
        self, batch: Batch, reduction: str | None, label: str
    ) -> tuple[Tensor, Weights, Tensor]:
        shape = batch.shape
        axis = self._axis_in(shape, label)
        count = shape[axis]
        self._check_count(count, label, shape)
        sample = (count, *shape[1:-1]) if batch.channels == "moved" else shape[1:]
        self._check_weights((None, *sample), label, (count,), sample)
        batch = self._with_channels_at_the_end(batch, axis)
        found = [
            self._group(child, node, at, batch, reduction, label)
            for child, node, at in self._groups
        ]
        parts, present = map(list, zip(*found, strict=True))
        if len(parts) > 1:
            order = np.argsort([channel for _, _, at in self._groups for channel in at or ()])
            parts = [ops.take(ops.concatenate(parts, axis=0), order, axis=0)]
        return parts[0], self._factors(), any_present(batch, present)

    def _axis_in(self, shape: tuple[Any, ...], label: str) -> int:
        """The axis of the channels, counted from the left; raises if there is no such axis."""
        axis = -1 if self.axis is None else self.axis
        if not -len(shape) < axis < len(shape):
            raise ValueError(
                f"Component '{label}' has no axis {axis}. Received: y_pred of shape {shape}"
            )
        if shape[axis] is None:
            raise ValueError(
                f"Component '{label}' needs a static number of channels. "
                f"Received: y_pred of shape {shape}"
            )
        return axis % len(shape)

    def _with_channels_at_the_end(self, batch: Batch, axis: int) -> Batch:
        """The batch with the channels last: values, weights and masks then match from the left."""
        last = len(batch.shape) - 1

        def move(array: Tensor) -> Tensor:
            return array if axis == last else ops.moveaxis(array, axis, last)

        return batch.view(move, channels=batch.channels if self.axis is None else "last")

    def _factors(self) -> Weights:
        # An importance map has multiplied the values already.
        return None if self._weights is None or self._weights.ndim > 1 else self._weights

    def _importance(self, batch: Batch) -> Weights:
        """The importance map with the channels last, or None."""
        if self._weights is None or self._weights.ndim == 1:
            return None
        axis = self.axis
        if axis is None:
            axis = 1 if batch.channels == "moved" else -1
        # The map has no batch axis.
        weights = np.moveaxis(self._weights, axis if axis < 0 else axis - 1, -1)
        if self.aggregation == "weighted_mean":
            weights = weights / weights.mean()
        return weights

    def _group(
        self,
        child: KerasLoss,
        node: Node,
        at: list[int] | None,
        batch: Batch,
        reduction: str | None,
        label: str,
    ) -> tuple[Tensor, Tensor]:
        """What `evaluate_channels` gives for one loss on its channels `at`; None: on all."""
        importance = self._importance(batch)
        if at is not None:
            last = len(batch.shape) - 1
            batch = batch.view(lambda array: ops.take(array, at, axis=last))
            importance = None if importance is None else importance[..., at]
        if reduction == PER_COMPONENT and self.reduction not in (PER_COMPONENT, child.reduction):
            reduction = self.reduction or "none"
        return evaluate_channels(child, node, batch, reduction, label, importance)


def _grouped(children: list[KerasLoss]) -> list[tuple[KerasLoss, list[int] | None]]:
    """`(loss, channels)` for each set of equal losses; `channels` are their numbers."""
    groups: dict[str, tuple[KerasLoss, list[int]]] = {}
    for index, child in enumerate(children):
        key = f"object {id(child)}"
        if node_of(child) is None:
            with contextlib.suppress(
                TypeError, ValueError
            ):  # a loss without a config equals itself alone
                key = json.dumps(serialize_loss(child), sort_keys=True)
        groups.setdefault(key, (child, []))[1].append(index)
    return [*groups.values()]
