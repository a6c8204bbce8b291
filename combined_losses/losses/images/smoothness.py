"""Images without a target: how smooth they are."""

import keras

from combined_losses._core.data_format import channels_last
from combined_losses._core.loss import ChannelLoss
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.edges import edges, mean_edge

__all__ = ["TotalVariation"]


@keras.saving.register_keras_serializable("combined_losses")
class TotalVariation(ChannelLoss):
    """How rough a field is: the mean absolute difference of neighbours, summed over the axes.

    The sum over the spatial axes of `mean |p[i + 1] - p[i]|` along that axis. It reads no target:
    `y_true` is ignored, and may be None. Add it, with a small weight, where predictions shall be
    smooth but may have edges: a step costs no more than a ramp of the same height.

    Args:
        data_format: where the channels are: `"channels_last"`, or `"channels_first"` for arrays
            `(batch, channels, spatial...)`. None (default): as Keras's setting says, but only for
            predictions of rank 4 or more. Ids and weights of pixels have no channel axis.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` `(batch, spatial..., channels)` of one to three spatial axes: signals, images
    or volumes; `y_true` any. Values `(batch,)`, of at least 0, in units of the field per pixel,
    whatever the size of the image. An axis of length 1 contributes 0.

    Raises:
        ValueError: if `y_pred` has another number of axes.

    Example: a step of height 1 between two of four columns.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> step = np.tile([0.0, 0.0, 1.0, 1.0], (3, 1)).reshape(1, 3, 4, 1)
    >>> round(float(cl.losses.TotalVariation()(None, step)), 4)
    0.3333

    Limits: `tf.image.total_variation` and torchmetrics take sums instead of means, so the right
    weight there depends on the size of the image. The gradient is 0 inside every flat area.

    Rudin, Osher & Fatemi 1992 (Physica D 60); this is the anisotropic form.
    """

    same_shape = False
    has_channels = True
    needs_target = False

    @channels_last
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        rank = len(y_pred.shape)
        if not 3 <= rank <= 5:
            raise ValueError(
                "TotalVariation needs fields (batch, spatial..., channels) with one to three "
                "spatial axes: give fields of one channel an axis for it. "
                f"Received: y_pred of shape {tuple(y_pred.shape)}"
            )
        return sum(mean_edge(edges(y_pred, axis)) for axis in range(1, rank - 1))
