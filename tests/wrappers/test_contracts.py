"""What every wrapper does around every loss: the child on the data that it names, nothing else."""

import inspect
import json
import math

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.wrappers import (
    Activated,
    ClassWeighted,
    DeepSupervision,
    Hardest,
    Masked,
    Matched,
    MultiScale,
    Normalized,
    NormalizedByPositives,
    OneHot,
    OnInputs,
    OnOutput,
    OnSlice,
    PerChannel,
    PerElement,
    Permuted,
    PredictionOnly,
    Scaled,
    StopGradient,
)
from tests.composite.children import (
    CHILDREN,
    KERAS_CHILDREN,
    REDUCTIONS,
    WEIGHTS,
    Y_PRED,
    Y_TRUE,
    SquaredError,
    log_ratio,
    value,
)
from tests.contracts.registry import CASES
from tests.gradients import gradient
from tests.masks import masked
from tests.messages import raises
from tests.wrappers.numpy_twins import (
    block_means,
    channels,
    check,
    close,
    mae,
    mse,
    normal,
    total,
)

STEPS = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1]], bool)
STEP_WEIGHTS = np.array([[1, 2, 0], [1, 1, 3], [0, 0, 0], [0.5, 1, 1]], "float32")


# The wrappers that show one array another way: how to wrap a loss, and what it does to a total.
VIEWS = {
    "slice": (
        lambda loss: OnSlice(loss, np.s_[:, 0:2]),
        lambda f: lambda t, p: f(t[:, 0:2], p[:, 0:2]),
    ),
    "scaled": (lambda loss: Scaled(loss, 2.5), lambda f: lambda t, p: f(t / 2.5, p / 2.5)),
    "per_channel": (
        PerChannel,
        lambda f: lambda t, p: sum(f(*c) for c in zip(channels(t), channels(p), strict=True)),
    ),
    "activated": (lambda loss: Activated(loss, "tanh"), lambda f: lambda t, p: f(t, np.tanh(p))),
    "prediction_only": (PredictionOnly, lambda f: lambda t, p: f(np.zeros_like(p), p)),
    "multi_scale": (
        lambda loss: MultiScale(loss, (1, 2), [1.0, 0.5]),
        lambda f: lambda t, p: f(t, p) + 0.5 * f(block_means(t, 2), block_means(p, 2)),
    ),
}
every_view = pytest.mark.parametrize("view", VIEWS)
WRAPPED = [case for case in CASES if case.wrapped]
every_loss = pytest.mark.parametrize("case", WRAPPED, ids=lambda case: case.loss.__name__)


def data_of(case):
    """A batch for any loss of the registry, long enough to be cut and averaged."""
    rank = case.y_pred.ndim
    shape = (4, *[5, 4, 3][: rank - 2], 2)
    return normal(*shape, seed=11), normal(*shape, seed=12)


def values_of(case):
    return lambda t, p: case.oracle(t, p)[0]


# Around every loss of the library.


@every_view
@every_loss
def test_it_is_the_child_on_the_data_that_it_shows(case, view):
    wrap, twin = VIEWS[view]
    slopes = case.y_pred.ndim < 4  # the twins of fields are slow
    check(wrap(case.loss()), twin(total(values_of(case))), *data_of(case), slopes=slopes)


@every_view
@every_loss
def test_sample_weights_reach_the_child(case, view):
    wrap, twin = VIEWS[view]
    for reduction in ("sum_over_batch_size", "sum", "mean_with_sample_weight"):
        expected = twin(total(values_of(case), WEIGHTS, None, reduction))
        loss = wrap(case.loss(reduction=reduction))
        check(loss, expected, *data_of(case), WEIGHTS, slopes=False)


@every_view
@every_loss
def test_a_mask_reaches_the_child(case, view):
    wrap, twin = VIEWS[view]
    mask = WEIGHTS > 0
    expected = twin(total(values_of(case), None, mask))
    check(wrap(case.loss()), expected, *data_of(case), None, mask, slopes=False)


@every_view
@every_loss
def test_a_row_of_weight_0_does_no_harm(case, view):
    y_true, y_pred = data_of(case)
    loss = VIEWS[view][0](case.loss())
    bad_true, bad_pred = y_true.copy(), y_pred.copy()
    bad_true[1], bad_pred[1] = np.nan, np.nan
    close(value(loss, bad_true, bad_pred, WEIGHTS), value(loss, y_true, y_pred, WEIGHTS))
    slope = gradient(lambda p: loss(bad_true, p, WEIGHTS), bad_pred)
    close(slope, gradient(lambda p: loss(y_true, p, WEIGHTS), y_pred))
    assert np.all(slope[1] == 0)


@every_loss
def test_without_a_gradient_the_value_is_the_same(case):
    y_true, y_pred = data_of(case)
    loss = StopGradient(case.loss())
    close(value(loss, y_true, y_pred), total(values_of(case))(y_true, y_pred))
    assert np.all(gradient(lambda p: loss(y_true, p), y_pred) == 0)


@every_loss
def test_a_loss_may_read_one_of_several_outputs(case):
    y_true, y_pred = data_of(case)
    loss = OnOutput(case.loss(), "a")
    other = np.zeros((4, 1), "float32")
    expected = total(values_of(case))(y_true, y_pred)
    close(value(loss, {"a": y_true, "b": other}, {"a": y_pred, "b": other}), expected)
    close(value(loss, y_true, {"b": other, "a": y_pred}), expected)


@every_loss
def test_maps_of_ids_are_one_hot_for_every_loss(case):
    _, y_pred = data_of(case)
    ids = np.random.default_rng(0).integers(0, 2, y_pred.shape[:-1])
    expected = total(values_of(case))(np.eye(2)[ids], y_pred)
    close(value(OneHot(case.loss(), 2), ids, y_pred), expected)
    close(value(OneHot(case.loss(), 2), ids[..., None], y_pred), expected)


@every_loss
def test_elements_and_missing_ones_are_those_of_elementwise_losses(case):
    y_true, y_pred = data_of(case)
    holes = np.where(np.random.default_rng(1).random(y_true.shape) < 0.4, np.nan, y_true)
    if not case.loss.elementwise:
        with raises(ValueError, "PerElement", "single elements", "Received: "):
            PerElement(case.loss())
        with raises(ValueError, "cannot honour the mask", "Received: "):
            Masked(case.loss())(holes, y_pred)
        return
    there = ~np.isnan(holes)
    alone = case.oracle(y_true[..., None], y_pred[..., None])[0]
    close(value(PerElement(case.loss()), y_true, y_pred), alone.mean(axis=0).sum())
    close(value(Masked(case.loss()), holes, y_pred), alone[there].mean())


# Wrappers in wrappers.


@pytest.mark.parametrize("inner", VIEWS)
@pytest.mark.parametrize("outer", VIEWS)
def test_wrappers_nest_in_any_order(outer, inner):
    wrap_outer, twin_outer = VIEWS[outer]
    wrap_inner, twin_inner = VIEWS[inner]
    y_true, y_pred = normal(4, 6, 2, seed=11), normal(4, 6, 2, seed=12)
    if outer == inner == "slice":
        y_true, y_pred = y_true[:, :2], y_pred[:, :2]
    expected = twin_outer(twin_inner(total(mse, WEIGHTS)))
    check(wrap_outer(wrap_inner("mse")), expected, y_true, y_pred, WEIGHTS)


@pytest.mark.parametrize("view", [*VIEWS, "stop_gradient"])
def test_a_term_without_a_target_needs_none_in_any_wrapper(view):
    wrap, twin = VIEWS.get(view, (StopGradient, lambda f: f))
    y_pred = normal(4, 6, 2, seed=12)
    loss = wrap(PredictionOnly("mse"))
    assert not loss.needs_target
    expected = twin(total(lambda t, p: mse(0 * p, p)))(0 * y_pred, y_pred)
    for y_true in (None, np.full((4, 3), np.nan)):
        close(value(loss, y_true, y_pred), expected)


@pytest.mark.parametrize("view", VIEWS)
def test_the_parts_of_a_composite_inside_are_visible_under_its_names(view):
    if view in ("per_channel", "multi_scale"):
        pytest.skip("its parts are channels and scales")
    wrap, twin = VIEWS[view]
    loss = cl.CompositeLoss({"out": wrap(cl.CompositeLoss(["mse", "mae"], [2.0, 0.5]))})
    y_true, y_pred = normal(4, 6, 2, seed=11), normal(4, 6, 2, seed=12)
    one, two = (twin(total(f, WEIGHTS))(y_true, y_pred) for f in (mse, mae))
    parts = {name: float(v) for name, v in loss.components(y_true, y_pred, WEIGHTS).items()}
    expected = {"out": 2 * one + 0.5 * two, "out/mse": one, "out/mae": two}
    assert parts == pytest.approx(expected, rel=1e-5)
    loss.set_weight("out/mae", 0.0)
    close(value(loss, y_true, y_pred, WEIGHTS), 2 * one)


# Nothing is changed where nothing is chosen: the child itself.

IDENTITIES = {
    "slice": lambda loss: OnSlice(loss, np.s_[...]),
    "scaled": lambda loss: Scaled(loss, 1.0),
    "activated": lambda loss: Activated(loss, "linear"),
    "multi_scale": lambda loss: MultiScale(loss, (1,)),
    "stop_gradient": StopGradient,
    "two": lambda loss: StopGradient(OnSlice(loss, np.s_[..., :])),
}
every_identity = pytest.mark.parametrize("wrap", IDENTITIES.values(), ids=IDENTITIES)
SEEN = {
    "plain": (lambda p: p, None),
    "weights": (lambda p: p, WEIGHTS),
    "weights of steps": (lambda p: p, STEP_WEIGHTS),
    "mask": (lambda p: masked(p, STEPS), None),
    "both": (lambda p: masked(p, STEPS), WEIGHTS),
}


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("kind", [kind for kind in CHILDREN if kind != "field"])
@every_identity
def test_a_view_of_everything_is_the_child(wrap, kind, seen):
    child, (put, weight) = CHILDREN[kind](), SEEN[seen]
    data = () if weight is None else (weight,)
    expected = value(cl.CompositeLoss([child]), Y_TRUE, put(Y_PRED), *data)
    close(value(wrap(child), Y_TRUE, put(Y_PRED), *data), expected, rtol=1e-6)
    close(value(cl.CompositeLoss([wrap(child)]), Y_TRUE, put(Y_PRED), *data), expected, rtol=1e-6)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, None])
@every_identity
def test_a_reduction_is_that_of_the_child(wrap, reduction):
    """Chosen for the wrapper, or imposed by the composite around it."""
    for kind in CHILDREN:
        alone = cl.CompositeLoss([CHILDREN[kind]()], reduction=reduction)
        expected = value(alone, Y_TRUE, Y_PRED, WEIGHTS)
        around = cl.CompositeLoss([wrap(CHILDREN[kind]())], reduction=reduction)
        close(value(around, Y_TRUE, Y_PRED, WEIGHTS), expected, rtol=1e-6)
        own = type(wrap("mse"))
        chosen = wrap(CHILDREN[kind]())
        again = own.from_config({**chosen.get_config(), "reduction": reduction})
        close(value(again, Y_TRUE, Y_PRED, WEIGHTS), expected, rtol=1e-6)


@pytest.mark.parametrize("name", KERAS_CHILDREN)
def test_every_loss_of_keras_can_be_wrapped(name):
    child = KERAS_CHILDREN[name]
    for reduction in ("sum_over_batch_size", "mean_with_sample_weight"):
        alone = cl.CompositeLoss([child.make(reduction=reduction)])
        loss = StopGradient(child.make(reduction=reduction))
        given = (child.y_true, child.y_pred, *([] if name == "Circle" else [WEIGHTS]))
        close(value(loss, *given), value(alone, *given), rtol=1e-6)


@pytest.mark.parametrize("kind", ["keras", "string", "own"])
def test_without_missing_labels_it_is_the_child(kind):
    """The child averages over equal rows, so the mean over elements is the mean over rows."""
    expected = value(cl.CompositeLoss([CHILDREN[kind]()]), Y_TRUE, Y_PRED, WEIGHTS)
    for loss in (Masked(CHILDREN[kind]()), Masked(CHILDREN[kind](), -1.0)):
        close(value(loss, Y_TRUE, Y_PRED, WEIGHTS), expected)


@pytest.mark.backend_free
@pytest.mark.parametrize("view", [*IDENTITIES, "per_channel"])
@pytest.mark.parametrize("bad", ["avg", 1, ""])
def test_a_reduction_is_one_of_keras_s(view, bad):
    make = {
        "scaled": lambda: Scaled("mse", 1.0, reduction=bad),
        "slice": lambda: OnSlice("mse", ..., reduction=bad),
    }
    with raises(ValueError, "`reduction` must be one of 'per_component'", f"Received: {bad!r}"):
        make.get(view, lambda: Masked("mse", reduction=bad))()
    with raises(ValueError, "`reduction` must be one of", f"Received: {bad!r}"):
        OnInputs(steepness, reduction=bad)


# Operators and names.


def one_of_each():
    """Every wrapper with every argument off its default."""
    names = {"name": "mine", "reduction": "sum"}
    crossentropy = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    return {
        OnSlice: OnSlice(keras.losses.Huber(0.3), np.s_[:, 0:-1:2, ..., 1], **names),
        Scaled: Scaled("mse", np.array([2.0, 0.5]), **names),
        PerChannel: PerChannel(
            {"a": keras.losses.Huber(0.3), "b": "mae"},
            axis=-1,
            weights={"b": 0.25},
            aggregation="weighted_mean",
            **names,
        ),
        PerElement: PerElement(
            "mae", None, np.arange(1.0, 7.0).reshape(3, 2), (3, 2), "mean", **names
        ),
        Masked: Masked("mse", math.nan, np.eye(3, 2) > 0, **names),
        ClassWeighted: ClassWeighted(crossentropy, np.array([1.0, 3.0]), **names),
        OneHot: OneHot(crossentropy, 2, 255, **names),
        OnOutput: OnOutput("mse", ("a", "b"), "t", **names),
        OnInputs: OnInputs(steepness, **names),
        PredictionOnly: PredictionOnly(SquaredError(), **names),
        MultiScale: MultiScale("mse", (1, 3), (1.0, 0.5), **names),
        DeepSupervision: DeepSupervision("mse", [1.0, 0.5], ["a", "b"], **names),
        Normalized: Normalized("mse", "weights", ["a", "b"], **names),
        Hardest: Hardest("mse", count=2, over="batch", **names),
        Matched: Matched("mse", cost="mae", unmatched=0.5, mask_value=-1.0, **names),
        Permuted: Permuted("mse", axis=1, **names),
        NormalizedByPositives: NormalizedByPositives("mse", over="sample", **names),
        StopGradient: StopGradient(cl.losses.AsymmetricError(3.0), **names),
        Activated: Activated("mse", "sigmoid", **names),
    }


@keras.saving.register_keras_serializable("tests_wrappers")
def steepness(model, x, y, y_pred):
    return keras.ops.square(cl.input_gradients(model, x))


EACH = one_of_each()
every_wrapper = pytest.mark.parametrize("wrapper", EACH, ids=lambda cls: cls.__name__)


@pytest.mark.backend_free
def test_every_wrapper_is_among_them():
    found = {getattr(cl.wrappers, name) for name in cl.wrappers.__all__}
    assert found - {cl.wrappers.Wrapper} == set(EACH)


@pytest.mark.backend_free
@every_wrapper
def test_it_is_registered_and_its_config_has_every_argument(wrapper):
    loss = EACH[wrapper]
    serialized = keras.saving.serialize_keras_object(loss)
    assert serialized["registered_name"] == f"combined_losses>{wrapper.__name__}"
    assert {"reduction", "name", "dtype"} < set(serialized["config"])
    own = inspect.signature(wrapper.__init__).parameters
    given = {name for name in own if name not in ("self", "args", "kwargs")}
    assert given <= set(serialized["config"])


@pytest.mark.backend_free
@every_wrapper
def test_its_config_comes_back_from_json_as_it_was(wrapper):
    loss = EACH[wrapper]
    loaded = through_json(loss)
    assert type(loaded) is wrapper
    assert (loaded.name, loaded.reduction, loaded.dtype) == ("mine", "sum", loss.dtype)
    assert loaded.component_names == loss.component_names
    assert as_json(loaded) == as_json(loss)


def as_json(loss):
    return json.dumps(keras.saving.serialize_keras_object(loss))


def through_json(loss):
    return keras.saving.deserialize_keras_object(json.loads(as_json(loss)))


def call_of(wrapper):
    """Data for the wrapper of `one_of_each`."""
    ids = np.array([[0, 1, 255], [1, 1, 0], [0, 0, 0], [1, 255, 0]])
    one_hot = np.eye(2, dtype="float32")[np.minimum(ids, 1)]
    heads = {"a": Y_PRED, "b": 1 - Y_PRED}
    special = {
        OneHot: (ids, Y_PRED),
        ClassWeighted: (one_hot, Y_PRED),
        Masked: (np.where(Y_TRUE > 0.7, np.nan, Y_TRUE), Y_PRED),
        DeepSupervision: ({"a": Y_TRUE, "b": Y_TRUE}, heads),
        Normalized: ({"a": Y_TRUE, "b": Y_TRUE}, heads),
    }
    return special.get(wrapper, (Y_TRUE, Y_PRED))


NEEDS_MORE = (OnInputs, OnOutput)  # a model, or a function of two outputs


@pytest.mark.parametrize(
    "wrapper", [cls for cls in EACH if cls not in NEEDS_MORE], ids=lambda cls: cls.__name__
)
def test_what_comes_back_computes_the_same(wrapper):
    data = call_of(wrapper)
    expected = value(EACH[wrapper], *data)
    assert np.isfinite(expected)
    assert value(through_json(EACH[wrapper]), *data) == expected
    composite = through_json(cl.CompositeLoss({"a": EACH[wrapper], "b": StopGradient("mse")}))
    assert type(composite.losses["a"]) is wrapper


@every_wrapper
def test_it_has_operators(wrapper):
    loss = EACH[wrapper]
    summed = 0.5 * loss + StopGradient("mae") / 4
    assert isinstance(summed, cl.CompositeLoss)
    assert summed.weights == {"mine": 0.5, "mae": 0.25}
    assert summed.losses["mine"] is loss
    assert sum([loss, StopGradient("mae")]).names == ("mine", "mae")


@pytest.mark.parametrize("view", [*IDENTITIES, "per_channel", "prediction_only"])
def test_its_name_is_that_of_the_child(view):
    wrap = IDENTITIES.get(view) or VIEWS[view][0]
    assert wrap("mse").name == "mse"
    assert wrap(log_ratio).name == "log_ratio"
    assert wrap(keras.losses.Huber()).name == "huber"
    assert wrap(keras.losses.Huber(name="price")).name == "price"
    assert cl.CompositeLoss([wrap("mse"), wrap("mse")]).names == ("mse", "mse_2")


@pytest.mark.backend_free
@every_wrapper
def test_what_is_no_loss_is_an_error(wrapper):
    if wrapper is OnInputs:
        pytest.skip("takes a function")
    arguments = {
        OnSlice: [np.s_[..., 0]],
        Scaled: [1.0],
        ClassWeighted: [[1.0, 1.0]],
        OneHot: [2],
        OnOutput: ["a"],
        Activated: ["tanh"],
    }.get(wrapper, [])
    for bad in ("no_such_loss", 3, keras.losses.Huber):
        with raises(ValueError, "must be a", f"Received: {bad!r}"):
            wrapper(bad, *arguments)


def test_a_wrapper_of_ones_own_says_what_it_must_return():
    class Nothing(cl.wrappers.Wrapper):
        pass

    class Pair(cl.wrappers.Wrapper):
        def see(self, batch, label):
            return batch.y_true, batch.y_pred

    with raises(NotImplementedError, "Nothing must implement `see(batch, label)`", "'mse'"):
        Nothing("mse")(Y_TRUE, Y_PRED)
    with raises(TypeError, "`see` of Pair", "'part'", "must return a batch", "of type tuple"):
        cl.CompositeLoss({"part": Pair("mse")})(Y_TRUE, Y_PRED)


# In a model.


def tracked():
    return cl.Sequential([keras.Input((3, 2)), keras.layers.Dense(2, activation="sigmoid")])


SAVED = {
    "slices": lambda: {
        "a": OnSlice(keras.losses.Huber(0.3), np.s_[:, 0:2, ..., -1]),
        "b": OnSlice("mse", np.s_[..., 1:]),
    },
    "missing": lambda: {"a": Masked("mse"), "b": Masked("mae", mask=np.eye(3, 2) > 0)},
    "channels": lambda: {
        "a": PerChannel(["mse", "mae"], names=["u", "v"], weights=np.array([1.0, 0.5])),
        "b": PerElement("mse", size=(3, 2), weights=np.arange(6.0).reshape(3, 2)),
    },
    "units": lambda: {"a": Scaled.from_data("mse", Y_TRUE), "b": Scaled("mae", np.float32(3.0))},
    "nested": lambda: {
        "a": OnSlice(cl.CompositeLoss({"u": PerChannel("mse", size=2), "v": "mae"}), np.s_[:, 1:]),
        "b": StopGradient(MultiScale(Activated("mse", "tanh"), (1, 3))),
    },
}


@pytest.mark.parametrize("kind", SAVED)
def test_a_saved_model_loads_evaluates_and_trains_the_same(kind, tmp_path):
    model = tracked()
    model.compile("sgd", loss=cl.CompositeLoss(SAVED[kind](), {"b": 0.5}))
    y = np.where(Y_TRUE > 0.8, np.nan, Y_TRUE) if kind == "missing" else Y_TRUE
    model.fit(Y_PRED, y, batch_size=3, verbose=0)
    expected = model.evaluate(Y_PRED, y, batch_size=3, verbose=0, return_dict=True)
    assert np.all(np.isfinite(list(expected.values())))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert as_json(loaded.loss) == as_json(model.loss)
    logs = loaded.evaluate(Y_PRED, y, batch_size=3, verbose=0, return_dict=True)
    assert list(logs) == list(expected)
    assert logs == pytest.approx(expected, rel=1e-6)
    both = [m.fit(Y_PRED, y, shuffle=False, verbose=0).history for m in (model, loaded)]
    assert both[0]["loss"] == pytest.approx(both[1]["loss"], rel=1e-5)


@pytest.mark.parametrize("view", VIEWS)
def test_a_compiled_step_with_partial_batches_gives_the_same_number(view):
    """The batch size is unknown when the step is compiled."""
    wrap, twin = VIEWS[view]
    y_true, y_pred = normal(5, 6, 2, seed=11), normal(5, 6, 2, seed=12)
    model = cl.Sequential(
        [keras.Input((6, 2)), keras.layers.Dense(2, kernel_initializer="identity")]
    )
    model.compile("sgd", loss=cl.CompositeLoss({"a": wrap("mse"), "b": wrap("mae")}, [1.0, 0.5]))
    logs = model.evaluate(y_pred, y_true, batch_size=2, verbose=0, return_dict=True)
    a, b = (twin(total(f))(y_true, y_pred) for f in (mse, mae))
    expected = {"loss": a + 0.5 * b, "a_loss": a, "b_loss": b}
    assert {key: logs[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    history = model.fit(y_pred, y_true, batch_size=5, verbose=0).history
    assert history["loss"] == pytest.approx([a + 0.5 * b], rel=1e-5)


def test_a_plain_keras_model_trains_on_views_too():
    y_true, y_pred = normal(4, 6, 2, seed=11), normal(4, 6, 2, seed=12)
    model = keras.Sequential([keras.Input((6, 2)), keras.layers.Rescaling(1.0)])
    model.compile("sgd", loss=PerChannel(OnSlice("mse", np.s_[:, 0:2])))
    expected = 2 * mse(y_true[:, :2], y_pred[:, :2]).mean()
    assert model.evaluate(y_pred, y_true, verbose=0) == pytest.approx(expected, rel=1e-5)
