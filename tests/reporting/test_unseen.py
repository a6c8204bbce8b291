"""`cl.diagnose` where gradients cannot be seen: what it does not know, it says."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.diagnosis.terminal import text
from tests.training.tiny import arrays, line, two_heads

pytestmark = pytest.mark.depends_on_version

HEAD = "cannot be seen at the output"


def network():
    layers = [keras.layers.Dense(4, "tanh", name="hidden"), keras.layers.Dense(2)]
    return cl.Sequential([keras.Input((3,)), *layers])


def squared(values):
    return ops.mean(ops.square(values), axis=-1)


def of_kernel(model):
    def kernel(y_true, y_pred):
        return ops.sum(ops.square(model.layers[0].kernel)) + ops.zeros_like(y_pred[:, 0])

    return kernel


def called_again(model):
    point = np.ones((1, 3), "float32")

    def again(y_true, y_pred):
        return ops.mean(ops.square(model(point))) + ops.zeros_like(y_pred[:, 0])

    return again


def both(model):
    def both(y_true, y_pred):
        return ops.sum(ops.square(model.layers[0].kernel)) * squared(y_pred - y_true)

    return both


def of_model(model):
    return cl.wrappers.OnInputs(lambda m, x, y, y_pred: ops.sum(ops.square(m.layers[0].kernel)))


def opaque(model):
    class Opaque(keras.losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return ops.sum(ops.square(model.layers[0].kernel))

    return Opaque()


CLOSURES = {
    "kernel": of_kernel,
    "again": called_again,
    "both": both,
    "model": of_model,
    "opaque": opaque,
}


@pytest.mark.filterwarnings("ignore:A model with .* cannot be saved")  # a lambda
@pytest.mark.parametrize("kind", CLOSURES)
def test_what_a_closure_reads_is_invisible_at_the_output(kind):
    x, y = arrays(16, outputs=2)
    model = network()
    model.compile("sgd", loss=cl.CompositeLoss({"mse": "mse", "own": CLOSURES[kind](model)}))
    found = cl.diagnose(model, x, y)
    assert found.invisible == ["own"]
    assert np.isnan(found["own"].gradient_norm)
    assert not found.flags
    exact = cl.diagnose(model, x, y, at="parameters")
    assert exact.invisible == [] and exact["own"].gradient_norm > 0


def test_a_closure_over_what_is_not_trained_is_constant():
    x, y = arrays(16, outputs=2)
    other = keras.Variable(np.ones(2, "float32"), trainable=False)

    def reads_other(y_true, y_pred):
        return ops.sum(other) + ops.zeros_like(y_pred[:, 0])

    model = network()
    model.compile("sgd", loss=cl.CompositeLoss({"mse": "mse", "own": reads_other}))
    found = cl.diagnose(model, x, y)
    assert found.invisible == [] and found.flags == {"own": ("constant",)}


def test_an_own_loss_of_the_predictions_is_seen():
    x, y = arrays(16, outputs=2)
    model = network()

    def error(y_true, y_pred):
        return squared(y_true - y_pred)

    model.compile("sgd", loss=cl.CompositeLoss({"mse": "mse", "own": error}))
    found = cl.diagnose(model, x, y)
    assert found.invisible == [] and "Nothing is wrong." in str(found)


def test_a_nested_part_hides_its_parent():
    x, y = arrays(16, outputs=2)
    model = network()
    inner = cl.CompositeLoss({"mae": "mae", "own": of_kernel(model)})
    model.compile("sgd", loss=cl.CompositeLoss({"mse": "mse", "inner": inner}))
    assert cl.diagnose(model, x, y).invisible == ["inner", "inner/own"]


def test_heads_that_read_nothing_in_common():
    x, y = arrays(16)
    model = two_heads(structure=dict)
    on = cl.wrappers.OnOutput
    losses = {"a": on("mse", "a"), "a too": on("mae", "a"), "b": on("mse", "b")}
    model.compile("sgd", loss=cl.CompositeLoss(losses))
    found = cl.diagnose(model, x, {"a": y, "b": y})
    assert found.invisible == ["a", "a too", "b"]
    assert "(a, a too | b)" in str(found)
    assert cl.diagnose(model, x, {"a": y, "b": y}, at="parameters").invisible == []


def test_heads_with_a_loss_on_both_meet():
    x, y = arrays(16)

    def difference(y_true, y_pred):
        return squared(y_pred[0] - y_pred[1])

    model = two_heads(structure=dict)
    on = cl.wrappers.OnOutput
    losses = {"a": on("mse", "a"), "b": on("mse", "b"), "both": on(difference, ("a", "b"))}
    model.compile("sgd", loss=cl.CompositeLoss(losses))
    assert cl.diagnose(model, x, {"a": y, "b": y}).invisible == []


def test_channels_and_slices():
    x, y = arrays(16, outputs=2)
    model = line(outputs=2)
    parts = {
        "all": "mse",
        "channels": cl.wrappers.PerChannel("mse", names=["left", "right"]),
        "first": cl.wrappers.OnSlice("mae", np.s_[:, :1]),
    }
    model.compile("sgd", loss=cl.CompositeLoss(parts))
    assert cl.diagnose(model, x, y).invisible == ["channels/left", "channels/right"]


def test_orthogonal_gradients_at_one_place_are_seen():
    """Their product is exactly 0, and yet they meet."""

    def upwards(y_true, y_pred):
        return ops.mean(y_pred, axis=-1)

    def apart(y_true, y_pred):
        return y_pred[:, 0] - y_pred[:, 1]

    x, y = arrays(16, outputs=2)
    model = line(outputs=2)
    model.compile("sgd", loss=cl.CompositeLoss({"upwards": upwards, "apart": apart}))
    found = cl.diagnose(model, x, y)
    assert found.cosines[0, 1] == 0 and found.invisible == []


def test_a_part_that_is_off_is_not_missed():
    x, y = arrays(16)
    model = two_heads(structure=dict)
    on = cl.wrappers.OnOutput
    losses = {"a": on("mse", "a"), "b": on("mse", "b")}
    model.compile("sgd", loss=cl.CompositeLoss(losses, weights={"b": 0.0}))
    assert cl.diagnose(model, x, {"a": y, "b": y}).invisible == []


def test_all_that_is_shown_says_it():
    x, y = arrays(16)
    model = two_heads(structure=dict)
    model.compile("sgd", loss={"a": "mse", "b": cl.CompositeLoss(["mae"])})
    found = cl.diagnose(model, x, {"a": y, "b": y})
    pages = [str(found), text(found, plain=True), found._repr_html_(), found.to_html()]
    for page in pages:
        assert HEAD in page.lower().replace("&quot;", '"')
        assert "Nothing is wrong." not in page and "No fault is seen." in page
    assert "a, b_mae" in repr(found) and "nothing is wrong" not in repr(found)
