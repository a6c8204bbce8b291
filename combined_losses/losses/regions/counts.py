"""The counts of pixels, which the overlap losses are made of."""

from collections.abc import Sequence
from typing import Unpack

from keras import ops

from combined_losses._core.checks import check_class_weight, check_flag, check_number
from combined_losses._numerics.arrays import Tensor
from combined_losses.losses.regions.base import (
    LogitsRegion,
    MultilabelArguments,
    RegionArguments,
    rows,
)


class OverlapArguments(RegionArguments, total=False):
    """What a loss of counts takes beside its own arguments."""

    include_background: bool


class Overlap(LogitsRegion):
    """A region loss of the counts of each class, averaged over the classes (abstract).

    A subclass implements `of_counts(tp, fp, fn)`. The counts, and the values that it returns, are
    `(batch, classes)`.

    Args:
        smooth: added to the denominator, in pixels, at least 0.
        class_weight: None, or one number of at least 0 for each channel, the background included.
        include_background: whether channel 0 counts where there are several.
        from_logits, multilabel, ignore_value, data_format, reduction, name, dtype: as in
            `LogitsRegion`.
    """

    def __init__(
        self,
        smooth: float = 1.0,
        class_weight: Sequence[float] | None = None,
        *,
        include_background: bool = True,
        from_logits: bool = False,
        ignore_value: float | None = None,
        **kwargs: Unpack[MultilabelArguments],
    ) -> None:
        super().__init__(from_logits=from_logits, ignore_value=ignore_value, **kwargs)
        owner = type(self).__name__
        check_number(owner, "smooth", smooth, minimum=0)
        check_flag(owner, "include_background", include_background)
        check_class_weight(owner, class_weight, background=include_background)
        self.smooth = smooth
        self.class_weight = class_weight
        self.include_background = include_background

    def measure(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        class_weight = self._class_weight(y_pred.shape[-1])
        y_true, y_pred, weight = foreground(y_true, y_pred, weight, self.include_background)
        values = self.of_counts(*counts(y_true, y_pred, weight))
        if class_weight is None:
            return ops.mean(values, axis=-1)
        return ops.sum(values * ops.convert_to_tensor(class_weight, values.dtype), axis=-1)

    def _class_weight(self, channels: int) -> list[float] | None:
        """The weights of the classes that count, divided by their sum."""
        if self.class_weight is None:
            return None
        if len(self.class_weight) != channels:
            raise ValueError(
                f"The argument `class_weight` of {type(self).__name__} must have one number for "
                f"each of the {channels} channels of y_pred. Received: {self.class_weight!r}"
            )
        used = list(self.class_weight[0 if self.include_background or channels == 1 else 1 :])
        return [float(weight) / sum(used) for weight in used]

    def of_counts(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement `of_counts`.")


def counts(
    y_true: Tensor, y_pred: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """True positives, false positives and false negatives of each sample and class."""
    y_true, y_pred = rows(y_true), rows(y_pred)
    # p (1 - y) = p - p y, exact where y is 0 or 1. So one product serves all three counts.
    both = y_true * y_pred
    of_pixels = [both, y_pred - both, y_true - both]
    if weight is not None:
        weight = rows(weight)
        of_pixels = [each * weight for each in of_pixels]
    tp, fp, fn = (ops.sum(each, axis=-1) for each in of_pixels)
    return tp, fp, fn


def foreground(
    y_true: Tensor, y_pred: Tensor, weight: Tensor | None, include_background: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arrays without channel 0, unless it is the only channel or is to be included."""
    if include_background or y_pred.shape[-1] == 1:
        return y_true, y_pred, weight
    weight = None if weight is None else weight[..., 1:]
    return y_true[..., 1:], y_pred[..., 1:], weight
