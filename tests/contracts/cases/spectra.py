"""Cases of `combined_losses.losses.spectra`."""

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case, normal
from tests.oracles import spectra

CLICKS = ((0, 1.0), (159, 0.16), (318, 0.02), (477, 0.16), (636, 1.0))  # step and loudness
LOUD_IN_EVERY_BIN = (24, 18, 19, 34)  # seeds: the quietest bins are not as quiet as of others
NOT_AN_INTEGER = [0, -3, 2.0, *NOT_A_NUMBER]
WEIGHTS = {"convergence": 0.5, "log_magnitude": 2.0}
EMPHASIS = {"pre_emphasis": 0.4, "phase": 0.7}
NOT_EMPHASIS = {
    "pre_emphasis": [-0.1, 1.1, *NOT_A_NUMBER],
    "phase": [-0.5, *NOT_A_NUMBER],
}
NOT_WEIGHTS = [1.0, [1.0, 1.0], "log_magnitude", {"phase": 1.0}, {"convergence": -1.0}]


def clicks(*shape, seed):
    """Few, of different loudness: no bin of a spectrum is much quieter than the others."""
    signal = 0.001 * normal(*shape, seed=seed)
    for step, loudness in CLICKS:
        signal[:, step] += loudness * (1 + 0.3 * normal(shape[0], *shape[2:], seed=step))
    return signal


CASES = [
    Case(
        loss=cl.losses.STFT,
        oracle=spectra.stft,
        y_true=normal(4, 700, 2, seed=1),
        y_pred=clicks(4, 700, 2, seed=2),
        arguments={"fft_size": 1200, "hop": 200, "window": 900, "weights": WEIGHTS, **EMPHASIS},
        steep=True,
        refused={
            "fft_size": NOT_AN_INTEGER,
            "hop": NOT_AN_INTEGER,
            "window": [*NOT_AN_INTEGER, 1, 1025],
            "weights": [*NOT_WEIGHTS, {"convergence": float("nan")}, {"convergence": True}],
            **NOT_EMPHASIS,
        },
    ),
    Case(
        loss=cl.losses.MultiResolutionSTFT,
        oracle=spectra.multi_resolution_stft,
        y_true=normal(4, 1100, seed=3),
        y_pred=np.concatenate([normal(1, 1100, seed=seed) for seed in LOUD_IN_EVERY_BIN]),
        arguments={
            "fft_sizes": [1100, 2000, 1100],
            "hops": [200, 100, 300],
            "windows": [500, 1300, 400],
            "weights": WEIGHTS,
            **EMPHASIS,
        },
        steep=True,
        refused={
            "fft_sizes": [[], 1024, "abc", None],
            "hops": [[], 120, [120, 240], "abc", None],
            "windows": [[], 600, [600, 1200], "abc", None],
            "weights": NOT_WEIGHTS,
            **NOT_EMPHASIS,
        },
    ),
    Case(
        loss=cl.losses.MelSTFT,
        oracle=spectra.mel_stft,
        y_true=normal(4, 700, 2, seed=7),
        y_pred=clicks(4, 700, 2, seed=8),
        arguments={
            "sample_rate": 8000,
            "mels": 20,
            "fft_size": 1200,
            "hop": 200,
            "window": 900,
            "low": 50.0,
            "high": 3500.0,
            "weights": WEIGHTS,
        },
        steep=True,
        refused={
            "sample_rate": [0, -1, *NOT_A_NUMBER],
            "mels": NOT_AN_INTEGER,
            "fft_size": NOT_AN_INTEGER,
            "hop": NOT_AN_INTEGER,
            "window": [*NOT_AN_INTEGER, 1, 1025],
            "low": [-1.0, 8000, *NOT_A_NUMBER],
            "high": [0, 8001, float("nan"), True, "1"],
            "weights": NOT_WEIGHTS,
        },
    ),
    Case(
        loss=cl.losses.SISDR,
        oracle=spectra.sisdr,
        y_true=normal(4, 50, 2, seed=5),
        y_pred=1 + normal(4, 50, 2, seed=6),
        arguments={"zero_mean": False, "epsilon": 0.3},
        refused={"zero_mean": [0, 1, None, "yes"], "epsilon": [0, -1e-8, *NOT_A_NUMBER]},
    ),
    Case(
        loss=cl.losses.SNR,
        oracle=spectra.snr,
        y_true=normal(4, 50, 2, seed=9),
        y_pred=1 + normal(4, 50, 2, seed=10),
        arguments={"zero_mean": False, "epsilon": 0.3},
        refused={"zero_mean": [0, 1, None, "yes"], "epsilon": [0, -1e-8, *NOT_A_NUMBER]},
    ),
    Case(
        loss=cl.losses.ErrorToSignal,
        oracle=spectra.error_to_signal,
        y_true=normal(4, 50, 2, seed=11),
        y_pred=normal(4, 50, 2, seed=12),
        arguments={"pre_emphasis": 0.4, "epsilon": 0.3},
        refused={
            "pre_emphasis": [-0.1, 1.1, *NOT_A_NUMBER],
            "epsilon": [0, -1e-8, *NOT_A_NUMBER],
        },
    ),
]
