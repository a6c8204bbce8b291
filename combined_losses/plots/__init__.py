"""Figures: each component's curve, its share of the loss, several runs compared, conflicts.

Readable in print and for the colour-blind: the colours are those of Okabe and Ito (2008), and a
marker or a hatching tells the components apart without colour. Needs matplotlib
(`pip install "combined_losses[reports]"`), which is imported by the first figure.
"""

from combined_losses.plots.curves import components, shares
from combined_losses.plots.diagnosis import conflicts
from combined_losses.plots.runs import pareto

__all__ = ["components", "conflicts", "pareto", "shares"]


def __dir__() -> list[str]:
    return __all__
