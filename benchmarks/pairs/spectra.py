"""Signals, beside auraloss. Eight signals of a second and a half at 16 kHz."""

import auraloss
import numpy as np
import torch

import combined_losses as cl
from pairs import Pair


def signals(rng):
    """Decaying tones, and the same in noise, `(8, 24000)`."""
    time = np.arange(24000) / 16000
    pitch = rng.uniform(100, 4000, (8, 3, 1))
    y_true = np.sum(np.sin(2 * np.pi * pitch * time) * np.exp(-2 * time), axis=1)
    noise = 0.05 * rng.normal(size=y_true.shape)
    return y_true.astype("float32"), (0.8 * y_true + noise).astype("float32")


def _pair(ours, theirs):
    def make():
        loss = theirs()
        return lambda y_true, y_pred: loss(y_pred[:, None], y_true[:, None])

    return Pair(signals, ours, make)


def mel():
    """auraloss asks librosa for the bands: it is given ours."""
    loss = auraloss.freq.STFTLoss()
    loss.scale = "mel"
    loss.fb = torch.tensor(cl.losses.MelSTFT()._filters, dtype=torch.float32)[None]
    return loss


PAIRS = {
    "STFT": _pair(cl.losses.STFT, auraloss.freq.STFTLoss),
    "MultiResolutionSTFT": _pair(
        cl.losses.MultiResolutionSTFT, auraloss.freq.MultiResolutionSTFTLoss
    ),
    "MelSTFT": _pair(cl.losses.MelSTFT, mel),
    "SISDR": _pair(cl.losses.SISDR, auraloss.time.SISDRLoss),
    "SNR": _pair(cl.losses.SNR, auraloss.time.SNRLoss),
    "ErrorToSignal": _pair(cl.losses.ErrorToSignal, auraloss.time.ESRLoss),
}
