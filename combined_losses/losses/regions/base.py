"""The base of the region losses: activation, void pixels and weights of pixels."""

from keras import ops

from combined_losses._core.checks import check_flag, check_number, is_nan
from combined_losses._core.data_format import channels_last
from combined_losses._core.domains import is_void
from combined_losses._core.loss import ChannelLoss
from combined_losses._core.probabilities import as_probability
from combined_losses._numerics.floats import softmax


class Region(ChannelLoss):
    """A loss that compares masks or class maps, one value for each sample (abstract).

    A subclass implements `measure(y_true, y_pred, weight)`: truth and probabilities of shape
    `(batch, spatial..., channels)`, and None or the weights of their entries, of that shape. Where
    a weight is 0 the truth is 0 too.

    Args:
        ignore_value: None (default), or a number: entries of `y_true` that equal it do not count;
            `nan`: those that are NaN.
        data_format, reduction, name, dtype: as in `ChannelLoss`.
    """

    has_channels = True
    target_kind = "shares"
    neutral_target = 1.0  # `call` leaves out what has weight 0

    def __init__(self, ignore_value=None, **kwargs):
        super().__init__(**kwargs)
        if ignore_value is not None and not is_nan(ignore_value):
            check_number(type(self).__name__, "ignore_value", ignore_value)
        self.ignore_value = ignore_value

    def activation(self, y_true, y_pred):
        """The predictions as `measure` wants them."""
        return y_pred

    @channels_last
    def call(self, y_true, y_pred, sample_weight=None):
        if len(y_pred.shape) < 3:
            raise ValueError(
                f"{type(self).__name__} compares arrays (batch, spatial..., channels), of rank 3 "
                "or more: give single masks an axis for their one channel, and flat ones a "
                "spatial axis. "
                f"Received: y_true of shape {tuple(y_true.shape)} and y_pred of shape "
                f"{tuple(y_pred.shape)}"
            )
        weight = sample_weight
        if self.ignore_value is not None:
            void = is_void(y_true, [self.ignore_value])
            counts = ops.cast(ops.logical_not(void), y_pred.dtype)
            weight = counts if weight is None else weight * counts
        if weight is not None:
            y_true = ops.where(weight > 0, y_true, 0.0)
            # Not all of them: a softmax over the channels may need one that does not count.
            y_pred = ops.where(ops.logical_or(weight > 0, ops.isfinite(y_pred)), y_pred, 0.0)
        return self.measure(y_true, self.activation(y_true, y_pred), weight)

    def measure(self, y_true, y_pred, weight):
        raise NotImplementedError(f"{type(self).__name__} must implement `measure`.")


class LogitsMasks(ChannelLoss):
    """A loss of masks whose predictions may be logits (abstract).

    Args:
        from_logits, multilabel: as in `LogitsRegion`.
        data_format, reduction, name, dtype: as in `ChannelLoss`.
    """

    prediction_kind: str | None = "probabilities"

    def __init__(self, from_logits=False, *, multilabel=False, **kwargs):
        super().__init__(**kwargs)
        check_flag(type(self).__name__, "from_logits", from_logits)
        check_flag(type(self).__name__, "multilabel", multilabel)
        self.from_logits = from_logits
        self.multilabel = multilabel

    @property
    def traits(self):
        softmax = self.from_logits and not self.multilabel
        return super().traits._replace(apart=self.multilabel, softmax=softmax)


class LogitsRegion(LogitsMasks, Region):
    """A region loss of probabilities, which logits can be made into (abstract).

    Args:
        from_logits: whether `y_pred` holds logits. Default False: probabilities, and what is
            outside [0, 1] counts as 0 or 1. Logits go through a sigmoid where there is one channel
            or with `multilabel`, through a softmax over the channels otherwise.
        multilabel: whether the channels are independent of each other, as overlapping masks are.
            Weights and missing labels are then those of single entries. Default False.
        ignore_value, data_format, reduction, name, dtype: as in `Region`.
    """

    def __init__(self, from_logits=False, ignore_value=None, *, multilabel=False, **kwargs):
        super().__init__(from_logits, multilabel=multilabel, ignore_value=ignore_value, **kwargs)

    def activation(self, y_true, y_pred):
        if self.from_logits:
            return probabilities(y_pred, self.multilabel)
        return as_probability(y_pred, y_true)


def probabilities(logits, multilabel=False):
    """A sigmoid of one channel, or of each with `multilabel`; a softmax over several."""
    return ops.sigmoid(logits) if multilabel or logits.shape[-1] == 1 else softmax(logits)


def spatial_axes(array):
    """All axes but the first and the last."""
    return tuple(range(1, len(array.shape) - 1))


def rows(array):
    """`(batch, spatial..., channels)` as `(batch, channels, pixels)`; None as None.

    Sums over the last axis of rows are what every framework is fastest at: XLA takes up to ten
    times as long over those that leave a short last axis.
    """
    if array is None:
        return None
    shape = ops.shape(array)
    return ops.moveaxis(ops.reshape(array, (shape[0], -1, shape[-1])), -1, 1)
