"""`Pinball(..., parts=True)`: a curve for each quantile, and what to watch beside them."""

import copy
import pickle

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.wrappers import (
    Activated,
    Masked,
    MultiScale,
    Normalized,
    OnOutput,
    OnSlice,
    PerChannel,
    PerElement,
    Scaled,
    StopGradient,
)
from tests.composite.children import SCALAR_REDUCTIONS, WEIGHTS, value
from tests.gradients import gradient
from tests.messages import raises
from tests.oracles import regression
from tests.training.twin import reduce
from tests.wrappers.numpy_twins import close, normal, uniform

QUANTILES = [0.1, 0.5, 0.9]
NAMES = ["q10", "q50", "q90"]
Y_TRUE, Y_PRED = normal(4, 3, seed=1), normal(4, 3, 3, seed=2)
THERE = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]], bool)
TARGET_WEIGHTS = uniform(4, 3, seed=3)
SEEN = {
    "plain": (None, None),
    "weights": (WEIGHTS, None),
    "weights of targets": (TARGET_WEIGHTS, None),
    "missing": (None, THERE),
    "weights, missing": (TARGET_WEIGHTS, THERE),
}
every_view = pytest.mark.parametrize("seen", SEEN)


def prices(k):
    """The values of quantile k alone, `(batch, horizons)`, in float64."""
    of_one = regression.pinball(Y_TRUE[..., None], Y_PRED[..., k : k + 1], QUANTILES[k])
    return of_one[0]


def components(loss, y_true, y_pred, weight=None):
    found = cl.CompositeLoss({"p": loss}).components(y_true, y_pred, weight)
    return {name: float(number) for name, number in found.items()}


def of_logs(loss, y_true, y_pred, weight=None):
    inputs = keras.Input(y_pred.shape[1:])
    model = cl.Model(inputs, keras.layers.Activation("linear")(inputs))
    model.compile("sgd", loss=loss)
    return model.evaluate(
        y_pred, y_true, sample_weight=weight, batch_size=len(y_pred), verbose=0, return_dict=True
    )


@every_view
@pytest.mark.parametrize("reduction", SCALAR_REDUCTIONS)
@pytest.mark.parametrize("imposed", [False, True], ids=["its own", "imposed"])
def test_each_part_is_the_loss_of_its_quantile_and_the_whole_their_mean(seen, reduction, imposed):
    weight, there = SEEN[seen]
    y_true = Y_TRUE if there is None else np.where(there, Y_TRUE, np.nan)
    loss = cl.losses.Pinball(QUANTILES, parts=True, **({} if imposed else {"reduction": reduction}))
    outer = {"reduction": reduction} if imposed else {}
    composite = cl.CompositeLoss({"p": Masked(loss)}, **outer)
    found = composite.components(y_true, Y_PRED, weight)
    expected = [reduce(prices(k), weight, there, reduction) for k in range(3)]
    for name, number in zip(NAMES, expected, strict=True):
        close(float(found[f"p/{name}"]), number)
    close(float(found["p"]), np.mean(expected))
    assert loss.part_weights == dict.fromkeys(NAMES, 1 / 3)


@every_view
def test_without_parts_it_is_the_same_number_with_the_same_gradient(seen):
    weight, there = SEEN[seen]
    y_true = Y_TRUE if there is None else np.where(there, Y_TRUE, np.nan)
    data = () if weight is None else (weight,)
    one, other = (Masked(cl.losses.Pinball(QUANTILES, parts=p)) for p in (True, False))
    assert value(one, y_true, Y_PRED, *data) == value(other, y_true, Y_PRED, *data)
    slopes = [gradient(lambda p, f=f: f(y_true, p, *data), Y_PRED) for f in (one, other)]
    np.testing.assert_array_equal(*slopes)


def test_each_sample_has_its_parts():
    composite = cl.CompositeLoss({"p": cl.losses.Pinball(QUANTILES, parts=True)}, reduction="none")
    found = composite.components(Y_TRUE, Y_PRED)
    for k, name in enumerate(NAMES):
        close(keras.ops.convert_to_numpy(found[f"p/{name}"]), prices(k).mean(axis=1))


@every_view
def test_crossing_and_coverage_are_those_of_the_targets_that_count(seen):
    weight, there = SEEN[seen]
    y_true = Y_TRUE if there is None else np.where(there, Y_TRUE, np.nan)
    factor = np.ones((4, 3)) if there is None else THERE * 1.0
    if weight is not None:
        factor = factor * weight.reshape(4, -1)
    share = factor / factor.sum()
    crossed = (Y_PRED[..., 1:] < Y_PRED[..., :-1]).mean(axis=-1)
    loss = Masked(cl.losses.Pinball(QUANTILES, parts=True))
    logs = of_logs(cl.CompositeLoss({"p": loss}), y_true, Y_PRED, weight)
    assert logs["p/crossing"] == pytest.approx((share * crossed).sum(), rel=1e-5)
    for k, name in enumerate(NAMES):
        below = (share * (Y_PRED[..., k] >= Y_TRUE)).sum()
        assert logs[f"p/{name}_coverage"] == pytest.approx(below, rel=1e-5)
        assert logs[f"p/{name}_loss"] == pytest.approx(
            components(loss, y_true, Y_PRED, weight)[f"p/{name}"], rel=1e-5
        )


def test_neighbours_are_those_of_the_sorted_quantiles():
    loss = cl.losses.Pinball([0.9, 0.1, 0.5], parts=True)
    ordered = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]], "float32")
    logs = of_logs(loss, np.zeros((2, 1), "float32"), ordered)
    assert logs["crossing"] == pytest.approx(0.25)  # 2, 3, 1: one of the two pairs of one row
    assert loss.component_names == ("q90", "q10", "q50")


def test_one_quantile_has_no_neighbours():
    loss = cl.losses.Pinball([0.25], parts=True)
    assert loss.extra_keys == ("q25_coverage",)
    logs = of_logs(loss, np.array([[1.0], [3.0]]), np.array([[2.0], [2.0]], "float32"))
    assert logs["q25_coverage"] == 0.5 and "crossing" not in logs


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "quantiles, names",
    [
        (QUANTILES, NAMES),
        ([0.025, 0.25, 0.975], ["q025", "q25", "q975"]),
        ([0.05, 0.5], ["q05", "q50"]),
        ([0.5, 0.5], ["q50", "q50_2"]),
        ([1e-5, 0.999], ["q00001", "q999"]),
    ],
)
def test_the_digits_are_the_name(quantiles, names):
    assert list(cl.losses.Pinball(quantiles, parts=True).component_names) == names


def test_no_two_names_are_the_same_and_each_is_allowed():
    numbers = np.random.default_rng(0).random(200).tolist() + [k / 100 for k in range(1, 100)] * 2
    loss = cl.CompositeLoss({"p": cl.losses.Pinball(numbers, parts=True)})
    assert len(set(loss.component_names)) == 1 + len(numbers)


@pytest.mark.backend_free
def test_parts_need_a_list():
    with raises(ValueError, "parts=True", "list", "Received: quantile=0.5"):
        cl.losses.Pinball(parts=True)
    with raises(ValueError, "parts", "True or False", "Received: 1"):
        cl.losses.Pinball([0.5], parts=1)


def test_it_comes_back_from_config_pickle_and_copy():
    loss = Masked(cl.losses.Pinball(QUANTILES, parts=True, name="sales", reduction="sum"))
    config = keras.saving.serialize_keras_object(loss)
    copies = [
        keras.saving.deserialize_keras_object(config),
        copy.deepcopy(loss),
        pickle.loads(pickle.dumps(loss)),
    ]
    for again in copies:
        assert again.component_names == tuple(NAMES)
        assert components(again, Y_TRUE, Y_PRED) == components(loss, Y_TRUE, Y_PRED)
    old = {"quantile": QUANTILES, "reduction": "sum", "name": "pinball", "dtype": "float32"}
    assert cl.losses.Pinball.from_config(old).get_config()["parts"] is False


# In wrappers.

WRAPPERS = {
    "masked": (Masked, NAMES),
    "slice": (lambda loss: OnSlice(loss, np.s_[:, 0:2]), NAMES),
    "horizon": (lambda loss: OnSlice(loss, np.s_[:, 1]), NAMES),
    "scaled": (lambda loss: Scaled(loss, [2.0, 3.0, 4.0]), NAMES),
    "activated": (lambda loss: Activated(loss, "softplus"), NAMES),
    "stopped": (StopGradient, NAMES),
    "channels": (lambda loss: PerChannel(loss, names=["a", "b", "c"]), ["a", "b", "c"]),
    "elements": (lambda loss: PerElement(loss, names=["a", "b", "c"]), ["a", "b", "c"]),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@every_view
def test_in_every_wrapper_it_is_what_it_is_without_parts(wrapper, seen):
    weight, there = SEEN[seen]
    wrap, names = WRAPPERS[wrapper]
    y_true = Y_TRUE if there is None else np.where(there, Y_TRUE, np.nan)
    data = () if weight is None else (weight,)
    with_parts, without = (
        Masked(wrap(cl.losses.Pinball(QUANTILES, parts=p))) for p in (True, False)
    )
    assert value(with_parts, y_true, Y_PRED, *data) == pytest.approx(
        value(without, y_true, Y_PRED, *data), rel=1e-6
    )
    assert list(with_parts.component_names) == names


def test_several_scales_and_outputs():
    y_true, y_pred = normal(4, 6, 1, seed=1), normal(4, 6, 3, seed=2)
    for wrap in (lambda loss: MultiScale(loss, (1, 2)), lambda loss: OnOutput(loss, "a")):
        found = [
            value(wrap(cl.losses.Pinball(QUANTILES, parts=p)), y_true, y)
            for p in (True, False)
            for y in [{"a": y_pred} if wrap(cl.losses.Pinball()).chooses_outputs else y_pred]
        ]
        assert found[0] == pytest.approx(found[1], rel=1e-6)


@every_view
@pytest.mark.parametrize("by", [7.0, "weights", "positives"])
def test_one_normaliser_of_all_parts(seen, by):
    weight, there = SEEN[seen]
    y_true = Y_TRUE if there is None else np.where(there, Y_TRUE, np.nan)
    loss = Normalized(Masked(cl.losses.Pinball(QUANTILES, parts=True)), by)
    factor = np.ones((4, 3)) if there is None else THERE * 1.0
    weighed = factor if weight is None else factor * weight.reshape(4, -1)
    positive = ((Y_TRUE > 0) & (weighed > 0)).sum()
    count = {7.0: 7.0, "weights": weighed.sum(), "positives": positive}[by]
    expected = [(prices(k) * weighed).sum() / count for k in range(3)]
    logs = of_logs(cl.CompositeLoss({"p": loss}), y_true, Y_PRED, weight)
    for name, number in zip(NAMES, expected, strict=True):
        assert logs[f"p/{name}_loss"] == pytest.approx(number, rel=1e-5)
    assert logs["p_loss"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert "p/crossing" in logs and "p/q10_coverage" in logs


# Horizons.


@every_view
def test_each_horizon_has_a_curve(seen):
    weight, there = SEEN[seen]
    y_true = Y_TRUE if there is None else np.where(there, Y_TRUE, np.nan)
    values = np.mean([prices(k) for k in range(3)], axis=0)
    for parts in (False, True):
        loss = Masked(cl.losses.Pinball(QUANTILES, parts=parts))
        for wrap in (PerElement, PerChannel):
            found = components(wrap(loss, names=["d1", "d2", "d7"]), y_true, Y_PRED, weight)
            for h, name in enumerate(["d1", "d2", "d7"]):
                finer = weight is not None and weight.ndim == 2
                own = weight[:, h] if finer else weight
                mask = None if there is None else there[:, h]
                expected = reduce(values[:, h], own, mask, "mean")
                close(found[f"p/{name}"], expected)
                sliced = components(OnSlice(loss, np.s_[:, h]), y_true, Y_PRED, weight)
                close(sliced["p"], expected)
