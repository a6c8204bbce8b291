"""Sample weights and targets of several outputs, for terms that read more than one of them."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.messages import raises

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = {
    "a": np.random.default_rng(1).normal(size=(8, 2)).astype("float32"),
    "b": np.random.default_rng(2).normal(size=(8, 3, 2)).astype("float32"),
}
W = {
    "a": np.array([2, 0, 1, 1, 0.5, 3, 1, 1], "float32"),
    "b": np.random.default_rng(3).uniform(0, 2, (8, 3)).astype("float32"),
}


def model_of(**losses):
    x = keras.Input((3,))
    a = keras.layers.Dense(2, name="a")(x)
    b = keras.layers.Reshape((3, 2), name="b")(keras.layers.Dense(6)(x))
    model = cl.Model(x, {"a": a, "b": b})
    loss = {name: cl.wrappers.OnOutput("mse", name) for name in "ab"}
    model.compile("sgd", loss=cl.CompositeLoss({**loss, **losses}))
    return model


def of_samples(model, x, y, y_pred):
    return ops.mean(ops.square(y_pred["a"]), axis=-1)


def scalar(model, x, y, y_pred):
    return ops.mean(ops.square(y_pred["a"]))


def evaluate(model, y=Y, **kwargs):
    return model.evaluate(X, y, batch_size=8, verbose=0, return_dict=True, **kwargs)


def squares(model):
    return np.mean(np.square(model.predict(X, verbose=0)["a"]), axis=-1)


def test_a_scalar_term_takes_none():
    model = model_of(term=cl.wrappers.OnInputs(scalar))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        logs = evaluate(model, sample_weight=W)
    assert logs["term_loss"] == pytest.approx(squares(model).mean(), rel=1e-5)


def test_a_term_of_samples_says_that_it_takes_none():
    model = model_of(term=cl.wrappers.OnInputs(of_samples))
    said = r"'term' counts unweighted.*\(8,\), \(8, 3\).*OnInputs\(\.\.\., output=name\)"
    shapes = said.replace("8", "(None|8)")
    with pytest.warns(UserWarning, match=shapes):
        logs = evaluate(model, sample_weight=W)
    assert logs["term_loss"] == pytest.approx(squares(model).mean(), rel=1e-5)


@pytest.mark.parametrize("given", [dict, list])
def test_the_weights_of_a_stated_output(given):
    model = model_of(term=cl.wrappers.OnInputs(of_samples, output="a"))
    y, weight = (Y, W) if given is dict else ([Y["a"], Y["b"]], [W["a"], W["b"]])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        logs = evaluate(model, y, sample_weight=weight)
    assert logs["term_loss"] == pytest.approx(np.mean(squares(model) * W["a"]), rel=1e-5)
    assert logs["loss"] == pytest.approx(sum(logs[f"{n}_loss"] for n in ("a", "b", "term")), 1e-5)


def test_weights_of_one_shape_have_a_mean():
    model = model_of(term=cl.wrappers.OnInputs(of_samples))
    weight = {"a": W["a"], "b": 2 * W["a"]}
    logs = evaluate(model, sample_weight=weight)
    assert logs["term_loss"] == pytest.approx(np.mean(squares(model) * 1.5 * W["a"]), rel=1e-5)


def test_an_output_that_is_none():
    model = model_of(term=cl.wrappers.OnInputs(of_samples, output="c"))
    with raises(ValueError, "'term'", "'a' and 'b'", "Received: output='c'"):
        evaluate(model, sample_weight=W)
    with raises(ValueError, "`output` of OnInputs ('of_samples')", "Received: 3"):
        cl.wrappers.OnInputs(of_samples, output=3)


@keras.saving.register_keras_serializable("tests_weights_of_outputs")
def registered(model, x, y, y_pred):
    return of_samples(model, x, y, y_pred)


def test_the_stated_output_is_saved():
    loss = cl.wrappers.OnInputs(registered, output="a")
    assert cl.wrappers.OnInputs.from_config(loss.get_config()).output == "a"


# Several targets.


def distance(y_true, y_pred):
    (true_a, true_b), (pred_a, pred_b) = y_true, y_pred
    of_b = ops.mean(ops.square(true_b - pred_b), axis=(1, 2))
    return ops.mean(ops.square(true_a - pred_a), axis=-1) + of_b


@pytest.mark.parametrize("target", [("a", "b"), ["a", "b"]])
@pytest.mark.parametrize("given", [dict, list])
def test_a_tuple_of_targets_for_a_tuple_of_outputs(target, given):
    both = cl.wrappers.OnOutput(distance, ("a", "b"), target=target)
    model = model_of(both=both)
    y = Y if given is dict else [Y["a"], Y["b"]]
    logs = model.evaluate(X, y, batch_size=8, verbose=0, return_dict=True)
    found = model.predict(X, verbose=0)
    expected = sum(np.mean(np.square(Y[name] - found[name])) for name in "ab")
    assert logs["both_loss"] == pytest.approx(expected, rel=1e-5)


def test_targets_in_another_order_than_the_outputs():
    def swapped(y_true, y_pred):
        return distance(y_true[::-1], y_pred)

    model = model_of(both=cl.wrappers.OnOutput(swapped, ("a", "b"), target=("b", "a")))
    logs = evaluate(model)
    assert logs["both_loss"] == pytest.approx(logs["a_loss"] + logs["b_loss"], rel=1e-5)


def test_a_target_that_is_none():
    model = model_of(both=cl.wrappers.OnOutput(distance, ("a", "b"), target=("a", "c")))
    with raises(ValueError, "'both'", "target 'c'", "'a' and 'b'"):
        evaluate(model)
    for bad in ((), ("a", 3), 5):
        with raises(ValueError, "`target` of OnOutput", f"Received: {bad!r}"):
            cl.wrappers.OnOutput("mse", "a", target=bad)
