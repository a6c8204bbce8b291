"""Rows of targets that are scored together, each target still with a weight of its own."""

from keras import ops

from combined_losses._core.loss import Loss
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Tensor
from combined_losses._numerics.floats import div


class OfRows(Loss):
    """A loss whose value depends on all D targets of a row at once (abstract).

    Its `call` takes the weights of the targets, in their shape, or None. A missing or unweighted
    target has the weight 0 there. The row counts by its share of the targets.
    """

    same_shape = False
    has_channels = True
    neutral_target: float | None = 1.0
    row_rank = 1  # how many last axes of `y_pred` belong to one row of targets

    @property
    def traits(self) -> Traits:
        return super().traits._replace(row_rank=self.row_rank, takes_weights=False)


def relative(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of targets `(..., D)` with a mean of 1 over those that count; their number `(...)`.

    So equal weights change nothing, and weights of 0 leave targets out.
    """
    number = ops.sum(ops.cast(ops.not_equal(weight, 0), weight.dtype), axis=-1)
    total = ops.sum(weight, axis=-1)
    return weight * ops.expand_dims(div(number, total), -1), number
