"""The counts of pixels, which the overlap losses are made of."""

from collections.abc import Sequence
from typing import Unpack

from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_class_weight, check_flag, check_number
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div
from combined_losses.losses.regions.base import (
    LogitsRegion,
    MultilabelArguments,
    RegionArguments,
)


class OverlapArguments(RegionArguments, total=False):
    """What a loss of counts takes beside its own arguments."""

    include_background: bool


class Overlap(LogitsRegion):
    """A region loss of the counts of each class, averaged over the classes (abstract).

    A subclass implements `of_sums(tp, of_true, of_pred)`: of the true positives, `sum p y`, and the
    sizes `sum y` and `sum p`. `FP = sum p - TP` and `FN = sum y - TP`. The sums, and the values
    that it returns, are `(batch, classes)`.

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
        values = self.of_sums(*sums(y_true, y_pred, weight))
        if class_weight is None:
            one = values.shape[-1] == 1
            return ops.squeeze(values, axis=-1) if one else ops.mean(values, axis=-1)
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

    def of_sums(self, tp: Tensor, of_true: Tensor, of_pred: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement `of_sums`.")


def sums(
    y_true: Tensor, y_pred: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The true positives of each sample and class, and the sizes of truth and prediction."""
    seen = y_true, y_pred
    if weight is not None:
        seen = y_true * weight, y_pred * weight
    tp = backend.spatial_product(seen[0], y_pred)
    of_true, of_pred = map(backend.spatial_sum, seen)
    return tp, of_true, of_pred


def at_least_zero(wrong: Tensor) -> Tensor:
    """A difference of sums, with its slope; a value below 0 is a rounding error and becomes 0."""
    return wrong + ops.relu(-ops.stop_gradient(wrong))


def ratio(wrong: Tensor, total: Tensor, smooth: float) -> Tensor:
    """`wrong / (total + smooth)`, of counts; 0 with gradient 0 where that denominator is 0."""
    return wrong / (total + smooth) if smooth > 0 else div(wrong, total)


def foreground(
    y_true: Tensor, y_pred: Tensor, weight: Tensor | None, include_background: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arrays without channel 0, unless it is the only channel or is to be included."""
    if include_background or y_pred.shape[-1] == 1:
        return y_true, y_pred, weight
    weight = None if weight is None else weight[..., 1:]
    return y_true[..., 1:], y_pred[..., 1:], weight
