"""`cl.diagnose` on targets and predictions that are not what a loss means."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses._core.domains import KINDS, domain_of
from tests.composite.children import KERAS_CHILDREN
from tests.contracts.registry import CASES

pytestmark = pytest.mark.depends_on_version

TARGETS, PREDICTIONS = "targets out of range", "predictions out of range"
OURS = {case.name: case for case in CASES}
OF_KERAS = {name: child for name, child in KERAS_CHILDREN.items() if name != "CTC"}


def given(loss, y_true, y_pred, sample_weight=None):
    """What is found of a loss on such predictions, without its flags that are about values."""
    shape = y_pred.shape[1:]
    model = cl.Sequential([keras.Input(shape), keras.layers.Identity()])
    model.compile("sgd", loss=cl.CompositeLoss({"loss of it": loss}))
    found = cl.diagnose(model, y_pred, y_true, sample_weight)
    about = (TARGETS, PREDICTIONS, "part of a softmax")
    flags = dict.fromkeys(flag for flags in found.flags.values() for flag in flags)
    return [flag for flag in flags if flag in about], found


def flags(*data):
    return given(*data)[0]


def in_the_domain(case):
    """Predictions of the case; the contour losses of it are given any numbers there."""
    domain = domain_of(case.make()) if isinstance(case.make(), cl.losses.Loss) else None
    if domain is None or domain.predictions is None:
        return case.y_pred
    return np.clip(case.y_pred, 0, 1).astype(case.y_pred.dtype)


# Nothing is flagged in the domain.


@pytest.mark.parametrize("name", OURS)
def test_nothing_of_ours_is_flagged_in_the_domain(name):
    case = OURS[name]
    assert flags(case.make(), case.y_true, in_the_domain(case)) == []
    changed = case.make(**case.arguments)
    assert flags(changed, case.y_true, in_the_domain(case)) == []


@pytest.mark.parametrize("name", OF_KERAS)
def test_nothing_of_keras_is_flagged_in_the_domain(name):
    child = OF_KERAS[name]
    assert flags(child.make(), child.y_true, child.y_pred) == []


# Each perturbation is.


def domains():
    losses = {name: case.make() for name, case in OURS.items()}
    losses.update({name: child.make() for name, child in OF_KERAS.items()})
    return {n: domain_of(loss) for n, loss in losses.items() if n in OF_KERAS or is_single(loss)}


def is_single(loss):
    return isinstance(loss, cl.losses.Loss)


DOMAINS = domains()


def data_of(name):
    if name in OURS:
        case = OURS[name]
        return case.make, case.y_true, in_the_domain(case)
    child = OF_KERAS[name]
    return child.make, child.y_true, child.y_pred


def of_kind(*kinds):
    return [name for name, domain in DOMAINS.items() if domain.targets in kinds]


def test_the_kinds_are_known():
    assert {domain.targets for domain in DOMAINS.values()} <= set(KINDS)
    assert len(of_kind("shares", "classes")) >= 18 and len(of_kind("ids")) >= 4
    assert len(of_kind("images")) == 3 and len(of_kind("labels")) >= 5


@pytest.mark.parametrize("name", of_kind("shares", "classes"))
@pytest.mark.parametrize("kind", ["bytes", "signs"])
def test_masks_of_255_and_signs(name, kind):
    make, y_true, y_pred = data_of(name)
    wrong = 255 * y_true if kind == "bytes" else 2 * y_true - 1
    assert TARGETS in flags(make(), wrong, y_pred)


@pytest.mark.parametrize("name", of_kind("ids"))
@pytest.mark.parametrize("kind", ["beyond", "negative", "fraction", "nan"])
def test_ids(name, kind):
    make, y_true, y_pred = data_of(name)
    wrong = y_true.astype("float32")
    classes = y_pred.shape[-1]
    wrong.flat[0] = {"beyond": classes, "negative": -1, "fraction": 0.5, "nan": np.nan}[kind]
    with np.errstate(invalid="ignore"):
        assert TARGETS in flags(make(), wrong, y_pred)


@pytest.mark.parametrize("name", of_kind("labels"))
def test_labels_are_whole(name):
    make, y_true, y_pred = data_of(name)
    assert TARGETS in flags(make(), y_true + 0.5, y_pred)


@pytest.mark.parametrize("name", of_kind("images"))
def test_images_of_255(name):
    make, y_true, y_pred = data_of(name)
    y_true = np.clip(y_true, 0, 1)
    assert TARGETS in flags(make(), 255 * y_true, 255 * y_pred)
    assert TARGETS in flags(make(max_value=255.0), y_true, y_pred)
    assert flags(make(max_value=255.0), 255 * y_true, 255 * y_pred) == []


@pytest.mark.parametrize("name", of_kind("signs"))
def test_hinges_take_0_and_1_too(name):
    make, y_true, y_pred = data_of(name)
    assert flags(make(), (y_true + 1) / 2, y_pred) == []
    assert TARGETS in flags(make(), 255 * (y_true + 1) / 2, y_pred)


@pytest.mark.parametrize("name", of_kind("amounts"))
def test_amounts_are_not_negative(name):
    make, y_true, y_pred = data_of(name)
    assert TARGETS in flags(make(), -y_true, y_pred)


PROBABILITIES = [name for name, domain in DOMAINS.items() if domain.predictions]


@pytest.mark.parametrize("name", PROBABILITIES)
def test_logits_where_probabilities_are_meant(name):
    make, y_true, y_pred = data_of(name)
    logits = 8 * y_pred - 4
    assert PREDICTIONS in flags(make(), y_true, logits)
    if hasattr(make(), "from_logits"):
        assert flags(make(from_logits=True), y_true, logits) == []


def test_functions_and_strings_are_known():
    y_true, y_pred = np.eye(3, dtype="float32")[[0, 1, 2, 1]], np.full((4, 3), 2.0, "float32")
    for loss in ("binary_crossentropy", keras.losses.binary_crossentropy, "bce"):
        assert flags(loss, 255 * y_true, y_pred) == [TARGETS, PREDICTIONS]


def test_users_own_are_unknown():
    class Own(cl.losses.Dice):
        def call(self, y_true, y_pred):
            return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=(1, 2))

    y_true, y_pred = np.full((4, 5, 1), 255.0), np.full((4, 5, 1), 3.0)
    assert flags(Own(), y_true, y_pred) == []


# Void values are no faults.


def test_void_values():
    rng = np.random.default_rng(0)
    ids, p = rng.integers(0, 3, (4, 6)), rng.dirichlet(np.ones(3), (4, 6)).astype("float32")
    ids[:, ::2] = 255
    sparse = "sparse_categorical_crossentropy"
    ignoring = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    assert flags(ignoring, ids, p) == []
    assert flags(cl.wrappers.OneHot("categorical_crossentropy", 3, ignore_value=255), ids, p) == []
    assert flags(cl.wrappers.Masked(sparse, mask_value=255), ids, p) == []
    assert flags(sparse, np.where(ids == 255, -1, ids), p, (ids != 255).astype("float32")) == []
    assert flags(cl.wrappers.OneHot("categorical_crossentropy", 3), ids, p) == [TARGETS]
    masks = np.where(ids == 255, 255, ids % 2)[..., None].astype("float32")
    assert flags(cl.losses.Dice(ignore_value=255), masks, p[..., :1]) == []
    assert flags(cl.losses.dice_bce(ignore_value=255), masks, p[..., :1]) == []
    assert flags(cl.losses.Dice(), masks, p[..., :1]) == [TARGETS]
    missing = np.where(masks == 255, np.nan, masks)
    assert flags(cl.wrappers.Masked("binary_crossentropy"), missing, p[..., :1]) == []
    assert flags(cl.wrappers.Masked("binary_crossentropy"), 3 * missing, p[..., :1]) == [TARGETS]


def test_every_batch_is_looked_at():
    y_true, y_pred = np.zeros((70, 2)), np.full((70, 2), 0.5, "float32")
    y_true[66, 1] = 255
    found, diagnosis = given("binary_crossentropy", y_true, y_pred)
    assert found == [TARGETS] and "from 0 to 255" in diagnosis.faults[0].message


def test_a_part_that_is_off_is_not_asked():
    y_true, y_pred = np.full((8, 2), 255.0), np.full((8, 2), 0.5, "float32")
    model = cl.Sequential([keras.Input((2,)), keras.layers.Identity()])
    losses = {"mse": "mse", "bce": "binary_crossentropy"}
    model.compile("sgd", loss=cl.CompositeLoss(losses, weights={"bce": 0.0}))
    assert TARGETS not in cl.diagnose(model, y_pred, y_true).flags.get("bce", ())


# A softmax that sees some of the channels.


def test_a_slice_of_the_channels_of_a_softmax():
    rng = np.random.default_rng(1)
    y_true = np.eye(4, dtype="float32")[rng.integers(0, 4, (4, 6))]
    logits = rng.normal(size=(4, 6, 4)).astype("float32")
    entropy = keras.losses.CategoricalCrossentropy(from_logits=True)
    dice = cl.losses.Dice(from_logits=True)
    on_slice = cl.wrappers.OnSlice
    for child in (entropy, dice, cl.wrappers.StopGradient(dice)):
        assert "part of a softmax" in flags(on_slice(child, np.s_[..., 1:3]), y_true, logits)
        assert flags(on_slice(child, np.s_[:, 1:3]), y_true, logits) == []
        assert flags(on_slice(child, np.s_[..., 0:4]), y_true, logits) == []
    for child in ("mse", cl.losses.Dice(from_logits=True, multilabel=True)):
        assert flags(on_slice(child, np.s_[..., 1:3]), y_true, logits) == []
    around = cl.wrappers.Activated(on_slice(cl.losses.Dice(), np.s_[..., 1:3]), "softmax")
    assert flags(around, y_true, logits) == []


def test_it_is_said_on_the_page_and_in_the_table():
    y_true, y_pred = np.full((8, 2), 255.0), np.full((8, 2), 3.0, "float32")
    _, found = given("binary_crossentropy", y_true, y_pred)
    for page in (str(found), found._repr_html_()):
        assert "from 255 to 255" in page and "from_logits=True" in page
