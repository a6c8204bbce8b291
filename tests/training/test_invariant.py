"""In every log `loss == sum(weight * component) + regularization_loss`, and each is what it claims.

Random combinations of children, reductions, sample weights, masks, regularisers and batch
sizes; the learning rate is 0, so that NumPy can tell the mean of the epoch.
"""

import contextlib

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.training import twin

CASES = 32  # every pair of 8 reductions and 4 shapes of sample weights
SAMPLES, STEPS, FEATURES, OUTPUTS = 10, 3, 4, 2
KEY = "{}_loss".format
REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight")


def worst_per_sample(y_true, y_pred):
    return ops.max(ops.abs(y_true - y_pred), axis=(1, 2))


def squares(y_true, y_pred):
    return ops.square(y_true - y_pred)


def batch_rms(y_true, y_pred):
    return ops.sqrt(ops.mean(ops.square(y_true - y_pred)))


class Whole(keras.losses.Loss):
    """A child with a `__call__` of its own, which has to be called whole."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        return ops.mean(ops.abs(ops.cast(y_true, y_pred.dtype) - y_pred))


class Bias(cl.losses.Loss):
    """A loss of the user's, on the base of this library."""

    def call(self, y_true, y_pred):
        return ops.square(ops.mean(y_pred - y_true, axis=-1))


def huber(t, p, delta=0.2):
    e = np.abs(t - p)
    return np.where(e <= delta, e**2 / 2, delta * e - delta**2 / 2).mean(-1)


def cosine(t, p):
    return -np.sum(t * p, -1) / np.linalg.norm(t, axis=-1) / np.linalg.norm(p, axis=-1)


def edges(t, p):
    return np.abs(np.abs(np.diff(t, axis=1)) - np.abs(np.diff(p, axis=1))).mean((1, 2))


# name -> (the component, given a reduction; its values, for y_true and y_pred (N, T, D)).
KERAS = {
    "mean_absolute_error": (keras.losses.MeanAbsoluteError, lambda t, p: np.abs(t - p).mean(-1)),
    "huber": (lambda **kw: keras.losses.Huber(0.2, **kw), huber),
    "log_cosh": (keras.losses.LogCosh, lambda t, p: np.log(np.cosh(p - t)).mean(-1)),
    "poisson": (keras.losses.Poisson, lambda t, p: (p - t * np.log(p)).mean(-1)),
    "binary": (
        keras.losses.BinaryCrossentropy,
        lambda t, p: -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(-1),
    ),
    "cosine": (keras.losses.CosineSimilarity, cosine),
}
OWN = {
    "under": (
        lambda **kw: cl.losses.UnderestimationPenalty(1.5, **kw),
        lambda t, p: 1.5 * np.maximum(t - p, 0).mean(-1),
    ),
    "asymmetric": (
        lambda **kw: cl.losses.AsymmetricError(3.0, 0.5, **kw),
        lambda t, p: (np.where(t > p, 3.0, 0.5) * (t - p) ** 2).mean(-1),
    ),
    "boundary": (lambda **kw: cl.losses.BoundaryDisagreement(axes=(1,), **kw), edges),
    "bias": (Bias, lambda t, p: (p - t).mean(-1) ** 2),
}
# These have no reduction of their own.
PLAIN = {
    "mse": ("mse", lambda t, p: ((t - p) ** 2).mean(-1)),
    "squares": (squares, lambda t, p: (t - p) ** 2),
    "worst": (worst_per_sample, lambda t, p: np.abs(t - p).max((1, 2))),
}
SCALAR = {
    "rms": (batch_rms, lambda t, p: np.sqrt(((t - p) ** 2).mean())),
    "whole": (Whole(), lambda t, p: np.abs(t - p).mean()),
}
# Their values have an axis of samples but none of steps.
COARSE = ("boundary", "worst")


class Case:
    """One random combination, drawn from `seed`."""

    def __init__(self, seed):
        self.rng = np.random.default_rng([2024, seed])
        reduction = (4 * (twin.PER_COMPONENT,) + REDUCTIONS)[seed % 8]
        self.weights_shape = (None, "(N,)", "(N,1)", "(N,T)")[(seed + seed // 8) % 4]
        self.masked = self.flip()
        self.regularized = self.flip()
        self.batch_size = self.choose([10, 4, 3])
        # JAX compiles every operation of an eager step by itself, which takes longer.
        self.eager = seed % 2 == 1 and keras.backend.backend() != "jax"
        self.unheard = self.masked  # what a loss of whole sequences cannot leave out
        self.composite = self.draw_composite(reduction, nested=True)
        self.warns = self.is_unheard(self.composite.children)

    def choose(self, options):
        return options[self.rng.integers(len(options))]

    def flip(self):
        return bool(self.rng.integers(2))

    def draw_composite(self, reduction, nested, imposed=False):
        imposed = imposed or reduction != twin.PER_COMPONENT
        pool = self.pool(imposed)
        names = self.rng.choice(sorted(pool), size=self.rng.integers(1, 4), replace=False)
        children = {str(name): self.draw_child(*pool[name]) for name in names}
        if nested and self.flip():
            inner = self.choose([twin.PER_COMPONENT, *REDUCTIONS])
            children["inner"] = self.draw_composite(inner, nested=False, imposed=imposed)
        weights = {name: round(self.rng.uniform(0.2, 3), 2) for name in children}
        losses = {name: child.loss for name, child in children.items()}
        loss = cl.CompositeLoss(losses, dict(weights), reduction=reduction)
        return twin.Composite(loss, children, weights, reduction)

    def pool(self, imposed):
        """The children, without those for which the weights or the reduction are an error."""
        pool = {**KERAS, **OWN, **PLAIN, **SCALAR}
        if imposed and (self.unheard or self.weights_shape):
            pool = {name: pool[name] for name in pool if name not in SCALAR}
        if self.weights_shape == "(N,T)" or (imposed and self.unheard):
            pool = {name: pool[name] for name in pool if name not in COARSE}
        return pool

    def draw_child(self, make, values):
        if not isinstance(make, type) and getattr(make, "__name__", "") != "<lambda>":
            return twin.Child(make, values)
        reduction = self.choose(REDUCTIONS)
        return twin.Child(make(reduction=reduction), values, reduction)

    def is_unheard(self, children):
        """Whether a child cannot honour the weights or the mask, which is worth a warning."""
        for name, child in children.items():
            if isinstance(child, twin.Composite) and self.is_unheard(child.children):
                return True
            if name in COARSE and self.unheard:
                return True
            # "whole" is given the weights, and the mask on `y_pred`, and applies them itself.
            if name == "rms" and (self.unheard or self.weights_shape):
                return True
        return False

    def data(self):
        rng = self.rng
        x = rng.normal(size=(SAMPLES, STEPS, FEATURES)).astype("float32")
        y = rng.uniform(0.1, 0.9, size=(SAMPLES, STEPS, OUTPUTS)).astype("float32")
        mask = None
        if self.masked:
            mask = rng.random((SAMPLES, STEPS)) < 0.7
            mask[:, 0] |= ~mask.any(axis=1)
            x[~mask] = 0.0
        shapes = {"(N,)": (SAMPLES,), "(N,1)": (SAMPLES, 1), "(N,T)": (SAMPLES, STEPS)}
        weight = None
        if self.weights_shape:
            weight = rng.uniform(0.5, 2, size=shapes[self.weights_shape]).astype("float32")
            weight.flat[1] = 0.0
        return x, y, weight, mask

    def model(self):
        kernel = self.rng.normal(size=(FEATURES, OUTPUTS)).astype("float32")
        dense = keras.layers.Dense(
            OUTPUTS,
            activation="sigmoid",
            kernel_initializer=keras.initializers.Constant(kernel),
            kernel_regularizer=keras.regularizers.L2(0.01) if self.regularized else None,
        )
        masking = [keras.layers.Masking(0.0)] if self.masked else []
        model = cl.Sequential([keras.Input((STEPS, FEATURES)), *masking, dense])
        penalty = 0.01 * np.sum(kernel.astype("float64") ** 2)
        return model, kernel.astype("float64"), penalty

    def expected(self, batch, penalty):
        """The logs, in their order."""

        def logs(part):
            entries = self.composite.entries("", part)
            total = self.composite.total(entries)
            if self.regularized:
                entries["regularization"] = penalty
                total += penalty
            return {"loss": total} | {KEY(name): value for name, value in entries.items()}

        return twin.epoch_mean(logs, batch, self.batch_size)

    def __repr__(self):
        names = ",".join(self.composite.children)
        parts = [self.composite.reduction, names, f"weights{self.weights_shape}"]
        parts += ["eager"] * self.eager + ["masked"] * self.masked
        parts += ["regularized"] * self.regularized
        return " ".join([*parts, f"batches of {self.batch_size}"])


def assert_adds_up(composite, logs, prefix=""):
    parts = {name: weight * logs[prefix + KEY(name)] for name, weight in composite.weights.items()}
    parts["regularization"] = logs.get(prefix + "regularization_loss", 0.0)
    scale = sum(map(abs, parts.values()))
    assert logs[prefix + "loss"] == pytest.approx(sum(parts.values()), rel=0, abs=1e-6 * scale)


@pytest.mark.parametrize("seed", range(CASES))
def test_logs_add_up_and_are_the_means_of_the_epoch(seed):
    case = Case(seed)
    x, y, weight, mask = case.data()
    model, kernel, penalty = case.model()
    model.compile(keras.optimizers.SGD(0.0), loss=case.composite.loss, run_eagerly=case.eager)
    expected_warning = (
        pytest.warns(UserWarning, match="cannot honour") if case.warns else contextlib.nullcontext()
    )
    with expected_warning:
        rows = slice(0, 7)
        held_out = tuple(None if part is None else part[rows] for part in (x, y, weight))
        history = model.fit(
            x,
            y,
            sample_weight=weight,
            batch_size=case.batch_size,
            shuffle=False,
            verbose=0,
            validation_data=held_out,
        ).history
    logs = {key: values[0] for key, values in history.items()}
    batch = twin.Batch(y, twin.sigmoid(x @ kernel), weight, mask)
    expected = case.expected(batch, penalty)
    expected |= {f"val_{key}": v for key, v in case.expected(batch[rows], penalty).items()}
    assert logs == pytest.approx(expected, rel=1e-5), repr(case)
    assert_adds_up(case.composite, logs)
    assert_adds_up(case.composite, logs, prefix="val_")


@pytest.mark.parametrize("child", ["rms", "worst"])
@pytest.mark.parametrize("eager", [False, True])
def test_a_child_that_cannot_honour_a_mask_counts_unweighted(child, eager):
    """It is given the original targets at masked steps; other children get neutral ones."""
    function, values = (SCALAR | PLAIN)[child]
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, STEPS, FEATURES)).astype("float32")
    y = rng.uniform(0.1, 0.5, size=(4, STEPS, FEATURES)).astype("float32")
    x[:, 1:] = 0.0
    model = cl.Sequential([keras.Input((STEPS, FEATURES)), keras.layers.Masking(0.0)])
    model.compile("sgd", loss=cl.CompositeLoss({child: function}), run_eagerly=eager)
    with pytest.warns(UserWarning, match=f"'{child}' cannot honour the mask"):
        logs = model.evaluate(x, y, verbose=0, return_dict=True)
    expected = np.mean(values(y.astype("float64"), x.astype("float64")))
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)
