"""Joins losses into one: `CompositeLoss`, its weights, and the gradients that its rules read."""

from combined_losses.composite.loss import CompositeLoss
from combined_losses.composite.operators import as_loss  # losses add up from here on

__all__ = ["CompositeLoss", "as_loss"]
