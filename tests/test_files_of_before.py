"""Files and pickles that earlier versions made load, tell the same numbers, and train on.

They load for ever. `tests/data/make_files.py` made them, on TensorFlow.
"""

import gzip
import importlib
import inspect
import io
import json
import pickle
import pickletools
import re
import zipfile

import h5py
import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses._core.compound_loss import CompoundLoss
from tests.contracts.registry import CASES
from tests.data import make_files
from tests.data.make_files import FOLDER, MODELS
from tests.losses.test_perceptual import network
from tests.test_house import PUBLIC
from tests.weightings import gradients, rules, test_schedules
from tests.wrappers.test_contracts import EACH

NUMBERS = json.loads((FOLDER / "files.json").read_text(encoding="utf-8"))
FILES = [(name, ending) for name, (*_, endings) in MODELS.items() for ending in endings]
every_file = pytest.mark.parametrize(("name", "ending"), FILES, ids=map("".join, FILES))


# The same, written with Keras 3.15.1 before the losses inside had one place in every version.
OF_3_15 = "of_keras_3_15_"


def loaded(name, ending, written=""):
    make, make_loss, *_ = MODELS[name]
    file = FOLDER / f"{written}{name}{ending}"
    if ending != ".weights.h5":
        return keras.models.load_model(file)
    model = make(make_loss())
    model.optimizer.build(model.trainable_variables)  # else Keras does not read its state
    model.load_weights(file)
    return model


def groups_in(file):
    """Where the state of the losses is in a file."""
    if file.suffix == ".keras":
        file = io.BytesIO(zipfile.ZipFile(file).read("model.weights.h5"))
    found = []
    with h5py.File(file) as opened:
        opened["loss"].visit(found.append)
    return found


def check_arrays(found, name, prefix="", without=()):
    """The stored arrays of a model, of which some may be left out, are there bit for bit."""
    prefix = f"{name}/{prefix}"
    with np.load(FOLDER / "files.npz") as stored:
        arrays = {k.removeprefix(prefix): stored[k] for k in stored if k.startswith(prefix)}
    assert arrays.keys() == found.keys()
    for key, value in arrays.items():
        if not key.endswith(without):
            np.testing.assert_array_equal(found[key], value, err_msg=key)


def check_close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key


def check_numbers(model, loss, name):
    found = make_files.numbers_of(model, loss, *MODELS[name][2]())
    expected = NUMBERS[name]
    assert found["weights"] == expected["weights"]
    check_close(found["components"], expected["components"])
    assert found["total"] == pytest.approx(expected["total"], rel=1e-5)


@pytest.mark.depends_on_version
@pytest.mark.fast  # on every backend
@every_file
def test_a_file_tells_what_it_told(name, ending):
    model = loaded(name, ending)
    # Such a file has the weights in the config, without whether they have been changed.
    check_arrays(make_files.arrays_of(model), name, without=("/changed",) * (ending == ".h5"))
    check_numbers(model, model.loss, name)


def loads_3_15():
    return tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 15)


@pytest.mark.fast
@pytest.mark.skipif(not loads_3_15(), reason="Keras does not load files of a later version")
@pytest.mark.parametrize(
    ("name", "ending"), [("moving", ".keras"), ("moving", ".weights.h5"), ("heads", ".keras")]
)
def test_a_file_of_another_layout_is_written_anew_in_that_of_today(name, ending, tmp_path):
    model = loaded(name, ending, OF_3_15)
    check_arrays(make_files.arrays_of(model), name)
    check_numbers(model, model.loss, name)
    (model.save if ending == ".keras" else model.save_weights)(tmp_path / f"new{ending}")
    assert groups_in(tmp_path / f"new{ending}") == groups_in(FOLDER / f"{name}{ending}")


def losses_inside(loss):
    """What the attribute `children` held: pairs of a loss and the prefix of its names."""
    return [(node.loss_itself(), prefix) for node, prefix in loss._as_node().nodes_inside()]


def save_as_before(model, file, monkeypatch, **options):
    """Saves weights with the losses inside where Keras 3.15 wrote them before."""
    with monkeypatch.context() as patch:
        patch.setattr(CompoundLoss, "children", property(losses_inside), raising=False)
        model.save_weights(file, **options)


@pytest.mark.fast
@pytest.mark.skipif(not loads_3_15(), reason="Keras does not look into lists of pairs")
@pytest.mark.parametrize("shard", [None, 83, 90, 161, 165, 400])
def test_a_wrapper_on_top_finds_the_state_inside(shard, tmp_path, monkeypatch):
    def compiled():
        rule = cl.weightings.UncertaintyWeighting()
        inner = cl.CompositeLoss({"mse": "mse", "mae": "mae"}, {"mse": 0.5}, weighting=rule)
        layers = [keras.layers.Dense(5), keras.layers.Dense(3)]
        model = cl.Sequential([keras.Input((4,)), *layers])
        model.compile("adam", loss=cl.wrappers.Scaled(inner, 2.0))
        return inner, model

    x, y = make_files.rows()
    inner, model = compiled()
    model.fit(x, y, verbose=0)
    inner.set_weight("mse", 7.0)
    options = {} if shard is None else {"max_shard_size": shard / 1024**3}
    ending = ".weights.h5" if shard is None else ".weights.json"
    save_as_before(model, tmp_path / f"old{ending}", monkeypatch, **options)
    assert shard or "children" in groups_in(tmp_path / "old.weights.h5")
    again, loaded = compiled()
    loaded.optimizer.build(loaded.trainable_variables)
    loaded.load_weights(tmp_path / f"old{ending}")
    assert again.weights == {"mse": 7.0, "mae": 1.0}
    for found, expected in zip(again.variables, inner.variables, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (found, expected)))


def test_an_attribute_of_the_users_stays(tmp_path):
    model = make_files.sequential(MODELS["moving"][1]())
    model.loss.children = "mine"
    model.save_weights(tmp_path / "a.weights.h5")
    model.load_weights(tmp_path / "a.weights.h5")
    assert model.loss.children == "mine"


@pytest.mark.skipif(not loads_3_15(), reason="Keras does not load files of a later version")
def test_a_pickle_of_another_layout_comes_back():
    file = FOLDER / f"{OF_3_15}moving.pickle.gz"
    loss = pickle.loads(gzip.decompress(file.read_bytes()))
    check_arrays(make_files.state_of(loss), "moving", "loss/")


@pytest.mark.depends_on_version
@every_file
def test_training_goes_on_as_it_would_have(name, ending):
    if ending == ".h5":
        pytest.skip("its optimizer is made anew, see tests/training/test_h5.py")
    logs = make_files.next_epoch(loaded(name, ending), *MODELS[name][2]())
    check_close(logs, NUMBERS[name]["next_epoch"])


@pytest.mark.depends_on_version
@pytest.mark.fast
def test_a_pickle_tells_what_it_told():
    loss = pickle.loads(gzip.decompress((FOLDER / "moving.pickle.gz").read_bytes()))
    check_arrays(make_files.state_of(loss), "moving", "loss/")
    check_numbers(loaded("moving", ".keras"), loss, "moving")


# What files and pickles name.


@pytest.mark.backend_free
@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_is_where_it_says(name):
    thing = PUBLIC[name]
    assert f"{thing.__module__}.{thing.__name__}" == name
    assert getattr(importlib.import_module(thing.__module__), thing.__name__) is thing


PUBLIC_MODULES = {name.rpartition(".")[0] for name in PUBLIC}


def check_names_what_is_public(pickled):
    """What pickle looks up does not say where code lies in the package, nor in Keras."""
    texts = [arg for _, arg, _ in pickletools.genops(pickled) if isinstance(arg, str)]
    ours = {text for text in texts if re.fullmatch(r"combined_losses(\.\w+)*", text)}
    assert ours and ours <= PUBLIC_MODULES
    assert not [text for text in texts if text.startswith(("keras.src", "_core", "_backend"))]


def config_of(thing):
    text = json.dumps(keras.saving.serialize_keras_object(thing), sort_keys=True)
    return re.sub(r'"shared_object_id": \d+', "", text)  # where Keras has put a model in memory


@keras.saving.register_keras_serializable("tests_files")
def equal(gramian):
    return keras.ops.ones_like(gramian[0])


GRAMIAN = [*gradients.OWN.items(), (cl.weightings.GramianWeighting, {"function": equal})]
OBJECTS = {
    **{case.loss.__name__: lambda case=case: case.make(**case.arguments) for case in CASES},
    **{cls.__name__: lambda wrapper=wrapper: wrapper for cls, wrapper in EACH.items()},
    **{cls.__name__: lambda cls=cls: rules.altered(cls) for cls in rules.PLAIN},
    **{c.__name__: lambda c=c, own=own: c(**own, **gradients.COMMON) for c, own in GRAMIAN},
    **{cls.__name__: make for cls, make in test_schedules.ALTERED.items()},
    "Perceptual": lambda: cl.losses.Perceptual(network(), ["one", "two"]),
    "quantiles": lambda: cl.losses.Pinball([0.1, 0.9], parts=True, reduction="sum", name="mine"),
    "string": lambda: cl.as_loss("mse"),
    "function": lambda: cl.as_loss(make_files.tail),
    "model": lambda: make_files.heads(make_files.heads_loss()),
    **{name: make_loss for name, (_, make_loss, *_) in MODELS.items()},
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_pickle_names_what_is_public_and_comes_back(name):
    thing = OBJECTS[name]()
    pickled = pickle.dumps(thing)
    check_names_what_is_public(pickled)
    again = pickle.loads(pickled)
    assert type(again) is type(thing) and again is not thing
    assert config_of(again) == config_of(thing)


def test_every_public_class_is_pickled_here():
    classes = {cls for cls in PUBLIC.values() if inspect.isclass(cls)}
    bases = (
        keras.losses.Loss,
        cl.weightings.Weighting,
        keras.optimizers.schedules.LearningRateSchedule,
    )
    concrete = {cls.__name__ for cls in classes if issubclass(cls, bases)}
    concrete -= {"CompositeLoss", "Loss", "Wrapper", "Weighting"}
    assert concrete <= OBJECTS.keys()
