"""What every class of `combined_losses.losses` must do, whatever it measures."""

import inspect
import json
import re

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.composite.children import REDUCTIONS, WEIGHTS, value
from tests.contracts.reference import read_cases
from tests.contracts.registry import CASES, VARIANTS
from tests.gradients import compiled, gradient, value_and_gradient
from tests.masks import masked
from tests.messages import raises

REFERENCES = read_cases()
WITHOUT_REFERENCE = (  # the sheet of formulas does not have them
    cl.losses.Distillation,
    cl.losses.InBatchSoftmax,
    cl.losses.PeakSignalToNoise,
    cl.losses.SparseCrossEntropy,
    cl.losses.ZLoss,
)
WITHOUT_CASE = (cl.losses.Perceptual,)  # it needs a network: tests/losses/test_perceptual.py
RATIOS_OF_ROUNDINGS = ("SISDR_5",)  # a scaled copy, which is none any more in float16
# Tests of the data format are in `test_data_formats.py`.
NOT_ARGUMENTS = ("self", "kwargs", "reduction", "name", "dtype", "data_format")

every_class = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_loss = pytest.mark.parametrize("case", [*CASES, *VARIANTS], ids=lambda case: case.name)


def parameters(cls, without=NOT_ARGUMENTS):
    """The arguments of a class, also those that it hands on to its bases through `**kwargs`."""
    found = {}
    for base in (base for base in cls.__mro__ if "__init__" in vars(base)):
        own = inspect.signature(vars(base)["__init__"]).parameters
        found = {**own, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
    return {name: p for name, p in found.items() if name not in without}


def close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def make(case, **kwargs):
    return case.make(**case.arguments, **kwargs)


# The registry.


@pytest.mark.backend_free
def test_every_loss_has_a_case():
    public = {getattr(cl.losses, name) for name in cl.losses.__all__} - {cl.losses.Loss}
    losses = {loss for loss in public if isinstance(loss, type)}
    assert losses == {*WITHOUT_CASE, *(case.loss for case in CASES)}, "add one case to registry.py"


@every_class
def test_every_argument_has_a_case_off_its_default(case):
    own = [each for each in VARIANTS if each.loss is case.loss]
    found = {*case.required, *case.fixed}.union(*(each.arguments for each in (case, *own)))
    assert found == set(parameters(case.loss))


@every_loss
def test_every_argument_is_off_its_default_and_makes_a_difference(case):
    defaults = {name: parameter.default for name, parameter in parameters(case.loss).items()}
    data, of_all = (case.y_true, case.y_pred), case.arguments
    of_default = value(case.make(), *data)
    for name, argument in of_all.items():
        assert argument != defaults[name]
        if value(case.make(**{name: argument}), *data) != of_default:
            continue
        # Some arguments act only together with another one.
        others = {key: of_all[key] for key in of_all if key != name}
        makes_none = f"`{name}` makes no difference here"
        assert value(case.make(**others), *data) != value(case.make(**of_all), *data), makes_none


@pytest.mark.backend_free
@every_class
def test_every_argument_is_documented(case):
    """An argument has an entry of its own, or shares one with similar arguments."""
    for name in parameters(case.loss):
        assert re.search(rf"^ *(\w+, )*{name}(, \w+)*: ", case.loss.__doc__, re.MULTILINE), name


# Numbers.


@pytest.mark.parametrize("arguments", ["default", "off default"])
@every_loss
def test_values_and_gradients_are_those_of_the_oracle(case, arguments):
    kwargs = case.arguments if arguments == "off default" else {}
    values, slope = case.values(**kwargs)
    loss = case.make(reduction="none", **kwargs)
    close(value(loss, case.y_true, case.y_pred), values)
    slack = 1e-6 + case.rounding(**kwargs)
    close(gradient(lambda p: loss(case.y_true, p), case.y_pred), slope, atol=slack)


@pytest.mark.parametrize("entry", REFERENCES, ids=lambda entry: entry["id"])
def test_values_and_gradients_are_those_of_the_reference(entry):
    """The tolerances are those of the entry, for computation in float32."""
    loss = getattr(cl.losses, entry["loss"])(reduction="none", **entry["kwargs"])
    data = entry["y_true"], entry["y_pred"]
    values, slope = value_and_gradient(loss, *data)
    found = [values]
    if keras.backend.backend() != "jax":  # on JAX they are compiled already
        found.append(value(compiled(lambda *data: loss(*data)), *data))
    for values in found:
        assert values.shape == entry["values"].shape
        close(values, entry["values"], entry["value_rtol"], entry["value_atol"])
    assert np.all(np.isfinite(slope))
    if entry["compare_gradient"]:
        close(slope, entry["grad"], entry["grad_rtol"], entry["grad_atol"])
    check_other_gradient(entry, lambda y: loss(y, entry["y_pred"]))


def check_other_gradient(entry, of_target):
    """Of a loss of two outputs, where the first one stands for the target."""
    if "grad_y_true" in entry:
        slope = gradient(of_target, entry["y_true"])
        close(slope, entry["grad_y_true"], entry["grad_rtol"], entry["grad_atol"])


@pytest.mark.parametrize("entry", read_cases("weighted_cases"), ids=lambda entry: entry["id"])
def test_the_weights_of_the_reference_act_inside(entry):
    loss = getattr(cl.losses, entry["loss"])(reduction="none", **entry["kwargs"])
    weight = entry["sample_weight"]
    values, slope = value_and_gradient(
        lambda y, p: loss(y, p, weight), entry["y_true"], entry["y_pred"]
    )
    close(values, entry["values"], entry["value_rtol"], entry["value_atol"])
    close(slope, entry["grad"], entry["grad_rtol"], entry["grad_atol"])
    check_other_gradient(entry, lambda y: loss(y, entry["y_pred"], weight))


@pytest.mark.parametrize("entry", REFERENCES, ids=lambda entry: entry["id"])
def test_the_reference_in_float16(entry):
    """Finite, and right to 1e-2 where float16 can hold the numbers of the case."""
    whole = entry["y_true"].dtype.kind == "i"
    with np.errstate(over="ignore"):
        y_true = entry["y_true"] if whole else entry["y_true"].astype("float16")
        y_pred = entry["y_pred"].astype("float16")
    if not np.all(np.isfinite(y_pred)) or not np.all(np.isfinite(y_true)):
        pytest.skip("float16 cannot hold its numbers")
    loss = getattr(cl.losses, entry["loss"])(reduction="none", **entry["kwargs"], dtype="float16")
    values, slope = value_and_gradient(loss, y_true, y_pred)
    assert values.dtype == "float32"
    assert np.all(np.isfinite(values))
    scale = max(1.0, np.abs(entry["values"]).max())
    if entry["id"] not in RATIOS_OF_ROUNDINGS:
        close(values, entry["values"], 1e-2, 1e-2 * scale)
    assert np.all(np.isfinite(slope[np.abs(entry["grad"]) < 6e4]))  # the largest is 65504


@pytest.mark.backend_free
def test_every_loss_has_a_reference():
    assert {entry["loss"] for entry in REFERENCES} == {
        case.loss.__name__ for case in CASES if case.loss not in WITHOUT_REFERENCE
    }


@pytest.mark.parametrize("reduction", REDUCTIONS)
@every_loss
def test_the_reduction_comes_after_the_weights(case, reduction):
    inside = {"sample_weight": WEIGHTS} if case.couples_batch else {}
    values, _ = case.values(**case.arguments, **inside)
    outside = np.ones_like(WEIGHTS) if case.is_one_number else WEIGHTS
    weight = np.broadcast_to(outside.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
    divisor = {"sum": 1, "mean_with_sample_weight": weight.sum()}.get(reduction, values.size)
    expected = values * weight if reduction == "none" else (values * weight).sum() / divisor
    close(value(make(case, reduction=reduction), case.y_true, case.y_pred, WEIGHTS), expected)


@every_loss
def test_a_composite_of_one_is_the_loss(case):
    composite = cl.CompositeLoss({"a": make(case)})
    for weight in (None, WEIGHTS):
        alone = value(make(case), case.y_true, case.y_pred, weight)
        assert value(composite, case.y_true, case.y_pred, weight) == alone


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@every_loss
def test_float16_inputs_are_computed_in_float32(case, dtype):
    y_true, y_pred = case.y_true.astype("float16"), case.y_pred.astype("float16")
    values, _ = case.values(y_true, y_pred, **case.arguments)
    actual = value(make(case, dtype=dtype), y_true, y_pred)
    assert actual.dtype == "float32"
    close(actual, values.mean())


@every_loss
def test_a_perfect_prediction_has_a_finite_value_and_gradient(case):
    for y in (case.y_true, np.zeros_like(case.y_true), np.ones_like(case.y_true)):
        perfect = case.perfect(y)
        assert np.isfinite(value(make(case), y, perfect))
        assert np.all(np.isfinite(gradient(lambda p, y=y: make(case)(y, p), perfect)))


# Which samples count.


@every_loss
def test_one_sample_is_its_own_mean(case):
    values, _ = case.values(case.y_true[:1], case.y_pred[:1], **case.arguments)
    close(value(make(case), case.y_true[:1], case.y_pred[:1]), values.mean())


@every_loss
def test_weight_0_and_a_mask_drop_the_sample(case):
    kept, loss = WEIGHTS > 0, make(case, reduction="mean_with_sample_weight")
    dropped = value(loss, case.y_true[kept], case.y_pred[kept], WEIGHTS[kept])
    close(value(loss, case.y_true, case.y_pred, WEIGHTS), dropped)
    close(value(loss, case.y_true, masked(case.y_pred, kept), WEIGHTS), dropped)


@every_loss
def test_the_order_of_the_samples_does_not_matter(case):
    order = [2, 0, 3, 1]
    shuffled = value(make(case), case.y_true[order], case.y_pred[order], WEIGHTS[order])
    close(value(make(case), case.y_true, case.y_pred, WEIGHTS), shuffled)


@every_loss
def test_a_weight_of_2_is_the_sample_twice(case):
    if case.pairwise:
        pytest.skip("a sample and its copy are a pair of their own")
    reduction = "mean" if case.is_one_number else "sum"
    loss, twice = make(case, reduction=reduction), [0, 1, 1, 2, 3]
    weight = np.array([1.0, 2.0, 1.0, 1.0], "float32")
    doubled = value(loss, case.y_true[twice], case.y_pred[twice])
    close(value(loss, case.y_true, case.y_pred, weight), doubled)


@pytest.mark.parametrize("bad_pred", [np.nan, 0.0])
@every_loss
def test_a_bad_row_of_weight_0_does_no_harm(case, bad_pred):
    y_true, y_pred = case.y_true.astype("float32"), case.y_pred.copy()
    y_true[1], y_pred[1] = np.nan, bad_pred
    sound = value(make(case), case.y_true, case.y_pred, WEIGHTS)
    close(value(make(case), y_true, y_pred, WEIGHTS), sound)
    slope = gradient(lambda p: make(case)(y_true, p, WEIGHTS), y_pred)
    close(slope, gradient(lambda p: make(case)(case.y_true, p, WEIGHTS), case.y_pred))


# Configuration and errors.


@every_loss
def test_every_argument_comes_back_from_the_config(case):
    loss = make(case, reduction="sum", name="named", dtype="float16")
    serialized = keras.saving.serialize_keras_object(loss)
    assert serialized["registered_name"] == f"combined_losses>{case.loss.__name__}"
    loaded = keras.saving.deserialize_keras_object(json.loads(json.dumps(serialized)))
    assert type(loaded) is type(loss)
    assert (loaded.reduction, loaded.name, loaded.dtype) == ("sum", "named", "float16")
    assert json.dumps(loaded.get_config()) == json.dumps(loss.get_config())
    own = parameters(case.loss, without=("self", "kwargs"))
    assert set(loss.get_config()) == {*own, "reduction", "name", "dtype"}
    assert value(loaded, case.y_true, case.y_pred) == value(loss, case.y_true, case.y_pred)


@every_loss
def test_the_arguments_are_stored_as_they_were_given(case):
    loss = make(case)
    assert {name: getattr(loss, name) for name in case.arguments} == case.arguments


REFUSED = [
    pytest.param(case, name, bad, id=f"{case.loss.__name__}({name}={bad!r})")
    for case in CASES
    for name, values in case.refused.items()
    for bad in values
]


@pytest.mark.backend_free
@pytest.mark.parametrize("case, name, bad", REFUSED)
def test_an_argument_outside_its_domain_is_an_error(case, name, bad):
    owner = case.loss.__name__
    with raises(ValueError, f"`{name}` of {owner}", "must be", f"Received: {bad!r}"):
        case.make(**{name: bad})


@every_loss
def test_a_target_of_another_shape_is_an_error(case):
    if not case.same_shape:
        pytest.skip("its targets have a shape of their own")
    y_true = case.y_true[:, :1]
    received = f"Received: y_true of shape {y_true.shape} and y_pred of shape {case.y_pred.shape}"
    with raises(ValueError, "broadcast", f"shape {case.y_pred.shape}", received):
        make(case)(y_true, case.y_pred)


@every_loss
def test_it_trains_in_a_compiled_step_with_partial_batches(case):
    """The same number as outside, where the batch size is unknown when the step is compiled."""
    model = cl.Sequential([keras.Input(case.y_pred.shape[1:]), keras.layers.Rescaling(1.0)])
    model.compile("sgd", loss=cl.CompositeLoss({"a": make(case, reduction="sum")}))
    logs = model.evaluate(case.y_pred, case.y_true, batch_size=3, verbose=0, return_dict=True)
    sums = [value(make(case, reduction="sum"), *batch) for batch in batches(case)]
    expected = np.average(sums, weights=[3, len(case.y_pred) - 3])
    assert set(logs) >= {"loss", "a_loss"}
    assert (logs["loss"], logs["a_loss"]) == pytest.approx((expected, expected), rel=1e-5)


def batches(case):
    return [(case.y_true[s], case.y_pred[s]) for s in (slice(0, 3), slice(3, None))]


@every_loss
def test_its_name_is_its_class_in_snake_case(case):
    name = case.make().name
    assert name.replace("_", "") == case.loss.__name__.lower()
    assert cl.CompositeLoss([case.make(), case.make()]).names == (name, f"{name}_2")


@every_loss
def test_call_returns_unreduced_values(case):
    values = make(case).call(ops.array(case.y_true), ops.array(case.y_pred))
    expected, _ = case.values(**case.arguments)
    assert tuple(values.shape) == expected.shape
    assert values.shape[0] == len(case.y_pred)
