"""`ProxyAnchor`: what it claims, and its proxies, which are trained, saved and shared."""

import math
import pickle

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import value
from tests.gradients import gradient
from tests.messages import raises
from tests.oracles.embeddings import proxy_anchor

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 0, 1, 0, 2, 2])
X = RNG.normal(size=(8, 5)).astype("float32")
PROXIES = RNG.normal(size=(4, 3)).tolist()  # the fourth class has no sample
WEIGHT = np.array([1.0, 0.0, 2.0, 0.5, 1.0, 0.0, 3.0, 1.0], "float32")


def proxies(**kwargs):
    return cl.losses.ProxyAnchor(4, 3, scale=4.0, **{"proxies": PROXIES, **kwargs})


def embeddings(seed=1):
    return np.random.default_rng(seed).normal(size=(8, 3)).astype("float32")


def of(loss):
    """The proxies as they are now."""
    (found,) = loss.trainable_variables
    return ops.convert_to_numpy(found)


def network(loss, **options):
    keras.utils.set_random_seed(0)
    model = cl.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.1), loss=loss, **options)
    return model


def fit(model, epochs=2, **options):
    given = {"batch_size": 8, "epochs": epochs, "shuffle": False, "verbose": 0, **options}
    return model.fit(X, LABELS, **given).history


# Its numbers.


def test_the_slope_by_the_proxies_is_that_of_the_oracle():
    x, step, loss = embeddings(), 1e-3, proxies()
    (variable,) = loss.trainable_variables

    def at(moved):
        return proxy_anchor(LABELS, x, 4, 3, scale=4.0, proxies=moved)[0][0]

    expected = np.zeros((4, 3))
    for place in np.ndindex(4, 3):
        moved = np.float64(PROXIES)
        moved[place] += step
        above = at(moved)
        moved[place] -= 2 * step
        expected[place] = (above - at(moved)) / (2 * step)

    def total(p):
        with keras.StatelessScope(state_mapping=[(variable, p)]):
            return loss(LABELS, x)

    np.testing.assert_allclose(gradient(total, of(loss)), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e6, 1e20])
def test_lengths_do_not_matter(scale):
    x = embeddings()
    expected = value(proxies(), LABELS, x)
    longer = proxies(proxies=(1e3 * np.array(PROXIES)).tolist())
    assert value(longer, LABELS, x) == pytest.approx(expected, rel=1e-5)
    found = value(proxies(), LABELS, np.float32(scale) * x)
    assert found == pytest.approx(expected, rel=1e-5) if scale > 1e-5 else np.isfinite(found)
    slope = gradient(lambda p: proxies()(LABELS, p), np.float32(scale) * x)
    assert np.all(np.isfinite(slope))


def test_zeros_are_finite_and_have_a_slope():
    x = 0 * embeddings()
    expected = proxy_anchor(LABELS, x, 4, 3, scale=4.0, proxies=PROXIES)[0][0]
    assert value(proxies(), LABELS, x) == pytest.approx(expected, rel=1e-5)
    slope = gradient(lambda p: proxies()(LABELS, p), x)
    assert np.all(np.isfinite(slope)) and np.abs(slope).max() > 0


def test_weights_multiply_the_exponentials():
    x = embeddings()
    expected = proxy_anchor(LABELS, x, 4, 3, scale=4.0, proxies=PROXIES, sample_weight=WEIGHT)
    assert value(proxies(), LABELS, x, WEIGHT) == pytest.approx(expected[0][0], rel=1e-5)
    twice = np.r_[np.arange(8), 2]
    once = np.where(np.arange(8) == 2, 2.0, 1.0).astype("float32")
    doubled = value(proxies(), LABELS[twice], x[twice])
    assert value(proxies(), LABELS, x, once) == pytest.approx(doubled, rel=1e-5)


def test_without_any_sample_there_is_nothing():
    x = embeddings()
    assert value(proxies(), LABELS, x, 0 * WEIGHT) == 0
    slope = gradient(lambda p: proxies()(LABELS, p, 0 * WEIGHT), x)
    np.testing.assert_array_equal(slope, 0 * x)


@pytest.mark.parametrize("label", [-1, 4, np.nan, 0.5])
def test_a_label_without_a_proxy_is_not_passed_over(label):
    x, labels = embeddings(), np.where(np.arange(8) == 3, label, LABELS)
    assert np.isnan(value(proxies(), labels, x))
    rest = np.arange(8) != 3
    found = value(proxies(), labels, x, rest.astype("float32"))
    assert found == pytest.approx(value(proxies(), LABELS[rest], x[rest]), rel=1e-5)
    if np.isnan(label):
        found = value(cl.wrappers.Masked(proxies()), labels, x)
        assert found == pytest.approx(value(proxies(), LABELS[rest], x[rest]), rel=1e-5)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "float16"])
def test_labels_may_have_a_dtype_with_fewer_numbers_than_classes(dtype):
    given = np.random.default_rng(2).normal(size=(300, 3)).tolist()
    loss = cl.losses.ProxyAnchor(300, 3, scale=4.0, proxies=given)
    labels = (LABELS > 0).astype(dtype) if dtype == "bool" else (LABELS + 42).astype(dtype)
    expected = proxy_anchor(labels.astype(int), embeddings(), 300, 3, scale=4.0, proxies=given)[0][
        0
    ]
    assert value(loss, labels, embeddings()) == pytest.approx(expected, rel=1e-5)


def test_a_label_that_its_dtype_has_rounded_is_not_taken():
    loss = cl.losses.ProxyAnchor(3000, 3)
    labels = np.where(np.arange(8) == 3, 2049, LABELS).astype("float16")  # 2048
    assert np.isnan(value(loss, labels, embeddings()))


def test_its_dtype_may_be_a_policy():
    found = value(proxies(dtype="mixed_float16"), LABELS, embeddings())
    assert found == pytest.approx(value(proxies(), LABELS, embeddings()), rel=1e-2)


def test_errors_say_what_is_wrong():
    with raises(ValueError, "ProxyAnchor", "dim=3", "Received: y_pred of shape (8, 5)"):
        proxies()(LABELS, X)
    with raises(ValueError, "ProxyAnchor", "one integer for each sample", "shape (8, 2)"):
        proxies()(np.zeros((8, 2), int), embeddings())
    with raises(ValueError, "`proxies` of ProxyAnchor", "(num_classes, dim) = (4, 3)"):
        proxies(proxies=[[1.0, 2.0, float("nan")]] * 4)


def test_one_loss_in_two_places_is_an_error():
    """A file would make two of it, and only one with what was learned."""
    loss = proxies()
    with raises(ValueError, "'composite_loss' holds a loss with variables", "losses=['a', 'b']"):
        cl.CompositeLoss({"a": loss, "b": cl.wrappers.Masked(loss)})
    x = keras.Input((5,))
    model = cl.Model(x, {"a": keras.layers.Dense(3)(x), "b": keras.layers.Dense(3)(x)})
    with raises(ValueError, "'proxy_anchor' has variables", "'a' and 'b'", "one loss for several"):
        model.compile("sgd", loss={"a": loss, "b": loss})


# Its proxies.


def test_they_are_drawn_by_the_seed_of_keras():
    found = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        found.append(of(cl.losses.ProxyAnchor(50, 40)))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 0.1
    assert np.linalg.norm(found[0], axis=1).mean() == pytest.approx(1, abs=0.1)


WRAPPED = {
    "alone": lambda loss: loss,
    "in a composite": lambda loss: cl.CompositeLoss({"a": loss, "b": cl.losses.NTXent()}),
    "in a sum": lambda loss: 0.5 * loss,
    "in a list": lambda loss: [loss],
    "in wrappers": lambda loss: cl.wrappers.Masked(cl.CompositeLoss([loss])),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_fit_trains_them_by_their_slope(wrap):
    """One step of gradient descent, wherever the loss is."""
    loss = proxies()
    (variable,) = loss.trainable_variables
    model = network(wrap(loss))
    assert sum(v is variable for v in model.trainable_variables) == 1
    before, x = of(loss), ops.convert_to_numpy(model(X))

    def total(p):
        with keras.StatelessScope(state_mapping=[(variable, p)]):
            return loss(LABELS, x)

    slope = gradient(total, before)
    fit(model, epochs=1)
    factor = 0.05 if wrap is WRAPPED["in a sum"] else 0.1
    np.testing.assert_allclose(of(loss), before - factor * slope, rtol=1e-4, atol=1e-5)


def test_a_frozen_layer_is_no_reason_not_to_train_them():
    loss = proxies()
    model = network(loss)
    model.layers[0].trainable = False
    before = of(loss)
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    history = fit(model, epochs=5)
    assert history["loss"][-1] < history["loss"][0]
    assert np.abs(of(loss) - before).max() > 1e-3


@pytest.mark.parametrize("rule", ["GradNorm", "UPGrad", "UncertaintyWeighting"])
def test_they_are_trained_beside_a_rule(rule):
    loss = proxies()
    parts = {"a": loss, "b": cl.losses.NTXent()}
    composite = cl.CompositeLoss(parts, weighting=getattr(cl.weightings, rule)())
    before = of(loss)
    fit(network(composite))
    assert np.abs(of(loss) - before).max() > 1e-3 and np.all(np.isfinite(of(loss)))


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_files_keep_them(tmp_path, suffix, wrap):
    path, model = tmp_path / f"model{suffix}", network(wrap(proxies()))
    fit(model)
    expected = model.evaluate(X, LABELS, batch_size=8, verbose=0, return_dict=True)
    if suffix == ".keras":
        model.save(path)
        again = keras.saving.load_model(path)
    else:
        model.save_weights(path)
        again = network(wrap(proxies()))
        again.load_weights(path)
    found = again.evaluate(X, LABELS, batch_size=8, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-6)
    if suffix == ".keras":  # with the state of the optimizer
        assert fit(again)["loss"] == pytest.approx(fit(model)["loss"], rel=1e-5)


def test_an_old_file_says_that_it_does_not(tmp_path):
    model = network(proxies())
    fit(model)
    with pytest.warns(UserWarning, match="what it has learned.*Save the model as '.keras'"):
        model.save(tmp_path / "model.h5")


def test_a_config_begins_anew_and_a_copy_does_not_share():
    loss = proxies()
    fit(network(loss))
    again = cl.losses.ProxyAnchor.from_config(loss.get_config())
    np.testing.assert_allclose(of(again), PROXIES, rtol=1e-6)
    copied = pickle.loads(pickle.dumps(loss))
    np.testing.assert_array_equal(of(copied), of(loss))
    (variable,) = copied.trainable_variables
    variable.assign(0 * variable)
    assert np.abs(of(loss)).max() > 0.1


def test_a_second_model_is_told_that_they_are_trained_already():
    loss = proxies()
    fit(network(loss))
    with pytest.warns(UserWarning, match="variables that move.*ProxyAnchor.from_config"):
        network(loss)


def test_a_plain_model_is_told_that_it_leaves_them():
    loss = proxies()
    before = of(loss)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile("sgd", loss=loss)
    with pytest.warns(UserWarning, match=r"cl.track\(model\) train.*leaves them as they are"):
        fit(model)
    np.testing.assert_array_equal(of(loss), before)
    assert math.isfinite(value(loss, LABELS, embeddings()))  # without a warning


def test_a_loop_of_ones_own_trains_them():
    """As the docstring says: their gradients, and the user's optimizer."""
    loss, x = proxies(), embeddings()
    (variable,) = loss.trainable_variables
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(loss.trainable_variables)
    values = []
    for _ in range(5):
        before = of(loss)

        def total(p):
            with keras.StatelessScope(state_mapping=[(variable, p)]):
                return loss(LABELS, x)

        optimizer.apply([ops.convert_to_tensor(gradient(total, before))], [variable])
        values.append(float(value(loss, LABELS, x)))
    assert values == sorted(values, reverse=True)


@pytest.mark.skipif(BACKEND == "jax", reason="elsewhere gradients are recorded")
def test_what_is_recorded_reaches_them():
    loss, x = proxies(), ops.convert_to_tensor(embeddings())
    (variable,) = loss.trainable_variables
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            total = loss(LABELS, x)
        slope = tape.gradient(total, variable.value)
    else:
        loss(LABELS, x).backward()
        slope = variable.value.grad
    assert np.abs(ops.convert_to_numpy(slope)).max() > 1e-3
