"""Signals: compared by their short-time spectra, or by the ratio of signal to error.

Values have shape `(batch,)`. `stft.py` compares all bins of a spectrum, `mel.py` bands of them,
each by the terms in `terms.py`; `ratios.py` compares waveforms.
"""

from combined_losses.losses.spectra.mel import MelSTFT
from combined_losses.losses.spectra.ratios import SISDR, SNR, ErrorToSignal
from combined_losses.losses.spectra.stft import STFT, MultiResolutionSTFT

__all__ = ["SISDR", "SNR", "STFT", "ErrorToSignal", "MelSTFT", "MultiResolutionSTFT"]
