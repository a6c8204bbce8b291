"""Callbacks for models that train on composites."""

from combined_losses.callbacks.conflicts import GradientConflict
from combined_losses.callbacks.figures import ComponentPlot
from combined_losses.callbacks.nans import TerminateOnComponentNaN
from combined_losses.callbacks.points import AdaptPoints, BackupPoints
from combined_losses.callbacks.schedules import LossWeightScheduler
from combined_losses.callbacks.tensorboard import TensorBoard

__all__ = [
    "AdaptPoints",
    "BackupPoints",
    "ComponentPlot",
    "GradientConflict",
    "LossWeightScheduler",
    "TensorBoard",
    "TerminateOnComponentNaN",
]


def __dir__() -> list[str]:
    return __all__
