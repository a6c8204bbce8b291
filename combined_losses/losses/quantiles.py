"""Quantiles: bounds, one or several, that the target stays below in given shares of the cases."""

import decimal
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeGuard, Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._core import checks
from combined_losses._core.alignment import align
from combined_losses._core.batch import Batch
from combined_losses._core.compound import LossAsNode
from combined_losses._core.config import construct, signature_config
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.keras_types import LossArguments, Reduction
from combined_losses._core.layouts import beside
from combined_losses._core.leaf import Leaf
from combined_losses._core.loss import Loss
from combined_losses._core.names import make_unique
from combined_losses._core.node import Node
from combined_losses._core.presence import presence
from combined_losses._core.reduction import PER_COMPONENT, reduce_values
from combined_losses._core.short_call import short_call, unchosen
from combined_losses._numerics.arrays import Dtype, Tensor

__all__ = ["Pinball", "QuantileCRPS"]


class _Prices(Loss):
    """Unreduced values, one for each quantile, `(..., Q)`, for `Pinball` with parts."""

    prediction_layout = "columns"

    def __init__(self, quantile: Sequence[float], **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        self.quantile = quantile

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return _prices("Pinball", self.quantile, y_true, y_pred)


# Saved under the name `Pinball`. The class `Pinball` below registers that name later and replaces
# this one, so a file makes a `Pinball`, and `Pinball` makes one of these if `parts` is True.
@keras.saving.register_keras_serializable("combined_losses", "Pinball")
class _QuantileParts(LossAsNode):
    """What `Pinball(quantile, parts=True)` makes: each quantile is a part; coverage is logged."""

    def __init__(
        self,
        quantile: float | Sequence[float],
        parts: bool = True,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        if not _is_list(quantile):
            raise ValueError(
                "`parts=True` of Pinball reports each quantile of a list as a part; give a list. "
                f"Received: quantile={quantile!r}"
            )
        self._whole = Pinball(quantile, reduction=reduction, name=name, dtype=dtype)
        super().__init__(self._whole.name, reduction, dtype)
        self.quantile, self.parts = quantile, parts
        self._names = _names_of(quantile)
        self._order = [int(k) for k in np.argsort(quantile, kind="stable")]
        traits = self._whole.traits
        self._node = Leaf(self.name, self._whole, traits, opaque=False)
        single = _Prices(quantile, reduction=reduction, name=self.name, dtype=dtype)
        self._single = Leaf(self.name, single, traits, opaque=False)
        self.name_is_given = name is not None

    def __repr__(self) -> str:
        return short_call(self, unchosen(self, self.name_is_given), Pinball)

    def nodes_inside(self) -> list[tuple[Node, str | None]]:
        return [(self._node, None)]

    def innermost_loss(self) -> Loss:
        return self._whole

    @property
    def component_names(self) -> tuple[str, ...]:
        return self._names

    @property
    def part_weights(self) -> dict[str, float | None]:
        return dict.fromkeys(self._names, 1 / len(self._names))

    @property
    def extra_keys(self) -> tuple[str, ...]:
        crossing = ("crossing",) if len(self._names) > 1 else ()
        return (*crossing, *(f"{name}_coverage" for name in self._names))

    def unreduced(self, batch: Batch, imposed: bool, label: str) -> tuple[Tensor, Batch] | None:
        return self._node.unreduced(batch, imposed, label)

    def evaluate(
        self,
        batch: Batch,
        reduction: str | None = PER_COMPONENT,
        label: str | None = None,
    ) -> Evaluation:
        label, imposed = label or self.name, reduction != PER_COMPONENT
        checks.check_single_weight(label, batch.sample_weight)
        prices, rest = self._single.values(batch, label)
        mean = ops.mean(prices, axis=-1)
        values, rest = self._single.accounted(mean, rest, imposed, label)
        total = self._node.reduce(values, rest, reduction, label)
        own = reduction if imposed else self.reduction
        parts = _reduced(ops.cast(prices, values.dtype), rest, own)
        extras = _reduced(self._extras(batch, values, label), rest, "mean_with_sample_weight")
        present = presence(batch, values, rest)
        return Evaluation(total, (parts,), (extras,), present)

    def _extras(self, batch: Batch, values: Tensor, label: str) -> Tensor:
        """For each target: the share of crossings, and which predictions it lies below."""
        y_true, y_pred = align(batch.y_true, batch.y_pred, has_channels=True)
        y_true = ops.cast(beside(y_true, y_pred, "columns", label), values.dtype)
        y_pred = ops.cast(y_pred, values.dtype)
        below = [ops.cast(y_true <= y_pred, values.dtype)]
        if len(self._order) > 1:
            ordered = ops.take(y_pred, self._order, axis=-1)
            crossed = ops.cast(ordered[..., 1:] < ordered[..., :-1], values.dtype)
            below.insert(0, ops.mean(crossed, axis=-1, keepdims=True))
        return ops.stop_gradient(ops.concatenate(below, axis=-1))

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self._whole.call(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        return signature_config(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return construct(cls, config)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # A pickle names `Pinball`, because this private class may be moved or renamed.
        return Pinball.from_config, (self.get_config(),)


@keras.saving.register_keras_serializable("combined_losses")
class Pinball(Loss):
    """Quantile regression: `mean(q * max(e, 0) + (1 - q) * max(-e, 0))`, `e = y_true - y_pred`.

    Its minimum is the quantile `q` of the target. Use it to predict a bound that the target stays
    below in `q` of all cases, or, with a list of quantiles, an interval. Nothing keeps the columns
    of a list in order: if they must not cross, predict increments through a softplus.

    Args:
        quantile: a number above 0 and below 1, or a list of Q such numbers: quantile k prices
            column k of the predictions. Default 0.5, the median.
        parts: whether each quantile of a list is a part of its own, named `q10`, `q50`, `q975` for
            0.1, 0.5 and 0.975; the loss is their mean. The logs then also hold `crossing`, the
            share of neighbouring quantiles in the wrong order, and `q10_coverage`, the share of
            targets that lie below the prediction, which should become 0.1. In `Masked` a batch
            without any label counts as coverage 0, and an epoch's log is the mean over its
            batches: for a final coverage, evaluate only data that have labels. Default False.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_true` and `y_pred` `(batch, ...)`, equal; with a list `y_pred` `(batch, ..., Q)` and
    `y_true` `(batch, ..., 1)` or `(batch, ...)`. Values `y_pred.shape[:-1]`, in units of the
    target: the mean over the last axis.

    Raises:
        ValueError: if a quantile is not above 0 and below 1, if the list is empty, if there are
            `parts` without a list, or if the shapes are others than these.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.Pinball(quantile=0.75)
    >>> float(loss(np.array([[3.0], [3.0]]), np.array([[1.0], [5.0]])))
    1.0
    >>> interval = cl.losses.Pinball(quantile=[0.25, 0.75])
    >>> float(interval(np.array([3.0]), np.array([[1.0, 5.0]])))
    0.5
    >>> loss = cl.CompositeLoss({"price": cl.losses.Pinball([0.1, 0.5, 0.9], parts=True)})
    >>> loss.component_names
    ('price', 'price/q10', 'price/q50', 'price/q90')

    Limits: q = 0.5 is half the mean absolute error; q -> 1 prices only under-prediction. The
    gradient at `e = 0` is 0.

    Reference: Koenker & Bassett, Regression Quantiles, Econometrica 1978.
    """

    elementwise = True
    neutral_target = 1.0

    def __new__(
        cls,
        quantile: float | Sequence[float] = 0.5,
        parts: bool = False,
        **kwargs: Unpack[LossArguments],
    ) -> Self:
        if parts is True:
            # mypy wants a `Pinball`. `_QuantileParts` is none, but users call it like one.
            return _QuantileParts(quantile, **kwargs)  # type: ignore[return-value]
        return super().__new__(cls, quantile, parts, **kwargs)

    def __init__(
        self,
        quantile: float | Sequence[float] = 0.5,
        parts: bool = False,
        **kwargs: Unpack[LossArguments],
    ) -> None:
        super().__init__(**kwargs)
        checks.check_flag("Pinball", "parts", parts)
        self.quantile = quantile
        self.parts = parts
        if _is_list(quantile):  # one target for all columns of the last axis, even if Q is 1
            self.same_shape, self.elementwise = False, False
            self.prediction_layout = "columns"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if isinstance(self.quantile, (int, float)):
            return ops.mean(_price([self.quantile], y_true - y_pred), axis=-1)
        return ops.mean(_prices("Pinball", self.quantile, y_true, y_pred), axis=-1)


@keras.saving.register_keras_serializable("combined_losses")
class QuantileCRPS(Loss):
    """The continuous ranked probability score, of a distribution that quantiles stand for.

    `2 sum_k w_k pinball_k`, where w_k is the width of the cell of level k: from the middle between
    it and the level before (or 0) to the middle between it and the next (or 1). Use it to predict a
    whole distribution without a formula for it. Uneven levels, such as a dense tail, count by the
    width of their cells; in `Pinball` each counts alike. In units of the target.

    Args:
        quantiles: the levels, a list of increasing numbers above 0 and below 1. Required.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., Q)`, one column for each level; `y_true` `(batch, ..., 1)` or
    `(batch, ...)`. Values `y_pred.shape[:-1]`.

    Raises:
        ValueError: if the levels are no such list, or a shape does not fit.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.QuantileCRPS(quantiles=[0.25, 0.75])
    >>> float(loss(np.array([3.0]), np.array([[1.0, 5.0]])))  # twice `Pinball`, at even levels
    1.0

    Limits: one level of 0.5 is the mean absolute error. With many levels it is the score itself.
    Nothing keeps the columns in order: crossing is allowed and not priced.

    Reference: Laio & Tamea, Verification tools for probabilistic forecasts of continuous
    hydrological variables, Hydrol. Earth Syst. Sci. 2007.
    """

    same_shape = False
    prediction_layout = "columns"

    def __init__(self, quantiles: Sequence[float], **kwargs: Unpack[LossArguments]) -> None:
        super().__init__(**kwargs)
        if not _are_levels(quantiles):
            raise ValueError(
                "The argument `quantiles` of QuantileCRPS must be a list of increasing numbers "
                f"above 0 and below 1. Received: {quantiles!r}"
            )
        self.quantiles = quantiles

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        levels = np.asarray(self.quantiles, "float64")
        edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
        widths = ops.convert_to_tensor(2 * np.diff(edges), y_pred.dtype)
        prices = _prices("QuantileCRPS", self.quantiles, y_true, y_pred)
        return ops.sum(widths * prices, axis=-1)


def _reduced(columns: Tensor, batch: Batch, reduction: str | None) -> Tensor:
    """`(..., k)` reduced over all axes but the last: `(k,)`; if not reduced, `(k, batch)`."""
    axes = range(len(columns.shape) - 1)
    found = reduce_values(columns, batch, reduction, axes=axes)
    if reduction not in ("none", None):
        return found
    inner = tuple(axes)[1:]
    return ops.transpose(ops.mean(found, axis=inner) if inner else found)


def _prices(owner: str, quantiles: Sequence[float], y_true: Tensor, y_pred: Tensor) -> Tensor:
    """The pinball loss of each quantile of each target, in the shape of the predictions."""
    size = len(quantiles)
    if len(y_pred.shape) < 2 or y_pred.shape[-1] != size:
        raise ValueError(
            f"The {size} quantiles of {owner} need predictions of shape (batch, ..., {size}), "
            f"one column each: end the model with keras.layers.Dense({size}). "
            f"Received: y_pred of shape {tuple(y_pred.shape)}"
        )
    rows = tuple(y_pred.shape[:-1])
    checks.check_target_shape(owner, y_true, y_pred, (*rows, 1), rows)
    return _price(quantiles, ops.reshape(y_true, (*ops.shape(y_pred)[:-1], 1)) - y_pred)


def _price(quantiles: Sequence[float], error: Tensor) -> Tensor:
    under = ops.convert_to_tensor(quantiles, error.dtype)
    over = ops.convert_to_tensor([1 - q for q in quantiles], error.dtype)
    # max(q e, (q - 1) e) is equal, but its derivative at e = 0 differs between the backends.
    return under * ops.relu(error) + over * ops.relu(-error)


def _is_list(quantile: float | Sequence[float]) -> TypeGuard[Sequence[float]]:
    """Whether `quantile` is a list; raises unless it is a share, or a list of at least one."""
    several = isinstance(quantile, (list, tuple))
    shares: Any = quantile if several else [quantile]
    if not shares or not all(map(_is_share, shares)):
        raise ValueError(
            "The argument `quantile` of Pinball must be a number above 0 and below 1, or a "
            f"list of at least one such number. Received: {quantile!r}"
        )
    return several


def _is_share(number: object) -> bool:
    return isinstance(number, (int, float)) and 0 < number < 1


def _are_levels(quantiles: object) -> bool:
    """Whether they are a list of increasing shares."""
    if not isinstance(quantiles, (list, tuple)) or not quantiles:
        return False
    known = all(map(_is_share, quantiles))
    return known and all(a < b for a, b in itertools.pairwise(quantiles))


def _names_of(quantiles: Sequence[float]) -> tuple[str, ...]:
    """`q10`, `q025`, `q50`: the digits after the point, at least two. The names are unique."""
    names: list[str] = []
    for quantile in quantiles:
        digits = f"{decimal.Decimal(repr(float(quantile))):f}".partition(".")[2].ljust(2, "0")
        names.append(make_unique(f"q{digits}", names))
    return tuple(names)
