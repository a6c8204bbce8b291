"""Data sets of points for terms that have sizes of their own: an equation, a start, a boundary."""

from combined_losses.points.box import Box
from combined_losses.points.sets import PointSets

__all__ = ["Box", "PointSets"]


def __dir__() -> list[str]:
    return __all__
