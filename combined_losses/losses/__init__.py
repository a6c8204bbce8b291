"""Domain losses: `y_true, y_pred` in, one value for each sample (or element) out."""

from combined_losses.losses import boundaries, regression
from combined_losses.losses.base import Loss
from combined_losses.losses.boundaries import *  # noqa: F403
from combined_losses.losses.regression import *  # noqa: F403

__all__ = ["Loss", *regression.__all__, *boundaries.__all__]
