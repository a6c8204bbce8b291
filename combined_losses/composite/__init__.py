"""Joins losses into one: `CompositeLoss`, its weights, and the gradients that its rules read."""

from combined_losses.composite import operators  # losses add up from here on
from combined_losses.composite.loss import CompositeLoss, as_loss

__all__ = ["CompositeLoss", "as_loss", "operators"]
