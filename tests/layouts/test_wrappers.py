"""Every wrapper around every loss that has several predictions for each target."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses.wrappers import (
    Activated,
    ClassWeighted,
    DeepSupervision,
    Masked,
    MultiScale,
    Normalized,
    OnOutput,
    OnSlice,
    PerChannel,
    PerElement,
    PredictionOnly,
    Scaled,
    StopGradient,
)
from tests.composite.children import value
from tests.gradients import gradient
from tests.layouts.losses import LAYOUT_CASES, reduced
from tests.messages import raises
from tests.wrappers.numpy_twins import block_means, close, uniform

every_case = pytest.mark.parametrize("case", LAYOUT_CASES, ids=lambda case: case.name)

WEIGHTS = {
    "none": None,
    "samples": np.array([2.0, 0.0, 0.5, 1.0, 3.0, 1.5], "float32"),
    "targets": uniform(6, 4, seed=5, low=0.1, high=2.0) * (uniform(6, 4, seed=6) > 0.3),
}
every_weight = pytest.mark.parametrize("weights", WEIGHTS)
THERE = np.random.default_rng(2).random((6, 4)) < 0.6


def part(case, y_true, y_pred, weight, there, index, **kwargs):
    """The total of the targets at `index`, a slice of the last axis, and its slope."""
    size = y_true.shape[-1]
    apart = case.apart(y_pred, size)

    def cut(array):
        return array[..., index] if array is not None and array.ndim == y_true.ndim else array

    number, slope = reduced(
        case,
        y_true[..., index],
        case.together(apart[..., index, :]),
        cut(weight),
        cut(there),
        **kwargs,
    )
    whole = np.zeros(apart.shape)
    whole[..., index, :] = case.apart(slope, len(range(size)[index]))
    return number, case.together(whole)


def of_slice(index):
    def twin(case, y_true, y_pred, weight, there):
        return part(case, y_true, y_pred, weight, there, index)

    return twin


def of_each(case, y_true, y_pred, weight, there):
    parts = [
        part(case, y_true, y_pred, weight, there, slice(d, d + 1)) for d in range(y_true.shape[-1])
    ]
    return sum(number for number, _ in parts), sum(slope for _, slope in parts)


def in_units(case, scale):
    """What a unit does to the predictions of a target: a factor and a term for each of the k."""
    if case.name == "distribution_focal":  # shares of bins, which have no unit
        return np.ones_like(scale)[:, None], 0.0
    if case.layout == "columns":
        return 1 / scale[:, None], 0.0
    ones = np.ones_like(scale)
    if case.of_amounts:  # the first of two is a logarithm of the amount
        return np.stack([ones, ones], -1), np.stack([-np.log(np.abs(scale)), 0 * ones], -1)
    has_scale = case.name in ("laplace", "laplace_nll", "student_tnll")
    power = 1 if has_scale else 2  # of the log-scale, or the log-variance
    factor = np.stack([1 / scale, ones], axis=-1)
    return factor, np.stack([0 * ones, -power * np.log(np.abs(scale))], axis=-1)


def of_scale(scale):
    def twin(case, y_true, y_pred, weight, there):
        by = np.broadcast_to(np.float64(scale), y_true.shape[-1:])
        factor, term = in_units(case, by)
        apart = case.apart(np.float64(y_pred), y_true.shape[-1]) * factor + term
        number, slope = reduced(case, y_true / by, case.together(apart), weight, there)
        return number, case.together(case.apart(slope, y_true.shape[-1]) * factor)

    return twin


def of_tanh(case, y_true, y_pred, weight, there):
    moved = np.tanh(np.float64(y_pred))
    number, slope = reduced(case, y_true, moved, weight, there)
    return number, slope * (1 - moved**2)


def of_nothing(case, y_true, y_pred, weight, there):
    number, slope = reduced(case, y_true, y_pred, weight, there)
    return number, 0 * slope


VIEWS = {
    "slice": (lambda loss: OnSlice(loss, np.s_[..., 1:3]), of_slice(slice(1, 3))),
    "slice of one": (lambda loss: OnSlice(loss, np.s_[:, 2:3]), of_slice(slice(2, 3))),
    "number": (lambda loss: OnSlice(loss, np.s_[:, 2]), of_slice(slice(2, 3))),
    "last": (lambda loss: OnSlice(loss, np.s_[..., -1]), of_slice(slice(3, 4))),
    "backwards": (lambda loss: OnSlice(loss, np.s_[..., ::-1]), reduced),
    "scaled": (lambda loss: Scaled(loss, 2.5), of_scale(2.5)),
    "scaled below 0": (lambda loss: Scaled(loss, -0.2), of_scale(-0.2)),
    "scales": (lambda loss: Scaled(loss, [2.0, 3.0, 0.5, 1.0]), of_scale([2.0, 3.0, 0.5, 1.0])),
    "activated": (lambda loss: Activated(loss, "tanh"), of_tanh),
    "per channel": (PerChannel, of_each),
    "named channels": (lambda loss: PerChannel(loss, names=list("abcd")), of_each),
    "per element": (lambda loss: PerElement(loss, size=4), of_each),
    "stopped": (StopGradient, of_nothing),
    "scale of a slice": (
        lambda loss: Scaled(OnSlice(loss, np.s_[..., 1:3]), 1.0),
        of_slice(slice(1, 3)),
    ),
    "composite": (lambda loss: cl.CompositeLoss({"a": loss}), reduced),
}
every_view = pytest.mark.parametrize("view", VIEWS)


def skip_counts_below_0(case, view):
    if case.name == "negative_binomial_nll" and view == "scaled below 0":
        pytest.skip("there are no counts below 0")


def check(loss, expected, y_true, y_pred, weight):
    data = () if weight is None else (weight,)
    close(value(loss, y_true, y_pred, *data), expected[0])
    close(gradient(lambda p: loss(y_true, p, *data), y_pred), expected[1])


@every_case
@every_view
@pytest.mark.parametrize(
    "weights", ["targets", pytest.param("samples", marks=pytest.mark.thorough)]
)
def test_it_is_the_loss_on_the_targets_that_it_shows(case, view, weights):
    skip_counts_below_0(case, view)
    wrap, twin = VIEWS[view]
    y_true, y_pred = case.data(6, 4)
    weight = WEIGHTS[weights]
    check(wrap(case.make()), twin(case, y_true, y_pred, weight, None), y_true, y_pred, weight)


@every_case
@every_view
@pytest.mark.parametrize(
    "outside",
    [
        pytest.param(True, id="masked outside"),
        pytest.param(False, id="masked inside", marks=pytest.mark.thorough),
    ],
)
def test_missing_labels_are_those_of_single_targets(case, view, outside):
    skip_counts_below_0(case, view)
    wrap, twin = VIEWS[view]
    y_true, y_pred = case.data(6, 4)
    holes, weight = np.where(THERE, y_true, np.nan), WEIGHTS["targets"]
    loss = Masked(wrap(case.make())) if outside else wrap(Masked(case.make()))
    check(loss, twin(case, y_true, y_pred, weight, THERE), holes, y_pred, weight)


@pytest.mark.thorough
@every_case
@every_view
def test_what_a_target_of_weight_0_holds_does_no_harm(case, view):
    skip_counts_below_0(case, view)
    wrap, twin = VIEWS[view]
    y_true, y_pred = case.data(6, 4)
    weight = WEIGHTS["targets"]
    apart = case.apart(y_pred, 4).copy()
    apart[weight == 0] = np.nan
    bad_true, bad_pred = np.where(weight == 0, np.nan, y_true), case.together(apart)
    expected = twin(case, y_true, y_pred, weight, None)
    check(wrap(case.make()), expected, bad_true, bad_pred, weight)


# Sequences and fields.


@every_case
def test_steps_of_a_sequence(case):
    y_true, y_pred = case.data(6, 5, 4)
    there = np.random.default_rng(3).random((6, 5, 4)) < 0.5
    holes = np.where(there, y_true, np.nan)
    for weight in (None, WEIGHTS["samples"], uniform(6, 5, seed=1), uniform(6, 5, 4, seed=2)):
        cut = weight if weight is None or weight.ndim == 1 else weight[:, 1:3]
        number, slope = reduced(case, y_true[:, 1:3], y_pred[:, 1:3], cut, there[:, 1:3])
        whole = np.zeros(y_pred.shape)
        whole[:, 1:3] = slope
        for loss in (
            Masked(OnSlice(case.make(), np.s_[:, 1:3])),
            OnSlice(Masked(case.make()), np.s_[:, 1:3]),
        ):
            check(loss, (number, whole), holes, y_pred, weight)
        each = of_each(case, y_true, y_pred, weight, there)
        check(PerChannel(Masked(case.make())), each, holes, y_pred, weight)
        check(Masked(PerChannel(case.make(), size=4)), each, holes, y_pred, weight)


@every_case
def test_each_step_is_a_channel(case):
    y_true, y_pred = case.data(6, 3, 4)
    weight = uniform(6, 3, 4, seed=2)
    loss = PerChannel(case.make(), axis=1, size=3)
    expected = sum(reduced(case, y_true[:, t], y_pred[:, t], weight[:, t])[0] for t in range(3))
    close(value(loss, y_true, y_pred, weight), expected)


@every_case
def test_every_number_of_a_sequence_is_an_element(case):
    y_true, y_pred = case.data(6, 3, 4)
    weight, there = uniform(6, 3, 4, seed=2), np.random.default_rng(3).random((6, 3, 4)) < 0.7
    holes = np.where(there, y_true, np.nan)
    singles, _ = case.singles(y_true, y_pred)
    factor = weight * there
    expected = (singles * factor).sum(axis=0) / there.sum(axis=0)
    for loss in (
        PerElement(Masked(case.make()), size=(3, 4)),
        Masked(PerElement(case.make(), size=(3, 4))),
    ):
        composite = cl.CompositeLoss({"e": loss})
        parts = composite.components(holes, y_pred, weight)
        for t, d in np.ndindex(3, 4):
            close(float(parts[f"e/element_{t}_{d}"]), expected[t, d])
        close(float(parts["e"]), expected.sum())


@every_case
@pytest.mark.parametrize("missing", [False, True], ids=["all", "missing"])
def test_averages_over_blocks_are_those_of_each_target(case, missing):
    y_true, y_pred = case.data(3, 4, 2)
    weight = uniform(3, 4, 2, seed=2)
    there = np.random.default_rng(3).random((3, 4, 2)) < 0.6 if missing else np.ones((3, 4, 2))
    apart = np.float64(case.apart(y_pred, 2))
    shares = block_means(there, 2)
    safe = np.where(shares == 0, 1, shares)
    coarse = block_means(y_true * there, 2) / safe
    folded = block_means((apart * there[..., None]).reshape(3, 4, -1), 2).reshape(3, 2, 2, -1)
    coarse_pred = case.together(folded / safe[..., None])
    coarse_weight = block_means(weight * there, 2) / safe
    expected = reduced(case, y_true, y_pred, weight, there)[0]
    values, _ = case.singles(coarse, coarse_pred)
    expected += (values * coarse_weight * shares).sum() / shares.sum()
    loss, given = MultiScale(case.make(), (1, 2)), y_true
    if missing:
        loss, given = Masked(loss), np.where(there, y_true, np.nan)
    close(value(loss, given, y_pred, weight), expected)


@every_case
def test_the_weight_of_a_class_weighs_rows(case):
    labels = np.array([[0.0], [1.0], [1.0], [0.0], [1.0], [0.0]], "float32")
    _, y_pred = case.data(6, 1)
    y_pred = y_pred.reshape(6, -1)
    wide = y_pred if case.layout == "blocks" else y_pred[:, None]
    weight = np.where(labels[:, 0] == 1, 3.0, 1.0)
    expected, _ = reduced(case, labels, wide, weight)
    close(value(ClassWeighted(case.make(), [1.0, 3.0]), labels, y_pred), expected)


@every_case
def test_outputs_at_decreasing_resolution(case):
    y_true, fine = case.data(3, 4, 4, 2)
    coarse = case.data(3, 2, 2, 2, seed=1)[1]
    means = block_means(y_true, 2)
    expected = (2 * reduced(case, y_true, fine)[0] + reduced(case, means, coarse)[0]) / 3
    outputs = {"full": fine, "half": coarse}
    close(value(DeepSupervision(case.make()), y_true, outputs), expected)


@every_case
@every_weight
def test_one_normaliser_counts_single_targets(case, weights):
    y_true, y_pred = case.data(6, 4)
    holes, weight = np.where(THERE, y_true, np.nan), WEIGHTS[weights]
    mean = "mean_with_sample_weight"
    expected = reduced(case, y_true, y_pred, weight, THERE, mean)
    check(Normalized(Masked(case.make()), "weights"), expected, holes, y_pred, weight)
    of_all = reduced(case, y_true, y_pred, weight, None, mean)
    check(Normalized(case.make(), "weights"), of_all, y_true, y_pred, weight)


@every_case
def test_one_output_of_several(case):
    y_true, y_pred = case.data(6, 4)
    loss = OnOutput(Masked(case.make()), "a")
    holes = np.where(THERE, y_true, np.nan)
    outputs = {"a": y_pred, "b": np.zeros((6, 1), "float32")}
    expected, _ = reduced(case, y_true, y_pred, None, THERE)
    close(value(loss, {"a": holes, "b": np.zeros((6, 1))}, outputs), expected)


@pytest.mark.parametrize("case", LAYOUT_CASES[:-2], ids=lambda case: case.name)
def test_a_term_without_a_target_has_none_of_a_known_shape(case):
    with raises(ValueError, case.name, "Received: "):
        PredictionOnly(case.make())(None, case.data(6, 4)[1])


# Curves by name.


@every_case
def test_each_property_has_a_curve_in_training(case):
    y_true, y_pred = case.data(6, 4)
    holes = np.where(THERE, y_true, np.nan)
    names = ["price", "size", "age", "rooms"]
    inputs = keras.Input(y_pred.shape[1:])
    singles, _ = case.singles(y_true, y_pred)
    for wrapper in (PerElement, PerChannel):
        model = cl.Model(inputs, keras.layers.Activation("linear")(inputs))
        model.compile(
            "sgd", loss=cl.CompositeLoss({"a": wrapper(Masked(case.make()), names=names)})
        )
        logs = model.evaluate(y_pred, holes, batch_size=6, verbose=0, return_dict=True)
        for d, name in enumerate(names):
            expected = singles[:, d][THERE[:, d]].mean()
            assert logs[f"a/{name}_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [cl.losses.Pinball([0.1, 0.9]), cl.losses.GaussianNLL()])
def test_columns_of_one_target_are_chosen_as_they_were(loss):
    """Arrays of one rank, `(N, 1)` beside `(N, 5)`, are indexed alike."""
    y_true, y_pred = LAYOUT_CASES[0].data(6, 1)[0], uniform(6, 5, seed=1)
    sliced = OnSlice(loss, np.s_[..., 0:2])
    close(value(sliced, y_true, y_pred), value(loss, y_true, y_pred[:, :2]))


class Logarithm(cl.losses.Loss):
    """A user's loss of predictions that are logarithms of the target."""

    elementwise = True

    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - keras.ops.exp(y_pred)), axis=-1)

    def rescaled(self, y_pred, scale):
        return y_pred - keras.ops.log(scale)


def test_any_loss_says_how_its_predictions_change_with_the_unit():
    y_true, y_pred = uniform(6, 4, seed=1), uniform(6, 4, seed=2)
    scale = np.array([2.0, 3.0, 0.5, 1.0])
    expected = np.mean(((y_true - np.exp(np.float64(y_pred))) / scale) ** 2)
    close(value(Scaled(Logarithm(), scale.tolist()), y_true, y_pred), expected)


def test_a_divergence_in_another_unit():
    y_pred = uniform(6, 8, seed=1)
    other = np.concatenate([y_pred[:, :4] / 2, y_pred[:, 4:] - 2 * np.log(2.0)], axis=1)
    kl = cl.losses.GaussianKL()
    close(value(Scaled(kl, 2.0), None, y_pred), value(kl, None, other.astype("float32")))
    with raises(ValueError, "gaussian_kl", "scale", "Received: "):
        Scaled(kl, [2.0, 3.0, 1.0, 1.0])(None, y_pred)


def test_the_likelihood_in_another_unit_differs_by_a_constant():
    """A density changes by the factor of the unit, whatever is predicted."""
    y_true, y_pred = LAYOUT_CASES[0].data(6, 4)
    nll = cl.losses.GaussianNLL()
    for scale in (10.0, [2.0, 3.0, 0.5, 7.0]):
        shift = value(nll, y_true, y_pred) - value(Scaled(nll, scale), y_true, y_pred)
        close(shift, np.mean(np.log(np.abs(scale))), rtol=1e-5)
