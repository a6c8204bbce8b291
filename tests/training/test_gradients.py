"""Weightings that read gradients in training: against gradients that are computed by hand."""

import itertools
import shutil

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses._core.step import inside
from combined_losses.weightings import (
    MGDA,
    GradientNormBalance,
    GramianWeighting,
    InverseGradientNorm,
    Smoothed,
    UPGrad,
)
from tests.messages import raises
from tests.training.gradient_twin import (
    NAMES,
    build,
    data,
    inverse_norms,
    jacobians,
    layer_variables,
    parameters,
    split,
    under,
)

PLACES = ("output", "trunk", "parameters")
every_place = pytest.mark.parametrize("place", PLACES)


def expected(theta, place, x, y, c=(1.0, 1.0, 1.0), sample_weight=None, weights=inverse_norms):
    """The direction at the parameters when the weights are chosen at a place, and the weights."""
    rows = jacobians(theta, x, y, sample_weight)
    w = weights(rows[place]) * np.asarray(c)
    return split(w @ rows["parameters"], theta), w


def step(model, x, y, **kwargs):
    model.reset_metrics()
    return model.train_on_batch(x, y, return_dict=True, **kwargs)


def assert_step(model, before, direction, rate=0.1, rtol=2e-5):
    for after, start, slope in zip(parameters(model), before, direction, strict=True):
        scale = np.abs(rate * slope).max()
        np.testing.assert_allclose(after - start, -rate * slope, rtol=rtol, atol=1e-4 * scale)


def logged(logs):
    return np.array([float(logs[f"{name}_weight"]) for name in NAMES])


@every_place
def test_a_step_is_that_of_the_gradients_by_hand(place):
    model, _ = build(InverseGradientNorm(gradients=place))
    x, y = data()
    for seed in range(3):
        x, y = data(seed)
        before = parameters(model)
        direction, w = expected(before, place, x, y)
        logs = step(model, x, y)
        np.testing.assert_allclose(logged(logs), w, rtol=1e-5)
        assert_step(model, before, direction)
        total = sum(w * np.array([float(logs[f"{name}_loss"]) for name in NAMES]))
        assert float(logs["loss"]) == pytest.approx(total, rel=1e-5)


@every_place
@pytest.mark.parametrize("rule", [UPGrad, MGDA], ids=lambda rule: rule.__name__)
def test_a_rule_gets_the_gramian_of_its_place(place, rule):
    by_hand = rule()
    by_hand.build(3)

    def weights(rows):
        rows = rows.astype("float32")
        return ops.convert_to_numpy(by_hand.weigh(rows=rows))

    model, _ = build(rule(gradients=place))
    x, y = data()
    before = parameters(model)
    direction, w = expected(before, place, x, y, weights=weights)
    logs = step(model, x, y)
    np.testing.assert_allclose(logged(logs), w, rtol=1e-3, atol=1e-4)
    assert_step(model, before, direction, rtol=2e-3)


@every_place
def test_it_reads_the_sizes_of_the_rows_where_a_rule_needs_them(place):
    model, _ = build(GradientNormBalance(mode="max_mean", reference=0, gradients=place))
    x, y = data()
    sizes = np.abs(jacobians(parameters(model), x, y)[place])
    expected = 0.9 + 0.1 * sizes[0].max() / sizes.mean(axis=1)
    expected[0] = 1.0
    np.testing.assert_allclose(logged(step(model, x, y)), expected, rtol=1e-5)


@every_place
def test_fixed_weights_multiply_what_the_rule_gives_of_raw_gradients(place):
    c = [2.0, 0.5, 1.0]
    model, _ = build(InverseGradientNorm(gradients=place), weights=c)
    x, y = data()
    before = parameters(model)
    direction, w = expected(before, place, x, y, c)
    logs = step(model, x, y)
    np.testing.assert_allclose(logged(logs), w, rtol=1e-5)
    assert_step(model, before, direction)


@every_place
def test_sample_weights_are_in_the_gradients(place):
    model, _ = build(InverseGradientNorm(gradients=place))
    x, y = data()
    sample_weight = np.linspace(0.0, 3.0, len(x)).astype("float32")
    before = parameters(model)
    direction, _ = expected(before, place, x, y, sample_weight=sample_weight)
    step(model, x, y, sample_weight=sample_weight)
    assert_step(model, before, direction)


# Everything else that the optimizer and the model do in a step.


@every_place
def test_regularisation_goes_in_as_it_is(place):
    model, _ = build(InverseGradientNorm(gradients=place), l2=0.05)
    x, y = data()
    before = parameters(model)
    direction, _ = expected(before, place, x, y)
    # of the two kernels
    slopes = [d + 0.1 * v if v.ndim == 2 else d for d, v in zip(direction, before, strict=True)]
    logs = step(model, x, y)
    assert_step(model, before, slopes)
    penalty = 0.05 * sum((v**2).sum() for v in before if v.ndim == 2)
    assert float(logs["regularization_loss"]) == pytest.approx(penalty, rel=1e-5)


@every_place
def test_weight_decay_is_the_optimizers(place):
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    model, _ = build(InverseGradientNorm(gradients=place), optimizer)
    x, y = data()
    before = parameters(model)
    direction, _ = expected(before, place, x, y)
    step(model, x, y)
    slopes = [d + 0.5 * v for d, v in zip(direction, before, strict=True)]
    assert_step(model, before, slopes)


@every_place
def test_clipping_is_the_optimizers(place):
    model, _ = build(
        InverseGradientNorm(gradients=place), keras.optimizers.SGD(1.0, global_clipnorm=0.1)
    )
    x, y = data()
    before = parameters(model)
    direction, _ = expected(before, place, x, y)
    size = np.sqrt(sum((d**2).sum() for d in direction))
    assert size > 0.1
    step(model, x, y)
    assert_step(model, before, [0.1 * d / size for d in direction], rate=1.0)


@every_place
def test_a_constant_loss_scale_drops_out(place):
    optimizer = keras.optimizers.SGD(0.1, loss_scale_factor=64.0)
    model, _ = build(InverseGradientNorm(rescale=False, gradients=place), optimizer)
    x, y = data()
    before = parameters(model)
    rows = jacobians(before, x, y)
    w = 1 / np.linalg.norm(rows[place], axis=1)
    np.testing.assert_allclose(logged(step(model, x, y)), w, rtol=1e-5)
    assert_step(model, before, split(w @ rows["parameters"], before))


@every_place
def test_accumulated_steps_are_the_mean_of_their_directions(place):
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model, _ = build(InverseGradientNorm(gradients=place), optimizer)
    before = parameters(model)
    directions = []
    for seed in range(2):
        x, y = data(seed)
        directions.append(expected(before, place, x, y)[0])
        step(model, x, y)
    assert_step(model, before, [(a + b) / 2 for a, b in zip(*directions, strict=True)])


@every_place
def test_update_every_takes_gradients_in_every_nth_step(place):
    model, _loss = build(InverseGradientNorm(gradients=place, update_every=3))
    for seed in range(5):
        x, y = data(seed)
        before = parameters(model)
        rows = jacobians(before, x, y)
        if seed % 3 == 0:
            w = inverse_norms(rows[place])
        logs = step(model, x, y)
        np.testing.assert_allclose(logged(logs), w, rtol=1e-5)
        assert_step(model, before, split(w @ rows["parameters"], before))


def test_shared_layers_choose_the_parameters():
    rule = InverseGradientNorm(gradients="parameters", shared_layers=["head"])
    model, _ = build(rule)
    x, y = data()
    before = parameters(model)
    direction, w = expected(before, "head", x, y)
    np.testing.assert_allclose(logged(step(model, x, y)), w, rtol=1e-5)
    assert_step(model, before, direction)


@every_place
@pytest.mark.parametrize("rule", [InverseGradientNorm, UPGrad], ids=lambda rule: rule.__name__)
def test_in_float16_the_gradients_do_not_vanish(place, rule):
    """A gradient of 1e-7 is 0 in float16. The loss scale makes it larger, and is divided out."""

    def train(policy):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            model, _ = build(rule(gradients=place), head="float32" if place == "none" else None)
            x, y = data(n=8192)
            logs = step(model, x / 8, y / 64)
            return logged(logs), parameters(model)
        finally:
            keras.config.set_dtype_policy(before)

    weights, after = train("float32")
    weights16, after16 = train("mixed_float16")
    np.testing.assert_allclose(weights16, weights, rtol=2e-2)
    for one, other in zip(after16, after, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)


# Layers that are random or have state run once in a step, so all gradients are of one draw.


@every_place
def test_dropout_and_batch_statistics_are_those_of_the_step(place):
    """With a rule whose weights are all 1, a step equals the step without a rule."""

    def train(weighting):
        keras.utils.set_random_seed(5)
        inputs = keras.Input((5,))
        hidden = keras.layers.Dense(6, activation="tanh", name="trunk")(inputs)
        hidden = keras.layers.Dropout(0.5, seed=3)(keras.layers.BatchNormalization()(hidden))
        model = cl.Model(inputs, keras.layers.Dense(3)(hidden))
        loss = cl.CompositeLoss({"mse": "mse", "mae": "mae"}, weighting=weighting)
        model.compile(keras.optimizers.SGD(0.1), loss=loss)
        for seed in range(3):
            logs = step(model, *data(seed))
        state = [ops.convert_to_numpy(v.value) for layer in model.layers for v in layer.variables]
        return state, float(logs["base_loss" if weighting else "loss"])

    state, total = train(None)
    ones = GramianWeighting(equal_weights, gradients=place)
    found, found_total = train(ones)
    assert found_total == pytest.approx(total, rel=1e-5)
    for one, other in zip(found, state, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    # The gradients that the rule has read are of the same draw too.
    assert float(ops.convert_to_numpy(ones.min_cosine)) > 0.2


def equal_weights(gramian):
    return ops.ones_like(ops.diagonal(gramian))


@every_place
def test_several_steps_in_one_and_epochs_give_what_single_steps_give(place):
    x, y = data(n=48)

    def train(**kwargs):
        model, _ = build(InverseGradientNorm(gradients=place), **kwargs)
        history = model.fit(x, y, batch_size=12, epochs=2, shuffle=False, verbose=0)
        return parameters(model), history.history["mse_weight"]

    one, weights = train()
    if keras.backend.backend() != "torch":  # which knows no such steps
        other, other_weights = train(steps_per_execution=2)
        np.testing.assert_allclose(other_weights, weights, rtol=1e-5)
        for a, b in zip(other, one, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    eager, _ = train(run_eagerly=True)
    for a, b in zip(eager, one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# Several outputs, parts of parts, terms beyond the output.


def heads(weighting, optimizer=None):
    """Two heads on a shared layer, which begin alike."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((5,))
    shared = keras.layers.Dense(6, activation="tanh", name="shared")(inputs)
    outputs = {name: keras.layers.Dense(3, name=name)(shared) for name in ("a", "b")}
    model = cl.Model(inputs, outputs)
    model.get_layer("b").set_weights(model.get_layer("a").get_weights())
    loss = cl.CompositeLoss(
        {name: cl.wrappers.OnOutput("mse", name) for name in ("a", "b")}, weighting=weighting
    )
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss=loss)
    return model


def two_targets():
    x, y = data()
    return x, {"a": y, "b": -y}


def head_rows(model, x, y):
    """The gradients of the two heads' components at the shared layer and its parameters."""
    w, bias = (ops.convert_to_numpy(v.value).astype("float64") for v in model.layers[1].weights)
    hidden = np.tanh(x @ w + bias)
    at_layer, at_parameters = [], []
    for name in ("a", "b"):
        kernel, b = (ops.convert_to_numpy(v.value) for v in model.get_layer(name).weights)
        slope = 2 * (hidden @ kernel + b - y[name]) / y[name].size @ kernel.T
        inner = slope * (1 - hidden**2)
        at_layer.append(slope.ravel())
        at_parameters.append(np.concatenate([(x.T @ inner).ravel(), inner.sum(axis=0)]))
    return np.stack(at_layer), np.stack(at_parameters)


def cosine(rows):
    return rows[0] @ rows[1] / np.prod(np.linalg.norm(rows, axis=1))


def test_heads_meet_at_the_layer_that_they_share():
    x, y = two_targets()
    for kwargs, place in (
        ({"gradients": "shared"}, 0),
        ({"gradients": "parameters", "shared_layers": ["shared"]}, 1),
    ):
        rule = UPGrad(log_conflict=True, **kwargs)
        model = heads(rule)
        rows = head_rows(model, x, y)[place]
        assert cosine(rows) < -0.1
        logs = step(model, x, y)
        assert float(logs["min_cosine"]) == pytest.approx(cosine(rows), abs=1e-5)


def test_heads_do_not_meet_at_the_output_and_a_warning_says_so_once():
    x, y = two_targets()
    model = heads(UPGrad())
    with pytest.warns(UserWarning, match="cannot see a conflict of 'a' with 'b'.*parameters"):
        model.fit(x, y, verbose=0)
    model.fit(x, y, verbose=0)  # a warning is an error in these tests
    model = heads(UPGrad())
    with pytest.warns(UserWarning, match="'a' with 'b'.*the output"):
        model.train_on_batch(x, y)
    model.train_on_batch(x, y)


def test_at_the_outputs_each_component_has_the_gradient_of_the_one_it_reads():
    """The outputs are given in an order that differs from the order of their names."""
    x, y = two_targets()
    inputs = keras.Input((5,))
    outputs = {name: keras.layers.Dense(3, name=name)(inputs) for name in ("b", "a")}
    model = cl.Model(inputs, outputs)
    parts = {name: cl.wrappers.OnOutput("mse", name) for name in ("b", "a")}
    loss = cl.CompositeLoss(parts, weighting=InverseGradientNorm())
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    predictions = model.predict(x, verbose=0)
    rows = [2 * (predictions[name] - y[name]).ravel() / y[name].size for name in parts]
    logs = step(model, x, y)
    found = [float(logs[f"{name}_weight"]) for name in parts]
    np.testing.assert_allclose(found, inverse_norms(np.stack(rows)), rtol=1e-5)


def test_a_rule_of_lengths_alone_does_not_need_them_to_meet():
    x, y = two_targets()
    heads(InverseGradientNorm()).fit(x, y, verbose=0)


def test_outputs_with_composites_of_their_own_have_gradients_of_their_own():
    x, y = two_targets()
    keras.utils.set_random_seed(2)
    inputs = keras.Input((5,))
    shared = keras.layers.Dense(6, activation="tanh", name="shared")(inputs)
    model = cl.Model(
        inputs, {name: keras.layers.Dense(3, name=name)(shared) for name in ("a", "b")}
    )
    losses = {
        name: cl.CompositeLoss(["mse", "mae"], weighting=UPGrad(gradients=place))
        for name, place in (("a", "parameters"), ("b", "shared"))
    }
    model.compile(keras.optimizers.SGD(0.1), loss=losses)
    plain = cl.track(keras.Model(model.input, model.output))
    start = model.get_weights()
    logs = step(model, x, y)
    found = [ops.convert_to_numpy(v.value) for v in layer_variables(model)]
    fixed = {
        name: cl.CompositeLoss(
            ["mse", "mae"],
            weights=[float(logs[f"{name}_{part}_weight"]) for part in ("mse", "mae")],
        )
        for name in ("a", "b")
    }
    for variable, value in zip(layer_variables(plain), start, strict=False):
        variable.assign(value)
    plain.compile(keras.optimizers.SGD(0.1), loss=fixed)
    step(plain, x, y)
    for one, variable in zip(found, layer_variables(plain), strict=True):
        np.testing.assert_allclose(one, ops.convert_to_numpy(variable.value), atol=1e-6)


@pytest.mark.parametrize(
    "inner_place, place", [*((p, p) for p in PLACES), *itertools.pairwise((*PLACES, "output"))]
)
def test_a_composite_inside_another_has_a_rule_of_its_own(inner_place, place):
    """The step is that of the weights that are logged."""
    x, y = data()
    inner = cl.CompositeLoss(["mse", "mae"], weighting=InverseGradientNorm(gradients=inner_place))
    outer = cl.CompositeLoss(
        {"inner": inner, "under": under}, weighting=InverseGradientNorm(gradients=place)
    )
    model, _ = build(None)
    model.compile(keras.optimizers.SGD(0.1), loss=outer)
    before = parameters(model)
    logs = step(model, x, y)
    w = [float(logs["inner_weight"]) * float(logs[f"inner/{n}_weight"]) for n in ("mse", "mae")]
    rows = jacobians(before, x, y)
    inside = inverse_norms(rows[inner_place][:2])
    np.testing.assert_allclose(w / np.float64(logs["inner_weight"]), inside, rtol=1e-5)
    both = np.stack([inside @ rows[place][:2], rows[place][2]])
    outside = inverse_norms(both)
    assert float(logs["under_weight"]) == pytest.approx(outside[1], rel=1e-5)
    whole = np.stack([inside @ rows["parameters"][:2], rows["parameters"][2]])
    assert_step(model, before, split(outside @ whole, before))


@every_place
def test_what_is_learned_inside_a_component_is_still_learned(place):
    inner = cl.CompositeLoss(["mse", "mae"], weighting=cl.weightings.UncertaintyWeighting())
    outer = cl.CompositeLoss(
        {"inner": inner, "under": under}, weighting=InverseGradientNorm(gradients=place)
    )
    model, _ = build(None)
    model.compile(keras.optimizers.SGD(0.1), loss=outer)
    step(model, *data())
    assert np.abs(ops.convert_to_numpy(inner.weighting.trainable_variables[0].value)).min() > 0


def slope(model, x, y, y_pred):
    return ops.mean(ops.square(cl.input_gradients(model, x)), axis=(1, 2))


def test_a_term_of_the_model_itself_has_its_gradient_at_the_parameters():
    x, y = data()
    parts = {"mse": "mse", "slope": cl.wrappers.OnInputs(slope)}
    for place in ("output", "trunk"):
        with raises(ValueError, "Component 'slope'", "gradients='parameters'", place):
            cl.CompositeLoss(parts, weighting=UPGrad(gradients=place))

    def train(weights, weighting=None):
        model, _ = build(None)
        model.compile(
            keras.optimizers.SGD(0.1),
            loss=cl.CompositeLoss(parts, weights=weights, weighting=weighting),
        )
        logs = step(model, x, y)
        return parameters(model), logs

    found, logs = train(None, InverseGradientNorm(gradients="parameters"))
    # Steps from one start tell the gradients apart: of the first alone, and of both.
    start, alone, both = parameters(build(None)[0]), *(train([1.0, c])[0] for c in (0.0, 1.0))
    norms = [
        np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(*pair, strict=True)))
        for pair in ((alone, start), (both, alone))
    ]
    w = np.mean(norms) / norms
    np.testing.assert_allclose(
        [float(logs["mse_weight"]), float(logs["slope_weight"])], w, rtol=1e-3
    )
    by_hand, _ = train(w.tolist())
    for one, other in zip(found, by_hand, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


# Components without a gradient.


def constant(y_true, y_pred):
    return ops.mean(y_true, axis=-1) + 0.0 * ops.mean(y_pred, axis=-1)


@every_place
def test_a_component_without_a_gradient_is_left_out(place):
    def train(parts):
        model, _ = build(None)
        model.compile(
            keras.optimizers.SGD(0.1),
            loss=cl.CompositeLoss(parts, weighting=MGDA(gradients=place)),
        )
        logs = step(model, *data())
        return parameters(model), logs

    both = {"mse": "mse", "under": under}
    without, _ = train(both)
    if place == "trunk":  # it might act on other layers
        with pytest.warns(UserWarning, match="these components have none: 'constant'"):
            found, logs = train({**both, "constant": constant})
    else:
        found, logs = train({**both, "constant": constant})
    assert float(logs["constant_weight"]) == (1 if place == "trunk" else 0)
    for one, other in zip(found, without, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@every_place
def test_a_value_that_is_not_finite_is_not_hidden(place):
    model, loss = build(UPGrad(gradients=place))
    x, y = data()
    step(model, x, y)
    before = ops.convert_to_numpy(loss.weighting.variables[1].value)
    y = y.copy()
    y[0, 0] = np.nan
    logs = step(model, x, y)
    assert np.isnan(float(logs["loss"]))
    np.testing.assert_array_equal(ops.convert_to_numpy(loss.weighting.variables[1].value), before)


@pytest.mark.filterwarnings("ignore:A model with .* cannot be saved")  # a lambda
@every_place
def test_a_component_that_is_switched_off_counts_as_absent(place):
    x, y = data()

    def train(parts, weights):
        model, _ = build(None)
        loss = cl.CompositeLoss(parts, weights=weights, weighting=UPGrad(gradients=place))
        model.compile(keras.optimizers.SGD(0.1), loss=loss)
        step(model, x, y)
        return parameters(model)

    found = train({"mse": "mse", "nan": lambda t, p: ops.log(-ops.abs(p))}, [1.0, 0.0])
    expected = train({"mse": "mse"}, None)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() != "torch" or shutil.which("g++") is None,
    reason="torch alone has steps that it compiles on request, and needs a compiler for them",
)
@pytest.mark.filterwarnings("ignore")  # of torch about itself
def test_torch_compiles_a_step_with_gradients_at_the_output():
    x, y = data()

    def train(**kwargs):
        model, _ = build(InverseGradientNorm(), **kwargs)
        model.fit(x, y, epochs=2, verbose=0)
        return parameters(model)

    for one, other in zip(train(jit_compile=True), train(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


# What is logged, kept and refused.


@every_place
def test_the_smallest_cosine_is_logged_on_request(place):
    x, y = data()
    model, _ = build(InverseGradientNorm(gradients=place, log_conflict=True))
    rows = jacobians(parameters(model), x, y)[place]
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    smallest = (units @ units.T)[np.triu_indices(3, 1)].min()
    logs = step(model, x, y)
    assert float(logs["min_cosine"]) == pytest.approx(smallest, abs=1e-5)
    tested = model.evaluate(x, y, verbose=0, return_dict=True)
    assert tested["min_cosine"] == pytest.approx(smallest, abs=1e-5)
    assert "min_cosine" not in step(build(InverseGradientNorm(gradients=place))[0], x, y)


@every_place
def test_validation_has_the_last_weights_and_changes_nothing(place):
    x, y = data()
    model, loss = build(InverseGradientNorm(gradients=place))
    weights = logged(step(model, x, y))
    state = [ops.convert_to_numpy(v.value) for v in loss.variables]
    tested = model.evaluate(*data(1), verbose=0, return_dict=True)
    np.testing.assert_allclose(logged(tested), weights, rtol=1e-6)
    for one, v in zip(state, loss.variables, strict=True):
        np.testing.assert_array_equal(one, ops.convert_to_numpy(v.value))


@every_place
def test_a_smoothed_rule_is_given_the_gradients(place):
    x, y = data()
    model, _ = build(Smoothed(InverseGradientNorm(gradients=place), momentum=0.5))
    first = inverse_norms(jacobians(parameters(model), x, y)[place])
    np.testing.assert_allclose(logged(step(model, x, y)), first, rtol=1e-5)
    second = inverse_norms(jacobians(parameters(model), x, y)[place])
    np.testing.assert_allclose(logged(step(model, x, y)), (first + second) / 2, rtol=1e-5)
    with raises(ValueError, "Smoothed", "update_every", "rule inside"):
        Smoothed(UPGrad(), update_every=2)


@every_place
def test_a_model_that_is_saved_goes_on_where_it_was(place, tmp_path):
    rule = GradientNormBalance(gradients=place, log_conflict=True, update_every=2)
    model, _ = build(rule, keras.optimizers.Adam(0.01))
    step(model, *data(0))
    model.save(tmp_path / "m.keras")
    with keras.saving.custom_object_scope({"under": under}):
        loaded = keras.saving.load_model(tmp_path / "m.keras")
    for seed in (1, 2, 3):
        one, other = step(model, *data(seed)), step(loaded, *data(seed))
        assert {k: float(v) for k, v in one.items()} == pytest.approx(
            {k: float(v) for k, v in other.items()}, rel=1e-5
        )


def test_a_layer_that_is_not_there_is_an_error_before_training():
    with raises(ValueError, "composite_loss", "'trunk' and 'head'", "'output'", "'nowhere'"):
        build(UPGrad(gradients="nowhere"))
    with raises(ValueError, "composite_loss", "'trunk'", "'nowhere'"):
        build(UPGrad(gradients="parameters", shared_layers=["trunk", "nowhere"]))


def test_shared_layers_without_parameters_are_an_error_before_training():
    inputs = keras.Input((5,))
    hidden = keras.layers.Dropout(0.5, name="dropout")(keras.layers.Dense(3)(inputs))
    model = cl.Model(inputs, keras.layers.Dense(3)(hidden))
    rule = UPGrad(gradients="parameters", shared_layers=["dropout"])
    with raises(ValueError, "composite_loss", "parameters", "'dropout'"):
        model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"], weighting=rule))


def test_where_all_shared_layers_are_frozen_the_weights_stay():
    model, _ = build(InverseGradientNorm(gradients="parameters", shared_layers=["trunk"]))
    model.get_layer("trunk").trainable = False
    with pytest.warns(UserWarning, match="these components have none: 'mse', 'mae' and 'under'"):
        np.testing.assert_allclose(logged(step(model, *data())), 1.0, rtol=1e-6)


class SkipsALayer(cl.Model):
    def __init__(self):
        super().__init__()
        self.trunk = keras.layers.Dense(3, name="trunk")
        self.trunk.build((None, 5))
        self.head = keras.layers.Dense(3, name="head")

    def call(self, x):
        return self.head(x)


def test_a_layer_that_is_not_called_is_an_error():
    model = SkipsALayer()
    loss = cl.CompositeLoss(["mse", "mae"], weighting=UPGrad(gradients="trunk"))
    model.compile("sgd", loss=loss)
    with raises(ValueError, "has not called the layer 'trunk'"):
        model.train_on_batch(*data())


def test_it_needs_the_train_step_of_the_mixin_but_for_the_output():
    inputs = keras.Input((5,))
    outputs = keras.layers.Dense(3, name="trunk")(inputs)
    for place in PLACES[1:]:
        model = cl.Model(inputs, outputs)
        model.compile(
            "sgd", loss=cl.CompositeLoss(["mse", "mae"], weighting=UPGrad(gradients=place))
        )
        x, y = data()
        refused = raises(
            ValueError, "composite_loss", "super().train_step", "'output'", repr(place)
        )
        with refused, inside("step"):
            model.compute_loss(x=x, y=y, y_pred=model(x), training=True)


def test_in_a_plain_model_it_keeps_its_weights():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"], weighting=UPGrad()))
    with pytest.warns(UserWarning, match="cl.track"):
        model.fit(*data(), verbose=0)


class Subclassed(cl.ComponentMetricsMixin, keras.Model):
    """Its `compute_loss` sees predictions of its own making."""

    def __init__(self):
        super().__init__()
        self.trunk = keras.layers.Dense(6, activation="tanh", name="trunk")
        self.head = keras.layers.Dense(3, name="head")

    def call(self, x, training=False):
        return self.head(self.trunk(x))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super().compute_loss(x, y, 2.0 * y_pred, sample_weight, training)


@every_place
def test_a_class_of_ones_own_may_change_what_the_loss_sees(place):
    x, y = data()
    model = Subclassed()
    model.compile(
        keras.optimizers.SGD(0.1),
        loss=cl.CompositeLoss(["mse", "mae"], weighting=InverseGradientNorm(gradients=place)),
    )
    model(x)
    theta = parameters(model)
    doubled = [theta[0], theta[1], 2 * theta[2], 2 * theta[3]]
    rows = jacobians(doubled, x, y)
    at = {"output": rows["output"], "trunk": rows["trunk"]}
    at["parameters"] = np.concatenate(
        [rows["parameters"][:, : -rows["head"].shape[1]], 2 * rows["head"]], axis=1
    )
    logs = step(model, x, y)
    w = inverse_norms(at[place][:2])
    np.testing.assert_allclose([float(logs["mse_weight"]), float(logs["mae_weight"])], w, rtol=1e-5)
