"""What only JAX has: a step that is compiled once reads the state outside it once and for all."""

import jax


def is_traced(tensor):
    """Whether `tensor` stands for a value inside a function that is being compiled."""
    return isinstance(tensor, jax.core.Tracer)
