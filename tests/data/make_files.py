"""Makes the files of models in this folder, which every later version must load.

They were made once, before the private modules of the package moved; `moving.pickle.gz`, the loss
of `moving.keras`, when pickles had begun to name public modules alone. Do not make them again to
mend a test: a file that does not load any more is a fault of the package. Make new ones, under new
names, when a format gains something:

    KERAS_BACKEND=tensorflow python -m tests.data.make_files [folder]

with the lowest versions that setup.cfg admits: older versions of Keras cannot read newer files.
"""

import gzip
import json
import pickle
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import ops

import combined_losses as cl

FOLDER = Path(__file__).parent
SAMPLES, BATCH = 8, 4


@keras.saving.register_keras_serializable("tests_files")
def tail(y_true, y_pred):
    """A function of a user's own."""
    return ops.mean(ops.maximum(ops.abs(y_true - y_pred) - 0.25, 0.0), axis=-1)


tail.elementwise = True


@keras.saving.register_keras_serializable("tests_files")
class Understock(cl.losses.Loss):
    """A loss of a user's own."""

    elementwise = True

    def __init__(self, cost=2.0, **kwargs):
        super().__init__(**kwargs)
        self.cost = cost

    def call(self, y_true, y_pred):
        return ops.mean(self.cost * ops.relu(y_true - y_pred), axis=-1)


# The losses.


def fixed_loss():
    """Fixed weights alone, which `.h5` keeps as well: nested, wrapped, a child lossy in Keras."""
    inner = cl.CompositeLoss(["mae", keras.losses.LogCosh(reduction="sum")], [0.5, 0.25])
    children = {
        "huber": keras.losses.Huber(0.5),
        "tail": tail,
        "pinball": cl.losses.Pinball(0.9),
        "inner": inner,
        "slice": cl.wrappers.OnSlice("mse", np.s_[..., 0:2]),
        "scaled": cl.wrappers.Scaled(cl.losses.Charbonnier(0.01), [1.0, 2.0, 4.0]),
        "own": cl.wrappers.Masked(Understock(cost=3.0), mask_value=-1.0),
    }
    return cl.CompositeLoss(children, {"huber": 2.0, "own": 0.75}, name="fixed")


def moving_loss():
    """A schedule, a learned rule, and a rule with a memory inside a wrapper."""
    balance = cl.weightings.ReLoBRaLo(alpha=0.9, rho=1.0, temperature=2.0, seed=3)
    inner = cl.CompositeLoss({"a": "mae", "b": tail}, {"b": 1.5}, weighting=balance)
    children = {
        "mse": "mse",
        "linex": cl.losses.Linex(0.5),
        "inner": cl.wrappers.Scaled(inner, 2.0),
        "elements": cl.wrappers.PerElement("mae", names=["x", "y", "z"], weights=[1.0, 2.0, 3.0]),
        "smooth": cl.wrappers.PredictionOnly(cl.wrappers.Activated("mse", "tanh")),
        "stop": cl.wrappers.StopGradient("mae"),
    }
    weights = {"mse": 0.5, "linex": cl.weightings.LinearRamp(8, start=0.25, end=2.0)}
    rule = cl.weightings.UncertaintyWeighting(initial=0.25)
    return cl.CompositeLoss(children, weights, weighting=rule, name="moving")


def heads_loss():
    """Two outputs, and a rule that reads gradients at a layer, with a state."""
    children = {
        "a": cl.wrappers.OnOutput("mse", "a"),
        "b": cl.wrappers.OnOutput(0.5 * cl.as_loss("mae") + Understock(name="under"), "b"),
        "tail": cl.wrappers.OnOutput(tail, "a"),
    }
    rule = cl.weightings.GradNorm(gradients="trunk")
    return cl.CompositeLoss(children, {"tail": 0.125}, weighting=rule, name="heads")


def masks_loss():
    """Losses of images, a rule that keeps means, and a step that may be skipped."""
    children = {
        "dice": cl.losses.dice_bce(weights={"bce": 0.5}),
        "channels": cl.wrappers.PerChannel(cl.losses.Jaccard(), names=["car", "road"]),
        "scales": cl.wrappers.MultiScale("mae", scales=(1, 2), weights=[0.25, 0.75]),
        "rare": cl.wrappers.ClassWeighted("mse", [1.0, 3.0]),
        "focal": cl.wrappers.Normalized(cl.losses.BinaryFocal(2.0)),
    }
    rule = cl.weightings.CoVWeighting(decay=0.75)
    return cl.CompositeLoss(children, weighting=rule, on_nonfinite="skip", name="masks")


# The models.


def _constant(*shape, seed):
    values = np.random.default_rng(seed).normal(0, 0.5, size=shape)
    return keras.initializers.Constant(values.astype("float32"))


def _dense(units, inputs, seed, **kwargs):
    return keras.layers.Dense(
        units, kernel_initializer=_constant(inputs, units, seed=seed), **kwargs
    )


def sequential(loss):
    # What a rule learns has a momentum, which the file must keep, too.
    momentum = 0.5 if loss.name == "moving" else 0.0
    model = cl.Sequential([keras.Input((4,)), _dense(3, 4, seed=1, name="dense")], name="line")
    model.compile(keras.optimizers.SGD(0.05, momentum=momentum), loss=loss)
    return model


def heads(loss):
    x = keras.Input((4,))
    trunk = _dense(5, 4, seed=2, activation="tanh", name="trunk")(x)
    outputs = {name: _dense(2, 5, seed=i, name=name)(trunk) for i, name in enumerate("ab")}
    model = cl.Model(x, outputs, name="two_heads")
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    return model


def masks(loss):
    x = keras.Input((4, 4, 1))
    kernel = _constant(3, 3, 1, 2, seed=4)
    same = {"padding": "same", "kernel_initializer": kernel}
    conv = keras.layers.Conv2D(2, 3, activation="sigmoid", **same)
    model = cl.Model(x, conv(x), name="segmentation")
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    return model


def _numbers(*shape, seed):
    return np.random.default_rng(seed).normal(size=(SAMPLES, *shape)).astype("float32")


def rows():
    y = _numbers(3, seed=11)
    y[::3, 1] = -1.0  # masked in `own`
    return _numbers(4, seed=10), y


def rows_of_two():
    return _numbers(4, seed=12), {"a": _numbers(2, seed=13), "b": _numbers(2, seed=14)}


def images():
    y = (_numbers(4, 4, 2, seed=16) > 0).astype("float32")
    return _numbers(4, 4, 1, seed=15), y


# By name: the model, the loss, the data, weights that are changed at the end, and the files.
MODELS = {
    "fixed": (sequential, fixed_loss, rows, {"tail": 0.125, "inner/mae": 4.0}, (".keras", ".h5")),
    "moving": (
        sequential,
        moving_loss,
        rows,
        {"mse": 0.75, "inner/b": 0.5},
        (".keras", ".weights.h5"),
    ),
    "heads": (heads, heads_loss, rows_of_two, {"b/under": 0.25}, (".keras",)),
    "masks": (masks, masks_loss, images, {"dice/dice": 2.0}, (".keras",)),
}


# What is told of a model, by public names alone.


def state_of(loss, path=""):
    """What each composite inside writes into files, by its path and the key there."""
    found = {}
    if isinstance(loss, cl.CompositeLoss):
        store = {}
        loss.save_own_variables(store)
        found.update({f"{path}{key}": np.asarray(value) for key, value in store.items()})
        for name, child in loss.losses.items():
            found.update(state_of(child, f"{path}{name}/"))
    elif isinstance(loss, cl.wrappers.Wrapper):
        found.update(state_of(loss.loss, path))
    return found


def arrays_of(model):
    """The weights of the layers and the state of the loss."""
    weights = [w for layer in model.layers for w in layer.weights]
    found = {f"weights/{i}": ops.convert_to_numpy(w) for i, w in enumerate(weights)}
    return {**found, **{f"loss/{key}": value for key, value in state_of(model.loss).items()}}


def numbers_of(model, loss, x, y):
    """The loss of its predictions, the components and their weights, as floats."""
    y_pred = model(x)
    components = loss.components(y, y_pred)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights that move stand still here, as they should
        total = loss(y, y_pred)
    return {
        "total": float(ops.convert_to_numpy(total)),
        "components": {name: float(ops.convert_to_numpy(v)) for name, v in components.items()},
        "weights": {name: loss.weight_of(name) for name in loss.settable_names},
    }


def next_epoch(model, x, y):
    """The logs of one more epoch, which tell whether training goes on as it would have."""
    history = model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0).history
    return {key: float(values[-1]) for key, values in history.items()}


def trained(make, make_loss, data, changed):
    model, (x, y) = make(make_loss()), data()
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    for name, weight in changed.items():
        model.loss.set_weight(name, weight)
    return model, x, y


def make_pickle(folder):
    """Of the loss in the file `moving.keras`, whose numbers it then has."""
    loss = keras.models.load_model(folder / "moving.keras").loss
    pickled = gzip.compress(pickle.dumps(loss, protocol=4), mtime=0)
    (folder / "moving.pickle.gz").write_bytes(pickled)


def make_files(folder):
    numbers, arrays = {"keras": keras.__version__, "backend": keras.backend.backend()}, {}
    for name, (*recipe, endings) in MODELS.items():
        model, x, y = trained(*recipe)
        for ending in endings:
            save = model.save_weights if ending == ".weights.h5" else model.save
            save(folder / f"{name}{ending}")
        arrays.update({f"{name}/{key}": value for key, value in arrays_of(model).items()})
        numbers[name] = numbers_of(model, model.loss, x, y)
        numbers[name]["next_epoch"] = next_epoch(model, x, y)
    (folder / "files.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(folder / "files.npz", **arrays)


if __name__ == "__main__":
    # By its own name, under which functions and classes are stored, not as `__main__`.
    from tests.data import make_files as this

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    this.make_files(folder)
    this.make_pickle(folder)
