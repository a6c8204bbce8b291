"""The base of losses that report parts, such as one for each resolution of a spectrum."""

from collections.abc import Mapping, Sequence
from typing import Any

from combined_losses._core.keras_types import KerasLoss, Reduction
from combined_losses._core.names import snake_case
from combined_losses._numerics.arrays import Dtype
from combined_losses.composite.loss import CompositeLoss
from combined_losses.wrappers.base import Wrapper


class OfParts(Wrapper):
    """A loss whose parts are those of a composite inside, which sees a view of the data (abstract).

    It is a `Wrapper`, although no user gives it the loss inside: so reductions, weights, masks and
    names of parts work as they do in every wrapper.
    """

    def __init__(
        self,
        losses: Mapping[str, KerasLoss],
        weights: Mapping[str, float] | Sequence[float] | None,
        reduction: Reduction,
        name: str | None,
        dtype: Dtype,
    ) -> None:
        own = name or snake_case(type(self).__name__)
        super().__init__(CompositeLoss(losses, weights, name=own), reduction, own, dtype)
        self.name_is_given = name is not None
        self._weights_at_first = self.part_weights

    def weights_now(self, given: Any) -> Any:
        """For the config: the weights of the parts as they were given, until one has changed.

        Then those of all parts, by their paths.
        """
        return given if self.part_weights == self._weights_at_first else self.part_weights
