"""Classes that are leaves of a tree: choices among brothers, and choices of their groups."""

import itertools
import math
from collections.abc import Sequence
from typing import Unpack

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from combined_losses._core.checks import as_array, check_flag, check_number
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.probabilities import as_probability
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import logsumexp, slog
from combined_losses.losses.classification.base import (
    OfClasses,
    cast_prediction,
    known_labels,
    label_column,
)

__all__ = ["TreeCrossEntropy"]


@keras.saving.register_keras_serializable("combined_losses")
class TreeCrossEntropy(OfClasses):
    """Cross-entropy along the path from a class to the root, where classes are leaves of a tree.

    Let `q_0` be the probability of the right class, `q_1` that of its group at the first level, and
    so on up to the root, whose probability is 1. The value is
    `-sum_l exp(-decay l) log(q_l / q_(l+1))`: the cross-entropies of the choices on the path, each
    with a weight. Use it with a `decay` below 0 where mistakes within a group are better than
    others: breeds of dogs, diseases of one organ; with one above 0 where only the finest choice
    matters, and groups are told apart by something else.

    Args:
        levels: lists of one group id for each of the C classes, the finest level first. Each group
            of a level is made of whole groups of the level before. The classes themselves and the
            root are implied.
        decay: how much less a choice counts for each level above the leaves, at least -10. Default
            0.5, with which the choice among brothers counts most; 0 is cross-entropy; below 0 the
            choice of the group counts more than that of the class.
        from_logits: whether `y_pred` holds logits, which go through a softmax. Default False:
            probabilities, which are taken as they are, not divided by their sum.
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, ..., C)`; `y_true` integer labels from 0 to C - 1, of shape
    `y_pred.shape[:-1]` or `y_pred.shape[:-1] + (1,)`; values `y_pred.shape[:-1]`, of at least 0.
    The value of a label outside is NaN: give unknown labels the weight 0.

    Raises:
        ValueError: if an argument is outside its range, if `y_pred` has another number of classes,
            or if `y_true` has another shape.

    Example: the right class has one brother. It costs more to take a stranger for it.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.TreeCrossEntropy(levels=[[0, 0, 1, 1]], decay=-0.5)
    >>> brother, stranger = [[0.25, 0.75, 0.0, 0.0]], [[0.25, 0.0, 0.0, 0.75]]
    >>> round(float(loss(np.array([0]), np.array(brother))), 4)  # log(4)
    1.3863
    >>> round(float(loss(np.array([0]), np.array(stranger))), 4)  # exp(0.5) log(4)
    2.2856

    Limits: with `decay = 0` it is cross-entropy whatever the tree. Bertinetto et al. 2020, arXiv
    1912.09393 (hierarchical cross-entropy). The formula there counts levels from the leaves, as
    here; the authors' program counts them from the root, so its `alpha` is `-decay` here, but for a
    factor, and makes better mistakes.
    """

    same_shape = False
    target_kind = "ids"
    prediction_kind = "probabilities"
    takes_ids = True
    neutral_target = 0.0

    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        decay: float = 0.5,
        *,
        from_logits: bool = False,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        self._groups = _groups_of(levels)
        check_number("TreeCrossEntropy", "decay", decay, minimum=-10)
        check_flag("TreeCrossEntropy", "from_logits", from_logits)
        self.levels = levels
        self.decay = decay
        self.from_logits = from_logits

    @property
    def traits(self) -> Traits:
        return super().traits._replace(softmax=self.from_logits)

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        shape, classes = tuple(y_pred.shape), self._groups.shape[1]
        if shape[-1:] not in ((classes,), (None,)):
            raise ValueError(
                f"The argument `levels` of TreeCrossEntropy has the groups of {classes} classes, so"
                f" y_pred must have as many. Received: y_pred of shape {shape}"
            )
        y_true = label_column("TreeCrossEntropy", y_true, y_pred)
        y_pred, steepest = cast_prediction(self, y_pred)
        labels, known = known_labels(y_true, classes)
        if self.from_logits:
            choices = self._by_logits(labels, y_pred)
        else:
            choices = self._by_probabilities(labels, y_pred, steepest)
        values = sum(math.exp(-self.decay * level) * each for level, each in enumerate(choices))
        return ops.squeeze(ops.where(known, values, float("nan")), axis=-1)

    def _groups_with(self, labels: Tensor) -> list[Tensor]:
        """Which classes are in the group of the label at each level, `(..., C)` each."""
        all_ids = map(ops.convert_to_tensor, self._groups)
        return [ops.equal(ops.take(ids, labels), ids) for ids in all_ids]

    def _by_logits(self, labels: Tensor, logits: Tensor) -> list[Tensor]:
        """The cross-entropy of each choice on the path, `(..., 1)`, the finest first."""
        inside = ops.equal(labels, ops.arange(self._groups.shape[1], dtype="int32"))
        below, choices = ops.take_along_axis(logits, labels, axis=-1), []
        for group in [*self._groups_with(labels), None]:
            # With S the logsumexp of the part below, and R that of the rest of the group,
            # log q_(l+1) - log q_l = log(exp(S) + exp(R)) - S = softplus(R - S): nothing cancels.
            rest = ops.logical_not(inside) if group is None else ops.not_equal(group, inside)
            beside = logsumexp(logits, rest, keepdims=True)
            choices.append(ops.softplus(beside - below))
            # log(exp(S) + exp(R)) = S + softplus(R - S); where S is minus infinity, it is R.
            below = ops.where(ops.isinf(below), beside, below + choices[-1])
            inside = group
        return choices

    def _by_probabilities(self, labels: Tensor, p: Tensor, steepest: float | None) -> list[Tensor]:
        """The same, from probabilities."""
        p = as_probability(p, 1.0)
        sums = [ops.take_along_axis(p, labels, axis=-1)]
        for group in self._groups_with(labels):
            total = ops.sum(ops.where(group, p, 0.0), axis=-1, keepdims=True)
            sums.append(as_probability(total, 1.0))  # rounded, it may be above 1
        path = [slog(each, steepest) for each in sums]
        return [above - below for below, above in zip(path, [*path[1:], 0.0], strict=True)]


def _groups_of(levels: object) -> NDArray[np.int32]:
    """The groups of the classes at each level, `(levels, C)`, numbered from 0."""
    array = as_array(levels)
    is_list = isinstance(levels, (list, tuple, np.ndarray))
    if not is_list or array.ndim != 2 or not array.size or array.dtype.kind not in "iu":
        raise ValueError(
            "The argument `levels` of TreeCrossEntropy must be lists of one group id, a whole "
            f"number, for each class, all of one length. Received: {levels!r}"
        )
    numbered = np.stack([np.unique(row, return_inverse=True)[1] for row in array])
    for finer, coarser in itertools.pairwise(numbered):
        if len({*zip(finer, coarser, strict=True)}) != finer.max() + 1:
            raise ValueError(
                "The argument `levels` of TreeCrossEntropy must be coarser from list to list: "
                "classes that share a group share all groups after it. "
                f"Received: {levels!r}"
            )
    return numbered.astype("int32")
