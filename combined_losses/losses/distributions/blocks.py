"""Predictions in two blocks of D numbers: where the distribution lies, and how wide it is."""

from keras import ops

from combined_losses._core.checks import check_target_shape
from combined_losses._numerics.arrays import Tensor

MEANS = ("means", "log-variances")


def halves(owner: str, y_pred: Tensor, names: tuple[str, str] = MEANS) -> tuple[Tensor, Tensor]:
    """The two halves of the last axis; `names` are those of their numbers in the error."""
    shape = tuple(y_pred.shape)
    if len(shape) < 2 or shape[-1] is None or shape[-1] % 2:
        raise ValueError(
            f"{owner} needs predictions of shape (batch, ..., 2 * D), the D {names[0]} and then "
            f"the D {names[1]}: for targets of D numbers end the model with "
            "keras.layers.Dense(2 * D). "
            f"Received: y_pred of shape {shape}"
        )
    size = shape[-1] // 2
    return y_pred[..., :size], y_pred[..., size:]


def parts(
    owner: str, y_true: Tensor, y_pred: Tensor, names: tuple[str, str] = MEANS
) -> tuple[Tensor, Tensor, Tensor]:
    """The targets and the two halves of the predictions, each `(batch, ..., D)`."""
    first, second = halves(owner, y_pred, names)
    return targets_of(owner, y_true, y_pred, first.shape[-1]), first, second


def targets_of(owner: str, y_true: Tensor, y_pred: Tensor, size: int) -> Tensor:
    """The targets `(batch, ..., size)`; given as `(batch, ...)` they get a last axis of 1."""
    rows = tuple(y_pred.shape[:-1])
    allowed = [(*rows, size), rows] if size == 1 else [(*rows, size)]
    check_target_shape(owner, y_true, y_pred, *allowed)
    return ops.reshape(y_true, (*ops.shape(y_pred)[:-1], size))


def in_units(owner: str, y_pred: Tensor, scale: Tensor) -> Tensor:
    """Predictions for targets divided by `scale`: `m / scale` and `s - 2 log |scale|`."""
    mean, log_variance = halves(owner, y_pred)
    return ops.concatenate([mean / scale, log_variance - 2 * ops.log(ops.abs(scale))], axis=-1)
