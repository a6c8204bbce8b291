"""`multilabel`: channels that do not see each other, in every loss that has the argument."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.contracts.registry import CASES
from tests.gradients import gradient
from tests.messages import raises

Masked, PerChannel, PerElement = cl.wrappers.Masked, cl.wrappers.PerChannel, cl.wrappers.PerElement
FOCAL, POLY = cl.losses.CategoricalFocal, cl.losses.PolyCrossEntropy
HAVE_IT = [case for case in CASES if hasattr(case.make(), "multilabel")]
every_loss = pytest.mark.parametrize("case", HAVE_IT, ids=lambda case: case.loss.__name__)

random = np.random.default_rng(0)
SHAPE = (3, 5, 6, 3)
TRUTH = (random.random(SHAPE) < 0.4).astype("float32")  # they overlap, and leave pixels free
LOGITS = random.normal(0.0, 2.0, SHAPE).astype("float32")
VOID = random.random(SHAPE) < 0.3
VOID[0, ..., 1] = True  # a channel of which nothing is known
VOID[1, 2, 3] = True  # a pixel of which nothing is known


def close(actual, expected, rtol=2e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def sigmoid(z):
    return (1 / (1 + np.exp(-np.float64(z)))).astype("float32")


def softmax(z):
    powers = np.exp(np.float64(z))
    return (powers / powers.sum(-1, keepdims=True)).astype("float32")


def of_known(case, truth, logits, void):
    """The twin's float64 loss, computed only from the entries that are known."""
    loss = case.loss
    if loss in (FOCAL, POLY):
        # Of every element: BinaryFocal with gamma = 2, or cross-entropy plus what is missing.
        p, y = 1 / (1 + np.exp(-np.float64(logits))), np.float64(truth)
        miss, entropy = y * (1 - p) + (1 - y) * p, -np.log(np.where(y > 0.5, p, 1 - p))
        terms = miss**2 * entropy if loss is FOCAL else entropy + miss
        return terms.shape[-1] * terms[~void].mean()
    if hasattr(case.make(), "ignore_value"):
        known = np.where(void, np.nan, truth)
        options = {"from_logits": True, "multilabel": True, "ignore_value": np.nan}
        return case.oracle(known, logits, **options)[0].mean()
    # Contours: void pixels are background in both masks, and count in no mean.
    p = np.where(void, 0, 1 / (1 + np.exp(-np.float64(logits))))
    values, _ = case.oracle(np.where(void, 0, truth), p)
    return np.mean(values * void[0].size / (~void).sum(axis=(1, 2, 3)))


def test_every_loss_of_logits_and_several_channels_has_it():
    without = {"AsymmetricFocal", "BinaryFocal", "QualityFocal", "Varifocal"}  # of single labels
    # Of one label among several classes.
    without |= {"DistributionFocal", "SparseCategoricalFocal", "SparseCrossEntropy"}
    without |= {"Ordinal", "TreeCrossEntropy"}
    of_logits = {case.loss.__name__ for case in CASES if hasattr(case.make(), "from_logits")}
    assert {case.loss.__name__ for case in HAVE_IT} == of_logits - without


# Numbers.


@every_loss
def test_each_channel_has_a_sigmoid_of_its_own(case):
    loss = case.make(from_logits=True, multilabel=True)
    close(value(loss, TRUTH, LOGITS), value(case.make(multilabel=True), TRUTH, sigmoid(LOGITS)))
    nothing = np.zeros(SHAPE, bool)
    close(value(loss, TRUTH, LOGITS), of_known(case, TRUTH, LOGITS, nothing))


@every_loss
def test_the_default_is_a_softmax_as_before(case):
    loss = case.make(from_logits=True)
    close(value(loss, TRUTH, LOGITS), value(case.make(), TRUTH, softmax(LOGITS)))
    assert value(loss, TRUTH, LOGITS) != value(
        case.make(from_logits=True, multilabel=True), TRUTH, LOGITS
    )


@every_loss
def test_without_logits_it_only_marks_the_channels(case):
    if case.loss in (FOCAL, POLY):
        pytest.skip("its formula is another one")
    marked, plain = case.make(multilabel=True), case.make()
    assert value(marked, TRUTH, sigmoid(LOGITS)) == value(plain, TRUTH, sigmoid(LOGITS))


@every_loss
def test_a_channel_does_not_see_the_logits_of_another(case):
    loss = case.make(from_logits=True, multilabel=True)
    if case.loss in (cl.losses.GeneralizedDice, cl.losses.LovaszSoftmax):
        pytest.skip("its channels share a normaliser")
    own = gradient(lambda z: loss(TRUTH, z), LOGITS)
    moved = LOGITS.copy()
    moved[..., 2] += 1.0
    close(gradient(lambda z: loss(TRUTH, z), moved)[..., :2], own[..., :2])


@every_loss
def test_an_old_config_is_one_without_it(case):
    config = case.make(from_logits=True).get_config()
    del config["multilabel"]
    loaded = case.loss.from_config(config)
    assert loaded.multilabel is False
    assert value(loaded, TRUTH, LOGITS) == value(case.make(from_logits=True), TRUTH, LOGITS)


# Missing labels and weights of single entries.


@pytest.mark.parametrize("missing", [np.nan, -1.0])
@every_loss
def test_missing_labels_are_single_ones(case, missing):
    known = np.where(VOID, missing, TRUTH).astype("float32")
    loss = case.make(from_logits=True, multilabel=True)
    expected = of_known(case, TRUTH, LOGITS, VOID)
    close(value(Masked(loss, mask_value=missing), known, LOGITS), expected)
    if hasattr(loss, "ignore_value"):
        ignoring = case.make(from_logits=True, multilabel=True, ignore_value=missing)
        close(value(ignoring, known, LOGITS), expected)
    weighted = case.make(from_logits=True, multilabel=True, reduction="mean_with_sample_weight")
    close(value(weighted, TRUTH, LOGITS, (~VOID).astype("float32")), expected)


@every_loss
def test_what_is_missing_has_no_gradient_and_does_no_harm(case):
    known = np.where(VOID, np.nan, TRUTH).astype("float32")
    logits = np.where(VOID, np.nan, LOGITS).astype("float32")
    loss = Masked(case.make(from_logits=True, multilabel=True))
    close(value(loss, known, logits), of_known(case, TRUTH, LOGITS, VOID))
    slope = gradient(lambda z: loss(known, z), logits)
    assert np.all(slope[VOID] == 0)
    # Of the right size: by central differences of the twin in float64.
    entry = (2, 1, 2, 0) if not VOID[2, 1, 2, 0] else tuple(np.argwhere(~VOID)[-1])
    step = np.zeros(SHAPE)
    step[entry] = 1e-5
    if case.loss is not cl.losses.CenterlineDice:  # whose ties have several slopes
        values = [of_known(case, TRUTH, LOGITS + s * step, VOID) for s in (1, -1)]
        close(slope[entry], (values[0] - values[1]) / 2e-5, rtol=1e-3)


@every_loss
def test_nothing_known_is_0(case):
    known = np.full(SHAPE, np.nan, "float32")
    loss = Masked(case.make(from_logits=True, multilabel=True))
    assert value(loss, known, LOGITS) == 0
    assert np.all(gradient(lambda z: loss(known, z), LOGITS) == 0)


@every_loss
def test_without_it_a_row_counts_where_all_its_labels_are_there(case):
    known = np.where(VOID, np.nan, TRUTH).astype("float32")
    rows = np.broadcast_to(VOID.any(axis=-1, keepdims=True), SHAPE)
    by_row = np.where(rows, np.nan, TRUTH).astype("float32")
    loss = Masked(case.make(from_logits=True))
    assert value(loss, known, LOGITS) == value(loss, by_row, LOGITS)


# Where the channels are.


@pytest.mark.parametrize("missing", ["none", "labels", "weights"])
@every_loss
def test_the_channels_may_be_first(case, missing):
    def make(**kwargs):
        return case.make(from_logits=True, multilabel=True, **kwargs)

    def first(array):
        return np.moveaxis(array, -1, 1)

    known = np.where(VOID, np.nan, TRUTH).astype("float32") if missing == "labels" else TRUTH
    weight = random.uniform(0.5, 2.0, SHAPE).astype("float32") if missing == "weights" else None
    wrapped = Masked if missing == "labels" else lambda loss: loss
    data = (known, LOGITS) if weight is None else (known, LOGITS, weight)
    expected = value(wrapped(make()), *data)
    assert np.isfinite(expected) and expected != 0
    of_first = wrapped(make(data_format="channels_first"))
    close(value(of_first, *map(first, data)), expected)
    curves = cl.CompositeLoss(
        {"all": wrapped(PerChannel(make(data_format="channels_first"), size=3))}
    )
    last = cl.CompositeLoss({"all": wrapped(PerChannel(make(), size=3))})
    expected = last.components(*data)
    for name, part in curves.components(*map(first, data)).items():
        close(float(part), float(expected[name]))


def test_a_hinge_has_independent_channels_always():
    known = np.where(VOID, -1, TRUTH).astype("float32")
    hinge = cl.losses.LovaszHinge
    expected = value(hinge(ignore_value=-1), known, LOGITS)
    close(value(Masked(hinge(), mask_value=-1), known, LOGITS), expected)
    close(value(hinge(), TRUTH, LOGITS, (~VOID).astype("float32")), expected)


# `CategoricalFocal`: the sum over the channels of `BinaryFocal`.

Y = np.array([[1.0, np.nan], [np.nan, 0.0]], "float32")
P = np.array([[0.3, 0.2], [0.9, 0.6]], "float32")
PRICES = [2.0, 0.5]


@pytest.mark.parametrize("prices", [None, PRICES])
def test_the_mean_is_that_of_the_labels_times_the_number_of_classes(prices):
    own = np.array([-(0.7**2) * np.log(0.3), -(0.6**2) * np.log(0.4)])
    mean = np.mean(own * (1.0 if prices is None else prices))
    loss = Masked(FOCAL(class_weight=prices, multilabel=True))
    close(value(loss, Y, P), 2 * mean)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("prices", [None, PRICES])
def test_with_all_labels_it_is_the_unmasked_value(prices, reduction):
    y = np.nan_to_num(Y)
    loss = FOCAL(class_weight=prices, multilabel=True, reduction=reduction)
    close(value(Masked(loss), y, P), value(loss, y, P))
    close(value(loss, y, P, np.ones((2, 2), "float32")), value(loss, y, P))


def test_weights_of_elements_act():
    y, weight = np.nan_to_num(Y), np.array([[0.5, 3.0], [0.0, 1.0]], "float32")
    binary = cl.losses.BinaryFocal(reduction="none")
    elements = value(binary, y[..., None], P[..., None])
    close(value(FOCAL(multilabel=True), y, P, weight), np.sum(weight * elements) / 2)
    close(value(cl.losses.BinaryFocal(), y, P, weight), np.mean(weight * elements))
    columns = np.array([[2.0], [1.0]], "float32")  # of samples, not of elements
    for loss in (FOCAL(multilabel=True, reduction="none"), cl.losses.BinaryFocal(reduction="none")):
        assert value(loss, y, P, columns).shape == (2,)


def test_without_it_weights_of_elements_are_an_error():
    with raises(ValueError, "cannot honour the sample_weight of shape (2, 2)"):
        FOCAL()(np.nan_to_num(Y), P, np.ones((2, 2)))


@pytest.mark.parametrize("prices", [None, PRICES])
def test_elements_and_channels_have_curves(prices):
    y = np.nan_to_num(Y)
    loss = FOCAL(class_weight=prices, multilabel=True)
    elements = value(cl.losses.BinaryFocal(reduction="none"), y[..., None], P[..., None])
    expected = np.mean(elements * (1.0 if prices is None else prices), axis=0)
    for wrapper in (PerChannel(loss, names=["a", "b"]), PerElement(loss, names=["a", "b"])):
        parts = cl.CompositeLoss({"all": wrapper}).components(y, P)
        close([float(parts["all/a"]), float(parts["all/b"])], expected)
        close(float(parts["all"]), value(loss, y, P))
    masked = cl.CompositeLoss({"all": Masked(PerChannel(loss, names=["a", "b"]))})
    first = elements[0, 0] * (1.0 if prices is None else prices[0])
    close(float(masked.components(Y, P)["all/a"]), first)


# Presets.

PRESETS = [getattr(cl.losses, name) for name in cl.losses.presets.__all__]
every_preset = pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.__name__)


@every_preset
def test_a_preset_has_a_sigmoid_in_every_channel(preset):
    logits = value(preset(from_logits=True, multilabel=True), TRUTH, LOGITS)
    close(logits, value(preset(multilabel=True), TRUTH, sigmoid(LOGITS)))


@pytest.mark.parametrize("missing", [np.nan, -1.0])
@every_preset
def test_void_entries_of_a_preset_are_single_ones(preset, missing):
    known = np.where(VOID, missing, TRUTH).astype("float32")
    ignoring = preset(from_logits=True, multilabel=True, ignore_value=missing)
    masked = Masked(preset(from_logits=True, multilabel=True), mask_value=missing)
    close(value(ignoring, known, LOGITS), value(masked, known, LOGITS))
    changed = np.where(VOID, LOGITS + 3, LOGITS).astype("float32")
    close(value(ignoring, known, changed), value(ignoring, known, LOGITS))


def test_the_cross_entropy_of_dice_ce_is_binary():
    parts = cl.losses.dice_ce(from_logits=True, multilabel=True).components(TRUTH, LOGITS)
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    close(float(parts["ce"]), float(binary(TRUTH, LOGITS)))
    dice = cl.losses.Dice()(TRUTH, sigmoid(LOGITS))
    close(float(parts["dice"]), float(dice))


@pytest.mark.parametrize("preset", [cl.losses.dice_focal, cl.losses.generalized_dice_focal])
def test_independent_channels_are_no_classes(preset):
    plain = value(preset(from_logits=True, multiclass=False), TRUTH, LOGITS)
    for multiclass in (False, True):
        loss = preset(from_logits=True, multiclass=multiclass, multilabel=True)
        close(value(loss, TRUTH, LOGITS), plain)


@every_preset
def test_a_preset_checks_the_flag(preset):
    with raises(ValueError, "`multilabel`", "Received: 1"):
        preset(multilabel=1)
