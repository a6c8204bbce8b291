"""What the losses of qualities claim: limits, where they are least, and slopes at extremes."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import value
from tests.contracts.cases.classification import qualities
from tests.gradients import gradient, value_and_gradient

Quality, Vari, Binary = cl.losses.QualityFocal, cl.losses.Varifocal, cl.losses.BinaryFocal
HARD = (np.random.default_rng(0).random((6, 5, 2)) < 0.3).astype("float32")
SOFT = qualities(6, 5, 2, seed=1)
LOGITS = np.random.default_rng(2).normal(0, 3, (6, 5, 2)).astype("float32")
PROBABILITIES = (1 / (1 + np.exp(-LOGITS))).astype("float32")
EXTREMES = np.float32([0, -100, 100, -15, 15, -1e4, 1e4])
of_both = pytest.mark.parametrize("from_logits", [False, True])


def close(actual, expected, rtol=1e-5, atol=1e-7):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def data(from_logits):
    return LOGITS if from_logits else PROBABILITIES


def same(loss, other, y_true, y_pred):
    for found, expected in zip(
        value_and_gradient(loss, y_true, y_pred),
        value_and_gradient(other, y_true, y_pred),
        strict=True,
    ):
        close(found, expected, atol=1e-6)


@of_both
@pytest.mark.parametrize("beta", [0, 0.5, 1, 1.5, 2.0])
def test_of_hard_labels_it_is_the_focal_loss(beta, from_logits):
    options = {"from_logits": from_logits, "reduction": "none"}
    same(Quality(beta, **options), Binary(beta, **options), HARD, data(from_logits))
    ends = (EXTREMES[:, None] if from_logits else np.float32([[0], [1], [0.5]])).repeat(2, 1)
    labels = np.tile(np.float32([0, 1]), (len(ends), 1))
    found = value(Quality(beta, **options), labels[..., None], ends[..., None])
    close(found, value(Binary(beta, **options), labels[..., None], ends[..., None]))


@of_both
def test_without_a_factor_it_is_cross_entropy_as_keras_computes_it(from_logits):
    y_pred = data(from_logits)
    options = {"from_logits": from_logits, "reduction": "none"}
    for y_true, loss in ((SOFT, Quality(0, **options)), (HARD, Vari(1.0, 0, **options))):
        expected = keras.losses.binary_crossentropy(y_true, y_pred, from_logits=from_logits)
        close(value(loss, y_true, y_pred), ops.convert_to_numpy(expected), rtol=1e-4)


def test_negatives_of_varifocal_are_those_of_the_focal_loss():
    nothing = np.zeros_like(LOGITS)
    for alpha, gamma in ((0.75, 2.0), (0.3, 0.5)):
        mine = Vari(alpha, gamma, from_logits=True, reduction="none")
        focal = Binary(gamma, from_logits=True, reduction="none")
        close(value(mine, nothing, LOGITS), alpha * value(focal, nothing, LOGITS))


def test_positives_of_varifocal_weigh_as_their_quality():
    y = np.float32([[0.2], [0.8]])
    loss = Vari(from_logits=True, reduction="none")
    entropy = Quality(0, from_logits=True, reduction="none")
    z = np.float32([[0.3], [0.3]])
    close(value(loss, y, z), y[:, 0] * value(entropy, y, z))
    close(gradient(lambda z: loss(y, z), z), y * gradient(lambda z: entropy(y, z), z))


def test_the_label_is_where_both_are_least_and_the_focal_loss_is_not():
    p = np.linspace(0.01, 0.99, 99).astype("float32")[:, None]
    for y in (0.1, 0.3, 0.7):
        label = np.full_like(p, y)
        least = {
            loss: float(p[np.argmin(value(loss(reduction="none"), label, p)), 0])
            for loss in (Quality, Vari, Binary)
        }
        assert least[Quality] == pytest.approx(y, abs=0.011)
        assert least[Vari] == pytest.approx(y, abs=0.011)
        assert abs(least[Binary] - y) > 0.05


@pytest.mark.parametrize("beta", [1.5, 2.0, 3.0])
def test_at_the_label_value_and_slope_are_0(beta):
    z = LOGITS
    y = PROBABILITIES
    loss = Quality(beta, from_logits=True, reduction="none")
    close(value(loss, y, z), 0, atol=1e-7)
    # float32 knows the label to 6e-8, and the slope is that to the power beta - 1.
    close(gradient(lambda z: loss(y, z), z), 0, atol=beta * 6e-8 ** (beta - 1))


@pytest.mark.parametrize("loss", [Quality(0.5), Quality(), Vari(gamma=0.5), Vari()], ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_extreme_is_finite(loss, dtype):
    cls, config = type(loss), loss.get_config()
    for from_logits, ends in ((True, EXTREMES), (False, np.float32([0, 1, 0.5, 1e-8, -0.5, 1.5]))):
        own = cls.from_config({**config, "from_logits": from_logits, "reduction": "none"})
        y, p = (a.reshape(-1, 1) for a in np.meshgrid(np.float32([0, 0.3, 1]), ends))
        found, slope = value_and_gradient(own, y.astype(dtype), p.astype(dtype))
        assert np.all(np.isfinite(found)) and np.all(np.isfinite(slope))
        assert np.all(found >= 0)


@pytest.mark.parametrize("loss", [Quality(from_logits=True), Vari(from_logits=True)], ids=repr)
def test_labels_may_be_missing_one_by_one(loss):
    there = np.random.default_rng(3).random(SOFT.shape) < 0.6
    holes = np.where(there, SOFT, np.nan).astype("float32")
    expected = value(loss, SOFT[there][:, None], LOGITS[there][:, None])
    close(value(cl.wrappers.Masked(loss), holes, LOGITS), expected)
