"""The sums with a name: what they are made of, in numbers, and that they save as composites do."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import uniform, value
from tests.gradients import gradient
from tests.messages import raises

L = cl.losses
MASK = (uniform(3, 6, 5, 2, seed=1) > 0.6).astype("float32")  # may overlap
MAP = np.eye(3, dtype="float32")[np.random.default_rng(2).integers(0, 3, (3, 6, 5))]
LOGITS = {1: uniform(3, 6, 5, 2, seed=3, low=-3.0, high=3.0), 3: uniform(3, 6, 5, 3, seed=4)}
BINARY = [L.dice_bce, L.dice_focal, L.unified_focal, L.combo]
MULTICLASS = [L.dice_ce, L.generalized_dice_focal]
every = pytest.mark.parametrize("preset", BINARY + MULTICLASS, ids=lambda f: f.__name__)


def close(actual, expected, rtol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-6)


def data(preset):
    return (MASK, LOGITS[1]) if preset in BINARY else (MAP, LOGITS[3])


def activated(preset, logits):
    """A sigmoid in every channel, or a softmax over them."""
    powers = np.exp(logits)
    return 1 / (1 + 1 / powers) if preset in BINARY else powers / powers.sum(-1, keepdims=True)


@pytest.mark.backend_free
def test_every_preset_is_here():
    assert {f.__name__ for f in BINARY + MULTICLASS} == set(L.presets.__all__)


@every
def test_it_is_a_composite_of_the_weighted_parts(preset):
    y_true, logits = data(preset)
    y_pred = activated(preset, logits)
    loss = preset()
    assert type(loss) is cl.CompositeLoss
    assert loss.name == preset.__name__
    parts = {name: float(part) for name, part in loss.components(y_true, y_pred).items()}
    assert len(parts) == 2 and all(np.isfinite(part) and part > 0 for part in parts.values())
    total = sum(loss.weights[name] * part for name, part in parts.items())
    close(value(loss, y_true, y_pred), total)


@every
def test_logits_are_those_of_its_activation(preset):
    """Also with several channels, where a mask has a sigmoid in each."""
    y_true, logits = data(preset)
    expected = value(preset(), y_true, activated(preset, logits))
    close(value(preset(from_logits=True), y_true, logits), expected)


@every
def test_void_pixels_count_in_no_part(preset):
    y_true, logits = data(preset)
    y_pred = activated(preset, logits)
    y_void, p_void = y_true.copy(), y_pred.copy()
    y_void[:, 2:4], p_void[:, 2:4] = 255.0, 0.9
    rest = [0, 1, 4, 5]
    expected = value(preset(), y_true[:, rest], y_pred[:, rest])
    loss = preset(ignore_value=255)
    close(value(loss, y_void, p_void), expected)
    slope = gradient(lambda p: loss(y_void, p), p_void)
    assert np.all(slope[:, 2:4] == 0) and np.all(slope[:, rest] != 0)


@every
def test_logits_far_off_have_a_slope_towards_the_truth(preset):
    y_true, _ = data(preset)
    logits = 100 * (1 - 2 * y_true)
    slope = gradient(lambda z: preset(from_logits=True)(y_true, z), logits)
    assert np.all(np.isfinite(slope))
    assert np.all(slope * (1 - 2 * y_true) > 0)


@every
def test_it_comes_back_from_its_config(preset):
    y_true, logits = data(preset)
    loss = preset(from_logits=True, ignore_value=7, name="named", reduction="sum")
    config = keras.saving.serialize_keras_object(loss)
    loaded = keras.saving.deserialize_keras_object(config)
    assert (loaded.name, loaded.names, loaded.weights) == ("named", loss.names, loss.weights)
    assert value(loaded, y_true, logits) == value(loss, y_true, logits)


def test_the_pixel_parts_are_cross_entropy():
    p = activated(L.dice_bce, LOGITS[1])
    bce = L.dice_bce().components(MASK, p)["bce"]
    close(float(bce), value(keras.losses.BinaryCrossentropy(), MASK, p))
    p = activated(L.dice_ce, LOGITS[3])
    ce = L.dice_ce().components(MAP, p)["ce"]
    close(float(ce), value(keras.losses.CategoricalCrossentropy(), MAP, p))


def test_dice_ce_may_leave_the_background_out():
    p = activated(L.dice_ce, LOGITS[3])
    part = L.dice_ce(smooth=2.0, include_background=False).components(MAP, p)["dice"]
    close(float(part), value(L.Dice(2.0, include_background=False), MAP, p))


@pytest.mark.parametrize("preset", [L.dice_focal, L.generalized_dice_focal])
def test_multiclass_chooses_the_focal_loss(preset):
    p = activated(L.dice_ce, LOGITS[3])
    for multiclass, focal in ((False, L.BinaryFocal), (True, L.CategoricalFocal)):
        loss = preset(gamma=1.5, multiclass=multiclass)
        close(float(loss.components(MAP, p)["focal"]), value(focal(1.5), MAP, p))


def test_unified_focal_is_that_of_the_paper():
    """Yeung et al. 2022, equations of the modified focal and focal Tversky losses."""
    y, p = MASK, activated(L.unified_focal, LOGITS[1])
    weight, delta, gamma, smooth = 0.3, 0.7, 0.4, 2.0
    right = np.where(y == 1, p, 1 - p)
    price = np.where(y == 1, delta, 1 - delta)
    focal = np.mean(price * (1 - right) ** (1 - gamma) * -np.log(right))
    tp, fp, fn = ((f).sum(axis=(1, 2)) for f in (p * y, p * (1 - y), (1 - p) * y))
    index = (tp + smooth) / (tp + delta * fn + (1 - delta) * fp + smooth)
    tversky = np.mean((1 - index) ** gamma)
    loss = L.unified_focal(weight, delta, gamma=gamma, smooth=smooth)
    close(value(loss, y, p), weight * focal + (1 - weight) * tversky)


def test_combo_is_that_of_the_paper_but_for_a_constant():
    """Taghanaki et al. 2019: alpha * weighted cross-entropy - (1 - alpha) * Dice coefficient."""
    y, p = MASK, activated(L.combo, LOGITS[1])
    alpha, beta, smooth = 0.3, 0.8, 2.0
    entropy = -np.mean(beta * y * np.log(p) + (1 - beta) * (1 - y) * np.log(1 - p))
    both = (p * y).sum(axis=(1, 2))
    dice = (2 * both + smooth) / (p.sum(axis=(1, 2)) + y.sum(axis=(1, 2)) + smooth)
    published = alpha * entropy - (1 - alpha) * dice.mean()
    close(value(L.combo(alpha, beta, smooth=smooth), y, p), published + (1 - alpha))


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "preset, name, bad",
    [
        (L.unified_focal, "weight", 1.5),
        (L.unified_focal, "delta", -0.1),
        (L.unified_focal, "gamma", 0),
        (L.unified_focal, "gamma", 1.1),
        (L.combo, "alpha", 2),
        (L.combo, "beta", None),
        (L.dice_focal, "multiclass", "yes"),
        *((preset, "from_logits", 1) for preset in (L.dice_bce, L.dice_focal, L.combo)),
    ],
    ids=lambda thing: getattr(thing, "__name__", repr(thing)),
)
def test_an_argument_outside_its_domain_is_an_error(preset, name, bad):
    with raises(ValueError, f"`{name}` of {preset.__name__}", "must be", f"Received: {bad!r}"):
        preset(**{name: bad})


def test_what_a_composite_takes_it_takes():
    loss = L.dice_bce(weights={"bce": 3.0}, reduction="sum", name="mine")
    p = activated(L.dice_bce, LOGITS[1])
    parts = {name: float(part) for name, part in loss.components(MASK, p).items()}
    close(value(loss, MASK, p), parts["dice"] + 3 * parts["bce"])
    assert (loss.reduction, loss.name) == ("sum", "mine")
