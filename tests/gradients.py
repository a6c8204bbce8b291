"""The gradient of a function of one array, by whichever backend Keras runs on."""

import keras
import numpy as np


def gradient(function, x):
    """d function(x) / d x as a NumPy array; a tensor of several values counts as their sum.

    `function` is given a tensor of the dtype of `x` (float32 where `x` is a list or float64).
    """
    x = np.asarray(x)
    x = x.astype("float32") if x.dtype == "float64" else x
    return np.asarray(_BACKENDS[keras.backend.backend()](function, x))


def value_and_gradient(function, y_true, y_pred):
    """The values `function(y_true, y_pred)`, and the gradient of their sum by `y_pred`.

    On JAX both are one compiled program of `y_true` and `y_pred`, as in a training step: compiling
    them one by one, or operation by operation, takes several times as long.
    """
    if keras.backend.backend() != "jax":
        values = keras.ops.convert_to_numpy(function(y_true, y_pred))
        return values, gradient(lambda p: function(y_true, p), y_pred)
    import jax

    def total(y_true, y_pred):
        values = function(y_true, y_pred)
        return values.sum(), values

    slope, values = jax.jit(jax.grad(total, argnums=1, has_aux=True))(y_true, y_pred)
    return np.asarray(values), np.asarray(slope)


def compiled(function):
    """A function of arrays as one graph; torch has none that `fit` would use."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return lambda *data: tf.function(function)(*map(tf.constant, data))
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def _tensorflow(function, x):
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(function(x))
    return tape.gradient(value, x, unconnected_gradients="zero")


def _jax(function, x):
    import jax

    # Compiled as one: faster than the many small programs of a function never seen before.
    slope = jax.jit(jax.grad(lambda x: keras.ops.sum(function(x))))
    return slope(jax.numpy.asarray(x))


def _torch(function, x):
    import torch

    x = torch.tensor(x, requires_grad=True)
    value = function(x).sum()
    if not value.requires_grad:
        return np.zeros(x.shape, x.detach().numpy().dtype)
    return torch.autograd.grad(value, x, allow_unused=True, materialize_grads=True)[0]


_BACKENDS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
