"""Losses of distributions train: two hidden layers, from scratch, on data made on the spot.

Each row has a score that is not the loss, which new data judge, and which the plain loss misses.
"""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from scipy import stats

import combined_losses as cl
from tests.losses.training import make, predicted, rows, train

# What the plain loss fits with one or two outputs, and the distribution with two or more.
OUTLIERS = {"LaplaceNLL": {}, "StudentTNLL": {}}
AMOUNTS = {"LogNormalNLL": {}}
COUNTS = {"NegativeBinomialNLL": {}}
ANSWERS = {"MixtureNLL": {"components": 4}}
TABLES = (OUTLIERS, AMOUNTS, COUNTS, ANSWERS)


def network(inputs, outputs, activation=None):
    return cl.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(24, activation="tanh"),
            layers.Dense(24, activation="tanh"),
            layers.Dense(outputs, activation=activation),
        ]
    )


def fitted(loss, data, outputs, activation=None, epochs=40):
    """The predictions for new inputs of a network that was trained on the first two of `data`."""
    x, y, unseen = data[:3]
    model = network(x.shape[1], outputs, activation)
    train(model, loss, x, y, epochs)
    return predicted(model, unseen)


def column(numbers):
    return np.asarray(numbers, "float32")[:, None]


# Outliers.


@functools.cache
def contaminated():
    """A sine, of which every fifth target is far too high: x, y, new x and the sine there."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, 400)
    y = np.sin(x) + 0.1 * rng.normal(size=400)
    y[::5] += rng.uniform(3, 6, 80)
    unseen = np.linspace(-3, 3, 200)
    return column(x), column(y), column(unseen), np.sin(unseen)


@rows(OUTLIERS)
def test_outliers_do_not_move_the_centre(key):
    truth = contaminated()[3]
    robust = fitted(make(key, OUTLIERS[key]), contaminated(), 2)[:, 0]
    plain = fitted(cl.losses.GaussianNLL(), contaminated(), 2)[:, 0]
    assert np.mean(np.abs(robust - truth)) < 0.2
    assert np.mean(np.abs(plain - truth)) > 0.5


# Amounts.


def amounts(seed):
    """Their median and their spread grow with x, by powers of ten."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, 600)
    return column(x), column(np.exp(2 * x + (0.7 + 0.4 * x) * rng.normal(size=600)))


@functools.cache
def all_amounts():
    (x, y), (unseen, truth) = amounts(0), amounts(1)
    return x, y, unseen, truth[:, 0]


def worst_coverage(inside, x):
    """How far the share inside an interval of 80 % is from that, in the worst third of x."""
    thirds = np.array_split(np.argsort(x[:, 0]), 3)
    return max(abs(np.mean(inside[third]) - 0.8) for third in thirds)


@rows(AMOUNTS)
def test_intervals_of_amounts_hold_what_they_say(key):
    _, _, unseen, truth = all_amounts()
    width = stats.norm.ppf(0.9)
    m, s = fitted(make(key, AMOUNTS[key]), all_amounts(), 2).T
    low, high = (np.exp(m + sign * width * np.exp(s / 2)) for sign in (-1, 1))
    assert worst_coverage((low < truth) & (truth < high), unseen) < 0.08
    assert np.all(low > 0)
    m, s = fitted(cl.losses.GaussianNLL(), all_amounts(), 2).T
    low, high = (m + sign * width * np.exp(s / 2) for sign in (-1, 1))
    assert worst_coverage((low < truth) & (truth < high), unseen) > 0.1
    assert np.mean(low < 0) > 0.5


# Counts.


def counts(seed):
    """Of size 1.5, and a mean that goes up and down."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, 600)
    mean = np.exp(1.5 + np.sin(2 * x))
    return column(x), column(rng.negative_binomial(1.5, 1.5 / (1.5 + mean)))


@functools.cache
def all_counts():
    (x, y), (unseen, truth) = counts(0), counts(1)
    return x, y, unseen, truth[:, 0]


@rows(COUNTS)
def test_intervals_of_counts_are_wide_enough(key):
    """Of 90 %. The log-likelihood of new counts is that of scipy too."""
    truth = all_counts()[3]
    m, a = np.float64(fitted(make(key, COUNTS[key]), all_counts(), 2)).T
    law = stats.nbinom(np.exp(a), 1 / (1 + np.exp(m - a)))
    assert 0.86 < np.mean(truth <= law.ppf(0.95)) - np.mean(truth < law.ppf(0.05)) < 0.98
    mean = np.float64(fitted("poisson", all_counts(), 1, activation="exponential"))[:, 0]
    plain = stats.poisson(mean)
    assert np.mean(truth <= plain.ppf(0.95)) - np.mean(truth < plain.ppf(0.05)) < 0.7
    assert law.logpmf(truth).mean() > plain.logpmf(truth).mean() + 1


# Several answers.


def forward(x):
    return x + 0.3 * np.sin(2 * np.pi * x)


@functools.cache
def inverse_problem():
    """Which x gives y = x + 0.3 sin(2 pi x)? In the middle there are three."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 800)
    y = forward(x) + 0.01 * rng.normal(size=800)
    return column(y), column(x), column(np.linspace(0.1, 0.9, 200))


def share_right(answers, y):
    """The share of answers that the forward equation leads back to y."""
    return np.mean(np.abs(forward(answers) - y) < 0.1)


@rows(ANSWERS)
def test_answers_of_an_inverse_problem_solve_it(key):
    """Samples of the mixture do; those of one Gaussian, or the mean, mostly do not."""
    rng, y = np.random.default_rng(1), inverse_problem()[2]
    k = ANSWERS[key]["components"]
    loss = make(key, ANSWERS[key])
    found = np.float64(fitted(loss, inverse_problem(), 3 * k, epochs=80))
    logits, means, s = np.split(found, 3, axis=1)
    chosen = np.argmax(logits[:, None] + rng.gumbel(size=(200, 50, k)), axis=2)
    samples = np.take_along_axis(means, chosen, 1) + rng.normal(size=(200, 50)) * np.exp(
        np.take_along_axis(s, chosen, 1) / 2
    )
    assert share_right(samples, y) > 0.8
    m, s = np.float64(fitted(cl.losses.GaussianNLL(), inverse_problem(), 2, epochs=80)).T[..., None]
    assert share_right(m + np.exp(s / 2) * rng.normal(size=(200, 50)), y) < 0.6
    assert share_right(np.float64(fitted("mse", inverse_problem(), 1, epochs=80)), y) < 0.75


@pytest.mark.backend_free
def test_there_are_several_answers():
    x = np.linspace(0, 1, 2001)
    near = np.abs(forward(x) - 0.5) < 1e-3
    assert np.ptp(x[near]) > 0.5
