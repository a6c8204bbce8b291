"""Models of several outputs: which output meets which loss, weight and target, under which key."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.training.tiny import FROZEN, arrays, mae, mse, sgd, two_heads

LIST_KEYS = ["loss", "a_mse_loss", "a_mae_loss", "b_mse_loss", "b_mae_loss"]


def mse_and_mae(weight=0.5, **kwargs):
    return cl.CompositeLoss({"mse": "mse", "mae": "mae"}, {"mae": weight}, **kwargs)


def problem(structure=list, seed=0):
    """A model, its input, a target for each output and what it predicts there."""
    model = two_heads(structure=structure, seed=seed)
    x, y = arrays(outputs=2)
    kernels = [np.random.default_rng([seed, index]).normal(size=(3, 1)) for index in range(2)]
    predicted = [x.astype("float64") @ kernel.astype("float32") for kernel in kernels]
    return model, x, {"a": y[:, :1], "b": y[:, 1:]}, dict(zip("ab", predicted, strict=True))


def evaluated(model, x, y, loss, sample_weight=None, **compiling):
    model.compile(sgd(FROZEN), loss=loss, **compiling)
    return model.evaluate(
        x, y, sample_weight=sample_weight, batch_size=4, verbose=0, return_dict=True
    )


# One composite for all.


@pytest.mark.parametrize("structure", [list, tuple, dict])
def test_a_composite_is_applied_to_each_output_and_adds_up_over_a_partial_batch(structure):
    model, x, y, p = problem(structure)
    target = y if structure is dict else [*y.values()]
    logs = evaluated(model, x, target, mse_and_mae())
    expected = {f"{o}_{f.__name__}_loss": f(y[o], p[o]) for o in "ab" for f in (mse, mae)}
    assert list(logs) == LIST_KEYS == model.metrics_names
    total = sum(v * (0.5 if "mae" in key else 1.0) for key, v in expected.items())
    assert logs == pytest.approx({"loss": total, **expected}, rel=1e-6)


def test_fit_and_validation_add_up_over_a_partial_batch():
    model, x, y, _ = problem()
    model.compile(sgd(FROZEN), loss=mse_and_mae())
    y = [*y.values()]
    kwargs = {"batch_size": 4, "validation_batch_size": 3, "verbose": 0}
    history = model.fit(x, y, validation_data=(x[:8], [part[:8] for part in y]), **kwargs).history
    for prefix in ("", "val_"):
        parts = [history[prefix + key][0] for key in LIST_KEYS[1:]]
        total = parts[0] + 0.5 * parts[1] + parts[2] + 0.5 * parts[3]
        assert history[prefix + "loss"] == pytest.approx([total], rel=1e-6)


def test_training_reaches_every_output_with_every_component():
    """One step of SGD on each head is the one that the gradient of its own total gives."""
    model, x, y, p = problem()
    model.compile(sgd(0.1), loss=mse_and_mae())
    before = {head: model.get_layer(head).get_weights()[0] for head in "ab"}
    model.fit(x, [*y.values()], batch_size=10, verbose=0)
    for head in "ab":
        error = p[head] - y[head]
        gradient = x.T @ (2 * error + 0.5 * np.sign(error)) / len(x)
        after = model.get_layer(head).get_weights()[0]
        np.testing.assert_allclose(after, before[head] - 0.1 * gradient, rtol=1e-5)


# Losses of their own.

CASES = {
    "a dict": {"a": mse_and_mae, "b": lambda: "mse"},
    "the composite second": {"a": lambda: "mse", "b": mse_and_mae},
    "two composites": {"a": mse_and_mae, "b": lambda: mse_and_mae(2.0)},
    "a list of losses beside a composite": {"a": mse_and_mae, "b": lambda: ["mse", "mae"]},
    "only one output": {"b": mse_and_mae},
    "none for one output": {"a": mse_and_mae, "b": lambda: None},
}
KEYS = {
    "a dict": ["loss", "a_mse_loss", "a_mae_loss", "b_loss"],
    "the composite second": ["loss", "a_loss", "b_mse_loss", "b_mae_loss"],
    "two composites": LIST_KEYS,
    "a list of losses beside a composite": LIST_KEYS,
    "only one output": ["loss", "b_mse_loss", "b_mae_loss"],
    "none for one output": ["loss", "a_mse_loss", "a_mae_loss"],
}


def expected_logs(losses, y, p, loss_weights=None):
    """The logs by hand, for the losses of `CASES`."""
    logs, total = {}, 0.0
    for head, loss in losses.items():
        if loss is None:
            continue
        if isinstance(loss, str):
            parts, weights = {f"{head}_loss": mse(y[head], p[head])}, [1.0]
        else:
            parts = {f"{head}_{f.__name__}_loss": f(y[head], p[head]) for f in (mse, mae)}
            weights = [1.0, 1.0] if isinstance(loss, list) else loss.weights.values()
        factor = (loss_weights or {}).get(head, 1.0)
        total += factor * sum(w * v for w, v in zip(weights, parts.values(), strict=True))
        logs |= parts
    return {"loss": total, **logs}


@pytest.mark.parametrize("structure", [list, dict])
@pytest.mark.parametrize("case", CASES)
def test_losses_of_their_own_and_their_keys(case, structure):
    model, x, y, p = problem(structure)
    losses = {head: make() for head, make in CASES[case].items()}
    logs = evaluated(model, x, y, losses)
    assert list(logs) == KEYS[case]
    assert logs == pytest.approx(expected_logs(losses, y, p), rel=1e-6)


def test_a_list_of_losses_goes_by_position():
    model, x, y, p = problem()
    losses = [mse_and_mae(), "mse"]
    logs = evaluated(model, x, [*y.values()], losses)
    expected = expected_logs(dict(zip("ab", losses, strict=True)), y, p)
    assert logs == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "loss_weights", [{"b": 0.25}, {"a": 3.0}, {"a": 3.0, "b": 0.25}, [3.0, 0.25], {}]
)
def test_loss_weights_may_be_partial(loss_weights):
    model, x, y, p = problem()
    losses = {"a": mse_and_mae(), "b": "mse"}
    logs = evaluated(model, x, [*y.values()], losses, loss_weights=loss_weights)
    if isinstance(loss_weights, list):
        loss_weights = dict(zip("ab", loss_weights, strict=True))
    assert logs == pytest.approx(expected_logs(losses, y, p, loss_weights), rel=1e-6)


def test_one_loss_weight_multiplies_a_whole_composite():
    model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    x, y = arrays(features=1)
    logs = evaluated(model, x, y, mse_and_mae(), loss_weights=3.0)
    expected = {"loss": 3 * (mse(y, 0) + 0.5 * mae(y, 0)), "mse_loss": mse(y, 0)}
    assert logs == pytest.approx({**expected, "mae_loss": mae(y, 0)}, rel=1e-6)


# Targets and sample weights.


def test_a_target_for_each_output_that_has_a_loss_is_enough():
    model, x, y, p = problem()
    losses = {"b": mse_and_mae()}
    for target in ({"b": y["b"]}, [y["b"]], [y["a"], y["b"]], y):
        logs = evaluated(model, x, target, losses)
        assert logs == pytest.approx(expected_logs(losses, y, p), rel=1e-6)


A_WEIGHT, B_WEIGHT = np.linspace(0, 1, 10), np.linspace(2, 1, 10)


@pytest.mark.parametrize(
    "given, a_weight, b_weight",
    [
        (A_WEIGHT, A_WEIGHT, A_WEIGHT),
        ([A_WEIGHT, B_WEIGHT], A_WEIGHT, B_WEIGHT),
        ({"b": B_WEIGHT, "a": A_WEIGHT}, A_WEIGHT, B_WEIGHT),
    ],
    ids=["an array for all", "a list", "a dict"],
)
@pytest.mark.parametrize("structure", [list, dict])
def test_sample_weights_reach_their_output(given, a_weight, b_weight, structure):
    """Targets and weights are given in one structure, the outputs are in this or the other."""
    model, x, y, p = problem(structure)
    target = [*y.values()] if isinstance(given, list) else y
    logs = evaluated(model, x, target, mse_and_mae(), sample_weight=given)
    for head, weight in (("a", a_weight), ("b", b_weight)):
        expected = np.mean(weight[:, None] * (y[head] - p[head]) ** 2)
        assert logs[f"{head}_mse_loss"] == pytest.approx(expected, rel=1e-6)


def test_each_output_has_its_own_mask():
    inputs = keras.Input((3, 2))
    masked = keras.layers.Masking(0.0)(inputs)
    b = keras.layers.Rescaling(1.0, name="b")(inputs)
    model = cl.Model(inputs, {"a": masked, "b": b})
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 3, 2)).astype("float32")
    x[:, 2] = 0.0
    logs = evaluated(model, x, {"a": y, "b": y}, cl.CompositeLoss(["mse"]))
    assert logs["a_mse_loss"] == pytest.approx(mse(y[:, :2], x[:, :2]), rel=1e-6)
    assert logs["b_mse_loss"] == pytest.approx(mse(y, x), rel=1e-6)


# Metrics beside them.


def test_metrics_of_the_outputs_come_after_the_components():
    model, x, y, p = problem(dict)
    logs = evaluated(model, x, y, mse_and_mae(), metrics={"b": ["mae"], "a": ["mse"]})
    assert list(logs)[:5] == LIST_KEYS
    assert sorted(list(logs)[5:]) == ["a_mse", "b_mae"]
    assert logs["b_mae"] == pytest.approx(mae(y["b"], p["b"]), rel=1e-6)


def test_the_weight_of_a_component_is_logged_for_each_output():
    model, x, y, _ = problem(dict)
    loss = mse_and_mae()
    loss.set_weight("mae", 2.0)
    logs = evaluated(model, x, y, loss)
    assert (logs["a_mae_weight"], logs["b_mae_weight"]) == (2.0, 2.0)
    assert sorted(logs) == sorted([*LIST_KEYS, "a_mae_weight", "b_mae_weight"])


# Subclassed models, whose outputs show only when they are called.


class Heads(cl.ComponentMetricsMixin, keras.Model):
    def __init__(self, structure):
        super().__init__()
        self.a, self.b = (keras.layers.Dense(1, kernel_initializer="zeros") for _ in "ab")
        self.structure = structure

    def call(self, inputs):
        a, b = self.a(inputs), self.b(inputs)
        return {"a": a, "b": b} if self.structure is dict else self.structure((a, b))


@pytest.mark.parametrize("structure, names", [(dict, "ab"), (tuple, ["output_1", "output_2"])])
def test_a_subclassed_model_that_has_not_been_built(structure, names):
    x, y = arrays(outputs=2)
    model, target = Heads(structure), (y[:, :1], y[:, 1:])
    if structure is dict:
        target = dict(zip("ab", target, strict=True))
    model.compile(sgd(FROZEN), loss=mse_and_mae())
    history = model.fit(x, target, batch_size=4, verbose=0).history
    assert sorted(history) == sorted(
        ["loss", *(f"{n}_{c}_loss" for n in names for c in ("mse", "mae"))]
    )
    assert history[f"{names[1]}_mse_loss"] == pytest.approx([mse(y[:, 1:], 0)], rel=1e-6)
    assert model.evaluate(x, target, verbose=0)[0] == pytest.approx(history["loss"][0], rel=1e-6)


@pytest.mark.parametrize("wrap", [lambda a: [a], lambda a: {"a": a}], ids=["list", "dict"])
def test_a_single_output_in_a_structure_has_no_prefix(wrap):
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1, kernel_initializer="zeros", name="a")(inputs)
    x, y = arrays()
    for loss in (mse_and_mae(), {"a": mse_and_mae()}):
        logs = evaluated(cl.Model(inputs, wrap(outputs)), x, wrap(y), loss)
        assert list(logs) == ["loss", "mse_loss", "mae_loss"]
        assert logs["mse_loss"] == pytest.approx(mse(y, 0), rel=1e-6)


# Mistakes.


@pytest.mark.parametrize(
    "compiling, message",
    [
        ({"loss": {"a": mse_and_mae(), "c": "mse"}}, "`loss` must name outputs.*'c'"),
        ({"loss": mse_and_mae(), "loss_weights": {"c": 2.0}}, "`loss_weights` must.*'c'"),
        ({"loss": [mse_and_mae(), "mse", "mae"]}, "`loss` must have one entry.*3 entries"),
        ({"loss": mse_and_mae(), "loss_weights": [1.0]}, "`loss_weights` must have one entry"),
    ],
)
def test_what_does_not_match_the_outputs_is_an_error_before_training(compiling, message):
    model, x, y, _ = problem()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.compile(sgd(), **compiling)
        model.fit(x, [*y.values()], verbose=0)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize("target", [lambda y: {"a": y["a"]}, lambda y: y["a"]], ids=["dict", "one"])
def test_a_missing_target_is_an_error_that_names_it(target):
    model, x, y, _ = problem(dict)
    model.compile(sgd(), loss=mse_and_mae())
    with pytest.raises(ValueError, match=r"`y` must hold.*'b'"):
        model.fit(x, target(y), verbose=0)


def test_a_wrong_name_of_the_only_output_is_an_error():
    inputs = keras.Input((3,))
    model = cl.Model(inputs, keras.layers.Dense(1, name="a")(inputs))
    with pytest.raises(ValueError, match=r"`loss` must name outputs.*'a'.*'wrong'"):
        model.compile(sgd(), loss={"wrong": mse_and_mae()})
        model.fit(*arrays(), verbose=0)


def test_no_targets_at_all_is_an_error_that_says_so():
    model, x, _, _ = problem(dict)
    for tracked in (model, cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])):
        tracked.compile(sgd(), loss=mse_and_mae())
        with pytest.raises(ValueError, match="`y` must"):
            tracked.fit(x, verbose=0)


def test_two_losses_that_would_share_a_key_are_an_error():
    inputs = keras.Input((3,))
    outputs = {name: keras.layers.Dense(1)(inputs) for name in ("a", "a_b")}
    model = cl.Model(inputs, outputs)
    losses = {"a": cl.CompositeLoss({"b_mse": "mse"}), "a_b": cl.CompositeLoss({"mse": "mse"})}
    x, y = arrays()
    with pytest.raises(ValueError, match="'a_b_mse_loss'"):
        model.compile(sgd(), loss=losses)
        model.fit(x, {"a": y, "a_b": y}, verbose=0)


# Without a composite nothing changes.


@pytest.mark.parametrize("structure", [list, dict])
def test_without_a_composite_logs_and_weights_are_keras_s(structure):
    x, y = arrays(outputs=2)
    target = {"a": y[:, :1], "b": y[:, 1:]}
    seen = []
    for cls in (keras.Model, cl.Model):
        model = two_heads(cls, structure)
        options = {"loss": {"a": "mse", "b": "mae"}, "loss_weights": {"a": 0.3, "b": 1.0}}
        model.compile("adam", metrics={"a": ["mae"], "b": ["mse"]}, **options)
        given = target if structure is dict else [*target.values()]
        history = model.fit(x, given, batch_size=4, shuffle=False, epochs=2, verbose=0).history
        values = model.evaluate(x, given, verbose=0)
        seen.append(
            (history, values, model.metrics_names, [w.tolist() for w in model.get_weights()])
        )
    assert seen[0] == seen[1]


def test_a_dict_of_outputs_may_come_in_any_order():
    inputs = keras.Input((3,))
    outputs = {"b": keras.layers.Dense(1)(inputs), "a": keras.layers.Dense(1)(inputs)}
    model = cl.Model(inputs, outputs)
    model.compile(sgd(), loss={"b": mse_and_mae(), "a": "mse"})
    x, y = arrays()
    model.fit(x, {"b": y, "a": y}, verbose=0)
    names = ["loss", "b_mse_loss", "b_mae_loss", "a_loss"]
    assert list(model.evaluate(x, {"b": y, "a": y}, verbose=0, return_dict=True)) == names


def test_a_plain_loss_may_be_given_by_the_name_of_its_class():
    inputs = keras.Input((3,))
    outputs = {"a": keras.layers.Dense(1)(inputs), "b": keras.layers.Dense(1)(inputs)}
    model = cl.Model(inputs, outputs)
    model.compile(sgd(), loss={"a": mse_and_mae(), "b": "MeanSquaredError"})
    x, y = arrays()
    names = ["loss", "a_mse_loss", "a_mae_loss", "b_loss"]
    assert list(model.evaluate(x, {"a": y, "b": y}, verbose=0, return_dict=True)) == names
