"""Schedules for single weights: `LinearRamp`, `Sigmoid`, `Cyclical`."""

import inspect
import json
import math

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from combined_losses.weightings import Cyclical, LinearRamp, Sigmoid
from tests.messages import raises
from tests.weightings.rules import SCHEDULE_CLASSES

# One of each with every argument off its default.
ALTERED = {
    LinearRamp: lambda: LinearRamp(steps=8, start=0.25, end=2.0, delay=3),
    Sigmoid: lambda: Sigmoid(steps=20, start=2.0, end=-1.0, midpoint=30),
    Cyclical: lambda: Cyclical(cycle=10, ratio=0.4, start=0.5, end=1.5, cycles=2),
}
every_schedule = pytest.mark.parametrize("cls", ALTERED, ids=lambda cls: cls.__name__)
STEPS = np.arange(80)


def at(schedule, *steps):
    """The values at steps that are Python integers."""
    return [float(ops.convert_to_numpy(ops.convert_to_tensor(schedule(step)))) for step in steps]


def ramp(steps, start=0.0, end=1.0, delay=0):
    return lambda s: start + (end - start) * min(max((s - delay) / steps, 0.0), 1.0)


def logistic(steps, start=0.0, end=1.0, midpoint=None):
    middle = steps if midpoint is None else midpoint
    return lambda s: start + (end - start) / (1 + 19 ** (-2 * (s - middle) / steps))


def cyclical(cycle, ratio=0.5, start=0.0, end=1.0, cycles=None):
    def value(s):
        if cycles is not None and s >= cycle * cycles:
            return end
        return start + (end - start) * min((s % cycle) / (cycle * ratio), 1.0)

    return value


CASES = [
    (LinearRamp, ramp, {"steps": 10}),
    (LinearRamp, ramp, {"steps": 1}),
    (LinearRamp, ramp, {"steps": 8, "start": 0.25, "end": 2.0, "delay": 3}),
    (LinearRamp, ramp, {"steps": 7.5, "start": 1.0, "end": -1.0, "delay": -2}),
    (Sigmoid, logistic, {"steps": 10}),
    (Sigmoid, logistic, {"steps": 20, "start": 2.0, "end": -1.0, "midpoint": 30}),
    (Sigmoid, logistic, {"steps": 10, "midpoint": 0}),
    (Cyclical, cyclical, {"cycle": 10}),
    (Cyclical, cyclical, {"cycle": 1}),
    (Cyclical, cyclical, {"cycle": 10, "ratio": 1.0, "cycles": 3}),
    (Cyclical, cyclical, {"cycle": 10, "ratio": 0.4, "start": 0.5, "end": 1.5, "cycles": 2}),
]


@pytest.mark.backend_free
def test_every_schedule_is_among_them():
    assert set(ALTERED) == SCHEDULE_CLASSES == {cls for cls, *_ in CASES}


@pytest.mark.parametrize(
    "cls, twin, given", CASES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_it_has_the_values_of_its_formula(cls, twin, given):
    expected = [twin(**given)(step) for step in STEPS]
    np.testing.assert_allclose(at(cls(**given), *STEPS.tolist()), expected, rtol=1e-5, atol=1e-6)


def test_corners():
    assert at(LinearRamp(4, start=1.0, end=3.0, delay=2), 0, 2, 4, 6, 10**6) == [1, 1, 2, 3, 3]
    assert at(LinearRamp(4), -5) == [0]
    curve = at(Sigmoid(steps=40, midpoint=100), 80, 100, 120)
    assert curve == pytest.approx([0.05, 0.5, 0.95], rel=1e-5)
    assert at(Sigmoid(steps=40), 40) == [0.5]
    assert at(Sigmoid(steps=40), 10**6) == [1.0]
    wave = Cyclical(cycle=8, ratio=0.5, cycles=2)
    assert at(wave, 0, 2, 4, 7, 8, 12, 15, 16, 17, 10**6) == [0, 0.5, 1, 1, 0, 1, 1, 1, 1, 1]
    assert at(Cyclical(cycle=8), 8 * 10**5, 8 * 10**5 + 2) == [0, 0.5]


@pytest.mark.parametrize("start, end", [(0.0, 1.0), (2.0, -1.0)])
def test_it_goes_one_way_and_stays_between_its_ends(start, end):
    for schedule in (LinearRamp(30, start, end, 5), Sigmoid(30, start, end)):
        values = np.array(at(schedule, *STEPS.tolist()))
        moves = np.diff(values) * np.sign(end - start)
        assert np.all(moves >= 0) and np.any(moves > 0)
        assert values.min() >= min(start, end) and values.max() <= max(start, end)
    wave = np.array(at(Cyclical(20, 0.5, start, end), *range(20)))
    assert np.all(np.diff(wave) * np.sign(end - start) >= 0)


@every_schedule
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_a_step_may_be_a_tensor(cls, dtype):
    """Also that of an optimizer, a variable."""
    schedule = ALTERED[cls]()
    for step in (0, 5, 17, 31):
        (expected,) = at(schedule, step)
        tensor = schedule(ops.convert_to_tensor(step, dtype=dtype))
        assert float(ops.convert_to_numpy(tensor)) == pytest.approx(expected, rel=1e-6)
        array = schedule(np.array(step, dtype))
        assert float(ops.convert_to_numpy(array)) == pytest.approx(expected, rel=1e-6)
        variable = keras.Variable(step, dtype=dtype, trainable=False)
        assert float(ops.convert_to_numpy(schedule(variable))) == pytest.approx(expected, rel=1e-6)


@every_schedule
def test_its_config_has_every_argument_and_comes_back_from_json(cls):
    schedule = ALTERED[cls]()
    serialized = keras.saving.serialize_keras_object(schedule)
    assert serialized["registered_name"] == f"combined_losses>{cls.__name__}"
    own = inspect.signature(cls.__init__).parameters
    assert set(serialized["config"]) == set(own) - {"self"}
    defaults = {name: p.default for name, p in own.items() if name != "self"}
    config = serialized["config"]
    assert all(config[name] != default for name, default in defaults.items())
    loaded = keras.saving.deserialize_keras_object(json.loads(json.dumps(serialized)))
    assert type(loaded) is cls and loaded.get_config() == schedule.get_config()
    assert at(loaded, *range(40)) == at(schedule, *range(40))


@every_schedule
def test_it_also_schedules_a_learning_rate(cls):
    optimizer = keras.optimizers.SGD(ALTERED[cls]())
    rate = float(ops.convert_to_numpy(optimizer.learning_rate))
    assert rate == pytest.approx(at(ALTERED[cls](), 0)[0])


BAD_NUMBERS = ["a", None, True, math.nan, math.inf, [1]]
FEW = [0, -1, 0.5, *BAD_NUMBERS]
NOT_NONE = [bad for bad in BAD_NUMBERS if bad is not None]
BAD = {
    (LinearRamp, "steps"): FEW,
    (LinearRamp, "start"): BAD_NUMBERS,
    (LinearRamp, "end"): BAD_NUMBERS,
    (LinearRamp, "delay"): BAD_NUMBERS,
    (Sigmoid, "steps"): FEW,
    (Sigmoid, "start"): BAD_NUMBERS,
    (Sigmoid, "end"): BAD_NUMBERS,
    (Sigmoid, "midpoint"): [*NOT_NONE, False, "", []],
    (Cyclical, "cycle"): FEW,
    (Cyclical, "ratio"): [0, -0.1, 1.5, *BAD_NUMBERS],
    (Cyclical, "start"): BAD_NUMBERS,
    (Cyclical, "end"): BAD_NUMBERS,
    (Cyclical, "cycles"): [0, -1, *NOT_NONE, False, ""],
}
EACH_BAD = [(cls, name, bad) for (cls, name), values in BAD.items() for bad in values]
NEEDED = {LinearRamp: {"steps": 5}, Sigmoid: {"steps": 5}, Cyclical: {"cycle": 5}}


@pytest.mark.backend_free
def test_every_argument_has_bad_values():
    arguments = {(cls, name) for cls in ALTERED for name in inspect.signature(cls).parameters}
    assert arguments == set(BAD)


@pytest.mark.backend_free
@pytest.mark.parametrize(
    "cls, name, bad", EACH_BAD, ids=[f"{c.__name__}-{name}-{bad!r}" for c, name, bad in EACH_BAD]
)
def test_a_bad_argument_is_an_error_that_says_so(cls, name, bad):
    counts = name in ("steps", "cycle", "cycles")
    ratio = "above 0 and at most 1"
    allowed = "of at least 1" if counts else ratio if name == "ratio" else "a finite number"
    with raises(ValueError, f"`{name}` of {cls.__name__}", allowed, f"Received: {bad!r}"):
        cls(**{**NEEDED[cls], name: bad})


# In a composite.


@pytest.mark.parametrize("form", ["dict", "list"])
def test_a_composite_takes_it_as_a_weight(form):
    schedule = LinearRamp(4, start=0.5, end=1.0)
    given = {"mae": schedule} if form == "dict" else [1.0, schedule]
    loss = cl.CompositeLoss(["mse", "mae"], weights=given)
    assert loss.weights == {"mse": 1.0, "mae": 0.5}
    assert loss._node.moves
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    loaded = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(loaded) == config
    assert loaded.weights == loss.weights and loaded._node.moves


def test_a_schedule_of_keras_will_do():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2, 4], [1.0, 0.5, 0.1])
    loss = cl.CompositeLoss(["mse", "mae"], weights=[schedule, 2.0])
    assert loss.weights == {"mse": 1.0, "mae": 2.0}
