"""Images: what an eye compares, and what is smooth. Values of shape `(batch,)`.

`structure.py` compares neighbourhoods, `noise.py` single pixels, and `smoothness.py` looks at the
prediction alone; `blur.py` holds the window of the first.
"""

from combined_losses.losses.images.noise import PeakSignalToNoise
from combined_losses.losses.images.smoothness import TotalVariation
from combined_losses.losses.images.structure import SSIM, MultiScaleSSIM

__all__ = ["SSIM", "MultiScaleSSIM", "PeakSignalToNoise", "TotalVariation"]
