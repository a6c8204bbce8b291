"""Images, volumes and displacements: how alike they are, and how smooth. Values `(batch,)`.

`structure.py` compares neighbourhoods, `correlation.py` those of two instruments, both in the
windows of `windows.py`, which `blur.py` computes; `information.py` compares what two instruments
see as a whole, `frequency.py` waves, `noise.py` single pixels, `perceptual.py` what a trained
network sees. `smoothness.py` reads the prediction only.
"""

from combined_losses.losses.images.correlation import LocalCrossCorrelation
from combined_losses.losses.images.frequency import FocalFrequency
from combined_losses.losses.images.information import MutualInformation
from combined_losses.losses.images.noise import PeakSignalToNoise
from combined_losses.losses.images.perceptual import Perceptual
from combined_losses.losses.images.smoothness import BendingEnergy, Diffusion, TotalVariation
from combined_losses.losses.images.structure import SSIM, MultiScaleSSIM

__all__ = [
    "SSIM",
    "BendingEnergy",
    "Diffusion",
    "FocalFrequency",
    "LocalCrossCorrelation",
    "MultiScaleSSIM",
    "MutualInformation",
    "PeakSignalToNoise",
    "Perceptual",
    "TotalVariation",
]
