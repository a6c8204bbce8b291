"""Losses of images train: two layers that take the noise from a photograph.

The score is the mean squared error to the clean photograph or the correlation with it, never the
loss itself.
"""

import keras
import numpy as np
from keras import layers

import combined_losses as cl
from tests.losses.real_data import _small
from tests.losses.training import make, rows, train

TWO = {"power_factors": (0.5, 0.5)}
# Arguments, and the share of the noise's squared error that is left at most.
ALONE = {"PeakSignalToNoise": ({}, 0.5)}
BESIDE_MSE = {"TotalVariation": (0.02, {}, 0.75)}  # with the weight
# These hardly see a shift of brightness, so that their score is the correlation of the colours.
SIMILARITIES = {"SSIM": {}, "MultiScaleSSIM": TWO}
# The share of fine stripes that is missing at most.
STRIPES = {"FocalFrequency": ({}, 0.35)}
TABLES = (ALONE, BESIDE_MSE, SIMILARITIES, STRIPES)


def noisy_and_clean():
    clean = _small("flower.jpg")[None].astype("float32")
    noise = np.random.default_rng(0).normal(size=clean.shape, scale=0.1)
    return clean + noise.astype("float32"), clean


def denoiser():
    image = keras.Input((64, 96, 3))
    hidden = layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    return cl.Model(image, image + layers.Conv2D(3, 3, padding="same")(hidden))


def check(loss, bound):
    noisy, clean = noisy_and_clean()
    before, after = train(denoiser(), loss, noisy, clean, epochs=6)
    errors = [np.mean((image - clean) ** 2) for image in (noisy, before, after)]
    assert errors[2] < bound * errors[0] < errors[1]


@rows(ALONE)
def test_it_denoises_a_photograph(key):
    arguments, bound = ALONE[key]
    check(make(key, arguments), bound)


def correlation(image, clean):
    pairs = zip(image.reshape(-1, 3).T, clean.reshape(-1, 3).T, strict=True)
    return np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs])


@rows(SIMILARITIES)
def test_it_finds_the_structure_of_a_photograph(key):
    """The noisy one has a correlation of 0.87."""
    noisy, clean = noisy_and_clean()
    before, after = train(denoiser(), make(key, SIMILARITIES[key]), noisy, clean, epochs=6)
    assert correlation(after, clean) > 0.92
    assert correlation(noisy, clean) < 0.88
    assert correlation(before, clean) < 0.8


@rows(BESIDE_MSE)
def test_it_denoises_a_photograph_beside_the_squared_error(key):
    weight, arguments, bound = BESIDE_MSE[key]
    check("mse" + weight * make(key, arguments), bound)


def missing_stripes(loss, seed=0):
    """The share of fine, faint stripes that a network leaves out of a noisy photograph."""
    _, clean = noisy_and_clean()
    clean = clean + 0.05 * np.cos(np.pi / 2 * np.arange(96, dtype="float32"))[:, None]
    noise = np.random.default_rng(seed).normal(size=clean.shape, scale=0.3)
    _, after = train(denoiser(), loss, clean + noise.astype("float32"), clean, epochs=6)
    left_out, whole = (
        np.abs(np.fft.fft2(a, axes=(1, 2))[0, 0, 24]).mean() for a in (after - clean, clean)
    )
    return left_out / whole


@rows(STRIPES)
def test_it_keeps_stripes_that_the_squared_error_blurs(key):
    """With three seeds it leaves out 0.12 to 0.25 of them, the squared error 0.61 to 0.66."""
    arguments, bound = STRIPES[key]
    assert missing_stripes(make(key, arguments)) < bound
    assert missing_stripes(cl.as_loss("mse")) > 0.5
