"""Figures: each component's curve, its share of the loss, several runs compared, conflicts.

The figures can be read in print and by the colour-blind: the colours are those of Okabe and Ito
(2008), and components also differ by a marker or a hatching. They need matplotlib
(`pip install "combined_losses[reports]"`), which is imported by the first figure.
"""

from combined_losses.plots.curves import components, shares
from combined_losses.plots.diagnosis import conflicts
from combined_losses.plots.runs import pareto

__all__ = ["components", "conflicts", "pareto", "shares"]


def __dir__() -> list[str]:
    return __all__
