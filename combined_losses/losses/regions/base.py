"""The base of the region losses: activation, void pixels and weights of pixels."""

import math
from typing import Unpack

from keras import ops

from combined_losses._backend import backend
from combined_losses._core.checks import check_flag
from combined_losses._core.data_format import channels_last
from combined_losses._core.keras_types import ChannelArguments
from combined_losses._core.loss import ChannelLoss
from combined_losses._core.over import Over, check_over
from combined_losses._core.probabilities import as_probability
from combined_losses._core.traits import Traits
from combined_losses._core.void import check_ignore_value, weight_of_counted
from combined_losses._numerics.arrays import Once, Tensor
from combined_losses._numerics.floats import log_softmax, softmax


class MultilabelArguments(ChannelArguments, total=False):
    """What a loss of masks takes beside its own arguments, if it names `from_logits` itself."""

    multilabel: bool


class OverArguments(ChannelArguments, total=False):
    """What every loss of regions takes."""

    over: Over


class MaskArguments(MultilabelArguments, OverArguments, total=False):
    """What a loss of regions takes beside its own arguments, if it names `from_logits` itself."""


class RegionArguments(MaskArguments, total=False):
    """What a loss of regions takes beside its own arguments."""

    from_logits: bool
    ignore_value: float | None


class Region(ChannelLoss):
    """A loss that compares masks or class maps, one value for each sample (abstract).

    A subclass implements `measure(y_true, y_pred, weight)`. It is given the truth and the
    probabilities, `(batch, spatial..., channels)`, and the weights of their entries, of the same
    shape, or None. Where a weight is 0 the truth is 0 too. It returns `(batch,)`, or `(1,)` with
    `over="batch"`.

    Args:
        ignore_value: None (default), or the number in `y_true` that marks entries which do not
            count, also `nan`.
        over: `"sample"` (default): a value for each sample; `"batch"`: one for all samples of all
            replicas, which every sample is given. The weights of samples then act inside too.
        data_format, reduction, name, dtype: as in `ChannelLoss`.
    """

    has_channels = True
    target_kind: str | None = "shares"
    neutral_target: float | None = 1.0  # any will do: `call` leaves out what has weight 0

    def __init__(
        self,
        ignore_value: float | None = None,
        *,
        over: Over = "sample",
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        check_over(type(self).__name__, over)
        check_ignore_value(type(self).__name__, ignore_value)
        self.ignore_value = ignore_value
        self.over = over

    @property
    def traits(self) -> Traits:
        whole = self.over == "batch"
        return super().traits._replace(couples_batch=whole, weighs_batch=whole)

    def activation(self, y_true: Tensor, y_pred: Tensor, once: Once | None) -> Tensor:
        """The predictions that `measure` is given."""
        return y_pred

    @channels_last
    def call(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        sample_weight: Tensor | None = None,
        once: Once | None = None,
    ) -> Tensor:
        if len(y_pred.shape) < 3:
            raise ValueError(
                f"{type(self).__name__} compares arrays (batch, spatial..., channels), of rank 3 "
                "or more: give single masks an axis for their one channel, and flat ones a "
                "spatial axis. "
                f"Received: y_true of shape {tuple(y_true.shape)} and y_pred of shape "
                f"{tuple(y_pred.shape)}"
            )
        weight = weight_of_counted(self.ignore_value, y_true, sample_weight, y_pred.dtype)
        if weight is not None:
            y_true = ops.where(weight > 0, y_true, 0.0)
            # Finite predictions stay even where the weight is 0: the softmax reads all channels.
            y_pred = ops.where(ops.logical_or(weight > 0, ops.isfinite(y_pred)), y_pred, 0.0)
        y_pred = self.activation(y_true, y_pred, once)
        values = self.measure(backend.ordered_as(y_pred, y_true, once), y_pred, weight)
        if self.over == "batch":
            return ops.broadcast_to(values, (ops.shape(y_pred)[0],))
        return values

    def measure(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement `measure`.")


class LogitsMasks(ChannelLoss):
    """A loss of masks whose predictions may be logits (abstract).

    Args:
        from_logits, multilabel: as in `LogitsRegion`.
        data_format, reduction, name, dtype: as in `ChannelLoss`.
    """

    prediction_kind: str | None = "probabilities"

    def __init__(
        self,
        from_logits: bool = False,
        *,
        multilabel: bool = False,
        **kwargs: Unpack[ChannelArguments],
    ) -> None:
        super().__init__(**kwargs)
        self._set_logits(from_logits, multilabel)

    def _set_logits(self, from_logits: bool, multilabel: bool) -> None:
        """Checks and stores the arguments that say what the predictions hold."""
        check_flag(type(self).__name__, "from_logits", from_logits)
        check_flag(type(self).__name__, "multilabel", multilabel)
        self.from_logits = from_logits
        self.multilabel = multilabel

    @property
    def traits(self) -> Traits:
        softmax = self.from_logits and not self.multilabel
        return super().traits._replace(apart=self.multilabel, softmax=softmax)


class LogitsRegion(LogitsMasks, Region):
    """A region loss of probabilities, given as they are or as logits (abstract).

    Args:
        from_logits: whether `y_pred` holds logits. Default False: probabilities; below 0 they count
            as 0, above 1 as 1. Logits of one channel, or with `multilabel`, go through a sigmoid;
            others go through a softmax over the channels.
        multilabel: whether the channels are independent of each other, as overlapping masks are.
            Weights and missing labels are then those of single entries. Default False.
        ignore_value, over, data_format, reduction, name, dtype: as in `Region`.
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_value: float | None = None,
        *,
        multilabel: bool = False,
        **kwargs: Unpack[OverArguments],
    ) -> None:
        Region.__init__(self, ignore_value, **kwargs)
        self._set_logits(from_logits, multilabel)

    def activation(self, y_true: Tensor, y_pred: Tensor, once: Once | None) -> Tensor:
        if self.from_logits:
            return probabilities(y_pred, self.multilabel, once)
        return as_probability(y_pred, y_true)


def probabilities(logits: Tensor, multilabel: bool = False, once: Once | None = None) -> Tensor:
    """A sigmoid of one channel, or of each channel with `multilabel`; else a softmax over all.

    With `once` another loss needs the log-softmax of the same logits.
    """
    if multilabel or logits.shape[-1] == 1:
        return ops.sigmoid(logits)
    return softmax(logits) if once is None else ops.exp(once(log_softmax, logits))


def spatial_axes(array: Tensor) -> tuple[int, ...]:
    """All axes but the first and the last."""
    return tuple(range(1, len(array.shape) - 1))


def rows(array: Tensor) -> Tensor:
    """`(batch, spatial..., channels)` as `(batch, channels, pixels)`.

    Every framework is fastest at sums over the last axis: XLA takes up to ten times as long if a
    short last axis remains.
    """
    batch, *spatial, channels = ops.shape(array)
    # No -1: it has no value for an empty batch.
    return ops.moveaxis(ops.reshape(array, (batch, math.prod(spatial), channels)), -1, 1)
