"""Weightings: rules that give the weights of the components of a composite."""

from combined_losses.weightings import directions, fixed, learned, norms, projections, values
from combined_losses.weightings.base import GramianWeighting, Weighting
from combined_losses.weightings.directions import *  # noqa: F403
from combined_losses.weightings.fixed import *  # noqa: F403
from combined_losses.weightings.learned import *  # noqa: F403
from combined_losses.weightings.norms import *  # noqa: F403
from combined_losses.weightings.projections import *  # noqa: F403
from combined_losses.weightings.values import *  # noqa: F403

__all__ = [
    "GramianWeighting",
    "Weighting",
    *directions.__all__,
    *fixed.__all__,
    *learned.__all__,
    *norms.__all__,
    *projections.__all__,
    *values.__all__,
]
