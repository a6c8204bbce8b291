"""Weightings: rules that give the weights of the components of a composite."""

from combined_losses.weightings import fixed, learned, values
from combined_losses.weightings.base import Weighting
from combined_losses.weightings.fixed import *  # noqa: F403
from combined_losses.weightings.learned import *  # noqa: F403
from combined_losses.weightings.values import *  # noqa: F403

__all__ = ["Weighting", *fixed.__all__, *learned.__all__, *values.__all__]
