"""A rule that reads gradients at a place where a component has none."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import combined_losses as cl

L, W = cl.weightings, cl.wrappers
NUMBERS = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
TARGETS = {"head": NUMBERS[:, :2] * 2, "beside": NUMBERS[:, :1] + 1}


def model_of(rule, weights=None, frozen=False):
    """Two components on the trunk and one that reads a head beside it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    trunk = layers.Dense(8, activation="tanh", name="trunk")
    trunk.trainable = not frozen
    head = layers.Dense(2, name="head")(trunk(inputs))
    beside = layers.Dense(1, name="beside")(inputs)
    model = cl.Model(inputs, {"head": head, "beside": beside})
    losses = {
        "a": W.OnOutput("mse", "head"),
        "b": W.OnOutput("mae", "head"),
        "c": W.OnOutput("mse", "beside"),
    }
    loss = cl.CompositeLoss(losses, weights=weights, weighting=rule)
    model.compile(keras.optimizers.SGD(0.2), loss=loss)
    return model


PLACES = {
    "layer": {"gradients": "trunk"},
    "shared layers": {"gradients": "parameters", "shared_layers": ["trunk"]},
}
RULES = {
    "UPGrad": L.UPGrad,
    "MGDA": L.MGDA,
    "GradNorm": L.GradNorm,
    "total and caps": lambda **at: L.UPGrad(total="k", max_weight=0.4, **at),
    "update_every and warmup": lambda **at: L.UPGrad(update_every=2, warmup=2, **at),
    "smoothed": lambda **at: L.Smoothed(L.PCGrad(**at)),
}


@pytest.mark.parametrize(
    "kind, place", [*((kind, "layer") for kind in RULES), ("smoothed", "shared layers")]
)
def test_it_keeps_its_fixed_weight_and_trains_and_is_named_once(kind, place):
    rule = RULES[kind](**PLACES[place])
    model = model_of(rule, weights={"c": 0.5})
    with pytest.warns(UserWarning) as seen:
        history = model.fit(
            NUMBERS, TARGETS, epochs=12, validation_data=(NUMBERS, TARGETS), verbose=0
        ).history
        model.fit(NUMBERS, TARGETS, verbose=0)
    told = [str(each.message) for each in seen if "have none" in str(each.message)]
    assert len(told) == 1
    where = "layer 'trunk'" if place == "layer" else "the parameters of 'trunk'"
    assert f"reads gradients at {where}, where these components have none: 'c'." in told[0]
    assert history["c_loss"][-1] < 0.1 * history["c_loss"][0]
    # Training, validation and the table of `diagnose` show the same weight.
    skipped = 3 if kind == "update_every and warmup" else 0
    np.testing.assert_allclose(history["c_weight"][skipped:], 0.5, rtol=1e-6)
    np.testing.assert_allclose(history["val_c_weight"][skipped:], 0.5, rtol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = cl.diagnose(model, NUMBERS, TARGETS)
    assert table["c"].weight == pytest.approx(0.5)
    # The rule goes on to weigh the other components.
    assert history["a_weight"][-1] + history["b_weight"][-1] > 0
    assert history["a_loss"][-1] < history["a_loss"][0]


def test_where_all_is_frozen_every_component_keeps_its_weight():
    model = model_of(L.UPGrad(gradients="parameters", shared_layers=["trunk"]), frozen=True)
    with pytest.warns(UserWarning, match="where these components have none: 'a', 'b' and 'c'"):
        history = model.fit(NUMBERS, TARGETS, epochs=2, verbose=0).history
    for name in "abc":
        assert history[f"{name}_weight"][-1] == 1.0
    assert history["c_loss"][-1] < history["c_loss"][0]


def test_a_component_that_has_converged_is_no_such():
    """A gradient of zero is still a gradient: the rule gives the component the weight 0."""

    def hinge(y_true, y_pred):
        return keras.ops.maximum(y_true[:, :1] - y_pred[:, :1], 0.0) + 1.0

    keras.utils.set_random_seed(0)
    loss = cl.CompositeLoss({"hinge": hinge, "mse": "mse"}, weighting=L.UPGrad())
    model = cl.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    far, met = np.full((32, 1), 9.0, "float32"), np.full((32, 1), -9.0, "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        first = model.train_on_batch(NUMBERS, far, return_dict=True)
        model.reset_metrics()
        second = model.train_on_batch(NUMBERS, met, return_dict=True)
    assert first["hinge_weight"] > 0 and second["hinge_weight"] == 0


def test_by_hand_a_gradient_of_zero_has_weight_0():
    rule = L.UPGrad()
    rule.build(2)
    found = keras.ops.convert_to_numpy(rule.weigh(gramian=np.diag([1.0, 0.0]).astype("float32")))
    assert found[0] > 0 and found[1] == 0


def test_a_function_that_reads_the_network_past_the_output_trains_it():
    """It has a gradient, though none at the output; a function of only the data has none at all."""

    def small(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(trunk.kernel))

    def of_data(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true)) + 1.0

    keras.utils.set_random_seed(0)
    trunk = layers.Dense(8, name="trunk")
    model = cl.Sequential([keras.Input((4,)), trunk, layers.Dense(2)])
    parts = {"mse": "mse", "small": small, "data": of_data}
    loss = cl.CompositeLoss(parts, {"small": 20.0}, weighting=L.UPGrad())
    model.compile(keras.optimizers.SGD(0.2), loss=loss)
    with pytest.warns(UserWarning) as seen:
        logs = model.fit(NUMBERS, TARGETS["head"], epochs=8, verbose=0).history
    told = [str(each.message) for each in seen if "have none" in str(each.message)]
    assert len(told) == 1 and "at the output, where these components have none: 'small'." in told[0]
    assert logs["small_weight"][-1] == 20.0 and logs["data_weight"][-1] == 0.0
    assert logs["small_loss"][-1] < 0.9 * logs["small_loss"][0]
