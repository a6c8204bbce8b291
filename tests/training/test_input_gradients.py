"""`input_gradients`: derivatives that are stated by name, mixed ones, and several outputs.

The derivatives of one order by all inputs are in `tests/wrappers/test_outputs.py`.
"""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.wrappers import OnInputs
from tests.messages import raises
from tests.training.tiny import sgd
from tests.wrappers.numpy_twins import close, normal

# JAX has no float64 unless it is told so before all else.
WIDE = "float32" if keras.backend.backend() == "jax" else "float64"
TOLERANCE = 1e-4 if WIDE == "float32" else 1e-11

POINTS = normal(5, 2, seed=3).astype(WIDE)
BURGERS = ["t", "x", "xx"]


def numpy(value):
    return ops.convert_to_numpy(value)


def agree(found, expected):
    found = numpy(found)
    assert found.shape == expected.shape
    close(found, expected, TOLERANCE, TOLERANCE)


def multi_indices(letters, order):
    """Every word of the letters, of at most that many of them: "", "x", "t", "xx", "xt", ..."""
    words = (itertools.product(letters, repeat=n) for n in range(order + 1))
    return ["".join(letters) for letters in itertools.chain.from_iterable(words)]


# A function whose derivatives are products: u = sin(2 x) t^3.


def wave(x, t):
    return ops.sin(2 * x) * t**3


def of_wave(word, points=POINTS):
    x, t = points[:, :1], points[:, 1:]
    a, b = word.count("x"), word.count("t")
    factor = [1, 3, 6, 6, 0][b]
    return 2**a * np.sin(2 * x + a * np.pi / 2) * factor * t ** max(3 - b, 0)


def wave_model(structure="array", make=keras.Model):
    if structure == "array":
        inputs = keras.Input((2,), dtype=WIDE)
        return make(inputs, wave(inputs[:, :1], inputs[:, 1:]))
    inputs = {name: keras.Input((1,), name=name, dtype=WIDE) for name in "xt"}
    return make(inputs if structure == "dict" else list(inputs.values()), wave(**inputs))


def wave_points(structure, points=POINTS):
    both = {"x": points[:, :1], "t": points[:, 1:]}
    return {"array": points, "dict": both, "list": list(both.values())}[structure]


# A network with one hidden layer of sines, which has any number of inputs and outputs.


def sines(inputs, outputs, hidden=6):
    rng = np.random.default_rng([inputs, outputs])
    first, bias, last = (
        rng.normal(size=shape) for shape in ((inputs, hidden), (hidden,), (hidden, outputs))
    )

    def times(x, matrix):  # Keras's `matmul` on torch makes float32 of float64
        matrix = ops.convert_to_tensor(matrix, dtype=WIDE)
        return ops.sum(ops.expand_dims(x, -1) * matrix, axis=1)

    def network(x):
        return times(ops.sin(times(x, first) + ops.convert_to_tensor(bias, dtype=WIDE)), last)

    def derivative(points, columns):
        phase = points @ first + bias + len(columns) * np.pi / 2
        return (np.sin(phase) * np.prod(first[list(columns)], axis=0)) @ last

    return network, derivative


# The derivatives are those of calculus.


@pytest.mark.parametrize("structure", ["array", "dict", "list"])
def test_mixed_derivatives_are_those_of_calculus(structure):
    words = multi_indices("xt", 3)
    columns = None if structure == "dict" else "xt"
    found = cl.input_gradients(
        wave_model(structure), wave_points(structure), derivatives=words, columns=columns
    )
    assert list(found) == words
    for word in words:
        agree(found[word], of_wave(word))


@pytest.mark.parametrize(
    "words", [["x"], ["xx"], ["t", "x", "xx"], ["xt"], ["xxtt"], [""]], ids="+".join
)
def test_some_derivatives_are_those_of_calculus(words):
    found = cl.input_gradients(wave_model(), POINTS, derivatives=words, columns="xt")
    assert list(found) == words
    for word in words:
        agree(found[word], of_wave(word))


@pytest.mark.parametrize("outputs", [1, 2, 5])
@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_derivatives_of_a_network(inputs, outputs):
    """With few and with many outputs for its inputs: JAX takes another way for each."""
    model, derivative = sines(inputs, outputs)
    points = normal(4, inputs, seed=5).astype(WIDE)
    columns = "xyz"[:inputs]
    words = multi_indices(columns, 2)
    found = cl.input_gradients(model, points, derivatives=words, columns=columns)
    for word in words:
        agree(found[word], derivative(points, [columns.index(letter) for letter in word]))


@pytest.mark.parametrize("outputs", [2, 5])
@pytest.mark.parametrize("order", [1, 2])
def test_the_jacobian_of_a_vector(outputs, order):
    model, derivative = sines(3, outputs)
    points = normal(4, 3, seed=5).astype(WIDE)
    expected = np.stack([derivative(points, [c] * order) for c in range(3)], axis=-1)
    assert expected.shape == (4, outputs, 3)
    agree(cl.input_gradients(model, points, order), expected)


def test_mixed_derivatives_are_symmetric():
    model, _ = sines(2, 1)
    found = cl.input_gradients(model, POINTS, derivatives=["xt", "tx", "xxt", "txx"], columns="xt")
    np.testing.assert_array_equal(numpy(found["xt"]), numpy(found["tx"]))
    np.testing.assert_array_equal(numpy(found["xxt"]), numpy(found["txx"]))


@pytest.mark.parametrize("letters", ["xt", "tx"])
def test_a_mixed_derivative_is_a_derivative_of_a_derivative(letters):
    model, _ = sines(2, 1)
    first, second = ("xt".index(letter) for letter in letters)

    def slope(x):
        return cl.input_gradients(model, x)[:, first]

    nested = numpy(cl.input_gradients(slope, POINTS))[:, second]
    found = cl.input_gradients(model, POINTS, derivatives=["xt"], columns="xt")["xt"]
    agree(found[:, 0], nested)


# What is given, and what is returned.


def test_several_outputs():
    """Of the velocity and the pressure in one call, each in the shape that the model gives it."""

    def flow(x):
        u, v = wave(x[:, :1], x[:, 1:]), wave(x[:, 1:], x[:, :1])
        return {"u": u, "v": v, "p": ops.squeeze(u * 2, -1), "both": ops.concatenate([u, v], 1)}

    names = ["u", "v", "p"]
    found = cl.input_gradients(flow, POINTS, output=names, derivatives=["x", "xt"], columns="xt")
    assert list(found) == names
    for word, swapped in (("x", "t"), ("xt", "xt")):
        agree(found["u"][word], of_wave(word))
        agree(found["v"][word], of_wave(swapped, POINTS[:, ::-1]))
        agree(found["p"][word], 2 * of_wave(word)[:, 0])
    jacobians = cl.input_gradients(flow, POINTS, output=("p", "both"))
    assert numpy(jacobians["p"]).shape == (5, 2)
    agree(jacobians["both"][:, 0], np.concatenate([of_wave("x"), of_wave("t")], axis=1))
    second = cl.input_gradients(flow, POINTS, 2, "both")
    agree(second[:, 0], np.concatenate([of_wave("xx"), of_wave("tt")], axis=1))


def test_names_of_several_letters():
    widths = {"place": 2, "time": 1}
    inputs = {name: keras.Input((n,), name=name, dtype=WIDE) for name, n in widths.items()}
    place, time = inputs["place"], inputs["time"]
    model = keras.Model(inputs, wave(place[:, :1], time) + place[:, 1:] ** 2)
    rows = normal(5, 1, seed=8).astype(WIDE)
    x = {"time": POINTS[:, 1:], "place": np.concatenate([POINTS[:, :1], rows], axis=1)}
    wanted = ["time", ("time", "time"), ("time", "x"), "yy", ["y", "time"]]
    found = cl.input_gradients(model, x, derivatives=wanted, columns={"place": "xy"})
    assert list(found) == ["time", ("time", "time"), ("time", "x"), "yy", ("y", "time")]
    agree(found["time"], of_wave("t"))
    agree(found["time", "time"], of_wave("tt"))
    agree(found["time", "x"], of_wave("xt"))
    agree(found["yy"], np.full((5, 1), 2.0))
    agree(found["y", "time"], np.zeros((5, 1)))
    columns = ["first", "second"]
    found = cl.input_gradients(wave_model(), POINTS, derivatives=["second"], columns=columns)
    agree(found["second"], of_wave("t"))


def test_whole_numbers_have_derivatives_by_name():
    points = np.array([[1, 2], [3, -1]])
    found = cl.input_gradients(
        lambda x: x[:, :1] ** 2 * x[:, 1:], points, derivatives=["xt"], columns="xt"
    )
    np.testing.assert_allclose(numpy(found["xt"]), 2.0 * points[:, :1])


def test_one_array_for_two_inputs():
    x = ops.convert_to_tensor(POINTS[:, :1])
    found = cl.input_gradients(
        wave_model("dict"), {"x": x, "t": x}, derivatives=["x", "xt"], columns=None
    )
    twice = np.concatenate([POINTS[:, :1]] * 2, axis=1)
    agree(found["x"], of_wave("x", twice))
    agree(found["xt"], of_wave("xt", twice))


# Rows.


def test_derivatives_of_a_sample_are_those_of_it_alone():
    """Also with a layer that normalises by the batch in training."""
    layers = [
        keras.layers.Dense(4, activation="tanh"),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential([keras.Input((2,)), *layers])
    points = POINTS.astype("float32")
    model.layers[1].set_weights([np.full(4, n, "float32") for n in (1.5, 0.2, 0.3, 2.0)])
    words = ["x", "xt", "tt"]
    whole = cl.input_gradients(model, points, derivatives=words, columns="xt")
    for n in range(len(points)):
        alone = cl.input_gradients(model, points[n : n + 1], derivatives=words, columns="xt")
        for word in words:
            close(numpy(alone[word])[0], numpy(whole[word])[n], 1e-4, 1e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_inputs_of_several_sizes(order):
    """An output has a derivative by the points that it is computed from, and 0 by the others."""

    def model(x):
        return {f"u_{name}": wave(each[:, :1], each[:, 1:]) for name, each in x.items()}

    x = {"pde": POINTS, "ic": POINTS[:2]}
    found = cl.input_gradients(model, x, order, output="u_pde")
    agree(found["pde"], np.concatenate([of_wave("x" * order), of_wave("t" * order)], axis=1))
    agree(found["ic"], np.zeros((2, 2)))
    columns = {"pde": "xt", "ic": ["x0", "t0"]}
    named = cl.input_gradients(model, x, derivatives=["xt"], columns=columns, output="u_pde")
    agree(named["xt"], of_wave("xt"))
    with raises(ValueError, "the rows", "(5, 1)", "(2, 2)"):
        cl.input_gradients(model, x, derivatives=["x0"], columns=columns, output="u_pde")


# Training.

NU, FACTOR = 0.1, 0.7


def burgers(model, x, y, u):
    d = cl.input_gradients(model, x, derivatives=BURGERS, columns=None if type(x) is dict else "xt")
    return ops.square(d["t"] + u * d["x"] - NU * d["xx"])


@pytest.mark.parametrize("eagerly", [False, True], ids=["compiled", "eagerly"])
@pytest.mark.parametrize("structure", ["array", "dict"])
def test_an_equation_is_trained_on(structure, eagerly):
    """u = k sin(2 x) t^3: the step of SGD is that of the formula."""
    scale = keras.layers.Dense(
        1, use_bias=False, kernel_initializer=keras.initializers.Constant(FACTOR)
    )
    model = wave_model(structure, lambda inputs, u: cl.Model(inputs, scale(u)))
    points = normal(6, 2, seed=4)
    loss = cl.CompositeLoss({"burgers": OnInputs(burgers)})
    model.compile(sgd(0.01), loss=loss, run_eagerly=eagerly)
    x = wave_points(structure, points)
    u, u_t, u_x, u_xx = (of_wave(word, points.astype("float64")) for word in ("", *BURGERS))
    residual = FACTOR * (u_t - NU * u_xx) + FACTOR**2 * u * u_x
    slope = (u_t - NU * u_xx) + 2 * FACTOR * u * u_x
    expected = np.mean(residual**2)
    logs = model.evaluate(x, batch_size=4, verbose=0, return_dict=True)
    assert logs["burgers_loss"] == pytest.approx(expected, rel=1e-4)
    history = model.fit(x, batch_size=6, verbose=0).history
    assert history["burgers_loss"] == pytest.approx([expected], rel=1e-4)
    step = 0.01 * np.mean(2 * residual * slope)
    assert scale.get_weights()[0][0, 0] == pytest.approx(FACTOR - step, rel=1e-4)


def test_the_network_is_computed_once():
    calls = []

    def model(x):
        calls.append(x)
        return wave(x[:, :1], x[:, 1:])

    cl.input_gradients(model, POINTS, derivatives=multi_indices("xt", 2), columns="xt")
    # JAX looks at the shapes of the outputs first, and follows the function for each order.
    assert len(calls) <= (3 if keras.backend.backend() == "jax" else 1)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="a matter of JAX")
def test_a_function_with_a_gradient_of_its_own():
    """It cannot be differentiated forward, which is the shorter way for two outputs."""
    import jax

    double = jax.custom_vjp(lambda x: 2 * x)
    double.defvjp(lambda x: (2 * x, None), lambda _, upstream: (2 * upstream,))

    def model(x):
        return ops.concatenate([double(x), double(x) ** 2], axis=1)

    x = POINTS[:, :1]
    agree(cl.input_gradients(model, x)[:, 1], 8 * x)
    agree(
        cl.input_gradients(model, x, derivatives=["xx"], columns="x")["xx"][:, 1], 0 * x[:, 0] + 8
    )


# Errors.


@pytest.mark.parametrize(
    ("derivatives", "said"),
    [
        (["xz"], ["by 'x' and 't'", "'xx'", "Received: 'xz'"]),
        ([("x", "time")], ["by 'x' and 't'", "Received: ('x', 'time')"]),
        ([2], ["by 'x' and 't'", "Received: 2"]),
        ("xx", ["must be a list", "['x', 'xx']", "Received: 'xx'"]),
        ([], ["must be a list", "Received: []"]),
        (3, ["must be a list", "Received: 3"]),
    ],
    ids=repr,
)
def test_derivatives_are_by_columns(derivatives, said):
    with raises(ValueError, "`input_gradients`", *said):
        cl.input_gradients(wave_model(), POINTS, derivatives=derivatives, columns="xt")


@pytest.mark.parametrize("columns", [None, "x", "xyz", 2, ["x", ""], {"x": "xt"}], ids=repr)
def test_every_column_has_a_name(columns):
    with raises(
        ValueError, "`input_gradients`", "of the 2", "'xy'", f"Received: columns={columns!r}"
    ):
        cl.input_gradients(wave_model(), POINTS, derivatives=["x"], columns=columns)


def test_every_column_has_a_name_of_its_own():
    with raises(ValueError, "`columns`", "of its own", "Received: 'xx'"):
        cl.input_gradients(wave_model(), POINTS, derivatives=["x"], columns="xx")


def test_columns_of_a_dict():
    x = {"place": POINTS, "t": POINTS[:, :1]}
    for columns in ("xyt", {"position": "xy"}):
        with raises(ValueError, "must be a dict", "'place' and 't'", f"Received: {columns!r}"):
            cl.input_gradients(wave, x, derivatives=["t"], columns=columns)
    for columns in (None, {"place": "x"}):
        with raises(
            ValueError, "the 2 columns", "'place'", "{'place': 'xy'}", f"Received: {columns!r}"
        ):
            cl.input_gradients(wave, x, derivatives=["t"], columns=columns)
    nested = {"a": {"x": POINTS}, "b": POINTS}
    with raises(ValueError, "`derivatives`", "a nested dict of 'a' and 'b'"):
        cl.input_gradients(wave, nested, derivatives=["x"])


def test_arguments_that_exclude_each_other():
    with raises(ValueError, "`order` or `derivatives`, not both", "order=2, derivatives=['x']"):
        cl.input_gradients(wave_model(), POINTS, 2, derivatives=["x"], columns="xt")
    with raises(ValueError, "only with `derivatives`", "Received: columns='xt'"):
        cl.input_gradients(wave_model(), POINTS, columns="xt")


def test_outputs_that_the_model_has_not():
    def model(x):
        return {"u": x, "v": x}

    for output, name in ((["u", "w"], "w"), ("w", "w"), (None, None)):
        with raises(ValueError, "`output`", "'u' and 'v'", f"Received: {name!r}"):
            cl.input_gradients(model, POINTS, output=output)
    for output in ([], 3, ["u", 3]):
        with raises(ValueError, "`output`", "a list of names, or None", f"Received: {output!r}"):
            cl.input_gradients(model, POINTS, output=output)
