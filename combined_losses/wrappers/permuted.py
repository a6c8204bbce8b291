"""Sources that come in any order: voices, speakers, layers of a picture."""

import itertools
from collections.abc import Iterable
from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._core.alignment import fits, is_per_sample, product
from combined_losses._core.batch import Batch
from combined_losses._core.checks import is_integer, shown
from combined_losses._core.compound import traits_of
from combined_losses._core.keras_types import CompositeArguments, LossLike
from combined_losses._core.reduction import per_sample, weights_of
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div
from combined_losses.wrappers.values import OfValuesAndTargets, weighted

__all__ = ["Permuted"]

_MOST = 6
Weights = dict[str, Tensor]  # "sample_weight" and "mask", each only if it acts inside


@keras.saving.register_keras_serializable("combined_losses")
class Permuted(OfValuesAndTargets):
    """A loss between sources in the order that suits each sample best.

    Use it where the truth has several sources without an order, such as the voices of a recording:
    the network may give them in any order, and in one of its own for each sample. The value of a
    sample is the least over all permutations s of `mean_i loss(y_i, p_s(i))`. Only the best
    permutation has a gradient; if several are best, one of them.

    Args:
        loss: a single loss, as in `cl.wrappers.Wrapper`, not a composite. It is called for each
            pair of sources, so 4 times for two and 36 times for six.
        axis: the axis of the sources in the targets and in the predictions, not 0. Default -1.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Shapes: `y_true` and `y_pred` `(batch, ..., S, ...)`, with S at most 6; the loss sees the arrays
    without the axis of the sources. Values `(batch,)`: what the loss gives for a sample is averaged
    first. Sample weights and masks of single positions act inside that mean, and choose the order
    too; those that differ between sources belong to the true ones.

    Raises:
        ValueError: if `axis` is 0 or no integer, for a composite; when called, if there are more
            than 6 sources, or not as many true ones as predicted ones.

    Example: the two sources have changed places.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> y_true, y_pred = np.array([[[1.0, 5.0], [2.0, 5.0]]]), np.array([[[5.0, 1.0], [5.0, 2.0]]])
    >>> float(cl.wrappers.Permuted("mse")(y_true, y_pred))
    0.0

    Limits: with one source it is the loss. Sources of unequal numbers, or more than 6, are
    `cl.wrappers.Matched`. Yu et al. 2017, arXiv 1607.00325.
    """

    def __init__(
        self, loss: LossLike, *, axis: int = -1, **kwargs: Unpack[CompositeArguments]
    ) -> None:
        super().__init__(loss, **kwargs)
        if not is_integer(axis) or axis == 0:
            raise ValueError(
                "The argument `axis` of Permuted must be an integer, and not 0, which is the "
                f"batch. Received: {shown(axis)}"
            )
        self.axis = axis
        self._check_single()

    @property
    def couples_batch(self) -> bool:
        return traits_of(self.loss).couples_batch

    def _of_child(self, batch: Batch, imposed: bool, label: str) -> tuple[Tensor, Batch]:
        batch = self.one_array(batch, label)
        axis, sources = self._axis_of(batch, label)
        for what, weight in batch.weights():
            fits(label, what, weight, batch.y_true)  # raises: one for each step is none of sources
        costs: list[Tensor] = []
        weights: list[Weights] = []
        for i in range(sources):
            row = [self._pair(batch, (axis, i, j), imposed, label) for j in range(sources)]
            costs.extend(cost for cost, _ in row)
            weights.append(row[0][1])
        total = _least(ops.stack(costs, axis=-1), sources)
        return _averaged(total, weights, batch)

    def _axis_of(self, batch: Batch, label: str) -> tuple[int, int]:
        """The axis of the sources, counted from the left, and their number."""
        true, pred = tuple(batch.y_true.shape), tuple(batch.y_pred.shape)
        rank = len(true)
        inside = -rank <= self.axis < rank and self.axis % rank
        size = true[self.axis] if inside else None
        if not inside or size is None or not 1 <= size <= _MOST or pred[self.axis % rank] != size:
            raise ValueError(
                f"Component '{label}' needs from 1 to {_MOST} sources along axis {self.axis} of "
                "the targets, not the batch axis, and as many in the predictions; more, or "
                "unequal numbers, are cl.wrappers.Matched. Received: y_true of shape "
                f"{true} and y_pred of shape {pred}"
            )
        return self.axis % rank, size

    def _pair(
        self, batch: Batch, place: tuple[int, int, int], imposed: bool, label: str
    ) -> tuple[Tensor, Weights]:
        """The cost of a true source i and a predicted source j, `(batch,)`; the weights inside."""
        axis, i, j = place
        pair = batch.view(
            weights=lambda _, weight: _weight_of(weight, axis, i),
            y_true=_source(batch.y_true, axis, i),
            y_pred=_source(batch.y_pred, axis, j),
            tells_elements=True,
        )
        found = self._node.unreduced(pair, imposed, label)
        if found is None or not len(found[0].shape):
            raise ValueError(
                f"Component '{label}' gives one number for the whole batch, so Permuted cannot "
                "choose an order for each sample: return one value for each sample. "
                f"Received: {self.loss!r}"
            )
        values, counted = found
        inner = {
            what: weight
            for what, weight in weights_of(values, counted).items()
            if not _is_outer(what, batch, pair, counted)
        }
        weight = product(inner.values())
        if weight is not None:
            values = weighted(values, weight)
        return per_sample(values), inner


def _is_outer(what: str, batch: Batch, pair: Batch, counted: Batch) -> bool:
    """Whether a weight is that of whole samples, which acts on the value of the sample."""
    given = getattr(batch, what)
    unchanged = getattr(counted, what) is getattr(pair, what)
    return given is not None and unchanged and is_per_sample(given)


def _source(array: Tensor, axis: int, index: int) -> Tensor:
    return array[(*[slice(None)] * axis, index)]


def _weight_of(weight: Tensor, axis: int, index: int) -> Tensor:
    """The weight of a source; one that does not reach the axis of the sources stays."""
    if len(weight.shape) <= axis or is_per_sample(weight):
        return weight
    return _source(weight, axis, 0 if weight.shape[axis] == 1 else index)


def _least(costs: Tensor, sources: int) -> Tensor:
    """The least sum of costs over the permutations, `(batch,)`.

    `costs[:, i * sources + j]` is that of the true source i and the predicted source j.
    """
    orders = np.array(list(itertools.permutations(range(sources))))
    places = orders + sources * np.arange(sources)  # (orders, sources): j beside i, in `costs`
    fixed = ops.stop_gradient(costs)
    sums = ops.sum(ops.take(fixed, places, axis=-1), axis=-1)
    # Of what is not a number some backends take the least, others do not; here it is the last.
    best = ops.argmin(ops.where(ops.isnan(sums), np.inf, sums), axis=-1)
    chosen = ops.take(ops.convert_to_tensor(places, "int32"), best, axis=0)
    return ops.sum(ops.take_along_axis(costs, chosen, axis=-1), axis=-1)


def _averaged(total: Tensor, weights: list[Weights], batch: Batch) -> tuple[Tensor, Batch]:
    """The mean over sources and positions, and the weights with which each sample still counts.

    A mean over positions of weights w is `sum w v / sum w`, and the sample then counts with the
    mean of w: so its part in a mean over all positions is what it would be without this wrapper.
    """
    sources = len(weights)
    # The costs are means of w v over the positions: the sum of the means of w is what they lack.
    whole = _mean_of(product(each.values()) for each in weights)
    value = total / sources if whole is None else div(total / sources, whole)
    changes: dict[str, Any] = {"elements": 1}
    mask = _mean_of(each.get("mask") for each in weights)
    if mask is not None:
        changes["mask"] = mask
    if "sample_weight" in weights[0]:
        changes["sample_weight"] = whole if mask is None else div(whole, mask)
    return value, batch.replaced(**changes)


def _mean_of(weights: Iterable[Tensor | None]) -> Tensor | None:
    """The mean over sources and positions, `(batch,)`; None if there are no weights."""
    found = [per_sample(weight) for weight in weights if weight is not None]
    return sum(found[1:], found[0]) / len(found) if found else None
