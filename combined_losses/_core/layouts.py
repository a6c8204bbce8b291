"""Layouts: which predictions belong to which target, if each target has several predictions."""

from typing import Any

import keras
from keras import ops

from combined_losses._core.alignment import of_rank
from combined_losses._core.batch import Batch
from combined_losses._numerics.arrays import Tensor


def beside(y_true: Tensor, y_pred: Tensor, layout: str | None, label: str) -> Tensor:
    """Targets with as many axes as the predictions, as a loss with this layout takes them.

    Targets are `(..., D)` with blocks `(..., k * D)`, and `(..., 1)` with columns `(..., k)`.
    """
    if len(y_true.shape) == len(y_pred.shape) - 1:
        y_true = ops.expand_dims(y_true, -1)
    _check(label, tuple(y_true.shape), tuple(y_pred.shape), layout)
    return y_true


def tells_apart(batch: Batch, y_true: Tensor, y_pred: Tensor, layout: str | None) -> bool:
    """Whether weights or mask differ between the targets of one row of blocks.

    In columns the values have the shape of the targets already.
    """
    if layout != "blocks" or y_true is None or len(y_true.shape) != len(y_pred.shape):
        return False
    return bool(_finer(batch, y_true))


def of_targets(batch: Batch, row_rank: int) -> dict[str, Tensor]:
    """The weights and mask that differ between the targets of one row, see `Traits.row_rank`."""
    y_true, rank = batch.y_true, len(batch.y_pred.shape)
    given = y_true is not None and not keras.tree.is_nested(y_true)
    # Else each row has one target, and no axis for it.
    return _finer(batch, y_true) if given and len(y_true.shape) == rank - row_rank + 1 else {}


def _finer(batch: Batch, y_true: Tensor) -> dict[str, Tensor]:
    """The weights and mask that have one entry for each target on the last axis of `y_true`."""
    if y_true.shape[-1] == 1:
        return {}
    weights = {what: of_rank(weight, y_true) for what, weight in batch.weights()}
    rank = len(y_true.shape)
    return {what: w for what, w in weights.items() if len(w.shape) == rank and w.shape[-1] != 1}


class PredictionsApart:
    """A batch with the k predictions of each target on a last axis of their own, and the way back.

    Args:
        batch: a `Batch` of one array of targets and one of predictions, of the ranks that a loss
            with this layout takes.
        layout: "blocks" or "columns".
        label: the name of the component, for messages.

    Attributes:
        batch: the same batch with targets as they are, `(...)`, and predictions `(..., k)`.
    """

    def __init__(self, batch: Batch, layout: str, label: str) -> None:
        y_true, y_pred = batch.y_true, batch.y_pred
        given = len(y_true.shape) == len(y_pred.shape) - 1
        self.form = "given" if given else layout
        if not given:
            _check(label, tuple(y_true.shape), tuple(y_pred.shape), layout)
        if self.form == "blocks":
            _check_known(label, tuple(y_true.shape), tuple(y_pred.shape))
            y_pred = _apart(y_pred, y_true.shape[-1])
        elif self.form == "columns":
            y_pred = ops.expand_dims(y_pred, -2)
        self.batch = batch.replaced(y_pred=y_pred, own_axes=1)

    def together(self, batch: Batch) -> Batch:
        """The way back: puts the predictions of a view of `self.batch` into the loss's layout."""
        y_true, y_pred = batch.y_true, batch.y_pred
        if self.form == "columns":
            y_pred = ops.squeeze(y_pred, -2)
        elif self.form == "blocks":
            y_pred = ops.swapaxes(y_pred, -1, -2)
            size = y_pred.shape[-1] * y_pred.shape[-2]
            y_pred = ops.reshape(y_pred, (*ops.shape(y_pred)[:-2], size))
        return batch.replaced(y_true=y_true, y_pred=y_pred, own_axes=0)


def as_rows(batch: Batch) -> Batch:
    """The batch with each target as a row of its own, `(..., 1)`.

    In the batch of a `PredictionsApart` such a row has k predictions, in any other batch one.
    """
    y_true, y_pred = ops.expand_dims(batch.y_true, -1), batch.y_pred
    if not batch.own_axes:
        y_pred = ops.expand_dims(y_pred, -1)
    return batch.replaced(y_true=y_true, y_pred=y_pred, own_axes=0)


def of_single_targets(batch: Batch, layout: str, label: str) -> Batch:
    """The batch with each target as a row of its own, so that each target has its own value."""
    size = batch.y_true.shape[-1]
    return as_rows(PredictionsApart(batch, layout, label).batch).replaced(elements=size)


def _apart(y_pred: Tensor, size: int) -> Tensor:
    """Blocks of `size` numbers, `(..., k * size)`, as `(..., size, k)`."""
    blocks = ops.reshape(y_pred, (*ops.shape(y_pred)[:-1], y_pred.shape[-1] // size, size))
    return ops.swapaxes(blocks, -1, -2)


def _check_known(label: str, true: tuple[Any, ...], pred: tuple[Any, ...]) -> None:
    """Raises unless the number of targets and the number of predictions are known."""
    if true[-1] is None or pred[-1] is None:
        raise ValueError(
            f"Component '{label}' tells single targets apart and needs to know how many there are. "
            "Give the shape back in the data set: `tf.ensure_shape(y, (None, 3))` for 3 targets. "
            f"Received: y_true of shape {true} and y_pred of shape {pred}"
        )


def _check(label: str, true: tuple[Any, ...], pred: tuple[Any, ...], layout: str | None) -> None:
    """Raises unless the shapes of targets and predictions match in this layout."""
    size, width = (shape[-1] if shape else None for shape in (true, pred))
    rows = len(true) == len(pred) and all(
        a == b or a is None or b is None for a, b in zip(true[:-1], pred[:-1], strict=True)
    )
    if rows and (size in (1, None) or (layout == "blocks" and size and width and not width % size)):
        return
    shapes = (
        "(..., k * D), in k blocks of the D targets"
        if layout == "blocks"
        else "(..., D, k), or (..., k) where D is 1"
    )
    raise ValueError(
        f"Component '{label}' has k predictions for each target, and compares targets (..., D) "
        f"with predictions {shapes}; others would be broadcast, which gives a wrong number. "
        f"Received: y_true of shape {true} and y_pred of shape {pred}"
    )
