"""The losses of two outputs: limits, invariances, gradients of both, and what is learned."""

import math

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import compiled, gradient
from tests.masks import masked
from tests.messages import raises

Partners, Twins, VICReg = cl.losses.PairedContrastive, cl.losses.BarlowTwins, cl.losses.VICReg
every_loss = pytest.mark.parametrize("loss", [Partners, Twins, VICReg], ids=lambda c: c.__name__)
of_views = pytest.mark.parametrize("loss", [Twins, VICReg], ids=lambda c: c.__name__)

RNG = np.random.default_rng(0)
Y, P = RNG.normal(size=(2, 8, 5)).astype("float32")
WEIGHT = np.array([1.0, 0.0, 2.0, 0.5, 1.0, 0.0, 3.0, 1.0], "float32")


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def values(loss, y, p, *weight):
    return value(loss(reduction="none"), y, p, *weight)


def slopes(loss, y, p, *weight):
    """By both arrays."""
    return (
        gradient(lambda y: loss(y, p, *weight), y),
        gradient(lambda p: loss(y, p, *weight), p),
    )


# All three.


@every_loss
def test_both_outputs_are_alike(loss):
    close(values(loss, Y, P), values(loss, P, Y))
    by_y, by_p = slopes(loss(), Y, P)
    close(by_y, slopes(loss(), P, Y)[1], atol=1e-5)
    assert np.abs(by_y).max() > 1e-3 and np.abs(by_p).max() > 1e-3


@every_loss
def test_a_tuple_of_predictions_is_the_two_outputs(loss):
    y, p = ops.convert_to_tensor(Y), ops.convert_to_tensor(P)
    close(value(loss(), None, (y, p)), value(loss(), Y, P))
    on = cl.wrappers.OnOutput(loss(), ("one", "other"))
    outputs = {"other": p, "rest": y * 0, "one": y}
    close(value(cl.CompositeLoss({"a": on}), None, outputs), value(loss(), Y, P))
    close(value(on, None, outputs, WEIGHT), value(loss(), Y, P, WEIGHT))


@every_loss
def test_weight_0_is_not_there_in_both(loss):
    y, p, rest = Y.copy(), P.copy(), WEIGHT > 0
    y[~rest] = np.nan
    p[~rest] = np.inf
    own = loss(reduction="mean_with_sample_weight")
    expected = value(own, Y[rest], P[rest], WEIGHT[rest])
    close(value(own, y, p, WEIGHT), expected)
    close(value(own, y, masked(p, rest), np.where(rest, WEIGHT, 1)), expected)
    found = slopes(own, y, p, WEIGHT)
    for slope, of_rest in zip(found, slopes(own, Y[rest], P[rest], WEIGHT[rest]), strict=True):
        close(slope[rest], of_rest, 1e-4, 1e-5)
        np.testing.assert_array_equal(slope[~rest], 0 * slope[~rest])


@every_loss
def test_without_any_sample_there_is_nothing(loss):
    nothing = 0 * WEIGHT
    assert value(loss(), Y, P, nothing) == 0
    for slope in slopes(loss(), Y, P, nothing):
        np.testing.assert_array_equal(slope, 0 * slope)
    assert value(loss(), Y[:0], P[:0]) == 0


@every_loss
def test_float16_is_computed_in_float32(loss):
    y, p = Y.astype("float16"), P.astype("float16")
    found = value(loss(dtype="float16"), y, p)
    assert found.dtype == "float32"
    close(found, value(loss(), y.astype("float32"), p.astype("float32")))


@every_loss
@pytest.mark.parametrize("scale", [1e-20, 1e-4, 1e6, 1e20])
def test_large_and_small_embeddings_are_finite(loss, scale):
    y, p = (np.float32(scale) * array for array in (Y, P))
    assert np.all(np.isfinite(values(loss, y, p)))
    assert all(np.all(np.isfinite(slope)) for slope in slopes(loss(), y, p))


@every_loss
def test_a_number_that_is_none_is_not_passed_over(loss):
    y = Y.copy()
    y[2, 1] = np.nan
    assert np.isnan(value(loss(), y, P)) and np.isnan(value(loss(), P, y))


@every_loss
def test_equal_arrays_are_finite(loss):
    same = np.full((8, 5), 0.3, "float32")
    for y, p in ((same, same), (Y, same), (same, P), (0 * same, P)):
        assert np.all(np.isfinite(values(loss, y, p)))
        assert all(np.all(np.isfinite(slope)) for slope in slopes(loss(), y, p))


@every_loss
def test_it_is_the_same_when_compiled(loss):
    own = loss(reduction="none")
    close(value(compiled(lambda y, p: own(y, p)), Y, P), values(loss, Y, P))


@every_loss
def test_what_is_no_pair_is_an_error(loss):
    name = loss().name
    with raises(ValueError, name, "compares two outputs", "Received: one output and y_true=None"):
        loss()(None, P)
    with raises(ValueError, name, "compares two outputs", "Received: 3 outputs"):
        loss()(None, tuple(map(ops.convert_to_tensor, (Y, P, P))))
    with raises(ValueError, name, "(batch, features)", "Received: outputs of shape (8, 5, 1)"):
        loss()(Y[..., None], P[..., None])
    with raises(ValueError, name, "broadcast"):
        loss()(Y[:, :1], P)


# Partners.


def test_partners_have_two_cross_entropies():
    def unit(x):
        return np.float64(x) / np.linalg.norm(x, axis=1, keepdims=True)

    logits = unit(Y) @ unit(P).T / 0.07
    both = [np.log(np.exp(logits).sum(axis=axis)) for axis in (0, 1)]
    close(values(Partners, Y, P), sum(both) / 2 - np.diag(logits))


def test_collapsed_partners_know_nothing():
    same = np.full((8, 5), 0.3, "float32")
    close(values(Partners, same, same), np.full(8, math.log(8)))
    for slope in slopes(Partners(), same, same):
        close(slope, 0 * slope, atol=2e-5)


def test_a_single_pair_has_nothing_to_learn():
    assert value(Partners(), Y[:1], P[:1]) == 0
    close(slopes(Partners(), Y[:1], P[:1]), np.zeros((2, 1, 5)))


def test_lengths_of_partners_do_not_matter():
    lengths = np.array([1e-3, 1, 7, 1e4, 1e20, 0.1, 3, 1e-5], "float32")[:, None]
    close(values(Partners, Y * lengths, P), values(Partners, Y, P), 1e-4)


def two_towers(loss, **options):
    keras.utils.set_random_seed(0)
    image, text = keras.Input((5,)), keras.Input((5,))
    outputs = {"one": keras.layers.Dense(4)(image), "other": keras.layers.Dense(4)(text)}
    model = cl.Model([image, text], outputs)
    on = cl.wrappers.OnOutput(loss, ("one", "other"))
    model.compile(keras.optimizers.SGD(0.1), loss=cl.CompositeLoss({"match": on}), **options)
    return model


def fit(model, epochs=3):
    options = {"batch_size": 8, "epochs": epochs, "shuffle": False, "verbose": 0}
    return model.fit([Y, Y[:, ::-1]], **options).history


def test_a_temperature_is_learned_with_the_model():
    """The first step is that of the slope of the loss, and all gradients together fall."""
    loss = Partners(0.5, learn_temperature=True)
    model = two_towers(loss)
    (log_scale,) = loss.trainable_variables
    assert any(v is log_scale for v in model.trainable_variables)
    assert float(ops.convert_to_numpy(log_scale)) == pytest.approx(math.log(2))
    found = model([Y, Y[:, ::-1]])
    pair = [ops.convert_to_numpy(found[name]) for name in ("one", "other")]
    before, after = (value(Partners(math.exp(-math.log(2) - d)), *pair) for d in (-1e-2, 1e-2))
    fit(model, epochs=1)
    moved = float(ops.convert_to_numpy(log_scale)) - math.log(2)
    assert moved == pytest.approx(-0.1 * (after - before) / 2e-2, rel=1e-2)
    history = fit(model, epochs=20)
    assert history["match_loss"][-1] < history["match_loss"][0]


def test_a_temperature_that_is_given_stays():
    loss = Partners(0.5)
    assert loss.trainable_variables == []
    assert len(two_towers(loss).trainable_variables) == 4


def test_a_learned_temperature_stays_above_its_limit_and_comes_back():
    loss = Partners(0.01, learn_temperature=True)
    (log_scale,) = loss.trainable_variables
    close(value(loss, Y, P), value(Partners(0.01), Y, P), 1e-4)
    log_scale.assign(9.0)
    close(value(loss, Y, P), value(Partners(0.01), Y, P), 1e-4)
    log_scale.assign(log_scale.constraint(ops.convert_to_tensor(log_scale)))
    assert math.exp(float(ops.convert_to_numpy(log_scale))) == pytest.approx(100)
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build([log_scale])
    for slope, expected in ((-1.0, 100.0), (1.0, 100 / math.e)):
        optimizer.apply([ops.convert_to_tensor(slope)], [log_scale])
        assert math.exp(float(ops.convert_to_numpy(log_scale))) == pytest.approx(expected)
    with raises(ValueError, "`temperature` of PairedContrastive", "at least 0.01", "0.005"):
        Partners(0.005, learn_temperature=True)


def test_an_optimizer_without_constraints_brings_a_temperature_back_too():
    loss = Partners(0.01, learn_temperature=True)

    def of_scale(log_scale):
        loss.loss.log_scale = log_scale
        return loss(Y, P)

    at_the_limit, beyond = (gradient(of_scale, np.float32(x)) for x in (math.log(100), 5.0))
    assert abs(at_the_limit) > 0.1
    close(beyond, at_the_limit, 1e-4)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_what_is_learned_is_saved(tmp_path, suffix):
    path, model = tmp_path / f"model{suffix}", two_towers(Partners(0.5, learn_temperature=True))
    fit(model)
    expected = model.evaluate([Y, P], batch_size=8, verbose=0)
    if suffix == ".keras":
        model.save(path)
        again = keras.saving.load_model(path)
    else:
        model.save_weights(path)
        again = two_towers(Partners(0.5, learn_temperature=True))
        again.load_weights(path)
    assert again.evaluate([Y, P], batch_size=8, verbose=0) == pytest.approx(expected, rel=1e-6)
    one, other = (fit(each) for each in (model, again))
    assert other["match_loss"] == pytest.approx(one["match_loss"], rel=1e-5)


# Views.


@of_views
def test_parts_are_what_they_say(loss):
    """Their weighted sum is the loss, for both views under another offset too."""
    own = loss()
    composite = cl.CompositeLoss({"views": own})
    parts = {name: float(v) for name, v in composite.components(Y, P).items()}
    weights = own.loss.weights
    total = sum(w * parts[f"views/{name}"] for name, w in weights.items())
    assert total == pytest.approx(parts["views"], rel=1e-5)
    again = composite.components(Y + 3, P + 3)
    assert {k: float(v) for k, v in again.items()} == pytest.approx(parts, rel=1e-4)
    part = list(weights)[1]
    composite.set_weight(f"views/{part}", 0.25)
    again = loss.from_config(own.get_config())
    assert again.loss.weights[part] == 0.25 and again.get_config() == own.get_config()


@of_views
def test_a_weight_of_2_is_a_copy_where_variances_are_those_of_the_batch(loss):
    """With VICReg a copy makes the variance surer; then only the first term is the same."""
    twice = np.r_[np.arange(8), 2]
    weight = np.where(np.arange(8) == 2, 2.0, 1.0).astype("float32")
    own = loss() if loss is Twins else loss(variance=0.0, covariance=0.0)
    close(value(own, Y, P, weight), value(own, Y[twice], P[twice]), 1e-4)


def test_twins_that_agree_have_what_is_redundant():
    own = value(Twins(off_diagonal=0.0), Y, 3 * Y - 7)
    assert own < 1e-6
    whole = Y - Y.mean(axis=0)
    c = np.corrcoef(whole.T)
    expected = 0.1 * (np.sum(c**2) - 5)
    assert value(Twins(off_diagonal=0.1, epsilon=1e-9), Y, Y) == pytest.approx(expected, rel=1e-4)


def test_a_constant_view_has_no_correlations():
    assert value(Twins(), np.ones_like(Y), P) == pytest.approx(5)
    assert value(Twins(), Y[:1], P[:1]) == pytest.approx(5)


def test_features_that_vary_enough_cost_nothing():
    wide = 5 * np.concatenate([np.eye(5), -np.eye(5)]).astype("float32")
    assert value(VICReg(covariance=0.0), wide, wide) == 0
    narrow = value(VICReg(covariance=0.0), 0.01 * wide, 0.01 * wide)
    assert 20 < narrow < 25
    plain = VICReg(invariance=1.0, variance=0.0, covariance=0.0)
    close(value(plain, Y, P), np.mean((Y - P) ** 2))


def test_a_view_that_is_nearly_constant_leaves_it():
    """Only the variance term pushes, and outwards."""
    near = (1 + 1e-3 * RNG.normal(size=(8, 5))).astype("float32")
    own = VICReg(invariance=0.0, covariance=0.0)
    _, slope = slopes(own, Y, near)
    outwards = near - near.mean(axis=0)
    assert np.sum(slope * outwards) < -1e-4
