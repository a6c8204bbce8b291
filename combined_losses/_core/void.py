"""Entries that do not count: the argument `ignore_value`."""

from keras import ops

from combined_losses._core.checks import check_number, is_nan
from combined_losses._core.domains import is_void
from combined_losses._numerics.arrays import Tensor


def check_ignore_value(owner: str, ignore_value: float | None) -> None:
    if ignore_value is not None and not is_nan(ignore_value):
        check_number(owner, "ignore_value", ignore_value)


def weight_of_counted(
    ignore_value: float | None, y_true: Tensor, weight: Tensor | None, dtype: str
) -> Tensor | None:
    """The weights of entries, 0 where the target is `ignore_value`; None if all of them are 1."""
    if ignore_value is None:
        return weight
    counts = ops.cast(ops.logical_not(is_void(y_true, [ignore_value])), dtype)
    return counts if weight is None else weight * counts
