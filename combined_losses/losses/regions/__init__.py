"""Regions: masks and class maps, `(batch, spatial..., channels)`. Values of shape `(batch,)`.

`overlap.py` counts pixels, `lovasz.py` sorts them, `centerline.py` thins them.
"""

from combined_losses.losses.regions import centerline, lovasz, overlap
from combined_losses.losses.regions.centerline import *  # noqa: F403
from combined_losses.losses.regions.lovasz import *  # noqa: F403
from combined_losses.losses.regions.overlap import *  # noqa: F403

__all__ = [*overlap.__all__, *lovasz.__all__, *centerline.__all__]
