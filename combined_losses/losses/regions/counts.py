"""The counts of pixels, which the overlap losses are made of."""

from collections.abc import Sequence
from typing import Any, Literal, Unpack

from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import (
    check_class_weight,
    check_flag,
    check_number,
    is_integer,
    shown,
)
from combined_losses._core.over import added_up
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div, slog
from combined_losses.losses.regions.base import LogitsRegion, RegionArguments


class CountedArguments(RegionArguments, total=False):
    """What a loss of counts takes beside its own arguments."""

    include_background: bool
    power: Literal[1, 2]
    log: bool
    classes: Sequence[int] | None


class Counted(LogitsRegion):
    """A region loss of the counts of each class (abstract).

    Args:
        include_background: whether channel 0 counts where there are several.
        power: 1, or 2 for squared errors in the false positives and negatives.
        log: whether a loss L becomes `-log(1 - L)`.
        classes: None, or the channels that count, instead of `include_background`.
        from_logits, multilabel, ignore_value, over, data_format, reduction, name, dtype: as in
            `LogitsRegion`.
    """

    def __init__(
        self,
        *,
        include_background: bool = True,
        power: Literal[1, 2] = 1,
        log: bool = False,
        classes: Sequence[int] | None = None,
        **kwargs: Unpack[RegionArguments],
    ) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        check_flag(owner, "include_background", include_background)
        if not is_integer(power) or power not in (1, 2):
            raise ValueError(
                f"The argument `power` of {owner} must be 1 or 2. Received: {shown(power)}"
            )
        check_flag(owner, "log", log)
        _check_classes(owner, classes, include_background)
        self.include_background = include_background
        self.power = power
        self.log = log
        self.classes = classes

    def counting(self, entries: Sequence[Any]) -> list[Any]:
        """Those of one entry for each channel whose channel counts, in the order of `chosen`."""
        if self.classes is not None:
            return [entries[c] for c in sorted(self.classes) if c < len(entries)]
        first = 0 if self.include_background or len(entries) == 1 else 1
        return list(entries[first:])

    def chosen(self, y_pred: Tensor, *others: Tensor | None) -> list[Tensor | None]:
        """Arrays `(..., channels)` without the channels that do not count."""
        arrays, channels = (y_pred, *others), y_pred.shape[-1]
        if self.classes is None and (self.include_background or channels == 1):
            return list(arrays)
        if self.classes is not None and max(self.classes) >= channels:
            raise ValueError(
                f"The argument `classes` of {type(self).__name__} must name channels from 0 to "
                f"{channels - 1}, as y_pred has {channels}. Received: {self.classes!r}"
            )
        runs = _runs(self.counting(range(channels)))
        return [None if array is None else _cut(array, runs) for array in arrays]

    def finished(self, loss: Tensor) -> Tensor:
        """A loss in [0, 1], or minus the logarithm of what it leaves of 1."""
        return _logarithm(loss) if self.log else loss


def _check_classes(owner: str, classes: Any, include_background: bool) -> None:
    if classes is None:
        return
    is_list = isinstance(classes, (list, tuple)) and len(classes) > 0
    channels = is_list and all(is_integer(c) and c >= 0 for c in classes)
    if not channels or len({*classes}) < len(classes):
        raise ValueError(
            f"The argument `classes` of {owner} must be None or a list of different channels, "
            f"counted from 0. Received: {classes!r}"
        )
    if not include_background:
        raise ValueError(
            f"The arguments `classes` and `include_background` of {owner} both choose channels: "
            f"leave one out. Received: classes={classes!r} and include_background=False"
        )


def _runs(channels: Sequence[int]) -> list[tuple[int, int]]:
    """Rising channels as pairs of a first one and the one after the last."""
    found: list[tuple[int, int]] = []
    for channel in channels:
        if found and found[-1][1] == channel:
            found[-1] = found[-1][0], channel + 1
        else:
            found.append((channel, channel + 1))
    return found


def _cut(array: Tensor, runs: list[tuple[int, int]]) -> Tensor:
    parts = [array[..., first:end] for first, end in runs]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


def _logarithm(loss: Tensor) -> Tensor:
    """`-slog(1 - loss)`, exact near 0 too."""
    small = loss < 0.5
    near = -ops.log1p(-ops.where(small, loss, 0.0))
    return ops.where(small, near, -slog(1 - ops.where(small, 0.5, loss)))


class OfClasses(Counted):
    """A region loss with one number for each class, averaged over the classes (abstract).

    A subclass implements `of_classes(y_true, y_pred, weight)`, which returns `(batch, classes)`, or
    `(1, classes)` with `over="batch"`.

    Args:
        smooth: a number of pixels, at least 0.
        class_weight: None, or one number of at least 0 for each channel, the background included.
        include_background, power, log, classes, from_logits, multilabel, ignore_value, over,
            data_format, reduction, name, dtype: as in `Counted`.
    """

    def __init__(
        self,
        smooth: float = 1.0,
        class_weight: Sequence[float] | None = None,
        **kwargs: Unpack[CountedArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_number(type(self).__name__, "smooth", smooth, minimum=0)
        check_class_weight(type(self).__name__, class_weight, self.counting)
        self.smooth = smooth
        self.class_weight = class_weight

    def measure(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        class_weight = self._class_weight(y_pred.shape[-1])
        y_pred, y_true, weight = self.chosen(y_pred, y_true, weight)
        values = self.finished(self.of_classes(y_true, y_pred, weight))
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
        used = self.counting(self.class_weight)
        return [float(weight) / sum(used) for weight in used]

    def of_classes(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement `of_classes`.")


class Overlap(OfClasses):
    """A region loss of how far truth and prediction of each class overlap (abstract).

    A subclass implements `of_sums(tp, of_true, of_pred)`: of the true positives, `sum p y`, and the
    sizes `sum y` and `sum p`. `FP = of_pred - tp` and `FN = of_true - tp`, also with `power=2`. The
    sums, and the values that it returns, are `(batch, classes)`.
    """

    def of_classes(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        return self.of_sums(*added_up(self.over, *sums(y_true, y_pred, weight, self.power)))

    def of_sums(self, tp: Tensor, of_true: Tensor, of_pred: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement `of_sums`.")


def sums(
    y_true: Tensor, y_pred: Tensor, weight: Tensor | None = None, power: Literal[1, 2] = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """The true positives of each sample and class, and the sizes of truth and prediction.

    With a power of 2 the sizes are `TP + FN` and `TP + FP` of the squared errors.
    """
    seen = y_true, y_pred
    if weight is not None:
        seen = y_true * weight, y_pred * weight
    tp = backend.spatial_product(seen[0], y_pred)
    if power == 1:
        of_true, of_pred = map(backend.spatial_sum, seen)
        return tp, of_true, of_pred
    other = 1 - y_true if weight is None else (1 - y_true) * weight
    missed = backend.spatial_product(seen[0], ops.square(1 - y_pred))
    alarms = backend.spatial_product(other, ops.square(y_pred))
    return tp, tp + missed, tp + alarms


def at_least_zero(wrong: Tensor) -> Tensor:
    """A difference of sums, with its slope; a value below 0 is a rounding error and becomes 0."""
    return wrong + ops.relu(-ops.stop_gradient(wrong))


def ratio(wrong: Tensor, total: Tensor, smooth: float, log: bool = False) -> Tensor:
    """`wrong / (total + smooth)`, of counts; 0 with gradient 0 where that denominator is 0.

    With `log` the gradient is exact near 1 too, where a logarithm makes it up to 1e7 times larger.
    """
    whole = total + smooth
    loss = wrong / whole if smooth > 0 else div(wrong, whole)
    if not log:
        return loss
    # The slopes by numerator and denominator cancel at 1, but for a rounding. Those of what is left
    # of 1 are exact: without true positives, for one, they are 0.
    left = whole - wrong
    left = left / whole if smooth > 0 else div(left, whole)
    return ops.where(loss < 0.5, loss, 1 - left)
