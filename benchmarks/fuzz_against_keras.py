"""Random models and composites of Keras's losses: a tracked model against two oracles.

The oracles: the same composite in a plain `keras.Model`, and the sum by hand, of Keras's own calls
of the children on what the model predicts. Compared are `evaluate`, `fit` (numbers and weights),
`train_on_batch`, and `evaluate` after saving and loading. Seeded: case `n` is always the same.

    python benchmarks/fuzz_against_keras.py [--cases 2000] [--first 0] [--workers 2]

Measured: see the closing line of each run; none of them may differ.
"""

import argparse
import multiprocessing
import pathlib
import tempfile
import time
import warnings

import keras
import numpy as np
from keras import ops

import combined_losses as cl

SAMPLES, STEPS, FEATURES, UNITS = 7, 3, 3, 2
L = keras.losses
WRAPPED = L.MeanSquaredError.__bases__[0]  # what Keras makes of a function in `compile`


@keras.saving.register_keras_serializable("fuzz")
def cubic(y_true, y_pred):
    return ops.mean(ops.abs(y_true - y_pred) ** 3, axis=-1)


@keras.saving.register_keras_serializable("fuzz")
def surprise(y_true, y_pred):
    return -ops.log(ops.max(y_pred, axis=-1) + 0.1) * ops.cast(y_true + 1, y_pred.dtype)


# Each gives a component, and the loss that Keras calls for it. The first three of REGRESSION and
# the first two of CLASSES have no reduction of their own.
REGRESSION = [
    lambda r: ("mse", L.MeanSquaredError(reduction=r)),
    lambda r: ("mae", L.MeanAbsoluteError(reduction=r)),
    lambda r: (cubic, WRAPPED(cubic, reduction=r)),
    lambda r: (L.Huber(0.3, reduction=r), L.Huber(0.3, reduction=r)),
    lambda r: (L.LogCosh(reduction=r), L.LogCosh(reduction=r)),
    lambda r: (L.CosineSimilarity(reduction=r), L.CosineSimilarity(reduction=r)),
    lambda r: (L.KLDivergence(reduction=r), L.KLDivergence(reduction=r)),
    lambda r: (L.Poisson(reduction=r), L.Poisson(reduction=r)),
    lambda r: (L.BinaryCrossentropy(reduction=r), L.BinaryCrossentropy(reduction=r)),
    lambda r: (
        L.MeanSquaredLogarithmicError(reduction=r),
        L.MeanSquaredLogarithmicError(reduction=r),
    ),
]
CLASSES = [
    lambda r: ("sparse_categorical_crossentropy", L.SparseCategoricalCrossentropy(reduction=r)),
    lambda r: (surprise, WRAPPED(surprise, reduction=r)),
    lambda r: (L.SparseCategoricalCrossentropy(ignore_class=1, reduction=r),) * 2,
    lambda r: (L.SparseCategoricalCrossentropy(ignore_class=-1, reduction=r),) * 2,
]
REDUCTIONS = ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight"]
STRUCTURES = {
    "single": lambda a, b, c: a,
    "list": lambda a, b, c: [a, b],
    "three": lambda a, b, c: [a, b, c],
    "dict": lambda a, b, c: {"x": a, "y": b},
    "nested": lambda a, b, c: {"h": {"x": a, "y": b}, "z": c},
}


class Case:
    """One random model with its losses and data, drawn from `seed`."""

    def __init__(self, seed):
        self.rng = np.random.default_rng([17, seed])
        self.sequence = self.flip()
        self.masked = self.sequence and self.flip()
        self.structure = self.pick(list(STRUCTURES))
        self.classes = self.flip(0.25)
        self.children, self.plain = (CLASSES, 2) if self.classes else (REGRESSION, 3)
        in_list = self.structure in ("list", "three")
        self.heads = self.pick(["own", "shared", "sub-model"]) if in_list else "own"
        self.inputs = 1 + self.flip()
        if self.structure == "single" or self.heads == "sub-model":
            self.inputs = 1  # older versions of Keras refuse an input that no output reads
        self.regularized = self.flip()
        self.batch_size = self.pick([SAMPLES, 4, 3])
        count = {"single": 1, "list": 2, "dict": 2}.get(self.structure, 3)
        self.losses = [self.draw_loss() for _ in range(count)]
        if count > 1 and self.flip(0.3) and self.heads == "own":
            self.losses[int(self.rng.integers(1, count))] = None
        self.loss_weights = None
        if count > 1 and self.flip(0.3):
            self.loss_weights = [round(self.rng.uniform(0.2, 2), 2) for _ in range(count)]
        self.weighted = self.pick(["no", "no", "all", "each", "some"])
        self.weight_shape = self.pick(["(N,1)", "(N,T)"]) if self.sequence else "(N,)"
        self.data()

    def flip(self, chance=0.5):
        return bool(self.rng.random() < chance)

    def pick(self, options):
        return options[self.rng.integers(len(options))]

    def draw_loss(self):
        """The children of a composite, each with its reduction and weight, and how it is made."""
        size = int(self.rng.integers(1, 4))
        chosen = self.rng.choice(len(self.children), size, replace=False)
        kind = self.pick(["flat", "flat", "imposed", "nested"])
        imposed = self.pick(REDUCTIONS)
        reductions = [self.pick(REDUCTIONS) if i >= self.plain else REDUCTIONS[0] for i in chosen]
        if kind == "imposed":
            reductions = [imposed] * size
        weights = [round(self.rng.uniform(0.2, 2), 2) for _ in chosen]
        return kind, list(zip(map(int, chosen), reductions, weights, strict=True))

    def composite(self, drawn):
        if drawn is None:
            return None
        kind, parts = drawn
        own = [REDUCTIONS[0] if kind == "imposed" else r for _, r, _ in parts]
        losses = {f"c{i}": self.children[i](r)[0] for (i, _, _), r in zip(parts, own, strict=True)}
        weights = {f"c{i}": w for i, _, w in parts}
        if kind == "nested":
            return cl.CompositeLoss({"inner": cl.CompositeLoss(losses, weights)}, {"inner": 0.7})
        reduction = parts[0][1] if kind == "imposed" else "per_component"
        return cl.CompositeLoss(losses, weights, reduction=reduction)

    def data(self):
        shape = (SAMPLES, STEPS) if self.sequence else (SAMPLES,)
        draw = self.rng.uniform
        self.x = [draw(-1, 1, (*shape, FEATURES)).astype("float32") for _ in range(self.inputs)]
        if self.masked:
            gone = self.rng.random(shape) < 0.3
            gone[:, 0] = False
            for x in self.x:
                x[gone] = 0.0
        self.y = [draw(0.1, 0.9, (*shape, UNITS)).astype("float32") for _ in self.losses]
        if self.classes:
            self.y = [self.rng.integers(0, UNITS, shape).astype("int32") for _ in self.losses]
        sizes = {"(N,)": (SAMPLES,), "(N,1)": (SAMPLES, 1), "(N,T)": (SAMPLES, STEPS)}
        size = sizes[self.weight_shape]
        self.weights = [draw(0.1, 2, size).astype("float32") for _ in self.losses]
        if self.weighted == "all":
            self.weights = [self.weights[0]] * len(self.losses)
        for weight in self.weights:
            weight.flat[1] = 0.0

    def build(self, cls):
        """The model, always with the same weights; of what the losses are made."""
        keras.utils.set_random_seed(3)
        shape = (STEPS, FEATURES) if self.sequence else (FEATURES,)
        inputs = [keras.Input(shape) for _ in range(self.inputs)]
        mask = keras.layers.Masking(0.0) if self.masked else lambda x: x
        penalty = keras.regularizers.L2(0.01) if self.regularized else None
        trunk = keras.layers.Dense(4, activation="tanh", kernel_regularizer=penalty, name="trunk")
        hidden = [trunk(mask(x)) for x in inputs]
        outputs = self.build_heads([hidden[index % self.inputs] for index in range(3)])
        return cls(inputs, STRUCTURES[self.structure](*outputs))

    def build_heads(self, hidden):
        activation = "softmax" if self.classes else "sigmoid"

        def head(name):
            return keras.layers.Dense(UNITS, activation=activation, name=name)

        if self.heads == "shared":
            shared = head("head")
            return [shared(each) for each in hidden]
        if self.heads == "sub-model":
            held = keras.Input(hidden[0].shape[1:])
            count = len(self.losses)
            sub = keras.Model(held, [head("abc"[i])(held) for i in range(count)], name="sub")
            return [*sub(hidden[0]), *hidden[count:]]
        return [head("abc"[i])(each) for i, each in enumerate(hidden)]

    def structured(self, values):
        """Values in the structure of the outputs."""
        return STRUCTURES[self.structure](*values, *[None] * (3 - len(values)))

    def compiled(self, cls):
        model = self.build(cls)
        weights = None if self.loss_weights is None else self.structured(self.loss_weights)
        loss = self.structured([self.composite(drawn) for drawn in self.losses])
        model.compile(keras.optimizers.SGD(0.1), loss=loss, loss_weights=weights)
        return model

    def arguments(self):
        weight = None
        if self.weighted != "no":
            weights = list(self.weights)
            if self.weighted == "some" and len(weights) > 1:
                weights[-1] = None
            weight = self.structured(weights)
        return {
            "x": self.x if self.inputs > 1 else self.x[0],
            "y": self.structured(self.y),
            "sample_weight": weight,
        }

    def by_hand(self, model):
        """The loss of `evaluate`: the sum of Keras's own calls, each batch by its size."""
        total = 0.0
        for start in range(0, SAMPLES, self.batch_size):
            at = slice(start, start + self.batch_size)
            x = [each[at] for each in self.x]
            found = keras.tree.flatten(self.order(model(x if self.inputs > 1 else x[0])))
            value = float(sum(map(float, model.losses)))
            for index, drawn in enumerate(self.losses):
                factor = 1.0 if self.loss_weights is None else self.loss_weights[index]
                bare = self.weighted == "some" and 0 < index == len(self.losses) - 1
                weight = None if self.weighted == "no" or bare else self.weights[index][at]
                if weight is not None and self.sequence:  # as its values have them
                    weight = np.broadcast_to(weight, (len(weight), STEPS))
                kind, children = drawn or ("flat", ())
                outer = 0.7 if kind == "nested" else 1.0
                for child, reduction, c in children:
                    loss = self.children[child](reduction)[1]
                    value += (
                        factor * outer * c * float(loss(self.y[index][at], found[index], weight))
                    )
            total += len(x[0]) * value
        return total / SAMPLES

    def order(self, outputs):
        """The outputs in the order in which they were made; a dict may have been sorted."""
        if self.structure == "dict":
            return [outputs["x"], outputs["y"]]
        if self.structure == "nested":
            return [outputs["h"]["x"], outputs["h"]["y"], outputs["z"]]
        return outputs

    def __repr__(self):
        shown = (
            "sequence",
            "masked",
            "structure",
            "classes",
            "heads",
            "inputs",
            "regularized",
            "batch_size",
            "losses",
            "loss_weights",
            "weighted",
            "weight_shape",
        )
        return ", ".join(f"{name}={getattr(self, name)}" for name in shown)


def check(seed):
    """What differs in a case, as a list of texts."""
    case, wrong = Case(seed), []

    def compare(what, found, expected, rtol=2e-5):
        if not np.allclose(found, expected, rtol=rtol, atol=2e-6):
            wrong.append(f"{what}: {found} for {expected}")

    tracked, plain = case.compiled(cl.Model), case.compiled(keras.Model)
    how = {"batch_size": case.batch_size, "verbose": 0}
    logs = tracked.evaluate(**case.arguments(), **how, return_dict=True)
    compare("evaluate, by hand", logs["loss"], case.by_hand(tracked))
    per_step = case.weighted != "no" and case.sequence
    if not per_step:  # Keras takes (N, 1) on (N, T) for weights of another number of values
        compare(
            "evaluate, plain", logs["loss"], np.ravel(plain.evaluate(**case.arguments(), **how))[0]
        )
    parts = logs.get("regularization_loss", 0.0)
    single = len(case.losses) == 1
    names = [name for name in tracked.metrics_names if name.endswith("_loss")]
    for index, drawn in enumerate(case.losses):
        factor = 1.0 if case.loss_weights is None else case.loss_weights[index]
        prefix = "" if single else prefixes(case)[index] + "_"
        kind, children = drawn or ("flat", ())
        if kind == "nested":
            parts += factor * 0.7 * logs[f"{prefix}inner_loss"]
            continue
        for child, _, c in children:
            parts += factor * c * logs[f"{prefix}c{child}_loss"]
    compare(f"the sum of the parts {names}", parts, logs["loss"])
    fit = {**case.arguments(), **how, "shuffle": False, "epochs": 2}
    found, expected = tracked.fit(**fit).history["loss"], plain.fit(**fit).history["loss"]
    compare("fit", found, expected)
    for mine, theirs in zip(tracked.get_weights(), plain.get_weights(), strict=True):
        compare("a weight after fit", mine, theirs, rtol=1e-4)
    batch = {**case.arguments()}
    compare(
        "train_on_batch",
        np.ravel(tracked.train_on_batch(**batch))[0],
        np.ravel(plain.train_on_batch(**batch))[0],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        tracked.save(path)
        again = keras.models.load_model(path)
    before = tracked.evaluate(**case.arguments(), **how, return_dict=True)
    after = again.evaluate(**case.arguments(), **how, return_dict=True)
    if before.keys() != after.keys():
        wrong.append(f"keys after loading: {list(after)} for {list(before)}")
    else:
        compare("after loading", list(after.values()), list(before.values()))
    return wrong


def prefixes(case):
    """The names of the outputs in the logs."""
    if case.heads != "own":
        name = "head" if case.heads == "shared" else "sub"
        return [name, f"{name}_2", f"{name}_3"]
    return {"dict": ["x", "y"], "nested": ["h/x", "h/y", "z"]}.get(case.structure, ["a", "b", "c"])


def checked(seed):
    """`check`, in a process that is one of several."""
    warnings.simplefilter("ignore")
    try:
        return check(seed)
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    finally:
        keras.utils.clear_session(free_memory=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    start, differ = time.perf_counter(), 0
    seeds = range(arguments.first, arguments.first + arguments.cases)
    # TensorFlow keeps 10 MB of each case, so that 2,000 of them in one process would take 20 GB.
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.workers, maxtasksperchild=100) as pool:
        for seed, wrong in zip(seeds, pool.imap(checked, seeds), strict=True):
            if wrong:
                differ += 1
                print(f"case {seed}: {Case(seed)}", *wrong, sep="\n    ", flush=True)
    spent = time.perf_counter() - start
    backend = keras.backend.backend()
    print(f"{arguments.cases} cases on {backend} in {spent:.0f} s: {differ} differ", flush=True)


if __name__ == "__main__":
    main()
