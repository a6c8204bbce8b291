"""A network of two layers in float64 NumPy: the gradient of every component, by hand."""

import keras
import numpy as np

import combined_losses as cl

NAMES = ("mse", "mae", "under")
# d value / d prediction of each component, per element of a row of m.
_SLOPES = {
    "mse": lambda p, y: 2 * (p - y),
    "mae": lambda p, y: np.sign(p - y),
    "under": lambda p, y: -np.where(y > p, 1.0, 0.0),
}


def under(y_true, y_pred):
    """The mask of missing labels."""
    return keras.ops.mean(keras.ops.relu(y_true - y_pred), axis=-1)


def data(seed=0, n=12):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 5)).astype("float32"), rng.normal(size=(n, 3)).astype("float32")


def build(weighting, optimizer=None, weights=None, l2=0.0, **kwargs):
    """A tracked model of this network, and its composite."""
    keras.utils.set_random_seed(1)
    layer = {"kernel_regularizer": keras.regularizers.L2(l2) if l2 else None}
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(6, activation="tanh", name="trunk", **layer)(inputs)
    outputs = keras.layers.Dense(3, name="head", dtype=kwargs.pop("head", None), **layer)(hidden)
    model = cl.Model(inputs, outputs)
    parts = {"mse": "mse", "mae": "mae", "under": under}
    loss = cl.CompositeLoss(parts, weights=weights, weighting=weighting)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss=loss, **kwargs)
    return model, loss


def parameters(model):
    """W1, b1, W2, b2 in float64."""
    return [keras.ops.convert_to_numpy(v.value).astype("float64") for v in layer_variables(model)]


def layer_variables(model):
    return [v for layer in model.layers for v in layer.trainable_variables]


def jacobians(theta, x, y, sample_weight=None):
    """The gradients of the components at the output, at the hidden layer and at the parameters.

    Returns:
        A dict from `"output"`, `"trunk"`, `"parameters"` and `"head"` to `(k, n)`.
    """
    w1, b1, w2, b2 = theta
    hidden = np.tanh(x @ w1 + b1)
    prediction = hidden @ w2 + b2
    weight = np.ones(len(x)) if sample_weight is None else sample_weight
    rows = {"output": [], "trunk": [], "parameters": [], "head": []}
    for name in NAMES:
        at_output = _SLOPES[name](prediction, y) * weight[:, None] / y.size
        at_trunk = at_output @ w2.T
        inner = at_trunk * (1 - hidden**2)
        head = [hidden.T @ at_output, at_output.sum(axis=0)]
        whole = [x.T @ inner, inner.sum(axis=0), *head]
        for place, found in (
            ("output", [at_output]),
            ("trunk", [at_trunk]),
            ("parameters", whole),
            ("head", head),
        ):
            rows[place].append(np.concatenate([np.ravel(each) for each in found]))
    return {place: np.stack(found) for place, found in rows.items()}


def split(direction, theta):
    """A direction `(n,)` in the shapes of the parameters."""
    ends = np.cumsum([each.size for each in theta])
    return [
        part.reshape(each.shape)
        for part, each in zip(np.split(direction, ends[:-1]), theta, strict=True)
    ]


def inverse_norms(rows):
    """The weights of `InverseGradientNorm`."""
    norms = np.linalg.norm(rows, axis=1)
    return norms.mean() / norms
