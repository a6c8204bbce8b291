"""Regions: masks and class maps, `(batch, spatial..., channels)`. Values of shape `(batch,)`.

`overlap.py` and `correlation.py` count pixels, `lovasz.py` sorts them, `centerline.py` thins them.
"""

from combined_losses.losses.regions.centerline import CenterlineDice
from combined_losses.losses.regions.correlation import MatthewsCorrelation
from combined_losses.losses.regions.lovasz import LovaszHinge, LovaszSoftmax
from combined_losses.losses.regions.overlap import (
    Dice,
    FocalTversky,
    GeneralizedDice,
    Jaccard,
    Tversky,
)

__all__ = [
    "CenterlineDice",
    "Dice",
    "FocalTversky",
    "GeneralizedDice",
    "Jaccard",
    "LovaszHinge",
    "LovaszSoftmax",
    "MatthewsCorrelation",
    "Tversky",
]
