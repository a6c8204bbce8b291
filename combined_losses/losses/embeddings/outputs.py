"""Losses of two outputs of a model: which of both stands where, and which samples count."""

import keras
from keras import ops

from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_equal_shapes
from combined_losses._numerics.arrays import Tensor
from combined_losses.wrappers.base import Wrapper


def of_two_outputs(loss: Wrapper, batch: Batch, label: str) -> Batch:
    """The batch with one output as target and the other one as prediction.

    `OnOutput(loss, ("one", "other"))` gives two predictions. A batch of one prediction has its
    counterpart in `y_true`.
    """
    y_true, y_pred = batch.y_true, batch.y_pred
    nested = keras.tree.is_nested(y_pred)
    if nested and len(y_pred) == 2:
        y_true, y_pred = y_pred
    elif nested or y_true is None:
        received = f"{len(y_pred)} outputs" if nested else "one output and y_true=None"
        raise ValueError(
            f"Component '{label}' compares two outputs: name them, as in cl.wrappers.OnOutput("
            f"{type(loss).__name__}(), ('one', 'other')), or give one of both as y_true. "
            f"Received: {received}"
        )
    batch = loss.one_array(batch.replaced(y_true=y_true, y_pred=y_pred), label)
    check_equal_shapes(label, batch.y_true, batch.y_pred)
    shape = tuple(batch.y_pred.shape)
    if len(shape) != 2:
        raise ValueError(
            f"Component '{label}' compares embeddings, two outputs of shape (batch, features): end "
            "both branches of the model with a Dense layer, or with keras.layers.Flatten(). "
            f"Received: outputs of shape {shape}"
        )
    return batch


def counts_of(weight: Tensor | None) -> Tensor | None:
    """Which samples count; None if all do."""
    return None if weight is None else ops.not_equal(weight, 0)
