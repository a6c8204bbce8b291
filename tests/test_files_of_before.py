"""Files that earlier versions made load, tell the same numbers, and train on. They load for ever.

`tests/data/make_files.py` made them, on TensorFlow.
"""

import json

import keras
import numpy as np
import pytest

from tests.data import make_files
from tests.data.make_files import FOLDER, MODELS

NUMBERS = json.loads((FOLDER / "files.json").read_text(encoding="utf-8"))

pytestmark = pytest.mark.depends_on_version


def array_of(name):
    """The stored arrays of one model, by key."""
    with np.load(FOLDER / "files.npz") as stored:
        return {k.removeprefix(f"{name}/"): stored[k] for k in stored if k.startswith(f"{name}/")}


def loaded(name, ending):
    make, make_loss, *_ = MODELS[name]
    if ending != ".weights.h5":
        return keras.models.load_model(FOLDER / f"{name}{ending}")
    model = make(make_loss())
    model.optimizer.build(model.trainable_variables)  # else Keras does not read its state
    model.load_weights(FOLDER / f"{name}{ending}")
    return model


def check_close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key


FILES = [(name, ending) for name, (*_, endings) in MODELS.items() for ending in endings]


@pytest.mark.parametrize(("name", "ending"), FILES, ids=map("".join, FILES))
def test_a_file_tells_what_it_told(name, ending):
    model, expected = loaded(name, ending), NUMBERS[name]
    arrays = make_files.arrays_of(model)
    stored = array_of(name)
    assert arrays.keys() == stored.keys()
    for key, value in stored.items():
        if ending == ".h5" and key.endswith("/changed"):
            continue  # the weights are in the config, and with them all is said
        np.testing.assert_array_equal(arrays[key], value, err_msg=key)
    x, y = MODELS[name][2]()
    found = make_files.numbers_of(model, x, y)
    assert found["weights"] == expected["weights"]
    check_close(found["components"], expected["components"])
    assert found["total"] == pytest.approx(expected["total"], rel=1e-5)


KEEP_TRAINING = [pair for pair in FILES if pair[1] != ".h5"]  # which has no optimizer that fits


@pytest.mark.parametrize(("name", "ending"), KEEP_TRAINING, ids=map("".join, KEEP_TRAINING))
def test_training_goes_on_as_it_would_have(name, ending):
    logs = make_files.next_epoch(loaded(name, ending), *MODELS[name][2]())
    check_close(logs, NUMBERS[name]["next_epoch"])
