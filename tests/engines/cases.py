"""What every engine must compute as one device does: losses, losses with rules, and trainings.

`report` prints a line of JSON for each case: its name, and by how much what all parts of a batch
give together differs from what one device gives on the whole batch.
"""

import abc
import contextlib
import functools
import json
import sys
import tempfile
import traceback
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
from keras import ops

import combined_losses as cl
from tests.contracts.registry import CASES, VARIANTS
from tests.weightings.gradients import PLAIN as GRADIENT_RULES
from tests.weightings.rules import PLAIN as VALUE_RULES

CUT, STEPS = 3, 3
ROUNDING = float(2 * np.finfo("float32").eps)

MAKE_RULE = {cls.__name__: make for cls, make in {**VALUE_RULES, **GRADIENT_RULES}.items()}
LEARNED = "losses that learn"
PLAIN = {"no rule": lambda: None, LEARNED: lambda: LEARNED}
READS_GRADIENTS = {cls.__name__ for cls in GRADIENT_RULES}


class Engine(abc.ABC):
    """One process of an engine.

    Attributes:
        process, processes: the number of this process, and how many there are.
        splits: the ways to split a batch: "even", "uneven", or "empty": one part has nothing.
        ways: the ways to train: "looped", in a loop of one's own, and "fitted", by `fit`.
        samples: of the data of a training.
    """

    process, processes = 0, 1
    splits = ("uneven",)
    ways = ("looped", "fitted")
    samples = 8

    def scope(self):
        """The block in which a model for all parts, and its loss, are made."""
        return contextlib.nullcontext()

    def used(self, rows):
        """How many of the samples of a case are used."""
        return rows

    @abc.abstractmethod
    def alone(self, make, *data):
        """Numbers and the slope by the predictions, of a loss on one device."""

    @abc.abstractmethod
    def together(self, make, split, *data):
        """Numbers, the slope that this process has, and the rows to which it belongs."""

    @abc.abstractmethod
    def train(self, way, make_rule, is_together, factor=1.0):
        """The arrays that a training ends with; the same in all processes."""

    def not_alike(self, arrays):
        """0 if all processes have the same bits, else infinity."""
        return 0.0


def difference(found, expected):
    """The greatest one, relative to the largest number where that is above 1."""
    scale = max(1.0, *(float(np.abs(each).max(initial=0)) for each in expected))
    pairs = zip(found, expected, strict=True)
    apart = [float(np.abs(np.asarray(one) - other).max(initial=0)) for one, other in pairs]
    return float("inf") if np.isnan(apart).any() else max(apart) / scale


# One step of a loss.


def step_of(loss):
    """The block of a step, in which rules move."""
    is_composite = isinstance(loss, cl.CompositeLoss)
    return loss.training_step() if is_composite else contextlib.nullcontext()


def state_of(loss):
    """What moves in a composite, of the numbers that are no counters or seeds."""
    found = loss.variables if isinstance(loss, cl.CompositeLoss) else []
    return [ops.convert_to_numpy(v).copy() for v in found if "float" in v.dtype]


def compared(engine, make, split, *data, masked=False):
    try:
        numbers, slope = engine.alone(make, *data)
    except ValueError:
        if not masked:
            raise
        return None  # the loss has reduced by itself, and takes no mask
    found, part, rows = engine.together(make, split, *data)
    return difference([*found, part], [*numbers, slope[rows]])


def _wrapped():
    """Losses beside the registry, as cases: of the whole batch, of the host, of a network."""
    rng = np.random.default_rng(0)
    data = {name: rng.random((8, 5, 2)).astype("float32") for name in ("y_true", "y_pred")}
    wrappers = {
        "Hardest": lambda: cl.wrappers.Hardest("mse", fraction=0.3, over="batch"),
        "NormalizedByPositives": lambda: cl.wrappers.NormalizedByPositives("mse"),
        "Permuted": lambda: cl.wrappers.Permuted("mse"),
        "Matched": lambda: cl.wrappers.Matched("mse"),
        "Perceptual": lambda: cl.losses.Perceptual(_eye(), ["seen"]),
        "Perceptual, style": lambda: cl.losses.Perceptual(_eye(), ["seen"], style=True),
    }
    for name, make in wrappers.items():
        yield SimpleNamespace(name=name, make=make, arguments={}, **data)


def _eye():
    """A network that is the same wherever it is made."""
    options = {"kernel_initializer": "ones", "activation": "tanh", "name": "seen"}
    return keras.Sequential([keras.Input((5, 2)), keras.layers.Conv1D(3, 2, **options)])


def losses(engine):
    """Every loss, with and without arguments, missing labels and sample weights."""
    # Also of few cases one gathers the predictions as they are.
    first = [case for case in CASES if case.loss is cl.losses.TripletSemiHard]
    others = [case for case in CASES if case.loss is not cl.losses.TripletSemiHard]
    for case in (*first, *others, *VARIANTS, *_wrapped()):
        for arguments in ({}, case.arguments):
            for name, make, *data in _variants(engine, case, arguments):
                for split in engine.splits:
                    label = f"{name}, {'all' if arguments else 'no'} arguments, {split}"
                    given, masked = (engine, make, split, *data), "missing" in name
                    yield label, functools.partial(compared, *given, masked=masked)


def _variants(engine, case, arguments):
    count = engine.used(len(case.y_pred))
    y_true, y_pred, name = case.y_true[:count], case.y_pred[:count], case.name
    weight = np.linspace(0.2, 1.5, count).astype("float32")

    def make():
        return case.make(**arguments)

    def masked():
        return cl.wrappers.Masked(make())

    yield name, make, y_true, y_pred, None
    yield f"{name}, weights", make, y_true, y_pred, weight
    if np.issubdtype(y_true.dtype, np.floating):
        missing = _with_missing(y_true)
        yield f"{name}, missing labels", masked, missing, y_pred, None
        yield f"{name}, missing labels, weights", masked, missing, y_pred, weight


def _with_missing(y_true):
    """Labels, of which the first samples lack many."""
    missing = y_true.copy()
    missing[0] = np.nan
    part = missing[1:CUT]
    part[np.random.default_rng(3).random(part.shape) < 0.4] = np.nan
    return missing


# A step of a loss beside another one, under a rule.


class Size(cl.losses.Loss):
    """A second component for any loss: the mean square of the predictions."""

    same_shape = False

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_pred), axis=tuple(range(1, len(y_pred.shape))))


def pairs(engine, every=False):
    """Losses with rules: every loss and every rule, or every loss with every rule."""
    names = [[n for n in MAKE_RULE if (n in READS_GRADIENTS) == reads] for reads in (False, True)]
    for index, case in enumerate(CASES):
        chosen = [*names[0], *names[1]] if every else [of[index % len(of)] for of in names]
        for rule in chosen:
            for split in engine.splits:
                label = f"{case.loss.__name__}, {rule}, {split}"
                yield label, functools.partial(_pair, engine, case, rule, split)


def _pair(engine, case, rule, split):
    """Without what two roundings of the predictions do on one device."""
    count = engine.used(len(case.y_pred))
    y_true, y_pred = case.y_true[:count], case.y_pred[:count]
    weight = np.linspace(0.2, 1.5, count).astype("float32")

    def make():
        return cl.CompositeLoss({"first": case.make(), "size": Size()}, weighting=MAKE_RULE[rule]())

    numbers, slope = engine.alone(make, y_true, y_pred, weight)
    moved_pred = y_pred * np.float32(1 + ROUNDING)
    moved, moved_slope = engine.alone(make, y_true, moved_pred, weight)
    rounding = difference([*moved, moved_slope], [*numbers, slope])
    found, part, rows = engine.together(make, split, y_true, y_pred, weight)
    return difference([*found, part], [*numbers, slope[rows]]) - rounding


# Trainings.


def data(samples=8, factor=1.0):
    """In the first samples most labels are missing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 4)).astype("float32") * np.float32(factor)
    y = rng.normal(size=(samples, 3)).astype("float32")
    y[:CUT][rng.random((CUT, 3)) < 0.6] = np.nan
    return x, y, rng.uniform(0.2, 1.5, samples).astype("float32")


@keras.saving.register_keras_serializable("tests")
class OfSigns(cl.wrappers.Wrapper):
    """The signs of a target are the labels."""

    def see(self, batch, label):
        return batch.replaced(y_true=ops.cast(batch.y_true[:, 2] > 0, "int32"))


@keras.saving.register_keras_serializable("tests")
class OfHalves(cl.wrappers.Wrapper):
    """Two embeddings, both of the prediction."""

    def see(self, batch, label):
        return batch.replaced(y_true=ops.flip(batch.y_pred, -1))


def composite(rule):
    """Of three components; with `LEARNED` in place of a rule, with two more that have variables."""
    parts = {"squared": cl.wrappers.Masked("mse"), "absolute": cl.wrappers.Masked("mae")}
    parts["under"] = cl.wrappers.Masked(cl.losses.UnderestimationPenalty())
    if rule == LEARNED:
        proxies = [[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]]
        parts["proxies"] = OfSigns(cl.losses.ProxyAnchor(2, 3, scale=2.0, proxies=proxies))
        parts["pairs"] = OfHalves(cl.losses.PairedContrastive(0.5, learn_temperature=True))
        rule = None
    return cl.CompositeLoss(parts, weights={"absolute": 0.5}, weighting=rule)


def network():
    keras.utils.set_random_seed(1)
    hidden = keras.layers.Dense(6, activation="tanh", kernel_regularizer="l2", name="hidden")
    return cl.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(3, name="last")])


def fitted(model, loss, data, **options):
    """What `fit` and `evaluate` log, and the weights at the end."""
    x, y, weight = data
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    given = {"sample_weight": weight, "validation_data": data, "epochs": STEPS}
    given |= {"batch_size": 8, "shuffle": False, "verbose": 0}
    history = model.fit(x, y, **given | options).history
    logs = [float(number) for key in sorted(history) for number in history[key]]
    evaluated = model.evaluate(x, y, batch_size=given["batch_size"], verbose=0)
    return [*logs, *model.get_weights(), *evaluated, *state_of(loss)]


class Change(keras.callbacks.Callback):
    """Changes a weight in the middle of training; later leaves all to a file, and reads it."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.model.loss.set_weight("absolute", 2.0)
        if epoch == 1:
            with tempfile.TemporaryDirectory() as folder:
                self.model.save_weights(Path(folder, "all.weights.h5"))
                for weight in self.model.weights:
                    weight.assign(weight + 1.0)
                self.model.load_weights(Path(folder, "all.weights.h5"))


def changed(model, loss, data, **options):
    """As `fitted`, with changes on the way, and what the saved model gives."""
    found = fitted(model, loss, data, callbacks=[Change()], **options)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.keras"))
        loaded = keras.saving.load_model(Path(folder, "model.keras"))
    x, y, _ = data
    return [*found, *loaded.evaluate(x, y, batch_size=options.get("batch_size", 8), verbose=0)]


FITS = {"fitted": fitted, "changed": changed}


def changes(engine):
    """Weights that are changed, and files that are written and read, in the middle of `fit`."""
    if "fitted" not in engine.ways:
        return
    names = ("no rule", "MagnitudeBalance", "UncertaintyWeighting", "ReLoBRaLo", "UPGrad")
    for name in (*names, LEARNED):
        make = {**PLAIN, **MAKE_RULE}[name]
        yield f"{name}, changed", functools.partial(_trained, engine, "changed", make)


def trainings(engine):
    """Every rule, in a loop and in `fit`; those of gradients at the output and the parameters."""
    for way in engine.ways:
        for name, make in {**PLAIN, **MAKE_RULE}.items():
            places = ("output", "parameters") if way == "fitted" else ("output",)
            for place in places if name in READS_GRADIENTS else (None,):
                make_rule = make if place is None else functools.partial(make, gradients=place)
                label = f"{name}{f' at the {place}' if place else ''}, {way}"
                yield label, functools.partial(_trained, engine, way, make_rule)


def _trained(engine, way, make_rule):
    """Without what two roundings of the data do on one device.

    The equations of `IMTLG`, for one, are ill conditioned where gradients are nearly parallel.
    """
    expected = engine.train(way, make_rule, False)
    moved = engine.train(way, make_rule, False, 1 + ROUNDING)
    found = engine.train(way, make_rule, True)
    rounding = difference(moved, expected)
    return max(difference(found, expected) - rounding, engine.not_alike(found))


GROUPS = {
    "losses": losses,
    "pairs": pairs,
    "every pair": functools.partial(pairs, every=True),
    "trainings": trainings,
    "changes": changes,
}


def chosen(cases, at_most):
    """At most so many of the cases, spread over all."""
    cases = list(cases)
    if not at_most or len(cases) <= at_most:
        return cases
    return [cases[i * len(cases) // at_most] for i in range(at_most)]


def report(engine, groups, at_most=0):
    """Prints, for each case, `[group, name, difference, what was raised]` in a line.

    The difference is None where the loss refuses the case on one device too.
    """
    for group in groups:
        for name, differs in chosen(GROUPS[group](engine), at_most):
            try:
                found = differs()
                line = [group, name, None if found is None else max(0.0, float(found)), ""]
            except Exception:
                line = [group, name, float("inf"), traceback.format_exc()]
            print(json.dumps(line), flush=True)


def main(engine):
    """The command line of a process: how many cases of a group at most (0: all), and groups."""
    at_most, *groups = sys.argv[1:]
    report(engine, groups, int(at_most))
