"""Images: how similar they look, and how smooth they are. Values of shape `(batch,)`.

`structure.py` compares neighbourhoods, with the window of `blur.py`; `noise.py` compares single
pixels; `perceptual.py` compares what a trained network sees; `smoothness.py` reads the prediction
only.
"""

from combined_losses.losses.images.noise import PeakSignalToNoise
from combined_losses.losses.images.perceptual import Perceptual
from combined_losses.losses.images.smoothness import TotalVariation
from combined_losses.losses.images.structure import SSIM, MultiScaleSSIM

__all__ = ["SSIM", "MultiScaleSSIM", "PeakSignalToNoise", "Perceptual", "TotalVariation"]
