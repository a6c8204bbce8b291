"""What shows a person what a composite does."""

from combined_losses.reporting import plots

__all__ = ["plots"]
