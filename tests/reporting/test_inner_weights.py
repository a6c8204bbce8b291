"""`cl.diagnose` on losses that weigh their parts by themselves: weights, shares, sample weights."""

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.training.tiny import arrays, line

pytestmark = pytest.mark.depends_on_version


def image_model():
    inputs = keras.Input((8, 8, 2))
    layers = [keras.layers.Conv2D(2, 3, padding="same", activation="sigmoid") for _ in range(2)]
    half = layers[1](keras.layers.AveragePooling2D(2)(inputs))
    return cl.Model(inputs, {"full": layers[0](inputs), "half": half})


def deep(weights):
    return cl.wrappers.DeepSupervision("mse", weights=weights, outputs=["full", "half"])


def on_full(loss):
    return cl.wrappers.OnOutput(loss, "full")


def scales(weights):
    return on_full(cl.wrappers.MultiScale("mse", scales=(1, 2), weights=weights))


def channels(weights, aggregation="sum"):
    return on_full(
        cl.wrappers.PerChannel("mse", names=["a", "b"], weights=weights, aggregation=aggregation)
    )


def elements(weights, aggregation="sum"):
    whole = cl.wrappers.PerElement("mse", size=2, weights=weights, aggregation=aggregation)
    return on_full(cl.wrappers.OnSlice(whole, np.s_[:, 0, 0]))


MAKERS = {
    "deep": deep,
    "scales": scales,
    "channels": channels,
    "channels, mean": lambda w: channels(w, "mean"),
    "channels, weighted mean": lambda w: channels(w, "weighted_mean"),
    "elements": elements,
    "elements, mean": lambda w: elements(w, "mean"),
    "elements, weighted mean": lambda w: elements(w, "weighted_mean"),
    "stopped": lambda w: cl.wrappers.StopGradient(channels(w)),
    "nested": lambda w: cl.CompositeLoss({"in": channels(w)}, weights=[3.0]),
}


def images():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 8, 8, 2)), rng.random((6, 8, 8, 2))
    return x.astype("float32"), y.astype("float32")


def diagnosed(loss, **kwargs):
    model, (x, y) = image_model(), images()
    model.compile("sgd", loss=cl.CompositeLoss({"part": loss}, weights=[2.0]))
    return cl.diagnose(model, x, {"full": y, "half": y[:, ::2, ::2]}, **kwargs)


def inside(found):
    """The parts of the innermost loss."""
    deepest = max(name.count("/") for name in found.names)
    return [part for name, part in found.components.items() if name.count("/") == deepest]


@pytest.mark.parametrize("place", ["output", "parameters"])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_part_of_weight_0_has_no_share(kind, place):
    on, off = inside(diagnosed(MAKERS[kind]([1, 0]), at=place))
    assert (on.share, off.share, off.weight) == (1.0, 0.0, 0.0)
    if kind != "stopped":
        assert (on.gradient_share, off.gradient_share) == (1.0, 0.0)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_parent_is_the_weighted_sum_of_its_parts(kind):
    found = diagnosed(MAKERS[kind]([0.5, 3.0]))
    parts = inside(found)
    parent = max((n for n in found.names if found.names[-1].startswith(f"{n}/")), key=len)
    whole = sum(part.weight * part.value for part in parts)
    assert found[parent].value == pytest.approx(whole, rel=1e-6)
    shares = np.array([part.weight * part.value for part in parts]) / whole
    np.testing.assert_allclose([part.share for part in parts], shares, rtol=1e-6)


@pytest.mark.parametrize("aggregation", ["sum", "mean", "weighted_mean"])
def test_an_importance_map_is_in_the_parts(aggregation):
    importance = np.random.default_rng(1).uniform(0.5, 2.0, (8, 8, 2)).tolist()
    found = diagnosed(channels(importance, aggregation))
    whole = sum(part.weight * part.value for part in inside(found))
    assert found["part"].value == pytest.approx(whole, rel=1e-6)


def test_weights_of_default():
    assert [part.weight for part in inside(diagnosed(deep("exp")))] == pytest.approx([2 / 3, 1 / 3])
    assert [part.weight for part in inside(diagnosed(scales(None)))] == [1.0, 1.0]
    assert [part.weight for part in inside(diagnosed(channels(None, "mean")))] == [0.5, 0.5]


def test_parts_of_parts_are_no_siblings():
    inner = cl.CompositeLoss({"mse": "mse", "mae": "mae"}, weights={"mae": 0.0})
    loss = cl.wrappers.DeepSupervision(inner, weights=[3.0, 0.0], outputs=["full", "half"])
    found = diagnosed(loss)
    shares = {name: found[f"part/{name}"].share for name in loss.component_names}
    assert shares == {
        "full": 1.0,
        "full_mse": 1.0,
        "full_mae": 0.0,
        "half": 0.0,
        "half_mse": 1.0,
        "half_mae": 0.0,
    }
    gradients = [found[f"part/{name}"].gradient_share for name in ("full", "full_mse", "half")]
    assert gradients == [1.0, 1.0, 0.0]
    assert found["part/full"].value == pytest.approx(found["part/full_mse"].value, rel=1e-6)
    assert "\n│     part/full_mse" in str(found)  # indented below its parent


def test_normalized_parts_add_up():
    found = diagnosed(cl.wrappers.Normalized("mse", over=["full", "half"]))
    parts = [found["part/full"], found["part/half"]]
    assert [part.weight for part in parts] == [1.0, 1.0]
    assert found["part"].value == pytest.approx(sum(part.value for part in parts), rel=1e-6)


def test_parts_of_a_wrapper_of_ones_own_are_unknown():
    class Squared(cl.wrappers.Wrapper):
        def see(self, batch, label):
            return batch

        def evaluate(self, batch, *args, **kwargs):
            found = super().evaluate(batch, *args, **kwargs)
            return found._replace(total=ops.square(found.total))

    x, y = arrays(16, outputs=2)
    model = line(outputs=2)
    own = Squared(cl.wrappers.PerChannel("mse", names=["a", "b"]))
    model.compile("sgd", loss=cl.CompositeLoss({"own": own}))
    assert np.isnan(cl.diagnose(model, x, y)["own/a"].weight)


# Sample weights: a difference that is small but real.


def test_a_small_difference_is_a_difference():
    x, y = arrays(64)
    weights = np.linspace(0.2, 2.0, 64)
    model = line()
    model.compile("sgd", loss=cl.CompositeLoss({"mse": "mse", "small": Reading()}))
    found = cl.diagnose(model, x, y, weights)
    assert "ignores sample weights" not in found.flags.get("small", ())


@keras.saving.register_keras_serializable("tests")
class Reading(cl.losses.Loss):
    """A scalar, of which a part of 1e-4 reads the weights."""

    couples_batch = True

    def call(self, y_true, y_pred, sample_weight=None):
        size = ops.mean(ops.square(y_pred), axis=-1)
        weight = 1.0 if sample_weight is None else sample_weight
        return ops.mean(size) + 1e-4 * ops.sum(size * weight) / ops.sum(weight)


def test_a_parent_reads_what_its_parts_read():
    """The rounding of a large part that ignores the weights hides one that reads them."""
    x, y = arrays(64)

    def large(y_true, y_pred):
        return 1e9 * ops.mean(ops.square(y_pred))

    model = line()
    both = cl.CompositeLoss({"mse": "mse", "large": large})
    model.compile("sgd", loss=cl.CompositeLoss({"both": both, "alone": large}))
    found = cl.diagnose(model, x, y, np.linspace(0.2, 2.0, 64))
    flags = {name for name, own in found.flags.items() if "ignores sample weights" in own}
    assert flags == {"both/large", "alone"}


def test_targets_that_are_all_missing_are_no_numpy_warning(recwarn):
    x, y = arrays(8)
    model = line()
    model.compile("sgd", loss=cl.CompositeLoss({"mse": cl.wrappers.Masked("mse")}))
    found = cl.diagnose(model, x, np.full_like(y, np.nan))
    assert found["mse"].value == 0
    assert not [w for w in recwarn if "empty slice" in str(w.message)]
