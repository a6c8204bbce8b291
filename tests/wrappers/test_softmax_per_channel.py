"""`PerChannel` shows one channel alone: a softmax over all of them has to be around it."""

import json

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.composite.children import value
from tests.contracts.registry import CASES
from tests.messages import raises

PerChannel, Activated = cl.wrappers.PerChannel, cl.wrappers.Activated
LOGITS = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype("float32")
TRUTH = np.eye(3, dtype="float32")[np.random.default_rng(1).integers(0, 3, (2, 4, 5))]

MULTILABEL = [case.loss for case in CASES if hasattr(case.make(), "multilabel")]
WITH_SOFTMAX = [*MULTILABEL, cl.losses.SparseCategoricalFocal]
KERAS = [
    "categorical_crossentropy",
    keras.losses.categorical_crossentropy,
    keras.losses.CategoricalCrossentropy(),
    keras.losses.CategoricalCrossentropy(from_logits=True),
    keras.losses.CategoricalFocalCrossentropy(),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
]


def named(loss):
    return loss if isinstance(loss, str) else getattr(loss, "name", None) or loss.__name__


AROUND = {
    "alone": lambda loss: loss,
    "list": lambda loss: ["mse", loss, "mae"],
    "dict": lambda loss: {"a": loss, "b": "mse"},
    "masked": lambda loss: cl.wrappers.Masked(loss),
    "activated": lambda loss: cl.wrappers.StopGradient(cl.wrappers.Scaled(loss, 2.0)),
    "composite": lambda loss: cl.CompositeLoss({"a": loss, "b": "mse"}),
}
ANSWERS = ('`Activated(PerChannel(Dice()), "softmax")`', "`multilabel=True`", "PerChannel ('")


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("loss", WITH_SOFTMAX, ids=lambda loss: loss.__name__)
def test_a_softmax_inside_is_an_error(loss, around):
    with raises(ValueError, *ANSWERS, f"Received: {loss.__name__}("):
        PerChannel(AROUND[around](loss(from_logits=True)))


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("loss", KERAS, ids=named)
def test_so_is_one_of_keras(loss, around):
    with raises(ValueError, *ANSWERS):
        PerChannel(AROUND[around](loss))


def test_so_is_an_activation_and_a_preset():
    for loss in (
        Activated(cl.losses.Dice(), "softmax"),
        Activated("mse", keras.activations.log_softmax),
        cl.losses.dice_ce(from_logits=True),
        cl.losses.dice_focal(from_logits=True, multiclass=True),
        cl.losses.generalized_dice_focal(from_logits=True),
    ):
        with raises(ValueError, *ANSWERS):
            PerChannel(loss)


@keras.saving.register_keras_serializable("tests_softmax")
class Own(cl.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - keras.ops.sigmoid(y_pred)), axis=-1)


@pytest.mark.parametrize(
    "loss",
    [
        *(loss() for loss in MULTILABEL),
        *(loss(from_logits=True, multilabel=True) for loss in MULTILABEL),
        cl.losses.BinaryFocal(from_logits=True),
        cl.losses.LovaszHinge(),
        cl.losses.dice_bce(from_logits=True),
        cl.losses.dice_ce(from_logits=True, multilabel=True),
        cl.losses.generalized_dice_focal(from_logits=True, multilabel=True),
        "binary_crossentropy",
        "kl_divergence",
        "categorical_hinge",
        keras.losses.BinaryFocalCrossentropy(from_logits=True),
        Own(),
        lambda y_true, y_pred: keras.ops.mean(keras.ops.sigmoid(y_pred), axis=-1),
    ],
    ids=named,
)
def test_other_losses_stay_as_they_are(loss):
    assert np.isfinite(value(PerChannel(loss), TRUTH, 1 / (1 + np.exp(-LOGITS))))


@pytest.mark.parametrize("loss", MULTILABEL, ids=lambda loss: loss.__name__)
def test_the_form_that_the_message_names_is_right(loss):
    """The sum over channels is the loss of all, which for region losses is their mean."""
    if loss in (cl.losses.GeneralizedDice, cl.losses.LovaszSoftmax):
        pytest.skip("it weighs its classes by what the sample has of them")
    sums = (cl.losses.CategoricalFocal, cl.losses.PolyCrossEntropy)
    times = 1 if loss in sums else 3
    form = Activated(PerChannel(loss()), "softmax")
    expected = times * value(loss(from_logits=True), TRUTH, LOGITS)
    np.testing.assert_allclose(value(form, TRUTH, LOGITS), expected, rtol=1e-5)
    independent = PerChannel(loss(from_logits=True, multilabel=True))
    expected = times * value(loss(from_logits=True, multilabel=True), TRUTH, LOGITS)
    np.testing.assert_allclose(value(independent, TRUTH, LOGITS), expected, rtol=1e-5)


def test_a_softmax_over_another_axis_is_no_softmax_over_channels():
    PerChannel(keras.losses.CategoricalCrossentropy(axis=1), axis=2)
    with raises(ValueError, *ANSWERS):
        PerChannel(keras.losses.CategoricalCrossentropy(axis=1), axis=1)


def test_an_old_file_loads_with_a_warning():
    config = json.loads(
        json.dumps(PerChannel(cl.losses.Dice(), names=["a", "b", "c"]).get_config())
    )
    config["loss"]["config"]["from_logits"] = True  # as it was saved before
    del config["loss"]["config"]["multilabel"]
    with pytest.warns(UserWarning, match="Loaded as it was saved.*multilabel=True"):
        loaded = PerChannel.from_config(config)
    sigmoid = PerChannel(cl.losses.Dice(from_logits=True, multilabel=True))
    assert value(loaded, TRUTH, LOGITS) == value(sigmoid, TRUTH, LOGITS)
    composite = cl.CompositeLoss({"a": loaded})
    with pytest.warns(UserWarning, match="Loaded as it was saved"):
        cl.CompositeLoss.from_config(composite.get_config())
    with raises(ValueError, *ANSWERS):
        PerChannel(cl.losses.Dice(from_logits=True))  # loading is over


def test_each_class_of_probabilities_has_a_curve():
    """`CategoricalFocal` of probabilities divides by no sum: its channels add up to the whole."""
    p = np.asarray(keras.ops.convert_to_numpy(keras.ops.softmax(LOGITS)))
    loss = cl.losses.CategoricalFocal()
    np.testing.assert_allclose(value(PerChannel(loss), TRUTH, p), value(loss, TRUTH, p), rtol=1e-5)
