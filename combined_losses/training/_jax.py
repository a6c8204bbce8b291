"""What only JAX has: a step that is compiled once reads the state outside it once and for all."""

import jax


def is_compiling():
    """Whether a function is being compiled; a gradient alone, taken anew each time, is not."""
    return isinstance(jax.numpy.zeros(()), jax.core.Tracer)


def gradient(function):
    """The gradient of a function of one tensor to a scalar, itself differentiable."""
    return jax.grad(function)
