"""Callbacks for models that train on composites."""

from combined_losses.callbacks.schedules import LossWeightScheduler

__all__ = ["LossWeightScheduler"]
